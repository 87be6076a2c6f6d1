"""JSON lines in files and pipes."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from intcollector.config import Config
from intcollector.errors import ExporterError, UsageError
from intcollector.exporters import jsonl
from intcollector.exporters.jsonl import JsonLines
from intcollector.series import Counts, records

from .batches import batch_of, news, report
from .servers import disk, wait

SAID = [
    {**news(report({"switch_id": 4, "hop_latency": i}), "new_flow"), "received_ns": 1_700_000_000_000_000_000 + i}
    for i in range(2500)
]


def lines(path: pathlib.Path) -> list[dict[str, object]]:
    """The file's records; each line has to be whole."""
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def closed(exporter: JsonLines) -> Counts:
    """The counts after closing; they have to close, too."""
    exporter.close(10)
    counts = exporter.counts()
    assert counts.accepted == counts.delivered + sum(counts.lost.values())
    assert (counts.buffered, counts.buffered_bytes) == (0, 0)
    return counts


def test_one_event_a_line(tmp_path: pathlib.Path) -> None:
    """Every event is a line, in order, the same as its record; what the file had before stays."""
    path = tmp_path / "events"
    path.write_text('{"old": 1}\n')
    exporter = JsonLines(Config(jsonl=str(path), push_interval=0.02))
    for part in (SAID[:3], [], SAID[3:]):
        exporter.write(batch_of(part, clock_ns=1_600_000_000_000_000_000))
    counts = closed(exporter)
    assert (counts.accepted, counts.delivered) == (2500, 2500)
    assert lines(path) == [{"old": 1}, *records(batch_of(SAID), Config())] == [{"old": 1}, *SAID]


def test_names_change_while_it_runs(tmp_path: pathlib.Path) -> None:
    """After apply(), drop reasons have the names that the new config has for them."""
    exporter = JsonLines(Config(jsonl=str(tmp_path / "events"), push_interval=0.02))
    local = {"ingress_port_id": 1, "egress_port_id": 2, "drop_queue_id": 0, "drop_reason": 200}
    batch = batch_of([report(dropped=True, local_hop=local, changes=["dropped"])])
    exporter.write(batch)
    wait(lambda: exporter.counts().delivered == 1, "a line")
    exporter.apply(Config(drop_reasons=((200, "policer"),)))
    exporter.write(batch)
    closed(exporter)
    assert [line["drop_reason"] for line in lines(tmp_path / "events")] == ["200", "policer"]


def test_flushed_each_interval(tmp_path: pathlib.Path) -> None:
    """Lines are in the file soon after they were written, not only at the end."""
    exporter = JsonLines(Config(jsonl=str(tmp_path / "events"), push_interval=0.02))
    exporter.write(batch_of(SAID[:2]))
    wait(lambda: len(lines(tmp_path / "events")) == 2, "two lines")
    closed(exporter)


def test_reopen(tmp_path: pathlib.Path) -> None:
    """After a file was moved away and reopen(), lines go to a new file of that name, each to one of the two."""
    path, moved = tmp_path / "events", tmp_path / "events.1"
    exporter = JsonLines(Config(jsonl=str(path), push_interval=0.02))
    exporter.write(batch_of(SAID[:2]))
    wait(lambda: exporter.counts().delivered == 2, "two lines")
    path.rename(moved)
    exporter.reopen()
    wait(path.exists, "the new file")
    exporter.write(batch_of(SAID[2:5]))
    closed(exporter)
    assert (lines(moved), lines(path)) == (SAID[:2], SAID[2:5])


