"""The pool and its connections in states that no real socket can be brought to: the tests are both ends, and have the clock."""

import gc
import logging
import ssl
from typing import Any

import pytest

from sidecar.proxy.exchange import Exchange
from sidecar.proxy.upstream_pool import KEEP_IDLE_S, UpstreamPool
from tests.peers.clock import HandClock
from tests.peers.memory import Line, end_at_once, in_memory, lines, refuse
from tests.peers.wire import WEBSOCKET, request, response
from tests.proxy.in_memory import ANSWER, OPEN, Proxy, proxy, status, targets, turns

# The pool


@in_memory
async def test_waiting_requests_are_served_in_order(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        clients = at.clients(3)
        await turns()
        [line] = lines()
        for served in range(3):
            line.say(ANSWER)
            newcomer = at.client(request("GET", f"/new-{served}"))
            await turns()
            assert [status(client) for client in clients] == [200] * (served + 1) + [0] * (2 - served)
            assert status(newcomer) == 0
        assert targets(line) == ["/0", "/1", "/2", "/new-0"]


@in_memory
async def test_a_leaving_client_gives_its_place_in_the_queue_to_the_next(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        _, leaving, staying = at.clients(3)
        await turns()
        leaving.end()
        lines()[0].say(ANSWER)
        assert targets(lines()[0]) == ["/0", "/2"]
        lines()[0].say(ANSWER)
        assert (status(staying), at.waiting) == (200, 0)


@in_memory
async def test_no_request_waits_longer_than_the_connect_timeout(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        _, waiting = at.clients(2)
        await turns()
        at.wait(1.9)
        later = at.client(request())
        assert (status(waiting), at.waiting) == (0, 2)
        at.wait(0.1)
        assert (status(waiting), b"overloaded" in waiting.sent, b"Retry-After: 1\r\n" in waiting.sent) == (
            503,
            True,
            True,
        )
        assert (status(later), at.waiting) == (0, 1)


@in_memory
async def test_a_request_from_the_queue_has_the_whole_answer_timeout(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        _, waiting = at.clients(2)
        await turns()
        clock.advance(1.9)
        lines()[0].say(ANSWER)
        at.wait(59)  # of 60 by default
        assert status(waiting) == 0
        lines()[0].say(ANSWER)
        assert status(waiting) == 200


@in_memory
async def test_a_request_that_leaves_the_queue_is_released(clock: HandClock) -> None:
    of_other_tests = exchanges()  # held here, so that none of them is released meanwhile
    async with proxy(clock, connections=1) as at:
        clients = at.clients(100)
        await turns()
        at.wait(2)
        for client in clients[1:]:
            assert status(client) == 503
            client.end()
        del clients, client
        assert len(exchanges()) == len(of_other_tests) + 1


def exchanges() -> list[Exchange]:
    """All requests of this process that are not released."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Exchange)]


@in_memory
async def test_connections_count_while_they_are_being_opened(clock: HandClock) -> None:
    async with proxy(clock, connections=2) as at:
        at.clients(3)
        assert at.waiting == 1
        await turns()
        assert len(lines()) == 2
        lines()[0].end()
        await turns()
        assert len(lines()) == 3
        assert targets(lines()[2]) == ["/2"]


@in_memory
async def test_a_connection_that_ends_at_once_is_a_502_and_frees_its_place(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        end_at_once(1)
        first, second = at.clients(2)
        await turns()
        assert (status(first), b"upstream_unreachable" in first.sent) == (502, True)
        assert targets(lines()[1]) == ["/1"]
        lines()[1].say(ANSWER)
        assert status(second) == 200


@in_memory
async def test_a_bug_in_opening_a_connection_is_logged_and_the_next_request_is_served(clock: HandClock) -> None:
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sidecar.proxy").addHandler(listener)
    async with proxy(clock, connections=1) as at:
        refuse(UnicodeError("no name of a host"))
        first, second = at.clients(2)
        await turns()
        refuse(None)
        assert (status(first), b"internal_error" in first.sent, status(second)) == (500, True, 500)
        at.client(request())
        await turns()
        assert len(lines()) == 1
    logging.getLogger("sidecar.proxy").removeHandler(listener)
    assert [line.partition("event=bug type=UnicodeError")[1] != "" for line in said] == [True, True]


@in_memory
async def test_a_connection_opened_for_a_client_that_left_serves_the_next_request(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        leaving, staying = at.clients(2)
        leaving.end()
        await turns()
        assert [targets(line) for line in lines()] == [["/1"]]
        lines()[0].say(ANSWER)
        assert status(staying) == 200


@in_memory
async def test_an_ending_connection_is_not_reused(clock: HandClock) -> None:
    async with proxy(clock) as at:
        first = at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        lines()[0].finish()
        second = at.client(request("POST", "/"))
        await turns()
        lines()[1].say(ANSWER)
        assert (status(first), status(second), len(targets(lines()[0]))) == (200, 200, 1)


@in_memory
async def test_an_idle_connection_is_closed_after_keep_idle_s(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        at.wait(KEEP_IDLE_S - 0.1)
        assert not lines()[0].closed
        at.wait(0.1)
        assert lines()[0].closed


@in_memory
async def test_a_retired_pool_closes_idle_connections_and_serves_current_requests(clock: HandClock) -> None:
    async with proxy(clock, connections=2) as at:
        clients = at.clients(4)
        await turns()
        lines()[0].say(ANSWER)
        lines()[1].say(ANSWER)
        lines()[0].say(ANSWER)
        at.pool.retire()
        assert [line.closed for line in lines()] == [True, False]
        lines()[1].say(ANSWER)
        assert [status(client) for client in clients] == [200] * 4
        assert lines()[1].closed


@in_memory
async def test_a_closed_connection_of_a_retired_pool_frees_its_place(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        _, waiting = at.clients(2)
        await turns()
        at.pool.retire()
        lines()[0].say(ANSWER)
        assert (lines()[0].closed, targets(lines()[0])) == (True, ["/0"])
        lines()[0].end()
        await turns()
        lines()[1].say(ANSWER)
        assert (status(waiting), targets(lines()[1])) == (200, ["/1"])


@in_memory
async def test_closing_a_pool_closes_all_its_connections(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.clients(2)
        await turns()
        lines()[0].say(ANSWER)
        at.pool.close()
        assert [line.closed for line in lines()] == [True, True]


@pytest.mark.parametrize(("tls", "scheme"), [(None, "http"), (ssl.create_default_context, "https")])
@in_memory
async def test_a_backend_has_the_scheme_of_its_connections(clock: HandClock, tls: Any, scheme: str) -> None:
    async with proxy(clock) as at:
        pool = UpstreamPool(
            "a",
            ("a", 1),
            clock,
            at.live.deadlines,
            at.live.resources,
            authority="a",
            tls=tls,
            connections=1,
            connect_s=1,
            answer_s=1,
            idle_s=1,
            head_bytes=1,
            headers=1,
        )
        assert pool.scheme == scheme


# Retries


async def used(at: Proxy) -> Line:
    """A connection that has served a request."""
    at.client(request())
    await turns()
    lines()[0].say(ANSWER)
    return lines()[0]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"])
@in_memory
async def test_idempotent_requests_are_sent_again_when_a_used_connection_closes(clock: HandClock, method: str) -> None:
    async with proxy(clock) as at:
        line = await used(at)
        body = b"hello" if method in ("PUT", "POST") else None
        client = at.client(request(method, "/x", body=body))
        before = line.sent.index(f"{method} /x".encode())
        line.end(ConnectionResetError())
        await turns()
        if method in ("POST", "PATCH"):
            assert (status(client), len(lines())) == (502, 1)
        else:
            assert lines()[1].sent == line.sent[before:]
            lines()[1].say(response(204))
            assert status(client) == 204


@in_memory
async def test_a_used_connection_that_ends_before_an_answer_is_closed_at_once(clock: HandClock) -> None:
    async with proxy(clock) as at:
        line = await used(at)
        client = at.client(request())
        line.finish()
        await turns()
        assert line.aborted
        lines()[1].say(ANSWER)
        assert status(client) == 200


@in_memory
async def test_a_request_is_not_repeated_after_a_new_connection_or_a_begun_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        first = at.client(request())
        await turns()
        lines()[0].end()
        assert status(first) == 502
        second = at.client(request())
        await turns()
        lines()[1].say(ANSWER)
        assert status(second) == 200
        second.say(request())
        lines()[1].say(ANSWER[:1])
        lines()[1].end()
        await turns()
        assert (status(second), len(lines())) == (502, 2)


@in_memory
async def test_a_request_is_repeated_if_a_spare_connection_has_closed(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request()).end()
        await turns()
        client = at.client(request())
        assert targets(lines()[0]) == ["/"]
        lines()[0].end()
        await turns()
        lines()[1].say(ANSWER)
        assert status(client) == 200


@in_memory
async def test_a_body_forwarded_in_pieces_is_not_sent_twice(clock: HandClock) -> None:
    async with proxy(clock) as at:
        line = await used(at)
        client = at.client(request("PUT", "/x", headers=[("Content-Length", "5")]))
        client.say(b"hello")
        line.end()
        await turns()
        assert (status(client), len(lines())) == (502, 1)


@in_memory
async def test_a_request_tries_every_stale_connection_in_turn(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.clients(3)
        await turns()
        stale = [*lines()]
        for line in stale:
            line.say(ANSWER)
        client = at.client(request("GET", "/x"))
        for line in reversed(stale):
            assert targets(line)[1:] == ["/x"]
            line.end()
        await turns()
        lines()[3].say(ANSWER)
        assert status(client) == 200


# A connection


@in_memory
async def test_bytes_without_a_request_close_the_connection(clock: HandClock) -> None:
    async with proxy(clock) as at:
        line = await used(at)
        line.say(response(103))
        assert line.closed
        client = at.client(request())
        await turns()
        assert targets(line) == ["/"]
        lines()[1].say(ANSWER)
        assert client.sent.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("cut", [len(ANSWER), -2])
@in_memory
async def test_a_second_answer_ends_its_connection(clock: HandClock, cut: int) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(ANSWER[:cut])
        lines()[0].say(ANSWER[cut:] + ANSWER)
        assert lines()[0].closed
        assert client.sent.count(b"hello") == client.sent.count(b"HTTP/1.1") == 1


@in_memory
async def test_an_answer_for_a_client_that_has_left_closes_its_connection(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(ANSWER[:-1])
        client.end()
        assert lines()[0].aborted
        lines()[0].say(ANSWER[-1:])


@in_memory
async def test_the_answer_timeout_begins_with_the_complete_request(clock: HandClock) -> None:
    async with proxy(clock, timeouts={"idle": "900s"}) as at:
        client = at.client(request("POST", "/x", headers=[("Content-Length", "5")]))
        await turns()
        at.wait(800)  # of 60 by default for an answer: the body is incomplete
        assert status(client) == 0
        client.say(b"hello")
        at.wait(59)
        assert status(client) == 0
        at.wait(1)
        assert (status(client), b"upstream_timeout" in client.sent, lines()[0].aborted) == (504, True, True)


@in_memory
async def test_a_backend_that_does_not_read_a_body_is_a_504(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", "/x", headers=[("Content-Length", "5")]))
        await turns()
        lines()[0].fill()
        client.say(b"he")
        at.wait(60)
        assert (status(client), lines()[0].aborted) == (504, True)


@in_memory
async def test_a_client_that_does_not_read_does_not_time_out_the_backend(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(ANSWER[:-2])
        client.fill()
        lines()[0].say(ANSWER[-2:-1])
        at.wait(299)  # of 300 by default
        client.drain()
        at.wait(299)
        lines()[0].say(ANSWER[-1:])
        assert client.sent.endswith(b"hello")
        assert not client.reset


@in_memory
async def test_unread_bytes_of_a_closed_connection_are_dropped(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request())
        await turns()
        lines()[0].fill()
        lines()[0].say(response(200, b"hello", [("Connection", "close")]))
        assert lines()[0].closed
        at.wait(4.5)
        assert not lines()[0].aborted
        at.wait(0.5)
        assert lines()[0].aborted
        lines()[0].drain()


@in_memory
async def test_an_oversized_body_is_not_forwarded_beyond_the_limit(clock: HandClock) -> None:
    async with proxy(clock, routes=[OPEN | {"max_body_bytes": 4}]) as at:
        client = at.client(request("POST", "/x")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
        await turns()
        client.say(b"4\r\n1234\r\n")
        client.say(b"1\r\n5\r\n")
        assert (status(client), b"body_too_large" in client.sent) == (413, True)
        assert lines()[0].sent.endswith(b"\r\n\r\n4\r\n1234\r\n")
        assert lines()[0].aborted


@in_memory
async def test_a_100_continue_waits_for_a_connection_to_the_backend(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        at.client(request())
        headers = [("Content-Length", "5"), ("Expect", "100-continue")]
        client = at.client(request("POST", "/x", headers=headers))
        await turns()
        assert client.sent == b""
        lines()[0].say(ANSWER)
        assert client.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.say(b"hello")
        assert lines()[0].sent.endswith(b"\r\n\r\nhello")
        lines()[0].say(ANSWER)
        assert status(client) == 200


@in_memory
async def test_the_connection_of_an_unfinished_request_is_not_reused(clock: HandClock) -> None:
    """The backend has answered: the next request must not be the rest of this one's body."""
    async with proxy(clock) as at:
        client = at.client(request("POST", "/x", headers=[("Content-Length", "10")]))
        await turns()
        client.say(b"half")
        lines()[0].say(ANSWER)
        assert (status(client), b"Connection: close" in client.sent) == (200, True)
        assert lines()[0].closed
        client.say(b"other!" + request("GET", "/y"))
        assert (lines()[0].sent.endswith(b"half"), len(lines())) == (True, 1)


@in_memory
async def test_a_malformed_body_of_a_waiting_request_is_refused_and_frees_its_place(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        at.client(request())
        broken = at.client(request("POST", "/x")[:-2] + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n")
        next_one = at.client(request("GET", "/y"))
        await turns()
        lines()[0].say(ANSWER)
        assert (status(broken), b"/x" in lines()[0].sent) == (400, False)
        await turns()
        if lines()[0].aborted:
            lines()[0].end()
            await turns()
        assert targets(lines()[-1])[-1] == "/y"
        lines()[-1].say(ANSWER)
        assert status(next_one) == 200


@in_memory
async def test_an_early_answer_until_close_is_complete_with_the_backends_fin(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", "/x", headers=[("Content-Length", "10")]))
        await turns()
        lines()[0].fill()
        lines()[0].say(response(413, b"too much", sized=False))
        lines()[0].finish()
        assert (status(client), client.sent.endswith(b"\r\n8\r\ntoo much\r\n0\r\n\r\n")) == (413, True)


@in_memory
async def test_bytes_after_a_101_reach_the_client_even_if_the_backend_has_ended(clock: HandClock) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with proxy(clock) as at:
        clients = [at.client(request(headers=WEBSOCKET)) for _ in range(2)]
        await turns()
        for line in lines():
            line.say(switching + b"first")
        lines()[0].say(b"second")
        assert clients[0].sent.endswith(b"\r\n\r\nfirstsecond")
        lines()[1].end()
        assert clients[1].sent.endswith(b"\r\n\r\nfirst")
        assert [client.finished for client in clients] == [False, True]
