"""How a source writes, by its address: Datapath.apply(), find_profile() of the kernel program, and both engines."""

from __future__ import annotations

import dataclasses
import ipaddress
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from intcollector import kernel, wire
from intcollector.batch import POINT, PROFILE, SOURCE_PREFIX, State
from intcollector.config import MAX_SOURCES, Config, FromFile, Source
from intcollector.datapath import TIME_UNITS, Datapath
from intcollector.datapath import profile as profile_of
from intcollector.layout import LATENCY_BUCKETS, LAYOUT, OUTCOMES

from .frames import NONE32, Datapaths, Decoders, frame, map_fd, quiet
from .needs import needs_root

pytestmark = needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
Changes = dict[str, Any]


def with_sources(entries: dict[str, Changes], config: Config = CONFIG) -> Config:
    """The config with a file of sources: prefix -> what is another there."""
    sources = [Source(ipaddress.ip_network(prefix), tuple(sorted(said.items()))) for prefix, said in entries.items()]
    return dataclasses.replace(config, sources=FromFile(sources))


def bucket(ns: int | None) -> int:
    """As a latency of so many ns is counted."""
    if ns is None:
        return LATENCY_BUCKETS - 1
    return min(ns.bit_length(), LATENCY_BUCKETS - 2)


def outcomes_of(state: State) -> dict[str, int]:
    """How many packets had each outcome, of those that had any."""
    return {name: count for name, count in zip(OUTCOMES, state.counters["outcomes"].tolist(), strict=False) if count}


def reports_of(config: Config, source: str, hops: int = 2) -> bytes:
    """A report of that source, as it writes by the config: everything in which profiles differ is in it."""
    stack = [
        {"switch_id": 1 + i, "ingress_port_id": 1, "egress_port_id": 7, "hop_latency": 900, "queue_id": 3,
         "queue_occupancy": 40, "ingress_timestamp": 100, "egress_timestamp": 1000, "l2_ingress_port_id": 5,
         "l2_egress_port_id": 6, "egress_port_tx_utilization": 70}
        for i in range(hops)
    ]  # fmt: skip
    own = config.of_source(source)
    last = int(ipaddress.ip_address(source)) % 60000
    return frame(own, *stack, source=source, switch_id=last, flow=f"10.0.0.1:{last}>10.0.0.2:5/17", dscp=23)


def units_by_flow(state: State) -> dict[int, int]:
    """Source port of a flow -> its unit of time."""
    return dict(zip(state.flow_keys["source_port"].tolist(), state.flows["time_unit"].tolist(), strict=True))


# --- who writes how ---------------------------------------------------------------------------------------------------

PLACES = {
    "192.0.2.1": "ns", "192.0.2.77": "us", "192.0.3.1": "ms", "198.18.0.1": "2^-32s", "198.18.7.7": "us",
    "2001:db8::1": "us", "2001:db8:5::1": "ms", "2001:db8:5::2": "2^-32s", "2001:db9::1": "ns",
}  # fmt: skip
"""Source -> the unit that its longest prefix names."""
PREFIXES: dict[str, Changes] = {
    "0.0.0.0/0": {"latency_unit": "2^-32s"},
    "192.0.2.0/23": {"latency_unit": "ms"},
    "192.0.2.64/26": {"latency_unit": "us"},
    "192.0.2.1/32": {"latency_unit": "ns"},
    "198.18.7.0/24": {"latency_unit": "us"},
    "2001:db8::/32": {"latency_unit": "us"},
    "2001:db8:5::/48": {"latency_unit": "2^-32s"},
    "2001:db8:5::1/128": {"latency_unit": "ms"},
}


@pytest.mark.parametrize("turn", [list, lambda items: list(reversed(list(items)))], ids=["in order", "reversed"])
def test_the_longest_prefix_counts(datapaths: Datapaths, turn: Callable[[Any], list[Any]]) -> None:
    """Each source is judged by the longest prefix that it is in, IPv4 and IPv6, else as the command line says."""
    config = with_sources(dict(turn(PREFIXES.items())))
    datapath = datapaths(config)
    for _ in range(3):
        for source in PLACES:
            datapath.run(reports_of(config, source))
    state = datapath.state()
    assert outcomes_of(state) == {"ok": 3 * len(PLACES)}
    expected = {int(ipaddress.ip_address(source)) % 60000: TIME_UNITS[unit][0] for source, unit in PLACES.items()}
    assert len(expected) == len(PLACES)
    assert units_by_flow(state) == expected


