"""The documentation: its links lead somewhere, its commands run, its words exist, and nothing of it is out of reach."""

from __future__ import annotations

import collections
import fnmatch
import pathlib
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator

import pytest

from intcollector import cli, series
from intcollector.layout import ACCEPTED, OUTCOMES
from intcollector.outcomes import MEANINGS

from . import blocks
from .collectors import ROOT
from .needs import needs_root

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
ALL = [*PAGES, *(ROOT / name for name in ("tests/README.md", "benchmark/README.md", "CHANGELOG.md"))]
"""Whose links are followed. The commands of the last three are not run, only looked at."""


def named(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: pathlib.Path) -> str:
    """A page without its fences and comments; lines stay where they are."""
    lines = page.read_text().splitlines()
    for block in blocks.blocks(page):
        begin, end = block.lines
        lines[begin - 1 : end + 1] = [""] * (end - begin + 2)
    return re.sub(r"<!--.*?-->", lambda m: "\n" * m[0].count("\n"), "\n".join(lines), flags=re.DOTALL)


def spans(page: pathlib.Path) -> list[str]:
    """What a page has in `code spans`, tables included."""
    return [" ".join(span.split()) for _, span in re.findall(r"(`+)(.+?)\1", prose(page), flags=re.DOTALL)]


# --- links ------------------------------------------------------------------------------------------------------------

_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\]|!\[[^\]]*\]\([^)]*\))*\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
_HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"")
_AUTOMATIC = re.compile(r"<([a-z]+://[^>]+)>")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]: +(\S+)", re.MULTILINE)


def links(page: pathlib.Path) -> list[str]:
    """Where a page points: links, images, and what HTML there is."""
    text = re.sub(r"(`+)(.+?)\1", "``", prose(page), flags=re.DOTALL)
    images = re.findall(r"!\[[^\]]*\]\(([^()\s]+)(?: \"[^\"]*\")?\)", text)
    return [*_LINK.findall(text), *images, *(t for p in (_HTML, _AUTOMATIC, _REFERENCE) for t in p.findall(text))]


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and those it has of its own."""
    found: collections.Counter[str] = collections.Counter()
    names = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", page.read_text()))
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return names


def targets(page: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """(file or folder, anchor) of a page's links within the repository."""
    for link in links(page):
        if not urllib.parse.urlsplit(link).scheme:
            path, _, anchor = link.partition("#")
            yield (page.parent / urllib.parse.unquote(path)).resolve() if path else page, anchor


@pytest.mark.parametrize("page", ALL, ids=named)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    """What a page links to is there, down to the heading; an address elsewhere is one."""
    wrong = []
    for target, anchor in targets(page):
        if not target.exists() or ROOT not in (target, *target.parents):
            wrong.append(f"{target} is not there")
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
            wrong.append(f"{target} has no heading #{anchor}")
    for link in links(page):
        address = urllib.parse.urlsplit(link)
        if address.scheme and not (address.scheme in ("http", "https") and address.hostname):
            wrong.append(f"{link} is no address")
    assert wrong == []


def test_anchors_are_githubs() -> None:
    """Headings become anchors by GitHub's rules."""
    page = ROOT / "docs/kafka.md"
    assert {"kafka", "tls-and-sasl", "a-broker-to-try-it-with"} <= anchors(page)
    assert anchors(ROOT / "docs/wire.md") >= {"outside-is-it-ours", "is-there-int", "what-goes-up-whole"}
    assert "options-of-relay" in anchors(ROOT / "docs/options.md")


def test_every_page_is_within_reach() -> None:
    """From the front page, link by link, one comes to every page, and to every picture."""
    reached: set[pathlib.Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.exists():
            reached.add(page)
            waiting += [target for target, _ in targets(page)] if page.suffix == ".md" else []
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".svg")]
    assert set(ALL) - reached == set()
    assert set(pictures) - reached == set()


