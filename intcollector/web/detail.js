// Beside the graph: the links as a table, or what is known of the selected flow, switch or link.

import { FlowChart, hopColour } from "./charts.js";
import { List, byId, el, setHidden, setStyle, setText } from "./dom.js";
import { ids, names, through } from "./flows.js";
import { clock, count, latency, path, percent, plural, range, rate, ago, switchName } from "./format.js";
import { Table, text } from "./table.js";

const KEPT_S = 300;
const ASK_EVERY_MS = 10_000;

export class Detail {
  constructor(select) {
    this.select = select;
    this.body = byId("detail-body");
    this.shown = null;
    const columns = [
      { key: "link", title: "From › to", hint: "two switches, one behind the other on a path", first: "ascending", value: (l) => `${l.from} ${l.to}`, make: text((l) => `${switchName(l.from)} › ${switchName(l.to)}`, (l) => (l.ports.length ? `egress port ${l.ports.join(", ")}` : "")) },
      { key: "latency", title: "Latency", hint: "mean of the last time in the first switch, of its flows", align: "end", value: (l) => l.latency_s, make: text((l) => latency(l.latency_s)) },
      { key: "load", title: "Reports", hint: "a second", align: "end", value: (l) => l.reports_per_s, make: text((l) => rate(l.reports_per_s)) },
      { key: "flows", title: "Flows", align: "end", value: (l) => l.flows, make: text((l) => count(l.flows)) },
    ];
    this.links = new Table(byId("links-table"), columns, {
      label: "Links between switches",
      id: (link) => link.id,
      sort: ["latency", "descending"],
      open: (link) => this.select({ kind: "link", from: link.from, to: link.to }, { reveal: true }),
    });
    this.links.setEmpty("No path has two switches yet.");
    byId("detail-close").addEventListener("click", () => this.close());
  }

  close() {
    const back = this.back;
    this.select(null);
    if (back?.isConnected) back.focus({ preventScroll: true });
  }

  update(picture, links, selection) {
    const key = selection ? JSON.stringify(selection) : null;
    if (key !== this.shown) {
      if (!this.shown) this.back = document.activeElement;
      this.shown = key;
      this.view?.end();
      this.view = selection ? { flow: Flow, switch: Switch, link: Link }[selection.kind].make(this.body, selection, this.select) : null;
      setHidden(byId("detail-links"), Boolean(selection));
      setHidden(byId("detail-body"), !selection);
      setHidden(byId("detail-close"), !selection);
    }
    setText(byId("detail-title"), selection ? this.view.title : "Links");
    if (selection) this.view.update(picture, links);
    else this.links.setRows(links);
  }

  restyle() {
    this.view?.restyle?.();
  }
}

const pairs = (...rows) => {
  const list = el("dl", { class: "pairs" });
  const update = {};
  for (const [key, title, hint] of rows) {
    const value = el("dd");
    update[key] = value;
    list.append(el("div", {}, el("dt", {}, hint ? el("abbr", { title: hint }, title) : title), value));
  }
  return { list, update };
};

/** [name, hop] of hops, by switch; one that a path goes through again has a name of its own. */
function keyed(hops) {
  const met = new Map();
  return hops.map((hop) => {
    const times = met.get(hop.switch_id) ?? 0;
    met.set(hop.switch_id, times + 1);
    return [`${switchName(hop.switch_id)}${times ? ` (${times + 1})` : ""}`, hop];
  });
}

class Flow {
  static make(body, selection) {
    return new Flow(body, selection);
  }

