"""Telemetry Report 2.0: many individual reports in a packet, read by the program or taken apart in groups.py."""

from __future__ import annotations

import dataclasses
import random
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intcollector import groups, wire
from intcollector.batch import Batch, State
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.layout import CELL, HEAD_CELLS, LAYOUT, OUTCOMES, FlowFlag, ReportFlag
from intcollector.wire import Spelling, Tunnel

from . import batches, strategies
from .frames import NONE32, Datapaths, Decoders, frame, news, quiet
from .needs import needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
SMALL = 16
"""Individual reports of a packet that the program reads itself; of twice as many it reads none."""
MAX_TLVS, MAX_WHOLE_BYTES = LAYOUT.defines["MAX_TLVS"], LAYOUT.defines["MAX_WHOLE_BYTES"]


# --- packets ----------------------------------------------------------------------------------------------------------


def individual(number: int, **more: Any) -> dict[str, Any]:
    """A report without anything in it but its number; the reports of one packet share it."""
    return batches.report(version="2.0", ingress_timestamp=None, **more) | {"sequence_number": number}


def mixed(number: int, count: int) -> list[dict[str, Any]]:
    """Reports of every kind, about five flows and none, in which everything grows."""
    reports = []
    for i in range(count):
        local: dict[str, Any] = {
            "hop_latency": 100 + i,
            "queue_id": i % 4,
            "queue_occupancy": 10 * i,
            "egress_port_tx_utilization": i,
            "ingress_port_id": i % 3,
            "egress_port_id": i % 5,
        }
        stack = [{"switch_id": 30 + i % 3, "hop_latency": 1000 + i}, {"switch_id": 40, "hop_latency": i}]
        flow = {"flow": f"10.0.0.{i % 5}:4000>10.0.1.1:{i % 5}/17"}
        kinds: list[dict[str, Any]] = [
            individual(number, **flow, local_hop=local),
            individual(number, **flow, int=mx_or_md(stack)),
            individual(number, **flow, local_hop={"drop_queue_id": i % 8, "drop_reason": i % 7}, dropped=True),
            individual(number, **flow, congested_queue=True, tracked_flow=False),
            individual(number, local_hop=local) | {"flow": None},
            individual(number, intermediate=True) | {"flow": wire.no_flow([3])},
        ]
        reports.append(kinds[i * 7 % len(kinds)])
    return reports


def mx_or_md(hops: Sequence[dict[str, int]]) -> dict[str, Any]:
    """A stack of INT 2.x."""
    return {
        "version": "2.x",
        "mode": "MD",
        "instruction_bitmap": "0xa000",
        "hop_ml": 2,
        "remaining_hop_count": 4,
        "hop_count": len(hops),
        "hops": list(hops),
        "latency": sum(hop["hop_latency"] for hop in hops),
    }


def small(number: int, count: int) -> list[dict[str, Any]]:
    """Reports that take so little room that sixty of them go into a packet that can go up whole."""
    return [
        individual(number, flow=f"10.0.0.1:4000>10.0.1.1:{i % 7}/17", local_hop={"hop_latency": i, "queue_id": i % 3,
                   "queue_occupancy": i}, tracked_flow=i % 2 == 0)
        for i in range(count)
    ]  # fmt: skip


def written(reports: Sequence[dict[str, Any]], config: Config = CONFIG) -> bytes:
    """One frame of them; with inner packets that begin with IP, where they can."""
    starts = ["ethernet" if not r["flow"] or not r["flow"]["ip_version"] else "ipv4" for r in reports]
    return wire.encode_group(reports, config, [Spelling(nproto=start) for start in starts])


# --- taken apart ------------------------------------------------------------------------------------------------------


