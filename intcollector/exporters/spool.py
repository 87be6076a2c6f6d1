"""Chunks that wait on disk: written ahead of the first try, read in order, gone once they are delivered.

    FOLDER/0000000001.spool   chunks, oldest first; a file is removed when all of it is delivered or given up
    FOLDER/0000000002.spool
    FOLDER/rest               what is left of a chunk that was delivered in part: goes out before all others
    FOLDER/position           up to where all is delivered
    FOLDER/target             what the points are for, for people
    FOLDER/lock               held by the process that uses the folder

A process that is killed loses nothing that was appended. Nothing is synced chunk by chunk: a power cut may cost what
the system had not yet written of the last file; files that are complete are synced if they have to wait. Whatever is
found in the folder is checked before it is believed: what is damaged is skipped, said, and counted where it is known
how many points it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import logging
import mmap
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import ExporterError

log = logging.getLogger(__name__)

BEGIN = b"intcollector spool 1\n"
"""Of every file of chunks. Another number is another format."""
MARK = b"\xf5INT"
"""Of every chunk. No text has the first byte, so that the next chunk is found behind a damaged one."""
HEAD = struct.Struct("<4sIIqI")
"""Mark, bytes, points, when they were taken (ns since 1970), CRC of the bytes; behind it the CRC of this."""
CRC = struct.Struct("<I")
HEAD_SIZE = HEAD.size + CRC.size
POSITION = struct.Struct("<8sQQ")
"""A word, number of a file, offset in it; behind it the CRC of this."""

SEGMENT = 4 << 20
"""Bytes after which another file is begun: room comes back by whole files."""
SEGMENTS = 8
"""Files that the room is divided into at least."""
LARGEST = 1 << 30
"""A chunk that says to be larger is none."""
LOOK_S = 0.5
"""Others that start look into a folder for less."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Spelled: what goes out in one go, a line a point. Its times are fixed: a second try writes the same points.

    taken_ns: when the oldest of them was taken, ns since 1970; 0: as the chunk it is a part of.
    """

    data: bytes
    points: int
    taken_ns: int = 0


def pieces(chunk: Chunk, size: int) -> list[Chunk]:
    """The chunk in parts of whole lines, of at most so many bytes where lines are no longer."""
    if len(chunk.data) <= size or chunk.points < 2 or chunk.data.count(b"\n") != chunk.points:
        return [chunk]
    out, first = [], 0
    while first < len(chunk.data):
        end = chunk.data.rfind(b"\n", first, first + size) + 1
        end = end or chunk.data.index(b"\n", first + size) + 1
        data = chunk.data[first:end]
        out.append(Chunk(data, data.count(b"\n"), chunk.taken_ns))
        first = end
    return out


@dataclasses.dataclass(eq=False)
class Segment:
    """A file of chunks. size: of what is complete. points: not delivered. oldest_ns: when its first was taken."""

    number: int
    size: int
    points: int
    oldest_ns: int = 0


class Spool:
    """A folder of chunks for one target, used by one process.

    append() is called by one thread, first(), done() and back() by another. points, rest_points, bytes and oldest_ns
    may be read by any. lost(points, reason) is told what is given up: `spool_full`, `spool_damaged`. rest_damaged:
    points of the rest that were found damaged, which are in no other count.

    Errors: ExporterError, when the folder cannot be used.
    """

    def __init__(self, folder: str, target: str, limit: int, lost: Callable[[int, str], None]) -> None:
        """limit: bytes."""
        self.folder = folder
        self._limit, self._lost = limit, lost
        self.segment_size = max(1, min(SEGMENT, limit // SEGMENTS))
        self._mutex = threading.Lock()
        self._segments: list[Segment] = []
        self._writing: tuple[Segment, int] | None = None  # and its descriptor
        self._reading: tuple[Segment, int] | None = None
        self._offset = len(BEGIN)  # in the first segment: up to there all is delivered
        self._handed: tuple[Segment, Chunk, int] | None = None  # and where it ends
        self._last = 0  # number
        self._closed = False
        self._position = -1
        self._complaints: set[str] = set()
        self.points = self.rest_points = self.rest_damaged = self.bytes = self.oldest_ns = 0
        self.rest: list[Chunk] = []
        """At start: what goes out before all others."""
        try:
            _make(folder)
            self._lock = self._locked()
            try:
                self._find()
                self._describe(target)
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0)
            raise ExporterError(
                f"cannot keep points in {folder} ({name}: {error.strerror}): give --spool a folder that may be "
                "written to"
            ) from None

    # --- at start -----------------------------------------------------------------------------------------------------

    def _path(self, number: int) -> str:
        return os.path.join(self.folder, f"{number:010}.spool")

    def _open(self, name: str, flags: int) -> int:
        """Measurements are private: for the owner only."""
        return os.open(os.path.join(self.folder, name), flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _locked(self) -> int:
        lock = self._open("lock", os.O_RDWR | os.O_CREAT)
        end = time.monotonic() + LOOK_S
        while not _taken(lock, fcntl.LOCK_EX):
            if time.monotonic() > end:
                holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
                os.close(lock)
                raise ExporterError(
                    f"{self.folder} is used by another collector (process {holder}): stop that one, or give --spool "
                    "another folder"
                )
            time.sleep(0.01)  # between two looks: waiting() holds it for a moment
        with contextlib.suppress(OSError):  # only to be shown to others
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def _describe(self, target: str) -> None:
        with contextlib.suppress(OSError):  # for people
            file = self._open("target", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                os.write(file, f"{target}\n".encode())
            finally:
                os.close(file)

    def _find(self) -> None:
        """What an earlier process left."""
        number, offset = self._read_position()
        found = sorted(
            int(name[:10]) for name in os.listdir(self.folder) if re.fullmatch(r"[0-9]{10}\.spool", name, re.ASCII)
        )
        self._last = max([number, *found])
        for one in found:
            segment = self._found(one, len(BEGIN) if one > number else offset if one == number else None)
            if segment is None:
                continue
            if one < number:  # delivered; its removal was the last thing that did not happen
                self._unlink(self._path(one))
                continue
            if self._segments and one != self._segments[-1].number + 1:
                log.warning("%s: files between %s and %s are missing", self.folder, self._segments[-1].number, one)
            self._segments.append(segment)
        if self._segments:
            self._offset = offset if self._segments[0].number == number else len(BEGIN)
            self.oldest_ns = self._segments[0].oldest_ns
        self.points = sum(segment.points for segment in self._segments)
        self.bytes = sum(segment.size for segment in self._segments)
        self._find_rest()
        self._position = self._open("position", os.O_RDWR | os.O_CREAT)
        # So that a disk that fills up has room for it.
        self._note(self._segments[0].number if self._segments else self._last + 1, self._offset)

    def _found(self, number: int, offset: int | None) -> Segment | None:
        """The segment as it is behind offset, None: behind its end; None if it is none of ours, which is then left
        alone."""
        path = self._path(number)
        try:
            file = self._open(os.path.basename(path), os.O_RDONLY)
        except OSError as error:
            log.warning("%s cannot be read (%s), and is left out", path, error.strerror)
            return None
        try:
            size = os.fstat(file).st_size
            begin = os.pread(file, len(BEGIN), 0)
            if begin != BEGIN:
                if BEGIN.startswith(begin):  # cut before it began
                    self._unlink(path)
                else:
                    log.warning("%s is not of this version of the collector, and is left alone", path)
                return None
            segment = Segment(number, size, 0)
            if offset is None:
                return segment
            with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as view:
                for at, length, points, taken_ns, _ in _heads(view, max(offset, len(BEGIN))):
                    segment.points += points
                    segment.oldest_ns = segment.oldest_ns or taken_ns
                    if at + HEAD_SIZE + length > size:
                        log.warning("%s ends in the middle of %d points, which are lost", path, points)
            return segment
        except OSError as error:
            log.warning("%s cannot be read (%s), and is left out", path, error.strerror)
            return None
        finally:
            os.close(file)

    def _read_position(self) -> tuple[int, int]:
        """Where to go on; (0, ...) if that is not known: at the beginning of what is there."""
        try:
            file = self._open("position", os.O_RDONLY)
        except FileNotFoundError:
            return 0, len(BEGIN)
        try:
            data = os.pread(file, POSITION.size + CRC.size, 0)
        finally:
            os.close(file)
        body = data[: POSITION.size]
        if not data:
            return 0, len(BEGIN)
        if len(data) < POSITION.size + CRC.size or CRC.unpack(data[POSITION.size :])[0] != zlib.crc32(body):
            log.warning("%s/position is damaged: some points may be delivered a second time", self.folder)
            return 0, len(BEGIN)
        _, number, offset = POSITION.unpack(body)
        return number, max(offset, len(BEGIN))

    def _find_rest(self) -> None:
        """What is damaged is said and counted once: it is not there any more at the next start."""
        try:
            file = self._open("rest", os.O_RDONLY)
        except FileNotFoundError:
            return
        with os.fdopen(file, "rb") as opened:
            data = opened.read()
        for at, length, points, taken_ns, crc in _heads(data, len(BEGIN)):
            body = data[at + HEAD_SIZE : at + HEAD_SIZE + length]
            if len(body) == length and zlib.crc32(body) == crc:
                self.rest.append(Chunk(body, points, taken_ns))
            else:
                log.warning("%s/rest is damaged: %d points are lost", self.folder, points)
                self.rest_damaged += points
        kept = sum(chunk.points for chunk in self.rest)
        self.rest_points = kept + self.rest_damaged
        if self.rest_damaged:
            try:
                self._keep(self.rest)
            except OSError as error:
                self._complain("rest cannot be written", error)
        self.rest_points = kept

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, chunk: Chunk) -> None:
        """Write a chunk behind all others. What is beyond the limit is given up, the oldest first.

        Errors: OSError, and nothing of the chunk is there.
        """
        head = _head(chunk)
        size = len(head) + len(chunk.data)
        finished = None
        try:
            with self._mutex:
                if self._closed:
                    raise OSError(errno.EBADF, "closed")
                while self._segments and self.bytes + size > self._limit:
                    self._give_up_oldest()
                if self._writing and self._writing[0].size + size > self.segment_size:
                    finished, self._writing = (*self._writing, self._waits(self._writing[0])), None
                segment, file = self._writing = self._writing or self._begun()
                try:
                    _write(file, (head, chunk.data), segment.size)
                except OSError:
                    self._unwrite(segment, file)
                    raise
                segment.size += size
                segment.points += chunk.points
                segment.oldest_ns = segment.oldest_ns or chunk.taken_ns
                self.oldest_ns = self.oldest_ns if self.points else chunk.taken_ns
                self.points += chunk.points
                self.bytes += size
        finally:
            if finished:
                self._finish(*finished)

    def _begun(self) -> tuple[Segment, int]:
        """A new file."""
        path, flags = self._path(self._last + 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            file = self._open(os.path.basename(path), flags)
        except FileNotFoundError:  # somebody removed the folder
            _make(self.folder)
            file = self._open(os.path.basename(path), flags)
        try:
            _write(file, (BEGIN,), 0)
        except OSError:
            os.close(file)
            self._unlink(path)
            raise
        self._last += 1
        if not self._segments:
            self._offset = len(BEGIN)
        self._segments.append(Segment(self._last, len(BEGIN), 0))
        self.bytes += len(BEGIN)
        return self._segments[-1], file

    def _unwrite(self, segment: Segment, file: int) -> None:
        """No half chunk stays. The file is not written to any more: it goes when it is delivered, which makes room."""
        self._writing = None
        try:
            os.ftruncate(file, segment.size)
        except OSError as error:  # this process does not read so far, and a later one finds it damaged
            self._complain("cannot be cut", error)
        finally:
            os.close(file)
        if segment.size == len(BEGIN):
            self.bytes -= segment.size
            self._segments.remove(segment)
            self._unlink(self._path(segment.number))

    def _waits(self, segment: Segment) -> bool:
        """Whether most of it does: what is delivered in a moment need not outlast a power cut."""
        delivered = self._offset if segment is self._segments[0] else 0
        return segment.points > 0 and delivered < segment.size // 2

    def _finish(self, segment: Segment, file: int, sync: bool) -> None:
        """A file that nothing is added to."""
        try:
            if sync:
                os.fdatasync(file)
                folder = self._open("", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            self._complain("cannot be synced", error)
        finally:
            os.close(file)

    def _give_up_oldest(self) -> None:
        """The oldest file. What of it is at work is not lost yet: back() would say so."""
        segment = self._segments[0]
        at_work = self._handed[1].points if self._handed and self._handed[0] is segment else 0
        self._remove(segment, "spool_full", at_work)

    # --- reading ------------------------------------------------------------------------------------------------------

    def first(self, most: int = 0) -> Chunk | None:
        """The oldest chunk that is not delivered; None if there is none. done() or back() follows.

        most: points; small chunks are handed out together up to so many, or an outage would end with as many requests
        as there were intervals in it.
        """
        with self._mutex:
            while self._segments and not self._closed:
                segment = self._segments[0]
                if self._offset < segment.size:
                    if chunk := self._next(segment, most):
                        return chunk
                elif self._writing and self._writing[0] is segment:
                    if segment.points:  # damage took more than it said
                        lost = segment.points
                        self._take_off(segment, lost)
                        self._lost(lost, "spool_damaged")
                    return None
                else:
                    self._remove(segment, "spool_damaged")
            return None

    def _next(self, segment: Segment, most: int) -> Chunk | None:
        """What is at the position; None if that was damaged, and the position is behind it."""
        path, at = self._path(segment.number), self._offset
        try:
            file = self._reader(segment)
            fields = _fields(os.pread(file, HEAD_SIZE, at))
            if fields is None:
                rest = os.pread(file, segment.size - at, at)
                self._offset = at + _next_head(rest, 1)
                log.warning("%s is damaged: %d bytes are skipped", path, self._offset - at)
                return None
            length, points, taken_ns, _ = fields
            data = _body(file, at, fields)
            if data is None:
                log.warning("%s is damaged: %d points are lost", path, points)
                self._offset = min(at + HEAD_SIZE + length, segment.size)
                self._take_off(segment, points)
                self._lost(points, "spool_damaged")
                return None
            parts = [data]
            end = at + HEAD_SIZE + length
            while end < segment.size:
                fields = _fields(os.pread(file, HEAD_SIZE, end))
                if fields is None or points + fields[1] > most or (data := _body(file, end, fields)) is None:
                    break
                parts.append(data)
                points += fields[1]
                end += HEAD_SIZE + fields[0]
        except OSError as error:
            log.warning("%s cannot be read (%s): %d points are lost", path, error.strerror, segment.points)
            self._remove(segment, "spool_damaged")
            return None
        chunk = Chunk(b"".join(parts), points, taken_ns)
        self._handed = segment, chunk, end
        self.oldest_ns = taken_ns
        return chunk

    @property
    def at_work(self) -> bool:
        """Something was handed out, and neither done nor back."""
        return self._handed is not None

    def _reader(self, segment: Segment) -> int:
        if self._reading and self._reading[0] is not segment:
            os.close(self._reading[1])
            self._reading = None
        if self._reading is None:
            self._reading = segment, self._open(os.path.basename(self._path(segment.number)), os.O_RDONLY)
        elif not os.fstat(self._reading[1]).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "it was removed")
        return self._reading[1]

    def done(self, rest: Sequence[Chunk]) -> None:
        """What was handed out is delivered, but for the rest, which is kept here.

        Errors: OSError, when the rest cannot be kept; then nothing is noted.
        """
        with self._mutex:
            if self._closed:
                return
            self._keep(rest)
            if not self._handed:
                return
            segment, chunk, end = self._handed
            self._handed = None
            if segment not in self._segments:  # given up meanwhile
                return
            self._take_off(segment, chunk.points)
            self._offset = end
            self._note(segment.number, end)
            if end >= segment.size and not (self._writing and self._writing[0] is segment):
                self._remove(segment, "spool_damaged")

    def back(self) -> None:
        """What was handed out is not delivered: it comes again, or is lost if it was given up meanwhile."""
        with self._mutex:
            if self._handed and self._handed[0] not in self._segments:
                self._lost(self._handed[1].points, "spool_full")
            self._handed = None

    def _keep(self, rest: Sequence[Chunk]) -> None:
        if not rest and not self.rest_points:
            return
        if not rest:
            self._unlink(os.path.join(self.folder, "rest"))
        else:
            file = self._open("rest.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                _write(file, (BEGIN, *(part for chunk in rest for part in (_head(chunk), chunk.data))), 0)
            finally:
                os.close(file)
            os.replace(os.path.join(self.folder, "rest.new"), os.path.join(self.folder, "rest"))
        self.rest_points = sum(chunk.points for chunk in rest)

    def _note(self, number: int, offset: int) -> None:
        body = POSITION.pack(b"position", number, offset)
        try:
            os.pwrite(self._position, body + CRC.pack(zlib.crc32(body)), 0)
        except OSError as error:
            self._complain("cannot note what is delivered", error)

    def _take_off(self, segment: Segment, points: int) -> None:
        segment.points -= points
        self.points -= points

    def _remove(self, segment: Segment, reason: str, at_work: int = 0) -> None:
        """The oldest file; its points are lost, but for those at work."""
        lost = segment.points - at_work
        self._take_off(segment, segment.points)
        self.bytes -= segment.size
        self._segments.remove(segment)
        self._offset = len(BEGIN)
        if self._reading and self._reading[0] is segment:
            os.close(self._reading[1])
            self._reading = None
        if self._writing and self._writing[0] is segment:
            os.close(self._writing[1])
            self._writing = None
        self._note(segment.number + 1, len(BEGIN))
        self._unlink(self._path(segment.number))
        if lost:
            self._lost(lost, reason)

    # --- at the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the folder back. Where nothing is left, no file of it is."""
        # A thread that the disk holds must not hold the collector's end.
        if not self._mutex.acquire(timeout=1):
            return
        try:
            if self._closed:
                return
            self._closed = True
            if self._writing:
                self._finish(*self._writing, sync=self.points > 0)
            if self._reading:
                os.close(self._reading[1])
            if not self.points and not self.rest_points:
                for segment in self._segments:
                    self._unlink(self._path(segment.number))
                self._unlink(os.path.join(self.folder, "position"))
            os.close(self._position)
            os.close(self._lock)
        finally:
            self._mutex.release()

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._complain("files cannot be removed", error)

    def _complain(self, what: str, error: OSError) -> None:
        """Once."""
        if what not in self._complaints:
            log.warning("%s: %s (%s)", self.folder, what, error.strerror)
        self._complaints.add(what)


