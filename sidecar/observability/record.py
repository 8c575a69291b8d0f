"""One request as plain values, for logs, metrics and traces."""

import re

from sidecar.common.errors import Reason, Rejection
from sidecar.common.masking import SHORTEST, without_tokens
from sidecar.jwt.claims import Claims
from sidecar.policy.routes import Route

# W3C Trace Context section 3.2; of versions to come, what they have in common with this one.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?"
)


NO_ROUTE = "(none)"  # the route of a request that was refused before it met one


class Record:
    """What is known of a request, and what became of it.

    - `peer` is the address at the client's end of the connection, `scheme` http or https, `minor` the 1 of HTTP/1.1.
    - `traceparent` is what exactly one such header said, None otherwise; `tracestate` what all of its lines said.
    - `spans` are what tracing keeps here, with the id of their trace in `span_trace_id`.
    - `started`, `sent` (to the backend) and `answered` (by it) are monotonic times in seconds, 0 before they have come.
    - `status` is that of the answer, 0 before it has begun; `broken_off`: the backend hung up.
    - `rejected` is why the request was refused, with the sentence in `details`; or, with `reported`, why it would have been if
      its route did not only report. `cause` is for operators: which rule the message breaks. `expected` and `found` are for those
      who ask, not for logs.
    - `token_issuer` and `token_kid` are those of a refused token, as far as they are known: see Rejection.
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
        """Keep why it is refused. Not the rejection itself: it holds the frames that it was raised in, and they hold us."""
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
        """What became of it: allow, deny, error (a 5xx), report (let in: its route only reports).

        Or left: the client was gone before the answer began.
        """
        if self.rejected is None:
            return "allow" if self.status else "left"
        return "report" if self.reported else self.rejected.result

    @property
    def path(self) -> str:
        """The path for people: without the query, with no token in it, and nothing that could end a line."""
        path = without_tokens(self.target.partition("?")[0])
        return path if path.isprintable() else path.encode("ascii", "backslashreplace").decode()

    @property
    def method_shown(self) -> str:
        """The method for people: a client can make up any, also one that is a token."""
        return self.method if len(self.method) < SHORTEST else without_tokens(self.method)

    @property
    def host_shown(self) -> str:
        """The Host for people: as the path, with no token in it and on one line."""
        return without_tokens(self.host.decode("ascii", "backslashreplace"))

    @property
    def trace_id(self) -> str | None:
        """The trace that this request belongs to: ours, or the client's by one valid `traceparent`. None without one."""
        if self.span_trace_id is not None:
            return self.span_trace_id
        match = None if self.traceparent is None else _TRACEPARENT.fullmatch(self.traceparent)
        return None if match is None else match[1].decode()

    @property
    def issuer(self) -> str:
        """The name of the issuer whose token's signature was verified, "none" without one."""
        return self.token_issuer or "none" if self.claims is None else self.claims.issuer

    @property
    def authorized(self) -> bool:
        """Were claims verified, and may they use the route?"""
        return self.claims is not None and self.rejected is None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.method} {self.route!r}>"
