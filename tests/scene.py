"""A small network whose reports are known: what the page must show, and what its pictures are of.

Computers at the access switches 11 to 14 talk to others behind the sinks 41 and 42; packets go through an aggregation
switch (21 to 23) and a core switch (31, 32). The sinks report, each with an address and numbers of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from intcollector.config import Config

from . import frames

CONFIG = Config()
REPORTS_TO = {41: "192.0.2.41", 42: "192.0.2.42"}
"""Sinks, and the addresses they report from."""
BURST_S = 13.0
"""So often a queue of switch 31 fills."""


@dataclasses.dataclass
class Flow:
    """path: switch ids as packets travel, the sink last. latency_ns: of each of them."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int
    path: tuple[int, ...]
    latency_ns: tuple[int, ...]

    @property
    def text(self) -> str:
        """As batches.report() reads it."""
        return f"{self.source}:{self.source_port}>{self.destination}:{self.destination_port}/{self.protocol}"

    @property
    def links(self) -> set[tuple[int, int]]:
        """(from, to)"""
        return set(zip(self.path, self.path[1:], strict=False))


def flows() -> list[Flow]:
    """Twenty, through all of the network; the same in every run."""
    made = []
    for i in range(20):
        access, aggregation, core, sink = 11 + i % 4, 21 + (i * 2 + i // 4) % 3, 31 + i // 2 % 2, 41 + i // 3 % 2
        service, protocol = ((443, 6), (5201, 17), (2049, 6), (8554, 17), (179, 6))[i % 5]
        latency = (420 + 40 * (i % 4), 650 + 110 * (i % 3), 900 + 150 * (i // 2 % 2), 380 + 60 * (i // 3 % 2))
        made.append(
            Flow(
                f"10.{access}.0.{5 + i}", f"10.{sink}.0.{80 + i % 3}", 40000 + 137 * i, service, protocol,
                (access, aggregation, core, sink), latency,
            )
        )  # fmt: skip
    return made


class Scene:
    """Frames of the flows' reports, numbered as their sinks would. lively: latencies and queues move, a queue of switch
    31 fills every BURST_S, and the first flow goes another way now and then; else all stays as flows() says."""

    def __init__(self, of: Sequence[Flow], lively: bool = False) -> None:
        self.flows = list(of)
        self.lively = lively
        self._next = dict.fromkeys(REPORTS_TO, 1)

    def frame(self, flow: Flow, time_s: float = 0.0) -> bytes:
        """The next report of a flow."""
        return self._report(flow, [self._hop(flow, at, time_s) for at in range(len(flow.path))])

    def dropped(self, flow: Flow, at: int, reason: int) -> bytes:
        """The switch at that place of the path dropped a packet of the flow."""
        sink = flow.path[-1]
        self._next[sink] += 1
        return frames.frame(
            CONFIG, source=REPORTS_TO[sink], switch_id=sink, sequence_number=self._next[sink] - 1, flow=flow.text,
            dropped=True, tracked_flow=False,
            local={"ingress_port_id": 1, "egress_port_id": 2, "drop_queue_id": 1, "drop_reason": reason},
        )  # fmt: skip

    def lose(self, sink: int, reports: int) -> None:
        """The next so many of a sink's reports never arrive."""
        self._next[sink] += reports

    def round(self, time_s: float = 0.0) -> list[bytes]:
        """A report of every flow."""
        return [self.frame(flow, time_s) for flow in self.flows]

    def play(self, seconds: float, rounds_per_s: int = 10) -> Iterator[bytes]:
        """Reports of so many seconds, and of a lively scene what happens in it. Every third flow is reported in each
        round, the others in every second or third."""
        first, second = self.flows[0], self.flows[1]
        ways = {id(flow): (flow.path, (*flow.path[:1], 44 - flow.path[1], *flow.path[2:])) for flow in (first, second)}
        for step in range(round(seconds * rounds_per_s)):
            now = step / rounds_per_s
            if self.lively:
                first.path = ways[id(first)][int((now + 6) / 20) % 2]
                second.path = ways[id(second)][int((now + 14) / 33) % 2]
                if step % 110 == 40:
                    yield self.dropped(self.flows[3], 2, 71)
            yield from (self.frame(flow, now) for n, flow in enumerate(self.flows) if step % (1 + n % 3) == 0)

    def _report(self, flow: Flow, hops: list[dict[str, int | None]]) -> bytes:
        sink = flow.path[-1]
        number, self._next[sink] = self._next[sink], self._next[sink] + 1
        return frames.frame(
            CONFIG, *hops[::-1], source=REPORTS_TO[sink], switch_id=sink, sequence_number=number, flow=flow.text
        )

    def _hop(self, flow: Flow, at: int, time_s: float) -> dict[str, int | None]:
        switch, number = flow.path[at], self.flows.index(flow)
        latency, occupancy, used = flow.latency_ns[at], 20 + 3 * (switch % 7), 900 + 130 * (switch % 10)
        if self.lively:
            wave = math.sin(time_s / (4 + switch % 5) + number)
            latency = round(latency * (1 + 0.16 * wave))
            occupancy += round(14 * (1 + math.sin(time_s / 5 + switch)))
            used += round(220 * math.sin(time_s / 9 + switch))
            if switch == 31 and number % 3 == 0:  # the queue fills in a second, and drains in three
                since = time_s % BURST_S
                fill = min(1.0, since) if since < 1 else max(0.0, 1 - (since - 1) / 3)
                latency += round(9500 * fill)
                occupancy += round(640 * fill)
        return {
            "switch_id": switch, "ingress_port_id": 100 + at, "egress_port_id": 1 + number % 3 if at < 3 else 9,
            "hop_latency": latency // 2 * 2, "queue_id": number % 3, "queue_occupancy": occupancy,
            "egress_port_tx_utilization": used,
        }  # fmt: skip
