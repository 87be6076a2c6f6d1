"""The delivery core: whatever the other side does, told = delivered + lost + kept, in order, within its bounds."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector.config import Config
from intcollector.errors import ExporterError
from intcollector.exporters import close_together
from intcollector.exporters.delivery import Chunk, Item, Pusher, Refusal, folder_of
from intcollector.exporters.influxdb import InfluxDB
from intcollector.exporters.jsonl import JsonLines
from intcollector.exporters.kafka import Kafka
from intcollector.series import Counts

from . import servers
from .batches import batch_of
from .pushing import NOW_NS, many
from .servers import disk, wait

WIDTH = 100
"""Bytes of a line."""


class Scripted(Pusher):
    """Numbers to a list, as a script of answers says: `ok`, `refuse`, `part` (the first line, the rest put back),
    `halves`, `reject` (the first line is lost), `wait` (trouble that passes). Without script: ok."""

    name = "scripted"
    reasons = ("rejected",)
    LINES = 5
    ITEM_SIZE = 0

    def __init__(self, config: Config, arrived: list[int] | None = None, to: str = "there") -> None:
        super().__init__(config)
        self.arrived: list[int] = [] if arrived is None else arrived
        self.script: collections.deque[str] = collections.deque()
        self.tries = 0
        self._to = to

    def target(self) -> str | None:
        return self._to

    def take(self, batch: Any) -> list[Item]:
        parts = [batch[first : first + self.LINES] for first in range(0, len(batch), self.LINES)]
        return [Item(part, len(part), WIDTH * len(part)) for part in parts]

    def spell(self, items: Sequence[Item]) -> bytes:
        return b"".join(str(number).encode().ljust(WIDTH - 1) + b"\n" for item in items for number in item.what)

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        self.tries += 1
        answer = self.script.popleft() if self.script else "ok"
        lines = chunk.data.splitlines(keepends=True)
        assert len(lines) == chunk.points > 0
        if answer == "refuse":
            raise Refusal("refused", "it does not want to")
        if answer == "wait":
            self.trouble(Refusal("waiting", "it thinks about it"))
        if answer in ("part", "reject"):
            if answer == "part":
                self._arrive(lines[:1])
            else:
                self.lost(1, "rejected")
            if lines[1:]:
                self.again(Chunk(b"".join(lines[1:]), len(lines) - 1))
        elif answer == "halves" and len(lines) > 1:
            middle = len(lines) // 2
            self.again(*(Chunk(b"".join(some), len(some)) for some in (lines[:middle], lines[middle:])))
        else:
            self._arrive(lines)

    def _arrive(self, lines: Sequence[bytes]) -> None:
        self.arrived += [int(line) for line in lines]
        self.delivered(len(lines))


def told(exporter: Scripted, numbers: Sequence[int]) -> None:
    batch: Any = list(numbers)
    exporter.write(batch)


def sums_close(counts: Counts) -> bool:
    return counts.accepted == counts.delivered + sum(counts.lost.values()) + counts.buffered


def killed(exporter: Pusher) -> None:
    """As the kernel leaves a killed process's files; the object must not be used any more."""
    if spool := exporter._spool:
        for file in (spool._lock, spool._position, *(pair[1] for pair in (spool._writing, spool._reading) if pair)):
            os.close(file)


def in_memory(exporter: Pusher) -> int:
    """Points that a kill costs: those that no disk has."""
    assert exporter._spool
    return exporter.counts().buffered - exporter._spool.points - exporter._spool.rest_points


# --- without threads: step by step ------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.integers(1, 12)),
        st.tuples(st.just("push"), st.lists(st.sampled_from(["ok", "refuse", "part", "halves", "reject", "wait"]))),
        st.tuples(st.sampled_from(["write ahead", "kill", "close", "disk full", "disk empty"]), st.none()),
    ),
    max_size=40,
)


