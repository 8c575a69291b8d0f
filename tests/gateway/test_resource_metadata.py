"""Protected resource metadata (RFC 9728): a refused client learns where to get a token."""

import re
from typing import Any

import pytest

from sidecar.gateway.resource_metadata import metadata_url
from tests.peers.wire import request
from tests.proxy.conftest import running

RESOURCE = "https://api.test"
PAGE = "/.well-known/oauth-protected-resource"
ROUTES: list[dict[str, Any]] = [
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/x", "require": {"scopes": {"any": ["read", "write"], "all": ["admin"]}}},
    {"path": "/roles", "require": {"roles": ["a"]}},
]


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://api.test", "https://api.test/.well-known/oauth-protected-resource"),
        ("https://api.test/", "https://api.test/.well-known/oauth-protected-resource"),
        ("https://api.test:8443/mcp", "https://api.test:8443/.well-known/oauth-protected-resource/mcp"),
        ("https://api.test/a/b/", "https://api.test/.well-known/oauth-protected-resource/a/b/"),
    ],
)
def test_the_url_of_the_metadata_follows_rfc_9728_section_3_1(resource: str, url: str) -> None:
    assert metadata_url(resource) == url


async def test_the_metadata_names_the_accepted_issuers_places_and_scopes() -> None:
    async with running(resource_metadata={"resource": RESOURCE, "resource_name": "Orders"}, routes=ROUTES) as stack:
        answer = await stack.fetch(request("GET", f"{PAGE}?x"))
        assert answer.status == 200
        assert answer.json() == {
            "resource": RESOURCE,
            "authorization_servers": [stack.issuer.issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["admin", "read", "write"],
            "resource_name": "Orders",
        }
        told = {name.lower(): value for name, value in answer.headers}
        assert (told["content-type"], told["access-control-allow-origin"]) == ("application/json", "*")
        assert told["x-jwt-sidecar"] == "metadata"
        assert "max-age" in told["cache-control"]
        assert stack.backend.requests == []


async def test_unknown_members_are_left_out_of_the_metadata() -> None:
    async with running(
        resource_metadata={"resource": RESOURCE},
        token_from=[{"header": "Authorization", "prefix": "Bearer"}, {"query": "access_token"}],
        issuers={"main": {"issuer": "accounts", "audiences": "any", "jwks_inline": {"keys": []}, "required": False}},
    ) as stack:
        assert (await stack.fetch(request("GET", PAGE))).json() == {
            "resource": RESOURCE,
            "authorization_servers": [],
            "bearer_methods_supported": ["header", "query"],
        }


async def test_every_challenge_names_the_url_of_the_metadata() -> None:
    async with running(resource_metadata={"resource": f"{RESOURCE}/mcp"}, routes=ROUTES) as stack:
        named = f'resource_metadata="{RESOURCE}{PAGE}/mcp"'
        for raw, status in ((request(), 401), (request(token="a.b.c"), 401), (stack.good("GET", "/admin/x"), 403)):
            answer = await stack.fetch(raw)
            challenge = answer.get("www-authenticate") or ""
            assert (answer.status, challenge.startswith('Bearer realm="jwt-sidecar", ')) == (status, True)
            assert re.findall(r"resource_metadata=\S+", challenge.replace(",", " ")) == [named]
        url = re.findall('resource_metadata="https://api.test(.*?)"', challenge)[0]
        assert (await stack.fetch(request("GET", url))).json()["resource"] == f"{RESOURCE}/mcp"


async def test_pages_of_every_origin_may_read_the_metadata() -> None:
    asked = [("Origin", "http://a"), ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "x")]
    async with running(resource_metadata={"resource": RESOURCE}) as stack:
        answer = await stack.fetch(request("OPTIONS", PAGE, headers=asked))
        assert (answer.status, answer.body) == (204, b"")
        assert answer.get("access-control-allow-origin") == answer.get("access-control-allow-headers") == "*"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
async def test_the_metadata_accepts_only_get_and_head(method: str) -> None:
    async with running(resource_metadata={"resource": RESOURCE}) as stack:
        answer = await stack.fetch(stack.good(method, PAGE))
        assert (answer.status, answer.get("allow")) == (405, "GET, HEAD")


async def test_without_metadata_its_path_is_an_ordinary_path() -> None:
    async with running() as stack:
        answer = await stack.fetch(request("GET", PAGE))
        assert (answer.status, answer.get("www-authenticate")) == (401, 'Bearer realm="jwt-sidecar"')
