"""The specifications in Python: a frame -> reports (decode), a report -> frame (encode). Slow and obvious: the oracle.

Telemetry Report 1.0 with INT 0.5, 1.0 and 2.x. Written apart from the kernel program, so that the two can be held
against each other; `mutations` makes the frames to do that with. The order of the checks is docs/wire.md's, whose step
numbers stand in the docstrings.

A header is a line of (name, bits), as its specification draws it, and is read and written by the same line. Above
them everything is a dict in the shape that tests/data/README.md describes.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from .layout import MAX_HOPS

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

    def read(self, data: bytes, at: int, missing: str) -> dict[str, int]:
        """The fields' numbers. Errors: Refused(missing), where data ends before the header does."""
        if at + self.size > len(data):
            raise Refused(missing)
        number = int.from_bytes(data[at : at + self.size], "big")
        values = {}
        shift = self.size * 8
        for name, width in self.fields:
            shift -= width
            if name:
                values[name] = number >> shift & ones(width)
        return values

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
        widths = dict(self.fields)
        return {n: None if v == ones(widths[n]) else v for n, v in self.read(data, at, "trunc_stack").items()}

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
MAX_TAGS = 2
PROTOCOL_TCP, PROTOCOL_UDP, NEXT_HEADER_FRAGMENT = 6, 17, 44

# --- Telemetry Report 1.0 ---------------------------------------------------------------------------------------------

REPORT_1_0 = Header(
    ("version", 4), ("length", 4), ("nproto", 3), ("metadata_bits", 6), ("reserved", 6),
    ("dropped", 1), ("congested_queue", 1), ("tracked_flow", 1), ("hw_id", 6),
    ("switch_id", 32),
    ("sequence_number", 32),
    ("ingress_timestamp", 32),
)  # fmt: skip
NPROTO_ETHERNET, NPROTO_IPV4, NPROTO_IPV6 = 0, 1, 2

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
    """{"outcome": one of layout.OUTCOMES, "reports": [report, ...]}; no reports unless ok. Never raises."""
    try:
        payload, source = read_outer(frame, config)
        first = FIRST_WORD.read(payload, 0, "trunc_report")
        read_reports = REPORT_READERS.get(first["b0"] >> 4)
        if read_reports is None:
            raise Refused("bad_report_ver")
        return {"outcome": "ok", "reports": read_reports(payload, source, config)}
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


def read_report_1_0(payload: bytes, source: str, config: Settings) -> list[Report]:
    """The one report of a Telemetry Report 1.0 payload (steps 7 to 17). Errors: Refused."""
    header = REPORT_1_0.read(payload, 0, "trunc_report")
    bitmap = header["metadata_bits"] << 10
    length = 4 if header["length"] == 1 and config.accepts_report_length_1 else header["length"]
    if length < REPORT_1_0.size // 4 + words(bitmap, REPORT_METADATA_1_0):
        raise Refused("bad_report_len")
    if length * 4 > len(payload):
        raise Refused("trunc_report_md")
    if header["nproto"] not in INNER_READERS:
        raise Refused("unsupported_nproto")
    # Length may promise more words than the bits we know need: they lie behind those, and are skipped.
    local_hop = read_metadata(payload[REPORT_1_0.size : length * 4], bitmap, REPORT_METADATA_1_0) if bitmap else None
    flow, stack = INNER_READERS[header["nproto"]](payload, length * 4, config)
    return [
        {
            "version": "1.0",
            "source": source,
            "switch_id": header["switch_id"],
            "hw_id": header["hw_id"],
            "sequence_number": header["sequence_number"],
            "ingress_timestamp": header["ingress_timestamp"],
            "dropped": bool(header["dropped"]),
            "congested_queue": bool(header["congested_queue"]),
            "tracked_flow": bool(header["tracked_flow"]),
            "intermediate": False,
            "local_hop": local_hop,
            "flow": flow,
            "int": stack,
        }
    ]


