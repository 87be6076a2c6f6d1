"""events.py: records become the batch again that they were made of, and what is no record is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intcollector import wire
from intcollector.batch import Batch
from intcollector.config import LATENCY_UNITS, Config
from intcollector.events import LATEST, LONGEST, REASONS, Events, Refused, batch_of, of_messages, read
from intcollector.layout import HEAD, HOP, ReportFlag
from intcollector.postcards import in_order
from intcollector.series import points, records, texts
from intcollector.traffic import Traffic, frames

from . import batches, strategies
from .batches import news, report, vectors
from .frames import Datapaths, quiet
from .needs import needs_root

CONFIG = Config()
NOW_NS = 1_700_000_000_000_000_000

CHANGES = [
    "new_flow", "path", "flow_latency", {"hop": 0, "what": "hop_latency"}, {"hop": 15, "what": "hop_latency"},
    {"hop": "local", "what": "hop_latency"}, {"hop": 1, "what": "queue_occupancy"},
    {"hop": "local", "what": "queue_occupancy"}, {"hop": 2, "what": "egress_port_tx_utilization"},
    {"hop": "local", "what": "egress_port_tx_utilization"}, "dropped", "congested_queue", "keepalive",
]  # fmt: skip
"""All there are, in the order in which a record has them."""
CARDS = {
    "hop_count": 3,
    "hops": [
        {"switch_id": 6, "egress_port_id": 61, "queue_id": 1, "hop_latency": 600},
        {"switch_id": 5, "egress_port_id": None, "queue_id": None, "hop_latency": None},
        {"switch_id": 4, "egress_port_id": 41, "queue_id": 0, "hop_latency": 400},
    ],
    "latency": 1000,
}
HOP_FIELDS = {
    "switch_id": 4, "ingress_port_id": 1, "egress_port_id": 2, "hop_latency": 500, "queue_id": 3, "queue_occupancy": 40,
    "ingress_timestamp": 1000, "egress_timestamp": 1500, "l2_ingress_port_id": 7, "l2_egress_port_id": 8,
    "egress_port_tx_utilization": 60,
}  # fmt: skip


def stack(*hops: dict[str, Any]) -> dict[str, Any]:
    """Of INT 1.0, with everything but a checksum complement. hops: what they have beside HOP_FIELDS."""
    return {
        "version": "1.0", "mode": "MD", "instruction_bitmap": "0xff00", "hop_ml": 9, "remaining_hop_count": 3,
        "hop_count": len(hops), "hops": [{**HOP_FIELDS, **hop} for hop in hops], "latency": 500 * len(hops),
    }  # fmt: skip


def record(**more: Any) -> dict[str, Any]:
    """One that records() could have made."""
    said = {"int": stack({}, {"switch_id": 5}), "received_ns": NOW_NS, "changes": ["new_flow"]}
    return {**report(), **said, **more}


def as_record(said: wire.Report, number: int, changes: Sequence[Any] = ()) -> dict[str, Any]:
    """A report with what a record has beside it."""
    return {**said, "received_ns": NOW_NS + number, "changes": list(changes)}


def said_of(batch: Batch, config: Config = CONFIG) -> list[tuple[Any, ...]]:
    """All points that are made of a batch."""
    return [
        (kind.kind, name, value, wire_value, None if kind.paths is None else texts(kind.paths)[row], time)
        for kind in points(batch, config)
        for row, (name, value, wire_value, time) in enumerate(
            zip(
                zip(*map(texts, kind.labels.values()), strict=True), texts(kind.values), kind.wire.tolist(),
                kind.times_ns.tolist(), strict=True,
            )
        )
    ]  # fmt: skip


def assert_back(batch: Batch, config: Config = CONFIG) -> None:
    """A batch's records, as JSON, become a batch of the same records and points, by either kind of time."""
    wanted = records(batch, config)
    back, refused = of_messages([json.dumps(one).encode() for one in wanted])
    assert not refused
    assert [list(one) for one in records(back, config)] == [list(one) for one in wanted]  # the order of the keys too
    assert records(back, config) == wanted
    for timestamps in ("host", "int"):
        by = dataclasses.replace(config, timestamps=timestamps)
        assert said_of(back, by) == said_of(batch, by)


