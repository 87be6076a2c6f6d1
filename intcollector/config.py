"""Config: one frozen dataclass; a field is a flag of `run`, a help line and what the program is set to.

Adding an option is adding a field here: cli.py makes the flag of it (`queue_occupancy_threshold` becomes
`--queue-occupancy-threshold`), with the help text and the parser that stand beside it.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .errors import UsageError

PROFILES = ("spec", "l2port4", "geant", "onos", "intcollector")


def option(default: Any, help: str, *, parse: Callable[[str], Any] = str, **more: Any) -> Any:
    """A field that is also a flag. more: choices, metavar, repeat (the flag may be given again), live (a running
    collector takes a new value on SIGHUP), decode (the option also matters to `decode`), const (a flag without
    value)."""
    metadata = {"help": help, "parse": parse, **more}
    return dataclasses.field(default=default, metadata=metadata)


def number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers, decimal or 0x, within [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            raise UsageError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise UsageError(f"{value} is not between {low} and {high}")
        return value

    return parse


def path(text: str) -> str:
    """The name of a file."""
    if not text:
        raise UsageError("an empty name is no file")
    return text


def real(text: str, low: float, high: float, what: str, within: str) -> float:
    """A number within [low, high]. what, within: how errors call it."""
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not {what}") from None
    if not low <= value <= high:
        raise UsageError(f"{text} is not {within}")
    return value


def seconds(text: str) -> float:
    """A time in seconds, 0 or more."""
    return real(text, 0, 1e9, "a number of seconds", "a time between 0 and 1e9 seconds")


def interval(text: str) -> float:
    """A time in seconds, more than 0."""
    value = seconds(text)
    if value < 0.01:
        raise UsageError(f"{text} is less than 0.01 seconds")
    return value


def dscp(text: str) -> tuple[int, int]:
    """`V` or `V/M`: DSCP value and mask, 6 bits each."""
    value, slash, mask = text.partition("/")
    six_bits = number(0, 63)
    pair = (six_bits(value), six_bits(mask) if slash else 63)
    if pair[0] & ~pair[1]:
        raise UsageError(f"no DSCP can match {text!r}: the value has bits outside the mask")
    return pair


def domain_words(text: str) -> tuple[int, int]:
    """`DOMAIN:N`: a domain specific id and the words that only the source adds."""
    domain, colon, words = text.partition(":")
    if not colon:
        raise UsageError(f"{text!r} is not DOMAIN:N")
    return number(1, 65535)(domain), number(0, 255)(words)


def address(text: str) -> tuple[str, int] | None:
    """`[HOST:]PORT` or `off`; an IPv6 host in brackets."""
    if text == "off":
        return None
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    return host, number(0, 65535)(port)


def http_url(text: str) -> str:
    """The address of an HTTP server."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        right = False
    if not right:
        raise UsageError(f"{text!r} is not an http:// or https:// address")
    if parts.username or parts.password:
        raise UsageError("an InfluxDB address must not hold a password: other users of this machine can read it")
    return parts.geturl().rstrip("/")


