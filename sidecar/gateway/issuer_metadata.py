"""The sidecar's own issuer on the proxy's listener, below the path of its URL: discovery document, key set, token endpoint.

Its pages have exact paths and come before any route. The first two are public: they hold public keys.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from sidecar.common.clock import Clock
from sidecar.common.watched_file import WatchedFile
from sidecar.gateway.api_keys import ApiKeys
from sidecar.gateway.key_ring import KeyRing
from sidecar.gateway.local_endpoints import Page, Reply, Request, cacheable
from sidecar.gateway.signing_key import key_set
from sidecar.gateway.token_endpoint import FORM_S, MAX_FORM_BYTES, TOKEN_ROUTE, TokenEndpoint
from sidecar.gateway.token_minter import Mint
from sidecar.policy.routes import Auth, Route

# For logs, metrics and the form of refusals; no request matches it by path.
PUBLIC_ROUTE = Route("/*", auth=Auth.NONE, name="(issuer)")


def key_set_url(issuer: str) -> str:
    """The default URL of an issuer's key set."""
    return f"{issuer.rstrip('/')}/.well-known/jwks.json"


def discovery(issuer: str, jwks_uri: str, algorithms: Iterable[str], **more: Any) -> dict[str, Any]:
    """The discovery document of an issuer (OpenID Connect Discovery 1.0 section 3), with the members that verifiers need."""
    return {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "id_token_signing_alg_values_supported": sorted(set(algorithms)),
        **more,
    }


class OwnIssuer:
    """The pages of an issuer. With `mint` there is a token endpoint, for the holders of `api_keys`."""

    def __init__(
        self,
        issuer: str,
        ring: WatchedFile[KeyRing],
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

    def _discovery(self, request: Request, _body: bytes) -> Reply:
        more: dict[str, Any] = {"response_types_supported": [], "subject_types_supported": ["public"]}
        if self._tokens is not None:
            more |= {
                "token_endpoint": f"{self.issuer.rstrip('/')}/token",
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        algorithms = [timed.key.alg for timed in self._ring.value.keys]
        return cacheable(request.head, discovery(self.issuer, key_set_url(self.issuer), algorithms, **more))

    def _jwks(self, request: Request, _body: bytes) -> Reply:
        return cacheable(request.head, key_set(self._ring.value.published(self._clock.wall())))
