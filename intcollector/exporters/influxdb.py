"""Points -> line protocol -> an InfluxDB 1.x server, over HTTP.

Schema `tags`: measurements int_flow (latency, path), int_hop (latency), int_queue (occupancy), int_port
(tx_utilization), the metrics' labels as tags, values in the metrics' units: latencies are seconds. Schema
`intcollector`: what INTCollector wrote, name for name, with the wire's own numbers.

Times. Two points of one series at one time would be one point, the later one's. So a point whose time is taken gets the
next free nanosecond; among the last GENERATION points at least. Times are fixed before the first try: a second try
writes the same points.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import numpy as np
import urllib3

from ..batch import Batch
from ..config import Config
from ..series import Points, points, texts
from . import Chunk, Item, Pusher, Refusal

log = logging.getLogger(__name__)

CONNECT_S, ANSWER_S = 3.0, 15.0
"""How long a try may take."""

GENERATION = 200_000


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
        self._times = Times(told_again=config.timestamps == "int")
        self._created = False
        self._rejecting = False
        self.start()

    # points -> lines

    def take(self, batch: Batch) -> list[Item]:
        items = []
        for kind in points(batch, self._config):
            whole = nameable(kind) if self._config.influxdb_schema == "intcollector" else kind
            # A loop over pieces, not points.
            for first in range(0, len(whole), self.LINES):
                piece = whole[first : first + self.LINES]
                items.append(Item(piece, len(piece), piece.nbytes))
        return items

    def spell(self, item: Item) -> bytes:
        """Python loops over points, since the result is text."""
        spell = intcollector_lines if self._config.influxdb_schema == "intcollector" else tags_lines
        free = self._times.free
        return "".join(
            [
                f"{series} {fields} {free(series, fields, time)}\n"
                for (series, fields), time in zip(spell(item.what), item.what.times_ns.tolist(), strict=True)
            ]
        ).encode()

    # lines -> server

    def deliver(self, chunk: Chunk, timeout_s: float) -> None:
        if not self._created:
            self._create_database(timeout_s)
        status, said, wait_s = self._post(self._write_url, chunk.data, timeout_s)
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
        self, url: str, body: bytes, timeout_s: float, content_type: str = "text/plain"
    ) -> tuple[int, str, float]:
        """(status, what the server says is wrong, the wait it asks for). Errors: Refusal, when there is no answer."""
        timeout = urllib3.Timeout(connect=min(CONNECT_S, timeout_s), read=min(ANSWER_S, timeout_s))
        try:
            answer = self._pool.request("POST", url, body=body, headers={"Content-Type": content_type}, timeout=timeout)
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
    """Which nanoseconds of a series are taken: of the last GENERATION points or more, at most twice as many."""

    def __init__(self, *, told_again: bool) -> None:
        """told_again: the same series, fields and time are the same point (the report's own times: a flow that is kept
        alive by equal reports); otherwise they are two (times of arrival)."""
        self._told_again = told_again
        self._recent: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._points = 0  # in recent

    def free(self, series: str, fields: str, time_ns: int) -> int:
        """time_ns or the next free one, which is then taken; with told_again, what this very point was given before.
        Kept by hash: two that agree cost a nanosecond."""
        point = hash((series, fields, time_ns))
        known = self._recent.get(point) or self._older.get(point)
        if self._told_again and known is not None:
            return known
        if self._points == GENERATION:
            self._older, self._recent, self._points = self._recent, {}, 0
        self._points += 1
        free = time_ns
        # Each taken time knows the end of the run it was in, so the loop steps over runs, not over nanoseconds.
        while (after := self._recent.get(hash((series, free))) or self._older.get(hash((series, free)))) is not None:
            free = after
        self._recent[hash((series, time_ns))] = self._recent[hash((series, free))] = free + 1
        if self._told_again:
            self._recent[point] = free
        return free


# --- schemas ----------------------------------------------------------------------------------------------------------


def tags_lines(kind: Points) -> Iterator[tuple[str, str]]:
    """Schema `tags`: (measurement and tags, fields) of each point. A tag without a value is left out."""
    names = sorted(kind.labels)
    columns = [texts(kind.labels[name]) for name in names]
    if kind.values.dtype.kind == "f":
        values = [f"{kind.field}={v}" if v else "" for v in texts(kind.values)]
    else:
        values = [f"{kind.field}={v}i" for v in texts(kind.values)]
    if kind.paths is not None:
        paths = [f'path="{p}"' if p else "" for p in texts(kind.paths)]
        values = [",".join(filter(None, pair)) for pair in zip(values, paths, strict=True)]
    for labels, fields in zip(zip(*columns, strict=True), values, strict=True):
        tags = "".join([f",{name}={value}" for name, value in zip(names, labels, strict=True) if value])
        yield kind.measurement + tags, fields


def nameable(kind: Points) -> Points:
    """The points INTCollector has a name for: every id in it is there."""
    whole = np.ones(len(kind), bool)
    for column in kind.labels.values():
        if column.dtype.kind == "i":
            whole &= column >= 0
    return kind[whole]


def intcollector_lines(kind: Points) -> Iterator[tuple[str, str]]:
    """Schema `intcollector`: (measurement, fields). The commas belong to the measurement's name."""
    label = {name: texts(column) for name, column in kind.labels.items()}
    values = [f"{v}i" for v in kind.wire.tolist()]
    if kind.kind in ("flow", "hop"):
        flows = [
            rf"{_host(source)}:{source_port}->{_host(destination)}:{destination_port}\,proto={protocol}"
            for source, source_port, destination, destination_port, protocol in zip(
                *(label[n] for n in ("source", "source_port", "destination", "destination_port", "protocol")),
                strict=True,
            )
        ]
    if kind.kind == "flow" and kind.paths is not None:
        for flow, value, path in zip(flows, values, texts(kind.paths), strict=True):
            latency = "" if value == "-1i" else f"flow_latency={value}"
            yield rf"flow_stat\,{flow}", ",".join(filter(None, (latency, f'path="{path}"' if path else "")))
    elif kind.kind == "hop":
        for flow, switch_id, value in zip(flows, label["switch_id"], values, strict=True):
            yield rf"flow_hop_latency\,{flow}\,sw_id={switch_id}", f"value={value}"
    else:
        name, of, id_name = {
            "port": ("port_tx_utilize", "egress_port_id", "port_id"),
            "queue": ("queue_occupancy", "queue_id", "queue_id"),
        }[kind.kind]
        for switch_id, number, value in zip(label["switch_id"], label[of], values, strict=True):
            yield rf"{name}\,sw_id={switch_id}\,{id_name}={number}", f"value={value}"


def _host(address: str) -> str:
    """IPv6, which INTCollector did not know, in brackets: the port follows."""
    return f"[{address}]" if ":" in address else address
