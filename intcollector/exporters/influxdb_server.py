"""An InfluxDB server as the options name it: where it is, what proves who we are, how it is asked, what it answers.

Versions 1, 2 and 3 differ in paths and headers, and in how they say which lines they refuse; what is written is the
same. Secrets come from files or the environment, and nothing that is said here to anybody holds one.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import email.utils
import gzip
import http.client
import io
import ipaddress
import json
import os
import re
import select
import socket
import ssl
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ..config import Config
from ..errors import UsageError

CONNECT_S, ANSWER_S = 3.0, 15.0
"""How long a connection, and an answer, may take."""
STALL_S, SEND_S = 15.0, 60.0
"""How long sending may stand still, and how long it may take: a link that loses packets is slow, and not broken."""
ANSWER_SIZE = 16 << 20
"""Bytes of an answer that are read: InfluxDB names every line that it cannot read."""
SAID_SIZE = 300
"""Characters of an answer that are told on."""
SECRET_SIZE = 1 << 16
SEND_SIZE = 64 << 10
"""Bytes that are sent in one go: TLS says only of all of them that they moved."""

STALLED = "it does not take what is sent"

TOKEN, PASSWORD = "INTCOLLECTOR_INFLUXDB_TOKEN", "INTCOLLECTOR_INFLUXDB_PASSWORD"
"""What secrets are called in the environment."""


class NoAnswer(Exception):
    """The server gave none. kind: of the trouble, the same for the same one; the text is for people."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Answer:
    """status: HTTP's. said: what is wrong, "" if nothing. body: as JSON, None if it is none. wait_s: what it asks us to
    wait. headers: by name in any case."""

    status: int
    said: str
    body: Any = None
    wait_s: float = 0.0
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def version(self) -> str:
        """What the server says its version is, "" if nothing."""
        said = self.headers.get("X-Influxdb-Version") or (self.body.get("version") if self._is_object else "")
        return str(said or "").removeprefix("v")

    @property
    def _is_object(self) -> bool:
        return isinstance(self.body, dict)

    @property
    def of_influxdb(self) -> bool:
        """It looks like InfluxDB's own, and not like that of something in front of it."""
        return "X-Influxdb-Version" in self.headers or (
            self._is_object and not {"error", "message"}.isdisjoint(self.body)
        )

    @property
    def stored(self) -> bool:
        """Every line is."""
        return self.status == 204 or (self.status == 200 and self.body == {})  # 200: the first of 3

    @property
    def too_large(self) -> bool:
        """The same in smaller pieces may do. InfluxDB 3 answers 500."""
        return self.status == 413 or (self.status == 500 and "max request size" in self.said)

    @property
    def partial(self) -> bool:
        """Those lines are stored that could be."""
        return "partial write" in self.text[:200]

    @property
    def dropped(self) -> int:
        """So many lines the server did not store, of a partial write of 1 and 2; which, it does not say."""
        found: list[str] = re.findall(r"dropped=(\d+)", self.text)
        return int(found[-1]) if found else 0

    @property
    def of_database(self) -> bool:
        """It refuses the database, and not lines: InfluxDB 3 has room for so many, and says so with 422; with 400 that
        it cannot be called so."""
        return re.search(r"\bdatabases\b|\bdatabase (or rp )?name|\bdb name", self.text) is not None

    @property
    def text(self) -> str:
        """All that it says is wrong."""
        return _wrong(self.body) if self._is_object else self.said

    def refused(self, lines: list[bytes]) -> set[int]:
        """Which lines it names as refused, by their place among those sent; a Python loop over what it names."""
        named: set[int] = set()
        text = self.text
        if "unable to parse '" in text:  # 1 and 2: by the line's text, with the reason behind it
            places: dict[str, list[int]] = {}
            for at, line in enumerate(lines):
                places.setdefault(line.decode(errors="replace").rstrip("\n"), []).append(at)
            for one in text.split("unable to parse '")[1:]:
                for end in re.finditer("': ", one):
                    named.update(places.get(one[: end.start()], ()))
        if self._is_object:  # 3, and 2 in the cloud: by its number, from 1
            data = self.body.get("data")
            entries = data if isinstance(data, list) else [data]
            numbers = [entry.get("line_number") for entry in entries if isinstance(entry, dict)]
            for number in (*numbers, self.body.get("line")):
                if isinstance(number, int) and 1 <= number <= len(lines):
                    named.add(number - 1)
        return named


