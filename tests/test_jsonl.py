"""JSON lines in files and pipes."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from intcollector.config import Config
from intcollector.errors import ExporterError
from intcollector.exporters.jsonl import JsonLines
from intcollector.series import Counts, records

from .batches import batch_of, news, report
from .servers import wait

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


def test_disk_full(caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full costs events, which are counted, and is said once; the exporter lives on."""
    exporter = JsonLines(Config(jsonl="/dev/full", push_interval=0.02))
    for _ in range(3):
        exporter.write(batch_of(SAID[:2]))
        wait(lambda: exporter.counts().buffered == 0, "the loss")
    assert exporter.problem() == "jsonl: cannot write to /dev/full (No space left on device)"
    assert closed(exporter).lost["write_error"] == 6
    assert len(caplog.records) == 1


FILE_LIMIT = """
import json, resource, signal, sys
from intcollector.config import Config
from intcollector.exporters.jsonl import JsonLines
from tests.batches import batch_of
from tests.servers import wait
from tests.test_jsonl import SAID

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
exporter = JsonLines(Config(jsonl=sys.argv[1], push_interval=0.02))
exporter.write(batch_of(SAID[:10]))
wait(lambda: exporter.counts().buffered == 0, "the loss")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
exporter.write(batch_of(SAID[10:12]))
exporter.close(10)
counts = exporter.counts()
print(json.dumps([counts.accepted, counts.delivered, counts.lost["write_error"]]))
"""


def test_no_half_line_stays(tmp_path: pathlib.Path) -> None:
    """A file that fills up in the middle of a line ends with a whole one, and goes on when there is room again."""
    ran = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(tmp_path / "events")], capture_output=True, text=True, timeout=60,
        cwd=pathlib.Path(__file__).parent.parent,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    accepted, delivered, lost = json.loads(ran.stdout)
    assert (accepted, delivered + lost) == (12, 12)
    assert lost > 0
    found = lines(tmp_path / "events")
    assert found == [*SAID[: delivered - 2], *SAID[10:12]]
    assert delivered > 2


def test_reader_that_went_away(tmp_path: pathlib.Path) -> None:
    """A pipe whose reader is gone costs events, which are counted; with a new reader they arrive again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter = JsonLines(Config(jsonl=str(pipe), push_interval=0.02))
    os.close(reader)
    exporter.write(batch_of(SAID[:2]))
    wait(lambda: exporter.counts().lost["write_error"] == 2, "the loss")
    assert "Broken pipe" in (exporter.problem() or "")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter.write(batch_of(SAID[2:4]))
    wait(lambda: exporter.counts().delivered == 2, "two lines")
    assert exporter.problem() is None
    with os.fdopen(reader) as file:
        assert [json.loads(line) for line in file.read().splitlines()] == SAID[2:4]
    closed(exporter)


def test_slow_reader(tmp_path: pathlib.Path) -> None:
    """A pipe that nobody empties holds neither write() nor close(): what does not get through is counted, and what does
    arrives whole."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    exporter = JsonLines(Config(jsonl=str(pipe), push_interval=0.02, push_buffer=1))
    for _ in range(3):
        exporter.write(batch_of(SAID))
    assert exporter.counts().lost["buffer_full"] > 0
    exporter.close(0.3)
    counts = exporter.counts()
    assert counts.accepted == 7500 == counts.delivered + sum(counts.lost.values())
    with os.fdopen(reader) as file:
        whole = [line for line in file if line.endswith("\n")]
    assert len(whole) == counts.delivered > 0
    assert all(json.loads(line) in SAID for line in whole[:10])


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
