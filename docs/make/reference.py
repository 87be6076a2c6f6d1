"""The pages of docs/reference/, made of the code.

    .venv/bin/python -m docs.make.reference                    writes them
    .venv/bin/python -m docs.make.reference --check [NAME...]  what differs, and exit code 1 if anything does

What is said here beside the code (what a label or a field of a record is, when a metric is there) is held to be
complete: a name that the code has and a table here has not, or the other way round, ends the program.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from intcollector import cli, events, relay, series, traffic, wire
from intcollector.batch import State
from intcollector.config import Config
from intcollector.layout import OUTCOMES
from intcollector.outcomes import MEANINGS
from intcollector.traffic import Traffic

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "reference"
COMMAND = ".venv/bin/python -m docs.make.reference"


def complete(what: str, have: Iterable[str], want: Iterable[str]) -> None:
    """Both are the same names."""
    have, want = set(have), set(want)
    if have != want:
        sys.exit(f"{what}: missing {sorted(want - have)}, and too much {sorted(have - want)}")


def cell(text: str) -> str:
    """Text in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def marked(text: str) -> str:
    """Text of a program as Markdown: options as code, pages as links."""
    text = re.sub(r"(?<![`\w-])(--[a-z][a-z0-9-]*)", r"`\1`", text)
    return re.sub(r"(?<![`\w/])docs/([\w-]+\.md)", r"[\1](../\1)", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"
    yield ""


def paragraph(*text: str) -> Iterator[str]:
    """Prose, in lines."""
    yield from textwrap.wrap(" ".join(text), 120, break_long_words=False, break_on_hyphens=False)
    yield ""


def code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


# --- options ----------------------------------------------------------------------------------------------------------

_FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def _commands() -> dict[str, argparse.ArgumentParser]:
    """By name, each with all its options."""
    (names,) = [action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)]
    found = {}
    for name in names.choices:
        (sub,) = [a for a in cli._parser(name)._actions if isinstance(a, argparse._SubParsersAction)]
        found[name] = sub.choices[name]
    return found


def _help(action: argparse.Action) -> tuple[str, str]:
    """(what an option means, its default)"""
    found = re.fullmatch(r"(.*?)(?: ?\(default: (.*)\))?", (action.help or "").replace("%%", "%"), re.DOTALL)
    assert found
    return found[1], found[2] or ""


def _default(action: argparse.Action) -> str:
    """A value, or words."""
    default = _help(action)[1]
    return f"`{default}`" if default and " " not in default else default


def _sentence(text: str, words: Iterable[Any] | None = ()) -> str:
    """With a capital, unless it begins with one of these words, which are to be given as they stand."""
    as_is = text.partition(" ")[0].rstrip(":,") in (words or ())
    return marked(text if as_is else text[:1].upper() + text[1:])


def _spelled(action: argparse.Action) -> str:
    """`--option METAVAR`, with the short forms; an argument without a name by its place."""
    if not action.option_strings:
        return f"`{_place(action)}`"
    value = ""
    if action.choices:
        value = " " + "\\|".join(map(str, action.choices))
    elif action.nargs != 0:
        name = action.metavar or action.dest.upper()
        value = f" {name}" if not isinstance(action.nargs, int) else f" {name}" * action.nargs
    return ", ".join(f"`{option}{value}`".replace("\\|", "|") for option in sorted(action.option_strings, key=len))


def _place(action: argparse.Action) -> str:
    """An argument without a name."""
    name = str(action.metavar or "|".join(map(str, action.choices or ())))
    return f"{name}..." if action.nargs == "+" else f"[{name}]" if action.nargs == "?" else name


def _is_configs(action: argparse.Action) -> bool:
    """One of `run`'s, given to another command."""
    field = _FIELDS.get(action.dest)
    return field is not None and _help(action)[0] == field.metadata["help"]


def _groups() -> list[tuple[str, list[str]]]:
    """Config's fields under the comments that stand above them."""
    found: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(Config).splitlines():
        if comment := re.fullmatch(r"    # (.+)", line):
            found.append((comment[1], []))
        elif (field := re.match(r"    (\w+): .+ = option\(", line)) and found:
            found[-1][1].append(field[1])
    complete("the groups of Config's fields", (name for _, names in found for name in names), _FIELDS)
    return found


