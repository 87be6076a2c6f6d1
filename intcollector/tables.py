"""The picture of a collector (docs/api.md) as tables of text: what `top` shows, on a terminal and with --once.

A picture comes over a network: a member may be missing (None), and a text may hold anything. Every text that leaves
here is one line without control characters.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import spelled
from .errors import UsageError

Row = dict[str, Any]
Picture = dict[str, Any]

SPARK = 20
"""Characters of a spark line in a table."""
_MARKS = {"bad": "!!", "warn": "!", "ok": "ok"}
_NUMBERS = re.compile(r"(\d+)")
_IDENTITY = re.compile(r"[0-9a-f]{1,32}")


clean = spelled.clean


def _number(spell: Callable[[float], str]) -> Callable[[Any], str]:
    def text(value: Any) -> str:
        if spelled.is_number(value):
            return spell(value)
        return spelled.UNKNOWN if value is None else str(value)

    return text


def _plain(value: Any) -> str:
    return spelled.UNKNOWN if value is None or value == "" else str(value)


def _whether(value: Any) -> str:
    return "up" if value is True else "down" if value is False else spelled.UNKNOWN


def _range(value: Any) -> str:
    return spelled.between(value) if isinstance(value, list) and len(value) == 2 else spelled.UNKNOWN


def _spark(value: Any) -> str:
    return spelled.spark(value, SPARK) if isinstance(value, list) else ""


def path(ids: Any) -> str:
    """Switch ids in travel order: 4 > ? > 1; ?: the switch did not say."""
    if not isinstance(ids, list) or not ids:
        return spelled.UNKNOWN
    return " > ".join("?" if one is None else str(one) for one in ids)


@dataclasses.dataclass(frozen=True)
class Column:
    """name: for --sort. title: in the head. value: what a row is sorted by. text: of that value."""

    name: str
    title: str
    value: Callable[[Row], Any]
    text: Callable[[Any], str] = _plain
    right: bool = False
    """Numbers: right-aligned, and the largest first."""

    def cell(self, row: Row) -> str:
        """Never empty, so that a line of a table has as many words as the table has columns."""
        return clean(self.text(self.value(row))) or spelled.UNKNOWN


def _words(name: str, title: str = "", member: str = "", text: Callable[[Any], str] = _plain) -> Column:
    return Column(name, title or name, lambda row: row.get(member or name), text)


def _counts(name: str, title: str = "", member: str = "", spell: Callable[[float], str] = spelled.count) -> Column:
    return Column(name, title or name, lambda row: row.get(member or name), _number(spell), right=True)


def _times(name: str, title: str = "", member: str = "") -> Column:
    return _counts(name, title, member or f"{name}_s", spelled.time)


def _rates(name: str, title: str = "", member: str = "") -> Column:
    return _counts(name, title or f"{name}/s", member or f"{name}_per_s", spelled.rate)


def _id(name: str) -> Column:
    """An id is a name: no commas in it."""
    return Column(name, name, lambda row: row.get(name), _plain, right=True)


def _quantile(name: str, title: str, find: Callable[[Row], Any]) -> Column:
    return Column(name, title, find, _range, right=True)


def ends(flow: Row) -> str:
    """A flow's source and destination, each with its port."""
    return " > ".join(
        f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        for address, port in (
            (str(flow.get("source")), flow.get("source_port")),
            (str(flow.get("destination")), flow.get("destination_port")),
        )
    )


def identity(flow: Row) -> str:
    """A flow's id as it may stand in an address: 16 hexadecimal digits; anything else is the id of none."""
    found = str(flow.get("id"))
    return found if _IDENTITY.fullmatch(found) else "0"


def _path_of(flow: Row) -> str:
    return path(flow.get("path")) + (" > ..." if flow.get("cut") else "")


def _lost(exporter: Row) -> int | None:
    lost = list((exporter.get("lost") or {}).values())
    return sum(lost) if all(map(spelled.is_number, lost)) else None


def _recent(row: Row) -> Row:
    return row.get("recent") or {}


