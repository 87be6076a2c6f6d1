"""The fenced blocks of the documentation: what is in them, run as a reader would run it.

    .venv/bin/python -m tests.blocks docs/tutorial.md     runs a page's commands, and writes into it what they printed

A marker, an HTML comment on the line above a fence, says what becomes of that block; tests/README.md lists them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from intcollector import cli, lab

from . import servers
from .collectors import ROOT, Collector, Command

DEADLINE_S = 60.0
"""No block runs longer; most take a second."""

MARKS = {
    "parse", "not run", "exit", "until", "goes on until", "with collector", "instead", "file", "output",
}  # fmt: skip
_MARK = re.compile(r"^ *<!-- test: (.+?) -->$")
_FENCE = re.compile(r"^( *)(`{3,})(\w*)$")
_MOVED = re.compile(r"(?<![\w.}/-])/(?=(?:etc|var/lib|var/log|var/spool)/intcollector|tmp/)")
"""Paths of the machine that a page may write to, or wants to find files at."""


@dataclasses.dataclass
class Block:
    """A fence of a page. lines: of the page, first and behind the last of its content; marks: what the marker says."""

    page: pathlib.Path
    lines: tuple[int, int]
    indent: str
    language: str
    text: str
    marks: dict[str, str]

    @property
    def where(self) -> str:
        return f"{os.path.relpath(self.page, ROOT)}, line {self.lines[0]}"


def blocks(page: pathlib.Path, text: str | None = None) -> list[Block]:
    """A page's fences, in order."""
    found = []
    lines = (page.read_text() if text is None else text).splitlines()
    at = 0
    while at < len(lines):
        fence, at = _FENCE.match(lines[at]), at + 1
        if not fence:
            continue
        begin = at
        while lines[at].strip() != fence[2]:
            at += 1
        content = "".join(line.removeprefix(fence[1]) + "\n" for line in lines[begin:at])
        marker = _MARK.match(lines[begin - 2]) if begin > 1 else None
        found.append(Block(page, (begin, at), fence[1], fence[3], content, _marks(marker[1]) if marker else {}))
        at += 1
    return found


def _marks(text: str) -> dict[str, str]:
    """`goes on until: ready; exit 1` as {"goes on until": "ready", "exit": "1"}."""
    marks = {}
    for part in text.split("; "):
        name = next((name for name in sorted(MARKS, key=len, reverse=True) if part.startswith(name)), part)
        marks[name] = part.removeprefix(name).removeprefix(":").strip()
    return marks


# --- commands of ours -------------------------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[list[str]]:
    """Every simple command of a script as words, redirections and `sudo` left out."""
    words: list[str] = []
    for line in _logical_lines(text):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        tokens = iter([*lexer, ";"])
        for token in tokens:
            if set(token) <= set("<>&") and set(token) & set("<>"):  # to where, and which descriptor
                next(tokens)
                if words and words[-1].isdigit():
                    words.pop()
            elif set(token) <= set(";&|()"):
                if words:
                    yield words
                words = []
            elif words or not (token in ("sudo", "exec", "then", "do") or re.match(r"\w+=", token)):
                words.append(token)


def _logical_lines(text: str) -> Iterator[str]:
    """Lines, those that go on behind a backslash or within quotes as one."""
    waiting = ""
    for line in text.replace("\\\n", " ").splitlines():
        waiting += line
        try:
            shlex.split(waiting, comments=True)
        except ValueError:  # a quotation is open
            waiting += "\n"
            continue
        yield waiting
        waiting = ""
    assert not waiting, f"a quotation is not closed: {waiting}"


def arguments(words: list[str]) -> list[str] | None:
    """What a command gives to intcollector, if it is one of ours."""
    if words[0].rpartition("/")[2] == "intcollector":
        return words[1:]
    if words[:2] == ["sh", "intcollector/demo.sh"]:
        return ["lab", "demo", *words[2:]]
    return None


