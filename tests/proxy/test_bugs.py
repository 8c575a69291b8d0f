"""A bug of the sidecar's own: said in the log with its place, and to clients no more than that there was one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.pages import Page, Reply
from sidecar.request import Request
from sidecar.routes import Auth, Route
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running


async def at_once(request: Request) -> Reply:
    raise ValueError(f"eyJ.secret.text of {request.target}")


async def within_its_answer(request: Request) -> Reply:
    request.status = 200
    request.connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    raise ValueError("eyJ.secret.text")


@asynccontextmanager
async def with_a_bug() -> AsyncIterator[Stack]:
    """A sidecar with two pages that have one; that it was said is taken off the errors that no test may leave."""
    async with running() as stack:
        for path, answer in (("/bug", at_once), ("/late", within_its_answer)):
            route = Route(path, auth=Auth.NONE, name=path)
            stack.sidecar.assembly.proxy.pages |= {path: Page(route, answer)}  # type: ignore[operator]
        yield stack
        [said] = stack.secrets.errors
        assert f" event=bug type=ValueError at={__file__}:" in said
        assert "secret" not in said
        assert stack.sidecar.live.telemetry.requests_in_flight == 0
        stack.secrets.errors.clear()


async def test_a_bug_is_answered_without_a_word_about_it_and_the_connection_goes_on() -> None:
    async with with_a_bug() as stack, stack.client() as client:
        answer = await client.request(request("GET", "/bug"))
        assert (answer.status, answer.json()["code"], answer.get("connection")) == (500, "internal_error", None)
        assert b"secret" not in answer.raw
        assert stack.secrets.errors[0].startswith(f"request_id={answer.get('x-request-id')} ")
        assert (await client.request(stack.good())).status == 200
        telemetry = stack.sidecar.live.telemetry
        assert telemetry.decisions["none", "error", "internal_error"] == 1
        assert telemetry.requests["/bug", "GET", 500] == 1


async def test_a_bug_within_an_answer_breaks_it_off_and_nothing_follows_it() -> None:
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
