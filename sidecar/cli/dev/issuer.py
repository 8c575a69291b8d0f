"""The embedded issuer: discovery, a key set, and tokens for everyone.

It gives a valid token to every caller, so it listens only on loopback and only for `jwt-sidecar dev`.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from sidecar.gateway.issuer_metadata import discovery, key_set_url
from sidecar.gateway.signing_key import ALGORITHMS, SigningKey, key_set

CACHE_CONTROL = "public, max-age=60"  # short, so that the new keys of a restarted issuer are fetched soon

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Issuer:
    """An issuer; `answer_for` makes a handler for its paths.

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
        self.jwks_uri = jwks_uri or key_set_url(issuer)
        path = urlsplit(base).path
        self.path = f"/{path.lstrip('/')}" if path else ""  # an `iss` that is not a URL has a path without a slash
        self.keys = list(keys) if keys is not None else [SigningKey.generate(alg) for alg in ALGORITHMS]

    def mint(self, alg: str = "EdDSA", ttl_s: int = 3600, /, **claims: Any) -> str:
        """A token that is valid for `ttl_s` seconds from now (negative: it has expired). `claims` are added or replace others.

        Raises ValueError if no key of this issuer signs with `alg`.
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
        """Path -> handler."""
        return {
            f"{self.path}/.well-known/openid-configuration": self._discovery,
            urlsplit(self.jwks_uri).path: self._jwks,
            f"{self.path}/dev-token": self._dev_token,
        }

    async def _discovery(self, _request: web.BaseRequest) -> web.Response:
        document = discovery(self.issuer, self.jwks_uri, [key.alg for key in self.keys])
        return web.json_response(document, headers={"Cache-Control": CACHE_CONTROL})

    async def _jwks(self, _request: web.BaseRequest) -> web.Response:
        return web.json_response(key_set(self.keys), headers={"Cache-Control": CACHE_CONTROL})

    async def _dev_token(self, request: web.BaseRequest) -> web.Response:
        """A token. `alg` and `ttl` (seconds) are settings; every other query parameter is a claim."""
        claims = dict(request.query)
        alg, ttl = claims.pop("alg", "EdDSA"), claims.pop("ttl", "3600")
        if not re.fullmatch("-?[0-9]{1,9}", ttl):
            return web.Response(
                status=400, text="ttl must be a whole number of seconds; a negative one makes an expired token\n"
            )
        try:
            token = self.mint(alg, int(ttl), **claims)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(text=f"{token}\n", headers={"Cache-Control": "no-store"})


def answer_for(issuers: Iterable[Issuer]) -> Handler:
    """One handler for all issuers at the same address."""
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
