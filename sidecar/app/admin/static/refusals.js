// The refusals in groups and one by one. While the reader is in the list, nothing moves.

import { $, Rows, button, element, fromTemplate, isRead, mark, prose, say, sayTime } from "./dom.js";
import { ago, number, time } from "./format.js";
import { copy, curl, explain } from "./commands.js";
import { get } from "./listener.js";
import { page, reload, whileSeen } from "./sections.js";
import { ask } from "./explain.js";
import { NAMES, filter, status } from "./state.js";

const GROUPS_MS = 5000;
const LIST_MS = 3000;
const FEW = 15;
const MOST = 100;
const WORDS = { code: "Code", issuer: "Issuer", route: "Route" };
// Further members of a refusal, with their names on the page.
const KNOWN = new Set([
  "time", "request_id", "method", "path", "host", "route", "mode", "status", "code", "error", "details", "cause", "issuer", "claims", "peer",
]);
const LATER = { kid: "Key id (kid)", found: "Found", expected: "Expected", key_source: "Keys from", trace_id: "Trace" };

let by = ["code", "issuer"];
let codes = {};

get("codes").then((told) => (codes = told), () => {});

// Groups

const table = $("groups");
const groups = new Rows(table.tBodies[0], makeGroup, showGroup);
let columns = "";

const panel = table.parentElement; // the table is hidden while it is empty
whileSeen(panel, GROUPS_MS, async () => {
  const told = await get(`rejections?by=${by.join(",")}&${filter.query}`);
  showGroups(told.groups);
});

function showGroups(told) {
  if (columns !== by.join()) {
    columns = by.join();
    groups.update([], () => "");
    table.tHead.rows[0].replaceChildren(
      ...[...by.map((name) => [WORDS[name], ""]), ["Last minute", "number"], ["All", "number"], ["Since", "since"], ["Last", "last"]].map(([text, name]) => {
        const cell = element("th", text, name);
        cell.scope = "col";
        return cell;
      }),
    );
  }
  groups.update(told, (group) => [...by.map((name) => group[name]), group.mode].join(" "), !isRead(table));
  table.hidden = !told.length;
  $("none").hidden = told.length > 0;
  say($("none"), filter.query ? "No refusal matches your choice." : "No request has been refused since the start.");
}

function makeGroup(group) {
  const root = document.createElement("tr");
  const row = { root };
  for (const name of by) {
    const cell = document.createElement("td");
    cell.className = `value ${name}`;
    const value = button(group[name], () => filter.toggle(name, group[name]), "value");
    value.setAttribute("aria-label", `${WORDS[name]} ${group[name]}: show only these`);
    cell.append(value);
    if (name === "code") {
      if (group.mode === "report") cell.append(element("span", "let in", "badge report"));
      const why = button("Cause and cure", () => toggleCure(row, group.code), "link");
      why.setAttribute("aria-expanded", "false");
      why.setAttribute("aria-label", `Cause and cure of ${group.code}`);
      row.why = why;
      cell.append(why);
    }
    row[name] = value;
    root.append(cell);
  }
  for (const name of ["minute", "count", "since", "last"]) {
    row[name] = document.createElement("td");
    row[name].className = name === "minute" || name === "count" ? "number" : name;
    root.append(row[name]);
  }
  for (const name of ["since", "last"]) row[name].append(document.createElement("time"));
  row.minute.dataset.label = "last minute";
  row.count.dataset.label = "all";
  row.since.dataset.label = "since";
  row.last.dataset.label = "last";
  return row;
}

function showGroup(row, group) {
  say(row.minute, number(group.last_minute));
  say(row.count, number(group.count));
  sayTime(row.since.firstChild, group.since, time(group.since));
  sayTime(row.last.firstChild, group.last, ago(group.last, new Date(status.now?.sidecar.time ?? Date.now())));
  row.root.classList.toggle("still", !group.last_minute);
  for (const name of by) row[name].setAttribute("aria-pressed", filter[name] === group[name]);
}

function toggleCure(row, code) {
  const isOpen = row.cure?.isConnected;
  row.why.setAttribute("aria-expanded", String(!isOpen));
  if (isOpen) {
    row.cure.remove();
    return;
  }
  row.cure = document.createElement("div");
  row.cure.className = "cure";
  row.cure.append(...cureOf(code));
  row.why.parentElement.append(row.cure);
}

function cureOf(code) {
  const told = codes[code];
  if (!told) return [element("p", "The page does not know this code.")];
  const list = document.createElement("dl");
  for (const [name, words] of [["cause", "Cause"], ["client", "The client"], ["operator", "The operator"]]) {
    const part = document.createElement("div");
    const text = document.createElement("dd");
    text.append(...prose(told[name]));
    part.append(element("dt", words), text);
    list.append(part);
  }
  return [list];
}

for (const choice of document.querySelectorAll("input[name=by]")) {
  choice.addEventListener("change", () => {
    by = NAMES.filter((name) => document.querySelector(`input[name=by][value=${name}]`).checked);
    if (!by.length) {
      choice.checked = true; // at least one
      by = [choice.value];
    }
    reload(panel);
  });
}

// One by one

const refusals = new Rows($("refusal-list"), makeRefusal, () => {});
let shown = FEW;
let total = 0; // refusals since the start, from the last status
let listed = -1; // the total at the last fetch of the list
let started = "";

whileSeen($("refusal-list").parentElement, LIST_MS, async () => {
  if (!started || listed === total) return;
  if (listed >= 0 && isHeld()) return tellHeld();
  await showNewest();
});

