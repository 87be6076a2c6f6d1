"""Plots of how cost grows with the work, out of benchmark/results into docs/, as SVG.

    .venv/bin/pip install '.[benchmark]'
    .venv/bin/python benchmark/plots.py [--results FOLDER] [--to FOLDER]

Needs no root, and the results of benchmark/run.py. The same results make the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from common import RESULTS, ROOT, Row
from matplotlib.figure import Figure

STYLE = {
    "svg.hashsalt": "intcollector",  # the names of parts, which are random otherwise
    "svg.fonttype": "none",  # text stays text
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "legend.frameon": False,
}  # fmt: skip
OURS, FLOOR, LOST = "#1f5fa8", "#8a8a8a", "#b03a2e"


def rows_of(folder: pathlib.Path, benchmark: str, curve: str) -> list[Row]:
    """A curve's points. Errors: SystemExit where they are missing."""
    path = folder / f"{benchmark}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    found = [row for row in rows if row.get("curve") == curve]
    if not found:
        raise SystemExit(f"no points of {curve} in {path}: run benchmark/run.py {benchmark} first")
    return found


def axes(title: str, across: str, up: str) -> tuple[Figure, Any]:
    """An empty plot, with what its axes mean."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    on = figure.subplots()
    on.set(title=title, xlabel=across, ylabel=up)
    return figure, on


def line(on: Any, rows: Sequence[Row], x: str, y: str, **style: Any) -> None:
    """Points of two columns, joined in the order of the first."""
    points = sorted((float(row[x]), float(row[y])) for row in rows)
    on.plot([p[0] for p in points], [p[1] for p in points], marker="o", markersize=4, **style)


def hops(folder: pathlib.Path) -> Figure:
    """ns a report against hops, a line for every instruction bitmap."""
    rows = rows_of(folder, "reports", "hops")
    figure, on = axes("One report in the kernel, by hops", "hops in the report's stack", "ns a report")
    bitmaps = sorted({row["bitmap"] for row in rows}, key=lambda text: -int(text, 0).bit_count())
    shades = mpl.colormaps["Blues_r"].resampled(len(bitmaps) + 2)
    for at, bitmap in enumerate(bitmaps):
        some = [row for row in rows if row["bitmap"] == bitmap]
        count = int(bitmap, 0).bit_count()
        label = f"{count} instruction{'' if count == 1 else 's'} ({bitmap})"
        line(on, some, "hops", "ns", color=shades(at), label=label)
    line(on, [r for r in rows if r["bitmap"] == bitmaps[0]], "hops", "floor_ns", color=FLOOR, label="bare XDP_DROP")
    on.set_ylim(bottom=0)
    on.legend()
    return figure


def flows(folder: pathlib.Path) -> Figure:
    """ns a report against flows that take turns."""
    rows = rows_of(folder, "reports", "flows")
    figure, on = axes("One report in the kernel, by flows in rotation", "flows that take turns", "ns a report")
    line(on, rows, "flows", "ns", color=OURS, label="collector, 3 hops x 8 instructions")
    far = rows_of(folder, "reports", "flows_far")
    line(on, far, "flows", "ns", color=OURS, linestyle="--", label="... in another order than they were learnt in")
    line(on, rows, "flows", "floor_ns", color=FLOOR, label="bare XDP_DROP; all with the program that changes the flow")
    on.set_xscale("log")
    on.set_ylim(bottom=0)
    on.legend()
    return figure


def drain(folder: pathlib.Path) -> Figure:
    """Drained events against the rate of reports, each an event."""
    rows = rows_of(folder, "drain", "drain")
    figure, on = axes(
        "Every report an event, drained on the other core", "reports sent, 1,000 a second", "events, 1,000 a second"
    )
    kilo = [
        {"sent": row["sent"] / 1e3, "drained": row["drained"] / 1e3,
         "lost": row["sent"] * row["lost"] / (row["lost"] + row["events"]) / 1e3}
        for row in rows
    ]  # fmt: skip
    most = max(row["sent"] for row in kilo)
    on.plot([0, most], [0, most], color=FLOOR, linestyle="--", linewidth=1, label="all of them")
    line(on, kilo, "sent", "drained", color=OURS, label="drained into arrays")
    line(on, kilo, "sent", "lost", color=LOST, label="counted as lost: no room in the ring")
    on.set_xlim(left=0)
    on.set_ylim(bottom=0)
    on.legend()
    return figure


PLOTS: dict[str, Callable[[pathlib.Path], Figure]] = {"hops": hops, "flows": flows, "drain": drain}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="the folder of JSON files")
    parser.add_argument("--to", type=pathlib.Path, default=ROOT / "docs", help="the folder of plots")
    arguments = parser.parse_args()
    failed = 0
    with mpl.rc_context(STYLE):
        for name, make in PLOTS.items():
            path = arguments.to / f"cost-{name}.svg"
            try:
                make(arguments.results).savefig(path, metadata={"Date": None, "Creator": None})
            except SystemExit as error:
                print(f"{path}: {error}", file=sys.stderr)
                failed = 1
            else:
                print(path)
    return failed


if __name__ == "__main__":
    sys.exit(main())
