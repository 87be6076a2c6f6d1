"""Arrays in, meaning out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intcollector import batch
from intcollector.batch import Batch, State
from intcollector.config import Config
from intcollector.layout import OUTCOMES
from intcollector.series import METRICS, Counts, Histogram, Points, Series, points, records, reports, scrape, texts

from .batches import a_state, batch_of, flow, flow_key, news, port, queue, report, rows, statistics, vectors

CONFIG = Config()
HOP = {
    "switch_id": 4, "ingress_port_id": 1, "egress_port_id": 3, "hop_latency": 400, "queue_id": 5, "queue_occupancy": 600
}  # fmt: skip


def shown(state: State, config: Config = CONFIG, **exporters: Counts) -> dict[str, dict[tuple[str, ...], Any]]:
    """{metric: {label values: value}}; refuses the same labels twice."""
    out: dict[str, dict[tuple[str, ...], Any]] = {}
    for one in scrape(state, config, exporters):
        if isinstance(one, Series):
            assert tuple(one.labels) == one.metric.labels
            keys = list(zip(*map(texts, one.labels.values()), strict=True)) or [()] * len(one.values)
            out[one.metric.name] = dict(zip(keys, one.values.tolist(), strict=True))
            assert len(out[one.metric.name]) == len(keys)
    return out


def histogram(state: State, config: Config = CONFIG) -> Histogram:
    (one,) = (s for s in scrape(state, config, {}) if isinstance(s, Histogram))
    return one


def point_rows(kind: Points) -> list[dict[str, Any]]:
    """Points as dicts: labels as text, value, path, time."""
    labels = [dict(zip(kind.labels, row, strict=True)) for row in zip(*map(texts, kind.labels.values()), strict=True)]
    paths = [None] * len(kind) if kind.paths is None else texts(kind.paths)
    return [
        {**label, "wire": wire, "value": value, "path": path, "time": time}
        for label, wire, value, path, time in zip(
            labels, kind.wire.tolist(), kind.values.tolist(), paths, kind.times_ns.tolist(), strict=True
        )
    ]


def by_kind(of: Batch, config: Config = CONFIG) -> dict[str, list[dict[str, Any]]]:
    return {kind.kind: point_rows(kind) for kind in points(of, config)}


# --- records ----------------------------------------------------------------------------------------------------------


def test_vectors_come_back() -> None:
    """The arrays of every report in the vectors become the report again, key for key, up to the hops that are kept."""
    wanted = [r for v in vectors() for r in v["reports"]]
    for one in wanted:
        if one["int"] and one["int"]["hop_count"] > 16:
            one["int"]["hops"] = one["int"]["hops"][:16]
            one["int"]["hops_truncated"] = True
    got = reports(batch_of(wanted))
    assert len(got) > 50
    assert got == wanted
    assert [list(r) for r in got] == [list(r) for r in wanted]


def test_unavailable_is_null_and_unasked_is_absent() -> None:
    """A field of all ones is null if its instruction bit is set, and absent if not."""
    (got,) = reports(batch_of([report({"switch_id": 4, "hop_latency": None})]))
    assert got["int"]["hops"] == [{"switch_id": 4, "hop_latency": None}]
    assert got["int"]["latency"] is None


def test_local_hop_is_as_it_was_sent() -> None:
    """What the reporting switch says of itself is never null: all ones, in the wire's own width, is what it sent."""
    local = {"ingress_port_id": 65535, "egress_port_id": 65535, "hop_latency": 2**32 - 1, "queue_id": 255,
             "queue_occupancy": 2**24 - 1, "egress_timestamp": 2**32 - 1, "drop_queue_id": 255, "drop_reason": 255,
             "egress_port_tx_utilization": 2**32 - 1}  # fmt: skip
    (got,) = reports(batch_of([report(local_hop=local)]))
    assert got["local_hop"] == local


