"""The two engines side by side: makes packets that are right, nearly right and damaged, and compares what they say.

    .venv/bin/python -m tests.differ --packets 10000000 [--seed N] [--processes P]

needs root. Half of the packets are mutations of every vector, the other half is generated (strategies.py), and mutated
too. Every packet the engines disagree on is printed as a line of JSON, with how the collector was set. The last line
has how many packets there were, and how many of each outcome. The same seed makes the same packets, whatever the number
of processes. Exit code 1: there was a disagreement.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib
import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st

from intcollector import wire
from intcollector.config import PROFILES, Config
from intcollector.decoding import KernelDecoder
from intcollector.layout import OUTCOMES

from . import strategies

VECTORS: list[dict[str, Any]] = json.loads((pathlib.Path(__file__).parent / "data" / "vectors.json").read_text())
"""shared test vectors; tests/data/README.md."""

Disagreement = tuple[bytes, dict[str, Any], dict[str, Any]]
"""A packet, what the kernel says, what Python says."""

JOB = 20_000
"""Packets that one process makes and compares in one go."""
MUTATIONS = 200
"""Packets made of one that was generated, itself among them: generating takes a hundred times as long as comparing."""


def options_of(vector: dict[str, Any]) -> str:
    """Vectors with the same of these can share a decoder."""
    return json.dumps(vector["options"], sort_keys=True)


def by_options(vectors: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Vectors by what a collector has to be set to."""
    found: dict[str, list[dict[str, Any]]] = {}
    for vector in vectors:
        found.setdefault(options_of(vector), []).append(vector)
    return found


def compare(decoder: KernelDecoder, config: Config, packets: Iterable[bytes]) -> Iterator[Disagreement]:
    """Each packet, what the kernel says and what Python says. decoder: set to config."""
    frames = list(packets)
    for frame, told in zip(frames, decoder.decode(frames), strict=True):
        yield frame, told, wire.decode(frame, config)


def disagreements(decoder: KernelDecoder, config: Config, packets: Iterable[bytes]) -> Iterator[Disagreement]:
    """Packets on which kernel and Python say different things, with what they say."""
    return (each for each in compare(decoder, config, packets) if each[1] != each[2])


