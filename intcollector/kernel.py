"""The bpf(2) system call, as far as bcc does not wrap it: links, test runs, batches of map entries, names of programs.

Everything here takes and gives file descriptors, integers and bytes. Errors: OSError, with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a program is loaded while this is being imported
    import numpy as np

MAP_CREATE = 0
MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY, PROG_LOAD = 1, 2, 3, 4, 5
PROG_TEST_RUN, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 10, 13, 15
MAP_LOOKUP_BATCH, LINK_CREATE, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID, LINK_DETACH = 24, 28, 30, 31, 34

XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE = 2, 4
TEST_RUN_LIVE_FRAMES = 2
PROG_TYPE_XDP, ATTACH_TYPE_XDP = 6, 37

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351, "armv7l": 386, "i686": 357}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def address_of(array: np.ndarray) -> int:
    """The address of an array's first byte."""
    return int(array.ctypes.data)


def bpf(command: int, attributes: bytes | bytearray) -> int:
    """bpf(2): the attributes are changed in place if given as a bytearray. Gives the call's result."""
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError(f"the number of the bpf system call on {machine} is not known here")
    size = len(attributes)
    buffer = (ctypes.c_char * size).from_buffer_copy(attributes)
    result = _libc.syscall(ctypes.c_long(_NUMBERS[machine]), ctypes.c_long(command), buffer, ctypes.c_ulong(size))
    if isinstance(attributes, bytearray):  # also of a call that failed: the end of a batch says so with ENOENT
        attributes[:] = buffer.raw
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def link_create(program: int, ifindex: int, flags: int) -> int:
    """Attach an XDP program by a BPF link; its descriptor holds the program on the interface."""
    return bpf(LINK_CREATE, struct.pack("=IIII", program, ifindex, ATTACH_TYPE_XDP, flags) + bytes(32))


def link_detach(link: int) -> None:
    """Take a link's program off its interface; the descriptor stays."""
    bpf(LINK_DETACH, struct.pack("=I", link))


def links() -> list[tuple[int, int, int]]:
    """All XDP links of this kernel: (link id, program id, ifindex)."""
    found: list[tuple[int, int, int]] = []
    last = 0
    while True:
        attributes = bytearray(struct.pack("=III", last, 0, 0))
        try:
            bpf(LINK_GET_NEXT_ID, attributes)
        except FileNotFoundError:
            return found
        last = struct.unpack_from("=I", attributes, 4)[0]
        try:
            descriptor = bpf(LINK_GET_FD_BY_ID, struct.pack("=III", last, 0, 0))
        except FileNotFoundError:  # gone meanwhile
            continue
        try:
            kind, identity, program, _, ifindex = struct.unpack_from("=IIIII", info(descriptor, 64))
        finally:
            os.close(descriptor)
        if kind == 6:  # BPF_LINK_TYPE_XDP
            found.append((identity, program, ifindex))


def link_fd(identity: int) -> int:
    """A descriptor of the link with this id."""
    return bpf(LINK_GET_FD_BY_ID, struct.pack("=III", identity, 0, 0))


def info(descriptor: int, size: int) -> bytes:
    """What the kernel says of a program, map or link, as its struct bpf_*_info."""
    buffer = ctypes.create_string_buffer(size)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, size, ctypes.addressof(buffer)))
    return buffer.raw


def program_fd(identity: int) -> int:
    """A descriptor of the program with this id."""
    return bpf(PROG_GET_FD_BY_ID, struct.pack("=III", identity, 0, 0))


def program_name(identity: int) -> str:
    """The name of the program with this id, as its author wrote it (15 characters at most)."""
    descriptor = program_fd(identity)
    try:
        return info(descriptor, 128)[64:80].split(b"\0")[0].decode(errors="replace")
    finally:
        os.close(descriptor)


def program_id(descriptor: int) -> int:
    """The id of a loaded program."""
    return int(struct.unpack_from("=I", info(descriptor, 128), 4)[0])


def test_run(program: int, packet: bytes, *, repeat: int = 1) -> tuple[int, int]:
    """Run an XDP program on a packet (14 bytes at least) without an interface. Gives (verdict, ns a run)."""
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = bytearray(
        struct.pack("=IIIIQQII", program, 0, len(packet), 0, ctypes.addressof(data), 0, repeat, 0) + bytes(40)
    )
    bpf(PROG_TEST_RUN, attributes)
    _, verdict, _, _, _, _, _, duration = struct.unpack_from("=IIIIQQII", attributes)
    return verdict, duration


def test_run_behind(program: int, metadata: bytes, packet: bytes) -> int:
    """test_run() of a packet with metadata in front of it, which only the program sees (Linux 5.15). Gives the verdict.

    metadata: a multiple of 4 bytes, at most 32. Errors: OSError (EINVAL) where the kernel does not know this.
    """
    data = ctypes.create_string_buffer(metadata + packet, len(metadata) + len(packet))
    context = ctypes.create_string_buffer(struct.pack("=IIIIII", len(metadata), len(data), 0, 0, 0, 0), 24)
    attributes = bytearray(
        struct.pack(
            "=IIIIQQIIIIQQIII",
            program, 0, len(data), 0, ctypes.addressof(data), 0, 1, 0, 24, 0, ctypes.addressof(context), 0, 0, 0, 0,
        ) + bytes(4)
    )  # fmt: skip
    bpf(PROG_TEST_RUN, attributes)
    return int(struct.unpack_from("=I", attributes, 4)[0])


