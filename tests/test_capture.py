"""capture.py: files of packets."""

from __future__ import annotations

import pathlib
import shutil
import struct
import subprocess

import numpy as np
import pytest

from intcollector import capture
from intcollector.errors import CaptureError

PACKETS = [
    (bytes(range(60)), 1_700_000_000_123_456_789),
    (b"\x01" * 14, 1_700_000_001_000_000_000),
    (b"\x02" * 1500, 2),
]


def classic(order: str, nanoseconds: bool, link_type: int = 1) -> bytes:
    """PACKETS as another program would write them."""
    unit = 1 if nanoseconds else 1000
    data = struct.pack(order + "IHHiIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)
    for frame, time_ns in PACKETS:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        data += struct.pack(order + "IIII", seconds, rest // unit, len(frame), len(frame)) + frame
    return data


def block(order: str, kind: int, body: bytes) -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def section(order: str) -> bytes:
    """A pcapng section header block."""
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int = 1, snap: int = 0, options: bytes = b"") -> bytes:
    """A pcapng interface description block."""
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, snap) + options)


def enhanced(order: str, frame: bytes, ticks: int, number: int = 0) -> bytes:
    """A pcapng enhanced packet block."""
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 6, head + frame)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "some.pcap"


def test_round_trip(path: pathlib.Path) -> None:
    """What was written comes back, bytes and times."""
    assert capture.write(str(path), PACKETS) == 3
    assert list(capture.read(str(path))) == PACKETS


