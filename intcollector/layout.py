"""bpf/report.h -> numpy dtypes and constants: the one description of what crosses from the kernel.

The header keeps to a form that needs no C parser (its first comment says which); anything else is refused with a
sentence. Hidden padding cannot occur: an offset that C would round up is refused too.
"""

from __future__ import annotations

import enum
import pathlib
import re
from typing import Any

import numpy as np

from .errors import LayoutError

PACKAGE = pathlib.Path(__file__).resolve().parent


def bpf_folder() -> pathlib.Path:
    """Where the C sources are: in a checkout beside the package, installed inside it."""
    for folder in (PACKAGE.parent / "bpf", PACKAGE / "bpf"):
        if (folder / "report.h").is_file():
            return folder
    raise LayoutError(f"bpf/report.h is neither beside nor inside {PACKAGE}: the installation is incomplete")


SCALARS = {f"u{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)}

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"#define (\w+) (-?\w+)$")
_OPEN = re.compile(r"(struct|enum) (\w+) \{$")
_FIELD = re.compile(r"(struct \w+|u8|u16|u32|u64) (\w+)(?:\[(\w+)\])?;$")
_NAME = re.compile(r"(\w+) = (\w+),$")


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
        kind = name = ""
        fields: list[tuple] = []
        for at, raw in enumerate(plain.splitlines(), 1):
            line = " ".join(raw.split())
            try:
                if not line or re.fullmatch(r"#(ifndef|endif|define) ?\w*", line):
                    continue
                if m := _DEFINE.match(line):
                    self.defines[m[1]] = int(m[2], 0)
                elif m := _OPEN.match(line):
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
                    fields.append((m[1].removeprefix("struct "), m[2], m[3]))
                else:
                    raise LayoutError("is not a field, a constant or a brace as layout.py reads them")
            except (LayoutError, ValueError, KeyError) as error:
                raise LayoutError(f"report.h, line {at}: {line!r}: {error}") from None

    def _close(self, name: str, fields: list[tuple]) -> None:
        """Lay the fields out as C does, and refuse where C would pad."""
        names, formats, offsets, offset, widest = [], [], [], 0, 1
        for kind, field, count in fields:
            dtype = SCALARS.get(kind) or self.dtypes[kind]
            alignment = self._alignments[kind]
            if offset % alignment:
                raise LayoutError(f"{name}.{field} would be padded: offset {offset} is no multiple of {alignment}")
            number = 1 if count is None else self.defines.get(count) or self._enumerator(count)
            names.append(field)
            formats.append(dtype if count is None else (dtype, (number,)))
            offsets.append(offset)
            offset += dtype.itemsize * number
            widest = max(widest, alignment)
        if offset % widest:
            raise LayoutError(f"struct {name} would be padded at its end: {offset} bytes, alignment {widest}")
        self._alignments[name] = widest
        self.dtypes[name] = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})

    def _enumerator(self, text: str) -> int:
        for names in self.enums.values():
            if text in names:
                return names[text]
        return int(text, 0)


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
