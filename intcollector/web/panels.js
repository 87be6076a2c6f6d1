// The panels below the flows: switches' latencies, queues, ports, sources, outcomes, drops, exporters.

import { List, byId, el, setAttribute, setClass, setHidden, setStyle, setText } from "./dom.js";
import { bytes, count, latency, percent, plural, range, rate, switchName } from "./format.js";
import { Table, bar, text } from "./table.js";

const QUANTILES = ["p50_s", "p90_s", "p99_s"];

export class Panels {
  constructor(select) {
    const toSwitch = (row) => select({ kind: "switch", id: String(row.switch_id) }, { reveal: true });
    const number = (row) => switchName(row.switch_id);
    this.axis = { low: 1e-9, high: 1e-3 };
    this.switches = new Table(
      byId("switches-table"),
      [
        { key: "switch", title: "Switch", first: "ascending", value: (s) => s.switch_id, make: text(number) },
        { key: "ranges", title: "Time", head: (this.ticks = el("span", { class: "ticks" })), make: (cell) => this.#ranges(cell) },
        { key: "p50", title: "p50", hint: "half of the packets took at most this; of the last 60 s", align: "end", value: (s) => most(s, "p50_s"), make: text((s) => range(now(s).p50_s)) },
        { key: "p90", title: "p90", hint: "9 in 10 packets took at most this; of the last 60 s", align: "end", value: (s) => most(s, "p90_s"), make: text((s) => range(now(s).p90_s)) },
        { key: "p99", title: "p99", hint: "99 in 100 packets took at most this; of the last 60 s", align: "end", value: (s) => most(s, "p99_s"), make: text((s) => range(now(s).p99_s)) },
      ],
      { label: "Time spent in each switch", id: (s) => String(s.switch_id), sort: ["p99", "descending"], open: toSwitch },
    );
    this.switches.setEmpty("No switch said how long packets were in it.");
    this.queues = new Table(
      byId("queues-table"),
      [
        { key: "where", title: "Switch, queue", first: "ascending", value: (q) => `${number(q)} ${q.queue_id}`, make: text((q) => `${number(q)}, queue ${q.queue_id ?? "?"}`) },
        { key: "bar", title: "Occupancy", value: (q) => q.occupancy, make: bar((q) => ({ share: q.occupancy / this.fullest, mark: q.occupancy_max / this.fullest, hot: q.over_limit, text: amount(q) })) },
        { key: "most", title: "Most", hint: "since the collector started", align: "end", value: (q) => q.occupancy_max, make: text((q) => count(q.occupancy_max)) },
      ],
      { label: "Fullest queues", id: (q) => `${q.switch_id} ${q.queue_id}`, sort: ["bar", "descending"], open: toSwitch },
    );
    this.queues.setEmpty("No switch said how full its queues are.");
    this.ports = new Table(
      byId("ports-table"),
      [
        { key: "where", title: "Switch, port", first: "ascending", value: (p) => `${number(p)} ${p.egress_port_id}`, make: text((p) => `${number(p)}, port ${p.egress_port_id ?? "?"}`) },
        { key: "bar", title: "Latency", hint: "mean of the last second", value: (p) => p.latency_s, make: bar((p) => ({ share: (p.latency_s ?? 0) / this.slowest, mark: null, hot: p.over_limit, text: latency(p.latency_s) })) },
        { key: "rate", title: "Packets", hint: "packets reported there, a second", align: "end", value: (p) => p.hops_per_s, make: text((p) => rate(p.hops_per_s)) },
        { key: "used", title: "In use", align: "end", value: (p) => p.utilization_ratio ?? p.utilization, hint: "how much of the link is used, as the switch says: in %, or in its own unit where that is not known", make: text((p) => (p.utilization_ratio === null || p.utilization_ratio === undefined ? (p.utilization === null ? "–" : count(p.utilization)) : percent(p.utilization_ratio))) },
      ],
      { label: "Hot ports", id: (p) => `${p.switch_id} ${p.egress_port_id}`, sort: ["bar", "descending"], open: toSwitch },
    );
    this.ports.setEmpty("No switch said where packets left it.");
    this.sources = new Table(
      byId("sources-table"),
      [
        { key: "source", title: "Source", hint: "the address reports come from", first: "ascending", value: (s) => s.source, make: text((s) => s.source, (s) => s.source) },
        { key: "id", title: "Switch", first: "ascending", value: (s) => s.switch_id, make: text((s) => `${s.switch_id === null ? "–" : s.switch_id}${s.hw_id === null ? "" : `, hw ${s.hw_id}`}`, () => "switch id, and the part of the hardware that numbers the reports (hw id)") },
        { key: "rate", title: "Reports", hint: "a second", align: "end", value: (s) => s.reports_per_s, make: text((s) => rate(s.reports_per_s), (s) => `${count(s.reports)} since the start`) },
        { key: "lost", title: "Lost", hint: "numbers that are missing, since the start", align: "end", value: (s) => s.lost, make: lost },
        { key: "reordered", title: "Reordered", hint: "came behind later ones", align: "end", value: (s) => s.reordered, make: text((s) => count(s.reordered)) },
        { key: "duplicated", title: "Twice", hint: "came more than once", align: "end", value: (s) => s.duplicated, make: text((s) => count(s.duplicated)) },
        { key: "restarted", title: "Restarts", hint: "the source began to number anew", align: "end", value: (s) => s.restarted, make: text((s) => count(s.restarted)) },
      ],
      { label: "Sources of reports", id: (s) => `${s.source} ${s.switch_id} ${s.hw_id}`, sort: ["rate", "descending"] },
    );
    this.sources.setEmpty("No source yet.");
    this.drops = new Table(
      byId("drops-table"),
      [
        { key: "where", title: "Switch", first: "ascending", value: (d) => d.switch_id, make: text(number) },
        { key: "reason", title: "Reason", first: "ascending", value: (d) => String(d.reason), make: text((d) => String(d.reason), (d) => String(d.reason)) },
        { key: "packets", title: "Packets", align: "end", value: (d) => d.packets, make: text((d) => count(d.packets)) },
        { key: "rate", title: "Rate", align: "end", value: (d) => d.packets_per_s, make: text((d) => rate(d.packets_per_s)) },
      ],
      { label: "Packets dropped by switches", id: (d) => `${d.switch_id} ${d.reason}`, sort: ["packets", "descending"] },
    );
    this.outcomes = new List(byId("outcomes-list"), (one) => one.outcome, outcome);
    this.zeros = new List(byId("outcomes-zeros"), (one) => one.outcome, outcome);
    this.exporters = new List(byId("exporters-list"), (one) => one.exporter, exporter);
    this.relay = new List(byId("relay-list"), ([name]) => name, ([name]) => {
      const value = el("dd");
      return { element: el("div", {}, el("dt", {}, name.replaceAll("_", " ")), value), update: ([, n]) => setText(value, typeof n === "number" ? count(n) : String(n)) };
    });
  }

  update(picture) {
    const relay = picture.collector.kind === "relay";
    this.#switches(picture.switches);
    this.fullest = Math.max(1, ...picture.queues.map((q) => Math.max(q.occupancy, q.occupancy_max ?? 0)));
    this.queues.setRows(picture.queues);
    this.slowest = Math.max(1e-9, ...picture.ports.map((p) => p.latency_s ?? 0));
    this.ports.setRows(picture.ports);
    this.sources.setRows(picture.sources);
    setHidden(byId("drops"), !picture.drops.length);
    this.drops.setRows(picture.drops);
    setHidden(byId("outcomes"), relay && !picture.outcomes.length);
    const zeros = picture.outcomes.filter((one) => !one.packets);
    this.outcomes.update(picture.outcomes.filter((one) => one.packets).sort((a, b) => b.packets - a.packets));
    this.zeros.update(zeros);
    setHidden(byId("outcomes-zero"), !zeros.length);
    setText(byId("outcomes-zero-title"), `${plural(zeros.length, "outcome")} that no packet had`);
    setHidden(byId("exporters"), !picture.exporters.length);
    this.exporters.update(picture.exporters);
    setHidden(byId("relay"), !picture.relay);
    const facts = Object.entries(picture.relay ?? {}).filter(([, value]) => ["number", "string", "boolean"].includes(typeof value));
    this.relay.update(facts);
  }

  #switches(switches) {
    const bounds = switches.flatMap((s) => [s, s.recent].filter(Boolean).flatMap((from) => QUANTILES.map((q) => from[q]).filter(Boolean)));
    const highs = bounds.map(([above, atMost]) => atMost ?? above * 2).filter((value) => value > 0);
    const lows = bounds.map(([above]) => above).filter((value) => value > 0);
    if (highs.length) {
      const low = 10 ** Math.floor(Math.log10(Math.min(...lows, ...highs)) + 1e-9);
      const high = 10 ** Math.ceil(Math.log10(Math.max(...highs)) - 1e-9);
      if (low !== this.axis.low || high !== this.axis.high || !this.axis.said) {
        this.axis = { low, high: Math.max(high, low * 10), said: true };
        this.#key();
      }
    }
    this.switches.setRows(switches);
  }

