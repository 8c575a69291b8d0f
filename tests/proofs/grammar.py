"""Requests and answers that are nearly right: what HTTP says, the rows of the wire tests, and then some bytes turned.

Everything comes from one `random.Random`, so that its seed brings back the same bytes.
"""

import re
from collections.abc import Iterator
from random import Random

from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE

from tests.peers.wire import chunked
from tests.proxy import test_wire

TOKEN = b"{token}"
"""The placeholder for a good token; {forged}, {expired} and {elsewhere} are those for bad ones."""
CUT = b"{cut}"
"""The mark where a piece ends and the client waits for answers."""
UNSEEN = (b"/tail", b"/smuggled")
"""Targets of requests that never have a token."""
_SEEN = re.compile(
    rb"/(?:tail|smuggled)(?:(?!\r?\n\r?\n).)*\{token\}", re.DOTALL
)  # unless a changed byte gives them one

_METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PRI",
    "get",
    "QUERY",
    "A" * 70,
    "",
]
_TARGETS = [
    "/", "/x", "/x/", "/x?a=b", "/admin/x", "/internal/x", "/public/x", "/public", "/public/", "/public/x?a=/../b", "*",
    "http://sidecar.test/public/x", "sidecar.test:80", "/%7e", "/caf\xc3\xa9", "/" + "a" * 9000, *test_wire.TRICKS,
]  # fmt: skip
_VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "RTSP/1.0", ""]
_HOSTS = ["Host: sidecar.test", "Host: elsewhere.test:81", "host:a", "Host: [::1]:8", "Host:", "Host: a b", ""]
_LINES = [
    "Accept: */*", "Access-Control-Request-Method: PUT", "Connection: Upgrade", "Connection: close",
    "Connection: keep-alive", "Content-Encoding: gzip", "Cookie: a=b; c=d", "Expect: 100-continue", "Expect: x",
    "Origin: http://a.test", "Range: bytes=0-1", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13", "TE: trailers", "Upgrade: h2c", "Upgrade: websocket", "X-A: b",
    "X-Forwarded-For: 203.0.113.9", "X-JWT-Status: verified", "X-JWT-Sub: mallory", f"X-Long: {'a' * 9000}",
    "X-Request-Id: abc", "x_jwt_sub: mallory",
]  # fmt: skip
_GOOD = "Authorization: Bearer {token}"
_CREDENTIALS = [
    "Authorization: Basic eDp5", "Authorization: Bearer", "Authorization: Bearer a.b.c",
    "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.", "Authorization: Bearer {elsewhere}",
    "Authorization: Bearer {expired}", "Authorization: Bearer {forged}",
    "Authorization: Bearer {token}, Bearer {token}", "Authorization: Bearer {token}x", "Authorization: {token}",
    "Cookie: token={token}", "Proxy-Authorization: Bearer {token}", "X-Authorization: Bearer {token}",
    "authorization:bearer  {token}", "Authorization: Bearer {token} ", "Authorization:Bearer\t{token}",
    "Authorization:\r\n Bearer {token}",
]  # fmt: skip
_INTERESTING = [
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b",", b";", b"0\r\n\r\n", b"\x0b", b"\x80", b"\xff",
    b"%2e", b"..", b"//", b"chunked", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n", b"X-JWT-Sub: mallory\r\n", b"HTTP/1.1 200 OK\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"Host: a\r\n", b"ffffffffffffffff", b"\xe2\x84\xaa",
]  # fmt: skip
_STATUS = [
    "200 OK", "200", "204 No Content", "304 Not Modified", "100 Continue", "103 Early Hints", "101 Switching Protocols",
    "404 Not Found",
]  # fmt: skip
_ANSWER_LINES = [
    "Connection: close", "Connection: keep-alive, X-A", "Content-Encoding: gzip", "Content-Length : 3",
    "Content-Length: 3", "Content-Length: 5, 5", "Keep-Alive: timeout=1", "Set-Cookie: a=b", "Trailer: X-B",
    "Transfer-Encoding : chunked", "Transfer-Encoding: gzip, chunked", "Upgrade: websocket", "X-A : b", "X-A: b",
    "X-JWT-Sidecar: rejected", "X-Request-Id: mine", " folded", "no colon", "X-A: b\x00c",
    "Connection: Upgrade\r\nUpgrade: websocket",
]  # fmt: skip


def _rows() -> Iterator[str]:
    """The rows of the wire tests: header lines, chunks, whole requests."""
    for test in vars(test_wire).values():
        for mark in getattr(test, "pytestmark", ()):
            if mark.name == "parametrize" and mark.args[0] == "row":
                for param in mark.args[1]:
                    yield param.values[0]


def _bytes(row: str) -> bytes:
    raw = row.encode("latin-1").replace(b"\n", b"\r\n").replace(test_wire.LF.encode(), b"\n")
    return raw.replace(b"ALICE", b"Authorization: Bearer " + TOKEN)


_ROWS = [_bytes(row) for row in _rows()]
_ROW_LINES = [row for row in _ROWS if b"\r\n\r\n" not in row]
_ROW_REST = [row for row in _ROWS if b"\r\n\r\n" in row]


