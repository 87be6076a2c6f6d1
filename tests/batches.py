"""Batches and States for tests, from what people write: reports in the shape of tests/data/vectors.json, and rows."""

from __future__ import annotations

import ipaddress
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from intcollector import batch
from intcollector.batch import Batch, State
from intcollector.layout import HEAD, HOP, LAYOUT, MAX_HOPS

TIME_UNITS = {"ns": 0, "us": 1, "ms": 2, "2^-32s": 3}
"""By the words of Config.latency_unit."""

VECTORS = pathlib.Path(__file__).parent / "data" / "vectors.json"

NONE32 = 2**32 - 1
VERSIONS = {"0.5": 5, "1.0": 10, "2.0": 20, "2.x": 20}
FLAGS = LAYOUT.enums["report_flag"]
CHANGES = LAYOUT.enums["change"]
STORED = {"congested_queue_id": "buffer_id", "queue_congestion": "buffer_occupancy"}
LOCAL_BITS = {
    "ingress_port_id": (0x20, 0x4000),
    "hop_latency": (0x10, 0x2000),
    "queue_id": (0x08, 0x1000),
    "ingress_timestamp": (0, 0x0800),
    "egress_timestamp": (0x04, 0x0400),
    "l2_ingress_port_id": (0, 0x0200),
    "drop_queue_id": (0x02, 0x0001),
    "egress_port_tx_utilization": (0x01, 0x0100),
    "buffer_id": (0, 0x0080),
}
"""A field of a local hop -> its bit in Telemetry Report 1.0's six and in 2.0's sixteen."""


def vectors() -> list[dict[str, Any]]:
    """The test vectors."""
    loaded: list[dict[str, Any]] = json.loads(VECTORS.read_text())
    return loaded


def report(*hops: Mapping[str, Any], flow: str = "10.0.0.1:5000>10.0.0.2:5000/17", **more: Any) -> dict[str, Any]:
    """A report with a stack; hops nearest the sink first, all with the first one's fields. more: other keys of a
    report, changes and received_ns among them."""
    ends, protocol = flow.split("/")
    (source, source_port), (destination, destination_port) = (e.rsplit(":", 1) for e in ends.split(">"))
    bits = {
        "switch_id": 0x8000, "egress_port_id": 0x4000, "hop_latency": 0x2000, "queue_id": 0x1000,
        "ingress_timestamp": 0x0800, "egress_timestamp": 0x0400, "egress_port_tx_utilization": 0x0100,
    }  # fmt: skip
    latencies = [h["hop_latency"] for h in hops if h.get("hop_latency") is not None]
    stack = {
        "version": "1.0",
        "mode": "MD",
        "instruction_bitmap": f"0x{sum(bits.get(name, 0) for name in hops[0]) if hops else 0:04x}",
        "hop_ml": 8,
        "remaining_hop_count": 8,
        "hop_count": len(hops),
        "hops": list(hops),
        "latency": sum(latencies) if latencies else None,
    }
    return {
        "version": "1.0",
        "source": "192.0.2.1",
        "switch_id": 1,
        "hw_id": 0,
        "sequence_number": 1,
        "ingress_timestamp": 1000,
        "dropped": False,
        "congested_queue": False,
        "tracked_flow": True,
        "intermediate": False,
        "local_hop": None,
        "flow": {
            "vlan_ids": [],
            "ip_version": ipaddress.ip_address(source).version,
            "source": source,
            "destination": destination,
            "protocol": int(protocol),
            "source_port": int(source_port),
            "destination_port": int(destination_port),
            "dscp": 0,
        },
        "int": stack if hops else None,
    } | more


