"""Records back into a Batch: the inverse of series.records(), for events that were written down in the meantime.

    JSON message --> read()  --> record           what is no JSON ends here
    records      --> Events  --> Batch            and here what is no record: refused with a reason, never half-read

What records() does not say of a report (the bits of INT-MX that have no meaning here, reserved instruction bits of the
reporting switch) is not there again; nothing that is made of a batch depends on it:
records(batch_of(said), config) == said, and the points are those of the batch that the records were made of.
"""

from __future__ import annotations

import collections
import functools
import json
import operator
import re
import socket
import struct
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .batch import Batch
from .config import LATENCY_UNITS
from .layout import HEAD, HEAD_CELLS, HOP, MAX_HOPS, Change, ReportFlag
from .series import (
    HOP_CHANGES,
    INT_VERSIONS,
    LOCAL_FIELDS,
    LOCAL_NAMES,
    NONE8,
    NONE32,
    NONE64,
    PLACE_FIELDS,
    REPORT_VERSIONS,
    hop_plan,
)

T = TypeVar("T")

LONGEST = 1 << 16
"""Bytes of a message. A record with all that it can hold has a third of that."""
LATEST = 1 << 62
"""ns since 1970: what is behind that was never now."""
REASONS = ("too_long", "not_json", "not_a_record", "out_of_range", "unknown_word")
"""Why a message is refused."""


class Refused(ValueError):
    """It is not a record of an event. reason: of REASONS."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def read(message: bytes | None) -> Any:
    """What a message's JSON says. Errors: Refused."""
    if message is None:
        raise Refused("not_json", "the message is empty")
    if len(message) > LONGEST:
        raise Refused("too_long", f"{len(message)} bytes, and a record has at most {LONGEST}")
    try:
        return json.loads(message.decode())
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of thousands of digits
        raise Refused("not_json", f"{error}") from None


def of_messages(messages: Iterable[bytes | None]) -> tuple[Batch, collections.Counter[str]]:
    """The events of messages, in their order, and how many messages were refused, by reason."""
    events, refused = Events(), collections.Counter[str]()
    for message in messages:
        try:
            events.add(read(message))
        except Refused as error:
            refused[error.reason] += 1
    return events.batch(), refused


def batch_of(records: Iterable[Mapping[str, Any]]) -> Batch:
    """The events of records. Errors: Refused, at the first that is none."""
    events = Events()
    for record in records:
        events.add(record)
    return events.batch()


# --- what a record may hold -------------------------------------------------------------------------------------------

BIT = types.SimpleNamespace(**{flag.name or "": flag.value for flag in ReportFlag})
"""ReportFlag as plain numbers: looking at an enum takes longer than what is done with it."""
INT = {int}
INT_OR_NONE = {int, type(None)}
BOOL = {bool}
MODES = {"MD": 0, "MX": BIT.INT_MX}
VERSION_OF_REPORT = {name: number for number, name in REPORT_VERSIONS.items()}
VERSION_OF_INT = {name: number for number, name in INT_VERSIONS.items()}
UNITS = {name: number for number, name in enumerate(LATENCY_UNITS)}

_REPORT = operator.itemgetter(
    "version", "source", "switch_id", "hw_id", "sequence_number", "ingress_timestamp", "dropped", "congested_queue",
    "tracked_flow", "intermediate", "local_hop", "flow", "int", "received_ns", "changes",
)  # fmt: skip
_FLOW = (
    "vlan_ids", "ip_version", "source", "destination", "protocol", "source_port", "destination_port", "dscp",
)  # fmt: skip
_STACK = ("version", "mode", "instruction_bitmap", "hop_ml", "remaining_hop_count", "hop_count", "hops", "latency")
_flow, _stack, _place = operator.itemgetter(*_FLOW), operator.itemgetter(*_STACK), operator.itemgetter(*PLACE_FIELDS)
_postcards = operator.itemgetter("hop_count", "hops", "latency")

