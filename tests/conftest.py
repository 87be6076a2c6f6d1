"""What takes long is done once: programs are compiled for all processes of a run and loaded for all tests of a process
that need none of their own, and scapy builds each shape of generated frames once."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Hashable, Iterator

import hypothesis
import pytest

from intcollector import compiled, traffic
from intcollector.config import Config
from intcollector.datapath import Datapath
from intcollector.decoding import KernelDecoder
from intcollector.traffic import Traffic

from . import frames

# how long an example takes depends on what else the machine does
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept in a folder of this run, for all processes that it starts, and are gone with it: none
    of another time is tested, and none is left behind."""
    if hasattr(config, "workerinput"):  # pytest-xdist's: it has the folder from the process that started it
        return
    folder = tempfile.TemporaryDirectory(prefix="intcollector-tests-")
    patch = pytest.MonkeyPatch()
    patch.setenv(compiled.FOLDER_VARIABLE, folder.name)
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(patch.undo)


@pytest.fixture(scope="session", autouse=True)
def shapes_once() -> Iterator[None]:
    """A shape of generated frames takes scapy some ten milliseconds, and most tests of traffic want the same ones."""
    built: dict[Hashable, traffic._Cut] = {}
    build = traffic._cut

    @functools.wraps(build)
    def once(t: Traffic, shape: traffic._Shape, kind: int) -> traffic._Cut:
        key = dataclasses.replace(t, packets=1, rate=1.0, seed=1), shape, kind
        if key not in built:
            built[key] = build(t, shape, kind)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traffic, "_cut", once)
        yield


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """This thread stays on one CPU, as the traffic of one queue does: a perf buffer that is full is one CPU's."""
    with frames.on_one_cpu():
        yield


def _sizes(config: Config) -> Hashable:
    """What is set when a program is loaded."""
    return config.event_transport, config.max_flows, config.ring_size


@pytest.fixture(scope="session")
def datapaths() -> Iterator[frames.Datapaths]:
    """config -> a Datapath set to it that has seen nothing. The next call with the same sizes takes it back."""
    loaded: dict[Hashable, Datapath] = {}

    def fresh(config: Config) -> Datapath:
        sizes = _sizes(config)
        if sizes in loaded:
            frames.forget(loaded[sizes])
            loaded[sizes].apply(config)
        else:
            loaded[sizes] = Datapath(config)
        return loaded[sizes]

    yield fresh
    for datapath in loaded.values():
        datapath.close()


@pytest.fixture(scope="session")
def decoders() -> Iterator[frames.Decoders]:
    """config -> a KernelDecoder set to it that has seen nothing. The next call with the same sizes takes it back."""
    loaded: dict[Hashable, KernelDecoder] = {}

    def fresh(config: Config) -> KernelDecoder:
        sizes = _sizes(config)
        if sizes in loaded:
            frames.forget(loaded[sizes]._datapath)
            loaded[sizes].apply(config)
        else:
            loaded[sizes] = KernelDecoder(config)
        return loaded[sizes]

    yield fresh
    for decoder in loaded.values():
        decoder.close()