@dataclasses.dataclass(frozen=True)
class View:
    """One list of the picture as a table. key: that switches to it. sort: the column that it begins with."""

    name: str
    key: str
    says: str
    columns: tuple[Column, ...]
    sort: str
    rows: Callable[[Picture], Any]
    omitted: Callable[[Picture], Any] = lambda picture: None
    """How many rows the picture left out."""

    def column(self, name: str) -> Column:
        """Errors: UsageError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UsageError(f"{self.name} has no column {name}: it has {', '.join(c.name for c in self.columns)}")

    def texts(self, row: Row) -> list[str]:
        """A cell for each column."""
        return [column.cell(row) for column in self.columns]

    def select(self, picture: Picture, sort: str | None = None, reverse: bool = False, wanted: str = "") -> list[Row]:
        """Rows sorted by a column: numbers from the largest, words from A, what is not known last. wanted: each of its
        words has to be somewhere in the row's texts. Errors: UsageError."""
        column, words = self.column(sort or self.sort), wanted.casefold().split()
        rows = [row for row in self.rows(picture) or [] if not words or self._has(row, words)]
        known = [row for row in rows if column.value(row) is not None]
        known.sort(key=lambda row: _order(column.value(row)), reverse=column.right is not reverse)
        return known + [row for row in rows if column.value(row) is None]

    def _has(self, row: Row, words: Sequence[str]) -> bool:
        line = " ".join(self.texts(row)).casefold()
        return all(word in line for word in words)

    def left_out(self, picture: Picture) -> int:
        """Rows that the collector has and the picture has not."""
        return int(self.omitted(picture) or 0)


def _order(value: Any) -> tuple[Any, ...]:
    """Comparable with that of any other value of its column: numbers by size, texts with the numbers in them by size
    (10.2 before 10.10), lists item by item."""
    if isinstance(value, (int, float)):
        return (0, value)
    if isinstance(value, (list, tuple)):
        return (1, *(_order(-1 if one is None else one) for one in value))
    pieces = _NUMBERS.split(str(value))
    return (2, *((int(piece), "") if at % 2 else (-1, piece) for at, piece in enumerate(pieces)))


_QUANTILES = tuple(
    _quantile(f"{name}{suffix}", f"{name}{title}", find)
    for suffix, title, where in (("", "", lambda row: row), ("_recent", " 60 s", _recent))
    for name in ("p50", "p90", "p99")
    for find in (lambda row, where=where, member=f"{name}_s": where(row).get(member),)
)


def _network(picture: Picture) -> Row:
    return picture.get("network") or {}


