"""Records -> JSON, one event a line, to a file or to stdout."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import select
import stat
import sys
import threading
from collections.abc import Sequence

import numpy as np

from ..batch import Batch
from ..config import Config
from ..errors import ExporterError
from ..series import records
from . import Chunk, Item, Pusher

log = logging.getLogger(__name__)

STDOUT = "-"
PIPE_PIECE = 4096
"""Bytes that a pipe which can be written to takes without blocking (PIPE_BUF)."""


class JsonLines(Pusher):
    """Events as JSON lines to config.jsonl, appended to, flushed each push_interval and at the end.

    Nothing fails for a disk that is full or a reader that went away: the lines are counted (write_error), and what
    comes later is tried again. A reader that is only slow makes the buffer fill.

    Errors: ExporterError, when the file cannot be opened.
    """

    name = "jsonl"
    reasons = ("write_error",)
    LINES = 1000

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._path = config.jsonl or STDOUT
        try:
            self._file = self._open()
        except OSError as error:
            raise ExporterError(
                f"cannot write events to {self._path} ({errno.errorcode.get(error.errno or 0)}: {error.strerror}): "
                "give --jsonl a file in a folder that exists and may be written to, or - for stdout"
            ) from None
        self._torn = False  # the last thing written is half a line
        self._failure: str | None = None
        self._reopen = threading.Event()
        self.start()

    def _open(self) -> int:
        if self._path == STDOUT:
            return os.dup(sys.stdout.fileno())
        # O_NONBLOCK: a pipe without a reader is refused rather than waited for
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)

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

    def spell(self, items: Sequence[Item]) -> bytes:
        dumps = json.JSONEncoder(separators=(",", ":")).encode
        said = (record for item in items for record in records(item.what, self._config))
        return "".join([dumps(record) + "\n" for record in said]).encode()

    def wake(self) -> None:
        if not self._reopen.is_set():
            return
        self._reopen.clear()
        try:
            file = self._open()
        except OSError as error:
            log.warning("jsonl: cannot open %s again (%s), going on in the old file", self._path, error.strerror)
            return
        os.close(self._file)
        self._file, self._torn = file, False

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        self.wake()
        mend = b"\n" if self._torn else b""
        written, error = self._write(mend + chunk.data)
        lines = chunk.data[: max(0, written - len(mend))].count(b"\n")
        self.delivered(lines)
        if error:
            self.lost(chunk.points - lines, "write_error")
            self._mend(chunk.data[: max(0, written - len(mend))])
        self._tell(error)

    def _write(self, data: bytes) -> tuple[int, OSError | None]:
        """How much was written: less than all after an error, or when close() had no more time for a slow reader."""
        written = 0
        try:
            # A slow reader of a pipe must not hold the worker when it is time to close: small pieces, each asked for.
            piece = len(data) if stat.S_ISREG(os.fstat(self._file).st_mode) else PIPE_PIECE
            poll = select.poll()
            poll.register(self._file, select.POLLOUT)
            while written < len(data) and self._left_s() > 0:
                if poll.poll(100):
                    with contextlib.suppress(BlockingIOError):
                        written += os.write(self._file, data[written : written + piece])
        except OSError as error:
            return written, error
        return written, None

    def _mend(self, data: bytes) -> None:
        """No half line stays: it is cut off where that is possible, else a line feed will end it."""
        half = len(data) - (data.rfind(b"\n") + 1)
        if half and self._path != STDOUT and stat.S_ISREG(os.fstat(self._file).st_mode):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, os.fstat(self._file).st_size - half)
                half = 0
        self._torn = self._torn or half > 0

    def _tell(self, error: OSError | None) -> None:
        """A failure is said when it begins and when it is over."""
        before, self._failure = self._failure, error.strerror if error else None
        if error and not before:
            log.warning(
                "jsonl: cannot write to %s (%s); events are lost until it works again", self._path, self._failure
            )
        elif before and not error:
            log.warning("jsonl: %s can be written to again", self._path)

    def problem(self) -> str | None:
        if self._failure:
            return f"jsonl: cannot write to {self._path} ({self._failure})"
        return super().problem()

    def close(self, timeout_s: float) -> None:
        super().close(timeout_s)
        if not self._thread.is_alive() and self._file >= 0:
            os.close(self._file)
            self._file = -1
