"""What the outcomes of packets (bpf/report.h, enum outcome) mean, for people: the page, `top`, `doctor` and
docs/reference/outcomes.md say it in these words. In which order they are decided is in docs/wire.md."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """kind: report (kept), malformed (for us, and refused), passed (not for us) or undecoded (given up). says: what it
    means. cause: what is usually behind it, and what to try; empty where nothing is wrong."""

    kind: str
    says: str
    cause: str = ""


_NOT_OURS = "Other traffic on the interface. It is passed on untouched."
_DAMAGED = "The packet was damaged or cut on its way, or a program made it by hand."
_CUT_MIRROR = "The exporter mirrors fewer bytes of a packet than its report announces: have it mirror more."
_LAYOUT = "The exporter lays out its reports in another way than expected: try another --profile for it."
_MARK = "The mark that stands for INT is on packets without it: look at --int-dscp and --int-udp-port."

MEANINGS = {
    "ok": Outcome("report", "A report that was read and kept."),
    "unknown_encapsulation": Outcome(
        "report",
        "A report that was kept without INT: what is inside the packet that it is about could not be read.",
        "The packet is in an encapsulation that is not known, is cut inside one, or is nested more than four deep.",
    ),
    "pass_short_l2": Outcome("passed", "Too short for an Ethernet header and its VLAN tags.", _DAMAGED),
    "pass_vlan_depth": Outcome(
        "passed",
        "More than two VLAN tags in front of the packet.",
        "Other traffic; if it is reports, take the outer tags off before they arrive.",
    ),
    "pass_not_ip": Outcome(
        "passed",
        "Neither IPv4 nor IPv6.",
        "Other traffic, as ARP. Reports behind an MPLS label count here too: the last switch has to take it off.",
    ),
    "pass_short_l3": Outcome("passed", "Too short for its IP header.", _DAMAGED),
    "pass_bad_ip": Outcome("passed", "Its IP header contradicts itself.", _DAMAGED),
    "pass_fragment": Outcome(
        "passed",
        "A fragment of an IP packet.",
        "Other traffic; or reports that are larger than the way's MTU: raise it, or have less of a packet mirrored.",
    ),
    "pass_not_udp": Outcome("passed", "IP, but not UDP.", _NOT_OURS),
    "pass_short_l4": Outcome("passed", "Too short for its UDP header.", _DAMAGED),
    "pass_port": Outcome(
        "passed",
        "UDP to a port that is not the reports'.",
        "Other traffic; or reports to another port: give it with --port.",
    ),
    "bad_ip_len": Outcome("malformed", "The IP header says there is no room for a UDP header.", _DAMAGED),
    "trunc_frame": Outcome(
        "malformed",
        "The frame ends before the IP packet does.",
        "A capture or a mirror that cut the packet, as tcpdump -s does.",
    ),
    "bad_udp_len": Outcome("malformed", "The length in the UDP header is not possible.", _DAMAGED),
    "trunc_report": Outcome(
        "malformed", "Too short for a report's header.", "Something else than reports is sent to this port."
    ),
    "bad_report_ver": Outcome(
        "malformed",
        "The version of the report is none of 0.5, 1.0 and 2.0.",
        "Something else than reports is sent to this port.",
    ),
    "bad_report_len": Outcome(
        "malformed",
        "The report's length is less than what it says it holds.",
        "An exporter that counts it in another way: try --accept-report-length-1; or one that puts version 1 in front "
        "of another layout.",
    ),
    "trunc_report_md": Outcome(
        "malformed",
        "The packet ends before what the reporting switch says of itself does.",
        "An exporter that deviates, or something else than reports.",
    ),
    "unsupported_nproto": Outcome(
        "malformed",
        "What follows the report's header is of a type that the specification does not have.",
        "An exporter with types of its own.",
    ),
    "trunc_inner": Outcome(
        "malformed", "The packet that the report is about ends within its own headers.", _CUT_MIRROR
    ),
    "bad_inner_vlan": Outcome(
        "malformed",
        "The packet that the report is about has more than two VLAN tags.",
        "An exporter that deviates, so that other bytes are taken for tags; or a network with so many tags.",
    ),
    "bad_inner_ip": Outcome(
        "malformed",
        "The packet that the report is about has no right IP header.",
        "An exporter that deviates, as one that says IP where it sends Ethernet.",
    ),
    "bad_inner_tcp": Outcome(
        "malformed", "The packet that the report is about has no right TCP header.", "An exporter that deviates."
    ),
    "trunc_shim": Outcome("malformed", "INT is announced, and the packet ends before it begins.", _MARK),
    "bad_shim_type": Outcome("malformed", "INT is announced, and what is there does not begin as INT does.", _MARK),
    "bad_shim_len": Outcome("malformed", "INT is announced, with a length that is less than its headers take.", _MARK),
    "trunc_md_hdr": Outcome("malformed", "The packet ends within the INT header.", _CUT_MIRROR),
    "bad_int_ver": Outcome(
        "malformed",
        "The version of INT is none of 0.5, 1.0 and 2.x.",
        "An exporter that deviates; with --reject-int-version-0 also one that leaves the version at 0, as ONOS does.",
    ),
    "bad_ins_cnt": Outcome(
        "malformed", "INT 0.5: the number of instructions is not the number of bits in the bitmap.", _LAYOUT
    ),
    "hop_ml_zero": Outcome("malformed", "A hop is said to take no words, and there are hops or instructions.", _LAYOUT),
    "hop_ml_mismatch": Outcome(
        "malformed", "The words a hop is said to take are not those that its instructions take.", _LAYOUT
    ),
    "trunc_stack": Outcome(
        "malformed",
        "The packet ends before its hops do.",
        f"{_CUT_MIRROR} With ONOS: reports about TCP flows, which it sends 12 bytes short.",
    ),
    "stack_not_multiple": Outcome("malformed", "The hops do not fill their space: a part of one is left.", _LAYOUT),
    "no_individual": Outcome(
        "malformed", "A Telemetry Report 2.0 without a single report in it.", "An exporter that deviates."
    ),
    "trunc_indiv": Outcome(
        "malformed",
        "A Telemetry Report 2.0 that ends within the first words of a report.",
        "An exporter that deviates.",
    ),
    "bad_indiv_len": Outcome(
        "malformed",
        "A report in a Telemetry Report 2.0 is longer than the packet, or than it says.",
        "A draft of 2.0 with another layout, or lengths left at 0: set the switch to report version 0.5 or 1.0.",
    ),
    "md_len_too_small": Outcome(
        "malformed",
        "A report in a Telemetry Report 2.0 says more of itself than its length has room for.",
        "A draft of 2.0 with another layout: set the switch to report version 0.5 or 1.0.",
    ),
    "bad_tlv": Outcome(
        "malformed",
        "A part (TLV) of a report in a Telemetry Report 2.0 ends behind the report.",
        "An exporter that deviates.",
    ),
    "undecoded": Outcome(
        "undecoded",
        "A report too long or too nested for the kernel, given up since there was no room to hand it on.",
        "Too many such reports at once: have fewer reports put into a packet (docs/wire.md, What goes up whole).",
    ),
}
"""By outcome, in the order of the reference: what is kept, what is passed on, what is refused."""
