"""The specifications in Python: a frame -> reports (decode), reports -> frame (encode). Slow and obvious: the oracle.

Telemetry Report 0.5, 1.0 and 2.0 with INT 0.5, 1.0 and 2.x, behind TCP and UDP, MPLS, GRE, VXLAN, VXLAN-GPE and Geneve.
Written apart from the kernel program, so that the two can be held against each other; `mutations` makes the frames to
do that with. The order of the checks is docs/wire.md's, whose step numbers stand in the docstrings.

A header is a line of (name, bits), as its specification draws it, and is read and written by the same line. Above
them everything is a dict in the shape that tests/data/README.md describes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from .layout import LAYOUT, MAX_HOPS

Report = dict[str, Any]
"""A report, a flow, a stack or a hop: names to the wire's own numbers, None where there is none."""


class Settings(Protocol):
    """What of config.Config matters to a packet's meaning; its own module is a neighbour of this one."""

    @property
    def port(self) -> tuple[int, ...]: ...
    @property
    def int_dscp(self) -> tuple[int, int] | None: ...
    @property
    def profile(self) -> str: ...
    @property
    def tcp_int_position(self) -> str: ...
    @property
    def int_udp_port(self) -> int: ...
    @property
    def source_only_words(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def reject_int_version_0(self) -> bool: ...
    @property
    def accepts_report_length_1(self) -> bool: ...
    @property
    def int_gre_protocol(self) -> int: ...

    def of_source(self, address: str, /) -> Settings:
        """These settings with what differs for reports of an outer source address."""


class Refused(Exception):
    """This packet ends here; `outcome` says why. Never leaves this module."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Header:
    """Fields of a header or an item from its first bit on, (name, bits) each, whole bytes in all; "" is a pad."""

    def __init__(self, *fields: tuple[str, int]) -> None:
        self.fields = fields
        bits = sum(width for _, width in fields)
        if bits % 8:
            raise ValueError(f"{bits} bits are not whole bytes: {fields}")
        self.size = bits // 8
        self._places: list[tuple[str, int, int]] = []  # of the fields with a name: name, bits behind it, all ones
        for name, width in fields:
            bits -= width
            if name:
                self._places.append((name, bits, ones(width)))

    def read(self, data: bytes, at: int, missing: str) -> dict[str, int]:
        """The fields' numbers. Errors: Refused(missing), where data ends before the header does."""
        end = at + self.size
        if end > len(data):
            raise Refused(missing)
        number = int.from_bytes(data[at:end], "big")
        return {name: number >> shift & mask for name, shift, mask in self._places}

    def write(self, values: Mapping[str, int]) -> bytes:
        """The header's bytes; a field that is not in values is 0. Errors: ValueError, naming what does not fit."""
        number, left = 0, dict(values)
        for name, width in self.fields:
            value = left.pop(name, 0)
            if not 0 <= value <= ones(width):
                raise ValueError(f"{name} = {value} does not fit into {width} bits")
            number = number << width | value
        if left:
            raise ValueError(f"no such fields: {', '.join(left)}")
        return number.to_bytes(self.size, "big")

    def read_item(self, data: bytes, at: int) -> dict[str, int | None]:
        """As read, but all ones in a field's own width is None: the switch had no value. Errors: Refused."""
        values = self.read(data, at, "trunc_stack")
        return {name: None if values[name] == mask else values[name] for name, _, mask in self._places}

    def write_item(self, values: Mapping[str, int | None]) -> bytes:
        """The item's bytes, from values that may hold more; None is all ones. Errors: KeyError, ValueError."""
        numbers = {}
        for name, width in self.fields:
            if name:
                value = values[name]
                numbers[name] = ones(width) if value is None else value
        return self.write(numbers)


def ones(width: int) -> int:
    """All ones in width bits."""
    return (1 << width) - 1


# --- The carrying headers ---------------------------------------------------------------------------------------------

ETHERNET = Header(("destination", 48), ("source", 48), ("ethertype", 16))
TAG = Header(("priority", 3), ("drop_eligible", 1), ("vlan_id", 12), ("ethertype", 16))
IPV4 = Header(
    ("version", 4), ("ihl", 4), ("dscp", 6), ("ecn", 2), ("total_length", 16),
    ("identification", 16), ("reserved", 1), ("dont_fragment", 1), ("more_fragments", 1), ("fragment_offset", 13),
    ("ttl", 8), ("protocol", 8), ("checksum", 16),
    ("source", 32),
    ("destination", 32),
)  # fmt: skip
IPV6 = Header(
    ("version", 4), ("dscp", 6), ("ecn", 2), ("flow_label", 20),
    ("payload_length", 16), ("next_header", 8), ("hop_limit", 8),
    ("source", 128),
    ("destination", 128),
)  # fmt: skip
UDP = Header(("source_port", 16), ("destination_port", 16), ("length", 16), ("checksum", 16))
TCP = Header(
    ("source_port", 16), ("destination_port", 16),
    ("sequence", 32),
    ("acknowledgment", 32),
    ("data_offset", 4), ("reserved", 4), ("flags", 8), ("window", 16),
    ("checksum", 16), ("urgent", 16),
)  # fmt: skip
PORTS = Header(("source_port", 16), ("destination_port", 16))
FIRST_WORD = Header(("b0", 8), ("b1", 8), ("b2", 8), ("b3", 8))

ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
ETHERTYPE_DOT1Q, ETHERTYPE_DOT1AD = 0x8100, 0x88A8
TAGS = (ETHERTYPE_DOT1Q, ETHERTYPE_DOT1AD)
MAX_TAGS = LAYOUT.defines["MAX_VLANS"]
PROTOCOL_TCP, PROTOCOL_UDP, NEXT_HEADER_FRAGMENT, PROTOCOL_GRE = 6, 17, 44, 47

# --- Encapsulations of an inner packet --------------------------------------------------------------------------------

MAX_TUNNELS, MAX_LABELS, MAX_OPTIONS = (LAYOUT.defines[f"MAX_{what}"] for what in ("TUNNELS", "LABELS", "OPTIONS"))
UNKNOWN = "unknown_encapsulation"

ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST = 0x8847, 0x8848
ETHERTYPE_ETHERNET = 0x6558  # what GRE and Geneve call a packet that starts with Ethernet
LABEL = Header(("label", 20), ("traffic_class", 3), ("bottom", 1), ("ttl", 8))

GRE = Header(
    ("has_checksum", 1), ("has_routing", 1), ("has_key", 1), ("has_sequence", 1), ("strict_source_route", 1),
    ("recursion", 3), ("flags", 5), ("version", 3), ("protocol", 16),
)  # fmt: skip
"""A word each of checksum, key and sequence number follows, where it is there."""

PORT_VXLAN, PORT_GPE, PORT_GENEVE = 4789, 4790, 6081
VXLAN = Header(
    ("reserved", 2), ("version", 2), ("has_vni", 1), ("has_next_protocol", 1), ("replicated", 1), ("oam", 1),
    ("reserved2", 16), ("next_protocol", 8),
    ("vni", 24), ("reserved3", 8),
)  # fmt: skip
"""Of VXLAN-GPE too. version, oam and next_protocol: of VXLAN-GPE, or where has_next_protocol says so."""

NEXT_PROTOCOLS = {1: ETHERTYPE_IPV4, 2: ETHERTYPE_IPV6, 3: ETHERTYPE_ETHERNET}
NEXT_INT_OR_MPLS, NEXT_INT_V1, NEXT_INT_2 = 0x05, 0x08, 0x80

GENEVE = Header(
    ("version", 2), ("options_length", 6), ("oam", 1), ("critical", 1), ("reserved", 6), ("protocol", 16),
    ("vni", 24), ("reserved2", 8),
)  # fmt: skip
GENEVE_OPTION = Header(("class", 16), ("type", 8), ("reserved", 3), ("length", 5))
"""length: words of data behind this one."""

GENEVE_CLASS_INT = 0x0103

# --- Telemetry Report -------------------------------------------------------------------------------------------------

REPORT_0_5 = Header(
    ("version", 4), ("nproto", 4), ("dropped", 1), ("congested_queue", 1), ("tracked_flow", 1), ("reserved", 15),
    ("hw_id", 6),
    ("sequence_number", 32),
    ("ingress_timestamp", 32),
)  # fmt: skip
SWITCH_0_5 = {
    0: None,
    1: Header(
        ("switch_id", 32),
        ("ingress_port_id", 16), ("egress_port_id", 16),
        ("drop_queue_id", 8), ("drop_reason", 8), ("", 16),
    ),
    2: Header(
        ("switch_id", 32),
        ("ingress_port_id", 16), ("egress_port_id", 16),
        ("queue_id", 8), ("queue_occupancy", 24),
        ("egress_timestamp", 32),
    ),
}  # fmt: skip
"""nproto of Telemetry Report 0.5 -> what stands between its header and Ethernet."""

REPORT_1_0 = Header(
    ("version", 4), ("length", 4), ("nproto", 3), ("metadata_bits", 6), ("reserved", 6),
    ("dropped", 1), ("congested_queue", 1), ("tracked_flow", 1), ("hw_id", 6),
    ("switch_id", 32),
    ("sequence_number", 32),
    ("ingress_timestamp", 32),
)  # fmt: skip
NPROTO_ETHERNET, NPROTO_IPV4, NPROTO_IPV6 = 0, 1, 2

GROUP_2_0 = Header(("version", 4), ("hw_id", 6), ("sequence_number", 22), ("switch_id", 32))
INDIVIDUAL = Header(
    ("type", 4), ("in_type", 4), ("length", 8), ("metadata_length", 8),
    ("dropped", 1), ("congested_queue", 1), ("tracked_flow", 1), ("intermediate", 1), ("reserved", 4),
)  # fmt: skip
"""A report of Telemetry Report 2.0. length: words behind this one. metadata_length: words behind MAIN_INT."""

TO_THE_END = 0xFF  # as length
INNER_ONLY, MAIN_INT_TYPE = 0, 1
MAIN_INT = Header(("metadata_bits", 16), ("domain_id", 16), ("domain_bits", 16), ("domain_status", 16))
IN_NOTHING, IN_TLV, IN_ETHERNET, IN_IPV4, IN_IPV6 = 0, 1, 3, 4, 5
TLV = Header(("type", 4), ("reserved", 4), ("length", 8), ("template", 16))
"""length: words behind this one."""

TLV_ETHERNET, TLV_IPV4, TLV_IPV6 = 1, 2, 3

# --- INT --------------------------------------------------------------------------------------------------------------

SHIM_V1 = Header(("type", 8), ("reserved", 8), ("length", 8), ("dscp", 6), ("reserved2", 2))
"""INT 0.5 and 1.0. length: words, the shim counted (and the tail of 0.5)."""

SHIM_2 = Header(("type", 4), ("npt", 2), ("reserved", 2), ("length", 8), ("by_npt", 16))
"""INT 2.x. length: words, the shim not counted. by_npt: the original UDP destination port, or the protocol."""

INT_0_5 = Header(
    ("version", 4), ("replication", 2), ("copy", 1), ("exceeded", 1), ("reserved", 3), ("instruction_count", 5),
    ("max_hop_count", 8), ("total_hop_count", 8),
    ("instruction_bitmap", 16), ("reserved2", 16),
)  # fmt: skip
INT_1_0 = Header(
    ("version", 4), ("replication", 2), ("copy", 1), ("exceeded", 1), ("mtu_exceeded", 1), ("reserved", 10),
    ("hop_ml", 5), ("remaining_hop_count", 8),
    ("instruction_bitmap", 16), ("reserved2", 16),
)  # fmt: skip
INT_2 = Header(
    ("version", 4), ("discard", 1), ("exceeded", 1), ("mtu_exceeded", 1), ("reserved", 12), ("hop_ml", 5),
    ("remaining_hop_count", 8),
    ("instruction_bitmap", 16), ("domain_id", 16),
    ("domain_instruction", 16), ("domain_flags", 16),
)  # fmt: skip
SHIM_GPE_V1 = Header(("type", 8), ("reserved", 8), ("length", 8), ("next_protocol", 8))
"""INT 0.5 and 1.0 in VXLAN-GPE. length: words, the shim counted; there is no tail."""

SHIM_GPE_2 = Header(
    ("type", 4), ("reserved", 4), ("length", 8), ("was_vxlan", 1), ("reserved2", 7), ("next_protocol", 8)
)
"""INT 2.x in VXLAN-GPE. length: words, the shim not counted."""

SHIM_GRE = Header(("type", 4), ("added_gre", 1), ("reserved", 3), ("length", 8), ("ethertype", 16))
"""INT 2.x in GRE. length: words, the shim not counted."""

TAIL_0_5 = Header(("protocol", 8), ("destination_port", 16), ("dscp", 8))

TYPE_MD, TYPE_DESTINATION, TYPE_MX = 1, 2, 3
NPT_NONE, NPT_PORT, NPT_PROTOCOL = 0, 1, 2

# --- What an instruction bit, or a bit of the report's metadata, stands for -------------------------------------------

Items = Mapping[int, Header]
"""bit (0 = most significant of 16) -> what a hop writes for it. A bit that is not there is reserved: one word."""

RESERVED_ITEM = Header(("", 32))
LEVEL_2_IN_ONE_WORD = Header(("l2_ingress_port_id", 16), ("l2_egress_port_id", 16))
CHECKSUM_COMPLEMENT = 15  # the bit, whose word is the last of a hop's record whatever stands between

ITEMS_1_0: Items = {
    0: Header(("switch_id", 32)),
    1: Header(("ingress_port_id", 16), ("egress_port_id", 16)),
    2: Header(("hop_latency", 32)),
    3: Header(("queue_id", 8), ("queue_occupancy", 24)),
    4: Header(("ingress_timestamp", 32)),
    5: Header(("egress_timestamp", 32)),
    6: Header(("l2_ingress_port_id", 32), ("l2_egress_port_id", 32)),
    7: Header(("egress_port_tx_utilization", 32)),
    CHECKSUM_COMPLEMENT: Header(("checksum_complement", 32)),
}
ITEMS_0_5: Items = {
    **{bit: item for bit, item in ITEMS_1_0.items() if bit < 8},
    6: Header(("congested_queue_id", 8), ("queue_congestion", 24)),
}
ITEMS_2: Items = {
    **ITEMS_1_0,
    4: Header(("ingress_timestamp", 64)),
    5: Header(("egress_timestamp", 64)),
    8: Header(("buffer_id", 8), ("buffer_occupancy", 24)),
}
ITEMS_1_0_BY_PROFILE: Mapping[str, Items] = {
    "spec": ITEMS_1_0,
    "onos": ITEMS_1_0,  # its Hop ML counts bits instead of words, the items are the specification's
    "l2port4": {**ITEMS_1_0, 6: LEVEL_2_IN_ONE_WORD},
    "geant": {**ITEMS_1_0, 4: ITEMS_2[4], 5: ITEMS_2[5], 6: LEVEL_2_IN_ONE_WORD},
    "intcollector": {**ITEMS_1_0, 3: Header(("queue_id", 16), ("queue_occupancy", 16)), 6: LEVEL_2_IN_ONE_WORD},
}
REPORT_METADATA_1_0: Items = {
    0: ITEMS_1_0[1],
    1: ITEMS_1_0[2],
    2: ITEMS_1_0[3],
    3: ITEMS_1_0[5],
    4: Header(("drop_queue_id", 8), ("drop_reason", 8), ("", 16)),
    5: ITEMS_1_0[7],
}
REPORT_METADATA_2_0: Items = {bit: ITEMS_2[bit] for bit in range(1, 9)} | {15: REPORT_METADATA_1_0[4]}


def bits(bitmap: int) -> list[int]:
    """The bits set in a bitmap of 16, the most significant being 0, in the order of their items."""
    return [bit for bit in range(16) if bitmap & 0x8000 >> bit]


def words(bitmap: int, items: Items) -> int:
    """W: the 4-byte words a hop writes for a bitmap."""
    return sum(items.get(bit, RESERVED_ITEM).size for bit in bits(bitmap)) // 4


def read_record(record: bytes, bitmap: int, items: Items) -> Report:
    """The fields of one hop. record: exactly its bytes, words(bitmap) of them or more."""
    values: Report = {}
    at = 0
    for bit in bits(bitmap):
        item = items.get(bit, RESERVED_ITEM)
        if bit == CHECKSUM_COMPLEMENT:
            at = len(record) - item.size
        values |= item.read_item(record, at)
        at += item.size
    return values


def read_metadata(metadata: bytes, bitmap: int, items: Items) -> Report:
    """The fields of a report's metadata, as they are: all ones mean "no value" in a stack only.

    The drop report of a packet that got no egress port says 65535. metadata: words(bitmap) of them or more.
    """
    values: Report = {}
    at = 0
    for bit in bits(bitmap):
        item = items.get(bit, RESERVED_ITEM)
        values |= item.read(metadata, at, "trunc_report_md")
        at += item.size
    return values


def write_record(values: Report, bitmap: int, items: Items, stride: int) -> bytes:
    """The inverse of read_record and read_metadata: stride words, all ones where nothing is said."""
    record = b""
    for bit in bits(bitmap):
        item = items.get(bit, RESERVED_ITEM)
        if bit == CHECKSUM_COMPLEMENT:
            record = record.ljust(stride * 4 - item.size, b"\xff")
        record += b"\xff" * item.size if item is RESERVED_ITEM else item.write_item(values)
    return record.ljust(stride * 4, b"\xff")


# --- Decoding ---------------------------------------------------------------------------------------------------------


def decode(frame: bytes, config: Settings) -> Report:
    """{"outcome": one of layout.OUTCOMES, "reports": [report, ...]}; no reports unless ok or UNKNOWN. Never raises."""
    try:
        payload, source = read_outer(frame, config)
        first = FIRST_WORD.read(payload, 0, "trunc_report")
        read_reports = REPORT_READERS.get(first["b0"] >> 4)
        if read_reports is None:
            raise Refused("bad_report_ver")
        outcome, reports = read_reports(payload, source, config.of_source(source))
        return {"outcome": outcome, "reports": reports}
    except Refused as refused:
        return {"outcome": refused.outcome, "reports": []}


def read_outer(frame: bytes, config: Settings) -> tuple[bytes, str]:
    """UDP payload and source address of a frame to one of our ports (steps 1 to 5). Errors: Refused."""
    ethertype, _, at = read_ethernet(frame, 0, short="pass_short_l2", too_deep="pass_vlan_depth")
    if ethertype == ETHERTYPE_IPV4:
        ip = IPV4.read(frame, at, "pass_short_l3")
        if ip["version"] != 4 or ip["ihl"] < 5:
            raise Refused("pass_bad_ip")
        header_length = ip["ihl"] * 4
        if at + header_length > len(frame):
            raise Refused("pass_short_l3")
        if ip["more_fragments"] or ip["fragment_offset"]:
            raise Refused("pass_fragment")
        protocol = ip["protocol"]
        ip_payload_length = ip["total_length"] - header_length
    elif ethertype == ETHERTYPE_IPV6:
        ip = IPV6.read(frame, at, "pass_short_l3")
        if ip["version"] != 6:
            raise Refused("pass_bad_ip")
        if ip["next_header"] == NEXT_HEADER_FRAGMENT:
            raise Refused("pass_fragment")
        header_length = IPV6.size
        protocol = ip["next_header"]
        ip_payload_length = ip["payload_length"]
    else:
        raise Refused("pass_not_ip")
    if protocol != PROTOCOL_UDP:
        raise Refused("pass_not_udp")
    at += header_length
    udp = UDP.read(frame, at, "pass_short_l4")
    if udp["destination_port"] not in config.port:
        raise Refused("pass_port")
    if ip_payload_length < UDP.size:
        raise Refused("bad_ip_len")
    if at + ip_payload_length > len(frame):
        raise Refused("trunc_frame")
    if not UDP.size <= udp["length"] <= ip_payload_length:
        raise Refused("bad_udp_len")
    return frame[at + UDP.size : at + udp["length"]], address(ip["version"], ip["source"])


def read_ethernet(data: bytes, at: int, *, short: str, too_deep: str) -> tuple[int, list[int], int]:
    """EtherType behind up to two tags, the tags' VLAN ids, where the next header starts. Errors: Refused, as named."""
    ethertype = ETHERNET.read(data, at, short)["ethertype"]
    at += ETHERNET.size
    vlan_ids: list[int] = []
    while ethertype in TAGS:
        if len(vlan_ids) == MAX_TAGS:
            raise Refused(too_deep)
        tag = TAG.read(data, at, short)
        at += TAG.size
        vlan_ids.append(tag["vlan_id"])
        ethertype = tag["ethertype"]
    return ethertype, vlan_ids, at


def address(version: int, number: int) -> str:
    """An address as the C library spells it."""
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, number.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))


