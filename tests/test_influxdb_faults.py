"""What goes wrong between the exporter and InfluxDB: each point is delivered, or counted as lost, and none is twice."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from intcollector import kernel
from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.exporters import influxdb_server
from intcollector.exporters.delivery import Chunk, Item, Refusal
from intcollector.exporters.influxdb import SEARCHES, InfluxDB
from intcollector.lab import inside

from . import servers
from .batches import batch_of
from .faulty import Authority, Reply, Request, Talk, faulty, judge, say, tls_of
from .needs import needs_root
from .pushing import NOW_NS, many, pushing, settled

QUICK: dict[str, Any] = {"push_interval": 0.01}
V1: dict[str, Any] = QUICK
V2: dict[str, Any] = {**QUICK, "influxdb_org": "o", "influxdb_bucket": "b"}
V3: dict[str, Any] = {**QUICK, "influxdb_version": "3"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.InfluxServer]:
    """One server for the tests that leave it as it was; each has a database of its own."""
    with servers.influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


@pytest.fixture(scope="module")
def large() -> Batch:
    """10,000 points; a chunk of them is more than fits between two programs."""
    return batch_of(many(5000))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, dict[str, Any]]:
    """What a server speaks, and the options for who trusts it."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    return tls_of(authority.certificate("right")), {"influxdb_ca": str(authority.file)}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are minutes in life are tenths of seconds, and little is under way between two programs."""
    for name, seconds in (("CONNECT_S", 0.5), ("ANSWER_S", 0.3), ("STALL_S", 0.3), ("SEND_S", 0.6)):
        monkeypatch.setattr(influxdb_server, name, seconds)
    connect = influxdb_server.Connection._connect

    def narrow(self: influxdb_server.Connection, end: float) -> socket.socket:
        sock = connect(self, end)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
        return sock

    monkeypatch.setattr(influxdb_server.Connection, "_connect", narrow)


# --- the server says no, for now --------------------------------------------------------------------------------------

TOO_MANY = "Adding a new database would exceed limit of 5 databases"


def no_room(error: str, **line: Any) -> dict[str, Any]:
    """What InfluxDB 3 says of a database that there is none of, of the request or of its lines."""
    if not line:
        return {"error": error, "data": None}
    return {"error": "partial write of line protocol occurred", "data": [{**line, "error_message": error}]}