def test_record_says_when_and_what_changed() -> None:
    """A record is the report, the arrival since 1970 and what was news, in the contract's words and order."""
    changes = [
        "new_flow", "path", "flow_latency", {"hop": 0, "what": "hop_latency"}, {"hop": 15, "what": "hop_latency"},
        {"hop": 1, "what": "queue_occupancy"},
        {"hop": "local", "what": "queue_occupancy"}, {"hop": 2, "what": "egress_port_tx_utilization"},
        {"hop": "local", "what": "egress_port_tx_utilization"}, "dropped", "congested_queue", "keepalive",
    ]  # fmt: skip
    said = report(HOP, changes=changes, received_ns=1_700_000_000_000_000_123)
    assert records(batch_of([said], clock_ns=1_699_999_000_000_000_000)) == [said]


# --- points -----------------------------------------------------------------------------------------------------------


def stack(**of_hop: Any) -> dict[str, Any]:
    """Issue's stack: switches 4, 5, 6, nearest the sink first."""
    return report(*({**HOP, "switch_id": i, "hop_latency": 100 * i, "egress_port_tx_utilization": 7, **of_hop}
                    for i in (4, 5, 6)), received_ns=50)  # fmt: skip


def test_everything_new_gives_every_point() -> None:
    """A new flow of three hops gives one flow point, with the path in travel order, and three of each hop's kinds."""
    got = by_kind(batch_of([news(stack(), "new_flow", "flow_latency")]))
    labels = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": "5000", "destination_port": "5000",
              "protocol": "17"}  # fmt: skip
    assert got["flow"] == [{**labels, "wire": 1500, "value": 1500e-9, "path": "6:5:4", "time": 50}]
    assert got["hop"] == [
        {**labels, "switch_id": str(i), "wire": 100 * i, "value": 100 * i / 1e9, "path": None, "time": 50}
        for i in (4, 5, 6)
    ]
    assert [(p["switch_id"], p["queue_id"], p["wire"]) for p in got["queue"]] == [(s, "5", 600) for s in "456"]
    assert [(p["switch_id"], p["egress_port_id"], p["wire"]) for p in got["port"]] == [(s, "3", 7) for s in "456"]


@pytest.mark.parametrize("word", ["new_flow", "path", "flow_latency", "keepalive"])
def test_flow_news(word: str) -> None:
    """Each of these words alone makes a flow's point, and nothing else's."""
    got = by_kind(batch_of([{**stack(), "changes": [word]}]))
    assert {kind: len(rows) for kind, rows in got.items()} == {"flow": 1, "hop": 0, "queue": 0, "port": 0}


def test_only_what_changed() -> None:
    """A hop's bit makes that hop's point only; a drop or a congested queue makes none; so does a report without INT."""
    changed = {**stack(), "changes": [{"hop": 1, "what": "hop_latency"}, {"hop": 2, "what": "queue_occupancy"}]}
    quiet = {**stack(), "changes": ["dropped", "congested_queue"]}
    no_stack = report(changes=["new_flow", "keepalive"])
    got = by_kind(batch_of([no_stack, quiet, changed, quiet]))
    assert [p["switch_id"] for p in got["hop"]] == ["5"]
    assert [p["switch_id"] for p in got["queue"]] == ["6"]
    assert got["flow"] == got["port"] == []


def test_local_hop_is_news_of_the_reporting_switch() -> None:
    """What the reporting switch said of its queue and port has points under its own switch id."""
    local = {"ingress_port_id": 1, "egress_port_id": 2, "hop_latency": 9, "queue_id": 3, "queue_occupancy": 8,
             "egress_timestamp": 77, "egress_port_tx_utilization": 6}  # fmt: skip
    changes = [{"hop": "local", "what": w} for w in ("queue_occupancy", "egress_port_tx_utilization")]
    said = report(switch_id=42, local_hop=local, changes=changes)
    arp = {**said, "flow": {**dict.fromkeys(said["flow"]), "vlan_ids": []}}
    got = by_kind(batch_of([said, arp]), Config(timestamps="int"))
    assert got["flow"] == got["hop"] == []
    assert {p["time"] for p in got["queue"] + got["port"]} == {77}
    assert [(p["switch_id"], p["queue_id"], p["wire"]) for p in got["queue"]] == [("42", "3", 8)] * 2
    assert [(p["switch_id"], p["egress_port_id"], p["wire"]) for p in got["port"]] == [("42", "2", 6)] * 2


