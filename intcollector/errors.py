"""The exceptions of intcollector.

IntCollectorError           what `except` in cli.py catches: one sentence, and what to try
|-- UsageError              wrong options or configuration: exit code 2
|-- LayoutError             bpf/report.h is not in the form layout.py reads
|-- LoadError               the kernel program does not compile, load or verify
|-- AttachError             an interface cannot be taken, or not in this mode
|-- CaptureError            a file of packets cannot be read or written
`-- ExporterError           an exporter cannot start: address in use, file not writable, ...
"""

from __future__ import annotations


class IntCollectorError(Exception):
    """The base of all: its text is one sentence for the user, with what to try."""


class UsageError(IntCollectorError):
    """Wrong options or configuration."""


class LayoutError(IntCollectorError):
    """bpf/report.h has a line that layout.py does not understand."""


class LoadError(IntCollectorError):
    """The kernel program cannot be compiled, loaded or verified."""


class AttachError(IntCollectorError):
    """An interface cannot be taken."""


class CaptureError(IntCollectorError):
    """A capture file cannot be read or written."""


class ExporterError(IntCollectorError):
    """An exporter cannot start."""
