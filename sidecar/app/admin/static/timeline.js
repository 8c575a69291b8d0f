// The last hour on a time axis: requests, refusals by code, and marks at changes.

import { $, button, element, say, sayTime, visible } from "./dom.js";
import { minuteOfDay, number, rate, time } from "./format.js";
import { get } from "./listener.js";
import { filter } from "./state.js";

const COLORS = 6; // codes with their own colour; the others share one
const HEIGHT = 90;
const GAP = 2;
const TICKS_MIN = { 15: 5, 60: 15 };
const OTHERS = "others";

let minutes = 15;
let steps = [];
let events = [];
let stepS = 10;
let until = 0;
let asking = false;
let asked = -Infinity;
let now = 0;

// A step is complete two of its lengths after its begin, by the sidecar's clock.
export async function seeTimeline(serverMs) {
  now = serverMs;
  const isDue = now > (steps.at(-1)?.ms ?? 0) + 2 * stepS * 1000 + 200;
  if (asking || !(isDue && performance.now() - asked > 2000) && performance.now() - asked < stepS * 1000) return;
  asking = true;
  try {
    const told = await get(`timeline?after=${Math.max(0, Math.floor(until))}`);
    asked = performance.now();
    stepS = told.step_s;
    const known = new Set(steps.map((step) => step.at));
    steps.push(...told.steps.map((step) => ({ ...step, ms: Date.parse(step.at) })).filter((step) => !known.has(step.at)));
    steps = steps.slice(-360);
    const seen = new Set(events.map((event) => event.at + event.text));
    events.push(...told.events.map((event) => ({ ...event, ms: Date.parse(event.at) })).filter((event) => !seen.has(event.at + event.text)));
    events = events.slice(-100);
    until = Math.max(until, (steps.at(-1)?.ms ?? 0) / 1000);
    draw();
  } finally {
    asking = false;
  }
}

const svg = (name, attributes, parent) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
};

function shown() {
  const end = Math.max(now, (steps.at(-1)?.ms ?? 0) + stepS * 1000);
  const begin = end - minutes * 60_000;
  return { begin, end, steps: steps.filter((step) => step.ms >= begin), events: events.filter((event) => event.ms >= begin) };
}

function draw() {
  const view = shown();
  const totals = {};
  for (const step of view.steps) {
    step.codes = {};
    for (const one of step.refused) {
      if (one.mode === "report" || !filter.fits(one)) continue;
      step.codes[one.code] = (step.codes[one.code] ?? 0) + one.count;
      totals[one.code] = (totals[one.code] ?? 0) + one.count;
    }
  }
  const codes = Object.keys(totals).sort((a, b) => totals[b] - totals[a] || a.localeCompare(b));
  const named = codes.slice(0, COLORS);
  drawRequests(view);
  drawRefusals(view, named);
  drawLegend(named, codes, totals);
  drawEvents(view);
  drawTable(view, codes);
}

function frame(id, view, most) {
  const root = $(id);
  const width = Math.max(200, root.clientWidth);
  root.replaceChildren();
  root.setAttribute("viewBox", `0 0 ${width} ${HEIGHT + 18}`);
  const x = (ms) => ((ms - view.begin) / (view.end - view.begin)) * width;
  const every = TICKS_MIN[minutes] * 60_000;
  const offset = new Date().getTimezoneOffset() * 60_000;
  for (let at = Math.ceil((view.begin - offset) / every) * every + offset; at < view.end; at += every) {
    svg("line", { x1: x(at), x2: x(at), y1: 0, y2: HEIGHT, class: "grid" }, root);
    const label = svg("text", { x: Math.min(Math.max(x(at), 16), width - 16), y: HEIGHT + 14, class: "tick" }, root);
    label.textContent = minuteOfDay(at);
  }
  svg("line", { x1: 0, x2: width, y1: HEIGHT, y2: HEIGHT, class: "axis" }, root);
  for (const event of view.events) {
    svg("line", { x1: x(event.ms), x2: x(event.ms), y1: 0, y2: HEIGHT, class: `event ${event.level}` }, root);
  }
  const label = svg("text", { x: 2, y: 11, class: "most" }, root);
  label.textContent = most ? `${rate(most / stepS)} per s` : "";
  return { root, x, bar: Math.max(1, (width * stepS * 1000) / (view.end - view.begin) - GAP / 2) };
}

