"""Series -> exposition text (Prometheus' format 0.0.4), behind a small HTTP server: /metrics, /healthz, /readyz.

The text is written here: labels remembered for the series that stay, numbers written all at once
(benchmark/bench_scrape.py). prometheus_client adds what the process itself tells (process_*, python_info).
"""

from __future__ import annotations

import errno
import gzip
import http.server
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import prometheus_client

from ..batch import Batch, State
from ..config import Config
from ..errors import ExporterError, IntCollectorError
from ..series import Counts, Histogram, Labels, Series, scrape
from .text import LabelTexts, numbers, woven

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

INDEX = b"""<!DOCTYPE html><title>intcollector</title><h1>intcollector</h1>
<p><a href="metrics">metrics</a> <a href="healthz">healthz</a> <a href="readyz">readyz</a></p>
"""


class Text:
    """Series as exposition text. It remembers the labels' text of the series it showed last, and only those."""

    def __init__(self) -> None:
        self._labels = LabelTexts(_label_texts, 0)

    def render(self, series: Iterable[Series | Histogram]) -> bytes:
        """No Python loop over series but over those whose labels are new: lines are woven of columns of texts, a line
        feed in front of each."""
        out: list[bytes] = []
        for one in series:
            metric, labels = one.metric, self._columns(one.parts)
            out.append(f"# HELP {metric.name} {_help(metric.help)}\n# TYPE {metric.name} {metric.kind}".encode())
            if isinstance(one, Histogram):
                out += _histogram(one, labels)
            elif not labels:
                out += woven(len(one.values), f"\n{metric.name} ", numbers(one.values))
            else:
                out += woven(len(one.values), f"\n{metric.name}{{", *labels, "} ", numbers(one.values))
            out.append(b"\n")
        return b"".join(out)

    def _columns(self, parts: Iterable[Labels]) -> list[str | list[str]]:
        """Labels to be woven: `a="1"`, a comma, `b="2",c="3"` ..."""
        columns: list[str | list[str]] = []
        for part in parts:
            text = self._labels.of(part.columns)
            columns += [",", (text if part.rows is None else text[part.rows]).tolist()]
        return columns[1:]


def _label_texts(names: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """`a="1",b="2"`"""
    for row in values:
        yield ",".join([f'{name}="{_value(value)}"' for name, value in zip(names, row, strict=True)])


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _value(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(one: Histogram, labels: list[str | list[str]]) -> list[bytes]:
    """All lines of a histogram are a row."""
    name, totals = one.metric.name, numbers(one.totals)
    columns: list[str | list[str]] = []
    for at, bound in enumerate(one.bounds.tolist()):
        columns += [f"\n{name}_bucket{{", *labels, f',le="{bound!r}"}} ', numbers(one.counts[:, at])]
    columns += [f"\n{name}_bucket{{", *labels, ',le="+Inf"} ', totals]
    columns += [f"\n{name}_sum{{", *labels, "} ", numbers(one.sums)]
    columns += [f"\n{name}_count{{", *labels, "} ", totals]
    return woven(len(totals), *columns)


class Prometheus:
    """The endpoint. Every scrape reads the state anew and forgets what is gone; two at a time take turns.

    config.prometheus: where to listen; address: where it does (port 0 chooses one). state: reads the maps; called by
    one thread at a time. exporters: the pushing exporters' counts by name. not_ready: one sentence on why the
    collector is not ready, or None. series: what there is to show of a state.

    Errors: ExporterError, when the address cannot be listened on.
    """

    name = "prometheus"

    def __init__(
        self,
        config: Config,
        state: Callable[[], State],
        exporters: Callable[[], Mapping[str, Counts]] = dict,
        not_ready: Callable[[], str | None] = lambda: None,
        series: Callable[[State, Config, Mapping[str, Counts]], Sequence[Series | Histogram]] = scrape,
    ) -> None:
        if config.prometheus is None:
            raise ExporterError("prometheus has no address to listen on: give --prometheus [HOST:]PORT")
        self._config = config
        self._state = state
        self._exporters = exporters
        self.not_ready = not_ready
        self._series = series
        self._lock = threading.Lock()
        self._text = Text()
        self._lost = np.empty(0, "<u8")
        self._process = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._process)
        prometheus_client.PlatformCollector(registry=self._process)
        self._server = _listen(*config.prometheus, self)
        self.address: tuple[str, int] = self._server.socket.getsockname()[:2]
        self._closed = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name=self.name, daemon=True)
        self._thread.start()

    def metrics(self) -> bytes:
        """What /metrics answers."""
        with self._lock:
            if self._closed:
                raise ExporterError("the collector is closing")
            state = self._state()
            self._never_less(state.sources["lost"])
            series = self._series(state, self._config, self._exporters())
            del state  # the maps are much larger than what is shown of them
            text = self._text.render(series)
        return text + prometheus_client.generate_latest(self._process)

    def _never_less(self, lost: np.ndarray) -> None:
        """A report that comes late is no longer lost. A counter that went back would be a restart to Prometheus, and
        all that was ever lost a new loss: what was shown stays until it is true again. Sources keep their places."""
        known = min(len(lost), len(self._lost))
        np.maximum(lost[:known], self._lost[:known], out=lost[:known])
        self._lost = lost.copy()

    def write(self, batch: Batch) -> None:
        """Nothing: Prometheus asks for the state."""

    def apply(self, config: Config) -> None:
        self._config = config

    def close(self, timeout_s: float) -> None:
        if not self._closed:
            self._closed = True
            self._server.shutdown()
            self._server.server_close()
            with self._lock:  # a scrape under way reads maps that are given back after this
                pass
            self._thread.join(timeout_s)

    def counts(self) -> Counts:
        return Counts()

    def problem(self) -> str | None:
        return None


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle connection must not hold up the end
    exporter: Prometheus

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's name, which may take a name server's time."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # it went away: nobody to answer
            return
        log.exception("prometheus: a request of %s failed", client_address[0])


