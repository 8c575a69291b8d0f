"""What a token says once its signature has been verified, and whether that is acceptable at a given time."""

from collections.abc import Collection
from typing import Any

from sidecar.rejections import Reason, Rejection

LATEST_DATE = 253_402_300_799  # the end of the year 9999 (RFC 3339); a later NumericDate counts in milliseconds


class Claims:
    """The verified claims of one token. Never made from an unverified payload.

    `valid_from` and `valid_until` are Unix times with the issuer's clock skew already allowed for, so that a remembered
    token is judged by two comparisons. `payload_segment` is the verified payload exactly as it was signed, in base64url.
    `headers` holds the identity headers once they have been rendered for the upstream.
    """

    __slots__ = ("claims", "headers", "issuer", "payload_segment", "valid_from", "valid_until")

    def __init__(
        self,
        issuer: str,
        claims: dict[str, Any],
        payload_segment: bytes = b"",
        valid_from: float = float("-inf"),
        valid_until: float = float("inf"),
    ) -> None:
        self.issuer = issuer
        self.claims = claims
        self.payload_segment = payload_segment
        self.valid_from = valid_from
        self.valid_until = valid_until
        self.headers: bytes | None = None

    def __repr__(self) -> str:
        return f"<Claims of {self.issuer}: {', '.join(self.claims)}>"


class ClaimRules:
    """What one issuer's claims must be: RFC 7519 section 4.1, with RFC 8725 section 3.9's audience.

    `audiences` None switches the audience check off. `clock_skew_s` is allowed on `exp`, `nbf` and `iat` alike.
    """

    def __init__(
        self, audiences: Collection[str] | None, *, clock_skew_s: float = 60.0, require_exp: bool = True
    ) -> None:
        self.audiences = None if audiences is None else frozenset(audiences)
        self.clock_skew_s = clock_skew_s
        self.require_exp = require_exp

    def check(self, claims: dict[str, Any], now: float) -> tuple[float, float]:
        """Return (valid_from, valid_until), skew included. Raises Rejection; `iss` has chosen these rules already."""
        skew = self.clock_skew_s
        expires = _numeric_date(claims, "exp")
        if expires is None and self.require_exp:
            raise Rejection(Reason.CLAIM_MISSING, "The token has no exp claim.")
        not_before = _numeric_date(claims, "nbf")
        issued = _numeric_date(claims, "iat")
        if expires is not None and now >= expires + skew:  # at exp itself it is already expired: section 4.1.4
            raise Rejection(Reason.TOKEN_EXPIRED, f"The token expired {ago(now - expires)} ago.")
        if not_before is not None and now < not_before - skew:
            raise Rejection(Reason.TOKEN_NOT_YET_VALID, f"The token is not valid for another {ago(not_before - now)}.")
        if issued is not None and now < issued - skew:
            raise Rejection(
                Reason.TOKEN_ISSUED_IN_FUTURE, f"The token says it was issued {ago(issued - now)} from now."
            )
        self._check_audience(claims)
        return (
            max(not_before if not_before is not None else 0.0, issued if issued is not None else 0.0) - skew,
            float("inf") if expires is None else expires + skew,
        )

    def _check_audience(self, claims: dict[str, Any]) -> None:
        if self.audiences is None:
            return
        audience = claims.get("aud")
        if audience is None:
            raise Rejection(Reason.AUDIENCE_MISMATCH, "The token has no aud claim.")
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
            raise Rejection(Reason.AUDIENCE_MISMATCH, "The token's aud claim is neither a string nor a list of strings.")
        if self.audiences.isdisjoint(named):
            raise Rejection(Reason.AUDIENCE_MISMATCH)


def _numeric_date(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), or None when the claim is absent. Rejection when it is anything but a number."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float):  # bool is an int to Python; text is not a date whatever int() makes of it
        raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a number.")
    if not -LATEST_DATE <= value <= LATEST_DATE:
        raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a time in seconds.")
    return float(value)


def ago(seconds: float) -> str:
    """A span for people: `12 s`, `5 min`, `3 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
