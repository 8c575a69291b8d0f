"""The assertion: a short-lived token that the sidecar signs, as proof of the identity headers for the backend."""

from collections.abc import Mapping

from sidecar.gateway.token_minter import Mint
from sidecar.jwt.claims import Claims, Path
from sidecar.policy.identity_headers import HeaderLimits, IdentityHeader, IdentityHeaders, too_large


class AssertedIdentity(IdentityHeaders):
    """Identity headers followed by the assertion in the header `header`."""

    def __init__(
        self,
        mapping: Mapping[str, Path | IdentityHeader],
        claims_header: str | None,
        encoding: str,
        limits: HeaderLimits,
        header: str,
        mint: Mint,
    ) -> None:
        super().__init__(mapping, claims_header, encoding, limits)
        self._header = header
        self._mint = mint

    def lines(self, claims: Claims) -> bytes:
        """The identity headers and the assertion. The limits of IdentityHeaders include the assertion."""
        lines = super().lines(claims) + self._mint.line(claims)
        if len(lines) > self._limits.together:
            raise too_large(self._header, len(lines))
        return lines
