"""Why a request is refused.

Every refusal is a `Reason`; it is raised as a `Rejection` where the rule is broken, and answered in one place. The codes are a
contract: they are only ever added to.
"""

from enum import Enum
from traceback import extract_tb


class Reason(Enum):
    """A refusal: its stable code, the HTTP status, the OAuth error code of RFC 6750 section 3.1 (if any) and its words."""

    TOKEN_MISSING = ("token_missing", 401, None, "No token provided", "")
    TOKEN_AMBIGUOUS = (
        "token_ambiguous", 400, "invalid_request", "Invalid request", "The request carries more than one token."
    )  # fmt: skip
    TOKEN_MALFORMED = ("token_malformed", 401, "invalid_token", "Invalid token", "The token is not a well-formed JWT.")
    TOKEN_TOO_LARGE = (
        "token_too_large",
        401,
        "invalid_token",
        "Invalid token",
        "The token is larger than is accepted.",
    )
    ALGORITHM_NOT_ALLOWED = (
        "algorithm_not_allowed", 401, "invalid_token", "Invalid token", "The token's algorithm is not allowed."
    )  # fmt: skip
    ISSUER_UNKNOWN = (
        "issuer_unknown",
        401,
        "invalid_token",
        "Invalid token",
        "The token's issuer is not trusted here.",
    )
    KEY_UNKNOWN = (
        "key_unknown", 401, "invalid_token", "Invalid token", "The issuer publishes no key that fits this token."
    )  # fmt: skip
    SIGNATURE_INVALID = ("signature_invalid", 401, "invalid_token", "Invalid token", "The signature does not match.")
    TOKEN_EXPIRED = ("token_expired", 401, "invalid_token", "Invalid token", "The token has expired.")
    TOKEN_NOT_YET_VALID = ("token_not_yet_valid", 401, "invalid_token", "Invalid token", "The token is not valid yet.")
    TOKEN_ISSUED_IN_FUTURE = (
        "token_issued_in_future", 401, "invalid_token", "Invalid token", "The token says it was issued in the future."
    )  # fmt: skip
    AUDIENCE_MISMATCH = (
        "audience_mismatch", 401, "invalid_token", "Invalid token", "The token is meant for another audience."
    )  # fmt: skip
    CLAIM_MISSING = (
        "claim_missing",
        401,
        "invalid_token",
        "Invalid token",
        "The token lacks a claim that is required.",
    )
    CLAIM_INVALID = ("claim_invalid", 401, "invalid_token", "Invalid token", "A claim of the token has a wrong form.")
    TOKEN_REVOKED = ("token_revoked", 401, "invalid_token", "Invalid token", "The token has been revoked.")
    SCOPE_INSUFFICIENT = (
        "scope_insufficient", 403, "insufficient_scope", "Insufficient scope", "The token lacks a scope this needs."
    )  # fmt: skip
    CLAIM_MISMATCH = (
        "claim_mismatch", 403, "insufficient_scope", "Forbidden", "The token's claims do not allow this request."
    )  # fmt: skip
    CLAIMS_TOO_LARGE = (
        "claims_too_large", 403, None, "Forbidden", "The token's claims do not fit into the headers for the backend."
    )  # fmt: skip
    JWKS_UNAVAILABLE = (
        "jwks_unavailable", 503, None, "Keys unavailable", "The issuer's keys cannot be had at the moment. Try again."
    )  # fmt: skip
    PATH_AMBIGUOUS = (
        "path_ambiguous", 400, None, "Invalid request", "The path could be read as more than one resource."
    )  # fmt: skip
    ROUTE_NOT_FOUND = ("route_not_found", 404, None, "Not found", "Nothing is served here.")
    ROUTE_DENIED = ("route_denied", 403, None, "Forbidden", "This path is closed.")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, None, "Method not allowed", "This method is not served here.")
    REQUEST_MALFORMED = ("request_malformed", 400, None, "Invalid request", "The request is not well-formed HTTP/1.1.")
    HEADERS_TOO_LARGE = (
        "headers_too_large", 431, None, "Headers too large", "The request's target or headers are larger than accepted."
    )  # fmt: skip
    BODY_TOO_LARGE = ("body_too_large", 413, None, "Body too large", "The request's body is larger than accepted.")
    UPSTREAM_UNREACHABLE = (
        "upstream_unreachable", 502, None, "Bad gateway", "The service behind this proxy cannot be reached."
    )  # fmt: skip
    UPSTREAM_TIMEOUT = (
        "upstream_timeout", 504, None, "Gateway timeout", "The service behind this proxy did not answer in time."
    )  # fmt: skip
    UPSTREAM_INVALID = (
        "upstream_invalid", 502, None, "Bad gateway", "The service behind this proxy gave an invalid answer."
    )  # fmt: skip
    OVERLOADED = ("overloaded", 503, None, "Overloaded", "Too many requests are in flight. Try again.")
    INTERNAL_ERROR = (
        "internal_error",
        500,
        None,
        "Internal error",
        "The proxy failed. The request id names the log line.",
    )
    EXPECTATION_FAILED = (
        "expectation_failed", 417, None, "Expectation failed", "Only 100-continue can be expected here."
    )  # fmt: skip
    API_KEY_UNKNOWN = ("api_key_unknown", 401, "invalid_token", "Invalid token", "The API key is not known here.")
    API_KEY_EXPIRED = ("api_key_expired", 401, "invalid_token", "Invalid token", "The API key has expired.")
    API_KEY_DISABLED = ("api_key_disabled", 401, "invalid_token", "Invalid token", "The API key has been disabled.")
    SIGNING_UNAVAILABLE = (
        "signing_unavailable",
        503,
        None,
        "Signing unavailable",
        "No key can sign for the service behind this proxy at the moment. Try again.",
    )

    __hash__ = object.__hash__  # each is one object; Enum's own is a call in Python

    def __init__(self, code: str, status: int, oauth_error: str | None, error: str, details: str) -> None:
        self.code = code
        self.status = status
        self.oauth_error = oauth_error
        self.error = error
        self.details = details

    @property
    def result(self) -> str:
        """Whose fault it is: "deny" for what came, "error" for a 5xx."""
        return "deny" if self.status < 500 else "error"


