"""The kernel program from user space: load, set, attach, drain, read maps, detach.

Events come up as cells of 64 bytes (bpf/report.h, struct report) through a ring buffer or perf buffers; both are read
here from mapped memory into numpy arrays, without a system call and without an object a report.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import errno
import logging
import mmap
import os
import platform
import re
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from . import kernel, wire
from .batch import (
    COUNTERS,
    DROP_KEY,
    FLOW,
    FLOW_KEY,
    POINT,
    PORT_STATISTICS,
    PROFILE,
    QUEUE_STATISTICS,
    RESUME,
    SETTINGS,
    SOURCE,
    SOURCE_PREFIX,
    Batch,
    State,
)
from .config import Config, Network
from .errors import LoadError
from .groups import parts
from .layout import ACCEPTED, CELL, HEAD, HEAD_CELLS, HOP, LAYOUT, OUTCOMES, ReportFlag, offset
from .loader import Program

log = logging.getLogger(__name__)

SOURCE_FILE, FUNCTION = "collector.c", "collector"
FIRST_HOP_CELL = HEAD_CELLS + 1
CELL_AT = offset(HOP, "cell")
"""Where every cell has its number."""
RING_HEADER, PERF_HEADER = 8, 12
PAGE = mmap.PAGESIZE
UNDECODED = OUTCOMES.index("undecoded")
MAX_FINISHED = 256
"""Packets that came up whole and are decoded in one drain: a tenth of a second's work."""
MAX_WAITING = 1024
"""... and packets that wait for it: some seconds' work. Those beyond it are given up, counted as undecoded."""
MAX_TEST_RUN = 3498
"""Bytes that BPF_PROG_TEST_RUN takes: what fits into a page beside XDP's own room."""
_libc = ctypes.CDLL(None, use_errno=True)


def kernel_version() -> tuple[int, int]:
    """The running kernel's (major, minor)."""
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def clock_offset_ns() -> int:
    """What to add to CLOCK_MONOTONIC to have ns since 1970, now."""
    before = time.monotonic_ns()
    wall = time.time_ns()
    return wall - (before + time.monotonic_ns()) // 2


def settings(config: Config, *, tell_all: bool = False) -> np.ndarray:
    """The config as the kernel program reads it, what is for all sources: struct settings, ()."""
    value = np.zeros((), SETTINGS)
    value["keepalive_ns"] = round(config.keepalive * 1e9)
    for name in ("hop_latency", "flow_latency", "queue_occupancy", "tx_utilization"):
        value[f"{name}_threshold"] = getattr(config, f"{name}_threshold")
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
    reports = np.empty(len(heads), HEAD)
    parts = reports.view(np.uint8).reshape(len(heads), FIRST_HOP_CELL, CELL)
    for part in range(FIRST_HOP_CELL):  # four times, whatever the number of reports
        parts[:, part] = cells[heads + part]
    at_hop = numbers >= FIRST_HOP_CELL
    hops = cells[at_hop].reshape(-1).view(HOP)
    owner = np.cumsum(numbers == 0) - 1
    return Batch(reports, hops, owner[at_hop], numbers[at_hop].astype(np.intp) - FIRST_HOP_CELL, clock_ns)


def _column(cells: np.ndarray, at: int, dtype: str) -> np.ndarray:
    """The number at a place in every cell: (n,)."""
    return cells[:, at : at + np.dtype(dtype).itemsize].copy().view(dtype)[:, 0]


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


