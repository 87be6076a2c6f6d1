"""`relay`: what stands in a Kafka topic reaches the exporters, whatever becomes of relays, brokers and databases."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import urllib3
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import admin as kafka_admin

from intcollector import relay as in_process
from intcollector import series
from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.events import batch_of
from intcollector.exporters.influxdb import InfluxDB
from intcollector.exporters.kafka import Kafka
from intcollector.told import Told

from . import kafka_broker, servers
from .batches import news, report
from .collectors import ROOT, Command, Metrics, intcollector
from .kafka_broker import Broker
from .servers import InfluxServer, wait

NOW_NS = 1_700_000_000_000_000_000
APART_NS = 32
"""What a collector leaves between two of its events."""

USERS = {"alice": "wonderland-7"}

Event = dict[str, Any]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    settings = {
        "group.min.session.timeout.ms": "1000",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with kafka_broker.broker(tmp_path_factory.mktemp("kafka"), tls=True, users=USERS, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    with servers.influxdb(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> str:
    """Of the test's own, in four partitions."""
    name = request.node.name.replace("[", ".").replace("]", "")
    broker.create_topic(name, partitions=4)
    return name


# --- events -----------------------------------------------------------------------------------------------------------


def event(number: int, *, flows: int = 25) -> Event:
    """The number-th event of a collector, of one of so many flows: everything about its two hops is news."""
    hop = {
        "switch_id": 7, "ingress_port_id": 1, "egress_port_id": number % 3, "hop_latency": 100 + number,
        "queue_id": 1, "queue_occupancy": number % 1000, "egress_port_tx_utilization": number % 50,
    }  # fmt: skip
    flow = f"10.0.{number % flows}.1:5000>10.1.0.1:80/6"
    said = report(hop, {**hop, "switch_id": 8}, flow=flow, sequence_number=number)
    said["int"]["instruction_bitmap"] = "0xf100"
    return news(said, "path", "flow_latency") | {"received_ns": NOW_NS + APART_NS * number}


def text(said: Event) -> str:
    """As a collector writes it: of the keys of a change the hop comes first, and changes come last."""
    changes = said["changes"]
    return json.dumps({**{k: v for k, v in said.items() if k != "changes"}, "changes": changes})


def produce(broker: Broker, topic: str, said: Iterable[Event | bytes | None]) -> None:
    """Into the topic, as `run --kafka` does: the key is the flow."""
    producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True})
    for one in said:
        key = one["flow"]["source"] if isinstance(one, dict) else "?"
        producer.produce(topic, key=key, value=text(one) if isinstance(one, dict) else one)
        producer.poll(0)
    assert producer.flush(servers.DEADLINE_S) == 0


