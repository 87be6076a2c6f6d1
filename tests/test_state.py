"""What the maps hold after reports: the remembering half of bpf/collector.c, recounted in Python."""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
import itertools
import os
import random
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from intcollector import datapath as datapath_module
from intcollector import kernel, wire
from intcollector.batch import RESUME, State
from intcollector.config import PROFILES, Config
from intcollector.datapath import Datapath
from intcollector.layout import LATENCY_BUCKETS, LAYOUT, MAX_HOPS, OUTCOMES, FlowFlag
from intcollector.place import bpf_folder
from intcollector.program import flow_entries

from . import batches
from .frames import NONE32, Datapaths, Hop, frame, numbered, on_all_cpus, on_one_cpu, quiet, two_cpus
from .needs import needs_root

pytestmark = needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
DEADLINE_S = 30.0
NONE16, NONE64 = 2**16 - 1, 2**64 - 1
FLOW_PROBES = LAYOUT.defines["FLOW_PROBES"]
TABLE_SIZES = {"points": 16384, "sources": 4096, "drops": 4096}
"""bpf/maps.h; index 0 of the arrays is nobody's."""


def run(datapath: Datapath, *frames: bytes) -> State:
    """Run frames; the maps after it."""
    for one in frames:
        datapath.run(one)
    return datapath.state()


def flows_of(state: State) -> dict[tuple[Any, ...], np.ndarray]:
    """(source, destination, source_port, destination_port, protocol) -> its entry."""
    found = {}
    for key, flow in zip(state.flow_keys, state.flows, strict=True):
        size = {4: 4, 6: 16}[int(key["ip_version"])]
        ends = [str(ipaddress.ip_address(key[name][:size].tobytes())) for name in ("source", "destination")]
        assert not key["pad"] and not key["source"][size:].any() and not key["destination"][size:].any()
        found[(*ends, *(int(key[name]) for name in ("source_port", "destination_port", "protocol")))] = flow
    assert len(found) == len(state.flows)
    return found


def points_of(points: np.ndarray, statistics: np.ndarray) -> dict[tuple[int, int], tuple[np.void, np.void]]:
    """(switch_id, port or queue) -> its entry and statistics. Nobody's is (NONE32, NONE16)."""
    found: dict[tuple[int, int], tuple[np.void, np.void]] = {}
    for index, (point, beside) in enumerate(zip(points, statistics, strict=True)):
        key = (int(point["switch_id"]), int(point["id"])) if index else (NONE32, NONE16)
        if key in found and not any(beside.tobytes()):
            continue  # two CPUs began an entry at the same time: one of both is never used
        assert key not in found or not any(found[key][1].tobytes())
        found[key] = point, beside
    return found


def outcomes_of(state: State) -> dict[str, int]:
    """How many packets had each outcome, of those that had any."""
    counts = state.counters["outcomes"].tolist()
    assert not any(counts[len(OUTCOMES) :])
    return {name: count for name, count in zip(OUTCOMES, counts, strict=False) if count}


# --- histograms -------------------------------------------------------------------------------------------------------


def bucket(latency: int | None) -> int:
    """Of ns: 0 -> 0, [2^k, 2^(k+1)) -> k + 1, from 2^32 on 33, no latency -> the last."""
    if latency is None:
        return LATENCY_BUCKETS - 1
    for k in range(33):
        if latency < 2**k:
            return k
    return 33


EDGES = [0, 1, 2, 3, 4, *(e for k in range(3, 32) for e in (2**k - 1, 2**k)), 2**32 - 2, None]


@pytest.mark.parametrize("latency", EDGES)
def test_the_bucket_of_a_latency(datapaths: Datapaths, latency: int | None) -> None:
    """Each latency is counted once, in the bucket between its powers of two; none in a bucket of its own."""
    state = run(datapaths(CONFIG), frame(CONFIG, {"switch_id": 4, "egress_port_id": 3, "hop_latency": latency}))
    _, statistics = points_of(state.ports, state.port_statistics)[4, 3]
    assert np.flatnonzero(statistics["buckets"]).tolist() == [bucket(latency)]
    assert statistics["buckets"].sum() == 1
    assert statistics["latency_sum"] == (latency or 0)


# --- everything, recounted --------------------------------------------------------------------------------------------


def latency_of(hop: Mapping[str, int | None], wide: bool = False) -> int | None:
    """A hop's latency, or where it has none the difference of its timestamps, in their width."""
    if hop.get("hop_latency") is not None:
        return hop["hop_latency"]
    ingress, egress = hop.get("ingress_timestamp"), hop.get("egress_timestamp")
    if ingress is None or egress is None:
        return None
    apart = (egress - ingress) % (2**64 if wide else 2**32)
    return apart if apart < NONE32 else None


FIELDS = ("switch_id", "egress_port_id", "hop_latency", "queue_id", "queue_occupancy", "ingress_timestamp",
          "egress_timestamp", "egress_port_tx_utilization")  # fmt: skip
NUMBERS: dict[str, Callable[[random.Random], int]] = {
    "switch_id": lambda r: r.randrange(6),
    "egress_port_id": lambda r: r.choice([0, 1, 2, NONE16 - 1]),
    "queue_id": lambda r: r.choice([0, 1, 254]),
    "queue_occupancy": lambda r: r.choice([0, r.randrange(300), 2**24 - 2]),
}


def any_number(chance: random.Random) -> int:
    """Small, a power of two, or large."""
    return chance.choice([chance.randrange(1000), 2 ** chance.randrange(32), chance.getrandbits(32) >> 1])


