"""The head of one request: a pure function of exactly its bytes and of the configured header policy.

The grammar is our own and total: what it does not know is refused. A request that can be read, but not accepted, has a
`problem`, so that its answer and its log line can still name it.
"""

import re
from typing import Any

from sidecar.common.folding import fold
from sidecar.http.framing import persists, request_length
from sidecar.http.grammar import TOKEN, ProtocolError, options, split_field, split_head
from sidecar.http.header_policy import (
    FORWARD,
    FRONT_PROXY,
    METHOD_OVERRIDE,
    NOTED,
    REFUSE,
    SPECIAL,
    STRIPPED,
    RequestHeaderPolicy,
    without_nominated,
)

# An id is told everywhere, so nothing that looks like a token or an API key is one.
REQUEST_ID = re.compile(
    rb"(?=[A-Za-z0-9._-]{1,128}\Z)"
    rb"(?!.*(?:jsk_|eyJ.*\.|e[wy3][A-Za-z0-9_-]{16,}\..+\.))(?![CDI][A-Za-z0-9_-]{16,}\..+\.).+"
)
# RFC 9112 section 3. Other versions are told apart so that the refusal can say so.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/(?:1\.([01])|[0-9]\.[0-9])")
# RFC 3986 section 3.2.2 with a port: a name, an IPv4 address or an IPv6 literal.
HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE_FORM = re.compile(r"(https?)://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORT = {"http": re.compile(rb":(?:80)?\Z"), "https": re.compile(rb":(?:443)?\Z")}  # RFC 9110 section 4.2.3
_READ_HERE = frozenset({SPECIAL, NOTED})
_USUAL_CONNECTION = ([b"keep-alive"], [b"Keep-Alive"], [b"close"], [b"Upgrade"], [b"upgrade"])
_PROTOCOL = re.compile(TOKEN.pattern + rb"(?:/" + TOKEN.pattern + rb")?")  # RFC 9110 section 7.8
_OF_A_HANDSHAKE = frozenset({b"sec-websocket-key", b"sec-websocket-version"})  # which a backend has to get
_WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


class RequestHead:
    """One request's head, read. Nothing changes what it says.

    - `target` is its path and query as they came, in ASCII; `request_line` is the whole line as it goes on.
    - `minor` is the 1 of HTTP/1.1; `host` the value of Host, empty where HTTP/1.0 has none.
    - `forwarded` are the lines that go to the backend, `from_front_proxy` those that do from a trusted peer only.
    - `special` holds the values of the headers that have a meaning here, by their lower-case names.
    - `stripped` are the kinds of headers that were dropped because they could be forged, one for each of them.
    - `length` is that of the body: a number of bytes, or CHUNKED; `sized` says whether Content-Length was given.
    - `persists`: the client means to go on with the connection. `upgrade` is the protocol that it asks to go on with, in lower
      case. `expects_continue`: it waits to be invited to send its body (RFC 9110 section 10.1.1).
    - `request_id` is empty unless it brings a valid one.
    - `problem` says why it is not accepted although it can be read; `unmet_expectation`: it expects something else than that.
    - `traceparent` is what exactly one such header says, None otherwise; `tracestate` what all of its lines say.
    - `route` and `token_digest` are found out once by the one handler that a head belongs to: both follow from the head alone.
    """

    __slots__ = (
        "_lines", "expects_continue", "forwarded", "from_front_proxy", "host", "length", "method", "minor", "persists",
        "problem", "request_id", "request_line", "route", "sized", "special", "stripped", "target",
        "token_digest", "traceparent", "tracestate", "unmet_expectation", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        minor: int,
        lines: list[bytes],
        forwarded: list[bytes],
        from_front_proxy: list[bytes],
        special: dict[str, list[bytes]],
        stripped: list[str],
    ) -> None:
        self.method = method
        self.target = target
        self.request_line: bytes
        self.minor = minor
        self._lines = lines
        self.special = special
        self.stripped = stripped
        self.problem: str
        self.unmet_expectation = False
        connection = special.get("connection")
        if connection is not None and connection not in _USUAL_CONNECTION:
            nominated = options(connection)
            forwarded = without_nominated(forwarded, nominated)
            from_front_proxy = without_nominated(from_front_proxy, nominated)
        self.forwarded = b"".join(forwarded)
        self.from_front_proxy = b"".join(from_front_proxy)
        # Behind a CONNECT that is refused a client may go on with whatever it wanted to tunnel.
        self.persists = method != "CONNECT" and (minor == 1 if connection is None else persists(minor, connection))
        self.request_id = ""
        ids = special.get("x-request-id")
        if ids is not None and len(ids) == 1 and REQUEST_ID.fullmatch(ids[0]) is not None:
            self.request_id = ids[0].decode()
        self.host = b""
        self.sized = "content-length" in special
        self.length = 0
        self.upgrade: bytes | None = None
        self.expects_continue = False
        self.traceparent = _only(special, "traceparent")
        states = special.get("tracestate")
        self.tracestate = None if states is None else b",".join(states)  # a list, in as many lines as there are
        self.route: Any = None
        self.token_digest: bytes | None = None

    def values(self, name: str) -> list[bytes]:
        """Every value of a header, whatever becomes of it; `name` in lower case."""
        sought = name.encode()
        return [value for field, value in map(split_field, self._lines) if field.lower() == sought]

    @property
    def may_recur(self) -> bool:
        """Does the head say all that is to be known, is another one to follow in HTTP, and has it no id, which would be new?"""
        return (
            self.persists
            and self.traceparent is None
            and not self.request_id
            and "upgrade" not in self.special
            and not self.stripped
        )

    @property
    def could_be_preflight(self) -> bool:
        """With the method OPTIONS, is this a CORS preflight?

        It has no body, asks for no other protocol and names no other method, so nothing else can pass as one.
        """
        return (
            self.length == 0
            and "upgrade" not in self.special
            and bool(self.values("origin") and self.values("access-control-request-method"))
            and all(fold(split_field(line)[0].decode()) not in METHOD_OVERRIDE for line in self._lines)
        )


def _only(special: dict[str, list[bytes]], name: str) -> bytes | None:
    values = special.get(name)
    return values[0] if values is not None and len(values) == 1 else None


def parse_request_head(head: bytes, policy: RequestHeaderPolicy, line_bytes: int, headers: int) -> RequestHead:
    """Read a head that ends in CRLFCRLF. No line may be longer than `line_bytes`, and there may be so many `headers`.

    Raises ProtocolError.
    """
    lines = split_head(head)
    if len(lines) - 1 > headers:
        raise ProtocolError(f"A request must have no more than {headers} headers.", too_large=True)
    if len(head) > line_bytes and max(map(len, lines)) > line_bytes:
        raise ProtocolError("A line of the head is longer than accepted.", too_large=True)
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise ProtocolError(
            "A request must begin with its method, its target in ASCII and HTTP/1.1, one space between them."
        )
    method, target, minor = match.groups()
    if minor is None:
        raise ProtocolError("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    del lines[0]
    forwarded: list[bytes] = []
    from_front_proxy: list[bytes] = []
    special: dict[str, list[bytes]] = {}
    stripped: list[str] = []
    problem = ""
    known = policy.known
    for line in lines:
        field = known.get(line) or policy.field(line)
        fate = field.fate
        if fate == FORWARD:
            forwarded.append(field.line)
        elif fate in _READ_HERE:
            if fate == NOTED:
                forwarded.append(field.line)
            if field.name in special:
                special[field.name].append(field.value)
            else:
                special[field.name] = [field.value]
        elif fate == FRONT_PROXY:
            from_front_proxy.append(field.line)
        elif fate in STRIPPED:
            stripped.append(STRIPPED[fate])
        elif fate == REFUSE:
            problem = "A header's name has other characters than letters, digits and -."
    read = RequestHead(
        method.decode(),
        target.decode(),
        int(minor),
        lines,
        forwarded,
        from_front_proxy,
        special,
        stripped,
    )
    read.problem = problem or _host(read) or _target(read) or _body(read)
    if read.problem:
        read.persists = False  # where it ends is not known, whatever else it may be refused for
    read.request_line = f"{read.method} {read.target} HTTP/1.1".encode()
    if "upgrade" in special:
        _upgrade(read)
    if "expect" in special:
        _expectation(read)
    return read


def _host(head: RequestHead) -> str:
    """RFC 9112 section 3.2. Each of these functions completes a head, and returns what is wrong with it, if anything is."""
    hosts = head.special.get("host")
    if hosts is None and head.minor == 0:
        return ""
    if hosts is None or len(hosts) != 1 or HOST.fullmatch(hosts[0]) is None:
        return "The request needs exactly one valid Host header."
    head.host = hosts[0]
    return ""


def _target(head: RequestHead) -> str:
    """RFC 9112 section 3.2: the absolute form becomes the origin form where its authority is the Host."""
    target = head.target
    if target[0] == "/":
        return ""
    if target == "*" and head.method == "OPTIONS":
        return "OPTIONS * is about this proxy itself, which has no options to tell."
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return ""  # CONNECT has its own form; of the others the rules about paths speak
    scheme, authority, rest = absolute.groups()
    port = _DEFAULT_PORT[scheme.lower()]
    if port.sub(b"", authority.encode().lower()) != port.sub(b"", head.host.lower()):
        head.target = target.replace(authority, authority.rpartition("@")[2])  # a target is logged, a password is not
        return "The request target names another host than the Host header."
    head.target = rest if rest.startswith("/") else "/" + rest
    return ""


def _body(head: RequestHead) -> str:
    special = head.special
    if "transfer-encoding" in special or head.sized:
        try:
            head.length = request_length(
                head.minor, special.get("transfer-encoding", []), special.get("content-length", [])
            )
        except ProtocolError as error:
            return error.rule
    return ""


def _upgrade(head: RequestHead) -> None:
    """RFC 9110 section 7.8. With a body, or over HTTP/1.0, it is an ordinary request, for every protocol."""
    asked = head.special["upgrade"]
    if head.minor == 0 or head.length or len(asked) != 1 or _PROTOCOL.fullmatch(asked[0]) is None:
        return
    nominated = options(head.special.get("connection", []))
    if b"upgrade" not in nominated:
        return
    protocol = asked[0].lower()
    if protocol != b"websocket" or (_is_handshake(head) and nominated.isdisjoint(_OF_A_HANDSHAKE)):
        head.upgrade = protocol


def _is_handshake(head: RequestHead) -> bool:
    """RFC 6455 section 4.1: is this all of an opening handshake?"""
    keys, versions = head.values("sec-websocket-key"), head.values("sec-websocket-version")
    return (
        head.method == "GET"
        and len(keys) == 1
        and _WEBSOCKET_KEY.fullmatch(keys[0]) is not None
        and versions == [b"13"]
    )


def _expectation(head: RequestHead) -> None:
    """RFC 9110 section 10.1.1; HTTP/1.0 has no such thing."""
    if head.minor == 1:
        expected = head.special["expect"]
        head.expects_continue = len(expected) == 1 and expected[0].lower() == b"100-continue"
        head.unmet_expectation = not head.expects_continue
