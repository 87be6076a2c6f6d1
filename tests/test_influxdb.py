"""Points in a real InfluxDB 1.x server."""

from __future__ import annotations

import itertools
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intcollector.config import Config
from intcollector.exporters import times as times_of
from intcollector.exporters.influxdb import InfluxDB
from intcollector.exporters.influxdb_lines import SCHEMAS, Speller
from intcollector.exporters.text import seconds_and_ns, woven
from intcollector.exporters.times import Times
from intcollector.series import points

from . import servers
from .batches import batch_of, news, report
from .pushing import NOW_NS, many, pushing, settled


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.InfluxServer]:
    """One server for the tests that leave it running; each has a database of its own."""
    with servers.influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


def stack(*latencies: int, received_ns: int = NOW_NS, **of_hop: Any) -> dict[str, Any]:
    """Switches 4, 5, 6, nearest the sink first, each with all there is to tell."""
    hops = [
        {"switch_id": 4 + i, "ingress_port_id": 1, "egress_port_id": 3 + i, "hop_latency": latency, "queue_id": 5,
         "queue_occupancy": 600 + i, "egress_timestamp": 2000 + i, "egress_port_tx_utilization": 70 + i, **of_hop}
        for i, latency in enumerate(latencies)
    ]  # fmt: skip
    return {**report(*hops, ingress_timestamp=1500), "received_ns": received_ns}


# --- what is written --------------------------------------------------------------------------------------------------


def test_intcollector_schema(server: servers.InfluxServer) -> None:
    """INTCollector's names and integers: a report gives exactly its points, at the report's own times; the same again
    gives none; one later hop latency gives exactly what changed."""
    flow = "10.0.0.1:5000->10.0.0.2:5000,proto=17"
    first = [
        {"measurement": f"flow_stat,{flow}", "time": 1500, "flow_latency": 1500, "path": "6:5:4"},
        *(
            point
            for i in range(3)
            for point in (
                {"measurement": f"flow_hop_latency,{flow},sw_id={4 + i}", "time": 2000 + i, "value": 400 + 100 * i},
                {"measurement": f"port_tx_utilize,sw_id={4 + i},port_id={3 + i}", "time": 2000 + i, "value": 70 + i},
                {"measurement": f"queue_occupancy,sw_id={4 + i},queue_id=5", "time": 2000 + i, "value": 600 + i},
            )
        ),
    ]

    def stored() -> list[dict[str, Any]]:
        return sorted(server.points("schema"), key=lambda p: (p["measurement"], p["time"]))

    def wanted(*said: dict[str, Any]) -> list[dict[str, Any]]:
        return sorted([*first, *said], key=lambda p: (p["measurement"], p["time"]))

    with pushing(server.url, "schema", influxdb_schema="intcollector", timestamps="int") as exporter:
        exporter.write(batch_of([news(stack(400, 500, 600), "new_flow", "path", "flow_latency")]))
        assert settled(exporter).delivered == 10
        assert stored() == wanted()
        exporter.write(batch_of([stack(400, 500, 600)]))
        assert settled(exporter).accepted == 10
        assert stored() == wanted()
        later = {**stack(4, 500, 600, egress_timestamp=9000), "ingress_timestamp": 8000}
        exporter.write(batch_of([{**later, "changes": ["flow_latency", {"hop": 0, "what": "hop_latency"}]}]))
        assert settled(exporter).delivered == 12
        assert stored() == wanted(
            {"measurement": f"flow_stat,{flow}", "time": 8000, "flow_latency": 1104, "path": "6:5:4"},
            {"measurement": f"flow_hop_latency,{flow},sw_id=4", "time": 9000, "value": 4},
        )
    assert server.names("SHOW MEASUREMENTS", "schema") == {p["measurement"] for p in first}
    fields = {
        (row["measurement"], row["fieldKey"]): row["fieldType"] for row in server.query("SHOW FIELD KEYS", "schema")
    }
    assert fields.pop((f"flow_stat,{flow}", "path")) == "string"
    assert set(fields.values()) == {"integer"}


