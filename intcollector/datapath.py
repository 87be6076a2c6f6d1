"""The kernel program from user space: load, set, attach, drain, read maps, detach.

Events come up as cells of 64 bytes (bpf/report.h, struct report) through a ring buffer or perf buffers; both are read
here from mapped memory into numpy arrays, without a system call and without an object a report.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import errno
import logging
import mmap
import os
import platform
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from . import kernel
from .batch import (
    COUNTERS,
    DROP_KEY,
    FLOW,
    POINT,
    POINTS,
    PORT_STATISTICS,
    PROFILE,
    QUEUE_STATISTICS,
    REFUSAL,
    REFUSAL_KEY,
    REFUSAL_VALUE,
    RESUME,
    SETTINGS,
    SOURCE,
    SOURCE_PREFIX,
    STATISTICS,
    Batch,
    State,
    flow_seen_ns,
)
from .config import Config, Network
from .errors import LoadError
from .layout import ACCEPTED, CELL, HEAD, HEAD_CELLS, HOP, LAYOUT, OUTCOMES, ReportFlag, offset
from .program import FUNCTION, FUNCTIONS, LONG_WAY, MISSING, REFUSED, Loading, Wanted, cpu_numbers, kernel_version

log = logging.getLogger(__name__)

FIRST_HOP_CELL = HEAD_CELLS + 1
CELL_AT = offset(HOP, "cell")
"""Where every cell has its number."""
RING_HEADER, PERF_HEADER = 8, 12
PAGE = mmap.PAGESIZE
UNDECODED = OUTCOMES.index("undecoded")
MAX_REFUSALS, SPECIMEN = LAYOUT.defines["MAX_REFUSALS"], LAYOUT.defines["SPECIMEN"]
MAX_FINISHED = 256
"""Packets that came up whole and are decoded in one drain: a tenth of a second's work."""
MAX_WAITING = 1024
"""... and packets that wait for it: some seconds' work. Those beyond it are given up, counted as undecoded."""
PROG_ARRAY, ATTACH_CPUMAP = 3, 35
MASK_20, MASK_32 = np.uint64((1 << 22) - 1), np.uint64((1 << 32) - 1)
"""Sequence numbers of Telemetry Report 2.0, and of others."""
SPREAD_QUEUE = 4096
"""Reports that wait for another CPU, at most: what it does in about a millisecond."""
MAX_TEST_RUN = 3498
"""Bytes that BPF_PROG_TEST_RUN takes: what fits into a page beside XDP's own room."""
_libc = ctypes.CDLL(None, use_errno=True)


def clock_offset_ns() -> int:
    """What to add to CLOCK_MONOTONIC to have ns since 1970, now."""
    before = time.monotonic_ns()
    wall = time.time_ns()
    return wall - (before + time.monotonic_ns()) // 2


HASH = np.frombuffer(os.urandom(64), "<u8") | np.uint64(1)
"""Odd numbers by which flows are hashed: whoever does not know them cannot make flows of one hash."""


def settings(config: Config, *, tell_all: bool = False) -> np.ndarray:
    """The config as the kernel program reads it, what is for all sources: struct settings, ()."""
    value = np.zeros((), SETTINGS)
    value["keepalive_ns"] = round(config.keepalive * 1e9)
    for name in ("hop_latency", "flow_latency", "queue_occupancy", "tx_utilization"):
        value[f"{name}_threshold"] = threshold = getattr(config, f"{name}_threshold")
        if name != "flow_latency":
            value[f"{name}_span"] = 2 * threshold
            value[f"{name}_width"] = max(1, threshold)
    value["postcard_window_ns"] = round(config.postcard_window * 1e9)
    value["postcard_timeout"] = max(1, round(config.postcard_timeout * 1e9) >> 20)
    ports = list(dict.fromkeys(config.port))
    value["ports"] = [socket.htons(p) for p in ports + ports[:1] * (len(value["ports"]) - len(ports))]
    for at, (domain, words) in enumerate(config.source_only_words):
        value["domains"][at], value["domain_words"][at] = domain, words
    value["int_udp_port"] = config.int_udp_port
    value["int_gre_protocol"] = config.int_gre_protocol
    value["event_mode"] = config.event_mode == "interval"
    value["tell_all"] = tell_all
    verdicts = {"drop": kernel.XDP_DROP, "pass": kernel.XDP_PASS}
    value["verdict_ok"] = verdicts[config.accepted_verdict]
    value["verdict_malformed"] = verdicts[config.malformed_verdict]
    # the short way knows thresholds only, of less than half the range
    near = max(value[f"{name}_threshold"] for name in ("hop_latency", "queue_occupancy", "tx_utilization")) < 2**31
    value["steady"] = config.event_mode == "threshold" and near and not tell_all
    value["hash"] = HASH
    value["bits"] = [number.bit_length() for number in range(256)]
    return value


