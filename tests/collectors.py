"""`intcollector` in processes of its own, in network namespaces of its own, for tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from intcollector import capture, kernel, lab
from intcollector.lab import Lab
from intcollector.replay import replay

from . import servers

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "intcollector")
DEADLINE_S = 60.0
"""No wait is longer."""

_numbers = itertools.count()

T = TypeVar("T")


# --- networks ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def network(namespaces: int = 2) -> Iterator[Lab]:
    """A veth pair, near (end 0) and far, in two namespaces or in one; what is done within is done in near's."""
    run = f"ic{os.getpid() % 100000}n{next(_numbers)}"
    near, far = f"{run}-near", f"{run}-far"
    with Lab((f"{run}a", f"{run}b"), (near, far if namespaces == 2 else near)) as pair, pair.inside(0):
        yield pair
    left = [name for name in os.listdir("/run/netns") if name.startswith(f"{run}-")]
    assert not left, f"left behind: {left}"


def ip(*arguments: str) -> None:
    """ip(8), in this thread's namespace."""
    subprocess.run(["ip", *arguments], check=True, timeout=DEADLINE_S, capture_output=True)


def xdp(name: str) -> dict[str, Any] | None:
    """What ip(8) says of an interface's XDP program: {"mode": 1 native or 2 generic, "prog": {"id", ...}}, or None."""
    said = subprocess.run(
        ["ip", "-json", "link", "show", "dev", name], capture_output=True, timeout=DEADLINE_S, check=True
    )
    found: dict[str, Any] | None = json.loads(said.stdout)[0].get("xdp")
    return found


def frames(name: str) -> tuple[int, int]:
    """(received, sent) by an interface of this thread's namespace."""
    for line in pathlib.Path("/proc/thread-self/net/dev").read_text().splitlines():
        if line.strip().startswith(f"{name}:"):
            counts = line.split(":")[1].split()
            return int(counts[1]), int(counts[9])
    raise AssertionError(f"{name} is not there")


@contextlib.contextmanager
def foreign_program(name: str = "somebody_else") -> Iterator[int]:
    """The descriptor of an XDP program that is not ours and lets everything pass."""
    code = np.array([0x00000002_0000_00_B7, 0x00000000_0000_00_95], "<u8")  # r0 = XDP_PASS; exit
    license_ = np.frombuffer(b"GPL\0", np.uint8)
    attributes = struct.pack(
        "=IIQQIIQII16s",
        kernel.PROG_TYPE_XDP, len(code), kernel.address_of(code), kernel.address_of(license_), 0, 0, 0, 0, 0,
        name.encode(),
    )  # fmt: skip
    descriptor = kernel.bpf(kernel.PROG_LOAD, attributes)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# --- commands ---------------------------------------------------------------------------------------------------------


def intcollector(*arguments: str, namespace: str | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a namespace (None: this thread's)."""
    with lab.inside(namespace):
        return subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT,
            stdin=subprocess.DEVNULL, **more,
        )  # fmt: skip


Self = TypeVar("Self", bound="Command")


class Command:
    """A command that runs until it is stopped. Its output is kept: said() is stderr, printed() is stdout."""

    def __init__(self, *arguments: str, namespace: str | None = None) -> None:
        self.namespace = namespace
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - close() closes them
        with lab.inside(namespace):
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=self._files[0], stderr=self._files[1], cwd=ROOT
            )

    def printed(self) -> str:
        return self._text(0)

    def said(self) -> str:
        return self._text(1)

    def _text(self, which: int) -> str:
        file = self._files[which].fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()

    def wait_until(self, condition: Callable[[], T], what: str) -> T:
        """condition()'s first true value; fails, with what was said, if the command ends before."""

        def look() -> T:
            ended = self.process.poll() is not None
            value = condition()
            assert value or not ended, f"ended with {self.process.returncode} before {what}:\n{self.said()}"
            return value

        return servers.wait(look, what, DEADLINE_S)

    def wait_said(self, text: str, times: int = 1) -> None:
        """Returns when stderr holds the text, so many times."""
        self.wait_until(lambda: self.said().count(text) >= times, f"it says {text!r}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """No process stays, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for file in self._files:
            file.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Metrics:
    """A scrape: every sample, by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name with these labels and maybe others."""
        (value,) = [v for have, v in self._samples[name] if labels.items() <= have.items()]
        return value

    def by(self, name: str, *labels: str) -> dict[Any, float]:
        """Value by one label's text, or by a tuple of several."""
        found = {}
        for have, value in self._samples.get(name, []):
            key = tuple(have[label] for label in labels)
            key_ = key[0] if len(key) == 1 else key
            assert key_ not in found, f"{name} has {key_} twice"
            found[key_] = value
        return found

    def sum(self, name: str) -> float:
        """Of all samples of that name."""
        return sum(value for _, value in self._samples.get(name, []))

    def outcomes(self) -> dict[str, int]:
        """int_packets_total by outcome, without those at 0."""
        return {name: int(n) for name, n in self.by("int_packets_total", "outcome").items() if n}


class Collector(Command):
    """`intcollector run`, ready. Its endpoint is on a port of 127.0.0.1 in its namespace, if it has one."""

    def __init__(self, *arguments: str, namespace: str | None = None) -> None:
        own = () if "--prometheus" in arguments else ("--prometheus", "127.0.0.1:0")
        super().__init__("run", *arguments, *own, namespace=namespace)
        self._http = urllib3.PoolManager(retries=False)
        try:
            self.wait_until(lambda: "ready" in self.said().splitlines(), "it is ready")
        except BaseException:
            self.close()
            raise
        found = [line.partition("metrics: ")[2] for line in self.said().splitlines() if line.startswith("metrics: ")]
        self.url = found[0].removesuffix("/metrics") if found else ""

    def get(self, path: str) -> tuple[int, str]:
        """(status, body)"""
        with lab.inside(self.namespace):
            answer = self._http.request("GET", self.url + path, timeout=30.0)
        return answer.status, answer.data.decode()

    def metrics(self) -> Metrics:
        status, text = self.get("/metrics")
        assert status == 200, text
        return Metrics(text)

    def wait(self, condition: Callable[[Metrics], bool], what: str) -> Metrics:
        """The first scrape of which it is true."""
        last = self.metrics()

        def look() -> bool:
            nonlocal last
            last = self.metrics()
            return condition(last)

        self.wait_until(look, what)
        return last

    def wait_packets(self, count: int, outcome: str | None = None) -> Metrics:
        """The scrape with so many packets, of that outcome or of all; more are a failure."""

        def seen(metrics: Metrics) -> int:
            outcomes = metrics.outcomes()
            return outcomes.get(outcome, 0) if outcome else sum(outcomes.values())

        metrics = self.wait(lambda m: seen(m) >= count, f"{count} packets are counted")
        assert seen(metrics) == count, metrics.outcomes()
        return metrics

    def close(self) -> None:
        super().close()
        self._http.clear()


def send_frames(pair: Lab, folder: pathlib.Path, *packets: bytes, rate: int | None = None) -> None:
    """These, in order, from the far end. folder: for a file."""
    path = str(folder / "frames.pcap")
    capture.write(path, [(packet, 0) for packet in packets])
    with pair.inside(1) as far:
        sent = replay(path, far, rate=rate)
    assert (sent.sent, sent.dropped) == (len(packets), 0)