def mutated(vectors: list[dict[str, Any]], count: int, seed: int) -> Iterator[bytes]:
    """count packets, each a vector's with something changed."""
    chance = random.Random(seed)
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors]
    together = 50
    for _ in range(-(-count // together)):
        frame = chance.choice(frames)
        yield from wire.mutations(frame, together, chance.getrandbits(63))


# --- Packets ----------------------------------------------------------------------------------------------------------

Work = Iterator[tuple[Config, list[bytes]]]
"""Packets, and how a collector is set for them."""


def turned(config: Config, chance: random.Random) -> Config:
    """A config with one option changed that decides what a packet is."""
    changes: list[dict[str, Any]] = [
        {"int_dscp": chance.choice([None, (0, 0), (1, 1)])},
        {"profile": chance.choice(PROFILES)},
        {"tcp_int_position": chance.choice(["auto", "before-options", "after-options"])},
        {"int_udp_port": chance.choice([5001, *strategies.TUNNEL_PORTS])},
        {"accept_report_length_1": True},
        {"reject_int_version_0": not config.reject_int_version_0},
        {"source_only_words": ((strategies.DOMAIN, 1),)},
    ]
    return dataclasses.replace(config, **chance.choice(changes))


def from_vectors(count: int, chance: random.Random) -> Work:
    """Mutations of every vector, with its options and with one of them turned."""
    each = max(1, count // len(VECTORS))
    for vector in VECTORS:
        config = Config.from_options(vector["options"])
        if chance.random() < 0.5:
            config = turned(config, chance)
        yield config, list(wire.mutations(bytes.fromhex(vector["packet"]), each, chance.getrandbits(63)))


T = TypeVar("T")


def examples(strategy: st.SearchStrategy[T], count: int, seed: int) -> list[T]:
    """count different values of a strategy, the same ones for the same seed."""
    found: dict[T, None] = {}

    def keep(value: T) -> None:
        found[value] = None

    while len(found) < count:  # some come twice, and the first is always the simplest one
        options = hypothesis.settings(
            max_examples=count - len(found) + 5,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.seed(seed)(options(hypothesis.given(strategy)(keep)))()
        seed += 1
    return list(found)[:count]


@st.composite
def settings_and_frames(draw: st.DrawFn) -> tuple[Config, bytes]:
    """Reports that are right, and others that are nearly."""
    if draw(st.integers(0, 3)) == 3:
        case = draw(strategies.cases())
        return case.config, case.frame
    config = draw(strategies.configs())
    return config, draw(strategies.nearly(config))


def inside(frame: bytes, config: Config, count: int, seed: int) -> Iterator[bytes]:
    """count copies of a report's frame with something changed behind the outer headers, whose lengths agree."""
    payload, _ = wire.read_outer(frame, config)
    head = frame[: len(frame) - len(payload)]
    for damaged in wire.mutations(payload, count, seed):
        yield head + damaged if len(damaged) == len(payload) else wire.fit_lengths(head + damaged)


def generated(count: int, chance: random.Random) -> Work:
    """Packets by their structure, each as it is and with something changed: anywhere, and inside."""
    for config, frame in examples(settings_and_frames(), -(-count // MUTATIONS), chance.getrandbits(63)):
        anywhere = wire.mutations(frame, MUTATIONS // 4, chance.getrandbits(63))
        most = inside(frame, config, MUTATIONS - MUTATIONS // 4 - 1, chance.getrandbits(63))
        yield config, [frame, *anywhere, *most]


# --- The run ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Result:
    """What came of packets. found: disagreements, as they are printed."""

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    found: list[str] = dataclasses.field(default_factory=list)

    @property
    def packets(self) -> int:
        return self.outcomes.total()

    def add(self, other: Result) -> None:
        self.outcomes += other.outcomes
        self.found += other.found


def in_words(config: Config) -> dict[str, Any]:
    """What of a config is not as it is by default."""
    default = Config()
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    words = {name: value for name, value in fields.items() if value != getattr(default, name)}
    if config.sources:
        words["sources"] = {str(source.network): dict(source.changes) for source in config.sources}
    return words


_decoders: list[KernelDecoder] = []
"""The one of this process: loading a program takes longer than setting it anew."""


def load() -> None:
    """Begin a process. What Hypothesis makes depends on the modules that are there: they all are from now on."""
    _decoders.append(KernelDecoder(Config()))
    remember()


def remember() -> None:
    """From now on the oracle reads each hop's bytes once, and measures each bitmap once: most changes of a packet leave
    most of its hops as they were, and reading them is the greater part of its work."""
    known: dict[tuple[bytes, int, int], wire.Report] = {}
    sizes: dict[tuple[int, int], int] = {}
    read, measure = wire.read_record, wire.words

    def read_once(record: bytes, bitmap: int, items: wire.Items) -> wire.Report:
        key = record, bitmap, id(items)  # which are wire.py's own
        if key not in known:
            if len(known) == 100_000:
                known.clear()
            known[key] = read(record, bitmap, items)
        return known[key].copy()

    def measure_once(bitmap: int, items: wire.Items) -> int:
        key = bitmap, id(items)
        if key not in sizes:
            sizes[key] = measure(bitmap, items)
        return sizes[key]

    wire.read_record, wire.words = read_once, measure_once


def decoder_for(config: Config) -> KernelDecoder:
    """This process's decoder, set to config."""
    (decoder,) = _decoders
    decoder.apply(config)
    return decoder


def job(seed: int, number: int, count: int) -> Result:
    """The number-th part of a run, of about count packets."""
    chance = random.Random(f"{seed} {number}")
    work = from_vectors(count, chance) if number % 2 == 0 else generated(count, chance)
    result = Result()
    for config, frames in work:
        for frame, told, expected in compare(decoder_for(config), config, frames):
            result.outcomes[expected["outcome"]] += 1
            if told != expected:
                said = {"job": number, "packet": frame.hex(), "options": in_words(config)}
                result.found.append(json.dumps({**said, "kernel": told, "python": expected}))
    return result


def run(packets: int, seed: int, processes: int) -> Iterator[Result]:
    """About so many packets, part by part, in processes of their own. Needs root."""
    context = multiprocessing.get_context("spawn")
    jobs = -(-packets // JOB)
    jobs += jobs % 2  # as many of one kind as of the other
    with concurrent.futures.ProcessPoolExecutor(processes, context, load) as pool:
        futures = [pool.submit(job, seed, number, -(-packets // jobs)) for number in range(jobs)]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the kernel program and the Python decoder on many packets.")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    begin = said = time.perf_counter()
    total = Result()
    for result in run(arguments.packets, arguments.seed, arguments.processes):
        total.add(result)
        for line in result.found:
            print(line, flush=True)
        if time.perf_counter() - said > 60:
            said = time.perf_counter()
            print(f"{total.packets} packets, {len(total.found)} disagreements", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - begin
    seen = ", ".join(f"{name} {total.outcomes[name]}" for name in OUTCOMES)
    print(
        f"{total.packets} packets, {len(total.found)} disagreements, {seconds:.0f} s, "
        f"{total.packets / seconds:.0f} packets/s; {seen}",
        file=sys.stderr,
    )
    return 1 if total.found else 0


if __name__ == "__main__":
    sys.exit(main())
