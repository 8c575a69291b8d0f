"""Bytes after a request belong to the same client's next request, in order; silence and ends of connections have their rules."""

import asyncio

import pytest

from tests.peers.backend import RawBackend, Request, never
from tests.peers.wire import request
from tests.proxy.conftest import Client, Stack, ok, running

ON_EVERY_LOOP = True


class Held:
    """A handler that answers when the test releases it."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self.release.wait()
        await ok(request, writer)


async def come_in(stack: Stack) -> None:
    """Wait until the sidecar has read earlier bytes."""
    for _ in range(2):
        await stack.health("/livez")


async def later(stack: Stack, seconds: float) -> None:
    """Move the clock by this time."""
    stack.clock.ahead_s += seconds
    stack.sidecar.live.deadlines.tick()
    await come_in(stack)


def has_ended(client: Client) -> bool:
    """Whether the sidecar has closed or reset the connection, with nothing unread before."""
    return client.reader.at_eof() or client.reader.exception() is not None


# A part of a head, then silence

TIMES = {"request_headers": "2s", "keep_alive": "800s"}
PARTS = {
    "one byte": b"G",
    "a line": b"GET / HTTP/1.1\r\n",
    "all but the end of the head": b"GET / HTTP/1.1\r\nHost: a\r\n",
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
async def test_the_deadline_of_a_head_after_a_request_begins_at_its_first_byte(part: bytes) -> None:
    async with running(timeouts=TIMES) as stack, stack.client() as client:
        await client.send(stack.good(), tail=part)
        assert (await client.response()).status == 200
        await come_in(stack)
        await later(stack, 1.9)
        assert not has_ended(client)
        await later(stack, 0.2)
        assert has_ended(client)


async def test_the_deadline_of_a_head_continues_while_the_request_before_it_is_served() -> None:
    held = Held()
    async with running(backend=RawBackend(held), timeouts=TIMES) as stack, stack.client() as client:
        await client.send(stack.good(), tail=b"GET / HTTP/1.1\r\n")
        await stack.backend.received()
        await come_in(stack)
        await later(stack, 5)
        held.release.set()
        assert (await client.response()).status == 200  # the first request is answered
        await later(stack, 0.1)
        assert has_ended(client)


async def test_a_complete_head_after_a_request_may_wait_for_its_turn() -> None:
    held = Held()
    async with running(backend=RawBackend(held), timeouts=TIMES) as stack, stack.client() as client:
        await client.send(stack.good(), tail=stack.good("GET", "/next"))
        await stack.backend.received()
        await later(stack, 5)
        held.release.set()
        assert [(await client.response()).status for _ in "ab"] == [200, 200]


# The end of the client's side


@pytest.mark.parametrize("body", [None, b"", b"hello"], ids=["none", "empty", "sized"])
async def test_a_fin_after_a_request_means_that_the_client_has_left(body: bytes | None) -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as client:
        await client.send(stack.good("GET" if body is None else "POST", "/", body=body))
        await stack.backend.received()
        client.finish()
        await stack.backend.disconnected()
        assert await client.closed() == b""


async def test_a_fin_after_a_chunked_request_means_that_the_client_has_left() -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/", chunks=[b"hello"]))
        await stack.backend.received()
        client.finish()
        await stack.backend.disconnected()
        assert await client.closed() == b""


async def test_a_fin_within_a_body_aborts_the_upstream_request() -> None:
    async with running() as stack, stack.client() as client:
        await client.send(stack.good("POST", "/", headers=[("Content-Length", "10")]) + b"hello")
        await stack.backend.connected()
        client.finish()
        await stack.backend.interrupted()
        assert stack.backend.requests == []


async def test_waiting_requests_of_a_client_end_when_it_leaves() -> None:
    async with running(backend=RawBackend(never)) as stack, stack.client() as client:
        await client.send(stack.good(), tail=stack.good("POST", "/next", body=b"x"))
        await stack.backend.received()
        client.finish()
        await stack.backend.disconnected()
        await client.closed()
        await come_in(stack)
        assert [seen.target for seen in stack.backend.requests] == ["/"]


# The owner of bytes: the two weaknesses in the changelog


LINES = b"Host: a.test\r\nX-Kept: 1\r\n"


@pytest.mark.parametrize("remembered", [False, True], ids=["a new head", "a remembered head"])
async def test_an_incomplete_head_is_never_served(stack: Stack, remembered: bool) -> None:
    """A client that sends only the beginning of another client's head has sent no request, and gets no answer of that one."""
    head = b"GET /x HTTP/1.1\r\n" + LINES + stack.credentials + b"\r\n\r\n"
    if remembered:
        async with stack.client() as client:
            for _ in range(4):
                assert (await client.request(head)).status == 200
    seen = len(stack.backend.requests)
    for cut in [*range(1, 60), len(head) - 3, len(head) - 2, len(head) - 1]:
        for _ in range(3):  # often enough to be remembered
            async with stack.client() as client:
                await client.send(head[:cut])
                await come_in(stack)
                await client.send(head[cut:])
                assert (await client.response()).status == 200
                seen += 1
        async with stack.client() as stranger:
            await stranger.send(head[:cut])
            await come_in(stack)
            if cut < len(head) - len(stack.credentials) - 4:
                await stranger.send(b"\r\nHost: b.test\r\n\r\n")
                answer = await stranger.answer()
                assert answer is None or answer.status in (400, 401, 405, 431)
            else:
                stranger.abort()
        assert len(stack.backend.requests) == seen


