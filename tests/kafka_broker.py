"""A real Apache Kafka broker, of the jars that intcollector/setup.sh fetched (tests/kafka/pom.xml): on free ports of
127.0.0.1, with its data where the test says. `python -m tests.kafka_broker [PORT]` (tests/kafka/broker.sh) is one for
developers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from .servers import DEADLINE_S, free_port, wait

JARS = pathlib.Path(__file__).resolve().parent.parent / ".venv" / "servers" / "kafka"

JAVA = (
    # starts soon, and stays small; Java 11 does not know how to make a file of loaded classes
    "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+IgnoreUnrecognizedVMOptions",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", f"{JARS}/*", "kafka.Kafka",
)  # fmt: skip


def classes() -> pathlib.Path:
    """Where the classes that a broker loads are kept, ready to be mapped into memory: with them a start takes half the
    time. Made by the first broker that ends; of no use to another Java, and then not used."""
    return JARS / f"classes-{os.stat(java()).st_mtime_ns}.jsa"


STARTED = b"Kafka Server started"


class Stored(NamedTuple):
    """A message as it stands in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def java() -> str:
    """The program; where it or the broker is missing the test is skipped, but in CI it fails."""
    path = shutil.which("java")
    missing = "java is missing: apt-get install default-jre-headless" if path is None else ""
    if not missing and not any(JARS.glob("kafka_2*.jar")):
        missing = f"no Kafka broker in {JARS}: sh tests/run.sh fetches it, which takes a network and Maven"
    if missing and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return str(path)


@dataclasses.dataclass
class Broker:
    """One broker, its own controller. address: of the plain listener; tls, sasl, sasl_tls: of the others, "" if not
    asked for. folder: data, log, and with TLS the certificate that vouches for it (ca.pem)."""

    folder: pathlib.Path
    address: str
    controller: str
    tls: str = ""
    sasl: str = ""
    sasl_tls: str = ""
    users: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> pathlib.Path:
        """The certificate that clients trust."""
        return self.folder / "ca.pem"

    @property
    def _log(self) -> pathlib.Path:
        return self.folder / "log"

    def start(self) -> None:
        """Returns when it takes connections. What was stored before is there again."""
        kept = "SharedArchiveFile" if classes().exists() else "ArchiveClassesAtExit"
        name = classes() if classes().exists() else self.folder / "classes.jsa"
        command = [java(), f"-XX:{kept}={name}", *JAVA, str(self.folder / "server.properties")]
        before = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        wait(lambda: self._started(before), "the Kafka broker starts")

    def _started(self, before: int) -> bool:
        assert self.process is not None
        code = self.process.poll()
        said = self._log.read_bytes()[before:]
        assert code is None, f"the Kafka broker ended with {code}:\n{said[-3000:].decode(errors='replace')}"
        return STARTED in said

    def stop(self) -> None:
        """Ends it, by force if it does not end by itself."""
        if self.process is None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        """It hangs: connections stay, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """After pause()."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    # what a test asks of it

    def create_topic(self, name: str, partitions: int = 1, **settings: str) -> None:
        """settings: the topic's, underscores for dots: max_message_bytes="2000". A broker that just came back may not
        answer the first time it is asked."""
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        config = {key.replace("_", "."): value for key, value in settings.items()}
        admin = AdminClient({"bootstrap.servers": self.address})
        new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        again = (
            KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN,
            KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.BROKER_NOT_AVAILABLE,
        )  # fmt: skip

        tries = itertools.count(1)

        def made() -> bool:
            tried = next(tries)
            try:
                admin.create_topics([new], operation_timeout=5.0, request_timeout=10.0)[name].result(DEADLINE_S)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.TOPIC_ALREADY_EXISTS and tried > 1:  # by a try whose answer was lost
                    return True
                if code not in again:
                    raise
                return False
            return True

        wait(made, f"topic {name} is made")

    def delete_topic(self, name: str) -> None:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([name], operation_timeout=DEADLINE_S)[name].result(DEADLINE_S)

    def allow(self, user: str, topic: str) -> None:
        """To write to a topic, where the broker has an authorizer."""
        from confluent_kafka import admin as of

        names: Any = of  # which its types do not know
        binding = names.AclBinding(
            names.ResourceType.TOPIC, topic, names.ResourcePatternType.LITERAL, f"User:{user}", "*",
            names.AclOperation.WRITE, names.AclPermissionType.ALLOW,
        )  # fmt: skip
        admin = of.AdminClient({"bootstrap.servers": self.address})
        for future in admin.create_acls([binding]).values():
            future.result(DEADLINE_S)

    def topics(self) -> dict[str, int]:
        """Name -> number of partitions, of the broker's own too."""
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.address})
        said = admin.list_topics(timeout=DEADLINE_S).topics
        return {name: len(topic.partitions) for name, topic in said.items()}

    def stored(self, topic: str) -> list[Stored]:
        """Everything in a topic, partition by partition in its order."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.address, "group.id": "tests", "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )  # fmt: skip

        def bounds(partition: int) -> list[tuple[int, int]]:
            """The first offset and the end; nothing while the partition has no leader, as after a pause."""
            with contextlib.suppress(KafkaException):
                return [consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5)]
            return []

        try:
            partitions = wait(lambda: consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions, topic)
            found: dict[int, tuple[int, int]] = {}
            for partition in partitions:
                (found[partition],) = wait(functools.partial(bounds, partition), f"a leader of {topic}")
            behind = {partition: end for partition, (first, end) in found.items() if end > first}
            consumer.assign([TopicPartition(topic, partition, 0) for partition in behind])
            messages: list[Stored] = []

            def read() -> bool:
                for message in consumer.consume(10_000, 0.2) if behind else ():
                    assert message.error() is None, message.error()
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None and offset is not None
                    messages.append(Stored(partition, offset, message.key(), message.value(), message.timestamp()[1]))
                    if offset + 1 >= behind.get(partition, 0):
                        behind.pop(partition, None)
                return not behind

            wait(read, f"all messages of {topic}")
        finally:
            consumer.close()
        return sorted(messages)


def _properties(broker: Broker) -> dict[str, str]:
    listeners = {"PLAINTEXT": broker.address, "CONTROLLER": broker.controller}
    listeners |= {
        name: address
        for name, address in (("SSL", broker.tls), ("SASL_PLAINTEXT", broker.sasl), ("SASL_SSL", broker.sasl_tls))
        if address
    }
    said = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{broker.controller}",
        "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
        + ",".join(f"{name}:{name}" for name in listeners if name != "CONTROLLER"),
        "log.dirs": f"{broker.folder}/data",
        # one broker, few messages
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        # one that was killed is taken back so soon
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": str(2 << 20),
        "auto.create.topics.enable": "false",
    }
    if broker.tls or broker.sasl_tls:
        said |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"{broker.folder}/server.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(broker.ca),
        }
    if broker.users:
        users = " ".join(f'user_{name}="{password}"' for name, password in broker.users.items())
        login = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        said |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
            # else who gives a wrong password is answered at once, and asks again at once
            "connection.failed.authentication.delay.ms": "100",
        }
    return said | dict(broker.settings)


def certificates(folder: pathlib.Path) -> None:
    """ca.pem, and server.pem (key and certificate) that it vouches for: of 127.0.0.1 and localhost."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    openssl("req", "-x509", *curve, "-days", "2", "-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *curve, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-extfile", "names", "-out", "server.crt")  # fmt: skip
    (folder / "server.pem").write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())


