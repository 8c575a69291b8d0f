// Shows what /status tells, once a second while somebody looks. Whatever comes from outside is set as text, never as markup.
"use strict";

const EVERY_MS = 1000;
const WINDOW_MS = 60_000; // of latencies, of the lines, and of "last minute"
const RATE_MS = 5_000; // the rates are means of so long
const PATIENCE_MS = 8_000; // more than the listener waits for a worker that is stuck
const SHOWN = 100; // refusals
const OLD_CONFIGURATION = "The changed configuration could not be taken into use; the one before it still is. The log says why.";

const $ = (id) => document.getElementById(id);

// What could hide or turn around the text beside it is written as its code point.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const visible = (text) => String(text).replace(UNSEEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

function say(element, text) {
  text = visible(text);
  if (element.textContent !== text) element.textContent = text; // an equal text would end a selection in it
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = visible(text);
  return made;
}

function fromTemplate(id) {
  const root = $(id).content.firstElementChild.cloneNode(true);
  const parts = { root };
  for (const part of root.querySelectorAll("[data-is]")) parts[part.dataset.is] = part;
  return parts;
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function duration(seconds) {
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.round(seconds / 3600);
  return hours < 48 ? `${hours} h` : `${Math.round(seconds / 86400)} days`;
}

const wholeSeconds = (seconds) => duration(seconds < 60 ? Math.round(seconds) || 0 : seconds).replace(/^0 ms$/, "0 s");
const rate = (perSecond) => (perSecond >= 100 ? number.format(perSecond) : perSecond.toFixed(1));
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

// Traffic

let samples = [];

function showTraffic(traffic) {
  const now = performance.now();
  const sample = { at: now, ...traffic, refusals: sum(traffic.refused) };
  const before = samples.at(-1);
  if (before && (before.requests > sample.requests || now - before.at > RATE_MS)) samples = []; // another process, or a pause
  samples.push(sample);
  while (samples.length > 2 && samples[1].at < now - WINDOW_MS) samples.shift();
  const recent = samples.find((one) => one.at >= now - RATE_MS - EVERY_MS / 2);
  if (recent !== sample) {
    const seconds = (now - recent.at) / 1000;
    say($("requests"), rate((sample.requests - recent.requests) / seconds));
    say($("refused"), rate((sample.refusals - recent.refusals) / seconds));
  }
  draw($("requests-line"), now, "requests");
  draw($("refused-line"), now, "refusals");
  const counts = sample.durations.map((count, at) => count - samples[0].durations[at]);
  say($("p50"), quantile(0.5, counts, sample.bounds_s));
  say($("p99"), quantile(0.99, counts, sample.bounds_s));
  say($("in-flight"), number.format(sample.in_flight));
  say($("total"), number.format(sample.requests));
  showReasons(sample, samples[0]);
}

function draw(line, now, what) {
  const points = samples.slice(1).map((sample, at) => {
    const before = samples[at];
    return [60 - (now - sample.at) / (WINDOW_MS / 60), (1000 * (sample[what] - before[what])) / (sample.at - before.at)];
  });
  const most = Math.max(1, ...points.map(([, height]) => height));
  line.setAttribute("points", points.map(([x, height]) => `${x.toFixed(2)},${(19 - (18 * height) / most).toFixed(2)}`).join(" "));
}

// As Prometheus estimates it: within its bucket the durations are taken as evenly spread.
function quantile(part, counts, bounds) {
  const total = sum(counts);
  if (!total) return "–";
  let below = 0;
  let at = 0;
  while (below + counts[at] < part * total) below += counts[at++];
  if (at === 0) return `< ${duration(bounds[0])}`;
  if (at === bounds.length) return `> ${duration(bounds.at(-1))}`;
  return duration(bounds[at - 1] + ((bounds[at] - bounds[at - 1]) * (part * total - below)) / counts[at]);
}

function showReasons(sample, first) {
  const rows = [];
  for (const kind of ["refused", "reported"]) {
    for (const [reason, count] of Object.entries(sample[kind])) {
      rows.push({ reason, kind, count, lately: count - (first[kind][reason] ?? 0) });
    }
  }
  rows.sort((a, b) => b.lately - a.lately || b.count - a.count);
  $("reasons").hidden = !rows.length;
  $("reasons").tBodies[0].replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      const name = document.createElement("td");
      name.append(element("span", row.reason, "code"));
      if (row.kind === "reported") name.append(" ", element("span", "let in", "badge report"));
      line.append(name, element("td", number.format(row.lately)), element("td", number.format(row.count)));
      return line;
    }),
  );
}

