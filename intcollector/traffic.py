"""Reports to test with: Traffic says what they are like, frames() and write() make them, truth() what they amount to.

Report i is flow i mod flows. Whatever else happens to it is drawn from a hash of (seed, i), so any part of the traffic
can be made anywhere: bpf/generate.c makes the same bytes as the arrays here. The first report of every flow is plain.

What a collector must find is exact, because values are built so that nothing else is news: between two reports of a
flow, or through a queue or port, they differ by at most NOISE in sum, below the default thresholds, unless an event
raised or lowered one of them by STEP. Every wire value that varies is even, so none is ever all ones ("unavailable").
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import capture, wire
from .config import PROFILES, Config, number, option, real
from .errors import UsageError
from .layout import MAX_HOPS

NOISE = 50
"""Wire units: what values vary by without an event, summed over a flow's hops. The default thresholds."""
STEP = 1000
HOP_GAP_NS = 5000
SWITCHES = 16
"""Switches at every hop but the first, which is the sink: a switch for every source."""
PORTS = 16
QUEUES = 8
LOCAL_QUEUE = 200
"""The queue of congestion reports: no hop's."""
DROP_REASONS = (50, 71, 80, 89)
BLOCK = 8192
"""Reports made at once."""
SHARE_BITS = 20
LARGEST_FRAME = 3000
"""Bytes: what a live frame and a veth with XDP can hold, rounded down."""