def any_hop(chance: random.Random, fields: tuple[str, ...]) -> dict[str, int | None]:
    """Values as they come, some of them missing."""
    return {name: None if chance.random() < 0.15 else NUMBERS.get(name, any_number)(chance) for name in fields}


@dataclasses.dataclass
class Recount:
    """The maps, from what was reported: plain dictionaries of what series.py will read."""

    ports: dict[tuple[int, int], dict[str, Any]]
    queues: dict[tuple[int, int], dict[str, Any]]

    def hop(self, hop: Mapping[str, int | None], wide: bool) -> None:
        """One hop of a report, the kept ones only."""
        switch = hop.get("switch_id")
        some = {name: NONE16 if hop.get(name) is None else hop[name] for name in ("egress_port_id", "queue_id")}
        port = (NONE32, NONE16) if switch is None else (switch, some["egress_port_id"])
        said = self.ports.setdefault(port, {"buckets": [0] * LATENCY_BUCKETS, "sum": 0, "value": NONE32})  # type: ignore[arg-type]
        latency = latency_of(hop, wide)
        said["buckets"][bucket(latency)] += 1
        said["sum"] += latency or 0
        utilization, occupancy = hop.get("egress_port_tx_utilization"), hop.get("queue_occupancy")
        if utilization is not None and port[1] != NONE16 and switch is not None:
            said["value"] = utilization
        if switch is not None and some["queue_id"] != NONE16:
            queue = self.queues.setdefault((switch, some["queue_id"]), {"value": NONE32, "max": 0})  # type: ignore[arg-type]
            if occupancy is not None:
                queue["value"] = occupancy
                queue["max"] = max(queue["max"], occupancy + 1)


def frame_of(int_version: str, config: Config, hops: Sequence[Mapping[str, int | None]], flow: str) -> bytes:
    """A frame with a stack of INT 0.5 or 2.x, in a report of the Telemetry Report that came with it."""
    version, missing = ("0.5", "switch_id") if int_version == "0.5" else ("2.0", "ingress_timestamp")
    report = batches.report(version=version, flow=flow, **{missing: None})
    if hops:
        items = wire.ITEMS_0_5 if int_version == "0.5" else wire.ITEMS_2
        bits = [bit for bit, item in items.items() if {name for name, _ in item.fields} & hops[0].keys()]
        bitmap = sum(0x8000 >> bit for bit in bits)
        every: dict[str, int | None] = {name: None for bit in bits for name, _ in items[bit].fields}
        report["int"] = {
            "version": int_version,
            "mode": "MD",
            "instruction_bitmap": f"{bitmap:#06x}",
            "hop_ml": wire.words(bitmap, items),
            "remaining_hop_count": 8,
            "hop_count": len(hops),
            "hops": [{**every, **hop} for hop in hops],
        }
    return wire.encode(report, config)


@pytest.mark.parametrize("layout", ["spec", "l2port4", "geant", "onos", "intcollector", "0.5", "2.x"])
def test_the_maps_are_exact(datapaths: Datapaths, layout: str) -> None:
    """Flows, ports, queues and histograms hold what a recount in Python of 600 reports of all shapes gives."""
    chance = random.Random(layout)
    profile = layout if layout in PROFILES else "spec"
    config = dataclasses.replace(CONFIG, profile=profile)
    wide = layout in ("geant", "2.x")
    recount = Recount({(NONE32, NONE16): {"buckets": [0] * LATENCY_BUCKETS, "sum": 0, "value": NONE32}}, {})
    flows: dict[tuple[Any, ...], dict[str, Any]] = {}
    frames = []
    for _ in range(600):
        fields = tuple(name for name in FIELDS if chance.random() < 0.8)
        count = chance.choice([0, 1, 2, 3, 6, 16, 17, 18]) if fields else 0
        hops: list[dict[str, int | None]] = [any_hop(chance, fields) for _ in range(count)]
        if profile == "intcollector":
            hops = [{n: v % 60000 if n == "queue_occupancy" and v else v for n, v in hop.items()} for hop in hops]
        if sum(2 if "stamp" in f and wide else 1 for f in fields) * count > 240:
            continue
        at = chance.randrange(40)
        key = (f"10.0.0.{at}", "10.1.0.1", at, 80, 6 if at % 2 else 17)
        text = f"{key[0]}:{key[2]}>{key[1]}:{key[3]}/{key[4]}"
        frames.append(frame(config, *hops, flow=text) if layout in PROFILES else frame_of(layout, config, hops, text))
        flow = flows.setdefault(key, {"reports": 0, "latency": NONE64, "hops": None})
        flow["reports"] += 1
        for hop in hops[:MAX_HOPS]:
            recount.hop(hop, wide)
        if not hops:
            continue
        latencies = [latency_of(hop, wide) for hop in hops[:MAX_HOPS]] + [h.get("hop_latency") for h in hops[MAX_HOPS:]]
        there = [latency for latency in latencies if latency is not None]
        flow["latency"] = sum(there) if there and None not in latencies[MAX_HOPS:] else NONE64
        flow["hops"] = [(h.get("switch_id"), latency_of(h, wide)) for h in hops[:MAX_HOPS]], len(hops)
    assert len(frames) > 500

    state = run(datapaths(config), *frames)
    assert outcomes_of(state) == {"ok": len(frames)}

    ports = points_of(state.ports, state.port_statistics)
    assert {k: s["buckets"].tolist() for k, (_, s) in ports.items()} == {
        k: said["buckets"] for k, said in recount.ports.items()
    }
    assert {k: int(s["latency_sum"]) for k, (_, s) in ports.items()} == {
        k: said["sum"] for k, said in recount.ports.items()
    }
    assert {k: int(p["value"]) for k, (p, _) in ports.items() if k[0] != NONE32} == {
        k: said["value"] for k, said in recount.ports.items() if k[0] != NONE32
    }
    queues = points_of(state.queues, state.queue_statistics)
    del queues[NONE32, NONE16]
    assert {k: (int(q["value"]), int(s["occupancy_max"])) for k, (q, s) in queues.items()} == {
        k: (said["value"], said["max"]) for k, said in recount.queues.items()
    }

    found = flows_of(state)
    assert {k: int(f["reports"]) for k, f in found.items()} == {k: said["reports"] for k, said in flows.items()}
    assert {k: int(f["latency"]) for k, f in found.items()} == {k: said["latency"] for k, said in flows.items()}
    for key, of_flow in flows.items():
        entry = found[key]
        assert bool(entry["flags"] & FlowFlag.PATH) == (of_flow["hops"] is not None)
        if of_flow["hops"] is not None:
            kept, number = of_flow["hops"]
            assert entry["hop_count"] == number
            values = [(int(h["switch_id"]), int(h["latency"])) for h in entry["hops"][: len(kept)]]
            assert values == [tuple(NONE32 if v is None else v for v in hop) for hop in kept]