function drawRequests(view) {
  const most = Math.max(0, ...view.steps.map((step) => step.requests));
  const { root, x, bar } = frame("requests-chart", view, most);
  for (const step of view.steps) {
    const height = most ? (step.requests / most) * (HEIGHT - 16) : 0;
    svg("rect", { x: x(step.ms), y: HEIGHT - height, width: bar, height, class: "requests" }, root);
  }
  const last = view.steps.at(-1)?.requests ?? 0;
  root.setAttribute("aria-label", `Requests in the last ${minutes} minutes: at most ${rate(most / stepS)} per second, now ${rate(last / stepS)}.`);
}

function drawRefusals(view, named) {
  const total = (step) => Object.values(step.codes).reduce((sum, count) => sum + count, 0);
  const most = Math.max(0, ...view.steps.map(total));
  const { root, x, bar } = frame("refusals-chart", view, most);
  for (const step of view.steps) {
    let y = HEIGHT;
    const parts = [...named.map((code) => [code, step.codes[code] ?? 0])];
    parts.push([OTHERS, total(step) - parts.reduce((sum, [, count]) => sum + count, 0)]);
    parts.forEach(([, count], at) => {
      if (!count) return;
      const height = (count / most) * (HEIGHT - 16);
      y -= height;
      svg("rect", { x: x(step.ms), y, width: bar, height, class: `color-${at < named.length ? at : OTHERS}` }, root);
    });
  }
  const peak = view.steps.find((step) => total(step) === most);
  const now = view.steps.length ? total(view.steps.at(-1)) : 0;
  const words = most ? `at most ${rate(most / stepS)} per second at ${time(peak.at)}, now ${rate(now / stepS)}. ${named.join(", ")}` : "none";
  root.setAttribute("aria-label", `Refusals in the last ${minutes} minutes: ${words}.`);
}

let legend = "";

function drawLegend(named, codes, totals) {
  const told = JSON.stringify([named, codes.length, filter.code, named.map((code) => totals[code])]);
  if (legend === told) return;
  legend = told;
  const items = named.map((code, at) => {
    const item = document.createElement("li");
    const chosen = button("", () => filter.toggle("code", code), "legend");
    chosen.setAttribute("aria-pressed", filter.code === code);
    const dot = element("span", "", `dot color-${at}`);
    chosen.append(dot, element("span", code, "code"), element("span", number(totals[code]), "muted"));
    item.append(chosen);
    return item;
  });
  if (codes.length > named.length) {
    const item = element("li", "", "legend");
    item.append(element("span", "", `dot color-${OTHERS}`), `${codes.length - named.length} other codes`);
    items.push(item);
  }
  const focused = [...$("legend").children].indexOf(document.activeElement.parentElement);
  $("legend").replaceChildren(...items);
  if (focused >= 0) items[Math.min(focused, items.length - 1)]?.firstElementChild.focus();
}

function drawEvents(view) {
  const latest = view.events.toReversed().slice(0, 8);
  const told = JSON.stringify(latest.map((event) => event.at + event.text));
  if ($("events").told === told) return;
  $("events").told = told;
  $("events").replaceChildren(
    ...latest.map((event) => {
      const item = element("li", "", event.level);
      const at = element("time", "");
      sayTime(at, event.at, time(event.at));
      item.append(at, element("span", "", "flag"), element("span", event.text));
      return item;
    }),
  );
  $("no-events").hidden = latest.length > 0;
}

// The same by minute, as a table.
function drawTable(view, codes) {
  if (!$("timeline-table").open) return;
  const byMinute = new Map();
  for (const step of view.steps) {
    const minute = Math.floor(step.ms / 60_000) * 60_000;
    const row = byMinute.get(minute) ?? { requests: 0, codes: {} };
    row.requests += step.requests;
    for (const code of codes) row.codes[code] = (row.codes[code] ?? 0) + (step.codes[code] ?? 0);
    byMinute.set(minute, row);
  }
  const body = $("timeline-table").querySelector("tbody");
  body.replaceChildren(
    ...[...byMinute].toReversed().map(([minute, row]) => {
      const line = document.createElement("tr");
      const refused = codes.filter((code) => row.codes[code]).map((code) => `${visible(code)} ${number(row.codes[code])}`);
      line.append(element("td", minuteOfDay(minute)), element("td", number(row.requests)), element("td", refused.join(", ") || "none"));
      return line;
    }),
  );
}

for (const choice of document.querySelectorAll("input[name=minutes]")) {
  choice.addEventListener("change", () => {
    minutes = Number(choice.value);
    say($("span-words"), choice.value === "60" ? "last hour" : "last 15 minutes");
    draw();
  });
}
$("timeline-table").addEventListener("toggle", draw);
filter.onChange(draw);
new ResizeObserver(() => draw()).observe($("refusals-chart").parentElement);
