"""bpf/report.h as layout.py reads it, against everyone else who reads it: gcc, the kernel (BTF), bcc."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intcollector import kernel, layout, place
from intcollector.batch import FLOW, flow_seen_ns, seen_fields
from intcollector.config import Config
from intcollector.errors import LayoutError, LoadError
from intcollector.layout import LAYOUT, Layout
from intcollector.loader import Program
from intcollector.place import bpf_folder
from intcollector.program import SOURCE_FILE

from .frames import ARRAYS, HASHES, Datapaths, map_fd
from .needs import needs_root

CONFIG = Config(ring_size=1, max_flows=4096)
OURS = {name: dtype for name, dtype in LAYOUT.dtypes.items() if name != "bpf_spin_lock"}

Fields = list[tuple[str, int, int]]
"""(name, offset, size) of each field, bytes."""

AS_BYTES = {"flows", "new_flow", "points", "statistics", "counters", "refusals"}
"""Maps whose value is a struct that bcc knows as bytes only: bpf/maps.h, BYTES()."""
VALUES = ARRAYS | {
    "settings": "settings", "profiles": "profile", "flows": "flow", "new_flow": "flow", "refusals": "refusal",
}  # fmt: skip
"""map -> the struct that is its value"""
KEYS = HASHES | {"source_profiles": "source_prefix"}
"""map -> the struct that is its key"""


def fields_of(dtype: np.dtype) -> Fields:
    """As layout.py says."""
    return [(name, layout.offset(dtype, name), dtype[name].itemsize) for name in dtype.names or ()]


# --- gcc --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gcc(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a C program says of report.h: lines by their first word."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    lines = ["#include <stddef.h>", "#include <stdint.h>", "#include <stdio.h>", "#include <linux/bpf.h>"]
    lines += [f"typedef uint{bits}_t u{bits};" for bits in (8, 16, 32, 64)]
    lines += ['#include "report.h"', "int main(void) {"]
    for name, dtype in OURS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        for field in dtype.names or ():
            place = f"offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu %zu\\n", {place});')
    constants = LAYOUT.defines | {k: v for names in LAYOUT.enums.values() for k, v in names.items()}
    lines += [f'printf("{name} %lld\\n", (long long){name});' for name in constants]
    lines.append("return 0; }")
    folder = tmp_path_factory.mktemp("gcc")
    source, program = folder / "layout.c", folder / "layout"
    source.write_text("\n".join(lines))
    subprocess.run(["gcc", "-Wall", "-Werror", f"-I{bpf_folder()}", "-o", program, source], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {first: rest for first, *rest in map(str.split, said.splitlines())}


@pytest.mark.parametrize("name", OURS)
def test_gcc_lays_the_struct_out_the_same_way(gcc: dict[str, list[str]], name: str) -> None:
    """Each field stands where gcc puts it, in gcc's size, and the struct has gcc's size."""
    expected = [
        (field.split(".")[1], int(place[0]), int(place[1]))
        for field, place in gcc.items()
        if field.startswith(f"{name}.")
    ]
    assert fields_of(OURS[name]) == expected
    assert OURS[name].itemsize == int(gcc[name][0])


def test_gcc_gives_the_constants_the_same_values(gcc: dict[str, list[str]]) -> None:
    """Each define and each enumerator has the value it has in C."""
    for names in (LAYOUT.defines, *LAYOUT.enums.values()):
        assert names == {name: int(gcc[name][0]) for name in names}


# --- the kernel, and bcc ----------------------------------------------------------------------------------------------

BTF_GET_FD_BY_ID = 19
INT, ARRAY, STRUCT, ENUM, TYPEDEF, VAR, DATASEC = 1, 3, 4, 6, 8, 14, 15
MODIFIERS = (TYPEDEF, 9, 10, 11)  # and volatile, const, restrict


class Btf:
    """Type information of a loaded program (Documentation/bpf/btf.rst)."""

    def __init__(self, identity: int) -> None:
        descriptor = kernel.bpf(BTF_GET_FD_BY_ID, struct.pack("=III", identity, 0, 0))
        data = ctypes.create_string_buffer(1 << 20)
        said = ctypes.create_string_buffer(struct.pack("=QIIQII", ctypes.addressof(data), len(data), 0, 0, 0, 0))
        kernel.bpf(kernel.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, 32, ctypes.addressof(said)))
        _, _, _, head, types, types_size, strings, strings_size = struct.unpack_from("=HBBIIIII", data)
        raw = data.raw
        self._strings = raw[head + strings : head + strings + strings_size]
        self.types: dict[int, tuple[int, str, int, list[tuple[str, int, int]], tuple[int, int]]] = {}
        at, end, number = head + types, head + types + types_size, 1
        while at < end:
            name, info, size = struct.unpack_from("=III", raw, at)
            at += 12
            kind, count = info >> 24 & 31, info & 0xFFFF
            members, array = [], (0, 0)
            if kind == STRUCT:
                for i in range(count):
                    member, of, bits = struct.unpack_from("=III", raw, at + 12 * i)
                    members.append((self._string(member), of, bits & (0xFFFFFF if info >> 31 else 0xFFFFFFFF)))
            elif kind == ARRAY:
                element, _, length = struct.unpack_from("=III", raw, at)
                array = element, length
            more = {INT: 4, ARRAY: 12, STRUCT: 12 * count, 5: 12 * count, ENUM: 8 * count, 13: 8 * count, VAR: 4,
                    DATASEC: 12 * count, 17: 4, 19: 12 * count}  # fmt: skip
            at += more.get(kind, 0)
            self.types[number] = kind, self._string(name), size, members, array
            number += 1

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def size(self, number: int) -> int:
        """Of a type, bytes."""
        kind, _, size, _, (element, length) = self.types[number]
        if kind in MODIFIERS:
            return self.size(size)
        return self.size(element) * length if kind == ARRAY else size

    def struct(self, number: int) -> tuple[str, Fields]:
        """Name and fields of a struct."""
        kind, name, size, members, _ = self.types[number]
        if kind in MODIFIERS:
            return self.struct(size)
        assert kind == STRUCT
        return name, [(field, bits // 8, self.size(of)) for field, of, bits in members]


@needs_root
@pytest.mark.parametrize("name", [*VALUES, *KEYS])
def test_the_kernel_lays_the_value_out_the_same_way(datapaths: Datapaths, name: str) -> None:
    """BTF of the loaded map: each field of its value (or of its key) stands where numpy reads it."""
    information = kernel.info(map_fd(datapaths(CONFIG), name), 80)
    key_size, value_size = struct.unpack_from("=II", information, 8)
    identity, of_key, of_value = struct.unpack_from("=III", information, 64)
    btf = Btf(identity)
    if name in KEYS:
        assert btf.struct(of_key) == (KEYS[name], fields_of(LAYOUT.dtypes[KEYS[name]]))
        assert key_size == LAYOUT.dtypes[KEYS[name]].itemsize
    if name in VALUES:
        if name not in AS_BYTES:
            assert btf.struct(of_value) == (VALUES[name], fields_of(LAYOUT.dtypes[VALUES[name]]))
        assert value_size == LAYOUT.dtypes[VALUES[name]].itemsize


def leaf_fields(leaf: Any) -> Fields:
    """As ctypes says."""
    if issubclass(leaf, ctypes.Array):  # a per-CPU map: one for each CPU
        leaf = leaf._type_
    names = [name for name, *_ in leaf._fields_]
    return [(name, getattr(leaf, name).offset, getattr(leaf, name).size) for name in names]


@pytest.fixture(scope="module")
def tables() -> Iterator[Any]:
    """Maps as bcc sees them, by name: of a program that is compiled now, since one that was kept has no bcc."""
    program = Program(SOURCE_FILE)
    yield program.bpf
    program.close()


@needs_root
@pytest.mark.parametrize("name", [*VALUES, *KEYS])
def test_bcc_lays_the_value_out_the_same_way(tables: Any, name: str) -> None:
    """The Leaf and Key that bcc derives for a map have the fields and offsets that numpy reads."""
    table = tables[name.encode()]
    if name in KEYS:
        assert leaf_fields(table.Key) == fields_of(LAYOUT.dtypes[KEYS[name]])
    if name in VALUES and name not in AS_BYTES:
        assert leaf_fields(table.Leaf) == fields_of(LAYOUT.dtypes[VALUES[name]])


@needs_root
def test_the_compiler_of_the_program_lays_every_struct_out_the_same_way(tmp_path: Path) -> None:
    """Each field of each struct is where numpy reads it, says the compiler inside bcc, which refuses what is not so."""
    text = '#include <linux/types.h>\n#include <linux/bpf.h>\n#include "report.h"\n'

    def source(off_by: int) -> Path:
        asserts = [
            f"_Static_assert(__builtin_offsetof(struct {name}, {field}) == {at + off_by} &&"
            f' sizeof(((struct {name} *)0)->{field}) == {size}, "{name}.{field}");'
            for name, dtype in LAYOUT.dtypes.items()
            for field, at, size in fields_of(dtype)
        ]
        assert len(asserts) > 200
        path = tmp_path / f"layout{off_by}.c"
        path.write_text(text + "\n".join(asserts) + "\nint nothing(struct xdp_md *ctx) { return XDP_PASS; }\n")
        return path

    Program(str(source(0))).close()
    with pytest.raises(LoadError, match=r"report\.transport"):
        Program(str(source(1)))


# --- what an event is -------------------------------------------------------------------------------------------------


def test_cells() -> None:
    """Each cell of an event has its number at the same place, and the hops begin with a cell."""
    report, hop = LAYOUT.dtypes["report"], LAYOUT.dtypes["hop"]
    at = layout.offset(hop, "cell")
    assert hop.itemsize == layout.CELL
    assert [layout.offset(report, name) for name in ("cell", "cell1", "cell2")] == [at, 64 + at, 128 + at]
    assert layout.offset(report, "local") == layout.HEAD_CELLS * layout.CELL
    assert layout.offset(report, "hops") == layout.HEAD.itemsize == (layout.HEAD_CELLS + 1) * layout.CELL


def test_a_packet_that_goes_up_whole_travels_in_the_same_cells() -> None:
    """A cell of a whole packet is as a hop's, with its number at the same place, and enough of them make an event."""
    whole, hop = LAYOUT.dtypes["whole"], LAYOUT.dtypes["hop"]
    assert whole.itemsize == layout.CELL
    assert layout.offset(whole, "cell") == layout.offset(hop, "cell")
    assert whole["first"].itemsize + whole["rest"].itemsize == LAYOUT.defines["WHOLE_BYTES"]
    assert LAYOUT.defines["MAX_WHOLE"] * LAYOUT.defines["WHOLE_BYTES"] >= LAYOUT.defines["MAX_WHOLE_BYTES"]


