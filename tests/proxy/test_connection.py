"""One client's connection: allowed input, timeouts and its end."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.common.deadlines import NEVER
from sidecar.gateway.local_endpoints import Page, Reply
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.client_connection import ClientConnection
from sidecar.proxy.client_limits import LINGER_S
from sidecar.proxy.listener import Listener
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never, send
from tests.peers.clock import HandClock, in_its_time_with_sockets
from tests.peers.raw import RawClient, pause_reading, resume_reading
from tests.peers.tls import authority, client_tls
from tests.peers.wire import chunked, request, response
from tests.proxy.conftest import Client, Stack, ok, running
from tests.proxy.test_bodies import Held
from tests.proxy.test_tls import write

ON_EVERY_LOOP = True  # transports pause, close and abort differently on each loop
INVITED = b"HTTP/1.1 100 Continue\r\n\r\n"


def listener(stack: Stack) -> Listener:
    assert stack.sidecar.plane._listener is not None
    return stack.sidecar.plane._listener


def connections(stack: Stack) -> list[ClientConnection]:
    """The sidecar's ends of its clients' connections."""
    return listener(stack).connections


def come_to(stack: Stack, monotonic_s: float) -> None:
    """Set the sidecar's clock, and check the deadlines."""
    stack.clock.ahead_s += monotonic_s - stack.clock.monotonic()
    stack.sidecar.live.deadlines.tick()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Received bytes


@pytest.mark.parametrize(("size", "is_here"), [(60_000, True), (70_000, False)])
async def test_a_limited_part_of_a_body_is_read_before_its_request_is_sent(size: int, is_here: bool) -> None:
    """The backend shows it: a body that has already arrived has a length."""
    async with running() as stack, stack.client() as client:
        stack.issuer.hang()
        stack.issuer.rotate()
        head = request("POST", "/x", token=stack.token())[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        await client.send(head + chunked([b"x" * size]))
        for _ in range(3):
            await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        stack.issuer.release()
        assert (await client.response("POST")).status == 200
        [seen] = stack.backend.requests
        assert len(seen.body) == size
        assert (seen.get("content-length") is not None) == is_here


@pytest.mark.parametrize("waits", [True, False])
async def test_only_clients_that_expect_100_continue_get_it(waits: bool) -> None:
    headers = [("Content-Length", "5"), *[("Expect", "100-continue")] * waits]
    async with running() as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=headers))
        await stack.backend.connected()
        if waits:
            assert await client.read(len(INVITED)) == INVITED
        await client.send(b"hello")
        answer = await client.response("POST")
        assert (answer.status, answer.interim) == (200, [])


async def test_any_number_of_pipelined_requests_is_answered(stack: Stack) -> None:
    async with stack.client() as client:
        sending = asyncio.create_task(client.send(b"".join(stack.good("GET", f"/{n}") for n in range(500))))
        for _ in range(500):
            assert (await client.response()).status == 200
        await sending
    assert [seen.target for seen in stack.backend.requests] == [f"/{n}" for n in range(500)]


async def test_a_compressed_body_after_a_chunked_request_stays_compressed() -> None:
    packed = gzip.compress(b"hello")
    async with running() as stack, stack.client() as client:
        assert (await client.request(stack.good("POST", "/x", chunks=[b"a"]))).status == 200
        raw = stack.good("POST", "/x", headers=[("Content-Encoding", "gzip")], body=packed)
        assert (await client.request(raw)).status == 200
        assert [seen.body for seen in stack.backend.requests] == [b"a", packed]


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_a_head_in_pieces_may_be_twice_as_long_as_a_header(more: int, status: int) -> None:
    async with running(limits={"header_bytes": 1000}) as stack, stack.client() as client:
        head = stack.good("GET", "/x").removesuffix(b"\r\n") + b"X-A: %b\r\n" % (b"x" * 900)
        head += b"X-B: " + b"x" * (2000 - len(head) - 9 + more)
        await client.send(head)
        await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        await client.send(b"\r\n\r\n")
        answer = await client.response()
        assert answer.status == status
        if status == 431:
            assert await client.closed() == b""


