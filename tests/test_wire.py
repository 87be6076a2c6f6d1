"""wire.py: the specifications in Python, held against the vectors, bytes written by hand, and itself."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import wire
from intcollector.config import PROFILES, Config, FromFile, Source
from intcollector.layout import MAX_HOPS, OUTCOMES

from . import strategies
from .strategies import MARK, fields_of, items_of, kept, stack_of

VECTORS = json.loads((pathlib.Path(__file__).parent / "data" / "vectors.json").read_text())
GOOD = [v for v in VECTORS if v["outcome"] == "ok"]


def vectors(some: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """A test for each of some."""
    return pytest.mark.parametrize("vector", some, ids=[v["name"] for v in some])


def of(vector: dict[str, Any]) -> tuple[bytes, Config]:
    """A vector's frame and how the collector is set."""
    return bytes.fromhex(vector["packet"]), Config.from_options(vector["options"])


# --- The vectors ------------------------------------------------------------------------------------------------------


@vectors(VECTORS)
def test_vector(vector: dict[str, Any]) -> None:
    """A vector becomes exactly its outcome and reports, keys in the same order, with the first MAX_HOPS hops."""
    frame, config = of(vector)
    want = {"outcome": vector["outcome"], "reports": [kept(report) for report in vector["reports"]]}
    assert json.dumps(wire.decode(frame, config), indent=1) == json.dumps(want, indent=1)


def test_the_vectors_are_of_all_versions() -> None:
    """There are vectors of every Telemetry Report and INT version."""
    reports = [report for vector in GOOD for report in vector["reports"]]
    assert {report["version"] for report in reports} == {"0.5", "1.0", "2.0"}
    assert {report["int"]["version"] for report in reports if report["int"]} == {"0.5", "1.0", "2.x"}


@vectors(VECTORS)
def test_every_prefix(vector: dict[str, Any]) -> None:
    """A frame cut anywhere has an outcome, and reports only if that is an accepted one."""
    frame, config = of(vector)
    for size in range(len(frame)):
        got = wire.decode(frame[:size], config)
        assert got["outcome"] in OUTCOMES, size
        assert bool(got["reports"]) == (got["outcome"] in ACCEPTED), size


ACCEPTED = ("ok", "unknown_encapsulation")


@vectors(GOOD)
def test_round_trip(vector: dict[str, Any]) -> None:
    """A vector's reports, encoded and decoded, are themselves, alone or together."""
    _, config = of(vector)
    reports = vector["reports"]
    spellings = [spelling(report, config) for report in reports]
    want = [kept(report) for report in reports]
    assert wire.decode(wire.encode_group(reports, config, spellings), config) == {"outcome": "ok", "reports": want}
    for report, how, one in zip(reports, spellings, want, strict=True):
        assert wire.decode(encoded(report, config, how), config) == {"outcome": "ok", "reports": [one]}


def spelling(report: wire.Report, config: Config) -> wire.Spelling:
    """How a report is written. INT 2.x without the configured mark is signalled by the UDP port; a domain id other than
    0, which no report tells, allows hops of any length."""
    stack = report["int"]
    if not stack or stack["version"] != "2.x":
        return wire.Spelling()
    marked = config.int_dscp is None or report["flow"]["dscp"] == config.int_dscp[0]
    return wire.Spelling(npt=0 if marked else 1 if report["flow"]["protocol"] == 17 else 2, domain_id=strategies.DOMAIN)


def encoded(report: wire.Report, config: Config, how: wire.Spelling, **options: Any) -> bytes:
    """A report as a frame."""
    return wire.encode_group([report], config, [how], **options)


@vectors(GOOD)
def test_mutations(vector: dict[str, Any]) -> None:
    """Damaged frames have an outcome, are as many as asked for, and the same for the same seed."""
    frame, config = of(vector)
    damaged = list(wire.mutations(frame, 100, seed=7))
    assert len(damaged) == 100
    assert damaged == list(wire.mutations(frame, 100, seed=7))
    assert damaged != list(wire.mutations(frame, 100, seed=8))
    for each in damaged:
        got = wire.decode(each, config)
        assert got["outcome"] in OUTCOMES, each.hex()
        assert bool(got["reports"]) == (got["outcome"] in ACCEPTED), each.hex()


def test_mutations_reach_every_layer() -> None:
    """Damage to one good frame ends in outcomes of the outer headers, the report, the inner packet, INT, and none."""
    frame, config = of(next(v for v in GOOD if v["name"] == "v10_all8_3hop"))
    outcomes = {wire.decode(each, config)["outcome"] for each in wire.mutations(frame, 5000, seed=1)}
    assert outcomes >= {
        "ok", "pass_not_ip", "pass_port", "trunc_frame", "bad_udp_len", "bad_report_ver", "bad_report_len",
        "trunc_inner", "bad_inner_ip", "bad_shim_type", "bad_int_ver", "hop_ml_mismatch", "stack_not_multiple",
        "trunc_stack",
    }  # fmt: skip


def test_an_empty_frame_cannot_be_damaged() -> None:
    """Mutations of nothing are refused."""
    with pytest.raises(ValueError, match="empty"):
        next(wire.mutations(b"", 1, seed=0))


@vectors([v for v in VECTORS if v["outcome"] == "ok" and v["name"] != "v10_ethernet_trailer"])
def test_fit_lengths_of_a_right_frame(vector: dict[str, Any]) -> None:
    """The lengths and checksum of a frame that has the right ones stay."""
    frame, _ = of(vector)
    assert wire.fit_lengths(frame) == frame


