"""Places of flows in, the order of their switches out."""

from __future__ import annotations

import itertools
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from intcollector import batch
from intcollector.batch import State
from intcollector.config import Config
from intcollector.layout import MAX_HOPS
from intcollector.postcards import Links, in_order, nearest_sink_first, of_flows
from intcollector.view import View

from .batches import batch_of, flow, flow_key, postcard_flow, report, rows

Place = tuple[int, int, int]
"""(switch_id, order, egress_port_id)"""


def ordered(flows: list[list[Place]], links: Links = ()) -> list[list[int]]:
    """The switch ids of each flow, nearest the sink first."""
    of = np.array([i for i, places in enumerate(flows) for _ in places], np.intp)
    switch_id, order, port = np.array([p for places in flows for p in places], "<u8").reshape(-1, 3).T
    found = nearest_sink_first(of, order, switch_id.astype("<u4"), port.astype("<u2"), links)
    assert of[found].tolist() == of.tolist()
    return [switch_id[found][of == i].tolist() for i in range(len(flows))]


CHAIN: Links = ((1, 10, 2), (2, 20, 3), (3, 30, 4))


def test_the_latest_is_nearest_the_sink() -> None:
    """Without links a later time is nearer the sink, up to the last ns of 64 bits; of equal ones the first stays."""
    assert ordered([[(1, 5, 0), (2, 9, 0), (3, 7, 0)]]) == [[2, 3, 1]]
    assert ordered([[(1, 2**64 - 2, 0), (2, 2**64 - 1, 0), (3, 0, 0), (4, 2**63, 0)]]) == [[2, 1, 4, 3]]
    assert ordered([[(8, 5, 0), (7, 5, 0), (9, 5, 0)]]) == [[8, 7, 9]]
    assert ordered([]) == []


def test_links_win_over_time() -> None:
    """A chain of links through all places is their order, whatever the times say."""
    places = [(3, 1, 30), (1, 4, 10), (2, 2, 20), (4, 3, 99)]
    assert ordered([places], CHAIN) == [[4, 3, 2, 1]]
    assert ordered([places]) == [[1, 4, 2, 3]]


def test_links_have_to_lead_through_all() -> None:
    """Where the links leave a gap, fork together, or lead in a circle, the times decide."""
    assert ordered([[(1, 1, 10), (2, 3, 21), (3, 2, 30)]], CHAIN) == [[2, 3, 1]]  # 2 sends elsewhere
    assert ordered([[(1, 3, 10), (5, 2, 50), (2, 1, 20)]], (*CHAIN, (5, 50, 2))) == [[1, 5, 2]]  # 1 and 5 both to 2
    assert ordered([[(1, 9, 10), (2, 1, 20), (3, 5, 30)]], (*CHAIN[:2], (3, 30, 1))) == [[1, 3, 2]]  # a circle
    # a circle beside a chain, with as many ends as a chain has
    assert ordered([[(1, 2, 10), (2, 8, 20), (7, 4, 70), (8, 6, 80)]], ((1, 10, 2), (7, 70, 8), (8, 80, 7))) == [
        [2, 8, 7, 1]
    ]


def test_a_link_leads_only_within_a_flow() -> None:
    """Flows are put in order one by one: neither another flow's switch nor a switch that is in none is a next one."""
    flows = [[(1, 2, 10), (3, 1, 30)], [(2, 1, 20), (3, 1, 30), (1, 7, 10)], [(2, 5, 20)]]
    assert ordered(flows, CHAIN) == [[1, 3], [3, 2, 1], [2]]


def test_a_port_without_number_has_no_link() -> None:
    """All ones is no egress port, and the largest switch id is found as any other."""
    high = 2**32 - 2
    assert ordered([[(1, 5, 65535), (2, 1, 20)]], CHAIN) == [[1, 2]]
    assert ordered([[(high, 5, 65534), (2, 1, 20)]], ((high, 65534, 2),)) == [[2, high]]


def by_hand(places: list[Place], links: Links) -> list[int]:
    """The rule, tried on every order there is; the last switch leads to none of the flow, or it would be a circle."""
    leads = {(switch, port): to for switch, port, to in links}
    switches = {place[0] for place in places}
    for tried in itertools.permutations(places):
        ends = not tried or leads.get((tried[0][0], tried[0][2])) not in switches
        if ends and all(leads.get((before[0], before[2])) == after[0] for after, before in itertools.pairwise(tried)):
            return [place[0] for place in tried]
    return [place[0] for place in sorted(places, key=lambda place: -place[1])]


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[list[Place]], Links]:
    """Some flows through at most 5 of 6 switches of 2 ports each, times all different, and some links."""
    cables = draw(st.dictionaries(st.tuples(st.integers(1, 6), st.integers(1, 2)), st.integers(1, 6), max_size=12))
    links = tuple((switch, port, to) for (switch, port), to in cables.items() if switch != to)
    flows = []
    for _ in range(draw(st.integers(1, 4))):
        switches = draw(st.lists(st.integers(1, 6), unique=True, max_size=5))
        times = draw(st.permutations(range(len(switches))))
        flows.append([(s, t, draw(st.integers(1, 2))) for s, t in zip(switches, times, strict=True)])
    return flows, links


