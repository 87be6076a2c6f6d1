"""What the arrays mean: names, labels, units; decided here once, for every exporter.

    State --> scrape()   --> [Series | Histogram]     a picture of now, for who asks (Prometheus)
    Batch --> points()   --> [Points]                 what is news, for who is told (InfluxDB, ...)
    Batch --> records()  --> [dict]                   the events whole (JSON lines, ...)

ALL ONES is no value (bpf/report.h) and is never shown as a number: a series without a value does not exist, a label
without one is empty, in a record it is null. The switches' units become seconds, bytes and ratios here and nowhere
else, by what each row says of its own (time_unit, unit).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import postcards
from .batch import FLOW_KEY, Batch, State
from .config import LATENCY_UNITS, Config, address_text
from .layout import HEAD, HOP, LATENCY_BUCKETS, LAYOUT, MAX_HOPS, OUTCOMES, Change, FlowFlag, ReportFlag

NO_LATENCY = LAYOUT.defines["NO_LATENCY"]
PORT = LAYOUT.enums["point_kind"]["POINT_PORT"]
QUEUE = LAYOUT.enums["point_kind"]["POINT_QUEUE"]
NONE8, NONE16, NONE32, NONE64 = ((1 << bits) - 1 for bits in (8, 16, 32, 64))

_PER_SECOND = {"TIME_NS": 1e9, "TIME_US": 1e6, "TIME_MS": 1e3, "TIME_2_32": 2.0**32}
UNITS_PER_SECOND = np.array([_PER_SECOND[name] for name in LAYOUT.enums["time_unit"]])
"""By enum time_unit."""
NS_PER_SECOND = 1e9

ADDRESS = np.dtype("V17")
"""A column of addresses: 4, 6 or 0 (none), then 16 bytes, IPv4 in the first 4 of them."""
PATH = np.dtype(f"V{4 * (MAX_HOPS + 1)}")
"""A column of paths: the number of hops on the wire, then MAX_HOPS switch ids, nearest the sink first; all u32."""

Column: TypeAlias = np.ndarray
"""(n,) of int64 (-1: none), float64 (NaN: none), ADDRESS, PATH or object (str)."""


# --- the table --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of METRICS. kind: counter, gauge or histogram. unit: of the value, "" for a plain number."""

    name: str
    kind: str
    labels: tuple[str, ...]
    unit: str
    help: str


FLOW_LABELS = ("source", "destination", "source_port", "destination_port", "protocol")
SOURCE_LABELS = ("source", "switch_id", "hw_id")