def test_udp_checksum_over_ipv6() -> None:
    """The UDP checksum of an encoded IPv6 frame is what a sum over the pseudo header makes 0xFFFF."""
    frame = wire.encode(REPORT | {"source": "2001:db8::1"}, SPEC, payload=b"odd")
    udp = frame[54:]
    pseudo = frame[22:54] + len(udp).to_bytes(4, "big") + bytes((0, 0, 0, 17))
    padded = (pseudo + udp).ljust((len(pseudo + udp) + 1) // 2 * 2, b"\0")
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    assert total % 0xFFFF == 0
    assert udp[6:8] != b"\0\0"


# --- Bytes by hand ----------------------------------------------------------------------------------------------------

SPEC = Config(int_dscp=MARK)

OUTER = (
    "020000000001 020000000002 0800"  # Ethernet: destination, source, IPv4
    "45 00 0096 0000 4000 40 11 b557"  # version 4, IHL 5 | DSCP | total length 150 | id | DF | TTL 64 | UDP | checksum
    "c0000201 c00002fe"  # source 192.0.2.1, destination 192.0.2.254
    "0000 d431 0082 0000"  # UDP: source port 0, destination port 54321, length 130, no checksum
)
REPORT_HEADER = (
    "16 11 01 45"  # Ver 1, Length 6 | NProto 0, RepMdBits 10001.. | ..0, reserved, D | no Q, F, hw_id 5
    "0a0b0c0d"  # switch id
    "00000102"  # sequence number
    "20000000"  # ingress timestamp
    "0003 ffff"  # RepMdBit 0: ingress port 3, egress port none
    "02 47 0000"  # RepMdBit 4: queue id 2, drop reason 71, pad
)
INNER = (
    "00aa00000002 00aa00000001 8100 0064 0800"  # Ethernet: destination, source, tag, VLAN 100, IPv4
    "45 5c 0050 0000 0000 40 11 663c"  # DSCP 23 | total length 80 | id | fragment | TTL 64 | UDP | checksum
    "0a010001 0a020002"  # source 10.1.0.1, destination 10.2.0.2
    "9c40 1389 003c 0000"  # UDP: 40000 -> 5001, length 60, no checksum
)
STACK = (
    "01 00 0c 00"  # shim: type 1 | reserved | Length 12 = shim 1 + header 2 + stack 9 | DSCP
    "10 00 09 0d"  # Ver 1, Rep 0, no C, no E | no M, reserved | Hop ML 9 | remaining 13
    "ff00 0000"  # instruction bitmap | reserved
    "00000003"  # bit 0: switch id
    "000d 0017"  # bit 1: ingress port, egress port
    "00000067"  # bit 2: hop latency
    "03 00012f"  # bit 3: queue id, queue occupancy
    "10000bb8"  # bit 4: ingress timestamp
    "10000c1f"  # bit 5: egress timestamp
    "a0000003 b0000003"  # bit 6: level-2 ingress port, egress port
    "0000138b"  # bit 7: egress port TX utilization
)
PAYLOAD = "70696e67"  # what the packet carried: "ping"

REPORT: wire.Report = {
    "version": "1.0",
    "source": "192.0.2.1",
    "switch_id": 0x0A0B0C0D,
    "hw_id": 5,
    "sequence_number": 258,
    "ingress_timestamp": 0x20000000,
    "dropped": True,
    "congested_queue": False,
    "tracked_flow": True,
    "intermediate": False,
    "local_hop": {"ingress_port_id": 3, "egress_port_id": 65535, "drop_queue_id": 2, "drop_reason": 71},
    "flow": {
        "vlan_ids": [100],
        "ip_version": 4,
        "source": "10.1.0.1",
        "destination": "10.2.0.2",
        "protocol": 17,
        "source_port": 40000,
        "destination_port": 5001,
        "dscp": 23,
    },
    "int": {
        "version": "1.0",
        "mode": "MD",
        "instruction_bitmap": "0xff00",
        "hop_ml": 9,
        "remaining_hop_count": 13,
        "hop_count": 1,
        "hops": [
            {
                "switch_id": 3,
                "ingress_port_id": 13,
                "egress_port_id": 23,
                "hop_latency": 103,
                "queue_id": 3,
                "queue_occupancy": 303,
                "ingress_timestamp": 0x10000BB8,
                "egress_timestamp": 0x10000C1F,
                "l2_ingress_port_id": 0xA0000003,
                "l2_egress_port_id": 0xB0000003,
                "egress_port_tx_utilization": 5003,
            }
        ],
        "latency": 103,
    },
}


def test_a_report_byte_by_byte() -> None:
    """The bytes drawn above are the report above, in both directions."""
    frame = bytes.fromhex(OUTER + REPORT_HEADER + INNER + STACK + PAYLOAD)
    assert wire.decode(frame, SPEC) == {"outcome": "ok", "reports": [REPORT]}
    assert wire.encode(REPORT, SPEC, payload=b"ping") == frame


def carrying(after_udp: str, dscp: int = MARK[0], port: int = 5001, protocol: int = 17) -> bytes:
    """A frame whose inner packet goes on with these bytes (hex) behind its UDP header, or behind the ports of TCP."""
    flow = REPORT["flow"] | {"dscp": dscp, "destination_port": port, "protocol": protocol}
    return wire.encode(REPORT | {"flow": flow, "int": None}, SPEC, payload=bytes.fromhex(after_udp))


def the_report(frame: bytes, config: Config) -> wire.Report:
    """The report of a frame that has to have one."""
    got = wire.decode(frame, config)
    assert got["outcome"] == "ok"
    (report,) = got["reports"]
    assert isinstance(report, dict)
    return report


def test_int_2_with_domain_specific_and_source_only_words() -> None:
    """INT 2.x: what a domain puts behind the baseline and what only the source adds are skipped, the rest is read."""
    frame = carrying(
        "10 0d 00 00"  # shim: type 1, NPT 0 | Length 13 = header 3 + stack 8 + source only 2
        "20 00 04 06"  # Ver 2, no D, E, M | reserved | Hop ML 4 | remaining 6
        "8401 5453"  # instruction bitmap: bits 0, 5, 15 would be 4 words | domain id
        "8000 0000"  # domain instruction | flags
        "00000002 aabbccdd 11223344 c0de0002"  # a hop of Hop ML 4 words
        "00000001 aabbccdd 11223344 c0de0001"
        "deadbeef deadbeef",  # source only
    )
    config = Config(int_dscp=MARK, source_only_words=((0x5453, 2),))
    stack = the_report(frame, config)["int"]
    assert stack["hop_count"] == 2
    assert stack["hops"] == [
        {"switch_id": 2, "egress_timestamp": 0xAABBCCDD11223344, "checksum_complement": 0xC0DE0002},
        {"switch_id": 1, "egress_timestamp": 0xAABBCCDD11223344, "checksum_complement": 0xC0DE0001},
    ]
    assert wire.decode(frame, Config(int_dscp=MARK))["outcome"] == "stack_not_multiple"
    more = dataclasses.replace(config, source_only_words=((0x5453, 11),))
    assert wire.decode(frame, more)["outcome"] == "stack_not_multiple"  # one more than there are words at all
    assert wire.decode(wire.fit_lengths(frame[:-1]), config)["outcome"] == "trunc_stack"  # in the source only words


def test_domain_specific_words_stand_before_the_checksum_complement() -> None:
    """INT 2.x: the checksum complement is the last word of a hop's Hop ML words, not the next of the bitmap's."""
    frame = carrying("10 06 00 00 20 00 03 06 8001 5453 8000 0000 00000002 aabbccdd c0de0002")
    assert the_report(frame, SPEC)["int"]["hops"] == [{"switch_id": 2, "checksum_complement": 0xC0DE0002}]


def test_int_0_5_in_a_report_1_0() -> None:
    """INT 0.5: bit 6 is queue congestion, the tail is counted in Length, hop counts come from Length."""
    frame = carrying(
        "01 00 06 00"  # shim: type 1 | reserved | Length 6 = shim 1 + header 2 + stack 2 + tail 1 | reserved
        "00 02 08 01"  # Ver 0, no Rep, C, E | Ins Cnt 2 | max hops 8 | total hops 1
        "8200 0000"  # instruction bitmap: bits 0, 6 | reserved
        "00000007"  # bit 0: switch id
        "09 000123"  # bit 6: queue id, queue congestion
        "11 1388 00"  # tail: UDP | original port | original DSCP
    )
    assert the_report(frame, SPEC)["int"] == {
        "version": "0.5",
        "mode": "MD",
        "instruction_bitmap": "0x8200",
        "hop_ml": None,
        "remaining_hop_count": None,
        "hop_count": 1,
        "hops": [{"switch_id": 7, "congested_queue_id": 9, "queue_congestion": 0x123}],
        "latency": None,
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_of_int_1_0(profile: str) -> None:
    """INT 0.5 and 2.x are laid out as specified, whatever the profile."""
    config = Config(int_dscp=MARK, profile=profile)
    frame = carrying("01 00 06 00 00 02 08 01 1200 0000 03 000005 09 000123 11 1388 00")
    assert the_report(frame, config)["int"]["hops"] == [
        {"queue_id": 3, "queue_occupancy": 5, "congested_queue_id": 9, "queue_congestion": 0x123}
    ]
    frame = carrying("10 06 00 00 20 00 03 08 1200 0000 0000 0000 03 000005 00000001 00000002")
    assert the_report(frame, config)["int"]["hops"] == [
        {"queue_id": 3, "queue_occupancy": 5, "l2_ingress_port_id": 1, "l2_egress_port_id": 2}
    ]


def test_intcollector_profile_splits_queue_and_level_2_words_in_halves() -> None:
    """Profile intcollector: queue id and occupancy are 16 bits each, so are level-2 ports, and report Length 1 is 4."""
    frame = carrying("01 00 05 00 00 00 02 0a 1200 0000 0005 0009 0001 0002")
    config = Config(int_dscp=MARK, profile="intcollector")
    assert the_report(frame, config)["int"]["hops"] == [
        {"queue_id": 5, "queue_occupancy": 9, "l2_ingress_port_id": 1, "l2_egress_port_id": 2}
    ]
    report = REPORT | {"local_hop": None, "int": None, "flow": REPORT["flow"] | {"dscp": 0}}
    short = wire.encode(report, config, report_length=1)
    assert the_report(short, config) == report
    assert wire.decode(short, SPEC)["outcome"] == "bad_report_len"


def test_npt_2_tells_the_flow_behind_the_stack() -> None:
    """INT 2.x, NPT 2: protocol and ports are those of the header behind the stack; cut off, the ports are null."""
    shim = "18 04 00 06 20 00 01 06 8000 0000 0000 0000 00000002 "  # NPT 2, Length 4, TCP
    flow = the_report(carrying(shim + "01bb d431 00000000", port=33122), SPEC)["flow"]
    assert (flow["protocol"], flow["source_port"], flow["destination_port"]) == (6, 443, 54321)
    flow = the_report(carrying(shim + "01bb d4", port=33122), SPEC)["flow"]
    assert (flow["protocol"], flow["source_port"], flow["destination_port"]) == (6, None, None)


@pytest.mark.parametrize(
    ("behind_udp", "dscp", "port", "want"),
    [
        ("02 00 00 00", 23, 5001, "ok"),  # type 2, destination: nothing to read, whatever its Length
        ("20 00 00 00", 23, 5001, "ok"),  # ... of INT 2.x
        ("1c 04 00 00", 23, 5001, "bad_shim_type"),  # NPT 3
        ("11 04 00 00", 23, 5001, "bad_shim_type"),  # reserved bits make it neither 1.0 nor 2.x
        ("10 02 00 00", 23, 5001, "bad_shim_len"),
        ("10 04 00 00 20 00 01 06 8000 0000 0000", 23, 5001, "trunc_md_hdr"),  # 10 of 12 bytes
        ("10 04 00 00 10 00 01 06 8000 0000 0000 0000 00000001", 23, 5001, "bad_int_ver"),
        ("10 03 00 00 20 00 01 06 8000 0000 0000 0000", 23, 5001, "ok"),  # no hop yet
        ("10 05 00 00 20 00 03 06 8000 5453 0000 0000 00000001 00000001", 23, 5001, "stack_not_multiple"),
        ("10 04 00 00 20 00 01 06 c000 5453 0000 0000 00000001", 23, 5001, "hop_ml_mismatch"),  # fewer than the bits'
        ("30 05 00 00 20 00 00 00 9000 0000 0000 0000", 23, 5001, "ok"),  # MX: nothing behind its header is read
        ("01 00 03 00 00 01 08 01 8000 0000", 23, 5001, "bad_shim_len"),  # INT 0.5 counts a tail
        ("01 00 05 00 00 01 08 01 8000 0000 00000001", 23, 5001, "trunc_stack"),  # ... which has to be there
        ("01 00 05 00 00 20 08 01 0000 0000 00000001 00000001", 23, 5001, "hop_ml_zero"),  # 0.5 by a reserved bit
        ("01 00 06 00 10 00 02 06 c000 0000", 23, 5001, "stack_not_multiple"),  # named before trunc_stack
        ("01 00 05 00 10 00 02 06 c000 0000", 23, 5001, "trunc_stack"),
        ("01 00 05 00 10 00 03 06 c000 0000", 23, 5001, "hop_ml_mismatch"),  # named before trunc_stack
        ("01 00 05 00 10 00 02 06 c000 0000", 0, 33122, "trunc_stack"),  # the port signals INT as well
        ("01 00 05 00 10 00 02 06 c000 0000", 0, 5001, "ok"),  # not marked: not looked at
    ],
)
def test_what_follows_udp(behind_udp: str, dscp: int, port: int, want: str) -> None:
    """What must be INT is read or refused in the order of docs/wire.md."""
    assert wire.decode(carrying(behind_udp, dscp, port), SPEC)["outcome"] == want


@pytest.mark.parametrize("behind_udp", ["", "01", "01000500 10000206 c0000000", "01000400 10000106 80000000 00000007"])
def test_without_a_mark_int_has_to_be_plausible(behind_udp: str) -> None:
    """No mark configured: what reads as INT is INT, and what does not is a report without, not a malformed one."""
    stack = the_report(carrying(behind_udp, dscp=0), Config())["int"]
    assert (stack["hops"] if stack else None) == ([{"switch_id": 7}] if behind_udp.endswith("07") else None)


def test_a_masked_mark() -> None:
    """Of a mark with a mask only the mask's bits have to agree."""
    frame = wire.encode(REPORT, SPEC)  # DSCP 010111
    assert the_report(frame, Config(int_dscp=(0b000001, 0b000001))) == REPORT
    assert the_report(frame, Config(int_dscp=(0b001000, 0b001000))) == REPORT | {"int": None}


def test_the_int_port_is_of_udp_only() -> None:
    """A TCP port does not signal INT, whatever its number."""
    flow = REPORT["flow"] | {"protocol": 6, "destination_port": 33122, "dscp": 0}
    frame = wire.encode(REPORT | {"flow": flow}, SPEC)
    assert the_report(frame, SPEC) == REPORT | {"flow": flow, "int": None}


@pytest.mark.parametrize("position", ["before-options", "after-options"])
@pytest.mark.parametrize("version", ["0.5", "1.0", "2.x"])
def test_tcp_options(version: str, position: str) -> None:
    """INT is found before and after TCP options without being told where, and not where it is told wrongly."""
    flow = REPORT["flow"] | {"protocol": 6}
    report = REPORT | {"flow": flow, "int": stack_of(version, "spec", 0x8000, [{"switch_id": 7}], 0)}
    options = bytes.fromhex("0101080a 00112233 00445566")
    frame = wire.encode(report, SPEC, tcp_options=options, tcp_int_position=position)
    other = "after-options" if position == "before-options" else "before-options"
    assert the_report(frame, SPEC) == report
    assert the_report(frame, dataclasses.replace(SPEC, tcp_int_position=position)) == report
    assert wire.decode(frame, dataclasses.replace(SPEC, tcp_int_position=other))["outcome"] != "ok"


@pytest.mark.parametrize(
    ("at", "value", "want"),
    [
        (20, 0x20, "pass_fragment"),  # more fragments: the first of several
        (20, 0x80, "ok"),  # the reserved bit means nothing
        (39, 0x83, "bad_udp_len"),  # one more than the IP payload's 130
        (39, 0x81, "ok"),  # one less: the last byte of the payload is not ours
        (38, 0xFF, "bad_udp_len"),
    ],
)
def test_outer_fields(at: int, value: int, want: str) -> None:
    """One changed byte of the outer headers decides."""
    frame = bytearray.fromhex(OUTER + REPORT_HEADER + INNER + STACK + PAYLOAD)
    frame[at] = value
    assert wire.decode(bytes(frame), SPEC)["outcome"] == want


def test_report_metadata_of_unknown_bits_is_skipped() -> None:
    """A report Length beyond what its RepMdBits need is honoured: what lies between is skipped."""
    frame = wire.encode(REPORT, SPEC)
    at = 14 + 20 + 8
    longer = frame[:at] + b"\x18" + frame[at + 1 : at + 24] + b"\x55" * 8 + frame[at + 24 :]
    assert wire.decode(wire.fit_lengths(longer), SPEC) == {"outcome": "ok", "reports": [REPORT]}


@pytest.mark.parametrize("hop_count", [MAX_HOPS - 1, MAX_HOPS, MAX_HOPS + 1, 28, 252])
def test_more_hops_than_are_kept(hop_count: int) -> None:
    """Of more than MAX_HOPS hops the first are kept, the count is the true one and the latency the sum of all."""
    hops = [{"hop_latency": 1000 + i} for i in range(hop_count)]
    stack = {"instruction_bitmap": "0x2000", "hop_ml": 1, "hop_count": hop_count, "hops": hops}
    got = the_report(wire.encode(REPORT | {"int": REPORT["int"] | stack}, SPEC), SPEC)["int"]
    assert got["hop_count"] == hop_count
    assert got["hops"] == hops[:MAX_HOPS]
    assert got["latency"] == sum(1000 + i for i in range(hop_count))
    assert got.get("hops_truncated", False) == (hop_count > MAX_HOPS)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", ["0.5", "1.0", "2.x"])
def test_all_ones_is_no_value_in_a_stack(version: str, profile: str) -> None:
    """A hop of all ones has every field of its bitmap, and no value in any; one bit less is a value."""
    config = dataclasses.replace(SPEC, profile=profile)
    items = items_of(version, profile)
    bitmap = 0xFF81
    nothing = {name: None for name, _ in fields_of(bitmap, items)}
    nearly = {name: wire.ones(width) - 1 for name, width in fields_of(bitmap, items)}
    report = REPORT | {"int": stack_of(version, profile, bitmap, [nothing, nearly], 0)}
    frame = wire.encode(report, config)
    assert b"\xff" * 4 * wire.words(bitmap, items) in frame
    assert wire.decode(frame, config)["reports"] == [report]


def test_all_ones_are_a_number_beside_the_stack() -> None:
    """What the reporting switch says of itself, and the report header, are as on the wire, all ones too."""
    items = wire.REPORT_METADATA_1_0
    local = {name: wire.ones(width) for name, width in fields_of(0xFC00, items)}
    header = {"switch_id": 0xFFFFFFFF, "hw_id": 63, "sequence_number": 0xFFFFFFFF, "ingress_timestamp": 0xFFFFFFFF}
    report = REPORT | header | {"local_hop": local}
    assert the_report(wire.encode(report, SPEC), SPEC) == report


def test_addresses_are_spelt_as_the_c_library_does() -> None:
    """An IPv4 address inside an IPv6 one is written with dots, whichever Python reads it."""
    report = REPORT | {"source": "::ffff:192.0.2.1"}
    assert the_report(wire.encode(report, SPEC), SPEC)["source"] == "::ffff:192.0.2.1"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"version": "3.0"}, {}, "Telemetry Report '3.0'"),
        ({"hw_id": 64}, {}, "hw_id = 64 does not fit into 6 bits"),
        ({"int": REPORT["int"] | {"hop_count": 2}}, {}, "2 hops are said to be there, 1 are"),
        ({"int": REPORT["int"] | {"version": "3.0"}}, {}, "INT '3.0'"),
        ({"int": REPORT["int"] | {"version": "0.5", "instruction_bitmap": "0x0000"}}, {}, "without instructions"),
        ({}, {"npt": 1}, "INT 1.0 has no NPT"),
        ({}, {"nproto": "ipv4"}, "VLANs"),
        ({}, {"outer_options": b"\x01"}, "whole words"),
        ({"source": "2001:db8::1"}, {"outer_options": b"\x01" * 4}, "only IPv4"),
        ({"flow": REPORT["flow"] | {"source_port": None}}, {}, "INT needs a UDP or TCP header"),
        ({"flow": REPORT["flow"] | {"protocol": 6}}, {"tcp_options": b"\x01" * 44}, "at most ten"),
        ({"int": REPORT["int"] | {"version": "2.x"}}, {"npt": 3}, "NPT 3 is not defined"),
        ({"flow": REPORT["flow"] | {"protocol": 6}, "int": REPORT["int"] | {"version": "2.x"}}, {"npt": 1}, "only UDP"),
        (
            {"flow": REPORT["flow"] | {"source_port": None}, "int": REPORT["int"] | {"version": "2.x"}},
            {"npt": 2},
            "later fragment",
        ),
        (
            {
                "flow": REPORT["flow"] | {"ip_version": 6, "source": "::1", "destination": "::2", "source_port": None},
                "int": None,
            },
            {},
            "later fragment of IPv6",
        ),
    ],
)
def test_what_cannot_be_encoded(change: wire.Report, options: dict[str, Any], message: str) -> None:
    """A report that the headers cannot carry is refused with what does not fit."""
    with pytest.raises(ValueError, match=message):
        wire.encode(REPORT | change, SPEC, **options)


