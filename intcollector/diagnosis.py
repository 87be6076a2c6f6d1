"""Where nothing arrives, why: what was seen, and what it amounts to, in sentences with numbers and what to try.

    Seen --> diagnose() --> [Finding], worst first

Said once here, and shown by the page, by /api/v1/diagnosis, by `top`, by `doctor` and by `decode`. Pure: nothing is
looked at but what is given. docs/troubleshooting.md explains each kind of finding (KINDS).
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from . import wire
from .config import address_text
from .layout import LAYOUT
from .outcomes import MEANINGS
from .readings import Changes, How, Verdict, judge, options_text, read
from .seen import Exporter, Interface, Refusal, Relay, Seen, Tally, of_relay, of_state
from .series import NONE32, Counts
from .spelled import clean, count, rate, ratio, time

__all__ = ["KINDS", "Exporter", "Finding", "Interface", "Seen", "Tally", "diagnose", "of_relay", "of_state", "text"]

Level = Literal["ok", "warn", "bad"]

KINDS = (
    "interface", "no packets", "no UDP", "other port", "stopped", "malformed", "no INT", "fragments", "VLAN tags",
    "encapsulation", "undecoded", "interface drops", "report loss", "duplicates", "restarts", "sequence numbers",
    "latency", "event loss", "other CPUs", "no room", "exporter", "relay", "collector", "reports",
)  # fmt: skip
"""What a finding of diagnose() can be about: headings of docs/troubleshooting.md."""

KNOWN_PORTS: Mapping[int, str] = {
    54321: "INTCollector",
    32766: "fabric-tna (SD-Fabric), host-int",
    5900: "NoviFlow",
    6000: "GEANT",
    8090: "GEANT's generator",
    5500: "fabric-tna",
    556: "CableLabs",
    8555: "CableLabs",
}
"""UDP ports that exporters are known to send reports to: docs/exporters-seen.md."""

SERVICES: Mapping[int, str] = {
    53: "DNS", 67: "DHCP", 68: "DHCP", 69: "TFTP", 123: "NTP", 137: "NetBIOS", 138: "NetBIOS", 161: "SNMP",
    162: "SNMP", 443: "QUIC", 500: "IPsec", 514: "syslog", 546: "DHCPv6", 547: "DHCPv6", 1900: "SSDP",
    2055: "NetFlow", 3702: "WS-Discovery", 3784: "BFD", 4500: "IPsec", 4739: "IPFIX", 4789: "VXLAN",
    4790: "VXLAN-GPE", 5353: "mDNS", 5355: "LLMNR", 6081: "Geneve", 6343: "sFlow", 8472: "VXLAN",
    9995: "NetFlow", 9996: "NetFlow", 51820: "WireGuard",
}  # fmt: skip
"""UDP ports of other things."""
TUNNELS = ("VXLAN", "VXLAN-GPE", "Geneve", "WireGuard", "IPsec")
OTHER_TELEMETRY = ("NetFlow", "IPFIX", "sFlow")

MAX_REFUSALS = LAYOUT.defines["MAX_REFUSALS"]
MAX_JUDGED = 16
"""Specimens looked into in one diagnosis, those of most packets: each costs some milliseconds, once."""
SHOWN = 3
"""Addresses, ports and the like that a sentence names."""
STOPPED_S = 10.0
"""Silence that is worth a word, where reports came more often."""
START_S = 3.0
"""What has not come so soon after the start may still come."""
MUCH_DROPPED = 0.01
"""Of what an interface received."""
FASTEST_S, SLOWEST_S = 50e-9, 1.0
"""Half of the hops take longer than a switch needs at least, and shorter than any buffer lasts."""
MIN_FLOWS = 3
"""... if there are so many flows to tell by."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing looked at. state: warn if the collector works without it, bad if not. advice: empty when ok. Both may
    hold `backticks` around what can be typed."""

    what: str
    state: Level
    found: str
    advice: str = ""


def text(findings: Sequence[Finding]) -> str:
    """One line a finding, and one below it with what to do."""
    findings = [_plain(finding) for finding in findings]
    width = max((len(f.what) for f in findings), default=0)
    lines = []
    for f in findings:
        lines.append(f"{f.state:4}  {f.what:{width}}  {f.found}")
        if f.advice:
            lines.append(f"{'':4}  {'':{width}}  -> {f.advice}")
    return "\n".join(lines)


def _plain(finding: Finding) -> Finding:
    """Without `backticks`, and what a server said without what a terminal would obey."""
    what, found, advice = (clean(text.replace("`", "")) for text in (finding.what, finding.found, finding.advice))
    return Finding(what, finding.state, found, advice)


# --- what it amounts to -----------------------------------------------------------------------------------------------


class _Lately:
    """A Seen, less what was there before: counts of the last while."""

    def __init__(self, seen: Seen, before: Seen | None) -> None:
        self.seen = seen
        self.config = seen.config
        self.seconds = seen.seconds - (before.seconds if before else 0.0)
        old = before or Seen(seen.config)
        self.outcomes = _less(seen.outcomes, old.outcomes)
        self.ports = _less(seen.ports, old.ports)
        self.refused = _less(seen.refused, old.refused)
        self.events, self.events_lost = seen.events - old.events, seen.events_lost - old.events_lost
        self.lost_between_cpus = seen.lost_between_cpus - old.lost_between_cpus
        known = {(row.source, row.outcome): row.packets for row in old.refusals}
        rows = [(row, row.packets - known.get((row.source, row.outcome), 0)) for row in seen.refusals]
        self.refusals = sorted(((row, packets) for row, packets in rows if packets > 0), key=lambda one: -one[1])
        self._old_sources = old.sources
        earlier = {one.name: one for one in old.interfaces}
        self.interfaces = [_less_interface(one, earlier.get(one.name)) for one in seen.interfaces]
        self.reports = self.total("report")
        self.malformed = self.total("malformed")
        self.packets = sum(self.outcomes.values())
        self.addresses = [
            address_text(bytes(row["address"]), int(row["ip_version"])) if row["ip_version"] else ""
            for row in seen.sources
        ]
        self.received = self.of_sources("received")
        self.received_from = collections.Counter[str]()
        for address, reports in zip(self.addresses, self.received.tolist(), strict=True):
            self.received_from[address] += reports
        if seen.kind == "heard":
            self.when = f"in {seen.seconds:.3g} s: "
        elif before is None or seen.kind == "file":
            self.when = ""
        elif 50 <= self.seconds <= 90:
            self.when = "in the last minute: "
        else:
            self.when = f"in the last {self.seconds:.0f} s: "

    def total(self, *kinds: str) -> int:
        """Packets whose outcome is of these kinds."""
        return sum(packets for name, packets in self.outcomes.items() if MEANINGS[name].kind in kinds)

    @staticmethod
    def drops(interface: Interface) -> bool:
        """Whether it drops more than the few packets that are for nobody here, which count there as well."""
        dropped, frames = interface.dropped or 0, interface.frames or 0
        return dropped > MUCH_DROPPED * (frames + dropped)

    def of_sources(self, field: str) -> np.ndarray:
        """A counter of SOURCE: int64 (s,)."""
        now = self.seen.sources[field].astype(np.int64)
        now[: len(self._old_sources)] -= self._old_sources[field].astype(np.int64)
        return now


def _less_interface(now: Interface, before: Interface | None) -> Interface:
    """What was added; all, where the interface was not there before, or was another one."""
    counts: dict[str, int | None] = {}
    for name in ("frames", "dropped"):
        new, old = getattr(now, name), getattr(before, name, None) or 0
        counts[name] = None if new is None else new - old if new >= old else new
    return dataclasses.replace(now, frames=counts["frames"], dropped=counts["dropped"])


def _less(now: Mapping[Any, int], before: Mapping[Any, int]) -> dict[Any, int]:
    """What was added, without what is 0."""
    return {name: n - before.get(name, 0) for name, n in now.items() if n > before.get(name, 0)}


_ORDER: Mapping[Level, int] = {"bad": 0, "warn": 1, "ok": 2}


def diagnose(seen: Seen, before: Seen | None = None) -> list[Finding]:
    """What is wrong, worst first, and what to do about it; one line "ok" if all is well. Never empty.

    before: of the same collector, about a minute ago: counts are then of that minute. Without it they are since the
    start.
    """
    lately = _Lately(seen, before)
    if seen.relay is not None:
        findings = [*_relay(lately, before), *_exporters(lately, before)]
    else:
        findings = [
            *_interfaces(lately),
            *_arrival(lately),
            *_malformed(lately),
            *_without_int(lately),
            *_not_read(lately),
            *_loss(lately),
            *_latency(lately),
            *_room(lately),
            *_exporters(lately, before),
        ]
    problems = [*(one.problem for one in seen.interfaces), *(one.problem for one in seen.exporters)]
    if seen.not_ready and not any(problem and problem in seen.not_ready for problem in problems):
        findings.append(Finding("collector", "bad", seen.not_ready, "look into what the collector says on stderr"))
    findings += _well(lately, before, findings)
    return sorted(findings, key=lambda finding: _ORDER[finding.state])


def _interfaces(lately: _Lately) -> Iterator[Finding]:
    for one in lately.seen.interfaces:
        if one.problem:
            yield Finding(
                "interface", "bad", f"not attached: {one.problem}",
                f"bring {one.name} back, or take the other program off (`ip link show {one.name}`): the collector "
                "attaches by itself then",
            )  # fmt: skip
        elif one.up is False:
            yield Finding("interface", "bad", f"{one.name} is down: nothing arrives", f"`ip link set {one.name} up`")
        elif one.carrier is False:
            yield Finding(
                "interface", "bad", f"{one.name} is up and has no carrier: nothing arrives",
                "is the cable in, and the other end up?",
            )  # fmt: skip
    for one in lately.interfaces:
        if lately.drops(one):
            yield Finding(
                "interface drops", "warn",
                f"{lately.when}{one.name} dropped {count(one.dropped)} packets, and received {count(one.frames)}",
                f"give it longer receive queues (`ethtool -g {one.name}` shows, `ethtool -G {one.name} rx 4096` sets "
                "them), or spread the work: docs/cpus.md",
            )  # fmt: skip


def _names(lately: _Lately) -> str:
    """The interfaces."""
    return " or ".join(one.name for one in lately.seen.interfaces) or "the interface"


def _ours(lately: _Lately) -> str:
    """The ports of reports."""
    return _some([str(port) for port in dict.fromkeys(lately.config.port)], "or")


def _some(words: Sequence[str], joint: str = "and") -> str:
    """a, b and c; of many the first few, and how many others."""
    if len(words) > SHOWN + 1:
        words = [*words[:SHOWN], f"{count(len(words) - SHOWN)} others"]
        joint = "and"
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _arrival(lately: _Lately) -> Iterator[Finding]:
    """Where no report comes in, how far what comes in gets."""
    seen = lately.seen
    if any(one.problem or False in (one.up, one.carrier) for one in seen.interfaces):
        return
    since = seen.last_report_s
    usual = seen.seconds / max(1, seen.total("report"))
    if since is not None and since > max(STOPPED_S, 5 * usual) and seen.total("report") and not lately.malformed:
        yield _stopped(lately, since)
        return
    if lately.reports or lately.malformed or lately.outcomes.get("undecoded"):
        return
    if seen.kind == "collector" and (seen.seconds < START_S or seen.total("report")):
        if not seen.total("report"):
            yield Finding("reports", "ok", f"no report yet, {seen.seconds:.0f} s after the start")
        return
    state: Level = "bad" if seen.kind == "collector" else "warn"
    if not lately.packets:
        yield _no_packets(lately, state)
    elif lately.ports:
        yield _other_port(lately, state)
    else:
        yield _no_udp(lately, state)


def _stopped(lately: _Lately, since: float) -> Finding:
    found = f"no report for {_duration(since)}, after {count(lately.seen.total('report'))} since the start"
    if port := _likeliest(lately):
        packets = f"{_packets(lately.ports[port], 'UDP packet')} went to port {port}"
        return Finding("stopped", "warn", f"{found}; {lately.when}{packets}", f"moved there? try `--port {port}`")
    if others := lately.packets - lately.reports:
        return Finding(
            "stopped", "warn", f"{found}; {lately.when}{_packets(others, 'other packet')}",
            "look at the switches: whether INT and the report session are still on",
        )  # fmt: skip
    return Finding(
        "stopped", "warn", f"{found}; {lately.when}nothing else either",
        f"look at the way to the switches: `ip -s link show {_first(lately)}` counts what arrives",
    )  # fmt: skip


def _first(lately: _Lately) -> str:
    """An interface to name in a command."""
    return lately.seen.interfaces[0].name if lately.seen.interfaces else "IFACE"


def _duration(seconds: float) -> str:
    for unit_s, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def _no_packets(lately: _Lately, state: Level) -> Finding:
    if lately.seen.kind == "file":
        return Finding("no packets", "bad", "there is no packet in it", "capture again: `tcpdump -w FILE -i IFACE udp`")
    name, frames = _first(lately), sum(one.frames or 0 for one in lately.interfaces)
    seconds = _duration(lately.seconds)
    if frames:
        return Finding(
            "no packets", state,
            f"{_names(lately)} received {count(frames)} packets, and none reached the collector in {seconds}",
            "try `--xdp-mode generic`: this driver's native mode may not see them",
        )  # fmt: skip
    return Finding(
        "no packets", state, f"no packet came to {_names(lately)} in {seconds}",
        f"is it the interface that the switches send to? `ip -s link show {name}` counts what comes; what is sent to "
        f"another MAC address is taken only after `ip link set {name} promisc on`",
    )  # fmt: skip


def _likeliest(lately: _Lately) -> int | None:
    """The port where reports may go: one where they were seen, one that exporters use, one that nothing else uses; of
    these the one with most packets."""
    possible = [port for port in lately.ports if port in lately.seen.report_ports or port not in SERVICES]
    return max(
        possible,
        key=lambda port: (port in lately.seen.report_ports, port in KNOWN_PORTS, lately.ports[port]),
        default=None,
    )


def _named(port: int) -> str:
    """A port, and what else it is for."""
    return f"{port} ({SERVICES[port]})" if port in SERVICES else str(port)


def _packets(number: int, what: str) -> str:
    """1 report, 1,204 reports."""
    return f"{count(number)} {what}{'s' * (number != 1)}"


def _other_port(lately: _Lately, state: Level) -> Finding:
    likeliest = _likeliest(lately)
    most = heapq.nsmallest(SHOWN + 1, lately.ports, key=lambda port: (port != likeliest, -lately.ports[port]))
    if len(lately.ports) > len(most):
        most = most[:SHOWN]
    words = [f"{count(lately.ports[port])} to port {_named(port)}" for port in most]
    words[0] = f"{_packets(lately.ports[most[0]], 'UDP packet')} to port {_named(most[0])}"
    if more := len(lately.ports) - len(most):
        rest = sum(lately.ports.values()) - sum(lately.ports[port] for port in most)
        words.append(f"{count(rest)} to {count(more)} other ports")
    found = f"{lately.when}{_some(words)}, none to {_ours(lately)}"
    if likeliest in lately.seen.report_ports:
        return Finding("other port", state, f"{found}; those to {likeliest} are reports", f"try `--port {likeliest}`")
    if likeliest is not None:
        whose = f" ({KNOWN_PORTS[likeliest]} uses it)" if likeliest in KNOWN_PORTS else ""
        return Finding("other port", state, found, f"is {likeliest} where reports go{whose}? try `--port {likeliest}`")
    names = {SERVICES[port] for port in lately.ports}
    if tunnels := [name for name in TUNNELS if name in names]:
        advice = f"reports within {_some(tunnels)} are not read: end the tunnel in front of the collector"
    elif others := [name for name in OTHER_TELEMETRY if name in names]:
        advice = (
            f"{_some(others)} is other telemetry than INT: switch on INT reports, and give their UDP port by `--port`"
        )
    else:
        advice = "none of these is for reports: look at the switches' report session, its address and UDP port"
    return Finding("other port", state, found, advice)


def _no_udp(lately: _Lately, state: Level) -> Finding:
    names = {
        "pass_not_udp": "of other protocols over IP", "pass_fragment": "fragments", "pass_not_ip": "not IP",
        "pass_vlan_depth": "behind more than two VLAN tags",
    }  # fmt: skip
    parts = collections.Counter[str]()
    for outcome, packets in lately.outcomes.items():
        parts[names.get(outcome, "damaged")] += packets
    words = [f"{count(packets)} {what}" for what, packets in parts.most_common()]
    return Finding(
        "no UDP", state,
        f"{lately.when}{_packets(lately.packets, 'packet')}, none of them a whole UDP packet: {_some(words)}",
        "reports are UDP: look at the switches' report session. Behind an MPLS label, or in a GRE or ERSPAN tunnel, "
        "they are not read: have it taken off before they arrive",
    )  # fmt: skip


# --- reports that are not read, or tell nothing -----------------------------------------------------------------------


def _by_source(lately: _Lately, kind: str) -> dict[str, list[tuple[Refusal, int]]]:
    """Rows by the exporter's address, those of most packets first."""
    found: dict[str, list[tuple[Refusal, int]]] = {}
    for row, packets in lately.refusals:
        if MEANINGS[row.outcome].kind == kind:
            found.setdefault(row.source, []).append((row, packets))
    return found