  #place(value) {
    const { low, high } = this.axis;
    return Math.max(0, Math.min(1, Math.log(Math.max(value, low) / low) / Math.log(high / low)));
  }

  #key() {
    const { low, high } = this.axis;
    const ticks = [];
    for (let value = low; value <= high * 1.01; value *= 10) {
      const tick = el("span", { class: "tick" }, latency(value));
      tick.style.left = `${(this.#place(value) * 100).toFixed(2)}%`;
      ticks.push(tick);
    }
    this.ticks.replaceChildren(el("span", { class: "unseen" }, "Time, from "), ...ticks);
  }

  #ranges(cell) {
    const made = [];
    const frame = el("span", { class: "ranges", "aria-hidden": "true" });
    for (const quantile of QUANTILES) {
      const name = quantile.slice(0, 3);
      const since = el("span", { class: `range since ${name}` });
      const recent = el("span", { class: `range recent ${name}` });
      frame.append(since, recent);
      made.push([quantile, since, recent]);
    }
    cell.append(frame);
    return (row) => {
      for (const [quantile, since, recent] of made) {
        this.#range(since, row[quantile]);
        this.#range(recent, row.recent?.[quantile]);
      }
    };
  }

  #range(element, bounds) {
    setHidden(element, !bounds);
    if (!bounds) return;
    const from = this.#place(bounds[0] ?? 0);
    const to = bounds[1] === null ? 1 : this.#place(bounds[1]);
    setStyle(element, "left", `${(from * 100).toFixed(2)}%`);
    setStyle(element, "width", `${((to - from) * 100).toFixed(2)}%`);
  }
}