def options() -> Iterator[str]:
    yield "# Options"
    yield ""
    yield from paragraph(
        "All commands and their options; `intcollector COMMAND --help` prints the same. How options stand in a file, "
        "and",
        "what the files look like that some of them name, is in [options.md](../options.md).",
    )
    yield from paragraph(
        "Every command has `-h`, `--help` and `-v`, `--verbose` (say more; show where an error came from). Exit "
        "codes: 0 done,",
        "1 failed while running, 2 wrong usage or configuration.",
    )
    for name, parser in _commands().items():
        of_command = [a for a in parser._actions if a.dest not in ("help", "verbose")]
        places = [_place(a) for a in of_command if not a.option_strings]
        explained = [a for a in of_command if a.option_strings or a.help]
        yield f"## {name}"
        yield ""
        yield f"`intcollector {' '.join([name, *places])}`: {(parser.description or '').rstrip('.')}."
        yield ""
        configs = [a for a in explained if _is_configs(a)]
        own = [a for a in explained if a not in configs]
        if own:
            yield from table(
                ("option", "default", "meaning"),
                ((_spelled(a), _default(a), _sentence(_help(a)[0], a.choices) + _again(a)) for a in own),
            )
        if name == "run":
            yield from _run_options({a.dest: a for a in configs})
        elif configs:
            shared = code(action.option_strings[0] for action in configs)
            differs = f" but for [what differs]({_DIFFERS[name]})" if name in _DIFFERS else ""
            yield from paragraph(f"And these of [`run`](#run), with the same meaning{differs}: {shared}.")


_DIFFERS = {"relay": "../options.md#options-of-relay"}
"""Commands to which an option of `run` means something else."""


def _again(action: argparse.Action) -> str:
    """What the help of our dataclasses leaves to argparse."""
    again = isinstance(action, argparse._AppendAction) and "again" not in (action.help or "")
    return "; may be given again" if again else ""


def _run_options(actions: Mapping[str, argparse.Action]) -> Iterator[str]:
    yield from paragraph(
        "The last two columns: does a running collector take a new value, out of the file of `--config` at SIGHUP, "
        "or when",
        "a file that the option names changes; may a [file of sources](../options.md#sources) have its own for a "
        "source.",
    )
    for title, names in _groups():
        yield f"### {_sentence(title)}"
        yield ""
        rows = []
        for name in names:
            field, action = _FIELDS[name], actions[name]
            meaning = _help(action)[0]
            rows.append(
                (
                    _spelled(action),
                    _default(action),
                    _sentence(meaning, action.choices) + _again(action),
                    "yes" if field.metadata.get("live") else "",
                    "yes" if field.metadata.get("of_source") else "",
                )
            )
        yield from table(("option", "default", "meaning", "while it runs", "by source"), rows)


# --- metrics ----------------------------------------------------------------------------------------------------------

LABELS = {
    "outcome": "What became of a packet: one of [outcomes.md](outcomes.md).",
    "source": "The address that reports come from; of `int_flow_*`, the flow's source address.",
    "switch_id": "The switch. Of `int_reports_*` the reporting one: Telemetry Report 0.5 counts by source and `hw_id`, "
    "the label is the switch that the reports of those name, and empty where they name none or several.",
    "hw_id": "The part of the switch that reported (a pipe, a line card), as it says.",
    "reason": "Of `int_dropped_packets_total` the drop reason's name, by the table built in or `--drop-reasons "
    "FILE`, its "
    "number where the table has no name, empty where the switch gave none; reasons of one name are one series. Of "
    "`int_exporter_points_lost_total` why points were [lost](../delivery.md#what-is-lost-and-when). Of "
    f"`int_relay_messages_refused_total` one of {code(events.REASONS)}.",
    "exporter": "`influxdb`, `kafka` or `jsonl`.",
    "destination": "The flow's destination address.",
    "source_port": "The flow's; empty where it has no ports.",
    "destination_port": "The flow's; empty where it has no ports.",
    "protocol": "The flow's IP protocol number: 6 is TCP, 17 is UDP.",
    "queue_id": "The queue, as the switch numbers them.",
    "egress_port_id": "The port by which packets left the switch.",
    "topic": "Of Kafka.",
    "partition": "Of the topic.",
    "change": "What was news: a word of a record's [`changes`](records.md#events).",
}  # fmt: skip

