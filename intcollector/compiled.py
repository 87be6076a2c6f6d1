"""Compiled programs, kept: bytes of functions and descriptions of maps, from which a program is loaded without bcc.

Compiling takes a second or two, and most of a collector's start; loading what was compiled takes as long as the
kernel's verifier does. A file holds what bcc made of one source text with one set of options; its name says of which,
so that another text, another option or another bcc has another file. Whatever is wrong with a file, the program is
compiled.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import logging
import os
import pathlib
import resource
import stat
import struct
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from . import kernel

log = logging.getLogger(__name__)

FOLDER = "/var/cache/intcollector"
FOLDER_VARIABLE = "INTCOLLECTOR_CACHE"
"""Another folder; empty: nothing is kept."""
MAX_FILES = 16
FORMAT = 2
SUFFIX, UNFINISHED = ".program", ".new"
UNFINISHED_S = 3600
"""What is still called so after that long was left by somebody who was killed."""
LOAD_64, OF_MAP = 0x18, 1
BTF_LOAD, BTF_GET_FD_BY_ID = 18, 19


def folder() -> pathlib.Path | None:
    """Where programs are kept; None: nowhere."""
    said = os.environ.get(FOLDER_VARIABLE, FOLDER)
    return pathlib.Path(said) if said else None


def name_of(what: Iterable[str]) -> str:
    """The name of the file for a program that all of this decides: source text, options, compiler."""
    digest = hashlib.sha256(str(FORMAT).encode())
    for one in what:
        digest.update(b"\0" + one.encode())
    return digest.hexdigest()[:32] + SUFFIX


def who_else(said: os.stat_result) -> str:
    """Who but root and we ourselves may have written it; empty: nobody."""
    if said.st_uid not in (0, os.geteuid()):
        return f"user {said.st_uid}, whose it is"
    if said.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others (mode {stat.S_IMODE(said.st_mode):04o})"
    return ""


# --- what is kept -----------------------------------------------------------------------------------------------------


class Map(NamedTuple):
    """What a map is made of."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_key: int
    btf_value: int


class Content(NamedTuple):
    """A program. functions: their instructions, in which a map is a number; maps: that number -> the map; btf: of the
    maps' keys and values, or nothing."""

    functions: dict[str, bytes]
    maps: dict[int, Map]
    btf: bytes


def map_places(code: bytes | bytearray) -> list[int]:
    """Where instructions name a map: the offsets of the numbers. Such an instruction takes the room of two.

    Errors: ValueError, if they name something of the kernel that is not a map.
    """
    places, at = [], 0
    while at < len(code):
        if code[at] == LOAD_64:
            kind = code[at + 1] >> 4
            if kind == OF_MAP:
                places.append(at + 4)
            elif kind:
                raise ValueError(f"instructions load a constant of kind {kind}")
            at += 8
        at += 8
    return places


def with_maps(code: bytes, instead: Mapping[int, int]) -> bytes:
    """Instructions that name other maps where instead says which."""
    out = bytearray(code)
    for at in map_places(code):
        (number,) = struct.unpack_from("=i", code, at)
        struct.pack_into("=i", out, at, instead.get(number, number))
    return bytes(out)


def content_of(functions: Mapping[str, bytes], maps: Mapping[int, tuple[str, int]]) -> Content:
    """What there is to keep of a program. functions: their instructions; maps: number in them -> (name, descriptor).

    Errors: OSError, ValueError where that is not all there is to know.
    """
    described = {number: _map_of(*one) for number, one in maps.items()}
    identities = {btf for _, btf in described.values() if btf}
    if len(identities) > 1 or not _named(functions) <= maps.keys():
        raise ValueError("bcc describes maps in another way")
    btf = b"".join(_btf_of(identity) for identity in identities)
    return Content(dict(functions), {number: one for number, (one, _) in described.items()}, btf)


def _named(functions: Mapping[str, bytes]) -> set[int]:
    """The numbers of maps in instructions."""
    return {struct.unpack_from("=i", code, at)[0] for code in functions.values() for at in map_places(code)}


def _map_of(name: str, descriptor: int) -> tuple[Map, int]:
    """What the kernel says of a map, and the id of the BTF of its key and value."""
    said = kernel.info(descriptor, 80)
    kind, _, key_size, value_size, max_entries, flags = struct.unpack_from("=6I", said)
    btf, btf_key, btf_value = struct.unpack_from("=3I", said, 64)
    return Map(name, kind, key_size, value_size, max_entries, flags, btf_key, btf_value), btf


def _btf_of(identity: int) -> bytes:
    """The kernel's copy of a BTF."""
    descriptor = kernel.bpf(BTF_GET_FD_BY_ID, struct.pack("=III", identity, 0, 0))
    try:
        size = _btf_info(descriptor, struct.pack("=QIIQII", 0, 0, 0, 0, 0, 0))
        buffer = ctypes.create_string_buffer(size)
        _btf_info(descriptor, struct.pack("=QIIQII", ctypes.addressof(buffer), size, 0, 0, 0, 0))
        return buffer.raw
    finally:
        os.close(descriptor)


