// One picture a second goes in, the page comes out. What is selected is kept here, and told to all parts.

import { Detail } from "./detail.js";
import { Diagnosis } from "./diagnosis.js";
import { behavior, byId, setClass, setHidden, setText } from "./dom.js";
import { Events } from "./events.js";
import { FlowTable } from "./flows.js";
import { ago, plural } from "./format.js";
import { Graph, merge } from "./graph.js";
import { Panels } from "./panels.js";
import { Stream } from "./stream.js";
import { Tiles } from "./tiles.js";

const THEMES = ["auto", "light", "dark"];

let waiting = null; // the newest picture as it came; older ones that were never shown are gone
let waitingEvents = [];
let picture = null;
let links = [];
let selection = null; // {kind: "flow", id} | {kind: "switch", id} | {kind: "link", from, to}
let steps = null; // of the picture that is being drawn

const tiles = new Tiles();
const diagnosis = new Diagnosis();
const graph = new Graph((chosen) => select(chosen));
const detail = new Detail(select);
const flows = new FlowTable(select);
const events = new Events(select);
const panels = new Panels(select);

function soon() {
  if (!steps) next(draw());
}

/** One step a frame, so that between them a browser can paint and answer. A hidden page gets no frames: then nothing is
 * parsed or drawn for nobody. */
function next(left) {
  steps = left;
  requestAnimationFrame(() => {
    steps = null; // whatever becomes of this step, the next picture is drawn
    if (!left.next().done) next(left);
    else if (waiting !== null || waitingEvents.length) soon();
  });
}

function* draw() {
  if (waitingEvents.length) {
    const texts = waitingEvents;
    waitingEvents = [];
    for (const text of texts) events.take(JSON.parse(text));
    events.draw();
  }
  if (waiting === null) return;
  const text = waiting;
  waiting = null;
  const before = picture;
  picture = JSON.parse(text);
  const nothing = picture.collector.reports === 0;
  const body = document.body;
  setClass(body, "nothing", nothing);
  setClass(body, "relay", picture.collector.kind === "relay");
  if (before && before.collector.started !== picture.collector.started) events.restart();
  links = merge(picture.network.links);
  where();
  tiles.update(picture);
  diagnosis.update(picture);
  if (!nothing) {
    flows.update(picture, selection);
    yield;
    graph.update(nodes(), links);
    const { switches_omitted: switches = 0, links_omitted: between = 0 } = picture.network;
    setHidden(byId("network-omitted"), !switches && !between);
    setText(byId("network-omitted"), `Too large to draw in full: ${plural(switches, "switch", "switches")} and ${plural(between, "link")} more are there.`);
    yield;
    detail.update(picture, links, selection);
    highlight();
  }
  panels.update(picture);
  if (events.take(picture.events)) events.draw();
  body.classList.remove("loading");
}

/** Switches of the network with the mean latency of the flows shown that go through them. */
function nodes() {
  const found = new Map(picture.network.switches.map((id) => [id, { id, sum: 0, known: 0, flows: 0 }]));
  for (const flow of picture.flows) {
    for (const hop of flow.hops) {
      const one = found.get(hop.switch_id);
      if (!one) continue;
      one.flows += 1;
      if (hop.latency_s !== null) {
        one.sum += hop.latency_s;
        one.known += 1;
      }
    }
  }
  return [...found.values()].map((one) => ({ ...one, latency_s: one.known ? one.sum / one.known : null }));
}

function highlight() {
  if (!selection) return graph.highlight(null, null);
  if (selection.kind === "flow") {
    const flow = picture.flows.find((one) => one.id === selection.id);
    return graph.highlight(flow ? [flow.path] : null, null);
  }
  if (selection.kind === "link") return graph.highlight([[selection.from, selection.to]], null);
  const beside = links.filter((link) => String(link.from) === selection.id || String(link.to) === selection.id);
  return graph.highlight([[selection.id], ...beside.map((link) => [link.from, link.to])], selection.id);
}

