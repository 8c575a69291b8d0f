"""Parses the head of one answer of a backend: a pure function of exactly its bytes.

The caller knows whether the request was HEAD: the parsed head is the same for every request.
"""

import re
from typing import Final

from sidecar.http.framing import persists, response_length
from sidecar.http.grammar import ProtocolError, options, refuse_controls, split_head
from sidecar.http.header_policy import FORWARD, SPECIAL, ResponseHeaderPolicy, without_nominated
from sidecar.http.request_head import REQUEST_ID

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_PHRASE: Final = re.compile(rb"[\x20-\x7e]*")
_NONE: Final[list[bytes]] = []


class ResponseHead:
    """One answer's parsed head. It is never changed.

    - `lines`: the status line and the headers to forward. `framing`: its Content-Length line to forward, or empty. `id_line`: the
    line of its request id, or empty.
    - `length`: of the body, unless it answers HEAD. `is_final`: no other head follows for the same request; a 101 is final, too.
    - `persists`: the backend will keep the connection open. `upgrade`: the protocol of a 101, in lower case.
    """

    __slots__ = ("framing", "id_line", "is_final", "length", "lines", "minor", "persists", "status", "upgrade")

    def __init__(self, status: int, minor: int, lines: bytes, special: dict[str, list[bytes]]) -> None:
        self.status = status
        self.is_final = status >= 200 or status == 101
        self.minor = minor
        self.lines = lines
        codings = special.get("transfer-encoding", _NONE)
        lengths = special.get("content-length", _NONE)
        self.length = response_length(status, minor, codings, lengths)
        self.framing = b"Content-Length: %b\r\n" % lengths[0] if lengths and status != 204 else b""
        self.persists = persists(minor, special.get("connection", _NONE))
        ids = special.get("x-request-id", _NONE)
        self.id_line = b""
        if len(ids) == 1 and REQUEST_ID.fullmatch(ids[0]) is not None:
            self.id_line = b"X-Request-Id: %b\r\n" % ids[0]
        asked = special.get("upgrade", _NONE)
        self.upgrade = asked[0].lower() if len(asked) == 1 else None


def parse_response_head(head: bytes, policy: ResponseHeaderPolicy, headers: int) -> ResponseHead:
    """Parse a head that ends in CRLFCRLF. `headers` limits the number of header lines. Raises ProtocolError."""
    lines = split_head(head)
    if len(lines) - 1 > headers:
        raise ProtocolError(f"An answer must have no more than {headers} headers.")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        refuse_controls(lines[0])
        raise ProtocolError("An answer must begin with HTTP/1.1 and a status of three digits.")
    minor, status, phrase = match.groups()
    if phrase is None or _PHRASE.fullmatch(phrase) is None:
        phrase = b""
    forwarded: list[bytes] = [b"HTTP/1.1 %b %b\r\n" % (status, phrase)]
    special: dict[str, list[bytes]] = {}
    known = policy.known
    for line in lines[1:]:
        field = known.get(line) or policy.field(line)
        if field.fate == FORWARD:
            forwarded.append(field.line)
        elif field.fate == SPECIAL:
            special.setdefault(field.name, []).append(field.value)
    connection = special.get("connection")
    if connection is not None and (nominated := options(connection) - {b"close", b"keep-alive", b"upgrade"}):
        forwarded[1:] = without_nominated(forwarded[1:], nominated)
    return ResponseHead(int(status), 1 if minor != b"0" else 0, b"".join(forwarded), special)
