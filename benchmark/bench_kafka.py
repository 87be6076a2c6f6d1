"""Events stored in Kafka a second, beside what the same broker takes of ready-made messages.

    .venv/bin/python benchmark/bench_kafka.py [--events N] [--rounds N] [--outage S] [--json]

No root. Starts a broker of its own on free ports, with its data in a temporary folder, on the same cores as this. Every
report is an event with three hops of nine values, of one of a thousand flows. The floor is a loop of librdkafka's
produce() with the very settings of the exporter, over messages that are bytes already. At the end the broker is asked
whether it has every message. Then it is stopped for a while, with events coming all the time.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
import threading
import time
from typing import Any

import common
import numpy as np
from bench_influxdb import REPORTS, Events
from confluent_kafka import Consumer, TopicPartition

from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.exporters.kafka import Flight, Kafka
from intcollector.series import records

MEASURE = "events stored in Kafka a second, over ready-made messages"
PARTITIONS = 4
LOAD = 1000
"""Events a second while the broker is away."""


class WholeEvents(Events):
    """Of which every value is there."""

    def next(self) -> Batch:
        batch = super().next()
        batch.reports["flags"] |= 0x4
        batch.reports["int_version"], batch.reports["instruction_bitmap"] = 10, 0xFD00
        batch.reports["hop_ml"], batch.reports["remaining_hop_count"] = 8, 5
        batch.hops["ingress_port_id"] = 1
        batch.hops["ingress_timestamp"] = batch.reports["received_ns"][batch.hop_report]
        batch.hops["egress_timestamp"] = batch.hops["ingress_timestamp"] + batch.hops["hop_latency"]
        return batch


class Timed(common.Clocked, Kafka):
    """The exporter, timed."""


class Contest:
    """Rounds of so many events, at one broker."""

    def __init__(self, broker: Any, count: int) -> None:
        self._broker, self._batches = broker, max(1, count // REPORTS)
        self.count = self._batches * REPORTS
        self.events = {name: WholeEvents() for name in ("ours", "ready")}
        self.rounds = dict.fromkeys(self.events, 0)
        self.shares: list[float] = []
        self.while_away = 0
        for topic in self.events:
            broker.create_topic(topic, partitions=PARTITIONS)
        self.ours_exporter, self._ready = self._exporter("ours"), self._exporter("ready")

    def _exporter(self, topic: str) -> Timed:
        return Timed(Config(kafka=self._broker.address, kafka_topic=topic))

    def _next(self, name: str) -> list[Batch]:
        self.rounds[name] += 1
        return [self.events[name].next() for _ in range(self._batches)]

    def ready(self) -> float:
        """Messages a second, of bytes."""
        data = b"".join(self._ready.spell(self._ready.take(one)) for one in self._next("ready"))
        messages = [line.split(b"\t", 1) for line in data.splitlines()]
        producer, flight = self._ready._producer, Flight()
        assert producer is not None

        def send() -> None:
            produce, reported = producer.produce, flight.reported
            for first in range(0, len(messages), Kafka.LINES):
                for key, value in messages[first : first + Kafka.LINES]:
                    produce("ready", value, key, -1, reported)
                producer.poll(0)
            producer.flush()

        taken = common.seconds(send)
        assert flight.delivered == self.count, flight.failed[:1]
        return self.count / taken

    def ours(self) -> float:
        """Events a second through the exporter, from arrays to what the broker has acknowledged."""
        batches, exporter = self._next("ours"), self.ours_exporter
        before, spelt = exporter.counts().delivered, exporter.spelling_s
        limit = (Config().push_buffer << 20) // 2

        def send() -> None:
            for one in batches:
                while exporter.counts().buffered_bytes > limit:
                    exporter.emptier.clear()
                    exporter.emptier.wait(1)
                exporter.empty.clear()
                exporter.write(one)
            assert exporter.empty.wait(60), exporter.problem()

        taken = common.seconds(send)
        assert exporter.counts().delivered - before == self.count, exporter.counts()
        self.shares.append((exporter.spelling_s - spelt) / taken)
        return self.count / taken

    def outage(self, seconds: float) -> common.Row:
        """The broker is stopped so long, with events coming; from its return on, how long until all is delivered."""
        exporter, ended = self.ours_exporter, threading.Event()
        before, told = exporter.counts(), 0

        def come() -> None:
            nonlocal told
            begin = time.monotonic()
            while not ended.wait(max(0.0, begin + told / LOAD - time.monotonic())):
                exporter.write(self.events["ours"].next())
                told += REPORTS

        coming = threading.Thread(target=come)
        coming.start()
        try:
            self._broker.stop()
            ended.wait(seconds)
            kept = exporter.counts()
            self._broker.start()
            back = time.monotonic()
            while exporter.counts().age_s > 2 * Config().push_interval:
                ended.wait(0.01)
            took = time.monotonic() - back
        finally:
            ended.set()
            coming.join()
        while (counts := exporter.counts()).buffered:
            exporter.empty.clear()
            exporter.empty.wait(1)
        assert counts.delivered - before.delivered == told and not any(counts.lost.values()), counts
        self.while_away = told
        return {
            "outage": f"{seconds:g} s at {LOAD} events/s",
            "events kept": kept.buffered,
            "MiB kept": kept.buffered_bytes / 2**20,
            "lost": sum(counts.lost.values()),
            "seconds from the broker's start to no delay": took,
        }

    def close(self) -> None:
        for exporter in (self.ours_exporter, self._ready):
            exporter.close(10)

    def check(self, extra: int = 0) -> None:
        """The broker has every message, of both."""
        consumer = Consumer({"bootstrap.servers": self._broker.address, "group.id": "check"})
        for name, rounds in self.rounds.items():
            stored = sum(
                consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=30)[1]
                for partition in range(PARTITIONS)
            )
            wanted = rounds * self.count + (extra if name == "ours" else 0)
            assert stored == wanted, f"{name}: {stored} messages stored of {wanted}"
        consumer.close()


def spelling(rounds: int) -> list[common.Row]:
    """us an event, from arrays to text: as the exporter does it, and by json.dumps()."""
    exporter = Kafka(Config(kafka="127.0.0.1:9"))  # to which nothing is written
    exporter.close(0)
    source, config = WholeEvents(), Config()
    dumps = json.JSONEncoder(separators=(",", ":")).encode

    def timed(way: Any) -> Any:
        def measure() -> float:
            batches = [source.next() for _ in range(10)]
            return common.seconds(lambda: [way(one) for one in batches]) / (10 * REPORTS) * 1e6

        return measure

    measured = common.turns(
        rounds,
        {
            "this exporter": timed(lambda batch: exporter.spell(exporter.take(batch))),
            "json.dumps() of each record": timed(lambda batch: [dumps(record) for record in records(batch, config)]),
        },
    )
    return [{"spelling by": name, "us an event": of.median} for name, of in measured.items()]


def main() -> int:
    parser = common.parser(__doc__, rounds=5)
    parser.add_argument("--events", type=int, default=100_000, help="a round (default: 100000)")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds (default: 60); 0: none")
    arguments = parser.parse_args()
    sys.path.append(str(common.ROOT))
    from tests import kafka_broker

    if not any(kafka_broker.JARS.glob("kafka_2*.jar")):
        print("there is no Kafka broker: sh tests/kafka/broker.sh fetches one", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, kafka_broker.broker(pathlib.Path(folder)) as broker:
        contest = Contest(broker, arguments.events)
        try:
            common.turns(1, {"ready": contest.ready, "ours": contest.ours})
            contest.shares.clear()
            measured = common.turns(arguments.rounds, {"ready": contest.ready, "ours": contest.ours})
            contest.check()
            away = [contest.outage(arguments.outage)] if arguments.outage else []
            if away:
                contest.check(contest.while_away)
        finally:
            contest.close()
    ours, ready = measured["ours"], measured["ready"]
    rows: list[common.Row] = [
        {"measure": MEASURE, "value": common.ratios(ours, ready).median},
        *(
            {"what": name, "events a second": of.median, "from": of.low, "to": of.high}
            for name, of in (("this exporter, from arrays", ours), ("ready-made messages", ready))
        ),
        {"spelling's share of the exporter's time": float(np.median(contest.shares))},
        *spelling(arguments.rounds),
        *away,
    ]
    common.emit("kafka", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
