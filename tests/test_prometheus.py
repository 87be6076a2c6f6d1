"""The endpoint, read by promtool and by a real Prometheus server."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import ipaddress
import pathlib
import re
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from intcollector import batch
from intcollector.batch import State
from intcollector.config import Config, Source
from intcollector.errors import ExporterError
from intcollector.exporters import EXPORTERS, exporter_class
from intcollector.exporters.prometheus import Prometheus, Text
from intcollector.exporters.text import LabelTexts, numbers
from intcollector.series import METRICS, Counts, Labels, Series, scrape

from . import servers
from .batches import a_state, flow, flow_key, rows, source

CONFIG = Config(prometheus=("127.0.0.1", 0))
EXPORTER_COUNTS = {
    "influxdb": Counts(10, 6, {"buffer_full": 3, "rejected": 0, "closed": 0}, buffered=1, buffered_bytes=99)
}


@contextlib.contextmanager
def endpoint(**more: Any) -> Iterator[Prometheus]:
    """An endpoint that shows a_state()."""
    exporter = Prometheus(
        more.pop("config", CONFIG), **{"state": a_state, "exporters": lambda: EXPORTER_COUNTS, **more}
    )
    try:
        yield exporter
    finally:
        exporter.close(5)


def request(exporter: Prometheus, path: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
    """An answer; the connection is closed."""
    host, port = exporter.address
    with urllib3.HTTPConnectionPool(host, port, retries=False) as pool:
        return pool.request(method, path, headers=headers, decode_content=False, timeout=30.0)


def samples(text: str) -> dict[str, str]:
    """`name{labels}` -> value, each once."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    assert len({name for name, _ in lines}) == len(lines)
    return dict(lines)  # type: ignore[arg-type]


def test_promtool_is_content() -> None:
    """`promtool check metrics` finds nothing in a full scrape, nor in one of a collector that saw nothing."""
    promtool = servers.program("promtool")
    for state in (a_state, State):
        with endpoint(state=state) as exporter:
            text = request(exporter, "/metrics").data
        for metric in METRICS.values():
            of_a_relay = metric.name.startswith("int_relay_")  # tests/test_relay.py has those
            assert of_a_relay or f"# TYPE {metric.name} {metric.kind}\n".encode() in text
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_prometheus_scrapes(tmp_path: pathlib.Path) -> None:
    """A real Prometheus scrapes the endpoint, and answers queries with the right numbers."""
    with (
        endpoint() as exporter,
        servers.prometheus(tmp_path / "prometheus", "{}:{}".format(*exporter.address)) as server,
    ):

        def ask(query: str) -> list[tuple[dict[str, str], float]]:
            found = server.get("/api/v1/query", query=query)["data"]["result"]
            return [
                ({k: v for k, v in one["metric"].items() if k not in ("__name__", "instance", "job")},
                 float(one["value"][1]))
                for one in found
            ]  # fmt: skip

        servers.wait(lambda: ask("int_events_total"), "a scrape")
        assert ask("sum(int_packets_total)") == [({}, 23)]
        labels = {
            "source": "10.0.0.1", "destination": "10.0.0.2", "source_port": "5000", "destination_port": "5000",
            "protocol": "17",
        }  # fmt: skip
        assert ask("int_flow_latency_seconds{protocol='17'}") == [(labels, 15e-9)]
        assert ask("int_flow_hop_latency_seconds{switch_id='5'}") == [({**labels, "switch_id": "5"}, 5e-9)]
        assert ask("int_flow_latency_seconds{source='2001:db8::1'}")[0][1] == 137e-9
        assert ask("int_hop_latency_seconds_count{switch_id='4'}") == [({"switch_id": "4"}, 4)]
        assert ask("int_hop_latency_seconds_sum{switch_id='4'}") == [({"switch_id": "4"}, 19e-9)]
        assert ask("int_hop_latency_seconds_bucket{switch_id='4',le='7e-09'}")[0][1] == 3
        assert 3e-9 < ask("histogram_quantile(0.7, int_hop_latency_seconds_bucket{switch_id='4'})")[0][1] <= 7e-9
        assert ask("int_queue_occupancy_max{switch_id='4'}") == [({"switch_id": "4", "queue_id": "5"}, 900)]
        assert ask("int_exporter_points_lost_total{reason='buffer_full'}")[0][1] == 3
        assert ask("sum(int_dropped_packets_total{switch_id='4'})") == [({}, 7)]
        assert ask("int_dropped_packets_total{reason!=''}")[0][0]["reason"] == "traffic_manager"
        assert ask("int_queue_occupancy_max_bytes") == [({"switch_id": "4", "queue_id": "5"}, 72000)]
        assert ask("int_egress_port_tx_utilization_ratio") == [({"switch_id": "4", "egress_port_id": "1"}, 0.75)]
        assert ask("int_reports_total / int_report_sampling_ratio") == ask("int_reports_total")
        assert ask("process_open_fds") != []


