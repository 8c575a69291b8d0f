// Explains a request, check by check.

import { $, element, say, visible } from "./dom.js";
import { post } from "./listener.js";

export function ask(method, path, host) {
  clearAnswer();
  if ([...$("method").options].some((option) => option.text === method)) $("method").value = method;
  $("path").value = path;
  if (host) $("request-host").value = host;
  $("token").focus();
}

function clearAnswer() {
  $("steps").replaceChildren();
  $("upstream-head").hidden = true;
  $("verdict").className = "muted";
  say($("verdict"), "The checks of the request appear here, in order.");
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
    const told = await post("explain", { token, method: $("method").value, path: $("path").value, host: $("request-host").value });
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
    $("upstream-head").hidden = !told.accepted;
    if (told.accepted) $("head").textContent = told.head.map(visible).join("\n");
  } catch (error) {
    verdict(error.message, "bad");
  }
});

$("question").addEventListener("reset", () => {
  clearAnswer();
  $("token").focus();
});

addEventListener("pagehide", () => $("question").reset()); // no token stays in the tab's history
