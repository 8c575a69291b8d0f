"""A backend's connection in states that no real socket can be brought to. The tests are both ends."""

import asyncio
import errno
import ssl
from contextlib import suppress

import pytest

from sidecar.proxy.resources import (
    KEEPS_UP,
    KERNEL_UNSENT_BYTES,
    LARGE_KERNEL_UNSENT_BYTES,
    LARGE_READ_BYTES,
    READ_BYTES,
    SOON_S,
)
from sidecar.proxy.response_relay import MOST_INTERIM_ANSWERS
from sidecar.proxy.upstream_connection import CLOSE_S
from tests.peers.clock import HandClock
from tests.peers.memory import Line, in_memory, lines, refuse
from tests.peers.tls import client_tls, server_tls
from tests.peers.wire import chunked, request, response
from tests.proxy.in_memory import ANSWER, Proxy, proxy, status, turns

# The end of an answer over TLS (RFC 9112 section 9.8): an attacker can forge the end of TCP


def session_with(*, close_notify: bool, closed: bool = False) -> ssl.SSLObject:
    """A TLS session whose other side has ended TCP. `closed`: this side has sent its own close_notify."""
    to_backend, from_backend = ssl.MemoryBIO(), ssl.MemoryBIO()
    backend = server_tls().wrap_bio(to_backend, from_backend, server_side=True)
    session = client_tls().wrap_bio(from_backend, to_backend, server_hostname="localhost")
    for side in (session, backend, session, backend):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    for side, closes in ((session, closed), (backend, close_notify)):
        if closes:
            with suppress(ssl.SSLError):
                side.unwrap()
    from_backend.write_eof()
    return session


@pytest.mark.parametrize(
    ("session", "whole"),
    [
        pytest.param({"close_notify": True}, True, id="close_notify"),
        pytest.param({"close_notify": True, "closed": True}, True, id="close_notify of both sides"),
        pytest.param({"close_notify": False}, False, id="the end of TCP alone"),
    ],
)
@in_memory
async def test_only_a_close_notify_completes_an_answer_until_close(
    clock: HandClock, session: dict[str, bool], whole: bool
) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].tls = session_with(**session)
        lines()[0].say(b"HTTP/1.1 200 OK\r\n\r\nhello")
        lines()[0].finish()
        assert client.sent.endswith(b"0\r\n\r\n") is whole
        assert client.reset is not whole


# Memory


