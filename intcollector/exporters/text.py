"""Spelling many lines at once: columns of numbers and labels -> text, without a loop over lines."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..series import Column, texts


class LabelTexts:
    """The text of labels, remembered: what has the same labels as before is looked up and not spelled.

    spell: (names, values of each thing) -> a text each. limit: when there are more, all but those asked for last are
    forgotten.
    """

    def __init__(self, spell: Callable[[Sequence[str], Iterable[tuple[str, ...]]], Iterable[str]], limit: int) -> None:
        self._spell = spell
        self._limit = limit
        self._known: dict[tuple[str, ...], dict[Hashable, str]] = {}
        self._last: tuple[Mapping[str, Column], np.ndarray] = ({}, np.empty(0, object))

    def __len__(self) -> int:
        return sum(map(len, self._known.values()))

    def of(self, columns: Mapping[str, Column]) -> np.ndarray:
        """object (n,) of str. A Python loop over what is new. The very columns that were asked for last (all points of
        a flow have them in common) are not looked at again."""
        if columns is self._last[0]:
            return self._last[1]
        names = tuple(columns)
        keys = _keys(list(columns.values()))
        known = self._known.setdefault(names, {})
        out: list[Any] = list(map(known.get, keys))
        if None in out:
            new = [row for row, text in enumerate(out) if text is None]
            values = zip(*(texts(column[new]) for column in columns.values()), strict=True)
            for row, text in zip(new, self._spell(names, values), strict=True):
                out[row] = known[keys[row]] = text
        if len(known) > self._limit:
            self._known[names] = dict(zip(keys, out, strict=True))
        made = np.empty(len(out), object)
        made[:] = out
        self._last = columns, made
        return made


def _keys(columns: Sequence[Column]) -> Sequence[Hashable]:
    """What tells a row from others."""
    if len(columns) == 1:
        return columns[0].tolist()
    if any(column.dtype.kind == "O" for column in columns):
        return list(zip(*(column.tolist() for column in columns), strict=True))
    packed = np.empty(len(columns[0]), [("", column.dtype) for column in columns])
    for name, column in zip(packed.dtype.names or (), columns, strict=True):
        packed[name] = column
    return packed.view(f"V{packed.dtype.itemsize}").tolist()


WOVEN_ROWS = 4000
"""Pieces of so many rows stay in the processor's cache, and in memory that is there already."""


def woven(count: int, *columns: str | Sequence[str]) -> list[bytes]:
    """So many rows of texts: each column's first, each column's second ... A str stands in every row. UTF-8, in pieces.

    Joined as str: bytes.join() takes 80 bytes of memory a text, and several times as long.
    """
    pieces = []
    for first in range(0, count, WOVEN_ROWS):
        rows = min(count - first, WOVEN_ROWS)
        row_by_row = [""] * (rows * len(columns))
        for at, column in enumerate(columns):
            texts_of = [column] * rows if isinstance(column, str) else column[first : first + rows]
            row_by_row[at :: len(columns)] = texts_of
        pieces.append("".join(row_by_row).encode())
    return pieces


DECIMALS = 9
"""Latencies are whole ns."""
SCIENTIFIC_BELOW = 10 ** (DECIMALS - 4)
"""repr() writes 0.0001, and what is less as 9e-05."""
POWERS = 10 ** np.arange(DECIMALS, dtype=np.uint32)
THREE_DIGITS = (np.arange(1000, dtype=np.uint32)[:, None] // np.array([100, 10, 1], np.uint32)) % 10 + ord("0")
"""Characters of 000 to 999."""


def numbers(column: Column) -> list[str]:
    """int64 or float64 (n,) as repr() has them: the fewest digits that read back the same.

    To find these is most of the time that a line takes. A number of at most DECIMALS decimals below 1 is known to have
    no others: fewer than 16 digits read back the same, and only these do. Those are written digit by digit, all
    numbers at once.
    """
    if column.dtype.kind != "f":
        return _written(column)
    units = np.rint(np.where((column > 0) & (column < 1), column, 0) * 10.0**DECIMALS)
    short = (units > 0) & (units < 10**DECIMALS) & (units / 10.0**DECIMALS == column)
    out = np.empty(len(column), object)
    for rows, write in (
        (short & (units >= SCIENTIFIC_BELOW), _decimal),
        (short & (units < SCIENTIFIC_BELOW), _scientific),
    ):
        out[rows] = write(units[rows].astype(np.uint32))
    out[~short] = _written(column[~short])
    return out.tolist()


def seconds_and_ns(times_ns: np.ndarray) -> tuple[str, list[str]]:
    """int64 (n,), n > 0, as text: the second that all are in, and nine digits each; if they are in several, "", and the
    whole of each."""
    second = int(times_ns[0]) // 10**DECIMALS
    ns = times_ns - second * 10**DECIMALS
    if second < 1 or ns.min() < 0 or ns.max() >= 10**DECIMALS:
        return "", numbers(times_ns)
    return str(second), _text(_digits(ns.astype(np.uint32))).tolist()


def _written(column: Column) -> list[str]:
    return repr(column.tolist())[1:-1].split(", ") if len(column) else []


def _digits(whole: np.ndarray) -> np.ndarray:
    """Characters, u32 (n, DECIMALS), of u32 (n,) below 10**DECIMALS: three at a time."""
    threes = np.column_stack((whole // 10**6, whole // 1000 % 1000, whole % 1000))
    return THREE_DIGITS[threes].reshape(-1, DECIMALS)


def _significant(whole: np.ndarray) -> np.ndarray:
    """The same of whole > 0, with NULs for zeros at the end."""
    out = _digits(whole)
    rows, power = np.flatnonzero(whole % 10 == 0), 1
    while len(rows):
        out[rows, -power] = 0
        power += 1
        rows = rows[whole[rows] % 10**power == 0]
    return out


def _text(characters: np.ndarray) -> np.ndarray:
    """u32 (n, k) -> str (n,), without NULs at the end."""
    return characters.view(f"U{characters.shape[1]}")[:, 0]


def _decimal(units: np.ndarray) -> np.ndarray:
    """`0.00012`, str (n,)."""
    out = np.empty((len(units), 2 + DECIMALS), np.uint32)
    out[:, :2] = ord("0"), ord(".")
    out[:, 2:] = _significant(units)
    return _text(out)


def _scientific(units: np.ndarray) -> np.ndarray:
    """`1.2e-05`, str (n,)."""
    power = np.searchsorted(POWERS, units, side="right") - 1
    digits = _significant(units * POWERS[DECIMALS - 1 - power])
    out = np.empty((len(units), 1 + DECIMALS), np.uint32)
    out[:, 0], out[:, 2:] = digits[:, 0], digits[:, 1:]
    out[:, 1] = np.where(digits[:, 1] != 0, ord("."), 0)
    exponents = np.array([f"e-{DECIMALS - at:02}" for at in range(DECIMALS)])
    return np.char.add(_text(out), exponents[power])
