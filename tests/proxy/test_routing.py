"""The rule for a request, and its effects, seen from both ends."""

from typing import Any

import pytest

from tests.peers.backend import RawBackend
from tests.peers.wire import WEBSOCKET, chunked, request
from tests.proxy.conftest import Stack, ok, running

PREFLIGHT = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST")]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(WEBSOCKET, b"", id="upgrade"),
        pytest.param([], b"hello", id="body"),
        pytest.param([("X-HTTP-Method-Override", "DELETE")], b"", id="another method"),
        pytest.param([("Connection", "origin")], b"", id="without its Origin"),
    ],
)
async def test_a_preflight_with_more_than_its_headers_needs_a_token(
    headers: list[tuple[str, str]], body: bytes
) -> None:
    async with running() as stack:
        answer = await stack.fetch(request("OPTIONS", "/x", headers=[*PREFLIGHT, *headers], body=body))
        assert (answer.status, answer.json()["code"]) == (401, "token_missing")
        assert stack.backend.requests == []


async def test_a_preflight_with_a_method_in_its_query_needs_a_token() -> None:
    async with running() as stack:
        answer = await stack.fetch(request("OPTIONS", "/x?_method=DELETE", headers=PREFLIGHT))
        assert (answer.status, answer.json()["code"]) == (401, "token_missing")
        assert stack.backend.requests == []


async def code(stack: Stack, raw: bytes) -> tuple[int, str | None]:
    answer = await stack.fetch(raw)
    return answer.status, answer.json().get("code")


@pytest.mark.parametrize(
    ("path", "target", "public"),
    [
        pytest.param("/a", "/a", True, id="exact"),
        pytest.param("/a", "/a/", False, id="an exact path covers nothing below it"),
        pytest.param("/a", "/a?x=1", True, id="the query is no part of the path"),
        pytest.param("/a/*", "/a", True, id="the prefix itself"),
        pytest.param("/a/*", "/a/b/c", True, id="below the prefix"),
        pytest.param("/a/*", "/ab", False, id="a prefix ends at a segment"),
        pytest.param("/users/*/avatar", "/users/7/avatar", True, id="one segment"),
        pytest.param("/users/*/avatar", "/users/7/8/avatar", False, id="* does not cover two segments"),
        pytest.param("/files/*.png", "/files/a.png", True, id="part of a segment"),
        pytest.param("/files/*.png", "/files/a.pngx", False, id="a pattern covers the whole path"),
        pytest.param("/u/*/pub/*", "/u/7/pub", True, id="pattern and prefix, itself"),
        pytest.param("/u/*/pub/*", "/u/7/pub/x/y", True, id="pattern and prefix, below"),
        pytest.param("/u/*/pub/*", "/u/7/public", False, id="pattern and prefix end at a segment"),
        pytest.param("/a.b", "/axb", False, id="a dot stands for a dot only"),
    ],
)
async def test_the_path_of_a_rule_covers_whole_segments(path: str, target: str, public: bool) -> None:
    async with running(routes=[{"path": path, "auth": "none"}]) as stack:
        assert await code(stack, request("GET", target)) == ((200, None) if public else (401, "token_missing"))


async def test_a_path_with_leading_slashes_is_refused_if_its_rest_meets_another_rule() -> None:
    async with running(routes=[{"path": "/admin/*", "require": {"scopes": ["admin"]}}]) as stack:
        assert await code(stack, stack.good("GET", "//x/admin/users")) == (400, "path_ambiguous")
        assert stack.backend.requests == []
        for target in ("//x/users", "//x", "//", "//x//y?z=//admin"):
            assert await code(stack, stack.good("GET", target)) == (200, None)
            assert stack.backend.requests[-1].target == target


@pytest.mark.parametrize(
    ("target", "public"), [("/v1/a", True), ("/v22/a", True), ("/x/v1/a", False), ("/v1/a/b", False), ("/v/a", False)]
)
async def test_path_regex_must_match_the_whole_path(target: str, public: bool) -> None:
    async with running(routes=[{"path_regex": "/v[0-9]+/[^/]*", "auth": "none"}]) as stack:
        assert (await stack.fetch(request("GET", target))).status == (200 if public else 401)


async def test_a_path_over_2048_characters_is_refused_if_a_regular_expression_may_match() -> None:
    routes: list[dict[str, Any]] = [
        {"path": "/open/*", "auth": "none"},
        {"path_regex": "/t/.*/admin/.*", "methods": ["GET"], "hosts": ["sidecar.test"], "auth": "deny"},
        {"path": "/*", "auth": "none"},
    ]
    begins = "/t/x/admin/"
    async with running(routes=routes) as stack:
        assert await code(stack, request("GET", begins.ljust(2048, "x"))) == (403, "route_denied")
        answer = await stack.fetch(request("GET", begins.ljust(2049, "x")))
        assert (answer.status, answer.json()["code"]) == (400, "path_ambiguous")
        assert (
            answer.json()["details"]
            == "The path is too long for the rules with a regular expression that may cover it."
        )
        assert stack.backend.requests == []
        for method, target, host in (
            ("POST", begins, "sidecar.test"),
            ("GET", begins, "other.test"),
            ("GET", "/open/", "sidecar.test"),
        ):
            assert (await stack.fetch(request(method, target.ljust(2049, "x"), host=host))).status == 200


