"""The Grafana dashboards of docs/grafana: as Grafana wants them, and each of their queries asked of real servers."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import pathlib
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from docs.make import dashboards
from intcollector import traffic
from intcollector.series import CHANGES, METRICS
from intcollector.traffic import Traffic

from . import servers
from .collectors import Collector, Command, Metrics, network, send_frames
from .differ import VECTORS
from .needs import needs_root

GRAFANA = dashboards.DOCS / "grafana"
BOTH = {of: dashboards.dashboard(of) for of in dashboards.SOURCES}
PANELS = {of: [panel for panel in BOTH[of]["panels"] if panel["type"] != "row"] for of in BOTH}
BUILT_IN = {"__rate_interval", "__range", "__interval", "timeFilter", "datasource"}


# --- the files --------------------------------------------------------------------------------------------------------


def test_the_files_are_those_of_the_description() -> None:
    """What is in docs/ is what `python -m docs.make.dashboards` writes."""
    assert dashboards.main(["--check"]) == 0


def test_both_dashboards_are_alike() -> None:
    """A panel is in both dashboards, under one title, number and description, or it says why one of them lacks it."""
    described = list(dashboards.panels())
    assert len({panel.title for panel in described}) == len(described)
    for of, panels in PANELS.items():
        wanted = [p.title for p in described if not isinstance(p.asked(of), dashboards.Absent)]
        assert [panel["title"] for panel in panels] == wanted
    in_both = {p["title"]: p for p in PANELS["prometheus"]}.keys() & {p["title"] for p in PANELS["influxdb"]}
    assert len(in_both) >= 8
    for key in ("id", "description", "type"):
        one, other = ({p["title"]: p[key] for p in PANELS[of] if p["title"] in in_both} for of in BOTH)
        assert one == other
    for panel in described:
        assert not all(isinstance(panel.asked(of), dashboards.Absent) for of in BOTH)


@pytest.mark.parametrize("of", BOTH)
def test_the_structure(of: str) -> None:
    """Numbers are used once, panels fill the grid without covering one another, and what is asked is asked of the data
    source that is chosen, with variables that exist."""
    board = BOTH[of]
    assert len(board["uid"]) <= 40 and board["title"] and board["tags"] == ["intcollector"]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)

    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= dashboards.COLUMNS and min(at["w"], at["h"]) > 0
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
    lowest = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(dashboards.COLUMNS) for y in range(lowest)}, "there is a hole"

    variables = board["templating"]["list"]
    names = [variable["name"] for variable in variables]
    assert names[0] == "datasource" and variables[0]["query"] == of and len(set(names)) == len(names)
    known = BUILT_IN | set(names)
    for at, variable in enumerate(variables):
        if variable["type"] == "query":
            assert variable["datasource"] == {"type": of, "uid": "${datasource}"}
            earlier = BUILT_IN | set(names[:at])
            assert _variables(variable["definition"]) <= earlier, "a variable depends on one behind it"
    used: set[str] = set()
    for panel in PANELS[of]:
        assert panel["description"].endswith(".") and panel["datasource"] == {"type": of, "uid": "${datasource}"}
        ref_ids = [target["refId"] for target in panel["targets"]]
        assert ref_ids and len(set(ref_ids)) == len(ref_ids)
        assert not _variables(json.dumps(panel["fieldConfig"])) - known - {"__url_time_range", "__field", "__data"}
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None and steps[1:] == sorted(steps[1:])
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            used |= _variables(_text(target))
    assert used <= known and used >= set(names) - {"datasource"}, "what can be chosen has an effect"


@pytest.mark.parametrize("of", BOTH)
def test_grafanas_own_types_know_every_word(of: str) -> None:
    """Read and written by Grafana's published types of dashboards, panels and queries, nothing is lost or changed."""
    sdk = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="needs grafana-foundation-sdk")
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    plugins.register_default_plugins()
    read = sdk.Dashboard.from_json(json.loads(json.dumps(BOTH[of])))
    missing = _missing(BOTH[of], json.loads(json.dumps(read, cls=JSONEncoder)), of)
    # what a variable's query is called in the list of variables: the types of Grafana 11.6 do not have it, Grafana does
    assert [m for m in missing if not re.fullmatch(r"\w+\.templating\.list\[\d+\]\.definition: .*", m)] == []


