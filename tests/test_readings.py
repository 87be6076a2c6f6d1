"""Reports of every layout, read as if they had another one: which options are suggested."""

from __future__ import annotations

import dataclasses
import random

import pytest

from intcollector import readings, traffic, wire
from intcollector.config import PROFILES, Config
from intcollector.layout import LAYOUT
from intcollector.readings import How, Specimen, Verdict, judge, options_text
from tests import exporters_like
from tests.exporters_like import TCP, TIMESTAMPS_AND_NOPS, FabricTna, Flow, Geant, Hop, NoviFlow, Onos

SPECIMEN = LAYOUT.defines["SPECIMEN"]


def specimen(frame: bytes) -> Specimen:
    """As the kernel program keeps it."""
    return Specimen(frame[:SPECIMEN], len(frame))


def generated(profile: str, bitmap: int, hops: int) -> bytes:
    """A report of a layout."""
    made = traffic.Traffic(packets=1, flows=1, hops=hops, instructions=bitmap, profile=profile, event_rate=0)
    return next(traffic.frames(made))


def suggested(frame: bytes, **options: object) -> str:
    """What is suggested to a collector with these options; a bar between two that are as good."""
    config = Config(**{"int_dscp": (23, 63), "port": (wire.UDP.read(frame, 34, "")["destination_port"],), **options})  # type: ignore[arg-type]
    verdict = judge([(specimen(frame), 1)], How.of(config, ""))
    text = " | ".join(options_text(dict(changes)) for changes in verdict.changes)
    return f"{text} (cut)" if verdict.cut else text


@pytest.mark.parametrize("mark", [None, (23, 63)])
@pytest.mark.parametrize("hops", [1, 3, 8, 9, 14])
def test_all_instructions(hops: int, mark: tuple[int, int] | None) -> None:
    """A report with all eight instructions is recognised as what it is, whatever it was taken for."""
    for sent in PROFILES:
        frame = generated(sent, 0xFF00, hops)
        for taken_for in PROFILES:
            said = suggested(frame, profile=taken_for, int_dscp=mark)
            assert said == ("" if sent == taken_for else f"--profile {sent}"), (sent, taken_for)


BITMAPS = (0x8000, 0x9000, 0xA000, 0xCC00, 0xE800, 0xF000, 0xFC00, 0xFE00)


@pytest.mark.parametrize("bitmap", BITMAPS, ids=hex)
def test_other_instructions(bitmap: int) -> None:
    """What is suggested reads a report as what it is; nothing is suggested where it was read so already."""
    for sent in PROFILES:
        for hops in (1, 4):
            frame = generated(sent, bitmap, hops)
            truth = wire.decode(frame, Config(profile=sent))
            for taken_for in PROFILES:
                how = How.of(Config(profile=taken_for), "")
                now = readings.read(specimen(frame), how)
                verdict = judge([(specimen(frame), 1)], how)
                if now == truth:
                    assert verdict == Verdict(), (sent, taken_for, hops)
                elif not now["reports"] or not now["reports"][0]["int"]:
                    (changes,) = verdict.changes
                    right = dataclasses.replace(how, **dict(changes))
                    assert wire.decode(frame, right) == truth, (sent, taken_for, hops, changes)


def test_two_that_fit() -> None:
    """Where a report means as much in two ways, both are named: three hops of four words are four hops of three."""
    assert suggested(generated("onos", 0x9200, 3)) == "--profile l2port4 | --profile onos"


