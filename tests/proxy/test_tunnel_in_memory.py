"""A tunnel in states that no real socket can be brought to: waiting bytes, and its end. The tests are both ends."""

import asyncio
from pathlib import Path

import pytest

from sidecar.http.websocket_frames import MAX_FRAMES
from sidecar.proxy.resources import KEEPS_UP, READ_BYTES
from sidecar.proxy.tunnel import FRAME_ENDS_S, TOKEN_EXPIRED, Tunnel
from sidecar.proxy.upstream_connection import CLOSE_S
from tests.peers.clock import HandClock
from tests.peers.memory import Line, in_memory, lines
from tests.peers.wire import WEBSOCKET, request
from tests.proxy.in_memory import SWITCHING, Proxy, proxy, status, turns, with_token
from tests.proxy.test_tunnel import TOLD, frame, unmasked


async def joined(at: Proxy, alice: str) -> tuple[Line, Line]:
    """The client's line and the backend's, with nothing sent on either."""
    client = at.client(request(headers=WEBSOCKET, token=alice))
    await turns()
    lines()[0].say(SWITCHING)
    client.sent = lines()[0].sent = b""
    return client, lines()[0]


@pytest.mark.parametrize(("size", "is_read_on"), [(READ_BYTES - 1, True), (READ_BYTES, False)])
@in_memory
async def test_reading_a_tunnel_pauses_after_a_full_read(
    clock: HandClock, tmp_path: Path, size: int, is_read_on: bool
) -> None:
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        client.say(frame(1 << 20, masked=True)[:size])
        assert client.is_reading() == is_read_on
        await turns()
        assert client.is_reading()
        assert len(upstream.sent) == size


@in_memory
async def test_reads_of_a_tunnel_stay_small(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request(headers=WEBSOCKET))
        await turns()
        lines()[0].say(SWITCHING)
        for line in (client, lines()[0]):
            for _ in range(KEEPS_UP):
                line.say(b"x" * READ_BYTES)
            assert len(line.protocol.get_buffer(-1)) == READ_BYTES


@pytest.mark.parametrize("ends", ["the backend", "the client"])
@in_memory
async def test_waiting_frames_reach_one_side_after_the_other_ends(clock: HandClock, tmp_path: Path, ends: str) -> None:
    frames = frame(1, masked=True) * 2 * MAX_FRAMES
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        sender, receiver = (client, upstream) if ends == "the client" else (upstream, client)
        sender.say(frames)
        assert len(receiver.sent) < len(frames)
        await turns()
        assert receiver.sent == frames
        receiver.sent = b""
        sender.say(frames)
        assert len(receiver.sent) < len(frames)
        sender.end()
        assert (receiver.sent, upstream.closed) == (frames, True)


@in_memory
async def test_a_partly_buffered_frame_is_finished_unchanged_after_the_token_expires(
    clock: HandClock, tmp_path: Path
) -> None:
    frames = frame(0, masked=True) * (MAX_FRAMES - 1) + frame(200, masked=True)
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        client.say(frames[:-100])
        [connection] = at.listener.connections
        assert isinstance(connection.sink, Tunnel)
        connection.sink._expire()
        await turns()
        assert upstream.sent == frames[:-100]
        client.say(frames[-100:])
        assert unmasked(upstream.sent.removeprefix(frames)) == (TOKEN_EXPIRED, b"token expired")
        assert upstream.closed


@in_memory
async def test_a_client_that_reads_late_gets_all_bytes_of_an_ended_backend_once(
    clock: HandClock, tmp_path: Path
) -> None:
    frames = frame(0) * 2 * MAX_FRAMES
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        upstream.say(frames)
        client.fill()
        upstream.finish()
        upstream.end()
        await asyncio.sleep(10 + FRAME_ENDS_S)  # in this time the token expires
        client.drain()
        assert client.sent == frames
        assert TOLD not in client.sent


@in_memory
async def test_the_idle_timeout_of_a_tunnel_exceeds_the_answer_timeout(clock: HandClock) -> None:
    async with proxy(clock, timeouts={"response_headers": "2s", "idle": "10s"}) as at:
        await joined(at, "")
        at.wait(9)
        assert not lines()[0].closed
        at.wait(1)
        assert lines()[0].closed


@in_memory
async def test_early_bytes_are_buffered_only_until_the_backend_has_them(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request(headers=WEBSOCKET) + b"early")
        await turns()
        assert at.live.resources.held_bytes == len(b"early")
        lines()[0].say(SWITCHING)
        assert lines()[0].sent.endswith(b"early")
        assert client.sent.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Protocol" not in client.sent
        assert at.live.resources.held_bytes == 0
        lines()[0].end()
        assert [answered for _, _, answered in at.live.telemetry.requests] == [101]


