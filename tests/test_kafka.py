"""Events in a real Kafka broker, through all that may happen to one."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from intcollector import doctor, sending
from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.errors import UsageError
from intcollector.exporters.events_text import key_of
from intcollector.exporters.kafka import PRODUCER, Kafka, read_properties, spaced
from intcollector.series import Counts, records
from intcollector.traffic import Traffic, truth

from . import collectors, kafka_broker
from .batches import batch_of, news, report, vectors
from .kafka_broker import Broker, Stored
from .needs import needs_root
from .servers import wait

NOW_NS = 1_700_000_000_000_000_000
USERS = {"alice": "wonderland-7", "mallory": "other-7"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """For the tests that leave it running, or start it again; each has a topic of its own. Users have to be allowed to
    write, and topics are made for whoever asks, as brokers do by default."""
    settings = {
        "auto.create.topics.enable": "true",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with kafka_broker.broker(tmp_path_factory.mktemp("kafka"), tls=True, users=USERS, settings=settings) as running:
        yield running


_topics = itertools.count()


@pytest.fixture
def topic(broker: Broker) -> str:
    """One of four partitions."""
    name = f"int-{next(_topics)}"
    broker.create_topic(name, partitions=4)
    return name


def events(count: int, first: int = 0, flows: int = 7) -> list[dict[str, Any]]:
    """What is news of some flows, an event a microsecond from the first on."""
    return [
        {
            **news(
                report({"switch_id": 4, "hop_latency": i}, flow=f"10.0.0.{i % flows}:5000>10.0.1.1:80/6"), "new_flow"
            ),
            "received_ns": NOW_NS + 1000 * i,
        }
        for i in range(first, first + count)
    ]


def load(batches: int, first: int = 0) -> list[Batch]:
    """Batches of 500 events, an event a microsecond from the first on."""
    one = batch_of(events(500))
    made = []
    for n in range(first, first + 500 * batches, 500):
        reports = one.reports.copy()
        reports["received_ns"] += 1000 * n
        made.append(dataclasses.replace(one, reports=reports))
    return made


@contextlib.contextmanager
def pushing(broker: Broker, topic: str, close_s: float = 10, **more: Any) -> Iterator[Kafka]:
    """An exporter to that topic. Its counts close at the end: told = delivered + lost."""
    exporter = Kafka(Config(**{"kafka": broker.address, "kafka_topic": topic, "push_interval": 0.05, **more}))
    try:
        yield exporter
    finally:
        exporter.close(close_s)
    counts = exporter.counts()
    assert counts.accepted == counts.delivered + sum(counts.lost.values())
    assert (counts.buffered, counts.buffered_bytes) == (0, 0)


def settled(exporter: Kafka) -> Counts:
    """The counts when nothing is buffered any more."""
    wait(lambda: exporter.counts().buffered == 0, "everything is delivered or lost")
    return exporter.counts()


def complains(exporter: Kafka, *texts: str) -> None:
    """Wait until what it says is wrong has these words."""
    wait(lambda: all(text in (exporter.problem() or "") for text in texts), f"a problem with {texts}")


def said(stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """The records, in the order in which they were received."""
    return sorted((json.loads(one.value or b"") for one in stored), key=lambda record: record["received_ns"])


def exactly(stored: Sequence[Stored], batches: Sequence[Batch]) -> None:
    """The topic has every event once, whole, under the key of its flow; the events of a flow are in one partition, in
    their order."""
    config = Config()
    assert said(stored) == [record for batch in batches for record in records(batch, config)]
    partitions: dict[bytes, set[int]] = collections.defaultdict(set)
    times: dict[bytes, list[int]] = collections.defaultdict(list)
    for one in stored:
        record = json.loads(one.value or b"")
        assert (one.key or b"").decode() == key_of(record)
        partitions[one.key or b""].add(one.partition)
        times[one.key or b""].append(record["received_ns"])
    assert all(len(of) == 1 for of in partitions.values())
    assert all(of == sorted(of) for of in times.values())


# --- what is written --------------------------------------------------------------------------------------------------


def test_every_kind_of_report(broker: Broker, topic: str) -> None:
    """Whatever a report is, its message is its record as JSON, and its key says what it is about."""
    reports = [one for vector in vectors() if vector["outcome"] == "ok" for one in vector["reports"]]
    batch = batch_of([{**one, "changes": [], "received_ns": NOW_NS + 1000 * i} for i, one in enumerate(reports)])
    with pushing(broker, topic) as exporter:
        exporter.write(batch)
        assert settled(exporter).delivered == len(reports)
    exactly(broker.stored(topic), [batch])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "10.0.0.1,10.0.0.2,5000,80,6"),
        ({"flow": {"source": "2001:db8::1", "destination": "2001:db8::2"}}, "2001:db8::1,2001:db8::2,5000,80,6"),
        ({"flow": {"source_port": None, "destination_port": None, "protocol": 1}}, "10.0.0.1,10.0.0.2,,,1"),
        ({"flow": {"source": None, "destination": None}}, "192.0.2.1,1,0"),
        ({"flow": None}, "192.0.2.1,1,0"),
        ({"flow": None, "switch_id": None}, "192.0.2.1,,0"),
    ],
)
def test_key(changes: dict[str, Any], key: str) -> None:
    """The key is the flow; of a report without one, who sent it."""
    said = report({"switch_id": 4}, flow="10.0.0.1:5000>10.0.0.2:80/6")
    flow = {**said["flow"], **changes["flow"]} if changes.get("flow") else changes.get("flow", said["flow"])
    assert key_of({**said, **changes, "flow": flow}) == key


def test_partition_of_java(broker: Broker, topic: str) -> None:
    """A flow is in the partition that Java's clients choose for its key."""
    batch = batch_of(events(3, flows=3))
    with pushing(broker, topic) as exporter:
        exporter.write(batch)
        settled(exporter)
    where = {(one.key or b"").decode(): one.partition for one in broker.stored(topic)}
    keys = [f"10.0.0.{i},10.0.1.1,5000,80,6" for i in range(3)]
    assert where == {key: _murmur2(key.encode()) % 4 for key in keys}