@pytest.mark.parametrize(
    ("version", "reply", "said"),
    [
        (V1, say(401, {"error": "who?"}), "answered 401 (who?): it asks for a user"),
        (V2, say(401, {"code": "unauthorized", "message": "no"}), "answered 401 (no): it asks for a token"),
        (V3, say(403), "answered 403: it does not let us write there"),
        (V2, say(404, {"code": "not found", "message": 'bucket "b" not found'}), "and does the bucket exist?"),
        (V3, say(404, {"error": "not found"}), "is this an InfluxDB 3 server, and does the database exist?"),
        (V1, say(408), "answered 408"),
        (V2, say(429, {"message": "slow down"}, Retry_After="0"), "answered 429 (slow down)"),
        (V1, say(500, {"error": "timeout"}), "answered 500 (timeout)"),
        (V2, say(502, "<html>bad gateway</html>"), "answered 502 (<html>bad gateway</html>)"),
        (V3, say(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), "answered 503"),
        (V1, say(307, Location="https://evil.example/write"), "it points to https://evil.example/write): that is not"),
        (V1, say(200, "<h1>welcome</h1>"), "answered 200 (<h1>welcome</h1>): is this an InfluxDB 1 server?"),
        (V1, say(400, "<h1>bad request</h1>"), "answered 400 (<h1>bad request</h1>): is this an InfluxDB 1 server?"),
        (V2, say(405), "answered 405: is this an InfluxDB 2 server?"),
        (V1, say(400, "[" * 100_000), "is this an InfluxDB 1 server?"),
        (V3, say(422, no_room(TOO_MANY)), f"answered 422 ({TOO_MANY}): make room for a database there"),
        (V3, say(422, no_room(TOO_MANY, line_number=1)), f"{TOO_MANY}): make room for a database there"),
        (V3, say(400, no_room("db name too long: max 64")), "name one that exists"),
        (V3, say(400, no_room("invalid character in database or rp name: must be ASCII")), "name one that exists"),
    ],
)
def test_refused_for_now(version: dict[str, Any], reply: Reply, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is no InfluxDB's yes or no to the points themselves is said, and the very same points are sent again."""
    with faulty(reply, say(204)) as web, pushing(web.url, **version) as exporter:
        exporter.write(batch_of(many(5)))
        assert settled(exporter).delivered == 10
    first, second = web.writes
    assert (first.path, first.body) == (second.path, second.body)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("header", "least", "most"), [("7", 7, 7), ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 1e10), ("x", 0, 0)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_is_asked_for(status: int, header: str, least: float, most: float) -> None:
    """Retry-After, in seconds or as a date, becomes the refusal's wait."""
    with faulty(say(status, Retry_After=header)) as web:
        exporter = InfluxDB(Config(influxdb=web.url, **V3))
        with pytest.raises(Refusal) as refused:
            exporter.deliver(Chunk(b"m v=1 1\n", 1), 5)
        exporter.close(0)
    assert least <= refused.value.wait_s <= most


# --- connections that break -------------------------------------------------------------------------------------------


def reset_in_body(talk: Talk, request: Request) -> None:
    """Half of the body is read, then it hangs up."""
    talk.body(request, most=1000)
    talk.reset()


def hang_up(talk: Talk, request: Request) -> None:
    """Everything is read, and nothing said."""
    talk.body(request)
    talk.sock.close()


def cut_answer(talk: Talk, request: Request) -> None:
    """An answer that ends in the middle; what it says is not to be believed."""
    talk.body(request)
    talk.sock.sendall(b'HTTP/1.1 400 X\r\nContent-Length: 1000\r\n\r\n{"error": "partial write: unable to parse')
    talk.sock.close()


def cut_status(talk: Talk, request: Request) -> None:
    talk.body(request)
    talk.sock.sendall(b"HTTP/1.1 20")
    talk.sock.close()


def no_http(talk: Talk, request: Request) -> None:
    """Another protocol."""
    talk.body(request)
    talk.sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    talk.sock.close()


def silent(talk: Talk, request: Request) -> None:
    """Reads everything, and never answers."""
    talk.body(request)
    talk.nothing()


def deaf(talk: Talk, _: Request) -> None:
    """Never reads, never answers."""
    talk.nothing()


def dripping(talk: Talk, request: Request) -> None:
    """A byte now and then."""
    talk.body(request)
    for byte in itertools.cycle(b"HTTP/1.1 204 " * 1000):
        talk.sock.sendall(bytes([byte]))
        if talk.ended.wait(0.05):
            return


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (reset_in_body, "Connection reset by peer|it hung up without an answer"),
        (hang_up, "it hung up without an answer"),
        (cut_answer, "its answer is cut"),
        (cut_status, "what answers does not speak HTTP"),
        (no_http, "what answers does not speak HTTP"),
        (silent, "it does not answer in time"),
        (deaf, "it does not take what is sent"),
        (dripping, "it does not answer in time"),
    ],
)
def test_a_connection_that_breaks(fault: Reply, said: str, large: Batch, caplog: pytest.LogCaptureFixture) -> None:
    """However a try ends, it ends, is said, and the very same points are sent again."""
    with faulty(fault, say(204)) as web, pushing(web.url, **V3) as exporter:
        exporter.write(large)
        assert settled(exporter).delivered == 10_000
    assert len({line for one in web.writes[1:] for line in one.lines}) == 10_000
    assert re.search(rf"cannot be reached \(({said})\)", caplog.text) and "works again" in caplog.text


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("stays", "over_tls"), [(False, False), (True, False), (True, True)])
def test_an_answer_before_the_whole_body(
    stays: bool, over_tls: bool, large: Batch, secure: tuple[ssl.SSLContext, dict[str, Any]]
) -> None:
    """A server that says 413 to the header, and reads no body, is heard: it gets smaller pieces, and every point."""

    def early(talk: Talk, request: Request) -> None:
        if int(request.headers["content-length"]) > 200_000:
            talk.say(413, b'{"error":"too large"}')
            if not stays:
                talk.reset()
            else:
                talk.nothing()
        else:
            talk.body(request)
            stored.extend(request.lines)
            talk.say(204)

    stored: list[str] = []
    tls, more = secure if over_tls else (None, {})
    with faulty(early, tls=tls) as web, pushing(web.url, **V3, **more) as exporter:
        exporter.write(large)
        assert settled(exporter).delivered == 10_000
    assert len(stored) == len(set(stored)) == 10_000


