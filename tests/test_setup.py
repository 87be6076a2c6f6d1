"""Set-up: where it works and where it says why not, and what a wheel holds."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from .needs import needs_root

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def readable() -> Iterator[pathlib.Path]:
    """The scripts of the checkout where any user can read them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        path.chmod(0o755)
        for name in ("intcollector/setup.sh", "intcollector/demo.sh", "tests/run.sh"):
            to = path / name
            to.parent.mkdir(exist_ok=True, mode=0o755)
            shutil.copyfile(ROOT / name, to)
        yield path


@needs_root
@pytest.mark.parametrize(
    ("identity", "known"),
    [
        ('ID=debian\nVERSION_ID="12"\n', True),
        ('ID=debian\nVERSION_ID="13"\n', True),
        ('ID=ubuntu\nVERSION_ID="22.04"\n', True),
        ("ID=ubuntu\nVERSION_ID=24.04\n", True),
        ('ID=debian\nVERSION_ID="11"\n', False),
        ("ID=debian\n", False),
        ('ID=fedora\nVERSION_ID=40\nPRETTY_NAME="Fedora Linux 40 (Server Edition)"\n', False),
        ("", False),
    ],
)
def test_system(identity: str, known: bool, tmp_path: pathlib.Path) -> None:
    """The set-up goes on where the packages' names are known, and says one sentence elsewhere."""
    release = tmp_path / "os-release"
    release.write_text(identity)
    script = 'mount --bind "$1" /etc/os-release; . intcollector/setup.sh; check_system'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-eu", "-c", script, "sh", str(release)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if known else 1)
    assert len(done.stderr.splitlines()) == (0 if known else 1)
    assert known or "Debian 12 and 13 and Ubuntu 22.04 and 24.04" in done.stderr


@needs_root
@pytest.mark.parametrize("command", ["intcollector/demo.sh", "tests/run.sh"])
def test_without_root(command: str, readable: pathlib.Path) -> None:
    """Who is not root and has no sudo is told so in one sentence, before anything is done."""
    hide = 'for s in /usr/bin/sudo /usr/local/bin/sudo; do [ ! -e "$s" ] || mount --bind /dev/null "$s"; done'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-eu", "-c",
         f'{hide}; PATH=/usr/bin:/bin exec setpriv --reuid=65534 --regid=65534 --clear-groups sh "$1"', "sh", command],
        cwd=readable, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "intcollector: XDP and package installation need root: run this as root, or install sudo"
    ]
    assert not (readable / ".venv").exists()


def test_installed_packages_need_nothing() -> None:
    """A package that is there is not asked of apt: a second run works without a network."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-eu", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    script = ". intcollector/setup.sh; apt_get() { fail apt was asked; }; packages dpkg coreutils"
    done = run(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run(script + " no-such-package")
    assert done.returncode == 1
    assert "apt was asked" in done.stderr


def test_wheel(tmp_path: pathlib.Path) -> None:
    """A wheel holds every C file of bpf/, which the installed package finds inside itself, and the page's files."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "README.md"):
        shutil.copyfile(ROOT / name, source / name)
    for name in ("intcollector", "bpf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True, timeout=300, stdin=subprocess.DEVNULL)

    def sources(folder: pathlib.Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in (".c", ".h")}

    def page(folder: pathlib.Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in (folder / "intcollector/web").rglob("*") if p.is_file()}

    assert sources(target / "intcollector/bpf") == sources(ROOT / "bpf")
    assert page(target) == page(ROOT)
    assert {"intcollector/web/index.html", "intcollector/web/vendor/uPlot.iife.min.js"} <= page(target)
    found = subprocess.run(
        [sys.executable, "-c", "from intcollector.place import bpf_folder; print(bpf_folder())"],
        env={**os.environ, "PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.strip() == str(target / "intcollector/bpf")


def test_continuous_integration_calls_the_second_command() -> None:
    """.ci/run, the README and the set-up speak of the same two commands."""
    readme = (ROOT / "README.md").read_text()
    assert readme.index("sh intcollector/demo.sh") < readme.index("sh tests/run.sh")
    assert "\nsh tests/run.sh" in (ROOT / ".ci/run").read_text()
