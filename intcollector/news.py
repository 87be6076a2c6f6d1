"""Events as lines for people: which of them are worth one, and what it says (docs/api.md).

Batch --> Feed.take()    the control loop: a selection, copied; never more than a few hundred a second
      --> Feed.after()   whoever shows them: spelled then, and not before
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from . import postcards, series, spelled
from .batch import Batch
from .config import Config
from .layout import Change, ReportFlag
from .picture import PROTOCOLS, flow_id, or_none, path_list, path_text, some_of
from .series import NONE16, NONE32

KEEP = 1000
"""Lines that are kept."""
AT_ONCE = 100
A_SECOND = 300
"""How many are spelled at most."""
HOP_BITS = ("hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes")
RARE = Change.PATH | Change.DROPPED | Change.CONGESTED_QUEUE | Change.NEW_FLOW
"""Of more than can be shown, these first."""
PARTS = 3
"""What a line says at most."""

Event: TypeAlias = dict[str, Any]
Before: TypeAlias = Callable[[bytes, int], "list[int | None] | None"]
"""(bytes of the FLOW_KEY, when its path changed) -> the path before, if it is known."""


class Feed:
    """The last events that are worth a line. Each has a number, those that are skipped too: so how many were skipped is
    the difference. One thread takes, others ask."""

    def __init__(self, config: Config, before: Before = lambda key, time_ns: None) -> None:
        self._config = config
        self._before = before
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._waiting: collections.deque[tuple[np.ndarray, Batch]] = collections.deque()
        self._waiting_rows = 0
        self._events: collections.deque[Event] = collections.deque(maxlen=KEEP)
        self._tokens, self._at_s = float(AT_ONCE), time.monotonic()
        self.last = 0
        self.spelled = 0
        """How many of them are, or will be, lines: last - spelled were skipped."""

    def apply(self, config: Config) -> None:
        """Drop reasons and links, as they are called from now on."""
        self._config = config

    def take(self, batch: Batch) -> None:
        """Choose: keep-alives are no news; of too many the newest, and rare things first."""
        reports = batch.reports
        changes = np.ascontiguousarray(reports["changes"])
        worth = changes & ~np.uint16(Change.KEEPALIVE) != 0
        for bits in HOP_BITS:
            worth |= reports[bits] != 0
        rows = np.flatnonzero(worth)
        if not len(rows):
            return
        now = time.monotonic()
        self._tokens = min(AT_ONCE, self._tokens + (now - self._at_s) * A_SECOND)
        self._at_s = now
        chosen = self._chosen(changes, rows, int(self._tokens))
        self._tokens -= len(chosen)
        some = some_of(batch, rows[chosen]) if len(chosen) else None
        with self._lock:  # together: who asks for what is behind the last must not pass over what is not there yet
            if some is not None:
                self._waiting.append((self.last + 1 + chosen, some))
                self._waiting_rows += len(chosen)
                self.spelled += len(chosen)
            self.last += len(rows)
            while self._waiting_rows > KEEP:  # nobody looks: these would go as soon as they were spelled
                self._waiting_rows -= len(self._waiting.popleft()[0])

    @staticmethod
    def _chosen(changes: np.ndarray, rows: np.ndarray, limit: int) -> np.ndarray:
        """Which of rows."""
        if len(rows) <= limit:
            return np.arange(len(rows))
        if not limit:
            return rows[:0]
        rare = np.flatnonzero(changes[rows] & np.uint16(RARE))[-limit:]
        newest = np.arange(len(rows) - limit, len(rows))
        others = newest[~np.isin(newest, rare)]
        return np.sort(np.concatenate([rare, others[len(others) - (limit - len(rare)) :]]))

    def after(self, number: int, limit: int = KEEP) -> dict[str, Any]:
        """{"events": those behind that number, the oldest first, the newest limit of them; "last"; "skipped": how many
        behind it are not among them}."""
        with self._asking:
            with self._lock:  # not while they are spelled: the control loop does not wait for that
                waiting, last = list(self._waiting), self.last
                self._waiting.clear()
                self._waiting_rows = 0
            for numbers, batch in waiting:
                self._events.extend(lines(batch, numbers, self._config, self._before))
            events: list[Event] = []
            for event in reversed(self._events):
                if event["n"] <= number or len(events) == limit:
                    break
                events.append(event)
        return {"events": events[::-1], "last": last, "skipped": max(0, last - max(0, number)) - len(events)}


def lines(batch: Batch, numbers: np.ndarray, config: Config, before: Before) -> Iterator[Event]:
    """Events as docs/api.md has them. A loop over events, which are few: each becomes a sentence."""
    batch = postcards.in_order(batch, config.links)
    reports = batch.reports
    keys = series.event_keys(reports)
    columns = series.key_columns(keys)
    source, destination = (series.texts(columns[name]) for name in ("source", "destination"))
    with_path = series.has_path(batch)
    paths = series.event_paths(batch, np.ones(len(batch), bool))
    latency = series.seconds(series.numbers(reports["flow_latency"]), reports["time_unit"]).tolist()
    times_ns = (reports["received_ns"].astype(np.int64) + batch.clock_ns).tolist()
    first = np.searchsorted(batch.hop_report, np.arange(len(batch)))
    reasons = series.drop_reasons(config)
    for row, number in enumerate(numbers.tolist()):
        report = reports[row]
        changes = int(report["changes"])
        words = series.changes_in_words(changes, *(int(report[bits]) for bits in HOP_BITS))
        has_flow = bool(keys["ip_version"][row])
        flow, packet = "a packet that is not IP", "a packet that is not IP"
        if has_flow:
            protocol = int(keys["protocol"][row])
            ports = (
                (int(report["source_port"]), int(report["destination_port"]))
                if report["flags"] & ReportFlag.FLOW_PORTS
                else None
            )
            flow = flow_text(source[row], destination[row], ports, protocol)
            packet = f"a packet of {flow}"
        path = path_list(paths[row]) if with_path[row] else None
        parts = []
        if changes & Change.DROPPED:
            named = report["report_version"] != 5 or report["flags"] & ReportFlag.LOCAL
            who = f"switch {report['switch_id']}" if named and report["switch_id"] != NONE32 else "a switch"
            parts.append(f"{who} dropped {packet}: {reasons[report['drop_reason']] or 'it gave no reason'}")
        if changes & Change.PATH and path:
            then = before(keys[row].tobytes(), times_ns[row])
            was = f", it was {path_text(then)}" if then else ""
            parts.append(f"path of {flow} is now {path_text(path)}{was}")
        if changes & Change.NEW_FLOW:
            parts.append(f"new flow {flow}" + (f", path {path_text(path)}" if path else ""))
        whose = "" if parts else f" of {flow}"
        if changes & Change.CONGESTED_QUEUE:
            where = _queue(report["local"], int(report["switch_id"]))
            parts.append(f"{where} is congested" + ("" if parts else f", says {packet}"))
        for what in words:
            if isinstance(what, tuple) and len(parts) < PARTS:
                hop = report["local"] if what[0] == "local" else batch.hops[first[row] + int(what[0])]
                parts += _of_hop(what[1], hop, "" if parts else whose, int(report["time_unit"]))
        if changes & Change.FLOW_LATENCY and latency[row] == latency[row]:
            parts.append(f"latency{'' if parts else whose} is {spelled.time(latency[row])}")
        yield {
            "n": number,
            "time": round(times_ns[row] / 1e9, 3),
            "what": list(dict.fromkeys(word if isinstance(word, str) else word[1] for word in words)),
            "flow_id": flow_id(keys[row].tobytes()) if has_flow else None,
            "text": "; ".join(parts[:PARTS]) or f"news of {flow}",
        }


def flow_text(source: str, destination: str, ports: tuple[int, int] | None, protocol: int) -> str:
    """`10.0.0.1:5000 > 10.0.0.2:80`, or without ports `10.0.0.1 > 10.0.0.2 (ICMP)`."""
    if ports is None:
        return f"{source} > {destination} ({PROTOCOLS.get(protocol, f'protocol {protocol}')})"
    ends = [f"[{address}]" if ":" in address else address for address in (source, destination)]
    return f"{ends[0]}:{ports[0]} > {ends[1]}:{ports[1]}"


def _switch(hop: np.void, reporter: int = NONE32) -> str:
    """reporter: whose it is if the hop does not say."""
    switch_id = reporter if hop["switch_id"] == NONE32 else int(hop["switch_id"])
    return "a switch" if switch_id == NONE32 else f"switch {switch_id}"


def _queue(hop: np.void, reporter: int = NONE32) -> str:
    queue = "a queue" if hop["queue_id"] == NONE16 else f"queue {hop['queue_id']}"
    return f"{queue} of {_switch(hop, reporter)}"


def _of_hop(what: str, hop: np.void, whose: str, time_unit: int) -> list[str]:
    """What is news of one hop."""
    if what == "hop_latency":
        (latency_s,) = or_none(
            series.seconds(series.numbers(hop["latency"].reshape(1)), np.array([time_unit])).tolist()
        )
        return [] if latency_s is None else [f"hop latency{whose} in {_switch(hop)} is {spelled.time(latency_s)}"]
    if what == "queue_occupancy":
        return [] if hop["queue_occupancy"] == NONE32 else [f"occupancy of {_queue(hop)} is {hop['queue_occupancy']}"]
    if hop["egress_port_tx_utilization"] == NONE32:
        return []
    port = "an egress port" if hop["egress_port_id"] == NONE16 else f"egress port {hop['egress_port_id']}"
    return [f"TX utilization of {port} of {_switch(hop)} is {hop['egress_port_tx_utilization']}"]
