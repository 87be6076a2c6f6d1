"""What is said of what was seen: literal sentences, and that every kind of them is explained."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from intcollector import capture, cli, diagnosis, seen, traffic, wire
from intcollector.batch import FLOW, REFUSAL, SOURCE, State, seen_fields
from intcollector.config import Config, FromFile, Source, read_sources
from intcollector.diagnosis import Exporter, Finding, Interface, Tally, diagnose
from intcollector.layout import LAYOUT, OUTCOMES, FlowFlag
from intcollector.readings import Specimen
from intcollector.seen import Flows, Refusal, Seen
from intcollector.series import NONE32, NONE64, Counts
from tests import exporters_like
from tests.collectors import COMMAND, ROOT, intcollector
from tests.exporters_like import Flow, Geant, Hop, Onos
from tests.needs import needs_root

TROUBLESHOOTING = pathlib.Path(__file__).parent.parent / "docs" / "troubleshooting.md"
MARKED = Config(int_dscp=(23, 63))
UP = (Interface("eth0", True, 0, 0, "native"),)
FLOW_ = Flow("10.0.0.1", "10.0.0.2", 1000, 2000)
HOPS = [Hop(11, 500, 10**9, (1, 2), (0, 7)), Hop(13, 900, 10**9 + 9000, (5, 6), (2, 40))]
ONOS = Onos("192.0.2.1", 13).report(FLOW_, HOPS)
GEANT = Geant("192.0.2.6", 13).report(FLOW_, HOPS)


def specimen(frame: bytes) -> Specimen:
    return Specimen(frame, len(frame))


def sources(*rows: dict[str, Any]) -> np.ndarray:
    """SOURCE (n,): of 192.0.2.1 and so on, switches 1 and so on, unless they say otherwise."""
    made = np.zeros(len(rows), SOURCE)
    for number, row in enumerate(rows, 1):
        one = {"switch_id": number, "ip_version": 4, "flags": LAYOUT.enums["source_flag"]["SOURCE_COUNTS"]} | row
        made[number - 1]["address"][:4] = (192, 0, 2, number)
        for name, value in one.items():
            made[number - 1][name] = value
    return made


def arriving(**more: Any) -> Seen:
    """A collector to which 2,000 reports have come in 12 seconds."""
    facts: dict[str, Any] = {
        "config": Config(), "seconds": 12.0, "outcomes": {"ok": 2000}, "last_report_s": 0.1, "interfaces": UP,
        "sources": sources({"received": 2000}),
        "flows": Flows(kept=10, seen=10, paths=10, asked=10, known=10, median_s=3e-6),
    }  # fmt: skip
    return Seen(**(facts | more))


def silent(**more: Any) -> Seen:
    """One to which none has come."""
    facts: dict[str, Any] = {"config": Config(), "seconds": 12.0, "interfaces": UP}
    return Seen(**(facts | more))


def refused(outcome: str, packets: int, frame: bytes, source: str = "192.0.2.1") -> Refusal:
    return Refusal(source, outcome, packets, specimen(frame))


def said(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    return [(one.what, one.state, one.found) for one in findings]


def one(what: str, findings: Sequence[Finding]) -> Finding:
    (finding,) = [finding for finding in findings if finding.what == what]
    return finding


def advised(findings: Sequence[Finding]) -> None:
    """Only what is well has no advice."""
    assert all(finding.what in diagnosis.KINDS for finding in findings)
    assert all(bool(finding.advice) or finding.state == "ok" for finding in findings)
    order = [("bad", "warn", "ok").index(finding.state) for finding in findings]
    assert findings and order == sorted(order)


SILENCE: list[tuple[Seen, str, str, str, str]] = [
    (silent(seconds=1.0), "reports", "ok", "no report yet, 1 s after the start", ""),
    (silent(interfaces=(Interface("eth0", False, 0, 0, "native"),)), "interface", "bad",
     "eth0 is down: nothing arrives", "`ip link set eth0 up`"),
    (silent(interfaces=(Interface("eth0", True, carrier=False),)), "interface", "bad",
     "eth0 is up and has no carrier: nothing arrives", "is the cable in, and the other end up?"),
    (silent(interfaces=(Interface("eth0", problem="eth0 is gone: waiting for it to come back"),)), "interface", "bad",
     "not attached: eth0 is gone: waiting for it to come back",
     "bring eth0 back, or take the other program off (`ip link show eth0`): the collector attaches by itself then"),
    (silent(), "no packets", "bad", "no packet came to eth0 in 12 s",
     "is it the interface that the switches send to? `ip -s link show eth0` counts what comes; what is sent to another "
     "MAC address is taken only after `ip link set eth0 promisc on`"),
    (silent(interfaces=(Interface("eth0", True, 1204, 0, "native"),)), "no packets", "bad",
     "eth0 received 1,204 packets, and none reached the collector in 12 s",
     "try `--xdp-mode generic`: this driver's native mode may not see them"),
    (silent(outcomes={"pass_not_ip": 1000, "pass_not_udp": 204, "pass_short_l3": 1}), "no UDP", "bad",
     "1,205 packets, none of them a whole UDP packet: 1,000 not IP, 204 of other protocols over IP and 1 damaged",
     "reports are UDP: look at the switches' report session. Behind an MPLS label, or in a GRE or ERSPAN tunnel, they "
     "are not read: have it taken off before they arrive"),
    (silent(outcomes={"pass_port": 214}, ports={54322: 214}), "other port", "bad",
     "214 UDP packets to port 54322, none to 54321", "is 54322 where reports go? try `--port 54322`"),
    (silent(outcomes={"pass_port": 2031}, ports={5353: 1000, 40000: 999, 32766: 31, 67: 1}), "other port", "bad",
     "31 UDP packets to port 32766, 1,000 to port 5353 (mDNS), 999 to port 40000 and 1 to port 67 (DHCP), none to "
     "54321",
     "is 32766 where reports go (fabric-tna (SD-Fabric), host-int uses it)? try `--port 32766`"),
    (silent(outcomes={"pass_port": 1310}, ports={5353: 1000, **{40000 + i: 10 * (i + 1) for i in range(7)}, 67: 30}),
     "other port", "bad",
     "70 UDP packets to port 40006, 1,000 to port 5353 (mDNS), 60 to port 40005 and 180 to 6 other ports, none to "
     "54321",
     "is 40006 where reports go? try `--port 40006`"),
    (silent(outcomes={"pass_port": 9}, ports={40000: 8, 7: 1}, report_ports=frozenset({7}), config=Config(port=(1, 2))),
     "other port", "bad", "1 UDP packet to port 7 and 8 to port 40000, none to 1 or 2; those to 7 are reports",
     "try `--port 7`"),
    (silent(outcomes={"pass_port": 5}, ports={53: 5}), "other port", "bad",
     "5 UDP packets to port 53 (DNS), none to 54321",
     "none of these is for reports: look at the switches' report session, its address and UDP port"),
    (silent(outcomes={"pass_port": 5}, ports={4789: 3, 53: 2}), "other port", "bad",
     "3 UDP packets to port 4789 (VXLAN) and 2 to port 53 (DNS), none to 54321",
     "reports within VXLAN are not read: end the tunnel in front of the collector"),
    (silent(outcomes={"pass_port": 5}, ports={6343: 5}), "other port", "bad",
     "5 UDP packets to port 6343 (sFlow), none to 54321",
     "sFlow is other telemetry than INT: switch on INT reports, and give their UDP port by `--port`"),
    (arriving(outcomes={"ok": 2000, "pass_not_ip": 5}, last_report_s=42.4), "stopped", "warn",
     "no report for 42 s, after 2,000 since the start; 5 other packets",
     "look at the switches: whether INT and the report session are still on"),
    (arriving(outcomes={"ok": 2000, "pass_port": 7}, ports={54322: 7}, last_report_s=150.0), "stopped", "warn",
     "no report for 2 minutes, after 2,000 since the start; 7 UDP packets went to port 54322",
     "moved there? try `--port 54322`"),
]  # fmt: skip


@pytest.mark.parametrize(("what_was_seen", "what", "state", "found", "advice"), SILENCE)
def test_nothing_arrives(what_was_seen: Seen, what: str, state: str, found: str, advice: str) -> None:
    """Where no report comes in, it is said how far what does come in gets."""
    findings = diagnose(what_was_seen)
    advised(findings)
    assert findings[0] == Finding(what, state, found, advice)  # type: ignore[arg-type]


def test_nothing_arrives_any_more() -> None:
    """What is said of the last minute is of that minute: then nothing came at all."""
    now = arriving(seconds=160.0, last_report_s=150.0)
    (finding, *_) = diagnose(now, arriving(seconds=100.0, last_report_s=90.0).counts_only())
    assert finding == Finding(
        "stopped", "warn",
        "no report for 2 minutes, after 2,000 since the start; in the last minute: nothing else either",
        "look at the way to the switches: `ip -s link show eth0` counts what arrives",
    )  # fmt: skip
    rare = arriving(seconds=1000.0, outcomes={"ok": 20}, last_report_s=60.0)
    assert one("reports", diagnose(rare)).state == "ok"


def test_all_is_well() -> None:
    """Where all is well that is one line, with the rate of the last minute."""
    assert diagnose(arriving()) == [Finding("reports", "ok", "2,000 reports from 1 source in 12 s; nothing lost")]
    later = arriving(
        seconds=72.0, outcomes={"ok": 122_060}, sources=sources({"received": 2000 + 60}, {"received": 120_000})
    )
    assert diagnose(later, arriving()) == [
        Finding("reports", "ok", "2,001 reports/s from 2 sources; nothing lost in the last minute")
    ]


def test_malformed_with_another_profile() -> None:
    """Malformed reports are told by who sent them and why, and how they read right."""
    alone = silent(
        config=MARKED, outcomes={"hop_ml_mismatch": 1204}, refusals=(refused("hop_ml_mismatch", 1204, ONOS),)
    )
    assert diagnose(alone)[0].found == (
        "1,204 reports from 192.0.2.1 malformed (hop_ml_mismatch): they read right as `--profile onos`"
    )
    seen_ = silent(
        config=MARKED,
        outcomes={"hop_ml_mismatch": 1504, "bad_report_ver": 2},
        refusals=(
            refused("hop_ml_mismatch", 1204, ONOS),
            refused("hop_ml_mismatch", 300, ONOS, "192.0.2.7"),
            refused("bad_report_ver", 2, exporters_like.report("192.0.2.1", 54321, bytes([0x70] * 60))),
        ),
    )
    findings = diagnose(seen_)
    advised(findings)
    assert findings == [
        Finding(
            "malformed", "bad",
            "1,506 reports from 192.0.2.1 and 192.0.2.7 malformed (hop_ml_mismatch 1,504, bad_report_ver 2): they read "
            "right as `--profile onos`",
            "try `--profile onos`",
        )
    ]  # fmt: skip
    lately = dataclasses.replace(seen_, seconds=72.0, refusals=seen_.refusals[:1])
    before = dataclasses.replace(
        seen_, outcomes={"hop_ml_mismatch": 1500}, refusals=(refused("hop_ml_mismatch", 1200, b""),)
    )
    assert diagnose(lately, before)[0].found == (
        "in the last minute: 4 reports from 192.0.2.1 malformed (hop_ml_mismatch): they read right as `--profile onos`"
    )


def test_malformed_of_one_source() -> None:
    """What is suggested for one of several sources is suggested for it alone; nothing, to one that sends right ones."""
    config = Config(int_dscp=(23, 63), port=(54321, 6000))
    seen_ = arriving(
        config=config,
        outcomes={"ok": 2000, "hop_ml_mismatch": 60},
        refusals=(refused("hop_ml_mismatch", 50, ONOS, "192.0.2.9"), refused("hop_ml_mismatch", 10, ONOS)),
    )
    findings = [finding for finding in diagnose(seen_) if finding.what == "malformed"]
    advised(findings)
    assert [(f.state, f.found, f.advice) for f in findings] == [
        ("warn", "50 reports from 192.0.2.9 malformed (hop_ml_mismatch): they read right as `--profile onos`",
         'give 192.0.2.9 `profile = "onos"` in a file of `--sources` (docs/options.md)'),
        ("warn", "10 reports from 192.0.2.1 malformed (hop_ml_mismatch): the words a hop is said to take are not those "
         "that its instructions take", "most of what it sends is right: does something else send from this address?"),
    ]  # fmt: skip


def test_malformed_as_its_own_profile_says() -> None:
    """What a file of sources says of a source is where the search begins."""
    file: FromFile[Source] = read_sources(b'["192.0.2.1"]\nprofile = "geant"\n', "sources.toml")
    seen_ = silent(
        config=Config(int_dscp=(23, 63), sources=file), outcomes={"hop_ml_mismatch": 5},
        refusals=(refused("hop_ml_mismatch", 5, ONOS),),
    )  # fmt: skip
    assert diagnose(seen_)[0].advice == 'give 192.0.2.1 `profile = "onos"` in a file of `--sources` (docs/options.md)'
    right = dataclasses.replace(
        seen_.config, sources=read_sources(b'["192.0.2.1"]\nprofile = "onos"\n', "sources.toml")
    )
    assert "they read right" not in diagnose(dataclasses.replace(seen_, config=right))[0].found


def test_malformed_that_nothing_helps() -> None:
    """Where no option helps, it is said what is wrong; also of what has no specimen, and of more than is kept apart."""
    frame = exporters_like.p4_int_2("192.0.2.1", FLOW_, 2)
    findings = diagnose(silent(outcomes={"bad_indiv_len": 7}, refusals=(refused("bad_indiv_len", 5, frame),)))
    advised(findings)
    assert said(findings) == [
        ("malformed", "bad", "5 reports from 192.0.2.1 malformed (bad_indiv_len): a report in a Telemetry Report 2.0 "
         "is longer than the packet, or than it says"),
        ("malformed", "bad", "2 malformed reports of other sources"),
    ]  # fmt: skip
    findings = diagnose(silent(outcomes={"trunc_stack": 1}))
    assert findings[0].found == "1 report malformed (trunc_stack): the packet ends before its hops do"
    tcp = dataclasses.replace(FLOW_, protocol=6)
    findings = diagnose(
        silent(config=MARKED, outcomes={"hop_ml_mismatch": 9},
               refusals=(refused("hop_ml_mismatch", 9, Onos("192.0.2.1", 13).report(tcp, HOPS)),))
    )  # fmt: skip
    assert findings[0].found == (
        "9 reports from 192.0.2.1 malformed (hop_ml_mismatch): they are laid out as `--profile onos` says, and end "
        "before their hops do"
    )


def test_an_option_to_leave_out() -> None:
    """An option that is in the way is named as one to leave out."""
    config = Config(int_dscp=(23, 63), reject_int_version_0=True)
    seen_ = silent(config=config, outcomes={"bad_int_ver": 9}, refusals=(refused("bad_int_ver", 9, ONOS),))
    assert diagnose(seen_)[0].advice == "try `--profile onos` without `--reject-int-version-0`"


def test_no_int() -> None:
    """Reports in which no INT was found are told, with the option that finds it."""
    flows = Flows(kept=10, seen=10)
    rows = (refused("ok", 2000, ONOS),)
    findings = diagnose(arriving(flows=flows, refusals=rows))
    advised(findings)
    assert findings[0] == Finding(
        "no INT", "bad", "2,000 reports from 192.0.2.1 with INT that is not found: it reads right as `--profile onos`",
        "try `--profile onos`",
    )  # fmt: skip
    findings = diagnose(arriving(flows=flows, refusals=rows, config=Config(int_dscp=(32, 63), profile="onos")))
    assert findings[0] == Finding(
        "no INT", "bad", "2,000 reports from 192.0.2.1 with INT that is not found: their packets have DSCP 23, and "
        "`--int-dscp` is 32",
        "try `--int-dscp 23`, or `--int-dscp off` if the sink puts back what a packet had before",
    )  # fmt: skip
    findings = diagnose(arriving(flows=flows, refusals=rows, config=Config(int_dscp=(32, 48))))
    assert findings[0].advice == (
        "try `--int-dscp 23 --profile onos`, or `--int-dscp off --profile onos` if the sink puts back what a packet "
        "had before"
    )
    unmarked = Geant("192.0.2.1", 13)
    unmarked.MARK = 0
    rows = (refused("ok", 2000, unmarked.report(FLOW_, HOPS)),)
    config = Config(int_dscp=(23, 63), profile="geant", port=(6000,))
    assert diagnose(arriving(flows=flows, refusals=rows, config=config))[0].advice == (
        "try `--int-dscp off`: the sink puts back what a packet had before, or there is no mark"
    )
    by_port = traffic.Traffic(packets=1, flows=1, report_version="2.0", int_version="2.1", int_signal="port", tcp=0.0)
    rows = (refused("ok", 2000, next(traffic.frames(by_port))),)
    findings = diagnose(arriving(flows=flows, refusals=rows, config=Config(int_dscp=(7, 63), int_udp_port=5000)))
    assert (findings[0].found, findings[0].advice) == (
        "2,000 reports from 192.0.2.1 with INT that is not found: their packets go to UDP port 33122, and "
        "`--int-udp-port` is 5000",
        "try `--int-udp-port 33122`",
    )
    assert (
        one("no INT", diagnose(arriving(flows=flows))).found == "2,000 reports, and none with INT: no path can be shown"
    )
    assert "`intcollector decode`" in one("no INT", diagnose(arriving(flows=flows))).advice
    assert "try `--int-dscp off`" in one("no INT", diagnose(arriving(flows=flows, config=MARKED))).advice


def test_what_could_be_reports() -> None:
    """Fragments, tags, encapsulations and what found no room are told where they matter."""
    outcomes = {"ok": 2000, "pass_fragment": 20, "pass_vlan_depth": 30, "unknown_encapsulation": 500, "undecoded": 2}
    findings = diagnose(arriving(outcomes=outcomes))
    advised(findings)
    assert said(findings)[:4] == [
        ("undecoded", "bad", "2 packets of reports too long or too nested for the kernel given up: no room to hand "
         "them on"),
        ("VLAN tags", "warn", "30 packets behind more than two VLAN tags, which are not read"),
        ("encapsulation", "warn", "500 of 2,500 reports are of packets in an encapsulation that is not read: they are "
         "kept without INT"),
        ("reports", "ok", "2,500 reports from 1 source in 12 s"),
    ]  # fmt: skip
    few = {"ok": 2000, "pass_fragment": 19, "pass_vlan_depth": 1}
    assert [f.state for f in diagnose(arriving(outcomes=few))] == ["ok"]
    (finding, *_) = [f for f in diagnose(silent(outcomes={"pass_fragment": 3})) if f.what == "fragments"]
    assert finding.found == "3 fragments of IP packets, which are not read"


def test_loss() -> None:
    """What the sequence numbers say is told by whose they are, of the last minute."""
    before = arriving(sources=sources({"received": 2000, "lost": 50, "duplicated": 7, "restarted": 1}))
    now = arriving(
        seconds=72.0,
        outcomes={"ok": 4500},
        sources=sources(
            {"received": 4000, "lost": 62, "duplicated": 40, "restarted": 2},
            {"received": 500, "lost": 500, "switch_id": NONE32, "reporter": 77},
        ),
    )
    findings = diagnose(now, before)
    advised(findings)
    assert said(findings) == [
        ("report loss", "bad", "in the last minute: 512 of 3,012 reports from 192.0.2.2 (switch 77) and 192.0.2.1 "
         "(switch 1) did not arrive (17.0 %), by their sequence numbers"),
        ("duplicates", "warn", "in the last minute: 33 of 2,500 reports came again, from 192.0.2.1 (switch 1)"),
        ("restarts", "warn", "in the last minute: 192.0.2.1 (switch 1) began to count anew once"),
        ("reports", "ok", "42 reports/s from 2 sources"),
    ]  # fmt: skip
    assert "`ethtool -S eth0`" in findings[0].advice
    quiet = dataclasses.replace(now, seconds=132.0, outcomes={"ok": 4600})
    assert [f.state for f in diagnose(quiet, now)] == ["ok"]
    taken_back = quiet.sources.copy()
    taken_back["restarted"][0] -= 1
    assert [f.state for f in diagnose(dataclasses.replace(quiet, sources=taken_back), now)] == ["ok"]


def test_interface_drops() -> None:
    """What the interface gave up is where reports got lost; a few packets are for nobody here."""
    seen_ = arriving(
        sources=sources({"received": 2000, "lost": 1}), interfaces=(Interface("eth0", True, 3000, 1500, "native"),)
    )
    findings = diagnose(seen_)
    advised(findings)
    assert said(findings)[:2] == [
        ("interface drops", "warn", "eth0 dropped 1,500 packets, and received 3,000"),
        ("report loss", "warn", "1 of 2,001 reports from 192.0.2.1 (switch 1) did not arrive (0.05 %), by their "
         "sequence numbers"),
    ]  # fmt: skip
    assert findings[1].advice == "the interface drops packets: see there"
    later = arriving(
        seconds=72.0, outcomes={"ok": 4000}, interfaces=(Interface("eth0", True, 6000, 1530, "native"),),
        sources=sources({"received": 4000, "lost": 1}),
    )  # fmt: skip
    assert [f.state for f in diagnose(later, seen_)] == ["ok"]


def test_sources_that_do_not_count() -> None:
    """Of an exporter whose sequence number is always 0 it is said that its losses cannot be seen."""
    findings = diagnose(arriving(sources=sources({"received": 2000, "flags": 0})))
    assert said(findings) == [
        ("sequence numbers", "ok", "192.0.2.1 (switch 1) does not count reports: whether some are lost cannot be seen"),
        ("reports", "ok", "2,000 reports from 1 source in 12 s; nothing lost"),
    ]


@pytest.mark.parametrize(
    ("flows", "unit", "found", "advice"),
    [
        (Flows(10, 10, 10, asked=10, known=0), "ns",
         "none of 10 flows has a latency, though the switches are asked for it",
         "they have none to give (all ones in the reports): ask for both timestamps (instruction bits 4 and 5), whose "
         "difference is taken then"),
        (Flows(10, 10, 10, 10, 1204, zero=1204, median_s=0.0), "ns", "the latency of all 1,204 flows is 0",
         "the switches put 0 where they have no clock, or count in a unit too large for it: look at their INT "
         "settings"),
        (Flows(10, 10, 10, 10, 10, 0, 2e-9), "ns",
         "half of the hops take less than 2.00 ns, which no switch can: they are read in ns",
         "do the switches count in another unit? try `--latency-unit us`"),
        (Flows(10, 10, 10, 10, 10, 0, 1.5), "ms",
         "half of the hops take more than 1.50 s, which no buffer lasts: they are read in ms",
         "do the switches count in another unit? try `--latency-unit us`"),
        (Flows(10, 10, 10, 10, 10, 0, 2.5), "ns",
         "half of the hops take more than 2.50 s, which no buffer lasts: they are read in ns",
         "timestamps may be of another size than expected: compare with docs/exporters-seen.md, try another "
         "`--profile`"),
    ],
)  # fmt: skip
def test_latency(flows: Flows, unit: str, found: str, advice: str) -> None:
    """Latencies that cannot be are told, with the unit that would make them possible."""
    finding = diagnose(arriving(flows=flows, config=Config(latency_unit=unit)))[0]
    assert finding == Finding("latency", "warn", found, advice)


def test_latency_in_several_units() -> None:
    """Where sources have units of their own, it is not said that it was one."""
    file = read_sources(b'["192.0.2.1"]\nlatency-unit = "ms"\n', "sources.toml")
    seen_ = arriving(flows=Flows(10, 10, 10, 10, 10, 0, 2.5), config=Config(sources=file))
    assert diagnose(seen_)[0].found.endswith("they are read in the units that are set")


def test_no_latency_asked() -> None:
    """Of paths alone nothing is missed."""
    assert [f.state for f in diagnose(arriving(flows=Flows(10, 10, 10)))] == ["ok"]


def test_room() -> None:
    """What found no room is told with the option that gives more of it."""
    seen_ = arriving(
        events=90, events_lost=10, lost_between_cpus=3, refused={"flows": 1, "points": 20_000}, config=Config(cpus=2),
        flows=Flows(100_000, 10, 10, 10, 10, 0, 3e-6),
    )  # fmt: skip
    findings = diagnose(seen_)
    advised(findings)
    assert [(f.what, f.state, f.found, f.advice) for f in findings][:-1] == [
        ("event loss", "bad", "10 of 100 events lost: their buffer of 32 MiB was full",
         "try `--ring-size 64`; or have fewer events, by larger thresholds (docs/options.md)"),
        ("other CPUs", "bad", "3 reports found no room in another CPU's queue (`--cpus 2`)",
         "give more CPUs, or keep other work off them: docs/cpus.md"),
        ("no room", "warn", "no room for new flows: 1 refused", "try `--max-flows 200000`"),
        ("no room", "warn", "no room for more than 16,384 switch ports or queues: 20,000 refused",
         "a wrong `--profile` makes up such ids: look whether they are real"),
        ("no room", "warn", "100,000 flows are kept, as many as may be: the least recently used ones go",
         "if that is too few: try `--max-flows 200000`"),
    ]  # fmt: skip
    assert set(seen.ROOMS) == set(diagnosis._NO_ROOM)


@pytest.mark.parametrize("part", [1, 2])
def test_room_that_there_is(part: int) -> None:
    """What is advised can be given, also where little more is possible; where nothing is, it is not advised."""
    config = Config(ring_size=diagnosis.LARGEST_RING // part, max_flows=diagnosis.MOST_FLOWS * 2 // (part + 1))
    seen_ = arriving(
        events=90, events_lost=10, refused={"flows": 1}, config=config, flows=Flows(config.max_flows, 10, 10, 10, 10)
    )
    advice = " ".join(finding.advice for finding in diagnose(seen_))
    for option, most in (("--ring-size", diagnosis.LARGEST_RING), ("--max-flows", diagnosis.MOST_FLOWS)):
        advised_ = set(re.findall(rf"{option} (\d+)", advice))
        assert advised_ == (set() if part == 1 else {str(most)})
        cli._parser().parse_args(["run", "eth0", option, str(most)])
        with pytest.raises(SystemExit):
            cli._parser().parse_args(["run", "eth0", option, str(most + 1)])


def test_exporters() -> None:
    """An exporter that is behind, refused or has given up points is told."""
    influxdb = Exporter(
        "influxdb", Counts(lost={"buffer_full": 1200, "closed": 0}, buffered=12_000, age_s=42.0), "influxdb: refused"
    )
    kafka = Exporter("kafka", Counts(lost={"buffer_full": 0}, buffered=7, age_s=31.0))
    findings = diagnose(arriving(exporters=(influxdb, kafka, Exporter("prometheus"))))
    advised(findings)
    assert said(findings)[:3] == [
        ("exporter", "bad", "influxdb gave up 1,200 points (buffer_full 1,200)"),
        ("exporter", "warn", "influxdb: refused; 12,000 points wait, the oldest for 42 s"),
        ("exporter", "warn", "kafka is behind: 7 points wait, the oldest for 31 s"),
    ]
    assert findings[0].advice == "give it more memory (`--push-buffer`), or disk to wait on (`--spool`)"
    later = arriving(seconds=72.0, exporters=(dataclasses.replace(influxdb, problem=None),), outcomes={"ok": 4000})
    assert not any("gave up" in f.found for f in diagnose(later, arriving(exporters=(influxdb,))))
    seldom = arriving(config=Config(push_interval=60.0), exporters=(kafka,))
    assert [f.state for f in diagnose(seldom)] == ["ok"], "it is not behind: it waits for its time"


def test_not_ready() -> None:
    """What /readyz says and nothing else explains is said here, too."""
    findings = diagnose(arriving(not_ready="jsonl: no space left on device"))
    advised(findings)
    assert said(findings)[0] == ("collector", "bad", "jsonl: no space left on device")
    known = arriving(not_ready="kafka: away", exporters=(Exporter("kafka", Counts(), "kafka: away"),))
    assert [f.what for f in diagnose(known)] == ["exporter", "reports"]


def test_relay() -> None:
    """Of a relay it is said what it reads, misses and waits for."""
    before = seen.of_relay(Config(), seconds=12.0, events=1000)
    well = seen.of_relay(Config(), seconds=72.0, events=121_000, lag=3)
    assert diagnose(well, before) == [Finding("relay", "ok", "2,000 events/s from Kafka; 3 messages to go")]
    ill = seen.of_relay(Config(), seconds=72.0, events=1000, refused=5, missed=1204, paused=True)
    findings = diagnose(ill, before)
    advised(findings)
    assert said(findings) == [
        ("relay", "bad", "in the last minute: 1,204 messages were removed from Kafka before they were read"),
        ("relay", "warn", "in the last minute: 5 messages in Kafka are no event"),
        ("relay", "warn", "nothing is read from Kafka: an exporter has to catch up first"),
        ("relay", "ok", "0 events/s from Kafka"),
    ]


# --- facts ------------------------------------------------------------------------------------------------------------


def test_facts_of_a_state() -> None:
    """What the kernel's maps hold becomes facts: outcomes, ports, specimens, the flows of the last minute."""
    second = 10**9
    flows = np.zeros(5, FLOW)
    for name, values in seen_fields(np.array([100, 99, 98, 97, 30]) * second).items():
        flows[name] = values  # the last is of two minutes ago
    flows["latency"] = [NONE64, 0, 600, NONE64, NONE64]
    flows["flags"] = [FlowFlag.PATH, FlowFlag.PATH, FlowFlag.PATH, 0, FlowFlag.PATH]
    flows["instruction_bitmap"] = [0x8000, 0xA000, 0xCC00, 0, 0xFF00]
    flows["hop_count"] = 2
    flows["hops"]["latency"][2, :2] = (200, 400)
    flows["hops"]["latency"][1, :2] = (0, NONE32)
    state = State(flows=flows, sources=sources({"received": 4, "seen_ns": 98 * second}))
    state.counters["outcomes"][OUTCOMES.index("ok")] = 7
    state.counters["outcomes"][OUTCOMES.index("pass_port")] = 3
    state.counters["events_lost"], state.counters["flows_refused"] = 2, 1
    state.udp_ports[54322] = 3
    refusals = np.zeros(2, REFUSAL)
    refusals["ip_version"], refusals["outcome"], refusals["packets"] = 4, OUTCOMES.index("trunc_stack"), (6, 1)
    refusals["address"][0, :4], refusals["length"], refusals["kept"] = (192, 0, 2, 1), 700, 3
    refusals["bytes"][:, :4] = (1, 2, 3, 4)
    state = dataclasses.replace(state, refusals=refusals)
    found = seen.of_state(state, Config(), seconds=5.0, now_ns=110 * second)
    assert found.outcomes == {"ok": 7, "pass_port": 3}
    assert found.ports == {54322: 3}
    assert [(row.source, row.outcome, row.packets) for row in found.refusals] == [
        ("192.0.2.1", "trunc_stack", 6), ("", "trunc_stack", 1),
    ]  # fmt: skip
    assert found.refusals[0].specimen == Specimen(b"\1\2\3", 700)
    assert found.flows == Flows(kept=5, seen=4, paths=3, asked=2, known=2, zero=1, median_s=2e-7)
    assert found.last_report_s == pytest.approx(10.0, abs=0.0011)  # flows' times are exact to 2^20 ns
    assert (found.events_lost, found.refused) == (2, {"flows": 1})
    assert found.counts_only().refusals[0].specimen.frame == b""


