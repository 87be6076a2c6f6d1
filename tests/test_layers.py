"""layers.py: what scapy makes of every packet, and the other way round."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, _IPv6ExtHdr
from scapy.layers.l2 import ARP, GRE, Dot1Q, Dot3, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw, split_layers

from intcollector import layers, wire
from intcollector.config import PROFILES, Config
from intcollector.layers import (
    DropReport05,
    IndividualReport,
    IntGeneveOption,
    IntHop,
    IntHop10,
    IntMetadata05,
    IntMetadata2,
    IntMetadata2MX,
    IntMetadata10,
    IntShim,
    IntShim2,
    IntShimGpe2,
    IntShimGpeV1,
    IntShimGre,
    IntShimV1,
    IntTail05,
    LocalReport05,
    TelemetryReport,
    TelemetryReport05,
    TelemetryReport10,
    TelemetryReport20,
    TelemetryTlv,
    TelemetryTlvs,
)  # fmt: skip
from intcollector.layout import MAX_HOPS

VECTORS: list[dict[str, Any]] = json.loads((pathlib.Path(__file__).parent / "data" / "vectors.json").read_text())
VALID = [vector for vector in VECTORS if vector["outcome"] == "ok"]
PORTS = (5900, 6000, 32766)
GRE_INT = 0x0999
MARK = 23


@pytest.fixture(autouse=True)
def as_imported() -> Iterator[None]:
    """The settings of the layers are those of every process that only imports them."""
    layers.configure(Config())
    yield
    layers.configure(Config())


@pytest.fixture
def ports() -> Iterator[None]:
    """The vectors' ports are report ports too."""
    for port in PORTS:
        layers.bind(port)
    yield
    for port in PORTS:
        split_layers(UDP, TelemetryReport, dport=port)


def dissected(frame: bytes) -> Packet:
    """A frame's layers, with nothing left of its bytes but what the fields hold."""
    packet = layers.dissect(frame)
    packet.clear_cache()
    return packet


# --- what the layers say, as a record --------------------------------------------------------------------------------

FLAGS = ("dropped", "congested_queue", "tracked_flow")


def record_of(frame: bytes) -> list[dict[str, Any]]:
    """The reports of a frame in the shape of tests/data/README.md, out of scapy's layers alone."""
    packet = dissected(frame)
    report = packet[TelemetryReport]
    outer = report.underlayer.underlayer
    common = {"source": outer.src, "hw_id": report.hw_id, "sequence_number": report.sequence_number}
    if isinstance(report, TelemetryReport20):
        return [
            common | {"version": "2.0", "switch_id": report.switch_id, "ingress_timestamp": None} | individual(one)
            for one in report.reports
        ]
    header = common | {"ingress_timestamp": report.ingress_timestamp, "intermediate": False}
    header |= {name: bool(getattr(report, name)) for name in FLAGS}
    if isinstance(report, TelemetryReport10):
        said = values(report, layers.METADATA_1_0)
        return [header | {"version": "1.0", "switch_id": report.switch_id, "local_hop": said} | inner(report.payload)]
    local = report.payload if isinstance(report.payload, (DropReport05, LocalReport05)) else None
    if local is None:
        said, switch_id = None, None
        payload = report.payload
    else:
        names = [field.name for field in local.fields_desc if field.name not in ("pad", "switch_id")]
        said, switch_id, payload = {name: getattr(local, name) for name in names}, local.switch_id, local.payload
    return [header | {"version": "0.5", "switch_id": switch_id, "local_hop": said} | inner(payload)]


def individual(report: Packet) -> dict[str, Any]:
    """What an individual report adds to its group's header."""
    flags = {name: bool(getattr(report, name)) for name in (*FLAGS, "intermediate")}
    said = values(report, layers.METADATA_2) if report.report_type == 1 else None
    payload = report.payload
    if isinstance(payload, TelemetryTlvs):
        packets = [tlv.payload for tlv in payload.tlvs if tlv.tlv_type in (1, 2, 3)]
        payload = packets[0] if packets else None
    return flags | {"local_hop": said} | inner(payload)


