"""`decode`: a capture's packets to records, by the Python decoder or by the kernel program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from . import series, wire
from .config import Config
from .datapath import Datapath
from .errors import CaptureError
from .layout import ACCEPTED, OUTCOMES, ReportFlag

Answer = dict[str, Any]

MIN_TEST_RUN = 14
"""Bytes that BPF_PROG_TEST_RUN takes at least: an Ethernet header."""
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
        self._config = config
        self._datapath = Datapath(config, tell_all=True)

    def apply(self, config: Config) -> None:
        """Decode as another config says, what is set when loading aside."""
        self._config = config
        self._datapath.apply(config)

    def decode(self, packets: Iterable[bytes]) -> Iterator[Answer]:
        """As by_python. A packet shorter than an Ethernet header cannot be given to the kernel. If packets ends by a
        CaptureError, what came before it is told first."""
        waiting: list[bytes] = []
        try:
            for packet in packets:
                if len(packet) >= MIN_TEST_RUN:
                    self._datapath.run(packet)
                waiting.append(packet)
                if len(waiting) == TOGETHER:
                    yield from self._answers(waiting)
                    waiting = []
        except CaptureError:
            yield from self._answers(waiting)
            raise
        yield from self._answers(waiting)

    def _answers(self, waiting: list[bytes]) -> Iterator[Answer]:
        """What became of each packet that was run: one event, or one for each of its reports."""
        batch = self._datapath.drain()
        first = batch.reports["flags"] & ReportFlag.CONTINUED == 0
        if first.sum() != sum(len(packet) >= MIN_TEST_RUN for packet in waiting):
            raise AssertionError(f"{len(waiting)} packets were run, {first.sum()} came up")
        accepted = np.isin(batch.reports["outcome"], ACCEPTED)
        told = zip(first.tolist(), batch.reports["outcome"].tolist(), accepted.tolist(), strict=True)
        reports = iter(series.reports(batch.only(accepted)))
        answers: list[Answer] = []
        for is_first, outcome, has_report in told:
            if is_first:
                answers.append({"outcome": OUTCOMES[outcome], "reports": []})
            if has_report:
                answers[-1]["reports"].append(next(reports))
                if OUTCOMES[outcome] != "ok":  # one of a packet's reports, wherever among them, says so of the packet
                    answers[-1]["outcome"] = OUTCOMES[outcome]
        each = iter(answers)
        for packet in waiting:
            if len(packet) < MIN_TEST_RUN:
                yield {"outcome": "pass_short_l2", "reports": []}
                continue
            answer = next(each)
            # the program hands on what it has no way to read, as far as there is room for it
            yield wire.decode(packet, self._config) if answer["outcome"] == "undecoded" else answer

    def close(self) -> None:
        self._datapath.close()
