// The problems in sentences, with links to details.

import { $, Rows, element, fromTemplate, mark, say, sayTime } from "./dom.js";
import { ago, minuteAndDay, time, wholeSeconds } from "./format.js";
import { filter } from "./state.js";

const WORDS = { bad: "wrong", warn: "warning", note: "note" };
const SECTIONS = { issuer: "issuers", upstream: "upstreams", configuration: "configuration", refusals: "refusals" };

const rows = new Rows($("problem-list"), make, show);

function make(problem) {
  const row = fromTemplate("problem");
  const section = SECTIONS[problem.what];
  if (section) {
    row.more.href = `#${section}`;
    say(row.more, problem.what === "refusals" ? "Show these refusals" : `Show ${section}`);
    if (problem.what === "refusals") row.more.addEventListener("click", () => filter.only({ code: problem.name }));
  } else {
    row.more.remove();
  }
  return row;
}

function show(row, problem) {
  mark(row.level, WORDS[problem.level] ?? problem.level, `badge ${problem.level}`);
  say(row.text, problem.text);
  say(row.detail, problem.detail);
  row.detail.hidden = !problem.detail;
  say(row.until, problem.until ? `That is until ${minuteAndDay(problem.until)}.` : "");
  row.when.hidden = !problem.since;
  const begin = problem.first ? `The first was at ${time(problem.first)}. Frequent since` : "Since";
  if (problem.since) sayTime(row.since, problem.since, `${begin} ${time(problem.since)}, ${ago(problem.since, now)}.`);
  row.before.hidden = !problem.before;
  if (problem.before) {
    const seconds = (new Date(problem.since) - new Date(problem.before.at)) / 1000;
    const started = problem.before.what === "started";
    const words = seconds >= 1 ? `${wholeSeconds(seconds)} before that` : "At that time";
    say(row.before, started ? "This has been the case since the process started." : `${words}: ${problem.before.text}.`);
  }
}

let now;

export function showProblems({ problems, sidecar, traffic, issuers }) {
  now = new Date(sidecar.time);
  rows.update(problems, (problem) => `${problem.what} ${problem.name} ${problem.level}`);
  $("well").hidden = problems.length > 0;
  if (!problems.length) {
    const { requests, refused } = traffic.minute;
    const keys = issuers.fresh === 1 ? "The issuer has fresh keys." : `${issuers.fresh} issuers have fresh keys.`;
    const last = requests ? ` ${refused} of ${requests} requests were refused in the last minute.` : " No request came in the last minute.";
    say($("well"), `Nothing is wrong. ${issuers.fresh ? keys : ""}${last}`);
  }
  const worst = problems[0]?.level;
  document.title = worst === "bad" || worst === "warn" ? `(${problems.filter((one) => one.level !== "note").length}) jwt-sidecar` : "jwt-sidecar";
}
