"""The kernel program from user space: intcollector/datapath.py, kernel.py and loader.py against the running kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from intcollector import datapath as under_test
from intcollector import kernel, loader, wire
from intcollector.batch import FLOW, PROFILE, SETTINGS
from intcollector.config import PROFILES, Config
from intcollector.datapath import Datapath, PerfBuffer, to_batch
from intcollector.errors import LoadError
from intcollector.layout import CELL, HEAD, HEAD_CELLS, HOP, MAX_HOPS, offset
from intcollector.loader import Program
from intcollector.program import cpu_numbers

from .frames import HASH, Datapaths, frame, map_fd, numbered, quiet
from .needs import needs_root
from .servers import wait

CONFIG = quiet(Config(ring_size=1, max_flows=4096))
ROOT = pathlib.Path(__file__).resolve().parent.parent
DEADLINE_S = 60
MAP_GET_FD_BY_ID = 14


# --- cells -> Batch ---------------------------------------------------------------------------------------------------

CELL_AT = offset(HOP, "cell")


def cells_of(*hops: int) -> np.ndarray:
    """Events with these numbers of hops, one after the other, whose cells are filled with their event's number."""
    cells = []
    for event, count in enumerate(hops):
        numbers = range(HEAD_CELLS + 1 + count)
        cells += [(event, number) for number in numbers]
    out = np.empty((len(cells), CELL), np.uint8)
    for cell, (event, number) in zip(out, cells, strict=True):
        cell[:] = event + 1
        cell[CELL_AT : CELL_AT + 4] = np.frombuffer(struct.pack("=I", number), np.uint8)
    return out


def test_no_cells_are_an_empty_batch() -> None:
    """Nothing drained is a Batch without reports and hops."""
    batch = to_batch(np.empty((0, CELL), np.uint8), 7)
    assert (len(batch), len(batch.hops), batch.clock_ns) == (0, 0, 7)
    assert batch.reports.dtype == HEAD and batch.hops.dtype == HOP


@pytest.mark.parametrize("hops", [[0], [1], [16], [0, 0], [3, 0, 16, 1, 0, 2], [0, 5, 0]])
def test_cells_become_a_batch(hops: list[int]) -> None:
    """Each event is one row of reports; its hops know which, and which of its hops they are."""
    batch = to_batch(cells_of(*hops), 0)
    assert batch.reports["switch_id"].tolist() == [0x01010101 * (event + 1) for event in range(len(hops))]
    assert batch.reports["local"]["hop_latency"].tolist() == batch.reports["switch_id"].tolist()
    assert batch.hop_report.tolist() == [event for event, count in enumerate(hops) for _ in range(count)]
    assert batch.hop_index.tolist() == [i for count in hops for i in range(count)]
    assert batch.hops["hop_latency"].tolist() == [0x01010101 * (event + 1) for event in batch.hop_report]


def test_unfinished_events_are_left() -> None:
    """What the kernel still writes ends what is read, whatever the bytes behind it look like."""
    cells = cells_of(2, 0, 1)
    sizes = np.zeros(len(cells), np.uint32)
    heads = [0, 6, 10]
    sizes[heads] = [6 * CELL, 4 * CELL, 5 * CELL]
    for busy in range(4):
        finished = np.ones(len(cells), bool)
        finished[heads[busy:]] = False
        assert under_test.whole_events(cells, sizes, finished) == [*heads, 15][busy]
    written = cells.copy()  # the second one's number is not there yet
    written[6, CELL_AT : CELL_AT + 4] = 9
    assert under_test.whole_events(written, sizes, np.ones(len(cells), bool)) == 6
    written[0, CELL_AT : CELL_AT + 4] = 9
    assert under_test.whole_events(written, sizes, np.ones(len(cells), bool)) == 0


# --- up ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ring", "perf"])
def transport(request: pytest.FixtureRequest) -> Config:
    """CONFIG with each way up."""
    return dataclasses.replace(CONFIG, event_transport=request.param)


