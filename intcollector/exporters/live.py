"""What the page and the API show: a look at the maps now and then, and the events in between.

A thread looks once a second; less often where a look takes long, so that it costs at most a hundredth of a CPU while
nobody watches, and a tenth while somebody does. What comes of a look is spelled once, for all who watch.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import logging
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import diagnosis
from ..batch import Batch, State
from ..config import Config
from ..errors import IntCollectorError
from ..news import Feed
from ..picture import Around, Picture, Pictures
from ..series import Counts

log = logging.getLogger(__name__)

LOOK_S = 1.0
SHARE_WATCHED, SHARE = 0.1, 0.01
"""Of a CPU."""
WATCHED_S = 5.0
"""Who asked so recently still watches."""
SHOWN_EVENTS = 50
LATELY_S, REMEMBER_S = 60.0, 10.0
"""A diagnosis is of the last minute, about: what it compares with is remembered so often."""

PLACE = os.urandom(16).hex()
"""Stands for samples. Nobody outside knows it, so nothing else in a picture is that."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """A picture, and how it is sent. number: 1, 2, 3 ..."""

    number: int
    picture: Picture

    @functools.cached_property
    def body(self) -> bytes:
        """JSON, one line: as spelled(), with the samples of flows as they were spelled before."""
        flows = self.picture["flows"]
        whole = spelled(self.picture | {"flows": [one | {"recent": PLACE} for one in flows]}).decode()
        start, *others = whole.split(f'"{PLACE}"')
        texts = [one["recent"].text + other for one, other in zip(flows, others, strict=True)]
        return "".join([start, *texts]).encode()

    @functools.cached_property
    def message(self) -> bytes:
        """... as a message of the stream."""
        return b"event: picture\nid: %d\ndata: %s\n\n" % (self.number, self.body)

    @functools.cached_property
    def packed(self) -> bytes:
        """... compressed: packed()."""
        return packed(self.message)


def spelled(said: Any) -> bytes:
    """JSON, one line."""
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()


def packed(message: bytes) -> bytes:
    """A piece of a deflate stream that refers to nothing in front of it, so that all who listen get the same."""
    piece = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return piece.compress(message) + piece.flush(zlib.Z_FULL_FLUSH)


class Live:
    """state: reads the maps; whoever calls it elsewhere takes care that it is not called by two at a time. counts,
    around: what else there is to say; called by any thread. room: held while there is a copy of the maps."""

    def __init__(
        self,
        config: Config,
        state: Callable[[], State],
        counts: Callable[[], Mapping[str, Counts]],
        around: Callable[[], Around],
        room: threading.Lock,
    ) -> None:
        self._config = config
        self._state, self._counts, self._around, self._room = state, counts, around, room
        self._pictures = Pictures(time.monotonic())
        self.feed = Feed(config, self._pictures.path_before)
        self._started, self._started_s = time.time(), time.monotonic()
        self._seen: collections.deque[tuple[float, diagnosis.Seen]] = collections.deque()
        self._shot: Shot | None = None
        self._looked_at, self._cost_s, self._asked_at = -1e9, 0.0, -1e9
        self._looking = threading.Lock()
        self._wake, self._ended = threading.Event(), False
        self._listeners: list[Callable[[Shot], None]] = []
        self._thread = threading.Thread(target=self._work, name="look", daemon=True)
        self._thread.start()

    # the control loop

    def write(self, batch: Batch) -> None:
        """Take note of what is news; costs little, however much comes."""
        self._pictures.heard(batch, self._config)
        self.feed.take(batch)

    def apply(self, config: Config) -> None:
        """What is shown next is shown by this config."""
        self._config = config
        self.feed.apply(config)

    def close(self, timeout_s: float) -> None:
        """No look after this."""
        self._ended = True
        self._wake.set()
        with self._looking:
            pass
        self._thread.join(timeout_s)

    # who watches

    def listen(self, listener: Callable[[Shot], None]) -> None:
        """Have it called with every picture, by another thread, until unlisten()."""
        self._listeners.append(listener)
        self._asked_at = time.monotonic()
        self._wake.set()

    def unlisten(self, listener: Callable[[Shot], None]) -> None:
        self._listeners.remove(listener)

    def fresh(self) -> Shot:
        """The last picture, or a new one if it is old. Errors: IntCollectorError, when the maps cannot be read."""
        self._asked_at = time.monotonic()
        with self._looking:
            if self._shot is None or time.monotonic() >= self._next_s(SHARE_WATCHED):
                return self._look()
            return self._shot

    def flow(self, flow_id: str) -> dict[str, Any] | None:
        """One flow of the last picture, with what is remembered of it."""
        shot = self.fresh()
        found = next((one for one in shot.picture["flows"] if one["id"] == flow_id), None)
        details = self._pictures.shown.details(flow_id)
        return None if found is None or details is None else found | details

    # looking

    def _next_s(self, share: float) -> float:
        """When the next look is due."""
        return self._looked_at + max(LOOK_S, self._cost_s / share)

    def _work(self) -> None:
        due = time.monotonic() + LOOK_S  # the start has better things to do
        while not self._ended:
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            if self._ended:
                return
            watched = self._listeners or time.monotonic() < self._asked_at + WATCHED_S
            share = SHARE_WATCHED if watched else SHARE
            with self._looking:
                if time.monotonic() >= self._next_s(share) and not self._ended:
                    begin = time.thread_time()
                    try:
                        self._look()
                    except IntCollectorError as error:
                        log.debug("no look at the maps: %s", error)
                    self._cost_s = time.thread_time() - begin
                due = max(self._next_s(share), time.monotonic() + 0.05)

    def _look(self) -> Shot:
        """One look; with the lock."""
        begin = time.thread_time()
        self._looked_at = time.monotonic()
        around = dataclasses.replace(
            self._around(), version=_version(), host=socket.gethostname(), started=self._started
        )
        with self._room:
            state, read_ns = self._state(), time.monotonic_ns()
            picture = self._pictures.look(state, self._config, self._counts(), around, time.time(), read_ns / 1e9)
            picture["diagnosis"] = self._diagnosis(state, around, read_ns)
            del state
        picture["events"] = self.feed.after(0, SHOWN_EVENTS)
        shot = self._shot = Shot((self._shot.number if self._shot else 0) + 1, picture)
        listeners = list(self._listeners)
        if listeners:
            _ = shot.packed
        self._cost_s = time.thread_time() - begin
        for listener in listeners:
            listener(shot)
        return shot

    def _diagnosis(self, state: State, around: Around, read_ns: int) -> list[dict[str, Any]]:
        """What is wrong, by what came in the last LATELY_S."""
        now = read_ns / 1e9
        counts = self._counts()
        exporters = [diagnosis.Exporter(name, counts.get(name), said) for name, said in around.problems.items()]
        if around.relay is not None:
            said = around.relay
            seen = diagnosis.of_relay(
                self._config, seconds=now - self._started_s, exporters=exporters, not_ready=around.not_ready,
                events=said["events"], refused=sum(said["messages_refused"].values()), missed=said["messages_missed"],
                paused=said["paused"], lag=sum(said["lag_messages"].values()) if said["lag_messages"] else None,
            )  # fmt: skip
        else:
            seen = diagnosis.of_state(
                state, self._config, seconds=now - self._started_s, now_ns=read_ns, interfaces=around.interfaces,
                exporters=exporters, not_ready=around.not_ready,
            )  # fmt: skip
        while len(self._seen) > 1 and now - self._seen[1][0] >= LATELY_S:
            self._seen.popleft()
        before = self._seen[0][1] if self._seen and now - self._seen[0][0] >= LATELY_S - REMEMBER_S else None
        if not self._seen or now - self._seen[-1][0] >= REMEMBER_S:
            self._seen.append((now, seen.counts_only()))
        return [
            {"what": one.what, "state": one.state, "found": one.found, "advice": one.advice}
            for one in diagnosis.diagnose(seen, before)
        ]


@functools.cache
def _version() -> str:
    try:
        return version("intcollector")
    except PackageNotFoundError:
        return ""
