// Numbers as people read them. What is not known is a dash, never 0.

export const UNKNOWN = "–";
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** 812, 81, 8.1, 8.0 */
const digits = (value) => (value >= 9.95 ? String(Math.round(value)) : value.toFixed(1));

/** 812, 81, 8.1, 8: beside another number */
const short = (value) => digits(value).replace(/\.0$/, "");

const TIMES = [
  [1e-6, 1e9, "ns"],
  [1e-3, 1e6, "µs"],
  [1, 1e3, "ms"],
];

function timeUnit(seconds) {
  for (const [below, scale, name] of TIMES) if (seconds * scale < 999.5 && seconds < below) return [scale, name];
  return [1, "s"];
}

/** Seconds: "812 ns", "4.3 µs", "12 ms". */
export function latency(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds === 0) return "0 ns";
  const [scale, name] = timeUnit(seconds);
  return `${digits(seconds * scale)} ${name}`;
}

/** [above, at most] seconds: "2–4.1 µs". */
export function range(bounds) {
  if (!bounds) return UNKNOWN;
  const [above, atMost] = bounds;
  if (!known(atMost)) return `over ${latency(above)}`;
  if (!above) return `≤ ${latency(atMost)}`;
  const [scale, name] = timeUnit(atMost);
  return `${short(above * scale)}–${short(atMost * scale)} ${name}`;
}

const LARGE = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

function large(value) {
  for (const [scale, name] of LARGE) {
    if (value >= scale * 0.9995) return `${(value / scale).toFixed(value < 99.95 * scale ? 1 : 0)} ${name}`;
  }
  return null;
}

/** A second: "2.0 k/s", "812/s", "0.3/s". */
export function rate(value) {
  if (!known(value)) return UNKNOWN;
  const big = large(value);
  if (big) return `${big}/s`;
  return `${value === 0 ? "0" : value < 0.05 ? "<0.1" : digits(value)}/s`;
}

const whole = new Intl.NumberFormat("en");

/** "1,204"; from ten million on "12.3 M". */
export function count(value) {
  if (!known(value)) return UNKNOWN;
  return value < 1e7 ? whole.format(value) : large(value);
}

/** "1 flow", "2 flows". */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A share of 1: "0.12 %". */
export function percent(value) {
  if (!known(value)) return UNKNOWN;
  const shown = value * 100;
  if (shown > 0 && shown < 0.01) return "<0.01 %";
  return `${shown >= 9.95 ? shown.toFixed(0) : shown >= 0.995 ? shown.toFixed(1) : shown === 0 ? "0" : shown.toFixed(2)} %`;
}

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  for (const [scale, name] of LARGE) if (value >= scale) return `${digits(value / scale)} ${name}B`;
  return `${Math.round(value)} B`;
}

/** Seconds that went by: "now", "12 s ago", "3 min ago". */
export function ago(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 1.5) return "now";
  if (seconds < 99.5) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Seconds since 1970: "14:02:31", here. */
export function clock(time) {
  return known(time) ? clockFormat.format(time * 1000) : UNKNOWN;
}

/** An address and a port, IPv6 in brackets. */
export function endpoint(address, port) {
  if (!address) return UNKNOWN;
  if (!known(port)) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

export const switchName = (id) => (id === null || id === undefined ? "?" : String(id));

/** Switch ids in travel order. */
export function path(ids, cut = false) {
  if (!ids || !ids.length) return UNKNOWN;
  return (cut ? "… › " : "") + ids.map(switchName).join(" › ");
}
