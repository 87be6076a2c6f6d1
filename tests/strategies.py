"""Hypothesis strategies: how a collector is set, reports that encode can write, and frames that are nearly right.

cases() are for round trips: what they hold can be written, and read as it was. nearly() are for comparing decoders:
every header there is, in any order that some decoder may follow, now and then with a field that is wrong.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from intcollector import wire
from intcollector.config import PROFILES, Config, FromFile, Source
from intcollector.layout import MAX_HOPS

MARK = (23, 63)
GRE_PROTOCOL = 0x88B7
DOMAIN = 0x5453
INT_UDP_PORT = 33122
TUNNEL_PORTS = (wire.PORT_VXLAN, wire.PORT_GPE, wire.PORT_GENEVE)
STARTS = ("ethernet", "ipv4", "ipv6")

# --- Small things -----------------------------------------------------------------------------------------------------


def unsigned(width: int) -> st.SearchStrategy[int]:
    """Numbers of so many bits."""
    return st.integers(0, wire.ones(width))


def values(width: int) -> st.SearchStrategy[int | None]:
    """A hop's field: a number, or none."""
    return st.none() | st.integers(0, wire.ones(width) - 1)


def addresses(version: int) -> st.SearchStrategy[str]:
    """Addresses as text."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    size = 4 if version == 4 else 16
    return st.binary(min_size=size, max_size=size).map(lambda packed: socket.inet_ntop(family, packed))


def items_of(version: str, profile: str) -> wire.Items:
    """What bits stand for in an INT version; profiles are of 1.0."""
    return {"0.5": wire.ITEMS_0_5, "1.0": wire.ITEMS_1_0_BY_PROFILE[profile], "2.x": wire.ITEMS_2}[version]


def fields_of(bitmap: int, items: wire.Items) -> Iterator[tuple[str, int]]:
    """(name, bits) of all fields a hop has for a bitmap."""
    chosen = (items[bit].fields for bit in wire.bits(bitmap) if bit in items)
    return (field for field in itertools.chain.from_iterable(chosen) if field[0])


def kept(report: wire.Report) -> wire.Report:
    """A report as a decoder of MAX_HOPS gives it."""
    stack = report["int"]
    if stack is None or stack["hop_count"] <= MAX_HOPS:
        return report
    return report | {"int": stack | {"hops": stack["hops"][:MAX_HOPS], "hops_truncated": True}}


# --- How a collector is set -------------------------------------------------------------------------------------------

SOURCES = ("192.0.2.1", "192.0.2.77", "198.18.3.4", "2001:db8::1", "2001:db8:5::1")
"""Outer source addresses, some of which the prefixes below are of."""
PREFIXES = ("192.0.2.1/32", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8:5::1/128")
MARKS = (None, MARK, MARK, (1, 1), (0, 0))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Every option that changes what a packet is, for all sources and for some."""
    sources = []
    for prefix in draw(st.lists(st.sampled_from(PREFIXES), max_size=3, unique=True)):
        changes = draw(
            st.fixed_dictionaries(
                {}, optional={"int_dscp": st.sampled_from(MARKS), "profile": st.sampled_from(PROFILES)}
            )
        )
        sources.append(Source(ipaddress.ip_network(prefix), tuple(sorted(changes.items()))))
    return Config(
        port=draw(st.sampled_from([(54321,), (54321, 6000)])),
        int_dscp=draw(st.sampled_from(MARKS)),
        profile=draw(st.sampled_from(PROFILES)),
        sources=FromFile(sources),
        tcp_int_position=draw(st.sampled_from(["auto", "auto", "before-options", "after-options"])),
        int_udp_port=draw(st.sampled_from([INT_UDP_PORT] * 5 + [*TUNNEL_PORTS])),
        int_gre_protocol=draw(st.sampled_from([GRE_PROTOCOL, GRE_PROTOCOL, 0])),
        source_only_words=draw(st.sampled_from([(), ((DOMAIN, 2),), ((1, 255), (DOMAIN, 1))])),
        accept_report_length_1=draw(st.booleans()),
        reject_int_version_0=draw(st.sampled_from([False, False, True])),
    )


# --- Reports that can be written, and read as they were ---------------------------------------------------------------


