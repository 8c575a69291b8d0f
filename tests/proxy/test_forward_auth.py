"""Forward authentication: the answers to a front proxy, the original request, and which peers may ask."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.config import parse
from sidecar.http.forwarded import Forwarded
from sidecar.proxy.forward_auth import ForwardAuth
from tests.http.heads import read
from tests.peers.raw import Response
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/feed", "auth": "optional"},
    {"path": "/closed", "auth": "deny"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/orders/*", "methods": ["GET"]},
    {"path": "/orders/*", "require": {"scopes": ["write"]}},
    {"path": "/hosted", "hosts": ["open.test"], "auth": "none"},
    {"path": "/trial/*", "mode": "report"},
]
FORMS = ("x-forwarded", "x-original", "path")


@asynccontextmanager
async def asked_by(form: str, **settings: Any) -> AsyncIterator[Stack]:
    """A sidecar that answers questions of this form from every program on this machine."""
    defaults = {
        "forward_auth": {"original": form},
        "trusted_proxies": ["127.0.0.0/8"],
        "routes": ROUTES,
        "identity_headers": {"X-JWT-Sub": "sub", "X-JWT-Scope": "scope"},
        "claims_header": "off",  # the answer holds the token's payload; no other answer may
    }
    async with running(**defaults | settings) as stack:
        yield stack


def question(
    form: str,
    method: str,
    target: str,
    host: str = "api.test",
    *,
    token: str | None = None,
    headers: list[tuple[str, str]] | None = None,
    path: str = "/auth",
) -> bytes:
    """A front proxy's question about a request."""
    said = {
        "x-forwarded": [("X-Forwarded-Method", method), ("X-Forwarded-Uri", target), ("X-Forwarded-Host", host)],
        "x-original": [("X-Original-Method", method), ("X-Original-URI", target)],
        "path": [],
    }[form]
    own_host = host if form != "x-forwarded" else "sidecar.test"
    asked = (method, f"{path}{target}") if form == "path" else ("GET", path)
    return request(*asked, host=own_host, token=token, headers=[*said, *(headers or [])])


def identity(answer: Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers if name.lower().startswith("x-jwt-")}


@pytest.mark.parametrize("form", FORMS)
async def test_a_good_request_gets_200_and_the_identity_headers(form: str) -> None:
    async with asked_by(form) as stack:
        forged = [("X-JWT-Sub", "mallory"), ("x_jwt_scope", "admin"), ("X-Request-Id", "id-1")]
        answer = await stack.fetch(question(form, "GET", "/orders/1?x=y", token=stack.alice, headers=forged))
        assert (answer.status, answer.body) == (200, b"")
        assert identity(answer) == {"X-JWT-Status": "verified", "X-JWT-Sub": "alice"}
        assert (answer.get("x-request-id"), answer.get("cache-control")) == ("id-1", "no-store")
        assert stack.backend.requests == []


async def test_a_forward_auth_answer_has_the_claims_header() -> None:
    async with asked_by("path", claims_header=None) as stack:
        answer = await stack.fetch(question("path", "GET", "/orders/1", token=stack.alice))
        assert identity(answer)["X-JWT-Claims"] == stack.alice.split(".")[1]
        stack.secrets.tokens.clear()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("method", "target", "host", "token", "status", "told"),
    [
        ("GET", "/orders/1", "api.test", False, 401, "token_missing"),
        ("GET", "/orders/1", "api.test", True, 200, "verified"),
        ("DELETE", "/orders/1", "api.test", True, 403, "scope_insufficient"),
        ("GET", "/admin/x", "api.test", True, 403, "scope_insufficient"),
        ("GET", "/public/x", "api.test", False, 200, "anonymous"),
        ("GET", "/feed", "api.test", False, 200, "anonymous"),
        ("GET", "/feed", "api.test", True, 200, "verified"),
        ("GET", "/closed", "api.test", True, 403, "route_denied"),
        ("GET", "/public/../admin/x", "api.test", True, 400, "path_ambiguous"),
        ("GET", "/hosted", "api.test", False, 401, "token_missing"),
        ("GET", "/hosted", "open.test:443", False, 200, "anonymous"),
        ("GET", "/trial/x", "api.test", False, 200, "report"),
        ("TRACE", "/public/x", "api.test", False, 405, "method_not_allowed"),
        ("GET", "/auth", "api.test", False, 401, "token_missing"),
    ],
)
async def test_the_rules_apply_to_the_original_request(
    form: str, method: str, target: str, host: str, token: bool, status: int, told: str
) -> None:
    async with asked_by(form) as stack:
        answer = await stack.fetch(question(form, method, target, host, token=stack.alice if token else None))
        assert answer.status == status
        if status == 200:
            assert identity(answer)["X-JWT-Status"] == told
        else:
            assert (answer.json()["code"], answer.get("x-jwt-sidecar")) == (told, "rejected")
        if status == 401:
            assert answer.get("www-authenticate") == 'Bearer realm="jwt-sidecar"'
        assert stack.backend.requests == []


