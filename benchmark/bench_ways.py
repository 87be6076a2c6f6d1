"""What each way through the program costs: report versions, groups of reports, encapsulations, and what goes up whole.

    .venv/bin/python benchmark/bench_ways.py [--json] [--rounds N] [--repeat N]

Needs root; no interface. All of the kernel's ways are repeated on one packet (BPF_PROG_TEST_RUN), beside a program that
only drops, the cases taking turns. `way` says how far a packet goes: the short way, on to the long one (the kernel's
two programs), or up whole. A packet that goes up whole is run once and drained, which is timed together.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from common import Row, Spread, drop_program, emit, ns_a_run, parser, pinned, turns

from intcollector import kernel, wire
from intcollector.config import Config
from intcollector.datapath import Datapath

MARK = 23
CONFIG = Config(int_dscp=(MARK, 63), keepalive=0, postcard_timeout=1000)
REPORT: dict[str, Any] = {
    "source": "192.0.2.1", "switch_id": 1, "hw_id": 5, "sequence_number": 7, "ingress_timestamp": 1000,
    "dropped": False, "congested_queue": False, "tracked_flow": True, "intermediate": False, "local_hop": None,
    "int": None,
}  # fmt: skip
FLOW: dict[str, Any] = {
    "vlan_ids": [], "ip_version": 4, "source": "10.1.0.1", "destination": "10.2.0.2", "protocol": 17,
    "source_port": 40000, "destination_port": 5001, "dscp": MARK,
}  # fmt: skip
LOCAL = {"ingress_port_id": 1, "egress_port_id": 2, "queue_id": 3, "queue_occupancy": 4}


def stack(version: str) -> dict[str, Any]:
    """Three hops: switch, ports, latency."""
    hops = [{"switch_id": i, "ingress_port_id": 1, "egress_port_id": 2, "hop_latency": 30} for i in (3, 2, 1)]
    return {"version": version, "mode": "MD", "instruction_bitmap": "0xe000", "hop_ml": 3, "remaining_hop_count": 5,
            "hop_count": 3, "hops": hops, "latency": 90}  # fmt: skip


def postcards(count: int) -> bytes:
    """A group of so many reports of as many flows."""
    flows = [{**FLOW, "source_port": 40000 + i, "dscp": 0} for i in range(count)]
    local = {**LOCAL, "hop_latency": 30}
    return wire.encode_group([{**REPORT, "version": "2.0", "local_hop": local, "flow": flow} for flow in flows], CONFIG,
                             [wire.Spelling(nproto="ipv4")] * count)  # fmt: skip


def cases() -> dict[str, tuple[int, bytes]]:
    """Name -> (reports, frame)."""
    plain = {**REPORT, "version": "1.0", "flow": FLOW}
    unmarked = {**FLOW, "dscp": 0}
    with_stack = {**plain, "int": stack("1.0")}
    local = {**LOCAL, "egress_timestamp": 1030}
    return {
        "1.0, stack of INT 1.0": (1, wire.encode(with_stack, CONFIG)),
        "1.0, stack of INT 2.x": (1, wire.encode({**plain, "int": stack("2.x")}, CONFIG)),
        "0.5, postcard": (1, wire.encode({**REPORT, "version": "0.5", "local_hop": local, "flow": unmarked}, CONFIG)),
        "2.0, stack of INT 2.x": (1, wire.encode({**plain, "version": "2.0", "int": stack("2.x")}, CONFIG)),
        "2.0, postcard": (1, postcards(1)),
        "2.0, 4 postcards": (4, postcards(4)),
        "2.0, 16 postcards": (16, postcards(16)),
        "2.0, 17 postcards: up whole": (17, postcards(17)),
        "1.0, stack behind VXLAN": (1, wire.encode(with_stack, CONFIG, tunnels=[wire.Tunnel("vxlan")])),
        "1.0, stack in Geneve": (
            1, wire.encode({**with_stack, "flow": unmarked}, CONFIG, tunnels=[wire.Tunnel("geneve", has_int=True)])
        ),
    }  # fmt: skip


WHOLE = 50
"""Packets of a round that go up whole."""
WARM = 5


def ns_up_whole(datapath: Datapath, frame: bytes) -> float:
    """From the packet to the events of its reports, a packet."""
    begin = time.perf_counter_ns()
    for _ in range(WHOLE):
        datapath.run(frame)
        datapath.drain()
    return (time.perf_counter_ns() - begin) / WHOLE


def timed(program: int, frame: bytes, repeat: int) -> float:
    """Of the packet repeated. Runs before that, since the last case may have left other values behind."""
    for _ in range(WARM):
        kernel.test_run(program, frame)
    return ns_a_run(program, frame, repeat)


def way_of(datapath: Datapath, frame: bytes) -> str:
    """How far a packet goes once its flow is known: short, long, whole."""
    for _ in range(3):
        datapath.run(frame)
        datapath.drain()
    before = int(datapath._statistics()["steady_reports"].sum())
    datapath.run(frame)
    if int(datapath._statistics()["steady_reports"].sum()) > before:
        return "short"
    return "whole" if datapath.waiting else "long"


def row(name: str, way: str, reports: int, ours: Spread, floor: Spread) -> Row:
    """ns of a packet and of each of its reports."""
    return {"case": name, "way": way, "reports": reports, "ns a packet": ours.median,
            "ns a report": ours.median / reports, "floor_ns": floor.median,
            "ratio": ours.median / floor.median}  # fmt: skip


def main() -> int:
    options = parser(__doc__, rounds=40)
    options.add_argument("--repeat", type=int, default=30_000, help="runs a round (default: 30000)")
    arguments = options.parse_args()
    with contextlib.ExitStack() as stack:
        stack.enter_context(pinned(1))
        floor = drop_program()
        stack.callback(os.close, floor)
        datapath = Datapath(CONFIG)
        stack.callback(datapath.close)
        ways: dict[str, tuple[str, int]] = {}
        measured: dict[str, Callable[[], float]] = {}

        def measure(name: str, way: str, reports: int, frame: bytes, ours: Callable[[], float]) -> None:
            ways[name] = way, reports
            measured[f"{name}/floor"] = partial(timed, floor, frame, arguments.repeat)
            measured[f"{name}/ours"] = ours

        for name, (reports, frame) in cases().items():
            outcome = wire.decode(frame, CONFIG)
            assert outcome["outcome"] == "ok" and len(outcome["reports"]) == reports, name
            way, repeat = way_of(datapath, frame), arguments.repeat // reports
            if way == "whole":
                measure(name, way, reports, frame, partial(ns_up_whole, datapath, frame))
                continue
            measure(name, way, reports, frame, partial(timed, datapath.fd, frame, repeat))
            if way == "short":
                long_way = partial(timed, datapath._long_way, frame, repeat)
                measure(f"{name}: had it gone the long way", "long", reports, frame, long_way)
        found = turns(arguments.rounds, measured)
        datapath.drain()
        rows = [row(name, *ways[name], found[f"{name}/ours"], found[f"{name}/floor"]) for name in ways]
    emit("ways", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
