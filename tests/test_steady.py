"""The short way through the kernel program (bpf/steady.h) beside the long one: whatever packets come, both leave the
same maps, tell the same events and count the same outcomes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import kernel, wire
from intcollector.batch import SOURCE, Batch, State
from intcollector.config import PROFILES, Config
from intcollector.datapath import Datapath
from intcollector.layout import LAYOUT, MAX_HOPS, FlowFlag, ReportFlag

from . import batches, differ, strategies
from .frames import FAR, NONE32, forget, map_fd, news, numbered, on_all_cpus, on_one_cpu, set_flow, two_cpus
from .needs import needs_root
from .test_sequence import Counts, model

pytestmark = needs_root

SIZES: dict[str, Any] = {"ring_size": 1, "max_flows": 32768}
CONFIG = Config(**SIZES, keepalive=0.0)
SEEN_PLACE, SEEN_STAMP = LAYOUT.defines["SEEN_PLACE"], LAYOUT.defines["SEEN_STAMP"]
SOURCE_COUNTS = ("received", "lost", "reordered", "duplicated", "restarted")
FULL = 0xF100
"""The instruction bits of all that goes into the maps."""


class Both:
    """Two programs that see the same frames: one by the short way where that is possible, the other only by the long
    one."""

    def __init__(self) -> None:
        self.short, self.long = Datapath(CONFIG), Datapath(CONFIG)

    def start(self, config: Config) -> None:
        """As if they had seen nothing, and set to config."""
        for datapath in (self.short, self.long):
            forget(datapath)
            datapath.apply(config)

    def apply(self, config: Config) -> None:
        """Set them anew while they run."""
        for datapath in (self.short, self.long):
            datapath.apply(config)

    def run(self, *frames: bytes) -> None:
        """Run frames one by one; the verdicts are the same."""
        for one in frames:
            verdict, _ = kernel.test_run(self.short.fd, one)
            expected, _ = kernel.test_run(self.long._long_way, one)
            assert verdict == expected, one.hex()

    def ran_steady(self, *frames: bytes) -> int:
        """... and how many of them went the short way."""
        before = self.steady
        self.run(*frames)
        return self.steady - before

    @property
    def steady(self) -> int:
        """Packets that went the short way."""
        assert not self.long._statistics()["steady_reports"].any()
        return int(self.short._statistics()["steady_reports"].sum())

    def events(self) -> Batch:
        """What was told since the last time, which is the same."""
        told, expected = self.short.drain(), self.long.drain()
        same("events", plain_heads(told), plain_heads(expected))
        same("hops of events", plain_hops(told), plain_hops(expected))
        assert told.hop_report.tolist() == expected.hop_report.tolist()
        assert not self.short.has_more and not self.long.has_more
        return told

    def check(self) -> Batch:
        """The maps and what was told are the same; the events."""
        told = self.events()
        expected = dict(plain_state(self.long.state()))
        for name, found in plain_state(self.short.state()):
            same(name, found, expected[name])
        return told

    def close(self) -> None:
        self.short.close()
        self.long.close()


def same(what: str, short: np.ndarray, long: np.ndarray) -> None:
    """Structured arrays, which are the same; otherwise an error that shows the fields that are not."""
    assert len(short) == len(long), f"{what}: {len(short)} by the short way, {len(long)} by the long one"
    if short.tobytes() == long.tobytes():
        return
    found = []
    for row, (one, other) in enumerate(zip(short, long, strict=True)):
        found += [
            f"{what} {row} {name}: {one[name]!r} by the short way, {other[name]!r} by the long one"
            for name in short.dtype.names or ()
            if one[name].tobytes() != other[name].tobytes()
        ]
    raise AssertionError("\n".join(found) or f"{what}: {short!r} by the short way, {long!r} by the long one")


def plain_heads(batch: Batch) -> np.ndarray:
    """The heads of events without when they came up, and without what their flags say is not there."""
    heads = batch.reports.copy()
    for name in ("transport", "received_ns", "pad0", "pad1", "pad2", "pad3"):
        heads[name] = 0
    flows = heads["flags"] & (ReportFlag.FLOW_IPV4 | ReportFlag.FLOW_IPV6) != 0
    for name in ("flow_source", "flow_destination"):
        heads[name][~flows] = 0
    heads["local"][heads["flags"] & ReportFlag.LOCAL == 0] = np.zeros((), heads["local"].dtype)
    return heads


def plain_hops(batch: Batch) -> np.ndarray:
    """The hops of events; of postcards without when they came."""
    hops = batch.hops.copy()
    if len(hops):
        postcards = batch.reports["flags"][batch.hop_report] & ReportFlag.POSTCARD != 0
        hops["ingress_timestamp"][postcards] = 0
    return hops


def plain_state(state: State) -> Iterator[tuple[str, np.ndarray]]:
    """What the maps hold but for times, in an order of its own: name, structured array."""
    order = sorted(range(len(state.flows)), key=lambda at: state.flow_keys[at].tobytes())
    flows = state.flows[order].copy()
    for name in ("seen", "seen_high", "told"):
        flows[name] = 0
    flows["flags"] &= ~np.uint8(FlowFlag.GAPS)  # which of the loops over hops is taken, and nothing else
    flows["places"]["order"] = 0
    seen = flows["places"]["seen"]
    flows["places"]["seen"] = (seen & SEEN_STAMP) | (seen != 0) * np.uint32(SEEN_PLACE)
    yield "flow keys", state.flow_keys[order]
    yield "flows", flows
    for name, points in (("ports", state.ports), ("queues", state.queues)):
        yield name, points[1:]  # what is remembered of nobody is nobody's
    yield "port statistics", state.port_statistics
    yield "queue statistics", state.queue_statistics
    names = ["address", "switch_id", "hw_id", "ip_version", "report_version", "flags", "reporter", *SOURCE_COUNTS]
    sources = np.zeros(len(state.sources), [(name, state.sources.dtype[name]) for name in names])
    for name in names:
        sources[name] = state.sources[name]
    yield "sources", sources
    drops = sorted(zip(state.drop_keys["switch_id"], state.drop_keys["reason"], state.drops, strict=True))
    yield "drops", np.array(drops, [("switch_id", "u4"), ("reason", "u1"), ("count", "u8")])
    yield "counters", state.counters.reshape(1)


@pytest.fixture(scope="module")
def programs() -> Iterator[Both]:
    """Loaded once."""
    both = Both()
    yield both
    both.close()


@pytest.fixture
def both(programs: Both) -> Iterator[Both]:
    """The two programs, and this thread on one CPU, whose events have an order."""
    with on_one_cpu():
        programs.start(CONFIG)
        yield programs


# --- frames -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a report with a stack is written. version: of INT; "1.0 as 0" as ONOS writes it."""

    version: str = "1.0"
    bitmap: int = FULL
    source: str = "192.0.2.1"
    flow: str = "10.0.0.1:5000>10.0.0.2:5001/17"
    hw_id: int = 0
    nproto: str = "ethernet"
    inner_vlans: tuple[int, ...] = ()
    outer_vlans: tuple[int, ...] = ()
    outer_options: bytes = b""
    tcp_options: bytes = b""
    payload: bytes = b""
    tracked_flow: bool = True


