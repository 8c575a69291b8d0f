"""The signed assertion: a short token of our own beside the identity headers, for a backend that wants proof."""

from collections.abc import Mapping

from sidecar.gateway.token_minter import Mint
from sidecar.jwt.claims import Claims, Path
from sidecar.policy.identity_headers import HeaderLimits, IdentityHeader, IdentityHeaders, too_large


class AssertedIdentity(IdentityHeaders):
    """Identity headers and the assertion behind them, in the header of this name."""

    def __init__(
        self,
        mapping: Mapping[str, Path | IdentityHeader],
        claims_header: str | None,
        encoding: str,
        header: str,
        mint: Mint,
        limits: HeaderLimits = HeaderLimits(),  # noqa: B008  # it is immutable
    ) -> None:
        super().__init__(mapping, claims_header, encoding, limits)
        self._header = header
        self._mint = mint

    def lines(self, claims: Claims) -> bytes:
        """As those of IdentityHeaders; the assertion counts with them."""
        lines = super().lines(claims) + self._mint.line(claims)
        if len(lines) > self._limits.together:
            raise too_large(self._header, len(lines))
        return lines
