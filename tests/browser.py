"""Chromium on the collector's page, in the network namespace of the test: it can reach nothing else."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

PROGRAM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--font-render-hinting=none",
)  # fmt: skip
WIDE, NARROW = (1440, 900), (360, 740)
"""Widths and heights of a window: a laptop's, a phone's."""
TALL, PHONE, SHORT = (1280, 1180), (360, 1240), (1280, 640)
"""The docs' pictures."""


def missing() -> str | None:
    """What is not there for these tests, in a sentence."""
    if not shutil.which(PROGRAM):
        return f"{PROGRAM} is missing: apt-get install --no-install-recommends chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is missing: pip install 'playwright>=1.45,<2'"
    return None


def need() -> None:
    """Skip where there is no browser; where CI=true, that is a failure."""
    why = missing()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser in this thread's namespace, with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=PROGRAM, args=list(ARGUMENTS), headless=True)
        try:
            yield chromium
        finally:
            chromium.close()


class Window:
    """A page with what it complained of. Every request has to go to the collector, and nothing may be an error."""

    def __init__(self, chromium: Browser, url: str, size: tuple[int, int] = WIDE, **more: Any) -> None:
        """more: of a browser context: color_scheme, reduced_motion ..."""
        self.url = url
        self.context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, locale="en-GB", timezone_id="UTC", **more
        )
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.may_fail = False
        """While the collector is away, what cannot be reached is no error."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (self.may_fail and "Failed to load" in message.text):
            self.said.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)

    def open(self) -> Page:
        """Returns when the first picture is shown."""
        self.page.goto(self.url + "/")
        self.page.wait_for_selector("body:not(.loading)")
        self.page.evaluate("document.fonts.ready")
        return self.page

    def overflow(self) -> int:
        """CSS pixels by which the page is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider

    def picture(self, path: pathlib.Path, whole: bool = False) -> None:
        """A screenshot of the window, or of the whole page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path), full_page=whole)

    def close(self) -> None:
        """What was shown has to be without complaint, and from the collector alone."""
        self.context.close()
        here = urlsplit(self.url)
        elsewhere = [url for url in self.requests if urlsplit(url)[:2] != here[:2] and not url.startswith("data:")]
        assert elsewhere == [], "the page asked others than the collector"
        assert self.said == [], "the browser's console has complaints"


@contextlib.contextmanager
def window(chromium: Browser, url: str, size: tuple[int, int] = WIDE, **more: Any) -> Iterator[Window]:
    """A Window, closed in the end."""
    opened = Window(chromium, url, size, **more)
    try:
        yield opened
    except BaseException:
        opened.context.close()
        raise
    opened.close()