USUAL: Mapping[str, int] = {
    "switch_id": 1, "ingress_port_id": 1, "egress_port_id": 2, "hop_latency": 1000, "queue_id": 3,
    "queue_occupancy": 500, "ingress_timestamp": 10_000, "egress_timestamp": 10_900, "l2_ingress_port_id": 5,
    "l2_egress_port_id": 6, "egress_port_tx_utilization": 700, "buffer_id": 1, "buffer_occupancy": 9,
    "congested_queue_id": 2, "queue_congestion": 3, "checksum_complement": 77,
}  # fmt: skip
Values = dict[tuple[int, str], int | None]
"""(hop, field) -> its value, where it is not USUAL."""


def written(config: Config, shape: Shape, hops: int, values: Values | None = None, **more: Any) -> bytes:
    """A frame with a report of so many hops. values: by (hop, field); switches are numbered from 1. more: other keys of
    a report."""
    own = config.of_source(shape.source)
    version = "1.0" if shape.version == "1.0 as 0" else shape.version
    fields = list(strategies.fields_of(shape.bitmap, strategies.items_of(version, own.profile)))
    stack = []
    for i in range(hops):
        hop: dict[str, int | None] = {}
        for name, width in fields:
            value = (values or {}).get((i, name), USUAL[name] + (i if name == "switch_id" else 0))
            hop[name] = None if value is None else value % wire.ones(width)
        stack.append(hop)
    report = batches.report(flow=shape.flow, source=shape.source, hw_id=shape.hw_id, tracked_flow=shape.tracked_flow)
    report["int"] = strategies.stack_of(version, own.profile, shape.bitmap, stack, 0)
    report["flow"] |= {"dscp": own.int_dscp[0] if own.int_dscp else 0, "vlan_ids": list(shape.inner_vlans)}
    return wire.encode(
        report | more,
        config,
        nproto=shape.nproto,
        int_version_0=shape.version == "1.0 as 0",
        tcp_options=shape.tcp_options,
        payload=shape.payload,
        outer_vlans=shape.outer_vlans,
        outer_options=shape.outer_options,
    )


def stride(config: Config, shape: Shape) -> int:
    """Words a hop."""
    own = config.of_source(shape.source)
    version = "1.0" if shape.version == "1.0 as 0" else shape.version
    return wire.words(shape.bitmap, strategies.items_of(version, own.profile))


# --- which way --------------------------------------------------------------------------------------------------------

FLOWS = {
    (4, 17): "10.0.0.1:5000>10.0.0.2:5001/17", (4, 6): "10.0.0.1:5000>10.0.0.2:5001/6",
    (6, 17): "2001:db8::1:5000>2001:db8::2:5001/17", (6, 6): "2001:db8::1:5000>2001:db8::2:5001/6",
}  # fmt: skip
TAGS: tuple[tuple[int, ...], ...] = ((), (5,), (5, 6))