@given(steps=STEPS)
@settings(max_examples=150)
def test_sums_close_after_every_step(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]) -> None:
    """With a spool, whatever happens in whatever order: what was told is delivered, lost or kept at each moment; it
    arrives in order and once; a kill costs only what was not written ahead yet."""
    config = Config(spool=str(tmp_path_factory.mktemp("spool")))
    arrived: list[int] = []
    full = False
    pwrite = os.pwrite

    def writing(file: int, data: bytes, at: int) -> int:
        # The rest of a chunk finds room: the next test is about that.
        if full and os.readlink(f"/proc/self/fd/{file}").endswith(".spool"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, data, at)

    def opened() -> Scripted:
        exporter = Scripted(config, arrived)
        exporter.open_spool()
        return exporter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", writing)
        exporter, number, gone, rejected = opened(), 0, 0, 0
        for step, what in [*steps, ("disk empty", None), ("write ahead", None), ("push", []), ("close", None)]:
            if step == "tell":
                told(exporter, range(number, number + what))
                number += what
            elif step == "push":
                exporter.script.extend(what)
                with contextlib.suppress(Refusal):
                    exporter._push()
                exporter.script.clear()
            elif step == "write ahead":
                exporter.write_ahead()
            elif step in ("disk full", "disk empty"):
                full = step == "disk full"
            else:
                if step == "kill":
                    gone += in_memory(exporter)
                    kept = exporter.counts().buffered - in_memory(exporter)
                    killed(exporter)
                else:
                    exporter.close(0)
                    gone += exporter.counts().lost["closed"]
                    kept = exporter.counts().buffered
                rejected += exporter.counts().lost["rejected"]
                exporter = opened()
                assert exporter.counts().recovered == exporter.counts().accepted == kept
            assert sums_close(exporter.counts())
            assert arrived == sorted(set(arrived))
        assert exporter.counts().buffered == 0
        assert len(arrived) + rejected + gone == number
        exporter.close(0)


@given(steps=STEPS)
@settings(max_examples=100)
def test_sums_close_in_memory(steps: list[tuple[str, Any]]) -> None:
    """The same without a spool, where the end costs everything."""
    exporter, number = Scripted(Config()), 0
    for step, what in steps:
        if step == "tell":
            told(exporter, range(number, number + what))
            number += what
        elif step == "push":
            exporter.script.extend(what)
            with contextlib.suppress(Refusal):
                exporter._push()
            exporter.script.clear()
        elif step == "write ahead":
            exporter.ahead()
        counts = exporter.counts()
        assert sums_close(counts) and counts.accepted == number
        assert counts.buffered_bytes == WIDTH * counts.buffered
        assert exporter.arrived == sorted(set(exporter.arrived))
    exporter.close(0)
    counts = exporter.counts()
    assert sums_close(counts) and (counts.buffered, counts.buffered_bytes) == (0, 0)
    assert counts.delivered == len(exporter.arrived)


def test_rest_that_finds_no_room(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that is delivered in part while the disk is full is gone on with; after a restart in between, all of it
    comes again. Nothing is lost."""
    pwrite = os.pwrite

    def writing(file: int, data: bytes, at: int) -> int:
        if os.readlink(f"/proc/self/fd/{file}").endswith("/rest.new"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, data, at)

    config = Config(spool=str(tmp_path))
    arrived: list[int] = []
    exporter = Scripted(config, arrived)
    exporter.open_spool()
    told(exporter, range(10))
    exporter.write_ahead()
    monkeypatch.setattr(os, "pwrite", writing)
    exporter.script.extend(["part", "ok", "part", "refuse"])
    with pytest.raises(Refusal):
        exporter._push()
    assert arrived == [0, 1, 2, 3, 4, 5] and sums_close(exporter.counts())
    assert exporter.counts().spool_failures == 2
    exporter.close(0)
    assert (exporter.counts().buffered, sum(exporter.counts().lost.values())) == (4, 0)
    again = Scripted(config, arrived)
    again.open_spool()
    again._push()
    again.close(0)
    assert arrived == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]


def test_rest_that_is_damaged(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was left of a chunk and is damaged at the next start is counted, as recovered and lost, and said, once."""
    config = Config(spool=str(tmp_path))
    arrived: list[int] = []
    exporter = Scripted(config, arrived)
    exporter.open_spool()
    told(exporter, range(10))
    exporter.write_ahead()
    exporter.script.extend(["part", "refuse"])
    with pytest.raises(Refusal):
        exporter._push()
    killed(exporter)
    (path,) = tmp_path.rglob("rest")
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    for recovered, damaged in ((9, 4), (5, 0)):
        exporter = Scripted(config, arrived)
        exporter.open_spool()
        counts = exporter.counts()
        assert (counts.recovered, counts.accepted, counts.lost["spool_damaged"]) == (recovered, recovered, damaged)
        assert sums_close(counts) and counts.buffered == 5
        exporter.close(0)
    assert caplog.text.count(f"{path} is damaged: 4 points are lost") == 1
    exporter = Scripted(config, arrived)
    exporter.open_spool()
    exporter._push()
    exporter.close(0)
    assert arrived == [0, 5, 6, 7, 8, 9]
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"lock", "target"}


