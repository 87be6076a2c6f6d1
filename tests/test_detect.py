"""What is told, and what is not: bpf/detect.h and the telling half of bpf/collector.c, driven by frames."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import wire
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.layout import CELL, HEAD_CELLS, FlowFlag

from . import batches
from .frames import NONE32, Datapaths, frame, news, numbered, quiet, set_flow, told
from .needs import needs_root

pytestmark = needs_root

CONFIG = Config(ring_size=1, max_flows=4096)
TRANSPORTS = ("ring", "perf")
Value = int | None


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Config:
    """CONFIG with each way up."""
    return dataclasses.replace(CONFIG, event_transport=request.param)


# --- the numbers that are watched -------------------------------------------------------------------------------------


def _two_hops(config: Config, value: Value, switch: int) -> bytes:
    half = None if value is None else value // 2
    return frame(
        config,
        {"switch_id": switch, "hop_latency": half},
        {"switch_id": switch + 1, "hop_latency": None if value is None or half is None else value - half},
    )


@dataclasses.dataclass(frozen=True)
class Watched:
    """One number: the option that sets its threshold, what its news is called, a frame that carries it, its bits."""

    option: str
    word: str
    frame: Callable[[Config, Value, int], bytes]
    bits: int


WATCHED = {
    "hop latency": Watched(
        "hop_latency_threshold",
        "hop_latency 0",
        lambda c, v, s: frame(c, {"switch_id": s, "hop_latency": v}),
        32,
    ),
    "flow latency": Watched("flow_latency_threshold", "flow_latency", _two_hops, 33),
    "queue occupancy": Watched(
        "queue_occupancy_threshold",
        "queue_occupancy 0",
        lambda c, v, s: frame(c, {"switch_id": s, "queue_id": 5, "queue_occupancy": v}),
        24,
    ),
    "tx utilization": Watched(
        "tx_utilization_threshold",
        "tx_utilization 0",
        lambda c, v, s: frame(c, {"switch_id": s, "egress_port_id": 3, "egress_port_tx_utilization": v}),
        32,
    ),
    "local queue occupancy": Watched(
        "queue_occupancy_threshold",
        "local_queue_occupancy",
        lambda c, v, s: frame(c, switch_id=s, local={"queue_id": 5, "queue_occupancy": 2**24 - 1 if v is None else v}),
        24,
    ),
    "local tx utilization": Watched(
        "tx_utilization_threshold",
        "local_tx_utilization",
        lambda c, v, s: frame(
            c, switch_id=s, local={"egress_port_id": 3, "egress_port_tx_utilization": NONE32 if v is None else v}
        ),
        32,
    ),
}


@pytest.fixture(params=WATCHED)
def watched(request: pytest.FixtureRequest) -> Watched:
    """Each number that is watched."""
    return WATCHED[request.param]


def values_told(datapath: Datapath, config: Config, watched: Watched, values: Sequence[Value], switch: int) -> list:
    """Which of these values, reported one after the other, were told as news of the number."""
    answers = told(datapath, *(watched.frame(config, value, switch) for value in values))
    return [value for value, answer in zip(values, answers, strict=True) if answer and watched.word in answer]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([100, 150, 50, 100], [100], id="within the threshold"),
        pytest.param([100, 151, 100], [100, 151, 100], id="beyond it, up and down"),
        pytest.param([100, 130, 151, 180, 201, 202], [100, 151, 202], id="small steps add up"),
        pytest.param([100, 90, 60, 49, 0], [100, 49], id="small steps down add up"),
        pytest.param([0, 50, 51], [0, 51], id="from zero"),
        pytest.param([100, None, 120, None, 160], [100, 160], id="no value is never told"),
        pytest.param([None, None, 100], [100], id="the first value after none"),
    ],
)
def test_threshold_mode(datapaths: Datapaths, watched: Watched, values: list[Value], expected: list[Value]) -> None:
    """A number is told when it is further than the threshold from what was told of it last."""
    config = quiet(CONFIG, **{watched.option: 50})
    assert values_told(datapaths(config), config, watched, values, switch=4) == expected


@pytest.mark.parametrize(
    ("width", "values", "expected"),
    [
        pytest.param(50, [100, 149, 120, 100], [100], id="the same interval"),
        pytest.param(50, [100, 149, 150, 149, 99], [100, 150, 149, 99], id="the next interval, however near"),
        pytest.param(50, [0, 49, 50], [0, 50], id="from zero"),
        pytest.param(50, [100, None, 149, 150], [100, 150], id="no value is never told"),
        pytest.param(0, [6, 6, 7, 8, 7], [6, 7, 8, 7], id="without a width any change"),
    ],
)
def test_interval_mode(
    datapaths: Datapaths, watched: Watched, width: int, values: list[Value], expected: list[Value]
) -> None:
    """A number is told when it is in another interval of the width than what was told of it last."""
    config = quiet(CONFIG, event_mode="interval", **{watched.option: width})
    assert values_told(datapaths(config), config, watched, values, switch=4) == expected


_switches = itertools.count(1000, 2)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), mode=st.sampled_from(["threshold", "interval"]), name=st.sampled_from(sorted(WATCHED)))
def test_any_values(datapaths: Datapaths, data: st.DataObject, mode: str, name: str) -> None:
    """Whatever is reported, exactly that is told which the definition of the mode says is news."""
    watched = WATCHED[name]
    most = 2**watched.bits - 2 if watched.bits != 33 else 2 * (2**32 - 2)
    limit = data.draw(st.one_of(st.integers(0, 100), st.integers(0, NONE32)))
    near = st.integers(0, min(3 * limit + 5, most))
    values = data.draw(st.lists(st.one_of(st.none(), near, st.integers(0, most)), max_size=12))
    config = quiet(CONFIG, event_mode=mode, **{watched.option: limit})

    expected: list[int] = []
    for value in values:
        if value is None:
            continue
        if not expected or (
            value // max(limit, 1) != expected[-1] // max(limit, 1)
            if mode == "interval"
            else abs(value - expected[-1]) > limit
        ):
            expected.append(value)
    assert values_told(datapaths(config), config, watched, values, switch=next(_switches)) == expected


def test_thresholds_of_a_running_program(datapaths: Datapaths, watched: Watched) -> None:
    """Another threshold or mode is what the next packet is judged by."""
    config = quiet(CONFIG, **{watched.option: 50})
    datapath = datapaths(config)
    assert values_told(datapath, config, watched, [100, 140], 4) == [100]
    datapath.apply(quiet(config, **{watched.option: 39}))
    assert values_told(datapath, config, watched, [140, 150], 4) == [140]
    datapath.apply(quiet(config, event_mode="interval", **{watched.option: 10}))
    assert values_told(datapath, config, watched, [149, 150], 4) == [150]


def test_each_hop_is_news_by_itself(datapaths: Datapaths) -> None:
    """An event says which hops it is for, up to the last that is kept."""
    config = quiet(CONFIG, hop_latency_threshold=50, queue_occupancy_threshold=50, tx_utilization_threshold=50)
    hops = [
        {"switch_id": i, "egress_port_id": i, "queue_id": i, "hop_latency": 100, "queue_occupancy": 100,
         "egress_port_tx_utilization": 100}
        for i in range(1, 17)
    ]  # fmt: skip
    datapath = datapaths(config)
    whats = ("hop_latency", "queue_occupancy", "tx_utilization")
    (first,) = told(datapath, frame(config, *hops))
    assert first == {"new_flow", "flow_latency"} | {f"{what} {i}" for what in whats for i in range(16)}
    hops[2] |= {"hop_latency": 200}
    hops[15] |= {"queue_occupancy": 200}
    hops[0] |= {"egress_port_tx_utilization": 200}
    (second,) = told(datapath, frame(config, *hops))
    assert second == {"hop_latency 2", "queue_occupancy 15", "tx_utilization 0"}
    assert told(datapath, frame(config, *hops)) == [None]


def test_a_port_is_told_once_whoever_goes_through_it(datapaths: Datapaths) -> None:
    """Queues and ports belong to switches: what one flow told of them is no news of another flow."""
    config = quiet(CONFIG, queue_occupancy_threshold=50, tx_utilization_threshold=50)
    hop = {"switch_id": 4, "egress_port_id": 3, "queue_id": 5, "queue_occupancy": 1, "egress_port_tx_utilization": 1}
    one, other = (frame(config, hop, flow=f"10.0.0.{i}:1>10.0.0.9:1/17") for i in (1, 2))
    assert told(datapaths(config), one, other) == [{"new_flow", "queue_occupancy 0", "tx_utilization 0"}, {"new_flow"}]


def test_a_hop_latency_belongs_to_a_flow(datapaths: Datapaths) -> None:
    """Each flow's hop latencies are compared with its own."""
    config = quiet(CONFIG, hop_latency_threshold=50)
    one, other = (
        [
            frame(config, {"switch_id": 4, "hop_latency": v}, flow=f"10.0.0.{i}:1>10.0.0.9:1/17")
            for v in (base, base + 9)
        ]
        for i, base in ((1, 100), (2, 500))
    )
    assert told(datapaths(config), one[0], other[0], one[1], other[1])[2:] == [None, None]


