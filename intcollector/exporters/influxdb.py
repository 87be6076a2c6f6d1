"""Points -> line protocol -> an InfluxDB 1.x server, over HTTP.

Schema `tags`: measurements int_flow (latency, path), int_hop (latency), int_queue (occupancy), int_port
(tx_utilization), the metrics' labels as tags, values in the metrics' units: latencies are seconds. Schema
`intcollector`: what INTCollector wrote, name for name, with the wire's own numbers.

Times. Two points of one series at one time would be one point, the later one's. So a point whose time is taken gets the
next free nanosecond; among the last GENERATION points at least. Times are fixed before the first try: a second try
writes the same points.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

import numpy as np
import urllib3

from ..batch import Batch
from ..config import Config
from ..series import Points, points
from . import Chunk, Item, LabelTexts, Pusher, Refusal, numbers, seconds_and_ns, woven

log = logging.getLogger(__name__)

CONNECT_S, ANSWER_S = 3.0, 15.0
"""How long a try may take."""

GENERATION = 200_000

KNOWN_LABELS = 100_000
"""Flows, and other things with labels, whose text is remembered."""


class InfluxDB(Pusher):
    """Points to config.influxdb, pushed every push_interval by a thread of its own.

    The database is made if it is missing (CREATE DATABASE leaves one that exists as it is); nothing is ever dropped or
    altered. A server that is away, overloaded or refuses the user is tried again; points it refuses for what they are
    (reason `rejected`) are counted and not sent again.
    """

    name = "influxdb"
    reasons = ("rejected",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        url = urlsplit(config.influxdb or "")
        self._shown = f"{url.scheme}://{url.netloc}{url.path}"
        self._path = url.path.rstrip("/")
        self._pool = urllib3.connection_from_url(f"{url.scheme}://{url.netloc}", maxsize=1, retries=False)
        self._write_url = f"{self._path}/write?{urlencode({'db': config.influxdb_database, 'precision': 'ns'})}"
        self._speller = Speller(SCHEMAS[config.influxdb_schema])
        self._times = {kind: Times(told_again=config.timestamps == "int") for kind in ("flow", "hop", "queue", "port")}
        self._created = False
        self._rejecting = False
        self.start()

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

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        if not self._created:
            self._create_database(timeout_s)
        status, said, wait_s = self._post(self._write_url, chunk.data, timeout_s, meanwhile=self.ahead)
        if status == 404 and "database not found" in said:  # somebody dropped it
            created = self._create_database(timeout_s)
            status, said, wait_s = self._post(self._write_url, chunk.data, timeout_s)
            said += f"; asked to create it: {created}" * bool(created)
        if status in (200, 204):
            self.delivered(chunk.points)
            self._rejecting = False
        elif status == 400:
            # Either nothing could be read, or what could be stored is stored ("partial write").
            self._reject(chunk.points, _refused(said, chunk.points), said)
        elif status == 413 and chunk.points > 1:
            self.again(*_halves(chunk))
        elif status == 413:
            self._reject(1, 1, said)
        else:
            hint = {
                401: ": it asks for a user, which this collector cannot be",
                403: ": it does not let us write there",
                404: ": is this an InfluxDB 1.x server, and does the database exist?",
            }.get(status, "")
            raise Refusal(f"HTTP {status}", f"{self._shown} answered {status} ({said}){hint}", wait_s)

    def _reject(self, points: int, lost: int, said: str) -> None:
        self.delivered(points - lost)
        self.lost(lost, "rejected")
        if lost and not self._rejecting:
            log.warning("influxdb: %s rejects points, which are counted and not sent again: %s", self._shown, said)
        self._rejecting = lost > 0

    def _create_database(self, timeout_s: float) -> str:
        """What the server has against it, "" if nothing. A database that exists stays as it is. Whoever may not create
        one may still write: that is for the write to find out."""
        name = self._config.influxdb_database.replace("\\", "\\\\").replace('"', r"\"")
        body = urlencode({"q": f'CREATE DATABASE "{name}"'}).encode()
        status, said, wait_s = self._post(f"{self._path}/query", body, timeout_s, "application/x-www-form-urlencoded")
        if status >= 500 or status == 429:
            raise Refusal(f"HTTP {status}", f"{self._shown} answered {status} ({said})", wait_s)
        self._created = True
        return said

    def _post(
        self,
        url: str,
        body: bytes,
        timeout_s: float,
        content_type: str = "text/plain",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[int, str, float]:
        """(status, what the server says is wrong, the wait it asks for). meanwhile: called when everything is sent, and
        before the answer is waited for. Errors: Refusal, when there is no answer."""
        timeout = urllib3.Timeout(connect=min(CONNECT_S, timeout_s), read=min(ANSWER_S, timeout_s))
        headers = {"Content-Type": content_type, "Content-Length": str(len(body))}

        def sent() -> Iterator[bytes]:
            yield body
            meanwhile()

        try:
            answer = self._pool.request("POST", url, body=sent(), headers=headers, timeout=timeout)
        except urllib3.exceptions.HTTPError as error:
            cause = error.__cause__ or error.__context__
            why = getattr(cause, "strerror", None) or type(error).__name__
            raise Refusal(type(error).__name__, f"{self._shown} cannot be reached ({why})") from None
        wait = answer.headers.get("Retry-After", "")
        return answer.status, _error(answer.data), float(wait) if wait.isdecimal() else 0.0

    def close(self, timeout_s: float) -> None:
        super().close(timeout_s)
        self._pool.close()


def _error(body: bytes) -> str:
    """What an answer says is wrong, "" if nothing: of InfluxDB's JSON the error, else the beginning of the text."""
    text = body[:4000].decode(errors="replace").strip()
    try:
        answer = json.loads(text)
        return str((answer.get("results") or [answer])[0].get("error", ""))
    except (ValueError, AttributeError, TypeError, KeyError):
        return text[:200]