def _suggested(lately: _Lately, rows: Sequence[tuple[Refusal, int]], budget: list[int]) -> Verdict:
    """What reads most of an exporter's packets right."""
    known = [(row.specimen, packets) for row, packets in rows if row.specimen.frame][: max(0, budget[0])]
    budget[0] -= len(known)
    verdict = judge(known, How.of(lately.config, rows[0][0].source)) if known else Verdict()
    return verdict if 2 * verdict.packets >= sum(n for _, n in rows) else Verdict()


def _ways(changes: Sequence[Changes]) -> str:
    """Options to give, or not to give."""
    return " or ".join(_options(dict(one)) for one in changes)


def _options(changes: Mapping[str, Any]) -> str:
    given = {name: value for name, value in changes.items() if value is not False}
    words = [f"`{options_text(given)}`"] if given else []
    words += [f"without `--{name.replace('_', '-')}`" for name in changes.keys() - given.keys()]
    return " ".join(words)


def _malformed(lately: _Lately) -> Iterator[Finding]:
    if not lately.malformed:
        return
    state: Level = "bad" if lately.malformed > lately.reports else "warn"
    budget = [MAX_JUDGED]
    groups: dict[Any, list[tuple[str, list[tuple[Refusal, int]]]]] = {}
    named = 0
    for source, rows in _by_source(lately, "malformed").items():
        refused = sum(packets for _, packets in rows)
        named += refused
        # what would be set for a source's malformed reports would be set for its right ones, too
        mixed = 2 * refused < lately.received_from[source]
        verdict = Verdict() if mixed else _suggested(lately, rows, budget)
        groups.setdefault((verdict.changes, verdict.cut, mixed, rows[0][0].outcome), []).append((source, rows))
    for (best, cut, mixed, outcome), sources in groups.items():
        outcomes = collections.Counter[str]()
        for _, rows in sources:
            outcomes.update({row.outcome: packets for row, packets in rows})
        said = ", ".join(
            name if len(outcomes) == 1 else f"{name} {count(packets)}" for name, packets in outcomes.most_common()
        )
        total = sum(outcomes.values())
        addresses = _some([source or "an unknown address" for source, _ in sources])
        found = f"{lately.when}{_packets(total, 'report')} from {addresses} malformed ({said})"
        if best:
            advice = _try(lately, best, sources)
            if cut:
                found += f": they are laid out as {_ways(best)} says, and end before their hops do"
                advice += "; what ends too early stays malformed, as ONOS' reports about TCP flows"
            else:
                found += f": they read right as {_ways(best)}"
            yield Finding("malformed", state, found, advice)
        else:
            meaning = MEANINGS[outcome]
            advice = "most of what it sends is right: does something else send from this address?"
            yield Finding(
                "malformed", state, f"{found}: {_within(meaning.says)}", advice if mixed else _within(meaning.cause)
            )
    others = lately.malformed - named
    if not named:
        yield from _malformed_unnamed(lately, state)
    elif others > lately.malformed // 10 or (others > 0 and len(lately.seen.refusals) >= MAX_REFUSALS):
        # fewer, while there is room, are those that came between the two looks
        yield Finding(
            "malformed", state, f"{lately.when}{_packets(others, 'malformed report')} of other sources",
            "see `int_packets_total` by outcome",
        )  # fmt: skip


