// Shared by several sections: the last status, and the filter of refusals.

export const status = { now: null };

const listeners = [];

export const filter = {
  code: null,
  issuer: null,
  route: null,

  // Toggles the filter for this value.
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
