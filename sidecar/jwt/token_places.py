"""The places where a request may bring its token: a header, a cookie, a query parameter, a WebSocket's subprotocols.

Each place reads the values of one header (`role`, in lower case), or the target if `role` is empty. `take` finds the token.
`without` removes everything that may be a token from one value, and keeps all other bytes. Values are not unescaped: a token
needs no escapes and no quotes. An empty value counts as absent, and the same token twice counts as one.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from sidecar.common.errors import Reason, Rejection
from sidecar.common.path_pattern import parts_fit
from sidecar.jwt.compact_jws import base64url, strict_json_object

SUBPROTOCOLS = "sec-websocket-protocol"
SPACE: Final = 0x20  # `in` finds a number in bytes much faster than it finds other bytes
TAB: Final = 0x09
MOST_COOKIES: Final = 500  # each costs time; browsers keep at most 180 for a site

_COOKIE_SEPARATOR = re.compile(rb"(;[ \t]*)")
_PARAMETER_SEPARATOR = re.compile(rb"([&;])")  # some backends also separate parameters by `;`
# How programs name the pieces of a long cookie: a.0 (Auth.js, Supabase), a-0 (AWS load balancers),
# a_0 (oauth2-proxy), a__0 (Auth0), aC1 beside a=chunks-2 (ASP.NET).
_PIECE = re.compile(rb"(.+?)([._-]{1,2}|C)([0-9]{1,2})")
_ANNOUNCES_PIECES = re.compile(rb"chunks[-:]([0-9]{1,2})")


class Place(Protocol):
    """A place of a token. `name` is the name of its header for the backend, empty for the target."""

    @property
    def role(self) -> str:
        """The lower-case name of the header to read, empty for the target."""

    @property
    def name(self) -> str:
        """The header's name for the backend."""

    def take(self, values: list[bytes]) -> bytes | None:
        """The token in these values, None without one. Raises Rejection: token_ambiguous or token_malformed."""

    def without(self, value: bytes) -> bytes:
        """A value without anything that may be a token; empty if nothing is left to forward."""


