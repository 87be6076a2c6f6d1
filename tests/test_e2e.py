"""The whole way: frames on a wire, through the kernel program of a running collector, to real servers and files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from intcollector import sending, traffic, wire
from intcollector.config import Config
from intcollector.lab import Lab
from intcollector.traffic import Traffic

from . import servers
from .collectors import COMMAND, ROOT, Collector, Metrics, frames, ip, network, send_frames, xdp
from .differ import VECTORS
from .needs import needs_root

pytestmark = needs_root

NEAR, FAR = "10.77.0.1", "10.77.0.2"
PORT = 54321
MARK = ("--int-dscp", "23/63")
"""What traffic.Traffic and the vectors mark packets with."""
QUIET = ("--keepalive", "0")
"""Without it a flow is told again after a second, and how many events there are would depend on the machine."""
MIX = Traffic(
    packets=20_000, flows=60, sources=2, hops=4, event_rate=0.1, path_changes=0.05, drop_reports=0.05,
    congestion_reports=0.05, loss=0.05, duplicates=0.05, reordered=0.05, ipv6=0.3, vlan=0.3, ipv6_sources=0.5,
    rate=1e6, seed=11, first_sequence_number=2**32 - 3000,
)  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    """Two namespaces with addresses; tests are in the near one, where collectors and servers run."""
    with network() as made:
        ip("address", "add", f"{NEAR}/24", "dev", made.names[0])
        with made.inside(1) as far:
            ip("address", "add", f"{FAR}/24", "dev", far)
        yield made


@pytest.fixture(scope="module")
def influx(pair: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.InfluxServer]:
    """One for all that do not stop it; a database for each."""
    with servers.influxdb(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


def send(pair: Lab, reports: Traffic) -> None:
    """All of it, from the far end. Not as live frames: those the receiver is too slow for are dropped."""
    with pair.inside(1) as far:
        sent = sending.send(reports, far, method="packet")
    assert (sent.sent, sent.dropped) == (reports.packets, 0)


@contextlib.contextmanager
def generating(pair: Lab, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`intcollector generate` at the far end, in the background."""
    with pair.inside(1) as far:
        process = subprocess.Popen(
            [*COMMAND, "generate", "-i", far, *arguments], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def generated(process: subprocess.Popen[str]) -> int:
    """How many it sent, at its end: fewer than it was to, if the receiver was too slow."""
    said, _ = process.communicate(timeout=servers.DEADLINE_S)
    assert process.returncode == ("not taken by the interface" in said), said
    return int(said.partition("sent ")[2].split()[0])


# --- counting ---------------------------------------------------------------------------------------------------------


def by_source(truth: traffic.Truth, counts: Any) -> dict[tuple[str, str, str], float]:
    """Some of the truth's numbers as /metrics has them."""
    keys = zip(truth.addresses, truth.switch_ids.tolist(), truth.hw_ids.tolist(), strict=True)
    return {(a, str(s), str(h)): float(n) for (a, s, h), n in zip(keys, counts.tolist(), strict=True)}


def check_truth(metrics: Metrics, truth: traffic.Truth) -> None:
    """Reports, lost, reordered, duplicated: by source, exactly."""
    for name, counts in (
        ("int_reports_total", truth.reports),
        ("int_reports_lost_total", truth.lost),
        ("int_reports_reordered_total", truth.reordered),
        ("int_reports_duplicated_total", truth.duplicated),
    ):
        assert metrics.by(name, "source", "switch_id", "hw_id") == by_source(truth, counts), name
        assert min(counts) > 0, "what is not there cannot be counted wrong"
    assert metrics.sum("int_dropped_packets_total") == truth.dropped > 0


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("transport", ["ring", "perf"])
def test_what_the_sources_sent(pair: Lab, mode: str, transport: str) -> None:
    """Reports, losses, reordering, duplicates and drops of two interleaved sources, and events, are counted exactly."""
    truth = traffic.truth(MIX)
    near = pair.names[0]
    with Collector(near, *MARK, *QUIET, "--xdp-mode", mode, "--event-transport", transport) as running:
        send(pair, MIX)
        metrics = running.wait_packets(MIX.packets, "ok")
        check_truth(metrics, truth)
        assert metrics.outcomes() == {"ok": MIX.packets}
        assert metrics.value("int_events_total") == truth.events
        assert metrics.value("int_events_lost_total") == 0
        assert metrics.value("int_flows") == MIX.flows
        assert metrics.sum("int_reports_restarted_total") == 0
        assert "Traceback" not in running.said()


def foreign() -> list[bytes]:
    """Frames that are nobody's reports: ARP, ICMP, TCP, IPv6, UDP to another port, unknown EtherTypes."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
    from scapy.layers.l2 import ARP, Dot1Q, Ether

    nobody = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:09")
    return [
        bytes(nobody / layers)
        for layers in (
            ARP(psrc="10.99.0.1", pdst="10.99.0.2"),
            IP(dst="10.99.0.2") / ICMP(),
            IP(dst="10.99.0.2") / TCP(dport=PORT),
            IP(dst="10.99.0.2") / UDP(dport=PORT + 1) / b"x",
            Dot1Q(vlan=5) / IP(dst="10.99.0.2") / UDP(dport=53) / b"x",
            IPv6(dst="2001:db8::9") / ICMPv6EchoRequest(),
            IPv6(dst="2001:db8::9") / UDP(dport=53) / b"x",
        )
    ] + [bytes.fromhex("020000000009020000000002") + b"\x88\xb5" + bytes(46)]


FOREIGN_OUTCOMES = Counter({"pass_not_ip": 2, "pass_not_udp": 3, "pass_port": 3})


def test_accounts_are_closed(pair: Lab, tmp_path: pathlib.Path) -> None:
    """Of valid, malformed and foreign frames in any order, each ends in the outcome it should; the outcomes' sum is
    what was sent."""
    chance = random.Random(3)
    ports = {v["options"]["port"] for v in VECTORS} - {6000}
    usual = {**VECTORS[0]["options"], "port": None}
    mine = [v for v in VECTORS if {**v["options"], "port": None} == usual and len(v["packet"]) >= 28]
    assert len(mine) > 80
    packets: list[bytes] = []
    want: Counter[str] = Counter()
    for vector in mine:
        times = chance.randint(1, 5)
        packets += [bytes.fromhex(vector["packet"])] * times
        want[vector["outcome"]] += times
    packets += foreign() * 20
    want.update({name: n * 20 for name, n in FOREIGN_OUTCOMES.items()})
    chance.shuffle(packets)
    assert len(want) > 25

    near = pair.names[0]
    options = [option for port in sorted(ports) for option in ("--port", str(port))]
    with Collector(near, *MARK, *QUIET, *options) as running:
        with pair.inside(1) as far:
            before = frames(far)[1]
        send_frames(pair, tmp_path, *packets)
        with pair.inside(1) as far:
            sent = frames(far)[1] - before
        assert sent == len(packets)
        metrics = running.wait_packets(sent)
        assert metrics.outcomes() == want
        assert metrics.sum("int_packets_total") == sent
        assert metrics.sum("int_reports_total") == want["ok"]


# --- what is not ours -------------------------------------------------------------------------------------------------


def transfer(pair: Lab, data: bytes) -> bytes:
    """data by TCP from the far namespace to the near one."""
    received = bytearray()
    with socket.create_server((NEAR, 0)) as server:
        server.settimeout(servers.DEADLINE_S)

        def sender() -> None:
            with pair.inside(1), socket.create_connection(server.getsockname(), servers.DEADLINE_S) as connection:
                connection.sendall(data)

        thread = threading.Thread(target=sender)
        thread.start()
        try:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(servers.DEADLINE_S)
                while some := connection.recv(1 << 16):
                    received += some
        finally:
            thread.join(servers.DEADLINE_S)
    return bytes(received)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_foreign_traffic_is_unharmed(pair: Lab, mode: str) -> None:
    """While reports come in, pings are answered both ways and a megabyte of TCP arrives as it was sent."""
    data = random.Random(1).randbytes(1 << 20)
    ping = shutil.which("ping")
    if ping is None:
        pytest.skip("ping is missing: apt-get install iputils-ping")
    near = pair.names[0]
    with (
        Collector(near, *MARK, "--xdp-mode", mode) as running,
        generating(pair, "--rate", "10000", "--seconds", "60", "--event-rate", "0.01"),
    ):
        running.wait(lambda m: m.outcomes().get("ok", 0) > 1000, "reports come in")
        command = [ping, "-n", "-q", "-c", "20", "-i", "0.02", "-W", "10"]
        outward = subprocess.run([*command, FAR], capture_output=True, text=True, timeout=servers.DEADLINE_S)
        with pair.inside(1):
            inward = subprocess.run([*command, NEAR], capture_output=True, text=True, timeout=servers.DEADLINE_S)
        for answer in (outward, inward):
            assert "20 packets transmitted, 20 received, 0% packet loss" in answer.stdout, answer.stdout
        before = running.metrics().outcomes()
        assert hashlib.sha256(transfer(pair, data)).digest() == hashlib.sha256(data).digest()
        after = running.wait(lambda m: m.outcomes()["ok"] > before["ok"] + 1000, "reports still come in").outcomes()
        assert set(after) - {"pass_not_ip"} == {"ok", "pass_not_udp"}  # ARP, unless the neighbours are known
        assert after["pass_not_udp"] > before["pass_not_udp"] >= 40


@pytest.mark.parametrize("turned", [False, True], ids=["default", "turned"])
def test_verdicts(pair: Lab, turned: bool) -> None:
    """By default accepted reports are consumed and malformed ones handed on; options turn both around, and what is no
    report is handed on all the same."""
    config = Config()
    good = next(iter(traffic.frames(Traffic(packets=1, flows=1, ipv6_sources=0))))[14 + 20 + 8 :]
    bad = bytes.fromhex("10000000") + bytes(2)  # a header cut short
    options = ("--accepted-verdict", "pass", "--malformed-verdict", "drop") if turned else ()
    with (
        Collector(pair.names[0], *MARK, *options) as running,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreigner,
    ):
        for number, bound in enumerate((receiver, foreigner)):
            bound.bind((NEAR, config.port[0] + number))
            bound.settimeout(servers.DEADLINE_S)
        with pair.inside(1), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for i in range(5):
                for what in (good, bad):
                    sender.sendto(what + bytes([i]), (NEAR, config.port[0]))
            sender.sendto(b"end", (NEAR, config.port[0] + 1))
        assert foreigner.recv(4096) == b"end"
        passed = good if turned else bad
        assert [receiver.recv(4096) for _ in range(5)] == [passed + bytes([i]) for i in range(5)]
        outcomes = running.metrics().outcomes()
        assert (outcomes["ok"], outcomes["trunc_report"], outcomes["pass_port"]) == (5, 5, 1)
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing else came
            receiver.recv(4096)


# --- Prometheus -------------------------------------------------------------------------------------------------------


def test_prometheus(pair: Lab, tmp_path: pathlib.Path) -> None:
    """A real Prometheus scrapes the running collector and gives what it counts; promtool has nothing to say."""
    near = pair.names[0]
    reports = dataclasses.replace(MIX, packets=5000)
    truth = traffic.truth(reports)
    with Collector(near, *MARK, *QUIET, "--jsonl", str(tmp_path / "events")) as running:
        send(pair, reports)
        metrics = running.wait_packets(reports.packets, "ok")
        status, text = running.get("/metrics")
        promtool = servers.program("promtool")
        said = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        assert (status, said.returncode, said.stdout + said.stderr) == (200, 0, "")

        with servers.prometheus(tmp_path / "prometheus", running.url.removeprefix("http://")) as prometheus:

            def ask(query: str) -> dict[tuple[str, ...], float]:
                answer = prometheus.get("/api/v1/query", query=query)["data"]["result"]
                names = ("outcome", "source", "switch_id", "hw_id", "le")
                return {
                    tuple(one["metric"][n] for n in names if n in one["metric"]): float(one["value"][1])
                    for one in answer
                }

            servers.wait(lambda: ask("up") == {(): 1.0} and ask("int_packets_total"), "Prometheus has scraped")
            assert ask("sum(int_packets_total)") == {(): reports.packets}
            assert ask('int_packets_total{outcome="ok"}') == {("ok",): reports.packets}
            assert ask("int_reports_lost_total") == by_source(truth, truth.lost)
            assert ask("int_events_total") == {(): truth.events}
            assert ask("count(int_flow_latency_seconds)") == {(): reports.flows}
            counts = ask("int_hop_latency_seconds_count")
            assert counts == {(s,): n for s, n in metrics.by("int_hop_latency_seconds_count", "switch_id").items()}
            latencies = hop_latencies(reports)
            assert sum(counts.values()) == len(latencies) > 0
            (total,) = ask("sum(int_hop_latency_seconds_sum)").values()
            assert total == pytest.approx(sum(latencies) / 1e9)
            for (bound,), count in ask("sum by (le) (int_hop_latency_seconds_bucket)").items():
                at_most = float(bound) * 1e9 + 0.5  # nanoseconds are whole
                assert count == sum(latency < at_most for latency in latencies), bound
        assert running.get("/readyz") == (200, "ready\n")
        assert running.end() == 0


def hop_latencies(reports: Traffic) -> list[int]:
    """All that the reports tell: of the hops in a stack, and of the reporting switch in a congested queue's report."""
    config, found = reports.config, []
    for frame in traffic.frames(reports):
        (report,) = wire.decode(frame, config)["reports"]
        found += [hop["hop_latency"] for hop in (report["int"] or {"hops": []})["hops"]]
        if report["congested_queue"]:
            found.append(report["local_hop"]["egress_timestamp"] - report["ingress_timestamp"] & 0xFFFF_FFFF)
    return found


# --- InfluxDB ---------------------------------------------------------------------------------------------------------

ONE_HOP = {
    "switch_id": 4, "ingress_port_id": 2, "egress_port_id": 3, "hop_latency": 400,
    "queue_id": 5, "queue_occupancy": 600, "ingress_timestamp": 1_524_234_160, "egress_timestamp": 1_524_234_560,
    "l2_ingress_port_id": 5, "l2_egress_port_id": 1000, "egress_port_tx_utilization": 1,
}  # fmt: skip


def intcollector_report(number: int, *, latency: int = 400, occupancy: int = 600, utilization: int = 1) -> bytes:
    """What INTCollector's generator sends for the flow of the example; the hop nearest the sink may differ."""
    first = ONE_HOP | {
        "hop_latency": latency,
        "queue_occupancy": occupancy,
        "egress_port_tx_utilization": utilization,
        "egress_timestamp": 1_524_234_560 + number,
    }
    others = [
        ONE_HOP | {"switch_id": switch, "egress_timestamp": 1_524_234_560 + 1000 * switch + number} for switch in (5, 6)
    ]
    report = {
        "version": "1.0", "source": "192.0.2.1", "switch_id": 1, "hw_id": 1, "sequence_number": number,
        "ingress_timestamp": 1_524_138_290 + number, "dropped": False, "congested_queue": False, "tracked_flow": True,
        "intermediate": False, "local_hop": None,
        "flow": {"vlan_ids": [], "ip_version": 4, "source": "10.0.0.1", "destination": "10.0.0.2", "protocol": 17,
                 "source_port": 5000, "destination_port": 5000, "dscp": 0},
        "int": {"version": "1.0", "mode": "MD", "instruction_bitmap": "0xff00", "hop_ml": 8, "remaining_hop_count": 3,
                "hop_count": 3, "hops": [first, *others], "latency": None},
    }  # fmt: skip
    return wire.encode(report, Config(profile="intcollector"), report_length=1, int_version_0=True)


FLOW = "10.0.0.1:5000->10.0.0.2:5000,proto=17"


@pytest.mark.parametrize(
    "options",
    [("--event-transport", "ring"), ("--event-mode", "interval"), ("--event-transport", "perf")],
    ids=["threshold", "interval", "perf"],
)
def test_schema_of_intcollector(
    pair: Lab, influx: servers.InfluxServer, tmp_path: pathlib.Path, options: tuple[str, str]
) -> None:
    """INTCollector's reports become the points it wrote, name for name: the same report twice gives one set, and a
    later one exactly the points that changed, at the times of the reports."""
    database = f"like_{options[1]}"

    def told(running: Collector, points: int) -> list[tuple[str, int, dict[str, Any]]]:
        """The database's points once so many were delivered: (measurement, time, fields), sorted."""
        delivered = running.wait(lambda m: m.sum("int_exporter_points_delivered_total") >= points, "points arrive")
        assert delivered.sum("int_exporter_points_total") == points
        rows = [dict(row) for row in influx.points(database)]
        return sorted((row.pop("measurement"), row.pop("time"), row) for row in rows)

    with Collector(
        pair.names[0], "--profile", "intcollector", *QUIET, "--influxdb", influx.url, "--influxdb-database", database,
        "--influxdb-schema", "intcollector", "--timestamps", "int", "--push-interval", "0.1", *options,
    ) as running:  # fmt: skip
        first = [
            (f"flow_stat,{FLOW}", 1_524_138_290, {"flow_latency": 1200, "path": "6:5:4"}),
            *[
                (f"{name},sw_id={switch}{more}", 1_524_234_560 + extra, {"value": value})
                for switch, extra in ((4, 0), (5, 5000), (6, 6000))
                for name, more, value in (
                    (f"flow_hop_latency,{FLOW}", "", 400),
                    ("port_tx_utilize", ",port_id=3", 1),
                    ("queue_occupancy", ",queue_id=5", 600),
                )
            ],
        ]
        send_frames(pair, tmp_path, intcollector_report(0))
        assert told(running, 10) == sorted(first)

        send_frames(pair, tmp_path, intcollector_report(1))
        metrics = running.wait_packets(2, "ok")
        assert metrics.value("int_events_total") == 1

        send_frames(pair, tmp_path, intcollector_report(2, latency=4, occupancy=6, utilization=1000))
        running.wait_packets(3, "ok")
        changed = [
            (f"flow_stat,{FLOW}", 1_524_138_292, {"flow_latency": 804, "path": "6:5:4"}),
            (f"flow_hop_latency,{FLOW},sw_id=4", 1_524_234_562, {"value": 4}),
            ("port_tx_utilize,sw_id=4,port_id=3", 1_524_234_562, {"value": 1000}),
            ("queue_occupancy,sw_id=4,queue_id=5", 1_524_234_562, {"value": 6}),
        ]
        assert told(running, 14) == sorted(first + changed)
        for _, _, fields in told(running, 14):
            assert all(isinstance(value, (int, str)) for value in fields.values())
        assert running.end() == 0


def drained(metrics: Metrics) -> bool:
    """All events were handed to the exporters, of which jsonl counts events and comes last."""
    return metrics.value("int_exporter_points_total", exporter="jsonl") == metrics.value("int_events_total")


def test_schema_of_tags(pair: Lab, influx: servers.InfluxServer, tmp_path: pathlib.Path) -> None:
    """Schema tags holds a point for every change, and the collector delivers what it has when it is told to end."""
    reports = Traffic(packets=2000, flows=20, hops=3, event_rate=0.3, rate=1e6, seed=5)
    with Collector(
        pair.names[0], *MARK, *QUIET, "--influxdb", influx.url, "--influxdb-database", "tagged", "--push-interval",
        "3600", "--jsonl", str(tmp_path / "events"),
    ) as running:  # fmt: skip
        send(pair, reports)
        running.wait_packets(reports.packets, "ok")
        running.wait(drained, "all events are drained")
        metrics = running.metrics()
        truth = traffic.truth(reports)
        assert metrics.value("int_events_total") == truth.events
        points = metrics.value("int_exporter_points_total", exporter="influxdb")
        assert influx.points("tagged") == []
        assert running.end() == 0
    rows = influx.points("tagged")
    assert len(rows) == points > truth.events
    assert {row["measurement"] for row in rows} == {"int_flow", "int_hop", "int_queue", "int_port"}
    assert all(0 < row["latency"] < 1e-4 for row in rows if row["measurement"] in ("int_flow", "int_hop"))


def test_influxdb_stopped_and_started_under_load(pair: Lab, tmp_path: pathlib.Path) -> None:
    """While InfluxDB is away the collector keeps what it has and is not ready; all of it arrives once it is back."""
    with (
        servers.influxdb(tmp_path / "influxdb") as server,
        Collector(
            pair.names[0],
            *MARK,
            *QUIET,
            "--influxdb",
            server.url,
            "--influxdb-database",
            "load",
            "--push-interval",
            "0.1",
            "--jsonl",
            str(tmp_path / "events"),
        ) as running,  # fmt: skip
        generating(
            pair, "--rate", "4000", "--packets", "24000", "--flows", "50", "--event-rate", "0.2", "--seed", "9"
        ) as generator,
    ):

        def points(metrics: Metrics, what: str) -> float:
            return metrics.value(f"int_exporter_{what}", exporter="influxdb")

        metrics = running.wait(lambda m: points(m, "points_delivered_total") > 500, "points arrive")
        before = points(metrics, "points_delivered_total")
        server.stop()
        running.wait(lambda m: points(m, "buffer_points") > 1000, "points are kept")
        status, reason = running.get("/readyz")
        assert status == 503
        assert reason.startswith(f"influxdb: {server.url} cannot be reached")
        assert generator.poll() is None, "the load ended too early to be one"
        server.start()
        running.wait(lambda m: points(m, "points_delivered_total") > before + 1000, "points arrive again")
        assert running.get("/readyz") == (200, "ready\n")
        sent = generated(generator)
        running.wait_packets(sent, "ok")
        running.wait(drained, "all events are drained")
        metrics = running.wait(lambda m: points(m, "buffer_points") == 0, "all is delivered")
        assert points(metrics, "points_delivered_total") == points(metrics, "points_total")
        assert metrics.sum("int_exporter_points_lost_total") == metrics.value("int_events_lost_total") == 0
        assert running.end() == 0
        assert len(server.points("load")) == points(metrics, "points_total")


# --- events and settings ----------------------------------------------------------------------------------------------

WORDS = {"new_flow", "path", "flow_latency", "dropped", "congested_queue", "keepalive"}
HOP_WORDS = {"hop_latency", "queue_occupancy", "egress_port_tx_utilization"}


def test_json_lines(pair: Lab, tmp_path: pathlib.Path) -> None:
    """Every event is a line: the report as decode gives it, when it came, what was news; all are there at the end."""
    path = tmp_path / "events.jsonl"
    truth = traffic.truth(MIX)
    begin = time.time_ns()
    with Collector(pair.names[0], *MARK, *QUIET, "--jsonl", str(path), "--push-interval", "3600") as running:
        send(pair, MIX)
        running.wait_packets(MIX.packets, "ok")
        metrics = running.wait(drained, "all events are drained")
        assert metrics.value("int_events_total") == truth.events
        assert metrics.value("int_events_lost_total") == 0
        assert running.end() == 0
        assert "Traceback" not in running.said()
    end = time.time_ns()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    lost = metrics.sum("int_exporter_points_lost_total")
    assert len(records) + lost == truth.events

    config = MIX.config
    reports = {json.dumps(wire.decode(frame, config)["reports"][0], sort_keys=True) for frame in traffic.frames(MIX)}
    news: Counter[str] = Counter()
    times = []
    for record in records:
        times.append(record.pop("received_ns"))
        changes = record.pop("changes")
        assert changes
        reason = record.pop("drop_reason", None)
        assert (reason is not None) == ("dropped" in changes)
        if reason is not None:
            code = record["local_hop"]["drop_reason"]
            assert reason == config.drop_reason_names.get(code, str(code))
        assert json.dumps(record, sort_keys=True) in reports
        for change in changes:
            if isinstance(change, str):
                assert change in WORDS
                news[change] += 1
            else:
                assert set(change) == {"hop", "what"} and change["what"] in HOP_WORDS
                assert change["hop"] == "local" or 0 <= change["hop"] < record["int"]["hop_count"]
    second = 10**9  # the two clocks need not agree to the last nanosecond
    assert begin - second < min(times) <= max(times) < end + second
    assert times == sorted(times)
    assert news["new_flow"] == truth.new_flows
    assert news["path"] == truth.path_changes
    assert news["dropped"] == truth.dropped
    assert news["congested_queue"] == truth.congested
    assert news["keepalive"] == 0


def test_keepalive(pair: Lab, tmp_path: pathlib.Path) -> None:
    """A flow that changes nothing is told again after the keep-alive time, and not before."""
    path = tmp_path / "events.jsonl"
    report = next(iter(traffic.frames(Traffic(packets=1, flows=1))))
    with Collector(
        pair.names[0], *MARK, "--keepalive", "0.5", "--jsonl", str(path), "--push-interval", "0.1"
    ) as running:
        end = time.monotonic() + servers.DEADLINE_S
        while running.metrics().value("int_events_total") < 3:
            assert time.monotonic() < end
            send_frames(pair, tmp_path, report)
        assert running.end() == 0
    first, second, third = (json.loads(line) for line in path.read_text().splitlines())
    assert "new_flow" in first["changes"] and "keepalive" not in first["changes"]
    assert second["changes"] == third["changes"] == ["keepalive"]
    for one, next_ in ((first, second), (second, third)):
        # a little less: the clock of the keep-alive ticks every few milliseconds
        assert next_["received_ns"] - one["received_ns"] > 0.4e9


def test_thresholds_change_while_it_runs(pair: Lab, tmp_path: pathlib.Path) -> None:
    """SIGHUP takes new thresholds from the file of options: what is news changes at once, the program stays."""
    path = tmp_path / "options"
    reports = dataclasses.replace(MIX, drop_reports=0, congestion_reports=0, path_changes=0, event_rate=0.3)
    names = ("hop-latency", "flow-latency", "queue-occupancy", "tx-utilization")

    def write(threshold: int, *more: str) -> None:
        path.write_text("\n".join([*(f"{name}-threshold = {threshold}" for name in names), *more]) + "\n")

    def events_of(running: Collector, packets: int) -> float:
        before = running.metrics().value("int_events_total")
        send(pair, reports)
        return running.wait_packets(packets, "ok").value("int_events_total") - before

    write(50)
    near = pair.names[0]
    with Collector(near, *MARK, *QUIET, "--config", str(path)) as running:
        program = xdp(near)
        assert events_of(running, reports.packets) == traffic.truth(reports).events

        write(10_000, "max-flows = 5", "# and a comment")
        os.kill(running.process.pid, signal.SIGHUP)
        running.wait_said("options read again, 4 changed")
        running.wait_said("these need a restart: --max-flows")
        assert events_of(running, 2 * reports.packets) == 0

        path.write_text("hop-latency-threshold = many\n")
        os.kill(running.process.pid, signal.SIGHUP)
        running.wait_said("nothing changed: ")
        assert events_of(running, 3 * reports.packets) == 0

        write(50)
        os.kill(running.process.pid, signal.SIGHUP)
        running.wait_said("options read again, 4 changed", 2)
        assert events_of(running, 4 * reports.packets) > 1000
        assert xdp(near) == program
        assert running.end() == 0