# --- there and back ---------------------------------------------------------------------------------------------------


def test_vectors_come_back() -> None:
    """The reports of all vectors, as records, become a batch whose records they are."""
    said = [
        as_record(one if one["int"] is None or one["int"]["hop_count"] <= 16 else
                  {**strategies.kept(one), "flow_latency": 77}, number)
        for number, one in enumerate(each for vector in vectors() for each in vector["reports"])
    ]  # fmt: skip
    assert len(said) > 50
    assert records(batch_of(said), CONFIG) == said


@settings(max_examples=40, deadline=None)
@given(
    st.lists(strategies.cases(), min_size=1, max_size=3),
    st.lists(st.sampled_from(CHANGES), unique_by=CHANGES.index),
    st.sampled_from(LATENCY_UNITS),
    st.booleans(),
)
def test_every_record_comes_back(cases: list[strategies.Case], changes: list[Any], unit: str, with_cards: bool) -> None:
    """Reports of every version and profile, with any changes, unit and postcards, come back whole."""
    ordered = [change for change in CHANGES if change in changes]
    said = []
    for number, one in enumerate(each for case in cases for each in case.reports):
        more: dict[str, Any] = {} if unit == "ns" else {"time_unit": unit}
        if "dropped" in ordered:
            code = (one["local_hop"] or {}).get("drop_reason", 255)
            more["drop_reason"] = (CONFIG.drop_reason_names.get(code, str(code))) if code != 255 else None
        has_stack = one["int"] and one["int"]["hop_count"]
        if with_cards and not has_stack:
            more["postcards"] = CARDS
        if has_stack and one["int"]["hop_count"] > 16:
            more["flow_latency"] = None if number % 2 else 12345
        said.append({**as_record(strategies.kept(one), number, ordered), **more})
    assert records(batch_of(said), CONFIG) == said
    # tests' own idea of what a record stands for
    mine, theirs = batch_of(said), batches.batch_of([one for one in said if "flow_latency" not in one])
    mine = mine.only(np.array(["flow_latency" not in one for one in said]))
    for name in ("flags", "changes", "latency", "hop_count", "hop_latency_changes", "switch_id", "time_unit"):
        assert mine.reports[name].tolist() == theirs.reports[name].tolist(), name
    assert mine.hop_index.tolist() == theirs.hop_index.tolist()
    for name in ("switch_id", "hop_latency", "queue_occupancy", "egress_port_tx_utilization", "buffer_occupancy"):
        assert in_order(mine, ()).hops[name].tolist() == in_order(theirs, ()).hops[name].tolist(), name


@needs_root
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=strategies.cases(), unit=st.sampled_from(LATENCY_UNITS))
def test_the_program_s_events_come_back(datapaths: Datapaths, case: strategies.Case, unit: str) -> None:
    """What the kernel program told of packets of every version becomes records, and these the same batch and points."""
    config = dataclasses.replace(case.config, latency_unit=unit, ring_size=1, max_flows=4096)
    datapath = datapaths(config)
    datapath.run(case.frame)
    batch = datapath.drain()
    assert_back(batch, config)


MIX = Traffic(
    packets=600, flows=30, hops=3, event_rate=0.5, path_changes=0.1, drop_reports=0.1, congestion_reports=0.1, ipv6=0.3
)
OTHERS = (
    Traffic(packets=300, flows=20, report_version="2.0", int_version="2.1", hops=4, event_rate=0.5),
    Traffic(packets=300, flows=20, report_version="0.5", int_version="0.5", hops=2, event_rate=0.5, drop_reports=0.2),
    Traffic(packets=200, flows=5, hops=2, event_rate=0.9, instructions=0x8C00),
)


