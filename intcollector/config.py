"""Config: one frozen dataclass; a field is a flag of `run`, a help line and what the program is set to.

Adding an option is adding a field here: cli.py makes the flag of it (`queue_occupancy_threshold` becomes
`--queue-occupancy-threshold`), with the help text and the parser that stand beside it. Three options name files (TOML);
the fields hold what the files say.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import json
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlsplit

from .errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROFILES = ("spec", "l2port4", "geant", "onos", "intcollector")
LATENCY_UNITS = ("ns", "us", "ms", "2^-32s")
MAX_SOURCES = 255
"""Entries in a file of sources: bpf/report.h has room for MAX_PROFILES, twice these and the command line's."""
MAX_FILE = 2**20
"""Bytes of a file that an option names: a running collector reads it between two drains."""
DROP_REASONS_FILE = Path(__file__).with_name("drop_reasons.toml")


def option(default: Any, help: str, *, parse: Callable[[str], Any] = str, **more: Any) -> Any:
    """A field that is also a flag. more: choices, metavar, repeat (the flag may be given again), live (a running
    collector takes a new value), decode (the option also matters to `decode`), const (a flag without value), of_source
    (a file of sources may say otherwise for some), relay (it also matters to
    `relay`), read (the option is a path, the field is what
    read(content, path) makes of that file)."""
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
            raise UsageError(f"{text} is not between {low} and {high}")
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


def timeout(text: str) -> float:
    """A time, more than 0, that the kernel program counts in 31 bits of 2^20 ns."""
    if interval(text) > 86400:
        raise UsageError(f"{text} is more than a day of 86400 seconds")
    return interval(text)


def window(text: str) -> float:
    """A time that the kernel program counts in 32 bits of ns."""
    return real(text, 0, 4, "a number of seconds", "a time between 0 and 4 seconds")


def dscp(text: str) -> tuple[int, int] | None:
    """`V` or `V/M`: DSCP value and mask, 6 bits each; or `off`."""
    if text == "off":
        return None
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
    """The address of an HTTP server. Errors: UsageError, which does not repeat what may be a password."""
    if "?" in text or "#" in text:
        raise UsageError("an InfluxDB address has no ? or #: user, password and database have options of their own")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # as who looks it up does
    except ValueError:  # a port, an IPv6 address or a name that is none
        right = False
    if "@" in (parts.netloc if right else text):
        raise UsageError("an InfluxDB address must not hold a password: other users of this machine can read it")
    if not right:
        raise UsageError(f"{text!r} is not an http:// or https:// address")
    return parts.geturl().rstrip("/")


def brokers(text: str) -> str:
    """Addresses of Kafka brokers: `HOST[:PORT]`, several with commas between them."""
    for part in text.split(","):
        try:
            parts = urlsplit(f"//{part.strip()}")
            right = parts.hostname and parts.port != 0 and parts.netloc == part.strip() and "@" not in part
        except ValueError:  # a port or an IPv6 address that is none
            right = False
        if not right:
            raise UsageError(f"{part!r} is not HOST[:PORT] of a Kafka broker")
    return ",".join(part.strip() for part in text.split(","))


def topic(text: str) -> str:
    """The name of a Kafka topic."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) or text in (".", ".."):
        raise UsageError(f"{text!r} is no name of a Kafka topic: letters, digits, dots, hyphens, underscores")
    return text


def gre_protocol(text: str) -> int:
    """A GRE protocol type, 0 for none; not one that means something else."""
    value = number(0, 65535)(text)
    if value in (0x0800, 0x86DD, 0x6558, 0x8847, 0x8848):
        raise UsageError(f"{value:#06x} means something else in GRE: give what the exporters use for INT")
    return value


# --- files ------------------------------------------------------------------------------------------------------------

T = TypeVar("T")
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


class FromFile(tuple[T, ...]):
    """What a file says, an entry each, the last part of an entry being the value of the others; path: of the file."""

    path: str

    def __new__(cls, entries: Iterable[T], path: str = "") -> FromFile[T]:
        made = super().__new__(cls, entries)
        made.path = path
        return made


def path_of(value: Any) -> str | None:
    """Where a field's value came from; None if not from a file."""
    return value.path if isinstance(value, FromFile) and value.path else None


