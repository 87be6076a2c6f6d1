"""Postcards in the kernel program: what counts as one, how a flow's switches get their places, what is told of them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intcollector import kernel, postcards, wire
from intcollector.batch import FLOW, Batch, flow_seen_ns, seen_fields
from intcollector.config import Config
from intcollector.datapath import TIME_UNITS, Datapath
from intcollector.layout import CELL, HEAD_CELLS, HOP, MAX_HOPS, FlowFlag, ReportFlag

from . import batches
from .frames import HASH, NONE32, Datapaths, frame, map_fd, news, quiet, set_flow, told
from .needs import needs_root

pytestmark = needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
NONE16, NONE64 = 2**16 - 1, 2**64 - 1
VERSIONS = ("0.5", "1.0", "2.0")
US = 1000
BASE = 3_000_000_000
"""An ingress timestamp of some packet, ns."""
FLOW_TEXT = "10.0.0.1:5000>10.0.0.2:5000/17"
DEADLINE_S = 30


def card(switch: int, stamp: int | None, *, version: str = "1.0", latency: int = 100, **more: Any) -> bytes:
    """A postcard's frame. stamp: ingress timestamp; None: 2.0 without one. more: port, queue, occupancy, and keys of a
    report."""
    local = {"ingress_port_id": 0, "egress_port_id": more.pop("port", 10 + switch % 1000)}
    local |= {"queue_id": more.pop("queue", 1), "queue_occupancy": more.pop("occupancy", 0)}
    said: dict[str, Any] = {"version": version, "switch_id": switch, "local_hop": local}
    if version == "2.0":
        said["ingress_timestamp"] = None
        if stamp is not None:
            local["ingress_timestamp"] = stamp
    else:
        assert stamp is not None
        said["ingress_timestamp"] = stamp % 2**32
    if version == "0.5":
        local["egress_timestamp"] = (said["ingress_timestamp"] + latency) % 2**32
    else:
        local["hop_latency"] = latency
    flow = more.pop("flow", FLOW_TEXT)
    report = batches.report(flow=flow or FLOW_TEXT, **(said | more))
    return wire.encode(report if flow else report | {"flow": None}, CONFIG)


def run(datapath: Datapath, *frames: bytes) -> None:
    for one in frames:
        datapath.run(one)


def the_flow(datapath: Datapath) -> np.ndarray:
    """The entry of the only flow: FLOW ()."""
    _, flows = kernel.map_items(map_fd(datapath, "flows"), HASH, FLOW, CONFIG.max_flows)
    (flow,) = flows
    return flow


def path(datapath: Datapath) -> list[int]:
    """The switches of the only flow, nearest the sink first."""
    flow = the_flow(datapath)
    assert flow["flags"] & FlowFlag.POSTCARDS
    _, places = postcards.of_flows(np.array([flow]), ())
    switches: list[int] = flow["hops"]["switch_id"][places].tolist()
    assert flow["hop_count"] == len(switches)
    return switches


def age(datapath: Datapath, seconds: float, switches: Sequence[int] | None = None) -> None:
    """As if the flow, or only these of its switches, had not been heard of for so much longer."""
    flow = the_flow(datapath).copy()
    of = flow["places"]["seen"] != 0
    if switches is None:
        for name, value in seen_fields(flow_seen_ns(flow) - int(seconds * 1e9)).items():
            flow[name] = value
    else:
        of &= np.isin(flow["hops"]["switch_id"], switches)
    flow["places"]["seen"][of] -= np.uint32((int(seconds * 1e9) >> 20 & ~3) % 2**32)
    set_flow(datapath, flow["key"], flow)


# --- one packet, several switches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("base", [BASE, 2**32 - 15 * US], ids=["", "across the wrap"])
@pytest.mark.parametrize("switches", [2, 3, 4])
def test_any_order_of_arrival_gives_one_path(datapaths: Datapaths, version: str, base: int, switches: int) -> None:
    """The postcards of one packet make the same path in whatever order they come, and the sum of their latencies."""
    for arrival in itertools.permutations(range(switches)):
        datapath = datapaths(CONFIG)
        run(datapath, *(card(i + 1, base + i * 10 * US, version=version, latency=100 + i) for i in arrival))
        assert path(datapath) == [*range(switches, 0, -1)], arrival
        flow = the_flow(datapath)
        assert flow["latency"] == sum(100 + i for i in range(switches))
        assert flow["reports"] == switches


def test_postcards_of_several_versions_make_one_path(datapaths: Datapaths) -> None:
    """Which version a switch reports by does not matter, nor who sends it on."""
    datapath = datapaths(CONFIG)
    for i, version in ((1, "0.5"), (2, "2.0"), (0, "1.0")):
        run(datapath, card(i + 1, BASE + i * US, version=version, source=f"192.0.2.{i}"))
    assert path(datapath) == [3, 2, 1]


def test_without_timestamps_switches_stand_as_they_came(datapaths: Datapaths) -> None:
    """Of 2.0 without ingress timestamps each new switch is taken to be behind those that were heard of before."""
    for arrival in itertools.permutations((1, 2, 3)):
        datapath = datapaths(CONFIG)
        for _ in range(3):
            run(datapath, *(card(switch, None, version="2.0") for switch in arrival))
        assert path(datapath) == [*reversed(arrival)]


@pytest.mark.parametrize("stamp", [2**32 - 1 - 500, 2**32 - 1, 500, 2**64 - 501])
def test_no_timestamp_is_near_to_none(datapaths: Datapaths, stamp: int) -> None:
    """A switch that gives no timestamp is not compared with one that does, whatever that is."""
    datapath = datapaths(CONFIG)
    run(datapath, card(1, None, version="2.0"), card(2, stamp, version="2.0"))
    assert path(datapath) == [2, 1]
    run(datapath, card(1, None, version="2.0"))
    assert path(datapath) == [2, 1]


def test_a_timestamp_of_all_ones_is_one(datapaths: Datapaths) -> None:
    """0.5 and 1.0 have no word for "no timestamp": all ones is one ns before 0."""
    datapath = datapaths(CONFIG)
    run(datapath, card(2, 0), card(1, 2**32 - 1), card(3, 1))
    assert path(datapath) == [3, 2, 1]


def test_behind_those_heard_of_before(datapaths: Datapaths) -> None:
    """A new switch without a timestamp near to another's is behind all that were heard of before, however near in time
    to them it was heard of."""
    datapath = datapaths(CONFIG)
    run(datapath, card(1, BASE, version="2.0"), card(2, BASE + 900 * US, version="2.0"), card(3, None, version="2.0"))
    assert path(datapath) == [3, 2, 1]
    run(datapath, card(4, BASE + 10**8, version="2.0"))
    assert path(datapath) == [4, 3, 2, 1]


def test_each_flow_has_places_of_its_own(datapaths: Datapaths) -> None:
    """Postcards of two flows make two paths."""
    datapath = datapaths(CONFIG)
    other = "10.0.0.3:5000>10.0.0.2:5000/17"
    run(datapath, card(1, BASE), card(1, BASE, flow=other), card(2, BASE + US), card(3, BASE + US, flow=other))
    state = datapath.state()
    places = {
        key["source"][3]: sorted(flow["hops"]["switch_id"][flow["places"]["seen"] != 0].tolist())
        for key, flow in zip(state.flow_keys, state.flows, strict=True)
    }
    assert places == {1: [1, 2], 3: [1, 3]}


def test_what_a_place_holds(datapaths: Datapaths) -> None:
    """The last egress port, queue and latency of each switch; counted in its port's histogram and its queue."""
    datapath = datapaths(CONFIG)
    run(
        datapath,
        card(1, BASE, port=3, queue=4, occupancy=50, latency=100),
        card(1, BASE + 10**8, port=3, queue=4, occupancy=20, latency=120),
        card(1, BASE + 2 * 10**8, port=5, queue=6, occupancy=7, latency=300),
    )
    state = datapath.state()
    (flow,) = state.flows
    (place,) = flow["hops"][flow["places"]["seen"] != 0]
    assert (place["switch_id"], place["egress_port_id"], place["queue_id"], place["latency"]) == (1, 5, 6, 300)
    assert flow["latency"] == 300 and flow["hop_count"] == 1
    assert state.ports[place["port"]]["id"] == 5 and state.queues[place["queue"]]["id"] == 6
    sums = dict(zip(state.ports["id"].tolist(), state.port_statistics["latency_sum"].tolist(), strict=True))
    assert sums == {0: 0, 3: 220, 5: 300}
    values = zip(state.queues["id"], state.queues["value"], state.queue_statistics["occupancy_max"], strict=True)
    assert sorted((int(i), int(v), int(m)) for i, v, m in values) == [(0, 0, 0), (4, 20, 51), (6, 7, 8)]


