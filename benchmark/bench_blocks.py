"""What the kernel takes for what a report is made of: look-ups, locks, clocks, a tail call (blocks.c).

    .venv/bin/python benchmark/bench_blocks.py [--json] [--rounds N] [--repeat N]

Needs root (Linux 5.12); no interface. `beyond_ns` is what a block takes more than the one it stands on: the entry of an
array for what is done to one, else a program that only drops.
"""

from __future__ import annotations

import struct
import sys
from functools import partial

from common import ROOT, Row, emit, ns_a_run, parser, pinned, turns

from intcollector import kernel
from intcollector.loader import Program

BLOCKS = {
    "drop": None, "tail_call": "drop", "hash": "drop", "lru_hash": "drop", "array_entry": "drop",
    "percpu_array_entry": "drop", "atomic_add": "array_entry", "compare_and_swap": "array_entry",
    "spin_lock": "array_entry", "clock": "array_entry", "coarse_clock": "array_entry", "jiffies": "array_entry",
}  # fmt: skip
"""Functions of blocks.c, and which other one each stands on."""
KEY, VALUE = bytes(40), bytes(640)


def main() -> int:
    options = parser(__doc__, rounds=60)
    options.add_argument("--repeat", type=int, default=100_000, help="runs a round (default: 100000)")
    arguments = options.parse_args()
    source = Program(str(ROOT / "benchmark" / "blocks.c"))
    try:
        programs = {name: source.load(name) for name in BLOCKS}
        for name in ("lru", "plain"):
            kernel.map_update(source.map_fd(name), KEY, VALUE)
        kernel.map_update(source.map_fd("behind"), bytes(4), struct.pack("=I", programs["drop"]))
        packet = bytes(64)
        for name, program in programs.items():
            assert kernel.test_run(program, packet)[0] == kernel.XDP_DROP, name
        with pinned(1):
            found = turns(
                arguments.rounds,
                {name: partial(ns_a_run, program, packet, arguments.repeat) for name, program in programs.items()},
            )
    finally:
        source.close()
    rows: list[Row] = []
    for name, under in BLOCKS.items():
        ns, least = found[name].median, found[name].low
        beyond = (ns - found[under].median, least - found[under].low) if under else (0.0, 0.0)
        rows.append({"block": name, "ns": ns, "ns_min": least, "beyond": under or "", "beyond_ns": beyond[0],
                     "beyond_ns_min": beyond[1]})  # fmt: skip
    emit("blocks", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
