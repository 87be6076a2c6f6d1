"""Captures replayed at the program: by hops, flows, instructions and events, with timestamps that move.

    .venv/bin/python benchmark/bench_replay.py [--json] [--rounds N] [--reports N]

Needs root and two CPUs. Captures are made with intcollector.traffic and sent by `replay` (a packet socket, so the
sender and not the program is the limit) from CPU 0 onto a veth pair; events are drained on CPU 1. Cases of hops, flows
and instructions go as fast as it goes; those of events at the rate at which their timestamps move.

ns a report are the kernel's own: run time over runs of the program (BPF_ENABLE_STATS), which includes the reading of
two clocks. So the same is asked of a program that only drops, in the same run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor

from common import Row, Spread, drop_program, emit, network, parser, pinned, ratios, worker

from intcollector import kernel, traffic
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.lab import Lab
from intcollector.replay import replay
from intcollector.sending import Sent
from intcollector.traffic import Traffic

CONFIG = Config(int_dscp=(23, 63), keepalive=0)
RATE = 100_000
"""Reports a second at which timestamps move."""
BASE = Traffic(flows=100, hops=3, instructions=0xFF00, event_rate=0.001, rate=RATE)
INSTRUCTIONS = {
    "switch id": 0x8000,
    "switch id, hop latency": 0xA000,
    "switch id, hop latency, queue": 0xB000,
    "... and ports, timestamps": 0xFC00,
    "all eight": 0xFF00,
}
_ENABLE_STATS, _RUN_TIME = 32, 0
_RUN_TIME_AT, _INFO_SIZE = 192, 232  # struct bpf_prog_info: run_time_ns, run_cnt


def cases() -> Iterator[tuple[Row, Traffic]]:
    """What varies, and the traffic; all else as in BASE."""
    for hops in range(1, 7):
        yield {"varies": "hops", "case": str(hops)}, dataclasses.replace(BASE, hops=hops)
    for flows in (10, 100, 1000, 5000):
        yield {"varies": "flows", "case": str(flows)}, dataclasses.replace(BASE, flows=flows)
    for name, bitmap in INSTRUCTIONS.items():
        share = BASE.event_rate if bitmap & 0x3000 else 0.0  # what only names switches shows no events
        yield {"varies": "instructions", "case": name}, dataclasses.replace(BASE, instructions=bitmap, event_rate=share)
    for events in (20, 100, 500, 1000):
        yield {"varies": "events/s", "case": str(events)}, dataclasses.replace(BASE, event_rate=events / RATE)


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    """The kernel measures programs' run time meanwhile (Linux 5.8)."""
    descriptor = kernel.bpf(_ENABLE_STATS, struct.pack("=I", _RUN_TIME) + bytes(60))
    try:
        yield
    finally:
        os.close(descriptor)


def run_time(program: int) -> tuple[int, int]:
    """(ns, runs) so far."""
    ns, runs = struct.unpack_from("=QQ", kernel.info(program, _INFO_SIZE), _RUN_TIME_AT)
    return int(ns), int(runs)


@dataclasses.dataclass(frozen=True)
class Run:
    """Of one replay: sent, ns a report, events drained."""

    sent: Sent
    ns: float
    events: int


def measure(net: Lab, sender: Executor, program: int, path: str, rate: float | None, datapath: Datapath | None) -> Run:
    """Replay a capture at a program; datapath: whose events are drained, none of the floor."""
    with net.inside(1) as near:
        link = kernel.link_create(program, socket.if_nametoindex(near), kernel.XDP_FLAGS_DRV_MODE)
    try:
        time_before, runs_before = run_time(program)
        sending = sender.submit(replay, path, net.names[0], rate=rate)
        events = 0
        while not sending.done():
            if datapath is None:
                sending.result(600)
                break
            with contextlib.suppress(TimeoutError):
                sending.result(0.01)
            events += len(datapath.drain())
        sent = sending.result()
        if datapath:
            events += len(datapath.drain())
        time, runs = run_time(program)
    finally:
        os.close(link)
    assert sent.dropped == 0 and runs - runs_before == sent.sent, f"sent {sent}, runs {runs - runs_before}"
    return Run(sent, (time - time_before) / sent.sent, events)


def case(net: Lab, sender: Executor, path: str, made: Traffic, rate: float | None, rounds: int) -> Row:
    """One case's figures: a program of its own, so that no other case's flows are in its maps."""
    truth = traffic.write(made, path)
    taken: dict[str, list[Run]] = {"drop": [], "collector": []}
    with contextlib.ExitStack() as stack:
        floor = drop_program()
        stack.callback(os.close, floor)
        datapath = Datapath(CONFIG)
        stack.callback(datapath.close)
        measure(net, sender, datapath.fd, path, None, datapath)  # the flows are learnt
        for _ in range(rounds):
            taken["drop"].append(measure(net, sender, floor, path, rate, None))
            taken["collector"].append(measure(net, sender, datapath.fd, path, rate, datapath))
        counters = datapath.counters()
    accepted, sent = int(counters["outcomes"][0]), (rounds + 1) * made.packets
    assert accepted == sent, f"{sent} reports sent, {accepted} accepted"
    ns = {name: Spread(tuple(run.ns for run in runs)) for name, runs in taken.items()}
    rates = {name: Spread(tuple(run.sent.rate for run in runs)).median for name, runs in taken.items()}
    events = Spread(tuple(run.events for run in taken["collector"])).median
    return {
        "reports/s": rates["collector"], "drop: reports/s": rates["drop"],
        "ns": ns["collector"].median, "floor_ns": ns["drop"].median,
        "ratio": ratios(ns["collector"], ns["drop"]).median,
        "events": int(events), "changes made": truth.value_changes,
        "events/s": events * rates["collector"] / made.packets, "events lost": int(counters["events_lost"]),
    }  # fmt: skip


def main() -> int:
    options = parser(__doc__, rounds=3)
    options.add_argument("--reports", type=int, default=200_000, help="reports of a capture (default: 200000)")
    arguments = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        net = stack.enter_context(network())
        sender = stack.enter_context(worker(0, net.namespaces[0] or ""))
        stack.enter_context(pinned(1))
        stack.enter_context(statistics())
        rows = []
        for row, made in cases():
            made = dataclasses.replace(made, packets=arguments.reports)
            rate = made.rate if row["varies"] == "events/s" else None
            rows.append(row | case(net, sender, str(folder / "reports.pcap"), made, rate, arguments.rounds))
    emit("replay", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
