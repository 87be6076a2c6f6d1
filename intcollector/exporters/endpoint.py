"""The HTTP server behind --prometheus: /metrics, /healthz, /readyz, the page and its API (docs/api.md).

One thread runs it. What takes long, reading the maps and rendering a scrape, is done by others, so that no stream waits
for it. It only ever answers GET and HEAD, lets no other site's page read it, and keeps nothing for a client that does
not take what it is sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gzip
import hashlib
import logging
import pathlib
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import tornado.httpserver
import tornado.iostream
import tornado.web

from ..errors import IntCollectorError
from .live import Live, Shot, packed, spelled

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"
WEB = pathlib.Path(__file__).resolve().parent.parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": TEXT,
}
"""What is served of the page's folder."""
NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
POLICY = (
    "default-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
IDLE_S = 30.0
"""A connection may say nothing for so long."""
CONNECTIONS = 256
"""Each is an open file; the collector itself needs some of those that a process may have, usually 1024."""
STREAMS = 64
COMMENT_S = 15.0
EVENTS_S = 0.2
"""How often events are sent at most."""
EVENTS = 100
"""How many at a time."""
SLOW_S = 20.0
"""Who does not take a message in so long is sent no other."""
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
PART = ("collector", "network", "flows", "queues", "ports", "switches", "sources", "drops", "outcomes", "exporters",
        "diagnosis", "events", "history")  # fmt: skip
"""What of a picture can be asked for alone."""
SORTS: dict[str, Callable[[dict[str, Any]], float]] = {
    "latency": lambda flow: -(flow["latency_s"] or 0.0),
    "rate": lambda flow: -(flow["reports_per_s"] or 0.0),
    "changed": lambda flow: -(flow["path_changed"] or 0.0),
    "seen": lambda flow: flow["seen_s"],
}
PATHS = {
    "/api/v1/picture": "everything below in one",
    "/api/v1/stream": "server-sent events: the picture every second, events as they come",
    "/api/v1/collector": "the collector: what it reads, how much, and whether it is ready",
    "/api/v1/network": "switches and the links between them, as the flows' paths show them",
    "/api/v1/flows": "flows with path and latency; limit=N, sort=latency|rate|changed|seen",
    "/api/v1/flows/ID": "one flow, with its latency over the last minutes and the changes of its path",
    "/api/v1/queues": "the fullest queues",
    "/api/v1/ports": "the slowest and the busiest egress ports",
    "/api/v1/switches": "hop latencies by switch",
    "/api/v1/sources": "who sends reports, and what was lost on the way",
    "/api/v1/drops": "dropped packets by switch and reason",
    "/api/v1/outcomes": "packets by what became of them",
    "/api/v1/exporters": "what became of the points of each exporter",
    "/api/v1/diagnosis": "what is wrong, if anything is, and what to do",
    "/api/v1/events": "events worth a line; after=N, those behind that number",
    "/api/v1/history": "rates over the last minutes",
}

T = TypeVar("T")


class Served(Protocol):
    """What the endpoint answers with. Errors of metrics(): IntCollectorError."""

    not_ready: Callable[[], str | None]

    @property
    def live(self) -> Live | None: ...

    def metrics(self) -> bytes: ...


def accepts_gzip(header: str) -> bool:
    """Whether Accept-Encoding asks for gzip (RFC 9110, section 12.5.3; a quality of 0 is a refusal)."""
    for part in header.split(","):
        coding, *parameters = (p.strip().lower() for p in part.split(";"))
        if coding == "gzip":
            return not any(p.replace(" ", "").rstrip("0") in ("q=", "q=0.") for p in parameters)
    return False


class Endpoint:
    """run() serves on a listening socket in the thread that calls it, until close() is called by another."""

    def __init__(self, listening: socket.socket, served: Served) -> None:
        self.served = served
        self._socket = listening
        self._workers = concurrent.futures.ThreadPoolExecutor(4, "endpoint")
        self.clients: set[Client] = set()
        self._watched = asyncio.Event()
        self.under_way: set[Handler] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._timeout_s = 0.0

    def run(self) -> None:
        """Serve."""
        asyncio.run(self._serve())

    def close(self, timeout_s: float) -> None:
        """Let run() return once what is under way is answered, or in that time; from another thread."""
        if not self._started.wait(timeout_s):
            return
        assert self._loop is not None and self._stop is not None
        self._timeout_s = timeout_s
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        more = {"endpoint": self}
        application = tornado.web.Application(
            [
                (r"/metrics", Metrics, more),
                (r"/healthz", Health, more),
                (r"/readyz", Ready, more),
                (r"/api(?:/v1)?/?", Index, more),
                (r"/api/v1/stream", Stream, more),
                (r"/api/v1/flows/([^/]+)", Flow, more),
                (r"/api/v1/([^/]+)", Part, more),
                (r"/()", Page, more),
                (rf"/static/((?:{NAME}/)*{NAME})", Page, more),
            ],
            default_handler_class=Nothing,
            default_handler_args=more,
            log_function=_log,
        )
        server = Server(application, idle_connection_timeout=IDLE_S, max_body_size=1 << 16)
        server.add_sockets([self._socket])
        ticking = asyncio.create_task(self._tick())
        self._started.set()
        await self._stop.wait()
        server.stop()
        ticking.cancel()
        for client in list(self.clients):
            client.leave()
        end = self._loop.time() + self._timeout_s
        while self.under_way and self._loop.time() < end:
            await asyncio.sleep(0.01)
        await server.close_all_connections()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def work(self, function: Callable[[], T]) -> Awaitable[T]:
        """Have another thread do it."""
        assert self._loop is not None
        return self._loop.run_in_executor(self._workers, function)

    # streams

    def joined(self, client: Client) -> None:
        """The maps are looked at more often while somebody watches."""
        self.clients.add(client)
        self._watched.set()
        if len(self.clients) == 1 and self.served.live:
            self.served.live.listen(self._looked)

    def left(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients:
            self._watched.clear()
            if self.served.live:
                self.served.live.unlisten(self._looked)

    def _looked(self, shot: Shot) -> None:
        """In the thread that looked."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, shot)

    def _publish(self, shot: Shot) -> None:
        for client in self.clients:
            client.shot = shot
            client.wake.set()

    async def _tick(self) -> None:
        """Wake streams when there are events."""
        said = 0
        while True:
            await self._watched.wait()
            await asyncio.sleep(EVENTS_S)
            live = self.served.live
            if self.clients and live and live.feed.last != said:
                said = live.feed.last
                for client in self.clients:
                    client.wake.set()


class Server(tornado.httpserver.HTTPServer):
    """Hangs up on who comes when there are CONNECTIONS."""

    there = 0

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple[Any, ...]) -> None:
        if self.there >= CONNECTIONS:
            stream.close()
            return
        self.there += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.there -= 1
        super().on_close(server_conn)


class Client:
    """Who listens to a stream: at most one picture waits for it."""

    def __init__(self, shot: Shot) -> None:
        self.wake = asyncio.Event()
        self.shot = shot
        self.gone = False

    def leave(self) -> None:
        self.gone = True
        self.wake.set()


def _log(handler: tornado.web.RequestHandler) -> None:
    request = handler.request
    log.debug("%s: %s %s %d", request.remote_ip, request.method, request.uri, handler.get_status())


class Handler(tornado.web.RequestHandler):
    """GET and HEAD, nothing else."""

    SUPPORTED_METHODS = ("GET", "HEAD")
    endpoint: Endpoint

    def initialize(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def set_default_headers(self) -> None:
        self.set_header("Server", "intcollector")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")

    def prepare(self) -> None:
        self.endpoint.under_way.add(self)

    def on_finish(self) -> None:
        self.endpoint.under_way.discard(self)

    def log_exception(self, *error: Any) -> None:
        """Of these the client is told."""
        if isinstance(error[1], (tornado.web.HTTPError, IntCollectorError)):
            log.debug("%s: %s", self.request.remote_ip, error[1])
        else:
            super().log_exception(*error)

    def compute_etag(self) -> str | None:
        return None  # where there is one it is known beforehand

    @property
    def gzipped(self) -> bool:
        """The client takes it."""
        return accepts_gzip(self.request.headers.get("Accept-Encoding", ""))

    async def answer(self, status: int, content_type: str, body: bytes) -> None:
        self.set_status(status)
        self.set_header("Content-Type", content_type)
        self.set_header("Vary", "Accept-Encoding")
        if len(body) > 1000 and self.gzipped:
            body = await self.endpoint.work(lambda: gzip.compress(body, 1))
            self.set_header("Content-Encoding", "gzip")
        self.write(body)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", TEXT)
        if status_code == 405:
            self.set_header("Allow", "GET, HEAD")
            self.finish("there is nothing to change here: only GET and HEAD are answered\n")
        else:
            self.finish(f"{status_code}: {self._reason}\n")


class Metrics(Handler):
    """A scrape."""

    async def get(self) -> None:
        try:
            text = await self.endpoint.work(self.endpoint.served.metrics)
        except IntCollectorError as error:
            await self.answer(500, TEXT, f"{error}\n".encode())
        else:
            await self.answer(200, METRICS_TYPE, text)

    head = get


class Health(Handler):
    """The process lives."""

    async def get(self) -> None:
        await self.answer(200, TEXT, b"alive\n")

    head = get


class Ready(Handler):
    """It collects, and its exporters deliver."""

    async def get(self) -> None:
        reason = self.endpoint.served.not_ready()
        await self.answer(503 if reason else 200, TEXT, f"{reason or 'ready'}\n".encode())

    head = get


class Nothing(Handler):
    """All else."""

    async def get(self, *_: str) -> None:
        if self.request.path.startswith("/api/"):
            await self.answer(404, JSON, spelled({"error": "there is no such path: /api/v1 says which there are"}))
        else:
            await self.answer(404, TEXT, b"not found: there are /, /api/v1, /metrics, /healthz and /readyz\n")

    head = get


class Page(Handler):
    """Files of the page. Each is read again when it was written to; a browser asks each time whether it was."""

    _known: dict[pathlib.Path, tuple[tuple[int, int], bytes, bytes, str]] = {}  # noqa: RUF012 - shared by all

    async def get(self, name: str) -> None:
        path = (WEB / (name or "index.html")).resolve()
        if not path.is_relative_to(WEB) or path.suffix not in TYPES or not path.is_file():
            await self.answer(404, TEXT, b"not found: there is no such file of the page\n")
            return
        plain, small, tag = await self.endpoint.work(lambda: self._content(path))
        self.set_header("Content-Type", TYPES[path.suffix])
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("ETag", f'W/"{tag}"')
        if self.check_etag_header():
            self.set_status(304)
            return
        if self.gzipped:
            self.set_header("Content-Encoding", "gzip")
        self.write(small if self.gzipped else plain)

    head = get

    @classmethod
    def _content(cls, path: pathlib.Path) -> tuple[bytes, bytes, str]:
        """(as it is, compressed, a name for this very content)"""
        said = path.stat()
        stamp = said.st_mtime_ns, said.st_size
        if (known := cls._known.get(path)) is None or known[0] != stamp:
            plain = path.read_bytes()
            known = stamp, plain, gzip.compress(plain, 6, mtime=0), hashlib.sha256(plain).hexdigest()[:16]
            cls._known[path] = known
        return known[1:]


# --- the API ----------------------------------------------------------------------------------------------------------


class Api(Handler):
    """Answers in JSON. An IntCollectorError is an answer: 503 with its sentence."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    async def said(self, said: Any, status: int = 200) -> None:
        await self.answer(status, JSON, said if isinstance(said, bytes) else spelled(said))

    async def refused(self, status: int, sentence: str) -> None:
        await self.said({"error": sentence}, status)

    def whole(self, name: str, default: int, low: int) -> int:
        """A number of the query. Errors: ValueError, a sentence."""
        text = self.get_query_argument(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < low:
            raise ValueError(f"{name}={text[:40]} is not a whole number from {low} up")
        return int(text)

    async def live(self) -> Live | None:
        """None: it was answered that there is none."""
        if self.endpoint.served.live is None:
            await self.refused(404, "nothing is looked at here: there are /metrics, /healthz and /readyz")
        return self.endpoint.served.live

    def write_error(self, status_code: int, **more: Any) -> None:
        self.set_header("Content-Type", JSON)
        _, error, _ = more.get("exc_info", (None, None, None))
        if isinstance(error, IntCollectorError):
            self.set_status(503)
            self.finish(spelled({"error": str(error)}))
        elif status_code == 405:
            self.set_header("Allow", "GET, HEAD")
            self.finish(spelled({"error": "there is nothing to change here: only GET and HEAD are answered"}))
        else:
            self.finish(spelled({"error": f"{status_code}: {self._reason}"}))


class Index(Api):
    """What there is."""

    async def get(self) -> None:
        await self.said({"api": 1, "paths": PATHS})

    head = get


class Part(Api):
    """The picture, or a member of it."""

    async def get(self, name: str) -> None:
        live = await self.live()
        if live is None:
            return
        if name != "picture" and name not in PART:
            await self.refused(404, f"there is no {name[:40]}: /api/v1 says what there is")
            return
        try:
            if name == "events":
                after = self.whole("after", 0, 0)
                await self.said(await self.endpoint.work(lambda: live.feed.after(after)))
                return
            limit, sort = self.whole("limit", 1 << 31, 0), self.get_query_argument("sort", "")
            if sort and (name != "flows" or sort not in SORTS):
                raise ValueError(f"sort={sort[:40]} is not possible: flows can be sorted by {', '.join(SORTS)}")
        except ValueError as error:
            await self.refused(400, str(error))
            return
        shot = await self.endpoint.work(live.fresh)
        if name == "picture":
            await self.said(await self.endpoint.work(lambda: shot.body))
            return
        part = shot.picture[name]
        if name == "flows":
            part = sorted(part, key=SORTS[sort]) if sort else part
        await self.said(part[:limit] if isinstance(part, list) else part)

    head = get


class Flow(Api):
    """One flow."""

    async def get(self, flow_id: str) -> None:
        live = await self.live()
        if live is None:
            return
        found = await self.endpoint.work(lambda: live.flow(flow_id))
        if found is None:
            await self.refused(404, f"no flow {flow_id[:40]} is shown: /api/v1/flows has those that are")
            return
        await self.said(found)

    head = get


class Stream(Api):
    """Server-sent events, until the client goes away, or does not take what it is sent."""

    client: Client | None = None

    async def get(self) -> None:
        live = await self.live()
        if live is None:
            return
        shot = await self.endpoint.work(live.fresh)
        if len(self.endpoint.clients) >= STREAMS:  # those counted that came while this one waited
            await self.refused(
                503, f"{STREAMS} streams are open, and there are no more: close some, or try again later"
            )
            return
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("X-Accel-Buffering", "no")  # nginx would wait for more
        small = self.gzipped
        if small:
            self.set_header("Content-Encoding", "gzip")
        if self.request.method == "HEAD":
            return
        client = self.client = Client(shot)
        self.endpoint.joined(client)
        self.endpoint.under_way.discard(self)  # nobody waits for its end
        try:
            if small:
                self.write(GZIP_HEADER)
            await self._send(client, live, small)
        except tornado.iostream.StreamClosedError:
            pass
        except asyncio.TimeoutError:
            log.debug("%s takes nothing: its stream was closed", self.request.remote_ip)
            self.detach().close()
        finally:
            self.endpoint.left(client)

    head = get

    async def _send(self, client: Client, live: Live, small: bool) -> None:
        loop = asyncio.get_running_loop()
        sent = 0
        said = 0
        next_s = loop.time()
        client.wake.set()
        while not client.gone:
            shot = client.shot
            if shot.number > sent:
                if not sent:
                    said = shot.picture["events"]["last"]
                sent = shot.number
                self.write(await self.endpoint.work(lambda shot=shot: shot.packed if small else shot.message))  # type: ignore[misc]
            elif live.feed.last > said and loop.time() >= next_s:
                next_s = loop.time() + EVENTS_S / 2
                news = live.feed.after(said, EVENTS)
                said = news["last"]
                message = b"event: events\nid: %d\ndata: %s\n\n" % (sent, spelled(news))
                self.write(packed(message) if small else message)
            else:
                client.wake.clear()
                try:
                    await asyncio.wait_for(client.wake.wait(), COMMENT_S)
                    continue
                except asyncio.TimeoutError:
                    self.write(packed(b":\n\n") if small else b":\n\n")
            await asyncio.wait_for(self.flush(), SLOW_S)

    def on_connection_close(self) -> None:
        if self.client:
            self.client.leave()