def stack_of(version: str, profile: str, bitmap: int, hops: list[wire.Report], more_words: int) -> wire.Report:
    """The `int` of hops as they are encoded: all of them. more_words: of a domain, a hop."""
    hop_ml = wire.words(bitmap, items_of(version, profile)) + more_words
    if version == "1.0":
        hop_ml = wire.hop_ml_1_0(bitmap, profile)
    latencies = [hop["hop_latency"] for hop in hops if hop.get("hop_latency") is not None]
    return {
        "version": version,
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": None if version == "0.5" else hop_ml,
        "remaining_hop_count": None if version == "0.5" else 255,
        "hop_count": len(hops),
        "hops": hops,
        "latency": sum(latencies) if latencies else None,
    }


NO_STACK: wire.Report = {"hop_ml": None, "remaining_hop_count": None, "hop_count": 0, "hops": [], "latency": None}
TCP_OPTIONS = ["", "01010000", "0101080a0011223300445566", "020405b404020101", "01030307" * 10]
PORTS = st.integers(0, 0xFFFF).filter(lambda port: port not in (INT_UDP_PORT, *TUNNEL_PORTS))
"""Ports that signal nothing."""


@st.composite
def flows(draw: st.DrawFn, with_int: bool, dscps: st.SearchStrategy[int], has_ip: bool = False) -> wire.Report:
    """Inner packets: TCP or UDP where there is to be INT behind them, anything else too where not."""
    vlan_ids = draw(st.lists(unsigned(12), max_size=2))
    version = draw(st.sampled_from([4, 6] if with_int or has_ip else [4, 6, None]))
    if version is None:
        return wire.no_flow(vlan_ids)
    others = unsigned(8).filter(lambda number: number != wire.PROTOCOL_GRE)
    protocol = draw(st.sampled_from([6, 17]) if with_int else st.sampled_from([6, 17]) | others)
    has_ports = protocol in (6, 17) and (with_int or version == 6 or draw(st.booleans()))
    return {
        "vlan_ids": vlan_ids,
        "ip_version": version,
        "source": draw(addresses(version)),
        "destination": draw(addresses(version)),
        "protocol": protocol,
        "source_port": draw(unsigned(16)) if has_ports else None,
        "destination_port": draw(PORTS) if has_ports else None,
        "dscp": draw(dscps),
    }


