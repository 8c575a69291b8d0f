"""The sidecar holds a bounded number of bytes, however much is sent and however little is read; the sender must wait.

Its buffered bytes are counted from outside: the sent bytes, less those in the kernel (`tests/peers/kernel.py`).
"""

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never, send
from tests.peers.kernel import Narrow, Wire, narrow, still
from tests.peers.tls import authority, client_tls
from tests.peers.wire import chunked, request, response
from tests.proxy.conftest import Stack, ok, running
from tests.proxy.test_tls import write

ON_EVERY_LOOP = True
CHUNK = b"ea60\r\n" + bytes(60_000) + b"\r\n"
HELD = 128 << 10  # bytes of one direction in the sidecar: its 64 KiB, and one more read on the way
QUICK_HELD = HELD + (192 << 10)  # for a receiver that has taken 512 KiB without a long pause: a read is larger then
TLS_HELD = 128 << 10  # in addition: bytes that are already encrypted
KERNEL_HELD = 192 << 10  # for a client that does not read, and not the megabytes that it is ready to take
HEAD = 2048  # more than the head that a backend gets
LARGE = 32 << 20  # more than the kernel keeps for two sockets


class Held:
    """A handler that answers when the test releases it."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self.release.wait()
        await ok(request, writer)


# Heads behind a request in hand


@pytest.mark.parametrize("size", [100, 4000, 30_000])
async def test_a_limited_number_of_pipelined_requests_is_buffered(size: int) -> None:
    held = Held()
    head = request("GET", "/x", headers=[("X-A", "x" * size)])
    waiting = head * ((8 << 20) // len(head))
    async with running(backend=RawBackend(held)) as stack:
        with Narrow(stack.sidecar.proxy_address) as client:
            client.send(stack.good())
            await stack.backend.received()
            begun = client.sent

            def pour() -> int:
                client.send(waiting[client.sent - begun :])
                return client.sent

            await still(pour, lambda: stack.health("/livez"))
            assert client.up.taken(client.sent) - begun <= HELD
            held.release.set()
            last = -(-(client.sent - begun) // len(head)) * len(head)  # the end of the request in progress
            async with patience("every answer"):  # no waiting byte is lost
                while client.received.count(b"HTTP/1.1 401 ") < last // len(head):
                    client.send(waiting[client.sent - begun : last])
                    client.receive(1 << 20)
                    await asyncio.sleep(0)
        assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert len(stack.backend.requests) == 1


async def test_an_endless_head_after_a_request_is_not_buffered() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack:
        with Narrow(stack.sidecar.proxy_address) as client:
            client.send(stack.good())
            await stack.backend.received()
            endless = b"GET / HTTP/1.1\r\nX-A: " + b"x" * (8 << 20)
            begun = client.sent

            def pour() -> int:
                client.send(endless[client.sent - begun :])
                return client.sent

            await still(pour, lambda: stack.health("/livez"))
            assert client.up.taken(client.sent) - begun <= HELD
            held.release.set()
            async with patience("both answers"):
                while b"HTTP/1.1 431 " not in client.received:
                    pour()
                    client.receive(1 << 20)
                    await asyncio.sleep(0)
        assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_body_of_a_refused_request_is_not_buffered() -> None:
    async with running() as stack, stack.client() as client:
        await client.send(request("POST", "/x", headers=[("Content-Length", str(2**30))]))
        assert (await client.response("POST")).status == 401
        tracemalloc.start()
        try:
            for _ in range(24):
                await client.send(b"x" * 2**20)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 4 * 2**20


async def test_all_headers_of_a_request_share_a_limit() -> None:
    async with running(limits={"header_bytes": 2000}) as stack, stack.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        for n in range(30):
            await client.send(b"X-%d: %b\r\n" % (n, b"x" * 500))
        answer = await client.response()
        assert (answer.status, answer.json()["code"]) == (431, "headers_too_large")


# Trailers of a request


TRAILERS = {
    "97 large": [("X-A", "x" * 32_000)] * 97,
    "one large": [("X-A", "x" * 80_000)],
    "many small": [(f"X-{number}", "x") for number in range(10_000)],
}


@pytest.mark.parametrize("trailers", TRAILERS.values(), ids=TRAILERS)
async def test_trailers_have_the_limit_of_headers(trailers: list[tuple[str, str]]) -> None:
    async with running() as stack, stack.client() as client:
        head = stack.good("POST", "/", headers=[("Transfer-Encoding", "chunked")])
        client.writer.write(head + chunked([b"hello"], trailers))
        for answer in await client.answers():
            assert answer.status in (400, 431)
        assert stack.backend.requests == []  # the begun request is aborted


async def test_endless_trailers_are_not_buffered() -> None:
    backend = RawBackend(never, read_bodies=False)
    async with running(backend=backend) as stack:
        with Narrow(stack.sidecar.proxy_address) as client:
            client.send(stack.good("POST", "/", headers=[("Transfer-Encoding", "chunked")]))
            await stack.backend.received()
            endless = b"5\r\nhello\r\n0\r\n" + b"X-A: " + b"x" * (8 << 20)
            begun = client.sent

            def pour() -> int:
                client.send(endless[client.sent - begun :])
                client.receive(65536)
                return client.sent

            await still(pour, lambda: stack.health("/livez"))
            refused = client.ended or client.received.startswith(b"HTTP/1.1 4")
            assert refused or client.up.taken(client.sent) - begun <= HELD


async def test_small_trailers_are_dropped(stack: Stack) -> None:
    trailers = [("X-A", "b"), ("X-JWT-Sub", "bob"), ("Digest", "sha-256=x")]
    head = stack.good("POST", "/", headers=[("Transfer-Encoding", "chunked")])
    async with stack.client() as client:
        for _ in range(2):
            assert (await client.request(head + chunked([b"hello"], trailers))).status == 200
    for seen in stack.backend.requests:
        assert (seen.body, seen.trailers) == (b"hello", [])
        assert seen.get("x-jwt-sub") == "alice"


# Bodies


class Source:
    """A handler that sends a large answer as fast as it is read; `given` counts the bytes given to the kernel."""

    def __init__(self, *, chunks: bool = False) -> None:
        self.chunks = chunks
        self.given = 0
        self.wire: asyncio.Future[Wire] = asyncio.Future()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target != "/large":
            await ok(request, writer)
            return
        narrow(writer)
        if not self.wire.done():
            self.wire.set_result(Wire(writer.get_extra_info("sockname"), writer.get_extra_info("peername")))
        framing = b"Transfer-Encoding: chunked" if self.chunks else b"Content-Length: %d" % LARGE
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        piece = CHUNK if self.chunks else bytes(60_000)
        left = LARGE
        while left:
            piece = piece[:left]
            writer.write(piece)
            await writer.drain()
            self.given += len(piece)
            left -= len(piece)


@pytest.mark.parametrize("chunks", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("trickle", [0, 1000], ids=["reads nothing", "reads slowly"])
async def test_an_unread_answer_is_buffered_within_the_limit(trickle: int, chunks: bool) -> None:
    source = Source(chunks=chunks)
    async with running(backend=RawBackend(source)) as stack:
        with Narrow(stack.sidecar.proxy_address) as client:
            client.send(stack.good("GET", "/large"))
            async with patience("the backend's request"):
                wire = await source.wire
            for _ in range(200 if trickle else 0):
                await stack.health("/livez")
                client.receive(trickle)
            await still(lambda: source.given, lambda: stack.health("/livez"))
            assert source.given < LARGE
            assert wire.taken(source.given) - client.down.given(len(client.received)) <= HELD
            assert client.down.held() <= KERNEL_HELD


async def test_an_unread_answer_over_tls_is_buffered_within_the_limit(tmp_path: Path) -> None:
    """The sum includes the buffers of TLS."""
    source = Source()
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(backend=RawBackend(source), tls=tls) as stack:
        with Narrow(stack.sidecar.proxy_address) as client:
            await client.speak_tls(client_tls())
            client.send(stack.good("GET", "/large"))
            async with patience("the backend's request"):
                wire = await source.wire
            await still(lambda: source.given, lambda: stack.health("/livez"))
            assert source.given < LARGE
            assert wire.taken(source.given) - client.down.given(0) <= HELD + TLS_HELD


@pytest.mark.parametrize("chunks", [False, True], ids=["sized", "chunked"])
async def test_an_unread_body_is_buffered_within_the_limit(chunks: bool) -> None:
    framing = ("Transfer-Encoding", "chunked") if chunks else ("Content-Length", str(LARGE))
    body = CHUNK * (LARGE // 60_000) if chunks else bytes(LARGE)
    with socket.create_server(("127.0.0.1", 0)) as server:  # its connections are never read
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        async with running(upstream=url) as stack:
            with Narrow(stack.sidecar.proxy_address) as client:
                client.send(stack.good("POST", "/", headers=[framing]))
                begun = client.sent
                async with patience("the sidecar's connection"):
                    accepted, peer = await asyncio.get_running_loop().sock_accept(server)
                wire = Wire(peer, accepted.getsockname())

                def pour() -> int:
                    at = client.sent - begun
                    client.send(body[at : at + (1 << 20)])
                    return client.sent

                with accepted:
                    await still(pour, lambda: stack.health("/livez"))
                    assert client.sent < LARGE
                    passed_on = wire.given(0) - HEAD
                    # The kernel takes megabytes for the backend at once.
                    assert client.up.taken(client.sent) - begun - passed_on <= QUICK_HELD


# The budget of the process


@asynccontextmanager
async def slow_readers(stack: Stack, number: int) -> AsyncIterator[None]:
    """Clients that request large answers and do not read them."""
    with ExitStack() as clients:
        for _ in range(number):
            clients.enter_context(Narrow(stack.sidecar.proxy_address)).send(stack.good("GET", "/large"))
        yield


async def test_new_requests_beyond_the_memory_budget_are_overloaded() -> None:
    source = Source()
    async with running(backend=RawBackend(source), limits={"buffered_bytes": 1 << 20}) as stack:
        assert (await stack.fetch(stack.good())).status == 200
        async with slow_readers(stack, 48):
            await still(lambda: source.given, lambda: stack.health("/livez"))
            answer = await stack.fetch(stack.good())
            assert (answer.status, answer.json()["code"]) == (503, "overloaded")
            assert answer.get("retry-after") is not None
            assert (await stack.health("/livez")).status == 200
        async with patience("the budget to be free again"):
            while (await stack.fetch(stack.good())).status != 200:
                await asyncio.sleep(0)


async def test_slow_readers_within_the_memory_budget_delay_no_answer() -> None:
    source = Source()
    async with running(backend=RawBackend(source)) as stack, slow_readers(stack, 48):
        await still(lambda: source.given, lambda: stack.health("/livez"))
        assert (await stack.fetch(stack.good())).status == 200


# Clients that do not read, or leave


async def test_no_further_request_of_a_client_that_does_not_read_is_served() -> None:
    big = response(200, b"x" * 60_000)
    async with running(backend=RawBackend(send(big))) as stack:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.connect(stack.sidecar.proxy_address)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(stack.good() * 400)
            before = -1
            while before != (before := len(stack.backend.requests)):
                await asyncio.sleep(0.3)
        assert 0 < before < 300


async def test_clients_that_leave_early_leave_no_watched_object() -> None:
    async with running() as stack:
        for _ in range(30):
            async with stack.client() as client:
                await client.send(stack.good())
                client.abort()
        async with stack.client() as client:
            await client.request(stack.good())
        watched = stack.sidecar.live.deadlines.watched
        assert len(watched) <= 2 + len(stack.sidecar.assembly.upstreams["default"]._open)


async def test_closed_connections_are_no_longer_watched() -> None:
    last = send(response(200, b"ok", [("Connection", "close")]), close=True)
    async with running(backend=RawBackend(last)) as stack:
        for _ in range(10):
            assert (await stack.fetch(stack.good())).status == 200
        await stack.backend.disconnected(10)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(stack.sidecar.live.deadlines.watched) <= 2
