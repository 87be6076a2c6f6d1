"""traffic.py: reports to test with, and what a collector must make of them."""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import inspect
import itertools
import pathlib
import shutil
import struct
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import capture, kernel, layers, sending, traffic, wire
from intcollector.config import PROFILES, address_text
from intcollector.errors import AttachError, UsageError
from intcollector.traffic import Model, Traffic

from .collectors import network
from .frames import Datapaths
from .needs import needs_root
from .test_lab import sniffer, wait_for

XDP_REDIRECT = 4

PLAIN = Traffic(flows=20, packets=400)
MIX = Traffic(
    flows=60, sources=7, packets=12_345, hops=4, event_rate=0.3, path_changes=0.1, drop_reports=0.1,
    congestion_reports=0.2, loss=0.1, duplicates=0.1, reordered=0.2, tcp=0.4, ipv6=0.3, vlan=0.4, ipv6_sources=0.4,
    payload=(0, 40, 900), seed=7, first_sequence_number=2**32 - 300,
)  # fmt: skip


KINDS: dict[str, dict[str, Any]] = {
    "0.5": {"report_version": "0.5"},
    "0.5-int-0.5": {"report_version": "0.5", "int_version": "0.5"},
    "1.0-int-0.5": {"int_version": "0.5"},
    "1.0-int-2.1": {"int_version": "2.1", "int_signal": "port"},
    "2.0": {"report_version": "2.0"},
    "2.0-int-2.1": {"report_version": "2.0", "int_version": "2.1"},
    "2.0-int-2.1-port": {"report_version": "2.0", "int_version": "2.1", "int_signal": "port"},
    "2.0-grouped": {"report_version": "2.0", "int_version": "2.1", "individuals": 3},
    "postcards-0.5": {"report_version": "0.5", "postcards": True},
    "postcards-1.0": {"postcards": True},
    "postcards-2.0": {"report_version": "2.0", "postcards": True},
    "postcards-2.0-grouped": {"report_version": "2.0", "postcards": True, "individuals": 5},
}
"""Every version and way of reporting, as fields of Traffic."""


def of_kind(t: Traffic, kind: dict[str, Any]) -> Traffic:
    """The traffic, another way; what that way does not have is left out."""
    fields: dict[str, Any] = dict(kind)
    if "postcards" in kind:
        fields["path_changes"] = 0.0
    if kind.get("report_version") == "2.0":
        fields["first_sequence_number"] = t.first_sequence_number % 2**22
    if kind.get("individuals", 1) > 1:
        fields["payload"] = (0, 41)
    return dataclasses.replace(t, **fields)


def packets_of(t: Traffic) -> list[list[dict[str, Any]]]:
    """What the oracle reads out of the frames; every frame has to be of reports."""
    found = []
    for frame in traffic.frames(t):
        said = wire.decode(frame, t.config)
        assert said["outcome"] == "ok", said
        found.append(said["reports"])
    return found


def reports(t: Traffic) -> list[dict[str, Any]]:
    """All reports of them."""
    return [report for packet in packets_of(t) for report in packet]


