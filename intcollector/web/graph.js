// The network as a graph: switches, and a line for each hop from one to the next.

import { colour } from "./charts.js";
import { byId, el, setAttribute, setHidden, setText } from "./dom.js";
import { latency, plural, rate } from "./format.js";
import { placeBeside, places } from "./layout.js";

const SHADES = 16;
const WIDTHS = 8;
/** More links than these are drawn as plain lines: arrows and curves cost a browser too much. */
const SIMPLE_FROM = 400;
/** In the first seconds, while switches appear one by one, all are placed again. */
const SETTLING_MS = 8000;
const FADE_MS = 60_000;

/** A range that colours stand for: round numbers that hold all values, and stay while these move a little. */
export class Scale {
  constructor() {
    this.low = 0;
    this.high = 0;
  }

  update(values) {
    const known = values.filter((value) => value !== null && value > 0);
    if (!known.length) return;
    const high = known.reduce((a, b) => Math.max(a, b));
    const low = known.reduce((a, b) => Math.min(a, b));
    const fits = this.high >= high && this.low <= low && this.high < high * 6 && this.low * 6 > low;
    if (fits) return;
    this.high = round(high, Math.ceil);
    this.low = Math.min(round(low, Math.floor), this.high / 4);
  }

  /** 0 to 1, by ratio */
  share(value) {
    if (value === null || !this.high) return null;
    return Math.max(0, Math.min(1, Math.log(Math.max(value, 1e-12) / this.low) / Math.log(this.high / this.low)));
  }
}

function round(value, to) {
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 5, 10];
  const shown = value / power;
  const step = to === Math.ceil ? steps.find((one) => one >= shown - 1e-9) : steps.findLast((one) => one <= shown + 1e-9);
  return step * power;
}

/** One link for each pair of switches: several ports between the same two are one line. */
export function merge(links) {
  const merged = new Map();
  for (const link of links) {
    const id = `${link.from}>${link.to}`;
    let one = merged.get(id);
    if (!one) merged.set(id, (one = { id, from: link.from, to: link.to, ports: [], flows: 0, reports_per_s: null, sum: 0, weight: 0, latency_max_s: null }));
    if (link.egress_port_id !== null) one.ports.push(link.egress_port_id);
    one.flows += link.flows;
    if (link.reports_per_s !== null) one.reports_per_s = (one.reports_per_s ?? 0) + link.reports_per_s;
    if (link.latency_s !== null) {
      one.sum += link.latency_s * link.flows;
      one.weight += link.flows;
    }
    if (link.latency_max_s !== null) one.latency_max_s = Math.max(one.latency_max_s ?? 0, link.latency_max_s);
  }
  for (const one of merged.values()) {
    one.latency_s = one.weight ? one.sum / one.weight : null;
    one.ports.sort((a, b) => a - b);
  }
  return [...merged.values()];
}