def _listed(name: str) -> tuple[Callable[[Picture], Any], Callable[[Picture], Any]]:
    """A member of the picture, and how many rows it left out."""
    return lambda picture: picture.get(name), lambda picture: picture.get(f"{name}_omitted")


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View(
            "flows", "1", "each flow's path and latency, and how it went in the last minute",
            (
                Column("flow", "flow", ends),
                Column("path", "path", lambda row: row.get("path"), path),
                _times("latency"), _rates("rate", "reports/s", "reports_per_s"),
                Column("recent", "last minute", lambda row: row.get("recent"), _spark),
                _counts("changes", "path changes", "path_changes"),
                Column("seen", "seen", lambda row: row.get("seen_s"), _number(spelled.ago), right=True),
                _counts("reports"), _words("protocol", "", "protocol_name"),
            ),
            "latency", *_listed("flows"),
        ),
        View(
            "switches", "2", "each switch's hop latency: half of the hops (p50), 90 %, 99 % took at most so long",
            (
                _id("switch_id"), _rates("hops", "hops/s"), _times("mean"), *_QUANTILES,
                _counts("count", "hops", "hops"), _counts("without_latency", "without latency"),
            ),
            "p99", *_listed("switches"),
        ),
        View(
            "links", "3", "from switch to switch, with the latency in the first of the two",
            (
                _id("from"), _id("to"), _id("egress_port_id"), _times("latency"), _times("latency_max"),
                _rates("rate", "reports/s", "reports_per_s"), _counts("flows"),
            ),
            "latency", lambda picture: _network(picture).get("links"),
            lambda picture: _network(picture).get("links_omitted"),
        ),
        View(
            "queues", "4", "the fullest queues",
            (
                _id("switch_id"), _id("queue_id"), _counts("occupancy"), _counts("max", "", "occupancy_max"),
                _counts("bytes", "", "occupancy_bytes"),
            ),
            "occupancy", *_listed("queues"),
        ),
        View(
            "ports", "5", "the busiest and slowest egress ports",
            (
                _id("switch_id"), _id("egress_port_id"), _rates("hops"), _times("latency"),
                _counts("utilization"), _counts("ratio", "used", "utilization_ratio", spelled.ratio),
            ),
            "latency", *_listed("ports"),
        ),
        View(
            "sources", "6", "who sends reports, and how many of them were lost on the way",
            (
                _words("source"), _id("switch_id"), _id("hw_id"), _rates("rate", "reports/s", "reports_per_s"),
                _rates("lost_rate", "lost/s", "lost_per_s"), _counts("lost_ratio", "lost", "lost_ratio", spelled.ratio),
                _counts("lost", "lost reports"), _counts("reports"), _counts("reordered"), _counts("duplicated"),
                _counts("restarted"), _counts("sampling", "one in", "sampling_ratio"),
            ),
            "rate", *_listed("sources"),
        ),
        View(
            "drops", "7", "packets that switches dropped, as drop reports say",
            (_id("switch_id"), _words("reason"), _rates("packets"), _counts("count", "packets", "packets")),
            "packets", *_listed("drops"),
        ),
        View(
            "outcomes", "8", "what became of every packet that came in",
            (
                _words("outcome"), _words("kind"), _rates("packets"), _counts("count", "packets", "packets"),
                _words("says", "what it means"),
            ),
            "count", lambda picture: picture.get("outcomes"),
        ),
        View(
            "exporters", "9", "where events go, and what could not be delivered",
            (
                _words("exporter"), _words("up", "", "", _whether), _counts("accepted"), _counts("delivered"),
                Column("lost", "lost", _lost, _number(spelled.count), right=True),
                _counts("buffered"), _counts("bytes", "", "buffered_bytes"), _words("problem"),
            ),
            "exporter", lambda picture: picture.get("exporters"),
        ),
        View(
            "events", "0", "what changed, the newest first",
            (
                Column("n", "number", lambda row: row.get("n"), _plain, right=True),
                Column("ago", "ago", lambda row: row.get("seen_s"), _number(spelled.ago), right=True),
                Column("what", "what", lambda row: row.get("what"), lambda what: ", ".join(map(str, what or []))),
                _words("text", "event"),
            ),
            "n", lambda picture: _dated((picture.get("events") or {}).get("events"), picture.get("time")),
        ),
    )
}  # fmt: skip


def _dated(events: Iterable[Row] | None, now: Any) -> list[Row]:
    """Events with how long ago they were, by the collector's own clock: the terminal's may be another machine's."""
    return [
        event | {"seen_s": now - event["time"] if now is not None and event.get("time") is not None else None}
        for event in events or []
    ]


# --- above the tables -------------------------------------------------------------------------------------------------


def title(picture: Picture) -> str:
    """Who this is."""
    collector = picture.get("collector") or {}
    words = [f"intcollector {collector.get('version')}", str(collector.get("kind")), f"on {collector.get('host')}"]
    at = [f"{one.get('name')} ({one.get('problem') or one.get('mode')})" for one in collector.get("interfaces") or []]
    ports = collector.get("udp_ports") or []
    more = [", ".join(at), f"UDP {', '.join(map(str, ports))}" if ports else "", collector.get("not_ready") or ""]
    return clean(" ".join(words) + "".join(f" | {one}" for one in more if one))