@pytest.mark.parametrize("behind", [0, 1, 30, 31, 32, 33, 34, 63, 64, 65, 200])
@pytest.mark.parametrize("body", ["none", "late", "late, chunked"])
async def test_requests_after_a_late_body_are_answered_in_order_with_their_own_identity(
    stack: Stack, body: str, behind: int
) -> None:
    """Alice's and strangers' requests in one piece, alternating, and then the bare ones from a stranger."""
    targets = [f"/{number}" for number in range(behind)]
    piece = b"".join(
        request("GET", target, token=stack.alice if number % 2 else None, host="a.test")
        for number, target in enumerate(targets)
    )
    async with stack.client() as client:
        if body != "none":
            framing = ("Transfer-Encoding", "chunked") if "chunked" in body else ("Content-Length", "5")
            await client.send(stack.good("POST", "/first", headers=[framing]))
            await stack.backend.connected()
            await client.send(b"5\r\nhello\r\n0\r\n\r\n" if "chunked" in body else b"hello", tail=piece)
            assert (await client.response("POST")).status == 200
        else:
            await client.send(piece)
        for number in range(behind):
            assert (await client.response()).status == (200 if number % 2 else 401)
        last = stack.good("GET", "/last")
        assert (await client.request(last)).status == 200
    expected = [*(["/first"] if body != "none" else []), *targets[1::2], "/last"]
    assert [seen.target for seen in stack.backend.requests] == expected
    assert {seen.get("x-jwt-sub") for seen in stack.backend.requests} == {"alice"}
    for target in [*targets[::2][:3], "/last"]:
        stranger = await stack.fetch(request("GET", target, host="a.test"))
        assert (stranger.status, stranger.json()["code"]) == (401, "token_missing")
    assert len(stack.backend.requests) == len(expected)


async def test_bytes_of_a_late_body_are_not_read_as_a_request(stack: Stack) -> None:
    """A body that looks like requests, as many as a parser may hold, stays one."""
    inner = request("GET", "/smuggled", token=stack.alice) * 40
    async with stack.client() as client:
        await client.send(stack.good("POST", "/", headers=[("Content-Length", str(len(inner)))]))
        await stack.backend.connected()
        for at in range(0, len(inner), 500):
            await client.send(inner[at : at + 500])
            await asyncio.sleep(0)
        assert (await client.response("POST")).status == 200
        assert (await client.request(stack.good("GET", "/next"))).status == 200
    assert [seen.target for seen in stack.backend.requests] == ["/", "/next"]
    assert stack.backend.requests[0].body == inner
    stack.secrets.tokens.clear()  # the backend has received one, in a body
