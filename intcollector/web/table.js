// A table of which only the visible rows exist: they are made once and filled again as one scrolls or as data changes.
// It keeps its order while somebody points at it or is in it, so that nothing runs away from under the finger.

import { el, setAttribute, setHidden, setStyle, setText, setClass } from "./dom.js";

const OVERSCAN = 6;

/**
 * columns: [{key, title, hint?, align?: "end", value?(row) -> what to sort by, head?: an element in place of the title,
 * make(cell) -> update(row)}]; a column without value cannot be sorted by. options: label, id(row) -> string, sort: [key, "ascending"|"descending"] or null (the
 * order given), open?(row): a row was chosen, empty: what to say without rows.
 */
export class Table {
  constructor(parent, columns, options) {
    this.columns = columns;
    this.options = options;
    this.rows = [];
    this.order = [];
    this.byId = new Map();
    this.pool = [];
    this.selected = null;
    this.active = 0;
    this.sort = options.sort ?? null;
    this.dirty = true;

    this.head = el("tr", { role: "row" });
    for (const column of columns) this.head.append(this.#header(column));
    this.before = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td"));
    this.after = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td"));
    this.body = el("tbody", { role: "rowgroup" }, this.before, this.after);
    this.table = el(
      "table",
      { role: "grid", "aria-label": options.label, class: options.open ? "openable" : null },
      el("colgroup", {}, ...columns.map((column) => el("col", { class: `c-${column.key}` }))),
      el("thead", { role: "rowgroup" }, this.head),
      this.body,
    );
    this.empty = el("p", { class: "empty", hidden: true });
    this.scroller = el("div", { class: "scroller" }, this.table, this.empty);
    parent.append(this.scroller);

    // asked once and kept: asking for sizes between changes makes a browser lay out the page again each time
    this.top = 0;
    this.room = 0;
    this.pointed = false;
    this.scroller.addEventListener("pointerenter", () => (this.pointed = true));
    this.scroller.addEventListener("pointerleave", () => (this.pointed = false));
    this.scroller.addEventListener("scroll", () => {
      this.top = this.scroller.scrollTop;
      this.#draw();
    }, { passive: true });
    new ResizeObserver(() => this.#measure()).observe(this.scroller);
    this.body.addEventListener("click", (event) => this.#clicked(event));
    this.body.addEventListener("keydown", (event) => this.#key(event));
    this.#measure();
  }

  setRows(rows) {
    this.rows = rows;
    this.byId = new Map(rows.map((row) => [this.options.id(row), row]));
    const quiet = !this.pointed && !this.body.contains(document.activeElement);
    if (!this.sort) this.order = [...this.byId.keys()];
    else if (this.dirty || quiet) this.#sort();
    else {
      const order = this.order.filter((id) => this.byId.has(id));
      if (order.length !== this.byId.size) {
        const known = new Set(order);
        for (const id of this.byId.keys()) if (!known.has(id)) order.push(id);
      }
      this.order = order;
    }
    this.#draw();
  }

  /** Rows were added in front of those shown: what one reads stays where it is. */
  keepPlace(added) {
    if (added && this.top > 0) this.#scrollTo(this.top + added * this.height);
    if (this.active > 0) this.active += added;
  }

  /** Sort at the next rows, whoever looks: what is shown has changed by what the user did. */
  again() {
    this.dirty = true;
    this.#scrollTo(0);
    this.active = 0;
  }

  select(id) {
    this.selected = id;
    const at = id === null ? -1 : this.order.indexOf(id);
    if (at >= 0) {
      this.active = at;
      this.#show(at);
    }
    this.#draw();
  }

  setEmpty(text) {
    setText(this.empty, text);
  }

  focus() {
    this.#show(this.active);
    this.#rowAt(this.active)?.focus({ preventScroll: true });
  }

  #header(column) {
    const cell = el("th", { role: "columnheader", scope: "col", class: `c-${column.key} ${column.align ?? ""}` });
    if (column.value && this.options.sort) {
      const button = el(
        "button",
        { type: "button", title: column.hint, on: { click: () => this.#sortBy(column) } },
        column.title,
        el("span", { class: "arrow", "aria-hidden": "true" }),
      );
      cell.append(button);
    } else if (column.head) {
      cell.append(column.head);
    } else {
      cell.append(column.hint ? el("abbr", { title: column.hint }, column.title) : column.title);
    }
    column.cell = cell;
    this.#sayOrder(column);
    return cell;
  }

  #sayOrder(column) {
    if (!column.value || !this.sort) return;
    setAttribute(column.cell, "aria-sort", this.sort[0] === column.key ? this.sort[1] : "none");
  }

  #sortBy(column) {
    const [key, direction] = this.sort;
    const turned = direction === "ascending" ? "descending" : "ascending";
    this.sort = [column.key, key === column.key ? turned : column.first ?? "descending"];
    this.columns.forEach((other) => this.#sayOrder(other));
    this.again();
    this.setRows(this.rows);
  }

  #sort() {
    const [key, direction] = this.sort;
    const column = this.columns.find((one) => one.key === key);
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = [...this.byId].map(([id, row]) => [id, column.value(row)]);
    keyed.sort(([idA, a], [idB, b]) => {
      const noA = a === null || a === undefined;
      const noB = b === null || b === undefined;
      if (noA || noB) return noA - noB || (idA < idB ? -1 : 1); // what is not known stands last
      const by = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return sign * by || (idA < idB ? -1 : 1);
    });
    this.order = keyed.map(([id]) => id);
    this.dirty = false;
  }

  #measure() {
    const style = getComputedStyle(this.scroller);
    this.height = parseFloat(style.getPropertyValue("--row")) || 36;
    this.most = parseFloat(style.maxHeight) || 0;
    this.headHeight = this.head.offsetHeight;
    this.room = this.scroller.clientHeight;
    this.#draw();
  }

  #draw() {
    const count = this.order.length;
    setHidden(this.empty, count > 0);
    setAttribute(this.table, "aria-rowcount", String(count + 1));
    const first = Math.max(0, Math.min(Math.floor(this.top / this.height) - OVERSCAN, count - 1));
    const end = Math.min(count, first + Math.ceil(Math.max(this.room, this.most) / this.height) + 2 * OVERSCAN);
    if (this.active >= count) this.active = Math.max(0, count - 1);
    setStyle(this.before.firstChild, "height", `${first * this.height}px`);
    setStyle(this.after.firstChild, "height", `${(count - end) * this.height}px`);
    setHidden(this.before, first === 0);
    setHidden(this.after, end === count);
    while (this.pool.length < end - first) this.pool.push(this.#makeRow());
    // A row keeps its element as long as it is visible, so that focus and pointer stay with it
    const wanted = new Map();
    for (let at = first; at < end; at++) wanted.set(this.order[at], at);
    const free = [];
    const used = new Map();
    for (const entry of this.pool) {
      if (entry.id !== null && wanted.has(entry.id)) used.set(entry.id, entry);
      else free.push(entry);
    }
    let last = this.before;
    for (let at = first; at < end; at++) {
      const id = this.order[at];
      const entry = used.get(id) ?? free.pop();
      const row = this.byId.get(id);
      if (entry.id !== id) {
        if (entry.row.contains(document.activeElement)) this.scroller.focus({ preventScroll: true });
        entry.id = id;
      }
      if (last.nextElementSibling !== entry.row) last.after(entry.row);
      last = entry.row;
      setAttribute(entry.row, "aria-rowindex", String(at + 2));
      setAttribute(entry.row, "tabindex", at === this.active ? "0" : "-1");
      if (this.options.open) setAttribute(entry.row, "aria-selected", String(id === this.selected));
      this.options.decorate?.(entry.row, row);
      for (const update of entry.updates) update(row);
    }
    for (const entry of free) {
      entry.row.remove();
      entry.id = null;
    }
  }

  #makeRow() {
    const row = el("tr", { role: "row" });
    const updates = this.columns.map((column) => {
      const cell = el("td", { role: "gridcell", class: `c-${column.key} ${column.align ?? ""}` });
      row.append(cell);
      return column.make(cell);
    });
    return { row, updates, id: null };
  }

  #idOf(element) {
    return this.pool.find((entry) => entry.row.contains(element))?.id ?? null;
  }

