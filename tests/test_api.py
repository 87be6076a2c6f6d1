"""The page's server: the API, the stream, the files, and who is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import logging
import pathlib
import re
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import urllib3

from intcollector import batch
from intcollector.batch import State
from intcollector.config import Config
from intcollector.errors import ExporterError
from intcollector.exporters import endpoint as served
from intcollector.exporters.live import LOOK_S, SHARE, SHARE_WATCHED, spelled
from intcollector.exporters.prometheus import Prometheus
from intcollector.picture import FLOWS, Around
from intcollector.series import Counts
from intcollector.told import Told

from . import servers
from .batches import a_state, batch_of, flow, report, rows
from .collectors import COMMAND, Collector, network
from .needs import needs_root

CONFIG = Config(prometheus=("127.0.0.1", 0))
API_MD = pathlib.Path(__file__).resolve().parent.parent / "docs" / "api.md"
COUNTS = {"jsonl": Counts(3, 3, {"closed": 0})}


@contextlib.contextmanager
def endpoint(state: Callable[[], State] = a_state, **more: Any) -> Iterator[Prometheus]:
    exporter = Prometheus(CONFIG, state, lambda: COUNTS, **{"around": Around, **more})
    try:
        yield exporter
    finally:
        exporter.close(30)


@pytest.fixture(scope="module")
def exporter() -> Iterator[Prometheus]:
    """One for all tests that only ask."""
    with endpoint() as made:
        yield made


def request(exporter: Prometheus, path: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
    host, port = exporter.address
    with urllib3.HTTPConnectionPool(host, port, retries=False) as pool:
        return pool.request(method, path, headers=headers, decode_content=False, timeout=60.0)


def said(exporter: Prometheus, path: str, status: int = 200) -> Any:
    """What the API answers."""
    answer = request(exporter, path)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json; charset=utf-8"), answer.data
    assert answer.headers["Cache-Control"] == "no-store"
    return json.loads(answer.data)


class Stream:
    """Who listens. Messages are (event, id, what it says); None: a comment."""

    def __init__(self, exporter: Prometheus, *, small: bool = False, receive: int | None = None) -> None:
        self._socket = socket.socket()
        if receive:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self._socket.settimeout(60)
        self._socket.connect(exporter.address)
        coding = "Accept-Encoding: gzip\r\n" if small else ""
        self._socket.sendall(f"GET /api/v1/stream HTTP/1.1\r\nHost: here\r\n{coding}\r\n".encode())
        self._file = self._socket.makefile("rb")
        self._unpack = zlib.decompressobj(31) if small else None
        self._text = b""
        self.status, self.headers, self.pieces = 0, dict[str, str](), 0

    def open(self) -> Stream:
        """Read the head of the answer."""
        self.status = int(self._file.readline().split()[1])
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(": ")
            self.headers[name] = value
        return self

    def _piece(self) -> bytes:
        """A chunk of the transfer."""
        size = int(self._file.readline() or b"0", 16)
        piece = self._file.read(size)
        self._file.readline()
        self.pieces += 1
        if size == 0:
            raise EOFError
        return self._unpack.decompress(piece) if self._unpack else piece

    def message(self) -> tuple[str, int, Any] | None:
        while b"\n\n" not in self._text:
            self._text += self._piece()
        message, _, self._text = self._text.partition(b"\n\n")
        if message == b":":
            return None
        event, number, data = (line.partition(": ")[2] for line in message.decode().split("\n"))
        return event, int(number), json.loads(data)

    def wait(self, event: str) -> Any:
        """What the next message of that kind says."""
        while (message := self.message()) is None or message[0] != event:
            pass
        return message[2]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Stream:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_every_path(exporter: Prometheus) -> None:
    """/api/v1 names the paths, and each of them answers; a member of the picture is what it is in the picture."""
    index = said(exporter, "/api/v1")
    assert index["api"] == 1 and all(index["paths"].values())
    picture = said(exporter, "/api/v1/picture")
    assert picture["flows"][0]["path"] == [6, 5, 4] and picture["exporters"][0]["delivered"] == 3
    names = set(index["paths"]) - {"/api/v1/picture", "/api/v1/stream", "/api/v1/flows/ID"}
    lists_ = {name.rpartition("/")[2] for name in names}
    assert lists_ == {name for name, value in picture.items() if isinstance(value, (dict, list))}
    for name in lists_ - {"events"}:
        part = said(exporter, f"/api/v1/{name}")
        assert type(part) is type(picture[name])
        if isinstance(part, dict):
            assert part.keys() == picture[name].keys()
    assert said(exporter, "/api/v1/outcomes?limit=2") == said(exporter, "/api/v1/outcomes")[:2]


def test_flows(exporter: Prometheus) -> None:
    """Flows come sorted, and not more than asked for; each has an address of its own, with its history."""
    flows = said(exporter, "/api/v1/flows")
    assert [one["latency_s"] for one in said(exporter, "/api/v1/flows?sort=latency")] == [137e-9, 15e-9]
    assert len(said(exporter, "/api/v1/flows?limit=1&sort=seen")) == 1 and said(exporter, "/api/v1/flows?limit=0") == []
    one = said(exporter, f"/api/v1/flows/{flows[0]['id']}")
    assert (one["source"], one["changes"], one["history"]["latency_s"][0]) == ("10.0.0.1", [], 15e-9)
    assert len(one["history"]["time"]) == len(one["history"]["latency_s"])


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/api/v1/nothing", 404, "there is no nothing: /api/v1 says what there is"),
        ("/api/v2/picture", 404, "there is no such path: /api/v1 says which there are"),
        ("/api/v1/flows/0123456789abcdef", 404, "no flow 0123456789abcdef is shown: /api/v1/flows has those that are"),
        ("/api/v1/flows?limit=-1", 400, "limit=-1 is not a whole number from 0 up"),
        ("/api/v1/flows?limit=1e3", 400, "limit=1e3 is not a whole number from 0 up"),
        ("/api/v1/events?after=x", 400, "after=x is not a whole number from 0 up"),
        ("/api/v1/flows?sort=size", 400, "flows can be sorted by latency, rate, changed, seen"),
        ("/api/v1/queues?sort=latency", 400, "flows can be sorted by"),
    ],
)
def test_what_is_not_there(exporter: Prometheus, path: str, status: int, sentence: str) -> None:
    """What is asked wrongly, or is not there, is answered with a sentence."""
    assert sentence in json.loads(request(exporter, path).data)["error"]
    assert request(exporter, path).status == status


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/api/v1", "/api/v1/picture", "/nothing",
                                  "/static/nothing.js", "/api/v1/nothing"])  # fmt: skip
def test_only_to_read_and_only_for_its_own_page(exporter: Prometheus, path: str) -> None:
    """Nothing can be written, no other site's page may read, and a browser is told not to guess or to load from
    elsewhere. HEAD is GET without a body."""
    get, head = (request(exporter, path, method, Origin="http://elsewhere") for method in ("GET", "HEAD"))
    assert (head.status, head.data) == (get.status, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    for answer in (get, head):
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        policy = dict(one.strip().partition(" ")[::2] for one in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'self'" and "unsafe" not in str(policy) and "http" not in str(policy)
        assert "tornado" not in answer.headers["Server"].lower()
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused = request(exporter, path, method)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
        assert b"only GET and HEAD are answered" in refused.data


def test_files_of_the_page(exporter: Prometheus) -> None:
    """All files of the page are served with their types; one that a browser has is not sent again; compressed for who
    takes that; and no other file is."""
    files = [path for path in served.WEB.rglob("*") if path.suffix in served.TYPES]
    assert {"index.html"} < {path.name for path in files}
    for path in files:
        name = path.relative_to(served.WEB)
        answer = request(exporter, "/" if str(name) == "index.html" else f"/static/{name}")
        assert (answer.status, answer.data) == (200, path.read_bytes())
        assert answer.headers["Content-Type"] == served.TYPES[path.suffix]
        assert answer.headers["Cache-Control"] == "no-cache"
    again = request(exporter, "/", **{"If-None-Match": request(exporter, "/").headers["ETag"]})
    assert (again.status, again.data) == (304, b"")
    small = request(exporter, "/", **{"Accept-Encoding": "gzip"})
    assert gzip.decompress(small.data) == (served.WEB / "index.html").read_bytes()
    for name_ in ("../endpoint.py", "..%2fpicture.py", "%2e%2e/picture.py", "/etc/passwd", "vendor", ".", "%00.js", ""):
        assert request(exporter, f"/static/{name_}").status == 404, name_


def test_every_url_in_the_page_is_relative() -> None:
    """The page works below any path of a proxy: it names nothing by the root of a host, and nothing elsewhere."""
    text = (served.WEB / "index.html").read_text()
    urls = re.findall(r'(?:href|src)="([^"#]*)', text)
    assert urls and not [url for url in urls if url.startswith(("/", "http:", "https:"))]


def test_maps_that_cannot_be_read() -> None:
    """While the maps cannot be read the API says why, and the rest still answers."""

    def state() -> State:
        raise ExporterError("the maps are gone")

    with endpoint(state) as exporter:
        assert said(exporter, "/api/v1/picture", 503) == {"error": "the maps are gone"}
        assert said(exporter, "/api/v1/flows/0123456789abcdef", 503) == {"error": "the maps are gone"}
        assert said(exporter, "/api/v1/events") == {"events": [], "last": 0, "skipped": 0}
        assert said(exporter, "/api/v1/stream", 503) == {"error": "the maps are gone"}
        assert request(exporter, "/healthz").status == 200


def test_a_relay() -> None:
    """A relay's page shows the flows that events told of, and its own counters; and says what is wrong with it."""
    told = Told(10)
    event = report({"switch_id": 4, "hop_latency": 7}, changes=["new_flow"], received_ns=time.time_ns())
    batch_ = batch_of([event])
    own = {
        "topic": "int", "group": "g", "events": 1, "messages_refused": {"not_json": 2}, "messages_missed": 0,
        "rebalances": 1, "lag_messages": {"0": 3}, "paused": False,
    }  # fmt: skip
    with endpoint(told.state, around=lambda: Around(kind="relay", relay=own, not_ready="no broker")) as exporter:
        picture = said(exporter, "/api/v1/picture")
        told.add(batch_, np.zeros(1, np.intp))
        exporter.write(batch_)
        later = servers.wait(lambda: said(exporter, "/api/v1/flows"), "a look at what was told")
        assert said(exporter, "/api/v1/events")["events"][0]["what"] == ["new_flow"]
    assert (picture["collector"]["kind"], picture["collector"]["relay"]) == ("relay", own)
    assert (later[0]["path"], later[0]["latency_s"], later[0]["seen_s"] < 60) == ([4], 7e-9, True)
    assert {"collector", "relay"} & {one["what"] for one in picture["diagnosis"] if one["state"] != "ok"}


