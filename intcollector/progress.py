"""A bar on stderr for work that takes long: how much is done, how fast, how long it will still take.

Only where somebody looks: stderr is the terminal that the command was started from, in the foreground. Anywhere else
not one byte is written, and rich is not imported.
"""

from __future__ import annotations

import collections
import datetime
import math
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from . import spelled

if TYPE_CHECKING:
    from rich.progress import Progress as Drawn

PATIENCE_S = 0.5
"""What is over by then needs no bar."""
EVERY_S = 0.5
"""A bar is drawn so often: it takes the work's own time, about a millisecond."""
_OVER = 20
"""The rate is that of so many drawings."""
_WHOLE = 1000
_LONGEST_S = 1e9


def of_count(total: int | None, seconds: float | None = None) -> Callable[[int], float | None]:
    """The share of work that ends after so many, or so many seconds after this call, whichever comes first."""
    began = time.monotonic()

    def share(done: int) -> float | None:
        shares = [done / total] if total else []
        if seconds:
            shares.append((time.monotonic() - began) / seconds)
        return min(1.0, max(shares)) if shares else None

    return share


class Progress:
    """A context manager. Within, it is called with how much is done, as often as that is cheap to say: the first call
    begins the time.

    what: "sending". unit: "packets". share: of how much is done, the share of all of it, 0 to 1; None: not known.
    results: what the work prints goes to stdout meanwhile, so a bar is drawn only if that is not a terminal, too.
    """

    def __init__(self, what: str, unit: str, share: Callable[[int], float | None], *, results: bool = False) -> None:
        self._what, self._unit, self._share = what, unit, share
        self._next = float("inf")
        self._points: collections.deque[tuple[float, int, float | None]] = collections.deque(maxlen=_OVER)
        self._drawn: Drawn | None = None
        if _terminal(sys.stderr) and not (results and _terminal(sys.stdout)):
            self._next = 0.0

    def __call__(self, done: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if now < self._next:
            return
        if not self._points:
            self._next = now + PATIENCE_S
        else:
            self._draw(now, done)
            self._next = time.monotonic() + EVERY_S
        self._points.append((now, done, self._share(done)))

    def _draw(self, now: float, done: int) -> None:
        if not _in_foreground(sys.stderr.fileno()):
            return
        share = self._share(done)
        at, before, share_before = self._points[0]
        left = ""
        if share is not None and share_before is not None and share > share_before:
            seconds = min(_LONGEST_S, (1 - share) / (share - share_before) * (now - at))
            left = f"  {datetime.timedelta(seconds=math.ceil(seconds))} left"
        said = f"{spelled.count(done)} {self._unit}  {spelled.rate((done - before) / (now - at))}/s{left}"
        shown = int((share or 0.0) * _WHOLE)
        if not self._drawn:
            self._drawn = _bar()
            self._drawn.add_task(self._what, total=None if share is None else _WHOLE, completed=shown, said=said)
            self._drawn.start()
        else:
            self._drawn.update(self._drawn.task_ids[0], completed=shown, said=said)
            self._drawn.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The bar is gone, and with it its line."""
        if self._drawn and _in_foreground(sys.stderr.fileno()):
            self._drawn.stop()
        self._next = float("inf")


def _bar() -> Drawn:
    """Without a thread of its own, and without a name on stdout or stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    class Terminal(Console):
        def show_cursor(self, show: bool = True) -> bool:
            """The cursor stays: a command that is killed could not bring it back."""
            return False

    return Progress(
        TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn(), TextColumn("{task.fields[said]}"),
        console=Terminal(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip


def _terminal(file: object) -> bool:
    """Is it one that can draw?"""
    isatty = getattr(file, "isatty", None)
    return bool(isatty and isatty()) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _in_foreground(descriptor: int) -> bool:
    """A job in the background, or one that left the terminal, does not write over what others show there."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