FLOW = Flow("10.0.0.1", "10.0.0.2", 1000, 2000)
TCP_FLOW = dataclasses.replace(FLOW, protocol=TCP, options=TIMESTAMPS_AND_NOPS)
HOPS = [
    Hop(11, 500, 10**9, (1, 2), (0, 7)),
    Hop(12, 700, 10**9 + 5000, (3, 4), (1, 9)),
    Hop(13, 900, 10**9 + 9000, (5, 6), (2, 40)),
]
ADDRESS = "192.0.2.1"


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        (Onos(ADDRESS, 13).report(FLOW, HOPS), {}, "--profile onos"),
        (Onos(ADDRESS, 13).report(FLOW, HOPS), {"profile": "geant"}, "--profile onos"),
        (Onos(ADDRESS, 13).report(FLOW, HOPS), {"profile": "onos"}, ""),
        (Onos(ADDRESS, 13).report(FLOW, HOPS), {"profile": "onos", "reject_int_version_0": True},
         "(not --reject-int-version-0)"),
        (Onos(ADDRESS, 13).report(TCP_FLOW, HOPS), {}, "--profile onos (cut)"),
        (Onos(ADDRESS, 13).report(TCP_FLOW, HOPS), {"int_dscp": None}, "--profile onos (cut)"),
        (Geant(ADDRESS, 13).report(FLOW, HOPS), {"int_dscp": (32, 63)}, "--profile geant"),
        (Geant(ADDRESS, 13).report(FLOW, HOPS), {}, "--int-dscp off --profile geant"),
        (Geant(ADDRESS, 13).report(TCP_FLOW, HOPS, 0xFF00), {"int_dscp": None}, "--profile geant"),
        (Geant(ADDRESS, 13, tofino=True).report(TCP_FLOW, HOPS), {"profile": "onos", "int_dscp": None},
         "--profile geant"),
        (NoviFlow(ADDRESS, 13).report(TCP_FLOW, HOPS), {}, ""),
        (NoviFlow(ADDRESS, 13).report(TCP_FLOW, HOPS), {"tcp_int_position": "after-options"},
         "--tcp-int-position auto"),
        (NoviFlow(ADDRESS, 13).report(TCP_FLOW, HOPS, mark=None), {}, "--int-dscp off"),
        (exporters_like.p4_int_md_1_0(ADDRESS, FLOW, HOPS), {"profile": "intcollector"}, "--profile spec"),
        (FabricTna(ADDRESS, 13).flow(FLOW, 10**9, 500), {}, ""),
        (exporters_like.p4_int_2(ADDRESS, FLOW, 1), {}, ""),
        (exporters_like.p4_int_2(ADDRESS, FLOW, 2), {}, ""),
        (exporters_like.cablelabs(ADDRESS, FLOW), {}, ""),
        (exporters_like.host_int(ADDRESS, FLOW), {}, ""),
    ],
)  # fmt: skip
def test_exporters(frame: bytes, options: dict[str, object], said: str) -> None:
    """What exporters in the field send is recognised where some option reads it, and nothing else is suggested."""
    assert suggested(frame, **options) == said


def test_generators() -> None:
    """Reports of Length 1 are INTCollector's, or GEANT's generator's, which has queue ids of 8 bits."""
    frame = generated("intcollector", 0xFF00, 3)
    assert suggested(frame) == "--profile intcollector"
    geant = bytearray(generated("l2port4", 0xFF00, 3))
    assert geant[42] == 0x14  # version 1, Length 4
    geant[42] = 0x11
    assert suggested(bytes(geant)) == "--accept-report-length-1 --profile l2port4"
    without_queue = bytearray(generated("l2port4", 0xEF00, 3))
    without_queue[42] = 0x11  # then there is no difference
    assert suggested(bytes(without_queue)) == "--profile intcollector"


def test_several_specimens() -> None:
    """What reads most of an exporter's packets is suggested, though it does not read all of them."""
    whole, short = Onos(ADDRESS, 13).report(FLOW, HOPS), exporters_like.host_int(ADDRESS, FLOW)
    how = How.of(Config(int_dscp=(23, 63)), ADDRESS)
    verdict = judge([(specimen(whole), 90), (specimen(short), 10)], how)
    assert verdict == Verdict(((("profile", "onos"),),), 90)


def test_cut_specimens() -> None:
    """Of a report that is longer than what is kept of it, what is there is enough to tell."""
    frame = generated("onos", 0xFF00, 16)
    assert len(frame) > SPECIMEN
    assert suggested(frame) == "--profile onos"
    answer = readings.read(specimen(frame), How.of(Config(profile="onos"), ""))
    whole = wire.decode(frame, Config(profile="onos"))
    there = [hop for hop in answer["reports"][0]["int"]["hops"] if "incomplete" not in hop]
    assert 5 < len(there) < 16
    assert there == whole["reports"][0]["int"]["hops"][: len(there)]


def test_nothing_is_made_of_noise() -> None:
    """In packets without INT no option finds any."""
    chance = random.Random(1)
    for number in range(100):
        payload = chance.randbytes(chance.choice((20, 64, 200)))
        if number % 2:  # what may look like a shim
            payload = bytes((1, 0, chance.choice((3, 5, 9, 21)), 0, chance.choice((0, 16)), 0)) + payload
        flow = dataclasses.replace(FLOW, protocol=chance.choice((6, 17)), payload=payload)
        frame = exporters_like.report(ADDRESS, 54321, bytes.fromhex("14000040") + bytes(12) + flow.packet())
        assert suggested(frame) == suggested(frame, int_dscp=None) == ""


def test_what_is_a_report() -> None:
    """Packets to another port are known for reports, whoever sends them; those of other services are not."""
    how = How.of(Config(), "")
    for frame in (
        Onos(ADDRESS, 13, port=7).report(FLOW, HOPS),
        FabricTna(ADDRESS, 13).flow(FLOW, 10**9, 500),
        generated("intcollector", 0xFF00, 3),
    ):
        assert readings.is_report(frame, wire.UDP.read(frame, 34, "")["destination_port"], how)
    for payload in (bytes(60), bytes.fromhex("12340100000100000000000003777777076578616d706c6503636f6d0000010001")):
        assert not readings.is_report(exporters_like.report(ADDRESS, 53, payload), 53, how)