_REPORTED = "for each source of reports that was heard of"
_FLOWS = "for each flow with a known latency, the `--max-flow-series` last seen"
_EXPORTER = "for each exporter that sends: InfluxDB, Kafka, JSON lines"
_QUEUE = "for each queue that told its occupancy"
WHEN = {
    "int_reports_total": _REPORTED,
    "int_reports_lost_total": _REPORTED,
    "int_reports_reordered_total": _REPORTED,
    "int_reports_duplicated_total": _REPORTED,
    "int_reports_restarted_total": _REPORTED,
    "int_report_sampling_ratio": _REPORTED,
    "int_dropped_packets_total": "for each switch and reason of which a drop report came",
    **{name: _EXPORTER for name in series.METRICS if name.startswith("int_exporter_")},
    "int_exporter_spool_bytes": "for each exporter with a spool (`--spool`)",
    "int_exporter_spool_failures_total": "for each exporter with a spool (`--spool`)",
    "int_exporter_points_recovered_total": "for each exporter with a spool (`--spool`)",
    "int_relay_lag_messages": "for each partition that the relay has",
    "int_flow_latency_seconds": _FLOWS,
    "int_flow_hop_latency_seconds": "for each of these flows and each switch on its path with a known latency",
    "int_hop_latency_seconds": "for each switch of which a hop came",
    "int_hops_without_latency_total": "for each switch of which a hop came",
    "int_queue_occupancy": _QUEUE,
    "int_queue_occupancy_max": _QUEUE,
    "int_queue_occupancy_bytes": "for each of these queues where `--queue-occupancy-bytes` is known",
    "int_queue_occupancy_max_bytes": "for each of these queues where `--queue-occupancy-bytes` is known",
    "int_egress_port_tx_utilization": "for each port that told its TX utilization",
    "int_egress_port_tx_utilization_ratio": "for each of these ports where `--tx-utilization-full` is known",
}
"""Where a metric is not always there: for what."""


def _shown(found: Iterable[Any]) -> set[str]:
    """The names of those that have a value."""
    return {s.metric.name for s in found if len(s.totals if isinstance(s, series.Histogram) else s.values)}


def metrics() -> Iterator[str]:
    by_relay = {n for n in series.METRICS if n.startswith("int_relay_")}
    by_both = relay.SHOWN | {n for n in series.METRICS if n.startswith("int_exporter_")} | {"int_changes_total"}
    always = _shown(series.scrape(State(), Config(), {})) | {"int_changes_total"}
    complete("WHEN", WHEN, set(series.METRICS) - always - (by_relay - {"int_relay_lag_messages"}))
    complete("LABELS", LABELS, {label for metric in series.METRICS.values() for label in metric.labels})
    yield "# Metrics"
    yield ""
    yield from paragraph(
        "What `/metrics` shows to Prometheus. The last column says by what: a collector (`run`), a relay",
        "([`relay`](../scaling.md#events-kafka-and-relays)), and for what there is a series; nothing behind it: it "
        "is always there.",
        "What a value without unit counts in, and what is not known and therefore not shown, is in",
        "[exporters.md](../exporters.md#units).",
    )
    rows = []
    for metric in series.METRICS.values():
        who = "relay" if metric.name in by_relay else "run, relay" if metric.name in by_both else "run"
        when = WHEN.get(metric.name)
        rows.append(
            (
                f"`{metric.name}`", metric.kind, code(metric.labels), metric.unit, marked(metric.help),
                f"{who}: {when}" if when else who,
            )
        )  # fmt: skip
    yield from table(("metric", "kind", "labels", "unit", "what it is", "shown by"), rows)
    yield from paragraph(
        "A histogram is shown as `_bucket`, `_sum` and `_count`, as Prometheus has it.",
    )
    yield "## Labels"
    yield ""
    yield from table(("label", "what it is"), ((f"`{label}`", text) for label, text in LABELS.items()))


# --- outcomes ---------------------------------------------------------------------------------------------------------

