"""States in which no other event would end or pause a request: the tests are both ends, and control the clock."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.http.websocket_frames import MAX_FRAMES
from sidecar.proxy.resources import KEEPS_UP, READ_BYTES, SMALL_READ_BYTES
from sidecar.proxy.tunnel import TOKEN_EXPIRED, Tunnel
from sidecar.proxy.upstream_connection import CLOSE_S
from tests.peers import patience
from tests.peers.backend import RawBackend, Request
from tests.peers.clock import HandClock
from tests.peers.memory import in_memory, lines
from tests.peers.tokens import AUDIENCE, ISSUER, public_jwk, token
from tests.peers.wire import WEBSOCKET, chunked, request, response
from tests.proxy.conftest import running
from tests.proxy.test_connection import connections, gone_from
from tests.proxy.test_tunnel import frame, unmasked
from tests.proxy.test_upstream_pool import ANSWER, OPEN, Proxy, proxy, status, targets, turns

ON_EVERY_LOOP = True
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


# A client that closes its side


@pytest.mark.parametrize("minor", [0, 1])
@in_memory
async def test_a_client_that_closes_its_side_within_an_answer_is_reset(clock: HandClock, minor: int) -> None:
    """For an HTTP/1.0 client any end but a reset completes the answer, and it may never read the unsent bytes."""
    async with proxy(clock) as at:
        client = at.client(request().replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
        await turns()
        lines()[0].say(b"HTTP/1.1 200 OK\r\n\r\npart")
        client.finish()
        assert (client.reset, client.aborted, lines()[0].aborted) == (True, True, True)


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
async def test_the_deadline_of_a_head_begins_after_empty_lines(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("GET", "/0") + b"\r\n")
        await turns()
        clock.advance(50)  # a head may take 10
        lines()[0].say(ANSWER)
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        at.tick()
        client.say(b"Host: a\r\n\r\n")
        assert targets(lines()[0]) == ["/0", "/1"]


@in_memory
async def test_a_head_that_begins_during_a_request_has_the_usual_deadline(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("GET", "/0"))
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        clock.advance(10)  # as long as a head may take
        lines()[0].say(ANSWER)
        await turns()
        assert not client.aborted
        at.tick()
        assert client.aborted


@in_memory
async def test_a_tls_client_without_a_socket_is_aborted_without_an_error(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", "/", headers=[("Content-Length", "9")]))
        await turns()
        del client._extra["socket"]  # type: ignore[attr-defined]  # so do the TLS transports of both loops
        at.wait(300)
        assert client.aborted


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


# A receiver that pauses


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: <%d>\r\n\r\n"


@in_memory
async def test_interim_answers_wait_for_a_client_that_does_not_read(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.is_full = True
        lines()[0].say(HINTS % 1 + HINTS % 2)
        lines()[0].say(HINTS % 3)
        assert client.sent == HINTS % 1
        client.is_full = False
        client.drain()
        assert client.sent == HINTS % 1 + HINTS % 2 + HINTS % 3
        lines()[0].say(ANSWER)
        assert status(client) == 200


@in_memory
async def test_a_body_with_an_oversized_content_length_is_refused_before_it_begins(clock: HandClock) -> None:
    async with proxy(clock, routes=[{**OPEN, "max_body_bytes": 9}]) as at:
        for size, answered in ((9, 0), (10, 413)):
            client = at.client(request("POST", headers=[("Content-Length", str(size))]))
            await turns()
            assert status(client) == answered
        assert len(lines()) == 1


# The answer of the next client


@in_memory
async def test_bytes_left_in_the_socket_are_not_read_as_the_next_answer(clock: HandClock) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    body = b"x" * (READ_BYTES - len(head % READ_BYTES))
    async with proxy(clock, connections=1) as at:
        first, second = at.clients(2)
        await turns()
        lines()[0].say(head % len(body) + body + response(200, b"the second is not answered by this"))
        assert first.sent.endswith(body)
        assert second.sent == b""
        lines()[0].end()
        await turns()
        lines()[1].say(ANSWER)
        assert second.sent.endswith(b"hello")


@in_memory
async def test_a_connection_with_paused_reading_serves_no_other_request(clock: HandClock) -> None:
    """Large reads for a client that keeps up; bytes that one call does not decode pause reading, at the end too."""
    async with proxy(clock, connections=1) as at:
        first, second = at.clients(2)
        await turns()
        lines()[0].say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (KEEPS_UP * READ_BYTES))
        for _ in range(KEEPS_UP):
            lines()[0].say(b"x" * READ_BYTES)
        lines()[0].say(b"\r\n" + chunked([b"y" * 300] * 800))
        await turns()
        assert first.sent.endswith(b"0\r\n\r\n")
        if lines()[0].closed:
            lines()[0].end()
            await turns()
        lines()[-1].say(ANSWER)
        assert second.sent.endswith(b"hello")


# Deadlines that no client can delay


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


@asynccontextmanager
async def with_token(
    clock: HandClock, folder: Path, lasts_s: float, **settings: Any
) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy with one connection, and a token with this lifetime."""
    (folder / "keys.json").write_text(json.dumps({"keys": [public_jwk("EdDSA")]}))
    issuers = {"main": {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks_file": str(folder / "keys.json")}}
    wide = {"issuers": issuers, "routes": [], "timeouts": {"idle": "1000s"}}
    async with proxy(clock, connections=1, **{**wide, **settings}) as at:
        await at.live.assembly.sources["main"].fetch_now()
        yield at, token("EdDSA", now=clock.wall() - 360 + lasts_s)  # for 300 s, and 60 s of leeway


@in_memory
async def test_a_slow_reader_gets_no_bytes_after_the_token_expired(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 10, close_on_expiry="all") as (at, alice):
        client = at.client(request(token=alice))
        await turns()
        lines()[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nfirst")
        client.fill()
        lines()[0].say(b"second")
        at.wait(9.9)
        assert not client.aborted
        at.wait(0.1)
        assert (client.reset, client.aborted, lines()[0].aborted) == (True, True, True)
        assert at.live.telemetry.decisions == {("main", "deny", "token_expired"): 1}


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


# The budget of the process


PART = b"GET / HTTP/1.1\r\nX-A: " + b"x" * 30_000


@in_memory
async def test_incomplete_heads_count_toward_the_memory_budget(clock: HandClock) -> None:
    async with proxy(clock, limits={"buffered_bytes": 100_000}) as at:
        held = [at.client(PART) for _ in range(5)]  # the fourth exceeds the budget
        assert at.live.resources.held_bytes == 4 * len(PART)
        assert [b" 503 " in client.sent for client in held] == [False] * 4 + [True]
        assert b"Retry-After: 1\r\n" in held[4].sent
        small = at.client(PART[:SMALL_READ_BYTES])
        assert small.sent == b""
        held[0].end()
        small.say(b"\r\n\r\n")
        assert b" 400 " in small.sent  # it has no Host
        assert at.live.resources.held_bytes == 3 * len(PART)


@in_memory
async def test_an_unread_answer_counts_toward_the_memory_budget(clock: HandClock) -> None:
    answer = response(200, b"x" * 60_000)
    async with proxy(clock, limits={"buffered_bytes": 50_000}) as at:
        slow, other = at.client(request()), at.client()
        await turns()
        slow.is_full = True
        lines()[0].say(answer)
        assert at.live.resources.held_bytes == len(slow.sent)
        other.say(request())
        assert status(other) == 503
        assert b"Retry-After: 1\r\n" in other.sent
        slow.drain()
        assert at.live.resources.held_bytes == 0


@in_memory
async def test_waiting_requests_count_toward_the_memory_budget(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request() + request() + PART)
        await turns()
        assert at.live.resources.held_bytes == len(request() + PART)
        lines()[0].say(ANSWER)
        client.end()  # before the turn of the second
        await turns()
        assert at.live.resources.held_bytes == 0


@pytest.mark.parametrize(("method", "kept"), [("PUT", 5000), ("POST", 0)])
@in_memory
async def test_a_body_kept_for_a_retry_counts_toward_the_memory_budget(
    clock: HandClock, method: str, kept: int
) -> None:
    asking = request(method, body=b"x" * 5000)
    async with proxy(clock, connections=1) as at:
        first, second = at.client(asking), at.client(asking)
        assert at.live.resources.held_bytes == 10_000  # both wait for a connection
        await turns()
        assert at.live.resources.held_bytes == 5000  # on a new connection the sent bytes are not kept for a retry
        lines()[0].say(ANSWER)
        assert at.live.resources.held_bytes == kept
        lines()[0].say(ANSWER)
        assert (first.sent.endswith(b"hello"), second.sent.endswith(b"hello")) == (True, True)
        assert at.live.resources.held_bytes == 0