# --- latencies from timestamps ----------------------------------------------------------------------------------------

W32, W64 = 2**32, 2**64


@pytest.mark.parametrize(
    ("profile", "ingress", "egress", "latency"),
    [
        pytest.param("spec", 1000, 1400, 400, id="32 bits"),
        pytest.param("spec", 1000, 1000, 0, id="at once"),
        pytest.param("spec", W32 - 10, 20, 30, id="32 bits across the wrap"),
        pytest.param("spec", W32 - 2, 0, 2, id="32 bits just across"),
        pytest.param("spec", None, 20, None, id="no ingress timestamp"),
        pytest.param("spec", 20, None, None, id="no egress timestamp"),
        pytest.param("spec", 1000, 999, None, id="all ones apart is no value"),
        pytest.param("geant", W32 + 1000, W32 + 1400, 400, id="64 bits"),
        pytest.param("geant", W64 - 10, 20, 30, id="64 bits across the wrap"),
        pytest.param("geant", 2 * W32 - 10, 2 * W32 + 20, 30, id="64 bits where 32 would wrap"),
        pytest.param("geant", 5, 5 + W32 - 2, W32 - 2, id="64 bits, the most that is kept"),
        pytest.param("geant", 5, 5 + W32 - 1, None, id="64 bits, more than is kept"),
        pytest.param("geant", 5, 6 + 2 * W32, None, id="64 bits, far more"),
        pytest.param("geant", 20, 10, None, id="64 bits backwards"),
        pytest.param("geant", None, 10, None, id="64 bits, no ingress timestamp"),
        pytest.param("geant", 10, None, None, id="64 bits, no egress timestamp"),
    ],
)
def test_latency_from_timestamps(
    datapaths: Datapaths, profile: str, ingress: int | None, egress: int | None, latency: int | None
) -> None:
    """A hop without a latency but with both timestamps has one, by subtraction in their width."""
    config = dataclasses.replace(CONFIG, profile=profile)
    datapath = datapaths(config)
    stamps: Hop = {"switch_id": 4, "ingress_timestamp": ingress, "egress_timestamp": egress}
    for hop, expected in (
        (stamps, latency),
        (dict(stamps) | {"hop_latency": 7}, 7),
        (dict(stamps) | {"hop_latency": None}, latency),
    ):
        state = run(datapath, frame(config, hop))
        assert state.flows[0]["latency"] == (NONE64 if expected is None else expected)
        assert state.flows[0]["hops"][0]["latency"] == (NONE32 if expected is None else expected)


# --- the reporting switch, drops --------------------------------------------------------------------------------------


def test_what_the_reporting_switch_says_of_itself(datapaths: Datapaths) -> None:
    """The local hop counts for its switch's ports and queues; without the F bit, for no flow's path or latency."""
    local = {"egress_port_id": 3, "hop_latency": 400, "queue_id": 5, "queue_occupancy": 70,
             "egress_port_tx_utilization": 9}  # fmt: skip
    frames = [
        frame(CONFIG, switch_id=8, tracked_flow=False, local=local),
        frame(CONFIG, switch_id=8, tracked_flow=False, local=local | {"queue_occupancy": 60}),
    ]
    frames.append(
        wire.encode(batches.report(switch_id=8, local_hop={"hop_latency": 5}) | {"flow": wire.no_flow([])}, CONFIG)
    )
    state = run(datapaths(CONFIG), *frames)
    port, statistics = points_of(state.ports, state.port_statistics)[8, 3]
    assert port["value"] == 9
    assert statistics["buckets"][bucket(400)] == 2 and statistics["latency_sum"] == 800
    _, unnamed = points_of(state.ports, state.port_statistics)[8, NONE16]
    assert unnamed["buckets"][bucket(5)] == 1 and unnamed["buckets"].sum() == 1
    queue, most = points_of(state.queues, state.queue_statistics)[8, 5]
    assert (queue["value"], most["occupancy_max"]) == (60, 71)
    (flow,) = state.flows
    assert flow["latency"] == NONE64 and flow["hop_count"] == 0 and not flow["flags"] & FlowFlag.PATH