def values(layer: Packet, items: layers.Items) -> dict[str, int] | None:
    """The items that are there, numbers as they are; None: there is none."""
    names = [name for item in items.values() for name, _ in item if name != "drop_pad"]
    found = {name: layer.fields[name] for name in names if name in layer.fields and getattr(layer, name) is not None}
    return found or None


def inner(layer: Packet | None) -> dict[str, Any]:
    """Flow and INT of an inner packet that has no tunnels."""
    if layer is None or not isinstance(layer, (Ether, Dot3, IP, IPv6)):
        return {"flow": None, "int": None}
    flow: dict[str, Any] = dict.fromkeys(
        ("ip_version", "source", "destination", "protocol", "source_port", "destination_port", "dscp")
    )
    flow["vlan_ids"] = []
    stack = None
    while layer:
        if isinstance(layer, Dot1Q):
            flow["vlan_ids"].append(layer.vlan)
        elif isinstance(layer, IP):
            flow |= {"ip_version": 4, "source": layer.src, "destination": layer.dst, "protocol": layer.proto}
            flow["dscp"] = layer.tos >> 2
        elif isinstance(layer, IPv6):
            flow |= {"ip_version": 6, "source": layer.src, "destination": layer.dst, "protocol": layer.nh}
            flow["dscp"] = layer.tc >> 2
        elif isinstance(layer, (TCP, UDP)):
            flow |= {"source_port": layer.sport, "destination_port": layer.dport}
        elif isinstance(layer, IntShim2) and layer.npt == 1:
            flow["destination_port"] = layer.destination_port
        elif isinstance(layer, IntShim2) and layer.npt == 2:
            flow |= {"protocol": layer.protocol, "source_port": None, "destination_port": None}
        elif isinstance(layer, layers.IntMetadata):
            stack = int_of(layer)
        layer = layer.payload
    return {"flow": flow, "int": stack}


def int_of(header: Any) -> dict[str, Any]:
    """INT header and stack."""
    mx = isinstance(header, IntMetadata2MX)
    counted = not mx and not isinstance(header, IntMetadata05)
    hops = [] if mx else [hop_of(hop) for hop in header.hops]
    latencies = [hop["hop_latency"] for hop in hops if hop.get("hop_latency") is not None]
    return {
        "version": {IntMetadata05: "0.5", IntMetadata10: "1.0"}.get(type(header), "2.x"),
        "mode": "MX" if mx else "MD",
        "instruction_bitmap": f"0x{header.instruction_bitmap:04x}",
        "hop_ml": header.hop_ml if counted else None,
        "remaining_hop_count": header.remaining_hop_count if counted else None,
        "hop_count": len(hops),
        "hops": hops,
        "latency": sum(latencies) if latencies else None,
    }


def hop_of(hop: IntHop) -> dict[str, int | None]:
    """A hop's values; None where all ones are."""
    return {
        name: None if hop.fields[name] == (1 << bits) - 1 else hop.fields[name]
        for item in hop.items.values()
        for name, bits in item
        if name in hop.fields
    }


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_round_trip(vector: dict[str, Any], ports: None) -> None:
    """A vector, valid or not, is built from its fields as it was, and so is a copy of it."""
    layers.configure(Config.from_options(vector["options"]))
    frame = bytes.fromhex(vector["packet"])
    packet = dissected(frame)
    assert bytes(packet) == frame
    assert bytes(packet.copy()) == frame
    assert repr(packet)


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_values(vector: dict[str, Any], ports: None) -> None:
    """The fields of a valid vector are its record."""
    layers.configure(Config.from_options(vector["options"]))
    assert record_of(bytes.fromhex(vector["packet"])) == vector["reports"]


def scapys_own(packet: Packet) -> bool:
    """Whether there are headers that scapy itself does not build again as they were."""
    return any(isinstance(layer, (ARP, _IPv6ExtHdr)) for layer in every_layer(packet))