KINDS = {
    "report": ("Kept", "Reports that were read. They are consumed, unless `--accepted-verdict pass` is given."),
    "malformed": (
        "Refused",
        "Packets to the report port in which something contradicts itself. Nothing of them is kept, and they are "
        "handed on "
        "to the network stack, unless `--malformed-verdict drop` is given.",
    ),
    "undecoded": ("Given up", "What could not be decoded for want of room."),
    "passed": (
        "Passed on",
        "Packets that are not for the collector. They go on untouched, whatever is set: this is all other traffic of "
        "the "
        "interface.",
    ),
}  # fmt: skip


def outcomes() -> Iterator[str]:
    complete("MEANINGS", MEANINGS, OUTCOMES)
    complete("KINDS", KINDS, {meaning.kind for meaning in MEANINGS.values()})
    yield "# Outcomes"
    yield ""
    yield from paragraph(
        "Every packet that comes in at the interface ends in exactly one outcome, and is counted there:",
        '`int_packets_total{outcome="..."}`, the page, `intcollector top`, and `decode` for each packet of a '
        "capture. The order",
        "in which they are decided is in [wire.md](../wire.md).",
    )
    for kind, (title, text) in KINDS.items():
        yield f"## {title}"
        yield ""
        yield text
        yield ""
        rows = (
            (f"`{name}`", marked(meaning.says), marked(meaning.cause))
            for name, meaning in MEANINGS.items()
            if meaning.kind == kind
        )
        yield from table(("outcome", "what it means", "what is usually behind it, and what to do"), rows)


# --- records ----------------------------------------------------------------------------------------------------------

REPORT = {
    "version": "Of the Telemetry Report header: `\"0.5\"`, `\"1.0\"` or `\"2.0\"`.",
    "source": "The exporter: source address of the outer IP header.",
    "switch_id": "Of the report header: the reporting switch. Null in 0.5, whose header has none.",
    "hw_id": "Of the report header: the part of the switch that reported.",
    "sequence_number": "Of the report header.",
    "ingress_timestamp": "Of the report header; null in 2.0, where it is metadata.",
    "dropped": "Bit D: the packet was dropped.",
    "congested_queue": "Bit Q: it met a congested queue.",
    "tracked_flow": "Bit F: its flow is one that is watched.",
    "intermediate": "Bit I, of 2.0: from a switch within the path.",
    "local_hop": "What the reporting switch says of itself outside the stack: only the fields it sent, as it sent "
    "them. All "
    "ones stay a number here (a drop report with `egress_port_id` 65535). Null: it sent none.",
    "flow": "The packet that the report is about, [below](#flow). Null: there is none.",
    "int": "The INT header and its stack, [below](#int). Null: there is no INT.",
}  # fmt: skip
FLOW = {
    "vlan_ids": "Outermost first.",
    "ip_version": "4 or 6; null where it is no IP packet, as ARP. Then all below are null too.",
    "source": "Its source address.",
    "destination": "Its destination address.",
    "protocol": "Its IP protocol number; the original one, where an INT 2.x shim keeps it.",
    "source_port": "Null where it has no ports.",
    "destination_port": "Null where it has no ports; the original one, where an INT 2.x shim keeps it.",
    "dscp": "Its DSCP.",
}
INT = {
    "version": "`\"0.5\"`, `\"1.0\"` or `\"2.x\"`.",
    "mode": "`\"MD\"`, or `\"MX\"`: instructions only, no stack.",
    "instruction_bitmap": "What each hop was asked for: `\"0x\"` and four hex digits.",
    "hop_ml": "Words a hop, as in the header; null where it has none (0.5, MX).",
    "remaining_hop_count": "As in the header; null where it has none (0.5, MX).",
    "hop_count": "Hops on the wire, also where fewer are kept.",
    "hops": "One object a hop, the one nearest the sink first: the [fields](#hops) that the bitmap asks for, in bit "
    "order. "
    "Null: all ones, the switch had no value.",
    "latency": "The sum of all `hop_latency` that are there; null: none is.",
    "hops_truncated": "True, and only there where `hops` holds fewer than `hop_count`.",
}  # fmt: skip
HOP = {
    "switch_id": "The switch.",
    "ingress_port_id": "The port by which the packet came in.",
    "egress_port_id": "The port by which it left.",
    "hop_latency": "The time it took within the switch.",
    "queue_id": "The queue it waited in.",
    "queue_occupancy": "How full that queue was.",
    "ingress_timestamp": "When it came in, by the switch's clock.",
    "egress_timestamp": "When it left, by the switch's clock.",
    "l2_ingress_port_id": "The logical port by which it came in.",
    "l2_egress_port_id": "The logical port by which it left.",
    "egress_port_tx_utilization": "How busy the egress port was.",
    "buffer_id": "The buffer it waited in.",
    "buffer_occupancy": "How full that buffer was.",
    "checksum_complement": "What keeps the checksum of the packet right.",
    "congested_queue_id": "INT 0.5's name for a queue that was congested.",
    "queue_congestion": "INT 0.5: how congested it was.",
    "drop_queue_id": "The queue at which it was dropped.",
    "drop_reason": "The number of the reason why it was dropped.",
}
EVENT = {
    "received_ns": ("all", "When the report came in, ns since 1970 by the host's clock."),
    "changes": ("all", "What was news, [words](../exporters.md#what-is-an-event); of a hop as `{\"hop\": 0, \"what\": "
                "\"hop_latency\"}`, hop 0 being nearest the sink and `\"local\"` the reporting switch itself."),
    "time_unit": ("where it is not ns", "What times and latencies of this record are counted in: `us`, `ms` or "
    "`2^-32s`."),
    "flow_latency": ("stacks with `hops_truncated`", "The sum over all hops, those that are not kept included; null "
    "where one "
                     "of these had no latency."),
    "drop_reason": ("drop reports", "The reason's name, or its number as text; null where the switch gave none."),
    "postcards": ("[postcards](../postcards.md)", "What the switches said of the flow: `hop_count`, `hops` "
                  f"(nearest the sink first, of each {code(series.PLACE_FIELDS)}), `latency`."),
}  # fmt: skip