def batch_of(reports: Iterable[Mapping[str, Any]], clock_ns: int = 0) -> Batch:
    """What the kernel program would have brought up. Beside the vectors' keys a report may have those of a record:
    changes, received_ns (since 1970) and postcards, whose cells come in another order; and time_unit."""
    reports = list(reports)
    heads = np.zeros(len(reports), HEAD)
    all_hops: list[np.void] = []
    hop_report: list[int] = []
    hop_index: list[int] = []
    for row, said in enumerate(reports):
        heads[row] = _head(said, clock_ns)
        if "postcards" in said:
            hops = places(said["postcards"]["hops"])
        else:
            hops = [_hop(hop) for hop in ((said["int"] or {}).get("hops") or [])[:MAX_HOPS]]
        all_hops += hops
        hop_report += [row] * len(hops)
        hop_index += range(len(hops))
    return Batch(
        heads,
        np.array(all_hops, HOP) if all_hops else np.empty(0, HOP),
        np.array(hop_report, np.intp),
        np.array(hop_index, np.intp),
        clock_ns,
    )


def _hop(said: Mapping[str, Any]) -> np.void:
    hop = np.zeros(1, HOP)
    for name in HOP.names or ():
        hop[name] = np.iinfo(HOP[name]).max
    for name, value in said.items():
        if value is not None and not name.startswith("drop_"):
            hop[STORED.get(name, name)] = value
    if said.get("hop_latency") is not None:
        hop["latency"] = said["hop_latency"]
    elif said.get("ingress_timestamp") is not None and said.get("egress_timestamp") is not None:
        hop["latency"] = (said["egress_timestamp"] - said["ingress_timestamp"]) % 2**32
    one: np.void = hop[0]
    return one


def places(hops: Sequence[Mapping[str, Any]]) -> list[np.void]:
    """The cells of a flow's postcards, hops nearest the sink first: the switch furthest from it first. order: a hop's
    own, or as if each had been 1 us after the next."""
    cells = []
    for i, hop in reversed(list(enumerate(hops))):
        more = {name: value for name, value in hop.items() if name not in ("hop_latency", "order")}
        cell = _hop({**more, "ingress_timestamp": hop.get("order", 10**15 - 1000 * i)})
        cell["latency"] = NONE32 if hop["hop_latency"] is None else hop["hop_latency"]
        cells.append(cell)
    return cells


def _head(said: Mapping[str, Any], clock_ns: int) -> np.void:
    array = np.zeros(1, HEAD)
    head = array[0]
    flags = {name for name in ("dropped", "congested_queue", "tracked_flow", "intermediate") if said[name]}
    source = ipaddress.ip_address(said["source"])
    if source.version == 6:
        flags.add("source_ipv6")
    head["source"][: len(source.packed)] = list(source.packed)
    head["report_version"] = VERSIONS[said["version"]]
    head["time_unit"] = TIME_UNITS[said.get("time_unit", "ns")]
    head["received_ns"] = said.get("received_ns", clock_ns) - clock_ns
    for name in ("hw_id", "sequence_number"):
        head[name] = said[name]
    head["switch_id"] = 2**32 - 1 if said["switch_id"] is None else said["switch_id"]
    head["ingress_timestamp"] = 2**32 - 1 if said["ingress_timestamp"] is None else said["ingress_timestamp"]

    head["local"] = _hop({})
    if (local := said["local_hop"]) is not None:
        flags.add("local")
        bits = {"queue_id": 8, "queue_occupancy": 24, "buffer_occupancy": 24}
        bits |= {} if said["version"] == "2.0" else {"egress_timestamp": 32}
        wide = {n: None if n in bits and v == 2 ** bits[n] - 1 else v for n, v in local.items()}
        head["local"] = _hop({**wide, "switch_id": said["switch_id"]})
        head["local_bitmap"] = sum(LOCAL_BITS[name][said["version"] == "2.0"] for name in local if name in LOCAL_BITS)
    for name in ("drop_queue_id", "drop_reason"):
        head[name] = (local or {}).get(name, 255)

    if (flow := said["flow"]) is not None:
        flags.add("inner")
        head["vlan_count"] = len(flow["vlan_ids"])
        head["vlan_ids"][: len(flow["vlan_ids"])] = flow["vlan_ids"]
        if flow["ip_version"]:
            flags.add(f"flow_ipv{flow['ip_version']}")
            for name in ("source", "destination"):
                packed = ipaddress.ip_address(flow[name]).packed
                head[f"flow_{name}"][: len(packed)] = list(packed)
            head["protocol"], head["dscp"] = flow["protocol"], flow["dscp"]
        if flow["source_port"] is not None:
            flags.add("flow_ports")
            head["source_port"], head["destination_port"] = flow["source_port"], flow["destination_port"]

    head["latency"] = head["flow_latency"] = 2**64 - 1
    if (stack := said["int"]) is not None:
        flags.add("int")
        if stack["mode"] == "MX":
            flags.add("int_mx")
        if stack["hop_count"] > MAX_HOPS:
            flags.add("hops_truncated")
        head["int_version"] = VERSIONS[stack["version"]]
        head["instruction_bitmap"] = int(stack["instruction_bitmap"], 0)
        head["hop_ml"] = stack["hop_ml"] or 0
        head["remaining_hop_count"] = stack["remaining_hop_count"] or 0
        head["hop_count"] = stack["hop_count"]
        if stack["latency"] is not None:
            head["latency"] = stack["latency"]
        latencies = [hop["latency"] for hop in map(_hop, stack["hops"]) if hop["latency"] != 2**32 - 1]
        if latencies:
            head["flow_latency"] = sum(map(int, latencies))
    if (cards := said.get("postcards")) is not None:
        flags.add("postcard")
        head["hop_count"] = cards["hop_count"]
        if cards["latency"] is not None:
            head["flow_latency"] = cards["latency"]
    head["flags"] = sum(FLAGS[f"REPORT_{name.upper()}"] for name in flags)

    for change in said.get("changes", ()):
        if isinstance(change, str):
            head["changes"] |= CHANGES[f"CHANGE_{change.upper()}"]
        elif change["hop"] == "local":
            head["changes"] |= CHANGES[f"CHANGE_LOCAL_{change['what'].removeprefix('egress_port_').upper()}"]
        else:
            head[f"{change['what'].removeprefix('egress_port_')}_changes"] |= 1 << change["hop"]
    one: np.void = array[0]
    return one


