"""Arrays in, meaning out."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intcollector import batch
from intcollector.batch import Batch, State
from intcollector.config import Config, Source
from intcollector.layout import OUTCOMES
from intcollector.series import (
    CHANGES,
    METRICS,
    Counts,
    Histogram,
    Points,
    Series,
    change_counts,
    points,
    records,
    reports,
    scrape,
    texts,
)

from .batches import (
    a_state,
    batch_of,
    flow,
    flow_key,
    news,
    port,
    postcard_flow,
    queue,
    report,
    rows,
    source,
    statistics,
    vectors,
)

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
    v2 = {"ingress_port_id": 65535, "egress_port_id": 65535, "hop_latency": 2**32 - 1, "queue_id": 255,
          "queue_occupancy": 2**24 - 1, "ingress_timestamp": 2**64 - 1, "egress_timestamp": 2**64 - 1,
          "l2_ingress_port_id": 2**32 - 1, "l2_egress_port_id": 2**32 - 1, "egress_port_tx_utilization": 2**32 - 1,
          "buffer_id": 255, "buffer_occupancy": 2**24 - 1, "drop_queue_id": 255, "drop_reason": 255}  # fmt: skip
    narrow = {"ingress_port_id": 1, "egress_timestamp": 2**32 - 1}
    said = [report(version="2.0", ingress_timestamp=None, local_hop=local) for local in (v2, {**v2, **narrow})]
    assert [got["local_hop"] for got in reports(batch_of(said))] == [v2, {**v2, **narrow}]


def test_local_hop_of_0_5_is_its_header() -> None:
    """A drop header of Telemetry Report 0.5 becomes ports, queue and reason, a switch-local one ports, queue and time;
    a report without either names no switch."""
    drop = {"ingress_port_id": 3, "egress_port_id": 65535, "drop_queue_id": 255, "drop_reason": 89}
    local = {"ingress_port_id": 3, "egress_port_id": 4, "queue_id": 255, "queue_occupancy": 2**24 - 1,
             "egress_timestamp": 2**32 - 1}  # fmt: skip
    said = [report(version="0.5", local_hop=drop), report(version="0.5", local_hop=local)]
    plain = report(version="0.5", switch_id=None)
    assert reports(batch_of([*said, plain])) == [*said, plain]


def test_flags_of_2_0() -> None:
    """D, Q, F and I are in the record as they were sent; an inner packet, or a flow, need not be there."""
    said = report(version="2.0", ingress_timestamp=None, intermediate=True, congested_queue=True, tracked_flow=False)
    bare = {**said, "intermediate": False, "flow": None, "local_hop": {}}
    assert reports(batch_of([said, bare])) == [said, bare]


def test_record_says_when_and_what_changed() -> None:
    """A record is the report, the arrival since 1970 and what was news, in the contract's words and order."""
    changes = [
        "new_flow", "path", "flow_latency", {"hop": 0, "what": "hop_latency"}, {"hop": 15, "what": "hop_latency"},
        {"hop": "local", "what": "hop_latency"}, {"hop": 1, "what": "queue_occupancy"},
        {"hop": "local", "what": "queue_occupancy"}, {"hop": 2, "what": "egress_port_tx_utilization"},
        {"hop": "local", "what": "egress_port_tx_utilization"}, "dropped", "congested_queue", "keepalive",
    ]  # fmt: skip
    said = report(HOP, changes=changes, received_ns=1_700_000_000_000_000_123)
    assert records(batch_of([said], clock_ns=1_699_999_000_000_000_000), CONFIG) == [{**said, "drop_reason": None}]


def test_drop_reason_in_a_record() -> None:
    """A drop report's record says what the reason is called, its number if it has no name, null if none was given;
    other records say nothing, and decode's reports never do."""
    local = {"ingress_port_id": 1, "egress_port_id": 2, "drop_queue_id": 0}
    said = [
        *(report(dropped=True, local_hop={**local, "drop_reason": n}, changes=["dropped"]) for n in (80, 200, 255)),
        report(dropped=True, changes=["dropped"]),
        report(version="0.5", local_hop={**local, "drop_reason": 80}, changes=["dropped"]),  # D is not set
        report(local_hop={**local, "drop_reason": 80}, changes=["new_flow"]),
    ]
    batch = batch_of(said)
    names = ["acl_deny", "200", None, None, "acl_deny", "absent"]
    assert [r.get("drop_reason", "absent") for r in records(batch, CONFIG)] == names
    mine = Config(drop_reasons=((200, "policer"),))
    names = ["80", "policer", None, None, "80", "absent"]
    assert [r.get("drop_reason", "absent") for r in records(batch, mine)] == names
    assert not any("drop_reason" in r for r in reports(batch))