REPORT_READERS: Mapping[int, Callable[[bytes, str, Settings], list[Report]]] = {1: read_report_1_0}
"""Version nibble -> (UDP payload, source address, settings) -> its reports."""

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


def read_inner_ethernet(data: bytes, at: int, config: Settings) -> FlowAndStack:
    """Flow and INT of a packet that starts with Ethernet (step 8). Errors: Refused."""
    ethertype, vlan_ids, at = read_ethernet(data, at, short="trunc_inner", too_deep="bad_inner_vlan")
    if ethertype == ETHERTYPE_IPV4:
        flow, stack = read_inner_ipv4(data, at, config)
    elif ethertype == ETHERTYPE_IPV6:
        flow, stack = read_inner_ipv6(data, at, config)
    else:
        return no_flow(vlan_ids), None
    return flow | {"vlan_ids": vlan_ids}, stack


def read_inner_ipv4(data: bytes, at: int, config: Settings) -> FlowAndStack:
    """... that starts with IPv4 (step 9). Its total length is not looked at: mirrors truncate. Errors: Refused."""
    ip = IPV4.read(data, at, "trunc_inner")
    if ip["version"] != 4 or ip["ihl"] < 5:
        raise Refused("bad_inner_ip")
    if at + ip["ihl"] * 4 > len(data):
        raise Refused("trunc_inner")
    flow = ip_flow(ip, ip["protocol"])
    if ip["fragment_offset"]:
        return flow, None
    return read_inner_l4(data, at + ip["ihl"] * 4, flow, config)


def read_inner_ipv6(data: bytes, at: int, config: Settings) -> FlowAndStack:
    """... that starts with IPv6 (step 9). Extension headers are not walked. Errors: Refused."""
    ip = IPV6.read(data, at, "trunc_inner")
    if ip["version"] != 6:
        raise Refused("bad_inner_ip")
    return read_inner_l4(data, at + IPV6.size, ip_flow(ip, ip["next_header"]), config)


INNER_READERS: Mapping[int, Callable[[bytes, int, Settings], FlowAndStack]] = {
    NPROTO_ETHERNET: read_inner_ethernet,
    NPROTO_IPV4: read_inner_ipv4,
    NPROTO_IPV6: read_inner_ipv6,
}


def ip_flow(ip: dict[str, int], protocol: int) -> Report:
    """The flow an IP header tells, without ports."""
    return no_flow([]) | {
        "ip_version": ip["version"],
        "source": address(ip["version"], ip["source"]),
        "destination": address(ip["version"], ip["destination"]),
        "protocol": protocol,
        "dscp": ip["dscp"],
    }


def read_inner_l4(data: bytes, at: int, flow: Report, config: Settings) -> FlowAndStack:
    """Ports, and whether there is INT (steps 10 and 11). Errors: Refused."""
    if flow["protocol"] == PROTOCOL_UDP:
        l4 = UDP.read(data, at, "trunc_inner")
    elif flow["protocol"] == PROTOCOL_TCP:
        l4 = TCP.read(data, at, "trunc_inner")
        if l4["data_offset"] < 5:
            raise Refused("bad_inner_tcp")
    else:
        return flow, None
    flow = flow | {"source_port": l4["source_port"], "destination_port": l4["destination_port"]}
    if flow["protocol"] == PROTOCOL_UDP and l4["destination_port"] == config.int_udp_port:
        signalled = True
    elif config.int_dscp is not None:
        value, mask = config.int_dscp
        signalled = flow["dscp"] & mask == value
        if not signalled:
            return flow, None
    else:
        signalled = False
    try:
        if flow["protocol"] == PROTOCOL_UDP:
            return read_int(data, at + UDP.size, flow, config)
        return read_int(data, int_start_in_tcp(data, at, l4["data_offset"], config), flow, config)
    except Refused:
        if signalled:
            raise
        return flow, None  # nothing said that there is INT, and what is there is not