def test_unavailable_makes_no_point() -> None:
    """All ones is never a number: no value or no switch gives no point, a path says `?`, an id is left empty."""
    hops = [
        {**HOP, "hop_latency": None, "queue_occupancy": None, "egress_port_tx_utilization": None},
        {**HOP, "switch_id": None, "egress_port_tx_utilization": 1},
        {**HOP, "switch_id": 6, "egress_port_id": None, "queue_id": None, "egress_port_tx_utilization": 2},
    ]
    whats = ("hop_latency", "queue_occupancy", "egress_port_tx_utilization")
    changes = ["new_flow", *({"hop": i, "what": w} for i in range(3) for w in whats)]
    got = by_kind(batch_of([report(*hops, changes=changes)]))
    assert [(p["path"], p["wire"]) for p in got["flow"]] == [("6:?:4", 800)]
    assert [p["switch_id"] for p in got["hop"]] == ["6"]
    assert [(p["switch_id"], p["queue_id"]) for p in got["queue"]] == [("6", "")]
    assert [(p["switch_id"], p["egress_port_id"], p["wire"]) for p in got["port"]] == [("6", "", 2)]


def test_flow_without_latency_has_its_path_and_without_either_no_point() -> None:
    """A flow's point has what is known: path, latency or both; with neither there is none."""
    path_only = report({"switch_id": 4}, {"switch_id": 5}, changes=["path"])
    latency_only = report({"hop_latency": 5}, changes=["path"])
    nothing = report({"queue_id": 5, "queue_occupancy": 1}, changes=["path"])
    got = by_kind(batch_of([path_only, nothing, latency_only]))["flow"]
    assert [(p["path"], p["wire"]) for p in got] == [("5:4", -1), ("", 5)]
    assert np.isnan(got[0]["value"])


def test_long_path_says_that_it_is_cut() -> None:
    """More hops than are kept: the path begins with `...`."""
    got = by_kind(batch_of([report(*({"switch_id": i} for i in range(20)), changes=["path"])]))["flow"]
    assert [p["path"] for p in got] == ["...:" + ":".join(map(str, reversed(range(16))))]


def test_int_times() -> None:
    """With --timestamps int a flow's point is at the report's ingress timestamp, a hop's at its egress timestamp; what
    has none, or one beyond 63 bits, is at the host's time."""
    stamps = (2000, None, 2**63, 2**63 - 2)
    hops = [{"switch_id": i, "hop_latency": 1, "egress_timestamp": t} for i, t in enumerate(stamps)]
    said = {**news(report(*hops), "new_flow"), "received_ns": 10_000}
    v2 = {**said, "version": "2.0", "ingress_timestamp": None}
    got = by_kind(batch_of([said, v2], clock_ns=500), Config(timestamps="int"))
    assert [p["time"] for p in got["flow"]] == [1000, 10_000]
    assert [p["time"] for p in got["hop"]] == [2000, 10_000, 10_000, 2**63 - 2] * 2
    host = by_kind(batch_of([said], clock_ns=500))
    assert {p["time"] for kind in host.values() for p in kind} == {10_000}


def test_latency_unit() -> None:
    """Microseconds become seconds, and the wire's number stays."""
    got = by_kind(batch_of([news(stack(), "new_flow")]), Config(latency_unit="us"))
    assert (got["flow"][0]["wire"], got["flow"][0]["value"]) == (1500, 0.0015)
    assert got["hop"][0]["value"] == 0.0004


def test_empty_batch() -> None:
    """Nothing in, nothing out."""
    assert sum(map(len, points(Batch(), CONFIG))) == 0
    assert records(Batch()) == []


# --- State ------------------------------------------------------------------------------------------------------------


def test_metrics_say_what_they_are() -> None:
    """Names follow the conventions: a prefix, _total for counters only, and a help that is a sentence."""
    for name, metric in METRICS.items():
        assert name.startswith("int_")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")


