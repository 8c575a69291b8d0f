"""When a client's connection persists: after a backend's answer, and after each kind of the sidecar's own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.gateway.local_endpoints import Page, Reply
from sidecar.policy.routes import Auth, Route
from tests.peers.backend import RawBackend, send
from tests.peers.wire import WEBSOCKET, request, response
from tests.proxy.conftest import Stack, ok, running

ON_EVERY_LOOP = True

# Requests as (path, token?, status): a refusal, an answer to a front proxy, one of the sidecar's pages, a backend's answer.
OWN = {"refusal": ("/x", False, 401), "question": ("/auth/public/x", False, 200), "page": ("/page", False, 404)}
KINDS = {**OWN, "backend": ("/x", True, 200)}
LAST = {"Connection: close": [("Connection", "close")], "an upgrade to WebSocket": WEBSOCKET}


def page(*_: object) -> Reply:
    return Reply(404, {"X-A": "b"}, b'{"a":"b"}')


@pytest.fixture
async def asked() -> AsyncIterator[Stack]:
    """A sidecar that gives an answer of each kind."""
    settings: dict[str, Any] = {
        "forward_auth": {"original": "path"},
        "trusted_proxies": ["127.0.0.0/8"],
        "routes": [{"path": "/public/*", "auth": "none"}],
    }
    async with running(**settings) as stack:
        route = Route("/page", auth=Auth.NONE, name="/page")
        handler = stack.sidecar.assembly.handler
        handler.pages = {**handler.pages, "/page": Page(route, page)}
        yield stack


def of(stack: Stack, kind: str, method: str = "GET", **rest: Any) -> bytes:
    """A request that gets an answer of this kind."""
    path, with_token, _ = KINDS[kind]
    return request(method, path, token=stack.alice if with_token else None, **rest)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_persists_after_every_kind_of_answer(asked: Stack, kind: str, method: str) -> None:
    async with asked.client() as client:
        for _ in range(2):
            answer = await client.request(of(asked, kind, method))
            assert (answer.status, answer.get("connection")) == (KINDS[kind][2], None)
            assert (answer.get("content-length") == "0") == (kind == "question")
        assert (await client.request(asked.good())).body == b'{"ok":true}'


@pytest.mark.parametrize("why", LAST)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_ends_after_the_answer_if_the_client_requests_it(asked: Stack, kind: str, why: str) -> None:
    raw = of(asked, kind, headers=LAST[why])
    answers = await asked.converse(raw, tail=asked.good())
    assert [(answer.status, answer.get("connection")) for answer in answers] == [(KINDS[kind][2], "close")]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_during_a_drain_ends_its_connection(asked: Stack, kind: str) -> None:
    asked.sidecar.live.resources.draining = True
    answers = await asked.converse(of(asked, kind), tail=asked.good())
    assert [(answer.status, answer.get("connection")) for answer in answers] == [(KINDS[kind][2], "close")]


@pytest.mark.parametrize("kind", OWN)
async def test_a_connection_with_an_unread_body_ends(asked: Stack, kind: str) -> None:
    raw = of(asked, kind, "GET", headers=[("Content-Length", "1000")])
    answers = await asked.converse(raw, tail=asked.good())
    assert [(answer.status, answer.get("connection")) for answer in answers] == [(KINDS[kind][2], "close")]
    assert asked.backend.requests == []


@pytest.mark.parametrize("sized", [True, False])
async def test_an_http_1_0_connection_persists_after_an_answer_with_a_length(sized: bool) -> None:
    handler = send(response(200, b"hello", sized=sized), close=not sized)
    async with running(backend=RawBackend(handler)) as stack, stack.client() as client:
        asking = stack.good(headers=[("Connection", "keep-alive")]).replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = await client.request(asking)
        assert (answer.body, answer.get("connection")) == (b"hello", "keep-alive" if sized else "close")
        assert (answer.delimited, answer.get("x-request-id") is None) == ("length" if sized else "close", False)
        stack.backend.handler = ok
        if sized:
            assert (await client.request(stack.good())).get("connection") is None
        else:
            assert await client.closed() == b""


async def test_a_page_of_the_sidecar_is_a_complete_answer(asked: Stack) -> None:
    answer = await asked.fetch(of(asked, "page", headers=[("X-Request-Id", "id-1")]))
    assert answer.raw == (
        b"HTTP/1.1 404 Not Found\r\nX-A: b\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
        b'X-JWT-Sidecar: issuer\r\nX-Request-Id: id-1\r\n\r\n{"a":"b"}'
    )
    assert (await asked.fetch(request("GET", "/page?a=b"))).status == 404
    assert (await asked.fetch(request("GET", "/page/"))).status == 401
