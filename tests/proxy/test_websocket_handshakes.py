"""Only a complete WebSocket handshake (RFC 6455 section 4.1) is relayed as one; bytes after others are the next request."""

import asyncio

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, Request, send
from tests.peers.wire import WEBSOCKET, Headers, request, response
from tests.proxy.conftest import Stack, ok, running

ON_EVERY_LOOP = True
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
FRAME = b"\x81\x82\x00\x00\x00\x00hi"


def without(name: str) -> Headers:
    return [header for header in WEBSOCKET if header[0] != name]


def with_value(name: str, value: str) -> Headers:
    return [*without(name), (name, value)]


KEY, VERSION = "Sec-WebSocket-Key", "Sec-WebSocket-Version"
NONE: dict[str, tuple[str, Headers, bytes]] = {
    "no key": ("GET", without(KEY), b""),
    "an empty key": ("GET", with_value(KEY, ""), b""),
    "a key of 3 bytes": ("GET", with_value(KEY, "YWJj"), b""),
    "two keys": ("GET", [*WEBSOCKET, (KEY, "AAAAAAAAAAAAAAAAAAAAAA==")], b""),
    "no version": ("GET", without(VERSION), b""),
    "version 777": ("GET", with_value(VERSION, "777"), b""),
    "version 8": ("GET", with_value(VERSION, "8"), b""),
    "two versions": ("GET", [*WEBSOCKET, (VERSION, "8")], b""),
    "POST": ("POST", WEBSOCKET, b""),
    "a sized body": ("GET", [*WEBSOCKET, ("Content-Length", "5")], b"hello"),
    "a chunked body": ("GET", [*WEBSOCKET, ("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n0\r\n\r\n"),
    "two protocols": ("GET", with_value("Upgrade", "websocket, foo"), b""),
    "Upgrade twice": ("GET", [*WEBSOCKET, ("Upgrade", "websocket")], b""),
    "the key named in Connection": ("GET", with_value("Connection", f"Upgrade, {KEY}"), b""),
    "Upgrade not named in Connection": ("GET", with_value("Connection", "keep-alive"), b""),
}
every = pytest.mark.parametrize(("method", "headers", "body"), NONE.values(), ids=NONE)


async def switches(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCH)
    await asyncio.Event().wait()


def assert_ordinary(seen: list[Request]) -> None:
    """The request at the backend after an incomplete handshake."""
    for one in seen:
        assert one.get("upgrade") is None
        assert "upgrade" not in (one.get("connection") or "").lower()


async def test_a_complete_handshake_is_relayed() -> None:
    async def tunnel(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        writer.write(await request.reader.readexactly(len(FRAME)))

    async with running(backend=RawBackend(tunnel)) as stack, stack.client() as client:
        await client.send(stack.good("GET", "/", headers=WEBSOCKET))
        assert (await client.response()).status == 101
        await client.send(FRAME)
        assert await client.read(len(FRAME)) == FRAME
        seen = stack.backend.requests[0]
        for name, value in WEBSOCKET:
            assert (seen.get(name) or "").lower() == value.lower()


@pytest.mark.parametrize("value", ["WebSocket", "websocket", "WEBSOCKET"])
async def test_upgrade_websocket_is_case_insensitive(value: str) -> None:
    async with running(backend=RawBackend(switches)) as stack, stack.client() as client:
        await client.send(stack.good("GET", "/", headers=with_value("Upgrade", value)))
        assert (await client.response()).status == 101


@every
async def test_an_incomplete_handshake_is_an_ordinary_request_or_refused(
    stack: Stack, method: str, headers: Headers, body: bytes
) -> None:
    answer = await stack.fetch(stack.good(method, "/", headers=headers) + body)
    assert answer.status in (200, 400, 426)
    assert len(stack.backend.requests) == (answer.status == 200)
    assert_ordinary(stack.backend.requests)


async def test_a_handshake_over_http_1_0_is_an_ordinary_request(stack: Stack) -> None:
    answer = await stack.fetch(stack.good("GET", "/", headers=WEBSOCKET).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.status in (200, 400, 426)
    assert_ordinary(stack.backend.requests)


@every
async def test_an_unrequested_101_is_an_invalid_answer(method: str, headers: Headers, body: bytes) -> None:
    async with running(backend=RawBackend(switches)) as stack, stack.client() as client:
        await client.send(stack.good(method, "/", headers=headers) + body)
        answer = await client.response(method)
        assert answer.status in (400, 426, 502)


@every
async def test_bytes_after_an_incomplete_handshake_are_the_next_request(
    stack: Stack, method: str, headers: Headers, body: bytes
) -> None:
    """They are never bytes of a tunnel, which could hide another request."""
    async with stack.client() as client:
        await client.send(stack.good(method, "/first", headers=headers) + body, tail=request("GET", "/next"))
        first = await client.response(method)
        assert first.status in (200, 400, 426)
        if first.get("connection") == "close":
            assert await client.closed() == b""
        else:
            assert (await client.response()).status == 401
    assert [seen.target for seen in stack.backend.requests] == ["/first"] * (first.status == 200)
    assert_ordinary(stack.backend.requests)


@pytest.mark.parametrize("status", [200, 403, 426])
async def test_bytes_after_a_refused_handshake_are_dropped(status: int) -> None:
    async with running(backend=RawBackend(send(response(status, b"no")))) as stack, stack.client() as client:
        await client.send(stack.good("GET", "/ws", headers=WEBSOCKET), tail=stack.good("GET", "/next"))
        answer = await client.response()
        assert (answer.status, answer.get("connection")) == (status, "close")
        assert await client.closed() == b""
        await stack.health("/livez")  # by then the sidecar has forwarded the earlier bytes
        assert [seen.target for seen in stack.backend.requests] == ["/ws"]


async def test_frames_sent_with_a_handshake_wait_for_its_101() -> None:
    agreed = asyncio.Event()
    early: list[bytes] = []

    async def tunnel(request: Request, writer: asyncio.StreamWriter) -> None:
        early.append(bytes(request.reader._buffer))  # type: ignore[attr-defined]
        await agreed.wait()
        early.append(bytes(request.reader._buffer))  # type: ignore[attr-defined]
        writer.write(SWITCH)
        writer.write(await request.reader.readexactly(len(FRAME)))

    async with running(backend=RawBackend(tunnel)) as stack, stack.client() as client:
        await client.send(stack.good("GET", "/", headers=WEBSOCKET), tail=FRAME)
        await stack.backend.received()
        await stack.health("/livez")
        agreed.set()
        assert (await client.response()).status == 101
        async with patience("the frame"):
            assert await client.read(len(FRAME)) == FRAME
        assert early == [b"", b""]


SIZED, CHUNKED = ("Content-Length", "5"), ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("version", "framing", "body"),
    [
        ("HTTP/1.1", SIZED, b"hello"),
        ("HTTP/1.1", CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        ("HTTP/1.0", SIZED, b"hello"),
        ("HTTP/1.0", CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        ("HTTP/1.0", ("X-A", "b"), b""),
    ],
)
async def test_another_protocol_is_not_requested_with_a_body_or_over_http_1_0(
    version: str, framing: tuple[str, str], body: bytes
) -> None:
    routes = [{"path": "/*", "upgrades": ["x-proto/1"]}]
    async with running(backend=RawBackend(ok), routes=routes) as stack:
        headers = [("Connection", "Upgrade"), ("Upgrade", "x-proto/1"), framing]
        raw = stack.good("POST", "/", headers=headers).replace(b"HTTP/1.1", version.encode()) + body
        answer = await stack.fetch(raw)
        assert answer.status in (200, 400)
        assert_ordinary(stack.backend.requests)
