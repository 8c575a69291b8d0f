"""What the handler makes of a request: the head for the backend, the sidecar's own answers, and what is counted."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.peers.clock import HandClock
from tests.peers.gateway import AUDIENCE, ISSUER, Keys
from tests.peers.memory import in_memory, lines
from tests.peers.wire import request
from tests.proxy.in_memory import ANSWER, DENY, OPEN, proxy, status, turns, with_token

CORS = {"origins": ["https://a.test"]}
PREFLIGHT = [("Origin", "https://a.test"), ("Access-Control-Request-Method", "PUT")]


# The head for the backend


@pytest.mark.parametrize(
    ("route", "raw", "sent"),
    [
        ({"host": "preserve"}, request(host="a"), b"GET / HTTP/1.1\r\nHost: a\r\n"),
        ({"host": "upstream"}, request(host="a"), b"GET / HTTP/1.1\r\nHost: backend.test\r\n"),
        ({"host": "upstream"}, request(host="a"), b"\r\nX-Forwarded-Host: a\r\n"),
        ({}, b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: backend.test\r\n"),
        ({}, b"GET / HTTP/1.0\r\n\r\n", b"\r\nX-Forwarded-Host: backend.test\r\n"),
        ({"path": "/a/*", "strip_prefix": "/a"}, request("GET", "/a/x?y"), b"GET /x?y HTTP/1.1\r\n"),
    ],
)
@in_memory
async def test_target_and_host_for_the_backend(
    clock: HandClock, route: dict[str, Any], raw: bytes, sent: bytes
) -> None:
    async with proxy(clock, routes=[OPEN | route]) as at:
        at.client(raw)
        await turns()
        assert sent in lines()[0].sent


@in_memory
async def test_a_trusted_proxy_names_the_client_and_its_trace(clock: HandClock) -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = [("X-Forwarded-For", "203.0.113.9"), ("traceparent", trace.decode()), ("tracestate", "a=b")]
    for trusted, peer in (([], "127.0.0.1"), (["127.0.0.0/8"], "203.0.113.9")):
        async with proxy(clock, trusted_proxies=trusted) as at:
            at.client(request(headers=headers))
            await turns()
            [connection] = at.listener.connections
            assert connection.exchange is not None
            assert connection.exchange.peer == peer
            assert (connection.exchange.traceparent, connection.exchange.tracestate) == (trace, b"a=b")


@pytest.mark.parametrize(
    ("header", "counted"),
    [
        (("X-JWT-Sub", "bob"), {"claim": 1, "underscore": 0, "forwarded": 0}),
        (("X_A", "b"), {"claim": 0, "underscore": 1, "forwarded": 0}),
        (("X-Real-IP", "203.0.113.9"), {"claim": 0, "underscore": 0, "forwarded": 1}),
    ],
)
@in_memory
async def test_each_kind_of_removed_header_is_counted(
    clock: HandClock, header: tuple[str, str], counted: dict[str, int]
) -> None:
    async with proxy(clock) as at:
        at.client(request(headers=[header]))
        await turns()
        assert at.live.telemetry.headers_stripped == counted


@in_memory
async def test_only_100_continue_can_be_expected(clock: HandClock) -> None:
    async with proxy(clock) as at:
        assert status(at.client(request("POST", body=b"x", headers=[("Expect", "200-ok")]))) == 417


# Preflights


@in_memory
async def test_a_preflight_is_answered_without_the_backend(clock: HandClock) -> None:
    async with proxy(clock, cors=CORS) as at:
        client = at.client(request("OPTIONS", headers=PREFLIGHT))
        await turns()
        assert client.sent.startswith(b"HTTP/1.1 204 ")
        assert b"\r\nX-JWT-Sidecar: preflight\r\n" in client.sent
        assert b"\r\nAccess-Control-Allow-Origin: https://a.test\r\n" in client.sent
        assert client.sent.endswith(b"\r\n\r\n")
        assert lines() == []
        assert at.live.telemetry.requests == {("(preflight)", "OPTIONS", 204): 1}
        assert b"\r\nConnection: close\r\n" not in client.sent
        client.say(request("OPTIONS", headers=PREFLIGHT).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await turns()
        assert client.sent.count(b"HTTP/1.1 204 ") == 2
        assert client.sent.endswith(b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "headers"),
    [("OPTIONS", [("Origin", "https://b.test"), PREFLIGHT[1]]), ("OPTIONS", PREFLIGHT[:1]), ("GET", PREFLIGHT)],
)
@in_memory
async def test_other_requests_go_to_the_backend(clock: HandClock, method: str, headers: list[tuple[str, str]]) -> None:
    async with proxy(clock, cors=CORS) as at:
        client = at.client(request(method, headers=headers))
        await turns()
        lines()[0].say(ANSWER)
        assert status(client) == 200


@pytest.mark.parametrize(
    ("raw", "allowed"),
    [
        (request("GET", "/denied", headers=PREFLIGHT[:1]), True),
        (request("GET", "/denied", headers=[("Origin", "https://b.test")]), False),
        (b"no HTTP\r\n\r\n", False),
    ],
)
@in_memory
async def test_a_refusal_names_its_origin_where_that_is_configured(clock: HandClock, raw: bytes, allowed: bool) -> None:
    async with proxy(clock, cors=CORS, routes=DENY) as at:
        client = at.client(raw)
        assert (b"\r\nAccess-Control-Allow-Origin: https://a.test\r\n" in client.sent) is allowed
        assert b"\r\nVary: Origin\r\n" in client.sent


@pytest.mark.parametrize("leaves", [False, True])
@in_memory
async def test_the_request_of_a_client_that_leaves_before_its_key_comes_is_not_sent(
    clock: HandClock, tmp_path: Path, leaves: bool
) -> None:
    async with with_token(clock, tmp_path, 10, fetched=False) as (at, alice):
        fetching = asyncio.create_task(at.live.assembly.sources["main"].fetch_now())
        await asyncio.sleep(0)
        client = at.client(request(token=alice))
        if leaves:
            client.end()
        await fetching
        await turns()
        assert len(lines()) == (0 if leaves else 1)


@in_memory
async def test_a_request_that_waited_for_its_key_may_be_refused(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, -1, fetched=False) as (at, expired):
        fetching = asyncio.create_task(at.live.assembly.sources["main"].fetch_now())
        await asyncio.sleep(0)
        client = at.client(request(token=expired))
        assert client.sent == b""
        await fetching
        await turns()
        assert status(client) == 401


# The sidecar's own answers


@in_memory
async def test_a_refusal_in_full_names_route_issuer_and_cause(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY, error_detail="full", listen="127.0.0.1:8080") as at:
        refused = at.client(request("GET", "/denied"))
        assert b'"route": "/denied"' in refused.sent
        assert b'"issuer": "none"' in refused.sent
        assert b'"cause"' not in refused.sent
        client = at.client(request())
        await turns()
        lines()[0].say(b"no HTTP\r\n\r\n")
        assert b'"cause": "An answer must begin with HTTP/1.1' in client.sent


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@in_memory
async def test_a_page_and_a_refusal_have_a_body_unless_the_request_is_head(
    clock: HandClock, tmp_path: Path, method: str
) -> None:
    keys = Keys(tmp_path)
    signing = {"issuer": ISSUER, "keys_file": str(keys.signing), "token_endpoint": {"audience": AUDIENCE}}
    async with proxy(clock, **keys.settings(signing=signing, routes=DENY)) as at:
        client = at.client()
        for target, answered in (("/__gw/issuer/.well-known/jwks.json?x", 200), ("/denied", 403)):
            before = client.sent
            client.say(request(method, target))
            head, _, body = client.sent.removeprefix(before).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % answered)
            assert b"\r\nConnection: close" not in head
            assert bool(body) is (method == "GET")
            await turns()
        assert sorted(answered for _, _, answered in at.live.telemetry.requests) == [200, 403]


@in_memory
async def test_an_accepted_question_leaves_its_connection_open(clock: HandClock) -> None:
    async with proxy(clock, forward_auth={"original": "path"}, trusted_proxies=["127.0.0.0/8"]) as at:
        asker = at.client()
        seen = []
        for number in range(1, 4):
            asker.say(request("GET", "/auth/x"))
            assert asker.sent.count(b"HTTP/1.1 200 ") == number
            await turns()
            seen.append(at.live.assembly.handler.heads.get(request("GET", "/auth/x")))
        assert seen == [None, None, None]
        assert at.live.telemetry.requests == {("/*", "GET", 200): 3}