METRICS = {
    row[0]: Metric(*row)
    for row in (
        ("int_packets_total", "counter", ("outcome",), "", "Packets the program saw, by what became of them."),
        ("int_reports_total", "counter", SOURCE_LABELS, "", "Telemetry reports received."),
        ("int_reports_lost_total", "counter", SOURCE_LABELS, "", "Reports missing by their sequence numbers."),
        ("int_reports_reordered_total", "counter", SOURCE_LABELS, "", "Reports that came after later ones."),
        ("int_reports_duplicated_total", "counter", SOURCE_LABELS, "", "Reports that came again."),
        ("int_reports_restarted_total", "counter", SOURCE_LABELS, "", "Times a source began to count anew."),
        ("int_report_sampling_ratio", "gauge", SOURCE_LABELS, "",
         "One packet in so many is reported by the source, as configured."),
        ("int_dropped_packets_total", "counter", ("switch_id", "reason"), "",
         "Drop reports, by the switch and the reason it gave."),
        ("int_events_total", "counter", (), "", "Events told by the kernel."),
        ("int_events_lost_total", "counter", (), "", "Events for which the buffer from the kernel had no room."),
        ("int_changes_total", "counter", ("change",), "",
         "What was news in the events, as their `changes` say; a hop's once a hop."),
        ("int_reports_lost_between_cpus_total", "counter", (), "",
         "Reports for which the queue of another CPU had no room (--cpus)."),
        ("int_flows_refused_total", "counter", (), "", "Reports of a new flow that found no room to be kept."),
        ("int_points_refused_total", "counter", (), "", "Ports and queues that found no room to be kept."),
        ("int_sources_refused_total", "counter", (), "", "Reports of a new source that found no room to be kept."),
        ("int_drops_refused_total", "counter", (), "",
         "Drop reports of a new switch and reason that found no room to be kept."),
        ("int_places_refused_total", "counter", (), "", "Postcards of one switch more than is kept of a flow."),
        ("int_exporter_points_total", "counter", ("exporter",), "",
         "Points given to an exporter, with those recovered from disk."),
        ("int_exporter_points_recovered_total", "counter", ("exporter",), "",
         "Points that an earlier run had left on disk for an exporter."),
        ("int_exporter_points_delivered_total", "counter", ("exporter",), "", "Points an exporter delivered."),
        ("int_exporter_points_lost_total", "counter", ("exporter", "reason"), "", "Points an exporter gave up."),
        ("int_exporter_failures_total", "counter", ("exporter",), "", "Tries to deliver that failed."),
        ("int_exporter_up", "gauge", ("exporter",), "", "1 while what an exporter sends to takes points, else 0."),
        ("int_exporter_oldest_point_age_seconds", "gauge", ("exporter",), "seconds",
         "Time since the oldest point was taken that an exporter keeps to deliver; 0: it keeps none."),
        ("int_exporter_buffer_points", "gauge", ("exporter",), "",
         "Points an exporter keeps to deliver, in memory and on disk."),
        ("int_exporter_buffer_bytes", "gauge", ("exporter",), "bytes",
         "Memory of the points an exporter keeps."),
        ("int_exporter_spool_bytes", "gauge", ("exporter",), "bytes", "Disk space of the points an exporter keeps."),
        ("int_exporter_spool_failures_total", "counter", ("exporter",), "",
         "Times that the spool could not be written to."),
        ("int_relay_events_total", "counter", (), "", "Events that a relay read from Kafka."),
        ("int_relay_messages_refused_total", "counter", ("reason",), "", "Messages in Kafka that are no event."),
        ("int_relay_messages_missed_total", "counter", (), "",
         "Messages that the topic's retention removed before a relay had read them."),
        ("int_relay_rebalances_total", "counter", (), "",
         "Times that partitions were given to a relay or taken from it."),
        ("int_relay_lag_messages", "gauge", ("topic", "partition"), "",
         "Messages of a relay's partition that it has not delivered yet."),
        ("int_relay_paused", "gauge", (), "",
         "1 while a relay reads nothing, since an exporter has to catch up."),
        ("int_flows", "gauge", (), "", "Flows kept."),
        ("int_flow_series_omitted", "gauge", (), "", "Flows beyond the limit on per-flow series."),
        ("int_flow_latency_seconds", "gauge", FLOW_LABELS, "seconds",
         "Sum of the hop latencies in the flow's last report, or of the last of each switch that sends postcards."),
        ("int_flow_hop_latency_seconds", "gauge", (*FLOW_LABELS, "switch_id"), "seconds",
         "Latency of the flow's last packet reported in a switch; the sum, if it went through it more than once."),
        ("int_hop_latency_seconds", "histogram", ("switch_id",), "seconds", "Hop latencies of all reports."),
        ("int_hops_without_latency_total", "counter", ("switch_id",), "", "Hops reported without a latency."),
        ("int_hops_without_switch_total", "counter", (), "",
         "Hops that are in no switch's histogram: they named no switch, or the table of ports was full."),
        ("int_queue_occupancy", "gauge", ("switch_id", "queue_id"), "", "Last queue occupancy, in the switch's unit."),
        ("int_queue_occupancy_max", "gauge", ("switch_id", "queue_id"), "",
         "Largest queue occupancy since the start, in the switch's unit."),
        ("int_queue_occupancy_bytes", "gauge", ("switch_id", "queue_id"), "bytes",
         "Last queue occupancy, where it is configured what the switch's unit is in bytes."),
        ("int_queue_occupancy_max_bytes", "gauge", ("switch_id", "queue_id"), "bytes",
         "Largest queue occupancy since the start, where it is configured what the switch's unit is in bytes."),
        ("int_egress_port_tx_utilization", "gauge", ("switch_id", "egress_port_id"), "",
         "Last TX utilization of a port, in the switch's unit."),
        ("int_egress_port_tx_utilization_ratio", "gauge", ("switch_id", "egress_port_id"), "ratio",
         "Last TX utilization of a port, 1 being its line rate, where it is configured what the switch says then."),
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of an exporter's points. accepted = delivered + sum(lost) + buffered, always.

    lost: by reason, every reason of the exporter present. buffered: in memory and on disk. buffered_bytes: memory of
    these. recovered: of the accepted, those that an earlier process left on disk. failures: tries that failed, and
    times that a try had to wait. spool_bytes: on disk. spool_failures: times that the disk took nothing. age_s: since
    the oldest of the buffered was taken, 0 if there are none. up: what it sends to takes points, as far as known.
    """

    accepted: int = 0
    delivered: int = 0
    lost: Mapping[str, int] = dataclasses.field(default_factory=dict)
    buffered: int = 0
    buffered_bytes: int = 0
    recovered: int = 0
    failures: int = 0
    spool_bytes: int = 0
    spool_failures: int = 0
    age_s: float = 0.0
    up: bool = True


# --- columns ----------------------------------------------------------------------------------------------------------


def texts(column: Column) -> list[str]:
    """A column as text, "" where there is no value. Python loops, because the result is Python strings."""
    if column.dtype == ADDRESS:
        return [_address_text(a) for a in column.tolist()]
    if column.dtype == PATH:
        return [_path_text(p) for p in column.tolist()]
    if column.dtype.kind == "i":
        return ["" if v < 0 else str(v) for v in column.tolist()]
    if column.dtype.kind == "f":
        return ["" if math.isnan(v) else repr(v) for v in column.tolist()]
    return [str(v) for v in column.tolist()]


@functools.lru_cache(1 << 16)
def _address_text(raw: bytes) -> str:
    return address_text(raw[1:], raw[0]) if raw[0] else ""


@functools.lru_cache(1 << 16)
def _path_text(raw: bytes) -> str:
    """Switch ids in travel order, `6:5:4`; `?` for a hop that did not say, `...` for hops before those kept, "" if no
    hop said who it is."""
    count, *ids = np.frombuffer(raw, "<u4").tolist()
    kept = ids[: min(count, MAX_HOPS)]
    if all(i == NONE32 for i in kept):
        return ""
    names = ["?" if i == NONE32 else str(i) for i in reversed(kept)]
    return ":".join(["..."] * (count > MAX_HOPS) + names)


def _addresses(packed: np.ndarray, version: np.ndarray) -> Column:
    """packed: u8 (n, 16). version: (n,) of 4, 6 or 0."""
    rows = np.empty(len(packed), [("version", "u1"), ("packed", "V16")])
    rows["version"] = version
    rows["packed"] = packed.view("V16")[:, 0]  # as one thing: byte by byte takes ten times as long
    return rows.view(ADDRESS)


def numbers(values: np.ndarray) -> Column:
    """Unsigned values -> int64, all ones (in their own width) -> -1. No other value of 64 bits reaches 2**63 here but
    timestamps, which do not come this way."""
    return np.where(values == np.iinfo(values.dtype).max, -1, values.astype(np.int64))


def seconds(wire: Column, time_unit: np.ndarray) -> Column:
    """int64 in the switches' units, -1 none -> float64 seconds, NaN none. time_unit: enum time_unit, (n,)."""
    return np.where(wire < 0, np.nan, wire / UNITS_PER_SECOND[time_unit])


def _words(names: Iterable[str]) -> Column:
    return np.array(list(names), dtype=object)


def _groups(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that agree in all columns. (first, group): a row of each group, and the group of each row."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        known, inverse = np.unique(column, return_inverse=True)
        codes = np.unique(codes * len(known) + inverse.reshape(-1), return_inverse=True)[1].reshape(-1)
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    return first, group.reshape(-1)


def _sums(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sum by group; values (n,) or (n, k)."""
    out = np.zeros((groups, *values.shape[1:]), np.int64)
    np.add.at(out, group, values.astype(np.int64))
    return out


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels that go together, of every thing that has them once: a flow has a value a hop, and is spelled once.

    columns: by name, (m,) each. rows: intp (n,), which of the m things each row is about; None: each the next one.
    """

    columns: Mapping[str, Column]
    rows: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray | slice) -> Labels:
        """The labels of some rows; the things are the same ones."""
        if self.rows is None:
            return Labels(self.columns, np.arange(len(next(iter(self.columns.values()))))[rows])
        return Labels(self.columns, self.rows[rows])

    @staticmethod
    def together(several: Sequence[Labels]) -> Labels:
        """Of the same names, behind one another."""
        counts = [len(next(iter(one.columns.values()))) for one in several]
        starts = np.cumsum([0, *counts])
        return Labels(
            {name: np.concatenate([one.columns[name] for one in several]) for name in several[0].columns},
            np.concatenate(
                [
                    start + (np.arange(count) if one.rows is None else one.rows)
                    for one, start, count in zip(several, starts, counts, strict=False)
                ]
            ),
        )

    def alone(self) -> Labels:
        """The same labels, without the things that no row is about."""
        if self.rows is None:
            return self
        things, rows = np.unique(self.rows, return_inverse=True)
        return Labels({name: column[things] for name, column in self.columns.items()}, rows.reshape(-1))

    @property
    def flat(self) -> Mapping[str, Column]:
        """By name, (n,) each."""
        if self.rows is None:
            return self.columns
        return {name: column[self.rows] for name, column in self.columns.items()}

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return sum(c.nbytes for c in self.columns.values()) + (0 if self.rows is None else self.rows.nbytes)


def _flat(parts: Iterable[Labels]) -> dict[str, Column]:
    return {name: column for part in parts for name, column in part.flat.items()}


def _each_once(name: str, column: Column) -> Labels:
    """A label of few values."""
    known, rows = np.unique(column, return_inverse=True)
    return Labels({name: known}, rows.reshape(-1))


# --- State -> Series --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Series:
    """One metric's series. parts: their labels, in the order of metric.labels; n of each part. values: int64 or float64
    (n,). No two rows have the same labels; no value is missing."""

    metric: Metric
    parts: tuple[Labels, ...]
    values: Column

    @property
    def labels(self) -> dict[str, Column]:
        """By name, as in metric.labels, (n,) each."""
        return _flat(self.parts)


@dataclasses.dataclass(frozen=True)
class Histogram:
    """One metric's histograms. parts: as in Series. bounds: float64 (b,), seconds. counts: int64 (n, b), how many were
    at most that. totals: int64 (n,). sums: float64 (n,), seconds."""

    metric: Metric
    parts: tuple[Labels, ...]
    bounds: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    sums: np.ndarray

    @property
    def labels(self) -> dict[str, Column]:
        """By name, as in metric.labels, (n,) each."""
        return _flat(self.parts)


CHANGES = (
    "new_flow", "path", "flow_latency", "hop_latency", "queue_occupancy", "egress_port_tx_utilization", "dropped",
    "congested_queue", "keepalive",
)  # fmt: skip
"""The words of a record's `changes`."""
NO_CHANGES = np.zeros(len(CHANGES), np.int64)


def scrape(
    state: State, config: Config, exporters: Mapping[str, Counts], changes: np.ndarray = NO_CHANGES
) -> list[Series | Histogram]:
    """Everything there is to say now. exporters: by name. changes: change_counts() of all batches, added up."""
    return [
        *program_series(state),
        change_series(changes),
        *source_series(state, config),
        *drop_series(state, config),
        *exporter_series(exporters),
        *flow_series(state, config),
        *port_series(state),
        *queue_series(state),
    ]


def _series(name: str, values: Any, *labels: Column) -> Series:
    metric = METRICS[name]
    columns = dict(zip(metric.labels, labels, strict=True))
    return Series(metric, (Labels(columns),) if columns else (), np.asarray(values))


def _one(name: str, value: Any) -> Series:
    return _series(name, [int(value)])


def program_series(state: State) -> list[Series | Histogram]:
    """What the kernel program did: outcomes and counters."""
    counters = state.counters
    return [
        _series("int_packets_total", counters["outcomes"].astype(np.int64)[: len(OUTCOMES)], _words(OUTCOMES)),
        _one("int_events_total", counters["events"]),
        _one("int_events_lost_total", counters["events_lost"]),
        _one("int_reports_lost_between_cpus_total", state.lost_between_cpus),
        *(
            _one(f"int_{what}_refused_total", counters[f"{what}_refused"])
            for what in ("flows", "points", "sources", "drops", "places")
        ),
    ]


def change_series(changes: np.ndarray) -> Series:
    """What was news. changes: int64, by CHANGES. The sum is the number of entries that `changes` has in all records."""
    return _series("int_changes_total", changes, _words(CHANGES))


def source_series(state: State, config: Config) -> list[Series | Histogram]:
    """Who sends reports. One row a (source, switch_id, hw_id): the sum over report versions. Telemetry Report 0.5
    counts by source and hw_id; its switch is the one that its reports name, if that is always the same."""
    sources = state.sources[state.sources["received"] > 0]
    address, switch_id = _addresses(sources["address"], sources["ip_version"]), numbers(sources["reporter"])
    first, group = _groups(address, switch_id, sources["hw_id"])
    labels = address[first], switch_id[first], sources["hw_id"][first].astype(np.int64)
    # A loop over sources: whose settings are whose is found address by address.
    sampling = np.array([config.of_source(source).sampling_ratio for source in texts(address[first])], np.int64)
    return [
        *(
            _series(name, _sums(sources[field], group, len(first)), *labels)
            for name, field in (
                ("int_reports_total", "received"),
                ("int_reports_lost_total", "lost"),
                ("int_reports_reordered_total", "reordered"),
                ("int_reports_duplicated_total", "duplicated"),
                ("int_reports_restarted_total", "restarted"),
            )
        ),
        _series("int_report_sampling_ratio", sampling, *labels),
    ]


def drop_reasons(config: Config) -> list[str]:
    """What each of the 256 drop reasons is called: its name, else its number; "" for 255, which says none was given."""
    names = config.drop_reason_names
    return [*(names.get(reason, str(reason)) for reason in range(NONE8)), ""]


def drop_series(state: State, config: Config) -> list[Series | Histogram]:
    """Drop reports, by switch and what the reason is called."""
    names, named = np.unique(_words(drop_reasons(config)), return_inverse=True)
    switch_id, reason = numbers(state.drop_keys["switch_id"]), named.reshape(-1)[state.drop_keys["reason"]]
    first, group = _groups(switch_id, reason)
    drops = _sums(state.drops, group, len(first))
    return [_series("int_dropped_packets_total", drops, switch_id[first], names[reason[first]])]


def exporter_series(exporters: Mapping[str, Counts]) -> list[Series | Histogram]:
    """What became of the exporters' points."""
    names, counts = _words(exporters), list(exporters.values())
    losses = [(name, reason, n) for name, c in exporters.items() for reason, n in c.lost.items()]

    def of_each(metric: str, value: Callable[[Counts], float], dtype: Any = np.int64) -> Series:
        return _series(metric, np.array([value(c) for c in counts], dtype), names)

    return [
        of_each("int_exporter_points_total", lambda c: c.accepted),
        of_each("int_exporter_points_recovered_total", lambda c: c.recovered),
        of_each("int_exporter_points_delivered_total", lambda c: c.delivered),
        _series(
            "int_exporter_points_lost_total",
            np.array([n for *_, n in losses], np.int64),
            _words(name for name, *_ in losses),
            _words(reason for _, reason, _ in losses),
        ),
        of_each("int_exporter_failures_total", lambda c: c.failures),
        of_each("int_exporter_up", lambda c: c.up),
        of_each("int_exporter_oldest_point_age_seconds", lambda c: c.age_s, np.float64),
        of_each("int_exporter_buffer_points", lambda c: c.buffered),
        of_each("int_exporter_buffer_bytes", lambda c: c.buffered_bytes),
        of_each("int_exporter_spool_bytes", lambda c: c.spool_bytes),
        of_each("int_exporter_spool_failures_total", lambda c: c.spool_failures),
    ]


def with_path(state: State) -> np.ndarray:
    """Rows of the flows that a stack or a postcard was seen of."""
    return np.flatnonzero(state.flows["flags"] & (FlowFlag.PATH | FlowFlag.POSTCARDS))


def key_columns(keys: np.ndarray) -> dict[str, Column]:
    """FLOW_KEY (n,) -> by name, as FLOW_LABELS, (n,) each."""
    return {
        "source": _addresses(keys["source"], keys["ip_version"]),
        "destination": _addresses(keys["destination"], keys["ip_version"]),
        **{name: keys[name].astype(np.int64) for name in ("source_port", "destination_port", "protocol")},
    }


def hops_in_order(state: State, rows: np.ndarray, links: postcards.Links) -> tuple[np.ndarray, np.ndarray]:
    """(index into rows, place in the flow's hops) of all hops kept of flows, rows of state.flows as with_path()
    gives them: flow by flow, in each nearest the sink first."""
    flows = state.flows
    stacks = flows["flags"][rows] & FlowFlag.PATH != 0
    there = (np.arange(MAX_HOPS) < flows["hop_count"][rows][:, None]) & stacks[:, None]
    of, place = np.nonzero(there)
    cards = np.flatnonzero(~stacks)
    if not len(cards):
        return of, place
    of_cards, place_of_cards = postcards.of_flows(flows[rows[cards]], links)
    of, place = np.concatenate([of, cards[of_cards]]), np.concatenate([place, place_of_cards])
    order = np.argsort(of, kind="stable")
    return of[order], place[order]


@dataclasses.dataclass(frozen=True)
class Hops:
    """What flows last said of the switches on their path, hop by hop, in a flow nearest the sink first.

    of: intp (n,), which flow, ascending; place: intp (n,), in its stack. switch_id, egress_port_id, queue_id: int64
    (n,), -1 none. latency_s: float64 (n,), NaN none.
    """

    of: np.ndarray
    place: np.ndarray
    switch_id: Column
    egress_port_id: Column
    queue_id: Column
    latency_s: Column


def flow_hops(state: State, rows: np.ndarray, config: Config) -> Hops:
    """Of flows, rows of state.flows as with_path() gives them."""
    of, place = hops_in_order(state, rows, config.links)
    hops, flow = state.flows["hops"], rows[of]
    time_unit = state.flows["time_unit"][flow]
    switch_id, egress_port_id, queue_id, latency = (
        numbers(hops[name][flow, place]) for name in ("switch_id", "egress_port_id", "queue_id", "latency")
    )
    place = np.arange(len(of)) - np.searchsorted(of, of)
    return Hops(of, place, switch_id, egress_port_id, queue_id, seconds(latency, time_unit))


def flow_latency_s(state: State, rows: np.ndarray) -> Column:
    """float64 (n,), NaN none: what int_flow_latency_seconds shows of these rows of state.flows."""
    return seconds(numbers(state.flows["latency"][rows]), state.flows["time_unit"][rows])


def flow_series(state: State, config: Config) -> list[Series | Histogram]:
    """Latencies of the flows that a stack or a postcard was seen of: the config.max_flow_series most recently seen;
    others are counted."""
    rows = with_path(state)
    omitted = max(0, len(rows) - config.max_flow_series)
    if omitted:
        rows = rows[np.argpartition(state.flow_seen_ns()[rows], omitted - 1)[omitted:]]
    # A map that changes while it is read may bring a flow twice.
    _, first = np.unique(state.flow_keys[rows].view(f"V{state.flow_keys.dtype.itemsize}"), return_index=True)
    rows = rows[first]

    # Of the flows, which are large, only what is asked for is taken, field by field.
    keys, time_unit = state.flow_keys[rows], state.flows["time_unit"][rows]
    flows = Labels(key_columns(keys))
    latency = numbers(state.flows["latency"][rows])
    has = np.flatnonzero(latency >= 0)

    # A stack's hops are the first ones; a switch's postcard may be in any place.
    there = np.arange(MAX_HOPS) < state.flows["hop_count"][rows][:, None]
    cards = np.flatnonzero(state.flows["flags"][rows] & FlowFlag.PATH == 0)
    hops = state.flows["hops"]
    there[cards] = state.flows["places"]["seen"][rows[cards]] != 0
    flow, place = np.nonzero(there)
    switch_id, hop_latency = (numbers(hops[name][rows[flow], place]) for name in ("switch_id", "latency"))
    # A packet may go through a switch twice: one series, the time it spent there.
    pairs = flow << 32 | switch_id
    order = np.argsort(pairs, kind="stable")
    order = order[(switch_id[order] >= 0) & (hop_latency[order] >= 0)]
    begins = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    flow, switch_id = flow[order[begins]], switch_id[order[begins]]
    in_switch = np.add.reduceat(hop_latency[order], begins) if len(begins) else hop_latency[:0]
    return [
        _one("int_flows", len(state.flows)),
        _one("int_flow_series_omitted", omitted),
        Series(METRICS["int_flow_latency_seconds"], (flows[has],), seconds(latency[has], time_unit[has])),
        Series(
            METRICS["int_flow_hop_latency_seconds"],
            (flows[flow], _each_once("switch_id", switch_id)),
            seconds(in_switch, time_unit[flow]),
        ),
    ]


def _points_of(points: np.ndarray, kind: int) -> np.ndarray:
    """Rows of a State's ports or queues that are somebody's: not index 0, in use, of a switch that said who it is."""
    used = (points["kind"] == kind) & (points["switch_id"] != NONE32)
    used[:1] = False
    return np.flatnonzero(used)


def _last(points: np.ndarray) -> np.ndarray:
    """The rows that have a value: one a (switch_id, id)."""
    points = points[points["value"] != NONE32]
    first, _ = _groups(points["switch_id"], points["id"])
    return points[first]


def _point_series(name: str, points: np.ndarray, values: np.ndarray) -> Series:
    metric = METRICS[name]
    ids = zip(metric.labels, ("switch_id", "id"), strict=True)
    return Series(metric, tuple(_each_once(label, numbers(points[field])) for label, field in ids), values)


def port_series(state: State) -> list[Series | Histogram]:
    """TX utilization by port; hop latencies by switch, the sum of its ports.

    Bucket k of the program's holds the whole numbers [2**(k-1), 2**k - 1] of ns (bucket 0: 0), so `le` is 2**k - 1 ns:
    exactly what is at most that. The last one before NO_LATENCY holds all above.
    """
    rows = _points_of(state.ports, PORT)
    ports, statistics = state.ports[rows], state.port_statistics[rows]
    last = _last(ports)
    known = last[last["unit"] > 0]

    first, group = _groups(ports["switch_id"])
    switches = ports["switch_id"][first].astype(np.int64)
    buckets = _sums(statistics["buckets"].reshape(-1, LATENCY_BUCKETS), group, len(first))
    counts = np.cumsum(buckets[:, :NO_LATENCY], axis=1)
    return [
        _point_series("int_egress_port_tx_utilization", last, numbers(last["value"])),
        _point_series("int_egress_port_tx_utilization_ratio", known, known["value"] / known["unit"]),
        Histogram(
            METRICS["int_hop_latency_seconds"],
            (Labels({"switch_id": switches}),),
            bounds=(2.0 ** np.arange(NO_LATENCY - 1) - 1) / NS_PER_SECOND,
            counts=counts[:, :-1],
            totals=counts[:, -1],
            sums=np.bincount(group, statistics["latency_sum"].astype(np.float64), len(first)) / NS_PER_SECOND,
        ),
        _series("int_hops_without_latency_total", buckets[:, NO_LATENCY], switches),
        _one("int_hops_without_switch_total", state.port_statistics["buckets"][:1].sum()),
    ]


@dataclasses.dataclass(frozen=True)
class PortCounts:
    """Hops by egress port since the start. switch_id, egress_port_id: int64 (n,), -1: the switch named none. hops:
    int64 (n,); timed: of these, those with a latency. latency_ns: int64 (n,), the sum of these latencies."""

    switch_id: Column
    egress_port_id: Column
    hops: np.ndarray
    timed: np.ndarray
    latency_ns: np.ndarray


def port_counts(state: State) -> PortCounts:
    """Of each port of a switch that said who it is, once."""
    rows = _points_of(state.ports, PORT)
    ports, statistics = state.ports[rows], state.port_statistics[rows]
    first, group = _groups(ports["switch_id"], ports["id"])
    buckets = statistics["buckets"].reshape(-1, LATENCY_BUCKETS)
    return PortCounts(
        numbers(ports["switch_id"][first]),
        numbers(ports["id"][first]),
        *(
            _sums(values, group, len(first))
            for values in (buckets.sum(axis=1), buckets[:, :NO_LATENCY].sum(axis=1), statistics["latency_sum"])
        ),
    )


def quantile(histogram: Histogram, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(above, at most) float64 (n,), seconds: the bucket in which the value lies that so large a share of all is not
    above. It is no number: powers of two are all that is known. At most NaN: it is above the last bound; both NaN:
    there is nothing in the histogram. Above and at most 0: it is 0."""
    wanted = np.ceil(share * histogram.totals - 1e-9).clip(
        min=1
    )  # what 0.9 times a multiple of ten is above by rounding
    at = (histogram.counts < wanted[:, None]).sum(axis=1)
    bounds = np.concatenate([[0.0], histogram.bounds, [np.nan]])
    none = np.where(histogram.totals > 0, 0.0, np.nan)
    return bounds[at] + none, bounds[at + 1] + none


def histogram_since(now: Histogram, before: Histogram) -> Histogram:
    """What came since, of one metric whose one label is a number. Who was not there before began at nothing."""
    (labels,) = now.labels.values()
    (known,) = before.labels.values()
    order = np.argsort(known)
    at = np.searchsorted(known[order], labels).clip(max=max(0, len(known) - 1))
    counts, totals, sums = now.counts.copy(), now.totals.copy(), now.sums.copy()
    if len(known):
        there = np.flatnonzero(known[order][at] == labels)
        old = order[at[there]]
        counts[there] -= before.counts[old]
        totals[there] -= before.totals[old]
        sums[there] -= before.sums[old]
    return dataclasses.replace(now, counts=counts.clip(min=0), totals=totals.clip(min=0), sums=sums.clip(min=0.0))


def queue_series(state: State) -> list[Series | Histogram]:
    """Occupancy by queue: the last and the largest."""
    rows = _points_of(state.queues, QUEUE)
    queues, largest = state.queues[rows], state.queue_statistics["occupancy_max"][rows].astype(np.int64)
    last = _last(queues)
    known = last[last["unit"] > 0]

    queues, largest = queues[largest > 0], largest[largest > 0] - 1  # kept as occupancy + 1
    order = np.argsort(largest, kind="stable")[::-1]
    queues, largest = queues[order], largest[order]
    first, _ = _groups(queues["switch_id"], queues["id"])
    queues, largest = queues[first], largest[first]
    measured = queues["unit"] > 0
    return [
        _point_series("int_queue_occupancy", last, numbers(last["value"])),
        _point_series("int_queue_occupancy_max", queues, largest),
        _point_series("int_queue_occupancy_bytes", known, _bytes(numbers(known["value"]), known)),
        _point_series("int_queue_occupancy_max_bytes", queues[measured], _bytes(largest[measured], queues[measured])),
    ]


def _bytes(occupancy: np.ndarray, queues: np.ndarray) -> np.ndarray:
    """int64 in the queues' units -> int64 bytes."""
    return occupancy * queues["unit"].astype(np.int64)


# --- Batch -> Points --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Points:
    """What is news about one kind of thing: flow, hop, queue or port.

    measurement, field: its name and the value's. parts: labels, named as in METRICS; n of each part. wire: int64 (n,),
    the switch's own number, -1 none (only a flow can have none). values: the same in METRICS' units: float64 seconds,
    NaN none, or int64. paths: PATH (n,) of a flow, else None. times_ns: int64 (n,), since 1970.
    """

    kind: str
    measurement: str
    field: str
    parts: tuple[Labels, ...]
    wire: Column
    values: Column
    times_ns: np.ndarray
    paths: Column | None = None

    def __len__(self) -> int:
        return len(self.wire)

    def __getitem__(self, rows: np.ndarray | slice) -> Points:
        return dataclasses.replace(
            self,
            parts=tuple(part[rows].alone() for part in self.parts),
            wire=self.wire[rows],
            values=self.values[rows],
            times_ns=self.times_ns[rows],
            paths=None if self.paths is None else self.paths[rows],
        )

    @staticmethod
    def together(several: Sequence[Points]) -> Points:
        """Of one kind, behind one another."""
        if len(several) == 1:
            return several[0]
        return dataclasses.replace(
            several[0],
            parts=tuple(map(Labels.together, zip(*(one.parts for one in several), strict=True))),
            wire=np.concatenate([one.wire for one in several]),
            values=np.concatenate([one.values for one in several]),
            times_ns=np.concatenate([one.times_ns for one in several]),
            paths=np.concatenate([one.paths for one in several if one.paths is not None])
            if several[0].paths is not None
            else None,
        )

    @property
    def labels(self) -> dict[str, Column]:
        """By name, (n,) each."""
        return _flat(self.parts)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        columns = [self.wire, self.values, self.times_ns]
        own = sum(c.nbytes for c in columns) + (0 if self.paths is None else self.paths.nbytes)
        return own + sum(part.nbytes for part in self.parts)


def points(batch: Batch, config: Config) -> list[Points]:
    """All that is news in a batch. The program says what is (changes and the hops' bits); a report that is told for
    another reason, a drop say, has no points."""
    flows = _flow_labels(batch.reports)
    return [
        flow_points(postcards.in_order(batch, config.links), config, flows),
        hop_points(batch, config, flows),
        queue_points(batch, config),
        port_points(batch, config),
    ]


FLOW_NEWS = Change.NEW_FLOW | Change.PATH | Change.FLOW_LATENCY | Change.KEEPALIVE


def has_path(batch: Batch) -> np.ndarray:
    """bool (n,), of each event: its hops are the path of its flow."""
    return hops_are_path(batch.reports["flags"]) & (np.bincount(batch.hop_report, minlength=len(batch)) > 0)


def hops_are_path(flags: np.ndarray) -> np.ndarray:
    """bool (n,), of each event's flags: its hops, if it has any, are the path of its flow."""
    of_path = flags & (ReportFlag.INT | ReportFlag.POSTCARD) != 0
    return of_path & (flags & ReportFlag.INTERMEDIATE == 0)  # a stack that was flushed is a part of a path


def event_paths(batch: Batch, news: np.ndarray) -> np.ndarray:
    """u32 (k, MAX_HOPS + 1): how many hops there were, then their switch ids, nearest the sink first, of the k events
    that news (bool (n,)) names; hops in order (postcards.in_order)."""
    rows = np.flatnonzero(news)
    of_news = np.flatnonzero(news[batch.hop_report] & (batch.hop_index < MAX_HOPS))
    new_row = np.cumsum(news) - 1
    paths = np.full((len(rows), MAX_HOPS + 1), NONE32, "<u4")
    paths[:, 0] = batch.reports["hop_count"][rows]
    paths[new_row[batch.hop_report[of_news]], batch.hop_index[of_news] + 1] = batch.hops["switch_id"][of_news]
    return paths


def flow_points(batch: Batch, config: Config, flows: Labels) -> Points:
    """Latency and path of the flows of which these, or nothing for the keep-alive time, changed. Only with a stack, or
    with postcards, whose hops have to be in order. flows: of all reports."""
    reports = batch.reports
    news = (reports["changes"] & FLOW_NEWS != 0) & has_path(batch)
    rows = np.flatnonzero(news)
    paths = event_paths(batch, news)
    named = (paths[:, 1:] != NONE32).any(axis=1)

    wire = numbers(reports["flow_latency"][rows])
    say = (wire >= 0) | named
    rows, wire, paths = rows[say], wire[say], paths[say]
    values = seconds(wire, reports["time_unit"][rows])
    times = _times(batch, config, rows, reports["ingress_timestamp"][rows], reports["report_version"][rows] != 20)
    return Points("flow", "int_flow", "latency", (flows[rows],), wire, values, times, paths.view(PATH)[:, 0])


def hop_points(batch: Batch, config: Config, flows: Labels) -> Points:
    """Latencies of the hops that are news; of postcards: of the reporting switch. flows: of all reports."""
    report, parts, wire, times = _hop_news(
        batch, config, "hop_latency_changes", Change.LOCAL_HOP_LATENCY, "latency", ("switch_id",)
    )
    values = seconds(wire, batch.reports["time_unit"][report])
    return Points("hop", "int_hop", "latency", (flows[report], *parts), wire, values, times)


def queue_points(batch: Batch, config: Config) -> Points:
    """Queue occupancies that are news."""
    _, parts, wire, times = _hop_news(
        batch,
        config,
        "queue_occupancy_changes",
        Change.LOCAL_QUEUE_OCCUPANCY,
        "queue_occupancy",
        ("switch_id", "queue_id"),
    )
    return Points("queue", "int_queue", "occupancy", parts, wire, wire, times)


def port_points(batch: Batch, config: Config) -> Points:
    """TX utilizations of egress ports that are news."""
    _, parts, wire, times = _hop_news(
        batch, config, "tx_utilization_changes", Change.LOCAL_TX_UTILIZATION, "egress_port_tx_utilization",
        ("switch_id", "egress_port_id"),
    )  # fmt: skip
    return Points("port", "int_port", "tx_utilization", parts, wire, wire, times)


def _hop_news(
    batch: Batch, config: Config, bits: str, local_change: enum.IntFlag, field: str, ids: tuple[str, ...]
) -> tuple[np.ndarray, tuple[Labels, ...], Column, np.ndarray]:
    """One value of the hops whose bit is set, then of the local hops whose flag is.

    Returns (row of reports, parts, wire, times). Left out: what has no value, and what is nobody's (the switch did
    not say who it is).
    """
    reports, hops = batch.reports, batch.hops
    news = np.flatnonzero(reports[bits][batch.hop_report] >> batch.hop_index.astype(np.uint16) & 1)
    local = np.flatnonzero(reports["changes"] & local_change)
    report = np.concatenate([batch.hop_report[news], local])

    def of_hop(name: str) -> np.ndarray:
        """One field only: hops are large."""
        return np.concatenate([hops[name][news], reports["local"][name][local]])

    wire, switch_id = of_hop(field), of_hop("switch_id")
    some = np.flatnonzero((wire != NONE32) & (switch_id != NONE32))
    # One that fills 63 bits is no time InfluxDB knows.
    egress = of_hop("egress_timestamp")[some]
    times = _times(batch, config, report[some], egress, egress < NONE64 >> 1)
    columns = [numbers(of_hop(name)[some]) for name in ids]
    return (
        report[some],
        tuple(_each_once(name, column) for name, column in zip(ids, columns, strict=True)),
        numbers(wire[some]),
        _apart(times, report[some], *columns),
    )


ODD = 0x9E3779B97F4A7C15
"""A multiplier that spreads numbers over 64 bits."""


def _apart(times: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """A packet may go through a switch, or a queue, twice: the later values are a nanosecond later each, so that a
    report alone says which points there are of it. columns: the report, and what the points of a series agree in."""
    mixed = times.astype(np.uint64)
    for column in columns:
        mixed = mixed * np.uint64(ODD) + column.astype(np.uint64)
    ascending = np.sort(mixed)
    if (ascending[1:] != ascending[:-1]).all():
        return times
    first, group = _groups(times, *columns)
    order = np.argsort(group, kind="stable")
    before = np.arange(len(order)) - np.searchsorted(group[order], np.arange(len(first)))[group[order]]
    out = times.copy()
    out[order] += before
    return out


def _times(batch: Batch, config: Config, rows: np.ndarray, of_int: np.ndarray, has: np.ndarray) -> np.ndarray:
    """When, in ns since 1970: of_int if that is asked for and there, else the arrival here."""
    host = batch.reports["received_ns"][rows].astype(np.int64) + batch.clock_ns
    if config.timestamps == "host":
        return host
    times: np.ndarray = np.where(has, of_int.astype(np.uint64).view(np.int64), host)
    return times


def flow_version(flags: np.ndarray) -> np.ndarray:
    """4, 6, or 0 for a report without an IP packet inside."""
    return np.where(flags & ReportFlag.FLOW_IPV4, 4, np.where(flags & ReportFlag.FLOW_IPV6, 6, 0)).astype(np.uint8)


def event_keys(reports: np.ndarray) -> np.ndarray:
    """FLOW_KEY (n,), as the flow that each report is about stands in state.flow_keys; without an IP packet inside, all
    zeros but for what else is known."""
    keys = np.zeros(len(reports), FLOW_KEY)
    for name in ("source_port", "destination_port", "protocol"):
        keys[name] = reports[name]
    for name in ("source", "destination"):
        keys[name] = reports[f"flow_{name}"]
    keys["ip_version"] = flow_version(reports["flags"])
    return keys


def _flow_labels(reports: np.ndarray) -> Labels:
    """Of the flow that each report is about."""
    flags = reports["flags"]
    version = flow_version(flags)
    ports = flags & ReportFlag.FLOW_PORTS != 0
    return Labels(
        {
            "source": _addresses(reports["flow_source"], version),
            "destination": _addresses(reports["flow_destination"], version),
            "source_port": np.where(ports, reports["source_port"].astype(np.int64), -1),
            "destination_port": np.where(ports, reports["destination_port"].astype(np.int64), -1),
            "protocol": np.where(version > 0, reports["protocol"].astype(np.int64), -1),
        }
    )


# --- Batch -> records -------------------------------------------------------------------------------------------------

REPORT_VERSIONS = {5: "0.5", 10: "1.0", 20: "2.0"}
INT_VERSIONS = {5: "0.5", 10: "1.0", 20: "2.x"}

_COMMON = (
    ("switch_id",),
    ("ingress_port_id", "egress_port_id"),
    ("hop_latency",),
    ("queue_id", "queue_occupancy"),
    ("ingress_timestamp",),
    ("egress_timestamp",),
)
_LEVEL_2 = (("l2_ingress_port_id", "l2_egress_port_id"), ("egress_port_tx_utilization",))
_BUFFER = ("buffer_id", "buffer_occupancy")
_RENAMED_05 = {"congested_queue_id": "buffer_id", "queue_congestion": "buffer_occupancy"}


def _masks(*items: tuple[str, ...], first: int = 0x8000) -> dict[int, tuple[str, ...]]:
    return {first >> bit: names for bit, names in enumerate(items) if names}


HOP_FIELDS = {
    5: _masks(*_COMMON, tuple(_RENAMED_05), ("egress_port_tx_utilization",)),
    10: {**_masks(*_COMMON, *_LEVEL_2), 1: ("checksum_complement",)},
    20: {**_masks(*_COMMON, *_LEVEL_2, _BUFFER), 1: ("checksum_complement",)},
}
"""By int_version: what a bit of instruction_bitmap stands for (INT, section 2.6 of the wire format)."""

LOCAL_FIELDS = {
    10: _masks(
        ("ingress_port_id", "egress_port_id"),
        ("hop_latency",),
        ("queue_id", "queue_occupancy"),
        ("egress_timestamp",),
        ("drop_queue_id", "drop_reason"),
        ("egress_port_tx_utilization",),
        first=0x20,
    ),
    20: {**_masks((), *_COMMON[1:], *_LEVEL_2, _BUFFER), 1: ("drop_queue_id", "drop_reason")},
}
LOCAL_FIELDS[5] = LOCAL_FIELDS[10]
"""By report_version: what a bit of local_bitmap stands for (Telemetry Report, sections 1.2 to 1.4). 0.5 has no bitmap;
its drop and switch-local headers are told in 1.0's bits."""

HOP_NAMES = tuple(n for n in HOP.names or () if n not in ("cell", "latency", "pad"))
LOCAL_NAMES = (*HOP_NAMES, "drop_queue_id", "drop_reason")
_NONE = {n: int(np.iinfo(HOP[n]).max) for n in HOP_NAMES} | {n: int(np.iinfo(HEAD[n]).max) for n in LOCAL_NAMES[-2:]}

_LOCAL_BITS = {"queue_id": 8, "queue_occupancy": 24, "buffer_occupancy": 24, "egress_timestamp": 32}
"""Widths on the wire of a local hop's fields that the record has wider (timestamps: before Telemetry Report 2.0)."""

Plan: TypeAlias = tuple[tuple[str, int, int, int | None], ...]


@functools.lru_cache(1 << 12)
def hop_plan(local: bool, version: int, bitmap: int) -> Plan:
    """(name in the record, place in LOCAL_NAMES, all ones, what to say then) of every field that a bitmap asks for.

    In a stack all ones is null. What a switch says of itself in the report has no such rule: a drop report's egress
    port 65535 is the number it sent.
    """
    table = (LOCAL_FIELDS if local else HOP_FIELDS)[version]
    plan = []
    for name in [n for mask, fields in table.items() if bitmap & mask for n in fields]:
        stored = _RENAMED_05.get(name, name)
        none, said = _NONE[stored], None
        if local:
            narrow = stored in _LOCAL_BITS and not (version == 20 and stored == "egress_timestamp")
            said = (1 << _LOCAL_BITS[stored]) - 1 if narrow else none
        plan.append((name, LOCAL_NAMES.index(stored), none, said))
    return tuple(plan)


def _hop_dict(plan: Plan, values: tuple[int, ...]) -> dict[str, int | None]:
    return {name: said if values[at] == none else values[at] for name, at, none, said in plan}


def _has(flags: np.ndarray, flag: ReportFlag) -> list[bool]:
    """Column by column: an IntFlag asked for each report would take half of the time."""
    has: list[bool] = (flags & int(flag) != 0).tolist()
    return has


def reports(batch: Batch) -> list[dict[str, Any]]:
    """A batch's reports as `decode` prints them: the wire's own numbers; null what a hop called unavailable,
    absent what it was not asked for. Python loops over reports: the result is Python objects, one a report.

    Only reports: packets that were refused, which `decode` is told too, have to be left out before.
    """
    r = batch.reports
    flags = r["flags"]
    source = texts(_addresses(r["source"], np.where(flags & ReportFlag.SOURCE_IPV6, 6, 4)))
    version_of_flow = flow_version(flags)
    flow_source = texts(_addresses(r["flow_source"], version_of_flow))
    flow_destination = texts(_addresses(r["flow_destination"], version_of_flow))
    local_values = np.empty(len(r), [(n, r["local"].dtype[n] if n in HOP_NAMES else r.dtype[n]) for n in LOCAL_NAMES])
    for name in LOCAL_NAMES:
        local_values[name] = (r["local"] if name in HOP_NAMES else r)[name]
    local = local_values.tolist()
    hops = batch.hops[list(HOP_NAMES)].tolist()
    ends = np.searchsorted(batch.hop_report, np.arange(len(r) + 1)).tolist()
    heads = zip(
        *(r[n].tolist() for n in (
            "report_version", "switch_id", "hw_id", "sequence_number", "ingress_timestamp", "local_bitmap")),
        *(_has(flags, flag) for flag in (
            ReportFlag.LOCAL, ReportFlag.DROPPED, ReportFlag.CONGESTED_QUEUE, ReportFlag.TRACKED_FLOW,
            ReportFlag.INTERMEDIATE)),
        strict=True,
    )  # fmt: skip

    out = []
    for i, (
        version, switch_id, hw_id, sequence_number, ingress_timestamp, local_bitmap,
        has_local, dropped, congested_queue, tracked_flow, intermediate,
    ) in enumerate(heads):  # fmt: skip
        out.append(
            {
                "version": REPORT_VERSIONS[version],
                "source": source[i],
                # 0.5 names its switch in the drop and switch-local headers only
                "switch_id": switch_id if version != 5 or has_local else None,
                "hw_id": hw_id,
                "sequence_number": sequence_number,
                "ingress_timestamp": None if version == 20 else ingress_timestamp,
                "dropped": dropped,
                "congested_queue": congested_queue,
                "tracked_flow": tracked_flow,
                "intermediate": intermediate,
                "local_hop": _hop_dict(hop_plan(True, version, local_bitmap), local[i]) if has_local else None,
                "flow": None,
                "int": None,
            }
        )

    rows = np.flatnonzero(flags & ReportFlag.INNER)
    for i, ports, version, vlan_count, vlan_ids, protocol, source_port, destination_port, dscp in zip(
        rows.tolist(), _has(flags[rows], ReportFlag.FLOW_PORTS), version_of_flow[rows].tolist(),
        *(r[n][rows].tolist() for n in (
            "vlan_count", "vlan_ids", "protocol", "source_port", "destination_port", "dscp")), strict=True,
    ):  # fmt: skip
        out[i]["flow"] = {
            "vlan_ids": vlan_ids[:vlan_count],
            "ip_version": version or None,
            "source": flow_source[i] or None,
            "destination": flow_destination[i] or None,
            "protocol": protocol if version else None,
            "source_port": source_port if ports else None,
            "destination_port": destination_port if ports else None,
            "dscp": dscp if version else None,
        }

    rows = np.flatnonzero(flags & ReportFlag.INT)
    for i, mx, of_others, truncated, version, bitmap, hop_ml, remaining, hop_count, latency in zip(
        rows.tolist(),
        *(_has(flags[rows], flag) for flag in (ReportFlag.INT_MX, ReportFlag.POSTCARD, ReportFlag.HOPS_TRUNCATED)),
        *(r[n][rows].tolist() for n in (
            "int_version", "instruction_bitmap", "hop_ml", "remaining_hop_count", "hop_count", "latency")), strict=True,
    ):  # fmt: skip
        plan = hop_plan(False, version, bitmap)
        own = not of_others  # else the hops are what other reports said of the flow
        out[i]["int"] = {
            "version": INT_VERSIONS[version],
            "mode": "MX" if mx else "MD",
            "instruction_bitmap": f"0x{bitmap:04x}",
            "hop_ml": None if mx or version == 5 else hop_ml,
            "remaining_hop_count": None if mx or version == 5 else remaining,
            "hop_count": hop_count if own else 0,
            "hops": [_hop_dict(plan, hop) for hop in hops[ends[i] : ends[i + 1]]] if own else [],
            "latency": None if latency == NONE64 else latency,
        }
        if truncated:
            out[i]["int"]["hops_truncated"] = True
    return out


def records(batch: Batch, config: Config) -> list[dict[str, Any]]:
    """A batch's events as users get them: reports(), and beside it
    - drop_reason, of a drop report: what the reason is called; null where none was given
    - postcards, of a flow put together of them: hop_count, hops (nearest the sink first, null for no value), latency
    - time_unit, of all its times and latencies, where that is not ns
    - flow_latency, where hops_truncated: the sum over all hops of hop_latency, or else of the time between their
      timestamps; null where a hop that is not kept said no hop_latency
    - received_ns, since 1970
    - changes: what was news, words, and for a hop {"hop": i, "what": ...}, "local" being the reporting switch itself.
    """
    r = batch.reports
    out = reports(batch)
    received = (r["received_ns"].astype(np.int64) + batch.clock_ns).tolist()
    bits = zip(
        r["changes"].tolist(), r["hop_latency_changes"].tolist(), r["queue_occupancy_changes"].tolist(),
        r["tx_utilization_changes"].tolist(), strict=True,
    )  # fmt: skip
    names = drop_reasons(config)
    for row in np.flatnonzero(r["changes"] & Change.DROPPED).tolist():
        out[row]["drop_reason"] = names[r["drop_reason"][row]] or None
    for row, said in _postcards(postcards.in_order(batch, config.links)):
        out[row]["postcards"] = said
    for row in np.flatnonzero(r["time_unit"]).tolist():
        out[row]["time_unit"] = LATENCY_UNITS[r["time_unit"][row]]
    for row in np.flatnonzero(r["flags"] & ReportFlag.HOPS_TRUNCATED).tolist():
        latency = int(r["flow_latency"][row])
        out[row]["flow_latency"] = None if latency == NONE64 else latency
    for record, received_ns, of_report in zip(out, received, bits, strict=True):
        record["received_ns"] = received_ns
        record["changes"] = list(map(_change, changes_in_words(*of_report)))
    return out


PLACE_FIELDS = {
    "switch_id": "switch_id",
    "egress_port_id": "egress_port_id",
    "queue_id": "queue_id",
    "hop_latency": "latency",
}
"""What a record says of a switch that sent postcards -> where it stands in struct hop."""


def _postcards(batch: Batch) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row of reports, what its record says of the flow's postcards), of those that have them; hops in order."""
    has = batch.reports["flags"] & ReportFlag.POSTCARD != 0
    counts = np.bincount(batch.hop_report, minlength=len(has))[has].tolist()
    latencies = numbers(batch.reports["flow_latency"][has]).tolist()
    places = batch.hops[has[batch.hop_report]]
    hops = zip(*(numbers(places[name]).tolist() for name in PLACE_FIELDS.values()), strict=True)
    for row, count, latency in zip(np.flatnonzero(has).tolist(), counts, latencies, strict=True):
        yield (
            row,
            {
                "hop_count": count,
                "hops": [
                    {name: None if v < 0 else v for name, v in zip(PLACE_FIELDS, hop, strict=True)}
                    for hop in itertools.islice(hops, count)
                ],
                "latency": None if latency < 0 else latency,
            },
        )


HOP_CHANGES = (
    ("hop_latency", Change.LOCAL_HOP_LATENCY),
    ("queue_occupancy", Change.LOCAL_QUEUE_OCCUPANCY),
    ("egress_port_tx_utilization", Change.LOCAL_TX_UTILIZATION),
)


def change_counts(batch: Batch) -> np.ndarray:
    """How often each of CHANGES stands in the records of a batch: int64."""
    reports = batch.reports
    events = np.bincount(reports["changes"])
    bits = np.arange(len(events))
    columns = ("hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes")
    of_hops = {word: (flag, column) for (word, flag), column in zip(HOP_CHANGES, columns, strict=True)}
    counts = NO_CHANGES.copy()
    for at, word in enumerate(CHANGES):
        flag, column = of_hops[word] if word in of_hops else (Change[word.upper()], None)
        counts[at] = events[bits & flag != 0].sum()
        if column:  # a bit a hop
            counts[at] += np.count_nonzero(np.unpackbits(np.ascontiguousarray(reports[column]).view(np.uint8)))
    return counts


def _change(change: str | tuple[int | str, str]) -> str | dict[str, int | str]:
    """Fresh dicts from what is cached: a record is its owner's to change."""
    return change if isinstance(change, str) else {"hop": change[0], "what": change[1]}


@functools.lru_cache(1 << 12)
def changes_in_words(changes: int, *hop_bits: int) -> tuple[str | tuple[int | str, str], ...]:
    """The words for the bits, in interface order. hop_bits: as HOP_CHANGES."""

    def words(*flags: enum.IntFlag) -> list[str]:
        return [(f.name or "").lower() for f in flags if changes & f]

    of_hops: list[tuple[int | str, str]] = []
    for (what, local), bits in zip(HOP_CHANGES, hop_bits, strict=True):
        of_hops += [(i, what) for i in range(MAX_HOPS) if bits >> i & 1]
        of_hops += [("local", what)] * bool(changes & local)
    first = words(Change.NEW_FLOW, Change.PATH, Change.FLOW_LATENCY)
    return (*first, *of_hops, *words(Change.DROPPED, Change.CONGESTED_QUEUE, Change.KEEPALIVE))
