"""Compiled programs that are kept: the same as compiled ones, whole or not used at all, and nobody else's."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from intcollector import compiled, kernel, loader
from intcollector.config import Config
from intcollector.decoding import KernelDecoder
from intcollector.errors import LoadError
from intcollector.loader import NotKept, Program
from intcollector.program import FUNCTIONS as FUNCTIONS_OF_IT
from intcollector.program import Loading, Wanted

from . import differ, strategies
from .needs import needs_root

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEADLINE_S = 60

SMALL = """
#include <linux/types.h>
#include <linux/bpf.h>
struct held { struct bpf_spin_lock lock; u32 count; };
BPF_ARRAY(locked, struct held, 2);
BPF_TABLE("lru_hash", u32, u64, recent, 16);
BPF_PERCPU_ARRAY(each, u64, 3);
BPF_F_TABLE("array", u32, u64, a_map_of_a_long_name, 8, 1U << 10);
BPF_PROG_ARRAY(others, 4);
int counts(struct xdp_md *ctx) {
	int zero = 0;
	struct held *held = locked.lookup(&zero);
	u64 *mapped = a_map_of_a_long_name.lookup(&zero), *own = each.lookup(&zero);
	if (!held || !mapped || !own)
		return XDP_ABORTED;
	bpf_spin_lock(&held->lock);
	held->count += STEP;
	bpf_spin_unlock(&held->lock);
	*mapped += STEP;
	*own += STEP;
	recent.update(&zero, mapped);
	return XDP_DROP;
}
int passes(struct xdp_md *ctx) { return XDP_PASS; }
"""
"""Maps of several kinds; counts() adds STEP to an entry of each."""
FUNCTIONS = ("counts", "passes")
PACKET = bytes(64)


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where programs are kept in this test: a folder that is not there yet."""
    path = tmp_path / "kept"
    monkeypatch.setenv(compiled.FOLDER_VARIABLE, str(path))
    return path


Load = Callable[..., Program]


@pytest.fixture
def load(folder: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Load]:
    """Load SMALL, or another text: closed when the test ends, or before."""
    loaded: list[Program] = []

    def program(text: str = SMALL, *, step: int = 3, keep: tuple[str, ...] = FUNCTIONS) -> Program:
        (tmp_path / "small.c").write_text(text)
        loaded.append(Program(str(tmp_path / "small.c"), [f"STEP={step}"], keep=keep))
        return loaded[-1]

    yield program
    for one in loaded:
        one.close()


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """The name and the content of the file in which SMALL is kept."""
    folder = tmp_path_factory.mktemp("once")
    (folder / "small.c").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.FOLDER_VARIABLE, str(folder / "kept"))
        Program(str(folder / "small.c"), ["STEP=3"], keep=FUNCTIONS).close()
    path = the_file(folder / "kept")
    return path.name, path.read_bytes()


@pytest.fixture
def kept(compiled_once: tuple[str, bytes], folder: pathlib.Path, load: Load) -> pathlib.Path:
    """The file in which SMALL is kept, in this test's folder; it is of use."""
    name, content = compiled_once
    folder.mkdir(mode=0o755)
    path = folder / name
    path.touch(0o600)
    path.write_bytes(content)
    program = load()
    assert program.kept
    program.close()
    return path


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.iterdir())


def the_file(folder: pathlib.Path) -> pathlib.Path:
    (path,) = files(folder)
    return path


def descriptors() -> set[str]:
    """What this process has open: number and what it is."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # of listdir itself
            continue
    return found


def works(program: Program, step: int = 3) -> None:
    """It does what SMALL says."""
    assert kernel.test_run(program.load("passes"), PACKET)[0] == kernel.XDP_PASS
    before = counted(program.map_fd("locked"))
    assert kernel.test_run(program.load("counts"), PACKET, repeat=5)[0] == kernel.XDP_DROP
    assert counted(program.map_fd("locked")) == before + 5 * step


def counted(descriptor: int, at: int = 4) -> int:
    """A number in an array's first entry of 8 bytes, by default as it stands in struct held."""
    value = np.zeros(8, np.uint8)
    kernel.map_lookup(descriptor, bytes(4), value)
    return int(value[at : at + 4].view("<u4")[0])


