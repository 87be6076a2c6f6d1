// The table of flows, and which of them a filter or a selection leaves.

import { spark } from "./charts.js";
import { byId, el, setAttribute, setClass, setHidden, setText } from "./dom.js";
import { ago, count, endpoint, latency, path, plural, rate, switchName } from "./format.js";
import { Table, text } from "./table.js";

/** A path that changed is marked for so long. */
const MARKED_S = 300;

/** Does a flow go through what is selected? */
export function through(flow, selection) {
  if (!selection || selection.kind === "flow") return true;
  const ids = flow.path.map(String);
  if (selection.kind === "switch") return ids.includes(String(selection.id));
  return ids.some((id, at) => id === String(selection.from) && ids[at + 1] === String(selection.to));
}

export const names = (flow) => [endpoint(flow.source, flow.source_port), endpoint(flow.destination, flow.destination_port)];

const words = (flow) =>
  `${names(flow).join(" ")} ${flow.source} ${flow.destination} ${flow.protocol_name ?? flow.protocol} ${path(flow.path)}`.toLowerCase();

/** Seconds since its path changed, if that is to be marked. */
function changed(flow, time) {
  if (flow.path_changed === null || !flow.path_before) return null;
  const since = time - flow.path_changed;
  return since < MARKED_S ? Math.max(0, since) : null;
}

export class FlowTable {
  constructor(select) {
    this.select = select;
    this.filter = byId("filter");
    this.time = 0;
    const columns = [
      { key: "flow", title: "Flow", hint: "from one computer to another", first: "ascending", value: (f) => names(f).join(" "), make: ends },
      { key: "path", title: "Path", hint: "switches, in the order in which the packet went through them", first: "ascending", value: (f) => path(f.path), make: (cell) => this.#path(cell) },
      { key: "latency", title: "Latency", hint: "time the last reported packet spent in all switches of its path", align: "end", value: (f) => f.latency_s, make: text((f) => latency(f.latency_s)) },
      { key: "recent", title: "Last minute", make: (cell) => sparkOf(cell) },
      { key: "rate", title: "Reports", hint: "reports of this flow a second", align: "end", value: (f) => f.reports_per_s, make: text((f) => rate(f.reports_per_s), (f) => `${count(f.reports)} reports`) },
      { key: "changes", title: "Changed", hint: "when its path last changed, and how often it did since it was first seen", align: "end", value: (f) => f.path_changed, make: text((f) => (f.path_changed === null ? "" : `${ago(this.time - f.path_changed)}${f.path_changes > 1 ? ` (${count(f.path_changes)}×)` : ""}`)) },
      { key: "seen", title: "Seen", hint: "when it was last reported", align: "end", first: "ascending", value: (f) => f.seen_s, make: text((f) => ago(f.seen_s)) },
    ];
    this.table = new Table(byId("flows-table"), columns, {
      label: "Flows",
      id: (flow) => flow.id,
      sort: ["latency", "descending"],
      open: (flow) => this.select({ kind: "flow", id: flow.id }, { reveal: true }),
      decorate: (row, flow) => setClass(row, "old", flow.seen_s > 30),
    });
    this.filter.addEventListener("input", () => this.picture && this.update(this.picture, this.selection, true));
    this.filter.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "ArrowDown") {
        this.table.focus();
        event.preventDefault();
      }
    });
  }

  /** again: the user changed what is shown */
  update(picture, selection, again = false) {
    Object.assign(this, { picture, time: picture.time });
    const before = this.selection;
    this.selection = selection;
    const wanted = this.filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let rows = picture.flows;
    if (selection && selection.kind !== "flow") rows = rows.filter((flow) => through(flow, selection));
    if (wanted.length) rows = rows.filter((flow) => wanted.every((word) => words(flow).includes(word)));
    // choosing a row leaves the rows where they are
    const kind = (one) => (one && one.kind !== "flow" ? JSON.stringify(one) : "");
    if (again && (kind(before) !== kind(selection) || this.wanted !== wanted.join(" "))) this.table.again();
    this.wanted = wanted.join(" ");
    this.table.setEmpty(picture.flows.length ? "No flow matches." : "No flow was reported yet.");
    this.table.setRows(rows);
    const id = selection?.kind === "flow" ? selection.id : null;
    if (id !== this.table.selected) this.table.select(id);
    const all = rows.length === picture.flows.length;
    setText(byId("flows-count"), all ? count(picture.collector.flows) : `${count(rows.length)} of ${count(picture.flows.length)}`);
    setHidden(byId("flows-omitted"), !picture.flows_omitted);
    setText(byId("flows-omitted"), `${plural(picture.flows_omitted, "flow")} more, seen less recently, are counted but not shown here.`);
    this.#chips(selection);
  }

  #chips(selection) {
    const chips = byId("selection");
    const shown = selection && selection.kind !== "flow" ? selection : null;
    const said = shown && (shown.kind === "switch" ? `through switch ${shown.id}` : `from switch ${shown.from} to ${shown.to}`);
    if (said === this.said) return;
    this.said = said;
    setHidden(chips, !said);
    chips.replaceChildren();
    if (!said) return;
    const button = el("button", { type: "button", class: "chip", on: { click: () => this.select(null) } }, `only flows ${said} `, el("span", { "aria-hidden": "true" }, "×"), el("span", { class: "unseen" }, ": show all"));
    chips.append(button);
  }

  #path(cell) {
    const now = el("span", { class: "path-now" });
    const mark = el("span", { class: "path-before" });
    cell.append(now, mark);
    let shown = "";
    return (flow) => {
      const since = changed(flow, this.time);
      const key = `${flow.path} ${flow.cut} ${since === null ? "" : flow.path_before}`;
      if (key !== shown) {
        shown = key;
        now.replaceChildren(...ids(flow.path, since === null ? null : flow.path_before, flow.cut));
        setAttribute(cell, "title", since === null ? path(flow.path, flow.cut) : `before: ${path(flow.path_before)}\nafter: ${path(flow.path, flow.cut)}`);
      }
      setHidden(mark, since === null);
      setClass(cell, "changed", since !== null);
      setText(mark, since === null ? "" : `was ${path(flow.path_before)}`);
    };
  }
}

/** Switch ids, those that are new marked. */
export function ids(now, before, cut = false) {
  if (!now.length) return [path(now)];
  const parts = cut ? ["… › "] : [];
  now.forEach((id, at) => {
    if (at) parts.push(el("span", { class: "step", "aria-label": "to" }, " › "));
    const fresh = before && !before.includes(id);
    parts.push(el(fresh ? "mark" : "span", {}, switchName(id)));
  });
  return parts;
}

function ends(cell) {
  const first = el("span", { class: "ends" });
  const second = el("span", { class: "ends-more" });
  cell.append(first, second);
  return (flow) => {
    setText(first, `${flow.source ?? "?"} → ${flow.destination ?? "?"}`);
    const ports = flow.source_port === null || flow.source_port === undefined ? "" : ` ${flow.source_port} → ${flow.destination_port}`;
    setText(second, `${flow.protocol_name ?? (flow.protocol === null ? "" : `protocol ${flow.protocol}`)}${ports}${flow.postcards ? " · put together of postcards" : ""}`);
  };
}

function sparkOf(cell) {
  const update = spark(cell);
  return (flow) => update(flow.recent);
}