def test_latencies_that_are_missing(datapaths: Datapaths) -> None:
    """A switch without a latency counts for the path and not for the sum, which is none if no switch has one."""
    datapath = datapaths(CONFIG)
    run(datapath, card(1, BASE, latency=NONE32))
    assert the_flow(datapath)["latency"] == NONE64 and path(datapath) == [1]
    run(datapath, card(2, BASE + US, latency=0))
    assert the_flow(datapath)["latency"] == 0 and path(datapath) == [2, 1]
    run(datapath, card(2, BASE + 10**8, latency=NONE32))
    assert the_flow(datapath)["latency"] == NONE64 and path(datapath) == [2, 1]


# --- what is none -----------------------------------------------------------------------------------------------------

STACK = [{"switch_id": 40, "hop_latency": 7}, {"switch_id": 41, "hop_latency": 8}]


def no_postcards() -> dict[str, bytes]:
    """Reports of a switch 9 that belong to no path."""
    drop_05 = {"ingress_port_id": 1, "egress_port_id": 3, "drop_queue_id": 1, "drop_reason": 2}
    return {
        "without F": card(9, BASE, tracked_flow=False),
        "of a congested queue": card(9, BASE, tracked_flow=False, congested_queue=True),
        "of a drop": card(9, BASE, dropped=True),
        "of a drop, 2.0": card(9, BASE, dropped=True, version="2.0"),
        "of a drop, 0.5": card(9, BASE, version="0.5", local_hop=drop_05),
        "without metadata": frame(CONFIG, switch_id=9, flow=FLOW_TEXT),
        "without metadata, 2.0": card(9, BASE, version="2.0", local_hop=None),
        "without a header, 0.5": wire.encode(
            batches.report(version="0.5", switch_id=None, flow=FLOW_TEXT), CONFIG
        ),
        "of nobody": card(NONE32, BASE),
    }  # fmt: skip


