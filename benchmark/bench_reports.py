"""What one report costs in the kernel, beside a program that only drops, in the same run; and what loading costs.

    .venv/bin/python benchmark/bench_reports.py [--json] [--rounds N] [--repeat N]

Needs root; no interface. All cases take turns, a short round each, and a case's figure is its least round, the
floor's too: other work on the machine only ever adds. Medians stand beside it. (The curve by hops comes afterwards,
with a third of the rounds.)
In a test run the packet is the same each time. `steady` cases and those of flows have a program in front that writes
the next sequence number and the next flow into it (rewrite.c); their floor is that program with a bare drop behind it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
from common import ROOT, Row, Spread, drop_program, emit, ns_a_run, parser, pinned, required, turns

from intcollector import compiled, kernel, traffic, wire
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.loader import Program
from intcollector.traffic import Traffic

CONFIG = Config(int_dscp=(23, 63), keepalive=0)
"""No keep-alives: then nothing is told once the flows are known."""
ALL, PATH, SOME = 0xFF00, 0x8000, 0xE000
REQUIRED = (
    ("6 hops x 8 instructions", 6, ALL, 8.0, 6.0),
    ("3 hops x 8 instructions", 3, ALL, 6.5, 5.0),
    ("1 hop x 8 instructions", 1, ALL, 5.0, 4.0),
    ("6 hops, switch id only", 6, PATH, 4.5, 3.5),
)
"""Name, hops, instruction bitmap; must and hope, times the program that only drops."""
FLOWS = (1, 10, 100, 1_000, 10_000, 100_000)
CURVES = {"flows": FLOWS, "flows_far": FLOWS[3:]}
"""In the order in which they were learnt, so neighbours in memory; and far from it, which is no different where all fit
into the nearest caches."""
HOPS = range(1, 17)
BITMAPS = (ALL, SOME, PATH)
FUNCTIONS = {"collector": "the short way", "any_packet": "the long way", "spread": "in front, with --cpus"}
WARM = 5
"""Runs before a round: the last case may have left another path and other values behind."""
DEAR = 1000
"""A test run with repeats makes the kernel write code over and wait for all CPUs, twice: as dear as so many without."""
LEARN = 20_000
"""New flows whose events fit into the ring together."""

EXPORTER_AT, REPORT_AT, INNER_AT = 14 + 12, 14 + 20 + 8, 14 + 20 + 8 + 16 + 14
"""Where in the frames the outer source address, the report header and the inner IPv4 header begin."""
SEQUENCE_AT, ADDRESS_AT, PORT_AT = REPORT_AT + 8, INNER_AT + 12, INNER_AT + 20


def frame_of(hops: int, bitmap: int) -> bytes:
    """A report of one flow over so many hops."""
    return next(traffic.frames(Traffic(packets=1, flows=1, hops=hops, instructions=bitmap, event_rate=0)))


def of_another_exporter(frame: bytes) -> bytes:
    """Whose sequence numbers are not those of frame_of()."""
    return frame[:EXPORTER_AT] + bytes([192, 0, 2, 77]) + frame[EXPORTER_AT + 4 :]


def check_places(frame: bytes) -> None:
    """What rewrite.c writes over is what it means to. Errors: AssertionError."""
    changed = bytearray(of_another_exporter(frame))
    struct.pack_into(">I", changed, SEQUENCE_AT, 0x01020304)
    struct.pack_into(">I", changed, ADDRESS_AT, 0x0A050607)
    struct.pack_into(">H", changed, PORT_AT, 0x0809)
    (report,) = wire.decode(bytes(changed), CONFIG)["reports"]
    flow = report["flow"]
    found = report["source"], report["sequence_number"], flow["source"], flow["source_port"]
    assert found == ("192.0.2.77", 0x01020304, "10.5.6.7", 0x0809), found


@dataclasses.dataclass(frozen=True)
class Rewriter:
    """rewrite.c in front of the program and of a bare drop: descriptors of both, and of the map of turns."""

    program: int
    floor: int
    turns: int

    def rotate(self, which: int, flows: int, step: int) -> None:
        """From now on so many flows take turns at the program (0) or at the floor (1), each step behind the last."""
        kernel.map_update(self.turns, struct.pack("=I", which), struct.pack("=IIII", 0, step, flows, 0))


@contextlib.contextmanager
def rewriter(program: int, floor: int) -> Iterator[Rewriter]:
    """rewrite.c, loaded, in front of two programs."""
    at = [f"SEQUENCE_AT={SEQUENCE_AT}", f"ADDRESS_AT={ADDRESS_AT}", f"PORT_AT={PORT_AT}"]
    source = Program(str(ROOT / "benchmark" / "rewrite.c"), at)
    try:
        made = Rewriter(source.load("rewrite_0"), source.load("rewrite_1"), source.map_fd("turns"))
        for which, behind in enumerate((program, floor)):
            kernel.map_update(source.map_fd("behind"), struct.pack("=I", which), struct.pack("=I", behind))
            made.rotate(which, 1, 0)
        yield made
    finally:
        source.close()


@contextlib.contextmanager
def loaded() -> Iterator[tuple[Datapath, list[Row]]]:
    """The program, and what it took to load it: compiled, and as it was kept then."""
    rows: list[Row] = []
    before = os.environ.get(compiled.FOLDER_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[compiled.FOLDER_VARIABLE] = folder
        try:
            first = Datapath(CONFIG)
            first.close()
            second = Datapath(CONFIG)
        finally:
            if before is None:
                del os.environ[compiled.FOLDER_VARIABLE]
            else:
                os.environ[compiled.FOLDER_VARIABLE] = before
    for start, datapath in (("first: compiled", first), ("later: as it was kept", second)):
        took = datapath._program
        rows.append({"start": start, "compile or read, s": took.compile_s, "verify, s": took.load_s,
                     "both, s": took.compile_s + took.load_s})  # fmt: skip
    assert second._program.kept, "the compiled program was not kept"
    try:
        yield second, rows
    finally:
        second.close()


def sizes(datapath: Datapath) -> list[Row]:
    """What the verifier looked at, and what it let pass, of each program."""
    rows = []
    for function, does in FUNCTIONS.items():
        said = kernel.info(datapath._program.load(function), 232)
        (jited, translated), (verified,) = struct.unpack_from("=II", said, 16), struct.unpack_from("=I", said, 216)
        rows.append({"program": function, "is": does, "instructions verified": verified,
                     "instructions": translated // 8, "bytes of machine code": jited})  # fmt: skip
    return rows


class Bench:
    """Test runs of the program that check, outside of what is timed, that each was a report that went the short way."""

    def __init__(self, datapath: Datapath, floor: int, rewriting: Rewriter, repeat: int) -> None:
        self._datapath, self._floor, self._rewriting, self._repeat = datapath, floor, rewriting, repeat

    def _short(self) -> int:
        return int(self._datapath._statistics()["steady_reports"].sum())

    def _timed(self, program: int, frame: bytes, repeat: int, warm: int, *, reports: bool) -> float:
        """ns a run."""
        if warm < DEAR:
            for _ in range(warm):
                kernel.test_run(program, frame)
        else:
            kernel.test_run(program, frame, repeat=warm)
        self._datapath.drain()
        before = self._short()
        ns = ns_a_run(program, frame, repeat)
        short = self._short() - before
        assert short == repeat * reports, f"{short} of {repeat} runs went the short way"
        return ns

    def same(self, frame: bytes) -> dict[str, Callable[[], float]]:
        """The same report each time."""
        return {
            "floor": lambda: self._timed(self._floor, frame, self._repeat, WARM, reports=False),
            "ours": lambda: self._timed(self._datapath.fd, frame, self._repeat, WARM, reports=True),
        }

    def learn(self, frame: bytes, flows: int) -> None:
        """Have all flows known and told, in steps whose events find room."""
        self._rewriting.rotate(0, flows, 1)
        for _ in range(0, flows + LEARN, LEARN):
            kernel.test_run(self._rewriting.program, frame, repeat=LEARN)
            self._datapath.drain()

    def rotating(self, frame: bytes, flows: int, step: int) -> dict[str, Callable[[], float]]:
        """The next report of the next flow each time; each flow comes at least once, and once before that."""
        repeat, warm = max(self._repeat, flows), flows + WARM

        def measure(which: int) -> float:
            self._rewriting.rotate(which, flows, step)
            program = self._rewriting.floor if which else self._rewriting.program
            return self._timed(program, frame, repeat, warm, reports=not which)

        return {"floor": lambda: measure(1), "ours": lambda: measure(0)}


def far_step(flows: int) -> int:
    """A step by which all flows take turns, none of them soon after one that was learnt soon before it."""
    return next(n for n in itertools.count(int(flows * 0.618)) if math.gcd(n, flows) == 1) % flows


def taking_turns(rounds: int, cases: dict[str, dict[str, Callable[[], float]]]) -> dict[str, tuple[Spread, Spread]]:
    """Name -> (ours, floor), ns a run."""
    flat = {f"{name}/{what}": measure for name, both in cases.items() for what, measure in both.items()}
    found = turns(rounds, flat)
    return {name: (found[f"{name}/ours"], found[f"{name}/floor"]) for name in cases}


def figures(ours: Spread, floor: Spread) -> Row:
    """ns: medians; and the least, which nothing disturbed."""
    return {"ns": ours.median, "floor_ns": floor.median, "ns_min": ours.low, "floor_ns_min": floor.low,
            "ratio_median": ours.median / floor.median}  # fmt: skip


def measured(bench: Bench, rounds: int) -> list[Row]:
    """All rows that are timed."""
    cases: dict[str, dict[str, Callable[[], float]]] = {}
    for name, hops, bitmap, _, _ in REQUIRED:
        cases[f"same {name}"] = bench.same(frame_of(hops, bitmap))
    for name, hops, bitmap, _, _ in REQUIRED:
        cases[f"steady {name}"] = bench.rotating(of_another_exporter(frame_of(hops, bitmap)), 1, 0)
    three = of_another_exporter(frame_of(3, ALL))
    bench.learn(three, FLOWS[-1])
    for curve, numbers in CURVES.items():
        for flows in numbers:
            step = 1 % flows if curve == "flows" else far_step(flows)
            cases[f"{curve} {flows}"] = bench.rotating(three, flows, step)
    found = taking_turns(rounds, cases)
    by_hops = {
        f"hops {bitmap} {hops}": bench.same(frame_of(hops, bitmap)) for bitmap, hops in itertools.product(BITMAPS, HOPS)
    }
    found |= taking_turns(max(1, rounds // 3), by_hops)

    rows: list[Row] = []
    for name, _, _, must, hope in REQUIRED:
        ours, floor = found[f"same {name}"]
        rows.append(required(f"a report over a bare drop, {name}", ours.low / floor.low, "x", must=must, hope=hope,
                             **figures(ours, floor)))  # fmt: skip
    one, most = found[f"flows {FLOWS[0]}"][0], found[f"flows {FLOWS[-1]}"][0]
    rows.append(
        required(
            f"growth from {FLOWS[0]:,} flow to {FLOWS[-1]:,} in rotation, 3 hops x 8 instructions",
            most.low / one.low, "x", must=2.5, hope=2.0, ns=most.median, floor_ns=one.median, ns_min=most.low,
            floor_ns_min=one.low, ratio_median=most.median / one.median,
        )
    )  # fmt: skip
    for name, *_ in REQUIRED:
        ours, floor = found[f"steady {name}"]
        rows.append({"steady sequence": name, "ratio": ours.low / floor.low, **figures(ours, floor)})
    for curve, numbers in CURVES.items():
        rows += [{"curve": curve, "flows": n, **figures(*found[f"{curve} {n}"])} for n in numbers]
    for bitmap, hops in itertools.product(BITMAPS, HOPS):
        rows.append({"curve": "hops", "bitmap": f"{bitmap:#06x}", "hops": hops,
                     **figures(*found[f"hops {bitmap} {hops}"])})  # fmt: skip
    return rows


def main() -> int:
    options = parser(__doc__, rounds=60)
    options.add_argument("--repeat", type=int, default=30_000, help="runs a round (default: 30000)")
    arguments = options.parse_args()
    check_places(frame_of(3, ALL))
    with contextlib.ExitStack() as stack:
        stack.enter_context(pinned(1))
        datapath, rows_of_loading = stack.enter_context(loaded())
        floor = drop_program()
        stack.callback(os.close, floor)
        bench = Bench(datapath, floor, stack.enter_context(rewriter(datapath.fd, floor)), arguments.repeat)
        rows = measured(bench, arguments.rounds)
        counters = datapath.counters()
        refused = np.flatnonzero(counters["outcomes"][1:]) + 1
        assert not len(refused) and not counters["flows_refused"], f"outcomes {refused} besides ok"
        rows += rows_of_loading + sizes(datapath)
    emit("reports", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