def plain_shapes() -> Iterator[Shape]:
    """What the short way is for: every combination of what may stand around a stack."""
    for version, source, flow, outer, inner in itertools.product(
        ("1.0", "1.0 as 0", "2.x"), ("192.0.2.1", "2001:db8::9"), FLOWS, TAGS, TAGS
    ):
        for nproto in ("ethernet",) if inner else ("ethernet", f"ipv{flow[0]}"):
            yield Shape(version, FULL, source, FLOWS[flow], 0, nproto, inner, outer)


def test_whatever_stands_around_a_stack(both: Both) -> None:
    """Reports in which nothing is news go the short way: IPv4, IPv6, tags, TCP, UDP, INT 1.0 and 2.x."""
    for shape in plain_shapes():
        for bitmap in (FULL, 0x8000, 0xE000):
            one = written(CONFIG, dataclasses.replace(shape, bitmap=bitmap), 3)
            both.run(one)  # another path, or a bitmap that was not there before
            assert both.ran_steady(one, one) == 2, (shape, hex(bitmap))
        both.check()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", ["1.0", "2.x"])
def test_every_bitmap(both: Both, profile: str, version: str) -> None:
    """Stacks of any instructions go the short way, but for those whose latencies only timestamps can tell."""
    config = dataclasses.replace(CONFIG, profile=profile)
    both.apply(config)
    for upper, lower in itertools.product(range(512), (0, 1, 0x55)):
        bitmap = upper << 7 | lower
        if not bitmap:
            continue
        shape = Shape(version, bitmap, hw_id=upper % 64)
        one, other = (written(config, shape, 2, {(0, "hop_latency"): 1000 + more}) for more in (0, 1))
        both.run(one)
        told_by_timestamps = bitmap & 0x2C00 == 0x0C00
        steady = both.ran_steady(one, other, one)
        assert steady == (0 if told_by_timestamps else 3), hex(bitmap)
        if upper % 64 == 63:
            both.check()


@pytest.mark.parametrize("bitmap", [FULL, 0x8000, 0xE000, 0xFFC1])
@pytest.mark.parametrize("version", ["1.0", "2.x"])
def test_every_number_of_hops(both: Both, version: str, bitmap: int) -> None:
    """Stacks of 1 to MAX_HOPS hops go the short way, longer ones and those without a hop do not."""
    shape = Shape(version, bitmap)
    for hops in range(1, MAX_HOPS + 1):
        one = written(CONFIG, shape, hops)
        both.run(one)
        assert both.ran_steady(one, one) == 2
        both.check()
    for hops in (0, MAX_HOPS + 1, MAX_HOPS + 2):
        one = written(CONFIG, shape, hops)
        assert both.ran_steady(one, one, one) == 0
        both.check()


@pytest.mark.parametrize(("field", "what"), [
    ("hop_latency", "hop_latency 2"), ("queue_occupancy", "queue_occupancy 2"),
    ("egress_port_tx_utilization", "tx_utilization 2"),
])  # fmt: skip
@pytest.mark.parametrize("bitmap", [FULL, 0xFF80, 0xF900])
def test_news_goes_the_long_way(both: Both, field: str, what: str, bitmap: int) -> None:
    """A value beyond its threshold is told, by the long way; up to it nothing is, by the short one."""
    config = dataclasses.replace(CONFIG, flow_latency_threshold=NONE32)
    both.apply(config)
    shape = Shape("1.0", bitmap)

    def of(value: int) -> bytes:
        return written(config, shape, 4, {(2, field): value})

    both.run(of(USUAL[field]))
    both.check()
    within, beyond = (USUAL[field] + 50, USUAL[field] - 50), (USUAL[field] + 51, USUAL[field] - 51)
    assert both.ran_steady(*map(of, within)) == 2
    assert not len(both.check())
    assert both.ran_steady(of(beyond[0])) == 0
    assert news(both.check()) == [{what}]
    assert both.ran_steady(of(beyond[0]), of(beyond[0] + 50)) == 2
    assert both.ran_steady(of(beyond[1])) == 0
    assert news(both.check()) == [{what}]


def test_what_is_not_as_usual_goes_the_long_way(both: Both) -> None:
    """Flags, what the reporting switch says of itself, options, another mode, and another hop."""
    shape = Shape()
    usual = written(CONFIG, shape, 3)
    both.run(usual)
    local = {"queue_id": 1, "queue_occupancy": 5}
    tcp = dataclasses.replace(shape, flow=FLOWS[4, 6])
    both.run(written(CONFIG, tcp, 3))
    others = [
        written(CONFIG, shape, 3, congested_queue=True),
        written(CONFIG, shape, 3, dropped=True),
        written(CONFIG, shape, 3, local_hop=local),
        written(CONFIG, dataclasses.replace(shape, outer_options=b"\x01" * 4), 3),
        written(CONFIG, dataclasses.replace(tcp, tcp_options=b"\x01" * 4), 3),
        written(CONFIG, shape, 3, {(1, "switch_id"): 9}),
        written(CONFIG, shape, 3, {(1, "egress_port_id"): 9}),
        written(CONFIG, shape, 3, {(1, "queue_id"): 9}),
        written(CONFIG, shape, 2),
        written(CONFIG, dataclasses.replace(shape, bitmap=0xF000), 3),
        written(CONFIG, dataclasses.replace(shape, hw_id=3), 3),
        written(CONFIG, dataclasses.replace(shape, source="192.0.2.2"), 3),
    ]
    for other in others:
        both.run(usual, usual)
        assert both.ran_steady(usual) == 1
        assert both.ran_steady(other) == 0
        both.check()
    for mode in ("interval", "threshold"):
        both.apply(dataclasses.replace(CONFIG, event_mode=mode))
        both.run(usual)
        assert both.ran_steady(usual, usual) == (2 if mode == "threshold" else 0)
        both.check()