def test_facts_of_frames() -> None:
    """Frames that are decoded one by one come to the same facts, with the ports to which reports go."""
    tally = Tally(Config(), "heard")
    made = traffic.Traffic(packets=20, flows=4, event_rate=0)
    frames = list(traffic.frames(made))
    elsewhere = list(traffic.frames(dataclasses.replace(made, port=32766)))
    dns = exporters_like.report("192.0.2.1", 53, bytes.fromhex("123401000001000000000000") + b"\3www\0\0\1\0\1")
    for frame in [*frames, *elsewhere, dns, dns, ONOS, GEANT[:60]]:
        tally.add(frame, wire.decode(frame, Config()))
    found = tally.seen(2.0, (Interface("eth0", True),))
    assert found.outcomes == {"ok": 21, "pass_port": 23}
    assert found.ports == {32766: 20, 53: 2, 6000: 1}
    assert found.report_ports == {32766}
    assert [(row.source, row.outcome, row.packets) for row in found.refusals] == [("192.0.2.1", "ok", 1)]
    assert (found.flows.seen, found.flows.paths, found.flows.known, found.flows.kept) == (21, 20, 20, 5)
    median = np.median(
        [h["hop_latency"] for f in frames for h in wire.decode(f, Config())["reports"][0]["int"]["hops"]]
    )
    assert found.flows.median_s == pytest.approx(median * 1e-9)
    assert diagnose(found)[0].found.startswith("in 2 s: 1 report from 192.0.2.1 with INT that is not found")