async def test_a_path_over_2048_characters_is_served_if_no_pattern_begins_like_it() -> None:
    async with running(routes=[{"path": "/t/*/admin/*", "auth": "deny"}]) as stack:
        assert (await stack.fetch(stack.good("GET", "/u/".ljust(2049, "x")))).status == 200


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("open.example", True),
        ("OPEN.example:8080", True),
        ("open.example.", True),
        ("open.example.:8080", True),
        ("a.wide.example", True),
        ("a.b.wide.example", True),
        ("a.b.wide.example.", True),
        ("wide.example", False),
        ("notwide.example", False),
        ("other.example", False),
        ("open.example.evil", False),
    ],
)
async def test_a_rule_with_hosts_applies_only_to_them(host: str, public: bool) -> None:
    routes = [{"path": "/*", "hosts": ["open.example", "*.wide.example"], "auth": "none"}]
    async with running(routes=routes) as stack:
        assert (await stack.fetch(request("GET", "/", host=host))).status == (200 if public else 401)
        assert [seen.get("host") for seen in stack.backend.requests] == [host] * public


async def test_a_request_without_a_host_meets_no_rule_with_hosts() -> None:
    async with running(routes=[{"path": "/*", "hosts": ["127.0.0.1"], "auth": "none"}]) as stack:
        assert (await stack.fetch(request("GET", "/", host="127.0.0.1"))).status == 200
        assert (await stack.fetch(b"GET / HTTP/1.0\r\n\r\n")).status == 401


async def test_the_first_rule_that_matches_path_and_method_decides() -> None:
    routes: list[dict[str, Any]] = [
        {"path": "/articles/*", "methods": ["GET"], "auth": "none"},
        {"path": "/articles/*", "methods": ["DELETE"], "auth": "deny"},
    ]
    async with running(routes=routes) as stack:
        assert await code(stack, request("GET", "/articles/1")) == (200, None)
        assert await code(stack, request("POST", "/articles/1")) == (401, "token_missing")
        assert await code(stack, stack.good("DELETE", "/articles/1")) == (403, "route_denied")


async def test_error_detail_full_names_the_rule_and_the_issuer() -> None:
    routes = [{"path": "/admin/*", "require": {"scopes": ["admin"]}}]
    async with running(routes=routes, error_detail="full") as stack:
        told = (await stack.fetch(stack.good("GET", "/admin/x"))).json()
        assert (told["code"], told["route"], told["issuer"]) == ("scope_insufficient", "/admin/*", "main")
        told = (await stack.fetch(request("GET", "/x"))).json()
        assert (told["code"], told["route"], told["issuer"]) == ("token_missing", "(default)", "none")


# CORS


async def test_a_preflight_passes_without_token_and_identity() -> None:
    async with running() as stack:
        headers = [*PREFLIGHT, ("X-JWT-Sub", "mallory")]
        assert (await stack.fetch(request("OPTIONS", "/x", headers=headers))).status == 200
        seen = await stack.backend.received()
        assert (seen.get("x-jwt-status"), seen.get("x-jwt-sub")) == ("anonymous", None)


@pytest.mark.parametrize("missing", [0, 1])
async def test_another_options_request_needs_a_token(missing: int) -> None:
    headers = PREFLIGHT[:missing] + PREFLIGHT[missing + 1 :]
    async with running() as stack:
        assert await code(stack, request("OPTIONS", "/x", headers=headers)) == (401, "token_missing")
        assert await code(stack, request("POST", "/x", headers=PREFLIGHT)) == (401, "token_missing")
        assert stack.backend.requests == []


async def test_a_route_can_require_a_token_for_preflights_or_refuse_them() -> None:
    routes = [{"path": "/strict", "preflight": "reject"}, {"path": "/closed", "auth": "deny"}]
    async with running(routes=routes) as stack:
        assert await code(stack, request("OPTIONS", "/strict", headers=PREFLIGHT)) == (401, "token_missing")
        assert await code(stack, request("OPTIONS", "/closed", headers=PREFLIGHT)) == (403, "route_denied")


# Forwarded requests


@pytest.mark.parametrize(
    ("target", "sent"),
    [("/api/a%20b?q=/api", "/a%20b?q=/api"), ("/api", "/"), ("/api?x", "/?x"), ("/api/", "/"), ("/api/x//y", "/x//y")],
)
async def test_only_the_prefix_is_stripped(target: str, sent: str) -> None:
    async with running(routes=[{"path": "/api/*", "strip_prefix": "/api"}]) as stack:
        assert (await stack.fetch(stack.good("GET", target))).status == 200
        assert (await stack.backend.received()).target == sent


