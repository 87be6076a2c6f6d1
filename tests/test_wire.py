"""wire.py: the specifications in Python, held against the vectors, bytes written by hand, and itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import wire
from intcollector.config import PROFILES, Config
from intcollector.layout import MAX_HOPS, OUTCOMES

VECTORS = json.loads((pathlib.Path(__file__).parent / "data" / "vectors.json").read_text())
MARK = (23, 63)


def report_version(vector: dict[str, Any]) -> int | None:
    """The version nibble of a vector's report header; None where the packet ends before there is one."""
    try:
        payload, _ = wire.read_outer(bytes.fromhex(vector["packet"]), Config.from_options(vector["options"]))
    except wire.Refused:
        return None
    return payload[0] >> 4 if payload else None


# Left out are versions that exist and are not read yet. Numbers that are no version have to give what the vector says.
KNOWN = [v for v in VECTORS if report_version(v) not in {0, 2} - set(wire.REPORT_READERS)]
GOOD = [v for v in KNOWN if v["outcome"] == "ok"]


def vectors(some: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """A test for each of some."""
    return pytest.mark.parametrize("vector", some, ids=[v["name"] for v in some])


def of(vector: dict[str, Any]) -> tuple[bytes, Config]:
    """A vector's frame and how the collector is set."""
    return bytes.fromhex(vector["packet"]), Config.from_options(vector["options"])


# --- The vectors ------------------------------------------------------------------------------------------------------


@vectors(KNOWN)
def test_vector(vector: dict[str, Any]) -> None:
    """A vector becomes exactly its outcome and reports, keys in the same order."""
    frame, config = of(vector)
    want = {"outcome": vector["outcome"], "reports": vector["reports"]}
    assert json.dumps(wire.decode(frame, config), indent=1) == json.dumps(want, indent=1)


def test_only_other_report_versions_are_left_out() -> None:
    """The vectors not tested are those with a Telemetry Report 0.5 or 2.0 header, and are refused for it."""
    left_out = [v for v in VECTORS if v not in KNOWN]
    assert len(KNOWN) > 100
    assert all(r["version"] == "1.0" for v in KNOWN for r in v["reports"])
    assert all(r["version"] in ("0.5", "2.0") for v in left_out for r in v["reports"])
    assert {wire.decode(*of(v))["outcome"] for v in left_out} <= {"bad_report_ver"}


@vectors(KNOWN)
def test_every_prefix(vector: dict[str, Any]) -> None:
    """A frame cut anywhere has an outcome, and reports only if that is ok."""
    frame, config = of(vector)
    for size in range(len(frame)):
        got = wire.decode(frame[:size], config)
        assert got["outcome"] in OUTCOMES, size
        assert bool(got["reports"]) == (got["outcome"] == "ok"), size


@vectors(GOOD)
def test_round_trip(vector: dict[str, Any]) -> None:
    """A vector's report, encoded and decoded, is itself."""
    _, config = of(vector)
    for report in vector["reports"]:
        assert wire.decode(encoded(report, config), config) == {"outcome": "ok", "reports": [report]}


def encoded(report: wire.Report, config: Config, **options: Any) -> bytes:
    """A report as a frame; INT 2.x without the configured mark is signalled by the UDP port."""
    stack = report["int"]
    if stack and stack["version"] == "2.x" and config.int_dscp and report["flow"]["dscp"] != config.int_dscp[0]:
        options["npt"] = 1
    return wire.encode(report, config, **options)


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
        assert bool(got["reports"]) == (got["outcome"] == "ok"), each.hex()


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
    frame = encoded(REPORT | {"source": "2001:db8::1"}, SPEC, payload=b"odd")
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
        ({"version": "2.0"}, {}, "Telemetry Report '2.0'"),
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


# --- Reports nobody wrote ---------------------------------------------------------------------------------------------


def items_of(version: str, profile: str) -> wire.Items:
    """What bits stand for in an INT version; profiles are of 1.0."""
    return {"0.5": wire.ITEMS_0_5, "1.0": wire.ITEMS_1_0_BY_PROFILE[profile], "2.x": wire.ITEMS_2}[version]


def fields_of(bitmap: int, items: wire.Items) -> Iterator[tuple[str, int]]:
    """(name, bits) of all fields a hop has for a bitmap."""
    chosen = (items[bit].fields for bit in wire.bits(bitmap) if bit in items)
    return (field for field in itertools.chain.from_iterable(chosen) if field[0])


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


def kept(report: wire.Report) -> wire.Report:
    """A report as a decoder of MAX_HOPS gives it."""
    stack = report["int"]
    if stack is None or stack["hop_count"] <= MAX_HOPS:
        return report
    return report | {"int": stack | {"hops": stack["hops"][:MAX_HOPS], "hops_truncated": True}}


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


TCP_OPTIONS = ["", "01010000", "0101080a0011223300445566", "020405b404020101", "01030307" * 10]
PORTS = st.integers(0, 0xFFFF).filter(lambda port: port != 33122)
"""Ports other than the one that signals INT."""


@st.composite
def flows(draw: st.DrawFn, with_int: bool, marked: bool) -> wire.Report:
    """Inner packets: TCP or UDP where there is to be INT, anything else too where not; marked as it has to be."""
    vlan_ids = draw(st.lists(unsigned(12), max_size=2))
    version = draw(st.sampled_from([4, 6] if with_int else [4, 6, None]))
    if version is None:
        return wire.no_flow(vlan_ids)
    protocol = draw(st.sampled_from([6, 17]) if with_int else unsigned(8))
    has_ports = protocol in (6, 17) and (with_int or version == 6 or draw(st.booleans()))
    dscp = draw(unsigned(6))
    if marked:
        dscp = MARK[0] if with_int else draw(unsigned(6).filter(lambda value: value != MARK[0]))
    return {
        "vlan_ids": vlan_ids,
        "ip_version": version,
        "source": draw(addresses(version)),
        "destination": draw(addresses(version)),
        "protocol": protocol,
        "source_port": draw(unsigned(16)) if has_ports else None,
        "destination_port": draw(PORTS) if has_ports else None,
        "dscp": dscp,
    }


@st.composite
def stacks(draw: st.DrawFn, version: str, profile: str, more_words: int) -> wire.Report:
    """Stacks of 0 to 28 hops, or as many as the shim's Length can count."""
    items = items_of(version, profile)
    bitmap = draw(st.integers(1 if version == "0.5" else 0, 0xFFFF))
    stride = wire.words(bitmap, items) + more_words
    hop_count = draw(st.integers(0, min(28, 250 // stride) if stride else 0))
    hop = st.fixed_dictionaries({name: values(width) for name, width in fields_of(bitmap, items)})
    hops = draw(st.lists(hop, min_size=hop_count, max_size=hop_count))
    return stack_of(version, profile, bitmap, hops, more_words)


@st.composite
def cases(draw: st.DrawFn) -> tuple[wire.Report, Config, dict[str, Any]]:
    """A report, how the collector is set, and the options to encode it with."""
    version = draw(st.sampled_from([None, "0.5", "1.0", "1.0", "1.0", "2.x"]))
    domain_id = draw(st.sampled_from([0, 0x5453])) if version == "2.x" else 0
    more_words = draw(st.integers(0, 3)) if domain_id else 0
    marked = draw(st.booleans())
    config = Config(
        int_dscp=MARK if marked else None,
        profile=draw(st.sampled_from(PROFILES)),
        tcp_int_position=draw(st.sampled_from(["auto", "before-options", "after-options"])),
        source_only_words=((0x5453, draw(st.integers(0, 2))),) if domain_id else (),
    )
    metadata_bits = draw(unsigned(6)) << 10
    metadata = {name: unsigned(width) for name, width in fields_of(metadata_bits, wire.REPORT_METADATA_1_0)}
    flow = draw(flows(version is not None, marked))
    source_version = draw(st.sampled_from([4, 6]))
    report = {
        "version": "1.0",
        "source": draw(addresses(source_version)),
        "switch_id": draw(unsigned(32)),
        "hw_id": draw(unsigned(6)),
        "sequence_number": draw(unsigned(32)),
        "ingress_timestamp": draw(unsigned(32)),
        "dropped": draw(st.booleans()),
        "congested_queue": draw(st.booleans()),
        "tracked_flow": draw(st.booleans()),
        "intermediate": False,
        "local_hop": draw(st.fixed_dictionaries(metadata)) if metadata_bits else None,
        "flow": flow,
        "int": draw(stacks(version, config.profile, more_words)) if version else None,
    }
    nprotos = ["ethernet"]
    if flow["ip_version"] and not flow["vlan_ids"]:
        nprotos.append(f"ipv{flow['ip_version']}")
    options = {
        "outer_vlans": draw(st.lists(unsigned(12), max_size=2)),
        "outer_options": b"\x01" * 4 * draw(st.integers(0, 10)) if source_version == 4 else b"",
        "nproto": draw(st.sampled_from(nprotos)),
        "domain_id": domain_id,
        "int_version_0": draw(st.booleans()),
        # Without a mark anything could be INT, and this test says that it is not.
        "payload": draw(st.binary(max_size=40)) if version or marked or not flow["source_port"] else b"",
        "tcp_options": bytes.fromhex(draw(st.sampled_from(TCP_OPTIONS))) if flow["protocol"] == 6 else b"",
    }
    if config.tcp_int_position == "auto":
        options["tcp_int_position"] = draw(st.sampled_from(["before-options", "after-options"]))
    if version == "2.x" and flow["protocol"] == 17:
        options["npt"] = draw(st.sampled_from([0, 1, 2]))
    return report, config, options


@settings(deadline=None, database=None, max_examples=300)
@given(cases())
def test_any_report_round_trips(case: tuple[wire.Report, Config, dict[str, Any]]) -> None:
    """A report that encode can write is what decode reads, whatever carries it."""
    report, config, options = case
    frame = wire.encode(report, config, **options)
    assert wire.decode(frame, config) == {"outcome": "ok", "reports": [kept(report)]}
    assert wire.fit_lengths(frame) == frame


@settings(deadline=None, database=None, max_examples=25)
@given(cases().filter(lambda case: case[0]["int"] is not None and case[1].int_dscp is not None))
def test_a_report_cut_anywhere_is_refused(case: tuple[wire.Report, Config, dict[str, Any]]) -> None:
    """A marked report cut anywhere in its stack or before is refused, never half-read, also if its lengths agree."""
    report, config, options = case
    position = options.get("tcp_int_position", config.tcp_int_position)
    if position == "before-options":
        options = options | {"tcp_options": b""}  # those behind the stack are not looked at
    frame = wire.encode(report, config, **options | {"payload": b"", "npt": 0})
    for size in range(len(frame)):
        assert wire.decode(frame[:size], config)["outcome"] != "ok"
        assert wire.decode(wire.fit_lengths(frame[:size]), config)["outcome"] != "ok"


@settings(deadline=None, database=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(PROFILES), st.booleans())
def test_anything_has_an_outcome(payload: bytes, profile: str, marked: bool) -> None:
    """Any bytes sent to our port have an outcome that users know."""
    config = Config(profile=profile, int_dscp=MARK if marked else None)
    frame = bytes.fromhex(OUTER) + payload
    assert wire.decode(frame, config)["outcome"] in OUTCOMES
    assert wire.decode(wire.fit_lengths(frame), config)["outcome"] in OUTCOMES