def _malformed_unnamed(lately: _Lately, state: Level) -> Iterator[Finding]:
    """Where nothing is known but the outcomes."""
    for name, packets in sorted(lately.outcomes.items(), key=lambda one: -one[1]):
        if MEANINGS[name].kind == "malformed":
            meaning = MEANINGS[name]
            found = f"{lately.when}{_packets(packets, 'report')} malformed ({name})"
            yield Finding("malformed", state, f"{found}: {_within(meaning.says)}", _within(meaning.cause))


def _within(sentence: str) -> str:
    """A sentence as a part of another one."""
    sentence = sentence.removesuffix(".")
    plain = (
        len(sentence) > 1 and not sentence[1].isupper() and not sentence.startswith(("INT", "IP", "UDP", "Telemetry"))
    )
    return sentence[0].lower() + sentence[1:] if sentence and plain else sentence


def _try(lately: _Lately, best: Sequence[Changes], sources: Sequence[tuple[str, Any]]) -> str:
    """To change how some exporters' reports are read; not how others' are, which are read right."""
    addresses = {source for source, _ in sources}
    others = any(reports and address not in addresses for address, reports in lately.received_from.items())
    changes = dict(best[0])
    if (others or lately.config.sources) and changes.keys() <= {"profile", "int_dscp"}:
        lines = " and ".join(_in_file(name, value) for name, value in changes.items())
        return f"give {_some(sorted(addresses))} {lines} in a file of `--sources` (docs/options.md)"
    return f"try {_ways(best)}"


