"""An HTTP server that fails as a test tells it to: what a real database does only on a bad day."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from .servers import DEADLINE_S, program


@dataclasses.dataclass
class Request:
    """What came. lines: of its body, unzipped if it was zipped."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def lines(self) -> list[str]:
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        return body.decode().splitlines()


class Talk:
    """A connection on which a request has begun: its headers are read, its body is not."""

    def __init__(self, sock: socket.socket, ended: threading.Event) -> None:
        self.sock, self.ended, self._rest = sock, ended, b""

    def head(self) -> Request | None:
        """None: the other side has nothing more to say."""
        while b"\r\n\r\n" not in self._rest:
            data = self.sock.recv(1 << 16)
            if not data:
                return None
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *headers = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.split(": ", 1) for line in headers)
        return Request(method, path, {name.lower(): value for name, value in pairs}, b"")

    def body(self, request: Request, most: int = 1 << 30) -> None:
        """Read the request's body, or so much of it."""
        size = min(int(request.headers.get("content-length", 0)), most)
        while len(self._rest) < size:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the body is cut")
            self._rest += data
        request.body, self._rest = self._rest[:size], self._rest[size:]

    def say(self, status: int, body: str | bytes = b"", **headers: str) -> None:
        """An answer; Retry_After becomes Retry-After."""
        data = body.encode() if isinstance(body, str) else body
        lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        if status != 204:
            lines.append(f"Content-Length: {len(data)}")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + data)

    def reset(self) -> None:
        """Hang up by a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def nothing(self) -> None:
        """Say nothing until the test ends."""
        self.ended.wait(DEADLINE_S)


Reply = Callable[[Talk, Request], object]
"""Answers a request whose body it has to read; the connection stays open unless it is closed."""


def say(status: int, body: Any = b"", **headers: str) -> Reply:
    """An answer to the whole request; what is neither text nor bytes is said as JSON."""

    def reply(talk: Talk, request: Request) -> None:
        talk.body(request)
        talk.say(status, body if isinstance(body, (str, bytes)) else json.dumps(body), **headers)

    return reply


def judge(verdict: Callable[[list[str]], tuple[int, Any]]) -> Reply:
    """An answer that depends on the lines: verdict gives the status, and what is said as JSON."""

    def reply(talk: Talk, request: Request) -> None:
        talk.body(request)
        status, said = verdict(request.lines)
        talk.say(status, b"" if status == 204 else json.dumps(said))

    return reply


@dataclasses.dataclass
class Faulty:
    """requests: those that were answered by a Reply, in their order. replies: the next ones; the last one stays."""

    port: int
    scheme: str
    replies: list[Reply]
    requests: list[Request] = dataclasses.field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def writes(self) -> list[Request]:
        """Requests that bring lines."""
        return [one for one in self.requests if "write" in one.path]

    def _next(self, request: Request) -> Reply:
        if request.path.endswith("/query"):  # CREATE DATABASE
            return say(200, {"results": [{"statement_id": 0}]})
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextlib.contextmanager
def faulty(*replies: Reply, tls: ssl.SSLContext | None = None) -> Iterator[Faulty]:
    """A server that gives those replies, one a request; the last one to all that follow."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # who does not read is soon noticed
        server = Faulty(listener.getsockname()[1], "https" if tls else "http", list(replies))
        threads: list[threading.Thread] = []
        open_now: set[socket.socket] = set()

        def talk(sock: socket.socket) -> None:
            with contextlib.suppress(OSError, ValueError), sock:
                if tls:
                    sock = tls.wrap_socket(sock, server_side=True)
                open_now.add(sock)
                with sock:
                    conversation = Talk(sock, ended)
                    while sock.fileno() >= 0 and (request := conversation.head()):
                        server.requests.append(request)
                        server._next(request)(conversation, request)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    server.connections += 1
                    threads.append(threading.Thread(target=talk, args=(sock,)))
                    threads[-1].start()

        listening = threading.Thread(target=listen)
        listening.start()
        try:
            yield server
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listening.join(DEADLINE_S)
            for sock in list(open_now):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(DEADLINE_S)


# --- certificates -----------------------------------------------------------------------------------------------------


class Authority:
    """Vouches for certificates, in files of a folder, by the command `openssl`."""

    def __init__(self, folder: pathlib.Path, name: str = "ca") -> None:
        self._folder, self._openssl = folder, program("openssl")
        self.file, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        self._run("req", "-x509", *self._new_key(self._key), "-out", self.file, "-days", "2", "-subj", f"/CN={name}")

    def certificate(self, name: str, *, of: str = "IP:127.0.0.1", days: int = 2) -> pathlib.Path:
        """A file with certificate and key. of: whose, as in subjectAltName; days: until it expires."""
        key, asked, file = (self._folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        also = self._folder / f"{name}.ext"
        also.write_text(f"subjectAltName={of}\n")
        self._run("req", "-new", *self._new_key(key), "-out", asked, "-subj", f"/CN={name}")
        self._run(
            "x509", "-req", "-in", asked, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial",
            "-days", str(days), "-extfile", also, "-out", file,
        )  # fmt: skip
        file.write_text(file.read_text() + key.read_text())
        return file

    def _new_key(self, file: pathlib.Path) -> Sequence[object]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file

    def _run(self, *arguments: object) -> None:
        done = subprocess.run(
            [self._openssl, *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        if done.returncode:
            pytest.fail(f"openssl {arguments[0]}: {done.stderr}")


def tls_of(certificate: pathlib.Path) -> ssl.SSLContext:
    """What a server with that certificate speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
