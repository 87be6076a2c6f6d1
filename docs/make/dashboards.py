"""One description of what there is to see -> two Grafana dashboards, and the table of panels in docs/howto-grafana.md.

    .venv/bin/python -m docs.make.dashboards            # writes them
    .venv/bin/python -m docs.make.dashboards --check    # exit code 1 if what is there is not what this would write

A panel has a query for Prometheus and one for InfluxDB, or says why one of the two cannot have it: then that dashboard
does not have the panel. Ids and titles are the same in both. tests/test_dashboards.py asks every query of real servers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

DOCS = pathlib.Path(__file__).resolve().parent.parent
FOLDER = DOCS / "grafana" / "dashboards"
PAGE = DOCS / "howto-grafana.md"
BEGIN, END = "<!-- panels: written by docs/make/dashboards.py -->", "<!-- end of panels -->"

SCHEMA_VERSION = 39
"""Of Grafana 10.1 to 10.4; 11 and 12 take it, and bring it to their own."""
COLUMNS = 24
UID = "intcollector-{}"

Json: TypeAlias = dict[str, Any]


# --- the description --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Query:
    """What is asked. name: of each series, in the data source's own way to write labels."""

    text: str
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Absent:
    """Why a data source cannot tell it; one clause."""

    why: str


Asked: TypeAlias = Query | tuple[Query, ...] | Absent


@dataclasses.dataclass(frozen=True)
class Panel:
    """title; tells: a sentence for who has never seen it; kind: of KINDS; unit: Grafana's word for it.

    width: of 24 columns. steps: (from, colour), the first one from None; lines: draw them. most: the largest value
    there can be. link: the variable that a click sets, or "flow". columns: of a table, the label or column and what it
    is called, in order; other columns are left out, and the last one is sorted by. words: what a number is called, with
    its colour.
    """

    title: str
    tells: str
    kind: str
    unit: str
    prometheus: Asked
    influxdb: Asked
    width: int = 12
    height: int = 8
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),)
    lines: bool = False
    most: float | None = None
    link: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    words: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)

    def asked(self, of: str) -> tuple[Query, ...] | Absent:
        """What it asks of a data source ("prometheus", "influxdb")."""
        asked: Asked = getattr(self, of)
        return (asked,) if isinstance(asked, Query) else asked


