"""HTTP/1.0 clients with keep-alive: the sidecar's own answers say whether the connection persists, as relayed ones do."""

from typing import Any

import pytest

from tests.peers.wire import request
from tests.proxy.conftest import ok, running

ON_EVERY_LOOP = True
SETTINGS: dict[str, Any] = {
    "forward_auth": {"original": "path"},
    "trusted_proxies": ["127.0.0.0/8"],
    "routes": [{"path": "/public/*", "auth": "none"}, {"path": "/closed/*", "auth": "deny"}],
}
KINDS = {
    "refusal": ("/x", 401),
    "denied": ("/closed/x", 403),
    "question": ("/auth/public/x", 200),
    "relayed": ("/public/x", 200),
}


def old(method: str, path: str, *, keep: bool) -> bytes:
    headers = [("Connection", "keep-alive")] if keep else []
    return request(method, path, headers=headers).replace(b"HTTP/1.1", b"HTTP/1.0")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_http_1_0_keep_alive_request_gets_keep_alive_or_the_end(kind: str, method: str) -> None:
    """`ab -k` never ends without one of them."""
    path, status = KINDS[kind]
    async with running(**SETTINGS) as stack, stack.client() as client:
        for _ in range(3):
            answer = await client.request(old(method, path, keep=True))
            assert answer.status == status
            if answer.get("connection") != "keep-alive":
                assert await client.closed() == b""
                break
            assert answer.delimited in ("length", "none")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_http_1_0_connection_without_keep_alive_is_closed(kind: str) -> None:
    path, status = KINDS[kind]
    async with running(**SETTINGS) as stack, stack.client() as client:
        answer = await client.request(old("GET", path, keep=False))
        assert (answer.status, answer.get("connection")) in ((status, "close"), (status, None))
        assert await client.closed() == b""


async def test_a_refusal_that_ends_the_connection_has_connection_close() -> None:
    """After an unread body the connection never persists."""
    async with running(**SETTINGS) as stack, stack.client() as client:
        stack.backend.handler = ok
        raw = old("POST", "/x", keep=True).replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n")
        await client.send(raw + b"some")
        answer = await client.response("POST")
        assert (answer.status, answer.get("connection")) == (401, "close")
        assert await client.closed() == b""
