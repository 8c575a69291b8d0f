"""Parses the head of one request: a pure function of exactly its bytes and the configured header policy.

A head that the grammar does not know is refused. A head that can be parsed but not accepted has a `problem`, so that its answer
and its log line can name the request.
"""

import re
from typing import Any, Final

from sidecar.common.folding import fold
from sidecar.http.framing import persists, request_length
from sidecar.http.grammar import TOKEN, ProtocolError, options, refuse_controls, split_field, split_head
from sidecar.http.header_policy import (
    FORWARD,
    FRONT_PROXY,
    HOST_WANTED,
    MAX_LINE_BYTES,
    NOTED,
    SPECIAL,
    STRIPPED,
    RequestHeaderPolicy,
    without_nominated,
)

# Ids appear in logs, answers and the backend, so a value that looks like a token or an API key is no id.
REQUEST_ID: Final = re.compile(
    rb"(?=[A-Za-z0-9._-]{1,128}\Z)"
    rb"(?!.*(?:jsk_|eyJ.*\.|e[wy3][A-Za-z0-9_-]{16,}\..+\.))(?![CDI][A-Za-z0-9_-]{16,}\..+\.).+"
)
# RFC 9112 section 3. Methods are remembered for logs, so their size is limited; the longest registered one has 17 characters.
# Other versions match too, so that the refusal can name the reason.
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64} [!-~]+ HTTP/[0-9]\.[0-9]")
_ABSOLUTE_FORM: Final = re.compile(r"(https?)://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
# RFC 9110 section 4.2.3.
_DEFAULT_PORT: Final = {"http": re.compile(rb":(?:80)?\Z"), "https": re.compile(rb":(?:443)?\Z")}
_USUAL_CONNECTION: Final = ([b"keep-alive"], [b"Keep-Alive"], [b"close"], [b"Upgrade"], [b"upgrade"])
_PROTOCOL: Final = re.compile(TOKEN.pattern + rb"(?:/" + TOKEN.pattern + rb")?")  # RFC 9110 section 7.8
_OF_A_HANDSHAKE: Final = frozenset({b"sec-websocket-key", b"sec-websocket-version"})  # the backend needs them
_WEBSOCKET_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")


class RequestHead:
    """One request's parsed head. It is never changed.

    - `target`: path and query as received, in ASCII. `request_line`: the whole line as it is forwarded.
    - `minor`: the second 1 of HTTP/1.1. `host`: the value of Host, empty if an HTTP/1.0 request has none.
    - `forwarded`: the lines for the backend. `from_front_proxy`: lines for the backend if the peer is a trusted proxy.
    - `special`: the values of headers that the sidecar reads, by their lower-case names.
    - `stripped`: the kind of each header that was dropped because it may be forged.
    - `length`: of the body, a number of bytes or CHUNKED. `sized`: Content-Length was given.
    - `persists`: the client will keep the connection open. `upgrade`: the protocol of an Upgrade, in lower case.
    `expects_continue`: the client waits for 100 before it sends the body (RFC 9110 section 10.1.1).
    - `request_id`: the client's valid id, or empty.
    - `problem`: why the request is not accepted. `unmet_expectation`: it expects something other than 100-continue.
    - `traceparent`: the value of exactly one such header, else None. `tracestate`: the values of all its lines, joined.
    - `route`, and `token_digest` or `api_key` (both hashes): computed once by the handler; they follow from the head alone.
    """

    __slots__ = (
        "_lines", "api_key", "expects_continue", "forwarded", "from_front_proxy", "host", "length", "method", "minor",
        "persists", "problem", "request_id", "request_line", "route", "sized", "special", "stripped", "target",
        "token_digest", "traceparent", "tracestate", "unmet_expectation", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        minor: int,
        request_line: bytes,
        lines: list[bytes],
        forwarded: list[bytes],
        from_front_proxy: list[bytes],
        special: dict[str, list[bytes]],
        stripped: list[str],
    ) -> None:
        self.method = method
        self.target = target
        self.request_line = request_line if minor == 1 else f"{method} {target} HTTP/1.1".encode()
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
        # After a refused CONNECT a client may still send the bytes that it wanted to tunnel.
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
        self.tracestate = None if states is None else b",".join(states)  # a list that may span several lines
        self.route: Any = None
        self.token_digest: bytes | None = None
        self.api_key: Any = None

    def values(self, name: str) -> list[bytes]:
        """Every value of a header, forwarded or not; `name` in lower case."""
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
    def folded_names(self) -> set[str]:
        """The names of all headers, as the loosest backend folds them."""
        return {fold(split_field(line)[0].decode()) for line in self._lines}


def _only(special: dict[str, list[bytes]], name: str) -> bytes | None:
    values = special.get(name)
    return values[0] if values is not None and len(values) == 1 else None


def parse_request_head(head: bytes, policy: RequestHeaderPolicy, line_bytes: int, headers: int) -> RequestHead:
    """Parse a head that ends in CRLFCRLF. `line_bytes` limits each line, `headers` the number of header lines.

    Raises ProtocolError.
    """
    lines = split_head(head)
    if len(lines) - 1 > headers:
        raise ProtocolError(f"A request must have no more than {headers} headers.", too_large=True)
    if len(head) > line_bytes and max(map(len, lines)) > line_bytes:
        raise ProtocolError("A line of the head is longer than accepted.", too_large=True)
    request_line = lines.pop(0)
    if _REQUEST_LINE.fullmatch(request_line) is None:
        refuse_controls(request_line)
        raise ProtocolError(
            "A request must begin with a method of 64 characters at most, its target in ASCII and HTTP/1.1, one space between."
        )
    method, target, version = request_line.decode("ascii").split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise ProtocolError("Only HTTP/1.0 and HTTP/1.1 are supported.")
    forwarded: list[bytes] = []
    from_front_proxy: list[bytes] = []
    special: dict[str, list[bytes]] = {}
    stripped: list[str] = []
    problem = ""
    known = policy.known
    for line in lines:
        field = known.get(line) if len(line) <= MAX_LINE_BYTES else None
        if field is None:
            field = policy.field(line)
        fate = field.fate
        if fate == FORWARD:
            forwarded.append(field.line)
        elif fate in (SPECIAL, NOTED):
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
        if field.problem:
            problem = field.problem
    read = RequestHead(
        method,
        target,
        1 if version == "HTTP/1.1" else 0,
        request_line,
        lines,
        forwarded,
        from_front_proxy,
        special,
        stripped,
    )
    read.problem = problem or _host(read) or _target(read) or _body(read)
    if read.problem:
        read.persists = False  # the end of its body is unknown
    if "upgrade" in special:
        _upgrade(read)
    if "expect" in special:
        _expectation(read)
    return read


def _host(head: RequestHead) -> str:
    """RFC 9112 section 3.2. This function and the next ones complete a head and return its problem, or an empty text."""
    hosts = head.special.get("host")
    if hosts is None and head.minor == 0:
        return ""
    if hosts is None or len(hosts) != 1:
        return HOST_WANTED
    head.host = hosts[0]
    return ""


def _target(head: RequestHead) -> str:
    """RFC 9112 section 3.2: the absolute form becomes the origin form where its authority is the Host."""
    target = head.target
    if target[0] == "/":
        return ""
    if target == "*" and head.method == "OPTIONS":
        return "OPTIONS * asks about the proxy itself, and it has no options."
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return ""  # CONNECT has its own form; the routes refuse the others
    scheme, authority, rest = absolute.groups()
    port = _DEFAULT_PORT[scheme.lower()]
    if port.sub(b"", authority.encode().lower()) != port.sub(b"", head.host.lower()):
        head.target = target.replace(
            authority, authority.rpartition("@")[2]
        )  # targets are logged, and a password must not be
        return "The request target names another host than the Host header."
    head.target = rest if rest.startswith("/") else "/" + rest
    head.request_line = f"{head.method} {head.target} HTTP/1.1".encode()
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
    """RFC 9110 section 7.8. An upgrade with a body, or over HTTP/1.0, is an ordinary request, for every protocol."""
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
    """Is this a complete opening handshake (RFC 6455 section 4.1)?"""
    keys, versions = head.values("sec-websocket-key"), head.values("sec-websocket-version")
    return (
        head.method == "GET"
        and len(keys) == 1
        and _WEBSOCKET_KEY.fullmatch(keys[0]) is not None
        and versions == [b"13"]
    )


def _expectation(head: RequestHead) -> None:
    """RFC 9110 section 10.1.1; HTTP/1.0 has no expectations."""
    if head.minor == 1:
        expected = head.special["expect"]
        head.expects_continue = len(expected) == 1 and expected[0].lower() == b"100-continue"
        head.unmet_expectation = not head.expects_continue
