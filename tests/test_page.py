"""The page in a real browser, beside real collectors: what was sent is what is seen."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from intcollector.lab import Lab
from intcollector.sending import send
from intcollector.traffic import Traffic

from . import browser, collectors
from .collectors import Collector, send_frames
from .needs import needs_root
from .scene import REPORTS_TO, Flow, Scene, flows

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

WEB = pathlib.Path(__file__).resolve().parent.parent / "intcollector" / "web"
ROUNDS = 5
HTML = "<img src=x onerror=alert(1)><b>full</b>"
LONGEST_MS = 30_000

ROWS = """selector => [...document.querySelectorAll(`${selector} tbody tr:not(.spacer)`)]
    .map(row => [...row.cells].map(cell => cell.innerText.trim()))"""
DRAWN = """() => {
  const cy = document.querySelector("#graph")._cyreg.cy;
  return {
    nodes: Object.fromEntries(cy.nodes().map(n => [n.data("name"), n.renderedPosition()])),
    links: cy.edges().map(e => [e.data("from"), e.data("to"), e.data("colour"), e.data("width")]),
    hot: cy.elements(".hot").map(e => e.isNode() ? e.data("name") : `${e.data("from")}>${e.data("to")}`),
  };
}"""
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = text => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v, i) => i < 3 ? v : v / 255);
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(".unseen, .skip, script, noscript")) continue;
    const below = behind(element);
    const [a, b] = [light(over(rgba(getComputedStyle(element).color), below)), light(below)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 40), element.className]);
  }
  return found;
}"""
"""Of every text that is visible: its contrast with what is behind it (WCAG), its beginning, its element's class."""


# --- where ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Place:
    """A pair of interfaces whose near end is in the browser's namespace."""

    pair: Lab
    chromium: Browser
    folder: pathlib.Path
    pictures: pathlib.Path

    def send(self, *packets: bytes) -> None:
        send_frames(self.pair, self.folder, *packets)

    def run(self, *arguments: str) -> Collector:
        """A collector at this end."""
        return Collector(self.pair.names[0], *arguments, namespace=self.pair.namespaces[0])

    @contextlib.contextmanager
    def window(
        self, collector: Collector, size: tuple[int, int] = browser.WIDE, **more: Any
    ) -> Iterator[browser.Window]:
        more.setdefault("color_scheme", "light")
        with browser.window(self.chromium, collector.url, size, **more) as window:
            yield window

    def shoot(self, window: browser.Window, name: str, whole: bool = False) -> None:
        window.picture(self.pictures / f"{name}.png", whole)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Place]]:
    """One browser for all, and two pairs. The namespace has no way out: whatever is loaded comes from the collector."""
    browser.need()
    from playwright.sync_api import expect

    expect.set_options(timeout=LONGEST_MS)
    folder = tmp_path_factory.mktemp("page")
    pictures = pathlib.Path(os.environ.get("INTCOLLECTOR_PICTURES") or folder / "pictures")
    # interfaces first: pyroute2 and playwright both want the thread's event loop
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(collectors.network())
        other = stack.enter_context(Lab((f"{pair.names[0]}x", f"{pair.names[1]}x"), pair.namespaces))
        chromium = stack.enter_context(browser.browser())
        routes = pathlib.Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
        assert routes == []
        first = Place(pair, chromium, folder, pictures)
        yield first, dataclasses.replace(first, pair=other)


@pytest.fixture(scope="module")
def place(places: tuple[Place, Place]) -> Place:
    """Where the collector is that tests share."""
    return places[0]


@pytest.fixture
def spare(places: tuple[Place, Place]) -> Place:
    """Where a test may have one of its own."""
    return places[1]


@dataclasses.dataclass
class Running:
    """A collector that has seen ROUNDS reports of every flow, and what a switch says of a packet it dropped."""

    collector: Collector
    scene: Scene


@pytest.fixture(scope="module")
def running(place: Place) -> Iterator[Running]:
    reasons = place.folder / "reasons.toml"
    reasons.write_text(f"7 = '{HTML}'\n")
    with place.run("--drop-reasons", str(reasons), "--keepalive", "0") as collector:
        scene = Scene(flows())
        sent = [frame for _ in range(ROUNDS) for frame in scene.round()]
        sent += [scene.dropped(scene.flows[1], 1, 7) for _ in range(3)]
        place.send(*sent)
        collector.wait_packets(len(sent), "ok")
        yield Running(collector, scene)