@pytest.mark.parametrize("name", no_postcards())
def test_what_is_no_postcard(datapaths: Datapaths, name: str) -> None:
    """Reports that are none neither begin a path nor change one."""
    none = no_postcards()[name]
    datapath = datapaths(CONFIG)
    run(datapath, none)
    flow = the_flow(datapath)
    assert not flow["flags"] & FlowFlag.POSTCARDS and not flow["places"]["seen"].any() and flow["latency"] == NONE64
    run(datapath, card(1, BASE), card(2, BASE + US))
    before = the_flow(datapath)
    run(datapath, none)
    after = the_flow(datapath)
    assert path(datapath) == [2, 1]
    assert after["hops"].tobytes() == before["hops"].tobytes()
    assert after["latency"] == 200 and after["reports"] == 4
    assert not (datapath.drain().reports["flags"][[0, -1]] & ReportFlag.POSTCARD).all()


def test_of_no_ip_flow(datapaths: Datapaths) -> None:
    """A postcard of a packet that is not IP, or of none, counts for its switch only."""
    datapath = datapaths(CONFIG)
    arp = batches.report(switch_id=9, local_hop={"hop_latency": 5}) | {"flow": wire.no_flow([])}
    run(datapath, wire.encode(arp, CONFIG), card(9, BASE, version="2.0", flow=None))
    state = datapath.state()
    assert not len(state.flows)
    assert int(state.port_statistics["latency_sum"].sum()) == 105


def test_int_mx_is_a_postcard(datapaths: Datapaths) -> None:
    """Instructions are no stack: what the switch says beside them is its postcard."""
    datapath = datapaths(CONFIG)
    mx: dict[str, Any] = {
        "version": "2.x", "mode": "MX", "instruction_bitmap": "0xa000", "hop_ml": None, "remaining_hop_count": None,
        "hop_count": 0, "hops": [], "latency": None,
    }  # fmt: skip
    run(datapath, card(1, BASE, version="2.0", int=mx), card(2, BASE + US, version="2.0", int=mx))
    assert path(datapath) == [2, 1]
    first, second = datapath.drain().reports
    for told_of in (first, second):
        assert told_of["flags"] & ReportFlag.INT_MX and told_of["flags"] & ReportFlag.POSTCARD
    assert (first["hop_count"], second["hop_count"]) == (1, 2)


# --- places change ----------------------------------------------------------------------------------------------------