def _murmur2(data: bytes) -> int:
    """As org.apache.kafka.common.utils.Utils has it, made positive."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def test_times_are_unique(broker: Broker, topic: str) -> None:
    """Events received in the same nanosecond have times of their own, so that who stores them can tell them apart."""
    same = [{**one, "received_ns": NOW_NS} for one in events(40)]
    with pushing(broker, topic) as exporter:
        exporter.write(batch_of(same[:30]))
        exporter.write(batch_of(same[30:]))
        settled(exporter)
    assert [one["received_ns"] for one in said(broker.stored(topic))] == [NOW_NS + 32 * i for i in range(40)]


@given(st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=40), min_size=1, max_size=5))
def test_spaced(batches: list[list[int]]) -> None:
    """No two times are less than 32 ns apart, none is earlier than it was or later than it has to be, and of two events
    in order the later one stays the later."""
    latest, given_times, before = 0, [0], [0]
    for batch in batches:
        times = np.array(batch, np.int64) + NOW_NS
        got = spaced(times, latest)
        latest = int(got.max())
        assert (got >= times).all()
        assert all(a < b for (a, x), (b, y) in itertools.pairwise(zip(got, times, strict=True)) if x <= y)
        before += times.tolist()
        given_times += got.tolist()
    ascending = sorted(given_times)
    assert all(b - a >= 32 for a, b in itertools.pairwise(ascending))
    assert all(b - a == 32 or b in before for a, b in itertools.pairwise(ascending))


def test_clock_set_back() -> None:
    """When the clock was set back, times begin anew."""
    times = np.array([NOW_NS, NOW_NS + 5], np.int64)
    assert spaced(times, NOW_NS + 10**9).tolist() == [NOW_NS + 10**9 + 32, NOW_NS + 10**9 + 64]
    assert spaced(times, NOW_NS + 10**10).tolist() == [NOW_NS, NOW_NS + 32]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression(broker: Broker, topic: str, compression: str) -> None:
    """However messages are compressed, they are read back whole; and with compression they take less room."""
    batch = batch_of(events(200))
    with pushing(broker, topic, kafka_compression=compression) as exporter:
        exporter.write(batch)
        assert settled(exporter).delivered == 200
    stored = broker.stored(topic)
    exactly(stored, [batch])
    size = sum(path.stat().st_size for path in (broker.folder / "data").glob(f"{topic}-*/*.log"))
    raw = sum(len(one.value or b"") for one in stored)
    assert (size > raw) == (compression == "none")


LARGE = {
    **report(
        *(
            {"switch_id": i, "hop_latency": i, "queue_id": 1, "queue_occupancy": 9, "egress_timestamp": 10**18}
            for i in range(16)
        )
    ),
    "changes": [],
}
"""An event of more than 2,000 bytes."""


def test_too_large(broker: Broker) -> None:
    """A message that is larger than the topic takes is counted as rejected; all others are delivered, also those that
    were sent together with it, and those of which only a batch is too large."""
    topic = f"int-{next(_topics)}"
    broker.create_topic(topic, partitions=1, max_message_bytes="2000")
    few = events(60)
    few[20:20] = few[40:40] = [LARGE] * 2
    batch = batch_of([{**one, "received_ns": NOW_NS + 1000 * i} for i, one in enumerate(few)])
    large = [len(json.dumps(one, separators=(",", ":"))) > 2000 for one in records(batch, Config())]
    assert sum(large) == 4
    with pushing(broker, topic, kafka_compression="none") as exporter:
        exporter.write(batch)
        counts = settled(exporter)
        assert (counts.delivered, counts.lost["rejected"]) == (60, 4)
        exporter.write(batch_of(events(5, 100)))
        assert settled(exporter).delivered == 65
    small = [one for one, is_large in zip(records(batch, Config()), large, strict=True) if not is_large]
    assert said(broker.stored(topic))[:60] == small


# --- brokers that are away --------------------------------------------------------------------------------------------


def test_restart_under_load(broker: Broker, topic: str) -> None:
    """A broker that is stopped and started again while events come has every one of them once, in order; meanwhile the
    exporter says that it is away."""
    batches = load(40)
    with pushing(broker, topic) as exporter:
        for batch in batches[:10]:
            exporter.write(batch)
        broker.stop()
        for batch in batches[10:20]:
            exporter.write(batch)
        complains(exporter, "Connection refused")
        broker.start()
        for batch in batches[20:]:
            exporter.write(batch)
        counts = settled(exporter)
        assert exporter.problem() is None
    assert (counts.accepted, counts.delivered) == (20_000, 20_000)
    _once(broker.stored(topic), 20_000)


def _once(stored: Sequence[Stored], count: int) -> None:
    """So many messages, none twice, each flow's in one partition and in their order."""
    assert len({one.value for one in stored}) == len(stored) == count
    assert len({(one.key, one.partition) for one in stored}) == len({one.key for one in stored})
    times: dict[bytes, list[int]] = collections.defaultdict(list)
    for one in stored:
        times[one.key or b""].append(json.loads(one.value or b"")["received_ns"])
    assert all(of == sorted(of) for of in times.values())