def test_outcomes_are_told_by_number() -> None:
    """OUTCOMES has the name of outcome n at place n, and counters have room for all that the mask lets through."""
    assert [LAYOUT.enums["outcome"][f"OUTCOME_{name.upper()}"] for name in layout.OUTCOMES] == list(range(39))
    room = LAYOUT.enums["outcome"]["OUTCOMES"]
    assert LAYOUT.dtypes["counters"]["outcomes"].shape == (room,) == (64,)


# --- what is refused --------------------------------------------------------------------------------------------------


def struct_of(*lines: str) -> str:
    """A header with one struct, whose first field is in line 2."""
    return "\n".join(["struct thing {", *lines, "};"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (struct_of("u8 few : 3;"), "line 2: 'u8 few : 3;': is not a field"),
        (struct_of("u32 *where;"), r"line 2: 'u32 \*where;': is not a field"),
        (struct_of("u8 one; u8 two;"), "line 2: 'u8 one; u8 two;': is not a field"),
        (struct_of("u8 one, two;"), "line 2: 'u8 one, two;': is not a field"),
        (struct_of("int number;"), "line 2: 'int number;': is not a field"),
        (struct_of("u128 wide;"), "line 2: 'u128 wide;': is not a field"),
        (struct_of("u8 grid[2][2];"), "line 2: .* is not a field"),
        (struct_of("struct later inside;"), "line 2: 'struct later inside;': struct later is not known"),
        (struct_of("u8 many[SOME];"), r"line 2: 'u8 many\[SOME\];': SOME is not known"),
        (struct_of("u8 none[0];"), r"line 2: 'u8 none\[0\];': an array of 0 elements"),
        (struct_of("u8 small;", "u32 wide;"), "line 3: 'u32 wide;': thing.wide would be padded: offset 1 .* 4"),
        (struct_of("u32 wide;", "u8 small;"), "line 4: '};': struct thing would be padded at its end: 5 bytes"),
        (struct_of("u8 twice;", "u8 twice;"), "line 3: 'u8 twice;': thing.twice is there already"),
        (struct_of("u8 one;")[:-2] + "} __attribute__((packed));", r"line 3: '} __attribute__\(\(packed\)\);'"),
        ("union either {\nu8 one;\n};", "line 1: 'union either {'"),
        ("enum some {\nFIRST,\n};", "line 2: 'FIRST,'"),
        ("#define BOTH (1 | 2)", "line 1: '#define BOTH"),
        ("#if 1\n#endif", "line 1: '#if 1'"),
        ("u8 loose;", "line 1: 'u8 loose;'"),
        ("/* two\n   lines */\nu8 loose;", "line 3: 'u8 loose;'"),
        ("struct thing {\nu8 one;", "line 2: 'u8 one;': struct thing is not closed"),
        (struct_of(), "line 2: '};': struct thing has no fields"),
    ],
)
def test_other_forms_are_refused(text: str, message: str) -> None:
    """What layout.py does not read as C does is refused, with the line and the reason."""
    with pytest.raises(LayoutError, match=f"^report.h, {message}"):
        Layout(text)


