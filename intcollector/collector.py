"""The control loop: drain, hand on, look after the interfaces. It never waits for an exporter."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .batch import Batch
from .config import Config, FromFile, content_of, path_of
from .datapath import Datapath
from .errors import UsageError
from .exporters import EXPORTERS, PROMETHEUS, close_together, exporter_class
from .program import Loading

if TYPE_CHECKING:
    import numpy as np

    from .batch import State
    from .exporters import Counts, Exporter
    from .interface import Attachment
    from .picture import Around
    from .series import Histogram, Series

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.02
"""How often the loop looks whether much is waiting, which costs next to nothing. The ring does not fill in between."""
DRAIN_INTERVAL_S = 0.08
"""How long events wait at most, if they are few: a drain costs nearly the same for one as for a hundred."""
MUCH = 1 / 64
"""... of the ring's room: what is drained at once."""
CHECK_INTERVAL_S = 0.2
BUSY_EVENTS = 2000
"""A drain that brought up so many is followed by the next at once."""

Stamp = tuple[int, ...]
"""Which file it is, and when it was written to."""


class WatchedFile:
    """A file that an option names: read again when it is another, whether written to or replaced.

    name: of the field of Config; read: what makes the field's value of (content, path).
    """

    def __init__(self, name: str, path: str, read: Callable[[bytes, str], FromFile[Any]]) -> None:
        self.name = name
        self.path = path
        self._read = read
        self._seen: Stamp | None = None
        # It was read before, and may have changed since; what cannot be read twice (a pipe) is left alone.
        self._done: Stamp | None = () if self._stamp() else None
        self._content: bytes | None = None  # when it was last read
        self._problem: str | None = None

    def _stamp(self) -> Stamp | None:
        """None: it is gone, or not a file."""
        try:
            said = os.stat(self.path)
        except OSError:
            return None
        if not stat.S_ISREG(said.st_mode):
            return None
        return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns

    def look(self, before: FromFile[Any], *, now: bool = False) -> FromFile[Any] | None:
        """What it says, if that is not what was said before; None also if it is wrong, which is logged once.

        It is read once it stays as it is between two looks, so that no half of it is taken for all; now: at once, and
        also if it seems to be the same.
        """
        stamp = self._stamp()
        settled, self._seen = stamp == self._seen, stamp
        if not now and (stamp == self._done or not settled):
            return None
        self._done = stamp
        problem, content, value = None, None, before
        try:
            if stamp is None and os.path.exists(self.path):
                raise UsageError(f"{self.path} is not a file any more: give one that is")
            content = content_of(self.path)
            if content == self._content and not now:
                return None
            value = self._read(content, self.path)
        except UsageError as error:
            problem = str(error)
        was_wrong, same = self._problem is not None, (problem, content) == (self._problem, self._content)
        self._problem, self._content = problem, content
        if problem:
            if now or not same:
                log.error("%s; what was read before stays in force", problem)
            return None
        if value != before:
            return value
        if now or was_wrong:
            log.info("%s read again: %s", self.path, difference(before, value))
        return None


def difference(before: FromFile[Any], after: FromFile[Any]) -> str:
    """How many entries there are, and how many of them are not as before."""
    old, new = ({entry[:-1]: entry[-1] for entry in value} for value in (before, after))
    counts = {
        "new": len(new.keys() - old.keys()),
        "changed": sum(old[key] != new[key] for key in new.keys() & old.keys()),
        "gone": len(old.keys() - new.keys()),
    }
    said = [f"{count} {what}" for what, count in counts.items() if count] or ["nothing changed"]
    return f"{len(new)} {'entry' if len(new) == 1 else 'entries'}, {', '.join(said)}"