def test_a_scrape_under_way_holds_nobody_up() -> None:
    """While a scrape is rendered, all else is answered."""
    rendering, go_on = threading.Event(), threading.Event()

    def series(*_: Any) -> Iterator[Any]:
        rendering.set()
        assert go_on.wait(60)
        yield from ()

    with endpoint(series=series) as exporter:
        answers: list[int] = []
        scraping = threading.Thread(target=lambda: answers.append(request(exporter, "/metrics").status))
        scraping.start()
        assert rendering.wait(60)
        with Stream(exporter) as stream:
            assert stream.wait("picture")["api"] == 1
        assert request(exporter, "/healthz").status == 200
        assert said(exporter, "/api/v1/collector")["kind"] == "collector"
        assert not answers
        go_on.set()
        scraping.join(60)
        assert answers == [200]


# --- the stream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", [False, True])
def test_stream(small: bool) -> None:
    """A stream has a picture at once and others as they are taken, and events as they come; each message can be read
    when it was sent, compressed or not."""
    with endpoint() as exporter, Stream(exporter, small=small) as stream:
        assert (stream.status, stream.headers.get("Content-Encoding")) == (200, "gzip" if small else None)
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        first = stream.message()
        assert first is not None and (first[0], first[2]["seconds"]) == ("picture", None)
        exporter.write(batch_of([report({"switch_id": 4}, changes=["new_flow"])]))
        news = stream.wait("events")
        assert ([one["n"] for one in news["events"]], news["last"], news["skipped"]) == ([1], 1, 0)
        second = stream.message()
        assert second is not None and second[0] == "picture" and second[1] > first[1]
        assert second[2]["events"]["last"] == 1 and second[2]["seconds"] > 0