def test_a_scrape_is_a_picture_of_now() -> None:
    """A flow that is gone is gone from the next scrape, and a value is the state's own."""
    key = flow_key("10.0.0.1:1>10.0.1.0:2/17")
    states = [
        State(flow_keys=rows(batch.FLOW_KEY, key), flows=rows(batch.FLOW, flow((1, 5)))),
        State(flow_keys=rows(batch.FLOW_KEY, key), flows=rows(batch.FLOW, flow((1, 6)))),
        State(),
    ]
    with endpoint(state=iter(states).__next__) as exporter:
        shown = [samples(request(exporter, "/metrics").data.decode()) for _ in states]
    name = (
        'int_flow_latency_seconds{source="10.0.0.1",destination="10.0.1.0",source_port="1",destination_port="2",'
        'protocol="17"}'
    )
    assert [one.get(name) for one in shown] == ["5e-09", "6e-09", None]


def test_lost_reports_never_become_fewer() -> None:
    """A report that was lost at one scrape and came late by the next does not turn the counter back; nor does a source
    that was taken to begin anew, and went on as before."""

    def state(*lost: int) -> State:
        return State(
            sources=rows(
                batch.SOURCE,
                *(source("192.0.2.1", at, 0, received=9, lost=n, restarted=n) for at, n in enumerate(lost)),
            )
        )

    with endpoint(state=iter([state(5), state(4, 1), state(6, 0)]).__next__) as exporter:
        shown = [samples(request(exporter, "/metrics").data.decode()) for _ in range(3)]
    for what in ("lost", "restarted"):
        names = [[name for name in one if name.startswith(f"int_reports_{what}_total")] for one in shown]
        counts = [[one[name] for name in of_one] for one, of_one in zip(shown, names, strict=True)]
        assert counts == [["5"], ["5", "1"], ["6", "1"]]


def test_a_config_that_changes() -> None:
    """After apply(), a scrape shows what the new config says of sources and drop reasons."""
    sampling = 'int_report_sampling_ratio{source="192.0.2.1",switch_id="4",hw_id="1"}'
    with endpoint() as exporter:
        first = samples(request(exporter, "/metrics").data.decode())
        sources = (Source(ipaddress.ip_network("192.0.2.0/24"), (("sampling_ratio", 100),)),)
        exporter.apply(Config(sources=sources, drop_reasons=((71, "tail_drop"),)))
        second = samples(request(exporter, "/metrics").data.decode())
    assert (first[sampling], second[sampling]) == ("1", "100")
    assert second['int_report_sampling_ratio{source="2001:db8::9",switch_id="5",hw_id="0"}'] == "1"
    assert first['int_dropped_packets_total{switch_id="4",reason="traffic_manager"}'] == "6"
    assert second['int_dropped_packets_total{switch_id="4",reason="tail_drop"}'] == "6"


def test_text_is_the_same_with_and_without_cache() -> None:
    """Cached labels change nothing, and the cache holds what was shown last and no more."""
    text = Text()
    first = text.render(scrape(a_state(), CONFIG, EXPORTER_COUNTS))
    assert text.render(scrape(a_state(), CONFIG, EXPORTER_COUNTS)) == first
    empty = scrape(State(), CONFIG, {})
    text.render(empty)
    assert len(text._labels) == sum(len(next(iter(one.labels.values()))) for one in empty if one.labels)


