"""Bodies pass unchanged, as they come, and no faster than the receiver reads."""

import asyncio
import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.peers import Tally, patience
from tests.peers.backend import RawBackend, Request, echo, never, send
from tests.peers.raw import pause_reading, resume_reading
from tests.peers.wire import Truncated, chunked, request, response
from tests.proxy.conftest import Stack, ok, running

ON_EVERY_LOOP = True  # transports pause, close and abort differently on each loop

MIB = 1024 * 1024
LARGE = bytes(range(256)) * (3 * MIB // 256) + b"end"
PIECE = b"x" * 65536
ENDLESS = 2048  # pieces: 128 MiB, which no buffer on the way could take


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def settled(tally: Tally) -> int:
    """How far a number got, once it has stopped to grow for a while. Too early a guess is only a smaller number."""
    before = -1
    async with patience(f"{tally!r} to stop growing"):
        while before != tally.count:
            before = tally.count
            await asyncio.sleep(0.05)
    return before


# Whole bodies


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 70_000, LARGE], ids=["empty", "one byte", "70 kB", "3 MiB"])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_uploads_and_downloads_are_unchanged(stack: Stack, framing: str, body: bytes) -> None:
    stack.backend.handler = echo
    pieces = [body[at : at + 50_001] for at in range(0, len(body), 50_001)]
    sized = framing == "sized"
    raw = stack.good("POST", "/x", body=body) if sized else stack.good("POST", "/x", chunks=pieces)
    answer = await stack.fetch(raw)
    assert (answer.status, answer.delimited) == (200, "length")
    assert digest(answer.body) == digest(body)
    assert digest(stack.backend.requests[0].body) == digest(body)


@pytest.mark.parametrize(
    ("sent", "length"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"body": b""}, "0", id="empty"),
        pytest.param({"chunks": [b"he", b"llo"]}, "5", id="chunks"),
    ],
)
async def test_a_body_that_has_already_arrived_is_sent_with_its_length(
    stack: Stack, sent: dict[str, Any], length: str | None
) -> None:
    assert (await stack.fetch(stack.good("POST", "/x", **sent))).status == 200
    (seen,) = stack.backend.requests
    assert (seen.get("content-length"), seen.get("transfer-encoding")) == (length, None)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_download_is_unchanged_in_every_framing(stack: Stack, framing: str) -> None:
    if framing == "chunked":
        stack.backend.handler = send(response(200, chunks=[LARGE[:7], LARGE[7:2_000_000], LARGE[2_000_000:]]))
    else:
        stack.backend.handler = send(response(200, LARGE, sized=framing == "length"), close=framing == "close")
    answer = await stack.fetch(stack.good())
    assert digest(answer.body) == digest(LARGE)
    assert answer.delimited == ("length" if framing == "length" else "chunked")


@pytest.mark.parametrize("length", [0, 1, 5, 2**40])
async def test_an_answer_to_head_keeps_its_content_length(stack: Stack, length: int) -> None:
    stack.backend.handler = send(response(200, headers=[("Content-Length", str(length)), ("ETag", '"a"')], sized=False))
    async with stack.client() as client:
        for _ in range(2):
            answer = await client.request(stack.good("HEAD"))
            assert (answer.status, answer.get("content-length"), answer.get("etag")) == (200, str(length), '"a"')
        stack.backend.handler = ok
        assert (await client.request(stack.good())).body == b'{"ok":true}'
    assert stack.backend.connections == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_leaves_the_connections_usable(stack: Stack, status: int) -> None:
    async with stack.client() as client:
        stack.backend.handler = send(response(status, headers=[("ETag", '"a"')]))
        for method in ("GET", "POST", "HEAD"):
            answer = await client.request(stack.good(method))
            assert (answer.status, answer.get("etag"), answer.body) == (status, '"a"', b"")
            assert answer.get("transfer-encoding") is None
        stack.backend.handler = ok
        assert (await client.request(stack.good())).body == b'{"ok":true}'
    assert stack.backend.connections == 1


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", "HTTP/1.1 200 OK"),
        ("GET", "HTTP/1.1 304 Not Modified"),
        ("GET", "HTTP/1.1 204 No Content"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0"),
    ],
)
async def test_an_answer_without_a_body_gets_no_length(stack: Stack, method: str, head: str) -> None:
    stack.backend.handler = send(f"{head}\r\n\r\n".encode())
    answer = await stack.fetch(stack.good(method))
    assert (answer.get("content-length"), answer.get("transfer-encoding")) == (None, None)
    assert [name for name, _ in answer.headers] == ["X-Request-Id"]