def drops(config: Config, count: int, seed: int) -> tuple[list[bytes], list[int]]:
    """Reports that are told each, of all sizes, numbered from 0; the hops of each, which carry its number."""
    chance = random.Random(seed)
    shapes = [
        frame(config, *({"switch_id": 1, "hop_latency": i} for i in range(hops)), dropped=True)
        for hops in range(MAX_HOPS + 1)
    ]
    hops = [chance.randrange(MAX_HOPS + 1) for _ in range(count)]
    return [numbered(shapes[n], [number])[0] for number, n in enumerate(hops)], hops


@needs_root
def test_nothing_is_lost_nor_doubled_while_the_buffer_wraps(datapaths: Datapaths, transport: Config) -> None:
    """What a writer puts in while it is drained comes up whole, once and in order, many times round the buffer."""
    datapath = datapaths(transport)
    frames, hops = drops(transport, 15_000, 1)
    room = 16

    def write() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread: one CPU, one order
        for at in range(0, len(frames), room):
            for one in frames[at : at + room]:
                datapath.run(one)
            while not stop.is_set() and drained[0] < at - 300:  # what does not fit is another test's
                more.wait(1)
                more.clear()

    drained, more, stop = [0], threading.Event(), threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        numbers: list[int] = []
        hop_counts: list[int] = []
        drains = 0
        deadline = time.monotonic() + DEADLINE_S
        while len(numbers) < len(frames):
            assert time.monotonic() < deadline
            batch = datapath.drain()
            numbers += batch.reports["sequence_number"].tolist()
            hop_counts += batch.reports["hop_count"].tolist()
            assert batch.hop_report.tolist() == np.repeat(np.arange(len(batch)), batch.reports["hop_count"]).tolist()
            assert (batch.hops["latency"] == batch.hop_index).all()
            drains += len(batch) > 0
            drained[0] = len(numbers)
            more.set()
    finally:
        stop.set()
        more.set()
        writer.join()
    assert datapath.counters()["events_lost"] == 0
    assert numbers == list(range(len(frames)))
    assert hop_counts == hops
    assert drains > 20
    assert sum((HEAD_CELLS + 1 + n) * CELL for n in hops) > 8 * transport.ring_size * 2**20


@needs_root
def test_after_a_loss_the_rest_comes_up(datapaths: Datapaths, transport: Config) -> None:
    """A buffer that was too full, again and again, brings up all it took, in order, and nothing else."""
    datapath = datapaths(transport)
    frames, _ = drops(transport, 400, 2)
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        numbers: list[int] = []
        for _ in range(12):
            lost = int(datapath.counters()["events_lost"])
            runs = 0
            while int(datapath.counters()["events_lost"]) < lost + 300:
                assert runs < 100_000
                for one in numbered(frames[runs % len(frames)], [runs]):
                    datapath.run(one)
                runs += 1
            some = datapath.drain().reports["sequence_number"].tolist()
            assert some == sorted(set(some)) and some[0] == 0
            assert len(some) == runs - 300
            numbers += some
    finally:
        os.sched_setaffinity(0, cpus)
    counters = datapath.counters()
    assert counters["events"] == len(numbers)
    assert counters["events_lost"] == 12 * 300