def test_encode_writes_what_the_options_say() -> None:
    """Ports, addresses and tags of the outer frame are where other readers look for them."""
    frame = wire.encode(
        REPORT,
        SPEC,
        source_mac=bytes.fromhex("0a0000000001"),
        destination_mac=bytes.fromhex("0a0000000002"),
        outer_vlans=(7, 4095),
        outer_options=bytes.fromhex("94040000"),  # router alert
        collector="198.51.100.1",
        udp_source_port=1234,
        destination_port=6000,
    )
    assert frame[:22] == bytes.fromhex("0a0000000002 0a0000000001 88a8 0007 8100 0fff 0800")
    assert frame[22] == 0x46
    assert frame[22 + 16 : 22 + 24] == bytes.fromhex("c6336401 94040000")
    assert frame[46:50] == bytes.fromhex("04d2 1770")
    assert wire.decode(frame, SPEC)["outcome"] == "pass_port"
    assert the_report(frame, dataclasses.replace(SPEC, port=(54321, 6000))) == REPORT


# --- Telemetry Report 0.5 ---------------------------------------------------------------------------------------------


def framed(payload: str | bytes, source: str = "192.0.2.1") -> bytes:
    """A frame around a UDP payload (bytes, or hex) to the collector's port."""
    data = bytes.fromhex(payload) if isinstance(payload, str) else payload
    return wire.write_outer(source, None, data, bytes(14), (), b"", 0, 54321)


SMALL = "00aa00000002 00aa00000001 0806"  # an inner packet that is not IP
NO_FLOW = wire.no_flow([])


@pytest.mark.parametrize(
    ("header", "behind", "local_hop"),
    [
        ("00", "", None),
        (
            "01",
            "0a0b0c0d 0003 ffff ff 47 0000",  # switch id | ports | queue id, drop reason, pad
            {"ingress_port_id": 3, "egress_port_id": 65535, "drop_queue_id": 255, "drop_reason": 71},
        ),
        (
            "02",
            "0a0b0c0d 0003 0004 05 ffffff 20000067",  # switch id | ports | queue id, occupancy | egress timestamp
            {
                "ingress_port_id": 3,
                "egress_port_id": 4,
                "queue_id": 5,
                "queue_occupancy": 0xFFFFFF,
                "egress_timestamp": 0x20000067,
            },
        ),
    ],
    ids=["ethernet", "drop", "local"],
)
def test_report_0_5_byte_by_byte(header: str, behind: str, local_hop: wire.Report | None) -> None:
    """Each kind of Telemetry Report 0.5 is read and written as drawn, its numbers as they are on the wire."""
    flags = "a0 00 05"  # D, no Q, F | reserved | hw_id 5
    frame = framed(header + flags + "00000102 20000000" + behind + SMALL)
    report = {
        "version": "0.5",
        "source": "192.0.2.1",
        "switch_id": None if local_hop is None else 0x0A0B0C0D,
        "hw_id": 5,
        "sequence_number": 258,
        "ingress_timestamp": 0x20000000,
        "dropped": True,
        "congested_queue": False,
        "tracked_flow": True,
        "intermediate": False,
        "local_hop": local_hop,
        "flow": NO_FLOW,
        "int": None,
    }
    assert wire.decode(frame, SPEC) == {"outcome": "ok", "reports": [report]}
    assert wire.encode(report, SPEC, source_mac=bytes(6), destination_mac=bytes(6)) == frame


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        ("03000000 00000000 000000", "trunc_report"),  # 11 bytes; named before the NProto
        ("03000000 00000000 00000000", "unsupported_nproto"),
        ("0f000000 00000000 00000000", "unsupported_nproto"),
        ("01000000 00000000 00000000" + "00" * 11, "trunc_report_md"),
        ("02000000 00000000 00000000" + "00" * 15, "trunc_report_md"),
        ("00000000 00000000 00000000" + "00" * 13, "trunc_inner"),
        ("02000000 00000000 00000000" + "00" * 16 + "00" * 13, "trunc_inner"),
        ("001fffc0 00000000 00000000" + SMALL, "ok"),  # reserved bits mean nothing
    ],
)
def test_report_0_5_refused(payload: str, want: str) -> None:
    """Telemetry Report 0.5 is refused in the order of docs/wire.md."""
    assert wire.decode(framed(payload), SPEC)["outcome"] == want


# --- Telemetry Report 2.0 ---------------------------------------------------------------------------------------------

GROUP = "2150002a 0a0b0c0d "  # Ver 2, hw_id 5, sequence number 0x10002a | node id
SEQUENCE = 0x10002A


def report_2_0(**more: Any) -> wire.Report:
    """A report of GROUP with no flag set and nothing in it but what more says."""
    return {
        "version": "2.0",
        "source": "192.0.2.1",
        "switch_id": 0x0A0B0C0D,
        "hw_id": 5,
        "sequence_number": SEQUENCE,
        "ingress_timestamp": None,
        "dropped": False,
        "congested_queue": False,
        "tracked_flow": False,
        "intermediate": False,
        "local_hop": None,
        "flow": None,
        "int": None,
    } | more


