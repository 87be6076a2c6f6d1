"""top.py, tables.py, watching.py: a collector's picture in a terminal, and as text."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from intcollector import sending, spelled, tables, top, watching
from intcollector.errors import UsageError
from intcollector.lab import Lab
from intcollector.tables import VIEWS
from intcollector.top import Top
from intcollector.traffic import Traffic

from .collectors import DEADLINE_S, ROOT, Collector, intcollector, network
from .needs import needs_root
from .terminals import Terminal

URL = "http://127.0.0.1:8123"
REPORTS = 3000


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    """Two namespaces, of which the tests are in the near one."""
    with network() as made:
        yield made


def run(pair: Lab) -> Collector:
    return Collector(pair.names[0], "--int-dscp", "23/63", "--prometheus", URL.removeprefix("http://"))


def send(pair: Lab, path_changes: float = 0.01) -> None:
    """Reports of 30 flows over 3 hops, some lost on the way, some of changed paths."""
    traffic = Traffic(packets=REPORTS, flows=30, hops=3, loss=0.01, path_changes=path_changes)
    with pair.inside(1) as far:
        # "packet": no program is compiled for so few
        assert sending.send(traffic, far, rate=20_000, method="packet").dropped == 0


@pytest.fixture(scope="module")
def collector(pair: Lab) -> Iterator[Collector]:
    """It has seen reports and is idle."""
    with run(pair) as running:
        send(pair)
        address = watching.Address(URL)
        running.wait_until(lambda: len(watching.picture(address)["flows"]) == 30, "the flows are seen")
        send(pair, path_changes=0.3)
        metrics = running.wait(lambda m: m.sum("int_reports_total") > REPORTS, "more came")

        def rested() -> bool:
            seen = watching.picture(address)["collector"]
            return seen["packets"] == metrics.sum("int_packets_total") and seen["events_per_s"] == 0

        running.wait_until(rested, "the picture is of all of them")
        yield running


def lines_of(printed: str) -> list[list[str]]:
    """A table's cells."""
    return [re.split(r" {2,}", line.strip()) for line in printed.splitlines()]


# --- printed once -----------------------------------------------------------------------------------------------------


@needs_root
def test_once_is_what_the_metrics_say(collector: Collector) -> None:
    """--once prints, table by table, the numbers of /metrics."""
    metrics = collector.metrics()
    printed = intcollector("top", URL, "--once", "--limit", "100000")
    assert (printed.returncode, printed.stderr) == (0, "")
    above, *parts = printed.stdout.split("\n\n")
    shown = {part.partition(":")[0]: lines_of(part)[2:] for part in parts}
    heads = {part.partition(":")[0]: lines_of(part)[1] for part in parts}

    def column(view: str, title: str) -> list[str]:
        at = heads[view].index(title)
        return [line[at] for line in shown[view] if line[0][:3] != "..."]

    def count(text: str) -> int:
        return int(text.replace(",", ""))

    events, lost = int(metrics.sum("int_events_total")), int(metrics.sum("int_reports_lost_total"))
    assert re.search(rf"lost \S+/s \({lost}\)  malformed 0/s \(0\)  events {events:,} \(\+0 lost\)  flows 30\n", above)
    assert lost > 0
    outcomes = dict(zip(column("outcomes", "outcome"), map(count, column("outcomes", "packets")), strict=True))
    assert outcomes == {name: int(n) for name, n in metrics.by("int_packets_total", "outcome").items()}
    assert outcomes["ok"] > REPORTS
    sources = zip(column("sources", "source"), map(count, column("sources", "reports")), strict=True)
    assert dict(sources) == metrics.by("int_reports_total", "source")
    assert [count(text) for text in column("sources", "lost reports")] == [lost]
    switches = zip(column("switches", "switch_id"), map(count, column("switches", "hops")), strict=True)
    assert dict(switches) == metrics.by("int_hop_latency_seconds_count", "switch_id")
    labels = ("source", "source_port", "destination", "destination_port")
    latencies = {
        f"{source}:{source_port} > {destination}:{destination_port}": spelled.time(seconds)
        for (source, source_port, destination, destination_port), seconds in metrics.by(
            "int_flow_latency_seconds", *labels
        ).items()
    }
    assert dict(zip(column("flows", "flow"), column("flows", "latency"), strict=True)) == latencies
    assert len(latencies) == 30
    queues = {
        (switch, queue): int(value)
        for (switch, queue), value in metrics.by("int_queue_occupancy", "switch_id", "queue_id").items()
    }
    told = zip(column("queues", "switch_id"), column("queues", "queue_id"), column("queues", "occupancy"), strict=True)
    assert all(queues[switch, queue] == count(occupancy) for switch, queue, occupancy in told)


