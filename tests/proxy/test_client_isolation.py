"""The bytes of one party never become part of another's request or answer."""

import asyncio

import pytest

from tests.peers.backend import RawBackend, Request, send
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, ok, running

ON_EVERY_LOOP = True


@pytest.mark.parametrize("trailer", ["Set-Cookie: evil=1", "X-Request-Id: of-alice", "Transfer-Encoding: chunked"])
async def test_a_trailer_of_an_answer_is_not_a_header_of_the_next(trailer: str) -> None:
    chunked = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailer}\r\n\r\n".encode()
    async with running(backend=RawBackend(send(chunked))) as stack:
        assert (await stack.fetch(stack.good())).body == b"ok"
        stack.backend.handler = ok
        answer = await stack.fetch(stack.good(headers=[("X-Request-Id", "of-bob")]))
        assert (answer.status, answer.get("set-cookie"), answer.get("x-request-id")) == (200, None, "of-bob")
        assert stack.backend.connections == 1


HINTS = response(103, headers=[("Link", "</of-nobody.css>")])


def in_two_parts(body: bytes, framing: str) -> tuple[bytes, bytes]:
    """An answer with this body of even length: its head with half of the body, and the rest."""
    half = len(body) // 2
    if framing == "chunked":
        raw = response(200, chunks=[body[:half], body[half:]])
        cut = raw.index(b"\r\n", raw.index(body[:half])) + 2
    else:
        raw = response(200, body)
        cut = len(raw) - half
    return raw[:cut], raw[cut:]


@pytest.mark.parametrize("surplus", [HINTS, HINTS * 2, HINTS[:12], HINTS + response(200, b"of nobody")])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_bytes_after_the_end_of_an_answer_reach_no_client(framing: str, surplus: bytes) -> None:
    first, rest = in_two_parts(b"helloworld", framing)
    half_read = asyncio.Event()

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await half_read.wait()
        writer.write(rest + surplus)

    async with running(backend=RawBackend(handler)) as stack, stack.client() as client:
        await client.send(stack.good())
        begun = await client.reader.readuntil(b"hello")
        half_read.set()
        expected = b"world" if framing == "length" else b"\r\n5\r\nworld\r\n0\r\n\r\n"
        assert await client.read(len(expected)) == expected, begun
        await stack.backend.disconnected()
        stack.backend.handler = ok
        answer = await client.request(stack.good())
        assert (answer.body, answer.interim, stack.backend.connections) == (b'{"ok":true}', [], 2)


@pytest.mark.parametrize("surplus", [HINTS, HINTS * 2, HINTS + response(200, b"of nobody")])
@pytest.mark.parametrize("answer", [response(200, b"hello"), response(200, chunks=[b"hello"]), response(204)])
async def test_bytes_in_one_piece_with_an_answer_reach_no_client(answer: bytes, surplus: bytes) -> None:
    async with running(backend=RawBackend(send(answer + surplus))) as stack, stack.client() as client:
        for number in range(1, 4):
            got = await client.request(stack.good())
            assert (got.status, got.interim) == ((204 if b" 204 " in answer else 200), [])
            assert got.body == (b"" if got.status == 204 else b"hello")
            await stack.backend.disconnected(number)


async def test_successive_clients_get_their_own_answers() -> None:
    """It holds for any bytes of a backend after its answers, and for every framing."""
    framings = ["length", "chunked"]

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        body = request.target.encode() * 2
        first, rest = in_two_parts(body, framings[int(request.target[-1]) % 2])
        writer.write(first)
        for _ in range(3):  # turns in which the first half is relayed
            await asyncio.sleep(0)
        writer.write(rest + HINTS)

    async def ask(number: int) -> None:
        async with stack.client() as client:
            for turn in range(8):
                target = f"/of-{number}/{turn}"
                answer = await client.request(stack.good("GET", target))
                assert (answer.body, answer.interim) == (target.encode() * 2, [])

    async with running(backend=RawBackend(handler)) as stack:
        for number in range(4):
            await ask(number)
        await asyncio.gather(*map(ask, range(4, 8)))


def chunked_request(stack: Stack, trailer: bytes) -> bytes:
    head = request("POST", "/public/x")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"2\r\nok\r\n0\r\n" + trailer + b"\r\n\r\n"


async def test_a_trailer_of_a_request_is_not_a_header_of_the_next() -> None:
    async with running(routes=[{"path": "/public/*", "auth": "none"}]) as stack, stack.client() as client:
        assert (await client.request(chunked_request(stack, stack.credentials))).status == 200
        answer = await client.request(request("POST", "/transfer", body=b"10"))
        assert (answer.status, answer.json()["code"]) == (401, "token_missing")
        assert [seen.target for seen in stack.backend.requests] == ["/public/x"]


async def test_a_request_after_a_chunked_one_has_none_of_its_trailers() -> None:
    async with running(routes=[{"path": "/public/*", "auth": "none"}]) as stack, stack.client() as client:
        transfer = request("POST", "/transfer")
        await client.send(chunked_request(stack, stack.credentials) + transfer + stack.good("GET", "/second"))
        assert [(await client.response()).status for _ in range(3)] == [200, 401, 200]
        assert [seen.target for seen in stack.backend.requests] == ["/public/x", "/second"]


async def test_an_incomplete_request_after_a_chunked_one_continues_with_the_next_bytes() -> None:
    async with running(routes=[{"path": "/public/*", "auth": "none"}]) as stack, stack.client() as client:
        await client.send(chunked_request(stack, b"X-A: b") + b"GET /public/y HTTP/1.1\r\nHost: a\r\nX-B: ")
        assert (await client.response("POST")).status == 200
        await client.send(stack.good("GET", "/second"))
        assert (await client.response()).status == 400  # for two Host headers
        assert await client.answers() == []
        assert [seen.target for seen in stack.backend.requests] == ["/public/x"]


async def test_the_refusal_of_a_broken_pipelined_body_goes_to_its_own_client() -> None:
    release = asyncio.Event()

    async def wait(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await ok(request, writer)

    async with running(backend=RawBackend(wait)) as stack, stack.client() as client:
        await client.send(stack.good("GET", "/first"))
        await stack.backend.received()
        await client.send(stack.good("POST", "/second")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
        await client.send(b"no chunk\r\n")
        await asyncio.sleep(0.05)
        release.set()
        assert [answer.status for answer in await client.answers()] == [200, 400]
