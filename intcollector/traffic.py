"""Reports to test with: Traffic says what they are like, frames() and write() make them, truth() what they amount to.

Those who report take turns: a turn is a flow, reported by its sink, or, of postcards, a switch of a flow. Report i is
turn i mod turns. Whatever else happens to it is drawn from a hash of (seed, i), so any part of the traffic can be made
anywhere: bpf/generate.c makes the same bytes as the arrays here. The first report of every turn is plain.

What a collector must find is exact, because values are built so that nothing else is news: between two reports of a
flow, or through a queue or port, they differ by at most NOISE in sum, below the default thresholds, unless an event
raised or lowered one of them by STEP. Every wire value that varies is even, so none is ever all ones ("unavailable").

Frames are built with scapy's layers once for each shape of packet; addresses, ports and ids are written into arrays.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import capture
from .config import PROFILES, Config, number, option, real
from .errors import UsageError
from .layout import MAX_HOPS

NOISE = 50
"""Wire units: what values vary by without an event, summed over a flow's hops. The default thresholds."""
STEP = 1000
HOP_GAP_NS = 5000
PORTS = 16
QUEUES = 8
LOCAL_QUEUE = 200
"""The queue of congestion reports: no hop's."""
DROP_REASONS = (50, 71, 80, 89)
BLOCK = 8192
"""Reports made at once."""
SHARE_BITS = 20
LARGEST_FRAME = 3008
"""Bytes: what a live frame and a veth with XDP can hold, rounded down."""

GROUP_BYTES = 8
"""The header that individual reports of Telemetry Report 2.0 share."""

PLAIN, DROP, CONGESTION = range(3)
"""Kinds of reports."""
_LOSS, _DUPLICATE, _REORDER, _LATE = 1, 2, 3, 4
_SWITCH, _PORTS, _LATENCY, _QUEUE, _INGRESS, _EGRESS, _L2, _UTILIZATION, _BUFFER = (0x8000 >> i for i in range(9))
WIDE = {"spec": _L2, "onos": _L2, "l2port4": 0, "intcollector": 0, "geant": _INGRESS | _EGRESS}
"""Instruction bits whose item takes 8 bytes, in INT 1.0 by profile."""
WIDE_2 = _INGRESS | _EGRESS | _L2
"""... in INT 2.x, and in Telemetry Report 2.0."""
LOCAL_BITS = {
    "0.5": 0,
    "1.0": _PORTS | _LATENCY | _QUEUE | _EGRESS | _UTILIZATION,
    "2.0": _PORTS | _LATENCY | _QUEUE | _INGRESS | _EGRESS | _L2 | _UTILIZATION | _BUFFER,
}
"""Instruction bits that report metadata can answer, by report version; 0.5 has a fixed header instead."""


def share(text: str) -> float:
    """A number from 0 to 1."""
    return real(text, 0, 1, "a number from 0 to 1", "between 0 and 1")


