"""A few lines of text on what a collector holds: what the lab demo shows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from . import postcards
from .batch import State
from .config import Config, address_text
from .layout import OUTCOMES, FlowFlag
from .series import UNITS_PER_SECOND

NONE64 = 2**64 - 1
SLOWEST = 5
ACCEPTED = [OUTCOMES.index("ok"), OUTCOMES.index("unknown_encapsulation")]
MALFORMED = slice(OUTCOMES.index("bad_ip_len"), OUTCOMES.index("unknown_encapsulation"))


class View:
    """Compares each look at the maps with the one before. state: reads them."""

    def __init__(self, state: Callable[[], State], config: Config) -> None:
        self._state = state
        self._links = config.links
        self._before, self._at = state(), time.monotonic()

    def text(self) -> str:
        """One line of counts, and the slowest flows with their paths."""
        before, state, now = self._before, self._state(), time.monotonic()
        seconds, self._before, self._at = now - self._at, state, now
        outcomes = state.counters["outcomes"].astype(np.int64)
        reports = int(outcomes[ACCEPTED].sum())
        rate = (reports - int(before.counters["outcomes"][ACCEPTED].sum())) / seconds
        lines = [
            f"reports {reports} ({rate:.0f}/s)  malformed {outcomes[MALFORMED].sum()}"
            f"  lost {int(state.sources['lost'].sum())}"
            f"  dropped packets {int(state.drops.sum())}  events {int(state.counters['events'])}"
            f" (+{int(state.counters['events_lost'])} lost)  flows {len(state.flows)}"
        ]
        has_path = state.flows["flags"] & (FlowFlag.PATH | FlowFlag.POSTCARDS) != 0
        known = np.flatnonzero(has_path & (state.flows["latency"] != NONE64))
        latency_us = state.flows["latency"][known] / UNITS_PER_SECOND[state.flows["time_unit"][known]] * 1e6
        for slowest in np.argsort(latency_us)[::-1][:SLOWEST]:
            at = known[slowest]
            key, path = state.flow_keys[at], " > ".join(map(str, self._path(state.flows[at : at + 1])))
            ends = (
                f"{address_text(bytes(key[end]), int(key['ip_version']))} port {key[f'{end}_port']}"
                for end in ("source", "destination")
            )
            lines.append(f"  {' to '.join(ends)}: {latency_us[slowest]:.1f} us by switches {path}")
        return "\n".join(lines)

    def _path(self, flow: np.ndarray) -> list[int]:
        """Switch ids in travel order. flow: FLOW (1,)."""
        hops = flow["hops"][0]
        if flow["flags"][0] & FlowFlag.PATH:
            hops = hops[: flow["hop_count"][0]]
        else:
            hops = hops[postcards.of_flows(flow, self._links)[1]]
        return hops["switch_id"][::-1].tolist()