def test_tags_schema(server: servers.InfluxServer) -> None:
    """Measurements with the metrics' labels as tags; latencies in seconds, the rest in the switch's unit; the host's
    time."""
    with pushing(server.url, "tags") as exporter:
        exporter.write(batch_of([news(stack(400), "new_flow")], clock_ns=NOW_NS - 50))
        assert settled(exporter).delivered == 4
    flow = {
        "source": "10.0.0.1", "destination": "10.0.0.2", "source_port": "5000", "destination_port": "5000",
        "protocol": "17",
    }  # fmt: skip
    assert server.points("tags") == [
        {"measurement": "int_flow", "time": NOW_NS, **flow, "latency": 4e-07, "path": "4"},
        {"measurement": "int_hop", "time": NOW_NS, **flow, "switch_id": "4", "latency": 4e-07},
        {"measurement": "int_port", "time": NOW_NS, "switch_id": "4", "egress_port_id": "3", "tx_utilization": 70},
        {"measurement": "int_queue", "time": NOW_NS, "switch_id": "4", "queue_id": "5", "occupancy": 600},
    ]
    tags = {(row["measurement"], row["tagKey"]) for row in server.query("SHOW TAG KEYS", "tags")}
    assert tags == {
        *(("int_flow", name) for name in flow), *(("int_hop", name) for name in (*flow, "switch_id")),
        ("int_port", "switch_id"), ("int_port", "egress_port_id"),
        ("int_queue", "switch_id"), ("int_queue", "queue_id"),
    }  # fmt: skip


def lines(said: dict[str, Any], schema: str) -> list[str]:
    """Series and fields of a report's points."""
    speller, text = Speller(SCHEMAS[schema]), b""
    for kind in points(batch_of([said]), Config()):
        spelt = speller.lines(kind)
        text += b"".join(woven(len(kind), *spelt.series, f" {spelt.before}", spelt.fields, spelt.after, "\n"))
    return text.decode().splitlines()


def test_one_schema_for_all_versions() -> None:
    """What InfluxDB 1, 2 and 3 all take: a field has one type in all points, tags are text that is not empty, and no
    tag is called as a field is."""
    said = [
        news(stack(*latencies, **of_hop), *more)
        for latencies in ((400,), (0,), (1,), (2**32 - 1, 7))
        for of_hop in ({}, {"queue_id": None}, {"egress_port_id": None}, {"queue_occupancy": 2**24 - 1})
        for more in (("new_flow", "path", "flow_latency"), ("path",))
    ]
    types: dict[tuple[str, str], set[str]] = {}
    tags: dict[str, set[str]] = {}
    for line in (line for one in said for line in lines(one, "tags")):
        series, fields = line.split(" ")
        measurement, *pairs = series.split(",")
        assert all(name and value for name, value in (pair.split("=") for pair in pairs)) and pairs == sorted(pairs)
        tags.setdefault(measurement, set()).update(pair.split("=")[0] for pair in pairs)
        for name, value in (pair.split("=") for pair in fields.split(",")):
            kind = "string" if value[0] == '"' else "integer" if value[-1] == "i" else "float"
            assert kind != "float" or float(value) >= 0
            types.setdefault((measurement, name), set()).add(kind)
    assert types == {
        ("int_flow", "latency"): {"float"}, ("int_flow", "path"): {"string"}, ("int_hop", "latency"): {"float"},
        ("int_queue", "occupancy"): {"integer"}, ("int_port", "tx_utilization"): {"integer"},
    }  # fmt: skip
    assert not [name for measurement, name in types if name in tags[measurement] or name == "time"]


def test_ids_that_are_missing() -> None:
    """An id a switch did not give is no tag; a latency or a path that is missing is no field."""
    no_ids = news(stack(400, queue_id=None, egress_port_id=None))
    assert [line.split(" ")[0] for line in lines(no_ids, "tags")][1:] == [
        "int_queue,switch_id=4",
        "int_port,switch_id=4",
    ]
    path_only = report({"switch_id": 4}, changes=["path"])
    assert [line.split(" ")[1] for line in lines(path_only, "tags")] == ['path="4"']
    assert [line.split(" ")[1] for line in lines(path_only, "intcollector")] == ['path="4"']
    latency_only = report({"hop_latency": 4}, changes=["path"])
    assert [line.split(" ")[1] for line in lines(latency_only, "intcollector")] == ["flow_latency=4i"]


