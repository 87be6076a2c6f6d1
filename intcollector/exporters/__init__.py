"""How it is spelled: one file an exporter, one line each in EXPORTERS.

An exporter takes batches and never makes the control loop wait. One that sends, over a network or to a file, is a
Pusher: a buffer with a bound, a worker thread, and a count of everything it had to give up.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import logging
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..batch import Batch
from ..config import Config
from ..series import Column, Counts, texts

__all__ = [
    "EXPORTERS",
    "Chunk",
    "Counts",
    "Exporter",
    "Item",
    "LabelTexts",
    "Pusher",
    "Refusal",
    "exporter_class",
    "numbers",
    "seconds_and_ns",
    "woven",
]

log = logging.getLogger(__name__)


class Exporter(Protocol):
    """What the control loop knows of an exporter. Constructors raise ExporterError."""

    name: str

    def write(self, batch: Batch) -> None:
        """Take a batch; never blocks. The batch's arrays are the exporter's to keep: nobody writes to them again."""

    def apply(self, config: Config) -> None:
        """What is written next is written by this config: of sources, drop reasons, links. Options that say where to
        write to are as they were."""

    def close(self, timeout_s: float) -> None:
        """Deliver what can be delivered in that time, count the rest as lost, stop. Closing again does nothing."""

    def counts(self) -> Counts:
        """What became of the points so far."""

    def problem(self) -> str | None:
        """One sentence on why nothing is delivered at the moment, or None."""


EXPORTERS = {
    "prometheus": "Prometheus",
    "influxdb": "InfluxDB",
    "jsonl": "JsonLines",
}
"""Name (of the module here, and in metrics and logs) -> class."""


def exporter_class(name: str) -> Any:
    """Imported when asked for: nobody pays for a library of an exporter that is off."""
    return getattr(importlib.import_module(f".{name}", __name__), EXPORTERS[name])


# --- spelling many lines at once --------------------------------------------------------------------------------------


class LabelTexts:
    """The text of labels, remembered: what has the same labels as before is looked up and not spelled.

    spell: (names, values of each thing) -> a text each. limit: when there are more, all but those asked for last are
    forgotten.
    """

    def __init__(self, spell: Callable[[Sequence[str], Iterable[tuple[str, ...]]], Iterable[str]], limit: int) -> None:
        self._spell = spell
        self._limit = limit
        self._known: dict[tuple[str, ...], dict[Hashable, str]] = {}
        self._last: tuple[Mapping[str, Column], np.ndarray] = ({}, np.empty(0, object))

    def __len__(self) -> int:
        return sum(map(len, self._known.values()))

    def of(self, columns: Mapping[str, Column]) -> np.ndarray:
        """object (n,) of str. A Python loop over what is new. The very columns that were asked for last (all points of
        a flow have them in common) are not looked at again."""
        if columns is self._last[0]:
            return self._last[1]
        names = tuple(columns)
        keys = _keys(list(columns.values()))
        known = self._known.setdefault(names, {})
        out: list[Any] = list(map(known.get, keys))
        if None in out:
            new = [row for row, text in enumerate(out) if text is None]
            values = zip(*(texts(column[new]) for column in columns.values()), strict=True)
            for row, text in zip(new, self._spell(names, values), strict=True):
                out[row] = known[keys[row]] = text
        if len(known) > self._limit:
            self._known[names] = dict(zip(keys, out, strict=True))
        made = np.empty(len(out), object)
        made[:] = out
        self._last = columns, made
        return made


def _keys(columns: Sequence[Column]) -> Sequence[Hashable]:
    """What tells a row from others."""
    if len(columns) == 1:
        return columns[0].tolist()
    if any(column.dtype.kind == "O" for column in columns):
        return list(zip(*(column.tolist() for column in columns), strict=True))
    packed = np.empty(len(columns[0]), [("", column.dtype) for column in columns])
    for name, column in zip(packed.dtype.names or (), columns, strict=True):
        packed[name] = column
    return packed.view(f"V{packed.dtype.itemsize}").tolist()


WOVEN_ROWS = 4000
"""Pieces of so many rows stay in the processor's cache, and in memory that is there already."""