class Rejection(Exception):
    """A request refused for `reason`.

    `details` replaces the reason's sentence where more can be said; it never holds a part of the token, an unverified
    claim or a library's text. `retry_after_s` and `scope` go into the answer's headers; `allow` names the methods of a 405.
    `oauth_error` is what a token endpoint calls it (RFC 6749 section 5.2). `cause` is a sentence for operators: which rule the
    message breaks.

    Of the token: `issuer` is the name of its issuer once its signature has held, `kid` what it calls its key once that was looked
    up, escaped and bounded. `expected` and `found` are for operators who ask, and never for a log: what is found may be a claim
    that nobody has verified.
    """

    issuer: str | None = None
    kid: str | None = None
    expected = ""
    found = ""

    def __init__(
        self,
        reason: Reason,
        details: str | None = None,
        *,
        retry_after_s: float | None = None,
        scope: str | None = None,
        allow: str | None = None,
        oauth_error: str | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.details = reason.details if details is None else details
        self.retry_after_s = retry_after_s
        self.scope = scope
        self.allow = allow
        self.oauth_error = oauth_error
        self.cause = cause


class Unusable(Exception):
    """A file, or what it holds, cannot be used; the text says which and why, and may be shown to the operator."""


def fault(error: BaseException) -> str:
    """Type and place of a failure that nobody thought of, for a line of the log. Its own text may quote what was read."""
    at = extract_tb(error.__traceback__)[-1]
    return f"type={type(error).__name__} at={at.filename}:{at.lineno}"


def unforeseen(error: Exception) -> str:
    """What is said of something that failed in a way that nobody thought of. Its own text may quote what was read."""
    return (
        f"cannot be used, by a fault of the sidecar ({type(error).__name__}); take back the last change, and report it"
    )
