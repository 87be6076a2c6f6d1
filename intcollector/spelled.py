"""Numbers as people read them: in `top`, in the demo's text, in progress bars. None, what is not known, is a dash."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

UNKNOWN = "-"
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BARS = "▁▂▃▄▅▆▇█"


def is_number(value: Any) -> bool:
    """One that can be spelled: finite, which is not all that comes out of JSON."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def count(value: float | None) -> str:
    """1,234,567; of one that is not whole: three digits."""
    if value is None:
        return UNKNOWN
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rate(value: float | None) -> str:
    """A number a second, without saying so: 2,001; 0.05. Zero is 0, and nothing else is."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 10 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.2g}"


def time(seconds: float | None) -> str:
    """A duration with three digits in the unit that suits: 4.10 us; 12.0 ms."""
    if seconds is None:
        return UNKNOWN
    for unit_s, name in _TIMES:
        value = seconds / unit_s
        if abs(value) >= 0.9995:
            return f"{value:,.0f} {name}" if abs(value) >= 999.5 else f"{value:#.3g} {name}".replace(". ", " ")
    return "0 s" if seconds == 0 else f"{seconds / 1e-9:.2g} ns"


def between(limits: Sequence[float | None] | None) -> str:
    """A duration known as a range, (above, at most): "<= 4.10 us"; beyond the largest limit, "above 4.29 s"."""
    if limits is None:
        return UNKNOWN
    above, most = limits
    if most is not None and math.isfinite(most):
        return f"<= {time(most)}"
    return f"> {time(above)}" if above is not None else UNKNOWN


def ratio(value: float | None) -> str:
    """A share as percents: 12.5 %. Zero is 0 %, and nothing else is."""
    if value is None:
        return UNKNOWN
    percents = value * 100
    if percents == 0:
        return "0 %"
    return f"{percents:.1f} %" if percents >= 0.1 else f"{percents:.2g} %"


def ago(seconds: float | None) -> str:
    """A time past: 12 s ago, 3 min ago."""
    if seconds is None:
        return UNKNOWN
    for unit_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s:.0f} {name} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def spark(values: Sequence[float | None], width: int) -> str:
    """The last so many values as bars of eight heights from 0 to the largest; not known: a dot."""
    shown = list(values)[-width:] if width > 0 else []
    largest = max((value for value in shown if value is not None), default=0.0)
    return "".join(
        "·" if value is None else _BARS[min(7, math.ceil(value / largest * 8) - 1 if value > 0 else 0)]
        for value in shown
    )


def clean(text: str) -> str:
    """One line that does nothing to a terminal: what cannot be printed becomes U+FFFD."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
