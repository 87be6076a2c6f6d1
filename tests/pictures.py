"""The pictures of the page that the docs show.

    .venv/bin/python -m tests.pictures docs/pictures [--seconds S]

Needs root and what tests/test_page.py needs. A real collector in a namespace of its own gets the reports of a small
network (tests/scene.py) for S seconds, and a real browser looks at it; the reports are the same in every run.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pathlib
import re
import socket
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from intcollector import capture
from intcollector.lab import Lab
from intcollector.replay import replay
from intcollector.sending import send
from intcollector.traffic import Traffic

from . import browser
from .collectors import Collector, send_frames
from .scene import Scene, flows

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 90.0
HOST = "collector-1"
LONGEST_MS = 30_000
THRESHOLDS = (
    "--hop-latency-threshold", "2000", "--flow-latency-threshold", "2500", "--queue-occupancy-threshold", "200",
    "--tx-utilization-threshold", "350",
)  # fmt: skip
"""So that events are what one would look at."""


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def smaller(path: pathlib.Path) -> None:
    """The same PNG, compressed as well as it can be: browsers are in a hurry."""
    png = path.read_bytes()
    pixels = zlib.decompress(b"".join(data for kind, data in _chunks(png) if kind == b"IDAT"))
    best = zlib.compress(pixels, 9)
    kept = [(kind, data) for kind, data in _chunks(png) if kind == b"IHDR"] + [(b"IDAT", best), (b"IEND", b"")]
    made = png[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in kept
    )
    if len(made) < len(png):
        path.write_bytes(made)


def lively(pair: Lab, chromium: Browser, folder: pathlib.Path, seconds: float) -> None:
    """The network at work: light, dark, narrow, and a flow whose path changed."""
    from playwright.sync_api import expect

    near, far = pair.names
    scene = Scene(flows(), lively=True)
    frames = list(scene.play(seconds))
    with tempfile.TemporaryDirectory() as scratch, Collector(near, "--keepalive", "0", *THRESHOLDS) as collector:
        path = str(pathlib.Path(scratch) / "scene.pcap")
        capture.write(path, [(frame, 0) for frame in frames])

        def play() -> None:
            with pair.inside(1):
                replay(path, far, rate=len(frames) / seconds)

        playing = threading.Thread(target=play)
        playing.start()
        try:
            with browser.window(chromium, collector.url, browser.TALL, color_scheme="light") as window:
                page = window.open()
                page.wait_for_timeout(1000 * (seconds - 36))
                full = page.locator("#links-table tbody tr", has_text="31 › 41").locator(".c-latency")
                expect(full).to_have_text(re.compile(r"^[4-9]\.\d µs$"), timeout=LONGEST_MS)  # while the queue is full
                window.picture(folder / "page-light.png")
            with browser.window(chromium, collector.url, browser.TALL, color_scheme="dark") as window:
                _changed_flow(window)
                window.picture(folder / "page-dark.png")
            with browser.window(chromium, collector.url, browser.TALL, color_scheme="light") as window:
                page = _changed_flow(window)
                network, detail = (page.locator(name).bounding_box() for name in ("#network", "#detail"))
                assert network and detail
                height = max(network["height"], detail["height"]) + 16
                clip = {"x": 16, "y": network["y"] - 8, "width": browser.TALL[0] - 32, "height": height}
                page.screenshot(path=str(folder / "path-change.png"), clip=clip)  # type: ignore[arg-type]
            with browser.window(chromium, collector.url, browser.PHONE, color_scheme="light") as window:
                page = window.open()
                page.wait_for_timeout(2500)
                window.picture(folder / "page-narrow.png")
        finally:
            playing.join()


def _changed_flow(window: browser.Window) -> Page:
    """A flow whose path has changed is selected."""
    from playwright.sync_api import expect

    page = window.open()
    page.locator("#flows-table tbody tr", has=page.locator("mark")).first.click()
    expect(page.locator("#detail .change-after").first).to_be_visible(timeout=LONGEST_MS)
    page.mouse.move(0, 0)
    page.wait_for_timeout(2500)
    page.evaluate("() => { scrollTo(0, 0); document.querySelector('#flows-table .scroller').scrollTop = 0; }")
    page.wait_for_timeout(500)
    return page


def nothing(pair: Lab, chromium: Browser, folder: pathlib.Path) -> None:
    """No report, and 214 UDP packets to another port."""
    from playwright.sync_api import expect

    with Collector(pair.names[0]) as collector, tempfile.TemporaryDirectory() as scratch:
        frame = bytearray(Scene(flows()).frame(flows()[0]))
        frame[36:38] = (54322).to_bytes(2, "big")
        send_frames(pair, pathlib.Path(scratch), *[bytes(frame)] * 214)
        collector.wait_packets(214)
        with browser.window(chromium, collector.url, browser.SHORT, color_scheme="light") as window:
            page = window.open()
            expect(page.locator(".finding code").first).to_be_visible(timeout=LONGEST_MS)
            window.picture(folder / "page-nothing.png")


def malformed(pair: Lab, chromium: Browser, folder: pathlib.Path) -> None:
    """Reports of an exporter that lays them out in another way."""
    from playwright.sync_api import expect

    with Collector(pair.names[0], "--int-dscp", "23/63") as collector:
        with pair.inside(1) as far:
            send(Traffic(packets=1204, flows=20, hops=3, profile="onos", event_rate=0), far)
        collector.wait_packets(1204)
        with browser.window(chromium, collector.url, browser.SHORT, color_scheme="light") as window:
            page = window.open()
            expect(page.locator(".finding code").first).to_be_visible(timeout=LONGEST_MS)
            window.picture(folder / "page-malformed.png")


def call_this_machine(name: str) -> None:
    """What this process and those it starts take for the name of the machine: nobody else's business."""
    CLONE_NEWUTS = 0x04000000
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "cannot have a host name of one's own: are you root?")
    socket.sethostname(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the network is at work")
    given = parser.parse_args()
    if why := browser.missing():
        raise SystemExit(why)
    given.folder.mkdir(parents=True, exist_ok=True)
    call_this_machine(HOST)
    run = f"icp{os.getpid() % 100000}"
    # interfaces first: pyroute2 and playwright both want the thread's event loop
    with Lab(("eth1", "eth2"), (f"{run}-near", f"{run}-far")) as pair, pair.inside(0), browser.browser() as chromium:
        nothing(pair, chromium, given.folder)
        malformed(pair, chromium, given.folder)
        lively(pair, chromium, given.folder, given.seconds)
    for path in sorted(given.folder.glob("*.png")):
        smaller(path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
