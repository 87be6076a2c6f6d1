"""intcollector: In-band Network Telemetry reports in, metrics out.

    packet -> bpf/collector.c -> maps and events     the kernel program; bpf/report.h says what crosses
           -> datapath.Datapath -> Batch, State      arrays, named as in bpf/report.h
           -> series -> [Series], [Points]           what it means: names, labels, units
           -> exporters.*                            how it is spelled

`collector.Collector` turns the loop around, `interface.Attachment` holds the interfaces, `cli` is the commands.
`wire.decode` and `wire.encode` are the specifications in Python, the oracle of the tests. docs/architecture.md says
more.
"""

from .config import Config
from .errors import IntCollectorError
from .wire import decode, encode

__all__ = ["Config", "IntCollectorError", "decode", "encode"]
