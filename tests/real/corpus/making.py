"""The parts of the corpus: valid tokens, and signed tokens with any content."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.issuer import AUDIENCE
from tests.peers import tokens
from tests.peers.tokens import ABSENT

SECRET = b"a secret of thirty-two bytes and more"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEYS = [
    *(tokens.public_jwk(alg) for alg in ("RS256", "ES256", "ES384", "ES512", "EdDSA")),
    tokens.jwk(tokens.key("RS256", "b"), kid="enc", use="enc"),
    tokens.jwk(tokens.key("RS256", "b"), kid="wrap", key_ops=["wrapKey"]),
    tokens.jwk(tokens.key("RS256", "b"), kid="pss", alg="PS256"),
    tokens.jwk(tokens.key("RS256", "b"), kid="ops", key_ops=["verify"], x="y"),
    tokens.jwk(tokens.rsa_key(1024), kid="weak"),
    tokens.jwk(SECRET, kid="oct"),
]
"""The issuer's key set: usable keys and unusable ones."""

RSA = tokens.rsa_key(2048, "a")  # as tokens.key("RS256")
EC, ED = tokens.key("ES256"), tokens.key("EdDSA")
EVIL = tokens.key("RS256", "evil")
HEADER = b'{"alg":"RS256","kid":"rsa-a"}'

Cases = Iterator[tuple[str, bytes]]
"""A name and a whole request."""


def bearer(token: str | bytes) -> bytes:
    """A request with this token in the usual place."""
    return get(b"Authorization: Bearer " + (token if isinstance(token, bytes) else token.encode()))


def get(*lines: bytes, target: bytes = b"/") -> bytes:
    """A request with these header lines."""
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: sidecar.test", *lines, b"", b""])


def bearers(cases: Iterable[tuple[str, str | bytes]]) -> Cases:
    """The same for many, with their names."""
    return ((name, bearer(token)) for name, token in cases)


def good_token(alg: str = "RS256", **over: Any) -> str:
    """A token that both must accept, but for what is `over`."""
    return tokens.token(alg, **{"aud": AUDIENCE, **over})


def good_claims(**over: Any) -> dict[str, Any]:
    """The claims of one."""
    return tokens.claims(**{"aud": AUDIENCE, **over})


def signed(header: Any, payload: Any = None, *, key: Any = RSA, alg: str = "RS256") -> str:
    """A token whose signature is right and whose header or payload may be anything."""
    return tokens.sign(key, alg, header, good_claims() if payload is None else payload)


def headed(**over: Any) -> str:
    """A good RS256 token but for its header."""
    return signed({"alg": "RS256", "kid": "rsa-a", **over})


def claimed(text: str) -> str:
    """A good RS256 token whose payload has this JSON behind its other members."""
    return signed(HEADER, json.dumps(good_claims(exp=ABSENT)).encode()[:-1] + f",{text}}}".encode())


def shown(value: object) -> str:
    """A value in a name."""
    return "absent" if value is ABSENT else json.dumps(value)
