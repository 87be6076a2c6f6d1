"""All benchmarks, one after the other, and the table of what must be met.

    .venv/bin/python benchmark/run.py [NAME ...] [--folder FOLDER] [--show]

Needs root, two CPUs and nothing else to do on them. Writes what each printed into benchmark/results/NAME.json. Exit
code 1 if a measure is not met or a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from common import RESULTS, Row, in_words, met, table

FOLDER = pathlib.Path(__file__).resolve().parent
NAMES = (
    "reports",
    "ways",
    "blocks",
    "veth",
    "drain",
    "process",
    "replay",
    "scrape",
    "page",
    "browser",
    "delivery",
    "influxdb",
    "kafka",
    "relay",
)
LONGEST_S = 1800


def run(name: str, folder: pathlib.Path) -> bool:
    """One benchmark in a process of its own; whether it succeeded. What it says on stderr is shown."""
    command = [sys.executable, str(FOLDER / f"bench_{name}.py"), "--json"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            print(f"{name}: not done after {LONGEST_S} s", file=sys.stderr)
            return False
        finally:
            process.terminate()  # then it gives back what it made
    if process.returncode:
        print(f"{name}: exit code {process.returncode}", file=sys.stderr)
        return False
    result = json.loads(said)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return True


def read(name: str, folder: pathlib.Path) -> dict[str, Any] | None:
    """What a benchmark's last run wrote."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def required_rows(names: list[str], folder: pathlib.Path) -> list[Row]:
    """The measures that must be met, with `met` and `hoped`."""
    rows = []
    for name in names:
        for row in (read(name, folder) or {}).get("rows", []):
            if {"measure", "value", "must"} <= row.keys():
                kept = {key: row[key] for key in ("measure", "value", "unit", "better", "must", "hope")}
                rows.append({"benchmark": name} | kept | {"met": met(row), "hope met": met(row, "hope")})
    return rows


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without the benchmark that runs
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--folder", type=pathlib.Path, default=RESULTS, help="where the results are written")
    parser.add_argument("--show", action="store_true", help="run nothing: the table of what was written last")
    arguments = parser.parse_args()
    names = arguments.names or list(NAMES)
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    failed = []
    for name in names if not arguments.show else ():
        print(f"{name} ...", file=sys.stderr, flush=True)
        begin = time.monotonic()
        if not run(name, arguments.folder):
            failed.append(name)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    rows = required_rows([name for name in names if name not in failed], arguments.folder)
    machines = [result["machine"] for name in names if (result := read(name, arguments.folder))]
    if machines:
        print(f"{time.strftime('%Y-%m-%d')}\n{in_words(machines[-1])}\n")
    print(table(rows) if rows else "nothing measured")
    missed = [row["measure"] for row in rows if not row["met"]]
    print(f"\n{len(rows) - len(missed)} of {len(rows)} met" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
