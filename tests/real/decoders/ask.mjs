// Answers each line of JSON on stdin with one on stdout: what the decoder makes of it.
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const decoder = await import(pathToFileURL(process.argv[2]));
const raw = (hex) => Buffer.from(hex, "hex").toString("latin1");
const map = (headers) => Object.fromEntries(Object.entries(headers).map(([name, hex]) => [name, raw(hex)]));
const ask = {
  text: ([value]) => decoder.text(raw(value)),
  items: ([value]) => decoder.items(raw(value)),
  claims: ([value]) => decoder.claims(raw(value)),
  assertion: (given) => decoder.assertion(...given),
  signed: ([method, target, headers, secret, now]) =>
    decoder.signed(method, raw(target), map(headers), Buffer.from(secret, "hex"), now),
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  try {
    console.log(JSON.stringify({ answer: ask[asked.ask](asked.arguments) }));
  } catch (error) {
    console.log(JSON.stringify({ refused: error.name }));
  }
}