def _listen(host: str, port: int, exporter: Prometheus) -> _Server:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server_class = type("_Server", (_Server,), {"address_family": family, "exporter": exporter})
        server: _Server = server_class(address[:2], _Handler)
        return server
    except OSError as error:  # socket.gaierror is one
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        hint = {
            errno.EADDRINUSE: "something else listens there: stop it, or choose another port with --prometheus",
            errno.EADDRNOTAVAIL: "no interface of this machine has that address; 0.0.0.0 means all of them",
            errno.EACCES: "ports below 1024 need root: choose another with --prometheus",
        }.get(error.errno or 0, "give an address of this machine: --prometheus [HOST:]PORT, or off")
        raise ExporterError(f"prometheus cannot listen on {shown} ({name}): {hint}") from None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "intcollector"
    timeout = 30.0  # seconds a connection may say nothing
    server: _Server

    def do_GET(self) -> None:
        self._answer(*self._page())

    def do_HEAD(self) -> None:
        self._answer(*self._page())

    def _page(self) -> tuple[int, str, bytes]:
        """(status, content type, body)"""
        exporter = self.server.exporter
        path = self.path.partition("?")[0]
        if path == "/metrics":
            try:
                return 200, CONTENT_TYPE, exporter.metrics()
            except IntCollectorError as error:
                return 500, "text/plain; charset=utf-8", f"{error}\n".encode()
        if path == "/healthz":
            return 200, "text/plain; charset=utf-8", b"alive\n"
        if path == "/readyz":
            reason = exporter.not_ready()
            return 503 if reason else 200, "text/plain; charset=utf-8", f"{reason or 'ready'}\n".encode()
        if path == "/":
            return 200, "text/html; charset=utf-8", INDEX
        return 404, "text/plain; charset=utf-8", b"not found: there are /metrics, /healthz and /readyz\n"

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if len(body) > 1000 and _accepts_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Vary", "Accept-Encoding")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: " + format, self.address_string(), *args)


def _accepts_gzip(header: str) -> bool:
    """Whether Accept-Encoding asks for gzip (RFC 9110, section 12.5.3; a quality of 0 is a refusal)."""
    for part in header.split(","):
        coding, *parameters = (p.strip().lower() for p in part.split(";"))
        if coding == "gzip":
            return not any(p.replace(" ", "").rstrip("0") in ("q=", "q=0.") for p in parameters)
    return False
