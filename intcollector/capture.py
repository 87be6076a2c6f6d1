"""Files of packets: classic pcap (both byte orders, microseconds and nanoseconds) and pcapng, Ethernet only.

Read here and not through scapy, whose readers take a file that was cut short for one that ends there.
Times are ns since 1970.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO

import numpy as np

from .errors import CaptureError

ETHERNET = 1
LARGEST = 1 << 18
"""Bytes; a longer packet, or snap length, is no packet: tcpdump's own limit."""
LARGEST_BLOCK = 1 << 24

_LINK_TYPES = {
    0: "BSD loopback",
    12: "raw IP",
    101: "raw IP",
    105: "802.11",
    113: "Linux cooked (tcpdump -i any)",
    127: "802.11 radiotap",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2 (tcpdump -i any)",
}

_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_TSRESOL, _TSOFFSET = 9, 14


class Reading:
    """How far the reading of a file is, when it is read so many times."""

    def __init__(self, times: int = 1) -> None:
        self._times, self._begun = times, 0
        self._file: BinaryIO | None = None
        self._size = 0

    def begin(self, file: BinaryIO) -> None:
        """From this file, from its beginning."""
        status = os.fstat(file.fileno())
        self._file, self._size = file, status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._begun += 1

    def share(self) -> float | None:
        """Of all bytes, those that were read, 0 to 1. None: nobody knows how many will come, as from a pipe."""
        if not self._file or not self._size:
            return None
        here = 1.0 if self._file.closed else min(1.0, self._file.tell() / self._size)
        return (self._begun - 1 + here) / self._times


def read(path: str, reading: Reading | None = None) -> Iterator[tuple[bytes, int]]:
    """The packets of a file, or of standard input for "-", with their times. reading: is told of the file.

    Errors: CaptureError at the first step if the file cannot be opened or is no capture, later where it is damaged.
    """
    with contextlib.ExitStack() as stack:
        try:
            file: BinaryIO = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
            if reading:
                reading.begin(file)
            magic = file.read(4)
            if magic in _MAGICS:
                yield from _classic(path, file, *_MAGICS[magic])
            elif magic == _PCAPNG:
                yield from _pcapng(path, file)
            else:
                raise CaptureError(f"{path} {_what_else(magic)}")
        except OSError as error:
            raise CaptureError(f"cannot read {path}: {error.strerror}, check the name and its permissions") from None


def _what_else(magic: bytes) -> str:
    if not magic:
        return "is empty: capture again, for example with tcpdump -w"
    if magic[:2] == b"\x1f\x8b":
        return "is compressed: gunzip it first"
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return "is compressed: unzstd it first"
    return "is no pcap or pcapng file: write one with tcpdump -w, or convert it with editcap -F pcap"


