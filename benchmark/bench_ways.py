"""What each way through the program costs: report versions, groups of reports, encapsulations, and what goes up whole.

    .venv/bin/python benchmark/bench_ways.py [--json] [--repeat N] [--rounds N]

Needs root; no interface. All of the kernel's ways are repeated on one packet (BPF_PROG_TEST_RUN), beside a program that
only drops; a packet that goes up whole is run once and drained, which is timed together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from typing import Any

from bench_reports import drop_program

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


def seconds_up_whole(datapath: Datapath, frame: bytes, times: int) -> float:
    """From the packet to the events of its reports, a packet."""
    begin = time.perf_counter()
    for _ in range(times):
        datapath.run(frame)
        datapath.drain()
    return (time.perf_counter() - begin) / times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=200_000, help="runs a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    floor = drop_program()
    datapath = Datapath(CONFIG)
    rows = []
    for name, (reports, frame) in cases().items():
        outcome = wire.decode(frame, CONFIG)
        assert outcome["outcome"] == "ok" and len(outcome["reports"]) == reports, name
        drop, ours = [], []
        for _ in range(arguments.rounds):
            drop.append(kernel.test_run(floor, frame, repeat=arguments.repeat)[1])
            if name.endswith("whole"):
                ours.append(seconds_up_whole(datapath, frame, 200) * 1e9)
            else:
                ours.append(kernel.test_run(datapath.fd, frame, repeat=arguments.repeat // reports)[1])
        datapath.drain()
        a, b = statistics.median(drop), statistics.median(ours)
        rows.append({"case": name, "reports": reports, "drop": a, "packet": b, "report": b / reports, "ratio": b / a})
    datapath.close()
    os.close(floor)
    result = {"machine": f"{os.cpu_count()} CPUs, Linux {platform.release()}", "rows": rows}
    if arguments.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{result['machine']}\n")
    print(f"{'case':30} {'drop, ns':>9} {'a packet, ns':>13} {'a report, ns':>13} {'packet/drop':>12}")
    for row in rows:
        print(f"{row['case']:30} {row['drop']:9.0f} {row['packet']:13.0f} {row['report']:13.0f} {row['ratio']:12.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
