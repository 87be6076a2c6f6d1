"""Every report an event, drained into arrays on the other core: the highest rate at which none is lost.

    .venv/bin/python benchmark/bench_drain.py [--json] [--rounds N] [--reports N] [--curve]

Needs root and two CPUs. A process on CPU 0 sends live frames, and there the kernel program runs; this one drains on
CPU 1. Three hops, all of which change in every report. A trial sends so many reports at a rate; its rate is what came
up over the time from the first report to the last drained. It is without loss if as many events came up as reports
were sent, and none was counted lost. The highest is found by halving the interval between one with loss and one
without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from concurrent.futures import Executor

from common import Row, emit, network, parser, pinned, prepare, required, send, worker

from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.interface import Attachment
from intcollector.traffic import Traffic

TRAFFIC = Traffic(flows=1000, hops=3, instructions=0xFF00, event_rate=1.0)
CONFIG = Config(
    int_dscp=(23, 63), keepalive=0,
    hop_latency_threshold=0, flow_latency_threshold=0, queue_occupancy_threshold=0, tx_utilization_threshold=0,
)  # fmt: skip
"""Without thresholds every hop's latency, queue and port is news in every report."""

STEPS = 5
IDLE_S = 0.05
"""Nothing came up for so long after the sender's end: nothing will."""
FEW, PAUSE_S = 1000, 0.001
"""A drain that brought up fewer is followed by a pause, as in the control loop. Looking at the ring's positions without
pause takes their cache lines from the CPU that writes there, which then sends a third less."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """offered: reports a second asked for, None: as many as possible. sent: what it came to. drained: events a second.
    lost: events that found no room. busy: share of the time in which the draining CPU had something to drain."""

    offered: float | None
    sent: float
    drained: float
    events: int
    lost: int
    busy: float


def trial(datapath: Datapath, sender: Executor, reports: int, rate: float | None) -> Trial:
    """Send, and drain meanwhile."""
    lost_before = int(datapath.counters()["events_lost"])
    events, busy = 0, 0.0
    began = last = 0.0
    sending = sender.submit(send, reports, rate)
    while True:
        over = sending.done()
        begin = time.perf_counter()
        came = len(datapath.drain())
        now = time.perf_counter()
        if came:
            began = began or begin
            events, busy, last = events + came, busy + now - begin, now
        elif over and now - last > IDLE_S:
            break
        if came < FEW:
            time.sleep(PAUSE_S)
    sent = sending.result(60)
    lost = int(datapath.counters()["events_lost"]) - lost_before
    assert sent.sent == reports and events + lost == reports, f"sent {sent.sent}, events {events}, lost {lost}"
    took = last - began
    return Trial(rate, sent.rate, events / took, events, lost, busy / took)


def highest(datapath: Datapath, sender: Executor, reports: int) -> Trial:
    """The trial without loss of the highest rate."""
    fastest = trial(datapath, sender, reports, None)
    if not fastest.lost:
        return fastest
    low, high = 0.0, fastest.sent
    best = None
    for _ in range(STEPS):
        middle = (low + high) / 2
        one = trial(datapath, sender, reports, middle)
        if one.lost:
            high = middle
        else:
            low, best = middle, one
    return best or trial(datapath, sender, reports, high / 2)


def curve(datapath: Datapath, sender: Executor, reports: int) -> list[Row]:
    """Drained against offered."""
    rates = [50_000, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000, 800_000,
                                 1_000_000, 1_250_000, 1_500_000, 2_000_000]  # fmt: skip
    rows = []
    for rate in rates:
        one = trial(datapath, sender, min(reports, rate), rate)
        rows.append({"curve": "drain", "offered": rate, "sent": one.sent, "drained": one.drained,
                     "events": one.events, "lost": one.lost, "busy": one.busy})  # fmt: skip
        if one.sent < 0.9 * rate:  # the sender's most
            break
    return rows


def main() -> int:
    options = parser(__doc__, rounds=3)
    options.add_argument("--reports", type=int, default=1_500_000, help="reports a trial (default: 1500000)")
    options.add_argument("--no-curve", action="store_true", help="leave out drained events against rate")
    arguments = options.parse_args()
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        sender = stack.enter_context(worker(0, net.namespaces[0] or ""))
        stack.enter_context(pinned(1))
        datapath = Datapath(CONFIG)
        stack.callback(datapath.close)
        with net.inside(1) as near:
            attachment = Attachment(datapath.fd, near, CONFIG)
        stack.callback(attachment.close)
        sender.submit(prepare, TRAFFIC, net.names[0]).result(120)
        trial(datapath, sender, 10 * TRAFFIC.flows, 10_000)
        found = [highest(datapath, sender, arguments.reports) for _ in range(arguments.rounds)]
        rows = [] if arguments.no_curve else curve(datapath, sender, arguments.reports)
    rates = [one.drained for one in found]
    rows = [
        required(
            "every report an event, drained on the other core, none lost", max(rates), "reports/s",
            must=500_000, hope=1_000_000, better="more", low=min(rates), high=max(rates),
        ),
        *({"round": i, **dataclasses.asdict(one)} for i, one in enumerate(found)),
        *rows,
    ]  # fmt: skip
    emit("drain", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
