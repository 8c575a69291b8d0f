"""After a 101: bytes both ways, and the close frames when the token expires; the tests write frames by hand."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from sidecar.http.websocket_frames import MAX_FRAMES, close_frame
from sidecar.proxy.tunnel import FRAME_ENDS_S, TOKEN_EXPIRED, Tunnel
from tests.peers import patience
from tests.peers.backend import RawBackend, Request
from tests.peers.clock import HandClock, in_its_time_with_sockets
from tests.peers.raw import pause_reading, resume_reading
from tests.peers.wire import WEBSOCKET, reset
from tests.proxy.conftest import Client, Stack, running
from tests.proxy.in_memory import SWITCHING
from tests.proxy.test_connection import come_to, connections, gone_from, paused

ON_EVERY_LOOP = True
MASK = bytes((1, 2, 3, 4))
LASTS_S = 20.0  # more than a busy machine needs for a handshake


def frame(size: int, *, masked: bool = False, opcode: int = 0x82) -> bytes:
    """A frame of RFC 6455 section 5.2 with so many bytes of payload."""
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((opcode, bit | size))
    elif size < 1 << 16:
        head = bytes((opcode, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((opcode, bit | 127)) + size.to_bytes(8)
    return head + (MASK if masked else b"") + b"x" * size


def unmasked(close: bytes) -> tuple[int, bytes]:
    """(code, reason) of a masked close frame."""
    assert close[0] == 0x88
    assert close[1] == 0x80 | len(close) - 6
    payload = bytes(byte ^ close[2 + at % 4] for at, byte in enumerate(close[6:]))
    return int.from_bytes(payload[:2]), payload[2:]


TOLD = close_frame(TOKEN_EXPIRED, "token expired", masked=False)


@dataclass
class Joined:
    """The client's end and the backend's end of a tunnel."""

    stack: Stack
    client: Client
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def come(self, n: int) -> bytes:
        """The next bytes at the backend, this many."""
        async with patience(f"{n} bytes"):
            return await self.reader.readexactly(n)

    async def rest(self) -> bytes:
        """The further bytes at the backend until the end."""
        async with patience("the end"):
            return await self.reader.read()


@asynccontextmanager
async def joined(
    protocol: str = "websocket",
    *,
    lasts_s: float | None = None,
    early: bytes = b"",
    step: int = 10_000,
    **settings: Any,
) -> AsyncIterator[Joined]:
    """A tunnel whose token has this lifetime."""
    ends: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nX-Seen: yes\r\n\r\n"
        writer.write(head.encode() + early)
        ends.set_result((request.reader, writer))
        await asyncio.Event().wait()

    routes = [{"path": "/*", "upgrades": [protocol]}]
    async with running(backend=RawBackend(upgrade), routes=routes, **settings) as stack, stack.client() as client:
        token = stack.alice
        if lasts_s is not None:
            exp = int(stack.clock.wall()) + 200
            token = stack.token(exp=exp)
            stack.clock.ahead_s = exp + 60 - lasts_s - stack.clock.wall()
        upgrade_headers = WEBSOCKET if protocol == "websocket" else [("Connection", "Upgrade"), ("Upgrade", protocol)]
        asking = stack.good("GET", "/", headers=upgrade_headers, token=token)
        for at in range(0, len(asking), step):
            await client.send(asking[at : at + step])
            await asyncio.sleep(0)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await client.read(1)
        lines = set(head.decode().lower().split("\r\n"))
        assert {"connection: upgrade", f"upgrade: {protocol}", "x-seen: yes"} <= lines
        yield Joined(stack, client, *await ends)


async def test_a_tunnel_relays_bytes_unchanged_from_the_first_after_the_101() -> None:
    async with joined(early=b"first") as tunnel:
        assert await tunnel.client.read(5) == b"first"
        tunnel.writer.write(b"\x00\xff")
        assert await tunnel.client.read(2) == b"\x00\xff"
        await tunnel.client.send(b"\xff\x00")
        assert await tunnel.come(2) == b"\xff\x00"


@pytest.mark.parametrize("early", [b"AB", b"\n", b"\r\n", b"\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("with_the_request", [True, False])
async def test_bytes_of_another_protocol_wait_for_the_101(early: bytes, with_the_request: bool) -> None:
    agreed = asyncio.Event()
    came_before = b""

    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal came_before
        await agreed.wait()
        came_before = bytes(request.reader._buffer)  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x-proto/1\r\n\r\n")
        writer.write(await request.reader.readexactly(len(early)))
        await asyncio.Event().wait()

    routes = [{"path": "/*", "upgrades": ["x-proto/1"]}]
    async with running(backend=RawBackend(upgrade), routes=routes) as stack, stack.client() as client:
        head = stack.good("GET", "/", headers=[("Connection", "Upgrade"), ("Upgrade", "x-proto/1")])
        await client.send(head + early if with_the_request else head)
        await stack.backend.received()
        if not with_the_request:
            await client.send(early)
        await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        agreed.set()
        assert (await client.response()).status == 101
        assert await client.read(len(early)) == early
        assert came_before == b""


async def test_bytes_sent_before_a_declined_upgrade_are_not_read_as_a_request() -> None:
    async with running(routes=[{"path": "/*", "upgrades": ["x-proto/1"]}]) as stack:
        head = stack.good("GET", "/", headers=[("Connection", "Upgrade"), ("Upgrade", "x-proto/1")])
        answers = await stack.converse(head, tail=stack.good())
        assert [(answer.status, answer.get("connection")) for answer in answers] == [(200, "close")]
        async with stack.client() as client:
            await client.send(head + stack.good())
            assert [answer.status for answer in await client.answers()] == [200]
        assert len(stack.backend.requests) == 2


@pytest.mark.parametrize("protocol", ["websocket", "x-proto/1"])
async def test_a_request_with_a_body_is_not_an_upgrade(protocol: str) -> None:
    async with running(routes=[{"path": "/*", "upgrades": [protocol]}]) as stack, stack.client() as client:
        headers = [*WEBSOCKET[:1], ("Upgrade", protocol), *WEBSOCKET[2:]]
        assert (await client.request(stack.good("POST", "/", headers=headers, body=b"hello"))).status == 200
        [seen] = stack.backend.requests
        assert (seen.body, seen.get("upgrade"), seen.get("connection")) == (b"hello", None, None)


@pytest.mark.parametrize("size", [5, 200_000])
@pytest.mark.parametrize("with_the_request", [True, False])
async def test_frames_sent_before_the_101_are_relayed_after_it(size: int, with_the_request: bool) -> None:
    agreed = asyncio.Event()

    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        await agreed.wait()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        for _ in range(2):
            writer.write(await request.reader.readexactly(len(frame(size, masked=True))))

    async with running(backend=RawBackend(upgrade)) as stack, stack.client() as client:
        head = stack.good("GET", "/", headers=WEBSOCKET)
        early = frame(size, masked=True)
        await client.send(head + early if with_the_request else head)
        await stack.backend.received()
        sending = None if with_the_request else asyncio.create_task(client.send(early))
        await stack.health("/livez")  # by then the sidecar has read as much as it accepts
        agreed.set()
        assert (await client.response()).status == 101
        assert await client.read(len(early)) == early
        if sending is not None:
            await sending
        await client.send(early)
        assert await client.read(len(early)) == early


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_an_upgrade_may_arrive_in_pieces(step: int) -> None:
    async with joined("x-proto/1", step=step) as tunnel:
        await tunnel.client.send(b"hello")
        assert await tunnel.come(5) == b"hello"


async def test_a_backend_that_closes_a_tunnel_closes_the_client() -> None:
    async with joined() as tunnel:
        tunnel.writer.write(b"last")
        tunnel.writer.close()
        assert await tunnel.client.closed() == b"last"


async def test_waiting_frames_reach_the_client_after_the_backend_ends() -> None:
    async with joined() as tunnel:
        frames = frame(0) * 10 * MAX_FRAMES
        tunnel.writer.write(frames)
        reset(tunnel.writer)
        begun = await tunnel.client.read(2 * MAX_FRAMES)
        await tunnel.client.send(frame(1, masked=True))  # no one reads it: so the sidecar learns of the end
        assert begun + await tunnel.client.closed() == frames


async def test_a_client_that_closes_a_tunnel_closes_the_backend() -> None:
    async with joined() as tunnel:
        tunnel.client.abort()
        assert await tunnel.rest() == b""
        telemetry = tunnel.stack.sidecar.live.telemetry
        while tunnel.stack.sidecar.live.resources.requests_in_flight:
            await asyncio.sleep(0)
        assert telemetry.requests == {("/*", "GET", 101): 1}


async def test_more_frames_than_one_turn_counts_are_relayed_whole() -> None:
    async with joined() as tunnel:
        back, out = (b"".join(frame(at % 3, masked=masked) for at in range(8 * MAX_FRAMES)) for masked in (False, True))
        for _ in range(2):
            tunnel.writer.write(back)
            await tunnel.client.send(out)
            assert await tunnel.come(len(out)) == out
            assert await tunnel.client.read(len(back)) == back


async def test_large_frames_are_relayed_to_slow_readers_in_both_directions() -> None:
    much = frame(1 << 20) * 8
    async with joined() as tunnel:
        sending = asyncio.create_task(tunnel.client.send(much))
        tunnel.writer.write(much)
        for _ in range(20):
            await asyncio.sleep(0)
        assert await tunnel.come(len(much)) == much
        assert await tunnel.client.read(len(much)) == much
        await sending


@pytest.mark.parametrize("to_the_backend", [True, False])
async def test_a_slow_receiver_pauses_its_sender(to_the_backend: bool) -> None:
    much = frame(48 << 20)  # more than the kernel keeps for four sockets
    async with joined() as tunnel:
        ends = (tunnel.client.writer, tunnel.reader, tunnel.writer)
        sender, reader, other = ends if to_the_backend else (tunnel.writer, tunnel.client.reader, tunnel.client.writer)
        pause_reading(other)
        sender.write(much)
        sending = asyncio.create_task(sender.drain())
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done
        resume_reading(other)
        async with patience("all of it"):
            assert await reader.readexactly(len(much)) == much
            await sending


async def test_a_client_that_does_not_read_a_tunnel_is_cut_off() -> None:
    async with joined() as tunnel:
        pause_reading(tunnel.client.writer)
        tunnel.writer.write(frame(48 << 20))  # more than the kernel keeps for four sockets
        await paused(connections(tunnel.stack)[0])
        come_to(tunnel.stack, tunnel.stack.clock.monotonic() + 301)  # of 300 by default
        await gone_from(tunnel.stack)
        await tunnel.stack.backend.disconnected()
        assert tunnel.stack.sidecar.live.resources.held_bytes == 0


async def test_a_client_that_reads_a_tunnel_late_sees_its_end() -> None:
    async with joined("x-proto/1") as tunnel:
        pause_reading(tunnel.client.writer)
        tunnel.writer.write(b"x" * (48 << 20))  # more than the kernel keeps for four sockets
        [connection] = connections(tunnel.stack)
        await paused(connection)
        assert isinstance(connection.sink, Tunnel)
        connection.sink._expire()
        await tunnel.stack.backend.disconnected()
        resume_reading(tunnel.client.writer)
        assert (await tunnel.client.closed()).startswith(b"xxx")


async def test_a_client_that_leaves_as_its_tunnel_ends_causes_no_error() -> None:
    """The kernel knows of it before the loop does, and a FIN cannot be sent on a reset connection."""
    ends: asyncio.Future[asyncio.StreamWriter] = asyncio.Future()

    async def upgrade(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCHING)
        ends.set_result(writer)
        await asyncio.Event().wait()

    def leave() -> None:
        if upstream.ended:
            client.close()
        else:
            asyncio.get_running_loop().call_soon(leave)

    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
    async with running(backend=RawBackend(upgrade)) as stack:
        with socket.create_connection(stack.sidecar.proxy_address) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(stack.good(headers=WEBSOCKET))
            writer = await ends
            [connection] = connections(stack)
            async with patience("the tunnel"):
                while connection.sink is None:
                    await asyncio.sleep(0)
            assert isinstance(connection.sink, Tunnel)
            upstream = connection.sink._upstream
            leave()
            writer.close()
            await gone_from(stack)
    assert failed == []


@in_its_time_with_sockets
async def test_both_sides_get_a_close_frame_when_the_token_expires_between_frames(clock: HandClock) -> None:
    async with joined(lasts_s=LASTS_S) as tunnel:
        tunnel.writer.write(frame(3))
        await tunnel.client.send(frame(3, masked=True))
        assert await tunnel.client.closed() == frame(3) + TOLD
        rest = await tunnel.rest()
        assert rest.startswith(frame(3, masked=True))
        assert unmasked(rest[len(frame(3, masked=True)) :]) == (4401, b"token expired")


@in_its_time_with_sockets
async def test_a_frame_to_the_backend_is_finished_before_the_close_frame(clock: HandClock) -> None:
    one = frame(5, masked=True)
    async with joined(lasts_s=LASTS_S) as tunnel:
        await tunnel.client.send(one[:8])
        assert await tunnel.come(8) == one[:8]
        assert await tunnel.client.read(len(TOLD)) == TOLD
        tunnel.writer.write(frame(3))  # after the close frame
        await tunnel.client.send(one[8:] + frame(3, masked=True))
        assert await tunnel.client.closed() == b""
        rest = await tunnel.rest()
        assert rest.startswith(one[8:])
        assert unmasked(rest[len(one[8:]) :]) == (4401, b"token expired")


@in_its_time_with_sockets
async def test_a_frame_to_the_client_is_finished_before_the_close_frame(clock: HandClock) -> None:
    one = frame(200)
    async with joined(lasts_s=LASTS_S) as tunnel:
        tunnel.writer.write(one[:100])
        assert await tunnel.client.read(100) == one[:100]
        told = await tunnel.come(2 + 4 + 15)
        assert unmasked(told) == (4401, b"token expired")
        await tunnel.client.send(frame(3, masked=True))
        tunnel.writer.write(one[100:] + frame(3))
        assert await tunnel.client.closed() == one[100:] + TOLD
        assert await tunnel.rest() == b""


@in_its_time_with_sockets
async def test_a_tunnel_of_another_protocol_ends_with_the_token_without_more_bytes(clock: HandClock) -> None:
    async with joined("x-proto/1", lasts_s=LASTS_S) as tunnel:
        assert await tunnel.client.closed() == b""
        assert await tunnel.rest() == b""


@in_its_time_with_sockets
async def test_a_tunnel_ends_as_soon_as_both_sides_have_the_close_frame(clock: HandClock) -> None:
    async with joined(lasts_s=LASTS_S) as tunnel:
        begun = clock.monotonic()
        assert await tunnel.client.closed() == TOLD
        assert clock.monotonic() - begun < LASTS_S + 0.5


@in_its_time_with_sockets
async def test_a_tunnel_of_another_protocol_ends_at_once(clock: HandClock) -> None:
    async with joined("x-proto/1", lasts_s=LASTS_S) as tunnel:
        begun = clock.monotonic()
        assert await tunnel.client.closed() == b""
        assert clock.monotonic() - begun < LASTS_S + 0.5


@in_its_time_with_sockets
async def test_an_unfinished_frame_is_cut_off_after_the_token_expires(clock: HandClock) -> None:
    async with joined(lasts_s=LASTS_S) as tunnel:
        await tunnel.client.send(frame(5, masked=True)[:8])
        assert await tunnel.client.read(len(TOLD)) == TOLD
        expired = clock.monotonic()
        assert await tunnel.client.closed() == b""
        assert abs(clock.monotonic() - expired - FRAME_ENDS_S) < 0.5
        assert await tunnel.rest() == frame(5, masked=True)[:8]


@in_its_time_with_sockets
async def test_a_tunnel_ends_with_its_last_frame(clock: HandClock) -> None:
    one = frame(5, masked=True)
    async with joined(lasts_s=LASTS_S) as tunnel:
        await tunnel.client.send(one[:8])
        assert await tunnel.client.read(len(TOLD)) == TOLD
        expired = clock.monotonic()
        await tunnel.client.send(one[8:])
        assert await tunnel.client.closed() == b""
        assert clock.monotonic() - expired < FRAME_ENDS_S - 0.5


async def test_an_idle_tunnel_is_closed() -> None:
    async with joined() as tunnel:
        tunnel.stack.clock.ahead_s += 301
        tunnel.stack.sidecar.live.deadlines.tick()
        assert await tunnel.client.closed() == b""


@in_its_time_with_sockets
async def test_close_on_expiry_off_lets_a_tunnel_outlive_its_token(clock: HandClock) -> None:
    async with joined(lasts_s=LASTS_S, close_on_expiry="off") as tunnel:
        tunnel.stack.clock.ahead_s += LASTS_S
        await asyncio.sleep(2 * LASTS_S)
        tunnel.writer.write(b"still")
        assert await tunnel.client.read(5) == b"still"


async def test_only_silence_of_both_sides_ends_a_tunnel() -> None:
    async with joined() as tunnel:
        for _ in range(2):
            for write in (tunnel.writer.write, tunnel.client.send):
                sent = write(b"x")
                if sent is not None:
                    await sent
                    await tunnel.come(1)
                else:
                    await tunnel.client.read(1)
                tunnel.stack.clock.ahead_s += 200
                tunnel.stack.sidecar.live.deadlines.tick()
        tunnel.stack.clock.ahead_s += 101
        tunnel.stack.sidecar.live.deadlines.tick()
        assert await tunnel.client.closed() == b""
