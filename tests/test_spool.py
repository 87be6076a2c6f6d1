"""The spool on disk: what was appended comes out, in order and whole, whatever happened to the files."""

from __future__ import annotations

import fcntl
import os
import pathlib
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intcollector.errors import ExporterError
from intcollector.exporters.spool import BEGIN, HEAD_SIZE, Chunk, Spool, pieces, waiting

TARGET = "somewhere"


class Counted(Spool):
    """A spool that counts what it gave up. lost: by reason."""

    def __init__(self, folder: str, limit: int = 1 << 20) -> None:
        self.lost: dict[str, int] = {}
        super().__init__(folder, TARGET, limit, self._count)

    def _count(self, points: int, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + points


def chunk(number: int, points: int = 3, size: int = 8) -> Chunk:
    return Chunk(b"".join(f"{number}-{i}".encode().ljust(size - 1) + b"\n" for i in range(points)), points, number)


def drained(spool: Spool) -> list[Chunk]:
    """All there is, delivered."""
    out = []
    while found := spool.first():
        out.append(found)
        spool.done([])
    return out


def killed(spool: Spool) -> None:
    """As the kernel leaves a killed process's files."""
    for file in (spool._lock, spool._position, *([spool._writing[1]] if spool._writing else [])):
        os.close(file)
    if spool._reading:
        os.close(spool._reading[1])


Opened = Callable[..., Counted]


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[Opened]:
    """Open the spool in a folder of tmp_path."""
    spools = []

    def opened(limit: int = 1 << 20, folder: str = "spool") -> Counted:
        spools.append(Counted(str(tmp_path / folder), limit))
        return spools[-1]

    yield opened
    for spool in spools:
        try:
            spool.close()
        except OSError:  # it was killed
            continue


def files(spool: Spool) -> list[pathlib.Path]:
    return sorted(pathlib.Path(spool.folder).glob("*.spool"))


def test_what_goes_in_comes_out(opened: Opened) -> None:
    """Chunks come out as they went in, in order, also while others go in; then nothing is on disk any more."""
    spool, taken = opened(), []
    for number in range(1, 40):
        spool.append(chunk(number, points=number))
        if number % 3 == 0 and (found := spool.first()):
            taken.append(found)
            spool.done([])
    assert spool.points == sum(range(1, 40)) - sum(one.points for one in taken)
    taken += drained(spool)
    assert taken == [chunk(number, points=number) for number in range(1, 40)]
    assert (spool.points, spool.lost) == (0, {})
    spool.close()
    assert {path.name for path in pathlib.Path(spool.folder).iterdir()} == {"lock", "target"}


@given(st.lists(st.tuples(st.sampled_from(["append", "done", "back", "part", "kill", "reopen"]), st.integers(1, 400))))
def test_nothing_is_lost_and_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever the order of appending, delivering, giving back and being killed: each chunk is delivered once, in
    order."""
    folder = str(tmp_path_factory.mktemp("spool"))
    spools = [Counted(folder, 32 << 10)]  # files of 4 KiB
    appended, delivered = 0, []
    front: list[Chunk] = []

    def next_one() -> Chunk | None:
        return front.pop(0) if front else spools[-1].first()

    for step, number in [*steps, *[("done", 0)] * 2 * (len(steps) + 1)]:
        spool = spools[-1]
        if step == "append" and spool.bytes < 16 << 10:  # below the limit: nothing is given up
            appended += 1
            spool.append(chunk(appended, size=8 * number))
        elif step in ("kill", "reopen"):
            left = spool.points + spool.rest_points
            killed(spool) if step == "kill" else spool.close()
            spools.append(Counted(folder, 32 << 10))
            front = spools[-1].rest
            assert spools[-1].points + spools[-1].rest_points == left
        elif step == "back":
            was_front = bool(front)
            if (found := next_one()) is not None:
                if was_front:
                    front.insert(0, found)
                else:
                    spool.back()
        elif (found := next_one()) is not None:
            rows = found.data.splitlines(keepends=True)
            if step == "part" and len(rows) > 1:
                delivered += rows[:1]
                front.insert(0, Chunk(b"".join(rows[1:]), len(rows) - 1, found.taken_ns))
            else:
                delivered += rows
            spool.done(front)
    assert [row.strip().decode() for row in delivered] == [f"{n}-{i}" for n in range(1, appended + 1) for i in range(3)]
    assert (spools[-1].points, spools[-1].rest_points) == (0, 0)
    assert not any(spool.lost for spool in spools)
    spools[-1].close()


def test_room_comes_back(opened: Opened) -> None:
    """Files are removed as soon as all of them is delivered, and the oldest when the room is used up: what stays are
    the newest, within the limit."""
    spool = opened(limit=80_000)
    for number in range(1, 301):
        spool.append(chunk(number, size=300))
        assert spool.bytes <= 80_000
    assert sum(path.stat().st_size for path in files(spool)) == spool.bytes > 60_000
    assert len(files(spool)) >= 8
    found = [one.taken_ns for one in drained(spool)]
    assert found == list(range(301 - len(found), 301))
    assert spool.lost == {"spool_full": 900 - 3 * len(found)}
    assert len(files(spool)) <= 1


def test_small_chunks_go_together(opened: Opened) -> None:
    """Chunks that are small are handed out together, up to the points asked for, and never across a damaged one."""
    spool = opened()
    for number in range(1, 11):
        spool.append(chunk(number))
    data = b"".join(chunk(number).data for number in range(1, 11))
    assert spool.first(10) == Chunk(data[: 9 * 8], 9, 1)
    spool.back()
    assert spool.first(9) == Chunk(data[: 9 * 8], 9, 1)
    spool.done([])
    (path,) = files(spool)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert spool.first(100) == Chunk(data[9 * 8 : 27 * 8], 18, 4)
    spool.done([])
    assert spool.first(100) is None
    assert (spool.points, spool.lost) == (0, {"spool_damaged": 3})


def test_what_is_at_work_is_counted_once(opened: Opened) -> None:
    """A chunk that is given up while it is delivered is lost only if that fails."""
    for delivered in (True, False):
        spool = opened(limit=8000, folder=str(delivered))
        spool.append(chunk(1, size=100))
        assert spool.first() == chunk(1, size=100)
        for number in range(2, 60):
            spool.append(chunk(number, size=100))
        given_up = spool.lost["spool_full"]
        if delivered:
            spool.done([])
        else:
            spool.back()
        assert spool.lost["spool_full"] - given_up == (0 if delivered else 3)
        assert spool.lost["spool_full"] + 3 * len(drained(spool)) + 3 * delivered == 3 * 59


def test_private(opened: Opened) -> None:
    """Nobody but the owner may read what was measured."""
    spool = opened(folder="new/spool")
    spool.append(chunk(1))
    spool.first()
    spool.done([chunk(2)])
    folder = pathlib.Path(spool.folder)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, folder.parent)] == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} == {"0000000001.spool", "lock", "position", "rest", "target"}


def test_one_process_a_folder(opened: Opened, tmp_path: pathlib.Path) -> None:
    """A folder that another process uses is refused, with what to try."""
    spool = opened()
    code = "import sys; from intcollector.exporters.spool import Spool; Spool(sys.argv[1], 'x', 1 << 20, print)"
    ran = subprocess.run([sys.executable, "-c", code, spool.folder], capture_output=True, text=True, timeout=60)
    assert f"is used by another collector (process {os.getpid()}): stop that one, or give --spool" in ran.stderr


@pytest.mark.parametrize("obstacle", ["a file", "read-only"])
def test_folder_that_cannot_be_used(tmp_path: pathlib.Path, obstacle: str) -> None:
    """A folder that cannot be made is an error in one sentence with what to try."""
    path = tmp_path / "file"
    path.write_text("")
    folder = path / "spool" if obstacle == "a file" else pathlib.Path("/proc/spool")
    with pytest.raises(ExporterError, match=r"cannot keep points in .* \(E[A-Z]+: .*\): give --spool a folder"):
        Counted(str(folder))


# --- files that are not as they were left -----------------------------------------------------------------------------


def left(opened: Opened, count: int = 6, limit: int = 1 << 20) -> Counted:
    """A spool with chunks 1 to count, left by a killed process."""
    spool = opened(limit)
    for number in range(1, count + 1):
        spool.append(chunk(number))
    killed(spool)
    return spool


def test_cut_anywhere(opened: Opened) -> None:
    """A file cut anywhere gives every chunk that is whole; of one that is not, its points are counted where they are
    known."""
    (path,) = files(left(opened))
    data = path.read_bytes()
    size = HEAD_SIZE + len(chunk(1).data)
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        (path.parent / "position").unlink(missing_ok=True)
        spool = opened()
        whole, beyond = divmod(max(0, end - len(BEGIN)), size)
        assert spool.points == 3 * whole + 3 * (beyond >= HEAD_SIZE)
        assert drained(spool) == [chunk(number) for number in range(1, whole + 1)]
        assert spool.lost == ({"spool_damaged": 3} if beyond >= HEAD_SIZE else {})
        spool.close()


@given(st.data())
def test_any_byte_changed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever bytes change, what comes out is what went in, in order, without what was hit; and the sums close."""
    folder = tmp_path_factory.mktemp("spool")
    spool = Counted(str(folder))
    for number in range(1, 8):
        spool.append(chunk(number))
    spool.first()
    spool.done([Chunk(b"rest\n", 1)])
    killed(spool)
    for name in ("0000000001.spool", "rest", "position"):
        path = folder / name
        content = bytearray(path.read_bytes())
        for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
            content[at] = value
        path.write_bytes(content)
    spool = Counted(str(folder))
    assert spool.rest in ([], [Chunk(b"rest\n", 1)])
    known = spool.points
    found = drained(spool)
    assert known == 3 * len(found) + sum(spool.lost.values())
    numbers = [one.taken_ns for one in found]
    assert found == [chunk(number) for number in numbers] and numbers == sorted(set(numbers))
    assert spool.points == 0
    spool.close()


def test_damage_costs_one_chunk(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged chunk is skipped, said and counted; those behind it come out."""
    (path,) = files(left(opened))
    content = bytearray(path.read_bytes())
    content[len(BEGIN) + HEAD_SIZE + len(chunk(1).data) + HEAD_SIZE + 2] ^= 1  # in the lines of the second
    path.write_bytes(content)
    spool = opened()
    assert [one.taken_ns for one in drained(spool)] == [1, 3, 4, 5, 6]
    assert spool.lost == {"spool_damaged": 3}
    assert f"{path} is damaged: 3 points are lost" in caplog.text


def test_files_that_are_not_ours(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    """Other files, another version's, and what looks like a file and is none are said and left alone, at every start,
    also when what came after them is delivered."""
    spool = left(opened)
    folder = pathlib.Path(spool.folder)
    (folder / "0000000005.spool").write_bytes(BEGIN.replace(b"1", b"2") + b"what will be")
    (folder / "0000000007.spool").mkdir()
    (folder / "0000000008.spool").symlink_to("/etc/passwd")
    (folder / "notes.txt").write_text("mine")
    spool = opened()
    assert [one.taken_ns for one in drained(spool)] == [1, 2, 3, 4, 5, 6]
    spool.append(chunk(7))
    assert (folder / "0000000009.spool").exists()
    assert "0000000005.spool is not of this version of the collector, and is left alone" in caplog.text
    assert "0000000007.spool cannot be read" in caplog.text and "0000000008.spool cannot be read" in caplog.text
    for number in (8, 9):
        drained(spool)
        killed(spool)
        caplog.clear()
        spool = opened()
        assert "0000000005.spool is not of this version of the collector, and is left alone" in caplog.text
        assert "0000000007.spool cannot be read" in caplog.text
        spool.append(chunk(number))
    drained(spool)
    spool.close()
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "0000000008.spool").is_symlink()
    assert (folder / "0000000005.spool").read_bytes() == BEGIN.replace(b"1", b"2") + b"what will be"


def test_removal_that_did_not_happen(opened: Opened) -> None:
    """A file that was delivered before a kill, and only not yet removed, does not come again."""
    spool = opened(limit=8000)  # files of 1000 bytes
    for number in range(1, 11):
        spool.append(chunk(number, size=50))
    first = files(spool)[0]
    content = first.read_bytes()
    while first.exists():
        spool.first()
        spool.done([])
    left = spool.points
    first.write_bytes(content)
    killed(spool)
    spool = opened(limit=8000)
    assert not first.exists() and spool.points == left
    assert sum(one.points for one in drained(spool)) == left and not spool.lost


def test_file_removed_by_hand(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    """A file that somebody removes while it waits costs its points, which are counted; a gap at the start is said."""
    spool = opened(limit=8000)  # files of 1000 bytes
    for number in range(1, 31):
        spool.append(chunk(number, size=50))
    assert len(files(spool)) > 5
    spool.first()
    files(spool)[2].unlink()
    spool.done([])
    found = drained(spool)
    assert spool.lost["spool_damaged"] == 90 - 3 - 3 * len(found) > 0
    for number in range(31, 61):
        spool.append(chunk(number, size=50))
    killed(spool)
    files(spool)[2].unlink()
    spool = opened(limit=8000)
    assert "are missing" in caplog.text
    assert {one.taken_ns for one in drained(spool)} < set(range(31, 61))


def test_folder_removed_by_hand(opened: Opened, tmp_path: pathlib.Path) -> None:
    """When somebody removes the folder, what it had is counted as lost, and what comes next is kept again."""
    spool = opened()
    spool.append(chunk(1))
    for path in pathlib.Path(spool.folder).iterdir():
        path.unlink()
    pathlib.Path(spool.folder).rmdir()
    assert spool.first() is None
    assert spool.lost == {"spool_damaged": 3}
    spool.append(chunk(2))
    assert drained(spool) == [chunk(2)]


def test_position_lost(opened: Opened) -> None:
    """Without the note of what is delivered, the file that was at work is delivered anew, and nothing else."""
    spool = opened(limit=8000)
    for number in range(1, 31):
        spool.append(chunk(number, size=50))
    for _ in range(10):
        spool.first()
        spool.done([])
    killed(spool)
    (pathlib.Path(spool.folder) / "position").unlink()
    found = [one.taken_ns for one in drained(opened(limit=8000))]
    assert found == list(range(found[0], 31)) and 11 - 5 <= found[0] <= 11


def test_numbers_are_not_used_again(opened: Opened) -> None:
    """After a power cut that cost whole files, new ones are not taken for those that were delivered."""
    spool = opened(limit=8000)
    for number in range(1, 31):
        spool.append(chunk(number, size=50))
    drained(spool)
    killed(spool)
    for path in files(spool):
        path.unlink()
    spool = opened(limit=8000)
    spool.append(chunk(31))
    killed(spool)
    assert drained(opened(limit=8000)) == [chunk(31)]


def test_disk_that_is_full(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that fails in the middle leaves nothing of its chunk; the next one works when there is room."""
    spool = opened()
    spool.append(chunk(1))
    size = files(spool)[0].stat().st_size
    pwrite = os.pwrite

    def full(file: int, data: bytes, at: int) -> int:
        if at > size + 10:
            raise OSError(28, "No space left on device")
        return pwrite(file, data[:20], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        spool.append(chunk(2))
    assert files(spool)[0].stat().st_size == size
    monkeypatch.undo()
    spool.append(chunk(3))
    assert drained(spool) == [chunk(1), chunk(3)]


# --- chunks, and folders beside ---------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), min_size=1), st.integers(1, 100))
def test_pieces_are_the_whole(rows: list[bytes], size: int) -> None:
    """A chunk in pieces has the same lines, each piece whole ones, and no more than asked for unless one is longer."""
    whole = Chunk(b"".join(row + b"\n" for row in rows), len(rows), 5)
    parts = pieces(whole, size)
    assert b"".join(part.data for part in parts) == whole.data
    for part in parts:
        assert part.data.count(b"\n") == part.points > 0 and part.data.endswith(b"\n") and part.taken_ns == 5
        assert len(part.data) <= size or part.points == 1


def test_what_waits_for_others(opened: Opened, tmp_path: pathlib.Path) -> None:
    """Folders beside are named if they hold something and nobody is at work there."""
    one, two = opened(folder="one"), opened(folder="two")
    one.append(chunk(1))
    two.append(chunk(2))
    opened(folder="three")
    assert list(waiting(str(tmp_path))) == []
    one.close()
    assert list(waiting(str(tmp_path))) == [(str(tmp_path / "one"), TARGET)]
    # Who looks holds up nobody who is to work there.
    looking = waiting(str(tmp_path))
    assert next(looking) == (str(tmp_path / "one"), TARGET)
    assert opened(folder="one").points == 3


def test_lock_that_is_held_for_a_moment(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks into a folder at the moment another one starts there does not keep that one out."""
    spool = opened()
    spool.close()
    looks = os.open(os.path.join(spool.folder, "lock"), os.O_RDONLY)
    fcntl.flock(looks, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda s: fcntl.flock(looks, fcntl.LOCK_UN))
    opened().append(chunk(1))
    os.close(looks)