def report_rate(text: str) -> float:
    """Reports a second."""
    return real(text, 1e-3, 1e9, "a number of reports a second", "between 0.001 and 1e9 reports a second")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What reports are like. Every field is an option of `generate`. Errors: UsageError where fields contradict."""

    packets: int = option(10_000, "reports to make", parse=number(1, 2**40))
    flows: int = option(100, "flows, which take turns", parse=number(1, 1_000_000))
    sources: int = option(1, "exporters; each is the sink of every so many-th flow", parse=number(1, 1000))
    hops: int = option(3, "hops of a flow", parse=number(1, 252))
    switches: int = option(
        16, "switches at every hop but the first, which is the sink: a switch for every source", parse=number(1, 4096)
    )
    instructions: int = option(0xFF00, "INT instruction bitmap", parse=number(0, 0xFFFF), metavar="BITMAP")
    report_version: str = option("1.0", "version of the telemetry reports", choices=("0.5", "1.0", "2.0"))
    int_version: str = option("1.0", "version of INT in the packets", choices=("0.5", "1.0", "2.1"))
    int_signal: str = option(
        "dscp",
        "what says that there is INT: the DSCP, or with INT 2.1 a UDP port (NPT 1, and for TCP NPT 2)",
        choices=("dscp", "port"),
    )
    postcards: bool = option(
        False, "every hop of a flow reports by itself, what --instructions ask for; no INT in the packets", const=True
    )
    individuals: int = option(
        1, "reports in a packet, if its version is 2.0: of one switch", parse=number(1, 255), metavar="N"
    )
    profile: str = option("spec", "how the reports are laid out", choices=PROFILES)
    seed: int = option(1, "another seed, other reports; the same seed, the same", parse=number(0, 2**63 - 1))
    payload: tuple[int, ...] = option(
        (0,), "bytes of the original packet behind the stack; again for more, flows take turns",
        parse=number(0, LARGEST_FRAME), metavar="BYTES", repeat=True,
    )  # fmt: skip
    event_rate: float = option(
        0.1,
        "share of reports in which a value changes by more than the default thresholds",
        parse=share,
        metavar="SHARE",
    )
    path_changes: float = option(0.0, "share of reports in which the flow's path changes", parse=share, metavar="SHARE")
    drop_reports: float = option(0.0, "share of reports that are of a dropped packet", parse=share, metavar="SHARE")
    congestion_reports: float = option(0.0, "share of reports of a congested queue", parse=share, metavar="SHARE")
    loss: float = option(0.0, "share of reports before which one was lost", parse=share, metavar="SHARE")
    duplicates: float = option(
        0.0, "share of reports with the sequence number of the one before", parse=share, metavar="SHARE"
    )
    reordered: float = option(0.0, "share of reports that overtake the one before", parse=share, metavar="SHARE")
    tcp: float = option(0.5, "share of flows over TCP; the rest is UDP", parse=share, metavar="SHARE")
    ipv6: float = option(0.0, "share of flows over IPv6", parse=share, metavar="SHARE")
    vlan: float = option(0.0, "share of flows with a VLAN tag", parse=share, metavar="SHARE")
    ipv6_sources: float = option(0.0, "share of exporters that report over IPv6", parse=share, metavar="SHARE")
    dscp: int = option(23, "DSCP that marks packets with INT", parse=number(0, 63))
    port: int = option(54321, "UDP destination port of the reports", parse=number(1, 65535))
    rate: float = option(
        100_000.0, "reports a second: how fast timestamps move, and how fast an interface is sent to",
        parse=report_rate, metavar="PPS",
    )  # fmt: skip
    first_sequence_number: int = option(1, "where every exporter begins to count", parse=number(0, 2**32 - 1))
    start_ns: int = option(
        1_750_000_000_000_000_000, "time of the first report, ns since 1970", parse=number(0, 2**62), metavar="NS"
    )

    def __post_init__(self) -> None:
        if self.sources > self.flows:
            raise UsageError(f"{self.sources} sources need as many flows, there are {self.flows}: raise --flows")
        self._check_versions()
        if self.postcards:
            self._check_postcards()
        elif self.hop_bytes * self.hops > self._largest_stack:
            raise UsageError(
                f"{self.hops} hops of {self.hop_bytes} bytes do not fit into an INT stack of {self._largest_stack}: "
                "take fewer --hops or --instructions"
            )
        if self.drop_reports + self.congestion_reports + self.path_changes + self.event_rate > 1.000001:
            raise UsageError(
                "drop reports, congestion reports, path changes and events together are more than all reports"
            )
        if self.loss + self.duplicates + self.reordered > 1.000001:
            raise UsageError("loss, duplicates and reordered together are more than all reports")
        if self.path_changes and not self.instructions & _SWITCH:
            raise UsageError("a path without switch ids cannot change: add 0x8000 to --instructions")
        if self.event_rate and not self.event_kinds:
            raise UsageError(
                "none of these instructions shows a change: --event-rate 0, or ask for hop latency (0x2000), for queue "
                "occupancy with the switch (0x9000) or for utilization with switch and ports (0xc100)"
            )
        room = LARGEST_FRAME - 14 - 40 - 8 - (GROUP_BYTES if self.report_version == "2.0" else 0)
        others = self._report_bytes
        largest = room // self.individuals - others
        if largest < 0:
            raise UsageError(
                f"{self.individuals} reports of {others} bytes do not fit into a packet: --individuals "
                f"{room // others} do"
            )
        if max(self.payload) > largest:
            raise UsageError(
                f"--payload {max(self.payload)} makes too large a packet: at most {largest} fit behind this stack"
            )

    def _check_versions(self) -> None:
        if self.individuals > 1 and self.report_version != "2.0":
            raise UsageError("only reports of version 2.0 share a packet: add --report-version 2.0")
        if self.first_sequence_number >= 1 << self.sequence_bits:
            raise UsageError(
                f"--first-sequence-number {self.first_sequence_number}: version 2.0 counts in 22 bits, to 4194303"
            )
        if self.int_signal == "port" and self.int_version != "2.1":
            raise UsageError("a UDP port signals INT 2.1 only: add --int-version 2.1")
        if self.profile != "spec" and self.int_version != "1.0":
            raise UsageError(f"profile {self.profile} is a layout of INT 1.0: leave out --int-version")
        if self.int_version == "0.5" and not self.instructions:
            raise UsageError("INT 0.5 without instructions cannot be told from INT 1.0: give --instructions")

    def _check_postcards(self) -> None:
        if self.int_version != "1.0" or self.profile != "spec":
            raise UsageError("postcards are of packets without INT: leave out --int-version and --profile")
        if self.path_changes:
            raise UsageError(
                "a path of postcards is those that are heard of: how --path-changes are seen depends on time"
            )
        if self.hops > MAX_HOPS:
            raise UsageError(f"of {self.hops} postcards a flow {MAX_HOPS} are kept: take --hops {MAX_HOPS} or fewer")
        if not self.shown:
            raise UsageError(
                f"a report of version {self.report_version} answers none of these instructions: "
                f"take some of {LOCAL_BITS[self.report_version]:#06x}"
            )

    @property
    def _report_bytes(self) -> int:
        """Of a report without payload, at most; in 2.0, behind the group's header."""
        inner = 14 + 4 + 40 + 20
        if self.postcards:
            header = {"0.5": 28, "1.0": 16, "2.0": 12 + 3}[self.report_version]  # 3: to whole words
            return header + inner + (0 if self.report_version == "0.5" else max(8, self.hop_bytes))
        header, with_local_hop = {"0.5": (12, 28), "1.0": (16, 28), "2.0": (4 + 3, 28 + 3)}[self.report_version]
        shim_and_header = {"0.5": 16, "1.0": 12, "2.1": 16}[self.int_version] + 8 * (self.int_signal == "port")
        return inner + max(header + shim_and_header + self.hops * self.hop_bytes, with_local_hop)

    @property
    def _largest_stack(self) -> int:
        return 4 * (251 if self.int_version == "0.5" else 252)

    @property
    def shown(self) -> int:
        """The instruction bits that a hop's record, or a switch's postcard, answers."""
        if not self.postcards:
            return self.instructions
        if self.report_version == "0.5":
            return _SWITCH | _PORTS | _QUEUE | _EGRESS
        return self.instructions & LOCAL_BITS[self.report_version]

    @property
    def wide(self) -> int:
        """Of those the bits whose item takes 8 bytes."""
        if self.postcards:
            return WIDE_2 if self.report_version == "2.0" else 0
        return {"0.5": 0, "1.0": WIDE[self.profile], "2.1": WIDE_2}[self.int_version]

    @property
    def offsets(self) -> dict[int, int]:
        """Where in a record the item of a shown bit begins, bytes (wire-format: 1.2 to 1.4, 2.6)."""
        found, at = {}, 0
        for bit in (0x8000 >> i for i in range(16)):
            if self.shown & bit:
                found[bit] = at
                at += self.width(bit)
        return found

    def width(self, bit: int) -> int:
        """Bytes of a bit's item."""
        return 8 if self.wide & bit else 4

    @property
    def hop_bytes(self) -> int:
        """Bytes of a record."""
        return sum(self.width(0x8000 >> i) for i in range(16) if self.shown & 0x8000 >> i)

    @property
    def event_kinds(self) -> tuple[int, ...]:
        """What an event can change, so that it can be seen: of _LATENCY, _QUEUE, _UTILIZATION."""
        seen = self.shown
        if self.postcards:  # the report's header says which switch and, but in 2.0, when the packet came
            seen |= _SWITCH | (_INGRESS if self.report_version != "2.0" else 0)
        kinds = []
        if seen & _LATENCY or seen & (_INGRESS | _EGRESS) == _INGRESS | _EGRESS:
            kinds.append(_LATENCY)
        if seen & _SWITCH and seen & _QUEUE:
            kinds.append(_QUEUE)
        if seen & _SWITCH and seen & _PORTS and seen & _UTILIZATION:
            kinds.append(_UTILIZATION)
        return tuple(kinds)

    @property
    def records(self) -> int:
        """Hops that a report tells of."""
        return 1 if self.postcards else self.hops

    @property
    def turns(self) -> int:
        """After so many reports it is the first one's turn again."""
        return self.flows * (self.hops if self.postcards else 1)

    @property
    def changing_hops(self) -> int:
        """Hops of a report at which something changes: those that a collector keeps. The path changes at the last."""
        return min(self.records, MAX_HOPS)

    @property
    def interval_ns(self) -> int:
        """From report to report: even."""
        return max(2, round(1e9 / self.rate / 2) * 2)

    @property
    def sequence_bits(self) -> int:
        """Of a sequence number."""
        return 22 if self.report_version == "2.0" else 32

    @property
    def config(self) -> Config:
        """How a collector has to be set to read these reports."""
        return Config(port=(self.port,), profile=self.profile, int_dscp=(self.dscp, 63))