EVERY_METADATA = (
    "7f81 0000 0000 0000"  # RepMdBits 1 to 8, 15 | domain id | DSMdBits | status
    "0001 ffff"  # 1: ports
    "ffffffff"  # 2: hop latency
    "03 000004"  # 3: queue id, occupancy
    "00000001 00000002"  # 4: ingress timestamp
    "ffffffff ffffffff"  # 5: egress timestamp
    "00000005 00000006"  # 6: level-2 ports
    "00000007"  # 7: TX utilization
    "08 000009"  # 8: buffer id, occupancy
    "0a 0b 0000"  # 15: queue id, drop reason, pad
)
EVERY_FIELD = {
    "ingress_port_id": 1,
    "egress_port_id": 65535,
    "hop_latency": 0xFFFFFFFF,
    "queue_id": 3,
    "queue_occupancy": 4,
    "ingress_timestamp": 0x1_0000_0002,
    "egress_timestamp": wire.ones(64),
    "l2_ingress_port_id": 5,
    "l2_egress_port_id": 6,
    "egress_port_tx_utilization": 7,
    "buffer_id": 8,
    "buffer_occupancy": 9,
    "drop_queue_id": 10,
    "drop_reason": 11,
}


def test_reports_2_0_byte_by_byte() -> None:
    """A group of Telemetry Report 2.0 is read and written as drawn: three reports, of which one has every metadata."""
    payload = (
        GROUP + "10 0e 0c 90"  # RepType 1, InType 0 | Report Length 14 | MD Length 12 | D, I
        f"{EVERY_METADATA}"
        "03 04 00 60"  # RepType 0, InType 3 | Report Length 4 | MD Length 0 | Q, F
        f"{SMALL} 0000"  # whole words of it
        "00 00 00 00"
    )
    reports = [
        report_2_0(dropped=True, intermediate=True, local_hop=EVERY_FIELD),
        report_2_0(congested_queue=True, tracked_flow=True, flow=NO_FLOW),
        report_2_0(),
    ]
    frame = framed(payload)
    assert wire.decode(frame, SPEC) == {"outcome": "ok", "reports": reports}
    assert list(wire.decode(frame, SPEC)["reports"][0]["local_hop"]) == list(EVERY_FIELD)
    assert wire.encode_group(reports, SPEC, source_mac=bytes(6), destination_mac=bytes(6)) == frame


EMPTY = "00 00 00 00 "
"""An individual report of RepType 0 with nothing in it."""


@pytest.mark.parametrize(
    ("behind_group", "want"),
    [
        ("", "no_individual"),
        ("00", "trunc_indiv"),
        ("000000", "trunc_indiv"),
        (EMPTY, 1),
        (EMPTY + "ffffff", 1),  # padding
        (EMPTY + EMPTY + "ff", 2),
        ("00 01 00 00", "bad_indiv_len"),
        ("00 01 00 00 000000", "bad_indiv_len"),
        (EMPTY + "00 01 00 00", "bad_indiv_len"),  # the second; the first is not kept
        ("20 02 ff 00 0000000000000000" + EMPTY, 2),  # RepType 2: skipped, MD Length too
        ("f3 00 00 00", 1),  # RepType 15: no inner packet is looked for
        ("00 00 ff 00", 1),  # RepType 0: MD Length is ignored
        ("02 00 00 00 06 00 00 00 0f 00 00 00", 3),  # InTypes without an inner packet
        ("03 00 00 00", "trunc_inner"),
        ("05 00 00 00", "trunc_inner"),
        ("00 ff 00 00", 1),  # to the end, which is here
        ("00 ff 00 00" + "00" * 2000, 1),
        ("00 ff 00 00 0000", 1),
        (f"03 ff 00 00 {SMALL}", 1),  # not whole words
        ("10 ff 00 00 00000000 000000", "bad_indiv_len"),
        ("10 00 00 00", "bad_indiv_len"),
        ("10 01 00 00 00000000", "bad_indiv_len"),
        ("10 02 00 00 00000000 00000000", 1),
        ("10 02 01 00 ffff0000 00000000" + EMPTY, "bad_indiv_len"),  # named before md_len_too_small
        ("10 03 01 00 48000000 00000000 00000000", "md_len_too_small"),  # bit 4 is two words
        ("10 03 01 00 06000000 00000000 00000000", "md_len_too_small"),  # so are 5 and 6
        ("10 03 01 00 80400000 00000000 00000000", "md_len_too_small"),  # bit 0 and reserved ones are one
        ("10 04 02 00 80400000 00000000 00000000 00000000", 1),
        (f"13 03 00 00 40000000 00000000 00000000 03 04 00 00 {SMALL}0000", "md_len_too_small"),  # of the first error
        ("03 01 00 00 00000000 01 01 00 00 10ff0000", "trunc_inner"),  # ... too
    ],
)
def test_individual_reports(behind_group: str, want: str | int) -> None:
    """Individual reports are read to the end, or the first error in the order of the bytes is the packet's."""
    got = wire.decode(framed(GROUP + behind_group), SPEC)
    assert (len(got["reports"]) if got["outcome"] == "ok" else got["outcome"]) == want


@pytest.mark.parametrize("size", range(4, 8))
def test_a_group_header_cut(size: int) -> None:
    """A group header of fewer than 8 bytes is trunc_report."""
    assert wire.decode(framed(bytes.fromhex(GROUP)[:size]), SPEC)["outcome"] == "trunc_report"


def test_reserved_metadata_bits_are_a_local_hop_without_fields() -> None:
    """RepMdBits of which none has a meaning are no null: the switch sent them."""
    (report,) = wire.decode(framed(GROUP + "10 04 02 00 8040 0000 00000000 00000000 00000000"), SPEC)["reports"]
    assert report["local_hop"] == {}
    assert the_report(wire.encode(report, SPEC), SPEC) == report


def test_domain_specific_metadata_is_skipped() -> None:
    """MD Length counts what a domain adds behind the baseline; the inner packet begins behind it."""
    report = report_2_0(local_hop={"hop_latency": 3}, flow=NO_FLOW)
    frame = wire.encode(report, SPEC, domain_metadata=b"\x55" * 8)
    assert b"\x13\x09\x03\x00\x20\0\0\0\0\0\0\0\0\0\0\x03" + b"\x55" * 8 in frame
    assert the_report(frame, SPEC) == report


def ipv4_hex(name: int) -> str:
    """A whole IPv4 packet of no known protocol from 10.0.name.1, hex."""
    return f"45000014 00000000 40fd0000 0a00{name:02x}01 0a000001"


