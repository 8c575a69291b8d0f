"""What crosses the proxy, in both directions: hop-by-hop and forwarded headers, and the two heads that are written.

A request's headers are read once, by `RequestHeaders.read`: what is to be forwarded is ready as bytes, what has a meaning here
is sorted out. The role of a header name is found once and remembered; names fold as the loosest backend folds them.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sidecar.rejections import Reason, Rejection

# RFC 9110 section 7.6.1, and the older names that some programs still act on.
HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade", "http2-settings", "proxy",
    }
)  # fmt: skip
# Read here and written anew; whatever else folds to one of these names is dropped.
MEANT_FOR_THE_PROXY = frozenset(
    {
        "host", "connection", "content-length", "transfer-encoding", "expect", "upgrade", "x-request-id",
        "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
    }
)  # fmt: skip
# What a front proxy tells a backend about where a request came from and went to, and from whom. From anyone else it is forged.
FRONT_PROXY_ONLY = frozenset({"x-real-ip", "x-original-url", "x-rewrite-url"})
FRONT_PROXY_PREFIX = "x-forwarded-"
STRIPPED = {"drop claim": "claim", "drop underscore": "underscore"}  # role -> how it is counted: it could be forged
TRACEPARENT = "traceparent"  # W3C Trace Context: passed on, and noted
OWN_PREFIX = "x-jwt-"
MAX_NAME_LENGTH = 64  # of a name that is remembered
MAX_NAMES = 4096  # remembered header names; clients can make up any number

_NOT_ALNUM = re.compile(r"[^a-z0-9]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9-]+")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def fold(name: str) -> str:
    """A header name as the loosest backend reads it: Rack folds `_` into `-`, PHP `_` and `.`."""
    return _NOT_ALNUM.sub("-", name.lower())


class Roles(dict[bytes, str]):
    """What becomes of a request's header by its name as it came.

    "forward", "noted" (forwarded, and read too), "drop", "front proxy" (forwarded for a trusted peer only), or the name of one
    that has a meaning here. Those of STRIPPED are dropped and counted in `stripped`, as are front proxies' headers that come
    from strangers ("forwarded").

    `dropped` are folded names; `read` the lower-case names of headers that may bring a token. `underscores` says what becomes of
    names that a backend might fold, those with `_` or any other character outside letters, digits and `-`: "drop", "reject"
    (looking one up raises Rejection), or "allow", but for those that could be taken for a header that has a meaning.
    """

    def __init__(
        self,
        dropped: Collection[str],
        *,
        read: Collection[str] = ("authorization",),
        underscores: str = "drop",
        stripped: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.stripped: dict[str, int] = Counter() if stripped is None else stripped
        self._dropped = frozenset(dropped)
        self._meant = MEANT_FOR_THE_PROXY | frozenset(read)
        self._taken = frozenset(map(fold, self._meant))
        self._underscores = underscores

    def __missing__(self, raw: bytes) -> str:
        role = self._role(raw.decode("latin-1"))
        if len(raw) <= MAX_NAME_LENGTH:
            if len(self) >= MAX_NAMES:
                self.clear()
            self[raw] = role
        return role

    def _role(self, name: str) -> str:
        lower = name.lower()
        if lower in self._meant:
            return lower
        if lower == TRACEPARENT:
            return "noted"
        folded = fold(name)
        ours = folded.startswith(OWN_PREFIX) or folded in self._dropped - HOP_BY_HOP
        front_proxys = folded in FRONT_PROXY_ONLY or folded.startswith(FRONT_PROXY_PREFIX)
        if _PLAIN_NAME.fullmatch(name) is None:
            if self._underscores == "reject":
                raise Rejection(
                    Reason.REQUEST_MALFORMED, "A header's name has other characters than letters, digits and -."
                )
            if not ours and (self._underscores == "drop" or folded in self._taken or front_proxys):
                return "drop underscore"
        if ours:
            return "drop claim"
        if front_proxys:
            return "front proxy"
        return "drop" if folded in self._dropped else "forward"


class RequestHeaders:
    """The headers of one request, read.

    `kept` is what is to be forwarded, in pieces to be joined, four to a header; `special` holds the values of the headers that
    are meant for the proxy; `stripped` says whether any was counted as such. `trusted` peers may speak about the request's
    origin. `digest` is that of the token that the headers alone bring, once it is known.
    """

    __slots__ = ("digest", "kept", "special", "stripped")

    def __init__(self, raw_headers: Sequence[tuple[bytes, bytes]], roles: Roles, trusted: bool = False) -> None:
        self.kept: list[bytes] = []
        self.special: dict[str, list[bytes]] = {}
        self.stripped = False
        self.digest: bytes | None = None
        kept = self.kept
        special = self.special
        for name, value in raw_headers:
            role = roles[name]
            if role == "forward":
                kept += (name, b": ", value, b"\r\n")
            elif role == "front proxy":
                if trusted:
                    kept += (name, b": ", value, b"\r\n")
                else:
                    roles.stripped["forwarded"] += 1
                    self.stripped = True
            elif role == "noted":
                kept += (name, b": ", value, b"\r\n")
                special.setdefault(TRACEPARENT, []).append(value)
            elif role in special:
                special[role].append(value)
            elif role in STRIPPED:
                roles.stripped[STRIPPED[role]] += 1
                self.stripped = True
            elif role != "drop":
                special[role] = [value]
        if "connection" in special:
            self._drop_nominated(special["connection"])

    def connection_options(self) -> set[bytes]:
        """The lower-case tokens of `Connection` (RFC 9110 section 7.6.1)."""
        return _tokens(self.special.get("connection", ()))

    def _drop_nominated(self, connection: list[bytes]) -> None:
        # Identity headers are added after this, so `Connection` can never remove one of them.
        if connection in _USUAL_CONNECTION:
            return
        self.kept = _without(self.kept, _tokens(connection))


_USUAL_CONNECTION = ([b"keep-alive"], [b"Keep-Alive"], [b"close"], [b"Upgrade"], [b"upgrade"])


def _tokens(values: Sequence[bytes]) -> set[bytes]:
    return {token.strip(b" \t").lower() for value in values for token in value.split(b",")}


def _without(kept: list[bytes], names: Collection[bytes]) -> list[bytes]:
    return [piece for at in range(0, len(kept), 4) if kept[at].lower() not in names for piece in kept[at : at + 4]]


class Forwarded:
    """What the backend is told about the client's end of the connection, made once for a connection.

    `X-Forwarded-For`, `-Proto` and `-Host` are written anew; only what a peer of `trusted_proxies` said is kept and extended.
    """

    __slots__ = ("_lines", "peer", "scheme", "trusted")

    def __init__(self, peer: str, scheme: str, trusted: bool) -> None:
        self.peer = peer.encode("ascii", "ignore")
        self.scheme = scheme.encode()
        self.trusted = trusted
        self._lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: " % (self.peer, self.scheme)

    def lines(self, host: bytes, special: dict[str, list[bytes]]) -> bytes:
        """The header lines for one request to `host`."""
        if not self.trusted:
            return b"%b%b\r\n" % (self._lines, host)
        said_for = b", ".join((*special.get("x-forwarded-for", ()), self.peer))
        said_scheme = special.get("x-forwarded-proto", [self.scheme])[-1]
        said_host = special.get("x-forwarded-host", [host])[-1]
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
            said_for,
            said_scheme,
            said_host,
        )
        if "forwarded" in special:  # RFC 7239 section 4; not begun here, since backends prefer it to the others
            node = b'"[%b]"' % self.peer if b":" in self.peer else self.peer
            element = b"for=%b;proto=%b" % (node, self.scheme)
            lines += b"Forwarded: %b\r\n" % b", ".join((*special["forwarded"], element))
        return lines


# An answer's headers that are read here and written anew, or that nobody but the sidecar may say.
_ANSWER_SPECIAL = {
    b"content-length": "content-length",
    b"transfer-encoding": "transfer-encoding",
    b"x-request-id": "x-request-id",
    b"connection": "connection",
    b"x-jwt-sidecar": "drop",
} | {name.encode(): "drop" for name in HOP_BY_HOP - {"connection", "transfer-encoding"}}


class AnswerRoles(dict[bytes, str]):
    """What becomes of an answer's header: "forward", "drop", or the name of one that has a meaning here.

    "malformed" where the name is none: aiohttp takes `Content-Length :` from backends, and others read it without the space.
    """

    def __missing__(self, raw: bytes) -> str:
        known = _ANSWER_SPECIAL.get(raw.lower(), "forward")
        role = known if _TOKEN.fullmatch(raw) is not None else "malformed"
        if len(raw) <= MAX_NAME_LENGTH:
            if len(self) >= MAX_NAMES:
                self.clear()
            self[raw] = role
        return role


class AnswerHeaders:
    """The headers of an upstream's answer, read: `kept` as in RequestHeaders, `special` by name."""

    __slots__ = ("kept", "special")

    def __init__(self, raw_headers: Sequence[tuple[bytes, bytes]], roles: AnswerRoles) -> None:
        self.kept: list[bytes] = []
        self.special: dict[str, bytes] = {}
        kept = self.kept
        for name, value in raw_headers:
            role = roles[name]
            if role == "forward":
                kept += (name, b": ", value, b"\r\n")
            elif role != "drop":
                said = self.special.get(role)
                self.special[role] = value if said is None else said + b"," + value
        connection = self.special.get("connection")
        if connection is not None and [connection] not in _USUAL_CONNECTION:
            self.kept = _without(kept, _tokens([connection]))

    @property
    def clean(self) -> bool:
        """Is every name a name, and every value free of characters that could end its line early (RFC 9110 section 5)?"""
        return "malformed" not in self.special and _FORBIDDEN_IN_VALUE.search(b"".join(self.kept[2::4])) is None


class Framing(NamedTuple):
    """The header line that says where an answer ends."""

    line: bytes


class RelayedHead(NamedTuple):
    """An answer's head as it goes on: status line and headers, but for what each request has of its own.

    `given_id` is the request id that the backend has put into it, if any.
    """

    lines: bytes
    framing: Framing
    given_id: bytes | None