OutcomeAndReports = tuple[str, list[Report]]
"""ok or UNKNOWN, and a packet's reports."""


def report_of(
    version: str, source: str, header: Mapping[str, int], local_hop: Report | None, flow: Report | None, stack: Any
) -> Report:
    """A report, from all fields of its headers."""
    return {
        "version": version,
        "source": source,
        "switch_id": header.get("switch_id"),
        "hw_id": header["hw_id"],
        "sequence_number": header["sequence_number"],
        "ingress_timestamp": header.get("ingress_timestamp"),
        "dropped": bool(header["dropped"]),
        "congested_queue": bool(header["congested_queue"]),
        "tracked_flow": bool(header["tracked_flow"]),
        "intermediate": bool(header.get("intermediate")),
        "local_hop": local_hop,
        "flow": flow,
        "int": stack,
    }


def read_report_0_5(payload: bytes, source: str, config: Settings) -> OutcomeAndReports:
    """The one report of a Telemetry Report 0.5 payload (step 7). Errors: Refused."""
    header = REPORT_0_5.read(payload, 0, "trunc_report")
    if header["nproto"] not in SWITCH_0_5:
        raise Refused("unsupported_nproto")
    at = REPORT_0_5.size
    local_hop = None
    switch = SWITCH_0_5[header["nproto"]]
    if switch is not None:
        local_hop = switch.read(payload, at, "trunc_report_md")
        header["switch_id"] = local_hop.pop("switch_id")
        at += switch.size
    outcome, flow, stack = read_inner(Inner.ethernet, payload, at, config)
    return outcome, [report_of("0.5", source, header, local_hop, flow, stack)]


