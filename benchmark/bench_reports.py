"""What one report costs in the kernel, beside a program that only drops, in the same run.

    .venv/bin/python benchmark/bench_reports.py [--json] [--repeat N] [--rounds N]

Needs root; no interface. The medians of several rounds, rounds of the programs taking turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys

from intcollector import kernel, traffic
from intcollector.config import Config
from intcollector.datapath import Datapath

CASES = (
    ("6 hops x 8 instructions", 6, 0xFF00),
    ("3 hops x 8 instructions", 3, 0xFF00),
    ("1 hop x 8 instructions", 1, 0xFF00),
    ("6 hops, switch id only", 6, 0x8000),
)


def drop_program() -> int:
    """`return XDP_DROP`, loaded."""
    code = bytes([0xB7, 0, 0, 0, kernel.XDP_DROP, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
    return kernel.load_instructions(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=500_000, help="runs a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    floor = drop_program()
    rows = []
    datapath = Datapath(Config(int_dscp=(23, 63), keepalive=0))
    for name, hops, bitmap in CASES:
        frame = next(traffic.frames(traffic.Traffic(packets=1, flows=1, hops=hops, instructions=bitmap, event_rate=0)))
        datapath.run(frame)
        times: dict[str, list[int]] = {"drop": [], "collector": []}
        for _ in range(arguments.rounds):
            times["drop"].append(kernel.test_run(floor, frame, repeat=arguments.repeat)[1])
            times["collector"].append(kernel.test_run(datapath.fd, frame, repeat=arguments.repeat)[1])
        median = {what: statistics.median(values) for what, values in times.items()}
        rows.append({"case": name, **median, "ratio": median["collector"] / median["drop"]})
    outcomes = datapath.counters()["outcomes"]
    assert int(outcomes[0]) == int(outcomes.sum()), "not every packet was an accepted report"
    verifier = datapath.loaded
    datapath.close()
    os.close(floor)
    result = {"machine": f"{os.cpu_count()} CPUs, Linux {platform.release()}", "rows": rows,
              "verified_instructions": verifier.verified_instructions, "load_s": round(verifier.load_s, 3)}  # fmt: skip
    if arguments.json:
        print(json.dumps(result, indent=1))
        return 0
    print(
        f"{result['machine']}; verifier: {verifier.verified_instructions} instructions, load {verifier.load_s:.2f} s\n"
    )
    print(f"{'case':26} {'drop, ns':>9} {'collector, ns':>14} {'ratio':>6}")
    for row in rows:
        print(f"{row['case']:26} {row['drop']:9.0f} {row['collector']:14.0f} {row['ratio']:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
