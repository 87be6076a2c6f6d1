"""Events a second that `relay` carries out of Kafka into InfluxDB and into a file, beside a collector's own exporters.

    .venv/bin/python benchmark/bench_relay.py [--events N] [--rounds N] [--json]

No root. Starts a Kafka broker and an influxd of its own on free ports, with their data in a temporary folder, on the
same cores as this. Every event has three hops and ten points, as in bench_influxdb.py. Each round has a topic, and
relays, processes of their own, that have its partitions; then all events are sent at once, and the clock runs until all
are delivered. The floor is the same events given to the same exporters as a collector does. Each time the database and
the file are asked whether they have every event.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import common
import numpy as np
import urllib3
from bench_influxdb import FIELDS, POINTS, REPORTS, Events
from confluent_kafka import Producer

from intcollector import events
from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.exporters import exporter_class
from intcollector.series import records

PARTITIONS = 4
ASKED = 0xF100
"""instruction_bitmap: switch, ports, latency, queue and TX utilization."""
APART_NS = 4000
DEADLINE_S = 300.0
DATABASES = itertools.count()


LOOK_S = 0.1
"""A scrape takes the relay's time as well."""


def until(condition: Callable[[], bool], what: str, every_s: float = 0.005) -> None:
    """Asks so often."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {DEADLINE_S:.0f} s")
        time.sleep(every_s)


class Relay:
    """A relay that has a group of its own, or shares it."""

    def __init__(self, broker: Any, topic: str, *arguments: str) -> None:
        command = [
            sys.executable, "-m", "intcollector", "relay", "--kafka", broker.address, "--kafka-topic", topic,
            "--kafka-group", f"of {topic}", "--prometheus", "127.0.0.1:0", "--max-flow-series", "0", *arguments,
        ]  # fmt: skip
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._said, cwd=common.ROOT)
        self._http = urllib3.PoolManager(retries=False)
        self._url = ""

    def has_begun(self) -> bool:
        if not self._url:
            text = os.pread(self._said.fileno(), 1 << 16, 0).decode()
            if self._process.poll() is not None:
                raise SystemExit(f"the relay ended:\n{text}")
            if found := re.search(r"metrics: (\S+)", text):
                self._url = found[1]
        return bool(self._url)

    def look(self) -> dict[str, float]:
        """events read, points delivered, messages that it lags behind, CPU seconds; none before it has begun."""
        text = self._text()
        return {
            name: sum(float(n) for n in re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE))
            for name, metric in (
                ("read", "int_relay_events_total"),
                ("delivered", "int_exporter_points_delivered_total"),
                ("lag", "int_relay_lag_messages"),
                ("cpu_s", "process_cpu_seconds_total"),
            )
        }

    def partitions(self) -> int:
        """How many it has."""
        return len(re.findall("^int_relay_lag_messages{", self._text(), re.MULTILINE))

    def _text(self) -> str:
        return self._http.request("GET", self._url, timeout=30.0).data.decode() if self.has_begun() else ""

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._said.close()
        self._http.clear()


class Contest:
    """The same events by every way."""

    def __init__(self, broker: Any, influxdb: Any, folder: pathlib.Path, count: int) -> None:
        self._broker, self._influxdb, self._folder = broker, influxdb, folder
        self.cpu_us: dict[str, list[float]] = {}
        source = Events()
        self._batches = [source.next() for _ in range(max(1, count // REPORTS))]
        for number, batch in enumerate(self._batches):
            batch.reports["int_version"], batch.reports["instruction_bitmap"] = 10, ASKED
            batch.reports["received_ns"] = APART_NS * (number * REPORTS + np.arange(REPORTS))
        self.count = len(self._batches) * REPORTS
        self.messages = [
            json.dumps(record, separators=(",", ":")).encode()
            for batch in self._batches
            for record in records(batch, Config())
        ]
        self._producer = Producer(
            {"bootstrap.servers": broker.address, "linger.ms": 20, "compression.type": "lz4",
             "queue.buffering.max.messages": 10_000_000, "log_level": 2}
        )  # fmt: skip

    def _spent(self, name: str, cpu_s: float, count: float) -> None:
        self.cpu_us.setdefault(name, []).append(cpu_s / count * 1e6)

    # the collector's own exporters

    def _collector(self, name: str, config: Config, points: int) -> float:
        exporter = exporter_class(name)(config)
        limit = (config.push_buffer << 20) // 2

        def send() -> None:
            for batch in self._batches:
                until(lambda: exporter.counts().buffered_bytes < limit, "there is room")
                exporter.write(batch)
            until(lambda: exporter.counts().delivered == points, "all is delivered")

        begin = time.process_time()
        try:
            return self.count / common.seconds(send)
        finally:
            self._spent(name, time.process_time() - begin, self.count)
            exporter.close(10)

    def collector_influxdb(self) -> float:
        name = f"d{next(DATABASES)}"
        rate = self._collector(
            "influxdb", Config(influxdb=self._influxdb.url, influxdb_database=name), self.count * POINTS
        )
        self._check(name)
        return rate

    def collector_jsonl(self) -> float:
        path = self._folder / f"f{next(DATABASES)}"
        rate = self._collector("jsonl", Config(jsonl=str(path)), self.count)
        path.unlink()
        return rate

    # relays

    def _relays(self, name: str, number: int, points: int, *arguments: str) -> float:
        topic = f"t{next(DATABASES)}"
        self._broker.create_topic(topic, partitions=PARTITIONS)
        with contextlib.ExitStack() as stack:
            relays = []
            for _ in range(number):
                relays.append(Relay(self._broker, topic, *arguments))
                stack.callback(relays[-1].close)

            seen: dict[str, float] = {}

            def look() -> None:
                for name in seen:
                    seen[name] = 0
                for relay in relays:
                    for name, number in relay.look().items():
                        seen[name] = seen.get(name, 0) + number

            def ready() -> bool:
                look()
                return all([relay.partitions() == PARTITIONS // number for relay in relays])  # noqa: C419 - ask all

            def done() -> bool:
                look()
                # what moved from one to the other may have come twice: then only the lag says that all is there
                self._producer.poll(0)
                return seen["delivered"] >= points and not seen["lag"]

            until(ready, "the relays have their partitions", LOOK_S)
            begin, cpu_s = time.perf_counter(), seen["cpu_s"]
            for at, message in enumerate(self.messages):
                self._producer.produce(topic, value=message, partition=at % PARTITIONS)
            until(done, "all is delivered", LOOK_S)
            self._spent(f"{number} {name}", seen["cpu_s"] - cpu_s, self.count)
            return self.count / (time.perf_counter() - begin)

    def relay_influxdb(self, number: int = 1) -> float:
        name = f"d{next(DATABASES)}"
        arguments = ("--influxdb", self._influxdb.url, "--influxdb-database", name)
        rate = self._relays("influxdb", number, self.count * POINTS, *arguments)
        self._check(name)
        return rate

    def relay_jsonl(self) -> float:
        path = self._folder / f"f{next(DATABASES)}"
        rate = self._relays("jsonl", 1, self.count, "--jsonl", str(path))
        written = path.read_bytes().splitlines()
        if sorted(written) != sorted(self.messages):
            raise SystemExit("the file is not what was sent")
        path.unlink()
        return rate

    def _check(self, database: str) -> None:
        """Every point is there once, and then gone."""
        stored = 0
        for measurement, field in FIELDS.items():
            (row,) = self._influxdb.query(f"SELECT count({field}) FROM {measurement}", database)
            stored += row["count"]
        if stored != self.count * POINTS:
            raise SystemExit(f"{stored} points stored of {self.count * POINTS}")
        self._influxdb.query(f"DROP DATABASE {database}")

    # pieces

    def reading(self) -> float:
        """Messages -> batches."""

        def read() -> list[Batch]:
            size = 2048
            return [
                events.of_messages(self.messages[first : first + size])[0]
                for first in range(0, len(self.messages), size)
            ]

        return self._alone("reading", read)

    def parsing(self) -> float:
        """json.loads() alone: what any Python reader of these messages takes at least."""

        def parse() -> None:
            for message in self.messages:
                json.loads(message)

        return self._alone("parsing", parse)

    def _alone(self, name: str, work: Callable[[], Any]) -> float:
        begin = time.process_time()
        took = common.seconds(work)
        self._spent(name, time.process_time() - begin, self.count)
        return self.count / took


WAYS = {
    "collector_influxdb": "the collector's exporter, into InfluxDB",
    "relay_influxdb": "a relay, into InfluxDB",
    "two_influxdb": "two relays of a group, into InfluxDB",
    "collector_jsonl": "the collector's exporter, into a file",
    "relay_jsonl": "a relay, into a file",
    "reading": "messages into batches, nothing else",
    "parsing": "json.loads() of the messages, nothing else",
}

SPENT = {
    "influxdb": "the collector's exporter, into InfluxDB",
    "1 influxdb": "a relay, into InfluxDB",
    "2 influxdb": "two relays of a group, both together",
    "jsonl": "the collector's exporter, into a file",
    "1 jsonl": "a relay, into a file",
    "reading": "messages into batches",
    "parsing": "json.loads()",
}
"""What takes CPU: which is the same on a machine that has other things to do."""


def rows_of(measured: dict[str, common.Spread]) -> Iterator[common.Row]:
    for name, what in WAYS.items():
        of = measured[name]
        yield {"what": what, "events a second": of.median, "from": of.low, "to": of.high}
    for name, floor in (
        ("relay_influxdb", "collector_influxdb"), ("relay_jsonl", "collector_jsonl"), ("reading", "parsing"),
        ("two_influxdb", "relay_influxdb"),
    ):  # fmt: skip
        yield {"ratio": f"{WAYS[name]} / {WAYS[floor]}", "is": common.ratios(measured[name], measured[floor]).median}


def main() -> int:
    parser = common.parser(__doc__, rounds=3)
    parser.add_argument("--events", type=int, default=40_000, help="a round (default: 40000)")
    arguments = parser.parse_args()
    os.environ["PATH"] += f"{os.pathsep}{common.ROOT / '.venv/servers/usr/bin'}"
    sys.path.append(str(common.ROOT))
    from tests import kafka_broker, servers

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        broker = stack.enter_context(kafka_broker.broker(folder / "kafka"))
        influxdb = stack.enter_context(servers.influxdb(folder / "influxdb"))
        contest = Contest(broker, influxdb, folder, arguments.events)
        ways: dict[str, Callable[[], float]] = {
            way: getattr(contest, way) for way in WAYS if way != "two_influxdb"
        }  # fmt: skip
        ways["two_influxdb"] = lambda: contest.relay_influxdb(2)
        measured = common.turns(arguments.rounds, ways)
    rows = list(rows_of(measured))
    for spent, what in SPENT.items():
        us = float(np.median(contest.cpu_us[spent]))
        rows.append({"CPU of": what, "us an event": us, "events a second of a core": 1e6 / us})
    size = sum(map(len, contest.messages)) / contest.count
    rows.append({"bytes of a message": size, "points of an event": POINTS, "events a round": contest.count})
    common.emit("relay", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