EXAMPLE = Traffic(packets=1, flows=1, hops=2, instructions=0xB000, tcp=0.0, event_rate=0.0)
SPELLED = "--packets 1 --flows 1 --hops 2 --instructions 0xB000 --tcp 0 --event-rate 0"
"""EXAMPLE as options of `generate`."""


def _spread(value: Any, indent: int = 0) -> str:
    """JSON with what is short on one line."""
    flat = json.dumps(value)
    if len(flat) + indent < 100 or not isinstance(value, (dict, list)):
        return flat
    inner = "  " + " " * indent
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _spread(v, indent + 2) for v in value) + "\n" + " " * indent + "]"
    parts: list[str] = []
    for key, one in value.items():  # short members share a line
        text = f"{json.dumps(key)}: {_spread(one, indent + 2)}"
        last = parts[-1] if parts else ""
        if last and "\n" not in last + text and len(last) + len(text) + indent < 100:
            parts[-1] = f"{last}, {text}"
        else:
            parts.append(text)
    return "{\n" + ",\n".join(inner + part for part in parts) + "\n" + " " * indent + "}"


def records() -> Iterator[str]:
    (frame,) = traffic.frames(EXAMPLE)
    parser = cli._parser("generate")
    given = cli.options(parser.parse_args(["generate", "-o", "one.pcap", *SPELLED.split()]), Traffic)
    if Traffic(**given) != EXAMPLE:
        sys.exit(f"the example is not what {SPELLED} makes")
    answer = wire.decode(frame, Config())
    (report,) = answer["reports"]
    event = {**report, "received_ns": EXAMPLE.start_ns + 1_000, "changes": ["new_flow"]}
    (as_told,) = series.records(events.batch_of([event]), Config())
    if as_told != event:
        sys.exit(f"the example is not told as it is: {as_told}")
    complete("REPORT", REPORT, report)
    complete("FLOW", FLOW, report["flow"])
    complete("INT", set(INT) - {"hops_truncated"}, report["int"])
    of_hops = {
        n for masks in (*series.HOP_FIELDS.values(), *series.LOCAL_FIELDS.values()) for ns in masks.values() for n in ns
    }
    complete("HOP", HOP, of_hops)

    yield "# Records"
    yield ""
    yield from paragraph(
        "The same words wherever a report stands as JSON: what `decode` prints, the lines of `--jsonl`, the messages "
        "of",
        '`--kafka`. Numbers are the wire\'s own, without any unit; null is "no value".',
    )
    yield "## What decode prints"
    yield ""
    yield from paragraph(
        "A line for each packet of the capture:",
    )
    yield from table(
        ("key", "what it holds"),
        (
            ("`packet`", "Its place in the capture, from 0."),
            ("`outcome`", "What became of it: one of [outcomes.md](outcomes.md)."),
            ("`reports`", "The reports in it, [below](#a-report); none unless `outcome` is `ok` or "
             "`unknown_encapsulation`, several only of Telemetry Report 2.0."),
        ),
    )  # fmt: skip
    yield from paragraph("An example: a packet that is made,")
    yield "```sh"
    yield f".venv/bin/intcollector generate -o one.pcap {SPELLED}"
    yield "```"
    yield ""
    yield from paragraph("and what is printed of it, here on several lines:")
    yield "```sh"
    yield ".venv/bin/intcollector decode one.pcap"
    yield "```"
    yield ""
    yield "<!-- test: output: json -->"
    yield "```json"
    yield from _spread({"packet": 0} | answer).splitlines()
    yield "```"
    yield ""
    for title, fields in (("A report", REPORT), ("Flow", FLOW), ("INT", INT)):
        yield f"## {title}"
        yield ""
        yield from table(("key", "what it holds"), ((f"`{key}`", text) for key, text in fields.items()))
    yield "## Hops"
    yield ""
    yield from paragraph(
        "What a hop says, and under which bit of the instruction bitmap it is asked for, bit 0 being the first; and "
        "under which",
        "bit of the report's own bitmap (RepMdBits) the reporting switch says it in `local_hop`. Telemetry Report "
        "0.5 has no such",
        "bitmap: its drop header has ports, drop queue and reason, its switch-local header ports, latency, queue and "
        "egress",
        "timestamp.",
    )
    yield from table(
        ("field", "what it is", "INT 0.5", "INT 1.0", "INT 2.x", "report 1.0", "report 2.0"),
        (
            (
                f"`{name}`", text, *(_bit(series.HOP_FIELDS[v], name, 0x8000) for v in (5, 10, 20)),
                _bit(series.LOCAL_FIELDS[10], name, 0x20), _bit(series.LOCAL_FIELDS[20], name, 0x8000),
            )
            for name, text in HOP.items()
        ),
    )  # fmt: skip
    yield "## Events"
    yield ""
    yield from paragraph(
        "A line of `--jsonl`, or a message in Kafka, is a report, and beside its keys",
    )
    yield from table(("key", "in", "what it holds"), ((f"`{k}`", where, text) for k, (where, text) in EVENT.items()))
    yield from paragraph(
        "The report above, as the first of its flow, is told as",
    )
    yield "```json"
    yield from _spread(as_told).splitlines()
    yield "```"