def read_report_1_0(payload: bytes, source: str, config: Settings) -> OutcomeAndReports:
    """The one report of a Telemetry Report 1.0 payload (step 8). Errors: Refused."""
    header = REPORT_1_0.read(payload, 0, "trunc_report")
    bitmap = header["metadata_bits"] << 10
    length = 4 if header["length"] == 1 and config.accepts_report_length_1 else header["length"]
    if length < REPORT_1_0.size // 4 + words(bitmap, REPORT_METADATA_1_0):
        raise Refused("bad_report_len")
    if length * 4 > len(payload):
        raise Refused("trunc_report_md")
    if header["nproto"] not in STARTS_1_0:
        raise Refused("unsupported_nproto")
    # Length may promise more words than the bits we know need: they lie behind those, and are skipped.
    local_hop = read_metadata(payload[REPORT_1_0.size : length * 4], bitmap, REPORT_METADATA_1_0) if bitmap else None
    outcome, flow, stack = read_inner(STARTS_1_0[header["nproto"]], payload, length * 4, config)
    return outcome, [report_of("1.0", source, header, local_hop, flow, stack)]


def read_reports_2_0(payload: bytes, source: str, config: Settings) -> OutcomeAndReports:
    """The individual reports of a Telemetry Report 2.0 payload (steps 9 and 10). Errors: Refused."""
    group = GROUP_2_0.read(payload, 0, "trunc_report")
    outcome = "ok"
    reports: list[Report] = []
    at = GROUP_2_0.size
    while at + INDIVIDUAL.size <= len(payload):
        header = INDIVIDUAL.read(payload, at, "trunc_indiv")
        at += INDIVIDUAL.size
        end = len(payload) if header["length"] == TO_THE_END else at + header["length"] * 4
        if end > len(payload):
            raise Refused("bad_indiv_len")
        its_outcome, local_hop, flow, stack = read_individual(payload[at:end], header, config)
        if its_outcome != "ok":
            outcome = its_outcome
        reports.append(report_of("2.0", source, group | header, local_hop, flow, stack))
        at = end
    if not reports:
        raise Refused("no_individual" if at == len(payload) else "trunc_indiv")
    return outcome, reports


def read_individual(
    contents: bytes, header: dict[str, int], config: Settings
) -> tuple[str, Report | None, Report | None, Report | None]:
    """Outcome, local_hop, flow and INT of what stands behind an INDIVIDUAL header (steps 11 to 13). Errors: Refused."""
    at = 0
    local_hop = None
    if header["type"] == MAIN_INT_TYPE:
        at = MAIN_INT.size + header["metadata_length"] * 4
        if at > len(contents):
            raise Refused("bad_indiv_len")
        bitmap = MAIN_INT.read(contents, 0, "bad_indiv_len")["metadata_bits"]
        if header["metadata_length"] < words(bitmap, REPORT_METADATA_2_0):
            raise Refused("md_len_too_small")
        if bitmap:
            local_hop = read_metadata(contents[MAIN_INT.size : at], bitmap, REPORT_METADATA_2_0)
    elif header["type"] != INNER_ONLY:
        return "ok", None, None, None
    start = STARTS_2_0.get(header["in_type"])
    if header["in_type"] == IN_TLV:
        start, at, contents = find_tlv(contents, at)
    if start is None:
        return "ok", local_hop, None, None
    outcome, flow, stack = read_inner(start, contents, at, config)
    return outcome, local_hop, flow, stack


def find_tlv(contents: bytes, at: int) -> tuple[Reader | None, int, bytes]:
    """How the packet in the TLVs from at on starts, None where there is none, and where; and contents up to its end.

    Errors: Refused, also for what is wrong behind that packet.
    """
    found: tuple[Reader | None, int, bytes] = None, at, contents
    while at + TLV.size <= len(contents):
        tlv = TLV.read(contents, at, "bad_tlv")
        at += TLV.size
        end = at + tlv["length"] * 4
        if end > len(contents):
            raise Refused("bad_tlv")
        if found[0] is None and tlv["type"] in STARTS_TLV:
            found = STARTS_TLV[tlv["type"]], at, contents[:end]
        at = end
    return found


REPORT_READERS: Mapping[int, Callable[[bytes, str, Settings], OutcomeAndReports]] = {
    0: read_report_0_5,
    1: read_report_1_0,
    2: read_reports_2_0,
}
"""Version nibble -> (UDP payload, source address, settings of that source) -> outcome and reports."""

FlowAndStack = tuple[Report, Report | None]


def no_flow(vlan_ids: list[int]) -> Report:
    """The flow of an inner packet that is not IP."""
    return {
        "vlan_ids": vlan_ids,
        "ip_version": None,
        "source": None,
        "destination": None,
        "protocol": None,
        "source_port": None,
        "destination_port": None,
        "dscp": None,
    }


def ip_flow(ip: dict[str, int], protocol: int, vlan_ids: list[int]) -> Report:
    """The flow an IP header tells, without ports."""
    return {
        "vlan_ids": vlan_ids,
        "ip_version": ip["version"],
        "source": address(ip["version"], ip["source"]),
        "destination": address(ip["version"], ip["destination"]),
        "protocol": protocol,
        "source_port": None,
        "destination_port": None,
        "dscp": ip["dscp"],
    }


