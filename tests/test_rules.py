"""The rules in docs/prometheus: promtool takes them, its tests of them hold, and they name what exists."""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from docs.make import dashboards
from intcollector.batch import State
from intcollector.config import Config
from intcollector.outcomes import MEANINGS
from intcollector.series import METRICS, Histogram, scrape

from . import servers

FOLDER = dashboards.DOCS / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
GROUPS = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
PARTS = ("bucket", "sum", "count")
LABELS = {
    **{m.name: set(m.labels) for m in METRICS.values() if m.kind != "histogram"},
    **{f"{m.name}_{p}": {*m.labels, "le"} for m in METRICS.values() if m.kind == "histogram" for p in PARTS},
    "up": set(),
}
"""By name of a series."""
OF_PROMETHEUS = {"instance", "job"}
"""Labels that every series of a scrape gets."""


def promtool(*arguments: object) -> str:
    """What it says; it has to be content."""
    ran = subprocess.run(
        [servers.program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=servers.DEADLINE_S
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_promtool_takes_them() -> None:
    """`promtool check` finds nothing wrong with the rules and the configuration."""
    assert f"{len(RULES)} rules found" in promtool("check", "rules", FOLDER / "rules.yml")
    promtool("check", "config", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts(path: pathlib.Path) -> None:
    """Alerts fire when they should, in the words they should, and do not when they should not."""
    promtool("test", "rules", path)


def test_every_alert_has_tests() -> None:
    """Of each alert it is tested that it fires and that it does not."""
    seen: dict[str, set[bool]] = {}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test["alert_rule_test"]:
                seen.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    assert seen == {name: {True, False} for name in ALERTS}


def series_of(expr: str) -> Iterator[tuple[str, set[str]]]:
    """(name, labels that are matched) of the series that an expression reads."""
    plain = re.sub(r'"[^"]*"', '""', expr)
    plain = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)|\[[^]]*\]", " ", plain)
    for name, matchers in re.findall(r"\b([a-z_][\w:]*)\b(?!\s*\()(?:{([^}]*)})?", plain):
        if name not in ("and", "or", "unless"):
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


def labels_of(expr: str, known: dict[str, set[str]]) -> set[str]:
    """Labels that its series may have."""
    return set().union(*(known[name] for name, _ in series_of(expr))) | OF_PROMETHEUS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_what_a_rule_names_exists(rule: dict[str, Any]) -> None:
    """Metrics and labels in expressions, and labels in texts, are those of the collector or of a recorded rule."""
    grouped = r"\b(?:by|on)\s*\(([^)]*)\)"
    known = dict(LABELS)
    for name, one in RECORDED.items():
        by = re.findall(grouped, one["expr"])
        known[name] = {label.strip() for labels in by for label in labels.split(",")} - {"le"}
    read = list(series_of(rule["expr"]))
    assert read
    for name, matched in read:
        assert matched <= known[name] | OF_PROMETHEUS, name
    labels = labels_of(rule["expr"], known)
    for by in re.findall(grouped, rule["expr"]):
        assert {label.strip() for label in by.split(",")} <= labels
    assert set(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations")))) <= labels


def test_recorded_before_it_is_used() -> None:
    """An alert stands behind what it uses, in the same group: both are of the same moment."""
    for group in GROUPS:
        there: set[str] = set()
        for rule in group["rules"]:
            assert {name for name, _ in series_of(rule["expr"]) if ":" in name} <= there
            there |= {rule["record"]} if "record" in rule else set()


def test_the_objective_is_a_bucket() -> None:
    """The bound of the latency objective is one of the histogram's, written as a scrape writes it."""
    (histogram,) = [one for one in scrape(State(), Config(), {}) if isinstance(one, Histogram)]
    bounds = {repr(bound) for bound in histogram.bounds.tolist()}
    used = set(re.findall(r'le="([^"]*)"', " ".join(rule["expr"] for rule in RULES)))
    assert len(used) == 1 and used <= bounds
    comments = re.findall(r"\b0\.\d+\b", (FOLDER / "rules.yml").read_text().split("as 0.")[1].split(". It")[0])
    assert set(comments) < bounds, "those that the comment offers, too"


def test_what_counts_as_malformed() -> None:
    """The rules and the dashboards mean the same outcomes by malformed, and by reports that were read."""

    def named(matcher: str) -> set[str]:
        operator, pattern = re.fullmatch(r'outcome(=~|!~)"(.*)"', matcher).groups()  # type: ignore[union-attr]
        return {name for name in MEANINGS if bool(re.fullmatch(pattern, name)) == (operator == "=~")}

    def matcher(record: str) -> str:
        return re.findall(r"{(outcome[^}]*)}", RECORDED[record]["expr"])[0]  # type: ignore[no-any-return]

    malformed = {name for name, meaning in MEANINGS.items() if meaning.kind == "malformed"}
    assert named(matcher("instance:int_packets_malformed:rate5m")) == named(dashboards.MALFORMED) == malformed
    read = {name for name, meaning in MEANINGS.items() if meaning.kind == "report"}
    assert named(matcher("instance:int_packets_read:rate5m")) == read


def test_texts() -> None:
    """Each alert says what is the matter, what that means, and where it stands what to do: at a heading that exists."""
    page = (dashboards.DOCS / "troubleshooting.md").read_text()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for name, alert in ALERTS.items():
        said = alert["annotations"]
        assert said.keys() == {"summary", "description", "runbook"} and said["description"].endswith("."), name
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        path, _, anchor = said["runbook"].partition("#")
        assert (path, anchor in anchors) == ("docs/troubleshooting.md", True), f"{name}: there is no #{anchor}"
