"""How it is spelled: one file an exporter, one line each in EXPORTERS.

An exporter takes batches and never makes the control loop wait. One that sends, over a network or to a file, is a
Pusher (delivery.py): a buffer with a bound, a worker thread, and a count of everything it had to give up.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the table is asked for before anything is loaded
    from ..batch import Batch
    from ..config import Config
    from ..series import Counts

__all__ = ["EXPORTERS", "PROMETHEUS", "Counts", "Exporter", "close_together", "exporter_class"]

PROMETHEUS = "prometheus"
"""The one that is asked, and not told."""


class Exporter(Protocol):
    """What the control loop knows of an exporter. Constructors raise ExporterError."""

    name: str

    def write(self, batch: Batch) -> None:
        """Take a batch; never blocks. The batch's arrays are the exporter's to keep: nobody writes to them again."""

    def apply(self, config: Config) -> None:
        """What is written next is written by this config: of sources, drop reasons, links. Options that say where to
        write to are as they were."""

    def close(self, timeout_s: float) -> None:
        """Deliver what can be delivered in that time, keep the rest on disk or count it as lost, stop. Closing again
        does nothing."""

    def counts(self) -> Counts:
        """What became of the points so far."""

    def problem(self) -> str | None:
        """One sentence on why nothing is delivered at the moment, or None."""


EXPORTERS = {
    PROMETHEUS: "Prometheus",
    "influxdb": "InfluxDB",
    "kafka": "Kafka",
    "jsonl": "JsonLines",
}
"""Name (of the module here, of the field of Config that switches it on, and in metrics and logs) -> class."""


def exporter_class(name: str) -> Any:
    """Imported when asked for: nobody pays for a library of an exporter that is off."""
    return getattr(importlib.import_module(f".{name}", __name__), EXPORTERS[name])


def close_together(exporters: Iterable[Exporter], timeout_s: float) -> None:
    """Close all in the time of one."""
    closing = [
        threading.Thread(target=exporter.close, args=(timeout_s,), name=f"{exporter.name}-close")
        for exporter in exporters
    ]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join()
