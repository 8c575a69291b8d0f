"""Slow, silent and large clients are cut off in time, and no others."""

import asyncio

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, Request, echo, never, send
from tests.peers.raw import Response, pause_reading, resume_reading
from tests.peers.wire import request, response
from tests.proxy.conftest import FEEDS, Client, Stack, ok, running

ON_EVERY_LOOP = True

SHORT = "100ms"


def refusal(answer: Response, status: int, code: str) -> None:
    """Assert that the answer is a complete refusal of the sidecar."""
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.get("x-jwt-sidecar") == "rejected"
    assert answer.get("content-type") == "application/json"
    assert answer.json()["request_id"] == answer.get("x-request-id")


async def quietly_closed(client: Client) -> None:
    assert await client.closed() == b""


# Silence of a client


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b", b"\r"])
async def test_a_slow_head_is_cut_off(sent: bytes) -> None:
    async with running(timeouts={"request_headers": SHORT}) as stack, stack.client() as client:
        await client.send(sent)
        await quietly_closed(client)


async def test_an_empty_line_does_not_extend_the_idle_time() -> None:
    async with running(timeouts={"keep_alive": SHORT}) as stack, stack.client() as client:
        await client.send(b"\r\n")
        await quietly_closed(client)


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\n\r\n"])
async def test_an_empty_line_after_a_request_does_not_keep_the_connection_open(stack: Stack, behind: bytes) -> None:
    async with stack.client() as client:
        await client.send(stack.good() + behind)
        assert (await client.response()).status == 200
        await stack.health("/livez")  # meanwhile the sidecar reads the empty line
        stack.wait(76)  # of 75 by default
        await quietly_closed(client)


async def test_a_head_that_arrives_byte_by_byte_is_cut_off() -> None:
    async with running(timeouts={"request_headers": SHORT}) as stack, stack.client() as client:
        dropping = asyncio.create_task(drop(client))
        await quietly_closed(client)
        dropping.cancel()
        await asyncio.wait([dropping])


async def drop(client: Client) -> None:
    await client.send(b"GET / HTTP/1.1\r\n")
    while not client.writer.is_closing():
        client.writer.write(b"X-A: b\r\n")
        await asyncio.sleep(0.01)


async def test_a_slow_head_on_a_used_connection_is_cut_off() -> None:
    async with running(timeouts={"request_headers": SHORT}) as stack, stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        await client.send(b"GET / HTTP/1.1\r\n")
        await quietly_closed(client)


async def test_a_slow_head_after_a_request_is_cut_off(stack: Stack) -> None:
    async with stack.client() as client:
        await client.send(stack.good(), tail=b"GET / HTTP/1.1\r\n")
        assert (await client.response()).status == 200
        await stack.health("/livez")  # meanwhile the sidecar reads the beginning
        stack.wait(11)  # of 10 by default
        await quietly_closed(client)


@pytest.mark.parametrize("used", [False, True])
async def test_an_idle_connection_is_closed(stack: Stack, used: bool) -> None:
    async with stack.client() as client:
        if used:
            assert (await client.request(stack.good())).status == 200
        async with patience("the connection to be accepted"):
            while not stack.sidecar.live.resources.connections:
                await asyncio.sleep(0)
        stack.wait(76)  # of 75 by default
        await quietly_closed(client)


@pytest.mark.parametrize("framing", [("Content-Length", "10"), ("Transfer-Encoding", "chunked")])
async def test_a_stalled_body_is_cut_off_on_both_sides(stack: Stack, framing: tuple[str, str]) -> None:
    async with stack.client() as client:
        body = b"5\r\nhello\r\n" if framing[1] == "chunked" else b"half"
        await client.send(stack.good("POST", "/x", headers=[framing]) + body)
        await stack.backend.connected()
        await stack.health("/livez")  # meanwhile the backend gets the beginning
        stack.wait(301)  # of 300 by default
        for answer in await client.answers():
            assert 400 <= answer.status < 500
        await stack.backend.interrupted()
        assert stack.backend.requests == []


async def test_the_answer_timeout_begins_after_the_body(stack: Stack) -> None:
    """The time for an answer begins when the request has gone out."""
    async with stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", "10")]) + b"half")
        await stack.backend.connected()
        await stack.health("/livez")  # meanwhile the backend gets the beginning
        stack.wait(61)  # of 60 by default for an answer, and 300 for a piece of the body
        await client.send(b"hello!")
        assert (await client.response("POST")).status == 200


