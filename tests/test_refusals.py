"""What is kept of packets that are no reports: foreign UDP by its port, malformed reports by who sent them and why."""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
import struct

import numpy as np
import pytest

from intcollector import kernel, wire
from intcollector.batch import REFUSAL, UDP_PORTS, State
from intcollector.config import Config
from intcollector.layout import LAYOUT, OUTCOMES

from . import batches
from .frames import Datapaths, frame, numbered, on_all_cpus, quiet, two_cpus
from .needs import needs_root

pytestmark = needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
HOP = {"switch_id": 7, "hop_latency": 100}
UDP_AT = 14 + 20
SPECIMEN = LAYOUT.defines["SPECIMEN"]
MAX_TUNNELS = LAYOUT.defines["MAX_TUNNELS"]
MAX_REFUSALS = LAYOUT.defines["MAX_REFUSALS"]
MALFORMED = range(OUTCOMES.index("bad_ip_len"), OUTCOMES.index("unknown_encapsulation"))


def to_port(packet: bytes, port: int) -> bytes:
    """An untagged IPv4 frame with another UDP destination port."""
    return packet[: UDP_AT + 2] + struct.pack("!H", port) + packet[UDP_AT + 4 :]


def malformed(source: str = "192.0.2.1", version: int = 9) -> bytes:
    """A report of a version that there is not."""
    packet = bytearray(frame(CONFIG, HOP, source=source))
    at = UDP_AT + 8 + (20 if ":" in source else 0)
    packet[at] = packet[at] & 15 | version << 4
    return bytes(packet)


def refusals(state: State) -> dict[tuple[str, str], np.void]:
    """(source, outcome) -> its row."""
    found = {}
    for row in state.refusals:
        size = {4: 4, 6: 16}[int(row["ip_version"])]
        assert not row["address"][size:].any()
        found[str(ipaddress.ip_address(row["address"][:size].tobytes())), OUTCOMES[row["outcome"]]] = row
    assert len(found) == len(state.refusals)
    return found


def specimen(row: np.void) -> bytes:
    return bytes(row["bytes"][: row["kept"]].tobytes())


def packets(state: State, outcome: str) -> int:
    return int(state.counters["outcomes"][OUTCOMES.index(outcome)])


def test_foreign_packets_by_their_port(datapaths: Datapaths) -> None:
    """Each UDP packet for another port is counted under that port, and the sum is what passed for its port."""
    datapath = datapaths(CONFIG)
    report = frame(CONFIG, HOP)
    for port, times in ((54322, 214), (53, 2), (0, 1), (65535, 3)):
        datapath.run(to_port(report, port), repeat=times)
    datapath.run(report)
    state = datapath.state()
    assert state.udp_ports.shape == (UDP_PORTS,)
    assert {int(port): int(state.udp_ports[port]) for port in np.flatnonzero(state.udp_ports)} == {
        54322: 214, 53: 2, 0: 1, 65535: 3,
    }  # fmt: skip
    assert int(state.udp_ports.sum()) == packets(state, "pass_port")
    assert packets(state, "ok") == 1 and not len(state.refusals)


def test_malformed_reports_by_source_and_outcome(datapaths: Datapaths) -> None:
    """Malformed reports are counted by who sent them and what was wrong, with the first of each as it came."""
    datapath = datapaths(CONFIG)
    first, second = numbered(malformed(), (1, 2))
    other, six = malformed("192.0.2.2"), malformed("2001:db8::5")
    cut = frame(CONFIG, HOP)[: UDP_AT + 8 + 4]
    cut = wire_lengths(cut)
    for packet in (first, second, second, other, six, cut, frame(CONFIG, HOP)):
        datapath.run(packet)
    state = datapath.state()
    rows = refusals(state)
    assert {key: int(row["packets"]) for key, row in rows.items()} == {
        ("192.0.2.1", "bad_report_ver"): 3,
        ("192.0.2.2", "bad_report_ver"): 1,
        ("2001:db8::5", "bad_report_ver"): 1,
        (str(ipaddress.ip_address(cut[26:30])), "trunc_report"): 1,
    }
    assert specimen(rows["192.0.2.1", "bad_report_ver"]) == first
    assert specimen(rows["2001:db8::5", "bad_report_ver"]) == six
    for row in rows.values():
        assert row["length"] == row["kept"] and row["seen_ns"] > 0
        assert wire.decode(specimen(row), CONFIG)["outcome"] == OUTCOMES[row["outcome"]]
    later = int(rows["192.0.2.1", "bad_report_ver"]["seen_ns"])
    datapath.run(second)
    assert int(refusals(datapath.state())["192.0.2.1", "bad_report_ver"]["seen_ns"]) >= later


def says_nothing(packet: bytes) -> bool:
    """A right report of a TCP or UDP flow with neither INT nor anything of the reporting switch."""
    said = wire.decode(packet, CONFIG)
    return said["outcome"] == "ok" and all(
        r["flow"] and r["flow"]["source_port"] is not None and not (r["int"] or r["local_hop"]) for r in said["reports"]
    )


def wire_lengths(packet: bytes) -> bytes:
    """An untagged IPv4 frame whose lengths say that it ends where it does."""
    mended = bytearray(packet)
    struct.pack_into("!H", mended, 16, len(packet) - 14)
    struct.pack_into("!H", mended, UDP_AT + 4, len(packet) - UDP_AT)
    return bytes(mended)


