"""Report mode: a request that a rule would refuse reaches the backend, with the reason."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.common.errors import Reason
from sidecar.config import ConfigError, parse
from sidecar.policy import report_mode
from tests.peers.backend import RawBackend, Request
from tests.peers.clock import HandClock, in_its_time_with_sockets
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.tokens import flip, payload_of, unb64
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

ADMIN = {"path": "/admin/*", "require": {"scopes": ["admin"]}}
BASE = {"issuers": {"main": {"issuer": "https://i.test/", "audiences": ["a"]}}, "upstream": "http://127.0.0.1:1"}


def config(**settings: Any) -> Any:
    return parse(json.dumps(BASE | settings))


async def told(stack: Stack, raw: bytes) -> dict[str, str | None]:
    """The identity headers of a request that is accepted in report mode."""
    number = len(stack.backend.requests) + 1
    answer = await stack.fetch(raw)
    assert answer.status == 200, answer.raw
    seen = await stack.backend.received(number)
    names = ("X-JWT-Status", "X-JWT-Report", "X-JWT-Sub", "X-JWT-Claims", "Authorization", "Cookie")
    return {name: seen.get(name.lower()) for name in names if seen.get(name.lower()) is not None}


async def test_a_bad_token_is_forwarded_with_its_code_in_report_mode() -> None:
    async with running(mode="report") as stack:
        for token, code in (
            (None, "token_missing"),
            ("opaque-session-id", "token_malformed"),
            (stack.token(exp=1), "token_expired"),
            (stack.token(aud="another"), "audience_mismatch"),
            (stack.token(iss="https://nobody.test/"), "issuer_unknown"),
            (flip(stack.alice, 2), "signature_invalid"),
        ):
            expected = {"X-JWT-Status": "report", "X-JWT-Report": code}
            expected |= {} if token is None else {"Authorization": f"Bearer {token}"}
            assert await told(stack, request("GET", "/x", token=token)) == expected


async def test_verified_claims_are_forwarded_when_a_rule_would_refuse() -> None:
    async with running(mode="report", routes=[ADMIN]) as stack:
        seen = await told(stack, stack.good("GET", "/admin/x"))
        assert (seen["X-JWT-Status"], seen["X-JWT-Report"]) == ("report", "scope_insufficient")
        assert (seen["X-JWT-Sub"], seen["Authorization"]) == ("alice", f"Bearer {stack.alice}")
        assert json.loads(unb64(seen["X-JWT-Claims"] or ""))["sub"] == payload_of(stack.alice)["sub"]


async def test_a_good_request_in_report_mode_is_verified_and_keeps_its_token() -> None:
    async with running(mode="report") as stack:
        seen = await told(stack, stack.good())
        assert (seen["X-JWT-Status"], seen["X-JWT-Sub"]) == ("verified", "alice")
        assert (seen.get("X-JWT-Report"), seen["Authorization"]) == (None, f"Bearer {stack.alice}")


async def test_a_revoked_token_in_report_mode_passes_without_claims() -> None:
    async with running(mode="report") as stack:
        token = stack.token(jti="lost")
        await stack.fetch(request("GET", "/", token=token))
        stack.sidecar.assembly.denylist.add({"iss": stack.issuer.issuer, "jti": "lost"})
        seen = await told(stack, request("GET", "/", token=token))
        assert seen == {
            "X-JWT-Status": "report",
            "X-JWT-Report": "token_revoked",
            "Authorization": f"Bearer {token}",
        }


async def test_an_issuer_without_keys_refuses_nothing_in_report_mode() -> None:
    issuer = ScriptedIssuer(algs=["EdDSA"])
    issuer.on_jwks = Answer(500)
    async with running(mode="report", issuer=issuer) as stack:
        seen = await told(stack, stack.good())
        assert seen["X-JWT-Report"] == "jwks_unavailable"


async def test_oversized_claims_are_not_forwarded_in_report_mode() -> None:
    async with running(mode="report") as stack:
        token = stack.token(sub="a" * 5000)
        seen = await told(stack, request("GET", "/", token=token))
        assert (seen["X-JWT-Report"], seen.get("X-JWT-Sub")) == ("claims_too_large", None)


async def test_refusals_about_the_request_itself_stay_in_report_mode() -> None:
    routes = [{"path": "/closed/*", "auth": "deny"}, {"path": "/small/*", "max_body_bytes": 2}, {"path": "/a/*"}, ADMIN]
    async with running(mode="report", routes=routes) as stack:
        twice = [("Authorization", f"Bearer {stack.alice}"), ("Authorization", "Bearer other")]
        for raw, code in (
            (stack.good("GET", "/closed/x"), "route_denied"),
            (stack.good("POST", "/small/x", body=b"long"), "body_too_large"),
            (stack.good("GET", "/a/..%2fadmin/x"), "path_ambiguous"),
            (request("GET", "/x", headers=twice), "token_ambiguous"),
            (request("GET", "/x", token="e30." + "e" * 20_000 + ".x"), "token_too_large"),
            (stack.good("GET", "/x", headers=[("X Y", "z")]), "request_malformed"),
            (stack.good("CONNECT", "/x"), "method_not_allowed"),
        ):
            answer = await stack.fetch(raw)
            assert (answer.json()["code"], answer.get("x-jwt-sidecar")) == (code, "rejected")
        assert stack.backend.requests == []


def test_report_mode_covers_every_reason_that_is_not_about_the_request_itself() -> None:
    others = set(Reason) - report_mode.COVERED
    assert {reason.code for reason in others if reason.status in (401, 403)} == {"token_too_large", "route_denied"}
    assert {reason.code for reason in report_mode.COVERED if reason.status >= 500} == {"jwks_unavailable"}


def test_the_page_lists_every_code_that_report_mode_still_refuses() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how" / "roll-out.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ([0-9, ]+) \|", page, re.MULTILINE)
    written = {code for codes, _ in rows for code in re.findall("`(.*?)`", codes)}
    assert written == {reason.code for reason in set(Reason) - report_mode.COVERED}
    statuses = {reason.code: str(reason.status) for reason in Reason}
    for codes, status in rows:
        assert {statuses[code] for code in re.findall("`(.*?)`", codes)} == set(status.split(", "))


@pytest.mark.parametrize(("settings", "forwarded"), [({}, True), ({"forward_token": False}, False)])
async def test_forward_token_false_applies_in_report_mode(settings: dict[str, Any], forwarded: bool) -> None:
    async with running(mode="report", **settings) as stack:
        for raw in (stack.good(), request("GET", "/", token=stack.token(exp=1))):
            assert ("Authorization" in await told(stack, raw)) is forwarded


async def test_the_mode_of_a_rule_overrides_the_mode_of_the_file() -> None:
    for file, rule, statuses in (("report", "enforce", [200, 401]), ("enforce", "report", [401, 200])):
        async with running(mode=file, routes=[{"path": "/x", "mode": rule}]) as stack:
            assert [(await stack.fetch(request("GET", path))).status for path in ("/", "/x")] == statuses


async def test_tokens_in_cookies_and_queries_are_forwarded_in_report_mode() -> None:
    places = [{"cookie": "session"}, {"query": "token"}]
    async with running(mode="report", token_from=places) as stack:
        seen = await told(stack, request("GET", "/", headers=[("Cookie", "a=b; session=junk")]))
        assert (seen["X-JWT-Report"], seen["Cookie"]) == ("token_malformed", "a=b; session=junk")
        await stack.fetch(request("GET", "/?token=junk&x=1"))
        assert stack.backend.requests[1].target == "/?token=junk&x=1"


async def test_clients_cannot_forge_the_report_header() -> None:
    async with running(mode="report") as stack:
        seen = await told(stack, stack.good(headers=[("X-JWT-Report", "nothing"), ("X_JWT_Report", "nothing")]))
        assert "X-JWT-Report" not in seen


@in_its_time_with_sockets
async def test_a_websocket_outlives_its_token_in_report_mode(clock: HandClock) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    backends: list[asyncio.StreamWriter] = []

    async def switched(_seen: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(switch)
        backends.append(writer)
        await asyncio.Event().wait()

    handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    handshake.append(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))
    routes = [{"path": "/enforced", "mode": "enforce"}]
    async with (
        running(mode="report", backend=RawBackend(switched), routes=routes) as stack,
        stack.client() as reported,
        stack.client() as enforced,
    ):
        token = stack.token(exp=stack.clock.wall() - 30)  # good for 30 s, by the skew of 60
        for client, path in ((reported, "/reported"), (enforced, "/enforced")):
            await client.send(request("GET", path, token=token, headers=handshake))
            assert (await client.response()).status == 101
        assert await enforced.closed() == b"\x88\x0f\x11\x31token expired"
        backends[0].write(b"\x81\x01x")
        assert await reported.read(3) == b"\x81\x01x"


@pytest.mark.parametrize(
    ("settings", "route", "forwarded"),
    [
        ({}, {}, False),
        ({}, {"mode": "report"}, True),
        ({"mode": "report"}, {}, True),
        ({"mode": "report"}, {"mode": "enforce"}, False),
        ({"mode": "report"}, {"forward_token": False}, False),
        ({"mode": "report", "forward_token": False}, {}, False),
        ({"mode": "report", "forward_token": False}, {"forward_token": True}, True),
        ({"forward_token": True}, {}, True),
    ],
)
def test_a_token_is_forwarded_by_mode_and_forward_token(
    settings: dict[str, Any], route: dict[str, Any], forwarded: bool
) -> None:
    file = config(**settings, routes=[{"path": "/x", **route}])
    assert file.sends_token(file.routes[0]) is forwarded


def test_a_deny_rule_cannot_be_in_report_mode() -> None:
    with pytest.raises(ConfigError, match="mode: contradicts auth: deny, which refuses every request"):
        config(routes=[{"path": "/x", "auth": "deny", "mode": "report"}])