def test_labels_are_escaped() -> None:
    """A backslash, a quote and a line feed in a label do not end it."""
    outcome = Labels({"outcome": np.array(['a\\b"c\nd'], dtype=object)})
    series = Series(METRICS["int_packets_total"], (outcome,), np.array([1]))
    assert Text().render([series]).decode().splitlines()[-1] == r'int_packets_total{outcome="a\\b\"c\nd"} 1'


def test_numbers() -> None:
    """Whole numbers stay whole, however large; others are written so that they read back the same."""
    shown = samples(Text().render(scrape(a_state(), CONFIG, EXPORTER_COUNTS)).decode())
    assert shown['int_reports_total{source="192.0.2.1",switch_id="4",hw_id="1"}'] == "15"
    assert float(shown['int_hop_latency_seconds_sum{switch_id="4"}']) == 19e-9
    counters = rows(batch.COUNTERS, {"events": 2**62})[0]
    large = samples(Text().render(scrape(State(counters=counters), CONFIG, {})).decode())
    assert large["int_events_total"] == str(2**62)


@given(
    st.lists(
        st.one_of(
            st.floats(),
            st.integers(0, 10**5).map(lambda ns: ns / 1e9),
            st.integers(0, 10**10).map(lambda ns: ns / 1e9),
            st.integers(0, 10**7).map(lambda us: us / 1e6),
            st.integers(0, 2**32).map(lambda units: units / 2.0**32),
        )
    )
)
def test_numbers_are_written_as_python_does(values: list[float]) -> None:
    """All at once or one by one, a number has the fewest digits that read back the same."""
    assert numbers(np.array(values, np.float64)) == list(map(repr, values))


def test_numbers_of_all_lengths() -> None:
    """Every number of digits, and of zeros at the end, where the way of writing changes and beside it."""
    ns = [n + more for power in range(19) for n in (10**power, 2 * 10**power) for more in (-1, 0, 1)]
    assert numbers(np.array(ns)) == list(map(str, ns))
    assert numbers(np.array(ns) / 1e9) == [repr(n / 1e9) for n in ns]
    assert numbers(np.arange(0, 10**6, 7) / 1e9) == [repr(n / 1e9) for n in range(0, 10**6, 7)]
    assert numbers(np.array([], np.float64)) == numbers(np.array([], np.int64)) == []