@needs_root
def test_once_of_one_table(collector: Collector) -> None:
    """--view prints one table with nothing above it, sorted and cut as asked; --json prints the whole picture."""
    picture = json.loads(intcollector("top", URL, "--once", "--json").stdout)
    reports = sorted(flow["reports"] for flow in picture["flows"])
    for more, wanted in (((), reports[::-1]), (("--reverse",), reports), (("--limit", "3"), reports[:-4:-1])):
        printed = intcollector("top", "127.0.0.1:8123", "--once", "--view", "flows", "--sort", "reports", *more)
        head, *lines = lines_of(printed.stdout)
        assert [int(line[head.index("reports") - len(head)].replace(",", "")) for line in lines] == wanted


def test_usage() -> None:
    """Without a terminal, with a table or a column that is not there, or where nobody listens, top says what to do."""
    for arguments, code, said in (
        ((), 2, "top needs a terminal: with --once it prints its tables once"),
        (("--json",), 2, "--json needs --once"),
        (("--view", "nothing"), 2, "there is no view nothing: give one of flows, switches, links,"),
        (("--sort", "nothing"), 2, "flows has no column nothing: it has flow, path, latency,"),
        (("--once", "--view", "ports", "--sort", "flows"), 2, "ports has no column flows: it has switch_id,"),
        (("--sort", "nothing", "--once", "--view", "flows"), 2, "flows has no column nothing"),
        (("ftp://x",), 2, "'ftp://x' is no address of a collector: give HOST:PORT or http://HOST:PORT"),
        (("127.0.0.1:1", "--once"), 1, "cannot read from http://127.0.0.1:1 (connection refused): is a collector"),
    ):  # fmt: skip
        ended = intcollector("top", *arguments)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert ended.stderr.startswith(f"intcollector: {said}"), ended.stderr
        assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("host", "http://host:8000"),
        ("host:1", "http://host:1"),
        (":81", "http://127.0.0.1:81"),
        ("[::1]:9", "http://[::1]:9"),
        ("https://host/int/", "https://host:443/int"),
        ("http://host", "http://host:8000"),
        *((text, None) for text in ("", "::1", "http://", "host:port", "host:99999", "a b", "host\x1b[1m")),
    ],
)
def test_addresses(text: str, url: str | None) -> None:
    """A collector's address is a URL, a host, a port or both; anything else is refused."""
    if url is None:
        with pytest.raises(UsageError, match="is no address of a collector"):
            watching.Address(text)
    else:
        assert watching.Address(text).url == url


def test_no_other_command_waits_for_the_libraries_of_this_one() -> None:
    """rich and textual are imported where something is drawn, and only there."""
    script = (
        "import sys\nfrom intcollector import cli\ntry:\n    cli.main(sys.argv[1:])\nexcept SystemExit:\n"
        "    assert not {'rich', 'textual', 'http'} & set(sys.modules), set(sys.modules)"
    )
    for arguments in (("run", "--help"), ("top", "--help"), ("generate", "-o", "/dev/null", "--packets", "10")):
        subprocess.run(
            [sys.executable, "-c", script, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=DEADLINE_S
        )


# --- the app ----------------------------------------------------------------------------------------------------------


def drive(
    script: Callable[[Top, Pilot[None]], Coroutine[Any, Any, None]],
    url: str = URL,
    size: tuple[int, int] = (80, 24),
    **more: Any,
) -> None:
    """Run the app without a terminal, with a script of what is typed and seen, once it has a picture."""

    async def main() -> None:
        app = Top(watching.Address(url), **more)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: line(app, "head"), "a picture is there")
            await script(app, pilot)
        assert not app.return_code

    asyncio.run(main())