TIME_UNITS = {"ns": (0, 1, 0), "us": (1, 1000, 0), "ms": (2, 1_000_000, 0), "2^-32s": (3, 1_000_000_000, 32)}
"""By Config.latency_unit: enum time_unit, and (multiplier, shift) that make ns of it."""


def profile(config: Config) -> np.ndarray:
    """... and what each source has its own of: struct profile, ()."""
    wide = {"spec": 0x0200, "onos": 0x0200, "geant": 0x0C00}  # instruction bits of 8 bytes: 6; 4 and 5
    positions = {"auto": 0, "before-options": 1, "after-options": 2}
    value = np.zeros((), PROFILE)
    value["time_unit"], value["time_multiplier"], value["time_shift"] = TIME_UNITS[config.latency_unit]
    value["occupancy_unit"] = config.queue_occupancy_bytes
    value["utilization_unit"] = config.tx_utilization_full
    value["wide_v1"] = wide.get(config.profile, 0)
    if config.int_dscp is not None:
        value["int_dscp_marked"] = 1
        value["int_dscp_value"], value["int_dscp_mask"] = config.int_dscp
    value["tcp_int_position"] = positions[config.tcp_int_position]
    value["accept_report_length_1"] = config.accepts_report_length_1
    value["accept_int_version_0"] = not config.reject_int_version_0
    value["hop_ml_is_bit_count"] = config.profile == "onos"
    value["queue_word_16_16"] = config.profile == "intcollector"
    return value


class Profiles:
    """Which source writes how: the maps profiles and source_profiles, kept as a Config says while the program runs."""

    HALF = (LAYOUT.defines["MAX_PROFILES"] - 1) // 2

    def __init__(self, profiles: int, source_profiles: int) -> None:
        """Descriptors of the maps."""
        self._profiles, self._prefixes = profiles, source_profiles
        self._there: set[Network] = set()
        self._first = 1
        self.generation = 0

    def apply(self, config: Config) -> None:
        """At any moment a report is judged by the old profile of its source or by the new one, and by nothing else.

        So the new ones are written beside the old, then the prefixes are added or turned over to them one by one, long
        before short, and at last those that are gone are removed, short before long.
        """
        (_, of_others), *of_sources = config.profiles()
        kernel.map_update(self._profiles, bytes(4), profile(of_others).tobytes())
        wanted = {network: own for network, own in of_sources if network}
        long_first = sorted(wanted, key=lambda network: -network.prefixlen)
        for at, network in enumerate(long_first, self._first):
            kernel.map_update(self._profiles, struct.pack("=I", at), profile(wanted[network]).tobytes())
        for at, network in enumerate(long_first, self._first):
            kernel.map_update(self._prefixes, _prefix(network), struct.pack("=I", at))
        for network in sorted(self._there - wanted.keys(), key=lambda network: network.prefixlen):
            kernel.map_delete(self._prefixes, _prefix(network))
        self._there = set(wanted)
        self._first = 1 + self.HALF if self._first == 1 else 1
        self.generation += 1


def _prefix(network: Network) -> bytes:
    """struct source_prefix."""
    key = np.zeros((), SOURCE_PREFIX)
    key["length"] = 8 + network.prefixlen
    key["ip_version"] = network.version
    packed = network.network_address.packed
    key["address"][: len(packed)] = np.frombuffer(packed, np.uint8)
    return key.tobytes()


