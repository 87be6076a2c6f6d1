"""progress.py: the bar of long work, on a terminal and nowhere else."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest

from intcollector import capture, progress, traffic
from intcollector.lab import Lab
from intcollector.traffic import Traffic

from .collectors import intcollector, network
from .needs import needs_root
from .terminals import Terminal

LARGE = 40_000
"""Packets of a capture that takes the Python decoder some seconds."""
CLEAR = b"\x1b[2K"
BAR = re.compile(r"(\w+) [━╸╺]+ +(\d+)% ([\d,]+) (\w+)  ([\d.,e+]+)/s(?:  (\d+:\d\d:\d\d) left)?")
"""What is done, percents, how much of what, how much a second, what remains."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    """Two namespaces; traffic goes from the far one."""
    with network() as made:
        yield made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return generated(tmp_path_factory.mktemp("large"), LARGE)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """One that takes it about a second."""
    return generated(tmp_path_factory.mktemp("some"), 9_000)


def generated(folder: pathlib.Path, packets: int) -> pathlib.Path:
    path = folder / "reports.pcap"
    traffic.write(Traffic(packets=packets, hops=3), str(path))
    return path


def bars(drawn: bytes) -> list[tuple[str, int, int, str, str]]:
    """(what, percents, done, of what, what remains) of each bar that was drawn."""
    plain = re.sub(rb"\x1b\[[\d;]*(m|\w)", lambda found: b"" if found[1] == b"m" else b"\n", drawn).decode()
    return [
        (found[1], int(found[2]), int(found[3].replace(",", "")), found[4], found[6]) for found in BAR.finditer(plain)
    ]


def ends_clean(terminal: Terminal, drawn: bytes) -> None:
    """The bar's line is empty again, the cursor was never hidden, and the settings are as they were."""
    assert b"\x1b[1A" + CLEAR in drawn
    assert not bars(drawn.rpartition(CLEAR)[2])
    assert b"\x1b[?25l" not in drawn
    assert terminal.settings_after == terminal.settings


def interrupted(terminal: Terminal) -> list[tuple[str, int, int, str, str]]:
    """Ctrl-C once there were two bars: all of them."""
    terminal.wait(lambda drawn: len(bars(drawn)) > 1, "bars are drawn")
    terminal.type(b"\x03")
    terminal.end()
    return bars(terminal.drawn)