def woven(count: int, *columns: str | Sequence[str]) -> list[bytes]:
    """So many rows of texts: each column's first, each column's second ... A str stands in every row. UTF-8, in pieces.

    Joined as str: bytes.join() takes 80 bytes of memory a text, and several times as long.
    """
    pieces = []
    for first in range(0, count, WOVEN_ROWS):
        rows = min(count - first, WOVEN_ROWS)
        row_by_row = [""] * (rows * len(columns))
        for at, column in enumerate(columns):
            texts_of = [column] * rows if isinstance(column, str) else column[first : first + rows]
            row_by_row[at :: len(columns)] = texts_of
        pieces.append("".join(row_by_row).encode())
    return pieces


DECIMALS = 9
"""Latencies are whole ns."""
SCIENTIFIC_BELOW = 10 ** (DECIMALS - 4)
"""repr() writes 0.0001, and what is less as 9e-05."""
POWERS = 10 ** np.arange(DECIMALS, dtype=np.uint32)
THREE_DIGITS = (np.arange(1000, dtype=np.uint32)[:, None] // np.array([100, 10, 1], np.uint32)) % 10 + ord("0")
"""Characters of 000 to 999."""


def numbers(column: Column) -> list[str]:
    """int64 or float64 (n,) as repr() has them: the fewest digits that read back the same.

    To find these is most of the time that a line takes. A number of at most DECIMALS decimals below 1 is known to have
    no others: fewer than 16 digits read back the same, and only these do. Those are written digit by digit, all
    numbers at once.
    """
    if column.dtype.kind != "f":
        return _written(column)
    units = np.rint(np.where((column > 0) & (column < 1), column, 0) * 10.0**DECIMALS)
    short = (units > 0) & (units < 10**DECIMALS) & (units / 10.0**DECIMALS == column)
    out = np.empty(len(column), object)
    for rows, write in (
        (short & (units >= SCIENTIFIC_BELOW), _decimal),
        (short & (units < SCIENTIFIC_BELOW), _scientific),
    ):
        out[rows] = write(units[rows].astype(np.uint32))
    out[~short] = _written(column[~short])
    return out.tolist()


def seconds_and_ns(times_ns: np.ndarray) -> tuple[str, list[str]]:
    """int64 (n,), n > 0, as text: the second that all are in, and nine digits each; if they are in several, "", and the
    whole of each."""
    second = int(times_ns[0]) // 10**DECIMALS
    ns = times_ns - second * 10**DECIMALS
    if second < 1 or ns.min() < 0 or ns.max() >= 10**DECIMALS:
        return "", numbers(times_ns)
    return str(second), _text(_digits(ns.astype(np.uint32))).tolist()


def _written(column: Column) -> list[str]:
    return repr(column.tolist())[1:-1].split(", ") if len(column) else []


def _digits(whole: np.ndarray) -> np.ndarray:
    """Characters, u32 (n, DECIMALS), of u32 (n,) below 10**DECIMALS: three at a time."""
    threes = np.column_stack((whole // 10**6, whole // 1000 % 1000, whole % 1000))
    return THREE_DIGITS[threes].reshape(-1, DECIMALS)


def _significant(whole: np.ndarray) -> np.ndarray:
    """The same of whole > 0, with NULs for zeros at the end."""
    out = _digits(whole)
    rows, power = np.flatnonzero(whole % 10 == 0), 1
    while len(rows):
        out[rows, -power] = 0
        power += 1
        rows = rows[whole[rows] % 10**power == 0]
    return out


def _text(characters: np.ndarray) -> np.ndarray:
    """u32 (n, k) -> str (n,), without NULs at the end."""
    return characters.view(f"U{characters.shape[1]}")[:, 0]


def _decimal(units: np.ndarray) -> np.ndarray:
    """`0.00012`, str (n,)."""
    out = np.empty((len(units), 2 + DECIMALS), np.uint32)
    out[:, :2] = ord("0"), ord(".")
    out[:, 2:] = _significant(units)
    return _text(out)


def _scientific(units: np.ndarray) -> np.ndarray:
    """`1.2e-05`, str (n,)."""
    power = np.searchsorted(POWERS, units, side="right") - 1
    digits = _significant(units * POWERS[DECIMALS - 1 - power])
    out = np.empty((len(units), 1 + DECIMALS), np.uint32)
    out[:, 0], out[:, 2:] = digits[:, 0], digits[:, 1:]
    out[:, 1] = np.where(digits[:, 1] != 0, ord("."), 0)
    exponents = np.array([f"e-{DECIMALS - at:02}" for at in range(DECIMALS)])
    return np.char.add(_text(out), exponents[power])


# --- exporters that send ----------------------------------------------------------------------------------------------


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
    """Taken, and not yet spelled: at most Pusher.LINES points. what: as the exporter's take() and spell() agree."""

    what: Any
    points: int
    size: int


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Spelled: what goes out in one go, a line a point. Its times are fixed: a second try writes the same points."""

    data: bytes
    points: int


class Pusher:
    """A bounded buffer and the thread that empties it every push_interval. A subclass says take, spell and deliver.

    The buffer holds at most config.push_buffer MiB; the oldest are given up first, but never what is at work, so that
    nothing is counted twice. One lock for the buffer and the counts: at any moment accepted = delivered + lost +
    buffered.
    """

    name = ""
    reasons: tuple[str, ...] = ()
    """Why points may be lost, beside the buffer's own reasons."""

    LINES = 5000
    """Points that go out in one go, at most."""
    BACKOFF_S = 10.0
    """The longest wait between two tries; it doubles up to here."""

    def __init__(self, config: Config) -> None:
        """The subclass's constructor ends with start()."""
        self._config = config
        self._interval_s = config.push_interval
        self._limit = config.push_buffer << 20
        self._changed = threading.Condition()
        self._items: collections.deque[Item] = collections.deque()
        self._chunks: collections.deque[Chunk] = collections.deque()  # older than all items
        self._accepted = self._delivered = self._buffered = self._bytes = 0
        self._lost = dict.fromkeys(("buffer_full", *self.reasons, "closed"), 0)
        self._problem: Refusal | None = None
        self._deadline: float | None = None  # set by close()
        self._ended = False
        self._nudged = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    # what a subclass says

    def take(self, batch: Batch) -> list[Item]:
        """What of a batch is to be sent; in the control loop's thread, so without Python loops over reports."""
        raise NotImplementedError

    def spell(self, items: Sequence[Item]) -> bytes:
        """The items' lines, one a point, each with its line feed; in the worker's thread."""
        raise NotImplementedError

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        """Send, and account for every line by delivered() and lost(), or put parts of the chunk back by again().

        Errors: Refusal, and nothing of the chunk is accounted for: it stays first in line.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Called by the worker whenever it wakes up."""

    # the control loop's side

    def write(self, batch: Batch) -> None:
        items = self.take(batch)
        if not items:
            return
        with self._changed:
            for item in items:
                self._accepted += item.points
                self._buffered += item.points
                self._bytes += item.size
                self._items.append(item)
            if self._ended:
                self._give_up_all()
            while self._bytes > self._limit and (self._chunks or self._items):
                self._give_up_oldest()
            if self._full():
                self._changed.notify_all()

    def apply(self, config: Config) -> None:
        self._config = config

    def close(self, timeout_s: float) -> None:
        with self._changed:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join(timeout_s + 1)
        with self._changed:
            # From here on a worker that is stuck (a name server that does not answer, say) changes no count.
            if self._buffered:
                log.warning("%s: closed with %d points not delivered", self.name, self._buffered)
            self._ended = True
            self._give_up_all()
            self._changed.notify_all()

    def counts(self) -> Counts:
        with self._changed:
            return Counts(self._accepted, self._delivered, dict(self._lost), self._buffered, self._bytes)

    def problem(self) -> str | None:
        with self._changed:
            if self._problem:
                return f"{self.name}: {self._problem}"
            if self._deadline is None and not self._thread.is_alive():
                return f"{self.name}: its worker ended by a mistake in the program; nothing is delivered any more"
            return None

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

    def lost(self, points: int, reason: str) -> None:
        with self._changed:
            if not self._ended:
                self._lost[reason] += points
                self._buffered -= points

    def again(self, *chunks: Chunk) -> None:
        """Put parts of the chunk at work back, first in line."""
        with self._changed:
            if not self._ended:
                self._chunks.extendleft(reversed(chunks))
                self._bytes += sum(len(chunk.data) for chunk in chunks)

    def _give_up_oldest(self) -> None:
        """With the lock held."""
        if self._chunks:
            chunk = self._chunks.popleft()
            points, size = chunk.points, len(chunk.data)
        else:
            item = self._items.popleft()
            points, size = item.points, item.size
        self._lost["buffer_full"] += points
        self._buffered -= points
        self._bytes -= size

    def _give_up_all(self) -> None:
        """With the lock held, after the worker's end: everything buffered is lost, what is at work included."""
        self._items.clear()
        self._chunks.clear()
        self._lost["closed"] += self._buffered
        self._buffered = self._bytes = 0

    # the worker's side

    def _full(self) -> bool:
        """So much that it does not wait for the interval's end. Not while there is a problem: then waiting is right."""
        return self._bytes > self._limit // 8 and self._problem is None

    def _left_s(self) -> float:
        """Until close() gives up."""
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _run(self) -> None:
        failures, wait_s = 0, self._interval_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._deadline is not None or self._nudged or self._full(), wait_s)
                self._nudged = False
            self.wake()
            try:
                delivered = self._push()
                failures, wait_s = 0, self._interval_s
                if delivered:
                    self._say(None)
            except Refusal as refusal:
                wait_s = min(min(self._interval_s, 1.0) * 2 ** min(failures, 16), self.BACKOFF_S)
                wait_s = max(wait_s * random.uniform(0.5, 1.0), min(refusal.wait_s, 60.0))
                failures += 1
                self._say(refusal)
            if self._deadline is not None:
                with self._changed:
                    if self._left_s() <= 0 or not self._buffered:
                        return
                    self._changed.wait_for(lambda: self._ended, min(wait_s, self._left_s()))

    def _push(self) -> int:
        """Deliver everything there is, or up to close()'s end; how many chunks that were."""
        chunks = 0
        while (left := self._left_s()) > 0 and (chunk := self._next()):
            try:
                self.deliver(chunk, left)
                chunks += 1
            except Refusal:
                self.again(chunk)
                raise
            finally:
                self._release(len(chunk.data))
        return chunks

    def _next(self) -> Chunk | None:
        """What is delivered next. It counts as buffered until released."""
        with self._changed:
            if self._chunks:
                return self._chunks.popleft()
        return self._spelled()

    def ahead(self) -> None:
        """Spell what is delivered next, if it is not yet: deliver() may call this while the other side is at work, so
        that neither waits for the other."""
        with self._changed:
            if self._chunks:
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
            points = 0
            while self._items and points + self._items[0].points <= self.LINES:
                items.append(self._items.popleft())
                points += items[-1].points
        if not items:
            return None
        data = self.spell(items)
        self._release(sum(item.size for item in items) - len(data))
        return Chunk(data, points)

    def _release(self, size: int) -> None:
        with self._changed:
            if not self._ended:
                self._bytes -= size

    def _say(self, refusal: Refusal | None) -> None:
        """Tell a problem when it begins, when it becomes another, and when it is over."""
        with self._changed:
            before, self._problem = self._problem, refusal
        if refusal and (before is None or before.kind != refusal.kind):
            log.warning("%s: %s; points are kept and sent again", self.name, refusal)
        elif before and not refusal:
            log.warning("%s: works again", self.name)