async def downloading(at: Proxy, full_reads: int = 0, size: int = 1 << 30) -> Line:
    """A client whose answer of this size has begun: its head, and this many full reads of its body."""
    client = at.client(request())
    await turns()
    lines()[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(full_reads):
        lines()[0].say(b"x" * READ_BYTES)
    return client


@in_memory
async def test_reads_of_an_answer_grow_while_its_client_keeps_up(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = await downloading(at)
        upstream = lines()[0].protocol
        for _ in range(KEEPS_UP):
            assert len(upstream.get_buffer(-1)) == READ_BYTES
            lines()[0].say(b"x" * READ_BYTES)
        assert len(upstream.get_buffer(-1)) == LARGE_READ_BYTES
        client.is_full = True
        lines()[0].say(b"x")
        assert len(upstream.get_buffer(-1)) == READ_BYTES


@in_memory
@pytest.mark.parametrize("seconds", [SOON_S, SOON_S + 0.1], ids=["soon", "late"])
async def test_reads_and_the_kernel_take_more_only_for_a_client_that_reads_soon(
    clock: HandClock, seconds: float
) -> None:
    async with proxy(clock) as at:
        client = await downloading(at, KEEPS_UP)
        upstream = lines()[0].protocol
        for wait, keeps_up in ((0.0, True), (seconds, seconds <= SOON_S)):
            client.fill()
            lines()[0].say(b"x")
            assert len(upstream.get_buffer(-1)) < READ_BYTES
            clock.advance(wait)
            client.drain()
            await turns()
            assert len(upstream.get_buffer(-1)) == (LARGE_READ_BYTES if keeps_up else READ_BYTES)
            assert client.kernel_unsent == (LARGE_KERNEL_UNSENT_BYTES if keeps_up else KERNEL_UNSENT_BYTES)


@in_memory
async def test_reads_for_another_client_begin_small(clock: HandClock) -> None:
    async with proxy(clock) as at:
        await downloading(at, KEEPS_UP, KEEPS_UP * READ_BYTES + 1)
        lines()[0].say(b"x")
        at.client(request())
        assert len(lines()) == 1
        assert len(lines()[0].protocol.get_buffer(-1)) == READ_BYTES


@in_memory
async def test_the_kernel_takes_little_for_a_client_that_has_read_little(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = await downloading(at, KEEPS_UP - 1)
        client.fill()
        client.drain()
        assert client.kernel_unsent is None


@in_memory
async def test_reading_a_backend_pauses_while_its_client_does_not_read(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.fill()
        lines()[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30) + b"x" * (2 * READ_BYTES))
        assert not lines()[0].is_reading()
        assert at.live.resources.held_bytes >= READ_BYTES
        client.drain()
        await turns()
        assert lines()[0].is_reading()


# Deadlines


@in_memory
async def test_the_answer_timeout_resumes_after_the_client_has_read_interim_answers(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.is_full = True
        lines()[0].say(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        at.wait(100)  # an answer may take 60
        assert not lines()[0].aborted
        client.is_full = False
        client.drain()
        at.wait(59)
        assert status(client) == 103
        at.wait(1)
        assert status(client) == 504


@in_memory
async def test_a_continuing_upload_does_not_extend_the_timeout_of_a_begun_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", "9")]))
        await turns()
        lines()[0].say(ANSWER[:-1])
        clock.advance(200)
        client.say(b"x")
        at.wait(99)  # 300 by default for a piece
        assert not client.reset
        at.wait(1)
        assert client.reset


@in_memory
async def test_a_connection_of_a_retired_pool_has_time_to_close(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request())
        await turns()
        at.pool.retire()
        lines()[0].say(ANSWER)
        at.wait(CLOSE_S - 0.1)
        assert (lines()[0].closed, lines()[0].aborted) == (True, False)
        at.wait(0.1)
        assert lines()[0].aborted


# The pool


@in_memory
async def test_a_request_without_a_free_connection_may_retry_after_a_second(clock: HandClock) -> None:
    async with proxy(clock, connections=1) as at:
        _, waiting = at.clients(2)
        await turns()
        at.wait(2)
        assert status(waiting) == 503
        assert b"\r\nRetry-After: 1\r\n" in waiting.sent
        assert b'"All connections to the service behind this proxy are in use."' in waiting.sent


@in_memory
async def test_a_closed_idle_connection_is_not_counted(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        assert at.pool.use[:2] == (1, 1)
        lines()[0].end()
        assert at.pool.use[:2] == (0, 0)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
@in_memory
async def test_a_lack_of_file_descriptors_is_a_503(clock: HandClock, error: int) -> None:
    async with proxy(clock, error_detail="full", listen="127.0.0.1:8080") as at:
        refuse(OSError(error, "too many open files"))
        client = at.client(request())
        await turns()
        assert status(client) == 503
        assert b'"The sidecar has no file descriptor left for a connection."' in client.sent
        assert b"\r\nRetry-After: 1\r\n" in client.sent


# Valid and invalid answers


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"])
@in_memory
async def test_an_end_before_the_end_of_an_answer_counts_as_a_reset(clock: HandClock, begun: bytes) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(begun)
        lines()[0].end()
        assert (status(client), client.reset) == ((200, True) if begun else (502, False))
        assert (b'"The service behind this proxy closed the connection."' in client.sent) is not bool(begun)
        [kept] = at.live.telemetry.refusals
        assert kept.cause == ("The connection ended before the answer was complete." if begun else "")
        assert at.live.telemetry.upstream_errors["default", "reset"] == 1


@in_memory
async def test_no_empty_line_comes_before_an_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(b"\r\n" + ANSWER)
        assert status(client) == 502


@in_memory
async def test_the_backends_100_does_not_reach_the_client(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER)
        assert client.sent.startswith(b"HTTP/1.1 200 ")


@in_memory
async def test_every_1xx_is_an_interim_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(b"HTTP/1.1 199 Almost\r\n\r\n")
        lines()[0].say(response(201, b"done"))
        assert status(client) == 201
        assert client.sent.endswith(b"done")


@pytest.mark.parametrize(("number", "answered"), [(MOST_INTERIM_ANSWERS, 200), (MOST_INTERIM_ANSWERS + 1, 502)])
@in_memory
async def test_the_number_of_interim_answers_is_limited(clock: HandClock, number: int, answered: int) -> None:
    async with proxy(clock, error_detail="full", listen="127.0.0.1:8080") as at:
        client = at.client(request())
        await turns()
        lines()[0].say(response(103) * number + ANSWER)
        assert status(client) == answered
        assert client.sent.count(b"HTTP/1.1 103") == MOST_INTERIM_ANSWERS
        assert (b'"cause": "More than 100 interim answers came before a final one."' in client.sent) == (
            answered == 502
        )


@in_memory
async def test_an_unrequested_101_is_a_502(clock: HandClock) -> None:
    async with proxy(clock, error_detail="full", listen="127.0.0.1:8080") as at:
        client = at.client(request())
        await turns()
        lines()[0].say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert status(client) == 502
        assert b'"A 101 must switch to the requested protocol."' in client.sent
        assert lines()[0].aborted


# The framing of an answer (RFC 9112 section 6.3)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "answer", "framing"),
    [
        ("GET", CHUNKED, b"Content-Length: 5"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"Content-Length: 5"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", None),
    ],
)
@in_memory
async def test_a_complete_answer_has_one_framing_and_frees_its_connection(
    clock: HandClock, method: str, answer: bytes, framing: bytes | None
) -> None:
    async with proxy(clock) as at:
        client = at.client(request(method))
        await turns()
        lines()[0].say(answer)
        head, _, body = client.sent.partition(b"\r\n\r\n")
        found = [line for line in head.split(b"\r\n") if line.startswith((b"Content-Length", b"Transfer-Encoding"))]
        assert (found, body) == ([framing] if framing else [], b"hello" if answer is CHUNKED else b"")
        assert at.pool.use[:2] == (1, 1)
        assert not client.finished


@in_memory
async def test_a_client_of_http_1_0_reads_an_answer_without_a_length_to_the_end(clock: HandClock) -> None:
    async with proxy(clock) as at:
        asking = request(headers=[("Connection", "keep-alive")]).replace(b"HTTP/1.1", b"HTTP/1.0")
        client = at.client(asking)
        await turns()
        lines()[0].say(CHUNKED[:-5])
        lines()[0].say(CHUNKED[-5:])
        assert client.sent.endswith(b"\r\nConnection: close\r\n\r\nhello")
        assert client.finished


@in_memory
async def test_a_client_that_asks_for_it_gets_a_last_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request(headers=[("Connection", "close")]))
        await turns()
        lines()[0].say(ANSWER)
        assert (b"\r\nConnection: close\r\n" in client.sent, client.finished) == (True, True)


@in_memory
async def test_the_head_of_a_part_of_an_answer_reaches_its_client(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.fill()
        lines()[0].say(ANSWER[:-1])
        lines()[0].end()
        client.drain()
        await turns()
        assert (status(client), client.reset) == (200, True)


# No connection


@pytest.mark.parametrize(
    ("error", "answered", "details"),
    [
        (TimeoutError(), 504, b"The service behind this proxy did not accept a connection in time."),
        (OSError(errno.ECONNREFUSED, "refused"), 502, b"The service behind this proxy cannot be reached."),
    ],
)
@in_memory
async def test_why_a_backend_has_no_connection(
    clock: HandClock, error: Exception, answered: int, details: bytes
) -> None:
    async with proxy(clock) as at:
        refuse(error)
        client = at.client(request())
        await turns()
        assert (status(client), b'"%b"' % details in client.sent) == (answered, True)


@in_memory
async def test_a_pool_that_ends_opens_no_further_connection(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await asyncio.sleep(0)
        at.pool.close()
        await turns()
        assert lines() == []
        client.end()


@in_memory
async def test_bytes_that_a_backend_did_not_take_are_released_with_its_connection(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", "9")]))
        await turns()
        lines()[0].is_full = True
        client.say(b"hello")
        assert at.live.resources.held_bytes == 5
        lines()[0].end()
        assert at.live.resources.held_bytes == 0


@pytest.mark.parametrize(("method", "answer"), [("GET", 200), ("POST", 502)])
@in_memory
async def test_bytes_that_come_before_a_request_is_sent_are_not_its_answer(
    clock: HandClock, method: str, answer: int
) -> None:
    async with proxy(clock) as at:
        at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        lines()[0].sent = b""
        client = at.client()
        client.say(request(method, "/second"), ends_turn=False)
        lines()[0].say(response(200, b"of another request"))
        await turns()
        assert (lines()[0].sent, lines()[0].aborted) == (b"", True)
        if method == "GET":
            assert lines()[1].sent.startswith(b"GET /second ")
            lines()[1].say(ANSWER)
        assert status(client) == answer
        assert b"of another request" not in client.sent


@in_memory
async def test_an_early_answer_to_a_request_whose_body_is_under_way_is_relayed(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        client = at.client(request("POST", headers=[("Content-Length", "10")]) + b"hello")
        client.say(b"world", ends_turn=False)
        lines()[0].say(response(413))
        assert status(client) == 413


@in_memory
async def test_a_new_connection_may_be_answered_before_its_request_is_read(clock: HandClock) -> None:
    """It serves no other request then: the backend may answer this one again."""
    async with proxy(clock) as at:
        client = at.client(request())
        while not lines():
            await asyncio.sleep(0)
        lines()[0].say(response(503))
        assert status(client) == 503
        assert lines()[0].closed


# Interim answers to a slow client, and the answer of the next one


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


@pytest.mark.parametrize("in_one_turn", [False, True])
@in_memory
async def test_bytes_left_in_the_socket_are_not_read_as_the_next_answer(clock: HandClock, in_one_turn: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    body = b"x" * (READ_BYTES - len(head % READ_BYTES))
    async with proxy(clock, connections=1) as at:
        first, second = at.clients(2)
        await turns()
        lines()[0].say(head % len(body) + body, ends_turn=not in_one_turn)
        lines()[0].say(response(200, b"the second is not answered by this"))
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