# --- whatever packets come --------------------------------------------------------------------------------------------


def test_the_vectors(both: Both) -> None:
    """Every vector, several times over and in any order."""
    chance = random.Random(1)
    steady = 0
    for vectors in differ.by_options(differ.VECTORS).values():
        config = Config.from_options(vectors[0]["options"])
        both.start(dataclasses.replace(config, **SIZES, keepalive=0.0))
        frames = [bytes.fromhex(vector["packet"]) for vector in vectors] * 6
        frames = [one for one in frames if len(one) >= 14]
        mixed = chance.sample(frames, len(frames))
        for at in range(0, len(mixed), 40):
            both.run(*mixed[at : at + 40])
            both.check()
        for one in frames:
            both.run(one, one, one)
        both.check()
        steady += both.steady
    assert steady


def test_numbers_of_refused_reports(both: Both) -> None:
    """Reports of one number, some of them refused behind their headers, in any order and from the first on."""
    named = {vector["name"]: vector for vectors in differ.by_options(differ.VECTORS).values() for vector in vectors}
    names = ("v10_all8_3hop", "payload_hopml_4_for_dc00", "payload_hopml_0", "report_len_over_payload", "shim_len_2")
    frames = [bytes.fromhex(named[name]["packet"]) for name in names]
    config = dataclasses.replace(Config.from_options(named[names[0]]["options"]), **SIZES, keepalive=0.0)
    for some in itertools.product(frames, repeat=3):
        both.start(config)
        both.run(*some)
        both.check()


BITMAPS = (FULL, 0x8000, 0xFF00, 0xE000, 0x9000, 0xFD80, 0xAC00, 0x8C00, 0xD100, 0x2000, 0x7100, 0xB101, 0xF301, 0xFFFF)
NEAR, ANY = (0, 50, 50, 50, FAR), (0, 50, FAR, 2**31, NONE32)
"""Thresholds: those with which there is a short way, and others."""
MOVES = (*[1] * 12, 0, 0, 2, 5, 70, -1, -2, -63, -64, -65, 65_536, 65_537, 2**24, 2**24 + 1, 2**31)
"""By how much a sequence number is another than the last."""
SOURCES = ("192.0.2.1", "192.0.2.77", "2001:db8::1")


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Every option that changes what a packet is or what is news."""
    thresholds = draw(st.sampled_from([NEAR, NEAR, NEAR, NEAR, ANY]))
    more: dict[str, Any] = {f"{what}_threshold": draw(st.sampled_from(thresholds)) for what in WATCHED}
    return dataclasses.replace(
        draw(strategies.configs()), ring_size=CONFIG.ring_size, max_flows=CONFIG.max_flows,
        event_mode=draw(st.sampled_from(["threshold"] * 7 + ["interval"])),
        keepalive=draw(st.sampled_from([0.0, 0.0, 3600.0])), **more,
    )  # fmt: skip


WATCHED = {
    "hop_latency": "hop_latency", "queue_occupancy": "queue_occupancy", "tx_utilization": "egress_port_tx_utilization",
    "flow_latency": "hop_latency",
}  # fmt: skip


def near(config: Config, field: str) -> list[int | None]:
    """Values of a field that are at, below and above what decides."""
    out: list[int | None] = [None, 0, 1, 2**31 - 1, 2**31, NONE32 - 1, USUAL[field]]
    for what, name in WATCHED.items():
        if name == field:
            threshold = getattr(config, f"{what}_threshold")
            out += [max(0, USUAL[field] + by) for by in (threshold, -threshold, threshold + 1, -threshold - 1)]
    return out


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Ways to write a report, most of them plain; of few flows and few exporters."""
    flow = draw(st.sampled_from(list(FLOWS)))
    inner = draw(st.sampled_from(TAGS))
    odd = draw(st.integers(0, 7)) == 0
    source = draw(st.sampled_from(SOURCES))
    return Shape(
        version=draw(st.sampled_from(["1.0", "1.0", "2.x", "1.0 as 0", "0.5"] if odd else ["1.0", "1.0", "2.x"])),
        bitmap=draw(st.sampled_from(BITMAPS) | st.integers(1, 0xFFFF)) if odd else draw(st.sampled_from(BITMAPS)),
        source=source,
        flow=FLOWS[flow],
        hw_id=draw(st.sampled_from([0, 0, 0, 63])),
        nproto="ethernet" if inner else draw(st.sampled_from(["ethernet", f"ipv{flow[0]}"])),
        inner_vlans=inner,
        outer_vlans=draw(st.sampled_from(TAGS)),
        outer_options=b"\x01" * 4 if odd and ":" not in source else b"",
        tcp_options=b"\x01" * 4 if odd and flow[1] == 6 else b"",
        payload=draw(st.sampled_from([b"", b"\0" * 40, b"\x01" * 9])),
        tracked_flow=draw(st.booleans()),
    )


