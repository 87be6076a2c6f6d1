// The first look: rates, and how they went over the last five minutes.

import { Tile } from "./charts.js";
import { byId, el, setClass, setText } from "./dom.js";
import { clock, count, plural, rate } from "./format.js";

const TILES = [
  {
    key: "reports", title: "Reports", stroke: "--accent", of: "reports_per_s",
    hint: "packets in which switches tell what other packets met",
    big: (c) => rate(c.reports_per_s), small: (c) => `${count(c.reports)} since the start`,
  },
  {
    key: "flows", title: "Flows",
    hint: "conversations between computers that were reported",
    big: (c) => count(c.flows),
    small: (c, picture) => [
      picture.network.switches.length ? plural(picture.network.switches.length, "switch", "switches") : null,
      picture.sources.length ? plural(picture.sources.length, "source") : null,
    ].filter(Boolean).join(", "),
  },
  {
    key: "events", title: "Events", stroke: "--accent", of: "events_per_s",
    hint: "changes larger than their threshold: paths, latencies, queues",
    big: (c) => rate(c.events_per_s),
    small: (c) => `${count(c.events)} since the start${c.events_lost ? `, ${count(c.events_lost)} lost` : ""}`,
    bad: (c) => c.events_lost > 0,
  },
  {
    key: "lost", title: "Lost reports", stroke: "--warn", of: "lost_per_s",
    hint: "numbers that are missing: sent by a switch, never arrived here",
    big: (c) => rate(c.reports_lost_per_s), small: (c) => `${count(c.reports_lost)} since the start`,
    bad: (c) => c.reports_lost_per_s > 0,
  },
  {
    key: "malformed", title: "Malformed", stroke: "--bad", of: "malformed_per_s",
    hint: "sent to the right port, but not readable as a report",
    big: (c) => rate(c.malformed_per_s), small: (c) => `${count(c.malformed)} since the start`,
    bad: (c) => c.malformed_per_s > 0,
  },
];

export class Tiles {
  constructor() {
    this.tiles = TILES.map((tile) => {
      const big = el("p", { class: "tile-big" });
      const small = el("p", { class: "tile-small" });
      const made = { ...tile, bigText: big, smallText: small, at: null };
      const title = el("h2", { class: "tile-title" }, el("abbr", { title: tile.hint }, tile.title));
      made.card = el("div", { class: `tile card tile-${tile.key}` }, title, big, small);
      if (tile.of) {
        const frame = el("div", { class: "tile-chart", "aria-hidden": "true" });
        made.card.append(frame);
        made.chart = new Tile(frame, tile.stroke, (time, value) => {
          made.at = time === null ? null : [time, value];
          this.#say(made);
        });
      }
      byId("tiles").append(made.card);
      return made;
    });
  }

  update(picture) {
    this.picture = picture;
    for (const tile of this.tiles) {
      this.#say(tile);
      tile.chart?.update(picture.history.time, picture.history[tile.of]);
      setClass(tile.card, "bad", Boolean(tile.bad?.(picture.collector)));
    }
  }

  restyle() {
    for (const tile of this.tiles) tile.chart?.restyle();
  }

  #say(tile) {
    if (!this.picture) return;
    const { collector } = this.picture;
    setText(tile.bigText, tile.at ? rate(tile.at[1]) : tile.big(collector));
    setText(tile.smallText, tile.at ? `at ${clock(tile.at[0])}` : tile.small(collector, this.picture));
  }
}