async function showNewest() {
  const told = await get(`rejections?most=${shown}&${filter.query}`);
  listed = told.refusals;
  total = Math.max(total, listed);
  refusals.update(told.rejections.filter(fits), keyOf);
  $("more-refusals").hidden = shown === MOST || told.rejections.length < shown;
  tellHeld();
}

const keyOf = (refusal) => `${refusal.time} ${refusal.request_id} ${refusal.path}`;

// Is the reader in the list? The pointer or the focus is in it, a refusal is open, or its beginning is above the screen.
function isHeld() {
  const list = $("refusal-list");
  return list.children.length > 0 && (isRead(list) || list.querySelector("details[open]") !== null || list.getBoundingClientRect().top < 0);
}

function tellHeld() {
  const newer = listed < 0 ? 0 : total - listed;
  $("newer").hidden = newer <= 0 || !isHeld();
  say($("newer"), `Show ${number(newer)} newer`);
  $("no-refusal").hidden = $("refusal-list").children.length > 0;
  say($("no-refusal"), $("search").value || filter.query ? "None of the last refusals matches your choice." : "No refusals to show.");
}

export function seeRefusals(number) {
  const now = status.now.sidecar.started_at;
  if (started && started !== now) {
    listed = -1; // a new process counts from zero
    refusals.update([], keyOf);
    groups.update([], () => "");
    reload($("refusal-list").parentElement);
    reload(panel);
  }
  const isFirst = !started;
  started = now;
  total = number;
  if (isFirst) reload($("refusal-list").parentElement);
  if (listed >= 0 && listed < total && !page.paused) tellHeld();
}

$("more-refusals").addEventListener("click", () => {
  shown = MOST;
  showNewest().catch(() => {});
});

$("newer").addEventListener("click", () => {
  for (const open of $("refusal-list").querySelectorAll("details[open]")) open.open = false;
  $("refusals").scrollIntoView();
  showNewest().then(() => $("refusal-list").querySelector("summary")?.focus({ preventScroll: true }), () => {});
});

function makeRefusal(refusal) {
  const row = fromTemplate("refusal");
  const reported = refusal.mode === "report";
  sayTime(row.time, refusal.time, time(refusal.time));
  mark(row.code, refusal.code, `badge ${reported ? "report" : refusal.status < 500 ? "warn" : "bad"}`);
  say(row.request, refusal.method === null ? "(not a request)" : `${refusal.method} ${refusal.path}`);
  say(row.status, reported ? `reported, ${refusal.status}` : refusal.status || "client left");
  row.summary.addEventListener("click", () => {
    if (!row.facts.children.length) fill(row, refusal);
  });
  row.details.addEventListener("toggle", tellHeld);
  return row;
}

function fill(row, refusal) {
  say(row.sentence, refusal.details ?? refusal.error);
  say(row.cause, refusal.cause ? `Broken rule: ${refusal.cause}` : "");
  row.cause.hidden = !refusal.cause;
  const facts = [
    ["Request id", refusal.request_id],
    ["Host", refusal.host ?? "–"],
    ["Route", refusal.route],
    ["Issuer", refusal.issuer],
    ["Client", refusal.peer || "–"],
    ["Claims, by name", refusal.claims.join(", ") || "none verified"],
  ];
  for (const [name, value] of Object.entries(refusal)) {
    if (KNOWN.has(name) || value === null || value === "") continue;
    const words = LATER[name] ?? name.replaceAll("_", " ");
    facts.push([words, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  row.facts.append(
    ...facts.map(([name, value]) => {
      const part = document.createElement("div");
      part.append(element("dt", name), element("dd", value, "code"));
      return part;
    }),
  );
  const buttons = [
    button("Cause and cure", (event) => {
      const isOpen = event.currentTarget.getAttribute("aria-expanded") === "true";
      event.currentTarget.setAttribute("aria-expanded", String(!isOpen));
      row.cure.replaceChildren(...(isOpen ? [] : cureOf(refusal.code)));
    }),
    button("Only like this", () => filter.only(refusal)),
  ];
  buttons[0].setAttribute("aria-expanded", "false");
  if (refusal.method !== null) {
    buttons.push(
      button("Explain with a token", () => ask(refusal.method, refusal.path, refusal.host)),
      button("Copy as curl", (event) => copy(curl(refusal, status.now.sidecar.listens), event.currentTarget, row.command)),
      button("Copy as explain", (event) => copy(explain(refusal, status.now.sidecar.configuration.file), event.currentTarget, row.command)),
    );
  }
  row.buttons.append(...buttons);
}

// Filters and the search text

const fits = (refusal) => JSON.stringify(Object.values(refusal)).toLowerCase().includes($("search").value.trim().toLowerCase());

// The filter stands beside both that it filters: the chart and the refusals.
function showChosen() {
  const chosen = NAMES.filter((name) => filter[name] !== null);
  for (const [place, next] of [["traffic", document.querySelector("input[name=minutes]:checked")], ["refusals", $("search")]]) {
    const chips = $(place).querySelector(".chosen");
    chips.replaceChildren(
      ...chosen.map((name) => {
        const chip = button(`${WORDS[name]}: ${filter[name]} ✕`, () => {
          filter.toggle(name, filter[name]);
          next.focus();
        }, "chip");
        chip.setAttribute("aria-label", `Remove the filter ${WORDS[name].toLowerCase()} ${filter[name]}`);
        return chip;
      }),
    );
    chips.hidden = !chosen.length;
  }
}

filter.onChange(() => {
  showChosen();
  reload(panel);
  showNewest().catch(() => {});
});

// A match may be below the visible refusals.
$("search").addEventListener("input", () => {
  shown = MOST;
  showNewest().catch(() => {});
});
