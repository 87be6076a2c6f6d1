"""Reports received, lost, reordered, duplicated, and exporters that began anew: sequence() of bpf/detect.h."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector import wire
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.layout import LAYOUT

from . import batches
from .frames import NONE32, Datapaths, frame, numbered, quiet
from .needs import needs_root

pytestmark = needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
WINDOW, GAP = LAYOUT.defines["SEQUENCE_WINDOW"], LAYOUT.defines["MAX_SEQUENCE_GAP"]
BELIEVED_AFTER = LAYOUT.defines["BELIEVED_AFTER"]
WRAP, WRAP22, RESTART = 2**32, 2**22, 2**24
"""RESTART: a jump ahead that is further can only be an exporter that began anew. Telemetry Report 2.0 has 22 bits."""
VERSIONS = {"0.5": WRAP, "1.0": WRAP, "2.0": WRAP22}
SEQUENCE_05_AT, GROUP_AT = 14 + 20 + 8 + 4, 14 + 20 + 8
"""Where a frame() has the number of Telemetry Report 0.5, and the first word of 2.0, whose last 22 bits it is."""


class Counts(NamedTuple):
    """What a source's entry says."""

    received: int
    lost: int = 0
    reordered: int = 0
    duplicated: int = 0
    restarted: int = 0


def counted(datapath: Datapath) -> dict[tuple[str, int, int], Counts]:
    """(address as hex, switch_id, hw_id) -> counts."""
    return {
        (s["address"].tobytes().hex(), int(s["switch_id"]), int(s["hw_id"])): Counts(
            *(int(s[name]) for name in Counts._fields)
        )
        for s in datapath.state().sources
    }


def numbered_as(version: str, numbers: Iterable[int], **more: Any) -> list[bytes]:
    """A report's frame with each of these sequence numbers."""
    if version == "1.0":
        return numbered(frame(CONFIG, **more), numbers)
    missing = {"switch_id": None} if version == "0.5" else {"ingress_timestamp": None}
    one = frame(CONFIG, **{"version": version, **missing, **more})
    at = SEQUENCE_05_AT if version == "0.5" else GROUP_AT
    kept = 0 if version == "0.5" else struct.unpack_from("!I", one, at)[0] & ~(WRAP22 - 1)
    return [one[:at] + struct.pack("!I", kept | n) + one[at + 4 :] for n in numbers]


def count(datapath: Datapath, numbers: Iterable[int], version: str = "1.0") -> Counts:
    """Run reports of one source with these sequence numbers."""
    for one in numbered_as(version, numbers):
        datapath.run(one)
    (counts,) = counted(datapath).values()
    return counts


def behind(suspect: int, highest: int, wrap: int) -> bool:
    """Was the number before suspect passed over?"""
    return (suspect - 1 - highest) % wrap >= wrap // 2


def model(numbers: Sequence[int], wrap: int = WRAP) -> Counts:
    """What sequence()'s comment says, without a wrap: positions since the exporter began, as many bits as it takes.

    wrap: how many numbers there are. seen: of the last WINDOW positions, those that came. What is between two positions
    that came is lost until it comes; what came before the first never counted as lost. suspect: where a number far away
    would go on.
    """
    lost = reordered = duplicated = restarted = 0
    highest, first, seen = 0, 0, set[int]()
    suspect: int | None = None
    before: tuple[int, int, set[int], int] | None = None  # a restart: highest, first, seen and lost as they were
    since = 0
    counts = False
    for at, number in enumerate(numbers):
        ahead = (number - highest) % wrap
        ahead -= wrap if ahead >= wrap // 2 else 0
        if before is not None:
            since += 1
            beyond = (number - before[0]) % wrap
            if since > BELIEVED_AFTER:
                before = None
            elif 0 < beyond <= WINDOW and ahead != 1 and before[3] >= since - 1:
                # it goes on where it was: no restart, what came since was late, and had been counted lost
                restarted, reordered = restarted - 1, reordered + since - 1
                highest, first, seen, lost = before[0], before[1], before[2], before[3] - (since - 1)
                before = suspect = None
                ahead = beyond
        if at == 0:
            highest, first, seen = number, number, {number}
        elif number == 0 and not counts:
            continue  # an exporter that only ever sent 0 does not count
        elif -WINDOW < ahead <= 0:
            position = highest + ahead
            if position in seen:
                duplicated += 1
            else:
                reordered += 1
                lost -= position > first
                seen.add(position)
        elif number == suspect:
            restarted, since, before = restarted + 1, 2, (highest, first, seen, lost)
            highest, first, seen, suspect = number, number - 1, {number - 1, number}, None
            continue
        elif 0 < ahead <= GAP or (GAP < ahead <= RESTART and number >= GAP):
            lost += ahead - 1
            highest += ahead
            seen.add(highest)
        elif suspect is not None and (number + 1) % wrap == suspect:
            duplicated += 1
            continue
        else:
            if suspect is not None:
                reordered, lost = reordered + 1, max(lost - behind(suspect, highest, wrap), 0)
            suspect = (number + 1) % wrap
            counts = True
            continue
        if suspect is not None:  # it did not go on there: what was far away was late
            reordered, lost, suspect = reordered + 1, max(lost - behind(suspect, highest, wrap), 0), None
        counts = counts or number != 0
        seen = {position for position in seen if position > highest - WINDOW}
    return Counts(len(numbers), lost, reordered, duplicated, restarted)


