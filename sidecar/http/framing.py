"""Where a body ends and whether its connection persists (RFC 9112 sections 6.3 and 9.3), for requests and answers.

A length is a number of bytes, CHUNKED or UNTIL_CLOSE. Every message that another program might read differently is refused.
"""

import re
from typing import Final

from sidecar.http.grammar import ProtocolError, options

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_NO_BODY: Final = frozenset({204, 304})  # RFC 9110 section 6.4.1


def request_length(minor: int, codings: list[bytes], lengths: list[bytes]) -> int:
    """The length of a request's body; `codings` and `lengths` are the values of its Transfer-Encoding and Content-Length.

    Raises ProtocolError.
    """
    if codings:
        if lengths or minor == 0 or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise ProtocolError("Transfer-Encoding must be chunked, alone, in HTTP/1.1.")
        return CHUNKED
    return _number(lengths) if lengths else 0


def response_length(status: int, minor: int, codings: list[bytes], lengths: list[bytes]) -> int:
    """The length of an answer's body, unless it answers HEAD and has none. Raises ProtocolError."""
    if codings and (lengths or minor == 0 or len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise ProtocolError("Transfer-Encoding must be chunked, alone, in HTTP/1.1.")
    announced = _number(lengths) if lengths else UNTIL_CLOSE
    if status in _NO_BODY or status < 200:
        return 0
    return CHUNKED if codings else announced


def _number(lengths: list[bytes]) -> int:
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise ProtocolError("Content-Length must be one number.")
    return int(lengths[0])


def persists(minor: int, connection: list[bytes]) -> bool:
    """Will the sender of this message keep its connection open? `connection` are the values of the Connection header."""
    if not connection:
        return minor == 1
    asked = options(connection)
    return b"close" not in asked and (minor == 1 or b"keep-alive" in asked)


def chunk(piece: bytes) -> bytes:
    """Encode a piece of a body as one chunk. The piece must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


LAST_CHUNK: Final = b"0\r\n\r\n"
