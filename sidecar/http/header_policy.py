"""Decides for each header by its name whether it is forwarded, dropped, refused, or read by the sidecar.

The decision is a pure function of the line's bytes, and is remembered for lines that recur. Names fold as the loosest backend
folds them.
"""

import re
from collections.abc import Callable, Collection
from typing import Final

from sidecar.common.folding import fold
from sidecar.http.grammar import refuse_controls, split_field

# RFC 9110 section 7.6.1, and older names that some programs still use.
HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade", "http2-settings", "proxy",
    }
)  # fmt: skip
# The sidecar reads and rewrites these. Every other name that folds to one of them is dropped.
MEANT_FOR_THE_PROXY: Final = frozenset(
    {
        "host", "connection", "content-length", "transfer-encoding", "expect", "upgrade", "x-request-id",
        "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
    }
)  # fmt: skip
# A front proxy tells the backend with these where a request came from. From other peers they may be forged.
FRONT_PROXY_ONLY: Final = frozenset({"x-real-ip", "x-original-url", "x-rewrite-url"})
FRONT_PROXY_PREFIX: Final = "x-forwarded-"
# Many frameworks take the method of a POST from these.
METHOD_OVERRIDE: Final = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
TRACE_CONTEXT: Final = frozenset({"traceparent", "tracestate"})  # W3C Trace Context: forwarded and also read
OWN_PREFIX: Final = "x-jwt-"

_PRIVATE: Final = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "x-request-id", "if-none-match", "sec-websocket-key",
        *TRACE_CONTEXT,
    }
)  # fmt: skip

FORWARD: Final = "forward"  # forward it
NOTED: Final = "noted"  # forward it and read it
FRONT_PROXY: Final = "front proxy"  # forward it if a peer in trusted_proxies sent it
DROP: Final = "drop"
REFUSE: Final = "refuse"  # refuse the message
STRIPPED: Final = {
    "drop claim": "claim",
    "drop underscore": "underscore",
}  # may be forged: drop it, and count it under this kind
SPECIAL: Final = "special"  # read it, and do not forward it as it came

MAX_LINE_BYTES: Final = 256  # of a remembered line
MAX_LINES: Final = 4096  # remembered lines, and remembered names: clients can send any number of new ones

# RFC 3986 section 3.2.2 with a port: a name, an IPv4 address or an IPv6 literal.
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
HOST_WANTED: Final = "The request needs exactly one valid Host header."
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9-]+")


class Field:
    """One header line: what becomes of it, its name in lower case, its value, and the line as it is
    forwarded, if it may be. `problem`: why a message with this line is not accepted, or empty."""

    __slots__ = ("fate", "line", "name", "problem", "value")

    def __init__(self, fate: str, name: str, value: bytes, line: bytes, problem: str) -> None:
        self.fate = fate
        self.name = name
        self.value = value
        self.line = line
        self.problem = problem


class HeaderPolicy:
    """Parses header lines. `fate_of` decides about a name in lower case.

    Lines with a `private` name, in any spelling, are never remembered: credentials, and values that differ in each message.
    """

    def __init__(self, private: Collection[str], fate_of: Callable[[str], str]) -> None:
        self._fate_of = fate_of
        self.known: dict[bytes, Field] = {}
        self._names: dict[
            bytes, tuple[str, str, bool]
        ] = {}  # decision, name in lower case, may its lines be remembered?
        self._private = frozenset(map(fold, private))

    def field(self, line: bytes) -> Field:
        """Parse a line that is not in `known`. Raises ProtocolError."""
        refuse_controls(line)
        name, colon, value = line.partition(b":")
        known = self._names.get(name) if colon else None
        if known is None:
            name, value = split_field(line)
            known = self._read_name(name)
        fate, lower, is_public = known
        value = value.strip(b" \t")
        sent_on = b"" if fate in (SPECIAL, DROP) else b"%b: %b\r\n" % (name, value)
        field = Field(fate, lower, value, sent_on, self.problem(fate, lower, value))
        if is_public and len(line) <= MAX_LINE_BYTES:
            if len(self.known) >= MAX_LINES:
                self.known.clear()
            self.known[line] = field
        return field

    def problem(self, _fate: str, _name: str, _value: bytes) -> str:
        """Why a message with this header is not accepted; empty if it is."""
        return ""

    def _read_name(self, name: bytes) -> tuple[str, str, bool]:
        lower = name.decode("ascii").lower()
        read = self._fate_of(lower), lower, fold(lower) not in self._private
        if len(name) <= MAX_LINE_BYTES:
            if len(self._names) >= MAX_LINES:
                self._names.clear()
            self._names[name] = read
        return read


class RequestHeaderPolicy(HeaderPolicy):
    """Decides about the headers of requests.

    `dropped` are folded names. `read` are the lower-case names of headers that may bring a token. `underscores` decides about
    names with `_` or any other character outside letters, digits and `-`, which a backend might fold: "drop", "reject" or
    "allow". Names that fold to a header with a meaning are always dropped. `traced`: the sidecar writes its own trace context.
    """

    def __init__(
        self,
        dropped: Collection[str],
        *,
        read: Collection[str] = ("authorization",),
        underscores: str = "drop",
        traced: bool = False,
    ) -> None:
        super().__init__(_PRIVATE.union(read), self._of_a_request)
        self._dropped = frozenset(dropped)
        self._special = MEANT_FOR_THE_PROXY | frozenset(read)
        self._taken = frozenset(map(fold, self._special))
        self._underscores = underscores
        self._trace_context = SPECIAL if traced else NOTED

    def problem(self, fate: str, name: str, value: bytes) -> str:
        if fate == REFUSE:
            return "A header's name has characters other than letters, digits and -."
        if name == "host" and HOST.fullmatch(value) is None:
            return HOST_WANTED
        return ""

    def _of_a_request(self, name: str) -> str:
        if name in self._special:
            return SPECIAL
        if name in TRACE_CONTEXT:
            return self._trace_context
        folded = fold(name)
        ours = folded.startswith(OWN_PREFIX) or folded in self._dropped - HOP_BY_HOP - METHOD_OVERRIDE
        front_proxys = folded in FRONT_PROXY_ONLY or folded.startswith(FRONT_PROXY_PREFIX)
        if _PLAIN_NAME.fullmatch(name) is None:
            if self._underscores == "reject":
                return REFUSE
            if not ours and (self._underscores == "drop" or folded in self._taken or front_proxys):
                return "drop underscore"
        if ours:
            return "drop claim"
        if front_proxys:
            return FRONT_PROXY
        return DROP if folded in self._dropped else FORWARD


# Headers of an answer that the sidecar reads and rewrites.
_ANSWER_SPECIAL: Final = frozenset({"connection", "content-length", "transfer-encoding", "x-request-id", "upgrade"})


class ResponseHeaderPolicy(HeaderPolicy):
    """Decides about the headers of answers."""

    def __init__(self) -> None:
        super().__init__({"x-request-id", "set-cookie", "etag", "content-length"}, _of_an_answer)


def _of_an_answer(name: str) -> str:
    if name in _ANSWER_SPECIAL:
        return SPECIAL
    return DROP if name in HOP_BY_HOP or name == "x-jwt-sidecar" else FORWARD  # only the sidecar may set its mark


def without_nominated(lines: list[bytes], names: Collection[bytes]) -> list[bytes]:
    """The lines to forward, without those that `Connection` names (RFC 9110 section 7.6.1)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
