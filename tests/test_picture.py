"""The picture: what the page, the API and `top` show of a State, and of the events in between."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from intcollector import batch, picture, series
from intcollector.batch import State
from intcollector.config import Config
from intcollector.layout import MAX_HOPS, OUTCOMES
from intcollector.news import A_SECOND, AT_ONCE, KEEP, Feed, lines
from intcollector.outcomes import MEANINGS
from intcollector.picture import Around, Pictures, event_hashes, flow_id, key_hashes, rate
from intcollector.seen import Interface
from intcollector.series import Counts

from .batches import NONE32, a_state, batch_of, flow, flow_key, news, postcard_flow, report, rows, source

CONFIG = Config(port=(54321, 6000))
EXPORTERS = {"influxdb": Counts(10, 6, {"buffer_full": 3, "rejected": 0}, buffered=1, buffered_bytes=99)}
AROUND = Around(
    version="1", host="here", started=5.0, interfaces=[Interface("eth0", True, 30, 0, "native")],
    not_ready="influxdb is away", problems={"influxdb": "away", "prometheus": None},
)  # fmt: skip
KEY = "10.0.0.1:5000>10.0.0.2:5000/17"


def looked(pictures: Pictures, state: State, at_s: float, **more: Any) -> dict[str, Any]:
    """A picture at so many seconds, of both clocks; it can be spelled as JSON."""
    found = pictures.look(
        state, more.get("config", CONFIG), more.get("exporters", {}), more.get("around", Around()), at_s, at_s
    )
    json.dumps(found, allow_nan=False)
    return found


def of_flow(*hops: tuple[int, int], key: str = KEY, reports: int = 0, seen_ns: int = 1 << 20, **more: Any) -> State:
    """A State with one flow."""
    one = {**flow(*hops, seen_ns=seen_ns), "reports": reports, **more}
    return State(flow_keys=rows(batch.FLOW_KEY, flow_key(key)), flows=rows(batch.FLOW, one))


def a_state_later() -> State:
    """a_state(), and what came since."""
    state = a_state()
    state.counters["outcomes"][0] += 10
    state.counters["events"] += 4
    state.sources["received"][1] += 6
    state.sources["lost"][1] += 2
    state.drops[0] += 1
    state.port_statistics[1]["buckets"][3] += 2
    state.port_statistics[1]["latency_sum"] += 10
    state.flows["reports"] += np.array([8, 0], "<u4")
    state.flows["seen"] += np.array([2_000_000_000 >> 20, 0], "<u4")
    return state


def hop(switch_id: int, latency_ns: int) -> dict[str, Any]:
    return {"switch_id": switch_id, "egress_port_id": 0, "queue_id": 0, "latency_s": latency_ns / 1e9}


def link(of: int, to: int, per_s: float, latency_s: float) -> dict[str, Any]:
    return {
        "from": of, "to": to, "egress_port_id": 0, "flows": 1, "reports_per_s": per_s, "latency_s": latency_s,
        "latency_max_s": latency_s,
    }  # fmt: skip


def test_one_of_everything() -> None:
    """Two looks, 2 s apart, at one of everything: every number is right, and every rate is over these 2 s."""
    pictures = Pictures(100.0)
    pictures.look(a_state(), CONFIG, EXPORTERS, AROUND, 1000.0, 101.0)
    found = pictures.look(a_state_later(), CONFIG, EXPORTERS, AROUND, 1002.0, 103.0)
    of_4 = {"p50_s": [3e-9, 7e-9], "p90_s": [7e-9, 15e-9], "p99_s": [7e-9, 15e-9]}
    of_5 = {name: [2.147483647, 4.294967295] for name in ("p50_s", "p90_s", "p99_s")}
    some = found | {"outcomes": [one for one in found["outcomes"] if one["packets"]]}
    assert some == {
        "api": 1,
        "time": 1002.0,
        "seconds": 2.0,
        "collector": {
            "version": "1",
            "kind": "collector",
            "host": "here",
            "started": 5.0,
            "interfaces": [
                {
                    "name": "eth0", "up": True, "carrier": None, "frames": 30, "dropped": 0, "mode": "native",
                    "problem": None,
                }
            ],
            "udp_ports": [54321, 6000],
            "profile": "spec",
            "not_ready": "influxdb is away",
            "packets": 33,
            "packets_per_s": 5.0,
            "reports": 30,
            "reports_per_s": 5.0,
            "malformed": 0,
            "malformed_per_s": 0.0,
            "passed": 3,
            "reports_lost": 5,
            "reports_lost_per_s": 1.0,
            "dropped_packets": 8,
            "events": 11,
            "events_per_s": 2.0,
            "events_lost": 2,
            "flows": 2,
            "flows_shown": 2,
            "links": {"metrics": "metrics"},
        },
        "network": {
            "switches": [6, 5, 8, 9, 4],
            "switches_omitted": 0,
            "links": [link(5, 4, 4.0, 5e-9), link(6, 5, 4.0, 6e-9), link(8, 9, 0.0, 30e-9), link(9, 8, 0.0, 7e-9)],
            "links_omitted": 0,
        },
        "switches": [
            {
                "switch_id": 4, "hops": 7, "hops_per_s": 1.0, "mean_s": 29e-9 / 6, **of_4,
                "recent": {"seconds": 3.0, **of_4}, "without_latency": 1,
            },
            {
                "switch_id": 5, "hops": 1, "hops_per_s": 0.0, "mean_s": 4.294967294, **of_5,
                "recent": {"seconds": 3.0, **of_5}, "without_latency": 0,
            },
        ],
        "switches_omitted": 0,
        "flows": [
            {
                "id": "3fa02f3cf0a8bd90",
                "source": "10.0.0.1",
                "destination": "10.0.0.2",
                "source_port": 5000,
                "destination_port": 5000,
                "protocol": 17,
                "protocol_name": "UDP",
                "path": [6, 5, 4],
                "cut": False,
                "postcards": False,
                "hops": [hop(6, 6), hop(5, 5), hop(4, 4)],
                "latency_s": 15e-9,
                "reports": 8,
                "reports_per_s": 4.0,
                "seen_s": 999.999,
                "path_changes": 0,
                "path_changed": None,
                "path_before": None,
                "recent": [15e-9, 15e-9],
            },
            {
                "id": "e733b13d5e43961d",
                "source": "2001:db8::1",
                "destination": "2001:db8::2",
                "source_port": 80,
                "destination_port": 443,
                "protocol": 6,
                "protocol_name": "TCP",
                "path": [9, 8, 9],
                "cut": False,
                "postcards": False,
                "hops": [hop(9, 7), hop(8, 30), hop(9, 100)],
                "latency_s": 137e-9,
                "reports": 0,
                "reports_per_s": 0.0,
                "seen_s": 1001.999,
                "path_changes": 0,
                "path_changed": None,
                "path_before": None,
                "recent": [137e-9, None],
            },
        ],
        "flows_omitted": 0,
        "queues": [
            {"switch_id": 4, "queue_id": 5, "occupancy": 400, "occupancy_max": 900, "occupancy_bytes": 32000},
            {"switch_id": 5, "queue_id": 5, "occupancy": 0, "occupancy_max": 0, "occupancy_bytes": None},
        ],
        "queues_omitted": 0,
        "ports": [
            {
                "switch_id": switch, "egress_port_id": port, "utilization": used, "utilization_ratio": ratio,
                "hops_per_s": per_s, "latency_s": latency_s,
            }
            for switch, port, used, ratio, per_s, latency_s in (
                (4, 3, 70, None, 1.0, 5e-9), (4, 1, 60, 0.75, 0.0, None), (5, 2, 50, None, 0.0, None)
            )
        ],
        "ports_omitted": 0,
        "sources": [
            {
                "source": "192.0.2.1", "switch_id": 4, "hw_id": 1, "reports": 21, "reports_per_s": 3.0, "lost": 5,
                "lost_per_s": 1.0, "lost_ratio": 5 / 26, "reordered": 2, "duplicated": 1, "restarted": 1,
                "sampling_ratio": 1,
            },
            {
                "source": "2001:db8::9", "switch_id": 5, "hw_id": 0, "reports": 5, "reports_per_s": 0.0, "lost": 0,
                "lost_per_s": 0.0, "lost_ratio": 0.0, "reordered": 0, "duplicated": 0, "restarted": 0,
                "sampling_ratio": 1,
            },
        ],
        "sources_omitted": 0,
        "drops": [
            {"switch_id": 4, "reason": "traffic_manager", "packets": 7, "packets_per_s": 0.5},
            {"switch_id": 4, "reason": None, "packets": 1, "packets_per_s": 0.0},
        ],
        "drops_omitted": 0,
        "outcomes": [
            {"outcome": name, "packets": packets, "packets_per_s": per_s, "kind": kind, "says": MEANINGS[name].says}
            for name, packets, per_s, kind in (("ok", 30, 5.0, "report"), ("pass_short_l2", 3, 0.0, "passed"))
        ],
        "exporters": [
            {
                "exporter": "influxdb", "accepted": 10, "delivered": 6, "lost": {"buffer_full": 3, "rejected": 0},
                "buffered": 1, "buffered_bytes": 99, "up": True, "problem": "away",
            }
        ],
        "history": {
            "time": [1002.0], "reports_per_s": [5.0], "events_per_s": [2.0], "malformed_per_s": [0.0],
            "lost_per_s": [1.0],
        },
    }  # fmt: skip
    assert [one["outcome"] for one in found["outcomes"]] == list(OUTCOMES)


def test_nothing() -> None:
    """Of a collector that saw nothing there is a picture, with zeros where zero is known and null where nothing is."""
    found = looked(Pictures(), State(), 1.0)
    assert (found["seconds"], found["collector"]["reports"], found["collector"]["reports_per_s"]) == (None, 0, None)
    assert found["network"] == {"switches": [], "switches_omitted": 0, "links": [], "links_omitted": 0}
    for name in ("flows", "queues", "ports", "switches", "sources", "drops"):
        assert (found[name], found[f"{name}_omitted"]) == ([], 0)


def test_a_relay() -> None:
    """Of what only packets tell, a relay's picture says that it is not known; of flows it says what events told."""
    own = {"events": 7, "messages_refused": {}, "messages_missed": 0, "paused": False, "lag_messages": {}}
    pictures = Pictures()
    looked(pictures, of_flow((4, 4), (5, 5)), 1.0, around=Around(kind="relay", relay=own))
    found = looked(pictures, of_flow((4, 4), (5, 5)), 2.0, around=Around(kind="relay", relay=own | {"events": 9}))
    said = found["collector"]
    assert (said["kind"], said["events"], said["events_per_s"], said["relay"]["events"]) == ("relay", 9, 2.0, 9)
    unknown = ("packets", "packets_per_s", "reports", "malformed", "passed", "reports_lost", "dropped_packets")
    assert [said[name] for name in unknown] == [None] * len(unknown)
    assert [found[name] for name in ("outcomes", "sources", "switches", "drops")] == [[]] * 4
    assert (found["flows"][0]["path"], found["flows"][0]["reports"]) == ([5, 4], None)
    assert found["network"]["links"][0]["reports_per_s"] is None