def _bit(masks: Mapping[int, tuple[str, ...]], name: str, first: int) -> str:
    """The number of the bit that stands for a field."""
    return next((str(first.bit_length() - mask.bit_length()) for mask, names in masks.items() if name in names), "")


# --- the pages --------------------------------------------------------------------------------------------------------

PAGES = {"options": options, "metrics": metrics, "outcomes": outcomes, "records": records}


def page(name: str) -> str:
    title, *rest = PAGES[name]()
    note = f"<!-- made by `{COMMAND}` of the code: change that, not this page -->"
    return "\n".join([title, "", note, *rest]).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a page is not as it would be"
    )
    parser.add_argument("names", nargs="*", choices=[[], *PAGES], metavar="NAME", help=", ".join(PAGES))
    arguments = parser.parse_args()
    worst = 0
    for name in arguments.names or PAGES:
        path, text = FOLDER / f"{name}.md", page(name)
        if not arguments.check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
            continue
        have = path.read_text() if path.exists() else ""
        differs = list(difflib.unified_diff(have.splitlines(), text.splitlines(), str(path), COMMAND, lineterm="", n=0))
        print("\n".join(differs), end="\n" if differs else "")
        worst |= bool(differs)
    return worst


if __name__ == "__main__":
    sys.exit(main())