async def until(pilot: Pilot[None], condition: Callable[[], object], what: str) -> None:
    """Returns when it is true; what comes from the collector is looked at meanwhile."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {DEADLINE_S} s"
        await asyncio.sleep(0.02)
        await pilot.pause()


def table(app: Top) -> DataTable[Any]:
    return app.screen_stack[0].query_one(DataTable)


def line(app: Top, name: str) -> str:
    return "".join(str(found.render()) for found in app.screen_stack[0].query(f"#{name}").results(Static))


def cells(app: Top) -> list[list[str]]:
    return [[str(cell) for cell in table(app).get_row_at(at)] for at in range(table(app).row_count)]


def titles(app: Top) -> list[str]:
    return [str(column.label) for column in table(app).ordered_columns]


@needs_root
def test_every_column_sorts(collector: Collector) -> None:
    """Each view has its key, each of its columns sorts its rows, by key and by click, both ways; what is not known is
    last."""

    async def script(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("space")  # it holds: nothing but these keys draws
        for view in VIEWS.values():
            await pilot.press(view.key)
            assert line(app, "count").startswith(f"{view.name}: ")
            rows = view.rows(app.shown) or []
            assert table(app).row_count == len(rows)
            for _ in view.columns:
                app.action_sort(1)
                (at,) = [at for at, title in enumerate(titles(app)) if title[-1] in "▼▲"]
                column = view.columns[at]
                down = titles(app)[at].endswith("▼")
                assert down is column.right
                texts = [text[at] for text in cells(app)]
                values = [column.value(row) for row in rows if column.value(row) is not None]
                expected = sorted(values, key=tables._order, reverse=down)
                assert texts[: len(values)] == [tables.clean(column.text(value)) for value in expected]
                assert set(texts[len(values) :]) <= {spelled.UNKNOWN}
                app.action_reverse()
                assert [text[at] for text in cells(app)][: len(values)] == texts[: len(values)][::-1]
                assert titles(app)[at][-1] == "▲▼"[not down]
        await pilot.press("1")
        await pilot.pause()
        columns = table(app).ordered_columns
        for at in range(3):
            x = sum(column.get_render_width(table(app)) for column in columns[:at]) + 2
            seen = []
            for _ in range(2):
                await pilot.click(DataTable, offset=(x, 0))
                seen.append(titles(app)[at][-1])
            assert seen == (["▼", "▲"] if VIEWS["flows"].columns[at].right else ["▲", "▼"])

    drive(script, size=(100, 30))


def test_order() -> None:
    """Numbers in words are ordered by size."""
    texts = ["10.10.0.1:80", "10.2.0.1:443", "10.2.0.1:80", "9.0.0.1:1", "fe80::1", "ok"]
    assert sorted(texts, key=tables._order) == [
        "9.0.0.1:1",
        "10.2.0.1:80",
        "10.2.0.1:443",
        *texts[:1],
        *texts[4:],
    ]
    assert sorted([[4, 3], [4], [4, None], [10], [4, 20]], key=tables._order) == [[4], [4, None], [4, 3], [4, 20], [10]]


@needs_root
def test_filter_and_detail(collector: Collector) -> None:
    """A filter leaves the rows that have all its words; enter shows a flow's hops, latency so far and path changes."""

    async def script(app: Top, pilot: Pilot[None]) -> None:
        changed = next(flow for flow in app.shown["flows"] if flow["path_changes"])
        await pilot.press(
            "slash", *str(changed["source_port"]), "space", *"udp" if changed["protocol"] == 17 else "tcp"
        )
        await until(pilot, lambda: table(app).row_count == 1, "one row is left")
        assert cells(app)[0][0] == tables.ends(changed)
        assert "(1, with " in line(app, "count")
        await pilot.press("slash")
        assert app.query_one(Input).value.endswith("/")
        await pilot.press("backspace", "enter", "enter")

        def detail() -> str:
            found = app.screen.query("#detail")
            return str(found.only_one(Static).render()) if found else ""

        await until(pilot, lambda: "path changes, the newest first:" in detail(), "its history is there")
        said = detail()
        assert f"path {tables.path(changed['path'])}\n" in said
        hops = [
            [*(str(hop[name]) for name in ("switch_id", "egress_port_id", "queue_id")), spelled.time(hop["latency_s"])]
            for hop in changed["hops"]
        ]
        assert [cell for cell in lines_of(said) if cell in hops] == hops
        assert len(hops) == 3
        last = lines_of(said[said.index("the newest first:") :])[1]
        assert last == [tables.path(changed["path_before"]), "->", tables.path(changed["path"])]
        assert "latency so far, " in said
        await pilot.press("escape")
        await pilot.press("escape")
        await until(pilot, lambda: table(app).row_count == 30, "all are back")
        await pilot.press("question_mark")
        await until(pilot, lambda: bool(app.screen.query("#keys")), "the keys are shown")
        await pilot.press("escape", "q")

    drive(script)


