"""A request as plain values, for logs, metrics and traces."""

import re
from typing import Final

from sidecar.common.errors import Reason, Rejection
from sidecar.common.masking import SHORTEST, without_tokens
from sidecar.jwt.claims import Claims
from sidecar.policy.routes import Route

# The form of a `traceparent`, with a 0 for each hexadecimal digit.
_ANY_DIGIT: Final = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_TRACEPARENT: Final = b"00-%b-%b-00" % (_NO_TRACE, _NO_SPAN)
_LATER_FIELDS: Final = re.compile(rb"-[!-~]*")

NO_ROUTE: Final = "(none)"  # the route of a request that was refused before it was matched


class Record:
    """A request and its result.

    - `peer`: the address of the peer of the connection. `scheme`: http or https. `minor`: the second 1 of HTTP/1.1.
    - `traceparent`: the value of exactly one such header, else None. `tracestate`: the values of all its lines.
    - `spans`: the spans of tracing. `span_trace_id`: the id of their trace.
    - `started`, `sent` (to the backend) and `answered` (by it): monotonic times in seconds, 0 before the event.
    - `status`: of the answer, 0 before it has begun. `broken_off`: the backend ended the connection within the answer.
    - `rejected`: the reason of the refusal, with its sentence in `details`. With `reported` the request was accepted in report
      mode. `cause` tells operators which rule the message breaks. `expected` and `found` are for `explain` and the admin page,
      not for logs.
    - `token_issuer` and `token_kid`: of a refused token, as far as they are known; see Rejection.
    """

    # Most requests need none of these.
    answered = 0.0
    broken_off = False
    cause = ""
    claims: Claims | None = None
    details = ""
    expected = ""
    found = ""
    rejected: Reason | None = None
    reported = False
    route: Route | None = None
    sent = 0.0
    span_trace_id: str | None = None
    spans: object = None
    status = 0
    token_issuer: str | None = None
    token_kid: str | None = None
    traceparent: bytes | None = None
    tracestate: bytes | None = None

    def __init__(
        self, request_id: str, method: str, target: str, host: bytes, minor: int, peer: str, scheme: str, started: float
    ) -> None:
        self.id = request_id
        self.method = method
        self.target = target
        self.host = host
        self.minor = minor
        self.peer = peer
        self.scheme = scheme
        self.started = started

    def refused(self, rejection: Rejection, *, reported: bool = False) -> None:
        """Copy the values of a rejection. The exception itself would keep its frames, which hold this record, alive."""
        self.rejected = rejection.reason
        self.details = rejection.details
        self.cause = rejection.cause
        self.expected = rejection.expected
        self.found = rejection.found
        self.token_issuer = rejection.issuer
        self.token_kid = rejection.kid
        self.reported = reported

    @property
    def result(self) -> str:
        """The result: allow, deny, error (a 5xx), report (accepted in report mode).

        Or left: the client left before the answer began.
        """
        if self.rejected is None:
            return "allow" if self.status else "left"
        return "report" if self.reported else self.rejected.result

    @property
    def path_without_tokens(self) -> str:
        """The path without the query, with tokens masked. Other characters are as they came."""
        return without_tokens(self.target.partition("?")[0])

    @property
    def path(self) -> str:
        """The path for logs: without the query, with tokens masked, on one line."""
        path = self.path_without_tokens
        return path if path.isprintable() else path.encode("ascii", "backslashreplace").decode()

    @property
    def method_shown(self) -> str:
        """The method for logs, with tokens masked: a client may send any method."""
        return self.method if len(self.method) < SHORTEST else without_tokens(self.method)

    @property
    def host_shown(self) -> str:
        """The Host for logs: with tokens masked, on one line."""
        return without_tokens(self.host.decode("ascii", "backslashreplace"))

    @property
    def trace_id(self) -> str | None:
        """The id of the sidecar's own trace, or of the client's by one valid `traceparent`; None without either."""
        if self.span_trace_id is not None:
            return self.span_trace_id
        return None if self.traceparent is None else trace_id_of(self.traceparent)

    @property
    def issuer(self) -> str:
        """The name of the issuer of the verified token, "none" without one."""
        return self.token_issuer or "none" if self.claims is None else self.claims.issuer

    @property
    def authorized(self) -> bool:
        """Were the claims verified and accepted by the route?"""
        return self.claims is not None and self.rejected is None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.method} {self.route!r}>"


def trace_id_of(traceparent: bytes) -> str | None:
    """The trace id of a valid `traceparent` (W3C Trace Context section 3.2), else None. Later versions may add fields."""
    version, trace, span = traceparent[:2], traceparent[3:35], traceparent[36:52]
    if traceparent[:55].translate(_ANY_DIGIT) != _TRACEPARENT or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    more = traceparent[55:]
    if version == b"ff" or (more and (version == b"00" or _LATER_FIELDS.fullmatch(more) is None)):
        return None
    return trace.decode()