# --- flows and paths --------------------------------------------------------------------------------------------------

FLOWS = (
    "10.0.0.1:5000>10.0.0.2:5000/17", "10.0.0.2:5000>10.0.0.1:5000/17", "10.0.0.1:5001>10.0.0.2:5000/17",
    "10.0.0.1:5000>10.0.0.2:5001/17", "10.0.0.1:5000>10.0.0.2:5000/6", "10.0.0.3:5000>10.0.0.2:5000/17",
    "a00:1:::5000>a00:2:::5000/17", "2001:db8::1:5000>2001:db8::2:5000/17", "2001:db8::1:5000>2001:db8::2:5000/6",
)  # fmt: skip


def test_a_new_flow_is_told(datapaths: Datapaths) -> None:
    """The first report of each flow is told, with INT or without; the next one is not."""
    config = quiet(CONFIG)
    datapath = datapaths(config)
    frames = [frame(config, flow=flow) for flow in FLOWS]
    assert told(datapath, *frames) == [{"new_flow"}] * len(FLOWS)
    assert told(datapath, *frames) == [None] * len(FLOWS)


def test_what_is_no_flow_is_not_told(datapaths: Datapaths) -> None:
    """A report around a packet that is not IP is counted, and no news."""
    config = quiet(CONFIG)
    datapath = datapaths(config)
    assert told(datapath, around_arp(config), around_arp(config)) == [None, None]
    assert datapath.state().sources["received"].tolist() == [2]


