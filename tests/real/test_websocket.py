"""The `websockets` library on both sides of the tunnel."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.http11 import Request, Response

from sidecar.cli.dev.issuer import Issuer
from tests.peers import patience
from tests.peers.raw import RawClient, fetch
from tests.peers.wire import request
from tests.real.conftest import StartSidecar

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = 10_000
SOON_S = 4  # the lifetime of a token that expires in a tunnel: more than a busy machine needs for a handshake
SIZES = (0, 1, 125, 126, 65_535, 65_536, 1 << 20, 4 << 20)  # around the three forms of a frame's length, and large ones

Connect = Callable[..., AbstractAsyncContextManager[ClientConnection]]


class Backend:
    """A WebSocket server; `speak` is its side of a conversation. It records its connections."""

    def __init__(self) -> None:
        self.speak: Callable[[ServerConnection], Any] = echo
        self.refusal: tuple[int, str] | None = None
        self.handshakes: list[Request] = []
        self.connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        return None if self.refusal is None else connection.respond(*self.refusal)

    async def serve(self, connection: ServerConnection) -> None:
        self.connections.put_nowait(connection)
        await self.speak(connection)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def idle(connection: ServerConnection) -> None:
    await connection.wait_closed()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(behind: StartSidecar) -> AsyncIterator[tuple[str, Backend]]:
    backend = Backend()
    async with serve(
        backend.serve,
        "127.0.0.1",
        0,
        process_request=backend.check,
        select_subprotocol=lambda _, offered: offered[0] if offered else None,
        max_size=None,
        ping_interval=None,
    ) as server:
        port = server.sockets[0].getsockname()[1]
        async with behind(upstream=f"http://127.0.0.1:{port}") as url:
            yield url, backend


@pytest_asyncio.fixture(loop_scope="module")
async def backend(stack: tuple[str, Backend]) -> Backend:
    backend = stack[1]
    backend.speak, backend.refusal = echo, None
    backend.handshakes.clear()
    while not backend.connections.empty():
        backend.connections.get_nowait()
    return backend


@pytest.fixture
def url(stack: tuple[str, Backend]) -> str:
    return stack[0]


@pytest.fixture
def join(url: str, issuer: Issuer) -> Connect:
    """``async with join() as client``: a tunnel with a good token of alice, or another one, or None."""

    def join(token: str | None = "good", **options: Any) -> AbstractAsyncContextManager[ClientConnection]:
        if token == "good":
            token = issuer.mint(sub="alice")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        standard: dict[str, Any] = {"max_size": None, "ping_interval": None, "proxy": None}
        return connect(url.replace("http:", "ws:") + "/chat", additional_headers=headers, **standard | options)

    return join


async def closed(connection: ClientConnection | ServerConnection) -> tuple[int | None, str | None]:
    """The code and reason of the other side's close frame."""
    async with patience("the connection to close"):
        await connection.wait_closed()
    return connection.close_code, connection.close_reason


async def test_the_handshake_carries_the_identity_and_not_the_token(join: Connect, backend: Backend) -> None:
    async with join(subprotocols=["chat"], origin="http://app.test") as client:
        assert client.subprotocol == "chat"
    [handshake] = backend.handshakes
    assert (handshake.path, handshake.headers["X-JWT-Sub"], handshake.headers["X-JWT-Status"]) == (
        "/chat",
        "alice",
        "verified",
    )
    assert (handshake.headers["Origin"], "Authorization" in handshake.headers) == ("http://app.test", False)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_ten_thousand_messages_each_way_arrive_in_order(
    join: Connect, backend: Backend, compression: str | None
) -> None:
    """Both sides send without waiting for each other."""

    async def send_all(connection: ClientConnection | ServerConnection, name: str) -> None:
        for number in range(MESSAGES):
            await connection.send(f"{name} {number}")

    async def receive_all(connection: ClientConnection | ServerConnection, name: str) -> None:
        for number in range(MESSAGES):
            assert await connection.recv() == f"{name} {number}"

    async def speak(connection: ServerConnection) -> None:
        await asyncio.gather(send_all(connection, "backend"), receive_all(connection, "client"))
        await connection.send("all is well")
        await connection.wait_closed()

    backend.speak = speak
    async with patience("all messages"), join(compression=compression) as client:
        await asyncio.gather(send_all(client, "client"), receive_all(client, "backend"))
        assert await client.recv() == "all is well"


async def test_frames_of_every_size_are_relayed_whole(join: Connect, backend: Backend) -> None:
    async with patience("the frames"), join(compression=None) as client:
        for size in SIZES:
            message = os.urandom(size)
            await client.send(message)
            assert await client.recv() == message


async def test_large_frames_in_both_directions_do_not_block_each_other(join: Connect, backend: Backend) -> None:
    messages = [os.urandom(1 << 20) for _ in range(10)]
    async with patience("the frames"), join(compression=None) as client:

        async def send() -> None:
            for message in messages:
                await client.send(message)

        sending = asyncio.create_task(send())
        assert [await client.recv() for _ in messages] == messages
        await sending


async def test_fragments_stay_fragments(join: Connect, backend: Backend) -> None:
    async def speak(connection: ServerConnection) -> None:
        fragments = [fragment async for fragment in connection.recv_streaming()]
        await connection.send(reversed(fragments))
        await connection.wait_closed()

    backend.speak = speak
    fragments = ["a" * 200, "b", "c" * 70_000, "d"]
    async with patience("the fragments"), join(compression=None) as client:
        await client.send(fragments)
        received = [fragment async for fragment in client.recv_streaming()]
    assert [fragment for fragment in received if fragment] == fragments[::-1]


