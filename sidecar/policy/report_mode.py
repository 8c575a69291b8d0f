"""Report mode: a request that a route would refuse is accepted, and the backend gets the reason."""

from sidecar.common.errors import Reason
from sidecar.policy.identity_headers import VERIFIED

COVERED = frozenset(
    {
        Reason.TOKEN_MISSING,
        Reason.TOKEN_MALFORMED,
        Reason.ALGORITHM_NOT_ALLOWED,
        Reason.ISSUER_UNKNOWN,
        Reason.KEY_UNKNOWN,
        Reason.SIGNATURE_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.TOKEN_ISSUED_IN_FUTURE,
        Reason.AUDIENCE_MISMATCH,
        Reason.CLAIM_MISSING,
        Reason.CLAIM_INVALID,
        Reason.TOKEN_REVOKED,
        Reason.SCOPE_INSUFFICIENT,
        Reason.CLAIM_MISMATCH,
        Reason.CLAIMS_TOO_LARGE,
        Reason.JWKS_UNAVAILABLE,
        Reason.API_KEY_UNKNOWN,
        Reason.API_KEY_EXPIRED,
        Reason.API_KEY_DISABLED,
    }
)
"""Refusals about the token and the rules for it. All others are about the request itself, and report mode keeps them."""

_LINES = {reason: b"X-JWT-Status: report\r\nX-JWT-Report: %b\r\n" % reason.code.encode() for reason in COVERED}


def identity_lines(reason: Reason, verified: bytes) -> bytes:
    """The identity headers of a request that is accepted despite `reason`; `verified` are the lines for verified claims."""
    return _LINES[reason] + verified.removeprefix(VERIFIED)