def test_another_switch_in_the_middle(datapaths: Datapaths) -> None:
    """A switch that replaces another stands where it is at once; the old one goes when it was not heard of for long."""
    for arrival in itertools.permutations((1, 4, 3)):
        datapath = datapaths(dataclasses.replace(CONFIG, postcard_timeout=5.0))
        stamps = {1: 0, 2: 10 * US, 4: 11 * US, 3: 20 * US}
        for packet in range(3):
            run(datapath, *(card(switch, BASE + packet * 10**7 + stamps[switch]) for switch in (1, 2, 3)))
        for packet in range(3, 5):
            run(datapath, *(card(switch, BASE + packet * 10**7 + stamps[switch]) for switch in arrival))
        assert [switch for switch in path(datapath) if switch != 2] == [3, 4, 1]
        age(datapath, 6, [2])
        run(datapath, card(1, BASE + 5 * 10**7))
        assert path(datapath) == [3, 4, 1]
        assert the_flow(datapath)["latency"] == 300


def test_switches_change_places(datapaths: Datapaths) -> None:
    """Timestamps that contradict the order put it right, with the packet they are of."""
    datapath = datapaths(CONFIG)
    run(datapath, card(1, BASE), card(2, BASE + 10 * US), card(3, BASE + 20 * US))
    assert path(datapath) == [3, 2, 1]
    run(datapath, card(2, BASE + 10**8), card(1, BASE + 10**8 + 10 * US), card(3, BASE + 10**8 + 20 * US))
    assert path(datapath) == [3, 1, 2]


def test_a_switch_that_is_not_heard_of_leaves(datapaths: Datapaths) -> None:
    """After the timeout, by the real clock, a switch is gone, and not before; the others stay."""
    timeout = 0.2
    datapath = datapaths(dataclasses.replace(CONFIG, postcard_timeout=timeout))
    run(datapath, card(1, BASE), card(2, BASE + US), card(3, BASE + 2 * US))
    heard_ns = int(flow_seen_ns(the_flow(datapath)))
    deadline = time.monotonic() + DEADLINE_S
    packet = 1
    while path(datapath) != [3, 1]:
        assert path(datapath) == [3, 2, 1] and time.monotonic() < deadline
        run(datapath, *(card(switch, BASE + packet * 10**8 + switch * US) for switch in (1, 3)))
        packet += 1
    tick_ns = 5 * 2**20  # of flow_hop.seen
    assert int(flow_seen_ns(the_flow(datapath))) - heard_ns >= timeout * 1e9 - tick_ns
    run(datapath, card(2, BASE + packet * 10**8 + 2 * US))
    assert sorted(path(datapath)) == [1, 2, 3]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_silent_flow_keeps_its_path(datapaths: Datapaths, first: int) -> None:
    """A flow of which nothing was heard for longer than the timeout has the path it had, whoever is heard of first."""
    datapath = datapaths(CONFIG)
    run(datapath, card(1, BASE), card(2, BASE + US), card(3, BASE + 2 * US))
    age(datapath, 60)
    run(datapath, card(first, BASE + 10**8 + first * US))
    assert path(datapath) == [3, 2, 1]
    age(datapath, 4)
    run(datapath, card(first, BASE + 2 * 10**8 + first * US))
    assert path(datapath) == [3, 2, 1]
    age(datapath, 2, [1, 2, 3])
    run(datapath, card(first, BASE + 3 * 10**8 + first * US))
    assert path(datapath) == [first]  # now the others were silent, and it was not


def test_what_another_cpu_heard_a_moment_later(datapaths: Datapaths) -> None:
    """A switch that was heard of after the time this report is judged by, by a CPU with a later clock, stays."""
    datapath = datapaths(CONFIG)
    run(datapath, card(1, BASE), card(2, BASE + US))
    age(datapath, -0.05, [1, 2])
    run(datapath, card(2, BASE + 10**8))
    assert path(datapath) == [2, 1]
    run(datapath, card(1, BASE + 10**8))
    assert path(datapath) == [2, 1]