def test_nested_structs_and_arrays() -> None:
    """A struct in a struct is aligned as its widest field; arrays are counted by defines, enumerators and numbers."""
    read = Layout(
        "#define TWO 2\nenum e {\nTHREE = 3,\n};\n"
        "struct in {\nu64 wide;\n};\nstruct out {\nu8 a[TWO];\nu8 b[THREE];\nu8 c[0x3];\nstruct in d[2];\n};"
    )
    assert fields_of(read.dtypes["out"]) == [("a", 0, 2), ("b", 2, 3), ("c", 5, 3), ("d", 8, 16)]
    with pytest.raises(LayoutError, match=r"out\.d would be padded: offset 4"):
        Layout("struct in {\nu64 wide;\n};\nstruct out {\nu32 a;\nstruct in d;\n};")


def test_three_hops_in_three_cache_lines() -> None:
    """Behind the 56 bytes that the kernel's hash puts in front; and each flow begins like the first."""
    assert (56 + FLOW.itemsize) % 64 == 0
    assert 56 + layout.offset(FLOW, "hops") + 3 * FLOW["hops"].base.itemsize == 3 * 64


@given(st.lists(st.integers(0, 2**60 - 1), max_size=5))
def test_when_a_flow_was_seen(times: list[int]) -> None:
    """Put into its two fields and read from them, a time is exact to 2^20 ns."""
    flows = np.zeros(len(times), FLOW)
    for name, values in seen_fields(np.array(times, np.int64)).items():
        flows[name] = values
    assert flow_seen_ns(flows).tolist() == [time >> 20 << 20 for time in times]


def test_the_installation_is_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without bpf/report.h the error says where it was looked for."""
    monkeypatch.setattr(place, "PACKAGE", tmp_path)
    with pytest.raises(LayoutError, match=f"neither beside nor inside {tmp_path}"):
        place.bpf_folder()