async def test_a_304_keeps_its_length(stack: Stack) -> None:
    stack.backend.handler = send(response(304, headers=[("Content-Length", "5")]))
    async with stack.client() as client:
        assert (await client.request(stack.good())).get("content-length") == "5"
        stack.backend.handler = ok
        assert (await client.request(stack.good())).body == b'{"ok":true}'


async def test_content_codings_cookies_and_redirects_pass_unchanged(stack: Stack) -> None:
    packed = gzip.compress(LARGE)
    headers = [
        ("Content-Encoding", "gzip"),
        ("Set-Cookie", "a=1; Path=/"),
        ("set-cookie", "b=2, 3"),
        ("Location", "http://elsewhere.test/%2e/../x"),
        ("X-Odd", 'caf\udcc3\udca9 "a"\t,'),
    ]
    stack.backend.handler = send(response(302, packed, headers))
    raw = stack.good("POST", "/x", headers=[("Content-Encoding", "gzip"), ("Cookie", "a=1; b=2")], body=packed)
    answer = await stack.fetch(raw)
    assert (answer.status, answer.body) == (302, packed)
    assert answer.headers[: len(headers)] == [
        (name, value.encode("utf-8", "surrogateescape").decode("latin-1")) for name, value in headers
    ]
    [seen] = stack.backend.requests
    assert (seen.body, seen.get("content-encoding"), seen.get("cookie")) == (packed, "gzip", "a=1; b=2")
    assert [name for name in ("accept", "accept-encoding", "user-agent", "content-type") if seen.get(name)] == []


# HTTP/1.0


def of_1_0(stack: Stack, *headers: str) -> bytes:
    return stack.raw("\n".join(["GET /x HTTP/1.0", "ALICE", *headers, "", ""]))


async def test_an_http_1_0_client_gets_a_body_until_close(stack: Stack) -> None:
    relayed = asyncio.Event()

    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, chunks=[b"hel"])[:-5])
        await relayed.wait()
        writer.write(chunked([b"lo"]))

    stack.backend.handler = handler
    async with stack.client() as client:
        await client.send(of_1_0(stack))
        head = await client.reader.readuntil(b"\r\n\r\nhel")
        assert b"Connection: close\r\n" in head
        assert b"Transfer-Encoding" not in head
        relayed.set()
        assert await client.closed() == b"lo"
    assert stack.backend.requests[0].get("host") == "{}:{}".format(*stack.backend.address)


async def test_an_incomplete_answer_to_an_http_1_0_client_ends_with_a_reset(stack: Stack) -> None:
    async def half(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, chunks=[b"hel"])[:-5])
        await asyncio.Event().wait()

    stack.backend.handler = half
    async with stack.client() as client:
        await client.send(of_1_0(stack))
        await client.reader.readuntil(b"\r\n\r\nhel")
        await stack.backend.drop_connections()
        with pytest.raises(ConnectionError):
            await client.reader.read()


async def test_an_http_1_0_client_may_keep_its_connection(stack: Stack) -> None:
    async with stack.client() as client:
        for _ in range(2):
            answer = await client.request(of_1_0(stack, "Connection: keep-alive"))
            assert (answer.body, answer.get("connection")) == (b'{"ok":true}', "keep-alive")


async def test_an_http_1_0_client_gets_no_early_hints(stack: Stack) -> None:
    stack.backend.handler = send(response(103, headers=[("Link", "</a>")]), response(200, b"hello"))
    answer = await stack.fetch(of_1_0(stack))
    assert (answer.body, answer.interim) == (b"hello", [])


@pytest.mark.parametrize("length", ["", "Content-Length: 5\r\n"])
async def test_an_answer_of_an_http_1_0_backend_is_relayed_as_http_1_1(stack: Stack, length: str) -> None:
    stack.backend.handler = send(f"HTTP/1.0 200 OK\r\n{length}\r\nhello".encode(), close=True)
    async with stack.client() as client:
        for _ in range(2):
            answer = await client.request(stack.good())
            assert (answer.version, answer.status, answer.body) == ("HTTP/1.1", 200, b"hello")
    assert stack.backend.connections == 2