def int_start_in_tcp(data: bytes, at: int, data_offset: int, config: Settings) -> int:
    """Where INT starts in a TCP packet whose header starts at at (step 12). Errors: Refused."""
    before, after = at + TCP.size, at + data_offset * 4
    if config.tcp_int_position == "auto":
        start = before if data_offset == 5 or looks_like_shim(data, before) else after
    else:
        start = before if config.tcp_int_position == "before-options" else after
    if start > len(data):
        raise Refused("trunc_inner")
    return start


def looks_like_shim(data: bytes, at: int) -> bool:
    """Whether the 4 bytes at at are a shim rather than TCP options (step 12)."""
    if at + FIRST_WORD.size > len(data):
        return False
    b0, b1, b2 = data[at : at + 3]
    return (b0 in (1, 2) and b1 == 0 and b2 >= 3) or (b0 in (0x10, 0x20, 0x30) and b1 >= 3)


def read_int(data: bytes, at: int, flow: Report, config: Settings) -> FlowAndStack:
    """The flow, with what the shim at at says about it, and the stack behind (steps 13 to 17). Errors: Refused."""
    b0 = FIRST_WORD.read(data, at, "trunc_shim")["b0"]
    if b0 in (TYPE_MD, TYPE_DESTINATION):
        return flow, read_int_behind_shim_v1(data, at, config)
    v2 = SHIM_2.read(data, at, "trunc_shim")
    if v2["reserved"] or v2["type"] not in (TYPE_MD, TYPE_DESTINATION, TYPE_MX) or v2["npt"] > NPT_PROTOCOL:
        raise Refused("bad_shim_type")
    stack = read_int_2(data, at, v2, config)
    if stack is not None:
        flow = original_flow(data, at, v2, flow)
    return flow, stack


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


def read_int_behind_shim_v1(data: bytes, at: int, config: Settings) -> Report | None:
    """INT 0.5 or 1.0, or None behind a destination-type shim. Errors: Refused."""
    shim = SHIM_V1.read(data, at, "trunc_shim")
    if shim["type"] == TYPE_DESTINATION:
        return None
    if shim["length"] < 3:
        raise Refused("bad_shim_len")
    header_at = at + SHIM_V1.size
    header = INT_1_0.read(data, header_at, "trunc_md_hdr")
    if header["version"] == 0 and data[header_at + 1] & 0x7F:  # reserved in 1.0; the Ins Cnt of 0.5, which is not 0
        return read_int_0_5(data, at, shim["length"])
    if header["version"] > 1 or (header["version"] == 0 and config.reject_int_version_0):
        raise Refused("bad_int_ver")
    bitmap, hop_ml, stack_words = header["instruction_bitmap"], header["hop_ml"], shim["length"] - 3
    items = ITEMS_1_0_BY_PROFILE[config.profile]
    check_not_zero(hop_ml, bitmap, stack_words)
    stride = words(bitmap, items)
    if hop_ml != hop_ml_1_0(bitmap, config.profile):
        raise Refused("hop_ml_mismatch")
    record_at = header_at + INT_1_0.size
    check_stack(stack_words, stride, record_at + stack_words * 4, data)
    return {
        "version": "1.0",
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": hop_ml,
        "remaining_hop_count": header["remaining_hop_count"],
    } | read_stack(data, record_at, stack_words, stride, bitmap, items)


def hop_ml_1_0(bitmap: int, profile: str) -> int:
    """The Hop ML that an exporter of this profile sends with a bitmap."""
    return len(bits(bitmap)) if profile == "onos" else words(bitmap, ITEMS_1_0_BY_PROFILE[profile])


def read_int_0_5(data: bytes, at: int, length: int) -> Report:
    """INT 0.5, whose shim starts at at. Errors: Refused."""
    header = INT_0_5.read(data, at + SHIM_V1.size, "trunc_md_hdr")
    if length < 4:
        raise Refused("bad_shim_len")
    bitmap, stride, stack_words = header["instruction_bitmap"], header["instruction_count"], length - 4
    if stride != words(bitmap, ITEMS_0_5):
        raise Refused("bad_ins_cnt")
    check_not_zero(stride, bitmap, stack_words)
    record_at = at + SHIM_V1.size + INT_0_5.size
    check_stack(stack_words, stride, record_at + stack_words * 4 + TAIL_0_5.size, data)
    return {
        "version": "0.5",
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": None,
        "remaining_hop_count": None,
    } | read_stack(data, record_at, stack_words, stride, bitmap, ITEMS_0_5)


