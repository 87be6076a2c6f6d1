"""Events as JSON text, whichever way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from intcollector.batch import Batch
from intcollector.config import Config
from intcollector.exporters import events_text
from intcollector.exporters.events_text import EventTexts, dumps, key_of
from intcollector.series import records

from .batches import batch_of, news, report, vectors

NOW_NS = 1_700_000_000_000_000_000


def every_kind() -> Batch:
    """The reports of all vectors."""
    reports = [one for vector in vectors() if vector["outcome"] == "ok" for one in vector["reports"]]
    return batch_of([{**one, "changes": [], "received_ns": NOW_NS + i} for i, one in enumerate(reports)])


def agree(texts: EventTexts, batch: Batch, config: Config) -> None:
    """What is spelled is what json.dumps() makes of the records."""
    said = records(batch, config)
    received_ns = [record["received_ns"] for record in said]
    assert texts.of(batch, config, received_ns) == ([key_of(one) for one in said], [dumps(one) for one in said])


@pytest.mark.parametrize("seed", range(20))
def test_texts_are_the_records(seed: int) -> None:
    """Whatever reports follow one another, with whatever numbers and flags, each text is its record's, also when all
    that it is made of was seen before."""
    random = np.random.default_rng(seed)
    whole, texts = every_kind(), EventTexts()
    for _ in range(4):
        batch = Batch.together([whole[row : row + 1] for row in random.integers(0, len(whole), 60)])
        reports, hops = batch.reports.copy(), batch.hops.copy()
        for name in ("sequence_number", "ingress_timestamp", "latency", "received_ns"):
            reports[name] = random.integers(0, 2**31, len(reports))
        for name in ("changes", "hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes"):
            reports[name] = random.choice([0, 1, 3], len(reports))
        reports["changes"] &= 0x37
        reports["flow_source"][:, 3] ^= random.integers(0, 3, len(reports), "u1")
        reports["time_unit"] = random.random(len(reports)) < 0.1
        reports["latency"][random.random(len(reports)) < 0.1] = 2**64 - 1
        for name in hops.dtype.names or ():
            if name not in ("cell", "pad"):
                hops[name] = random.integers(0, np.iinfo(hops.dtype[name]).max, len(hops), hops.dtype[name])
                hops[name][random.random(len(hops)) < 0.02] = np.iinfo(hops.dtype[name]).max
        agree(texts, dataclasses.replace(batch, reports=reports, hops=hops), Config())
    assert texts._forms and texts._flows and texts._news


def test_what_is_usual_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second report of a flow, and of all others of its form, is spelled without its record."""
    texts, config = EventTexts(), Config()
    said = [
        news(report({"switch_id": 4, "hop_latency": i}, {"switch_id": 5, "hop_latency": 2}), "path") for i in (1, 2)
    ]
    first, second = (batch_of([{**one, "sequence_number": i}]) for i, one in enumerate(said))
    expected = [dumps(one) for one in records(second, config)]
    agree(texts, first, config)

    def never(*_: object) -> None:
        raise AssertionError("it has to know")

    monkeypatch.setattr(events_text, "records", never)
    received_ns = [record["received_ns"] for record in records(second, config)]
    assert texts.of(second, config, received_ns)[1] == expected


def test_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are forgotten when they are too many, and learned again."""
    monkeypatch.setattr(events_text, "KNOWN", 3)
    texts = EventTexts()
    flows = [report({"switch_id": 4, "hop_latency": 1}, flow=f"10.0.0.{i}:5000>10.0.0.2:80/6") for i in range(9)]
    for _ in range(3):
        agree(texts, batch_of([news(one, "path") for one in flows]), Config())
        assert len(texts._flows) <= 3
