"""A busy client does not keep others from their turn. The tests check the order of events, never seconds.

Everything runs in one loop, so a bystander is served only when the sidecar yields. The number of its answers during a flood
shows the size of the pieces in which the sidecar serves the flood.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, Request
from tests.peers.wire import WEBSOCKET, request
from tests.proxy.conftest import Client, Stack, running

ON_EVERY_LOOP = True
BURST = 256 << 10  # bytes that a socket may give in one read
PIECE = 512  # requests for which nobody has to wait more than once, and of dear ones:
DEAR = 300
READ = 200 << 10  # bytes of frames or chunks for which nobody has to wait more than once
REFUSED = {
    "no token": b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a malformed token": b"GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n",
    "an ambiguous path": b"GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
    "a thousand slashes": b"GET " + b"/" * 1000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS": b"OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n",
}


class Sink(asyncio.Protocol):
    """A client that sends at once, and counts a mark in the answers."""

    def __init__(self, mark: bytes) -> None:
        self.marks = 0
        self.ended = False
        self._mark = mark
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self.marks += data.count(self._mark)
        self._rest = data[-(len(self._mark) - 1) :]

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended = True


async def connected(stack: Stack, mark: bytes) -> tuple[asyncio.Transport, Sink]:
    loop = asyncio.get_running_loop()
    return await loop.create_connection(lambda: Sink(mark), *stack.sidecar.proxy_address)


async def meanwhile(ask: Callable[[], Awaitable[object]], going_on: Callable[[], bool]) -> int:
    """The number of answers that a bystander gets during a flood."""
    answered = 0
    async with patience("the end of the flood"):
        while going_on():
            await ask()
            answered += 1
    return answered


def bystander(stack: Stack, client: Client, *, refused: bool = False) -> Callable[[], Awaitable[object]]:
    """Sends requests to the backend, or, if that is busy, requests that the sidecar refuses."""
    raw = request("GET", "/bystander") if refused else stack.good("GET", "/bystander")

    async def ask() -> None:
        assert (await client.request(raw)).status == (401 if refused else 200)

    return ask


@pytest.mark.parametrize("who", ["bystander", "/livez"])
@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
async def test_others_are_answered_during_a_burst_of_refused_requests(raw: bytes, who: str) -> None:
    async with running() as stack, stack.client() as client:
        ask = bystander(stack, client) if who == "bystander" else lambda: stack.health("/livez")
        await ask()
        number = max(BURST // len(raw), 2000)
        transport, sink = await connected(stack, b"HTTP/1.1 4")
        transport.write(raw * number)
        answered = await meanwhile(ask, lambda: sink.marks < number and not sink.ended)
        transport.abort()
        assert sink.marks == number
        assert answered > number // (DEAR if len(raw) > 1000 else PIECE)


async def test_others_are_answered_during_a_burst_of_good_requests(stack: Stack) -> None:
    async with stack.client() as client:
        ask = bystander(stack, client)
        raw = stack.good("GET", "/x")
        number = BURST // len(raw)
        transport, sink = await connected(stack, b'{"ok":true}')
        transport.write(raw * number)
        answered = await meanwhile(ask, lambda: sink.marks < number)
        transport.abort()
        assert answered > number // 50


@pytest.mark.parametrize("size", [0, 1, 125], ids=["empty", "1 byte", "125 bytes"])
async def test_others_are_answered_during_a_flood_of_frames(size: int) -> None:
    """The backend counts: few frames arrive between two answers."""
    frame = bytes((0x82, 0x80 | size, 1, 2, 3, 4)) + b"x" * size
    flood = frame * (16 * BURST // len(frame))
    arrived = 0

    async def tunnel(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while piece := await request.reader.read(65536):
            arrived += len(piece)

    async with running(backend=RawBackend(tunnel)) as stack, stack.client() as client:
        ask = bystander(stack, client, refused=True)
        await ask()
        transport, sink = await connected(stack, b"HTTP/1.1 101 ")
        transport.write(stack.good("GET", "/", headers=WEBSOCKET))
        async with patience("the 101"):
            while not sink.marks:
                await ask()
        transport.write(flood)
        answered = await meanwhile(ask, lambda: arrived < len(flood))
        transport.abort()
        assert answered > len(flood) // READ


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_others_are_answered_during_a_flood_of_tiny_chunks(direction: str) -> None:
    chunks = b"1\r\nx\r\n" * (8 * BURST // 6) + b"0\r\n\r\n"
    arrived = False

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        if direction == "up":
            rest = b""
            while not rest.endswith(b"0\r\n\r\n"):
                rest = rest[-5:] + await request.reader.read(65536)
            arrived = request.complete = True
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    async with running(backend=RawBackend(handler, read_bodies=False)) as stack, stack.client() as client:
        ask = bystander(stack, client, refused=True)
        await ask()
        transport, sink = await connected(stack, b"\r\n0\r\n\r\n")
        if direction == "up":
            transport.write(stack.good("POST", "/", headers=[("Transfer-Encoding", "chunked")]) + chunks)
        else:
            transport.write(stack.good("GET", "/"))
        answered = await meanwhile(ask, lambda: not (arrived or sink.marks))
        transport.abort()
        assert answered > len(chunks) // READ


async def test_others_are_answered_during_a_flood_of_empty_lines(stack: Stack) -> None:
    """Empty lines before a head are passed over (RFC 9112 section 2.2), some of them."""
    async with stack.client() as client:
        ask = bystander(stack, client, refused=True)
        transport, sink = await connected(stack, b"HTTP/1.1 ")
        transport.write(b"\r\n" * BURST + request("GET", "/last"))
        await meanwhile(ask, lambda: not (sink.marks or sink.ended))
        transport.abort()


@pytest.mark.parametrize("clients", [1, 4])
@pytest.mark.parametrize("target", ["/x", "/public/%2e%2e/x"])
async def test_the_loop_turns_after_each_refused_request(target: str, clients: int) -> None:
    most = 0

    async def watch_each_turn() -> None:
        nonlocal most
        before = 0
        while True:
            await asyncio.sleep(0)
            total = stack.sidecar.live.telemetry.refusals.total
            most = max(most, total - before)
            before = total

    async def burst() -> None:
        async with stack.client() as client:
            await client.send(request("GET", target, host="a") * 500)
            for _ in range(500):
                assert (await client.response()).status in (400, 401)

    async with running(routes=[{"path": "/public/*", "auth": "none"}]) as stack:
        watching = asyncio.create_task(watch_each_turn())
        await asyncio.gather(*(burst() for _ in range(clients)))
        watching.cancel()
        assert 0 < most <= clients