class Recount:
    """A collector in a screenful: sets and dictionaries, report by report."""

    def __init__(self) -> None:
        self.counts: dict[tuple, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.events: collections.Counter[str] = collections.Counter()
        self.seen: dict[tuple, list[int]] = {}
        self.flows: dict[tuple, dict[str, Any]] = {}
        self.points: dict[tuple, int] = {}

    def take(self, packet: list[dict[str, Any]]) -> None:
        first = packet[0]
        key = first["source"], None if first["version"] == "0.5" else first["switch_id"], first["hw_id"]
        bits = 22 if first["version"] == "2.0" else 32
        self.sequence(self.seen.setdefault(key, []), self.counts[key], first["sequence_number"], bits)
        for report in packet:
            assert [report[k] for k in ("source", "hw_id", "sequence_number")] == [
                first[k] for k in ("source", "hw_id", "sequence_number")
            ]
            news = self.news(report)
            if news:
                self.events[news[0]] += 1

    def sequence(self, seen: list[int], counts: collections.Counter[str], number: int, bits: int) -> None:
        counts["reports"] += 1
        highest = seen[0] if seen else number - 1
        half = 2 ** (bits - 1)
        ahead = (number - highest + half) % 2**bits - half
        if ahead > 0:
            counts["lost"] += ahead - 1
            seen.insert(0, number)
        elif number in seen:
            counts["duplicated"] += 1
        else:
            counts["reordered"] += 1
            counts["lost"] -= 1
            seen.insert(1, number)
        del seen[64:]

    def news(self, report: dict[str, Any]) -> list[str]:
        """Why it is worth telling: the first word is what the truth counts it as."""
        f = report["flow"]
        key = tuple(f[k] for k in ("source", "destination", "protocol", "source_port", "destination_port"))
        new = key not in self.flows
        flow = self.flows.setdefault(key, {"congested": False, "path": None, "told": {}})
        found = ["new_flows"] if new else []
        if report["dropped"]:
            found.append("dropped")
        if report["congested_queue"] and not flow["congested"]:
            found.append("congested")
        flow["congested"] = report["congested_queue"]
        values: dict[tuple, int] = {}
        points: dict[tuple, int] = {}
        if report["int"]:
            hops = report["int"]["hops"]
            path = [hop.get("switch_id") for hop in hops]
            if flow["path"] is not None and flow["path"] != path:
                found.append("path_changes")
                flow["told"] = {}
            flow["path"] = path
        elif report["tracked_flow"]:  # a postcard
            hops = [{"switch_id": report["switch_id"], "ingress_timestamp": report["ingress_timestamp"]}]
            hops[0] |= report["local_hop"]
            flow["path"] = flow["path"] or set()
            if report["switch_id"] not in flow["path"] and not new:
                found.append("path_changes")
            flow["path"].add(report["switch_id"])
        else:
            return found
        for hop in hops:
            latency = hop.get("hop_latency")
            if latency is None and hop.get("egress_timestamp") is not None and hop.get("ingress_timestamp") is not None:
                latency = hop["egress_timestamp"] - hop["ingress_timestamp"] & 0xFFFFFFFF
            if latency is not None:
                values[("latency", hop.get("switch_id"), hops.index(hop))] = latency
            if "switch_id" in hop and "queue_id" in hop:
                points[("queue", hop["switch_id"], hop["queue_id"])] = hop["queue_occupancy"]
            if "switch_id" in hop and "egress_port_id" in hop and "egress_port_tx_utilization" in hop:
                points[("port", hop["switch_id"], hop["egress_port_id"])] = hop["egress_port_tx_utilization"]
        if values and report["int"]:
            values[("sum",)] = sum(values.values())
        elif values:
            flow["now"] = flow.get("now", {}) | values
            values[("sum",)] = sum(flow["now"].values())
        for told, now in ((flow["told"], values), (self.points, points)):
            if any(k not in told or abs(told[k] - v) > 50 for k, v in now.items()) and not found:
                found.append("value_changes")
        if found:
            flow["told"].update(values)
            self.points.update(points)
        return found


def check_truth(t: Traffic) -> None:
    """The truth is what a recount of the decoded frames finds."""
    recount = Recount()
    for packet in packets_of(t):
        recount.take(packet)
    said = traffic.truth(t)
    switch_ids = [None] * len(said.addresses) if t.report_version == "0.5" else said.switch_ids.tolist()
    keys = list(zip(said.addresses, switch_ids, said.hw_ids.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    for name in ("reports", "lost", "reordered", "duplicated"):
        assert getattr(said, name).tolist() == [recount.counts[key][name] for key in keys], name
    counted = {
        name: recount.events[name] for name in ("new_flows", "value_changes", "path_changes", "dropped", "congested")
    }
    assert counted == {name: getattr(said, name) for name in counted}
    assert said.events == sum(recount.events.values())


def test_the_truth_of_plain_traffic() -> None:
    """Without anything special, what is told are the new flows and the asked-for share of changes."""
    check_truth(PLAIN)
    assert traffic.truth(dataclasses.replace(PLAIN, event_rate=0)).events == 20
    assert traffic.truth(dataclasses.replace(PLAIN, event_rate=1)).events == 400


def test_the_truth_of_all_at_once() -> None:
    """Loss, duplicates, overtaking, wrap, changes of values and paths, drops and congestion are counted exactly."""
    check_truth(MIX)
    said = traffic.truth(MIX)
    assert min(said.lost.sum(), said.reordered.sum(), said.duplicated.sum(), said.congested, said.path_changes) > 100


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_truth_of_every_kind(kind: dict[str, Any]) -> None:
    """In every version, stacked or by postcards, alone or in groups, the truth is what a recount finds."""
    for t in (PLAIN, dataclasses.replace(MIX, packets=3000)):
        check_truth(of_kind(t, kind))


@settings(max_examples=40, deadline=None)
@given(
    flows=st.integers(1, 30), hops=st.integers(1, 28), packets=st.integers(1, 600), seed=st.integers(0, 2**63 - 1),
    event_rate=st.floats(0, 0.4), path=st.floats(0, 0.2), drop=st.floats(0, 0.2), congestion=st.floats(0, 0.2),
    loss=st.floats(0, 0.3), duplicates=st.floats(0, 0.3), reordered=st.floats(0, 0.4), data=st.data(),
)  # fmt: skip
def test_the_truth_of_any_traffic(
    flows: int, hops: int, packets: int, seed: int, event_rate: float, path: float, drop: float, congestion: float,
    loss: float, duplicates: float, reordered: float, data: st.DataObject,
) -> None:  # fmt: skip
    """Whatever the traffic, its truth is what a recount finds."""
    kind = KINDS.get(data.draw(st.sampled_from(["1.0", *KINDS])), {})
    if kind:
        hops = min(hops, 16 if "postcards" in kind else 7 if "individuals" in kind else 22)
    profiles = [p for p in PROFILES if p != "geant" or hops <= 25]
    t = Traffic(
        flows=flows, hops=hops, packets=packets, seed=seed, event_rate=event_rate, path_changes=path,
        drop_reports=drop, congestion_reports=congestion, loss=loss, duplicates=duplicates, reordered=reordered,
        sources=data.draw(st.integers(1, flows)), first_sequence_number=data.draw(st.sampled_from([1, 2**32 - 20])),
        profile="spec" if kind else data.draw(st.sampled_from(profiles)),
    )  # fmt: skip
    check_truth(of_kind(t, kind))


@pytest.mark.parametrize("flows", [traffic.BLOCK - 1, traffic.BLOCK, traffic.BLOCK + 1, traffic.BLOCK // 2 + 1, 1])
def test_blocks_do_not_show(flows: int) -> None:
    """The truth is the same however the reports fall into blocks, and so are the reports."""
    t = dataclasses.replace(MIX, flows=flows, sources=min(flows, 3), packets=3 * traffic.BLOCK + 5)
    one, other = Model(t), Model(t)
    other.block = flows if flows < 1000 else flows // 10 if flows > traffic.BLOCK else flows
    if flows == 1:
        other.block = 7
    steps: list[list[traffic.Step]] = [[], []]
    for model, list_ in ((one, steps[0]), (other, steps[1])):
        while left := t.packets - model.done:
            list_.append(model.step(min(model.block, left)))
    for field in dataclasses.fields(traffic.Step):
        a, b = (np.concatenate([getattr(s, field.name) for s in some]) for some in steps)
        assert np.array_equal(a, b), field.name
    for a, b in zip(dataclasses.astuple(one.truth()), dataclasses.astuple(other.truth()), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_blocks_of_every_kind_do_not_show(kind: dict[str, Any]) -> None:
    """Frames are the same however their reports fall into blocks; those that share a frame are never parted."""
    t = of_kind(dataclasses.replace(MIX, packets=2000), kind)
    model = Model(t)
    model.block = t.turns // 2 + 1
    small = [
        block.data.tobytes()[at : at + length]
        for block in traffic.blocks(model, traffic.Templates(model))
        for at, length in zip(block.at.tolist(), block.length.tolist(), strict=True)
    ]
    assert small == list(traffic.frames(t))
    assert model.truth().events == traffic.truth(t).events


@pytest.mark.parametrize("kind", [{}, *KINDS.values()], ids=["1.0", *KINDS])
def test_the_same_seed_the_same_reports(kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic is a function of its description."""
    mix, plain = (of_kind(dataclasses.replace(t, packets=400), kind) for t in (MIX, PLAIN))
    assert list(traffic.frames(plain)) != list(traffic.frames(dataclasses.replace(plain, seed=2)))
    made = list(traffic.frames(mix))
    monkeypatch.setattr(traffic, "_cut", inspect.unwrap(traffic._cut))  # built now, not kept from before
    assert list(traffic.frames(mix)) == made


def test_a_group_is_of_one_source() -> None:
    """Reports that share a packet are of one switch, as many as were asked for, or what a round leaves over."""
    t = of_kind(dataclasses.replace(MIX, flows=100, sources=7, packets=1000), KINDS["2.0-grouped"])
    packets = packets_of(t)
    assert sum(map(len, packets)) == 1000
    # 15 flows of sources 0 and 1, 14 of the others
    assert [len(packet) for packet in packets[:10]] == [3] * 10
    assert [len(packet) for packet in packets[10:16]] == [3, 3, 3, 3, 2, 3]
    assert all(len({(r["source"], r["switch_id"], r["sequence_number"]) for r in packet}) == 1 for packet in packets)
    assert max(map(len, traffic.frames(t))) <= traffic.Templates(Model(t)).longest
    # as many as fit, in the largest headers
    full = Traffic(report_version="2.0", individuals=14, ipv6=1.0, vlan=1.0, ipv6_sources=1.0, drop_reports=0.5)
    assert traffic.LARGEST_FRAME - 300 < traffic.Templates(Model(full)).longest <= traffic.LARGEST_FRAME


@pytest.mark.parametrize("kind", [{}, *KINDS.values()], ids=["1.0", *KINDS])
def test_checksums_and_lengths(kind: dict[str, Any]) -> None:
    """IPv4 headers, outside and inside, have right checksums; IP and UDP lengths are what is there."""
    for frame in traffic.frames(of_kind(dataclasses.replace(MIX, packets=100), kind)):
        report = next(
            layer for layer in layers.dissect(frame).iterpayloads() if isinstance(layer, layers.TelemetryReport)
        )
        pieces = report.reports if isinstance(report, layers.TelemetryReport20) else [report]
        assert report.underlayer.len == len(frame) - frame.index(report.original) + 8
        ips = [report.underlayer.underlayer]
        for piece in pieces:
            ips += [layer for layer in piece.iterpayloads() if isinstance(layer, (layers.IP, layers.IPv6))]
        assert len(ips) == 1 + len(pieces)
        for ip in ips:
            size = len(ip.original)
            if isinstance(ip, layers.IPv6):
                assert 0 <= size - 40 - ip.plen < 4
            else:
                assert 0 <= size - ip.len < 4 and wire.checksum(ip.original[:20]) == 0


@needs_root
@pytest.mark.parametrize("kind", [{}, *KINDS.values()], ids=["1.0", *KINDS])
def test_the_kernel_generates_the_same(kind: dict[str, Any]) -> None:
    """bpf/generate.c makes the frames that the arrays make, where a frame is of one report; else it says so."""
    t = of_kind(dataclasses.replace(MIX, packets=400), kind)
    if t.individuals > 1:
        with pytest.raises(AttachError, match="one report each, not"):
            sending.send(t, "lo", method="live")
        return
    sender = sending.LiveSender(t, "lo")
    try:
        made = [run(sender) for _ in range(t.packets)]
    finally:
        sender.close()
    assert made == list(traffic.frames(t))


@needs_root
@pytest.mark.parametrize("kind", [{}, *KINDS.values()], ids=["1.0", *KINDS])
def test_the_collector_counts_the_truth(kind: dict[str, Any], datapaths: Datapaths) -> None:
    """What the kernel program tells and counts of the traffic is its truth, to the last report."""
    # so slow that two packets of a flow are further apart than the window for postcards of one
    t = of_kind(dataclasses.replace(MIX, packets=1500, rate=1000.0), kind)
    datapath = datapaths(dataclasses.replace(t.config, keepalive=0.0))
    for frame in traffic.frames(t):
        datapath.run(frame)
        datapath.drain()
    said, counters, sources = traffic.truth(t), datapath.counters(), datapath.state().sources
    assert int(counters["events"]) == said.events and not counters["events_lost"]
    of = {(address_text(s["address"].tobytes(), s["ip_version"]), int(s["hw_id"])): s for s in sources if s["received"]}
    for name, counted in (
        ("reports", "received"), ("lost", "lost"), ("reordered", "reordered"), ("duplicated", "duplicated")
    ):  # fmt: skip
        keys = zip(said.addresses, said.hw_ids.tolist(), strict=True)
        assert [int(of[key][counted]) for key in keys] == getattr(said, name).tolist(), name


def run(sender: sending.LiveSender) -> bytes:
    """The next frame that its program makes, taken before it would be sent."""
    given, taken = ctypes.create_string_buffer(sender._packet), ctypes.create_string_buffer(4096)
    attributes = bytearray(
        struct.pack(
            "=IIIIQQII", sender._function, 0, len(sender._packet), len(taken), ctypes.addressof(given),
            ctypes.addressof(taken), 1, 0,
        ) + bytes(40)
    )  # fmt: skip
    kernel.bpf(kernel.PROG_TEST_RUN, attributes)
    _, verdict, _, size = struct.unpack_from("=IIII", attributes)
    assert verdict == XDP_REDIRECT
    return taken.raw[:size]


@needs_root
def test_groups_go_by_a_packet_socket() -> None:
    """Reports that share a packet are sent too, without live frames, and it is said why."""
    t = of_kind(dataclasses.replace(MIX, packets=500), KINDS["2.0-grouped"])
    frames = list(traffic.frames(t))
    with network(namespaces=1) as pair, sniffer(pair.names[1]) as caught:
        sent = sending.send(t, pair.names[0])
        wait_for(lambda: len(caught) >= len(frames))
    assert (sent.method, sent.sent) == ("packet", len(frames))
    assert "not 3" in sent.why
    assert caught == frames


def check_values(t: Traffic) -> None:
    """Every decoded number is the model's, or one that never varies."""
    model = Model(t)
    top, packets = model.topology, packets_of(t)
    steps = []
    while n := model.due():
        steps.append(model.step(n))
    step = traffic.Step(
        *(np.concatenate([getattr(s, f.name) for s in steps]) for f in dataclasses.fields(traffic.Step))
    )
    i = 0
    for packet in packets:
        assert len(packet) == 1 or t.individuals > 1
        for report in packet:
            turn = int(step.turn[i])
            check_head(t, top, step, i, report)
            where = np.arange(t.hops) if not t.postcards else top.hop[turn]
            hops = report["int"]["hops"] if report["int"] else [report["local_hop"]]
            if step.kind[i] == traffic.DROP or (step.kind[i] == traffic.CONGESTION and not t.postcards):
                check_local(t, top, step, i, report)
            else:
                assert (report["int"] is None) == t.postcards and (report["local_hop"] is None) != t.postcards
                assert len(hops) == t.records
                for h, hop in enumerate(hops):
                    check_hop(t, top, step, i, h, int(where[h]), hop)
            i += 1
    assert i == t.packets
    if t.individuals > 1:
        assert 1 < max(map(len, packets)) <= t.individuals


def check_head(t: Traffic, top: traffic.Topology, step: traffic.Step, i: int, report: dict[str, Any]) -> None:
    """The report's header, and its flow."""
    turn, kind = int(step.turn[i]), int(step.kind[i])
    source, flow = int(top.source[turn]), int(top.flow[turn])
    assert report["version"] == t.report_version
    assert report["source"] == traffic.source_address(source, ":" in report["source"])
    assert report["hw_id"] == source % 64
    assert report["sequence_number"] == step.sequence[i]
    named = t.report_version != "0.5" or report["local_hop"]
    assert report["switch_id"] == (top.reporters[source] if named else None)
    stamp = int(step.packet_ns[i]) - 5000 * (int(top.hop[turn, 0]) + 1) if t.postcards else int(step.time_ns[i])
    assert report["ingress_timestamp"] == (None if t.report_version == "2.0" else stamp & 0xFFFFFFFF)
    assert report["dropped"] == (kind == traffic.DROP) and report["congested_queue"] == (kind == traffic.CONGESTION)
    assert report["tracked_flow"] == (kind == traffic.PLAIN or (t.postcards and kind == traffic.CONGESTION))
    said = report["flow"]
    assert said["source_port"] == 10_000 + flow % 40_000 and said["destination_port"] == 5000 + flow % 100
    marked = report["int"] and t.int_signal == "dscp"
    assert said["dscp"] == (t.dscp if marked else 0)
    assert said["vlan_ids"] in ([], [100 + flow % 900])
    assert said["source"] == ("10.1.0.1" if said["ip_version"] == 4 else "2001:db8:1::1")
    assert said["destination"] == ("10.2.0.1" if said["ip_version"] == 4 else "2001:db8:2::1")


def check_local(t: Traffic, top: traffic.Topology, step: traffic.Step, i: int, report: dict[str, Any]) -> None:
    """What a drop or congestion report says."""
    turn = int(step.turn[i])
    assert report["int"] is None
    expected = {"ingress_port_id": int(top.ingress_port[turn, 0]), "egress_port_id": int(top.egress_port[turn, 0])}
    if report["dropped"]:
        expected |= {"drop_queue_id": 0, "drop_reason": traffic.DROP_REASONS[int(top.flow[turn]) % 4]}
    else:
        stamp = (int(step.time_ns[i]) + 2) % (2**64 if t.report_version == "2.0" else 2**32)
        expected |= {"queue_id": traffic.LOCAL_QUEUE, "queue_occupancy": 5000, "egress_timestamp": stamp}
    assert report["local_hop"] == expected


def check_hop(
    t: Traffic, top: traffic.Topology, step: traffic.Step, i: int, h: int, which: int, hop: dict[str, int | None]
) -> None:
    """A hop's values, or a postcard's; which: nearest the sink is 0."""
    turn = int(step.turn[i])
    wide = t.profile == "geant" or (t.report_version == "2.0" if t.postcards else t.int_version == "2.1")
    arrival, latency = int(step.packet_ns[i]) - 5000 * (which + 1), int(step.latency[i, h])
    into, out = int(top.ingress_port[turn, h]), int(top.egress_port[turn, h])
    expected = {
        "switch_id": int((top.other_switch if step.moved[i] and h == t.hops - 1 else top.switch_id[:, h])[turn]),
        "ingress_port_id": into,
        "egress_port_id": out,
        "hop_latency": latency,
        "queue_id": int(top.queue[turn, h]),
        "queue_occupancy": int(step.occupancy[i, h]),
        "ingress_timestamp": arrival % (2**64 if wide else 2**32),
        "egress_timestamp": (arrival + latency) % (2**64 if wide else 2**32),
        "l2_ingress_port_id": into,
        "l2_egress_port_id": out,
        "egress_port_tx_utilization": int(step.utilization[i, h]),
        "congested_queue_id": int(top.queue[turn, h]),
        "queue_congestion": 0,
        "buffer_id": 0,
        "buffer_occupancy": 0,
        "checksum_complement": 0,
    }
    asked = {name for bit, item in items_of(t).items() if t.shown & 0x8000 >> bit for name, _ in item.fields if name}
    if t.postcards:
        asked.discard("switch_id")
    assert hop == {name: value for name, value in expected.items() if name in asked}


def items_of(t: Traffic) -> wire.Items:
    """What the instruction bits stand for."""
    if not t.postcards:
        return {"0.5": wire.ITEMS_0_5, "1.0": wire.ITEMS_1_0_BY_PROFILE[t.profile], "2.1": wire.ITEMS_2}[t.int_version]
    return wire.ITEMS_2 if t.report_version == "2.0" else wire.ITEMS_1_0


def valued(**fields: Any) -> Traffic:
    """Some of everything that the instructions can show."""
    instructions = fields.get("instructions", 0xFF00)
    bare = {name: fields[name] for name in fields.keys() & {"instructions", "postcards", "report_version"}}
    kinds = Traffic(event_rate=0, **bare).event_kinds
    moving = instructions & 0x8000 and not fields.get("postcards")
    return Traffic(
        flows=8, packets=60, hops=5, rate=1e6, event_rate=0.5 if kinds else 0, path_changes=0.2 if moving else 0,
        drop_reports=0.1, congestion_reports=0.1, ipv6=0.5, vlan=0.5, ipv6_sources=0.5, sources=2, payload=(0, 5),
        **fields,
    )  # fmt: skip


INSTRUCTIONS = (0xFF00, 0xFF01, 0xFFFF, 0x8000, 0xDC00, 0x8100, 0xC100, 0x0C00, 0x2000, 0x9000)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_values(profile: str, instructions: int) -> None:
    """What is decoded is what the model says: path, latencies, queues, utilization and times, hop by hop."""
    check_values(valued(profile=profile, instructions=instructions))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("instructions", [0xFF00, 0xFFFF, 0xD000, 0x2000, 0x8A00])
def test_values_of_every_kind(kind: dict[str, Any], instructions: int) -> None:
    """So it is in every version, stacked or by postcards, alone or in groups."""
    version = kind.get("report_version", "1.0")
    if not kind.get("postcards") or version == "0.5" or instructions & traffic.LOCAL_BITS[version]:
        check_values(valued(instructions=instructions, **kind))
    else:
        with pytest.raises(UsageError, match="answers none"):
            valued(instructions=instructions, **kind)


def test_timestamps_move_with_the_rate() -> None:
    """From report to report the clock goes on by the rate's interval, and a capture's times with it."""
    t = dataclasses.replace(PLAIN, rate=50_000.0)
    stamps = [r["ingress_timestamp"] for r in reports(t)]
    assert {b - a & 0xFFFFFFFF for a, b in itertools.pairwise(stamps)} == {20_000}
    assert stamps[0] == t.start_ns & 0xFFFFFFFF


def test_shares() -> None:
    """Shares of flows are exact, shares of reports as near as chance allows."""
    t = dataclasses.replace(
        PLAIN, flows=200, packets=20_000, tcp=0.25, ipv6=0.1, vlan=0.5, event_rate=0.2, drop_reports=0.1
    )
    flows = [r["flow"] for r in reports(dataclasses.replace(t, packets=200))]
    assert len({(f["source"], f["source_port"]) for f in flows}) == 200
    assert sum(f["protocol"] == 6 for f in flows) == 50
    assert sum(f["ip_version"] == 6 for f in flows) == 20
    assert sum(f["vlan_ids"] != [] for f in flows) == 100
    said = traffic.truth(t)
    assert abs(said.value_changes - 4000) < 6 * 60 and abs(said.dropped - 2000) < 6 * 45


def test_kinds_of_reports() -> None:
    """Reports of drops and of congestion carry no stack but what the switch says of itself, and no INT mark."""
    kinds: collections.Counter[tuple[bool, bool]] = collections.Counter()
    for report in reports(dataclasses.replace(MIX, packets=2000)):
        local = report["local_hop"]
        if report["dropped"]:
            assert report["int"] is None and local["drop_reason"] in traffic.DROP_REASONS
        elif report["congested_queue"]:
            assert report["int"] is None and local["queue_id"] == traffic.LOCAL_QUEUE
            assert local["egress_timestamp"] == report["ingress_timestamp"] + 2 & 0xFFFFFFFF
        else:
            assert local is None and report["flow"]["dscp"] == MIX.dscp
        kinds[report["dropped"], report["congested_queue"]] += 1
    assert len(kinds) == 3


def test_payload_and_mark() -> None:
    """Payload makes packets longer by just as much; without a configured mark the reports are read all the same."""
    t = dataclasses.replace(PLAIN, tcp=0.0, packets=40, payload=(0, 100))
    sizes = [len(frame) for frame in traffic.frames(t)]
    assert {b - a for a, b in zip(sizes[::2], sizes[1::2], strict=True)} == {100}
    unmarked = dataclasses.replace(t.config, int_dscp=None)
    for frame in traffic.frames(t):
        assert wire.decode(frame, unmarked)["reports"] == wire.decode(frame, t.config)["reports"] != []


@pytest.mark.parametrize("what", [PLAIN, MIX], ids=["plain", "mix"])
@pytest.mark.parametrize("kind", ["1.0", "2.0-grouped", "postcards-2.0-grouped"])
def test_write(what: Traffic, kind: str, tmp_path: pathlib.Path) -> None:
    """A written file holds the frames at the times of their first reports, and gives the truth."""
    path = str(tmp_path / "some.pcap")
    what = of_kind(what, KINDS.get(kind, {}))
    said = traffic.write(what, path)
    packets = list(capture.read(path))
    assert [frame for frame, _ in packets] == list(traffic.frames(what))
    first = Model(what).topology.head == np.arange(what.turns)
    times = [what.start_ns + i * what.interval_ns for i in range(what.packets) if first[i % what.turns]]
    assert [time_ns for _, time_ns in packets] == times
    assert said.events == traffic.truth(what).events


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is missing")
@pytest.mark.parametrize(
    "kind", [{}, KINDS["2.0-grouped"], KINDS["postcards-0.5"]], ids=["1.0", "grouped", "postcards"]
)
def test_tshark_finds_nothing_wrong(kind: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """tshark reads every packet of a written file as UDP to the port, of right lengths and IPv4 checksums."""
    path = str(tmp_path / "some.pcap")
    t = of_kind(dataclasses.replace(MIX, packets=1000), kind)
    traffic.write(t, path)
    fields = ["udp.dstport", "udp.length", "ip.checksum.status", "frame.len", "ipv6.plen", "ip.len"]
    command = [
        "tshark",
        "-r",
        path,
        "-o",
        "ip.check_checksum:TRUE",
        "-T",
        "fields",
        *(f"-e{field}" for field in fields),
    ]
    lines = (
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.strip("\n").split("\n")
    )
    assert len(lines) == len(list(traffic.frames(t)))
    for line in lines:
        port, _, status, length, plen, total = line.split("\t")
        assert port == "54321" and status in ("1", "")
        assert int(length) == 14 + (40 + int(plen) if plen else int(total))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sources": 30}, "raise --flows"),
        ({"hops": 29}, "do not fit"),
        ({"event_rate": 0.6, "drop_reports": 0.5}, "more than all reports"),
        ({"loss": 0.6, "reordered": 0.5}, "more than all reports"),
        ({"instructions": 0x2000, "path_changes": 0.1}, "add 0x8000"),
        ({"instructions": 0x8000}, "none of these instructions"),
        ({"payload": (2900,)}, "too large a packet"),
        ({"individuals": 2}, "add --report-version 2.0"),
        ({"report_version": "2.0", "first_sequence_number": 2**22}, "to 4194303"),
        ({"int_signal": "port"}, "add --int-version 2.1"),
        ({"int_version": "2.1", "profile": "geant"}, "leave out --int-version"),
        ({"int_version": "0.5", "instructions": 0, "event_rate": 0}, "cannot be told from INT 1.0"),
        ({"int_version": "0.5", "hops": 28, "instructions": 0xFF80}, "do not fit into an INT stack of 1004"),
        ({"postcards": True, "int_version": "2.1"}, "without INT"),
        ({"postcards": True, "path_changes": 0.1}, "depends on time"),
        ({"postcards": True, "hops": 17}, "--hops 16 or fewer"),
        ({"postcards": True, "instructions": 0x8A00}, "answers none of these instructions: take some of 0x7500"),
        ({"report_version": "2.0", "individuals": 20}, "do not fit into a packet: --individuals 14 do"),
        ({"report_version": "2.0", "individuals": 3, "payload": (900,)}, "too large a packet: at most"),
    ],
)
def test_contradictions(fields: dict[str, Any], says: str) -> None:
    """What cannot be is refused, saying what to change."""
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(PLAIN, **fields)


@pytest.mark.parametrize("text", ["", "x", "-0.1", "1.1", "nan"])
def test_shares_are_read_strictly(text: str) -> None:
    """A share is a number from 0 to 1."""
    with pytest.raises(UsageError):
        traffic.share(text)
    assert traffic.share("0.25") == 0.25


@pytest.mark.parametrize("text", ["", "x", "0", "-5", "1e10", "nan"])
def test_rates_are_read_strictly(text: str) -> None:
    """A rate is a number of reports a second."""
    with pytest.raises(UsageError):
        traffic.report_rate(text)
    assert traffic.report_rate("1e6") == 1e6
