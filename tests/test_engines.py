"""The kernel program and the Python decoder, written apart, say the same of every packet."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
from typing import Any

import pytest

from intcollector import wire
from intcollector.config import Config
from intcollector.decoding import KernelDecoder
from intcollector.layout import OUTCOMES

from . import differ, strategies
from .frames import Decoders
from .needs import needs_root

pytestmark = needs_root

FOUND = json.loads((pathlib.Path(__file__).parent / "data" / "found.json").read_text())
"""Packets on which the engines once disagreed: the collector's options, the frame, and what it was about."""
GROUPS = differ.by_options(differ.VECTORS)
Group = tuple[list[dict], Config, KernelDecoder]
"""Vectors, how a collector is set for them, and a decoder that is set so."""


@pytest.fixture(params=list(GROUPS), ids=range(len(GROUPS)))
def group(request: pytest.FixtureRequest, decoders: Decoders) -> Group:
    """The vectors, by what a collector has to be set to."""
    config = Config.from_options(json.loads(request.param))
    return GROUPS[request.param], config, decoders(config)


def test_both_engines_give_every_vector_its_record(group: Group) -> None:
    """Each packet becomes exactly the record, or is refused for exactly the reason, that stands beside it; of a longer
    stack the first MAX_HOPS hops."""
    vectors, config, decoder = group
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors]
    expected = {
        v["name"]: {"outcome": v["outcome"], "reports": [strategies.kept(r) for r in v["reports"]]} for v in vectors
    }
    assert {v["name"]: wire.decode(f, config) for v, f in zip(vectors, frames, strict=True)} == expected
    assert {v["name"]: told for v, told in zip(vectors, decoder.decode(frames), strict=True)} == expected


def test_the_engines_agree_on_every_prefix(group: Group) -> None:
    """A packet cut anywhere, with its lengths as they were or made to fit, is the same to both."""
    vectors, config, decoder = group
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors]
    prefixes = [frame[:end] for frame in frames for end in range(len(frame))]
    fitting = [wire.fit_lengths(prefix) for prefix in prefixes if len(prefix) > 42]
    assert list(differ.disagreements(decoder, config, prefixes + fitting)) == []


FIRST_HOP_ENDS_AT = {"v20_report_length_ff": 130}
"""Of the largest packet no byte behind its first hop is changed: the nineteen hops there are read as that one is."""


EVERY = int(os.environ.get("EVERY", "4"))
"""Of the values a byte can have, each so many'th: all take two minutes of two CPUs."""


def changes(frame: bytes, at: int, config: Config) -> list[bytes]:
    """The frame with each bit of a byte turned; and if any of them means something, with the byte made other values:
    each EVERY'th, and others at the next byte."""

    def with_value(value: int) -> bytes:
        return frame[:at] + bytes([value]) + frame[at + 1 :]

    turned = [with_value(frame[at] ^ 1 << bit) for bit in range(8)]
    answer = wire.decode(frame, config)
    if all(wire.decode(one, config) == answer for one in turned):
        return turned
    return turned + [
        with_value(value) for value in range(at % EVERY, 256, EVERY) if (value ^ frame[at]).bit_count() > 1
    ]


def every_byte(options: str, part: int, parts: int) -> tuple[int, list[differ.Disagreement]]:
    """Every change of one byte of the valid vectors with these options: how many packets, and which the engines see
    differently. In a process of its own."""
    config = Config.from_options(json.loads(options))
    decoder = differ.decoder_for(config)
    valid = [v for v in GROUPS[options] if v["outcome"] == "ok"]
    count, found = 0, []
    for vector in valid[part::parts]:
        frame = bytes.fromhex(vector["packet"])
        for at in range(FIRST_HOP_ENDS_AT.get(vector["name"], len(frame))):
            changed = changes(frame, at, config)
            count += len(changed)
            found += list(differ.disagreements(decoder, config, changed))
    return count, found


def test_the_engines_agree_on_changes_of_every_byte() -> None:
    """Every byte of every valid packet, with each bit turned and made many other values (all of them, if EVERY=1 stands
    in the environment), is the same to both engines."""
    context = multiprocessing.get_context("spawn")
    parts = 2
    with concurrent.futures.ProcessPoolExecutor(parts, context, differ.load) as pool:
        jobs = [pool.submit(every_byte, options, part, parts) for options in GROUPS for part in range(parts)]
        results = [job.result() for job in jobs]
    assert [found for _, found in results if found] == []
    assert sum(count for count, _ in results) > 1_700_000 / EVERY


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
def test_the_engines_agree_on_mutations(group: Group, marked: bool) -> None:
    """Packets with bytes changed, cut, inserted or removed are the same to both engines, with a mark and without."""
    vectors, config, decoder = group
    if not marked:
        config = dataclasses.replace(config, int_dscp=None)
        decoder.apply(config)
    assert list(differ.disagreements(decoder, config, differ.mutated(vectors, 150 * len(vectors), seed=20))) == []


@pytest.mark.parametrize("one", FOUND, ids=lambda one: one["what"])
def test_the_engines_agree_on_what_was_found(one: dict[str, Any], decoders: Decoders) -> None:
    """A packet on which they once disagreed is the same to both, and a report."""
    options: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in one["options"].items()}
    config = Config(**options)
    frame = bytes.fromhex(one["packet"])
    assert list(decoders(config).decode([frame])) == [wire.decode(frame, config)]
    assert wire.decode(frame, config)["outcome"] == "ok"


def test_the_engines_agree_on_structured_packets() -> None:
    """Vectors mutated, and packets of all kinds made by their structure and mutated, are the same to both engines."""
    total = differ.Result()
    for result in differ.run(60_000, seed=4, processes=2):
        total.add(result)
    assert total.found == []
    assert total.packets > 50_000
    never = {"undecoded"}  # Python's decoder knows no such outcome
    assert {name for name in OUTCOMES if not total.outcomes[name]} == never
