"""What all exporters that send have in common: a bounded buffer, a worker, and a count of what was given up.

    write() --> items --> spell() --> chunks --------------------> deliver()     without a spool: one thread, `sender`
    write() --> items --> spell() --> spool on disk -------------> deliver()     with one: `writer` up to the disk,
                                                                                 `sender` from there on

Both ways at most one chunk is at work, and what comes first goes out first. While the disk takes nothing the second way
becomes the first.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from ..batch import Batch
from ..config import Config
from ..series import Counts
from .spool import Chunk, Spool, pieces, waiting

__all__ = ["Chunk", "Item", "Pusher", "Refusal"]

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 600.0
"""... that the other side may ask for."""


class Refusal(Exception):
    """What an exporter sends to does not take it, for now: keep and try again.

    kind: of the problem; the same one is said once. wait_s: what the other side asked for, 0 if nothing.
    """

    def __init__(self, kind: str, text: str, wait_s: float = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.wait_s = wait_s


@dataclasses.dataclass(frozen=True)
class Item:
    """Taken, and not yet spelled: at most Pusher.LINES points. what: as the exporter's take() and spell() agree.

    size: bytes of its arrays.
    """

    what: Any
    points: int
    size: int


class Pusher:
    """A bounded buffer and what empties it every push_interval. A subclass says take, spell and deliver.

    The buffer holds at most config.push_buffer MiB of memory; the oldest are given up first, but never what is at work,
    so that nothing is counted twice. With config.spool, what is spelled goes to disk before it is sent, at most
    config.spool_size MiB of it, and memory is only the way there; what the disk holds at the end is there at the next
    start. One lock for the buffer and the counts: at any moment accepted = delivered + lost + buffered.
    """

    name = ""
    reasons: tuple[str, ...] = ()
    """Why points may be lost, beside the buffer's own reasons."""

    LINES = 5000
    """Points that go out in one go, at most."""
    ITEM_SIZE = 3000
    """Bytes that an item takes beside its arrays. When little happens, a few events an item, that is most of it."""
    gives_up = True
    """Whether the bound is kept by giving up the oldest; not where who writes waits instead, as a relay does."""
    BACKOFF_S = 10.0
    """The longest wait between two tries; it doubles up to here."""

    def __init__(self, config: Config) -> None:
        """The subclass's constructor ends with start()."""
        self._config = config
        self._interval_s = config.push_interval
        self._limit = config.push_buffer << 20
        # The innermost lock: no other is taken while it is held.
        self._changed = threading.Condition()
        # In the order in which they go out; with a spool, its chunks stand between the first and the second.
        self._front: collections.deque[Chunk] = collections.deque()  # parts put back; with a spool, on disk as well
        self._chunks: collections.deque[Chunk] = collections.deque()  # spelled, in memory only
        self._items: collections.deque[tuple[Item, int]] = collections.deque()  # and when they were taken
        self._accepted = self._delivered = self._buffered = self._bytes = self._recovered = self._failures = 0
        spool_reasons = ("spool_full", "spool_damaged") if config.spool else ()
        self._lost = dict.fromkeys(("buffer_full", *spool_reasons, *self.reasons, "closed"), 0)
        self._work: Chunk | None = None
        self._work_handed = self._work_on_disk = False
        self._settled = 0  # points of what the disk still has, that were delivered or lost
        self._progress = 0  # points that deliver() accounted for
        self._refusals = 0  # since the last progress
        self._problem: Refusal | None = None
        self._deadline: float | None = None  # set by close()
        self._ended = False
        self._nudged = self._backing_off = False
        self._spool: Spool | None = None
        self._spelling = threading.Lock()  # from items to chunks is one thread's work at a time
        self._spool_problem: str | None = None
        self._spool_failures = 0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._writer = threading.Thread(target=self._run_writer, name=f"{self.name}-spool", daemon=True)

    def start(self) -> None:
        """Errors: ExporterError, when the spool's folder cannot be used."""
        self.open_spool()
        for thread in self._threads():
            thread.start()

    # what a subclass says

    def target(self) -> str | None:
        """What distinguishes where points go, without secrets: what is spooled for one target is not sent to another.
        None: nothing of this one is spooled. Asked with config.spool only."""
        raise NotImplementedError

    def take(self, batch: Batch) -> list[Item]:
        """What of a batch is to be sent; in the control loop's thread, so without Python loops over reports."""
        raise NotImplementedError

    def spell(self, items: Sequence[Item]) -> bytes:
        """The items' lines, one a point, each with its line feed; by one thread at a time."""
        raise NotImplementedError

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        """Send, and account for every line by delivered() and lost(), or put parts of the chunk back by again().

        Called by one thread. timeout_s: until close() gives up; inf before close(). What may take long says by
        trouble() what it waits for.

        Errors: Refusal, and nothing of the chunk is accounted for: it stays first in line.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Called by the thread that delivers whenever it wakes up."""

    # the control loop's side

    def write(self, batch: Batch) -> None:
        items = self.take(batch)
        if not items:
            return
        now_ns = time.time_ns()
        with self._changed:
            for item in items:
                self._accepted += item.points
                self._buffered += item.points
                self._bytes += item.size + self.ITEM_SIZE
                self._items.append((item, now_ns))
            if self._ended:
                self._give_up_memory()
            while self.gives_up and self._bytes > self._limit and self._give_up_oldest():
                pass
            if self._full():
                self._changed.notify_all()

    def apply(self, config: Config) -> None:
        self._config = config

    def close(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with self._changed:
            if self._deadline is None:
                self._deadline = end
            self._changed.notify_all()
        for thread in self._threads():
            if thread.ident is not None:
                thread.join(max(0.0, end + 1 - time.monotonic()))
        with self._changed:
            # From here on a worker that is stuck (a name server that does not answer, say) changes no count.
            first, self._ended = not self._ended, True
            lost, kept = self._give_up_memory(), self._buffered
            self._changed.notify_all()
        if lost:
            log.warning("%s: closed with %d points not delivered", self.name, lost)
        if self._spool:
            if kept and first:
                log.warning("%s: %d points are kept in %s for the next start", self.name, kept, self._spool.folder)
            self._spool.close()

    def counts(self) -> Counts:
        with self._changed:
            spool = self._spool
            return Counts(
                self._accepted,
                self._delivered,
                dict(self._lost),
                self._buffered,
                self._bytes,
                recovered=self._recovered,
                failures=self._failures,
                spool_bytes=spool.bytes if spool else 0,
                spool_failures=self._spool_failures,
                age_s=self._age_s(),
                up=self._problem is None and not self._died(),
            )

    def problem(self) -> str | None:
        with self._changed:
            if self._problem:
                return f"{self.name}: {self._problem}"
            if self._died():
                return f"{self.name}: its worker ended by a mistake in the program; nothing is delivered any more"
            return None

    def _died(self) -> bool:
        """With the lock held: whether a worker ended before its time."""
        return self._deadline is None and any(t.ident is not None and not t.is_alive() for t in self._threads())

    def nudge(self) -> None:
        """Wake the worker up before its time."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    # accounting; deliver() calls these

    def delivered(self, points: int) -> None:
        with self._changed:
            if not self._ended:
                self._delivered += points
                self._buffered -= points
                self._progress += points
                self._settled += points * self._work_on_disk

    def lost(self, points: int, reason: str) -> None:
        with self._changed:
            if not self._ended:
                self._lost[reason] += points
                self._buffered -= points
                self._progress += points
                self._settled += points * self._work_on_disk

    def again(self, *chunks: Chunk) -> None:
        """Put parts of the chunk at work back, first in line; deliver() gets them as they are here, or from disk."""
        with self._changed:
            taken_ns = self._work.taken_ns if self._work else 0
            parts = [part if part.taken_ns else dataclasses.replace(part, taken_ns=taken_ns) for part in chunks]
            if not self._ended:
                self._front.extendleft(reversed(parts))
                self._bytes += sum(len(part.data) for part in parts)

    def trouble(self, refusal: Refusal | None) -> None:
        """What deliver() is waiting for at the moment; None: for nothing any more. Said once when it begins, when it
        becomes another, and when it is over."""
        if self._say(refusal) and refusal:
            with self._changed:
                self._failures += 1

    def _lose(self, points: int, reason: str) -> None:
        """What the spool gave up."""
        with self._changed:
            if not self._ended:
                self._lost[reason] += points
                self._buffered -= points

    def _give_up_oldest(self) -> bool:
        """With the lock held: of what is in memory only; False if that is nothing."""
        if self._front and not self._spool:
            chunk = self._front.popleft()
            points, size = chunk.points, len(chunk.data)
        elif self._chunks:
            chunk = self._chunks.popleft()
            points, size = chunk.points, len(chunk.data)
        elif self._items:
            item, _ = self._items.popleft()
            points, size = item.points, item.size + self.ITEM_SIZE
        else:
            return False
        self._lost["buffer_full"] += points
        self._buffered -= points
        self._bytes -= size
        return True

    def _give_up_memory(self) -> int:
        """With the lock held, after the end: all that the disk does not have is lost, what is at work included. How
        many points that is."""
        self._items.clear()
        self._chunks.clear()
        self._front.clear()
        on_disk = self._spool.points + self._spool.rest_points - self._settled if self._spool else 0
        lost = max(0, self._buffered - on_disk)
        self._lost["closed"] += lost
        self._buffered -= lost
        self._bytes = 0
        return lost

    def _age_s(self) -> float:
        """With the lock held: since the oldest that is kept was taken; 0 if there is nothing."""
        firsts = (self._work, *(chunks[0] for chunks in (self._front, self._chunks) if chunks))
        oldest = [chunk.taken_ns for chunk in firsts if chunk]
        if self._items:
            oldest.append(self._items[0][1])
        if self._spool and self._spool.points:
            oldest.append(self._spool.oldest_ns)
        return max(0.0, (time.time_ns() - min(oldest)) / 1e9) if oldest and self._buffered else 0.0

    # the workers' side

    def _threads(self) -> list[threading.Thread]:
        return [self._writer, self._thread] if self._spool else [self._thread]

    def _full(self) -> bool:
        """So much that it does not wait for the interval's end. Not while there is a problem: then waiting is right,
        unless the points go to a disk that takes them."""
        if self._spools():
            return self._bytes > self._limit // 8 and len(self._items) > 0
        return self._bytes > self._limit // 8 and self._problem is None and self._spool_problem is None

    def _spools(self) -> bool:
        return self._spool is not None and self._spool_problem is None

    def _left_s(self) -> float:
        """Until close() gives up."""
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _run(self) -> None:
        wait_s = self._interval_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._deadline is not None or self._nudged or self._due(), wait_s)
                self._nudged = False
            self.wake()
            try:
                delivered = self._push()
                self._refusals, wait_s, self._backing_off = 0, self._interval_s, False
                if delivered and self._left_s() > 0:  # else it may be waiting still
                    self._say(None)
            except Refusal as refusal:
                wait_s = min(min(self._interval_s, 1.0) * 2 ** min(self._refusals, 16), self.BACKOFF_S)
                wait_s = max(wait_s * random.uniform(0.5, 1.0), min(refusal.wait_s, LONGEST_WAIT_S))
                self._refusals += 1
                self._backing_off = True
                with self._changed:
                    self._failures += not self._ended
                self._say(refusal)
            if self._deadline is not None:
                with self._changed:
                    if self._left_s() <= 0 or not self._buffered:
                        return
                    self._changed.wait_for(lambda: self._ended or self._due(), min(wait_s, self._left_s()))

    def _due(self) -> bool:
        """With the lock held: whether to send before the interval's end."""
        if self._backing_off:
            return False
        if self._spool and self._spools():
            return self._spool.points > 0 or len(self._front) > 0
        if self._deadline is not None:  # nobody else takes what is in memory any more
            return bool(self._front or self._chunks or self._items)
        return self._full()

    def _push(self) -> int:
        """Deliver everything there is, or up to close()'s end; how many chunks that were."""
        chunks = 0
        while (left := self._left_s()) > 0 and (chunk := self._next()):
            problem, progress = self._problem, self._progress
            try:
                self.deliver(chunk, left)
                chunks += 1
            except Refusal:
                self._refused(chunk)
                raise
            else:
                self._finished()
                if self._progress > progress:
                    self._went_on(problem)
            finally:
                with self._changed:
                    self._work = None
                self._release(len(chunk.data))
        return chunks

    def _went_on(self, problem: Refusal | None) -> None:
        """What was a problem before is none any more, however much is still to be delivered."""
        self._refusals = 0
        if self._problem is problem:  # and not one that deliver() just told
            self._say(None)

    def _next(self) -> Chunk | None:
        """What is delivered next. It counts as buffered until it is accounted for."""
        with self._changed:
            if self._front:
                self._work, self._work_handed = self._front.popleft(), False
                self._work_on_disk = self._spool is not None and (self._spool.rest_points > 0 or self._spool.at_work)
                return self._work
        if self._spool and (chunk := self._from_disk()):
            return chunk
        if self._spools():
            return None
        with self._spelling:
            # What the writer could get to the disk meanwhile is older.
            return self._from_disk() or self._from_memory()

    def _from_disk(self) -> Chunk | None:
        chunk = self._spool.first(self.LINES) if self._spool else None
        if chunk:
            with self._changed:
                self._work, self._work_handed, self._work_on_disk = chunk, True, True
                self._bytes += len(chunk.data) * (not self._ended)
        return chunk

    def _from_memory(self) -> Chunk | None:
        with self._changed:
            chunk = self._chunks.popleft() if self._chunks else None
        chunk = chunk or self._spelled()
        with self._changed:
            self._work, self._work_handed, self._work_on_disk = chunk, False, False
        return chunk

    def _refused(self, chunk: Chunk) -> None:
        """Nothing of the chunk at work is accounted for."""
        if self._spool and self._work_handed:
            self._spool.back()
        else:
            self.again(chunk)

    def _finished(self) -> None:
        """All of the chunk at work is accounted for, or put back."""
        if not self._spool:
            return
        try:
            self._spool.done(list(self._front))
        except OSError as error:
            # It comes again after a kill, though a part of it is delivered.
            with self._changed:
                self._spool_failures += not self._ended
            self._spool_says(error)
        else:
            with self._changed:
                self._settled = 0

    def ahead(self) -> None:
        """Spell what is delivered next, if it is not yet: deliver() may call this while the other side is at work, so
        that neither waits for the other."""
        if self._spool:  # there is a thread for it
            return
        with self._changed:
            if self._front or self._chunks:
                return
        chunk = self._spelled()
        if chunk:
            with self._changed:
                if not self._ended:
                    self._chunks.append(chunk)

    def _spelled(self) -> Chunk | None:
        """The oldest items that go out in one go."""
        with self._changed:
            items: list[Item] = []
            points, taken_ns = 0, self._items[0][1] if self._items else 0
            while self._items and points + self._items[0][0].points <= self.LINES:
                items.append(self._items.popleft()[0])
                points += items[-1].points
        if not items:
            return None
        data = self.spell(items)
        self._release(sum(item.size + self.ITEM_SIZE for item in items) - len(data))
        return Chunk(data, points, taken_ns)

    def _release(self, size: int) -> None:
        with self._changed:
            if not self._ended:
                self._bytes -= size

    def _say(self, refusal: Refusal | None) -> bool:
        """Tell a problem when it begins, when it becomes another, and when it is over; whether it was told. Nothing
        after the end: then nothing is kept."""
        with self._changed:
            if self._ended:
                return False
            before, self._problem = self._problem, refusal
        if refusal and (before is None or before.kind != refusal.kind):
            log.warning("%s: %s; points are kept and sent again", self.name, refusal)
            return True
        if before and not refusal:
            log.warning("%s: works again", self.name)
            return True
        return False

    # the spool's side

    def open_spool(self) -> None:
        """Take up what an earlier process left for this target. Errors: ExporterError."""
        if not self._config.spool:
            return
        target = self.target()
        if target is None:
            return
        parent = os.path.join(self._config.spool, self.name)
        spool = Spool(os.path.join(parent, folder_of(target)), target, self._config.spool_size << 20, self._lose)
        with self._changed:
            self._spool = spool
            kept = spool.points + spool.rest_points
            self._recovered = kept + spool.rest_damaged
            self._accepted += self._recovered
            self._buffered += kept
            self._lost["spool_damaged"] += spool.rest_damaged
            self._front.extend(spool.rest)
            self._bytes += sum(len(chunk.data) for chunk in spool.rest)
        if kept:
            log.info("%s: %d points of an earlier run are delivered first", self.name, kept)
        # Neither sent to this target nor forgotten silently.
        for folder, other in waiting(parent):
            if folder != spool.folder:
                log.warning(
                    "%s: %s holds points for another target (%s): start with that one again to deliver them, or remove "
                    "the folder",
                    self.name,
                    folder,
                    other,
                )

    def _run_writer(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._deadline is not None or self._full(), self._interval_s)
                closing = self._deadline is not None
            self.write_ahead()
            if closing:
                return

    def write_ahead(self) -> None:
        """Get everything that was taken to the disk. When it does not take more, the rest stays in memory."""
        with self._spelling:
            while self._spool and (chunk := self._oldest_in_memory()):
                parts = collections.deque(pieces(chunk, self._spool.segment_size))
                try:
                    while parts:
                        self._spool.append(parts[0])
                        self._release(len(parts.popleft().data))
                        with self._changed:
                            self._changed.notify_all()
                except OSError as error:
                    with self._changed:
                        if self._ended:  # and the spool is closed
                            return
                        self._chunks.extendleft(reversed(parts))
                        self._spool_failures += 1
                    self._spool_says(error)
                    return
                self._spool_says(None)

    def _oldest_in_memory(self) -> Chunk | None:
        with self._changed:
            if self._chunks:
                return self._chunks.popleft()
        return self._spelled()

    def _spool_says(self, error: OSError | None) -> None:
        """Tell when the disk begins to refuse, when it does for another reason, and when that is over."""
        with self._changed:
            before, self._spool_problem = self._spool_problem, error.strerror if error else None
            self._changed.notify_all()  # whose turn it is may be another's now
        folder = self._spool.folder if self._spool else ""
        if error and before != error.strerror:
            log.warning("%s: %s cannot be written to (%s); points wait in memory", self.name, folder, error.strerror)
        elif before and not error:
            log.warning("%s: %s can be written to again", self.name, folder)


def folder_of(target: str) -> str:
    """A name for people, and what tells it from others that look alike."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", target).strip("-.")[:60]
    return f"{words}-{hashlib.sha256(target.encode()).hexdigest()[:8]}"