def test_decode_shows_how_far_it_is(large: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """decode into a file draws on the terminal what is done of the file, the rate and the time that remains; the file
    has its lines and nothing else."""
    with open(tmp_path / "out", "wb") as out, Terminal("decode", str(large), output=out.fileno()) as terminal:
        drawn = interrupted(terminal)
    assert {(what, unit) for what, _, _, unit, _ in drawn} == {("decoding", "packets")}
    percents, done = [bar[1] for bar in drawn], [bar[2] for bar in drawn]
    assert (percents, done) == (sorted(percents), sorted(done))
    assert 0 < done[0] < done[-1]
    assert all(
        abs(share - count * 100 / LARGE) < 4 for share, count in zip(percents, done, strict=True)
    )  # it reads ahead
    assert all(left for *_, left in drawn)
    ends_clean(terminal, terminal.drawn)
    whole = (tmp_path / "out").read_text().splitlines()[: done[-1]]
    assert [json.loads(line)["packet"] for line in whole] == list(range(done[-1]))


@needs_root
@pytest.mark.parametrize(
    ("arguments", "unit", "share"),
    [
        (("replay", "--rate", "20000", "--loop", "3"), "packets", 3 * LARGE),
        (("generate", "--rate", "2000", "--packets", "1000000"), "reports", 1_000_000),
        (("generate", "--rate", "2000", "--packets", "1000000", "--individuals", "3", "--report-version", "2.0"),
         "reports", 1_000_000),
        (("generate", "--rate", "2000", "--seconds", "60"), "reports", None),
    ],
    ids=["replay", "generate", "by a packet socket", "for some seconds"],
)  # fmt: skip
def test_sending_shows_how_far_it_is(
    pair: Lab, large: pathlib.Path, arguments: tuple[str, ...], unit: str, share: int | None
) -> None:
    """replay and generate draw a bar of all they will send; interrupted, they print what they sent as ever."""
    where = (str(large), pair.names[1]) if arguments[0] == "replay" else ("-i", pair.names[1])
    with Terminal(*arguments, *where, namespace=pair.namespaces[1]) as terminal:
        drawn = interrupted(terminal)
    assert {(bar[0], bar[3]) for bar in drawn} == {("sending", unit)}
    percents, done = [bar[1] for bar in drawn], [bar[2] for bar in drawn]
    assert (percents, done) == (sorted(percents), sorted(done))
    assert 0 < done[0] < done[-1]
    if share:
        assert all(abs(part - count * 100 / share) < 3 for part, count in zip(percents, done, strict=True))
    assert all(left for *_, left in drawn)
    ends_clean(terminal, terminal.drawn)
    assert re.search(rb"\x1b\[2K(intcollector: sent by .*\r\n)?sent \d+ packets in ", terminal.drawn)


def test_generate_into_a_file(tmp_path: pathlib.Path) -> None:
    """generate -o draws a bar; Ctrl-C takes it away and is said on a line of its own, with exit code 1."""
    with Terminal("generate", "-o", str(tmp_path / "x.pcap"), "--packets", "100000000", "--flows", "5000") as terminal:
        terminal.wait(bars, "a bar is drawn")
        terminal.type(b"\x03")
        assert terminal.end() == 1
    assert {(bar[0], bar[3]) for bar in bars(terminal.drawn)} == {("writing", "reports")}
    ends_clean(terminal, terminal.drawn)
    assert terminal.drawn.endswith(CLEAR + b"intcollector: interrupted\r\n")


def test_nothing_of_short_work(tmp_path: pathlib.Path) -> None:
    """What is over at once draws nothing, also where there is a terminal."""
    with Terminal("generate", "-o", str(tmp_path / "x.pcap"), "--packets", "100") as terminal:
        assert terminal.end() == 0
    assert re.fullmatch(rb"wrote 100 reports to \S+ in \d+\.\d\d s\r\n", terminal.drawn)


def test_results_that_nobody_reads_on(large: pathlib.Path) -> None:
    """Where what reads the lines ends, decode ends without a word, its bar gone."""
    readable, writable = os.pipe()
    with open(writable, "wb") as output, Terminal("decode", str(large), output=output.fileno()) as terminal:
        output.close()
        with open(readable, "rb") as lines:
            terminal.wait(lambda drawn: lines.read(1 << 16) and bars(drawn), "a bar is drawn")
        terminal.end()
    ends_clean(terminal, terminal.drawn)
    assert terminal.drawn.endswith(CLEAR)


def test_results_on_the_terminal(some: pathlib.Path) -> None:
    """No bar is between the lines that decode prints on the terminal."""
    with Terminal("decode", str(some)) as terminal:
        assert terminal.end() == 0
    assert terminal.drawn.count(b"\n") == 9_000
    assert b"\x1b" not in terminal.drawn


def test_what_decode_says_in_the_end(large: pathlib.Path) -> None:
    """What decode says of packets that it could not read stands below no bar, whole."""
    with (
        open(os.devnull, "wb") as out,
        Terminal("decode", str(large), "--port", "6000", output=out.fileno()) as terminal,
    ):
        assert terminal.end() == 0
    said = terminal.drawn.rpartition(CLEAR)[2]
    assert b"54321" in said and said.endswith(b"\r\n")
    assert not bars(said)


@needs_root
@pytest.mark.parametrize("where", ["no terminal", "one that cannot draw", "another process's"])
def test_nothing_elsewhere(pair: Lab, where: str) -> None:
    """Not one byte is written where stderr is no terminal, whatever the environment asks for, or a terminal that cannot
    draw, or one that has another process in its foreground."""
    work = ("generate", "-i", pair.names[1], "--rate", "1000", "--seconds", "1.2")
    far = pair.namespaces[1]
    if where == "no terminal":
        environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"}
        assert intcollector(*work, namespace=far, env=environment).stderr == ""
        return
    apart = "import os, subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], preexec_fn=os.setpgrp))"
    through = (sys.executable, "-c", apart) if where == "another process's" else ()
    kind = {"TERM": "dumb" if where == "one that cannot draw" else "xterm"}
    with Terminal(*work, namespace=far, through=through, environment=kind) as terminal:
        assert terminal.end() == 0
    assert re.fullmatch(rb"sent \d+ packets in \d\.\d+ s, \d+ packets/s\r\n", terminal.drawn)


def test_the_share_of_what_is_read(large: pathlib.Path) -> None:
    """A file that is read twice is half read after the first time, and a pipe is read nobody knows how far."""
    reading = capture.Reading(2)
    assert reading.share() is None
    shares = []
    for _ in range(2):
        for at, _ in enumerate(capture.read(str(large), reading)):
            if at == LARGE // 2:
                shares.append(reading.share())
        shares.append(reading.share())
    assert shares == [pytest.approx(0.25, abs=0.02), 0.5, pytest.approx(0.75, abs=0.02), 1.0]
    with open(os.pipe()[0], "rb") as pipe:
        reading.begin(pipe)
        assert reading.share() is None


def test_the_share_of_a_count() -> None:
    """Of work that ends by a count or by time, what is nearer to the end counts."""
    assert progress.of_count(200)(50) == 0.25
    assert progress.of_count(None)(50) is None
    assert 0 <= (progress.of_count(None, 1e6)(50) or 0) < 0.01
    assert progress.of_count(200, 1e6)(50) == 0.25
    assert progress.of_count(200)(500) == 1.0