class TokenHeader:
    """A header that may bring the token: after `prefix` and one or more spaces, or as the whole value without a prefix."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self.name = name
        self.role = name.lower()
        self._prefix = prefix
        self._scheme = prefix.lower().encode()
        self._word = re.compile(rb"%b(?![A-Za-z0-9!#$%%&'*+.^_`|~-])" % re.escape(prefix.encode()), re.IGNORECASE)

    def take(self, values: list[bytes] | None) -> bytes | None:
        """The token in the values of this header; None without one (no header, or another scheme).

        Raises Rejection: token_ambiguous for two different headers (another program may read the last one), token_malformed for a
        prefix that is not followed by exactly one token.
        """
        if not values:
            return None
        credentials = values[0]
        if len(values) > 1:
            said = set(values) - {b""}
            if len(said) > 1:
                raise Rejection(Reason.TOKEN_AMBIGUOUS, f"The request has more than one {self.name} header.")
            credentials = said.pop() if said else b""
        if not self._prefix:
            return credentials or None
        # RFC 9110 section 11.4: the scheme in any case, then one or more spaces; a tab is not a space.
        scheme, _, rest = credentials.partition(b" ")
        if scheme.lower() == self._scheme:
            token = rest.lstrip(b" ")
            if token and SPACE not in token and TAB not in token:
                return token
        if self._word.match(credentials) is not None:
            raise Rejection(
                Reason.TOKEN_MALFORMED, f"The {self.name} header must be the word {self._prefix}, a space, one token."
            )
        return None

    def without(self, _value: bytes) -> bytes:
        """Empty: the header serves only to bring the token."""
        return b""


class TokenCookie:
    """A cookie that may bring the token. In its name, `cookie`, a `*` stands for any characters; other characters must be equal.

    `in_pieces`: a long token may be split into numbered cookies. `json_member` is the token's member in a cookie that holds a
    JSON object, percent-encoded, or as base64url after `base64-`.
    """

    def __init__(self, cookie: str, *, in_pieces: bool = False, json_member: str | None = None) -> None:
        self.name, self.role = "Cookie", "cookie"
        self._pattern = cookie.split("*")
        self._in_pieces = in_pieces
        self._json_member = json_member

    def take(self, values: list[bytes]) -> bytes | None:
        """The token in these cookies. Raises Rejection: token_ambiguous for two different tokens, or token_malformed."""
        pieces: dict[bytes, dict[int, bytes]] = {}
        found: set[bytes] = set()
        announced: dict[bytes, int] = {}
        for name, value in self._cookies(values):
            if self._fits(name):
                count = _ANNOUNCES_PIECES.fullmatch(value) if self._in_pieces else None
                if count is None:
                    found.add(value)
                else:
                    announced[name + b"C"] = int(count[1])
            elif (piece := self._piece(name)) is not None:
                begins, number = piece
                if pieces.setdefault(begins, {}).setdefault(number, value) != value:
                    raise Rejection(Reason.TOKEN_AMBIGUOUS)
        for begins in pieces.keys() | announced.keys():
            found.add(_joined(pieces.get(begins, {}), announced.get(begins)))
        found.discard(b"")
        if len(found) > 1:
            raise Rejection(Reason.TOKEN_AMBIGUOUS)
        if not found:
            return None
        return found.pop() if self._json_member is None else self._member(found.pop(), self._json_member)

    def without(self, value: bytes) -> bytes:
        """The other cookies with the separators between them."""
        return _without(_COOKIE_SEPARATOR.split(value), [self._is_ours(name) for name, _ in self._cookies([value])])

    def _cookies(self, values: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        if sum(value.count(b";") for value in values) >= MOST_COOKIES:
            raise Rejection(Reason.HEADERS_TOO_LARGE, f"The request has more than {MOST_COOKIES} cookies.")
        for value in values:
            for cookie in _COOKIE_SEPARATOR.split(value)[::2]:
                name, _, text = cookie.partition(b"=")
                yield name.strip(b" \t"), text.strip(b" \t")

    def _is_ours(self, name: bytes) -> bool:
        return self._fits(name) or self._piece(name) is not None

    def _fits(self, name: bytes) -> bool:
        return parts_fit(self._pattern, name.decode("latin-1"))

    def _piece(self, name: bytes) -> tuple[bytes, int] | None:
        """Split the name of a piece into (the name that the pieces of one token share, number)."""
        match = _PIECE.fullmatch(name) if self._in_pieces else None
        if match is None or not self._fits(match[1]):
            return None
        return match[1] + match[2], int(match[3])

    @staticmethod
    def _member(text: bytes, name: str) -> bytes | None:
        try:
            if text.startswith(b"base64-"):
                document = strict_json_object(base64url(text.removeprefix(b"base64-").rstrip(b"=")))
            else:
                document = strict_json_object(unquote_to_bytes(text))
        except ValueError:
            raise Rejection(Reason.TOKEN_MALFORMED, "The cookie that brings the token is not a JSON object.") from None
        token = document.get(name)
        return token.encode() or None if isinstance(token, str) else None


class TokenParameter:
    """A query parameter that may bring the token. Its name is compared after decoding escapes, as backends do."""

    def __init__(self, parameter: str) -> None:
        self.name = self.role = ""
        self._parameter = parameter.encode()

    def take(self, values: list[bytes]) -> bytes | None:
        """The token in the query of a target. Raises Rejection: token_ambiguous for two different tokens."""
        found = {
            pair.partition(b"=")[2]
            for value in values
            for pair in _PARAMETER_SEPARATOR.split(value.partition(b"?")[2])[::2]
            if self._is_ours(pair)
        } - {b""}
        if len(found) > 1:
            raise Rejection(Reason.TOKEN_AMBIGUOUS)
        return found.pop() if found else None

    def without(self, value: bytes) -> bytes:
        """The target without the token, all other bytes unchanged. A `?` without a query is removed too."""
        path, _, query = value.partition(b"?")
        split = _PARAMETER_SEPARATOR.split(query)
        ours = list(map(self._is_ours, split[::2]))
        if not any(ours):
            return value
        kept = _without(split, ours)
        return b"%b?%b" % (path, kept) if kept else path

    def _is_ours(self, pair: bytes) -> bool:
        name = pair.partition(b"=")[0]
        escapes = name.count(b"%")
        if len(name) - 2 * escapes != len(self._parameter):  # an escape stands for one byte
            return False
        return (unquote_to_bytes(name) if escapes else name) == self._parameter


class TokenSubprotocol:
    """Two adjacent subprotocols in a WebSocket's handshake (RFC 6455 section 11.3.4): `marker`, then the token.

    A browser cannot set any other header of a WebSocket.
    """

    def __init__(self, marker: str) -> None:
        self.name, self.role = "Sec-WebSocket-Protocol", SUBPROTOCOLS
        self.marker = marker.encode()

    def take(self, values: list[bytes]) -> bytes | None:
        """The token after the marker. Raises Rejection: token_ambiguous for two different tokens."""
        offered = _offered(b",".join(values))
        found = {token for marker, token in pairwise(offered) if marker == self.marker}
        if len(found) > 1:
            raise Rejection(Reason.TOKEN_AMBIGUOUS)
        return found.pop() if found else None

    def without(self, value: bytes) -> bytes:
        """The other subprotocols."""
        offered = _offered(value)
        kept = [one for before, one in pairwise([b"", *offered]) if self.marker not in (before, one)]
        return b", ".join(kept)

    def is_offered(self, values: list[bytes]) -> bool:
        """Does the client offer the marker, so that an answer may select it?"""
        return self.marker in _offered(b",".join(values))


def _offered(value: bytes) -> list[bytes]:
    return [one for item in value.split(b",") if (one := item.strip(b" \t"))]


def _joined(pieces: dict[int, bytes], count: int | None) -> bytes:
    """Join the pieces of a token; `count` is the required number of pieces, or None. Raises Rejection."""
    first = min(pieces, default=1)
    numbers = range(first, first + (count if count is not None else len(pieces)))
    if first > 1 or any(number not in pieces for number in numbers):
        raise Rejection(Reason.TOKEN_MALFORMED, "A piece of the cookie that brings the token is missing.")
    return b"".join(pieces[number] for number in numbers)


def _without(split: Sequence[bytes], ours: Sequence[bool]) -> bytes:
    """Remove the pairs of `ours`, each with the separator after it, if it has one."""
    kept: list[bytes] = []
    for place, is_ours in enumerate(ours):
        if not is_ours:
            kept += split[2 * place : 2 * place + 2]
    if len(kept) % 2 == 0:
        del kept[-1:]
    return b"".join(kept)
