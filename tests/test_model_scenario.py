"""The model scenario: a gateway issues JWTs, has its keys at `{issuer}/.well-known/jwks.json`; a backend has `GET /protected`."""

import asyncio
import json
from typing import Any

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, Request, send
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.raw import Response, fetch
from tests.peers.tokens import flip, payload_of, unb64
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, running

GATEWAY = "/__zuplo/issuer"
GRANTED = {"message": "Access granted"}

ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/optional/*", "auth": "optional"},
    {"path": "/internal/*", "auth": "deny"},
    {"path": "/admin/*", "require": {"scopes": ["admin", "write"]}},
    {"path": "/trial/*", "mode": "report", "require": {"scopes": ["admin"]}},
    {"path": "/legacy/*", "forward_token": True},
    {"path": "/submit", "methods": ["POST"], "auth": "none"},
]


def gateway(*algs: str) -> ScriptedIssuer:
    return ScriptedIssuer(path=GATEWAY, algs=algs or ("EdDSA",), discovery=False)


def backend() -> RawBackend:
    return RawBackend(send(response(200, json.dumps(GRANTED).encode(), [("Content-Type", "application/json")])))


def model(*algs: str, **settings: Any) -> Any:
    return running(issuer=gateway(*algs), backend=backend(), **{"routes": ROUTES, **settings})


def protected(token: str | None = None, target: str = "/protected", *headers: tuple[str, str]) -> bytes:
    return request("GET", target, token=token, headers=headers)


def identity(seen: Request) -> dict[str, str]:
    """The identity headers at the backend, each at most once."""
    names = [name.lower() for name, _ in seen.headers if name.lower().startswith("x-jwt")]
    assert len(names) == len(set(names))
    return {name: seen.get(name) or "" for name in names}


def refusal(answer: Response, status: int, code: str) -> dict[str, Any]:
    """Assert that the answer is a complete, uncacheable refusal of the sidecar. Return its JSON."""
    told: dict[str, Any] = answer.json()
    assert (answer.status, told["code"]) == (status, code)
    assert answer.get("x-jwt-sidecar") == "rejected"
    assert answer.get("content-type") == "application/json"
    assert answer.get("cache-control") == "no-store"
    assert told["request_id"] == answer.get("x-request-id")
    assert set(told) <= {"error", "details", "code", "request_id"}
    return told


# The token


@pytest.mark.parametrize("alg", ["EdDSA", "RS256"])
async def test_a_valid_token_reaches_the_backend_as_claims(alg: str) -> None:
    async with model("EdDSA", "RS256") as stack:
        token = stack.token(alg, sub="user-1", scope="read write", nickname="Jörg")
        answer = await stack.fetch(protected(token))
        assert (answer.status, answer.json()) == (200, GRANTED)
        assert answer.get("x-jwt-sidecar") is None
        seen = await stack.backend.received()
        claims = identity(seen).pop("x-jwt-claims")
        assert identity(seen) == {
            "x-jwt-status": "verified",
            "x-jwt-sub": "user-1",
            "x-jwt-iss": stack.issuer.issuer,
            "x-jwt-scope": "read write",
            "x-jwt-claims": claims,
        }
        assert json.loads(unb64(claims)) == payload_of(token)
        assert (seen.method, seen.target, seen.get("host")) == ("GET", "/protected", "sidecar.test")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "BeArEr "])
async def test_the_scheme_of_a_token_is_case_insensitive(scheme: str) -> None:
    async with model() as stack:
        assert (
            await stack.fetch(protected(None, "/protected", ("authorization", f"{scheme} {stack.alice}")))
        ).status == 200


async def test_the_backend_does_not_receive_the_token() -> None:
    async with model() as stack:
        for target in ("/protected", "/public/x", "/optional/x"):
            assert (await stack.fetch(protected(stack.alice, target))).status == 200
        for seen in stack.backend.requests:
            signature = stack.alice.rpartition(".")[2].encode()
            assert signature not in seen.head
            assert b"uthorization" not in seen.head


async def test_a_route_with_forward_token_forwards_the_token() -> None:
    async with model() as stack:
        await stack.fetch(protected(stack.alice, "/legacy/x"))
        seen = await stack.backend.received()
        assert seen.get("authorization") == f"Bearer {stack.alice}"
        assert identity(seen)["x-jwt-sub"] == "alice"


async def test_forward_token_can_be_set_for_all_routes() -> None:
    async with model(forward_token=True) as stack:
        await stack.fetch(protected(stack.alice))
        assert (await stack.backend.received()).get("authorization") == f"Bearer {stack.alice}"


async def test_claims_are_encoded_without_loss_and_absent_ones_add_no_header() -> None:
    names = {
        "X-Name": "nickname",
        "X-Admin": "admin",
        "X-Level": "level",
        "X-Groups": "groups",
        "X-Realm": "realm",
        "X-None": "none",
        "X-Role": "realm.roles",
    }
    claims = {
        "nickname": " Jörg % ",
        "admin": True,
        "level": 2**70,
        "groups": ["a,b", "c", 1, False],
        "realm": {"roles": ["x"]},
        "none": None,
    }
    async with model(identity_headers=names, claims_header="off") as stack:
        await stack.fetch(protected(stack.token(**claims)))
        seen = await stack.backend.received()
        assert {name: value for name, value in seen.headers if name in names} == {
            "X-Name": "%20J%C3%B6rg %25%20",
            "X-Admin": "true",
            "X-Level": str(2**70),
            "X-Groups": "a%2Cb,c,1,false",
            "X-Realm": "eyJyb2xlcyI6WyJ4Il19",
            "X-Role": "x",
        }
        assert identity(seen) == {"x-jwt-status": "verified"}


# Refusals, byte for byte


async def test_a_missing_token_is_a_401_with_a_bare_challenge() -> None:
    async with model() as stack:
        answer = await stack.fetch(protected())
        told = refusal(answer, 401, "token_missing")
        assert told == {"error": "No token provided", "code": "token_missing", "request_id": told["request_id"]}
        assert answer.get("www-authenticate") == 'Bearer realm="jwt-sidecar"'
        assert stack.backend.requests == []


@pytest.mark.parametrize("credentials", ["Basic YTpi", "Token x", "", "x.y.z"])
async def test_other_credentials_count_as_no_token(credentials: str) -> None:
    async with model() as stack:
        refusal(await stack.fetch(protected(None, "/protected", ("Authorization", credentials))), 401, "token_missing")


BAD = {
    "expired": (401, "token_expired", {"exp": 1}),
    "not yet valid": (401, "token_not_yet_valid", {"nbf": 9_999_999_999}),
    "issued in the future": (401, "token_issued_in_future", {"iat": 9_999_999_999}),
    "for another audience": (401, "audience_mismatch", {"aud": "other-api"}),
    "of another issuer": (401, "issuer_unknown", {"iss": "https://elsewhere.test"}),
    "without exp": (401, "claim_missing", {"exp": None}),
    "exp as text": (401, "claim_invalid", {"exp": "9999999999"}),
}


@pytest.mark.parametrize(("status", "code", "claims"), BAD.values(), ids=BAD)
async def test_an_invalid_token_is_a_401_with_its_reason(status: int, code: str, claims: dict[str, Any]) -> None:
    async with model() as stack:
        answer = await stack.fetch(protected(stack.token(**claims)))
        if code == "claim_missing":
            code = answer.json()["code"]  # a null exp is missing or invalid
            assert code in ("claim_missing", "claim_invalid")
        told = refusal(answer, status, code)
        assert (told["error"], list(told)) == ("Invalid token", ["error", "details", "code", "request_id"])
        assert answer.get("www-authenticate") == (
            f'Bearer realm="jwt-sidecar", error="invalid_token", error_description="{told["details"]}"'
        )
        assert stack.backend.requests == []


async def test_a_changed_token_is_refused() -> None:
    async with model() as stack:
        for part, code in ((1, None), (2, "signature_invalid")):
            bad = flip(stack.alice, part, 20)
            stack.secrets.tokens.add(bad)
            answer = await stack.fetch(protected(bad))
            refusal(answer, 401, code or answer.json()["code"])
        for bad in ("x", "a.b.c", f"{stack.alice}.", f"{stack.alice}=", stack.alice.replace(".", "..", 1)):
            assert refusal(await stack.fetch(protected(bad)), 401, "token_malformed")["error"] == "Invalid token"
        assert stack.backend.requests == []


async def test_details_say_how_long_ago_a_token_expired() -> None:
    async with model() as stack:
        token = stack.token()
        assert (await stack.fetch(protected(token))).status == 200
        stack.clock.ahead_s += 300 + 3600
        told = refusal(await stack.fetch(protected(token)), 401, "token_expired")
        assert told["details"] == "The token expired 60 min ago."


async def test_two_different_tokens_are_a_400() -> None:
    async with model() as stack:
        bob = stack.token(sub="bob")
        answer = await stack.fetch(protected(stack.alice, "/protected", ("authorization", f"Bearer {bob}")))
        refusal(answer, 400, "token_ambiguous")
        assert stack.backend.requests == []


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer a b", "Bearer\tx", "Bearer x, Bearer y", "Bearer,x"])
async def test_a_bearer_header_without_exactly_one_token_is_malformed(value: str) -> None:
    async with model() as stack:
        told = refusal(
            await stack.fetch(protected(None, "/protected", ("Authorization", value))), 401, "token_malformed"
        )
        assert told["error"] == "Invalid token"


async def test_the_realm_is_configurable() -> None:
    async with model(realm="my api") as stack:
        assert (await stack.fetch(protected())).get("www-authenticate") == 'Bearer realm="my api"'


async def test_a_head_request_is_refused_without_a_body() -> None:
    async with model() as stack, stack.client() as client:
        answer = await client.request(request("HEAD", "/protected"))
        assert (answer.status, answer.body, answer.get("www-authenticate")) == (401, b"", 'Bearer realm="jwt-sidecar"')
        assert (await client.request(protected(stack.alice))).status == 200


# Routes


SPOOFED = [
    ("X-JWT-Sub", "mallory"),
    ("X-JWT-Sub", "mallory"),
    ("X_JWT_Sub", "mallory"),
    ("X.Jwt.Sub", "mallory"),
    ("x-jwt-sub", ""),
    ("X-JWT-Status", "verified"),
    ("X_JWT_Claims", "e30"),
]


@pytest.mark.parametrize("target", ["/public/x", "/optional/x", "/trial/x"])
async def test_spoofed_headers_are_removed_on_public_routes(target: str) -> None:
    async with model() as stack:
        answer = await stack.fetch(protected(None, target, *SPOOFED))
        assert (answer.status, answer.json()) == (200, GRANTED)
        seen = await stack.backend.received()
        assert identity(seen) == (
            {"x-jwt-status": "report", "x-jwt-report": "token_missing"}
            if target == "/trial/x"
            else {"x-jwt-status": "anonymous"}
        )
        assert b"mallory" not in seen.head


async def test_a_public_route_does_not_check_a_token() -> None:
    async with model() as stack:
        for token in ("nonsense", stack.alice, stack.token(exp=1)):
            assert (await stack.fetch(protected(token, "/public/x"))).status == 200
        assert [identity(seen) for seen in stack.backend.requests] == [{"x-jwt-status": "anonymous"}] * 3


async def test_an_optional_route_accepts_a_good_token_or_none() -> None:
    async with model() as stack:
        assert (await stack.fetch(protected(None, "/optional/x"))).status == 200
        assert (await stack.fetch(protected(stack.alice, "/optional/x"))).status == 200
        assert [identity(seen).get("x-jwt-sub") for seen in stack.backend.requests] == [None, "alice"]
        refusal(await stack.fetch(protected(stack.token(exp=1), "/optional/x")), 401, "token_expired")
        refusal(await stack.fetch(protected("x", "/optional/x")), 401, "token_malformed")
        assert len(stack.backend.requests) == 2


async def test_a_denied_route_refuses_every_request() -> None:
    async with model() as stack:
        for token in (None, stack.alice):
            answer = await stack.fetch(protected(token, "/internal/x"))
            refusal(answer, 403, "route_denied")
            assert answer.get("www-authenticate") is None
        assert stack.backend.requests == []


async def test_a_route_in_report_mode_accepts_and_marks_requests_that_it_would_refuse() -> None:
    async with model() as stack:
        for token in (None, "x", stack.token(exp=1), stack.alice):
            assert (await stack.fetch(protected(token, "/trial/x"))).status == 200
        told = [identity(seen) for seen in stack.backend.requests]
        assert [seen["x-jwt-status"] for seen in told] == ["report"] * 4
        codes = ["token_missing", "token_malformed", "token_expired", "scope_insufficient"]
        assert [seen["x-jwt-report"] for seen in told] == codes
        assert [seen.get("x-jwt-sub") for seen in told] == [None, None, None, "alice"]
        await stack.fetch(protected(stack.token(scope="admin"), "/trial/x"))
        assert identity(stack.backend.requests[4])["x-jwt-status"] == "verified"


async def test_missing_scopes_are_a_403_with_a_challenge() -> None:
    async with model() as stack:
        for scope in ("", "admin", "administrator write", "ADMIN WRITE"):
            answer = await stack.fetch(protected(stack.token(scope=scope), "/admin/x"))
            told = refusal(answer, 403, "scope_insufficient")
            assert told["error"] == "Insufficient scope"
            assert answer.get("www-authenticate") == (
                'Bearer realm="jwt-sidecar", error="insufficient_scope", '
                f'error_description="{told["details"]}", scope="admin write"'
            )
        refusal(await stack.fetch(protected(None, "/admin/x")), 401, "token_missing")
        assert stack.backend.requests == []
        for claims in ({"scope": "write read admin"}, {"scp": ["admin", "write"]}):
            assert (await stack.fetch(protected(stack.token(**claims), "/admin/x"))).status == 200


async def test_a_rule_with_methods_applies_only_to_them() -> None:
    async with model() as stack:
        assert (await stack.fetch(request("POST", "/submit"))).status == 200
        refusal(await stack.fetch(request("GET", "/submit")), 401, "token_missing")


async def test_a_route_for_one_issuer_refuses_tokens_of_another() -> None:
    async with gateway("EdDSA") as other:
        issuers = {"other": {"issuer": other.issuer, "audiences": ["my-api"]}}
        async with model() as first:
            issuers["main"] = {"issuer": first.issuer.issuer, "audiences": ["my-api"]}
            async with running(
                backend=backend(), issuers=issuers, routes=[{"path": "/a/*", "issuers": ["main"]}]
            ) as stack:
                mine, others = first.issuer.token("EdDSA"), other.token("EdDSA")
                assert (await stack.fetch(protected(mine, "/a/x"))).status == 200
                refusal(await stack.fetch(protected(others, "/a/x")), 401, "issuer_unknown")
                assert (await stack.fetch(protected(others, "/b"))).status == 200
                await first.issuer.drop_connections()
                await other.drop_connections()


# Rotations and outages of the issuer


async def test_a_new_key_is_fetched_with_its_first_token() -> None:
    async with model() as stack:
        old = stack.alice
        assert (await stack.fetch(protected(old))).status == 200
        stack.issuer.rotate()
        assert (await stack.fetch(protected(stack.token()))).status == 200
        assert stack.issuer.jwks_fetches == 2
        refusal(await stack.fetch(protected(old)), 401, "key_unknown")
        assert stack.issuer.jwks_fetches == 2


async def test_tokens_with_unknown_keys_cause_one_fetch() -> None:
    async with model() as stack:
        for token in ("a.b.c", stack.token(header={"alg": "none"}), stack.token(iss="https://elsewhere.test"), None):
            await stack.fetch(protected(token))
        first, *others = [stack.token(header={"kid": f"unknown-{number}"}) for number in range(20)]
        refusal(await stack.fetch(protected(first)), 401, "key_unknown")
        for token in others:  # within the cooldown the sidecar cannot know whether the issuer has the key
            refusal(await stack.fetch(protected(token)), 503, "jwks_unavailable")
        assert stack.issuer.jwks_fetches == 2


async def unavailable(stack: Stack, token: str) -> None:
    answer = await stack.fetch(protected(token))
    refusal(answer, 503, "jwks_unavailable")
    assert int(answer.get("retry-after") or 0) >= 1
    assert answer.get("www-authenticate") is None


FAULTS = {
    "500": Answer(500),
    "204": Answer(204),
    "HTML": Answer.html(),
    "no JSON": Answer(200, b"{"),
    "no keys": Answer.json({"keys": []}),
    "an error": Answer.json({"error": "not found"}),
    "half a body": Answer(200, b'{"keys":[', cut=5),
    "a redirect to another host": Answer.redirect("http://elsewhere.test/"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_bad_answer_of_the_issuer_is_a_503_without_keys(fault: Answer) -> None:
    issuer = gateway()
    issuer.on_jwks = fault
    async with running(issuer=issuer, backend=backend(), routes=ROUTES) as stack:
        await unavailable(stack, stack.alice)
        assert (await stack.fetch(protected(None, "/public/x"))).status == 200
        refusal(await stack.fetch(protected()), 401, "token_missing")
        refusal(await stack.fetch(protected("a.b.c")), 401, "token_malformed")
        assert (await stack.health("/readyz")).status == 503
        issuer.on_jwks = None
        stack.sidecar.assembly.sources["main"].refresh()
        assert (await stack.fetch(protected(stack.alice))).status == 200
        assert (await stack.health("/readyz")).status == 200


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_bad_answer_of_the_issuer_does_not_affect_known_keys(fault: Answer) -> None:
    async with model() as stack:
        assert (await stack.fetch(protected(stack.alice))).status == 200
        stack.issuer.on_jwks = fault
        await unavailable(stack, stack.token(header={"kid": "unknown"}))
        assert stack.issuer.jwks_fetches == 2
        for token in (stack.alice, stack.token(sub="bob")):
            assert (await stack.fetch(protected(token))).status == 200


async def test_an_issuer_that_is_down_is_a_503_only_without_keys() -> None:
    async with gateway() as issuer:
        await issuer.go_down()
        settings: dict[str, Any] = {"issuers": {"main": {"issuer": issuer.issuer, "audiences": ["my-api"]}}}
        async with running(backend=backend(), **settings) as stack:
            good = issuer.token("EdDSA")
            await unavailable(stack, good)
            await issuer.come_back()
            stack.sidecar.assembly.sources["main"].refresh()
            assert (await stack.fetch(protected(good))).status == 200
            await issuer.go_down()
            assert (await stack.fetch(protected(good))).status == 200
            assert (await stack.fetch(protected(issuer.token("EdDSA", sub="bob")))).status == 200


async def test_known_keys_are_used_for_max_stale_and_then_503() -> None:
    async with model() as stack:
        assert (await stack.fetch(protected(stack.alice))).status == 200
        stack.issuer.on_jwks = Answer(500)
        for ahead_s, status in ((4190, 200), (20, 503)):  # refresh_interval and max_stale together are 4200 s
            stack.clock.ahead_s += ahead_s
            now = stack.clock.wall()
            assert (await stack.fetch(protected(stack.token(now=now)))).status == status


async def test_a_hanging_issuer_delays_only_requests_that_need_its_keys() -> None:
    async with model() as stack:
        stack.issuer.hang()
        async with stack.client() as waiting:
            await waiting.send(protected(stack.alice))
            await stack.issuer.fetched(1, stack.issuer.discovery_path)
            assert (await stack.fetch(protected(None, "/public/x"))).status == 200
            refusal(await stack.fetch(protected()), 401, "token_missing")
            refusal(await stack.fetch(protected("a.b.c")), 401, "token_malformed")
            stack.issuer.release()
            assert (await waiting.response()).status == 200


async def test_waiting_requests_share_one_fetch_that_survives_the_first_client() -> None:
    async with model() as stack:
        stack.issuer.hang()
        async with stack.client() as leaving:
            await leaving.send(protected(stack.alice))
            fetches = [asyncio.create_task(stack.fetch(protected(stack.alice))) for _ in range(20)]
            await stack.issuer.fetched(1, stack.issuer.discovery_path)
            async with patience("all requests to wait"):
                while stack.sidecar.live.resources.requests_in_flight < 21:
                    await asyncio.sleep(0)
        stack.issuer.release()
        assert [(await one).status for one in fetches] == [200] * 20
        assert (stack.issuer.discovery_fetches, stack.issuer.jwks_fetches) == (1, 1)


async def test_the_issuer_gets_no_credentials_or_cookies_of_a_client() -> None:
    async with model() as stack:
        await stack.fetch(protected(stack.alice, "/protected", ("Cookie", "a=b")))
        for asked in stack.issuer.requests:
            assert (asked.get("authorization"), asked.get("cookie")) == (None, None)


async def test_a_health_check_of_the_model_scenario_needs_no_token() -> None:
    async with model() as stack:
        assert (await fetch(stack.sidecar.health_address, request("GET", "/livez"))).status == 200