def waiting(parent: str) -> Iterator[tuple[str, str]]:
    """(folder, target) of each spool in a folder that holds chunks and that no process uses."""
    try:
        folders = sorted(entry.path for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for folder in folders:
        try:
            if not any(name.endswith(".spool") or name == "rest" for name in os.listdir(folder)):
                continue
            with open(os.path.join(folder, "lock"), "rb") as lock:
                if not _taken(lock.fileno(), fcntl.LOCK_SH):
                    continue
            with open(os.path.join(folder, "target"), encoding="utf-8", errors="replace") as file:
                target = file.read(1000).strip()
        except OSError:  # not for us to read
            continue
        yield folder, target


# --- bytes ------------------------------------------------------------------------------------------------------------


def _taken(file: int, kind: int) -> bool:
    """Whether the lock, LOCK_EX or LOCK_SH, could be had. Closing the file gives it back."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(folder: str) -> None:
    """A folder, and those it is in, where they are missing; for the owner only."""
    parent = os.path.dirname(folder)
    if parent and not os.path.isdir(parent):
        _make(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def _head(chunk: Chunk) -> bytes:
    head = HEAD.pack(MARK, len(chunk.data), chunk.points, chunk.taken_ns, zlib.crc32(chunk.data))
    return head + CRC.pack(zlib.crc32(head))


def _fields(head: bytes) -> tuple[int, int, int, int] | None:
    """(bytes, points, taken_ns, CRC); None if it is no head."""
    if len(head) < HEAD_SIZE or CRC.unpack_from(head, HEAD.size)[0] != zlib.crc32(head[: HEAD.size]):
        return None
    mark, length, points, taken_ns, crc = HEAD.unpack_from(head)
    return (length, points, taken_ns, crc) if mark == MARK and length <= LARGEST else None


def _body(file: int, at: int, fields: tuple[int, int, int, int]) -> bytes | None:
    """The bytes behind a head; None if they are not what it says."""
    length, _, _, crc = fields
    data = os.pread(file, length, at + HEAD_SIZE)
    return data if len(data) == length and zlib.crc32(data) == crc else None


def _next_head(data: bytes | mmap.mmap, at: int) -> int:
    """Where the next head is, from there on; the data's end if there is none."""
    while (at := data.find(MARK, at)) >= 0:
        if _fields(data[at : at + HEAD_SIZE]):
            return at
        at += 1
    return len(data)


def _heads(data: bytes | mmap.mmap, at: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(where, bytes, points, taken_ns, CRC) of every chunk; what is none is stepped over."""
    while at < len(data):
        fields = _fields(data[at : at + HEAD_SIZE])
        if fields is None:
            at = _next_head(data, at + 1)
        else:
            yield at, *fields
            at += HEAD_SIZE + fields[0]


def _write(file: int, parts: Iterable[bytes], at: int) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            written = os.pwrite(file, view, at)
            at += written
            view = view[written:]