@pytest.mark.parametrize("size", [60, SPECIMEN - 1, SPECIMEN, SPECIMEN + 1, 1500])
def test_a_specimen_is_as_long_as_there_is_room(datapaths: Datapaths, size: int) -> None:
    """The first bytes are kept, all of a short packet, and how long it was."""
    datapath = datapaths(CONFIG)
    packet = malformed()
    packet = wire_lengths(packet + bytes(i * 7 % 251 for i in range(size)))[:size]
    if len(packet) < size:
        packet += bytes(size - len(packet))
    datapath.run(packet)
    (row,) = datapath.state().refusals
    assert (int(row["length"]), int(row["kept"])) == (size, min(size, SPECIMEN))
    assert specimen(row) == packet[:SPECIMEN]


def test_more_sources_than_there_is_room_for(datapaths: Datapaths) -> None:
    """What finds no room is in its outcome's count alone, and what is there goes on counting."""
    datapath = datapaths(CONFIG)
    sources = [str(ipaddress.ip_address("10.0.0.1") + i) for i in range(MAX_REFUSALS + 30)]
    for source in (*sources, *sources):
        datapath.run(malformed(source))
    state = datapath.state()
    assert len(state.refusals) == MAX_REFUSALS
    assert int(state.refusals["packets"].sum()) == 2 * MAX_REFUSALS
    assert packets(state, "bad_report_ver") == 2 * len(sources)


def test_reports_that_say_nothing(datapaths: Datapaths) -> None:
    """A right report of a TCP or UDP flow with neither INT nor anything of the reporting switch is kept as malformed
    ones are: maybe its exporter is read wrong. One that says something is not."""
    datapath = datapaths(CONFIG)
    bare = frame(CONFIG)
    assert says_nothing(bare)
    at = bare.index(bytes.fromhex("0a0000010a000002")) - 3  # the protocol, in front of checksum and addresses
    without_ports = bare[:at] + b"\x01" + bare[at + 1 :]
    assert bare[at] == 17 and wire.decode(without_ports, CONFIG)["outcome"] == "ok" and not says_nothing(without_ports)
    said = frame(CONFIG, HOP), frame(CONFIG, local={"drop_reason": 1}), without_ports
    for packet in (without_ports, bare, bare, *said):
        assert datapath.run(packet)[0] == kernel.XDP_DROP
    state = datapath.state()
    (row,) = state.refusals
    assert (OUTCOMES[row["outcome"]], int(row["packets"]), specimen(row)) == ("ok", 2, bare)
    assert packets(state, "ok") == 6


def test_reports_that_are_accepted_or_given_up(datapaths: Datapaths) -> None:
    """A report about a packet in an unknown encapsulation is accepted, and kept nowhere but in its flow; one that says
    nothing in a known encapsulation is kept by the packet's own exporter."""
    datapath = datapaths(CONFIG)
    deep = [
        wire.encode(batches.report(), CONFIG, tunnels=[wire.Tunnel("gre")] * (MAX_TUNNELS + more)) for more in (1, 0)
    ]
    assert [wire.decode(one, CONFIG)["outcome"] for one in deep] == ["unknown_encapsulation", "ok"]
    for one in deep:
        assert datapath.run(one)[0] == kernel.XDP_DROP
    state = datapath.state()
    assert packets(state, "unknown_encapsulation") == packets(state, "ok") == 1
    (row,) = state.refusals
    assert (OUTCOMES[row["outcome"]], int(row["packets"]), specimen(row)) == ("ok", 1, deep[1])


@two_cpus
def test_on_several_cpus_at_once(datapaths: Datapaths) -> None:
    """Nothing is lost when malformed and foreign packets arrive on all CPUs."""
    datapath = datapaths(CONFIG)
    foreign, bad = to_port(frame(CONFIG, HOP), 4000), malformed()

    def work(_: int) -> None:
        for packet in (foreign, bad):
            datapath.run(packet, repeat=20_000)

    cpus = on_all_cpus(work)
    state = datapath.state()
    assert int(state.udp_ports[4000]) == 20_000 * cpus
    assert state.refusals["packets"].tolist() == [20_000 * cpus]


def test_the_sum_closes_over_all_kinds_of_packets(datapaths: Datapaths) -> None:
    """Of any packets, those kept by port and by source are those of the outcomes, each once."""
    datapath = datapaths(dataclasses.replace(CONFIG, malformed_verdict="drop"))
    report = frame(CONFIG, HOP, HOP)
    mutants = [one for one in wire.mutations(report, 3000, seed=11) if len(one) >= 14]
    for packet in mutants:
        datapath.run(packet)
    state = datapath.state()
    by_outcome = collections.Counter[int]()
    for row in state.refusals:
        by_outcome[int(row["outcome"])] += int(row["packets"])
    counted = state.counters["outcomes"]
    silent = [one for one in mutants if says_nothing(one)]
    assert by_outcome.pop(OUTCOMES.index("ok")) == len(silent) > 0
    assert by_outcome == {i: int(counted[i]) for i in MALFORMED if counted[i]}
    assert len(by_outcome) > 5
    assert int(state.udp_ports.sum()) == packets(state, "pass_port") > 0
    assert state.refusals.dtype == REFUSAL
