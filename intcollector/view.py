"""A few lines of text on what a collector holds: what the lab demo shows, out of the page's picture."""

from __future__ import annotations

import time
from collections.abc import Callable

from .batch import State
from .config import Config
from .picture import Around, Picture, Pictures, path_text

SLOWEST = 5


class View:
    """Compares each look at the maps with the one before. state: reads them."""

    def __init__(self, state: Callable[[], State], config: Config) -> None:
        self._state, self._config = state, config
        self._pictures = Pictures()
        self._look()

    def _look(self) -> Picture:
        return self._pictures.look(self._state(), self._config, {}, Around(), time.time(), time.monotonic())

    def text(self) -> str:
        """One line of counts, and the slowest flows with their paths."""
        picture = self._look()
        said = picture["collector"]
        lines = [
            f"reports {said['reports']} ({said['reports_per_s'] or 0:.0f}/s)  malformed {said['malformed']}"
            f"  lost {said['reports_lost']}  dropped packets {said['dropped_packets']}  events {said['events']}"
            f" (+{said['events_lost']} lost)  flows {said['flows']}"
        ]
        timed = [flow for flow in picture["flows"] if flow["latency_s"] is not None]
        for flow in sorted(timed, key=lambda one: -one["latency_s"])[:SLOWEST]:
            ends = (f"{flow[end]} port {flow[f'{end}_port']}" for end in ("source", "destination"))
            lines.append(
                f"  {' to '.join(ends)}: {flow['latency_s'] * 1e6:.1f} us by switches {path_text(flow['path'])}"
            )
        return "\n".join(lines)