@pytest.mark.parametrize(
    ("ingress", "local", "latency"),
    [
        (1000, {"egress_timestamp": 1400}, 400),
        (2**32 - 10, {"egress_timestamp": 20}, 30),
        (1000, {"egress_timestamp": 1400, "hop_latency": 7}, 7),
        (1000, {"egress_timestamp": 1400, "hop_latency": NONE32}, 400),
        (1000, {"egress_timestamp": NONE32}, None),
        (1000, {"queue_id": 5}, None),
    ],
)
def test_latency_of_the_reporting_switch(datapaths: Datapaths, ingress: int, local: Hop, latency: int | None) -> None:
    """Without a hop latency the reporting switch's is from the report's ingress to its egress timestamp."""
    state = run(datapaths(CONFIG), frame(CONFIG, switch_id=8, ingress_timestamp=ingress, local=local))
    (statistics,) = state.port_statistics[1:]
    assert np.flatnonzero(statistics["buckets"]).tolist() == [bucket(latency)]
    assert statistics["latency_sum"] == (latency or 0)


def report_05(header: Hop | None, **more: Any) -> bytes:
    """A frame with a report of Telemetry Report 0.5. header: its local or drop header, which is zero where it says
    nothing."""
    if header is not None:
        kind = 1 if "drop_reason" in header else 2
        names = [name for name, _ in wire.SWITCH_0_5[kind].fields if name and name != "switch_id"]  # type: ignore[union-attr]
        more |= {"local_hop": {name: header.get(name, 0) for name in names}}
    switch = more.pop("switch_id", 8) if header is not None else None
    return wire.encode(batches.report(version="0.5", switch_id=switch, **more), CONFIG)


def report_20(local: Hop | None, **more: Any) -> bytes:
    """A frame with a report of Telemetry Report 2.0. local: as of frame()."""
    if local is not None:
        items = wire.REPORT_METADATA_2_0.values()
        names = [{name for name, _ in item.fields if name} for item in items]
        said = {name for some in names if some & local.keys() for name in some}
        more |= {"local_hop": {name: local.get(name, 0) for name in said}}
    report = batches.report(version="2.0", switch_id=8, ingress_timestamp=None, tracked_flow=False) | more
    return wire.encode(report, CONFIG)


@pytest.mark.parametrize(
    ("ingress", "egress", "latency"),
    [
        (1000, 1400, 400),
        (1000, 1000, 0),
        (W32 - 10, 20, 30),
        (1000, W32 - 1, None),
        (1000, 999, None),
        (W32 - 1, 20, 21),
    ],
)
def test_the_local_header_of_0_5(datapaths: Datapaths, ingress: int, egress: int, latency: int | None) -> None:
    """A switch-local header counts for its port and queue, with the latency from ingress to egress timestamp."""
    local = {
        "ingress_port_id": 2,
        "egress_port_id": 3,
        "queue_id": 5,
        "queue_occupancy": 70,
        "egress_timestamp": egress,
    }
    one = report_05(local, ingress_timestamp=ingress, tracked_flow=False)
    state = run(datapaths(CONFIG), one, report_05(local | {"queue_occupancy": 60}, ingress_timestamp=ingress))
    port, statistics = points_of(state.ports, state.port_statistics)[8, 3]
    assert np.flatnonzero(statistics["buckets"]).tolist() == [bucket(latency)]
    assert statistics["buckets"].sum() == 2 and statistics["latency_sum"] == 2 * (latency or 0)
    assert port["value"] == NONE32  # it says nothing of the port's utilisation
    queue, most = points_of(state.queues, state.queue_statistics)[8, 5]
    assert (queue["value"], most["occupancy_max"]) == (60, 71)
    assert len(state.ports) == len(state.queues) == 2 and not len(state.drops)


def test_the_local_header_of_0_5_without_values(datapaths: Datapaths) -> None:
    """A port, queue or occupancy of all ones is none: only the switch's latency is kept, beside no port's number."""
    local = {"egress_port_id": NONE16, "queue_id": 255, "queue_occupancy": 2**24 - 1, "egress_timestamp": 1400}
    state = run(datapaths(CONFIG), report_05(local, ingress_timestamp=1000))
    _, statistics = points_of(state.ports, state.port_statistics)[8, NONE16]
    assert statistics["buckets"][bucket(400)] == 1
    assert len(state.queues) == 1
    state = run(datapaths(CONFIG), report_05(local | {"queue_id": 5}, ingress_timestamp=1000))
    queue, most = points_of(state.queues, state.queue_statistics)[8, 5]
    assert (queue["value"], most["occupancy_max"]) == (NONE32, 0)


@pytest.mark.parametrize(
    ("ingress", "egress", "said", "latency"),
    [
        pytest.param(1000, 1400, None, 400, id="64 bits"),
        pytest.param(W64 - 10, 20, None, 30, id="across the wrap"),
        pytest.param(2 * W32 - 10, 2 * W32 + 20, None, 30, id="where 32 bits would wrap"),
        pytest.param(5, 5 + W32 - 2, None, W32 - 2, id="the most that is kept"),
        pytest.param(5, 5 + W32 - 1, None, None, id="more than is kept"),
        pytest.param(5, 4 + 2 * W32, None, None, id="far more"),
        pytest.param(20, 10, None, None, id="backwards"),
        pytest.param(W64 - 1, 10, None, None, id="no ingress timestamp"),
        pytest.param(10, W64 - 1, None, None, id="no egress timestamp"),
        pytest.param(1000, 1400, 7, 7, id="a latency of its own"),
        pytest.param(1000, 1400, NONE32, 400, id="no latency of its own"),
    ],
)
def test_latency_of_a_node(
    datapaths: Datapaths, ingress: int, egress: int, said: int | None, latency: int | None
) -> None:
    """Without a hop latency the node's is from its ingress to its egress timestamp, of 64 bits."""
    local = {"egress_port_id": 3, "ingress_timestamp": ingress, "egress_timestamp": egress}
    state = run(datapaths(CONFIG), report_20(local | ({} if said is None else {"hop_latency": said})))
    (statistics,) = state.port_statistics[1:]
    assert np.flatnonzero(statistics["buckets"]).tolist() == [bucket(latency)]
    assert statistics["latency_sum"] == (latency or 0)