@pytest.mark.parametrize(
    ("tlvs", "want"),
    [
        ("", None),
        ("ffffff", None),  # too short for a TLV
        ("00 00 0000", None),
        ("00 01 ffff ffffffff 2f 05 0000" + ipv4_hex(1), 1),  # others are skipped, reserved bits and template ignored
        ("20 05 0000" + ipv4_hex(1) + "20 05 0000" + ipv4_hex(2), 1),  # the first
        ("20 05 0000" + ipv4_hex(1) + "30 01 0000 00000000", 1),  # another is not looked at
        ("20 04 0000" + ipv4_hex(1), "trunc_inner"),  # the packet ends with its TLV
        ("10 05 0000" + ipv4_hex(1), None),  # Ethernet, whose type is not IP
        ("30 05 0000" + ipv4_hex(1), "trunc_inner"),
        ("40 05 0000" + ipv4_hex(1), None),
        ("20 06 0000" + ipv4_hex(1), "bad_tlv"),
        ("20 04 0000" + ipv4_hex(1)[:-9] + "00 01 0000", "bad_tlv"),  # behind a packet that is none
        ("00 01 0000", "bad_tlv"),
        ("00 00 0000" * 30 + "20 05 0000" + ipv4_hex(9), 9),  # any number of them
    ],
)
@pytest.mark.parametrize("to_the_end", [False, True])
def test_tlvs(tlvs: str, want: int | str | None, to_the_end: bool) -> None:
    """The first TLV that is an inner packet is it; all are walked before it is looked at."""
    data = bytes.fromhex(tlvs)
    if not to_the_end:
        data = data.ljust(-(-len(data) // 4) * 4, b"\xff")
        if len(data) != len(bytes.fromhex(tlvs)):
            want = "bad_tlv"  # a whole word is one more
    header = bytes((0x01, 0xFF if to_the_end else len(data) // 4, 0, 0))
    got = wire.decode(framed(bytes.fromhex(GROUP) + header + data), SPEC)
    if isinstance(want, str):
        assert got == {"outcome": want, "reports": []}
    else:
        (report,) = got["reports"]
        source = (report["flow"] or NO_FLOW)["source"]
        assert source == (None if want is None else f"10.0.{want}.1")


@pytest.mark.parametrize("start", ["ethernet", "ipv4"])
def test_a_packet_in_a_tlv(start: str) -> None:
    """A report is the same with its inner packet in a TLV among others, and with main contents before them."""
    report = REPORT | {"version": "2.0", "sequence_number": 7, "ingress_timestamp": None}
    if start == "ipv4":
        report |= {"flow": report["flow"] | {"vlan_ids": []}}
    frame = wire.encode(report, SPEC, nproto=start, tlvs=[(0, b"odd"), (4, b"")])
    assert the_report(frame, SPEC) == report


def test_report_length_0xff_is_the_last() -> None:
    """A report of 255 words or more goes to the end of the datagram, and nothing can follow it."""
    hops = [{"switch_id": at, "hop_latency": at} for at in range(120)]
    stack = {"instruction_bitmap": "0xa000", "hop_ml": 2, "hop_count": 120, "hops": hops}
    large = report_2_0(flow=REPORT["flow"], int=REPORT["int"] | stack)
    frame = wire.encode_group([report_2_0(), large], SPEC, [wire.Spelling(), wire.Spelling(payload=bytes(9))])
    got = wire.decode(frame, SPEC)
    assert [report["int"] and report["int"]["hop_count"] for report in got["reports"]] == [None, 120]
    assert wire.decode(frame + b"trailer", SPEC) == got
    with pytest.raises(ValueError, match="only the last"):
        wire.encode_group([large, report_2_0()], SPEC, [wire.Spelling(payload=bytes(40))])


# --- Encapsulations ---------------------------------------------------------------------------------------------------

BODY_0_5 = "00 01 08 01 8000 0000 00000005 "  # header, a hop
BODY_1_0 = "10 00 01 08 8000 0000 0000000a "
BODY_2 = "20 00 01 08 8000 0000 0000 0000 00000014 "
BODY_MX = "20 00 00 00 9000 0000 0000 0000 "
VXLAN = "08000000 00000100 "
IP_AND_MORE = [("0800", "01"), ("86dd", "02"), ("6558", "03")]
GRE_CONFIG = Config(int_gre_protocol=strategies.GRE_PROTOCOL)


def ipv4(level: int, protocol: int, l4: bytes, dscp: int = 0, offset: int = 0) -> bytes:
    """An IPv4 packet from 10.0.level.1."""
    fields = {"source": 0x0A000001 + level * 256, "destination": 0x0A000002, "dscp": dscp, "protocol": protocol}
    return wire.write_ipv4(fields | {"fragment_offset": offset}, b"", l4)


def udp(level: int, port: int, payload: str | bytes, dscp: int = 0) -> bytes:
    """An IPv4 packet from 10.0.level.1, UDP port 1000 + level, to a UDP port."""
    data = bytes.fromhex(payload) if isinstance(payload, str) else payload
    l4 = wire.UDP.write({"source_port": 1000 + level, "destination_port": port, "length": 8 + len(data)}) + data
    return ipv4(level, 17, l4, dscp)


def ethernet(packet: bytes, *vlan_ids: int, ethertype: int = 0x0800) -> bytes:
    """A packet behind Ethernet with tags."""
    return wire.write_ethernet(bytes(14), vlan_ids, ethertype) + packet


def inner(packet: bytes, nproto: int = 0, source: str = "192.0.2.1") -> bytes:
    """The frame of a Telemetry Report 1.0 with this inner packet."""
    return framed(wire.REPORT_1_0.write({"version": 1, "length": 4, "nproto": nproto}) + packet, source)


INNERMOST = udp(9, 80, "")
"""The packet at the end of the encapsulations: its flow's source is 10.0.9.1, its source port 1009."""


def gre(header: str, behind: bytes) -> bytes:
    """An IPv4 packet from 10.0.1.1 that carries GRE."""
    return ipv4(1, 47, bytes.fromhex(header) + behind)


def vxlan(header: str, behind: bytes, port: int = 4790, dscp: int = 0) -> bytes:
    """An IPv4 packet from 10.0.1.1 that carries VXLAN or VXLAN-GPE."""
    return udp(1, port, bytes.fromhex(header) + behind, dscp)


def geneve(options: str, behind: bytes, first: str = "", protocol: str = "0800") -> bytes:
    """An IPv4 packet from 10.0.1.1 that carries Geneve. first: its first two bytes."""
    data = bytes.fromhex(options)
    header = bytes.fromhex(first or f"{len(data) // 4:02x}00") + bytes.fromhex(protocol + "00000100")
    return udp(1, 6081, header + data + behind)


def mpls(labels: str, behind: bytes) -> bytes:
    """A label stack and a packet."""
    return bytes.fromhex(labels) + behind


LABELS = "00010040 00020140 "  # label 16, label 32 with the S bit
IPV6 = wire.write_ipv6({"source": 9, "destination": 2, "next_header": 59}, b"")


def told(frame: bytes, config: Config = SPEC) -> tuple[str, Any, Any, Any]:
    """Outcome, level of the flow by its source (9 of INNERMOST), source port, INT version and first switch id."""
    got = wire.decode(frame, config)
    if not got["reports"]:
        return got["outcome"], None, None, None
    (report,) = got["reports"]
    flow, stack = report["flow"], report["int"]
    level = None
    if flow["source"]:
        address = ipaddress.ip_address(flow["source"])
        level = int(address) if address.version == 6 else int(address) >> 8 & 0xFF
    hop = stack and [stack["version"], stack["mode"], *[hop.get("switch_id") for hop in stack["hops"]]]
    return got["outcome"], level, flow["source_port"], hop


FOUND = ("ok", 9, 1009, None)
"""What told() says where INNERMOST is reached."""


def unknown(level: int | None, port: int | None = None) -> tuple[str, Any, Any, Any]:
    """What told() says of a report kept without INT."""
    return ("unknown_encapsulation", level, port, None)


@pytest.mark.parametrize(
    ("packet", "want"),
    [
        (ethernet(mpls(LABELS, INNERMOST), ethertype=0x8847), FOUND),
        (ethernet(mpls(LABELS, INNERMOST), ethertype=0x8848), FOUND),
        (ethernet(mpls("00010140", INNERMOST), 5, 6, ethertype=0x8847), FOUND),
        (ethernet(mpls("00010140", IPV6), ethertype=0x8847), ("ok", 9, None, None)),
        (ethernet(mpls("00010040" * 7 + "00010140", INNERMOST), ethertype=0x8847), FOUND),
        (ethernet(mpls("00010040" * 8 + "00010140", INNERMOST), ethertype=0x8847), unknown(None)),
        (ethernet(mpls("00010040 000101", b""), ethertype=0x8847), unknown(None)),
        (ethernet(b"", ethertype=0x8847), unknown(None)),
        (ethernet(mpls("00010140", b""), ethertype=0x8847), unknown(None)),
        (ethernet(mpls("00010140", b"\x00\x00" + INNERMOST), ethertype=0x8847), unknown(None)),  # a pseudowire
        (ethernet(mpls("00010140", INNERMOST[:19]), ethertype=0x8847), unknown(None)),
        (ethernet(mpls("00010140", b"\x44" + INNERMOST[1:]), ethertype=0x8847), unknown(None)),  # IHL 4
        (ethernet(mpls("00010140", INNERMOST[:27]), ethertype=0x8847), unknown(9)),  # UDP cut
        (ethernet(mpls("00010140", IPV6[:39]), ethertype=0x8847), unknown(None)),
    ],
)
def test_mpls(packet: bytes, want: tuple[str, Any, Any, Any]) -> None:
    """MPLS: the labels are walked to the S bit, the first four bits behind them say what is there."""
    assert told(inner(packet)) == want


@pytest.mark.parametrize(
    ("header", "behind", "want"),
    [
        ("0000 0800", INNERMOST, FOUND),
        ("0000 86dd", IPV6, ("ok", 9, None, None)),
        ("0000 6558", ethernet(INNERMOST), FOUND),
        ("0000 8847", mpls(LABELS, INNERMOST), FOUND),
        ("0000 8848", mpls(LABELS, INNERMOST), FOUND),
        ("8000 0800 00000000", INNERMOST, FOUND),
        ("2000 0800 00000000", INNERMOST, FOUND),
        ("1000 0800 00000000", INNERMOST, FOUND),
        ("b000 0800" + "00000000" * 3, INNERMOST, FOUND),
        ("0ff8 0800", INNERMOST, FOUND),  # strict source route, recursion, flags
        ("4000 0800", INNERMOST, unknown(1)),
        ("0001 0800", INNERMOST, unknown(1)),  # PPTP
        ("0000 880b", INNERMOST, unknown(1)),
        ("0000 88be", ethernet(INNERMOST), unknown(1)),  # ERSPAN
        ("0000 0000", INNERMOST, unknown(1)),  # no INT by a protocol of 0
        ("0000 08", b"", unknown(1)),
        ("", b"", unknown(1)),
        ("b000 0800" + "00000000" * 2 + "000000", b"", unknown(1)),
        ("2000 88be", b"", unknown(1)),
        ("0000 0800", INNERMOST[:19], unknown(1)),
        ("0000 0800", INNERMOST[:24], unknown(9)),
        ("0000 0800", b"\x60" + INNERMOST[1:], unknown(1)),
        ("0000 6558", ethernet(INNERMOST)[:13], unknown(1)),
        ("0000 6558", ethernet(INNERMOST, 1, 2, 3), unknown(1)),
        ("0000 6558", ethernet(INNERMOST, 7, ethertype=0x0806), ("ok", 1, None, None)),  # ARP
        ("0000 0800", ipv4(9, 1, b""), ("ok", 9, None, None)),
        ("0000 0800", ipv4(9, 17, bytes(8), offset=3), ("ok", 9, None, None)),
        ("0000 0800", ipv4(9, 6, bytes(19)), unknown(9)),
        ("0000 0800", ipv4(9, 6, bytes.fromhex("03f1") + bytes(18)), unknown(9, 1009)),  # data offset 0
    ],
)
def test_gre(header: str, behind: bytes, want: tuple[str, Any, Any, Any]) -> None:
    """GRE: what its header says is there is looked into, and what cannot be told is kept without INT."""
    assert told(inner(gre(header, behind), nproto=1)) == want
    ipv6 = wire.write_ipv6({"source": 1, "destination": 2, "next_header": 47}, bytes.fromhex(header) + behind)
    assert told(inner(ipv6, nproto=2)) == want


def test_a_later_fragment_is_not_looked_into() -> None:
    """GRE, and any UDP port, in a later fragment is not read as such; in a first one it is."""
    behind = bytes.fromhex("0000 0800") + INNERMOST
    assert told(inner(ipv4(1, 47, behind, offset=1), nproto=1)) == ("ok", 1, None, None)
    assert told(inner(ipv4(1, 17, udp(1, 4789, VXLAN)[20:], offset=1), nproto=1)) == ("ok", 1, None, None)
    first = wire.write_ipv4({"source": 0x0A000101, "protocol": 47, "more_fragments": 1}, b"", behind)
    assert told(inner(first, nproto=1)) == FOUND


@pytest.mark.parametrize(
    ("port", "header", "behind", "want"),
    [
        (4789, VXLAN, ethernet(INNERMOST), FOUND),
        (4789, "f8ffffff ffffffff", ethernet(INNERMOST), FOUND),  # reserved bits of VXLAN, none of them P
        (4789, "00000000 00000100", ethernet(INNERMOST), unknown(1, 1001)),  # no I bit
        (4789, "08000000 000001", b"", unknown(1, 1001)),
        (4789, "", b"", unknown(1, 1001)),
        (4789, VXLAN, b"", unknown(1, 1001)),
        (4789, VXLAN, ethernet(b"", ethertype=0x0806), ("ok", 1, 1001, None)),
        (4789, "0c000001 00000100", INNERMOST, FOUND),
        (4789, "04000001 00000100", INNERMOST, unknown(1, 1001)),  # no I bit
        (4789, "1c000001 00000100", INNERMOST, unknown(1, 1001)),  # P: the version counts
        (4789, "0d000001 00000100", INNERMOST, unknown(1, 1001)),  # ... and O
        (4790, "08000000 00000100", ethernet(INNERMOST), FOUND),
        (4790, "00000000 00000100", ethernet(INNERMOST), FOUND),
        (4790, "0c000001 00000100", INNERMOST, FOUND),
        (4790, "0e000001 00000100", INNERMOST, FOUND),  # the B bit means nothing
        (4790, "04000002 00000100", IPV6, ("ok", 9, None, None)),
        (4790, "0c000003 00000100", ethernet(INNERMOST), FOUND),
        (4790, "0c000004 00000100", INNERMOST, unknown(1, 1001)),  # NSH
        (4790, "0c000000 00000100", INNERMOST, unknown(1, 1001)),
        (4790, "0c000005 00000100", mpls(LABELS, INNERMOST), unknown(1, 1001)),
        (4790, "2c000001 00000100", INNERMOST, unknown(1, 1001)),
        (4790, "18000000 00000100", ethernet(INNERMOST), unknown(1, 1001)),  # the version, without P too
        (4790, "09000000 00000100", ethernet(INNERMOST), unknown(1, 1001)),
        (4790, "0c000001 000001", b"", unknown(1, 1001)),
    ],
)
def test_vxlan(port: int, header: str, behind: bytes, want: tuple[str, Any, Any, Any]) -> None:
    """VXLAN and VXLAN-GPE: what the header says follows is looked into."""
    assert told(inner(vxlan(header, behind, port), nproto=1)) == want


OPTION = "0104 01 01 55555555 "


@pytest.mark.parametrize(
    ("options", "behind", "changes", "want"),
    [
        ("", INNERMOST, {}, FOUND),
        (OPTION * 8, INNERMOST, {}, FOUND),
        (OPTION * 9, INNERMOST, {}, unknown(1, 1001)),
        ("0104 01 01", INNERMOST, {}, unknown(1, 1001)),  # runs past the options' length
        ("0104 01 e0", INNERMOST, {}, FOUND),  # reserved bits
        ("0103 02 01 01000500", INNERMOST, {}, FOUND),  # INT of type destination, an option like any
        ("0103 81 01 01000500", INNERMOST, {}, FOUND),  # another type
        (OPTION, b"", {"first": "0300"}, unknown(1, 1001)),  # options not all there
        ("", INNERMOST, {"first": "4000"}, unknown(1, 1001)),
        ("", INNERMOST, {"first": "0080"}, unknown(1, 1001)),
        ("", INNERMOST, {"first": "0040"}, FOUND),  # a critical option, of which there is none
        ("", IPV6, {"protocol": "86dd"}, ("ok", 9, None, None)),
        ("", ethernet(INNERMOST), {"protocol": "6558"}, FOUND),
        ("", mpls(LABELS, INNERMOST), {"protocol": "8847"}, FOUND),
        ("", INNERMOST, {"protocol": "894f"}, unknown(1, 1001)),  # NSH
        ("", INNERMOST[:20], {}, unknown(9)),
    ],
)
def test_geneve(options: str, behind: bytes, changes: dict[str, str], want: tuple[str, Any, Any, Any]) -> None:
    """Geneve: the options are walked, and what the header says follows is looked into."""
    assert told(inner(geneve(options, behind, **changes), nproto=1)) == want


@pytest.mark.parametrize("size", range(8))
def test_a_geneve_header_cut(size: int) -> None:
    """A Geneve header of fewer than 8 bytes is unknown."""
    assert told(inner(udp(1, 6081, bytes(size)), nproto=1)) == unknown(1, 1001)


STACK_0_5, STACK_1_0, STACK_2 = ["0.5", "MD", 5], ["1.0", "MD", 10], ["2.x", "MD", 20]
STACK_MX = ["2.x", "MX"]
V1, V2, V1_OR_MPLS = "0c000008 00000100 ", "0c000080 00000100 ", "0c000005 00000100 "


@pytest.mark.parametrize(
    ("header", "behind_header", "behind", "want"),
    [
        (V1, "01 00 04 01" + BODY_1_0, INNERMOST, ("ok", 9, 1009, STACK_1_0)),
        (V1, "01 ff 04 01" + BODY_0_5, INNERMOST, ("ok", 9, 1009, STACK_0_5)),  # no tail
        (V1, "01 00 04 03" + BODY_1_0, ethernet(INNERMOST, 5, 6), ("ok", 9, 1009, STACK_1_0)),
        (V1, "01 00 04 02" + BODY_1_0, IPV6, ("ok", 9, None, STACK_1_0)),
        (V1, "01 00 04 04" + BODY_1_0, INNERMOST, ("ok", 1, 1001, STACK_1_0)),  # not told what follows
        (V1, "01 00 04 08" + BODY_1_0, bytes.fromhex("01000401" + BODY_0_5), ("ok", 1, 1001, STACK_1_0)),
        (V1, "01 00 04 01" + BODY_1_0, b"", ("ok", 1, 1001, STACK_1_0)),
        (V1, "01 00 03 01 10 00 00 08 0000 0000", INNERMOST, ("ok", 9, 1009, ["1.0", "MD"])),
        (V1, "01 00 03 01 00 01 08 08 8000 0000", INNERMOST, ("ok", 9, 1009, ["0.5", "MD"])),  # minimum 3
        (V1, "02 00 04 01" + BODY_1_0, INNERMOST, ("ok", 1, 1001, None)),
        (V1, "02 00 00 01", b"", ("ok", 1, 1001, None)),  # whatever its Length
        (V1, "03 00 04 01" + BODY_1_0, INNERMOST, ("bad_shim_type", None, None, None)),
        (V1, "10 04 00 01" + BODY_2, INNERMOST, ("bad_shim_type", None, None, None)),
        (V1, "01 00 02 01" + BODY_1_0, INNERMOST, ("bad_shim_len", None, None, None)),
        (V1, "01 00 04", b"", ("trunc_shim", None, None, None)),
        (V1, "01 00 04 01 10 00 01 08 8000 00", b"", ("trunc_md_hdr", None, None, None)),
        (V1, "01 00 04 01" + BODY_2, INNERMOST, ("bad_int_ver", None, None, None)),
        (V1, "01 00 05 01" + BODY_1_0, b"", ("trunc_stack", None, None, None)),
        (V1, "01 00 04 01 10 00 02 08 8000 0000 00000001", b"", ("hop_ml_mismatch", None, None, None)),
        (V1, "01 00 05 01 00 02 08 01 9000 0000 " + "00" * 8, b"", ("ok", 1, 1001, ["0.5", "MD", 0])),
        (V1, "01 00 04 01 00 02 08 01 8000 0000 00000001", b"", ("bad_ins_cnt", None, None, None)),
        (V2, "10 04 00 01" + BODY_2, INNERMOST, ("ok", 9, 1009, STACK_2)),
        (V2, "1f 04 ff 01" + BODY_2, INNERMOST, ("ok", 9, 1009, STACK_2)),  # G, reserved bits
        (V2, "10 04 00 03" + BODY_2, ethernet(INNERMOST), ("ok", 9, 1009, STACK_2)),
        (V2, "30 03 00 01" + BODY_MX, INNERMOST, ("ok", 9, 1009, STACK_MX)),
        (V2, "30 05 00 01" + BODY_MX + "00" * 8, INNERMOST, ("ok", 9, 1009, STACK_MX)),
        (V2, "30 ff 00 01" + BODY_MX, INNERMOST, ("ok", 1, 1001, STACK_MX)),  # ends behind the packet
        (V2, "20 04 00 01" + BODY_2, INNERMOST, ("ok", 1, 1001, None)),
        (V2, "40 04 00 01" + BODY_2, INNERMOST, ("bad_shim_type", None, None, None)),
        (V2, "01 00 04 01" + BODY_1_0, INNERMOST, ("bad_shim_type", None, None, None)),
        (V2, "10 02 00 01" + BODY_2, INNERMOST, ("bad_shim_len", None, None, None)),
        (V2, "10 04 00", b"", ("trunc_shim", None, None, None)),
        (V2, "10 04 00 01 20 00 01 08 8000 0000 0000 00", b"", ("trunc_md_hdr", None, None, None)),
        (V2, "10 04 00 01" + BODY_1_0, b"\0" * 4, ("bad_int_ver", None, None, None)),
        (V2, "10 05 00 01" + BODY_2, b"", ("trunc_stack", None, None, None)),
        (V1_OR_MPLS, "01 00 04 01" + BODY_0_5, INNERMOST, ("ok", 9, 1009, STACK_0_5)),
        (V1_OR_MPLS, "01 00 04 01" + BODY_1_0, INNERMOST, ("ok", 9, 1009, STACK_1_0)),
        (V1_OR_MPLS, "01 00 05 01" + BODY_1_0, b"", unknown(1, 1001)),
        (V1_OR_MPLS, "02 00 04 01" + BODY_1_0, INNERMOST, unknown(1, 1001)),  # also a label
        (V1_OR_MPLS, "", b"", unknown(1, 1001)),
    ],
)
@pytest.mark.parametrize("port", [4789, 4790])
def test_int_in_vxlan_gpe(
    port: int, header: str, behind_header: str, behind: bytes, want: tuple[str, Any, Any, Any]
) -> None:
    """INT in VXLAN-GPE is there or wrong by its Next Protocol, and the flow is that of the packet behind it."""
    packet = vxlan(header + behind_header, behind, port)
    assert told(inner(packet, nproto=1)) == want
    assert told(inner(packet, nproto=1), Config()) == want


@pytest.mark.parametrize(
    ("shim_and_body", "behind", "want"),
    [
        ("10 04 0800" + BODY_2, INNERMOST, ("ok", 9, 1009, STACK_2)),
        ("1f 04 0800" + BODY_2, INNERMOST, ("ok", 9, 1009, STACK_2)),
        ("10 04 86dd" + BODY_2, IPV6, ("ok", 9, None, STACK_2)),
        ("10 04 6558" + BODY_2, ethernet(INNERMOST), ("ok", 9, 1009, STACK_2)),
        ("10 04 8847" + BODY_2, mpls(LABELS, INNERMOST), ("ok", 1, None, STACK_2)),  # no further encapsulation
        (
            "10 04 0800" + BODY_2,
            gre("0000 0800", INNERMOST).replace(b"\x0a\0\1\1", b"\x0a\0\2\1"),
            ("ok", 2, None, STACK_2),
        ),
        ("10 04 0800" + BODY_2, udp(2, 4789, bytes.fromhex(VXLAN) + ethernet(INNERMOST)), ("ok", 2, 1002, STACK_2)),
        ("10 04 0800" + BODY_2, udp(2, 80, "01000400" + BODY_1_0, dscp=23), ("ok", 2, 1002, STACK_2)),  # no further INT
        ("10 04 0800" + BODY_2, INNERMOST[:27], ("ok", 9, None, STACK_2)),  # UDP cut
        ("10 04 0800" + BODY_2, INNERMOST[:19], ("ok", 1, None, STACK_2)),
        ("10 04 0800" + BODY_2, b"\x46" + INNERMOST[1:23], ("ok", 1, None, STACK_2)),  # options cut
        ("10 04 0800" + BODY_2, b"\x65" + INNERMOST[1:], ("ok", 1, None, STACK_2)),
        (
            "10 04 0800" + BODY_2,
            ipv4(9, 6, bytes.fromhex("03f1") + bytes(18)),
            ("ok", 9, 1009, STACK_2),
        ),  # data offset 0
        ("10 04 0800" + BODY_2, ipv4(9, 6, bytes.fromhex("03f1") + bytes(17)), ("ok", 9, None, STACK_2)),
        ("10 04 0800" + BODY_2, ipv4(9, 17, INNERMOST[20:], offset=1), ("ok", 9, None, STACK_2)),
        ("10 04 6558" + BODY_2, ethernet(INNERMOST, 1, 2, 3), ("ok", 1, None, STACK_2)),
        ("10 04 6558" + BODY_2, ethernet(INNERMOST, ethertype=0x8847), ("ok", 1, None, STACK_2)),
        ("30 03 0800" + BODY_MX, INNERMOST, ("ok", 9, 1009, STACK_MX)),
        ("20 04 0800" + BODY_2, INNERMOST, ("ok", 1, None, None)),
        ("00 04 0800" + BODY_2, INNERMOST, ("bad_shim_type", None, None, None)),
        ("10 02 0800" + BODY_2, INNERMOST, ("bad_shim_len", None, None, None)),
        ("10 04 08", b"", ("trunc_shim", None, None, None)),
        ("", b"", ("trunc_shim", None, None, None)),
        ("10 04 0800 20 00 01 08 8000 0000 0000 00", b"", ("trunc_md_hdr", None, None, None)),
        ("10 04 0800" + BODY_1_0, b"\0" * 4, ("bad_int_ver", None, None, None)),
        ("10 06 0800" + BODY_2, b"\0" * 7, ("trunc_stack", None, None, None)),
        ("10 04 0800 20 00 00 08 8000 0000 0000 0000 00000001", b"", ("hop_ml_zero", None, None, None)),
    ],
)
def test_int_in_gre(shim_and_body: str, behind: bytes, want: tuple[str, Any, Any, Any]) -> None:
    """INT in GRE is there or wrong by the protocol configured for it, and the flow is that of the packet behind it."""
    packet = gre("2000 88b7 00000001" + shim_and_body, behind)
    assert told(inner(packet, nproto=1), GRE_CONFIG) == want
    assert told(inner(packet, nproto=1), dataclasses.replace(GRE_CONFIG, int_dscp=MARK)) == want
    assert told(inner(packet, nproto=1), SPEC) == unknown(1)


@pytest.mark.parametrize(
    ("options", "behind", "want"),
    [
        ("0103 01 03" + BODY_1_0, INNERMOST, ("ok", 9, 1009, STACK_1_0)),
        ("0103 01 e3" + BODY_1_0, INNERMOST, ("ok", 9, 1009, STACK_1_0)),
        ("0103 01 03" + BODY_0_5, INNERMOST, ("ok", 9, 1009, STACK_0_5)),  # no tail
        ("0103 01 04" + BODY_2, INNERMOST, ("ok", 9, 1009, STACK_2)),
        ("0103 03 03" + BODY_MX, INNERMOST, ("ok", 9, 1009, STACK_MX)),
        ("0103 03 05" + BODY_MX + "00" * 8, INNERMOST, ("ok", 9, 1009, STACK_MX)),
        (OPTION + "0103 02 00" + "0103 01 03" + BODY_1_0 + OPTION, INNERMOST, ("ok", 9, 1009, STACK_1_0)),
        ("0103 01 03" + BODY_1_0 + "0103 01 04" + BODY_2, INNERMOST, ("ok", 9, 1009, STACK_1_0)),  # the first
        (OPTION * 7 + "0103 01 03" + BODY_1_0, INNERMOST, ("ok", 9, 1009, STACK_1_0)),
        (OPTION * 8 + "0103 01 03" + BODY_1_0, INNERMOST, unknown(1, 1001)),
        ("0103 01 00" + "0104 01 02 00000000", INNERMOST, unknown(1, 1001)),  # all are walked first
        ("0103 01 00", INNERMOST, ("bad_shim_len", None, None, None)),
        ("0103 01 01 10000108", INNERMOST, ("bad_shim_len", None, None, None)),
        ("0103 01 01 90000108", INNERMOST, ("bad_shim_len", None, None, None)),
        ("0103 01 02 20000108 80000000", INNERMOST, ("bad_shim_len", None, None, None)),
        ("0103 03 02 20000108 80000000", INNERMOST, ("bad_shim_len", None, None, None)),
        ("0103 01 02 30000108 80000000", INNERMOST, ("bad_int_ver", None, None, None)),
        ("0103 03 01 10000108", INNERMOST, ("bad_shim_len", None, None, None)),
        ("0103 03 02 10000108 80000000", INNERMOST, ("bad_int_ver", None, None, None)),  # MX is of 2.x
        ("0103 01 02 10000108 80000000", INNERMOST, ("ok", 9, 1009, ["1.0", "MD"])),  # no hop yet
        ("0103 01 03 10000208 80000000 00000001", INNERMOST, ("hop_ml_mismatch", None, None, None)),
        ("0103 01 04 10000208 c0000000 00000001 00000001", INNERMOST, ("ok", 9, 1009, ["1.0", "MD", 1])),
        ("0103 01 03 10000208 c0000000 00000001", INNERMOST, ("stack_not_multiple", None, None, None)),
    ],
)
def test_int_in_geneve(options: str, behind: bytes, want: tuple[str, Any, Any, Any]) -> None:
    """INT in Geneve is there or wrong by its option, and the flow is that of the packet behind the options."""
    assert told(inner(geneve(options, behind), nproto=1)) == want
    assert told(inner(geneve(options, behind), nproto=1), Config()) == want


@pytest.mark.parametrize(
    ("protocol", "behind", "want"),
    [
        ("6558", ethernet(INNERMOST, 5), ("ok", 9, 1009, STACK_1_0)),
        ("86dd", IPV6, ("ok", 9, None, STACK_1_0)),
        ("8847", mpls(LABELS, INNERMOST), ("ok", 1, 1001, STACK_1_0)),
        ("894f", INNERMOST, ("ok", 1, 1001, STACK_1_0)),
    ],
)
def test_what_is_behind_int_in_geneve(protocol: str, behind: bytes, want: tuple[str, Any, Any, Any]) -> None:
    """The flow behind INT in Geneve is read by the protocol type, where that is IP or Ethernet."""
    assert told(inner(geneve("0103 01 03" + BODY_1_0, behind, protocol=protocol), nproto=1)) == want


def test_source_only_words_in_an_encapsulation() -> None:
    """Words that only the source adds are behind the stack in an encapsulation too, and are no hops."""
    body = "20 00 01 08 8000 5453 0000 0000 00000014 deadbeef "
    config = Config(source_only_words=((0x5453, 1),))
    assert told(inner(geneve("0103 01 05" + body, INNERMOST), nproto=1), config) == ("ok", 9, 1009, STACK_2)
    assert told(inner(vxlan(V2 + "10 05 00 01" + body, INNERMOST), nproto=1), config) == ("ok", 9, 1009, STACK_2)
    none = "20 00 01 08 8000 5453 0000 0000"
    assert told(inner(geneve("0103 01 03" + none, INNERMOST), nproto=1), config)[0] == "stack_not_multiple"


def test_int_version_0_in_an_encapsulation_is_refused_if_it_is_to_be() -> None:
    """--reject-int-version-0 counts in encapsulations too, and INT 0.5 is read nevertheless."""
    config = Config(reject_int_version_0=True)
    version_0 = "00" + BODY_1_0[2:]
    assert told(inner(geneve("0103 01 03" + version_0, b""), nproto=1), config)[0] == "bad_int_ver"
    assert told(inner(vxlan(V1 + "01 00 04 01" + version_0, b""), nproto=1), config)[0] == "bad_int_ver"
    assert told(inner(vxlan(V1_OR_MPLS + "01 00 04 01" + version_0, b""), nproto=1), config) == unknown(1, 1001)
    assert told(inner(geneve("0103 01 03" + BODY_0_5, b""), nproto=1), config)[3] == STACK_0_5


def wrapped(times: int, packet: bytes, *, kinds: str = "vgne") -> bytes:
    """A packet that starts with IPv4, in so many encapsulations: VXLAN, GRE, Geneve and MPLS in Ethernet in GRE."""
    for kind in itertools.islice(itertools.cycle(kinds), times):
        if kind == "v":
            packet = vxlan(VXLAN, ethernet(packet), 4789)
        elif kind == "g":
            packet = gre("0000 0800", packet)
        elif kind == "n":
            packet = geneve("", packet)
        else:
            packet = vxlan("0c000001 00000100", packet)
    return packet


@pytest.mark.parametrize("kinds", ["v", "g", "n", "e", "vgne"])
def test_four_encapsulations_are_looked_into(kinds: str) -> None:
    """Four encapsulations are looked into, a fifth is unknown, whatever they are; the flow is that around the fifth."""
    assert told(inner(wrapped(4, INNERMOST, kinds=kinds), nproto=1)) == FOUND
    fifth = inner(wrapped(5, INNERMOST, kinds=kinds), nproto=1)
    assert told(fifth)[:2] == ("unknown_encapsulation", 1)
    destination = wrapped(4, vxlan(V1 + "02 00 04 01", b""), kinds=kinds)
    assert told(inner(destination, nproto=1))[0] == "unknown_encapsulation"


def test_a_label_stack_is_an_encapsulation() -> None:
    """MPLS counts among the four, whatever the number of its labels."""
    packet = ethernet(mpls(LABELS, wrapped(3, INNERMOST)), ethertype=0x8847)
    assert told(inner(packet)) == FOUND
    packet = ethernet(mpls(LABELS, wrapped(4, INNERMOST)), ethertype=0x8847)
    assert told(inner(packet))[0] == "unknown_encapsulation"


SHIM_1_0, SHIM_2 = "01 00 04 00" + BODY_1_0, "10 04 00 00" + BODY_2


@pytest.mark.parametrize("times", range(5))
def test_int_behind_l4_in_encapsulations(times: int) -> None:
    """At every level INT is signalled by that packet's own DSCP or port, and what is wrong with it is told."""

    def at_level(packet: bytes, config: Config = SPEC) -> tuple[str, Any, Any, Any]:
        return told(inner(wrapped(times, packet), nproto=1), config)

    assert at_level(udp(9, 80, SHIM_1_0, dscp=23)) == ("ok", 9, 1009, STACK_1_0)
    assert at_level(udp(9, 33122, SHIM_2)) == ("ok", 9, 1009, STACK_2)
    assert at_level(udp(9, 80, SHIM_1_0)) == ("ok", 9, 1009, None)
    assert at_level(udp(9, 80, SHIM_1_0), Config()) == ("ok", 9, 1009, STACK_1_0)
    assert at_level(udp(9, 80, SHIM_1_0[:-3]), Config()) == ("ok", 9, 1009, None)
    assert at_level(udp(9, 80, SHIM_1_0[:-3], dscp=23))[0] == "trunc_stack"
    assert at_level(udp(9, 80, "", dscp=23))[0] == "trunc_shim"
    assert at_level(udp(9, 80, "02000000", dscp=23)) == ("ok", 9, 1009, None)
    tcp = wire.TCP.write({"source_port": 1009, "data_offset": 6})
    after_the_end = dataclasses.replace(SPEC, tcp_int_position="after-options")
    want = unknown(9, 1009) if times else ("trunc_inner", None, None, None)
    assert at_level(ipv4(9, 6, tcp, dscp=23), after_the_end) == want
    assert at_level(ipv4(9, 6, tcp), dataclasses.replace(after_the_end, int_dscp=None)) == ("ok", 9, 1009, None)


def test_the_mark_counts_at_its_own_level() -> None:
    """A mark around an encapsulation says nothing of the packet inside it."""
    packet = vxlan(VXLAN, ethernet(udp(9, 80, SHIM_1_0)), 4789, dscp=23)
    assert told(inner(packet, nproto=1)) == ("ok", 9, 1009, None)


@pytest.mark.parametrize("port", strategies.TUNNEL_PORTS)
def test_int_behind_l4_at_a_port_of_an_encapsulation(port: int) -> None:
    """Where the mark or the INT port says so, INT is read at these ports if it is valid; else the encapsulation is."""
    by_port = Config(int_udp_port=port)
    inside = {4789: VXLAN.encode(), 4790: VXLAN.encode(), 6081: b"0000655800000100"}[port].decode()
    encapsulated = bytes.fromhex(inside) + ethernet(INNERMOST)
    assert told(inner(udp(1, port, SHIM_1_0, dscp=23), nproto=1)) == ("ok", 1, 1001, STACK_1_0)
    assert told(inner(udp(1, port, SHIM_1_0), nproto=1), by_port) == ("ok", 1, 1001, STACK_1_0)
    assert told(inner(udp(1, port, SHIM_1_0[:-3], dscp=23), nproto=1))[0] == "unknown_encapsulation"
    assert told(inner(udp(1, port, SHIM_1_0), nproto=1), Config())[3] is None  # not signalled: not looked for
    assert told(inner(udp(1, port, encapsulated, dscp=23), nproto=1)) == FOUND
    assert told(inner(udp(1, port, encapsulated), nproto=1), by_port) == FOUND


def test_a_destination_shim_at_a_port_of_an_encapsulation_is_none() -> None:
    """A Geneve header with two words of options looks like a shim of type 2, which is not INT: it is looked into."""
    packet = udp(1, 6081, bytes.fromhex("0200080000000100" + OPTION) + INNERMOST, dscp=23)
    assert told(inner(packet, nproto=1)) == FOUND


def test_vlan_ids_are_those_of_the_last_ethernet_header() -> None:
    """The flow has the VLAN ids of the last Ethernet header before its IP header, however far out."""

    def vlan_ids(packet: bytes) -> Any:
        (report,) = wire.decode(inner(packet), SPEC)["reports"]
        return report["flow"]["vlan_ids"], report["flow"]["source"] and report["flow"]["source"].split(".")[2]

    assert vlan_ids(ethernet(gre("0000 0800", INNERMOST), 7)) == ([7], "9")
    assert vlan_ids(ethernet(vxlan(VXLAN, ethernet(INNERMOST), 4789), 7)) == ([], "9")
    assert vlan_ids(ethernet(vxlan(VXLAN, ethernet(INNERMOST, 8, 9), 4789), 7)) == ([8, 9], "9")
    assert vlan_ids(ethernet(vxlan(VXLAN, ethernet(b"", 8, ethertype=0x0806), 4789), 7)) == ([7], "1")
    assert vlan_ids(ethernet(vxlan(VXLAN, ethernet(INNERMOST[:19], 8), 4789), 7)) == ([7], "1")
    labelled = ethernet(mpls(LABELS, INNERMOST), 8, ethertype=0x8847)
    assert vlan_ids(ethernet(vxlan(VXLAN, labelled, 4789), 7)) == ([8], "9")
    assert vlan_ids(ethernet(vxlan(VXLAN, labelled[:30], 4789), 7)) == ([7], "1")
    assert vlan_ids(ethernet(b"", 7, ethertype=0x8847)) == ([7], None)
    with_int = V1 + "01 00 04 03" + BODY_1_0
    assert vlan_ids(ethernet(vxlan(with_int, ethernet(INNERMOST, 8)), 7)) == ([8], "9")
    assert vlan_ids(ethernet(vxlan(with_int, ethernet(INNERMOST[:19], 8)), 7)) == ([7], "1")


def test_a_group_is_unknown_if_one_of_its_reports_is() -> None:
    """All reports of a group are kept, and the packet's outcome says that one was not looked into."""
    cut = gre("0000 08", b"")
    length = -(-len(cut) // 4)
    payload = bytes.fromhex(GROUP) + bytes((0x04, length, 0, 0)) + wire.pad(cut) + bytes.fromhex(EMPTY)
    got = wire.decode(framed(payload), SPEC)
    assert got["outcome"] == "unknown_encapsulation"
    assert [report["flow"] and report["flow"]["source"] for report in got["reports"]] == ["10.0.1.1", None]
    assert wire.decode(framed(payload + bytes.fromhex("00 01 00 00")), SPEC)["outcome"] == "bad_indiv_len"


# --- Profiles of sources ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "profile"), [("192.0.2.1", "onos"), ("192.0.2.2", "geant"), ("198.51.100.1", "spec")]
)
def test_the_source_decides_the_profile(source: str, profile: str) -> None:
    """A report is read as the entry for its outer source address says, longest prefix first, else as the others."""
    entries = [
        Source(ipaddress.ip_network("192.0.2.0/24"), (("int_dscp", (1, 63)), ("profile", "geant"))),
        Source(ipaddress.ip_network("192.0.2.1/32"), (("int_dscp", (1, 63)), ("profile", "onos"))),
    ]
    config = dataclasses.replace(SPEC, sources=FromFile(entries))
    dscp = MARK[0] if profile == "spec" else 1
    bitmap = 0xFF00
    hop = {name: 5 for name, _ in fields_of(bitmap, items_of("1.0", profile))}
    report = REPORT | {
        "source": source,
        "flow": REPORT["flow"] | {"dscp": dscp},
        "int": stack_of("1.0", profile, bitmap, [hop], 0) | {"latency": 5},
    }
    frame = wire.encode(report, config)
    assert the_report(frame, config) == report
    assert the_report(frame, Config(int_dscp=(dscp, 63), profile=profile)) == report
    assert wire.decode(frame, Config(int_dscp=(dscp, 63), profile="l2port4"))["outcome"] != "ok"


# --- Reports nobody wrote ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reports", "spellings", "message"),
    [
        ([], [], "without reports"),
        ([report_2_0(), report_2_0(hw_id=6)], [], "share their hw_id"),
        ([REPORT, REPORT], [], "alone in its packet"),
        ([report_2_0()], [wire.Spelling()] * 2, "2 spellings"),
        ([report_2_0(sequence_number=1 << 22)], [], "does not fit into 22 bits"),
        ([report_2_0(flow=NO_FLOW)], [wire.Spelling(payload=bytes(2000), tlvs=[])], "does not fit into 8 bits"),
        ([report_2_0(local_hop={"hop_latency": 1})], [wire.Spelling(domain_metadata=b"odd")], "whole words"),
        ([REPORT], [wire.Spelling(tlvs=[])], "only Telemetry Report 2.0"),
        ([REPORT | {"version": "0.5", "local_hop": None}], [wire.Spelling(nproto="ipv4")], "always starts with"),
        ([REPORT | {"version": "0.5", "local_hop": None}], [wire.Spelling(report_length=1)], "has no Length"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("ipsec")])], "'ipsec' is no encapsulation"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("gre", has_int=True)] * 2)], "only the innermost"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("gre", has_int=True)])], "INT 2.x only"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("vxlan", has_int=True)])], "VXLAN cannot carry INT"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("mpls"), wire.Tunnel("mpls")])], "carry IP"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("mpls", labels=())])], "one or more"),
        (
            [REPORT],
            [wire.Spelling(tunnels=[wire.Tunnel("gpe", ethernet=False), wire.Tunnel("mpls")])],
            "Ethernet or IP",
        ),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("geneve", options=b"odd")])], "whole words"),
        ([REPORT], [wire.Spelling(tunnels=[wire.Tunnel("geneve", ip_version=6)], nproto="ipv4")], "cannot start with"),
        ([REPORT | {"int": None}], [wire.Spelling(tunnels=[wire.Tunnel("gpe", has_int=True)])], "a report's own"),
    ],
)
def test_what_no_packet_carries(reports: list[wire.Report], spellings: list[wire.Spelling], message: str) -> None:
    """Reports that cannot stand in one packet, or not so, are refused with what is wrong."""
    with pytest.raises(ValueError, match=message):
        wire.encode_group(reports, SPEC, spellings)