def test_a_file_of_other_things() -> None:
    """Of a capture without reports it is said what is in it."""
    assert said(diagnose(Tally(Config(), "file").seen(0.0))) == [("no packets", "bad", "there is no packet in it")]
    tally = Tally(Config(), "file")
    for frame in traffic.frames(traffic.Traffic(packets=214, flows=2, port=54322)):
        tally.add(frame, wire.decode(frame, Config()))
    assert diagnose(tally.seen(0.0)) == [
        Finding("other port", "warn", "214 UDP packets to port 54322, none to 54321; those to 54322 are reports",
                "try `--port 54322`")
    ]  # fmt: skip


@pytest.mark.parametrize("engine", [pytest.param("kernel", marks=needs_root), "python"])
def test_decode(tmp_path: pathlib.Path, engine: str) -> None:
    """`decode -v` of a file in which little can be read says why at the end, on stderr; the records are the same."""
    path = tmp_path / "onos.pcap"
    capture.write(str(path), [(ONOS, 0), (GEANT, 0), (ONOS, 0)])
    plain = intcollector("decode", str(path))
    told = intcollector("decode", "-v", str(path), "--engine", engine)
    assert (plain.returncode, plain.stderr, told.returncode) == (0, "", 0)
    assert told.stdout == plain.stdout and len(plain.stdout.splitlines()) == 3
    lines = told.stderr.splitlines()
    assert [line for line in lines if not line.startswith("intcollector: collector.c")] == [
        "bad   no INT   2 reports from 192.0.2.1 with INT that is not found: it reads right as --profile onos",
        "               -> try --profile onos",
        "ok    reports  2 reports of 1 flow",
    ]
    if engine == "python":
        assert intcollector("decode", "-v", str(path), "--profile", "onos").stderr == ""
        ours, theirs = os.openpty()
        try:
            command = [*COMMAND, "decode", str(path)]
            shown = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True)
            assert shown.stdout.decode() == plain.stdout
            assert os.read(ours, 1 << 16).decode().splitlines() == lines  # somebody looks: no -v is needed
        finally:
            os.close(ours)
            os.close(theirs)


def test_text() -> None:
    """Findings as lines: what, what was found, and below it what to do, without marks."""
    assert diagnosis.text([Finding("a", "bad", "b `c`", "try `d`"), Finding("long", "ok", "e")]).splitlines() == [
        "bad   a     b c", "            -> try d", "ok    long  e",
    ]  # fmt: skip
    assert diagnosis.text([Finding("a", "bad", "b \x1b[2Jc\r")]) == "bad   a  b \ufffd[2Jc\ufffd"


def test_every_kind_is_explained() -> None:
    """The page on troubleshooting has a heading for every kind of finding, and for no other."""
    headings = re.findall(r"^### `(.+)`$", TROUBLESHOOTING.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(diagnosis.KINDS)


def test_what_is_quoted_is_said() -> None:
    """A sentence that the page on troubleshooting quotes is one that a test here expects, to the letter."""
    expected = re.sub(r'"\s*\n\s*f?"', "", pathlib.Path(__file__).read_text())
    quoted = [line[2:] for line in TROUBLESHOOTING.read_text().splitlines() if line.startswith("> ")]
    assert len(quoted) > len(diagnosis.KINDS)
    assert [sentence for sentence in quoted if sentence.replace("veth_0", "eth0") not in expected] == []
