"""Where the C sources are."""

from __future__ import annotations

import pathlib

from .errors import LayoutError

PACKAGE = pathlib.Path(__file__).resolve().parent


def bpf_folder() -> pathlib.Path:
    """In a checkout beside the package, installed inside it. Errors: LayoutError."""
    for folder in (PACKAGE.parent / "bpf", PACKAGE / "bpf"):
        if (folder / "report.h").is_file():
            return folder
    raise LayoutError(f"bpf/report.h is neither beside nor inside {PACKAGE}: the installation is incomplete")
