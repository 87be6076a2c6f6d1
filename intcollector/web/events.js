// Events as they come, newest first. They can be stopped to read them, and then go on with what came meanwhile.

import { byId, el, setAttribute, setText } from "./dom.js";
import { clock, count } from "./format.js";
import { Table, text } from "./table.js";

const KEPT = 1000;
const WORDS = {
  new_flow: "new flow",
  path: "path",
  flow_latency: "flow latency",
  hop_latency: "hop latency",
  queue_occupancy: "queue",
  egress_port_tx_utilization: "link in use",
  dropped: "dropped",
  congested_queue: "congestion",
};

export class Events {
  constructor(select) {
    this.all = [];
    this.newest = -1;
    this.paused = false;
    this.shownNewest = -1;
    this.filter = byId("events-filter");
    const columns = [
      { key: "time", title: "Time", make: text((event) => clock(event.time)) },
      { key: "what", title: "What", make: kinds },
      { key: "text", title: "Event", make: words },
    ];
    this.table = new Table(byId("events-table"), columns, {
      label: "Events, newest first",
      id: (event) => String(event.n),
      open: (event) => event.flow_id && select({ kind: "flow", id: event.flow_id }, { reveal: true }),
    });
    this.filter.addEventListener("input", () => this.draw(true));
    byId("pause").addEventListener("click", () => this.pause());
  }

  /** {events}: in any order, some of them known. -> whether there was a new one */
  take({ events }) {
    const fresh = events.filter((event) => event.n > this.newest);
    if (!fresh.length) return false;
    fresh.sort((a, b) => b.n - a.n);
    this.newest = fresh[0].n;
    this.all = [...fresh, ...this.all].slice(0, KEPT);
    return true;
  }

  /** The collector was started anew: it numbers its events from the beginning. */
  restart() {
    this.all = [];
    this.newest = -1;
  }

  pause() {
    this.paused = !this.paused;
    this.held = this.all;
    const button = byId("pause");
    setAttribute(button, "aria-pressed", String(this.paused));
    setText(button, this.paused ? "Go on" : "Pause");
    this.draw();
  }

  draw(again = false) {
    const wanted = this.filter.value.trim().toLowerCase();
    const from = this.paused ? this.held : this.all;
    const shown = from.filter(
      (event) =>
        !wanted || `${event.text} ${event.what.map((what) => WORDS[what] ?? what).join(" ")}`.toLowerCase().includes(wanted),
    );
    if (again) this.table.again();
    else this.table.keepPlace(shown.filter((event) => event.n > this.shownNewest).length);
    this.shownNewest = shown[0]?.n ?? -1;
    this.table.setEmpty(from.length ? "No event matches." : "Nothing changed yet.");
    this.table.setRows(shown);
    // those that are not sent to pages have numbers too
    const skipped = from.length ? from[0].n - from[from.length - 1].n + 1 - from.length : 0;
    const missed = skipped ? `, ${count(skipped)} between them came too fast to show` : "";
    const paused = this.paused ? ` · paused, ${count(this.all.filter((event) => !this.held.length || event.n > this.held[0].n).length)} new` : "";
    setText(byId("events-count"), `the last ${count(from.length)}${missed}${paused}`);
  }
}

function words(cell) {
  const inner = el("span", { class: "event-text" });
  cell.append(inner);
  return (event) => {
    setText(inner, event.text);
    setAttribute(cell, "title", event.text);
  };
}

function kinds(cell) {
  const inner = el("span", { class: "kinds" });
  cell.append(inner);
  let shown = "";
  return (event) => {
    const key = event.what.join();
    if (key === shown) return;
    shown = key;
    inner.replaceChildren(...event.what.map((what) => el("span", { class: `kind k-${what}` }, WORDS[what] ?? what)));
  };
}
