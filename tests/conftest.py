"""Loaded kernel programs are shared, and compiled ones kept for the session: compiling takes seconds, loading one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

from intcollector import compiled
from intcollector.config import Config
from intcollector.datapath import Datapath

from . import frames


@pytest.fixture(scope="session", autouse=True)
def kept_programs() -> Iterator[None]:
    """Compiled programs are kept in a folder of this session, also by processes that it starts, and are gone with it:
    none of another time is tested, and none is left behind."""
    with tempfile.TemporaryDirectory(prefix="intcollector-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.FOLDER_VARIABLE, folder)
        yield


@pytest.fixture(scope="session")
def datapaths() -> Iterator[frames.Datapaths]:
    """config -> a Datapath set to it that has seen nothing. The next call with the same sizes takes it back."""
    loaded: dict[tuple[str, int, int], Datapath] = {}

    def fresh(config: Config) -> Datapath:
        sizes = (config.event_transport, config.max_flows, config.ring_size)
        if sizes in loaded:
            frames.forget(loaded[sizes])
            loaded[sizes].apply(config)
        else:
            loaded[sizes] = Datapath(config)
        return loaded[sizes]

    yield fresh
    for datapath in loaded.values():
        datapath.close()
