"""What a collector saw, or a capture holds, as facts to be judged (diagnosis.py): counts, ports, specimens, flows.

    State ------> of_state() --\\
    frames -----> Tally ---------> Seen
    a relay ----> of_relay() --/
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from . import wire
from .batch import SOURCE, State
from .config import Config, address_text
from .layout import LAYOUT, OUTCOMES, FlowFlag
from .outcomes import MEANINGS
from .readings import How, Specimen, is_report
from .series import NONE32, NONE64, UNITS_PER_SECOND, Counts

ROOMS = ("flows", "points", "sources", "drops", "places")
"""What may find no room: struct counters, ..._refused."""
RECENT_NS = 60 * 10**9
SAMPLE = 4096
"""Flows whose hops are looked at."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """frames, dropped: received since the collector attached, and of those that it gave up before any program saw
    them. mode: of XDP. problem: why the program is not attached. carrier: there is another end, and it is up. None: not
    known, or no problem."""

    name: str
    up: bool | None = None
    frames: int | None = None
    dropped: int | None = None
    mode: str = ""
    problem: str | None = None
    carrier: bool | None = None


@dataclasses.dataclass(frozen=True)
class Exporter:
    """counts: None of one that is asked, as Prometheus. problem: one sentence, or None."""

    name: str
    counts: Counts | None = None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Packets of one exporter that ended in one way, and what the first was like. source: "" if not known. outcome:
    one of malformed packets; or ok, of reports without INT and without anything that the switch said of itself."""

    source: str
    outcome: str
    packets: int
    specimen: Specimen


@dataclasses.dataclass(frozen=True)
class Flows:
    """Those of the last minute. kept: all that there are. seen: of the last minute. paths: of these, those with a path.
    asked: with a path whose switches were asked for a latency, or send postcards. known: of the asked, those that have
    one. zero: of the known, those of which it is 0. median_s: of the hop latencies of some of the known; None: of
    none."""

    kept: int = 0
    seen: int = 0
    paths: int = 0
    asked: int = 0
    known: int = 0
    zero: int = 0
    median_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Relay:
    """events: read from Kafka. refused, missed: messages. lag: messages not delivered yet; None: not known."""

    events: int = 0
    refused: int = 0
    missed: int = 0
    paused: bool = False
    lag: int | None = None


Kind: TypeAlias = Literal["collector", "heard", "file", "relay"]


@dataclasses.dataclass(frozen=True)
class Seen:
    """Facts. All counts are since the start, seconds ago; of what was heard or read from a file, since its beginning.

    outcomes: packets by outcome, without those of 0. ports: packets for none of config.port, by UDP destination port.
    report_ports: of these, the ports to which reports go, as far as packets could be looked at. sources: SOURCE (s,),
    each row the same source in every Seen. last_report_s: since a report was kept; None: none was, or not known.
    refused: what found no room, by counter (flows, points, sources, drops, places).
    """

    config: Config
    kind: Kind = "collector"
    seconds: float = 0.0
    outcomes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    ports: Mapping[int, int] = dataclasses.field(default_factory=dict)
    report_ports: frozenset[int] = frozenset()
    refusals: tuple[Refusal, ...] = ()
    sources: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, SOURCE))
    flows: Flows = Flows()
    last_report_s: float | None = None
    events: int = 0
    events_lost: int = 0
    refused: Mapping[str, int] = dataclasses.field(default_factory=dict)
    lost_between_cpus: int = 0
    interfaces: tuple[Interface, ...] = ()
    exporters: tuple[Exporter, ...] = ()
    not_ready: str | None = None
    relay: Relay | None = None

    def counts_only(self) -> Seen:
        """Without specimens: enough to be compared with, later."""
        nothing = Specimen(b"", 0)
        return dataclasses.replace(
            self, refusals=tuple(dataclasses.replace(row, specimen=nothing) for row in self.refusals)
        )

    def total(self, *kinds: str) -> int:
        """Packets whose outcome is of these kinds (outcomes.py)."""
        return sum(packets for name, packets in self.outcomes.items() if MEANINGS[name].kind in kinds)