def _in_file(name: str, value: Any) -> str:
    """A line of a file of sources."""
    text = "off" if value is None else f"{value[0]}/{value[1]}" if isinstance(value, tuple) else value
    return f'`{name.replace("_", "-")} = "{text}"`'


def _without_int(lately: _Lately) -> Iterator[Finding]:
    """Reports that are right, and in which no INT was found."""
    if not lately.reports:
        return
    explained = False
    budget = [MAX_JUDGED]
    flows = lately.seen.flows
    unexplained = 0
    for source, rows in _by_source(lately, "report").items():
        total = sum(packets for _, packets in rows)
        verdict = _suggested(lately, rows, budget)
        if not verdict.changes:
            unexplained += total
            continue
        explained = True
        state: Level = "warn" if flows.paths else "bad"
        found = f"{lately.when}{_packets(total, 'report')} from {source} with INT that is not found"
        if "int_dscp" in (changes := dict(verdict.changes[0])):
            found, advice = _other_mark(lately, found, rows[0][0], changes)
        elif verdict.cut:
            found += f": it is laid out as {_ways(verdict.changes)} says, and ends before its hops do"
            advice = _try(lately, verdict.changes, [(source, rows)])
        else:
            found += f": it reads right as {_ways(verdict.changes)}"
            advice = _try(lately, verdict.changes, [(source, rows)])
        yield Finding("no INT", state, found, advice)
    if flows.seen and not flows.paths and not explained:
        number = unexplained or lately.reports
        yield Finding(
            "no INT", "warn", f"{lately.when}{count(number)} reports, and none with INT: no path can be shown",
            "do the switches on the way add INT, and does the last one report a packet with it still inside? "
            + (
                "INT is looked for in packets marked as `--int-dscp` says: try `--int-dscp off`"
                if lately.config.int_dscp is not None
                else "`intcollector decode` shows what is in a capture of them"
            ),
        )  # fmt: skip


