"""What the benchmarks share: the machine, turns and medians, rows and tables, pinning, and a veth pair of one's own.

A row is a dict. Rows of measures that must be met have the keys "measure", "value", "unit", "must", "hope" and "better"
("less" or "more"); required() makes them. Others have whatever keys say it best.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import re
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from intcollector import kernel
from intcollector.config import Config
from intcollector.exporters.delivery import Item, Pusher
from intcollector.lab import Lab, inside
from intcollector.sending import LiveSender, Pace, Sent
from intcollector.traffic import Traffic

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmark" / "results"

Row = dict[str, Any]

CHUNK = 1 << 14
"""Reports of one test run of the sender, at most."""


# --- the machine ------------------------------------------------------------------------------------------------------


def _line(path: str) -> str:
    """A file's only line; empty where there is no such file."""
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu_model() -> str:
    for line in _line("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or "unknown"


def _bcc() -> dict[str, str]:
    """Versions of bcc and of the LLVM it is linked to, which is known once it is loaded."""
    try:
        import bcc
    except ImportError:
        return {"bcc": "missing", "llvm": ""}
    found = re.search(r"/libLLVM(?:-|\.so\.)(\d+(?:\.\d+)*)", _line("/proc/self/maps"))
    return {"bcc": str(bcc.__version__), "llvm": found[1] if found else "inside libbcc"}


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, kernel, versions, and the mitigations that make calls and jumps dearer."""
    folder = "/sys/devices/system/cpu/vulnerabilities"
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **_bcc(),
        "jit": _line("/proc/sys/net/core/bpf_jit_enable") != "0",
        "mitigations": {
            name: _line(f"{folder}/{name}") or "unknown" for name in ("spec_rstack_overflow", "retbleed", "spectre_v2")
        },
    }


def in_words(of: Mapping[str, Any]) -> str:
    """machine() in two lines."""
    first = (
        f"{of['cpu']}, {of['cpus']} CPUs, Linux {of['kernel']}, JIT {'on' if of['jit'] else 'OFF'}; "
        f"Python {of['python']}, numpy {of['numpy']}, bcc {of['bcc']}, LLVM {of['llvm']}"
    )
    return first + "\n" + "; ".join(f"{name}: {said}" for name, said in of["mitigations"].items())


# --- measuring --------------------------------------------------------------------------------------------------------


def ns_a_run(program: int, frame: bytes, repeat: int) -> float:
    """Test runs of a program. The kernel gives whole ns, rounded down, of which a floor has few: half of one is
    added."""
    return kernel.test_run(program, frame, repeat=repeat)[1] + 0.5


@dataclasses.dataclass(frozen=True)
class Spread:
    """What several rounds gave."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


def turns(rounds: int, measured: Mapping[str, Callable[[], float]]) -> dict[str, Spread]:
    """Call each once a round, in turn, so that what disturbs one disturbs all. Each gives its own figure."""
    values: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, measure in measured.items():
            values[name].append(float(measure()))
    return {name: Spread(tuple(v)) for name, v in values.items()}


def ratios(numerator: Spread, denominator: Spread) -> Spread:
    """Round by round: the median of these is steadier than the ratio of the medians, since a round's disturbances are
    in both."""
    return Spread(tuple(a / b for a, b in zip(numerator.values, denominator.values, strict=True)))


def seconds(of: Callable[[], Any]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    of()
    return time.perf_counter() - begin


class Clocked(Pusher):
    """A clock on an exporter's spelling, and a bell for when all is delivered. Stands in front of its class."""

    def __init__(self, config: Config) -> None:
        self.spelling_s = 0.0
        self.emptier, self.empty = threading.Event(), threading.Event()
        super().__init__(config)

    def spell(self, items: Sequence[Item]) -> bytes:
        begin = time.thread_time()
        data = super().spell(items)
        self.spelling_s += time.thread_time() - begin
        return data

    def delivered(self, points: int) -> None:
        super().delivered(points)
        self.emptier.set()
        if not self.counts().buffered:
            self.empty.set()


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """This thread runs on that CPU only; on the last one if there are fewer."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpu, (os.cpu_count() or 1) - 1)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def drop_program() -> int:
    """`return XDP_DROP`, loaded: the floor. Its descriptor, to be closed with os.close."""
    code = bytes([0xB7, 0, 0, 0, kernel.XDP_DROP, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
    return kernel.load_instructions(code)


_numbers = itertools.count()


def network() -> Lab:
    """A veth pair as a context manager: the sender is inside(0), the receiver inside(1), each in a namespace of its
    own; `names` and `namespaces` say how they are called. Nothing of it stays."""
    run = f"icb{os.getpid() % 100000}n{next(_numbers)}"
    return Lab((f"{run}a", f"{run}b"), (f"{run}-sender", f"{run}-receiver"))


# --- senders in a process of their own --------------------------------------------------------------------------------

_entered = contextlib.ExitStack()


def _enter(cpu: int, namespace: str) -> None:
    """In the worker: where it stays."""
    _entered.enter_context(pinned(cpu))
    _entered.enter_context(inside(namespace))


@contextlib.contextmanager
def worker(cpu: int, namespace: str) -> Iterator[ProcessPoolExecutor]:
    """A process on that CPU and in that network namespace, which runs what is submitted, one after the other."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _enter, (cpu, namespace))
    with pool:
        yield pool


_sender: LiveSender | None = None


def prepare(made: Traffic, interface: str) -> None:
    """In the worker: make ready to send that traffic by live frames. What was ready before is closed."""
    global _sender
    if _sender:
        _sender.close()
    _sender = LiveSender(made, interface)


def send(count: int, rate: float | None = None) -> Sent:
    """In the worker: the next so many of the reports made ready, rate a second; None: as fast as possible. sent and
    dropped are of this call."""
    assert _sender, "prepare() comes first"
    before = _sender.state()
    pace = Pace(rate, count, None, CHUNK)
    done = 0
    while n := pace.due(done):
        _sender.run(n)
        done = int(_sender.state()["index"] - before["index"])
    took = pace.elapsed
    after = _sender.state()
    return Sent(int(after["sent"] - before["sent"]), took, int(after["dropped"] - before["dropped"]), "live")


# --- reporting --------------------------------------------------------------------------------------------------------


def required(
    measure: str, value: float, unit: str, *, must: float, hope: float, better: str = "less", **more: Any
) -> Row:
    """A row of a measure that must be met. more: columns beside it."""
    return {"measure": measure, "value": value, "unit": unit, "must": must, "hope": hope, "better": better, **more}


def met(row: Row, goal: str = "must") -> bool:
    """Is the row's value as good as its goal, "must" or "hope"?"""
    return bool(row["value"] <= row[goal] if row["better"] == "less" else row["value"] >= row[goal])


def parser(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """With the options that all benchmarks have. doc: the module's docstring, of which the first line is shown."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with all that is cleaned up at the end
    made = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    made.add_argument("--rounds", type=int, default=rounds, help=f"times everything is measured (default: {rounds})")
    made.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return made


def shown(value: Any) -> str:
    """A cell of a table: numbers to four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        digits = max(0, 4 - len(str(int(abs(value))))) if abs(value) >= 1 else 4
        return f"{value:,.{digits}f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value)
    return "" if value is None else str(value)


def table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Rows for people: numbers to the right. columns: default, all keys in the order in which they come up."""
    names = list(columns or dict.fromkeys(key for row in rows for key in row))
    cells = [[shown(row.get(name)) for name in names] for row in rows]
    right = [all(isinstance(row.get(name, 0), (int, float)) for row in rows) for name in names]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]

    def joined(line: Sequence[str]) -> str:
        padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(map(joined, [names, *cells]))


def emit(name: str, rows: Sequence[Row], *, as_json: bool, columns: Sequence[str] | None = None) -> None:
    """Print a benchmark's rows, with the machine: one JSON object, or a table a kind of row (a kind has other keys)."""
    of = machine()
    if as_json:
        json.dump({"benchmark": name, "machine": of, "rows": list(rows)}, sys.stdout, indent=1)
        print()
        return
    print(f"{name}\n{in_words(of)}")
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    for keys, some in kinds.items():
        print("\n" + table(some, [c for c in columns if c in keys] if columns else None))