# --- the same ---------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("transport", ["ring", "perf"])
def test_the_collector_is_the_same_as_it_was_kept(folder: pathlib.Path, transport: str) -> None:
    """Every vector becomes the same record and leaves the same state, compiled now or before; each map is of the same
    kind, sizes, flags, name and BTF."""
    said, maps = [], []
    for kept in (False, True):
        decoder = KernelDecoder(Config(event_transport=transport, ring_size=1, max_flows=4096))
        try:
            assert decoder._datapath._program.kept == kept
            answers: list[Any] = []
            for options, group in differ.by_options(differ.VECTORS).items():
                decoder.apply(Config.from_options(json.loads(options)))
                answers += decoder.decode(bytes.fromhex(vector["packet"]) for vector in group)
                expected = [
                    {"outcome": v["outcome"], "reports": [strategies.kept(r) for r in v["reports"]]} for v in group
                ]
                assert answers[-len(group) :] == expected
            state = decoder._datapath.state()
            maps.append(maps_of(decoder._datapath._program))
            said.append(
                [
                    answers,
                    state.counters["outcomes"].tolist(),
                    sorted(map(bytes, state.flow_keys)),
                    state.sources[["switch_id", "received", "lost", "reordered"]].tolist(),
                    sorted(map(bytes, state.drop_keys)),
                    (len(state.ports), len(state.queues)),
                ]
            )
        finally:
            decoder._datapath.close()
    assert said[0] == said[1]
    assert maps[0] == maps[1] and len(maps[0]) > 10
    assert len(files(folder)) == 1


def maps_of(program: Program) -> dict[str, tuple[Any, ...]]:
    """By name: what the kernel says of each map, its identity aside, and the BTF of its key and value."""
    found = {}
    names = program._maps.names if program._maps else [name for name, _ in program._numbered_maps().values()]
    for name, descriptor in ((name, program.map_fd(name)) for name in names):
        one, btf = compiled._map_of(name, descriptor)
        called = kernel.info(descriptor, 80)[24:40].split(b"\0")[0]
        found[name] = (one, called, compiled._btf_of(btf) if btf else b"")
    return found


@needs_root
def test_maps_are_the_same_as_they_were_kept(load: Load) -> None:
    """Kind, sizes, flags, name and BTF of each map."""
    first, second = load(), load()
    assert (first.kept, second.kept) == (False, True)
    assert maps_of(first) == maps_of(second)
    assert {"locked", "recent", "each", "a_map_of_a_long_name", "others"} == maps_of(first).keys()
    assert maps_of(second)["locked"][0].btf_value and maps_of(second)["a_map_of_a_long_name"][0].flags == 1 << 10


@needs_root
def test_a_kept_program_works(load: Load) -> None:
    """Spin locks, mapped and per-CPU maps do what they did, and two programs of one file share nothing."""
    load().close()
    one, two = load(), load()
    assert one.kept and two.kept
    works(one)
    works(one)
    works(two)
    assert counted(one.map_fd("locked")) == 30 and counted(two.map_fd("locked")) == 15
    assert one.load("counts") == one.load("counts") != two.load("counts")
    assert one.bpf is None


@needs_root
def test_a_copy_with_another_map(load: Load) -> None:
    """A function can be loaded once more with another map in the place of one, whether it was kept or not."""
    for kept in (False, True):
        program = load()
        assert program.kept == kept
        mapped = program.map_fd("a_map_of_a_long_name")
        other = kernel.bpf(kernel.MAP_CREATE, struct.pack("=IIIII", 2, 4, 8, 8, 1 << 10) + bytes(52))
        copy = program.copy("counts", 0, {mapped: other})
        try:
            kernel.test_run(copy, PACKET)
            assert (counted(mapped, 0), counted(other, 0), counted(program.map_fd("locked"))) == (0, 3, 3)
        finally:
            os.close(other)
            os.close(copy)
        with pytest.raises(LoadError, match=r"cannot load counts for attach type 35 \(.+\)"):
            program.copy("counts", 35, {mapped: 1 << 20})  # which is no map


