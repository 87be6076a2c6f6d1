"""What the process costs: time from its start to `ready`, memory at 100,000 flows, CPU at 100,000 reports a second.

    .venv/bin/python benchmark/bench_process.py [--json] [--rounds N] [--only start|memory|cpu] [--seconds S]

Needs root and two CPUs. `intcollector run` is a process of its own, at the far end of a veth pair.

start: from the call that starts the process to the line `ready`, read from its stderr.
memory: the highest resident set the process ever had (VmHWM), with 100,000 flows, over the same with none. Both were
drained and scraped several times. What is in BPF maps is the kernel's and not counted.
cpu: user and system time of the collector's process (/proc/PID/stat), which runs on CPU 1; reports are sent from CPU 0
by live frames, so that the XDP program and the veth's receiving side run there and are charged to the sender. Events
are 1% of the reports, and what keep-alives add to that. Prometheus scrapes every 15 seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import urllib3
from common import (
    Row,
    Spread,
    emit,
    network,
    parser,
    pinned,
    prepare,
    required,
    send,
    worker,
)

from intcollector.lab import Lab
from intcollector.traffic import Traffic

MIB = 1 << 20
DEADLINE_S = 60.0
RUN = ("--int-dscp", "23/63", "--prometheus", "127.0.0.1:0")
SCRAPE_S = 15.0
STAGES = """
import json, os, sys, time
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
began = [float(sys.argv[1]), time.monotonic()]
import intcollector.cli, intcollector.collector
began.append(time.monotonic())
from intcollector.collector import Collector
from intcollector.config import Config
collector = Collector(Config(prometheus=("127.0.0.1", 0)), [sys.argv[2]])
began.append(time.monotonic())
loaded = collector.datapath.loaded
total = began[3] - began[2]
print(json.dumps({"python": began[1] - began[0], "imports": began[2] - began[1], "compile": loaded.compile_s,
    "load": loaded.load_s, "the rest": total - loaded.compile_s - loaded.load_s}))
