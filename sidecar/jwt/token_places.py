"""The places where a request may bring its token: a header, a cookie, a parameter of the query, a WebSocket's subprotocols.

Each place reads the values of one header (`role`, in lower case), or the target where that is empty. `take` finds the token among
them; `without` is one value with whatever may be a token taken out, byte for byte. Values are taken as they came: a token needs
no escapes and no quotes. What is empty is absent, and the same token twice is one.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol
from urllib.parse import unquote_to_bytes

from sidecar.common.errors import Reason, Rejection
from sidecar.common.path_pattern import parts_fit
from sidecar.jwt.compact_jws import base64url, strict_json_object

SUBPROTOCOLS = "sec-websocket-protocol"
MOST_COOKIES = 500  # each costs time; browsers keep at most 180 for a site

_COOKIE_SEPARATOR = re.compile(rb"(;[ \t]*)")
_PARAMETER_SEPARATOR = re.compile(rb"([&;])")  # some backends begin a parameter after `;` too
# How programs name the pieces of a cookie that is too long for one: a.0 (Auth.js, Supabase), a-0 (AWS load balancers),
# a_0 (oauth2-proxy), a__0 (Auth0), aC1 beside a=chunks-2 (ASP.NET).
_PIECE = re.compile(rb"(.+?)([._-]{1,2}|C)([0-9]{1,2})")
_ANNOUNCES_PIECES = re.compile(rb"chunks[-:]([0-9]{1,2})")


class Place(Protocol):
    """Where a token may be. `name` is that of its header as it is sent on, empty for the target."""

    @property
    def role(self) -> str:
        """The lower-case name of the header that is read, empty for the target."""

    @property
    def name(self) -> str:
        """The header's name as it is sent on."""

    def take(self, values: list[bytes]) -> bytes | None:
        """The token among these values, None without one. Raises Rejection: token_ambiguous or token_malformed."""

    def without(self, value: bytes) -> bytes:
        """A value without whatever may be a token; empty where nothing is left to be sent on."""


class TokenHeader:
    """A header that may bring the token: behind the word `prefix` and one or more spaces, or without prefix its whole value."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self.name = name
        self.role = name.lower()
        self._prefix = prefix
        self._scheme = prefix.lower().encode()
        self._word = re.compile(rb"%b(?![A-Za-z0-9!#$%%&'*+.^_`|~-])" % re.escape(prefix.encode()), re.IGNORECASE)

    def take(self, values: list[bytes] | None) -> bytes | None:
        """The token among the values of this header, or None when they bring none (no header, or another scheme).

        Raises Rejection: token_ambiguous for two headers that differ (the second could be meant for someone who reads the last),
        token_malformed for one that begins with the prefix and goes on with anything but one token.
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
        size = len(self._scheme)
        if credentials[:size].lower() == self._scheme and credentials[size : size + 1] == b" ":
            token = credentials[size + 1 :].lstrip(b" ")
            if token and b" " not in token and b"\t" not in token:
                return token
        if self._word.match(credentials) is not None:
            raise Rejection(
                Reason.TOKEN_MALFORMED, f"The {self.name} header must be the word {self._prefix}, a space, one token."
            )
        return None

    def without(self, _value: bytes) -> bytes:
        """Nothing: the header is only there for the token."""
        return b""


class TokenCookie:
    """A cookie that may bring the token. In `cookie`, its name, a `*` stands for any characters; other names are compared to the
    letter.

    `in_pieces`: a long token may be spread over numbered cookies. `json_member` is the token's name in a cookie that holds a JSON
    object, percent-encoded, or as base64url behind `base64-`.
    """

    def __init__(self, cookie: str, *, in_pieces: bool = False, json_member: str | None = None) -> None:
        self.name, self.role = "Cookie", "cookie"
        self._pattern = cookie.split("*")
        self._in_pieces = in_pieces
        self._json_member = json_member

    def take(self, values: list[bytes]) -> bytes | None:
        """The token among these cookies. Raises Rejection: token_ambiguous for two that differ, token_malformed."""
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
        """The other cookies, and the separators between them."""
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
        """(what the pieces of one token have in common, number) of the name of a piece."""
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
    """A parameter of the query that may bring the token. Its name is compared as a backend reads it, with its escapes decoded."""

    def __init__(self, parameter: str) -> None:
        self.name = self.role = ""
        self._parameter = parameter.encode()

    def take(self, values: list[bytes]) -> bytes | None:
        """The token in the query of a target. Raises Rejection: token_ambiguous for two that differ."""
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
        """The target, whose other bytes stay as they came; a `?` that nothing follows goes with the token."""
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
    """Two subprotocols that a WebSocket's client offers one behind the other (RFC 6455 section 11.3.4): `marker`, the token.

    A browser can send no other header with a WebSocket.
    """

    def __init__(self, marker: str) -> None:
        self.name, self.role = "Sec-WebSocket-Protocol", SUBPROTOCOLS
        self.marker = marker.encode()

    def take(self, values: list[bytes]) -> bytes | None:
        """The token behind the marker. Raises Rejection: token_ambiguous for two that differ."""
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
        """Does the client offer the marker, so that it may be the answer?"""
        return self.marker in _offered(b",".join(values))


def _offered(value: bytes) -> list[bytes]:
    return [one for item in value.split(b",") if (one := item.strip(b" \t"))]


def _joined(pieces: dict[int, bytes], count: int | None) -> bytes:
    """The token of these pieces; `count` is how many there have to be, if that is known. Raises Rejection."""
    first = min(pieces, default=1)
    numbers = range(first, first + (count if count is not None else len(pieces)))
    if first > 1 or any(number not in pieces for number in numbers):
        raise Rejection(Reason.TOKEN_MALFORMED, "A piece of the cookie that brings the token is missing.")
    return b"".join(pieces[number] for number in numbers)


def _without(split: Sequence[bytes], ours: Sequence[bool]) -> bytes:
    """The pairs that are not ours, and the separators between them. With a pair goes the separator behind it, if it has one."""
    kept: list[bytes] = []
    for place, is_ours in enumerate(ours):
        if not is_ours:
            kept += split[2 * place : 2 * place + 2]
    if len(kept) % 2 == 0:
        del kept[-1:]
    return b"".join(kept)
