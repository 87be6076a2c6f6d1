"""The two engines side by side: mutates packets and compares what they say.

    .venv/bin/python -m tests.differ --packets 1000000 [--seed N]

runs as long as it takes, needs root, and prints every packet the engines disagree on, as hex.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from intcollector import wire
from intcollector.config import Config
from intcollector.decoding import KernelDecoder

VECTORS: list[dict[str, Any]] = json.loads((pathlib.Path(__file__).parent / "data" / "vectors.json").read_text())
"""shared test vectors; tests/data/README.md."""

Disagreement = tuple[bytes, dict[str, Any], dict[str, Any]]


def options_of(vector: dict[str, Any]) -> str:
    """Vectors with the same of these can share a decoder."""
    return json.dumps(vector["options"], sort_keys=True)


def by_options(vectors: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Vectors by what a collector has to be set to."""
    found: dict[str, list[dict[str, Any]]] = {}
    for vector in vectors:
        found.setdefault(options_of(vector), []).append(vector)
    return found


def disagreements(decoder: KernelDecoder, config: Config, packets: Iterable[bytes]) -> Iterator[Disagreement]:
    """Packets on which kernel and Python say different things, with what they say."""
    frames = list(packets)
    for frame, told in zip(frames, decoder.decode(frames), strict=True):
        expected = wire.decode(frame, config)
        if told != expected:
            yield frame, told, expected


def mutated(vectors: list[dict[str, Any]], count: int, seed: int) -> Iterator[bytes]:
    """count packets, each a vector's with something changed."""
    chance = random.Random(seed)
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors]
    together = 50
    for _ in range(-(-count // together)):
        frame = chance.choice(frames)
        yield from wire.mutations(frame, together, chance.getrandbits(63))


def settings(options: str) -> list[Config]:
    """As the vectors say, and with each option turned that changes what a packet is."""
    config = Config.from_options(json.loads(options))
    unmarked = Config.from_options(json.loads(options) | {"int_dscp": None})
    return [config, unmarked]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare the kernel program and the Python decoder on mutated packets."
    )
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    done = found = 0
    groups = by_options(VECTORS)
    total = len(VECTORS) * 2
    for options, vectors in groups.items():
        for config in settings(options):
            decoder = KernelDecoder(config)
            try:
                left = arguments.packets * len(vectors) // total
                source = mutated(vectors, left, arguments.seed)
                while some := [packet for packet, _ in zip(source, range(5000), strict=False)]:
                    for frame, told, expected in disagreements(decoder, config, some):
                        found += 1
                        print(json.dumps({"options": options, "int_dscp": config.int_dscp, "packet": frame.hex(),
                                          "kernel": told, "python": expected}))  # fmt: skip
                    done += len(some)
            finally:
                decoder.close()
    seconds = time.perf_counter() - begin
    print(f"{done} packets, {found} disagreements, {seconds:.0f} s, {done / seconds:.0f} packets/s", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