def around_arp(config: Config, **more: Any) -> bytes:
    """A frame with a report around a packet that is not IP."""
    return wire.encode(batches.report(**more) | {"flow": wire.no_flow([])}, config)


def path(config: Config, *switches: int, **more: Any) -> bytes:
    """A frame with a stack of these switches."""
    return frame(config, *({"switch_id": switch} for switch in switches), **more)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([4, 5, 6], [4, 7, 6], id="another switch"),
        pytest.param([4, 5, 6], [5, 4, 6], id="another order"),
        pytest.param([4, 5, 6], [4, 5], id="fewer hops"),
        pytest.param([4, 5], [4, 5, 6], id="more hops"),
        pytest.param(list(range(1, 17)), [*range(1, 16), 99], id="the last that is kept"),
        pytest.param(list(range(1, 19)), list(range(1, 20)), id="more hops than are kept"),
    ],
)
def test_a_path_change_is_told(datapaths: Datapaths, before: list[int], after: list[int]) -> None:
    """Another path is told when it begins, when the old one is back, and not in between."""
    config = quiet(CONFIG)
    one, other = path(config, *before), path(config, *after)
    answers = told(datapaths(config), one, one, other, other, one, one)
    assert answers == [{"new_flow"}, None, {"path"}, None, {"path"}, None]