def expect(of: Locator) -> Any:
    from playwright.sync_api import expect as expect_

    return expect_(of)


def rows(page: Page, table: str) -> list[list[str]]:
    """Cells of a table's rows, as they are read."""
    found: list[list[str]] = page.evaluate(ROWS, table)
    return found


def us(seconds: float) -> str:
    """As the page writes a time from 1 to 9.9 us, or below."""
    return f"{seconds * 1e6:.1f} µs" if seconds >= 0.9995e-6 else f"{seconds * 1e9:.0f} ns"


def arrow(path: tuple[int, ...]) -> str:
    return " › ".join(map(str, path))


def row_of(page: Page, flow: Flow) -> Locator:
    return page.locator("#flows-table tbody tr", has_text=f"{flow.source_port} → {flow.destination_port}")


# --- what is shown ----------------------------------------------------------------------------------------------------


@needs_root
def test_shown_as_sent(place: Place, running: Running) -> None:
    """Switches, links, paths, latencies, sources and outcomes are those that were sent and those of /metrics."""
    scene, metrics = running.scene, running.collector.metrics()
    with place.window(running.collector) as window:
        page = window.open()
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator("#flows-count")).to_have_text("20")
        drawn = page.evaluate(DRAWN)
        assert set(drawn["nodes"]) == {str(switch) for flow in scene.flows for switch in flow.path}
        links = {link for flow in scene.flows for link in flow.links}
        assert {(a, b) for a, b, *_ in drawn["links"]} == links

        shown = {row[0].split("\n")[1]: row for row in rows(page, "#flows-table")}
        told = metrics.by("int_flow_latency_seconds", "source_port")
        for flow in scene.flows:
            row = shown[f"{'TCP' if flow.protocol == 6 else 'UDP'} {flow.source_port} → {flow.destination_port}"]
            assert row[0].startswith(f"{flow.source} → {flow.destination}")
            assert row[1] == arrow(flow.path)
            assert row[2] == us(sum(flow.latency_ns) / 1e9) == us(told[str(flow.source_port)])

        table = {row[0]: row for row in rows(page, "#links-table")}
        for a, b in links:
            on_it = [flow for flow in scene.flows if (a, b) in flow.links]
            mean = sum(flow.latency_ns[flow.path.index(a)] for flow in on_it) / len(on_it) / 1e9
            assert table[f"{a} › {b}"][1] == us(mean)
            assert table[f"{a} › {b}"][3] == str(len(on_it))
        slowest = max(drawn["links"], key=lambda link: float(_ns(table[f"{link[0]} › {link[1]}"][1])))
        assert slowest[0] == 32  # the slowest switch of the scene

        of_sources = {row[0]: row for row in rows(page, "#sources-table")}
        assert set(of_sources) == set(REPORTS_TO.values())
        reports = metrics.by("int_reports_total", "source")
        for address in of_sources:
            title = page.locator("#sources-table tr", has_text=address).locator(".c-rate").get_attribute("title")
            assert title == f"{int(reports[address])} since the start"
        assert page.locator("#outcomes-list .outcome-head").all_inner_texts()[0].split()[:2] == [
            "ok", str(metrics.outcomes()["ok"]),
        ]  # fmt: skip
        for switch, *_, p99 in rows(page, "#switches-table"):
            low, high = _range_ns(p99)
            latencies = [
                ns for flow in scene.flows for s, ns in zip(flow.path, flow.latency_ns, strict=True) if s == int(switch)
            ]
            assert low <= max(latencies) <= high
        place.shoot(window, "page-light", whole=True)


def _ns(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"ns": 1, "µs": 1e3, "ms": 1e6}[unit]


def _range_ns(text: str) -> tuple[float, float]:
    """Of a range as it is written, rounded as it is."""
    both, unit = text.split()
    low, high = (float(part) * {"ns": 1, "µs": 1e3}[unit] for part in both.split("–"))
    return low * 0.9, high * 1.1


@needs_root
def test_html_stays_text(place: Place, running: Running) -> None:
    """A name with HTML in it, out of a file or a packet, is shown as it is and is never part of the page."""
    with place.window(running.collector) as window:
        page = window.open()
        expect(page.locator("#drops-table tbody tr:not(.spacer)")).to_have_text(re.compile(re.escape(HTML)))
        assert page.locator("#drops-table img, #drops-table b").count() == 0
        assert page.locator("#drops-table td.c-packets").inner_text() == "3"


