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


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a config says about the program. ring: not a perf buffer; size: of the buffer for events, bytes."""

    ring: bool
    size: int
    defines: tuple[str, ...]
    functions: tuple[str, ...]

    @staticmethod
    def by(config: Config) -> Wanted:
        """Errors: LoadError, for what this kernel does not have."""
        ring = config.event_transport == "ring" or (config.event_transport == "auto" and kernel_version() >= (5, 8))
        size = 1 << (config.ring_size * 1024 * 1024 - 1).bit_length()
        defines = [f"MAX_FLOWS={config.max_flows}", f"RING_PAGES={size // 4096}" if ring else "PERF"]
        defines.append(f"CPUS={cpu_numbers('possible')[-1] + 1}")
        defines += [name for name, since in MISSING.items() if kernel_version() < since]
        can_spread = "NO_CPUMAP_PROGRAMS" not in defines
        if config.cpus and not can_spread:
            raise LoadError("--cpus needs Linux 5.9: before, a CPU map has no programs")
        return Wanted(ring, size, tuple(defines), FUNCTIONS if can_spread else FUNCTIONS[:-1])

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