def test_zeros_for_what_is_known() -> None:
    """A collector that saw nothing shows every outcome and counter, and every exporter's reasons, as zero."""
    got = shown(State(), influxdb=Counts(lost={"buffer_full": 0, "closed": 0}))
    assert got["int_packets_total"] == {(name,): 0 for name in OUTCOMES}
    for name in ("events", "events_lost", "flows_refused", "points_refused", "sources_refused", "drops_refused"):
        assert got[f"int_{name}_total"] == {(): 0}
    assert got["int_exporter_points_total"] == {("influxdb",): 0}
    assert got["int_exporter_points_lost_total"] == {("influxdb", "buffer_full"): 0, ("influxdb", "closed"): 0}
    assert got["int_flows"] == got["int_flow_series_omitted"] == {(): 0}
    assert set(got) | {"int_hop_latency_seconds"} == set(METRICS)


def test_a_state() -> None:
    """What the maps hold is shown under the contract's names and labels."""
    got = shown(a_state())
    ipv4 = ("10.0.0.1", "10.0.0.2", "5000", "5000", "17")
    ipv6 = ("2001:db8::1", "2001:db8::2", "80", "443", "6")
    assert got["int_packets_total"][("ok",)] == 20
    assert got["int_packets_total"][("pass_short_l2",)] == 3
    assert got["int_events_total"] == {(): 7} and got["int_events_lost_total"] == {(): 2}
    assert got["int_flow_latency_seconds"] == {ipv4: 15e-9, ipv6: 137e-9}
    # a switch twice in the path: the time spent there
    assert got["int_flow_hop_latency_seconds"] == {
        (*ipv4, "4"): 4e-9, (*ipv4, "5"): 5e-9, (*ipv4, "6"): 6e-9, (*ipv6, "9"): 107e-9, (*ipv6, "8"): 30e-9
    }  # fmt: skip
    assert got["int_egress_port_tx_utilization"] == {("4", "3"): 70, ("4", "1"): 60, ("5", "2"): 50}
    assert got["int_queue_occupancy"] == {("4", "5"): 400, ("5", "5"): 0}
    assert got["int_queue_occupancy_max"] == {("4", "5"): 900, ("5", "5"): 0}
    # one source in two report versions is one series
    sources = ("192.0.2.1", "4", "1"), ("2001:db8::9", "5", "0")
    assert got["int_reports_total"] == dict(zip(sources, (15, 5), strict=True))
    assert got["int_reports_lost_total"] == dict(zip(sources, (3, 0), strict=True))
    assert got["int_reports_reordered_total"] == dict(zip(sources, (2, 0), strict=True))
    assert got["int_reports_duplicated_total"] == dict(zip(sources, (1, 0), strict=True))
    assert got["int_reports_restarted_total"] == dict(zip(sources, (1, 0), strict=True))
    assert got["int_dropped_packets_total"] == {("4", "71"): 6, ("4", ""): 1}
    assert got["int_hops_without_latency_total"] == {("4",): 1, ("5",): 0}


def test_histogram_is_exact() -> None:
    """`le` is the largest whole number of its bucket, counts are cumulative, and index 0 is nobody's."""
    one = histogram(a_state())
    assert texts(one.labels["switch_id"]) == ["4", "5"]
    assert one.bounds[:5].tolist() == [0.0, 1e-9, 3e-9, 7e-9, 15e-9]
    assert one.bounds[-1] == (2**32 - 1) / 1e9
    assert one.counts[0, :6].tolist() == [1, 1, 1, 3, 4, 4]  # 0; 4, 7; 8
    assert one.totals.tolist() == [4, 1]
    assert one.sums.tolist() == [19e-9, (2**32 - 2) / 1e9]


@given(st.lists(st.integers(0, 2**32 - 2), max_size=30), st.sampled_from(["ns", "us"]))
def test_histogram_counts_what_is_at_most_le(latencies: list[int], unit: str) -> None:
    """Every bucket holds exactly the latencies that are at most its bound."""
    state = State(
        ports=rows(batch.POINT, {}, port(1, 1)),
        port_statistics=rows(batch.PORT_STATISTICS, {}, statistics(*latencies)),
    )
    one = histogram(state, Config(latency_unit=unit))
    scale = {"ns": 1e9, "us": 1e6}[unit]
    assert one.counts[0].tolist() == [sum(v / scale <= b for v in latencies) for b in one.bounds.tolist()]
    assert one.totals[0] == len(latencies)