export class Graph {
  /** select({kind: "switch", id} | {kind: "link", from, to} | null): what was clicked */
  constructor(select) {
    this.select = select;
    this.frame = byId("graph");
    this.tip = byId("graph-tip");
    this.scale = new Scale();
    this.gone = new Map();
    this.began = null;
    this.moved = false;
    this.focused = null;
    this.links = [];
    this.nodes = new Map();
    this.simple = null;
    this.cy = window.cytoscape({
      container: this.frame,
      elements: [],
      layout: { name: "preset" },
      userZoomingEnabled: false,
      userPanningEnabled: false,
      boxSelectionEnabled: false,
      autounselectify: true,
      autoungrabify: matchMedia("(pointer: coarse)").matches,
      minZoom: 0.08,
      maxZoom: 3,
    });
    this.restyle();
    this.cy.on("tap", "node", (event) => this.select({ kind: "switch", id: event.target.data("name") }));
    this.cy.on("tap", "edge", (event) => this.select({ kind: "link", from: event.target.data("from"), to: event.target.data("to") }));
    this.cy.on("tap", (event) => event.target === this.cy && this.select(null));
    this.cy.on("mouseover", "node, edge", (event) => this.#hover(event));
    this.cy.on("mouseout", "node, edge", () => this.#unhover());
    this.cy.on("dragfree", "node", () => (this.moved = true));
    this.frame.addEventListener("keydown", (event) => this.#key(event));
    this.frame.addEventListener("blur", () => this.#focusNode(null));
    byId("zoom-in").addEventListener("click", () => this.#zoom(1.3));
    byId("zoom-out").addEventListener("click", () => this.#zoom(1 / 1.3));
    byId("tidy").addEventListener("click", () => this.#placeAll());
    new ResizeObserver(() => {
      this.cy.resize();
      if (!this.zoomed) this.#fit();
    }).observe(this.frame);
  }

  /** After a change of theme: colours are the style sheet's. */
  restyle() {
    this.shades = [...Array(SHADES).keys()].map((at) => shade(at / (SHADES - 1)));
    const text = colour("--text");
    const card = colour("--card");
    const accent = colour("--accent");
    this.unknown = colour("--unknown");
    const simple = this.cy.edges().length > SIMPLE_FROM;
    this.simple = simple;
    this.cy.style([
      {
        selector: "node",
        style: {
          shape: "round-rectangle", label: "data(name)", width: "data(width)", height: 28,
          "background-color": card, "border-width": 3, "border-color": "data(colour)",
          color: text, "font-size": 13, "font-weight": 600, "font-family": getComputedStyle(document.body).fontFamily,
          "text-valign": "center", "text-halign": "center", "min-zoomed-font-size": 5,
          "overlay-opacity": 0, "transition-property": "opacity", "transition-duration": 0,
        },
      },
      {
        selector: "edge",
        style: {
          width: "data(width)", "line-color": "data(colour)", "overlay-opacity": 0, "overlay-padding": 6,
          "curve-style": simple ? "haystack" : "bezier", "control-point-step-size": 28,
          "target-arrow-shape": simple ? "none" : "triangle", "target-arrow-color": "data(colour)", "arrow-scale": 0.9,
          "haystack-radius": 0,
          opacity: simple ? 0.6 : 0.9, "z-index": "data(shade)", "z-index-compare": "manual",
        },
      },
      { selector: "node.gone, edge.gone", style: { opacity: 0.25, "line-style": "dashed" } },
      { selector: "node.dim", style: { opacity: 0.35 } },
      { selector: "edge.dim", style: { opacity: simple ? 0.06 : 0.12 } },
      {
        selector: "edge.hot",
        style: {
          opacity: 1, label: "data(label)", "font-size": 12, "font-weight": 600, color: text, "text-background-color": card,
          "text-background-opacity": 0.92, "text-background-padding": 3, "text-background-shape": "round-rectangle",
          "text-outline-width": 0, "z-index": 1000,
          "font-family": getComputedStyle(document.body).fontFamily,
        },
      },
      { selector: "node.hot", style: { opacity: 1, "border-width": 4, "z-index": 1001 } },
      { selector: "node.chosen, node.focused", style: { "outline-width": 3, "outline-color": accent, "outline-offset": 2 } },
    ]);
    this.#recolour();
    this.#legend();
  }

  /** switches: [{id, latency_s|null, flows}]; links: merged */
  update(switches, links) {
    const now = performance.now();
    const before = this.cy.nodes().length;
    this.links = links;
    this.nodes = new Map(switches.map((one) => [String(one.id), one]));
    this.scale.update([...links.map((link) => link.latency_s), ...switches.map((one) => one.latency_s)]);
    const busiest = links.reduce((most, link) => Math.max(most, link.reports_per_s ?? 0), 0);
    this.busiest = busiest;
    const edges = new Map(links.map((link) => [link.id, link]));
    const added = [];
    this.cy.batch(() => {
      this.#remove(now, edges);
      for (const [name, one] of this.nodes) {
        const data = { name, ...this.#shade(one.latency_s) };
        const node = this.cy.getElementById(`n${name}`);
        if (node.empty()) {
          added.push(name);
          this.cy.add({ group: "nodes", data: { id: `n${name}`, width: 22 + 9 * name.length, ...data }, position: { x: 0, y: 0 } });
        } else change(node, data);
      }
      for (const link of links) {
        const data = { ...this.#shade(link.latency_s), width: this.#width(link.reports_per_s), label: latency(link.latency_s) };
        const edge = this.cy.getElementById(link.id);
        if (edge.empty()) {
          const ends = { source: `n${link.from}`, target: `n${link.to}`, from: link.from, to: link.to };
          this.cy.add({ group: "edges", data: { id: link.id, ...ends, ...data } });
        } else change(edge, data);
      }
    });
    if (this.simple !== this.cy.edges().length > SIMPLE_FROM) this.restyle();
    if (added.length) {
      this.began ??= now;
      const many = added.length > 0.3 * this.cy.nodes().length;
      if (!this.moved && (before === 0 || many || now - this.began < SETTLING_MS)) this.#placeAll();
      else this.#placeNew(added);
    }
    this.#legend();
    this.#describe();
    this.#highlight();
  }

  /** path: switch ids to highlight with the links between, or null; chosen: the id of one switch, or null */
  highlight(paths, chosen) {
    this.paths = paths;
    this.chosen = chosen;
    this.#highlight();
  }

  #highlight() {
    const { paths, chosen } = this;
    const nodes = new Set();
    const edges = new Set();
    for (const path of paths ?? []) {
      path.forEach((id, at) => {
        nodes.add(`n${id}`);
        if (at) edges.add(`${path[at - 1]}>${id}`);
      });
    }
    this.cy.batch(() => {
      this.cy.elements().forEach((one) => {
        const hot = one.isNode() ? nodes.has(one.id()) : edges.has(one.id());
        flag(one, "dim", Boolean(paths) && !hot);
        // numbers on every line would cover each other
        flag(one, "hot", Boolean(paths) && hot && (one.isNode() || edges.size <= 24));
        if (one.isNode()) flag(one, "chosen", chosen !== null && chosen !== undefined && one.id() === `n${chosen}`);
      });
    });
  }

  #remove(now, edges) {
    this.cy.elements().forEach((one) => {
      const there = one.isNode() ? this.nodes.has(one.data("name")) : edges.has(one.id());
      if (there) {
        if (this.gone.delete(one.id())) one.removeClass("gone");
        return;
      }
      if (!this.gone.has(one.id())) {
        this.gone.set(one.id(), now);
        one.addClass("gone");
      } else if (now - this.gone.get(one.id()) > FADE_MS) {
        this.gone.delete(one.id());
        one.remove();
      }
    });
  }

  #shade(value) {
    const share = this.scale.share(value ?? null);
    const at = share === null ? -1 : Math.round(share * (SHADES - 1));
    return { shade: at, colour: at < 0 ? this.unknown : this.shades[at] };
  }

  #width(load) {
    const share = this.busiest ? Math.sqrt((load ?? 0) / this.busiest) : 0;
    return 1.5 + (Math.round(share * WIDTHS) / WIDTHS) * 6.5;
  }

  #recolour() {
    this.cy.batch(() => this.cy.elements().forEach((one) => {
      const at = one.data("shade");
      one.data("colour", at < 0 ? this.unknown : this.shades[at]);
    }));
  }

  #weighted() {
    return this.links.map((link) => ({ from: String(link.from), to: String(link.to), weight: link.flows || 1 }));
  }

  #placeAll() {
    const room = { width: this.frame.clientWidth || 800, height: this.frame.clientHeight || 400 };
    const names = this.cy.nodes().map((node) => node.data("name"));
    const found = places(names, this.#weighted(), room);
    this.cy.batch(() => this.cy.nodes().forEach((node) => node.position(found.get(node.data("name")))));
    this.moved = false;
    this.#fit();
  }

  #placeNew(added) {
    const fresh = new Set(added);
    const known = new Map();
    this.cy.nodes().forEach((node) => {
      if (!fresh.has(node.data("name"))) known.set(node.data("name"), { ...node.position() });
    });
    for (const name of added) {
      const place = placeBeside(name, this.#weighted(), known);
      known.set(name, place);
      this.cy.getElementById(`n${name}`).position(place);
    }
    if (!this.zoomed) this.#fit();
  }

  #fit() {
    this.zoomed = false;
    this.cy.userPanningEnabled(false);
    if (!this.cy.nodes().length) return;
    this.cy.fit(this.cy.nodes(), 26);
    if (this.cy.zoom() > 1.25) {
      this.cy.zoom(1.25);
      this.cy.center(this.cy.nodes());
    }
    this.fitted = this.cy.zoom();
  }

  #zoom(by) {
    const level = this.cy.zoom() * by;
    if (level <= this.fitted * 1.01) {
      this.#fit();
      return;
    }
    this.zoomed = true;
    this.cy.userPanningEnabled(true);
    this.cy.zoom({ level, renderedPosition: { x: this.frame.clientWidth / 2, y: this.frame.clientHeight / 2 } });
  }

  #hover(event) {
    const one = event.target;
    const lines = one.isNode() ? this.#sayNode(one.data("name")) : this.#sayLink(one.id());
    this.tip.replaceChildren(...lines.map((line, at) => el(at ? "span" : "strong", {}, line)));
    setHidden(this.tip, false);
    const at = one.isNode() ? one.renderedPosition() : one.renderedMidpoint();
    const { clientWidth: width } = this.frame;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half + 4, Math.min(width - half - 4, at.x))}px`;
    const above = at.y - 26 - this.tip.offsetHeight;
    this.tip.style.top = `${above > 0 ? above : at.y + 26}px`;
    this.frame.classList.add("pointing");
  }

  #unhover() {
    setHidden(this.tip, true);
    this.frame.classList.remove("pointing");
  }

  #sayNode(name) {
    const one = this.nodes.get(name);
    if (!one) return [`switch ${name}`, "not on any path now"];
    return [`switch ${name}`, plural(one.flows, "flow"), `latency ${latency(one.latency_s)}`];
  }

  #sayLink(id) {
    const link = this.links.find((one) => one.id === id);
    if (!link) return ["not in use now"];
    return [`${link.from} › ${link.to}`, `${plural(link.flows, "flow")}, ${rate(link.reports_per_s)} reports`, `latency ${latency(link.latency_s)}, at most ${latency(link.latency_max_s)}`];
  }

  #key(event) {
    const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in directions) this.#step(...directions[event.key]);
    else if (event.key === "Enter" && this.focused) this.select({ kind: "switch", id: this.focused });
    else return;
    event.preventDefault();
  }

  #step(dx, dy) {
    const nodes = this.cy.nodes().toArray();
    if (!nodes.length) return;
    const here = this.focused && this.cy.getElementById(`n${this.focused}`);
    if (!here || here.empty()) {
      const leftmost = nodes.reduce((a, b) => (b.position().x < a.position().x || (b.position().x === a.position().x && b.position().y < a.position().y) ? b : a));
      this.#focusNode(leftmost.data("name"));
      return;
    }
    const from = here.position();
    let best = null;
    for (const node of nodes) {
      const x = node.position().x - from.x;
      const y = node.position().y - from.y;
      const ahead = x * dx + y * dy;
      if (ahead <= 1) continue;
      const far = ahead + 3 * Math.abs(x * dy + y * dx);
      if (!best || far < best.far) best = { far, name: node.data("name") };
    }
    if (best) this.#focusNode(best.name);
  }

  #focusNode(name) {
    this.cy.nodes(".focused").removeClass("focused");
    this.focused = name;
    if (name === null) return;
    this.cy.getElementById(`n${name}`).addClass("focused");
    setText(byId("graph-live"), this.#sayNode(name).join(", "));
  }

  #describe() {
    const slowest = this.links.reduce((a, b) => ((b.latency_s ?? -1) > (a?.latency_s ?? -1) ? b : a), null);
    const most = slowest && slowest.latency_s !== null ? ` Slowest: ${slowest.from} to ${slowest.to}, ${latency(slowest.latency_s)}.` : "";
    setAttribute(
      this.frame, "aria-label",
      `Network graph: ${plural(this.nodes.size, "switch", "switches")}, ${plural(this.links.length, "link")}.${most} ` +
        "Arrow keys go from switch to switch, Enter selects. The table of links says the same.",
    );
  }

  #legend() {
    const said = `${this.scale.low} ${this.scale.high} ${this.shades.join()}`;
    if (said === this.said || !this.scale.high) return;
    this.said = said;
    const steps = el("span", { class: "legend-steps", "aria-hidden": "true" });
    for (let at = 0; at < SHADES; at += 1) {
      const step = el("span");
      step.style.backgroundColor = this.shades[at];
      steps.append(step);
    }
    const lines = [2, 4.5, 8].map((width) => {
      const line = el("span", { class: "legend-line" });
      line.style.height = `${width}px`;
      return line;
    });
    byId("legend").replaceChildren(
      el("span", {}, el("span", {}, "waited "), el("b", {}, latency(this.scale.low)), steps, el("b", {}, latency(this.scale.high))),
      el("span", {}, el("span", { class: "legend-lines", "aria-hidden": "true" }, ...lines), el("span", {}, "few to many reports")),
    );
  }
}

function change(element, data) {
  for (const [name, value] of Object.entries(data)) if (element.data(name) !== value) element.data(name, value);
}

function flag(element, name, on) {
  if (element.hasClass(name) !== on) element.toggleClass(name, on);
}

/** A colour of the scale --heat-0 (fast) to --heat-4 (slow); share: 0 to 1 */
function shade(share) {
  const at = Math.min(share * 4, 3.999);
  const low = Math.floor(at);
  const [a, b] = [low, low + 1].map((n) => channels(colour(`--heat-${n}`)));
  return `rgb(${a.map((value, n) => Math.round(value + (b[n] - value) * (at - low))).join(",")})`;
}

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
