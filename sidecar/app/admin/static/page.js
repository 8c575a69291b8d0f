// The page: fetches /status every two seconds while it is visible, and shows the head, problems and traffic.

import { $, say, sayTime } from "./dom.js";
import { counted, duration, minuteOfDay, number, rate, time, wholeSeconds } from "./format.js";
import { get } from "./listener.js";
import { showProblems } from "./problems.js";
import { page, resume } from "./sections.js";
import { seeRefusals } from "./refusals.js";
import { seeTimeline } from "./timeline.js";
import { status } from "./state.js";
import "./issuers.js";
import "./upstreams.js";
import "./routes.js";
import "./configuration.js";
import "./explain.js";

const EVERY_MS = 2000;
const RATE_MS = 6_000; // rates are means over this time

let samples = [];
let isFirst = true;

function showHead({ sidecar, traffic }) {
  say($("host"), sidecar.host);
  say($("version"), `version ${sidecar.version}`);
  say($("uptime"), `up ${wholeSeconds(sidecar.uptime_s)}`);
  sayTime($("started"), sidecar.started_at, `since ${time(sidecar.started_at)}`);
  const { configuration } = sidecar;
  say($("hash"), configuration.hash || "none");
  sayTime($("loaded"), configuration.loaded_at, `read ${time(configuration.loaded_at)}`);
  say($("workers"), sidecar.workers > 1 ? `${number(sidecar.workers)} workers` : "");
  const { requests, refused, noteworthy } = traffic.minute;
  const share = noteworthy ? `; ${Math.round((refused / requests) * 100)} % refused in the last minute` : "";
  state(traffic.draining ? "draining" : "serving", share, traffic.draining || share ? "warn" : "good");
}

// Only the word is announced: the share changes often.
function state(word, share, className, lost = false) {
  say($("word"), word);
  say($("refusing"), share);
  $("state").className = `badge ${className}`;
  page.lost = lost;
  document.querySelector("main").classList.toggle("lost", lost);
}

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

function showTraffic(traffic) {
  const now = performance.now();
  const sample = { at: now, requests: traffic.requests, refusals: sum(traffic.refused) };
  const before = samples.at(-1);
  if (before && (before.requests > sample.requests || now - before.at > RATE_MS)) samples = []; // a new process, or a pause
  samples.push(sample);
  while (samples.length > 2 && samples[1].at < now - RATE_MS - EVERY_MS / 2) samples.shift();
  const { minute } = traffic;
  const first = samples[0];
  const [requests, refusals, seconds] =
    first === sample
      ? [minute.requests, minute.refused, Math.max(1, minute.seconds)]
      : [sample.requests - first.requests, sample.refusals - first.refusals, (now - first.at) / 1000];
  say($("requests"), rate(requests / seconds));
  say($("refused"), rate(refusals / seconds));
  say($("requests-minute"), `${number(minute.requests)} in the last minute`);
  say($("refused-minute"), `${number(minute.refused)} in the last minute`);
  say($("p50"), duration(minute.p50_s));
  say($("p99"), duration(minute.p99_s));
  say($("in-flight"), number(traffic.in_flight));
  say($("connections"), counted(traffic.connections ?? 0, "connection"));
  say($("total"), `${counted(traffic.requests, "request")} since the start`);
}

// Issuers come first if one has a problem; only at the beginning, so that the section does not move later.
function order(problems) {
  if (isFirst && problems.some(({ what, level }) => what === "issuer" && level !== "note")) {
    $("traffic").before($("issuers"));
    document.querySelector("nav a[href='#traffic']").before(document.querySelector("nav a[href='#issuers']"));
  }
  isFirst = false;
}

async function look() {
  try {
    const told = await get("status?most=0");
    if (status.now && told.sidecar.started_at < status.now.sidecar.started_at) samples = [];
    status.now = told;
  } catch {
    state("not reachable", "", "bad", true);
    return;
  }
  showHead(status.now);
  showProblems(status.now);
  showTraffic(status.now.traffic);
  order(status.now.problems);
  seeRefusals(status.now.refusals);
  seeTimeline(Date.parse(status.now.sidecar.time));
}

let next;
let looking = false;

async function watch() {
  clearTimeout(next);
  if (looking || document.hidden || page.paused) return;
  looking = true;
  try {
    await look();
  } finally {
    looking = false;
    next = setTimeout(watch, EVERY_MS);
  }
}

$("pause").addEventListener("click", () => {
  page.paused = !page.paused;
  document.body.classList.toggle("paused", page.paused);
  say($("pause"), page.paused ? "Resume" : "Pause");
  say($("paused"), page.paused ? `Paused at ${minuteOfDay(new Date())}. Nothing on this page changes.` : "");
  if (!page.paused) {
    watch();
    resume();
  }
});

document.addEventListener("visibilitychange", watch);
watch();