def test_versions_of_ip_are_apart(datapaths: Datapaths) -> None:
    """A prefix of IPv4 is not one of IPv6, whatever the bits."""
    config = with_sources({"32.1.13.184/32": {"latency_unit": "us"}, "::/0": {"latency_unit": "ms"}})
    datapath = datapaths(config)
    for source in ("32.1.13.184", "2001:db8::", "32.1.13.185"):
        datapath.run(reports_of(config, source))
    found = units_by_flow(datapath.state())
    assert [
        found[int(ipaddress.ip_address(source)) % 60000] for source in ("32.1.13.184", "2001:db8::", "32.1.13.185")
    ] == [1, 2, 0]


WRITERS: dict[str, Changes] = {
    "192.0.2.1": {},
    "192.0.2.2": {"profile": "geant", "latency_unit": "us"},
    "192.0.2.3": {"profile": "onos", "int_dscp": (23, 63)},
    "192.0.2.4": {"profile": "intcollector", "latency_unit": "2^-32s"},
    "192.0.2.5": {"profile": "l2port4", "int_dscp": (1, 1), "latency_unit": "ms"},
    "2001:db8::6": {"profile": "geant", "int_dscp": (23, 63)},
}


def test_several_profiles_at_the_same_time(datapaths: Datapaths, decoders: Decoders) -> None:
    """Sources of different profiles, marks and units are each read as they write, report by report, by both engines."""
    entries = {source: said for source, said in WRITERS.items() if said}
    config = with_sources(entries)
    frames = [reports_of(config, source) for source in WRITERS] * 20
    answers = [wire.decode(one, config) for one in frames]
    assert all(answer["outcome"] == "ok" for answer in answers)
    for answer in answers:
        first, second = answer["reports"][0]["int"]["hops"]
        assert (first["switch_id"], second["switch_id"]) == (1, 2)
        assert (first["queue_id"], first["queue_occupancy"], first["l2_egress_port_id"]) == (3, 40, 6)
        assert (first["ingress_timestamp"], first["egress_timestamp"]) == (100, 1000)
    assert list(decoders(config).decode(frames)) == answers
    datapath = datapaths(config)
    for one in frames:
        datapath.run(one)
    state = datapath.state()
    assert outcomes_of(state) == {"ok": len(frames)}
    assert (state.flows["latency"] == 1800).all() and (state.flows["reports"] == 20).all()
    counted = state.port_statistics["buckets"].sum(axis=0)
    ns_of = [900 * multiplier >> shift for _, multiplier, shift in TIME_UNITS.values()]
    of_unit = dict(zip(TIME_UNITS, ns_of, strict=True))
    expected = np.zeros(LATENCY_BUCKETS, int)
    for said in WRITERS.values():
        expected[bucket(of_unit[said.get("latency_unit", "ns")])] += 40
    assert counted.tolist() == expected.tolist()


def test_a_mark_of_its_own(datapaths: Datapaths) -> None:
    """A source's mark decides about its reports only; where it is off, INT has to be plausible."""
    config = with_sources({"192.0.2.2": {"int_dscp": (5, 63)}, "192.0.2.3": {"int_dscp": None}},
                          dataclasses.replace(CONFIG, int_dscp=(23, 63)))  # fmt: skip
    datapath = datapaths(config)
    for source in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        for dscp in (23, 5, 0):
            one = frame(
                config, {"switch_id": 1}, source=source, dscp=dscp, flow=f"10.0.0.{source[-1]}:{dscp}>10.0.0.9:1/17"
            )
            assert wire.decode(one, config)["outcome"] == "ok"
            datapath.run(one)
    state = datapath.state()
    paths = {
        (int(key["source"][3]), int(key["source_port"]))
        for key, flow in zip(state.flow_keys, state.flows, strict=True)
        if flow["hop_count"]
    }
    assert paths == {(1, 23), (2, 5), (3, 23), (3, 5), (3, 0)}


def test_settings_are_for_all(datapaths: Datapaths) -> None:
    """What an entry does not name is the command line's, for its source too."""
    base = dataclasses.replace(CONFIG, profile="geant", latency_unit="us")
    config = with_sources({"192.0.2.2": {"queue_occupancy_bytes": 80}}, base)
    datapath = datapaths(config)
    for source in ("192.0.2.1", "192.0.2.2"):
        datapath.run(reports_of(config, source))
    state = datapath.state()
    assert outcomes_of(state) == {"ok": 2} and state.flows["time_unit"].tolist() == [1, 1]