@pytest.mark.parametrize("target", ["/%61pi/x", "/api//evil.example", "/api//"])
async def test_a_prefix_in_another_spelling_or_before_two_slashes_is_refused(target: str) -> None:
    async with running(routes=[{"path": "/api/*", "strip_prefix": "/api"}]) as stack:
        assert await code(stack, stack.good("GET", target)) == (400, "path_ambiguous")
        assert stack.backend.requests == []


async def test_a_path_without_the_prefix_to_strip_is_refused() -> None:
    async with running(routes=[{"path_regex": "/.*", "strip_prefix": "/api"}]) as stack:
        assert (await stack.fetch(stack.good("GET", "/api/x"))).status == 200
        assert await code(stack, stack.good("GET", "/other/x")) == (400, "path_ambiguous")


async def test_host_upstream_sends_the_upstreams_own_host() -> None:
    async with running(routes=[{"path": "/own", "host": "upstream"}]) as stack:
        for target, host in (("/own", stack.backend.url.removeprefix("http://")), ("/", "sidecar.test")):
            await stack.fetch(stack.good("GET", target))
            seen = stack.backend.requests[-1]
            assert (seen.get("host"), seen.get("x-forwarded-host")) == (host, "sidecar.test")


async def test_bytes_outside_ascii_in_the_query_are_refused() -> None:
    async with running() as stack:
        raw = stack.good("GET", "/?q=X").replace(b"q=X", b"q=\xff\xfe\xc3\xbc")
        assert await code(stack, raw) == (400, "request_malformed")
        assert stack.backend.requests == []


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override", "X_HTTP_METHOD_OVERRIDE"]
)
async def test_method_override_headers_are_dropped_if_rules_have_methods(name: str) -> None:
    """Many frameworks would read the request as a DELETE, but it met the rule for POST."""
    cases: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
        ({"path": "/x", "methods": ["POST"]}, {}, False),
        ({"path": "/x", "methods": ["POST"]}, {"method_override": "pass"}, True),
        ({"path": "/x"}, {}, True),
    ]
    for route, settings, comes in cases:
        async with running(routes=[route], underscore_headers="allow", **settings) as stack:
            await stack.fetch(stack.good("POST", "/x", headers=[(name, "DELETE")], body=b""))
            assert (stack.backend.requests[-1].get(name) == "DELETE") is comes


# Bodies


async def test_an_oversized_content_length_is_refused_before_the_body() -> None:
    async with running(routes=[{"path": "/*", "max_body_bytes": 10}]) as stack:
        assert (await stack.fetch(stack.good("POST", "/", body=b"x" * 10))).status == 200
        assert await code(stack, stack.good("POST", "/", body=b"x" * 11)) == (413, "body_too_large")
        assert [len(seen.body) for seen in stack.backend.requests] == [10]


async def test_max_body_bytes_0_accepts_only_requests_without_a_body() -> None:
    async with running(routes=[{"path": "/*", "max_body_bytes": 0}]) as stack:
        assert (await stack.fetch(stack.good())).status == 200
        assert (await stack.fetch(stack.good("POST", "/", body=b""))).status == 200
        assert await code(stack, stack.good("POST", "/", body=b"x")) == (413, "body_too_large")


@pytest.mark.parametrize("comes_later", [True, False])
@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 413)])
async def test_an_oversized_chunked_body_never_becomes_a_complete_request(
    size: int, status: int, comes_later: bool
) -> None:
    routes = [{"path": "/*", "max_body_bytes": 10}]
    async with running(routes=routes, backend=RawBackend(ok)) as stack, stack.client() as client:
        await client.send(stack.good("POST", "/")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
        if comes_later:
            await stack.backend.connected()
        await client.send(chunked([b"x" * 6]).removesuffix(b"0\r\n\r\n"))
        await client.send(chunked([b"x" * (size - 6)]))
        answer = await client.response()
        assert answer.status == status
        if status == 413:
            assert answer.json()["code"] == "body_too_large"
        assert [len(seen.body) for seen in stack.backend.requests] == [10] * (status == 200)


# Upgrades

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "x-proto/1")]


async def test_another_protocol_is_forwarded_only_if_a_route_allows_it() -> None:
    async with running(routes=[{"path": "/x", "upgrades": ["x-proto/1"]}]) as stack:
        for target, upgrade in (("/x", "x-proto/1"), ("/", None)):
            await stack.fetch(stack.good("GET", target, headers=UPGRADE))
            assert stack.backend.requests[-1].get("upgrade") == upgrade


async def test_h2c_is_never_forwarded() -> None:
    async with running() as stack:
        await stack.fetch(stack.good("GET", "/", headers=[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"),
                                                          ("HTTP2-Settings", "AAMAAABkAAQAAP__")]))  # fmt: skip
        seen = await stack.backend.received()
        assert (seen.get("upgrade"), seen.get("connection"), seen.get("http2-settings")) == (None, None, None)
