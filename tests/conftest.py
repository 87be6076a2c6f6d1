"""Loaded kernel programs are shared: loading one takes about a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from intcollector.config import Config
from intcollector.datapath import Datapath

from . import frames


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