def test_as_many_as_a_file_may_have(datapaths: Datapaths) -> None:
    """Every entry of the largest file counts, and so does every one of the next that replaces it."""
    datapath = datapaths(CONFIG)
    for units in (("us", "ms"), ("ms", "us")):
        entries = {f"10.{i}.0.0/16": {"latency_unit": units[i % 2]} for i in range(MAX_SOURCES)}
        config = with_sources(entries)
        datapath.apply(config)
        for i in (0, 1, 128, MAX_SOURCES - 1, MAX_SOURCES):
            datapath.run(reports_of(config, f"10.{i}.1.{i}"))
        found = units_by_flow(datapath.state())
        for i in (0, 1, 128, MAX_SOURCES - 1):
            assert found[int(ipaddress.ip_address(f"10.{i}.1.{i}")) % 60000] == TIME_UNITS[units[i % 2]][0]
        assert found[int(ipaddress.ip_address(f"10.{MAX_SOURCES}.1.{MAX_SOURCES}")) % 60000] == 0


# --- changes ----------------------------------------------------------------------------------------------------------


def held(datapath: Datapath) -> dict[str, bytes]:
    """The prefixes in the program's map, with the profiles that they lead to."""
    index = np.dtype("<u4")
    keys, places = kernel.map_items(
        map_fd(datapath, "source_profiles"), SOURCE_PREFIX, index, LAYOUT.defines["MAX_PROFILES"]
    )
    found = {}
    for key, place in zip(keys, places, strict=True):
        size = {4: 4, 6: 16}[int(key["ip_version"])]
        address = ipaddress.ip_address(key["address"][:size].tobytes())
        profile = np.zeros((), PROFILE)
        kernel.map_lookup(map_fd(datapath, "profiles"), place.tobytes(), profile)
        found[f"{address}/{int(key['length']) - 8}"] = profile.tobytes()
    return found


CHANGES: list[dict[str, Changes]] = [
    {},
    {"10.0.0.0/8": {"profile": "geant"}},
    {"10.0.0.0/8": {"profile": "geant"}, "10.1.0.0/16": {"latency_unit": "us"}},
    {"10.0.0.0/8": {"profile": "onos"}, "10.1.0.0/16": {"latency_unit": "ms"}, "2001:db8::/32": {"int_dscp": (1, 1)}},
    {"10.1.0.0/16": {"latency_unit": "ms"}},
    {"0.0.0.0/0": {"profile": "l2port4"}},
    {"0.0.0.0/0": {"profile": "l2port4"}, "::/0": {"profile": "l2port4"}, "10.1.2.3/32": {}},
    {},
]


def test_the_maps_follow_the_file(datapaths: Datapaths) -> None:
    """After each change exactly the file's prefixes are there, each with its own profile."""
    datapath = datapaths(CONFIG)
    for entries in [*CHANGES, *reversed(CHANGES)]:
        config = with_sources(entries)
        datapath.apply(config)
        assert held(datapath) == {
            str(source.network): profile_of(dataclasses.replace(CONFIG, **dict(source.changes))).tobytes()
            for source in config.sources
        }


def test_the_next_report_is_judged_anew(datapaths: Datapaths) -> None:
    """A change counts for the next report of a source, also of one that was looked up before."""
    datapath = datapaths(CONFIG)
    source = "10.1.2.3"
    units = []
    for entries in ({}, {"10.0.0.0/8": {"latency_unit": "us"}}, {"10.1.0.0/16": {"latency_unit": "ms"}},
                    {"10.1.0.0/16": {"latency_unit": "ms"}, "10.1.2.3/32": {"latency_unit": "2^-32s"}},
                    {"10.1.0.0/16": {"latency_unit": "us"}}, {"10.2.0.0/16": {"latency_unit": "us"}}):  # fmt: skip
        config = with_sources(entries)
        datapath.apply(config)
        datapath.run(reports_of(config, source))
        units += datapath.state().flows["time_unit"].tolist()
    assert units == [0, 1, 2, 3, 1, 0]