def test_what_a_node_says_of_itself(datapaths: Datapaths) -> None:
    """Metadata of 2.0 counts for the node's port and queue; of what has a number only, what is not all ones."""
    local = {"egress_port_id": 3, "hop_latency": 400, "queue_id": 5, "queue_occupancy": 70, "buffer_occupancy": 2,
             "egress_port_tx_utilization": 9, "l2_egress_port_id": 77}  # fmt: skip
    none = dict.fromkeys(local, 0) | {"egress_port_id": 3, "queue_id": 255, "queue_occupancy": 9,
                                     "hop_latency": NONE32, "egress_port_tx_utilization": NONE32}  # fmt: skip
    elsewhere = report_20({"egress_port_id": 4, "hop_latency": 1})
    state = run(datapaths(CONFIG), report_20(local), report_20(none), elsewhere, report_20(None))
    port, statistics = points_of(state.ports, state.port_statistics)[8, 3]
    assert port["value"] == 9
    assert statistics["buckets"][bucket(400)] == statistics["buckets"][bucket(None)] == 1
    assert statistics["latency_sum"] == 400
    queue, most = points_of(state.queues, state.queue_statistics)[8, 5]
    assert (queue["value"], most["occupancy_max"]) == (70, 71)
    assert sorted(state.ports["id"][1:].tolist()) == [3, 4] and len(state.queues) == 2
    (flow,) = state.flows
    assert flow["reports"] == 4 and flow["latency"] == NONE64 and not flow["flags"] & FlowFlag.PATH


def test_a_node_without_a_flow(datapaths: Datapaths) -> None:
    """A report with nothing inside is received, counts for ports and queues, and makes no flow."""
    local = {"egress_port_id": 3, "hop_latency": 400}
    one = report_20(local, flow=None)
    unknown = bytearray(one)
    unknown[50] = 0x20 | unknown[50] & 15  # RepType 2: IOAM, whose contents nobody defines
    state = run(datapaths(CONFIG), one, bytes(unknown))
    assert outcomes_of(state) == {"ok": 2}
    assert not len(state.flows)
    assert state.sources["received"].tolist() == [2]
    _, statistics = points_of(state.ports, state.port_statistics)[8, 3]
    assert statistics["buckets"].sum() == 1


def test_drops_of_every_version(datapaths: Datapaths) -> None:
    """0.5's drop header is a drop, with the D bit or without; elsewhere D is. Switch and reason are where they are
    said."""
    gone = {"drop_queue_id": 1, "drop_reason": 71}
    frames = [
        report_05(gone),
        report_05(gone, dropped=True),
        report_05({"queue_id": 1}, dropped=True),  # of a switch, for no reason
        report_05(None, dropped=True),  # of no switch
        report_05({"queue_id": 1}),
        report_05(None),
        report_20(gone, dropped=True),
        report_20({"hop_latency": 1}, dropped=True),
        report_20(gone),
        report_20(None, dropped=True),
        report_20(gone, dropped=True, flow=None),
    ]
    state = run(datapaths(CONFIG), *frames)
    keys = zip(state.drop_keys["switch_id"].tolist(), state.drop_keys["reason"].tolist(), strict=True)
    assert dict(zip(keys, state.drops.tolist(), strict=True)) == {(8, 71): 4, (8, 255): 3, (NONE32, 255): 1}


def test_drops_are_counted_by_switch_and_reason(datapaths: Datapaths) -> None:
    """Each report with D counts once, for its switch and its reason; 255 where none was given."""
    reasons = [(1, 71), (1, 71), (1, 50), (2, 71), (1, None), (NONE32 - 1, 0)]
    frames = [
        frame(CONFIG, switch_id=s, dropped=True, local={} if r is None else {"drop_reason": r}) for s, r in reasons
    ]
    frames.append(frame(CONFIG, local={"drop_reason": 99}))  # without D nothing was dropped
    state = run(datapaths(CONFIG), *frames)
    keys = zip(state.drop_keys["switch_id"].tolist(), state.drop_keys["reason"].tolist(), strict=True)
    expected = collections.Counter((s, 255 if r is None else r) for s, r in reasons)
    assert dict(zip(keys, state.drops.tolist(), strict=True)) == expected


# --- flows ------------------------------------------------------------------------------------------------------------


def test_flows_are_told_apart(datapaths: Datapaths) -> None:
    """Addresses, ports, protocol and IP version make a flow; VLANs and DSCP do not."""
    texts = [
        "10.0.0.1:5000>10.0.0.2:5000/17", "10.0.0.2:5000>10.0.0.1:5000/17", "10.0.0.1:5000>10.0.0.2:5000/6",
        "10.0.0.1:5001>10.0.0.2:5000/17", "10.0.0.1:5000>10.0.0.2:5001/17", "a00:1:::5000>a00:2:::5000/17",
        "2001:db8::1:5000>2001:db8::2:5000/17", "2001:db8::1:5000>2001:db8::3:5000/17",
    ]  # fmt: skip
    frames = [frame(CONFIG, flow=text) for text in texts]
    frames += [frame(CONFIG, flow=texts[0], vlan_ids=[7]), frame(CONFIG, flow=texts[0], dscp=46)]
    found = flows_of(run(datapaths(CONFIG), *frames))
    assert {key: int(flow["reports"]) for key, flow in found.items()} == {
        _ends(text): 3 if text == texts[0] else 1 for text in texts
    }


