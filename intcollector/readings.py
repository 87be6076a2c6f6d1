"""Which options would read reports that are refused, or that tell nothing, by looking at one of them.

A specimen is decoded (wire.py) in every way that an exporter could have meant it; what comes out is weighed: a hop's
latency is the difference of its timestamps, a path does not lead through a switch twice, a queue has a small number.
Of two ways that parse, the one that means something is the right one; where both do, both are named.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from . import wire
from .config import PROFILES, Config

__all__ = ["How", "Specimen", "Verdict", "Way", "is_report", "judge", "options_text", "read", "ways"]


@dataclasses.dataclass(frozen=True)
class How:
    """What of a Config decides how a report is read, of one source (wire.Settings)."""

    port: tuple[int, ...]
    int_dscp: tuple[int, int] | None
    profile: str
    tcp_int_position: str
    int_udp_port: int
    source_only_words: tuple[tuple[int, int], ...]
    reject_int_version_0: bool
    accept_report_length_1: bool
    int_gre_protocol: int

    @property
    def accepts_report_length_1(self) -> bool:
        """As Config has it."""
        return self.accept_report_length_1 or self.profile == "intcollector"

    def of_source(self, address: str) -> How:
        """These are a source's own."""
        return self

    @staticmethod
    def of(config: Config, source: str) -> How:
        """For the reports from an outer source address; "": for whoever has no entry in the file of sources."""
        own = config.of_source(source) if source else config
        return How(*(getattr(own, field.name) for field in dataclasses.fields(How)))


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A frame from its Ethernet header, as far as it was kept. length: on the wire."""

    frame: bytes
    length: int


Changes: TypeAlias = "tuple[tuple[str, Any], ...]"
"""Fields of How that are other than what is set, sorted by name."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to read a specimen that finds INT. weight: how much it means, 0 being nothing for it and nothing against
    it; below DOUBTFUL it only happens to parse. meaning: what comes out, equal for ways that say the same of every
    packet like this one. cut: its headers are right, and the packet ends before its hops do."""

    changes: Changes
    weight: float
    meaning: str
    cut: bool = False


DOUBTFUL = -1.5
CLOSE = 0.75
"""Ways whose weights differ by less are as good as each other."""
LARGEST_LENGTH = 9216
"""Bytes of a frame: what is said to be longer is not filled up."""


def read(specimen: Specimen, how: How) -> wire.Report:
    """As wire.decode; what is not there of the frame is taken for zeros. A hop of which not all is there has the name
    `incomplete`."""
    missing = min(specimen.length, LARGEST_LENGTH) - len(specimen.frame)
    if missing <= 0:
        return wire.decode(specimen.frame, how)
    answer = wire.decode(specimen.frame + bytes(missing), how)
    other = wire.decode(specimen.frame + b"\x55" * missing, how)
    if other["outcome"] != answer["outcome"]:  # it is decided by what is not there
        return {"outcome": "trunc_frame", "reports": []}
    for one, two in zip(answer["reports"], other["reports"], strict=True):
        if one["int"] and two["int"]:
            for hop, same in itertools.zip_longest(one["int"]["hops"], two["int"]["hops"]):
                if hop is not None and hop != same:
                    hop["incomplete"] = True
    return answer


@functools.lru_cache(1024)
def ways(specimen: Specimen, how: How) -> tuple[Way, ...]:
    """All ways to read it that find INT; what is set now is the one without changes, if it does. If there is none, ways
    in which only the end of it is missing."""
    found, cut = [], []
    for changes in _changes(specimen, how):
        other = dataclasses.replace(how, **changes)
        answer = read(specimen, other)
        with_int = [report for report in answer["reports"] if report["int"]]
        if with_int and answer["outcome"] == "ok":
            weight = min(_weight(report) for report in with_int)
            found.append(Way(tuple(sorted(changes.items())), weight, _meaning(with_int, other)))
        elif _is_cut(specimen, other, answer):
            cut.append(Way(tuple(sorted(changes.items())), 0.0, other.profile, cut=True))
    return tuple(found or cut)


def _is_cut(specimen: Specimen, how: How, answer: wire.Report) -> bool:
    """Whether INT is there but for its end. Where nothing says that there is INT, that is taken for none."""
    if answer["outcome"] == "ok" and how.int_dscp is None:
        flow = answer["reports"][0]["flow"]
        if flow and flow["dscp"] is not None:
            answer = read(specimen, dataclasses.replace(how, int_dscp=(flow["dscp"], 63)))
    return bool(answer["outcome"] == "trunc_stack")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """changes: several where they are as good as each other; of those that say the same only the fewest. None, if
    nothing helps, or if what is set now is as good as any. packets: that are read right then. cut: as in Way."""

    changes: tuple[Changes, ...] = ()
    packets: int = 0
    cut: bool = False


def judge(specimens: Sequence[tuple[Specimen, int]], how: How) -> Verdict:
    """Under which changes most reports of one source are read right. specimens: each with the packets that were like
    it."""
    packets: dict[Changes, int] = {}
    known: dict[Changes, list[Way]] = {}
    for specimen, count in specimens:
        for way in ways(specimen, how):
            if way.weight > DOUBTFUL:
                packets[way.changes] = packets.get(way.changes, 0) + count
                known.setdefault(way.changes, []).append(way)
    most = max(packets.values(), default=0)
    weights = {changes: min(way.weight for way in known[changes]) for changes in packets if packets[changes] == most}
    top = max(weights.values(), default=0.0)
    best: dict[tuple[str, ...], Changes] = {}
    for changes in sorted(weights, key=lambda changes: (len(changes), _preference(changes))):
        if weights[changes] > top - CLOSE:
            best.setdefault(tuple(way.meaning for way in known[changes]), changes)
    if not best or () in best.values():
        return Verdict()
    chosen = sorted(best.values(), key=lambda changes: (-weights[changes], len(changes), _preference(changes)))
    return Verdict(tuple(chosen), most, all(way.cut for way in known[chosen[0]]))


def _preference(changes: Changes) -> int:
    """Of ways that are as good: the specification's first, then the order of the profiles."""
    return PROFILES.index(dict(changes).get("profile", PROFILES[0]))