async def test_an_http_1_0_backend_may_keep_its_connection(stack: Stack) -> None:
    stack.backend.handler = send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello")
    async with stack.client() as client:
        for _ in range(3):
            assert (await client.request(stack.good())).body == b"hello"
    assert stack.backend.connections == 1


# Relaying without delay


@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_an_upload_is_relayed_while_it_arrives(framing: str) -> None:
    async with running(backend=RawBackend(read_bodies=False)) as stack, stack.client() as client:
        pieces = [b"first", b"second", b"last"]
        sized = framing == "sized"
        stack.backend.handler = answer = Held()
        header = ("Content-Length", "15") if sized else ("Transfer-Encoding", "chunked")
        await client.send(stack.good("POST", "/x", headers=[header]))
        seen = await stack.backend.received()
        for piece in pieces:
            await client.send(piece if sized else chunked([piece])[:-5])
            expected = piece if sized else chunked([piece])[:-5]
            async with patience("the piece at the backend"):
                assert await seen.reader.readexactly(len(expected)) == expected
        if not sized:
            await client.send(b"0\r\n\r\n")
            assert await seen.reader.readexactly(5) == b"0\r\n\r\n"
        seen.complete = True
        answer.release.set()
        assert (await client.response("POST")).status == 200


class Held:
    """A handler that answers when the test releases it."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self.release.wait()
        await ok(request, writer)


@pytest.mark.parametrize("framing", ["sized", "chunked", "until closed"])
async def test_a_download_is_relayed_while_it_arrives(stack: Stack, framing: str) -> None:
    pieces = [b"first", b"second", b"last"]
    seen = [asyncio.Event() for _ in pieces]
    header = {"sized": "Content-Length: 15\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "until closed": ""}[
        framing
    ]

    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{header}\r\n".encode())
        for piece, relayed in zip(pieces, seen, strict=True):
            writer.write(chunked([piece])[:-5] if framing == "chunked" else piece)
            await relayed.wait()
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
        elif framing == "until closed":
            writer.close()

    stack.backend.handler = handler
    async with stack.client() as client:
        await client.send(stack.good())
        async with patience("each piece before the next is sent"):
            for piece, relayed in zip(pieces, seen, strict=True):
                assert (await client.reader.readuntil(piece)).endswith(piece)
                relayed.set()
            if framing != "sized":
                assert await client.reader.readuntil(b"0\r\n\r\n") == b"\r\n0\r\n\r\n"
        stack.backend.handler = ok
        assert (await client.request(stack.good())).status == 200


async def test_the_head_of_an_answer_is_relayed_before_its_body(stack: Stack) -> None:
    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await asyncio.Event().wait()

    stack.backend.handler = handler
    async with stack.client() as client:
        await client.send(stack.good())
        async with patience("the head"):
            assert b"text/event-stream" in await client.reader.readuntil(b"\r\n\r\n")


async def test_interim_answers_but_100_are_relayed(stack: Stack) -> None:
    hints = response(103, headers=[("Link", "</a.css>"), ("Connection", "X-B"), ("X-B", "1"), ("X-JWT-Sidecar", "x")])
    stack.backend.handler = send(response(100), hints, response(199), response(200, b"hello"))
    async with stack.client() as client:
        for _ in range(2):
            answer = await client.request(stack.good())
            assert (answer.status, answer.body) == (200, b"hello")
            assert [(interim.status, interim.headers) for interim in answer.interim] == [
                (103, [("Link", "</a.css>")]),
                (199, []),
            ]
    assert stack.backend.connections == 1


@pytest.mark.parametrize("header", [b"Link: a\rb", b"Link: a\x01b", b"Link: a\x7fb", b"Link : a", b"Li(nk: a"])
async def test_a_103_with_an_invalid_header_is_not_relayed(stack: Stack, header: bytes) -> None:
    stack.backend.handler = send(b"HTTP/1.1 103 Early Hints\r\n" + header + b"\r\n\r\n", response(200, b"hello"))
    answer = await stack.fetch(stack.good())
    assert answer.status == 502 or (answer.body, answer.interim) == (b"hello", [])


# Pausing for the slower side


async def test_a_backend_that_does_not_read_pauses_the_client(stack: Stack) -> None:
    read_on = asyncio.Event()

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        pause_reading(writer)
        await read_on.wait()
        resume_reading(writer)
        total = 0
        while total < len(PIECE) * ENDLESS:
            total += len(await request.reader.read(MIB))
        request.complete = True
        await ok(request, writer)

    stack.backend.read_bodies = False
    stack.backend.handler = handler
    taken = Tally("pieces taken")
    async with stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", str(len(PIECE) * ENDLESS))]))
        await stack.backend.received()
        sending = asyncio.create_task(pour(client.writer, taken))
        assert await settled(taken) < ENDLESS * 3 // 4
        assert not sending.done()
        read_on.set()
        await sending
        assert (await client.response("POST")).status == 200


async def pour(writer: asyncio.StreamWriter, taken: Tally) -> None:
    for _ in range(ENDLESS):
        writer.write(PIECE)
        await writer.drain()
        taken.add()


@pytest.mark.parametrize("framing", ["Content-Length: " + str(len(PIECE) * ENDLESS), "X-Until: closed"])
async def test_a_client_that_does_not_read_pauses_the_backend(stack: Stack, framing: str) -> None:
    taken = Tally("pieces taken")

    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        await pour(writer, taken)
        writer.close()

    stack.backend.handler = handler
    async with stack.client() as client:
        await client.send(stack.good())
        await client.reader.readuntil(b"\r\n\r\n")
        pause_reading(client.writer)
        assert await settled(taken) < ENDLESS * 3 // 4
        stack.clock.ahead_s += 280  # of 300 by default
        stack.sidecar.live.deadlines.tick()
        resume_reading(client.writer)
        left = len(PIECE) * ENDLESS
        async with patience("the rest"):
            while left > 0:
                left -= len(await client.reader.read(min(left, MIB)))
        assert taken.count >= ENDLESS - 1


# One side ends early


async def test_an_early_answer_is_relayed_during_the_upload() -> None:
    early = send(response(413, b"too much"), close=True)
    async with running(backend=RawBackend(early, read_bodies=False)) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", str(100 * MIB))]) + PIECE)
        answer = await client.response("POST")
        assert (answer.status, answer.body, answer.get("connection")) == (413, b"too much", "close")
        await client.send(PIECE)
        assert await client.answers() == []


async def test_a_connection_with_an_early_answer_is_not_reused() -> None:
    early = send(response(413, b"too much"))
    async with running(backend=RawBackend(early, read_bodies=False)) as stack:
        async with stack.client() as client:
            await client.send(stack.good("POST", "/x", headers=[("Content-Length", "10")]) + b"half")
            assert (await client.response("POST")).status == 413
            stack.backend.handler = ok
            assert (await stack.fetch(stack.good())).status == 200
        assert stack.backend.connections == 2


@pytest.mark.parametrize("when", ["before an answer", "within an upload", "within a download"])
@pytest.mark.parametrize("politely", [True, False], ids=["closes", "resets"])
async def test_a_client_that_leaves_ends_its_request_to_the_backend(stack: Stack, when: str, politely: bool) -> None:
    async def endless(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await asyncio.Event().wait()

    stack.backend.handler = endless if when == "within a download" else never
    stack.backend.read_bodies = when != "within an upload"
    async with stack.client() as client:
        upload = [("Content-Length", "10")] if when == "within an upload" else []
        await client.send(stack.good("POST" if upload else "GET", "/x", headers=upload) + b"half" * len(upload))
        await stack.backend.received()
        if when == "within a download":
            await client.reader.readuntil(b"hello")
        if politely:
            await client.close()
        else:
            client.abort()
        await stack.backend.disconnected()
    assert stack.sidecar.live.resources.requests_in_flight == 0


async def test_an_incomplete_upload_never_becomes_a_complete_request(stack: Stack) -> None:
    async with stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", "10")]) + b"half")
        await stack.backend.connected()
    assert (await stack.backend.interrupted()).body_raw == b"half"
    assert stack.backend.requests == []


@pytest.mark.parametrize("by_reset", [True, False], ids=["resets", "closes"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_backend_that_leaves_within_its_answer_aborts_the_clients_connection(
    stack: Stack, framing: str, by_reset: bool
) -> None:
    async def half(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello".encode())
        await asyncio.Event().wait()

    stack.backend.handler = half
    async with stack.client() as client:
        await client.send(stack.good(), tail=stack.good())
        assert b"hello" in await client.reader.readuntil(b"hello")
        await stack.backend.drop_connections(by_reset=by_reset)
        assert b"0\r\n\r\n" not in await client.closed()
    assert len(stack.backend.requests) == 1


async def test_a_backend_that_leaves_within_an_upload_is_a_502() -> None:
    async with running(backend=RawBackend(never, read_bodies=False)) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", "10")]) + b"half")
        await stack.backend.received()
        await stack.backend.drop_connections()
        answer = await client.response("POST")
        assert (answer.status, answer.get("connection")) == (502, "close")


async def test_an_invalid_chunk_ends_a_relayed_upload() -> None:
    async with running(backend=RawBackend(never, read_bodies=False)) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n")
        seen = await stack.backend.received()
        async with patience("the first chunk"):
            assert await seen.reader.readuntil(b"hello\r\n") == b"5\r\nhello\r\n"
        await client.send(b"no size\r\n")
        answer = await client.response("POST")
        assert (answer.status, answer.json()["details"]) == (400, "The request's body is not well-formed.")
        with pytest.raises(Truncated):
            await seen.read()


# Connections to the backend


async def test_connections_to_the_backend_are_reused(stack: Stack) -> None:
    async with stack.client() as client:
        for _ in range(5):
            assert (await client.request(stack.good("POST", "/x", body=b"hello"))).status == 200
    for _ in range(5):
        assert (await stack.fetch(stack.good())).status == 200
    assert stack.backend.connections == 1


async def test_simultaneous_requests_have_separate_connections(stack: Stack) -> None:
    stack.backend.handler = held = Held()
    fetches = [asyncio.create_task(stack.fetch(stack.good())) for _ in range(3)]
    await stack.backend.received(3)
    assert stack.backend.connections == 3
    held.release.set()
    assert [(await one).status for one in fetches] == [200] * 3
    for _ in range(3):
        assert (await stack.fetch(stack.good())).status == 200
    assert stack.backend.connections == 3


async def test_a_connection_with_close_is_not_reused(stack: Stack) -> None:
    stack.backend.handler = send(response(200, b"hello", [("Connection", "close")]))
    for _ in range(2):
        answer = await stack.fetch(stack.good())
        assert (answer.body, answer.get("connection")) == (b"hello", None)
    assert stack.backend.connections == 2


@pytest.mark.parametrize("body", [b"", LARGE], ids=["empty", "3 MiB"])
async def test_a_backend_may_listen_on_a_unix_socket(tmp_path: Path, body: bytes) -> None:
    async with running(backend=RawBackend(echo, unix=tmp_path / "app.sock")) as stack:
        for _ in range(2):
            assert digest((await stack.fetch(stack.good("POST", "/x", body=body))).body) == digest(body)
        assert stack.backend.connections == 1
        await stack.backend.go_down()
        assert (await stack.fetch(stack.good())).status == 502


async def test_a_route_selects_its_backend() -> None:
    async with RawBackend(send(response(200, b"other"))) as other:
        routes = [{"path": "/other/*", "upstream": "other"}]
        async with running(upstreams={"other": {"url": other.url}}, routes=routes) as two:
            assert (await two.fetch(two.good("GET", "/other/x"))).body == b"other"
            assert (await two.fetch(two.good("GET", "/x"))).body == b'{"ok":true}'
            assert [seen.target for seen in other.requests] == ["/other/x"]
            await other.drop_connections()


async def test_slow_clients_do_not_delay_others(stack: Stack) -> None:
    stack.backend.handler = held = Held()
    async with stack.client() as slow, stack.client() as half:
        await slow.send(stack.good())
        await half.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        await stack.backend.received()
        stack.backend.handler = ok
        assert (await stack.fetch(stack.good())).status == 200
        assert (await stack.fetch(request())).status == 401
        held.release.set()
        assert (await slow.response()).status == 200


async def test_the_end_of_a_large_body_does_not_count_as_a_head() -> None:
    async with running(limits={"header_bytes": 8192}) as stack, stack.client() as client:
        await client.send(stack.raw("POST / HTTP/1.1\nHost: a.test\nALICE\nContent-Length: 60000\n\n"))
        await stack.backend.connected()
        await client.send(b"x" * 60000)
        assert (await client.response()).status == 200
        assert (await client.request(stack.good())).status == 200
