"""Records -> JSON, one event a line, to a file or to stdout."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from ..batch import Batch
from ..config import Config
from ..errors import ExporterError, UsageError
from .delivery import Chunk, Item, Pusher, Refusal
from .events_text import EventTexts

log = logging.getLogger(__name__)

STDOUT = "-"
PIPE_PIECE = 4096
"""Bytes that a pipe which can be written to takes without blocking (PIPE_BUF)."""
SLOW_S = 3.0
"""A reader who takes nothing for so long is a problem."""


class JsonLines(Pusher):
    """Events as JSON lines to config.jsonl, appended to, flushed each push_interval and at the end.

    A disk that is full or a reader that went away is tried again; what waits for that is bounded by the buffer, as is
    what waits for a reader that is slow. A file never has half a line, and one that a kill or a power cut left is ended
    by a line feed. Once it has config.jsonl_size MiB it becomes
    PATH.1, what was PATH.1 becomes PATH.2, and so on up to config.jsonl_files of them.

    Errors: ExporterError, when the file cannot be opened; UsageError, when it is no file and is to have a size.
    """

    name = "jsonl"
    LINES = 1000
    ITEM_SIZE = 1500

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._path = config.jsonl or STDOUT
        self._most = config.jsonl_size << 20
        self._texts = EventTexts()
        try:
            self._file = self._open()
        except OSError as error:
            raise ExporterError(
                f"cannot write events to {self._path} ({errno.errorcode.get(error.errno or 0)}: {error.strerror}): "
                "give --jsonl a file in a folder that exists and may be written to, or - for stdout"
            ) from None
        if self._most and not self._is_regular():
            os.close(self._file)
            raise UsageError(
                f"--jsonl-size: {'stdout' if self._path == STDOUT else self._path} is no file that could be moved: "
                "give --jsonl the path of one, or leave --jsonl-size out"
            )
        self._torn = _half_line(self._file)  # the last thing written is one
        self._said = ""  # why files cannot be moved
        self._reopen = threading.Event()
        try:
            self.start()
        except ExporterError:
            os.close(self._file)
            raise

    def target(self) -> str | None:
        """The next reader of stdout is not the one who was to read these."""
        return None if self._path == STDOUT else os.path.abspath(self._path)

    def _open(self) -> int:
        if self._path == STDOUT:
            return os.dup(sys.stdout.fileno())
        # O_NONBLOCK: a pipe without a reader is refused rather than waited for
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)

    def _is_regular(self) -> bool:
        return self._path != STDOUT and stat.S_ISREG(os.fstat(self._file).st_mode)

    def reopen(self) -> None:
        """Go on in a new file of that name: the old one was moved away. Soon, by the worker; lines stay whole."""
        self._reopen.set()
        self.nudge()

    def take(self, batch: Batch) -> list[Item]:
        starts = range(0, len(batch), self.LINES)
        ends = np.searchsorted(batch.hop_report, [*starts, len(batch)])
        return [self._item(batch, first, *ends[i : i + 2].tolist()) for i, first in enumerate(starts)]

    def _item(self, batch: Batch, first: int, hop: int, hop_end: int) -> Item:
        part = Batch(
            batch.reports[first : first + self.LINES],
            batch.hops[hop:hop_end],
            batch.hop_report[hop:hop_end] - first,
            batch.hop_index[hop:hop_end],
            batch.clock_ns,
        )
        size = sum(a.nbytes for a in (part.reports, part.hops, part.hop_report, part.hop_index))
        return Item(part, len(part), size)

    def apply(self, config: Config) -> None:
        super().apply(config)
        self._texts = EventTexts()

    def spell(self, items: Sequence[Item]) -> bytes:
        lines: list[str] = []
        for item in items:
            times = item.what.reports["received_ns"].astype(np.int64) + item.what.clock_ns
            lines += self._texts.of(item.what, self._config, times.tolist())[1]
        return "".join([f"{line}\n" for line in lines]).encode()

    def wake(self) -> None:
        if not self._reopen.is_set():
            return
        self._reopen.clear()
        try:
            self._go_on_in(self._open())
        except OSError as error:
            log.warning("jsonl: cannot open %s again (%s), going on in the old file", self._path, error.strerror)

    def _go_on_in(self, file: int) -> None:
        os.close(self._file)
        self._file, self._torn = file, _half_line(file)

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        self.wake()
        left, error = chunk.data, None
        while left and not error and self._left_s() > 0:
            piece = left[: self._room(left)]
            mend = b"\n" if self._torn else b""
            written, error = self._write(mend + piece)
            whole = piece.rfind(b"\n", 0, max(0, written - len(mend))) + 1
            self._torn = self._torn and not written
            self._cut(written - len(mend) - whole)
            left = left[whole:]
        points = left.count(b"\n")
        nobody = error is not None and error.errno == errno.EPIPE and self._path == STDOUT
        if error and points == chunk.points and not (nobody and self._deadline is not None):
            raise Refusal(error.strerror or "", f"cannot write to {self._path} ({error.strerror})")
        self.delivered(chunk.points - points)
        if nobody and self._deadline is not None:  # nor will anybody ever read it
            self.lost(points, "closed")
        elif points:
            self.again(Chunk(left, points))

    def _write(self, data: bytes) -> tuple[int, OSError | None]:
        """How much was written: less than all after an error, or when close() had no more time for a slow reader."""
        written, moved_s, slow = 0, time.monotonic(), False
        try:
            # A slow reader of a pipe must not hold the worker when it is time to close: small pieces, each asked for,
            # and of whole lines, so that the last one is no half.
            most = len(data) if stat.S_ISREG(os.fstat(self._file).st_mode) else PIPE_PIECE
            poll = select.poll()
            poll.register(self._file, select.POLLOUT)
            while written < len(data) and self._left_s() > 0:
                if poll.poll(100):
                    end = data.rfind(b"\n", written, written + most) + 1 or written + most
                    with contextlib.suppress(BlockingIOError):
                        written += os.write(self._file, data[written:end])
                        moved_s = time.monotonic()
                if slow != (time.monotonic() - moved_s > SLOW_S):
                    slow = not slow
                    self.trouble(Refusal("slow", f"nobody reads from {self._path}") if slow else None)
        except OSError as error:
            return written, error
        return written, None

    def _cut(self, half: int) -> None:
        """No half line stays: so many bytes of one are cut off where that is possible, else a line feed will end it."""
        if half > 0 and self._is_regular():
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, os.fstat(self._file).st_size - half)
                half = 0
        self._torn = self._torn or half > 0

    # --- files that are full ------------------------------------------------------------------------------------------

    def _room(self, data: bytes) -> int:
        """How much of the lines goes into the file that is open then: whole lines, one at least."""
        if not self._most:
            return len(data)
        left = self._most - os.fstat(self._file).st_size
        if left < data.index(b"\n") + 1 and left < self._most and self._moved():
            left = self._most - os.fstat(self._file).st_size
        if self._said:  # better too large a file than no line
            return len(data)
        return data.rfind(b"\n", 0, max(left, 0)) + 1 or data.index(b"\n") + 1

    def _moved(self) -> bool:
        """Move the files on by one, and begin a new one. If that cannot be, it goes on in the old one."""
        try:
            if self._is_ours(self._path):
                free = 1
                while free < self._config.jsonl_files and os.path.lexists(f"{self._path}.{free}"):
                    free += 1
                for number in range(free, 1, -1):
                    os.replace(f"{self._path}.{number - 1}", f"{self._path}.{number}")
                os.replace(self._path, f"{self._path}.1")
            self._go_on_in(self._open())
        except OSError as error:
            if self._said != error.strerror:
                log.warning("jsonl: %s cannot be moved (%s), and grows on", self._path, error.strerror)
            self._said = error.strerror or "?"
            return False
        if self._said:
            log.warning("jsonl: %s can be moved again", self._path)
        self._said = ""
        return True

    def _is_ours(self, path: str) -> bool:
        """The file that is open; somebody else may have moved it, or it was before the new one could be opened."""
        try:
            named, opened = os.stat(path), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)

    def close(self, timeout_s: float) -> None:
        super().close(timeout_s)
        if not self._thread.is_alive() and self._file >= 0:
            os.close(self._file)
            self._file = -1


def _half_line(file: int) -> bool:
    """Whether a file ends in one, as a kill or a power cut may leave it."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        reading = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not for us to read
        return False
    try:
        return os.pread(reading, 1, status.st_size - 1) != b"\n"
    finally:
        os.close(reading)
