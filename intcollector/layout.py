"""bpf/report.h -> numpy dtypes and constants: the one description of what crosses from the kernel.

The header keeps to a form that needs no C parser (its first comment says which); anything else is refused with a
sentence. Hidden padding cannot occur: an offset that C would round up is refused too.
"""

from __future__ import annotations

import enum
import re
from typing import Any, NamedTuple

import numpy as np

from .errors import LayoutError
from .place import bpf_folder

SCALARS = {f"u{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)}

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"#define (\w+) (-?\w+)$")
_OPEN = re.compile(r"(struct|enum) (\w+) \{$")
_FIELD = re.compile(r"(struct \w+|u8|u16|u32|u64) (\w+)(?:\[(\w+)\])?;$")
_NAME = re.compile(r"(\w+) = (\w+),$")


class _Field(NamedTuple):
    name: str
    dtype: np.dtype
    offset: int
    alignment: int

    @property
    def end(self) -> int:
        return self.offset + self.dtype.itemsize


class Layout:
    """What a header says. dtypes: by struct name; enums: by enum name; defines: by macro name.

    Errors: LayoutError, naming the line.
    """

    def __init__(self, text: str) -> None:
        self.dtypes: dict[str, np.dtype] = {"bpf_spin_lock": SCALARS["u32"]}  # the kernel's
        self.enums: dict[str, dict[str, int]] = {}
        self.defines: dict[str, int] = {}
        self._alignments = {name: dtype.itemsize for name, dtype in SCALARS.items()} | {"bpf_spin_lock": 4}
        plain = _COMMENT.sub(lambda m: "\n" * m.group().count("\n"), text)
        kind = name = line = ""
        at = 0
        fields: list[_Field] = []
        try:
            for at, raw in enumerate(plain.splitlines(), 1):  # noqa: B007 - for the error below
                line = " ".join(raw.split())
                if not line or re.fullmatch(r"#(ifndef|endif|define) ?\w*", line):
                    continue
                if m := _DEFINE.match(line):
                    self.defines[m[1]] = int(m[2], 0)
                elif not kind and (m := _OPEN.match(line)):
                    kind, name, fields = m[1], m[2], []
                    if kind == "enum":
                        self.enums[name] = {}
                elif line == "};" and kind:
                    if kind == "struct":
                        self._close(name, fields)
                    kind = ""
                elif kind == "enum" and (m := _NAME.match(line)):
                    self.enums[name][m[1]] = int(m[2], 0)
                elif kind == "struct" and (m := _FIELD.match(line)):
                    fields.append(self._field(f"{name}.{m[2]}", fields, m[1].removeprefix("struct "), m[2], m[3]))
                else:
                    raise LayoutError("is not a field, a constant or a brace as layout.py reads them")
            if kind:
                raise LayoutError(f"{kind} {name} is not closed")
        except (LayoutError, ValueError) as error:
            raise LayoutError(f"report.h, line {at}: {line!r}: {error}") from None

    def _field(self, where: str, before: list[_Field], kind: str, name: str, count: str | None) -> _Field:
        """The next field of a struct, behind the others, where C puts it; refused where C would pad."""
        dtype = SCALARS.get(kind) or self.dtypes.get(kind)
        if dtype is None:
            raise LayoutError(f"struct {kind} is not known yet")
        if any(field.name == name for field in before):
            raise LayoutError(f"{where} is there already")
        offset, alignment = before[-1].end if before else 0, self._alignments[kind]
        if offset % alignment:
            raise LayoutError(f"{where} would be padded: offset {offset} is no multiple of {alignment}")
        if count is not None:
            dtype = np.dtype((dtype, (self._number(count),)))
        return _Field(name, dtype, offset, alignment)

    def _close(self, name: str, fields: list[_Field]) -> None:
        """A struct is complete; refused where C would pad its end."""
        if not fields:
            raise LayoutError(f"struct {name} has no fields")
        size, widest = fields[-1].end, max(field.alignment for field in fields)
        if size % widest:
            raise LayoutError(f"struct {name} would be padded at its end: {size} bytes, alignment {widest}")
        self._alignments[name] = widest
        layout: Any = {
            "names": [field.name for field in fields],
            "formats": [field.dtype for field in fields],
            "offsets": [field.offset for field in fields],
            "itemsize": size,
        }
        self.dtypes[name] = np.dtype(layout)

    def _number(self, text: str) -> int:
        """How many: a number, a define or an enumerator."""
        known = {name: value for names in self.enums.values() for name, value in names.items()} | self.defines
        if text not in known and not text[0].isdigit():
            raise LayoutError(f"{text} is not known yet")
        number = known[text] if text in known else int(text, 0)
        if number < 1:
            raise LayoutError(f"an array of {number} elements")
        return number


LAYOUT = Layout((bpf_folder() / "report.h").read_text())

MAX_HOPS = LAYOUT.defines["MAX_HOPS"]
CELL = LAYOUT.defines["CELL"]
HEAD_CELLS = LAYOUT.defines["HEAD_CELLS"]
LATENCY_BUCKETS = LAYOUT.defines["LATENCY_BUCKETS"]

HOP = LAYOUT.dtypes["hop"]
REPORT = LAYOUT.dtypes["report"]
"""A whole struct report, hops included: what the kernel program keeps a packet in."""


def offset(dtype: np.dtype, name: str) -> int:
    """Where in a struct a field begins, bytes."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def _head() -> np.dtype:
    names = [n for n in REPORT.names or () if n != "hops"]
    layout: Any = {
        "names": names,
        "formats": [REPORT[n] for n in names],
        "offsets": [offset(REPORT, n) for n in names],
        "itemsize": offset(REPORT, "hops"),
    }
    return np.dtype(layout)


HEAD = _head()
"""A struct report without its hops: the part that every event has."""


def _flags(name: str, prefix: str) -> Any:
    return enum.IntFlag(name, {k.removeprefix(prefix): v for k, v in LAYOUT.enums[name].items()})


ReportFlag = _flags("report_flag", "REPORT_")
FlowFlag = _flags("flow_flag", "FLOW_")
Change = _flags("change", "CHANGE_")
OUTCOMES = tuple(k.removeprefix("OUTCOME_").lower() for k in LAYOUT.enums["outcome"] if k != "OUTCOMES")
"""Outcome names by number, as users see them."""
ACCEPTED = tuple(OUTCOMES.index(name) for name in ("ok", "unknown_encapsulation"))
"""Outcomes of packets whose reports are kept."""