class Killed(BaseException):
    """In the middle of deliver()."""


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_killed_in_delivery(tmp_path: pathlib.Path, parts: int) -> None:
    """What was in delivery at a kill is delivered again, with the same bytes, and nothing else is."""
    config = Config(spool=str(tmp_path))
    arrived: list[int] = []
    seen: list[bytes] = []

    class Dying(Scripted):
        def deliver(self, chunk: Chunk, timeout_s: float) -> None:
            seen.append(chunk.data)
            if self.tries == 2 + parts:
                self._arrive(chunk.data.splitlines()[:2])
                raise Killed
            super().deliver(chunk, timeout_s)

    exporter = Dying(config, arrived)
    exporter.open_spool()
    told(exporter, range(30))
    exporter.write_ahead()
    exporter.script.extend(["ok", "ok", *["part"] * parts])
    with pytest.raises(Killed):
        exporter._push()
    killed(exporter)
    again = Scripted(config, arrived)
    again.open_spool()
    assert again.counts().recovered == 30 - 10 - parts  # of the chunk in delivery, what was put back at last
    again._push()
    assert sorted(set(arrived)) == list(range(30))
    twice = [number for number in set(arrived) if arrived.count(number) > 1]
    assert twice == list(range(10 + parts, 12 + parts))
    again.close(0)


