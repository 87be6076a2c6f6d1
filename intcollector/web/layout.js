// Where switches stand: in columns, left to right as packets travel. What has a place keeps it.

/** Links that would go backwards in the best order found (Eades, Lin and Smyth) are left out: what is left has no circle. */
function forward(names, links) {
  const net = new Map(names.map((name) => [name, 0]));
  const out = new Map(names.map((name) => [name, new Map()]));
  const into = new Map(names.map((name) => [name, new Map()]));
  for (const { from, to, weight } of links) {
    if (from === to) continue;
    out.get(from).set(to, (out.get(from).get(to) ?? 0) + weight);
    into.get(to).set(from, (into.get(to).get(from) ?? 0) + weight);
  }
  const left = new Set(names);
  const first = [];
  const last = [];
  const degree = (edges) => {
    let sum = 0;
    for (const [other, weight] of edges) if (left.has(other)) sum += weight;
    return sum;
  };
  while (left.size) {
    let moved = true;
    while (moved) {
      moved = false;
      for (const name of left) {
        if (degree(out.get(name)) === 0) {
          last.unshift(name);
          left.delete(name);
          moved = true;
        } else if (degree(into.get(name)) === 0) {
          first.push(name);
          left.delete(name);
          moved = true;
        }
      }
    }
    if (!left.size) break;
    for (const name of left) net.set(name, degree(out.get(name)) - degree(into.get(name)));
    const best = [...left].reduce((a, b) => (net.get(b) > net.get(a) ? b : a));
    first.push(best);
    left.delete(best);
  }
  const rank = new Map([...first, ...last].map((name, at) => [name, at]));
  return links.filter(({ from, to }) => rank.get(from) < rank.get(to));
}

function columnsOf(names, links) {
  const ahead = forward(names, links);
  const after = new Map(names.map((name) => [name, []]));
  const before = new Map(names.map((name) => [name, []]));
  for (const { from, to } of ahead) {
    after.get(from).push(to);
    before.get(to).push(from);
  }
  const column = new Map();
  const waiting = new Map(names.map((name) => [name, before.get(name).length]));
  const ready = names.filter((name) => waiting.get(name) === 0);
  for (const name of ready) column.set(name, 0);
  const order = [];
  while (ready.length) {
    const name = ready.shift();
    order.push(name);
    for (const next of after.get(name)) {
      column.set(next, Math.max(column.get(next) ?? 0, column.get(name) + 1));
      waiting.set(next, waiting.get(next) - 1);
      if (waiting.get(next) === 0) ready.push(next);
    }
  }
  // where a path begins later than others, it stands next to where it goes
  for (const name of order.reverse()) {
    const nexts = after.get(name);
    if (nexts.length && !before.get(name).length) column.set(name, Math.min(...nexts.map((next) => column.get(next))) - 1);
  }
  return { column, before, after };
}

const numeric = (a, b) => a.localeCompare(b, "en", { numeric: true });

/**
 * Columns of names. links: [{from, to, weight}] -> [[name, ...], ...], each column from top to bottom so that few links
 * cross.
 */
export function layers(names, links) {
  const sorted = [...names].sort(numeric);
  const { column, before, after } = columnsOf(sorted, links);
  const found = [];
  for (const name of sorted) (found[column.get(name)] ??= []).push(name);
  const columns = found.filter(Boolean);
  const place = new Map();
  const note = (names_) => names_.forEach((name, at) => place.set(name, (at + 0.5) / names_.length));
  columns.forEach(note);
  const middle = (name, beside) => {
    const places = beside.get(name).map((other) => place.get(other));
    return places.length ? places.reduce((a, b) => a + b) / places.length : place.get(name);
  };
  for (let sweep = 0; sweep < 8; sweep++) {
    const there = sweep % 2 === 0;
    for (const one of there ? columns : [...columns].reverse()) {
      const at = new Map(one.map((name) => [name, middle(name, there ? before : after)]));
      one.sort((a, b) => at.get(a) - at.get(b) || numeric(a, b));
      note(one);
    }
  }
  return columns;
}

/** Places of all. room: {width, height} of the picture -> Map(name -> {x, y}) */
export function places(names, links, room) {
  const columns = layers(names, links);
  const tallest = Math.max(1, ...columns.map((column) => column.length));
  const step = 52;
  const height = Math.max(tallest * step, 0.7 * room.height); // few are spread over the picture
  const wanted = (height * room.width) / Math.max(room.height, 1) / Math.max(columns.length - 0.4, 1);
  const longest = names.reduce((most, name) => Math.max(most, name.length), 0);
  const stride = Math.max(9 * longest + 64, Math.min(300, wanted));
  const found = new Map();
  columns.forEach((column, at) => {
    // few in a column are spread out, but not to the very ends
    const gap = Math.min(height / column.length, step * 2);
    column.forEach((name, row) => found.set(name, { x: at * stride, y: (row - (column.length - 1) / 2) * gap }));
  });
  return found;
}

/** A place for one more: in the column of those like it, below what stands there. */
export function placeBeside(name, links, known) {
  const stride = 160;
  const from = links.filter((link) => link.to === name && known.has(link.from)).map((link) => known.get(link.from));
  const to = links.filter((link) => link.from === name && known.has(link.to)).map((link) => known.get(link.to));
  const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  const all = [...known.values()];
  const columns = [...new Set(all.map(({ x }) => Math.round(x)))].sort((a, b) => a - b);
  const width = columns.length > 1 ? columns[1] - columns[0] : stride;
  let x = 0;
  if (from.length && to.length) x = (mean(from.map((p) => p.x)) + mean(to.map((p) => p.x))) / 2;
  else if (from.length) x = Math.max(...from.map((p) => p.x)) + width;
  else if (to.length) x = Math.min(...to.map((p) => p.x)) - width;
  const near = columns.find((one) => Math.abs(one - x) < width / 2);
  x = near ?? x;
  const taken = all.filter((p) => Math.abs(p.x - x) < width / 2).map((p) => p.y);
  const beside = [...from, ...to];
  let y = beside.length ? mean(beside.map((p) => p.y)) : 0;
  if (taken.length) {
    const steps = [0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6].map((n) => y + n * 52);
    y = steps.find((one) => taken.every((other) => Math.abs(other - one) >= 48)) ?? Math.max(...taken) + 52;
  }
  return { x, y };
}