class Inner:
    """An inner packet, and what it encapsulates, one in the other: its flow and INT as they come to light.

    A method reads what its name says from at on, and goes on with what is behind it. Errors: Refused; what was read
    before it stays.
    """

    def __init__(self, data: bytes, config: Settings) -> None:
        self.data = data
        self.config = config
        self.flow = no_flow([])
        self.stack: Report | None = None
        self.vlan_ids: list[int] = []  # of the last Ethernet header
        self.tunnels = 0

    def ethernet(self, at: int) -> None:
        """Step 14."""
        ethertype, self.vlan_ids, at = read_ethernet(self.data, at, short="trunc_inner", too_deep="bad_inner_vlan")
        if not self.tunnels:
            self.flow = no_flow(self.vlan_ids)
        if ethertype == ETHERTYPE_IPV4:
            self.ipv4(at)
        elif ethertype == ETHERTYPE_IPV6:
            self.ipv6(at)
        elif ethertype in (ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST):
            self.mpls(at)

    def ipv4(self, at: int) -> None:
        """Step 15. The total length is not looked at: mirrors truncate."""
        behind = self.ipv4_header(at)
        if behind is not None:
            self.l4(behind)

    def ipv6(self, at: int) -> None:
        """Step 15. Extension headers are not walked."""
        self.l4(self.ipv6_header(at))

    def ipv4_header(self, at: int) -> int | None:
        """The flow; returns where the next header is, None in a later fragment."""
        ip = IPV4.read(self.data, at, "trunc_inner")
        if ip["version"] != 4 or ip["ihl"] < 5:
            raise Refused("bad_inner_ip")
        behind = at + ip["ihl"] * 4
        if behind > len(self.data):
            raise Refused("trunc_inner")
        self.flow = ip_flow(ip, ip["protocol"], self.vlan_ids)
        return None if ip["fragment_offset"] else behind

    def ipv6_header(self, at: int) -> int:
        """The flow; returns where the next header is."""
        ip = IPV6.read(self.data, at, "trunc_inner")
        if ip["version"] != 6:
            raise Refused("bad_inner_ip")
        self.flow = ip_flow(ip, ip["next_header"], self.vlan_ids)
        return at + IPV6.size

    def ports(self, at: int) -> dict[str, int] | None:
        """The flow's ports; returns the L4 header, None where there are none."""
        if self.flow["protocol"] == PROTOCOL_UDP:
            header = UDP.read(self.data, at, "trunc_inner")
        elif self.flow["protocol"] == PROTOCOL_TCP:
            header = TCP.read(self.data, at, "trunc_inner")
        else:
            return None
        self.flow["source_port"] = header["source_port"]
        self.flow["destination_port"] = header["destination_port"]
        return header

    def l4(self, at: int) -> None:
        """Ports, and whether there is INT, or an encapsulation (steps 16, 17 and 24)."""
        if self.flow["protocol"] == PROTOCOL_GRE:
            self.gre(at)
            return
        header = self.ports(at)
        if header is None:
            return
        tunnel = None
        by_port = False
        if self.flow["protocol"] == PROTOCOL_UDP:
            by_port = header["destination_port"] == self.config.int_udp_port
            tunnel = TUNNELS.get(header["destination_port"])
        elif header["data_offset"] < 5:
            raise Refused("bad_inner_tcp")
        mark = self.config.int_dscp
        signalled = by_port or (mark is not None and self.flow["dscp"] & mark[1] == mark[0])
        if tunnel is not None:
            if not (signalled and self.finds(Inner.shim_l4, at + UDP.size)):
                tunnel(self, at + UDP.size)
        elif signalled:
            self.shim_l4(self.int_start(at, header))
        elif mark is None:
            with contextlib.suppress(Refused):  # nothing said that there is INT, and what is there is not
                self.shim_l4(self.int_start(at, header))

    def int_start(self, at: int, header: dict[str, int]) -> int:
        """Where INT starts in a packet whose L4 header starts at at (step 18)."""
        if self.flow["protocol"] == PROTOCOL_UDP:
            return at + UDP.size
        return int_start_in_tcp(self.data, at, header["data_offset"], self.config)

    def finds(self, shim: Reader, at: int) -> bool:
        """Whether there is INT at at, which is read then; if not, nothing has happened."""
        try:
            shim(self, at)
        except Refused:
            return False
        return self.stack is not None

    def shim_l4(self, at: int) -> None:
        """INT behind a TCP or UDP header (steps 19 to 23)."""
        self.flow, self.stack = read_int(self.data, at, self.flow, self.config)

    def enter(self) -> None:
        """One encapsulation more (step 24)."""
        if self.tunnels == MAX_TUNNELS:
            raise Refused(UNKNOWN)
        self.tunnels += 1

    def packet(self, ethertype: int | None, at: int) -> None:
        """The packet of that type in an encapsulation."""
        if ethertype not in PACKETS:
            raise Refused(UNKNOWN)
        PACKETS[ethertype](self, at)

    def original(self, ethertype: int | None, at: int) -> None:
        """The flow of the packet behind INT, as far as it can be told (step 30)."""
        with contextlib.suppress(Refused):
            if ethertype == ETHERTYPE_ETHERNET:
                ethertype, self.vlan_ids, at = read_ethernet(self.data, at, short=UNKNOWN, too_deep=UNKNOWN)
            behind = None
            if ethertype == ETHERTYPE_IPV4:
                behind = self.ipv4_header(at)
            elif ethertype == ETHERTYPE_IPV6:
                behind = self.ipv6_header(at)
            if behind is not None:
                self.ports(behind)

    def mpls(self, at: int) -> None:
        """Step 25."""
        self.enter()
        for _ in range(MAX_LABELS):
            label = LABEL.read(self.data, at, UNKNOWN)
            at += LABEL.size
            if label["bottom"]:
                break
        else:
            raise Refused(UNKNOWN)
        version = self.data[at] >> 4 if at < len(self.data) else 0
        self.packet({4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}.get(version), at)

    def gre(self, at: int) -> None:
        """Step 26."""
        self.enter()
        header = GRE.read(self.data, at, UNKNOWN)
        if header["version"] or header["has_routing"]:
            raise Refused(UNKNOWN)
        at += GRE.size + 4 * (header["has_checksum"] + header["has_key"] + header["has_sequence"])
        if at > len(self.data):
            raise Refused(UNKNOWN)
        if header["protocol"] == self.config.int_gre_protocol != 0:
            self.shim_gre(at)
        else:
            self.packet(header["protocol"], at)

    def shim_gre(self, at: int) -> None:
        """INT in GRE (step 29)."""
        shim = SHIM_GRE.read(self.data, at, "trunc_shim")
        if self.shim_2(shim, at):
            self.original(shim["ethertype"], at + SHIM_GRE.size + shim["length"] * 4)

    def vxlan(self, at: int) -> None:
        """Step 27, UDP port 4789."""
        self.enter()
        header = VXLAN.read(self.data, at, UNKNOWN)
        if not header["has_vni"]:
            raise Refused(UNKNOWN)
        if header["has_next_protocol"]:
            self.next_protocol(header, at)
        else:
            self.ethernet(at + VXLAN.size)

    def gpe(self, at: int) -> None:
        """Step 27, UDP port 4790."""
        self.enter()
        self.next_protocol(VXLAN.read(self.data, at, UNKNOWN), at)

    def next_protocol(self, header: dict[str, int], at: int) -> None:
        """What a VXLAN-GPE header says that follows it. at: where the header starts."""
        at += VXLAN.size
        if header["version"] or header["oam"]:
            raise Refused(UNKNOWN)
        protocol = header["next_protocol"]
        if not header["has_next_protocol"]:
            self.ethernet(at)
        elif protocol == NEXT_INT_V1:
            self.shim_gpe_v1(at)
        elif protocol == NEXT_INT_2:
            self.shim_gpe_2(at)
        elif protocol == NEXT_INT_OR_MPLS:
            if not self.finds(Inner.shim_gpe_v1, at):
                raise Refused(UNKNOWN)
        else:
            self.packet(NEXT_PROTOCOLS.get(protocol), at)

    def shim_gpe_v1(self, at: int) -> None:
        """INT 0.5 or 1.0 in VXLAN-GPE (step 29)."""
        shim = SHIM_GPE_V1.read(self.data, at, "trunc_shim")
        if shim["type"] == TYPE_DESTINATION:
            return
        if shim["type"] != TYPE_MD:
            raise Refused("bad_shim_type")
        if shim["length"] < 3:
            raise Refused("bad_shim_len")
        self.stack = read_int_v1(self.data, at + SHIM_GPE_V1.size, shim["length"] - 3, 0, self.config)
        self.original(NEXT_PROTOCOLS.get(shim["next_protocol"]), at + shim["length"] * 4)

    def shim_gpe_2(self, at: int) -> None:
        """INT 2.x in VXLAN-GPE (step 29)."""
        shim = SHIM_GPE_2.read(self.data, at, "trunc_shim")
        if self.shim_2(shim, at):
            self.original(NEXT_PROTOCOLS.get(shim["next_protocol"]), at + SHIM_GPE_2.size + shim["length"] * 4)

    def shim_2(self, shim: dict[str, int], at: int) -> bool:
        """The INT 2.x behind a shim at at, in GRE or VXLAN-GPE; returns whether there is any."""
        if shim["type"] == TYPE_DESTINATION:
            return False
        if shim["type"] not in (TYPE_MD, TYPE_MX):
            raise Refused("bad_shim_type")
        if shim["length"] < 3:
            raise Refused("bad_shim_len")
        self.stack = read_int_2(self.data, at + 4, shim["length"] - 3, shim["type"], self.config)
        return True

    def geneve(self, at: int) -> None:
        """Step 28."""
        self.enter()
        header = GENEVE.read(self.data, at, UNKNOWN)
        if header["version"] or header["oam"]:
            raise Refused(UNKNOWN)
        at += GENEVE.size
        behind = at + header["options_length"] * 4
        if behind > len(self.data):
            raise Refused(UNKNOWN)
        found: tuple[int, int, int] | None = None
        for _ in range(MAX_OPTIONS):
            if at == behind:
                break
            option = GENEVE_OPTION.read(self.data, at, UNKNOWN)
            at += GENEVE_OPTION.size
            if at + option["length"] * 4 > behind:
                raise Refused(UNKNOWN)
            is_int = option["class"] == GENEVE_CLASS_INT and option["type"] in (TYPE_MD, TYPE_MX)
            if is_int and found is None:
                found = at, option["length"], option["type"]
            at += option["length"] * 4
        if at != behind:
            raise Refused(UNKNOWN)
        if found is None:
            self.packet(header["protocol"], behind)
        else:
            self.geneve_int(*found)
            self.original(header["protocol"], behind)

    def geneve_int(self, at: int, length: int, kind: int) -> None:
        """INT in a Geneve option of length words of data (step 29)."""
        is_2 = length > 0 and self.data[at] >> 4 == 2
        header_words = (INT_2 if is_2 else INT_1_0).size // 4
        if length < header_words:
            raise Refused("bad_shim_len")
        if is_2:
            self.stack = read_int_2(self.data, at, length - header_words, kind, self.config)
        elif kind == TYPE_MX:
            raise Refused("bad_int_ver")
        else:
            self.stack = read_int_v1(self.data, at, length - header_words, 0, self.config)


Reader = Callable[[Inner, int], None]
"""A method of Inner that reads what starts at an offset."""

STARTS_1_0: Mapping[int, Reader] = {NPROTO_ETHERNET: Inner.ethernet, NPROTO_IPV4: Inner.ipv4, NPROTO_IPV6: Inner.ipv6}
STARTS_2_0: Mapping[int, Reader] = {IN_ETHERNET: Inner.ethernet, IN_IPV4: Inner.ipv4, IN_IPV6: Inner.ipv6}
STARTS_TLV: Mapping[int, Reader] = {TLV_ETHERNET: Inner.ethernet, TLV_IPV4: Inner.ipv4, TLV_IPV6: Inner.ipv6}
PACKETS: Mapping[int | None, Reader] = {
    ETHERTYPE_ETHERNET: Inner.ethernet,
    ETHERTYPE_IPV4: Inner.ipv4,
    ETHERTYPE_IPV6: Inner.ipv6,
    ETHERTYPE_MPLS: Inner.mpls,
    ETHERTYPE_MPLS_MULTICAST: Inner.mpls,
}
TUNNELS: Mapping[int, Reader] = {PORT_VXLAN: Inner.vxlan, PORT_GPE: Inner.gpe, PORT_GENEVE: Inner.geneve}
"""UDP destination port -> what the payload is."""

INNER_ERRORS = ("trunc_inner", "bad_inner_vlan", "bad_inner_ip", "bad_inner_tcp")


def read_inner(start: Reader, data: bytes, at: int, config: Settings) -> tuple[str, Report, Report | None]:
    """Outcome, flow and INT of the inner packet at at (steps 14 to 30). Errors: Refused."""
    packet = Inner(data, config)
    try:
        start(packet, at)
    except Refused as refused:
        if refused.outcome != UNKNOWN and not (packet.tunnels and refused.outcome in INNER_ERRORS):
            raise
        return UNKNOWN, packet.flow, None
    return "ok", packet.flow, packet.stack


def int_start_in_tcp(data: bytes, at: int, data_offset: int, config: Settings) -> int:
    """Where INT starts in a TCP packet whose header starts at at (step 18). Errors: Refused."""
    before, after = at + TCP.size, at + data_offset * 4
    if config.tcp_int_position == "auto":
        start = before if data_offset == 5 or looks_like_shim(data, before) else after
    else:
        start = before if config.tcp_int_position == "before-options" else after
    if start > len(data):
        raise Refused("trunc_inner")
    return start


def looks_like_shim(data: bytes, at: int) -> bool:
    """Whether the 4 bytes at at are a shim rather than TCP options (step 18)."""
    if at + FIRST_WORD.size > len(data):
        return False
    b0, b1, b2 = data[at : at + 3]
    return (b0 in (1, 2) and b1 == 0 and b2 >= 3) or (b0 in (0x10, 0x20, 0x30) and b1 >= 3)