async def test_an_oversized_head_after_a_request_is_refused_in_its_turn_and_ends_the_connection() -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"header_bytes": 1000}) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        head = stack.good("GET", "/large").removesuffix(b"\r\n")
        for name in (b"A", b"B", b"C"):
            await client.send(head + b"X-%b: %b\r\n" % (name, b"x" * 900))
            await stack.health("/livez")  # by then the sidecar has read the earlier bytes
            head = b""
        sending = asyncio.create_task(client.send(b"\r\n" + stack.good() * (2**24 // len(stack.good()))))
        held.release.set()
        assert [answer.status for answer in await client.answers()] == [200, 431]
        await sending
        assert len(stack.backend.requests) == 1


async def test_bytes_after_invalid_http_are_dropped() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        for sent in (stack.good(), b"no HTTP\r\n\r\n"):
            await client.send(sent)
            await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        sending = asyncio.create_task(client.send(b"x" * 2**24))
        held.release.set()
        assert [answer.status for answer in await client.answers()] == [200, 200, 400]
        await sending


async def test_a_body_with_more_chunks_than_the_buffer_holds_reaches_its_end() -> None:
    taken = asyncio.Event()

    async def count(request: Request, writer: asyncio.StreamWriter) -> None:
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await request.reader.read(65536)
            if body.count(b"x") == 4097:
                taken.set()
        writer.write(response(200, b"%d" % body.count(b"y")))

    async with running(backend=RawBackend(count, read_bodies=False)) as stack, stack.client() as client:
        head = stack.good("POST", headers=[("Transfer-Encoding", "chunked")])
        await client.send(head + b"1\r\nx\r\n" * 4097)
        await taken.wait()
        await client.send(b"1\r\ny\r\n0\r\n\r\n")
        assert (await client.response("POST")).body == b"1"


@pytest.mark.parametrize(
    ("peername", "told", "trusted"),
    [
        (("127.0.0.1", 5), "127.0.0.1", True),
        (("192.0.2.1", 5), "192.0.2.1", False),
        (("::ffff:127.0.0.1", 5, 0, 0), "127.0.0.1", True),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1", False),
        (("fe80::1%eth0", 5, 0, 2), "fe80::1", True),
        (("::1", 5, 0, 0), "::1", False),
        ("", "", False),
    ],
)
async def test_a_peer_is_trusted_by_its_address_in_every_family(peername: object, told: str, trusted: bool) -> None:
    transport = asyncio.Transport(extra={"peername": peername})
    for networks in (["127.0.0.0/8", "fe80::/10"], []):
        async with running(trusted_proxies=networks) as stack:
            forwarded = listener(stack).forwarded(transport)
            assert (forwarded.peer, forwarded.trusted) == (told, trusted and networks != [])
            assert forwarded.scheme == "http"


# Deadlines


@in_its_time_with_sockets
async def test_an_idle_connection_has_only_the_keep_alive_deadline(clock: HandClock) -> None:
    async with running() as stack, stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        await asyncio.sleep(60)
        assert (await client.request(stack.good())).status == 200


async def test_a_head_that_begins_at_the_end_of_the_idle_time_has_its_own_deadline() -> None:
    async with running(timeouts={"keep_alive": "100s", "request_headers": "10s"}) as stack, stack.client() as client:
        begun_s = stack.clock.monotonic()
        await connected(stack)
        head = stack.good()
        come_to(stack, begun_s + 99)
        await client.send(head[:20])
        await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        come_to(stack, begun_s + 105)
        await turns()
        assert stack.sidecar.live.resources.connections == 1
        await client.send(head[20:])
        assert (await client.response()).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [(request("POST", "/x", headers=[("Content-Length", "100")]), 401), (b"no HTTP\r\n\r\n", 400)],
)
async def test_a_refused_client_that_keeps_sending_is_read_for_a_limited_time(sent: bytes, status: int) -> None:
    assert LINGER_S == 5
    async with running() as stack, stack.client() as client:
        before_s = stack.clock.monotonic()
        await client.send(sent)
        assert (await client.response("POST")).status == status
        assert await client.closed() == b""
        after_s = stack.clock.monotonic()
        await client.send(b"x")
        come_to(stack, before_s + 4.9)
        await turns()
        assert stack.sidecar.live.resources.connections == 1
        come_to(stack, after_s + 5)
        await turns()
        assert stack.sidecar.live.resources.connections == 0


async def test_a_connection_has_no_deadline_before_its_beginning(stack: Stack) -> None:
    connection = listener(stack)()
    stack.sidecar.live.deadlines.watched.add(connection)
    come_to(stack, stack.clock.monotonic() + 1e6)
    assert connection.deadline == NEVER
    stack.sidecar.live.deadlines.watched.discard(connection)


async def test_the_deadline_of_a_head_begins_at_its_first_byte() -> None:
    async with running() as stack, stack.client() as client:
        head = stack.good()
        for at in (0, 20):
            await client.send(head[at : at + 20])
            await stack.health("/livez")  # by then the sidecar has read the earlier bytes
            come_to(stack, stack.clock.monotonic() + 4.5)  # of 10 by default
            await turns()
        await client.send(head[40:])
        assert (await client.response()).status == 200


async def test_an_incomplete_request_does_not_end_the_request_before_it() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        await client.send(b"GET / HTTP/1.1\r\n")
        await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        come_to(stack, stack.clock.monotonic() + 50)  # of 10 by default for a head, 60 for an answer
        held.release.set()
        assert (await client.response()).status == 200


async def unread(stack: Stack, client: Client, connection: ClientConnection) -> int:
    """Send requests and read nothing until the kernel's buffers are full. Return the number of requests."""
    pause_reading(client.writer)
    asked = 0
    while not connection.write_paused:
        asked += 1
        await client.send(stack.good())
        await stack.backend.received(asked)
        async with patience("the answer"):
            while stack.sidecar.live.resources.requests_in_flight:
                await asyncio.sleep(0)
    return asked


async def paused(connection: ClientConnection) -> None:
    """Wait until the kernel takes no more bytes for this client."""
    async with patience("the sidecar to wait for the client"):
        while not connection.write_paused:
            await asyncio.sleep(0)


async def test_a_client_that_does_not_read_has_the_idle_timeout() -> None:
    big = response(200, b"x" * 50_000)
    async with running(backend=RawBackend(send(big))) as stack, stack.client() as client:
        [connection] = await connected(stack)
        asked = await unread(stack, client, connection)
        come_to(stack, stack.clock.monotonic() + 280)  # of 300 by default; the rest is for the reading
        resume_reading(client.writer)
        for _ in range(asked):
            assert len((await client.response()).body) == 50_000
        come_to(stack, stack.clock.monotonic() + 70)  # of 75 by default
        assert (await client.request(request())).status == 401


async def test_a_client_that_reads_again_has_no_deadline() -> None:
    more = asyncio.Event()
    size = 32 * 2**20  # more than the kernel keeps

    async def pause(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 2) + b"x" * size)
        await more.wait()
        writer.write(b"ab")

    async with running(backend=RawBackend(pause)) as stack, stack.client() as client:
        [connection] = await connected(stack)
        pause_reading(client.writer)
        await client.send(stack.good())
        await paused(connection)
        resume_reading(client.writer)
        await client.reader.readuntil(b"\r\n\r\n")
        await client.read(size)
        come_to(stack, stack.clock.monotonic() + 290)  # of 300 by default
        more.set()
        assert await client.read(2) == b"ab"


async def test_a_client_that_ends_its_body_must_still_read_the_answer() -> None:
    async def early(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b"x" * 32 * 2**20))  # more than the kernel keeps
        await asyncio.Event().wait()

    async with running(backend=RawBackend(early, read_bodies=False)) as stack, stack.client() as client:
        [connection] = await connected(stack)
        pause_reading(client.writer)
        await client.send(stack.good("POST", headers=[("Transfer-Encoding", "chunked")]))
        await paused(connection)
        await client.send(b"0\r\n\r\n")
        await stack.health("/livez")  # it has come in by then
        come_to(stack, stack.clock.monotonic() + 301)  # of 300 by default
        await stack.backend.disconnected()
        client.abort()