def _ends(text: str) -> tuple[Any, ...]:
    key = batches.flow_key(text)
    ends = [str(ipaddress.ip_address(key[name])) for name in ("source", "destination")]
    return (*ends, key["source_port"], key["destination_port"], key["protocol"])


def test_a_flow_knows_its_source(datapaths: Datapaths) -> None:
    """A flow's source is the index of whoever reported it last."""
    frames = [frame(CONFIG, source=f"192.0.2.{i}", flow=f"10.0.0.{i}:1>10.0.0.9:1/17") for i in (1, 2, 3)]
    frames.append(frame(CONFIG, source="192.0.2.3", flow="10.0.0.1:1>10.0.0.9:1/17"))
    state = run(datapaths(CONFIG), *frames)
    addresses = state.sources["address"][:, 3]
    assert {key[0]: int(addresses[flow["source"] - 1]) for key, flow in flows_of(state).items()} == {
        "10.0.0.1": 3, "10.0.0.2": 2, "10.0.0.3": 3,
    }  # fmt: skip


@pytest.mark.parametrize("hops", [1, MAX_HOPS, MAX_HOPS + 1, 42, 126])
def test_any_number_of_hops(datapaths: Datapaths, hops: int) -> None:
    """The hops nearest the sink are kept, at most 16; the number and the latency are of all."""
    one = frame(CONFIG, *({"switch_id": 100 + i, "hop_latency": 2**31 + i} for i in range(hops)))
    (flow,) = run(datapaths(CONFIG), one).flows
    assert flow["hop_count"] == hops
    assert flow["latency"] == sum(2**31 + i for i in range(hops))
    kept = flow["hops"]["switch_id"].tolist()
    assert kept == [100 + i if i < hops else NONE32 for i in range(MAX_HOPS)]


def test_beyond_the_kept_hops_a_missing_latency_makes_the_sum_unknown(datapaths: Datapaths) -> None:
    """A hop that is not kept and has no latency leaves the flow without one, rather than with one too small."""
    hops: list[Hop] = [{"switch_id": i, "hop_latency": 10 if i != 17 else None} for i in range(20)]
    (flow,) = run(datapaths(CONFIG), frame(CONFIG, *hops)).flows
    assert flow["latency"] == NONE64


def test_a_flow_is_seen_at_any_time(datapaths: Datapaths) -> None:
    """However long the machine has run, to 2^20 ns; a report that comes late changes nothing."""
    datapath = datapaths(CONFIG)
    resume = np.zeros((), RESUME)
    resume["magic"] = LAYOUT.defines["RESUME_MAGIC"]
    for came_ns, seen_ns in (
        (5 << 52 | 7 << 20 | 3, 5 << 52 | 7 << 20), ((5 << 52) - (9 << 20), 5 << 52 | 7 << 20),
        (255 << 52 | 1 << 20, 255 << 52 | 1 << 20),
    ):  # fmt: skip
        resume["received_ns"] = came_ns
        kernel.test_run_behind(datapath._long_way, resume.tobytes(), the_flow(1))
        assert datapath.state().flow_seen_ns().tolist() == [seen_ns]


def test_flows_are_capped(datapaths: Datapaths) -> None:
    """However many flows there are, at most --max-flows are kept: with right values, and what is in use among them."""
    config = dataclasses.replace(CONFIG, max_flows=64)
    datapath = datapaths(config)
    with on_one_cpu():
        used = frame(config, {"switch_id": 1, "hop_latency": 77}, flow="10.9.9.9:9>10.9.9.8:9/17")
        for i in range(3000):
            datapath.run(frame(config, {"switch_id": 1, "hop_latency": i}, flow=f"10.0.0.1:{i}>10.0.0.2:1/17"))
            datapath.run(used)
        state = datapath.state()
    assert 1 < len(state.flows) <= 64
    found = flows_of(state)
    kept = found.pop(("10.9.9.9", "10.9.9.8", 9, 9, 17))
    assert kept["reports"] == 3000 and kept["latency"] == 77
    numbers = sorted(key[2] for key in found)
    assert numbers[-1] == 2999 and numbers[0] >= 3000 - 128
    for key, flow in found.items():
        assert (int(flow["latency"]), int(flow["reports"])) == (key[2], 1)
    assert state.counters["flows_refused"] == 0
    assert state.sources["received"].tolist() == [6000]


def the_flow(number: int) -> bytes:
    """A report of the flow from this port."""
    return frame(CONFIG, {"switch_id": 1, "hop_latency": number}, flow=f"10.0.0.1:{number}>10.0.0.2:1/17")


