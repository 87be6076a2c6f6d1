"""Points -> line protocol -> an InfluxDB server, over HTTP: what becomes of each line by what the server answers."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

from ..batch import Batch
from ..config import Config
from ..series import Points, points
from .delivery import Chunk, Item, Pusher, Refusal
from .influxdb_lines import SCHEMAS, Speller
from .influxdb_server import Answer, NoAnswer, Server
from .text import seconds_and_ns, woven
from .times import Times

log = logging.getLogger(__name__)

SEARCHES = 16
"""Lines of a chunk that are found one by one, if the server refuses the whole of it and does not say why."""
NAMED = 100
"""A server that names so many lines may have left others out."""


@dataclasses.dataclass
class Search:
    """For lines that a server refuses the others for. left: how often it may still refuse."""

    left: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Chunk):
    """What is left of a chunk that was refused as a whole."""

    search: Search


class InfluxDB(Pusher):
    """Points to config.influxdb, pushed every push_interval by a thread of its own.

    The database of an InfluxDB 1 is made if it is missing (CREATE DATABASE leaves one that exists as it is); nothing is
    ever dropped or altered. A server that is away, overloaded or refuses the user is tried again; points it refuses for
    what they are (reason `rejected`) are counted and not sent again.
    """

    name = "influxdb"
    reasons = ("rejected",)

    def __init__(self, config: Config, *, again: bool = False) -> None:
        """again: events may come a second time, and are the same points then. Errors: UsageError, if the options
        contradict each other or a secret cannot be read."""
        super().__init__(config)
        self._server = Server(config)
        for warning in self._server.warnings:
            log.warning("influxdb: %s", warning)
        self._speller = Speller(SCHEMAS[config.influxdb_schema])
        told_again = again or config.timestamps == "int"
        self._times = {kind: Times(told_again=told_again) for kind in ("flow", "hop", "queue", "port")}
        self._created = self._server.version != 1
        self._rejecting = False
        self._reopened = False
        self.start()

    def target(self) -> str | None:
        """Lines are for one server and one place in it, and of one schema."""
        config = self._config
        where = (config.influxdb_org, config.influxdb_bucket) if self._server.version == 2 else config.influxdb_database
        return f"{self._server.shown} {self._server.version} {where} {config.influxdb_schema}"

    # points -> lines

    def take(self, batch: Batch) -> list[Item]:
        items = []
        for kind in points(batch, self._config):
            whole = self._speller.nameable(kind)
            # A loop over pieces, not points.
            for first in range(0, len(whole), self.LINES):
                piece = whole if len(whole) <= self.LINES else whole[first : first + self.LINES]
                items.append(Item(piece, len(piece), piece.nbytes))
        return items

    def spell(self, items: Sequence[Item]) -> bytes:
        """What is of one kind together, however small the batches were. No Python loop over points, but over labels
        that are new, and over the fields of flows."""
        kinds: dict[str, list[Points]] = {}
        for item in items:
            kinds.setdefault(item.what.kind, []).append(item.what)
        out: list[bytes] = []
        for several in kinds.values():
            kind = Points.together(several)
            lines = self._speller.lines(kind)
            second, ns = seconds_and_ns(self._times[kind.kind].free(lines.of, kind.times_ns, lines.fields))
            out += woven(
                len(kind), *lines.series, f" {lines.before}", lines.fields, f"{lines.after} {second}", ns, "\n"
            )
        return b"".join(out)

    # lines -> server

    def reopen(self) -> None:
        """Read the secret's file again, soon."""
        self._reopened = True
        self.nudge()

    def wake(self) -> None:
        if self._reopened:
            self._reopened = False
            self._server.read_secret_again()

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        try:
            answer = self._write(chunk.data, timeout_s)
        except NoAnswer as error:
            raise Refusal(error.kind, str(error)) from None
        if answer.stored:
            self.delivered(chunk.points)
            if not isinstance(chunk, Part):
                self._rejecting = False
        elif answer.too_large and chunk.points > 1:
            self.again(*(Chunk(data, count) for data, count in _halves(chunk)))
        elif answer.too_large:
            self._reject(1, answer)
        elif answer.status in (400, 422) and answer.of_influxdb and not answer.of_database:
            self._judge(chunk, answer)
        else:
            raise self._refusal(answer)

    def _write(self, lines: bytes, timeout_s: float) -> Answer:
        """Errors: NoAnswer, Refusal."""
        end = time.monotonic() + timeout_s

        def once(meanwhile: Callable[[], None] = lambda: None) -> Answer:
            return self._server.write(lines, max(end - time.monotonic(), 0.0), meanwhile)

        if not self._created:
            self._create_database(timeout_s)
        answer = once(self.ahead)
        if answer.status in (401, 403) and self._server.read_secret_again():
            answer = once()
        if self._server.version == 1 and answer.status == 404 and "database not found" in answer.said:  # dropped
            created = self._create_database(max(end - time.monotonic(), 0.0))
            answer = once()
            if created:
                answer = dataclasses.replace(answer, said=f"{answer.said}; asked to create it: {created}")
        return answer

    def _create_database(self, timeout_s: float) -> str:
        """What the server has against it, "" if nothing. Whoever may not create one may still write: that is for the
        write to find out."""
        answer = self._server.create_database(self._config.influxdb_database, timeout_s)
        if answer.status >= 500 or answer.status == 429:
            raise self._refusal(answer)
        self._created = True
        return answer.said

    def _judge(self, chunk: Chunk, answer: Answer) -> None:
        """The server refuses lines for what they are: some of them, or all because of some."""
        lines = chunk.data.splitlines(keepends=True)
        named = answer.refused(lines)
        count = min(max(len(named), answer.dropped), chunk.points)
        if answer.partial and count and (len(named) < NAMED or len(named) == chunk.points):
            self._reject(count, answer)
            self.delivered(chunk.points - count)
            return
        search = chunk.search if isinstance(chunk, Part) else Search(SEARCHES * chunk.points.bit_length())
        if answer.partial and named:  # it gets further with every time
            search.left += 1
        if search.left <= 0 or chunk.points == 1 or len(named) == chunk.points:
            self._reject(chunk.points, answer)
            return
        search.left -= 1
        if named:
            self._reject(len(named), answer)
            rest = b"".join(line for at, line in enumerate(lines) if at not in named)
            self.again(Part(rest, chunk.points - len(named), search=search))
        else:
            self.again(*(Part(data, count, search=search) for data, count in _halves(chunk)))

    def _reject(self, count: int, answer: Answer) -> None:
        self.lost(count, "rejected")
        if not self._rejecting:
            shown = self._server.shown
            log.warning("influxdb: %s rejects points, which are counted and not sent again: %s", shown, answer.said)
        self._rejecting = True

    def _refusal(self, answer: Answer) -> Refusal:
        status, version = answer.status, self._server.version
        hint = ""
        if status == 401:
            hint = self._server.unknown
        elif status == 403:
            hint = "it does not let us write there"
        elif status == 404:
            where = {1: "database", 2: "bucket", 3: "database"}[version]
            hint = f"is this an InfluxDB {version} server, and does the {where} exist?"
        elif 300 <= status < 400:
            hint = "that is not followed, since it may be somebody else's: if it is right, give that address"
        elif "no space left" in answer.said:
            hint = "its disk is full"
        elif status in (400, 422) and answer.of_database:
            hint = "make room for a database there, or let --influxdb-database name one that exists"
        elif status == 400 and "HTTPS" in answer.said:
            hint = "its address begins with https://"
        elif status < 500 and status not in (408, 429):
            hint = f"is this an InfluxDB {version} server?"
        said = f" ({answer.said})" if answer.said else ""
        text = f"{self._server.shown} answered {status}{said}{': ' if hint else ''}{hint}"
        return Refusal(f"HTTP {status}", text, answer.wait_s)

    def close(self, timeout_s: float) -> None:
        super().close(timeout_s)
        self._server.close()


def _halves(chunk: Chunk) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """(lines, how many) each."""
    lines = chunk.data.splitlines(keepends=True)
    middle = len(lines) // 2
    return (b"".join(lines[:middle]), middle), (b"".join(lines[middle:]), len(lines) - middle)
