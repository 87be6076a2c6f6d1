"""--cpus: reports spread over several CPUs by their flows leave what one CPU leaves."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from intcollector import kernel, sending, traffic
from intcollector.batch import Batch, State
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.errors import LoadError
from intcollector.interface import Attachment
from intcollector.lab import Lab
from intcollector.layout import OUTCOMES, Change
from intcollector.traffic import Traffic

from .batches import vectors
from .collectors import network
from .needs import needs_root
from .servers import wait

pytestmark = [
    needs_root,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a second CPU"),
]

CONFIG = Config(int_dscp=(23, 63), keepalive=0, ring_size=8, max_flows=4096)
SEQUENCE = ("received", "lost", "reordered", "duplicated", "restarted")


@pytest.fixture
def pair() -> Iterator[Lab]:
    with network() as made:
        yield made


def outcomes_of(state: State) -> dict[str, int]:
    """Packets by what became of them."""
    counts = state.counters["outcomes"]
    return {name: int(n) for name, n in zip(OUTCOMES, counts[: len(OUTCOMES)], strict=True) if n}


def seen(datapath: Datapath) -> int:
    """Packets that have their outcome."""
    return int(datapath.counters()["outcomes"].sum())


def collect(pair: Lab, config: Config, made: Traffic) -> Datapath:
    """A program that saw all of the traffic on an interface; to be closed by the caller."""
    datapath = Datapath(config)
    with pair.inside(1) as name:
        attachment = Attachment(datapath.entry, name, config)
    try:
        with pair.inside(0) as name:
            sent = sending.send(made, name, rate=25_000, count=made.packets)
        assert sent.dropped == 0
        wait(lambda: seen(datapath) >= sent.sent, "all reports are counted")
    finally:
        attachment.close()
    return datapath


def test_the_numbers_are_those_of_one_cpu(pair: Lab) -> None:
    """The same traffic, with loss, reordering, duplicates, path changes, drops and congestion, over one CPU and over
    two: both CPUs work, and flows, ports, queues, histograms, sources, outcomes and flows' events are the same."""
    made = Traffic(
        packets=60_000, flows=500, hops=3, event_rate=0.01, path_changes=0.01, drop_reports=0.005,
        congestion_reports=0.005, loss=0.002, duplicates=0.002, reordered=0.002,
    )  # fmt: skip
    one, two = collect(pair, CONFIG, made), collect(pair, dataclasses.replace(CONFIG, cpus=2), made)
    try:
        statistics = two._statistics()
        assert (statistics["arrived"] > 5_000).sum() == 2
        assert statistics["arrived"].sum() == statistics["spread"].sum() > 50_000
        assert int(one._statistics()["spread"].sum()) == 0
        a, b = one.state(), two.state()
        assert outcomes_of(a) == outcomes_of(b) == {"ok": 60_000}
        assert b.lost_between_cpus == 0
        for name in ("events_lost", "flows_refused", "points_refused"):
            assert a.counters[name] == b.counters[name] == 0, name
        assert _news(one.drain()) == _news(two.drain())
        names = ("switch_id", "hw_id", *SEQUENCE)
        assert _sorted(a.sources, *names) == _sorted(b.sources, *names)
        assert a.sources["lost"].sum() > 0 and a.sources["duplicated"].sum() > 0 and a.sources["reordered"].sum() > 0
        assert _drops(a) == _drops(b)
        assert _flows(a) == _flows(b)
        for kind in ("ports", "queues"):
            first = _points(getattr(a, kind), getattr(a, f"{kind[:-1]}_statistics"))
            assert first == _points(getattr(b, kind), getattr(b, f"{kind[:-1]}_statistics"))
            assert len(first) > 3
    finally:
        one.close()
        two.close()


def _news(batch: Batch) -> dict[str, int]:
    """How often which news was told of a flow. Of a queue or a port it depends on whose report came first."""
    reports = batch.reports
    news = {change.name or "": int((reports["changes"] & change != 0).sum()) for change in Change}
    del news["LOCAL_QUEUE_OCCUPANCY"], news["LOCAL_TX_UTILIZATION"]
    latencies = reports["hop_latency_changes"].astype(np.uint16).view(np.uint8)
    assert news["NEW_FLOW"] == 500 and news["PATH"] > 100 and news["DROPPED"] > 100
    return {**news, "hop_latency": int(np.unpackbits(latencies).sum())}


def _sorted(rows: np.ndarray, *names: str) -> list[tuple[int, ...]]:
    return sorted(zip(*(rows[name].tolist() for name in names), strict=True))


def _flows(state: State) -> dict[bytes, tuple[int, ...]]:
    return {
        bytes(key): (
            *(int(flow[name]) for name in ("reports", "latency", "hop_count")),
            *flow["hops"]["switch_id"].tolist(),
            *flow["hops"]["latency"].tolist(),
        )
        for key, flow in zip(state.flow_keys, state.flows, strict=True)
    }


def _drops(state: State) -> dict[bytes, int]:
    return {bytes(key): int(count) for key, count in zip(state.drop_keys, state.drops, strict=True)}