def _refused(said: str, points: int) -> int:
    """How many points a 400 means: of a partial write those it names, else all."""
    if not said.startswith("partial write"):
        return points
    dropped = re.findall(r"dropped=(\d+)", said)
    return min(points, max(said.count("unable to parse '"), int(dropped[-1]) if dropped else 0))


def _halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
    lines = chunk.data.splitlines(keepends=True)
    middle = len(lines) // 2
    return Chunk(b"".join(lines[:middle]), middle), Chunk(b"".join(lines[middle:]), len(lines) - middle)


class Times:
    """Which nanoseconds of a measurement's series are taken: of the last GENERATION points or more, at most twice as
    many.

    A series and a time are kept as the sum of the series' hash and the time: two that agree cost a nanosecond. So the
    next nanosecond of a series is the next number. What is later than all before is only noted (as an array), and not
    entered into a table before somebody has to look.
    """

    def __init__(self, *, told_again: bool) -> None:
        """told_again: the same series, fields and time are the same point (the report's own times: a flow that is kept
        alive by equal reports); otherwise they are two (times of arrival)."""
        self._told_again = told_again
        self._latest = -(1 << 63)
        self._recent: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._noted: list[np.ndarray] = []  # of recent
        self._noted_older: list[np.ndarray] = []
        self._points = 0  # in recent

    def free(self, series: np.ndarray, times_ns: np.ndarray, fields: Sequence[str]) -> np.ndarray:
        """Each point's time or the next free one, which is then taken; with told_again, what this very point was given
        before. series: hashes, int64 (n,). times_ns: int64 (n,), n > 0."""
        if self._points >= GENERATION:
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


# --- schemas ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Schema:
    """What points are called, and their values' units.

    names: by kind, the measurement and the value, if not as Points have them. spell: what a series' name has for
    labels, (names, values of each thing) -> a text each, which goes behind what is there. by_name: the order of labels,
    which the server is quickest with. wire: values are the switches' own numbers, and a point whose name would lack an
    id is left out.
    """

    names: Mapping[str, tuple[str, str]]
    spell: Callable[[Sequence[str], Iterable[tuple[str, ...]]], Iterator[str]]
    by_name: bool
    wire: bool