@contextlib.contextmanager
def broker(
    folder: pathlib.Path,
    *,
    port: int = 0,
    tls: bool = False,
    users: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Broker]:
    """A broker that runs; stop(), kill() and start() keep its data.

    port: of the plain listener, 0 for a free one. tls: a listener with TLS as well. users: name -> password, a listener
    with SASL/PLAIN as well (with tls: two). settings: more lines of server.properties.
    """
    java()
    (folder / "data").mkdir(parents=True, exist_ok=True)

    def free(wanted: bool = True) -> str:
        return f"127.0.0.1:{free_port()}" if wanted else ""

    made = Broker(
        folder, f"127.0.0.1:{port}" if port else free(), free(), free(tls), free(bool(users)),
        free(tls and bool(users)), dict(users or {}), dict(settings or {}),
    )  # fmt: skip
    if tls:
        certificates(folder)
    (folder / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in _properties(made).items()))
    # What `kafka-storage format` writes, which is another start of Java.
    (folder / "data" / "meta.properties").write_text("version=1\ncluster.id=aW50Y29sbGVjdG9yLXRlcw\nnode.id=1\n")
    try:
        made.start()
        yield made
    finally:
        if made.process is not None and classes().exists():  # nobody reads its data any more
            made.kill()
        made.stop()
        with contextlib.suppress(
            OSError
        ):  # another one was quicker, or it was on another disk: the next one tries again
            if not classes().exists():
                (folder / "classes.jsa").rename(classes())


def _main(arguments: list[str]) -> None:
    """A broker until Ctrl-C, with a topic for --kafka's default; its data is in a temporary folder and goes with it."""
    port = int(arguments[0]) if arguments else 9092
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="intcollector-kafka-") as folder,
        broker(pathlib.Path(folder), port=port) as running,
    ):
        running.create_topic("int", partitions=4)
        print(f"ready: --kafka {running.address}, topic int with 4 partitions; Ctrl-C ends it", flush=True)
        assert running.process is not None
        code: Any = running.process.wait()
        print(f"the broker ended with {code}:\n{(running.folder / 'log').read_text()[-2000:]}", file=sys.stderr)
        running.process = None
        sys.exit(1)


if __name__ == "__main__":
    _main(sys.argv[1:])