def _missing(ours: Any, theirs: Any, where: str) -> list[str]:
    """Places of ours that are not the same in theirs, which may have more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [m for k, v in ours.items() for m in _missing(v, theirs.get(k, "(gone)"), f"{where}.{k}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [m for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) for m in _missing(a, b, f"{where}[{at}]")]
    return [] if ours == theirs else [f"{where}: {ours!r} became {theirs!r}"]


def test_every_metric_there_is_exists() -> None:
    """Queries for Prometheus name metrics that a collector has, and labels that these have."""
    histogram = {f"{m.name}_{part}": m for m in METRICS.values() for part in ("bucket", "sum", "count")}
    metrics = {**METRICS, **{name: m for name, m in histogram.items() if m.kind == "histogram"}}
    for panel in PANELS["prometheus"]:
        for target in panel["targets"]:
            for name, _, matchers in re.findall(r"\b(int_\w+)({([^}]*)})?", target["expr"].split("__name__=~")[0]):
                labels = {"instance", *metrics[name].labels}
                assert set(re.findall(r"(\w+)(?:=~|=|!=|!~)\"", matchers)) <= labels, panel["title"]


def test_provisioning() -> None:
    """The folder for GF_PATHS_PROVISIONING leads to both dashboards, and to a data source for each."""
    folder = GRAFANA / "provisioning"
    environment = {
        "INTCOLLECTOR_DASHBOARDS": str(GRAFANA / "dashboards"),
        "INTCOLLECTOR_PROMETHEUS_URL": "http://127.0.0.1:9090",
        "INTCOLLECTOR_INFLUXDB_URL": "http://127.0.0.1:8086",
        "INTCOLLECTOR_INFLUXDB_DATABASE": "intcollector",
        "INTCOLLECTOR_INFLUXDB_USER": "",
        "INTCOLLECTOR_INFLUXDB_PASSWORD": "",
    }
    loaded = {}
    for path in folder.glob("*/*.yaml"):
        text = "".join(line for line in path.read_text().splitlines(True) if not line.lstrip().startswith("#"))
        loaded[path.parent.name] = yaml.safe_load(string.Template(text).substitute(environment))
    (provider,) = loaded["dashboards"]["providers"]
    there = {json.loads(p.read_text())["uid"] for p in pathlib.Path(provider["options"]["path"]).glob("*.json")}
    assert there == {board["uid"] for board in BOTH.values()}
    sources = {source["type"]: source for source in loaded["datasources"]["datasources"]}
    assert sources.keys() == BOTH.keys()
    assert {source["url"] for source in sources.values()} == {v for n, v in environment.items() if n.endswith("_URL")}
    page = dashboards.PAGE.read_text()
    assert [name for name in environment if name not in page] == [], "the page says what to set"


# --- as Grafana asks --------------------------------------------------------------------------------------------------


def _variables(text: str) -> set[str]:
    return {a or b for a, b in re.findall(r"\$(?:{(\w+)|(\w+))", text)}


def _text(target: Mapping[str, Any]) -> str:
    text: str = target["expr"] if "expr" in target else target["query"]
    return text


def _chosen(values: Sequence[str] | None, escape: Callable[[str], str]) -> str:
    """What a variable becomes in a regular expression; None: All."""
    if values is None:
        return ".*"
    return escape(values[0]) if len(values) == 1 else f"({'|'.join(map(escape, values))})"


def _in_promql(value: str) -> str:
    """Escaped for a regular expression, in a string."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))


def _in_influxql(value: str) -> str:
    return re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", value)


def _interpolated(text: str, values: Mapping[str, str]) -> str:
    """With the variables' values, longest names first; none is left."""
    for name in sorted(values, key=len, reverse=True):
        text = text.replace("${" + name + "}", values[name]).replace(f"${name}", values[name])
    assert not re.search(r"\$\w", text.replace("/^.*$/", "").replace(")$/", "").replace("$/", "")), text
    return text


