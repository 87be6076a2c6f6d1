"""Real Prometheus and InfluxDB servers for tests: on free ports of 127.0.0.1, with their data where the test says."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import pathlib
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
import urllib3

PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "influxd": "influxdb", "openssl": "openssl"}
"""Program -> Debian package."""

DEADLINE_S = 60.0
"""No wait is longer; what is waited for usually takes a second."""

T = TypeVar("T")


def program(name: str) -> str:
    """Its path; the test is skipped if it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return path


def wait(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """condition()'s first true value. Asks again at once, a hundredth of a second apart, up to the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.01)  # between two looks, not instead of one
    return value


def free_port() -> int:
    """One that nothing listens on at the moment, and that the kernel gives to no outgoing connection; by chance, so
    that tests in several processes do not meet."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclasses.dataclass
class Server:
    """A running server. folder: its data and log."""

    url: str
    folder: pathlib.Path
    command: list[str]
    ready: str
    process: subprocess.Popen[bytes] | None = None
    http: urllib3.PoolManager = dataclasses.field(default_factory=lambda: urllib3.PoolManager(retries=False))

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        wait(self._answers, f"{self.command[0]} answers")

    def _answers(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"{self.command[0]} ended with {code}:\n{(self.folder / 'log').read_text()[-2000:]}"
        try:
            return self.http.request("GET", self.url + self.ready, timeout=5.0).status < 300
        except urllib3.exceptions.HTTPError:
            return False

    def stop(self) -> None:
        """Ends it, by force if it does not end by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.http.clear()

    def get(self, path: str, **query: str) -> Any:
        """JSON of an answer."""
        answer = self.http.request("GET", f"{self.url}{path}?{urlencode(query)}", timeout=30.0)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)


@dataclasses.dataclass
class InfluxServer(Server):
    """InfluxDB 1.x. user: who asks, (name, password)."""

    user: tuple[str, str] | None = None

    def query(self, q: str, database: str = "", *, tags: bool = False) -> list[dict[str, Any]]:
        """The rows of a query's series: columns as keys, times in ns as `time`, the measurement as `measurement`; with
        the tags that each series is of, if these are wanted."""
        headers = urllib3.make_headers(basic_auth=":".join(self.user)) if self.user else {}
        query = urlencode({"db": database, "epoch": "ns", "q": q})
        answer = self.http.request("POST", f"{self.url}/query?{query}", headers=headers)
        (result,) = json.loads(answer.data)["results"]
        assert "error" not in result, result
        return [
            {**(series.get("tags", {}) if tags else {}), **dict(zip(series["columns"], row, strict=True)),
             "measurement": series.get("name")}
            for series in result.get("series", [])
            for row in series.get("values", [])
        ]  # fmt: skip

    def stored(self, database: str) -> int:
        """How many points a database holds of those that have a latency; 0 if there is no such database."""
        there = database in self.names("SHOW DATABASES")
        rows = self.query("SELECT count(latency) FROM /.*/", database) if there else []
        return sum(row["count"] for row in rows)

    def names(self, q: str, database: str = "") -> set[str]:
        """What a SHOW query lists."""
        return {row["name"] for row in self.query(q, database)}

    def points(self, database: str) -> list[dict[str, Any]]:
        """Every point of a database, columns without a value left out."""
        rows = self.query("SELECT * FROM /.*/", database) if database in self.names("SHOW DATABASES") else []
        return [{k: v for k, v in row.items() if v is not None} for row in rows]


def _ended(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def influxdb(
    folder: pathlib.Path,
    max_body_size: int = 25_000_000,
    *,
    max_series: int = 1_000_000,
    host: str = "127.0.0.1",
    user: tuple[str, str] | None = None,
    tls: tuple[pathlib.Path, pathlib.Path] | None = None,
    before: Sequence[str] = (),
) -> Iterator[InfluxServer]:
    """influxd on a free port; stop() and start() keep its data. user: who may do everything, while others may nothing;
    tls: a file with its certificate and key, and one of who vouches for it; before: of its command, as `ip netns exec`.
    """
    influxd = program("influxd")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "influxd.conf").write_text(f"""
reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  max-series-per-database = {max_series}
[monitor]
  store-enabled = false
[http]
  bind-address = "{host}:{port}"
  log-enabled = false
  max-body-size = {max_body_size}
  auth-enabled = {str(user is not None).lower()}
  https-enabled = {str(tls is not None).lower()}
  https-certificate = "{tls[0] if tls else ""}"
""")
    url = f"{'https' if tls else 'http'}://{host}:{port}"
    server = InfluxServer(url, folder, [*before, influxd, "-config", f"{folder}/influxd.conf"], "/ping")
    if tls:
        server.http = urllib3.PoolManager(retries=False, ca_certs=str(tls[1]))
    try:
        server.start()
        if user:
            name, password = user
            server.query(f"CREATE USER \"{name}\" WITH PASSWORD '{password}' WITH ALL PRIVILEGES")
            server.user = user
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def prometheus(folder: pathlib.Path, target: str) -> Iterator[Server]:
    """A Prometheus server that scrapes target (HOST:PORT) every second."""
    path = program("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": [{"job_name": "intcollector", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    port = free_port()
    command = [
        path, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    yield from _ended(Server(f"http://127.0.0.1:{port}", folder, command, "/-/ready"))


@contextlib.contextmanager
def disk(folder: pathlib.Path, kib: int) -> Iterator[pathlib.Path]:
    """A small disk, which a test can fill; the test is skipped where that cannot be made."""
    folder.mkdir()
    ran = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], capture_output=True)
    if ran.returncode:
        pytest.skip(f"a small disk needs root and mount: {ran.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def static(status: int, body: bytes) -> Iterator[int]:
    """A web server with one answer, for what a real database says only on a bad day."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield web.server_address[1]
        finally:
            web.shutdown()
            thread.join()
