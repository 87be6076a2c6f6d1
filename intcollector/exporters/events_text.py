"""Events as JSON text: what json.dumps() makes of series.records(), several times as fast.

Nearly all of a record is as in one before: who reported, what was asked of the switches, the flow, the words for what
is news. Its numbers are of this report only. So the texts of the former are kept, by the bytes that they were made of,
and the latter are put between them. What a record says, and how, is learned from records: a text is kept if what is put
together of it is what json.dumps() said, to the letter. Whatever is not as usual is spelled by json.dumps().
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..batch import Batch
from ..config import Config
from ..layout import HOP, ReportFlag
from ..series import FLOW_LABELS, HOP_NAMES, SOURCE_LABELS, hop_plan, records

KNOWN = 100_000
"""Texts of a kind that are kept. When there are more, all are forgotten."""

FORM = (
    "source", "flags", "report_version", "switch_id", "hw_id", "int_version", "instruction_bitmap", "hop_ml",
    "remaining_hop_count", "hop_count",
)  # fmt: skip
FLOW = (
    "flags", "flow_source", "flow_destination", "source_port", "destination_port", "protocol", "dscp", "vlan_count",
    "vlan_ids",
)  # fmt: skip
NEWS = ("changes", "hop_latency_changes", "queue_occupancy_changes", "tx_utilization_changes")
"""What the three kinds of texts are made of."""

NEEDED = ReportFlag.INNER | ReportFlag.INT
UNUSUAL = (
    ReportFlag.DROPPED | ReportFlag.LOCAL | ReportFlag.HOPS_TRUNCATED | ReportFlag.INT_MX | ReportFlag.POSTCARD
    | ReportFlag.WHOLE
)  # fmt: skip
ADDRESSED = ReportFlag.FLOW_IPV4 | ReportFlag.FLOW_IPV6

dumps = json.JSONEncoder(separators=(",", ":")).encode

Form: TypeAlias = "tuple[str, str, str]"


def key_of(record: Mapping[str, Any]) -> str:
    """`source,destination,source_port,destination_port,protocol` of a record's flow, empty what it does not have; where
    there is no flow that has a name, `source,switch_id,hw_id` of the report."""
    flow = record["flow"]
    named = flow is not None and flow["source"] is not None
    parts = [flow[name] for name in FLOW_LABELS] if named else [record[name] for name in SOURCE_LABELS]
    return ",".join(["" if part is None else str(part) for part in parts])


class EventTexts:
    """Batch -> the text of each record and its key; it remembers what it spelled."""

    def __init__(self) -> None:
        self._forms: dict[bytes, Form] = {}
        self._flows: dict[bytes, tuple[str, str]] = {}  # key, JSON
        self._news: dict[bytes, str] = {}

    def of(self, batch: Batch, config: Config, received_ns: Sequence[int]) -> tuple[list[str], list[str]]:
        """(keys, texts) of all events. received_ns: what their records are to say.

        A Python loop over events: each has a text of its own.
        """
        reports = batch.reports
        hops, usual = _hops(batch)
        texts: list[str] = [""] * len(reports)
        keys: list[str] = [""] * len(reports)
        unknown: list[int] = []
        ends = np.searchsorted(batch.hop_report, np.arange(len(reports) + 1)).tolist()
        of_each = zip(
            usual.tolist(), map(self._forms.get, _bytes(reports, FORM)), map(self._flows.get, _bytes(reports, FLOW)),
            map(self._news.get, _bytes(reports, NEWS)), reports["sequence_number"].tolist(),
            reports["ingress_timestamp"].tolist(), reports["latency"].tolist(), ends, ends[1:], received_ns,
            strict=False,
        )  # fmt: skip
        for row, (as_usual, form, flow, news, number, at, latency, first, end, ns) in enumerate(of_each):
            if as_usual and form is not None and flow is not None and news is not None:
                keys[row] = flow[0]
                texts[row] = _together(form, number, at, flow[1], hops[first:end], latency, ns, news)
            else:
                unknown.append(row)
        if unknown:
            self._spell(batch, config, received_ns, unknown, usual, hops, keys, texts)
        return keys, texts

    def _spell(
        self,
        batch: Batch,
        config: Config,
        received_ns: Sequence[int],
        rows: Sequence[int],
        usual: np.ndarray,
        hops: Sequence[str],
        keys: list[str],
        texts: list[str],
    ) -> None:
        """The rows whose texts are not known, by json.dumps(); and what can be learned of them."""
        some = np.zeros(len(batch), bool)
        some[list(rows)] = True
        part = batch.only(some)
        firsts = np.searchsorted(batch.hop_report, rows).tolist()
        learned = zip(
            rows, records(part, config), *(_bytes(part.reports, of) for of in (FORM, FLOW, NEWS)), firsts, strict=True
        )  # fmt: skip
        for row, record, form_bytes, flow_bytes, news_bytes, first in learned:
            record["received_ns"] = received_ns[row]
            keys[row], texts[row] = key_of(record), dumps(record)
            if not usual[row]:
                continue
            form, flow, news = _form(record), dumps(record["flow"]), dumps(record["changes"])
            of_hops = hops[first : first + len(record["int"]["hops"])]
            number, at, latency = record["sequence_number"], record["ingress_timestamp"], record["int"]["latency"]
            if _together(form, number, at, flow, of_hops, latency, received_ns[row], news) == texts[row]:
                _keep(self._forms, form_bytes, form)
                _keep(self._flows, flow_bytes, (keys[row], flow))
                _keep(self._news, news_bytes, news)


def _keep(known: dict[bytes, Any], of: bytes, text: Any) -> None:
    if len(known) >= KNOWN:
        known.clear()
    known[of] = text


def _bytes(reports: np.ndarray, names: Sequence[str]) -> list[bytes]:
    """These fields of each report."""
    packed = np.empty(len(reports), [(name, reports.dtype[name]) for name in names])
    for name in names:
        packed[name] = reports[name]
    said: list[bytes] = packed.view(f"V{packed.dtype.itemsize}").tolist()
    return said


def _form(record: Mapping[str, Any]) -> Form:
    """What stands before the sequence number, before the flow and before the hops."""
    names = list(record)
    flow, stack = names.index("flow"), dict(record["int"])
    del stack["hops"], stack["latency"]
    before = {name: record[name] for name in names[: names.index("sequence_number")]}
    after = {name: record[name] for name in names[names.index("ingress_timestamp") + 1 : flow]}
    return (
        f'{dumps(before)[:-1]},"sequence_number":',
        f',{dumps(after)[1:-1]},"flow":',
        f',"int":{dumps(stack)[:-1]},"hops":[',
    )


def _together(
    form: Form, number: int, at: int, flow: str, hops: Sequence[str], latency: int, received_ns: int, news: str
) -> str:
    return (
        f'{form[0]}{number},"ingress_timestamp":{at}{form[1]}{flow}{form[2]}{",".join(hops)}],"latency":{latency}}},'
        f'"received_ns":{received_ns},"changes":{news}}}'
    )


def _hops(batch: Batch) -> tuple[list[str], np.ndarray]:
    """The text of each hop, and which reports are as usual: bool (n,). Those of others are not to be used."""
    reports, hops = batch.reports, batch.hops
    flags = reports["flags"]
    usual = (flags & NEEDED == NEEDED) & (flags & ADDRESSED != 0) & (flags & UNUSUAL == 0)
    usual &= (reports["report_version"] == 10) & (reports["time_unit"] == 0) & (reports["latency"] != _NONE["latency"])
    texts: list[str] = [""] * len(hops)
    plans = reports["int_version"].astype(np.uint32) << 16 | reports["instruction_bitmap"]
    for plan in np.unique(plans[usual]).tolist():
        fields = [(name, HOP_NAMES[at]) for name, at, *_ in hop_plan(False, plan >> 16, plan & 0xFFFF)]
        of_plan = np.flatnonzero((usual & (plans == plan))[batch.hop_report])
        some = hops[of_plan]
        for _, stored in fields:
            usual[batch.hop_report[of_plan[some[stored] == _NONE[stored]]]] = False  # null
        spelled = ",".join(f'"{name}":%d' for name, _ in fields)
        values = zip(*(some[stored].tolist() for _, stored in fields), strict=True)
        for at, text in zip(of_plan.tolist(), map(f"{{{spelled}}}".__mod__, values), strict=True):
            texts[at] = text
    return texts, usual


_NONE = {name: int(np.iinfo(HOP[name]).max) for name in HOP_NAMES} | {"latency": 2**64 - 1}