def test_labels_are_remembered_up_to_a_limit() -> None:
    """Labels that are known are not spelled again; beyond the limit only those asked for last are known."""
    spelled: list[tuple[str, ...]] = []

    def spell(names: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
        for row in values:
            spelled.append(row)
            yield " ".join(map("=".join, zip(names, row, strict=True)))

    known = LabelTexts(spell, 3)
    for ids, text in (([4, 5], ["a=4", "a=5"]), ([5, 6], ["a=5", "a=6"]), ([7], ["a=7"]), ([7, 4], ["a=7", "a=4"])):
        assert known.of({"a": np.array(ids)}).tolist() == text
    assert spelled == [("4",), ("5",), ("6",), ("7",), ("4",)]
    assert len(known) == 2
    two = {"a": np.array([1, 1]), "b": np.array(["x", "y"], object)}
    assert known.of(two).tolist() == ["a=1 b=x", "a=1 b=y"]
    assert known.of({"b": np.array([5])}).tolist() == ["b=5"]


def test_pages() -> None:
    """/healthz lives, /readyz says why not, / links to them, all else is 404; HEAD is GET without a body."""
    reason: list[str | None] = [None]
    with endpoint(not_ready=lambda: reason[0]) as exporter:
        assert (request(exporter, "/healthz").status, request(exporter, "/readyz").status) == (200, 200)
        reason[0] = "eth0 is gone: waiting for it"
        ready = request(exporter, "/readyz?x=1")
        assert (ready.status, ready.data) == (503, b"eth0 is gone: waiting for it\n")
        assert request(exporter, "/healthz").status == 200
        page = request(exporter, "/").data.decode()
        assert re.findall(r'href="(metrics|healthz|readyz)"', page) == ["metrics", "healthz", "readyz"]
        assert request(exporter, "/metricsx").status == 404
        get, head = (request(exporter, "/healthz", method) for method in ("GET", "HEAD"))
        assert (head.status, head.data, head.headers["Content-Length"]) == (200, b"", get.headers["Content-Length"])


def test_gzip_if_asked_for() -> None:
    """A scrape is compressed for who asks for it, and for nobody else."""
    with endpoint() as exporter:
        packed = request(exporter, "/metrics", **{"Accept-Encoding": "deflate;q=0.5, gzip"})
        plain = request(exporter, "/metrics")
        refused = request(exporter, "/metrics", **{"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "int_events_total 7\n" in gzip.decompress(packed.data).decode()
    for answer in (plain, refused):
        assert "Content-Encoding" not in answer.headers
        assert b"int_events_total 7\n" in answer.data
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_scrapes_take_turns() -> None:
    """Two scrapes at once do not read the maps at the same time."""
    inside = most = 0
    lock, together = threading.Lock(), threading.Event()

    def state() -> State:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside > 1:
                together.set()
        together.wait(0.2)  # for another to come in, which none should
        made = a_state()
        with lock:
            inside -= 1
        return made

    with endpoint(state=state) as exporter:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(request(exporter, "/metrics").status)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (statuses, most) == ([200] * 4, 1)


def test_state_that_cannot_be_read() -> None:
    """When the state cannot be read the scrape fails with the reason, and /healthz still answers."""

    def state() -> State:
        raise ExporterError("the maps are gone")

    with endpoint(state=state) as exporter:
        answer = request(exporter, "/metrics")
        assert (answer.status, answer.data) == (500, b"the maps are gone\n")
        assert request(exporter, "/healthz").status == 200


def test_closing_while_a_scrape_is_under_way() -> None:
    """A scrape that has begun to read the maps is answered, and close() waits for it: maps are given back after that.
    Closing again does nothing."""
    reading, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def state() -> State:
        reading.set()
        assert go_on.wait(60)
        done.append("read")
        return a_state()

    exporter = Prometheus(CONFIG, state)
    answers: list[urllib3.BaseHTTPResponse] = []
    scraping = threading.Thread(target=lambda: answers.append(request(exporter, "/metrics")))
    scraping.start()
    assert reading.wait(60)

    def close() -> None:
        exporter.close(30)
        done.append("closed")

    closing = threading.Thread(target=close)
    closing.start()
    go_on.set()
    for thread in (scraping, closing):
        thread.join(60)
    exporter.close(30)
    assert (done, answers[0].status) == (["read", "closed"], 200)
    with pytest.raises(urllib3.exceptions.HTTPError):
        request(exporter, "/healthz")


def test_idle_connections_hold_nothing_up() -> None:
    """Who connects and says nothing, or half a request, keeps neither others nor close() waiting."""
    with endpoint() as exporter, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(exporter.address, 60)) for _ in range(20)]
        silent[0].sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        assert request(exporter, "/metrics").status == 200
        exporter.close(60)
        assert [one.recv(1) for one in silent] == [b""] * len(silent)


def test_address_in_use() -> None:
    """A port that is taken is an error that names it and what to try; after close it is free again."""
    with endpoint() as exporter:
        config = Config(prometheus=exporter.address)
        with pytest.raises(ExporterError, match=rf"127.0.0.1:{exporter.address[1]} \(EADDRINUSE\).*--prometheus"):
            Prometheus(config, a_state)
    with endpoint(config=config) as again:
        assert request(again, "/healthz").status == 200


def test_address_of_nobody() -> None:
    """An address that this machine does not have, or that is no address, is an error in one sentence."""
    with pytest.raises(ExporterError, match="EADDRNOTAVAIL"):
        Prometheus(Config(prometheus=("192.0.2.77", 0)), a_state)
    with pytest.raises(ExporterError, match="cannot listen on"):
        Prometheus(Config(prometheus=("no such host", 0)), a_state)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library for the server, the endpoint says at once what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExporterError, match="pip install tornado"):
        Prometheus(CONFIG, a_state)


def test_ipv6() -> None:
    """The endpoint listens on an IPv6 address too."""
    with endpoint(config=Config(prometheus=("::1", 0))) as exporter:
        assert request(exporter, "/healthz").status == 200


def test_every_exporter_is_there() -> None:
    """Every name of the table leads to a class with that name."""
    assert [exporter_class(name).name for name in EXPORTERS] == list(EXPORTERS)