def news(said: Mapping[str, Any], *words: str) -> dict[str, Any]:
    """The report with everything about its hops as news, and these words."""
    whats = ("hop_latency", "queue_occupancy", "egress_port_tx_utilization")
    hops = said["int"]["hops"] if said["int"] else []
    of_hops = [{"hop": i, "what": what} for what in whats for i, hop in enumerate(hops) if hop.get(what) is not None]
    return {**said, "changes": [*words, *of_hops]}


# --- State ------------------------------------------------------------------------------------------------------------


def rows(dtype: np.dtype, *said: Mapping[str, Any]) -> np.ndarray:
    """A structured array; what a row does not say is zero. Addresses as text."""
    out = np.zeros(len(said), dtype)
    for row, fields in zip(out, said, strict=True):
        for name, value in fields.items():
            if isinstance(value, str):
                packed = ipaddress.ip_address(value).packed
                row[name][: len(packed)] = list(packed)
            elif isinstance(value, list):
                for i, one in enumerate(value):
                    for n, v in one.items():
                        row[name][i][n] = v
            else:
                row[name] = value
    return out


def flow_key(text: str) -> dict[str, Any]:
    """`10.0.0.1:5000>10.0.0.2:5000/17` -> a row of flow_key."""
    flow = report(flow=text)["flow"]
    return {n: flow[n] for n in ("source", "destination", "source_port", "destination_port", "protocol", "ip_version")}


def flow(
    *hops: tuple[int, int], latency: int | None = None, seen_ns: int = 1 << 20, time_unit: str = "ns"
) -> dict[str, Any]:
    """A row of flow that a stack was seen of. hops: (switch_id, latency), nearest the sink first. seen_ns: exact to
    2^20."""
    return {
        "flags": LAYOUT.enums["flow_flag"]["FLOW_PATH"],
        "hop_count": len(hops),
        "latency": sum(v for _, v in hops) if latency is None else latency,
        "time_unit": TIME_UNITS[time_unit],
        **batch.seen_fields(np.array(seen_ns)),
        "hops": [{"switch_id": s, "latency": v} for s, v in hops[:MAX_HOPS]],
    }