def test_what_is_no_path_change(datapaths: Datapaths) -> None:
    """Another port of the same switch and reports without a stack change no path; the first stack of a flow that was
    told without one does."""
    config = quiet(CONFIG)
    ports = [frame(config, {"switch_id": 4, "egress_port_id": port}) for port in (1, 2)]
    without = frame(config)
    assert told(datapaths(config), without, ports[0], ports[1], without, ports[0]) == [
        {"new_flow"}, {"path"}, None, None, None,
    ]  # fmt: skip


def test_a_new_hop_tells_its_latency(datapaths: Datapaths) -> None:
    """After a path change a hop's latency is not compared with another switch's."""
    config = quiet(CONFIG, hop_latency_threshold=50)
    frames = [
        frame(config, {"switch_id": 4, "hop_latency": 100}, {"switch_id": last, "hop_latency": 100}) for last in (5, 6)
    ]
    assert told(datapaths(config), *frames)[1] == {"path", "hop_latency 1"}


# --- keepalive, drops, congestion -------------------------------------------------------------------------------------

DEADLINE_S = 20
CLOCK_MONOTONIC_COARSE = 6  # linux/time.h


def test_keepalive(datapaths: Datapaths) -> None:
    """A flow that changes nothing is told again when the keepalive time is over, and not before."""
    config = quiet(CONFIG, keepalive=0.05)
    datapath = datapaths(config)
    one = path(config, 4, 5)
    datapath.run(one)
    begin = datapath.drain().reports["received_ns"][0]
    deadline = time.monotonic() + DEADLINE_S
    while not len(batch := datapath.drain()):
        assert time.monotonic() < deadline
        datapath.run(one)
    assert news(batch) == [{"keepalive"}]
    coarse_ns = time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9
    assert batch.reports["received_ns"][0] - begin >= 0.05e9 - coarse_ns


def test_keepalive_0_is_never(datapaths: Datapaths) -> None:
    """Without a keepalive time a flow that was told long ago is not told again; with one it is, at once."""
    config = quiet(CONFIG)
    datapath = datapaths(config)
    one = path(config, 4, 5)
    assert told(datapath, one) == [{"new_flow"}]
    state = datapath.state()
    flow = state.flows[0].copy()
    flow["told"] -= np.uint32(3600 * 10**9 >> 20)
    set_flow(datapath, state.flow_keys[0], flow)
    assert told(datapath, one) == [None]
    datapath.apply(dataclasses.replace(config, keepalive=0.05))
    assert told(datapath, one) == [{"keepalive"}]


def test_a_drop_is_told_each_time(datapaths: Datapaths) -> None:
    """Every report of a drop is told, also of a packet that has no flow."""
    config = quiet(CONFIG)
    datapath = datapaths(config)
    dropped = frame(config, dropped=True, local={"drop_queue_id": 1, "drop_reason": 71})
    assert told(datapath, dropped, dropped) == [{"new_flow", "dropped"}, {"dropped"}]
    without = around_arp(config, dropped=True)
    assert told(datapath, without, without) == [{"dropped"}, {"dropped"}]


def test_congestion_is_told_when_it_begins(datapaths: Datapaths) -> None:
    """A flow's congested queue is told once, and again after a report that had none; without a flow each time."""
    config = quiet(CONFIG)
    datapath = datapaths(config)
    calm, congested = frame(config), frame(config, congested_queue=True)
    answers = told(datapath, calm, congested, congested, calm, congested, congested)
    assert answers == [{"new_flow"}, {"congested_queue"}, None, None, {"congested_queue"}, None]
    without = around_arp(config, congested_queue=True)
    assert told(datapath, without, without) == [{"congested_queue"}] * 2


# --- no room, and both ways up ----------------------------------------------------------------------------------------


