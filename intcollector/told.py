"""What events told last, as a State: of a relay, which has no maps to read.

Only what an event says can be in it: flows with their latencies, and the last value of a port or queue that a report
with news had in it. What is counted of all reports (packets, histograms, sources, largest values) is not.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Hashable, Sequence

import numpy as np

from .batch import FLOW, FLOW_KEY, POINT, PORT_STATISTICS, QUEUE_STATISTICS, Batch, State
from .layout import LAYOUT, FlowFlag, ReportFlag
from .series import NONE32, PORT, QUEUE

MAX_POINTS = LAYOUT.defines["MAX_POINTS"]
SMALLEST = 256
"""Rows that a table begins with."""


class Told:
    """The last of each flow, port and queue. One thread adds and forgets, another may ask for the state."""

    def __init__(self, max_flows: int) -> None:
        self._lock = threading.Lock()
        self._flows = Table(FLOW, max_flows)
        self._points = {kind: Table(POINT, MAX_POINTS - 1) for kind in (PORT, QUEUE)}

    def add(self, batch: Batch, partitions: np.ndarray) -> None:
        """batch: times since 1970, clock_ns 0. partitions: int (n,), which one each event is of."""
        with self._lock:
            self._add_flows(batch, partitions)
            for kind, value, number in (
                (PORT, "egress_port_tx_utilization", "egress_port_id"),
                (QUEUE, "queue_occupancy", "queue_id"),
            ):
                self._add_points(batch, kind, value, number)

    def forget(self, partitions: Collection[int]) -> None:
        """The flows of these: somebody else tells of them now. Ports and queues are told of in all partitions."""
        with self._lock:
            self._flows.forget(partitions)

    def state(self) -> State:
        """A copy, as the kernel's maps would have it: index 0 of ports and queues is nobody's."""
        with self._lock:
            keys = np.frombuffer(b"".join(self._flows.keys), FLOW_KEY)  # type: ignore[arg-type]
            flows = self._flows.rows[: len(self._flows.keys)].copy()
            told_ns = self._flows.seen[: len(flows)].astype(np.int64)
            points = {}
            for kind, table in self._points.items():
                points[kind] = np.zeros(len(table.keys) + 1, POINT)
                points[kind][1:] = table.rows[: len(table.keys)]
        return State(
            flow_keys=keys,
            flows=flows,
            ports=points[PORT],
            port_statistics=np.zeros(len(points[PORT]), PORT_STATISTICS),
            queues=points[QUEUE],
            queue_statistics=np.zeros(len(points[QUEUE]), QUEUE_STATISTICS),
            told_ns=told_ns,
        )

    def _add_flows(self, batch: Batch, partitions: np.ndarray) -> None:
        """Of flows with a path, as series.flow_points() has them."""
        reports, flags = batch.reports, batch.reports["flags"]
        counts = np.bincount(batch.hop_report, minlength=len(reports))
        has_path = (flags & (ReportFlag.INT | ReportFlag.POSTCARD) != 0) & (counts > 0)
        has_path &= flags & ReportFlag.INTERMEDIATE == 0
        has_path &= flags & (ReportFlag.FLOW_IPV4 | ReportFlag.FLOW_IPV6) != 0
        rows = np.flatnonzero(has_path)
        if not len(rows):
            return
        keys = np.zeros(len(rows), FLOW_KEY)
        for name in ("source_port", "destination_port", "protocol"):
            keys[name] = reports[name][rows]
        for name in ("source", "destination"):
            keys[name] = reports[f"flow_{name}"][rows]
        keys["ip_version"] = np.where(flags[rows] & ReportFlag.FLOW_IPV4, 4, 6)
        texts = keys.view(f"V{FLOW_KEY.itemsize}").tolist()
        which, places = self._flows.put(texts, reports["received_ns"][rows], partitions[rows])
        rows = rows[which]
        told = self._flows.rows
        told[places] = np.zeros(1, FLOW)
        told["flags"][places] = FlowFlag.PATH  # what postcards were put together of is in order as well
        told["hop_count"][places] = counts[rows]
        told["latency"][places] = reports["flow_latency"][rows]
        told["time_unit"][places] = reports["time_unit"][rows]
        place = np.full(len(reports), -1)
        place[rows] = places
        hops = np.flatnonzero(place[batch.hop_report] >= 0)
        at = place[batch.hop_report[hops]], batch.hop_index[hops]
        told["hops"]["switch_id"][at] = batch.hops["switch_id"][hops]
        told["hops"]["latency"][at] = batch.hops["latency"][hops]

    def _add_points(self, batch: Batch, kind: int, value: str, number: str) -> None:
        """Every value that an event has, whether that value was the news or not: of the hops of its stack, and of the
        reporting switch itself."""
        local = np.flatnonzero(batch.reports["flags"] & ReportFlag.LOCAL)

        def column(name: str) -> np.ndarray:
            return np.concatenate([batch.hops[name], batch.reports["local"][name][local]])

        values, switches, numbers = column(value), column("switch_id"), column(number)
        seen = batch.reports["received_ns"][np.concatenate([batch.hop_report, local])]
        has = np.flatnonzero((values != NONE32) & (switches != NONE32))
        if not len(has):
            return
        keys = switches[has].astype(np.int64) << 16 | numbers[has]
        order = np.lexsort((seen[has], keys))
        last = order[np.append(keys[order][1:] != keys[order][:-1], True)]
        table = self._points[kind]
        which, places = table.put(keys[last].tolist(), seen[has][last], np.zeros(len(last), np.intp))
        rows = has[last[which]]
        points = table.rows
        points["kind"][places] = kind
        for name, said in (("value", values), ("switch_id", switches), ("id", numbers)):
            points[name][places] = said[rows]


class Table:
    """Rows by key, a limited number of them: what was told longest ago goes. keys: of the rows, in their order.
    seen: u64, when each was told, ns since 1970."""

    def __init__(self, dtype: np.dtype, limit: int) -> None:
        self._limit = limit
        self.keys: list[Hashable] = []
        self._place: dict[Hashable, int] = {}
        self.rows = np.zeros(0, dtype)
        self.seen = np.zeros(0, "<u8")
        self._partition = np.zeros(0, np.intp)

    def put(self, keys: Sequence[Hashable], seen: np.ndarray, partitions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places for what is told: (which of the keys, the row of each). Of a key that is there twice, or whose row is
        of a later time, only the latest counts. A Python loop over keys: they are looked up in a dict."""
        latest = {keys[i]: i for i in np.argsort(seen, kind="stable").tolist()}
        if len(latest) > self._limit:
            latest = dict(sorted(latest.items(), key=lambda one: int(seen[one[1]]))[-self._limit :])
        new = [key for key in latest if key not in self._place]
        if len(self.keys) + len(new) > self._limit:
            self._forget_oldest(len(self.keys) + len(new) - self._limit, latest)
        self._place.update(zip(new, range(len(self.keys), len(self.keys) + len(new)), strict=True))
        self.keys += new
        self._grow()
        which = np.fromiter(latest.values(), np.intp, len(latest))
        places = np.fromiter(map(self._place.__getitem__, latest), np.intp, len(latest))
        fresh = seen[which] >= self.seen[places]
        which, places = which[fresh], places[fresh]
        self.seen[places], self._partition[places] = seen[which], partitions[which]
        return which, places

    def forget(self, partitions: Collection[int]) -> None:
        """All rows that these told last."""
        self._keep(np.flatnonzero(~np.isin(self._partition[: len(self.keys)], list(partitions))))

    def _forget_oldest(self, count: int, spared: Collection[Hashable]) -> None:
        """At least so many, and some more, so that it is not done for each new key; but not those that are spared."""
        others = np.ones(len(self.keys), bool)
        others[[self._place[key] for key in spared if key in self._place]] = False
        rows = np.flatnonzero(others)
        count = min(max(count, self._limit // 16), len(rows))
        oldest = rows[np.argsort(self.seen[rows], kind="stable")[:count]]
        self._keep(np.delete(np.arange(len(self.keys)), oldest))

    def _keep(self, rows: np.ndarray) -> None:
        self.keys = [self.keys[row] for row in rows.tolist()]
        self._place = {key: row for row, key in enumerate(self.keys)}
        for name in ("rows", "seen", "_partition"):
            setattr(self, name, getattr(self, name)[rows])

    def _grow(self) -> None:
        size, needed = len(self.rows), len(self.keys)
        if needed > size:
            size = min(max(SMALLEST, needed, 2 * size), self._limit)
            for name in ("rows", "seen", "_partition"):
                before = getattr(self, name)
                after = np.zeros(size, before.dtype)
                after[: len(before)] = before
                setattr(self, name, after)