async def test_a_backend_has_60_s_for_an_answer() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack, stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        stack.wait(50)  # of 60 by default
        held.release.set()
        assert (await client.response()).status == 200


async def test_a_backend_has_60_s_for_an_answer_to_an_upload() -> None:
    held = Held()
    async with running(backend=RawBackend(held)) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", "5")]))
        await stack.backend.connected()
        await client.send(b"hello")
        await stack.backend.received()
        stack.wait(50)  # of 60 by default
        held.release.set()
        assert (await client.response("POST")).status == 200


async def test_a_client_that_sent_its_body_does_not_time_out_for_a_slow_backend() -> None:
    held = Held()
    async with (
        running(backend=RawBackend(held), timeouts={"response_headers": "1000s"}) as stack,
        stack.client() as client,
    ):
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", "5")]))
        await stack.backend.connected()
        await client.send(b"hello")
        await stack.backend.received()
        stack.wait(301)  # of 300 by default for a client that owes something
        held.release.set()
        assert (await client.response("POST")).status == 200


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with running(timeouts={"idle": SHORT}) as stack, stack.client() as client:
        stack.backend.handler = send(response(200, b"x" * 64 * 1024 * 1024))
        pause_reading(client.writer)
        await client.send(stack.good())
        await stack.backend.disconnected()
        client.abort()


async def test_an_http_1_0_client_that_does_not_read_is_reset() -> None:
    async with running(timeouts={"idle": SHORT}) as stack, stack.client() as client:
        stack.backend.handler = send(response(200, b"x" * 64 * 1024 * 1024, sized=False), close=True)
        pause_reading(client.writer)
        await client.send(stack.good().replace(b"HTTP/1.1", b"HTTP/1.0"))
        await stack.backend.disconnected()
        resume_reading(client.writer)
        with pytest.raises(ConnectionError):
            await client.reader.read()


async def test_a_paused_download_continues_within_the_idle_timeout(stack: Stack) -> None:
    told = asyncio.Event()

    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await told.wait()
        writer.write(b"hello")

    stack.backend.handler = handler
    async with stack.client() as client:
        await client.send(stack.good())
        await client.reader.readuntil(b"hello")
        stack.wait(280)  # of 300 by default
        told.set()
        assert await client.reader.readexactly(5) == b"hello"


# Silence of a backend


async def test_a_silent_backend_is_a_504_and_its_connection_is_not_reused() -> None:
    async with running(backend=RawBackend(never)) as stack:
        async with stack.client() as client:
            await client.send(stack.good())
            await stack.backend.received()
            stack.wait(61)  # of 60 by default
            refusal(await client.response(), 504, "upstream_timeout")
            await stack.backend.disconnected()
            stack.backend.handler = ok
            assert (await client.request(stack.good())).status == 200
        assert len(stack.backend.requests) == 2


async def test_a_backend_that_is_silent_after_an_upload_is_a_504() -> None:
    backend = RawBackend(never, read_bodies=False)
    async with running(backend=backend, timeouts={"response_headers": SHORT}) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", "10")]) + b"hello")
        await stack.backend.received()
        await client.send(b"hello")
        refusal(await client.response("POST"), 504, "upstream_timeout")


async def test_a_backend_that_sends_half_a_head_is_a_504() -> None:
    half = send(b"HTTP/1.1 200 OK\r\nX-A:")
    async with running(backend=RawBackend(half), timeouts={"response_headers": SHORT}) as stack:
        refusal(await stack.fetch(stack.good()), 504, "upstream_timeout")