def fill(datapath: Datapath, config: Config) -> int:
    """Run drops until one finds no room; how many there were."""
    stack = [{"switch_id": i} for i in range(1, 17)]
    most = config.ring_size * 2**20 // ((HEAD_CELLS + 1) * CELL)
    one = frame(config, *stack, flow="10.9.9.9:9>10.9.9.8:9/17", dropped=True, sequence_number=0, source="192.0.2.9")
    small = frame(config, flow="10.9.9.9:9>10.9.9.8:9/17", dropped=True, sequence_number=0, source="192.0.2.9")
    runs = 0
    for filler in (one, small):  # small: the last of the room
        before = int(datapath.counters()["events_lost"])
        while int(datapath.counters()["events_lost"]) == before:
            assert runs < 2 * most
            for _ in range(16):  # not repeat=16: for a repeated run the kernel waits 20 ms until all CPUs know of it
                datapath.run(filler)
            runs += 16
    return runs


def run_without_room(datapath: Datapath, one: bytes) -> None:
    """Run a frame whose event is lost."""
    before = int(datapath.counters()["events_lost"])
    datapath.run(one)
    assert int(datapath.counters()["events_lost"]) == before + 1


@pytest.mark.usefixtures("one_cpu")
def test_events_that_find_no_room_are_counted(datapaths: Datapaths, transport: Config) -> None:
    """Without room every event is counted as lost, every other comes up, and the maps stay exact."""
    config = quiet(transport)
    datapath = datapaths(config)
    runs = fill(datapath, config)
    flows = [frame(config, {"switch_id": 4, "hop_latency": i}, flow=f"10.0.0.1:{i}>10.0.0.2:1/17") for i in range(100)]
    for one in numbered(flows[0], range(1, 101)):
        datapath.run(one)
    for one in flows:
        datapath.run(one)
    counters = datapath.counters()
    lost, events = int(counters["events_lost"]), int(counters["events"])
    assert lost >= 200 and lost + events == runs + 200
    assert len(datapath.drain()) == events
    state = datapath.state()
    assert len(state.flows) == 101
    received = dict(zip(state.sources["address"][:, 3].tolist(), state.sources["received"].tolist(), strict=True))
    assert received == {9: runs, 1: 200}
    place = int(np.flatnonzero(state.ports["switch_id"] == 4)[0])
    assert state.port_statistics["latency_sum"][place] == sum(range(100))
    assert state.drops.tolist() == [runs]


@pytest.mark.usefixtures("one_cpu")
def test_news_that_found_no_room_stays_news(datapaths: Datapaths, transport: Config) -> None:
    """What could not be told is told with the first report for which there is room again, though nothing changed."""
    config = quiet(
        transport, hop_latency_threshold=50, flow_latency_threshold=50, queue_occupancy_threshold=50,
        tx_utilization_threshold=50,
    )  # fmt: skip
    datapath = datapaths(config)
    hop = {"switch_id": 4, "egress_port_id": 3, "queue_id": 5, "hop_latency": 100, "queue_occupancy": 100,
           "egress_port_tx_utilization": 100}  # fmt: skip
    more = dict.fromkeys(("hop_latency", "queue_occupancy", "egress_port_tx_utilization"), 200)
    one, other = frame(config, hop), frame(config, hop | more, congested_queue=True)
    new = frame(config, flow="10.0.0.7:1>10.0.0.8:1/17")
    told(datapath, one)
    fill(datapath, config)
    run_without_room(datapath, other)
    run_without_room(datapath, new)
    datapath.drain()
    assert told(datapath, other, new, other, new) == [
        {"hop_latency 0", "queue_occupancy 0", "tx_utilization 0", "flow_latency", "congested_queue"},
        {"new_flow"}, None, None,
    ]  # fmt: skip