def test_more_switches_than_there_is_room_for(datapaths: Datapaths) -> None:
    """The seventeenth switch of a flow has no place, and is counted; its port, queue and latency are kept."""
    datapath = datapaths(CONFIG)
    run(datapath, *(card(switch, BASE + switch * US, latency=switch) for switch in range(1, MAX_HOPS + 1)))
    full = path(datapath)
    assert full == [*range(MAX_HOPS, 0, -1)]
    run(datapath, *(card(switch, BASE + switch * US, latency=switch, occupancy=9) for switch in (17, 18, 17)))
    assert path(datapath) == full
    state = datapath.state()
    assert state.counters["places_refused"] == 3
    assert state.flows["latency"].tolist() == [sum(range(1, MAX_HOPS + 1))] and state.flows["reports"].tolist() == [19]
    of_17 = state.ports["switch_id"] == 17
    assert state.port_statistics["latency_sum"][of_17].tolist() == [34]
    assert state.queue_statistics["occupancy_max"][state.queues["switch_id"] == 17].tolist() == [10]
    age(datapath, 6, [5])
    run(datapath, card(17, BASE + 10**8))
    assert sorted(path(datapath)) == [s for s in range(1, 18) if s != 5]
    assert datapath.state().counters["places_refused"] == 3


# --- and a stack ------------------------------------------------------------------------------------------------------


def test_a_stack_wins(datapaths: Datapaths) -> None:
    """A flow of which a stack was seen shows it, from then on; postcards still count for their switches."""
    datapath = datapaths(CONFIG)
    stack = frame(CONFIG, *STACK, flow=FLOW_TEXT)
    answers = told(datapath, card(1, BASE), card(2, BASE + US), stack, card(3, BASE + 2 * US), stack)
    assert answers[2] is not None and "path" in answers[2]
    assert answers[3] is None or "path" not in answers[3]
    assert answers[4] is None
    flow = the_flow(datapath)
    assert flow["flags"] & (FlowFlag.PATH | FlowFlag.POSTCARDS) == FlowFlag.PATH
    assert flow["latency"] == 15 and flow["hop_count"] == 2
    assert flow["hops"]["switch_id"][:2].tolist() == [40, 41]
    state = datapath.state()
    assert state.port_statistics["latency_sum"][state.ports["switch_id"] == 3].tolist() == [100]


def test_a_stack_with_metadata_is_no_postcard(datapaths: Datapaths) -> None:
    """The sink that reports a stack and speaks of itself beside it adds no hop to the path."""
    datapath = datapaths(CONFIG)
    run(datapath, frame(CONFIG, *STACK, flow=FLOW_TEXT, switch_id=9, local={"hop_latency": 3, "egress_port_id": 1}))
    flow = the_flow(datapath)
    assert flow["latency"] == 15 and flow["hop_count"] == 2
    assert flow["flags"] & (FlowFlag.PATH | FlowFlag.POSTCARDS) == FlowFlag.PATH
    state = datapath.state()
    assert state.port_statistics["latency_sum"][state.ports["switch_id"] == 9].tolist() == [3]


# --- the window -------------------------------------------------------------------------------------------------------