  constructor(body, { id }) {
    this.id = id;
    this.title = "Flow";
    this.times = [];
    this.total = [];
    this.hops = new Map();
    this.now = [];
    this.asked = -Infinity;
    this.ended = false;
    this.name = el("p", { class: "flow-name" });
    this.gone = el("p", { class: "note", hidden: true }, "Not among the flows seen most recently: what is shown is old.");
    this.path = el("p", { class: "flow-path" });
    this.facts = pairs(["latency", "Latency"], ["rate", "Reports"], ["seen", "Seen"]);
    this.stack = el("div", { class: "hop-stack", "aria-hidden": "true" });
    this.hopList = el("ol", { class: "hops" });
    this.changes = el("ul", { class: "changes" });
    this.changesTitle = el("h3", {}, "Path changes");
    body.replaceChildren(
      this.name, this.gone, this.path, this.facts.list,
      el("h3", {}, "Where the time goes"), this.stack, this.hopList,
      el("h3", {}, "Last minutes"), el("p", { class: "note" }, "Thick: all of the path. Coloured: each switch, as above. Grey: a switch it went through before."),
    );
    this.chart = new FlowChart(body);
    body.append(this.changesTitle, this.changes);
    this.stackBars = new List(this.stack, (hop) => String(hop.at), () => {
      const element = el("span");
      return { element, update: (hop) => {
        setStyle(element, "flex-grow", String((hop.latency_s ?? 0) * 1e9));
        setStyle(element, "background-color", `var(${hopColour(hop.at)})`);
      } };
    });
    this.rows = new List(this.hopList, (hop) => String(hop.at), () => {
      const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
      const name = el("span", { class: "hop-name" });
      const more = el("span", { class: "hop-more" });
      const value = el("span", { class: "hop-value" });
      return { element: el("li", {}, swatch, name, more, value), update: (hop) => {
        setStyle(swatch, "background-color", `var(${hopColour(hop.at)})`);
        setText(name, `switch ${switchName(hop.switch_id)}`);
        const port = hop.egress_port_id === null ? null : `port ${hop.egress_port_id}`;
        const queue = hop.queue_id === null ? null : `queue ${hop.queue_id}`;
        setText(more, [port, queue].filter(Boolean).join(", "));
        setText(value, latency(hop.latency_s));
      } };
    });
    this.changeList = new List(this.changes, (one) => String(one.time), (one) => ({
      element: el("li", {}, el("span", { class: "change-time" }, clock(one.time)),
        el("span", { class: "change-before" }, path(one.before)), el("span", { class: "unseen" }, "is now"),
        el("span", { class: "change-after" }, ...ids(one.after, one.before))),
      update() {},
    }));
    this.known = [];
  }

  update(picture) {
    const flow = picture.flows.find((one) => one.id === this.id);
    setHidden(this.gone, Boolean(flow));
    if (performance.now() - this.asked > ASK_EVERY_MS) this.#ask();
    if (!flow) return;
    const [from, to] = names(flow);
    setText(this.name, `${flow.protocol_name ?? ""} ${from} → ${to}`);
    this.path.replaceChildren(...ids(flow.path, null, flow.cut));
    setText(this.facts.update.latency, latency(flow.latency_s));
    setText(this.facts.update.rate, `${rate(flow.reports_per_s)}, ${count(flow.reports)} in all`);
    setText(this.facts.update.seen, ago(flow.seen_s));
    const hops = flow.hops.map((hop, at) => ({ ...hop, at }));
    this.stackBars.update(hops);
    this.rows.update(hops);
    const newest = { time: flow.path_changed, before: flow.path_before, after: flow.path };
    if (newest.time !== null && newest.before && !this.known.some((one) => one.time >= newest.time)) this.known.unshift(newest);
    setHidden(this.changesTitle, !this.known.length);
    this.changeList.update(this.known.slice(0, 20));
    this.now = flow.hops;
    this.#note(picture.time, flow.latency_s, flow.hops);
    this.#plot();
  }

  #note(time, total, hops) {
    if (this.times.length && time <= this.times[this.times.length - 1]) return;
    this.times.push(time);
    this.total.push(total);
    keyed(hops).forEach(([key, hop]) => {
      if (!this.hops.has(key)) this.hops.set(key, []);
      const values = this.hops.get(key);
      while (values.length < this.times.length - 1) values.push(null);
      values.push(hop.latency_s);
    });
    this.#level();
    while (this.times.length && this.times[0] < time - KEPT_S) {
      this.times.shift();
      this.total.shift();
      for (const values of this.hops.values()) values.shift();
    }
    for (const [key, values] of this.hops) if (values.every((value) => value === null)) this.hops.delete(key);
  }

  /** All lines are as long as the times are many. */
  #level() {
    for (const values of this.hops.values()) while (values.length < this.times.length) values.push(null);
  }

  /** A switch of the path has the colour it has above; one that was on it before, none. */
  #plot() {
    const at = new Map(keyed(this.now).map(([key], place) => [key, place]));
    const hops = [...this.hops].map(([name, values]) => ({ name, values, colour: at.has(name) ? hopColour(at.get(name)) : "--unknown" }));
    this.chart.update(this.times, this.total, hops);
  }

  /** What was before this page looked, and what went on while it was hidden. */
  async #ask() {
    this.asked = performance.now();
    let answer;
    try {
      answer = await fetch(`api/v1/flows/${encodeURIComponent(this.id)}`);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // no connection: the page says so elsewhere
      return;
    }
    if (!answer.ok || this.ended) return;
    const said = await answer.json();
    if (this.ended) return;
    if (said.changes) this.known = [...said.changes].sort((a, b) => b.time - a.time);
    const { history } = said;
    if (!history?.time.length) return;
    const { times, total, hops } = this;
    this.times = [...history.time];
    this.total = [...history.latency_s];
    this.hops = new Map(keyed(history.hops).map(([key, hop]) => [key, [...hop.latency_s]]));
    // what came while the answer was on its way
    const last = this.times[this.times.length - 1];
    times.forEach((time, at) => {
      if (time <= last + 0.5) return;
      this.times.push(time);
      this.total.push(total[at]);
      for (const [key, values] of hops) {
        if (!this.hops.has(key)) this.hops.set(key, []);
        const line = this.hops.get(key);
        while (line.length < this.times.length - 1) line.push(null);
        line.push(values[at]);
      }
    });
    this.#level();
    this.#plot();
  }

  restyle() {
    this.chart.restyle();
  }

  end() {
    this.ended = true;
    this.chart.destroy();
  }
}

