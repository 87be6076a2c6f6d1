"""The kernel program and the Python decoder, written apart, say the same of every packet."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from collections.abc import Iterator

import pytest

from intcollector import wire
from intcollector.config import Config
from intcollector.decoding import KernelDecoder

from . import differ
from .needs import needs_root

pytestmark = needs_root

GROUPS = differ.by_options(differ.VECTORS)
SPOKEN = ("1.0",)
"""Versions of Telemetry Report that are read."""


def report_version(vector: dict) -> str:
    """By the vector's report, or by its name where it has none."""
    if vector["reports"]:
        return vector["reports"][0]["version"]
    return {"v05": "0.5", "v20": "2.0"}.get(vector["name"][:3], "1.0")


@pytest.fixture(scope="module", params=list(GROUPS), ids=range(len(GROUPS)))
def group(request: pytest.FixtureRequest) -> Iterator[tuple[list[dict], Config, KernelDecoder]]:
    config = Config.from_options(json.loads(request.param))
    decoder = KernelDecoder(config)
    yield GROUPS[request.param], config, decoder
    decoder.close()


def test_both_engines_give_every_vector_its_record(group: tuple[list[dict], Config, KernelDecoder]) -> None:
    """Each packet becomes exactly the record, or is refused for exactly the reason, that stands beside it."""
    vectors, config, decoder = group
    vectors = [vector for vector in vectors if report_version(vector) in SPOKEN]
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors]
    expected = {v["name"]: {"outcome": v["outcome"], "reports": v["reports"]} for v in vectors}
    assert {v["name"]: wire.decode(f, config) for v, f in zip(vectors, frames, strict=True)} == expected
    assert {v["name"]: told for v, told in zip(vectors, decoder.decode(frames), strict=True)} == expected


def test_the_engines_agree_on_every_prefix(group: tuple[list[dict], Config, KernelDecoder]) -> None:
    """A packet cut anywhere, with its lengths as they were or made to fit, is the same to both."""
    vectors, config, decoder = group
    frames = [bytes.fromhex(vector["packet"]) for vector in vectors]
    prefixes = [frame[:end] for frame in frames for end in range(len(frame))]
    fitting = [wire.fit_lengths(prefix) for prefix in prefixes if len(prefix) > 42]
    assert list(differ.disagreements(decoder, config, prefixes + fitting)) == []


def every_byte(options: str, part: int, parts: int) -> tuple[int, list[differ.Disagreement]]:
    """Every change of one byte of the valid vectors with these options: how many packets, and which the engines see
    differently. In a process of its own."""
    config = Config.from_options(json.loads(options))
    decoder = KernelDecoder(config)
    valid = [v for v in GROUPS[options] if v["outcome"] == "ok" and report_version(v) in SPOKEN]
    count, found = 0, []
    try:
        for vector in valid[part::parts]:
            frame = bytes.fromhex(vector["packet"])
            for at in range(len(frame)):
                changed = [frame[:at] + bytes([value]) + frame[at + 1 :] for value in range(256) if value != frame[at]]
                count += len(changed)
                found += list(differ.disagreements(decoder, config, changed))
    finally:
        decoder.close()
    return count, found


def test_the_engines_agree_on_every_change_of_one_byte() -> None:
    """Every byte of every valid packet, made every other value, is the same to both engines."""
    context = multiprocessing.get_context("spawn")
    parts = 2
    with concurrent.futures.ProcessPoolExecutor(parts, context) as pool:
        jobs = [pool.submit(every_byte, options, part, parts) for options in GROUPS for part in range(parts)]
        results = [job.result() for job in jobs]
    assert [found for _, found in results if found] == []
    assert sum(count for count, _ in results) > 1_500_000


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
def test_the_engines_agree_on_mutations(group: tuple[list[dict], Config, KernelDecoder], marked: bool) -> None:
    """Packets with bytes changed, cut, inserted or removed are the same to both engines, with a mark and without."""
    vectors, config, decoder = group
    if not marked:
        config = Config.from_options(json.loads(differ.options_of(vectors[0])) | {"int_dscp": None})
        decoder = KernelDecoder(config)
    try:
        assert list(differ.disagreements(decoder, config, differ.mutated(vectors, 150 * len(vectors), seed=20))) == []
    finally:
        if not marked:
            decoder.close()