def test_broker_killed(broker: Broker, topic: str) -> None:
    """kill -9 of the broker in the middle of a delivery: after its return it has every event once, in order."""
    batches = load(40)
    with pushing(broker, topic) as exporter:
        for batch in batches[:20]:
            exporter.write(batch)
        wait(lambda: exporter.counts().delivered > 0, "the first chunk")
        broker.pause()
        for batch in batches[20:]:
            exporter.write(batch)
        wait(lambda: exporter._producer and len(exporter._producer), "messages on their way")
        broker.kill()
        broker.start()
        counts = settled(exporter)
    assert (counts.accepted, counts.delivered) == (20_000, 20_000)
    _once(broker.stored(topic), 20_000)


def test_broker_hangs(broker: Broker, topic: str) -> None:
    """A broker that takes connections and does not answer is a problem that is said; when it goes on, so does the
    delivery, and nothing is there twice."""
    with pushing(broker, topic) as exporter:
        exporter.write(batch_of(events(10)))
        settled(exporter)
        broker.pause()
        exporter.write(batch_of(events(1000, 10)))
        complains(exporter, "has acknowledged nothing for 5 s")
        broker.resume()
        assert settled(exporter).delivered == 1010
        assert exporter.problem() is None
    _once(broker.stored(topic), 1010)


def test_buffer_full(broker: Broker, topic: str) -> None:
    """While the broker is away the buffer stays within its bound: the oldest events are given up, and counted; those
    that are kept are delivered."""
    parts = load(40)
    with pushing(broker, topic, push_buffer=1) as exporter:
        broker.pause()
        for part in parts:
            exporter.write(part)
            assert exporter.counts().buffered_bytes <= 1 << 20
        broker.resume()
        counts = settled(exporter)
    assert counts.lost["buffer_full"] > 0
    stored = broker.stored(topic)
    assert len(stored) == counts.delivered == 20_000 - counts.lost["buffer_full"]
    assert said(stored)[-1]["received_ns"] == NOW_NS + 19_999_000