def read_int_2(data: bytes, at: int, shim: dict[str, int], config: Settings) -> Report | None:
    """INT 2.x, MD or MX, or None behind a destination-type shim. Errors: Refused."""
    if shim["type"] == TYPE_DESTINATION:
        return None
    if shim["length"] < 3:
        raise Refused("bad_shim_len")
    header_at = at + SHIM_2.size
    header = INT_2.read(data, header_at, "trunc_md_hdr")
    if header["version"] != 2:
        raise Refused("bad_int_ver")
    bitmap, hop_ml = header["instruction_bitmap"], header["hop_ml"]
    if shim["type"] == TYPE_MX:
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
    stack_words = shim["length"] - 3 - source_only
    if stack_words < 0:
        raise Refused("stack_not_multiple")
    check_not_zero(hop_ml, bitmap, stack_words)
    baseline = words(bitmap, ITEMS_2)
    if hop_ml < baseline or (hop_ml > baseline and header["domain_id"] == 0):  # what is more is domain specific
        raise Refused("hop_ml_mismatch")
    record_at = header_at + INT_2.size
    check_stack(stack_words, hop_ml, record_at + (stack_words + source_only) * 4, data)
    return {
        "version": "2.x",
        "mode": "MD",
        "instruction_bitmap": f"0x{bitmap:04x}",
        "hop_ml": hop_ml,
        "remaining_hop_count": header["remaining_hop_count"],
    } | read_stack(data, record_at, stack_words, hop_ml, bitmap, ITEMS_2)


def check_not_zero(hop_ml: int, bitmap: int, stack_words: int) -> None:
    """Hops of no words are possible only where nothing is asked for and nothing is there (step 15). Errors: Refused."""
    if hop_ml == 0 and (stack_words or bitmap):
        raise Refused("hop_ml_zero")


def check_stack(stack_words: int, stride: int, stack_end: int, data: bytes) -> None:
    """Whole hops (step 17), and all inside (step 16), in this order. Errors: Refused."""
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
NPROTOS = {"ethernet": NPROTO_ETHERNET, "ipv4": NPROTO_IPV4, "ipv6": NPROTO_IPV6}