function select(chosen, options = {}) {
  selection = chosen;
  if (!picture) return;
  flows.update(picture, selection, true);
  detail.update(picture, links, selection);
  highlight();
  if (chosen && options.reveal) byId("detail").scrollIntoView({ block: "nearest", behavior: behavior() });
}

function where() {
  const { collector } = picture;
  const ports = collector.udp_ports.length ? `UDP port ${collector.udp_ports.join(", ")}` : null;
  const names = collector.interfaces.map((one) => (one.mode ? `${one.name} (${one.mode})` : one.name)).join(", ");
  setText(byId("where"), [collector.host, names, ports].filter(Boolean).join(" · "));
  setText(byId("version"), `intcollector ${collector.version}`);
  document.title = `${collector.host} · intcollector`;
}

// --- the connection ---------------------------------------------------------------------------------------------------

const STATES = {
  connecting: "connecting",
  live: "live",
  lost: "connection lost",
  hidden: "paused",
};

new Stream("api/v1/stream", {
  picture(text) {
    waiting = text;
    soon();
  },
  events(text) {
    waitingEvents.push(text);
    if (waitingEvents.length > 50) waitingEvents.shift(); // nobody looks: the next picture has the newest
    soon();
  },
  state(now) {
    const lost = now.name === "lost" || (now.name === "connecting" && now.silent === null && now.tries > 0);
    byId("connection").className = `pill ${lost ? "lost" : now.name}`;
    setText(byId("connection-text"), lost ? STATES.lost : STATES[now.name]);
    setClass(document.body, "stale", now.name === "lost");
    setHidden(byId("stale"), !lost);
    if (lost) {
      setText(
        byId("stale"),
        now.silent === null
          ? "Connection lost: the collector does not answer. Trying again."
          : `Connection lost, last data ${ago(Math.max(now.silent, 2))}. What is shown is old. Trying again.`,
      );
    }
  },
});

// --- theme ------------------------------------------------------------------------------------------------------------

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    if (name === "auto") localStorage.removeItem("intcollector-theme");
    else localStorage.setItem("intcollector-theme", name);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // storage is forbidden: until the page is left
  }
  setText(byId("theme-name"), name);
  restyle();
}

/** Canvases have the colours they were drawn with. */
function restyle() {
  graph.restyle();
  tiles.restyle();
  detail.restyle();
}

const nextTheme = () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length]);
setText(byId("theme-name"), document.documentElement.dataset.theme ?? "auto");
byId("theme").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);

// --- keys -------------------------------------------------------------------------------------------------------------

const keys = byId("keys");
byId("keys-open").addEventListener("click", () => keys.showModal());
byId("keys-close").addEventListener("click", () => keys.close());
keys.addEventListener("click", (event) => event.target === keys && keys.close());

function go(id) {
  const section = byId(id);
  if (!section.offsetParent) return;
  section.scrollIntoView({ block: "start", behavior: behavior() });
  if (id === "flows") flows.table.focus();
  else if (id === "events") events.table.focus();
  else byId("graph").focus({ preventScroll: true });
}

function escape() {
  const focused = document.activeElement;
  if (focused?.matches("input[type=search]") && focused.value) {
    focused.value = "";
    focused.dispatchEvent(new Event("input"));
  } else if (selection) detail.close();
  else focused?.blur();
}

addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || keys.open) return;
  if (event.key === "Escape") {
    escape();
    return;
  }
  if (event.target.matches("input[type=search]")) return;
  const actions = {
    "/": () => byId("filter").focus(),
    "?": () => keys.showModal(),
    n: () => go("network"),
    f: () => go("flows"),
    e: () => go("events"),
    p: () => events.pause(),
    t: nextTheme,
  };
  if (!(event.key in actions)) return;
  event.preventDefault();
  actions[event.key]();
});
