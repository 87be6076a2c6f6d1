"""A capture's packets onto an interface."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from . import capture, sending
from .errors import UsageError
from .sending import Sent, Tell, silently

_PART = 4096


def replay(
    path: str,
    interface: str,
    *,
    rate: float | None = None,
    loop: int = 1,
    tell: Tell = silently,
    reading: capture.Reading | None = None,
) -> Sent:
    """Send the packets of a capture, loop times over, rate a second (None: as fast as possible).

    tell: as of sending.send. reading: how far the file is read.
    Frames shorter than an Ethernet header cannot be sent: they count as dropped. Ctrl-C ends it early.
    Errors: CaptureError, AttachError, UsageError.
    """
    if loop < 1:
        raise UsageError(f"a loop of {loop} sends nothing: give 1 or more")
    if loop > 1 and path == "-":
        raise UsageError("standard input can be sent only once: save it to a file first")
    short = 0

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        nonlocal short
        for _ in range(loop):
            packets = capture.read(path, reading)
            while some := [frame for frame, _ in itertools.islice(packets, _PART)]:
                frames = [frame for frame in some if len(frame) >= 14]
                short += len(some) - len(frames)
                if not frames:
                    continue
                length = np.array([len(frame) for frame in frames])
                yield np.frombuffer(b"".join(frames), np.uint8), np.cumsum(length) - length, length

    result = sending.send_frames(parts(), interface, rate=rate, count=2**62, tell=tell)
    result.dropped += short
    return result
