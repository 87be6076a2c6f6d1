"""Times that tell points apart: two of one series at one time would be one point, the later one's.

So a point whose time is taken gets the next free nanosecond; among the last points at least, as many as GENERATION or
GENERATION_TOLD_AGAIN says. Times are fixed before the first try: a second try writes the same points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GENERATION = 200_000
GENERATION_TOLD_AGAIN = 20_000
"""Fewer where points may be told again, since each takes some 250 bytes there. One that is forgotten is given the time
that it asks for: only if it had been moved, and comes again without what it was moved for, is it another."""


class Times:
    """Which nanoseconds of a measurement's series are taken: of the last generation's points or more, at most twice as
    many and those of two calls.

    A series and a time are kept as the sum of the series' hash and the time: two that agree cost a nanosecond. So the
    next nanosecond of a series is the next number. What is later than all before is only noted (as an array), and not
    entered into a table before somebody has to look.
    """

    def __init__(self, *, told_again: bool) -> None:
        """told_again: the same series, fields and time are the same point (the report's own times: a flow that is kept
        alive by equal reports); otherwise they are two (times of arrival)."""
        self._told_again = told_again
        self._generation = GENERATION_TOLD_AGAIN if told_again else GENERATION
        self._latest = -(1 << 63)
        self._recent: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._noted: list[np.ndarray] = []  # of recent
        self._noted_older: list[np.ndarray] = []
        self._points = 0  # in recent

    def free(self, series: np.ndarray, times_ns: np.ndarray, fields: Sequence[str]) -> np.ndarray:
        """Each point's time or the next free one, which is then taken; with told_again, what this very point was given
        before. series: hashes, int64 (n,). times_ns: int64 (n,), n > 0."""
        if self._points >= self._generation:
            self._older, self._recent, self._points = self._recent, {}, 0
            self._noted_older, self._noted = self._noted, []
        self._points += len(times_ns)
        moments = series + times_ns
        if not self._told_again and times_ns.min() > self._latest and np.diff(np.sort(moments)).all():
            self._noted.append(moments)
            free_ns = times_ns
        else:
            self._enter()
            asked = moments.tolist()
            free_ns = times_ns + np.array([self._free(*one) for one in zip(asked, fields, strict=True)]) - moments
        self._latest = max(self._latest, int(free_ns.max()))
        return free_ns

    def _enter(self) -> None:
        for table, noted in ((self._recent, self._noted), (self._older, self._noted_older)):
            for moments in noted:
                table.update(zip(moments.tolist(), (moments + 1).tolist(), strict=True))
            noted.clear()

    def _free(self, moment: int, fields: str) -> int:
        """The moment that a point is given which asks for this one."""
        recent, older = self._recent, self._older
        point = hash((moment, fields))
        if self._told_again and (known := recent.get(point, older.get(point))) is not None:
            return known
        free = moment
        # Each taken time knows the end of the run it was in, so the loop steps over runs, not over nanoseconds.
        while (after := recent.get(free, older.get(free))) is not None:
            free = after
        recent[moment] = recent[free] = free + 1
        if self._told_again:
            recent[point] = free
        return free