@dataclasses.dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard; All is chosen at first. prometheus, influxdb: where its values come from."""

    name: str
    label: str
    tells: str
    prometheus: str | Absent
    influxdb: str | Absent


COUNTERS = Absent("InfluxDB gets what is news in the network, and no counters of reports or of the collector")
NO_HISTOGRAM = Absent("InfluxDB gets latencies that changed, and a quantile of those is not one of all hops")
UNIT_UNKNOWN = Absent("points hold the number as the switch sent it")

HERE = 'instance=~"$instance"'
SOURCE = f'{HERE},source=~"$source"'
SWITCH = f'{HERE},switch_id=~"$switch"'
FLOW = f'{HERE},source=~"$flow_source",destination=~"$flow_destination"'
FLOW_LABELS = "source, destination, source_port, destination_port, protocol"
FLOW_NAME = "{{source}}:{{source_port}} > {{destination}}:{{destination_port}} ({{protocol}})"
RATE = "[$__rate_interval]"

I_SWITCH = '"switch_id" =~ /^$switch$/'
I_FLOW = '"source" =~ /^$flow_source$/ AND "destination" =~ /^$flow_destination$/'
I_FLOW_TAGS = '"source", "destination", "source_port", "destination_port", "protocol"'
I_FLOW_NAME = "$tag_source:$tag_source_port > $tag_destination:$tag_destination_port ($tag_protocol)"
I_TIME = "$timeFilter"
EVERY = "time($__interval)"

MALFORMED = 'outcome!~"ok|unknown_encapsulation|undecoded|pass_.*"'
"""tests/test_rules.py holds that this names all malformed ones, also of the rules."""

NOT_SAID = Absent("points do not say which collector or which report source they are of")

VARIABLES = (
    Variable(
        "instance", "collector", "which collectors, where there are several",
        "label_values(int_packets_total, instance)", NOT_SAID,
    ),
    Variable(
        "source", "report source", "who sends the reports",
        f"label_values(int_reports_total{{{HERE}}}, source)", NOT_SAID,
    ),
    Variable(
        "switch", "switch", "which switches",
        f"label_values(int_hop_latency_seconds_count{{{HERE}}}, switch_id)",
        'SHOW TAG VALUES FROM /^int_(hop|queue|port)$/ WITH KEY = "switch_id"',
    ),
    Variable(
        "flow_source", "flow from", "flows from these addresses",
        f"label_values(int_flow_latency_seconds{{{HERE}}}, source)",
        'SHOW TAG VALUES FROM "int_flow" WITH KEY = "source"',
    ),
    Variable(
        "flow_destination", "flow to", "flows to these addresses",
        f'label_values(int_flow_latency_seconds{{{HERE},source=~"$flow_source"}}, destination)',
        # some versions of Grafana do not escape one variable's values in another's query: it goes by itself
        'SHOW TAG VALUES FROM "int_flow" WITH KEY = "destination"',
    ),
)  # fmt: skip

QUANTILES = ("0.5", "0.9", "0.99", "0.999")
"""Of `quantile`, which only Prometheus has; the third is chosen at first."""

GREEN, ORANGE, RED = "green", "orange", "red"
NONE_IS_GOOD = ((None, GREEN), (1e-9, RED))
UP = {"0": ("down", RED), "1": ("up", GREEN)}
FLOW_COLUMNS = {
    "source": "from", "source_port": "port", "destination": "to", "destination_port": "port there",
    "protocol": "protocol",
}  # fmt: skip
QUEUE_COLUMNS = {"switch_id": "switch", "queue_id": "queue"}

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Now",
        (
            Panel(
                "Reports a second", "How many telemetry reports come in.", "stat", "short",
                Query(f"sum(rate(int_reports_total{{{SOURCE}}}{RATE}))"), COUNTERS, width=4, height=5,
            ),
            Panel(
                "Reports lost",
                "Share of the reports that were sent and did not arrive, by the gaps in their sequence numbers.",
                "stat", "percentunit",
                Query(
                    f"sum(rate(int_reports_lost_total{{{SOURCE}}}{RATE})) / (sum(rate(int_reports_lost_total"
                    f"{{{SOURCE}}}{RATE})) + sum(rate(int_reports_total{{{SOURCE}}}{RATE})))"
                ),
                COUNTERS, width=4, height=5, steps=((None, GREEN), (0.001, ORANGE), (0.01, RED)),
            ),
            Panel(
                "Malformed a second", "Packets to the report port that are no report as it should be.", "stat", "short",
                Query(f'sum(rate(int_packets_total{{{HERE},{MALFORMED}}}{RATE}))'),
                COUNTERS, width=4, height=5, steps=NONE_IS_GOOD,
            ),
            Panel(
                "Path changes", "How often a flow took another way, in the time that is shown.", "stat", "short",
                Query(f'sum(increase(int_changes_total{{{HERE},change="path"}}[$__range]))'),
                Absent("the database cannot compare one path with the next; see Flows that changed their path"),
                width=4, height=5,
            ),
            Panel(
                "Flows that changed their path",
                "Flows of which more than one path was told in the time that is shown.", "stat", "short",
                Absent("a path is no label: every path would be a new series"),
                Query(
                    f'SELECT count("paths") AS "flows" FROM (SELECT count(distinct("path")) AS "paths" FROM "int_flow" '
                    f"WHERE {I_FLOW} AND {I_TIME} GROUP BY {I_FLOW_TAGS}) WHERE \"paths\" > 1"
                ),
                width=6, height=5,
            ),
            Panel(
                "Flows", "Flows that are known: of Prometheus those kept now, of InfluxDB those told of in the time "
                "that is shown.", "stat", "short",
                Query(f"sum(int_flows{{{HERE}}})"),
                Query(
                    f'SELECT count("latency") AS "flows" FROM (SELECT last("latency") AS "latency" FROM "int_flow" '
                    f"WHERE {I_FLOW} AND {I_TIME} GROUP BY {I_FLOW_TAGS})"
                ),
                width=4, height=5,
            ),
            Panel(
                "Exporters that do not deliver", "Databases and files that take nothing at the moment.",
                "stat", "short",
                Query(f"count(int_exporter_up{{{HERE}}} == 0) or vector(0)"),
                COUNTERS, width=4, height=5, steps=((None, GREEN), (1, RED)),
            ),
        ),
    ),
    (
        "Reports",
        (
            Panel(
                "Reports by source", "Who sends how many reports a second.", "lines", "short",
                Query(
                    f"sum by (source, switch_id) (rate(int_reports_total{{{SOURCE}}}{RATE}))",
                    "{{source}} switch {{switch_id}}",
                ),
                COUNTERS, link="source",
            ),
            Panel(
                "Reports lost by source", "Share of a source's reports that did not arrive.", "lines", "percentunit",
                Query(
                    f"sum by (source, switch_id) (rate(int_reports_lost_total{{{SOURCE}}}{RATE})) / "
                    f"(sum by (source, switch_id) (rate(int_reports_lost_total{{{SOURCE}}}{RATE})) + "
                    f"sum by (source, switch_id) (rate(int_reports_total{{{SOURCE}}}{RATE})))",
                    "{{source}} switch {{switch_id}}",
                ),
                COUNTERS, link="source", steps=((None, GREEN), (0.001, ORANGE), (0.01, RED)), lines=True,
            ),
            Panel(
                "Reports out of order, twice, anew",
                "Reports a second that came after later ones or came twice, and how often a source began to count "
                "anew.", "lines", "short",
                (
                    Query(f"sum by (source) (rate(int_reports_reordered_total{{{SOURCE}}}{RATE}))",
                          "{{source}} out of order"),
                    Query(f"sum by (source) (rate(int_reports_duplicated_total{{{SOURCE}}}{RATE}))",
                          "{{source}} twice"),
                    Query(f"sum by (source) (rate(int_reports_restarted_total{{{SOURCE}}}{RATE}))",
                          "{{source}} began anew"),
                ),
                COUNTERS, width=8, link="source",
            ),
            Panel(
                "Packets by outcome",
                "What became of every packet on the interface: ok and unknown_encapsulation are reports; pass_... was "
                "not for the collector and was handed on; undecoded found no room; all others are malformed.",
                "lines", "short",
                Query(f"sum by (outcome) (rate(int_packets_total{{{HERE}}}{RATE})) > 0", "{{outcome}}"),
                COUNTERS, width=8,
            ),
            Panel(
                "Malformed reports by outcome", "What is wrong with the reports that cannot be read.", "lines", "short",
                Query(
                    f'sum by (outcome) (rate(int_packets_total{{{HERE},{MALFORMED}}}{RATE})) > 0',
                    "{{outcome}}",
                ),
                COUNTERS, width=8,
            ),
        ),
    ),
    (
        "News",
        (
            Panel(
                "Events a second",
                "An event is a report with something new in it. Told: those that were handed to databases. Lost: those "
                "for which there was no room on the way from the kernel.",
                "lines", "short",
                (
                    Query(f"sum(rate(int_events_total{{{HERE}}}{RATE}))", "told"),
                    Query(f"sum(rate(int_events_lost_total{{{HERE}}}{RATE}))", "lost"),
                ),
                COUNTERS,
            ),
            Panel(
                "What was news", "What the events told, a second: path is a flow that took another way.",
                "lines", "short",
                Query(f"sum by (change) (rate(int_changes_total{{{HERE}}}{RATE}))", "{{change}}"),
                Absent("points hold values, and not why they were told; see Points stored"),
            ),
            Panel(
                "Points stored", "How many points were written in each interval: of flows, hops, queues and ports.",
                "lines", "short",
                Absent("it is what the database holds; see Exporters: points"),
                (
                    Query(f'SELECT count("latency") FROM "int_flow" WHERE {I_TIME} GROUP BY {EVERY} fill(0)', "flows"),
                    Query(f'SELECT count("latency") FROM "int_hop" WHERE {I_TIME} GROUP BY {EVERY} fill(0)', "hops"),
                    Query(f'SELECT count("occupancy") FROM "int_queue" WHERE {I_TIME} GROUP BY {EVERY} fill(0)',
                          "queues"),
                    Query(f'SELECT count("tx_utilization") FROM "int_port" WHERE {I_TIME} GROUP BY {EVERY} fill(0)',
                          "ports"),
                ),
                width=24,
            ),
        ),
    ),
    (
        "Flows",
        (
            Panel(
                "Slowest flows", "The flows whose last packet spent most time in the switches on its way.",
                "table", "s",
                Query(f"topk(10, max by ({FLOW_LABELS}) (int_flow_latency_seconds{{{FLOW}}}))"),
                Query(
                    f'SELECT top("latency", {I_FLOW_TAGS}, 10) FROM (SELECT last("latency") AS "latency" FROM '
                    f'"int_flow" WHERE {I_FLOW} AND {I_TIME} GROUP BY {I_FLOW_TAGS})'
                ),
                link="flow", columns={**FLOW_COLUMNS, "Value": "latency", "top": "latency"},
            ),
            Panel(
                "Flow latency",
                "Time that a flow's packets spent in all switches of their path together; of Prometheus the 20 "
                "slowest at each moment, of InfluxDB up to 50 flows: choose flows at the top.", "lines", "s",
                Query(f"topk(20, max by ({FLOW_LABELS}) (int_flow_latency_seconds{{{FLOW}}}))", FLOW_NAME),
                Query(
                    f'SELECT max("latency") FROM "int_flow" WHERE {I_FLOW} AND {I_TIME} '
                    f"GROUP BY {EVERY}, {I_FLOW_TAGS} fill(none) SLIMIT 50",
                    I_FLOW_NAME,
                ),
            ),
            Panel(
                "Paths",
                "Which way each flow took last, switch by switch, and how many ways were told of it in the time that "
                "is shown: more than one means that it changed.", "table", "short",
                Absent("a path is no label: every path would be a new series"),
                Query(
                    f'SELECT last("path") AS "path", count(distinct("path")) AS "paths" FROM "int_flow" WHERE {I_FLOW} '
                    f"AND {I_TIME} GROUP BY {I_FLOW_TAGS} SLIMIT 500"
                ),
                width=24, link="flow", columns={**FLOW_COLUMNS, "path": "path", "paths": "paths"},
            ),
            Panel(
                "Flows kept", "Flows that the collector keeps, and those of them that are left out of per-flow series, "
                "since there are more than --max-flow-series.", "lines", "short",
                (
                    Query(f"sum(int_flows{{{HERE}}})", "kept"),
                    Query(f"sum(int_flow_series_omitted{{{HERE}}})", "left out"),
                ),
                COUNTERS,
            ),
            Panel(
                "Flow latency by switch",
                "Where the time goes: the largest latency that a flow's last packet had in each switch, of the flows "
                "chosen at the top.", "lines", "s",
                Query(
                    f'max by (switch_id) (int_flow_hop_latency_seconds{{{FLOW},switch_id=~"$switch"}})',
                    "switch {{switch_id}}",
                ),
                Query(
                    f'SELECT max("latency") FROM "int_hop" WHERE {I_FLOW} AND {I_SWITCH} AND {I_TIME} '
                    f'GROUP BY {EVERY}, "switch_id" fill(none)',
                    "switch $tag_switch_id",
                ),
                link="switch",
            ),
        ),
    ),
    (
        "Switches",
        (
            Panel(
                "Hop latency quantile by switch",
                "The chosen share of all packets (0.99: 99 of 100) spent at most this long in the switch. It is read "
                "from buckets that double in width, so the true value may be up to half of it or twice as large.",
                "lines", "s",
                Query(
                    f"histogram_quantile($quantile, sum by (switch_id, le) (rate(int_hop_latency_seconds_bucket"
                    f"{{{SWITCH}}}{RATE})))",
                    "switch {{switch_id}}",
                ),
                NO_HISTOGRAM, link="switch",
            ),
            Panel(
                "Mean hop latency by switch", "Time that a packet spends in the switch, on average over all packets.",
                "lines", "s",
                Query(
                    f"sum by (switch_id) (rate(int_hop_latency_seconds_sum{{{SWITCH}}}{RATE})) / "
                    f"sum by (switch_id) (rate(int_hop_latency_seconds_count{{{SWITCH}}}{RATE}))",
                    "switch {{switch_id}}",
                ),
                NO_HISTOGRAM, link="switch",
            ),
            Panel(
                "Hop latencies", "How many packets a second spent how long in the switches chosen at the top: the "
                "darker, the more.", "heat", "s",
                Query(f"sum by (le) (rate(int_hop_latency_seconds_bucket{{{SWITCH}}}{RATE}))", "{{le}}"),
                NO_HISTOGRAM,
            ),
            Panel(
                "Hops a second by switch", "How many packets were reported to have gone through a switch.",
                "lines", "short",
                Query(
                    f"sum by (switch_id) (rate(int_hop_latency_seconds_count{{{SWITCH}}}{RATE}) + "
                    f"rate(int_hops_without_latency_total{{{SWITCH}}}{RATE}))",
                    "switch {{switch_id}}",
                ),
                NO_HISTOGRAM, link="switch",
            ),
        ),
    ),
    (
        "Queues and ports",
        (
            Panel(
                "Fullest queues", "Queues in which most was waiting when they were reported last, in the switch's own "
                "unit.", "table", "short",
                Query(f"topk(10, max by (switch_id, queue_id) (int_queue_occupancy{{{SWITCH}}}))"),
                Query(
                    'SELECT top("occupancy", "switch_id", "queue_id", 10) FROM (SELECT last("occupancy") AS '
                    f'"occupancy" FROM "int_queue" WHERE {I_SWITCH} AND {I_TIME} GROUP BY "switch_id", "queue_id")'
                ),
                width=8, link="switch", columns={**QUEUE_COLUMNS, "Value": "occupancy", "top": "occupancy"},
            ),
            Panel(
                "Fullest queues ever", "The most that was ever waiting in a queue: of Prometheus since the collector "
                "started, of InfluxDB what was told in the time that is shown.", "table", "short",
                Query(f"topk(10, max by (switch_id, queue_id) (int_queue_occupancy_max{{{SWITCH}}}))"),
                Query(
                    f'SELECT top("occupancy", "switch_id", "queue_id", 10) FROM "int_queue" '
                    f"WHERE {I_SWITCH} AND {I_TIME}"
                ),
                width=8, link="switch", columns={**QUEUE_COLUMNS, "Value": "occupancy", "top": "occupancy"},
            ),
            Panel(
                "Queue occupancy",
                "What waits in queues, in the switch's own unit; of Prometheus the 20 fullest at each moment, of "
                "InfluxDB up to 50: choose switches at the top.", "lines", "short",
                Query(
                    f"topk(20, max by (switch_id, queue_id) (int_queue_occupancy{{{SWITCH}}}))",
                    "switch {{switch_id}} queue {{queue_id}}",
                ),
                Query(
                    f'SELECT max("occupancy") FROM "int_queue" WHERE {I_SWITCH} AND {I_TIME} '
                    f'GROUP BY {EVERY}, "switch_id", "queue_id" fill(none) SLIMIT 50',
                    "switch $tag_switch_id queue $tag_queue_id",
                ),
                width=8, link="switch",
            ),
            Panel(
                "Queue occupancy in bytes", "The same in bytes, of the sources for which --queue-occupancy-bytes says "
                "what the unit is.", "lines", "bytes",
                Query(
                    f"topk(20, max by (switch_id, queue_id) (int_queue_occupancy_bytes{{{SWITCH}}}))",
                    "switch {{switch_id}} queue {{queue_id}}",
                ),
                UNIT_UNKNOWN, width=8, link="switch",
            ),
            Panel(
                "Port utilization",
                "How busy the ports are that packets left by, in the switch's own unit; of Prometheus the 20 "
                "busiest at each moment, of InfluxDB up to 50.", "lines", "short",
                Query(
                    f"topk(20, max by (switch_id, egress_port_id) (int_egress_port_tx_utilization{{{SWITCH}}}))",
                    "switch {{switch_id}} port {{egress_port_id}}",
                ),
                Query(
                    f'SELECT max("tx_utilization") FROM "int_port" WHERE {I_SWITCH} AND {I_TIME} '
                    f'GROUP BY {EVERY}, "switch_id", "egress_port_id" fill(none) SLIMIT 50',
                    "switch $tag_switch_id port $tag_egress_port_id",
                ),
                width=8, link="switch",
            ),
            Panel(
                "Port utilization of line rate", "Share of what a port can carry, of the sources for which "
                "--tx-utilization-full says what a full port sends.", "lines", "percentunit",
                Query(
                    f"topk(20, max by (switch_id, egress_port_id) (int_egress_port_tx_utilization_ratio{{{SWITCH}}}))",
                    "switch {{switch_id}} port {{egress_port_id}}",
                ),
                UNIT_UNKNOWN, width=8, most=1, link="switch",
                steps=((None, GREEN), (0.7, ORANGE), (0.9, RED)), lines=True,
            ),
        ),
    ),
    (
        "Dropped packets",
        (
            Panel(
                "Dropped packets by switch and reason",
                "Packets a second of which a switch reported that it dropped them, and why.", "lines", "short",
                Query(
                    f"sum by (switch_id, reason) (rate(int_dropped_packets_total{{{SWITCH}}}{RATE}))",
                    "switch {{switch_id}} {{reason}}",
                ),
                Absent("a report of a dropped packet makes no point; Kafka and JSON lines have it"),
                link="switch",
            ),
            Panel(
                "Most dropped packets", "Which switches dropped most packets in the time that is shown, and why.",
                "table", "short",
                Query(
                    "topk(10, sum by (switch_id, reason) "
                    f"(increase(int_dropped_packets_total{{{SWITCH}}}[$__range])))"
                ),
                Absent("a report of a dropped packet makes no point; Kafka and JSON lines have it"),
                link="switch", columns={"switch_id": "switch", "reason": "reason", "Value": "packets"},
            ),
        ),
    ),
    (
        "Collector",
        (
            Panel(
                "Exporters: up", "Whether what an exporter sends to takes points.", "states", "short",
                Query(f"int_exporter_up{{{HERE}}}", "{{instance}} {{exporter}}"),
                COUNTERS, width=8, steps=((None, RED), (1, GREEN)), words=UP,
            ),
            Panel(
                "Exporters: points", "Points a second that were delivered, and that were lost, by reason.",
                "lines", "short",
                (
                    Query(f"sum by (exporter) (rate(int_exporter_points_delivered_total{{{HERE}}}{RATE}))",
                          "{{exporter}} delivered"),
                    Query(f"sum by (exporter, reason) (rate(int_exporter_points_lost_total{{{HERE}}}{RATE}))",
                          "{{exporter}} lost: {{reason}}"),
                ),
                COUNTERS, width=8,
            ),
            Panel(
                "Exporters: how far behind", "How long the oldest point has been waiting that is not delivered yet.",
                "lines", "s",
                Query(
                    f"max by (instance, exporter) (int_exporter_oldest_point_age_seconds{{{HERE}}})",
                    "{{instance}} {{exporter}}",
                ),
                COUNTERS, width=8, steps=((None, GREEN), (60, RED)), lines=True,
            ),
            Panel(
                "Exporters: points waiting", "Points that are kept to be delivered, in memory and on disk.",
                "lines", "short",
                Query(
                    f"sum by (instance, exporter) (int_exporter_buffer_points{{{HERE}}})", "{{instance}} {{exporter}}"
                ),
                COUNTERS, width=8,
            ),
            Panel(
                "Exporters: room taken", "Memory and disk space of the points that wait.", "lines", "bytes",
                (
                    Query(f"sum by (instance, exporter) (int_exporter_buffer_bytes{{{HERE}}})",
                          "{{instance}} {{exporter}} memory"),
                    Query(f"sum by (instance, exporter) (int_exporter_spool_bytes{{{HERE}}})",
                          "{{instance}} {{exporter}} disk"),
                ),
                COUNTERS, width=8,
            ),
            Panel(
                "No room in tables",
                "Reports that told of something new for which a table of the collector was full, or that found "
                "no room on the way to another CPU, since the start.", "lines", "short",
                Query(
                    f'sum by (__name__) ({{__name__=~"int_(flows|points|sources|drops|places)_refused_total|'
                    f'int_reports_lost_between_cpus_total",{HERE}}})',
                    "{{__name__}}",
                ),
                COUNTERS, width=8,
            ),
            Panel(
                "CPU of the collector's process",
                "Processor time of the process; 100 % is one CPU. What its program does in the kernel counts as the "
                "network's.", "lines", "percentunit",
                Query(
                    f"rate(process_cpu_seconds_total{{{HERE}}}{RATE}) and on (instance) int_events_total",
                    "{{instance}}",
                ),
                COUNTERS,
            ),
            Panel(
                "Memory of the collector's process", "Memory that the process holds, without the kernel's tables.",
                "lines", "bytes",
                Query(f"process_resident_memory_bytes{{{HERE}}} and on (instance) int_events_total", "{{instance}}"),
                COUNTERS,
            ),
        ),
    ),
)  # fmt: skip


def panels() -> Iterator[Panel]:
    """All, in order."""
    for _, of_row in ROWS:
        yield from of_row


# --- Grafana's words --------------------------------------------------------------------------------------------------

SOURCES = {"prometheus": "Prometheus", "influxdb": "InfluxDB"}
"""Grafana's type of a data source -> its name."""

LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}

KINDS: Mapping[str, tuple[str, Json, Json]] = {
    "stat": (
        "stat",
        {"reduceOptions": LAST, "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "value",
         "orientation": "auto"},
        {},
    ),
    "lines": (
        "timeseries",
        {"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
        {"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 5, "showPoints": "auto",
         "spanNulls": False, "stacking": {"mode": "none", "group": "A"}},
    ),
    "table": (
        "table",
        {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": [], "countRows": False}},
        {"align": "auto", "inspect": False},
    ),
    "heat": (
        "heatmap",
        {"calculate": False, "cellGap": 1, "showValue": "never", "filterValues": {"le": 1e-9},
         "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "exponent": 0.5, "steps": 64,
                   "reverse": False, "scale": "exponential"},
         "yAxis": {"axisPlacement": "left", "unit": "s"}, "rowsFrame": {"layout": "auto"},
         "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
         "exemplars": {"color": "rgba(255,0,255,0.7)"}},
        {"hideFrom": {"legend": False, "tooltip": False, "viz": False}},
    ),
    "states": (
        "state-timeline",
        {"mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.9, "legend": LEGEND,
         "tooltip": {"mode": "single", "sort": "none"}},
        {"lineWidth": 0, "fillOpacity": 70},
    ),
}  # fmt: skip
"""What a kind of panel is in Grafana: (type, options, custom field options)."""


PROMETHEUS_VARIABLE = {"qryType": 1, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
"""What Grafana's editor writes beside the query of a variable of this kind, label_values()."""


def source_of(of: str) -> Json:
    """The data source that is chosen at the top."""
    return {"type": of, "uid": "${datasource}"}


def target(of: str, panel: Panel, query: Query, ref_id: str) -> Json:
    """A query, as a panel of Grafana has it."""
    base = {"refId": ref_id, "datasource": source_of(of)}
    if of == "influxdb":
        return {
            **base,
            "rawQuery": True,
            "query": query.text,
            "resultFormat": "table" if panel.kind == "table" else "time_series",
            **({"alias": query.name} if query.name else {}),
        }
    # What is asked over a whole range is asked once, at its end.
    instant = panel.kind == "table" or "$__range" in query.text
    return {
        **base,
        "editorMode": "code",
        "expr": query.text,
        "legendFormat": query.name or "__auto",
        "format": {"table": "table", "heat": "heatmap"}.get(panel.kind, "time_series"),
        "instant": instant,
        "range": not instant,
    }


def links(of: str, panel: Panel) -> list[Json]:
    """What a click on a value leads to: this dashboard, with what was clicked chosen."""
    table = panel.kind == "table"

    def value(label: str) -> str:
        return f"${{__data.fields.{panel.columns.get(label, label)}}}" if table else f"${{__field.labels.{label}}}"

    if panel.link == "flow":
        title, chosen = "This flow's addresses", {"flow_source": "source", "flow_destination": "destination"}
    elif panel.link:
        label = {"switch": "switch_id"}.get(panel.link, panel.link)
        title, chosen = f"This {panel.link} alone", {panel.link: label}
    else:
        return []
    arguments = "".join(f"&var-{variable}={value(label)}" for variable, label in chosen.items())
    url = f"/d/{UID.format(of)}?${{__url_time_range}}&${{datasource:queryparam}}{arguments}"
    return [{"title": title, "url": url, "targetBlank": False}]


def transformations(of: str, panel: Panel) -> list[Json]:
    """A table's columns, named and in order; all others left out."""
    columns = {
        column: name for column, name in panel.columns.items() if column != ("top" if of == "prometheus" else "Value")
    }
    organize = {
        "id": "organize",
        "options": {
            "indexByName": {column: at for at, column in enumerate(columns)},
            "renameByName": columns,
            "includeByName": dict.fromkeys(columns, True),
            "excludeByName": {"Time": True, "time": True},
        },
    }
    # InfluxDB answers with a table a series: one of them all.
    return [{"id": "merge", "options": {}}, organize] if of == "influxdb" else [organize]


def field_config(of: str, panel: Panel, custom: Json) -> Json:
    """How values are shown."""
    own = dict(custom)
    if panel.lines:
        own["thresholdsStyle"] = {"mode": "line"}
    defaults: Json = {
        "unit": panel.unit if panel.kind != "table" else "none",
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind == "lines" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        },
        "custom": own,
        "links": links(of, panel),
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "table":
        del defaults["min"]
    if panel.words:
        options = {value: {"text": text, "color": colour, "index": at}
                   for at, (value, (text, colour)) in enumerate(panel.words.items())}  # fmt: skip
        defaults["mappings"] = [{"type": "value", "options": options}]
    overrides = []
    if panel.kind == "table" and panel.unit != "short":
        (value,) = {name for column, name in panel.columns.items() if column in ("Value", "top")}
        overrides.append(
            {
                "matcher": {"id": "byName", "options": value},
                "properties": [{"id": "unit", "value": panel.unit}],
            }
        )
    return {"defaults": defaults, "overrides": overrides}


def panel_json(of: str, panel: Panel, number: int, x: int, y: int) -> Json:
    """One panel."""
    kind, options, custom = KINDS[panel.kind]
    asked = panel.asked(of)
    assert not isinstance(asked, Absent)
    out: Json = {
        "id": number,
        "type": kind,
        "title": panel.title,
        "description": panel.tells,
        "datasource": source_of(of),
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": [target(of, panel, query, chr(ord("A") + at)) for at, query in enumerate(asked)],
        "options": options,
        "fieldConfig": field_config(of, panel, custom),
    }
    if panel.kind == "table":
        out["transformations"] = transformations(of, panel)
        value = list(panel.columns.values())[-1]
        out["options"] = {**options, "sortBy": [{"displayName": value, "desc": True}]}
    return out


def placed(of: str) -> Iterator[Json]:
    """Rows and panels, from the left and downwards; the last one of a line takes what is left of it."""
    number, y = 0, 0
    for title, of_row in ROWS:
        number += 1
        row_number = number
        numbered = list(enumerate(of_row, number + 1))
        number += len(of_row)
        there = [(at, panel) for at, panel in numbered if not isinstance(panel.asked(of), Absent)]
        if not there:
            continue
        yield {
            "id": row_number, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }  # fmt: skip
        y += 1
        lines: list[list[tuple[int, Panel]]] = [[]]
        for one in there:
            if sum(panel.width for _, panel in lines[-1]) + one[1].width > COLUMNS:
                lines.append([])
            lines[-1].append(one)
        for line in lines:
            x = 0
            spare = COLUMNS - sum(panel.width for _, panel in line)
            for place, (at, panel) in enumerate(line):
                # what an absent neighbour leaves free is shared out
                more = spare * (place + 1) // len(line) - spare * place // len(line)
                wide = dataclasses.replace(panel, width=panel.width + more)
                yield panel_json(of, wide, at, x, y)
                x += wide.width
            y += max(panel.height for _, panel in line)


def variables(of: str) -> Iterator[Json]:
    """What is chosen at the top."""
    yield {
        "type": "datasource", "name": "datasource", "label": "data source", "query": of, "hide": 0, "refresh": 1,
        "regex": "", "multi": False, "includeAll": False, "options": [], "current": {},
        "description": "which database is asked",
    }  # fmt: skip
    for variable in VARIABLES:
        query = getattr(variable, of)
        if isinstance(query, Absent):
            continue
        yield {
            "type": "query",
            "name": variable.name,
            "label": variable.label,
            "description": variable.tells,
            "datasource": source_of(of),
            "query": PROMETHEUS_VARIABLE | {"query": query} if of == "prometheus" else query,
            "definition": query,
            "hide": 0,
            "refresh": 2,  # when the time range changes
            "regex": "",
            "sort": 7,  # by number and alphabet, ascending
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "options": [],
        }
    if of == "prometheus":
        yield {
            "type": "custom",
            "name": "quantile",
            "label": "quantile",
            "description": "of hop latencies",
            "query": ",".join(QUANTILES),
            "hide": 0,
            "multi": False,
            "includeAll": False,
            "current": {"text": QUANTILES[2], "value": QUANTILES[2]},
            "options": [{"text": q, "value": q, "selected": q == QUANTILES[2]} for q in QUANTILES],
        }


def dashboard(of: str) -> Json:
    """A whole dashboard, of "prometheus" or "influxdb"."""
    return {
        "uid": UID.format(of),
        "title": f"INT: {SOURCES[of]}",
        "description": f"What In-band Network Telemetry tells, from what intcollector left in {SOURCES[of]}.",
        "tags": ["intcollector"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "graphTooltip": 1,  # the cursor is seen in all panels
        "time": {"from": "now-15m", "to": "now"},
        "refresh": "10s",
        "annotations": {"list": []},
        "templating": {"list": list(variables(of))},
        "links": [
            {
                "title": "the other dashboards", "type": "dashboards", "tags": ["intcollector"], "asDropdown": True,
                "icon": "external link", "tooltip": "", "url": "", "targetBlank": False, "includeVars": False,
                "keepTime": True,
            }
        ],
        "panels": list(placed(of)),
    }  # fmt: skip


# --- files ------------------------------------------------------------------------------------------------------------


def table() -> str:
    """The panels as a table of Markdown."""
    reasons: list[str] = []

    def has(panel: Panel, of: str) -> str:
        asked = panel.asked(of)
        if not isinstance(asked, Absent):
            return "yes"
        if asked.why not in reasons:
            reasons.append(asked.why)
        return f"no ({reasons.index(asked.why) + 1})"

    lines = ["| panel | tells | Prometheus | InfluxDB |", "|---|---|---|---|"]
    for title, of_row in ROWS:
        lines.append(f"| **{title}** | | | |")
        lines += [f"| {p.title} | {p.tells} | {' | '.join(has(p, of) for of in SOURCES)} |" for p in of_row]
    return "\n".join([*lines, "", *(f"{at}. {why[0].upper()}{why[1:]}." for at, why in enumerate(reasons, 1))])


def written() -> dict[pathlib.Path, str]:
    """What there is to write: path -> text."""
    files = {
        FOLDER / f"intcollector-{of}.json": json.dumps(dashboard(of), indent=2, ensure_ascii=False) + "\n"
        for of in SOURCES
    }
    before, _, rest = PAGE.read_text().partition(BEGIN)
    files[PAGE] = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or with --check say what is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something would change")
    check = parser.parse_args(arguments).check
    old = [path for path, text in written().items() if not path.exists() or path.read_text() != text]
    for path in old:
        print(f"{path.relative_to(DOCS.parent)}: {'is not up to date' if check else 'written'}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written()[path])
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
