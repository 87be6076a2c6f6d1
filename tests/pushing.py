"""An InfluxDB exporter that is looked at until its sums close, and what it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from intcollector.config import Config
from intcollector.exporters.influxdb import InfluxDB
from intcollector.series import Counts

from . import servers
from .batches import report

NOW_NS = 1_700_000_000_000_000_000


@contextlib.contextmanager
def pushing(url: str, database: str = "", kind: type[InfluxDB] = InfluxDB, **more: Any) -> Iterator[InfluxDB]:
    """An exporter to a server; at its end everything is accounted for."""
    options = {"influxdb": url, "push_interval": 0.05, **({"influxdb_database": database} if database else {}), **more}
    exporter = kind(Config(**options))
    try:
        yield exporter
    finally:
        exporter.close(10)
    counts = exporter.counts()
    assert counts.accepted == counts.delivered + sum(counts.lost.values())
    assert (counts.buffered, counts.buffered_bytes) == (0, 0)


def settled(exporter: InfluxDB) -> Counts:
    """The counts when nothing is buffered any more."""
    servers.wait(lambda: exporter.counts().buffered == 0, "everything is delivered or lost")
    return exporter.counts()


def many(count: int, received_ns: int = NOW_NS, switch_id: int | None = None) -> list[dict[str, Any]]:
    """Reports with a flow point and a hop point each."""
    return [
        {**report({"switch_id": i % 9 if switch_id is None else switch_id, "hop_latency": i}),
         "received_ns": received_ns + i, "changes": ["new_flow", {"hop": 0, "what": "hop_latency"}]}
        for i in range(count)
    ]  # fmt: skip