@needs_root
def test_how_it_came_is_logged(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """With -v: compiled or not, and how long that and the verifier took."""
    caplog.set_level(logging.DEBUG, "intcollector")
    load()
    load()
    took = r"in \d\.\d+ s; verified in \d\.\d+ s"
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 2
    for message, how in zip(messages, ("compiled", "as it was compiled before"), strict=True):
        assert re.fullmatch(rf"small\.c: {how}, {took}", message)


# --- which file -------------------------------------------------------------------------------------------------------


@needs_root
def test_what_differs_has_a_file_of_its_own(load: Load, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text, option, function or compiler is compiled; each is there the next time."""
    programs: list[dict[str, Any]] = [{}, {"step": 4}, {"text": SMALL + "\n"}, {"keep": ("counts",)}]
    for kept in (False, True):
        assert [load(**one).kept for one in programs] == [kept] * 4
        assert len(files(folder)) == 4
    works(load(step=4), step=4)
    monkeypatch.setattr(loader, "_compiler", lambda: ["another"])
    assert not load().kept and load().kept
    assert len(files(folder)) == 5


def test_what_a_compiler_is_told_by(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bcc, another time of its installation, other headers of ours: another compiler."""
    said = [loader._compiler()]
    assert said[0] == loader._compiler()
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    said.append(loader._compiler())
    os.utime(tmp_path / "bcc/__init__.py", ns=(1, 1))
    said.append(loader._compiler())
    (tmp_path / "include").mkdir()
    (tmp_path / "include/one.h").write_text("")
    monkeypatch.setattr(loader, "bpf_folder", lambda: tmp_path)
    said.append(loader._compiler())
    assert len({tuple(one) for one in said}) == 4
    names = {compiled.name_of(one) for one in (*said, ["a", "b"], ["ab"], ["a\0b", ""])}
    assert len(names) == 7


@needs_root
def test_an_empty_name_keeps_nothing(load: Load, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INTCOLLECTOR_CACHE set to nothing: each time it is compiled, and nothing is written."""
    monkeypatch.setenv(compiled.FOLDER_VARIABLE, "")
    monkeypatch.setattr(compiled, "FOLDER", str(tmp_path / "default"))
    assert not load().kept and not load().kept
    assert files(tmp_path) == [tmp_path / "small.c"]
    monkeypatch.delenv(compiled.FOLDER_VARIABLE)
    assert compiled.folder() == tmp_path / "default"


# --- files that are of no use -----------------------------------------------------------------------------------------


@needs_root
def test_a_file_is_whole_or_not_read(load: Load, folder: pathlib.Path) -> None:
    """Cut at any point, or with any bit turned, it is refused, and never half of it taken."""
    load()
    path = the_file(folder)
    whole, content = path.read_bytes(), compiled.read(path)
    chance = random.Random(7)
    cuts = {*range(120), *chance.sample(range(len(whole)), 200), len(whole) - 1}
    turned = {*range(8 * 80), *chance.sample(range(8 * len(whole)), 400)}
    for end in cuts:
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="not whole"):
            compiled.read(path)
    for bit in turned:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not whole"):
            compiled.read(path)
    path.write_bytes(whole)
    assert compiled.read(path) == content


def rewritten(change: Callable[[Any], Any]) -> Callable[[pathlib.Path], None]:
    """Damage: the content is changed, and the file as whole as before."""

    def damage(path: pathlib.Path) -> None:
        said = json.loads(path.read_bytes().partition(b"\n")[2])
        changed = change(said)
        body = json.dumps(said if changed is None else changed).encode()
        path.write_bytes(compiled._first_line(body) + body)

    return damage


def as_format(number: int) -> Callable[[pathlib.Path], None]:
    """Damage: the file is of another format."""

    def damage(path: pathlib.Path) -> None:
        text = path.read_bytes()
        path.write_bytes(text.replace(b" %d " % compiled.FORMAT, b" %d " % number, 1))

    return damage


def instead(make: Callable[[pathlib.Path], object]) -> Callable[[pathlib.Path], None]:
    """Damage: something else is in the file's place."""

    def damage(path: pathlib.Path) -> None:
        path.rename(path.parent / "moved")
        make(path)

    return damage


def not_json(path: pathlib.Path) -> None:
    body = b'{"functions": '
    path.write_bytes(compiled._first_line(body) + body)


def cut(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


NO_RESULT = "9500000000000000"  # exit, r0 not set
UNBOUNDED = "61110000000000006110000000000000" + NO_RESULT  # reads behind ctx->data without a look at data_end
HALF = NO_RESULT + "95"
OTHER_CONSTANT = "1840000000000000" + "00" * 8 + NO_RESULT  # something of the kernel that is no map

DAMAGES = {
    "cut": cut,
    "empty": lambda path: os.truncate(path, 0),
    "not JSON": not_json,
    "another thing in JSON": rewritten(lambda said: [1, 2]),
    "older format": as_format(compiled.FORMAT - 1),
    "newer format": as_format(compiled.FORMAT + 1),
    "no function": rewritten(lambda said: said["functions"].pop("counts") and None),
    "one function more": rewritten(lambda said: said["functions"].update(more=NO_RESULT)),
    "no functions": rewritten(lambda said: said.pop("functions") and None),
    "a list of functions": rewritten(lambda said: said.update(functions=list(said["functions"]))),
    "refused instructions": rewritten(lambda said: said["functions"].update(passes=NO_RESULT)),
    "refused access": rewritten(lambda said: said["functions"].update(passes=UNBOUNDED)),
    "half an instruction": rewritten(lambda said: said["functions"].update(passes=HALF)),
    "no instructions": rewritten(lambda said: said["functions"].update(passes="")),
    "another kind of constant": rewritten(lambda said: said["functions"].update(passes=OTHER_CONSTANT)),
    "no map": rewritten(lambda said: said["maps"].pop(0) and None),
    "no maps": rewritten(lambda said: said.update(maps=[])),
    "a map of no kind": rewritten(lambda said: said["maps"][0].__setitem__(2, 4096)),
    "a map of a negative size": rewritten(lambda said: said["maps"][0].__setitem__(3, -1)),
    "half a map": rewritten(lambda said: said["maps"][0].pop() and None),
    "maps without types": rewritten(lambda said: said.update(btf="")),
    "other types": rewritten(lambda said: said.update(btf="00" * 64)),
    "types that are no bytes": rewritten(lambda said: said.update(btf=7)),
    "a pipe": instead(os.mkfifo),
    "a link": instead(lambda path: path.symlink_to(path.parent / "moved")),
    "a link to nothing": instead(lambda path: path.symlink_to(path.parent / "nothing")),
}


@needs_root
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_file_of_no_use_is_replaced(
    load: Load,
    kept: pathlib.Path,
    folder: pathlib.Path,
    damage: Callable[[pathlib.Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is in it, the program is compiled instead, says nothing, and is kept anew; nothing stays open."""
    damage(kept)
    before = descriptors()
    program = load()
    assert not program.kept
    works(program)
    program.close()
    assert descriptors() == before
    again = load()
    assert again.kept
    works(again)
    assert warnings_of(caplog) == []
    assert {one for one in files(folder) if one.name != "moved"} == {kept} and not kept.is_symlink()


@needs_root
def test_a_program_that_is_refused_is_not_kept(load: Load, folder: pathlib.Path) -> None:
    """The verifier's words are in the error, nothing is kept, and nothing stays open."""
    load(keep=()).close()  # what bcc opens for good
    before = descriptors()
    for _ in range(2):
        with pytest.raises(LoadError, match=r"(?s)cannot load reads:.*invalid access to packet"):
            load(SMALL + "int reads(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }", keep=("counts", "reads"))
        with pytest.raises(LoadError, match=r"(?s)cannot compile small\.c.*nonsense"):
            load("int counts(struct xdp_md *ctx) { return nonsense; }")
    assert descriptors() == before
    assert not folder.exists()


@needs_root
def test_only_what_is_kept_can_be_loaded(load: Load) -> None:
    """A function that was not named is not there, whether the program was kept or not."""
    for kept in (False, True):
        program = load(keep=("counts",))
        assert program.kept == kept
        with pytest.raises(KeyError):
            program.load("passes")
    program = load(keep=())
    assert not program.kept and not load(keep=()).kept
    works(program)


@needs_root
def test_nothing_stays_open(load: Load) -> None:
    """Closing gives all descriptors back, of a program that was compiled and of one that was kept."""
    load(keep=()).close()  # what bcc opens for good
    before = descriptors()
    for kept in (False, True, True):
        program = load()
        assert program.kept == kept
        works(program)
        program.close()
        program.close()
        assert descriptors() == before


# --- folders ----------------------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG]


@needs_root
@pytest.mark.parametrize(
    ("mode", "owner", "who"),
    [
        (0o777, 0, "others (mode 0777)"),
        (0o775, 0, "others (mode 0775)"),
        (0o1757, 0, "others (mode 1757)"),
        (0o755, 65534, "user 65534, whose it is"),
    ],
)
def test_a_folder_of_others_is_not_used(
    load: Load,
    kept: pathlib.Path,
    folder: pathlib.Path,
    mode: int,
    owner: int,
    who: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where others can write nothing is read or written; a warning says where, who and what to do."""
    text, changed = kept.read_bytes(), kept.stat().st_mtime_ns
    folder.chmod(mode)
    os.chown(folder, owner, owner)
    program = load()
    assert not program.kept
    works(program)
    (said,) = warnings_of(caplog)
    assert said.startswith(f"{folder} is not used, since it can be written by {who}")
    assert "chmod go-w" in said and "chown root" in said
    assert the_file(folder).read_bytes() == text and kept.stat().st_mtime_ns == changed
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    assert load().kept


@needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o620, 0), (0o602, 0), (0o600, 65534)])
def test_a_file_of_others_is_replaced(
    load: Load, kept: pathlib.Path, mode: int, owner: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What others can write to is not read; a warning names it, and the next one is ours alone."""
    kept.chmod(mode)
    os.chown(kept, owner, owner)
    assert not load().kept
    (said,) = warnings_of(caplog)
    assert said.startswith(f"{kept} is not used") and "replaced" in said
    assert (kept.stat().st_mode & 0o777, kept.stat().st_uid) == (0o600, 0)
    caplog.clear()
    assert load().kept and not warnings_of(caplog)


@needs_root
@pytest.mark.parametrize("umask", [0, 0o22, 0o77, 0o777])
def test_nobody_else_can_write_whatever_the_umask(load: Load, folder: pathlib.Path, umask: int) -> None:
    """Neither to the file nor to the folder that is made for it."""
    before = os.umask(umask)
    try:
        assert not load().kept and load().kept
    finally:
        os.umask(before)
    assert the_file(folder).stat().st_mode & 0o177 == 0
    assert folder.stat().st_mode & 0o022 == 0


def nowhere(folder: pathlib.Path) -> pathlib.Path:
    return folder / "missing"


def in_a_file(folder: pathlib.Path) -> pathlib.Path:
    folder.write_text("")
    return folder


def below_a_file(folder: pathlib.Path) -> pathlib.Path:
    folder.write_text("")
    return folder / "below"


def below_proc(folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path("/proc/self/here")


@needs_root
@pytest.mark.parametrize("where", [nowhere, in_a_file, below_a_file, below_proc])
def test_where_nothing_can_be_kept(
    load: Load,
    folder: pathlib.Path,
    where: Callable[[pathlib.Path], pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a folder that can be written it runs all the same, and says so only with -v."""
    caplog.set_level(logging.DEBUG, "intcollector")
    path = where(folder)
    monkeypatch.setenv(compiled.FOLDER_VARIABLE, str(path))
    for _ in range(2):
        program = load()
        assert not program.kept
        works(program)
    assert warnings_of(caplog) == []
    assert sum("not kept" in r.getMessage() for r in caplog.records) == 2
    assert not path.is_dir()


SCRIPT = """
import logging, os, sys
logging.basicConfig(level=logging.INFO)
before = set(os.listdir("/proc/self/fd"))
from intcollector.errors import LoadError
from intcollector.loader import Program
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    program = Program(sys.argv[1], ["STEP=3"], keep=("counts", "passes"))
    print(program.kept)
    program.close()
except LoadError as error:
    print(error)
"""


def in_a_process(tmp_path: pathlib.Path, *more: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Load SMALL in another process; it prints whether it was kept, or the error."""
    command = [*before, sys.executable, "-c", SCRIPT, str(tmp_path / "small.c"), *more]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=True, stdin=subprocess.DEVNULL
    )


@needs_root
def test_a_folder_to_read_only(load: Load, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What is kept in it is used; what is not is compiled each time, without a word."""
    folder.mkdir()
    load(keep=())
    mount = f'mount --bind "{folder}" "{folder}"; mount -o remount,bind,ro "{folder}"; exec "$@"'
    unshare = ("unshare", "--mount", "sh", "-eu", "-c", mount, "sh")
    done = in_a_process(tmp_path, before=unshare)
    assert (done.stdout, done.stderr, files(folder)) == ("False\n", "", [])
    assert not load().kept
    done = in_a_process(tmp_path, before=unshare)
    assert (done.stdout, done.stderr, len(files(folder))) == ("True\n", "", 1)


@needs_root
def test_without_root_nothing_that_is_kept_helps(load: Load, folder: pathlib.Path) -> None:
    """Who may not load programs is told to be root, whether the file can be read or not."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as open_to_all:
        where = pathlib.Path(open_to_all)
        where.chmod(0o755)
        (where / "small.c").write_text(SMALL)
        patch.setenv(compiled.FOLDER_VARIABLE, str(where / "kept"))
        assert in_a_process(where).stdout == "False\n"
        for mode in (0o600, 0o644):
            the_file(where / "kept").chmod(mode)
            assert in_a_process(where, "nobody").stdout == f"{loader.NOT_PERMITTED}\n"
        assert in_a_process(where).stdout == "True\n"


CONTENT = compiled.Content({"f": bytes(8)}, {}, b"")


def test_so_many_are_kept(folder: pathlib.Path) -> None:
    """Of more files those that were used last stay; what is not ours to judge stays too."""
    names = [f"{number:02}{compiled.SUFFIX}" for number in range(compiled.MAX_FILES + 3)]
    for older, name in enumerate(reversed(names[:-1])):
        compiled.write(folder / name, CONTENT)
        os.utime(folder / name, (1000, time.time() - 1000 - 10 * older))
    assert len(files(folder)) == compiled.MAX_FILES
    stay = {path.name for path in files(folder)}
    oldest = min(stay, key=lambda name: (folder / name).stat().st_mtime)
    compiled.read(folder / oldest)
    (folder / "note").write_text("")
    for name, age in (("just.new", 0.0), ("left.new", 2.0 * compiled.UNFINISHED_S)):
        (folder / name).write_text("")
        os.utime(folder / name, (1000, time.time() - age))
    second = min(stay - {oldest}, key=lambda name: (folder / name).stat().st_mtime)
    compiled.write(folder / names[-1], CONTENT)
    assert {path.name for path in files(folder)} == stay - {second} | {names[-1], "note", "just.new"}


def test_writing_that_fails_leaves_nothing(folder: pathlib.Path) -> None:
    """What cannot be put in its place is not left under another name."""
    folder.mkdir(mode=0o755)
    path = folder / f"one{compiled.SUFFIX}"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        compiled.write(path, CONTENT)
    assert files(folder) == [path]


def test_readers_see_a_whole_file_while_others_write_it(folder: pathlib.Path) -> None:
    """At any moment a file that several write is one of theirs, whole."""
    path = folder / f"one{compiled.SUFFIX}"
    contents = [compiled.Content({"f": bytes([n]) * 8 * 4000 * (n + 1)}, {}, b"") for n in range(3)]
    compiled.write(path, contents[0])
    ended = threading.Event()

    def write(content: compiled.Content) -> None:
        for _ in range(150):
            compiled.write(path, content)

    def read() -> set[int]:
        seen = set()
        while not ended.is_set():
            content = compiled.read(path)
            assert content in contents
            seen.add(len(content.functions["f"]))
        return seen

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            for writer in [threads.submit(write, content) for content in contents]:
                writer.result(DEADLINE_S)
        finally:
            ended.set()
        assert all(reader.result(DEADLINE_S) for reader in readers)
    assert files(folder) == [path]


@needs_root
def test_processes_that_start_at_once(load: Load, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Several that compile the same at once all work, and leave one file, which the next one takes."""
    (tmp_path / "small.c").write_text(SMALL)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: in_a_process(tmp_path), range(4)))
    assert {one.stdout for one in done} <= {"False\n", "True\n"} and not any(one.stderr for one in done)
    assert the_file(folder).suffix == compiled.SUFFIX
    program = load()
    assert program.kept
    works(program)


@needs_root
def test_loaded_while_the_rest_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is begun before anything else is imported is the program that was kept; where none was, nothing is compiled
    beside the rest, but by who asks for the program."""
    config = Config(ring_size=1)
    Loading(config).program().close()
    loading = Loading(config)
    loading._thread.join()
    assert loading._program is not None
    program = loading.program()
    assert program.kept and set(program._loaded) == set(FUNCTIONS_OF_IT)
    program.close()
    monkeypatch.setenv(compiled.FOLDER_VARIABLE, "")
    with pytest.raises(NotKept):
        Wanted.by(config).program(may_compile=False)


def test_no_numpy_before_the_program_is_loaded() -> None:
    """Importing what loads the program imports nothing that takes long."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys, intcollector.program; print('numpy' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "False\n"