def test_intcollector_leaves_out_what_it_has_no_name_for(server: servers.InfluxServer) -> None:
    """In INTCollector's schema a port or queue without an id has no name, so it has no point, and none is counted."""
    with pushing(server.url, "unnamed", influxdb_schema="intcollector") as exporter:
        exporter.write(batch_of([news(stack(400, queue_id=None, egress_port_id=None))]))
        assert settled(exporter).accepted == 1
    assert server.names("SHOW MEASUREMENTS", "unnamed") == {
        "flow_hop_latency,10.0.0.1:5000->10.0.0.2:5000,proto=17,sw_id=4"
    }


def test_ipv6_flow(server: servers.InfluxServer) -> None:
    """An IPv6 flow is stored in both schemas; INTCollector's has its addresses in brackets."""
    said = {**report({"switch_id": 1}, flow="2001:db8::1:80>2001:db8::2:443/6"), "changes": ["new_flow"]}
    for schema in ("tags", "intcollector"):
        with pushing(server.url, f"ipv6_{schema}", influxdb_schema=schema) as exporter:
            exporter.write(batch_of([said], clock_ns=NOW_NS))
    assert server.points("ipv6_tags")[0]["source"] == "2001:db8::1"
    assert server.names("SHOW MEASUREMENTS", "ipv6_intcollector") == {
        "flow_stat,[2001:db8::1]:80->[2001:db8::2]:443,proto=6"
    }


def test_postcards_are_a_flow_s_point(server: servers.InfluxServer) -> None:
    """What several switches said of a flow is stored as a stack would be; after apply() in the order of the links."""
    hops = [{"switch_id": i, "egress_port_id": i, "queue_id": 0, "hop_latency": 100 * i} for i in (4, 5, 6)]
    local = {"ingress_port_id": 1, "egress_port_id": 4, "hop_latency": 400, "queue_id": 0, "queue_occupancy": 1}
    said = report(
        switch_id=4, local_hop=local, postcards={"hop_count": 3, "hops": hops, "latency": 1500}, time_unit="us",
        received_ns=NOW_NS, changes=["path", {"hop": "local", "what": "hop_latency"}],
    )  # fmt: skip
    with pushing(server.url, "postcards") as exporter:
        exporter.write(batch_of([said]))
        assert settled(exporter).delivered == 2
        exporter.apply(Config(links=((4, 4, 5), (5, 5, 6))))
        exporter.write(batch_of([{**said, "received_ns": NOW_NS + 1, "changes": ["keepalive"]}]))
        assert settled(exporter).delivered == 3
    flow = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": "5000", "destination_port": "5000",
            "protocol": "17"}  # fmt: skip
    assert sorted(server.points("postcards"), key=lambda p: (p["measurement"], p["time"])) == [
        {**flow, "measurement": "int_flow", "time": NOW_NS, "latency": 0.0015, "path": "6:5:4"},
        {**flow, "measurement": "int_flow", "time": NOW_NS + 1, "latency": 0.0015, "path": "4:5:6"},
        {**flow, "measurement": "int_hop", "time": NOW_NS, "switch_id": "4", "latency": 0.0004},
    ]
    with pushing(server.url, "postcards_intcollector", influxdb_schema="intcollector") as exporter:
        exporter.write(batch_of([said]))
    name = "10.0.0.1:5000->10.0.0.2:5000,proto=17"
    assert sorted(server.points("postcards_intcollector"), key=lambda p: p["measurement"]) == [
        {"measurement": f"flow_hop_latency,{name},sw_id=4", "time": NOW_NS, "value": 400},
        {"measurement": f"flow_stat,{name}", "time": NOW_NS, "flow_latency": 1500, "path": "6:5:4"},
    ]