@given(networks())
def test_as_by_hand(network: tuple[list[list[Place]], Links]) -> None:
    """All flows at once come out as each does when every order of its switches is tried."""
    flows, links = network
    assert ordered(flows, links) == [by_hand(places, links) for places in flows]


def test_the_longest_path() -> None:
    """As many places as a flow has are put in order along their links."""
    links = tuple((i, i, i + 1) for i in range(1, MAX_HOPS))
    places = [(i, (7 * i) % 17, i) for i in range(1, MAX_HOPS + 1)]
    random.Random(1).shuffle(places)
    assert ordered([places, places], links) == [list(range(MAX_HOPS, 0, -1))] * 2
    assert ordered([places], (*links, (MAX_HOPS, MAX_HOPS, 1))) == [
        [place[0] for place in sorted(places, key=lambda place: -place[1])]
    ]


def test_places_of_flows() -> None:
    """Of a flow's places the occupied ones are given, gaps or not, nearest the sink first."""
    flows = rows(
        batch.FLOW,
        postcard_flow((4, 1, 100, 0), None, (6, 1, 300, 0), (5, 1, 200, 0)),
        postcard_flow(),
        postcard_flow(None, (9, 1, 7, 0)),
    )
    row, place = of_flows(flows, ())
    assert list(zip(row.tolist(), place.tolist(), strict=True)) == [(0, 2), (0, 3), (0, 0), (2, 1)]
    row, place = of_flows(flows, ((6, 0, 5), (5, 0, 4)))
    assert list(zip(row.tolist(), place.tolist(), strict=True)) == [(0, 0), (0, 3), (0, 2), (2, 1)]


def test_only_postcards_are_moved() -> None:
    """In a batch the places of a postcard's flow are put in order; a stack, and all that is not a hop, stay."""
    hops = [{"switch_id": i, "egress_port_id": i, "queue_id": 0, "hop_latency": i} for i in (4, 5, 6)]
    card = report(postcards={"hop_count": 3, "hops": hops, "latency": 15})
    stack = report(*({"switch_id": i, "ingress_timestamp": 100 + i} for i in (1, 2, 3)))
    given_ = batch_of([stack, card, stack, card])
    assert given_.hops["switch_id"].tolist() == [1, 2, 3, 6, 5, 4, 1, 2, 3, 6, 5, 4]
    got = in_order(given_, ())
    assert got.hops["switch_id"].tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    assert got.hops["latency"][3:6].tolist() == [4, 5, 6]
    for name in ("reports", "hop_report", "hop_index", "clock_ns"):
        assert getattr(got, name) is getattr(given_, name)
    # what others hold is not written to
    assert given_.hops["switch_id"].tolist() == [1, 2, 3, 6, 5, 4, 1, 2, 3, 6, 5, 4]
    linked = in_order(given_, ((4, 4, 5), (5, 5, 6)))
    assert linked.hops["switch_id"].tolist() == [1, 2, 3, 6, 5, 4, 1, 2, 3, 6, 5, 4]
    only_stacks = batch_of([stack, stack])
    assert in_order(only_stacks, ()) is only_stacks


def test_the_lab_shows_paths_of_postcards() -> None:
    """The lab's text has the slowest flows first, in us by their own units, with paths in the direction of travel."""
    counters = rows(batch.COUNTERS, {"events": 3})[0]
    counters["outcomes"][[0, 7, 10, 36, 37, 38]] = 5, 100, 1, 2, 4, 8
    state = State(
        flow_keys=rows(batch.FLOW_KEY, *(flow_key(f"10.0.0.{i}:1>10.0.1.0:2/17") for i in range(4))),
        flows=rows(
            batch.FLOW,
            flow((1, 500), (2, 700)),
            postcard_flow((4, 3, 100, 1), None, (6, 5, 300, 1), (5, 1, 200, 1), time_unit="us"),
            postcard_flow(None),
            {"flags": 0, "latency": 2**64 - 1},
        ),
        counters=counters,
    )
    lines = View(lambda: state, Config()).text().splitlines()
    assert lines[0].startswith("reports 9 (0/s)  malformed 3  lost 0  dropped packets 0  events 3 (+0 lost)  flows 4")
    assert lines[1:] == [
        "  10.0.0.1 port 1 to 10.0.1.0 port 2: 9.0 us by switches 4 > 5 > 6",
        "  10.0.0.0 port 1 to 10.0.1.0 port 2: 1.2 us by switches 2 > 1",
    ]
    (slowest,) = View(lambda: state, Config(links=((6, 1, 5), (5, 1, 4)))).text().splitlines()[1:2]
    assert slowest.endswith("by switches 6 > 5 > 4")
