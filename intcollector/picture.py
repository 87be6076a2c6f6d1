"""What there is to see of a collector now, as plain dicts: the page, the API, `top` and the demo show it (docs/api.md).

    State --> Pictures.look() --> {"collector": .., "network": .., "flows": [..], ...}
    Batch --> Pictures.heard()    which flows changed their path, since the maps say only where a flow is now

What the arrays mean is said in series.py; here it is put beside what was there a moment ago. A number that is not known
is None. A rate is over the time since the look before; of a counter that went back, which began anew, it is not known.
At most so many of each kind are shown as a person can look at; how many there are beside is said.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import postcards, series
from .batch import FLOW_KEY, Batch, State
from .config import Config
from .layout import ACCEPTED, HEAD, MAX_HOPS, OUTCOMES, Change, FlowFlag, ReportFlag, offset
from .outcomes import MEANINGS
from .seen import Interface
from .series import NONE32, Counts, Histogram, Series

API = 1

FLOWS, LINKS, SWITCHES, POINTS, DROPS, SOURCES = 1000, 2000, 1000, 50, 200, 1000
"""How many are shown at most; POINTS: of queues, and of ports."""
AT_A_TIME = 1 << 13
"""Flows whose hops are looked at together."""
HISTORY_S = 300
RECENT_S = 60
SNAPSHOT_S = 5.0
"""How often the histograms are remembered, so that there are some of RECENT_S ago."""
STAYS_S = 10.0
"""A flow that is shown stays among those shown while it was seen in so many seconds: the list does not dance."""
HOPS_KEPT = 1 << 20
"""Latencies of single hops that are remembered, of all looks."""
CHANGES = 8
"""Changes of a flow's path that are remembered."""
QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99}
PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 33: "DCCP", 47: "GRE", 50: "ESP", 58: "ICMPv6", 132: "SCTP"}
KINDS = {kind: [at for at, name in enumerate(OUTCOMES) if MEANINGS[name].kind == kind] for kind in
         ("report", "malformed", "passed", "undecoded")}  # fmt: skip

Picture: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Around:
    """What is to be said and does not stand in the maps. started: seconds since 1970. problems: by exporter, one
    sentence or None. relay: a relay's own counters."""

    kind: str = "collector"
    version: str = ""
    host: str = ""
    started: float = 0.0
    interfaces: Sequence[Interface] = ()
    not_ready: str | None = None
    problems: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    relay: Mapping[str, Any] | None = None


# --- small things -----------------------------------------------------------------------------------------------------


def rate(now: float | None, before: float | None, seconds: float | None) -> float | None:
    """A second; None: not known, as of what was not there before, or began anew."""
    if now is None or before is None or not seconds or now < before:
        return None
    return round((now - before) / seconds, 3)


def or_none(values: Iterable[Any]) -> list[Any]:
    """-1 and NaN, as series.py has what is missing, are None."""
    return [None if v != v or v == -1 else v for v in values]


_POWERS = np.array([float(f"1e{k}") for k in range(23)])


def digits(values: np.ndarray, count: int = 4) -> np.ndarray:
    """So many significant digits of numbers: a spark line needs no more, and a thousand of them are shorter."""
    with np.errstate(divide="ignore", invalid="ignore"):
        places = count - 1 - np.floor(np.log10(np.abs(values)))
    whole = _POWERS[np.nan_to_num(places, nan=0, posinf=0, neginf=0).clip(0, 22).astype(int)]
    return np.round(values * whole) / whole


def flow_id(key: bytes) -> str:
    """The name of a flow in the API: 16 hex digits, the same in every run. key: the bytes of a FLOW_KEY."""
    return hashlib.blake2b(key, digest_size=8).hexdigest()


_ODD = np.uint64(series.ODD)
_SEED = np.uint64(int.from_bytes(os.urandom(8), "little") | 1)


def key_hashes(keys: np.ndarray) -> np.ndarray:
    """FLOW_KEY (n,) -> u64 (n,), to find a flow among many. Nobody outside knows the seed, so nobody can make two flows
    meet; by chance, among a million they do once in 10^7 looks."""
    return _mixed(np.ascontiguousarray(keys).view("<u8").reshape(len(keys), WORDS).T)