@pytest.mark.parametrize("schema", ["tags", "intcollector"])
def test_nothing_overwrites_anything(server: servers.InfluxServer, schema: str) -> None:
    """Points of one series at one time, in one push or in two, are all kept: each has a time of its own."""
    database = f"same_time_{schema}"
    said = [{**stack(i), "changes": ["flow_latency"], "received_ns": NOW_NS} for i in range(50)]
    with pushing(server.url, database, influxdb_schema=schema) as exporter:
        for part in (said[:30], said[30:]):
            exporter.write(batch_of(part))
            settled(exporter)
    stored = server.points(database)
    assert sorted(p["time"] for p in stored) == [NOW_NS + i for i in range(50)]
    latency = "latency" if schema == "tags" else "flow_latency"
    assert len({p[latency] for p in stored}) == 50


def free(times: Times, *asked: tuple[str, str, int]) -> list[int]:
    """The times that points (series, fields, time) of one piece are given."""
    series, fields, times_ns = zip(*asked, strict=True)
    return times.free(np.array(list(map(hash, series))), np.array(times_ns), fields).tolist()


@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), min_size=1, max_size=20), max_size=8))
def test_times_are_never_taken_twice(pieces: list[list[tuple[str, int]]]) -> None:
    """Whatever times are asked for, in any order and in any pieces, each series gets each once, the first one exactly
    as asked for, and none moves by more than there are points."""
    times, number = Times(told_again=False), itertools.count()
    count = sum(map(len, pieces))
    seen: set[tuple[str, int]] = set()
    for piece in pieces:
        got = free(times, *((series, f"{next(number)}i", time) for series, time in piece))
        for (series, time), given_ in zip(piece, got, strict=True):
            assert time <= given_ < time + count
            assert given_ == time or (series, time) in seen
            assert (series, given_) not in seen
            seen.add((series, given_))


@pytest.mark.parametrize("told_again", [False, True])
def test_times_remember_a_bounded_number(monkeypatch: pytest.MonkeyPatch, told_again: bool) -> None:
    """At least the last generation's points are remembered, and no more than a few times as many; of points that may be
    told again, each of which takes much memory, fewer."""
    assert times_of.GENERATION_TOLD_AGAIN * 10 <= times_of.GENERATION
    monkeypatch.setattr(times_of, "GENERATION_TOLD_AGAIN" if told_again else "GENERATION", 100)
    times = Times(told_again=told_again)
    for i in range(1000):
        assert free(times, ("a", "1i", 1000 * i)) == [1000 * i]
        if i >= 50:
            assert free(times, ("a", "2i", 1000 * (i - 50))) == [1000 * (i - 50) + 1]
    assert len(times._recent) + len(times._older) <= 6 * 100
    for i in range(1000, 2000):
        assert free(times, ("a", "1i", 1000 * i)) == [1000 * i]
    assert sum(map(len, times._noted + times._noted_older)) <= 2 * 100
    assert free(times, ("a", "2i", 1000 * 1900)) == [1000 * 1900 + 1]


def test_a_point_told_again_is_the_same_point() -> None:
    """A point that is the same in series, fields and time keeps the time it was given, however often it is told."""
    times = Times(told_again=True)
    asked = [("a", fields, 7) for fields in ("1i", "2i", "1i", "2i")]
    assert free(times, *asked) == [7, 8, 7, 8]
    assert [free(times, one) for one in asked] == [[7], [8], [7], [8]]


@given(st.lists(st.integers(-(10**6), 3 * 10**9), min_size=1), st.sampled_from([0, NOW_NS, -NOW_NS]))
def test_times_are_written_whole(offsets: list[int], start: int) -> None:
    """With or without a second in common, what is written is the time."""
    times = [start + offset for offset in offsets]
    second, ns = seconds_and_ns(np.array(times, np.int64))
    assert [second + one for one in ns] == list(map(str, times))


