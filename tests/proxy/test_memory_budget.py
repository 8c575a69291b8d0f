"""All bytes that the process holds count toward one budget: heads, answers, requests that wait, and bodies for a retry."""

import pytest

from sidecar.proxy.resources import SMALL_READ_BYTES
from tests.peers.clock import HandClock
from tests.peers.memory import in_memory, lines
from tests.peers.wire import request, response
from tests.proxy.in_memory import ANSWER, proxy, status, turns

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