@contextlib.contextmanager
def _importing(*modules: str) -> Iterator[None]:
    """Import modules of this package meanwhile, in a thread: libraries for netlink and HTTP take as long as compiling
    the kernel program does, which leaves Python alone."""

    def work() -> None:
        with contextlib.suppress(ImportError):  # whoever uses the module gets the error
            for module in modules:
                importlib.import_module(module, __package__)

    thread = threading.Thread(target=work, name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _look_for(interfaces: Sequence[str]) -> None:
    """Before the program is loaded, which takes a while. Errors: AttachError."""
    try:
        for name in interfaces:
            socket.if_nametoindex(name)
    except OSError:  # netlink knows longer names, and what there is instead
        from .interface import must_exist

        must_exist(interfaces)


class Collector:
    """One kernel program on several interfaces, and what its events and maps are made into.

    Errors of the constructor: LoadError, AttachError, ExporterError; it leaves nothing behind then.
    """

    def __init__(self, config: Config, interfaces: Sequence[str], loading: Loading | None = None) -> None:
        """loading: the kernel program, if that was begun before."""
        self.config = config
        self.attachments: list[Attachment] = []
        self.exporters: dict[str, Exporter] = {}
        self._stop = threading.Event()
        self._actions: list[Any] = []  # what another thread or a signal asked for
        self._files: list[WatchedFile] = []
        self._reading = threading.Lock()
        self._changes: np.ndarray | None = None  # of all batches; None: there was none yet
        self._watch()
        _look_for(interfaces)
        used = [name for name in EXPORTERS if getattr(config, name)]
        with _importing(".interface", *(f".exporters.{name}" for name in used)):
            self.datapath = Datapath(config, loading=loading)
        try:
            self._open(interfaces, used)
        except BaseException:
            self.close()
            raise

    def _open(self, interfaces: Sequence[str], used: Sequence[str]) -> None:
        from .interface import Attachment

        config = self.config
        for name in used:
            if name != PROMETHEUS:
                self.exporters[name] = exporter_class(name)(config)
        # Attached before the endpoint opens: what it serves is true from the first answer on.
        for interface in dict.fromkeys(interfaces):
            self.attachments.append(Attachment(self.datapath.entry, interface, config))
        if PROMETHEUS in used:
            self.exporters[PROMETHEUS] = exporter_class(PROMETHEUS)(
                config, self.state, self.counts, self.not_ready, self.series, self.around
            )

    @property
    def prometheus_address(self) -> tuple[str, int] | None:
        """Where /metrics is served; None if it is off."""
        exporter: Any = self.exporters.get(PROMETHEUS)
        return exporter.address if exporter else None

    def counts(self) -> dict[str, Counts]:
        """What became of the points, by exporter that sends."""
        return {name: exporter.counts() for name, exporter in self.exporters.items() if name != PROMETHEUS}

    def series(self, state: State, config: Config, exporters: Mapping[str, Counts]) -> list[Series | Histogram]:
        """Everything there is to say now; what was news is the loop's to know."""
        from .series import NO_CHANGES, scrape

        return scrape(state, config, exporters, NO_CHANGES if self._changes is None else self._changes)

    def state(self) -> State:
        """The maps, from any thread, one at a time."""
        with self._reading:
            return self.datapath.state()

    def around(self) -> Around:
        """What there is to say of a collector beside what the maps hold."""
        from .picture import Around
        from .seen import Interface

        return Around(
            interfaces=[
                Interface(one.name, mode=one.mode, problem=one.problem, **one.traffic()._asdict())
                for one in self.attachments
            ],
            not_ready=self.not_ready(),
            problems={name: exporter.problem() for name, exporter in list(self.exporters.items())},
        )

    def not_ready(self) -> str | None:
        """One sentence on what is wrong, or None."""
        for attachment in self.attachments:
            if attachment.problem:
                return f"not attached: {attachment.problem}"
        for exporter in list(self.exporters.values()):
            if problem := exporter.problem():
                return problem
        return None

    def run(self, seconds: float | None = None) -> None:
        """Collect until stop(), or for so long."""
        end = None if seconds is None else time.monotonic() + seconds
        check_at = drain_at = 0.0
        much = (self.config.ring_size << 20) * MUCH
        while not self._stop.is_set():
            now = time.monotonic()
            if end is not None and now >= end:
                return
            while self._actions:
                self._actions.pop(0)()
            if now >= check_at:
                for attachment in self.attachments:
                    attachment.check()
                self.look_at_files()
                check_at = now + CHECK_INTERVAL_S
            if now >= drain_at or self.datapath.waiting > much:
                if len(self.drain()) >= BUSY_EVENTS or self.datapath.has_more:
                    drain_at = 0.0
                    continue
                drain_at = now + DRAIN_INTERVAL_S
            self._stop.wait(LOOK_INTERVAL_S)

    def drain(self) -> Batch:
        """One turn: what came up, to every exporter."""
        batch = self.datapath.drain()
        if len(batch):
            from .series import change_counts  # not before there is something: it is imported while the program loads

            counts = change_counts(batch)
            self._changes = counts if self._changes is None else self._changes + counts
            for exporter in self.exporters.values():
                exporter.write(batch)
        return batch

    def stop(self) -> None:
        """Let run() return; from any thread or a signal handler."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """stop() was called."""
        return self._stop.is_set()

    def soon(self, action: Any) -> None:
        """Have the control loop call action; from any thread or a signal handler."""
        self._actions.append(action)

    def apply(self, config: Config) -> None:
        """Set the running program and the exporters: thresholds, event mode, what files say. Nothing is reloaded or
        detached."""
        self.datapath.apply(config)
        self.config = config
        for exporter in self.exporters.values():
            exporter.apply(config)
        self._watch()

    def _watch(self) -> None:
        """The files that the config came from."""
        known = {(file.name, file.path): file for file in self._files}
        self._files = []
        for field in dataclasses.fields(Config):
            if path := path_of(getattr(self.config, field.name)):
                file = known.get((field.name, path)) or WatchedFile(field.name, path, field.metadata["read"])
                self._files.append(file)

    def look_at_files(self, *, now: bool = False) -> None:
        """Take up what files say that options name, if it is another thing than before, and right. now: even if they
        were not touched."""
        changes: dict[str, Any] = {}
        for file in self._files:
            value = file.look(getattr(self.config, file.name), now=now)
            if value is not None:
                changes[file.name] = value
        if not changes:
            return
        before = self.config
        self.apply(dataclasses.replace(before, **changes))
        for name, value in changes.items():
            log.info("%s read again: %s", value.path, difference(getattr(before, name), value))

    def reopen(self) -> None:
        """Open the files of exporters anew (they were rotated)."""
        for exporter in self.exporters.values():
            if hasattr(exporter, "reopen"):
                exporter.reopen()

    def close(self) -> None:
        """Detach, drain what is left, let the exporters deliver it, give everything back."""
        for attachment in self.attachments:
            attachment.close()
        if self.exporters:
            while len(self.drain()) or self.datapath.has_more:
                pass
        close_together(self.exporters.values(), self.config.close_timeout)
        self.attachments, self.exporters = [], {}
        self.datapath.close()