/** Flows through what is selected, the slowest of them to choose. */
function slowest(body, selection, select) {
  const list = el("ul", { class: "slowest" });
  body.append(el("h3", {}, "Its slowest flows"), list);
  const rows = new List(list, (flow) => flow.id, (made) => {
    const name = el("span", { class: "slow-name" });
    const value = el("span", { class: "slow-value" });
    const button = el("button", { type: "button", class: "row-button", on: { click: () => select({ kind: "flow", id: made.id }) } }, name, value);
    return { element: el("li", {}, button), update: (flow) => {
      setText(name, names(flow).join(" → "));
      setText(value, latency(flow.latency_s));
    } };
  });
  return (picture) => {
    const flows = picture.flows.filter((flow) => through(flow, selection));
    rows.update(flows.sort((a, b) => (b.latency_s ?? -1) - (a.latency_s ?? -1)).slice(0, 8));
  };
}

class Switch {
  static make(body, selection, select) {
    return new Switch(body, selection, select);
  }

  constructor(body, selection, select) {
    this.id = String(selection.id);
    this.title = `Switch ${selection.id}`;
    this.facts = pairs(
      ["flows", "Flows through it"], ["rate", "Hops reported", "how often a report told of this switch, a second"],
      ["p50", "Half took at most", "p50, of the last 60 s"], ["p90", "9 in 10 at most", "p90, of the last 60 s"],
      ["p99", "99 in 100 at most", "p99, of the last 60 s"], ["mean", "Mean since start"], ["queue", "Fullest queue"],
    );
    this.note = el("p", { class: "note" }, "Time packets spent in this switch, in the last 60 s.");
    body.replaceChildren(this.note, this.facts.list);
    this.slowest = slowest(body, selection, select);
  }

  update(picture) {
    const { update } = this.facts;
    const one = picture.switches.find((other) => String(other.switch_id) === this.id);
    const flows = picture.flows.filter((flow) => flow.path.some((id) => String(id) === this.id));
    setText(update.flows, count(flows.length));
    setText(update.rate, rate(one?.hops_per_s));
    const recent = one?.recent;
    setText(update.p50, range(recent?.p50_s));
    setText(update.p90, range(recent?.p90_s));
    setText(update.p99, range(recent?.p99_s));
    setText(update.mean, latency(one?.mean_s));
    const queue = picture.queues.find((other) => String(other.switch_id) === this.id);
    setText(update.queue, queue ? `queue ${queue.queue_id}: ${count(queue.occupancy)}` : "–");
    this.slowest(picture);
  }

  end() {}
}

class Link {
  static make(body, selection, select) {
    return new Link(body, selection, select);
  }

  constructor(body, selection, select) {
    this.selection = selection;
    this.title = `${switchName(selection.from)} › ${switchName(selection.to)}`;
    this.facts = pairs(
      ["latency", "Mean latency", "of the last packets of its flows, in the first switch"], ["max", "Slowest flow"],
      ["rate", "Reports"], ["flows", "Flows"], ["ports", "Egress ports", "where packets leave the first switch"],
      ["used", "Link in use", "as the first switch says"],
    );
    body.replaceChildren(el("p", { class: "note" }, `From switch ${selection.from} to switch ${selection.to}.`), this.facts.list);
    this.slowest = slowest(body, selection, select);
  }

  update(picture, links) {
    const { from, to } = this.selection;
    const { update } = this.facts;
    const link = links.find((one) => one.from === from && one.to === to);
    setText(update.latency, latency(link?.latency_s));
    setText(update.max, latency(link?.latency_max_s));
    setText(update.rate, rate(link?.reports_per_s));
    setText(update.flows, link ? plural(link.flows, "flow") : "none now");
    setText(update.ports, link?.ports.length ? link.ports.join(", ") : "–");
    const used = picture.ports.filter((port) => port.switch_id === from && link?.ports.includes(port.egress_port_id) && port.utilization_ratio !== null);
    setText(update.used, used.length ? used.map((port) => `port ${port.egress_port_id}: ${percent(port.utilization_ratio)}`).join(", ") : "–");
    this.slowest(picture);
  }

  end() {}
}
