"""The bytes that a backend may send, and the bytes that then reach the client.

In the rows `\\n` is the end of a line. Each answer is sent whole, byte by byte, and with another answer close behind it, which is
nobody's. Whatever is sent: the client gets one well-formed answer or sees that it is broken off, and the next client its own.
"""

import asyncio
import socket

import pytest

from tests.peers import patience
from tests.peers.backend import Handler, Request, reset_instead, send
from tests.peers.raw import Response
from tests.peers.wire import WEBSOCKET, Truncated, request, response
from tests.proxy.conftest import FEEDS, Stack, ok, running

feeds = pytest.mark.parametrize("feed", FEEDS)

NOBODYS = response(200, b"nobody's", [("X-Nobodys", "1")])


def rows(*named: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in named])


class Answering:
    """A handler that gives an answer in one of the FEEDS; `given` is set once all of it has reached the sidecar."""

    def __init__(self, row: str, feed: str, *, close: bool = False) -> None:
        raw = row.encode("latin-1").replace(b"\n", b"\r\n")
        self.pieces = [raw[at : at + 1] for at in range(len(raw))] if feed == "byte by byte" else [raw]
        if feed == "with a tail":
            self.pieces[-1] += NOBODYS
        self.close = close
        self.given = asyncio.Event()

    async def __call__(self, _request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            for piece in self.pieces:
                if writer.is_closing():
                    return
                writer.write(piece)
                await writer.drain()
                for _ in range(5):  # turns in which the sidecar, on this loop, reads the piece before the next
                    await asyncio.sleep(0)
            if self.close:
                writer.close()
        finally:
            self.given.set()


async def answered(stack: Stack, row: str, feed: str, method: str = "GET", *, close: bool = False) -> Response:
    """The client's answer when the backend gives this one; the next client, on the same connection or not, gets its own."""
    answering = stack.backend.handler = Answering(row, feed, close=close)
    try:
        async with stack.client() as client:
            answer = await client.request(stack.good(method, "/x"))
            async with patience("the backend to have given its answer"):
                await answering.given.wait()
            stack.backend.handler = ok
            if answer.get("connection") != "close":
                assert (await client.request(stack.good())).body == b'{"ok":true}'
    finally:
        stack.backend.handler = ok
        assert (await stack.fetch(stack.good())).body == b'{"ok":true}'
    assert len([seen for seen in stack.backend.requests if seen.target == "/x"]) == 1
    assert answer.get("x-nobodys") is None
    assert b"nobody's" not in answer.body
    return answer


def invalid(answer: Response) -> bool:
    """Is it the sidecar's own answer to a backend that breaks the rules?"""
    assert answer.get("x-jwt-sidecar") == ("rejected" if answer.status == 502 else None)
    if answer.status == 502 and answer.body:
        assert answer.json()["code"] == "upstream_invalid"
        assert answer.json()["error"] == "Bad gateway"
    return answer.status == 502


# Bytes after an answer


@feeds
async def test_a_second_answer_in_one_piece_reaches_no_client(stack: Stack, feed: str) -> None:
    answer = await answered(
        stack, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhelloHTTP/1.1 200 OK\nContent-Length: 1\n\n!", feed
    )
    assert invalid(answer) or answer.body == b"hello"


@feeds
async def test_bytes_beyond_the_length_of_an_answer_reach_no_client(stack: Stack, feed: str) -> None:
    answer = await answered(stack, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello!", feed)
    assert invalid(answer) or answer.body == b"hello"


async def test_a_late_answer_ends_the_idle_connection(stack: Stack) -> None:
    late = asyncio.Event()

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        await ok(request, writer)
        await writer.drain()
        await late.wait()
        writer.write(NOBODYS)

    stack.backend.handler = handler
    assert (await stack.fetch(stack.good())).body == b'{"ok":true}'
    stack.backend.handler = ok
    stack.clock.ahead_s -= 1000  # the idle timeout is not the reason
    late.set()
    await stack.backend.disconnected()
    stack.clock.ahead_s += 1000
    assert (await stack.fetch(stack.good())).body == b'{"ok":true}'
    assert stack.backend.connections == 2


@feeds
@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", "HTTP/1.1 200 OK\nContent-Length: 5"),
        ("HEAD", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"),
        ("GET", "HTTP/1.1 204 No Content"),
        ("GET", "HTTP/1.1 204 No Content\nContent-Length: 5"),
        ("GET", "HTTP/1.1 304 Not Modified\nContent-Length: 5"),
        ("GET", "HTTP/1.1 304 Not Modified\nTransfer-Encoding: chunked"),
    ],
)
async def test_a_body_of_an_answer_without_one_reaches_no_client(
    stack: Stack, method: str, head: str, feed: str
) -> None:
    answer = await answered(stack, f"{head}\n\nhello", feed, method)
    assert invalid(answer) or answer.body == b""


@feeds
@rows(
    ("CL.TE", "Content-Length: 5\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
    ("TE.CL", "Transfer-Encoding: chunked\nContent-Length: 5\n\n5\nhello\n0\n\n"),
    ("two lengths", "Content-Length: 5\nContent-Length: 4\n\nhello"),
    ("two lengths in a list", "Content-Length: 5, 4\n\nhello"),
    ("the same length twice", "Content-Length: 5\nContent-Length: 5\n\nhello"),
    ("plus", "Content-Length: +5\n\nhello"),
    ("2^64", "Content-Length: 18446744073709551616\n\nhello"),
    ("empty length", "Content-Length:\n\nhello"),
    ("gzip, chunked", "Transfer-Encoding: gzip, chunked\n\n5\nhello\n0\n\n"),
    ("chunked twice", "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
    ("chunked, identity", "Transfer-Encoding: chunked, identity\n\n5\nhello\n0\n\n"),
    ("no transfer encoding", "Transfer-Encoding: cow\n\n5\nhello\n0\n\n"),
    ("chunk size", "Transfer-Encoding: chunked\n\n+5\nhello\n0\n\n"),
)
async def test_an_answer_with_an_ambiguous_length_is_a_502(stack: Stack, row: str, feed: str) -> None:
    try:
        answer = await answered(stack, f"HTTP/1.1 200 OK\n{row}", feed, close=True)
    except Truncated:
        return  # the head was relayed before the fault of the body
    assert invalid(answer)


@feeds
@rows(
    ("chunked", "Transfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
    ("extension", "Transfer-Encoding: chunked\n\n5;a=b\nhello\n0;c\n\n"),
    ("trailer", "Transfer-Encoding: chunked\nTrailer: X-A\n\n5\nhello\n0\nX-A: 1\n\n"),
    ("sized", "Content-Length: 5\n\nhello"),
)
async def test_the_framing_of_an_answer_is_written_anew(stack: Stack, row: str, feed: str) -> None:
    answer = await answered(stack, f"HTTP/1.1 200 OK\n{row}", feed)
    assert (answer.status, answer.body, answer.trailers) == (200, b"hello", [])
    assert answer.get("trailer") is None


# Bytes that could add headers


@feeds
@rows(
    ("bare CR", "X-A: a\rSet-Cookie: b=c"),
    ("bare CR at the end", "X-A: a\r"),
    ("NUL", "X-A: a\x00b"),
    ("control character", "X-A: a\x01b"),
    ("vertical tab", "X-A: a\x0bb"),
    ("DEL", "X-A: a\x7fb"),
    ("folded", "X-A: a\n b"),
    ("folded into a header", "X-A: a\n Set-Cookie: b=c"),
    ("space in the name", "X A: a"),
    ("space before the colon", "X-A : a"),
    ("space before the name", " X-A: a"),
    ("no colon", "X-A"),
    ("empty name", ": a"),
    ("NUL in the name", "X\x00A: a"),
    ("control character in the name", "X\x01A: a"),
    ("bare CR in the name", "X\rA: a"),
    ("high byte in the name", "X\xe4A: a"),
    ("parenthesis in the name", "X(A: a"),
)
async def test_a_header_of_an_answer_cannot_add_another(stack: Stack, row: str, feed: str) -> None:
    answer = await answered(stack, f"HTTP/1.1 200 OK\n{row}\nContent-Length: 5\n\nhello", feed)
    assert invalid(answer) or answer.body == b"hello"
    assert answer.get("set-cookie") is None


@feeds
@rows(
    ("NUL", "HTTP/1.1 200 O\x00K"),
    ("control character", "HTTP/1.1 200 O\x01K"),
    ("DEL", "HTTP/1.1 200 O\x7fK"),
    ("bare CR", "HTTP/1.1 200 O\rK"),
    ("high bytes", "HTTP/1.1 200 \xc3\xa9"),
    ("tab", "HTTP/1.1 200 O\tK"),
)
async def test_an_invalid_reason_phrase_is_not_relayed(stack: Stack, row: str, feed: str) -> None:
    answer = await answered(stack, f"{row}\nContent-Length: 5\n\nhello", feed)
    assert invalid(answer) or (answer.status, answer.reason, answer.body) == (200, "", b"hello")


@feeds
@rows(
    ("none", "HTTP/1.1 200\nContent-Length: 5\n\nhello"),
    ("empty", "HTTP/1.1 200 \nContent-Length: 5\n\nhello"),
    ("many words", "HTTP/1.1 200 It is fine\nContent-Length: 5\n\nhello"),
)
async def test_a_plain_or_missing_reason_phrase_is_accepted(stack: Stack, row: str, feed: str) -> None:
    answer = await answered(stack, row, feed)
    assert (answer.status, answer.body) == (200, b"hello")


@feeds
@rows(
    ("no HTTP", "hello\n\n"),
    ("0.9", "<html>hello</html>"),
    ("2.0", "HTTP/2.0 200 OK\nContent-Length: 5\n\nhello"),
    ("preface of HTTP/2", "\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    ("another protocol", "ICY 200 OK\nContent-Length: 5\n\nhello"),
    ("two digits", "HTTP/1.1 20 OK\nContent-Length: 5\n\nhello"),
    ("four digits", "HTTP/1.1 2000 OK\nContent-Length: 5\n\nhello"),
    ("letters", "HTTP/1.1 abc OK\nContent-Length: 5\n\nhello"),
    ("zero", "HTTP/1.1 000 OK\nContent-Length: 5\n\nhello"),
    ("below 100", "HTTP/1.1 099 OK\nContent-Length: 5\n\nhello"),
    ("a request", "GET / HTTP/1.1\nHost: a\n\n"),
    ("TLS alert", "\x15\x03\x01\x00\x02\x02\x0a"),
    ("empty line first", "\n\nhello"),
)
async def test_an_answer_that_is_not_http_is_a_502(stack: Stack, row: str, feed: str) -> None:
    answer = await answered(stack, row, feed, close=True)
    assert answer.status == 502
    assert answer.json()["code"] in ("upstream_invalid", "upstream_unreachable")


@rows(
    ("none", "X-A: b"),
    ("space before the colon", "X-A : b"),
    ("DEL", "X-A: a\x7fb"),
    ("bare CR", "X-A: a\rb"),
)
async def test_a_101_with_an_invalid_header_is_a_502(stack: Stack, row: str) -> None:
    head = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n"
    stack.backend.handler = Answering(f"{head}{row}\n\n", "whole")
    raw = stack.good("GET", "/x", headers=WEBSOCKET)
    answer = await stack.fetch(raw)
    assert answer.status == (101 if row == "X-A: b" else 502)
    assert (answer.get("x-a") == "b") == (answer.status == 101)


@feeds
async def test_an_unrequested_101_in_any_pieces_is_a_502(stack: Stack, feed: str) -> None:
    answer = await answered(stack, "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: foo\n\n", feed)
    assert invalid(answer)


@pytest.mark.parametrize("head", ["Connection: Upgrade\nUpgrade: foo\n", "Upgrade: foo\n", ""])
async def test_a_connection_with_an_unrequested_101_is_not_reused(stack: Stack, head: str) -> None:
    assert (await answered(stack, f"HTTP/1.1 101 Switching Protocols\n{head}\n", "whole")).status == 502
    assert stack.backend.connections == 2


@feeds
async def test_a_head_without_an_end_is_a_502(stack: Stack, feed: str) -> None:
    stack.backend.handler = Answering(f"HTTP/1.1 200 OK\n{'X-A: aaaa' * 1000}\n" * 30, "whole")
    answer = await stack.fetch(stack.good())
    assert answer.status == 502
    assert answer.json()["code"] == "upstream_invalid"


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 502)])
@pytest.mark.parametrize(
    "head",
    ["HTTP/1.1 200 {}\nContent-Length: 5\n", "HTTP/1.1 200 OK\nContent-Length: 5\nX-A: {}\n"],
    ids=["reason", "header"],
)
async def test_a_line_of_an_answers_head_has_at_most_64_kib(stack: Stack, head: str, size: int, status: int) -> None:
    answer = await answered(stack, f"{head.format('x' * size)}\nhello", "whole")
    assert answer.status == status
    assert invalid(answer) or answer.body == b"hello"


async def test_an_endless_line_of_an_answer_is_a_502(stack: Stack) -> None:
    stack.backend.handler = send(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 150_000)
    assert invalid(await stack.fetch(stack.good()))


HOP_BY_HOP = """\
Connection: keep-alive, X-Nominated
Keep-Alive: timeout=5
Proxy-Connection: keep-alive
Proxy-Authenticate: Basic
TE: trailers
Trailer: X-Checksum
Upgrade: h2c
HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA
X-Nominated: 1
X-JWT-Sidecar: rejected
x-jwt-sidecar: accepted
"""


@feeds
async def test_hop_by_hop_headers_of_an_answer_are_not_relayed(stack: Stack, feed: str) -> None:
    answer = await answered(stack, f"HTTP/1.1 200 OK\n{HOP_BY_HOP}Content-Length: 5\nX-Kept: 1\n\nhello", feed)
    assert {name.lower() for name, _ in answer.headers} == {"content-length", "x-kept", "x-request-id"}


# Incomplete answers


@feeds
@rows(
    ("short length", "Content-Length: 50\n\nhello"),
    ("no body", "Content-Length: 50\n\n"),
    ("no last chunk", "Transfer-Encoding: chunked\n\n5\nhello\n"),
    ("short chunk", "Transfer-Encoding: chunked\n\n9\nhello"),
    ("no end of the trailers", "Transfer-Encoding: chunked\n\n5\nhello\n0\n"),
    ("no chunk", "Transfer-Encoding: chunked\n\n"),
)
async def test_an_incomplete_answer_is_never_relayed_as_complete(stack: Stack, row: str, feed: str) -> None:
    raw = f"HTTP/1.1 200 OK\n{row}"
    stack.backend.handler = Answering(raw, "byte by byte" if feed == "byte by byte" else "whole", close=True)
    async with stack.client() as client:
        await client.send(stack.good(), tail=stack.good() if feed == "with a tail" else b"")
        try:
            answer = await client.response()
        except Truncated:
            assert await client.closed() == b""
        else:
            assert answer.status == 502


@feeds
async def test_an_answer_until_close_is_relayed(stack: Stack, feed: str) -> None:
    stack.backend.handler = Answering("HTTP/1.1 200 OK\n\nhello", feed, close=True)
    answer = await stack.fetch(stack.good())
    assert (answer.status, answer.delimited) == (200, "chunked")
    assert answer.body == b"hello" + NOBODYS * (feed == "with a tail")


async def test_a_reset_within_an_answer_until_close_resets_the_client(stack: Stack) -> None:
    sent = asyncio.Event()

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        await sent.wait()
        await reset_instead(request, writer)

    stack.backend.handler = handler
    async with stack.client() as client:
        await client.send(stack.good())
        assert (await client.reader.readuntil(b"hello")).endswith(b"hello")
        sent.set()
        assert b"0\r\n\r\n" not in await client.closed()


# Unreachable backends, and retries


@pytest.mark.parametrize("warm", [False, True])
async def test_a_backend_that_is_down_is_a_502_and_a_missing_token_a_401(stack: Stack, warm: bool) -> None:
    if warm:
        assert (await stack.fetch(stack.good())).status == 200
    await stack.backend.go_down()
    answer = await stack.fetch(stack.good())
    assert answer.status == 502
    assert answer.json()["code"] == "upstream_unreachable"
    assert answer.get("connection") is None
    assert (await stack.fetch(request())).status == 401
    assert (await stack.fetch(request(token=stack.token(aud="elsewhere")))).status == 401
    await stack.backend.come_back()
    assert (await stack.fetch(stack.good())).status == 200


async def test_an_unresolvable_backend_is_a_502() -> None:
    async with running(upstream="http://nowhere.invalid:80", timeouts={"connect": "50s"}) as stack:
        assert (await stack.fetch(stack.good())).json()["code"] == "upstream_unreachable"


async def test_a_backend_that_accepts_no_connection_is_a_504() -> None:
    """A listener with a full queue does not answer connections."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        others = [socket.socket() for _ in range(8)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with running(upstream=url, timeouts={"connect": "100ms"}) as stack:
            answer = await stack.fetch(stack.good())
            assert (answer.status, answer.json()["code"]) == (504, "upstream_timeout")
            assert answer.json()["details"] == "The service behind this proxy did not accept a connection in time."
        for other in others:
            other.close()


async def closes(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("ends", [closes, reset_instead], ids=["by closing", "connection reset"])
@pytest.mark.parametrize("body", [None, b"", b"hello"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_post_is_sent_at_most_once(stack: Stack, method: str, body: bytes | None, ends: Handler) -> None:
    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        stack.backend.handler = ends
        answer = await client.request(stack.good(method, "/once", body=body))
        assert (answer.status, answer.json()["code"]) == (502, "upstream_unreachable")
        assert answer.json()["details"] == "The service behind this proxy closed the connection."
    assert [seen.target for seen in stack.backend.requests] == ["/", "/once"]


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("GET", None),
        ("HEAD", None),
        ("PUT", None),
        ("DELETE", None),
        ("OPTIONS", None),
        ("PUT", b""),
        ("PUT", b"hello"),
    ],
)
async def test_an_idempotent_request_on_a_closed_idle_connection_is_repeated(
    stack: Stack, method: str, body: bytes | None
) -> None:
    async def once(_request: Request, writer: asyncio.StreamWriter) -> None:
        stack.backend.handler = ok
        writer.close()

    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        stack.backend.handler = once
        assert (await client.request(stack.good(method, "/twice", body=body))).status == 200
    assert [seen.target for seen in stack.backend.requests] == ["/", "/twice", "/twice"]
    assert [seen.body for seen in stack.backend.requests] == [b"", body or b"", body or b""]


async def test_a_request_on_a_new_connection_is_not_repeated(stack: Stack) -> None:
    stack.backend.handler = closes
    assert (await stack.fetch(stack.good())).status == 502
    assert len(stack.backend.requests) == 1


async def test_a_request_is_not_repeated_after_a_byte_of_its_answer(stack: Stack) -> None:
    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        stack.backend.handler = send(b"HTTP/1.1 200", close=True)
        assert (await client.request(stack.good())).status == 502
    assert len(stack.backend.requests) == 2


async def test_a_request_is_not_repeated_during_its_upload(stack: Stack) -> None:
    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        stack.backend.read_bodies = False
        stack.backend.handler = reset_instead
        await client.send(stack.good("PUT", "/once", headers=[("Content-Length", "5")]) + b"he")
        assert (await client.response("PUT")).status == 502
    assert [seen.target for seen in stack.backend.requests] == ["/", "/once"]


async def test_a_closed_idle_connection_is_not_used(stack: Stack) -> None:
    assert (await stack.fetch(stack.good())).status == 200
    await stack.backend.drop_connections()
    assert (await stack.fetch(stack.good("POST", "/x", body=b"hello"))).status == 200
    assert [seen.target for seen in stack.backend.requests] == ["/", "/x"]


async def test_a_content_length_of_2_to_the_64_is_a_502_each_time(stack: Stack) -> None:
    """If it were remembered, the next request would get the connection within this body."""
    stack.backend.handler = send(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n")
    for number in (1, 2, 3, 4):
        answer = await stack.fetch(stack.good())
        assert (answer.status, answer.json()["code"]) == (502, "upstream_invalid")
        assert stack.backend.connections == number


@pytest.mark.parametrize("name", ["Content-Length ", "Transfer-Encoding\t", "X-A ", "Connection "])
async def test_a_header_with_a_space_before_its_colon_is_a_502(stack: Stack, name: str) -> None:
    stack.backend.handler = send(f"HTTP/1.1 200 OK\r\n{name}: 0\r\nContent-Length: 2\r\n\r\nok".encode())
    answer = await stack.fetch(stack.good())
    assert (answer.status, answer.json()["code"]) == (502, "upstream_invalid")


@pytest.mark.parametrize(
    "begun",
    [
        b"H",
        b"HTTP/1.1 299 Poison",
        b"HTTP/1.1 299 Poison\r\nX-Evil: 1\r\n",
        b"HTTP/1.1 299 Poison\r\nX-Evil: \x00",
        b"HTTP/1.1 299 Poison\r\nSec-WebSocket-Key1: a\r\n",
        b"HTTP/1.1 299 Poison\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 299 Poison\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
@pytest.mark.parametrize("answer", [response(200, b"hello"), response(200, chunks=[b"hello"])])
async def test_a_begun_second_answer_does_not_reach_the_next_client(stack: Stack, answer: bytes, begun: bytes) -> None:
    stack.backend.handler = send(answer + begun)
    assert (await stack.fetch(stack.good())).status == 200
    stack.backend.handler = ok
    own = await stack.fetch(stack.good())
    assert (own.status, own.reason) == (200, "OK")
    assert stack.backend.connections == 2


async def test_the_request_id_of_an_answer_is_relayed(stack: Stack) -> None:
    stack.backend.handler = send(b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 2\r\n\r\nok")
    for _ in range(4):  # by then its head is remembered
        answer = await stack.fetch(stack.good(headers=[("X-Request-Id", "ours")]))
        assert answer.all("x-request-id") == ["theirs"]


@pytest.mark.parametrize("given", ["X-Request-Id: a\r\nX-Request-Id: b", "X-Request-Id: a\x10b", "X-Request-Id: "])
async def test_an_invalid_request_id_of_an_answer_is_replaced(stack: Stack, given: str) -> None:
    stack.backend.handler = send(f"HTTP/1.1 200 OK\r\n{given}\r\nContent-Length: 2\r\n\r\nok".encode())
    answer = await stack.fetch(stack.good(headers=[("X-Request-Id", "ours")]))
    assert answer.all("x-request-id") == ["ours"]