def test_close_in_an_outage(broker: Broker, topic: str) -> None:
    """close() keeps to its time while the broker hangs; what it leaves is counted."""
    with pushing(broker, topic) as exporter:
        exporter.write(batch_of(events(10)))
        settled(exporter)
        broker.pause()
        exporter.write(batch_of(events(1000)))
        wait(lambda: exporter._producer and len(exporter._producer) == 1000, "all are on their way")
        exporter.close(0.3)
        counts = exporter.counts()
        broker.resume()
    assert (counts.delivered, counts.lost["closed"]) == (10, 1000)
    assert not exporter._thread.is_alive()


def test_absent_at_start(broker: Broker, topic: str) -> None:
    """A broker that is not there at the start is a problem, and no error: when it comes, it has all events."""
    broker.stop()
    with pushing(broker, topic) as exporter:
        exporter.write(batch_of(events(30)))
        complains(exporter, "Connection refused")
        assert exporter.counts().buffered == 30
        broker.start()
        assert settled(exporter).delivered == 30
        wait(lambda: exporter.problem() is None, "no problem")
    exactly(broker.stored(topic), [batch_of(events(30))])


def test_spool(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """What one process left in the spool another delivers, the very same messages, before its own."""
    first, second = load(2), load(2, 1000)
    broker.pause()
    exporter = Kafka(Config(kafka=broker.address, kafka_topic=topic, push_interval=0.05, spool=str(tmp_path)))
    for batch in first:
        exporter.write(batch)
    exporter.close(0.2)
    counts = exporter.counts()
    assert (counts.accepted, counts.buffered, sum(counts.lost.values())) == (1000, 1000, 0)
    broker.resume()
    with pushing(broker, topic, spool=str(tmp_path)) as exporter:
        for batch in second:
            exporter.write(batch)
        counts = settled(exporter)
    assert (counts.accepted, counts.delivered, counts.recovered) == (2000, 2000, 1000)
    exactly(broker.stored(topic), [*first, *second])


# --- topics that are not there ----------------------------------------------------------------------------------------


def test_topic_missing(broker: Broker) -> None:
    """A topic that does not exist is said at the start, with what to do, and never made, though the broker would; when
    somebody makes it, it has all events."""
    topic = f"int-{next(_topics)}"
    with pushing(broker, topic) as exporter:
        complains(exporter, f"there is no topic {topic} at {broker.address}: create it")
        exporter.write(batch_of(events(30)))
        wait(lambda: exporter.counts().failures > 1, "tries")
        assert topic not in broker.topics()
        broker.create_topic(topic, partitions=2)
        assert settled(exporter).delivered == 30
        wait(lambda: exporter.problem() is None, "no problem")
    exactly(broker.stored(topic), [batch_of(events(30))])


def test_topic_deleted(broker: Broker, topic: str) -> None:
    """When the topic is deleted, nothing is lost that was not in it: events wait for its return."""
    with pushing(broker, topic) as exporter:
        exporter.write(batch_of(events(30)))
        settled(exporter)
        broker.delete_topic(topic)
        for batch in load(4, 30):
            exporter.write(batch)
        complains(exporter, f"there is no topic {topic}")
        broker.create_topic(topic, partitions=4)
        assert settled(exporter).delivered == 2030
    exactly(broker.stored(topic), load(4, 30))


# --- who may ----------------------------------------------------------------------------------------------------------


def properties(folder: pathlib.Path, **said: str) -> str:
    """A file of --kafka-config; underscores for dots."""
    path = folder / "kafka.properties"
    path.write_text("# of the tests\n" + "".join(f"{k.replace('_', '.')} = {v}\n" for k, v in said.items()))
    path.chmod(0o600)
    return str(path)


def test_tls(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """A broker is believed by the certificate that the file of properties names, and by no other; when what stands in
    that certificate's file is corrected, it is read again."""
    kafka_broker.certificates(tmp_path)  # somebody else's
    file = properties(tmp_path, security_protocol="ssl", ssl_ca_location=str(tmp_path / "ca.pem"))
    with pushing(broker, topic, kafka=broker.tls, kafka_config=file) as exporter:
        exporter.write(batch_of(events(30)))
        complains(exporter, "certificate verify failed")
        shutil.copy(broker.ca, tmp_path / "ca.pem")
        assert settled(exporter).delivered == 30
    exactly(broker.stored(topic), [batch_of(events(30))])


def test_certificate_gone(broker: Broker, tmp_path: pathlib.Path) -> None:
    """When messages are too large together and the file of the certificate is gone, so that none can be sent by itself,
    that is said; when it is there again, those that the topic takes are in it, once."""
    topic = f"int-{next(_topics)}"
    broker.create_topic(topic, partitions=1, max_message_bytes="2000")
    ca = tmp_path / "ca.pem"
    shutil.copy(broker.ca, ca)
    file = properties(tmp_path, security_protocol="ssl", ssl_ca_location=str(ca))
    with pushing(broker, topic, kafka=broker.tls, kafka_config=file, kafka_compression="none") as exporter:
        exporter.write(batch_of(events(3)))
        settled(exporter)
        ca.unlink()
        exporter.write(batch_of([*events(3, 3), {**LARGE, "received_ns": NOW_NS + 10**6}]))
        complains(exporter, "ssl.ca.location", file)
        assert exporter.counts().buffered > 0
        shutil.copy(broker.ca, ca)
        counts = settled(exporter)
        assert (counts.delivered, counts.lost["rejected"]) == (6, 1)
    exactly(broker.stored(topic), [batch_of(events(6))])


def test_password(broker: Broker, topic: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """SASL/PLAIN over TLS: with a wrong password nothing is delivered or lost, and the password is not shown; with the
    right one in the same file, all is. Who may not write to the topic is told so, and it goes on when allowed."""
    caplog.set_level(logging.DEBUG)
    login = {
        "security_protocol": "sasl_ssl", "ssl_ca_location": str(broker.ca), "sasl_mechanism": "PLAIN",
        "sasl_username": "alice",
    }  # fmt: skip
    file = properties(tmp_path, **login, sasl_password="looking-glass-7")
    with pushing(broker, topic, kafka=broker.sasl_tls, kafka_config=file) as exporter:
        exporter.write(batch_of(events(30)))
        complains(exporter, "Authentication failed")
        properties(tmp_path, **login, sasl_password=USERS["alice"])
        complains(exporter, "authorization failed", topic)
        assert exporter.counts().buffered == 30
        broker.allow("alice", topic)
        assert settled(exporter).delivered == 30
    exactly(broker.stored(topic), [batch_of(events(30))])
    for secret in ("looking-glass-7", USERS["alice"]):
        assert secret not in caplog.text


def test_doctor(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """`doctor` says whether brokers answer, whether the topic is there, and whether it may be written to."""

    def found(**more: Any) -> tuple[str, str]:
        finding = doctor.kafka(Config(**{"kafka": broker.address, "kafka_topic": topic, **more}))
        assert finding.advice or finding.state == "ok"
        return finding.state, finding.found

    assert found() == ("ok", f"topic {topic} at {broker.address}, 4 partitions")
    assert found(kafka_topic="none") == ("bad", f"there is no topic none at {broker.address}")
    assert "none" not in broker.topics()
    state, said = found(kafka="127.0.0.1:9")
    assert state == "warn"
    assert "Connection refused" in said
    login = {"security_protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN", "sasl_username": "mallory"}
    wrong = properties(tmp_path, **login, sasl_password="wrong-7")
    state, said = found(kafka=broker.sasl, kafka_config=wrong)
    assert state == "warn"
    assert "Authentication failed" in said
    right = properties(tmp_path, **login, sasl_password=USERS["mallory"])
    state, said = found(kafka=broker.sasl, kafka_config=right)
    assert state == "bad"
    assert "authorization failed" in said
    broker.allow("mallory", topic)
    assert found(kafka=broker.sasl, kafka_config=right)[0] == "ok"
    (tmp_path / "wrong").write_text("acks = 0")
    assert found(kafka_config=str(tmp_path / "wrong"))[0] == "bad"


def test_fatal(broker: Broker, topic: str) -> None:
    """When librdkafka's producer comes to its end in the middle of a delivery, another one delivers what was not
    acknowledged; nothing is lost."""
    with pushing(broker, topic) as exporter:
        exporter.write(batch_of(events(10)))
        settled(exporter)
        first = exporter._producer
        broker.pause()
        exporter.write(batch_of(events(500, 10)))
        wait(lambda: exporter._producer and len(exporter._producer) == 500, "all are on their way")
        exporter._failed(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "a gap", fatal=True))
        complains(exporter, "a gap")
        broker.resume()
        assert settled(exporter).delivered == 510
        assert exporter._producer is not first
    stored = broker.stored(topic)
    assert len({one.value for one in stored}) == 510


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acks = 1", "line 1: acks cannot be set: an event is delivered when"),
        ("\nenable.idempotence=false", "line 2: enable.idempotence cannot be set"),
        ("partitioner = random", "partitioner cannot be set"),
        ("message.timeout.ms = 5", "never by time or tries"),
        ("transactional.id = x", "transactional.id cannot be set"),
        ("queue.buffering.max.kbytes = 1", "a message of any size has to find room"),
        ("dr_cb = x", "dr_cb cannot be set"),
        ("bootstrap.servers = x", "brokers are what --kafka names"),
        ("linger.ms = 5\nlinger.ms = 6", "line 2: linger.ms is there twice"),
        ("linger.ms", "this is not NAME = VALUE"),
        ("sasl.password:tell-nobody", "this is not NAME = VALUE"),
        ("foo.bar = 5", 'No such configuration property: "foo.bar"'),
        ("batch.num.messages = many", "batch.num.messages"),
        ("security.protocol = ssl\nssl.ca.location = /nonexistent", "ssl.ca.location"),
        ("max.in.flight = 6", "max.in.flight"),
    ],
)  # fmt: skip
def test_wrong_properties(tmp_path: pathlib.Path, text: str, said: str) -> None:
    """Properties that librdkafka does not know, or that would break what is promised, are refused at the start."""
    file = tmp_path / "properties"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(UsageError) as raised:
        Kafka(Config(kafka="127.0.0.1:9", kafka_config=str(file)))
    assert said in str(raised.value)
    assert str(file) in str(raised.value)
    assert "tell-nobody" not in str(raised.value)


def test_properties(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of properties has comments and values with equals signs; one with a secret that others can read is told
    of."""
    file = tmp_path / "properties"
    file.write_text("# a comment\n; another\n\n  sasl.username = a=b \nlinger.ms=7\n")
    assert read_properties(str(file), PRODUCER) == {"sasl.username": "a=b", "linger.ms": "7"}
    assert not caplog.records
    file.write_text("sasl.password = x=y\n")
    assert read_properties(str(file), PRODUCER) == {"sasl.password": "x=y"}
    assert f"can be read by others: chmod 600 {file}" in caplog.text
    file.write_text("ssl.key.location = /somewhere\n")
    caplog.clear()
    assert read_properties(str(file), PRODUCER)
    assert not caplog.records
    with pytest.raises(UsageError, match="cannot read"):
        read_properties(str(tmp_path / "nothing"), PRODUCER)


def test_small_queue(broker: Broker, topic: str, tmp_path: pathlib.Path) -> None:
    """Where librdkafka is set to hold few messages, the others wait for their turn."""
    file = properties(tmp_path, queue_buffering_max_messages="10")
    with pushing(broker, topic, kafka_config=file) as exporter:
        exporter.write(batch_of(events(200)))
        assert settled(exporter).delivered == 200
    exactly(broker.stored(topic), [batch_of(events(200))])


# --- the whole way ----------------------------------------------------------------------------------------------------


@needs_root
def test_run(tmp_path: pathlib.Path) -> None:
    """`run --kafka` on an interface: the topic has as many messages as the kernel told events, each whole, those of a
    flow in one partition."""
    with collectors.network() as pair, kafka_broker.broker(tmp_path / "kafka") as broker:
        broker.create_topic("int", partitions=3)
        with collectors.Collector(
            pair.names[0], "--int-dscp", "23/63", "--keepalive", "0", "--kafka", broker.address, "--push-interval", ".1"
        ) as running:  # fmt: skip
            reports = Traffic(packets=4000, flows=40, hops=3, event_rate=0.3, ipv6=0.3, rate=1e6, seed=5)
            with pair.inside(1) as far:
                assert sending.send(reports, far, method="packet").sent == reports.packets
            running.wait_packets(reports.packets, "ok")
            metrics = running.wait(
                lambda m: (
                    m.value("int_exporter_points_delivered_total", exporter="kafka") == m.value("int_events_total")
                ),
                "all events are delivered",
            )
            events = metrics.value("int_events_total")
            assert events == truth(reports).events
            assert metrics.sum("int_events_lost_total") == metrics.sum("int_exporter_points_lost_total") == 0
            assert running.get("/readyz") == (200, "ready\n")
            assert running.end() == 0
        stored = broker.stored("int")
    assert len(stored) == events
    keys: dict[bytes, int] = {}
    for one in stored:
        record = json.loads(one.value or b"")
        assert (one.key or b"").decode() == key_of(record)
        assert keys.setdefault(one.key or b"", one.partition) == one.partition
    assert len({json.loads(one.value or b"")["received_ns"] for one in stored}) == events
    assert len(keys) == 40