@two_cpus
@pytest.mark.parametrize("count", [64, 1024])
def test_as_many_flows_as_asked_for_are_kept(datapaths: Datapaths, count: int) -> None:
    """All of --max-flows, whichever CPUs they come on; one more, and one of the oldest is not shown."""
    datapath = datapaths(dataclasses.replace(CONFIG, max_flows=count))
    cpus = sorted(os.sched_getaffinity(0))
    try:
        for number in range(count):
            os.sched_setaffinity(0, {cpus[0 if number < count // 3 else 1]})
            datapath.run(the_flow(number))
    finally:
        os.sched_setaffinity(0, cpus)
    state = datapath.state()
    assert sorted(key[2] for key in flows_of(state)) == list(range(count))
    last_tick, deadline = int(state.flow_seen_ns().max()), time.monotonic() + DEADLINE_S
    while datapath.state().flow_seen_ns().max() == last_tick:
        datapath.run(the_flow(count))
        assert time.monotonic() < deadline
    left = sorted(key[2] for key in flows_of(datapath.state()))
    assert len(left) == count and left[-1] == count


@pytest.mark.parametrize(("asked", "cpus", "entries"), [
    (1, 1, 129), (64, 2, 320), (100_000, 2, 131_073), (70_000, 2, 70_256), (131_072, 4, 131_584),
    (2**24, 8, 2**24 + 1024),
])  # fmt: skip
def test_entries_of_the_map_of_flows(asked: int, cpus: int, entries: int) -> None:
    """Room for those that CPUs hold ready; a third more where that makes twice the buckets."""
    assert flow_entries(asked, cpus) == entries


# --- full tables ------------------------------------------------------------------------------------------------------


def test_more_sources_than_there_is_room_for(datapaths: Datapaths) -> None:
    """A source that finds no room is not counted, its reports are counted as refused; the others stay exact."""
    datapath = datapaths(CONFIG)
    base = frame(CONFIG, flow="10.0.0.1:1>10.0.0.2:1/17")
    room, more = TABLE_SIZES["sources"] - 1, 10
    for number in range(room + more):
        datapath.run(base[:46] + struct.pack("!I", 1 + number) + base[50:])  # switch_id
    state = run(datapath, base)
    assert len(state.sources) == room
    assert state.counters["sources_refused"] == more
    assert state.sources["received"].tolist() == [2] + [1] * (room - 1)
    assert state.flows[0]["reports"] == room + more + 1


def test_more_ports_and_queues_than_there_is_room_for(datapaths: Datapaths) -> None:
    """A port or queue that finds no room is nobody's, and counted; latencies stay exact in sum."""
    datapath = datapaths(CONFIG)
    room = TABLE_SIZES["points"] - 1
    ids = itertools.count()
    reports = -(-(room + 100) // MAX_HOPS)
    for _ in range(reports):
        hops = [
            {"switch_id": i // 60000 + 1, "egress_port_id": i % 60000, "queue_id": i % 200, "queue_occupancy": 1,
             "hop_latency": 1}
            for i in itertools.islice(ids, MAX_HOPS)
        ]  # fmt: skip
        datapath.run(frame(CONFIG, *hops))
    state = datapath.state()
    refused = reports * MAX_HOPS - room
    assert len(state.ports) == room + 1
    assert state.counters["points_refused"] == refused
    buckets = state.port_statistics["buckets"][:, bucket(1)]
    assert buckets[0] == refused and buckets[1:].tolist() == [1] * room
    assert len(state.queues) == 201 and state.queue_statistics["occupancy_max"][1:].tolist() == [2] * 200


def test_more_kinds_of_drops_than_there_is_room_for(datapaths: Datapaths) -> None:
    """A drop that finds no room is counted as refused, and every other by its reason."""
    datapath = datapaths(CONFIG)
    base = frame(CONFIG, dropped=True)
    more = 10
    for number in range(TABLE_SIZES["drops"] + more):
        datapath.run(base[:46] + struct.pack("!I", number) + base[50:])
    state = datapath.state()
    assert state.drops.tolist() == [1] * TABLE_SIZES["drops"]
    assert state.counters["drops_refused"] == more


# --- flows of one hash ------------------------------------------------------------------------------------------------


def test_flows_of_one_hash(datapaths: Datapaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows whose hash is the same are kept apart, as many as are looked for; those beyond it are counted."""
    monkeypatch.setattr(datapath_module, "HASH", np.zeros_like(datapath_module.HASH))
    datapath = datapaths(CONFIG)
    ports = range(1, FLOW_PROBES + 3)
    frames = [frame(CONFIG, {"switch_id": p, "hop_latency": p}, flow=f"10.0.0.1:{p}>10.0.0.2:1/17") for p in ports]
    try:
        for _ in range(3):
            state = run(datapath, *frames)
    finally:
        monkeypatch.undo()
        datapath.apply(CONFIG)
    found = {key[2]: (int(flow["reports"]), int(flow["latency"])) for key, flow in flows_of(state).items()}
    assert found == {p: (3, p) for p in ports[:FLOW_PROBES]}
    assert state.counters["flows_refused"] == 3 * (len(ports) - FLOW_PROBES)
    assert outcomes_of(state) == {"ok": 3 * len(ports)}


ENDS = {
    # high in a word, as a little-endian machine reads it: the last bytes of a prefix and of an interface id
    "IPv6": [f"2001:db8:0:{i & 3:x}::{i >> 2:x}" for i in range(64)],
    "IPv4": [f"10.0.{i & 3}.{i >> 2}" for i in range(64)],
    # the highest bit of each half of each word
    "IPv6, high bits": [f"2001:{a}:0:{b}:0:{c}:0:{d}" for a, b, c, d in itertools.product((0, 80), repeat=4)] * 4,
}


@pytest.mark.parametrize("which", ENDS)
def test_flows_between_neighbours(datapaths: Datapaths, which: str) -> None:
    """All flows of one port between all hosts of some networks are kept, whatever bits of addresses they differ in."""
    ends = ENDS[which]
    pairs = {(a, b) for a in ends[:32] for b in ends[-32:]}
    state = run(datapaths(CONFIG), *(frame(CONFIG, flow=f"{a}:123>{b}:123/17") for a, b in pairs))
    assert len(flows_of(state)) == len(pairs)
    assert not state.counters["flows_refused"]


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_every_packet_has_one_outcome(datapaths: Datapaths) -> None:
    """The outcomes add up to the packets, each being the one that the Python decoder gives."""
    datapath = datapaths(CONFIG)
    hop = {"switch_id": 4, "hop_latency": 4}
    valid = [frame(CONFIG, hop), frame(CONFIG, local={"drop_reason": 1}, flow="2001:db8::1:1>2001:db8::2:2/6")]
    frames = [*valid, valid[0][:14] + b"\x65" + valid[0][15:]]
    frames += [one for v in valid for one in wire.mutations(v, 2000, 7) if len(one) >= 14]
    expected = collections.Counter(wire.decode(one, CONFIG)["outcome"] for one in frames)
    assert outcomes_of(run(datapath, *frames)) == expected
    assert len(expected) > 10


@pytest.mark.parametrize("accepted", ["drop", "pass"])
@pytest.mark.parametrize("malformed", ["drop", "pass"])
def test_verdicts(datapaths: Datapaths, accepted: str, malformed: str) -> None:
    """Accepted and malformed reports meet the verdicts that were asked for; what is not ours always passes."""
    config = dataclasses.replace(CONFIG, accepted_verdict=accepted, malformed_verdict=malformed)
    datapath = datapaths(config)
    verdicts = {"drop": kernel.XDP_DROP, "pass": kernel.XDP_PASS}
    one = frame(config)
    assert datapath.run(one)[0] == verdicts[accepted]
    assert datapath.run(one[:42] + b"\x90" + one[43:])[0] == verdicts[malformed]
    assert datapath.run(one[:-1])[0] == verdicts[malformed]
    foreign = [
        one[:36] + b"\0\x35" + one[38:],
        one[:23] + b"\x06" + one[24:],
        one[:12] + b"\x08\x06" + one[14:],
        one[:14],
    ]
    assert [datapath.run(other)[0] for other in foreign] == [kernel.XDP_PASS] * 4


# --- two CPUs ---------------------------------------------------------------------------------------------------------


@two_cpus
def test_one_report_on_all_cpus_at_once(datapaths: Datapaths) -> None:
    """What all CPUs count of one source, drop reason and port at once is exact, and so are the events."""
    datapath = datapaths(CONFIG)
    hop = {"switch_id": 4, "egress_port_id": 3, "queue_id": 5, "hop_latency": 3, "queue_occupancy": 9}
    one = frame(CONFIG, hop, sequence_number=7, dropped=True, local={"drop_reason": 71})
    each = 100_000
    count = each * on_all_cpus(lambda _: datapath.run(one, repeat=each))
    state = datapath.state()
    (source,) = state.sources[state.sources["received"] > 0]  # another CPU may have begun an entry for it, too
    assert source["received"] == count and source["duplicated"] == count - 1
    assert state.drops.tolist() == [count]
    assert state.counters["outcomes"][0] == count
    assert state.counters["events"] + state.counters["events_lost"] == count
    _, statistics = points_of(state.ports, state.port_statistics)[4, 3]
    assert statistics["buckets"][bucket(3)] == count and statistics["latency_sum"] == 3 * count
    assert len(datapath.drain()) == state.counters["events"] > 0


@two_cpus
def test_one_source_interleaved_on_all_cpus(datapaths: Datapaths) -> None:
    """Numbers of one source that come in on several CPUs, each once, are all received, none doubled."""
    datapath = datapaths(CONFIG)
    each = 5000
    base = frame(CONFIG)
    frames = [numbered(base, range(n, each * 8, 8)) for n in range(8)]

    def work(number: int) -> None:
        for one in frames[number]:
            datapath.run(one)

    cpus = on_all_cpus(work)
    sources = datapath.state().sources
    (source,) = sources[sources["received"] > 0]
    assert source["received"] == cpus * each
    assert source["duplicated"] == 0


@two_cpus
def test_all_cpus_learn_the_same_at_once(datapaths: Datapaths) -> None:
    """Sources, ports, queues and flows that several CPUs see first at the same time have one entry that counts."""
    datapath = datapaths(CONFIG)
    frames = [
        frame(CONFIG, {"switch_id": i, "egress_port_id": 3, "queue_id": 5, "hop_latency": 1, "queue_occupancy": 1},
              switch_id=i, flow=f"10.0.0.1:{i}>10.0.0.2:1/17")
        for i in range(1, 1001)
    ]  # fmt: skip

    def work(_: int) -> None:
        for one in frames:
            datapath.run(one)

    cpus = on_all_cpus(work)
    state = datapath.state()
    sources = state.sources[state.sources["received"] > 0]
    assert sorted(sources["switch_id"].tolist()) == list(range(1, 1001))
    assert sources["received"].tolist() == [cpus] * 1000
    buckets = state.port_statistics["buckets"][:, bucket(1)]
    used = buckets > 0
    assert sorted(state.ports["switch_id"][used].tolist()) == list(range(1, 1001))
    assert buckets[used].tolist() == [cpus] * 1000
    assert len(flows_of(state)) == 1000
    assert state.counters["flows_refused"] == state.counters["points_refused"] == 0


def test_the_sizes_of_the_tables() -> None:
    """The tables that these tests fill are as large as bpf/maps.h and report.h say."""
    text = "".join((bpf_folder() / name).read_text() for name in ("maps.h", "report.h"))
    for name, size in TABLE_SIZES.items():
        assert re.search(rf"^#define MAX_{name.upper()} {size}\b", text, re.MULTILINE)
