"""Writes the sidecar's answers to clients; no other module writes status lines. Refusals are JSON with a stable code.

Each function returns the whole head, and the body if there is one.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from sidecar.common.errors import Rejection
from sidecar.http.response_head import ResponseHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Form(NamedTuple):
    """The form of refusals: `problem` is RFC 9457's JSON, `oauth` that of a token endpoint (RFC 6749 section 5.2).

    `plain` is one sentence instead of JSON. `detail` is "minimal", "code" or "full". `scheme` and `resource_metadata` (a URL,
    RFC 9728) go into challenges.
    """

    realm: str = "jwt-sidecar"
    problem: bool = False
    detail: str = "code"
    scheme: str = "Bearer"
    oauth: bool = False
    plain: bool = False
    resource_metadata: str | None = None


DEFAULT_FORM = Form()
# RFC 9110 section 15; Python's own table differs between versions.
PHRASES = {
    200: "OK", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 417: "Expectation Failed",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip


def challenge(rejection: Rejection, form: Form = DEFAULT_FORM) -> str | None:
    """The `WWW-Authenticate` value of RFC 6750 section 3; None if the refusal is not about the client's credentials.

    Without a token it has no error code (section 3.1).
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
    """The JSON of a refusal: `error` and `details` for people, `code` for programs; `where` is added when detail is full."""
    reason = rejection.reason
    fields: dict[str, str | int]
    details = rejection.details if form.detail != "minimal" else ""
    if form.plain:
        sentence = f"{reason.error}: {details}" if details else reason.error
        return f"{sentence} ({reason.code}, request {request_id})".encode()
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
    return json.dumps(fields).encode()


def connection_line(keep: bool, minor: int = 1) -> bytes:
    """The Connection header line of an answer to a client of HTTP/1.`minor` (RFC 9112 section 9.3), or empty."""
    if not keep:
        return b"Connection: close\r\n"
    return b"" if minor else b"Connection: keep-alive\r\n"


def refusal(
    rejection: Rejection,
    request_id: str,
    form: Form,
    more_lines: bytes = b"",
    *,
    head_only: bool = False,
    where: Mapping[str, str] | None = None,
) -> bytes:
    """The answer to a refused request.

    `more_lines` are the lines of `connection_line` and of CORS; `head_only` is for HEAD.
    """
    if where is not None and form.detail == "full":
        head, rest, _, _ = _refusal(rejection, form)
        content = body(rejection, request_id, form, where)
    else:
        key = (
            rejection.reason, rejection.details, rejection.retry_after_s, rejection.scope, rejection.allow,
            rejection.oauth_error, form,
        )  # fmt: skip
        made = _made.get(key)
        if made is None:
            if len(_made) >= MAX_REFUSALS:
                _made.clear()
            made = _made[key] = _refusal(rejection, form)
        head, rest, before, after = made
        content = b"%b%b%b" % (before, request_id.encode(), after)
    head = b"%b%d\r\nX-Request-Id: %b\r\n%b%b\r\n" % (head, len(content), request_id.encode(), rest, more_lines)
    return head if head_only else head + content


MAX_REFUSALS = 1024  # remembered answers: some sentences hold seconds, so there are many
_HOLE = "\0"  # the place of the request id, whose characters need no escapes in JSON
_made: dict[tuple[object, ...], tuple[bytes, bytes, bytes, bytes]] = {}


def _content_type(form: Form) -> str:
    if form.plain:
        return "text/plain; charset=utf-8"
    return "application/problem+json" if form.problem and not form.oauth else "application/json"


def _refusal(rejection: Rejection, form: Form) -> tuple[bytes, bytes, bytes, bytes]:
    """The parts of a refusal, made once: head up to the length, head after the id; body before the id, body after it."""
    reason = rejection.reason
    lines = [
        f"HTTP/1.1 {reason.status} {PHRASES[reason.status]}",
        f"Content-Type: {_content_type(form)}",
        "Cache-Control: no-store",
        "X-JWT-Sidecar: rejected",
        "Content-Length: ",
    ]
    rest = []
    if (value := challenge(rejection, form)) is not None:
        rest.append(f"WWW-Authenticate: {value}\r\n")
    if rejection.retry_after_s is not None:
        rest.append(f"Retry-After: {max(1, round(rejection.retry_after_s))}\r\n")
    if rejection.allow is not None:
        rest.append(f"Allow: {rejection.allow}\r\n")
    hole = _HOLE if form.plain else json.dumps(_HOLE)[1:-1]
    before, _, after = body(rejection, _HOLE, form).partition(hole.encode())
    return "\r\n".join(lines).encode("ascii"), "".join(rest).encode("ascii"), before, after


def local(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    mark: str,
    request_id: str,
    connection: bytes,
    *,
    head_only: bool,
) -> bytes:
    """An answer of the sidecar that is no refusal; `mark` is the value of X-JWT-Sidecar."""
    lines = [f"HTTP/1.1 {status} {PHRASES[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    if status not in (204, 304):
        lines += ("Content-Type: application/json", f"Content-Length: {len(content)}")
    lines += (f"X-JWT-Sidecar: {mark}", f"X-Request-Id: {request_id}", "")
    head = "\r\n".join(lines).encode() + connection + b"\r\n"
    return head if head_only else head + content


def accepted(identity: bytes, request_id: str, connection: bytes) -> bytes:
    """The answer to a front proxy for an accepted request: the lines of the identity headers, and no body."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n%bX-Request-Id: %b\r\n%b\r\n" % (
        identity,
        request_id.encode(),
        connection,
    )


def relayed(head: ResponseHead, framing: bytes, id_line: bytes, connection: bytes) -> bytes:
    """The head of a backend's answer for the client; `framing` is its Content-Length or Transfer-Encoding line, or empty.

    `id_line` is the line of the request id, used if the backend's answer has none.
    """
    return b"%b%b%b%b\r\n" % (head.lines, framing, head.id_line or id_line, connection)


def interim(head: ResponseHead) -> bytes:
    """A backend's 1xx answer for the client."""
    return head.lines + b"\r\n"


def switching(head: ResponseHead, protocol: bytes, subprotocol: bytes = b"") -> bytes:
    """A backend's 101 for the client. `subprotocol` is added if it is not empty and the backend names none."""
    lines = head.lines
    if subprotocol and b"\r\nsec-websocket-protocol:" not in lines.lower():
        lines = b"%bSec-WebSocket-Protocol: %b\r\n" % (lines, subprotocol)
    return b"%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (lines, protocol)
