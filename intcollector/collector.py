"""The control loop: drain, hand on, look after the interfaces. It never waits for an exporter."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from .batch import Batch
from .config import Config
from .datapath import Datapath
from .exporters import Counts, Exporter, exporter_class
from .interface import Attachment

log = logging.getLogger(__name__)

DRAIN_INTERVAL_S = 0.02
"""The ring holds this long at full speed many times over; a drain of nothing costs some microseconds."""
CHECK_INTERVAL_S = 0.2
BUSY_EVENTS = 2000
"""A drain that brought up so many is followed by the next at once."""
CLOSE_S = 5.0
"""How long the exporters may deliver when the collector ends."""


class Collector:
    """One kernel program on several interfaces, and what its events and maps are made into.

    Errors of the constructor: LoadError, AttachError, ExporterError; it leaves nothing behind then.
    """

    def __init__(self, config: Config, interfaces: Sequence[str]) -> None:
        self.config = config
        self.attachments: list[Attachment] = []
        self.exporters: dict[str, Exporter] = {}
        self._stop = threading.Event()
        self._actions: list[Any] = []  # what another thread or a signal asked for
        self.datapath = Datapath(config)
        try:
            self._open(interfaces)
        except BaseException:
            self.close()
            raise

    def _open(self, interfaces: Sequence[str]) -> None:
        config = self.config
        for name in ("influxdb", "jsonl"):
            if getattr(config, name):
                self.exporters[name] = exporter_class(name)(config)
        # Attached before the endpoint opens: what it serves is true from the first answer on.
        for interface in dict.fromkeys(interfaces):
            self.attachments.append(Attachment(self.datapath.fd, interface, config))
        if config.prometheus:
            self.exporters["prometheus"] = exporter_class("prometheus")(
                config, self.datapath.state, self.counts, self.not_ready
            )

    @property
    def prometheus_address(self) -> tuple[str, int] | None:
        """Where /metrics is served; None if it is off."""
        exporter: Any = self.exporters.get("prometheus")
        return exporter.address if exporter else None

    def counts(self) -> dict[str, Counts]:
        """What became of the points, by exporter that sends."""
        return {name: exporter.counts() for name, exporter in self.exporters.items() if name != "prometheus"}

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
        check_at = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            if end is not None and now >= end:
                return
            while self._actions:
                self._actions.pop(0)()
            if now >= check_at:
                for attachment in self.attachments:
                    attachment.check()
                check_at = now + CHECK_INTERVAL_S
            if len(self.drain()) < BUSY_EVENTS:
                self._stop.wait(DRAIN_INTERVAL_S)

    def drain(self) -> Batch:
        """One turn: what came up, to every exporter."""
        batch = self.datapath.drain()
        if len(batch):
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
        """Set the running program: thresholds, event mode, keep-alive. Nothing is reloaded or detached."""
        self.config = config
        self.datapath.apply(config)

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
            self.drain()
        for exporter in self.exporters.values():
            exporter.close(CLOSE_S)
        self.attachments, self.exporters = [], {}
        self.datapath.close()