def test_a_picture_is_spelled_as_any_json() -> None:
    """That latencies are spelled once, and not with each picture, shows nowhere."""
    seen = iter(range(1, 1000))

    def state() -> State:
        state = a_state()
        state.flows["seen"][0] = next(seen)
        return state

    with endpoint(state) as exporter:
        live = exporter.live
        assert live is not None
        for _ in range(3):
            with live._looking:
                shot = live._look()
        assert shot.body == spelled(shot.picture)
        assert [len(one["recent"]) for one in shot.picture["flows"]] == [3, 3]
        assert None in shot.picture["flows"][1]["recent"]


def test_all_get_the_same() -> None:
    """However many watch, a look is taken once for all."""
    looks = []

    def state() -> State:
        looks.append(1)
        return a_state()

    with endpoint(state) as exporter, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(exporter, small=at % 2 == 0)) for at in range(10)]
        times = [{stream.wait("picture")["time"] for _ in range(2)} for stream in streams]
        assert len(looks) <= 4
        assert len(set.union(*times)) <= len(looks)


def test_a_quiet_stream_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to be said, there is a comment now and then."""
    monkeypatch.setattr(served, "COMMENT_S", 0.01)
    with endpoint() as exporter, Stream(exporter) as stream:
        assert stream.message() is not None
        assert stream.message() is None


def test_as_many_streams_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit a stream is refused with a sentence; who leaves makes room."""
    monkeypatch.setattr(served, "STREAMS", 2)
    with endpoint() as exporter:
        with Stream(exporter) as one, Stream(exporter) as other:
            assert one.wait("picture") and other.wait("picture")
            assert "2 streams are open" in said(exporter, "/api/v1/stream", 503)["error"]
            assert said(exporter, "/api/v1/picture")["api"] == 1
        servers.wait(lambda: request(exporter, "/api/v1/stream", "HEAD").status == 200, "room again")