def test_encode_refuses_options_there_are_none_of() -> None:
    """A word that is no option is an error, not ignored."""
    with pytest.raises(TypeError, match="tcp_option"):
        wire.encode(REPORT, SPEC, tcp_option=b"")


@settings(deadline=None, database=None, max_examples=300)
@given(strategies.cases())
def test_any_reports_round_trip(case: strategies.Case) -> None:
    """Reports that encode can write are what decode reads, whatever carries them."""
    assert wire.decode(case.frame, case.config) == {"outcome": "ok", "reports": [kept(r) for r in case.reports]}
    assert wire.fit_lengths(case.frame) == case.frame


@settings(deadline=None, database=None, max_examples=25)
@given(strategies.cases(["0.5", "1.0"], marked_int=True))
def test_a_report_cut_anywhere_is_refused(case: strategies.Case) -> None:
    """A marked report cut anywhere in its stack or before is refused, never half-read, also if its lengths agree."""
    (how,) = case.spellings
    position = how.tcp_int_position or case.config.tcp_int_position
    options = b"" if position == "before-options" else how.tcp_options  # those behind the stack are not looked at
    how = dataclasses.replace(how, payload=b"", npt=0, tcp_options=options)
    frame = case._replace(spellings=[how]).frame
    for size in range(len(frame)):
        assert wire.decode(frame[:size], case.config)["outcome"] != "ok"
        assert wire.decode(wire.fit_lengths(frame[:size]), case.config)["outcome"] != "ok"


