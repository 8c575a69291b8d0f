"""Where the token is: by default exactly one `Authorization: Bearer` header (RFC 6750 section 2.1), and nothing else.

Other headers, cookies and query parameters are looked at where the configuration names them. Whatever may hold a token is
taken out of what goes to the backend, byte for byte, unless the token is to be sent on.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import AnyStr
from urllib.parse import unquote_plus

from sidecar.common.errors import Reason, Rejection
from sidecar.http.header_policy import OWN_PREFIX, fold

_COOKIE_SEPARATOR = re.compile(rb"(;[ \t]*)")
_PARAMETER_SEPARATOR = re.compile("([&;])")  # some backends begin a parameter after `;` too


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

        Raises Rejection: token_ambiguous for two headers (the second could be meant for someone who reads the last),
        token_malformed for one that begins with the prefix and goes on with anything but one token.
        """
        if not values:
            return None
        if len(values) > 1:
            raise Rejection(Reason.TOKEN_AMBIGUOUS, f"The request has more than one {self.name} header.")
        credentials = values[0]
        if not self._prefix:
            return credentials
        # RFC 9110 section 11.4: the scheme in any case, then one or more spaces; a tab is not a space.
        scheme, _, token = credentials.partition(b" ")
        if scheme.lower() == self._scheme:
            token = token.lstrip(b" ")
            if token and b" " not in token and b"\t" not in token:
                return token
        if self._word.match(credentials) is not None:
            raise Rejection(
                Reason.TOKEN_MALFORMED, f"The {self.name} header must be the word {self._prefix}, a space, one token."
            )
        return None


AUTHORIZATION = TokenHeader("Authorization", "Bearer")
take = AUTHORIZATION.take


class TokenSources:
    """The places where a request may bring its token.

    `parameters` are names in the query, compared as a backend reads them, with their escapes decoded; `cookies` are compared
    to the letter. Values are taken as they came: a token needs no escapes and no quotes.
    """

    def __init__(
        self,
        headers: Sequence[TokenHeader] = (AUTHORIZATION,),
        cookies: Collection[str] = (),
        parameters: Collection[str] = (),
    ) -> None:
        self._headers = tuple(headers)
        # What begins so is the sidecar's to say, whatever came under that name.
        self._sent_on = tuple(header for header in headers if not fold(header.name).startswith(OWN_PREFIX))
        self._cookies = frozenset(name.encode() for name in cookies)
        self._parameters = frozenset(parameters)
        self.only_in_headers = not cookies and not parameters
        """Nothing has to be taken out of what is sent on but whole headers."""
        alone = self.only_in_headers and len(headers) == 1
        self._take = headers[0].take if alone else None
        self._role = headers[0].role if alone else ""
        self.roles = frozenset(header.role for header in headers) | ({"cookie"} if cookies else frozenset())
        """The lower-case names of the headers that are read here."""

    def take(self, special: Mapping[str, list[bytes]], target: str) -> bytes | None:
        """The token of a request with these headers and this target, or None when it brings none.

        Raises Rejection: token_ambiguous for more than one, wherever they are (RFC 6750 section 2); token_malformed.
        """
        if self._take is not None:  # the one place that most configurations have
            return self._take(special.get(self._role))
        found = [header.take(special.get(header.role)) for header in self._headers]
        tokens = [token for token in found if token is not None]
        for value in special.get("cookie", ()):
            cookies = _COOKIE_SEPARATOR.split(value)[::2]
            tokens += [_value(cookie, b"=").strip(b" \t") for cookie in cookies if self._in_cookie(cookie)]
        parameters = _PARAMETER_SEPARATOR.split(target.partition("?")[2])[::2]
        tokens += [_value(one, "=").encode("utf-8", "surrogateescape") for one in parameters if self._in_parameter(one)]
        if len(tokens) > 1:
            raise Rejection(Reason.TOKEN_AMBIGUOUS)
        return tokens[0] if tokens else None

    def sent_on(self, target: bytes, special: Mapping[str, list[bytes]], forward_token: bool) -> tuple[bytes, bytes]:
        """(target, lines of the headers that are read here) for the backend: with what came, or with every token taken out."""
        lines: list[bytes] = []
        if forward_token:
            for header in self._sent_on:
                for value in special.get(header.role, ())[:1]:
                    lines += (header.name.encode(), b": ", value, b"\r\n")
        for value in special.get("cookie", ()):
            kept = value if forward_token else _without(_COOKIE_SEPARATOR.split(value), self._in_cookie, b"")
            if kept:
                lines += (b"Cookie: ", kept, b"\r\n")
        if self._parameters and not forward_token:
            path, _, query = target.decode("latin-1").partition("?")
            kept_query = _without(_PARAMETER_SEPARATOR.split(query), self._in_parameter, "")
            if kept_query != query:
                target = (f"{path}?{kept_query}" if kept_query else path).encode("latin-1")
        return target, b"".join(lines)

    def _in_cookie(self, cookie: bytes) -> bool:
        return cookie.partition(b"=")[0].strip(b" \t") in self._cookies

    def _in_parameter(self, parameter: str) -> bool:
        return unquote_plus(parameter.partition("=")[0]) in self._parameters


def _value(pair: AnyStr, equals: AnyStr) -> AnyStr:
    return pair.partition(equals)[2]


def _without(split: list[AnyStr], is_token: Callable[[AnyStr], bool], nothing: AnyStr) -> AnyStr:
    """The pairs that are no tokens, and the separators between them. With a pair goes the separator behind it, if it has one."""
    kept: list[AnyStr] = []
    for at in range(0, len(split), 2):
        if not is_token(split[at]):
            kept += split[at : at + 2]
    if len(kept) % 2 == 0:
        del kept[-1:]
    return nothing.join(kept)