def _other_mark(lately: _Lately, found: str, row: Refusal, changes: dict[str, Any]) -> tuple[str, str]:
    """INT that is there when one does not look at the mark: found and advice."""
    how = How.of(lately.config, row.source)
    value, mask = how.int_dscp or (0, 0)
    now, then = _flow(row, how), _flow(row, dataclasses.replace(how, **changes))
    others = {name: value for name, value in changes.items() if name != "int_dscp"}
    rest = f" {options_text(others)}" if others else ""
    if now["destination_port"] != then["destination_port"]:  # that of the packet before a source took it
        port = now["destination_port"]
        return (
            f"{found}: their packets go to UDP port {port}, and `--int-udp-port` is {how.int_udp_port}",
            f"try `--int-udp-port {port}{rest}`",
        )
    found += f": their packets have DSCP {now['dscp']}, and `--int-dscp` is {value}{'' if mask == 63 else f'/{mask}'}"
    if not now["dscp"]:  # what is on all packets is no mark
        return found, f"try `--int-dscp off{rest}`: the sink puts back what a packet had before, or there is no mark"
    return (
        found,
        f"try `--int-dscp {now['dscp']}{rest}`, or `--int-dscp off{rest}` if the sink puts back what a packet had "
        "before",
    )


def _flow(row: Refusal, how: How) -> Mapping[str, Any]:
    """Of the packet that a report is about."""
    reports = read(row.specimen, how)["reports"]
    return (reports[0]["flow"] if reports else None) or wire.no_flow([])