def test_ids_are_not_taken_for_each_other() -> None:
    """Queue 4 of switch 5 and queue 5 of switch 4 are two series, and are so for times."""
    said = [stack(1, switch_id=a, queue_id=b, egress_port_id=a) for a, b in ((4, 5), (5, 4), (4, 4), (4, 5))]
    for kind in points(batch_of([news(one) for one in said]), Config()):
        if kind.kind == "queue":
            of = [Speller(schema).lines(kind).of.tolist() for schema in SCHEMAS.values()]
            assert [len(set(one)) for one in of] == [3, 3] and [one[0] == one[3] for one in of] == [True, True]


def test_pieces_say_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that goes out in many pieces, or that came up in many, is spelled as one that goes out in one."""
    said = [
        news(
            stack(i, 2 * i, received_ns=NOW_NS + i) | {"flow": report(flow=f"10.0.{i % 7}.1:1>10.0.0.2:2/17")["flow"]},
            "flow_latency",
        )
        for i in range(50)
    ]
    whole = [batch_of(said)]
    spelt = []
    for limit, batches, one_by_one in (
        (10_000, whole, False), (7, whole, False), (7, whole, True), (10_000, [batch_of([one]) for one in said], False)
    ):  # fmt: skip
        monkeypatch.setattr(InfluxDB, "LINES", limit)
        exporter = InfluxDB(Config(influxdb="http://127.0.0.1:9"))
        exporter.close(0)
        items = [item for one in batches for item in exporter.take(one)]
        assert all(item.points <= limit for item in items)
        spelt.append(b"".join(exporter.spell([item]) for item in items) if one_by_one else exporter.spell(items))
    assert spelt == spelt[:1] * 4 and spelt[0].count(b"\n") == 50 * 7


def test_spelled_ahead_goes_out_in_order(server: servers.InfluxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is spelled while the server is at work goes out next, and once."""
    monkeypatch.setattr(InfluxDB, "LINES", 10)
    ahead, spelled_ahead = InfluxDB.ahead, []

    def noting(self: InfluxDB) -> None:
        ahead(self)
        spelled_ahead.append(len(self._chunks))

    monkeypatch.setattr(InfluxDB, "ahead", noting)
    with pushing(server.url, "ahead", push_interval=1000.0) as exporter:
        for i in range(20):
            exporter.write(batch_of(many(5, NOW_NS + 100 * i)))
        exporter.close(30)
        assert exporter.counts().delivered == 200
    assert spelled_ahead == [1] * 19 + [0]
    assert len(server.points("ahead")) == 200


# --- the server -------------------------------------------------------------------------------------------------------


def test_database_is_made_once_and_left_alone(server: servers.InfluxServer) -> None:
    """A database that is missing is made; one that exists keeps what it has, its policies included."""
    server.query("CREATE DATABASE mine WITH DURATION 30d NAME keep")
    server.query("CREATE DATABASE other")
    before = server.query("SHOW RETENTION POLICIES ON mine")
    for name in ("mine", 'od"d name'):
        with pushing(server.url, name) as exporter:
            exporter.write(batch_of(many(3, NOW_NS * 2)))  # a time within any policy: the future
            assert settled(exporter).delivered == 6
        assert len(server.points(name)) == 6
    assert server.query("SHOW RETENTION POLICIES ON mine") == before
    assert {"mine", "other", 'od"d name'} <= server.names("SHOW DATABASES")


def test_database_that_cannot_be_made(server: servers.InfluxServer) -> None:
    """A name that InfluxDB does not take is a problem that says so."""
    exporter = InfluxDB(Config(influxdb=server.url, influxdb_database="a/b", push_interval=0.05))
    exporter.write(batch_of(many(1)))
    problem = servers.wait(exporter.problem, "the answer is noticed")
    exporter.close(0.1)
    assert "asked to create it: invalid name" in (problem or "")


def test_database_dropped_meanwhile(server: servers.InfluxServer) -> None:
    """A database that somebody drops is made again, and no point after that is lost."""
    with pushing(server.url, "dropped") as exporter:
        exporter.write(batch_of(many(1)))
        settled(exporter)
        server.query("DROP DATABASE dropped")
        exporter.write(batch_of(many(2)))
        assert settled(exporter).delivered == 6
    assert len(server.points("dropped")) == 4