@pytest.mark.usefixtures("one_cpu")
def test_a_path_change_that_found_no_room_stays_news(datapaths: Datapaths, transport: Config) -> None:
    """A path change that could not be told is told with the first report for which there is room again."""
    config = quiet(transport)
    datapath = datapaths(config)
    told(datapath, path(config, 4, 5, 6))
    fill(datapath, config)
    run_without_room(datapath, path(config, 4, 7, 6))
    datapath.drain()
    assert told(datapath, path(config, 4, 7, 6), path(config, 4, 7, 6)) == [{"path"}, None]


@pytest.mark.usefixtures("one_cpu")
def test_local_news_that_found_no_room_stays_news(datapaths: Datapaths, transport: Config) -> None:
    """What a reporting switch said of itself, and could not be told, is told as soon as there is room."""
    config = quiet(transport, queue_occupancy_threshold=50)
    datapath = datapaths(config)
    one, other = (frame(config, local={"queue_id": 5, "queue_occupancy": v}) for v in (100, 200))
    told(datapath, one)
    fill(datapath, config)
    run_without_room(datapath, other)
    datapath.drain()
    assert told(datapath, other, other) == [{"local_queue_occupancy"}, None]


def test_both_ways_up_bring_the_same_records(datapaths: Datapaths) -> None:
    """Ring buffer and perf buffer bring up the same events, byte for byte but for the time."""
    chance = np.random.default_rng(1)
    config = quiet(CONFIG, hop_latency_threshold=5, tx_utilization_threshold=5, queue_occupancy_threshold=5)
    names = ("egress_port_id", "hop_latency", "queue_id", "queue_occupancy", "egress_port_tx_utilization",
             "ingress_timestamp", "egress_timestamp", "l2_ingress_port_id")  # fmt: skip
    frames = []
    for n in range(400):
        some = chance.random(len(names)) < 0.7
        hops = [
            {"switch_id": i} | {name: int(chance.integers(0, 200)) for name in np.array(names)[some]}
            for i in range(int(chance.integers(0, 20)))
        ]
        local = {"queue_id": 1, "queue_occupancy": int(chance.integers(0, 100))} if n % 3 == 0 else None
        frames.append(
            frame(
                config,
                *hops,
                local=local,
                flow=FLOWS[n % len(FLOWS)],
                sequence_number=n,
                dropped=n % 5 == 0,
                source="192.0.2.1" if n % 2 else "2001:db8::9",
                vlan_ids=[7] * (n % 3),
            )
        )
    ways = []
    for transport in TRANSPORTS:
        datapath = datapaths(dataclasses.replace(config, event_transport=transport))
        assert datapath.transport.name == transport
        for one in frames:
            datapath.run(one)
        batch = datapath.drain()
        assert len(batch) > 300
        for name in ("transport", "received_ns", "pad0", "pad1", "pad2", "pad3"):
            batch.reports[name] = 0
        ways.append(batch)
    ring, perf = ways
    flags = ring.reports["flags"]
    for name in ring.reports.dtype.names or ():
        if name not in ("flow_source", "flow_destination", "local"):
            np.testing.assert_array_equal(ring.reports[name], perf.reports[name], err_msg=name)
    assert flags.any()
    np.testing.assert_array_equal(ring.reports["flow_source"], perf.reports["flow_source"])
    np.testing.assert_array_equal(ring.hop_report, perf.hop_report)
    np.testing.assert_array_equal(ring.hop_index, perf.hop_index)
    np.testing.assert_array_equal(ring.hops, perf.hops)
    said_local = ring.reports["local_bitmap"] != 0
    np.testing.assert_array_equal(ring.reports["local"][said_local], perf.reports["local"][said_local])


def test_a_flow_that_was_told_is_marked(datapaths: Datapaths) -> None:
    """The map says of a flow that it was told, and that it has a path."""
    config = quiet(CONFIG)
    datapath = datapaths(config)
    told(datapath, path(config, 4))
    (flags,) = datapath.state().flows["flags"]
    assert flags & ~FlowFlag.GAPS == FlowFlag.PATH | FlowFlag.TOLD
