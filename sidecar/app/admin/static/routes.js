// The rules with their counts; those with refusals first, or in the order of the file.

import { $, Rows, element, fromTemplate, isRead, say } from "./dom.js";
import { counted, duration, number } from "./format.js";
import { get } from "./listener.js";
import { whileSeen } from "./sections.js";
import { filter } from "./state.js";

const EVERY_MS = 5000;
const FEW = 15;

const table = $("route-table");
const rows = new Rows(table.tBodies[0], make, show);
let all = false;

async function load() {
  const { routes } = await get("routes");
  const search = $("route-search").value.trim().toLowerCase();
  const numbered = routes.map((route, at) => ({ ...route, at }));
  const fitting = numbered.filter((route) => `${route.name} ${route.methods} ${route.hosts} ${route.upstream}`.toLowerCase().includes(search));
  const seen = $("file-order").checked ? fitting : fitting.toSorted(byRefusals);
  const shown = all ? seen : seen.slice(0, FEW);
  rows.update(shown, (route) => route.at, !isRead(table));
  $("route-search").parentElement.hidden = routes.length <= FEW;
  $("more-routes").hidden = shown.length === seen.length;
  say($("more-routes"), `Show all ${number(seen.length)}`);
  say($("routes-count"), counted(routes.length - 2, "rule"));
}

const byRefusals = (a, b) =>
  b.minute.refused - a.minute.refused || b.minute.requests - a.minute.requests || b.refused - a.refused || a.at - b.at;

whileSeen($("routes"), EVERY_MS, load);
$("route-search").addEventListener("input", () => load().catch(() => {}));
$("file-order").addEventListener("change", () => load().catch(() => {}));
$("more-routes").addEventListener("click", () => {
  all = true;
  load().catch(() => {});
});

const AUTH = {
  required: "a token", optional: "a token or none", api_key: "an API key", none: "nothing", deny: "all refused",
};

function make(route) {
  const row = fromTemplate("route");
  row.value.addEventListener("click", () => {
    filter.only({ route: route.name });
    $("refusals").scrollIntoView();
  });
  return row;
}

function show(row, route) {
  say(row.value, [route.methods?.join(","), route.name].filter(Boolean).join(" "));
  row.value.setAttribute("aria-label", `${row.value.textContent}: show its refusals`);
  const notes = [
    { "(default)": "all other requests", "(none)": "unreadable requests" }[route.name] ?? "",
    route.line ? `line ${route.line}` : "",
    route.hosts ? `only ${route.hosts.join(", ")}` : "",
    route.issuers ? `tokens of ${route.issuers.join(", ")}` : "",
    route.upstream && route.upstream !== "default" ? `to ${route.upstream}` : "",
  ];
  say(row.note, notes.filter(Boolean).join("; "));
  row.note.hidden = !row.note.textContent;
  say(row.auth, route.auth ? (AUTH[route.auth] ?? route.auth) : "–");
  row.mode.hidden = route.mode !== "report";
  say(row.requests, number(route.minute.requests));
  say(row.refused, number(route.minute.refused));
  row.refused.classList.toggle("some", route.minute.refused > 0);
  say(row.reported, number(route.minute.reported));
  say(row.times, route.minute.p50_s === null ? "–" : `${duration(route.minute.p50_s)} / ${duration(route.minute.p99_s)}`);
  say(row.all, `${number(route.requests)} / ${number(route.refused)}`);
}
