"""One scrape, from the arrays of the maps to the bytes of the answer, beside prometheus_client's way.

    .venv/bin/python benchmark/bench_scrape.py [--series N] [--omitted N] [--rounds N] [--json]

No root, no interface: the arrays are made here. Between two scrapes every value moves, and one flow in a hundred goes
and another comes. prometheus_client gets the series ready-made: only metric families and text are its part.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import common
import numpy as np
import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from intcollector import batch
from intcollector.batch import State, seen_fields
from intcollector.config import Config
from intcollector.exporters.prometheus import Text
from intcollector.layout import LATENCY_BUCKETS, LAYOUT, MAX_HOPS, FlowFlag
from intcollector.series import Counts, Histogram, Series, scrape, texts

MEASURE = "a scrape of 100,000 series, over prometheus_client's rendering"
SWITCHES, PORTS, QUEUES, SOURCES = 100, 32, 4, 100
"""Ports a switch, queues a switch."""
SERIES_BESIDE = SWITCHES * (PORTS + 2 * QUEUES + LATENCY_BUCKETS + 3) + 6 * SOURCES + 50
"""Not of flows; about."""
HOPS = (1, 2, 3, 3, 4, 4, 5, 6)
"""Hops of the flows, in turn: 3.5 on average."""
CHURN = 0.01
COUNTS = {"influxdb": Counts(1000, 900, {"buffer_full": 0, "rejected": 0, "closed": 0}, 100, 20_000)}


class Network:
    """The maps of a collector that sees so many flows at a time, of which some go and others come."""

    def __init__(self, flows: int) -> None:
        self._random = np.random.default_rng(1)
        self._made = itertools.count()
        self._state = State(
            flow_keys=self._keys(flows),
            flows=np.zeros(flows, batch.FLOW),
            ports=self._points(PORTS, LAYOUT.enums["point_kind"]["POINT_PORT"]),
            port_statistics=np.zeros(1 + SWITCHES * PORTS, batch.PORT_STATISTICS),
            queues=self._points(QUEUES, LAYOUT.enums["point_kind"]["POINT_QUEUE"]),
            queue_statistics=np.zeros(1 + SWITCHES * QUEUES, batch.QUEUE_STATISTICS),
            sources=self._sources(),
        )
        self._route(np.arange(flows))

    def _keys(self, count: int) -> np.ndarray:
        """Of flows that were not there before."""
        number = self._random.permutation(np.fromiter(itertools.islice(self._made, count), np.int64, count))
        keys = np.zeros(count, batch.FLOW_KEY)
        keys["source"][:, :4] = (10 << 24 | number // 50).astype(">u4").view(np.uint8).reshape(-1, 4)
        keys["destination"][:, :4] = (172 << 24 | 16 << 16 | number % 5000).astype(">u4").view(np.uint8).reshape(-1, 4)
        keys["source_port"] = 1024 + number % 60000
        keys["destination_port"] = np.array([443, 80, 53, 5001, 8080])[number % 5]
        keys["protocol"] = np.array([6, 17])[number % 2]
        keys["ip_version"] = 4
        return keys

    def _route(self, rows: np.ndarray) -> None:
        """Give flows their path."""
        flows = np.zeros(len(rows), batch.FLOW)
        flows["flags"] = FlowFlag.PATH
        flows["hop_count"] = np.array(HOPS)[rows % len(HOPS)]
        first = self._random.integers(0, SWITCHES, len(rows))
        flows["hops"]["switch_id"] = 1 + (first[:, None] + 7 * np.arange(MAX_HOPS)) % SWITCHES
        self._state.flows[rows] = flows

    def _points(self, a_switch: int, kind: int) -> np.ndarray:
        points = np.zeros(1 + SWITCHES * a_switch, batch.POINT)
        points["switch_id"][1:] = np.repeat(1 + np.arange(SWITCHES), a_switch)
        points["id"][1:] = np.tile(np.arange(a_switch), SWITCHES)
        points["kind"][1:] = kind
        return points

    def _sources(self) -> np.ndarray:
        sources = np.zeros(SOURCES, batch.SOURCE)
        sources["address"][:, :4] = (192 << 24 | np.arange(SOURCES)).astype(">u4").view(np.uint8).reshape(-1, 4)
        sources["switch_id"] = sources["reporter"] = 1 + np.arange(SOURCES)
        sources["ip_version"], sources["report_version"] = 4, 10
        return sources

    def later(self) -> State:
        """The maps a while later, in arrays of their own."""
        random, state = self._random, self._state
        gone = np.sort(random.choice(len(state.flows), int(len(state.flows) * CHURN), replace=False))
        state.flow_keys[gone] = self._keys(len(gone))
        self._route(gone)
        # Hop latencies of some microseconds, of a few hops some milliseconds.
        latencies = random.lognormal(np.log(8000), 1.2, state.flows["hops"].shape).astype(np.uint32)
        state.flows["hops"]["latency"] = latencies
        state.flows["latency"] = np.where(
            np.arange(MAX_HOPS) < state.flows["hop_count"][:, None], latencies, 0
        ).sum(axis=1)  # fmt: skip
        for name, values in seen_fields(random.integers(1, 1 << 40, len(state.flows))).items():
            state.flows[name] = values
        for points, limit in ((state.ports, 10_000), (state.queues, 2000)):
            points["value"] = random.integers(0, limit, len(points))
        buckets = state.port_statistics["buckets"]
        buckets[1:] += random.poisson(100, buckets[1:].shape).astype(np.uint64)
        state.port_statistics["latency_sum"][1:] += random.integers(1 << 20, 1 << 30, len(buckets) - 1, np.uint64)
        largest = state.queue_statistics["occupancy_max"]
        np.maximum(largest, state.queues["value"] + 1, out=largest)
        state.sources["received"] += random.integers(1, 10_000, SOURCES).astype(np.uint64)
        state.counters["outcomes"][0] = state.sources["received"].sum()
        state.counters["events"] += 1000
        arrays = {f.name for f in dataclasses.fields(state)} - {"clock_ns", "lost_between_cpus", "told_ns"}
        return dataclasses.replace(state, **{name: getattr(state, name).copy() for name in arrays})


class Families(Collector):
    """Series as prometheus_client wants them: a custom collector."""

    def __init__(self) -> None:
        self.series: Sequence[Series | Histogram] = ()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        for one in self.series:
            metric = one.metric
            labels: Iterable[Sequence[str]] = zip(*map(texts, one.labels.values()), strict=True)
            if isinstance(one, Histogram):
                histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                bounds = [*map(repr, one.bounds.tolist()), "+Inf"]
                for row, counts, total, in_all in zip(
                    labels, one.counts.tolist(), one.totals.tolist(), one.sums.tolist(), strict=True
                ):
                    histogram.add_metric(row, list(zip(bounds, [*counts, total], strict=True)), in_all)
                yield histogram
                continue
            of_kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = of_kind(metric.name, metric.help, labels=metric.labels)
            for row, value in zip(labels if one.labels else [()], one.values.tolist(), strict=True):
                family.add_metric(row, value)
            yield family


class Ready(Collector):
    """Metric families that are there."""

    def __init__(self, families: list[Metric]) -> None:
        self._ready = families

    def collect(self) -> list[Metric]:
        return self._ready


def said(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a text says, as prometheus_client's parser reads it; bounds of buckets as numbers."""
    samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = {k: repr(float(v)) if k == "le" else v for k, v in sample.labels.items()}
            samples[sample.name, frozenset(labels.items())] = sample.value
    return samples


