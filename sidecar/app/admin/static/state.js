// What several sections read: the last status, and which refusals are looked at.

export const status = { now: null };

const listeners = [];

export const filter = {
  code: null,
  issuer: null,
  route: null,

  // Only refusals with this value, or with any again.
  toggle(name, value) {
    this[name] = this[name] === value ? null : value;
    this.changed();
  },

  only(values) {
    for (const name of NAMES) this[name] = values[name] ?? null;
    this.changed();
  },

  get query() {
    return new URLSearchParams(NAMES.filter((name) => this[name] !== null).map((name) => [name, this[name]])).toString();
  },

  fits(refusal) {
    return NAMES.every((name) => this[name] === null || this[name] === refusal[name]);
  },

  onChange(listener) {
    listeners.push(listener);
  },

  changed() {
    for (const listener of listeners) listener();
  },
};

export const NAMES = ["code", "issuer", "route"];