@pytest.mark.parametrize("form", FORMS)
async def test_only_trusted_proxies_get_a_forward_auth_answer(form: str) -> None:
    async with asked_by(form, trusted_proxies=["192.0.2.0/24"]) as stack:
        answer = await stack.fetch(question(form, "GET", "/public/x", token=stack.alice))
        assert (answer.status, answer.json()["code"]) == (403, "route_denied")
        assert stack.backend.requests == []


@pytest.mark.parametrize("form", ["x-forwarded", "x-original"])
async def test_missing_or_duplicate_headers_of_the_front_proxy_are_refused(form: str) -> None:
    whole = question(form, "GET", "/public/x", token=None)
    async with asked_by(form) as stack:
        lines = [line for line in whole.split(b"\r\n") if line.startswith((b"X-Forwarded", b"X-Original"))]
        assert len(lines) == (3 if form == "x-forwarded" else 2)
        for line in lines:
            for changed in (b"", line + b"\r\n" + line.lower() + b"\r\n"):
                answer = await stack.fetch(whole.replace(line + b"\r\n", changed))
                assert (answer.status, answer.json()["code"]) == (400, "request_malformed")


@pytest.mark.parametrize(
    ("form", "others"),
    [
        ("x-forwarded", [("X-Original-URI", "/public/x"), ("X-Original-Method", "GET")]),
        (
            "x-original",
            [("X-Forwarded-Uri", "/public/x"), ("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "open.test")],
        ),
        (
            "path",
            [("X-Original-URI", "/public/x"), ("X-Forwarded-Uri", "/public/x"), ("X-Envoy-Original-Path", "/public/x")],
        ),
    ],
)
async def test_headers_of_another_front_proxy_are_ignored(form: str, others: list[tuple[str, str]]) -> None:
    """A client can send them, and the front proxy would forward them."""
    async with asked_by(form) as stack:
        for target in ("/orders/1", "/hosted"):
            answer = await stack.fetch(question(form, "GET", target, headers=others))
            assert answer.status == 401


@pytest.mark.parametrize("method", ["GET /x", "", "G\u00e9T", "G\tT"])
async def test_an_invalid_original_method_is_refused(method: str) -> None:
    async with asked_by("x-forwarded") as stack:
        answer = await stack.fetch(question("x-forwarded", method, "/public/x"))
        assert (answer.status, answer.json()["code"]) == (400, "request_malformed")


@pytest.mark.parametrize("target", ["", "public/x", "http://a/public/x", "*", "/public/a b", "/public/\xe9"])
async def test_an_original_target_that_is_not_a_path_is_refused(target: str) -> None:
    async with asked_by("x-forwarded") as stack:
        answer = await stack.fetch(question("x-forwarded", "GET", target))
        assert (answer.status, answer.json()["code"]) == (400, "request_malformed")


@pytest.mark.parametrize(("form", "path"), [("x-forwarded", "/authx"), ("x-forwarded", "/auth/x"), ("path", "/auth")])
async def test_requests_to_other_paths_go_to_the_backend(form: str, path: str) -> None:
    async with asked_by(form) as stack:
        assert (await stack.fetch(stack.good("GET", path))).status == 200
        assert (await stack.backend.received()).target == path


async def test_the_path_of_forward_auth_is_configurable() -> None:
    async with asked_by("x-forwarded", forward_auth={"original": "x-forwarded", "path": "/_sidecar/check"}) as stack:
        answer = await stack.fetch(question("x-forwarded", "GET", "/public/x", path="/_sidecar/check"))
        assert answer.status == 200


async def test_without_forward_auth_its_path_goes_to_the_backend() -> None:
    async with running(trusted_proxies=["127.0.0.0/8"]) as stack:
        assert (await stack.fetch(question("x-forwarded", "GET", "/x", token=stack.alice))).status == 200
        assert (await stack.backend.received()).target == "/auth"


async def test_a_token_in_the_original_query_is_found() -> None:
    async with asked_by("x-original", token_from=[{"query": "access_token"}]) as stack:
        answer = await stack.fetch(question("x-original", "GET", f"/orders/1?access_token={stack.alice}"))
        assert identity(answer)["X-JWT-Sub"] == "alice"


async def test_a_get_about_an_original_head_request_gets_a_body() -> None:
    async with asked_by("x-original") as stack, stack.client() as client:
        answer = await client.request(question("x-original", "HEAD", "/orders/1"))
        assert answer.json()["code"] == "token_missing"
        assert (await client.request(question("x-original", "HEAD", "/x", token=stack.alice))).status == 200


async def test_forward_auth_requests_are_counted_as_the_original_requests() -> None:
    async with asked_by("x-forwarded") as stack, stack.client() as client:
        for _ in range(3):
            answer = await client.request(question("x-forwarded", "PUT", "/public/x"))
            assert (answer.status, answer.get("connection")) == (200, None)
        requests = stack.sidecar.live.telemetry.requests
        assert requests == {("/public/*", "PUT", 200): 3}


async def test_forward_auth_needs_no_upstream() -> None:
    async with asked_by("x-forwarded", upstream=None) as stack:
        assert (await stack.fetch(question("x-forwarded", "GET", "/orders/1", token=stack.alice))).status == 200
        answer = await stack.fetch(stack.good("GET", "/orders/1"))
        assert (answer.status, answer.json()["code"]) == (404, "route_not_found")
        assert (await stack.fetch(request("GET", "/orders/1"))).status == 401


async def test_the_signature_covers_the_original_request(tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 40)
    async with asked_by("x-original", signature={"secret_file": str(secret)}) as stack:
        answer = await stack.fetch(question("x-original", "POST", "/public/x?y", token=None))
        stack.backend.requests.clear()
        await stack.fetch(request("POST", "/public/x?y"))
        sent = await stack.backend.received()
        assert answer.get("x-jwt-signature") == sent.get("x-jwt-signature")


@pytest.mark.parametrize("form", FORMS)
def test_the_configuration_of_the_forward_auth_example_loads(form: str) -> None:
    text = (Path(__file__).parents[2] / "deploy/forward-auth/sidecar.yaml").read_text()
    assert parse(text.replace("original: x-original", f"original: {form}"), environ={}).upstreams == {}


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "Application/gRPC;x=y"])
async def test_a_refused_grpc_call_gets_a_plain_sentence(kind: str) -> None:
    async with asked_by("path") as stack:
        stale = stack.token(exp=1)
        for token, said in (
            (None, b"No token provided (token_missing, request %b)"),
            (stale, b"Invalid token: The token expired "),
        ):
            headers = [("Content-Type", kind)]
            answer = await stack.fetch(question("path", "POST", "/shop.Orders/Get", token=token, headers=headers))
            assert (answer.status, answer.get("content-type")) == (401, "text/plain; charset=utf-8")
            request_id = (answer.get("x-request-id") or "").encode()
            assert answer.body.startswith(said.replace(b"%b", request_id))
            assert request_id in answer.body


