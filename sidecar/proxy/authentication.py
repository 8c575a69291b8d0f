"""Authenticates requests: checks the token or API key by the rules of the route, and renders the identity headers."""

from contextlib import suppress

from sidecar.common.errors import Reason, Rejection
from sidecar.gateway.api_keys import ApiKeys
from sidecar.jwt.claims import Claims
from sidecar.jwt.jwks.shared_fetch import KeysAwaited
from sidecar.jwt.token_cache import digest
from sidecar.jwt.token_extractor import TokenSources
from sidecar.jwt.verifier import Verifier
from sidecar.policy import report_mode
from sidecar.policy.identity_headers import ANONYMOUS, IdentityHeaders
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.exchange import Exchange


class Authentication:
    """Extracts, verifies and authorizes. `identity` renders the identity headers."""

    def __init__(
        self, tokens: TokenSources, verifier: Verifier, api_keys: ApiKeys | None, identity: IdentityHeaders
    ) -> None:
        self.verifier = verifier
        self._tokens = tokens
        self._api_keys = api_keys
        self._identity = identity

    def authenticate(self, exchange: Exchange, route: Route, awaited: KeysAwaited | None = None) -> bytes:
        """The identity headers for this request on this route. Raises Rejection, and KeysAwaited unless `awaited` is given."""
        try:
            return self.judge(exchange, route, awaited)
        except Rejection as rejection:
            if not route.report:
                raise
            return self.let_in(exchange, rejection)

    def judge(self, exchange: Exchange, route: Route, awaited: KeysAwaited | None = None) -> bytes:
        """`authenticate`, also for a route in report mode."""
        if route.auth is Auth.NONE:
            return ANONYMOUS
        if route.auth is Auth.DENY:
            raise Rejection(Reason.ROUTE_DENIED)
        if route.preflight and exchange.is_preflight:
            return ANONYMOUS
        if route.auth is Auth.API_KEY:
            assert self._api_keys is not None
            claims = self._api_keys.authenticate(exchange.head)
        else:
            token_digest = exchange.head.token_digest
            verified = None if token_digest is None else self.verifier.known(token_digest)
            if verified is None:
                verified = self._verified(exchange, awaited)
            if verified is None:
                if route.auth is Auth.OPTIONAL:
                    return ANONYMOUS
                raise Rejection(Reason.TOKEN_MISSING)
            claims = verified
        exchange.claims = claims
        route.policy.authorize(claims)
        return self._identity.lines(claims)

    def let_in(self, exchange: Exchange, rejection: Rejection) -> bytes:
        """The identity headers of a request that is accepted in report mode. Raises refusals that report mode keeps."""
        reason = rejection.reason
        if reason not in report_mode.COVERED:
            raise rejection
        exchange.refused(rejection, reported=True)
        verified = b""
        if exchange.claims is not None and reason is not Reason.CLAIMS_TOO_LARGE:
            with suppress(Rejection):  # the headers are too large: report the first reason
                verified = self._identity.lines(exchange.claims)
        return report_mode.identity_lines(reason, verified)

    def _verified(self, exchange: Exchange, awaited: KeysAwaited | None) -> Claims | None:
        """The verified claims of the request's token, None without one. Raises Rejection and KeysAwaited."""
        head = exchange.head
        token = self._tokens.take(head.special, exchange.target)
        if token is None:
            return None
        if exchange.examination is not None:
            return self.verifier.verify(token, exchange.examination, awaited)
        token_digest = head.token_digest
        if token_digest is None:
            token_digest = digest(token)
            if self._tokens.only_in_headers:
                head.token_digest = token_digest
            known = self.verifier.known(token_digest)
            if known is not None:
                return known
        return self.verifier.verify(token, None, awaited, token_digest)