def to_batch(cells: np.ndarray, clock_ns: int) -> Batch:
    """Cells (u8, (n, 64), each event's behind one another) -> Batch. Copies; the transport's memory is free after
    it."""
    if not len(cells):
        return Batch(clock_ns=clock_ns)
    numbers = _column(cells, CELL_AT, "<u4")
    heads = np.flatnonzero(numbers == 0)
    at_hop = np.flatnonzero(numbers >= FIRST_HOP_CELL)
    whole_cells = cells.view(f"V{CELL}")[:, 0]  # take() moves these at once, and rows of bytes one by one
    reports = whole_cells.take(heads[:, None] + np.arange(FIRST_HOP_CELL)).reshape(-1).view(HEAD)
    hops = whole_cells.take(at_hop).view(HOP)
    owner = np.repeat(np.arange(len(heads)), np.diff(heads, append=len(cells)) - FIRST_HOP_CELL)
    return Batch(reports, hops, owner, numbers[at_hop].astype(np.intp) - FIRST_HOP_CELL, clock_ns)


def _column(cells: np.ndarray, at: int, dtype: str) -> np.ndarray:
    """The number at a place in every cell: (n,). The place is a multiple of its size."""
    return cells.view(dtype)[:, at // np.dtype(dtype).itemsize].copy()


def whole_events(cells: np.ndarray, sizes: np.ndarray, finished: np.ndarray) -> int:
    """How many cells from the first on are finished events behind one another.

    sizes (n,), bytes, and finished (n,), bool: what each cell says if it is an event's first. Behind the first event
    that is still being written anything may stand, also what looks like events; but it does not join on to what is
    before it.
    """
    heads = np.flatnonzero(_column(cells, CELL_AT, "<u4") == 0)
    if not len(heads) or heads[0]:
        return 0
    ends = heads + sizes[heads].astype(np.intp) // CELL
    joined = np.append(ends[:-1] == heads[1:], False)
    stop = int(np.argmax(~joined | ~finished[heads]))
    return int(ends[stop] if finished[heads[stop]] else heads[stop])


NOTHING = Batch()


class Transport(Protocol):
    """How events come up."""

    name: str

    @property
    def waiting(self) -> int:
        """Bytes that came up and were not drained; what is still being written included."""

    def drain(self) -> Batch:
        """All events that are there, copied; the kernel may reuse their room."""

    def close(self) -> None: ...


class Ring:
    """A BPF ring buffer (Linux 5.8), mapped.

    Memory: a page with the consumer's position, which is ours; one with the producer's; then the data, mapped twice in
    a row so that no event is ever cut. An event's first 8 bytes are its length and state: BUSY while the kernel writes.
    """

    name = "ring"
    STATE = 3 << 30
    """Bits of the length: being written, and discarded (which the program never does)."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._size = size
        self._ours = mmap.mmap(descriptor, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._theirs = mmap.mmap(descriptor, PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)
        self._consumer = np.frombuffer(self._ours, "<u8", 1)
        self._producer = np.frombuffer(self._theirs, "<u8", 1)
        self._cells = np.frombuffer(self._theirs, np.uint8, 2 * size, offset=PAGE).reshape(-1, CELL)

    @property
    def waiting(self) -> int:
        return int(self._producer[0]) - int(self._consumer[0])

    def drain(self) -> Batch:
        start, end = int(self._consumer[0]), int(self._producer[0])
        if start == end:
            return NOTHING
        first = start % self._size // CELL
        cells = self._cells[first : first + (end - start) // CELL]
        words = _column(cells, 0, "<u4")
        whole = whole_events(cells, (words & ~np.uint32(self.STATE)) + RING_HEADER, words & self.STATE == 0)
        batch = to_batch(cells[:whole], clock_offset_ns())
        self._consumer[0] = start + whole * CELL
        return batch

    def close(self) -> None:
        del self._consumer, self._producer, self._cells
        self._ours.close()
        self._theirs.close()


class PerfBuffer:
    """One perf buffer a CPU (Linux before 5.8), mapped.

    Memory: a page with both positions, then the data. A record is cut at the end of the data, so it is copied out in
    two pieces first. The kernel puts a LOST record of 24 bytes in between after a loss; the program itself has counted
    those.
    """

    name = "perf"
    SAMPLE, LOST = 9, 2
    HEAD_AT, TAIL_AT = 1024 // 8, 1032 // 8

    def __init__(self, descriptor: int, size: int, cpus: Sequence[int]) -> None:
        self._size = size
        self._files: list[int] = []
        self._maps: list[mmap.mmap] = []
        try:
            for cpu in cpus:
                self._open_on(cpu, descriptor)
        except BaseException:
            self.close()
            raise

    def _open_on(self, cpu: int, descriptor: int) -> None:
        file = self._open(cpu)
        self._files.append(file)
        self._maps.append(mmap.mmap(file, PAGE + self._size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
        kernel.map_update(descriptor, struct.pack("=I", cpu), struct.pack("=I", file))
        _ioctl(file, 0x2400)  # PERF_EVENT_IOC_ENABLE

    @staticmethod
    def _open(cpu: int) -> int:
        """perf_event_open(2): what a BPF program puts out on a CPU; nobody is woken up."""
        attributes = bytearray(112)
        # type SOFTWARE, size, config BPF_OUTPUT, sample_period, sample_type RAW, read_format, flags: watermark
        struct.pack_into("=IIQQQQQI", attributes, 0, 1, 112, 10, 1, 1 << 10, 0, 1 << 14, 1 << 30)
        buffer = (ctypes.c_char * 112).from_buffer(attributes)
        number = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}[platform.machine()]
        descriptor = _libc.syscall(number, buffer, -1, cpu, -1, 8)  # 8: close on exec
        if descriptor < 0:
            error = ctypes.get_errno()
            raise LoadError(f"cannot open a perf buffer on CPU {cpu} ({os.strerror(error)})")
        return int(descriptor)

    @property
    def waiting(self) -> int:
        return sum(end - start for start, end in map(self._positions, self._maps))

    def _positions(self, memory: mmap.mmap) -> tuple[int, int]:
        """Where what waits begins and ends, bytes since the start."""
        positions = np.frombuffer(memory, "<u8", PAGE // 8)
        return int(positions[self.TAIL_AT]), int(positions[self.HEAD_AT])

    def drain(self) -> Batch:
        pieces = [cells for memory in self._maps for cells in self._drain(memory)]
        if not pieces:
            return NOTHING
        cells = np.concatenate(pieces)
        if len(self._maps) > 1:
            cells = _in_order(cells)
        return to_batch(cells, clock_offset_ns())

    def _drain(self, memory: mmap.mmap) -> list[np.ndarray]:
        start, end = self._positions(memory)
        if start == end:
            return []
        data = np.frombuffer(memory, np.uint8, self._size, offset=PAGE)
        low, high = start % self._size, end % self._size
        linear = data[low:high].copy() if low < high else np.concatenate((data[low:], data[:high]))
        pieces, at = [], 0
        while at < len(linear):  # once, and once more a LOST record
            cells = linear[at : at + (len(linear) - at) // CELL * CELL].reshape(-1, CELL)
            kinds, sizes = _column(cells, 0, "<u4"), _column(cells, 6, "<u2")
            whole = whole_events(cells, sizes, kinds == self.SAMPLE)
            if whole:
                pieces.append(cells[:whole])
                at += whole * CELL
            else:
                at += int(linear[at + 6 : at + 8].view("<u2")[0])
        np.frombuffer(memory, "<u8", PAGE // 8)[self.TAIL_AT] = end
        return pieces

    def close(self) -> None:
        for memory in self._maps:
            memory.close()
        for file in self._files:
            os.close(file)


def _ioctl(descriptor: int, request: int) -> None:
    import fcntl

    fcntl.ioctl(descriptor, request, 0)


def _in_order(cells: np.ndarray) -> np.ndarray:
    """Events of several CPUs by their time."""
    numbers = _column(cells, CELL_AT, "<u4")
    owner = np.cumsum(numbers == 0) - 1
    at = offset(HEAD, "received_ns")
    times = _column(cells[numbers == 0], at, "<u8")
    rank = np.empty(len(times), np.intp)
    rank[np.argsort(times, kind="stable")] = np.arange(len(times))
    return cells[np.argsort(rank[owner], kind="stable")]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What it took to load: whether it was kept; seconds to compile, or to read what was kept; seconds to verify;
    verifier's instructions, program's instructions."""

    kept: bool
    compile_s: float
    load_s: float
    verified_instructions: int
    instructions: int


class Datapath:
    """The kernel program, loaded and set; attached to nothing yet.

    tell_all: every packet becomes an event, whatever its outcome (decode). keep: the compiled program is kept for next
    time, or taken from there. Errors: LoadError; nothing is left behind then.
    """

    def __init__(
        self, config: Config, *, tell_all: bool = False, keep: bool = True, loading: Loading | None = None
    ) -> None:
        """keep: the program, for the next one. loading: where it comes from, if that was begun before."""
        self._tell_all = tell_all
        wanted = Wanted.by(config)
        self._flow_entries = wanted.flows
        self._cpus = cpu_numbers("possible")
        self._program = loading.program() if loading else wanted.program(keep=keep)
        self._copies: list[int] = []
        self._views: dict[str, np.ndarray] = {}
        self._to_close = contextlib.ExitStack()
        self._to_close.callback(self._program.close)
        try:
            self._set_up(config, wanted.ring, wanted.size)
        except BaseException:
            self.close()
            raise

    def _set_up(self, config: Config, ring: bool, size: int) -> None:
        """What comes after the program was loaded. size: of the buffer for events, bytes."""
        functions = FUNCTIONS if config.cpus else FUNCTIONS[:-1]
        self.fd, self._long_way, refused, *more = self._program.load_all(functions)
        self.entry = more[0] if more else self.fd
        """The program that is for an interface."""
        said = kernel.info(self.fd, 232)
        self.loaded = Loaded(
            self._program.kept,
            self._program.compile_s,
            self._program.load_s,
            struct.unpack_from("=I", said, 216)[0],
            struct.unpack_from("=I", said, 20)[0] // 8,
        )
        self._cut = 0
        self._maps = {
            name: self._program.map_fd(name)
            for name in (
                "settings", "profiles", "source_profiles", "again", "counters", "flows", "new_flow", "points",
                "statistics", "sources", "allocators", "drops", "refusals", "events",
            )
        }  # fmt: skip
        self._points = self._mapped("points", POINTS, 1)
        self._statistics = self._mapped("statistics", STATISTICS, self._cpus[-1] + 1)
        fresh = np.zeros((), FLOW)
        fresh["told_latency"] = fresh["latency"] = 2**64 - 1
        for field in ("switch_id", "latency", "told_latency", "egress_port_id", "queue_id"):
            fresh["hops"][field] = np.iinfo(FLOW["hops"].base[field]).max
        for which in range(2):
            kernel.map_update(self._maps["new_flow"], struct.pack("=I", which), fresh.tobytes() * len(self._cpus))
        self._lead_to(self._maps["again"], self._long_way, refused)
        self._spread_over: list[int] = []
        self._spread_before, self._lost_between = 0, 0
        if config.cpus:
            self._spread(config.cpus)
        self._profiles = Profiles(self._maps["profiles"], self._maps["source_profiles"])
        self._of_whole = np.zeros(len(OUTCOMES), np.uint64)
        self._refused_whole = np.empty(0, REFUSAL)
        self._can_resume = True
        self._left: collections.deque[Batch] = collections.deque()  # what the last drain did not get to
        self.apply(config)
        online = cpu_numbers("online")
        self.transport: Transport = (
            Ring(self._maps["events"], size)
            if ring
            else PerfBuffer(self._maps["events"], max(_power_of_two(size // len(online)), PAGE), online)
        )
        self._to_close.callback(self.transport.close)

    @staticmethod
    def _lead_to(again: int, long_way: int, refused: int) -> None:
        """Where the program's tail calls go."""
        kernel.map_update(again, struct.pack("=I", 0), struct.pack("=I", long_way))
        kernel.map_update(again, struct.pack("=I", 2), struct.pack("=I", refused))

    def apply(self, config: Config) -> None:
        """Set the program, which may be running: the next packet is judged by it."""
        self._profiles.apply(config)
        self._config = config
        self._set()

    def _set(self) -> None:
        value = settings(self._config, tell_all=self._tell_all)
        value["cut"] = self._cut
        value["generation"] = self._profiles.generation
        value["steady"] &= not self._cut
        value["cpu_count"] = len(self._spread_over)
        value["cpus"][: len(self._spread_over)] = self._spread_over
        value["by_source"] = len(self._config.sources) > 0
        kernel.map_update(self._maps["settings"], bytes(4), value.tobytes())

    def _spread(self, count: int) -> None:
        """Have reports sent to so many CPUs: each has a queue, and a thread of the kernel that runs a copy of the
        program on what is in it. Errors: LoadError, before Linux 5.9 or if there are not so many CPUs."""
        online = cpu_numbers("online")
        if count > len(online):
            raise LoadError(
                f"cannot spread over {count} CPUs: {len(online)} are online; give --cpus {len(online)} or less"
            )
        self._spread_over = online[-count:]  # a network card prefers the first ones
        again = kernel.bpf(kernel.MAP_CREATE, struct.pack("=IIIII", PROG_ARRAY, 4, 4, 3, 0) + bytes(52))
        self._copies.append(again)
        copies = []
        for function in (LONG_WAY, REFUSED, FUNCTION):
            copies.append(self._program.copy(function, ATTACH_CPUMAP, {self._maps["again"]: again}))
            self._copies.append(copies[-1])
        self._lead_to(again, *copies[:2])
        kernel.map_update(self._maps["again"], struct.pack("=I", 1), struct.pack("=I", self.fd))
        cpus = self._program.map_fd("cpus")
        for cpu in self._spread_over:
            queue = struct.pack("=II", SPREAD_QUEUE, copies[-1])
            kernel.map_update(cpus, struct.pack("=I", cpu), queue)

    def _lost_between_cpus(self) -> int:
        """Reports for which another CPU's queue had no room: sent when this was last asked, and not there now."""
        statistics = self._statistics()
        arrived = int(statistics["arrived"].sum())
        self._lost_between = max(self._lost_between, self._spread_before - arrived)
        self._spread_before = int(statistics["spread"].sum())
        return self._lost_between

    def drain(self) -> Batch:
        """The events that came up since the last drain; all of them, unless has_more says that there are others.

        Each packet that came up whole is decoded here, and replaced by the events of its reports. It is taken apart
        into packets of one report each, and those go through the program, so that one piece of code keeps the state and
        decides what is news.
        """
        fresh = self.transport.drain()
        if not self._left and not (len(fresh) and (fresh.reports["flags"] & ReportFlag.WHOLE).any()):  # nearly always
            return fresh
        self._leave(fresh)
        done: list[Batch] = []
        finished = 0
        while self._left and finished < MAX_FINISHED:
            batch = self._left.popleft()
            whole = np.flatnonzero(batch.reports["flags"] & ReportFlag.WHOLE)
            row = int(whole[0]) if len(whole) else len(batch)
            done.append(batch[:row])
            if len(whole):
                done.append(self._finish(batch[row : row + 1]))
                self._left.appendleft(batch[row + 1 :])
                finished += 1
        return Batch.together(done)

    @property
    def waiting(self) -> int:
        """Bytes of events that came up and were not drained: to be asked often, where drain() is not."""
        return self.transport.waiting

    @property
    def has_more(self) -> bool:
        """The last drain() left events for the next one."""
        return bool(self._left)

    def _finish(self, one: Batch) -> Batch:
        """A packet that came up whole: the events of its reports. Where every packet is told (decode): of one that is
        refused, or cannot be finished, one event without report. Events of other packets go behind what is left."""
        from . import wire  # rarely needed, and not while a collector starts

        report = one.reports[0]
        cells = one.hops.view(np.uint8).reshape(-1, CELL)
        frame = np.concatenate((cells[:, :12], cells[:, 16:]), axis=1).tobytes()[: int(report["ingress_timestamp"])]
        outcome = OUTCOMES.index(wire.decode(frame, self._config)["outcome"])
        if outcome in ACCEPTED and not self._resume(frame, report["received_ns"]):
            outcome = UNDECODED
        self._of_whole[outcome] += 1
        if outcome not in ACCEPTED and outcome != UNDECODED:
            self._refuse(report, outcome, frame)
        if outcome in ACCEPTED:
            batch = dataclasses.replace(self.transport.drain(), clock_ns=one.clock_ns)
            own = batch.reports["resumed"] != 0
            self._leave(batch.only(~own))
            return batch.only(own)
        heads = one.reports[: int(self._tell_all)].copy()
        heads["outcome"], heads["flags"], heads["hop_count"] = outcome, 0, 0
        return Batch(heads, clock_ns=one.clock_ns)

    def _refuse(self, report: np.void, outcome: int, frame: bytes) -> None:
        """A malformed packet that came up whole, kept as the program keeps others: bpf/collector.c, refused()."""
        row = np.zeros(1, REFUSAL)
        row["address"], row["outcome"], row["packets"] = report["source"], outcome, 1
        row["ip_version"] = 6 if report["flags"] & ReportFlag.SOURCE_IPV6 else 4
        row["seen_ns"], row["length"], row["kept"] = report["received_ns"], len(frame), min(len(frame), SPECIMEN)
        row["bytes"][0, : min(len(frame), SPECIMEN)] = np.frombuffer(frame, np.uint8)[:SPECIMEN]
        self._refused_whole = _refused_by_source(np.concatenate((self._refused_whole, row)))[:MAX_REFUSALS]

    def _leave(self, batch: Batch) -> None:
        """Put events behind what is left; of packets that came up whole only so many, the others are given up."""
        whole = batch.reports["flags"] & ReportFlag.WHOLE != 0
        waiting = sum(np.count_nonzero(b.reports["flags"] & ReportFlag.WHOLE) for b in self._left)
        given_up = whole & (np.cumsum(whole) > MAX_WAITING - waiting)
        self._of_whole[UNDECODED] += np.count_nonzero(given_up)
        self._left.append(batch.only(~given_up))

    def _resume(self, frame: bytes, received_ns: int) -> bool:
        """Have the program remember and tell the reports of a packet; whether the kernel can do that (Linux 5.15)."""
        from .groups import parts

        self._set_cut(0)
        resume = np.zeros((), RESUME)
        resume["received_ns"] = received_ns
        resume["magic"] = LAYOUT.defines["RESUME_MAGIC"]
        try:
            for part in parts(frame):
                kernel.test_run_behind(self._long_way, resume.tobytes(), part)
                resume["flags"] = ReportFlag.CONTINUED
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if self._can_resume:
                log.warning("this kernel cannot take packets back (Linux 5.15 can): large groups stay undecoded")
            self._can_resume = False
            return False
        return True

    def counters(self) -> np.ndarray:
        """What the program did: COUNTERS (), summed over the CPUs; packets that went up whole under what they were."""
        each = self._array("counters", np.dtype((COUNTERS, (len(self._cpus),))), 2)  # of a per-CPU map
        counters = _sum(each.reshape(-1, 1))[0]
        counters["outcomes"][: len(OUTCOMES)] += self._of_whole
        counters["outcomes"][OUTCOMES.index("ok")] += self._statistics()["steady_reports"].sum()
        return counters

    def state(self) -> State:
        """All maps, one after the other; each as it was when it was read."""
        ports, queues, sources = self._allocated()
        flows = self._flows()
        drop_keys, drops = self._items("drops", DROP_KEY, np.dtype("<u8"), 4096)
        points, statistics = self._points()[0], self._statistics()
        port_statistics = np.zeros(ports, PORT_STATISTICS)
        port_statistics["latency_sum"] = statistics["latency_sums"][:, :ports].sum(axis=0)
        port_statistics["buckets"] = statistics["buckets"]["hops"][:, :, :ports].sum(axis=0).T
        queue_statistics = np.zeros(queues, QUEUE_STATISTICS)
        queue_statistics["occupancy_max"] = statistics["occupancy_max"][:, :queues].max(axis=0, initial=0)
        return State(
            flow_keys=np.ascontiguousarray(flows["key"]),
            flows=flows,
            ports=_points(points["ports"][:ports], points["port_levels"][:ports]),
            port_statistics=port_statistics,
            queues=_points(points["queues"][:queues], points["queue_levels"][:queues]),
            queue_statistics=queue_statistics,
            sources=self._sources(sources),
            drop_keys=drop_keys,
            drops=drops,
            udp_ports=statistics["udp_ports"].sum(axis=0),
            refusals=self._refusals(),
            counters=self.counters(),
            lost_between_cpus=self._lost_between_cpus(),
            clock_ns=clock_offset_ns(),
        )

    def _flows(self) -> np.ndarray:
        """FLOW (n,), n at most --max-flows: what the map remembers beyond that was not used for longest."""
        _, flows = self._items("flows", np.dtype("<u8"), FLOW, self._flow_entries)
        most = self._config.max_flows
        if len(flows) <= most:
            return flows
        used = np.lexsort((flows["reports"], flow_seen_ns(flows)))[::-1]
        kept, gone = used[:most], used[most:]
        flows[gone[gone < most]] = flows[kept[kept >= most]]  # in place: a copy of all takes longer than to read them
        return flows[:most]

    def _sources(self, count: int) -> np.ndarray:
        """Each as it was at one moment, and as if no report had gone without the lock: bpf/detect.h, continue_run()."""
        sources = self._array("sources", SOURCE, count, locked=True)[1:]
        run = sources["run"] >> np.uint64(32) & np.uint64(0x7FFFFFFF)
        in_run = np.where(run > 0, run - np.uint64(1), np.uint64(0))
        last = sources["run"] - np.uint64(1) & np.where(sources["report_version"] == 20, MASK_20, MASK_32)
        sources["highest"] = np.where(run > 0, last, sources["highest"])
        sources["received"] += in_run + sources["repeated"] + sources["silent"]
        sources["duplicated"] += sources["repeated"]
        return sources

    def _refusals(self) -> np.ndarray:
        """REFUSAL (n,), those of packets that came up whole among them."""
        keys, values = self._items("refusals", REFUSAL_KEY, REFUSAL_VALUE, MAX_REFUSALS)
        out = np.empty(len(keys), REFUSAL)
        for name in REFUSAL.names or ():
            out[name] = keys[name] if name in (REFUSAL_KEY.names or ()) else values[name]
        return _refused_by_source(np.concatenate((out, self._refused_whole)))

    def _mapped(self, name: str, value: np.dtype, entries: int) -> Callable[[], np.ndarray]:
        """What reads an array map whose values are large: value (entries,), the kernel's own memory, or a copy where
        that cannot be mapped (before Linux 5.5)."""
        if kernel_version() < MISSING["NO_MAPPED_ARRAYS"]:
            return lambda: self._array(name, value, entries)
        memory = mmap.mmap(self._maps[name], entries * value.itemsize, mmap.MAP_SHARED, mmap.PROT_READ)
        self._views[name] = np.frombuffer(memory, value)  # the memory goes with it, and its own descriptor of the map
        return lambda: self._views[name]

    def run(self, packet: bytes, *, repeat: int = 1) -> tuple[int, int]:
        """Run the program on a packet without an interface: (verdict, ns a run).

        A packet longer than the kernel takes for it is cut, and the program told so: all it reads is in front.
        """
        self._set_cut(max(0, len(packet) - MAX_TEST_RUN))
        return kernel.test_run(self.fd, packet[:MAX_TEST_RUN], repeat=repeat)

    def _set_cut(self, cut: int) -> None:
        if cut != self._cut:
            self._cut = cut
            self._set()

    def close(self) -> None:
        """Give everything back to the kernel."""
        self._views.clear()
        while self._copies:
            os.close(self._copies.pop())
        self._to_close.close()

    def _allocated(self) -> tuple[int, int, int]:
        """How much of ports, queues and sources is in use, index 0 included."""
        allocator = self._array("allocators", LAYOUT.dtypes["allocator"], 1)[0]
        return tuple(int(allocator[f"next_{name}"]) + 1 for name in ("port", "queue", "source"))  # type: ignore[return-value]

    def _items(self, name: str, key: np.dtype, value: np.dtype, entries: int) -> tuple[np.ndarray, np.ndarray]:
        return kernel.map_items(self._maps[name], key, value, entries)

    def _array(self, name: str, value: np.dtype, entries: int, *, locked: bool = False) -> np.ndarray:
        return kernel.map_items(self._maps[name], np.dtype("<u4"), value, entries, array=True, locked=locked)[1]


def _sum(values: np.ndarray) -> np.ndarray:
    """Structs of u64 counters, (cpus, n): summed over the CPUs, (n,)."""
    words = np.ascontiguousarray(values).view("<u8").reshape(*values.shape, -1)
    return words.sum(axis=0, dtype="<u8").view(values.dtype)[:, 0]


def _refused_by_source(refusals: np.ndarray) -> np.ndarray:
    """Rows of one exporter and outcome as one, with the specimen of the first: REFUSAL (n,), in the order they came."""
    keys = np.stack([refusals["outcome"], refusals["ip_version"], *refusals["address"].T], axis=1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    out = refusals[first]
    out["packets"] = 0
    np.add.at(out["packets"], group.reshape(-1), refusals["packets"])
    np.maximum.at(out["seen_ns"], group.reshape(-1), refusals["seen_ns"])
    return out[np.argsort(first, kind="stable")]


def _points(whose: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The program's point and level, (n,) each, as POINT (n,)."""
    out = np.empty(len(whose), POINT)
    for name in POINT.names or ():
        out[name] = whose[name] if name in (whose.dtype.names or ()) else levels[name]
    return out


def _power_of_two(size: int) -> int:
    """The largest that is not above size, which is 1 or more."""
    return 1 << (size.bit_length() - 1)