def _wrong(body: Mapping[str, Any]) -> str:
    """What an answer in JSON says is wrong: 1 `error`, also in `results`; 2 `message`, `err`; 3 `error`, `data`."""
    results = body.get("results")
    if isinstance(results, list) and results and isinstance(results[0], dict):
        body = results[0]
    said = [str(body[key]) for key in ("error", "message", "err") if isinstance(body.get(key), str) and body[key]]
    data = body.get("data")
    for entry in (data if isinstance(data, list) else [data])[:1]:
        if isinstance(entry, dict) and entry.get("error_message"):
            said.append(f"line {entry.get('line_number')}: {entry['error_message']}")
    return ": ".join(dict.fromkeys(said))


# --- secrets ----------------------------------------------------------------------------------------------------------


class Secret:
    """A token or password, from the file that an option names, or else from the environment."""

    def __init__(self, option: str, file: str | None, variable: str, environment: Mapping[str, str]) -> None:
        """Errors: UsageError, which holds neither the secret nor the file's name: it may be the secret itself."""
        self.option, self._file = option, file
        self.where = f"the file of {option}" if file else f"the environment's {variable}"
        self.readable_by_others = self._lasts = False
        self.value = environment.get(variable, "").strip()
        if file:
            self.value = self._read(file)
        if self.value and (not self.value.isprintable() or (option.endswith("token") and not self.value.isascii())):
            raise UsageError(f"{self.where} must hold one line of plain characters, and nothing else")

    def _read(self, file: str) -> str:
        try:
            with open(file, "rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                content = stream.read(SECRET_SIZE)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no name of a file"
            hint = (
                "it takes the name of a file, not the secret itself, which every user of this machine could read there"
            )
            raise UsageError(f"{self.option}: the file cannot be read ({why}): {hint}") from None
        self._lasts = stat.S_ISREG(mode)  # a pipe is read once, and would be waited for
        self.readable_by_others = self._lasts and bool(mode & stat.S_IROTH)
        try:
            value = content.decode().strip()
        except UnicodeDecodeError:
            raise UsageError(f"{self.where} is not text") from None
        if not value:
            raise UsageError(f"{self.where} is empty")
        return value

    def again(self) -> bool:
        """Read the file again; whether it holds another one now. What cannot be read leaves it as it is."""
        if not self._file or not self._lasts or not os.path.isfile(self._file):
            return False
        try:
            now = Secret(self.option, self._file, "", {}).value
        except UsageError:
            return False
        before, self.value = self.value, now
        return now != before


# --- a connection -----------------------------------------------------------------------------------------------------


class _Reads(io.RawIOBase):
    """A socket's incoming side, as http.client wants it; all reads together end at the deadline. begun: what was read
    of it before."""

    def __init__(self, sock: socket.socket, begun: bytes, deadline: float) -> None:
        self._sock, self._begun, self._deadline = sock, begun, deadline

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._begun:
            size = min(len(buffer), len(self._begun))
            buffer[:size], self._begun = self._begun[:size], self._begun[size:]
            return size
        self._sock.settimeout(max(self._deadline - time.monotonic(), 0.001))
        return self._sock.recv_into(buffer)


class Connection:
    """HTTP/1.1 to one server, a request after the other, kept open in between. Every wait in it has an end.

    http.client reads the answers; what it has no word for is done here: a time limit for sending that is not the one
    for connecting, an answer that comes before everything is sent, something to do while the server is at work.
    """

    def __init__(self, host: str, port: int, context: Callable[[], ssl.SSLContext] | None) -> None:
        """context: for TLS, made when a connection is."""
        self._host, self._port, self._context = host, port, context
        self._sock: socket.socket | None = None

    def close(self) -> None:
        if self._sock:
            self._sock.close()
        self._sock = None

    def ask(
        self, head: bytes, body: bytes, method: str, timeout_s: float, meanwhile: Callable[[], None]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """head: request line and headers. meanwhile: called when everything is sent, and before the answer is waited
        for. Errors: OSError (TimeoutError, ssl.SSLError among them), http.client.HTTPException."""
        end = time.monotonic() + timeout_s
        if self._sock and _readable(self._sock):  # the server closed it meanwhile; what else it may be is of no use
            self.close()
        kept = self._sock is not None
        try:
            try:
                return self._exchange(head, body, method, end, meanwhile)
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, http.client.BadStatusLine):
                # A server may close a connection that was idle just as the request is under way.
                if not kept:
                    raise
            self.close()
            return self._exchange(head, body, method, end, meanwhile)
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def _exchange(
        self, head: bytes, body: bytes, method: str, end: float, meanwhile: Callable[[], None]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        sock = self._sock = self._sock or self._connect(end)
        begun = self._send(sock, head + body, end)
        if begun is None:
            meanwhile()
        reads = _Reads(sock, begun or b"", min(end, time.monotonic() + ANSWER_S))
        response = http.client.HTTPResponse(reads, method=method)  # type: ignore[arg-type]
        response.begin()
        content = response.read(ANSWER_SIZE)
        if response.length and len(content) < ANSWER_SIZE:
            raise http.client.IncompleteRead(content, response.length)
        if begun is not None or response.will_close or not response.isclosed():
            self.close()
        return response, content

    def _connect(self, end: float) -> socket.socket:
        def left() -> float:
            return max(min(CONNECT_S, end - time.monotonic()), 0.001)

        sock = socket.create_connection((self._host, self._port), left())
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                sock.settimeout(left())
                sock = self._context().wrap_socket(sock, server_hostname=self._host)
        except (OSError, UsageError):
            sock.close()
            raise
        return sock

    def _send(self, sock: socket.socket, data: bytes, end: float) -> bytes | None:
        """None: everything was sent. Otherwise the server answers before it has read all: what _begun() has of that."""
        now = time.monotonic()
        end, moved = min(end, now + SEND_S), now
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        sock.settimeout(0)
        view = memoryview(data)
        while view:
            left = min(end, moved + STALL_S) - time.monotonic()
            if left <= 0:
                raise TimeoutError(STALLED)
            ready = dict(poll.poll(left * 1000)).get(sock.fileno(), 0)
            # Read before more is sent: where sending fails, TLS 1.3 may read no more.
            if ready & ~select.POLLOUT and (begun := _begun(sock)) is not None:
                return begun
            if not ready & select.POLLOUT:
                continue
            try:
                view = view[sock.send(view[:SEND_SIZE]) :]
                moved = time.monotonic()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                if (begun := _begun(sock)) is not None:  # what came before the other side hung up
                    return begun
                raise
        return None


def _begun(sock: socket.socket) -> bytes | None:
    """What has come of an answer: its first byte, b"" if the other side hung up, None if nothing has. Reading tells:
    with TLS not all that comes is for us (session tickets). sock: does not block. Errors: OSError."""
    try:
        return sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


# --- a server ---------------------------------------------------------------------------------------------------------


class Server:
    """What Config says of an InfluxDB server, and a connection to it.

    version: 1, 2 or 3. shown: its address, for people. warnings: what is allowed, and not wise.
    """

    def __init__(self, config: Config, environment: Mapping[str, str] = os.environ) -> None:
        """Errors: UsageError, if options contradict each other, or a secret or certificate cannot be read."""
        url = urlsplit(config.influxdb or "")
        self.shown = f"{url.scheme}://{url.netloc}{url.path}"
        if not url.netloc.isascii():
            raise UsageError(f"--influxdb: write the name in {self.shown} in ASCII, as the DNS has it (xn--...)")
        token = Secret("--influxdb-token", config.influxdb_token, TOKEN, environment)
        password = Secret("--influxdb-password", config.influxdb_password, PASSWORD, environment)
        self.version = _version(config, token, password)
        self._secret = token if token.value else password
        self._user = config.influxdb_user
        self._gzip = config.influxdb_gzip
        self._ca = config.influxdb_ca
        self._tls: ssl.SSLContext | None = None
        self._secure = secure = url.scheme == "https"
        if secure:
            self._context()
        elif self._ca:
            raise UsageError("--influxdb-ca is for an https:// address")
        self._path = quote(url.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        self._host = url.netloc
        host = url.hostname or ""
        self._connection = Connection(host, url.port or (443 if secure else 80), self._context if secure else None)
        self.write_path = self._path + _write_path(self.version, config)
        self.warnings = []
        if self._secret.value and self._secret.readable_by_others:
            self.warnings.append(f"{self._secret.where} can be read by every user of this machine: chmod o= it")
        if self._secret.value and not secure and not _is_loopback(host):
            self.warnings.append(f"what proves who we are goes to {self.shown} unencrypted: use https://")
        if self.version == 3 and config.influxdb_schema == "intcollector":
            self.warnings.append(
                "InfluxDB 3 has a bound on tables, and the schema `intcollector` makes several for every flow: "
                "use the schema `tags`"
            )

    def write(
        self, lines: bytes, timeout_s: float, meanwhile: Callable[[], None] = lambda: None, path: str = ""
    ) -> Answer:
        """Lines to where the options say, or to another path. Errors: NoAnswer."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._gzip and lines:
            lines = gzip.compress(lines, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return self._ask("POST", path or self.write_path, timeout_s, lines, headers, meanwhile)

    def create_database(self, name: str, timeout_s: float) -> Answer:
        """InfluxDB 1: make it; one that exists stays as it is. Errors: NoAnswer."""
        name = name.replace("\\", "\\\\").replace('"', r"\"")
        body = urlencode({"q": f'CREATE DATABASE "{name}"'}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", f"{self._path}/query", timeout_s, body, headers)

    def try_to_write(self, timeout_s: float) -> Answer:
        """What it says to a write that cannot change anything: 2 and 3 say 400 to that where they would let us write, 1
        says 204. Errors: NoAnswer."""
        if self.version < 3:
            return self.write(b"", timeout_s)
        # Lines, even none, may make a database: a unit of time that there is none stands in their way.
        return self.write(b"", timeout_s, path=self.write_path.replace("precision=nanosecond", "precision=none"))

    def get(self, path: str, timeout_s: float) -> Answer:
        """Errors: NoAnswer."""
        return self._ask("GET", self._path + path, timeout_s)

    def read_secret_again(self) -> bool:
        """Whether there is another one now."""
        return self._secret.again()

    @property
    def unknown(self) -> str:
        """What to say when the server does not know us."""
        if self.version == 1:
            if self._user:
                return f"it does not accept user {self._user} with the password from {self._secret.where}"
            return "it asks for a user: --influxdb-user NAME, --influxdb-password FILE"
        if self._secret.value:
            return f"it does not accept the token from {self._secret.where}"
        return "it asks for a token: --influxdb-token FILE"

    def close(self) -> None:
        self._connection.close()

    def hidden(self, text: str) -> str:
        """The text without the secret, should somebody have put it there."""
        secret = self._secret.value
        for form in (secret, self._basic(), quote(secret, safe="")):
            if form:
                text = text.replace(form, "***")
        return text

    def _basic(self) -> str:
        return base64.b64encode(f"{self._user}:{self._secret.value}".encode()).decode() if self._user else ""

    def _context(self) -> ssl.SSLContext:
        """Certificates are always verified, and the name in them."""
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca)
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"--influxdb-ca: no certificates could be read from {self._ca} "
                    f"({getattr(error, 'strerror', None) or error}): it takes a file in PEM format"
                ) from None
        return self._tls

    def _ask(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: bytes = b"",
        more: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Answer:
        headers = {"Host": self._host, "User-Agent": "intcollector", "Accept": "application/json", **(more or {})}
        if method == "POST":
            headers["Content-Length"] = str(len(body))
        if self._user:
            headers["Authorization"] = f"Basic {self._basic()}"
        elif self._secret.value:
            headers["Authorization"] = f"{'Bearer' if self.version == 3 else 'Token'} {self._secret.value}"
        head = "".join([f"{method} {path or '/'} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in headers.items()), "\r\n"])
        try:
            response, content = self._connection.ask(head.encode(), body, method, timeout_s, meanwhile)
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from None
        except UsageError as error:  # of certificates that were read again
            raise NoAnswer("certificates", str(error)) from None
        return self._answer(response, content)

    def _no_answer(self, error: OSError | http.client.HTTPException) -> NoAnswer:
        kind, hint = type(error).__name__, ""
        if isinstance(error, ssl.SSLCertVerificationError):
            self._tls = None  # the file may be another one by the next try
            why = error.verify_message.rstrip(".")
            return NoAnswer(
                f"{kind} {why}",
                f"the certificate of {self.shown} is not accepted ({why}): --influxdb-ca FILE names whom to trust",
            )
        if isinstance(error, ssl.SSLError):
            why = (error.reason or str(error)).lower().replace("_", " ")
            hint = ": does it speak TLS? if not, its address begins with http://" if "version" in why else ""
            why = f"TLS: {why}"
        elif isinstance(error, TimeoutError):
            why = STALLED if str(error) == STALLED else "it does not answer in time"
        elif isinstance(error, http.client.RemoteDisconnected):
            why = "it hung up without an answer"
        elif isinstance(error, http.client.IncompleteRead):
            why = "its answer is cut"
        elif isinstance(error, http.client.HTTPException):
            why = "what answers does not speak HTTP"
            hint = "" if self._secure else ": if it speaks TLS, its address begins with https://"
        else:
            why = error.strerror or str(error) or kind
        return NoAnswer(kind, self.hidden(f"{self.shown} cannot be reached ({why}){hint}"))

    def _answer(self, response: http.client.HTTPResponse, content: bytes) -> Answer:
        text = content.decode(errors="replace").strip()
        try:
            body = json.loads(text) if text else None
        except (ValueError, RecursionError):  # no JSON, or too deep
            body = None
        if isinstance(body, dict):
            said = _wrong(body)
        else:
            said = text or response.headers.get("X-Influxdb-Error", "")
        location = response.headers.get("Location")
        if 300 <= response.status < 400 and location:
            said = f"it points to {location}"
        said = self.hidden(" ".join(said.split()))
        said = said if len(said) <= SAID_SIZE else said[:SAID_SIZE] + " ..."
        wait_s = retry_after(response.headers.get("Retry-After", ""))
        return Answer(response.status, said, body, wait_s, response.headers)  # type: ignore[arg-type]


def retry_after(text: str) -> float:
    """Seconds of a Retry-After: so many, or until a date; 0 for anything else."""
    text = text.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        then = email.utils.parsedate_to_datetime(text)
        if then.tzinfo is None:
            then = then.replace(tzinfo=datetime.timezone.utc)
        return max(0.0, then.timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):  # no date, or one of no year that there is
        return 0.0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _write_path(version: int, config: Config) -> str:
    if version == 1:
        return f"/write?{urlencode({'db': config.influxdb_database, 'precision': 'ns'})}"
    if version == 2:
        where = {"org": config.influxdb_org, "bucket": config.influxdb_bucket, "precision": "ns"}
        return f"/api/v2/write?{urlencode(where)}"
    # Without accept_partial one line that is refused would be all; without no_sync, 204 means that it is on disk.
    where = {"db": config.influxdb_database, "precision": "nanosecond", "accept_partial": "true", "no_sync": "false"}
    return f"/api/v3/write_lp?{urlencode(where)}"


def _version(config: Config, token: Secret, password: Secret) -> int:
    """The version that the options mean. Errors: UsageError, if they contradict each other."""
    database = config.influxdb_database != Config.influxdb_database
    given = {
        "--influxdb-user": bool(config.influxdb_user),
        _named(password): bool(password.value),
        _named(token): bool(token.value),
        "--influxdb-org": bool(config.influxdb_org),
        "--influxdb-bucket": bool(config.influxdb_bucket),
        "--influxdb-database": database,
    }
    known = {
        1: {"--influxdb-user", _named(password), "--influxdb-database"},
        2: {_named(token), "--influxdb-org", "--influxdb-bucket"},
        3: {_named(token), "--influxdb-database"},
    }
    of_2 = given[_named(token)] or given["--influxdb-org"] or given["--influxdb-bucket"]
    version = (2 if of_2 else 1) if config.influxdb_version == "auto" else int(config.influxdb_version)
    chosen = ""
    if config.influxdb_version == "auto" and version == 2:
        by = next(name for name in (_named(token), "--influxdb-org", "--influxdb-bucket") if given[name])
        chosen = f" (chosen by {by}; if it is another, say --influxdb-version)"
    for name, is_given in given.items():
        if is_given and name not in known[version]:
            others = " and ".join(str(number) for number, names in known.items() if name in names)
            raise UsageError(f"{name} is for InfluxDB {others}, not for {version}{chosen}")
    if version == 2:
        missing = [name for name in ("--influxdb-org", "--influxdb-bucket") if not given[name]]
        if missing:
            raise UsageError(f"InfluxDB 2{chosen} needs {' and '.join(missing)}")
    if version == 1 and bool(config.influxdb_user) != bool(password.value):
        if config.influxdb_user:
            raise UsageError(f"--influxdb-user needs a password: --influxdb-password FILE, or {PASSWORD}")
        raise UsageError(f"{_named(password)} needs --influxdb-user NAME")
    if version == 3 and not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", config.influxdb_database):
        raise UsageError(
            "--influxdb-database: InfluxDB 3 takes letters, digits, underscores and hyphens of ASCII, and a letter or "
            f"digit first: not {config.influxdb_database!r}"
        )
    if config.influxdb_user and (":" in config.influxdb_user or not config.influxdb_user.isprintable()):
        raise UsageError("--influxdb-user: a name with a colon or an unprintable character cannot be sent")
    return version


def _named(secret: Secret) -> str:
    """What the user gave: the option, or the variable."""
    return secret.where if secret.where.startswith("the environment") else secret.option