@needs_root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_events_of_several_cpus_come_up_by_their_time(datapaths: Datapaths, transport: Config) -> None:
    """One drain of what several CPUs told one after the other has them in the order in which they were told."""
    datapath = datapaths(transport)
    frames, hops = drops(transport, 200, 3)
    cpus = os.sched_getaffinity(0)
    try:
        for number, one in enumerate(frames):
            os.sched_setaffinity(0, {sorted(cpus)[number // 3 % 2]})
            datapath.run(one)
    finally:
        os.sched_setaffinity(0, cpus)
    batch = datapath.drain()
    assert batch.reports["sequence_number"].tolist() == list(range(200))
    assert batch.reports["hop_count"].tolist() == hops
    assert (np.diff(batch.reports["received_ns"].astype(np.int64)) > 0).all()


@needs_root
def test_what_waits_is_known_before_it_is_drained(datapaths: Datapaths, transport: Config) -> None:
    """waiting is the size of the events that came up, and nothing once they are drained."""
    datapath = datapaths(transport)
    frames, hops = drops(transport, 10, 2)
    assert datapath.waiting == 0
    for one in frames:
        datapath.run(one)
    assert datapath.waiting == sum((HEAD_CELLS + 1 + n) * CELL for n in hops)
    assert len(datapath.drain()) == 10 and datapath.waiting == 0


@needs_root
def test_what_was_drained_outlives_the_program() -> None:
    """Batches and cells are copies: closing gives all memory and descriptors back, whatever is still held."""
    for name in ("ring", "perf"):
        before = set(os.listdir("/proc/self/fd"))
        datapath = Datapath(dataclasses.replace(CONFIG, event_transport=name))
        datapath.run(frame(CONFIG, {"switch_id": 4}))
        batch, nothing = datapath.drain(), datapath.transport.drain()
        datapath.close()
        assert batch.hops["switch_id"].tolist() == [4] and len(nothing) == 0
        assert set(os.listdir("/proc/self/fd")) <= before


def is_there(identity: int) -> bool:
    """Does the kernel know a map of this id?"""
    try:
        os.close(kernel.bpf(MAP_GET_FD_BY_ID, struct.pack("=III", identity, 0, 0)))
    except FileNotFoundError:
        return False
    return True


@needs_root
@pytest.mark.parametrize("transport_name", ["ring", "perf"])
def test_no_map_outlives_the_program(transport_name: str) -> None:
    """Once it is closed, the kernel has none of its maps any more, also if points and statistics were read."""
    datapath = Datapath(dataclasses.replace(CONFIG, event_transport=transport_name))
    datapath.run(frame(CONFIG, {"switch_id": 4, "queue_id": 1, "hop_latency": 3}))
    state, batch = datapath.state(), datapath.drain()
    names = [*datapath._maps, "point_index", "source_index", "scratches"]
    maps = {name: struct.unpack_from("=I", kernel.info(map_fd(datapath, name), 80), 4)[0] for name in names}
    assert all(map(is_there, maps.values()))
    datapath.close()
    wait(lambda: not any(map(is_there, maps.values())), "the maps are gone", DEADLINE_S)  # after a grace period
    assert len(state.queues) == 2 and len(batch) == 1


@needs_root
def test_a_datapath_that_cannot_be_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last step fails, all descriptors are given back."""
    Datapath(CONFIG).close()
    before = set(os.listdir("/proc/self/fd"))

    def fails(*_: object) -> None:
        raise LoadError("no events")

    monkeypatch.setattr(under_test, "Ring", fails)
    with pytest.raises(LoadError, match="no events"):
        Datapath(dataclasses.replace(CONFIG, event_transport="ring"))
    assert set(os.listdir("/proc/self/fd")) == before


@needs_root
def test_what_it_took_to_load_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Whether it was compiled or kept is known; with keep off it is compiled whatever is kept."""
    monkeypatch.setenv("INTCOLLECTOR_CACHE", str(tmp_path / "kept"))
    for keep, kept in ((True, False), (True, True), (False, False)):
        datapath = Datapath(CONFIG, keep=keep)
        datapath.close()
        assert datapath.loaded.kept == kept
        assert datapath.loaded.compile_s > 0.001 < datapath.loaded.load_s  # no step was left out


@needs_root
def test_times_are_of_this_moment(datapaths: Datapaths, transport: Config) -> None:
    """received_ns and the batch's clock_ns give the wall clock's time of an event."""
    datapath = datapaths(transport)
    before = time.time_ns()
    datapath.run(frame(CONFIG))
    batch = datapath.drain()
    (received,) = batch.reports["received_ns"].astype(np.int64) + batch.clock_ns
    assert before - 10**7 <= received <= time.time_ns() + 10**7


@needs_root
def test_a_perf_buffer_that_cannot_be() -> None:
    """A CPU that is not there is an error that names it and says why, and those before it are given up."""
    with contextlib.closing(Datapath(dataclasses.replace(CONFIG, event_transport="perf"))) as datapath:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(LoadError, match=r"perf buffer on CPU 8000 \(.+\)"):
            PerfBuffer(map_fd(datapath, "events"), mmap.PAGESIZE, [0, 8000])
        assert os.listdir("/proc/self/fd") == before


# --- settings ---------------------------------------------------------------------------------------------------------

CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"keepalive_ns": 10**9, "event_mode": 0, "time_unit": 0, "time_multiplier": 1, "time_shift": 0,
          "occupancy_unit": 0, "utilization_unit": 0, "int_gre_protocol": 0, "by_source": 0,
          "postcard_window_ns": 10**6, "postcard_timeout": 5 * 10**9 >> 20,
          "tell_all": 0, "int_dscp_marked": 0, "wide_v1": 0x0200,
          "hop_latency_threshold": 50, "verdict_ok": kernel.XDP_DROP, "verdict_malformed": kernel.XDP_PASS,
          "accept_int_version_0": 1, "accept_report_length_1": 0, "int_udp_port": 33122,
          "ports": [socket.htons(54321)] * 16}),
    ({"port": (1, 513)}, {"ports": [socket.htons(1)] + [socket.htons(513)] + [socket.htons(1)] * 14}),
    ({"port": tuple(range(1, 17))}, {"ports": [socket.htons(p) for p in range(1, 17)]}),
    ({"int_dscp": (0x17, 0x3F)}, {"int_dscp_marked": 1, "int_dscp_value": 0x17, "int_dscp_mask": 0x3F}),
    ({"int_dscp": (0, 1)}, {"int_dscp_marked": 1, "int_dscp_value": 0, "int_dscp_mask": 1}),
    ({"profile": "l2port4"}, {"wide_v1": 0}),
    ({"profile": "geant"}, {"wide_v1": 0x0C00}),
    ({"profile": "onos"}, {"wide_v1": 0x0200, "hop_ml_is_bit_count": 1}),
    ({"profile": "intcollector"}, {"wide_v1": 0, "queue_word_16_16": 1, "accept_report_length_1": 1}),
    ({"tcp_int_position": "before-options"}, {"tcp_int_position": 1}),
    ({"tcp_int_position": "after-options"}, {"tcp_int_position": 2}),
    ({"int_udp_port": 5}, {"int_udp_port": 5}),
    ({"source_only_words": ((0x5453, 2), (65535, 255))},
     {"domains": [0x5453, 65535] + [0] * 6, "domain_words": [2, 255] + [0] * 6}),
    ({"accept_report_length_1": True}, {"accept_report_length_1": 1}),
    ({"reject_int_version_0": True}, {"accept_int_version_0": 0}),
    ({"event_mode": "interval"}, {"event_mode": 1, "steady": 0}),
    ({"hop_latency_threshold": 1, "flow_latency_threshold": 2, "queue_occupancy_threshold": 2**32 - 1,
      "tx_utilization_threshold": 0},
     {"hop_latency_threshold": 1, "flow_latency_threshold": 2, "queue_occupancy_threshold": 2**32 - 1,
      "tx_utilization_threshold": 0, "hop_latency_span": 2, "queue_occupancy_span": 2**33 - 2,
      "tx_utilization_span": 0, "steady": 0,
      "hop_latency_width": 1, "queue_occupancy_width": 2**32 - 1, "tx_utilization_width": 1}),
    ({"hop_latency_threshold": 2**31 - 1},
     {"hop_latency_threshold": 2**31 - 1, "hop_latency_span": 2**32 - 2, "hop_latency_width": 2**31 - 1}),
    ({"latency_unit": "us"}, {"time_unit": 1, "time_multiplier": 1000}),
    ({"latency_unit": "ms"}, {"time_unit": 2, "time_multiplier": 1_000_000}),
    ({"latency_unit": "2^-32s"}, {"time_unit": 3, "time_multiplier": 10**9, "time_shift": 32}),
    ({"queue_occupancy_bytes": 80, "tx_utilization_full": 10_000}, {"occupancy_unit": 80, "utilization_unit": 10_000}),
    ({"int_gre_protocol": 0x88B6}, {"int_gre_protocol": 0x88B6}),
    ({"postcard_window": 0.5, "postcard_timeout": 2.0},
     {"postcard_window_ns": 500_000_000, "postcard_timeout": 2 * 10**9 >> 20}),
    ({"postcard_timeout": 0.001}, {"postcard_timeout": 1}),
    ({"keepalive": 0.0}, {"keepalive_ns": 0}),
    ({"keepalive": 0.05}, {"keepalive_ns": 50_000_000}),
    ({"accepted_verdict": "pass", "malformed_verdict": "drop"},
     {"verdict_ok": kernel.XDP_PASS, "verdict_malformed": kernel.XDP_DROP}),
]  # fmt: skip