GEANT_US: Changes = {"profile": "geant", "latency_unit": "us"}
GEANT_MS: Changes = {"profile": "geant", "latency_unit": "ms"}
ONOS: Changes = {"profile": "onos", "latency_unit": "2^-32s"}
TURNS: dict[str, tuple[Changes, list[dict[str, Changes]]]] = {
    "another profile": (
        {},
        [
            {"10.1.2.3/32": GEANT_US},
            {"10.1.2.3/32": GEANT_MS},
            {"10.0.0.1/32": ONOS, "10.1.2.3/32": GEANT_US, "10.1.2.4/32": ONOS},
        ],
    ),
    "a longer prefix": ({}, [{"10.0.0.0/8": GEANT_US}, {"10.0.0.0/8": ONOS, "10.1.0.0/16": GEANT_MS}]),
    "a longer one with others": (
        {},
        [
            {"10.0.0.0/8": ONOS, "10.1.0.0/16": GEANT_US},
            {"10.0.0.0/8": ONOS, "10.1.0.0/16": ONOS, "10.1.2.0/24": GEANT_MS},
        ],
    ),
    "another length, all else gone": (
        {},
        [
            {"0.0.0.0/0": ONOS, "10.0.0.0/8": ONOS, "10.1.0.0/16": GEANT_US},
            {"10.1.2.0/24": GEANT_MS, "10.1.3.0/24": ONOS},
        ],
    ),
    "all gone": (GEANT_MS, [{"0.0.0.0/0": ONOS, "10.0.0.0/8": ONOS, "10.1.0.0/16": GEANT_US}, {}]),
    "all at once": (
        {},
        [
            {"0.0.0.0/0": ONOS, "10.1.2.3/32": GEANT_US, **{f"10.9.{i}.0/24": ONOS for i in range(100)}},
            {"0.0.0.0/0": GEANT_MS, **{f"10.8.{i}.0/24": ONOS for i in range(100)}},
        ],
    ),
}
"""How all others write, and files that replace one another: 10.1.2.3 may be read by GEANT_US and by GEANT_MS."""


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_change_while_reports_come(datapaths: Datapaths, turn: tuple[Changes, list[dict[str, Changes]]]) -> None:
    """Every report is judged by its source's old profile or by its new one: none is refused, lost or read otherwise."""
    others, files = turn
    base = dataclasses.replace(CONFIG, int_dscp=(23, 63), **others)
    configs = [with_sources(entries, base) for entries in files]
    source = "10.1.2.3"
    (one,) = {reports_of(config, source) for config in configs}  # the same bytes, in another unit
    assert wire.decode(one, with_sources({source: ONOS}, base))["outcome"] == "hop_ml_mismatch"
    datapath = datapaths(configs[0])
    stop, each, runs = threading.Event(), 200, 0

    def work() -> None:
        nonlocal runs
        while not stop.is_set():
            datapath.run(one, repeat=each)
            runs += each

    writer = threading.Thread(target=work)
    writer.start()
    try:
        applied = 0
        while applied < 400 or runs < 20_000:
            applied += 1
            datapath.apply(configs[applied % len(configs)])
            assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    state = datapath.state()
    assert outcomes_of(state) == {"ok": runs}
    assert state.sources["received"].tolist() == [runs] and state.flows["reports"].tolist() == [runs]
    counted = state.port_statistics["buckets"].sum(axis=0)
    as_us, as_ms = counted[bucket(900 * 1000)], counted[bucket(900 * 10**6)]
    assert as_us + as_ms == counted.sum() == 2 * runs
    assert as_us and as_ms


# --- units ------------------------------------------------------------------------------------------------------------

EDGES = [0, 1, 2, 3, 999, 1000, 4294, 4295, 4_294_967, 4_294_968, 2**31, 2**32 - 2]


@pytest.mark.parametrize("unit", TIME_UNITS)
def test_histograms_are_in_ns(datapaths: Datapaths, unit: str) -> None:
    """Whatever a source counts time in, its latencies are counted and summed in ns; flows keep its own numbers."""
    config = with_sources({"192.0.2.1": {"latency_unit": unit}})
    _, multiplier, shift = TIME_UNITS[unit]
    for latency in [*EDGES, None]:
        datapath = datapaths(config)
        datapath.run(frame(config, {"switch_id": 4, "egress_port_id": 3, "hop_latency": latency}))
        state = datapath.state()
        ns = None if latency is None else latency * multiplier >> shift
        statistics = state.port_statistics[1]
        assert np.flatnonzero(statistics["buckets"]).tolist() == [bucket(ns)]
        assert int(statistics["latency_sum"]) == (ns or 0)
        (flow,) = state.flows
        assert flow["time_unit"] == TIME_UNITS[unit][0]
        assert flow["hops"][0]["latency"] == (NONE32 if latency is None else latency)
        (told,) = datapath.drain().reports
        assert told["time_unit"] == TIME_UNITS[unit][0]