def test_counters_that_wrap_or_begin_anew() -> None:
    """A flow's count that wraps goes on; a count that went back, as of a flow that was forgotten in between, has no
    rate."""
    pictures = Pictures()
    counts = [2**32 - 10, 5, 3, 2**31 + 10]
    shown = [looked(pictures, of_flow((1, 1), reports=n), at * 5.0)["flows"][0] for at, n in enumerate(counts)]
    assert [one["reports_per_s"] for one in shown] == [None, 3.0, None, None]
    assert [one["reports"] for one in shown] == counts


@given(st.lists(st.tuples(st.integers(0, 2**63), st.floats(0.01, 1e4)), min_size=2, max_size=6))
def test_rates_are_never_negative(counts: Sequence[tuple[int, float]]) -> None:
    """Whatever a counter does, its rate is what came divided by the time, or not known."""
    for (before, _), (now, seconds) in itertools.pairwise(counts):
        found = rate(now, before, seconds)
        assert found is None if now < before else abs(found - (now - before) / seconds) <= 0.0005 + found * 1e-12  # type: ignore[operator]


def test_sources_that_go_back() -> None:
    """A source whose counters went back has no rate; one that was not there before has had all its reports since."""
    pictures = Pictures()
    for received in ((9,), (4, 8)):
        sources = [source(f"192.0.2.{at}", at, 0, received=n) for at, n in enumerate(received)]
        found = looked(pictures, State(sources=rows(batch.SOURCE, *sources)), float(len(received)))
    assert [one["reports_per_s"] for one in found["sources"]] == [None, 8.0]