def taken_apart(one: bytes, config: Config) -> list[dict[str, Any]]:
    """What the parts of a frame say, one report each."""
    answers = [wire.decode(part, config) for part in groups.parts(one)]
    assert {answer["outcome"] for answer in answers} <= {"ok", "unknown_encapsulation"}
    assert all(len(answer["reports"]) == 1 for answer in answers)
    return [answer["reports"][0] for answer in answers]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_each_part_means_what_its_report_does(data: st.DataObject) -> None:
    """Taken apart, a packet becomes as many as it has reports, and each says the same as before."""
    config = data.draw(strategies.configs())
    one = data.draw(strategies.nearly(config))
    answer = wire.decode(one, config)
    if not answer["reports"] or answer["reports"][0]["version"] != "2.0":
        return
    assert taken_apart(one, config) == answer["reports"]


@pytest.mark.parametrize("count", [1, 2, 17, 60])
def test_as_many_parts_as_reports(count: int) -> None:
    """Each report becomes a packet, whatever its kind."""
    one = written(mixed(5, count))
    assert taken_apart(one, CONFIG) == wire.decode(one, CONFIG)["reports"] == mixed(5, count)


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_padding_is_no_report(padding: int) -> None:
    """Up to three bytes behind the last report belong to none."""
    one = wire.fit_lengths(written(mixed(5, 3)) + bytes(padding))
    assert taken_apart(one, CONFIG) == mixed(5, 3)


TLVS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "none": (),
    "one": ((0, bytes(4)),),
    "as many as the program walks": ((0, bytes(4)),) * (MAX_TLVS - 1),
    "one more": ((0, bytes(4)),) * MAX_TLVS,
    "empty ones": ((7, b""),) * 30,
    "long ones": ((15, bytes(1020)),),
}


@pytest.mark.parametrize("tlvs", TLVS.values(), ids=TLVS)
@pytest.mark.parametrize("start", ["ethernet", "ipv4"])
@pytest.mark.parametrize("local", [None, {"hop_latency": 9}], ids=["inner only", "with metadata"])
def test_an_inner_packet_among_tlvs(tlvs: tuple[tuple[int, bytes], ...], start: str, local: dict[str, int]) -> None:
    """A part has the inner packet without the TLVs around it."""
    report = individual(5, local_hop=local)
    one = wire.encode(report, CONFIG, tlvs=tlvs, nproto=start)
    (part,) = groups.parts(one)
    assert wire.decode(part, CONFIG)["reports"] == [report]
    assert part[42:] == wire.encode(report, CONFIG, nproto=start)[42:]


# --- by the program ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ring", "perf"])
def transport(request: pytest.FixtureRequest) -> Config:
    """CONFIG with each way up."""
    return dataclasses.replace(CONFIG, event_transport=request.param)


def drained(datapath: Datapath) -> Batch:
    """All events there are."""
    done = [datapath.drain()]
    while len(done[-1]) or datapath.has_more:
        done.append(datapath.drain())
    return Batch.together(done)


def outcomes_of(state: State) -> dict[str, int]:
    """How many packets had each outcome, of those that had any."""
    return {name: count for name, count in zip(OUTCOMES, state.counters["outcomes"].tolist(), strict=False) if count}


NOT_COMPARED = ("transport", "received_ns", "pad0", "pad1", "pad2", "pad3", "resumed")


def told_by(batch: Batch) -> list[dict[str, Any]]:
    """What the events say, but for when, and in which packet of how many."""
    out = []
    for row in range(len(batch)):
        head = batch.reports[row]
        fields = {name: head[name].tolist() for name in head.dtype.names if name not in NOT_COMPARED}
        fields["flags"] &= ~ReportFlag.CONTINUED
        del fields["sequence_number"]
        if not fields["flags"] & ReportFlag.LOCAL:
            del fields["local"]
        if not fields["flags"] & (ReportFlag.FLOW_IPV4 | ReportFlag.FLOW_IPV6):
            del fields["flow_source"], fields["flow_destination"]
        fields["hops"] = batch.hops[batch.hop_report == row].tolist()
        if fields["flags"] & ReportFlag.POSTCARD:
            fields["hops"] = [(*hop[1:],) for hop in fields["hops"]]  # all but the place's time
        out.append(fields)
    return out