# fmt: off
CASES: list[tuple[str, list[int], Counts]] = [
    ("in order", [1, 2, 3, 4], Counts(4)),
    ("one alone", [77], Counts(1)),
    ("loss", [1, 2, 5, 6, 10], Counts(5, lost=5)),
    ("a swap", [1, 3, 2, 4], Counts(4, reordered=1)),
    ("a swap of the first two", [2, 1, 3], Counts(3, reordered=1)),
    ("loss, and one of the lost comes late", [1, 5, 3, 6], Counts(4, lost=2, reordered=1)),
    ("all of the lost come late", [1, 4, 3, 2, 5], Counts(5, reordered=2)),
    ("before the first: never counted lost", [100, 99, 98, 101], Counts(4, reordered=2)),
    ("duplicates", [1, 2, 2, 3, 3, 3, 1], Counts(7, duplicated=4)),
    ("a late one twice", [1, 3, 2, 2], Counts(4, reordered=1, duplicated=1)),
    ("late by 63", [1, 65, 2], Counts(3, lost=62, reordered=1)),
    ("late by 63, twice", [1, 65, 2, 2], Counts(4, lost=62, reordered=1, duplicated=1)),
    ("late by 64", [1, 66, 2, 67], Counts(4, lost=63, reordered=1)),
    ("late by thousands", [1, 5000, 7, 5001], Counts(4, lost=4997, reordered=1)),
    ("late by thousands, twice", [1, 5000, 7, 3, 5001], Counts(5, lost=4996, reordered=2)),
    ("seen 63 ago", [*range(1, 65), 1], Counts(65, duplicated=1)),
    ("the window after a jump further than it", [1, 1001, 1000, 938, 939], Counts(5, lost=996, reordered=3)),
    ("a wrap", [2**32 - 2, 2**32 - 1, 0, 1], Counts(4)),
    ("loss across the wrap", [2**32 - 3, 2], Counts(2, lost=4)),
    ("a swap across the wrap", [2**32 - 2, 0, 2**32 - 1, 1], Counts(4, reordered=1)),
    ("a duplicate across the wrap", [2**32 - 1, 0, 2**32 - 1], Counts(3, duplicated=1)),
    ("the signed middle is no border", [2**31 - 2, 2**31 - 1, 2**31, 2**31 + 2], Counts(4, lost=1)),
    ("the longest loss to small numbers", [2**32 - 65536, 0], Counts(2, lost=65535)),
    ("a longer loss, to a number that is not small", [2**32 - 5, 65536], Counts(2, lost=65540)),
    ("... and to a small one: begun anew", [2**32 - 5, 65534, 65535], Counts(3, restarted=1)),
    ("... which goes on to one that is not", [2**32 - 5, 65535, 65536], Counts(3, restarted=1)),
    ("a long loss", [1, 1_000_001, 1_000_002], Counts(3, lost=999_999)),
    ("the longest loss", [1, 2**24 + 1], Counts(2, lost=2**24 - 1)),
    ("further ahead is a new beginning", [1, 2**24 + 2, 2**24 + 3], Counts(3, restarted=1)),
    ("begun anew at 0", [1000, 1001, 0, 1, 2], Counts(5, restarted=1)),
    ("begun anew at 1", [5_000_000, 1, 2], Counts(3, restarted=1)),
    ("begun anew from high to small", [2**32 - 100_000, 5, 6], Counts(3, restarted=1)),
    ("begun anew just before the wrap", [1000, 2**32 - 1, 0, 1], Counts(4, lost=0, reordered=0, restarted=1)),
    ("begun anew, then loss", [1000, 0, 1, 5], Counts(4, lost=3, restarted=1)),
    ("begun anew, then a duplicate of both", [1000, 0, 1, 0, 1], Counts(5, duplicated=2, restarted=1)),
    ("begun anew, then late from before it", [1000, 10, 11, 9, 12], Counts(5, reordered=1, restarted=1)),
    ("begun anew twice", [1000, 0, 1, 100_000_000, 100_000_001], Counts(5, restarted=2)),
    ("two in a row from far back, and on where it was", [*range(1, 11), *range(13, 90), 11, 12, 90, 91],
     Counts(91, reordered=2)),
    ("begun anew, and on beyond where it was", [*range(1, 101), *range(1, 101), 102], Counts(201, lost=1, restarted=1)),
    ("far away once, and it did not go on there", [1000, 1, 1001], Counts(3, reordered=1)),
    ("always 0", [0] * 5, Counts(5)),
    ("a stray number from far ahead", [1, 100, 200_000_000, 101], Counts(4, lost=98, reordered=1)),
    ("0 for long, then counting", [0, 0, 0, 1, 2, 4], Counts(6, lost=1)),
    ("counting, then 0 twice", [1, 0, 0], Counts(3, reordered=1, duplicated=1)),
]
W, HALF = WRAP22, WRAP22 // 2
CASES_22: list[tuple[str, list[int], Counts]] = [
    *[(name, numbers, expected) for name, numbers, expected in CASES if max(numbers) < HALF],
    ("22 bits: a wrap", [4194302, 4194303, 0, 1], Counts(4)),
    ("22 bits: loss across the wrap", [W - 3, 2], Counts(2, lost=4)),
    ("22 bits: the last and the first are lost", [W - 2, 1], Counts(2, lost=2)),
    ("22 bits: a swap across the wrap", [W - 2, 0, W - 1, 1], Counts(4, reordered=1)),
    ("22 bits: all late across the wrap", [W - 3, 2, 1, 0, W - 1, W - 2, 3], Counts(7, reordered=4)),
    ("22 bits: a duplicate across the wrap", [W - 1, 0, W - 1], Counts(3, duplicated=1)),
    ("22 bits: late by 63 across the wrap", [W - 2, 61, W - 1, W - 1], Counts(4, lost=61, reordered=1, duplicated=1)),
    ("22 bits: late by 64 across the wrap", [W - 2, 63, W - 1, 64], Counts(4, lost=63, reordered=1)),
    ("22 bits: before the first, which is 0", [0, W - 1, 1], Counts(3, reordered=1)),
    ("22 bits: the signed middle is no border", [HALF - 2, HALF - 1, HALF, HALF + 2], Counts(4, lost=1)),
    ("22 bits: the longest loss to small numbers", [W - GAP, 0], Counts(2, lost=GAP - 1)),
    ("22 bits: ... and one more: begun anew", [W - GAP - 1, 0, 1], Counts(3, restarted=1)),
    ("22 bits: a longer loss, to a number that is not small", [W - 5, GAP], Counts(2, lost=GAP + 4)),
    ("22 bits: the longest loss", [GAP, GAP + HALF - 1], Counts(2, lost=HALF - 2)),
    ("22 bits: one more is backwards", [GAP, GAP + HALF, GAP + HALF + 1], Counts(3, restarted=1)),
    ("22 bits: begun anew at 0", [3_000_000, 3_000_001, 0, 1, 2], Counts(5, restarted=1)),
    ("22 bits: begun anew at 1", [1_500_000, 1, 2], Counts(3, restarted=1)),
    ("22 bits: begun anew at the end", [1000, W - 1, 0, 1], Counts(4, restarted=1)),
    ("22 bits: begun anew, then loss across the wrap", [1000, W - 2, W - 1, 3], Counts(4, lost=3, restarted=1)),
    ("22 bits: begun anew twice", [1000, 0, 1, 4_000_000, 4_000_001], Counts(5, restarted=2)),
    ("22 bits: far back once", [3_000_000, 1_000_000, 3_000_001], Counts(3, reordered=1)),
    ("22 bits: always 0", [0] * 5, Counts(5)),
    ("22 bits: always 0, then the end", [0, 0, W - 1, 0], Counts(4, reordered=1, duplicated=1)),
    ("22 bits: late behind the longest jump",
     [*range(GAP, GAP + 70), GAP + 69 + HALF - 1, GAP + 69 + HALF - 2], Counts(72, lost=HALF - 3, reordered=1)),
]
# fmt: on


