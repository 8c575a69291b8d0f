// The configuration in use, and the problems of a changed file.

import { $, element, say, sayTime } from "./dom.js";
import { counted, time } from "./format.js";
import { get } from "./listener.js";
import { whileSeen } from "./sections.js";

const EVERY_MS = 5000;

whileSeen($("configuration"), EVERY_MS, async () => {
  const told = await get("configuration");
  say($("file"), told.file ?? "not from a file");
  say($("file-hash"), told.hash || "none");
  sayTime($("file-loaded"), told.loaded_at, time(told.loaded_at));
  say($("restart"), told.restart_needed.length ? `Restart to change: ${told.restart_needed.join(", ")}.` : "");
  showRefused(told.refused);
  showLines($("lines"), told.lines, []);
  $("in-use").hidden = !told.lines.length;
});

function showRefused(refused) {
  $("refused-file").hidden = !refused;
  if (!refused || $("refused-file").told === JSON.stringify(refused)) return;
  $("refused-file").told = JSON.stringify(refused);
  say($("refused-title"), `A changed file was refused: ${counted(refused.problems.length, "problem")}`);
  sayTime($("refused-at"), refused.at, time(refused.at));
  $("file-problems").replaceChildren(
    ...refused.problems.map((problem) => {
      const item = document.createElement("li");
      const where = [problem.line ? `line ${problem.line}` : "", problem.path ?? ""].filter(Boolean).join(", ");
      item.append(element("span", where, "code"), element("span", problem.text));
      return item;
    }),
  );
  showLines($("refused-lines"), refused.lines, refused.problems);
  $("refused-source").hidden = !refused.lines.length;
}

// Only lines around problems: a file may have thousands of lines.
function showLines(parent, lines, problems) {
  const told = JSON.stringify(lines);
  if (parent.told === told) return;
  parent.told = told;
  const near = new Set(problems.flatMap(({ line }) => [line - 2, line - 1, line, line + 1, line + 2]));
  const shown = lines.map((text, at) => [at + 1, text]).filter(([number]) => !problems.length || near.has(number));
  let before = 0;
  parent.replaceChildren(
    ...shown.flatMap(([number, text]) => {
      const line = element("span", "", "source");
      const wrong = problems.filter((problem) => problem.line === number);
      if (wrong.length) line.classList.add("wrong");
      const digits = element("span", String(number).padStart(4), "digits");
      line.append(digits, element("span", text), "\n");
      const gap = before && number > before + 1 ? [element("span", "   …\n", "muted")] : [];
      before = number;
      return [...gap, line, ...wrong.map((problem) => element("span", `     ${problem.text}\n`, "problem"))];
    }),
  );
}
