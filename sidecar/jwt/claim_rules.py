"""The rules for the claims of one issuer's tokens."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claim_checks import (
    Audience,
    Lifetime,
    NotExpired,
    Past,
    RejectedClaims,
    RequiredClaims,
    TextNames,
    TrustedSubject,
    Unbound,
    expired,
)
from sidecar.jwt.claims import Path
from sidecar.jwt.examination import Check
from sidecar.jwt.subjects import Subjects


class ClaimCheck(Check, Protocol):
    """A check of verified claims."""

    def judge(self, claims: dict[str, Any], now: float) -> None:
        """Raises Rejection."""


class ClaimRules:
    """The rules for one issuer's claims: RFC 7519 section 4.1, RFC 8725 section 3.9, and the issuer's configuration.

    `audiences` None switches the audience check off, `subjects` None the check of `sub`. `clock_skew_s` applies to `exp`, `nbf`
    and `iat` alike. `checks` are the configured checks in order (jwt/claim_checks.py).
    """

    def __init__(
        self,
        audiences: Collection[str] | None,
        *,
        all_audiences: bool = False,
        audience_claims: Sequence[str] = ("aud",),
        clock_skew_s: float = 60.0,
        require_exp: bool = True,
        max_lifetime_s: float | None = None,
        required: Sequence[Path] = (),
        rejected: Sequence[Path] = (),
        subjects: Subjects | None = None,
        reject_bound: bool = True,
        lenient: Collection[str] = (),
    ) -> None:
        self.clock_skew_s = clock_skew_s
        self._lenient = tuple(lenient)
        not_before = "The token is not valid for another {}."
        issued = "The token says it was issued {} from now."
        checks: list[ClaimCheck] = [
            NotExpired(clock_skew_s, required=require_exp),
            Past("nbf", clock_skew_s, Reason.TOKEN_NOT_YET_VALID, not_before),
            Past("iat", clock_skew_s, Reason.TOKEN_ISSUED_IN_FUTURE, issued),
        ]
        if max_lifetime_s is not None:
            checks.append(Lifetime(max_lifetime_s, clock_skew_s))
        if audiences is not None:
            checks.append(Audience(audiences, audience_claims, every=all_audiences))
        checks.append(TextNames(lenient))
        if required:
            checks.append(RequiredClaims(required))
        if rejected:
            checks.append(RejectedClaims(rejected))
        if subjects is not None:
            checks.append(TrustedSubject(subjects))
        if reject_bound:
            checks.append(Unbound())
        self.checks = tuple(checks)

    def check(self, claims: dict[str, Any], now: float, begun: list[Check] | None = None) -> tuple[float, float]:
        """Check verified claims. Returns (valid_from, valid_until), skew included. Raises Rejection. The caller has checked
        `iss`.

        Each check is added to `begun` when it begins. A number in a claim of `lenient` becomes text.
        """
        for name in self._lenient:
            if type(claims.get(name)) is int:  # bool is an int to Python
                claims[name] = str(claims[name])
        for check in self.checks:
            if begun is not None:
                begun.append(check)
            check.judge(claims, now)
        # Numbers or missing: the checks of exp, nbf and iat are done.
        starts = max(claims.get("nbf", 0.0), claims.get("iat", 0.0))
        return starts - self.clock_skew_s, self.ends(claims)

    def ends(self, claims: dict[str, Any]) -> float:
        """The Unix time at which a token with these claims expires, skew included. The caller has checked `exp`."""
        return float(claims.get("exp", float("inf")) + self.clock_skew_s)

    def expired(self, valid_until: float, now: float) -> Rejection:
        """The refusal of a token that was valid until `valid_until`, skew included."""
        return expired(now - (valid_until - self.clock_skew_s))