@in_memory
async def test_a_frame_that_does_not_end_keeps_no_tunnel_open(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        client.say(frame(200, masked=True)[:-1])
        await asyncio.sleep(10 + FRAME_ENDS_S - 0.1)
        assert not upstream.closed
        await asyncio.sleep(0.2)
        assert upstream.closed


@in_memory
async def test_bytes_of_another_protocol_are_not_read_as_frames(clock: HandClock, tmp_path: Path) -> None:
    routes = [{"path": "/*", "upgrades": ["x-proto"]}]
    async with with_token(clock, tmp_path, 10, routes=routes) as (at, alice):
        client = at.client(request(headers=[("Connection", "Upgrade"), ("Upgrade", "x-proto")], token=alice))
        await turns()
        lines()[0].say(SWITCHING.replace(b"websocket", b"x-proto"))
        client.say(bytes(8 * MAX_FRAMES))
        assert lines()[0].sent.endswith(bytes(8 * MAX_FRAMES))
        assert at.live.resources.held_bytes == 0
        await asyncio.sleep(10)
        assert lines()[0].closed


@pytest.mark.parametrize("slow", ["the backend", "the client"])
@in_memory
async def test_frames_for_a_slow_receiver_are_read_no_further_after_their_turn(
    clock: HandClock, tmp_path: Path, slow: str
) -> None:
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        sender, receiver = (client, upstream) if slow == "the backend" else (upstream, client)
        receiver.is_full = True
        sender.say(frame(1, masked=sender is client) * 2 * MAX_FRAMES)
        await turns()
        assert not sender.is_reading()
        receiver.drain()
        assert sender.is_reading()


@pytest.mark.parametrize("sender", ["the backend", "the client"])
@in_memory
async def test_a_tunnel_in_which_one_side_sends_is_not_idle(clock: HandClock, sender: str) -> None:
    async with proxy(clock) as at:
        client, upstream = await joined(at, "")
        for _ in range(3):
            at.wait(200)  # of 300 by default
            (client if sender == "the client" else upstream).say(frame(1))
        assert not upstream.closed


@in_memory
async def test_only_the_close_frame_for_the_backend_is_masked(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client, upstream = await joined(at, alice)
        await asyncio.sleep(11)
        assert client.sent == TOLD
        assert unmasked(upstream.sent) == (TOKEN_EXPIRED, b"token expired")
        assert upstream.closed


@in_memory
async def test_a_tunnel_outlives_its_token_where_that_is_off(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 10, close_on_expiry="off") as (at, alice):
        _, upstream = await joined(at, alice)
        await asyncio.sleep(20)
        assert not upstream.closed


@in_memory
async def test_a_101_to_another_protocol_is_no_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request(headers=WEBSOCKET))
        await turns()
        lines()[0].say(SWITCHING.replace(b"websocket", b"x-proto"))
        assert status(client) == 502
        assert lines()[0].aborted


@pytest.mark.parametrize("slow", ["the backend", "the client"])
@in_memory
async def test_all_bytes_that_wait_for_a_slow_receiver_are_counted(clock: HandClock, slow: str) -> None:
    async with proxy(clock) as at:
        client, upstream = await joined(at, "")
        sender, receiver = (client, upstream) if slow == "the backend" else (upstream, client)
        receiver.is_full = True
        sender.say(b"a")  # sent at the end of the turn, so that the sender is not paused yet
        sender.say(b"a" * READ_BYTES)
        assert not sender.is_reading()
        assert at.live.resources.held_bytes == receiver.get_write_buffer_size() == 1 + READ_BYTES
        receiver.drain()
        assert at.live.resources.held_bytes == 0
        assert sender.is_reading()


@in_memory
async def test_a_client_that_closes_a_tunnel_without_reading_is_cut_off(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request(headers=WEBSOCKET))
        await turns()
        lines()[0].say(SWITCHING)
        client.finish()
        at.wait(299)  # of 300 by default
        assert not client.aborted
        at.wait(1)
        assert client.aborted


@in_memory
async def test_a_tunnel_delivers_its_bytes_after_the_backend_has_left(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request(headers=WEBSOCKET))
        await turns()
        client.fill()
        lines()[0].say(SWITCHING + b"frame")
        lines()[0].end()
        assert client.sent == b""
        client.drain()
        assert (client.sent.endswith(b"\r\n\r\nframe"), client.finished) == (True, True)


@in_memory
async def test_a_client_cannot_delay_the_end_of_a_tunnel(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client = at.client(request(headers=WEBSOCKET, token=alice))
        await turns()
        lines()[0].say(SWITCHING)
        await asyncio.sleep(11)
        assert lines()[0].closed
        clock.advance(CLOSE_S - 1)
        client.say(frame(3, masked=True))
        at.wait(1)
        assert lines()[0].aborted


@in_memory
async def test_the_current_frame_is_finished_when_the_token_expires(clock: HandClock, tmp_path: Path) -> None:
    """It is the last frame that one turn counts, and the rest of it has arrived."""
    frames = frame(0, masked=True) * (MAX_FRAMES - 1) + frame(200, masked=True)
    async with with_token(clock, tmp_path, 10) as (at, alice):
        client = at.client(request(headers=WEBSOCKET, token=alice))
        await turns()
        lines()[0].say(SWITCHING)
        [connection] = at.listener.connections
        before = len(lines()[0].sent)
        client.say(frames + frame(3, masked=True))
        assert len(lines()[0].sent) < before + len(frames)
        assert isinstance(connection.sink, Tunnel)
        connection.sink._expire()
        told = lines()[0].sent[before:].removeprefix(frames)
        assert unmasked(told) == (TOKEN_EXPIRED, b"token expired")