@settings(deadline=None, database=None, max_examples=25)
@given(strategies.cases(["2.0"]))
def test_a_group_cut_anywhere_keeps_whole_reports(case: strategies.Case) -> None:
    """A group cut anywhere is refused, or its first reports are told as they were, or of one "to the end" is less."""
    to_the_end = case.spellings[-1].report_length == wire.TO_THE_END
    whole = wire.decode(case.frame, case.config)["reports"]
    for size in range(len(case.frame)):
        got = wire.decode(wire.fit_lengths(case.frame[:size]), case.config)
        if got["reports"] and not (to_the_end and len(got["reports"]) == len(whole)):
            assert got == {"outcome": "ok", "reports": whole[: len(got["reports"])]}


@settings(deadline=None, database=None, max_examples=200)
@given(st.data())
def test_nearly_right_frames_have_an_outcome(data: st.DataObject) -> None:
    """A frame that is nearly right, however the collector is set, has an outcome that users know, and reports by it."""
    config = data.draw(strategies.configs())
    frame = data.draw(strategies.nearly(config))
    for each in [frame, *wire.mutations(frame, 5, seed=len(frame))]:
        got = wire.decode(each, config)
        assert got["outcome"] in OUTCOMES
        assert bool(got["reports"]) == (got["outcome"] in ACCEPTED)


@settings(deadline=None, database=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(PROFILES), st.booleans())
def test_anything_has_an_outcome(payload: bytes, profile: str, marked: bool) -> None:
    """Any bytes sent to our port have an outcome that users know."""
    config = Config(profile=profile, int_dscp=MARK if marked else None)
    frame = bytes.fromhex(OUTER) + payload
    assert wire.decode(frame, config)["outcome"] in OUTCOMES
    assert wire.decode(wire.fit_lengths(frame), config)["outcome"] in OUTCOMES
