// Elements and their text. Values from the sidecar are set as text, never as markup.

export const $ = (id) => document.getElementById(id);

// Characters that could hide or reverse text are shown as code points.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
export const visible = (text) => String(text).replace(UNSEEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

export function say(element, text) {
  text = visible(text ?? "");
  if (element.textContent !== text) element.textContent = text; // setting an equal text would end a selection
}

export function mark(element, text, className) {
  say(element, text);
  if (element.className !== className) element.className = className;
}

export function element(name, text, className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = visible(text);
  return made;
}

export function button(text, act, className = "") {
  const made = element("button", text, className);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

// The parts of a template by their data-is.
export function fromTemplate(id) {
  const root = $(id).content.firstElementChild.cloneNode(true);
  const parts = { root };
  for (const part of root.querySelectorAll("[data-is]")) parts[part.dataset.is] = part;
  return parts;
}

// A time: the text is local time, and the tooltip has the date and zone.
export function sayTime(element, iso, text) {
  say(element, text);
  element.dateTime = iso;
  element.title = iso;
}

// Rows by their keys: new ones are added, missing ones removed. Rows are moved only with `reorder`.
export class Rows {
  constructor(parent, make, show) {
    this.parent = parent;
    this.make = make;
    this.show = show;
    this.rows = new Map();
  }

  update(items, keyOf, reorder = true) {
    const keys = new Set(items.map(keyOf));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.root.remove();
        this.rows.delete(key);
      }
    }
    let place = this.parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let row = this.rows.get(key);
      const isNew = !row;
      if (isNew) {
        row = this.make(item);
        this.rows.set(key, row);
      }
      this.show(row, item, isNew);
      if (row.root === place) place = place.nextElementSibling;
      else if (isNew || reorder) this.parent.insertBefore(row.root, place);
    }
  }
}

// Does the reader point at or focus this element? Then nothing in it may move.
export function isRead(element) {
  return element.matches(":hover") || (element.contains(document.activeElement) && document.activeElement.matches(":focus-visible"));
}

// Rebuilds a list only if it has changed, so that a selection stays.
export function list(parent, things, content) {
  const told = JSON.stringify(things);
  if (parent.told === told) return;
  parent.told = told;
  parent.replaceChildren(
    ...things.map((thing) => {
      const item = document.createElement("li");
      item.append(...content(thing));
      return item;
    }),
  );
}

// Text in which `backticks` mark code.
export function prose(text) {
  return visible(text)
    .split("`")
    .map((part, at) => (at % 2 ? element("code", part) : part));
}