def postcard_flow(*places: tuple[int, int, int, int] | None, time_unit: str = "ns") -> dict[str, Any]:
    """A row of flow with postcards. places: (switch_id, latency, order, egress_port_id); None: free."""
    free = {"switch_id": NONE32, "latency": NONE32, "egress_port_id": 2**16 - 1, "queue_id": 2**16 - 1}
    hops = [free if p is None else {"switch_id": p[0], "latency": p[1], "egress_port_id": p[3]} for p in places]
    latencies = [p[1] for p in places if p and p[1] != NONE32]
    return {
        "flags": LAYOUT.enums["flow_flag"]["FLOW_POSTCARDS"],
        "latency": sum(latencies) if latencies else 2**64 - 1,
        "time_unit": TIME_UNITS[time_unit],
        "hops": [*hops, *[free] * (MAX_HOPS - len(hops))],
        "places": [{} if p is None else {"order": p[2], "seen": 1} for p in places],
    }


def port(switch_id: int, number: int, value: int = NONE32, unit: int = 0) -> dict[str, Any]:
    """A row of ports."""
    return {"switch_id": switch_id, "id": number, "kind": 1, "value": value, "unit": unit}


def queue(switch_id: int, number: int, value: int = NONE32, unit: int = 0) -> dict[str, Any]:
    """A row of queues."""
    return {**port(switch_id, number, value, unit), "kind": 2}


def bucket(latency: int | None) -> int:
    """Where the program counts a latency of so many ns."""
    return LAYOUT.defines["NO_LATENCY"] if latency is None else min(latency.bit_length(), 33)


def statistics(*latencies: int | None) -> dict[str, Any]:
    """A row of port_statistics that saw these."""
    buckets = np.bincount([bucket(v) for v in latencies], minlength=LAYOUT.defines["LATENCY_BUCKETS"])
    return {"latency_sum": sum(v or 0 for v in latencies), "buckets": buckets}


def source(address: str, switch_id: int, hw_id: int, **more: int) -> dict[str, Any]:
    """A row of sources. more: its counters; report_version, 10 if it is not said; reporter, if not the switch."""
    version = ipaddress.ip_address(address).version
    named = {"switch_id": switch_id, "hw_id": hw_id, "reporter": switch_id}
    return {"address": address, "ip_version": version, "report_version": 10, **named, **more}


def a_state() -> State:
    """One of everything: two flows, ports and queues of two switches, two sources, drops."""
    nobody: dict[str, Any] = {}
    counters = rows(batch.COUNTERS, {"events": 7, "events_lost": 2, "flows_refused": 1})[0]
    counters["outcomes"][:2] = 20, 3
    return State(
        flow_keys=rows(
            batch.FLOW_KEY, flow_key("10.0.0.1:5000>10.0.0.2:5000/17"), flow_key("2001:db8::1:80>2001:db8::2:443/6")
        ),
        flows=rows(batch.FLOW, flow((4, 4), (5, 5), (6, 6)), flow((9, 100), (8, 30), (9, 7))),
        ports=rows(batch.POINT, nobody, port(4, 3, 70), port(4, 1, 60, unit=80), port(5, 2, 50)),
        port_statistics=rows(
            batch.PORT_STATISTICS, statistics(1, 1), statistics(0, 4, None), statistics(7, 8), statistics(2**32 - 2)
        ),
        queues=rows(batch.POINT, nobody, queue(4, 5, 400, unit=80), queue(5, 5, 0)),
        queue_statistics=rows(
            batch.QUEUE_STATISTICS, nobody, {"occupancy_max": 901}, {"occupancy_max": 1}
        ),
        sources=rows(
            batch.SOURCE,
            nobody,
            source("192.0.2.1", 4, 1, received=10, lost=3, reordered=2, duplicated=1),
            source("192.0.2.1", 4, 1, received=5, restarted=1, report_version=20),
            source("2001:db8::9", 5, 0, received=5),
        ),
        drop_keys=rows(batch.DROP_KEY, {"switch_id": 4, "reason": 71}, {"switch_id": 4, "reason": 255}),
        drops=np.array([6, 1], "<u8"),
        counters=counters,
        clock_ns=1_000,
    )  # fmt: skip