A_MILLISECOND = {"ns": 10**6, "us": 1000, "ms": 1, "2^-32s": ((10**6 + 1) * 2**32 - 1) // 10**9}
"""In each unit of time, the most that is one, in whole ns."""


@pytest.mark.parametrize("unit", A_MILLISECOND)
def test_the_window_is_in_ns(datapaths: Datapaths, unit: str) -> None:
    """Whatever a source counts time in, two of its postcards are of one packet if they are within the window."""
    near = A_MILLISECOND[unit]
    config = dataclasses.replace(CONFIG, latency_unit=unit)
    for apart, expected in ((near, [2, 1]), (near + 1, [1, 2])):
        datapath = datapaths(config)
        run(datapath, card(2, BASE + apart), card(1, BASE))
        assert path(datapath) == expected


@pytest.mark.parametrize("window", [1e-6, 0.001, 0.25])
def test_another_window(datapaths: Datapaths, window: float) -> None:
    """The window is the option's, in a running program too."""
    datapath = datapaths(CONFIG)
    datapath.apply(dataclasses.replace(CONFIG, postcard_window=window))
    near = round(window * 1e9)
    run(datapath, card(2, BASE + near), card(1, BASE), card(3, BASE + 2 * near + 1))
    assert path(datapath) == [3, 2, 1]
    run(datapath, card(4, BASE - near - 1))
    assert path(datapath)[0] == 4


@pytest.mark.parametrize("interval", [100 * US, 300 * US, 900 * US, 10**6, 2 * 10**6])
def test_packets_more_often_than_the_window(datapaths: Datapaths, interval: int) -> None:
    """A flow reported more often than the window keeps its path while packets take less than half of the time between
    them, in whatever order the postcards of a packet come."""
    chance = random.Random(interval)
    datapath = datapaths(CONFIG)
    stamps = {1: 0, 2: interval // 10, 3: interval // 5, 4: interval * 2 // 5}
    run(datapath, *(card(switch, BASE + stamp) for switch, stamp in stamps.items()))
    datapath.drain()
    for packet in range(1, 200):
        for switch in chance.sample(sorted(stamps), len(stamps)):
            run(datapath, card(switch, BASE + packet * interval + stamps[switch]))
    assert path(datapath) == [4, 3, 2, 1]
    assert not len(datapath.drain())


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ring", "perf"])
def transport(request: pytest.FixtureRequest) -> Config:
    """CONFIG with each way up."""
    return dataclasses.replace(CONFIG, event_transport=request.param)


def cells_of(batch: Batch, row: int) -> np.ndarray:
    """The hops of one event, HOP (n,)."""
    cells = batch.hops[batch.hop_report == row]
    assert len(cells) == batch.reports["hop_count"][row]
    return cells


def test_the_cells_of_an_event(datapaths: Datapaths, transport: Config) -> None:
    """An event of a postcard has a cell for each place: switch, port, queue, latency, order; all else is no value."""
    datapath = datapaths(transport)
    run(datapath, *(card(i, BASE + i * US, latency=100 * i, port=i + 1, queue=i + 2) for i in (2, 1, 3)))
    batch = datapath.drain()
    assert batch.reports["hop_count"].tolist() == [1, 2, 3]
    assert batch.reports["flow_latency"].tolist() == [200, 300, 600]
    assert (batch.reports["latency"] == NONE64).all()
    assert (batch.reports["flags"] & ReportFlag.POSTCARD).all() and not (batch.reports["flags"] & ReportFlag.INT).any()
    flow = the_flow(datapath)
    cells = cells_of(batch, 2)
    for cell in cells:
        i = int(cell["switch_id"])
        (order,) = flow["places"]["order"][flow["hops"]["switch_id"] == i]
        said = {"switch_id": i, "egress_port_id": i + 1, "queue_id": i + 2, "latency": 100 * i,
                "ingress_timestamp": int(order)}  # fmt: skip
        for name in set(HOP.names or ()) - {"cell", "pad"}:
            assert cell[name] == said.get(name, np.iinfo(HOP[name]).max), name
    assert sorted(cells["switch_id"].tolist()) == [1, 2, 3]
    order = cells["ingress_timestamp"][np.argsort(cells["switch_id"])].astype(np.int64)
    assert (np.diff(order) == US).all()


def test_what_is_told_of_postcards(datapaths: Datapaths) -> None:
    """A new switch is a path change; latencies are news of the switch and of the flow, each beyond its threshold."""
    config = quiet(CONFIG, hop_latency_threshold=50, flow_latency_threshold=120)
    answers = told(
        datapaths(config),
        card(1, BASE, latency=100),
        card(2, BASE + US, latency=200),
        card(1, BASE + 10**8, latency=100),
        card(1, BASE + 2 * 10**8, latency=151),
        card(1, BASE + 3 * 10**8, latency=201),
        card(2, BASE + 3 * 10**8 + US, latency=230),
        card(2, BASE + 4 * 10**8 + US, latency=251),
        card(2, BASE + 5 * 10**8 + US, latency=251),
    )
    queue = {"local_queue_occupancy"}
    assert answers == [
        {"new_flow", "flow_latency", "local_hop_latency"} | queue,
        {"path", "flow_latency", "local_hop_latency"} | queue,
        None,
        {"local_hop_latency"},
        None,
        {"flow_latency"},
        {"local_hop_latency"},
        None,
    ]


def test_told_orders(datapaths: Datapaths) -> None:
    """Switches that change places, and a switch that leaves, are path changes, told once."""
    datapath = datapaths(CONFIG)
    told(datapath, card(1, BASE), card(2, BASE + 10 * US))
    swapped = told(datapath, card(2, BASE + 10**8), card(1, BASE + 10**8 + US), card(2, BASE + 2 * 10**8))
    assert swapped == [None, {"path"}, None]
    age(datapath, 6, [2])
    assert told(datapath, card(1, BASE + 3 * 10**8), card(1, BASE + 4 * 10**8)) == [{"path"}, None]


def test_keepalive_and_congestion(datapaths: Datapaths) -> None:
    """A flow of postcards is told again after the keepalive time, and when its queue is congested, with all places."""
    datapath = datapaths(quiet(CONFIG, keepalive=10.0))
    run(datapath, card(1, BASE), card(2, BASE + US))
    datapath.drain()
    state = datapath.state()
    flow = state.flows[0].copy()
    flow["told"] -= np.uint32(20 * 10**9 >> 20)
    set_flow(datapath, state.flow_keys[0], flow)
    run(datapath, card(1, BASE + 10**8), card(2, BASE + 10**8 + US, congested_queue=True), card(1, BASE + 2 * 10**8))
    batch = datapath.drain()
    assert news(batch) == [{"keepalive"}, {"congested_queue"}]
    assert batch.reports["hop_count"].tolist() == [2, 2]


@pytest.mark.usefixtures("one_cpu")
def test_news_of_postcards_that_found_no_room(datapaths: Datapaths, transport: Config) -> None:
    """A new switch, a latency and a queue that could not be told are told with the switch's next postcard."""
    config = quiet(transport, hop_latency_threshold=50, queue_occupancy_threshold=50)
    datapath = datapaths(config)
    first = card(1, BASE, occupancy=0)
    told(datapath, first)
    filler = frame(config, flow="10.9.9.9:9>10.9.9.8:9/17", dropped=True, source="192.0.2.9")
    runs = 0
    while int(datapath.counters()["events_lost"]) == 0:
        assert runs < 2 * config.ring_size * 2**20 // ((HEAD_CELLS + 1) * CELL)
        for _ in range(16):  # not repeat=16: for a repeated run the kernel waits 20 ms until all CPUs know of it
            datapath.run(filler)
        runs += 16
    run(datapath, card(2, BASE + US, latency=300, occupancy=90), card(1, BASE + 10**8, latency=500, occupancy=80))
    datapath.drain()
    assert told(
        datapath,
        card(2, BASE + 2 * 10**8 + US, latency=300, occupancy=90),
        card(1, BASE + 2 * 10**8, latency=500, occupancy=80),
        card(2, BASE + 3 * 10**8 + US, latency=300, occupancy=90),
        card(1, BASE + 3 * 10**8, latency=500, occupancy=80),
    ) == [
        {"path", "local_hop_latency", "local_queue_occupancy"},
        {"local_hop_latency", "local_queue_occupancy"},
        None,
        None,
    ]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_postcards_on_two_cpus_at_once(datapaths: Datapaths) -> None:
    """Switches of one flow whose postcards come in on several CPUs at the same time keep their places."""
    datapath = datapaths(CONFIG)
    cards = [card(switch, BASE + switch * US) for switch in (1, 2)]
    run(datapath, *cards)
    datapath.drain()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    together = threading.Barrier(2)

    def work(number: int) -> None:
        os.sched_setaffinity(0, {cpus[number]})  # of this thread only
        together.wait(60)
        for _ in range(10):
            datapath.run(cards[number], repeat=100_000)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for _ in threads.map(work, range(2)):
            pass
    assert path(datapath) == [2, 1]
    assert not len(datapath.drain())
    state = datapath.state()
    assert int(state.port_statistics["buckets"].sum()) == 2_000_002


# --- against a slow model ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Place:
    """What a flow keeps of a switch. heard_ns: when, by the collector's clock."""

    switch: int
    order: int
    stamp: int | None
    heard_ns: int
    latency: int


@dataclasses.dataclass
class Model:
    """docs/postcards.md in Python. A new switch takes the last free place; times in ns."""

    window_ns: int
    timeout_ns: int
    to_ns: Callable[[int], int]
    places: list[Place | None] = dataclasses.field(default_factory=lambda: [None] * MAX_HOPS)
    seen_ns: int | None = None
    refused: int = 0

    def card(self, switch: int, stamp: int | None, latency: int, now: int) -> None:
        """A postcard that came now."""
        silent = self.seen_ns is not None and now - self.seen_ns > self.timeout_ns
        self.seen_ns = now
        own = None
        for at, place in enumerate(self.places):
            if place is None:
                continue
            if silent:
                place.heard_ns = now
            if place.switch == switch:
                own = place
            elif now - place.heard_ns > self.timeout_ns:
                self.places[at] = None
        together = self.of_one_packet(own, switch, stamp)
        if own is None:
            free = [at for at, place in enumerate(self.places) if place is None]
            if not free:
                self.refused += 1
                return
            behind = max([now, *(p.order + 1 for p in self.places if p is not None)])
            order = behind if together is None else together[0].order + together[1]
            own = self.places[free[-1]] = Place(switch, order, stamp, now, latency)
        elif together is not None:
            other, apart = together
            if (apart > 0 and own.order <= other.order) or (apart < 0 and own.order >= other.order):
                own.order = other.order + apart
        own.stamp, own.heard_ns, own.latency = stamp, now, latency

    def of_one_packet(self, own: Place | None, switch: int, stamp: int | None) -> tuple[Place, int] | None:
        """The place with the nearest timestamp, and how far before this one, ns; None where none is of this packet."""
        others = [place for place in self.places if place and place.switch != switch and place.stamp is not None]
        if stamp is None or not others:
            return None
        nearest = min(others, key=lambda place: abs(between(place.stamp, stamp)))
        apart = between(nearest.stamp, stamp)
        if own is not None and own.stamp is not None and abs(apart) >= abs(between(own.stamp, stamp)) // 2:
            return None
        distance = self.to_ns(abs(apart))
        return None if distance > self.window_ns else (nearest, -distance if apart < 0 else distance)

    def age(self, ns: int, switch: int | None) -> None:
        """Nothing was heard for so long, or of one switch."""
        if switch is None and self.seen_ns is not None:
            self.seen_ns -= ns
        for place in self.places:
            if place and switch in (None, place.switch):
                place.heard_ns -= ns

    def path(self) -> list[tuple[int, int, int]]:
        """(switch, order, latency) of each place, nearest the sink first."""
        there = [place for place in self.places if place]
        return [(p.switch, p.order, p.latency) for p in sorted(there, key=lambda place: -place.order)]


def between(a: int | None, b: int) -> int:
    """From timestamp a to b, of 32 bits, in the shorter direction."""
    assert a is not None
    apart = (b - a) % 2**32
    return apart - 2**32 if apart >= 2**31 else apart


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), unit=st.sampled_from(sorted(TIME_UNITS)), version=st.sampled_from(VERSIONS))
def test_any_postcards(datapaths: Datapaths, data: st.DataObject, unit: str, version: str) -> None:
    """Whatever postcards come, in whatever order and after whatever silence, the places are as the model has them."""
    config = dataclasses.replace(CONFIG, latency_unit=unit, postcard_timeout=10.0)
    datapath = datapaths(config)
    _, multiplier, shift = TIME_UNITS[unit]
    model = Model(10**6, 10**10, lambda units: units * multiplier >> shift)
    window = A_MILLISECOND[unit]
    switches = st.integers(1, data.draw(st.sampled_from([3, 6, 20])))
    step = st.one_of(
        st.integers(0, 30), st.integers(0, 3 * window), st.sampled_from([window, window + 1, 2**31, 2**32 - window]),
    )  # fmt: skip
    at = data.draw(st.sampled_from([BASE, 2**32 - 5]))
    aged = 0
    for _ in range(data.draw(st.integers(1, 40))):
        move = data.draw(st.one_of(st.just(None), st.just(None), st.just(None), st.tuples(st.none() | switches)))
        if move is not None:
            if model.seen_ns is not None and aged < 4:  # a machine may not have run for longer than a minute
                age(datapath, 15, None if move[0] is None else [move[0]])
                model.age(15 * 10**9, move[0])
                aged += 1
            continue
        at += data.draw(step) * data.draw(st.sampled_from([1, 1, -1]))
        stamp = None if version == "2.0" and data.draw(st.integers(0, 5)) == 0 else at % 2**32
        switch, latency = data.draw(switches), data.draw(st.integers(0, 1000))
        if version == "0.5" and (at + latency) % 2**32 == NONE32:
            latency += 1  # an egress timestamp of all ones is none
        run(datapath, card(switch, stamp, version=version, latency=latency))
        flow = the_flow(datapath)
        model.card(switch, stamp, latency, int(datapath.state().sources["seen_ns"].max()))
        _, places = postcards.of_flows(np.array([flow]), ())
        hops = flow["hops"][places]
        order = flow["places"]["order"][places]
        found = list(zip(hops["switch_id"].tolist(), order.tolist(), hops["latency"].tolist(), strict=True))
        assert found == model.path()
        assert flow["latency"] == sum(latency for _, _, latency in found)
    assert datapath.counters()["places_refused"] == model.refused
    datapath.drain()
