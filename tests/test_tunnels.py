"""Flows and INT behind VXLAN, VXLAN-GPE, Geneve, GRE and MPLS: by both engines, and in the kernel program's maps."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from intcollector import wire
from intcollector.batch import State
from intcollector.config import Config
from intcollector.layout import LAYOUT, MAX_HOPS, OUTCOMES
from intcollector.wire import Tunnel

from . import batches, strategies
from .frames import NONE32, Datapaths, Decoders, frame, quiet
from .needs import needs_root

pytestmark = needs_root

GRE_PROTOCOL = 0x88B7
CONFIG = quiet(Config(ring_size=1, max_flows=4096, int_gre_protocol=GRE_PROTOCOL))
MARKED = dataclasses.replace(CONFIG, int_dscp=(23, 63))
MAX_TUNNELS, MAX_LABELS, MAX_OPTIONS = (LAYOUT.defines[f"MAX_{what}"] for what in ("TUNNELS", "LABELS", "OPTIONS"))
FLOWS = {
    "udp": "10.1.0.1:4000>10.2.0.2:5001/17",
    "tcp": "10.1.0.1:4000>10.2.0.2:80/6",
    "udp6": "2001:db8:1::1:4000>2001:db8:2::2:5001/17",
    "tcp6": "2001:db8:1::1:4000>2001:db8:2::2:80/6",
}
Answers = Callable[[Config, Sequence[bytes]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def answers(decoders: Decoders) -> Answers:
    """What both engines say of frames, which has to be the same."""
    decoder = decoders(CONFIG)

    def both(config: Config, frames: Sequence[bytes]) -> list[dict[str, Any]]:
        decoder.apply(config)
        by_python = [wire.decode(one, config) for one in frames]
        assert list(decoder.decode(frames)) == by_python
        return by_python

    return both


# --- what is there is found -------------------------------------------------------------------------------------------


def stack_of(version: str, mode: str = "MD", hops: int = 3) -> dict[str, Any]:
    """A report's `int`, of hops that know their switch, latency and queue."""
    said = [{"switch_id": 40 + i, "hop_latency": 100 + i, "queue_id": i, "queue_occupancy": 7 * i} for i in range(hops)]
    md = mode == "MD"
    return {
        "version": version,
        "mode": mode,
        "instruction_bitmap": "0xb000",
        "hop_ml": 3 if md and version != "0.5" else None,
        "remaining_hop_count": 9 if md and version != "0.5" else None,
        "hop_count": hops if md else 0,
        "hops": said if md else [],
        "latency": sum(hop["hop_latency"] for hop in said) if md and hops else None,
    }