def _btf_info(descriptor: int, asked: bytes) -> int:
    """Fill the buffer that struct bpf_btf_info names; the size of the BTF."""
    held = ctypes.create_string_buffer(asked, len(asked))
    kernel.bpf(kernel.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(asked), ctypes.addressof(held)))
    return int(struct.unpack_from("=I", held.raw, 8)[0])


# --- files ------------------------------------------------------------------------------------------------------------


def write(path: pathlib.Path, content: Content) -> None:
    """Keep a program; the folder is made if it is not there. It is there whole or not at all, whoever else writes, and
    only its owner can write to it. Errors: OSError."""
    body = json.dumps(
        {
            "functions": {name: code.hex() for name, code in content.functions.items()},
            "maps": [[number, *one] for number, one in content.maps.items()],
            "btf": content.btf.hex(),
        }
    ).encode()
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o755)
    if others := who_else(path.parent.stat()):
        raise PermissionError(errno.EPERM, f"not only ours, but also for {others}", str(path.parent))
    descriptor, unfinished = tempfile.mkstemp(UNFINISHED, dir=path.parent)  # mode 600 at most, whatever the umask
    try:
        with open(descriptor, "wb") as file:
            file.write(_first_line(body) + body)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
    _tidy(path.parent)


def _first_line(body: bytes) -> bytes:
    return f"intcollector {FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode()


def _tidy(where: pathlib.Path) -> None:
    """Of the files so many stay that were used last. Another process may do the same at the same time."""
    used: list[tuple[int, pathlib.Path]] = []
    for path in where.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.suffix == SUFFIX:
                used.append((path.stat().st_mtime_ns, path))
            elif path.suffix == UNFINISHED and path.stat().st_mtime < time.time() - UNFINISHED_S:
                path.unlink()
    for _, path in sorted(used)[:-MAX_FILES]:
        path.unlink(missing_ok=True)


def read(path: pathlib.Path) -> Content:
    """The program in a file that only root and we ourselves can have written, which is noted as used.

    Errors: FileNotFoundError; OSError, ValueError where it is of no use. That others can write to it is logged.
    """
    where = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _refuse_others(path.parent, where, "chown root and chmod go-w, or each start compiles the program")
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=where)
    finally:
        os.close(where)
    with open(descriptor, "rb") as file:
        _refuse_others(path, descriptor, "it is replaced")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a file")
        first, body = file.readline(), file.read()
        if first != _first_line(body):
            raise ValueError("not whole, or of another format")
        content = _content(body)
        with contextlib.suppress(OSError):  # a folder to read only
            os.utime(descriptor)
    return content


def _refuse_others(path: pathlib.Path, descriptor: int, advice: str) -> None:
    if others := who_else(os.fstat(descriptor)):
        log.warning("%s is not used, since it can be written by %s: %s", path, others, advice)
        raise ValueError(f"it can be written by {others}")


def _content(body: bytes) -> Content:
    said = json.loads(body)
    try:
        functions = {str(name): bytes.fromhex(code) for name, code in said["functions"].items()}
        maps = {int(number): Map(str(name), *map(int, rest)) for number, name, *rest in said["maps"]}
        btf = bytes.fromhex(said["btf"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not as it is written: {error!r}") from None
    if any(len(code) % 8 for code in functions.values()):
        raise ValueError("half an instruction")
    if not _named(functions) <= maps.keys():  # a number left as it is would be any descriptor of ours
        raise ValueError("a map is not described")
    return Content(functions, maps, btf)


# --- a program of it --------------------------------------------------------------------------------------------------


class Maps:
    """The maps of a program, made anew. numbers: what each is in the instructions -> its descriptor.

    Errors: OSError; ValueError, struct.error where the description makes no sense.
    """

    def __init__(self, content: Content) -> None:
        self._descriptors: dict[str, int] = {}
        self.numbers: dict[int, int] = {}
        btf = _load_btf(content.btf) if content.btf else -1
        try:
            for number, one in content.maps.items():
                self.numbers[number] = self._descriptors[one.name] = _create(one, btf)
        except BaseException:
            self.close()
            raise
        finally:
            if btf >= 0:
                os.close(btf)  # the maps hold it

    @property
    def names(self) -> list[str]:
        """Of all maps."""
        return list(self._descriptors)

    def __getitem__(self, name: str) -> int:
        """The descriptor of a map."""
        return self._descriptors[name]

    def close(self) -> None:
        """Give up the descriptors."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def _load_btf(btf: bytes) -> int:
    buffer = ctypes.create_string_buffer(btf, len(btf))
    return kernel.bpf(BTF_LOAD, struct.pack("=QQIII", ctypes.addressof(buffer), 0, len(btf), 0, 0))


def _create(one: Map, btf: int) -> int:
    with_btf = (btf, one.btf_key, one.btf_value) if one.btf_key or one.btf_value else (0, 0, 0)
    attributes = struct.pack(
        "=7I16sI3I", one.kind, one.key_size, one.value_size, one.max_entries, one.flags, 0, 0,
        one.name.encode()[:15], 0, *with_btf,
    )  # fmt: skip
    try:
        return kernel.bpf(kernel.MAP_CREATE, attributes)
    except PermissionError:  # before Linux 5.11 memory of maps is locked memory
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return kernel.bpf(kernel.MAP_CREATE, attributes)