class Source(NamedTuple):
    """An entry of a file of sources: whose reports, and the fields of Config that differ for them."""

    network: Network
    changes: tuple[tuple[str, Any], ...]


def content_of(path: str) -> bytes:
    """A file's bytes. Errors: UsageError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): give a file that is there and readable") from None
    if len(content) > MAX_FILE:
        raise UsageError(f"{path} is larger than {MAX_FILE} bytes: give a smaller one")
    return content


def read_sources(content: bytes, path: str) -> FromFile[Source]:
    """A file of sources: a table an address or prefix, of options as on the command line. Errors: UsageError."""
    entries: dict[Network, Source] = {}
    for name, table in _toml(content, path).items():
        at = f"{path}: [{_quoted(name)}]" if isinstance(table, dict) else f"{path}: {_quoted(name)}"
        network = _network(name, at)
        if not isinstance(table, dict):
            raise UsageError(f"{at} is no table: write [{_quoted(name)}], and below it its options, one a line")
        if network in entries:
            raise UsageError(f"{at} is there twice, the other time in other words: keep one of them")
        entries[network] = Source(network, _changes(table, at))
    if len(entries) > MAX_SOURCES:
        raise UsageError(
            f"{path}: {len(entries)} entries, at most {MAX_SOURCES} are possible: give a prefix to those that are alike"
        )
    return FromFile(entries.values(), path)


def read_drop_reasons(content: bytes, path: str) -> FromFile[tuple[int, str]]:
    """A file of drop reasons: `NUMBER = "name"`, each number and each name once. Errors: UsageError."""
    names: dict[int, str] = {}
    for key, name in _toml(content, path).items():
        at = f"{path}: {_quoted(key)}"
        code = _parsed(number(0, 255), key, at, 'write drop reasons as NUMBER = "name"')
        if code in names:
            raise UsageError(f"{at}: drop reason {code} is there twice: keep one of them")
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise UsageError(f'{at}: {_shown(name)} is not a name: write it in quotes, as in 80 = "acl_deny"')
        if name in names.values():
            raise UsageError(f"{at}: {_shown(name)} is already the name of another drop reason: give each its own")
        if name.isdecimal():
            raise UsageError(f"{at}: {_shown(name)} could be taken for a drop reason without a name: write a word")
        names[code] = name
    return FromFile(names.items(), path)


def read_links(content: bytes, path: str) -> FromFile[tuple[int, int, int]]:
    """A file of links: (switch_id, egress_port_id, the switch_id it leads to) each. Errors: UsageError."""
    keys = {"switch": number(0, 2**32 - 2), "egress-port": number(0, 2**16 - 2), "to": number(0, 2**32 - 2)}
    found: dict[tuple[int, int], int] = {}
    tables: Any = []
    for name, tables in _toml(content, path).items():
        if name != "link" or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise UsageError(f"{path}: {_quoted(name)} is not a link: write [[link]], and below it its keys")
    for count, table in enumerate(tables, 1):
        at = f"{path}: link {count}"
        for key in (*keys, *table):
            if key not in table:
                raise UsageError(f"{at}: {key} is missing: a link has {_listed(keys)}")
            if key not in keys:
                raise UsageError(f"{at}: {_quoted(key)} is no key: a link has {_listed(keys)}")
        values = [_parsed(parse, table[key], f"{at}: {key}", "write a number") for key, parse in keys.items()]
        switch, port, to = values
        if (switch, port) in found:
            raise UsageError(f"{at}: egress port {port} of switch {switch} is there twice: keep one of them")
        if switch == to:
            raise UsageError(f"{at}: switch {switch} leads to itself: a link has two ends")
        found[switch, port] = to
    return FromFile(((*ends, to) for ends, to in found.items()), path)


def _toml(content: bytes, path: str) -> dict[str, Any]:
    """A TOML file as dictionaries. path: how errors call it. Errors: UsageError, with the line."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: this is not UTF-8: save the file as UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # a number or an array may also be too long for Python
        raise UsageError(f"{path} is not TOML: {error}; docs/options.md has an example") from None


