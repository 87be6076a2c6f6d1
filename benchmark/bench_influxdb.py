"""Points stored in InfluxDB 1.x a second, beside what the same server takes of ready-made lines.

    .venv/bin/python benchmark/bench_influxdb.py [--points N] [--rounds N] [--json]

No root. Starts an influxd of its own on free ports, with its data in a temporary folder, on the same cores as this.
Every report is an event with three hops and ten points: the flow's, and latency, queue and port of each hop. The floor
is one connection, one request after the other, as many lines in each as the exporter sends. At the end the server is
asked whether it has every point.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import common
import numpy as np
import urllib3

from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.exporters.influxdb import InfluxDB
from intcollector.layout import HEAD, HOP, Change, ReportFlag
from intcollector.series import points, texts

MEASURE = "points stored in InfluxDB a second, over ready-made lines"
FLOWS, HOPS, SWITCHES, PORTS, QUEUES = 1000, 3, 100, 32, 4
POINTS = 1 + 3 * HOPS
"""A report's."""
REPORTS = 500
"""A batch's: what is drained in a fiftieth of a second at 25,000 events a second."""
BEGIN_NS = 1_700_000_000_000_000_000
FIELDS = {"int_flow": "latency", "int_hop": "latency", "int_queue": "occupancy", "int_port": "tx_utilization"}


class Events:
    """Batches of events, each later than the one before."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)
        self._reports = 0

    def next(self) -> Batch:
        random = self._random
        flow = random.integers(0, FLOWS, REPORTS)
        heads = np.zeros(REPORTS, HEAD)
        heads["flags"] = ReportFlag.INNER | ReportFlag.FLOW_IPV4 | ReportFlag.FLOW_PORTS | ReportFlag.INT
        heads["changes"] = Change.FLOW_LATENCY
        for name in ("hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes"):
            heads[name] = (1 << HOPS) - 1
        heads["flow_source"][:, :4] = (10 << 24 | flow).astype(">u4").view(np.uint8).reshape(-1, 4)
        heads["flow_destination"][:, :4] = (172 << 24 | flow // 7).astype(">u4").view(np.uint8).reshape(-1, 4)
        heads["source_port"], heads["destination_port"], heads["protocol"] = 1024 + flow, 443, 6
        heads["hop_count"], heads["report_version"] = HOPS, 10
        heads["received_ns"] = 4000 * (self._reports + np.arange(REPORTS)) + random.integers(0, 4000, REPORTS)
        self._reports += REPORTS
        hops = np.full(REPORTS * HOPS, -1, [(name, "i8") for name in HOP.names or ()]).astype(HOP)
        place = np.tile(np.arange(HOPS), REPORTS)
        hops["switch_id"] = 1 + (np.repeat(flow, HOPS) + 7 * place) % SWITCHES
        hops["egress_port_id"] = np.repeat(flow, HOPS) % PORTS
        hops["queue_id"] = np.repeat(flow, HOPS) % QUEUES
        hops["hop_latency"] = hops["latency"] = random.lognormal(np.log(8000), 1.2, len(hops)).astype(np.uint32)
        hops["queue_occupancy"] = random.integers(0, 2000, len(hops))
        hops["egress_port_tx_utilization"] = random.integers(0, 10_000, len(hops))
        heads["latency"] = heads["flow_latency"] = hops["latency"].reshape(-1, HOPS).sum(axis=1)
        return Batch(heads, hops, np.repeat(np.arange(REPORTS), HOPS), place, BEGIN_NS)


class Spelling(common.Clocked, InfluxDB):
    """The exporter, timed."""


class Contest:
    """Rounds of so many points, at one server."""

    def __init__(self, server: Any, count: int) -> None:
        self._server, self._batches = server, max(1, count // (REPORTS * POINTS))
        self.count = self._batches * REPORTS * POINTS
        self._events = {name: Events() for name in ("ours", "lines")}
        self._speller = self._exporter("ready")
        self._ours = self._exporter("ours")
        self._pool = urllib3.PoolManager(maxsize=2, retries=False)
        self.rounds = {"ours": 0, "lines": 0}
        self.shares: list[float] = []
        server.query("CREATE DATABASE lines")

    def _exporter(self, database: str) -> Spelling:
        return Spelling(Config(influxdb=self._server.url, influxdb_database=database))

    def _next(self, name: str) -> list[Batch]:
        self.rounds[name] += 1
        return [self._events[name].next() for _ in range(self._batches)]

    def lines(self, connections: int = 1) -> float:
        """Points a second of ready-made lines."""
        bodies = [self._speller.spell(self._speller.take(one)) for one in self._next("lines")]
        data = b"".join(bodies).splitlines(keepends=True)
        size = InfluxDB.LINES
        bodies = [b"".join(data[first : first + size]) for first in range(0, len(data), size)]
        url = f"{self._server.url}/write?db=lines&precision=ns"

        def post(body: bytes) -> None:
            answer = self._pool.request("POST", url, body=body, headers={"Content-Type": "text/plain"})
            assert answer.status == 204, answer.data

        with concurrent.futures.ThreadPoolExecutor(connections) as threads:
            return self.count / common.seconds(lambda: list(threads.map(post, bodies)))

    def ours(self) -> float:
        """Points a second through the exporter, from events to what the server has acknowledged."""
        batches, before, exporter = self._next("ours"), self._ours.counts().delivered, self._ours
        spelt = exporter.spelling_s
        limit = (Config().push_buffer << 20) // 2

        def send() -> None:
            for one in batches:
                while exporter.counts().buffered_bytes > limit:
                    exporter.emptier.clear()
                    exporter.emptier.wait(1)
                exporter.empty.clear()
                exporter.write(one)
            assert exporter.empty.wait(60), exporter.problem()

        taken = common.seconds(send)
        assert exporter.counts().delivered - before == self.count, exporter.counts()
        self.shares.append((exporter.spelling_s - spelt) / taken)
        return self.count / taken

    def close(self) -> None:
        for exporter in (self._ours, self._speller):
            exporter.close(10)
        self._pool.clear()

    def check(self) -> None:
        """The server has every point, of both."""
        for name, rounds in self.rounds.items():
            stored = 0
            for measurement, field in FIELDS.items():
                (row,) = self._server.query(f"SELECT count({field}) FROM {measurement}", name)
                stored += row["count"]
            assert stored == rounds * self.count, f"{name}: {stored} points stored of {rounds * self.count}"


# --- rendering: points to lines, without a server ---------------------------------------------------------------------


def by_influxdb_client(events: list[Batch]) -> bytes:
    """With a Point of influxdb-client for each point, as it is meant to be used."""
    client = importlib.import_module("influxdb_client")
    lines = []
    for one in events:
        for kind in points(one, Config()):
            labels = list(zip(*map(texts, kind.labels.values()), strict=True))
            paths = texts(kind.paths) if kind.paths is not None else [""] * len(kind)
            for tags, value, path, at in zip(labels, kind.values.tolist(), paths, kind.times_ns.tolist(), strict=True):
                point = client.Point(kind.measurement).field(kind.field, value).time(at, client.WritePrecision.NS)
                for name, tag in zip(kind.labels, tags, strict=True):
                    point.tag(name, tag)
                if path:
                    point.field("path", path)
                lines.append(point.to_line_protocol())
    return "\n".join(lines).encode()


def by_influxdb(events: list[Batch]) -> bytes:
    """With the dicts of influxdb, the client of 1.x, and its make_lines."""
    make_lines = importlib.import_module("influxdb.line_protocol").make_lines
    lines = []
    for one in events:
        for kind in points(one, Config()):
            labels = list(zip(*map(texts, kind.labels.values()), strict=True))
            paths = texts(kind.paths) if kind.paths is not None else [None] * len(kind)
            said = [
                {
                    "measurement": kind.measurement,
                    "tags": dict(zip(kind.labels, tags, strict=True)),
                    "fields": {kind.field: value, "path": path} if path else {kind.field: value},
                    "time": at,
                }
                for tags, value, path, at in zip(
                    labels, kind.values.tolist(), paths, kind.times_ns.tolist(), strict=True
                )
            ]
            lines.append(make_lines({"points": said}, "n"))
    return "".join(lines).encode()


def rendering(rounds: int) -> Iterator[common.Row]:
    """ns a point, from events to lines: ours, and libraries'."""
    exporter = InfluxDB(Config(influxdb="http://127.0.0.1:9"))  # to which nothing is written
    exporter.close(0)
    source = Events()

    def ours(events: list[Batch]) -> bytes:
        return b"".join(exporter.spell(exporter.take(one)) for one in events)

    ways: dict[str, Callable[[list[Batch]], bytes] | None] = {"this exporter": ours}
    for library, way in (("influxdb_client", by_influxdb_client), ("influxdb", by_influxdb)):
        ways[library] = way if importlib.util.find_spec(library) else None

    def timed(way: Callable[[list[Batch]], bytes]) -> Callable[[], float]:
        def measure() -> float:
            events = [source.next() for _ in range(4)]
            taken = common.seconds(lambda: way(events))
            return taken / (len(events) * REPORTS * POINTS) * 1e9

        return measure

    measured = common.turns(rounds, {name: timed(way) for name, way in ways.items() if way})
    for name in ways:
        of = measured.get(name)
        yield {
            "rendering by": name,
            "ns a point": of.median if of else f"skipped: pip install {name.replace('_', '-')}",
            "points a second": 1e9 / of.median if of else None,
        }