def of_state(
    state: State,
    config: Config,
    *,
    seconds: float,
    now_ns: int,
    interfaces: Iterable[Interface] = (),
    exporters: Iterable[Exporter] = (),
    not_ready: str | None = None,
) -> Seen:
    """Of a running collector. seconds: since it started. now_ns: CLOCK_MONOTONIC when the state was read."""
    counters = state.counters
    ports = np.flatnonzero(state.udp_ports)
    last = max(
        int(state.flow_seen_ns().max(initial=0)),
        int(state.sources["seen_ns"][state.sources["received"] > 0].max(initial=0)),
    )
    return Seen(
        config=config,
        seconds=seconds,
        outcomes={name: n for name, n in zip(OUTCOMES, counters["outcomes"].tolist(), strict=False) if n},
        ports=dict(zip(ports.tolist(), state.udp_ports[ports].tolist(), strict=True)),
        refusals=tuple(_refusal(row) for row in state.refusals),
        sources=state.sources.copy(),
        flows=_flows(state, now_ns),
        last_report_s=max(0, now_ns - last) / 1e9 if last else None,
        events=int(counters["events"]),
        events_lost=int(counters["events_lost"]),
        refused={name: int(counters[f"{name}_refused"]) for name in ROOMS if counters[f"{name}_refused"]},
        lost_between_cpus=state.lost_between_cpus,
        interfaces=tuple(interfaces),
        exporters=tuple(exporters),
        not_ready=not_ready,
    )


def of_relay(
    config: Config,
    *,
    seconds: float,
    exporters: Iterable[Exporter] = (),
    not_ready: str | None = None,
    events: int = 0,
    refused: int = 0,
    missed: int = 0,
    paused: bool = False,
    lag: int | None = None,
) -> Seen:
    """Of a running relay: it sees events, not packets."""
    relay = Relay(events, refused, missed, paused, lag)
    return Seen(config, "relay", seconds, exporters=tuple(exporters), not_ready=not_ready, relay=relay)


def _refusal(row: np.void) -> Refusal:
    """Of REFUSAL ()."""
    packed = bytes(row["address"])
    source = address_text(packed, int(row["ip_version"])) if any(packed) else ""
    frame = bytes(row["bytes"][: int(row["kept"])])
    return Refusal(source, OUTCOMES[row["outcome"]], int(row["packets"]), Specimen(frame, int(row["length"])))


_LATENCY_BIT, _BOTH_TIMES = 0x2000, 0x0C00