def committed(broker: Broker, topic: str) -> dict[int, int]:
    """By partition, where the group is; partitions of which nothing was committed are left out."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": f"of {topic}"})
    try:
        asked = consumer.committed([TopicPartition(topic, n) for n in range(4)], servers.DEADLINE_S)
    finally:
        consumer.close()
    return {one.partition: one.offset for one in asked if one.offset >= 0}


def ends(broker: Broker, topic: str) -> dict[int, int]:
    """By partition, how many messages it has, if any."""
    return dict(Counter(message.partition for message in broker.stored(topic)))


Point = tuple[str, tuple[tuple[str, str], ...], int, float]


def points_of(said: Sequence[Event]) -> list[Point]:
    """What is to be in InfluxDB for events: (measurement, tags, time, value)."""
    found = []
    for kind in series.points(batch_of(said), Config()):
        labels = zip(*map(series.texts, kind.labels.values()), strict=True)
        for row, time_ns, value in zip(labels, kind.times_ns.tolist(), kind.values.tolist(), strict=True):
            tags = tuple(sorted((name, value) for name, value in zip(kind.labels, row, strict=True) if value))
            found.append((kind.measurement, tags, time_ns, value))
    return found


FIELDS = {"int_flow": "latency", "int_hop": "latency", "int_queue": "occupancy", "int_port": "tx_utilization"}


def points_in(server: InfluxServer, database: str) -> list[Point]:
    """What is in InfluxDB."""
    found = []
    for measurement, field in FIELDS.items():
        for row in server.query(f"SELECT * FROM {measurement}", database):
            others = ("time", "measurement", "path", field)
            tags = tuple(sorted((k, str(v)) for k, v in row.items() if k not in others and v not in (None, "")))
            found.append((measurement, tags, row["time"], row[field]))
    return found


def stored(server: InfluxServer, database: str) -> int:
    """How many points there are."""
    if database not in server.names("SHOW DATABASES"):
        return 0
    rows = (server.query(f"SELECT count({field}) FROM {name}", database) for name, field in FIELDS.items())
    return sum(row["count"] for some in rows for row in some)


# --- relays -----------------------------------------------------------------------------------------------------------


class Relay(Command):
    """`intcollector relay`, a member of its group."""

    def __init__(self, broker: Broker, topic: str, *arguments: str, ready: bool = True, address: str = "") -> None:
        super().__init__(
            "relay", "--kafka", address or broker.address, "--kafka-topic", topic, "--kafka-group", f"of {topic}",
            "--prometheus", "127.0.0.1:0", "--push-interval", "0.1", *arguments,
        )  # fmt: skip
        self._http = urllib3.PoolManager(retries=False)
        try:
            self.wait_said("metrics: ")
            self.url = self.said().partition("metrics: ")[2].split()[0].removesuffix("/metrics")
            if ready:
                self.wait_said("ready")
        except BaseException:
            self.close()
            raise

    def get(self, path: str) -> tuple[int, str]:
        """(status, body)"""
        answer = self._http.request("GET", self.url + path, timeout=30.0)
        return answer.status, answer.data.decode()

    def metrics(self) -> Metrics:
        status, said = self.get("/metrics")
        assert status == 200, said
        return Metrics(said)

    def wait(self, condition: Callable[[Metrics], bool], what: str) -> Metrics:
        """The first scrape of which it is true."""
        found: list[Metrics] = []

        def look() -> bool:
            found[:] = [self.metrics()]
            return condition(found[0])

        self.wait_until(look, what)
        return found[0]

    def caught_up(self) -> Metrics:
        """The scrape in which nothing of its partitions waits any more."""
        return self.wait(
            lambda m: bool(lag := m.by("int_relay_lag_messages", "partition")) and not any(lag.values()), "the lag is 0"
        )

    def assert_sums(self) -> None:
        """Of each exporter's points: accepted = delivered + lost + kept."""
        said = self.metrics()
        lost: Counter[str] = Counter()
        for (exporter, _), count in said.by("int_exporter_points_lost_total", "exporter", "reason").items():
            lost[exporter] += int(count)
        for exporter, accepted in said.by("int_exporter_points_total", "exporter").items():
            delivered = said.by("int_exporter_points_delivered_total", "exporter")[exporter]
            kept = said.by("int_exporter_buffer_points", "exporter")[exporter]
            assert accepted == delivered + lost[exporter] + kept

    def close(self) -> None:
        super().close()
        self._http.clear()


