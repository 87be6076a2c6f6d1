"""What delivery costs and carries: with and without a spool, over an outage, and in memory.

    .venv/bin/python benchmark/bench_delivery.py [--minute N] [--rounds N] [--json]

No root. Files are in a temporary folder, whose disk the figures depend on. The outage starts an influxd of its own;
without one it is left out. Events are those of bench_influxdb.py, ten points each.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import common
from bench_influxdb import POINTS, REPORTS, Events

from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.exporters.delivery import Chunk, Pusher, Refusal
from intcollector.exporters.influxdb import InfluxDB
from intcollector.exporters.jsonl import JsonLines
from intcollector.exporters.spool import Spool

BATCHES = 60
"""A round's: 30,000 events."""
JSON_BATCHES = 60
"""The same of JSON lines."""
LEFT = 100_000
"""Small chunks that are found at a start."""


ASKED = 0xF100
"""instruction_bitmap: switch, ports, latency, queue and TX utilization."""


def batches_of(source: Events, count: int) -> list[Any]:
    """Events that are whole as records, too."""
    batches = [source.next() for _ in range(count)]
    for batch in batches:
        batch.reports["int_version"], batch.reports["instruction_bitmap"] = 10, ASKED
        batch.hops["ingress_port_id"] = 1
    return batches


class Nowhere(InfluxDB):
    """Everything but a server: all that there is to do up to it. away: what is tried fails."""

    away = False

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        if self.away:
            raise Refusal("away", "it is away")
        self.ahead()
        self.delivered(chunk.points)


def settled_s(exporter: Pusher, batches: list[Any]) -> float:
    """Seconds from the first batch to the end of the last, at the pace at which the buffer takes them."""
    limit = (Config().push_buffer << 20) // 2
    pause = threading.Event()

    def work() -> None:
        for batch in batches:
            while exporter.counts().buffered_bytes > limit:
                assert not exporter.problem(), exporter.problem()
                pause.wait(0.002)
            exporter.write(batch)
        exporter.nudge()
        while exporter.counts().buffered:
            assert not exporter.problem(), exporter.problem()
            pause.wait(0.002)

    taken = common.seconds(work)
    counts = exporter.counts()
    assert counts.accepted == counts.delivered, counts
    return taken


def carried(folder: pathlib.Path, rounds: int) -> Iterator[common.Row]:
    """Points and events a second, in memory and by way of the disk."""
    source = Events()
    spool = str(folder / "spool")
    more: dict[str, Any] = {"push_interval": 0.05}
    exporters: dict[str, Pusher] = {
        "points to nowhere, in memory": Nowhere(Config(influxdb="http://127.0.0.1:9", **more)),
        "points to nowhere, spooled": Nowhere(Config(influxdb="http://127.0.0.1:9", spool=spool, **more)),
        "events to a file, in memory": JsonLines(Config(jsonl=str(folder / "memory"), **more)),
        "events to a file, spooled": JsonLines(Config(jsonl=str(folder / "spooled"), spool=spool, **more)),
    }

    def rate(name: str) -> float:
        points = name.startswith("points")
        batches = batches_of(source, BATCHES if points else JSON_BATCHES)
        return len(batches) * REPORTS * (POINTS if points else 1) / settled_s(exporters[name], batches)

    measured = common.turns(rounds, {name: lambda name=name: rate(name) for name in exporters})  # type: ignore[misc]
    for exporter in exporters.values():
        exporter.close(10)
    for name, of in measured.items():
        beside = measured[name.replace("spooled", "in memory")]
        yield {
            "what": name,
            "a second": of.median,
            "from": of.low,
            "to": of.high,
            "of that in memory": common.ratios(of, beside).median,
        }


# --- memory -----------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory of this process."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_parts(source: Events, events: int) -> Iterator[Batch]:
    """Batches of so many events, each with memory of its own."""
    while True:
        whole = source.next()
        for first in range(0, len(whole), events):
            part = whole[first : first + events]
            reports, hops, hop_report, hop_index = (
                array.copy() for array in (part.reports, part.hops, part.hop_report, part.hop_index)
            )
            yield Batch(reports, hops, hop_report, hop_index, part.clock_ns)


