"""What exporters in the field send, end to end: frames on a wire, a running collector, numbers in a real Prometheus.

The frames are exporters_like.py's; the numbers they must become are worked out here by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from intcollector import capture
from intcollector.lab import Lab

from . import servers
from .collectors import Collector, intcollector, network, send_frames
from .differ import VECTORS
from .exporters_like import (
    TCP,
    TIMESTAMPS_AND_NOPS,
    FabricTna,
    Flow,
    Geant,
    Hop,
    NoviFlow,
    Onos,
    cablelabs,
    dtel,
    host_int,
    host_reporter,
    p4_int_2,
    p4_int_md_1_0,
)
from .needs import needs_root

ENDPOINT = "127.0.0.1:8000"
"""Of every collector here, one after the other: what Prometheus scrapes."""
SOURCE = ("source", "switch_id", "hw_id")
FLOW = ("source", "destination", "source_port", "destination_port", "protocol")
SECOND = 10**9


class Prometheus:
    """A real server that scrapes ENDPOINT."""

    def __init__(self, server: servers.Server) -> None:
        self._server = server

    def wait_scraped(self) -> None:
        """Returns when it has what the collector says now, and nothing of the one before."""
        soon = time.time() + 0.01  # a scrape's time may be its intended one, some milliseconds off
        # timestamp() is that of the sample for a plain name only, else when it was asked
        servers.wait(lambda: self("timestamp(up) and on() up == 1").get((), 0) > soon, "Prometheus scrapes")

    def __call__(self, query: str, *labels: str) -> dict[Any, float]:
        """Value by one label's text, or by a tuple of several; every series that the query gives, each once."""
        found: dict[Any, float] = {}
        for one in self._server.get("/api/v1/query", query=query)["data"]["result"]:
            texts = tuple(one["metric"][label] for label in labels)
            series = texts[0] if len(texts) == 1 else texts
            assert series not in found, f"{query} has {series} twice"
            found[series] = float(one["value"][1])
        return found


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    """A veth pair in two namespaces; the tests, and the collectors, are in the near one."""
    with network() as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(pair: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with servers.prometheus(tmp_path_factory.mktemp("prometheus"), ENDPOINT) as server:
        yield Prometheus(server)


@contextlib.contextmanager
def collect(
    pair: Lab, folder: pathlib.Path, prometheus: Prometheus, frames: list[bytes], *options: str
) -> Iterator[Collector]:
    """A collector that all of the frames went to, once Prometheus has its numbers."""
    with Collector(pair.names[0], "--prometheus", ENDPOINT, *options) as running:
        send_frames(pair, folder, *frames)
        running.wait_packets(len(frames))
        prometheus.wait_scraped()
        yield running


def key(flow: Flow) -> tuple[str, ...]:
    """As FLOW."""
    return (
        flow.source, flow.destination, str(flow.source_port), str(flow.destination_port), str(flow.protocol)
    )  # fmt: skip


def at_most(ask: Prometheus, switch: int, *bounds_ns: int) -> list[float]:
    """How many hop latencies of a switch the histogram has up to these bounds."""
    found = ask(f'int_hop_latency_seconds_bucket{{switch_id="{switch}"}}', "le")
    by_ns = {round(float(le) * SECOND): count for le, count in found.items() if le != "+Inf"}
    return [by_ns[bound] for bound in bounds_ns]


def near(expected: dict[Any, float]) -> Any:
    """Equal but for what floating point does; the same keys."""
    return pytest.approx(expected, rel=1e-9)


# --- fabric-tna -------------------------------------------------------------------------------------------------------

WEB = Flow("10.1.0.10", "10.2.0.20", 40000, 80, TCP, payload=bytes(1000))
NAMES = Flow("10.1.0.11", "10.1.0.12", 5353, 53, vlan_ids=(100,), payload=bytes(1000))
DENIED = Flow("10.1.0.13", "10.9.0.9", 40001, 22, TCP)


def fabric_frames() -> list[bytes]:
    """leaf 101 - spine 201 - leaf 102: three packets of WEB through all, two of NAMES that stay on leaf 101."""
    leaf1, spine, leaf2 = FabricTna("192.0.2.1", 101), FabricTna("192.0.2.2", 201), FabricTna("192.0.2.3", 102)
    t = 2**32 - 2000  # the clocks' 32 bits are full while the first packet is in the spine
    a1 = leaf1.flow(WEB, t, 400, ports=(1, 49), queue=(0, 10))
    a2 = leaf1.flow(WEB, t + SECOND, 420, ports=(1, 49), queue=(0, 25))
    leaf1.flow(WEB, t + 3 * SECOND // 2, 9999)  # lost on its way
    a3 = leaf1.flow(WEB, t + 2 * SECOND, 480, ports=(1, 49), queue=(0, 5))
    s1 = spine.flow(WEB, t + 1500, 900, ports=(1, 2), queue=(1, 7), pipe=2)
    s2 = spine.flow(WEB, t + SECOND + 1600, 850, ports=(1, 2), queue=(1, 8), pipe=2)
    s3 = spine.flow(WEB, t + 2 * SECOND + 1700, 880, ports=(1, 2), queue=(1, 9), pipe=2)
    full = spine.flow(
        WEB, t + 2 * SECOND + 1800, 3000, ports=(1, 9), queue=(31, 2**19 - 1), pipe=2, tracked=False, congested=True
    )
    b1 = leaf2.flow(WEB, t + 3000, 500, ports=(49, 1), queue=(3, 0))
    b2 = leaf2.flow(WEB, t + SECOND + 3100, 510, ports=(49, 1), queue=(3, 0))
    b3 = leaf2.flow(WEB, t + 2 * SECOND + 3200, 700, ports=(49, 1), queue=(3, 1200), congested=True)
    local = [leaf1.flow(NAMES, t + i * SECOND, 300 + 10 * i, ports=(2, 3), queue=(4, 1), pipe=1) for i in range(2)]
    denied = [leaf1.drop(DENIED, t + i * SECOND, 80) for i in range(2)]
    full_and_dropped = [leaf2.drop(DENIED, t, 71), leaf2.drop(DENIED, t, 200)]
    behind_a_label = FabricTna.labelled(leaf1.flow(NAMES, t, 300, pipe=1))
    return [
        b1, s1, a1, a2, s2, b2, *local, full, s3, a3, *denied, b3, *full_and_dropped, behind_a_label
    ]  # fmt: skip


@needs_root
def test_fabric_tna(pair: Lab, tmp_path: pathlib.Path, prometheus: Prometheus) -> None:
    """The postcards of a fabric's switches become flows with a path, in order though they come in another, and every
    number of theirs is in Prometheus."""
    ask, events = prometheus, tmp_path / "events"
    options = ("--port", "32766", "--queue-occupancy-bytes", "80", "--jsonl", str(events))
    with collect(pair, tmp_path, ask, fabric_frames(), *options) as running:
        assert ask("int_packets_total > 0", "outcome") == {"ok": 16, "pass_not_ip": 1}
        leaf1, leaf1_pipe1, spine, leaf2 = (
            ("192.0.2.1", "101", "0"), ("192.0.2.1", "101", "1"), ("192.0.2.2", "201", "2"), ("192.0.2.3", "102", "0")
        )  # fmt: skip
        assert ask("int_reports_total", *SOURCE) == {leaf1: 5, leaf1_pipe1: 2, spine: 4, leaf2: 5}
        assert ask("int_reports_lost_total", *SOURCE) == {leaf1: 1, leaf1_pipe1: 0, spine: 0, leaf2: 0}
        assert ask("int_reports_reordered_total", *SOURCE) == {leaf1: 0, leaf1_pipe1: 0, spine: 1, leaf2: 0}
        assert ask("sum(int_reports_duplicated_total + int_reports_restarted_total)") == {(): 0}
        assert ask("int_dropped_packets_total", "switch_id", "reason") == {
            ("101", "acl_deny"): 2, ("102", "traffic_manager"): 1, ("102", "200"): 1,
        }  # fmt: skip

        assert ask("int_flows") == {(): 3}
        # the last of each switch: 480 + 880 + 700
        assert ask("int_flow_latency_seconds", *FLOW) == near({key(WEB): 2060e-9, key(NAMES): 310e-9})
        assert ask("int_flow_hop_latency_seconds", *FLOW, "switch_id") == near(
            {
                (*key(WEB), "101"): 480e-9,
                (*key(WEB), "201"): 880e-9,
                (*key(WEB), "102"): 700e-9,
                (*key(NAMES), "101"): 310e-9,
            }
        )
        # of all reports: 400, 420, 480 and 300, 310; 900, 850, 880 and the full queue's 3000; 500, 510, 700
        assert ask("int_hop_latency_seconds_count", "switch_id") == {"101": 5, "201": 4, "102": 3}
        assert ask("int_hop_latency_seconds_sum", "switch_id") == near({"101": 1910e-9, "201": 5630e-9, "102": 1710e-9})
        assert at_most(ask, 101, 255, 511, 2**32 - 1) == [0, 5, 5]
        assert at_most(ask, 201, 511, 1023, 2047, 4095) == [0, 3, 3, 4]
        assert at_most(ask, 102, 255, 511, 1023) == [0, 2, 3]
        assert ask("int_hops_without_latency_total", "switch_id") == {"101": 2, "201": 0, "102": 2}  # the drops
        # the second of four, of which three are in the bucket from 511 to 1023
        half = ask("histogram_quantile(0.5, int_hop_latency_seconds_bucket)", "switch_id")["201"]
        assert half == pytest.approx((511 + 512 * 2 / 3) * 1e-9)

        queues = {("101", "0"): 5, ("101", "4"): 1, ("201", "1"): 9, ("201", "31"): 524287, ("102", "3"): 1200}
        assert ask("int_queue_occupancy", "switch_id", "queue_id") == queues
        assert ask("int_queue_occupancy_bytes", "switch_id", "queue_id") == {q: 80 * n for q, n in queues.items()}
        assert ask("int_queue_occupancy_max", "switch_id", "queue_id") == queues | {("101", "0"): 25}
        assert ask("int_queue_occupancy_max_bytes", "switch_id", "queue_id")[("101", "0")] == 2000
        assert ask("int_egress_port_tx_utilization") == {}  # 0.5 does not have it
        assert running.end() == 0
    web = [one for one in map(json.loads, events.read_text().splitlines()) if one["flow"]["destination_port"] == 80]
    last = [one for one in web if one.get("postcards")][-1]["postcards"]
    assert [hop["switch_id"] for hop in last["hops"]] == [102, 201, 101]  # nearest the sink first
    assert last["latency"] == 2060


# --- ONOS -------------------------------------------------------------------------------------------------------------

ALL_ITEMS = Flow("10.3.0.1", "10.3.0.2", 6000, 6001, dscp=10)
TWO_STAMPS = Flow("10.3.0.3", "10.3.0.2", 6002, 6003)
ONE_HOP = Flow("10.3.0.4", "10.3.0.2", 6004, 6005)
OVER_TCP = Flow("10.3.0.5", "10.3.0.2", 6006, 80, TCP)


def onos_frames() -> list[bytes]:
    """11 - 12 - 13, of which 13 is the sink. Microseconds."""
    sink = Onos("192.0.2.17", 13)

    def hops(*latencies: int, at: int) -> list[Hop]:
        switches = (11, 12, 13)[-len(latencies) :] if len(latencies) != 2 else (11, 13)
        return [
            Hop(
                switch, latency, at + 1000 * i, ports=(switch, switch + 10), queue=(0, i + at // 10**6),
                l2_ports=(switch, switch + 10),
            )
            for i, (switch, latency) in enumerate(zip(switches, latencies, strict=True))
        ]  # fmt: skip

    all_items = [
        sink.report(ALL_ITEMS, hops(*latencies, at=(i + 1) * 10**6))
        for i, latencies in enumerate([(120, 300, 80), (130, 310, 90), (125, 295, 85)])
    ]
    two_stamps = [
        sink.report(TWO_STAMPS, hops(*latencies, at=2**32 - 20), bitmap=0xCC00) for latencies in [(15, 25), (18, 22)]
    ]
    one_hop = [sink.report(ONE_HOP, hops(10, at=i), bitmap=0xEC00) for i in range(70)]
    over_tcp = [sink.report(OVER_TCP, hops(1, 2, 3, at=i), bitmap=0xDC00) for i in range(4)]
    return [*all_items, *over_tcp[:2], *two_stamps, *one_hop, *over_tcp[2:]]


@needs_root
def test_onos(pair: Lab, tmp_path: pathlib.Path, prometheus: Prometheus) -> None:
    """ONOS' stacks are read in microseconds, its constant sequence number is never a loss, and what it cuts off a TCP
    packet's stack is counted and not shown."""
    ask = prometheus
    options = ("--profile", "onos", "--int-dscp", "23/63", "--latency-unit", "us", "--tx-utilization-full", "10000")
    with collect(pair, tmp_path, ask, onos_frames(), *options) as running:
        assert ask("int_packets_total > 0", "outcome") == {"ok": 75, "trunc_stack": 4}
        sink = ("192.0.2.17", "13", "1")
        assert ask("int_reports_total", *SOURCE) == {sink: 75}
        for what in ("lost", "reordered", "duplicated", "restarted"):
            assert ask(f"int_reports_{what}_total", *SOURCE) == {sink: 0}, what

        assert ask("int_flows") == {(): 3}  # not the one over TCP
        assert ask("int_flow_latency_seconds", *FLOW) == near(
            {key(ALL_ITEMS): 505e-6, key(TWO_STAMPS): 40e-6, key(ONE_HOP): 10e-6}
        )
        assert ask("int_flow_hop_latency_seconds", "source_port", "switch_id") == near(
            {
                ("6000", "11"): 125e-6, ("6000", "12"): 295e-6, ("6000", "13"): 85e-6,
                ("6002", "11"): 18e-6, ("6002", "13"): 22e-6, ("6004", "13"): 10e-6,
            }
        )  # fmt: skip
        # 120 + 130 + 125 + 15 + 18; 300 + 310 + 295; 80 + 90 + 85 + 25 + 22 + 70 times 10
        assert ask("int_hop_latency_seconds_count", "switch_id") == {"11": 5, "12": 3, "13": 75}
        assert ask("int_hop_latency_seconds_sum", "switch_id") == near({"11": 408e-6, "12": 905e-6, "13": 1002e-6})
        assert at_most(ask, 11, 8191, 16383, 32767, 65535, 131071) == [0, 1, 2, 2, 5]
        assert at_most(ask, 12, 262143, 524287) == [0, 3]
        assert at_most(ask, 13, 8191, 16383, 32767, 65535, 131071) == [0, 70, 72, 72, 75]

        assert ask("int_queue_occupancy", "switch_id", "queue_id") == {("11", "0"): 3, ("12", "0"): 4, ("13", "0"): 5}
        assert ask("int_queue_occupancy_bytes") == {}  # packets: nobody knows how large
        ports = {("11", "21"): 0, ("12", "22"): 0, ("13", "23"): 0}  # bmv2 knows no utilisation
        assert ask("int_egress_port_tx_utilization", "switch_id", "egress_port_id") == ports
        assert ask("int_egress_port_tx_utilization_ratio", "switch_id", "egress_port_id") == ports
        assert running.end() == 0


# --- GEANT ------------------------------------------------------------------------------------------------------------

SHIPPED_TABLES = Flow("10.4.0.1", "10.4.0.2", 7000, 7001)
WITH_OPTIONS = Flow("10.4.0.3", "10.4.0.2", 7002, 443, TCP, options=TIMESTAMPS_AND_NOPS)
TOFINO = Flow("10.4.0.4", "10.4.0.5", 7004, 7005, payload=b"\x01\x00\xff" * 40)


def tofino_hops(at: int, *latencies: int) -> list[Hop]:
    """41 - 42 - 43. The programs send 0 for level-2 ports and utilisation; here they are numbers, so that a word too
    many or too few is seen."""
    return [
        Hop(
            41 + i, latency, at + 5000 * i, ports=(140 + i, 150 + i), queue=(0, 10 * (i + 1)), l2_ports=(7, 8),
            utilization=2500 * (i + 1),
        )
        for i, latency in enumerate(latencies)
    ]  # fmt: skip


def geant_frames() -> list[bytes]:
    """31 - 32 - 33 on bmv2, microseconds since it began; 41 - 42 - 43 on Tofino, ns, in full."""
    bmv2 = Geant("192.0.2.33", 33)

    def hops(at: int, *latencies: int) -> list[Hop]:
        return [
            Hop(34 - len(latencies) + i, latency, at + 100 * i, ports=(1, 2)) for i, latency in enumerate(latencies)
        ]

    g1 = bmv2.report(SHIPPED_TABLES, hops(5_000_000, 7, 40, 12))
    g2 = bmv2.report(SHIPPED_TABLES, hops(6_000_000, 9, 35, 11))
    bmv2.report(SHIPPED_TABLES, hops(7_000_000, 9999))  # lost on its way
    g3 = bmv2.report(SHIPPED_TABLES, hops(8_000_000, 8, 38, 10))
    o1 = bmv2.report(WITH_OPTIONS, hops(8_000_001, 20, 30))
    o2 = bmv2.report(WITH_OPTIONS, hops(2**40, 25, 31))
    sink = Geant("192.0.2.34", 43, tofino=True)
    latencies = [(700, 800, 900), (710, 810, 910), (720, 820, 1920)]
    t1, t2, t3 = (sink.report(TOFINO, tofino_hops(2**47 + i, *some), 0xFF00) for i, some in enumerate(latencies))
    return [g1, t1, g2, t2, o1, g3, t2, o2, t3]


@needs_root
def test_geant(pair: Lab, tmp_path: pathlib.Path, prometheus: Prometheus) -> None:
    """GEANT's 8-byte timestamps and 4-byte level-2 ports are read, over UDP and TCP, on bmv2 and, in front of an
    Ethernet trailer, on Tofino."""
    ask = prometheus
    options = (
        "--port", "6000", "--profile", "geant", "--int-dscp", "32/63", "--queue-occupancy-bytes", "80",
        "--tx-utilization-full", "10000",
    )  # fmt: skip
    with collect(pair, tmp_path, ask, geant_frames(), *options) as running:
        assert ask("int_packets_total > 0", "outcome") == {"ok": 9}
        bmv2, tofino = ("192.0.2.33", "33", "0"), ("192.0.2.34", "43", "0")
        assert ask("int_reports_total", *SOURCE) == {bmv2: 5, tofino: 4}
        assert ask("int_reports_lost_total", *SOURCE) == {bmv2: 1, tofino: 0}
        assert ask("int_reports_reordered_total", *SOURCE) == {bmv2: 1, tofino: 0}
        assert ask("int_reports_duplicated_total", *SOURCE) == {bmv2: 0, tofino: 1}
        assert ask("int_reports_restarted_total", *SOURCE) == {bmv2: 0, tofino: 0}

        assert ask("int_flows") == {(): 3}
        assert ask("int_flow_latency_seconds", *FLOW) == near(
            {key(SHIPPED_TABLES): 56e-6, key(WITH_OPTIONS): 56e-6, key(TOFINO): 3460e-9}
        )
        assert ask("int_flow_hop_latency_seconds", "source_port", "switch_id") == near(
            {
                ("7000", "31"): 8e-6, ("7000", "32"): 38e-6, ("7000", "33"): 10e-6,
                ("7002", "32"): 25e-6, ("7002", "33"): 31e-6,
                ("7004", "41"): 720e-9, ("7004", "42"): 820e-9, ("7004", "43"): 1920e-9,
            }
        )  # fmt: skip
        assert ask("int_hop_latency_seconds_count", "switch_id") == {
            "31": 3, "32": 5, "33": 5, "41": 4, "42": 4, "43": 4,
        }  # fmt: skip
        # on bmv2 7 + 9 + 8; 40 + 35 + 38 + 20 + 25; 12 + 11 + 10 + 30 + 31; on Tofino the second report came twice
        assert ask("int_hop_latency_seconds_sum", "switch_id") == near(
            {"31": 24e-6, "32": 158e-6, "33": 94e-6, "41": 2840e-9, "42": 3240e-9, "43": 4640e-9}
        )
        assert at_most(ask, 31, 4095, 8191, 16383) == [0, 2, 3]
        assert at_most(ask, 43, 511, 1023, 2047) == [0, 3, 4]

        queues = {("41", "0"): 10, ("42", "0"): 20, ("43", "0"): 30}
        assert ask("int_queue_occupancy", "switch_id", "queue_id") == queues
        assert ask("int_queue_occupancy_bytes", "switch_id", "queue_id") == {q: 80 * n for q, n in queues.items()}
        ports = {("41", "150"): 2500, ("42", "151"): 5000, ("43", "152"): 7500}
        assert ask("int_egress_port_tx_utilization", "switch_id", "egress_port_id") == ports
        assert ask("int_egress_port_tx_utilization_ratio", "switch_id", "egress_port_id") == near(
            {port: n / 10000 for port, n in ports.items()}
        )
        assert running.end() == 0


# --- NoviFlow ---------------------------------------------------------------------------------------------------------

FIRST = 0xFB65D600
"""Switch ids are from here on: they have all 32 bits."""
TEN_HOPS = Flow("203.0.113.1", "203.0.113.2", 50000, 50001, vlan_ids=(42,), dscp=2)
TAGGED_TWICE = Flow("203.0.113.3", "203.0.113.2", 50002, 443, TCP, (100, 42), options=TIMESTAMPS_AND_NOPS)


def noviflow_frames() -> list[bytes]:
    """Up to ten switches, FIRST + 1 to FIRST + 10. ns, of which 32 bits."""
    sink = NoviFlow("192.0.2.49", FIRST + 10, first=2**32 - 2)

    def ten(extra: int) -> list[Hop]:
        return [Hop(FIRST + i, 100 * i + extra, 10**6 * i, (20, 30), (i % 8, 300 + i)) for i in range(1, 11)]

    def two(first: int, second: int, occupancy: int) -> list[Hop]:
        return [
            Hop(FIRST + 1, first, 2**32 - 100, (20, 31), (7, occupancy)),  # its clock's 32 bits get full meanwhile
            Hop(FIRST + 10, second, 5000, (20, 31), (7, 0)),
        ]

    v1, v2 = sink.report(TEN_HOPS, ten(0)), sink.report(TEN_HOPS, ten(1))
    sink.report(TEN_HOPS, ten(9999))  # number 0, lost on its way
    v3, v4 = (sink.report(TAGGED_TWICE, two(*some), mark=None) for some in [(250, 0, 2**24 - 2), (260, 40, 9)])
    return [v1, v2, v3, v4]


@needs_root
def test_noviflow(pair: Lab, tmp_path: pathlib.Path, prometheus: Prometheus) -> None:
    """NoviFlow's stacks are read without a mark and without F, behind one tag or two, in front of TCP options; latency
    comes from timestamps of 32 bits that wrap."""
    ask = prometheus
    options = ("--port", "5900", "--queue-occupancy-bytes", "80")
    with collect(pair, tmp_path, ask, noviflow_frames(), *options) as running:
        assert ask("int_packets_total > 0", "outcome") == {"ok": 4}
        sink = ("192.0.2.49", str(FIRST + 10), "0")
        assert ask("int_reports_total", *SOURCE) == {sink: 4}
        assert ask("int_reports_lost_total", *SOURCE) == {sink: 1}  # though its number is 0
        assert ask("sum(int_reports_reordered_total + int_reports_duplicated_total)") == {(): 0}
        assert ask("int_reports_restarted_total", *SOURCE) == {sink: 0}

        # 100 + 200 + ... + 1000, and one more each
        assert ask("int_flow_latency_seconds", *FLOW) == near({key(TEN_HOPS): 5510e-9, key(TAGGED_TWICE): 300e-9})
        per_hop = {("50000", str(FIRST + i)): (100 * i + 1) * 1e-9 for i in range(1, 11)}
        per_hop |= {("50002", str(FIRST + 1)): 260e-9, ("50002", str(FIRST + 10)): 40e-9}
        assert ask("int_flow_hop_latency_seconds", "source_port", "switch_id") == near(per_hop)
        counts = {str(FIRST + i): 2 for i in range(2, 10)} | {str(FIRST + 1): 4, str(FIRST + 10): 4}
        assert ask("int_hop_latency_seconds_count", "switch_id") == counts
        sums = {str(FIRST + i): (200 * i + 1) * 1e-9 for i in range(2, 10)}
        sums |= {str(FIRST + 1): (100 + 101 + 250 + 260) * 1e-9, str(FIRST + 10): (1000 + 1001 + 0 + 40) * 1e-9}
        assert ask("int_hop_latency_seconds_sum", "switch_id") == near(sums)
        assert at_most(ask, FIRST + 1, 63, 127, 255, 511) == [0, 2, 3, 4]
        assert at_most(ask, FIRST + 10, 0, 31, 63, 511, 1023) == [1, 1, 2, 2, 4]
        assert ask("sum(int_hops_without_latency_total)") == {(): 0}

        queues = {(str(FIRST + i), str(i % 8)): 300 + i for i in range(1, 11)}
        queues |= {(str(FIRST + 1), "7"): 9, (str(FIRST + 10), "7"): 0}
        assert ask("int_queue_occupancy", "switch_id", "queue_id") == queues
        assert ask("int_queue_occupancy_bytes", "switch_id", "queue_id") == {q: 80 * n for q, n in queues.items()}
        largest = queues | {(str(FIRST + 1), "7"): 16777214}
        assert ask("int_queue_occupancy_max", "switch_id", "queue_id") == largest
        assert ask("int_queue_occupancy_max_bytes", "switch_id", "queue_id") == {q: 80 * n for q, n in largest.items()}
        assert running.end() == 0


# --- all at once ------------------------------------------------------------------------------------------------------

SOURCES = """
["192.0.2.0/28"]  # fabric-tna
int-dscp = "off"
queue-occupancy-bytes = 80
sampling-ratio = 10

["192.0.2.16/28"]  # ONOS
profile = "onos"
int-dscp = "23/63"
latency-unit = "us"

["192.0.2.32/28"]  # GEANT on Tofino
profile = "geant"
int-dscp = "32/63"
queue-occupancy-bytes = 80
tx-utilization-full = 10000

["192.0.2.35"]  # GEANT on bmv2, asked for hop latencies
profile = "geant"
int-dscp = "32/63"
latency-unit = "us"
tx-utilization-full = 5000

["192.0.2.48/28"]  # NoviFlow
int-dscp = "off"
queue-occupancy-bytes = 160
"""
PORTS = ("--port", "32766", "--port", "54321", "--port", "6000", "--port", "5900")
EXPORTERS = ("--int-dscp", "63/63", *PORTS)
"""On the command line is a mark that nobody has: without an entry of their own, nobody's stack would be read."""
ON_BMV2 = Flow("10.4.0.6", "10.4.0.5", 7006, 7007)


def all_frames() -> list[bytes]:
    """Of all four, one from each in turn; then of GEANT on bmv2, and from an address that no entry is for."""
    four = [fabric_frames(), onos_frames(), geant_frames(), noviflow_frames()]
    turns = [frames[i] for i in range(max(map(len, four))) for frames in four if i < len(frames)]
    on_bmv2 = Geant("192.0.2.35", 43).report(ON_BMV2, tofino_hops(10**6, 70, 80, 90), 0xFF00)
    unknown = Onos("192.0.2.99", 13).report(ALL_ITEMS, [Hop(99, 77)])
    return [*turns, on_bmv2, unknown]


@needs_root
def test_all_at_once(pair: Lab, tmp_path: pathlib.Path, prometheus: Prometheus) -> None:
    """Four exporters with four layouts, marks and units at one collector are told apart by the file of sources."""
    ask, sources = prometheus, tmp_path / "sources.toml"
    sources.write_text(SOURCES)
    with collect(pair, tmp_path, ask, all_frames(), *EXPORTERS, "--sources", str(sources)) as running:
        # 16 + 75 + 9 + 4, the one on bmv2, and the unknown one, of which only the flow is read
        assert ask("int_packets_total > 0", "outcome") == {"ok": 106, "pass_not_ip": 1, "trunc_stack": 4}
        assert ask("sum by (source) (int_reports_total)", "source") == {
            "192.0.2.1": 7, "192.0.2.2": 4, "192.0.2.3": 5, "192.0.2.17": 75, "192.0.2.33": 5, "192.0.2.34": 4,
            "192.0.2.35": 1, "192.0.2.49": 4, "192.0.2.99": 1,
        }  # fmt: skip
        assert ask("int_reports_lost_total > 0", "source") == {"192.0.2.1": 1, "192.0.2.33": 1, "192.0.2.49": 1}
        assert ask("int_reports_reordered_total > 0", "source") == {"192.0.2.2": 1, "192.0.2.33": 1}
        assert ask("int_reports_duplicated_total > 0", "source") == {"192.0.2.34": 1}
        assert ask("sum(int_reports_restarted_total)") == {(): 0}
        fabric = {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
        for source, ratio in ask("max by (source) (int_report_sampling_ratio)", "source").items():
            assert ratio == (10 if source in fabric else 1), source

        assert ask("int_flow_latency_seconds", *FLOW) == near(
            {
                key(WEB): 2060e-9, key(NAMES): 310e-9,
                key(ALL_ITEMS): 505e-6, key(TWO_STAMPS): 40e-6, key(ONE_HOP): 10e-6,
                key(SHIPPED_TABLES): 56e-6, key(WITH_OPTIONS): 56e-6, key(TOFINO): 3460e-9, key(ON_BMV2): 240e-6,
                key(TEN_HOPS): 5510e-9, key(TAGGED_TWICE): 300e-9,
            }
        )  # fmt: skip
        # each in its own unit, in one histogram: 43 has ns from Tofino, and 90 us from bmv2
        sums = ask("int_hop_latency_seconds_sum", "switch_id")
        assert [sums[s] for s in ("201", "13", "33", "43")] == pytest.approx([5630e-9, 1002e-6, 94e-6, 94_640e-9])
        assert at_most(ask, 43, 511, 1023, 2047, 65535, 131071) == [0, 3, 4, 4, 5]
        occupied = ask("int_queue_occupancy_bytes", "switch_id", "queue_id")
        assert occupied[("201", "31")] == 524287 * 80
        assert occupied[(str(FIRST + 5), "5")] == 305 * 160
        assert not {switch for switch, _ in occupied} & {"11", "12", "13", "43"}  # 43: bmv2 was the last to speak
        ratios = ask("int_egress_port_tx_utilization_ratio", "switch_id", "egress_port_id")
        assert ratios == near({("41", "150"): 0.5, ("42", "151"): 1.0, ("43", "152"): 1.5})
        assert ask("int_dropped_packets_total", "switch_id", "reason")[("101", "acl_deny")] == 2
        assert running.end() == 0


# --- both decoders ----------------------------------------------------------------------------------------------------


SOMEBODY = Flow("10.5.0.1", "10.5.0.2", 8000, 8001, vlan_ids=(5,))
SOMEBODY_TCP = Flow("10.5.0.1", "10.5.0.2", 8000, 8001, TCP)
OTHERS = {
    "SONiC": (dtel("192.0.2.64", SOMEBODY), "ok", "local_hop"),
    "int-host-reporter": (host_reporter("192.0.2.65", SOMEBODY), "ok", "local_hop"),
    "made up for UDP": (host_reporter("192.0.2.65", SOMEBODY, synthesised=True), "ok", "local_hop"),
    "made up for TCP": (host_reporter("192.0.2.65", SOMEBODY_TCP, synthesised=True), "trunc_inner", None),
    "host-int": (host_int("192.0.2.66", SOMEBODY_TCP), "unsupported_nproto", None),
    "p4-int MD 1.0": (p4_int_md_1_0("192.0.2.67", SOMEBODY_TCP, tofino_hops(1000, 1, 2, 3)), "ok", "int"),
    "p4-int MD 2.1": (p4_int_2("192.0.2.67", SOMEBODY_TCP, 2), "bad_indiv_len", None),
    "p4-int MX, XD": (p4_int_2("192.0.2.67", SOMEBODY_TCP, 1), "bad_report_len", None),
    "CableLabs, bmv2": (cablelabs("192.0.2.68", SOMEBODY), "bad_inner_ip", None),
    "CableLabs, Tofino": (cablelabs("192.0.2.68", SOMEBODY, tofino=True), "trunc_inner", None),
    "ONOS over TCP": (Onos("192.0.2.69", 13).report(SOMEBODY_TCP, tofino_hops(1000, 1)), "ok", None),
}
"""What docs/exporters-seen.md says of them, without a mark: a frame, its outcome, and what is there of hops."""


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """The lines that `intcollector decode` prints of all_frames(), and behind them of OTHERS: of python, of kernel."""
    folder = tmp_path_factory.mktemp("decoded")
    capture_, sources = folder / "frames.pcap", folder / "sources.toml"
    sources.write_text(SOURCES + '["192.0.2.64/27"]  # others\nint-dscp = "off"\n')
    frames = [*all_frames(), *(frame for frame, *_ in OTHERS.values())]
    capture.write(str(capture_), ((frame, 0) for frame in frames))
    options = (*EXPORTERS, "--port", "556", "--sources", str(sources))
    python, kernel = (
        intcollector("decode", str(capture_), "--engine", engine, *options) for engine in ("python", "kernel")
    )
    assert (python.returncode, python.stderr) == (kernel.returncode, kernel.stderr) == (0, "")
    lines = python.stdout.splitlines(), kernel.stdout.splitlines()
    assert len(lines[0]) == len(frames)
    return lines


@needs_root
def test_both_engines_print_the_same(decoded: tuple[list[str], list[str]]) -> None:
    """decode prints the same of all these frames with both engines: all that a collector was sent above."""
    python, kernel = decoded
    assert kernel == python
    said = [json.loads(line) for line in python[: -len(OTHERS)]]
    assert Counter(one["outcome"] for one in said) == {"ok": 106, "pass_not_ip": 1, "trunc_stack": 4}
    hops = Counter(report["int"]["hop_count"] for one in said for report in one["reports"] if report["int"])
    assert hops == {1: 70, 2: 6, 3: 11, 10: 2}


@needs_root
def test_other_exporters(decoded: tuple[list[str], list[str]]) -> None:
    """Reports of other exporters are read, or refused, as docs/exporters-seen.md says of them."""
    for (name, (_, outcome, there)), line in zip(OTHERS.items(), decoded[0][-len(OTHERS) :], strict=True):
        one = json.loads(line)
        assert one["outcome"] == outcome, name
        assert len(one["reports"]) == (outcome == "ok"), name
        for report in one["reports"]:
            flow = report["flow"]
            assert (flow["source"], flow["source_port"], flow["destination_port"]) == ("10.5.0.1", 8000, 8001)
            assert [part for part in ("int", "local_hop") if report[part]] == ([there] if there else []), name
            if there == "int":
                assert [hop["hop_latency"] for hop in report["int"]["hops"]] == [3, 2, 1]


# --- the witnesses ----------------------------------------------------------------------------------------------------


def test_the_frames_are_those_of_the_vectors() -> None:
    """What is sent here is, byte for byte, what the vectors have of the same exporters."""
    vectors = {vector["name"]: bytes.fromhex(vector["packet"])[42:] for vector in VECTORS}
    udp, tcp = (Flow("10.1.0.1", "10.2.0.2", 40000, 5001, protocol, payload=b"") for protocol in (17, TCP))
    switch = 0x0A0B0C0D

    def hops(count: int, base: int = 2**28, queue: int | None = None) -> list[Hop]:
        return [
            Hop(
                i, 100 + i, base + 1000 * i, (10 + i, 20 + i), (queue or i, 300 + i),
                (0xA0000000 + i, 0xB0000000 + i), 5000 + i,
            )
            for i in range(1, count + 1)
        ]  # fmt: skip

    def same(frame: bytes, name: str, *others: tuple[int, int]) -> None:
        """But for the report's timestamp, and other ranges of bytes, that tell what was counted."""
        mine, theirs = bytearray(frame[42:]), bytearray(vectors[name])
        for start, end in ((12, 16), *others):
            mine[start:end] = theirs[start:end] = bytes(end - start)
        assert mine == theirs

    onos = Onos("192.0.2.1", switch)
    same(onos.report(udp, hops(3)), "v10_onos_all8_hopml8")
    same(onos.report(tcp, hops(3), 0xDC00), "onos_tcp_truncated_stack", (77, 78))
    geant = Geant("192.0.2.1", switch, tofino=True)
    same(geant.report(udp, hops(3, 0x16A0 << 48 | 2**28)), "v10_geant_exporter_cc00", (68, 70), (8, 12))
    noviflow = NoviFlow("192.0.2.1", switch, first=1, tracked=True, hw_id=5)
    tagged = dataclasses.replace(udp, vlan_ids=(42,), dscp=2)
    same(noviflow.report(tagged, hops(10, queue=5)), "v10_noviflow_10hop_vlan")
    fabric = FabricTna("192.0.2.1", 0x01020304)
    drops = [fabric.drop(tcp, 2**29, 29, ports=(260, 0), pipe=5) for _ in range(10)]
    same(drops[9], "v05_drop_report")