@needs_root
def test_path_change(place: Place, running: Running) -> None:
    """A flow that goes another way is seen to: before and after, in its row, its details, the graph and the events."""
    flow = running.scene.flows[0]
    other = dataclasses.replace(flow, path=(flow.path[0], 44 - flow.path[1], *flow.path[2:]))
    with place.window(running.collector) as window:
        page = window.open()
        expect(row_of(page, flow).locator(".path-now")).to_have_text(arrow(flow.path))
        running.scene.flows[0] = other
        try:
            place.send(running.scene.frame(other))
            row = row_of(page, flow)
            expect(row.locator(".path-now")).to_have_text(arrow(other.path))
            expect(row.locator("mark")).to_have_text(str(other.path[1]))
            expect(row.locator(".path-before")).to_have_text(f"was {arrow(flow.path)}")
            event = page.locator("#events-table tbody tr", has_text=f"{flow.source_port}").filter(has_text="path")
            expect(event.first).to_contain_text(" > ".join(map(str, other.path)))
            event.first.click()
            expect(page.locator("#detail-title")).to_have_text("Flow")
            expect(page.locator("#detail .flow-name")).to_contain_text(f"{flow.source}:{flow.source_port}")
            expect(page.locator("#detail .change-before").first).to_have_text(arrow(flow.path))
            expect(page.locator("#detail .change-after").first).to_have_text(arrow(other.path))
            expect(page.locator("#detail .hop-name")).to_have_text([f"switch {switch}" for switch in other.path])
            expect(page.locator("#detail .chart canvas")).to_be_visible()
            hot = set(page.evaluate(DRAWN)["hot"])
            assert hot == {str(s) for s in other.path} | {f"{a}>{b}" for a, b in other.links}
            place.shoot(window, "path-change")
        finally:
            running.scene.flows[0] = flow
            place.send(running.scene.frame(flow))
        expect(row_of(page, flow).locator(".path-now")).to_have_text(arrow(flow.path))


@needs_root
def test_selecting(place: Place, running: Running) -> None:
    """A switch or a link that is clicked leaves its flows, a filter those it matches; closing brings all back."""
    with place.window(running.collector) as window:
        page = window.open()
        expect(page.locator("#flows-count")).to_have_text("20")
        at = page.evaluate(DRAWN)["nodes"]["22"]
        page.locator("#graph").click(position=at)
        through = [flow for flow in running.scene.flows if 22 in flow.path]
        expect(page.locator("#flows-count")).to_have_text(f"{len(through)} of 20")
        assert {row[1] for row in rows(page, "#flows-table")} == {arrow(flow.path) for flow in through}
        expect(page.locator("#detail-title")).to_have_text("Switch 22")
        expect(page.locator("#selection")).to_contain_text("only flows through switch 22")
        page.locator("#selection button").click()
        expect(page.locator("#flows-count")).to_have_text("20")
        page.locator("#links-table tbody tr", has_text="31 › 41").click()
        through = [flow for flow in running.scene.flows if (31, 41) in flow.links]
        expect(page.locator("#flows-count")).to_have_text(f"{len(through)} of 20")
        expect(page.locator("#detail-title")).to_have_text("31 › 41")
        page.locator("#detail-close").click()
        page.locator("#filter").fill("10.11. 5201")
        matching = [f for f in running.scene.flows if "10.11." in f.source and f.destination_port == 5201]
        expect(page.locator("#flows-count")).to_have_text(f"{len(matching)} of 20")
        page.locator("#filter").fill("no such flow")
        expect(page.locator("#flows-table .empty")).to_have_text("No flow matches.")


@needs_root
def test_events_come(place: Place, running: Running) -> None:
    """An event is there without asking; while paused none is added, and what came meanwhile follows."""
    flow = running.scene.flows[4]
    slow = dataclasses.replace(flow, latency_ns=(flow.latency_ns[0] + 7000, *flow.latency_ns[1:]))

    def send_as(one: Flow) -> None:
        running.scene.flows[4] = one
        place.send(running.scene.frame(one))

    with place.window(running.collector) as window:
        page = window.open()
        newest = page.locator("#events-table tbody tr:not(.spacer)").first
        send_as(slow)
        expect(newest).to_contain_text(f"{flow.source}:{flow.source_port}")
        expect(newest).to_contain_text(re.compile(r"7\.4\d us"))
        page.keyboard.press("p")
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        before = newest.inner_text()
        send_as(flow)
        expect(page.locator("#events-count")).to_contain_text("1 new")
        assert newest.inner_text() == before
        page.locator("#pause").click()
        expect(newest).not_to_contain_text(re.compile(r"7\.4\d us"))
        page.locator("#events-filter").fill("no such event")
        expect(page.locator("#events-table .empty")).to_have_text("No event matches.")


