"""Which program a config needs; and loading it while everything else is still being imported.

To verify the program is most of what a start takes, and Python takes no part in it. So nothing here needs numpy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import re
import threading

from .config import Config
from .errors import IntCollectorError, LoadError
from .loader import Program

SOURCE_FILE, FUNCTION, LONG_WAY, REFUSED, SPREAD = "collector.c", "collector", "any_packet", "refused", "spread"
FUNCTIONS = (FUNCTION, LONG_WAY, REFUSED, SPREAD)
MISSING = {
    "NO_COARSE_CLOCK": (5, 11), "NO_CMPXCHG": (5, 12), "NO_MAPPED_ARRAYS": (5, 5), "NO_CPUMAP_PROGRAMS": (5, 9),
}  # fmt: skip
"""What the program is told to do without, and since when Linux has it."""


def kernel_version() -> tuple[int, int]:
    """The running kernel's (major, minor)."""
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def cpu_numbers(which: str) -> list[int]:
    """The CPUs that are online, or possible, which is what a per-CPU map has values for: `0-3,8` in /sys."""
    with open(f"/sys/devices/system/cpu/{which}") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return [cpu for r in ranges for cpu in range(int(r[0]), int(r[-1]) + 1)]


LOCAL_FREE = 128
"""Entries of an LRU hash that each CPU may hold ready for new ones, and that no other CPU gets (kernel/bpf)."""


def flow_entries(max_flows: int, cpus: int) -> int:
    """The size of the map of flows in which so many find room, however so many CPUs share the free entries.

    The kernel makes as many buckets as the next power of two. In a map that nearly fills one, a bucket has often two
    flows, and who finds the second waits for memory twice. So if up to a third more entries make twice the buckets, it
    gets them; user space still takes no more than max_flows.
    """
    entries = max_flows + LOCAL_FREE * cpus
    buckets = 1 << (entries - 1).bit_length()
    return buckets + 1 if 3 * buckets <= 4 * entries else entries


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a config says about the program. ring: not a perf buffer; size: of the buffer for events, bytes. flows:
    entries of their map."""

    ring: bool
    size: int
    flows: int
    defines: tuple[str, ...]
    functions: tuple[str, ...]

    @staticmethod
    def by(config: Config) -> Wanted:
        """Errors: LoadError, for what this kernel does not have."""
        ring = config.event_transport == "ring" or (config.event_transport == "auto" and kernel_version() >= (5, 8))
        size = 1 << (config.ring_size * 1024 * 1024 - 1).bit_length()
        cpus = cpu_numbers("possible")[-1] + 1
        flows = flow_entries(config.max_flows, cpus)
        defines = [f"MAX_FLOWS={flows}", f"RING_PAGES={size // 4096}" if ring else "PERF", f"CPUS={cpus}"]
        defines += [name for name, since in MISSING.items() if kernel_version() < since]
        can_spread = "NO_CPUMAP_PROGRAMS" not in defines
        if config.cpus and not can_spread:
            raise LoadError("--cpus needs Linux 5.9: before, a CPU map has no programs")
        return Wanted(ring, size, flows, tuple(defines), FUNCTIONS if can_spread else FUNCTIONS[:-1])

    def program(self, *, keep: bool = True, may_compile: bool = True) -> Program:
        """Errors: LoadError; NotKept, if it may not be compiled and has to be."""
        return Program(SOURCE_FILE, self.defines, keep=self.functions if keep else (), may_compile=may_compile)


class Loading:
    """The program of a config, being loaded by a thread if it was kept; compiling is left to who asks for it."""

    def __init__(self, config: Config) -> None:
        self._wanted = Wanted.by(config)
        self._program: Program | None = None
        self._thread = threading.Thread(target=self._load, name="load", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        with contextlib.suppress(IntCollectorError):  # whoever asks for the program gets the error
            self._program = self._wanted.program(may_compile=False)

    def program(self) -> Program:
        """Waits for it; the caller closes it. Errors: LoadError."""
        self._thread.join()
        program, self._program = self._program, None
        return program or self._wanted.program()


__all__ = ["FUNCTIONS", "SOURCE_FILE", "Loading", "Wanted", "cpu_numbers", "kernel_version"]
