"""intcollector: In-band Network Telemetry reports in, metrics out.

    packet -> bpf/collector.c -> maps and events     the kernel program; bpf/report.h says what crosses
           -> datapath.Datapath -> Batch, State      arrays, named as in bpf/report.h
           -> series -> [Series], [Points]           what it means: names, labels, units
           -> exporters.*                            how it is spelled

`collector.Collector` turns the loop around, `interface.Attachment` holds the interfaces, `cli` is the commands.
`wire.decode` and `wire.encode` are the specifications in Python, the oracle of the tests. docs/architecture.md says
more.
"""

from typing import TYPE_CHECKING, Any

from .config import Config
from .errors import IntCollectorError

if TYPE_CHECKING:
    from .wire import decode, encode

__all__ = ["Config", "IntCollectorError", "decode", "encode"]


def __getattr__(name: str) -> Any:
    """decode and encode are imported when asked for: a command that needs neither starts without them and numpy."""
    if name not in ("decode", "encode"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import wire

    return getattr(wire, name)