@needs_root
def test_resizing(collector: Collector) -> None:
    """It draws in any size, and what has room is drawn again when it grows."""

    async def script(app: Top, pilot: Pilot[None]) -> None:
        for columns, rows in ((20, 5), (200, 60), (1, 1), (80, 24)):
            await pilot.resize_terminal(columns, rows)
            await pilot.pause()
        assert "reports " in line(app, "head")

    drive(script)


@needs_root
def test_a_collector_that_goes_away() -> None:
    """When its collector ends, top says since when nothing comes and dims what is old; when one is there again, it
    shows that one's numbers."""
    with network() as pair, contextlib.ExitStack() as stack:

        def start() -> Collector:
            with pair.inside(0):
                return stack.enter_context(run(pair))

        async def script(app: Top, pilot: Pilot[None]) -> None:
            await until(pilot, lambda: table(app).row_count == 30, "its flows are there")
            assert not table(app).has_class("stale")
            assert first.end() == 0
            await until(pilot, lambda: line(app, "title").startswith("connection lost, last data "), "it is missed")
            assert "cannot read from http://127.0.0.1:8123" in line(app, "title")
            assert table(app).has_class("stale")
            assert table(app).row_count == 30  # the last there were
            await asyncio.to_thread(start)
            await until(pilot, lambda: not table(app).has_class("stale"), "it is back")
            await until(pilot, lambda: table(app).row_count == 0, "the new one has seen nothing")
            await asyncio.to_thread(send, pair)
            await until(pilot, lambda: table(app).row_count == 30, "the new one's flows are there")
            assert line(app, "title").startswith("intcollector ")

        first = start()
        send(pair)
        drive(script)


# --- what comes over the network is not trusted -----------------------------------------------------------------------

HOSTILE = "\x1b[2J\x9b31m[red]a[/red]\x1b]0;b\x07\r\n\u202e[@click=quit]c"


@contextlib.contextmanager
def server(picture: Any) -> Iterator[str]:
    """What no collector does: a stream with this picture, and it as the answer to everything else. Its address."""
    body = json.dumps(picture).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            if self.path.endswith("/stream"):
                self.wfile.write(b": hello\n\nevent: picture\ndata: " + body + b"\n\n")
                self.wfile.write(b"event: picture\r\ndata: " + body + b"\r\n\r\n")
                self.wfile.flush()
                ended.wait(DEADLINE_S)
            else:
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    ended = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}"
        finally:
            ended.set()
            made.shutdown()
            thread.join()