TIMES = ("seen", "seen_high", "told")


def plain(array: np.ndarray) -> list[Any]:
    """A structured array as lists of tuples, whatever is in it."""
    names = array.dtype.names
    if names is None:
        return array.tolist()
    return (
        list(zip(*(plain(array[name]) for name in names), strict=True))
        if array.ndim == 1
        else [plain(row) for row in array]
    )


def kept_by(state: State) -> dict[str, Any]:
    """What the maps hold, but for when and for sources, which see another number of packets."""
    order = np.argsort(state.flow_keys["destination_port"])
    flows = state.flows[order].copy()
    flows["source"] = 0  # remembered to save looking it up, and not of each report of a packet
    for name in TIMES:
        flows[name] = 0
    for name in ("order", "seen"):
        flows["places"][name] = 0
    drops = zip(state.drop_keys["switch_id"].tolist(), state.drop_keys["reason"].tolist(), state.drops, strict=True)
    counters = {name: int(state.counters[name]) for name in state.counters.dtype.names or () if name != "outcomes"}
    return {
        "flow_keys": plain(state.flow_keys[order]),
        "flows": plain(flows),
        "ports": plain(state.ports),
        "queues": plain(state.queues),
        "port_statistics": plain(state.port_statistics),
        "queue_statistics": plain(state.queue_statistics),
        "drops": sorted((switch, reason, int(count)) for switch, reason, count in drops),
        "counters": counters,
    }


def of_sources(state: State) -> list[tuple[int, ...]]:
    """(switch_id, hw_id, received, lost, reordered, duplicated, restarted, highest) of each."""
    names = ("switch_id", "hw_id", "received", "lost", "reordered", "duplicated", "restarted", "highest")
    return [tuple(int(source[name]) for name in names) for source in state.sources]


LOUD = dataclasses.replace(
    CONFIG, hop_latency_threshold=2, flow_latency_threshold=2, queue_occupancy_threshold=15,
    tx_utilization_threshold=3,
)  # fmt: skip


@needs_root
@pytest.mark.parametrize("count", [2, 16, 17, 33, 60])
@pytest.mark.parametrize("make", [mixed, small])
def test_one_packet_is_as_many(datapaths: Datapaths, transport: Config, make: Any, count: int) -> None:
    """Reports in one packet leave the same in all maps, and are told the same, as each in a packet of its own; but they
    have one number, one outcome, and are received once."""
    config = dataclasses.replace(LOUD, event_transport=transport.event_transport)
    reports = make(7, count)
    datapath = datapaths(config)
    for number, report in enumerate(reports):
        datapath.run(written([report | {"sequence_number": number}], config))
    apart, told_apart = datapath.state(), told_by(drained(datapath))
    assert of_sources(apart) == [(1, 0, count, 0, 0, 0, 0, count - 1)]

    one = written(reports, config)
    assert len(one) <= MAX_WHOLE_BYTES
    datapath = datapaths(config)
    datapath.run(one)
    batch = drained(datapath)
    together = datapath.state()
    assert outcomes_of(together) == {"ok": 1}
    assert of_sources(together) == [(1, 0, 1, 0, 0, 0, 0, 7)]
    assert kept_by(together) == kept_by(apart)
    assert told_by(batch) == told_apart and len(told_apart) > 1
    assert not (batch.reports["flags"] & ReportFlag.WHOLE).any()
    assert (batch.reports["sequence_number"] == 7).all()