def main() -> int:
    parser = common.parser(__doc__, rounds=5)
    parser.add_argument("--points", type=int, default=600_000, help="a round (default: 600000)")
    arguments = parser.parse_args()
    os.environ["PATH"] += f"{os.pathsep}{common.ROOT / '.venv/servers/usr/bin'}"
    if shutil.which("influxd") is None:
        print("influxd is missing: apt-get install influxdb", file=sys.stderr)
        return 1
    sys.path.append(str(common.ROOT))
    from tests import servers

    with (
        tempfile.TemporaryDirectory() as folder,
        servers.influxdb(pathlib.Path(folder) / "influxdb") as server,
    ):
        contest = Contest(server, arguments.points)
        try:
            common.turns(1, {"lines": contest.lines, "ours": contest.ours})  # makes the series
            contest.shares.clear()
            measured = common.turns(
                arguments.rounds,
                {"lines": contest.lines, "ours": contest.ours, "two": lambda: contest.lines(connections=2)},
            )
            contest.check()
        finally:
            contest.close()
    ours, lines = measured["ours"], measured["lines"]
    rows: list[common.Row] = [
        common.required(
            MEASURE, common.ratios(ours, lines).median, "of that", must=0.8, hope=0.9, better="more"
        )
    ]  # fmt: skip
    for name, of in (
        ("this exporter, from events", ours),
        ("ready-made lines", lines),
        ("ready-made lines, two connections", measured["two"]),
    ):
        rows.append({"what": name, "points a second": of.median, "from": of.low, "to": of.high})
    rows.append({"spelling's share of the exporter's time": float(np.median(contest.shares))})
    rows += rendering(arguments.rounds)
    common.emit("influxdb", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
