"""What the page costs: a look at the maps, spelled for the page, beside a scrape of the same arrays; and what an event
costs that may become a line.

    .venv/bin/python benchmark/bench_page.py [--rounds N] [--json]

No root, no interface: the arrays are made here, by bench_scrape.py's network and by the generator. Between two pictures
every value moves, and one flow in a hundred goes and another comes.

write: one call of what the control loop does for the page, with so many events at once, of those that told the given
thing. stream: bytes that one who watches is sent a second, as a picture a second, gzip.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import time

import common
import numpy as np
from bench_scrape import COUNTS, SWITCHES, Network

from intcollector.batch import Batch, State
from intcollector.config import Config
from intcollector.exporters.live import Shot
from intcollector.exporters.prometheus import Text
from intcollector.layout import HEAD, HOP, Change, ReportFlag
from intcollector.news import Feed
from intcollector.picture import RECENT_S, Around, Picture, Pictures
from intcollector.series import scrape

MEASURE = "a picture of 1,000 flows, spelled and compressed, over a scrape of the same"
MANY = 100_000
EVENTS = 10_000
"""Of one drain: 50 of them a second are 500,000 events/s."""
HOPS = 4
CONFIG = Config()


class Looks:
    """Pictures and scrapes of a network: each call is one, timed, of another moment."""

    def __init__(self, flows: int, looks: int) -> None:
        """looks: that were taken before, so many samples a flow has."""
        self._network, self._text, self._pictures = Network(flows), Text(), Pictures()
        self._at = 0.0
        self.last: Shot | None = None
        for _ in range(looks):
            self._look(self._later())

    def _later(self) -> State:
        state = self._network.later()
        state.flows["reports"] += 1
        gc.collect()
        return state

    def _look(self, state: State) -> Picture:
        self._at += 1.0
        return self._pictures.look(state, CONFIG, COUNTS, Around(), 1e9 + self._at, self._at)

    def picture(self) -> float:
        """From the arrays to what goes into a stream."""
        state = self._later()

        def whole() -> None:
            self.last = Shot(1, self._look(state))
            _ = self.last.packed

        return common.seconds(whole)

    def look(self) -> float:
        """Of that, what comes before the JSON."""
        state = self._later()
        return common.seconds(lambda: self._look(state))

    def spelling(self) -> float:
        """Of that, the JSON."""
        shot = Shot(1, self._look(self._later()))
        return common.seconds(lambda: shot.body)

    def scrape(self) -> float:
        """With all flows that a picture shows."""
        state = self._later()
        config = dataclasses.replace(CONFIG, max_flow_series=1000)
        return common.seconds(lambda: self._text.render(scrape(state, config, COUNTS)))


class Told:
    """Batches of events of one kind, as a drain brings them up."""

    def __init__(self, change: Change, flows: int = 1000) -> None:
        random = np.random.default_rng(1)
        number = random.integers(0, flows, EVENTS)
        heads = np.zeros(EVENTS, HEAD)
        heads["changes"], heads["flags"] = change, ReportFlag.INT | ReportFlag.FLOW_IPV4 | ReportFlag.FLOW_PORTS
        heads["hop_count"], heads["report_version"], heads["int_version"] = HOPS, 10, 10
        heads["flow_source"][:, :4] = (10 << 24 | number).astype(">u4").view(np.uint8).reshape(-1, 4)
        heads["flow_destination"][:, :4] = (172 << 24 | number).astype(">u4").view(np.uint8).reshape(-1, 4)
        heads["protocol"], heads["source_port"] = 17, 1024
        heads["flow_latency"] = 1000
        hops = np.zeros(EVENTS * HOPS, HOP)
        hops["switch_id"] = 1 + random.integers(0, SWITCHES, len(hops))
        hops["latency"] = 1000
        rows = np.arange(len(hops))
        self.batch = Batch(heads, hops, rows // HOPS, rows % HOPS, 0)
        self.pictures = Pictures()
        self.feed = Feed(CONFIG, self.pictures.path_before)

    def write(self) -> float:
        """Seconds for all."""
        gc.collect()
        begin = time.perf_counter()
        self.pictures.heard(self.batch, CONFIG)
        self.feed.take(self.batch)
        took = time.perf_counter() - begin
        self.feed.after(0, 0)  # spelled by whoever shows them, not by the control loop
        return took

    def show(self) -> None:
        """Have all of its flows shown, so that what changes their paths has to be remembered."""
        from intcollector import batch
        from intcollector.layout import FlowFlag
        from intcollector.series import event_keys

        keys = np.unique(event_keys(self.batch.reports))
        flows = np.zeros(len(keys), batch.FLOW)
        flows["flags"], flows["hop_count"] = FlowFlag.PATH, HOPS
        self.pictures.look(State(flow_keys=keys, flows=flows), CONFIG, {}, Around(), 1e9, 1.0)


def main() -> int:
    arguments = common.parser(__doc__, rounds=9).parse_args()
    few, many = Looks(1000, RECENT_S), Looks(MANY, 2)
    told = {
        "keep-alives, which are no news": Told(Change.KEEPALIVE),
        "latencies": Told(Change.FLOW_LATENCY),
        "changes of path, of flows that are shown": Told(Change.PATH),
        "changes of path, of other flows": Told(Change.PATH),
    }
    told["changes of path, of flows that are shown"].show()
    told["changes of path, of other flows"].pictures.shown.sorted = (np.zeros(1, np.uint64), np.zeros(1, np.intp))
    measured = common.turns(
        arguments.rounds,
        {
            "scrape": few.scrape,
            "picture": few.picture,
            "look": few.look,
            "json": few.spelling,
            "many": many.picture,
            "scrape of many": many.scrape,
            **{name: one.write for name, one in told.items()},
        },
    )
    assert few.last is not None
    shot = few.last
    rows: list[common.Row] = [
        {
            "measure": MEASURE,
            "value": common.ratios(measured["picture"], measured["scrape"]).median,
            "flows": 1000,
            "switches": SWITCHES,
        }
    ]
    for what, name in (
        ("a scrape, 1,000 flows", "scrape"),
        ("a picture, 1,000 flows, spelled and compressed", "picture"),
        ("of that: arrays to what is said", "look"),
        ("of that: JSON", "json"),
        (f"a scrape, {MANY:,} flows of which 1,000 are shown", "scrape of many"),
        (f"a picture, {MANY:,} flows of which 1,000 are shown", "many"),
    ):
        of = measured[name]
        rows.append({"what": what, "ms": of.median * 1e3, "from": of.low * 1e3, "to": of.high * 1e3})
    for name in told:
        of = measured[name]
        rows.append(
            {
                "events": name,
                "ns an event": of.median / EVENTS * 1e9,
                "of a CPU at 500,000 a second": of.median / EVENTS * 500_000,
            }
        )
    rows.append({"stream, 1,000 flows": "JSON", "bytes a second": len(shot.message)})
    rows.append({"stream, 1,000 flows": "gzip", "bytes a second": len(shot.packed)})
    common.emit("page", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