  #rowAt(at) {
    return this.pool.find((entry) => entry.id !== null && entry.id === this.order[at])?.row;
  }

  #open(id) {
    const row = this.byId.get(id);
    if (row && this.options.open) this.options.open(row);
  }

  #clicked(event) {
    const id = this.#idOf(event.target);
    if (id === null) return;
    this.active = this.order.indexOf(id);
    this.#open(id);
  }

  #show(at) {
    const top = at * this.height;
    const room = this.room - this.headHeight;
    if (top < this.top) this.#scrollTo(top);
    else if (top + this.height > this.top + room) this.#scrollTo(top + this.height - room);
    this.#draw();
  }

  #scrollTo(top) {
    this.scroller.scrollTop = top;
    this.top = this.scroller.scrollTop;
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.room / this.height) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in steps) {
      this.active = Math.max(0, Math.min(this.order.length - 1, this.active + steps[event.key]));
      this.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      this.#open(this.order[this.active]);
    } else return;
    event.preventDefault();
  }
}

/** A cell of text. */
export const text = (of, title) => (cell) => (row) => {
  setText(cell, of(row));
  if (title) setAttribute(cell, "title", title(row));
};

/** A bar from 0 to 1, its mark, and a text. of(row) -> {share, mark|null, text, colour?} */
export const bar = (of) => (cell) => {
  const fill = el("span", { class: "bar-fill" });
  const mark = el("span", { class: "bar-mark" });
  const label = el("span", { class: "bar-text" });
  cell.append(el("span", { class: "bar", "aria-hidden": "true" }, fill, mark), label);
  return (row) => {
    const now = of(row);
    setStyle(fill, "transform", `scaleX(${Math.max(0, Math.min(1, now.share)).toFixed(3)})`);
    setHidden(mark, now.mark === null || now.mark === undefined);
    if (now.mark !== null && now.mark !== undefined) setStyle(mark, "left", `${(100 * Math.min(1, now.mark)).toFixed(1)}%`);
    setClass(fill, "hot", Boolean(now.hot));
    setText(label, now.text);
  };
};