def _network(text: str, at: str) -> Network:
    """An address or prefix, IPv4 or IPv6. at: where it stands."""
    hint = 'write an IPv4 or IPv6 address, or a prefix, in quotes: ["192.0.2.1"], ["2001:db8::/32"]'
    address, slash, length = text.partition("/")
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"{at} is not an address: {hint}") from None
    lengths = [str(bits) for bits in range(host.max_prefixlen + 1)]
    if "%" in text or (slash and length not in lengths):
        raise UsageError(f"{at} is not a prefix: {hint}")
    network = ipaddress.ip_network(text, strict=False)
    if network.network_address != host:
        raise UsageError(f'{at} has bits set behind its prefix: write "{network}", or "{host}" for the one address')
    return network


def _changes(table: Mapping[str, Any], at: str) -> tuple[tuple[str, Any], ...]:
    """What an entry of a file of sources says, by field of Config. at: where it stands."""
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(Config) if f.metadata.get("of_source")}
    changes = {}
    for key, value in table.items():
        if key not in fields:
            raise UsageError(f"{at}: {_quoted(key)} is not an option of a source: choose from {_listed(fields)}")
        data = fields[key].metadata
        new = _parsed(data["parse"], value, f"{at}: {key}", f"see --{key}")
        if new not in data.get("choices", (new,)):
            raise UsageError(f"{at}: {key}: {_shown(value)} is not possible: choose from {_listed(data['choices'])}")
        changes[fields[key].name] = new
    return tuple(sorted(changes.items()))


def _parsed(parse: Callable[[str], Any], value: Any, at: str, hint: str) -> Any:
    """A value of a TOML file, as on the command line. at: where it stands; hint: what to try. Errors: UsageError."""
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise UsageError(f"{_shown(value)} is neither a whole number nor a word in quotes")
        if isinstance(value, int) and value.bit_length() > 64:
            raise UsageError("the number is too large")
        return parse(str(value))
    except UsageError as error:
        raise UsageError(f"{at}: {error}: {hint}") from None


def _quoted(key: str) -> str:
    """A key as TOML has it."""
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else _shown(key)


