"""Scapy layers of Telemetry Report 0.5, 1.0 and 2.0 and of INT 0.5, 1.0 and 2.x.

    from intcollector.layers import IntMetadata10, IntShimV1, TelemetryReport10, bind, configure

A packet to a report port dissects down to the hops; bind() names more ports than the default one. Whether INT follows
an inner TCP or UDP header is decided as `decode` does it: configure(Config(int_dscp=(23, 63))) sets the mark, the
profile and so on. Fields that are left None (lengths, counts, bitmaps) are computed when a packet is built. Nothing is
refused: what contradicts itself stays Raw, and what was dissected is built again byte for byte.

docs/generate.md has examples. Importing this takes a third of a second, scapy's; so only what needs it does.
"""
# mypy: allow-subclassing-any
# ruff: noqa: RUF012 - lists and dicts as class attributes are how scapy layers are written

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, reduce
from typing import Any, ClassVar

import scapy.contrib.mpls  # noqa: F401 - binds MPLS labels to Ethernet and GRE
from scapy.config import conf
from scapy.contrib.geneve import GENEVE
from scapy.error import Scapy_Exception
from scapy.fields import BitField, ConditionalField, PacketListField, RawVal, StrField, StrLenField, XBitField
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Padding, Raw, bind_layers

from .config import Config

__all__ = [
    "IP", "TCP", "UDP", "Dot1Q", "DropReport05", "Ether", "IPv6", "IndividualReport", "IntGeneveOption", "IntHop",
    "IntHop05", "IntHop2", "IntHop10", "IntHop10Geant", "IntHop10IntCollector", "IntHop10L2Port4", "IntMetadata",
    "IntMetadata05", "IntMetadata2", "IntMetadata2MX", "IntMetadata10", "IntShim", "IntShim2", "IntShimGpe2",
    "IntShimGpeV1", "IntShimGre", "IntShimV1", "IntTail05", "LocalReport05", "Raw", "TelemetryReport",
    "TelemetryReport05", "TelemetryReport10", "TelemetryReport20", "TelemetryTlv", "TelemetryTlvs", "bind", "bind_gre",
    "configure", "dissect",
]  # fmt: skip
"""With what of scapy's own stands around them."""

REPORT_PORT = 54321
TUNNEL_PORTS = (4789, 4790, 6081)
"""VXLAN, VXLAN-GPE, Geneve."""
TYPE_MD, TYPE_DESTINATION, TYPE_MX = 1, 2, 3
GENEVE_CLASS = 0x0103
GPE_MPLS_OR_INT, GPE_INT_V1, GPE_INT_2 = 0x05, 0x08, 0x80

Items = Mapping[int, tuple[tuple[str, int], ...]]
"""Bit (0 = most significant of 16) -> (field, bits) of what is written for it. A bit that is missing: one word."""


_config = Config()


def configure(config: Config) -> None:
    """How packets are dissected from now on: int_dscp, int_udp_port, profile, tcp_int_position, source_only_words,
    reject_int_version_0. Its ports are not bound: bind() does that."""
    global _config
    _config = config


def dissect(frame: bytes) -> Packet:
    """An Ethernet frame, as scapy's readers dissect it: Raw if it is none. Other than Ether(frame), it is built again
    byte for byte also where an outer IP or TCP header says what scapy does not understand."""
    if len(frame) < _LEAST[Ether]:
        return Raw(frame)
    layer = packet = Ether(frame)
    while layer and not isinstance(layer, _Layer):
        layer = _keep_bytes(layer).payload
    return packet


def bind(port: int = REPORT_PORT) -> None:
    """Telemetry reports are what goes to this UDP port, whatever else scapy took for a sign by either port."""
    bind_layers(UDP, TelemetryReport, dport=port)
    UDP.payload_guess.insert(0, UDP.payload_guess.pop())


def bind_gre(protocol: int) -> None:
    """An INT shim is what GRE announces by this protocol type; none was ever assigned (INT 2.x)."""
    bind_layers(GRE, IntShimGre, proto=protocol)


# --- What the layers are made of --------------------------------------------------------------------------------------


def _bits(bitmap: int) -> list[int]:
    return [bit for bit in range(16) if bitmap & 0x8000 >> bit]


def _items(items: Items, bit: int) -> tuple[tuple[str, int], ...]:
    return items.get(bit, ((f"reserved_{bit}", 32),))


def _words(bitmap: int, items: Items) -> int:
    """What is written for a bitmap, words."""
    return sum(width for bit in _bits(bitmap) for _, width in _items(items, bit)) // 32


def _patched(data: bytes, at: int, value: int, size: int = 1) -> bytes:
    """data with a number in it: for fields that were None, which were built as zeros."""
    old = int.from_bytes(data[at : at + size], "big")
    return data[:at] + (old | value).to_bytes(size, "big") + data[at + size :]


class _Item(BitField):
    """A value of a switch. All ones: it had none; None says the same."""

    def __init__(self, name: str, bits: int) -> None:
        super().__init__(name, (1 << bits) - 1, bits)

    def any2i(self, pkt: Any, x: Any) -> Any:
        return self.default if x is None else super().any2i(pkt, x)

    def i2repr(self, pkt: Any, x: Any) -> str:
        return "unavailable" if x == self.default else super().i2repr(pkt, x)