async def test_a_client_that_reads_the_answer_must_still_end_its_body() -> None:
    async def early(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.Event().wait()

    async with running(backend=RawBackend(early, read_bodies=False)) as stack, stack.client() as client:
        await client.send(stack.good("POST", headers=[("Transfer-Encoding", "chunked")]))
        await client.reader.readuntil(b"hello")
        come_to(stack, stack.clock.monotonic() + 301)  # of 300 by default
        await stack.backend.disconnected()


async def test_no_further_request_is_answered_while_a_client_reads_nothing() -> None:
    big = response(200, b"x" * 50_000)
    async with running(backend=RawBackend(send(big))) as stack, stack.client() as client:
        [connection] = await connected(stack)
        asked = await unread(stack, client, connection)
        sending = asyncio.create_task(client.send(request() * 500_000))  # more than waits here and in the kernel
        refusals = stack.sidecar.live.telemetry.refusals
        for _ in range(3):
            await stack.health("/livez")  # by then the sidecar has read as much as it accepts
        assert not sending.done()
        assert (refusals.total, len(stack.backend.requests)) == (0, asked)
        come_to(stack, stack.clock.monotonic() + 301)  # of 300 by default
        with pytest.raises(ConnectionError):
            await sending
        await gone_from(stack)
        assert (refusals.total, len(stack.backend.requests)) == (0, asked)


async def test_waiting_requests_are_answered_after_the_client_reads_again() -> None:
    big = response(200, b"x" * 50_000)
    async with running(backend=RawBackend(send(big))) as stack, stack.client() as client:
        [connection] = await connected(stack)
        asked = await unread(stack, client, connection)
        await client.send(request() * 3)
        await stack.health("/livez")
        resume_reading(client.writer)
        answers = [(await client.response()).status for _ in range(asked + 3)]
        assert answers == [200] * asked + [401] * 3


async def gone_from(stack: Stack) -> None:
    """Wait until the sidecar has no connection of a client."""
    async with patience("the end of the connection"):
        while stack.sidecar.live.resources.connections:
            await asyncio.sleep(0)


@pytest.mark.parametrize("by", ["a body that does not come", "the end of the sidecar"])
async def test_an_answer_cut_off_by_a_timeout_ends_with_a_reset(by: str) -> None:
    """The answer ends with its connection, so any end but a reset completes it."""
    more = asyncio.Event()

    async def begin(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await more.wait()
        writer.write(b"world")
        await asyncio.Event().wait()

    async with running(backend=RawBackend(begin, read_bodies=False)) as stack, stack.client() as client:
        headers = [("Content-Length", "5")] if by == "a body that does not come" else []
        await client.send(stack.good("POST", headers=headers).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await client.reader.readuntil(b"hello")
        if headers:
            come_to(stack, stack.clock.monotonic() + 200)
            more.set()
            assert await client.read(5) == b"world"
            come_to(stack, stack.clock.monotonic() + 101)  # of 300 by default, for the client, and not for the backend
        else:
            await listener(stack).shutdown()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


@asynccontextmanager
async def unread_page(
    size: int, context: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[tuple[Stack, RawClient]]:
    """A client whose last request is for a page of this size, and that has read none of it."""
    page = Page(Route("/page", auth=Auth.NONE, name="/page"), lambda *_: Reply(200, {}, b"x" * size))
    async with running(**settings) as stack, RawClient.to(stack.sidecar.proxy_address, tls=context) as client:
        stack.sidecar.assembly.handler.pages = {"/page": page}
        pause_reading(client.writer)
        await client.send(request("GET", "/page", headers=[("Connection", "close")]))
        async with patience("the page"):
            while not stack.sidecar.live.telemetry.requests:
                await asyncio.sleep(0)
        yield stack, client


@pytest.mark.parametrize(("silent_s", "in_time"), [(60, True), (280, True), (301, False)])
async def test_the_last_answer_may_be_read_slowly(silent_s: float, in_time: bool) -> None:
    size = 32 * 2**20  # more than the kernel keeps
    async with unread_page(size) as (stack, client):
        come_to(stack, stack.clock.monotonic() + silent_s)  # of 300 by default
        await turns()
        assert stack.sidecar.live.resources.connections == in_time
        resume_reading(client.writer)
        if in_time:
            assert len((await client.response()).body) == size
            assert await client.closed() == b""


async def test_the_last_answer_may_be_read_slowly_over_tls(tmp_path: Path) -> None:
    """The TLS transport buffers unread bytes, and does not report their number."""
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    size = 32 * 2**20  # more than the kernel keeps
    async with unread_page(size, client_tls(), tls=tls) as (stack, client):
        come_to(stack, stack.clock.monotonic() + 280)  # of 300 by default; the rest is for the reading
        await turns()
        resume_reading(client.writer)
        assert len((await client.response()).body) == size
        assert await client.closed() == b""


async def connected(stack: Stack) -> list[ClientConnection]:
    async with patience("the connection"):
        while not connections(stack):
            await asyncio.sleep(0)
    return connections(stack)


# The end of a connection


async def test_the_rest_of_a_body_is_dropped_when_its_request_is_refused() -> None:
    async with running() as stack, stack.client() as client:
        stack.issuer.hang()
        token = stack.token(header={"kid": "unknown"})
        size = 32 * 2**20  # more than waits here and in the kernel
        await client.send(request("POST", "/x", token=token, headers=[("Content-Length", str(size))]))
        sending = asyncio.create_task(client.send(b"x" * size))
        await stack.health("/livez")  # by then the sidecar has read as much as it accepts
        assert not sending.done()
        stack.issuer.release()
        assert (await client.response("POST")).status == 401
        await sending
        assert await client.closed() == b""


async def test_a_refusal_ends_its_connection_over_tls(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls) as stack, RawClient.to(stack.sidecar.proxy_address, tls=client_tls()) as client:
        await client.send(request("POST", "/x", headers=[("Content-Length", "100")]))
        answer = await client.response("POST")
        assert (answer.status, answer.get("connection")) == (401, "close")
        come_to(stack, stack.clock.monotonic() + LINGER_S)
        assert await client.closed() == b""


async def gone(stack: Stack) -> ClientConnection:
    """The sidecar's end of a connection whose client has left."""
    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        [connection] = connections(stack)
    await gone_from(stack)
    return connection


async def test_bytes_for_a_client_that_has_left_are_dropped(stack: Stack) -> None:
    connection = await gone(stack)
    connection.write(b"hello")
    connection.abort()
    connection.expire()


async def test_a_shutdown_keeps_the_connection_of_a_request_in_flight() -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as busy, stack.client() as idle:
        await busy.send(stack.good())
        await stack.backend.received()
        listener(stack).pre_shutdown()
        assert await idle.closed() == b""
        stack.backend.handler = ok
        await stack.backend.drop_connections()
        answer = await busy.response()
        assert (answer.status, await busy.closed()) == (502, b"")


async def test_a_shutdown_ends_every_connection_and_request() -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as busy, stack.client() as half:
        await busy.send(stack.good())
        await half.send(b"GET / HTTP/1.1\r\n")
        await stack.backend.received()
        await listener(stack).shutdown()
        assert stack.sidecar.live.resources.requests_in_flight == 0
        for client in (busy, half):
            assert await ended(client)


async def ended(client: Client) -> bool:
    try:
        return await client.closed() == b""
    except ConnectionError:
        return True


async def test_a_client_that_leaves_during_a_fetch_of_keys_sends_no_request_to_the_backend() -> None:
    async with running() as stack:
        assert (await stack.fetch(stack.good())).status == 200  # now a connection to the backend is ready
        stack.issuer.hang()
        stack.issuer.rotate()
        fetches = stack.issuer.discovery_fetches
        async with stack.client() as client:
            await client.send(request("GET", "/left", token=stack.token()))
            await stack.issuer.fetched(fetches + 1, stack.issuer.discovery_path)
        async with patience("the end of the request"):
            while stack.sidecar.live.resources.requests_in_flight:
                await asyncio.sleep(0)
        stack.issuer.release()
        assert (await stack.fetch(request("GET", "/", token=stack.token()))).status == 200
        assert [seen.target for seen in stack.backend.requests] == ["/", "/"]
