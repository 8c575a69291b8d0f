"""A client's connection at moments that no socket can be brought to: turns, deadlines and ends. The tests are both ends."""

import pytest

from sidecar.proxy.client_connection import LINGER_S
from sidecar.proxy.resources import KEEPS_UP, LARGE_READ_BYTES, READ_BYTES
from tests.peers.clock import HandClock
from tests.peers.memory import in_memory, lines
from tests.peers.wire import request
from tests.proxy.test_upstream import ANSWER, proxy, status, turns

REFUSED = request("GET", "/denied")
DENY = [{"path": "/denied", "auth": "deny"}, {"path": "/*", "auth": "none"}]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@in_memory
async def test_more_bytes_give_a_client_no_turn_before_its_own(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client(2 * REFUSED)
        client.say(REFUSED)
        assert client.sent.count(b"HTTP/1.1 403") == 1
        await turns()
        assert client.sent.count(b"HTTP/1.1 403") == 3


# Deadlines


@in_memory
async def test_a_body_that_comes_slowly_takes_no_time_from_the_next_head(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", headers=[("Content-Length", "2")]) + b"x")
        await turns()
        clock.advance(50)  # a head may take 10
        client.say(b"y")
        lines()[0].say(ANSWER)
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        at.tick()
        assert not client.aborted


@in_memory
async def test_a_head_that_begins_within_a_request_has_the_time_of_a_head(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        clock.advance(9.9)  # a head may take 10
        lines()[0].say(ANSWER)
        await turns()
        at.tick()
        assert not client.aborted
        clock.advance(0.1)
        at.tick()
        assert client.aborted


@in_memory
async def test_a_client_that_sent_an_empty_line_is_idle(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request() + b"\r\n")
        await turns()
        lines()[0].say(ANSWER)
        await turns()
        clock.advance(74.9)  # of 75 by default
        at.tick()
        assert not client.aborted
        clock.advance(0.1)
        at.tick()
        assert client.aborted


# Ends


@in_memory
async def test_an_idle_connection_ends_without_a_reset(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        clock.advance(75)
        at.tick()
        assert (client.aborted, client.reset) == (True, False)


@in_memory
async def test_an_idle_connection_that_is_closed_has_a_while_to_take_its_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.fill()
        lines()[0].say(ANSWER)
        client.drain()
        [connection] = at.listener.connections
        connection.close()
        clock.advance(LINGER_S - 0.1)
        at.tick()
        assert (client.closed, client.aborted) == (True, False)
        clock.advance(0.1)
        at.tick()
        assert client.aborted


@in_memory
async def test_nothing_is_answered_on_a_connection_that_has_been_closed(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client()
        client.is_tls = True
        [connection] = at.listener.connections
        connection.close()
        client.say(REFUSED)
        assert client.sent == b""


@in_memory
async def test_a_client_that_left_during_a_lingering_close_gets_no_more(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client()
        client.is_full = True
        client.say(b"no HTTP\r\n\r\n")
        assert b" 400 " in client.sent
        client.finish()
        client.drain()
        assert not client.finished


@in_memory
async def test_more_of_a_body_is_read_at_once_where_the_backend_keeps_up(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", str(1 << 30))]))
        await turns()
        [connection] = at.listener.connections
        for _ in range(KEEPS_UP):
            assert len(connection.get_buffer(-1)) == READ_BYTES
            client.say(b"x" * READ_BYTES)
        assert len(connection.get_buffer(-1)) == LARGE_READ_BYTES
        assert status(client) == 0