@needs_root
@pytest.mark.parametrize("made", [MIX, *OTHERS])
def test_generated_traffic_comes_back(datapaths: Datapaths, made: Traffic) -> None:
    """Events of generated traffic, drops and congestion among them, come back with all their points."""
    config = quiet(Config(int_dscp=(23, 63)), hop_latency_threshold=5, ring_size=1, max_flows=4096)
    datapath = datapaths(config)
    batches_ = []
    for number, one in enumerate(frames(made)):
        datapath.run(one)
        if number % 64 == 63:
            batches_.append(datapath.drain())
    batches_.append(datapath.drain())
    batch = Batch.together([one for one in batches_ if len(one)])
    assert len(batch) > 20
    assert_back(batch, config)


def test_what_timestamps_say_is_the_latency_again() -> None:
    """A hop without a latency has the time between its timestamps again, in the width that they have."""
    late = 2**32 - 10
    hops = ({"hop_latency": None, "ingress_timestamp": late, "egress_timestamp": 5}, {"hop_latency": None})
    narrow = record(int={**stack(*hops), "latency": None})
    wide = copy.deepcopy(narrow)  # of the profile geant
    wide["int"]["hop_ml"] = 10
    wide["int"]["hops"][1].update(ingress_timestamp=2**40, egress_timestamp=2**40 + 7)
    unknown = record(int={**stack({"hop_latency": None, "egress_timestamp": None}), "latency": None})
    batch = batch_of([narrow, wide, unknown])
    assert batch.hops["latency"].tolist() == [15, 500, 2**32 - 1, 7, 2**32 - 1]
    assert batch.reports["flow_latency"].tolist() == [515, 7, 2**64 - 1]
    local = record(local_hop={"egress_timestamp": 5}, ingress_timestamp=late, int=None)
    assert batch_of([local]).reports["local"]["latency"].tolist() == [15]


def test_a_switch_that_is_in_a_path_twice() -> None:
    """The values that a report has of one switch are a nanosecond apart, whatever else comes in its batch."""
    twice = record(int=stack({}, {"switch_id": 5}, {}, {}))
    said = news(twice, "new_flow")
    other = {**said, "received_ns": NOW_NS + 32}
    alone, both = batch_of([said]), batch_of([said, other])
    times = [time - NOW_NS for kind, *_, time in said_of(alone) if kind == "hop"]
    assert times == [0, 0, 1, 2]
    assert {kind: sorted(t - NOW_NS for k, *_, t in said_of(both) if k == kind) for kind in ("queue", "port")} == {
        "queue": [0, 0, 1, 2, 32, 32, 33, 34], "port": [0, 0, 1, 2, 32, 32, 33, 34]
    }  # fmt: skip


def test_keys_that_are_not_known_are_left_alone() -> None:
    """A newer collector may say more of an event: what is known of it is read."""
    assert records(batch_of([{**record(), "weather": {"wind": [1, 2]}}]), CONFIG) == [record()]


def test_nothing_is_nothing() -> None:
    """No messages make an empty batch, of which nothing is said."""
    batch, refused = of_messages([])
    assert (len(batch), len(batch.hops), records(batch, CONFIG), said_of(batch), dict(refused)) == (0, 0, [], [], {})
    assert (batch.reports.dtype, batch.hops.dtype) == (HEAD, HOP)


# --- what is no record ------------------------------------------------------------------------------------------------

