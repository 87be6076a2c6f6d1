"""`relay`: events out of a Kafka topic, as a member of a consumer group, into the exporters of a collector.

    poll --> events.Events --> Batch --> every exporter's write()
                                  |
                                  +--> Mark: what each exporter had accepted by then, and where the partitions stood
    an exporter's delivered + lost has reached the mark --> the mark's offsets are committed

So Kafka keeps what is not delivered yet, whatever becomes of a relay: it gives up nothing. While an exporter's buffer
is more than half full nothing is polled (partitions are paused, the group still hears of this member).

An event may come a second time, when a relay ended, or lost a partition, between delivery and commit. Its points have
the same times then as before, since these are a function of the event alone: received_ns, which the collector made
unique among its events, and the place among its points (series._apart). So InfluxDB has each once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from .batch import State
from .config import Config
from .errors import UsageError
from .events import REASONS, Events, Refused, read
from .exporters import EXPORTERS, Exporter, close_together, exporter_class, kafka
from .series import (
    METRICS,
    NO_CHANGES,
    Counts,
    Histogram,
    Labels,
    Series,
    change_counts,
    change_series,
    exporter_series,
    flow_series,
    port_series,
    queue_series,
)
from .told import Told

if TYPE_CHECKING:
    from .picture import Around

log = logging.getLogger(__name__)

POLL_S = 0.1
AT_ONCE = 2048
"""Messages that are taken in one go, at most; fewer where the buffers are small:"""
LARGEST = 8192
"""Bytes that an event may need in an exporter's buffer: 16 hops, each with everything, all of it news."""
COMMIT_S = 0.5
LOOK_S = 1.0
"""How often it is asked how far behind the partitions are, and in trouble whether that is over."""
COMMIT, AWAY = "commit", "away"
NOT_ALLOWED = "AUTHORIZATION_FAILED"
"""Kinds of trouble: the first is over when a commit succeeds; one that ends as the last is not over because there is an
answer."""
NOT_THIS_TOPIC = "TOPIC_" + NOT_ALLOWED
CREDENTIALS = frozenset(KafkaError(code).name() for code in kafka.CREDENTIALS)
REVOKE_S = 5.0
"""How long partitions that go to another relay are held back for what is not yet delivered."""
LEAVE_S = 3.0
"""How long the group may take to let a relay go that ends; later it finds out by itself."""
ANSWER_S = 30.0
"""After so long without an answer a commit is asked for again."""
ASK_S = 0.5
"""How long a broker may take to answer a question in between."""
ASSIGN_S = 5.0
"""... and where the group is, when it gives partitions to this relay."""

CONSUMER = {
    **kafka.OURS,
    "group.id": "it is --kafka-group",
    "enable.auto.commit": "offsets are committed after delivery, and not before",
    "enable.auto.offset.store": "offsets are committed after delivery, and not before",
    "partition.assignment.strategy": "partitions move one by one between the relays of a group",
    "auto.offset.reset": "a group begins with the oldest message, or what came before its first commit is passed over",
}
"""Properties of librdkafka that a file cannot set, and why."""