def spoiled(value: Any, by: Callable[[Any], Any]) -> Any:
    """A picture with all that is no list and no object replaced."""
    if isinstance(value, dict):
        return {name: spoiled(one, by) for name, one in value.items()}
    return [spoiled(one, by) for one in value] if isinstance(value, list) else by(value)


@pytest.fixture(scope="module")
def picture(collector: Collector) -> Any:
    return watching.picture(watching.Address(URL))


def shown_everywhere(url: str) -> tuple[str, list[str]]:
    """What is printed, and all that is on the screen in every view."""
    printed = intcollector("top", url, "--once", "--limit", "100000")
    assert printed.returncode == 0, printed.stderr
    screens: list[str] = []

    async def script(app: Top, pilot: Pilot[None]) -> None:
        for view in VIEWS.values():
            await pilot.press(view.key)
            app.action_sort(1)
            app.action_reverse()
            await pilot.pause()
            screens.append("\n".join(strip.text for strip in app.screen._compositor.render_strips()))
            if view.name in ("flows", "events"):
                await pilot.press("enter", "escape")
        assert app.is_running

    drive(script, url, size=(100, 30))
    return printed.stdout, screens


@needs_root
def test_names_do_nothing_to_the_terminal(picture: Any) -> None:
    """Control sequences and markup in what a collector says are shown as text."""
    hostile = spoiled(picture, lambda value: HOSTILE if isinstance(value, str) else value)
    with server(hostile) as url:
        printed, screens = shown_everywhere(url)
    for shown in (printed, *screens):
        assert all(character.isprintable() for character in shown.replace("\n", ""))
        assert "[red]a[/red]" in shown
    assert "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}31m[red]a[/red]" in printed


@needs_root
def test_what_is_not_known_is_not_shown(picture: Any) -> None:
    """Without any value, and without any member, every view still draws."""
    with server(spoiled(picture, lambda _: None) | {"api": 1}) as url:
        shown_everywhere(url)
    with server({"api": 1}) as url:
        printed = intcollector("top", url, "--once")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "flows -" in printed.stdout


ODD: tuple[Any, ...] = (
    5,
    -3,
    True,
    "x",
    [],
    {},
    [5],
    ["x"],
    [None],
    [[1]],
    [{}],
    {"a": 1},
    float("inf"),
    float("nan"),
    10**400,
)


def odd(value: Any) -> Iterator[Any]:
    """An answer with each of its parts in turn, of a list those of the first, made something else."""
    yield from ODD
    if isinstance(value, dict):
        yield from (value | {name: one} for name in value for one in odd(value[name]))
    elif isinstance(value, list) and value:
        yield from ([one, *value[1:]] for one in odd(value[0]))


def cut(value: Any) -> Any:
    """With two items in each list at most."""
    if isinstance(value, dict):
        return {name: cut(one) for name, one in value.items()}
    return [cut(one) for one in value[:2]] if isinstance(value, list) else value


@needs_root
def test_what_is_no_picture(picture: Any) -> None:
    """Whatever stands for a part of a picture, it is refused, or shown."""
    address = watching.Address(URL)
    small = cut(picture)
    small["flows"][0] |= {"history": {"latency_s": [1e-6]}, "changes": [{"before": [1], "after": [2]}]}
    refused = shown = 0
    for one in odd(small):
        try:
            watching._check("picture", one, address)
        except watching.WatchError:
            refused += 1
            continue
        tables.text(one, list(VIEWS), None, False, None)
        for view in VIEWS.values():
            for column in view.columns:
                assert all(top._key(row) for row in view.select(one, column.name))
        for flow in one.get("flows") or []:
            tables.details(flow, flow)
        shown += 1
    assert refused > 300 and shown > 300
    for one in odd({"events": [{"n": 1, "time": 1.0, "what": ["path"]}]}):
        with contextlib.suppress(watching.WatchError):
            watching._check("events", one, address)
            Top(address)._remember(one)