def is_report(frame: bytes, port: int, how: How) -> bool:
    """Whether a UDP packet to that port is a report about an IP packet, in some way that is known. Anything can be
    taken for a report about a packet that is not IP."""
    here = dataclasses.replace(how, port=(port,), int_dscp=None, accept_report_length_1=True)
    reports = wire.decode(frame, here)["reports"]
    return bool(reports) and all(r["flow"] and r["flow"]["ip_version"] for r in reports)


def options_text(changes: Mapping[str, Any]) -> str:
    """How one types it: `--profile onos`."""
    words = []
    for name, value in changes.items():
        option = "--" + name.replace("_", "-")
        if value is None:
            words.append(f"{option} off")
        elif isinstance(value, bool):
            words.append(option if value else f"(not {option})")
        elif isinstance(value, tuple):
            words.append(f"{option} {value[0]}" if value[1] == 63 else f"{option} {value[0]}/{value[1]}")
        else:
            words.append(f"{option} {value}")
    return " ".join(words)


# --- what could have been meant ---------------------------------------------------------------------------------------


def _changes(specimen: Specimen, how: How) -> Iterator[dict[str, Any]]:
    """What to try instead of what is set: {} first. Only what could make a difference to this specimen."""
    here = dataclasses.replace(how, accept_report_length_1=False, profile="spec", int_dscp=None)
    answer = read(specimen, here)
    is_length_1 = answer["outcome"] == "bad_report_len"
    if is_length_1:
        answer = read(specimen, dataclasses.replace(here, accept_report_length_1=True))
    flow = next((report["flow"] for report in answer["reports"] if report["flow"]), None)
    lengths: list[dict[str, Any]] = [{}]
    if is_length_1 and not how.accept_report_length_1:
        lengths.append({"accept_report_length_1": True})
    marks: list[dict[str, Any]] = [{}]
    if how.int_dscp is not None:
        marks.append({"int_dscp": None})
    positions: list[dict[str, Any]] = [{}]
    if flow is None or flow["protocol"] == wire.PROTOCOL_TCP:
        positions += [
            {"tcp_int_position": name}
            for name in ("auto", "before-options", "after-options")
            if name != how.tcp_int_position
        ]
    versions: list[dict[str, Any]] = [{}, {"reject_int_version_0": False}] if how.reject_int_version_0 else [{}]
    profiles: list[dict[str, Any]] = [{}, *({"profile": name} for name in PROFILES if name != how.profile)]
    for several in itertools.product(profiles, lengths, marks, positions, versions):
        changes = {name: value for one in several for name, value in one.items()}
        if changes.get("profile") == "intcollector" and "accept_report_length_1" in changes:
            continue  # it does that by itself
        yield changes