@pytest.mark.parametrize("version", ["0.5", "1.0"])
@pytest.mark.parametrize(("numbers", "expected"), [pytest.param(n, e, id=name) for name, n, e in CASES])
def test_counts(datapaths: Datapaths, version: str, numbers: list[int], expected: Counts) -> None:
    """What is received, lost, late, doubled and begun anew is counted exactly."""
    assert model(numbers) == expected
    assert count(datapaths(CONFIG), numbers, version) == expected


@pytest.mark.parametrize(("numbers", "expected"), [pytest.param(n, e, id=name) for name, n, e in CASES_22])
def test_counts_of_22_bits(datapaths: Datapaths, numbers: list[int], expected: Counts) -> None:
    """Telemetry Report 2.0's numbers are shorter, and counted as exactly."""
    assert model(numbers, WRAP22) == expected
    assert count(datapaths(CONFIG), numbers, "2.0") == expected


@pytest.mark.parametrize(("version", "wrap"), VERSIONS.items(), ids=VERSIONS)
def test_late_ones_are_not_lost_however_long_the_exporter_runs(datapaths: Datapaths, version: str, wrap: int) -> None:
    """Further than half of all numbers from the first one, a late report is still no lost one."""
    step = min(RESTART, wrap // 16)
    jumps = [number % wrap for number in range(step, wrap + 4 * step, step) if number % wrap >= GAP]
    late = [jumps[-1] + step, jumps[-1] + step + 2, jumps[-1] + step + 1]
    assert count(datapaths(CONFIG), [1, *jumps, *late], version) == model([1, *jumps, *late], wrap)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_exporter_that_stops_counting_takes_back_no_loss(datapaths: Datapaths, version: str) -> None:
    """What was lost stays lost when an exporter that counted sends only 0 from then on."""
    assert count(datapaths(CONFIG), [1, 1001] + [0] * 50, version).lost == 999


@pytest.mark.parametrize(("version", "wrap"), VERSIONS.items(), ids=VERSIONS)
def test_round_and_round(datapaths: Datapaths, version: str, wrap: int) -> None:
    """Across the wrap in order nothing is lost; over many wraps what is lost is counted, once."""
    around = [number % wrap for number in range(wrap - 100, wrap + 100)]
    assert count(datapaths(CONFIG), around, version) == Counts(200)
    jumps = [number % wrap for number in range(0, 4 * wrap, min(wrap // 8, RESTART // 2)) if number % wrap >= GAP]
    lossy = [*jumps, jumps[-1] + 1]
    assert count(datapaths(CONFIG), lossy, version) == model(lossy, wrap)


def test_sources_are_counted_apart(datapaths: Datapaths) -> None:
    """Two hw_ids of one switch, two switches of one exporter, two exporters, all about one flow: each has numbers of
    its own."""
    datapath = datapaths(CONFIG)
    # each differs in one thing from the one before
    of: dict[tuple[str, int, int], tuple[dict[str, Any], list[int]]] = {
        ("c0000201", 1, 0): ({"source": "192.0.2.1"}, [1, 2, 3, 5, 6, 7]),
        ("c0000201", 1, 1): ({"source": "192.0.2.1", "hw_id": 1}, [0] * 6),
        ("c0000201", 2, 1): ({"source": "192.0.2.1", "switch_id": 2, "hw_id": 1}, [1000, 1, 2, 3, 4, 5]),
        ("c0000202", 2, 1): ({"source": "192.0.2.2", "switch_id": 2, "hw_id": 1}, [11, 13, 12, 14, 14, 15]),
        ("20010db8" + "00" * 11 + "01", 2, 1): (
            {"source": "2001:db8::1", "switch_id": 2, "hw_id": 1},
            [2**32 - 2, 0, 1, 2, 3, 2**32 - 1],
        ),
    }
    runs = [numbered(frame(CONFIG, **more), numbers) for more, numbers in of.values() if ":" not in more["source"]]
    six = [frame(CONFIG, sequence_number=n, **more) for more, ns in of.values() if ":" in more["source"] for n in ns]
    for together in zip(*runs, six, strict=True):
        for one in together:
            datapath.run(one)
    expected = {(key[0].ljust(32, "0"), *key[1:]): model(numbers) for key, (_, numbers) in of.items()}
    assert counted(datapath) == expected


def test_an_ipv4_address_is_no_ipv6_address(datapaths: Datapaths) -> None:
    """An IPv6 exporter whose address is an IPv4 one's with zeros behind is another source of the same flow."""
    datapath = datapaths(CONFIG)
    for _ in range(2):
        datapath.run(frame(CONFIG, source="192.0.2.1", sequence_number=5))
        datapath.run(frame(CONFIG, source="c000:201::", sequence_number=7))
    sources = datapath.state().sources
    assert sorted(zip(sources["ip_version"].tolist(), sources["received"].tolist(), strict=True)) == [(4, 2), (6, 2)]


def test_the_headers_of_0_5_share_their_numbers(datapaths: Datapaths) -> None:
    """Telemetry Report 0.5 counts by exporter and hw_id, whatever switch its reports name, or none."""
    datapath = datapaths(CONFIG)
    local = {"ingress_port_id": 1, "egress_port_id": 2, "queue_id": 3, "queue_occupancy": 4, "egress_timestamp": 5}
    drop = {"ingress_port_id": 1, "egress_port_id": 2, "drop_queue_id": 3, "drop_reason": 4}
    kinds: list[dict[str, Any]] = [
        {"switch_id": None, "local_hop": None},
        {"switch_id": 7, "local_hop": local},
        {"switch_id": 7, "local_hop": drop},
        {"switch_id": 8, "local_hop": local},
    ]
    for hw_id in (0, 5):
        for number in range(1, 41):
            if number % 10 != 3 + hw_id:
                (one,) = numbered_as("0.5", [number], hw_id=hw_id, **kinds[number % len(kinds)])
                datapath.run(one)
    expected = {("c0000201".ljust(32, "0"), NONE32, hw_id): Counts(36, lost=4) for hw_id in (0, 5)}
    assert counted(datapath) == expected


def test_the_switch_that_0_5_names(datapaths: Datapaths) -> None:
    """A source of 0.5 reports for the switch that they name; for none where they name several, or none."""
    datapath = datapaths(CONFIG)
    local = {"ingress_port_id": 1, "egress_port_id": 2, "queue_id": 3, "queue_occupancy": 4, "egress_timestamp": 5}
    nameless, of_7, of_8 = (
        numbered_as("0.5", [1], switch_id=switch, local_hop=None if switch is None else local)[0]
        for switch in (None, 7, 8)
    )
    reporters = []
    for one in (nameless, of_7, nameless, of_7, of_8, of_7, of_7, nameless):
        datapath.run(one)
        (source,) = datapath.state().sources
        assert source["switch_id"] == NONE32
        reporters.append(int(source["reporter"]))
    assert reporters == [NONE32, 7, 7, 7, NONE32, NONE32, NONE32, NONE32]


def test_versions_are_counted_apart(datapaths: Datapaths) -> None:
    """Reports of one switch by two versions have numbers of their own."""
    datapath = datapaths(CONFIG)
    for ten, twenty in zip(numbered_as("1.0", range(1, 9)), numbered_as("2.0", range(100, 108)), strict=True):
        datapath.run(ten)
        datapath.run(twenty)
    sources = datapath.state().sources
    assert sorted(zip(sources["report_version"].tolist(), sources["reporter"].tolist(), strict=True)) == [
        (10, 1),
        (20, 1),
    ]
    assert sources["received"].tolist() == [8, 8] and not sources["lost"].any() and not sources["restarted"].any()


@pytest.mark.parametrize("count", [1, 2, 16, 17, 40])
def test_a_packet_of_many_reports_has_one_number(datapaths: Datapaths, count: int) -> None:
    """However many reports are in a packet of 2.0, it is received once."""
    datapath = datapaths(CONFIG)
    for number in (1, 2, 4, 4, 5):
        report = batches.report(version="2.0", ingress_timestamp=None, sequence_number=number)
        spelled = [wire.Spelling(nproto="ipv4")] * count
        datapath.run(wire.encode_group([report] * count, CONFIG, spelled))
        datapath.drain()
    state = datapath.state()
    assert list(counted(datapath).values()) == [Counts(5, lost=1, duplicated=1)]
    assert state.flows["reports"].tolist() == [5 * count]


def test_flows_of_one_source_share_its_numbers(datapaths: Datapaths) -> None:
    """Sequence numbers are of the source, whatever flow a report is about, also of none."""
    datapath = datapaths(CONFIG)
    for number in range(1, 41):
        datapath.run(frame(CONFIG, sequence_number=number, flow=f"10.0.0.1:{number % 7}>10.0.0.2:1/17"))
    assert list(counted(datapath).values()) == [Counts(40)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_report_that_is_refused_was_not_lost(datapaths: Datapaths, version: str) -> None:
    """A report that is refused behind its header is not lost, nor received; one whose header is wrong has no number."""
    datapath = datapaths(CONFIG)
    one, two, three, four = numbered_as(version, [1, 2, 3, 4])
    inner_ip_at = two.index(bytes.fromhex("0800450000"), 42) + 2
    refused = two[:inner_ip_at] + b"\x44" + two[inner_ip_at + 1 :]  # too short a header of the inner packet
    headless = three[:42] + b"\xf0" + three[43:]
    for run, outcome in ((one, "ok"), (refused, "bad_inner_ip"), (headless, "bad_report_ver"), (four, "ok")):
        assert wire.decode(run, CONFIG)["outcome"] == outcome
        datapath.run(run)
    assert list(counted(datapath).values()) == [Counts(2, lost=1)]


@st.composite
def exporters(draw: st.DrawFn, wrap: int) -> list[int]:
    """Sequence numbers as networks and exporters make them: mostly the next, and all that can go wrong."""
    start = draw(
        st.sampled_from([0, 1, 10**6, wrap // 2 - 40, wrap - 40, wrap - GAP - 10]).flatmap(
            lambda s: st.integers(s, s + 80)
        )
    )
    step = st.one_of(
        st.just(1), st.just(1), st.just(1), st.integers(-70, 70), st.integers(-GAP - 9, GAP + 9),
        st.sampled_from([-WINDOW, 1 - WINDOW, WINDOW, GAP, GAP + 1, RESTART, RESTART + 1, wrap // 2 - 1, -(wrap // 2)]),
    )  # fmt: skip
    numbers, at = [start % wrap], start
    for move in draw(st.lists(st.one_of(step, st.none(), st.tuples(st.integers(0, 20))), max_size=60)):
        if move is None:  # the same again
            numbers.append(numbers[-1])
            continue
        here = move[0] if isinstance(move, tuple) else at + move  # a tuple: begun anew, near 0
        numbers.append(here % wrap)
        if isinstance(move, tuple) or move > 0:
            at = here
    return numbers


@pytest.mark.parametrize(("version", "wrap"), [("1.0", WRAP), ("2.0", WRAP22)])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_numbers(datapaths: Datapaths, version: str, wrap: int, data: st.DataObject) -> None:
    """Whatever numbers come, the program counts as the plain model does."""
    numbers = data.draw(exporters(wrap))
    assert count(datapaths(CONFIG), numbers, version) == model(numbers, wrap)


def in_two_strands(count: int, lag: int, burst: int) -> list[int]:
    """1 to count, each in one of two strands, of which one is lag numbers behind, a burst of the first at a time; and
    one more."""
    chance = random.Random(1)
    ahead: list[int] = []
    behind: list[int] = []
    for number in range(1, count + 1):
        chance.choice((ahead, behind)).append(number)
    numbers: list[int] = []
    while ahead:
        some, ahead = ahead[:burst], ahead[burst:]
        numbers += some
        while behind and behind[0] <= some[-1] - lag:
            numbers.append(behind.pop(0))
    return [*numbers, *behind, count + 1]  # it goes on: what is far behind may not be known for late before


@pytest.mark.parametrize("lag", [0, 40, 100, 200, 2000])
@pytest.mark.parametrize("burst", [1, 64])
def test_two_strands_of_one_exporter_are_no_loss(datapaths: Datapaths, lag: int, burst: int) -> None:
    """Reports over two receive queues, one behind the other by any lag, are late, not lost, and no restart."""
    numbers = in_two_strands(4000, lag, burst)
    assert sorted(numbers) == list(range(1, 4002))
    counts = count(datapaths(CONFIG), numbers)
    assert (counts.lost, counts.restarted, counts.duplicated) == (0, 0, 0)
    assert counts == model(numbers)
