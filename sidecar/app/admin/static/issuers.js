// The issuers: those with a problem first and open, the others in one line each.

import { $, Rows, element, fromTemplate, isRead, list, mark, say } from "./dom.js";
import { counted, number, time, wholeSeconds } from "./format.js";
import { get, post } from "./listener.js";
import { whileSeen } from "./sections.js";

const EVERY_MS = 10_000;
const FEW = 8; // shown before "Show all"
const STATES = { fresh: "good", stale: "warn", absent: "bad" };
const WORST = ["absent", "stale", "fresh"];

const rows = new Rows($("issuer-list"), make, show);
let all = false;

export async function loadIssuers() {
  const { issuers } = await get("issuers");
  const search = $("issuer-search").value.trim().toLowerCase();
  const wrong = issuers.filter((issuer) => issuer.state !== "fresh").length;
  const fitting = issuers
    .filter((issuer) => `${issuer.name} ${issuer.issuer} ${issuer.aliases}`.toLowerCase().includes(search))
    .toSorted((a, b) => WORST.indexOf(a.state) - WORST.indexOf(b.state) || b.minute.refused - a.minute.refused);
  const shown = all || search ? fitting : fitting.slice(0, Math.max(FEW, wrong));
  rows.update(shown, (issuer) => issuer.name, !isRead($("issuer-list")));
  $("issuer-search").parentElement.hidden = issuers.length <= FEW;
  $("more-issuers").hidden = shown.length === fitting.length;
  say($("more-issuers"), `Show all ${number(fitting.length)}`);
  say($("issuers-count"), wrong ? `${number(wrong)} of ${counted(issuers.length, "issuer")} with a problem` : counted(issuers.length, "issuer"));
}

whileSeen($("issuers"), EVERY_MS, loadIssuers);
$("issuer-search").addEventListener("input", () => loadIssuers().catch(() => {}));
$("more-issuers").addEventListener("click", () => {
  all = true;
  loadIssuers().then(() => rows.rows.values().toArray?.()[FEW]?.root.querySelector("summary").focus(), () => {});
});

function make(issuer) {
  const row = fromTemplate("issuer");
  row.refresh.addEventListener("click", () => refresh(issuer.name, row));
  row.refresh.setAttribute("aria-label", `Refresh keys of ${issuer.name}`);
  row.details.open = issuer.state !== "fresh";
  return row;
}

function show(row, issuer) {
  row.cooldown_s = issuer.cooldown_s;
  say(row.name, issuer.name);
  say(row.issuer, issuer.issuer);
  mark(row.state, issuer.state === "absent" ? "no usable keys" : `keys ${issuer.state}`, `badge ${STATES[issuer.state]}`);
  row.refused.hidden = !issuer.minute.refused;
  say(row.refused, `${number(issuer.minute.refused)} refused per minute`);
  const fetches = issuer.last_error ? `Last fetch failed: ${issuer.last_error}` : "";
  say(row.error, fetches);
  say(row.brief, brief(issuer));
  say(row.age, issuer.age_s === null ? "never fetched" : wholeSeconds(issuer.age_s));
  say(row.next, `in ${wholeSeconds(issuer.next_refresh_s)}`);
  say(row.offset, offset(issuer.clock_offset_s));
  let [good, failed] = [0, 0];
  for (const results of Object.values(issuer.fetches)) {
    good += results.success ?? 0;
    failed += results.failure ?? 0;
  }
  say(row.fetches, `${number(good)} good, ${number(failed)} failed`);
  say(row.usable, issuer.usable_for_s ? wholeSeconds(issuer.usable_for_s) : "–");
  say(row.from, issuer.keys_from);
  list(row.keys, issuer.keys, (key) => {
    const grace = key.grace_s === null ? "" : `, withdrawn, trusted for ${wholeSeconds(key.grace_s)}`;
    return [element("code", key.kid ?? "no kid"), " ", element("span", `${key.kty} ${key.alg.join(", ")}${grace}`)];
  });
  list(row.skipped, issuer.skipped, (why) => [`left out: ${why}`]);
}

function brief(issuer) {
  const keys = counted(issuer.keys.length, "key");
  if (issuer.state === "fresh") return `${keys}, ${issuer.age_s === null ? "never fetched" : `${wholeSeconds(issuer.age_s)} old`}`;
  return issuer.usable ? `${keys}, usable for ${wholeSeconds(issuer.usable_for_s)} more` : "its tokens get 503";
}

function offset(seconds) {
  if (seconds === null) return "not known";
  if (Math.abs(seconds) < 1) return "under 1 s";
  return `${wholeSeconds(Math.abs(seconds))} ${seconds > 0 ? "ahead" : "behind"}`;
}

async function refresh(name, row) {
  if (row.cooldown_s > 0) {
    say(row.result, `fetched a moment ago, possible again in ${wholeSeconds(row.cooldown_s)}`);
    return;
  }
  say(row.result, "asking ...");
  try {
    const answer = await post(`jwks/refresh/${encodeURIComponent(name)}`, {});
    say(row.result, `${answer.issuers[0].result}, ${time(new Date())}`);
    await loadIssuers();
  } catch (error) {
    say(row.result, error.message);
  }
}
