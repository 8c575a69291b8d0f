"""One client's connection: what it may send how, for how long it is kept, and how it ends."""

import asyncio
import gzip
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpResponseParser
from aiohttp.streams import EMPTY_PAYLOAD

from sidecar.connection import LINGER_S, ClientConnection
from sidecar.deadlines import NEVER
from sidecar.listener import Listener
from sidecar.relay import Relay
from sidecar.request import Request as Asked
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never, send
from tests.peers.clock import HandClock, in_its_time_with_sockets
from tests.peers.raw import RawClient
from tests.peers.tls import authority, client_tls
from tests.peers.wire import chunked, request, response
from tests.proxy.conftest import Client, Stack, ok, running
from tests.proxy.test_bodies import Held
from tests.proxy.test_tls import write

INVITED = b"HTTP/1.1 100 Continue\r\n\r\n"


def listener(stack: Stack) -> Listener:
    assert stack.sidecar.plane._listener is not None
    return stack.sidecar.plane._listener


def connections(stack: Stack) -> list[ClientConnection]:
    """The sidecar's ends of its clients' connections."""
    return listener(stack).connections  # type: ignore[return-value]


def come_to(stack: Stack, monotonic_s: float) -> None:
    """Let the sidecar's clock show this, and the deadlines be looked at."""
    stack.clock.ahead_s += monotonic_s - stack.clock.monotonic()
    stack.sidecar.live.deadlines.tick()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# What comes


@pytest.mark.parametrize("size", [131_072, 131_073])
async def test_so_much_of_a_body_is_taken_before_its_request_goes_on_and_no_more(size: int) -> None:
    """Told by the backend: a body that is here already has a length."""
    async with running() as stack, stack.client() as client:
        stack.issuer.hang()
        stack.issuer.rotate()
        head = request("POST", "/x", token=stack.token())[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        await client.send(head + chunked([b"x" * size]))
        for _ in range(3):
            await stack.health("/livez")  # what was sent before has come in by then
        stack.issuer.release()
        assert (await client.response("POST")).status == 200
        [seen] = stack.backend.requests
        assert len(seen.body) == size
        assert (seen.get("content-length") is not None) == (size == 131_072)


@pytest.mark.parametrize("waits", [True, False])
async def test_only_who_waits_to_be_invited_is_invited_to_send_a_body(waits: bool) -> None:
    headers = [("Content-Length", "5"), *[("Expect", "100-continue")] * waits]
    async with running() as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=headers))
        await stack.backend.connected()
        if waits:
            assert await client.read(len(INVITED)) == INVITED
        await client.send(b"hello")
        answer = await client.response("POST")
        assert (answer.status, answer.interim) == (200, [])


async def test_any_number_of_requests_may_come_at_once(stack: Stack) -> None:
    async with stack.client() as client:
        sending = asyncio.create_task(client.send(b"".join(stack.good("GET", f"/{n}") for n in range(500))))
        for _ in range(500):
            assert (await client.response()).status == 200
        await sending
    assert [seen.target for seen in stack.backend.requests] == [f"/{n}" for n in range(500)]


async def test_a_packed_body_behind_a_chunked_request_stays_packed() -> None:
    packed = gzip.compress(b"hello")
    async with running() as stack, stack.client() as client:
        assert (await client.request(stack.good("POST", "/x", chunks=[b"a"]))).status == 200
        raw = stack.good("POST", "/x", headers=[("Content-Encoding", "gzip")], body=packed)
        assert (await client.request(raw)).status == 200
        assert [seen.body for seen in stack.backend.requests] == [b"a", packed]


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_a_head_that_comes_in_pieces_may_be_twice_as_long_as_a_header(more: int, status: int) -> None:
    async with running(limits={"header_bytes": 1000}) as stack, stack.client() as client:
        head = stack.good("GET", "/x").removesuffix(b"\r\n") + b"X-A: %b\r\n" % (b"x" * 900)
        head += b"X-B: " + b"x" * (2000 - len(head) - 5 + more)
        await client.send(head)
        await stack.health("/livez")  # what was sent before has come in by then
        if status == 200:
            await client.send(b"\r\n\r\n")
        answer = await client.response()
        assert answer.status == status
        if status == 431:
            assert await client.closed() == b""