class Transport(Protocol):
    """How events come up."""

    name: str

    def drain(self) -> np.ndarray:
        """All cells that are there, u8 (n, 64), copied; the kernel may reuse their room."""

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

    def drain(self) -> np.ndarray:
        start, end = int(self._consumer[0]), int(self._producer[0])
        if start == end:
            return np.empty((0, CELL), np.uint8)
        first = start % self._size // CELL
        cells = self._cells[first : first + (end - start) // CELL]
        words = _column(cells, 0, "<u4")
        copy = cells[
            : whole_events(cells, (words & ~np.uint32(self.STATE)) + RING_HEADER, words & self.STATE == 0)
        ].copy()
        self._consumer[0] = start + len(copy) * CELL
        return copy

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
        for cpu in cpus:
            file = self._open(cpu)
            self._files.append(file)
            self._maps.append(mmap.mmap(file, PAGE + size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
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

    def drain(self) -> np.ndarray:
        pieces = [cells for memory in self._maps for cells in self._drain(memory)]
        if not pieces:
            return np.empty((0, CELL), np.uint8)
        cells = np.concatenate(pieces)
        if len(self._maps) > 1:
            cells = _in_order(cells)
        return cells

    def _drain(self, memory: mmap.mmap) -> list[np.ndarray]:
        positions = np.frombuffer(memory, "<u8", PAGE // 8)
        start, end = int(positions[self.TAIL_AT]), int(positions[self.HEAD_AT])
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
        positions[self.TAIL_AT] = end
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
    """What it took to load: seconds to compile, seconds to verify, verifier's instructions, program's instructions."""

    compile_s: float
    load_s: float
    verified_instructions: int
    instructions: int


class Datapath:
    """The kernel program, loaded and set; attached to nothing yet.

    tell_all: every packet becomes an event, whatever its outcome (decode). Errors: LoadError.
    """

    def __init__(self, config: Config, *, tell_all: bool = False) -> None:
        self._tell_all = tell_all
        ring = config.event_transport == "ring" or (config.event_transport == "auto" and kernel_version() >= (5, 8))
        size = 1 << (config.ring_size * 1024 * 1024 - 1).bit_length()
        defines = [f"MAX_FLOWS={config.max_flows}"]
        defines += [f"RING_PAGES={size // 4096}"] if ring else ["PERF"]
        if kernel_version() < (5, 11):
            defines.append("NO_COARSE_CLOCK")
        begin = time.perf_counter()
        self._program = Program(SOURCE_FILE, defines)
        compiled = time.perf_counter()
        self.fd = self._program.load(FUNCTION)
        loaded = time.perf_counter()
        said = kernel.info(self.fd, 232)
        self.loaded = Loaded(
            compiled - begin,
            loaded - compiled,
            struct.unpack_from("=I", said, 216)[0],
            struct.unpack_from("=I", said, 20)[0] // 8,
        )
        self._cut = 0
        self._maps = {
            name: self._program.map_fd(name)
            for name in (
                "settings", "profiles", "source_profiles", "again", "counters", "flows", "new_flow", "ports",
                "port_statistics", "queues", "queue_statistics", "sources", "allocators", "drops", "events",
            )
        }  # fmt: skip
        self._cpus = _cpus("possible")
        fresh = np.zeros((), FLOW)
        fresh["told_latency"] = fresh["latency"] = 2**64 - 1
        for field in ("switch_id", "latency", "told_latency", "egress_port_id", "queue_id"):
            fresh["hops"][field] = np.iinfo(FLOW["hops"].base[field]).max
        kernel.map_update(self._maps["new_flow"], bytes(4), fresh.tobytes())
        kernel.map_update(self._maps["again"], bytes(4), struct.pack("=I", self.fd))
        self._profiles = Profiles(self._maps["profiles"], self._maps["source_profiles"])
        self._of_whole = np.zeros(len(OUTCOMES), np.uint64)
        self._can_resume = True
        self._left: collections.deque[Batch] = collections.deque()  # what the last drain did not get to
        self.apply(config)
        online = _cpus("online")
        self.transport: Transport = (
            Ring(self._maps["events"], size)
            if ring
            else PerfBuffer(self._maps["events"], max(_power_of_two(size // len(online)), PAGE), online)
        )

    def apply(self, config: Config) -> None:
        """Set the program, which may be running: the next packet is judged by it."""
        self._profiles.apply(config)
        self._config = config
        self._set()

    def _set(self) -> None:
        value = settings(self._config, tell_all=self._tell_all)
        value["cut"] = self._cut
        value["generation"] = self._profiles.generation
        value["by_source"] = len(self._config.sources) > 0
        kernel.map_update(self._maps["settings"], bytes(4), value.tobytes())

    def drain(self) -> Batch:
        """The events that came up since the last drain; all of them, unless has_more says that there are others.

        Each packet that came up whole is decoded here, and replaced by the events of its reports. It is taken apart
        into packets of one report each, and those go through the program, so that one piece of code keeps the state and
        decides what is news.
        """
        self._leave(to_batch(self.transport.drain(), clock_offset_ns()))
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
    def has_more(self) -> bool:
        """The last drain() left events for the next one."""
        return bool(self._left)

    def _finish(self, one: Batch) -> Batch:
        """A packet that came up whole: the events of its reports. Where every packet is told (decode): of one that is
        refused, or cannot be finished, one event without report. Events of other packets go behind what is left."""
        report = one.reports[0]
        cells = one.hops.view(np.uint8).reshape(-1, CELL)
        frame = np.concatenate((cells[:, :12], cells[:, 16:]), axis=1).tobytes()[: int(report["ingress_timestamp"])]
        outcome = OUTCOMES.index(wire.decode(frame, self._config)["outcome"])
        if outcome in ACCEPTED and not self._resume(frame, report["received_ns"]):
            outcome = UNDECODED
        self._of_whole[outcome] += 1
        if outcome in ACCEPTED:
            batch = to_batch(self.transport.drain(), one.clock_ns)
            own = batch.reports["resumed"] != 0
            self._leave(batch.only(~own))
            return batch.only(own)
        heads = one.reports[: int(self._tell_all)].copy()
        heads["outcome"], heads["flags"], heads["hop_count"] = outcome, 0, 0
        return Batch(heads, clock_ns=one.clock_ns)

    def _leave(self, batch: Batch) -> None:
        """Put events behind what is left; of packets that came up whole only so many, the others are given up."""
        whole = batch.reports["flags"] & ReportFlag.WHOLE != 0
        waiting = sum(np.count_nonzero(b.reports["flags"] & ReportFlag.WHOLE) for b in self._left)
        given_up = whole & (np.cumsum(whole) > MAX_WAITING - waiting)
        self._of_whole[UNDECODED] += np.count_nonzero(given_up)
        self._left.append(batch.only(~given_up))

    def _resume(self, frame: bytes, received_ns: int) -> bool:
        """Have the program remember and tell the reports of a packet; whether the kernel can do that (Linux 5.15)."""
        self._set_cut(0)
        resume = np.zeros((), RESUME)
        resume["received_ns"] = received_ns
        resume["magic"] = LAYOUT.defines["RESUME_MAGIC"]
        try:
            for part in parts(frame):
                kernel.test_run_behind(self.fd, resume.tobytes(), part)
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
        counters = self._sum("counters", COUNTERS, 2)
        counters = np.ascontiguousarray(counters.view("<u8").reshape(2, -1).sum(axis=0)).view(COUNTERS)[0]
        counters["outcomes"][: len(OUTCOMES)] += self._of_whole
        return counters

    def state(self) -> State:
        """All maps, one after the other; each as it was when it was read."""
        ports, queues, sources = self._allocated()
        flow_keys, flows = self._items("flows", FLOW_KEY, FLOW, self._config.max_flows)
        drop_keys, drops = self._items("drops", DROP_KEY, np.dtype("<u8"), 4096)
        queue_statistics = self._percpu("queue_statistics", QUEUE_STATISTICS, queues)
        maxima = np.zeros(queues, QUEUE_STATISTICS)
        maxima["occupancy_max"] = queue_statistics["occupancy_max"].max(axis=1, initial=0)
        return State(
            flow_keys=flow_keys,
            flows=flows,
            ports=self._array("ports", POINT, ports),
            port_statistics=self._sum("port_statistics", PORT_STATISTICS, ports),
            queues=self._array("queues", POINT, queues),
            queue_statistics=maxima,
            sources=self._array("sources", SOURCE, sources)[1:],
            drop_keys=drop_keys,
            drops=drops,
            counters=self.counters(),
            clock_ns=clock_offset_ns(),
        )

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
        self.transport.close()
        self._program.close()

    def _allocated(self) -> tuple[int, int, int]:
        """How much of ports, queues and sources is in use, index 0 included."""
        allocator = self._array("allocators", LAYOUT.dtypes["allocator"], 1)[0]
        return tuple(int(allocator[f"next_{name}"]) + 1 for name in ("port", "queue", "source"))  # type: ignore[return-value]

    def _items(self, name: str, key: np.dtype, value: np.dtype, entries: int) -> tuple[np.ndarray, np.ndarray]:
        return kernel.map_items(self._maps[name], key, value, entries)

    def _array(self, name: str, value: np.dtype, entries: int) -> np.ndarray:
        return kernel.map_items(self._maps[name], np.dtype("<u4"), value, entries, array=True)[1]

    def _percpu(self, name: str, value: np.dtype, entries: int) -> np.ndarray:
        """A per-CPU array: (entries, CPUs). The kernel pads each value to 8 bytes; all of ours are multiples of it."""
        return self._array(name, np.dtype((value, (len(self._cpus),))), entries)

    def _sum(self, name: str, value: np.dtype, entries: int) -> np.ndarray:
        """A per-CPU array of u64 counters, summed over the CPUs: (entries,)."""
        words = self._percpu(name, np.dtype(("<u8", (value.itemsize // 8,))), entries)
        return np.ascontiguousarray(words.sum(axis=1, dtype="<u8")).view(value)[:, 0]


def _power_of_two(size: int) -> int:
    """The largest that is not above size, which is 1 or more."""
    return 1 << (size.bit_length() - 1)


def _cpus(which: str) -> list[int]:
    """The CPUs that are online, or possible, which is what a per-CPU map has values for: `0-3,8` in /sys."""
    with open(f"/sys/devices/system/cpu/{which}") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return [cpu for r in ranges for cpu in range(int(r[0]), int(r[-1]) + 1)]
