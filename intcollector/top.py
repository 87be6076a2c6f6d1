"""`top`: a collector's picture on a terminal, as it changes. tables.py says what is shown, watching.py brings it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any, ClassVar

from rich.text import Text
from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static, Tab, Tabs

from . import spelled, tables, watching
from .tables import VIEWS, Picture, Row, View

SHOWN = 100
"""Rows of a table: what nobody scrolls through is found by / or by sorting."""
STALE_S = 3.0
"""A picture comes every second."""
EVENTS = 1000
"""Events kept for the table."""
FINDINGS = 3
"""Lines of diagnosis at most."""


class Came(Message):
    """Something came from the collector."""

    def __init__(self, kind: str, what: Any) -> None:
        self.kind, self.what = kind, what
        super().__init__()


class Detail(ModalScreen[None]):
    """One flow, as it changes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "back", key_display="esc")]

    def __init__(self, flow: Row, address: watching.Address) -> None:
        super().__init__()
        self.flow, self._address = flow, address
        self._more: Row | None = None
        self._asking, self._gone = False, ""

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="detail", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.show(self.flow)

    def show(self, flow: Row | None) -> None:
        """flow: as it is now; None: the picture has it no more."""
        self.flow, self._gone = flow or self.flow, "" if flow else "this flow is no longer in the picture"
        self._draw()
        if flow and not self._asking:
            self._asking = True
            self.run_worker(self._ask())

    def _draw(self) -> None:
        lines = [self._gone] * bool(self._gone) + tables.details(self.flow, self._more)
        self.query_one("#detail", Static).update(Text("\n".join(lines)))

    async def _ask(self) -> None:
        """The history, which a picture does not have."""
        path = f"/flows/{tables.identity(self.flow)}"
        try:
            self._more = await asyncio.to_thread(watching.get, self._address, path, watching.FLOW)
            self._draw()
        except watching.WatchError:
            pass  # the flow has gone, or the collector has: the picture says so
        finally:
            self._asking = False


class Keys(ModalScreen[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "back", key_display="esc")]

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            lines = tables.table(("key", "does"), [[keys, does] for keys, _, does in KEYS], (False, False))
            yield Static(Text("\n".join(lines)), id="keys", markup=False)
        yield Footer()