@dataclasses.dataclass
class Truth:
    """What a collector has to have counted, had it seen all of it: by source (n,), or in sum.

    reports: those with a sequence number of their own, so packets where several reports share one. switch_ids: of 0.5
    only postcards, drop and congestion reports name it. path_changes: of postcards, the first of every switch of a
    flow but its very first; the times between two packets of a flow have to be longer than the collector's window.
    congested: reports that say so of a flow whose report before did not. The events do without keep-alives.
    """

    addresses: list[str]
    switch_ids: np.ndarray
    hw_ids: np.ndarray
    reports: np.ndarray
    lost: np.ndarray
    reordered: np.ndarray
    duplicated: np.ndarray
    new_flows: int = 0
    value_changes: int = 0
    path_changes: int = 0
    dropped: int = 0
    congested: int = 0

    @property
    def events(self) -> int:
        """Reports worth telling."""
        return self.new_flows + self.value_changes + self.path_changes + self.dropped + self.congested


# --- What happens: the same as in bpf/generate.c ----------------------------------------------------------------------

_GOLDEN = 0x9E3779B97F4A7C15


def mix(value: np.ndarray) -> np.ndarray:
    """splitmix64's finish: u64 -> u64, every bit depends on every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _threshold(*shares: float) -> int:
    return round(sum(shares) * (1 << SHARE_BITS))


class Topology:
    """Who and where, by turn: flow, source: (turns,), numbers. switch_id, egress_port, ingress_port, queue: (turns,
    records), hop 0 nearest the sink. hop: (1 or turns, records), which they are.

    port_point, queue_point: (turns, records + 1), numbers of the switch's port and queue, the last column those of hop
    changing_hops - 1 after a path change, when it has other_switch (turns,).
    reporters: (sources,), their switch ids. opens: (turns,), whether it is its flow's first. before: (turns,), how many
    reports ago its flow was last reported. since: (turns,), how many reports ago its packet's first turn was.
    head: (turns,), the turn that its packet of reports begins with.
    """

    def __init__(self, t: Traffic) -> None:
        flow = np.arange(t.flows, dtype=np.int64)
        hop = np.arange(t.hops, dtype=np.int64)
        some = mix((flow[:, None] * 256 + hop + 1).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(t.seed))

        def draw(shift: int, below: int) -> np.ndarray:
            return (some >> np.uint64(shift)).astype(np.int64) % below

        sink = flow % t.sources
        self.switch_id = 10_000 * (hop + 1) + draw(0, t.switches) + 1
        self.switch_id[:, 0] = sink + 1
        self.egress_port = 1 + draw(8, PORTS)
        self.ingress_port = 101 + draw(16, PORTS)
        self.queue = draw(24, QUEUES)
        self.flow, self.source, self.hop = flow, sink, hop[None, :]
        self.reporters = np.arange(t.sources) + 1
        if t.postcards:  # the sink reports last
            self.flow, self.hop = np.repeat(flow, t.hops), np.tile(hop[::-1], t.flows)[:, None]
            for name in ("switch_id", "egress_port", "ingress_port", "queue"):
                setattr(self, name, getattr(self, name)[:, ::-1].reshape(-1, 1))
            self.reporters, self.source = np.unique(self.switch_id[:, 0], return_inverse=True)
        turn = np.arange(t.turns)
        self.head = turn
        if t.individuals > 1:
            self._group(t.individuals)
        self.other_switch = 5_000 + self.switch_id[:, t.changing_hops - 1]
        switches = np.concatenate([self.switch_id, self.other_switch[:, None]], axis=1)
        columns = [*range(t.records), t.changing_hops - 1]
        self.port_point = _numbered(switches * 65536 + self.egress_port[:, columns])
        self.queue_point = _numbered(switches * 65536 + self.queue[:, columns])
        self.opens, self.before, self.since = np.ones(t.turns, bool), np.full(t.turns, t.turns), np.zeros_like(turn)
        if t.postcards:
            by_flow = np.argsort(self.flow, kind="stable").reshape(t.flows, t.hops)
            self.opens[by_flow[:, 1:]] = False
            self.before[by_flow] = (by_flow - np.roll(by_flow, 1, axis=1) - 1) % t.turns + 1
            # reports that share a packet are of packets of the round before
            self.since = turn - self.flow * t.hops + (t.turns if t.individuals > 1 else 0)

    def _group(self, individuals: int) -> None:
        """Turns of one source one behind the other; so many make a packet, or what is left of them."""
        order = np.argsort(self.source, kind="stable")
        for name in ("switch_id", "egress_port", "ingress_port", "queue", "flow", "source"):
            setattr(self, name, getattr(self, name)[order])
        if len(self.hop) > 1:
            self.hop = self.hop[order]
        turn = np.arange(len(order))
        first = np.searchsorted(self.source, self.source)
        self.head = turn - (turn - first) % individuals


LATENCY, LATENCY_STEP = 300, 20
"""Of hop 0, and more for every hop behind it."""
OCCUPANCY = 100
UTILIZATION = 2000


def _numbered(keys: np.ndarray) -> np.ndarray:
    """Equal keys, equal numbers from 0 on: 16 bits, which sort fast, where they do."""
    numbers = np.unique(keys, return_inverse=True)[1].reshape(keys.shape)
    return numbers.astype(np.uint16 if numbers.max() < 65536 else np.uint32)


@dataclasses.dataclass
class Step:
    """What consecutive reports say. turn, kind, sequence, time_ns, packet_ns, moved: (n,); the others: (n, records).

    time_ns: when it is sent; packet_ns: when the packet was at the sink's end of its path.
    """

    index: np.ndarray
    turn: np.ndarray
    kind: np.ndarray
    sequence: np.ndarray
    time_ns: np.ndarray
    packet_ns: np.ndarray
    moved: np.ndarray
    latency: np.ndarray
    occupancy: np.ndarray
    utilization: np.ndarray


class Model:
    """The traffic as it goes on: step() by step(); truth() of what was stepped through so far."""

    def __init__(self, traffic: Traffic) -> None:
        t = self.traffic = traffic
        top = self.topology = Topology(t)
        self.done = 0
        self.block = BLOCK if t.turns > BLOCK else BLOCK // t.turns * t.turns
        self._moved = np.zeros((t.turns, 1), np.uint8)
        self._latency = np.zeros((t.turns, t.records), np.uint8)
        self._ports = np.zeros(int(top.port_point.max()) + 1, np.uint8)
        self._queues = np.zeros(int(top.queue_point.max()) + 1, np.uint8)
        source = np.arange(len(top.reporters))
        self._next = np.full(len(source), t.first_sequence_number, np.int64)
        self._last = np.zeros(len(source), np.int64)
        self._late = np.zeros(len(source), bool)
        of_ipv6 = _some(len(source), t.ipv6_sources, t.seed, 1)
        self.addresses = [source_address(s, bool(six)) for s, six in zip(source.tolist(), of_ipv6, strict=True)]
        zeros = np.zeros((4, len(source)), np.int64)
        self._truth = Truth(self.addresses, top.reporters, source % 64, *zeros)

    def due(self) -> int:
        """How many reports make the next step: whole packets; 0: all were made."""
        left = self.traffic.packets - self.done
        if left <= self.block:
            return left
        turn = (self.done + self.block) % self.traffic.turns
        return self.block - turn + int(self.topology.head[turn])

    def truth(self) -> Truth:
        """Of the reports so far: an overtaken one that is still to come is lost."""
        return dataclasses.replace(self._truth, lost=self._truth.lost + self._late)

    def _draws(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base = index.astype(np.uint64) * np.uint64(2 * _GOLDEN % 2**64) + np.uint64(self.traffic.seed)
        return mix(base), mix(base + np.uint64(_GOLDEN))

    def _kinds(self, index: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kind of report, whether the path changes, whether there is an event: each (n,)."""
        t = self.traffic
        value = (draw >> np.uint64(SHARE_BITS)).astype(np.int64) & ((1 << SHARE_BITS) - 1)
        later = index >= t.turns
        limits = [
            _threshold(t.drop_reports),
            _threshold(t.drop_reports, t.congestion_reports),
            _threshold(t.drop_reports, t.congestion_reports, t.path_changes),
            _threshold(t.drop_reports, t.congestion_reports, t.path_changes, t.event_rate),
        ]
        which = np.where(later, np.searchsorted(limits, value, side="right"), 4)
        kind = np.array([DROP, CONGESTION, PLAIN, PLAIN, PLAIN], np.uint8)[which]
        return kind, which == 2, which == 3

    def step(self, n: int) -> Step:
        """The next n reports; n is self.block or due(), or less and the last."""
        t, top = self.traffic, self.topology
        index = np.arange(self.done, self.done + n)
        turn = index % t.turns
        draw, noise = self._draws(index)
        kind, moves, event = self._kinds(index, draw)
        hop = (draw >> np.uint64(40) & np.uint64(0xFFF)).astype(np.int64) * t.changing_hops >> 12
        kinds = t.event_kinds or (0,)
        what = (draw >> np.uint64(52)).astype(np.int64) * len(kinds) >> 12

        moved = self._by_turn(moves[:, None].astype(np.uint8), self._moved, turn)[:, 0].astype(bool)
        toggles = np.zeros((3, n, t.records), np.uint8)
        rows = np.flatnonzero(event)
        for place, bit in enumerate((_LATENCY, _QUEUE, _UTILIZATION)):
            if bit in kinds:
                mine = rows[what[rows] == kinds.index(bit)]
                toggles[place, mine, hop[mine]] = 1
        port, queue = self._points(top.port_point, turn, moved), self._points(top.queue_point, turn, moved)
        hops = top.hop[turn] if t.postcards else top.hop
        amplitude = np.uint64(NOISE // 2 // t.hops + 1)
        noises = noise[:, None] * (2 * hops.astype(np.uint64) + np.uint64(1))

        def value(base: Any, level: np.ndarray, shift: int) -> np.ndarray:
            jitter = ((noises >> np.uint64(shift) & np.uint64(0xFF)) * amplitude >> np.uint64(8)).astype(np.int64) * 2
            return base + level.astype(np.int64) * STEP + jitter

        # a report without values leaves the levels as they are: its toggles are all zero
        time_ns = t.start_ns // 2 * 2 + index * t.interval_ns
        step = Step(
            index, turn, kind, self._sequence(index, turn, draw), time_ns,
            time_ns - top.since[turn] * t.interval_ns if t.postcards else time_ns, moved,
            value(LATENCY + LATENCY_STEP * hops, self._by_turn(toggles[0], self._latency, turn), 40),
            value(OCCUPANCY, self._by_point(toggles[1], self._queues, queue), 48),
            value(UTILIZATION, self._by_point(toggles[2], self._ports, port), 56),
        )  # fmt: skip
        truth = self._truth
        new = turn[index < t.turns]
        truth.new_flows += int(top.opens[new].sum())
        truth.path_changes += int(moves.sum()) + int((~top.opens[new]).sum())
        truth.value_changes += len(rows)
        truth.dropped += int((kind == DROP).sum())
        if t.congestion_reports:
            before = index - top.before[turn]
            was = (before >= 0) & (self._kinds(before, self._draws(before)[0])[0] == CONGESTION)
            truth.congested += int(((kind == CONGESTION) & ~was).sum())
        self.done += n
        return step

    def _points(self, point: np.ndarray, turn: np.ndarray, moved: np.ndarray) -> np.ndarray:
        points = point[turn]
        changing = self.traffic.changing_hops - 1
        points[:, changing] = np.where(moved, points[:, -1], points[:, changing])
        return points[:, :-1]

    def _by_turn(self, toggles: np.ndarray, state: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Levels after each report, (n, k) like toggles. state: (turns, k), changed in place."""
        n, turns = len(toggles), len(state)
        if n <= turns:  # each at most once
            level = state[turn] ^ toggles
            state[turn] = level
            return level
        rounds = np.zeros((-(-n // turns) * turns, toggles.shape[1]), np.uint8)
        rounds[:n] = toggles
        level = np.bitwise_xor.accumulate(rounds.reshape(-1, turns, toggles.shape[1]), axis=0) ^ state
        state[:] = level[-1]
        return level.reshape(-1, toggles.shape[1])[:n]

    def _by_point(self, toggles: np.ndarray, state: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Levels after each report, (n, hops); flows share points. state: (points,), changed in place."""
        if not toggles.any():
            return state[point]
        order = np.argsort(point, axis=None, kind="stable")
        sorted_points, toggled = point.ravel()[order], toggles.ravel()[order]
        starts = np.flatnonzero(np.diff(sorted_points, prepend=-1 - sorted_points[0].astype(np.int64)))
        so_far = np.cumsum(toggled, dtype=np.int64)
        before = np.repeat(so_far[starts] - toggled[starts], np.diff(starts, append=len(order)))
        level = ((so_far - before) & 1).astype(np.uint8) ^ state[sorted_points]
        ends = np.append(starts[1:], len(order)) - 1
        state[sorted_points[ends]] = level[ends]
        result = np.empty(len(order), np.uint8)
        result[order] = level
        return result.reshape(point.shape)

    def _sequence(self, index: np.ndarray, turn: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Sequence numbers (n,), with what is lost, doubled and overtaken; counted in the truth."""
        t = self.traffic
        if t.individuals == 1:
            return self._sequence_of_packets(index, turn, draw)
        first = self.topology.head[turn] == turn  # all of a packet have its number
        return self._sequence_of_packets(index[first], turn[first], draw[first])[np.cumsum(first) - 1]

    def _sequence_of_packets(self, index: np.ndarray, turn: np.ndarray, draw: np.ndarray) -> np.ndarray:
        t, top = self.traffic, self.topology
        value = (draw & np.uint64((1 << SHARE_BITS) - 1)).astype(np.int64)
        limits = [_threshold(t.loss), _threshold(t.loss, t.duplicates), _threshold(t.loss, t.duplicates, t.reordered)]
        fault = np.array([_LOSS, _DUPLICATE, _REORDER, 0], np.int64)[np.searchsorted(limits, value, side="right")]
        fault[index < t.turns] = 0
        mask = (1 << t.sequence_bits) - 1
        if len(top.reporters) == 1:
            return self._sequence_of(0, fault) & mask
        source = top.source[turn].astype(np.uint16)
        order = np.argsort(source, kind="stable")
        ends = np.searchsorted(source[order], np.arange(len(top.reporters)), side="right")
        sequence = np.empty(len(turn), np.int64)
        start = 0
        for s, end in enumerate(ends.tolist()):  # a loop over sources, of which there are few
            if end > start:
                rows = order[start:end]
                sequence[rows] = self._sequence_of(s, fault[rows])
            start = end
        return sequence & mask

    def _sequence_of(self, s: int, fault: np.ndarray) -> np.ndarray:
        """One source's sequence numbers: (n,), not yet cut to their bits."""
        rows = np.arange(len(fault))
        overtakes = fault == _REORDER
        overtakes[0] &= not self._late[s]
        if overtakes.any():  # of overtaking reports in a row, every second is itself the late one
            last_other = np.maximum.accumulate(np.where(overtakes, -1, rows))
            overtakes &= (rows - last_other) & 1 == 1
        late = np.empty(len(fault), bool)
        late[0], late[1:] = self._late[s], overtakes[:-1]
        fault = np.where(late, _LATE, np.where(overtakes, _REORDER, np.where(fault == _REORDER, 0, fault)))
        advance = np.array([1, 2, 0, 2, 0])[fault]
        after = self._next[s] + np.cumsum(advance)
        sequence = after + np.array([-1, -1, 0, -1, -2])[fault]
        doubled = fault == _DUPLICATE
        if doubled.any():
            original = np.maximum.accumulate(np.where(doubled, -1, rows))
            sequence = np.where(original < 0, self._last[s], sequence[original])
        self._next[s], self._last[s], self._late[s] = after[-1], sequence[-1], overtakes[-1]
        truth = self._truth
        truth.reports[s] += len(fault)
        truth.lost[s] += (fault == _LOSS).sum()
        truth.duplicated[s] += doubled.sum()
        truth.reordered[s] += late.sum()
        return sequence


def truth(traffic: Traffic) -> Truth:
    """What a collector must have counted after all of the traffic."""
    model = Model(traffic)
    while n := model.due():
        model.step(n)
    return model.truth()


# --- How it looks on the wire -----------------------------------------------------------------------------------------


def _some(n: int, part: float, seed: int, salt: int) -> np.ndarray:
    """Exactly that share of n, drawn: bool (n,)."""
    return np.random.default_rng([seed, salt]).permutation(n) < round(part * n)


def source_address(source: int, ipv6: bool) -> str:
    """An exporter's address, of the ranges for documentation and benchmarks."""
    base = int(ipaddress.ip_address("2001:db8:ffff::1" if ipv6 else "198.18.0.1"))
    return str(ipaddress.ip_address(base + source))


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What two turns' frames have in common if they differ in nothing but numbers."""

    outer_ipv6: bool
    tcp: bool
    ipv6: bool
    vlan: bool
    payload: int


@dataclasses.dataclass
class _Cut:
    """A frame of a shape, numbers that vary zero. at: where its parts begin, bytes."""

    data: bytes
    at: dict[str, int]


SEQUENCE_AT = {"0.5": 4, "1.0": 8, "2.0": 0}
"""In a report, bytes; the ingress timestamp is behind it, but in 2.0, where the number is the last 22 bits."""
LOCAL_STAMP_AT = {"0.5": 24, "1.0": 24, "2.0": 28}
"""The egress timestamp of a congestion report."""
LOCAL_AT = {"0.5": 12, "1.0": 16, "2.0": 20}
"""Report metadata; in 0.5 the drop or switch-local header, which the switch id begins."""


def _cut(t: Traffic, shape: _Shape, kind: int) -> _Cut:
    """A shape's frame, as scapy builds it. No UDP checksums, as most exporters send them."""
    from . import layers  # takes a third of a second, which only those who need it spend

    ethernet = layers.Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
    if shape.outer_ipv6:
        outer = ethernet / layers.IPv6(src="2001:db8:ffff::", dst="2001:db8::fe")
    else:
        outer = ethernet / layers.IP(src="198.18.0.0", dst="192.0.2.254", id=0, flags="DF", chksum=0)
    outer = outer / layers.UDP(sport=0, dport=t.port, chksum=0)
    inner = _inner(t, shape, kind == PLAIN and not t.postcards)
    flags = {"dropped": kind == DROP, "congested_queue": kind == CONGESTION}
    flags["tracked_flow"] = kind == PLAIN or (t.postcards and kind == CONGESTION)
    said = {**flags, **_metadata(t, kind)}
    if t.report_version == "0.5":
        report = layers.TelemetryReport05(**flags)
        if kind == DROP:
            report = report / layers.DropReport05()
        elif kind == CONGESTION or t.postcards:
            report = report / layers.LocalReport05(**_metadata(t, kind))
        header, report = len(report), report / inner
    elif t.report_version == "1.0":
        quirk = {"length": 1} if t.profile == "intcollector" and kind == PLAIN else {}
        report = layers.TelemetryReport10(**said, **quirk)
        header, report = len(report), report / inner
    else:
        one = layers.IndividualReport(report_type=0 if kind == PLAIN and not t.postcards else 1, **said)
        header, report = GROUP_BYTES + len(one), layers.TelemetryReport20(reports=[one / inner])
    at = {"report": len(outer)}
    at["inner"] = at["report"] + header
    where = at["inner"]
    while inner:
        for name, of in (
            ("vlan", layers.Dot1Q), ("ip", (layers.IP, layers.IPv6)), ("l4", (layers.TCP, layers.UDP)),
            ("shim", layers.IntShim), ("int", layers.IntMetadata), ("tail", layers.IntTail05),
        ):  # fmt: skip
            if isinstance(inner, of):
                at["original_l4" if name in at else name] = where
        where += len(inner.self_build())
        inner = inner.payload
    if t.postcards and kind != DROP:
        at["records"] = at["report"] + LOCAL_AT[t.report_version]
    elif kind == PLAIN:
        at["records"] = at["int"] + (12 if t.int_version == "2.1" else 8)
    return _Cut(bytes(outer / report), at)


def _metadata(t: Traffic, kind: int) -> dict[str, int]:
    """What the switch says of itself in a report of that kind, fields of the layer."""
    if kind == DROP:
        return {"ingress_port_id": 0, "egress_port_id": 0, "drop_queue_id": 0, "drop_reason": 0}
    if t.postcards:
        return _values(t)
    if kind == CONGESTION:
        ports = {"ingress_port_id": 0, "egress_port_id": 0}
        return {**ports, "queue_id": LOCAL_QUEUE, "queue_occupancy": 5000, "egress_timestamp": 0}
    return {}


def _values(t: Traffic) -> dict[str, int]:
    """A record: zeros, but for what does not vary. What is reserved is not in it, so that it becomes all ones."""
    values = {
        _SWITCH: ("switch_id",),
        _PORTS: ("ingress_port_id", "egress_port_id"),
        _LATENCY: ("hop_latency",),
        _QUEUE: ("queue_id", "queue_occupancy"),
        _INGRESS: ("ingress_timestamp",),
        _EGRESS: ("egress_timestamp",),
        _L2: ("l2_ingress_port_id", "l2_egress_port_id"),
        _UTILIZATION: ("egress_port_tx_utilization",),
    }
    of_int_2 = t.report_version == "2.0" if t.postcards else t.int_version == "2.1"
    if of_int_2:
        values[_BUFFER] = ("buffer_id", "buffer_occupancy")
    if t.int_version == "0.5" and not t.postcards:
        values[_L2] = ("congested_queue_id", "queue_congestion")
    elif not t.postcards:
        values[1] = ("checksum_complement",)
    return {name: 0 for bit, names in values.items() if t.shown & bit for name in names}


def _inner(t: Traffic, shape: _Shape, with_int: bool) -> Any:
    """The packet that is reported of, from Ethernet on."""
    from . import layers

    by_port = with_int and t.int_signal == "port"
    dscp = t.dscp if with_int and not by_port else 0
    packet = layers.Ether(dst="00:aa:00:00:00:02", src="00:aa:00:00:00:01")
    if shape.vlan:
        packet = packet / layers.Dot1Q(vlan=0)
    if shape.ipv6:
        packet = packet / layers.IPv6(src="2001:db8:1::", dst="2001:db8:2::", tc=dscp << 2)
    else:
        packet = packet / layers.IP(src="10.1.0.0", dst="10.2.0.0", tos=dscp << 2, id=0, chksum=0)
    tcp = layers.TCP(sport=0, dport=0, flags="PA", chksum=0)
    original = tcp if shape.tcp else layers.UDP(sport=0, dport=0, chksum=0)
    payload = layers.Raw(bytes(shape.payload))
    if not with_int:
        return packet / original / payload
    if by_port:  # its own port for TCP too, in a UDP header in front
        packet = packet / layers.UDP(sport=0, dport=t.config.int_udp_port, chksum=0)
        shim = layers.IntShim2(npt=2, protocol=6) if shape.tcp else layers.IntShim2(npt=1)
    else:
        packet = packet / original
        shim = layers.IntShim2() if t.int_version == "2.1" else layers.IntShimV1()
    fields = {"instruction_bitmap": t.instructions, "hops": [_values(t)] * t.hops}
    if t.int_version == "0.5":
        stack = layers.IntMetadata05(**fields) / layers.IntTail05(protocol=6 if shape.tcp else 17)
    elif t.int_version == "2.1":
        stack = layers.IntMetadata2(**fields, remaining_hop_count=16)
    else:
        fields["hops"] = [layers.HOPS_1_0[t.profile](**_values(t)) for _ in range(t.hops)]
        if t.profile == "onos":
            fields["hop_ml"] = bin(t.instructions).count("1")
        version = 0 if t.profile in ("onos", "intcollector") else 1
        stack = layers.IntMetadata10(**fields, version=version, remaining_hop_count=16)
    packet = packet / shim / stack
    if by_port and shape.tcp:
        packet = packet / tcp
    return packet / payload


class Templates:
    """A frame for each turn and kind of report, into which step() by step() what varies is written.

    frames: u8 (kinds, turns, width); each frame begins at column start (turns,) and ends at end (kinds, turns), so that
    all records begin at column records. report: (turns,), column of the report header. longest: bytes a frame, at most.
    """

    def __init__(self, model: Model) -> None:
        t, top = model.traffic, model.topology
        tcp, ipv6, vlan = (_some(t.flows, part, t.seed, salt) for salt, part in ((2, t.tcp), (3, t.ipv6), (4, t.vlan)))
        six = np.array([":" in a for a in model.addresses])[top.source]
        payload = top.flow % len(t.payload)
        code = six + 2 * (tcp + 2 * (ipv6 + 2 * vlan))[top.flow] + 16 * payload
        codes, of_shape = np.unique(code, return_inverse=True)
        shapes = [_Shape(bool(c & 1), bool(c & 2), bool(c & 4), bool(c & 8), t.payload[c >> 4]) for c in codes.tolist()]
        kinds = 3 if t.drop_reports or t.congestion_reports else 1
        cuts = [[_cut(t, shape, kind) for shape in shapes] for kind in range(kinds)]
        records = np.array([cut.at["records"] for cut in cuts[PLAIN]])
        self.records = int(records.max()) + capture.RECORD_HEADER
        self.start = (self.records - records)[of_shape]
        self.report = self.start + np.array([cut.at["report"] for cut in cuts[PLAIN]])[of_shape]
        self.lengths = np.array([[len(cut.data) for cut in some] for some in cuts])[:, of_shape]
        self.end = self.start + self.lengths
        width = max(int(self.end.max()), self.records + t.records * t.hop_bytes)
        self.frames = np.zeros((kinds, t.turns, width), np.uint8)
        for kind in range(kinds):
            for i, shape in enumerate(shapes):
                rows = np.flatnonzero(of_shape == i)
                start, cut = int(self.start[rows[0]]), cuts[kind][i]
                self.frames[kind, rows, start : start + len(cut.data)] = _static(model, shape, kind, cut, rows)

        longest = self.lengths.max(axis=0)
        if t.individuals > 1:
            headers = self.report - self.start + GROUP_BYTES
            longest = (longest - headers) * t.individuals + headers
        self.longest = int(longest.max())


class _Frames:
    """Copies of a frame, into which columns are written."""

    def __init__(self, data: bytes, n: int) -> None:
        self.data = np.tile(np.frombuffer(data, np.uint8), (n, 1))

    def column(self, at: int, size: int) -> np.ndarray:
        """Numbers of 1, 2, 4 or 8 bytes at a place of every frame: (n,), a view."""
        n, width = self.data.shape
        return np.ndarray(n, f">u{size}", self.data, at, (width,))

    def check_ipv4(self, at: int) -> None:
        """The checksum of the IPv4 header there, which is 0 so far (RFC 1071)."""
        n, width = self.data.shape
        self.column(at + 10, 2)[:] = ipv4_checksum(np.ndarray((n, 10), ">u2", self.data, at, (width, 2)))


def ipv4_checksum(words: np.ndarray) -> np.ndarray:
    """Of IPv4 headers (n, words) whose checksum is 0: (n,)."""
    total = words.sum(axis=1, dtype=np.uint32)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _static(model: Model, shape: _Shape, kind: int, cut: _Cut, rows: np.ndarray) -> np.ndarray:
    """Frames of these turns, all of one shape, with all that does not vary: u8 (rows, length)."""
    t, top, at = model.traffic, model.topology, cut.at
    made = _Frames(cut.data, len(rows))
    put, source = made.column, top.source[rows]

    put(14 + (20 if shape.outer_ipv6 else 12), 4)[:] += (1 + source).astype(np.uint32)
    if not shape.outer_ipv6:
        made.check_ipv4(14)

    report, local = at["report"], at["report"] + LOCAL_AT[t.report_version]
    if t.report_version == "2.0":
        put(report, 4)[:] |= (source % 64 << 22).astype(np.uint32)
    else:
        put(report + 3, 1)[:] |= (source % 64).astype(np.uint8)
    if t.report_version != "0.5":
        put(report + 4, 4)[:] = top.reporters[source]
    elif kind != PLAIN:  # of postcards, the switch id is an item
        put(local, 4)[:] = top.reporters[source]
    if kind == DROP or (kind == CONGESTION and not t.postcards):
        ports = local + (4 if t.report_version == "0.5" else 0)
        put(ports, 2)[:] = top.ingress_port[rows, 0]
        put(ports + 2, 2)[:] = top.egress_port[rows, 0]
        if kind == DROP:
            put(ports + 5, 1)[:] = np.array(DROP_REASONS)[top.flow[rows] % len(DROP_REASONS)]

    _put_flow(made, t, shape, at, top.flow[rows])
    if "records" in at:
        for h in range(t.records):
            _put_record(made, t, top, at["records"] + h * t.hop_bytes, rows, h)
    return made.data


def _put_flow(made: _Frames, t: Traffic, shape: _Shape, at: dict[str, int], flow: np.ndarray) -> None:
    """What flows (n,) are told apart by. 40,000 have the same addresses."""
    high, low = (part.astype(np.uint32) for part in np.divmod(flow, 40_000))
    put = made.column
    if shape.vlan:
        put(at["vlan"], 2)[:] = 100 + flow % 900
    addresses = (20, 36) if shape.ipv6 else (12, 16)
    for offset in addresses:
        put(at["ip"] + offset, 4)[:] += 1 + high
    if not shape.ipv6:
        made.check_ipv4(at["ip"])
    l4 = at.get("original_l4", at["l4"])
    put(at["l4"], 2)[:] = put(l4, 2)[:] = 10_000 + low
    destination = l4 + 2
    if "shim" in at and t.int_signal == "port" and not shape.tcp:
        destination = at["shim"] + 2
    put(destination, 2)[:] = 5000 + flow % 100
    if "tail" in at:
        put(at["tail"] + 1, 2)[:] = 5000 + flow % 100


def _put_record(made: _Frames, t: Traffic, top: Topology, at: int, rows: np.ndarray, h: int) -> None:
    """A hop's ids."""
    into, out, offsets, put = top.ingress_port[rows, h], top.egress_port[rows, h], t.offsets, made.column
    if _SWITCH in offsets:
        put(at + offsets[_SWITCH], 4)[:] = top.switch_id[rows, h]
    if _PORTS in offsets:
        put(at + offsets[_PORTS], 2)[:], put(at + offsets[_PORTS] + 2, 2)[:] = into, out
    queue_bytes = 2 if t.profile == "intcollector" else 1
    if _QUEUE in offsets:
        put(at + offsets[_QUEUE], queue_bytes)[:] = top.queue[rows, h]
    if _L2 in offsets and t.int_version == "0.5":  # queue congestion
        put(at + offsets[_L2], 1)[:] = top.queue[rows, h]
    elif _L2 in offsets:
        size = t.width(_L2) // 2
        put(at + offsets[_L2], size)[:], put(at + offsets[_L2] + size, size)[:] = into, out


@dataclasses.dataclass
class Block:
    """Frames in contiguous bytes: in data (n, width), one a row, or in data (bytes,), one behind the other. They begin
    at (n,), counted through all of data, have length (n,), and 16 unused bytes in front. time_ns: (n,)."""

    data: np.ndarray
    at: np.ndarray
    length: np.ndarray
    time_ns: np.ndarray


def _fill(model: Model, templates: Templates, step: Step) -> Block:
    t, top, turn = model.traffic, model.topology, step.turn
    data = templates.frames[PLAIN][turn]
    n, width = data.shape
    end = templates.end[PLAIN][turn]
    kinds = len(templates.frames)

    def take(kind: int) -> np.ndarray:
        rows = np.flatnonzero(step.kind == kind)
        data[rows] = templates.frames[kind][turn[rows]]
        end[rows] = templates.end[kind][turn[rows]]
        return rows

    def store(column: int, values: np.ndarray, size: int) -> None:
        np.ndarray(n, f">u{size}", data, column, (width,))[:] = values

    if kinds > 1 and t.postcards:
        take(CONGESTION)  # a postcard like others
    offsets, wide = t.offsets, t.wide
    arrival = step.packet_ns
    for h in range(t.records):
        base = templates.records + h * t.hop_bytes
        hop = top.hop[turn, 0] if t.postcards else h
        arrival = step.packet_ns - HOP_GAP_NS * (hop + 1)
        for bit, values in (
            (_LATENCY, step.latency[:, h]),
            (_INGRESS, arrival),
            (_EGRESS, arrival + step.latency[:, h]),
            (_UTILIZATION, step.utilization[:, h]),
        ):
            if bit in offsets:
                size = 8 if wide & bit else 4
                store(base + offsets[bit], values if size == 8 else values & 0xFFFF_FFFF, size)
        if _QUEUE in offsets:  # below the id, 8 or 16 bits
            store(base + offsets[_QUEUE] + 2, step.occupancy[:, h], 2)
        if _SWITCH in offsets and h == t.changing_hops - 1 and t.path_changes:
            switch = np.where(step.moved, top.other_switch[turn], top.switch_id[turn, h])
            store(base + offsets[_SWITCH], switch, 4)

    if kinds > 1:
        take(DROP)
    rows = take(CONGESTION) if kinds > 1 and not t.postcards else np.zeros(0, np.int64)
    flat = data.reshape(-1)
    report = np.arange(n) * width + templates.report[turn]
    numbers = step.sequence
    if t.report_version == "2.0":
        numbers = numbers | 2 << 28 | top.source[turn] % 64 << 22
    words = [numbers, (arrival if t.postcards else step.time_ns) & 0xFFFF_FFFF][: 1 if t.report_version == "2.0" else 2]
    at = report + SEQUENCE_AT[t.report_version]
    stamps = np.stack(words, axis=1).astype(">u4").view(np.uint8)
    flat[at[:, None] + np.arange(stamps.shape[1])] = stamps
    if len(rows):  # egress timestamp, behind ports and queue
        stamp, size = step.time_ns[rows] + 2, 8 if t.report_version == "2.0" else 4
        stamps = (stamp if size == 8 else stamp & 0xFFFF_FFFF).astype(f">u{size}").view(np.uint8).reshape(-1, size)
        flat[(report[rows] + LOCAL_STAMP_AT[t.report_version])[:, None] + np.arange(size)] = stamps
    start = templates.start[turn]
    if t.individuals > 1:
        return _gather(data, top.head[turn] == turn, start, templates.report[turn], end, step.time_ns)
    return Block(data, np.arange(n) * width + start, end - start, step.time_ns)


def _gather(
    data: np.ndarray, first: np.ndarray, start: np.ndarray, report: np.ndarray, end: np.ndarray, time_ns: np.ndarray
) -> Block:
    """Frames of one individual report each (n, width), into frames that begin where first (n,) says and go on with the
    reports that follow. start, report, end: (n,), columns; outer lengths become right."""
    width = data.shape[1]
    flat, heads = data.reshape(-1), np.flatnonzero(first)
    individual = report + GROUP_BYTES
    payload = np.add.reduceat(end - individual, heads) + GROUP_BYTES + 8
    row, ip = heads * width, start[heads] + 14
    ipv4 = report[heads] - ip == 28

    def store(at: np.ndarray, values: np.ndarray) -> None:
        flat[at[:, None] + np.arange(2)] = values.astype(">u2").view(np.uint8).reshape(-1, 2)

    store(row + report[heads] - 4, payload)
    store((row + ip + np.where(ipv4, 2, 4)), payload + np.where(ipv4, 20, 0))
    if ipv4.any():
        headers = (row + ip)[ipv4]
        store(headers + 10, np.zeros(len(headers)))
        bytes_ = flat[headers[:, None] + np.arange(20)]
        store(headers + 10, ipv4_checksum(bytes_.reshape(-1, 10, 2) @ np.array([256, 1], np.uint32)))
    begin = np.where(first, start - capture.RECORD_HEADER, individual)
    column = np.arange(width)
    pieces = data[(column >= begin[:, None]) & (column < end[:, None])]
    ends = np.cumsum(end - begin)
    at = (ends - (end - begin))[heads] + capture.RECORD_HEADER
    return Block(pieces, at, np.append(ends[heads[1:] - 1], len(pieces)) - at, time_ns[heads])


def blocks(model: Model, templates: Templates) -> Iterator[Block]:
    """All frames of the model's traffic, some thousands at a time."""
    while n := model.due():
        yield _fill(model, templates, model.step(n))


def frames(traffic: Traffic) -> Iterator[bytes]:
    """All frames of the traffic, in order."""
    model = Model(traffic)
    for block in blocks(model, Templates(model)):
        data = block.data.tobytes()
        for at, end in zip(block.at.tolist(), (block.at + block.length).tolist(), strict=True):
            yield data[at:end]


def write(traffic: Traffic, path: str, tell: Callable[[int], object] = lambda done: None) -> Truth:
    """Write the traffic to a pcap file. tell: is told now and then how many reports were. Errors: CaptureError."""
    model = Model(traffic)
    templates = Templates(model)
    with capture.Writer(path) as writer:
        for block in blocks(model, templates):
            headers = capture.record_headers(block.time_ns, block.length)
            first = block.at - capture.RECORD_HEADER
            block.data.reshape(-1)[first[:, None] + np.arange(capture.RECORD_HEADER)] = headers
            records = block.data
            if records.ndim == 2:
                n, width = records.shape
                column, begin = np.arange(width), (first - np.arange(n) * width)[:, None]
                end = begin + (capture.RECORD_HEADER + block.length)[:, None]
                records = records[(column >= begin) & (column < end)]
            writer.write_records(records)
            tell(model.done)
    return model.truth()