def refused(arguments: list[str]) -> str:
    """What argparse says against a command line; nothing, if it takes it."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli._parser(next((word for word in arguments if not word.startswith("-")), None)).parse_args(arguments)
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    return ""


# --- running a page ---------------------------------------------------------------------------------------------------


class Scene:
    """A network namespace with the lab's pair and an eth0, whose far end is nobody's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open = contextlib.ExitStack()
        try:
            for pair in (lab.NAMES, ("eth0", "eth0_far")):
                self._open.enter_context(lab.Lab(pair, (name, name)))
        except BaseException:
            self.close()
            raise

    def collect(self) -> None:
        """A collector on veth_0, whose endpoint is where users find it, and reports for it, without end."""
        collector = Collector("veth_0", "--int-dscp", "23/63", "--prometheus", "127.0.0.1:8000", namespace=self.name)
        self._open.enter_context(collector)
        sender = Command(
            "generate", "-i", "veth_1", "--seconds", "600", "--rate", "500", "--flows", "10", "--sources", "2",
            "--hops", "3", "--event-rate", "0.02", "--drop-reports", "0.01", "--loss", "0.01",
            namespace=self.name,
        )  # fmt: skip
        self._open.enter_context(sender)

        def is_shown() -> bool:
            shown = json.loads(collector.get("/api/v1/collector")[1])
            return shown["flows"] == 10 and bool(shown["reports_per_s"])

        collector.wait_until(is_shown, "the page shows ten flows, and a rate")

    def close(self) -> None:
        self._open.close()


