"""What pyproject.toml cannot say: bpf/ is beside the package in a checkout, inside it (intcollector/bpf) in a wheel."""

from __future__ import annotations

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = sorted(p for p in pathlib.Path("bpf").rglob("*") if p.suffix in (".c", ".h"))


class BuildWithSources(build_py):
    """Takes the C sources along, where intcollector.place.bpf_folder() looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in SOURCES:
            to = pathlib.Path(self.build_lib, "intcollector", path)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)

    def get_source_files(self) -> list[str]:
        """Also what a source distribution holds."""
        return [*super().get_source_files(), *map(str, SOURCES)]


setup(cmdclass={"build_py": BuildWithSources})