def _exactly(path: str, file: BinaryIO, size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise CaptureError(
            f"{path} is cut short: its last {what} has {len(data)} of {size} bytes, "
            "capture again, or keep what is whole with editcap"
        )
    return data


def _ethernet(path: str, link_type: int) -> None:
    if link_type != ETHERNET:
        name = _LINK_TYPES.get(link_type, "unknown here")
        raise CaptureError(
            f"{path} has link type {link_type} ({name}), not {ETHERNET} (Ethernet): capture on one Ethernet interface"
        )


def _classic(path: str, file: BinaryIO, order: str, unit_ns: int) -> Iterator[tuple[bytes, int]]:
    """Behind the magic: version 2+2, zone 4, accuracy 4, snap length 4, link type 4."""
    link_type = struct.unpack(order + "HHiIII", _exactly(path, file, 20, "file header"))[5]
    _ethernet(path, link_type & 0xFFFF)  # above it: length of the frame check sequence
    record = struct.Struct(order + "IIII")
    while header := file.read(16):
        if len(header) != 16:
            raise CaptureError(
                f"{path} is cut short: its last packet header has {len(header)} of 16 bytes, "
                "capture again, or keep what is whole with editcap"
            )
        seconds, fraction, size, _ = record.unpack(header)
        if size > LARGEST:
            raise CaptureError(f"{path} is damaged: it has a packet of {size} bytes, at most {LARGEST} are possible")
        yield _exactly(path, file, size, "packet"), seconds * 1_000_000_000 + fraction * unit_ns


def _pcapng(path: str, file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Blocks: type 4, length 4, body, length again 4. A section's byte order is in its header's body."""
    order = "<"
    interfaces: list[tuple[int, int, int, int]] = []  # link type, snap length, ticks a second, offset in s
    kind_bytes = _PCAPNG
    while kind_bytes:
        length_bytes = _exactly(path, file, 4, "block")
        start = b""
        if kind_bytes == _PCAPNG:
            start = _exactly(path, file, 4, "block")
            if start not in _BYTE_ORDERS:
                raise CaptureError(
                    f"{path} is damaged: its section has the byte-order magic {start.hex()}, capture again"
                )
            order, interfaces = _BYTE_ORDERS[start], []
        (kind,), (length,) = struct.unpack(order + "I", kind_bytes), struct.unpack(order + "I", length_bytes)
        if length % 4 or not 12 + len(start) <= length <= LARGEST_BLOCK:
            raise CaptureError(f"{path} is damaged: it has a block of {length} bytes, capture again")
        body = _exactly(path, file, length - 8 - len(start), "block")[:-4]
        try:
            if kind == _INTERFACE:
                interfaces.append(_interface(body, order))
            elif kind in (_ENHANCED_PACKET, _OBSOLETE_PACKET):
                number, high, low, size = struct.unpack_from(order + "IIII", body)
                if kind == _OBSOLETE_PACKET:  # 16 bits of interface, 16 of drops
                    number = struct.unpack_from(order + "H", body)[0]
                link_type, _, ticks, offset_s = interfaces[number]
                _ethernet(path, link_type)
                yield _inside(body, 20, size), (high << 32 | low) * 1_000_000_000 // ticks + offset_s * 1_000_000_000
            elif kind == _SIMPLE_PACKET:
                link_type, snap_length, _, _ = interfaces[0]
                _ethernet(path, link_type)
                size = struct.unpack_from(order + "I", body)[0]
                yield _inside(body, 4, min(size, snap_length or size)), 0
        except (struct.error, IndexError):
            raise CaptureError(
                f"{path} is damaged: block type {kind} of {length} bytes makes no sense, capture again"
            ) from None
        kind_bytes = file.read(4)
        if 0 < len(kind_bytes) < 4:
            raise CaptureError(f"{path} is cut short: its last block has {len(kind_bytes)} bytes, capture again")


def _inside(body: bytes, start: int, size: int) -> bytes:
    if start + size > len(body):
        raise IndexError
    return body[start : start + size]


def _interface(body: bytes, order: str) -> tuple[int, int, int, int]:
    """An Interface Description Block: link type, snap length, ticks a second, offset in seconds."""
    link_type, _, snap_length = struct.unpack_from(order + "HHI", body)
    ticks, offset_s, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, at)
        value = _inside(body, at + 4, size)
        at += 4 + (size + 3) // 4 * 4
        if code == 0:
            break
        if code == _TSRESOL and size == 1:  # a power of ten, or of two if the first bit is set
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _TSOFFSET and size == 8:
            offset_s = struct.unpack(order + "q", value)[0]
    return link_type, snap_length, ticks, offset_s


RECORD_HEADER = 16
"""Bytes before each packet of a classic pcap."""

_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, LARGEST, ETHERNET)


class Writer:
    """A pcap file being written: little-endian, nanoseconds, Ethernet. A context manager.

    Errors: CaptureError.
    """

    def __init__(self, path: str) -> None:
        """path: "-" is standard output."""
        self.path = path
        self._file: BinaryIO
        try:
            self._file = sys.stdout.buffer if path == "-" else open(path, "wb", buffering=1 << 20)  # noqa: SIM115
        except OSError as error:
            raise CaptureError(f"cannot write {path}: {error.strerror}") from None
        self._write(_FILE_HEADER)

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise CaptureError(f"cannot write {self.path}: {error.strerror}") from None

    def write(self, frame: bytes, time_ns: int) -> None:
        """Append one packet."""
        self._write(struct.pack("<IIII", *divmod(time_ns, 1_000_000_000), len(frame), len(frame)) + frame)

    def write_records(self, records: np.ndarray) -> None:
        """Append packets that have their record headers already (record_headers): uint8, one dimension."""
        self._write(np.ascontiguousarray(records).data)

    def close(self) -> None:
        """Flush, and close the file unless it is standard output."""
        try:
            if self._file is sys.stdout.buffer:
                self._file.flush()
            else:
                self._file.close()
        except OSError as error:
            raise CaptureError(f"cannot write {self.path}: {error.strerror}") from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def record_headers(times_ns: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What Writer.write_records wants before each packet: uint8 (n, 16). times_ns, lengths: integers (n,)."""
    words = np.empty((len(lengths), 4), "<u4")
    words[:, 0], words[:, 1] = np.divmod(times_ns, 1_000_000_000)
    words[:, 2] = words[:, 3] = lengths
    return words.view(np.uint8)


def write(path: str, packets: Iterable[tuple[bytes, int]]) -> int:
    """Write packets with their times to a pcap file; how many."""
    count = 0
    with Writer(path) as writer:
        for frame, time_ns in packets:
            writer.write(frame, time_ns)
            count += 1
    return count