class Scenes:
    """What pages run in: a Scene of their own each, and one with a collector that is theirs together."""

    def __init__(self) -> None:
        self._shared: Scene | None = None
        self._count = 0

    def fresh(self) -> Scene:
        self._count += 1
        return Scene(f"ic{os.getpid() % 100000}d{self._count}")

    def shared(self) -> Scene:
        if not self._shared:
            self._shared = self.fresh()
            self._shared.collect()
        return self._shared

    def close(self) -> None:
        if self._shared:
            self._shared.close()

    def __enter__(self) -> Scenes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Running:
    """A block as a process group. Its output is what a terminal would have shown."""

    def __init__(self, block: Block, script: str, folder: pathlib.Path, namespace: str) -> None:
        self.block, self._folder = block, folder
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        environment = os.environ | {
            "PATH": f"{folder / '.bin'}:{os.environ['PATH']}", "HOME": str(folder),
            "COLUMNS": "120", "LINES": "40", "NO_COLOR": "1",
        }  # fmt: skip
        with lab.inside(namespace):
            # a shell with a trap lets its command end by Ctrl-C, and ends as that did
            self.process = subprocess.Popen(
                ["sh", "-euc", f"trap : INT\n{script}"], cwd=folder, env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=self._file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def printed(self) -> str:
        file = self._file.fileno()
        text = os.pread(file, os.fstat(file).st_size, 0).decode()
        return text.replace(str(self._folder), "")

    def wait_for(self, text: str) -> None:
        """Until it has printed that."""

        def look() -> bool:
            ended = self.process.poll() is not None
            there = text in self.printed()
            assert there or not ended, f"{self.block.where}: ended before {text!r} was printed:\n{self.printed()}"
            return there

        servers.wait(look, f"{self.block.where} prints {text!r}", DEADLINE_S)

    def ended(self, code: int = 0, interrupt: bool = False) -> None:
        """It has ended, by itself or by Ctrl-C, with that exit code."""
        if interrupt:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.block.where} did not end:\n{self.printed()}") from None
        assert self.process.returncode == code, (
            f"{self.block.where} ended with {self.process.returncode} instead of {code}:\n{self.printed()}"
        )

    def close(self) -> None:
        """Nothing of it goes on, whatever happened."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._file.close()


def run(page: pathlib.Path, folder: pathlib.Path, scenes: Scenes) -> Iterator[tuple[Block, str]]:
    """Run a page's blocks in folder, which is empty; each block of output, and what was printed there instead."""
    _checkout(folder)
    for block in blocks(page):
        if "file" in block.marks:
            path = folder / _MOVED.sub(f"{folder}/", block.marks["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_MOVED.sub(f"{folder}/", block.text))
    with contextlib.ExitStack() as stack:
        own: Scene | None = None
        going: list[Running] = []
        last: Running | None = None
        for block in blocks(page):
            if "output" in block.marks:
                assert last, f"{block.where}: no block above it was run"
                yield block, last.printed()
            elif block.language == "sh" and not block.marks.keys() & {"parse", "not run"}:
                if "with collector" in block.marks:
                    scene = scenes.shared()
                else:
                    if own is None:
                        own = scenes.fresh()
                        stack.callback(own.close)
                    scene = own
                script = _MOVED.sub(f"{folder}/", block.marks.get("instead", block.text))
                last = Running(block, script, folder, scene.name)
                stack.callback(last.close)
                if "goes on until" in block.marks:
                    last.wait_for(block.marks["goes on until"])
                    going.append(last)
                elif "until" in block.marks:
                    last.wait_for(block.marks["until"])
                    last.ended(interrupt=True)
                else:
                    last.ended(int(block.marks.get("exit", "0")))
        for running in reversed(going):
            running.ended(interrupt=True)


def _checkout(folder: pathlib.Path) -> None:
    """What looks like a clone of this repository, and what is run in it writes beside the links."""
    for path in ROOT.iterdir():
        if path.name not in (".git", ".ci") and not path.name.endswith("_cache"):
            (folder / path.name).symlink_to(path)
    for name in ("etc/intcollector", "var/lib", "tmp", ".bin"):
        (folder / name).mkdir(parents=True)
    (folder / ".bin/intcollector").symlink_to(pathlib.Path(sys.executable).parent / "intcollector")
    sudo = folder / ".bin/sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)


# --- output -----------------------------------------------------------------------------------------------------------


def shape(line: str) -> str:
    """A line in which every number is the same one, and so is every unit of time, bar, rule and run of blanks."""
    line = re.sub(r"\d+(?:[.,:]\d+)*", "0", line)
    line = re.sub(r"\b0 (?:ns|us|ms|s|min)\b", "0 s", line)
    return " ".join(re.sub(r"([▁-█](?:[▁-█ ]*[▁-█])?)|[─━═-]{2,}", lambda m: "▁" if m[1] else "─", line).split())


def matched(block: Block, printed: str) -> str | None:
    """A block of output as it is to stand, out of what was printed; None if the block is of another shape. `...` in
    it stands for any lines. JSON may be on other lines."""
    if block.marks["output"] == "json":
        with contextlib.suppress(json.JSONDecodeError):
            return block.text if json.loads(block.text) == json.loads(printed) else None
        return None
    of_shape = block.marks["output"] == "shape"
    lines = printed.rstrip("\n").splitlines()
    pattern = ""
    for line in block.text.splitlines():
        same = shape(line) if of_shape else line.rstrip()
        pattern += r"()(?:.*\n)*?" if line.strip() == "..." else f"({re.escape(same)}\n)"
    have = [shape(line) if of_shape else line.rstrip() for line in lines]
    found = re.fullmatch(pattern, "".join(f"{line}\n" for line in have))
    if not found:
        return None
    starts = [0]
    for line in have:
        starts.append(starts[-1] + len(line) + 1)
    return "".join(
        "...\n" if not part else f"{lines[starts.index(found.start(number))].rstrip()}\n"
        for number, part in enumerate(found.groups(), 1)
    )


def _written(page: pathlib.Path) -> None:
    """Run a page and put what was printed into its blocks of output."""
    with tempfile.TemporaryDirectory(prefix="intcollector-docs-") as folder, Scenes() as scenes:
        answers = [(block, printed) for block, printed in run(page, pathlib.Path(folder), scenes)]
    lines = page.read_text().splitlines()
    for block, printed in reversed(answers):
        text: Any = matched(block, printed)
        if text is None:
            if "...\n" in block.text:
                print(f"{block.where} has another shape now: all that was printed is put there", file=sys.stderr)
            text = printed.rstrip("\n") + "\n"
        begin, end = block.lines
        lines[begin:end] = [(block.indent + line).rstrip() for line in text.splitlines()]
    page.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    if shutil.which("ip") is None or os.geteuid():
        sys.exit("needs root, and ip(8)")
    for argument in sys.argv[1:]:
        _written(pathlib.Path(argument).resolve())