# --- how it is used ---------------------------------------------------------------------------------------------------


@needs_root
def test_keyboard(place: Place, running: Running) -> None:
    """All of it can be reached and used without a mouse, one sees where one is, and Esc leads back."""
    with place.window(running.collector) as window:
        page = window.open()
        expect(page.locator("#flows-count")).to_have_text("20")
        reached, visible = set(), True
        for _ in range(120):
            page.keyboard.press("Tab")
            name, outlined = page.evaluate(
                """() => {
                  const one = document.activeElement;
                  const table = one.closest("table")?.getAttribute("aria-label");
                  const name = one.matches("tr") ? `row of ${table}` : one.id || one.textContent.trim();
                  return [name, one === document.body || getComputedStyle(one).outlineStyle !== "none"];
                }"""
            )
            visible &= outlined
            if name in reached and name == "theme":
                break
            reached.add(name)
        assert visible, "the focus cannot be seen"
        assert {
            "theme", "keys-open", "graph", "tidy", "filter", "pause", "events-filter", "row of Flows",
            "row of Links between switches", "row of Time spent in each switch", "row of Fullest queues",
            "row of Hot ports", "row of Sources of reports",
        } <= reached  # fmt: skip

        page.keyboard.press("?")
        expect(page.locator("#keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#keys")).not_to_be_visible()
        page.keyboard.press("/")
        expect(page.locator("#filter")).to_be_focused()
        page.keyboard.type("10.13.")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("End")
        last = page.evaluate("document.activeElement.innerText")
        page.keyboard.press("Enter")
        expect(page.locator("#detail-title")).to_have_text("Flow")
        assert page.locator("#detail .flow-path").inner_text() in last
        page.keyboard.press("Escape")
        expect(page.locator("#detail-title")).to_have_text("Links")
        assert page.evaluate("document.activeElement.closest('#flows-table') !== null")

        page.locator("#graph").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#graph-live")).to_contain_text("switch 1")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#graph-live")).to_contain_text("switch 2")
        said = page.locator("#graph-live").inner_text().split(",")[0]
        page.keyboard.press("Enter")
        expect(page.locator("#detail-title")).to_have_text(said.replace("switch", "Switch"))
        page.keyboard.press("Escape")


@needs_root
def test_light_and_dark(place: Place, running: Running) -> None:
    """As the system says until one chooses; what was chosen stays; every text stands out from its ground in both."""

    def ground(page: Page) -> str:
        found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return found

    with place.window(running.collector, color_scheme="dark") as window:
        page = window.open()
        row_of(page, running.scene.flows[0]).click()
        expect(page.locator("#detail .hop-name")).to_have_count(4)
        dark = ground(page)
        assert _faint(page) == []
        place.shoot(window, "page-dark")
        page.locator("#theme").click()
        expect(page.locator("#theme-name")).to_have_text("light")
        light = ground(page)
        assert light != dark
        assert _faint(page) == []
        page.reload()
        expect(page.locator("#theme-name")).to_have_text("light")
        assert ground(page) == light
        page.keyboard.press("t")
        expect(page.locator("#theme-name")).to_have_text("dark")
        assert ground(page) == dark


def _faint(page: Page) -> list[list[Any]]:
    found: list[list[Any]] = page.evaluate(CONTRASTS)
    assert len(found) > 40
    return [one for one in found if one[0] < 4.5]


@needs_root
def test_narrow(place: Place, running: Running) -> None:
    """On a phone nothing is wider than the window, whatever is selected."""
    with place.window(running.collector, browser.NARROW, reduced_motion="reduce") as window:
        page = window.open()
        expect(page.locator("#flows-count")).to_have_text("20")
        assert window.overflow() == 0
        place.shoot(window, "page-narrow", whole=True)
        page.locator("#flows-table tbody tr:not(.spacer)").first.click()
        expect(page.locator("#detail-title")).to_be_in_viewport()
        assert window.overflow() == 0
        page.locator("#words summary").click()
        assert window.overflow() == 0