async def test_interim_answers_do_not_delay_a_504() -> None:
    async def hinting(_request: Request, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(response(103))
            await asyncio.sleep(0.02)

    async with running(backend=RawBackend(hinting), timeouts={"response_headers": SHORT}) as stack:
        assert (await stack.fetch(stack.good())).status == 504


async def test_a_backend_that_stalls_within_its_answer_aborts_the_clients_connection() -> None:
    half = send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    async with running(backend=RawBackend(half), timeouts={"idle": SHORT}) as stack, stack.client() as client:
        await client.send(stack.good())
        assert (await client.closed()).endswith(b"\r\n\r\nhello")
        await stack.backend.disconnected()


async def test_a_silent_backend_does_not_delay_a_401(stack: Stack) -> None:
    stack.backend.handler = never
    async with stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
        assert (await stack.fetch(request())).status == 401


# Size of a head

LARGE_HEADS = {
    "100 KB header": ("/", [("X-A", "x" * 100_000)]),
    "100 KB name": ("/", [("x" * 100_000, "x")]),
    "100 KB target": ("/" + "x" * 100_000, []),
    "100 KB query": ("/?" + "x" * 100_000, []),
    "200 headers": ("/", [(f"X-{number}", "x") for number in range(200)]),
    "5000 headers": ("/", [(f"X-{number}", "x") for number in range(5000)]),
    "200 headers of one name": ("/", [("X-A", "x")] * 200),
}


@pytest.mark.parametrize("feed", [FEEDS[0], FEEDS[2]])
@pytest.mark.parametrize(("target", "headers"), LARGE_HEADS.values(), ids=LARGE_HEADS)
async def test_an_oversized_head_is_a_431(stack: Stack, target: str, headers: list[tuple[str, str]], feed: str) -> None:
    [answer] = await stack.converse(stack.good("GET", target, headers=headers), feed)
    refusal(answer, 431, "headers_too_large")
    assert stack.backend.connections == 0


async def test_a_head_that_never_ends_is_a_431_before_it_is_complete(stack: Stack) -> None:
    async with stack.client() as client:
        await client.send(b"GET /" + b"x" * 70_000)
        refusal(await client.response(), 431, "headers_too_large")


async def test_a_valid_token_over_8190_bytes_is_accepted(stack: Stack) -> None:
    """aiohttp's own limit of 8190 bytes would refuse it."""
    token = stack.token(groups=[f"group-{number}" for number in range(700)])
    assert 8190 < len(token) < 16 * 1024
    stack.secrets.tokens.discard(token)  # its claims are the length of a body
    answer = await stack.fetch(request(token=token))
    assert answer.status in (200, 403)  # 403: its claims do not fit into a header
    if answer.status == 403:
        refusal(answer, 403, "claims_too_large")


async def test_the_limits_of_a_head_are_configurable() -> None:
    async with running(limits={"headers": 4, "header_bytes": 1000}) as stack:
        assert (await stack.fetch(stack.good())).status == 200
        assert (await stack.fetch(stack.good(headers=[("X-A", "x")] * 2))).status == 200
        for headers in ([("X-A", "x")] * 3, [("X-A", "x" * 2000)]):
            refusal(await stack.fetch(stack.good(headers=headers)), 431, "headers_too_large")


async def test_the_last_piece_of_a_body_does_not_count_as_a_head() -> None:
    async with running(limits={"header_bytes": 1000}) as stack, stack.client() as client:
        stack.backend.read_bodies, stack.backend.handler = False, echo
        head, body = stack.good("POST", body=b"x" * 100_000).split(b"\r\n\r\n", 1)
        await client.send(head + b"\r\n\r\n")
        await stack.backend.received()
        await client.send(body)
        assert (await client.response("POST")).status == 200
        assert (await client.request(stack.good())).status == 200


# How many


class Held:
    """A handler that answers when the test releases it."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self.release.wait()
        await ok(request, writer)


SMUGGLED = b"GET /behind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OF_UNSURE_LENGTH = {
    "host": [("Host", "a/b"), ("Content-Length", str(len(SMUGGLED)))],
    "name": [("Host", "a"), ("X_A", "b"), ("Content-Length", str(len(SMUGGLED)))],
    "framing": [("Host", "a"), ("Transfer-Encoding", "gzip, chunked")],
}


@pytest.mark.parametrize("headers", OF_UNSURE_LENGTH.values(), ids=OF_UNSURE_LENGTH)
async def test_a_malformed_head_ends_its_connection_also_under_overload(headers: list[tuple[str, str]]) -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"in_flight": 1}, underscore_headers="reject") as stack:
        at_work = asyncio.create_task(stack.fetch(stack.good()))
        await stack.backend.received()
        async with stack.client() as client:
            await client.send(request("POST", "/x", host=None, headers=headers) + SMUGGLED)
            [answer] = await client.answers("POST")
            assert (answer.status, answer.get("connection")) == (503, "close")
        held.release.set()
        assert (await at_work).status == 200


async def test_requests_beyond_the_limit_in_flight_are_overloaded() -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"in_flight": 2}) as stack:
        at_work = [asyncio.create_task(stack.fetch(stack.good())) for _ in range(2)]
        await stack.backend.received(2)
        async with stack.client() as client:
            answer = await client.request(stack.good())
            refusal(answer, 503, "overloaded")
            assert answer.get("retry-after") == "1"
            held.release.set()
            assert [(await one).status for one in at_work] == [200, 200]
            assert (await client.request(stack.good())).status == 200
        assert len(stack.backend.requests) == 3


async def test_requests_wait_in_order_for_a_connection_to_the_backend() -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"upstream_connections": 1}) as stack:
        fetches = [asyncio.create_task(stack.fetch(stack.good("GET", f"/{number}"))) for number in range(3)]
        await stack.backend.received()
        held.release.set()
        assert [(await one).status for one in fetches] == [200, 200, 200]
        assert stack.backend.connections == 1


async def test_a_closed_connection_makes_room_for_a_waiting_request() -> None:
    release = asyncio.Event()

    async def last(_request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(response(200, b"ok", [("Connection", "close")]))
        writer.close()

    async with running(backend=RawBackend(last), limits={"upstream_connections": 1}) as stack:
        fetches = [asyncio.create_task(stack.fetch(stack.good())) for _ in range(3)]
        await stack.backend.received()
        release.set()
        assert [(await one).status for one in fetches] == [200, 200, 200]
        assert stack.backend.connections == 3


async def test_a_request_without_a_free_connection_in_time_is_overloaded() -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"upstream_connections": 1}) as stack:
        at_work = asyncio.create_task(stack.fetch(stack.good()))
        await stack.backend.received()
        waiting = asyncio.create_task(stack.fetch(stack.good()))
        async with patience("the second request to wait"):
            while not stack.sidecar.assembly.upstreams["default"].use.waiting:
                await asyncio.sleep(0)
        stack.wait(3)  # of 2 by default
        answer = await waiting
        refusal(answer, 503, "overloaded")
        assert answer.json()["details"] == "All connections to the service behind this proxy are in use."
        assert answer.get("retry-after") == "1"
        held.release.set()
        assert (await at_work).status == 200
        assert (await stack.fetch(stack.good())).status == 200


async def test_a_failed_connection_frees_its_place_in_the_pool() -> None:
    async with running(limits={"upstream_connections": 1}) as stack:
        stack.backend.handler = never
        silent = asyncio.create_task(stack.fetch(stack.good()))
        await stack.backend.received()
        stack.wait(61)  # of 60 by default
        assert (await silent).status == 504
        await stack.backend.go_down()
        for _ in range(3):
            assert (await stack.fetch(stack.good())).status == 502
        await stack.backend.come_back()
        stack.backend.handler = ok
        assert (await stack.fetch(stack.good())).status == 200


async def test_a_backend_that_answers_early_and_stops_reading_frees_its_place_in_the_pool() -> None:
    full = asyncio.Event()

    async def early(_request: Request, writer: asyncio.StreamWriter) -> None:
        pause_reading(writer)
        await full.wait()
        writer.write(response(413, b"too much"))
        await asyncio.Event().wait()

    backend, limits = RawBackend(early, read_bodies=False), {"upstream_connections": 1}
    async with running(backend=backend, limits=limits) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Content-Length", str(2**30))]))
        await stack.backend.received()
        uploading = asyncio.create_task(pour(client))
        await asyncio.wait([uploading], timeout=0.5)  # until nothing more is taken
        full.set()
        assert (await client.response("POST")).status == 413
        uploading.cancel()
        stack.backend.handler, stack.backend.read_bodies = ok, True
        stack.wait(5)
        assert (await stack.fetch(stack.good())).status == 200


async def pour(client: Client) -> None:
    while True:
        await client.send(b"x" * 65536)


async def test_requests_to_an_unreachable_backend_fail_without_waiting() -> None:
    async with running(limits={"upstream_connections": 1}) as stack:
        await stack.backend.go_down()
        fetches = [asyncio.create_task(stack.fetch(stack.good())) for _ in range(5)]
        assert [(await one).json()["code"] for one in fetches] == ["upstream_unreachable"] * 5


async def test_a_waiting_client_that_leaves_frees_its_place() -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"upstream_connections": 1}) as stack:
        at_work = asyncio.create_task(stack.fetch(stack.good()))
        await stack.backend.received()
        async with stack.client() as leaving, stack.client() as staying:
            await leaving.send(stack.good("GET", "/left"))
            await staying.send(stack.good("GET", "/stayed"))
            async with patience("both requests to wait"):
                while stack.sidecar.live.resources.requests_in_flight < 3:
                    await asyncio.sleep(0)
            await leaving.close()
            async with patience("the client that left to be forgotten"):
                while stack.sidecar.live.resources.requests_in_flight > 2:
                    await asyncio.sleep(0)
            held.release.set()
            assert (await at_work).status == 200
            assert (await staying.response()).status == 200
        assert [seen.target for seen in stack.backend.requests] == ["/", "/stayed"]


async def test_connections_beyond_the_limit_are_overloaded() -> None:
    held = Held()
    async with running(backend=RawBackend(held), limits={"connections": 2}) as stack:
        async with stack.client() as first, stack.client() as second:
            for number, client in enumerate((first, second), start=1):
                await client.send(stack.good())
                await stack.backend.received(number)
            for sent in (b"", stack.good()):
                async with stack.client() as third:
                    await third.send(sent)
                    answer = await third.response()
                    refusal(answer, 503, "overloaded")
                    assert (answer.get("connection"), answer.get("retry-after")) == ("close", "1")
                    assert await third.closed() == b""
            held.release.set()
            for client in (first, second):
                assert (await client.response()).status == 200
        async with patience("a connection to become free"):
            while (await try_fetch(stack)) != 200:
                await asyncio.sleep(0)


async def test_the_longest_idle_connection_is_closed_for_a_new_one() -> None:
    held = Held()
    async with (
        running(backend=RawBackend(held), limits={"connections": 3}) as stack,
        stack.client() as busy,
        stack.client() as idle,
        stack.client() as idle_later,
    ):
        await busy.send(stack.good())
        await stack.backend.received()
        for client in (idle, idle_later, idle):
            assert (await client.request(request("GET", "/x"))).status == 401
            stack.clock.ahead_s += 1
        async with stack.client() as new:
            assert (await new.request(request("GET", "/x"))).status == 401
            assert await idle_later.closed() == b""
            async with stack.client() as newer:
                assert (await newer.request(request("GET", "/x"))).status == 401
                assert await idle.closed() == b""
                assert (await new.request(request("GET", "/x"))).status == 401
        held.release.set()
        assert (await busy.response()).status == 200


async def try_fetch(stack: Stack) -> int:
    async with stack.client() as client:
        client.writer.write(stack.good())
        answer = await client.answer()
        return 0 if answer is None else answer.status


async def test_idle_and_incomplete_connections_do_not_delay_a_request(stack: Stack) -> None:
    idle = [await Client.connect(stack.sidecar.proxy_address) for _ in range(60)]
    for client in idle[::2]:
        await client.send(b"GET / HTTP/1.1\r\n")
    assert (await stack.fetch(stack.good())).status == 200
    for client in idle:
        await client.close()


# Unused connections


async def test_an_idle_connection_to_the_backend_is_closed_in_time(stack: Stack) -> None:
    for _ in range(2):
        assert (await stack.fetch(stack.good())).status == 200
        stack.wait(2.5)
    assert stack.backend.connections == 1
    stack.wait(1)
    await stack.backend.disconnected()
    assert (await stack.fetch(stack.good())).status == 200
    assert stack.backend.connections == 2


# The end of the token


@pytest.mark.parametrize(("setting", "ends"), [("all", True), ("websocket", False)])
async def test_close_on_expiry_all_ends_an_answer_with_its_token(setting: str, ends: bool) -> None:
    more = asyncio.Event()

    async def stream(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
        await more.wait()
        writer.write(b"cd")

    async with running(backend=RawBackend(stream), close_on_expiry=setting) as stack, stack.client() as client:
        await client.send(request("GET", "/", token=stack.token(exp=int(stack.clock.wall()) + 100)))
        received = b""
        while not received.endswith(b"\r\n\r\nab"):
            received += await client.read(1)
        stack.clock.ahead_s = 100 + 60 + 1
        more.set()
        assert await client.read(2) == b"cd"  # until the deadlines are checked
        stack.sidecar.live.deadlines.tick()
        assert stack.sidecar.live.resources.requests_in_flight == (not ends)
        if ends:
            assert await client.closed() == b""


async def test_close_on_expiry_all_ends_a_silent_answer_with_its_token() -> None:
    half = send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    async with running(backend=RawBackend(half), close_on_expiry="all") as stack, stack.client() as client:
        exp = int(stack.clock.wall()) + 100
        await client.send(request("GET", "/", token=stack.token(exp=exp)))
        await client.reader.readuntil(b"\r\n\r\nab")
        for late_s, in_flight in ((59, 1), (60, 0)):  # of the clock skew
            stack.clock.ahead_s += exp + late_s - stack.clock.wall()
            stack.sidecar.live.deadlines.tick()
            for _ in range(20):
                await asyncio.sleep(0)
            assert stack.sidecar.live.resources.requests_in_flight == in_flight
        assert await client.closed() == b""
        telemetry = stack.sidecar.live.telemetry
        assert telemetry.decisions == {("main", "deny", "token_expired"): 1}
        assert telemetry.upstream_errors["default", "timeout"] == 0