def lines(path: pathlib.Path) -> list[str]:
    """What is written, whole lines."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def numbers(path: pathlib.Path) -> list[int]:
    return [json.loads(line)["sequence_number"] for line in lines(path)]


def assert_promtool_is_content(said: str) -> None:
    """All that a relay has beside an exporter is there, and by the conventions."""
    for name, metric in series.METRICS.items():
        assert not name.startswith("int_relay_") or f"# TYPE {name} {metric.kind}\n" in said
    command = [servers.program("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=said, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


WRONG: tuple[bytes | None, ...] = (b"{", b"{}", b"[1]", None, b"x" * 70_000)
REFUSED = {"not_json": 2, "not_a_record": 2, "too_long": 1, "out_of_range": 0, "unknown_word": 0}


def test_events_arrive(broker: Broker, influxdb: InfluxServer, topic: str, tmp_path: pathlib.Path) -> None:
    """Every event is in the file, each flow's in their order, and in InfluxDB; messages that are no events are counted
    and passed over; the last of each flow is on /metrics; at the end the group is behind the last message."""
    said = [event(number) for number in range(500)]
    produce(broker, topic, [*said[:200], *WRONG, *said[200:]])
    path = tmp_path / "events.jsonl"
    with Relay(broker, topic, "--jsonl", str(path), "--influxdb", influxdb.url, "--influxdb-database", topic) as relay:
        relay.wait_until(lambda: len(lines(path)) >= 500, "all events are written")
        found = [json.loads(line) for line in lines(path)]
        assert sorted(found, key=lambda one: one["sequence_number"]) == said
        assert list(found[0]) == list(json.loads(text(said[0])))
        for flow in range(25):
            of_flow = [one["sequence_number"] for one in found if one["sequence_number"] % 25 == flow]
            assert of_flow == sorted(of_flow)
        metrics = relay.caught_up()
        assert relay.get("/readyz") == (200, "ready\n")
        assert metrics.by("int_relay_events_total") == {(): 500}
        news = [c if isinstance(c, str) else c["what"] for one in said for c in one["changes"]]
        counted = metrics.by("int_changes_total", "change")
        assert {word: count for word, count in counted.items() if count} == {
            word: news.count(word) for word in set(news)
        }
        assert metrics.by("int_relay_messages_refused_total", "reason") == REFUSED
        assert metrics.by("int_relay_lag_messages", "topic", "partition") == {(topic, str(n)): 0 for n in range(4)}
        assert metrics.by("int_flows") == {(): 25}
        latency = metrics.by("int_flow_latency_seconds", "source")
        assert latency == {f"10.0.{n % 25}.1": pytest.approx(2 * (100 + n) / 1e9) for n in range(475, 500)}
        assert metrics.by("int_queue_occupancy", "switch_id", "queue_id") == {("7", "1"): 499, ("8", "1"): 499}
        for only_of_all_reports in ("int_packets_total", "int_reports_total", "int_queue_occupancy_max"):
            assert f"\n{only_of_all_reports}" not in relay.get("/metrics")[1]
        assert_promtool_is_content(relay.get("/metrics")[1])
        relay.assert_sums()
        assert relay.end() == 0
        assert "500 events read; nothing is left to deliver" in relay.said()
        # five reasons, each said once, without what was in the message
        assert relay.said().count("is no event") == len([n for n in REFUSED.values() if n])
        assert "xxxx" not in relay.said()
    assert sorted(points_in(influxdb, topic)) == sorted(points_of(said))
    assert committed(broker, topic) == ends(broker, topic)


def test_a_relay_goes_on_where_the_last_one_ended(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """Of what `run --kafka` sends, the next relay of a group after SIGTERM begins behind what was delivered: nothing
    comes twice, nothing is left out."""
    path = tmp_path / "events.jsonl"
    for first in (0, 300):
        with Relay(broker, topic, "--jsonl", str(path)) as relay:
            exporter = Kafka(Config(kafka=broker.address, kafka_topic=topic, push_interval=0.05))
            exporter.write(batch_of([event(number) for number in range(first, first + 300)]))
            exporter.close(servers.DEADLINE_S)
            relay.wait_until(lambda: len(lines(path)) >= first // 2 + 100, "it is in the middle")  # noqa: B023
            assert relay.end() == 0
    with Relay(broker, topic, "--jsonl", str(path)) as relay:
        relay.caught_up()
        assert relay.end(signal.SIGINT) == 0
    assert sorted((json.loads(line) for line in lines(path)), key=lambda one: one["received_ns"]) == [
        event(number) for number in range(600)
    ]


def test_one_of_two_relays_is_killed(
    broker: Broker, influxdb: InfluxServer, topic: str, tmp_path: pathlib.Path
) -> None:
    """Two relays share the partitions; one is killed in the middle of its work, the other takes its partitions over:
    every event arrives at least once, and InfluxDB has each point exactly once."""
    properties = tmp_path / "kafka"
    properties.write_text("session.timeout.ms = 1500\nheartbeat.interval.ms = 300\n")
    said = [event(number) for number in range(2500)]
    paths = [tmp_path / name for name in ("killed", "stays")]

    def relay(path: pathlib.Path) -> Relay:
        return Relay(
            broker, topic, "--jsonl", str(path), "--influxdb", influxdb.url, "--influxdb-database", topic,
            "--kafka-config", str(properties),
        )  # fmt: skip

    with relay(paths[0]) as killed, relay(paths[1]) as stays:
        for one in (killed, stays):
            one.wait(lambda m: len(m.by("int_relay_lag_messages", "partition")) == 2, "each has two partitions")
        sender = threading.Thread(target=produce, args=(broker, topic, said))
        sender.start()
        try:
            killed.wait_until(lambda: len(lines(paths[0])) > 0, "it is in the middle")
            killed.process.kill()
        finally:
            sender.join()
        stays.wait(lambda m: len(m.by("int_relay_lag_messages", "partition")) == 4, "the other has all partitions")
        stays.caught_up()
        wait(lambda: stored(influxdb, topic) >= len(points_of(said)), "all points are stored")
        stays.assert_sums()
        assert stays.end() == 0
    arrived = Counter([*numbers(paths[0]), *numbers(paths[1])])
    assert arrived.keys() == set(range(2500))
    assert numbers(paths[0]) and numbers(paths[1])
    assert sorted(points_in(influxdb, topic)) == sorted(points_of(said))
    assert committed(broker, topic) == ends(broker, topic)


def test_partitions_move_without_a_loss(broker: Broker, influxdb: InfluxServer, topic: str) -> None:
    """While events come, a second relay joins and the first one leaves: InfluxDB has every point once."""
    said: list[Event] = []
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set() and len(said) < 20_000:
            more = [event(number) for number in range(len(said), len(said) + 50)]
            produce(broker, topic, more)
            said.extend(more)
            enough.wait(0.05)

    def relay() -> Relay:
        return Relay(broker, topic, "--influxdb", influxdb.url, "--influxdb-database", topic)

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(relay())
        sender = threading.Thread(target=send)
        sender.start()
        try:
            second = stack.enter_context(relay())
            second.wait(lambda m: m.sum("int_relay_events_total") > 0, "the second has something to do")
            assert first.end() == 0
            second.wait(lambda m: len(m.by("int_relay_lag_messages", "partition")) == 4, "it has all partitions")
        finally:
            enough.set()
            sender.join()
        metrics = second.caught_up()
        assert metrics.sum("int_relay_rebalances_total") >= 2
        assert second.end() == 0
    assert sorted(points_in(influxdb, topic)) == sorted(points_of(said))


def test_nothing_is_committed_that_is_not_stored(
    broker: Broker, influxdb: InfluxServer, topic: str, tmp_path: pathlib.Path
) -> None:
    """While InfluxDB is away the group stays where it was, and the relay reads no more than half its buffer; when the
    database is back everything arrives, and the lag is made up for."""
    said = [event(number) for number in range(2600)]
    arguments = ("--influxdb", influxdb.url, "--influxdb-database", topic, "--push-buffer", "1")
    with Relay(broker, topic, *arguments) as relay:
        produce(broker, topic, said[:100])
        relay.caught_up()
        before = ends(broker, topic)
        wait(lambda: committed(broker, topic) == before, "what is stored is committed")
        influxdb.stop()
        try:
            produce(broker, topic, said[100:])
            metrics = relay.wait(lambda m: m.by("int_relay_paused") == {(): 1}, "it reads nothing any more")
            assert metrics.sum("int_exporter_buffer_bytes") < 1 << 20
            relay.wait(lambda m: m.sum("int_relay_lag_messages") == 2500, "the lag is known")
            assert relay.get("/readyz")[0] == 503
            assert committed(broker, topic) == before
        finally:
            influxdb.start()
        relay.caught_up()
        metrics = relay.metrics()
        assert metrics.by("int_relay_paused") == {(): 0}
        assert metrics.sum("int_exporter_points_lost_total") == 0
        relay.assert_sums()
        assert relay.end() == 0
    assert sorted(points_in(influxdb, topic)) == sorted(points_of(said))
    assert committed(broker, topic) == ends(broker, topic)


def test_what_cannot_be_delivered_at_the_end_comes_again(
    broker: Broker, influxdb: InfluxServer, topic: str, tmp_path: pathlib.Path
) -> None:
    """A relay that ends while InfluxDB is away ends in its time, says what it left, and commits none of it."""
    said = [event(number) for number in range(50)]
    produce(broker, topic, said)
    arguments = ("--influxdb", influxdb.url, "--influxdb-database", topic, "--close-timeout", "0.5")
    influxdb.stop()
    try:
        with Relay(broker, topic, *arguments) as relay:
            relay.wait(lambda m: m.sum("int_relay_events_total") == 50, "all events are read")
            assert relay.end() == 0
            left = len(points_of(said))
            assert f"50 events read; points not delivered: influxdb {left}; their events come again" in relay.said()
        assert committed(broker, topic) == {}
    finally:
        influxdb.start()
    with Relay(broker, topic, *arguments) as relay:
        relay.caught_up()
        assert relay.end() == 0
    assert sorted(points_in(influxdb, topic)) == sorted(points_of(said))


def test_brokers_and_topics_are_waited_for(broker: Broker, tmp_path: pathlib.Path) -> None:
    """A relay begins without a broker and without the topic, says so once each, and goes on when they are there, also
    after the broker was away in between. SIGTERM ends it at any time."""
    path = tmp_path / "events.jsonl"
    broker.stop()
    with Relay(broker, "later", "--jsonl", str(path), ready=False) as relay:
        relay.wait_said("can be reached")
        assert relay.get("/readyz")[0] == 503
        assert relay.get("/healthz")[0] == 200
        with Relay(broker, "later", "--jsonl", "-", ready=False) as another:
            another.wait_said("can be reached")
            assert another.end() == 0
        broker.start()
        relay.wait_said("there is no topic later at")
        assert "create it" in relay.get("/readyz")[1]
        broker.create_topic("later", partitions=4)
        relay.wait_said("ready")
        produce(broker, "later", map(event, range(100)))
        relay.wait_until(lambda: len(lines(path)) == 100, "the first events are written")
        broker.stop()
        relay.wait_said("can be reached", times=2)
        assert "can be reached" in relay.get("/readyz")[1]
        broker.start()
        produce(broker, "later", map(event, range(100, 200)))
        relay.wait_until(lambda: len(lines(path)) >= 200, "the others are, too")
        relay.caught_up()
        relay.wait_until(lambda: relay.get("/readyz")[0] == 200, "it is ready again")
        relay.assert_sums()
        assert relay.said().count("works again") >= 2
        broker.pause()
        try:
            assert relay.end() == 0
        finally:
            broker.resume()
        assert "left without a word" in relay.said()
    assert set(numbers(path)) == set(range(200))


def test_messages_that_the_topic_has_no_more(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """What retention removed before it was read is counted, and said; what nobody can miss is not: a group's first
    messages, and offsets that never had a message."""
    path = tmp_path / "events.jsonl"
    admin = kafka_admin.AdminClient({"bootstrap.servers": broker.address})

    def put(first: int, end: int, **more: str) -> None:
        """All into partition 0; the end of a transaction takes an offset."""
        producer = Producer({"bootstrap.servers": broker.address, **more})
        if more:
            producer.init_transactions(servers.DEADLINE_S)
            producer.begin_transaction()
        for number in range(first, end):
            producer.produce(topic, value=text(event(number)), partition=0)
        if more:
            producer.commit_transaction(servers.DEADLINE_S)
        assert producer.flush(servers.DEADLINE_S) == 0

    def remove(end: int) -> None:
        admin.delete_records([TopicPartition(topic, 0, end)])[TopicPartition(topic, 0)].result(servers.DEADLINE_S)

    put(0, 40, **{"transactional.id": topic})
    remove(10)
    with Relay(broker, topic, "--jsonl", str(path)) as relay:
        relay.wait_until(lambda: len(lines(path)) == 30, "what is there is written")
        put(40, 50)
        relay.wait_until(lambda: len(lines(path)) == 40, "what came then, too")
        assert relay.end() == 0
        assert "removed" not in relay.said()
    put(50, 100)
    remove(1 + 70)
    with Relay(broker, topic, "--jsonl", str(path)) as relay:
        metrics = relay.wait(lambda m: m.by("int_relay_messages_missed_total") == {(): 20}, "they are counted")
        assert f"20 messages of {topic}, partition 0, were removed by the topic's retention" in relay.said()
        relay.wait_until(lambda: len(lines(path)) == 70, "the others are written")
        assert metrics.by("int_relay_events_total") == {(): 30}
        relay.assert_sums()
        assert relay.end() == 0
    assert numbers(path) == [*range(10, 50), *range(70, 100)]


def test_files_are_rotated(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """After SIGHUP a relay writes to a new file of the name; the one that was renamed has what came before."""
    path, renamed = tmp_path / "events.jsonl", tmp_path / "events.1"
    with Relay(broker, topic, "--jsonl", str(path)) as relay:
        produce(broker, topic, map(event, range(50)))
        relay.wait_until(lambda: len(lines(path)) == 50, "the first events are written")
        path.rename(renamed)
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_until(path.exists, "there is a new file")
        produce(broker, topic, map(event, range(50, 100)))
        relay.wait_until(lambda: len(lines(path)) == 50, "the others are written")
        assert relay.end() == 0
    assert sorted(numbers(renamed)) == list(range(50))
    assert sorted(numbers(path)) == list(range(50, 100))


def test_who_may_read(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """SASL over TLS: a broker whose certificate is unknown is said once, with why; a user that may read the topic and
    the group gets the events; when that right is taken and given back, what came meanwhile arrives, and all is well."""
    path, file = tmp_path / "events.jsonl", tmp_path / "kafka"
    kafka_broker.certificates(tmp_path)  # somebody else's

    def login(ca: pathlib.Path) -> tuple[str, ...]:
        file.write_text(
            f"security.protocol = sasl_ssl\nssl.ca.location = {ca}\nsasl.mechanism = PLAIN\n"
            f"sasl.username = alice\nsasl.password = {USERS['alice']}\n"
        )
        file.chmod(0o600)
        return "--jsonl", str(path), "--kafka-config", str(file)

    with Relay(broker, topic, *login(tmp_path / "ca.pem"), ready=False, address=broker.sasl_tls) as relay:
        relay.wait_said("certificate verify failed")
        assert relay.get("/readyz")[0] == 503
        assert "certificate verify failed" in relay.get("/readyz")[1]
        assert relay.end() == 0
        assert relay.said().count("certificate verify failed") == 1
        assert "can be reached" not in relay.said().partition("certificate verify failed")[2]
        assert "SSL_HANDSHAKE" not in relay.said()
    names: Any = kafka_admin  # which its types do not know
    of, may = names.ResourceType, names.AclOperation

    def right(kind: Any, name: str, operation: Any) -> Any:
        return names.AclBinding(
            kind, name, names.ResourcePatternType.LITERAL, "User:alice", "*", operation, names.AclPermissionType.ALLOW
        )

    read = right(of.TOPIC, topic, may.READ)
    rest = [right(of.TOPIC, topic, may.DESCRIBE), right(of.GROUP, f"of {topic}", may.READ)]
    admin: Any = kafka_admin.AdminClient({"bootstrap.servers": broker.address})

    def allow(*bindings: Any) -> None:
        for asked in admin.create_acls(list(bindings)).values():
            asked.result(servers.DEADLINE_S)

    allow(read, *rest)
    with Relay(broker, topic, *login(broker.ca), address=broker.sasl_tls) as relay:
        produce(broker, topic, map(event, range(50)))
        relay.wait_until(lambda: len(lines(path)) == 50, "the first events are written")
        before = ends(broker, topic)
        wait(lambda: committed(broker, topic) == before, "they are committed")
        taken = names.AclBindingFilter(*(getattr(read, name) for name in (
            "restype", "name", "resource_pattern_type", "principal", "host", "operation", "permission_type"
        )))  # fmt: skip
        for asked in admin.delete_acls([taken]).values():
            asked.result(servers.DEADLINE_S)
        refused = "Fetch from broker 1 failed: Broker: Topic authorization failed"
        relay.wait_until(lambda: refused in relay.get("/readyz")[1], "it says that it may not read")
        produce(broker, topic, map(event, range(50, 100)))
        allow(read)
        relay.wait_until(lambda: len(lines(path)) == 100, "the others are written")
        relay.wait_until(lambda: relay.get("/readyz")[0] == 200, "it is ready again")
        relay.assert_sums()
        assert relay.end() == 0
        assert USERS["alice"] not in relay.said()
    assert sorted(numbers(path)) == list(range(100))


def test_a_relay_holds_no_more_than_it_has_to(broker: Broker, topic: str) -> None:
    """Messages that make no points take no memory while a database is away, and no point is given up: what was read is
    kept, though it be more than the buffer is to hold."""
    produce(broker, topic, [event(1), *[b"{}"] * 400])
    config = Config(
        kafka=broker.address, kafka_topic=topic, influxdb="http://127.0.0.1:9", push_buffer=1, prometheus=None,
        close_timeout=0.1,
    )  # fmt: skip
    relay = in_process.Relay(config, f"of {topic}")
    running = threading.Thread(target=relay.run)
    running.start()
    try:
        wait(lambda: sum(relay.tally.refused.values()) == 400 and relay.tally.events, "all is read")
        assert len(relay._marks) <= 2
        for first in range(0, 10_000, 1000):
            relay.exporters["influxdb"].write(batch_of([event(number) for number in range(first, first + 1000)]))
        counts = relay.counts()["influxdb"]
        assert counts.buffered_bytes > 1 << 20
        assert (counts.buffered, sum(counts.lost.values())) == (counts.accepted, 0)
    finally:
        relay.stop()
        running.join()
        relay.close()
    assert committed(broker, topic) == {}


def test_an_event_that_comes_again_is_the_same_points(influxdb: InfluxServer, topic: str) -> None:
    """Events that are told again, in another order, by the same relay or by another, leave InfluxDB as it was, also
    where a switch is in a path twice; and of two collectors' events about one queue at one time both are kept."""
    said = [event(number) for number in range(200)]
    for one in said[::7]:
        one["int"]["hops"][1]["switch_id"] = 7
    other = event(1, flows=1) | {"source": "192.0.2.2"}
    other["int"]["hops"][0]["queue_occupancy"] = 999
    config = Config(influxdb=influxdb.url, influxdb_database=topic, push_interval=0.05)
    for again in (said, said[50:], said[::-1]):
        exporter = InfluxDB(config, again=True)
        for part in (said[:120], again, said[100:]):
            exporter.write(batch_of(part))
        exporter.close(servers.DEADLINE_S)
        counts = exporter.counts()
        assert counts.accepted == counts.delivered
        assert sorted(points_in(influxdb, topic)) == sorted(points_of(said))
    exporter = InfluxDB(config, again=True)
    exporter.write(batch_of(said))
    exporter.write(batch_of([other]))
    exporter.write(batch_of([other]))
    exporter.close(servers.DEADLINE_S)
    of_queue = {("int_queue", (("queue_id", "1"), ("switch_id", "7")), NOW_NS + APART_NS + late) for late in (0, 1)}
    assert of_queue <= {point[:3] for point in points_in(influxdb, topic)}


