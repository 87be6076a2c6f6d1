// Lines over time: uPlot for charts, a few SVG points for the sparkline of a table's row.

import { clock, latency } from "./format.js";
import { el, setAttribute, svg } from "./dom.js";

const uPlot = window.uPlot;

/** A colour of the style sheet, as it is now (light or dark). */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const WIDTH = 100;
const HEIGHT = 24;

/** A sparkline of latest values, from 0 up. -> update(values) */
export function spark(parent, length = 60) {
  const line = svg("polyline", { class: "spark-line", "vector-effect": "non-scaling-stroke" });
  parent.append(
    svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, line),
  );
  return (values) => {
    const known = values.filter((value) => value !== null);
    const top = Math.max(...known, 0) || 1;
    const points = [];
    for (let at = 0; at < values.length; at++) {
      if (values[at] === null) continue;
      const x = WIDTH - ((values.length - 1 - at) * WIDTH) / (length - 1);
      points.push(`${x.toFixed(1)},${(HEIGHT - 2 - (values[at] / top) * (HEIGHT - 4)).toFixed(1)}`);
    }
    setAttribute(line, "points", points.join(" "));
  };
}

/** What a tile shows: the last five minutes, or as much as there is of them. */
const MOST_S = 300;
const LEAST_S = 60;

/** The sparkline of a tile: the last minutes. over(time, value): what the pointer is at, or (null, null). */
export class Tile {
  constructor(parent, stroke, over) {
    this.parent = parent;
    this.stroke = stroke;
    this.over = over;
    this.data = [[], []];
    new ResizeObserver(() => this.#size()).observe(parent);
  }

  restyle() {
    this.plot?.destroy();
    this.plot = null;
    this.#make();
  }

  update(times, values) {
    this.data = [times, values];
    if (this.plot) this.plot.setData(this.data);
    else this.#make();
  }

  #make() {
    const { clientWidth: width, clientHeight: height } = this.parent;
    if (!width || !height || !this.data[0].length) return;
    const stroke = colour(this.stroke);
    const now = () => this.data[0][this.data[0].length - 1];
    this.plot = new uPlot(
      {
        width,
        height,
        padding: [3, 0, 1, 0],
        legend: { show: false },
        cursor: { y: false, x: true, drag: { setScale: false, x: false, y: false }, points: { size: 5, fill: stroke } },
        scales: {
          x: { time: true, range: () => [Math.min(now() - LEAST_S, Math.max(this.data[0][0], now() - MOST_S)), now()] },
          y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] },
        },
        axes: [{ show: false }, { show: false }],
        series: [{}, { stroke, width: 1.5, fill: `${stroke}22`, points: { show: false } }],
        hooks: {
          setCursor: [
            (plot) => {
              const at = plot.cursor.idx;
              if (at === null || at === undefined || plot.cursor.left < 0) this.over(null, null);
              else this.over(this.data[0][at], this.data[1][at]);
            },
          ],
        },
      },
      this.data,
      this.parent,
    );
  }

  #size() {
    const { clientWidth: width, clientHeight: height } = this.parent;
    if (!this.plot) this.#make();
    else if (width && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }
}

const HOP_COLOURS = 7;
export const hopColour = (at) => `--hop-${at % HOP_COLOURS}`;

/** A flow's latency over the last minutes: all of it, and each hop. */
export class FlowChart {
  constructor(parent) {
    this.parent = el("div", { class: "chart" });
    parent.append(this.parent);
    this.names = "";
    this.data = [[], []];
    new ResizeObserver(() => {
      const width = this.parent.clientWidth;
      if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.plot.height });
    }).observe(this.parent);
  }

  restyle() {
    this.names = "";
    this.update(this.times, this.total, this.hops);
  }

  destroy() {
    this.plot?.destroy();
  }

  /** times: (n,) s; total: (n,) s or null; hops: [{name, colour, values (n,)}] */
  update(times, total, hops) {
    Object.assign(this, { times, total, hops });
    if (!times) return;
    this.data = [times, total, ...hops.map((hop) => hop.values)];
    const names = hops.map((hop) => `${hop.name} ${hop.colour}`).join();
    if (this.plot && names === this.names) {
      this.plot.setData(this.data);
      return;
    }
    this.plot?.destroy();
    this.plot = null;
    this.names = names;
    const text = colour("--muted");
    const grid = { stroke: colour("--line"), width: 1 };
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: text, grid, ticks: { show: false }, font };
    this.plot = new uPlot(
      {
        width: this.parent.clientWidth || 300,
        height: 190,
        padding: [8, 26, 0, 0],
        legend: { show: false },
        cursor: { drag: { setScale: false, x: false, y: false }, points: { size: 6 } },
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, (high || 1e-9) * 1.1] } },
        axes: [
          { ...axis, space: 70, size: 26, values: (_, splits) => splits.map(clock) },
          { ...axis, size: 58, gap: 4, values: (_, splits) => splits.map((value) => latency(value)) },
        ],
        series: [
          {},
          { stroke: colour("--text"), width: 2, points: { show: false }, spanGaps: true },
          ...hops.map((hop) => ({ stroke: colour(hop.colour), width: 1.5, points: { show: false }, spanGaps: true })),
        ],
      },
      this.data,
      this.parent,
    );
  }
}