CARDS = {
    "hop_count": 3,
    "hops": [
        {"switch_id": 6, "egress_port_id": 61, "queue_id": 1, "hop_latency": 600},
        {"switch_id": 5, "egress_port_id": None, "queue_id": None, "hop_latency": None},
        {"switch_id": 4, "egress_port_id": 41, "queue_id": 0, "hop_latency": 400},
    ],
    "latency": 1000,
}
LOCAL = {"ingress_port_id": 9, "egress_port_id": 61, "hop_latency": 600, "queue_id": 1, "queue_occupancy": 8}

MX: dict[str, Any] = {
    "version": "2.x", "mode": "MX", "instruction_bitmap": "0xfc00", "hop_ml": None, "remaining_hop_count": None,
    "hop_count": 0, "hops": [], "latency": None,
}  # fmt: skip


def postcard(**more: Any) -> dict[str, Any]:
    """A report of switch 6, with what the others said of its flow."""
    return report(**{"switch_id": 6, "local_hop": LOCAL, "postcards": CARDS, "received_ns": 50, "changes": [], **more})


def test_postcards_in_a_record() -> None:
    """A postcard's record has the flow's switches, nearest the sink first, null for no value; a report of decode has
    not, and without INT its int stays null."""
    said = [postcard(), report(HOP, received_ns=1, changes=[]), postcard(postcards={**CARDS, "latency": None})]
    assert records(batch_of(said), CONFIG) == said
    bare = [{k: v for k, v in r.items() if k not in ("postcards", "received_ns", "changes")} for r in said]
    assert reports(batch_of(said)) == bare


def test_postcards_follow_links() -> None:
    """With links the hops of a record are in their order, whatever the times say."""
    links = ((6, 61, 4), (4, 41, 5))
    (got,) = records(batch_of([postcard()]), Config(links=links))
    assert [hop["switch_id"] for hop in got["postcards"]["hops"]] == [5, 4, 6]


def test_hops_of_a_postcard_are_not_the_packet_s() -> None:
    """An INT-MX report is a postcard with instructions: its record's int has no hops, and the flow's are beside it."""
    said = postcard(version="2.0", ingress_timestamp=None, int=MX)
    (got,) = records(batch_of([said]), CONFIG)
    assert got == said
    (got,) = reports(batch_of([said]))
    assert got["int"] == MX


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


def test_postcards_make_a_flow_s_point() -> None:
    """What the switches said of a flow is a point of it, with latency and path, as if a stack had carried it."""
    got = by_kind(batch_of([postcard(changes=[word]) for word in ("new_flow", "path", "flow_latency", "keepalive")]))
    assert [(p["path"], p["wire"], p["value"], p["time"]) for p in got["flow"]] == [("4:5:6", 1000, 1e-6, 50)] * 4
    assert got["hop"] == got["queue"] == got["port"] == []
    (linked,) = by_kind(batch_of([postcard(changes=["path"])]), Config(links=((6, 61, 4), (4, 41, 5))))["flow"]
    assert linked["path"] == "6:4:5"


def test_a_postcard_s_latency_is_news_of_its_switch() -> None:
    """The latency in the reporting switch, if it is news, is a hop's point with the flow's labels."""
    change = {"hop": "local", "what": "hop_latency"}
    got = by_kind(batch_of([postcard(changes=[change]), postcard(changes=[change], local_hop=None)]))
    assert [(p["source"], p["source_port"], p["switch_id"], p["wire"], p["value"]) for p in got["hop"]] == [
        ("10.0.0.1", "5000", "6", 600, 6e-7)
    ]
    assert got["flow"] == []


def test_int_mx_without_postcards_makes_no_flow_s_point() -> None:
    """INT-MX carries no hops: a report with it, and without postcards, has neither path nor latency to tell."""
    assert by_kind(batch_of([report(int=MX, changes=["new_flow"])]))["flow"] == []


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


def test_units_of_time() -> None:
    """A report's times become seconds by its own unit, whatever the others' is, and the wire's numbers stay."""
    units = ("us", "ns", "2^-32s", "ms")
    got = by_kind(batch_of([{**news(stack(), "new_flow"), "time_unit": unit} for unit in units]))
    assert [p["wire"] for p in got["flow"]] == [1500] * 4
    assert [p["value"] for p in got["flow"]] == [0.0015, 0.0000015, 1500 / 4294967296, 1.5]
    assert [p["wire"] for p in got["hop"]] == [400, 500, 600] * 4
    assert [p["value"] for p in got["hop"][:1] + got["hop"][6:7] + got["hop"][11:]] == [0.0004, 400 / 4294967296, 0.6]