FIELDS = ("hop_latency", "queue_occupancy", "egress_port_tx_utilization", "switch_id", "egress_port_id", "queue_id",
          "ingress_timestamp", "egress_timestamp")  # fmt: skip
IDS: Mapping[str, tuple[int | None, ...]] = {
    "switch_id": (None, 1, 2, 99, NONE32 - 1),
    "egress_port_id": (None, 0, 2, 7, 2**16 - 2),
    "queue_id": (None, 0, 3, 4, 254),
    "ingress_timestamp": (None, 0, 10_000, NONE32 - 1),
    "egress_timestamp": (None, 0, 10_900, NONE32 - 1),
}


@dataclasses.dataclass
class Flow:
    """One that is reported: how, and what each hop says."""

    shape: Shape
    hops: int
    values: Values


@dataclasses.dataclass(frozen=True)
class Step:
    """What happens next: frames that come in, or another config, or a long time without news."""

    frames: tuple[bytes, ...] = ()
    config: Config | None = None
    silence: bool = False


@st.composite
def histories(draw: st.DrawFn) -> tuple[Config, list[Step]]:
    """A config, and what comes then: mostly reports as those before, of few flows, and all else in between."""
    config = first = draw(configs())
    flows = [
        Flow(draw(shapes()), draw(st.sampled_from([1, 2, 3, 3, 6, 15, 16])), {}) for _ in range(draw(st.integers(1, 3)))
    ]
    numbers = dict.fromkeys(SOURCES, draw(st.sampled_from([0, 0, 1, 1000, 2**31 - 2, 2**32 - 3])))
    counting = draw(st.integers(0, 7)) > 0
    steps: list[Step] = []
    for _ in range(draw(st.integers(5, 40))):
        kind = draw(st.integers(0, 59))
        if kind == 0:
            changed = draw(configs())
            names = ["event_mode", "keepalive", *(f"{what}_threshold" for what in WATCHED)]
            config = dataclasses.replace(config, **{name: getattr(changed, name) for name in names})
            steps.append(Step(config=config))
            continue
        if kind == 1:
            steps.append(Step(silence=True))
            continue
        flow = draw(st.sampled_from(flows))
        more: dict[str, Any] = {}
        if kind == 2:
            more = draw(st.sampled_from([{"congested_queue": True}, {"dropped": True}]))
        elif kind == 3:
            more = {"local_hop": {"queue_id": 3, "queue_occupancy": draw(st.sampled_from([0, 500, 2**24 - 1]))}}
        elif kind == 4:
            flow.hops = draw(st.sampled_from([0, 1, 2, 3, 15, 16, 17, 20]))
        elif kind == 5:
            flow.shape = dataclasses.replace(draw(shapes()), flow=flow.shape.flow, nproto="ethernet", tcp_options=b"")
        values = dict(flow.values)
        if 6 <= kind < 25 and flow.hops:
            for _ in range(draw(st.integers(1, 3))):
                field = draw(st.sampled_from(FIELDS[:3] if kind < 21 else FIELDS))
                values[draw(st.integers(0, flow.hops - 1)), field] = draw(
                    st.sampled_from(IDS.get(field) or near(config, field))
                )
            if kind % 2:
                flow.values = values
        if kind == 25:
            flow.values = {}
        own_words = stride(config, flow.shape)
        hops = min(flow.hops, strategies.LARGEST_STACK // own_words) if own_words else 0
        source = flow.shape.source
        if counting:
            move = draw(st.sampled_from(MOVES))
            numbers[source] = (numbers[source] + move) % 2**32
        else:
            numbers[source] = 0
        one = written(config, flow.shape, hops, values, sequence_number=numbers[source], **more)
        if kind == 26:
            one = draw(strategies.nearly(config))
        steps.append(Step(frames=(one,) * draw(st.sampled_from([1, 1, 2, 3]))))
        if counting and draw(st.integers(0, 19)) == 0:
            numbers[source] = draw(st.sampled_from([0, 1, 2**32 - 1, 5000]))
    return first, steps


def fall_silent(datapath: Datapath) -> None:
    """As if nothing of any flow had been told for two hours."""
    state = datapath.state()
    for key, flow in zip(state.flow_keys, state.flows, strict=True):
        aged = np.array(flow)
        aged["told"] -= np.uint32(7200 * 10**9 >> 20)
        set_flow(datapath, np.array(key), aged)


def live(both: Both, config: Config, steps: list[Step]) -> None:
    """Both go through a history, and are the same after each step."""
    both.start(config)
    for step in steps:
        if step.config is not None:
            both.apply(step.config)
        if step.silence:
            fall_silent(both.short)
            fall_silent(both.long)
        both.run(*step.frames)
        both.check()


@settings(max_examples=200, deadline=None)
@given(history=histories())
def test_any_history(programs: Both, history: tuple[Config, list[Step]]) -> None:
    """Reports of few flows, whatever changes from one to the next, leave the same behind on both ways."""
    with on_one_cpu():
        live(programs, *history)


def test_a_missing_value_leaves_the_last(both: Both) -> None:
    """An occupancy that is missing now and then does not overwrite the one before, whatever else a stack holds."""
    for bitmap in (FULL, 0x9000, 0xF000):
        both.start(CONFIG)
        usual, without = (written(CONFIG, Shape(bitmap=bitmap), 2, {(1, "queue_occupancy"): v}) for v in (500, None))
        both.run(usual, usual, without)
        both.check()
        assert (both.short.state().queues["value"][1:] == 500).all()


def test_a_hop_without_an_id_is_nobodys(both: Both) -> None:
    """What a switch without an id says of its ports and queues is nobody's, however small it is."""
    small: Values = {(0, name): 0 for name in ("queue_occupancy", "egress_port_tx_utilization")}
    usual = written(CONFIG, Shape(), 2, {**small, (0, "switch_id"): None})
    both.run(usual, usual, usual)
    both.check()
    assert not both.short.state().queue_statistics["occupancy_max"][0]


def test_no_hop_is_left_out_when_the_short_way_is_closed(both: Both) -> None:
    """A report leaves the short way in the middle, and then there is none: the next ones are counted whole."""
    usual, other = (written(CONFIG, Shape(), 3, {(2, "hop_latency"): value}) for value in (1000, 9000))
    both.run(usual, usual, other)
    both.apply(dataclasses.replace(CONFIG, event_mode="interval"))
    both.run(usual, other, usual)
    both.check()
    assert totals(both.short.state())[0] == 6 * 3


def test_a_stack_that_is_too_short(both: Both) -> None:
    """Words that hops of a steady flow cannot be made of are refused, also where Hop ML counts bits (ONOS)."""
    config = dataclasses.replace(CONFIG, profile="onos")
    for bitmap in (0x8200, 0xF300):
        both.start(config)
        usual = written(config, Shape(bitmap=bitmap, payload=bytes(40)), 1)
        both.run(usual, usual)
        at = usual.index(struct.pack("!I", bitmap << 16)) - 8 + 2  # the shim's length
        both.run(usual[:at] + bytes([usual[at] - 1]) + usual[at + 1 :])
        both.check()
        assert both.steady == 1


DAMAGED = {
    "full": Shape(),
    "full, unmarked payload": Shape(payload=b"\0" * 64),
    "path": Shape(bitmap=0x8000),
    "latencies": Shape(bitmap=0xE000, flow=FLOWS[4, 6], nproto="ipv4"),
    "all 1.0 has": Shape(bitmap=0xFF01, source="2001:db8::9", flow=FLOWS[6, 6]),
    "all 2.x has": Shape("2.x", 0xFF81, inner_vlans=(5,), outer_vlans=(7,)),
    "2.x full": Shape("2.x", FULL, nproto="ipv6", flow=FLOWS[6, 17]),
    "2.x path": Shape("2.x", 0x8000, outer_vlans=(5, 6)),
    "as ONOS": Shape("1.0 as 0", 0xBC00, inner_vlans=(5, 6)),
}


DAMAGES = [
    (name, profile, marked)
    for name, profile, marked in itertools.product(DAMAGED, PROFILES, (True, False))
    if profile == "spec" or (marked and DAMAGED[name].version != "2.x")  # INT 2.x is the same to all
]


@pytest.mark.parametrize(("name", "profile", "marked"), DAMAGES)
def test_every_byte(both: Both, name: str, profile: str, marked: bool) -> None:
    """Each byte of a report of a steady flow made other values, each time between reports as they were."""
    config = dataclasses.replace(CONFIG, profile=profile, int_dscp=strategies.MARK if marked else None)
    both.start(config)
    chance = random.Random(1)
    usual = written(config, DAMAGED[name], 2)
    both.run(usual)
    assert both.ran_steady(usual, usual) == 2
    for at in range(len(usual)):
        turned = {usual[at] ^ 1 << bit for bit in range(8)}
        near_by = {(usual[at] + by) % 256 for by in (-2, -1, 1, 2, 3, 4)}
        for value in sorted(turned | near_by | {0, 0x45, 0x60, 255, *chance.sample(range(256), 6)}):
            both.run(usual[:at] + bytes([value]) + usual[at + 1 :], usual)
        both.check()
    for end in range(14, len(usual)):
        both.run(usual[:end], usual)
        if end > 42:
            both.run(wire.fit_lengths(usual[:end]), usual)
        both.run(usual + b"\0" * (end % 7 + 1), usual)
    both.check()


# --- sequence numbers, with the lock and without ----------------------------------------------------------------------


def streams(chance: random.Random, count: int) -> list[int]:
    """At least so many sequence numbers of 32 bits: long runs, and between them all that ends or interrupts one."""
    at = chance.choice([0, 1, 1000, 2**31 - 50, 2**32 - 300])
    numbers: list[int] = [at]
    while len(numbers) < count:
        kind = chance.randrange(12)
        if kind == 0:
            numbers += [at - chance.randrange(70) for _ in range(chance.randrange(1, 5))]
        elif kind == 1:
            numbers += [at] * chance.randrange(1, 5)
        elif kind == 2:
            at += chance.choice([2, 3, 64, 65, 66, 1000, 65_536, 65_537, 2**24, 2**24 + 1])
            numbers.append(at)
        elif kind == 3:
            numbers.append(at - chance.choice([63, 64, 65, 100, 5000, 2**20]))
        elif kind == 4:
            numbers += [at + 2, at + 1]
            at += 2
        elif kind == 5 and chance.random() < 0.3:
            at = chance.choice([0, 1, 7, 2**32 - 2, 3_000_000_000])
            numbers.append(at)
        elif kind == 6 and chance.random() < 0.3:
            numbers += [0] * chance.randrange(1, 4)
        elif kind == 7:
            numbers += [at + 1 + by for by in chance.sample(range(20), 20)]
            at += 20
        length = chance.choice([1, 2, 5, 63, 64, 65, 66, 200])
        numbers += range(at + 1, at + 1 + length)
        at += length
    return [number % 2**32 for number in numbers]


def counts_of(datapath: Datapath) -> Counts:
    """Of the only source."""
    (source,) = datapath.state().sources
    return Counts(*(int(source[name]) for name in SOURCE_COUNTS))


@pytest.mark.parametrize("seed", range(12))
def test_counts_at_any_moment(both: Both, seed: int) -> None:
    """Whenever the counts are read, in the middle of a run too, they are the model's: on both ways, and where reports
    that are news, or have nothing to tell, are in between."""
    chance = random.Random(seed)
    numbers = streams(chance, 3000)
    frames = numbered(written(CONFIG, Shape(), 2), numbers)
    for at in chance.sample(range(len(frames)), len(frames) // 50):  # these go the long way
        odd = written(CONFIG, Shape(), chance.choice([1, 2, 3]), {(0, "hop_latency"): chance.randrange(10_000)})
        (frames[at],) = numbered(odd, [numbers[at]])
    stops = sorted({*chance.sample(range(1, len(frames)), 12), len(frames)})
    done = 0
    for stop in stops:
        both.run(*frames[done:stop])
        done = stop
        both.check()
        assert counts_of(both.short) == model(numbers[:stop])
    assert both.steady > len(frames) // 2


def test_counts_of_an_exporter_that_never_counts(both: Both) -> None:
    """Reports with number 0 for ever are received, and then counted as soon as others come."""
    usual = written(CONFIG, Shape(), 2)
    for numbers in ([0] * 500, [0] * 300 + [1, 2, 3, 3], [0] * 10 + [5, 6, 0, 7], [0] * 3 + [2**32 - 1, 0, 1, 2]):
        both.start(CONFIG)
        for at, one in enumerate(numbered(usual, numbers), 1):
            both.run(one)
            if at % 50 == 0 or at > len(numbers) - 8:
                both.check()
                assert counts_of(both.short) == model(numbers[:at])


@pytest.mark.parametrize("lag", [0, 30, 100, 2000])
def test_two_strands_at_any_moment(both: Both, lag: int) -> None:
    """An exporter that begins anew, truly or as it seems: its counts are the model's while that is not decided."""
    ahead = list(range(1, 5001))
    numbers = [*ahead[:3000], *range(1, 200), *ahead[3000 - lag : 3100], *range(10, 4400), *ahead[3100:]]
    frames = numbered(written(CONFIG, Shape(), 1), numbers)
    for at in range(0, len(frames), 500):
        both.run(*frames[at : at + 500])
        both.check()
        assert counts_of(both.short) == model(numbers[: at + 500])


def test_the_longest_run(both: Both) -> None:
    """A run of numbers longer than a source has room for is counted on, without a report less."""
    datapath = both.short
    base = written(CONFIG, Shape(), 1)
    for one in numbered(base, range(1, 11)):
        datapath.run(one)
    longest = 2**30  # RUN_LONGEST of bpf/detect.h
    entry = kernel.map_items(map_fd(datapath, "sources"), np.dtype("<u4"), SOURCE, 2, array=True)[1][1:].copy()
    before = int(datapath.state().sources["received"][0])
    length = int(entry["run"][0]) >> 32
    assert length > 1
    entry["run"] += np.uint64(longest - 5 - length << 32)  # as if so many more had come
    kernel.map_update(map_fd(datapath, "sources"), struct.pack("=I", 1), entry.tobytes())
    for number, one in enumerate(numbered(base, [*range(11, 31), 31, 31, 33, 32, 30, 40]), 1):
        datapath.run(one)
        assert datapath.state().sources["received"][0] == before + longest - 5 - length + number
    assert counts_of(datapath)[1:] == Counts(0, lost=6, reordered=1, duplicated=2)[1:]


# --- several CPUs -----------------------------------------------------------------------------------------------------


def totals(state: State) -> tuple[int, int]:
    """Hops in all histograms, and the sum of their latencies."""
    return int(state.port_statistics["buckets"].sum()), int(state.port_statistics["latency_sum"].sum())


@two_cpus
@pytest.mark.parametrize("bitmap", [FULL, 0x8000, 0xE000])
@pytest.mark.parametrize("flows", [1, 7])
def test_one_source_over_all_cpus(programs: Both, flows: int, bitmap: int) -> None:
    """Consecutive numbers of one source dealt to the CPUs: each is received once, none is lost or doubled, and the
    histograms and outcomes have every report."""
    programs.start(CONFIG)
    datapath = programs.short
    shapes = [Shape(bitmap=bitmap, flow=f"10.0.0.1:{5000 + i}>10.0.0.2:1/17") for i in range(flows)]
    bases = [written(CONFIG, shape, 3) for shape in shapes]
    first = [one for base in bases for one in numbered(base, [1])]
    for number, one in enumerate(first):  # all is known before the CPUs begin
        datapath.run(numbered(one, [1 + number])[0])
    each = 10_000
    start = 1 + flows

    def work(cpu: int) -> None:
        numbers = range(start + cpu, start + cpus * each, cpus)
        for at, number in enumerate(numbers):
            datapath.run(numbered(bases[at % flows], [number])[0])

    cpus = all_cpus()
    assert on_all_cpus(work) == cpus
    datapath.run(numbered(bases[0], [start + cpus * each])[0])  # what was far behind is known for late now
    total = flows + cpus * each + 1
    state = datapath.state()
    sources = state.sources[state.sources["received"] > 0]
    (source,) = sources
    assert {name: int(source[name]) for name in SOURCE_COUNTS if name != "reordered"} == {
        "received": total, "lost": 0, "duplicated": 0, "restarted": 0,
    }  # fmt: skip
    assert int(state.counters["outcomes"][0]) == int(state.counters["outcomes"].sum()) == total
    assert totals(state) == (3 * total, 3000 * total if bitmap & 0x2000 else 0)
    assert programs.steady == total - flows
    assert len(datapath.drain()) == state.counters["events"] == flows


def all_cpus() -> int:
    """How many on_all_cpus() will use."""
    return len(os.sched_getaffinity(0))


@two_cpus
@pytest.mark.parametrize("recent", [True, False], ids=["of the last numbers", "of one long ago"])
def test_duplicates_on_one_cpu_while_another_goes_on(programs: Both, recent: bool) -> None:
    """One CPU repeats what was there, another goes on in sequence: nothing is lost, and each copy is either a duplicate
    or, if it is too old for that to be known, late."""
    programs.start(CONFIG)
    datapath = programs.short
    base = written(CONFIG, Shape(), 2)
    repeat, times = 500, 100
    frames = numbered(base, range(1, 20_002))
    datapath.run(frames[0])
    done = 0

    def work(cpu: int) -> None:
        nonlocal done
        if cpu == 0:
            for _ in range(times):
                datapath.run(frames[done if recent else 0], repeat=repeat)
        elif cpu == 1:
            for at in range(1, len(frames)):
                datapath.run(frames[at])
                done = at

    on_all_cpus(work)
    datapath.run(numbered(base, [len(frames) + 1])[0])
    state = datapath.state()
    (source,) = state.sources[state.sources["received"] > 0]
    total = len(frames) + 1 + times * repeat
    assert source["received"] == total
    assert source["duplicated"] + source["reordered"] == times * repeat
    assert (source["lost"], source["restarted"]) == (0, 0)
    assert totals(state) == (2 * total, 2000 * total)
    assert int(state.counters["outcomes"][0]) == int(state.counters["outcomes"].sum()) == total
    assert programs.steady == total - 1


@two_cpus
def test_news_and_steady_reports_on_all_cpus(programs: Both) -> None:
    """Reports in which something is news on one CPU and in which nothing is on the others, of one source and one port:
    all are counted, once."""
    programs.start(CONFIG)
    datapath = programs.short
    each = 1000
    cpus = all_cpus()
    flows = [Shape(flow=f"10.0.0.1:{5000 + i}>10.0.0.2:1/17") for i in range(cpus)]
    bases = [[written(CONFIG, shape, 2, {(0, "hop_latency"): value}) for value in (1000, 2000)] for shape in flows]
    for number, (usual, _) in enumerate(bases):
        datapath.run(numbered(usual, [1 + number])[0])

    def work(cpu: int) -> None:
        for at in range(each):
            one = bases[cpu][at % 2 if cpu == 0 else 0]
            datapath.run(numbered(one, [1 + cpus + at * cpus + cpu])[0])

    on_all_cpus(work)
    datapath.run(numbered(bases[-1][0], [1 + cpus + each * cpus])[0])
    total = cpus + each * cpus + 1
    state = datapath.state()
    (source,) = state.sources[state.sources["received"] > 0]
    assert (source["received"], source["lost"], source["duplicated"], source["restarted"]) == (total, 0, 0, 0)
    assert totals(state) == (2 * total, 2000 * total + each // 2 * 1000)
    assert int(state.counters["outcomes"][0]) == total
    assert [int(state.counters[name]) for name in ("events", "events_lost")] == [cpus + each - 1, 0]
    assert len(datapath.drain()) == cpus + each - 1
