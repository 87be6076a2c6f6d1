"""`decode`: a capture's packets to records, by the Python decoder or by the kernel program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import series, wire
from .config import Config
from .datapath import Datapath
from .errors import CaptureError
from .layout import OUTCOMES

Answer = dict[str, Any]

MIN_TEST_RUN = 14
"""Bytes that BPF_PROG_TEST_RUN takes at least: an Ethernet header."""
OK = OUTCOMES.index("ok")
TOGETHER = 64
"""Packets between two drains."""


def by_python(packets: Iterable[bytes], config: Config) -> Iterator[Answer]:
    """Each packet's {"outcome": ..., "reports": [...]} by the reference decoder."""
    for packet in packets:
        yield wire.decode(packet, config)


class KernelDecoder:
    """The kernel program as a decoder: it tells every packet, and is run on them one by one.

    Errors: LoadError.
    """

    def __init__(self, config: Config) -> None:
        self._datapath = Datapath(config, tell_all=True)

    def decode(self, packets: Iterable[bytes]) -> Iterator[Answer]:
        """As by_python. A packet shorter than an Ethernet header cannot be given to the kernel. If packets ends by a
        CaptureError, what came before it is told first."""
        waiting: list[bool] = []
        try:
            for packet in packets:
                runs = len(packet) >= MIN_TEST_RUN
                if runs:
                    self._datapath.run(packet)
                waiting.append(runs)
                if len(waiting) == TOGETHER:
                    yield from self._answers(waiting)
                    waiting = []
        except CaptureError:
            yield from self._answers(waiting)
            raise
        yield from self._answers(waiting)

    def _answers(self, waiting: list[bool]) -> Iterator[Answer]:
        batch = self._datapath.drain()
        if len(batch) != sum(waiting):
            raise AssertionError(f"{sum(waiting)} packets were run, {len(batch)} came up")
        outcomes = iter(batch.reports["outcome"].tolist())
        accepted = iter(series.reports(batch.only(batch.reports["outcome"] == OK)))
        for runs in waiting:
            if not runs:
                yield {"outcome": "pass_short_l2", "reports": []}
                continue
            outcome = next(outcomes)
            yield {"outcome": OUTCOMES[outcome], "reports": [next(accepted)] if outcome == OK else []}

    def close(self) -> None:
        self._datapath.close()
