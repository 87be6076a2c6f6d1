"""Frames as exporters in the field send them, quirks and all, put together byte by byte.

Witnesses: nothing of this project is used here. Four exporters are classes, because they count what they send:
FabricTna, Onos, Geant, NoviFlow. Others, of which a frame is enough, are functions. Numbers are in the units of the
exporter.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence

TCP, UDP = 6, 17
COLLECTOR = "192.0.2.254"
MACS = bytes.fromhex("020000000001020000000002")
INNER_MACS = bytes.fromhex("00aa0000000200aa00000001")
TIMESTAMPS_AND_NOPS = bytes.fromhex("0101080a0102030405060708")
"""What a TCP connection usually has for options."""


# --- packets ----------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """Of the internet protocols."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: str, destination: str, protocol: int, size: int, *, dscp: int = 0, identification: int = 0, flags: int = 0
) -> bytes:
    """An IPv4 header in front of so many bytes. flags: 2 is Don't Fragment."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    fields = (0x45, dscp << 2, 20 + size, identification, flags << 13, 64, protocol)
    sum_ = checksum(struct.pack("!BBHHHBBH", *fields, 0) + addresses)
    return struct.pack("!BBHHHBBH", *fields, sum_) + addresses


def report(
    address: str,
    port: int,
    payload: bytes,
    *,
    source_port: int = 0,
    identification: int = 0,
    flags: int = 0,
    checked: bool = True,
    trailer: bytes = b"",
) -> bytes:
    """The frame of a report. checked: with a UDP checksum. trailer: bytes behind what the lengths count."""
    udp = struct.pack("!HHH", source_port, port, 8 + len(payload))
    ip = ipv4(address, COLLECTOR, UDP, 8 + len(payload), identification=identification, flags=flags)
    pseudo_header = ip[12:] + struct.pack("!HH", UDP, 8 + len(payload))
    sum_ = checksum(pseudo_header + udp + bytes(2) + payload) or 0xFFFF
    return MACS + b"\x08\x00" + ip + udp + struct.pack("!H", sum_ if checked else 0) + payload + trailer


@dataclasses.dataclass(frozen=True)
class Flow:
    """Whose packets are reported. vlan_ids: outermost first. options: of TCP, whole words."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int = UDP
    vlan_ids: tuple[int, ...] = ()
    dscp: int = 0
    options: bytes = b""
    payload: bytes = b"payload!"

    @property
    def l4_size(self) -> int:
        """Of the UDP header, or of the TCP header with its options."""
        return 8 if self.protocol == UDP else 20 + len(self.options)

    def packet(self, stack: bytes = b"", dscp: int | None = None) -> bytes:
        """From its Ethernet header on. stack: what INT put behind UDP's 8 or TCP's first 20 bytes. dscp: the mark."""
        behind = stack + self.options + self.payload
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == UDP:
            l4 = ports + struct.pack("!HH", 8 + len(behind), 0xBEEF)
        else:
            offset = (5 + len(self.options) // 4) << 4
            l4 = ports + struct.pack("!IIBBHHH", 0x01020304, 0x05060708, offset, 0x18, 0x2000, 0xBEEF, 0)
        tags = b"".join(
            struct.pack("!HH", 0x8100 if number + 1 == len(self.vlan_ids) else 0x88A8, vlan_id)
            for number, vlan_id in enumerate(self.vlan_ids)
        )
        ip = ipv4(
            self.source, self.destination, self.protocol, len(l4) + len(behind),
            dscp=self.dscp if dscp is None else dscp, identification=0x1234,
        )  # fmt: skip
        return INNER_MACS + tags + b"\x08\x00" + ip + l4 + behind


# --- INT 1.0 ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Hop:
    """What a switch puts into a packet. at: when it came in. ports: ingress, egress. queue: id, occupancy."""

    switch_id: int
    latency: int = 0
    at: int = 0
    ports: tuple[int, int] = (1, 2)
    queue: tuple[int, int] = (0, 0)
    l2_ports: tuple[int, int] = (0, 0)
    utilization: int = 0


ITEMS: dict[int, Callable[[Hop], bytes]] = {
    0x8000: lambda hop: struct.pack("!I", hop.switch_id),
    0x4000: lambda hop: struct.pack("!HH", *hop.ports),
    0x2000: lambda hop: struct.pack("!I", hop.latency),
    0x1000: lambda hop: struct.pack("!I", hop.queue[0] << 24 | hop.queue[1]),
    0x0800: lambda hop: struct.pack("!I", hop.at % 2**32),
    0x0400: lambda hop: struct.pack("!I", (hop.at + hop.latency) % 2**32),
    0x0200: lambda hop: struct.pack("!II", *hop.l2_ports),
    0x0100: lambda hop: struct.pack("!I", hop.utilization),
}
"""Instruction bit -> its item, as INT 1.0 says."""


def stack_of(hops: Sequence[Hop], bitmap: int, items: dict[int, Callable[[Hop], bytes]]) -> bytes:
    """hops in the direction of travel: each puts what it has to say in front."""
    stack = b""
    for hop in hops:
        stack = b"".join(item(hop) for bit, item in items.items() if bitmap & bit) + stack
    return stack


def int_1_0(
    version: int, hop_ml: int, remaining: int, bitmap: int, stack: bytes, dscp: int, reserved: int = 0
) -> bytes:
    """Shim, header and stack. dscp: the packet's own. reserved: the header's last 16 bits."""
    shim = struct.pack("!BBBB", 1, 0, 3 + len(stack) // 4, dscp << 2)
    return shim + struct.pack("!BBBBHH", version << 4, 0, hop_ml, remaining, bitmap, reserved) + stack


# --- the four ---------------------------------------------------------------------------------------------------------


class FabricTna:
    """One switch of a fabric under fabric-tna (SD-Fabric): postcards in Telemetry Report 0.5.

    Version 0, switch-local header for flows and queues, drop header for drops; hw_id is the pipe, and each pipe counts
    from 1; Don't Fragment is not set, the identification is random, the UDP checksum is 0; tags and encapsulations are
    taken off the packet, and only its beginning is sent.
    """

    PORT = 32766
    MIRRORED = 120
    """Bytes of a packet that are sent."""

    def __init__(self, address: str, switch_id: int) -> None:
        self.address, self.switch_id = address, switch_id
        self._sent: Counter[int] = Counter()
        self._random = random.Random(switch_id)

    def flow(
        self, flow: Flow, at: int, latency: int, *, ports: tuple[int, int] = (1, 2), queue: tuple[int, int] = (0, 0),
        pipe: int = 0, tracked: bool = True, congested: bool = False,
    ) -> bytes:  # fmt: skip
        """A report of a flow, of a queue, or of both. at: ns. queue: 5 bits of id, 19 of occupancy."""
        assert queue[0] < 1 << 5 and queue[1] < 1 << 19
        header = struct.pack(
            "!IHHII", self.switch_id, *ports, queue[0] << 24 | queue[1], (at + latency) % 2**32
        )  # fmt: skip
        return self._report(2, congested << 1 | tracked, pipe, at, header + self._mirrored(flow))

    def drop(self, flow: Flow, at: int, reason: int, *, ports: tuple[int, int] = (1, 0), pipe: int = 0) -> bytes:
        """A report of a dropped packet. Of ingress drops, egress port and queue are 0."""
        header = struct.pack("!IHHBBH", self.switch_id, *ports, 0, reason, 0)
        return self._report(1, 4, pipe, at, header + self._mirrored(flow))

    def _mirrored(self, flow: Flow) -> bytes:
        return dataclasses.replace(flow, vlan_ids=()).packet()[: self.MIRRORED]

    def _report(self, next_protocol: int, dqf: int, pipe: int, at: int, rest: bytes) -> bytes:
        self._sent[pipe] += 1
        fixed = struct.pack("!III", next_protocol << 24 | dqf << 21 | pipe, self._sent[pipe], at % 2**32)
        return report(
            self.address, self.PORT, fixed + rest, identification=self._random.randrange(1 << 16), checked=False
        )

    @staticmethod
    def labelled(frame: bytes) -> bytes:
        """The frame as it is between the switches of the fabric, behind an MPLS label."""
        return frame[:12] + b"\x88\x47" + struct.pack("!I", 101 << 12 | 1 << 8 | 64) + frame[14:]


class Onos:
    """The sink of ONOS' int.p4 on bmv2: Telemetry Report "1.0" with INT 1.0.

    D, Q and F stand in front of the reserved bits, hw_id is 1, the sequence number always 0; INT version 0, Hop ML is
    the number of instruction bits (one less than the words, where bit 6 is set), 64 hops at most; behind the stack
    nothing is sent, and for TCP not all of the stack, since the lengths are those of UDP. Times are microseconds.
    """

    def __init__(self, address: str, switch_id: int, port: int = 54321) -> None:
        self.address, self.switch_id, self.port = address, switch_id, port

    def report(self, flow: Flow, hops: Sequence[Hop], bitmap: int = 0xFF00) -> bytes:
        """hops in the direction of travel, the last being this switch."""
        stack = stack_of(hops, bitmap, ITEMS)
        int_ = int_1_0(0, bin(bitmap).count("1"), 64 - len(hops), bitmap, stack, flow.dscp)
        d, q, f, hw_id = 0, 0, 1, 1
        fixed = struct.pack(
            "!IIII", 1 << 28 | 4 << 24 | d << 14 | q << 13 | f << 12 | hw_id, self.switch_id, 0, hops[-1].at % 2**32
        )
        size = 16 + 14 + 20 + 8 + len(int_)
        return report(self.address, self.port, (fixed + flow.packet(int_, 0x17))[:size], checked=False)


class Geant:
    """The sink of GEANT's int-platforms v1.0, on bmv2 or on Tofino: Telemetry Report 1.0 with INT 1.0.

    hw_id 0, counts from 0; timestamps have 8 bytes, level-2 ports 4; the INT header's last 16 bits count the source's
    packets; 4 hops at most. bmv2 has microseconds: timestamps are multiplied by 1000, hop latencies are not; behind the
    stack (and what TCP has for options) nothing is sent. On Tofino the rest of the packet is an Ethernet trailer.
    """

    PORT = 6000
    MARK = 0x20
    ITEMS = ITEMS | {0x0200: lambda hop: struct.pack("!HH", *hop.l2_ports)}

    def __init__(self, address: str, switch_id: int, *, tofino: bool = False) -> None:
        self.address, self.switch_id, self.tofino = address, switch_id, tofino
        self._sent = 0
        unit = 1 if tofino else 1000
        self._items = self.ITEMS | {
            0x0800: lambda hop: struct.pack("!Q", hop.at * unit),
            0x0400: lambda hop: struct.pack("!Q", (hop.at + hop.latency) * unit),
        }

    def report(self, flow: Flow, hops: Sequence[Hop], bitmap: int = 0xCC00) -> bytes:
        """hops in the direction of travel, the last being this switch; at and latency in ns (Tofino) or us (bmv2)."""
        hop_ml = len(stack_of(hops[:1], bitmap, self._items)) // 4
        stack = stack_of(hops, bitmap, self._items)
        int_ = int_1_0(1, hop_ml, 4 - len(hops), bitmap, stack, flow.dscp, self._sent % 2**16)
        fixed = struct.pack("!IIII", 0x14000040, self.switch_id, self._sent, hops[-1].at % 2**32)
        self._sent += 1
        whole = fixed + flow.packet(int_, self.MARK)
        size = 16 + 14 + 20 + flow.l4_size + len(int_)
        trailer = whole[size:] if self.tofino else b""
        return report(self.address, self.PORT, whole[:size], checked=False, trailer=trailer)


class NoviFlow:
    """The sink of NoviFlow switches, as at AmLight: Telemetry Report 1.0 with INT 1.0.

    F is not set though there is INT; six items a hop, of which the hop latency is always all ones; 10 hops at most,
    counted down from 10; the packet has one or two VLAN tags; INT is between the TCP header and its options. Times are
    ns, occupancies cells of 80 bytes.
    """

    PORT = 5900
    BITMAP = 0xFC00
    ITEMS = ITEMS | {0x2000: lambda hop: b"\xff" * 4}

    def __init__(self, address: str, switch_id: int, *, first: int = 0, tracked: bool = False, hw_id: int = 0) -> None:
        """first: its next sequence number."""
        self.address, self.switch_id, self.tracked, self.hw_id, self._next = address, switch_id, tracked, hw_id, first

    def report(self, flow: Flow, hops: Sequence[Hop], mark: int | None = 0x17) -> bytes:
        """hops in the direction of travel, the last being this switch. mark: the DSCP; None: the packet has its own."""
        assert all(hop.queue[0] < 8 for hop in hops)
        stack = stack_of(hops, self.BITMAP, self.ITEMS)
        int_ = int_1_0(1, 6, 10 - len(hops), self.BITMAP, stack, flow.dscp)
        word = 0x14000000 | self.tracked << 6 | self.hw_id
        fixed = struct.pack("!IIII", word, self.switch_id, self._next, (hops[-1].at + hops[-1].latency) % 2**32)
        self._next = (self._next + 1) % 2**32
        return report(self.address, self.PORT, fixed + flow.packet(int_, mark), source_port=6000, flags=2)


# --- others -----------------------------------------------------------------------------------------------------------

ELSEWHERE = 54321
"""The port of exporters that have none of their own."""


def dtel(address: str, flow: Flow) -> bytes:
    """A flow report of switch.p4's DTel (SONiC), in Telemetry Report 0.5, with the packet's tags."""
    fixed = struct.pack("!IIIIHHII", 2 << 24 | 1 << 21, 7, 5000, 77, 3, 4, 2 << 24 | 9, 5600)
    return report(address, ELSEWHERE, fixed + flow.packet(), checked=False)


def host_reporter(address: str, flow: Flow, *, synthesised: bool = False) -> bytes:
    """A flow report of ONF's int-host-reporter. synthesised: of a packet that it did not see whole; what it makes up
    for TCP has a UDP header, and the other way round."""
    fixed = struct.pack("!IIIIHHII", 2 << 24 | 1 << 21, 7, 5000, 78, 3, 4, 0, 5700)
    packet = flow.packet()
    if synthesised:
        other = dataclasses.replace(flow, protocol=TCP if flow.protocol == UDP else UDP, payload=bytes(6)).packet()
        packet = other[:23] + bytes([flow.protocol]) + other[24:]
    return report(address, ELSEWHERE, fixed + packet)


def host_int(address: str, flow: Flow) -> bytes:
    """A report of Intel's host-int with its private node id word: NProto 4."""
    fixed = struct.pack("!IIII", 4 << 24 | 1 << 21, 7, 5000, 79)
    return report(address, ELSEWHERE, fixed + flow.packet()[14:])


def p4_int_md_1_0(address: str, flow: Flow, hops: Sequence[Hop]) -> bytes:
    """mandaryoshi/p4-int, INT-MD 1.0: as the specification says."""
    int_ = int_1_0(1, 9, 3 - len(hops), 0xFF00, stack_of(hops, 0xFF00, ITEMS), flow.dscp)
    fixed = struct.pack("!IIII", 0x14000041, hops[-1].switch_id, 1, hops[-1].at % 2**32)
    payload = fixed + flow.packet(int_, 0x17)
    return report(address, ELSEWHERE, payload, source_port=1234, checked=False)


def p4_int_2(address: str, flow: Flow, version: int) -> bytes:
    """mandaryoshi/p4-int, INT-MD 2.1 (version 2) or MX and XD (version 1): no Report Length, no MD Length, IPv4
    announced and Ethernet sent, and the 12 bytes of the individual report are not in the lengths."""
    group = struct.pack("!II", version << 28 | 1 << 22, 80)
    individual = struct.pack("!BBBBHHHH", 1 << 4 | 4, 0, 0, 0x30, 0, 0, 0, 0)
    payload = group + individual + flow.packet()
    return report(address, ELSEWHERE, payload[:-12], source_port=1234, checked=False, trailer=payload[-12:])


def cablelabs(address: str, flow: Flow, *, tofino: bool = False) -> bytes:
    """CableLabs' transparent-security, a draft of 2.0: RepType 0 with the words of an INT report all the same and one
    more, IPv4 announced and Ethernet sent, 16 bits of sequence number in front of 6 empty ones; on Tofino no Report
    Length."""
    shim_length = 7
    group = struct.pack("!II", 2 << 28 | 1 << 6, 81)
    length = 0 if tofino else shim_length + 5
    individual = struct.pack("!BBBBHHHHI", 4, length, shim_length, 0, 0, 0x5453, 0, 0, 0)
    return report(address, 556, group + individual + flow.packet(), flags=2)
