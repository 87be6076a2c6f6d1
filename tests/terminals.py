"""A command in a terminal of its own: what it draws, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable
from typing import TypeVar

from intcollector import lab

from . import servers
from .collectors import COMMAND, DEADLINE_S, ROOT

Self = TypeVar("Self", bound="Terminal")

_DEFAULT_SIZE = (80, 24)


class Terminal:
    """A pseudo terminal in which a command of intcollector runs, its session's leader and in the foreground.

    output: where stdout goes if not to the terminal.
    through: a command that runs another one. A context manager.
    """

    def __init__(
        self,
        *arguments: str,
        namespace: str | None = None,
        size: tuple[int, int] = _DEFAULT_SIZE,
        output: int | None = None,
        environment: dict[str, str] | None = None,
        through: tuple[str, ...] = (),
    ) -> None:
        self._leader, self._follower = pty.openpty()
        self.resize(*size)
        self.settings = termios.tcgetattr(self._follower)
        self._drawn = bytearray()
        with lab.inside(namespace):
            self.process = subprocess.Popen(
                [*through, *COMMAND, *arguments], cwd=ROOT, stdin=self._follower, stderr=self._follower,
                stdout=self._follower if output is None else output, start_new_session=True,
                env=os.environ | {"TERM": "xterm-256color"} | (environment or {}),
                preexec_fn=lambda: fcntl.ioctl(self._follower, termios.TIOCSCTTY, 0),
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._ended = threading.Event()
        self._reader.start()

    def _read(self) -> None:
        while not self._ended.is_set():
            if select.select([self._leader], [], [], 0.05)[0]:
                self._drawn += os.read(self._leader, 1 << 16)

    @property
    def drawn(self) -> bytes:
        """All bytes that came so far."""
        return bytes(self._drawn)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._leader, keys)

    def wait(self, condition: Callable[[bytes], object], what: str) -> None:
        """Returns when it is true of what was drawn; fails if the command ends before."""

        def look() -> bool:
            ended = self.process.poll() is not None
            seen = bool(condition(self.drawn))
            assert seen or not ended, f"ended with {self.process.returncode} before {what}:\n{self.drawn!r}"
            return seen

        servers.wait(look, what, DEADLINE_S)

    def end(self) -> int:
        """The exit code, once it ended and all it drew is in drawn."""
        code = self.process.wait(DEADLINE_S)
        self.settings_after = termios.tcgetattr(self._follower)
        servers.wait(lambda: not select.select([self._leader], [], [], 0)[0], "all is read", DEADLINE_S)
        self.close()
        return code

    def close(self) -> None:
        """No process stays, whatever happened."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if not self._ended.is_set():
            self._ended.set()
            self._reader.join()
            os.close(self._leader)
            os.close(self._follower)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
