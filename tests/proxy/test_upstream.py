"""The pool and its connections at moments that no socket can be brought to: the tests are the backend, and have the clock."""

import asyncio
import gc
import ssl
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiohttp import HttpVersion11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage, RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sidecar.connection import ClientConnection
from sidecar.deadlines import NEVER, Deadlines
from sidecar.headers import HOP_BY_HOP, Forwarded, Roles
from sidecar.leg import BrokenOff, UpstreamConnection
from sidecar.rejections import Reason, Rejection
from sidecar.request import Request
from sidecar.routes import Route
from sidecar.upstream import Answer, Upstream
from tests.peers.clock import HandClock
from tests.peers.memory import Line, end_at_once, in_memory, lines
from tests.peers.wire import response

HEAD = b"GET / HTTP/1.1\r\n"
ANSWER = response(200, b"hello")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def pool_of(clock: HandClock, connections: int = 10, tls: Callable[[], ssl.SSLContext] | None = None) -> Upstream:
    return Upstream(
        "default",
        ("backend.test", 80),
        clock,
        Deadlines(clock),
        authority="backend.test",
        tls=tls,
        connections=connections,
        connect_s=2.0,
        answer_s=60.0,
        idle_s=300.0,
    )


class Client:
    """What a request asks of the connection that it came by."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.forwarded = Forwarded("127.0.0.1", "http", False)
        self.deadline = NEVER
        self.invited = 0
        self.transport: object | None = self

    def invite_body(self, _request: Request) -> None:
        """Now it may come."""
        self.invited += 1

    def wait_for_body(self, deadline: float) -> None:
        """It owes a piece of its body by then."""
        self.deadline = deadline


def asked(
    clock: HandClock, method: str = "GET", *headers: tuple[bytes, bytes], payload: StreamReader = EMPTY_PAYLOAD
) -> Request:
    """A request that has been read."""
    message = RawRequestMessage(
        method,
        "/",
        HttpVersion11,
        CIMultiDictProxy(CIMultiDict()),
        ((b"Host", b"a"), *headers),
        False,
        None,
        False,
        False,
        URL("/"),
    )
    request = Request(message, payload, cast(ClientConnection, Client(clock)))
    request.read(Roles(HOP_BY_HOP))
    return request


def body(protocol: BaseProtocol | None = None) -> StreamReader:
    """A body that is still to come, by this client's connection if it matters."""
    loop = asyncio.get_running_loop()
    if protocol is None:
        protocol = BaseProtocol(loop)
        Line(protocol)
    return StreamReader(protocol, 2**16, loop=loop)


async def turns() -> None:
    """Turns of this loop, in which everybody goes on as far as possible."""
    for _ in range(8):
        await asyncio.sleep(0)


def sending(pool: Upstream, request: Request) -> "asyncio.Task[Answer]":
    """The request on its way."""
    return asyncio.create_task(pool.send(HEAD, request, lambda _: None))


def exchanging(connection: UpstreamConnection) -> "asyncio.Task[Any]":
    """A request and its answer on a connection, without a pool around it."""
    connection.request_sent = True
    return asyncio.create_task(connection.exchange(HEAD + b"\r\n", False, 60.0))


# The pool


