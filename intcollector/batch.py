"""What one drain brought up (Batch), and what the maps held at one moment (State): arrays, named as in bpf/report.h."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .layout import HEAD, HOP, LATENCY_BUCKETS, LAYOUT

FLOW_KEY = LAYOUT.dtypes["flow_key"]
FLOW = LAYOUT.dtypes["flow"]
POINTS = LAYOUT.dtypes["points"]
STATISTICS = LAYOUT.dtypes["statistics"]
SOURCE = LAYOUT.dtypes["source"]
DROP_KEY = LAYOUT.dtypes["drop_key"]
REFUSAL_KEY = LAYOUT.dtypes["refusal_key"]
REFUSAL_VALUE = LAYOUT.dtypes["refusal"]
COUNTERS = LAYOUT.dtypes["counters"]
SETTINGS = LAYOUT.dtypes["settings"]
PROFILE = LAYOUT.dtypes["profile"]
SOURCE_PREFIX = LAYOUT.dtypes["source_prefix"]
RESUME = LAYOUT.dtypes["resume"]

POINT = np.dtype(
    [
        (name, LAYOUT.dtypes[of][name])
        for of in ("point", "level")
        for name in LAYOUT.dtypes[of].names or ()
        if name != "pad"
    ]
)
"""A port or queue: whose it is, and its level."""
PORT_STATISTICS = np.dtype([("latency_sum", "<u8"), ("buckets", "<u8", (LATENCY_BUCKETS,))])
"""latency_sum: ns; buckets: hops by their latency (port_series())."""
QUEUE_STATISTICS = np.dtype([("occupancy_max", "<u4")])
"""+ 1; 0: never seen."""
REFUSAL = np.dtype(
    [(name, of[name]) for of in (REFUSAL_KEY, REFUSAL_VALUE) for name in of.names or () if name != "pad"]
)
"""Malformed reports of one exporter, of one outcome; bytes[:kept]: the first of them, from its Ethernet header."""
UDP_PORTS = LAYOUT.defines["UDP_PORTS"]


def flow_seen_ns(flows: np.ndarray) -> np.ndarray:
    """int64, as many: when each flow's last report came, CLOCK_MONOTONIC, exact to 2^20 ns. flows: FLOW."""
    return (flows["seen_high"].astype(np.int64) << 32 | flows["seen"]) << 20


def seen_fields(ns: np.ndarray) -> dict[str, np.ndarray]:
    """What flow_seen_ns() makes these of, by the field of FLOW."""
    units = ns.astype(np.int64) >> 20
    return {"seen": units & 0xFFFFFFFF, "seen_high": units >> 32}


def _empty(dtype: np.dtype) -> Any:
    return dataclasses.field(default_factory=lambda: np.empty(0, dtype))


@dataclasses.dataclass(frozen=True)
class Batch:
    """Events, in the order in which they went up.

    reports: HEAD (n,). hops: HOP (m,), all reports' hops behind one another. hop_report: intp (m,), the row of reports
    a hop belongs to. hop_index: intp (m,), its place in the stack, 0 nearest the sink. The hops of a REPORT_POSTCARD
    report are the places of its flow, in no order (postcards.in_order). clock_ns: what to add to received_ns
    (CLOCK_MONOTONIC) to have ns since 1970.
    """

    reports: np.ndarray = _empty(HEAD)
    hops: np.ndarray = _empty(HOP)
    hop_report: np.ndarray = _empty(np.dtype(np.intp))
    hop_index: np.ndarray = _empty(np.dtype(np.intp))
    clock_ns: int = 0

    def __len__(self) -> int:
        return len(self.reports)

    def __getitem__(self, rows: slice) -> Batch:
        """Consecutive events, with their hops."""
        start, stop, _ = rows.indices(len(self))
        first, end = np.searchsorted(self.hop_report, (start, stop))
        return Batch(
            self.reports[start:stop], self.hops[first:end], self.hop_report[first:end] - start,
            self.hop_index[first:end], self.clock_ns,
        )  # fmt: skip

    @staticmethod
    def together(batches: Sequence[Batch]) -> Batch:
        """One or more batches behind one another, by the first one's clock."""
        starts = np.cumsum([0, *(len(batch) for batch in batches)])
        return Batch(
            np.concatenate([batch.reports for batch in batches]),
            np.concatenate([batch.hops for batch in batches]),
            np.concatenate([batch.hop_report + start for batch, start in zip(batches, starts, strict=False)]),
            np.concatenate([batch.hop_index for batch in batches]),
            batches[0].clock_ns,
        )

    def only(self, rows: np.ndarray) -> Batch:
        """The events that rows (bool (n,)) names, with their hops."""
        hops = rows[self.hop_report]
        place = np.cumsum(rows) - 1
        return Batch(
            self.reports[rows], self.hops[hops], place[self.hop_report[hops]], self.hop_index[hops], self.clock_ns
        )


@dataclasses.dataclass(frozen=True)
class State:
    """The maps at one moment.

    flow_keys, flows: FLOW_KEY, FLOW (f,). ports, port_statistics: POINT, PORT_STATISTICS (p,), statistics summed over
    the CPUs. queues, queue_statistics: POINT, QUEUE_STATISTICS (q,), maxima over the CPUs. Index 0 of ports and queues
    is nobody's. sources: SOURCE (s,). drop_keys: DROP_KEY (d,), drops: u64 (d,). counters: COUNTERS (), summed over
    the CPUs. udp_ports: u64 (65536,), packets passed on because their UDP destination port is none of --port, by that
    port. refusals: REFUSAL (r,), reports that are malformed, or right and say nothing, as far as there is room.
    lost_between_cpus: reports that found no room in another CPU's queue (--cpus). clock_ns: as in Batch. told_ns: int64
    (f,), of a relay's flows, when each was told of last: no map says it.
    """

    flow_keys: np.ndarray = _empty(FLOW_KEY)
    flows: np.ndarray = _empty(FLOW)
    ports: np.ndarray = _empty(POINT)
    port_statistics: np.ndarray = _empty(PORT_STATISTICS)
    queues: np.ndarray = _empty(POINT)
    queue_statistics: np.ndarray = _empty(QUEUE_STATISTICS)
    sources: np.ndarray = _empty(SOURCE)
    drop_keys: np.ndarray = _empty(DROP_KEY)
    drops: np.ndarray = _empty(np.dtype("<u8"))
    counters: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((), COUNTERS))
    udp_ports: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(UDP_PORTS, "<u8"))
    refusals: np.ndarray = _empty(REFUSAL)
    lost_between_cpus: int = 0
    clock_ns: int = 0
    told_ns: np.ndarray | None = None

    def flow_seen_ns(self) -> np.ndarray:
        """int64 (f,): when each flow's last report came, by the clock that clock_ns is of."""
        return flow_seen_ns(self.flows) if self.told_ns is None else self.told_ns