class Scrapes:
    """Scrapes of a network, by us and by prometheus_client: each call is one, timed, of another moment."""

    def __init__(self, flows: int, config: Config) -> None:
        self._network, self._config = Network(flows), config
        self.text, self._families = Text(), Families()
        self._registry = prometheus_client.CollectorRegistry(auto_describe=False)
        self._registry.register(self._families)

    def _timed(self, of: Callable[[], object]) -> float:
        gc.collect()
        return common.seconds(of)

    def ours(self) -> float:
        state = self._network.later()
        return self._timed(lambda: self.text.render(scrape(state, self._config, COUNTS)))

    def first(self) -> float:
        """Of a collector that was not scraped before: nothing is remembered."""
        state = self._network.later()
        return self._timed(lambda: Text().render(scrape(state, self._config, COUNTS)))

    def meaning(self) -> float:
        """Of ours, what comes before the text."""
        state = self._network.later()
        return self._timed(lambda: scrape(state, self._config, COUNTS))

    def theirs(self) -> float:
        self._families.series = scrape(self._network.later(), self._config, COUNTS)
        return self._timed(lambda: prometheus_client.generate_latest(self._registry))

    def text_alone(self) -> float:
        """Of prometheus_client's, what comes behind the metric families."""
        self._families.series = scrape(self._network.later(), self._config, COUNTS)
        registry = prometheus_client.CollectorRegistry(auto_describe=False)
        registry.register(Ready(list(self._families.collect())))
        return self._timed(lambda: prometheus_client.generate_latest(registry))

    def checked(self) -> tuple[int, int]:
        """(series, bytes of our text), of one moment; both texts say the same."""
        self._families.series = scrape(self._network.later(), self._config, COUNTS)
        ours, theirs = self.text.render(self._families.series), prometheus_client.generate_latest(self._registry)
        samples = said(ours)
        assert samples == said(theirs), "the texts do not say the same"
        return len(samples), len(ours)


def main() -> int:
    parser = common.parser(__doc__, rounds=9)
    parser.add_argument("--series", type=int, default=100_000, help="about so many (default: 100000)")
    parser.add_argument("--omitted", type=int, default=80_000, help="flows beyond the cap, in a case of its own")
    arguments = parser.parse_args()
    flows = max(100, round((arguments.series - SERIES_BESIDE) / (1 + sum(HOPS) / len(HOPS))))
    scrapes = Scrapes(flows, Config(max_flow_series=flows))
    series, size = scrapes.checked()
    measured = common.turns(
        arguments.rounds,
        {
            "prometheus_client": scrapes.theirs,
            "scrape": scrapes.ours,
            "first": scrapes.first,
            "meaning": scrapes.meaning,
            "text": scrapes.text_alone,
        },
    )
    theirs = measured["prometheus_client"]
    capped = Scrapes(flows + arguments.omitted, Config(max_flow_series=flows))
    capped.checked()
    measured["capped"] = common.turns(arguments.rounds, {"capped": capped.ours})["capped"]
    rows: list[common.Row] = [
        common.required(
            MEASURE,
            common.ratios(measured["scrape"], theirs).median,
            "of its time",
            must=1 / 10,
            hope=1 / 15,
            series=series,
            bytes=size,
        )
    ]
    for what, name in (
        ("prometheus_client: metric families and text", "prometheus_client"),
        ("of that: text, the families ready-made", "text"),
        ("a scrape, steady: arrays to text", "scrape"),
        ("a first scrape: no label's text is known", "first"),
        ("of a scrape: arrays to series", "meaning"),
        (f"a scrape, steady, {arguments.omitted} more flows than are shown", "capped"),
    ):
        of = measured[name]
        rows.append(
            {
                "what": what,
                "ms": of.median * 1e3,
                "from": of.low * 1e3,
                "to": of.high * 1e3,
                "times as fast": theirs.median / of.median,
            }
        )
    common.emit("scrape", rows, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
