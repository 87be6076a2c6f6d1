"""C source -> loaded XDP program, through bcc: its only importer.

bcc wants the headers of the running kernel. It gets bpf/include instead, a few lines that forward to the system's UAPI
headers, so that nothing has to be installed for a kernel. Warnings are errors.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import importlib.util
import logging
import os
import pathlib
import re
import struct
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import compiled, kernel
from .errors import LoadError
from .place import bpf_folder

log = logging.getLogger(__name__)

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


_INCLUDE = re.compile(r'#include "([\w./]+)"')

NOT_PERMITTED = "not permitted to load a program into the kernel: run as root (sudo)"


def whole_text(path: pathlib.Path) -> str:
    """A C file with those of its includes that are beside it in their places: bcc rewrites the calls on maps
    (`flows.lookup(&key)`) in the main file only, and so all is one."""
    done: set[str] = set()

    def text(name: str) -> str:
        done.add(name)
        out = [f'#line 1 "{name}"']
        for at, line in enumerate((path.parent / name).read_text().splitlines(), 1):
            m = _INCLUDE.match(line)
            if m and (path.parent / m[1]).is_file():
                if m[1] not in done:
                    out.append(text(m[1]))
                out.append(f'#line {at + 1} "{name}"')
            else:
                out.append(line)
        return "\n".join(out)

    return text(path.name) + "\n"


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


class NotKept(LoadError):
    """A program was to be taken from where it is kept, and is not there."""


class Program:
    """One C file, compiled; or from where it was kept when it was compiled before.

    Its maps exist, and the functions to be kept are verified, once it is made: a program that was kept and is not what
    the kernel takes is compiled after all, before anybody has seen a map of it.

    bpf: bcc's object, for its tables; None if it was kept. compile_s, load_s: seconds until the maps were there, and of
    the verifier. Errors: LoadError, with what the compiler or the verifier said.
    """

    def __init__(
        self, source: str, defines: Sequence[str] = (), *, keep: Sequence[str] = (), may_compile: bool = True
    ) -> None:
        """source: a file name in bpf/. defines: -D options without the -D. keep: the functions that will be loaded, if
        the program is to be kept for next time. may_compile: if not, a program that was not kept is NotKept."""
        self._path = bpf_folder() / source
        self._text = whole_text(self._path)
        self._flags = [*FLAGS, *_include_folders(), *(f"-D{d}" for d in defines)]
        self._keep = tuple(keep)
        self.bpf: Any = None
        self.compile_s = self.load_s = 0.0
        self._maps: compiled.Maps | None = None
        self._codes: dict[str, bytes] = {}
        self._loaded: dict[str, int] = {}
        folder = compiled.folder() if keep else None
        file = folder and folder / compiled.name_of([self._text, *self._flags, *keep, *_compiler()])
        if not (file and self._take_kept(file)):
            if not may_compile:
                raise NotKept(f"{self._path.name} has to be compiled")
            self._compile()
            try:
                with _seconds(self, "load_s"):
                    self._load_all()
            except BaseException:
                self.close()
                raise
            if file:
                self._keep_in(file)
        how = "as it was compiled before" if self.kept else "compiled"
        log.debug("%s: %s, in %.3f s; verified in %.3f s", self._path.name, how, self.compile_s, self.load_s)

    @property
    def kept(self) -> bool:
        """It was not compiled now."""
        return self._maps is not None

    def _take_kept(self, file: pathlib.Path) -> bool:
        """Be the program in a file. Whatever is wrong with that is no error."""
        try:
            with _seconds(self, "compile_s"):
                content = compiled.read(file)
                if content.functions.keys() != set(self._keep):
                    raise ValueError("it has other functions")
                self._maps = compiled.Maps(content)
                self._codes = {
                    name: compiled.with_maps(code, self._maps.numbers) for name, code in content.functions.items()
                }
            with _seconds(self, "load_s"):
                self._load_all()
        except FileNotFoundError:
            return False
        except (OSError, ValueError, LookupError, struct.error, LoadError) as error:
            log.debug("%s is of no use (%s)", file, error)
            self.close()
            self._maps, self._codes = None, {}
            return False
        return True

    def _keep_in(self, file: pathlib.Path) -> None:
        try:
            compiled.write(file, compiled.content_of(self._codes, self._numbered_maps()))
        except (OSError, ValueError) as error:
            log.debug("not kept: %s", error)

    def _compile(self) -> None:
        if not _may_load():
            raise LoadError(NOT_PERMITTED)  # at once, and not when the compiler is done
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
        os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder() / "include")
        self._bcc = bcc
        with _seconds(self, "compile_s"), tempfile.TemporaryFile() as said_there:
            try:
                with _stderr_to(said_there):
                    self.bpf = bcc.BPF(text=self._text.encode(), cflags=self._flags)
            except Exception as error:  # noqa: BLE001 - bcc raises just that
                if os.geteuid() != 0:
                    raise LoadError(NOT_PERMITTED) from None
                raise LoadError(f"cannot compile {self._path.name}: {error}\n{_text(said_there)}") from None
        # what a map is in them is its descriptor
        self._codes = {name: self.bpf.dump_func(name.encode()) for name in self._keep}

    def _numbered_maps(self) -> dict[int, tuple[str, int]]:
        """What a map is in bcc's instructions, its descriptor -> its name and descriptor."""
        library, module = self._bcc.libbcc.lib, self.bpf.module
        library.bpf_table_name.restype = ctypes.c_char_p
        names = [library.bpf_table_name(module, at).decode() for at in range(library.bpf_num_tables(module))]
        return {self.map_fd(name): (name, self.map_fd(name)) for name in names}

    def _load_all(self) -> None:
        """Those to be kept, at once: it is the verifier's work, in which Python does not take part."""
        if self._keep:
            with concurrent.futures.ThreadPoolExecutor(len(self._keep)) as threads:
                done = {function: threads.submit(self._load_code, function) for function in self._keep}
            for function, one in done.items():
                try:
                    one.result()
                except OSError as error:
                    raise self._refusal(function, error) from None

    def load(self, function: str) -> int:
        """Verify and load a function as an XDP program; its descriptor, which stays this object's. The same function
        again is the same descriptor. Errors: LoadError; KeyError for one that is not among those to be kept."""
        if function not in self._loaded:
            if not self._keep:
                self._codes[function] = self.bpf.dump_func(function.encode())
            try:
                with _seconds(self, "load_s"):
                    self._load_code(function)
            except OSError as error:
                raise self._refusal(function, error) from None
        return self._loaded[function]

    def load_all(self, functions: Sequence[str]) -> list[int]:
        """load() several."""
        return [self.load(function) for function in functions]

    def _load_code(self, function: str) -> None:
        self._loaded[function] = kernel.load_instructions(self._codes[function], name=function)

    def _refusal(self, function: str, refused: OSError) -> LoadError:
        """What the verifier said of a function that the kernel does not take. bcc knows to ask it."""
        if os.geteuid() != 0 and isinstance(refused, PermissionError):
            return LoadError(NOT_PERMITTED)
        if self.bpf is None:
            return LoadError(f"cannot load {function}: {refused}")
        with tempfile.TemporaryFile() as said_there:
            try:
                with _stderr_to(said_there):
                    self.bpf.load_func(function.encode(), self._bcc.BPF.XDP)
            except Exception as error:  # noqa: BLE001 - bcc raises just that
                said = _text(said_there)
                if "Operation not permitted" in said or os.geteuid() != 0:
                    return LoadError(NOT_PERMITTED)
                return LoadError(f"cannot load {function}: {error}\n{said}")
        return LoadError(f"cannot load {function}: {refused}")

    def copy(self, function: str, attach_type: int, instead: Mapping[int, int]) -> int:
        """Load a function once more, to be attached elsewhere (enum bpf_attach_type), with other maps in the places of
        some: a prog array takes programs of one attach type only. instead: descriptor -> the other's. The new program's
        descriptor, which the caller closes. Errors: LoadError."""
        try:
            code = compiled.with_maps(self._codes[function], instead)
            return kernel.load_instructions(code, name=function, attach_type=attach_type)
        except OSError as error:
            raise LoadError(f"cannot load {function} for attach type {attach_type} ({error.strerror})") from None

    def map_fd(self, name: str) -> int:
        """The descriptor of a map."""
        if self._maps:
            return self._maps[name]
        return int(self._bcc.libbcc.lib.bpf_table_fd(self.bpf.module, name.encode()))

    def close(self) -> None:
        """Give up all descriptors of programs and maps."""
        while self._loaded:
            os.close(self._loaded.popitem()[1])
        if self._maps:
            self._maps.close()
        if self.bpf is not None:
            self.bpf.cleanup()


