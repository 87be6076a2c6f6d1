"""C source -> loaded XDP program, through bcc: its only importer.

bcc wants the headers of the running kernel. It gets bpf/include instead, a few lines that forward to the system's UAPI
headers, so that nothing has to be installed for a kernel. Warnings are errors.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import LoadError
from .layout import bpf_folder

FLAGS = (
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-Wno-sign-compare",
    "-Wno-pointer-sign",
    "-Wno-address-of-packed-member",
)
"""Structs are cleared and compared by words, hence no strict aliasing. bcc's own headers do not compile cleanly with
more warnings than these."""


NOT_PERMITTED = "not permitted to load a program into the kernel: run as root (sudo)"


def _include_folders() -> list[str]:
    """Where the distribution keeps <linux/*.h> and <asm/*.h>."""
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    return [f"-I{p}" for p in (bpf_folder(), "/usr/include", f"/usr/include/{triplet}") if pathlib.Path(p).is_dir()]


@contextlib.contextmanager
def _stderr_to(file: Any) -> Iterator[None]:
    """What the compiler inside bcc writes to descriptor 2 goes to file."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


class Program:
    """One compiled C file.

    bpf: bcc's object, for its tables. Errors: LoadError, with what the compiler or the verifier said.
    """

    def __init__(self, source: str, defines: Sequence[str] = ()) -> None:
        """source: a file name in bpf/. defines: -D options without the -D."""
        try:
            import bcc
        except ImportError:
            raise LoadError(
                f"{sys.executable} does not see bcc: install the distribution's package python3-bpfcc and use a "
                "virtual environment made by /usr/bin/python3 with --system-site-packages (the bcc on PyPI is another "
                "program)"
            ) from None
        if not hasattr(bcc, "BPF"):
            raise LoadError(f"{bcc.__file__} is not the BPF Compiler Collection: remove it, install python3-bpfcc")
        path = bpf_folder() / source
        os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder() / "include")
        self._bcc = bcc
        flags = [*FLAGS, *_include_folders(), *(f"-D{d}" for d in defines)]
        with tempfile.TemporaryFile() as log:
            try:
                with _stderr_to(log):
                    self.bpf = bcc.BPF(src_file=str(path).encode(), cflags=flags)
            except Exception as error:  # noqa: BLE001 - bcc raises just that
                if os.geteuid() != 0:
                    raise LoadError(NOT_PERMITTED) from None
                raise LoadError(f"cannot compile {path.name}: {error}\n{_text(log)}") from None

    def load(self, function: str) -> int:
        """Verify and load a function as an XDP program; its descriptor."""
        with tempfile.TemporaryFile() as log:
            try:
                with _stderr_to(log):
                    return int(self.bpf.load_func(function.encode(), self._bcc.BPF.XDP).fd)
            except Exception as error:  # noqa: BLE001 - bcc raises just that
                said = _text(log)
                if "Operation not permitted" in said or os.geteuid() != 0:
                    raise LoadError(NOT_PERMITTED) from None
                raise LoadError(f"cannot load {function}: {error}\n{said}") from None

    def map_fd(self, name: str) -> int:
        """The descriptor of a map."""
        return int(self.bpf[name.encode()].map_fd)

    def close(self) -> None:
        """Give up all descriptors of programs and maps."""
        self.bpf.cleanup()


def _text(log: Any) -> str:
    log.seek(0)
    return log.read()[-4000:].decode(errors="replace").strip()
