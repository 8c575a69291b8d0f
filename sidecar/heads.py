"""Header lines that came before: read once, and not parsed again when the same bytes come with another request.

A client that keeps its connection sends the same lines each time, its token among them, and other targets. The lines of
requests that were let in are remembered with what was read from them; the line before them is simple enough to be read here.
Whatever is not exactly this - a body, another protocol, a part of a head, two requests at once, any byte that differs - goes to
aiohttp's parser, and what it has not parsed is never remembered.
"""

import re
from typing import NamedTuple

from aiohttp.http import RawRequestMessage

from sidecar.headers import RequestHeaders, Roles
from sidecar.recurring import Recurring
from sidecar.request import Request, new_id

# RFC 9112 section 3 with an origin-form of RFC 3986's characters: what it matches has one reading, and it is the parser's.
_REQUEST_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*) HTTP/1\.1(?=\r\n)"
)
_END = b"\r\n\r\n"


class _Known(NamedTuple):
    """What header lines say. `message` is the first that had them; `id` is empty where they bring none."""

    message: RawRequestMessage
    headers: RequestHeaders
    host: bytes
    id: str
    trusted: bool


class Heads:
    """Reads the heads of requests; `roles` says what becomes of their headers."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._known: Recurring[_Known] = Recurring()

    def parsed(self, data: bytes) -> tuple[bytes, RawRequestMessage | None]:
        """(the header lines of these bytes, what aiohttp's parser would make of them or None where it has to be asked).

        No lines where the bytes are anything but one head with a simple request line.
        """
        line = _REQUEST_LINE.match(data)
        if line is None:
            return b"", None
        lines = data[line.end() :]
        known = self._known.get(lines)
        if known is None:
            return lines if 0 <= lines.find(_END) == len(lines) - len(_END) else b"", None
        method, target = line.groups()
        of = known.message
        return lines, RawRequestMessage(
            method.decode(), target.decode(), of.version, of.headers, of.raw_headers, False, None, False, False, of.url
        )

    def read(self, request: Request) -> None:
        """Read a request's headers, or take them for what they were. Raises Rejection (request_malformed)."""
        known = self._known.get(request.lines)
        if known is None or known.trusted is not request.connection.forwarded.trusted:
            request.read(self._roles)
            return
        request.headers = known.headers
        request.host = known.host
        request.id = known.id or new_id()

    def let_in(self, request: Request) -> None:
        """A request was let in: remember its header lines if they keep coming."""
        lines, message = request.lines, request.message
        if not lines or lines in self._known or message.should_close or message.upgrade or request.length != 0:
            return
        if request.headers.stripped or not self._known.come_again(lines):  # what is stripped is counted each time
            return
        request.headers.kept = [b"".join(request.headers.kept)]
        # Any other id was made for this request alone.
        theirs = request.headers.special.get("x-request-id") == [request.id.encode()]
        said_id = request.id if theirs else ""
        trusted = request.connection.forwarded.trusted
        self._known.keep(lines, _Known(message, request.headers, request.host, said_id, trusted))
