"""The admin listener: which requests it serves, and that a page in a browser cannot use it."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sidecar.app.admin.app import Admin
from sidecar.app.admin.guard import SAFE_METHODS, guarded
from sidecar.app.server import build
from sidecar.common.clock import Clock
from sidecar.config import parse
from tests.peers.raw import Response, fetch
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

JSON = ("Content-Type", "application/json")


async def ask(
    stack: Stack, *headers: tuple[str, str], host: str | None = "localhost", method: str = "POST", **rest: Any
) -> Response:
    """Deny a token of the stack's issuer, or ask something else."""
    entry = json.dumps({"iss": stack.issuer.issuer, "jti": "t1"}).encode()
    raw = request(method, rest.pop("target", "/denylist"), host=host, headers=headers, **{"body": entry, **rest})
    return await fetch(stack.sidecar.admin_address, raw)


def said(answer: Response, status: int) -> str:
    assert (answer.status, answer.get("content-type")) == (status, "application/json; charset=utf-8")
    [(name, text)] = answer.json().items()
    assert name == "error"
    return str(text)


def entries(stack: Stack) -> int:
    return len(stack.sidecar.assembly.denylist)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9901", "LOCALHOST", "127.0.0.1", "127.0.0.1:9901", "127.9.9.9", "[::1]", "[::1]:9901"],
)
async def test_a_request_that_names_this_machine_may_add_an_entry(host: str) -> None:
    async with running() as stack:
        answer = await ask(stack, JSON, host=host)
        assert (answer.status, answer.json(), entries(stack)) == (200, {"entries": 1}, 1)


@pytest.mark.parametrize(
    "host",
    [
        "evil.test", "evil.test:9901", "localhost.evil.test", "127.0.0.1.evil.test", "evil.localhost", "localhost.", "192.0.2.1",
        "[::2]", "127.0.0.1@evil.test", "0.0.0.0", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_foreign_host_is_refused_against_dns_rebinding(host: str, method: str) -> None:
    async with running() as stack:
        text = said(await ask(stack, JSON, host=host, method=method), 403)
        assert text == "The Host header must name this listener: localhost, or the address that it listens on."
        assert entries(stack) == 0


async def test_the_configured_name_of_the_listener_is_an_accepted_host() -> None:
    live = build(
        parse("{issuers: {a: {issuer: 'https://a.test/', audiences: any}}, upstream: 'http://127.0.0.1:1'}")
    ).live
    runner = web.AppRunner(Admin(live, "Operators.test", Clock()).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        for host, status in (("operators.test", 200), ("operators.test:9901", 200), ("other.test", 403)):
            answer = await fetch(runner.addresses[0], request("GET", "/", host=host))
            assert (host, answer.status) == (host, status)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("host", "status"),
    [("192.0.2.7", 200), ("192.0.2.7:9901", 200), ("192.0.2.1", 403), ("evil.test", 403)],
)
async def test_a_listener_on_all_addresses_accepts_the_reached_address_as_host(host: str, status: int) -> None:
    reached = asyncio.Transport({"sockname": ("192.0.2.7", 9901)})  # a machine may have no address but loopback
    asked = make_mocked_request("GET", "/", headers={"Host": host}, transport=reached)

    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response()

    assert (await guarded("0.0.0.0")(asked, page)).status == status


@pytest.mark.parametrize(
    "origin",
    ["http://evil.test", "https://localhost", "http://localhost:1", "http://127.0.0.1", "null", ""],
)
async def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    async with running() as stack:
        assert said(await ask(stack, JSON, ("Origin", origin)), 403) == "The Origin header names another site."
        assert entries(stack) == 0


async def test_a_page_of_this_listener_may_add_an_entry() -> None:
    async with running() as stack:
        answer = await ask(stack, JSON, ("Origin", "http://localhost:9901"), host="localhost:9901")
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/x-www-form-urlencoded")],
        [("Content-Type", "multipart/form-data")],
        [("Content-Type", "text/plain; a=application/json")],
        [("Content-Type", "application/jsonp")],
    ],
)
async def test_requests_that_a_form_could_send_are_refused(headers: list[tuple[str, str]]) -> None:
    async with running() as stack:
        assert said(await ask(stack, *headers), 415) == "The Content-Type must be application/json."
        assert entries(stack) == 0


async def test_parameters_of_the_content_type_do_not_matter() -> None:
    async with running() as stack:
        assert (await ask(stack, ("Content-Type", "Application/JSON; charset=utf-8"))).status == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b'{"iss":"a","iss":"b"}', b'{"jti":NaN}', b"[" * 50_000, b"jti=a"]
)
async def test_a_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    async with running() as stack:
        text = said(await ask(stack, JSON, body=body), 400)
        assert text == "The body must be a JSON object: an entry of the deny list."


async def test_an_entry_that_cannot_be_used_is_refused_with_its_problem() -> None:
    async with running() as stack:
        text = said(await ask(stack, JSON, body=b'{"iss": "x"}'), 400)
        expected = "jti, sub or issued_before is missing; without them an entry means all tokens"
        assert text == f"The entry cannot be used: {expected}."
        text = said(await ask(stack, JSON, body=b'{"iss": "x", "jti": "a"}'), 400)
        assert text.startswith(
            "The entry cannot be used: iss is not the iss of a configured issuer; one of: http://127."
        )


async def test_a_missing_path_is_a_404_in_json() -> None:
    async with running() as stack:
        assert said(await ask(stack, JSON, target="/nothing"), 404) == "Not Found"
        answer = await ask(stack, method="GET", body=None)
        assert (said(answer, 405), answer.get("allow")) == ("Method Not Allowed", "POST")
        assert said(await ask(stack, JSON, body=b" " * 70_000), 413) == "Content Too Large"


@pytest.mark.parametrize(("listen", "exposed"), [("0.0.0.0:0", True), ("127.0.0.1:0", False), ("localhost:0", False)])
async def test_a_listener_beyond_loopback_gets_a_warning(
    listen: str, exposed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(admin={"listen": listen}):
        pass
    warnings = [record.getMessage() for record in caplog.records if "event=admin_exposed" in record.getMessage()]
    assert len(warnings) == exposed
    assert all(" do='Set admin.listen to " in warning for warning in warnings)


async def test_every_route_checks_host_origin_and_content_type() -> None:
    async with running() as stack:
        routes = [
            (route.method, route.resource.canonical.format(issuer="main", request_id="x"))
            for route in stack.sidecar.admin.app().router.routes()
            if route.resource is not None and route.method != "HEAD"
        ]
        assert len(routes) > 10
        for method, target in routes:
            asked: dict[str, Any] = {"method": method, "target": target, "body": b"{}" if method == "POST" else None}
            assert "Host header" in said(await ask(stack, JSON, host="evil.test", **asked), 403)
            assert "Origin header" in said(await ask(stack, JSON, ("Origin", "http://evil.test"), **asked), 403)
            if method not in SAFE_METHODS:
                form = ("Content-Type", "application/x-www-form-urlencoded")
                assert "Content-Type" in said(await ask(stack, form, **asked), 415)
        assert stack.issuer.jwks_fetches == 1


async def test_the_path_of_the_deny_list_is_an_ordinary_path_at_the_proxy() -> None:
    async with running() as stack:
        entry = json.dumps({"iss": stack.issuer.issuer, "sub": "alice"}).encode()
        assert (await stack.fetch(stack.good("POST", "/denylist", headers=[JSON], body=entry))).status == 200
        assert (await stack.backend.received()).target == "/denylist"
        assert entries(stack) == 0