def encode(
    report: Report,
    config: Settings,
    *,
    source_mac: bytes = SOURCE_MAC,
    destination_mac: bytes = DESTINATION_MAC,
    outer_vlans: Sequence[int] = (),
    outer_options: bytes = b"",
    collector: str | None = None,
    udp_source_port: int = 0,
    destination_port: int | None = None,
    report_length: int | None = None,
    nproto: str = "ethernet",
    tcp_options: bytes = b"",
    tcp_int_position: str | None = None,
    int_version_0: bool = False,
    npt: int = NPT_NONE,
    domain_id: int = 0,
    payload: bytes = b"",
) -> bytes:
    """The Ethernet frame of a report: decode's inverse, for Telemetry Report 1.0.

    As many hops are written as there are, more than MAX_HOPS too; `latency` is not looked at.

    outer_vlans: ids outermost first, at most two for decode to read them. outer_options: of IPv4, whole words.
    collector: the outer destination address. destination_port: the first configured one by default.
    report_length: the Length field, where it is to differ from the truth (1: what INTCollector's generator writes).
    nproto: "ethernet", "ipv4" or "ipv6", what the inner packet starts with. tcp_options: whole words.
    tcp_int_position: "before-options" or "after-options"; by default as configured, and before them where that is auto.
    int_version_0: as ONOS writes it. npt, domain_id: of INT 2.x (NPT 1: the UDP port signals INT, 2: a UDP header in
    front of the original one does). payload: what follows the stack, or without one the flow's last header.

    Outer lengths and checksums are right (UDP: 0 with IPv4); of the inner ones, UDP and TCP have no checksum.
    Errors: ValueError, KeyError: the report is not one that these headers can carry.
    """
    if report["version"] not in REPORT_WRITERS:
        raise ValueError(f"cannot encode a Telemetry Report {report['version']!r}")
    position = tcp_int_position or config.tcp_int_position
    stack, flow = report["int"], report["flow"]
    between = b"" if stack is None else write_int(stack, flow, config, int_version_0, npt, domain_id)
    l4 = write_inner_l4(flow, between, payload, config, tcp_options, position == "after-options", npt if between else 0)
    inner = write_inner(flow, l4, nproto, npt if between else 0)
    return write_outer(
        report["source"],
        collector,
        REPORT_WRITERS[report["version"]](report, inner, nproto, report_length),
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
    total = sum(number(data[i : i + 2].ljust(2, b"\0")) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


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


def write_report_1_0(report: Report, inner: bytes, nproto: str, length: int | None) -> bytes:
    """Telemetry Report 1.0 around an inner packet. Errors: ValueError."""
    local = report["local_hop"] or {}
    bitmap = sum(0x8000 >> bit for bit, item in REPORT_METADATA_1_0.items() if item.fields[0][0] in local)
    size = REPORT_1_0.size // 4 + words(bitmap, REPORT_METADATA_1_0)
    header = REPORT_1_0.write(
        {
            "version": 1,
            "length": size if length is None else length,
            "nproto": NPROTOS[nproto],
            "metadata_bits": bitmap >> 10,
            **{name: int(report[name]) for name in ("dropped", "congested_queue", "tracked_flow")},
            **{name: report[name] for name in ("hw_id", "switch_id", "sequence_number", "ingress_timestamp")},
        }
    )
    return header + write_record(local, bitmap, REPORT_METADATA_1_0, words(bitmap, REPORT_METADATA_1_0)) + inner


REPORT_WRITERS: Mapping[str, Callable[[Report, bytes, str, int | None], bytes]] = {"1.0": write_report_1_0}
"""Telemetry Report version -> (report, inner packet, what that starts with, Length or None: the true one) -> bytes."""


def write_inner(flow: Report, l4: bytes, nproto: str, npt: int) -> bytes:
    """The inner packet, from nproto's layer on. Errors: ValueError, where the flow has no such layer."""
    version = flow["ip_version"]
    if nproto != "ethernet" and (nproto != f"ipv{version}" or flow["vlan_ids"]):
        raise ValueError(f"a flow of IP version {version} and VLANs {flow['vlan_ids']} cannot start with {nproto}")
    ethernet = ETHERNET.write({"destination": INNER_DESTINATION_MAC, "source": INNER_SOURCE_MAC})
    if version is None:
        return write_ethernet(ethernet, flow["vlan_ids"], ETHERTYPE_ARP) + l4
    fields = {
        "dscp": flow["dscp"],
        "source": address_number(flow["source"]),
        "destination": address_number(flow["destination"]),
    }
    protocol = PROTOCOL_UDP if npt == NPT_PROTOCOL else flow["protocol"]
    if version == 4:
        offset = LATER_FRAGMENT if is_later_fragment(flow) else 0
        packet = write_ipv4(fields | {"protocol": protocol, "fragment_offset": offset}, b"", l4)
        ethertype = ETHERTYPE_IPV4
    else:
        packet = write_ipv6(fields | {"next_header": protocol}, l4)
        ethertype = ETHERTYPE_IPV6
    return packet if nproto != "ethernet" else write_ethernet(ethernet, flow["vlan_ids"], ethertype) + packet


def is_later_fragment(flow: Report) -> bool:
    """Whether a flow has no ports although its protocol has."""
    return flow["protocol"] in (PROTOCOL_TCP, PROTOCOL_UDP) and flow["source_port"] is None


def write_inner_l4(
    flow: Report, between: bytes, payload: bytes, config: Settings, tcp_options: bytes, after_options: bool, npt: int
) -> bytes:
    """From the inner UDP or TCP header on; only payload for a flow without ports. between: INT. Errors: ValueError."""
    if npt not in (NPT_NONE, NPT_PORT, NPT_PROTOCOL):
        raise ValueError(f"NPT {npt} is not defined")
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


def write_int(stack: Report, flow: Report, config: Settings, int_version_0: bool, npt: int, domain_id: int) -> bytes:
    """Shim, header and stack (and what else belongs to them) of a report's `int`. Errors: ValueError, KeyError."""
    if stack["hop_count"] != len(stack["hops"]):
        raise ValueError(f"{stack['hop_count']} hops are said to be there, {len(stack['hops'])} are")
    if npt and stack["version"] != "2.x":
        raise ValueError(f"INT {stack['version']} has no NPT")
    bitmap = int(stack["instruction_bitmap"], 16)
    if stack["version"] == "1.0":
        return write_int_1_0(stack, bitmap, config.profile, 0 if int_version_0 else 1)
    if stack["version"] == "0.5":
        return write_int_0_5(stack, bitmap, flow)
    if stack["version"] == "2.x":
        by_npt = {NPT_NONE: 0, NPT_PORT: flow["destination_port"], NPT_PROTOCOL: flow["protocol"]}[npt]
        source_only = dict(config.source_only_words).get(domain_id, 0)
        return write_int_2(stack, bitmap, npt, by_npt, domain_id, source_only)
    raise ValueError(f"cannot encode INT {stack['version']!r}")


def write_records(stack: Report, bitmap: int, items: Items, stride: int) -> bytes:
    """The hops' words."""
    return b"".join(write_record(hop, bitmap, items, stride) for hop in stack["hops"])


def write_int_1_0(stack: Report, bitmap: int, profile: str, version: int) -> bytes:
    """INT 1.0 as an exporter of this profile lays it out."""
    items = ITEMS_1_0_BY_PROFILE[profile]
    records = write_records(stack, bitmap, items, words(bitmap, items))
    header = {name: stack[name] for name in ("hop_ml", "remaining_hop_count")}
    return (
        SHIM_V1.write({"type": TYPE_MD, "length": 3 + len(records) // 4})
        + INT_1_0.write(header | {"version": version, "instruction_bitmap": bitmap})
        + records
    )


def write_int_0_5(stack: Report, bitmap: int, flow: Report) -> bytes:
    """INT 0.5, with its tail."""
    if not bitmap:
        raise ValueError("INT 0.5 without instructions cannot be told from INT 1.0")
    stride = words(bitmap, ITEMS_0_5)
    records = write_records(stack, bitmap, ITEMS_0_5, stride)
    header = {
        "instruction_count": stride,
        "max_hop_count": ones(8),
        "total_hop_count": len(stack["hops"]),
        "instruction_bitmap": bitmap,
    }
    return (
        SHIM_V1.write({"type": TYPE_MD, "length": 4 + len(records) // 4})
        + INT_0_5.write(header)
        + records
        + TAIL_0_5.write({"protocol": flow["protocol"], "destination_port": flow["destination_port"]})
    )


def write_int_2(stack: Report, bitmap: int, npt: int, by_npt: int, domain_id: int, source_only: int) -> bytes:
    """INT 2.x, MD or MX. source_only: how many words the source puts behind the stack, here all ones."""
    header = {"version": 2, "instruction_bitmap": bitmap, "domain_id": domain_id}
    records = b""
    if stack["mode"] == "MD":
        header |= {name: stack[name] for name in ("hop_ml", "remaining_hop_count")}
        records = write_records(stack, bitmap, ITEMS_2, stack["hop_ml"]) + b"\xff" * 4 * source_only
    kind = TYPE_MD if stack["mode"] == "MD" else TYPE_MX
    shim = {"type": kind, "npt": npt, "length": 3 + len(records) // 4, "by_npt": by_npt}
    return SHIM_2.write(shim) + INT_2.write(header) + records


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