def _item_fields(items: Items, bits: range) -> list[Any]:
    """Fields of a layer that has asks(bit)."""

    def asks(bit: int, packet: Any) -> bool:
        return packet.asks(bit)  # type: ignore[no-any-return]

    return [
        ConditionalField(BitField(name, 0, width) if name == "drop_pad" else _Item(name, width), partial(asks, bit))
        for bit in bits
        for name, width in _items(items, bit)
    ]


class _Layer(Packet):
    """A header of at least so many bytes: fewer are Raw."""

    least: ClassVar[int] = 4

    def pre_dissect(self, s: bytes) -> bytes:
        if len(s) < self.least:
            raise Scapy_Exception(f"{type(self).__name__} needs {self.least} bytes, {len(s)} are there")
        return s

    def given(self, name: str) -> Any:
        """A field's number as it stands, None where it is to be computed."""
        return self.getfieldval(name)


class _WithItems(_Layer):
    """A header with items by a bitmap, which by default has the bits of those that are set."""

    items: ClassVar[Items] = {}
    bitmap_field: ClassVar[str] = "metadata_bits"

    def asked(self) -> int:
        """The bitmap, 16 bits: as given, else of the items that were given a value."""
        said = self.given(self.bitmap_field)
        if said is not None:
            return self.widened(said)
        known = [*self.items, *(bit for bit in range(16) if bit not in self.items)]
        return sum(0x8000 >> bit for bit in known if any(name in self.fields for name, _ in _items(self.items, bit)))

    def widened(self, said: int) -> int:
        """The bitmap of 16 bits that the field stands for."""
        return said

    def asks(self, bit: int) -> bool:
        """Whether the items of a bit are there."""
        return bool(self.asked() & 0x8000 >> bit)

    def item_words(self) -> int:
        """What is written for the bitmap, words."""
        return _words(self.asked(), self.items)


class _PiecesField(PacketListField):
    """Layers one behind the other, each of which says how long it is; up to 3 bytes may remain."""

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, list[Any]]:
        pieces = []
        while len(s) >= 4:
            size = self.cls.size_of(s)
            try:
                pieces.append(self.cls(s[:size], _internal=1, _parent=pkt))
            except Scapy_Exception:
                pieces.append(conf.raw_layer(s[:size]))
            s = s[size:]
        return s, pieces


# --- Telemetry reports ------------------------------------------------------------------------------------------------


class _Carrier(_Layer):
    """What an inner packet follows, in which INT is looked for."""

    def do_dissect_payload(self, s: bytes) -> None:
        super().do_dissect_payload(s)
        _find_int(self.payload)


class TelemetryReport(_Carrier):
    """Any version: TelemetryReport(data) is the one that data has, TelemetryReport(version=2) a new one of 2.0."""

    name = "Telemetry Report"
    match_subclass = True

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_: Any, **fields: Any) -> Any:
        version = _pkt[0] >> 4 if _pkt else fields.get("version", 1)
        return {0: TelemetryReport05, 1: TelemetryReport10, 2: TelemetryReport20}.get(version, conf.raw_layer)

    def mysummary(self) -> Any:
        return f"{self.name} #{self.given('sequence_number')}"


class TelemetryReport05(TelemetryReport):
    """The fixed header of 0.5. nproto: 0 Ethernet, 1 DropReport05, 2 LocalReport05, which stacking sets."""

    name = "Telemetry Report 0.5"
    least = 12
    fields_desc = [
        BitField("version", 0, 4),
        BitField("nproto", 0, 4),
        BitField("dropped", 0, 1),
        BitField("congested_queue", 0, 1),
        BitField("tracked_flow", 0, 1),
        BitField("reserved", 0, 15),
        BitField("hw_id", 0, 6),
        BitField("sequence_number", 0, 32),
        BitField("ingress_timestamp", 0, 32),
    ]


class DropReport05(_Carrier):
    """The drop header of 0.5; Ethernet follows."""

    name = "Telemetry Report 0.5 drop header"
    least = 12
    fields_desc = [
        BitField("switch_id", 0, 32),
        BitField("ingress_port_id", 0, 16),
        BitField("egress_port_id", 0, 16),
        BitField("drop_queue_id", 0, 8),
        BitField("drop_reason", 0, 8),
        BitField("pad", 0, 16),
    ]


class LocalReport05(_Carrier):
    """The switch-local header of 0.5; Ethernet follows."""

    name = "Telemetry Report 0.5 switch-local header"
    least = 16
    fields_desc = [
        BitField("switch_id", 0, 32),
        BitField("ingress_port_id", 0, 16),
        BitField("egress_port_id", 0, 16),
        BitField("queue_id", 0, 8),
        BitField("queue_occupancy", 0, 24),
        BitField("egress_timestamp", 0, 32),
    ]


_PORTS = (("ingress_port_id", 16), ("egress_port_id", 16))
_LATENCY = (("hop_latency", 32),)
_QUEUE = (("queue_id", 8), ("queue_occupancy", 24))
_UTILIZATION = (("egress_port_tx_utilization", 32),)
_DROP = (("drop_queue_id", 8), ("drop_reason", 8), ("drop_pad", 16))

METADATA_1_0: Items = {
    0: _PORTS, 1: _LATENCY, 2: _QUEUE, 3: (("egress_timestamp", 32),), 4: _DROP, 5: _UTILIZATION,
}  # fmt: skip
METADATA_2: Items = {
    1: _PORTS, 2: _LATENCY, 3: _QUEUE, 4: (("ingress_timestamp", 64),), 5: (("egress_timestamp", 64),),
    6: (("l2_ingress_port_id", 32), ("l2_egress_port_id", 32)), 7: _UTILIZATION,
    8: (("buffer_id", 8), ("buffer_occupancy", 24)), 15: _DROP,
}  # fmt: skip


