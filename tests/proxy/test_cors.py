"""With `cors`, a page of another origin can read why it was refused; without, a refusal stays as it is."""

from typing import Any

import pytest

from sidecar.app.explain.explanation import explain
from sidecar.app.explain.question import Question
from sidecar.observability.counters import Counts
from tests.peers.backend import RawBackend, send
from tests.peers.issuer import Answer
from tests.peers.raw import Response
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

APP, EVIL = "https://app.example.com", "https://evil.example"
CORS = {"origins": [APP]}
ALLOWED = {
    "access-control-allow-origin": APP,
    "access-control-expose-headers": "WWW-Authenticate, Retry-After, Allow, X-Request-Id, X-JWT-Sidecar",
}
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/closed", "auth": "deny"},
    {"path": "/strict", "preflight": "reject"},
    {"path": "/admin", "require": {"scopes": ["admin"]}},
]
PREFLIGHT = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "authorization")]


def about_cors(answer: Response) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers if name.lower().startswith("access-control-")}


async def refused(stack: Stack, kind: str, origin: str) -> Response:
    """A refusal of this kind."""
    headers = [("Origin", origin)]
    match kind:
        case "400":
            return await stack.fetch(request("GET", "/%zz", headers=headers))
        case "401":
            return await stack.fetch(request("GET", "/", headers=headers))
        case "403":
            return await stack.fetch(stack.good(target="/admin", headers=headers))
        case "405":
            return await stack.fetch(request("TRACE", "/", headers=headers))
        case "502":
            await stack.backend.go_down()
            return await stack.fetch(stack.good(headers=headers))
    stack.issuer.on_jwks = Answer(500)
    return await stack.fetch(stack.good(headers=headers))


@pytest.mark.parametrize("kind", ["400", "401", "403", "405", "502", "503"])
async def test_a_page_of_a_configured_origin_can_read_every_refusal(kind: str) -> None:
    async with running(routes=ROUTES, cors=CORS) as stack:
        answer = await refused(stack, kind, APP)
        assert (answer.status, about_cors(answer), answer.get("vary")) == (int(kind), ALLOWED, "Origin")


@pytest.mark.parametrize("kind", ["401", "502", "503"])
async def test_a_page_of_another_origin_cannot_read_a_refusal(kind: str) -> None:
    async with running(routes=ROUTES, cors=CORS) as stack:
        answer = await refused(stack, kind, EVIL)
        assert (answer.status, about_cors(answer), answer.get("vary")) == (int(kind), {}, "Origin")


async def test_a_refusal_has_no_cors_headers_without_cors() -> None:
    async with running(routes=ROUTES) as stack:
        answer = await refused(stack, "401", APP)
        assert (about_cors(answer), answer.get("vary")) == ({}, None)


async def test_a_refusal_of_invalid_bytes_has_vary_origin() -> None:
    async with running(cors=CORS) as stack:
        assert (await stack.fetch(b"GET / HTTP/1.1\r\nbad line\r\n\r\n")).get("vary") == "Origin"


async def test_the_backends_answers_get_no_cors_headers() -> None:
    answered = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: https://own.example\r\n\r\n"
    async with running(backend=RawBackend(send(answered)), cors=CORS) as stack:
        answer = await stack.fetch(stack.good(headers=[("Origin", APP)]))
        assert about_cors(answer) == {"access-control-allow-origin": "https://own.example"}


@pytest.mark.parametrize("path", ["/", "/public/x", "/closed", "/strict", "/admin", "/%zz"])
async def test_a_preflight_of_a_configured_origin_is_answered_under_every_rule(path: str) -> None:
    """The page then learns the reason from the refusal of its request."""
    async with running(routes=ROUTES, cors=CORS | {"credentials": True, "max_age": "60s"}) as stack:
        async with stack.client() as client:
            await client.send(stack.good())  # now a connection to the backend is free
            assert (await client.response()).status == 200
            await client.send(request("OPTIONS", path, headers=[("Origin", APP), *PREFLIGHT]))
            answer = await client.response("OPTIONS")
            await client.send(stack.good())
            assert (answer.status, (await client.response()).status) == (204, 200)
        assert about_cors(answer) == {
            "access-control-allow-origin": APP,
            "access-control-allow-methods": "PUT",
            "access-control-allow-headers": "authorization",
            "access-control-allow-credentials": "true",
            "access-control-max-age": "60",
        }
        assert (answer.get("x-jwt-sidecar"), answer.get("content-length")) == ("preflight", None)
        assert [received.method for received in stack.backend.requests] == ["GET", "GET"]
        counts: Counts = stack.sidecar.assembly.handler.telemetry
        assert counts.requests["(preflight)", "OPTIONS", 204] == 1
        assert counts.skipped["preflight"] == 1


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        pytest.param([("Origin", EVIL), *PREFLIGHT], "/", 200, id="another origin: the backend answers"),
        pytest.param([("Origin", EVIL), *PREFLIGHT], "/strict", 401, id="another origin, the route needs a token"),
        pytest.param([("Origin", EVIL), *PREFLIGHT], "/closed", 403, id="another origin, the route is denied"),
        pytest.param([("Origin", APP)], "/", 401, id="OPTIONS without Access-Control-Request-Method"),
        pytest.param(
            [("Origin", APP), *PREFLIGHT, ("Content-Length", "0")], "/", 204, id="the own origin, Content-Length: 0"
        ),
    ],
)
async def test_other_options_requests_meet_their_rule(headers: list[tuple[str, str]], path: str, status: int) -> None:
    async with running(routes=ROUTES, cors=CORS) as stack:
        answer = await stack.fetch(request("OPTIONS", path, headers=headers))
        assert answer.status == status
        assert len(stack.backend.requests) == (status == 200)


async def test_explain_says_that_the_sidecar_answers_a_preflight() -> None:
    async with running(routes=ROUTES, cors=CORS) as stack:
        question = Question("OPTIONS", "/", None, headers=(("Origin", APP), *PREFLIGHT))
        told = str(await explain(stack.sidecar.assembly, question, stack.clock))
        assert "nobody: it is a CORS preflight of an allowed origin, which the sidecar answers" in told