BARE = {key: value for key, value in record().items() if key != "changes"}
ONE_HOP = stack({})


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("not_json", None),
        ("not_json", b""),
        ("not_json", b"\xff\xfe"),
        ("not_json", b'{"version": '),
        ("not_json", b"[" * 50_000),
        ("not_json", b"1" * 10_000),
        ("too_long", b" " * (LONGEST + 1)),
        ("not_a_record", b"[]"),
        ("not_a_record", b"NaN"),
        ("not_a_record", b'"version"'),
        ("not_a_record", BARE),
        ("not_a_record", record(dropped=0)),
        ("not_a_record", record(switch_id=None)),
        ("not_a_record", record(switch_id=True)),
        ("not_a_record", record(switch_id=1.0)),
        ("not_a_record", record(switch_id="1")),
        ("not_a_record", record(ingress_timestamp=None)),
        ("not_a_record", record(version="2.0")),
        ("not_a_record", record(version=["1.0"])),
        ("not_a_record", record(flow=[])),
        ("not_a_record", record(flow={**record()["flow"], "ttl": 3})),
        ("not_a_record", record(flow={**record()["flow"], "source": None})),
        ("not_a_record", record(flow={**record()["flow"], "ip_version": None})),
        ("not_a_record", record(flow={**record()["flow"], "vlan_ids": [1, 2, 3]})),
        ("not_a_record", record(flow={**record()["flow"], "source_port": None})),
        ("not_a_record", record(local_hop=[])),
        ("not_a_record", record(local_hop={"ingress_port_id": 1})),
        ("not_a_record", record(local_hop={"hop_latency": None})),
        ("not_a_record", record(int={**ONE_HOP, "hop_count": 2})),
        ("not_a_record", record(int={**ONE_HOP, "hops_truncated": True})),
        ("not_a_record", record(int={**ONE_HOP, "hop_count": True})),
        ("not_a_record", record(int={**ONE_HOP, "hops": [{"switch_id": 1}]})),
        ("not_a_record", record(int={**ONE_HOP, "hops": [[*HOP_FIELDS]]})),
        ("not_a_record", record(int={**ONE_HOP, "instruction_bitmap": "0xFF00"})),
        ("not_a_record", record(int={**ONE_HOP, "instruction_bitmap": 0xFF00})),
        ("not_a_record", record(postcards=CARDS)),
        ("not_a_record", record(int=None, postcards=None)),
        ("not_a_record", record(int=None, postcards={**CARDS, "hop_count": 2})),
        ("not_a_record", record(changes="new_flow")),
        ("not_a_record", record(changes={})),
        ("not_a_record", record(changes=[None])),
        ("not_a_record", record(changes=[{"hop": True, "what": "hop_latency"}])),
        ("not_a_record", record(changes=[{"hop": 1, "what": ["hop_latency"]}])),
        ("out_of_range", record(switch_id=2**32)),
        ("out_of_range", record(hw_id=-1)),
        ("out_of_range", record(received_ns=LATEST)),
        ("out_of_range", record(received_ns=10**30)),
        ("out_of_range", record(source="10.0.0.256")),
        ("out_of_range", record(source="::x")),
        ("out_of_range", record(source="\ud800:")),
        ("out_of_range", record(flow={**record()["flow"], "ip_version": 5})),
        ("out_of_range", record(flow={**record()["flow"], "ip_version": 6})),
        ("out_of_range", record(flow={**record()["flow"], "dscp": 256})),
        ("out_of_range", record(int=stack({"queue_id": 2**16}))),
        ("out_of_range", record(int=stack({"switch_id": 2**32 - 1}))),
        ("out_of_range", record(int=stack({"switch_id": 2**32 - 1, "queue_id": None}))),
        ("out_of_range", record(int={**ONE_HOP, "latency": 2**64})),
        ("out_of_range", record(local_hop={"queue_id": 256, "queue_occupancy": 1})),
        ("out_of_range", record(int=None, postcards={**CARDS, "hops": [{**h, "queue_id": -1} for h in CARDS["hops"]]})),  # type: ignore[dict-item, attr-defined]
        ("unknown_word", record(version="3.0")),
        ("unknown_word", record(time_unit="s")),
        ("unknown_word", record(int={**ONE_HOP, "version": "2.0"})),
        ("unknown_word", record(int={**ONE_HOP, "mode": "XD"})),
        ("unknown_word", record(changes=["weather"])),
        ("unknown_word", record(changes=[{"hop": 16, "what": "hop_latency"}])),
        ("not_a_record", record(changes=[{"hop": "remote", "what": "hop_latency"}])),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(reason: str, message: Any) -> None:
    """Each kind of wrong message is refused by its reason, and those around it are read."""
    assert reason in REASONS
    wrong = json.dumps(message).encode() if isinstance(message, dict) else message
    good = [json.dumps(record(sequence_number=number)).encode() for number in (1, 2)]
    batch, refused = of_messages([good[0], wrong, good[1], wrong])
    assert dict(refused) == {reason: 2}
    assert records(batch, CONFIG) == [record(sequence_number=1), record(sequence_number=2)]