def _meaning(reports: Sequence[wire.Report], how: How) -> str:
    """What a way makes of packets like this one: what it says of it, and how it would split words that are 0 here."""
    said = []
    for report in reports:
        stack = report["int"]
        layout: object = None
        if stack and stack["version"] == "1.0":
            items = wire.ITEMS_1_0_BY_PROFILE[how.profile]
            bitmap = int(stack["instruction_bitmap"], 16)
            layout = [items[bit].fields for bit in wire.bits(bitmap) if bit in items]
        said.append((layout, report))
    return repr(said)


# --- what it means ----------------------------------------------------------------------------------------------------


RESERVED = {"0.5": range(8, 15), "1.0": range(8, 15), "2.x": range(9, 15)}
"""Instruction bits that nobody asks for."""


def _weight(report: wire.Report) -> float:
    """Of a report with a stack: 0 if nothing speaks for or against it; the mean of its hops, and what they say
    together."""
    stack = report["int"]
    hops = [hop for hop in stack["hops"] if "incomplete" not in hop]
    reserved = sum(bit in RESERVED[stack["version"]] for bit in wire.bits(int(stack["instruction_bitmap"], 16)))
    if not hops:
        return -0.5 - reserved
    weight = sum(_hop_weight(hop) for hop in hops) / len(hops) - reserved
    switches = [hop["switch_id"] for hop in hops if hop.get("switch_id") is not None]
    if "switch_id" in hops[0]:
        weight -= 3.0 * (len(switches) - len(set(switches))) / len(hops)
        weight -= 2.0 * sum(switch == 0 for switch in switches) / len(hops)
        weight -= 2.0 * (len(hops) - len(switches)) / len(hops)
        weight += 1.0 * (switches[:1] == [report["switch_id"]])
    return weight - 1.0 * (stack["hop_count"] > 32) + _order_weight(hops)


WIDEST_GAP = 1 << 30
"""Of 32 bits: a second, in ns. A random word is below it one time in four."""


def _hop_weight(hop: wire.Report) -> float:
    """Of what one hop says."""
    weight = 0.0
    came, left, latency = (hop.get(name) for name in ("ingress_timestamp", "egress_timestamp", "hop_latency"))
    if came is not None and left is not None:
        wide = max(came, left) >= 1 << 32
        difference = (left - came) % (1 << (64 if wide else 32))
        if latency is not None and _agree(difference, latency):
            weight += 3.0
        elif difference < WIDEST_GAP:
            weight += 1.0 if latency is None else -0.5
        else:
            weight -= 3.0
    if latency is not None and latency >= WIDEST_GAP:
        weight -= 2.0
    weight += _queue_weight(hop.get("queue_id"), hop.get("queue_occupancy"))
    for name, usual in (("ingress_port_id", 4096), ("egress_port_id", 4096)):
        if (value := hop.get(name)) is not None and value >= usual:
            weight -= 1.0
    for name in ("l2_ingress_port_id", "l2_egress_port_id", "egress_port_tx_utilization"):
        if (value := hop.get(name)) is not None and value >= 1 << 24:
            weight -= 1.0
    return weight


def _agree(difference: int, latency: int) -> bool:
    """Whether timestamps and latency say the same, to within what two clock readings cost; timestamps may be of a
    thousand times finer a unit (bmv2)."""
    return any(abs(difference - latency * unit) <= max(2 * unit, difference // 50) for unit in (1, 1000))


def _queue_weight(queue: int | None, occupancy: int | None) -> float:
    """A queue's number is small, and what is in it is less than a buffer of 64 MiB in cells of 64 bytes. Ids and
    occupancies of 16 bits each that are read as 8 and 24 make queue 0 of a huge occupancy; the other way round, ids
    that are multiples of 256."""
    if queue is None or occupancy is None:
        return 0.0
    if (queue == 0 and occupancy >= 1 << 16) or (queue and queue % 256 == 0):
        return -3.0
    return -1.0 if queue >= 128 or occupancy >= 1 << 20 else 0.0


def _order_weight(hops: Sequence[wire.Report]) -> float:
    """A packet is at one switch after the other: by clocks that are together, which they need not be."""
    times = [hop.get("ingress_timestamp") for hop in hops]  # nearest the sink first
    pairs = [(a, b) for a, b in itertools.pairwise(times) if a is not None and b is not None]
    if not pairs:
        return 0.0
    ordered = sum((later - earlier) % (1 << 32) < WIDEST_GAP for later, earlier in pairs)
    return 1.0 * ordered / len(pairs) - 0.5
