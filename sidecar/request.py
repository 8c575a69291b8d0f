"""One request as it was read, and what was found out about it on its way."""

import re
from itertools import count
from os import urandom
from typing import TYPE_CHECKING

from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from sidecar.claims import Claims
from sidecar.headers import RequestHeaders, Roles
from sidecar.jws import without_tokens
from sidecar.rejections import Reason, Rejection
from sidecar.routes import Route

if TYPE_CHECKING:
    from sidecar.connection import ClientConnection
    from sidecar.tracing import Trace

# It is told everywhere, so nothing that looks like a token or an API key is one.
REQUEST_ID = re.compile(rb"(?=[A-Za-z0-9._-]{1,128}\Z)(?!.*(?:jsk_|eyJ.*\.)).+")
# RFC 3986 section 3.2.2 with a port: a name, an IPv4 address or an IPv6 literal.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# W3C Trace Context section 3.2; of versions to come, what they have in common with this one.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")

# Unique across replicas by the random half, within one by the number: cheaper than a random number for each request.
_id_prefix = urandom(8).hex()
_id_numbers = count(1)


def new_id() -> str:
    """A request id for a request that brought none."""
    return f"{_id_prefix}-{next(_id_numbers):x}"


class Request:
    """A request in hand. Grouped by when the attributes are known: on arrival, once read, on the way.

    `length` is the size of the body in bytes, None when it is chunked, 0 when there is none. `rejected` is why it was refused,
    with the sentence in `details`; or, with `reported`, why it would have been if its route did not only report. `started`,
    `sent` (to the backend) and `answered` (by it) are monotonic times, 0 before they have come; `broken_off`: it hung up.
    """

    __slots__ = (
        "answered", "broken_off", "claims", "connection", "details", "headers", "host", "id", "length", "lines", "message",
        "method", "payload", "rejected", "reported", "route", "sent", "started", "status", "target",
        "trace",
    )  # fmt: skip

    def __init__(
        self, message: RawRequestMessage, payload: StreamReader, connection: "ClientConnection", lines: bytes = b""
    ) -> None:
        self.message = message
        self.payload = payload
        self.lines = lines
        self.connection = connection
        self.method: str = message.method
        self.target: str = message.path
        self.started = connection.clock.monotonic()

        self.id = ""
        self.headers: RequestHeaders
        self.host = b""
        self.length: int | None = 0

        self.route: Route | None = None
        self.claims: Claims | None = None
        self.rejected: Reason | None = None
        self.details = ""
        self.reported = False
        self.sent = self.answered = 0.0
        self.broken_off = False
        self.status = 0
        self.trace: Trace | None = None

    def read(self, roles: Roles) -> None:
        """Read the headers. Raises Rejection (request_malformed) for a request that could be read in two ways."""
        message = self.message
        try:
            headers = self.headers = RequestHeaders(message.raw_headers, roles, self.connection.forwarded.trusted)
        except Rejection:
            self.headers = RequestHeaders((), roles)
            self.id = new_id()
            raise
        special = headers.special
        given_id = special.get("x-request-id")
        if given_id is not None and len(given_id) == 1 and REQUEST_ID.fullmatch(given_id[0]) is not None:
            self.id = given_id[0].decode()
        else:
            self.id = new_id()
        version = message.version
        if version.major != 1 or version.minor > 1:
            raise Rejection(Reason.REQUEST_MALFORMED, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        hosts = special.get("host", [])
        if hosts or version.minor == 1:  # RFC 9112 section 3.2
            self.name_host(*hosts)
        if "expect" in special and version.minor == 1 and not self.expects_continue:
            raise Rejection(Reason.EXPECTATION_FAILED)
        if "transfer-encoding" in special or "content-length" in special:
            self.length = self._body_length(special)

    def name_host(self, *hosts: bytes) -> None:
        """Take the host that the request is for. Raises Rejection unless there is exactly one, and valid."""
        if len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None:
            raise Rejection(Reason.REQUEST_MALFORMED, "The request needs exactly one valid Host header.")
        self.host = hosts[0]

    def _body_length(self, special: dict[str, list[bytes]]) -> int | None:
        """RFC 9112 section 6.3, with every case refused that another program might read differently."""
        lengths = special.get("content-length", [])
        codings = special.get("transfer-encoding", [])
        if codings:
            if lengths or len(codings) > 1 or codings[0].lower() != b"chunked" or self.message.version.minor == 0:
                raise Rejection(Reason.REQUEST_MALFORMED, "Transfer-Encoding must be chunked, alone, in HTTP/1.1.")
            return None
        if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
            raise Rejection(Reason.REQUEST_MALFORMED, "Content-Length must be one number.")
        return int(lengths[0])

    def refused(self, rejection: Rejection, *, reported: bool = False) -> None:
        """Keep why it is refused. Not the rejection itself: it holds the frames that it was raised in, and they hold us."""
        self.rejected = rejection.reason
        self.details = rejection.details
        self.reported = reported

    @property
    def result(self) -> str:
        """What was decided: allow, deny, error (a 5xx: no fault of the client), or report (let in: its route only reports)."""
        if self.rejected is None:
            return "allow"
        return "report" if self.reported else self.rejected.result

    @property
    def path(self) -> str:
        """The path for people: without the query, with no token in it, and nothing that could end a line."""
        path = without_tokens(self.target.partition("?")[0])
        return path if path.isprintable() else path.encode("ascii", "backslashreplace").decode()

    @property
    def trace_id(self) -> str | None:
        """The trace that this request belongs to: ours, or the client's by exactly one valid `traceparent`. None without one."""
        if self.trace is not None:
            return self.trace.trace_id
        said = self.headers.special.get("traceparent")
        match = _TRACEPARENT.fullmatch(said[0]) if said is not None and len(said) == 1 else None
        return None if match is None else match[1].decode()

    @property
    def issuer(self) -> str:
        """The name of the issuer whose token was verified, "none" without one."""
        return "none" if self.claims is None else self.claims.issuer

    @property
    def authorized(self) -> bool:
        """Were claims verified, and may they use the route?"""
        return self.claims is not None and self.rejected is None

    @property
    def upgrade(self) -> bytes | None:
        """The protocol that the client asks to go on with, if its route lets it. Never h2c: it would carry unseen requests."""
        if not self.message.upgrade or self.route is None:
            return None
        asked = self.headers.special.get("upgrade", [])
        if len(asked) == 1 and (protocol := asked[0].lower()) in self.route.upgrades:
            return protocol
        return None

    @property
    def preflight(self) -> bool:
        """Is this a CORS preflight? Browsers send it without credentials, whatever the route asks for.

        It has no body and asks for no other protocol, so nothing else can pass as one.
        """
        if self.method != "OPTIONS" or self.length != 0 or self.message.upgrade:
            return False
        names = {name.lower() for name, _ in self.message.raw_headers}
        return b"origin" in names and b"access-control-request-method" in names

    @property
    def expects_continue(self) -> bool:
        """Does the client wait to be invited to send its body (RFC 9110 section 10.1.1)? HTTP/1.0 has no such thing."""
        expect = self.headers.special.get("expect", [])
        return len(expect) == 1 and expect[0].lower() == b"100-continue" and self.message.version.minor == 1

    @property
    def keep_alive(self) -> bool:
        """Does the client mean to go on using the connection?"""
        return not self.message.should_close

    def __repr__(self) -> str:
        return f"<Request {self.id} {self.method} {self.route!r}>"