_ROW = (
    "received_ns", "latency", "flow_latency", "switch_id", "sequence_number", "ingress_timestamp", "flags", "changes",
    "hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes", "instruction_bitmap", "local_bitmap",
    "hop_count", "source_port", "destination_port", "report_version", "int_version", "hw_id", "hop_ml",
    "remaining_hop_count", "vlan_count", "protocol", "dscp", "time_unit",
    "vlan_ids", "source", "flow_source", "flow_destination",
)  # fmt: skip
"""What is known of a head at once, in an order of its own: bpf/report.h may have another."""

ROW = np.dtype([(name, HEAD[name]) for name in _ROW])
_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _letters(dtype: np.dtype) -> str:
    """As struct has it: a number, several, or bytes."""
    if dtype.subdtype is None:
        return _LETTERS[dtype.itemsize]
    one, (count,) = dtype.subdtype
    return f"{count}s" if one.itemsize == 1 else _LETTERS[one.itemsize] * count


_pack_row = struct.Struct("<" + "".join(_letters(ROW[name]) for name in _ROW)).pack

_CHANGES = ("changes", "hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes")
_WORDS: dict[Any, tuple[int, int]] = {
    **{(flag.name or "").lower(): (0, int(flag)) for flag in Change if flag not in [local for _, local in HOP_CHANGES]},
    **{("local", what): (0, int(local)) for what, local in HOP_CHANGES},
    **{(i, what): (at, 1 << i) for at, (what, _) in enumerate(HOP_CHANGES, 1) for i in range(MAX_HOPS)},
}
"""A change -> which of _CHANGES, and its bit there."""

NO_ADDRESS = bytes(16)
_FIRST_ORDER = 10**15
"""The places of a flow's postcards are in the order in which they were told: as if a microsecond lay between two."""


class _Plan(NamedTuple):
    """How so many hops with the same fields are packed. names: of the record. dtype: of a hop's fields, as stored.
    none: all ones in each. said: the number that stands for all ones in a local hop, else None."""

    names: tuple[str, ...]
    dtype: np.dtype
    pack: Any
    none: tuple[int, ...]
    said: tuple[int | None, ...]


@functools.lru_cache(1 << 12)
def _plan(local: bool, version: int, bitmap: int, count: int = 1) -> _Plan:
    plan = hop_plan(local, version, bitmap)
    stored = [LOCAL_NAMES[at] for _, at, _, _ in plan]
    dtype = np.dtype([(name, HOP[name] if name in (HOP.names or ()) else HEAD[name]) for name in stored])
    letters = "".join(_letters(dtype[name]) for name in stored)
    return _Plan(
        tuple(name for name, *_ in plan),
        dtype,
        struct.Struct("<" + letters * count).pack,
        tuple(none for _, _, none, _ in plan),
        tuple(said for *_, said in plan),
    )


@functools.lru_cache(1 << 12)
def _local_bitmap(version: int, names: tuple[str, ...]) -> int:
    """The bits that ask for these fields. Errors: Refused, where none do."""
    bitmap = sum(mask for mask, fields in LOCAL_FIELDS[version].items() if fields[0] in names)
    if {name for name, *_ in hop_plan(True, version, bitmap)} != set(names):
        raise Refused("not_a_record", "the fields of local_hop do not belong together")
    return bitmap


@functools.lru_cache(1 << 16)
def _packed(address: str, version: int) -> bytes:
    """16 bytes. Errors: Refused."""
    try:
        return socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, address).ljust(16, b"\0")
    except (OSError, ValueError):
        raise Refused("out_of_range", "no address of that IP version") from None


@functools.lru_cache(1 << 12)
def _bitmap(text: str) -> int:
    if not re.fullmatch(r"0x[0-9a-f]{4}", text):
        raise Refused("not_a_record", "an instruction_bitmap is 0x and four hex digits")
    return int(text, 16)


def _numbers(*values: Any) -> None:
    """Errors: Refused, where one is no whole number. A bool is none, and struct would take it for one."""
    if set(map(type, values)) != INT:
        raise Refused("not_a_record", "a number is not a whole number")


def _known(words: Mapping[Any, T], word: Any, what: str) -> T:
    try:
        return words[word]
    except KeyError:
        raise Refused("unknown_word", f"an unknown {what}") from None


