"""A bug of the sidecar is logged with its place; clients learn only that there was one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.gateway.local_endpoints import Page, Reply, Request
from sidecar.observability.access_log import AccessLog
from sidecar.observability.record import Record
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.upstream_pool import UpstreamPool
from tests.peers.clock import HandClock
from tests.peers.memory import in_memory, lines
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running
from tests.proxy.in_memory import ANSWER, proxy, status, turns

ON_EVERY_LOOP = True


def at_once(asking: Request, _body: bytes) -> Reply:
    raise ValueError(f"eyJ.secret.text of {asking.head.target}")


def within_its_answer(asking: Request, _body: bytes) -> Reply:
    assert isinstance(asking, Exchange)
    assert asking.client is not None
    asking.status = 200
    asking.client.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    raise ValueError("eyJ.secret.text")


@asynccontextmanager
async def with_a_bug() -> AsyncIterator[Stack]:
    """A sidecar with pages that have a bug; its log line is removed from the errors that fail a test."""
    async with running() as stack:
        handler = stack.sidecar.assembly.handler
        for path, answer, body_bytes in (("/bug", at_once, 0), ("/late", within_its_answer, 0), ("/form", at_once, 10)):
            page = Page(Route(path, auth=Auth.NONE, name=path), answer, body_bytes=body_bytes, body_s=10.0)
            handler.pages = {**handler.pages, path: page}
        yield stack
        [said] = stack.secrets.errors
        assert f" event=bug type=ValueError at={__file__}:" in said
        assert "secret" not in said
        assert stack.sidecar.live.resources.requests_in_flight == 0
        stack.secrets.errors.clear()


@pytest.mark.parametrize("path", ["/bug", "/form"])
async def test_a_bug_is_a_500_without_details(path: str) -> None:
    async with with_a_bug() as stack, stack.client() as client:
        raw = request("POST", path, body=b"hello")
        await client.send(raw[:-1])
        await stack.health("/livez")  # by then the sidecar has read the earlier bytes
        await client.send(raw[-1:])
        answer = await client.response("POST")
        kept = None if path == "/form" else "close"  # of a page that takes no body, none has been read
        assert (answer.status, answer.json()["code"], answer.get("connection")) == (500, "internal_error", kept)
        assert b"secret" not in answer.raw
        assert stack.secrets.errors[0].startswith(f"request_id={answer.get('x-request-id')} ")
        if kept is None:
            assert (await client.request(stack.good())).status == 200
        telemetry = stack.sidecar.live.telemetry
        assert telemetry.decisions["none", "error", "internal_error"] == 1
        assert telemetry.requests[path, "POST", 500] == 1


class NoUpstreams(dict[str, UpstreamPool]):
    """The upstreams, with a bug where one is looked up."""

    def get(self, *_: object) -> UpstreamPool:
        raise ValueError("eyJ.secret.text")


async def test_a_bug_after_a_wait_for_keys_is_answered_too() -> None:
    async with with_a_bug() as stack:
        handler = stack.sidecar.assembly.handler
        handler.upstreams = NoUpstreams(handler.upstreams)
        stack.issuer.rotate()
        answer = await stack.fetch(request(token=stack.token()))
        assert (answer.status, answer.json()["code"]) == (500, "internal_error")


class FailsOnce(HandClock):
    """A clock with a bug, once it is told to."""

    fails = False

    def monotonic(self) -> float:
        if self.fails:
            self.fails = False
            raise ValueError("eyJ.secret.text")
        return super().monotonic()


@pytest.mark.parametrize("step", ["it is sent", "its body is sent", "its answer is relayed"])
@in_memory
async def test_a_bug_at_any_step_of_a_request_is_answered(clock: HandClock, step: str) -> None:
    failing = FailsOnce()
    async with proxy(failing) as at:
        client = at.client(request("PUT", headers=[("Content-Length", "2")]))
        failing.fails = step == "it is sent"
        await turns()
        if step == "its body is sent":
            failing.fails = True
            client.say(b"x")
        elif step == "its answer is relayed":
            failing.fails = True
            lines()[0].say(ANSWER)
        at.tick()
        assert (status(client), b"internal_error" in client.sent) == (500, True)


def line_with_a_bug(_request: Record, _duration_s: float) -> bytes:
    raise ValueError("eyJ.secret.text")


async def test_a_bug_in_recording_a_request_keeps_its_connection_usable() -> None:
    async with with_a_bug() as stack, stack.client() as client:
        telemetry = stack.sidecar.live.telemetry
        telemetry.access_log = AccessLog(line_with_a_bug)
        await client.send(stack.good(), tail=stack.good())
        assert (await client.response()).status == 200
        telemetry.access_log = None
        assert (await client.response()).status == 200


async def test_a_bug_within_an_answer_resets_the_connection() -> None:
    async with with_a_bug() as stack, stack.client() as client:
        assert (await stack.fetch(stack.good())).status == 200  # now a connection to the backend is ready
        await client.send(request("GET", "/late"), tail=stack.good())
        with pytest.raises(ConnectionError):  # a reset: to HTTP/1.0 any other end completes an answer
            await client.reader.read()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(stack.backend.requests) == 1
        telemetry = stack.sidecar.live.telemetry
        assert telemetry.decisions["none", "error", "internal_error"] == 1
        assert telemetry.requests["/late", "GET", 200] == 1
