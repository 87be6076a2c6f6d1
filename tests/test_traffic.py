"""traffic.py: reports to test with, and what a collector must make of them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import capture, traffic, wire
from intcollector.config import PROFILES
from intcollector.errors import UsageError
from intcollector.traffic import Model, Traffic

PLAIN = Traffic(flows=20, packets=400)
MIX = Traffic(
    flows=60, sources=7, packets=12_345, hops=4, event_rate=0.3, path_changes=0.1, drop_reports=0.1,
    congestion_reports=0.2, loss=0.1, duplicates=0.1, reordered=0.2, tcp=0.4, ipv6=0.3, vlan=0.4, ipv6_sources=0.4,
    payload=(0, 40, 900), seed=7, first_sequence_number=2**32 - 300,
)  # fmt: skip


def reports(t: Traffic) -> list[dict[str, Any]]:
    """What the oracle reads out of the frames; every frame has to be a report."""
    found = []
    for frame in traffic.frames(t):
        said = wire.decode(frame, t.config)
        assert said["outcome"] == "ok", said
        found.extend(said["reports"])
    return found


class Recount:
    """A collector in a screenful: sets and dictionaries, report by report."""

    def __init__(self) -> None:
        self.counts: dict[tuple, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.events: collections.Counter[str] = collections.Counter()
        self.seen: dict[tuple, list[int]] = {}
        self.flows: dict[tuple, dict[str, Any]] = {}
        self.points: dict[tuple, int] = {}

    def take(self, report: dict[str, Any]) -> None:
        key = report["source"], report["switch_id"], report["hw_id"]
        self.sequence(self.seen.setdefault(key, []), self.counts[key], report["sequence_number"])
        news = self.news(report)
        if news:
            self.events[news[0]] += 1

    def sequence(self, seen: list[int], counts: collections.Counter[str], number: int) -> None:
        counts["reports"] += 1
        highest = seen[0] if seen else number - 1
        ahead = (number - highest + 2**31) % 2**32 - 2**31
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
        if not report["int"]:
            return found
        hops = report["int"]["hops"]
        path = [hop.get("switch_id") for hop in hops]
        if flow["path"] is not None and flow["path"] != path:
            found.append("path_changes")
            flow["told"] = {}
        flow["path"] = path
        values: dict[tuple, int] = {}
        points: dict[tuple, int] = {}
        for i, hop in enumerate(hops):
            latency = hop.get("hop_latency")
            if latency is None and hop.get("egress_timestamp") is not None and hop.get("ingress_timestamp") is not None:
                latency = hop["egress_timestamp"] - hop["ingress_timestamp"] & 0xFFFFFFFF
            if latency is not None:
                values[("latency", i)] = latency
            if "switch_id" in hop and "queue_id" in hop:
                points[("queue", hop["switch_id"], hop["queue_id"])] = hop["queue_occupancy"]
            if "switch_id" in hop and "egress_port_id" in hop and "egress_port_tx_utilization" in hop:
                points[("port", hop["switch_id"], hop["egress_port_id"])] = hop["egress_port_tx_utilization"]
        if values:
            values[("sum",)] = sum(values.values())
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
    for report in reports(t):
        recount.take(report)
    said = traffic.truth(t)
    keys = list(zip(said.addresses, said.switch_ids.tolist(), said.hw_ids.tolist(), strict=True))
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
    check_truth(
        Traffic(
            flows=flows, hops=hops, packets=packets, seed=seed, event_rate=event_rate, path_changes=path,
            drop_reports=drop, congestion_reports=congestion, loss=loss, duplicates=duplicates, reordered=reordered,
            sources=data.draw(st.integers(1, flows)), first_sequence_number=data.draw(st.sampled_from([1, 2**32 - 20])),
            profile=data.draw(st.sampled_from([p for p in PROFILES if p != "geant" or hops <= 25])),
        )
    )  # fmt: skip


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


def test_the_same_seed_the_same_reports() -> None:
    """Traffic is a function of its description."""
    assert list(traffic.frames(MIX)) == list(traffic.frames(MIX))
    assert list(traffic.frames(PLAIN)) != list(traffic.frames(dataclasses.replace(PLAIN, seed=2)))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "instructions", [0xFF00, 0xFF01, 0xFFFF, 0x8000, 0xDC00, 0x8100, 0xC100, 0x0C00, 0x2000, 0x9000]
)
def test_values(profile: str, instructions: int) -> None:
    """What is decoded is what the model says: path, latencies, queues, utilization and times, hop by hop."""
    t = Traffic(
        flows=8, packets=100, hops=5, profile=profile, instructions=instructions, rate=1e6,
        event_rate=0.5 if Traffic(event_rate=0, instructions=instructions).event_kinds else 0,
        path_changes=0.2 if instructions & 0x8000 else 0, ipv6=0.5, vlan=0.5, ipv6_sources=0.5, sources=4,
    )  # fmt: skip
    model = Model(t)
    step, top = model.step(100), model.topology
    for i, report in enumerate(reports(t)):
        flow, now = i % 8, int(step.time_ns[i])
        assert report["source"] == model.addresses[flow % 4]
        assert report["switch_id"] == flow % 4 + 1
        assert report["sequence_number"] == step.sequence[i]
        assert report["ingress_timestamp"] == now & 0xFFFFFFFF
        assert report["tracked_flow"] and not report["dropped"] and not report["congested_queue"]
        assert report["int"]["hop_count"] == 5
        for h, hop in enumerate(report["int"]["hops"]):
            size = 2**64 if profile == "geant" else 2**32
            arrival = now - 5000 * (h + 1)
            switch = top.other_switch[flow] if step.moved[i] and h == 4 else top.switch_id[flow, h]
            expected = {
                "switch_id": switch,
                "egress_port_id": top.egress_port[flow, h],
                "ingress_port_id": top.ingress_port[flow, h],
                "hop_latency": step.latency[i, h],
                "queue_id": top.queue[flow, h],
                "queue_occupancy": step.occupancy[i, h],
                "ingress_timestamp": arrival % size,
                "egress_timestamp": (arrival + int(step.latency[i, h])) % size,
                "l2_egress_port_id": top.egress_port[flow, h],
                "egress_port_tx_utilization": step.utilization[i, h],
            }
            shown = {name: hop[name] for name in expected if name in hop}
            assert shown == {name: expected[name] for name in shown}
            assert None not in shown.values()
            assert len(shown) >= bin(instructions & 0xFF00).count("1")


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
def test_write(what: Traffic, tmp_path: pathlib.Path) -> None:
    """A written file holds the frames at their times, and gives the truth."""
    path = str(tmp_path / "some.pcap")
    said = traffic.write(what, path)
    packets = list(capture.read(path))
    assert [frame for frame, _ in packets] == list(traffic.frames(what))
    assert [time_ns for _, time_ns in packets] == [what.start_ns + i * what.interval_ns for i in range(what.packets)]
    assert said.events == traffic.truth(what).events


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is missing")
def test_tshark_finds_nothing_wrong(tmp_path: pathlib.Path) -> None:
    """tshark reads every packet of a written file as UDP to the port, of right lengths and IPv4 checksums."""
    path = str(tmp_path / "some.pcap")
    traffic.write(dataclasses.replace(MIX, packets=1000), path)
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
    assert len(lines) == 1000
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