def _flows(state: State, now_ns: int) -> Flows:
    """A sum over all flows is cheap; their hops are looked at in a sample."""
    recent = state.flow_seen_ns() > now_ns - RECENT_NS
    flags, bitmaps = state.flows["flags"], state.flows["instruction_bitmap"]
    postcards = flags & FlowFlag.POSTCARDS != 0
    paths = recent & (flags & (FlowFlag.PATH | FlowFlag.POSTCARDS) != 0)
    times = (bitmaps & _LATENCY_BIT != 0) | (bitmaps & _BOTH_TIMES == _BOTH_TIMES)
    asked = paths & (postcards | (times & (state.flows["hop_count"] > 0)))
    known = asked & (state.flows["latency"] != NONE64)
    zero = known & (state.flows["latency"] == 0)
    rows = np.flatnonzero(known)
    sample = state.flows[rows[:: max(1, -(-len(rows) // SAMPLE))]]
    hops = sample["hops"]["latency"].astype(np.float64)
    there = sample["hops"]["switch_id"] != NONE32
    there &= sample["hops"]["latency"] != NONE32
    there &= np.arange(hops.shape[1]) < sample["hop_count"][:, None]
    seconds = (hops / UNITS_PER_SECOND[sample["time_unit"]][:, None])[there]
    return Flows(
        kept=len(state.flows),
        seen=int(recent.sum()),
        paths=int(paths.sum()),
        asked=int(asked.sum()),
        known=int(known.sum()),
        zero=int(zero.sum()),
        median_s=float(np.median(seconds)) if len(seconds) else None,
    )


class Tally:
    """Frames that were decoded one by one by wire.py, from a capture or heard on an interface, counted as the kernel
    program counts them. What is kept is bounded."""

    PORTS_LOOKED_AT, FRAMES_LOOKED_AT = 64, 8
    MAX_FLOWS = 100_000

    def __init__(self, config: Config, kind: Kind) -> None:
        self._config, self._kind = config, kind
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._ports: collections.Counter[int] = collections.Counter()
        self._are_reports: dict[int, list[bool]] = {}
        self._refusals: dict[tuple[str, str], list[Any]] = {}
        self._flows: set[tuple[Any, ...]] = set()
        self._facts = collections.Counter({"paths": 0})
        self._latencies: collections.deque[float] = collections.deque(maxlen=SAMPLE)

    def add(self, frame: bytes, answer: wire.Report) -> None:
        """A frame, and what wire.decode says of it."""
        outcome = answer["outcome"]
        self._outcomes[outcome] += 1
        if outcome == "pass_port":
            self._add_port(frame)
        elif MEANINGS[outcome].kind == "malformed" or (
            outcome == "ok" and all(_says_nothing(report) for report in answer["reports"])
        ):
            self._add_refusal(frame, outcome)
        for report in answer["reports"]:
            self._add_report(report)

    def _add_port(self, frame: bytes) -> None:
        _, port = outer(frame)
        self._ports[port] += 1
        known = self._are_reports.get(port)
        if known is None and len(self._are_reports) < self.PORTS_LOOKED_AT:
            known = self._are_reports[port] = []
        if known is not None and len(known) < self.FRAMES_LOOKED_AT:
            known.append(is_report(frame, port, How.of(self._config, "")))

    def _add_refusal(self, frame: bytes, outcome: str) -> None:
        source, _ = outer(frame)
        if (source, outcome) in self._refusals:
            self._refusals[source, outcome][0] += 1
        elif len(self._refusals) < LAYOUT.defines["MAX_REFUSALS"]:
            self._refusals[source, outcome] = [1, frame]

    def _add_report(self, report: wire.Report) -> None:
        """The facts of Flows count reports here: a flow is one that was reported."""
        if report["flow"] and len(self._flows) < self.MAX_FLOWS:
            self._flows.add(tuple(str(value) for value in report["flow"].values()))
        self._facts["seen"] += 1
        stack = report["int"]
        if stack is None:
            return
        self._facts["paths"] += 1
        bitmap = int(stack["instruction_bitmap"], 16)
        if not stack["hops"] or not (bitmap & _LATENCY_BIT or bitmap & _BOTH_TIMES == _BOTH_TIMES):
            return
        self._facts["asked"] += 1
        latencies = [latency for hop in stack["hops"] if (latency := _hop_latency(hop)) is not None]
        per_second = UNITS_PER_SECOND[LATENCY_UNITS[self._config.of_source(report["source"]).latency_unit]]
        self._latencies.extend(latency / per_second for latency in latencies)
        self._facts["known"] += bool(latencies)
        self._facts["zero"] += bool(latencies) and not any(latencies)

    def seen(self, seconds: float, interfaces: Iterable[Interface] = ()) -> Seen:
        """... in so many seconds."""
        median = float(np.median(self._latencies)) if self._latencies else None
        facts = {name: self._facts[name] for name in ("seen", "paths", "asked", "known", "zero")}
        return Seen(
            self._config,
            self._kind,
            seconds,
            outcomes=dict(self._outcomes),
            ports=dict(self._ports),
            report_ports=frozenset(port for port, found in self._are_reports.items() if all(found)),
            refusals=tuple(
                Refusal(source, outcome, packets, Specimen(frame, len(frame)))
                for (source, outcome), (packets, frame) in self._refusals.items()
            ),
            flows=Flows(kept=len(self._flows), median_s=median, **facts),
            interfaces=tuple(interfaces),
        )


LATENCY_UNITS = {"ns": 0, "us": 1, "ms": 2, "2^-32s": 3}
"""Config.latency_unit -> enum time_unit."""


def _says_nothing(report: wire.Report) -> bool:
    """Of a TCP or UDP flow, without INT, and without a word of the switch on itself: bpf/collector.c, is_kept()."""
    flow = report["flow"]
    return bool(flow and flow["source_port"] is not None) and not (report["int"] or report["local_hop"])


def _hop_latency(hop: wire.Report) -> int | None:
    """In the switch's unit: its own, or the difference of its timestamps."""
    latency: int | None = hop.get("hop_latency")
    came, left = hop.get("ingress_timestamp"), hop.get("egress_timestamp")
    if latency is None and came is not None and left is not None:
        latency = (left - came) % (1 << 32)
    return latency


def outer(frame: bytes) -> tuple[str, int]:
    """Source address and UDP destination port of a frame; ("", 0) if it is not UDP over IP."""
    try:
        ethertype, _, at = wire.read_ethernet(frame, 0, short="", too_deep="")
        if ethertype == wire.ETHERTYPE_IPV4:
            ip = wire.IPV4.read(frame, at, "")
            behind, protocol = at + ip["ihl"] * 4, ip["protocol"]
        elif ethertype == wire.ETHERTYPE_IPV6:
            ip = wire.IPV6.read(frame, at, "")
            behind, protocol = at + wire.IPV6.size, ip["next_header"]
        else:
            return "", 0
        port = wire.UDP.read(frame, behind, "")["destination_port"] if protocol == wire.PROTOCOL_UDP else 0
    except wire.Refused:
        return "", 0
    return wire.address(4 if ethertype == wire.ETHERTYPE_IPV4 else 6, ip["source"]), port