def test_records_written_at_once_are_the_same_file(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Packets written as an array are written as they are one by one."""
    capture.write(str(path), PACKETS)
    other = tmp_path / "other.pcap"
    headers = capture.record_headers(np.array([t for _, t in PACKETS]), np.array([len(f) for f, _ in PACKETS]))
    records = b"".join(bytes(h) + f for h, (f, _) in zip(headers, PACKETS, strict=True))
    with capture.Writer(str(other)) as writer:
        writer.write_records(np.frombuffer(records, np.uint8))
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_classic(path: pathlib.Path, order: str, nanoseconds: bool) -> None:
    """Both byte orders are read, and both units of time."""
    path.write_bytes(classic(order, nanoseconds))
    unit = 1 if nanoseconds else 1000
    assert list(capture.read(str(path))) == [(frame, time_ns // unit * unit) for frame, time_ns in PACKETS]


@pytest.mark.parametrize("order", "<>")
def test_pcapng(path: pathlib.Path, order: str) -> None:
    """pcapng is read: interfaces with resolutions and offsets, enhanced and simple packets, whatever stands between."""
    nano = struct.pack(order + "HHB3x", 9, 1, 9) + struct.pack(order + "HHqHH", 14, 8, 5, 0, 0)
    halves = struct.pack(order + "HHB3x", 9, 1, 0x81)
    data = section(order) + interface(order) + interface(order, options=nano) + interface(order, options=halves)
    data += block(order, 5, bytes(12)) + enhanced(order, b"a" * 15, 7) + enhanced(order, b"b" * 16, 1 << 33, 1)
    data += enhanced(order, b"c" * 17, 3, 2) + block(order, 3, struct.pack(order + "I", 14) + b"d" * 14)
    data += section(order) + interface(order, snap=10) + block(order, 3, struct.pack(order + "I", 14) + b"e" * 10)
    path.write_bytes(data)
    assert list(capture.read(str(path))) == [
        (b"a" * 15, 7000),
        (b"b" * 16, (1 << 33) + 5_000_000_000),
        (b"c" * 17, 1_500_000_000),
        (b"d" * 14, 0),
        (b"e" * 10, 0),
    ]


def test_scapy_agrees(path: pathlib.Path) -> None:
    """scapy reads what is written here."""
    utils = pytest.importorskip("scapy.utils", reason="scapy is missing")
    capture.write(str(path), PACKETS)
    with utils.RawPcapReader(str(path)) as reader:
        assert [bytes(frame) for frame, _ in reader] == [frame for frame, _ in PACKETS]


@pytest.mark.skipif(not shutil.which("editcap"), reason="editcap is missing (Debian: wireshark-common)")
@pytest.mark.parametrize("form", ["pcapng", "pcap", "nsecpcap"])
def test_editcap_agrees(path: pathlib.Path, tmp_path: pathlib.Path, form: str) -> None:
    """What Wireshark's editcap makes of a file is read as the same packets."""
    capture.write(str(path), PACKETS)
    other = tmp_path / "other"
    subprocess.run(["editcap", "-F", form, str(path), str(other)], timeout=60, check=True)
    unit = 1000 if form == "pcap" else 1
    assert list(capture.read(str(other))) == [(frame, time_ns // unit * unit) for frame, time_ns in PACKETS]


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is missing")
def test_tshark_agrees(path: pathlib.Path) -> None:
    """tshark sees the packets' lengths and times."""
    capture.write(str(path), PACKETS)
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.len", "-e", "frame.time_epoch"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n")[:3]
    seen = [(int(a), int(b.replace(".", ""))) for a, b in (line.split("\t") for line in lines)]
    assert seen == [(len(frame), time_ns) for frame, time_ns in PACKETS]


@pytest.mark.parametrize("order", "<>")
def test_cut_anywhere(path: pathlib.Path, order: str) -> None:
    """A file cut anywhere is refused with a sentence, unless it is cut between two packets."""
    whole = classic(order, True)
    ends, at = {24}, 24
    for frame, _ in PACKETS:
        at += 16 + len(frame)
        ends.add(at)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size in ends:
            assert list(capture.read(str(path))) == PACKETS[: sorted(ends).index(size)]
        else:
            with pytest.raises(CaptureError):
                list(capture.read(str(path)))


def test_pcapng_cut_anywhere(path: pathlib.Path) -> None:
    """A pcapng file cut anywhere but between blocks is refused."""
    blocks = [section("<"), interface("<"), enhanced("<", b"a" * 15, 7), enhanced("<", b"b" * 16, 8)]
    whole = b"".join(blocks)
    ends = {sum(len(b) for b in blocks[:n]) for n in range(1, 5)}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size in ends:
            list(capture.read(str(path)))
        else:
            with pytest.raises(CaptureError):
                list(capture.read(str(path)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"#!/bin/sh\n", "is no pcap or pcapng file"),
        (b"\x1f\x8b\x08\x00abcdef", "gunzip"),
        (classic("<", False, 113), "Linux cooked"),
        (classic("<", False, 12), "raw IP"),
        (classic("<", False, 4242), "link type 4242"),
        (section("<") + interface("<", 113) + enhanced("<", b"a" * 20, 1), "Linux cooked"),
        (section("<") + enhanced("<", b"a" * 20, 1), "makes no sense"),
        (section("<") + interface("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 900, 900)), "makes no sense"),
        (section("<") + struct.pack("<II", 6, 7), "block of 7 bytes"),
        (classic("<", True)[:24] + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "packet of 1073741824 bytes"),
    ],
)
def test_what_cannot_be_read(path: pathlib.Path, data: bytes, says: str) -> None:
    """What is no capture of Ethernet is refused, saying what it is and naming the file."""
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=says) as caught:
        list(capture.read(str(path)))
    assert str(path) in str(caught.value)


def test_missing_files(tmp_path: pathlib.Path) -> None:
    """A file that is not there, or cannot be made, is named."""
    with pytest.raises(CaptureError, match=r"nothing\.pcap"):
        list(capture.read(str(tmp_path / "nothing.pcap")))
    with pytest.raises(CaptureError, match=r"no/such\.pcap"):
        capture.Writer(str(tmp_path / "no" / "such.pcap"))


def test_a_full_disk_is_told() -> None:
    """Writing to a full disk ends in a sentence."""
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(CaptureError, match="No space left"), capture.Writer("/dev/full") as writer:
        writer.write(bytes(100), 0)