/** Of the last minute, or of all if nothing came in it. */
const now = (one) => one.recent ?? { p50_s: null, p90_s: null, p99_s: null };
const most = (one, quantile) => {
  const bounds = now(one)[quantile];
  return bounds ? bounds[1] ?? Infinity : null;
};

const amount = (queue) => (queue.occupancy_bytes === null || queue.occupancy_bytes === undefined ? count(queue.occupancy) : bytes(queue.occupancy_bytes));

function lost(cell) {
  return (source) => {
    setText(cell, source.lost ? `${count(source.lost)} (${percent(source.lost_ratio)})` : count(source.lost));
    setClass(cell, "bad", source.lost_per_s > 0);
    setAttribute(cell, "title", `${rate(source.lost_per_s)} now`);
  };
}

function outcome(one) {
  const packets = el("span", { class: "outcome-count" });
  const speed = el("span", { class: "outcome-rate" });
  const head = el("p", { class: "outcome-head" }, el("code", {}, one.outcome), packets, speed);
  return {
    element: el("li", { class: `outcome ${one.kind}` }, head, el("p", { class: "outcome-says" }, one.says ?? "")),
    update(now_) {
      setText(packets, plural(now_.packets, "packet"));
      setText(speed, now_.packets ? rate(now_.packets_per_s) : "");
    },
  };
}

function exporter(one) {
  const dot = el("span", { class: "dot", "aria-hidden": "true" });
  const state = el("span", { class: "exporter-state" });
  const numbers = el("p", { class: "exporter-numbers" });
  const problem = el("p", { class: "exporter-problem" });
  const element = el("li", {}, el("p", { class: "exporter-head" }, dot, el("strong", {}, one.exporter), state), numbers, problem);
  return {
    element,
    update(now_) {
      const lost_ = Object.entries(now_.lost ?? {}).filter(([, n]) => n);
      const up = now_.up !== false && !now_.problem;
      setAttribute(element, "class", `exporter ${up ? "up" : "down"}`);
      setText(state, up ? "delivers" : "does not deliver");
      const parts = [];
      if (now_.accepted !== null && now_.accepted !== undefined) parts.push(`accepted ${count(now_.accepted)}`);
      if (now_.delivered !== null && now_.delivered !== undefined) parts.push(`delivered ${count(now_.delivered)}`);
      if (now_.buffered) parts.push(`waiting ${count(now_.buffered)}${now_.buffered_bytes ? ` (${bytes(now_.buffered_bytes)})` : ""}`);
      parts.push(lost_.length ? `lost ${lost_.map(([reason, n]) => `${count(n)} (${reason.replaceAll("_", " ")})`).join(", ")}` : "lost 0");
      setText(numbers, parts.join(" · "));
      setText(problem, now_.problem ?? "");
      setHidden(problem, !now_.problem);
    },
  };
}