def _points(points: np.ndarray, statistics: np.ndarray) -> dict[tuple[int, int], bytes]:
    """What was counted of each; the last value of one that several flows share depends on which came last."""
    found: dict[tuple[int, int], bytes] = {}
    for point, beside in zip(points[1:], statistics[1:], strict=True):
        key = int(point["switch_id"]), int(point["id"])
        if any(bytes(beside)):
            assert not any(found.get(key, b""))
            found[key] = bytes(beside)
        else:  # it may be that two CPUs began an entry at the same time: one of both is never used
            found.setdefault(key, bytes(beside))
    return found


def test_what_is_not_spread_is_collected_where_it_came_in(pair: Lab) -> None:
    """Every vector, valid or not, and foreign packets end in the outcome that they have without --cpus."""
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors()]
    frames = [frame for frame in frames if 60 <= len(frame) <= 1500]
    assert len(frames) > 50
    outcomes = []
    for cpus in (0, 2):
        config = dataclasses.replace(Config(ring_size=8, max_flows=4096), cpus=cpus, accepted_verdict="drop")
        datapath = Datapath(config)
        try:
            with pair.inside(1) as name:
                attachment = Attachment(datapath.entry, name, config)
            with pair.inside(0) as name, sending.PacketSocket(name) as socket:
                length = np.array([len(frame) for frame in frames])
                start = np.cumsum(length) - length
                data = np.frombuffer(b"".join(frames), np.uint8)
                assert socket.send(data, start, length) == len(frames)
            wait(lambda d=datapath: seen(d) >= len(frames), "all frames are counted")  # type: ignore[misc]
            attachment.close()
            found = outcomes_of(datapath.state())
            outcomes.append({name: count for name, count in found.items() if not name.startswith("pass_")})
            if cpus:
                assert int(datapath._statistics()["spread"].sum()) > 10
        finally:
            datapath.close()
    assert outcomes[0] == outcomes[1]


def test_a_refused_report_is_not_received(pair: Lab) -> None:
    """A report that the other CPU refuses advances its source's numbers and is not among those received."""
    good = next(traffic.frames(Traffic(packets=1, flows=1, hops=3)))
    config = dataclasses.replace(CONFIG, cpus=2)
    datapath = Datapath(config)
    try:
        with pair.inside(1) as name:
            attachment = Attachment(datapath.entry, name, config)
        frames = [_numbered(good, n, spoilt=n % 10 == 0) for n in range(1, 1001)]
        _send(pair, frames)
        wait(lambda: seen(datapath) >= 1000, "all frames are counted")
        attachment.close()
        state = datapath.state()
        (source,) = state.sources[state.sources["received"] > 0]
        assert source["received"] == 900 and source["lost"] == 0
        assert outcomes_of(state)["ok"] == 900 and sum(outcomes_of(state).values()) == 1000
    finally:
        datapath.close()


REPORT_AT = 14 + 20 + 8


def _numbered(frame: bytes, number: int, *, spoilt: bool) -> bytes:
    """A frame with another sequence number; spoilt: its INT header has a hop length that is not its bitmap's."""
    out = bytearray(frame)
    out[REPORT_AT + 8 : REPORT_AT + 12] = number.to_bytes(4, "big")
    if spoilt:
        inner = REPORT_AT + 16 + 14
        l4 = inner + 20 + (20 if out[inner + 9] == 6 else 8)
        out[l4 + 4 + 2] ^= 0x01  # Hop ML
    return bytes(out)


def _send(pair: Lab, frames: Sequence[bytes]) -> None:
    with pair.inside(0) as name, sending.PacketSocket(name) as socket:
        length = np.array([len(frame) for frame in frames])
        done = 0
        while done < len(frames):
            some = slice(done, done + 200)
            start = np.cumsum(length[some]) - length[some]
            done += socket.send(np.frombuffer(b"".join(frames[some]), np.uint8), start, length[some])


def test_reports_that_find_no_room_are_counted(pair: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into another CPU's queue is neither collected nor forgotten: sent is collected and lost."""
    monkeypatch.setattr("intcollector.datapath.SPREAD_QUEUE", 8)
    made = Traffic(packets=200_000, flows=500, hops=3)
    config = dataclasses.replace(CONFIG, cpus=2)
    datapath = Datapath(config)
    try:
        with pair.inside(1) as name:
            attachment = Attachment(datapath.entry, name, config)
        with pair.inside(0) as name:
            sent = sending.send(made, name, rate=None, count=made.packets)

        def closes() -> bool:
            return seen(datapath) + datapath.state().lost_between_cpus == sent.sent

        wait(closes, "collected and lost are all that was sent")
        attachment.close()
        assert datapath.state().lost_between_cpus > 0
    finally:
        datapath.close()


def test_more_cpus_than_there_are() -> None:
    """It is said how many there are."""
    if len(os.sched_getaffinity(0)) >= 64:
        pytest.skip("needs a machine of less than 64 CPUs")
    with pytest.raises(LoadError, match="are online"):
        Datapath(dataclasses.replace(CONFIG, cpus=64))


def test_nothing_stays(pair: Lab) -> None:
    """After close() none of the copies is loaded any more."""
    datapath = Datapath(dataclasses.replace(CONFIG, cpus=2))
    copies = [kernel.program_id(fd) for fd in datapath._copies[1:]]
    datapath.close()
    deadline = time.monotonic() + 10

    def gone() -> bool:
        for identity in copies:
            try:
                os.close(kernel.program_fd(identity))
                return False
            except FileNotFoundError:
                continue
        return True

    wait(gone, "the copies are gone")
    assert time.monotonic() < deadline
