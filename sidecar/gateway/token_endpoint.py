"""The issuer that we are, at the path of its URL on the proxy's own listener: who it is, its keys, and tokens for API keys.

Its pages are found by their exact path, before any route. The first two are for everybody: they hold public keys.
"""

import json
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection
from sidecar.common.watched_file import FollowedFile
from sidecar.gateway.api_keys import ApiKeys
from sidecar.gateway.key_ring import KeyRing
from sidecar.gateway.local_endpoints import Page, Reply, cacheable
from sidecar.gateway.signing_key import discovery, key_set, key_set_url
from sidecar.gateway.token_minter import Mint
from sidecar.http.request_head import RequestHead
from sidecar.jwt.claims import Claims
from sidecar.policy.access_policy import granted_scopes
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.exchange import Exchange

MAX_FORM_BYTES = 8 * 1024
FORM_S = 10.0  # for a form to come

# For logs and metrics, and the form of refusals; requests for these pages match no path.
PUBLIC_ROUTE = Route("/*", auth=Auth.NONE, name="(issuer)")
TOKEN_ROUTE = Route("/*", auth=Auth.API_KEY, name="(token)")


class OwnIssuer:
    """What is served of an issuer. Of its token endpoint only with a mint, for the holders of `api_keys`."""

    def __init__(
        self,
        issuer: str,
        ring: FollowedFile[KeyRing],
        clock: Clock,
        api_keys: ApiKeys | None = None,
        mint: Mint | None = None,
    ) -> None:
        self.issuer = issuer
        self._ring = ring
        self._clock = clock
        base = urlsplit(issuer).path.rstrip("/")
        self.pages = {
            f"{base}/.well-known/openid-configuration": Page(PUBLIC_ROUTE, self._discovery),
            f"{base}/.well-known/jwks.json": Page(PUBLIC_ROUTE, self._jwks),
        }
        self._tokens = None
        if mint is not None and api_keys is not None:
            self._tokens = TokenEndpoint(api_keys, mint, clock)
            self.pages[f"{base}/token"] = Page(
                TOKEN_ROUTE, self._tokens.answer, body_bytes=MAX_FORM_BYTES, body_s=FORM_S
            )

    def __repr__(self) -> str:
        return f"<OwnIssuer {self.issuer}: {', '.join(self.pages)}>"

    def _discovery(self, exchange: Exchange, _body: bytes) -> Reply:
        more: dict[str, Any] = {"response_types_supported": [], "subject_types_supported": ["public"]}
        if self._tokens is not None:
            more |= {
                "token_endpoint": f"{self.issuer.rstrip('/')}/token",
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        algorithms = [timed.key.alg for timed in self._ring.value.keys]
        return cacheable(exchange.head, discovery(self.issuer, key_set_url(self.issuer), algorithms, **more))

    def _jwks(self, exchange: Exchange, _body: bytes) -> Reply:
        return cacheable(exchange.head, key_set(self._ring.value.published(self._clock.wall())))


class TokenEndpoint:
    """Tokens for clients that want them themselves: RFC 6749 section 4.4, with the API key as the client's secret."""

    def __init__(self, api_keys: ApiKeys, mint: Mint, clock: Clock) -> None:
        self._api_keys = api_keys
        self._mint = mint
        self._clock = clock

    def answer(self, exchange: Exchange, body: bytes) -> Reply:
        """A token for the holder of the key. Raises Rejection, whose `oauth_error` is one of RFC 6749 section 5.2."""
        if exchange.method != "POST":
            raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="POST")
        holder = exchange.claims = self._client(exchange.head)
        form = _parameters(body)
        if form.get("grant_type") != "client_credentials":
            raise _refused("The grant_type must be client_credentials.", "unsupported_grant_type")
        for name in ("resource", "audience"):  # RFC 8707, and the name that others use
            if form.get(name, self._mint.audience) != self._mint.audience:
                raise _refused("Tokens for this audience are not given here.", "invalid_target")
        minted = self._mint.minted(_narrowed(holder, form.get("scope")))
        document = {
            "access_token": minted.token,
            "token_type": "Bearer",
            "expires_in": int(minted.expires - self._clock.wall()),
        }
        return Reply(200, {"Cache-Control": "no-store", "Pragma": "no-cache"}, json.dumps(document).encode())

    def _client(self, head: RequestHead) -> Claims:
        """The holder of the key that came, by Basic (section 2.3.1) or where routes look for keys. Raises Rejection."""
        special = head.special
        credentials = special.get("authorization", [])
        if len(credentials) == 1 and credentials[0][:6].lower() == b"basic ":
            name, key = _basic(credentials[0][6:])
            claims = self._api_keys.holder(key.encode())
            if name != claims.claims["sub"]:
                raise Rejection(Reason.API_KEY_UNKNOWN, "The API key is not that of this client_id.")
            return claims
        return self._api_keys.authenticate(special)


def _basic(credentials: bytes) -> tuple[str, str]:
    """(client_id, client_secret). Raises Rejection."""
    try:
        name, _, secret = b64decode(credentials.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Rejection(Reason.API_KEY_UNKNOWN) from None
    return unquote_plus(name), unquote_plus(secret)


def _parameters(body: bytes) -> dict[str, str]:
    """The parameters of a form, each once (section 3.2). Raises Rejection."""
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=bool(body))
    except ValueError:
        raise _refused("The body must be a form.", "invalid_request") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _refused("A parameter came twice.", "invalid_request")
    return form


def _narrowed(holder: Claims, scope: str | None) -> Claims:
    """The claims with no other scopes than those that were asked for (section 3.3). Raises Rejection."""
    if not scope:
        return holder
    if not set(scope.split(" ")) <= granted_scopes(holder.claims):
        raise _refused("The API key lacks a scope that was asked for.", "invalid_scope")
    return Claims(holder.issuer, holder.claims | {"scope": scope}, valid_until=holder.valid_until)


def _refused(details: str, oauth_error: str) -> Rejection:
    return Rejection(Reason.REQUEST_MALFORMED, details, oauth_error=oauth_error)