async def test_pings_are_answered_by_the_other_side_and_not_by_the_sidecar(join: Connect, backend: Backend) -> None:
    backend.speak = idle
    async with join() as client:
        connection = await backend.connections.get()
        async with patience("two pongs"):
            await (await client.ping(b"from the client"))
            await (await connection.ping(b"from the backend"))


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going away"), (1011, "x" * 123), (4000, "app"), (4999, "Ä")]
)
async def test_close_codes_are_relayed_unchanged(join: Connect, backend: Backend, code: int, reason: str) -> None:
    backend.speak = idle
    async with join() as client:
        await client.close(code, reason)
        assert await closed(await backend.connections.get()) == (code, reason)

    async def leave(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    backend.speak = leave
    async with join() as client:
        assert await closed(client) == (code, reason)


@pytest.mark.parametrize("kind", ["none", "expired", "another's"])
async def test_a_handshake_without_a_good_token_does_not_reach_the_backend(
    join: Connect, backend: Backend, issuer: Issuer, kind: str
) -> None:
    another = Issuer(issuer.issuer, audience=issuer.audience)
    token = {"none": None, "expired": issuer.mint("EdDSA", -10), "another's": another.mint()}[kind]
    with pytest.raises(InvalidStatus) as refusal:
        async with join(token):
            pass
    assert refusal.value.response.status_code == 401
    assert refusal.value.response.headers["X-JWT-Sidecar"] == "rejected"
    assert backend.handshakes == []


async def test_both_sides_get_the_close_code_4401_when_the_token_expires(
    join: Connect, backend: Backend, issuer: Issuer
) -> None:
    backend.speak = idle
    async with join(issuer.mint("EdDSA", SOON_S)) as client:
        connection = await backend.connections.get()
        assert (await closed(client))[0] == 4401
        assert (await closed(connection))[0] == 4401


async def test_a_frame_is_finished_before_the_close_frame_when_the_token_expires(
    join: Connect, backend: Backend, issuer: Issuer
) -> None:
    """A large frame is always in transit. The client gets whole messages, and then the close code."""
    message = os.urandom(4 << 20)

    async def speak(connection: ServerConnection) -> None:
        while True:
            await connection.send(message)

    backend.speak = speak

    async def receive(client: ClientConnection) -> None:
        async for received in client:
            assert received == message

    of_seconds = issuer.mint("EdDSA", SOON_S)
    async with join(of_seconds, compression=None, max_queue=1) as client, patience("the token to expire"):
        with pytest.raises(ConnectionClosedError) as ended:
            await receive(client)
    assert ended.value.rcvd is not None, "closed without a code"
    assert ended.value.rcvd.code == 4401


async def test_the_backends_refusal_of_a_handshake_is_relayed(join: Connect, backend: Backend) -> None:
    backend.refusal = (403, "not for alice\n")
    with pytest.raises(InvalidStatus) as refusal:
        async with join():
            pass
    answer = refusal.value.response
    assert (answer.status_code, answer.body, "X-JWT-Sidecar" in answer.headers) == (403, b"not for alice\n", False)


async def test_a_client_that_vanishes_ends_the_tunnel_to_the_backend(join: Connect, backend: Backend) -> None:
    backend.speak = idle
    async with join() as client:
        connection = await backend.connections.get()
        client.transport.abort()
        assert (await closed(connection))[0] == 1006  # no close frame was sent


async def test_a_backend_that_vanishes_ends_the_tunnel_to_the_client(join: Connect, backend: Backend) -> None:
    async def vanish(connection: ServerConnection) -> None:
        connection.transport.abort()

    backend.speak = vanish
    async with join() as client:
        assert (await closed(client))[0] == 1006


async def test_a_stalled_reader_pauses_the_writer(join: Connect, backend: Backend) -> None:
    """The backend cannot send more bytes than the buffers in between hold."""
    sent = 0
    stalled = asyncio.Event()

    async def speak(connection: ServerConnection) -> None:
        nonlocal sent
        while True:
            try:
                async with asyncio.timeout(0.5):
                    await connection.send(bytes(1 << 20))
            except TimeoutError:
                stalled.set()
                return
            sent += 1

    backend.speak = speak
    async with join(compression=None, max_queue=1) as client:
        async with patience("the writer to be stopped"):
            await stalled.wait()
        client.transport.abort()
    assert sent < 64  # MiB; the kernel's buffers on loopback take a few


async def test_messages_of_many_tunnels_stay_separate(join: Connect, backend: Backend, issuer: Issuer) -> None:
    async def speak(connection: ServerConnection) -> None:
        assert connection.request is not None
        name = connection.request.headers["X-JWT-Sub"]
        async for message in connection:
            assert isinstance(message, str)
            await connection.send(f"{name}: {message}")

    backend.speak = speak

    async def one(name: str) -> None:
        async with join(issuer.mint(sub=name)) as client:
            for number in range(20):
                await client.send(str(number))
                assert await client.recv() == f"{name}: {number}"

    async with patience("all tunnels"):
        await asyncio.gather(*(one(f"user-{number}") for number in range(50)))


async def test_bytes_after_a_handshake_reach_the_backend_and_are_not_read_as_a_request(
    url: str, backend: Backend, issuer: Issuer
) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    headers = [
        ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]  # fmt: skip
    async with RawClient.to((host, int(port))) as client:
        answer = await client.request(request(token=issuer.mint(), headers=headers))
        assert (answer.status, answer.get("sec-websocket-accept")) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        await client.send(request(target="/smuggled"))
        assert b"HTTP/1.1" not in await client.closed()
    assert len(backend.handshakes) == 1


async def test_a_request_without_an_upgrade_gets_the_backends_answer(
    url: str, backend: Backend, issuer: Issuer
) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    answer = await fetch((host, int(port)), request(token=issuer.mint()))
    assert (answer.status, answer.get("x-jwt-sidecar")) == (426, None)
