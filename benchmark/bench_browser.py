"""What the page costs a browser: Chromium's main thread, with 1,000 flows and 200 switches beside 10 flows.

    .venv/bin/python benchmark/bench_browser.py [--json] [--rounds N] [--seconds S] [--flows N]

Needs root, /usr/bin/chromium and playwright. A real collector on a veth pair, its reports by `intcollector generate`,
and headless Chromium without a GPU, which draws on the processor, in the collector's network namespace; both sizes in
turn. main thread: processor time of the page's main thread (/proc/PID/task/PID/stat), which reads the stream, runs the
scripts, lays out and paints. frames: the gaps between two animation frames, one in 16.7 ms at best; asking for each
frame is work too, which a page that nobody measures does not have, so that is done in a time of its own. Gaps
are also those of whatever else the two CPUs do: compare them with those of the page with 10 flows.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from bench_process import running
from common import Row, emit, network, parser, pinned, ratios, turns

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import browser  # noqa: E402 - the checkout's root is no folder of programs

HOPS = 13
"""The sink and 12 with 16 switches each: 193 switches, and those that path changes bring."""
REPORTS_PER_FLOW = 4
GAPS = """seconds => new Promise(resolve => {
  const gaps = [];
  let last = performance.now();
  const end = last + 1000 * seconds;
  requestAnimationFrame(function frame(now) {
    gaps.push(now - last);
    last = now;
    if (now < end) requestAnimationFrame(frame);
    else resolve(gaps.sort((a, b) => a - b));
  });
})"""


def main_thread_s(chromium: Any) -> float:
    """Processor time so far of the main threads of the browser's pages: of the one that is open, and idle ones."""
    found = chromium.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    ticks = 0
    for pid in (one["id"] for one in found if one["type"] == "renderer"):
        fields = pathlib.Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def watched(flows: int, seconds: float, chromium: Any, url: str) -> Row:
    """A page that shows so many flows, watched so long."""
    from playwright.sync_api import expect

    with browser.window(chromium, url) as window:
        page = window.open()
        expect(page.locator("#flows-count")).to_have_text(f"{flows:,}", timeout=30_000)
        page.wait_for_timeout(12_000)  # the graph is settled, and all code is warm
        session = window.context.new_cdp_session(page)
        session.send("Performance.enable")

        def totals() -> dict[str, float]:
            return {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}

        before, cpu, begin = totals(), main_thread_s(chromium), time.monotonic()
        page.wait_for_timeout(1000 * seconds)
        took, used, after = time.monotonic() - begin, main_thread_s(chromium) - cpu, totals()
        gaps = page.evaluate(GAPS, seconds)
        switches = page.evaluate("document.querySelector('.tile-flows .tile-small').textContent")
        return {
            "flows": flows,
            "switches": int(switches.split()[0]),
            "main thread": used / took,
            "script": (after["ScriptDuration"] - before["ScriptDuration"]) / took,
            "layout and style": sum(
                after[name] - before[name] for name in ("LayoutDuration", "RecalcStyleDuration")
            ) / took,
            "frames/s": len(gaps) / seconds,
            "gap p99 ms": gaps[len(gaps) * 99 // 100],
            "gap max ms": gaps[-1],
            "heap MB": after["JSHeapUsedSize"] / 1e6,
        }  # fmt: skip


def measured(flows: int, seconds: float) -> Row:
    """A collector, its traffic, and a browser that looks at it."""
    with network() as net, contextlib.ExitStack() as stack:
        process = stack.enter_context(running(net))
        command = [
            sys.executable, "-m", "intcollector", "generate", "-i", net.names[0], "--flows", str(flows),
            "--hops", str(HOPS), "--rate", str(flows * REPORTS_PER_FLOW), "--seconds", str(seconds + 60),
            "--event-rate", "0.02", "--path-changes", str(0.2 / (flows * REPORTS_PER_FLOW)),
        ]  # fmt: skip
        with net.inside(0), pinned(0):
            sender = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT)
        try:
            with net.inside(1), browser.browser() as chromium:
                return watched(flows, seconds, chromium, process.url.removesuffix("/metrics"))
        finally:
            sender.terminate()
            sender.wait()


def main() -> None:
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--seconds", type=float, default=20.0, help="how long a page is watched")
    arguments.add_argument("--flows", type=int, default=1000, help="flows of the larger page")
    given = arguments.parse_args()
    rows: list[Row] = []

    def busy(flows: int) -> float:
        rows.append(measured(flows, given.seconds))
        return float(rows[-1]["main thread"])

    spreads = turns(given.rounds, {"few": lambda: busy(10), "many": lambda: busy(given.flows)})
    ratio, many = ratios(spreads["many"], spreads["few"]), spreads["many"]
    emit(
        "browser",
        [
            {"what": f"main thread at {given.flows:,} flows, %", "value": many.median * 100},
            {"what": f"... over that at 10 flows, of which it has {given.flows // 10} times", "value": ratio.median},
            *rows,
        ],
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