def test_a_report_that_says_nothing_of_a_flow_leaves_its_unit(datapaths: Datapaths) -> None:
    """A flow is in the unit of the source that its latency came from, whoever else reports of it."""
    config = with_sources({"192.0.2.1": {"latency_unit": "us"}, "192.0.2.3": {"latency_unit": "ms"}})
    datapath = datapaths(config)
    flow = "10.0.0.1:1>10.0.0.2:2/17"
    stack = {"switch_id": 4, "hop_latency": 505}
    others: list[dict[str, Any]] = [
        {"dropped": True, "local": {"drop_reason": 1}},
        {"congested_queue": True, "tracked_flow": False, "local": {"hop_latency": 7}},
        {"local": {"hop_latency": 7}},  # a postcard, of a flow that has a stack
        {},
    ]
    datapath.run(frame(config, stack, flow=flow))
    for other in others:
        datapath.run(frame(config, flow=flow, source="192.0.2.2", **other))
        (entry,) = datapath.state().flows
        assert (int(entry["time_unit"]), int(entry["latency"])) == (TIME_UNITS["us"][0], 505)
    datapath.run(frame(config, stack, flow=flow, source="192.0.2.3"))
    (entry,) = datapath.state().flows
    assert entry["time_unit"] == TIME_UNITS["ms"][0]


def points(datapath: Datapath, name: str) -> dict[tuple[int, int], tuple[int, int]]:
    """(switch_id, id) -> (value, unit)."""
    array = getattr(datapath.state(), name)[1:]
    assert array.dtype == POINT
    return {(int(p["switch_id"]), int(p["id"])): (int(p["value"]), int(p["unit"])) for p in array}


def test_units_of_queues_and_ports(datapaths: Datapaths) -> None:
    """A queue has the bytes a unit, a port the units a line rate, of the source that last said how full it is."""
    config = with_sources({
        "192.0.2.1": {"queue_occupancy_bytes": 80, "tx_utilization_full": 100},
        "192.0.2.2": {"queue_occupancy_bytes": 1, "tx_utilization_full": 10_000},
    })  # fmt: skip
    datapath = datapaths(config)
    hop = {"switch_id": 4, "egress_port_id": 3, "queue_id": 5, "queue_occupancy": 9, "egress_port_tx_utilization": 7}
    datapath.run(frame(config, hop))
    assert (points(datapath, "queues"), points(datapath, "ports")) == ({(4, 5): (9, 80)}, {(4, 3): (7, 100)})
    datapath.run(frame(config, hop | {"queue_occupancy": None}, source="192.0.2.2"))
    assert (points(datapath, "queues"), points(datapath, "ports")) == ({(4, 5): (9, 80)}, {(4, 3): (7, 10_000)})
    datapath.run(frame(config, hop | {"egress_port_tx_utilization": None}, source="192.0.2.3"))
    assert (points(datapath, "queues"), points(datapath, "ports")) == ({(4, 5): (9, 0)}, {(4, 3): (7, 10_000)})
    local = {"egress_port_id": 3, "egress_port_tx_utilization": 8, "queue_id": 6, "queue_occupancy": 2}
    datapath.run(frame(config, switch_id=4, local=local))
    assert points(datapath, "ports") == {(4, 3): (8, 100)}
    assert points(datapath, "queues") == {(4, 5): (9, 0), (4, 6): (2, 80)}


def test_thresholds_are_in_wire_units(datapaths: Datapaths) -> None:
    """What is news is judged by the numbers that the device sends, whatever they stand for."""
    config = with_sources(
        {"192.0.2.1": {"latency_unit": "ms", "queue_occupancy_bytes": 1000}},
        dataclasses.replace(CONFIG, hop_latency_threshold=50, queue_occupancy_threshold=50),
    )
    datapath = datapaths(config)
    hop = {"switch_id": 4, "queue_id": 1, "hop_latency": 100, "queue_occupancy": 100}
    for more in ({}, {"hop_latency": 150}, {"queue_occupancy": 150}, {"hop_latency": 151, "queue_occupancy": 151}):
        datapath.run(frame(config, hop | more))
    batch = datapath.drain()
    assert len(batch) == 2
    assert batch.reports["hop_latency_changes"].tolist() == batch.reports["queue_occupancy_changes"].tolist() == [1, 1]