@st.composite
def stacks(draw: st.DrawFn, version: str, profile: str, more_words: int, max_words: int) -> wire.Report:
    """Stacks of 0 to 28 hops, or as many as fit into so many words; of INT 2.x MX too."""
    items = items_of(version, profile)
    bitmap = draw(st.integers(1 if version == "0.5" else 0, 0xFFFF))
    if version == "2.x" and draw(st.integers(0, 3)) == 0:
        return stack_of(version, profile, bitmap, [], 0) | NO_STACK | {"mode": "MX"}
    stride = wire.words(bitmap, items) + more_words
    hop_count = draw(st.integers(0, min(28, max_words // stride) if stride else 0))
    hop = st.fixed_dictionaries({name: values(width) for name, width in fields_of(bitmap, items)})
    hops = draw(st.lists(hop, min_size=hop_count, max_size=hop_count))
    return stack_of(version, profile, bitmap, hops, more_words)


@st.composite
def tunnels(draw: st.DrawFn, with_int: bool) -> list[wire.Tunnel]:
    """Up to MAX_TUNNELS encapsulations that can stand in each other. with_int: of the innermost."""
    made: list[wire.Tunnel] = []
    carries_mpls = False  # the one that comes next, further out, has a label stack to carry
    for number in range(draw(st.integers(1, wire.MAX_TUNNELS))):
        has_int = with_int and number == 0
        kinds = ["gre", "gpe", "geneve"] if has_int else ["gre", "vxlan", "gpe", "geneve"]
        kind = draw(st.sampled_from(kinds if has_int or carries_mpls else [*kinds, "mpls"]))
        ethernet = kind != "mpls" and (kind == "vxlan" or (kind == "gpe" and carries_mpls) or draw(st.booleans()))
        options = draw(st.sampled_from(["", "01030200", "0104 01 01 01030001"])) if kind == "geneve" else ""
        tunnel = wire.Tunnel(
            kind,
            ethernet=ethernet,
            has_int=has_int,
            ip_version=draw(st.sampled_from([4, 6])),
            dscp=draw(unsigned(6)),
            vlan_ids=draw(st.lists(unsigned(12), max_size=2)) if ethernet else (),
            labels=draw(st.lists(unsigned(20), min_size=1, max_size=wire.MAX_LABELS)),
            gre_words=draw(unsigned(3)),
            options=bytes.fromhex(options),
        )
        carries_mpls = kind == "mpls"
        made.insert(0, tunnel)
    return made


def first_layers(flow: wire.Report, around: Sequence[wire.Tunnel]) -> list[str]:
    """What the whole inner packet can start with, of STARTS."""
    ethernet = next((tunnel for tunnel in around if tunnel.ethernet), None)
    vlan_ids = flow["vlan_ids"] if ethernet is None else ethernet.vlan_ids
    ip_version = around[0].ip_version if around else flow["ip_version"]
    if vlan_ids or ip_version is None or (around and around[0].kind == "mpls"):
        return ["ethernet"]
    return ["ethernet", f"ipv{ip_version}"]


class Case(NamedTuple):
    """What encode_group takes, and decode gives back."""

    reports: list[wire.Report]
    config: Config
    spellings: list[wire.Spelling]
    options: dict[str, Any]

    @property
    def frame(self) -> bytes:
        return wire.encode_group(self.reports, self.config, self.spellings, **self.options)


LARGEST_STACK = 250
"""Words; a shim counts at most 252 of them, less what only a source adds."""
LARGEST_IN_GROUP = 100
LARGEST_OPTION = 25


@st.composite
def spelled(
    draw: st.DrawFn, version: str, config: Config, is_last: bool, behind_l4_only: bool
) -> tuple[wire.Report, wire.Spelling]:
    """What of a report is inside it or stands beside its header, and how that is written.

    behind_l4_only: with INT, in no encapsulation.
    """
    int_version = draw(st.sampled_from([*[None] * (not behind_l4_only), "0.5", "1.0", "1.0", "2.x"]))
    domain_id = draw(st.sampled_from([0, DOMAIN])) if int_version == "2.x" else 0
    more_words = draw(st.integers(0, 3)) if domain_id else 0
    around = not behind_l4_only and draw(st.integers(0, 2)) == 0
    in_tunnel = bool(int_version) and around and draw(st.booleans())
    behind_l4 = bool(int_version) and not in_tunnel
    marked = config.int_dscp is not None
    dscps = unsigned(6)
    if config.int_dscp is not None and not in_tunnel:
        value, mask = config.int_dscp
        dscps = st.sampled_from([dscp for dscp in range(64) if (dscp & mask == value) == behind_l4])
    flow = draw(flows(behind_l4, dscps, has_ip=around))
    tunnels_around = draw(tunnels(in_tunnel)) if around else []
    if int_version != "2.x" or not config.int_gre_protocol:
        tunnels_around = [t for t in tunnels_around if not (t.has_int and t.kind == "gre")]
        if in_tunnel and not (tunnels_around and tunnels_around[-1].has_int):
            tunnels_around.append(wire.Tunnel("gpe", has_int=True))
            tunnels_around = tunnels_around[-1:]
    max_words = LARGEST_IN_GROUP if version == "2.0" else LARGEST_STACK
    if in_tunnel and tunnels_around[-1].kind == "geneve":
        max_words = LARGEST_OPTION
    local_items: wire.Items = {}
    local_bits = 0
    local: st.SearchStrategy[wire.Report | None]
    if version == "0.5":
        headers = [header for header in wire.SWITCH_0_5.values() if header is not None]
        layouts = [{n: unsigned(w) for n, w in header.fields if n and n != "switch_id"} for header in headers]
        local = st.none() | st.one_of([st.fixed_dictionaries(layout) for layout in layouts])
    else:
        local_items = wire.REPORT_METADATA_1_0 if version == "1.0" else wire.REPORT_METADATA_2_0
        local_bits = draw(unsigned(6)) << 10 if version == "1.0" else draw(unsigned(16)) & 0x7F81
        fields = {name: unsigned(width) for name, width in fields_of(local_bits, local_items)}
        local = st.fixed_dictionaries(fields) if fields else st.none()
    report = {
        "dropped": draw(st.booleans()),
        "congested_queue": draw(st.booleans()),
        "tracked_flow": draw(st.booleans()),
        "intermediate": draw(st.booleans()) if version == "2.0" else False,
        "local_hop": draw(local),
        "flow": flow,
        "int": draw(stacks(int_version, config.profile, more_words, max_words)) if int_version else None,
    }
    if version == "2.0" and not int_version and draw(st.integers(0, 4)) == 0:
        report |= {"flow": None, "local_hop": draw(st.sampled_from([{}, None, report["local_hop"]]))}
        tunnels_around = []
    protocol = flow["protocol"]
    spelling = wire.Spelling(
        tunnels=tunnels_around,
        nproto=draw(st.sampled_from(first_layers(flow, tunnels_around))) if version != "0.5" else "ethernet",
        domain_id=domain_id,
        int_version_0=not config.reject_int_version_0 and draw(st.booleans()),
        # Without a mark anything could be INT, and what reads this says that it is not.
        payload=draw(st.binary(max_size=40)) if behind_l4 or in_tunnel or marked or not flow["source_port"] else b"",
        tcp_options=bytes.fromhex(draw(st.sampled_from(TCP_OPTIONS))) if protocol == 6 else b"",
        tcp_int_position=draw(st.sampled_from(["before-options", "after-options"]))
        if config.tcp_int_position == "auto"
        else None,
        npt=draw(st.sampled_from([0, 1, 2])) if int_version == "2.x" and behind_l4 and protocol == 17 else 0,
    )
    if version == "2.0":
        spelling = dataclasses.replace(
            spelling,
            tlvs=draw(st.none() | st.lists(st.tuples(st.sampled_from([0, 4, 15]), st.binary(max_size=9)), max_size=9)),
            domain_metadata=bytes(4 * draw(st.integers(0, 2))) if report["local_hop"] is not None else b"",
            report_length=draw(st.sampled_from([None, wire.TO_THE_END])) if is_last else None,
        )
    return report, spelling


@st.composite
def cases(draw: st.DrawFn, versions: Sequence[str] = ("0.5", "1.0", "2.0"), marked_int: bool = False) -> Case:
    """Reports of one packet, how the collector is set, and how they are written.

    marked_int: all of them with INT behind L4, by a mark.
    """
    version = draw(st.sampled_from(versions))
    marked = marked_int or draw(st.booleans())
    config = Config(
        int_dscp=MARK if marked else None,
        profile=draw(st.sampled_from(PROFILES)),
        tcp_int_position=draw(st.sampled_from(["auto", "before-options", "after-options"])),
        int_gre_protocol=draw(st.sampled_from([0, GRE_PROTOCOL])),
        source_only_words=((DOMAIN, draw(st.integers(0, 2))),),
        reject_int_version_0=draw(st.booleans()),
    )
    source_version = draw(st.sampled_from([4, 6]))
    number = draw(st.sampled_from([1, 1, 2, 3, 5])) if version == "2.0" else 1
    several = [draw(spelled(version, config, at + 1 == number, marked_int)) for at in range(number)]
    switch_id: int | None = draw(unsigned(32))
    if version == "0.5" and several[0][0]["local_hop"] is None:
        switch_id = None
    shared = {
        "version": version,
        "source": draw(addresses(source_version)),
        "switch_id": switch_id,
        "hw_id": draw(unsigned(6)),
        "sequence_number": draw(unsigned(22 if version == "2.0" else 32)),
        "ingress_timestamp": draw(unsigned(32)) if version != "2.0" else None,
    }
    options = {
        "outer_vlans": draw(st.lists(unsigned(12), max_size=2)),
        "outer_options": b"\x01" * 4 * draw(st.integers(0, 10)) if source_version == 4 else b"",
    }
    return Case([{**shared, **report} for report, _ in several], config, [how for _, how in several], options)


# --- Frames that are nearly right -------------------------------------------------------------------------------------


def nearly_header(draw: st.DrawFn, header: wire.Header, fields: Mapping[str, int], one_in: int = 12) -> bytes:
    """A header, in one of so many with a field that says something else: a small number, one more or less, or any."""
    if draw(st.integers(1, one_in)) == one_in:
        name, width = draw(st.sampled_from([field for field in header.fields if field[0]]))
        right = fields.get(name, 0)
        near = [number for number in (0, 1, 2, 3, right - 1, right + 1) if 0 <= number <= wire.ones(width)]
        fields = {**fields, name: draw(st.sampled_from(near) | unsigned(width))}
    return header.write(fields)


INT_HEADER = 5
"""One in so many headers of INT and of what it is in says something else."""


def nearly_int(draw: st.DrawFn, config: Config, version: str, max_words: int) -> tuple[bytes, int]:
    """Header and stack of INT, and its type."""
    kind = draw(st.sampled_from([wire.TYPE_MD] * 5 + [wire.TYPE_MX] * (version == "2.x")))
    bitmap = draw(st.sampled_from([0x8000, 0x2000, 0xFF00, 0xFC00, 0x9000, 0xCC00]) | unsigned(16))
    items = items_of(version, config.profile)
    stride = wire.words(bitmap, items)
    domain_id = draw(st.sampled_from([0, 0, DOMAIN])) if version == "2.x" else 0
    if domain_id:
        stride += draw(st.integers(0, 2))
    if version == "0.5":
        fields = {"instruction_count": stride, "instruction_bitmap": bitmap}
        header = nearly_header(draw, wire.INT_0_5, fields, INT_HEADER)
    elif version == "1.0":
        hop_ml = wire.hop_ml_1_0(bitmap, config.profile)
        fields = {"version": draw(st.sampled_from([0, 1, 1])), "hop_ml": hop_ml, "instruction_bitmap": bitmap}
        header = nearly_header(draw, wire.INT_1_0, fields, INT_HEADER)
    else:
        fields = {"version": 2, "hop_ml": min(stride, 31), "instruction_bitmap": bitmap, "domain_id": domain_id}
        header = nearly_header(draw, wire.INT_2, fields, INT_HEADER)
    hops = draw(st.integers(0, 20)) if draw(st.integers(0, 4)) == 4 else draw(st.integers(0, 3))
    words = min(hops * stride, max_words)
    words += dict(config.source_only_words).get(domain_id, 0) if words < 100 else 0
    if draw(st.integers(0, 11)) == 11:
        words = draw(st.integers(0, max_words))
    stack = b"\xff" * 4 * words if draw(st.integers(0, 7)) == 7 else draw(st.randoms()).randbytes(4 * words)
    return header + (stack if kind == wire.TYPE_MD else stack[:8]), kind


def nearly_l4(draw: st.DrawFn, config: Config, depth: int) -> tuple[int, bytes]:
    """IP protocol and what follows the IP header: INT, or an encapsulation, or neither."""
    what = draw(st.sampled_from(["int"] * 4 + ["plain", "other"] + ["tunnel"] * (6 if depth else 4)))
    if what == "other":
        return draw(st.sampled_from([1, 4, 41, 44, 58])), draw(st.binary(max_size=12))
    if what == "tunnel":
        return nearly_tunnel(draw, config, depth)
    ports = {"source_port": draw(unsigned(16)), "destination_port": draw(st.sampled_from([80, 443, 5001]))}
    behind = b""
    if what == "int":
        behind = nearly_shim(draw, config)
        signalled = [config.int_udp_port, config.int_udp_port, *TUNNEL_PORTS]
        ports["destination_port"] = draw(st.sampled_from([80, 443, *signalled]))
    if draw(st.booleans()):
        udp = {**ports, "length": wire.UDP.size + len(behind)}
        return wire.PROTOCOL_UDP, nearly_header(draw, wire.UDP, udp) + behind
    options = bytes.fromhex(draw(st.sampled_from(TCP_OPTIONS)))
    tcp = nearly_header(draw, wire.TCP, {**ports, "data_offset": 5 + len(options) // 4})
    return wire.PROTOCOL_TCP, tcp + (options + behind if draw(st.booleans()) else behind + options)


def nearly_shim(draw: st.DrawFn, config: Config) -> bytes:
    """INT as it stands behind TCP and UDP."""
    version = draw(st.sampled_from(["0.5", "1.0", "1.0", "2.x"]))
    body, kind = nearly_int(draw, config, version, LARGEST_STACK)
    if version == "2.x":
        npt = draw(st.sampled_from([0, 0, 1, 2]))
        by_npt = draw(st.sampled_from([6, 17, 0x1234])) if npt else 0
        fields = {"type": kind, "npt": npt, "length": len(body) // 4, "by_npt": by_npt}
        return nearly_header(draw, wire.SHIM_2, fields, INT_HEADER) + body + draw(st.binary(max_size=6))
    if version == "0.5":
        body += bytes(4)
    return nearly_header(draw, wire.SHIM_V1, {"type": kind, "length": 1 + len(body) // 4}, INT_HEADER) + body


def nearly_tunnel(draw: st.DrawFn, config: Config, depth: int) -> tuple[int, bytes]:
    """IP protocol and an encapsulation, with INT in it or without, of a packet that may have another inside."""
    kind = draw(st.sampled_from(["gre", "vxlan", "gpe", "geneve"]))
    version = draw(st.sampled_from([None, None, "0.5", "1.0", "2.x"])) if kind != "vxlan" else None
    if kind == "gre" and version:
        version = "2.x"
    inside, ethertype = nearly_packet(draw, config, depth + 1, "ethernet" if kind == "vxlan" else None)
    body, int_type = (
        nearly_int(draw, config, version, LARGEST_OPTION if kind == "geneve" else 200) if version else (b"", 1)
    )
    if kind == "gre":
        words = draw(st.sampled_from([0, 0, 0, 1, 2, 4, 7]))
        fields = {"has_checksum": words >> 2, "has_key": words >> 1 & 1, "has_sequence": words & 1}
        shim = b""
        if version:
            shim_fields = {"type": int_type, "length": len(body) // 4, "ethertype": ethertype}
            shim, ethertype = nearly_header(draw, wire.SHIM_GRE, shim_fields, INT_HEADER), config.int_gre_protocol
        header = nearly_header(draw, wire.GRE, {**fields, "protocol": ethertype}, INT_HEADER)
        return wire.PROTOCOL_GRE, header + bytes(4 * words.bit_count()) + shim + body + inside
    if kind == "geneve":
        number = draw(st.sampled_from([0, 0, 1, 2, 7, 8, 9]))
        options = [
            nearly_header(draw, wire.GENEVE_OPTION, {"class": 0x0104, "length": 1}, INT_HEADER) + bytes(4)
        ] * number
        if version:
            fields = {"class": wire.GENEVE_CLASS_INT, "type": int_type, "length": len(body) // 4}
            at = draw(st.integers(0, number))
            options.insert(at, nearly_header(draw, wire.GENEVE_OPTION, fields, INT_HEADER) + body)
        joined = b"".join(options)[:252]
        fields = {"options_length": len(joined) // 4, "protocol": ethertype}
        l4 = nearly_header(draw, wire.GENEVE, fields, INT_HEADER) + joined + inside
        port = wire.PORT_GENEVE
    else:
        port = wire.PORT_VXLAN if kind == "vxlan" else wire.PORT_GPE
        port = draw(st.sampled_from([port] * 5 + [wire.PORT_VXLAN, wire.PORT_GPE]))
        protocols = {packet: protocol for protocol, packet in wire.NEXT_PROTOCOLS.items()}
        following = protocols.get(ethertype, 4)
        shim = b""
        if version == "2.x":
            fields = {"type": int_type, "length": len(body) // 4, "next_protocol": following}
            shim, following = nearly_header(draw, wire.SHIM_GPE_2, fields, INT_HEADER), wire.NEXT_INT_2
        elif version:
            fields = {"type": int_type, "length": 1 + len(body) // 4, "next_protocol": following}
            shim = nearly_header(draw, wire.SHIM_GPE_V1, fields, INT_HEADER)
            following = draw(st.sampled_from([wire.NEXT_INT_V1, wire.NEXT_INT_OR_MPLS]))
        fields = {
            "has_vni": 1,
            "has_next_protocol": int(kind == "gpe"),
            "next_protocol": following if kind == "gpe" else 0,
        }
        l4 = nearly_header(draw, wire.VXLAN, fields, INT_HEADER) + shim + body + inside
    udp = {"source_port": 49152, "destination_port": port, "length": min(wire.UDP.size + len(l4), 0xFFFF)}
    return wire.PROTOCOL_UDP, nearly_header(draw, wire.UDP, udp) + l4


def nearly_packet(draw: st.DrawFn, config: Config, depth: int, start: str | None = None) -> tuple[bytes, int]:
    """A packet and its EtherType. depth: encapsulations around it; one more than MAX_TUNNELS is the most."""
    if start is None:
        start = draw(st.sampled_from(["ethernet", "ethernet", "ipv4", "ipv4", "ipv6", "mpls"]))
    if depth > wire.MAX_TUNNELS + 1:
        return draw(st.binary(max_size=20)), wire.ETHERTYPE_ETHERNET
    if start == "ethernet":
        inside, ethertype = nearly_packet(draw, config, depth, draw(st.sampled_from(["ipv4", "ipv4", "ipv6", "mpls"])))
        if draw(st.integers(0, 15)) == 15:
            ethertype = draw(st.sampled_from([wire.ETHERTYPE_ARP, wire.ETHERTYPE_ETHERNET]))
        vlans = draw(st.sampled_from([0, 0, 0, 1, 2, 2, 3]))
        vlan_ids = [draw(unsigned(12)) for _ in range(vlans)]
        return wire.write_ethernet(bytes(14), vlan_ids, ethertype) + inside, wire.ETHERTYPE_ETHERNET
    if start == "mpls":
        inside, _ = nearly_packet(draw, config, depth + 1, draw(st.sampled_from(["ipv4", "ipv6"])))
        labels = draw(st.sampled_from([1, 1, 2, wire.MAX_LABELS, wire.MAX_LABELS + 1]))
        stack = [
            nearly_header(draw, wire.LABEL, {"label": 16, "bottom": int(at + 1 == labels)}) for at in range(labels)
        ]
        return b"".join(stack) + inside, draw(
            st.sampled_from([wire.ETHERTYPE_MPLS, wire.ETHERTYPE_MPLS, wire.ETHERTYPE_MPLS_MULTICAST])
        )
    protocol, l4 = nearly_l4(draw, config, depth)
    dscp = draw(st.sampled_from([*MARK[:1], *MARK[:1], 0, 1]))
    if start == "ipv6":
        fields = {"version": 6, "dscp": dscp, "next_header": protocol, "payload_length": min(len(l4), 0xFFFF)}
        fields |= {"source": draw(unsigned(4)), "destination": 2}
        return nearly_header(draw, wire.IPV6, fields) + l4, wire.ETHERTYPE_IPV6
    options = b"\x01" * 4 * draw(st.sampled_from([0, 0, 0, 0, 1, 10]))
    fields = {"version": 4, "ihl": 5 + len(options) // 4, "dscp": dscp, "protocol": protocol}
    fields |= {"source": draw(unsigned(4)), "destination": 2, "more_fragments": int(draw(st.integers(0, 31)) == 31)}
    return nearly_header(draw, wire.IPV4, fields) + options + l4, wire.ETHERTYPE_IPV4


def nearly_individual(draw: st.DrawFn, config: Config, largest: int) -> bytes:
    """An individual report of Telemetry Report 2.0."""
    start = draw(st.sampled_from(["ethernet", "ipv4", "ipv6", "ipv4", None]))
    inner = nearly_packet(draw, config, 0, start)[0] if start else b""
    inner = inner[: largest * 4]
    in_type = draw(st.sampled_from([0, 2, 6, 15])) if start is None else wire.IN_TYPES[start]
    if draw(st.integers(0, 3)) == 3 or (start is None and draw(st.booleans())):
        tlvs = [(wire.TLV_TYPES[start], inner)] * (1 + draw(st.booleans())) if start else []
        for _ in range(draw(st.sampled_from([0, 0, 1, 2, 6, 7, 8]))):
            more = draw(st.sampled_from([0, 4, 1])), bytes(4 * draw(st.integers(0, 2)))
            tlvs.insert(draw(st.integers(0, len(tlvs))), more)
        in_type = wire.IN_TLV
        joined = []
        for kind, value in tlvs:
            value = wire.pad(value)
            joined.append(nearly_header(draw, wire.TLV, {"type": kind, "length": min(len(value) // 4, 255)}) + value)
        inner = b"".join(joined)
    main = b""
    rep_type = draw(st.sampled_from([0, 1, 1, 1, 2, 15] if draw(st.integers(0, 7)) == 7 else [0, 1, 1]))
    metadata_length = 0
    if rep_type == wire.MAIN_INT_TYPE:
        bitmap = draw(st.sampled_from([0, 0x5000, 0x2000, 0x7F81, 0x4001, 0x8000]) | unsigned(16))
        metadata_length = wire.words(bitmap, wire.REPORT_METADATA_2_0) + draw(st.sampled_from([0, 0, 0, 1, 3]))
        metadata = b"\xff" * 4 * metadata_length if draw(st.integers(0, 7)) == 7 else bytes(range(4 * metadata_length))
        main = nearly_header(draw, wire.MAIN_INT, {"metadata_bits": bitmap}) + metadata
    contents = wire.pad(main + inner) if draw(st.integers(0, 3)) else main + inner
    flags = draw(unsigned(4))
    fields = {
        "type": rep_type,
        "in_type": in_type,
        "length": min(-(-len(contents) // 4), 255),
        "metadata_length": metadata_length,
        "dropped": flags >> 3,
        "congested_queue": flags >> 2 & 1,
        "tracked_flow": flags >> 1 & 1,
        "intermediate": flags & 1,
    }
    return nearly_header(draw, wire.INDIVIDUAL, fields) + contents


def nearly_payload(draw: st.DrawFn, config: Config) -> bytes:
    """A UDP payload: reports of any version."""
    version = draw(st.sampled_from(["0.5", "1.0", "2.0", "2.0"]))
    flags = draw(unsigned(3))
    fields = {"hw_id": draw(unsigned(6)), "sequence_number": draw(unsigned(22))}
    bits = {"dropped": flags >> 2, "congested_queue": flags >> 1 & 1, "tracked_flow": flags & 1}
    if version == "0.5":
        nproto = draw(st.sampled_from([0, 1, 2]))
        header = nearly_header(draw, wire.REPORT_0_5, {**fields, **bits, "nproto": nproto})
        switch = wire.SWITCH_0_5[nproto]
        metadata = b"" if switch is None else draw(st.sampled_from([b"\xff", b"\x07"])) * switch.size
        return header + metadata + nearly_packet(draw, config, 0, "ethernet")[0]
    if version == "1.0":
        start = draw(st.sampled_from(STARTS))
        metadata_bits = draw(unsigned(6))
        words = metadata_bits.bit_count() + draw(st.sampled_from([0, 0, 0, 2]))
        one = {"version": 1, "length": 4 + words, "nproto": wire.NPROTOS[start], "metadata_bits": metadata_bits}
        header = nearly_header(draw, wire.REPORT_1_0, {**fields, **bits, **one, "switch_id": 7})
        return header + bytes(range(4 * words)) + nearly_packet(draw, config, 0, start)[0]
    header = nearly_header(draw, wire.GROUP_2_0, {**fields, "version": 2, "switch_id": 7})
    number = draw(st.sampled_from([0, 1, 1, 1, 1, 2, 2, 3, 4, 15, 17, 20]))
    largest = 250 if number < 5 else 25
    individuals = [nearly_individual(draw, config, largest) for _ in range(min(number, 4))]
    individuals = [individuals[at % len(individuals)] for at in range(number)]
    return header + b"".join(individuals) + draw(st.sampled_from([b"", b"", b"\0", b"\0\0\0"]))


@st.composite
def nearly(draw: st.DrawFn, config: Config) -> bytes:
    """A frame to a collector set so, from one of SOURCES, that is a report or nearly one."""
    source = draw(st.sampled_from(SOURCES))
    return wire.write_outer(
        source,
        None,
        nearly_payload(draw, config.of_source(source)),
        bytes(14),
        draw(st.sampled_from([(), (), (), (5,), (5, 6)])),
        b"" if ":" in source else b"\x01" * draw(st.sampled_from([0, 0, 0, 4, 40])),
        0,
        config.port[-1],
    )