_FORMS = {
    "pass_fragment": (
        "fragments", "fragments of IP packets",
        "raise the MTU on the way to the collector, or have less of a packet mirrored",
    ),
    "pass_vlan_depth": (
        "VLAN tags", "packets behind more than two VLAN tags", "have the outer tags taken off before they arrive",
    ),
}  # fmt: skip
"""Forms of packets that are not read: what the finding is about, what they are, and what to do."""


def _not_read(lately: _Lately) -> Iterator[Finding]:
    """What could be reports, and comes in a form that is not read."""
    outcomes = lately.outcomes
    much = max(1, lately.reports // 100)
    for outcome, (what, packets, advice) in _FORMS.items():
        if (number := outcomes.get(outcome, 0)) >= much:
            yield Finding(
                what,
                "warn",
                f"{lately.when}{count(number)} {packets}, which are not read",
                f"if they are reports: {advice}",
            )
    if unknown := outcomes.get("unknown_encapsulation"):
        yield Finding(
            "encapsulation", "warn",
            f"{lately.when}{count(unknown)} of {count(lately.reports)} reports are of packets in an encapsulation that "
            "is not read: they are kept without INT",
            _within(MEANINGS["unknown_encapsulation"].cause) + ": docs/wire.md has those that are read",
        )  # fmt: skip
    if lost := outcomes.get("undecoded"):
        yield Finding(
            "undecoded", "bad",
            f"{lately.when}{_packets(lost, 'packet')} of reports too long or too nested for the kernel given up: no "
            "room to hand them on",
            _within(MEANINGS["undecoded"].cause),
        )  # fmt: skip


# --- loss -------------------------------------------------------------------------------------------------------------

_COUNTS = LAYOUT.enums["source_flag"]["SOURCE_COUNTS"]
MUCH_LOSS = 0.1
MIN_SILENT = 10
"""Reports after which a source that always said 0 is taken for one that does not count."""


def _whose(lately: _Lately, row: int) -> str:
    """A source, as one would call it."""
    source = lately.seen.sources[row]
    reporter = int(source["switch_id"]) if int(source["switch_id"]) != NONE32 else int(source["reporter"])
    return lately.addresses[row] + (f" (switch {reporter})" if reporter != NONE32 else "")


def _loss(lately: _Lately) -> Iterator[Finding]:
    """By sequence numbers."""
    received = lately.received
    lost = np.maximum(lately.of_sources("lost"), 0)
    if total := int(lost.sum()):
        rows = [int(row) for row in np.argsort(-lost, kind="stable") if lost[row]]
        of_these = int((received + lost)[rows].sum())
        whose = _some([_whose(lately, row) for row in rows])
        drops = any(lately.drops(one) for one in lately.interfaces)
        yield Finding(
            "report loss", "bad" if total > MUCH_LOSS * of_these else "warn",
            f"{lately.when}{count(total)} of {count(of_these)} reports from {whose} did not arrive "
            f"({ratio(total / of_these)}), by their sequence numbers",
            "the interface drops packets: see there"
            if drops
            else "lost on the way, or by the card before the collector saw them: "
            f"`ethtool -S {_first(lately)}` has its counters",
        )  # fmt: skip
    again = lately.of_sources("duplicated")
    if (total := int(again.sum())) * 100 > int(received.sum()) > 0:
        rows = [int(row) for row in np.argsort(-again, kind="stable") if again[row]]
        yield Finding(
            "duplicates", "warn",
            f"{lately.when}{count(total)} of {count(int(received.sum()))} reports came again, from "
            f"{_some([_whose(lately, row) for row in rows])}",
            "are they mirrored twice, or sent over two ways? What they say is counted twice",
        )  # fmt: skip
    anew = np.maximum(lately.of_sources("restarted"), 0)  # one that was none is taken back
    if total := int(anew.sum()):
        rows = [int(row) for row in np.argsort(-anew, kind="stable") if anew[row]]
        times = "once" if total == 1 else f"{count(total)} times"
        yield Finding(
            "restarts", "warn",
            f"{lately.when}{_some([_whose(lately, row) for row in rows])} began to count anew {times}",
            "it restarted; or two exporters share one address, switch id and hw_id: give each its own",
        )  # fmt: skip
    silent = (lately.seen.sources["flags"] & _COUNTS == 0) & (lately.seen.sources["received"] >= MIN_SILENT)
    if silent.any():
        rows = [int(row) for row in np.flatnonzero(silent)]
        whose = _some([_whose(lately, row) for row in rows])
        verb = "does" if len(rows) == 1 else "do"
        yield Finding(
            "sequence numbers", "ok", f"{whose} {verb} not count reports: whether some are lost cannot be seen"
        )


# --- what reports say -------------------------------------------------------------------------------------------------


def _latency(lately: _Lately) -> Iterator[Finding]:
    """Latencies that cannot be."""
    flows = lately.seen.flows
    if flows.asked < MIN_FLOWS:
        return
    what = "flows" if lately.seen.kind == "collector" else "reports"
    units = {own.latency_unit for _, own in lately.config.profiles()}
    unit = lately.config.latency_unit
    read_in = unit if len(units) == 1 else "the units that are set"
    if not flows.known:
        yield Finding(
            "latency", "warn",
            f"none of {count(flows.asked)} {what} has a latency, though the switches are asked for it",
            "they have none to give (all ones in the reports): ask for both timestamps (instruction bits 4 and 5), "
            "whose difference is taken then",
        )  # fmt: skip
    elif flows.zero == flows.known:
        yield Finding(
            "latency", "warn", f"the latency of all {count(flows.known)} {what} is 0",
            "the switches put 0 where they have no clock, or count in a unit too large for it: look at their INT "
            "settings",
        )  # fmt: skip
    elif flows.median_s is not None and flows.median_s < FASTEST_S:
        larger = {"ns": "us", "2^-32s": "us", "us": "ms"}.get(unit, "us")
        yield Finding(
            "latency", "warn",
            f"half of the hops take less than {time(flows.median_s)}, which no switch can: they are read in {read_in}",
            f"do the switches count in another unit? try `--latency-unit {larger}`",
        )  # fmt: skip
    elif flows.median_s is not None and flows.median_s > SLOWEST_S:
        smaller = {"us": "ns", "ms": "us", "2^-32s": "ns"}.get(unit)
        advice = (
            f"do the switches count in another unit? try `--latency-unit {smaller}`"
            if smaller
            else "timestamps may be of another size than expected: compare with docs/exporters-seen.md, try another "
            "`--profile`"
        )
        yield Finding(
            "latency", "warn",
            f"half of the hops take more than {time(flows.median_s)}, which no buffer lasts: they are read in "
            f"{read_in}",
            advice,
        )  # fmt: skip


# --- room -------------------------------------------------------------------------------------------------------------

_WRONG_IDS = "a wrong `--profile` makes up such ids: look whether they are real"
_NO_ROOM: Mapping[str, tuple[str, str]] = {
    "flows": ("new flows", ""),
    "points": (f"more than {count(LAYOUT.defines['MAX_POINTS'])} switch ports or queues", _WRONG_IDS),
    "sources": ("new sources", "sources are told apart by address, switch id and hw_id: are these real?"),
    "drops": ("drop reports of new switches and reasons", _WRONG_IDS),
    "places": (
        f"postcards of flows through more than {LAYOUT.defines['MAX_HOPS']} switches",
        "are the flows in a loop, or do the switches' ids change?",
    ),
}
"""By seen.ROOMS: what found no room, and what to do."""


LARGEST_RING, MOST_FLOWS = 1024, 1 << 24
"""What --ring-size and --max-flows take at most."""


def _room(lately: _Lately) -> Iterator[Finding]:
    config = lately.config
    if lost := lately.events_lost:
        total = lost + lately.events
        larger = f"try `--ring-size {2 * config.ring_size}`; or " if 2 * config.ring_size <= LARGEST_RING else ""
        yield Finding(
            "event loss", "bad" if lost > 0.01 * total else "warn",
            f"{lately.when}{count(lost)} of {count(total)} events lost: their buffer of {config.ring_size} MiB was "
            "full",
            f"{larger}have fewer events, by larger thresholds (docs/options.md)",
        )  # fmt: skip
    if lately.lost_between_cpus:
        yield Finding(
            "other CPUs", "bad",
            f"{lately.when}{count(lately.lost_between_cpus)} reports found no room in another CPU's queue (`--cpus "
            f"{config.cpus}`)",
            "give more CPUs, or keep other work off them: docs/cpus.md",
        )  # fmt: skip
    more_flows = f"try `--max-flows {min(MOST_FLOWS, 2 * config.max_flows)}`"
    if config.max_flows == MOST_FLOWS:
        more_flows = "no more can be kept"
    for name, packets in lately.refused.items():
        what, advice = _NO_ROOM[name]
        if name == "flows":
            advice = more_flows
        yield Finding("no room", "warn", f"{lately.when}no room for {what}: {count(packets)} refused", advice)
    if lately.seen.kind == "collector" and lately.seen.flows.kept >= config.max_flows:
        yield Finding(
            "no room", "warn",
            f"{count(lately.seen.flows.kept)} flows are kept, as many as may be: the least recently used ones go",
            f"if that is too few: {more_flows}",
        )  # fmt: skip


_LOSS_ADVICE = {
    "buffer_full": "give it more memory (`--push-buffer`), or disk to wait on (`--spool`)",
    "spool_full": "give it more disk: `--spool-size`",
}


def _exporters(lately: _Lately, before: Seen | None) -> Iterator[Finding]:
    old = {one.name: one.counts for one in before.exporters} if before else {}
    for one in lately.seen.exporters:
        counts = one.counts
        lost = _less(counts.lost, (old.get(one.name) or Counts()).lost) if counts else {}
        if lost:
            said = ", ".join(f"{reason} {count(n)}" for reason, n in sorted(lost.items(), key=lambda item: -item[1]))
            worst = max(lost, key=lambda reason: lost[reason])
            yield Finding(
                "exporter", "bad", f"{lately.when}{one.name} gave up {count(sum(lost.values()))} points ({said})",
                _LOSS_ADVICE.get(worst, f"look into what the collector says of {one.name} on stderr"),
            )  # fmt: skip
        if one.problem:
            waiting = ""
            if counts and counts.buffered:
                waiting = f"; {count(counts.buffered)} points wait, the oldest for {_duration(counts.age_s)}"
            problem = one.problem if one.problem.startswith(one.name) else f"{one.name}: {one.problem}"
            yield Finding(
                "exporter", "warn", f"{problem}{waiting}",
                "points are kept until it takes them again; `intcollector doctor` with its options looks at that "
                "server",
            )  # fmt: skip
        elif counts and counts.age_s > max(BEHIND_S, 2 * lately.config.push_interval):
            yield Finding(
                "exporter", "warn",
                f"{one.name} is behind: {count(counts.buffered)} points wait, the oldest for {_duration(counts.age_s)}",
                "the server takes points slower than they come: give it more, or have fewer events (docs/delivery.md)",
            )  # fmt: skip


BEHIND_S = 30.0
"""The age of the oldest point that waits, where --push-interval does not let it wait as long."""


def _relay(lately: _Lately, before: Seen | None) -> Iterator[Finding]:
    relay = lately.seen.relay
    assert relay is not None
    old = before.relay if before and before.relay else Relay()
    if missed := relay.missed - old.missed:
        yield Finding(
            "relay", "bad", f"{lately.when}{count(missed)} messages were removed from Kafka before they were read",
            "start more relays of the same group, or keep messages longer (the topic's retention.ms)",
        )  # fmt: skip
    if refused := relay.refused - old.refused:
        yield Finding(
            "relay", "warn", f"{lately.when}{count(refused)} messages in Kafka are no event",
            "does something else write to this topic? `int_relay_messages_refused_total` has the reasons",
        )  # fmt: skip
    if relay.paused:
        yield Finding(
            "relay", "warn", "nothing is read from Kafka: an exporter has to catch up first",
            "look at the exporters; the events wait in Kafka",
        )  # fmt: skip


# --- all is well ------------------------------------------------------------------------------------------------------


def _well(lately: _Lately, before: Seen | None, findings: Sequence[Finding]) -> list[Finding]:
    """What arrives; and that nothing is lost, if so. A line must be there."""
    seen = lately.seen
    seconds = max(lately.seconds, 1e-9)
    if any(finding.what == "stopped" for finding in findings):
        return []
    if seen.relay is not None:
        read_ = seen.relay.events - (before.relay.events if before and before.relay else 0)
        behind = "" if seen.relay.lag is None else f"; {_packets(seen.relay.lag, 'message')} to go"
        return [Finding("relay", "ok", f"{rate(read_ / seconds)} events/s from Kafka{behind}")]
    if not lately.reports:
        if not findings:
            return [Finding("reports", "ok", "no report in the last while")]
        return []
    if seen.kind == "file":
        flows = seen.flows
        return [Finding("reports", "ok", f"{_packets(lately.reports, 'report')} of {_packets(flows.kept, 'flow')}")]
    sources = int((lately.received > 0).sum())
    whose = f" from {_packets(sources, 'source')}" if sources else ""
    if seen.kind == "heard":
        return [
            Finding(
                "reports", "ok", f"{rate(lately.reports / seconds)} reports/s of {_packets(seen.flows.kept, 'flow')}"
            )
        ]
    if lately.when:
        found, span = f"{rate(lately.reports / seconds)} reports/s{whose}", " in the last minute"
    else:  # a rate since the start is no rate of now
        found, span = f"{_packets(lately.reports, 'report')}{whose} in {_duration(seen.seconds)}", ""
    if not any(f.state != "ok" for f in findings):
        found += f"; nothing lost{span}"
    return [Finding("reports", "ok", found)]