def report_of(flow: str, stack: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A report of one of FLOWS, marked."""
    report = batches.report(flow=FLOWS[flow], **more)
    report["flow"]["dscp"] = 23
    return report | {"int": stack}


TCP_OPTIONS = bytes.fromhex("0101080a0000000000000000")
LABELS = list(range(16, 16 + MAX_LABELS))
OPTION = struct.pack("!HBB", 0x0107, 1, 2) + bytes(8)
AROUND: dict[str, tuple[Tunnel, ...]] = {
    "mpls": (Tunnel("mpls"),),
    "mpls, all labels": (Tunnel("mpls", labels=LABELS),),
    "gre, ethernet": (Tunnel("gre"),),
    "gre, ip": (Tunnel("gre", ethernet=False),),
    "gre, checksum": (Tunnel("gre", gre_words=0b100),),
    "gre, key, sequence": (Tunnel("gre", gre_words=0b011, ethernet=False),),
    "gre, all, in ipv6": (Tunnel("gre", gre_words=0b111, ip_version=6),),
    "gre, mpls": (Tunnel("gre", ethernet=False), Tunnel("mpls", labels=[5, 6])),
    "vxlan": (Tunnel("vxlan"),),
    "vxlan, vlan, in ipv6": (Tunnel("vxlan", vlan_ids=[7], ip_version=6),),
    "gpe, ethernet": (Tunnel("gpe"),),
    "gpe, ip": (Tunnel("gpe", ethernet=False),),
    "geneve, ethernet": (Tunnel("geneve"),),
    "geneve, ip": (Tunnel("geneve", ethernet=False),),
    "geneve, options": (Tunnel("geneve", options=OPTION * MAX_OPTIONS),),
    "geneve, mpls": (Tunnel("geneve", ethernet=False), Tunnel("mpls")),
    "vxlan in gre": (Tunnel("gre", ethernet=False), Tunnel("vxlan")),
    "as deep as is looked": (Tunnel("mpls"), Tunnel("vxlan"), Tunnel("gre", ethernet=False), Tunnel("geneve")),
}
BESIDE_L4 = {
    "none": None,
    "1.0": stack_of("1.0"),
    "0.5": stack_of("0.5"),
    "2.x": stack_of("2.x"),
    "MX": stack_of("2.x", "MX"),
    "17 hops": stack_of("1.0", hops=17),
}
WITHIN = {
    "gpe 1.0": ((Tunnel("gpe", has_int=True),), stack_of("1.0")),
    "gpe 0.5": ((Tunnel("gpe", has_int=True, ethernet=False),), stack_of("0.5")),
    "gpe 2.x": ((Tunnel("gpe", has_int=True),), stack_of("2.x")),
    "gpe MX": ((Tunnel("gpe", has_int=True),), stack_of("2.x", "MX")),
    "geneve 1.0": ((Tunnel("geneve", has_int=True),), stack_of("1.0")),
    "geneve 0.5": ((Tunnel("geneve", has_int=True),), stack_of("0.5")),
    "geneve 2.x": ((Tunnel("geneve", has_int=True, ethernet=False),), stack_of("2.x")),
    "geneve MX": ((Tunnel("geneve", has_int=True),), stack_of("2.x", "MX")),
    "geneve, the last option": ((Tunnel("geneve", has_int=True, options=OPTION * 7),), stack_of("2.x")),
    "gre 2.x": ((Tunnel("gre", has_int=True),), stack_of("2.x")),
    "gre 2.x, ip": ((Tunnel("gre", has_int=True, ethernet=False, gre_words=0b111),), stack_of("2.x")),
    "gre MX": ((Tunnel("gre", has_int=True),), stack_of("2.x", "MX")),
    "gpe in vxlan": ((Tunnel("vxlan"), Tunnel("gpe", has_int=True)), stack_of("1.0")),
    "the deepest": (
        (Tunnel("mpls"), Tunnel("vxlan"), Tunnel("gre"), Tunnel("geneve", has_int=True)),
        stack_of("2.x"),
    ),
}


def the_flow(state: State) -> tuple[Any, ...]:
    """The only flow in the maps: addresses, ports, protocol, hops."""
    (key,), (flow,) = state.flow_keys, state.flows
    size = 4 if key["ip_version"] == 4 else 16
    ends = [str(ipaddress.ip_address(key[name][:size].tobytes())) for name in ("source", "destination")]
    hops = [int(switch) for switch in flow["hops"]["switch_id"] if switch != NONE32]
    return (*ends, *(int(key[name]) for name in ("source_port", "destination_port", "protocol")), hops)


def check_maps(datapaths: Datapaths, config: Config, one: bytes, report: dict[str, Any], outcome: str = "ok") -> None:
    """After this frame the maps hold what its report says, and nothing else."""
    datapath = datapaths(config)
    datapath.run(one)
    state = datapath.state()
    assert state.counters["outcomes"][OUTCOMES.index(outcome)] == state.counters["outcomes"].sum() == 1
    assert state.sources["received"].tolist() == [1]
    flow, stack = report["flow"], report["int"]
    if flow["ip_version"] is None:
        assert not len(state.flows)
        return
    ports = (flow["source_port"] or 0, flow["destination_port"] or 0)
    hops = [hop["switch_id"] for hop in (stack or {"hops": []})["hops"][:MAX_HOPS]]
    assert the_flow(state) == (flow["source"], flow["destination"], *ports, flow["protocol"], hops)
    assert state.flows["reports"].tolist() == [1]
    assert state.ports["switch_id"][1:].tolist() == hops
    if stack is not None and stack["latency"] is not None:
        assert state.flows["latency"].tolist() == [stack["latency"]]
        assert int(state.port_statistics["latency_sum"].sum()) == sum(h["hop_latency"] for h in stack["hops"][:16])


@pytest.mark.parametrize("config", [CONFIG, MARKED], ids=["unmarked", "marked"])
@pytest.mark.parametrize("tunnels", AROUND.values(), ids=AROUND)
def test_int_at_the_l4_header_of_an_encapsulated_packet(
    answers: Answers, datapaths: Datapaths, tunnels: tuple[Tunnel, ...], config: Config
) -> None:
    """The flow is the innermost packet's, and its INT is found, whatever it is in."""
    for flow in FLOWS:
        for version, stack in BESIDE_L4.items():
            report = report_of(flow, stack)
            if tunnels[-1].ethernet and tunnels[-1].kind != "mpls":
                report["flow"]["vlan_ids"] = [3, 4]
            if stack is None:
                report["flow"]["dscp"] = 0  # or the mark would say that there is INT
            options = TCP_OPTIONS if flow.startswith("tcp") else b""
            one = wire.encode(report, config, tunnels=tunnels, payload=b"the rest", tcp_options=options)
            assert answers(config, [one]) == [{"outcome": "ok", "reports": [strategies.kept(report)]}], (flow, version)
            check_maps(datapaths, config, one, report)


@pytest.mark.parametrize(("tunnels", "stack"), WITHIN.values(), ids=WITHIN)
def test_int_in_an_encapsulation(
    answers: Answers, datapaths: Datapaths, tunnels: tuple[Tunnel, ...], stack: dict[str, Any]
) -> None:
    """INT of an encapsulation is found without a mark, and the flow is that of the packet behind it."""
    for config in (CONFIG, MARKED):
        for flow in FLOWS:
            report = report_of(flow, stack)
            one = wire.encode(report, config, tunnels=tunnels, payload=b"\x01\x00\x07\x00 no second INT")
            assert answers(config, [one]) == [{"outcome": "ok", "reports": [report]}]
            check_maps(datapaths, config, one, report)


def test_a_report_of_each_version_around_an_encapsulation(answers: Answers, datapaths: Datapaths) -> None:
    """Telemetry Report 0.5, 1.0 and 2.0 find what is in the inner packet alike, and 2.0 in each of its reports."""
    tunnels = AROUND["as deep as is looked"]
    for version in ("0.5", "1.0", "2.0"):
        more: dict[str, Any] = {"version": version}
        if version != "1.0":
            more |= {"switch_id": None} if version == "0.5" else {"ingress_timestamp": None}
        report = report_of("udp", stack_of("1.0"), **more)
        one = wire.encode(report, CONFIG, tunnels=tunnels)
        assert answers(CONFIG, [one]) == [{"outcome": "ok", "reports": [report]}]
        check_maps(datapaths, CONFIG, one, report)
    group = [report_of(flow, stack_of("1.0"), version="2.0", ingress_timestamp=None) for flow in FLOWS]
    spelled = [wire.Spelling(tunnels=tunnels)] * len(group)
    one = wire.encode_group(group, CONFIG, spelled)
    assert answers(CONFIG, [one]) == [{"outcome": "ok", "reports": group}]
    datapath = datapaths(CONFIG)
    datapath.run(one)
    datapath.drain()  # its encapsulations are too many for the program: it goes up whole
    state = datapath.state()
    assert sorted(state.flow_keys["destination_port"].tolist()) == [80, 80, 5001, 5001]
    assert state.flows["reports"].tolist() == [1] * 4
    assert state.counters["outcomes"][0] == state.counters["outcomes"].sum() == 1


# --- what is not understood -------------------------------------------------------------------------------------------

ETHERNET = bytes(12)
SHORT_STACK = wire.write_int_body(stack_of("1.0"), CONFIG, wire.Spelling())
LONG_STACK = wire.write_int_body(stack_of("2.x"), CONFIG, wire.Spelling())


def reported(inner: bytes) -> bytes:
    """A frame with a report around these bytes, which begin with Ethernet."""
    return wire.fit_lengths(frame(CONFIG)[:58] + inner)


def ethernet(ethertype: int, behind: bytes, *vlan_ids: int) -> bytes:
    """A packet from Ethernet on."""
    return wire.write_inner_ethernet(vlan_ids, ethertype) + behind


def ip(protocol: int, behind: bytes, *, source: str = "198.51.100.1", **more: int) -> bytes:
    """An IPv4 packet."""
    ends = {"source": wire.address_number(source), "destination": wire.address_number("198.51.100.2")}
    return wire.write_ipv4({"protocol": protocol, **ends, **more}, b"", behind)


def udp(destination_port: int, behind: bytes, source_port: int = 49152) -> bytes:
    """From UDP on."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(behind), 0) + behind


def outer_flow(
    protocol: int, destination_port: int | None = None, vlan_ids: Sequence[int] = (), dscp: int = 0
) -> dict[str, Any]:
    """The flow of ip()."""
    return {
        "vlan_ids": list(vlan_ids),
        "ip_version": 4,
        "source": "198.51.100.1",
        "destination": "198.51.100.2",
        "protocol": protocol,
        "source_port": None if destination_port is None else 49152,
        "destination_port": destination_port,
        "dscp": dscp,
    }


def label(number: int, bottom: bool) -> bytes:
    """An MPLS label."""
    return struct.pack("!I", number << 12 | bottom << 8 | 64)


def vxlan(behind: bytes, flags: int = 0x08, next_protocol: int = 0) -> bytes:
    """VXLAN or VXLAN-GPE."""
    return bytes([flags, 0, 0, next_protocol, 0, 0, 1, 0]) + behind


def geneve(options: bytes, behind: bytes, *, first: int = 0, second: int = 0, protocol: int = 0x6558) -> bytes:
    """first, second: added to the first two bytes."""
    return struct.pack("!BBHI", first + len(options) // 4, second, protocol, 1 << 8) + options + behind


def int_option(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A Geneve option with INT."""
    return struct.pack("!HBB", 0x0103, kind, len(body) // 4 if length is None else length) + body


INSIDE = ethernet(0x0800, ip(17, udp(99, b"inside"), source="10.9.9.9"))
IPV4_INSIDE = INSIDE[14:]
INSIDE_FLOW = outer_flow(17, 99) | {"source": "10.9.9.9"}


def in_udp(port: int, behind: bytes) -> bytes:
    """A frame around a UDP packet to a port."""
    return reported(ethernet(0x0800, ip(17, udp(port, behind)), 5))


def in_gpe(next_protocol: int, behind: bytes) -> bytes:
    """A frame around a VXLAN-GPE packet."""
    return in_udp(4790, vxlan(behind, 0x0C, next_protocol))


def in_gre(behind: bytes) -> bytes:
    """A frame around a GRE packet."""
    return reported(ethernet(0x0800, ip(47, behind), 5))


def gre(flags: int, protocol: int, behind: bytes = b"") -> bytes:
    """A GRE packet."""
    return struct.pack("!HH", flags, protocol) + behind


def in_mpls(behind: bytes) -> bytes:
    """A frame around labels."""
    return reported(ethernet(0x8847, behind, 5))


NO_FLOW = wire.no_flow([5])
VXLAN_FLOW, GPE_FLOW, GENEVE_FLOW = (outer_flow(17, port, [5]) for port in (4789, 4790, 6081))
GRE_FLOW = outer_flow(47, vlan_ids=[5])
ABOVE_TOO_MANY_TAGS = ethernet(0x0800, IPV4_INSIDE, 1, 2, 3)
TCP_WITHOUT_HEADER = ip(6, struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0x40, 0, 0, 0, 0))

UNKNOWN: dict[str, tuple[bytes, dict[str, Any]]] = {
    "mpls: a label too many": (
        in_mpls(b"".join(label(9, i == MAX_LABELS) for i in range(MAX_LABELS + 1)) + IPV4_INSIDE),
        NO_FLOW,
    ),
    "mpls: no bottom": (in_mpls(label(9, False) * 3), NO_FLOW),
    "mpls: half a label": (in_mpls(label(9, False) + b"\0\0"), NO_FLOW),
    "mpls: nothing behind": (in_mpls(label(9, True)), NO_FLOW),
    "mpls: neither version of IP behind": (in_mpls(label(9, True) + bytes(20)), NO_FLOW),
    "mpls: IPv4 cut": (in_mpls(label(9, True) + IPV4_INSIDE[:19]), NO_FLOW),
    "gre: version 1": (in_gre(gre(1, 0x0800, IPV4_INSIDE)), GRE_FLOW),
    "gre: routing": (in_gre(gre(0x4000, 0x0800, IPV4_INSIDE)), GRE_FLOW),
    "gre: cut": (in_gre(gre(0, 0x0800)[:3]), GRE_FLOW),
    "gre: key cut": (in_gre(gre(0x2000, 0x0800, b"\0\0\0")), GRE_FLOW),
    "gre: nothing behind": (in_gre(gre(0, 0x0800)), GRE_FLOW),
    "gre: PPP": (in_gre(gre(0, 0x880B, IPV4_INSIDE)), GRE_FLOW),
    "gre: a tag": (in_gre(gre(0, 0x8100, b"\0\1\x08\0" + IPV4_INSIDE)), GRE_FLOW),
    "vxlan: no VNI": (in_udp(4789, vxlan(INSIDE, flags=0)), VXLAN_FLOW),
    "vxlan: cut": (in_udp(4789, vxlan(b"")[:7]), VXLAN_FLOW),
    "vxlan: nothing behind": (in_udp(4789, vxlan(b"")), VXLAN_FLOW),
    "vxlan: GPE's O": (in_udp(4789, vxlan(INSIDE, flags=0x0D, next_protocol=3)), VXLAN_FLOW),
    "vxlan: GPE's version": (in_udp(4789, vxlan(INSIDE, flags=0x1C, next_protocol=3)), VXLAN_FLOW),
    "vxlan: three tags inside": (in_udp(4789, vxlan(ABOVE_TOO_MANY_TAGS)), VXLAN_FLOW),
    "vxlan: IHL 4 inside": (in_udp(4789, vxlan(ethernet(0x0800, b"\x44" + IPV4_INSIDE[1:]))), VXLAN_FLOW),
    "vxlan: UDP cut inside": (
        in_udp(4789, vxlan(INSIDE[:-7])),
        outer_flow(17) | {"source": "10.9.9.9"},
    ),
    "vxlan: TCP's offset 4 inside": (
        in_udp(4789, vxlan(ethernet(0x0800, TCP_WITHOUT_HEADER))),
        outer_flow(6) | {"source_port": 1, "destination_port": 2},
    ),
    "gpe: version 1": (in_udp(4790, vxlan(INSIDE, flags=0x1C, next_protocol=3)), GPE_FLOW),
    "gpe: O": (in_udp(4790, vxlan(INSIDE, flags=0x0D, next_protocol=3)), GPE_FLOW),
    "gpe: O without P": (in_udp(4790, vxlan(INSIDE, flags=0x09)), GPE_FLOW),
    "gpe: cut": (in_udp(4790, vxlan(b"")[:7]), GPE_FLOW),
    "gpe: NSH": (in_gpe(4, INSIDE), GPE_FLOW),
    "gpe: MPLS": (in_gpe(5, label(9, True) + IPV4_INSIDE), GPE_FLOW),
    "gpe: almost INT 0.5": (
        in_gpe(5, b"\x01\0\x0d\x01" + SHORT_STACK),
        GPE_FLOW,
    ),
    "geneve: version 1": (in_udp(6081, geneve(b"", INSIDE, first=0x40)), GENEVE_FLOW),
    "geneve: O": (in_udp(6081, geneve(b"", INSIDE, second=0x80)), GENEVE_FLOW),
    "geneve: cut": (in_udp(6081, geneve(b"", b"")[:7]), GENEVE_FLOW),
    "geneve: options cut": (in_udp(6081, geneve(OPTION, b"")[:-1]), GENEVE_FLOW),
    "geneve: an option too many": (in_udp(6081, geneve(OPTION * (MAX_OPTIONS + 1), INSIDE)), GENEVE_FLOW),
    "geneve: an option too long": (in_udp(6081, geneve(OPTION[:3] + b"\x03" + OPTION[4:], INSIDE)), GENEVE_FLOW),
    "geneve: another packet": (in_udp(6081, geneve(OPTION, INSIDE, protocol=0x1234)), GENEVE_FLOW),
    "geneve: INT behind a wrong option": (
        in_udp(6081, geneve(int_option(1, LONG_STACK) + OPTION[:3] + b"\x1f" + OPTION[4:], INSIDE)),
        GENEVE_FLOW,
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_encapsulation_that_is_not_understood(answers: Answers, datapaths: Datapaths, name: str) -> None:
    """It is counted as that, and the report kept, with the flow as far as it was read and without INT."""
    one, flow = UNKNOWN[name]
    for config in (CONFIG, MARKED):
        (answer,) = answers(config, [one])
        assert answer["outcome"] == "unknown_encapsulation"
        (report,) = answer["reports"]
        assert (report["flow"], report["int"]) == (flow, None)
        check_maps(datapaths, config, one, report, "unknown_encapsulation")


ACCEPTED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "ARP in VXLAN": (in_udp(4789, vxlan(ethernet(0x0806, bytes(28), 9))), VXLAN_FLOW),
    "ARP in GRE": (in_gre(gre(0, 0x6558, ethernet(0x0806, bytes(28)))), GRE_FLOW),
    "ICMP in VXLAN": (
        in_udp(4789, vxlan(ethernet(0x0800, ip(1, bytes(8)), 9))),
        outer_flow(1, vlan_ids=[9]),
    ),
    "a later fragment in VXLAN": (
        in_udp(4789, vxlan(ethernet(0x0800, ip(17, bytes(8), fragment_offset=185)))),
        outer_flow(17),
    ),
    "a later fragment of GRE": (
        reported(ethernet(0x0800, ip(47, gre(1, 0x0800), fragment_offset=185), 5)),
        GRE_FLOW,
    ),
    "a port that is another's": (in_udp(4791, vxlan(INSIDE)), outer_flow(17, 4791, [5])),
    "VXLAN over TCP": (
        reported(ethernet(0x0800, ip(6, struct.pack("!HHIIBBHHH", 1, 4789, 0, 0, 0x50, 0, 0, 0, 0)), 5)),
        outer_flow(6, vlan_ids=[5]) | {"source_port": 1, "destination_port": 4789},
    ),
    "GPE that says VXLAN": (in_udp(4790, vxlan(INSIDE)), INSIDE_FLOW),
    "GPE on VXLAN's port": (
        in_udp(4789, vxlan(IPV4_INSIDE, flags=0x0C, next_protocol=1)),
        INSIDE_FLOW | {"vlan_ids": [5]},
    ),
    "MPLS' multicast EtherType": (
        reported(ethernet(0x8848, label(9, True) + IPV4_INSIDE, 5)),
        INSIDE_FLOW | {"vlan_ids": [5]},
    ),
    "INT for the destination, in GPE": (
        in_gpe(8, b"\x02\0\x0c\x01" + SHORT_STACK + IPV4_INSIDE),
        GPE_FLOW,
    ),
    "INT 2.x for the destination, in GPE": (
        in_gpe(0x80, b"\x20\x0c\0\x01" + LONG_STACK + IPV4_INSIDE),
        GPE_FLOW,
    ),
    "INT for the destination, in GRE": (
        in_gre(gre(0, GRE_PROTOCOL, b"\x20\x0c\x08\0" + LONG_STACK + IPV4_INSIDE)),
        GRE_FLOW,
    ),
    "a Geneve option of INT for the destination": (
        in_udp(6081, geneve(int_option(2, LONG_STACK), INSIDE)),
        INSIDE_FLOW,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_ends_an_encapsulation(answers: Answers, datapaths: Datapaths, name: str) -> None:
    """A packet that is not IP, or whose INT is not for us, is no flow of its own, and nothing is wrong with it."""
    one, flow = ACCEPTED[name]
    (answer,) = answers(CONFIG, [one])
    assert answer["outcome"] == "ok"
    (report,) = answer["reports"]
    assert (report["flow"], report["int"]) == (flow, None)
    check_maps(datapaths, CONFIG, one, report)


BEHIND_INT: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a VXLAN packet": (ip(17, udp(4789, vxlan(INSIDE))), outer_flow(17, 4789, [5])),
    "a GRE packet": (ip(47, gre(0, 0x0800, IPV4_INSIDE)), outer_flow(47, vlan_ids=[5])),
    "UDP cut": (ip(17, b"\0\1\0\2\0"), outer_flow(17, vlan_ids=[5])),
    "TCP with too small an offset": (
        TCP_WITHOUT_HEADER,
        outer_flow(6, vlan_ids=[5]) | {"source_port": 1, "destination_port": 2},
    ),
    "IPv4 cut": (IPV4_INSIDE[:19], GPE_FLOW),
    "nothing": (b"", GPE_FLOW),
}  # fmt: skip


@pytest.mark.parametrize("name", BEHIND_INT)
def test_behind_int_only_the_flow_is_read(answers: Answers, datapaths: Datapaths, name: str) -> None:
    """What is behind INT in an encapsulation changes the flow as far as it can be read, and is no error."""
    behind, flow = BEHIND_INT[name]
    one = in_gpe(8, b"\x01\0\x0c\x01" + SHORT_STACK + behind)
    (answer,) = answers(CONFIG, [one])
    assert answer["outcome"] == "ok"
    (report,) = answer["reports"]
    assert report["flow"] == flow
    assert report["int"] == stack_of("1.0")
    check_maps(datapaths, CONFIG, one, report)


REFUSED: dict[str, tuple[bytes, str]] = {
    "gpe: no shim": (in_gpe(8, b"\x01\0\x0c"), "trunc_shim"),
    "gpe: type 3": (in_gpe(8, b"\x03\0\x0c\x01" + SHORT_STACK), "bad_shim_type"),
    "gpe: length 2": (in_gpe(8, b"\x01\0\x02\x01" + SHORT_STACK), "bad_shim_len"),
    "gpe: header cut": (in_gpe(8, b"\x01\0\x0c\x01" + SHORT_STACK[:7]), "trunc_md_hdr"),
    "gpe: stack cut": (in_gpe(8, b"\x01\0\x0c\x01" + SHORT_STACK[:-1]), "trunc_stack"),
    "gpe: a word more": (in_gpe(8, b"\x01\0\x0d\x01" + SHORT_STACK + bytes(4)), "stack_not_multiple"),
    "gpe 2.x: type 4": (in_gpe(0x80, b"\x40\x0c\0\x01" + LONG_STACK), "bad_shim_type"),
    "gpe 2.x: an older header": (in_gpe(0x80, b"\x10\x0c\0\x01" + SHORT_STACK + bytes(4)), "bad_int_ver"),
    "gpe 2.x: length 2": (in_gpe(0x80, b"\x10\x02\0\x01" + LONG_STACK), "bad_shim_len"),
    "gre: no shim": (in_gre(gre(0, GRE_PROTOCOL, b"\x10\x0c\x08")), "trunc_shim"),
    "gre: type 0": (in_gre(gre(0, GRE_PROTOCOL, b"\0\x0c\x08\0" + LONG_STACK)), "bad_shim_type"),
    "gre: stack cut": (in_gre(gre(0, GRE_PROTOCOL, b"\x10\x0c\x08\0" + LONG_STACK[:-1])), "trunc_stack"),
    "geneve: the header does not fit": (in_udp(6081, geneve(int_option(1, LONG_STACK[:8]), INSIDE)), "bad_shim_len"),
    "geneve: no header": (in_udp(6081, geneve(int_option(1, b""), INSIDE)), "bad_shim_len"),
    "geneve: MX of 1.0": (in_udp(6081, geneve(int_option(3, SHORT_STACK), INSIDE)), "bad_int_ver"),
    "geneve: version 3": (in_udp(6081, geneve(int_option(1, b"\x30" + SHORT_STACK[1:]), INSIDE)), "bad_int_ver"),
    "geneve: half a hop": (in_udp(6081, geneve(int_option(1, SHORT_STACK[:-4]), INSIDE)), "stack_not_multiple"),
    "geneve: Hop ML": (
        in_udp(6081, geneve(int_option(1, SHORT_STACK[:2] + b"\x04" + SHORT_STACK[3:]), INSIDE)),
        "hop_ml_mismatch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_int_that_an_encapsulation_announces_has_to_be_right(answers: Answers, datapaths: Datapaths, name: str) -> None:
    """Where an encapsulation says that INT follows, and it is none, the packet is refused, and nothing of it kept, but
    that it was not lost."""
    one, outcome = REFUSED[name]
    assert answers(CONFIG, [one]) == [{"outcome": outcome, "reports": []}]
    datapath = datapaths(CONFIG)
    datapath.run(one)
    state = datapath.state()
    assert state.counters["outcomes"][OUTCOMES.index(outcome)] == state.counters["outcomes"].sum() == 1
    assert not len(state.flows) and len(state.ports) == 1
    assert state.sources["received"].tolist() == [0]


# --- how deep ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gre", "vxlan", "gpe", "geneve"])
@pytest.mark.parametrize("ethernet", [True, False])
def test_one_encapsulation_too_many(answers: Answers, datapaths: Datapaths, kind: str, ethernet: bool) -> None:
    """Four in one another are looked into; of five, the packet in the fourth is the flow, and INT stays unseen."""
    report = report_of("udp", stack_of("1.0"))
    four, five = (
        wire.encode(report, CONFIG, tunnels=[Tunnel(kind, ethernet=ethernet)] * depth)
        for depth in (MAX_TUNNELS, MAX_TUNNELS + 1)
    )
    assert answers(CONFIG, [four]) == [{"outcome": "ok", "reports": [report]}]
    check_maps(datapaths, CONFIG, four, report)
    port = {"gre": None, "vxlan": 4789, "gpe": 4790, "geneve": 6081}[kind]
    unseen = report | {"flow": outer_flow(47 if port is None else 17, port), "int": None}
    assert answers(CONFIG, [five]) == [{"outcome": "unknown_encapsulation", "reports": [unseen]}]
    check_maps(datapaths, CONFIG, five, unseen, "unknown_encapsulation")


def test_labels_count_as_an_encapsulation(answers: Answers, datapaths: Datapaths) -> None:
    """Labels within four encapsulations are the fifth, and the flow is the packet that carries them."""
    report = report_of("tcp", None)
    tunnels = [*[Tunnel("gre", ethernet=False)] * MAX_TUNNELS, Tunnel("mpls")]
    one = wire.encode(report, CONFIG, tunnels=tunnels)
    unseen = report | {"flow": outer_flow(47)}
    assert answers(CONFIG, [one]) == [{"outcome": "unknown_encapsulation", "reports": [unseen]}]
    check_maps(datapaths, CONFIG, one, unseen, "unknown_encapsulation")


# --- INT in front of an encapsulation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [4789, 4790, 6081])
def test_int_in_front_of_an_encapsulation(answers: Answers, datapaths: Datapaths, port: int) -> None:
    """INT between UDP and an encapsulation is taken if the mark says so and it is right; else the encapsulation is."""
    shim = b"\x01\0\x0c\0"
    around = {4789: vxlan(INSIDE), 4790: vxlan(INSIDE), 6081: geneve(b"", INSIDE)}[port]
    marked = reported(ethernet(0x0800, ip(17, udp(port, shim + SHORT_STACK + around), dscp=23), 5))
    (answer,) = answers(MARKED, [marked])
    taken = answer["reports"][0]
    assert (answer["outcome"], taken["flow"]) == ("ok", outer_flow(17, port, [5], dscp=23))
    assert taken["int"] == stack_of("1.0")
    check_maps(datapaths, MARKED, marked, taken)

    without = reported(ethernet(0x0800, ip(17, udp(port, around), dscp=23), 5))
    for config in (MARKED, CONFIG):
        (answer,) = answers(config, [without])
        looked_into = answer["reports"][0]
        assert (answer["outcome"], looked_into["flow"], looked_into["int"]) == ("ok", INSIDE_FLOW, None)
        check_maps(datapaths, config, without, looked_into)

    (answer,) = answers(CONFIG, [marked])  # without a mark it could be anything
    assert answer["outcome"] == "unknown_encapsulation"


def test_int_by_the_port_of_an_encapsulation(answers: Answers) -> None:
    """If the UDP port that signals INT is an encapsulation's, INT is tried first, then the encapsulation."""
    config = dataclasses.replace(CONFIG, int_udp_port=4789)
    report = report_of("udp", stack_of("2.x"))
    with_int = wire.encode(report, config, npt=wire.NPT_PORT)
    assert answers(config, [with_int]) == [{"outcome": "ok", "reports": [report]}]
    without = in_udp(4789, vxlan(INSIDE))
    (answer,) = answers(config, [without])
    assert answer["reports"][0]["flow"] == INSIDE_FLOW


def test_each_level_has_a_mark_of_its_own(answers: Answers) -> None:
    """The mark is looked for in the packet that INT would be in, not in what carries it."""
    report = report_of("udp", stack_of("1.0"))
    unmarked = report | {"flow": report["flow"] | {"dscp": 0}}
    inside, outside = (
        wire.encode(one, MARKED, tunnels=[Tunnel("vxlan", dscp=dscp)]) for one, dscp in ((report, 0), (unmarked, 23))
    )
    assert answers(MARKED, [inside, outside]) == [
        {"outcome": "ok", "reports": [report]},
        {"outcome": "ok", "reports": [unmarked | {"int": None}]},
    ]


def test_int_under_the_number_that_mpls_has_too(answers: Answers, datapaths: Datapaths) -> None:
    """What VXLAN-GPE calls 5 is INT where all of it is valid."""
    one = in_gpe(5, b"\x01\0\x0c\x01" + SHORT_STACK + IPV4_INSIDE)
    (answer,) = answers(CONFIG, [one])
    (report,) = answer["reports"]
    assert (answer["outcome"], report["flow"], report["int"]) == (
        "ok",
        INSIDE_FLOW | {"vlan_ids": [5]},
        stack_of("1.0"),
    )
    check_maps(datapaths, CONFIG, one, report)
