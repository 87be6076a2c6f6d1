"""Events -> JSON messages -> a topic of Apache Kafka, through librdkafka.

A message is a record (series.records) as JSON, its key the flow, so that the events of a flow are in one partition, in
their order. Nothing is given up while brokers are away: librdkafka sends again by sequence numbers, so that what was
stored is not stored twice, and what waits for that is bounded by the buffer, as with every exporter.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from ..batch import Batch
from ..config import Config, content_of
from ..errors import UsageError
from .delivery import Chunk, Item, Pusher, Refusal
from .events_text import EventTexts

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How long librdkafka is waited for before it is asked whether the end has come."""
ANSWER_S = 1.0
"""How long a broker may take to say what there is of the topic, before it is asked again."""
QUIET_S = 5.0
"""So long without an acknowledgement, and without an error, is a problem."""
ERROR_S = 1.0
"""... and with one."""
LOG_S = 60.0
"""librdkafka's log says a thing of one kind so often at most."""

TOO_LARGE = frozenset(
    (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
)  # fmt: skip
REJECTED = frozenset(
    (
        KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP, KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    )
)  # fmt: skip
"""What a message is refused for that will be the same with the next try."""
NO_TOPIC = frozenset(
    (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
)  # fmt: skip

PURGED = frozenset((KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT))
CREDENTIALS = frozenset((KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL))
NOT_ALLOWED = frozenset((KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED))
REREAD_S = 2.0
"""How often the file of properties is looked at, as long as it is wrong."""
SPACE_NS = 32
"""Between the times of a collector's events. Whoever makes points of one may need some ns for those of one series."""
SET_BACK_NS = 5 * 10**9
"""A clock that is behind by more was set."""
BATCH_SIZE = 1 << 18
"""Bytes of a batch. A larger one is hardly quicker, and a topic that does not take this is rare."""

# --- what users may say to librdkafka ---------------------------------------------------------------------------------

_CALLBACK = "it is the collector's own"
OURS = {
    "bootstrap.servers": "brokers are what --kafka names",
    "metadata.broker.list": "brokers are what --kafka names",
    **dict.fromkeys(
        ("error_cb", "throttle_cb", "stats_cb", "log_cb", "logger", "oauth_cb", "on_delivery", "opaque"), _CALLBACK
    ),
}
"""Properties that no file may set -> why."""

PRODUCER = {
    **OURS,
    **dict.fromkeys(
        ("acks", "request.required.acks"), "an event is delivered when all replicas that are in sync have it: all"
    ),
    "enable.idempotence": "without it, events are stored twice or in another order after an error: true",
    **dict.fromkeys(
        ("message.timeout.ms", "delivery.timeout.ms", "message.send.max.retries", "retries"),
        "events are given up by --push-buffer and --spool-size, and counted: never by time or tries",
    ),
    **dict.fromkeys(
        ("partitioner", "partitioner_cb"),
        "a flow's events share a partition, as Java clients choose it: murmur2_random",
    ),
    "transactional.id": "the collector sends without transactions",
    **dict.fromkeys(("compression.type", "compression.codec"), "compression is what --kafka-compression says"),
    **dict.fromkeys(
        ("dr_cb", "dr_msg_cb", "delivery.report.only.error"), "every delivery is counted by its report, one by one"
    ),
    "allow.auto.create.topics": "a topic is made by who knows how many partitions it is to have: false",
    "batch.size": "the collector finds what the topic takes",
    "queue.buffering.max.kbytes": "a message of any size has to find room: queue.buffering.max.messages is the bound",
}
"""The same, of what sends."""

_SECRET = re.compile(r"(?!.*location$).*(password|secret|token|\.pem$|jaas|oauthbearer|assertion)", re.IGNORECASE)


def read_properties(path: str, refused: Mapping[str, str]) -> dict[str, str]:
    """A file of librdkafka properties: `NAME = VALUE` a line; one that begins with # is a comment. Errors: UsageError,
    which shows no value.

    refused: names that the file must not have -> why.
    """
    try:
        text = content_of(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8: save the file as UTF-8 text") from None
    said: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        at = f"{path}, line {number}"
        if not equals or not re.fullmatch(r"[a-zA-Z][\w.]*", name):
            raise UsageError(
                f"{at}: this is not NAME = VALUE: write a property of librdkafka, as in ssl.ca.location = FILE"
            )
        if name in refused:
            raise UsageError(f"{at}: {name} cannot be set: {refused[name]}")
        if name in said:
            raise UsageError(f"{at}: {name} is there twice: keep one of them")
        said[name] = value
    if secrets_of(said) and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        log.warning("kafka: %s holds a secret and can be read by others: chmod 600 %s", path, path)
    return said


def secrets_of(properties: Mapping[str, Any]) -> list[str]:
    """Values that are nobody's business."""
    return [v for name, v in properties.items() if isinstance(v, str) and len(v) > 1 and _SECRET.match(name)]


def hidden(text: str, secrets: Collection[str]) -> str:
    """A text of librdkafka's without them."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class Quiet(logging.Filter):
    """librdkafka's log: no secrets; of each kind a line a minute; what the collector says itself only with -v."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__()
        self._secrets = secrets
        self._next_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.args[0]) if isinstance(record.args, tuple) and record.args else record.msg
        text = record.getMessage()
        if "allow.auto.create.topics" in text:  # it says that this is for consumers only, but it works
            return False
        now = time.monotonic()
        if now < self._next_s.get(kind, 0.0):
            return False
        self._next_s[kind] = now + LOG_S
        if kind != "CONFWARN" and (record.levelno < logging.ERROR or kind in ("FAIL", "ERROR")):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"  # what is in the way, error_cb has too
        record.msg, record.args = hidden(text, self._secrets), None
        return record.levelno > logging.DEBUG or log.isEnabledFor(logging.DEBUG)


def connection(config: Config, refused: Mapping[str, str]) -> dict[str, Any]:
    """What a client of config.kafka is set to: a producer or a consumer. With config.kafka_config, which says more.

    refused: what that file must not say. Errors: UsageError.
    """
    said = {} if config.kafka_config is None else read_properties(config.kafka_config, refused)
    quiet = logging.getLogger(f"{__name__}.librdkafka")
    quiet.filters = [Quiet(secrets_of(said))]
    return {
        "client.id": "intcollector",
        "reconnect.backoff.max.ms": 2000,  # a broker that is back is found soon, and
        "topic.metadata.propagation.max.ms": 3000,  # a topic that is gone is missed soon
        "socket.keepalive.enable": True,
        **said,
        "bootstrap.servers": config.kafka,
        "logger": quiet,
    }


def look(config: Config, timeout_s: float) -> tuple[int, bool]:
    """(partitions of the topic, whether we may write to it), as the brokers say; nothing is made or written.

    Errors: UsageError, for the file of properties. Refusal, with what is in the way.
    """
    of = connection(config, PRODUCER)
    errors: list[KafkaError] = []
    properties: dict[str, Any] = {**of, "error_cb": errors.append}
    try:
        admin = AdminClient(properties)
        asked = admin.describe_topics(
            TopicCollection([config.kafka_topic]), include_authorized_operations=True, request_timeout=timeout_s
        )[config.kafka_topic]
        while not asked.done():
            admin.poll(POLL_S)
            if any(error.code() in (*CREDENTIALS, KafkaError._ALL_BROKERS_DOWN) for error in errors):
                raise KafkaException(errors[0])
        said = asked.result()
    except (KafkaException, TypeError, ValueError) as error:
        first = error.args[0] if isinstance(error, KafkaException) else error
        if isinstance(first, KafkaError) and first.code() in NO_TOPIC:
            raise Refusal("no topic", no_topic(config)) from None
        if isinstance(first, KafkaError) and first.code() in NOT_ALLOWED:
            raise Refusal("not allowed", in_words(first, of)) from None
        raise Refusal("", in_words(errors[0] if errors else first, of)) from None
    allowed = said.authorized_operations
    return len(said.partitions), allowed is None or any(one.name in ("WRITE", "ALL") for one in allowed)


def stamps(properties: Mapping[str, Any]) -> dict[str, tuple[int, int] | None]:
    """Of the files that properties name, as ssl.ca.location does: (st_mtime_ns, st_size), None if it is not there."""
    found: dict[str, tuple[int, int] | None] = {}
    for name, value in properties.items():
        if name.endswith(".location"):
            found[name] = None
            with contextlib.suppress(OSError):
                of = os.stat(value)
                found[name] = of.st_mtime_ns, of.st_size
    return found


def no_topic(config: Config) -> str:
    """What is wrong, and what to do."""
    return (
        f"there is no topic {config.kafka_topic} at {config.kafka}: create it, as with kafka-topics.sh --create "
        f"--topic {config.kafka_topic} --partitions 8 --bootstrap-server {config.kafka}"
    )


def in_words(error: object, properties: Mapping[str, Any]) -> str:
    """What librdkafka says, without secrets, and without what is different each time."""
    if isinstance(error, KafkaException):
        error = error.args[0]
    said = error.str() if isinstance(error, KafkaError) else str(error)
    return hidden(re.sub(r" \(after \d+ms in state .*\)", "", said), secrets_of(properties))


# --- the exporter -----------------------------------------------------------------------------------------------------


Failure: TypeAlias = "tuple[KafkaError, bytes, bytes]"
"""Why, key, value."""


class Flight:
    """Messages on their way: what was reported of each."""

    def __init__(self) -> None:
        self.open = 0
        self.delivered = 0
        self.failed: list[Failure] = []

    def reported(self, error: KafkaError | None, message: Message) -> None:
        """A delivery report, one a message; called from poll()."""
        self.open -= 1
        if error is None:
            self.delivered += 1
        else:
            self.failed.append((error, message.key() or b"", message.value() or b""))

    def take(self, codes: Collection[int]) -> list[Failure]:
        """Those that failed for one of these; they are not in failed any more."""
        taken = [one for one in self.failed if one[0].code() in codes]
        self.failed = [one for one in self.failed if one[0].code() not in codes]
        return taken


class Kafka(Pusher):
    """Events to config.kafka_topic at config.kafka, pushed every push_interval by a thread of its own.

    A topic is never made or altered. A message that the brokers refuse for what it is (reason `rejected`: too large,
    above all) is counted and not sent again; whatever else is in the way is waited for.

    Errors of the constructor: UsageError, for the file of properties; ExporterError, for the spool.
    """

    name = "kafka"
    reasons = ("rejected",)
    LINES = 5000
    ITEM_SIZE = 1500

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._topic = config.kafka_topic
        self._connection = connection(config, PRODUCER)
        self._files: dict[str, tuple[int, int] | None] = {}  # that it names, as the producer has read them
        self._reread_s = 0.0  # when the file is looked at again
        self._latest_ns = 0  # received_ns of the events so far
        self._texts = EventTexts()
        self._batch_size = BATCH_SIZE
        self._found = False  # the topic
        self._error: KafkaError | None = None  # since the last acknowledgement
        self._fatal = False  # this producer sends nothing any more
        self._rejecting = False
        self._producer: Producer | None = self._made()
        self.start()

    def _made(self, **more: Any) -> Producer:
        """A producer; threads of its own begin to look for the brokers. Errors: UsageError."""
        self._fatal, self._error = False, None
        self._files = stamps(self._connection)
        properties = {
            "linger.ms": 5,
            **self._connection,
            "batch.size": self._batch_size,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": 0,  # never
            "partitioner": "murmur2_random",
            "compression.type": self._config.kafka_compression,
            "allow.auto.create.topics": False,
            "error_cb": self._failed,
            "throttle_cb": self._throttled,
            **more,
        }
        try:
            return Producer(properties)
        except (KafkaException, TypeError, ValueError) as error:
            file = self._config.kafka_config
            raise UsageError(
                f"cannot send to Kafka at {self._config.kafka}: {self._words(error)}: correct {file or '--kafka'}"
            ) from None

    def _failed(self, error: KafkaError) -> None:
        """librdkafka has a problem; called from poll()."""
        self._fatal = self._fatal or error.fatal()
        # that all brokers are down says less than what came before
        if self._error is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._error = error

    def _throttled(self, event: Any) -> None:
        log.debug("kafka: %s asked for a pause of %s s", event.broker_name, event.throttle_time)

    # events -> lines

    def target(self) -> str:
        return f"{','.join(sorted((self._config.kafka or '').split(',')))}/{self._topic}"

    def take(self, batch: Batch) -> list[Item]:
        parts = [batch[first : first + self.LINES] for first in range(0, len(batch), self.LINES)]
        return [
            Item(part, len(part), sum(a.nbytes for a in (part.reports, part.hops, part.hop_report, part.hop_index)))
            for part in parts
        ]

    def spell(self, items: Sequence[Item]) -> bytes:
        """`KEY<TAB>JSON<LF>` an event, received_ns being this event's only: fixed here, before the first try."""
        lines: list[str] = []
        for item in items:
            reports = item.what.reports
            times = spaced(reports["received_ns"].astype(np.int64) + item.what.clock_ns, self._latest_ns)
            self._latest_ns = int(times.max())
            keys, texts = self._texts.of(item.what, self._config, times.tolist())
            lines += [f"{key}\t{text}\n" for key, text in zip(keys, texts, strict=True)]
        return "".join(lines).encode()

    # lines -> brokers

    def wake(self) -> None:
        """Also while nothing is sent, librdkafka's errors and log are heard, and the topic is looked for."""
        if self._producer is None:
            return
        self._poll(self._producer, 0)
        if self._fatal:
            self._producer = None  # the next delivery makes another
        elif not self._found and self._left_s() > 0:
            try:
                self._look(self._producer)
                self.trouble(None)
            except Refusal as refusal:
                self.trouble(refusal)

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        """As Pusher has it. Waits for as long as brokers are away, and says so."""
        producer = self._producer or self._another()
        if not self._found:
            self._look(producer)
        flight = self._send(producer, _messages(chunk.data), meanwhile=True)
        rejected = flight.take(REJECTED)
        if large := flight.take(TOO_LARGE):
            # It may be the batch that was too large: each by itself tells. Of a flow that was in the batch, later
            # events that were sent with it are before these now.
            alone = self._alone(large)
            rejected += alone.take(TOO_LARGE)
            if alone.delivered:  # the topic takes less than our batches
                self._batch_size = max(self._batch_size // 2, 1 << 12)
                self._producer = None
            flight.delivered += alone.delivered
            flight.failed += alone.failed
        if flight.failed:
            # Whatever it was: sequence numbers begin anew, and the topic may be gone.
            self._producer, self._found = None, False
            if not flight.delivered and not rejected:
                raise self._why(flight)
        self._settle(chunk, flight, rejected)

    def _alone(self, large: Sequence[Failure]) -> Flight:
        """Send those again, each in a batch of its own. If the file of properties is not taken now, all failed."""
        try:
            producer = self._made(**{"batch.num.messages": 1})
        except UsageError as error:
            failed = Flight()
            failed.failed = [(_unusable(error), key, value) for _, key, value in large]
            return failed
        return self._send(producer, [(key, value) for _, key, value in large])

    def _settle(self, chunk: Chunk, flight: Flight, rejected: Sequence[Failure]) -> None:
        """Account for a chunk, of which all was reported and not all failed."""
        self.delivered(flight.delivered)
        self.lost(len(rejected), "rejected")
        if rejected and not self._rejecting:
            error, _, value = rejected[0]
            said = f"{self._words(error)} ({len(value)} bytes)"
            log.warning("kafka: messages are rejected, which are counted and not sent again: %s", said)
        self._rejecting = bool(rejected)
        if flight.failed:
            # In the order in which they were; no two lines are alike, since no two times are.
            left = {key + b"\t" + value for _, key, value in flight.failed}
            lines = [line for line in chunk.data.splitlines() if line in left]
            self.again(Chunk(b"\n".join(lines) + b"\n", len(lines)))
            self.trouble(self._why(flight))

    def _why(self, flight: Flight) -> Refusal:
        """What is in the way of those that failed."""
        error = flight.failed[0][0]
        if error.code() not in PURGED:
            return self._refusal(error)
        if self._error:  # these were taken back because of it
            return self._refusal(self._error)
        return Refusal("quiet", f"{self._config.kafka} did not acknowledge {len(flight.failed)} messages in time")

    def _another(self) -> Producer:
        """Errors: Refusal, when what the file of properties says now is not taken."""
        try:
            self._producer = self._made()
        except UsageError as error:
            self._reread()
            raise self._refusal(_unusable(error)) from None
        return self._producer

    def _send(self, producer: Producer, messages: Iterable[tuple[bytes, bytes]], *, meanwhile: bool = False) -> Flight:
        """Send, and wait until all is reported, or close() has no more time. meanwhile: spell what comes next."""
        flight = Flight()
        produce, topic, reported = producer.produce, self._topic, flight.reported
        for key, value in messages:
            while True:
                try:
                    produce(topic, value, key, -1, reported)
                    flight.open += 1
                except BufferError:  # as many as --kafka-config lets wait
                    self._wait(producer, flight, 1)
                    continue
                except KafkaException as error:
                    flight.failed.append((error.args[0], key, value))
                break
        if meanwhile:
            self.ahead()
        self._wait(producer, flight, flight.open)
        return flight

    def _wait(self, producer: Producer, flight: Flight, reports: int) -> None:
        """For so many reports, or for all if this producer is at its end."""
        enough = flight.open - reports
        delivered, progress_s = flight.delivered, time.monotonic()
        while flight.open > enough:
            self._poll(producer, POLL_S)
            now = time.monotonic()
            quiet_s = now - progress_s
            if flight.delivered > delivered:
                delivered, progress_s, self._error = flight.delivered, now, None
                self.trouble(None)
            elif quiet_s > ERROR_S and self._error:
                self.trouble(self._refusal(self._error))
            elif quiet_s > QUIET_S:
                self.trouble(Refusal("quiet", f"{self._config.kafka} has acknowledged nothing for {QUIET_S:g} s"))
            self._fatal = self._fatal or self._renewed()
            if self._fatal or self._left_s() <= 0:
                enough = 0
                producer.purge()

    def _poll(self, producer: Producer, timeout_s: float) -> None:
        """Hear what librdkafka has to say."""
        try:
            producer.poll(timeout_s)
        except KafkaException as error:  # what is fatal comes so, and not to error_cb
            self._failed(error.args[0])

    def _look(self, producer: Producer) -> None:
        """For the topic. Asking makes none: see allow.auto.create.topics. Errors: Refusal."""
        try:
            said = producer.list_topics(self._topic, timeout=max(0.1, min(ANSWER_S, self._left_s()))).topics[
                self._topic
            ]
        except KafkaException as error:
            self._poll(producer, 0)  # what happened, says error_cb
            if self._renewed():
                self._producer = None
            raise self._refusal(self._error or error.args[0]) from None
        if said.error is None:
            self._found = True
        elif said.error.code() in NO_TOPIC:
            raise Refusal("no topic", no_topic(self._config))
        else:
            raise Refusal(said.error.name(), f"topic {self._topic} at {self._config.kafka}: {said.error.str()}")

    def _renewed(self) -> bool:
        """Whether the file of properties says another thing now, asked only when it is to blame. Then a new producer
        has to be made."""
        if self._error is None or self._error.code() not in CREDENTIALS or time.monotonic() < self._reread_s:
            return False
        self._reread_s = time.monotonic() + REREAD_S
        return self._reread()

    def _reread(self) -> bool:
        """Take up what the file of properties says; whether that, or what stands in a file it names, is another thing
        than the producer was made of."""
        try:
            said = connection(self._config, PRODUCER)
        except UsageError as error:
            log.warning("kafka: %s; what was read before stays in force", error)
            return False
        changed, self._connection = said != self._connection, said
        return changed or stamps(said) != self._files

    def _refusal(self, error: KafkaError) -> Refusal:
        said = self._words(error)
        named = any(broker in said for broker in (self._config.kafka or "").split(","))
        return Refusal(error.name(), said if named else f"{self._config.kafka}: {said}")

    def _words(self, error: object) -> str:
        return in_words(error, self._connection)

    def close(self, timeout_s: float) -> None:
        super().close(timeout_s)
        if not self._thread.is_alive():
            self._producer = None


def _unusable(error: UsageError) -> KafkaError:
    """What is wrong with the properties, in the place of what librdkafka would say if it had taken them."""
    return KafkaError(KafkaError._INVALID_ARG, str(error))


def spaced(times_ns: np.ndarray, latest_ns: int) -> np.ndarray:
    """Each time, or as little later as SPACE_NS to all others, and to latest_ns before them, takes. int64 (n,), n > 0.

    A clock that was set back begins anew: else the times of all events would be wrong until it is where it was.
    """
    order = np.argsort(times_ns, kind="stable")
    ascending = times_ns[order]
    if ascending[-1] > latest_ns - SET_BACK_NS:
        ascending[0] = max(int(ascending[0]), latest_ns + SPACE_NS)
    steps = SPACE_NS * np.arange(len(ascending))
    out = np.empty_like(times_ns)
    out[order] = np.maximum.accumulate(ascending - steps) + steps
    return out


def _messages(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each line."""
    # Not by splitlines(): thousands of long texts at once cost as much as sending them.
    at, find = 0, data.find
    while at < len(data):
        tab = find(b"\t", at)
        end = find(b"\n", tab)
        yield data[at:tab], data[tab + 1 : end]
        at = end + 1