def what_the_program_reads(config: Config) -> dict[str, Any]:
    """All fields of both structs that a config is told in."""
    both = under_test.settings(config), under_test.profile(config)
    return {name: value[name].tolist() for value in both for name in value.dtype.names or () if name[:3] != "pad"}


@pytest.mark.parametrize(("options", "expected"), CHANGES)
def test_settings(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each option becomes the fields that the program reads, and no other field changes."""
    plain, value = what_the_program_reads(Config()), what_the_program_reads(Config(**options))
    assert len(value) == sum(len(struct.names or ()) for struct in (SETTINGS, PROFILE)) - 3  # pads
    assert value == {**plain, **expected}


@needs_root
def test_the_program_has_the_settings(datapaths: Datapaths) -> None:
    """apply() puts the settings into the program's map."""
    datapath = datapaths(CONFIG)
    config = dataclasses.replace(CONFIG, port=(9, 8), hop_latency_threshold=77)
    datapath.apply(config)
    held, expected = np.zeros((), SETTINGS), under_test.settings(config)
    kernel.map_lookup(map_fd(datapath, "settings"), bytes(4), held)
    expected["generation"] = held["generation"]  # of the sources' profiles: how often they were set
    assert held.tobytes() == expected.tobytes() and held["generation"] > 0


@needs_root
def test_the_program_has_the_profile(datapaths: Datapaths) -> None:
    """apply() puts what is said of all sources into the program's map of profiles, at place 0."""
    datapath = datapaths(CONFIG)
    config = dataclasses.replace(CONFIG, profile="geant", int_dscp=(1, 3), latency_unit="us")
    datapath.apply(config)
    held = np.zeros((), PROFILE)
    kernel.map_lookup(map_fd(datapath, "profiles"), bytes(4), held)
    assert held.tobytes() == under_test.profile(config).tobytes()


@needs_root
@pytest.mark.parametrize("ports", [(54321,), (9,), (1, 2, 3), tuple(range(100, 116))])
def test_ports(datapaths: Datapaths, ports: tuple[int, ...]) -> None:
    """Reports to any of the ports are taken, to others they pass."""
    config = dataclasses.replace(CONFIG, port=ports)
    datapath = datapaths(config)
    for port in (*ports, 116, 54322):
        one = wire.encode(wire.decode(frame(config), config)["reports"][0], config, destination_port=port)
        assert datapath.run(one)[0] == (kernel.XDP_DROP if port in ports else kernel.XDP_PASS)


@needs_root
@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_of_a_running_program(datapaths: Datapaths, profile: str) -> None:
    """Another profile is what the next packet is read by."""
    datapath = datapaths(CONFIG)
    config = dataclasses.replace(CONFIG, profile=profile)
    datapath.apply(config)
    hop = {"switch_id": 1, "queue_id": 7, "queue_occupancy": 900, "ingress_timestamp": 5, "l2_egress_port_id": 3}
    datapath.run(frame(config, hop))
    (told,) = datapath.drain().hops
    assert {name: told[name] for name in hop} == hop


# --- maps -------------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("chunk", [1, 7, 64, 8192])
def test_all_items_of_a_map(datapaths: Datapaths, chunk: int) -> None:
    """Reading in batches of any size, or one by one, gives every entry once."""
    datapath = datapaths(CONFIG)
    for number in range(1, 501):
        hop = {"switch_id": number, "hop_latency": number}
        datapath.run(frame(CONFIG, hop, switch_id=number, flow=f"10.0.0.1:{number}>10.0.0.2:1/17"))
    descriptor = map_fd(datapath, "flows")
    in_batches = kernel.map_items(descriptor, HASH, FLOW, CONFIG.max_flows, chunk=chunk)
    one_by_one = kernel._items_one_by_one(descriptor, HASH, FLOW, CONFIG.max_flows, False)
    for keys, flows in (in_batches, one_by_one):
        assert len(set(keys.tolist())) == 500
        ports = flows["key"]["source_port"].tolist()
        assert sorted(ports) == list(range(1, 501))
        assert ports == flows["latency"].tolist()
    state = datapath.state()
    sources = map_fd(datapath, "sources")
    index, source, used = np.dtype("<u4"), state.sources.dtype, len(state.sources) + 1
    in_batches = kernel.map_items(sources, index, source, used, chunk=chunk, array=True)
    one_by_one = kernel._items_one_by_one(sources, index, source, used, True)
    for keys, values in (in_batches, one_by_one):
        assert keys.tolist() == list(range(501))
        assert values["switch_id"].tolist() == [0, *state.sources["switch_id"]] == list(range(501))


@needs_root
def test_a_fresh_program_has_seen_nothing() -> None:
    """Without packets all counters are zero and all maps empty, but for what is nobody's."""
    datapath = Datapath(CONFIG)
    try:
        state = datapath.state()
        assert not any(len(x) for x in (state.flows, state.flow_keys, state.sources, state.drops, state.drop_keys))
        assert len(state.ports) == len(state.queues) == 1
        assert not any(state.counters.tobytes())
        assert len(datapath.drain()) == 0
        loaded = datapath.loaded
        assert 0 < loaded.instructions < loaded.verified_instructions < 1_000_000
    finally:
        datapath.close()


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A folder of C files to load from: text -> file name."""
    monkeypatch.setattr("intcollector.loader.bpf_folder", lambda: tmp_path)
    (tmp_path / "include").symlink_to(ROOT / "bpf" / "include")

    def write(text: str) -> str:
        (tmp_path / "some.c").write_text(text)
        return "some.c"

    return write


@needs_root
def test_a_program_that_does_not_compile(sources: Callable[[str], str]) -> None:
    """What the compiler says is in the error; a warning is an error."""
    with pytest.raises(LoadError, match=r"(?s)cannot compile some\.c.*nonsense"):
        Program(sources("int f(struct xdp_md *ctx) { return nonsense; }"))
    with pytest.raises(LoadError, match=r"(?s)cannot compile some\.c.*unused"):
        Program(sources("int f(struct xdp_md *ctx) { int unused; return 2; }"))


@needs_root
def test_a_program_that_does_not_verify(sources: Callable[[str], str]) -> None:
    """What the verifier says is in the error."""
    text = "int f(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }"
    program = Program(sources(text))
    with pytest.raises(LoadError, match=r"(?s)cannot load f:.*invalid access to packet"):
        program.load("f")
    program.close()


@needs_root
@pytest.mark.parametrize("transport_name", ["ring", "perf"])
def test_without_root_the_error_says_so(transport_name: str) -> None:
    """Who may not load programs is told to be root, before anything is compiled."""
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.errors import LoadError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    Datapath(Config(event_transport={transport_name!r}, ring_size=1))
except LoadError as error:
    print("bcc" in sys.modules, error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert said.stdout == f"False {loader.NOT_PERMITTED}\n"


def test_power_of_two_pages() -> None:
    """A perf buffer's share of the memory is the largest power of two that fits, for any number of CPUs."""
    for cpus in (1, 2, 3, 6, 12, 64, 100):
        size = under_test._power_of_two(2**20 // cpus)
        assert size & (size - 1) == 0 and size * cpus <= 2**20 < 2 * size * (cpus + 1) * 2


def test_cpus() -> None:
    """The CPUs that are online are among the possible ones, and this process runs on them."""
    online, possible = cpu_numbers("online"), cpu_numbers("possible")
    assert os.sched_getaffinity(0) <= set(online) <= set(possible)
    assert len(possible) == len(set(possible))


@needs_root
def test_the_verifier_has_room_to_spare(datapaths: Datapaths) -> None:
    """The kernel looks at a million instructions at most; others count otherwise, so some are left."""
    assert datapaths(Config()).loaded.verified_instructions < 850_000