def test_partial_write_is_counted(server: servers.InfluxServer) -> None:
    """Of points some of which the server refuses the others are stored, and each is counted where it belongs."""
    server.query("CREATE DATABASE conflict")
    body = f"int_hop latency=5i {NOW_NS}"  # where ours is a float
    assert server.http.request("POST", f"{server.url}/write?db=conflict", body=body).status == 204
    with pushing(server.url, "conflict") as exporter:
        exporter.write(batch_of(many(7, NOW_NS)))
        counts = settled(exporter)
    assert (counts.delivered, counts.lost["rejected"]) == (7, 7)
    assert [p["measurement"] for p in server.points("conflict")].count("int_flow") == 7


def test_too_large_a_body_is_halved(tmp_path: pathlib.Path) -> None:
    """A server that takes small bodies only gets small ones, and every point; a line too long for it is counted."""
    with (
        servers.influxdb(tmp_path / "influxdb", max_body_size=2000) as server,
        pushing(server.url, "small") as exporter,
    ):
        exporter.write(batch_of(many(100)))
        assert settled(exporter).delivered == 200
        assert len(server.points("small")) == 200
    with servers.influxdb(tmp_path / "tiny", max_body_size=140) as server, pushing(server.url, "tiny") as exporter:
        exporter.write(batch_of(many(4)))
        counts = settled(exporter)
        assert counts.lost["rejected"] > 0
        assert len(server.points("tiny")) == counts.delivered == 8 - counts.lost["rejected"]


@pytest.mark.parametrize("path", ["", "/"])
def test_a_server_that_comes_late_goes_away_and_comes_back(tmp_path: pathlib.Path, path: str) -> None:
    """What is written while there is no server, at the start or later, arrives when there is one, each point once."""
    with servers.influxdb(tmp_path / "influxdb") as server:
        server.stop()
        with pushing(server.url + path, "outage") as exporter:
            exporter.write(batch_of(many(100)))
            servers.wait(exporter.problem, "the outage is noticed")
            assert "cannot be reached (Connection refused)" in (exporter.problem() or "")
            server.start()
            assert settled(exporter).delivered == 200
            assert exporter.problem() is None
            assert len(server.points("outage")) == 200
            server.stop()
            for i in range(1, 4):
                exporter.write(batch_of(many(100, NOW_NS + 1000 * i)))
            servers.wait(exporter.problem, "the second outage is noticed")
            counts = exporter.counts()
            assert (counts.accepted, counts.delivered, counts.buffered) == (800, 200, 600)
            assert counts.buffered_bytes > 0
            server.start()
            counts = settled(exporter)
            assert (counts.delivered, sum(counts.lost.values())) == (800, 0)
            assert len(server.points("outage")) == 800


def test_buffer_is_bounded_and_gives_up_the_oldest(tmp_path: pathlib.Path) -> None:
    """While a server is away the buffer stays within its limit, the oldest points go, and the sums close."""
    with servers.influxdb(tmp_path / "influxdb") as server:
        server.stop()
        with pushing(server.url, "bounded", push_buffer=1) as exporter:
            for i in range(20):
                exporter.write(batch_of(many(500, NOW_NS + 1_000_000 * i)))
                counts = exporter.counts()
                assert counts.accepted == counts.delivered + sum(counts.lost.values()) + counts.buffered
                # what is at work, one chunk, is not given up
                assert counts.buffered_bytes <= (1 << 20) + 2 * 200 * exporter.LINES
            lost = exporter.counts().lost["buffer_full"]
            assert lost > 0
            server.start()
            counts = settled(exporter)
            assert counts.delivered + counts.lost["buffer_full"] == 20_000
            stored = {p["time"] for p in server.points("bounded") if p["measurement"] == "int_flow"}
            assert {NOW_NS + 19_000_000 + i for i in range(500)} <= stored