class TelemetryReport10(_WithItems, TelemetryReport):
    """1.0. metadata_bits: RepMdBits, by default of the items that are set. extra: words that the bits do not explain.
    A length below what the bits need is not believed."""

    name = "Telemetry Report 1.0"
    least = 16
    items = METADATA_1_0
    fields_desc = [
        BitField("version", 1, 4),
        BitField("length", None, 4),
        BitField("nproto", 0, 3),
        XBitField("metadata_bits", None, 6),
        BitField("reserved", 0, 6),
        BitField("dropped", 0, 1),
        BitField("congested_queue", 0, 1),
        BitField("tracked_flow", 0, 1),
        BitField("hw_id", 0, 6),
        BitField("switch_id", 0, 32),
        BitField("sequence_number", 0, 32),
        BitField("ingress_timestamp", 0, 32),
        *_item_fields(METADATA_1_0, range(6)),
        StrLenField("extra", b"", length_from=lambda pkt: max(0, (pkt.given("length") - 4 - pkt.item_words()) * 4)),
    ]

    def pre_dissect(self, s: bytes) -> bytes:
        s = super().pre_dissect(s)
        if len(s) < 16 + 4 * _words(int.from_bytes(s[1:3], "big") << 3 & 0xFC00, self.items):
            raise Scapy_Exception("this report ends within its metadata")
        return s

    def widened(self, said: int) -> int:
        """RepMdBits are six."""
        return said << 10

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.given("metadata_bits") is None:  # bits 11 to 16 of the first word
            pkt = _patched(pkt, 1, self.asked() >> 3, 2)
        if self.given("length") is None:
            pkt = _patched(pkt, 0, len(pkt) // 4)
        return pkt + pay


class IndividualReport(_Carrier, _WithItems):
    """An individual report of 2.0. report_type: 0 inner only, 1 INT, which has the fields from metadata_bits on.
    inner_type: 1 TelemetryTlvs, 3 Ethernet, 4 IPv4, 5 IPv6, which stacking sets. report_length 255: to the end."""

    name = "Telemetry Report 2.0 individual report"
    items = METADATA_2
    fields_desc = [
        BitField("report_type", 1, 4),
        BitField("inner_type", 0, 4),
        BitField("report_length", None, 8),
        BitField("md_length", None, 8),
        BitField("dropped", 0, 1),
        BitField("congested_queue", 0, 1),
        BitField("tracked_flow", 0, 1),
        BitField("intermediate", 0, 1),
        BitField("reserved", 0, 4),
        *(
            ConditionalField(XBitField(name, default, 16), lambda pkt: pkt.has_main())
            for name, default in (
                ("metadata_bits", None),
                ("domain_id", 0),
                ("domain_metadata_bits", 0),
                ("domain_metadata_status", 0),
            )
        ),
        *_item_fields(METADATA_2, range(16)),
        ConditionalField(
            StrLenField("domain_words", b"", length_from=lambda pkt: (pkt.given("md_length") - pkt.item_words()) * 4),
            lambda pkt: pkt.has_main(),
        ),
    ]

    @staticmethod
    def size_of(data: bytes) -> int:
        """Bytes of the individual report that data begins with; all, if it says so."""
        return len(data) if data[1] == 255 else 4 + data[1] * 4

    def pre_dissect(self, s: bytes) -> bytes:
        s = super().pre_dissect(s)
        if s[0] >> 4 == 1 and (
            len(s) < 12 + s[2] * 4 or s[2] < _words(int.from_bytes(s[4:6], "big"), self.items)
        ):  # the items would run into what follows
            raise Scapy_Exception("this individual report contradicts itself")
        return s

    def has_main(self) -> bool:
        """Whether it has main contents that are known."""
        return bool(self.given("report_type") == 1)

    def asks(self, bit: int) -> bool:
        return self.has_main() and super().asks(bit)

    def guess_payload_class(self, payload: bytes) -> Any:
        return conf.raw_layer if self.given("report_type") > 1 else super().guess_payload_class(payload)

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.has_main() and self.given("metadata_bits") is None:
            pkt = _patched(pkt, 4, self.asked(), 2)
        if self.has_main() and self.given("md_length") is None:
            pkt = _patched(pkt, 2, len(pkt) // 4 - 3)
        if self.given("report_length") is None:
            pay += bytes(-len(pay) % 4)
            pkt = _patched(pkt, 1, min(255, (len(pkt) + len(pay)) // 4 - 1))
        return pkt + pay


class TelemetryReport20(TelemetryReport):
    """The group header of 2.0 and the individual reports behind it. switch_id: the Node ID."""

    name = "Telemetry Report 2.0"
    least = 8
    fields_desc = [
        BitField("version", 2, 4),
        BitField("hw_id", 0, 6),
        BitField("sequence_number", 0, 22),
        BitField("switch_id", 0, 32),
        _PiecesField("reports", [], IndividualReport),
    ]


class TelemetryTlv(_Carrier):
    """tlv_type: 0 domain specific, 1 Ethernet, 2 IPv4, 3 IPv6, which stacking sets. length: words behind this one."""

    name = "Telemetry Report 2.0 TLV"
    fields_desc = [
        BitField("tlv_type", 0, 4),
        BitField("reserved", 0, 4),
        BitField("length", None, 8),
        BitField("template", 0, 16),
    ]

    @staticmethod
    def size_of(data: bytes) -> int:
        """Bytes of the TLV that data begins with."""
        return 4 + data[1] * 4

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.given("length") is None:
            pay += bytes(-len(pay) % 4)
            pkt = _patched(pkt, 1, len(pay) // 4)
        return pkt + pay


class TelemetryTlvs(_Layer):
    """The TLVs of an individual report."""

    name = "Telemetry Report 2.0 TLVs"
    fields_desc = [_PiecesField("tlvs", [], TelemetryTlv)]


bind_layers(TelemetryReport05, Ether, nproto=0)
bind_layers(TelemetryReport05, DropReport05, nproto=1)
bind_layers(TelemetryReport05, LocalReport05, nproto=2)
bind_layers(DropReport05, Ether)
bind_layers(LocalReport05, Ether)
bind_layers(TelemetryReport10, Ether, nproto=0)
bind_layers(TelemetryReport10, IP, nproto=1)
bind_layers(TelemetryReport10, IPv6, nproto=2)
bind_layers(IndividualReport, TelemetryTlvs, inner_type=1)
bind_layers(IndividualReport, Ether, inner_type=3)
bind_layers(IndividualReport, IP, inner_type=4)
bind_layers(IndividualReport, IPv6, inner_type=5)
bind_layers(TelemetryTlv, Ether, tlv_type=1)
bind_layers(TelemetryTlv, IP, tlv_type=2)
bind_layers(TelemetryTlv, IPv6, tlv_type=3)
bind()


# --- INT: shims -------------------------------------------------------------------------------------------------------


class _Shim(_Layer):
    """What says that an INT header follows, and how long it is with its stack."""

    counted: ClassVar[int] = 0
    """Words that its length counts beside INT header and stack (and 0.5's tail)."""
    length_at: ClassVar[int] = 1
    length_mask: ClassVar[int] = 0xFF

    def int_bytes(self) -> int:
        """Of INT header and stack (and tail), as the length says; may be less than none."""
        return (self.given("length") - self.counted) * 4

    def behind(self, payload: bytes) -> Any:
        """The layer behind the stack."""
        return conf.raw_layer

    def guess_payload_class(self, payload: bytes) -> Any:
        if self.given("type") == TYPE_DESTINATION or len(payload) < 8:
            return conf.raw_layer
        version, counts = payload[0] >> 4, payload[1] & 0x7F
        if self.is_v2(payload):
            v2 = IntMetadata2MX if self.given("type") == TYPE_MX else IntMetadata2
            return v2 if version == 2 else conf.raw_layer
        if version == 0 and counts:  # reserved in 1.0; the instruction count of 0.5, which is not 0
            return IntMetadata05
        return IntMetadata10 if version < 2 else conf.raw_layer

    def is_v2(self, payload: bytes) -> bool:
        """Whether it announces INT 2.x."""
        return True

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.given("length") is None:
            size, layer = 0, self.payload
            while isinstance(layer, (IntMetadata, IntTail05)):
                size += len(layer.self_build())
                layer = layer.payload
            pkt = _patched(pkt, self.length_at, self.counted + size // 4 & self.length_mask)
        return pkt + pay


class IntShim(_Shim):
    """Behind TCP or UDP, any version: IntShim(data) is the one that data has."""

    name = "INT shim"
    match_subclass = True

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_: Any, **fields: Any) -> Any:
        v1 = _pkt[0] in (TYPE_MD, TYPE_DESTINATION) if _pkt else "npt" not in fields
        return IntShimV1 if v1 else IntShim2


class _V1(_Shim):
    counted = 1
    length_at = 2

    def is_v2(self, payload: bytes) -> bool:
        return False


class IntShimV1(_V1, IntShim):
    """INT 0.5 and 1.0. length: words, the shim counted. dscp: 1.0's, the original one."""

    name = "INT 1.0 shim"
    fields_desc = [
        BitField("type", TYPE_MD, 8),
        BitField("reserved", 0, 8),
        BitField("length", None, 8),
        BitField("dscp", 0, 6),
        BitField("reserved2", 0, 2),
    ]


class IntShim2(IntShim):
    """INT 2.x. length: words, the shim not counted. npt: 0, 1 (destination_port was the UDP port), 2 (a header of that
    protocol follows the stack)."""

    name = "INT 2.x shim"
    fields_desc = [
        BitField("type", TYPE_MD, 4),
        BitField("npt", 0, 2),
        BitField("reserved", 0, 2),
        BitField("length", None, 8),
        ConditionalField(BitField("destination_port", 0, 16), lambda pkt: pkt.given("npt") == 1),
        ConditionalField(BitField("reserved2", 0, 8), lambda pkt: pkt.given("npt") != 1),
        ConditionalField(BitField("dscp", 0, 6), lambda pkt: pkt.given("npt") in (0, 3)),
        ConditionalField(BitField("reserved3", 0, 2), lambda pkt: pkt.given("npt") in (0, 3)),
        ConditionalField(BitField("protocol", 0, 8), lambda pkt: pkt.given("npt") == 2),
    ]

    def behind(self, payload: bytes) -> Any:
        inner = {4: IP, 6: TCP, 17: UDP, 41: IPv6}
        return inner.get(self.given("protocol"), conf.raw_layer) if self.given("npt") == 2 else conf.raw_layer


class _Gpe(_Shim):
    """By VXLAN-GPE's next protocol."""

    def behind(self, payload: bytes) -> Any:
        following = {1: IP, 2: IPv6, 3: Ether, GPE_INT_V1: IntShimGpeV1, GPE_INT_2: IntShimGpe2}
        return following.get(self.given("next_protocol"), conf.raw_layer)


class IntShimGpeV1(_V1, _Gpe):
    """INT 0.5 and 1.0 in VXLAN-GPE; 0.5 has no tail there."""

    name = "INT 1.0 shim in VXLAN-GPE"
    fields_desc = [
        BitField("type", TYPE_MD, 8),
        BitField("reserved", 0, 8),
        BitField("length", None, 8),
        BitField("next_protocol", 3, 8),
    ]


class IntShimGpe2(_Gpe):
    """INT 2.x in VXLAN-GPE. original_vxlan: G, it was plain VXLAN."""

    name = "INT 2.x shim in VXLAN-GPE"
    fields_desc = [
        BitField("type", TYPE_MD, 4),
        BitField("reserved", 0, 4),
        BitField("length", None, 8),
        BitField("original_vxlan", 0, 1),
        BitField("reserved2", 0, 7),
        BitField("next_protocol", 3, 8),
    ]


class IntShimGre(_Shim):
    """INT 2.x in GRE, which bind_gre() finds. gre_added: G, by the INT source."""

    name = "INT 2.x shim in GRE"
    fields_desc = [
        BitField("type", TYPE_MD, 4),
        BitField("gre_added", 0, 1),
        BitField("reserved", 0, 3),
        BitField("length", None, 8),
        BitField("ethertype", 0x0800, 16),
    ]

    def behind(self, payload: bytes) -> Any:
        return {0x0800: IP, 0x86DD: IPv6, 0x6558: Ether}.get(self.given("ethertype"), conf.raw_layer)


class IntGeneveOption(_Shim):
    """INT as an option of Geneve, of GENEVE(options=[...]): no shim, its payload is the INT header."""

    name = "INT option of Geneve"
    length_at = 3
    length_mask = 0x1F
    fields_desc = [
        BitField("option_class", GENEVE_CLASS, 16),
        BitField("type", TYPE_MD, 8),
        BitField("reserved", 0, 3),
        BitField("length", None, 5),
    ]

    def is_v2(self, payload: bytes) -> bool:
        return payload[0] >> 4 == 2


bind_layers(VXLAN, IntShimGpeV1, flags=0x0C, NextProtocol=GPE_INT_V1)
bind_layers(VXLAN, IntShimGpe2, flags=0x0C, NextProtocol=GPE_INT_2)


# --- INT: headers and stacks ------------------------------------------------------------------------------------------

HOP_1_0: Items = {
    0: (("switch_id", 32),), 1: _PORTS, 2: _LATENCY, 3: _QUEUE, 4: (("ingress_timestamp", 32),),
    5: (("egress_timestamp", 32),), 6: (("l2_ingress_port_id", 32), ("l2_egress_port_id", 32)), 7: _UTILIZATION,
    15: (("checksum_complement", 32),),
}  # fmt: skip
HOP_0_5: Items = {
    **{bit: items for bit, items in HOP_1_0.items() if bit < 8},
    6: (("congested_queue_id", 8), ("queue_congestion", 24)),
}
HOP_2: Items = {
    **HOP_1_0,
    4: (("ingress_timestamp", 64),),
    5: (("egress_timestamp", 64),),
    8: (("buffer_id", 8), ("buffer_occupancy", 24)),
}
_L2_IN_ONE_WORD = (("l2_ingress_port_id", 16), ("l2_egress_port_id", 16))


class IntHop(Packet):
    """What one hop wrote. None or all ones: it had no value. Behind a header it has what the bitmap asks for."""

    name = "INT hop"
    match_subclass = True
    items: ClassVar[Items] = {}

    def asked(self) -> int:
        """The bitmap of what is set."""
        return sum(0x8000 >> bit for bit in range(16) if self.asks(bit))

    def asks(self, bit: int) -> bool:
        """Whether an item of a bit is set."""
        return any(name in self.fields for name, _ in _items(self.items, bit))

    def do_dissect(self, s: bytes) -> bytes:
        """The record s, whose bitmap is the header's."""
        at = 0
        for bit in _bits(self.parent.given("instruction_bitmap") if self.parent else 0):
            if bit == 15:  # always last
                at = self._domain_words(s, at, len(s) - 4)
            for name, width in _items(self.items, bit):
                self.fields[name] = int.from_bytes(s[at : at + width // 8], "big")
                at += width // 8
        self._domain_words(s, at, len(s))
        self.raw_packet_cache, self.explicit = s, 1
        return b""

    def _domain_words(self, s: bytes, start: int, end: int) -> int:
        if end > start:
            self.fields["domain_words"] = s[start:end]
        return end

    def record(self, bitmap: int, words: int) -> bytes:
        """Its bytes where a header asks for bitmap, so many words a hop: all ones for what is not set."""
        parts = [b"", self.fields.get("domain_words", b""), b""]
        for bit in _bits(bitmap):
            for name, width in _items(self.items, bit):
                parts[2 if bit == 15 else 0] += self.fields.get(name, (1 << width) - 1).to_bytes(width // 8, "big")
        parts[1] = parts[1].ljust(words * 4 - len(parts[0]) - len(parts[2]), b"\xff")
        return b"".join(parts)


def _hop_fields(items: Items) -> list[Any]:
    domain_words = ConditionalField(StrField("domain_words", b""), lambda pkt: "domain_words" in pkt.fields)
    return [*_item_fields(items, range(15)), domain_words, *_item_fields(items, range(15, 16))]


class IntHop05(IntHop):
    """INT 0.5."""

    items = HOP_0_5
    fields_desc = _hop_fields(HOP_0_5)


class IntHop10(IntHop):
    """INT 1.0 as specified; ONOS writes it too."""

    items = HOP_1_0
    fields_desc = _hop_fields(HOP_1_0)


class IntHop10L2Port4(IntHop):
    """Profile l2port4: both level-2 ports in one word."""

    items = {**HOP_1_0, 6: _L2_IN_ONE_WORD}
    fields_desc = _hop_fields(items)


class IntHop10Geant(IntHop):
    """Profile geant: timestamps of 64 bits, and level-2 ports in one word."""

    items = {**HOP_1_0, 4: HOP_2[4], 5: HOP_2[5], 6: _L2_IN_ONE_WORD}
    fields_desc = _hop_fields(items)


class IntHop10IntCollector(IntHop):
    """Profile intcollector: queue id and occupancy 16 bits each, and level-2 ports in one word."""

    items = {**HOP_1_0, 3: (("queue_id", 16), ("queue_occupancy", 16)), 6: _L2_IN_ONE_WORD}
    fields_desc = _hop_fields(items)


class IntHop2(IntHop):
    """INT 2.x. domain_words: what stands between the specification's items and the checksum complement."""

    items = HOP_2
    fields_desc = _hop_fields(HOP_2)


HOPS_1_0: Mapping[str, Any] = {
    "spec": IntHop10,
    "onos": IntHop10,
    "l2port4": IntHop10L2Port4,
    "geant": IntHop10Geant,
    "intcollector": IntHop10IntCollector,
}
"""By profile."""


class _HopsField(PacketListField):
    """The stack: hops, or dicts of their fields."""

    def any2i(self, pkt: Any, x: Any) -> Any:
        if pkt is not None and isinstance(x, list):
            x = [pkt.hop_class()(**hop) if isinstance(hop, Mapping) else hop for hop in x]
        return super().any2i(pkt, x)

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, list[Any]]:
        size, stride = min(pkt.stack_bytes(len(s)), len(s)), pkt.stride() * 4
        count = size // stride if stride and size > 0 else 0
        hops = [pkt.hop_class()(s[i * stride : (i + 1) * stride], _internal=1, _parent=pkt) for i in range(count)]
        return s[count * stride :], hops

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        bitmap, words = pkt.asked(), pkt.hop_words()
        return s + b"".join(hop.record(bitmap, words) if isinstance(hop, IntHop) else bytes(hop) for hop in val)


class IntMetadata(_Layer):
    """An INT header with its stack, any version. What of the stack makes no hops is in `rest`."""

    match_subclass = True

    least = 8
    words_field: ClassVar[str] = "hop_ml"
    words_at: ClassVar[int] = 2

    def hop_class(self) -> Any:
        """The layer of a hop."""
        return IntHop10

    def asked(self) -> int:
        """The bitmap: as given, else of what the hops have."""
        said = self.given("instruction_bitmap")
        if said is not None:
            return int(said)
        return reduce(lambda bitmap, hop: bitmap | hop.asked(), self.given("hops"), 0)

    def hop_words(self) -> int:
        """Words a hop, when it is built."""
        hops = [hop for hop in self.given("hops") if isinstance(hop, IntHop)]
        baseline = _words(self.asked(), (hops[0] if hops else self.hop_class()).items)
        return baseline + max((len(hop.fields.get("domain_words", b"")) // 4 for hop in hops), default=0)

    def fits(self) -> bool:
        """Whether the words a hop that the header says are those of its bitmap."""
        return bool(self.given(self.words_field) == _words(self.asked(), self.hop_class().items))

    def stride(self) -> int:
        """Words a hop, when it is dissected; 0: there are no hops, or nobody can tell where they are."""
        return _words(self.asked(), self.hop_class().items) if self.fits() else 0

    def source_only_words(self) -> int:
        """Words at the end of the stack that are no hop's."""
        return 0

    def tail_bytes(self) -> int:
        """What follows the stack within the shim's length."""
        return 0

    def claimed(self, there: int) -> int:
        """Bytes of the stack as the shim says, of header and stack there bytes are; without a shim it is all."""
        said = self.underlayer.int_bytes() if isinstance(self.underlayer, _Shim) else there
        return int(said) - self.least - self.tail_bytes()

    def stack_bytes(self, there: int) -> int:
        """Of hops. there: bytes behind the header."""
        return self.claimed(there + self.least) - self.source_only_words() * 4

    def rest_bytes(self) -> int:
        """Of the stack, behind the hops."""
        return max(0, self.claimed(0) - len(self.given("hops")) * self.stride() * 4)

    def is_whole(self) -> bool:
        """Whether it is what the specification says, in a packet that has all of it."""
        bitmap, words, claimed = self.asked(), self.given(self.words_field), self.claimed(0)
        hops, rest = len(self.given("hops")) * self.stride() * 4, len(self.given("rest"))
        right = self.fits() and not (words == 0 and bitmap) and claimed >= 0
        return right and hops + rest == claimed and rest == self.source_only_words() * 4

    def guess_payload_class(self, payload: bytes) -> Any:
        return self.underlayer.behind(payload) if isinstance(self.underlayer, _Shim) else conf.raw_layer

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.given("instruction_bitmap") is None:
            pkt = _patched(pkt, 4, self.asked(), 2)
        if self.given(self.words_field) is None:
            pkt = _patched(pkt, self.words_at, self.hop_words() & 0x1F)
        return pkt + pay


_REST = StrLenField("rest", b"", length_from=lambda pkt: pkt.rest_bytes())


class IntMetadata05(IntMetadata):
    """INT 0.5. instruction_count: the bitmap's bits; total_hop_count: by default the hops'."""

    name = "INT 0.5"
    words_field = "instruction_count"
    words_at = 1
    fields_desc = [
        BitField("version", 0, 4),
        BitField("replication", 0, 2),
        BitField("replica", 0, 1),
        BitField("exceeded", 0, 1),
        BitField("reserved", 0, 3),
        BitField("instruction_count", None, 5),
        BitField("max_hop_count", 255, 8),
        BitField("total_hop_count", None, 8),
        XBitField("instruction_bitmap", None, 16),
        BitField("reserved2", 0, 16),
        _HopsField("hops", [], IntHop),
        _REST,
    ]

    def hop_class(self) -> Any:
        return IntHop05

    def tail_bytes(self) -> int:
        return 4 if isinstance(self.underlayer, IntShimV1) else 0

    def is_whole(self) -> bool:
        return super().is_whole() and (not self.tail_bytes() or isinstance(self.payload, IntTail05))

    def guess_payload_class(self, payload: bytes) -> Any:
        return IntTail05 if self.tail_bytes() else super().guess_payload_class(payload)

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.given("total_hop_count") is None:
            pkt = _patched(pkt, 3, len(self.given("hops")) & 0xFF)
        return super().post_build(pkt, pay)


class IntTail05(_Layer):
    """Behind the stack of INT 0.5 over TCP and UDP: what the source replaced."""

    name = "INT 0.5 tail"
    fields_desc = [BitField("protocol", 0, 8), BitField("destination_port", 0, 16), BitField("dscp", 0, 8)]


class IntMetadata10(IntMetadata):
    """INT 1.0; its hops are laid out by the configured profile. hop_ml: words a hop."""

    name = "INT 1.0"
    fields_desc = [
        BitField("version", 1, 4),
        BitField("replication", 0, 2),
        BitField("replica", 0, 1),
        BitField("exceeded", 0, 1),
        BitField("mtu_exceeded", 0, 1),
        BitField("reserved", 0, 10),
        BitField("hop_ml", None, 5),
        BitField("remaining_hop_count", 0, 8),
        XBitField("instruction_bitmap", None, 16),
        BitField("reserved2", 0, 16),
        _HopsField("hops", [], IntHop),
        _REST,
    ]

    def hop_class(self) -> Any:
        return HOPS_1_0[_config.profile]

    def fits(self) -> bool:
        if _config.profile == "onos":
            return bool(self.given("hop_ml") == len(_bits(self.asked())))
        return super().fits()

    def is_whole(self) -> bool:
        return super().is_whole() and not (self.given("version") == 0 and _config.reject_int_version_0)


class IntMetadata2(IntMetadata):
    """INT-MD 2.x. hop_ml: words a hop, with those of its domain. rest: words that only the source added, if
    configure() was told how many a domain has; and what makes no whole hop."""

    name = "INT 2.x"
    least = 12
    fields_desc = [
        BitField("version", 2, 4),
        BitField("discard", 0, 1),
        BitField("exceeded", 0, 1),
        BitField("mtu_exceeded", 0, 1),
        BitField("reserved", 0, 12),
        BitField("hop_ml", None, 5),
        BitField("remaining_hop_count", 0, 8),
        XBitField("instruction_bitmap", None, 16),
        BitField("domain_id", 0, 16),
        BitField("domain_instruction", 0, 16),
        BitField("domain_flags", 0, 16),
        _HopsField("hops", [], IntHop),
        _REST,
    ]

    def hop_class(self) -> Any:
        return IntHop2

    def fits(self) -> bool:
        baseline, words = _words(self.asked(), HOP_2), self.given("hop_ml")
        return bool(words == baseline or (words > baseline and self.given("domain_id")))

    def stride(self) -> int:
        return int(self.given("hop_ml")) if self.fits() else 0

    def source_only_words(self) -> int:
        return dict(_config.source_only_words).get(self.given("domain_id"), 0)


class IntMetadata2MX(IntMetadata):
    """INT-MX 2.x: instructions without a stack. rest: words that the source added."""

    name = "INT 2.x MX"
    least = 12
    fields_desc = [
        BitField("version", 2, 4),
        BitField("discard", 0, 1),
        BitField("reserved", 0, 27),
        XBitField("instruction_bitmap", 0, 16),
        BitField("domain_id", 0, 16),
        BitField("domain_instruction", 0, 16),
        BitField("domain_flags", 0, 16),
        StrLenField("rest", b"", length_from=lambda pkt: max(0, pkt.claimed(0))),
    ]

    def is_whole(self) -> bool:
        return self.claimed(0) >= 0

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        return pkt + pay


# --- INT in an inner packet -------------------------------------------------------------------------------------------


def _find_int(outermost: Any) -> None:
    """Put INT layers where scapy's own found bytes, header by header; what is behind INT is left alone."""
    layer, dscp = outermost, 0
    while layer and not isinstance(layer, _Layer):
        if isinstance(layer, IP):
            dscp = layer.tos >> 2
        elif isinstance(layer, IPv6):
            dscp = layer.tc >> 2
        elif isinstance(layer, UDP):
            signalled = layer.dport == _config.int_udp_port
            _put_int(layer, 8, dscp, signalled, layer.dport in TUNNEL_PORTS)
        elif isinstance(layer, TCP):
            _put_int(layer, _start_in_tcp(layer), dscp, False, False)
        elif isinstance(layer, VXLAN) and layer.flags & 4 and layer.NextProtocol == GPE_MPLS_OR_INT:
            _put_int_if_plausible(layer)
        elif isinstance(layer, GENEVE):
            _put_int_options(layer)
        layer = layer.payload
    while outermost:
        outermost = _keep_bytes(outermost).payload


def _start_in_tcp(tcp: Any) -> int:
    """Where INT stands, if it does, bytes from the TCP header on (docs/wire.md, step 12)."""
    position, after = _config.tcp_int_position, max(5, tcp.dataofs) * 4
    b0, b1, b2 = tcp.original[20:23].ljust(3, b"\0")
    looks_so = (b0 in (1, 2) and b1 == 0 and b2 >= 3) or (b0 in (0x10, 0x20, 0x30) and b1 >= 3)
    if position == "before-options" or (position == "auto" and looks_so):
        return 20
    return after


_LEAST = {Ether: 14, Dot1Q: 4, Dot1AD: 4, IP: 20, IPv6: 40, TCP: 20, UDP: 8}
"""Bytes of the headers around ours."""


def _keep_bytes(layer: Any) -> Any:
    """Bytes of a header that scapy would not build again as they were stay bytes: the options of IP or TCP, or all of
    it and of what follows. Gives the layer that is there then."""
    there = layer.raw_packet_cache
    if there is None:
        return layer
    cut = len(there) < _LEAST.get(type(layer), 0)
    if cut or (isinstance(layer, IP) and (layer.ihl < 5 or len(there) < layer.ihl * 4)):
        under = layer.underlayer
        under.remove_payload()
        under.add_payload(Raw(layer.original))
        return under.payload
    if isinstance(layer, (IP, TCP)):
        options = there[20:]
        if layer.get_field("options").addfield(layer, b"", layer.options) != options:
            layer.fields["options"] = RawVal(options) if isinstance(layer, TCP) else [Raw(options)]
            layer.raw_packet_cache = layer.raw_packet_cache_fields = None
    return layer


def _put_int(l4: Any, start: int, dscp: int, signalled: bool, tunnel: bool) -> None:
    """Replace what is behind a TCP or UDP header by INT, if it is there (docs/wire.md, step 11)."""
    own, padding = l4.original[start:], b""
    layer = l4.payload
    if isinstance(l4, UDP):  # may itself have cut off padding
        own = layer.original if layer and not isinstance(layer, Padding) else b""
    while layer:
        padding += layer.load if isinstance(layer, Padding) else b""
        layer = layer.payload
    mark = _config.int_dscp
    if mark is not None and not signalled:
        signalled = dscp & mark[1] == mark[0]
    asked_for = signalled or (mark is None and not tunnel)
    shim = _shim(own, l4) if asked_for else None
    if shim is None or not _is_plausible(shim):
        whole = _shim(own + padding, l4) if asked_for and padding else None
        if whole is not None and _is_plausible(whole):  # lengths of before INT was added
            shim, padding = whole, b""
        elif shim is None or not signalled or tunnel:
            return
    l4.remove_payload()
    if isinstance(l4, TCP) and start == 20:  # what scapy read as options is INT; they are behind the stack
        l4.fields["options"] = []
        l4.raw_packet_cache = l4.raw_packet_cache_fields = None
    l4.add_payload(shim)
    if padding:
        l4.add_payload(Padding(padding))


def _shim(data: bytes, l4: Any) -> Any:
    """The shim that data begins with, or None."""
    if len(data) < 4:
        return None
    b0 = data[0]
    if b0 in (TYPE_MD, TYPE_DESTINATION) or (
        b0 >> 4 in (TYPE_MD, TYPE_DESTINATION, TYPE_MX) and b0 & 0x0F in (0, 4, 8)
    ):
        return IntShim(data, _internal=1, _underlayer=l4)
    return None


def _is_plausible(shim: Any) -> bool:
    return isinstance(shim.payload, IntMetadata) and shim.payload.is_whole()


def _put_int_if_plausible(vxlan: Any) -> None:
    """Next protocol 5 of VXLAN-GPE is also MPLS."""
    data = bytes(vxlan.payload)
    if len(data) >= 4 and data[0] in (TYPE_MD, TYPE_DESTINATION):
        shim = IntShimGpeV1(data, _internal=1, _underlayer=vxlan)
        if _is_plausible(shim):
            vxlan.remove_payload()
            vxlan.add_payload(shim)


def _put_int_options(geneve: Any) -> None:
    options = [
        IntGeneveOption(bytes(option), _internal=1, _parent=geneve)
        if getattr(option, "classid", 0) == GENEVE_CLASS and option.type in (TYPE_MD, TYPE_MX)
        else option
        for option in geneve.options
    ]
    if any(isinstance(option, IntGeneveOption) for option in options):
        geneve.fields["options"] = options
