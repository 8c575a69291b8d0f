"""What becomes of each header that crosses the proxy, by its name: hop-by-hop, forwarded, identity and special headers.

The fate of a header line is a pure function of its bytes; the lines that keep coming are remembered with it. Names fold as the
loosest backend folds them.
"""

import re
from collections.abc import Callable, Collection

from sidecar.common.folding import fold
from sidecar.http.grammar import split_field

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
# A front proxy tells a backend with these where a request came from. From anyone else they are forged.
FRONT_PROXY_ONLY = frozenset({"x-real-ip", "x-original-url", "x-rewrite-url"})
FRONT_PROXY_PREFIX = "x-forwarded-"
# To many frameworks the method of a POST.
METHOD_OVERRIDE = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
TRACE_CONTEXT = frozenset({"traceparent", "tracestate"})  # W3C Trace Context: forwarded, and read too
OWN_PREFIX = "x-jwt-"

_PRIVATE = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "x-request-id", "if-none-match", "sec-websocket-key",
        *TRACE_CONTEXT,
    }
)  # fmt: skip

FORWARD = "forward"  # goes to the other side
NOTED = "noted"  # goes to the other side, and has a meaning here
FRONT_PROXY = "front proxy"  # goes to the other side when a peer of trusted_proxies sent it
DROP = "drop"
REFUSE = "refuse"  # makes the message one that is not accepted
STRIPPED = {"drop claim": "claim", "drop underscore": "underscore"}  # could be forged: dropped, and counted as this
SPECIAL = "special"  # has a meaning here, and is not forwarded as it came

MAX_LINE_BYTES = 256  # of a line that is remembered
MAX_LINES = 4096  # remembered lines, and names; clients can make up any number

_PLAIN_NAME = re.compile(r"[A-Za-z0-9-]+")


class Field:
    """One header line: what becomes of it, its name in lower case, its value, and the line as it is
    forwarded, if it may be."""

    __slots__ = ("fate", "line", "name", "value")

    def __init__(self, fate: str, name: str, value: bytes, line: bytes) -> None:
        self.fate = fate
        self.name = name
        self.value = value
        self.line = line


class HeaderPolicy:
    """Reads header lines. `fate_of` says what becomes of a name in lower case.

    The values of `private` names, however they are spelled, are never remembered: credentials, and those that are new in each
    message.
    """

    def __init__(self, private: Collection[str], fate_of: Callable[[str], str]) -> None:
        self._fate_of = fate_of
        self.known: dict[bytes, Field] = {}
        self._names: dict[bytes, tuple[str, str, bool]] = {}  # fate, name in lower case, may its lines be remembered?
        self._private = frozenset(map(fold, private))

    def field(self, line: bytes) -> Field:
        """Read one line that is not among the `known`. Raises ProtocolError."""
        name, colon, value = line.partition(b":")
        known = self._names.get(name) if colon else None
        if known is None:
            name, value = split_field(line)
            known = self._read_name(name)
        fate, lower, is_public = known
        value = value.strip(b" \t")
        sent_on = b"" if fate in (SPECIAL, DROP) else b"%b: %b\r\n" % (name, value)
        field = Field(fate, lower, value, sent_on)
        if is_public and len(line) <= MAX_LINE_BYTES:
            if len(self.known) >= MAX_LINES:
                self.known.clear()
            self.known[line] = field
        return field

    def _read_name(self, name: bytes) -> tuple[str, str, bool]:
        lower = name.decode("ascii").lower()
        read = self._fate_of(lower), lower, fold(lower) not in self._private
        if len(name) <= MAX_LINE_BYTES:
            if len(self._names) >= MAX_LINES:
                self._names.clear()
            self._names[name] = read
        return read


class RequestHeaderPolicy(HeaderPolicy):
    """What becomes of the headers of requests.

    `dropped` are folded names; `read` the lower-case names of headers that may bring a token. `underscores` says what becomes of
    names that a backend might fold, those with `_` or any other character outside letters, digits and `-`: "drop", "reject", or
    "allow", but for those that could be taken for a header that has a meaning. `traced`: trace context is written anew.
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


# Headers of an answer that are read here and written anew.
_ANSWER_SPECIAL = frozenset({"connection", "content-length", "transfer-encoding", "x-request-id", "upgrade"})


class ResponseHeaderPolicy(HeaderPolicy):
    """What becomes of the headers of answers."""

    def __init__(self) -> None:
        super().__init__({"x-request-id", "set-cookie", "etag", "content-length"}, _of_an_answer)


def _of_an_answer(name: str) -> str:
    if name in _ANSWER_SPECIAL:
        return SPECIAL
    return DROP if name in HOP_BY_HOP or name == "x-jwt-sidecar" else FORWARD  # the mark is the sidecar's to say


def without_nominated(lines: list[bytes], names: Collection[bytes]) -> list[bytes]:
    """The lines to be forwarded without those that `Connection` names (RFC 9110 section 7.6.1)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
