"""Points -> InfluxDB's line protocol.

Schema `tags`: measurements int_flow (latency, path), int_hop (latency), int_queue (occupancy), int_port
(tx_utilization), the metrics' labels as tags, values in the metrics' units: latencies are seconds. InfluxDB 1, 2 and 3
take it alike: a field has the same type in every point, a tag without a value is left out, and no tag is called as a
field is. Schema `intcollector`: what INTCollector wrote, name for name, with the wire's own numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..series import Points
from .text import LabelTexts, numbers

KNOWN_LABELS = 100_000
"""Flows, and other things with labels, whose text is remembered."""


@dataclasses.dataclass(frozen=True)
class Schema:
    """What points are called, and their values' units.

    names: by kind, the measurement and the value, if not as Points have them. spell: what a series' name has for
    labels, (names, values of each thing) -> a text each, which goes behind what is there. by_name: the order of labels,
    which the server is quickest with. wire: values are the switches' own numbers, and a point whose name would lack an
    id is left out.
    """

    names: Mapping[str, tuple[str, str]]
    spell: Callable[[Sequence[str], Iterable[tuple[str, ...]]], Iterator[str]]
    by_name: bool
    wire: bool


@dataclasses.dataclass(frozen=True)
class Lines:
    """Points as columns to be woven: series, a space, before, fields, after, a space, time. of: int64 (n,), the same
    for points of one series, and for others another."""

    series: list[str | list[str]]
    of: np.ndarray
    before: str
    fields: list[str]
    after: str


class Speller:
    """Points -> Lines by a schema; it remembers the text of labels and paths."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._labels = LabelTexts(schema.spell, KNOWN_LABELS)
        self._paths = LabelTexts(_path_fields, KNOWN_LABELS)

    def nameable(self, kind: Points) -> Points:
        """The points that have a name."""
        if not self._schema.wire:
            return kind
        whole = np.ones(len(kind), bool)
        for part in kind.parts:
            for column in part.columns.values():
                if column.dtype.kind == "i":
                    whole &= (column >= 0) if part.rows is None else (column >= 0)[part.rows]
        return kind if whole.all() else kind[whole]

    def lines(self, kind: Points) -> Lines:
        name, field = self._schema.names.get(kind.kind, (kind.measurement, kind.field))
        series: list[str | list[str]] = [name]
        of = np.full(len(kind), hash(name), np.int64)
        parts = sorted(kind.parts, key=lambda part: min(part.columns)) if self._schema.by_name else kind.parts
        for at, part in enumerate(parts):
            text = self._labels.of(part.columns)
            # Each part's times another number: queue 4 of switch 5 is not queue 5 of switch 4.
            hashes = np.array(list(map(hash, text.tolist())), np.int64) * (2 * at + 1)
            rows = slice(None) if part.rows is None else part.rows
            series.append(text[rows].tolist())
            of += hashes[rows]
        values = kind.wire if self._schema.wire else kind.values
        after = "" if values.dtype.kind == "f" else "i"
        if kind.paths is None:
            return Lines(series, of, f"{field}=", numbers(values), after)
        # A Python loop over flows' points, for each of which it is another question what there is of it.
        paths = self._paths.of({"path": kind.paths}).tolist()
        fields = [f"{field}={value}{after}{path}" for value, path in zip(numbers(values), paths, strict=True)]
        for row in np.flatnonzero(kind.wire < 0).tolist():
            fields[row] = paths[row].removeprefix(",")
        return Lines(series, of, "", fields, "")


def _path_fields(_: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for (path,) in values:
        yield f',path="{path}"' if path else ""


def _tags(names: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """`,a=1,b=2`, by name. A tag without a value is left out."""
    order = sorted(range(len(names)), key=names.__getitem__)
    for row in values:
        yield "".join([f",{names[at]}={row[at]}" for at in order if row[at]])


_ID_NAMES = {"switch_id": "sw_id", "egress_port_id": "port_id"}
"""What INTCollector calls them."""


def _name_parts(names: Sequence[str], values: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """What comes next in the name of one of INTCollector's measurements; its commas belong to it."""
    if len(names) == 1:
        for (number,) in values:
            yield rf"\,{_ID_NAMES.get(names[0], names[0])}={number}"
    else:
        for source, destination, source_port, destination_port, protocol in values:
            yield rf"\,{_host(source)}:{source_port}->{_host(destination)}:{destination_port}\,proto={protocol}"


def _host(address: str) -> str:
    """IPv6, which INTCollector did not know, in brackets: the port follows."""
    return f"[{address}]" if ":" in address else address


SCHEMAS = {
    "tags": Schema({}, _tags, by_name=True, wire=False),
    "intcollector": Schema(
        {
            "flow": ("flow_stat", "flow_latency"),
            "hop": ("flow_hop_latency", "value"),
            "queue": ("queue_occupancy", "value"),
            "port": ("port_tx_utilize", "value"),
        },
        _name_parts,
        by_name=False,
        wire=True,
    ),
}
"""By the words of Config.influxdb_schema."""