@dataclasses.dataclass
class Scene:
    """Servers with what a collector left in them. last: what it said at the end. lines: its records. between: the time
    that is looked at, seconds since 1970."""

    last: Metrics
    lines: Sequence[Mapping[str, Any]]
    prometheus: servers.Server
    influxdb: servers.InfluxServer
    database: str
    between: tuple[float, float]

    def ask_prometheus(self, expr: str, *, instant: bool) -> list[tuple[dict[str, str], list[float]]]:
        start, end = self.between
        if instant:
            found = self.prometheus.get("/api/v1/query", query=expr, time=str(end))["data"]["result"]
            return [(one["metric"], [float(one["value"][1])]) for one in found]
        answer = self.prometheus.get("/api/v1/query_range", query=expr, start=str(start), end=str(end), step="1")
        return [(one["metric"], [float(v) for _, v in one["values"]]) for one in answer["data"]["result"]]

    def values(self, of: str, definition: str) -> list[str]:
        """What a variable offers."""
        if of == "influxdb":
            return sorted({row["value"] for row in self.influxdb.query(definition, self.database)})
        parts = re.fullmatch(r"label_values\((.*), (\w+)\)", definition)
        assert parts, definition
        metric, label = parts.groups()
        found: list[str] = self.prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": metric})["data"]
        return found

    def choices(self, of: str, *, all_of_them: bool) -> dict[str, str]:
        """Values of all variables, as they stand in queries: All, or every value by itself."""
        start, end = self.between
        values = {
            "datasource": "it", "__rate_interval": "5s", "__interval": "1s", "__range": f"{math.ceil(end - start)}s",
            "timeFilter": f"time >= {int(start * 1000)}ms and time <= {int(end * 1000)}ms",
        }  # fmt: skip
        escape = _in_promql if of == "prometheus" else _in_influxql
        for variable in BOTH[of]["templating"]["list"]:
            if variable["type"] == "query":
                offered = self.values(of, _interpolated(variable["definition"], values))
                assert offered, f"{variable['name']}: nothing to choose from"
                values[variable["name"]] = _chosen(None if all_of_them else offered, escape)
            elif variable["type"] == "custom":
                values[variable["name"]] = variable["current"]["value"]
        return values


TRAFFIC = Traffic(
    packets=10_000, flows=40, sources=2, hops=3, event_rate=0.1, path_changes=0.02, drop_reports=0.02,
    congestion_reports=0.02, loss=0.02, duplicates=0.02, reordered=0.02, rate=4000, seed=7,
)  # fmt: skip
OPTIONS = {"--" + name.replace("_", "-"): value for name, value in dataclasses.asdict(TRAFFIC).items()}
NOTHING_OF_IT = {
    "Exporters that do not deliver": "all deliver",
    "No room in tables": "there is room",
    "Exporters: how far behind": "what is told is delivered before the next scrape, or nearly",
    "Exporters: points waiting": "the same",
    "Exporters: room taken": "the same",
}
"""Panels that show nothing but zeros when all is well."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A collector on a veth pair, with reports of all kinds, malformed ones among them, and both servers behind it."""
    folder = tmp_path_factory.mktemp("dashboards")
    usual = {**VECTORS[0]["options"], "port": 54321}
    bad = [bytes.fromhex(v["packet"]) for v in VECTORS if v["outcome"] == "trunc_stack" and v["options"] == usual]
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(network())
        influx = stack.enter_context(servers.influxdb(folder / "influxdb"))
        collector = stack.enter_context(
            Collector(
                pair.names[0], "--int-dscp", "23/63", "--influxdb", influx.url, "--influxdb-database", "int",
                "--jsonl", str(folder / "events"), "--queue-occupancy-bytes", "80", "--tx-utilization-full", "10000",
                "--push-interval", "0.2",
            )
        )  # fmt: skip
        prometheus = stack.enter_context(
            servers.prometheus(folder / "prometheus", collector.url.removeprefix("http://"))
        )

        def scraped(query: str) -> float:
            found = prometheus.get("/api/v1/query", query=query)["data"]["result"]
            return float(found[0]["value"][1]) if found else math.nan

        start = time.time() - 1
        servers.wait(lambda: scraped("sum(int_packets_total)") == 0, "a scrape before there is anything")
        with Command("generate", "-i", pair.names[1], *_generate(), namespace=pair.namespaces[1]) as generating:
            servers.wait(lambda: scraped("sum(int_reports_total)") > 0, "reports are scraped")
            send_frames(pair, folder, *bad * 20)
            assert generating.process.wait(servers.DEADLINE_S) == 0, generating.said()
        truth = traffic.truth(TRAFFIC)
        got = collector.wait_packets(TRAFFIC.packets, "ok")
        servers.wait(lambda: scraped("sum(int_packets_total)") == got.sum("int_packets_total"), "all is scraped")
        assert got.sum("int_dropped_packets_total") == truth.dropped > 0
        end = time.time()  # behind the last scrape, before the series go stale
        assert collector.end() == 0, collector.said()
        lines = [json.loads(line) for line in (folder / "events").read_text().splitlines()]
        _changes_close(got.by("int_changes_total", "change"), lines, truth)
        yield Scene(got, lines, prometheus, influx, "int", (start, end))


def _generate() -> list[str]:
    given = {name: value for name, value in OPTIONS.items() if value != _DEFAULT[name]}
    return [word for name, value in given.items() for word in (name, str(value))]


_DEFAULT = {"--" + f.name.replace("_", "-"): f.default for f in dataclasses.fields(Traffic)}


