// Elements, made and changed. Text comes in as text only: names are from the network and must never become HTML.

/** An element. attributes: "class", "on" ({type: listener}), any attribute; null or false: left out. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (value !== null && value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
}

export const byId = (id) => document.getElementById(id);

const texts = new WeakMap();

/** Set an element's text, if it is another one: an unchanged page is not laid out again. */
export function setText(element, text) {
  if (texts.get(element) === text) return;
  texts.set(element, text);
  element.textContent = text;
}

const attributes = new WeakMap();

/** The same of an attribute; null removes it. */
export function setAttribute(element, name, value) {
  let known = attributes.get(element);
  if (!known) attributes.set(element, (known = {}));
  if (known[name] === value) return;
  known[name] = value;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

/** The same of a style property. */
export function setStyle(element, name, value) {
  let known = attributes.get(element);
  if (!known) attributes.set(element, (known = {}));
  const key = `style ${name}`;
  if (known[key] === value) return;
  known[key] = value;
  element.style.setProperty(name, value);
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

export function setClass(element, name, on) {
  if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
}

/** One child for each item, made once by key and then updated in place, in the items' order. */
export class List {
  /** make(item) -> {element, update(item)}; keyOf(item) -> string */
  constructor(parent, keyOf, make) {
    this.parent = parent;
    this.keyOf = keyOf;
    this.make = make;
    this.made = new Map();
  }

  update(items) {
    const before = this.made;
    this.made = new Map();
    let at = this.parent.firstElementChild;
    for (const item of items) {
      const key = this.keyOf(item);
      const entry = before.get(key) ?? this.make(item);
      before.delete(key);
      this.made.set(key, entry);
      entry.update(item);
      if (entry.element === at) at = at.nextElementSibling;
      else this.parent.insertBefore(entry.element, at);
    }
    for (const entry of before.values()) entry.element.remove();
  }
}

/** Smooth, or not for those who do not want motion. */
export function behavior() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
}