@pytest.mark.usefixtures("impatient")
def test_a_server_that_pauses(
    large: Batch,
    secure: tuple[ssl.SSLContext, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What TLS 1.3 sends of its own is not taken for an answer: a server that reads nothing until it has been looked at
    in the middle of a body gets the rest of it."""
    begun, looked = influxdb_server._begun, threading.Event()

    def noting(sock: socket.socket) -> bytes | None:
        first = begun(sock)
        looked.set()
        return first

    def pausing(talk: Talk, request: Request) -> None:
        assert looked.wait(servers.DEADLINE_S)
        say(204)(talk, request)

    monkeypatch.setattr(influxdb_server, "_begun", noting)
    tls, more = secure
    with faulty(pausing, tls=tls) as web, pushing(web.url, **V3, **more) as exporter:
        exporter.write(large)
        assert settled(exporter).delivered == 10_000
    assert (web.connections, caplog.text) == (1, "")


def test_an_idle_connection_that_was_closed(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that the server closed between two pushes, before or just as the next one came, is no failure."""

    def once(talk: Talk, request: Request) -> None:
        talk.body(request)
        talk.say(204)
        talk.sock.close()

    def just_as_it_comes(talk: Talk, _: Request) -> None:
        talk.reset()

    with faulty(once, say(204), just_as_it_comes, say(204)) as web, pushing(web.url, **V3) as exporter:
        for i in range(4):
            exporter.write(batch_of(many(1, NOW_NS + i)))
            settled(exporter)
        assert exporter.counts().delivered == 8
    assert (web.connections, caplog.text) == (3, "")


def test_a_connection_is_kept(server: servers.InfluxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nothing breaks, all goes over one connection."""
    connect, made = influxdb_server.Connection._connect, []

    def noting(self: influxdb_server.Connection, end: float) -> Any:
        made.append(self)
        return connect(self, end)

    monkeypatch.setattr(influxdb_server.Connection, "_connect", noting)
    with pushing(server.url, "kept", **QUICK) as exporter:
        for i in range(5):
            exporter.write(batch_of(many(10, NOW_NS + 100 * i)))
            settled(exporter)
    assert len(made) == 1


# --- lines that are refused for what they are -------------------------------------------------------------------------

POISON = 666
"""A switch that the test's server does not want to hear of."""


def poisoned(line: str) -> bool:
    return f"switch_id={POISON}" in line


class Wary:
    """A database that stores all or nothing of a request, or what it can of it, and says why in its version's words."""

    def __init__(self, words: Callable[[list[str], list[int]], tuple[int, Any]], *, partial: bool = False) -> None:
        self._words, self._partial = words, partial
        self.stored: set[str] = set()

    def __call__(self, lines: list[str]) -> tuple[int, Any]:
        bad = [at for at, line in enumerate(lines) if poisoned(line)]
        if not bad or self._partial:
            self.stored |= {line for line in lines if not poisoned(line)}
        return self._words(lines, bad) if bad else (204, None)


def opaque(_: list[str], __: list[int]) -> tuple[int, Any]:
    return 400, {"code": "invalid", "message": "something is wrong"}


def by_text(lines: list[str], bad: list[int]) -> tuple[int, Any]:
    text = "\n".join(f"unable to parse '{lines[at]}': missing field value: 'x': y" for at in bad)
    return 400, {"code": "invalid", "message": text}


def by_first_line(_: list[str], bad: list[int]) -> tuple[int, Any]:
    return 400, {"code": "invalid", "message": "bad", "line": bad[0] + 1, "err": "bad"}


def dropped(_: list[str], bad: list[int]) -> tuple[int, Any]:
    text = f"failure writing points to database: partial write: points beyond retention policy dropped={len(bad)}"
    return 422, {"code": "unprocessable entity", "message": text}


def numbered(lines: list[str], bad: list[int]) -> tuple[int, Any]:
    data = [{"original_line": lines[at], "line_number": at + 1, "error_message": "no"} for at in bad]
    return 400, {"error": "partial write of line protocol occurred", "data": data}


def first_hundred(lines: list[str], bad: list[int]) -> tuple[int, Any]:
    return numbered(lines, bad[:100])


def beyond_a_limit(lines: list[str], bad: list[int]) -> tuple[int, Any]:
    return 422, numbered(lines, bad)[1]


@pytest.mark.parametrize(
    ("version", "words", "partial", "count", "requests"),
    [
        (V2, opaque, False, 1, 2 * 11 + 1),
        (V3, opaque, False, 3, 3 * (2 * 11 + 1)),
        (V2, opaque, False, SEARCHES, SEARCHES * 2 * 11 + 1),
        (V2, by_text, False, 3, 2),
        (V2, by_text, False, 250, 2),
        (V2, by_first_line, False, 3, 4),
        (V2, dropped, True, 3, 1),
        (V3, numbered, True, 3, 1),
        (V3, first_hundred, True, 250, 3),
        (V3, beyond_a_limit, True, 3, 1),
    ],
)
def test_poisonous_lines(
    version: dict[str, Any],
    words: Callable[[list[str], list[int]], tuple[int, Any]],
    partial: bool,
    count: int,
    requests: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lines that the server refuses are counted, all others are delivered, in few requests; it is said once."""
    every = 1000 // count
    switches = [POISON if i % every == every // 2 else 1 for i in range(1000)]
    said = [many(1, NOW_NS + 10 * i, switch_id) for i, switch_id in enumerate(switches)]
    bad = switches.count(POISON)
    database = Wary(words, partial=partial)
    with faulty(judge(database)) as web, pushing(web.url, **version) as exporter:
        exporter.write(batch_of([report for one in said for report in one]))
        counts = settled(exporter)
    assert bad >= count
    assert (counts.delivered, counts.lost["rejected"]) == (2000 - bad, bad)
    assert len(database.stored) == 2000 - bad
    assert len(web.writes) <= requests
    assert caplog.text.count("rejects points") == 1 and "works again" not in caplog.text


@pytest.mark.parametrize("words", [opaque, by_text])
def test_poisonous_lines_on_disk(
    words: Callable[[list[str], list[int]], tuple[int, Any]], tmp_path: pathlib.Path
) -> None:
    """With a spool it is the same, and nothing of it is left there for the next start."""
    database = Wary(words)
    more = {**V2, "spool": str(tmp_path)}
    with faulty(say(503), judge(database)) as web:
        with pushing(web.url, **more) as exporter:
            exporter.write(batch_of([*many(500), *many(2, NOW_NS + 10**6, POISON), *many(500, NOW_NS + 10**7)]))
            counts = settled(exporter)
        with pushing(web.url, **more) as later:
            assert later.counts().recovered == 0
    assert (counts.delivered, counts.lost["rejected"], len(database.stored)) == (2002, 2, 2002)


def test_points_that_waited_on_disk(server: servers.InfluxServer, tmp_path: pathlib.Path) -> None:
    """Points that one exporter could not deliver are there for the next, with the times they had: told by both =
    delivered by both = stored. One that is for another place leaves them alone."""
    more = {**QUICK, "spool": str(tmp_path)}
    with servers.influxdb(tmp_path / "influxdb") as away:
        away.stop()
        first = InfluxDB(Config(influxdb=away.url, influxdb_database="waited", **more))
        first.write(batch_of(many(100)))
        servers.wait(lambda: first.counts().spool_bytes, "the points are on disk")
        first.close(0.1)
        assert (first.counts().buffered, sum(first.counts().lost.values())) == (200, 0)
        with pushing(server.url, "waited", **more) as other:
            other.write(batch_of(many(1)))
            assert settled(other).delivered == other.counts().accepted == 2
        away.start()
        with pushing(away.url, "waited", **more) as second:
            second.write(batch_of(many(100, NOW_NS + 1000)))
            counts = settled(second)
        assert (counts.accepted, counts.recovered, counts.delivered) == (400, 200, 400)
        assert {p["time"] for p in away.points("waited")} == {NOW_NS + i + n for i in range(100) for n in (0, 1000)}
        assert away.stored("waited") == 400


def test_a_chunk_that_is_refused_line_by_line() -> None:
    """When every line is refused and the server does not say why, the search ends after a bounded number of requests,
    everything is counted, and what comes later is delivered."""
    database = Wary(opaque)
    with faulty(judge(database)) as web, pushing(web.url, **V2) as exporter:
        hops_only = [{**one, "changes": [{"hop": 0, "what": "hop_latency"}]} for one in many(5000, NOW_NS, POISON)]
        exporter.write(batch_of(hops_only))
        counts = settled(exporter)
        assert (counts.delivered, counts.lost["rejected"]) == (0, 5000)
        assert len(web.writes) <= 2 * SEARCHES * 13 + 1
        exporter.write(batch_of(many(5, NOW_NS - 100)))
        assert settled(exporter).delivered == 10


class Junk(InfluxDB):
    """Some of its lines are no lines."""

    junk = b"int_hop,switch_id= latency=\n"

    def spell(self, items: Sequence[Item]) -> bytes:
        lines = super().spell(items).splitlines(keepends=True)
        lines[::7] = [self.junk] * len(lines[::7])
        return b"".join(lines)


class AllJunk(Junk):
    def spell(self, items: Sequence[Item]) -> bytes:
        return self.junk * super().spell(items).count(b"\n")


def test_lines_a_real_server_cannot_read(server: servers.InfluxServer, caplog: pytest.LogCaptureFixture) -> None:
    """Of lines that a real InfluxDB cannot read those are counted, and the others are there."""
    for kind, rejected in ((Junk, 286), (AllJunk, 2000)):
        database = kind.__name__.lower()
        with pushing(server.url, database, kind, **QUICK) as exporter:
            exporter.write(batch_of(many(1000)))
            counts = settled(exporter)
        assert (counts.delivered, counts.lost["rejected"]) == (2000 - rejected, rejected)
        assert server.stored(database) == counts.delivered
    assert caplog.text.count("rejects points, which are counted and not sent again: ") == 2


def test_points_older_than_a_real_server_keeps(server: servers.InfluxServer) -> None:
    """Points beyond a retention policy are counted, and those within it stored."""
    server.query("CREATE DATABASE short WITH DURATION 1h")
    with pushing(server.url, "short", **QUICK) as exporter:
        exporter.write(batch_of([*many(10), *many(5, 4 * 10**18)]))  # 2023, and a time to come
        counts = settled(exporter)
    assert (counts.delivered, counts.lost["rejected"]) == (10, 20)
    assert server.stored("short") == 10


def test_more_series_than_a_real_server_takes(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Points of series beyond the server's limit are counted as it counts them, and hold up nothing. (InfluxDB 1.6
    counts too few: with a series that it refuses it drops points of others.)"""
    with (
        servers.influxdb(tmp_path / "influxdb", max_series=20) as server,
        pushing(server.url, "limit", **QUICK) as exporter,
    ):
        exporter.write(batch_of(many(1)))
        settled(exporter)
        known = server.stored("limit")  # of series within the limit; of later ones it may refuse a whole body
        assert known == 2
        for i in range(49):
            exporter.write(batch_of(many(1, NOW_NS + i, 1000 + i)))
        counts = settled(exporter)
        assert (counts.accepted, counts.delivered) == (100, 100 - counts.lost["rejected"])
        assert known <= server.stored("limit") <= counts.delivered < 100
    assert "max-series-per-database limit exceeded" in caplog.text


def test_too_large_by_version_3() -> None:
    """InfluxDB 3 says 500 to a body that is too large: it gets smaller ones, and every point; a single line that is
    too large is counted."""

    def verdict(lines: list[str]) -> tuple[int, Any]:
        if len("\n".join(lines)) > 5000 or (len(lines) == 1 and poisoned(lines[0])):
            return 500, {"error": "max request size (5000 bytes) exceeded"}
        if any(map(poisoned, lines)):
            return 413, {"error": "too large"}
        stored.extend(lines)
        return 204, None

    stored: list[str] = []
    with faulty(judge(verdict)) as web, pushing(web.url, **V3) as exporter:
        exporter.write(batch_of([*many(100), *many(1, NOW_NS + 1000, POISON)]))
        counts = settled(exporter)
    assert (counts.delivered, counts.lost["rejected"]) == (201, 1)
    assert len(stored) == len(set(stored)) == 201


# --- a real server that goes away -------------------------------------------------------------------------------------


class Load:
    """Batches that are written while something happens, each later than the one before."""

    def __init__(self, exporter: InfluxDB) -> None:
        self.exporter, self._batches = exporter, 0

    def write(self, batches: int = 10) -> None:
        for _ in range(batches):
            self.exporter.write(batch_of(many(100, NOW_NS + 1000 * self._batches)))
            self._batches += 1

    @property
    def told(self) -> int:
        return 200 * self._batches

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """In a thread, as long as this takes; at most 1,000 batches."""
        ended = threading.Event()

        def work() -> None:
            for _ in range(1000):
                self.write(1)
                if ended.wait(0.005):
                    return

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(servers.DEADLINE_S)


def further(exporter: InfluxDB) -> None:
    """Returns when more is delivered than was."""
    before = exporter.counts().delivered
    servers.wait(lambda: exporter.counts().delivered > before, "points are delivered")


def closed(load: Load, server: servers.InfluxServer, database: str) -> None:
    """Told = delivered = stored; nothing lost, nothing twice: a point twice would be one more than told."""
    counts = settled(load.exporter)
    assert load.told == counts.accepted == counts.delivered == server.stored(database)
    assert sum(counts.lost.values()) == 0
    assert load.exporter.problem() is None


def test_a_server_that_is_restarted_under_load(tmp_path: pathlib.Path) -> None:
    """A server that is killed and started again twice while points come gets every point, each once."""
    with servers.influxdb(tmp_path / "influxdb") as server, pushing(server.url, "restarted", **QUICK) as exporter:
        load = Load(exporter)
        for kill in (signal.SIGKILL, signal.SIGTERM):
            with load.going_on():
                further(exporter)
                assert server.process is not None
                server.process.send_signal(kill)
                server.stop()
                servers.wait(exporter.problem, "the outage is noticed")
                server.start()
                further(exporter)
        closed(load, server, "restarted")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_paused(tmp_path: pathlib.Path) -> None:
    """A server that stands still takes connections and does not answer; when it goes on, it has every point once,
    though it may get some of them several times."""
    with servers.influxdb(tmp_path / "influxdb") as server, pushing(server.url, "paused", **QUICK) as exporter:
        load = Load(exporter)
        with load.going_on():
            further(exporter)
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)
            try:
                servers.wait(exporter.problem, "the pause is noticed")
                first = exporter.counts().failures
                servers.wait(lambda: exporter.counts().failures > first + 2, "several tries")
            finally:
                server.process.send_signal(signal.SIGCONT)
            further(exporter)
        closed(load, server, "paused")


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[int]:
    """A file system of 32 MiB there, which only the process sees that is given (and who enters its namespace)."""
    folder.mkdir(parents=True)
    script = f'mount -t tmpfs -o size=32m none "{folder}"; echo; exec cat'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        try:
            yield holder.pid
        finally:
            holder.stdin.close()  # which ends it
            holder.wait(servers.DEADLINE_S)


@needs_root
def test_a_server_whose_disk_is_full(tmp_path: pathlib.Path) -> None:
    """A real server whose disk is full is said to be so, and gets every point, each once, when there is room again and
    it was restarted, as this InfluxDB has to be."""
    folder = tmp_path / "influxdb"
    with small_disk(folder / "wal") as holder:
        before = ["nsenter", f"--mount=/proc/{holder}/ns/mnt"]
        with servers.influxdb(folder, before=before) as server, pushing(server.url, "full", **QUICK) as exporter:
            load = Load(exporter)
            load.write()
            closed(load, server, "full")
            filler = pathlib.Path(f"/proc/{holder}/root/{folder}/wal/filler")
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            load.write()
            problem = servers.wait(exporter.problem, "the full disk is noticed") or ""
            assert "no space left on device" in problem and "its disk is full" in problem
            filler.unlink()
            server.stop()
            server.start()
            closed(load, server, "full")


# --- a network that loses packets -------------------------------------------------------------------------------------

LOSING = b"".join(
    struct.pack("<BBhi", *instruction)
    for instruction in (
        (0x85, 0x00, 0, 7),  # r0 = bpf_get_prandom_u32()
        (0xBF, 0x01, 0, 0),  # r1 = r0
        (0xB7, 0x00, 0, kernel.XDP_DROP),
        (0xA5, 0x01, 1, 2**32 // 10),  # if r1 < a tenth of all: return r0
        (0xB7, 0x00, 0, kernel.XDP_PASS),
        (0x95, 0x00, 0, 0),
    )
)
"""An XDP program that loses a packet in ten. The kernel may lack netem, and has this."""


def losing() -> int:
    """The program's descriptor."""
    code, license_ = ctypes.create_string_buffer(LOSING, len(LOSING)), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license_)
    count = len(LOSING) // 8
    return kernel.bpf(
        kernel.PROG_LOAD,
        struct.pack("=IIQQIIQII16s", kernel.PROG_TYPE_XDP, count, *addresses, 0, 0, 0, 0, 0, b"losing") + bytes(56),
    )


@contextlib.contextmanager
def far_away(name: str) -> Iterator[tuple[str, str, str]]:
    """A namespace behind a pair of interfaces: what they are called, here and there, and its address."""

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=60)

    near, far = f"{name}n", f"{name}f"
    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        try:
            ip("address", "add", "198.18.99.1/30", "dev", near)
            ip("-n", name, "address", "add", "198.18.99.2/30", "dev", far)
            ip("link", "set", near, "up")
            ip("-n", name, "link", "set", far, "up")
            ip("-n", name, "link", "set", "lo", "up")
            yield near, far, "198.18.99.2"
        finally:
            ip("link", "delete", near)
    finally:
        ip("netns", "delete", name)


@needs_root
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip (package iproute2)")
@pytest.mark.parametrize("over_tls", [False, True])
def test_a_network_that_loses_packets(tmp_path: pathlib.Path, over_tls: bool) -> None:
    """With a tenth of all packets lost on the way, both ways, every point arrives, each once."""
    name = f"loss{os.getpid() % 10**6}"
    with far_away(name) as (near, far, address), contextlib.ExitStack() as links:
        more: dict[str, Any] = {}
        if over_tls:
            authority = Authority(tmp_path)
            more["tls"] = authority.certificate("far", of=f"IP:{address}"), authority.file
        before = ["ip", "netns", "exec", name]
        with (
            servers.influxdb(tmp_path / "influxdb", host=address, before=before, **more) as server,
            pushing(server.url, "lossy", **QUICK, influxdb_ca=str(authority.file) if over_tls else None) as exporter,
        ):
            load = Load(exporter)
            load.write()
            closed(load, server, "lossy")
            for namespace, interface in ((None, near), (name, far)):
                with inside(namespace):
                    index = socket.if_nametoindex(interface)
                    link = kernel.link_create(losing(), index, kernel.XDP_FLAGS_SKB_MODE)
                    links.callback(os.close, link)
            for _ in range(2):
                load.write(10)
                settled(exporter)
            links.close()
            closed(load, server, "lossy")


def test_nothing_of_a_fault_is_left(server: servers.InfluxServer) -> None:
    """An exporter that is closed leaves no thread and no connection."""
    before = set(os.listdir("/proc/self/fd"))
    with pushing(server.url, "left", **QUICK) as exporter:
        exporter.write(batch_of(many(5)))
        settled(exporter)
    assert not any(thread.name == "influxdb" for thread in threading.enumerate())
    assert set(os.listdir("/proc/self/fd")) == before
    assert exporter.counts().delivered == 10
