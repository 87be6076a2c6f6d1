"""A running collector, watched over HTTP: its pictures and events as they come, again after it went away."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

from . import spelled
from .errors import IntCollectorError, UsageError

API = 1
PORT = 8000
TIMEOUT_S = 5.0
"""For a connection, and for an answer's first bytes."""
SILENCE_S = 20.0
"""Without one byte for so long, a stream is dead: one that has nothing to say sends a comment every 15 s."""
AGAIN_S = 1.0
"""Between two tries."""
LARGEST = 1 << 26
"""Bytes of one message; no picture is that large."""

Message = tuple[str, Any]
"""("picture", the picture), ("events", new events), ("lost", why there is nothing now)."""

EVENTS = {"events": [{"n": float, "time": float, "what": [str]}]}
_QUANTILES = {"p50_s": [float], "p90_s": [float], "p99_s": [float]}
FLOW = {"hops": [{}], "recent": [float], "history": {"latency_s": [float]}, "changes": [{}]}
PICTURE = {
    "time": float,
    "collector": {"interfaces": [{}], "udp_ports": [int]},
    "network": {"links": [{}], "links_omitted": float},
    "flows": [FLOW],
    "switches": [_QUANTILES | {"recent": _QUANTILES}],
    "exporters": [{"lost": {}}],
    "events": EVENTS,
    "history": {"reports_per_s": [float], "events_per_s": [float]},
    **{name: [{}] for name in ("queues", "ports", "sources", "drops", "outcomes", "diagnosis")},
    **{f"{name}_omitted": float for name in ("flows", "switches", "queues", "ports", "sources", "drops")},
}
"""What those who show an answer rely on, of docs/api.md: objects, lists of so many of one thing, and numbers (float).
What is not here may be anything."""


class WatchError(IntCollectorError):
    """There is no collector to watch."""


class Address:
    """Where a collector is: URL, HOST:PORT, HOST or :PORT. Errors: UsageError."""

    def __init__(self, text: str) -> None:
        wrong = UsageError(f"{text!r} is no address of a collector: give HOST:PORT or http://HOST:PORT")
        try:
            parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname or ("127.0.0.1" if text.startswith(":") else ""), parts.port
        except ValueError:
            raise wrong from None
        # one written without brackets would be taken for a host and a port
        if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
            raise wrong
        self.secure = parts.scheme == "https"
        self.host, self.port = host, port or (443 if self.secure else PORT)
        self.path = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{self.path}"

    @property
    def is_here(self) -> bool:
        """On this machine: there is no wire to be thrifty with."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def connection(self) -> http.client.HTTPConnection:
        """A new one, not yet connected."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=TIMEOUT_S)


def _ask(connection: http.client.HTTPConnection, address: Address, path: str, headers: dict[str, str]) -> Any:
    """The answer, its body not yet read. Errors: WatchError, OSError, HTTPException."""
    connection.request("GET", address.path + path, headers={"User-Agent": "intcollector-top", **headers})
    answer = connection.getresponse()
    if answer.status != 200:
        said = answer.read(1 << 16)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            raise WatchError(f"{address.url} answered {answer.status}: {str(json.loads(said)['error'])!r}")
        raise WatchError(
            f"{address.url} answered {answer.status} for {path}: is that a collector's --prometheus address?"
        )
    return answer


def _why(address: Address, error: Exception) -> WatchError:
    """A sentence for what went wrong."""
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    return WatchError(
        f"cannot read from {address.url} ({reason}): is a collector running there? `intcollector run IFACE` starts one"
        "; if it listens elsewhere, say where: `intcollector top HOST:PORT`"
    )


def get(address: Address, path: str, shape: Any = None) -> Any:
    """What /api/v1 + path answers. shape: of it, as PICTURE. Errors: WatchError."""
    with contextlib.closing(address.connection()) as connection:
        try:
            body = _ask(connection, address, f"/api/v1{path}", {}).read(LARGEST)
            answer = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _why(address, error) from None
    if not _fits(answer, shape or {}):
        raise _no_answer(address, path)
    return answer