# --- paths ------------------------------------------------------------------------------------------------------------


def told(*paths: Sequence[int], at_ns: int = 0, key: str = KEY, change: str = "path") -> batch.Batch:
    """Events that tell of paths, in travel order, a second apart."""
    return batch_of(
        report(
            *({"switch_id": switch, "hop_latency": 1} for switch in reversed(path)),
            flow=key, changes=[change], received_ns=at_ns + i * 10**9,
        )
        for i, path in enumerate(paths)
    )  # fmt: skip


A, B, C = ((4, 1), (5, 1)), ((6, 1), (5, 1)), ((7, 1), (5, 1))
"""Hops nearest the sink first: paths 5 > 4, 5 > 6, 5 > 7."""


def changes(found: dict[str, Any]) -> tuple[int, float | None, list[int] | None]:
    """Of the first flow."""
    one = found["flows"][0]
    return one["path_changes"], one["path_changed"], one["path_before"]


def test_a_path_that_changes_and_changes_back() -> None:
    """A path that is another between two looks, and back at the second, has changed twice."""
    pictures = Pictures()
    assert changes(looked(pictures, of_flow(*A), 1.0)) == (0, None, None)
    pictures.heard(told((5, 6), (5, 4), at_ns=10 * 10**9), CONFIG)
    found = looked(pictures, of_flow(*A), 2.0)
    assert changes(found) == (2, 11.0, [5, 6])
    assert found["flows"][0]["path"] == [5, 4]
    details = pictures.shown.details(found["flows"][0]["id"])
    assert details is not None
    assert details["changes"] == [{"time": 11.0, "before": [5, 6], "after": [5, 4]}]
    assert details["history"] == {
        "time": [1.0, 2.0], "latency_s": [2e-9, None],
        "hops": [{"switch_id": 5, "latency_s": [1e-9, None]}, {"switch_id": 4, "latency_s": [1e-9, None]}],
    }  # fmt: skip


