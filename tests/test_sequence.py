"""Reports received, lost, reordered, duplicated, and exporters that began anew: sequence() of bpf/detect.h."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.layout import LAYOUT

from .frames import Datapaths, frame, numbered, quiet
from .needs import needs_root

pytestmark = needs_root

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
WINDOW, GAP = LAYOUT.defines["SEQUENCE_WINDOW"], LAYOUT.defines["MAX_SEQUENCE_GAP"]
WRAP, RESTART = 2**32, 2**24
"""RESTART: a jump ahead that is further can only be an exporter that began anew."""


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


def count(datapath: Datapath, numbers: Iterable[int]) -> Counts:
    """Run reports of one source with these sequence numbers."""
    for one in numbered(frame(CONFIG), numbers):
        datapath.run(one)
    (counts,) = counted(datapath).values()
    return counts


def behind(suspect: int, highest: int) -> bool:
    """Was the number before suspect passed over?"""
    return (suspect - 1 - highest) % WRAP >= WRAP // 2


def model(numbers: Sequence[int]) -> Counts:
    """What sequence()'s comment says, without a wrap: positions since the exporter began, as many bits as it takes.

    seen: of the last WINDOW positions, those that came. What is between two positions that came is lost until it comes;
    what came before the first never counted as lost. suspect: where a number far away would go on.
    """
    lost = reordered = duplicated = restarted = 0
    highest, first, seen = 0, 0, set[int]()
    suspect: int | None = None
    counts = False
    for at, number in enumerate(numbers):
        ahead = (number - highest) % WRAP
        ahead -= WRAP if ahead >= WRAP // 2 else 0
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
            restarted += 1
            highest, first, seen, suspect = number, number - 1, {number - 1, number}, None
            continue
        elif 0 < ahead <= GAP or (GAP < ahead <= RESTART and number >= GAP):
            lost += ahead - 1
            highest += ahead
            seen.add(highest)
        elif suspect is not None and (number + 1) % WRAP == suspect:
            duplicated += 1
            continue
        else:
            if suspect is not None:
                reordered, lost = reordered + 1, max(lost - behind(suspect, highest), 0)
            suspect = (number + 1) % WRAP
            counts = True
            continue
        if suspect is not None:  # it did not go on there: what was far away was late
            reordered, lost, suspect = reordered + 1, max(lost - behind(suspect, highest), 0), None
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
    ("far away once, and it did not go on there", [1000, 1, 1001], Counts(3, reordered=1)),
    ("always 0", [0] * 5, Counts(5)),
    ("a stray number from far ahead", [1, 100, 200_000_000, 101], Counts(4, lost=98, reordered=1)),
    ("0 for long, then counting", [0, 0, 0, 1, 2, 4], Counts(6, lost=1)),
    ("counting, then 0 twice", [1, 0, 0], Counts(3, reordered=1, duplicated=1)),
]
# fmt: on


@pytest.mark.parametrize(("numbers", "expected"), [pytest.param(n, e, id=name) for name, n, e in CASES])
def test_counts(datapaths: Datapaths, numbers: list[int], expected: Counts) -> None:
    """What is received, lost, late, doubled and begun anew is counted exactly."""
    assert model(numbers) == expected
    assert count(datapaths(CONFIG), numbers) == expected


def test_late_ones_are_not_lost_however_long_the_exporter_runs(datapaths: Datapaths) -> None:
    """Further than half of all numbers from the first one, a late report is still no lost one."""
    jumps = list(range(0, 2**31, RESTART))
    late = [jumps[-1] + RESTART, jumps[-1] + RESTART + 2, jumps[-1] + RESTART + 1]
    assert count(datapaths(CONFIG), [1, *jumps[1:], *late]) == model([1, *jumps[1:], *late])


def test_an_exporter_that_stops_counting_takes_back_no_loss(datapaths: Datapaths) -> None:
    """What was lost stays lost when an exporter that counted sends only 0 from then on."""
    assert count(datapaths(CONFIG), [1, 1001] + [0] * 50).lost == 999


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


def test_flows_of_one_source_share_its_numbers(datapaths: Datapaths) -> None:
    """Sequence numbers are of the source, whatever flow a report is about, also of none."""
    datapath = datapaths(CONFIG)
    for number in range(1, 41):
        datapath.run(frame(CONFIG, sequence_number=number, flow=f"10.0.0.1:{number % 7}>10.0.0.2:1/17"))
    assert list(counted(datapath).values()) == [Counts(40)]


def test_a_malformed_report_has_no_number(datapaths: Datapaths) -> None:
    """A report that is refused is not received, so that its number is missing."""
    datapath = datapaths(CONFIG)
    one, two, three = numbered(frame(CONFIG), [1, 2, 3])
    for run in (one, two[:42] + b"\x40" + two[43:], three):
        datapath.run(run)
    assert list(counted(datapath).values()) == [Counts(2, lost=1)]


@st.composite
def exporters(draw: st.DrawFn) -> list[int]:
    """Sequence numbers as networks and exporters make them: mostly the next, and all that can go wrong."""
    start = draw(
        st.sampled_from([0, 1, 10**6, 2**31 - 40, WRAP - 40, WRAP - GAP - 10]).flatmap(lambda s: st.integers(s, s + 80))
    )
    step = st.one_of(
        st.just(1), st.just(1), st.just(1), st.integers(-70, 70), st.integers(-GAP - 9, GAP + 9),
        st.sampled_from([-WINDOW, 1 - WINDOW, WINDOW, GAP, GAP + 1, RESTART, RESTART + 1, 2**31 - 1, -(2**31)]),
    )  # fmt: skip
    numbers, at = [start % WRAP], start
    for move in draw(st.lists(st.one_of(step, st.none(), st.tuples(st.integers(0, 20))), max_size=60)):
        if move is None:  # the same again
            numbers.append(numbers[-1])
            continue
        here = move[0] if isinstance(move, tuple) else at + move  # a tuple: begun anew, near 0
        numbers.append(here % WRAP)
        if isinstance(move, tuple) or move > 0:
            at = here
    return numbers


@settings(max_examples=150, deadline=None)
@given(numbers=exporters())
def test_any_numbers(datapaths: Datapaths, numbers: list[int]) -> None:
    """Whatever numbers come, the program counts as the plain model does."""
    assert count(datapaths(CONFIG), numbers) == model(numbers)