@dataclasses.dataclass(frozen=True)
class Config:
    """How a collector is set. Every field is an option of `run` with the name's underscores as hyphens."""

    # what is a report, and how it is laid out
    port: tuple[int, ...] = option(
        (54321,), "UDP destination port of reports; again for more", parse=number(1, 65535), repeat=True, decode=True
    )
    int_dscp: tuple[int, int] | None = option(
        None,
        "DSCP that marks packets with INT; without it the shim must be plausible",
        parse=dscp,
        metavar="V[/M]",
        decode=True,
    )
    profile: str = option("spec", "how exporters that deviate lay out a report", choices=PROFILES, decode=True)
    tcp_int_position: str = option(
        "auto", "where INT stands in TCP packets", choices=("auto", "before-options", "after-options"), decode=True
    )
    int_udp_port: int = option(33122, "UDP port that signals INT 2.x", parse=number(1, 65535), decode=True)
    source_only_words: tuple[tuple[int, int], ...] = option(
        (), "INT 2.x words that only the source adds, for a domain id; again for more", parse=domain_words,
        metavar="DOMAIN:N", repeat=True, decode=True,
    )  # fmt: skip
    accept_report_length_1: bool = option(
        False, "accept reports of Length 1, as INTCollector's generator writes them", const=True, decode=True
    )
    reject_int_version_0: bool = option(False, "refuse INT 1.0 headers with version 0 (ONOS)", const=True, decode=True)

    # what is told
    event_transport: str = option("auto", "ring buffer (Linux 5.8), else perf buffer", choices=("auto", "ring", "perf"))
    event_mode: str = option("threshold", "how a change is detected", choices=("threshold", "interval"), live=True)
    hop_latency_threshold: int = option(
        50, "a hop latency that changes by more is an event", parse=number(0, 2**32 - 1), live=True
    )
    flow_latency_threshold: int = option(
        50, "a flow latency that changes by more is an event", parse=number(0, 2**32 - 1), live=True
    )
    queue_occupancy_threshold: int = option(
        50, "a queue occupancy that changes by more is an event", parse=number(0, 2**32 - 1), live=True
    )
    tx_utilization_threshold: int = option(
        50, "an egress port's TX utilization that changes by more is an event", parse=number(0, 2**32 - 1), live=True
    )
    keepalive: float = option(
        1.0,
        "seconds after which a flow that changes nothing is told again; 0: never",
        parse=seconds,
        metavar="S",
        live=True,
    )
    latency_unit: str = option("ns", "the unit of the devices' latencies", choices=("ns", "us"))

    # how much
    max_flows: int = option(100_000, "flows kept; the least recently used goes", parse=number(1, 16_777_216))
    max_flow_series: int = option(
        10_000, "flows shown to Prometheus one by one; more are counted as omitted", parse=number(0, 1_000_000)
    )
    ring_size: int = option(
        32, "MiB for events between the kernel and the collector", parse=number(1, 1024), metavar="MIB"
    )

    # the interface
    xdp_mode: str = option("auto", "auto tries native, then generic", choices=("auto", "native", "generic"))
    force: bool = option(False, "replace another XDP program on the interface", const=True)
    accepted_verdict: str = option(
        "drop",
        "what becomes of an accepted report: consumed, or handed on to the network stack",
        choices=("drop", "pass"),
    )
    malformed_verdict: str = option("pass", "what becomes of a malformed report", choices=("drop", "pass"))

    # exporters
    prometheus: tuple[str, int] | None = option(
        ("127.0.0.1", 8000), "address of /metrics, /healthz, /readyz, or off", parse=address, metavar="[HOST:]PORT"
    )
    influxdb: str | None = option(None, "address of an InfluxDB server", parse=http_url, metavar="URL")
    influxdb_database: str = option("intcollector", "InfluxDB 1.x database; made if missing", metavar="NAME")
    influxdb_schema: str = option("tags", "how points are named", choices=("tags", "intcollector"))
    timestamps: str = option("host", "a point's time: arrival here, or the report's own", choices=("host", "int"))
    jsonl: str | None = option(
        None, "write events as JSON lines to this file; - for stdout", parse=path, metavar="PATH"
    )
    push_interval: float = option(1.0, "seconds between pushes of buffered points", parse=interval, metavar="S")
    push_buffer: int = option(
        64,
        "MiB of points kept while a server is away; the oldest are given up first",
        parse=number(1, 65536),
        metavar="MIB",
    )

    def __post_init__(self) -> None:
        if len(set(self.port)) > 16:
            raise UsageError(f"--port: {len(set(self.port))} ports given, at most 16 are possible")
        if len(self.source_only_words) > 8:
            raise UsageError("--source-only-words: at most 8 domains are possible")
        if len(dict(self.source_only_words)) < len(self.source_only_words):
            raise UsageError("--source-only-words: a domain is given twice")

    @property
    def accepts_report_length_1(self) -> bool:
        """Telemetry Report 1.0 with Length 1 is read as Length 4."""
        return self.accept_report_length_1 or self.profile == "intcollector"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Config:
        """From a vector's `options` (tests/data/vectors.json): the command line's words, as JSON."""
        return cls(
            port=(options["port"],),
            int_dscp=None if options["int_dscp"] is None else dscp(options["int_dscp"]),
            profile=options["profile"],
            tcp_int_position=options["tcp_int_position"],
            int_udp_port=options["int_udp_port"],
            source_only_words=tuple((int(d, 0), n) for d, n in options["source_only_words"].items()),
            accept_report_length_1=options["accept_report_length_1"],
            reject_int_version_0=not options["accept_int_version_0"],
        )


def address_text(packed: bytes, version: int) -> str:
    """An IPv4 or IPv6 address (first bytes of packed) as text."""
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, packed[:4])
    return socket.inet_ntop(socket.AF_INET6, packed[:16])
