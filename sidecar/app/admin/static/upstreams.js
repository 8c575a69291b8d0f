// The backends: their health and their connections.

import { $, Rows, fromTemplate, isRead, mark, say } from "./dom.js";
import { duration, number, time } from "./format.js";
import { get } from "./listener.js";
import { whileSeen } from "./sections.js";

const EVERY_MS = 5000;
const STATES = { good: "good", idle: "", errors: "warn", failing: "bad" };
const WORDS = { good: "answers", idle: "no requests lately", errors: "some errors", failing: "failing" };
const KINDS = {
  connect: ["connection failed", "connections failed"],
  timeout: ["timeout", "timeouts"],
  protocol: ["invalid answer", "invalid answers"],
  reset: ["connection broken off", "connections broken off"],
};
const WORST = ["failing", "errors", "good", "idle"];

const rows = new Rows($("upstream-list"), () => fromTemplate("upstream"), show);

whileSeen($("upstreams"), EVERY_MS, async () => {
  const { upstreams } = await get("upstreams");
  const sorted = upstreams.toSorted((a, b) => WORST.indexOf(a.health) - WORST.indexOf(b.health));
  rows.update(sorted, (upstream) => upstream.name, !isRead($("upstream-list")));
  say($("no-upstream"), "No upstreams: this sidecar only answers front proxies.");
  $("no-upstream").hidden = upstreams.length > 0;
});

function show(row, upstream) {
  const { connections, minute } = upstream;
  say(row.name, upstream.name);
  say(row.url, upstream.url);
  mark(row.health, WORDS[upstream.health] ?? upstream.health, `badge ${STATES[upstream.health] ?? ""}`);
  const bad = upstream.health === "failing" || upstream.health === "errors";
  say(row.since, bad && upstream.since ? `since ${time(upstream.since)}` : "");
  say(row.answered, number(minute.answered));
  say(row.errors, errors(minute.errors) || "none");
  say(row.all, errors(upstream.errors) || "none");
  say(row.times, minute.p50_s === null ? "–" : `${duration(minute.p50_s)}, 99 % within ${duration(minute.p99_s)}`);
  const busy = connections.open - connections.idle;
  say(row.connections, `${number(busy)} busy, ${number(connections.idle)} idle, at most ${number(connections.most)}`);
  say(row.waiting, connections.waiting ? `${number(connections.waiting)} requests` : "none");
  say(row.probes, upstream.probes.map((probe) => `${probe.name} ${probe.path}: ${probe.status ?? "no answer yet"}`).join("; ") || "none configured");
}

const errors = (kinds) =>
  Object.entries(kinds)
    .filter(([, count]) => count)
    .map(([kind, count]) => `${number(count)} ${KINDS[kind]?.[Number(count !== 1)] ?? kind}`)
    .join(", ");