def test_every_test_has_its_line() -> None:
    """tests/README.md says of every file what is tested there, and of none that is gone."""
    text = (ROOT / "tests/README.md").read_text()
    patterns = set(re.findall(r"`(test_[\w*]+\.py)`", text))
    files = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    matched = {pattern: set(fnmatch.filter(files, pattern)) for pattern in patterns}
    assert files - set().union(*matched.values()) == set()
    assert [pattern for pattern, names in matched.items() if not names] == []


# --- commands ---------------------------------------------------------------------------------------------------------


_OURS = re.compile(r"(intcollector|tests|benchmark|docs)/\S+\.(py|sh|md|toml|yml|yaml|json)$")


@pytest.mark.parametrize("page", ALL, ids=named)
def test_commands_are_right(page: pathlib.Path) -> None:
    """Every block of commands is shell; every command of ours in it has options that exist, and every script that it
    names is there; every marker is known."""
    wrong = []
    for block in blocks.blocks(page):
        wrong += [f"{block.where}: no marker {mark!r}" for mark in block.marks.keys() - blocks.MARKS]
        if "not run" in block.marks and not block.marks["not run"]:
            wrong.append(f"{block.where}: not run, without a reason")
        if block.language != "sh":
            continue
        checked = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True, check=False)
        if checked.returncode:
            wrong.append(f"{block.where}: {checked.stderr}")
            continue
        if "not run" in block.marks:
            continue
        for words in blocks.command_lines(block.text):
            ours = blocks.arguments(words)
            if ours is not None and (said := blocks.refused(ours)):
                wrong.append(f"{block.where}: {' '.join(words)}: {said.splitlines()[-1]}")
            for word in words:
                if _OURS.match(word) and not (ROOT / word).exists():
                    wrong.append(f"{block.where}: {word} is not there")
    assert wrong == []


RUN = [
    page
    for page in PAGES
    if any(b.language == "sh" and not b.marks.keys() & {"parse", "not run"} for b in blocks.blocks(page))
]


@pytest.fixture(scope="module")
def scenes() -> Iterator[blocks.Scenes]:
    """A collector that pages share is started by the first one that asks."""
    with blocks.Scenes() as made:
        yield made


@needs_root
@pytest.mark.parametrize("page", RUN, ids=named)
def test_commands_run(page: pathlib.Path, tmp_path: pathlib.Path, scenes: blocks.Scenes) -> None:
    """A page's commands do what it says, one after the other; what it shows of their output is what they print."""
    wrong = []
    for block, printed in blocks.run(page, tmp_path, scenes):
        if blocks.matched(block, printed) is None:
            wrong.append(f"{block.where} shows\n{block.text}\nand printed was\n{printed}")
    assert not wrong, "\n".join(wrong)


PAGE = """\
<!-- test: file: /etc/intcollector/names -->
```
one
```

```sh
sudo cat /etc/intcollector/names > /tmp/copy; intcollector --version
```

<!-- test: output: shape -->
```
intcollector 10.20   # as
...
it is
```

<!-- test: exit 3; instead: cat /tmp/copy && exit 3 -->
```sh
false
```

<!-- test: output -->
```
one
```
"""


@needs_root
def test_a_page_is_run_as_marked(tmp_path: pathlib.Path, scenes: blocks.Scenes) -> None:
    """Files are there, commands run in order and end as they should, and output of another shape is seen."""
    page, folder = tmp_path / "page.md", tmp_path / "folder"
    page.write_text(PAGE)
    folder.mkdir()
    (version, printed), (copy, text) = blocks.run(page, folder, scenes)
    assert blocks.matched(version, printed) is None
    version.text = "intcollector 10.20\n"
    assert blocks.matched(version, printed) == f"{printed.strip()}\n"
    assert (text, blocks.matched(copy, text)) == ("one\n", "one\n")

    page.write_text("```sh\necho why; exit 4\n```\n")
    (folder := tmp_path / "other").mkdir()
    with pytest.raises(AssertionError, match=r"line 1 ended with 4 instead of 0:\nwhy"):
        list(blocks.run(page, folder, scenes))