def requests(random: Random) -> bytes:
    """The bytes of one connection: one to four requests, valid or changed; or more than a parser takes at once."""
    if random.random() < 0.02:
        return _held_back(random)
    raw = b"".join(_request(random) for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))))
    if random.random() < 0.3:
        raw += b"GET %b HTTP/1.1\r\nHost: sidecar.test\r\n\r\n" % random.choice(UNSEEN)
    if random.random() >= 0.5:
        return raw
    while _SEEN.search(changed := turned(random, raw)) is not None:
        pass
    return changed


def _held_back(random: Random) -> bytes:
    """A body that comes late, about as many requests in one piece as aiohttp's parser takes at once, and others behind them."""
    head = b"\r\n".join([b"POST /x HTTP/1.1", b"Host: sidecar.test", _GOOD.encode(), b"Content-Length: 5", b"", b""])
    good = b"\r\n".join([b"GET /x HTTP/1.1", b"Host: sidecar.test", _GOOD.encode(), b"", b""])
    bare = b"GET /x HTTP/1.1\r\nHost: sidecar.test\r\n\r\n"
    pieces = [head, b"hello"]
    for _ in range(random.choice((1, 2, 3))):
        pieces += [good * random.randrange(MAX_MSG_QUEUE_SIZE - 2, MAX_MSG_QUEUE_SIZE + 3), random.choice((good, bare))]
    return CUT.join([*pieces, bare])


def _request(random: Random) -> bytes:
    if random.random() < 0.1:
        return random.choice(_ROW_REST)
    method = random.choice(_METHODS if random.random() < 0.1 else ("GET", "GET", "POST", "PUT", "HEAD", "OPTIONS"))
    target = random.choice(_TARGETS) if random.random() < 0.4 else "/x"
    lines = [random.choice(_HOSTS).encode() if random.random() < 0.08 else b"Host: sidecar.test"]
    credentials = random.random()
    if credentials < 0.7:
        lines.append(_GOOD.encode())
    elif credentials < 0.9:
        lines.append(random.choice(_CREDENTIALS).encode())
    for _ in range(random.choice((0, 0, 0, 1, 2, 4))):
        lines.append(random.choice(_LINES).encode())
    if random.random() < 0.1:
        lines.append(random.choice(_ROW_LINES))
    framing, body = _body(random)
    lines += framing
    if random.random() < 0.3:
        random.shuffle(lines)
    version = random.choice(_VERSIONS) if random.random() < 0.08 else "HTTP/1.1"
    first = f"{method} {target} {version}".encode("latin-1")
    return b"\r\n".join([first, *lines, b"", b""]) + body


def _body(random: Random) -> tuple[list[bytes], bytes]:
    content = random.choice((b"", b"hello", b"a" * 70_000, b"GET /smuggled HTTP/1.1\r\nHost: sidecar.test\r\n\r\n"))
    chunks = chunked([content[at : at + 1 + len(content) // 3] for at in range(0, len(content), 1 + len(content) // 3)])
    length = b"Content-Length: %d" % len(content)
    coding = b"Transfer-Encoding: chunked"
    match random.randrange(20):
        case 0:
            return [length, coding], chunks
        case 1:
            return [b"Content-Length: %d" % (len(content) + random.randrange(-3, 4))], content
        case 2:
            return [random.choice(_ROW_LINES)], chunks
        case 3 | 4 | 5 | 6 | 7:
            return [length], content
        case 8 | 9 | 10 | 11 | 12:
            return [coding], chunks
    return [], b""


def answers(random: Random) -> bytes:
    """A backend's answer to one request."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * random.choice((0, 0, 0, 1, 3))
    framing, body = _body(random)
    lines = [random.choice(_ANSWER_LINES).encode("latin-1") for _ in range(random.choice((0, 0, 1, 2)))]
    version = random.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"))
    first = f"{version} {random.choice(_STATUS) if random.random() < 0.5 else '200 OK'}".encode()
    raw = interim + b"\r\n".join([first, *framing, *lines, b"", b""]) + body
    if random.random() < 0.1:
        raw += b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[: random.randrange(1, 44)]  # an unrequested one
    return turned(random, raw) if random.random() < 0.6 else raw


def turned(random: Random, raw: bytes) -> bytes:
    """The bytes with a few changed, added, removed, repeated or cut off."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        at = random.randrange(len(raw) + 1)
        to = min(len(raw), at + random.choice((1, 1, 2, 4, 16, 64)))
        match random.randrange(7):
            case 0:
                raw = raw[:at] + random.randbytes(1) + raw[at + 1 :]
            case 1 | 2:
                raw = raw[:at] + random.choice(_INTERESTING) + raw[at:]
            case 3:
                raw = raw[:at] + raw[to:]
            case 4:
                raw = raw[:to] + raw[at:to] + raw[to:]
            case 5:
                raw = raw[:at] + random.choice(_INTERESTING) + raw[to:]
            case 6:
                if random.random() < 0.3:
                    raw = raw[:at]
    return raw


def pieces(random: Random, raw: bytes) -> list[bytes]:
    """The same bytes in pieces, as a network may deliver them."""
    if CUT in raw:
        return raw.split(CUT)
    match random.randrange(5):
        case 0 | 1:
            return [raw]
        case 4:  # head by head, as clients send that wait for each answer
            cuts = [end.end() for end in re.finditer(b"\r\n\r\n", raw)]
        case 2:
            cuts = sorted(random.randrange(len(raw) + 1) for _ in range(random.choice((1, 2, 5))))
        case _:
            until = random.randrange(min(len(raw), 400) + 1)
            cuts = list(range(1, until))
    return [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