def test_no_kernel_side() -> None:
    """A relay needs neither bcc nor the modules that load programs and attach them."""
    code = (
        "import sys, intcollector.relay; names = {name.removeprefix('intcollector.') for name in sys.modules}\n"
        "print(names & {'bcc', 'pyroute2', 'datapath', 'loader', 'interface', 'compiled', 'collector', 'kernel'})"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--jsonl", "-", "--kafka", "127.0.0.1:1"), "the following arguments are required: --kafka-group"),
        (("--jsonl", "-", "--kafka-group", "g"), "--kafka is missing: give HOST[:PORT]"),
        (("--jsonl", "-", "--kafka", "127.0.0.1:1", "--kafka-group", ""), "--kafka-group is empty"),
        (("--kafka", "127.0.0.1:1", "--kafka-group", "g"), "nowhere to relay to: give --influxdb"),
        (("--kafka", "127.0.0.1:1", "--kafka-group", "g", "--prometheus", "off"), "nowhere to relay to"),
        (("--jsonl", "-", "--kafka", "::", "--kafka-group", "g"), "is not HOST[:PORT] of a Kafka broker"),
        (("--jsonl", "-", "--kafka", "127.0.0.1:1", "--kafka-group", "g", "--port", "1"), "unrecognized arguments"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    """What is missing or wrong is said, with exit code 2."""
    ended = intcollector("relay", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("group.id = mine", "group.id cannot be set: it is --kafka-group"),
        ("enable.auto.commit = true", "enable.auto.commit cannot be set: offsets are committed after delivery"),
        ("partition.assignment.strategy = range", "partition.assignment.strategy cannot be set"),
        ("auto.offset.reset = latest", "auto.offset.reset cannot be set: a group begins with the oldest message"),
        ("no.such.property = 1", "no.such.property"),
        ("security.protocol = ssl\nssl.ca.location = /nonexistent", "ssl.ca.location"),
    ],
)
def test_wrong_properties(tmp_path: pathlib.Path, line: str, said: str) -> None:
    """A file of properties cannot set what the guarantees rest on, nor what librdkafka does not know."""
    path = tmp_path / "kafka"
    path.write_text(line + "\n")
    ended = intcollector(
        "relay", "--jsonl", "-", "--prometheus", "off", "--kafka", "127.0.0.1:1", "--kafka-group", "g",
        "--kafka-config", str(path),
    )  # fmt: skip
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


# --- what was told last -----------------------------------------------------------------------------------------------


def told(said: Sequence[Event], max_flows: int = 100, partitions: Sequence[int] | None = None) -> Told:
    made = Told(max_flows)
    add(made, said, partitions)
    return made


def add(to: Told, said: Sequence[Event], partitions: Sequence[int] | None = None) -> None:
    batch = batch_of(said)
    to.add(batch, np.array(partitions or [0] * len(batch)))


CONFIG = Config()


def shown(of: Told, name: str, config: Config = CONFIG) -> dict[tuple[str, ...], Any]:
    """A metric by its labels' values."""
    state = of.state()
    everything = (*series.flow_series(state, config), *series.port_series(state), *series.queue_series(state))
    (one,) = (one for one in everything if one.metric.name == name and isinstance(one, series.Series))
    labels = zip(*map(series.texts, one.labels.values()), strict=True) if one.parts else [()]
    return dict(zip(labels, one.values.tolist(), strict=True))


def of_flow(number: int, latency: int, late: int = 0, **more: Any) -> Event:
    """An event of a flow, in which its only hop took so long."""
    hop = {"switch_id": 7, "hop_latency": latency, "ingress_port_id": 1, "egress_port_id": 2,
           "egress_port_tx_utilization": latency}  # fmt: skip
    said = report(hop, flow=f"10.0.0.{number}:1>10.1.0.1:2/17", changes=[], received_ns=NOW_NS + late, **more)
    said["int"]["instruction_bitmap"] = "0xe100"
    return said


def test_the_latest_is_shown() -> None:
    """Of a flow or port the latest value is shown, whatever the order in which events come."""
    made = told([of_flow(1, 500, late=5), of_flow(1, 400, late=4), of_flow(2, 300, late=3)])
    add(made, [of_flow(1, 100, late=1), of_flow(2, 600, late=6)])
    flows = {key[0]: value for key, value in shown(made, "int_flow_latency_seconds").items()}
    assert flows == {"10.0.0.1": 5e-7, "10.0.0.2": 6e-7}
    assert {key[-1]: value for key, value in shown(made, "int_flow_hop_latency_seconds").items()} == {"7": 6e-7}
    assert shown(made, "int_egress_port_tx_utilization") == {("7", "2"): 600}
    assert sorted((made.state().flow_seen_ns() - NOW_NS).tolist()) == [5, 6]


def test_the_flows_told_longest_ago_go() -> None:
    """No more than max_flows are kept, those told last; a batch may bring more than that at once."""
    made = told([of_flow(n, n, late=n) for n in range(1, 11)], max_flows=4)
    assert sorted(key[0] for key in shown(made, "int_flow_latency_seconds")) == [f"10.0.0.{n}" for n in (10, 7, 8, 9)]
    add(made, [of_flow(7, 70, late=70), of_flow(20, 20, late=20)])
    assert sorted(key[0] for key in shown(made, "int_flow_latency_seconds")) == [
        "10.0.0.10", "10.0.0.20", "10.0.0.7", "10.0.0.9"
    ]  # fmt: skip
    assert shown(made, "int_flow_series_omitted", Config(max_flow_series=1)) == {(): 3}
    for n in range(300):
        add(made, [of_flow(n % 250, n, late=100 + n)])
    assert shown(made, "int_flows") == {(): 4}


def test_flows_of_partitions_that_went_are_forgotten() -> None:
    """What another relay tells of now is not shown here any more."""
    made = told([of_flow(n, n) for n in range(1, 5)], partitions=[0, 1, 2, 1])
    made.forget({1, 3})
    assert sorted(key[0] for key in shown(made, "int_flow_latency_seconds")) == ["10.0.0.1", "10.0.0.3"]
    add(made, [of_flow(2, 2)])
    assert shown(made, "int_flows") == {(): 3}


def test_what_is_no_path_is_not_shown() -> None:
    """A flow without a stack, a stack that was flushed, and a report without a flow have no series; what the reporting
    switch says of its port has."""
    local = {"ingress_port_id": 1, "egress_port_id": 9, "egress_port_tx_utilization": 77}
    bare = {**of_flow(1, 1), "int": None, "local_hop": local}
    flushed = of_flow(2, 2, version="2.0", ingress_timestamp=None, intermediate=True)
    nobody = {**of_flow(3, 3), "flow": None}
    made = told([bare, flushed, nobody])
    assert shown(made, "int_flow_latency_seconds") == {}
    assert shown(made, "int_flows") == {(): 0}
    assert shown(made, "int_egress_port_tx_utilization")[("1", "9")] == 77
    assert len(Told(10).state().flows) == 0
    made.add(Batch(), np.zeros(0, np.intp))


def test_postcards_are_flows_too() -> None:
    """The switches of a flow that is put together of postcards are shown as those of a stack."""
    hops = [{"switch_id": n, "egress_port_id": 1, "queue_id": None, "hop_latency": 100 * n} for n in (6, 5)]
    card = {**of_flow(1, 1), "int": None, "postcards": {"hop_count": 2, "hops": hops, "latency": 1100}}
    made = told([card])
    assert list(shown(made, "int_flow_latency_seconds").values()) == [1.1e-6]
    assert {key[-1]: value for key, value in shown(made, "int_flow_hop_latency_seconds").items()} == {
        "6": 6e-7, "5": 5e-7
    }  # fmt: skip