@needs_root
@pytest.mark.parametrize("count", [1, 2, SMALL, SMALL + 1, 2 * SMALL])
def test_reports_come_in_the_order_of_the_packet(datapaths: Datapaths, transport: Config, count: int) -> None:
    """The first report of a packet opens it, the others continue it, in order, also between other packets."""
    datapath = datapaths(transport)
    packets = [
        [individual(number, dropped=True, local_hop={"hop_latency": i}) for i in range(count)] for number in range(20)
    ]
    for number, reports in enumerate(packets):
        datapath.run(written(reports))
        datapath.run(frame(CONFIG, dropped=True, sequence_number=1000 + number))
    batch = drained(datapath)
    expected = [
        row
        for number in range(20)
        for row in [*((number, i > 0, i) for i in range(count)), (1000 + number, False, NONE32)]
    ]
    continued = (batch.reports["flags"] & ReportFlag.CONTINUED != 0).tolist()
    has_local = batch.reports["flags"] & ReportFlag.LOCAL != 0
    said = np.where(has_local, batch.reports["local"]["hop_latency"], NONE32).tolist()
    assert list(zip(batch.reports["sequence_number"].tolist(), continued, said, strict=True)) == expected
    assert outcomes_of(datapath.state()) == {"ok": 40}


@needs_root
def test_both_engines_tell_large_groups_alike(decoders: Decoders) -> None:
    """decode gives the same records of any number of reports in a packet, in packets of any size."""
    packets = [written(make(9, count)) for make in (mixed, small) for count in range(1, 90, 4)]
    answers = [wire.decode(one, CONFIG) for one in packets]
    assert {answer["outcome"] for answer in answers} == {"ok"}
    assert [len(answer["reports"]) for answer in answers] == [*range(1, 90, 4)] * 2
    assert list(decoders(CONFIG).decode(packets)) == answers
    assert max(map(len, packets)) > MAX_WHOLE_BYTES


@needs_root
def test_both_engines_tell_long_reports_alike(decoders: Decoders) -> None:
    """decode gives the same records where a packet is longer than a test run takes, wherever its end is then."""
    packets = [
        wire.encode_group([individual(9)] * count, CONFIG, [Spelling(payload=bytes(size))] * count)
        for count, size in ((2, 960), (8, 400), (8, 600), (20, 140), (20, 300), (60, 200), (60, 900))
    ]
    assert [len(wire.decode(one, CONFIG)["reports"]) for one in packets] == [2, 8, 8, 20, 20, 60, 60]
    assert list(decoders(CONFIG).decode(packets)) == [wire.decode(one, CONFIG) for one in packets]


BAD = {
    "its length": (b"\x14\x01\0\0\0\0\0\0", "bad_indiv_len"),
    "its metadata's length": (b"\x14\x02\x01\0", "bad_indiv_len"),
    "too few words of metadata": (b"\x10\x03\x01\0\x0c\0\0\0\0\0\0\0\0\0\0\0", "md_len_too_small"),
    "a TLV": (b"\x01\x01\0\0\x10\x09\0\0", "bad_tlv"),
    "its inner packet": (b"\x04\x02\0\0" + bytes(8), "trunc_inner"),
    "no IP": (b"\x04\x05\0\0" + bytes(20), "bad_inner_ip"),
}