collector.close()
"""
"""In a process of its own, which does what the command does: seconds from one stage to the next."""


class Process:
    """`intcollector run`, at the receiving end, pinned to a CPU; ready. ready_s: how long that took."""

    def __init__(self, net: Lab, *arguments: str, cpu: int | None = None) -> None:
        self._net = net
        self._http = urllib3.PoolManager(retries=False)
        command = [sys.executable, "-m", "intcollector", "run", net.names[1], *RUN, *arguments]
        with net.inside(1), pinned(cpu) if cpu is not None else contextlib.nullcontext():
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        try:
            self.url = self._read_until_ready()
        except BaseException:
            self.close()
            raise
        self.ready_s = time.perf_counter() - begin

    def _read_until_ready(self) -> str:
        """What it says on stderr, up to `ready`; the address of the metrics in it."""
        assert self._process.stderr
        limit = threading.Timer(DEADLINE_S, self._process.kill)
        limit.start()
        said = []
        try:
            for line in self._process.stderr:
                said.append(line)
                if line == "ready\n":
                    break
        finally:
            limit.cancel()
        urls = [line.removeprefix("metrics: ").strip() for line in said if line.startswith("metrics: ")]
        if not urls or said[-1] != "ready\n":
            raise SystemExit(f"the collector did not start:\n{''.join(said)}")
        return urls[0]

    def scrape(self) -> dict[str, float]:
        """/metrics: every sample's value by its name and labels, and the sum of each name's samples by the name."""
        with self._net.inside(1):  # where its 127.0.0.1 is
            text = self._http.request("GET", self.url, timeout=DEADLINE_S).data.decode()
        found: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                sample, _, value = line.rpartition(" ")
                found[sample] = float(value)
                name = sample.partition("{")[0]
                if name != sample:
                    found[name] = found.get(name, 0.0) + float(value)
        return found

    def settled(self, packets: int) -> dict[str, float]:
        """The scrape with so many packets; fails on more, on loss, and after some seconds."""
        end = time.monotonic() + DEADLINE_S
        while True:
            metrics = self.scrape()
            seen = int(metrics["int_packets_total"])
            if seen >= packets or time.monotonic() > end:
                break
        lost = metrics["int_events_lost_total"] + metrics["int_reports_lost_total"]
        assert seen == metrics['int_packets_total{outcome="ok"}'] == packets and not lost, (seen, packets, lost)
        return metrics

    def memory(self) -> dict[str, int]:
        """Bytes: VmHWM, VmRSS, Pss."""
        folder = pathlib.Path("/proc") / str(self._process.pid)
        lines = ((folder / "status").read_text() + (folder / "smaps_rollup").read_text()).splitlines()
        of = {key: int(rest.split()[0]) * 1024 for key, _, rest in (x.partition(":") for x in lines) if " kB" in rest}
        return {name: of[name] for name in ("VmHWM", "VmRSS", "Pss")}

    def cpu_s(self) -> tuple[float, float]:
        """Seconds of (user, system) time so far, all threads."""
        fields = (pathlib.Path("/proc") / str(self._process.pid) / "stat").read_text().rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        return int(fields[11]) / tick, int(fields[12]) / tick

    def switches(self) -> int:
        """How often its threads went to sleep so far."""
        tasks = (pathlib.Path("/proc") / str(self._process.pid) / "task").iterdir()
        lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    def close(self) -> None:
        """Nothing of it stays."""
        self._http.clear()
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()


@contextlib.contextmanager
def running(net: Lab, *arguments: str, cpu: int | None = None) -> Iterator[Process]:
    process = Process(net, *arguments, cpu=cpu)
    try:
        yield process
    finally:
        process.close()


def start(net: Lab, rounds: int) -> list[Row]:
    """From the start to `ready`, and where that time goes."""
    ready, stages = [], []
    for _ in range(rounds):
        with running(net) as process:
            ready.append(process.ready_s)
        with net.inside(1) as near:
            said = subprocess.run(
                [sys.executable, "-c", STAGES, str(time.monotonic()), near], check=True, capture_output=True
            )
        stages.append(json.loads(said.stdout))
    took = Spread(tuple(ready))
    parts = {name: Spread(tuple(one[name] for one in stages)).median for name in stages[0]}
    return [
        required("start to ready", took.median, "s", must=1.0, hope=0.6, low=took.low, high=took.high),
        *({"stage of the start": name, "ms": value * 1e3} for name, value in parts.items()),
    ]


def memory(net: Lab, flows: int, scrapes: int) -> list[Row]:
    """With so many flows, over none."""
    found: dict[str, dict[str, int]] = {}
    for name, count in (("none", 0), ("flows", flows)):
        with running(net) as process:
            if count:
                with worker(0, net.namespaces[0] or "") as sender:
                    made = Traffic(flows=count, hops=3, instructions=0xFF00, event_rate=0.1)
                    sender.submit(prepare, made, net.names[0]).result(300)
                    sent = 0
                    for _ in range(scrapes):
                        sent += sender.submit(send, count, 100_000).result(300).sent
                        metrics = process.settled(sent)
                assert metrics["int_flow_series_omitted"] > 0, "fewer flows than were sent"
            else:
                for _ in range(scrapes):
                    process.scrape()
            found[name] = process.memory()
    peak = (found["flows"]["VmHWM"] - found["none"]["VmHWM"]) / MIB
    rows: list[Row] = [required(f"memory at {flows} flows, over the same with none", peak, "MiB", must=150, hope=80)]
    for name, of in found.items():
        rows.append({"flows": 0 if name == "none" else flows, "highest resident, MiB": of["VmHWM"] / MIB,
                     "resident, MiB": of["VmRSS"] / MIB, "proportional, MiB": of["Pss"] / MIB})  # fmt: skip
    return rows


def cpu(net: Lab, rate: int, seconds: float) -> list[Row]:
    """Of the collector's process at a steady rate."""
    made = Traffic(flows=1000, hops=3, instructions=0xFF00, event_rate=0.01)
    with running(net, cpu=1) as process, worker(0, net.namespaces[0] or "") as sender, pinned(0):
        sender.submit(prepare, made, net.names[0]).result(300)
        sent = sender.submit(send, 2 * rate, rate).result(60).sent  # flows are learnt, series known
        before = process.settled(sent)
        user, system = process.cpu_s()
        slept, begin = process.switches(), time.monotonic()
        count = int(rate * seconds)
        sending = sender.submit(send, count, rate)
        scrapes = 0
        while not sending.done():
            scrape_at = begin + (scrapes + 0.5) * SCRAPE_S
            with contextlib.suppress(TimeoutError):
                sending.result(max(0.0, scrape_at - time.monotonic()))
            if not sending.done():
                process.scrape()
                scrapes += 1
        took, sent_now = time.monotonic() - begin, sending.result()
        user_, system_ = process.cpu_s()
        slept = process.switches() - slept
        after = process.settled(sent + sent_now.sent)
        idle_user, idle_system = process.cpu_s()
        begin = time.monotonic()
        wait_until(begin + seconds / 3)
        idle = sum(process.cpu_s()) - idle_user - idle_system
        idle_s = time.monotonic() - begin
    events = after["int_events_total"] - before["int_events_total"]
    assert sent_now.sent == count and sent_now.rate > 0.98 * rate, f"sent {sent_now.sent} at {sent_now.rate:.0f}/s"
    share = 100 * (user_ + system_ - user - system) / took
    return [
        required(
            f"CPU of the process at {rate} reports/s with 1% events", share, "% of a core", must=5, hope=2,
        ),
        {"reports_a_second": sent_now.rate, "events_a_second": events / took, "seconds": took, "scrapes": scrapes,
         "user, %": 100 * (user_ - user) / took, "system, %": 100 * (system_ - system) / took,
         "sleeps_a_second": slept / took, "with no traffic, %": 100 * idle / idle_s},
    ]  # fmt: skip


def wait_until(end: float) -> None:
    """Of time.monotonic()."""
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


def main() -> int:
    options = parser(__doc__, rounds=7)
    options.add_argument("--only", choices=("start", "memory", "cpu"), help="one of the three")
    options.add_argument("--flows", type=int, default=100_000, help="memory: flows (default: 100000)")
    options.add_argument("--scrapes", type=int, default=5, help="memory: how often it is scraped (default: 5)")
    options.add_argument("--rate", type=int, default=100_000, help="cpu: reports a second (default: 100000)")
    options.add_argument("--seconds", type=float, default=30.0, help="cpu: how long (default: 30)")
    arguments = options.parse_args()
    rows: list[Row] = []
    with network() as net:
        if arguments.only in (None, "start"):
            rows += start(net, arguments.rounds)
        if arguments.only in (None, "memory"):
            rows += memory(net, arguments.flows, arguments.scrapes)
        if arguments.only in (None, "cpu"):
            rows += cpu(net, arguments.rate, arguments.seconds)
    emit("process", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