def _changes_close(counted: Mapping[str, float], lines: Sequence[Mapping[str, Any]], truth: traffic.Truth) -> None:
    """int_changes_total is the number of entries in the records' changes, word by word, of those that were scraped."""
    words = [c if isinstance(c, str) else c["what"] for line in lines for c in line["changes"]]
    told = {word: words.count(word) for word in CHANGES}
    assert set(words) <= set(CHANGES) == counted.keys()
    assert counted["path"] == told["path"] == truth.path_changes > 0
    assert counted["dropped"] == told["dropped"] == truth.dropped
    assert counted == told


@needs_root
def test_every_query_returns_rows(scene: Scene) -> None:
    """Each query of each panel and variable, asked as Grafana asks it, with All and with every value chosen, is taken
    by the server and brings numbers; only panels of what goes wrong are zero."""
    empty, zero = [], []
    for all_of_them in (True, False):
        chosen = scene.choices("prometheus", all_of_them=all_of_them)
        for panel in PANELS["prometheus"]:
            most = 0.0
            for target in panel["targets"]:
                series = scene.ask_prometheus(_interpolated(target["expr"], chosen), instant=target["instant"])
                values = [v for _, of_series in series for v in of_series if not math.isnan(v)]
                if not values:
                    empty.append((panel["title"], target["refId"], all_of_them))
                most = max([most, *values])
                labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert all(labels <= metric.keys() | {"reason"} for metric, _ in series), panel["title"]
            if not most:
                zero.append(panel["title"])
        chosen = scene.choices("influxdb", all_of_them=all_of_them)
        for panel in PANELS["influxdb"]:
            for target in panel["targets"]:
                query = _interpolated(target["query"], chosen)
                rows = scene.influxdb.query(query, scene.database)
                columns = {"time", "measurement"}
                values = [v for row in rows for k, v in row.items() if k not in columns and v not in (None, "", 0)]
                if not values:
                    empty.append((panel["title"], target["refId"], all_of_them))
    assert (empty, sorted(set(zero) - NOTHING_OF_IT.keys())) == ([], [])


def _asked(scene: Scene, of: str, title: str) -> list[Any]:
    """What the first query of a panel brings."""
    (panel,) = [panel for panel in PANELS[of] if panel["title"] == title]
    (target, *_) = panel["targets"]
    query = _interpolated(_text(target), scene.choices(of, all_of_them=True))
    if of == "influxdb":
        return scene.influxdb.query(query, scene.database, tags=True)
    return scene.ask_prometheus(query, instant=target["instant"])


@needs_root
def test_numbers_are_those_of_the_collector(scene: Scene) -> None:
    """What panels show at the end is what the collector said then, and what its records say."""
    told = collections.defaultdict[tuple[str, ...], list[str]](list)
    for line in scene.lines:  # hops are nearest the sink first
        if line["int"] and line["int"]["hops"]:
            told[_flow(line["flow"])].append(":".join(str(hop["switch_id"]) for hop in line["int"]["hops"][::-1]))
    shown = {_flow(row): (row["path"], row["paths"]) for row in _asked(scene, "influxdb", "Paths")}
    assert shown == {flow: (paths[-1], len(set(paths))) for flow, paths in told.items()}
    ((_, flows),) = _asked(scene, "prometheus", "Flows")
    assert flows[-1] == scene.last.sum("int_flows") == TRAFFIC.flows
    assert _asked(scene, "influxdb", "Flows")[0]["flows"] == len(told)
    changed = _asked(scene, "influxdb", "Flows that changed their path")[0]["flows"]
    assert changed == sum(paths > 1 for _, paths in shown.values())
    ((_, (changes,)),) = _asked(scene, "prometheus", "Path changes")
    # Prometheus guesses what came before the first scrape and after the last one
    assert changes == pytest.approx(scene.last.by("int_changes_total", "change")["path"], rel=0.2)
    fullest = scene.last.by("int_queue_occupancy_max", "switch_id", "queue_id")
    most = sorted(fullest.values(), reverse=True)[:10]
    rows = {(m["switch_id"], m["queue_id"]): v for m, (v,) in _asked(scene, "prometheus", "Fullest queues ever")}
    assert sorted(rows.values(), reverse=True) == most and rows.items() <= fullest.items()
    stored = {(r["switch_id"], r["queue_id"]): r["top"] for r in _asked(scene, "influxdb", "Fullest queues ever")}
    assert sorted(stored.values(), reverse=True) == most and stored.items() <= fullest.items()


def _flow(flow: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("source", "destination", "source_port", "destination_port", "protocol")
    return tuple(str(flow[name]) for name in names)
