"""A collector that is killed, and what arrives all the same."""

from __future__ import annotations

import pathlib
import signal

from intcollector import sending
from intcollector.lab import Lab
from intcollector.traffic import Traffic

from . import servers
from .collectors import Collector, Command, Metrics, ip, network

MARK, QUIET = ("--int-dscp", "23/63"), ("--keepalive", "0")
REPORTS = Traffic(packets=2000, flows=20, hops=3, event_rate=0.3, rate=1e6, seed=5)


def send(pair: Lab) -> None:
    with pair.inside(1) as far:
        sent = sending.send(REPORTS, far, method="packet")
    assert (sent.sent, sent.dropped) == (REPORTS.packets, 0)


def points(metrics: Metrics, what: str) -> float:
    return metrics.value(f"int_exporter_{what}", exporter="influxdb")


def test_kill_9_of_the_collector(tmp_path: pathlib.Path) -> None:
    """A collector that is killed while the server is away, and started again, delivers what it had told: the server
    holds each point once, with the time at which it was told; a second kill, with a request under way that the server
    does not answer, changes nothing."""
    with network() as pair:
        for end, address in enumerate(("10.77.0.1/24", "10.77.0.2/24")):
            with pair.inside(end) as name:
                ip("address", "add", address, "dev", name)
        ip("link", "set", "lo", "up")
        near, spool = pair.names[0], tmp_path / "spool"
        with servers.influxdb(tmp_path / "influxdb") as server:
            options = (
                near, *MARK, *QUIET, "--influxdb", server.url, "--push-interval", "0.05", "--spool", str(spool)
            )  # fmt: skip
            server.stop()
            with Collector(*options) as running:
                send(pair)
                running.wait_packets(REPORTS.packets, "ok")
                told = running.wait(
                    lambda m: points(m, "up") == points(m, "buffer_bytes") == 0 < points(m, "points_total"),
                    "all is on disk",
                )
                kept = points(told, "points_total")
                assert points(told, "buffer_points") == kept
                assert points(told, "failures_total") > 0 and points(told, "spool_bytes") > 20 * kept
                assert running.end(signal.SIGKILL) == -signal.SIGKILL
            server.start()
            with Collector(*options) as running:
                metrics = running.wait(lambda m: points(m, "buffer_points") == 0, "all is delivered")
                assert points(metrics, "points_delivered_total") == points(metrics, "points_recovered_total") == kept
                assert server.process is not None
                server.process.send_signal(signal.SIGSTOP)
                try:
                    send(pair)
                    running.wait_packets(REPORTS.packets, "ok")
                    running.wait(
                        lambda m: points(m, "spool_bytes") > 20 * kept and points(m, "buffer_bytes") > 0,
                        "a request is under way",
                    )
                    assert running.end(signal.SIGKILL) == -signal.SIGKILL
                finally:
                    server.process.send_signal(signal.SIGCONT)
            with Collector(*options) as running:
                metrics = running.wait(lambda m: points(m, "buffer_points") == 0, "all is delivered")
                recovered = points(metrics, "points_recovered_total")
                assert recovered == points(metrics, "points_total") == points(metrics, "points_delivered_total") > 0
                assert (points(metrics, "up"), points(metrics, "oldest_point_age_seconds")) == (1, 0)
                assert metrics.sum("int_exporter_points_lost_total") == 0
                assert running.end() == 0
            assert len(server.points("intcollector")) == kept + recovered
    assert {path.name for path in spool.rglob("*") if path.is_file()} == {"lock", "target"}


def test_a_minute_without_the_server(tmp_path: pathlib.Path) -> None:
    """A server that is stopped for a minute while reports go on coming has every point afterwards, and nothing was
    given up; the collector says how long the oldest has been waiting."""
    with network() as pair:
        ip("link", "set", "lo", "up")
        with (
            servers.influxdb(tmp_path / "influxdb") as server,
            Collector(pair.names[0], *MARK, *QUIET, "--influxdb", server.url, "--push-interval", "0.1") as running,
        ):
            with Command(
                "generate", "-i", pair.names[1], "--rate", "300", "--seconds", "70", "--flows", "20", "--hops", "3",
                "--event-rate", "0.3", namespace=pair.namespaces[1],
            ) as load:  # fmt: skip
                running.wait(lambda m: points(m, "points_delivered_total") > 0, "it delivers")
                server.stop()
                running.wait(lambda m: points(m, "oldest_point_age_seconds") >= 30, "half a minute went by")
                running.wait(lambda m: points(m, "oldest_point_age_seconds") >= 60, "and another half")
                told = points(running.metrics(), "points_total")
                server.start()
                assert load.process.wait(servers.DEADLINE_S) == 0, load.said()
            metrics = running.wait(lambda m: points(m, "buffer_points") == 0, "all is delivered")
            assert points(metrics, "points_total") == points(metrics, "points_delivered_total") > told
            assert metrics.sum("int_exporter_points_lost_total") == metrics.value("int_events_lost_total") == 0
            assert points(metrics, "oldest_point_age_seconds") == 0 and points(metrics, "up") == 1
            assert running.end() == 0
            assert len(server.points("intcollector")) == points(metrics, "points_total")