def event_hashes(reports: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """u64 (k,): as key_hashes(), of the flows that some reports are about: of the words as they lie there, as a drain
    may bring thousands."""
    words = np.ascontiguousarray(reports).view("<u8").reshape(len(reports), HEAD.itemsize // 8)
    addresses = [words[rows, at + k] for at in _ADDRESSES for k in (0, 1)]
    some = {name: reports[name][rows].astype(np.uint64) for name in ("source_port", "destination_port", "protocol")}
    rest = some["source_port"] | some["destination_port"] << np.uint64(16) | some["protocol"] << np.uint64(32)
    version = series.flow_version(reports["flags"][rows]).astype(np.uint64)
    return _mixed([*addresses, rest | version << np.uint64(40)])


WORDS = FLOW_KEY.itemsize // 8
_ADDRESSES = tuple(offset(HEAD, name) // 8 for name in ("flow_source", "flow_destination"))


def _mixed(words: Iterable[np.ndarray]) -> np.ndarray:
    mixed: Any = _SEED
    for word in words:
        mixed = (mixed ^ word) * _ODD
        mixed = mixed ^ mixed >> np.uint64(29)
    return mixed


def find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of wanted is in known (ascending); -1: nowhere."""
    if not len(known):
        return np.full(len(wanted), -1)
    at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def some_of(batch: Batch, rows: np.ndarray) -> Batch:
    """A few events with their hops: what Batch.only() does, in a time that does not grow with the batch. rows:
    ascending. Of records take() copies whole ones, 50 times as quick as an index, which copies field by field."""
    first, end = np.searchsorted(batch.hop_report, rows), np.searchsorted(batch.hop_report, rows, "right")
    counts = end - first
    hops = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return Batch(
        batch.reports.take(rows), batch.hops.take(hops), np.repeat(np.arange(len(rows)), counts),
        batch.hop_index[hops], batch.clock_ns,
    )  # fmt: skip


def path_list(ids: np.ndarray) -> list[int | None]:
    """u32 (MAX_HOPS + 1,), as event_paths() -> switch ids in travel order, None for one that did not say."""
    kept = ids[1 : 1 + min(int(ids[0]), MAX_HOPS)][::-1].tolist()
    return [None if i == NONE32 else i for i in kept]


def path_text(path: Sequence[int | None]) -> str:
    """`4 > ? > 1`"""
    return " > ".join("?" if switch is None else str(switch) for switch in path)


def _by_name(found: Iterable[Series | Histogram]) -> dict[str, Any]:
    return {one.metric.name: one for one in found}


def _rows(one: Series) -> list[tuple[Any, ...]]:
    """Labels of each row, None for none: text where they are addresses or names, else numbers."""
    columns = []
    for column in one.labels.values():
        whole = column.dtype.kind == "i"
        columns.append(or_none(column.tolist()) if whole else [text or None for text in series.texts(column)])
    return list(zip(*columns, strict=True))


# --- what is remembered of a look -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Look:
    """What the next picture compares with. hashes: ascending, of all flows with a path; reports: theirs."""

    at_s: float
    collector: Mapping[str, int]
    outcomes: list[int]
    sources: Mapping[tuple[Any, ...], tuple[int, int]]
    drops: Mapping[tuple[Any, ...], int]
    hashes: np.ndarray
    reports: np.ndarray
    ports: series.PortCounts
    hops: Mapping[int, int]  # by switch


class Samples(list["float | None"]):
    """Numbers, and in `text` what they are in JSON: to spell all of them anew with each picture is dear."""

    def __init__(self, values: Iterable[float | None], texts: Iterable[str]) -> None:
        super().__init__(values)
        self._texts = texts

    @property
    def text(self) -> str:
        return f"[{','.join(self._texts)}]"


class Shown:
    """The flows that are shown, each in a slot of arrays, with what is remembered of them: latencies, changes of path.

    A change of path is what the kernel program told: each is an event, however short the path was another. So a path
    that changes and changes back between two looks at the maps has changed twice. Only where events were lost the maps
    know better: a stack's path that two looks running show, and no event told of, counts as one change, at the time it
    was seen. Events tell where a path leads, not that it is another one, so that what was seen in the maps first and
    told afterwards is not counted again.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slots: dict[int, int] = {}  # hash -> slot
        self.sorted = np.zeros(0, np.uint64), np.zeros(0, np.intp)  # the same, ascending by hash
        self.free = list(range(FLOWS))[::-1]
        self.looks = 0
        self.times: collections.deque[float] = collections.deque(maxlen=HISTORY_S)
        self.hops: collections.deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = collections.deque()
        """Of each look: where a slot's hops begin and end; switch ids and latencies of all, nearest the sink first."""
        self.hops_kept = 0
        self.ids = [""] * FLOWS
        self.began = np.zeros(FLOWS, np.int64)  # at which look
        self.seen_ns = np.zeros(FLOWS, np.int64)
        self.latency_s = np.full((HISTORY_S, FLOWS), np.nan, np.float32)
        self.samples: collections.deque[tuple[list[float | None], list[str]]] = collections.deque(maxlen=RECENT_S)
        """Of each look the latencies of all slots, and the same as JSON."""
        self.path = np.full((FLOWS, MAX_HOPS + 1), NONE32, "<u4")
        self.mapped = np.zeros(FLOWS, bool)  # path is of the maps: an event that leads there told what is known
        self.untold = np.zeros(FLOWS, bool)  # the maps had another path at the last look
        self.count = np.zeros(FLOWS, np.int64)
        self.changed_ns = np.zeros((FLOWS, CHANGES), np.int64)  # since 1970; the last is at (count - 1) % CHANGES
        self.before = np.zeros((FLOWS, CHANGES, MAX_HOPS + 1), "<u4")
        self.after = np.zeros((FLOWS, CHANGES, MAX_HOPS + 1), "<u4")

    def heard(self, batch: Batch, rows: np.ndarray, hashes: np.ndarray, links: postcards.Links) -> None:
        """Events of a batch told that flows have another path: rows, (n,), with the hashes of their flows, in the order
        they were told. No loop over events, and the hops of three of each flow at most are looked at."""
        with self.lock:
            known, slots = self.sorted
            at = find(known, hashes)
            shown = np.flatnonzero(at >= 0)
            if not len(shown):
                return
            slot, rows = slots[at[shown]], rows[shown]
            order = np.argsort(slot.astype(np.int16), kind="stable")  # of so small numbers it is quick
            slot, rows = slot[order], rows[order]
            first = np.flatnonzero(np.append(True, slot[1:] != slot[:-1]))
            last = np.append(first[1:], len(slot)) - 1
            before_last = np.maximum(last - 1, first)
            of = slot[first]
            mapped = np.flatnonzero(self.mapped[of])
            wanted = np.zeros(len(batch), bool)
            for which in (first[mapped], before_last, last):
                wanted[rows[which]] = True
            paths, place = _paths_told(batch, wanted, links), np.cumsum(wanted) - 1
            changes = last - first + 1
            changes[mapped] -= _same(self.path[of[mapped]], paths[place[rows[first[mapped]]]])
            after = paths[place[rows[last]]]
            before = np.where((last > first)[:, None], paths[place[rows[before_last]]], self.path[of])
            times_ns = batch.reports["received_ns"][rows[last]].astype(np.int64) + batch.clock_ns
            some = np.flatnonzero(changes > 0)
            self._changed(of[some], changes[some], before[some], after[some], times_ns[some])
            self.untold[of] = self.mapped[of] = False

    def _changed(
        self, slots: np.ndarray, changes: np.ndarray, before: np.ndarray, after: np.ndarray, times_ns: np.ndarray
    ) -> None:
        self.count[slots] += changes
        place = (self.count[slots] - 1) % CHANGES
        # of those between it is not remembered what they were
        for skipped in range(1, min(CHANGES, int(changes.max(initial=1)))):
            some = changes > skipped
            self.changed_ns[slots[some], (self.count[slots[some]] - 1 - skipped) % CHANGES] = 0
        self.changed_ns[slots, place] = times_ns
        self.before[slots, place], self.after[slots, place] = before, after
        self.path[slots] = after

    def look(
        self,
        hashes: np.ndarray,
        ids: Sequence[str],
        paths: np.ndarray,
        stacks: np.ndarray,
        latency_s: np.ndarray,
        hop_latency_s: np.ndarray,
        seen_ns: np.ndarray,
        time_s: float,
    ) -> np.ndarray:
        """What the maps say of the flows that are shown now, (n,) each, hop_latency_s of all their hops, one behind the
        other; other flows are forgotten. Returns their slots."""
        with self.lock:
            wanted = hashes.tolist()
            for gone in self.slots.keys() - set(wanted):
                self.free.append(self.slots.pop(gone))
            fresh = [row for row, one in enumerate(wanted) if one not in self.slots]
            for row in fresh:
                slot = self.slots[wanted[row]] = self.free.pop()
                self.ids[slot] = ids[row]
            of = np.fromiter((self.slots[one] for one in wanted), np.intp, len(wanted))
            new = of[fresh]
            self.began[new], self.count[new], self.seen_ns[new] = self.looks, 0, -1
            self.path[new], self.mapped[new], self.untold[new] = paths[fresh], True, False
            self.latency_s[:, new] = np.nan

            differs = ~_same(self.path[of], paths)
            untold = differs & self.untold[of] & stacks
            if untold.any():
                rows = of[untold]
                now = np.full(len(rows), int(time_s * 1e9))
                self._changed(rows, np.ones(len(rows), np.int64), self.path[rows], paths[untold], now)
                self.mapped[rows] = True
            self.untold[:] = False
            self.untold[of] = differs & ~untold & stacks  # of postcards the order varies, and events tell it alone
            heard_of = seen_ns != self.seen_ns[of]
            self.seen_ns[of] = seen_ns
            row = self.latency_s[self.looks % HISTORY_S]
            row[:] = np.nan
            row[of] = np.where(heard_of, latency_s, np.nan)
            values = or_none(digits(row.astype(np.float64)).tolist())
            self.samples.append((values, ["null" if value is None else repr(value) for value in values]))
            self._remember(of, paths, heard_of, hop_latency_s)
            self.looks += 1
            self.times.append(time_s)
            order = np.argsort(hashes)
            self.sorted = hashes[order], of[order]
            return of

    def _remember(self, of: np.ndarray, paths: np.ndarray, heard_of: np.ndarray, hop_latency_s: np.ndarray) -> None:
        """Hop latencies of a look, one behind the other."""
        counts = paths[:, 0].astype(np.int64)
        ends = np.cumsum(counts)
        place = np.full((FLOWS, 2), -1, np.int32)
        place[of] = np.stack([ends - counts, ends], axis=1)
        switches = paths[:, 1:][np.arange(MAX_HOPS) < counts[:, None]]
        latency_s = np.where(np.repeat(heard_of, counts), hop_latency_s, np.nan).astype(np.float32)
        self.hops.append((place, switches, latency_s))
        self.hops_kept += len(switches)
        while len(self.hops) > HISTORY_S or self.hops_kept > HOPS_KEPT:
            self.hops_kept -= len(self.hops.popleft()[1])

    def _hop_history(self, slot: int, looks: int) -> list[dict[str, Any]]:
        """Of the last looks: each switch of the path now, in travel order, then those that were on it: its latencies;
        the sum, where it was there twice."""
        said = list(self.hops)[-looks:] if looks else []
        found: dict[int, list[float | None]] = {}
        for at, (place, switches, latency_s) in reversed(list(enumerate(said, looks - len(said)))):
            begin, end = place[slot].tolist()
            for hop in range(end - 1, begin - 1, -1):
                if switches[hop] != NONE32:
                    column = found.setdefault(int(switches[hop]), [None] * looks)
                    if not np.isnan(latency_s[hop]):
                        column[at] = (column[at] or 0.0) + float(latency_s[hop])
        return [
            {"switch_id": switch, "latency_s": [None if v is None else float(f"{v:.4g}") for v in column]}
            for switch, column in found.items()
        ]

    def recent(self, slots: np.ndarray) -> list[Samples]:
        """Latencies at the last looks, the newest last, of each slot since it is shown; None: no report since the look
        before, or no latency in it."""
        values, texts = (list(zip(*rows, strict=True)) for rows in zip(*self.samples, strict=True))
        began = (self.began[slots] - (self.looks - len(self.samples))).clip(min=0).tolist()
        return [
            Samples(values[slot][start:], texts[slot][start:])
            for slot, start in zip(slots.tolist(), began, strict=True)
        ]

    def last_changes(self, slots: np.ndarray) -> list[tuple[int, float | None, list[int | None] | None]]:
        """Of each: (how often its path changed, when last, the path before that)."""
        with self.lock:
            counts = self.count[slots]
            place = (counts - 1) % CHANGES
            times, before = self.changed_ns[slots, place], self.before[slots, place]
        return [
            (count, round(time_ns / 1e9, 3), path_list(path)) if count else (0, None, None)
            for count, time_ns, path in zip(counts.tolist(), times.tolist(), before, strict=True)
        ]

    def details(self, flow: str) -> dict[str, Any] | None:
        """History and changes of a flow that is shown, by its id."""
        with self.lock:
            slot = next((slot for slot in self.slots.values() if self.ids[slot] == flow), None)
            if slot is None:
                return None
            looks = np.arange(max(self.began[slot], self.looks - HISTORY_S), self.looks)
            values = or_none(digits(self.latency_s[looks % HISTORY_S, slot].astype(np.float64)).tolist())
            times = list(self.times)[-len(values) :] if values else []
            count = int(self.count[slot])
            places = [k % CHANGES for k in range(max(0, count - CHANGES), count)]
            return {
                "history": {
                    "time": [round(time_s, 3) for time_s in times],
                    "latency_s": values,
                    "hops": self._hop_history(slot, len(values)),
                },
                "changes": [
                    {
                        "time": round(self.changed_ns[slot, place] / 1e9, 3),
                        "before": path_list(self.before[slot, place]),
                        "after": path_list(self.after[slot, place]),
                    }
                    for place in places
                    if self.changed_ns[slot, place]
                ],
            }


def _paths_told(batch: Batch, wanted: np.ndarray, links: postcards.Links) -> np.ndarray:
    """event_paths() of the events that wanted (bool (n,)) names, hops in order."""
    rows = np.flatnonzero(wanted)
    if len(rows) * 8 > len(batch) and not (batch.reports["flags"][rows] & ReportFlag.POSTCARD).any():
        return series.event_paths(batch, wanted)  # of so many to copy none is quicker
    told = postcards.in_order(some_of(batch, rows), links)
    return series.event_paths(told, np.ones(len(told), bool))


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """bool (n,): paths of the same switches, as far as they are kept."""
    return (one[:, 1:] == other[:, 1:]).all(axis=1)


# --- pictures ---------------------------------------------------------------------------------------------------------


class Pictures:
    """Each look at the maps becomes a picture, by what was there before. look() and details() from any thread, one at a
    time; heard() from another."""

    def __init__(self, began_s: float | None = None) -> None:
        """began_s: when there was nothing in the maps yet, by the clock of look()'s at_s, if that is known."""
        self.shown = Shown()
        self._before: Look | None = None
        self._snapshots: collections.deque[tuple[float, Histogram | None]] = collections.deque()
        if began_s is not None:
            self._snapshots.append((began_s, None))
        self._history: collections.deque[tuple[float | None, ...]] = collections.deque(maxlen=HISTORY_S)

    def heard(self, batch: Batch, config: Config) -> None:
        """Take note of the paths that changed, of flows that are shown."""
        if not len(self.shown.sorted[0]):
            return
        reports = batch.reports
        rows = np.flatnonzero(reports["changes"] & np.uint16(Change.PATH))
        if len(rows):
            rows = rows[series.hops_are_path(reports["flags"][rows])]
            self.shown.heard(batch, rows, event_hashes(reports, rows), config.links)

    def path_before(self, key: bytes, time_ns: int) -> list[int | None] | None:
        """The path that a flow had before a change at that time, if that is remembered. key: a FLOW_KEY's bytes."""
        (hashed,) = key_hashes(np.frombuffer(key, FLOW_KEY)).tolist()
        with self.shown.lock:
            slot = self.shown.slots.get(hashed)
            if slot is None:
                return None
            (places,) = np.nonzero(self.shown.changed_ns[slot] == time_ns)
            return path_list(self.shown.before[slot, places[0]]) if len(places) else None

    def look(
        self, state: State, config: Config, exporters: Mapping[str, Counts], around: Around, time_s: float, at_s: float
    ) -> Picture:
        """A picture. time_s: since 1970; at_s: of a clock that is never set. Without diagnosis and events, which are
        found by others, and put in by who asks."""
        before = self._before
        seconds = None if before is None else at_s - before.at_s
        is_relay = around.kind == "relay"
        of_sources = {} if is_relay else _by_name(series.source_series(state, config))
        of_drops = {} if is_relay else _by_name(series.drop_series(state, config))
        of_ports = _by_name(series.port_series(state))
        of_queues = _by_name(series.queue_series(state))
        outcomes = state.counters["outcomes"][: len(OUTCOMES)].astype(np.int64).tolist()

        sources, known_sources = _sources(of_sources, before, seconds)
        drops, known_drops = _drops(of_drops, before, seconds)
        flows, network, hashes, reports = self._flows(state, config, before, seconds, time_s, is_relay)
        collector = self._collector(state, config, around, outcomes, sources, known_sources, drops)
        collector["flows_shown"] = len(flows["flows"])
        counted = {name: collector[name] for name in COUNTED if collector[name] is not None}
        for name in COUNTED:
            then = before.collector.get(name) if before else None
            collector[f"{name}_per_s"] = rate(collector[name], then, seconds)
        ports = series.port_counts(state)
        switches = [] if is_relay else self._switches_of(of_ports, before, seconds, at_s)
        hops = {one["switch_id"]: one["hops"] for one in switches}
        after = Look(at_s, counted, outcomes, known_sources, known_drops, hashes, reports, ports, hops)

        if seconds is not None:
            names = ("reports_per_s", "events_per_s", "malformed_per_s", "reports_lost_per_s")
            self._history.append((round(time_s, 3), *(collector[name] for name in names)))
        picture = {
            "api": API,
            "time": round(time_s, 3),
            "seconds": None if seconds is None else round(seconds, 3),
            "collector": collector,
            "network": network,
            **_switches(switches),
            **flows,
            **_queues(of_queues),
            **_ports(of_ports, ports, before, seconds),
            **sources,
            **drops,
            "outcomes": [] if is_relay else _outcomes(outcomes, before, seconds),
            "exporters": _exporters(exporters, around.problems),
            "history": _history(self._history),
        }
        self._before = after
        return picture

    def _collector(
        self, state: State, config: Config, around: Around, outcomes: list[int], sources: Picture,
        known_sources: Mapping[Any, tuple[int, int]], drops: Picture,
    ) -> dict[str, Any]:  # fmt: skip
        relay = dict(around.relay) if around.relay is not None else None
        of_kernel: dict[str, Any] = dict.fromkeys(("packets", "malformed", "passed", "reports_lost", "dropped_packets"))
        if relay is None:
            of_kernel = {
                "packets": sum(outcomes),
                "malformed": sum(outcomes[at] for at in KINDS["malformed"]),
                "passed": sum(outcomes[at] for at in KINDS["passed"]),
                "reports_lost": sum(lost for _, lost in known_sources.values()),
                "dropped_packets": int(state.drops.sum()),
            }
        return {
            "version": around.version,
            "kind": around.kind,
            "host": around.host,
            "started": round(around.started, 3),
            "interfaces": [dataclasses.asdict(one) for one in around.interfaces],
            "udp_ports": [] if relay is not None else list(config.port),
            "profile": None if relay is not None else config.profile,
            "not_ready": around.not_ready,
            **of_kernel,
            "reports": None if relay is not None else sum(outcomes[at] for at in ACCEPTED),
            "events": int(state.counters["events"]) if relay is None else relay["events"],
            "events_lost": int(state.counters["events_lost"]) if relay is None else None,
            "flows": len(state.flows),
            "links": {"metrics": "metrics"},
            **({"relay": relay} if relay is not None else {}),
        }

    def _flows(
        self, state: State, config: Config, before: Look | None, seconds: float | None, time_s: float, is_relay: bool
    ) -> tuple[Picture, Picture, np.ndarray, np.ndarray]:
        """({"flows", "flows_omitted"}, network, hashes, reports): of all flows with a path, those of the next Look."""
        rows = series.with_path(state)
        hashes = key_hashes(state.flow_keys.take(rows))
        # A map that changes while it is read may bring a flow twice.
        hashes, first = np.unique(hashes, return_index=True)
        rows = rows[first]
        reports = state.flows["reports"][rows]
        per_s = np.full(len(rows), np.nan)
        if before is not None and seconds and not is_relay:
            at = find(before.hashes, hashes)
            came = (reports - before.reports[at.clip(min=0)]) if len(before.reports) else reports  # modulo 2^32
            known = (at >= 0) & (came < 1 << 31)  # else it was forgotten in between, and began anew
            per_s[known] = np.round(came[known] / seconds, 3)
        seen_ns = state.flow_seen_ns()[rows] + state.clock_ns

        shown = self._choose(hashes, seen_ns, time_s)
        network = _network(state, rows, per_s, config, rates=seconds is not None and not is_relay)
        shown = shown[
            np.argsort(state.flow_keys.take(rows[shown]).view(f"S{FLOW_KEY.itemsize}"))
        ]  # by address and port
        keys, at_rows = state.flow_keys.take(rows[shown]), rows[shown]
        raw = keys.view(f"V{FLOW_KEY.itemsize}").tolist()
        ids = [flow_id(key) for key in raw]
        hops = series.flow_hops(state, at_rows, config)
        paths = _paths(hops, len(shown))
        stacks = state.flows["flags"][at_rows] & FlowFlag.PATH != 0
        latency = series.flow_latency_s(state, at_rows)
        # in travel order
        ends = np.searchsorted(hops.of, np.arange(len(shown) + 1))
        begins, counts = ends[:-1], np.diff(ends)
        way = np.repeat(ends[1:] - 1 + begins, counts) - np.arange(len(hops.of))
        slots = self.shown.look(hashes[shown], ids, paths, stacks, latency, hops.latency_s, seen_ns[shown], time_s)
        recent = self.shown.recent(slots)

        columns = series.key_columns(keys)
        texts = {name: series.texts(columns[name]) for name in ("source", "destination")}
        numbers = {name: columns[name].tolist() for name in ("source_port", "destination_port", "protocol")}
        said = [
            or_none(column[way].tolist())
            for column in (hops.switch_id, hops.egress_port_id, hops.queue_id, hops.latency_s)
        ]
        of_hops = [
            {"switch_id": switch_id, "egress_port_id": egress_port_id, "queue_id": queue_id, "latency_s": latency_s}
            for switch_id, egress_port_id, queue_id, latency_s in zip(*said, strict=True)
        ]
        cut = (state.flows["hop_count"][at_rows] > MAX_HOPS) & stacks
        reports_of = reports[shown].tolist() if not is_relay else itertools.repeat(None, len(shown))
        out = []
        # A loop over flows: the result is a dict each.
        for i, (begin, length, change, latency_s, count, a_second, seen, is_stack, is_cut) in enumerate(
            zip(begins.tolist(), counts.tolist(), self.shown.last_changes(slots), or_none(latency.tolist()),
                reports_of, or_none(per_s[shown].tolist()), seen_ns[shown].tolist(), stacks.tolist(), cut.tolist(),
                strict=True)
        ):  # fmt: skip
            out.append(
                {
                    "id": ids[i],
                    "source": texts["source"][i],
                    "destination": texts["destination"][i],
                    "source_port": numbers["source_port"][i],
                    "destination_port": numbers["destination_port"][i],
                    "protocol": numbers["protocol"][i],
                    "protocol_name": PROTOCOLS.get(numbers["protocol"][i]),
                    "path": said[0][begin : begin + length],
                    "cut": is_cut,
                    "postcards": not is_stack,
                    "hops": of_hops[begin : begin + length],
                    "latency_s": latency_s,
                    "reports": count,
                    "reports_per_s": a_second,
                    "seen_s": round(max(0.0, time_s - seen / 1e9), 3),
                    "path_changes": change[0],
                    "path_changed": change[1],
                    "path_before": change[2],
                    "recent": recent[i],
                }
            )
        return {"flows": out, "flows_omitted": len(rows) - len(shown)}, network, hashes, reports

    def _choose(self, hashes: np.ndarray, seen_ns: np.ndarray, time_s: float) -> np.ndarray:
        """Which flows are shown, in an order that stays: the most recently seen, and first those that were."""
        if len(hashes) <= FLOWS:
            return np.arange(len(hashes))
        stays = (find(self.shown.sorted[0], hashes) >= 0) & (seen_ns > (time_s - STAYS_S) * 1e9)
        last = seen_ns.max()
        rank = np.where(stays, 0, last - seen_ns + 1)
        return np.sort(np.argpartition(rank, FLOWS - 1)[:FLOWS])

    def _switches_of(
        self, of_ports: Mapping[str, Any], before: Look | None, seconds: float | None, at_s: float
    ) -> list[dict[str, Any]]:
        """Since the start, and of the last RECENT_S, if it is known how it was then."""
        hops: Histogram = of_ports["int_hop_latency_seconds"]
        while len(self._snapshots) > 1 and at_s - self._snapshots[1][0] >= RECENT_S:
            self._snapshots.popleft()
        recent = None
        if self._snapshots:
            since_s, then = self._snapshots[0]
            if then is None or at_s - since_s >= RECENT_S:
                lately = hops if then is None else series.histogram_since(hops, then)
                recent = [{"seconds": round(at_s - since_s, 3), **of} for of in _quantiles(lately)]
        if not self._snapshots or at_s - self._snapshots[-1][0] >= SNAPSHOT_S:
            self._snapshots.append((at_s, hops))
        since_start = _quantiles(hops)
        without = of_ports["int_hops_without_latency_total"].values.tolist()
        out = []
        for i, (switch_id, total, total_s) in enumerate(
            zip(hops.labels["switch_id"].tolist(), hops.totals.tolist(), hops.sums.tolist(), strict=True)
        ):
            out.append(
                {
                    "switch_id": switch_id,
                    "hops": total + without[i],
                    "hops_per_s": rate(total + without[i], before.hops.get(switch_id, 0) if before else None, seconds),
                    "mean_s": total_s / total if total else None,
                    **since_start[i],
                    "recent": recent[i] if recent else None,
                    "without_latency": without[i],
                }
            )
        return out


COUNTED = ("packets", "reports", "malformed", "reports_lost", "events")
"""What has a rate beside it in "collector"."""


def _switches(switches: list[dict[str, Any]]) -> Picture:
    """The busiest, by switch_id."""
    busiest = sorted(switches, key=lambda one: (one["hops_per_s"] or 0, one["hops"]), reverse=True)[:SWITCHES]
    return {
        "switches": sorted(busiest, key=lambda one: one["switch_id"]),
        "switches_omitted": len(switches) - len(busiest),
    }


def _quantiles(hops: Histogram) -> list[dict[str, Any] | Any]:
    """Of each switch: {"p50_s": [above, at most], ...}; None where it had no hop with a latency."""
    found = {}
    for name, share in QUANTILES.items():
        above, most = (or_none(column.tolist()) for column in series.quantile(hops, share))
        found[name] = [None if low is None else [low, high] for low, high in zip(above, most, strict=True)]
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def _paths(hops: series.Hops, flows: int) -> np.ndarray:
    """As event_paths(), of all flows."""
    paths = np.full((flows, MAX_HOPS + 1), NONE32, "<u4")
    paths[:, 0] = np.bincount(hops.of, minlength=flows)
    paths[hops.of, hops.place + 1] = np.where(hops.switch_id < 0, NONE32, hops.switch_id)
    return paths


def _network(state: State, rows: np.ndarray, per_s: np.ndarray, config: Config, *, rates: bool) -> Picture:
    """Switches in the order of the paths, and what leads from one to the next: a link a port. Of all flows, so many at
    a time, since their hops take room."""
    switches: list[tuple[np.ndarray, ...]] = []
    links: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(rows), AT_A_TIME):
        some = slice(start, start + AT_A_TIME)
        hops = series.flow_hops(state, rows[some], config)
        switches.append(_switches_on(hops))
        links.append(_links_on(hops, per_s[some]))
    if not rows.size:
        return {"switches": [], "switches_omitted": 0, "links": [], "links_omitted": 0}
    ids, along, times = (np.concatenate(column) for column in zip(*switches, strict=True))
    ids, at = np.unique(ids, return_inverse=True)
    order = np.lexsort((ids, np.bincount(at, along, len(ids)) / np.bincount(at, times, len(ids))))
    ends, flows, sums, timed, total, largest = _together(
        *(np.concatenate(column) for column in zip(*links, strict=True))
    )
    most = np.sort(np.argsort(-flows, kind="stable")[:LINKS])
    with np.errstate(invalid="ignore"):
        mean = digits(total / timed)
    return {
        "switches": ids[order][:SWITCHES].tolist(),
        "switches_omitted": max(0, len(ids) - SWITCHES),
        "links": [
            {
                "from": int(ends[i, 0]),
                "to": int(ends[i, 1]),
                "egress_port_id": None if ends[i, 2] < 0 else int(ends[i, 2]),
                "flows": int(flows[i]),
                "reports_per_s": round(float(sums[i]), 3) if rates else None,
                "latency_s": float(mean[i]) if timed[i] else None,
                "latency_max_s": float(largest[i]) if timed[i] else None,
            }
            for i in most.tolist()
        ],
        "links_omitted": len(ends) - len(most),
    }


def _switches_on(hops: series.Hops) -> tuple[np.ndarray, ...]:
    """(ids, sum of their places on the paths, 0 being where packets come in; how often they are on one)"""
    named = np.flatnonzero(hops.switch_id >= 0)
    of = hops.of[named]
    last = np.bincount(hops.of, minlength=1)[of] - 1
    ids, at = np.unique(hops.switch_id[named], return_inverse=True)
    along = np.bincount(at.reshape(-1), last - hops.place[named], len(ids))
    return ids, along, np.bincount(at.reshape(-1), minlength=len(ids)).astype(np.float64)


def _links_on(hops: series.Hops, per_s: np.ndarray) -> tuple[np.ndarray, ...]:
    """As _together(): what leads from each hop to the next. Place k of a flow is behind its place k + 1."""
    follows = hops.of[1:] == hops.of[:-1]
    follows &= (hops.switch_id[1:] >= 0) & (hops.switch_id[:-1] >= 0)
    to = np.flatnonzero(follows)
    of = to + 1
    latency = hops.latency_s[of]
    timed = ~np.isnan(latency)
    return _together(
        np.stack([hops.switch_id[of], hops.switch_id[to], hops.egress_port_id[of]], axis=1),
        np.ones(len(of)),
        np.nan_to_num(per_s[hops.of[of]]),
        timed.astype(np.float64),
        np.where(timed, latency, 0.0),
        np.where(timed, latency, -np.inf),
    )


def _together(
    ends: np.ndarray, flows: np.ndarray, rates: np.ndarray, timed: np.ndarray, total: np.ndarray, largest: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Links, each once, ascending: ends int64 (n, 3), from, to, egress port; and what is said of all that are one:
    flows, their rates, how many have a latency, the sum of these, the largest."""
    links, group = _unique_rows(ends)
    of_all = [np.bincount(group, values, len(links)) for values in (flows, rates, timed, total)]
    most = np.full(len(links), -np.inf)
    np.maximum.at(most, group, largest)
    return links, *of_all, most


def _unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the rows that there are, ascending; which one each row is). int64 (n, 3): (u32, u32, u16 or -1)."""
    ends = rows[:, 0] << 32 | rows[:, 1]
    _, end = np.unique(ends, return_inverse=True)
    _, first, group = np.unique(end.reshape(-1) << 17 | rows[:, 2] + 1, return_index=True, return_inverse=True)
    return rows[first], group.reshape(-1)


def _queues(of_queues: Mapping[str, Any]) -> Picture:
    """The fullest."""
    last = of_queues["int_queue_occupancy"]
    largest, in_bytes = (
        dict(zip(_rows(of_queues[name]), _values(of_queues[name]), strict=True))
        for name in ("int_queue_occupancy_max", "int_queue_occupancy_bytes")
    )
    most = np.argsort(-last.values, kind="stable")[:POINTS]
    some = dataclasses.replace(last, parts=tuple(part[most] for part in last.parts), values=last.values[most])
    return {
        "queues": [
            {
                "switch_id": ids[0],
                "queue_id": ids[1],
                "occupancy": value,
                "occupancy_max": largest.get(ids),
                "occupancy_bytes": in_bytes.get(ids),
            }
            for ids, value in zip(_rows(some), _values(some), strict=True)
        ],
        "queues_omitted": len(last.values) - len(most),
    }


def _values(one: Series) -> list[Any]:
    values: list[Any] = one.values.tolist()
    return values


def _ports(of_ports: Mapping[str, Any], now: series.PortCounts, before: Look | None, seconds: float | None) -> Picture:
    """The slowest and the busiest, half of each; where no hop came since, those that say how much goes out of them."""
    used, ratio = (
        dict(zip(_rows(of_ports[name]), _values(of_ports[name]), strict=True))
        for name in ("int_egress_port_tx_utilization", "int_egress_port_tx_utilization_ratio")
    )
    hops = timed = latency_ns = np.zeros(len(now.hops), np.int64)
    there = np.zeros(len(now.hops), bool)
    if before is not None:
        then = before.ports
        known = then.switch_id << 17 | then.egress_port_id + 1  # ascending or not
        order = np.argsort(known)
        at = find(known[order], now.switch_id << 17 | now.egress_port_id + 1)
        there = at >= 0
        old = order[at[there]]
        hops, timed, latency_ns = now.hops.copy(), now.timed.copy(), now.latency_ns.copy()
        hops[there] -= then.hops[old]
        timed[there] -= then.timed[old]
        latency_ns[there] -= then.latency_ns[old]
    fits = (hops >= 0) & (timed > 0) & (latency_ns >= 0)
    mean = np.where(fits, latency_ns / np.where(timed > 0, timed, 1) / 1e9, np.nan)
    ids = list(zip(or_none(now.switch_id.tolist()), or_none(now.egress_port_id.tolist()), strict=True))
    use = np.array([used.get(one, -1) for one in ids], np.float64)
    busiest = np.lexsort((-use, -hops))
    slowest = np.argsort(-np.nan_to_num(mean, nan=-1.0), kind="stable")
    slowest = slowest[: min(POINTS // 2, int(fits.sum()))]
    rows = list(dict.fromkeys([*slowest.tolist(), *busiest.tolist()]))[:POINTS]
    return {
        "ports": [
            {
                "switch_id": ids[i][0],
                "egress_port_id": ids[i][1],
                "utilization": used.get(ids[i]),
                "utilization_ratio": ratio.get(ids[i]),
                "hops_per_s": rate(int(hops[i]), 0, seconds) if before else None,
                "latency_s": None if np.isnan(mean[i]) else float(mean[i]),
            }
            for i in rows
        ],
        "ports_omitted": len(ids) - len(rows),
    }


def _sources(
    of_sources: Mapping[str, Any], before: Look | None, seconds: float | None
) -> tuple[Picture, dict[tuple[Any, ...], tuple[int, int]]]:
    if not of_sources:
        return {"sources": [], "sources_omitted": 0}, {}
    columns = [
        _values(of_sources[f"int_{name}"])
        for name in (
            "reports_total", "reports_lost_total", "reports_reordered_total", "reports_duplicated_total",
            "reports_restarted_total", "report_sampling_ratio",
        )
    ]  # fmt: skip
    rows = _rows(of_sources["int_reports_total"])
    out = []
    known = {}
    for ids, received, lost, reordered, duplicated, restarted, sampling in zip(rows, *columns, strict=True):
        then = before.sources.get(ids) if before else None
        if then is None and before is not None:
            then = (0, 0)  # it was not there
        known[ids] = received, lost
        out.append(
            {
                "source": ids[0],
                "switch_id": ids[1],
                "hw_id": ids[2],
                "reports": received,
                "reports_per_s": rate(received, then[0] if then else None, seconds),
                "lost": lost,
                "lost_per_s": rate(lost, then[1] if then else None, seconds),
                "lost_ratio": lost / (lost + received) if lost + received else None,
                "reordered": reordered,
                "duplicated": duplicated,
                "restarted": restarted,
                "sampling_ratio": sampling,
            }
        )
    most = sorted(out, key=lambda one: one["reports"], reverse=True)[:SOURCES] if len(out) > SOURCES else out
    return {"sources": most, "sources_omitted": len(out) - len(most)}, known


def _drops(
    of_drops: Mapping[str, Any], before: Look | None, seconds: float | None
) -> tuple[Picture, dict[tuple[Any, ...], int]]:
    if not of_drops:
        return {"drops": [], "drops_omitted": 0}, {}
    drops = of_drops["int_dropped_packets_total"]
    known = dict(zip(_rows(drops), _values(drops), strict=True))
    most = sorted(known, key=lambda ids: known[ids], reverse=True)[:DROPS]
    return {
        "drops": [
            {
                "switch_id": ids[0],
                "reason": ids[1],
                "packets": known[ids],
                "packets_per_s": rate(known[ids], before.drops.get(ids, 0) if before else None, seconds),
            }
            for ids in most
        ],
        "drops_omitted": len(known) - len(most),
    }, known


def _outcomes(outcomes: list[int], before: Look | None, seconds: float | None) -> list[dict[str, Any]]:
    return [
        {
            "outcome": name,
            "packets": packets,
            "packets_per_s": rate(packets, before.outcomes[at] if before else None, seconds),
            "kind": MEANINGS[name].kind,
            "says": MEANINGS[name].says,
        }
        for at, (name, packets) in enumerate(zip(OUTCOMES, outcomes, strict=True))
    ]


def _exporters(exporters: Mapping[str, Counts], problems: Mapping[str, str | None]) -> list[dict[str, Any]]:
    return [
        {
            "exporter": name,
            "accepted": counts.accepted,
            "delivered": counts.delivered,
            "lost": dict(counts.lost),
            "buffered": counts.buffered,
            "buffered_bytes": counts.buffered_bytes,
            "up": counts.up,
            "problem": problems.get(name),
        }
        for name, counts in exporters.items()
    ]


HISTORY = ("time", "reports_per_s", "events_per_s", "malformed_per_s", "lost_per_s")


def _history(history: Iterable[tuple[float | None, ...]]) -> dict[str, list[float | None]]:
    columns = list(zip(*history, strict=True)) or [()] * len(HISTORY)
    return {name: list(column) for name, column in zip(HISTORY, columns, strict=True)}