class Events:
    """Records, one by one, until batch() has them all.

    A Python loop over records, and over what each holds: they are Python objects, every one of them may be wrong, and
    what is wrong must not touch the next. What can wait is done for all of them at once, in batch().
    """

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._local: dict[tuple[int, int], tuple[list[int], list[bytes]]] = {}  # by version and bitmap
        self._hops: dict[tuple[int, int], tuple[list[int], list[int], list[bytes]]] = {}  # row, how many
        self._places: tuple[list[int], list[tuple[int, ...]]] = ([], [])

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, record: Any) -> None:
        """Errors: Refused, and nothing of the record is kept. Keys that records() does not know are left alone: a newer
        collector may say more."""
        try:
            self._add(record)
        except Refused:
            raise
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Refused("not_a_record", f"{type(error).__name__}: {error}") from None
        except (struct.error, OverflowError) as error:
            raise Refused("out_of_range", str(error)) from None

    def _add(self, record: Mapping[str, Any]) -> None:
        (version, source, switch_id, hw_id, sequence_number, ingress_timestamp, dropped, congested_queue, tracked_flow,
         intermediate, local_hop, flow, stack, received_ns, changes) = _REPORT(record)  # fmt: skip
        version = _known(VERSION_OF_REPORT, version, "version of Telemetry Report")
        if {type(dropped), type(congested_queue), type(tracked_flow), type(intermediate)} != BOOL:
            raise Refused("not_a_record", "one of D, Q, F and I is neither true nor false")
        flags = (
            dropped * BIT.DROPPED
            | congested_queue * BIT.CONGESTED_QUEUE
            | tracked_flow * BIT.TRACKED_FLOW
            | intermediate * BIT.INTERMEDIATE
        )
        if ":" in source:
            flags |= BIT.SOURCE_IPV6
        source = _packed(source, 6 if ":" in source else 4)
        if version == 5 and local_hop is None:
            if switch_id is not None:
                raise Refused("not_a_record", "a switch_id, which 0.5 has in local_hop only")
            switch_id = NONE32
        if (ingress_timestamp is None) != (version == 20):
            raise Refused("not_a_record", "an ingress_timestamp that should not be there, or should")
        ingress_timestamp = NONE32 if ingress_timestamp is None else ingress_timestamp
        _numbers(switch_id, hw_id, sequence_number, ingress_timestamp, received_ns)
        if not 0 <= received_ns < LATEST:
            raise Refused("out_of_range", "received_ns is no time")
        time_unit = _known(UNITS, record["time_unit"], "unit of time") if "time_unit" in record else 0

        local_bitmap = 0
        if local_hop is not None:
            flags |= BIT.LOCAL
            local_bitmap, local = self._local_of(version, local_hop)
        vlan_ids: tuple[int, ...] = ()
        flow_source = flow_destination = NO_ADDRESS
        protocol = source_port = destination_port = dscp = 0
        if flow is not None:
            flags |= BIT.INNER
            of_flow, vlan_ids, flow_source, flow_destination, protocol, source_port, destination_port, dscp = (
                self._flow_of(flow)
            )
            flags |= of_flow

        int_version = bitmap = hop_ml = remaining = hop_count = 0
        latency = flow_latency = NONE64
        hops: bytes | None = None
        if stack is not None:
            more, int_version, bitmap, hop_ml, remaining, hop_count, latency, hops = self._stack_of(stack)
            flags |= BIT.INT | more
            if more & BIT.HOPS_TRUNCATED:
                flow_latency = self._sum(record["flow_latency"])
        has_cards = "postcards" in record
        if has_cards:
            if hop_count:
                raise Refused("not_a_record", "postcards beside a stack")
            flags |= BIT.POSTCARD
            hop_count, flow_latency, places = self._cards_of(record["postcards"])

        if not isinstance(changes, list):
            raise Refused("not_a_record", "changes is not a list")
        bits = [0, 0, 0, 0]
        for change in changes:
            if isinstance(change, str):
                word = _WORDS.get(change)
            else:
                place, what = change["hop"], change["what"]
                if len(change) != 2 or not (type(place) is int or place == "local"):
                    raise Refused("not_a_record", "a change that is neither a word nor a hop's")
                word = _WORDS.get((place, what))
            if word is None:
                raise Refused("unknown_word", "an unknown change")
            bits[word[0]] |= word[1]

        row = _pack_row(
            received_ns, latency, flow_latency, switch_id, sequence_number, ingress_timestamp, flags, *bits, bitmap,
            local_bitmap, hop_count, source_port, destination_port, version, int_version, hw_id, hop_ml, remaining,
            len(vlan_ids), protocol, dscp, time_unit, *(*vlan_ids, 0, 0)[:2], source, flow_source, flow_destination,
        )  # fmt: skip

        # Nothing can go wrong any more.
        at = len(self._rows)
        self._rows.append(row)
        if local_hop is not None:
            rows, packed = self._local.setdefault((version, local_bitmap), ([], []))
            rows.append(at)
            packed.append(local)
        if has_cards:
            self._places[0].extend([at] * hop_count)
            self._places[1].extend(places)
        elif hops is not None:
            rows, counts, stacks = self._hops.setdefault((int_version, bitmap), ([], [], []))
            rows.append(at)
            counts.append(min(hop_count, MAX_HOPS))
            stacks.append(hops)

    @staticmethod
    def _local_of(version: int, said: Mapping[str, Any]) -> tuple[int, bytes]:
        """(local_bitmap, the fields packed). In a local hop all ones is a number, in the width it has on the wire."""
        if not isinstance(said, dict):
            raise Refused("not_a_record", "local_hop is no object")
        bitmap = _local_bitmap(version, tuple(said))
        plan = _plan(True, version, bitmap)
        values = [said[name] for name in plan.names]
        if not values:
            return bitmap, b""
        _numbers(*values)
        for i, (none, ones) in enumerate(zip(plan.none, plan.said, strict=True)):
            if ones != none and ones is not None and values[i] >= ones:
                if values[i] > ones:
                    raise Refused("out_of_range", f"{plan.names[i]} of local_hop is wider than on the wire")
                values[i] = none
        return bitmap, plan.pack(*values)

    @staticmethod
    def _flow_of(said: Mapping[str, Any]) -> tuple[int, tuple[int, ...], bytes, bytes, int, int, int, int]:
        """(flags, vlan_ids, source, destination, protocol, source_port, destination_port, dscp)"""
        vlan_ids, version, source, destination, protocol, source_port, destination_port, dscp = _flow(said)
        if len(said) != len(_FLOW) or not isinstance(vlan_ids, list) or len(vlan_ids) > 2:
            raise Refused("not_a_record", "a flow with other fields, or more than two tags")
        if vlan_ids:
            _numbers(*vlan_ids)
        flags = 0
        if version is None:
            if not (source is destination is protocol is source_port is destination_port is dscp is None):
                raise Refused("not_a_record", "a flow without IP that has more than tags")
            return 0, tuple(vlan_ids), NO_ADDRESS, NO_ADDRESS, 0, 0, 0, 0
        if type(version) is not int or version not in (4, 6):
            raise Refused("out_of_range", "an ip_version other than 4 and 6")
        flags |= BIT.FLOW_IPV4 if version == 4 else BIT.FLOW_IPV6
        if source_port is None and destination_port is None:
            source_port = destination_port = 0
        else:
            flags |= BIT.FLOW_PORTS
        _numbers(protocol, source_port, destination_port, dscp)
        packed = _packed(source, version), _packed(destination, version)
        return flags, tuple(vlan_ids), *packed, protocol, source_port, destination_port, dscp

    def _stack_of(self, said: Mapping[str, Any]) -> tuple[int, int, int, int, int, int, int, bytes]:
        """(flags, int_version, instruction_bitmap, hop_ml, remaining_hop_count, hop_count, latency, hops packed)"""
        version, mode, bitmap, hop_ml, remaining, hop_count, hops, latency = _stack(said)
        truncated = len(said) == len(_STACK) + 1 and said["hops_truncated"] is True
        if len(said) != len(_STACK) + truncated or not isinstance(hops, list):
            raise Refused("not_a_record", "int with other fields")
        version = _known(VERSION_OF_INT, version, "version of INT")
        mx = _known(MODES, mode, "mode of INT")
        bitmap = _bitmap(bitmap)
        if mx or version == 5:
            if not hop_ml is remaining is None:
                raise Refused("not_a_record", "a hop_ml or remaining_hop_count that this version has not")
            hop_ml = remaining = 0
        _numbers(hop_ml, remaining, hop_count)
        if (MAX_HOPS if truncated else hop_count) != len(hops) or (hop_count > MAX_HOPS) != truncated:
            raise Refused("not_a_record", "hop_count is not that of the hops")
        flags = mx | truncated * BIT.HOPS_TRUNCATED
        packed = self._hops_of(version, bitmap, hops)
        return flags, version, bitmap, hop_ml, remaining, hop_count, self._sum(latency), packed

    @staticmethod
    def _hops_of(version: int, bitmap: int, hops: Sequence[Mapping[str, Any]]) -> bytes:
        plan = _plan(False, version, bitmap, len(hops))
        width = len(plan.names)
        for hop in hops:
            if type(hop) is not dict or len(hop) != width:
                raise Refused("not_a_record", "a hop's fields are not those of instruction_bitmap")
        values = [hop[name] for hop in hops for name in plan.names]
        if not values:
            return b""
        none = plan.none * len(hops)
        kinds = set(map(type, values))
        if not kinds <= INT_OR_NONE:
            raise Refused("not_a_record", "a hop has a field that is neither a whole number nor null")
        if True in map(operator.eq, values, none):
            raise Refused("out_of_range", "a hop's field of all ones, which is null in a record")
        if kinds != INT:
            values = [ones if one is None else one for one, ones in zip(values, none, strict=True)]
        packed: bytes = plan.pack(*values)
        return packed

    def _cards_of(self, said: Mapping[str, Any]) -> tuple[int, int, list[tuple[int, ...]]]:
        """(hop_count, flow_latency, the places: in the order of PLACE_FIELDS)"""
        count, hops, latency = _postcards(said)
        if len(said) != 3 or not isinstance(hops, list) or len(hops) > MAX_HOPS or count != len(hops):
            raise Refused("not_a_record", "postcards with other fields, or another number of hops")
        places = []
        for hop in hops:
            values = _place(hop)
            if len(hop) != len(PLACE_FIELDS) or not INT_OR_NONE.issuperset(map(type, values)):
                raise Refused("not_a_record", "a hop of postcards has other fields")
            place = tuple(ones if one is None else one for one, ones in zip(values, _PLACE_NONE, strict=True))
            if any(one is not None and not 0 <= one < ones for one, ones in zip(values, _PLACE_NONE, strict=True)):
                raise Refused("out_of_range", "a hop of postcards has a number that no field can hold")
            places.append(place)
        _numbers(count)
        return count, self._sum(latency), places

    @staticmethod
    def _sum(latency: int | None) -> int:
        if latency is None:
            return NONE64
        _numbers(latency)
        if not 0 <= latency < LATEST:
            raise Refused("out_of_range", "no sum of latencies")
        return latency

    # all at once

    def batch(self) -> Batch:
        """What was added, since 1970 (clock_ns is 0). Called once, at the end."""
        rows = np.frombuffer(b"".join(self._rows), ROW)
        heads = np.zeros(len(rows), HEAD)
        for name in _ROW:
            heads[name] = rows[name]
        heads["cell1"], heads["cell2"] = 1, 2
        heads["drop_queue_id"] = heads["drop_reason"] = NONE8
        self._put_local(heads)

        kept = np.minimum(heads["hop_count"], MAX_HOPS).astype(np.intp)
        starts = np.cumsum(kept) - kept
        hop_report = np.repeat(np.arange(len(heads)), kept)
        hop_index = np.arange(len(hop_report)) - starts[hop_report]
        hops = _no_values(len(hop_report))
        hops["cell"] = HEAD_CELLS + 1 + hop_index
        for (version, bitmap), (which, counts, packed) in self._hops.items():
            at, count = starts[which], np.array(counts)
            mine = np.repeat(at - (np.cumsum(count) - count), count) + np.arange(count.sum())
            _put(hops, mine, _plan(False, version, bitmap).dtype, packed)
        report, places = self._places
        if report:
            mine = np.flatnonzero(heads["flags"][hop_report] & ReportFlag.POSTCARD)
            for name, column in zip(PLACE_FIELDS.values(), zip(*places, strict=True), strict=True):
                hops[name][mine] = column
            hops["ingress_timestamp"][mine] = _FIRST_ORDER - 1000 * hop_index[mine]
        stack = heads["flags"][hop_report] & ReportFlag.POSTCARD == 0
        hops["latency"][stack] = _latencies(hops, heads, hop_report)[stack]
        self._sum_up(heads, hops, hop_report)
        return Batch(heads, hops, hop_report, hop_index, 0)

    def _put_local(self, heads: np.ndarray) -> None:
        local = _no_values(len(heads))
        local["cell"] = HEAD_CELLS
        local["switch_id"] = heads["switch_id"]
        for (version, bitmap), (which, packed) in self._local.items():
            dtype = _plan(True, version, bitmap).dtype
            if not dtype.itemsize:
                continue
            said = np.frombuffer(b"".join(packed), dtype)
            for name in dtype.names or ():
                (local if name in (HOP.names or ()) else heads)[name][which] = said[name]
        # before Telemetry Report 2.0 the time of arrival is in the report's header, and both are of 32 bits
        new = heads["report_version"] == 20
        arrived = np.where(new, local["ingress_timestamp"], heads["ingress_timestamp"].astype("<u8"))
        local["latency"] = _latency(local["hop_latency"], arrived, local["egress_timestamp"], new)
        heads["local"] = local

    @staticmethod
    def _sum_up(heads: np.ndarray, hops: np.ndarray, hop_report: np.ndarray) -> None:
        """flow_latency of stacks, which is the sum of their hops' latencies; of others it was said."""
        stacks = heads["flags"] & (ReportFlag.INT | ReportFlag.HOPS_TRUNCATED | ReportFlag.POSTCARD) == ReportFlag.INT
        has = np.flatnonzero(hops["latency"] != NONE32)
        # sums of at most MAX_HOPS times 32 bits are exact in a float64
        sums = np.bincount(hop_report[has], hops["latency"][has], len(heads)).astype("<u8")
        found = np.bincount(hop_report[has], minlength=len(heads)) > 0
        heads["flow_latency"][stacks & found] = sums[stacks & found]


