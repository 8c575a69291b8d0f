// A refusal as commands. A token is never in them: $TOKEN and token.txt stand for it.

import { visible } from "./dom.js";

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${visible(text).replaceAll("'", `'\\''`)}'`);
const withoutToken = new Set(["token_missing", "route_denied"]);

// The first address of the sidecar for a client on the same machine.
const here = (listens) => listens.split(", ")[0].replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");

export function curl(refusal, listens) {
  const parts = ["curl", "-i"];
  if (/\/\./.test(refusal.path)) parts.push("--path-as-is");
  if (/[[\]{}]/.test(refusal.path)) parts.push("-g");
  if (refusal.method === "HEAD") parts.push("--head");
  else if (refusal.method !== "GET") parts.push("-X", quoted(refusal.method));
  if (refusal.host) parts.push("-H", quoted(`Host: ${refusal.host}`));
  if (!withoutToken.has(refusal.code)) parts.push("-H", '"Authorization: Bearer $TOKEN"');
  return [...parts, quoted(here(listens) + refusal.path)].join(" ");
}

export function explain(refusal, file) {
  const parts = ["jwt-sidecar", "explain", "-c", quoted(file ?? "config.yaml")];
  if (refusal.method !== "GET") parts.push("--method", quoted(refusal.method));
  if (refusal.host) parts.push("--host", quoted(refusal.host));
  parts.push("--path", quoted(refusal.path));
  if (!withoutToken.has(refusal.code)) parts.push("--token-file", "token.txt");
  else parts.push("</dev/null");
  return parts.join(" ");
}

// The button shows whether the copy worked. Without a clipboard the text appears, selected.
export async function copy(text, button, shown) {
  try {
    await navigator.clipboard.writeText(text);
    shown.hidden = true;
    const before = button.dataset.text ?? button.textContent;
    button.dataset.text = before;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = before), 1500);
  } catch {
    shown.hidden = false;
    shown.textContent = text;
    getSelection().selectAllChildren(shown);
  }
}