def read_int(data: bytes, at: int, flow: Report, config: Settings) -> FlowAndStack:
    """The flow, with what the shim at at says about it, and the stack behind (steps 19 to 23). Errors: Refused."""
    b0 = FIRST_WORD.read(data, at, "trunc_shim")["b0"]
    if b0 in (TYPE_MD, TYPE_DESTINATION):
        v1 = SHIM_V1.read(data, at, "trunc_shim")
        if v1["type"] == TYPE_DESTINATION:
            return flow, None
        if v1["length"] < 3:
            raise Refused("bad_shim_len")
        return flow, read_int_v1(data, at + SHIM_V1.size, v1["length"] - 3, TAIL_0_5.size // 4, config)
    v2 = SHIM_2.read(data, at, "trunc_shim")
    if v2["reserved"] or v2["type"] not in (TYPE_MD, TYPE_DESTINATION, TYPE_MX) or v2["npt"] > NPT_PROTOCOL:
        raise Refused("bad_shim_type")
    if v2["type"] == TYPE_DESTINATION:
        return flow, None
    if v2["length"] < 3:
        raise Refused("bad_shim_len")
    stack = read_int_2(data, at + SHIM_2.size, v2["length"] - 3, v2["type"], config)
    return original_flow(data, at, v2, flow), stack


def original_flow(data: bytes, at: int, shim: dict[str, int], flow: Report) -> Report:
    """The flow as it was before the INT source took the UDP port, or put a UDP header in front (INT 2.x, NPT)."""
    if shim["npt"] == NPT_PORT:
        return flow | {"destination_port": shim["by_npt"]}
    if shim["npt"] == NPT_PROTOCOL:
        protocol = shim["by_npt"] & 0xFF
        ports: Report = {"source_port": None, "destination_port": None}
        behind = at + SHIM_2.size + shim["length"] * 4
        if protocol in (PROTOCOL_TCP, PROTOCOL_UDP) and behind + PORTS.size <= len(data):
            ports = dict(PORTS.read(data, behind, "trunc_inner"))
        return flow | {"protocol": protocol} | ports
    return flow


def read_int_v1(data: bytes, at: int, words_behind: int, tail_words: int, config: Settings) -> Report:
    """INT 0.5 or 1.0, whose header starts at at (steps 20 to 23). Errors: Refused.

    words_behind: that the shim counts behind the header, those of a tail too, which only INT 0.5 has.
    """
    header = INT_1_0.read(data, at, "trunc_md_hdr")
    if header["version"] == 0 and data[at + 1] & 0x7F:  # reserved in 1.0; the Ins Cnt of 0.5, which is not 0
        return read_int_0_5(data, at, words_behind - tail_words, tail_words)
    if header["version"] > 1 or (header["version"] == 0 and config.reject_int_version_0):
        raise Refused("bad_int_ver")
    bitmap, hop_ml = header["instruction_bitmap"], header["hop_ml"]
    items = ITEMS_1_0_BY_PROFILE[config.profile]
    check_not_zero(hop_ml, bitmap, words_behind)
    stride = words(bitmap, items)
    if hop_ml != hop_ml_1_0(bitmap, config.profile):
        raise Refused("hop_ml_mismatch")
    record_at = at + INT_1_0.size
    check_stack(words_behind, stride, record_at + words_behind * 4, data)
    return {
        "version": "1.0",
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": hop_ml,
        "remaining_hop_count": header["remaining_hop_count"],
    } | read_stack(data, record_at, words_behind, stride, bitmap, items)


def hop_ml_1_0(bitmap: int, profile: str) -> int:
    """The Hop ML that an exporter of this profile sends with a bitmap."""
    return len(bits(bitmap)) if profile == "onos" else words(bitmap, ITEMS_1_0_BY_PROFILE[profile])


def read_int_0_5(data: bytes, at: int, stack_words: int, tail_words: int) -> Report:
    """INT 0.5, whose header, which is there, starts at at. Errors: Refused."""
    header = INT_0_5.read(data, at, "trunc_md_hdr")
    if stack_words < 0:
        raise Refused("bad_shim_len")
    bitmap, stride = header["instruction_bitmap"], header["instruction_count"]
    if stride != words(bitmap, ITEMS_0_5):
        raise Refused("bad_ins_cnt")
    check_not_zero(stride, bitmap, stack_words)
    record_at = at + INT_0_5.size
    check_stack(stack_words, stride, record_at + (stack_words + tail_words) * 4, data)
    return {
        "version": "0.5",
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": None,
        "remaining_hop_count": None,
    } | read_stack(data, record_at, stack_words, stride, bitmap, ITEMS_0_5)


def read_int_2(data: bytes, at: int, words_behind: int, kind: int, config: Settings) -> Report:
    """INT 2.x, MD or MX by its kind, whose header starts at at (steps 20 to 23). Errors: Refused.

    words_behind: that the shim counts behind the header.
    """
    header = INT_2.read(data, at, "trunc_md_hdr")
    if header["version"] != 2:
        raise Refused("bad_int_ver")
    bitmap, hop_ml = header["instruction_bitmap"], header["hop_ml"]
    if kind == TYPE_MX:
        return {
            "version": "2.x",
            "mode": "MX",
            "instruction_bitmap": f"0x{bitmap:04x}",
            "hop_ml": None,
            "remaining_hop_count": None,
            "hop_count": 0,
            "hops": [],
            "latency": None,
        }
    source_only = dict(config.source_only_words).get(header["domain_id"], 0)
    stack_words = words_behind - source_only
    if stack_words < 0:
        raise Refused("stack_not_multiple")
    check_not_zero(hop_ml, bitmap, stack_words)
    baseline = words(bitmap, ITEMS_2)
    if hop_ml < baseline or (hop_ml > baseline and header["domain_id"] == 0):  # what is more is domain specific
        raise Refused("hop_ml_mismatch")
    record_at = at + INT_2.size
    check_stack(stack_words, hop_ml, record_at + (stack_words + source_only) * 4, data)
    return {
        "version": "2.x",
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": hop_ml,
        "remaining_hop_count": header["remaining_hop_count"],
    } | read_stack(data, record_at, stack_words, hop_ml, bitmap, ITEMS_2)


def check_not_zero(hop_ml: int, bitmap: int, stack_words: int) -> None:
    """Hops of no words are possible only where nothing is asked for and nothing is there (step 21). Errors: Refused."""
    if hop_ml == 0 and (stack_words or bitmap):
        raise Refused("hop_ml_zero")


def check_stack(stack_words: int, stride: int, stack_end: int, data: bytes) -> None:
    """Whole hops (step 22), and all inside (step 23), in this order. Errors: Refused."""
    if stride and stack_words % stride:
        raise Refused("stack_not_multiple")
    if stack_end > len(data):
        raise Refused("trunc_stack")


def read_stack(data: bytes, at: int, stack_words: int, stride: int, bitmap: int, items: Items) -> Report:
    """hop_count, hops, latency, hops_truncated of a stack of checked size that starts at at."""
    hop_count = stack_words // stride if stride else 0
    records = [data[at + i * stride * 4 : at + (i + 1) * stride * 4] for i in range(hop_count)]
    hops = [read_record(record, bitmap, items) for record in records]
    latencies = [hop["hop_latency"] for hop in hops if hop.get("hop_latency") is not None]
    stack: Report = {
        "hop_count": hop_count,
        "hops": hops[:MAX_HOPS],
        "latency": sum(latencies) if latencies else None,
    }
    if hop_count > MAX_HOPS:
        stack["hops_truncated"] = True
    return stack


# --- Encoding ---------------------------------------------------------------------------------------------------------

SOURCE_MAC, DESTINATION_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
INNER_SOURCE_MAC, INNER_DESTINATION_MAC = 0x00AA00000001, 0x00AA00000002
COLLECTORS = {4: "192.0.2.254", 6: "2001:db8::fe"}  # addresses reserved for documentation
LATER_FRAGMENT = 185  # offset in units of 8 bytes: what follows 1480 bytes
TUNNEL_ENDS = {4: ("198.51.100.1", "198.51.100.2"), 6: ("2001:db8:f::1", "2001:db8:f::2")}
PADDING = b"\0"
NPROTOS = {"ethernet": NPROTO_ETHERNET, "ipv4": NPROTO_IPV4, "ipv6": NPROTO_IPV6}
IN_TYPES = {"ethernet": IN_ETHERNET, "ipv4": IN_IPV4, "ipv6": IN_IPV6}
TLV_TYPES = {"ethernet": TLV_ETHERNET, "ipv4": TLV_IPV4, "ipv6": TLV_IPV6}
STARTS_WITH = {ETHERTYPE_ETHERNET: "ethernet", ETHERTYPE_IPV4: "ipv4", ETHERTYPE_IPV6: "ipv6"}


@dataclasses.dataclass(frozen=True)
class Tunnel:
    """An encapsulation, to be written around the packet that a report's flow tells of.

    kind: "mpls", "gre", "vxlan", "gpe" (VXLAN-GPE) or "geneve".
    ethernet: what is inside starts with Ethernet; VXLAN: always, MPLS: never.
    vlan_ids: where `ethernet`, of the next Ethernet header further out; the innermost of all has the flow's.
    has_int: the report's INT is in this encapsulation, not behind the L4 header; the innermost one only, GRE: INT 2.x.
    ip_version, dscp: of the packet that carries it; not of MPLS.
    labels: of MPLS, the first one first. gre_words: 0b100 a checksum, 0b010 a key, 0b001 a sequence number, each 0.
    options: of Geneve, in front of INT's, whole words, headers included.
    """

    kind: str
    ethernet: bool = True
    has_int: bool = False
    ip_version: int = 4
    dscp: int = 0
    vlan_ids: Sequence[int] = ()
    labels: Sequence[int] = (16,)
    gre_words: int = 0
    options: bytes = b""


@dataclasses.dataclass(frozen=True)
class Spelling:
    """What a report leaves open: how it is written.

    report_length: the Length field, where it is to differ from the truth (1.0: 1 is what INTCollector's generator
    writes; 2.0: 0xFF for "to the end", without padding). nproto: "ethernet", "ipv4" or "ipv6", what the inner packet
    starts with; 0.5 knows only the first.
    tlvs: of 2.0, the inner packet is in a TLV, behind these (type, whole words); None: it is not.
    domain_metadata: of 2.0, whole words behind the metadata of local_hop.
    tunnels: what the flow's packet is in, outermost first.
    tcp_options: whole words. tcp_int_position: "before-options" or "after-options"; by default as configured, and
    before them where that is auto. int_version_0: as ONOS writes it. npt, domain_id: of INT 2.x (NPT 1: the UDP port
    signals INT, 2: a UDP header in front of the original one does). payload: what follows the stack, or without one
    the flow's last header.
    """

    report_length: int | None = None
    nproto: str = "ethernet"
    tlvs: Sequence[tuple[int, bytes]] | None = None
    domain_metadata: bytes = b""
    tunnels: Sequence[Tunnel] = ()
    tcp_options: bytes = b""
    tcp_int_position: str | None = None
    int_version_0: bool = False
    npt: int = NPT_NONE
    domain_id: int = 0
    payload: bytes = b""


SPELLED = tuple(field.name for field in dataclasses.fields(Spelling))


def encode(report: Report, config: Settings, **options: Any) -> bytes:
    """The Ethernet frame of a report: decode's inverse. options: of encode_group, and the fields of Spelling.

    Errors: as encode_group; TypeError, an option of another name.
    """
    spelling = Spelling(**{name: options.pop(name) for name in SPELLED if name in options})
    return encode_group([report], config, [spelling], **options)


def encode_group(
    reports: Sequence[Report],
    config: Settings,
    spellings: Sequence[Spelling] = (),
    *,
    source_mac: bytes = SOURCE_MAC,
    destination_mac: bytes = DESTINATION_MAC,
    outer_vlans: Sequence[int] = (),
    outer_options: bytes = b"",
    collector: str | None = None,
    udp_source_port: int = 0,
    destination_port: int | None = None,
) -> bytes:
    """The Ethernet frame of the reports of one packet, which in Telemetry Report 2.0 may be several.

    Several share version, source, switch_id, hw_id and sequence_number. As many hops are written as there are, more
    than MAX_HOPS too; `latency` is not looked at, nor is what a version has no place for. A `local_hop` without fields
    (2.0) is written as a reserved RepMdBit.

    spellings: one for each report; those that are not there are Spelling().
    outer_vlans: ids outermost first, at most two for decode to read them. outer_options: of IPv4, whole words.
    collector: the outer destination address. destination_port: the first configured one by default.

    Outer lengths and checksums are right (UDP: 0 with IPv4); of the inner ones, UDP and TCP have no checksum.
    Errors: ValueError, KeyError: the reports are none that these headers can carry.
    """
    if not reports:
        raise ValueError("a packet without reports is none")
    first = reports[0]
    for name in ("version", "source", "switch_id", "hw_id", "sequence_number"):
        if any(report[name] != first[name] for report in reports):
            raise ValueError(f"the reports of one packet share their {name}")
    if first["version"] not in REPORT_WRITERS:
        raise ValueError(f"cannot encode a Telemetry Report {first['version']!r}")
    if len(reports) > 1 and first["version"] != "2.0":
        raise ValueError(f"a Telemetry Report {first['version']} is alone in its packet, not one of {len(reports)}")
    if len(spellings) > len(reports):
        raise ValueError(f"{len(spellings)} spellings are more than {len(reports)} reports")
    spelled = [*spellings, *[Spelling()] * (len(reports) - len(spellings))]
    config = config.of_source(first["source"])
    return write_outer(
        first["source"],
        collector,
        REPORT_WRITERS[first["version"]](list(zip(reports, spelled, strict=True)), config),
        ETHERNET.write({"destination": number(destination_mac), "source": number(source_mac)}),
        outer_vlans,
        outer_options,
        udp_source_port,
        config.port[0] if destination_port is None else destination_port,
    )


def number(data: bytes) -> int:
    """Bytes as the number they are on the wire."""
    return int.from_bytes(data, "big")


def address_number(text: str) -> int:
    """An address as the number it is on the wire."""
    return number(socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of data, whose own checksum field is 0."""
    total = number(data) << len(data) % 2 * 8
    # 0x10000 leaves 1 over when divided by 0xFFFF, so the sum of the words and the number they make leave the same; and
    # the sum's carries are added until it is one word, which is 0 only where all are
    return (total % 0xFFFF or min(total, 0xFFFF)) ^ 0xFFFF


def write_ethernet(header: bytes, vlan_ids: Sequence[int], ethertype: int) -> bytes:
    """header, whose own EtherType is replaced, and tags, ethertype last; of several the outermost is 802.1ad's."""
    types = [ETHERTYPE_DOT1Q for _ in vlan_ids]
    if len(types) > 1:
        types[0] = ETHERTYPE_DOT1AD
    types.append(ethertype)
    out = header[:-2] + types[0].to_bytes(2, "big")
    for vlan_id, following in zip(vlan_ids, types[1:], strict=True):
        out += TAG.write({"vlan_id": vlan_id, "ethertype": following})
    return out


def write_ipv4(fields: dict[str, int], options: bytes, payload: bytes) -> bytes:
    """An IPv4 packet with right lengths and checksum. Errors: ValueError."""
    if len(options) % 4:
        raise ValueError(f"IPv4 options are whole words, not {len(options)} bytes")
    size = IPV4.size + len(options)
    fields = {"version": 4, "ihl": size // 4, "total_length": size + len(payload), "ttl": 64} | fields
    header_sum = checksum(IPV4.write(fields) + options)
    return IPV4.write(fields | {"checksum": header_sum}) + options + payload


def write_ipv6(fields: dict[str, int], payload: bytes) -> bytes:
    """An IPv6 packet with the right length. Errors: ValueError."""
    return IPV6.write({"version": 6, "payload_length": len(payload), "hop_limit": 64} | fields) + payload


def write_outer(
    source: str,
    collector: str | None,
    payload: bytes,
    ethernet: bytes,
    vlan_ids: Sequence[int],
    options: bytes,
    source_port: int,
    destination_port: int,
) -> bytes:
    """A frame around a UDP payload. Errors: ValueError."""
    version = 6 if ":" in source else 4
    collector = collector or COLLECTORS[version]
    addresses = {"source": address_number(source), "destination": address_number(collector)}
    udp = {"source_port": source_port, "destination_port": destination_port, "length": UDP.size + len(payload)}
    if version == 4:
        flags = {"dscp": 0, "protocol": PROTOCOL_UDP, "dont_fragment": 1}
        packet = write_ipv4(addresses | flags, options, UDP.write(udp) + payload)
        return write_ethernet(ethernet, vlan_ids, ETHERTYPE_IPV4) + packet
    if options:
        raise ValueError("only IPv4 has options")
    udp["checksum"] = udp_checksum_ipv6(addresses, UDP.write(udp) + payload)
    packet = write_ipv6(addresses | {"next_header": PROTOCOL_UDP}, UDP.write(udp) + payload)
    return write_ethernet(ethernet, vlan_ids, ETHERTYPE_IPV6) + packet


IPV6_PSEUDO = Header(("source", 128), ("destination", 128), ("length", 32), ("zero", 24), ("next_header", 8))


def udp_checksum_ipv6(addresses: dict[str, int], datagram: bytes) -> int:
    """Of a UDP datagram whose checksum field is 0 (RFC 8200); never 0, which would say that there is none."""
    pseudo = IPV6_PSEUDO.write(addresses | {"length": len(datagram), "next_header": PROTOCOL_UDP})
    return checksum(pseudo + datagram) or 0xFFFF


Spelled = list[tuple[Report, Spelling]]


def write_report_0_5(spelled: Spelled, config: Settings) -> bytes:
    """The payload of a Telemetry Report 0.5. Errors: ValueError, KeyError."""
    report, spelling = spelled[0]
    check_no_2_0(spelling)
    if spelling.report_length is not None or spelling.nproto != "ethernet":
        raise ValueError("a Telemetry Report 0.5 has no Length, and always starts with ethernet")
    local = report["local_hop"]
    nproto = 0 if local is None else 1 if "drop_reason" in local else 2
    switch = SWITCH_0_5[nproto]
    header = REPORT_0_5.write(
        {
            "version": 0,
            "nproto": nproto,
            **{name: int(report[name]) for name in ("dropped", "congested_queue", "tracked_flow")},
            **{name: report[name] for name in ("hw_id", "sequence_number", "ingress_timestamp")},
        }
    )
    if switch is not None:
        header += switch.write_item({"switch_id": report["switch_id"], **local})
    return header + write_inner(report, spelling, config)


def check_no_2_0(spelling: Spelling) -> None:
    """Errors: ValueError: it is of Telemetry Report 2.0."""
    if spelling.tlvs is not None or spelling.domain_metadata:
        raise ValueError("only Telemetry Report 2.0 has TLVs and domain specific metadata")


def metadata_bits(local: Report, items: Items) -> int:
    """The bitmap of a local hop's items."""
    return sum(0x8000 >> bit for bit, item in items.items() if item.fields[0][0] in local)


def write_report_1_0(spelled: Spelled, config: Settings) -> bytes:
    """The payload of a Telemetry Report 1.0. Errors: ValueError, KeyError."""
    report, spelling = spelled[0]
    check_no_2_0(spelling)
    local = report["local_hop"] or {}
    bitmap = metadata_bits(local, REPORT_METADATA_1_0)
    size = REPORT_1_0.size // 4 + words(bitmap, REPORT_METADATA_1_0)
    header = REPORT_1_0.write(
        {
            "version": 1,
            "length": size if spelling.report_length is None else spelling.report_length,
            "nproto": NPROTOS[spelling.nproto],
            "metadata_bits": bitmap >> 10,
            **{name: int(report[name]) for name in ("dropped", "congested_queue", "tracked_flow")},
            **{name: report[name] for name in ("hw_id", "switch_id", "sequence_number", "ingress_timestamp")},
        }
    )
    metadata = write_record(local, bitmap, REPORT_METADATA_1_0, words(bitmap, REPORT_METADATA_1_0))
    return header + metadata + write_inner(report, spelling, config)


def write_reports_2_0(spelled: Spelled, config: Settings) -> bytes:
    """The payload of a Telemetry Report 2.0. Errors: ValueError, KeyError."""
    first = spelled[0][0]
    payload = GROUP_2_0.write(
        {"version": 2, **{name: first[name] for name in ("hw_id", "sequence_number", "switch_id")}}
    )
    for at, (report, spelling) in enumerate(spelled):
        payload += write_individual(report, spelling, config, is_last=at + 1 == len(spelled))
    return payload


def write_individual(report: Report, spelling: Spelling, config: Settings, is_last: bool) -> bytes:
    """An individual report of Telemetry Report 2.0. Errors: ValueError, KeyError."""
    local = report["local_hop"]
    main = b""
    if local is not None or spelling.domain_metadata:
        bitmap = 0 if local is None else metadata_bits(local, REPORT_METADATA_2_0) or 0x8000
        size = words(bitmap, REPORT_METADATA_2_0)
        main = MAIN_INT.write({"metadata_bits": bitmap}) + write_record(local or {}, bitmap, REPORT_METADATA_2_0, size)
        main += spelling.domain_metadata
        if len(main) % 4:
            raise ValueError(f"domain specific metadata is whole words, not {len(spelling.domain_metadata)} bytes")
    in_type = IN_NOTHING
    inner = b""
    if report["flow"] is not None:
        in_type = IN_TYPES[spelling.nproto]
        inner = write_inner(report, spelling, config)
    if spelling.tlvs is not None:
        tlvs = [*spelling.tlvs, *([(TLV_TYPES[spelling.nproto], inner)] if inner else [])]
        in_type = IN_TLV
        inner = b"".join(write_tlv(*tlv) for tlv in tlvs)
    contents = main + inner
    length = spelling.report_length
    if length is None:
        length = min(-(-len(contents) // 4), TO_THE_END)
    if length == TO_THE_END and not is_last:
        raise ValueError("only the last report of a packet can be one of 255 words or more")
    if length != TO_THE_END:
        contents = pad(contents)
    header = {
        "type": MAIN_INT_TYPE if main else INNER_ONLY,
        "in_type": in_type,
        "length": length,
        "metadata_length": (len(main) - MAIN_INT.size) // 4 if main else 0,
        **{name: int(report[name]) for name in ("dropped", "congested_queue", "tracked_flow", "intermediate")},
    }
    return INDIVIDUAL.write(header) + contents


def write_tlv(kind: int, value: bytes) -> bytes:
    """A TLV of Telemetry Report 2.0, padded. Errors: ValueError."""
    return TLV.write({"type": kind, "length": -(-len(value) // 4)}) + pad(value)


def pad(data: bytes) -> bytes:
    """Whole words of it."""
    return data.ljust(-(-len(data) // 4) * 4, PADDING)


REPORT_WRITERS: Mapping[str, Callable[[Spelled, Settings], bytes]] = {
    "0.5": write_report_0_5,
    "1.0": write_report_1_0,
    "2.0": write_reports_2_0,
}
"""Telemetry Report version -> (reports and how they are written, settings) -> UDP payload."""


def write_inner(report: Report, spelling: Spelling, config: Settings) -> bytes:
    """The inner packet, from spelling.nproto's layer on. Errors: ValueError, where the flow has no such layer."""
    flow, stack, tunnels = report["flow"], report["int"], spelling.tunnels
    if any(tunnel.has_int for tunnel in tunnels[:-1]) or (tunnels and tunnels[-1].has_int and stack is None):
        raise ValueError("only the innermost encapsulation can have INT, and only a report's own")
    between = b""
    npt = NPT_NONE
    if stack is not None and not (tunnels and tunnels[-1].has_int):
        npt = spelling.npt
        between = write_int(stack, flow, config, spelling)
    after_options = (spelling.tcp_int_position or config.tcp_int_position) == "after-options"
    l4 = write_inner_l4(flow, between, spelling.payload, config, spelling.tcp_options, after_options, npt)
    packet, ethertype = write_inner_l3(flow, l4, npt)
    vlan_ids: Sequence[int] = flow["vlan_ids"]
    for tunnel in reversed(tunnels):
        if tunnel.kind == "vxlan" or (tunnel.ethernet and tunnel.kind != "mpls"):
            packet, ethertype = write_inner_ethernet(vlan_ids, ethertype) + packet, ETHERTYPE_ETHERNET
            vlan_ids = tunnel.vlan_ids
        packet, ethertype = write_tunnel(tunnel, packet, ethertype, stack, config, spelling)
    if spelling.nproto == "ethernet":
        return write_inner_ethernet(vlan_ids, ethertype) + packet
    if STARTS_WITH.get(ethertype) != spelling.nproto or vlan_ids:
        raise ValueError(
            f"a flow of IP version {flow['ip_version']} and VLANs {vlan_ids} cannot start with {spelling.nproto}"
        )
    return packet


def write_inner_ethernet(vlan_ids: Sequence[int], ethertype: int) -> bytes:
    """An inner Ethernet header, with tags."""
    header = ETHERNET.write({"destination": INNER_DESTINATION_MAC, "source": INNER_SOURCE_MAC})
    return write_ethernet(header, vlan_ids, ethertype)


def write_inner_l3(flow: Report, l4: bytes, npt: int) -> tuple[bytes, int]:
    """The inner packet from behind Ethernet on, and its EtherType. Errors: ValueError."""
    version = flow["ip_version"]
    if version is None:
        return l4, ETHERTYPE_ARP
    fields = {
        "dscp": flow["dscp"],
        "source": address_number(flow["source"]),
        "destination": address_number(flow["destination"]),
    }
    protocol = PROTOCOL_UDP if npt == NPT_PROTOCOL else flow["protocol"]
    if version == 4:
        offset = LATER_FRAGMENT if is_later_fragment(flow) else 0
        return write_ipv4(fields | {"protocol": protocol, "fragment_offset": offset}, b"", l4), ETHERTYPE_IPV4
    return write_ipv6(fields | {"next_header": protocol}, l4), ETHERTYPE_IPV6


def write_tunnel(
    tunnel: Tunnel, packet: bytes, ethertype: int, stack: Report | None, config: Settings, spelling: Spelling
) -> tuple[bytes, int]:
    """A packet of that type encapsulated, and the type of the whole. Errors: ValueError, KeyError."""
    if tunnel.kind == "mpls":
        if ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) or tunnel.has_int or not tunnel.labels:
            raise ValueError("MPLS labels, one or more, carry IP, without INT")
        labels = [LABEL.write({"label": label, "ttl": 64}) for label in tunnel.labels[:-1]]
        labels.append(LABEL.write({"label": tunnel.labels[-1], "bottom": 1, "ttl": 64}))
        return b"".join(labels) + packet, ETHERTYPE_MPLS
    body = write_int_body(stack, config, spelling) if stack is not None and tunnel.has_int else b""
    ports = {"gre": 0, "vxlan": PORT_VXLAN, "gpe": PORT_GPE, "geneve": PORT_GENEVE}
    if tunnel.kind not in ports:
        raise ValueError(f"{tunnel.kind!r} is no encapsulation")
    if tunnel.kind == "gre":
        l4 = write_gre(tunnel, ethertype, stack, body, config) + packet
    elif tunnel.kind == "geneve":
        l4 = write_geneve(tunnel, ethertype, stack, body) + packet
    else:
        l4 = write_vxlan(tunnel, ethertype, stack, body) + packet
    if tunnel.kind != "gre":
        udp = {"source_port": 49152, "destination_port": ports[tunnel.kind], "length": UDP.size + len(l4)}
        l4 = UDP.write(udp) + l4
    ends = TUNNEL_ENDS[tunnel.ip_version]
    flow = {
        "ip_version": tunnel.ip_version,
        "source": ends[0],
        "destination": ends[1],
        "protocol": PROTOCOL_GRE if tunnel.kind == "gre" else PROTOCOL_UDP,
        "source_port": 0,
        "dscp": tunnel.dscp,
    }
    return write_inner_l3(flow, l4, NPT_NONE)


def write_gre(tunnel: Tunnel, ethertype: int, stack: Report | None, body: bytes, config: Settings) -> bytes:
    """A GRE header, with INT if there is a body of it. Errors: ValueError."""
    shim = b""
    header = {
        "has_checksum": tunnel.gre_words >> 2 & 1,
        "has_key": tunnel.gre_words >> 1 & 1,
        "has_sequence": tunnel.gre_words & 1,
        "protocol": ethertype,
    }
    if stack is not None and body:
        if stack["version"] != "2.x" or not config.int_gre_protocol:
            raise ValueError("in GRE there is INT 2.x only, with a protocol configured for it")
        header["protocol"] = config.int_gre_protocol
        shim = SHIM_GRE.write({"type": int_type(stack), "length": len(body) // 4, "ethertype": ethertype})
    return GRE.write(header) + bytes(4 * tunnel.gre_words.bit_count()) + shim + body


def write_vxlan(tunnel: Tunnel, ethertype: int, stack: Report | None, body: bytes) -> bytes:
    """A header of VXLAN or VXLAN-GPE, with INT if there is a body of it. Errors: ValueError."""
    header = {"has_vni": 1, "vni": 1}
    if tunnel.kind == "vxlan":
        if body:
            raise ValueError("VXLAN cannot carry INT, VXLAN-GPE can")
        return VXLAN.write(header)
    behind = {packet: protocol for protocol, packet in NEXT_PROTOCOLS.items()}
    if ethertype not in behind:
        raise ValueError("VXLAN-GPE carries Ethernet or IP")
    following = behind[ethertype]
    shim = b""
    if stack is not None and body:
        fields = {"type": int_type(stack), "next_protocol": following}
        if stack["version"] == "2.x":
            following = NEXT_INT_2
            shim = SHIM_GPE_2.write(fields | {"length": len(body) // 4})
        else:
            following = NEXT_INT_V1
            shim = SHIM_GPE_V1.write(fields | {"length": SHIM_GPE_V1.size // 4 + len(body) // 4})
    return VXLAN.write(header | {"has_next_protocol": 1, "next_protocol": following}) + shim + body


def write_geneve(tunnel: Tunnel, ethertype: int, stack: Report | None, body: bytes) -> bytes:
    """A Geneve header, with INT if there is a body of it. Errors: ValueError."""
    options = tunnel.options
    if stack is not None and body:
        option = {"class": GENEVE_CLASS_INT, "type": int_type(stack), "length": len(body) // 4}
        options += GENEVE_OPTION.write(option) + body
    if len(options) % 4:
        raise ValueError(f"Geneve options are whole words, not {len(options)} bytes")
    return GENEVE.write({"options_length": len(options) // 4, "protocol": ethertype, "vni": 1}) + options


def is_later_fragment(flow: Report) -> bool:
    """Whether a flow has no ports although its protocol has."""
    return flow["protocol"] in (PROTOCOL_TCP, PROTOCOL_UDP) and flow["source_port"] is None


def write_inner_l4(
    flow: Report, between: bytes, payload: bytes, config: Settings, tcp_options: bytes, after_options: bool, npt: int
) -> bytes:
    """From the inner UDP or TCP header on; only payload for a flow without ports. between: INT. Errors: ValueError."""
    if npt == NPT_PORT and flow["protocol"] != PROTOCOL_UDP:
        raise ValueError("only UDP has a port that signals INT")
    if npt == NPT_PROTOCOL:
        if is_later_fragment(flow):
            raise ValueError("a UDP header cannot stand in front of a later fragment")
        original = write_inner_l4(flow, b"", payload, config, tcp_options, after_options, NPT_NONE)
        new = {"source_port": flow["source_port"] or 0, "destination_port": config.int_udp_port}
        return UDP.write(new | {"length": UDP.size + len(between) + len(original)}) + between + original
    if flow["source_port"] is None:
        if between:
            raise ValueError("INT needs a UDP or TCP header to follow")
        if is_later_fragment(flow) and flow["ip_version"] == 6:
            raise ValueError("a later fragment of IPv6 is not told as UDP or TCP")
        return payload
    ports = {"source_port": flow["source_port"], "destination_port": flow["destination_port"]}
    if flow["protocol"] == PROTOCOL_UDP:
        if npt == NPT_PORT:
            ports["destination_port"] = config.int_udp_port
        return UDP.write(ports | {"length": UDP.size + len(between) + len(payload)}) + between + payload
    if len(tcp_options) % 4 or len(tcp_options) > 40:
        raise ValueError(f"TCP options are at most ten whole words, not {len(tcp_options)} bytes")
    tcp = TCP.write(ports | {"data_offset": 5 + len(tcp_options) // 4, "flags": 0x18, "window": 0x2000})
    return tcp + (tcp_options + between if after_options else between + tcp_options) + payload


def int_type(stack: Report) -> int:
    """The type that a shim, or a Geneve option, gives a stack."""
    return TYPE_MX if stack["mode"] == "MX" else TYPE_MD


def write_int(stack: Report, flow: Report, config: Settings, spelling: Spelling) -> bytes:
    """Shim, header and stack (and what else belongs to them) of INT behind L4. Errors: ValueError, KeyError."""
    if spelling.npt and stack["version"] != "2.x":
        raise ValueError(f"INT {stack['version']} has no NPT")
    body = write_int_body(stack, config, spelling)
    if stack["version"] == "2.x":
        by_npt = {NPT_NONE: 0, NPT_PORT: flow["destination_port"], NPT_PROTOCOL: flow["protocol"]}
        if spelling.npt not in by_npt:
            raise ValueError(f"NPT {spelling.npt} is not defined")
        shim = {"type": int_type(stack), "npt": spelling.npt, "by_npt": by_npt[spelling.npt]}
        return SHIM_2.write(shim | {"length": len(body) // 4}) + body
    if stack["version"] == "0.5":
        body += TAIL_0_5.write({"protocol": flow["protocol"], "destination_port": flow["destination_port"]})
    return SHIM_V1.write({"type": TYPE_MD, "length": SHIM_V1.size // 4 + len(body) // 4}) + body


def write_int_body(stack: Report, config: Settings, spelling: Spelling) -> bytes:
    """Header and stack of a report's `int`, the same wherever they stand. Errors: ValueError, KeyError."""
    if stack["hop_count"] != len(stack["hops"]):
        raise ValueError(f"{stack['hop_count']} hops are said to be there, {len(stack['hops'])} are")
    bitmap = int(stack["instruction_bitmap"], 16)
    if stack["version"] == "1.0":
        return write_int_1_0(stack, bitmap, config.profile, 0 if spelling.int_version_0 else 1)
    if stack["version"] == "0.5":
        return write_int_0_5(stack, bitmap)
    if stack["version"] == "2.x":
        source_only = dict(config.source_only_words).get(spelling.domain_id, 0)
        return write_int_2(stack, bitmap, spelling.domain_id, source_only)
    raise ValueError(f"cannot encode INT {stack['version']!r}")


def write_records(stack: Report, bitmap: int, items: Items, stride: int) -> bytes:
    """The hops' words."""
    return b"".join(write_record(hop, bitmap, items, stride) for hop in stack["hops"])


def write_int_1_0(stack: Report, bitmap: int, profile: str, version: int) -> bytes:
    """Header and stack of INT 1.0, as an exporter of this profile lays them out."""
    items = ITEMS_1_0_BY_PROFILE[profile]
    header = {name: stack[name] for name in ("hop_ml", "remaining_hop_count")}
    return INT_1_0.write(header | {"version": version, "instruction_bitmap": bitmap}) + write_records(
        stack, bitmap, items, words(bitmap, items)
    )


def write_int_0_5(stack: Report, bitmap: int) -> bytes:
    """Header and stack of INT 0.5."""
    if not bitmap:
        raise ValueError("INT 0.5 without instructions cannot be told from INT 1.0")
    stride = words(bitmap, ITEMS_0_5)
    header = {
        "instruction_count": stride,
        "max_hop_count": ones(8),
        "total_hop_count": len(stack["hops"]),
        "instruction_bitmap": bitmap,
    }
    return INT_0_5.write(header) + write_records(stack, bitmap, ITEMS_0_5, stride)


def write_int_2(stack: Report, bitmap: int, domain_id: int, source_only: int) -> bytes:
    """Header and stack of INT 2.x, MD or MX. source_only: words the source puts behind the stack, here all ones."""
    header = {"version": 2, "instruction_bitmap": bitmap, "domain_id": domain_id}
    records = b""
    if stack["mode"] == "MD":
        header |= {name: stack[name] for name in ("hop_ml", "remaining_hop_count")}
        records = write_records(stack, bitmap, ITEMS_2, stack["hop_ml"]) + b"\xff" * 4 * source_only
    return INT_2.write(header) + records


# --- Damage -----------------------------------------------------------------------------------------------------------

TELLING_BYTES = (0x00, 0x01, 0x02, 0x03, 0x04, 0x0F, 0x10, 0x11, 0x20, 0x45, 0x60, 0x7F, 0x80, 0x81, 0xF0, 0xFE, 0xFF)


def mutations(frame: bytes, count: int, seed: int) -> Iterator[bytes]:
    """count damaged copies of a frame, the same ones for the same seed. Some may be equal to it. Errors: ValueError."""
    if not frame:
        raise ValueError("an empty frame cannot be damaged")
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.choice(MUTATIONS)(frame, chance)


def change_byte(frame: bytes, chance: random.Random) -> bytes:
    """One byte is another: a telling number, a flipped bit, one more or less, or anything."""
    at = chance.randrange(len(frame))
    old = frame[at]
    new = chance.choice(
        (
            chance.choice(TELLING_BYTES),
            old ^ 1 << chance.randrange(8),
            (old + chance.choice((-1, 1))) % 256,
            chance.randrange(256),
        )
    )
    return frame[:at] + bytes((new,)) + frame[at + 1 :]


def change_bytes(frame: bytes, chance: random.Random) -> bytes:
    """Two to eight bytes change, wherever they are."""
    for _ in range(chance.randint(2, 8)):
        frame = change_byte(frame, chance)
    return frame


def overwrite(frame: bytes, chance: random.Random) -> bytes:
    """A run of bytes becomes zeros, ones or noise."""
    at = chance.randrange(len(frame))
    size = min(chance.choice((2, 4, 8, 16)), len(frame) - at)
    run = chance.choice((b"\0" * size, b"\xff" * size, chance.randbytes(size)))
    return frame[:at] + run + frame[at + size :]


def cut(frame: bytes, chance: random.Random) -> bytes:
    """The end is missing; the lengths still claim it."""
    return frame[: chance.randrange(len(frame))]


def cut_and_fit(frame: bytes, chance: random.Random) -> bytes:
    """The end is missing, and the outer lengths agree."""
    return fit_lengths(cut(frame, chance))


def insert(frame: bytes, chance: random.Random) -> bytes:
    """One to sixteen bytes are put in somewhere."""
    at = chance.randrange(len(frame) + 1)
    return frame[:at] + chance.randbytes(chance.choice((1, 2, 4, 8, 16))) + frame[at:]


def insert_and_fit(frame: bytes, chance: random.Random) -> bytes:
    """... and the outer lengths agree."""
    return fit_lengths(insert(frame, chance))


def remove(frame: bytes, chance: random.Random) -> bytes:
    """One to sixteen bytes are taken out somewhere, and the outer lengths agree."""
    at = chance.randrange(len(frame))
    return fit_lengths(frame[:at] + frame[at + chance.choice((1, 2, 4, 8, 16)) :])


def change_byte_of_cut(frame: bytes, chance: random.Random) -> bytes:
    """The end is missing, the outer lengths agree, and one byte of what is left changed."""
    return change_byte(cut_and_fit(frame, chance) or frame, chance)


MUTATIONS = (
    change_byte, change_byte, change_byte, change_bytes, overwrite, cut, cut_and_fit, insert, insert_and_fit, remove,
    change_byte_of_cut,
)  # fmt: skip


def fit_lengths(frame: bytes) -> bytes:
    """A frame with the outer IP and UDP lengths (and IPv4 checksum) of what is there; as it is, where it has none."""
    try:
        ethertype, _, at = read_ethernet(frame, 0, short="pass_short_l2", too_deep="pass_vlan_depth")
        if ethertype == ETHERTYPE_IPV4:
            ip = IPV4.read(frame, at, "pass_short_l3")
            udp_at = at + ip["ihl"] * 4
            udp = UDP.read(frame, udp_at, "pass_short_l4")
            ip |= {"total_length": len(frame) - at, "checksum": 0}
            options = frame[at + IPV4.size : udp_at]
            ip["checksum"] = checksum(IPV4.write(ip) + options)
            head = frame[:at] + IPV4.write(ip) + options
        elif ethertype == ETHERTYPE_IPV6:
            ip = IPV6.read(frame, at, "pass_short_l3")
            udp_at = at + IPV6.size
            udp = UDP.read(frame, udp_at, "pass_short_l4")
            head = frame[:at] + IPV6.write(ip | {"payload_length": len(frame) - udp_at})
        else:
            return frame
    except Refused:
        return frame
    return head + UDP.write(udp | {"length": len(frame) - udp_at}) + frame[udp_at + UDP.size :]