def memory(config: Config, events: int) -> dict[str, float]:
    """In a process of its own: what it takes while everything is away, for five times what the buffer holds."""
    batches = in_parts(Events(), events)
    exporter = Nowhere(config)
    exporter.write(next(batches))
    while exporter.counts().buffered:
        pass
    exporter.away = True
    before = most = resident()
    size = 0
    counts = exporter.counts()
    while size < 5 * config.push_buffer << 20:
        batch = next(batches)
        size += sum(item.size + exporter.ITEM_SIZE for item in exporter.take(batch))
        exporter.write(batch)
        most = max(most, resident())
        counts = exporter.counts()
        assert counts.accepted == counts.delivered + sum(counts.lost.values()) + counts.buffered
    exporter.close(0)
    lost = sum(counts.lost.values())
    told = {"points told": counts.accepted, "points kept": counts.buffered, "points lost": lost}
    return {"MiB": (most - before) / 2**20, **told}


def bounded(folder: pathlib.Path) -> Iterator[common.Row]:
    away = str(folder / "away")
    for buffer, spool, events in ((16, None, REPORTS), (64, None, REPORTS), (16, None, 1), (16, away, REPORTS)):
        ran = subprocess.run(
            [sys.executable, __file__, "--events", str(events), "--memory",
             json.dumps({"push_buffer": buffer, "spool": spool})],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True,
        )  # fmt: skip
        shown = f"--push-buffer {buffer}{' --spool' if spool else ''}{', events one by one' if events == 1 else ''}"
        yield {"memory while all is away": shown, **json.loads(ran.stdout), "of MiB": buffer}


# --- an outage --------------------------------------------------------------------------------------------------------


def until_stored_s(exporter: Pusher) -> float:
    pause = threading.Event()

    def work() -> None:
        while exporter.counts().buffered:
            pause.wait(0.002)

    return common.seconds(work)


def outages(folder: pathlib.Path, minute: int) -> Iterator[common.Row]:
    """How long a server that is back takes for the points of a minute, beside as many without an outage."""
    sys.path.append(str(common.ROOT))
    from tests import servers

    for name, more in (
        ("in memory", {"push_buffer": 1024}),
        ("spooled", {"spool": str(folder / "outage")}),
        ("spooled, by another process", {"spool": str(folder / "restart")}),
    ):
        with servers.influxdb(folder / f"influxdb {name}") as server:
            config = Config(influxdb=server.url, push_interval=1.0, **more)
            source, exporter = Events(), InfluxDB(config)
            batches = batches_of(source, max(1, minute // (REPORTS * POINTS)))
            count = len(batches) * REPORTS * POINTS
            settled_s(exporter, batches_of(source, 1))
            usual = settled_s(exporter, batches_of(source, len(batches)))
            before = exporter.counts().delivered
            server.stop()
            for batch in batches:
                exporter.write(batch)
            servers.wait(exporter.problem, "the outage is noticed")
            if "another" in name:
                servers.wait(lambda of=exporter: not of.counts().buffered_bytes, "all is on disk")  # type: ignore[misc]
                exporter.close(1)
                exporter = InfluxDB(config)
                before = 0
            servers.wait(exporter.problem, "tries fail")
            assert exporter.counts().buffered == count, exporter.counts()
            server.start()
            taken = until_stored_s(exporter)
            assert exporter.counts().delivered - before == count, exporter.counts()
            exporter.close(10)
        yield {
            "after an outage of a minute": name,
            "points": count,
            "s until all is stored": taken,
            "s for as many without": usual,
        }


def found(folder: pathlib.Path) -> Iterator[common.Row]:
    """What a start takes with many small chunks left."""
    limit = 1 << 30
    spool = Spool(str(folder / "found"), "nowhere", limit, lambda points, reason: None)
    for _ in range(LEFT):
        spool.append(Chunk(b"int_flow latency=1 1\n" * 3, 3, 1))
    spool.close()
    taken = common.seconds(lambda: Spool(str(folder / "found"), "nowhere", limit, lambda points, reason: None))
    yield {"chunks found at a start": LEFT, "s": taken}


def main() -> int:
    parser = common.parser(__doc__, rounds=5)
    parser.add_argument("--minute", type=int, default=600_000, help="points of a minute (default: 600000)")
    parser.add_argument("--memory", help="as the process that is looked at; a Config as JSON")
    parser.add_argument("--events", type=int, default=REPORTS, help="that this process is given at a time")
    arguments = parser.parse_args()
    if arguments.memory:
        config = Config(influxdb="http://127.0.0.1:9", **json.loads(arguments.memory))
        print(json.dumps(memory(config, arguments.events)))
        return 0
    os.environ["PATH"] += f"{os.pathsep}{common.ROOT / '.venv/servers/usr/bin'}"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows = [*carried(folder, arguments.rounds), *bounded(folder), *found(folder)]
        if shutil.which("influxd"):
            rows += outages(folder, arguments.minute)
        else:
            rows.append({"after an outage of a minute": "skipped: influxd is missing: apt-get install influxdb"})
    common.emit("delivery", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