def _may_load() -> bool:
    """Whether the kernel takes the smallest program there is, but for other reasons than who asks."""
    pass_on = struct.pack("=BBhiBBhi", 0xB7, 0, 0, kernel.XDP_PASS, 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
    try:
        os.close(kernel.load_instructions(pass_on))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def _seconds(program: Program, name: str) -> Iterator[None]:
    """Add to an attribute how long this took."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        setattr(program, name, getattr(program, name) + time.perf_counter() - begin)


def _compiler() -> list[str]:
    """What else decides what the compiler makes of a text: which bcc this is, without importing it, which takes LLVM
    into memory; the headers; the kernel, and the machine."""
    found = importlib.util.find_spec("bcc")
    files = [pathlib.Path(found.origin)] if found and found.origin else []
    files += sorted(path for path in (bpf_folder() / "include").rglob("*") if path.is_file())
    files += [pathlib.Path("/usr/include/linux/bpf.h")]
    system = os.uname()
    return [*map(_state, files), system.release, system.machine]


def _state(path: pathlib.Path) -> str:
    """Which file it is."""
    try:
        said = path.stat()
    except OSError:
        return f"no {path}"
    return f"{path} {said.st_mtime_ns} {said.st_size}"


def _text(log: Any) -> str:
    log.seek(0)
    return log.read()[-4000:].decode(errors="replace").strip()
