// Reads what jwt-sidecar sends. Header values are as Node has them: each byte one character.
import crypto from "node:crypto";

export function text(value) {
  const bytes = value.replace(/%([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString("utf8");
}

export function items(value) {
  return value.split(",").map(text);
}

export function claims(value) {
  return JSON.parse(Buffer.from(value, "base64url").toString("utf8"));
}

export function assertion(token, keySet, issuer, audience, now = Date.now() / 1000) {
  const [header, payload, signature] = token.split(".");
  const { alg, kid } = claims(header);
  const jwk = keySet.keys.find((key) => key.kid === kid);
  if (!jwk) throw new Error("unknown key: fetch the key set again");
  const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
  const message = Buffer.from(`${header}.${payload}`);
  const good = alg === "EdDSA" && crypto.verify(null, message, key, Buffer.from(signature, "base64url"));
  const said = claims(payload);
  if (!good || said.iss !== issuer || said.aud !== audience || said.exp <= now) throw new Error("not a good assertion");
  return said;
}

export function signed(method, target, headers, secret, now = Date.now() / 1000) {
  const [, t, v1] = /^t=([0-9]{1,12}),v1=([0-9a-f]{64})$/.exec(headers["x-jwt-signature"]) ?? [];
  const names = Object.keys(headers).filter((name) => name.startsWith("x-jwt-") && name !== "x-jwt-signature").sort();
  const lines = names.map((name) => `${name}:${headers[name]}\n`).join("");
  const message = Buffer.from(`${t}\n${method}\n${target}\n${lines}`, "latin1");
  const mac = crypto.createHmac("sha256", secret).update(message).digest("hex");
  return t !== undefined && Math.abs(now - t) <= 30 && crypto.timingSafeEqual(Buffer.from(mac), Buffer.from(v1));
}