def head(picture: Picture, width: int) -> list[str]:
    """The counts in two lines, the first with spark lines of the last minutes as far as the width has room."""
    collector, history = picture.get("collector") or {}, picture.get("history") or {}

    def rate(member: str) -> str:
        return f"{_number(spelled.rate)(collector.get(f'{member}_per_s'))}/s"

    def total(member: str) -> str:
        return _number(spelled.count)(collector.get(member))

    moving = [(name, f"{name} {rate(name)} ") for name in ("reports", "events")]
    room = max(0, min(60, (width - sum(len(text) for _, text in moving) - 2) // len(moving)))
    first = (text + spelled.spark(history.get(f"{name}_per_s") or [], room) for name, text in moving)
    second = (
        f"lost {rate('reports_lost')} ({total('reports_lost')})",
        f"malformed {rate('malformed')} ({total('malformed')})",
        f"events {total('events')} (+{total('events_lost')} lost)",
        f"flows {total('flows')}",
    )
    return [clean("  ".join(parts).rstrip()) for parts in (first, second)]


def findings(picture: Picture) -> list[tuple[str, str]]:
    """The diagnosis, worst first: state (ok, warn, bad) and a line that begins with its mark."""
    found = []
    for one in picture.get("diagnosis") or []:
        state, advice = str(one.get("state")), one.get("advice")
        text = f"{_MARKS.get(state, '?')} {one.get('what')}: {one.get('found')}" + (f"; {advice}" if advice else "")
        found.append((state, clean(text.replace("`", ""))))
    return found


def details(flow: Row, more: Row | None) -> list[str]:
    """A flow, line by line. more: what /api/v1/flows/ID answers, with "history" and "changes"; None: not yet."""
    lines = [
        f"{_plain(flow.get('protocol_name'))} {ends(flow)}",
        f"path {_path_of(flow)}" + (" (put together of postcards)" if flow.get("postcards") else ""),
        f"latency {_number(spelled.time)(flow.get('latency_s'))}"
        f", {_number(spelled.rate)(flow.get('reports_per_s'))} reports/s"
        f", {_number(spelled.count)(flow.get('reports'))} in all"
        f", seen {_number(spelled.ago)(flow.get('seen_s'))}",
        "",
        *table(
            ("switch_id", "egress_port_id", "queue_id", "latency"),
            [
                [_plain(hop.get(name)) for name in ("switch_id", "egress_port_id", "queue_id")]
                + [_number(spelled.time)(hop.get("latency_s"))]
                for hop in flow.get("hops") or []
            ],
            (True, True, True, True),
        ),
        "",
    ]
    history = (more or {}).get("history") or {}
    values = history.get("latency_s") or flow.get("recent") or []
    known = [value for value in values if value is not None]
    if known:
        lines.append(f"latency so far, {spelled.time(min(known))} to {spelled.time(max(known))}:")
        lines.append(spelled.spark(values, 60))
    changes = (more or {}).get("changes") or []
    if changes:
        lines += ["", "path changes, the newest first:"]
        lines += [f"  {path(one.get('before'))}  ->  {path(one.get('after'))}" for one in reversed(changes)]
    elif flow.get("path_changed"):
        lines += ["", f"path before: {path(flow.get('path_before'))}"]
    return [clean(line) for line in lines]


# --- as text ----------------------------------------------------------------------------------------------------------


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines with columns as wide as they need, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (titles, *rows)
    ]


def text(picture: Picture, views: Sequence[str], sort: str | None, reverse: bool, limit: int | None) -> list[str]:
    """The lines of --once: of one view its table alone, of several also what stands above, and each with its name.

    sort: a column; of several views, where they have it. limit: rows of a view. Errors: UsageError."""
    alone = len(views) == 1
    lines = [] if alone else [title(picture), *head(picture, 100), *(line for _, line in findings(picture))]
    if sort and not any(sort in [column.name for column in VIEWS[name].columns] for name in views):
        VIEWS[views[0]].column(sort)
    for name in views:
        view = VIEWS[name]
        mine = sort if alone or sort in [column.name for column in view.columns] else None
        chosen = view.select(picture, mine, reverse)
        if not chosen and not alone:
            continue
        if not alone:
            lines += ["", f"{name}: {view.says}"]
        shown = [view.texts(row) for row in chosen[:limit]]
        lines += table([c.title or c.name for c in view.columns], shown, [c.right for c in view.columns])
        more = len(chosen) - len(shown) + view.left_out(picture)
        if more and not alone:
            lines.append(f"... and {spelled.count(more)} more")
    return lines
