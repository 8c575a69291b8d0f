"""Signing keys, and the embedded issuer that signs with them: discovery, a key set, and a token for whoever asks.

It hands a valid token to every caller, which is why it only ever listens on loopback and only for `jwt-sidecar dev`.
"""

import hashlib
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ALGORITHMS = ("EdDSA", "RS256", "ES256")  # the first is what Zuplo's JWT service signs with
CACHE_CONTROL = "public, max-age=60"  # short, so that a restarted issuer's new keys are soon asked for

PrivateKey = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKey:
    """A private key with the one algorithm that it signs with (RFC 8725 section 3.1).

    Ed25519 signs EdDSA (RFC 8037), RSA signs RS256, P-256 signs ES256 (RFC 7518); any other key is a ValueError. `kid`
    is the JWK thumbprint (RFC 7638): whoever loads the same key gives it the same name.
    """

    def __init__(self, private_key: PrivateKey) -> None:
        self._private_key = private_key
        self.alg, members = _public(private_key)
        self.kid = base64url(hashlib.sha256(_json(dict(sorted(members.items())))).digest())
        self.jwk: dict[str, str] = {**members, "kid": self.kid, "alg": self.alg, "use": "sig"}

    @classmethod
    def generate(cls, alg: str) -> "SigningKey":
        """A new key for EdDSA, RS256 (2048 bits) or ES256; ValueError for anything else."""
        match alg:
            case "EdDSA":
                return cls(Ed25519PrivateKey.generate())
            case "RS256":
                return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048))
            case "ES256":
                return cls(ec.generate_private_key(ec.SECP256R1()))
        raise ValueError(f"no key can be made for {alg!r}; one of: {', '.join(ALGORITHMS)}")

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """The claims as a compact JWS (RFC 7515 section 7.1); `header` adds to, or replaces, `alg`, `kid` and `typ`."""
        protected = {"alg": self.alg, "kid": self.kid, "typ": "JWT", **(header or {})}
        signing_input = f"{base64url(_json(protected))}.{base64url(_json(claims))}"
        return f"{signing_input}.{base64url(self._signature(signing_input.encode()))}"

    def _signature(self, message: bytes) -> bytes:
        match self._private_key:
            case Ed25519PrivateKey() as key:
                return key.sign(message)
            case rsa.RSAPrivateKey() as key:
                return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            case key:  # RFC 7518 section 3.4: R and S side by side, not the DER that OpenSSL makes
                r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _public(private_key: PrivateKey) -> tuple[str, dict[str, str]]:
    """The algorithm of a key and the required members of its public JWK (RFC 7518 section 6, RFC 8037 section 2)."""
    match private_key:
        case Ed25519PrivateKey():
            x = private_key.public_key().public_bytes_raw()
            return "EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": base64url(x)}
        case rsa.RSAPrivateKey():
            numbers = private_key.public_key().public_numbers()
            return "RS256", {"kty": "RSA", "n": _uint(numbers.n), "e": _uint(numbers.e)}
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            point = private_key.public_key().public_numbers()
            x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
            return "ES256", {"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)}
    raise ValueError("a signing key is Ed25519, RSA or P-256")


def _uint(number: int) -> str:
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class Issuer:
    """What one issuer publishes and signs; `answer_for` gives it a place to be asked.

    `issuer` is the `iss` of its tokens; discovery and /dev-token are below the path of that URL. The key set is at the
    path of `jwks_uri`, or without one at `{issuer}/.well-known/jwks.json`.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | None = None,
        jwks_uri: str | None = None,
        keys: Sequence[SigningKey] | None = None,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        base = issuer.rstrip("/")  # OpenID Connect Discovery 1.0 section 4.1
        self.jwks_uri = jwks_uri or f"{base}/.well-known/jwks.json"
        path = urlsplit(base).path
        self.path = f"/{path.lstrip('/')}" if path else ""  # an `iss` that is no URL has a path without a slash
        self.keys = list(keys) if keys is not None else [SigningKey.generate(alg) for alg in ALGORITHMS]

    def mint(self, alg: str = "EdDSA", ttl_s: int = 3600, /, **claims: Any) -> str:
        """A token that is valid from now on for `ttl_s` seconds (negative: it has expired); `claims` add or replace.

        ValueError when no key of this issuer signs with `alg`.
        """
        key = next((key for key in self.keys if key.alg == alg), None)
        if key is None:
            raise ValueError(
                f"this issuer does not sign with {alg!r}; one of: {', '.join(key.alg for key in self.keys)}"
            )
        now = int(time.time())
        standard: dict[str, Any] = {"iss": self.issuer, "sub": "dev-user", "scope": "read admin"}
        if self.audience is not None:
            standard["aud"] = self.audience
        return key.sign({**standard, "iat": min(now, now + ttl_s), "exp": now + ttl_s, **claims})

    def paths(self) -> dict[str, Handler]:
        """Every path that this issuer answers, and what answers it."""
        return {
            f"{self.path}/.well-known/openid-configuration": self._discovery,
            urlsplit(self.jwks_uri).path: self._jwks,
            f"{self.path}/dev-token": self._dev_token,
        }

    async def _discovery(self, _request: web.BaseRequest) -> web.Response:
        document = {
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri,
            "id_token_signing_alg_values_supported": [key.alg for key in self.keys],
        }
        return web.json_response(document, headers={"Cache-Control": CACHE_CONTROL})

    async def _jwks(self, _request: web.BaseRequest) -> web.Response:
        return web.json_response({"keys": [key.jwk for key in self.keys]}, headers={"Cache-Control": CACHE_CONTROL})

    async def _dev_token(self, request: web.BaseRequest) -> web.Response:
        """`alg` and `ttl` (seconds) choose how to sign; every other parameter of the query is a claim."""
        claims = dict(request.query)
        alg, ttl = claims.pop("alg", "EdDSA"), claims.pop("ttl", "3600")
        if not re.fullmatch("-?[0-9]{1,9}", ttl):
            return web.Response(
                status=400, text="ttl is a whole number of seconds; a negative one makes an expired token\n"
            )
        try:
            token = self.mint(alg, int(ttl), **claims)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(text=f"{token}\n", headers={"Cache-Control": "no-store"})


def answer_for(issuers: Iterable[Issuer]) -> Handler:
    """One handler for all issuers that share an address."""
    paths: dict[str, Handler] = {}
    for issuer in issuers:
        paths |= issuer.paths()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        handler = paths.get(request.raw_path.partition("?")[0])
        if handler is None:
            return web.Response(
                status=404, text="Not here. These paths are:\n" + "".join(f"{path}\n" for path in paths)
            )
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        return await handler(request)

    return answer
