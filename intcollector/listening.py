"""What comes in on an interface, heard by a packet socket: as an XDP program there would see it.

The kernel takes the outer VLAN tag off before a packet socket sees a frame, and says so beside it: it is put back.
Frames that it merged are taken apart again: of UDP, what was sent as one by somebody who lets the card cut it
(UDP_SEGMENT), or merged on arrival (rx-udp-gro-forwarding). The interface is not made promiscuous.
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import socket
import struct
import time
from collections.abc import Callable

from .errors import AttachError

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA, PACKET_VNET_HDR = 263, 6, 8, 15
OUTGOING = 4  # PACKET_OUTGOING
SO_RCVBUFFORCE = 33
_AUXDATA = struct.Struct("=IIIHHHH")  # status, length, snapped length, mac, network, VLAN tag, its EtherType
_TAG_IS_THERE, _TAG_TYPE_IS_THERE = 1 << 4, 1 << 6
_VNET = struct.Struct("=BBHHHH")  # flags, gso_type, header length, gso_size, checksum start, checksum offset
_GSO_UDP = 5  # VIRTIO_NET_HDR_GSO_UDP_L4

ROOM = 8 << 20
"""Bytes for frames between the kernel and us."""
MAX_FRAMES, MAX_BYTES = 20_000, 32 << 20
"""After these it is over: what is heard is decoded by Python, some ten thousand a second."""
LARGEST = 1 << 16


@dataclasses.dataclass
class Heard:
    """seconds: for which was listened. missed: frames that came meanwhile, and found no room."""

    frames: list[bytes]
    seconds: float = 0.0
    missed: int = 0


def listen(interface: str, seconds: float, begun: Callable[[], object] = lambda: None) -> Heard:
    """Frames that come in, for so long or until there are as many as are looked at. begun: called when whatever comes
    from then on will be heard. Errors: AttachError."""
    heard = Heard([])
    with contextlib.ExitStack() as stack:
        try:
            ear = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            ear.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            ear.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            with contextlib.suppress(PermissionError):
                ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
            ear.setblocking(False)
            ear.bind((interface, ETH_P_ALL))
        except OSError as error:
            raise AttachError(f"cannot listen on {interface} ({error.strerror}): run as root (sudo)") from None
        begun()
        begin = time.monotonic()
        _take(ear, begin + seconds, heard)
        heard.seconds = time.monotonic() - begin
        _, dropped = struct.unpack("=II", ear.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        heard.missed += dropped
    return heard


def _take(ear: socket.socket, end: float, heard: Heard) -> None:
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    size = 0
    while (left := end - time.monotonic()) > 0 and len(heard.frames) < MAX_FRAMES and size < MAX_BYTES:
        if not poll.poll(left * 1000):
            continue
        try:
            data, beside, _, where = ear.recvmsg(_VNET.size + LARGEST, socket.CMSG_SPACE(_AUXDATA.size))
        except BlockingIOError:
            continue
        except OSError:  # the interface went down; or a frame merged in a way that cannot be told
            heard.missed += 1
            continue
        if where[2] == OUTGOING:
            continue
        tag = next((said for level, kind, said in beside if (level, kind) == (SOL_PACKET, PACKET_AUXDATA)), b"")
        for frame in _apart(data):
            heard.frames.append(_tagged(frame, tag))
            size += len(frame)


def _tagged(frame: bytes, said: bytes) -> bytes:
    """With the VLAN tag that was taken off. said: struct tpacket_auxdata."""
    if len(said) < _AUXDATA.size:
        return frame
    status, _, _, _, _, tag, ethertype = _AUXDATA.unpack_from(said)
    if not status & _TAG_IS_THERE:
        return frame
    return frame[:12] + struct.pack("!HH", ethertype if status & _TAG_TYPE_IS_THERE else 0x8100, tag) + frame[12:]


def _apart(data: bytes) -> list[bytes]:
    """A frame; or the frames that were merged to it, each with the lengths that it had. data: behind struct
    virtio_net_hdr."""
    _, kind, _, size, _, _ = _VNET.unpack_from(data)
    frame = data[_VNET.size :]
    if kind != _GSO_UDP or not size:
        return [frame]
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    ip, is_4 = at + 2, frame[at : at + 2] == b"\x08\x00"
    udp = ip + (frame[ip] & 0xF) * 4 if is_4 else ip + 40
    frames = []
    for start in range(udp + 8, len(frame), size):
        part = bytearray(frame[: udp + 8] + frame[start : start + size])
        struct.pack_into("!H", part, ip + (2 if is_4 else 4), len(part) - (ip if is_4 else udp))
        struct.pack_into("!H", part, udp + 4, len(part) - udp)
        frames.append(bytes(part))
    return frames
