"""The listener in states that no real socket can be brought to: its limit of connections, a reload, and its end."""

import asyncio
import errno
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.proxy.listener import IDLE_S, MOST_REFUSED, NOT_ACCEPTED_S
from tests.peers.clock import HandClock
from tests.peers.memory import Line, accept, in_memory, lines
from tests.peers.wire import WEBSOCKET, request, response
from tests.proxy.in_memory import ANSWER, DENY, SWITCHING, proxy, status, turns

# The limit of connections


@in_memory
async def test_a_connection_that_is_idle_for_a_second_is_closed_for_a_new_one(clock: HandClock) -> None:
    async with proxy(clock, limits={"connections": 1}) as at:
        idle = at.client()
        clock.advance(IDLE_S)
        assert at.client().sent == b""
        assert idle.aborted


@in_memory
async def test_the_search_for_idle_connections_runs_once_a_second(clock: HandClock) -> None:
    async with proxy(clock, limits={"connections": 1}) as at:
        idle = at.client()
        for refused in (True, True, False):  # after 0.75 s, 1.5 s and 1.75 s
            clock.advance(0.75 * IDLE_S if refused else 0.25 * IDLE_S)
            client = at.client()
            assert (status(client), idle.aborted) == ((503, False) if refused else (0, True))
            client.end()


@in_memory
async def test_an_idle_connection_with_a_new_request_is_kept(clock: HandClock) -> None:
    async with proxy(clock, limits={"connections": 2}) as at:
        first = at.client()
        clock.advance(IDLE_S)
        second = at.client()
        clock.advance(IDLE_S)
        at.client(request())
        assert (first.aborted, second.aborted) == (True, False)
        first.end()
        second.say(request())
        await turns()
        lines()[1].say(ANSWER)
        assert status(at.client()) == 503
        assert not second.aborted


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET /", id="a part of a head"),
        pytest.param(request("PUT", headers=[("Content-Length", "9")]), id="a part of a request"),
        pytest.param(request(headers=WEBSOCKET), id="a tunnel"),
        pytest.param(request("PUT", "/denied", headers=[("Content-Length", "9")]), id="a body of a refused request"),
        pytest.param(request("GET", "/denied"), id="an answer that the client does not read"),
    ],
)
@in_memory
async def test_a_connection_that_waits_for_anything_but_a_request_is_kept(clock: HandClock, raw: bytes) -> None:
    async with proxy(clock, limits={"connections": 1}, routes=DENY) as at:
        client = at.client()
        client.is_tls = True  # so that it cannot be half closed
        client.is_full = raw.startswith(b"GET /denied")
        client.say(raw)
        await turns()
        for line in lines():
            line.say(SWITCHING)
        clock.advance(2 * IDLE_S)
        assert status(at.client()) == 503
        assert not client.aborted


@in_memory
async def test_a_limited_number_of_connections_beyond_the_limit_get_an_answer(clock: HandClock) -> None:
    async with proxy(clock, limits={"connections": 1}) as at:
        at.client(request())
        await turns()
        refused = [at.client() for _ in range(MOST_REFUSED)]
        assert [status(client) for client in refused] == [503] * MOST_REFUSED
        further = at.client()
        assert (further.sent, further.aborted) == (b"", True)
        assert at.live.telemetry.decisions == {("none", "error", "overloaded"): MOST_REFUSED}
        assert {kept.cause for kept in at.live.telemetry.refusals} == {""}


class Certificate:
    """The files of a listener, which nobody reads here."""

    value = None


@in_memory
async def test_a_client_that_cannot_be_accepted_keeps_no_other_one_out(clock: HandClock) -> None:
    async with proxy(clock) as at:
        accept(OSError(errno.EMFILE, "too many open files"), ("127.0.0.1", 1))
        accepting = asyncio.create_task(at.listener.accept_tls(None, Certificate()))  # type: ignore[arg-type]
        await turns()
        assert at.listener.connections == []
        await asyncio.sleep(NOT_ACCEPTED_S)
        await turns()
        assert len(at.listener.connections) == 1
        assert at.listener._handshakes == set()
        accepting.cancel()


# A reload


@in_memory
async def test_a_changed_budget_applies_to_the_next_request(clock: HandClock) -> None:
    async with proxy(clock) as at:
        slow, other = at.client(request()), at.client()
        await turns()
        slow.is_full = True
        lines()[0].say(response(200, b"x" * 5000))
        at.listener.use(at.live.assembly.handler, replace(at.listener.serving.limits, buffered_bytes=1000))
        other.say(request())
        assert status(other) == 503


@in_memory
async def test_other_trusted_proxies_count_from_the_next_request_on(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client()
        for networks, said in (((), b"127.0.0.1"), ((ip_network("127.0.0.0/8"),), b"203.0.113.9, 127.0.0.1")):
            at.listener.use(at.live.assembly.handler, replace(at.listener.serving.limits, trusted=networks))
            client.say(request(headers=[("X-Forwarded-For", "203.0.113.9")]))
            await turns()
            lines()[0].say(ANSWER)
            assert b"\r\nX-Forwarded-For: %b\r\n" % said in lines()[0].sent


# Who the client is


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        pytest.param(("192.0.2.1", 1), b"192.0.2.1", id="IPv4"),
        pytest.param(("::ffff:192.0.2.1", 1, 0, 0), b"192.0.2.1", id="IPv4 at an IPv6 socket"),
        pytest.param(("2001:db8::1", 1, 0, 0), b"2001:db8::1", id="IPv6"),
        pytest.param(("fe80::1%eth0", 1, 0, 2), b"fe80::1", id="IPv6 with a zone"),
        pytest.param("", b"", id="a unix socket"),
    ],
)
@pytest.mark.parametrize("trusted", [[], ["198.51.100.0/24"]], ids=["no trusted proxy", "other addresses are trusted"])
@in_memory
async def test_x_forwarded_for_has_the_clients_address(
    clock: HandClock, trusted: list[str], peer: Any, said: bytes
) -> None:
    async with proxy(clock, trusted_proxies=trusted) as at:
        Line(at.listener(), peer).say(request(headers=[("X-Forwarded-For", "203.0.113.9")]))
        await turns()
        assert b"\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\n" % said in lines()[0].sent


@in_memory
async def test_x_forwarded_for_of_a_trusted_peer_is_extended(clock: HandClock) -> None:
    async with proxy(clock, trusted_proxies=["192.0.2.0/24"]) as at:
        Line(at.listener(), ("192.0.2.1", 1)).say(request(headers=[("X-Forwarded-For", "203.0.113.9")]))
        await turns()
        assert b"\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n" in lines()[0].sent


# The end


@in_memory
async def test_an_ending_listener_closes_idle_connections_at_once_and_others_after_their_answer(
    clock: HandClock,
) -> None:
    async with proxy(clock) as at:
        busy, idle = at.client(request()), at.client()
        await turns()
        lines()[0].say(ANSWER[:-1])
        at.listener.pre_shutdown()
        assert (idle.closed, busy.closed, busy.finished) == (True, False, False)
        lines()[0].say(ANSWER[-1:])
        assert (status(busy), busy.finished) == (200, True)


@in_memory
async def test_a_listener_ends_with_its_last_connection(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        ending = asyncio.create_task(at.listener.shutdown())
        await turns()
        assert (client.aborted, ending.done()) == (True, False)
        client.end()
        await turns()
        assert ending.done()