def test_flow_series_are_capped() -> None:
    """Of more flows than the limit the most recently seen are shown, and the others counted."""
    order = np.random.default_rng(1).permutation(50)
    state = State(
        flow_keys=rows(batch.FLOW_KEY, *(flow_key(f"10.0.0.{i}:1>10.0.1.0:2/17") for i in order)),
        flows=rows(batch.FLOW, *(flow((1, int(i)), seen_ns=int(i)) for i in order)),
    )
    got = shown(state, Config(max_flow_series=10))
    assert sorted(key[0] for key in got["int_flow_latency_seconds"]) == sorted(f"10.0.0.{i}" for i in range(40, 50))
    assert len(got["int_flow_hop_latency_seconds"]) == 10
    assert got["int_flow_series_omitted"] == {(): 40}
    assert got["int_flows"] == {(): 50}
    assert shown(state, Config(max_flow_series=0))["int_flow_latency_seconds"] == {}
    assert shown(state, Config(max_flow_series=50))["int_flow_series_omitted"] == {(): 0}


def test_flow_without_stack_or_value_has_no_series() -> None:
    """A flow without a stack is only counted; all ones, in a latency or a switch id, makes no series."""
    without = {**flow(latency=0), "flags": 0}
    state = State(
        flow_keys=rows(batch.FLOW_KEY, *(flow_key(f"10.0.0.{i}:1>10.0.1.0:2/17") for i in range(2))),
        flows=rows(batch.FLOW, without, flow((2**32 - 1, 5), (3, 2**32 - 1), (4, 6), latency=2**64 - 1)),
    )
    got = shown(state)
    assert got["int_flows"] == {(): 2}
    assert got["int_flow_latency_seconds"] == {}
    assert got["int_flow_hop_latency_seconds"] == {("10.0.0.1", "10.0.1.0", "1", "2", "17", "4"): 6e-9}


def test_no_labels_twice() -> None:
    """A flow, port or queue that the maps hold twice is shown once: the last value, the largest maximum."""
    key = flow_key("10.0.0.1:1>10.0.1.0:2/17")
    state = State(
        flow_keys=rows(batch.FLOW_KEY, key, key),
        flows=rows(batch.FLOW, flow((1, 5)), flow((1, 5))),
        ports=rows(batch.POINT, {}, port(1, 1, 8, seen_ns=9), port(1, 1, 7, seen_ns=3)),
        port_statistics=rows(batch.PORT_STATISTICS, {}, statistics(1), statistics(2)),
        queues=rows(batch.POINT, {}, queue(1, 1, 8, seen_ns=3), queue(1, 1, 7, seen_ns=9)),
        queue_statistics=rows(batch.QUEUE_STATISTICS, {}, {"occupancy_max": 21}, {"occupancy_max": 11}),
    )
    got = shown(state)
    assert len(got["int_flow_latency_seconds"]) == len(got["int_flow_hop_latency_seconds"]) == 1
    assert got["int_egress_port_tx_utilization"] == {("1", "1"): 8}
    assert got["int_queue_occupancy"] == {("1", "1"): 7}
    assert got["int_queue_occupancy_max"] == {("1", "1"): 20}
    assert histogram(state).totals.tolist() == [2]


def test_unnamed_ports_and_unused_rows() -> None:
    """A port without a number has an empty label; rows not in use, of nobody, or without a value are not shown."""
    state = State(
        ports=rows(
            batch.POINT, port(7, 7, 7), port(1, 2**16 - 1, 5), port(2**32 - 1, 1, 5), port(2, 1), {}, queue(3, 3, 3)
        ),
        port_statistics=rows(batch.PORT_STATISTICS, *([statistics(1)] * 6)),
    )
    got = shown(state)
    assert got["int_egress_port_tx_utilization"] == {("1", ""): 5}
    assert texts(histogram(state).labels["switch_id"]) == ["1", "2"]