def test_streams_that_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that ask before the first of them has its picture, no more than the limit are served."""
    monkeypatch.setattr(served, "STREAMS", 2)
    go_on = threading.Event()

    def state() -> State:
        assert go_on.wait(60)
        return a_state()

    with endpoint(state) as exporter, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(contextlib.closing(Stream(exporter))) for _ in range(6)]
        servers.wait(lambda: exporter._endpoint and len(exporter._endpoint.under_way) == 6, "all have asked")
        go_on.set()
        assert sorted(stream.open().status for stream in streams) == [200] * 2 + [503] * 4


def test_as_many_connections_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects beyond a limit is hung up on, as open files are few; who is there is answered."""
    monkeypatch.setattr(served, "CONNECTIONS", 3)
    with endpoint() as exporter, contextlib.ExitStack() as stack:
        connected = [stack.enter_context(socket.create_connection(exporter.address, 60)) for _ in range(5)]
        assert [one.recv(1) for one in connected[3:]] == [b"", b""]
        for one in connected[:3]:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert one.makefile("rb").read().endswith(b"alive\n")
        assert request(exporter, "/healthz").status == 200


def test_requests_without_sense_are_not_logged(exporter: Prometheus, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody can have meant is refused, and does not fill the log."""
    for path in ("/api/v1/%ff", "/api/v1/flows/%ff", "/api/v1/flows?sort=%ff"):
        assert request(exporter, path).status == 400
    assert not [one for one in caplog.records if one.levelno >= logging.INFO]


def large() -> State:
    """As many flows as are shown, each with a long path."""
    keys = np.zeros(FLOWS, batch.FLOW_KEY)
    keys["ip_version"] = 4
    keys["source_port"] = np.arange(FLOWS)
    flows = np.repeat(rows(batch.FLOW, flow(*((switch, switch * 1000 + 7) for switch in range(16)))), FLOWS)
    return State(flow_keys=keys, flows=flows)


def test_a_client_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a stream and does not read it is cut off, and nothing is kept for it; others get theirs."""
    monkeypatch.setattr(served, "SLOW_S", 0.2)
    with endpoint(large) as exporter:
        slow = Stream(exporter, receive=4096)
        try:
            servers.wait(lambda: exporter._endpoint, "the server is there")
            assert exporter._endpoint is not None
            clients = exporter._endpoint.clients
            servers.wait(lambda: len(clients) == 1, "it has joined")
            servers.wait(lambda: not clients, "it was cut off")
            with Stream(exporter) as stream:
                assert len(stream.wait("picture")["flows"]) == FLOWS
        finally:
            slow.close()


def test_closing_ends_streams() -> None:
    """When the collector ends, so does a stream, properly."""
    with endpoint() as exporter, Stream(exporter) as stream:
        assert stream.wait("picture")
        closing = threading.Thread(target=exporter.close, args=(60,))
        closing.start()
        with pytest.raises(EOFError):
            stream.wait("nothing that is ever sent")
        closing.join(60)
        assert not closing.is_alive()


def test_looks_cost_little(exporter: Prometheus) -> None:
    """A look that takes long is taken less often: for a hundredth of a CPU, or a tenth while somebody watches."""
    live = exporter.live
    assert live is not None
    due = {}
    for cost_s in (0.001, 0.5):
        with live._looking:
            live._cost_s = cost_s
            due[cost_s] = [live._next_s(share) - live._looked_at for share in (SHARE_WATCHED, SHARE)]
    assert due == {0.001: [LOOK_S, LOOK_S], 0.5: [pytest.approx(5.0), pytest.approx(50.0)]}


# --- what is documented -----------------------------------------------------------------------------------------------


def documented() -> dict[str, set[str]]:
    """By heading of docs/api.md: the members that its table names."""
    found: dict[str, set[str]] = {}
    heading = ""
    for line in API_MD.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| `") and not line.startswith("| `/"):
            found.setdefault(heading, set()).update(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return found


REPORTS = 2000
TRAFFIC = ("--packets", str(REPORTS), "--rate", "4000", "--flows", "20", "--hops", "3", "--event-rate", "0.05",
           "--path-changes", "0.002", "--drop-reports", "0.02", "--loss", "0.05")  # fmt: skip


@needs_root
def test_all_members_are_documented(tmp_path: pathlib.Path) -> None:
    """docs/api.md names the members that a running collector answers with, all of them and no others; and the numbers
    of a real collector fit together."""
    with (
        network() as pair,
        Collector(pair.names[0], "--int-dscp", "23/63", "--jsonl", str(tmp_path / "events")) as collector,
    ):
        assert f"look: {collector.url}/\n" in collector.said()
        with pair.inside(1) as far:
            subprocess.run([*COMMAND, "generate", "-i", far, *TRAFFIC], check=True, capture_output=True)

        def quiet() -> bool:
            now = json.loads(collector.get("/api/v1/collector")[1])
            return bool(now["reports"] == REPORTS and now["reports_per_s"] == 0)

        collector.wait_until(quiet, "all has come, and was looked at twice")
        picture = json.loads(collector.get("/api/v1/picture")[1])
        assert all(value for value in picture.values() if isinstance(value, list)) and picture["events"]["events"]
        flow_id = max(picture["flows"], key=lambda one: one["path_changes"])["id"]
        flow_ = json.loads(collector.get(f"/api/v1/flows/{flow_id}")[1])
        found = {"picture": set(picture)}
        for name, value in picture.items():
            if isinstance(value, (dict, list)):
                found[name] = set(value if isinstance(value, dict) else value[0])
        found["network.links"] = set(picture["network"]["links"][0])
        found["events.events"] = set(picture["events"]["events"][0])
        found["flows.ID"] = set(flow_) - set(picture["flows"][0])
        assert documented() == found

        said = picture["collector"]
        assert said["reports"] == sum(one["packets"] for one in picture["outcomes"] if one["kind"] == "report")
        assert said["packets"] == sum(one["packets"] for one in picture["outcomes"])
        assert any(one["lost"] for one in picture["sources"])
        assert (
            said["reports"]
            == sum(one["reports"] for one in picture["sources"])
            == sum(one["reports"] for one in picture["flows"])
        )
        assert said["dropped_packets"] == sum(one["packets"] for one in picture["drops"])
        assert said["reports_lost"] == sum(one["lost"] for one in picture["sources"])
        assert (said["flows"], said["interfaces"][0]["mode"]) == (20, "native")
        assert said["interfaces"][0]["frames"] >= said["packets"] > 0
        assert {one["state"] for one in picture["diagnosis"]} <= {"ok", "warn"}
        switches = {one["switch_id"] for one in picture["switches"]}
        assert switches >= set(picture["network"]["switches"])
        for one in picture["flows"]:
            assert one["path"] == [hop["switch_id"] for hop in one["hops"]] and set(one["path"]) <= switches
            assert sum(hop["latency_s"] for hop in one["hops"]) == pytest.approx(one["latency_s"])


def test_state_is_only_read(exporter: Prometheus) -> None:
    """A picture leaves the arrays as they were."""
    state, same = a_state(), a_state()
    with endpoint(lambda: state) as other:
        said(other, "/api/v1/picture")
    for field in dataclasses.fields(State):
        assert np.array_equal(getattr(state, field.name), getattr(same, field.name))