def _shown(value: Any) -> str:
    """A value of a TOML file, about as it stands there, on one line."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write very large ones
        return "a large number"
    return json.dumps(value, ensure_ascii=False, default=str)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


@dataclasses.dataclass(frozen=True)
class Config:
    """How a collector is set. Every field is an option of `run` with the name's underscores as hyphens."""

    # what is a report, and how it is laid out
    port: tuple[int, ...] = option(
        (54321,), "UDP destination port of reports; again for more", parse=number(1, 65535), repeat=True, decode=True
    )
    int_dscp: tuple[int, int] | None = option(
        None,
        "DSCP that marks packets with INT, or off: then the shim must be plausible",
        parse=dscp,
        metavar="V[/M]",
        decode=True,
        of_source=True,
    )
    profile: str = option(
        "spec", "how exporters that deviate lay out a report", choices=PROFILES, decode=True, of_source=True
    )
    sources: tuple[Source, ...] = option(
        (), "file that says which sources have another profile, mark or units", parse=path, metavar="FILE",
        read=read_sources, decode=True, live=True,
    )  # fmt: skip
    tcp_int_position: str = option(
        "auto", "where INT stands in TCP packets", choices=("auto", "before-options", "after-options"), decode=True
    )
    int_udp_port: int = option(33122, "UDP port that signals INT 2.x", parse=number(1, 65535), decode=True)
    int_gre_protocol: int = option(
        0, "GRE protocol type that signals INT 2.x; 0: none", parse=gre_protocol, decode=True
    )
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
    postcard_window: float = option(
        0.001,
        "seconds within which postcards of a flow are taken for one packet's",
        parse=window,
        metavar="S",
        live=True,
    )
    postcard_timeout: float = option(
        5.0, "seconds after which a switch that sent no postcard is no longer in a flow's path", parse=timeout,
        metavar="S", live=True,
    )  # fmt: skip
    links: tuple[tuple[int, int, int], ...] = option(
        (), "file that says which egress port leads to which switch, to put postcards in order", parse=path,
        metavar="FILE", read=read_links, live=True,
    )  # fmt: skip
    drop_reasons: tuple[tuple[int, str], ...] | None = option(
        None, "file of names for drop reason codes, instead of the ones built in", parse=path, metavar="FILE",
        read=read_drop_reasons, live=True, relay=True,
    )  # fmt: skip

    # what the devices' numbers mean
    latency_unit: str = option(
        "ns", "the unit of the devices' times and latencies", choices=LATENCY_UNITS, of_source=True
    )
    queue_occupancy_bytes: int = option(
        0, "bytes that one unit of queue occupancy stands for; 0: not known", parse=number(0, 2**32 - 1), of_source=True
    )
    tx_utilization_full: int = option(
        0, "TX utilization that stands for the whole line rate; 0: not known", parse=number(0, 2**32 - 1),
        of_source=True,
    )  # fmt: skip
    sampling_ratio: int = option(1, "one packet in N is reported", parse=number(1, 2**32 - 1), of_source=True)

    # how much
    max_flows: int = option(
        100_000, "flows kept; the least recently used goes", parse=number(1, 16_777_216), relay=True
    )
    max_flow_series: int = option(
        10_000, "flows shown to Prometheus one by one; more are counted as omitted", parse=number(0, 1_000_000),
        relay=True,
    )  # fmt: skip
    ring_size: int = option(
        32, "MiB for events between the kernel and the collector", parse=number(1, 1024), metavar="MIB"
    )

    cpus: int = option(
        0,
        "spread reports over N CPUs by the flow they are about; 0: each stays on the CPU it came in on (all of one "
        "sink's come in on the same)",
        parse=number(0, 64),
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
        ("127.0.0.1", 8000), "address of the page, its API, /metrics, /healthz and /readyz, or off", parse=address,
        metavar="[HOST:]PORT",
        relay=True,
    )  # fmt: skip
    influxdb: str | None = option(None, "address of an InfluxDB server", parse=http_url, metavar="URL", relay=True)
    influxdb_version: str = option(
        "auto", "the server's; auto: 2 with a token, an organisation or a bucket, else 1",
        choices=("auto", "1", "2", "3"), relay=True,
    )  # fmt: skip
    influxdb_database: str = option(
        "intcollector", "InfluxDB 1 or 3: the database; 1: made if missing", metavar="NAME", relay=True
    )
    influxdb_user: str | None = option(None, "InfluxDB 1: the user", metavar="NAME", relay=True)
    influxdb_password: str | None = option(
        None, "file that holds the user's password; without it, the environment's INTCOLLECTOR_INFLUXDB_PASSWORD",
        parse=path, metavar="FILE", relay=True,
    )  # fmt: skip
    influxdb_token: str | None = option(
        None, "file that holds a token; without it, the environment's INTCOLLECTOR_INFLUXDB_TOKEN",
        parse=path, metavar="FILE", relay=True,
    )  # fmt: skip
    influxdb_org: str | None = option(None, "InfluxDB 2: the organisation", metavar="NAME", relay=True)
    influxdb_bucket: str | None = option(None, "InfluxDB 2: the bucket", metavar="NAME", relay=True)
    influxdb_ca: str | None = option(
        None, "file of certificates (PEM) that vouch for an https:// server, instead of the system's",
        parse=path, metavar="FILE", relay=True,
    )  # fmt: skip
    influxdb_gzip: bool = option(False, "compress what goes to InfluxDB", const=True, relay=True)
    influxdb_schema: str = option("tags", "how points are named", choices=("tags", "intcollector"), relay=True)
    timestamps: str = option(
        "host", "a point's time: arrival here, or the report's own", choices=("host", "int"), relay=True
    )
    kafka: str | None = option(None, "addresses of Kafka brokers", parse=brokers, metavar="HOST[:PORT],...", relay=True)
    kafka_topic: str = option("int", "Kafka topic of events", parse=topic, metavar="NAME", relay=True)
    kafka_compression: str = option(
        "lz4", "how messages are compressed", choices=("none", "gzip", "snappy", "lz4", "zstd")
    )
    kafka_config: str | None = option(
        None, "file of librdkafka properties, NAME = VALUE a line: TLS, SASL and others", parse=path, metavar="FILE",
        relay=True,
    )  # fmt: skip
    jsonl: str | None = option(
        None, "write events as JSON lines to this file; - for stdout", parse=path, metavar="PATH", relay=True
    )
    jsonl_size: int = option(
        0, "MiB after which the file of --jsonl is moved to PATH.1 and begun anew; 0: never",
        parse=number(0, 1 << 20), metavar="MIB", relay=True,
    )  # fmt: skip
    jsonl_files: int = option(
        5, "files that are kept beside the one of --jsonl (PATH.1, PATH.2 ...) when it has a size",
        parse=number(1, 1000), relay=True,
    )  # fmt: skip
    push_interval: float = option(
        1.0, "seconds between pushes of buffered points", parse=interval, metavar="S", relay=True
    )
    push_buffer: int = option(
        64,
        "MiB of points that each exporter keeps in memory while a server is away; the oldest are given up first",
        parse=number(1, 65536),
        metavar="MIB",
        relay=True,
    )
    spool: str | None = option(
        None, "folder in which points wait for delivery, also over a restart; without it, in memory only",
        parse=path, metavar="FOLDER",
    )  # fmt: skip
    spool_size: int = option(
        1024, "MiB of each exporter's points in the spool; the oldest are given up first",
        parse=number(1, 1 << 24), metavar="MIB",
    )  # fmt: skip
    close_timeout: float = option(
        5.0, "seconds in which exporters may deliver what is left when the collector ends", parse=seconds, metavar="S",
        relay=True,
    )  # fmt: skip

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

    def of_source(self, address: str) -> Config:
        """The settings for reports from an outer source address: of the entry with the longest prefix that it is in,
        which has no sources any more; where there is none, these."""
        if not self.sources:
            return self
        known = self._known
        if (found := known.get(address)) is None:
            if len(known) >= 4096:  # addresses are what the network says they are: any number of them
                known.clear()
            found = known[address] = self._longest_prefix(address)
        return found

    @functools.cached_property
    def _known(self) -> dict[str, Config]:
        """What of_source() answered: a decoder asks for every packet."""
        return {}

    def _longest_prefix(self, address: str) -> Config:
        packed = ipaddress.ip_address(address)
        number, bits = int(packed), packed.max_prefixlen
        for length, configs in self._prefixes[packed.version]:
            if config := configs.get(number >> bits - length):
                return config
        return self

    @functools.cached_property
    def _prefixes(self) -> dict[int, list[tuple[int, dict[int, Config]]]]:
        """By IP version: (prefix length, the prefixes' bits -> Config), the longest first."""
        found: dict[int, dict[int, dict[int, Config]]] = {4: {}, 6: {}}
        for network, config in self.profiles()[1:]:
            assert network is not None
            bits = int(network.network_address) >> network.max_prefixlen - network.prefixlen
            found[network.version].setdefault(network.prefixlen, {})[bits] = config
        return {version: sorted(lengths.items(), key=lambda item: -item[0]) for version, lengths in found.items()}

    def profiles(self) -> list[tuple[Network | None, Config]]:
        """Every Config that of_source() answers with, and for whom: first this one, for all who have no entry."""
        others = [(s.network, dataclasses.replace(self, sources=(), **dict(s.changes))) for s in self.sources]
        return [(None, self), *others]

    @functools.cached_property
    def drop_reason_names(self) -> Mapping[int, str]:
        """Drop reason code -> name, of those that have one."""
        return built_in_drop_reasons() if self.drop_reasons is None else dict(self.drop_reasons)

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


@functools.cache
def built_in_drop_reasons() -> Mapping[int, str]:
    """The packaged table."""
    return dict(read_drop_reasons(DROP_REASONS_FILE.read_bytes(), DROP_REASONS_FILE.name))


def address_text(packed: bytes, version: int) -> str:
    """An IPv4 or IPv6 address (first bytes of packed) as text."""
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, packed[:4])
    return socket.inet_ntop(socket.AF_INET6, packed[:16])