PLAIN, DROP, CONGESTION = range(3)
"""Kinds of reports."""
_LOSS, _DUPLICATE, _REORDER, _LATE = 1, 2, 3, 4
_SWITCH, _PORTS, _LATENCY, _QUEUE, _INGRESS, _EGRESS, _L2, _UTILIZATION = (0x8000 >> i for i in range(8))
WIDE = {"spec": _L2, "onos": _L2, "l2port4": 0, "intcollector": 0, "geant": _INGRESS | _EGRESS}
"""Instruction bits whose item takes 8 bytes, by profile."""


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
    instructions: int = option(0xFF00, "INT instruction bitmap", parse=number(0, 0xFFFF), metavar="BITMAP")
    report_version: str = option("1.0", "version of the telemetry reports", choices=("1.0",))
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
        if self.hop_bytes * self.hops > 4 * 252:
            raise UsageError(
                f"{self.hops} hops of {self.hop_bytes} bytes do not fit into an INT stack of {4 * 252}: "
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
        largest = LARGEST_FRAME - 160 - self.hops * self.hop_bytes
        if max(self.payload) > largest:
            raise UsageError(
                f"--payload {max(self.payload)} makes too large a packet: at most {largest} fit behind this stack"
            )

    @property
    def offsets(self) -> dict[int, int]:
        """Where in a hop's record the item of an instruction bit begins, bytes (wire-format: INT 1.0, 2.6)."""
        found, at = {}, 0
        for bit in (0x8000 >> i for i in range(16)):
            if self.instructions & bit:
                found[bit] = at
                at += self._width(bit)
        return found

    def _width(self, bit: int) -> int:
        return 8 if WIDE[self.profile] & bit else 4

    @property
    def hop_bytes(self) -> int:
        """Bytes a hop adds."""
        return sum(self._width(0x8000 >> i) for i in range(16) if self.instructions & 0x8000 >> i)

    @property
    def event_kinds(self) -> tuple[int, ...]:
        """What an event can change, so that it can be seen: of _LATENCY, _QUEUE, _UTILIZATION."""
        seen = self.instructions
        kinds = []
        if seen & _LATENCY or seen & (_INGRESS | _EGRESS) == _INGRESS | _EGRESS:
            kinds.append(_LATENCY)
        if seen & _SWITCH and seen & _QUEUE:
            kinds.append(_QUEUE)
        if seen & _SWITCH and seen & _PORTS and seen & _UTILIZATION:
            kinds.append(_UTILIZATION)
        return tuple(kinds)

    @property
    def changing_hops(self) -> int:
        """Hops at which something changes: those that a collector keeps. The path changes at the last of them."""
        return min(self.hops, MAX_HOPS)

    @property
    def interval_ns(self) -> int:
        """From report to report: even."""
        return max(2, round(1e9 / self.rate / 2) * 2)

    @property
    def config(self) -> Config:
        """How a collector has to be set to read these reports."""
        return Config(port=(self.port,), profile=self.profile, int_dscp=(self.dscp, 63))


@dataclasses.dataclass
class Truth:
    """What a collector has to have counted, had it seen all of it: by source (n,), or in sum.

    Congested: reports that say so of a flow whose report before did not. The events do without keep-alives.
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
    """Who and where: switch_id, egress_port, ingress_port, queue: (flows, hops), hop 0 nearest the sink.

    port_point, queue_point: (flows, hops + 1), numbers of the switch's port and queue, the last column those of hop
    changing_hops - 1 after a path change, when it has other_switch (flows,). source: (flows,).
    """

    def __init__(self, t: Traffic) -> None:
        flow = np.arange(t.flows, dtype=np.int64)
        hop = np.arange(t.hops, dtype=np.int64)
        some = mix((flow[:, None] * 256 + hop + 1).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(t.seed))

        def draw(shift: int, below: int) -> np.ndarray:
            return (some >> np.uint64(shift)).astype(np.int64) % below

        self.source = flow % t.sources
        self.switch_id = 10_000 * (hop + 1) + draw(0, SWITCHES) + 1
        self.switch_id[:, 0] = self.source + 1
        self.other_switch = 5_000 + self.switch_id[:, t.changing_hops - 1]
        self.egress_port = 1 + draw(8, PORTS)
        self.ingress_port = 101 + draw(16, PORTS)
        self.queue = draw(24, QUEUES)
        switches = np.concatenate([self.switch_id, self.other_switch[:, None]], axis=1)
        columns = [*range(t.hops), t.changing_hops - 1]
        self.port_point = _numbered(switches * 65536 + self.egress_port[:, columns])
        self.queue_point = _numbered(switches * 65536 + self.queue[:, columns])

    def latency(self) -> np.ndarray:
        """Base values: (hops,)."""
        return 300 + 20 * np.arange(self.switch_id.shape[1])


OCCUPANCY = 100
UTILIZATION = 2000


def _numbered(keys: np.ndarray) -> np.ndarray:
    """Equal keys, equal numbers from 0 on: 16 bits, which sort fast, where they do."""
    numbers = np.unique(keys, return_inverse=True)[1].reshape(keys.shape)
    return numbers.astype(np.uint16 if numbers.max() < 65536 else np.uint32)


@dataclasses.dataclass
class Step:
    """What consecutive reports say. flow, kind, sequence, moved: (n,); the others: (n, hops)."""

    index: np.ndarray
    flow: np.ndarray
    kind: np.ndarray
    sequence: np.ndarray
    time_ns: np.ndarray
    moved: np.ndarray
    latency: np.ndarray
    occupancy: np.ndarray
    utilization: np.ndarray


class Model:
    """The traffic as it goes on: step() by step(); truth() of what was stepped through so far."""

    def __init__(self, traffic: Traffic) -> None:
        t = self.traffic = traffic
        self.topology = Topology(t)
        self.done = 0
        self.block = BLOCK if t.flows > BLOCK else BLOCK // t.flows * t.flows
        self._moved = np.zeros((t.flows, 1), np.uint8)
        self._latency = np.zeros((t.flows, t.hops), np.uint8)
        self._ports = np.zeros(int(self.topology.port_point.max()) + 1, np.uint8)
        self._queues = np.zeros(int(self.topology.queue_point.max()) + 1, np.uint8)
        self._next = np.full(t.sources, t.first_sequence_number, np.int64)
        self._last = np.zeros(t.sources, np.int64)
        self._late = np.zeros(t.sources, bool)
        source = np.arange(t.sources)
        of_ipv6 = _some(t.sources, t.ipv6_sources, t.seed, 1)
        self.addresses = [source_address(s, bool(six)) for s, six in zip(source.tolist(), of_ipv6, strict=True)]
        zeros = np.zeros((4, t.sources), np.int64)
        self._truth = Truth(self.addresses, source + 1, source % 64, *zeros)

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
        later = index >= t.flows
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
        """The next n reports; n is self.block, or less and the last."""
        t, top = self.traffic, self.topology
        index = np.arange(self.done, self.done + n)
        flow = index % t.flows
        draw, noise = self._draws(index)
        kind, moves, event = self._kinds(index, draw)
        hop = (draw >> np.uint64(40) & np.uint64(0xFFF)).astype(np.int64) * t.changing_hops >> 12
        kinds = t.event_kinds or (0,)
        what = (draw >> np.uint64(52)).astype(np.int64) * len(kinds) >> 12

        moved = self._by_flow(moves[:, None].astype(np.uint8), self._moved, flow)[:, 0].astype(bool)
        toggles = np.zeros((3, n, t.hops), np.uint8)
        rows = np.flatnonzero(event)
        for place, bit in enumerate((_LATENCY, _QUEUE, _UTILIZATION)):
            if bit in kinds:
                mine = rows[what[rows] == kinds.index(bit)]
                toggles[place, mine, hop[mine]] = 1
        port, queue = self._points(top.port_point, flow, moved), self._points(top.queue_point, flow, moved)
        amplitude = np.uint64(NOISE // 2 // t.hops + 1)
        noises = noise[:, None] * (2 * np.arange(t.hops, dtype=np.uint64) + np.uint64(1))

        def value(base: Any, level: np.ndarray, shift: int) -> np.ndarray:
            jitter = ((noises >> np.uint64(shift) & np.uint64(0xFF)) * amplitude >> np.uint64(8)).astype(np.int64) * 2
            return base + level.astype(np.int64) * STEP + jitter

        # a report without a stack leaves the levels as they are: its toggles are all zero
        step = Step(
            index, flow, kind, self._sequence(index, flow, draw), t.start_ns // 2 * 2 + index * t.interval_ns, moved,
            value(top.latency(), self._by_flow(toggles[0], self._latency, flow), 40),
            value(OCCUPANCY, self._by_point(toggles[1], self._queues, queue), 48),
            value(UTILIZATION, self._by_point(toggles[2], self._ports, port), 56),
        )  # fmt: skip
        truth = self._truth
        truth.new_flows += int((index < t.flows).sum())
        truth.path_changes += int(moves.sum())
        truth.value_changes += len(rows)
        truth.dropped += int((kind == DROP).sum())
        if t.congestion_reports:
            before = index - t.flows
            was = (before >= 0) & (self._kinds(before, self._draws(before)[0])[0] == CONGESTION)
            truth.congested += int(((kind == CONGESTION) & ~was).sum())
        self.done += n
        return step

    def _points(self, point: np.ndarray, flow: np.ndarray, moved: np.ndarray) -> np.ndarray:
        points = point[flow]
        changing = self.traffic.changing_hops - 1
        points[:, changing] = np.where(moved, points[:, -1], points[:, changing])
        return points[:, :-1]

    def _by_flow(self, toggles: np.ndarray, state: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """Levels after each report, (n, k) like toggles; flows take turns. state: (flows, k), changed in place."""
        n, flows = len(toggles), len(state)
        if n <= flows:  # each at most once
            level = state[flow] ^ toggles
            state[flow] = level
            return level
        rounds = np.zeros((-(-n // flows) * flows, toggles.shape[1]), np.uint8)
        rounds[:n] = toggles
        level = np.bitwise_xor.accumulate(rounds.reshape(-1, flows, toggles.shape[1]), axis=0) ^ state
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

    def _sequence(self, index: np.ndarray, flow: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Sequence numbers (n,), with what is lost, doubled and overtaken; counted in the truth."""
        t = self.traffic
        value = (draw & np.uint64((1 << SHARE_BITS) - 1)).astype(np.int64)
        limits = [_threshold(t.loss), _threshold(t.loss, t.duplicates), _threshold(t.loss, t.duplicates, t.reordered)]
        fault = np.array([_LOSS, _DUPLICATE, _REORDER, 0], np.int64)[np.searchsorted(limits, value, side="right")]
        fault[index < t.flows] = 0
        if t.sources == 1:
            return self._sequence_of(0, fault) & 0xFFFF_FFFF
        source = self.topology.source[flow].astype(np.uint16)
        order = np.argsort(source, kind="stable")
        ends = np.searchsorted(source[order], np.arange(t.sources), side="right")
        sequence = np.empty(len(flow), np.int64)
        start = 0
        for s, end in enumerate(ends.tolist()):  # a loop over sources, of which there are few
            if end > start:
                rows = order[start:end]
                sequence[rows] = self._sequence_of(s, fault[rows])
            start = end
        return sequence & 0xFFFF_FFFF

    def _sequence_of(self, s: int, fault: np.ndarray) -> np.ndarray:
        """One source's sequence numbers: (n,), not yet cut to 32 bits."""
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
    while left := traffic.packets - model.done:
        model.step(min(model.block, left))
    return model.truth()


# --- How it looks on the wire -----------------------------------------------------------------------------------------


def _some(n: int, part: float, seed: int, salt: int) -> np.ndarray:
    """Exactly that share of n, drawn: bool (n,)."""
    return np.random.default_rng([seed, salt]).permutation(n) < round(part * n)


def source_address(source: int, ipv6: bool) -> str:
    """An exporter's address, of the ranges for documentation and benchmarks."""
    base = int(ipaddress.ip_address("2001:db8:ffff::1" if ipv6 else "198.18.0.1"))
    return str(ipaddress.ip_address(base + source))


def _flow(t: Traffic, f: int, tcp: bool, ipv6: bool, vlan: bool) -> dict[str, Any]:
    high, low = divmod(f, 40_000)
    addresses = ("2001:db8:1::{:x}", "2001:db8:2::{:x}") if ipv6 else ("10.1.0.{}", "10.2.0.{}")
    return {
        "vlan_ids": [100 + f % 900] if vlan else [],
        "ip_version": 6 if ipv6 else 4,
        "source": addresses[0].format(1 + high),
        "destination": addresses[1].format(1 + high),
        "protocol": 6 if tcp else 17,
        "source_port": 10_000 + low,
        "destination_port": 5000 + f % 100,
        "dscp": t.dscp,
    }


class Templates:
    """A frame for each flow and kind of report, into which step() by step() what varies is written.

    frames: u8 (kinds, flows, width); each frame begins at column start (flows,) and ends at end (kinds, flows), so that
    all stacks begin at column stack. report: (flows,), column of the report header.
    """

    def __init__(self, model: Model) -> None:
        t, top = model.traffic, model.topology
        tcp, ipv6, vlan = (_some(t.flows, part, t.seed, salt) for salt, part in ((2, t.tcp), (3, t.ipv6), (4, t.vlan)))
        six = np.array([":" in a for a in model.addresses])[top.source]
        outer = 14 + np.where(six, 40, 20) + 8
        inner = 14 + 4 * vlan + np.where(ipv6, 40, 20) + np.where(tcp, 20, 8)
        stack = outer + 16 + inner + 12
        self.stack = int(stack.max()) + capture.RECORD_HEADER
        self.start = self.stack - stack
        self.report = self.start + outer
        kinds = 3 if t.drop_reports or t.congestion_reports else 1
        frames: list[list[bytes]] = [[] for _ in range(kinds)]
        config = t.config
        quirks: dict[str, Any] = {"int_version_0": t.profile in ("onos", "intcollector")}
        if t.profile == "intcollector":
            quirks["report_length"] = 1
        for f in range(t.flows):  # once a flow, not once a report
            flow = _flow(t, f, bool(tcp[f]), bool(ipv6[f]), bool(vlan[f]))
            for kind in range(kinds):
                report = _report(model, f, flow, kind)
                payload = bytes(t.payload[f % len(t.payload)])
                frames[kind].append(wire.encode(report, config, payload=payload, **(quirks if kind == PLAIN else {})))
        self.lengths = np.array([[len(x) for x in some] for some in frames])
        self.end = self.start + self.lengths
        width = max(int(self.end.max()), self.stack + t.hops * t.hop_bytes)
        self.frames = np.zeros((kinds, t.flows, width), np.uint8)
        for kind, some in enumerate(frames):
            for f, frame in enumerate(some):
                at = self.start[f]
                self.frames[kind, f, at : at + len(frame)] = np.frombuffer(frame, np.uint8)
        # no UDP checksum, as most exporters send it: what is patched in would make it wrong
        self.frames[:, np.arange(t.flows)[:, None], self.report[:, None] - [2, 1]] = 0


def _report(model: Model, f: int, flow: dict[str, Any], kind: int) -> dict[str, Any]:
    """A report as in the vectors, with the values that do not vary."""
    t, top = model.traffic, model.topology
    source = int(top.source[f])
    report = {
        "version": t.report_version,
        "source": model.addresses[source],
        "switch_id": source + 1,
        "hw_id": source % 64,
        "sequence_number": 0,
        "ingress_timestamp": 0,
        "dropped": kind == DROP,
        "congested_queue": kind == CONGESTION,
        "tracked_flow": kind == PLAIN,
        "intermediate": False,
        "local_hop": None,
        "flow": flow if kind == PLAIN else {**flow, "dscp": 0},
        "int": None,
    }
    ports = {"ingress_port_id": int(top.ingress_port[f, 0]), "egress_port_id": int(top.egress_port[f, 0])}
    if kind == DROP:
        report["local_hop"] = {**ports, "drop_queue_id": 0, "drop_reason": DROP_REASONS[f % len(DROP_REASONS)]}
    elif kind == CONGESTION:
        report["local_hop"] = {**ports, "queue_id": LOCAL_QUEUE, "queue_occupancy": 5000, "egress_timestamp": 0}
    else:
        hops = []
        for h in range(t.hops):
            into, out = int(top.ingress_port[f, h]), int(top.egress_port[f, h])
            hop = {
                _SWITCH: {"switch_id": int(top.switch_id[f, h])},
                _PORTS: {"ingress_port_id": into, "egress_port_id": out},
                _LATENCY: {"hop_latency": 0},
                _QUEUE: {"queue_id": int(top.queue[f, h]), "queue_occupancy": 0},
                _INGRESS: {"ingress_timestamp": 0},
                _EGRESS: {"egress_timestamp": 0},
                _L2: {"l2_ingress_port_id": into, "l2_egress_port_id": out},
                _UTILIZATION: {"egress_port_tx_utilization": 0},
                1: {"checksum_complement": 0},
            }  # fmt: skip
            hops.append({k: v for bit, some in hop.items() if t.instructions & bit for k, v in some.items()})
        words = t.hop_bytes // 4
        report["int"] = {
            "version": "1.0",
            "mode": "MD",
            "instruction_bitmap": f"0x{t.instructions:04x}",
            "hop_ml": bin(t.instructions).count("1") if t.profile == "onos" else words,
            "remaining_hop_count": 16,
            "hop_count": t.hops,
            "hops": hops,
            "latency": None,
        }
    return report


@dataclasses.dataclass
class Block:
    """Frames, one a row of data (n, width): columns start up to end, with 16 unused ones before. time_ns: (n,)."""

    data: np.ndarray
    start: np.ndarray
    end: np.ndarray
    time_ns: np.ndarray


def _fill(model: Model, templates: Templates, step: Step) -> Block:
    t, top = model.traffic, model.topology
    data = templates.frames[PLAIN][step.flow]
    n, width = data.shape

    def store(column: int, values: np.ndarray, size: int) -> None:
        np.ndarray(n, f">u{size}", data, column, (width,))[:] = values

    offsets, wide = t.offsets, WIDE[t.profile]
    for hop in range(t.hops):
        base = templates.stack + hop * t.hop_bytes
        arrival = step.time_ns - HOP_GAP_NS * (hop + 1)
        for bit, values in (
            (_LATENCY, step.latency[:, hop]),
            (_INGRESS, arrival),
            (_EGRESS, arrival + step.latency[:, hop]),
            (_UTILIZATION, step.utilization[:, hop]),
        ):
            if bit in offsets:
                size = 8 if wide & bit else 4
                store(base + offsets[bit], values if size == 8 else values & 0xFFFF_FFFF, size)
        if _QUEUE in offsets:  # below the id, 8 or 16 bits
            store(base + offsets[_QUEUE] + 2, step.occupancy[:, hop], 2)
        if _SWITCH in offsets and hop == t.changing_hops - 1 and t.path_changes:
            switch = np.where(step.moved, top.other_switch[step.flow], top.switch_id[step.flow, hop])
            store(base + offsets[_SWITCH], switch, 4)

    end = templates.end[PLAIN][step.flow]
    for kind in range(1, len(templates.frames)):
        rows = np.flatnonzero(step.kind == kind)
        data[rows] = templates.frames[kind][step.flow[rows]]
        end[rows] = templates.end[kind][step.flow[rows]]
    flat = data.reshape(-1)
    at = np.arange(n) * width + templates.report[step.flow]
    words = np.stack([step.sequence, step.time_ns & 0xFFFF_FFFF], axis=1).astype(">u4").view(np.uint8)
    flat[(at + 8)[:, None] + np.arange(8)] = words
    if len(templates.frames) > 1:  # egress timestamp, behind ports and queue
        rows = np.flatnonzero(step.kind == CONGESTION)
        stamps = (step.time_ns[rows] + 2 & 0xFFFF_FFFF).astype(">u4").view(np.uint8).reshape(-1, 4)
        flat[(at[rows] + 24)[:, None] + np.arange(4)] = stamps
    return Block(data, templates.start[step.flow], end, step.time_ns)


def blocks(model: Model, templates: Templates) -> Iterator[Block]:
    """All frames of the model's traffic, some thousands at a time."""
    while left := model.traffic.packets - model.done:
        yield _fill(model, templates, model.step(min(model.block, left)))


def frames(traffic: Traffic) -> Iterator[bytes]:
    """All frames of the traffic, in order."""
    model = Model(traffic)
    for block in blocks(model, Templates(model)):
        width = block.data.shape[1]
        data, row = block.data.tobytes(), np.arange(len(block.data)) * width
        for start, end in zip((row + block.start).tolist(), (row + block.end).tolist(), strict=True):
            yield data[start:end]


def write(traffic: Traffic, path: str) -> Truth:
    """Write the traffic to a pcap file. Errors: CaptureError."""
    model = Model(traffic)
    templates = Templates(model)
    with capture.Writer(path) as writer:
        for block in blocks(model, templates):
            n, width = block.data.shape
            at = np.arange(n) * width + block.start - capture.RECORD_HEADER
            headers = capture.record_headers(block.time_ns, block.end - block.start)
            block.data.reshape(-1)[at[:, None] + np.arange(capture.RECORD_HEADER)] = headers
            column = np.arange(width)
            first = block.start[:, None] - capture.RECORD_HEADER
            writer.write_records(block.data[(column >= first) & (column < block.end[:, None])])
    return model.truth()