class Stream:
    """The messages of a collector's stream, in a thread of the caller's: messages() ends after close()."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._closed = threading.Event()
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """From any thread."""
        self._closed.set()
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def messages(self) -> Iterator[Message]:
        """As they come; a broken connection is made again, and told of as "lost" each time."""
        while not self._closed.is_set():
            try:
                yield from self.once()
                why = "the collector ended the stream"
            except WatchError as error:
                why = str(error)
            if not self._closed.is_set():
                yield "lost", why
                self._closed.wait(AGAIN_S)

    def once(self) -> Iterator[Message]:
        """As they come, until the connection ends. Errors: WatchError."""
        with contextlib.closing(self.address.connection()) as connection:
            try:
                connection.connect()
                self._socket = connection.sock
                # compressing is the collector's work: worth it only where there is a wire between
                headers = {"Accept": "text/event-stream"} | (
                    {} if self.address.is_here else {"Accept-Encoding": "gzip"}
                )
                answer = _ask(connection, self.address, "/api/v1/stream", headers)
                self._socket.settimeout(SILENCE_S)
                for name, data in _split(_unpacked(answer)):
                    message = json.loads(data)
                    _check(name, message, self.address)
                    yield name, message
            except (OSError, http.client.HTTPException, ValueError, zlib.error) as error:
                if self._closed.is_set():
                    return
                raise _why(self.address, error) from None


def _check(name: str, message: Any, address: Address) -> None:
    """Is it one that can be shown? Errors: WatchError."""
    if name == "picture":
        version = message.get("api") if isinstance(message, dict) else None
        if version != API:
            raise WatchError(
                f"{address.url} speaks version {version!r} of the API, this command version {API}: "
                "take the same release of both"
            )
        for member, shape in PICTURE.items():
            if not _fits(message.get(member), shape):
                raise _no_answer(address, f"/{member}")
    elif name == "events" and not _fits(message, EVENTS):
        raise _no_answer(address, "/events")


def _no_answer(address: Address, path: str) -> WatchError:
    return WatchError(
        f"what {address.url} says for /api/v1{path} is not as docs/api.md has it: is it a collector of this release?"
    )


def _fits(value: Any, shape: Any) -> bool:
    """Has it the shape? What is not known (None) has any, but an object in a list."""
    if value is None:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(value.get(name), one) for name, one in shape.items())
    if isinstance(shape, list):
        (item,) = shape
        if not isinstance(value, list):
            return False
        if isinstance(item, dict):
            return all(one is not None and _fits(one, item) for one in value)
        return item is not float or all(one is None or spelled.is_number(one) for one in value)
    return shape is not float or spelled.is_number(value)


def _unpacked(answer: Any) -> Iterator[bytes]:
    """The bytes of a body as they come."""
    unpack = zlib.decompressobj(31) if answer.headers.get("Content-Encoding") == "gzip" else None
    while piece := answer.read1(1 << 16):
        yield unpack.decompress(piece) if unpack else piece


def _split(pieces: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Server-sent events: each one's name and data."""
    name, size, rest = "", 0, b""
    data: list[bytes] = []
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LARGEST:
            raise ValueError("a message is too long")
        for line in lines:
            field, _, value = line.rstrip(b"\r").partition(b":")
            value = value.removeprefix(b" ")
            if not line.rstrip(b"\r"):
                if data:
                    yield name, b"\n".join(data)
                name, data, size = "", [], 0
            elif field == b"event":
                name = value.decode(errors="replace")
            elif field == b"data":
                size += len(value)
                if size > LARGEST:
                    raise ValueError("a message is too long")
                data.append(value)


def picture(address: Address) -> Any:
    """The first picture that has rates. Errors: WatchError."""
    first: Any = None
    for name, message in Stream(address).once():
        if name == "picture":
            if message.get("seconds") is not None or first is not None:
                return message
            first = message
    if first is None:
        raise WatchError(f"{address.url} sent no picture: is that a collector's --prometheus address?")
    return first