def every_layer(packet: Packet) -> Iterator[Packet]:
    """All layers, those in lists too."""
    for layer in packet.iterpayloads():
        yield layer
        for one in getattr(layer, "reports", None) or getattr(layer, "tlvs", None) or []:
            yield from every_layer(one)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_damaged(vector: dict[str, Any], ports: None) -> None:
    """What a vector is damaged to is built again as it was; where it decodes, the fields say what the decoder says."""
    config = Config.from_options(vector["options"])
    layers.configure(config)
    for frame in wire.mutations(bytes.fromhex(vector["packet"]), 30, 3):
        if not frame:
            continue
        packet = layers.dissect(frame)
        packet.clear_cache()
        if scapys_own(packet):
            continue
        assert bytes(packet) == frame
        said = wire.decode(frame, config)
        if said["outcome"] == "ok" and IPv6 not in packet:  # scapy believes an inner IPv6 length, the decoder does not
            assert cut_as_decoded(record_of(frame)) == said["reports"]


def cut_as_decoded(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hops as a decoder keeps them."""
    for report in reports:
        stack = report["int"]
        if stack and stack["hop_count"] > MAX_HOPS:
            stack |= {"hops": stack["hops"][:MAX_HOPS], "hops_truncated": True}
    return reports


# --- from scratch -----------------------------------------------------------------------------------------------------

OUTER = (
    Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
    / IP(src="192.0.2.1", dst="192.0.2.254")
    / UDP(sport=0, dport=54321)
)
ETHERNET = Ether(dst="00:aa:00:00:00:02", src="00:aa:00:00:00:01")
INNER = ETHERNET / IP(src="10.1.0.1", dst="10.2.0.2", tos=MARK << 2)
CONFIG = Config(int_dscp=(MARK, 63), int_gre_protocol=GRE_INT)


def decoded(packet: Packet, config: Config = CONFIG) -> list[dict[str, Any]]:
    """The reports of a packet that was built; the fields it is dissected to build it again."""
    layers.configure(config)
    frame = bytes(packet)
    said = wire.decode(frame, config)
    assert said["outcome"] == "ok", said
    assert bytes(dissected(frame)) == frame
    reports: list[dict[str, Any]] = said["reports"]
    return reports


def hops_of(items: layers.Items) -> st.SearchStrategy[list[dict[str, int | None]]]:
    """Up to five hops that all have values, or none of them, for the same bits."""

    def of_bits(bits: list[int]) -> st.SearchStrategy[list[dict[str, int | None]]]:
        names = {name: width for bit in bits for name, width in items[bit]}
        return st.lists(
            st.fixed_dictionaries({n: st.none() | st.integers(0, (1 << w) - 2) for n, w in names.items()}),
            min_size=1,
            max_size=5,
        )

    return st.lists(st.sampled_from(sorted(items)), min_size=1, unique=True).flatmap(of_bits)


def metadata(items: layers.Items) -> st.SearchStrategy[dict[str, int]]:
    """Items of report metadata, whole bits."""
    names = st.lists(st.sampled_from(sorted(items)), unique=True).map(
        lambda bits: {name: width for bit in bits for name, width in items[bit] if name != "drop_pad"}
    )
    return names.flatmap(lambda n: st.fixed_dictionaries({k: st.integers(0, (1 << w) - 1) for k, w in n.items()}))


FLAG_VALUES = st.fixed_dictionaries({name: st.booleans() for name in FLAGS})


@st.composite
def inners(draw: st.DrawFn) -> tuple[Packet, dict[str, Any]]:
    """An inner packet with INT of any version or without, and what a decoder has to say of it."""
    vlan_ids = draw(st.lists(st.integers(1, 4094), max_size=1))
    six, tcp, version = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(["", "0.5", "1.0", "2.x", "MX"]))
    npt = draw(st.sampled_from([0, 1, 2])) if version in ("2.x", "MX") else 0
    if npt == 1:
        tcp = False
    sport, dport = draw(st.integers(1, 65535)), draw(st.integers(1, 4000))
    packet = ETHERNET
    for vlan in vlan_ids:
        packet = packet / Dot1Q(vlan=vlan)
    dscp = MARK if version else 0
    if six:
        packet = packet / IPv6(src="2001:db8::1", dst="2001:db8::2", tc=dscp << 2)
    else:
        packet = packet / IP(src="10.1.0.1", dst="10.2.0.2", tos=dscp << 2)
    l4 = TCP(sport=sport, dport=dport) if tcp else UDP(sport=sport, dport=dport)
    payload = Raw(draw(st.binary(max_size=12)))
    flow = {
        "vlan_ids": vlan_ids, "ip_version": 6 if six else 4, "protocol": 6 if tcp else 17, "dscp": dscp,
        "source": "2001:db8::1" if six else "10.1.0.1", "destination": "2001:db8::2" if six else "10.2.0.2",
        "source_port": sport, "destination_port": dport,
    }  # fmt: skip
    if not version:
        return packet / l4 / payload, {"flow": flow, "int": None}
    items = {"0.5": layers.HOP_0_5, "1.0": layers.HOP_1_0}.get(version, layers.HOP_2)
    hops = draw(hops_of(items)) if version != "MX" else []
    bitmap = sum(0x8000 >> bit for bit, names in items.items() if hops and names[0][0] in hops[0])
    remaining = draw(st.integers(0, 255))
    latencies = [latency for hop in hops if (latency := hop.get("hop_latency")) is not None]
    stack: dict[str, Any] = {
        "version": "2.x" if version == "MX" else version, "mode": "MX" if version == "MX" else "MD",
        "instruction_bitmap": f"0x{bitmap:04x}", "hop_ml": layers._words(bitmap, items),
        "remaining_hop_count": remaining, "hop_count": len(hops), "hops": hops,
        "latency": sum(latencies) if latencies else None,
    }  # fmt: skip
    if version in ("0.5", "MX"):
        stack |= {"hop_ml": None, "remaining_hop_count": None}
    if npt:
        packet = packet / UDP(sport=1, dport=33122)
    else:
        packet = packet / l4
    if version in ("0.5", "1.0"):
        packet = packet / IntShimV1()
    elif npt == 1:
        packet = packet / IntShim2(type=3 if version == "MX" else 1, npt=1, destination_port=dport)
        flow["source_port"] = 1
    else:
        packet = packet / IntShim2(type=3 if version == "MX" else 1, npt=npt, protocol=flow["protocol"] if npt else 0)
    if version == "0.5":
        packet = packet / IntMetadata05(hops=hops) / IntTail05(protocol=flow["protocol"], destination_port=dport)
    elif version == "1.0":
        packet = packet / IntMetadata10(hops=hops, remaining_hop_count=remaining)
    elif version == "2.x":
        packet = packet / IntMetadata2(hops=hops, remaining_hop_count=remaining)
    else:
        packet = packet / IntMetadata2MX(rest=draw(st.sampled_from([b"", b"word"])))
    return packet / (l4 / payload if npt == 2 else payload), {"flow": flow, "int": stack}


@settings(max_examples=120, deadline=None)
@given(one=inners(), flags=FLAG_VALUES, hw_id=st.integers(0, 63), number=st.integers(0, 2**32 - 1), data=st.data())
def test_reports_of_one(
    one: tuple[Packet, dict[str, Any]], flags: dict[str, bool], hw_id: int, number: int, data: st.DataObject
) -> None:
    """A report of 0.5 or 1.0 is decoded to what it was built of, and so its fields say when it is dissected."""
    inner_packet, expected = one
    stamp, switch_id = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 2**32 - 1))
    header = {**flags, "hw_id": hw_id, "sequence_number": number, "ingress_timestamp": stamp}
    kind = data.draw(st.sampled_from(["0.5", "0.5 drop", "0.5 local", "1.0"]))
    if kind == "1.0":
        local = data.draw(metadata(layers.METADATA_1_0))
        report = TelemetryReport10(switch_id=switch_id, **header, **local) / inner_packet
    else:
        report = TelemetryReport05(**header)
        local = {}
        if kind == "0.5 drop":
            local = data.draw(metadata({0: layers._PORTS, 1: layers._DROP}).filter(lambda m: len(m) == 4))
            report = report / DropReport05(switch_id=switch_id, **local)
        elif kind == "0.5 local":
            items = {0: layers._PORTS, 1: layers._QUEUE, 2: (("egress_timestamp", 32),)}
            local = data.draw(metadata(items).filter(lambda m: len(m) == 5))
            report = report / LocalReport05(switch_id=switch_id, **local)
        report = report / inner_packet
    packet = OUTER / report
    said = decoded(packet)
    assert said == [
        {"version": kind[:3], "source": "192.0.2.1", "intermediate": False, "local_hop": local or None, **header,
         "switch_id": None if kind == "0.5" else switch_id} | expected
    ]  # fmt: skip
    assert record_of(bytes(packet)) == said


@settings(max_examples=80, deadline=None)
@given(
    ones=st.lists(st.tuples(inners(), FLAG_VALUES, metadata(layers.METADATA_2), st.booleans(), st.sampled_from("EtTn")),
                  min_size=1, max_size=4),
    hw_id=st.integers(0, 63), number=st.integers(0, 2**22 - 1), switch_id=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_groups(ones: list[Any], hw_id: int, number: int, switch_id: int) -> None:
    """Individual reports of 2.0, with an inner packet, one in a TLV, or none, are decoded to what was put in."""
    pieces, expected = [], []
    for (inner_packet, said), flags, local, intermediate, way in ones:
        report = IndividualReport(**flags, intermediate=intermediate, **local)
        if not local and way == "E":
            report.report_type = 0
        if way in "Et" and not (way == "t" and said["flow"]["vlan_ids"]):
            content = inner_packet if way == "E" else inner_packet.payload
            report = report / content
        elif way == "T":
            report = report / TelemetryTlvs(tlvs=[TelemetryTlv(template=7) / b"domain", TelemetryTlv() / inner_packet])
        else:
            said = {"flow": None, "int": None}
        pieces.append(report)
        expected.append(
            {"version": "2.0", "source": "192.0.2.1", "switch_id": switch_id, "hw_id": hw_id, "sequence_number": number,
             "ingress_timestamp": None, "intermediate": intermediate, "local_hop": local or None, **flags} | said
        )  # fmt: skip
    packet = OUTER / TelemetryReport20(hw_id=hw_id, sequence_number=number, switch_id=switch_id, reports=pieces)
    assert decoded(packet) == expected
    assert record_of(bytes(packet)) == expected


def test_any_version_by_its_number() -> None:
    """TelemetryReport makes the version that is asked for, or that bytes have; a version that nobody knows is bytes."""
    assert [type(TelemetryReport(version=v)) for v in (0, 1, 2)] == [
        TelemetryReport05,
        TelemetryReport10,
        TelemetryReport20,
    ]
    assert type(TelemetryReport()) is TelemetryReport10
    assert type(TelemetryReport(b"\x20" + bytes(7))) is TelemetryReport20
    assert type(TelemetryReport(b"\xf0" + bytes(20))) is Raw
    assert TelemetryReport in OUTER / TelemetryReport(version=2)


def test_what_is_computed() -> None:
    """Lengths, counts, bitmaps and types that are left out are the right ones; those that are given stay."""
    shim = IntShimV1() / IntMetadata05(hops=[{"switch_id": 1}, {"switch_id": 2, "hop_latency": 3}]) / IntTail05()
    built = IntShim(bytes(shim))
    header = built[IntMetadata05]
    assert (built.length, header.instruction_count, header.total_hop_count, header.instruction_bitmap) == (
        8,
        2,
        2,
        0xA000,
    )
    assert [hop.hop_latency for hop in header.hops] == [2**32 - 1, 3]
    assert repr(header.hops[0]).count("unavailable") == 1

    report = TelemetryReport10(bytes(TelemetryReport10(hop_latency=1, extra=b"more") / INNER))
    assert (report.length, report.metadata_bits, report.nproto, report.extra) == (6, 0b010000, 0, b"more")
    assert TelemetryReport10(bytes(TelemetryReport10() / IP(dst="10.0.0.1", src="10.0.0.2"))).nproto == 1
    assert TelemetryReport10(bytes(TelemetryReport10(length=9) / b"")).length == 9

    group = TelemetryReport20(
        bytes(
            TelemetryReport20(
                reports=[
                    IndividualReport(ingress_timestamp=1, l2_egress_port_id=2, domain_words=b"mine") / INNER / b"x",
                    IndividualReport(report_type=0) / INNER / UDP() / bytes(1100),
                ]
            )
        )
    )
    first, second = group.reports
    assert (first.metadata_bits, first.md_length, first.inner_type, first.report_length) == (0x0A00, 5, 3, 2 + 5 + 9)
    assert (first.l2_ingress_port_id, first.domain_words) == (2**32 - 1, b"mine")
    assert (second.report_length, second.md_length) == (255, 0)


def test_tcp_options() -> None:
    """INT is found in front of TCP options and behind them."""
    options = bytes.fromhex("020405b401010402")
    stack = IntShimV1() / IntMetadata10(hops=[{"switch_id": 5}])
    before = TelemetryReport() / INNER / TCP(sport=1, dport=2, dataofs=7) / stack / options
    after = TelemetryReport() / INNER / TCP(sport=1, dport=2, options=[("MSS", 1460), ("NOP", None), ("NOP", None),
                                                                      ("SAckOK", b"")]) / stack  # fmt: skip
    for report in (before, after):
        frame = bytes(OUTER / report)
        assert decoded(OUTER / report)[0]["int"]["hops"] == [{"switch_id": 5}]
        assert dissected(frame)[IntHop10].switch_id == 5
    assert dissected(bytes(OUTER / before))[IntMetadata10].payload.load == options
    layers.configure(Config(tcp_int_position="after-options"))
    assert IntShim not in dissected(bytes(OUTER / before))


def test_where_int_is_looked_for() -> None:
    """Without a mark a plausible shim is INT; with one, what has it is, however wrong, and what has not is none."""
    right = (
        OUTER / TelemetryReport() / INNER / UDP(sport=1, dport=2) / IntShimV1() / IntMetadata10(hops=[{"switch_id": 5}])
    )
    wrong = OUTER / TelemetryReport() / INNER / UDP(sport=1, dport=2) / IntShimV1(length=9) / IntMetadata10(hop_ml=3)
    assert IntShim in dissected(bytes(right)) and IntShim not in dissected(bytes(wrong))
    layers.configure(Config(int_dscp=(MARK, 63)))
    assert IntShim in dissected(bytes(right)) and IntShim in dissected(bytes(wrong))
    layers.configure(Config(int_dscp=(5, 63)))
    assert IntShim not in dissected(bytes(right)) and IntShim not in dissected(bytes(wrong))


def test_source_only_words() -> None:
    """Words that only the source added are told from hops where the domain is known, and stay together where not."""
    shim = bytes(
        IntShim2() / IntMetadata2(domain_id=7, hops=[{"switch_id": 1}, {"switch_id": 2}], rest=b"from the source!")
    )
    assert len(IntShim(shim)[IntMetadata2].hops) == 6
    layers.configure(Config(source_only_words=((7, 4),)))
    header = IntShim(shim)[IntMetadata2]
    assert [hop.switch_id for hop in header.hops] == [1, 2] and header.rest == b"from the source!"


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles(profile: str) -> None:
    """Hops of every profile's layout are decoded, and dissected, with that profile."""
    config = Config(int_dscp=(MARK, 63), profile=profile)
    hop_class = layers.HOPS_1_0[profile]
    values = {name: n + 1 for n, name in enumerate(name for item in hop_class.items.values() for name, _ in item)}
    header = IntMetadata10(hops=[hop_class(**values)], **({"hop_ml": 9} if profile == "onos" else {}))
    packet = OUTER / TelemetryReport() / INNER / UDP(sport=1, dport=2) / IntShimV1() / header
    assert decoded(packet, config)[0]["int"]["hops"] == [values]
    assert hop_of(dissected(bytes(packet))[IntHop]) == values


STACK_1, STACK_2 = IntMetadata10(hops=[{"switch_id": 4}]), IntMetadata2(hops=[{"switch_id": 4}])
ORIGINAL = IP(src="10.3.0.1", dst="10.4.0.1") / UDP(sport=7, dport=8) / b"payload"
GPE = INNER / UDP(sport=9, dport=4790) / VXLAN(flags=0x0C, vni=5)
TUNNELS: dict[str, tuple[Packet, type[Packet]]] = {
    "gpe-1": (GPE / IntShimGpeV1(next_protocol=1) / STACK_1 / ORIGINAL, IntMetadata10),
    "gpe-1-ethernet": (GPE / IntShimGpeV1() / STACK_1 / ETHERNET / ORIGINAL, IntMetadata10),
    "gpe-0.5": (GPE / IntShimGpeV1(next_protocol=1) / IntMetadata05(hops=[{"switch_id": 4}]) / ORIGINAL, IntMetadata05),
    "gpe-mpls-or-int": (
        INNER / UDP(sport=9, dport=4790) / VXLAN(flags=0x0C, NextProtocol=5) / IntShimGpeV1(next_protocol=1) / STACK_1
        / ORIGINAL,
        IntMetadata10,
    ),
    "gpe-2": (GPE / IntShimGpe2(next_protocol=1) / STACK_2 / ORIGINAL, IntMetadata2),
    "geneve-1": (
        INNER / UDP(sport=9, dport=6081) / GENEVE(proto=0x0800, options=[IntGeneveOption() / STACK_1]) / ORIGINAL,
        IntMetadata10,
    ),
    "geneve-2": (
        INNER / UDP(sport=9, dport=6081) / GENEVE(proto=0x0800, options=[IntGeneveOption() / STACK_2]) / ORIGINAL,
        IntMetadata2,
    ),
    "gre": (INNER / GRE(proto=GRE_INT) / IntShimGre() / STACK_2 / ORIGINAL, IntMetadata2),
    "mpls-in-gre": (
        INNER / GRE(proto=0x8847) / MPLS(label=3, s=1) / IP(src="10.3.0.1", dst="10.4.0.1",
        tos=MARK << 2) / UDP(sport=7, dport=8) / IntShimV1() / STACK_1 / b"payload",
        IntMetadata10,
    ),
    "vxlan": (
        INNER / UDP(sport=9, dport=4789) / VXLAN(vni=5) / ETHERNET / IP(src="10.3.0.1", dst="10.4.0.1", tos=MARK << 2)
        / UDP(sport=7, dport=8) / IntShimV1() / STACK_1 / b"payload",
        IntMetadata10,
    ),
}  # fmt: skip
"""INT in or behind an encapsulation: the inner packet, and its INT header."""


@pytest.fixture
def gre() -> Iterator[None]:
    """A GRE protocol type says that INT follows."""
    layers.bind_gre(GRE_INT)
    yield
    split_layers(GRE, IntShimGre, proto=GRE_INT)


@pytest.mark.parametrize("name", TUNNELS)
def test_encapsulations(name: str, gre: None) -> None:
    """INT in VXLAN-GPE, Geneve and GRE, and behind MPLS and VXLAN, is decoded, and dissected with what follows it."""
    packet, header = TUNNELS[name]
    frame = bytes(OUTER / TelemetryReport() / packet)
    (report,) = decoded(OUTER / TelemetryReport() / packet)
    assert report["int"]["hops"] == [{"switch_id": 4}]
    assert (report["flow"]["source"], report["flow"]["destination_port"]) == ("10.3.0.1", 8)
    again = dissected(frame)
    assert again[header].hops[0].switch_id == 4
    assert again[IntHop].switch_id == 4
    assert [layer for layer in again.iterpayloads() if isinstance(layer, UDP)][-1].dport == 8


def test_other_ports() -> None:
    """Only what goes to a bound port is a report, whatever other layer claims its source port."""
    packet = Ether(
        bytes(Ether() / IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=4789, dport=6000) / TelemetryReport10() / INNER)
    )
    frame = bytes(packet)
    assert TelemetryReport not in Ether(frame)
    layers.bind(6000)
    assert TelemetryReport in Ether(frame)
    split_layers(UDP, TelemetryReport, dport=6000)


def test_importing_costs_only_who_needs_it() -> None:
    """Neither the package nor its commands load scapy until traffic is made."""
    program = """
import sys
import intcollector, intcollector.cli, intcollector.traffic, intcollector.sending
intcollector.traffic.truth(intcollector.traffic.Traffic())
assert "scapy" not in sys.modules
next(intcollector.traffic.frames(intcollector.traffic.Traffic()))
assert "scapy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_examples_of_the_documentation() -> None:
    """The Python in docs/generate.md runs."""
    text = (pathlib.Path(__file__).parent.parent / "docs" / "generate.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(example, {})