async def test_a_head_that_is_too_large_behind_another_request_is_refused_after_it_and_what_follows_is_dropped() -> (
    None
):
    held = Held()
    async with running(backend=RawBackend(held), limits={"header_bytes": 1000}) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        head = stack.good("GET", "/large").removesuffix(b"\r\n")
        for name in (b"A", b"B", b"C"):
            await client.send(head + b"X-%b: %b\r\n" % (name, b"x" * 900))
            await stack.health("/livez")  # what was sent before has come in by then
            head = b""
        await client.send(b"\r\n" + stack.good() * (2**24 // len(stack.good())))
        held.release.set()
        assert [answer.status for answer in await client.answers()] == [200, 431]
        assert len(stack.backend.requests) == 1


async def test_what_comes_behind_bytes_that_are_no_http_is_dropped_while_another_request_is_served() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        for sent in (stack.good(), b"no HTTP\r\n\r\n"):
            await client.send(sent)
            await stack.health("/livez")  # what was sent before has come in by then
        for _ in range(2**14):
            await client.send(b"x" * 1024)
        held.release.set()
        assert [answer.status for answer in await client.answers()] == [200, 200, 400]


async def test_the_end_of_a_body_behind_more_chunks_than_are_held_comes() -> None:
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


@pytest.mark.parametrize("early", [b"AB\n", b"\n", b"\r\n"])
async def test_bytes_of_another_protocol_that_come_with_the_end_of_the_request_are_seen(early: bytes) -> None:
    async def upgrade(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x-proto/1\r\n\r\n")
        await asyncio.Event().wait()

    routes = [{"path": "/*", "upgrades": ["x-proto/1"]}]
    async with running(backend=RawBackend(upgrade), routes=routes) as stack, stack.client() as client:
        head = stack.good("GET", "/", headers=[("Connection", "Upgrade"), ("Upgrade", "x-proto/1")])
        await client.send(head[:-1])
        await stack.health("/livez")
        await client.send(head[-1:] + early)
        assert (await client.closed()).startswith(b"HTTP/1.1 400 ")


async def test_bytes_of_another_protocol_behind_a_head_that_began_with_the_end_of_a_body_are_seen() -> None:
    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "POST":
            writer.write(response(200, b"ok"))
        else:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x-proto/1\r\n\r\n")
            await asyncio.Event().wait()

    routes = [{"path": "/*", "upgrades": ["x-proto/1"]}]
    async with running(backend=RawBackend(upgrade), routes=routes) as stack, stack.client() as client:
        head = stack.good("GET", "/", headers=[("Connection", "Upgrade"), ("Upgrade", "x-proto/1")])
        await client.send(stack.good("POST", "/", headers=[("Content-Length", "5")]))
        await stack.backend.connected()
        await client.send(b"hello" + head[:-1])
        assert (await client.response("POST")).status == 200
        await client.send(head[-1:] + b"AB")
        assert (await client.closed()).startswith(b"HTTP/1.1 400 ")


async def test_a_client_of_http_1_0_gets_no_interim_answer() -> None:
    async with running(backend=RawBackend(send(response(103), response(200, b"hello")))) as stack:
        answer = await stack.fetch(stack.good().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (answer.status, answer.body, answer.interim) == (200, b"hello", [])


@pytest.mark.parametrize(
    ("peername", "told", "trusted"),
    [
        (("127.0.0.1", 5), b"127.0.0.1", True),
        (("192.0.2.1", 5), b"192.0.2.1", False),
        (("::ffff:127.0.0.1", 5, 0, 0), b"::ffff:127.0.0.1", True),
        (("::ffff:192.0.2.1", 5, 0, 0), b"::ffff:192.0.2.1", False),
        (("fe80::1%eth0", 5, 0, 2), b"fe80::1", True),
        (("::1", 5, 0, 0), b"::1", False),
        ("", b"", False),
    ],
)
async def test_a_peer_is_trusted_by_its_address_in_whatever_family(
    peername: object, told: bytes, trusted: bool
) -> None:
    transport = asyncio.Transport(extra={"peername": peername})
    for networks in (["127.0.0.0/8", "fe80::/10"], []):
        async with running(trusted_proxies=networks) as stack:
            forwarded = listener(stack).forwarded(transport)
            assert (forwarded.peer, forwarded.trusted) == (told, trusted and networks != [])
            assert forwarded.scheme == b"http"


# How long


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@in_its_time_with_sockets
async def test_an_idle_connection_has_no_deadline_but_its_own(clock: HandClock) -> None:
    async with running() as stack, stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        await asyncio.sleep(60)
        assert (await client.request(stack.good())).status == 200


async def test_a_head_that_begins_at_the_end_of_the_idle_time_has_the_time_of_a_head() -> None:
    async with running(timeouts={"keep_alive": "100s", "request_headers": "10s"}) as stack, stack.client() as client:
        begun_s = stack.clock.monotonic()
        await connected(stack)
        head = stack.good()
        come_to(stack, begun_s + 99)
        await client.send(head[:20])
        await stack.health("/livez")  # what was sent before has come in by then
        come_to(stack, begun_s + 105)
        await turns()
        assert stack.sidecar.live.telemetry.connections == 1
        await client.send(head[20:])
        assert (await client.response()).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [(request("POST", "/x", headers=[("Content-Length", "100")]), 401), (b"no HTTP\r\n\r\n", 400)],
)
async def test_who_is_refused_and_goes_on_sending_is_heard_for_a_while_and_no_longer(sent: bytes, status: int) -> None:
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
        assert stack.sidecar.live.telemetry.connections == 1
        come_to(stack, after_s + 5)
        await turns()
        assert stack.sidecar.live.telemetry.connections == 0


async def test_a_connection_has_no_deadline_before_it_begins(stack: Stack) -> None:
    connection = listener(stack)()
    stack.sidecar.live.deadlines.watched.add(connection)
    come_to(stack, stack.clock.monotonic() + 1e6)
    assert connection.deadline == NEVER
    stack.sidecar.live.deadlines.watched.discard(connection)


async def test_a_head_has_its_time_from_its_first_byte_on() -> None:
    async with running() as stack, stack.client() as client:
        head = stack.good()
        for at in (0, 20):
            await client.send(head[at : at + 20])
            await stack.health("/livez")  # what was sent before has come in by then
            come_to(stack, stack.clock.monotonic() + 4.5)  # of 10 by default
            await turns()
        await client.send(head[40:])
        assert (await client.response()).status == 200


async def test_half_a_request_behind_another_does_not_end_that() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        await client.send(b"GET / HTTP/1.1\r\n")
        await stack.health("/livez")  # what was sent before has come in by then
        come_to(stack, stack.clock.monotonic() + 50)  # of 10 by default for a head, 60 for an answer
        held.release.set()
        assert (await client.response()).status == 200


async def unread(stack: Stack, client: Client, connection: ClientConnection, size: int) -> int:
    """Ask and read nothing until more than so many bytes wait at the sidecar; how many requests that took."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport too
    asked = 0
    while left(connection) <= size:
        asked += 1
        await client.send(stack.good())
        await stack.backend.received(asked)
        await turns()
    return asked


async def test_who_does_not_read_an_answer_has_the_time_of_silence_before_the_next() -> None:
    big = response(200, b"x" * 50_000)
    async with running(backend=RawBackend(send(big))) as stack, stack.client() as client:
        [connection] = await connected(stack)
        transport = client.writer.transport
        asked = await unread(stack, client, connection, 65_536)  # of what waits here, so much is no reason to wait
        come_to(stack, stack.clock.monotonic() + 299)  # of 300 by default
        transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(asked):
            assert len((await client.response()).body) == 50_000
        come_to(stack, stack.clock.monotonic() + 70)  # of 75 by default
        assert (await client.request(request())).status == 401


async def test_who_reads_again_has_no_deadline_while_the_backend_is_silent() -> None:
    more = asyncio.Event()
    size = 32 * 2**20  # more than the kernel keeps

    async def pause(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 2) + b"x" * size)
        await more.wait()
        writer.write(b"ab")

    async with running(backend=RawBackend(pause)) as stack, stack.client() as client:
        [connection] = await connected(stack)
        transport = client.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport too
        await client.send(stack.good())
        async with patience("the client to be waited for"):
            while left(connection) <= 65_536:
                await asyncio.sleep(0)
        transport.resume_reading()  # type: ignore[attr-defined]
        await client.reader.readuntil(b"\r\n\r\n")
        await client.read(size)
        come_to(stack, stack.clock.monotonic() + 290)  # of 300 by default
        more.set()
        assert await client.read(2) == b"ab"


async def test_who_ends_a_body_has_to_take_the_answer_all_the_same() -> None:
    async def early(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b"x" * 32 * 2**20))  # more than the kernel keeps
        await asyncio.Event().wait()

    async with running(backend=RawBackend(early, read_bodies=False)) as stack, stack.client() as client:
        [connection] = await connected(stack)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport too
        await client.send(stack.good("POST", headers=[("Transfer-Encoding", "chunked")]))
        async with patience("the client to be waited for"):
            while left(connection) <= 65_536:
                await asyncio.sleep(0)
        await client.send(b"0\r\n\r\n")
        await stack.health("/livez")  # it has come in by then
        come_to(stack, stack.clock.monotonic() + 301)  # of 300 by default
        await stack.backend.disconnected()
        client.abort()


async def test_who_takes_the_answer_has_to_end_the_body_all_the_same() -> None:
    async def early(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.Event().wait()

    async with running(backend=RawBackend(early, read_bodies=False)) as stack, stack.client() as client:
        await client.send(stack.good("POST", headers=[("Transfer-Encoding", "chunked")]))
        await client.reader.readuntil(b"hello")
        come_to(stack, stack.clock.monotonic() + 301)  # of 300 by default
        await stack.backend.disconnected()


@pytest.mark.parametrize(("silent_s", "in_time"), [(60, True), (299, True), (301, False)])
async def test_the_last_answer_may_be_read_slowly(silent_s: float, in_time: bool) -> None:
    big = response(200, b"x" * 50_000)
    async with running(backend=RawBackend(send(big))) as stack, stack.client() as client:
        [connection] = await connected(stack)
        transport = client.writer.transport
        asked = await unread(stack, client, connection, 0)  # until the kernel has enough
        await client.send(request("GET", "/x", headers=[("Connection", "close")]))
        async with patience("the refusal"):
            while not stack.sidecar.live.telemetry.decisions.get(("none", "deny", "token_missing")):
                await asyncio.sleep(0)
        await turns()
        come_to(stack, stack.clock.monotonic() + silent_s)  # of 300 by default
        await turns()
        assert stack.sidecar.live.telemetry.connections == in_time
        transport.resume_reading()  # type: ignore[attr-defined]
        if in_time:
            assert [answer.status for answer in await client.answers()] == [200] * asked + [401]


async def connected(stack: Stack) -> list[ClientConnection]:
    async with patience("the connection"):
        while not connections(stack):
            await asyncio.sleep(0)
    return connections(stack)


def left(connection: ClientConnection) -> int:
    """How much of its answers the kernel has not taken yet."""
    return 0 if connection.transport is None else connection.transport.get_write_buffer_size()


# How it ends


async def test_the_rest_of_a_body_that_was_held_up_is_dropped_when_its_request_is_refused() -> None:
    async with running() as stack, stack.client() as client:
        stack.issuer.hang()
        token = stack.token(header={"kid": "unknown"})
        size = 32 * 2**20  # more than waits here and in the kernel
        await client.send(request("POST", "/x", token=token, headers=[("Content-Length", str(size))]))
        sending = asyncio.create_task(client.send(b"x" * size))
        await stack.health("/livez")  # what was sent before has come in by then, or as much of it as is taken
        assert not sending.done()
        stack.issuer.release()
        assert (await client.response("POST")).status == 401
        await sending
        assert await client.closed() == b""


async def test_a_refusal_ends_its_connection_over_tls_too(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls) as stack, RawClient.to(stack.sidecar.proxy_address, tls=client_tls()) as client:
        await client.send(request("POST", "/x", headers=[("Content-Length", "100")]))
        answer = await client.response("POST")
        assert (answer.status, answer.get("connection")) == (401, "close")
        assert await client.closed() == b""


async def gone(stack: Stack) -> ClientConnection:
    """The sidecar's end of a connection whose client has left."""
    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        [connection] = connections(stack)
    async with patience("the end of the connection"):
        while stack.sidecar.live.telemetry.connections:
            await asyncio.sleep(0)
    return connection


async def test_who_writes_to_a_client_that_has_gone_is_told(stack: Stack) -> None:
    connection = await gone(stack)
    with pytest.raises(ConnectionError):
        connection.write(b"hello")
    with pytest.raises(ConnectionError):
        connection.writelines([b"hello"])
    connection.abort()
    connection.expire()


async def test_an_interim_answer_to_a_client_that_has_gone_is_nobodys(stack: Stack) -> None:
    connection, loop = await gone(stack), asyncio.get_running_loop()
    [(asked, _)], _, _ = HttpRequestParser(BaseProtocol(loop), loop, 65536).feed_data(stack.good())
    [(early, _)], _, _ = HttpResponseParser(BaseProtocol(loop), loop, 65536).feed_data(response(103))
    relay = Relay(stack.sidecar.live.telemetry, stack.clock, "off")
    relay.interim(Asked(asked, EMPTY_PAYLOAD, connection), early)


async def test_a_request_in_hand_keeps_its_connection_open_while_others_are_ended() -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as busy, stack.client() as idle:
        await busy.send(stack.good())
        await stack.backend.received()
        listener(stack).finish()
        assert await idle.closed() == b""
        stack.backend.handler = ok
        await stack.backend.drop_connections()
        answer = await busy.response()
        assert (answer.status, await busy.closed()) == (502, b"")


async def test_the_connections_of_clients_that_were_cut_off_are_none_any_more() -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as busy, stack.client() as half:
        await busy.send(stack.good())
        await half.send(b"GET / HTTP/1.1\r\n")
        await stack.backend.received()
        await listener(stack).cut_off()
        assert stack.sidecar.live.telemetry.requests_in_flight == 0
        for client in (busy, half):
            assert await ended(client)


async def ended(client: Client) -> bool:
    try:
        return await client.closed() == b""
    except ConnectionError:
        return True