@dataclasses.dataclass(frozen=True)
class Lines:
    """Points as columns to be woven: series, a space, before, fields, after, a space, time. of: int64 (n,), the same
    for points of one series, and for others another."""

    series: list[str | list[str]]
    of: np.ndarray
    before: str
    fields: list[str]
    after: str


class Speller:
    """Points -> Lines by a schema; it remembers the text of labels and paths."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._labels = LabelTexts(schema.spell, KNOWN_LABELS)
        self._paths = LabelTexts(_path_fields, KNOWN_LABELS)

    def nameable(self, kind: Points) -> Points:
        """The points that have a name."""
        if not self._schema.wire:
            return kind
        whole = np.ones(len(kind), bool)
        for part in kind.parts:
            for column in part.columns.values():
                if column.dtype.kind == "i":
                    whole &= (column >= 0) if part.rows is None else (column >= 0)[part.rows]
        return kind if whole.all() else kind[whole]

    def lines(self, kind: Points) -> Lines:
        name, field = self._schema.names.get(kind.kind, (kind.measurement, kind.field))
        series: list[str | list[str]] = [name]
        of = np.full(len(kind), hash(name), np.int64)
        parts = sorted(kind.parts, key=lambda part: min(part.columns)) if self._schema.by_name else kind.parts
        for at, part in enumerate(parts):
            text = self._labels.of(part.columns)
            # Each part's times another number: queue 4 of switch 5 is not queue 5 of switch 4.
            hashes = np.array(list(map(hash, text.tolist())), np.int64) * (2 * at + 1)
            rows = slice(None) if part.rows is None else part.rows
            series.append(text[rows].tolist())
            of += hashes[rows]
        values = kind.wire if self._schema.wire else kind.values
        after = "" if values.dtype.kind == "f" else "i"
        if kind.paths is None:
            return Lines(series, of, f"{field}=", numbers(values), after)
        # A Python loop over flows' points, for each of which it is another question what there is of it.
        paths = self._paths.of({"path": kind.paths}).tolist()
        fields = [f"{field}={value}{after}{path}" for value, path in zip(numbers(values), paths, strict=True)]
        for row in np.flatnonzero(kind.wire < 0).tolist():
            fields[row] = paths[row].removeprefix(",")
        return Lines(series, of, "", fields, "")


def _path_fields(_: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for (path,) in values:
        yield f',path="{path}"' if path else ""


def _tags(names: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """`,a=1,b=2`, by name. A tag without a value is left out."""
    order = sorted(range(len(names)), key=names.__getitem__)
    for row in values:
        yield "".join([f",{names[at]}={row[at]}" for at in order if row[at]])


_ID_NAMES = {"switch_id": "sw_id", "egress_port_id": "port_id"}
"""What INTCollector calls them."""


def _name_parts(names: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """What comes next in the name of one of INTCollector's measurements; its commas belong to it."""
    if len(names) == 1:
        for (number,) in values:
            yield rf"\,{_ID_NAMES.get(names[0], names[0])}={number}"
    else:
        for source, destination, source_port, destination_port, protocol in values:
            yield rf"\,{_host(source)}:{source_port}->{_host(destination)}:{destination_port}\,proto={protocol}"


def _host(address: str) -> str:
    """IPv6, which INTCollector did not know, in brackets: the port follows."""
    return f"[{address}]" if ":" in address else address


SCHEMAS = {
    "tags": Schema({}, _tags, by_name=True, wire=False),
    "intcollector": Schema(
        {
            "flow": ("flow_stat", "flow_latency"),
            "hop": ("flow_hop_latency", "value"),
            "queue": ("queue_occupancy", "value"),
            "port": ("port_tx_utilize", "value"),
        },
        _name_parts,
        by_name=False,
        wire=True,
    ),
}
"""By the words of Config.influxdb_schema."""