def test_commands_are_found() -> None:
    """Ours among others, over several lines, without what is the shell's; and options that do not exist are refused."""
    text = "A=1 sudo intcollector run eth0 \\\n  --port 5 2>&1 | tee x  # and\nif true; then intcollector top; fi\n"
    found = [blocks.arguments(words) for words in blocks.command_lines(text)]
    assert [words for words in found if words is not None] == [["run", "eth0", "--port", "5"], ["top"]]
    assert blocks.refused(["run", "eth0", "--port", "5"]) == ""
    assert "--no-such" in blocks.refused(["run", "eth0", "--no-such", "5"])
    assert "invalid choice" in blocks.refused(["run", "eth0", "--profile", "other"])


# --- words ------------------------------------------------------------------------------------------------------------


def our_options() -> set[str]:
    """Every option of every command."""
    (commands,) = cli._parser("generate")._subparsers._group_actions  # type: ignore[union-attr]
    assert isinstance(commands.choices, dict)
    return {o for parser in commands.choices.values() for a in parser._actions for o in a.option_strings} | {
        "--version"
    }


OTHERS = {
    "docs/influxdb.md": {"--retention-period"},
    "docs/kafka.md": {"--replication-factor"},
    "tests/README.md": {"--dist", "--durations", "--maxprocesses", "--packets", "--pdb"},
    "benchmark/README.md": {"--json", "--show"},
    "docs/architecture.md": {"--packets"},
    "README.md": {"--full"},
}
"""Options in prose that are other programs'."""


@pytest.mark.parametrize("page", ALL, ids=named)
def test_options_exist(page: pathlib.Path) -> None:
    """Every option that a page speaks of is one of a command."""
    spoken = {option for span in spans(page) for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", span)}
    assert spoken - our_options() - OTHERS.get(named(page), set()) == set()


_MEASUREMENTS = {"int_flow", "int_hop", "int_queue", "int_port"}


def _is_metric(name: str) -> bool:
    if name in series.METRICS or name in _MEASUREMENTS:
        return True
    base, _, part = name.rpartition("_")
    return part in ("bucket", "sum", "count") and base in series.METRICS and series.METRICS[base].kind == "histogram"


@pytest.mark.parametrize("page", ALL, ids=named)
def test_metrics_exist(page: pathlib.Path) -> None:
    """Every metric that a page speaks of is exported, and so is one at least of a `int_something_*`."""
    text = page.read_text()
    words = set(re.findall(r"(?<![\w.:/=-])int_[a-z0-9_]+(?![a-z0-9_(=.])(?!\*)", text))
    fields = {"int_dscp", "int_udp_port", "int_gre_protocol"}  # of Config, in Python
    assert {word for word in words if not _is_metric(word)} - fields == set()
    families = set(re.findall(r"(?<![\w.:/-])(int_[a-z0-9_]+_)(?=\*)", text))
    assert {family for family in families if not any(name.startswith(family) for name in series.METRICS)} == set()


def test_outcomes_have_meanings() -> None:
    """Every outcome is explained, under the kind that the program makes of it."""
    assert sorted(MEANINGS) == sorted(OUTCOMES)
    for name, meaning in MEANINGS.items():
        passed, accepted = name.startswith("pass_"), OUTCOMES.index(name) in ACCEPTED
        kind = "passed" if passed else "report" if accepted else "undecoded" if name == "undecoded" else "malformed"
        assert (name, meaning.kind) == (name, kind)
        assert meaning.says.endswith(".") and (meaning.cause.endswith((".", ").")) or name == "ok")


def test_reference_is_up_to_date() -> None:
    """The reference is what its command makes of the code."""
    command = [sys.executable, "-m", "docs.make.reference", "--check"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