def test_history_of_hops() -> None:
    """A flow's history has each switch of its path in travel order, then those that were on it, over the same times."""
    pictures = Pictures()
    for at, hops in enumerate((((4, 7), (5, 1)), ((6, 2), (5, 3)), ((6, 4), (5, 5), (6, 6))), 1):
        found = looked(pictures, of_flow(*hops, seen_ns=at << 20), float(at))
    details = pictures.shown.details(found["flows"][0]["id"])
    assert details is not None
    assert details["history"]["hops"] == [
        {"switch_id": 6, "latency_s": [None, 2e-9, 10e-9]},
        {"switch_id": 5, "latency_s": [1e-9, 3e-9, 5e-9]},
        {"switch_id": 4, "latency_s": [7e-9, None, None]},
    ]


def test_a_change_that_the_maps_knew_first() -> None:
    """A change that a look shows, and an event tells of afterwards, is one change, at the time of the event."""
    pictures = Pictures()
    looked(pictures, of_flow(*A), 1.0)
    assert looked(pictures, of_flow(*B), 2.0)["flows"][0]["path"] == [5, 6]
    pictures.heard(told((5, 6), at_ns=2 * 10**9), CONFIG)
    assert changes(looked(pictures, of_flow(*B), 3.0)) == (1, 2.0, [5, 4])
    assert changes(looked(pictures, of_flow(*B), 4.0)) == (1, 2.0, [5, 4])