def test_close_without_server() -> None:
    """Closing with a server that never was there takes no longer than it may, and counts what is lost."""
    config = Config(influxdb=f"http://127.0.0.1:{servers.free_port()}", push_interval=0.05)
    exporter = InfluxDB(config)
    exporter.write(batch_of(many(10)))
    exporter.close(0.3)
    counts = exporter.counts()
    assert (counts.accepted, counts.delivered, counts.lost["closed"], counts.buffered) == (20, 0, 20, 0)
    exporter.write(batch_of(many(1)))
    exporter.close(0.3)
    assert exporter.counts().lost["closed"] == 22


def test_close_delivers_what_is_buffered(server: servers.InfluxServer) -> None:
    """Closing does not wait for the interval's end: what is buffered goes out."""
    with pushing(server.url, "closing", push_interval=1000.0) as exporter:
        exporter.write(batch_of(many(10)))
        exporter.close(30)
        assert exporter.counts().delivered == 20
    assert len(server.points("closing")) == 20


def test_write_does_not_wait_for_a_server_that_hangs() -> None:
    """A server that accepts connections and says nothing holds neither write() nor close()."""
    with servers.silent() as port:
        exporter = InfluxDB(Config(influxdb=f"http://127.0.0.1:{port}", push_interval=0.05))
        for _ in range(100):
            exporter.write(batch_of(many(1)))
        exporter.close(0.5)
    counts = exporter.counts()
    assert (counts.accepted, counts.lost["closed"]) == (200, 200)


def test_counts_close_at_any_moment(server: servers.InfluxServer) -> None:
    """accepted = delivered + lost + buffered, whenever one looks."""
    ended = threading.Event()
    looked, wrong = 0, []
    with pushing(server.url, "moments", push_interval=0.01) as exporter:

        def look() -> None:
            nonlocal looked
            while not ended.is_set():
                counts = exporter.counts()
                looked += 1
                if counts.accepted != counts.delivered + sum(counts.lost.values()) + counts.buffered:
                    wrong.append(counts)

        thread = threading.Thread(target=look)
        thread.start()
        part = batch_of(many(200))
        for _ in range(50):
            exporter.write(part)
        settled(exporter)
        ended.set()
        thread.join(60)
    assert looked > 0 and not wrong
    assert len(server.points("moments")) == 50 * 400


def test_problems_are_said_once(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is said when it begins and when it is over, however many tries it takes."""
    with servers.influxdb(tmp_path / "influxdb") as server:
        server.stop()
        with pushing(server.url, "said", push_interval=0.01) as exporter:
            exporter.write(batch_of(many(1)))
            servers.wait(exporter.problem, "the outage is noticed")
            first = exporter._problem
            servers.wait(lambda: exporter._problem is not first, "another try")
            server.start()
            settled(exporter)
            servers.wait(lambda: exporter.problem() is None, "the problem is over")
    assert [("cannot be reached" in r.message, "works again" in r.message) for r in caplog.records] == [
        (True, False),
        (False, True),
    ]


def test_not_an_influxdb(caplog: pytest.LogCaptureFixture) -> None:
    """A web server that is no InfluxDB is a problem that is named, and nothing is lost until the end."""
    with servers.static(404, b"<h1>what?</h1>") as port:
        exporter = InfluxDB(Config(influxdb=f"http://127.0.0.1:{port}", push_interval=0.01))
        exporter.write(batch_of(many(1)))
        servers.wait(exporter.problem, "the answer is noticed")
        assert "answered 404 (<h1>what?</h1>): is this an InfluxDB" in (exporter.problem() or "")
        assert exporter.counts().buffered == 2
        exporter.close(0.1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_overload_is_waited_for(status: int) -> None:
    """A server that says it is overloaded loses nothing: points are kept."""
    with servers.static(status, b'{"error":"later"}') as port:
        exporter = InfluxDB(Config(influxdb=f"http://127.0.0.1:{port}", push_interval=0.01))
        exporter.write(batch_of(many(1)))
        servers.wait(exporter.problem, "the answer is noticed")
        assert f"answered {status} (later)" in (exporter.problem() or "")
        assert exporter.counts().buffered == 2
        exporter.close(0.1)
    assert exporter.counts().lost["closed"] == 2
