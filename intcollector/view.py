"""A few lines of text on what a collector holds: what the lab demo shows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from .batch import State
from .config import Config, address_text
from .layout import MAX_HOPS, OUTCOMES, FlowFlag

NONE64 = 2**64 - 1
SLOWEST = 5


class View:
    """Compares each look at the maps with the one before. state: reads them."""

    def __init__(self, state: Callable[[], State], config: Config) -> None:
        self._state = state
        self._unit = {"ns": 1e-3, "us": 1.0}[config.latency_unit]
        self._before, self._at = state(), time.monotonic()

    def text(self) -> str:
        """One line of counts, and the slowest flows with their paths."""
        before, state, now = self._before, self._state(), time.monotonic()
        seconds, self._before, self._at = now - self._at, state, now
        outcomes = state.counters["outcomes"].astype(np.int64)
        reports = int(outcomes[0])
        rate = (reports - int(before.counters["outcomes"][0])) / seconds
        malformed = int(outcomes[OUTCOMES.index("pass_port") + 1 :].sum())
        lines = [
            f"reports {reports} ({rate:.0f}/s)  malformed {malformed}  lost {int(state.sources['lost'].sum())}"
            f"  dropped packets {int(state.drops.sum())}  events {int(state.counters['events'])}"
            f" (+{int(state.counters['events_lost'])} lost)  flows {len(state.flows)}"
        ]
        known = np.flatnonzero((state.flows["flags"] & FlowFlag.PATH != 0) & (state.flows["latency"] != NONE64))
        slowest = known[np.argsort(state.flows["latency"][known])[::-1][:SLOWEST]]
        for key, flow in zip(state.flow_keys[slowest], state.flows[slowest], strict=True):
            path = " > ".join(str(i) for i in flow["hops"]["switch_id"][: min(flow["hop_count"], MAX_HOPS)][::-1])
            ends = (
                f"{address_text(bytes(key[end]), int(key['ip_version']))} port {key[f'{end}_port']}"
                for end in ("source", "destination")
            )
            lines.append(f"  {' to '.join(ends)}: {float(flow['latency']) * self._unit:.1f} us by switches {path}")
        return "\n".join(lines)
