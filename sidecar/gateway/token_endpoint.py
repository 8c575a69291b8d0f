"""The token endpoint: gives a token to a client with an API key."""

import json
from base64 import b64decode
from urllib.parse import parse_qsl, unquote_plus

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection
from sidecar.gateway.api_keys import ApiKeys, HashedKey
from sidecar.gateway.local_endpoints import Reply, Request
from sidecar.gateway.token_minter import Mint
from sidecar.http.request_head import RequestHead
from sidecar.jwt.claims import Claims
from sidecar.policy.granted import granted_scopes
from sidecar.policy.routes import Auth, Route

MAX_FORM_BYTES = 8 * 1024
FORM_S = 10.0  # for the client to send the form

# For logs, metrics and the form of refusals; no request matches it by path.
TOKEN_ROUTE = Route("/*", auth=Auth.API_KEY, name="(token)")


class TokenEndpoint:
    """The client credentials grant (RFC 6749 section 4.4), with the API key as the client's secret."""

    def __init__(self, api_keys: ApiKeys, mint: Mint, clock: Clock) -> None:
        self._api_keys = api_keys
        self._mint = mint
        self._clock = clock

    def answer(self, request: Request, body: bytes) -> Reply:
        """A token for the holder of the key. Raises Rejection with an `oauth_error` of RFC 6749 section 5.2."""
        if request.head.method != "POST":
            raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="POST")
        holder = request.claims = self._client(request.head)
        form = _parameters(body)
        if form.get("grant_type") != "client_credentials":
            raise _refused("The grant_type must be client_credentials.", "unsupported_grant_type")
        for name in ("resource", "audience"):  # `resource` is RFC 8707; some clients send `audience`
            if form.get(name, self._mint.audience) != self._mint.audience:
                raise _refused("This endpoint gives no tokens for this audience.", "invalid_target")
        minted = self._mint.minted(_narrowed(holder, form.get("scope")))
        document = {
            "access_token": minted.token,
            "token_type": "Bearer",
            "expires_in": int(minted.expires - self._clock.wall()),
        }
        return Reply(200, {"Cache-Control": "no-store", "Pragma": "no-cache"}, json.dumps(document).encode())

    def _client(self, head: RequestHead) -> Claims:
        """The holder of the request's key, sent by Basic (section 2.3.1) or in the header of `api_keys`. Raises Rejection."""
        credentials = head.special.get("authorization", [])
        if len(credentials) == 1 and credentials[0][:6].lower() == b"basic ":
            name, key = _basic(credentials[0][6:])
            claims = self._api_keys.holder(HashedKey.of(key.encode()))
            if name != claims.claims["sub"]:
                raise Rejection(Reason.API_KEY_UNKNOWN, "The API key does not belong to this client_id.")
            return claims
        return self._api_keys.authenticate(head)


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
    """The claims with only the requested scopes (section 3.3). Raises Rejection."""
    if not scope:
        return holder
    if not set(scope.split(" ")) <= granted_scopes(holder.claims):
        raise _refused("The API key lacks a requested scope.", "invalid_scope")
    return Claims(holder.issuer, holder.claims | {"scope": scope}, valid_until=holder.valid_until)


def _refused(details: str, oauth_error: str) -> Rejection:
    return Rejection(Reason.REQUEST_MALFORMED, details, oauth_error=oauth_error)