_PLACE_NONE = tuple(int(np.iinfo(HOP[name]).max) for name in PLACE_FIELDS.values())


def _no_values(count: int) -> np.ndarray:
    """HOP (count,): all ones."""
    hops = np.frombuffer(b"\xff" * (HOP.itemsize * count), HOP).copy()
    hops["pad"] = 0
    return hops


def _put(hops: np.ndarray, rows: np.ndarray, dtype: np.dtype, packed: Sequence[bytes]) -> None:
    if dtype.itemsize and len(rows):
        said = np.frombuffer(b"".join(packed), dtype)
        for name in dtype.names or ():
            hops[name][rows] = said[name]


def _latencies(hops: np.ndarray, heads: np.ndarray, hop_report: np.ndarray) -> np.ndarray:
    """Of hops in stacks. INT 2.x has timestamps of 64 bits, 0.5 of 32, and 1.0 by profile: a hop with both timestamps
    has two words more than instruction bits where they are wide, and otherwise one at most (its level-2 ports)."""
    bits = np.unpackbits(heads["instruction_bitmap"][:, None].view("u1"), axis=1).sum(axis=1)
    wide = (heads["int_version"] == 20) | ((heads["int_version"] == 10) & (heads["hop_ml"] >= bits + 2))
    return _latency(hops["hop_latency"], hops["ingress_timestamp"], hops["egress_timestamp"], wide[hop_report])


def _latency(said: np.ndarray, ingress: np.ndarray, egress: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """What a hop said, or else the time between its timestamps; all ones: neither, or more than 32 bits of it."""
    apart = egress - ingress
    apart = np.where(wide, apart, apart & np.uint64(NONE32))
    none = (ingress == NONE64) | (egress == NONE64) | (apart > NONE32)
    return np.where(said != NONE32, said, np.where(none, NONE32, apart)).astype("<u4")
