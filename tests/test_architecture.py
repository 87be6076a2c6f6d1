"""Who may import whom, and what is done in one place only: docs/architecture.md, held by ast."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "intcollector"
MODULES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}

LAYERS = (
    ("errors", "kernel", "spelled"),
    ("place", "progress", "tables", "watching"),
    ("layout", "capture", "lab", "compiled", "top"),
    ("config", "batch", "wire", "loader", "outcomes"),
    ("groups", "layers", "postcards", "program", "readings"),
    ("__init__", "series", "datapath", "interface", "traffic", "exporters.influxdb_server"),
    (
        "exporters.__init__",
        "exporters.text",
        "exporters.times",
        "exporters.spool",
        "decoding",
        "sending",
        "listening",
        "events",
        "told",
        "seen",
    ),
    ("picture", "exporters.delivery", "exporters.influxdb_lines", "exporters.events_text", "diagnosis"),
    ("news", "view"),
    ("exporters.live",),
    ("exporters.endpoint",),
    ("exporters.prometheus", "exporters.influxdb", "exporters.kafka", "exporters.jsonl", "replay"),
    ("collector", "relay", "doctor"),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A module imports from the layers below its own, never from beside it or above."""
LAYER = {module: number for number, layer in enumerate(LAYERS) for module in layer}

DOORS = {
    "bcc": {"loader"},
    "prometheus_client": {"exporters.prometheus"},
    "tornado": {"exporters.endpoint"},
    "http": {"exporters.influxdb_server", "watching"},
    "ssl": {"exporters.influxdb_server"},
    "confluent_kafka": {"exporters.kafka", "relay"},
    "pyroute2": {"interface", "lab", "doctor"},
    "scapy": {"layers"},
    "rich": {"progress", "top"},
    "textual": {"top"},
}
"""What only these import."""
SPEAKING = {"print", "input", "exit", "quit", "sys.exit", "os._exit", "os.abort"}
"""Words to users and the end of the process: cli.py's."""


def imported(module: str) -> tuple[set[str], set[str]]:
    """What a module imports, wherever in it: modules of this package, and the first words of all others."""
    ours, others = set(), set()
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            others |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *(node.module or "").split(".")]).strip(".")
            for name in node.names:  # a module, or something in one
                options = (f"{base}.{name.name}".strip("."), base, f"{base}.__init__".strip("."))
                ours.add(next(option for option in options if option in MODULES))
    return ours, others


def test_every_module_has_a_layer() -> None:
    """The layers name all modules, each once."""
    assert sorted(module for layer in LAYERS for module in layer) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_from_below(module: str) -> None:
    """A module knows only modules of lower layers."""
    assert {other for other in imported(module)[0] if LAYER[other] >= LAYER[module]} == set()


@pytest.mark.parametrize("door", DOORS)
def test_doors(door: str) -> None:
    """What comes from outside comes in through one module, or the few that are named."""
    assert {module for module in MODULES if door in imported(module)[1]} == DOORS[door]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"cli"}))
def test_only_the_command_line_speaks_and_exits(module: str) -> None:
    """Nothing but cli.py prints or ends the process."""
    tree = ast.parse(MODULES[module].read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not called & SPEAKING and "SystemExit" not in names
