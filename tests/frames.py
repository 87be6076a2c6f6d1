"""Frames for the kernel program, from few words, and what it said of them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from intcollector import kernel, wire
from intcollector.batch import FLOW, Batch
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.decoding import KernelDecoder
from intcollector.layout import LAYOUT, Change

from . import batches

NONE32 = 2**32 - 1
SEQUENCE_AT = 14 + 20 + 8 + 8
"""Where a frame with an untagged IPv4 header without options has its report's sequence number."""

Datapaths = Callable[[Config], Datapath]
"""A loaded program for a config, as if it had seen nothing; see conftest.py."""
Decoders = Callable[[Config], KernelDecoder]
"""The same as a decoder, which is told of every packet."""

Hop = Mapping[str, int | None]


def frame(config: Config, *hops: Hop, local: Hop | None = None, **more: Any) -> bytes:
    """A report's frame. hops: nearest the sink first; a hop that lacks what another has does not know it. flow: as
    batches.report writes it; vlan_ids and dscp may stand beside. more: other keys of a report."""
    in_flow = {name: more.pop(name) for name in ("vlan_ids", "dscp") if name in more}
    report = batches.report(flow=more.pop("flow", "10.0.0.1:5000>10.0.0.2:5000/17"), **more)
    report["flow"] |= in_flow
    names = {name for hop in hops for name in hop}
    items = wire.ITEMS_1_0_BY_PROFILE[config.profile]
    bitmap = sum(0x8000 >> bit for bit, item in items.items() if names & {name for name, _ in item.fields})
    every: dict[str, int | None] = {name: None for item in items.values() for name, _ in item.fields}
    if hops:
        report["int"] = {
            "version": "1.0",
            "mode": "MD",
            "instruction_bitmap": f"{bitmap:#06x}",
            "hop_ml": wire.hop_ml_1_0(bitmap, config.profile),
            "remaining_hop_count": 8,
            "hop_count": len(hops),
            "hops": [{**every, **hop} for hop in hops],
        }
    if local is not None:
        report["local_hop"] = _whole_words(local)
    return wire.encode(report, config)


def _whole_words(local: Hop) -> dict[str, int | None]:
    """What a local hop does not say of a word that it sends is 0."""
    said = dict(local)
    for item in wire.REPORT_METADATA_1_0.values():
        names = [name for name, _ in item.fields if name]
        if said.keys() & set(names):
            for name in names:
                said.setdefault(name, 0)
    return said


def numbered(one: bytes, numbers: Iterable[int]) -> list[bytes]:
    """Copies of a frame with these sequence numbers."""
    return [one[:SEQUENCE_AT] + struct.pack("!I", n % 2**32) + one[SEQUENCE_AT + 4 :] for n in numbers]


def news(batch: Batch) -> list[set[str]]:
    """Why each event was told: names of layout.Change in lower case, and of a hop `hop_latency 0`, ..."""
    whats = ("hop_latency", "queue_occupancy", "tx_utilization")
    return [
        {change.name.lower() for change in Change if report["changes"] & change}
        | {f"{what} {i}" for what in whats for i in range(16) if report[f"{what}_changes"] >> i & 1}
        for report in batch.reports
    ]


def told(datapath: Datapath, *frames: bytes) -> list[set[str] | None]:
    """Run frames one by one: each one's news, or None where it was not told."""
    out: list[set[str] | None] = []
    for one in frames:
        datapath.run(one)
        events = news(datapath.drain())
        assert len(events) <= 1
        out.append(events[0] if events else None)
    return out


FAR = 2**31 - 1
"""A threshold that only what differs by half the range passes: the largest with which the short way is taken."""


def quiet(config: Config, **more: Any) -> Config:
    """The config with thresholds that next to nothing passes, and no keepalive, but for what more says."""
    thresholds = ("hop_latency", "flow_latency", "queue_occupancy", "tx_utilization")
    return dataclasses.replace(config, **({f"{t}_threshold": FAR for t in thresholds} | {"keepalive": 0.0} | more))


# --- CPUs -------------------------------------------------------------------------------------------------------------

two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


@contextlib.contextmanager
def on_one_cpu() -> Iterator[None]:
    """This thread stays on one CPU, as the traffic of one queue does."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def on_all_cpus(work: Callable[[int], object]) -> int:
    """Do work(n) in a thread on each CPU, begun together. Gives how many there were."""
    cpus = sorted(os.sched_getaffinity(0))
    barrier = threading.Barrier(len(cpus))

    def pinned(number: int) -> None:
        os.sched_setaffinity(0, {cpus[number]})  # of this thread only
        barrier.wait(60)
        work(number)

    with concurrent.futures.ThreadPoolExecutor(len(cpus)) as threads:
        for _ in threads.map(pinned, range(len(cpus))):
            pass
    return len(cpus)


# --- a program for many tests -----------------------------------------------------------------------------------------

HASHES = {
    "drops": "drop_key", "refusals": "refusal_key", "point_index": "point_key",
    "source_index": "source_key",
}  # fmt: skip
ARRAYS = {
    "points": "points", "statistics": "statistics", "sources": "source", "allocators": "allocator",
    "counters": "counters",
}  # fmt: skip
PER_CPU = ("counters",)
MAP_DELETE_ELEM = 3
HASH = np.dtype("<u8")
"""The key of flows: bpf/remember.h, flow_hash()."""


def map_fd(datapath: Datapath, name: str) -> int:
    """The descriptor of any map, also of those that are the program's own."""
    return datapath._program.map_fd(name)


def forget(datapath: Datapath) -> None:
    """As if the program had seen nothing: events drained, maps as when it was loaded."""
    while len(datapath.drain()) or datapath.has_more:
        pass
    datapath._of_whole[:] = 0
    datapath._refused_whole = datapath._refused_whole[:0]
    *_, sources = datapath._allocated()
    cpus = len(datapath._cpus)
    used = {"statistics": datapath._cpus[-1] + 1, "sources": sources, "counters": 2}
    for name, struct_name in ARRAYS.items():
        zeros = bytes(LAYOUT.dtypes[struct_name].itemsize * (cpus if name in PER_CPU else 1))
        for index in range(used.get(name, 1)):
            kernel.map_update(map_fd(datapath, name), struct.pack("=I", index), zeros)
    for name, dtype in {"flows": HASH, **{name: LAYOUT.dtypes[of] for name, of in HASHES.items()}}.items():
        # struct bpf_map_info: type, id, key_size, value_size, max_entries
        *_, size, entries = struct.unpack_from("=5I", kernel.info(map_fd(datapath, name), 80))
        keys, _ = kernel.map_items(map_fd(datapath, name), dtype, np.dtype((np.void, size)), entries)
        for one in keys:
            held = np.array(one)
            kernel.bpf(MAP_DELETE_ELEM, struct.pack("=IIQQQ", map_fd(datapath, name), 0, kernel.address_of(held), 0, 0))


def set_flow(datapath: Datapath, key: np.ndarray, flow: np.ndarray) -> None:
    """Write the entry that a flow has (FLOW_KEY (), FLOW ())."""
    hashes, flows = kernel.map_items(map_fd(datapath, "flows"), HASH, FLOW, datapath._config.max_flows)
    (place,) = np.flatnonzero([one["key"].tobytes() == key.tobytes() for one in flows])
    kernel.map_update(map_fd(datapath, "flows"), hashes[place].tobytes(), flow.tobytes())