def test_reopen_that_fails(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the new file cannot be opened, lines go on into the old one."""
    folder = tmp_path / "folder"
    folder.mkdir()
    exporter = JsonLines(Config(jsonl=str(folder / "events"), push_interval=0.02))
    folder.rename(tmp_path / "gone")
    exporter.reopen()
    wait(lambda: "going on in the old file" in caplog.text, "the warning")
    exporter.write(batch_of(SAID[:2]))
    closed(exporter)
    assert lines(tmp_path / "gone" / "events") == SAID[:2]


def test_half_line_that_was_left(tmp_path: pathlib.Path) -> None:
    """A half line that a kill or a power cut left at a file's end is ended: the next event has a line of its own; at
    the start, and in a file that is opened anew."""
    path = tmp_path / "events"
    path.write_text('{"old": 1}\n{"ha')
    exporter = JsonLines(Config(jsonl=str(path), push_interval=0.02))
    exporter.write(batch_of(SAID[:1]))
    wait(lambda: exporter.counts().delivered == 1, "a line")
    path.rename(tmp_path / "moved")
    path.write_text('{"hal')
    exporter.reopen()
    wait(lambda: not exporter._reopen.is_set(), "it is opened anew")
    exporter.write(batch_of(SAID[1:3]))
    closed(exporter)
    for file, half, whole in ((tmp_path / "moved", '{"old": 1}\n{"ha\n', SAID[:1]), (path, '{"hal\n', SAID[1:3])):
        text = file.read_text()
        assert text.startswith(half) and text.endswith("\n")
        assert [json.loads(line) for line in text[len(half) :].splitlines()] == whole


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 64 KiB."""
    with disk(tmp_path / "disk", 64) as folder:
        yield folder


def test_disk_full(small_disk: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full keeps events waiting, which is said once; when there is room again all of them arrive, once
    and in order, and no half line ever stays."""
    path, filler = small_disk / "events", small_disk / "filler"
    filler.write_bytes(bytes(60 << 10))
    exporter = JsonLines(Config(jsonl=str(path), push_interval=0.02))
    for first in range(0, 100, 20):
        exporter.write(batch_of(SAID[first : first + 20]))
    problem = wait(exporter.problem, "the disk is full")
    assert problem == f"jsonl: cannot write to {path} (No space left on device)"
    wait(lambda: exporter.counts().failures > 2, "more tries")
    counts = exporter.counts()
    assert counts.accepted == 100 == counts.delivered + counts.buffered
    assert not counts.up and counts.buffered_bytes > 0
    assert lines(path) == SAID[: counts.delivered]
    filler.unlink()
    wait(lambda: exporter.counts().delivered == 100, "all lines")
    wait(lambda: exporter.problem() is None, "the problem is over")
    assert closed(exporter).delivered == 100
    assert lines(path) == SAID[:100]
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"jsonl: cannot write to {path}",
        "jsonl: works again",
    ]


def test_disk_full_for_longer_than_the_buffer_lasts() -> None:
    """While a disk is full, the oldest events are given up when the buffer is, and the rest when the collector ends."""
    exporter = JsonLines(Config(jsonl="/dev/full", push_interval=0.02, push_buffer=1))
    whole = batch_of(SAID)
    for _ in range(3):
        exporter.write(whole)
    exporter.close(0.1)
    counts = exporter.counts()
    assert counts.accepted == 7500 == sum(counts.lost.values())
    assert counts.lost["buffer_full"] > 0 and counts.lost["closed"] > 0


def test_reader_that_went_away(tmp_path: pathlib.Path) -> None:
    """A pipe whose reader is gone keeps events waiting; they arrive when there is a new one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter = JsonLines(Config(jsonl=str(pipe), push_interval=0.02))
    os.close(reader)
    exporter.write(batch_of(SAID[:2]))
    assert "Broken pipe" in (wait(exporter.problem, "the problem") or "")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter.write(batch_of(SAID[2:4]))
    wait(lambda: exporter.counts().delivered == 4, "four lines")
    wait(lambda: exporter.problem() is None, "the problem is over")
    with os.fdopen(reader) as file:
        closed(exporter)
        assert [json.loads(line) for line in file] == SAID[:4]


def test_stdout_that_nobody_reads_any_more() -> None:
    """When the reader of stdout went away, what is left is counted at the end, without waiting for another reader."""
    code = (
        "import sys, time\n"
        "from intcollector.config import Config; from intcollector.exporters.jsonl import JsonLines\n"
        "from tests.batches import batch_of; from tests.servers import wait; from tests.test_jsonl import SAID\n"
        "exporter = JsonLines(Config(jsonl='-', push_interval=0.02))\n"
        "exporter.write(batch_of(SAID[:3])); wait(exporter.problem, 'the reader is gone')\n"
        "begin = time.monotonic(); exporter.close(1000); counts = exporter.counts()\n"
        "print(counts.accepted, counts.lost['closed'], time.monotonic() - begin < 500, file=sys.stderr)"
    )
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120,
        cwd=pathlib.Path(__file__).parent.parent,
    )  # fmt: skip
    os.close(write)
    assert ran.stderr.splitlines()[-1] == "3 3 True"


def test_slow_reader(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A pipe that nobody empties holds neither write() nor close(): what does not get through is counted, and what does
    arrives whole, up to the last line; that it is over is not said."""
    monkeypatch.setattr(jsonl, "SLOW_S", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter = JsonLines(Config(jsonl=str(pipe), push_interval=0.02, push_buffer=1))
    batch = batch_of(SAID)
    for _ in range(3):
        exporter.write(batch)
    assert exporter.counts().lost["buffer_full"] > 0
    wait(exporter.problem, "the reader takes nothing")
    exporter.close(0.3)
    assert "works again" not in caplog.text
    counts = exporter.counts()
    assert counts.accepted == 7500 == counts.delivered + sum(counts.lost.values())
    with os.fdopen(reader) as file:
        whole = list(file)
    assert len(whole) == counts.delivered > 0
    assert all(json.loads(line) in SAID for line in whole[:10])


def test_reader_that_stands_still(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe whose reader takes nothing for some time is a problem, said once, until it moves; nothing is lost."""
    monkeypatch.setattr(jsonl, "SLOW_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter = JsonLines(Config(jsonl=str(pipe), push_interval=0.02))
    exporter.write(batch_of(SAID))
    assert wait(exporter.problem, "the problem") == f"jsonl: nobody reads from {pipe}"
    assert not exporter.counts().up and exporter.counts().failures == 1
    with os.fdopen(reader, "rb", buffering=0) as file:
        data = b""

        def read() -> bool:
            nonlocal data
            data += file.read(1 << 20) or b""
            return exporter.counts().delivered == len(SAID)

        wait(read, "it is read")
        wait(lambda: exporter.problem() is None, "the problem is over")
        read()
        closed(exporter)
        assert [json.loads(line) for line in data.splitlines()] == SAID
    assert [record.message for record in caplog.records] == [
        f"jsonl: nobody reads from {pipe}; points are kept and sent again",
        "jsonl: works again",
    ]


def test_stdout() -> None:
    """`-` is stdout, also when it is a pipe that is emptied slower than it is filled."""
    code = (
        "from intcollector.config import Config; from intcollector.exporters.jsonl import JsonLines\n"
        "from tests.batches import batch_of; from tests.test_jsonl import SAID\n"
        "exporter = JsonLines(Config(jsonl='-', push_interval=0.02))\n"
        "exporter.write(batch_of(SAID)); exporter.close(60)"
    )
    folder = pathlib.Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=folder) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        assert process.stdout is not None
        found = [json.loads(line) for line in process.stdout]
        assert process.wait() == 0
        timer.cancel()
    assert found == SAID


def test_cannot_open(tmp_path: pathlib.Path) -> None:
    """A file that cannot be opened, or a pipe without a reader, is an error in one sentence with what to try."""
    with pytest.raises(ExporterError, match=r"no/such \(ENOENT: No such file or directory\): give --jsonl"):
        JsonLines(Config(jsonl=str(tmp_path / "no" / "such")))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExporterError, match="ENXIO"):
        JsonLines(Config(jsonl=str(tmp_path / "pipe")))


# --- files that are full ----------------------------------------------------------------------------------------------


def small_files(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size: int, **more: Any) -> JsonLines:
    """An exporter whose files are full with so many bytes."""
    exporter = JsonLines(Config(jsonl=str(path), jsonl_size=1, push_interval=0.02, **more))
    monkeypatch.setattr(exporter, "_most", size)
    return exporter


@pytest.mark.parametrize("size", [700, 1, 10_000])
def test_full_files_are_moved_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A file that is full becomes PATH.1, the others move on; each has whole lines, no more than the size unless one
    line is longer, and together they have every event, in order."""
    path = tmp_path / "events"
    exporter = small_files(path, monkeypatch, size, jsonl_files=1000)
    for first in range(0, 60, 7):
        exporter.write(batch_of(SAID[first : min(first + 7, 60)]))
        wait(lambda: exporter.counts().buffered == 0, "lines")
    closed(exporter)
    numbers = sorted(int(p.name.partition(".")[2]) for p in tmp_path.iterdir() if p != path)
    assert numbers == list(range(1, len(numbers) + 1))
    files = [*(tmp_path / f"events.{number}" for number in reversed(numbers)), path]
    assert [line for file in files for line in lines(file)] == SAID[:60]
    for file in files:
        assert file.stat().st_size <= size or len(lines(file)) == 1
    assert len(files) > 1


def test_oldest_files_go(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than jsonl_files are kept beside the open one, and these are the newest; a gap is filled first."""
    path = tmp_path / "events"
    exporter = small_files(path, monkeypatch, 1, jsonl_files=3)
    for i in range(6):
        exporter.write(batch_of(SAID[i : i + 1]))
    wait(lambda: exporter.counts().delivered == 6, "lines")
    assert [lines(tmp_path / name) for name in ("events.3", "events.2", "events.1", "events")] == [
        [SAID[i]] for i in (2, 3, 4, 5)
    ]
    (tmp_path / "events.2").unlink()
    exporter.write(batch_of(SAID[6:7]))
    closed(exporter)
    assert [lines(tmp_path / name) for name in ("events.3", "events.2", "events.1", "events")] == [
        [SAID[i]] for i in (2, 4, 5, 6)
    ]
    assert len(list(tmp_path.iterdir())) == 4


def test_size_counts_what_was_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is full when the collector starts is moved before anything is added to it."""
    path = tmp_path / "events"
    path.write_text(json.dumps({"old": "x" * 900}) + "\n")
    exporter = small_files(path, monkeypatch, 900)
    exporter.write(batch_of(SAID[:1]))
    closed(exporter)
    assert (lines(tmp_path / "events.1"), lines(path)) == ([{"old": "x" * 900}], SAID[:1])


def test_files_that_cannot_be_moved(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a full file cannot be moved it grows, which is said once, until it can be."""
    path, there = tmp_path / "events", tmp_path / "events.1"
    (there / "something").mkdir(parents=True)
    exporter = small_files(path, monkeypatch, 1, jsonl_files=1)
    for i in range(3):
        exporter.write(batch_of(SAID[i : i + 1]))
    wait(lambda: exporter.counts().delivered == 3, "lines")
    assert lines(path) == SAID[:3]
    (there / "something").rmdir()
    there.rmdir()
    exporter.write(batch_of(SAID[3:4]))
    closed(exporter)
    assert (lines(there), lines(path)) == (SAID[:3], SAID[3:4])
    assert [record.message for record in caplog.records] == [
        f"jsonl: {path} cannot be moved (Is a directory), and grows on",
        f"jsonl: {path} can be moved again",
    ]


def test_moved_by_somebody_else(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full file that was moved away already is not moved again: a new one is begun."""
    path = tmp_path / "events"
    exporter = small_files(path, monkeypatch, 1)
    exporter.write(batch_of(SAID[:1]))
    wait(lambda: exporter.counts().delivered == 1, "a line")
    path.rename(tmp_path / "away")
    exporter.write(batch_of(SAID[1:2]))
    closed(exporter)
    assert (lines(tmp_path / "away"), lines(path)) == (SAID[:1], SAID[1:2])
    assert len(list(tmp_path.iterdir())) == 2


def test_only_files_have_a_size(tmp_path: pathlib.Path) -> None:
    """Stdout, a pipe or a device cannot be moved: a size for them is refused at the start."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path, shown in (("-", "stdout"), (str(pipe), str(pipe)), ("/dev/null", "/dev/null")):
        with pytest.raises(UsageError, match=f"--jsonl-size: {shown} is no file that could be moved: give"):
            JsonLines(Config(jsonl=path, jsonl_size=1))
    os.close(reader)