def test_empty_batch() -> None:
    """Nothing in, nothing out."""
    assert sum(map(len, points(Batch(), CONFIG))) == 0
    assert records(Batch(), CONFIG) == []


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
    for name in (
        "events",
        "events_lost",
        "flows_refused",
        "points_refused",
        "sources_refused",
        "drops_refused",
        "places_refused",
    ):
        assert got[f"int_{name}_total"] == {(): 0}
    assert got["int_exporter_points_total"] == {("influxdb",): 0}
    assert got["int_exporter_points_lost_total"] == {("influxdb", "buffer_full"): 0, ("influxdb", "closed"): 0}
    assert got["int_flows"] == got["int_flow_series_omitted"] == {(): 0}
    of_a_relay = {name for name in METRICS if name.startswith("int_relay_")}
    assert set(got) | {"int_hop_latency_seconds"} == set(METRICS) - of_a_relay


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
    # only where a unit is known
    assert got["int_egress_port_tx_utilization_ratio"] == {("4", "1"): 0.75}
    assert got["int_queue_occupancy_bytes"] == {("4", "5"): 32_000}
    assert got["int_queue_occupancy_max_bytes"] == {("4", "5"): 72_000}
    # one source in two report versions is one series
    sources = ("192.0.2.1", "4", "1"), ("2001:db8::9", "5", "0")
    assert got["int_reports_total"] == dict(zip(sources, (15, 5), strict=True))
    assert got["int_reports_lost_total"] == dict(zip(sources, (3, 0), strict=True))
    assert got["int_reports_reordered_total"] == dict(zip(sources, (2, 0), strict=True))
    assert got["int_reports_duplicated_total"] == dict(zip(sources, (1, 0), strict=True))
    assert got["int_reports_restarted_total"] == dict(zip(sources, (1, 0), strict=True))
    assert got["int_report_sampling_ratio"] == dict.fromkeys(sources, 1)
    assert got["int_dropped_packets_total"] == {("4", "traffic_manager"): 6, ("4", ""): 1}
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


@given(st.lists(st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32, 2**50)), max_size=30))
def test_histogram_counts_what_is_at_most_le(latencies: list[int]) -> None:
    """Every bucket holds exactly the latencies that are at most its bound, and the last one, without a bound, all."""
    state = State(
        ports=rows(batch.POINT, {}, port(1, 1)),
        port_statistics=rows(batch.PORT_STATISTICS, {}, statistics(*latencies)),
    )
    one = histogram(state)
    assert len(one.bounds) == 33
    assert one.counts[0].tolist() == [sum(v / 1e9 <= b for v in latencies) for b in one.bounds.tolist()]
    assert one.totals[0] == len(latencies)
    assert one.sums[0] == sum(latencies) / 1e9


def test_flows_have_units_of_their_own() -> None:
    """A flow's latencies become seconds by its own unit of time."""
    units = ("ns", "us", "ms", "2^-32s")
    state = State(
        flow_keys=rows(batch.FLOW_KEY, *(flow_key(f"10.0.0.{i}:1>10.0.1.0:2/17") for i in range(4))),
        flows=rows(batch.FLOW, *(flow((7, 3), (8, 5), time_unit=unit) for unit in units)),
    )
    got = shown(state)
    latency = {key[0]: value for key, value in got["int_flow_latency_seconds"].items()}
    assert latency == {"10.0.0.0": 8e-9, "10.0.0.1": 8e-6, "10.0.0.2": 0.008, "10.0.0.3": 8 / 4294967296}
    hops = {(key[0], key[-1]): value for key, value in got["int_flow_hop_latency_seconds"].items()}
    assert (hops["10.0.0.0", "7"], hops["10.0.0.1", "8"], hops["10.0.0.2", "7"]) == (3e-9, 5e-6, 0.003)


def test_flows_of_postcards() -> None:
    """A flow that postcards were seen of has its latency, and one for each switch that is in it, wherever its place is;
    one that also has a stack shows the stack."""
    places = ((4, 400, 10, 1), None, (5, 2**32 - 1, 20, 1), None, None, (6, 600, 30, 1))
    both = {**flow((1, 7)), "flags": flow()["flags"] | postcard_flow()["flags"]}
    both["hops"] = [both["hops"][0], *({"switch_id": 9, "latency": 9} for _ in range(3))]
    both["places"] = [{"seen": 1}] * 4
    state = State(
        flow_keys=rows(batch.FLOW_KEY, *(flow_key(f"10.0.0.{i}:1>10.0.1.0:2/17") for i in range(3))),
        flows=rows(batch.FLOW, postcard_flow(*places, time_unit="us"), both, postcard_flow(None)),
    )
    got = shown(state)
    assert {key[0]: v for key, v in got["int_flow_latency_seconds"].items()} == {"10.0.0.0": 0.001, "10.0.0.1": 7e-9}
    assert {(key[0], key[-1]): value for key, value in got["int_flow_hop_latency_seconds"].items()} == {
        ("10.0.0.0", "4"): 0.0004, ("10.0.0.0", "6"): 0.0006, ("10.0.0.1", "1"): 7e-9
    }  # fmt: skip
    assert got["int_flows"] == {(): 3}