// Issuers

const cards = new Map();
const STATES = { fresh: "good", stale: "warn", absent: "bad" };

function showIssuers(issuers) {
  for (const [name, card] of cards) {
    if (!issuers.some((issuer) => issuer.name === name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  for (const issuer of issuers) {
    if (!cards.has(issuer.name)) {
      const card = fromTemplate("issuer");
      card.refresh.addEventListener("click", () => refresh(issuer.name, card));
      card.refresh.setAttribute("aria-label", `Refresh keys of ${issuer.name}`);
      cards.set(issuer.name, card);
      $("issuer-list").append(card.root);
    }
    showIssuer(issuer, cards.get(issuer.name));
  }
}

function showIssuer(issuer, card) {
  card.cooldown_s = issuer.cooldown_s;
  say(card.name, issuer.name);
  say(card.issuer, issuer.issuer);
  say(card.state, issuer.state === "absent" ? "no usable keys" : issuer.state);
  card.state.className = `badge ${STATES[issuer.state]}`;
  say(card.error, issuer.last_error ? `Last fetch failed: ${issuer.last_error}` : "");
  say(card.age, issuer.age_s === null ? "never fetched" : wholeSeconds(issuer.age_s));
  say(card.next, `in ${wholeSeconds(issuer.next_refresh_s)}`);
  say(card.offset, offset(issuer.clock_offset_s));
  let [good, failed] = [0, 0];
  for (const results of Object.values(issuer.fetches)) {
    good += results.success ?? 0;
    failed += results.failure ?? 0;
  }
  say(card.fetches, `${number.format(good)} good, ${number.format(failed)} failed`);
  say(card.usable, issuer.usable_for_s ? wholeSeconds(issuer.usable_for_s) : "–");
  list(card.keys, issuer.keys, (key) => {
    const grace = key.grace_s === null ? "" : `, withdrawn, trusted for ${wholeSeconds(key.grace_s)}`;
    return [element("code", key.kid ?? "no kid"), " ", element("span", `${key.kty} ${key.alg.join(", ")}${grace}`)];
  });
  list(card.skipped, issuer.skipped, (why) => [`left out: ${visible(why)}`]);
}

function offset(seconds) {
  if (seconds === null) return "not known";
  if (Math.abs(seconds) < 1) return "under 1 s";
  return `${wholeSeconds(Math.abs(seconds))} ${seconds > 0 ? "ahead" : "behind"}`;
}

function list(parent, things, content) {
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

async function refresh(name, card) {
  if (card.cooldown_s > 0) {
    say(card.result, `asked a moment ago, again in ${wholeSeconds(card.cooldown_s)}`);
    return;
  }
  say(card.result, "asking ...");
  try {
    const answer = await post(`jwks/refresh/${encodeURIComponent(name)}`, {});
    say(card.result, answer.issuers[0].result);
  } catch (error) {
    say(card.result, error.message);
  }
}

// Refusals

let refusals = 0; // the number of those that were shown, of all since the start

function showRefusals(total, last) {
  const animated = refusals > 0;
  for (const refusal of last.toReversed()) {
    const part = fromTemplate("refusal");
    part.root.classList.toggle("new", animated);
    part.root.dataset.text = JSON.stringify(Object.values(refusal)).toLowerCase();
    const reported = refusal.mode === "report";
    say(part.time, new Date(refusal.time).toLocaleTimeString("en-GB"));
    part.time.dateTime = part.time.title = refusal.time;
    say(part.code, refusal.code);
    part.code.classList.add(reported ? "report" : refusal.status < 500 ? "warn" : "bad");
    say(part.request, refusal.method === null ? "(not a request)" : `${refusal.method} ${refusal.path}`);
    say(part.status, reported ? `let in, ${refusal.status}` : refusal.status || "client left");
    say(part.details, refusal.details ?? refusal.error);
    say(part.id, refusal.request_id);
    say(part.route, refusal.route);
    say(part.issuer, refusal.issuer);
    say(part.peer, refusal.peer || "–");
    say(part.claims, refusal.claims.join(", ") || "none verified");
    if (refusal.method === null) part.explain.remove();
    else part.explain.addEventListener("click", () => ask(refusal.method, refusal.path));
    part.root.hidden = !fits(part.root);
    $("refusal-list").prepend(part.root);
  }
  while ($("refusal-list").children.length > SHOWN) $("refusal-list").lastElementChild.remove();
  refusals = total;
  showWhetherNone();
}

const fits = (item) => item.dataset.text.includes($("filter").value.trim().toLowerCase());

function showWhetherNone() {
  const items = [...$("refusal-list").children];
  $("none").hidden = items.some((item) => !item.hidden);
  say($("none"), items.length ? "No refusal among the last fits the filter." : "Nothing has been refused since the start.");
}

$("filter").addEventListener("input", () => {
  for (const item of $("refusal-list").children) item.hidden = !fits(item);
  showWhetherNone();
});

// Explain

function ask(method, path) {
  clearAnswer();
  if ([...$("method").options].some((option) => option.text === method)) $("method").value = method;
  $("path").value = path;
  $("token").focus();
}

function clearAnswer() {
  $("steps").replaceChildren();
  $("upstream").hidden = true;
  $("verdict").className = "quiet";
  say($("verdict"), "Every check of the request will be shown here, in its order.");
}

function verdict(text, className) {
  clearAnswer();
  $("verdict").className = `told ${className}`;
  say($("verdict"), text);
}

const MARKS = { ok: ["✓", "good", "passed: "], FAIL: ["✗", "bad", "failed: "], note: ["!", "warn", "note: "] };

$("question").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = $("token").value.replace(/^\s*(?:Authorization:)?\s*(?:Bearer\s)?/i, "").replace(/\s/g, "");
  try {
    const told = await post("explain", { token, method: $("method").value, path: $("path").value, host: $("host").value });
    if (told.accepted) verdict(`Accepted: it is sent to ${told.upstream}.`, "good");
    else verdict(`Refused: ${told.status} ${told.code}. ${told.details || told.error}`, "bad");
    $("steps").replaceChildren(
      ...told.steps.map((step) => {
        const [sign, color, words] = MARKS[step.mark];
        const item = document.createElement("li");
        const mark = element("span", sign, `mark ${color}`);
        mark.setAttribute("role", "img");
        mark.setAttribute("aria-label", words);
        item.className = step.mark;
        item.append(mark, element("span", step.name, "name"), element("span", step.text, "code"));
        return item;
      }),
    );
    $("upstream").hidden = !told.accepted;
    if (told.accepted) $("head").textContent = told.head.map(visible).join("\n");
  } catch (error) {
    verdict(error.message, "bad");
  }
});

$("question").addEventListener("reset", () => {
  clearAnswer();
  $("token").focus();
});

addEventListener("pagehide", () => $("question").reset()); // a token does not wait in a tab's history

// The listener

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => {
    throw new Error("The sidecar does not answer.");
  });
  const answer = await response.json();
  if (answer.error && !("accepted" in answer)) throw new Error(answer.error);
  return answer;
}

function state(text, className, lost = false) {
  say($("state"), text);
  $("state").className = `badge ${className}`;
  document.querySelector("main").classList.toggle("lost", lost);
}

async function status(after) {
  const response = await fetch(`status?after=${after}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

async function look() {
  let seen;
  try {
    seen = await status(refusals);
    if (seen.refusals < refusals) {
      $("refusal-list").replaceChildren(); // another process, which counts from the beginning
      refusals = 0;
      seen = await status(0);
    }
  } catch {
    return state("not reachable", "bad", true);
  }
  showTraffic(seen.traffic);
  showIssuers(seen.issuers);
  showRefusals(seen.refusals, seen.last);
  say($("reload"), seen.last_reload_successful ? "" : OLD_CONFIGURATION);
  if (seen.traffic.draining) state("draining", "warn");
  else state("serving", "good");
}

let next;
let looking = false;

async function watch() {
  clearTimeout(next);
  if (looking || document.hidden) return;
  looking = true;
  try {
    await look();
  } finally {
    looking = false;
    next = setTimeout(watch, EVERY_MS);
  }
}

document.addEventListener("visibilitychange", watch);
watch();
