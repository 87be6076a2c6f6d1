"""Series -> exposition text (Prometheus' format 0.0.4), and what is behind the endpoint that serves it (endpoint.py).

The text is written here: labels remembered for the series that stay, numbers written all at once
(benchmark/bench_scrape.py). prometheus_client adds what the process itself tells (process_*, python_info).
"""

from __future__ import annotations

import errno
import importlib.util
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import prometheus_client

from ..batch import SOURCE, Batch, State
from ..config import Config
from ..errors import ExporterError
from ..series import Counts, Histogram, Labels, Series, scrape
from .text import LabelTexts, numbers, woven

if TYPE_CHECKING:  # the page comes later than the start
    from ..picture import Around
    from .endpoint import Endpoint
    from .live import Live


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


TAKEN_BACK = ["lost", "restarted"]
"""Counts of a source that turn out to have been too high: bpf/detect.h."""


class Prometheus:
    """The endpoint: metrics for who scrapes, and the page with its API for who looks. Every scrape reads the state anew
    and forgets what is gone; two at a time take turns.

    config.prometheus: where to listen; address: where it does (port 0 chooses one). state: reads the maps; called by
    one thread at a time. exporters: the pushing exporters' counts by name. not_ready: one sentence on why the
    collector is not ready, or None. series: what there is to show of a state. around: what else the page says of the
    collector; None: there is no page and no API.

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
        around: Callable[[], Around] | None = None,
    ) -> None:
        if config.prometheus is None:
            raise ExporterError("prometheus has no address to listen on: give --prometheus [HOST:]PORT")
        if importlib.util.find_spec("tornado") is None:
            raise ExporterError("prometheus needs the Python package tornado: run `pip install tornado`")
        self._config = config
        self._read_state = state
        self._exporters = exporters
        self.not_ready = not_ready
        self._series = series
        self._reading, self._rendering = threading.Lock(), threading.Lock()
        self._room = threading.Lock()  # the maps are large: there is one copy of them at a time
        self._text = Text()
        self._most = np.empty(0, SOURCE)[TAKEN_BACK]
        self._process = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._process)
        prometheus_client.PlatformCollector(registry=self._process)
        self._socket = _listen(*config.prometheus)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._closed = False
        self._around = around
        self._live: Live | None = None
        self._endpoint: Endpoint | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Who connects before this is imported waits that long; nobody else does, and no start of a collector."""
        try:
            from .endpoint import Endpoint
            from .live import Live

            if self._around:
                self._live = Live(self._config, self.state, self._exporters, self._around, self._room)
            self._endpoint = Endpoint(self._socket, self)
        finally:
            self._opened.set()
        self._endpoint.run()

    @property
    def live(self) -> Live | None:
        """What the page shows; None: there is none."""
        self._opened.wait()
        return self._live

    def state(self) -> State:
        """The maps, read by one at a time. Errors: IntCollectorError."""
        with self._reading:
            if self._closed:
                raise ExporterError("the collector is closing")
            state = self._read_state()
            self._never_less(state.sources)
        return state

    def metrics(self) -> bytes:
        """What /metrics answers."""
        with self._rendering:
            with self._room:
                state = self.state()
                series = self._series(state, self._config, self._exporters())
                del state  # the maps are much larger than what is shown of them
            text = self._text.render(series)
        return text + prometheus_client.generate_latest(self._process)

    def _never_less(self, sources: np.ndarray) -> None:
        """A report that comes late is no longer lost. A counter that went back would be a restart to Prometheus, and
        all that was ever lost a new loss: what was shown stays until it is true again. Sources keep their places."""
        known = min(len(sources), len(self._most))
        for name in TAKEN_BACK:
            counts = sources[name][:known]
            np.maximum(counts, self._most[name][:known], out=counts)
        self._most = sources[TAKEN_BACK].copy()

    def write(self, batch: Batch) -> None:
        """Prometheus asks for the state; the page is told what is news."""
        if self._live:
            self._live.write(batch)

    def apply(self, config: Config) -> None:
        self._config = config
        if self._live:
            self._live.apply(config)

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._opened.wait()
        with self._reading:  # what is under way reads maps that are given back after this
            self._closed = True
        if self._live:
            self._live.close(timeout_s)
        if self._endpoint:
            self._endpoint.close(timeout_s)
            self._thread.join(timeout_s)
        self._socket.close()

    def counts(self) -> Counts:
        return Counts()

    def problem(self) -> str | None:
        return None


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. The host's name is not looked up, which may take a name server's time."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    made = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address[:2])
        made.listen(128)
        made.setblocking(False)
        return made
    except OSError as error:  # socket.gaierror is one
        if made:
            made.close()
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        hint = {
            errno.EADDRINUSE: "something else listens there: stop it, or choose another port with --prometheus",
            errno.EADDRNOTAVAIL: "no interface of this machine has that address; 0.0.0.0 means all of them",
            errno.EACCES: "ports below 1024 need root: choose another with --prometheus",
        }.get(error.errno or 0, "give an address of this machine: --prometheus [HOST:]PORT, or off")
        raise ExporterError(f"prometheus cannot listen on {shown} ({name}): {hint}") from None