def test_run_live(program: int, packet: bytes, ifindex: int, *, repeat: int, batch: int = 64) -> None:
    """Send repeat frames through an XDP program as if they had come in on ifindex (Linux 5.18).

    The frames are real: what the program redirects is transmitted. packet is what each starts as.
    """
    data = ctypes.create_string_buffer(packet, len(packet))
    context = ctypes.create_string_buffer(struct.pack("=IIIIII", 0, len(packet), 0, ifindex, 0, 0), 24)
    bpf(
        PROG_TEST_RUN,
        struct.pack(
            "=IIIIQQIIIIQQIII",
            program, 0, len(packet), 0, ctypes.addressof(data), 0, repeat, 0,
            24, 0, ctypes.addressof(context), 0, TEST_RUN_LIVE_FRAMES, 0, batch,
        ) + bytes(4),
    )  # fmt: skip


def map_update(descriptor: int, key: bytes, value: bytes) -> None:
    """Set one entry of a map."""
    k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    bpf(MAP_UPDATE_ELEM, struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(k), ctypes.addressof(v), 0))


def map_delete(descriptor: int, key: bytes) -> None:
    """Remove one entry of a map. Errors: FileNotFoundError where there is none."""
    k = ctypes.create_string_buffer(key, len(key))
    bpf(MAP_DELETE_ELEM, struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(k), 0, 0))


def map_lookup(descriptor: int, key: bytes, value: np.ndarray) -> None:
    """Read one entry of a map into value. Errors: FileNotFoundError where there is none."""
    k = ctypes.create_string_buffer(key, len(key))
    bpf(MAP_LOOKUP_ELEM, struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(k), address_of(value), 0))


def map_items(
    descriptor: int,
    key: np.dtype,
    value: np.dtype,
    entries: int,
    *,
    chunk: int = 8192,
    array: bool = False,
    locked: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """All entries of a map of at most this many: keys (n,) and values (n,).

    In batches where the kernel has them (Linux 5.6), else one by one. array: keys are the indexes in order, and reading
    stops after entries. locked: each value is copied with its spin lock held. A hash that changes meanwhile may show an
    entry twice or not at all; the kernel cannot lock it.
    """
    import numpy as np

    if not entries:
        return np.empty(0, key), np.empty(0, value)
    # Room for all there may be, of which only what is written to becomes memory: no second copy of a large map.
    room = entries if array else entries + chunk
    keys, values = np.empty(room, key), np.empty(room, value)
    cursor = ctypes.create_string_buffer(max(key.itemsize, 8))
    first, total = True, 0
    while True:
        wanted = min(chunk, entries - total) if array else chunk
        if total + wanted > len(keys):  # entries shown twice
            keys, values = _longer(keys, total + wanted), _longer(values, total + wanted)
        attributes = bytearray(
            struct.pack(
                "=QQQQIIQQ",
                0 if first else ctypes.addressof(cursor), ctypes.addressof(cursor),
                address_of(keys[total:]), address_of(values[total:]), wanted, descriptor, 4 if locked else 0, 0,
            )
        )  # fmt: skip
        try:
            bpf(MAP_LOOKUP_BATCH, attributes)
            last = False
        except FileNotFoundError:  # the end of the map was reached
            last = True
        except OSError as error:
            if first and error.errno in (errno.EINVAL, _ENOTSUPP):
                return _items_one_by_one(descriptor, key, value, entries, array)
            if error.errno == errno.ENOSPC and chunk < 1 << 20:  # one bucket holds more than the chunk
                chunk *= 2
                continue
            raise
        count = struct.unpack_from("=I", attributes, 32)[0]
        total += count
        first = False
        if last or (array and total >= entries):
            return keys[:total], values[:total]


def _longer(array: np.ndarray, length: int) -> np.ndarray:
    """With room for more."""
    import numpy as np

    longer = np.empty(length, array.dtype)
    longer[: len(array)] = array
    return longer


_ENOTSUPP = 524
"""The kernel's own "not supported", which should not reach us and does."""


def _items_one_by_one(
    descriptor: int, key: np.dtype, value: np.dtype, entries: int, array: bool
) -> tuple[np.ndarray, np.ndarray]:
    """map_items() where the kernel has no batches for this map (Linux 5.6, per-CPU arrays 5.13): a call an entry."""
    import numpy as np

    keys, values = np.zeros(entries, key), np.zeros(entries, value)
    if array:
        keys = np.arange(entries, dtype="<u4").view(key)
        for at in range(entries):
            map_lookup(descriptor, keys[at].tobytes(), values[at : at + 1])
        return keys, values
    count, last = 0, 0
    for _ in range(2 * entries):  # a hash that changes meanwhile may begin anew, but not for ever
        here = address_of(keys[count : count + 1])
        try:
            bpf(MAP_GET_NEXT_KEY, struct.pack("=IIQQQ", descriptor, 0, last, here, 0))
        except FileNotFoundError:  # the end
            break
        last = here
        try:
            map_lookup(descriptor, keys[count].tobytes(), values[count : count + 1])
        except FileNotFoundError:  # gone meanwhile
            continue
        count += 1
        if count == entries:
            break
    return keys[:count], values[:count]


def load_instructions(code: bytes, *, name: str = "", attach_type: int = 0) -> int:
    """Load an XDP program given as its instructions, which name maps by their descriptors; its descriptor."""
    instructions, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sII", PROG_TYPE_XDP, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license),
        0, 0, 0, 0, 0, name.encode()[:15], 0, attach_type,
    )  # fmt: skip
    return bpf(PROG_LOAD, attributes)