async def test_other_refused_requests_get_json() -> None:
    async with asked_by("path") as stack:
        grpc = [("Content-Type", "application/grpc")]
        for raw in (
            question("path", "POST", "/x", headers=[("Content-Type", "application/grpc-web")]),
            question("path", "POST", "/x"),
            request("POST", "/x", headers=grpc),
        ):
            assert (await stack.fetch(raw)).json()["code"] == "token_missing"


# The question by itself


NEEDED = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/x", "X-Forwarded-Host": "api.test"}


def asked_about(**other: str) -> tuple[str, str, bytes]:
    said = NEEDED | {name.replace("_", "-"): value for name, value in other.items()}
    head = read(*(f"{name}: {value}" for name, value in said.items()), first="GET /auth HTTP/1.1")
    return ForwardAuth("/auth", "x-forwarded").asked_about(head)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"X_Forwarded_Method": "G T"}, "The front proxy names an invalid method."),
        ({"X_Forwarded_Uri": "/a b"}, "The front proxy names an invalid target."),
        ({"X_Forwarded_Host": "a/b"}, "The request needs exactly one valid Host header."),
        ({"X_Forwarded_Host": ""}, "The request needs exactly one valid Host header."),
        ({"x_forwarded_uri": "/y"}, "The front proxy must send x-forwarded-uri exactly once."),
    ],
)
def test_an_incomplete_forward_auth_request_is_refused_with_its_reason(other: dict[str, str], sentence: str) -> None:
    assert asked_about() == ("GET", "/x", b"api.test")
    with pytest.raises(Rejection) as caught:
        asked_about(**other)
    assert (caught.value.reason, caught.value.details) == (Reason.REQUEST_MALFORMED, sentence)


@pytest.mark.parametrize(
    ("target", "form", "asks"),
    [
        ("/auth", "x-forwarded", True),
        ("/auth?x", "x-forwarded", True),
        ("/auth/x", "x-forwarded", False),
        ("/authx", "x-forwarded", False),
        ("/other", "x-forwarded", False),
        ("/auth/x", "path", True),
        ("/auth", "path", False),
        ("/auth?x", "path", False),
    ],
)
def test_a_forward_auth_request_is_recognized_by_its_path(target: str, form: str, asks: bool) -> None:
    head, forward_auth = read(first=f"GET {target} HTTP/1.1"), ForwardAuth("/auth", form)
    assert forward_auth.asks(head, Forwarded("192.0.2.1", "http", True)) is asks
    stranger = Forwarded("192.0.2.1", "http", False)
    if not asks:
        assert not forward_auth.asks(head, stranger)
        return
    with pytest.raises(Rejection) as caught:
        forward_auth.asks(head, stranger)
    assert caught.value.details == "Only a proxy in trusted_proxies may ask here."