@in_memory
async def test_a_turn_that_is_given_to_somebody_who_gives_up_is_the_next_ones(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    connection = await pool.connect()
    leaving, staying = (asyncio.create_task(pool.connect()) for _ in range(2))
    await turns()
    pool.keep(connection)
    leaving.cancel()
    assert await staying is connection


@in_memory
async def test_who_gives_up_is_given_no_turn(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    connection = await pool.connect()
    leaving, staying = (asyncio.create_task(pool.connect()) for _ in range(2))
    await turns()
    leaving.cancel()
    pool.keep(connection)
    assert await staying is connection


@in_memory
async def test_a_turn_of_another_is_no_reason_to_wait_longer(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    begun, connection = clock.monotonic(), await pool.connect()
    first, second = (asyncio.create_task(pool.connect()) for _ in range(2))
    await asyncio.sleep(1)
    pool.keep(connection)
    assert await first is connection
    with pytest.raises(Rejection) as raised:
        await second
    assert (raised.value.reason, raised.value.retry_after_s) == (Reason.OVERLOADED, 1)
    assert clock.monotonic() - begun == pytest.approx(2)


@in_memory
async def test_who_is_passed_by_waits_no_longer(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    begun, connection = clock.monotonic(), await pool.connect()
    waiting = asyncio.create_task(pool.connect())
    await asyncio.sleep(1.5)
    newcomer = sending(pool, asked(clock))
    pool.keep(connection)  # in the very turn in which somebody else comes for it
    with pytest.raises(Rejection):
        await waiting
    assert clock.monotonic() - begun == pytest.approx(2)
    lines()[0].say(ANSWER)
    await newcomer


@in_memory
async def test_who_gave_up_waiting_is_forgotten(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    await pool.connect()
    before = futures()
    waiting = [asyncio.create_task(pool.connect()) for _ in range(100)]
    await asyncio.wait(waiting)
    assert {type(one.exception()) for one in waiting} == {Rejection}
    waiting.clear()
    assert futures() - before < 10


def futures() -> int:
    gc.collect()
    return sum(isinstance(one, asyncio.Future) for one in gc.get_objects())


@in_memory
async def test_a_connection_of_a_retired_pool_gives_its_place_when_it_has_ended(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    begun, connection = clock.monotonic(), await pool.connect()
    waiting = asyncio.create_task(pool.connect())
    await asyncio.sleep(1)
    pool.retire()
    pool.keep(connection)
    assert lines()[0].closed
    with pytest.raises(Rejection):
        await waiting
    assert clock.monotonic() - begun == pytest.approx(2)
    waiting = asyncio.create_task(pool.connect())
    await turns()
    lines()[0].end()
    assert await waiting is not connection


@in_memory
async def test_connections_that_are_being_opened_count(clock: HandClock) -> None:
    pool = pool_of(clock, connections=2)
    opening = [asyncio.create_task(pool.connect()) for _ in range(3)]
    await turns()
    assert len(lines()) == 2
    lines()[0].end()
    await asyncio.wait(opening)
    assert [one.exception() for one in opening] == [None, None, None]
    assert len(lines()) == 3


@in_memory
async def test_a_connection_that_is_gone_as_soon_as_it_is_there_is_a_502_and_takes_no_place(clock: HandClock) -> None:
    pool = pool_of(clock, connections=1)
    end_at_once(1)
    with pytest.raises(Rejection) as raised:
        await pool.connect()
    assert raised.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert pool.deadlines.watched == set()
    await pool.connect()


@in_memory
async def test_a_connection_that_is_about_to_end_is_not_taken(clock: HandClock) -> None:
    pool = pool_of(clock)
    connection = await pool.connect()
    pool.keep(connection)
    connection.close()
    answer = sending(pool, asked(clock, "POST"))
    await turns()
    lines()[0].end()
    lines()[1].say(ANSWER)
    assert (await answer).message.code == 200
    assert lines()[0].sent == b""


@in_memory
async def test_a_connection_that_ends_behind_its_answer_is_not_used_again(clock: HandClock) -> None:
    pool = pool_of(clock)
    answering = sending(pool, asked(clock))
    await turns()
    lines()[0].say(ANSWER)
    lines()[0].end()
    answer = await answering
    assert answer.whole() == b"hello"
    answer.release()
    answering = sending(pool, asked(clock))
    await turns()
    lines()[1].say(ANSWER)
    assert (await answering).message.code == 200


@in_memory
async def test_an_answer_that_nobody_has_read_to_its_end_ends_its_connection(clock: HandClock) -> None:
    pool = pool_of(clock)
    answering = sending(pool, asked(clock))
    await turns()
    lines()[0].say(ANSWER[:-1])
    answer = await answering
    assert answer.whole() is None
    answer.release()
    assert lines()[0].closed


@in_memory
async def test_the_end_of_a_pool_ends_all_its_connections(clock: HandClock) -> None:
    pool = pool_of(clock)
    for _ in range(2):
        idle = await pool.connect()
    pool.keep(idle)
    pool.close()
    assert [line.closed for line in lines()] == [True, True]


@in_memory
async def test_a_body_is_asked_for_when_there_is_a_connection_for_it(clock: HandClock) -> None:
    pool, payload = pool_of(clock, connections=1), body()
    connection = await pool.connect()
    request = asked(clock, "POST", (b"Content-Length", b"5"), payload=payload)
    answer = sending(pool, request)
    await turns()
    assert cast(Client, request.connection).invited == 0
    pool.keep(connection)
    await turns()
    assert cast(Client, request.connection).invited == 1
    payload.feed_data(b"hello")
    payload.feed_eof()
    await turns()
    lines()[0].say(ANSWER)
    assert (await answer).request_sent
    assert lines()[0].sent.endswith(b"\r\n\r\nhello")


@in_memory
async def test_a_request_that_its_client_did_not_finish_leaves_no_connection_to_the_next(clock: HandClock) -> None:
    """The backend has answered, and reads on when the client has gone: the next request must not be the rest of this one."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    client = Line(protocol)
    pool, payload = pool_of(clock), body(protocol)
    request = asked(clock, "POST", (b"Content-Length", b"10"), payload=payload)
    answering = sending(pool, request)
    await turns()
    [backend] = lines()
    backend._protocol.pause_writing()
    payload.feed_data(b"half")
    await turns()
    backend.say(ANSWER)
    answer = await answering
    assert answer.whole() == b"hello"
    cast(Client, request.connection).transport = None
    client.end()
    backend._protocol.resume_writing()
    await turns()
    assert answer._sending is not None
    assert answer._sending.exception() is None  # nobody would ask for it
    assert not answer.request_sent
    answer.release()
    assert backend.closed


@in_memory
async def test_a_bug_while_a_body_is_sent_is_nobodys_departure(clock: HandClock) -> None:
    pool, payload = pool_of(clock), body()
    request = asked(clock, "POST", (b"Content-Length", b"10"), payload=payload)
    answering = sending(pool, request)
    await turns()
    payload.set_exception(RuntimeError("a bug"))
    [backend] = lines()
    await turns()
    backend.say(ANSWER)
    answer = await answering
    assert answer._sending is not None
    with pytest.raises(RuntimeError, match="a bug"):
        await answer._sending
    answer.release()
    assert backend.closed


@in_memory
async def test_nothing_more_is_sent_of_a_body_that_is_too_large(clock: HandClock) -> None:
    pool, payload = pool_of(clock), body()
    request = asked(clock, "POST", (b"Transfer-Encoding", b"chunked"), payload=payload)
    request.route = Route("/*", max_body=4)
    answer = sending(pool, request)
    await turns()
    payload.feed_data(b"1234")
    await turns()
    payload.feed_data(b"5")
    with pytest.raises(Rejection) as raised:
        await answer
    assert raised.value.reason is Reason.BODY_TOO_LARGE
    assert lines()[0].sent.endswith(b"\r\n\r\n4\r\n1234\r\n")
    assert lines()[0].aborted


@pytest.mark.parametrize(("tls", "scheme"), [(None, "http"), (ssl.create_default_context, "https")])
def test_a_backend_has_the_scheme_of_its_connections(
    clock: HandClock, tls: Callable[[], ssl.SSLContext] | None, scheme: str
) -> None:
    assert pool_of(clock, tls=tls).scheme == scheme


# A connection


@in_memory
async def test_a_connection_says_what_became_of_it(clock: HandClock) -> None:
    connection = await pool_of(clock).connect()
    assert not connection.spoken
    for begun in (ANSWER, ANSWER[:1]):
        answer = exchanging(connection)
        await turns()
        assert not connection.spoken
        lines()[0].say(begun)
        assert (connection.spoken, connection.reusable) == (True, True)
    lines()[0].end()
    with pytest.raises(BrokenOff):
        await answer
    assert not connection.reusable


@in_memory
async def test_what_is_held_back_of_an_answer_comes_when_it_is_read(clock: HandClock) -> None:
    connection = await pool_of(clock).connect()
    answer = exchanging(connection)
    await turns()
    lines()[0].say(response(200, chunks=[b"x" * 200_000, b"end"]))
    _, payload = await answer
    assert not payload.is_eof()
    assert payload.total_bytes == 200_000
    assert await payload.read() == b"x" * 200_000 + b"end"
    assert connection.at_rest


@in_memory
async def test_the_end_of_an_answer_behind_more_chunks_than_are_held_comes(clock: HandClock) -> None:
    connection = await pool_of(clock).connect()
    answering = exchanging(connection)
    await turns()
    lines()[0].say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 4097)
    _, payload = await answering
    assert await payload.readany() == b"x" * 4097
    await turns()
    lines()[0].say(b"1\r\ny\r\n0\r\n\r\n")
    assert payload.is_eof()
    assert await payload.readany() == b"y"
    assert connection.at_rest


@in_memory
async def test_only_an_answer_that_is_owed_can_be_late(clock: HandClock) -> None:
    pool = pool_of(clock)
    connection = await pool.connect()
    clock.advance(1000)
    pool.deadlines.tick()
    answer = exchanging(connection)
    await turns()
    clock.advance(59)
    pool.deadlines.tick()
    lines()[0].say(ANSWER)
    await answer
    clock.advance(1000)
    pool.deadlines.tick()
    connection.hold()
    connection.wait_until(clock.monotonic() + 1)
    clock.advance(1000)
    pool.deadlines.tick()
    assert not lines()[0].closed


@in_memory
async def test_while_a_body_is_waited_for_the_backend_is_not_late(clock: HandClock) -> None:
    pool = pool_of(clock)
    connection = await pool.connect()
    answer = exchanging(connection)
    await turns()
    connection.hold()
    clock.advance(1000)
    pool.deadlines.tick()
    connection.wait_until(clock.monotonic() + 60)
    clock.advance(59)
    pool.deadlines.tick()
    assert not lines()[0].closed
    clock.advance(1)
    pool.deadlines.tick()
    with pytest.raises(Rejection) as raised:
        await answer
    assert raised.value.reason is Reason.UPSTREAM_TIMEOUT


@in_memory
async def test_nothing_is_written_to_a_connection_that_has_ended(clock: HandClock) -> None:
    connection = await pool_of(clock).connect()
    lines()[0].end()
    with pytest.raises(BrokenOff):
        connection.write(b"x")
    with pytest.raises(BrokenOff):
        await exchanging(connection)
    assert lines()[0].sent == b""


@in_memory
async def test_what_comes_when_nobody_has_asked_is_not_looked_at(clock: HandClock) -> None:
    told: list[RawResponseMessage] = []
    connection = await pool_of(clock).connect()
    connection.interim = told.append
    answer = exchanging(connection)
    await turns()
    lines()[0].say(ANSWER)
    await answer
    lines()[0].say(response(103))
    assert lines()[0].closed
    assert told == []


@in_memory
async def test_what_a_backend_does_not_take_of_a_closed_connection_is_given_up(clock: HandClock) -> None:
    pool = pool_of(clock)
    connection = await pool.connect()
    connection.close()
    clock.advance(4.5)
    pool.deadlines.tick()
    assert not lines()[0].aborted
    clock.advance(0.5)
    pool.deadlines.tick()
    assert lines()[0].aborted


@in_memory
async def test_a_second_answer_is_the_end_of_its_connection(clock: HandClock) -> None:
    connection = await pool_of(clock).connect()
    answer = exchanging(connection)
    await turns()
    lines()[0].say(ANSWER)
    assert connection.at_rest
    lines()[0].say(ANSWER)
    assert (await answer)[0].message.code == 200
    assert lines()[0].closed
    assert not connection.at_rest


@in_memory
async def test_an_answer_behind_the_rest_of_another_is_the_end_of_its_connection(clock: HandClock) -> None:
    connection = await pool_of(clock).connect()
    answer = exchanging(connection)
    await turns()
    lines()[0].say(ANSWER[:-2])
    _, payload = await answer
    lines()[0].say(ANSWER[-2:] + ANSWER)
    assert await payload.read() == b"hello"
    assert lines()[0].closed
    assert not connection.at_rest


@in_memory
async def test_what_comes_between_a_101_and_its_tunnel_waits_for_it(clock: HandClock) -> None:
    came: list[bytes] = []
    connection = await pool_of(clock).connect()
    answer = exchanging(connection)
    await turns()
    lines()[0].say(SWITCHING + b"first")
    lines()[0].say(b"second")
    await answer
    tunnel = asyncio.create_task(connection.enter_tunnel(came.append))
    await turns()
    lines()[0].say(b"third")
    assert b"".join(came) == b"firstsecondthird"
    assert not tunnel.done()
    lines()[0].end()
    await tunnel


@in_memory
async def test_a_tunnel_whose_connection_has_ended_before_ends_at_once(clock: HandClock) -> None:
    came: list[bytes] = []
    connection = await pool_of(clock).connect()
    answer = exchanging(connection)
    await turns()
    lines()[0].say(SWITCHING + b"last")
    await answer
    lines()[0].end()
    await connection.enter_tunnel(came.append)
    assert came == [b"last"]