def test_reporter_is_who_is_shown() -> None:
    """The switch that reports is a source's label: of Telemetry Report 0.5 the one its reports name, empty if there is
    none or several; what then has the same labels is one series."""
    none = 2**32 - 1
    state = State(
        sources=rows(
            batch.SOURCE,
            source("192.0.2.1", none, 0, received=3, lost=1, reporter=7, report_version=5),
            source("192.0.2.1", none, 1, received=4, reporter=none, report_version=5),
            source("192.0.2.1", 7, 0, received=5, lost=2, report_version=20),
        )
    )
    got = shown(state)
    assert got["int_reports_total"] == {("192.0.2.1", "7", "0"): 8, ("192.0.2.1", "", "1"): 4}
    assert got["int_reports_lost_total"] == {("192.0.2.1", "7", "0"): 3, ("192.0.2.1", "", "1"): 0}


def test_sampling_is_by_source() -> None:
    """How much a source samples is what its entry says, the longest prefix first, and for others the command line."""
    sources = (
        Source(ipaddress.ip_network("192.0.2.0/24"), (("sampling_ratio", 100),)),
        Source(ipaddress.ip_network("192.0.2.7/32"), (("sampling_ratio", 8),)),
    )
    addresses = ("192.0.2.7", "192.0.2.1", "2001:db8::1")
    state = State(sources=rows(batch.SOURCE, *(source(a, 1, 0, received=1) for a in addresses)))
    got = shown(state, Config(sources=sources, sampling_ratio=2))["int_report_sampling_ratio"]
    assert got == dict(zip(((a, "1", "0") for a in addresses), (8, 100, 2), strict=True))


def test_drop_reasons_have_names() -> None:
    """A drop reason is shown by its name, or its number if it has none; reasons of one name are one series."""
    keys = [{"switch_id": 4, "reason": reason} for reason in (80, 81, 200, 255)] + [{"switch_id": 5, "reason": 80}]
    state = State(drop_keys=rows(batch.DROP_KEY, *keys), drops=np.array([1, 2, 4, 8, 16], "<u8"))
    named = Config(drop_reasons=((80, "acl"), (81, "acl"), (255, "other")))
    assert shown(state, named)["int_dropped_packets_total"] == {
        ("4", "acl"): 3, ("4", "200"): 4, ("4", ""): 8, ("5", "acl"): 16
    }  # fmt: skip
    assert shown(state, Config(drop_reasons=()))["int_dropped_packets_total"] == {
        ("4", "80"): 1, ("4", "81"): 2, ("4", "200"): 4, ("4", ""): 8, ("5", "80"): 16
    }  # fmt: skip


def test_flow_series_are_capped() -> None:
    """Of more flows than the limit the most recently seen are shown, and the others counted."""
    order = np.random.default_rng(1).permutation(50)
    state = State(
        flow_keys=rows(batch.FLOW_KEY, *(flow_key(f"10.0.0.{i}:1>10.0.1.0:2/17") for i in order)),
        flows=rows(batch.FLOW, *(flow((1, int(i)), seen_ns=int(i) << 20) for i in order)),
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
    """A flow, port or queue that the maps hold twice is shown once: the value of the one in use, the maximum."""
    key = flow_key("10.0.0.1:1>10.0.1.0:2/17")
    state = State(
        flow_keys=rows(batch.FLOW_KEY, key, key),
        flows=rows(batch.FLOW, flow((1, 5)), flow((1, 5))),
        ports=rows(batch.POINT, {}, port(1, 1, 8), port(1, 1)),
        port_statistics=rows(batch.PORT_STATISTICS, {}, statistics(1), statistics(2)),
        queues=rows(batch.POINT, {}, queue(1, 1), queue(1, 1, 7)),
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


@given(st.lists(st.tuples(*[st.integers(0, 2**16 - 1)] * 4), max_size=20))
def test_news_is_counted_as_records_say_it(bits: list[tuple[int, ...]]) -> None:
    """Each of CHANGES is counted as often as it stands in the records' changes, a hop's once a hop."""
    some = batch_of([report(HOP) for _ in bits])
    for name, column in zip(
        ("changes", "hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes"),
        zip(*bits, strict=True),
        strict=False,
    ):
        some.reports[name] = column
    said = [c if isinstance(c, str) else c["what"] for one in records(some, CONFIG) for c in one["changes"]]
    assert dict(zip(CHANGES, change_counts(some).tolist(), strict=True)) == {word: said.count(word) for word in CHANGES}
    assert set(said) <= set(CHANGES)