def test_other_targets_get_nothing(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Points for one target are not sent to another: they wait, which is said, and go out when it is that one again."""
    config = Config(spool=str(tmp_path))
    for to, first, recovered in (("http://a:1/x", 0, 0), ("http://a:1/y", 10, 0), ("http://a:1/x", 20, 10)):
        exporter = Scripted(config, to=to)
        exporter.open_spool()
        told(exporter, range(first, first + 10))
        exporter.write_ahead()
        assert exporter.counts().recovered == recovered
        if first == 20:
            exporter._push()
            assert exporter.arrived == [*range(10), *range(20, 30)]
        exporter.close(0)
    assert (
        f"scripted: {tmp_path}/scripted/{folder_of('http://a:1/x')} holds points for another target (http://a:1/x)"
        in (caplog.text)
    )
    assert "http-a-1-x" in folder_of("http://a:1/x")
    assert folder_of("http://a:1/x") != folder_of("http://a:1-x")


def test_two_collectors_need_two_folders(tmp_path: pathlib.Path) -> None:
    """A second exporter for the same target and folder is refused, with what to try."""
    exporter = Scripted(Config(spool=str(tmp_path)))
    exporter.start()
    with pytest.raises(ExporterError, match=f"is used by another collector .process {os.getpid()}.: stop that one"):
        Scripted(Config(spool=str(tmp_path))).start()
    exporter.close(1)


def test_room_on_disk_is_bounded(tmp_path: pathlib.Path) -> None:
    """When the spool has its size, the oldest are given up and counted; what arrives later are the newest, in order."""
    exporter = Scripted(Config(spool=str(tmp_path), spool_size=1, push_buffer=1))
    exporter.LINES = 500  # type: ignore[misc]
    exporter.open_spool()
    for first in range(0, 30_000, 1000):
        told(exporter, range(first, first + 1000))
        exporter.write_ahead()
        counts = exporter.counts()
        assert sums_close(counts)
        assert counts.spool_bytes <= 1 << 20 and counts.buffered_bytes == 0
    lost = exporter.counts().lost["spool_full"]
    assert lost > 15_000
    exporter._push()
    assert exporter.arrived == list(range(lost, 30_000))
    exporter.close(0)


def test_oldest_point_s_age(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age shown is that of the oldest point kept, wherever it is, also over a restart; 0 when there is none."""
    now_s = 1000
    monkeypatch.setattr(time, "time_ns", lambda: now_s * 10**9)
    config = Config(spool=str(tmp_path))

    def age(exporter: Scripted) -> float:
        return exporter.counts().age_s

    exporter = Scripted(config)
    exporter.open_spool()
    assert age(exporter) == 0
    told(exporter, range(5))
    now_s = 1010
    assert age(exporter) == 10
    exporter.write_ahead()
    told(exporter, range(5, 10))
    assert age(exporter) == 10
    exporter.script.extend(["part", "refuse"])
    with pytest.raises(Refusal):
        exporter._push()
    exporter.write_ahead()
    assert age(exporter) == 10
    exporter.close(0)
    again = Scripted(config)
    again.open_spool()
    now_s = 1020
    assert age(again) == 20
    again.script.extend(["ok", "refuse"])
    with pytest.raises(Refusal):
        again._push()
    assert age(again) == 10
    again._push()
    assert age(again) == 0
    again.close(0)


@pytest.mark.parametrize("kind", [InfluxDB, JsonLines, Kafka])
def test_memory_is_counted(monkeypatch: pytest.MonkeyPatch, kind: type[InfluxDB | JsonLines | Kafka]) -> None:
    """What points that wait take of the memory is not more than is counted for them, however few came at a time."""
    monkeypatch.setattr(kind, "start", lambda self: None)
    exporter = kind(Config(influxdb="http://127.0.0.1:9", jsonl="/dev/null", kafka="127.0.0.1:9", kafka_topic="x"))
    for events, batches in ((1, 400), (20, 100)):
        exporter.write(batch_of(many(events)))
        told = [batch_of(many(events)) for _ in range(batches)]
        counted = exporter.counts().buffered_bytes
        tracemalloc.start()
        for batch in told:
            exporter.write(batch)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        held += sum(a.nbytes for b in told for a in (b.reports, b.hops, b.hop_report)) * (kind is not InfluxDB)
        assert held <= exporter.counts().buffered_bytes - counted <= 2.5 * held
    monkeypatch.setattr(exporter, "_limit", 1 << 17)
    exporter.write(batch_of(many(1)))
    counts = exporter.counts()
    assert counts.lost["buffer_full"] > 0
    assert counts.buffered_bytes == sum(item.size + kind.ITEM_SIZE for item, _ in exporter._items) <= 1 << 17
    exporter.ahead()
    left = sum(item.size + kind.ITEM_SIZE for item, _ in exporter._items)
    assert exporter.counts().buffered_bytes == left + sum(len(chunk.data) for chunk in exporter._chunks)
    exporter.close(0)
    assert sums_close(exporter.counts()) and exporter.counts().buffered_bytes == 0


def test_progress_ends_a_problem() -> None:
    """As soon as something is delivered again, the exporter is up and begins anew to wait for short, however much there
    is still to deliver; that a chunk was cut into parts is no progress, and what deliver() waits for now stays."""
    seen: list[tuple[bool, int]] = []

    class Looking(Scripted):
        def deliver(self, chunk: Chunk, timeout_s: float) -> None:
            seen.append((self.counts().up, self._refusals))
            super().deliver(chunk, timeout_s)

    exporter = Looking(Config())
    told(exporter, range(20))
    exporter.script.extend(["halves", "reject", "ok", "ok", "wait", "ok"])
    exporter._say(Refusal("away", "it is away"))
    exporter._refusals = 7
    exporter._push()
    assert seen == [(False, 7), (False, 7), (True, 0), (True, 0), (True, 0), (False, 0), (True, 0)]
    exporter.close(0)


# --- with their threads -----------------------------------------------------------------------------------------------


class Stuck(Scripted):
    """Its deliver() waits for the test."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tried, self.go_on = threading.Event(), threading.Event()

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        self.tried.set()
        assert self.go_on.wait(servers.DEADLINE_S)
        super().deliver(chunk, timeout_s)


@pytest.fixture
def started() -> Iterator[Callable[[Scripted], Scripted]]:
    """Start an exporter, which is closed at the end."""
    exporters: list[Scripted] = []

    def start(exporter: Scripted) -> Scripted:
        exporters.append(exporter)
        exporter.start()
        return exporter

    yield start
    for exporter in exporters:
        if isinstance(exporter, Stuck):
            exporter.go_on.set()
        exporter.close(10)
        assert sums_close(exporter.counts())


Started = Callable[[Scripted], Scripted]


@pytest.mark.parametrize("spooled", [False, True])
def test_one_that_hangs_holds_nobody(tmp_path: pathlib.Path, started: Started, spooled: bool) -> None:
    """An exporter whose deliver() never comes back holds neither write(), nor counts(), nor another exporter; with a
    spool, what is told meanwhile reaches the disk."""
    config = Config(push_interval=0.02, push_buffer=1, spool=str(tmp_path) if spooled else None)
    hangs = Stuck(config)
    started(hangs)
    other = started(Scripted(Config(push_interval=0.02)))
    told(hangs, range(5))
    assert hangs.tried.wait(servers.DEADLINE_S)
    for first in range(5, 10_005, 100):
        told(hangs, range(first, first + 100))
        told(other, range(first, first + 100))
        assert hangs.counts().buffered_bytes <= 1 << 20
    wait(lambda: other.counts().delivered == 10_000, "the other one delivers")
    assert (hangs.counts().accepted, hangs.counts().buffered) == (10_005, 10_005)
    if spooled:
        spool = hangs._spool
        assert spool is not None
        wait(lambda: spool.points == 10_005, "all is on disk")
        wait(lambda: hangs.counts().buffered_bytes == WIDTH * 5, "memory has what is at work only")
    assert other.arrived == list(range(5, 10_005))
    hangs.go_on.set()
    wait(lambda: hangs.counts().buffered == 0, "everything is delivered")
    assert hangs.arrived == list(range(10_005))


@pytest.mark.parametrize("answer", ["ok", "refuse"])
@pytest.mark.parametrize("spooled", [False, True])
def test_close_takes_its_time_and_says_what_is_left(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, spooled: bool, answer: str
) -> None:
    """Closing ends though deliver() does not; what is left is lost, or with a spool kept for the next start, and said;
    what a stuck deliver() does after that changes no count and is not told."""
    config = Config(push_interval=0.02, spool=str(tmp_path) if spooled else None)
    exporter = Stuck(config)
    exporter.script.append(answer)
    exporter.start()
    told(exporter, range(100))
    assert exporter.tried.wait(servers.DEADLINE_S)
    exporter.close(0.05)
    counts = dataclasses.replace(exporter.counts(), age_s=0)
    if spooled:
        assert (counts.accepted, counts.buffered, sum(counts.lost.values())) == (100, 100, 0)
        assert f"scripted: 100 points are kept in {tmp_path}/scripted/" in caplog.text
    else:
        assert (counts.accepted, counts.buffered, counts.lost["closed"]) == (100, 0, 100)
        assert "scripted: closed with 100 points not delivered" in caplog.text
    exporter.go_on.set()
    exporter._thread.join(servers.DEADLINE_S)
    assert dataclasses.replace(exporter.counts(), age_s=0) == counts
    exporter.close(0)
    assert dataclasses.replace(exporter.counts(), age_s=0) == counts
    assert "sent again" not in caplog.text
    if spooled:
        again = Scripted(config)
        again.start()
        again.close(10)
        assert again.arrived == list(range(100))
        assert again.counts().recovered == again.counts().delivered == 100


def test_all_are_closed_at_the_same_time() -> None:
    """Exporters are given their time together, not one after the other."""
    meeting = threading.Barrier(3)

    class Meeting(Scripted):
        def close(self, timeout_s: float) -> None:
            meeting.wait(servers.DEADLINE_S)
            super().close(timeout_s)

    exporters = [Meeting(Config()) for _ in range(3)]
    close_together(exporters, 1)
    assert not meeting.broken


def test_backs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that fail are further and further apart, by chance, up to a bound; what the other side asks for is waited
    for; a success begins anew."""
    waits: list[float] = []
    exporter = Scripted(Config(push_interval=1.0))
    answers = iter([*[("a", 0)] * 12, ("b", 120.0), ("c", 1e9), None, ("d", 0.0)])

    def deliver(chunk: Chunk, timeout_s: float) -> None:
        answer = next(answers, "end")
        if answer == "end":
            exporter._deadline = time.monotonic()
        if answer and answer != "end":
            raise Refusal(answer[0], "no", float(answer[1]))
        exporter.delivered(chunk.points)

    def wait_for(condition: Callable[[], bool], wait_s: float) -> bool:
        waits.append(wait_s)
        if not exporter._buffered:
            told(exporter, [1])
        return True

    monkeypatch.setattr(exporter, "deliver", deliver)
    monkeypatch.setattr(exporter._changed, "wait_for", wait_for)
    exporter._run()
    first, *backoff = waits[:13]
    assert first == 1.0
    for at, seconds in enumerate(backoff):
        assert 0.5 * min(2**at, 10) <= seconds <= min(2**at, 10)
    assert len(set(backoff)) == 12
    assert waits[13:17] == [120.0, 600.0, 1.0, waits[16]] and 0.5 <= waits[16] <= 1
    assert exporter.counts().failures == 15


def test_trouble_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A problem is said when it begins, when it becomes another, and when it is over, whether deliver() waits for it or
    gives up for it; while it lasts, the exporter is not up."""
    exporter = Scripted(Config())
    for kind in ("a", "a", "b", "b"):
        exporter.trouble(Refusal(kind, f"trouble {kind}"))
        assert exporter.problem() == f"scripted: trouble {kind}"
    assert not exporter.counts().up and exporter.counts().failures == 2
    exporter.trouble(None)
    exporter.trouble(None)
    assert exporter.counts().up
    assert [record.message for record in caplog.records] == [
        "scripted: trouble a; points are kept and sent again",
        "scripted: trouble b; points are kept and sent again",
        "scripted: works again",
    ]


def test_a_mistake_in_the_program_is_a_problem(tmp_path: pathlib.Path) -> None:
    """If a worker ends by an error that nobody expected, that is a problem, and the end still accounts for all."""

    class Wrong(Scripted):
        def spell(self, items: Sequence[Item]) -> bytes:
            raise ZeroDivisionError

    for config in (Config(push_interval=0.02), Config(push_interval=0.02, spool=str(tmp_path))):
        exporter = Wrong(config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "excepthook", lambda arguments: None)
            exporter.start()
            told(exporter, range(3))
            assert "its worker ended by a mistake" in (wait(exporter.problem, "the problem") or "")
            assert not exporter.counts().up
            exporter.close(1)
        assert exporter.counts().lost["closed"] == 3 and sums_close(exporter.counts())


# --- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 256 KiB."""
    with disk(tmp_path / "disk", 256) as folder:
        yield folder


def test_disk_of_the_spool_is_full(
    small_disk: pathlib.Path, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk is said once; what it does not take waits in memory, within the buffer's bound. When the target works
    again all that was not given up arrives, in order; when there is room the spool is used again."""
    exporter = Stuck(Config(push_interval=0.02, push_buffer=1, spool=str(small_disk)))
    started(exporter)
    for first in range(0, 20_000, 100):
        told(exporter, range(first, first + 100))
        assert exporter.counts().buffered_bytes <= 1 << 20
        if first == 1000:
            wait(lambda: exporter.counts().spool_bytes > 10 * WIDTH, "the spool is used")
    wait(lambda: exporter.counts().spool_failures > 1, "the disk is full")
    counts = exporter.counts()
    lost = counts.lost["buffer_full"]
    assert sums_close(counts) and lost > 5000 and counts.accepted == 20_000
    assert caplog.text.count("cannot be written to (No space left on device); points wait in memory") == 1
    exporter.go_on.set()
    wait(lambda: exporter.counts().buffered == 0, "everything that is left arrives")
    assert exporter.arrived == sorted(set(exporter.arrived)) and len(exporter.arrived) == 20_000 - lost
    assert exporter.arrived[-1] == 19_999
    told(exporter, range(20_000, 20_010))
    wait(lambda: "can be written to again" in caplog.text, "the spool works again")
    wait(lambda: exporter.counts().delivered == 20_010 - lost, "these, too")


def test_disk_that_fails_at_the_end(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk does not take any more at the end is delivered, though there was nothing to deliver before."""

    class Idle(Scripted):
        idle = threading.Event()

        def _push(self) -> int:
            chunks = super()._push()
            self.idle.set()
            return chunks

    exporter = Idle(Config(push_interval=60, spool=str(tmp_path)))
    exporter.start()

    def append(chunk: Chunk) -> None:
        assert exporter.idle.wait(servers.DEADLINE_S)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(exporter._spool, "append", append)
    told(exporter, range(10))
    exporter.close(5)
    assert exporter.arrived == list(range(10)) and sums_close(exporter.counts())
    assert exporter.counts().lost["closed"] == 0 and exporter.counts().spool_failures == 1


# --- kill -9 ----------------------------------------------------------------------------------------------------------

VICTIM = """
import sys
from intcollector.config import Config
from intcollector.exporters.influxdb import InfluxDB
from tests.batches import batch_of
from tests.pushing import NOW_NS, many

class Telling(InfluxDB):
    def write_ahead(self):
        super().write_ahead()
        if self._spool and not self.counts().buffered_bytes:
            print(self.counts().accepted - self.counts().recovered, flush=True)

url, spool, first = sys.argv[1:]
exporter = Telling(Config(influxdb=url, influxdb_database="killed", spool=spool, push_interval=0.01))
for at in range(10_000):
    exporter.write(batch_of(many(20, NOW_NS + int(first) + 1000 * at)))
"""


def test_kill_9(tmp_path: pathlib.Path) -> None:
    """After `kill -9` in mid-batch and a restart, InfluxDB holds everything that had been written ahead, and each point
    once, as if nothing had happened; a process that is killed while the server is away too."""
    with servers.influxdb(tmp_path / "influxdb") as server:
        spool = tmp_path / "spool"
        safe, runs = 0, 3
        for run in range(runs):
            if run == 1:
                server.stop()
            with subprocess.Popen(
                [sys.executable, "-c", VICTIM, server.url, str(spool), str(run * 10**9)], stdout=subprocess.PIPE,
                text=True, cwd=pathlib.Path(__file__).parent.parent,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                seen = 0
                for line in process.stdout:
                    seen = max(seen, int(line))
                    if seen > 300:
                        break
                process.send_signal(signal.SIGKILL)
                seen = max([seen, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
            assert process.wait() == -signal.SIGKILL
            safe += seen
            if run == 1:
                server.start()
        exporter = InfluxDB(Config(influxdb=server.url, influxdb_database="killed", spool=str(spool)))
        wait(lambda: exporter.counts().buffered == 0, "what was left is delivered")
        exporter.close(10)
        counts = exporter.counts()
        assert sums_close(counts) and counts.lost["spool_damaged"] <= counts.recovered - counts.delivered
        stored = [point for point in server.points("killed") if point["measurement"] == "int_flow"]
        times = sorted(point["time"] for point in stored)
        assert len(times) == len(set(times)) >= safe / 2  # a report has two points
        # Up to the kill nothing is missing: what is there of each run is its beginning.
        for run in range(runs):
            of_run = [t - NOW_NS - run * 10**9 for t in times if run * 10**9 <= t - NOW_NS < (run + 1) * 10**9]
            assert of_run == [1000 * (i // 20) + i % 20 for i in range(len(of_run))] != []
