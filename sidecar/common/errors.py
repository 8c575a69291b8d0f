"""The reasons for which the sidecar refuses a request.

Every refusal is a `Reason`. The code that finds a broken rule raises it as a `Rejection`, and one place answers it. Codes are a
contract: new ones may come, and none changes or goes.
"""

from enum import Enum
from traceback import extract_tb


class Reason(Enum):
    """A refusal: its stable code, HTTP status, OAuth error code of RFC 6750 section 3.1 (if any), `error` and `details`."""

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
        "The token is larger than 16 KiB.",
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
        "key_unknown", 401, "invalid_token", "Invalid token", "The issuer publishes no key for this token."
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
        "The token lacks a required claim.",
    )
    CLAIM_INVALID = ("claim_invalid", 401, "invalid_token", "Invalid token", "A claim of the token has a wrong form.")
    TOKEN_REVOKED = ("token_revoked", 401, "invalid_token", "Invalid token", "The token has been revoked.")
    SCOPE_INSUFFICIENT = (
        "scope_insufficient", 403, "insufficient_scope", "Insufficient scope", "The token lacks a required scope."
    )  # fmt: skip
    CLAIM_MISMATCH = (
        "claim_mismatch", 403, "insufficient_scope", "Forbidden", "The token's claims do not allow this request."
    )  # fmt: skip
    CLAIMS_TOO_LARGE = (
        "claims_too_large", 403, None, "Forbidden", "The token's claims are too large for the headers to the backend."
    )  # fmt: skip
    JWKS_UNAVAILABLE = (
        "jwks_unavailable", 503, None, "Keys unavailable", "The issuer's keys are not available at the moment. Try again."
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
        "expectation_failed", 417, None, "Expectation failed", "The only supported expectation is 100-continue."
    )  # fmt: skip
    API_KEY_UNKNOWN = ("api_key_unknown", 401, "invalid_token", "Invalid token", "The API key is unknown.")
    API_KEY_EXPIRED = ("api_key_expired", 401, "invalid_token", "Invalid token", "The API key has expired.")
    API_KEY_DISABLED = ("api_key_disabled", 401, "invalid_token", "Invalid token", "The API key has been disabled.")
    SIGNING_UNAVAILABLE = (
        "signing_unavailable",
        503,
        None,
        "Signing unavailable",
        "No signing key is available for the service behind this proxy at the moment. Try again.",
    )

    __hash__ = object.__hash__  # each member is one object; Enum's own hash is slower

    def __init__(self, code: str, status: int, oauth_error: str | None, error: str, details: str) -> None:
        self.code = code
        self.status = status
        self.oauth_error = oauth_error
        self.error = error
        self.details = details

    @property
    def result(self) -> str:
        """The result in metrics and logs: "deny", or "error" for a 5xx, which is not the client's fault."""
        return "deny" if self.status < 500 else "error"


class Rejection(Exception):
    """A request refused for `reason`.

    `details` is a more precise sentence than the reason's own. It never holds a part of the token, an unverified claim or a
    library's text. `retry_after_s` (1 for OVERLOADED) and `scope` go into the answer's headers; `allow` names the methods of a
    405. `oauth_error` is the error code of a token endpoint (RFC 6749 section 5.2). `cause` tells operators which rule the
    message breaks.

    About the token: `issuer` is the name of its issuer, set after the signature was verified. `kid` is its key id, escaped and
    bounded, set after the key was looked up. `expected` and `found` are for `explain` and the admin page, never for a log:
    `found` may be an unverified claim.
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
        self.retry_after_s = 1.0 if reason is Reason.OVERLOADED else retry_after_s
        self.scope = scope
        self.allow = allow
        self.oauth_error = oauth_error
        self.cause = cause


class Unusable(Exception):
    """A file or its content cannot be used. The text names the file and the reason, and may be shown to the operator."""


def fault(error: BaseException) -> str:
    """Type and place of an unexpected exception, for a log line. Its own text may quote a client's bytes."""
    at = extract_tb(error.__traceback__)[-1]
    return f"type={type(error).__name__} at={at.filename}:{at.lineno}"


def unforeseen(error: Exception) -> str:
    """The message for an unexpected exception, without its own text: that may quote the content of a file."""
    return (
        f"cannot be used: the sidecar has a bug here ({type(error).__name__}); undo the last change and report the bug"
    )