SHOWN = frozenset(
    ("int_flows", "int_flow_series_omitted", "int_flow_latency_seconds", "int_flow_hop_latency_seconds",
     "int_queue_occupancy", "int_egress_port_tx_utilization")
)  # fmt: skip
"""What can be said of events alone, which are a selection of the reports."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """accepted: by exporter, how many points it had taken when all of this was written. offsets: by partition, what is
    next behind it."""

    accepted: Mapping[str, int]
    offsets: dict[int, int]


@dataclasses.dataclass
class Tally:
    """What a relay did. changes: by series.CHANGES. refused: by reason. missed: messages that were not in the topic any
    more. lag: messages by partition, as far as it is known."""

    events: int = 0
    changes: np.ndarray = dataclasses.field(default_factory=NO_CHANGES.copy)
    missed: int = 0
    refused: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    rebalances: int = 0
    lag: dict[int, int] = dataclasses.field(default_factory=dict)
    paused: bool = False


class Relay:
    """One member of a group. run() until stop(), then close().

    on_member: called once, when the group has taken it in. Errors of the constructor: UsageError, ExporterError; it
    leaves nothing behind then.
    """

    def __init__(self, config: Config, group: str, on_member: Callable[[], None] = lambda: None) -> None:
        if not config.kafka:
            raise UsageError("--kafka is missing: say where the brokers are, HOST[:PORT]")
        self.config = config
        self.group = group
        self.topic = config.kafka_topic
        self.exporters: dict[str, Exporter] = {}
        self.tally = Tally()
        self.told = Told(config.max_flows)
        self._on_member = on_member
        self._stop = threading.Event()
        self._actions: collections.deque[Callable[[], None]] = collections.deque()
        self._limit = config.push_buffer << 20
        self._at_once = max(1, min(AT_ONCE, self._limit // 4 // LARGEST))
        self._owned: set[int] = set()
        self._marks: collections.deque[Mark] = collections.deque()
        self._settled: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._next: dict[int, int] = {}  # what comes next of a partition, where it is known
        self._gaps: list[tuple[int, int, int]] = []  # partition, what was to come, what came: not yet looked at
        self._asked_at: float | None = None  # a commit is under way
        self._member = False
        self._closing = False
        self._trouble: tuple[str, str] | None = None
        self._seen = False  # the topic, with its partitions
        self._lagging: collections.deque[int] = collections.deque()  # whose turn it is to be asked for
        self._consumer = self._subscribe()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _subscribe(self) -> Consumer:
        properties = kafka.connection(self.config, CONSUMER)
        self._properties = properties
        settings: dict[str, Any] = {
            "queued.max.messages.kbytes": 16384,
            "queued.min.messages": 4 * self._at_once,
            "topic.metadata.refresh.interval.ms": 10_000,  # new partitions, and a topic that is made late
            **properties,
            "group.id": self.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "allow.auto.create.topics": False,
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
        }
        try:
            consumer = Consumer(settings)
        except (KafkaException, TypeError, ValueError) as error:
            raise UsageError(
                f"cannot read Kafka at {self.config.kafka}: {self._words(error)}: correct "
                f"{self.config.kafka_config or '--kafka'}"
            ) from None
        consumer.subscribe([self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        return consumer

    def _words(self, error: object) -> str:
        return kafka.in_words(error, self._properties)

    def _open(self) -> None:
        config = self.config
        for name in EXPORTERS:
            if name not in ("prometheus", "kafka") and getattr(config, name):
                again: dict[str, Any] = {"again": True} if name == "influxdb" else {}
                exporter = exporter_class(name)(config, **again)
                exporter.gives_up = False  # nothing is read instead: see _keep_up()
                self.exporters[name] = exporter
        if config.prometheus:
            self.exporters["prometheus"] = exporter_class("prometheus")(
                config, self.told.state, self.counts, self.not_ready, self.series, self.around
            )

    # what others ask, from any thread

    @property
    def prometheus_address(self) -> tuple[str, int] | None:
        """Where /metrics is served; None if it is off."""
        exporter: Any = self.exporters.get("prometheus")
        return exporter.address if exporter else None

    def counts(self) -> dict[str, Counts]:
        """What became of the points, by exporter that sends."""
        return {name: exporter.counts() for name, exporter in self.exporters.items() if name != "prometheus"}

    def not_ready(self) -> str | None:
        """One sentence on what is wrong, or None."""
        trouble = self._trouble
        if trouble:
            return f"kafka: {trouble[1]}"
        if not self._member:
            return f"kafka: the group {self.group} has not taken this relay in yet"
        return next(filter(None, (exporter.problem() for exporter in list(self.exporters.values()))), None)

    def series(self, state: State, config: Config, exporters: Mapping[str, Counts]) -> list[Series | Histogram]:
        """What a relay can say truly. state: of Told."""
        of_events = (*flow_series(state, config), *port_series(state), *queue_series(state))
        return [
            *exporter_series(exporters),
            *self._own_series(),
            *(one for one in of_events if one.metric.name in SHOWN),
        ]

    def around(self) -> Around:
        """What the page says of a relay beside what events told."""
        from .picture import Around

        tally = self.tally
        return Around(
            kind="relay",
            not_ready=self.not_ready(),
            problems={name: exporter.problem() for name, exporter in list(self.exporters.items())},
            relay={
                "topic": self.topic,
                "group": self.group,
                "events": tally.events,
                "messages_refused": dict(tally.refused),
                "messages_missed": tally.missed,
                "rebalances": tally.rebalances,
                "lag_messages": {str(partition): lag for partition, lag in sorted(tally.lag.copy().items())},
                "paused": tally.paused,
            },
        )

    def _own_series(self) -> list[Series | Histogram]:
        tally = self.tally
        refused, lag = dict(tally.refused), dict(tally.lag)

        def plain(name: str, value: int) -> Series:
            return Series(METRICS[name], (), np.array([value]))

        reasons = np.array(list(refused), object)
        partitions = {
            "topic": np.array([self.topic] * len(lag), object),
            "partition": np.array(list(lag), np.int64),
        }
        return [
            plain("int_relay_events_total", tally.events),
            change_series(tally.changes),
            Series(
                METRICS["int_relay_messages_refused_total"],
                (Labels({"reason": reasons}),),
                np.array(list(refused.values()), np.int64),
            ),
            plain("int_relay_messages_missed_total", tally.missed),
            plain("int_relay_rebalances_total", tally.rebalances),
            Series(METRICS["int_relay_lag_messages"], (Labels(partitions),), np.array(list(lag.values()), np.int64)),
            plain("int_relay_paused", int(tally.paused)),
        ]

    def stop(self) -> None:
        """Let run() return; from any thread or a signal handler."""
        self._stop.set()

    def soon(self, action: Callable[[], None]) -> None:
        """Have the loop call action; from any thread or a signal handler."""
        self._actions.append(action)

    def reopen(self) -> None:
        """Open the files of exporters anew (they were rotated)."""
        for exporter in self.exporters.values():
            if hasattr(exporter, "reopen"):
                exporter.reopen()

    # the loop

    def run(self) -> None:
        """Read and hand on until stop()."""
        commit_at = look_at = 0.0
        while not self._stop.is_set():
            while self._actions:
                self._actions.popleft()()
            self._keep_up()
            self._take(self._consumer.consume(self._at_once, POLL_S))
            self._settle()
            now = time.monotonic()
            if now >= commit_at:
                self._commit()
                commit_at = now + COMMIT_S
            if now >= look_at:
                self._look_after()
                look_at = time.monotonic() + LOOK_S

    def _keep_up(self) -> None:
        """Pause when a buffer is half full, go on when it is a quarter full: what is paused is fetched again."""
        fullest = max((counts.buffered_bytes for counts in self.counts().values()), default=0)
        full = fullest > self._limit // (4 if self.tally.paused else 2)
        if full == self.tally.paused:
            return
        self.tally.paused = full
        partitions = self._partitions(self._owned)
        if full:
            log.info("kafka: nothing is read until the exporters have caught up")
            self._consumer.pause(partitions)
        else:
            log.info("kafka: reading again")
            self._consumer.resume(partitions)

    def _take(self, messages: Sequence[Message]) -> None:
        """A Python loop over messages; see events.Events."""
        if not messages:
            return
        events = Events()
        partitions: list[int] = []
        offsets: dict[int, int] = {}
        for message in messages:
            if error := message.error():
                self._on_error(error)
                continue
            partition, offset = message.partition(), message.offset()
            if partition not in self._owned or offset is None:
                continue  # it went to another relay while this was on the way
            if self._trouble:
                self._over(lambda kind: kind == NOT_THIS_TOPIC)
            if offset > self._next.get(partition, offset):
                self._gaps.append((partition, self._next[partition], offset))
            offsets[partition] = self._next[partition] = offset + 1
            try:
                events.add(read(message.value()))
                partitions.append(partition)
            except Refused as refused:
                self._refuse(refused, partition, offset)
        if not offsets:
            return
        if len(events):
            batch = events.batch()
            self.tally.events += len(batch)
            self.tally.changes = self.tally.changes + change_counts(batch)
            for exporter in self.exporters.values():
                exporter.write(batch)
            self.told.add(batch, np.array(partitions))
        accepted = {name: counts.accepted for name, counts in self.counts().items()}
        if self._marks and self._marks[-1].accepted == accepted:  # these made no points
            self._marks[-1].offsets.update(offsets)
        else:
            self._marks.append(Mark(accepted, offsets))

    def _refuse(self, refused: Refused, partition: int, offset: int) -> None:
        """Counted; the first of a reason is said, without what is in it."""
        if not self.tally.refused[refused.reason]:
            log.warning(
                "kafka: a message of %s, partition %d, offset %d, is no event (%s: %s); such messages are counted and "
                "passed over", self.topic, partition, offset, refused.reason, refused,
            )  # fmt: skip
        self.tally.refused[refused.reason] += 1

    # what is delivered, and what is committed

    def _settle(self) -> None:
        """Marks that every exporter has reached. They deliver in order; `closed` is what is left behind, and comes
        again."""
        if not self._marks:
            return
        done = {
            name: counts.delivered + sum(counts.lost.values()) - counts.lost.get("closed", 0)
            for name, counts in self.counts().items()
        }
        while self._marks and all(done[name] >= needed for name, needed in self._marks[0].accepted.items()):
            self._settled.update(self._marks.popleft().offsets)

    def _to_commit(self) -> list[TopicPartition]:
        return [
            TopicPartition(self.topic, partition, offset)
            for partition, offset in self._settled.items()
            if self._committed.get(partition) != offset
        ]

    def _commit(self) -> None:
        """Ask for it; _on_commit has the answer. One at a time."""
        offsets = self._to_commit()
        waiting = self._asked_at is not None and time.monotonic() < self._asked_at + ANSWER_S
        if not offsets or waiting:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
            self._asked_at = time.monotonic()
        except KafkaException as error:
            self._say(COMMIT, f"offsets cannot be committed ({self._words(error)})")

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Called while polling. What failed is asked for again."""
        self._asked_at = None
        for one in offsets:
            if error is None and one.error is None and one.partition in self._owned:
                self._committed[one.partition] = one.offset
        failed = error or next((one.error for one in offsets if one.error), None)
        if failed is None:
            self._over(lambda kind: kind == COMMIT)
        elif failed.code() not in (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION):
            self._say(COMMIT, f"offsets cannot be committed ({self._words(failed)})")

    # who has which partition; all of these are called while polling

    def _partitions(self, numbers: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in sorted(numbers)]

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        new = {one.partition for one in partitions}
        self._owned |= new
        for number in new:
            for known in (self._settled, self._committed, self._next):
                known.pop(number, None)
        self._expect(partitions)
        consumer.incremental_assign(partitions)
        if self.tally.paused and partitions:
            consumer.pause(partitions)
        self.tally.rebalances += 1
        log.info("kafka: partitions %s of %s", _listed(self._owned), self.topic)
        self._over(lambda kind: kind != COMMIT)
        if not self._member:
            self._member = True
            self._on_member()

    def _expect(self, partitions: list[TopicPartition]) -> None:
        """Know what comes next of new partitions, if the group was there before: what is gone by then is missed."""
        if not partitions:
            return
        try:
            for one in self._consumer.committed(partitions, ASSIGN_S):
                if one.error is None and one.offset >= 0:
                    self._next[one.partition] = one.offset
        except KafkaException as error:
            log.warning("kafka: what the group was to read next is not known: %s", self._words(error))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What is not delivered in time comes again, to whoever has them now."""
        gone = {one.partition for one in partitions}
        if not self._closing:  # then all of this was done as long as there was time
            self._wait_for(gone)
            offsets = [one for one in self._to_commit() if one.partition in gone]
            if offsets:
                _within(REVOKE_S, lambda: self._commit_before_leaving(offsets))
        self._give_up(gone)
        consumer.incremental_unassign(partitions)

    def _commit_before_leaving(self, offsets: list[TopicPartition]) -> None:
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("kafka: offsets were not committed (%s): some events come again", self._words(error))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They are another's already: this relay was not heard of for too long."""
        log.warning("kafka: the group took partitions away, since it had not heard of this relay; events come again")
        self._give_up({one.partition for one in partitions})
        consumer.incremental_unassign(partitions)

    def _wait_for(self, partitions: set[int]) -> None:
        end = time.monotonic() + REVOKE_S
        self._settle()
        while any(partitions & mark.offsets.keys() for mark in self._marks) and time.monotonic() < end:
            for exporter in self.exporters.values():
                if hasattr(exporter, "nudge"):
                    exporter.nudge()
            self._stop.wait(0.02)
            self._settle()

    def _give_up(self, partitions: set[int]) -> None:
        self._owned -= partitions
        for mark in self._marks:
            for number in partitions & mark.offsets.keys():
                del mark.offsets[number]
        for number in partitions:
            for known in (self._settled, self._committed, self._next, self.tally.lag):
                known.pop(number, None)
        self.told.forget(partitions)
        self.tally.rebalances += 1

    # trouble

    def _on_error(self, error: KafkaError) -> None:
        """Of the client, or in a message's place."""
        code = error.code()
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            self._seen = False
            self._say("topic", self._missing())
        elif code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT):
            if code == KafkaError._ALL_BROKERS_DOWN:
                self._away(error)
        elif code != KafkaError._PARTITION_EOF:
            self._say(error.name(), f"{self.config.kafka}: {self._words(error)}")

    def _away(self, error: KafkaError) -> None:
        """No broker can be reached; said only where it is not known why."""
        if not self._trouble or self._trouble[0] not in CREDENTIALS:
            self._say(AWAY, f"no broker of {self.config.kafka} can be reached ({self._words(error)})")

    def _missing(self) -> str:
        return (
            f"there is no topic {self.topic} at {self.config.kafka}: create it, with as many partitions as relays are "
            "to share it, or give another --kafka-topic"
        )

    def _say(self, kind: str, text: str) -> None:
        """A problem is told when it begins, when it becomes another, and when it is over."""
        before, self._trouble = self._trouble, (kind, text)
        if before is None or before[0] != kind:
            log.warning("kafka: %s", text)

    def _over(self, what: Callable[[str], bool]) -> None:
        """The problem, if it is of a kind of which that is true."""
        if self._trouble and what(self._trouble[0]):
            self._trouble = None
            log.warning("kafka: works again")

    def _look_after(self) -> None:
        """Is the topic there, is a problem over, and how far behind is a partition?"""
        try:
            if not self._seen or (self._trouble and self._trouble[0] != COMMIT):
                topic = self._consumer.list_topics(self.topic, ASK_S).topics[self.topic]
                self._seen = topic.error is None
                if topic.error is not None:
                    self._on_error(topic.error)
                    return
                self._over(lambda kind: kind != COMMIT and not kind.endswith(NOT_ALLOWED))
            self._look_at_gaps()
            self._look_at_lag()
        except KafkaException as error:
            if not self._member and error.args[0].code() != KafkaError._TIMED_OUT:
                self._away(error.args[0])

    def _look_at_gaps(self) -> None:
        """Count what was to come and is not in the topic any more: what is below the partition's first message. Other
        offsets without a message are those of a compacted topic, or of transactions."""
        firsts: dict[int, int] = {}
        while self._gaps:
            partition, expected, came = self._gaps[-1]
            if partition not in firsts:
                ends = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), ASK_S)
                if ends is None:
                    return
                firsts[partition] = ends[0]
            self._gaps.pop()
            missed = min(came, firsts[partition]) - expected
            if missed > 0 and not self.tally.missed:
                log.warning(
                    "kafka: %d messages of %s, partition %d, were removed by the topic's retention before they were "
                    "read: such messages are counted, and lost; keep them for longer (retention.ms, retention.bytes)",
                    missed, self.topic, partition,
                )  # fmt: skip
            self.tally.missed += max(0, missed)

    def _look_at_lag(self) -> None:
        """By what the last fetch said; of one partition that is paused, and so not fetched, the broker is asked."""
        if not self._lagging:
            self._lagging.extend(sorted(self._owned))
        asked = self._lagging.popleft() if self._lagging and self.tally.paused else None
        for number in sorted(self._owned):
            of = TopicPartition(self.topic, number)
            if number == asked:
                ends = self._consumer.get_watermark_offsets(of, ASK_S)
            else:
                ends = self._consumer.get_watermark_offsets(of, cached=True)
            reached = self._settled.get(number, self._committed.get(number))
            if ends is None or ends[1] < 0:
                continue
            if reached is None:
                # nothing was taken since it was assigned: as far as the group is
                (known,) = self._consumer.committed([of], ASK_S)
                reached = self._committed[number] = max(known.offset, ends[0])
            self.tally.lag[number] = max(0, ends[1] - reached)

    # the end

    def close(self) -> None:
        """Deliver what can be delivered in config.close_timeout, commit that, leave the group, say what is left."""
        self._closing = True
        if self._owned:
            self._consumer.pause(self._partitions(self._owned))
        end = time.monotonic() + self.config.close_timeout
        close_together(self.exporters.values(), self.config.close_timeout)
        self._settle()
        self._commit_last(max(end, time.monotonic() + 1.0))
        with contextlib.suppress(KafkaException):  # then nobody knows
            self._look_at_gaps()
        if self._to_commit():
            log.warning("kafka: not all offsets were committed, since no broker answers: some events come again")
        left = {name: counts.lost["closed"] for name, counts in self.counts().items() if counts.lost.get("closed")}
        if not _within(LEAVE_S, self._consumer.close):
            log.info("kafka: left without a word to the brokers, which do not answer")
        self.exporters = {}
        if not self._member:
            return
        said = ", ".join(f"{name} {count}" for name, count in left.items())
        log.info(
            "kafka: %d events read%s", self.tally.events,
            f"; points not delivered: {said}; their events come again" if said else "; nothing is left to deliver",
        )  # fmt: skip

    def _commit_last(self, end: float) -> None:
        """Until it is done or the time is over; what is not committed comes again."""
        while (self._to_commit() or self._asked_at is not None) and time.monotonic() < end:
            self._commit()
            self._consumer.consume(1, POLL_S)  # serves _on_commit; what it may bring is not ours any more


def _within(seconds: float, work: Callable[[], object]) -> bool:
    """Whether librdkafka did that in time: some of its calls have no limit, and wait for a broker that hangs."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _listed(numbers: Collection[int]) -> str:
    """`0, 2, 3`, or `none`"""
    return ", ".join(map(str, sorted(numbers))) or "none"
