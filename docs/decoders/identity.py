"""Reads what jwt-sidecar sends. Header values are as WSGI has them: each byte one character."""

import hashlib
import hmac
import json
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def text(value: str) -> str:
    return unquote_to_bytes(value.encode("latin-1")).decode()


def items(value: str) -> list[str]:
    return [text(item) for item in value.split(",")]


def base64url(value: str) -> bytes:
    return urlsafe_b64decode(value + "=" * (-len(value) % 4))


def claims(value: str) -> Any:
    return json.loads(base64url(value))


def assertion(token: str, key_set: Any, issuer: str, audience: str, now: float | None = None) -> Any:
    header, payload, signature = token.split(".")
    alg, kid = claims(header)["alg"], claims(header)["kid"]
    jwk = {key["kid"]: key for key in key_set["keys"]}[kid]  # KeyError: fetch the key set again
    if alg != "EdDSA":
        raise ValueError("not a good assertion")
    key = Ed25519PublicKey.from_public_bytes(base64url(jwk["x"]))
    key.verify(base64url(signature), f"{header}.{payload}".encode())  # raises InvalidSignature
    said = claims(payload)
    if said["iss"] != issuer or said["aud"] != audience or said["exp"] <= (now or time.time()):
        raise ValueError("not a good assertion")
    return said


def signed(method: str, target: str, headers: Mapping[str, str], secret: bytes, now: float | None = None) -> bool:
    match = re.fullmatch("t=([0-9]{1,12}),v1=([0-9a-f]{64})", headers.get("x-jwt-signature", ""))
    names = sorted(name for name in headers if name.startswith("x-jwt-") and name != "x-jwt-signature")
    lines = "".join(f"{name}:{headers[name]}\n" for name in names)
    if match is None or abs((now or time.time()) - int(match[1])) > 30:
        return False
    message = f"{match[1]}\n{method}\n{target}\n{lines}".encode("latin-1")
    return hmac.compare_digest(hmac.new(secret, message, hashlib.sha256).hexdigest(), match[2])