LOCAL = {"ingress_port_id": 1, "egress_port_id": 2, "queue_id": 3, "queue_occupancy": 40}
SEEDS = [
    record(), record(int=None, local_hop=LOCAL, postcards=CARDS, changes=CHANGES[5:8]),
    record(version="0.5", switch_id=None, int=None),
    record(int={**stack(*[{}] * 16), "hop_count": 17, "hops_truncated": True}, flow_latency=8500, time_unit="us"),
    record(version="2.0", ingress_timestamp=None, flow=None, int=None, local_hop={}),
]  # fmt: skip
SEED_BYTES = [json.dumps(one).encode() for one in SEEDS]
ODD_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([0, 1, 16, 255, 2**16, 2**32 - 1, 2**64]),
    st.floats(), st.text(max_size=5), st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["hop", "what", "switch_id"]), st.integers(0, 3), max_size=2),
)  # fmt: skip


def places(said: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a record."""
    inside = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    return [found for key, value in inside for found in [(*path, key), *places(value, (*path, key))]]


def assert_read_whole_or_not(message: bytes) -> None:
    """It is refused, or all of it that is known is in the batch."""
    batch, refused = of_messages([message, SEED_BYTES[0]])
    assert sum(refused.values()) + len(batch) == 2
    said = records(batch, CONFIG)
    assert said[-1] == SEEDS[0]
    if not refused:
        wanted = read(message)
        known = {*said[0], "time_unit"}
        wanted = {key: value for key, value in wanted.items() if key in known}
        if wanted.get("time_unit") == "ns":
            del wanted["time_unit"]
        for key in ("drop_reason", "changes"):  # the one is the config's to say, the other in no order
            wanted.pop(key, None), said[0].pop(key, None)
        for one in (wanted, said[0]):
            addresses = [one, one["flow"]] if one["flow"] else [one]
            for holder in addresses:
                for name in ("source", "destination"):
                    if holder.get(name):
                        holder[name] = wire.address_number(holder[name])
        assert said[0] == wanted


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_record_with_something_wrong_is_read_whole_or_not_at_all(data: st.DataObject) -> None:
    """Whatever stands in place of a part of a record, or is left out, it is refused, or all of it is read."""
    said = copy.deepcopy(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(said)))
        holder: Any = said
        for key in path:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = data.draw(ODD_VALUES)
        else:
            del holder[last]
    assert_read_whole_or_not(json.dumps(said).encode())


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEED_BYTES), st.integers(0, 2**32), st.integers(1, 3))
def test_bytes_that_changed_are_read_whole_or_not_at_all(message: bytes, seed: int, times: int) -> None:
    """A message of which bytes are missing, doubled or others is refused, or all that it says is read."""
    for number in range(times):
        message = next(wire.mutations(message or b"{", 1, seed + number))
    assert_read_whole_or_not(message)


@given(st.binary(max_size=200))
def test_any_bytes(message: bytes) -> None:
    """What is not JSON at all is refused."""
    batch, refused = of_messages([message])
    assert (len(batch), sum(refused.values())) == (0, 1)


def test_a_refused_record_leaves_nothing() -> None:
    """Of a record that is refused for its last part nothing is in the batch, its hops and places neither."""
    events = Events()
    for wrong in (record(changes=["weather"]), record(int=None, postcards=CARDS, local_hop=LOCAL, received_ns=-1)):
        with pytest.raises(Refused):
            events.add(wrong)
    events.add(record())
    batch = events.batch()
    assert (len(batch), len(batch.hops)) == (1, 2)
    assert not (batch.reports["flags"] & (ReportFlag.LOCAL | ReportFlag.POSTCARD)).any()
