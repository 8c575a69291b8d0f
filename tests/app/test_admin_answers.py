"""The admin listener's answers: the state of the keys, the last refusals, explanations; no answer holds a token."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.admin.page import FILES
from sidecar.jwt.jwks.unknown_kids import COOLDOWN_S
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.raw import Response, fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/trial/*", "mode": "report"},
]


async def get(stack: Stack, target: str) -> Response:
    return await _asked(stack, request("GET", target, host="localhost"))


async def post(stack: Stack, target: str, body: object = None) -> Response:
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = [("Content-Type", "application/json")]
    return await _asked(stack, request("POST", target, host="localhost", headers=headers, body=content))


async def _asked(stack: Stack, raw: bytes) -> Response:
    answer = await fetch(stack.sidecar.admin_address, raw)
    stack.secrets.told(answer.raw.decode())
    assert answer.get("cache-control") == "no-store"
    assert answer.get("x-content-type-options") == "nosniff"
    assert answer.get("cross-origin-resource-policy") == "same-origin"
    return answer


async def issuer(stack: Stack, name: str = "main") -> dict[str, Any]:
    issuers = (await get(stack, "/issuers")).json()["issuers"]
    return next(issuer for issuer in issuers if issuer["name"] == name)


# /issuers


async def test_the_keys_of_an_issuer_are_reported() -> None:
    async with running(issuer=ScriptedIssuer(algs=["EdDSA", "ES256"], date_offset_s=-20)) as stack:
        await stack.fetch(stack.good())
        stack.clock.ahead_s += 100
        told = await issuer(stack)
    assert TIME.fullmatch(told.pop("fetched_at"))
    assert 100 <= told.pop("age_s") < 200
    assert 400 < told.pop("next_refresh_s") < 600
    assert 3900 < told.pop("usable_for_s") < 4200
    assert -22 < told.pop("clock_offset_s") < -18
    assert told == {
        "name": "main",
        "issuer": stack.issuer.issuer,
        "aliases": [],
        "keys_from": "discovery",
        "state": "fresh",
        "usable": True,
        "cooldown_s": 0,
        "last_error": None,
        "fetches": {"scheduled": {"success": 1}},
        "keys": [
            {"kid": "ed25519-a", "kty": "OKP", "use": "sig", "alg": ["EdDSA"], "grace_s": None},
            {"kid": "p-256-a", "kty": "EC", "use": "sig", "alg": ["ES256"], "grace_s": None},
        ],
        "skipped": [],
        "minute": {"refused": 0},
    }


async def test_an_issuer_without_keys_is_reported_with_the_reason() -> None:
    async with running(issuer=ScriptedIssuer(discovery=False)) as stack:
        stack.issuer.on_jwks = Answer(500)
        await post(stack, "/jwks/refresh", {"force": True})
        told = await issuer(stack)
    assert (told["state"], told["usable"], told["keys"], told["skipped"]) == ("absent", False, [], [])
    assert (told["age_s"], told["fetched_at"], told["usable_for_s"], told["clock_offset_s"]) == (None, None, None, None)
    discovery = f"{stack.issuer.url}{stack.issuer.discovery_path}: status 404"
    assert told["last_error"] == f"{discovery}; {stack.issuer.jwks_uri}: status 500"


async def test_an_outage_makes_keys_stale_and_in_the_end_unusable() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        await stack.issuer.go_down()
        await post(stack, "/jwks/refresh", {"force": True})
        told = await issuer(stack)
        assert (told["state"], told["usable"], len(told["keys"])) == ("stale", True, 1)
        assert told["last_error"].endswith(": no connection")
        assert told["fetches"]["forced"] == {"failure": 1}
        stack.clock.ahead_s += 24 * 3600
        told = await issuer(stack)
        assert (told["state"], told["usable"], told["usable_for_s"], len(told["keys"])) == ("absent", False, 0, 1)


async def test_skipped_and_withdrawn_keys_are_listed() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as keys:
        trusted = {"issuer": keys.issuer, "audiences": [AUDIENCE], "removed_key_grace": "5m"}
        async with running(issuers={"main": trusted}) as stack:
            await stack.fetch(request("GET", "/", token=keys.token("EdDSA")))
            keys.rotate()
            keys.keys.append({"kty": "EC", "crv": "P-1"})
            await post(stack, "/jwks/refresh")
            told = await issuer(stack)
            assert [key["kid"] for key in told["keys"]] == ["ed25519-b", "ed25519-a"]
            assert told["keys"][0]["grace_s"] is None
            assert 290 < told["keys"][1]["grace_s"] <= 300
            assert told["skipped"] == ["key 1: its x is missing or not text"]
            keys.keys.pop()
            await post(stack, "/jwks/refresh", {"force": True})
            assert (await issuer(stack))["skipped"] == []


async def test_a_shared_secret_is_listed_without_its_value(tmp_path: Path) -> None:
    secret = "secret" * 6
    file = tmp_path / "secret"
    file.write_text(secret)
    issuer = {"issuer": "https://a.test/", "audiences": "any", "algorithms": ["HS256"], "secret_file": str(file)}
    async with running(issuers={"main": issuer}) as stack:
        await post(stack, "/jwks/refresh")
        answer = await get(stack, "/issuers")
    assert secret not in answer.body.decode()
    [key] = answer.json()["issuers"][0]["keys"]
    assert (key["kid"], key["kty"], key["alg"]) == (None, "oct", ["HS256"])


# /jwks/refresh


async def test_a_refresh_fetches_and_then_waits_for_its_cooldown_unless_forced() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        answer = await post(stack, "/jwks/refresh/main")
        assert answer.status == 200
        [told] = answer.json()["issuers"]
        assert COOLDOWN_S - 5 < told.pop("cooldown_s") <= COOLDOWN_S
        assert told == {"name": "main", "result": "fetched", "last_error": None}
        assert stack.issuer.jwks_fetches == 2

        answer = await post(stack, "/jwks/refresh/main", {"force": False})
        assert (answer.status, answer.json()["issuers"][0]["result"]) == (429, "cooldown")
        assert int(answer.get("retry-after") or 0) in range(20, 31)
        assert stack.issuer.jwks_fetches == 2

        answer = await post(stack, "/jwks/refresh", {"force": True})
        assert (answer.status, stack.issuer.jwks_fetches) == (200, 3)

        stack.clock.ahead_s += COOLDOWN_S
        assert (await post(stack, "/jwks/refresh")).status == 200
        assert stack.issuer.jwks_fetches == 4


async def test_a_refresh_that_fails_says_why() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        stack.issuer.on_jwks = Answer(503)
        answer = await post(stack, "/jwks/refresh/main")
        assert answer.status == 502
        [told] = answer.json()["issuers"]
        assert (told["result"], told["last_error"]) == ("failed", f"{stack.issuer.jwks_uri}: status 503")


async def test_a_refresh_is_for_one_issuer_or_for_all() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as a, ScriptedIssuer(algs=["EdDSA"]) as b:
        issuers = {name: {"issuer": peer.issuer, "audiences": [AUDIENCE]} for name, peer in (("a", a), ("b", b))}
        async with running(issuers=issuers) as stack:
            for peer in (a, b):
                await stack.fetch(request("GET", "/", token=peer.token("EdDSA")))
            await post(stack, "/jwks/refresh/a")
            assert (a.jwks_fetches, b.jwks_fetches) == (2, 1)
            answer = await post(stack, "/jwks/refresh")
            assert [told["result"] for told in answer.json()["issuers"]] == ["cooldown", "fetched"]
            assert (answer.status, a.jwks_fetches, b.jwks_fetches) == (429, 2, 2)
            answer = await post(stack, "/jwks/refresh/c")
            assert (answer.status, answer.json()) == (404, {"error": "No issuer has this name; one of: a, b."})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[]", "The body must be a JSON object."),
        (b"{", "The body must be a JSON object."),
        ({"forced": True}, "The body has an unknown member; use only: force."),
        ({"force": 1}, "force must be true or false."),
        ({"force": "true"}, "force must be true or false."),
    ],
)
async def test_a_refresh_with_an_invalid_body_is_refused(body: object, error: str) -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        answer = await post(stack, "/jwks/refresh", body)
        assert (answer.status, answer.json(), stack.issuer.jwks_fetches) == (400, {"error": error}, 1)


# /rejections


async def test_a_refusal_is_reported_by_its_request_id() -> None:
    async with running(routes=ROUTES) as stack:
        raw = stack.good("GET", "/admin/x?secret=1", headers=[("X-Request-Id", "id-1")])
        assert (await stack.fetch(raw)).status == 403
        told = (await get(stack, "/rejections/id-1")).json()
        assert TIME.fullmatch(told.pop("time"))
        assert {"iss", "sub", "aud"} <= set(told.pop("claims"))
        assert told == {
            "request_id": "id-1",
            "method": "GET",
            "path": "/admin/x",
            "host": "sidecar.test",
            "route": "/admin/*",
            "mode": "enforce",
            "status": 403,
            "code": "scope_insufficient",
            "error": "Insufficient scope",
            "details": "The token lacks a required scope.",
            "cause": None,
            "expected": "all of: admin",
            "found": "none",
            "issuer": "main",
            "kid": "ed25519-a",
            "peer": "127.0.0.1",
        }


async def test_refusals_are_listed_newest_first() -> None:
    async with running(routes=ROUTES) as stack:
        await stack.fetch(request("GET", "/x"))
        await stack.fetch(request("GET", "/trial/x"))
        await stack.converse(b"no HTTP\r\n\r\n")
        unread, would, missing = (await get(stack, "/rejections")).json()["rejections"]
    assert (missing["code"], missing["mode"], missing["details"]) == ("token_missing", "enforce", None)
    assert (would["code"], would["mode"], would["status"]) == ("token_missing", "report", 200)
    assert (unread["code"], unread["method"], unread["path"]) == ("request_malformed", None, None)


@pytest.mark.parametrize("request_id", ["id-2", "%2e%2e", "a%00b", "<script>"])
async def test_an_unknown_request_id_is_a_404_in_json(request_id: str) -> None:
    async with running() as stack:
        await stack.fetch(request("GET", "/x", headers=[("X-Request-Id", "id-1")]))
        answer = await get(stack, f"/rejections/{request_id}")
        assert (answer.status, answer.json()) == (404, {"error": "None of the last refusals has this request id."})


# /status


async def test_the_status_counts_the_sent_requests() -> None:
    async with running(routes=ROUTES) as stack:
        for raw in (stack.good(), request("GET", "/x"), request("GET", "/trial/x"), stack.good("GET", "/admin/x")):
            await stack.fetch(raw)
        await stack.converse(b"no HTTP\r\n\r\n")
        told = (await get(stack, "/status")).json()
    assert told["issuers"] == {"fresh": 1, "stale": 0, "absent": 0}
    assert told["last_reload_successful"]
    traffic = told["traffic"]
    assert (traffic["requests"], traffic["in_flight"], traffic["draining"]) == (5, 0, False)
    assert traffic["refused"] == {"token_missing": 1, "scope_insufficient": 1, "request_malformed": 1}
    assert traffic["reported"] == {"token_missing": 1}
    minute = traffic["minute"]
    assert (minute["requests"], minute["refused"]) == (5, 3)
    assert 0 < minute["p50_s"] <= minute["p99_s"] < 10


async def test_the_status_lists_only_newer_refusals_on_request() -> None:
    async with running() as stack:
        for number in range(3):
            await stack.fetch(request("GET", f"/{number}"))
        for after, paths in ((0, ["/2", "/1", "/0"]), (2, ["/2"]), (3, []), (7, []), ("9" * 18, [])):
            told = (await get(stack, f"/status?after={after}")).json()
            assert (told["refusals"], [refusal["path"] for refusal in told["last"]]) == (3, paths)
        for most, paths in ((0, []), (1, ["/2"]), (2, ["/2", "/1"])):
            told = (await get(stack, f"/status?most={most}")).json()
            assert [refusal["path"] for refusal in told["last"]] == paths
        for after in ("", "-1", "a", "%D9%A3", "9" * 19, "9" * 5000):
            assert (await get(stack, f"/status?after={after}")).status == 400


# /explain


async def test_an_accepted_request_is_explained_with_its_checks_and_its_new_head() -> None:
    async with running(routes=ROUTES) as stack:
        told = (await post(stack, "/explain", {"token": stack.alice, "path": "/x", "host": "a.test"})).json()
    assert told["accepted"]
    assert told["steps"][0] == {"mark": "ok", "name": "request", "text": "GET /x, Host a.test"}
    assert {"signature", "exp", "aud"} <= {step["name"] for step in told["steps"]}
    assert {step["mark"] for step in told["steps"]} == {"ok"}
    assert told["upstream"] == f"default ({stack.backend.url})"
    assert told["head"][:2] == ["GET /x HTTP/1.1", "Host: a.test"]
    assert "X-JWT-Sub: alice" in told["head"]
    assert stack.backend.requests == []


async def test_a_refused_request_is_explained_with_the_values_of_its_answer() -> None:
    async with running(routes=ROUTES) as stack:
        asked = {"token": f" {stack.alice}\n", "method": "POST", "path": "/admin/x"}
        told = (await post(stack, "/explain", asked)).json()
        answer = await stack.fetch(stack.good("POST", "/admin/x"))
    assert not told["accepted"]
    last = told.pop("steps")[-1]
    assert (last["mark"], last["name"]) == ("FAIL", "scopes")
    body = answer.json()
    assert told == {
        "accepted": False, "status": answer.status, "code": body["code"], "error": body["error"], "details": body["details"],
    }  # fmt: skip


async def test_a_request_without_a_token_is_explained() -> None:
    async with running(routes=ROUTES) as stack:
        assert (await post(stack, "/explain", {"path": "/public/x"})).json()["accepted"]
        assert (await post(stack, "/explain")).json()["code"] == "token_missing"
        told = (await post(stack, "/explain", {"path": "/trial/x"})).json()
        assert told["accepted"]
        assert told["steps"][-1]["mark"] == "note"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"token=a", "The body must be a JSON object."),
        ({"tokens": ""}, "The body has an unknown member; use only: method, path, host, token."),
        ({"token": None}, "token must be text."),
        ({"path": ["/"]}, "path must be text."),
        (
            {"path": ""},
            "This cannot be explained: the path must not be empty or hold spaces or control characters.",
        ),
        ({"token": "a\r\nb: c"}, "This cannot be explained: the token must be one line of text."),
    ],
)
async def test_an_invalid_explain_request_is_refused(body: object, error: str) -> None:
    async with running() as stack:
        answer = await post(stack, "/explain", body)
        assert (answer.status, answer.json()) == (400, {"error": error})


@pytest.mark.parametrize("odd", ["\u00fc", "\ud800", "\U0001f600", "\\", '"', "#", "eyJh.b"])
@pytest.mark.parametrize("name", ["token", "method", "path", "host"])
async def test_unusual_text_gets_an_answer_in_json(name: str, odd: str) -> None:
    async with running() as stack:
        answer = await post(stack, "/explain", {name: f"/{odd}" if name == "path" else odd})
        assert answer.status in (200, 400)
        assert answer.json()


async def test_no_part_of_a_token_is_reported_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    """`running` searches every answer and log line for the stack's tokens."""
    async with running(routes=ROUTES, forward_token=True, access_log="json", token_from=[{"query": "t"}]) as stack:
        canary = stack.token(sub="canary", exp=stack.clock.wall() - 3600)
        for token in (canary, stack.token(sub="canary"), stack.token(sub="canary", name="b"), f"{canary}.a"):
            stack.secrets.tokens.add(token)
            for path in ("/x", "/public/x", "/admin/x", f"/x?t={token}", f"/{token}/x"):
                asked = {"token": token, "path": path}
                assert (await post(stack, "/explain", asked)).status == 200
                await stack.fetch(request("GET", path, token=token))
        for target in ("/status", "/rejections", "/issuers"):
            await get(stack, target)
    assert "canary" not in caplog.text


# The page


async def test_the_content_security_policy_allows_only_the_pages_own_files() -> None:
    async with running() as stack:
        for path, (_, content_type) in FILES.items():
            answer = await get(stack, path)
            assert (answer.status, answer.get("content-type")) == (200, f"{content_type}; charset=utf-8")
            policy = answer.get("content-security-policy") or ""
            directives = dict(part.split(" ", 1) for part in policy.split("; "))
            assert directives["default-src"] == directives["form-action"] == directives["frame-ancestors"] == "'none'"
            assert {directives[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
            if content_type != "application/json":  # texts to be read, which may name a URL
                assert "://" not in re.sub("http://www.w3.org/2000/svg", "", answer.body.decode())
