"""Postcards put together: which of a flow's switches comes behind which.

The program keeps a place for each switch that reported on a flow (struct flow_hop), in no order, and an event brings up
a copy of them (the hop cells of a REPORT_POSTCARD report). Here they are put in a stack's order, the switch nearest the
sink first: along the configured links, where these lead through all of the flow's places, otherwise by time.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TypeAlias

import numpy as np

from .batch import Batch
from .layout import MAX_HOPS, ReportFlag

Links: TypeAlias = tuple[tuple[int, int, int], ...]
"""Cables: (switch_id, egress_port_id, the switch_id that it leads to). A port has one at most."""


def nearest_sink_first(
    of: np.ndarray, order: np.ndarray, switch_id: np.ndarray, egress_port_id: np.ndarray, links: Links
) -> np.ndarray:
    """The places of many flows in order: row numbers (n,), flow by flow, in each the place nearest the sink first.

    All (n,). of: whose place it is, ascending. order: u64, ns, when the flow's packet was there. A flow has one place a
    switch, MAX_HOPS at most.
    """
    by_time = np.lexsort((~order, of))
    if not links or not len(of):
        return by_time
    steps = _steps_to_end(of.astype(np.int64), switch_id.astype(np.int64), egress_port_id.astype(np.int64), links)
    by_links = np.lexsort((steps, of))
    # A chain through all places of a flow: they are 0, 1, 2 ... steps from its end, each number once.
    chained = steps[by_links] == np.arange(len(of)) - np.searchsorted(of, of)
    return np.where(np.isin(of, of[~chained]), by_time, by_links)


def _steps_to_end(of: np.ndarray, switch_id: np.ndarray, egress_port_id: np.ndarray, links: Links) -> np.ndarray:
    """How many links of its flow lie behind each place, (n,); MAX_HOPS of one from which they lead in a circle."""
    ports, switches = _table(links)
    link = _find(ports, switch_id << 16 | egress_port_id)
    places = of << 32 | switch_id
    sort = np.argsort(places)
    found = _find(places[sort], of << 32 | switches[link])
    behind = np.where((link >= 0) & (found >= 0), sort[found], -1)

    steps, at = np.zeros(len(of), np.intp), np.arange(len(of))
    for _ in range(MAX_HOPS):  # a step of all places at once
        at = np.where(at >= 0, behind[at], -1)
        steps += at >= 0
    return steps


@functools.lru_cache(4)
def _table(links: Links) -> tuple[np.ndarray, np.ndarray]:
    """(switch_id << 16 | egress_port_id, ascending; the switch_id that it leads to), both int64."""
    table = np.array(sorted(links), np.int64)
    return table[:, 0] << 16 | table[:, 1], table[:, 2]


def _find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of wanted is in known (ascending, not empty); -1: nowhere."""
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def of_flows(flows: np.ndarray, links: Links) -> tuple[np.ndarray, np.ndarray]:
    """(row of flows, place in its hops) of all occupied places, flow by flow, in each nearest the sink first. flows:
    FLOW (n,), all with FLOW_POSTCARDS."""
    row, place = np.nonzero(flows["places"]["seen"])
    hops, order = flows["hops"][row, place], flows["places"]["order"][row, place]
    rows = nearest_sink_first(row, order, hops["switch_id"], hops["egress_port_id"], links)
    return row[rows], place[rows]


def in_order(batch: Batch, links: Links) -> Batch:
    """The batch with the hops of its REPORT_POSTCARD reports in a stack's order; all else is as it was."""
    has = batch.reports["flags"] & ReportFlag.POSTCARD != 0
    if not has.any():
        return batch
    cells = np.flatnonzero(has[batch.hop_report])
    hops, places = batch.hops.copy(), batch.hops[cells]
    # what such a cell has for an ingress timestamp is its order
    rows = nearest_sink_first(
        batch.hop_report[cells], places["ingress_timestamp"], places["switch_id"], places["egress_port_id"], links
    )
    hops[cells] = places[rows]
    return dataclasses.replace(batch, hops=hops)