@needs_root
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("count", [2, 5, SMALL, 2 * SMALL])
def test_of_a_packet_with_a_bad_report_nothing_is_kept(datapaths: Datapaths, name: str, count: int) -> None:
    """Wherever it stands, one report that is wrong refuses the packet: one outcome, no event, and nothing is kept, but
    that it was not lost."""
    bytes_of_it, outcome = BAD[name]
    good = [written([report])[50:] for report in small(3, count - 1)]
    head = written(small(3, 1))[:50]
    datapath = datapaths(CONFIG)
    packets = [
        wire.fit_lengths(head + b"".join([*good[:at], bytes_of_it, *good[at:]])) for at in (0, count // 2, count - 1)
    ]
    for one in packets:
        assert wire.decode(one, CONFIG) == {"outcome": outcome, "reports": []}
        datapath.run(one)
    assert not len(drained(datapath))
    state = datapath.state()
    assert outcomes_of(state) == {outcome: len(packets)}
    assert not len(state.flows) and len(state.ports) == len(state.queues) == 1
    assert of_sources(state) == [(1, 0, 0, 0, 0, 0, 0, 3)]


@needs_root
@pytest.mark.parametrize("name", BAD)
def test_of_a_whole_packet_with_a_bad_report_nothing_is_kept(datapaths: Datapaths, name: str) -> None:
    """A packet that turns out wrong where it is decoded has one outcome, and is not lost; nothing else is kept."""
    bytes_of_it, outcome = BAD[name]
    one = wire.fit_lengths(written(small(3, 60)) + bytes_of_it)
    assert wire.decode(one, CONFIG) == {"outcome": outcome, "reports": []}
    datapath = datapaths(CONFIG)
    for _ in range(2):
        datapath.run(one)
        assert not len(drained(datapath))
    state = datapath.state()
    assert outcomes_of(state) == {outcome: 2}
    (refusal,) = state.refusals
    assert (OUTCOMES[refusal["outcome"]], refusal["packets"], refusal["length"]) == (outcome, 2, len(one))
    assert refusal["bytes"][: refusal["kept"]].tobytes() == one[:512]
    assert not len(state.flows) and len(state.ports) == len(state.queues) == 1
    assert of_sources(state) == [(1, 0, 0, 0, 0, 0, 0, 3)]


@needs_root
@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("at", [0, -1])
def test_a_report_with_many_tlvs(datapaths: Datapaths, count: int, at: int) -> None:
    """More TLVs than the program walks change nothing in what is kept."""
    reports = small(3, count)
    plain = datapaths(CONFIG)
    plain.run(written(reports))
    told = told_by(drained(plain))
    expected = kept_by(plain.state())
    for before in (MAX_TLVS - 1, MAX_TLVS, 3 * MAX_TLVS):
        spelled = [Spelling(nproto="ipv4")] * count
        spelled[at] = Spelling(nproto="ipv4", tlvs=[(0, bytes(4))] * before)
        datapath = datapaths(CONFIG)
        datapath.run(wire.encode_group(reports, CONFIG, spelled))
        assert told_by(drained(datapath)) == told
        state = datapath.state()
        assert kept_by(state) == expected
        assert outcomes_of(state) == {"ok": 1}


@needs_root
def test_a_wrong_tlv_behind_many(datapaths: Datapaths) -> None:
    """A TLV that runs past its report refuses the packet, however many are in front of it."""
    datapath = datapaths(CONFIG)
    head = written(small(3, 1))[:50]
    for before in (0, MAX_TLVS - 1, MAX_TLVS, 3 * MAX_TLVS):
        one = wire.fit_lengths(head + bytes([0x01, before + 1, 0, 0]) + bytes(4) * before + b"\x10\x01\0\0")
        assert wire.decode(one, CONFIG)["outcome"] == "bad_tlv"
        datapath.run(one)
    assert not len(drained(datapath))
    assert outcomes_of(datapath.state()) == {"bad_tlv": 4}


@needs_root
def test_a_group_whose_reports_are_in_encapsulations(datapaths: Datapaths, decoders: Decoders) -> None:
    """One report that is not understood gives the packet its outcome, and all of its reports are kept."""
    for count in (3, 20):
        reports = [individual(3, flow=f"10.0.0.1:1>10.0.0.2:{i}/17") for i in range(count)]
        spelled = [Spelling(tunnels=[Tunnel("vxlan"), Tunnel("gre")])] * count
        spelled[1] = Spelling(tunnels=[Tunnel("gre")] * 5)
        datapath = datapaths(CONFIG)
        one = wire.encode_group(reports, CONFIG, spelled)
        datapath.run(one)
        assert len(drained(datapath)) == count
        state = datapath.state()
        assert outcomes_of(state) == {"unknown_encapsulation": 1}
        ports = [0 if i == 1 else i for i in range(count)]
        assert sorted(state.flow_keys["destination_port"].tolist()) == sorted(ports)
        assert list(decoders(CONFIG).decode([one])) == [wire.decode(one, CONFIG)]


@needs_root
@pytest.mark.usefixtures("one_cpu")
def test_whole_packets_that_find_no_room(datapaths: Datapaths, transport: Config) -> None:
    """They stay counted as undecoded, nothing of them is kept, and the outcomes still add up to the packets."""
    datapath = datapaths(transport)
    filler = frame(CONFIG, *({"switch_id": i} for i in range(16)), dropped=True)
    small_filler = frame(CONFIG, dropped=True)
    runs = 0
    for one in (filler, small_filler):
        before = int(datapath.counters()["events_lost"])
        while int(datapath.counters()["events_lost"]) == before:
            assert runs < 4 * transport.ring_size * 2**20 // ((HEAD_CELLS + 1) * CELL)
            for _ in range(16):  # not repeat=16: for a repeated run the kernel waits 20 ms until all CPUs know of it
                datapath.run(one)
            runs += 16
    events_lost = int(datapath.counters()["events_lost"])
    whole = [written(small(number, 40)) for number in range(30)]
    for one in whole:
        datapath.run(one)
    assert outcomes_of(datapath.state()) == {"ok": runs, "undecoded": 30}
    assert int(datapath.counters()["events_lost"]) == events_lost  # each is counted in one place
    drained(datapath)
    state = datapath.state()
    assert outcomes_of(state) == {"ok": runs, "undecoded": 30}
    assert len(state.flows) == 1
    datapath.run(whole[0])
    assert sum("new_flow" in why for why in news(drained(datapath))) == 7
    state = datapath.state()
    assert outcomes_of(state) == {"ok": runs + 1, "undecoded": 30}
    assert len(state.flows) == 8


@needs_root
def test_a_packet_that_is_too_long_to_go_up(datapaths: Datapaths) -> None:
    """A group that no test run could take back is counted as undecoded, and nothing of it kept."""
    datapath = datapaths(CONFIG)
    one = wire.encode_group(small(3, 40), CONFIG, [Spelling(nproto="ipv4", payload=bytes(100))] * 40)
    assert len(one) > MAX_WHOLE_BYTES
    datapath.run(one)
    assert not len(drained(datapath))
    state = datapath.state()
    assert outcomes_of(state) == {"undecoded": 1}
    assert not len(state.flows) and len(state.ports) == 1
    assert of_sources(state) == [(1, 0, 0, 0, 0, 0, 0, 3)]  # but it was not lost on its way


@needs_root
def test_the_longest_packet_that_goes_up(datapaths: Datapaths) -> None:
    """Every length up to the longest comes up byte for byte."""
    datapath = datapaths(CONFIG)
    base = len(written(small(3, 40)))
    padding = random.Random(1).randbytes(MAX_WHOLE_BYTES)
    for more in [*range(70), *range(MAX_WHOLE_BYTES - base - 70, MAX_WHOLE_BYTES - base + 1)]:
        padded = wire.fit_lengths(written(small(3, 40))) + padding[:more]
        datapath.run(padded)
        whole = datapath.transport.drain()
        cells = whole.hops.view(np.uint8).reshape(-1, CELL)
        assert np.concatenate((cells[:, :12], cells[:, 16:]), axis=1).tobytes()[: len(padded)] == padded
        datapath._leave(whole)
        drained(datapath)
    state = datapath.state()
    assert outcomes_of(state) == {"ok": 141}
    assert state.flows["reports"].sum() == 141 * 40


@needs_root
def test_news_by_the_way_a_report_came(datapaths: Datapaths) -> None:
    """What one packet told in whichever way is no news in the next, which came the other way."""
    config = dataclasses.replace(LOUD, hop_latency_threshold=50)
    datapath = datapaths(config)
    reports = [individual(1, flow="10.0.0.1:1>10.0.0.2:2/17", int=mx_or_md([{"switch_id": 4, "hop_latency": 7}]))]
    datapath.run(written(reports * 20))
    assert news(drained(datapath)) == [{"new_flow", "flow_latency", "hop_latency 0"}]
    datapath.run(written(reports))
    assert not len(drained(datapath))
    changed = [individual(3, flow="10.0.0.1:1>10.0.0.2:2/17", int=mx_or_md([{"switch_id": 5, "hop_latency": 7}]))]
    datapath.run(written(changed))
    assert news(drained(datapath)) == [{"path", "hop_latency 0"}]
    datapath.run(written(changed * 20))
    assert not len(drained(datapath))
    (flow,) = datapath.state().flows
    assert flow["reports"] == 42 and flow["flags"] & FlowFlag.PATH


@needs_root
def test_times_of_whole_packets(datapaths: Datapaths) -> None:
    """The reports of a packet that went up whole were received when the packet was."""
    datapath = datapaths(CONFIG)
    datapath.run(written([individual(1, dropped=True)] * 20))
    datapath.run(frame(CONFIG, dropped=True, sequence_number=5))
    datapath.run(written([individual(2, dropped=True)] * 20))
    batch = drained(datapath)
    assert batch.reports["sequence_number"].tolist() == [1] * 20 + [5] + [2] * 20
    received = batch.reports["received_ns"].astype(np.int64)
    assert len(set(received[:20])) == len(set(received[21:])) == 1
    assert received[0] < received[20] < received[21]


@needs_root
def test_large_and_small_packets_of_one_source(datapaths: Datapaths) -> None:
    """Numbers count when their packet comes, not when it is decoded: none is late, lost or a new beginning for it."""
    datapath = datapaths(CONFIG)
    for number in (1, 2, *range(3, 200), 200, 201, 203):
        datapath.run(written(small(number, 20 if number in (1, 2, 100, 200) else 1)))
    drained(datapath)
    for number in range(204, 210):
        datapath.run(written(small(number, 1)))
    assert of_sources(datapath.state()) == [(1, 0, 208, 1, 0, 0, 0, 209)]


@needs_root
def test_whole_packets_while_more_come(datapaths: Datapaths) -> None:
    """Packets that come while others are decoded are decoded behind them: each once, whole, in order, and none lost."""
    datapath = datapaths(dataclasses.replace(CONFIG, ring_size=16))
    count, each = 600, 20
    packets = [written([individual(number, dropped=True)] * each) for number in range(count)]
    packets += [frame(CONFIG, dropped=True, sequence_number=count + 1)]

    def write() -> None:
        for one in packets:
            datapath.run(one)

    writer = threading.Thread(target=write)
    writer.start()
    batches_drained = []
    while writer.is_alive():
        batches_drained.append(datapath.drain())
    writer.join()
    batch = Batch.together([*batches_drained, drained(datapath)])
    assert not (batch.reports["flags"] & ReportFlag.WHOLE).any()
    numbers = batch.reports["sequence_number"]
    assert np.bincount(numbers)[:count].tolist() == [each] * count
    assert len(batch) == count * each + 1
    whole = numbers[numbers < count]
    assert (np.diff(whole.astype(np.int64)) >= 0).all()
    state = datapath.state()
    assert outcomes_of(state) == {"ok": count + 1}
    assert sorted(of_sources(state)) == [(1, 0, 1, 0, 0, 0, 0, count + 1), (1, 0, count, 0, 0, 0, 0, count - 1)]


def test_the_first_words_of_a_group() -> None:
    """The parts of a packet keep its number, node and hw_id."""
    reports = [individual(2**22 - 1, hw_id=63, switch_id=NONE32 - 1) for _ in range(3)]
    one = written(reports)
    for part in groups.parts(one):
        assert part[42:50] == one[42:50] == struct.pack("!II", 2 << 28 | 63 << 22 | 2**22 - 1, NONE32 - 1)