# --- when nothing is well ---------------------------------------------------------------------------------------------


@needs_root
def test_nothing_but_foreign_packets(spare: Place) -> None:
    """Without reports the page says so, and of other packets where they went to and what to type."""
    with spare.run() as collector, spare.window(collector) as window:
        page = window.open()
        expect(page.locator("#diagnosis-title")).to_have_text("No reports yet")
        expect(page.locator("#network")).not_to_be_visible()
        frame = bytearray(Scene(flows()).frame(flows()[0]))
        frame[36:38] = (54322).to_bytes(2, "big")
        spare.send(*[bytes(frame)] * 214)
        collector.wait_packets(214, "pass_port")
        finding = page.locator(".finding", has_text="54322")
        expect(finding.first).to_contain_text("214")
        expect(finding.locator("code", has_text="--port 54322").first).to_be_visible()
        assert window.overflow() == 0
        spare.shoot(window, "page-nothing")
        spare.send(Scene(flows()).frame(flows()[0]))
        expect(page.locator("#network")).to_be_visible()
        expect(page.locator("#flows-count")).to_have_text("1")


@needs_root
def test_malformed(spare: Place) -> None:
    """Reports of an exporter that deviates are named with their outcome, their sender and the option that helps."""
    with spare.run("--int-dscp", "23/63") as collector:
        with spare.pair.inside(1) as far:
            sent = send(Traffic(packets=1204, flows=20, hops=3, profile="onos", event_rate=0), far)
        assert sent.sent == 1204
        collector.wait_packets(1204)
        with spare.window(collector, color_scheme="light") as window:
            page = window.open()
            expect(page.locator("#diagnosis-title")).to_have_text("Packets come, but none can be read as a report")
            expect(page.locator(".finding", has_text="198.18.0.1").first).to_be_visible()
            code = page.locator(".finding code", has_text="--profile onos").first
            expect(code).to_be_visible()
            window.context.grant_permissions(["clipboard-read", "clipboard-write"])
            page.locator(".copyable", has_text="--profile onos").first.locator("button").click()
            assert page.evaluate("navigator.clipboard.readText()") == code.inner_text()
            (outcome,) = collector.metrics().outcomes()
            expect(page.locator("#outcomes-list .outcome.malformed code")).to_have_text(outcome)
            assert _faint(page) == []
            spare.shoot(window, "page-malformed")


@needs_root
def test_collector_goes_and_comes(spare: Place) -> None:
    """While the collector is away the page says for how long, and what is shown is not taken for new; it goes on by
    itself with the next one on that port."""
    with spare.run() as first, spare.window(first) as window:
        spare.send(*Scene(flows()).round())
        page = window.open()
        expect(page.locator("#flows-count")).to_have_text("20")
        window.may_fail = True
        assert first.end() == 0
        expect(page.locator("#connection")).to_have_text("connection lost")
        expect(page.locator("#stale")).to_contain_text(re.compile(r"last data \d+ s ago"))
        assert "stale" in page.evaluate("document.body.className")
        expect(page.locator("#flows-count")).to_have_text("20")
        with spare.run("--prometheus", first.url.removeprefix("http://")) as second:
            expect(page.locator("#connection")).to_have_text("live")
            expect(page.locator("#stale")).not_to_be_visible()
            expect(page.locator("#diagnosis-title")).to_have_text("No reports yet")
            spare.send(Scene(flows()[:3]).frame(flows()[0]))
            second.wait_packets(1, "ok")
            expect(page.locator("#flows-count")).to_have_text("1")


# --- what it is made of -----------------------------------------------------------------------------------------------


def test_vendored_files() -> None:
    """Libraries are the ones their README names, byte by byte, each with its licence, and no file is left unnamed."""
    folder = WEB / "vendor"
    named = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M))
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "README.md"}
    assert named == files
    assert {"cytoscape-LICENSE", "uPlot-LICENSE"} <= set(files)


def test_page_asks_only_its_server() -> None:
    """Nothing the page is written in names another host, and no markup is made of text."""
    for path in (p for p in WEB.iterdir() if p.suffix in (".html", ".js", ".css")):
        text = path.read_text()
        assert not re.search(r"""(?:src|href|url|fetch|import)\s*[=(]?\s*["'(`]\s*(?:https?:)?/""", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text), path.name