@needs_root
def test_another_programs_answer(picture: Any) -> None:
    """A stream with something else in it ends --once with a sentence; the app says it, too, and goes on asking."""
    with server(picture | {"flows": {"some": "thing"}}) as url:
        ended = intcollector("top", url, "--once")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert re.fullmatch(
            r"intcollector: what \S+ says for /api/v1/flows is not as docs/api.md has it: .*\n", ended.stderr
        )

        async def main() -> None:
            app = Top(watching.Address(url))
            async with app.run_test() as pilot:
                await until(pilot, lambda: "/api/v1/flows is not as" in line(app, "title"), "it is said")
            assert not app.return_code

        asyncio.run(main())


@needs_root
def test_letters_that_the_locale_lacks(collector: Collector) -> None:
    """Where bars cannot be spelled, --once prints the rest."""
    printed = intcollector("top", URL, "--once", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "flows 30" in printed.stdout and "?" in printed.stdout


@needs_root
def test_a_picture_at_the_end(collector: Collector, picture: Any) -> None:
    """What comes while the app is being taken down is not drawn."""

    async def script(app: Top, pilot: Pilot[None]) -> None:
        await app.screen_stack[0].query("*").remove()
        app.post_message(top.Came("picture", picture))
        app.post_message(top.Came("lost", "gone"))
        await pilot.pause()

    drive(script)


@pytest.mark.parametrize(
    ("answer", "said"),
    [({"api": 2}, "speaks version 2 of the API, this command version 1"), ([], "speaks version None of the API")],
)
def test_another_api(answer: Any, said: str) -> None:
    """A picture of another version is not shown: what it means is not known."""
    with server(answer) as url:
        ended = intcollector("top", url, "--once")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert said in ended.stderr


# --- in a terminal ----------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("end", ["q", "Ctrl-C", "SIGTERM"])
def test_in_a_terminal(collector: Collector, end: str) -> None:
    """In 80 columns and 24 lines it draws the counts, the diagnosis and the flows; however it ends, with exit code 0,
    the terminal is as it was."""
    with Terminal("top", URL, environment={"NO_COLOR": "1"} if end == "q" else None) as terminal:
        terminal.wait(lambda drawn: b"10.2.0.1:5001" in drawn and b"malformed" in drawn, "it draws")
        if end == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.type({"q": b"q", "Ctrl-C": b"\x03"}[end])
        assert terminal.end() == 0
    drawn = terminal.drawn
    assert terminal.settings_after == terminal.settings
    for on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?1000h", b"\x1b[?1000l"),
                    (b"\x1b[?1003h", b"\x1b[?1003l"), (b"\x1b[?2004h", b"\x1b[?2004l")):  # fmt: skip
        assert drawn.rfind(on) < drawn.rfind(off), on
    if end == "q":  # black, white and greys
        colours = {tuple(map(int, code.split(b";"))) for code in re.findall(rb"\x1b\[([\d;]+)m", drawn)}
        assert not [
            code for code in colours if {31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96} & set(code) and 38 not in code
        ]


# --- documentation ----------------------------------------------------------------------------------------------------


def test_keys_are_documented() -> None:
    """docs/top.md has the keys that ? shows, and they are the keys that are bound."""
    text = (ROOT / "docs" / "top.md").read_text()
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", text, re.MULTILINE)
    assert [row for row in rows if row[0] in {shown for shown, _, _ in top.KEYS}] == [
        (shown, does) for shown, _, does in top.KEYS
    ]
    bound = [key for binding in Top.BINDINGS if isinstance(binding, Binding) for key in binding.key.split(",")]
    assert sorted(bound) == sorted(key for _, keys, _ in top.KEYS for key in keys)
    assert {key for key in bound if len(key) == 1 and key.isdigit()} == {view.key for view in VIEWS.values()}


def test_help_has_all_views() -> None:
    """The help of --view names each table."""
    said = " ".join(intcollector("top", "--help").stdout.split())
    assert f"{', '.join(list(VIEWS)[:-1])} or {list(VIEWS)[-1]}" in said
