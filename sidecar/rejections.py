"""Why a request is refused, and the answer that says so.

Every refusal is a `Reason`; it is raised as a `Rejection` where the rule is broken and written by `answer` in one place.
The codes are a contract: they are only ever added to.
"""

import json
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple


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
    `oauth_error` is what a token endpoint calls it (RFC 6749 section 5.2).
    """

    def __init__(
        self,
        reason: Reason,
        details: str | None = None,
        *,
        retry_after_s: float | None = None,
        scope: str | None = None,
        allow: str | None = None,
        oauth_error: str | None = None,
    ) -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.details = reason.details if details is None else details
        self.retry_after_s = retry_after_s
        self.scope = scope
        self.allow = allow
        self.oauth_error = oauth_error


class Form(NamedTuple):
    """How answers look: `problem` is RFC 9457's JSON, `oauth` that of a token endpoint (RFC 6749 section 5.2).

    `detail` is "minimal", "code" or "full", `scheme` that of challenges, `resource_metadata` the URL that they name (RFC 9728).
    """

    realm: str = "jwt-sidecar"
    problem: bool = False
    detail: str = "code"
    scheme: str = "Bearer"
    oauth: bool = False
    resource_metadata: str | None = None


DEFAULT_FORM = Form()
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_quoted = json.encoder.encode_basestring_ascii


def challenge(rejection: Rejection, form: Form = DEFAULT_FORM) -> str | None:
    """The `WWW-Authenticate` value of RFC 6750 section 3, or None where the client's credentials are not the matter.

    Bare when no token came: section 3.1 says an error code is not to be given then.
    """
    reason = rejection.reason
    value = f'{form.scheme} realm="{form.realm}"'
    if form.resource_metadata is not None and form.scheme == "Bearer":
        value += f', resource_metadata="{form.resource_metadata}"'
    if reason.oauth_error is None or form.oauth:
        return value if reason.status == 401 else None
    value += f', error="{reason.oauth_error}"'
    if rejection.details and form.detail != "minimal":
        value += f', error_description="{rejection.details}"'
    if rejection.scope:
        value += f', scope="{rejection.scope}"'
    return value


def body(
    rejection: Rejection, request_id: str, form: Form = DEFAULT_FORM, where: Mapping[str, str] | None = None
) -> bytes:
    """The JSON of an answer: `error` and `details` for people, `code` for programs; `where` is added when detail is full."""
    reason = rejection.reason
    fields: dict[str, str | int]
    details = rejection.details if form.detail != "minimal" else ""
    if form.oauth:
        fields = {"error": rejection.oauth_error or ("invalid_client" if reason.status == 401 else "invalid_request")}
        if details:
            fields["error_description"] = details
    elif form.problem:
        fields = {"type": f"urn:jwt-sidecar:{reason.code}", "title": reason.error, "status": reason.status}
        if details:
            fields["detail"] = details
    else:
        fields = {"error": reason.error}
        if details:
            fields["details"] = details
    fields["code"] = reason.code
    fields["request_id"] = request_id
    if form.detail == "full" and where:
        fields |= where
    members = [f'"{name}": {_quoted(value) if isinstance(value, str) else value}' for name, value in fields.items()]
    return f"{{{', '.join(members)}}}".encode()  # what json.dumps says, in a third of the time


def answer(
    rejection: Rejection,
    request_id: str,
    form: Form,
    *,
    head_only: bool = False,
    close: bool = False,
    where: Mapping[str, str] | None = None,
) -> bytes:
    """The whole HTTP/1.1 answer as bytes. `head_only` for HEAD; `close` when the connection cannot be used again."""
    reason = rejection.reason
    content = body(rejection, request_id, form, where)
    lines = [
        f"HTTP/1.1 {reason.status} {_PHRASES[reason.status]}",
        f"Content-Type: application/{'problem+json' if form.problem and not form.oauth else 'json'}",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-JWT-Sidecar: rejected",
        f"X-Request-Id: {request_id}",
    ]
    if (value := challenge(rejection, form)) is not None:
        lines.append(f"WWW-Authenticate: {value}")
    if rejection.retry_after_s is not None:
        lines.append(f"Retry-After: {max(1, round(rejection.retry_after_s))}")
    if rejection.allow is not None:
        lines.append(f"Allow: {rejection.allow}")
    if close:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head if head_only else head + content
