"""May these verified claims use this route?"""

from collections.abc import Collection
from typing import Any

from sidecar.claims import Claims
from sidecar.rejections import Reason, Rejection

SCOPE_CLAIMS = ("scope", "scp", "scopes")  # RFC 8693 section 4.2, and the names other issuers use


class Policy:
    """What a route demands of a token: one of these issuers (None: any that is configured), and all of these scopes."""

    def __init__(self, issuers: Collection[str] | None = None, scopes: Collection[str] = ()) -> None:
        self._issuers = None if issuers is None else frozenset(issuers)
        self._scopes = frozenset(scopes)
        self._scope_parameter = " ".join(scopes)
        self._open = self._issuers is None and not self._scopes

    def authorize(self, claims: Claims) -> None:
        """Return when the claims are enough. Raises Rejection."""
        if self._open:
            return
        if self._issuers is not None and claims.issuer not in self._issuers:
            raise Rejection(Reason.ISSUER_UNKNOWN, "The token's issuer is not trusted for this path.")
        if not self._scopes <= granted_scopes(claims.claims):
            raise Rejection(Reason.SCOPE_INSUFFICIENT, scope=self._scope_parameter)


def granted_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes of a token, from the first of SCOPE_CLAIMS that it has: a string of words, or a list of strings."""
    for name in SCOPE_CLAIMS:
        value = claims.get(name)
        if isinstance(value, str):
            return frozenset(value.split(" "))
        if isinstance(value, list):
            return frozenset(scope for scope in value if isinstance(scope, str))
    return frozenset()