def test_a_change_that_no_event_told_of() -> None:
    """Where an event was lost, a path that two looks running show is a change, and an event that comes after all is not
    another one."""
    pictures = Pictures()
    looked(pictures, of_flow(*A), 1.0)
    assert changes(looked(pictures, of_flow(*B), 2.0)) == (0, None, None)
    assert changes(looked(pictures, of_flow(*B), 3.0)) == (1, 3.0, [5, 4])
    pictures.heard(told((5, 6), at_ns=10**9), CONFIG)
    assert changes(looked(pictures, of_flow(*B), 4.0)) == (1, 3.0, [5, 4])
    pictures.heard(told((5, 7), at_ns=5 * 10**9), CONFIG)
    assert changes(looked(pictures, of_flow(*C), 5.0)) == (2, 5.0, [5, 6])


@given(st.lists(st.integers(0, 2), max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_every_change_that_is_told_counts(path: list[int], cuts: list[int]) -> None:
    """However the events are spread over drains, as many changes are counted as events told of another path than the
    one before."""
    ways = [(5, 4), (5, 6), (5, 7)]
    steps = [now for before, now in zip([0, *path], path, strict=False) if before != now]
    pictures = Pictures()
    looked(pictures, of_flow(*A), 1.0)
    bounds = sorted({0, len(steps), *(cut for cut in cuts if cut < len(steps))})
    for start, end in itertools.pairwise(bounds):
        pictures.heard(told(*(ways[step] for step in steps[start:end])), CONFIG)
    assert changes(looked(pictures, of_flow(*(A, B, C)[steps[-1] if steps else 0]), 2.0))[0] == len(steps)


def test_changes_beyond_the_hops_that_are_kept() -> None:
    """A change of path in hops that are not kept is one all the same, as an event told of it; and where many flows
    change at once each has its own."""
    pictures = Pictures()
    looked(pictures, of_flow(*A), 1.0)
    for _ in range(3):
        pictures.heard(told((5, 6)), CONFIG)
    assert changes(looked(pictures, of_flow(*B), 2.0)) == (3, 0.0, [5, 6])
    other = "10.0.0.1:5000>10.0.0.3:5000/17"
    both = State(
        flow_keys=rows(batch.FLOW_KEY, flow_key(KEY), flow_key(other)), flows=rows(batch.FLOW, flow(*B), flow(*A))
    )
    looked(pictures, both, 3.0)
    pictures.heard(
        batch_of(
            report({"switch_id": switch}, {"switch_id": 5}, flow=key, changes=["path"], received_ns=10**9)
            for switch, key in ((7, KEY), (7, other), (4, other), (6, KEY), (7, other))
        ),
        CONFIG,
    )
    found = looked(pictures, State(flow_keys=both.flow_keys, flows=rows(batch.FLOW, flow(*B), flow(*C))), 4.0)
    said_of = [(one["path"], one["path_changes"], one["path_before"]) for one in found["flows"]]
    assert said_of == [([5, 6], 5, [5, 7]), ([5, 7], 3, [5, 4])]


def test_events_of_others() -> None:
    """Events of flows that are not shown, and others than changes of path, change nothing."""
    pictures = Pictures()
    looked(pictures, of_flow(*A), 1.0)
    pictures.heard(told((5, 6), key="10.0.0.1:5000>10.0.0.3:5000/17"), CONFIG)
    pictures.heard(told((5, 6), change="flow_latency"), CONFIG)
    pictures.heard(told((5, 6), change="new_flow"), CONFIG)
    assert changes(looked(pictures, of_flow(*A), 2.0)) == (0, None, None)


def test_postcards() -> None:
    """A flow of postcards has its switches in travel order; another order of the same is no change of its path."""
    pictures = Pictures()
    for at, order in enumerate((100, 400, 400)):
        one = postcard_flow((4, 3, order, 1), None, (6, 5, 300, NONE32 >> 16), (5, NONE32, 200, 1), time_unit="us")
        state = State(flow_keys=rows(batch.FLOW_KEY, flow_key(KEY)), flows=rows(batch.FLOW, one))
        found = looked(pictures, state, float(at))
        (shown,) = found["flows"]
        assert (shown["path"], shown["path_changes"]) == ([4, 5, 6] if order == 100 else [5, 6, 4], 0)
    assert shown["postcards"]
    assert [(one["latency_s"], one["egress_port_id"]) for one in shown["hops"]] == [(None, 1), (5e-6, None), (3e-6, 1)]
    assert [(one["from"], one["to"], one["egress_port_id"], one["latency_s"]) for one in found["network"]["links"]] == [
        (5, 6, 1, None), (6, 4, None, 5e-6)
    ]  # fmt: skip


def test_hops_that_did_not_say() -> None:
    """A hop without a switch id is null in the path, and nothing leads to it or from it; more hops than are kept are
    said to be."""
    found = looked(Pictures(), of_flow((4, 1), (NONE32, NONE32), (6, 1)), 1.0)
    assert (found["flows"][0]["path"], found["flows"][0]["cut"]) == ([6, None, 4], False)
    assert (found["network"]["switches"], found["network"]["links"]) == ([6, 4], [])
    many = looked(Pictures(), of_flow(*[(i, 1) for i in range(MAX_HOPS)], hop_count=MAX_HOPS + 4), 1.0)
    assert (many["flows"][0]["cut"], len(many["flows"][0]["path"])) == (True, MAX_HOPS)


def many_flows(count: int, seen_s: np.ndarray) -> State:
    keys = np.zeros(count, batch.FLOW_KEY)
    keys["ip_version"] = 4
    keys["source"][:, :4] = np.arange(count).astype(">u4").view(np.uint8).reshape(-1, 4)
    flows = np.repeat(rows(batch.FLOW, flow((1, 1), (2, 1))), count)
    for name, values in batch.seen_fields(seen_s * 1e9).items():
        flows[name] = values
    return State(flow_keys=keys, flows=flows)


def test_more_flows_than_are_shown() -> None:
    """The most recently seen are shown, the others counted; one that is shown stays while it is seen now and then, and
    links are of all of them."""
    count = picture.FLOWS + 500
    pictures = Pictures()
    found = looked(pictures, many_flows(count, np.arange(count) / 10), 150.0)
    ids = [one["id"] for one in found["flows"]]
    assert (len(ids), found["flows_omitted"], found["collector"]["flows"]) == (picture.FLOWS, 500, count)
    seen_s = sorted(one["seen_s"] for one in found["flows"])  # exact to 2^20 ns
    assert 0.1 <= seen_s[0] < 0.1022 and 100.0 <= seen_s[-1] < 100.0022
    assert found["network"]["links"][0]["flows"] == count
    later = looked(pictures, many_flows(count, np.full(count, 150.5)), 151.0)
    assert [one["id"] for one in later["flows"]] == ids
    gone = np.where(np.arange(count) % 2 == 0, 150.5, 162.0)
    last = looked(pictures, many_flows(count, gone), 162.0)
    assert sum(one["seen_s"] < 0.0022 for one in last["flows"]) == count // 2
    assert len(pictures.shown.slots) == picture.FLOWS


def test_flow_ids() -> None:
    """A flow's id is the same in every run, and its events are found by the same hash as its entry in the map."""
    said = [report({"switch_id": 1}, flow=text) for text in (KEY, "2001:db8::1:80>2001:db8::2:443/6")]
    keys = rows(batch.FLOW_KEY, flow_key(KEY), flow_key("2001:db8::1:80>2001:db8::2:443/6"))
    events = batch_of(said)
    assert [flow_id(key) for key in keys.view("V40").tolist()] == ["3fa02f3cf0a8bd90", "e733b13d5e43961d"]
    assert event_hashes(events.reports, np.arange(2)).tolist() == key_hashes(keys).tolist()
    assert series.event_keys(events.reports).tobytes() == keys.tobytes()


def test_quantiles_are_ranges() -> None:
    """A quantile is the bucket it lies in: what it is above, and at most; of nothing it is not known."""
    bounds = np.array([0.0, 1.0, 3.0])
    made = series.Histogram(
        series.METRICS["int_hop_latency_seconds"], (series.Labels({"switch_id": np.arange(4)}),), bounds,
        counts=np.array([[5, 5, 5], [0, 9, 10], [0, 0, 0], [0, 0, 0]]), totals=np.array([5, 10, 10, 0]),
        sums=np.zeros(4),
    )  # fmt: skip
    above, most = series.quantile(made, 0.9)
    assert np.array_equal(above, [0, 0, 3, np.nan], equal_nan=True)
    assert np.array_equal(most, [0, 1, np.nan, np.nan], equal_nan=True)


def test_hops_without_a_latency() -> None:
    """Hops that said no latency are hops; of a count that went back there is no rate."""
    pictures = Pictures()
    rates = []
    for at_s, without in ((1.0, 3), (3.0, 9), (5.0, 2)):
        state = a_state()
        state.port_statistics[1]["buckets"][series.NO_LATENCY] = without
        rates.append(looked(pictures, state, at_s)["switches"][0]["hops_per_s"])
    assert rates == [None, 3.0, None]


def test_recent_latencies() -> None:
    """A switch's latencies of the last minute are without those before; before a minute is known, there are none."""
    pictures = Pictures()
    for at_s, latency in ((0.0, 3), (30.0, 3), (61.0, 100), (92.0, 100)):
        state = a_state()
        state.port_statistics[1]["buckets"][:] = 0
        state.port_statistics[1]["buckets"][2] = 10
        state.port_statistics[1]["buckets"][7] = 10 * (latency == 100)
        found = looked(pictures, state, at_s)
        recent = found["switches"][0]["recent"]
        if at_s < 60:
            assert recent is None
    assert recent == {"seconds": 62.0, "p50_s": [63e-9, 127e-9], "p90_s": [63e-9, 127e-9], "p99_s": [63e-9, 127e-9]}
    assert found["switches"][0]["p50_s"] != recent["p50_s"]


# --- events as lines --------------------------------------------------------------------------------------------------


def said(*reports: dict[str, Any], before: list[int | None] | None = None) -> list[dict[str, Any]]:
    made = batch_of(reports)
    return list(lines(made, np.arange(1, len(made) + 1), Config(), lambda key, time_ns: before))


HOP = {"switch_id": 4, "egress_port_id": 1, "hop_latency": 2100, "queue_id": 5, "queue_occupancy": 400}


def test_lines() -> None:
    """Each kind of event is a plain sentence about whom and what."""
    stack = report(HOP, {**HOP, "switch_id": 6, "hop_latency": 7000}, received_ns=1_500_000_000)
    flow = "10.0.0.1:5000 > 10.0.0.2:5000"
    drop = {**report(), "dropped": True, "switch_id": 3, "local_hop": {"drop_queue_id": 1, "drop_reason": 71}}
    congested = {**report(), "congested_queue": True, "switch_id": 3}
    congested["local_hop"] = {"queue_id": 2, "queue_occupancy": 9000}
    shown = [
        (stack | {"changes": ["new_flow"]}, f"new flow {flow}, path 6 > 4"),
        (stack | {"changes": ["path"]}, f"path of {flow} is now 6 > 4, it was 6 > ? > 4"),
        (stack | {"changes": ["flow_latency"]}, f"latency of {flow} is 9.10 us"),
        (
            stack | {"changes": ["flow_latency", {"hop": 1, "what": "hop_latency"}]},
            f"hop latency of {flow} in switch 6 is 7.00 us; latency is 9.10 us",
        ),
        (stack | {"changes": [{"hop": 0, "what": "queue_occupancy"}]}, "occupancy of queue 5 of switch 4 is 400"),
        (drop | {"changes": ["dropped"]}, f"switch 3 dropped a packet of {flow}: traffic_manager"),
        (congested | {"changes": ["congested_queue"]}, f"queue 2 of switch 3 is congested, says a packet of {flow}"),
    ]
    found = said(*(one for one, _ in shown), before=[6, None, 4])
    assert [one["text"] for one in found] == [text for _, text in shown]
    assert found[0] == {
        "n": 1, "time": 1.5, "what": ["new_flow"], "flow_id": "3fa02f3cf0a8bd90", "text": f"new flow {flow}, path 6 > 4"
    }  # fmt: skip
    assert found[3]["what"] == ["flow_latency", "hop_latency"]


def test_lines_without_a_flow() -> None:
    """A report about a packet that is not IP, or has no ports, or IPv6 ones, is a line too."""
    none = {**report(HOP), "flow": None, "changes": ["dropped"], "switch_id": None, "version": "0.5"}
    icmp = report(HOP, flow="10.0.0.1:0>10.0.0.2:0/1", changes=["flow_latency"])
    icmp["flow"] |= {"source_port": None, "destination_port": None}
    six = report(HOP, flow="2001:db8::1:80>2001:db8::2:443/6", changes=["flow_latency"])
    found = said(none, icmp, six)
    assert [one["text"] for one in found] == [
        "a switch dropped a packet that is not IP: it gave no reason",
        "latency of 10.0.0.1 > 10.0.0.2 (ICMP) is 2.10 us",
        "latency of [2001:db8::1]:80 > [2001:db8::2]:443 is 2.10 us",
    ]
    assert (found[0]["flow_id"], found[2]["flow_id"]) == (None, "e733b13d5e43961d")


def test_keepalives_are_no_news() -> None:
    """A keep-alive is no line, and has no number."""
    feed = Feed(Config())
    feed.take(batch_of([report(HOP, changes=["keepalive"])] * 3 + [report(HOP, changes=["path"])]))
    assert [one["n"] for one in feed.after(0)["events"]] == [1]
    assert feed.after(1) == {"events": [], "last": 1, "skipped": 0}


def test_a_flood_of_events() -> None:
    """Of many events some are lines, the rare ones first; all others are counted as skipped, and no more are kept than
    a limit, whether somebody looks or not."""
    feed = Feed(Config())
    many = [news(report(HOP), "flow_latency")] * 3000
    many[10] = report(HOP, changes=["path"])
    flood = batch_of(many)
    feed.take(flood)
    first = feed.after(0)
    assert (first["last"], len(first["events"]), first["skipped"]) == (3000, AT_ONCE, 3000 - AT_ONCE)
    assert [one["n"] for one in first["events"]] == [11, *range(3000 - AT_ONCE + 2, 3001)]
    for _ in range(50):
        feed.take(flood)
    after = feed.after(3000, 20)
    assert (after["last"], len(after["events"]) + after["skipped"]) == (51 * 3000, 50 * 3000)
    assert len(after["events"]) == min(20, feed.spelled - AT_ONCE)
    assert feed.spelled <= AT_ONCE * 2 + A_SECOND * 60
    assert len(feed.after(0)["events"]) <= KEEP