class Top(App[None]):
    """address: of the collector. view, sort, reverse: to begin with. limit: rows of a table."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #title, #head, #diagnosis { height: auto; padding: 0 1; }
    #diagnosis { max-height: 6; }
    #count { height: 1; padding: 0 1; color: $text-muted; }
    #title, #count { text-wrap: nowrap; text-overflow: ellipsis; height: 1; }
    #filter { display: none; height: 1; border: none; padding: 0 1; }
    DataTable { height: 1fr; }
    .stale { text-opacity: 50%; }
    ModalScreen > VerticalScroll { background: $surface; padding: 1 2; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c,ctrl+q", "quit", "quit", priority=True, show=False, key_display="^c"),
        # of priority: what is typed right behind it is the filter's, also where keys come several at a time
        Binding("slash", "filter", "filter", priority=True, key_display="/"),
        Binding("less_than_sign", "sort(-1)", "sort", key_display="<"),
        Binding("greater_than_sign", "sort(1)", "sort", key_display=">"),
        Binding("r", "reverse", "reverse"),
        Binding("space", "pause", "hold"),
        Binding("question_mark", "keys", "keys", key_display="?"),
        Binding("escape", "clear", "show all", show=False, key_display="esc"),
        Binding("left_square_bracket", "view(-1)", "table before", show=False, key_display="["),
        Binding("right_square_bracket", "view(1)", "next table", show=False, key_display="]"),
        *(Binding(view.key, f"show('{view.name}')", view.name, show=False) for view in VIEWS.values()),
    ]

    def __init__(
        self,
        address: watching.Address,
        *,
        view: str = "flows",
        sort: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self._stream = watching.Stream(address)
        self._address = address
        self._view: View = VIEWS[view]
        self._sorts: dict[str, tuple[str, bool]] = {name: (one.sort, False) for name, one in VIEWS.items()}
        self._sorts[view] = (VIEWS[view].column(sort).name if sort else VIEWS[view].sort, reverse)
        self._limit = limit or SHOWN
        self._wanted = ""
        self._picture: Picture | None = None
        self._at = 0.0
        self._lost = ""
        self._held = False
        self._events: dict[int, Row] = {}
        self._rows: list[Row] = []
        self._columns: tuple[str, bool, str] | None = None
        self.animation_level = "none"  # each step would be bytes over a wire, and a wait for whoever types

    # --- what is on the screen ----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="head", markup=False)
        yield Static(id="diagnosis", markup=False)
        yield Tabs(*(Tab(f"{view.key} {name}", id=name) for name, view in VIEWS.items()), active=self._view.name)
        yield Input(placeholder="words that a row has to have", id="filter", select_on_focus=False)
        yield Static(id="count", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=False)
        yield Footer()

    def on_mount(self) -> None:
        self._tabs.can_focus = False
        self._table.focus()
        self._draw()
        self.set_interval(1.0, self._draw_state)
        for number in (signal.SIGTERM, signal.SIGHUP):
            # the terminal is left as it was, whoever ends this; not where a test runs it in a thread
            if threading.current_thread() is threading.main_thread():
                asyncio.get_running_loop().add_signal_handler(number, self.exit)
        threading.Thread(target=self._watch, name="stream", daemon=True).start()

    def on_unmount(self) -> None:
        self._stream.close()

    def _watch(self) -> None:
        """In a thread of its own: what it brings is looked at in the app's."""
        for kind, what in self._stream.messages():
            self.post_message(Came(kind, what))

    @property
    def _table(self) -> DataTable[Text]:
        return self.screen_stack[0].query_one(DataTable)

    @property
    def _tabs(self) -> Tabs:
        return self.screen_stack[0].query_one(Tabs)

    def _static(self, name: str) -> Static:
        return self.screen_stack[0].query_one(f"#{name}", Static)

    # --- what comes ---------------------------------------------------------------------------------------------------

    @on(Came)
    def _came(self, message: Came) -> None:
        if message.kind == "lost":
            self._lost = message.what
            self._draw_state()
            return
        if message.kind == "events":
            self._remember(message.what)
            return
        picture = message.what
        before = (self._picture or {}).get("collector") or {}
        if before.get("started") != (picture.get("collector") or {}).get("started"):
            self._events.clear()  # another run numbers its own from the beginning
        self._lost, self._at = "", time.monotonic()
        self._remember(picture.get("events"))
        if self._held:
            return
        self._picture = picture
        self._draw()

    def _remember(self, some: Row | None) -> None:
        for event in (some or {}).get("events") or []:
            if event.get("n") is not None:
                self._events[event["n"]] = event
        for number in sorted(self._events)[: max(0, len(self._events) - EVENTS)]:
            del self._events[number]

    @property
    def shown(self) -> Picture:
        """What is on the screen: the last picture, with all events that are kept."""
        return (self._picture or {}) | {"events": {"events": list(self._events.values())}}

    # --- drawing ------------------------------------------------------------------------------------------------------

    @property
    def _ending(self) -> bool:
        """What is on the screen has been taken down, and something still came."""
        return not self.screen_stack or not self.screen_stack[0].query(DataTable)

    def _draw(self) -> None:
        """All of it."""
        if self._ending:
            return
        picture = self._picture
        if picture is not None:
            picture = self.shown
            found = tables.findings(picture)
            colours = {"bad": "bold red", "warn": "yellow", "ok": "green"}
            lines = [Text(line, colours.get(state, "")) for state, line in found[:FINDINGS]]
            if len(found) > FINDINGS:
                lines.append(Text(f"... and {len(found) - FINDINGS} more"))
            self._static("head").update(Text("\n".join(tables.head(picture, self.size.width - 2))))
            self._static("diagnosis").update(Text("\n").join(lines))
            self._draw_table(picture)
        self._draw_state()
        for screen in self.screen_stack:
            if isinstance(screen, Detail) and screen.is_mounted and picture is not None:
                same = [flow for flow in picture.get("flows") or [] if flow.get("id") == screen.flow.get("id")]
                screen.show(same[0] if same else None)

    def _draw_state(self) -> None:
        """The first line: who, or that nothing comes from it."""
        if self._ending:
            return
        silence = time.monotonic() - self._at
        stale = self._picture is None or bool(self._lost) or silence > STALE_S
        if self._picture is None:
            line = self._lost or f"connecting to {self._address.url}"
        else:
            line = tables.title(self._picture)
            if self._lost:
                line = f"connection lost, last data {spelled.ago(silence)} | {self._lost}"
            elif stale:
                line = f"no data since {spelled.ago(silence).removesuffix(' ago')} | {line}"
            elif self._held:
                line = f"held, space goes on | {line}"
        self._static("title").update(Text(tables.clean(line), "bold reverse" if stale else "bold"))
        for widget in (self._static("head"), self._static("diagnosis"), self._static("count"), self._table):
            widget.set_class(stale and self._picture is not None, "stale")

    def _draw_table(self, picture: Picture) -> None:
        view, table = self._view, self._table
        sort, reverse = self._sorts[view.name]
        chosen = view.select(picture, sort, reverse, self._wanted)
        shown = [view.texts(row) for row in chosen[: self._limit]]
        titles = [self._title(column, sort, reverse) for column in view.columns]
        widths = [max(map(len, texts)) for texts in zip(titles, *shown, strict=True)]
        at, x, y = table.cursor_row, table.scroll_x, table.scroll_y
        under = _key(self._rows[at]) if at < len(self._rows) else None
        drawn = (view.name, reverse, sort)
        with self.batch_update():
            if drawn != self._columns or [c.width for c in table.ordered_columns] != widths:
                same_view = self._columns is not None and self._columns[0] == view.name
                table.clear(columns=True)
                for column, text, width in zip(view.columns, titles, widths, strict=True):
                    table.add_column(
                        Text(text, justify="right" if column.right else "left"), width=width, key=column.name
                    )
                x = x if same_view else 0
                y, under = (y, under) if drawn == self._columns else (0, None)
                self._columns = drawn
            else:
                table.clear()
            for texts in shown:
                table.add_row(
                    *(
                        Text(text, justify="right" if column.right else "left", no_wrap=True)
                        for column, text in zip(view.columns, texts, strict=True)
                    )
                )
            self._rows = chosen[: self._limit]
            places = [at for at, row in enumerate(self._rows) if _key(row) == under]
            table.cursor_coordinate = Coordinate(places[0] if places else 0, 0)
            table.scroll_to(x, y, animate=False, force=True)
        total = len(chosen) + view.left_out(picture)
        count = f"{spelled.count(len(shown))} of {spelled.count(total)}" if len(shown) < total else spelled.count(total)
        wanted = f", with {self._wanted!r}" if self._wanted else ""
        self._static("count").update(Text(f"{view.name}: {view.says} ({count}{wanted})"))

    def _title(self, column: tables.Column, sort: str, reverse: bool) -> str:
        """The column that is sorted by has an arrow: down from the largest, up from the smallest."""
        if column.name != sort:
            return column.title
        return f"{column.title} {'▲' if column.right is reverse else '▼'}"

    # --- keys and clicks ----------------------------------------------------------------------------------------------

    def _again(self) -> None:
        if self._picture is not None:
            self._draw()

    def action_show(self, name: str) -> None:
        self._tabs.active = name

    def action_view(self, step: int) -> None:
        names = list(VIEWS)
        self._tabs.active = names[(names.index(self._view.name) + step) % len(names)]

    @on(Tabs.TabActivated)
    def _activated(self, message: Tabs.TabActivated) -> None:
        self._view = VIEWS[str(message.tab.id)]
        self._again()

    def action_sort(self, step: int) -> None:
        names = [column.name for column in self._view.columns]
        sort, _ = self._sorts[self._view.name]
        self._sorts[self._view.name] = (names[(names.index(sort) + step) % len(names)], False)
        self._again()

    def action_reverse(self) -> None:
        sort, reverse = self._sorts[self._view.name]
        self._sorts[self._view.name] = (sort, not reverse)
        self._again()

    @on(DataTable.HeaderSelected)
    def _clicked(self, message: DataTable.HeaderSelected) -> None:
        """A column's head sorts by it; once more, the other way."""
        sort, reverse = self._sorts[self._view.name]
        name = str(message.column_key.value)
        self._sorts[self._view.name] = (name, not reverse if name == sort else False)
        self._again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A slash in the filter is a slash."""
        return not (action == "filter" and (isinstance(self.focused, Input) or len(self.screen_stack) > 1))

    def action_filter(self) -> None:
        entry = self.query_one("#filter", Input)
        entry.display = True
        self.screen.set_focus(entry)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        self._wanted = message.value
        self._again()

    @on(Input.Submitted)
    def _entered(self) -> None:
        self.query_one("#filter", Input).display = bool(self._wanted)
        self.screen.set_focus(self._table)

    def action_clear(self) -> None:
        entry = self.query_one("#filter", Input)
        entry.value = ""
        entry.display = False
        self.screen.set_focus(self._table)

    def action_pause(self) -> None:
        """What is on the screen stays."""
        self._held = not self._held
        self._draw_state()

    @on(DataTable.RowSelected)
    def _chosen(self, message: DataTable.RowSelected) -> None:
        """enter: a flow's detail, also that of an event's flow."""
        row = self._rows[message.cursor_row] if message.cursor_row < len(self._rows) else {}
        wanted = row.get("id") if self._view.name == "flows" else row.get("flow_id")
        for flow in (self._picture or {}).get("flows") or []:
            if wanted is not None and flow.get("id") == wanted:
                self.push_screen(Detail(flow, self._address))
                return

    def action_keys(self) -> None:
        self.push_screen(Keys())

    def on_resize(self, _: events.Resize) -> None:
        self._again()


def _key(row: Row) -> tuple[Any, ...]:
    """What tells rows of a view apart: the cursor stays on the same one."""
    for name in ("id", "n", "outcome", "exporter"):
        if name in row:
            return (row[name],)
    names = ("switch_id", "queue_id", "egress_port_id", "from", "to", "source", "hw_id", "reason")
    return tuple(row.get(name) for name in names)


KEYS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("1 to 9, 0", tuple(view.key for view in VIEWS.values()), f"a table: {', '.join(VIEWS)}"),
    ("[ ]", ("left_square_bracket", "right_square_bracket"), "the table before, the next one"),
    ("< >", ("less_than_sign", "greater_than_sign"), "sort by the column before, by the next one; a click on a "
     "column's head sorts by it, another click the other way round"),
    ("r", ("r",), "the order the other way round"),
    ("/", ("slash",), "show only rows that have all words; enter goes back to the table"),
    ("esc", ("escape",), "show all rows again"),
    ("arrows, PgUp, PgDn", (), "move in the table, also to columns that have no room"),
    ("enter", (), "a flow in detail: its hops, its latency so far, its path changes; esc goes back"),
    ("space", ("space",), "hold the picture; again: go on"),
    ("?", ("question_mark",), "these keys"),
    ("q, Ctrl-C", ("q", "ctrl+c", "ctrl+q"), "end"),
)  # fmt: skip
"""What docs/top.md and ? say: keys as people call them, as textual does (none: the table's own), and what they do."""
