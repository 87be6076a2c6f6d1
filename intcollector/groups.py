"""A packet of many individual reports (Telemetry Report 2.0) -> packets of one report each."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from . import wire

GROUP_HEADER = 8
TLV, FIRST_PACKET_IN_TYPE = 1, 3
"""InTypes: a list of TLVs; Ethernet, IPv4 and IPv6 follow one another, as TLV types 1 to 3 do."""
END_OF_PAYLOAD = 0xFF
"""As a Report Length."""


def parts(frame: bytes) -> Iterator[bytes]:
    """A frame for each individual report of a frame that wire.decode() accepts, in order; each means what its report
    does. A report whose inner packet stands among TLVs becomes one with that packet alone. Checksums are not right: the
    frames go to the program, which does not look at them."""
    ethertype, _, ip_at = wire.read_ethernet(frame, 0, short="pass_short_l2", too_deep="pass_vlan_depth")
    is_ipv4 = ethertype == wire.ETHERTYPE_IPV4
    udp_at = ip_at + ((frame[ip_at] & 15) * 4 if is_ipv4 else wire.IPV6.size)
    payload = udp_at + wire.UDP.size
    end = udp_at + int.from_bytes(frame[udp_at + 4 : udp_at + 6], "big")
    head, at = bytearray(frame[: payload + GROUP_HEADER]), payload + GROUP_HEADER
    while at + 4 <= end:
        b0, length, md_length = frame[at], frame[at + 1], frame[at + 2]
        following = end if length == END_OF_PAYLOAD else at + 4 + length * 4
        report = frame[at:following]
        if b0 >> 4 <= 1 and b0 & 15 == TLV:
            contents = 4 if b0 >> 4 == 0 else 12 + md_length * 4
            report = _without_tlvs(report, contents)
        size = len(head) + len(report)
        struct.pack_into(">H", head, udp_at + 4, size - udp_at)
        struct.pack_into(">H", head, ip_at + (2 if is_ipv4 else 4), size - (ip_at if is_ipv4 else udp_at))
        yield bytes(head) + report
        at = following


def _without_tlvs(report: bytes, contents: int) -> bytes:
    """An individual report whose TLVs begin at contents."""
    at, in_type, packet = contents, 0, b""
    while at + 4 <= len(report):
        kind, size = report[at] >> 4, report[at + 1] * 4
        if 1 <= kind <= 3:
            in_type, packet = FIRST_PACKET_IN_TYPE + kind - 1, report[at + 4 : at + 4 + size]
            break
        at += 4 + size
    words = (contents - 4 + len(packet)) // 4
    return bytes((report[0] & 0xF0 | in_type, min(words, END_OF_PAYLOAD))) + report[2:contents] + packet
