"""Operators see what a refused token held and what was expected; logs and clients do not.

The public reports behind it: people search for hours why a token is refused, since nothing says which audience, issuer or key
came.
"""

import json
from typing import Any

import pytest

from sidecar.app.explain.explanation import explain
from sidecar.app.explain.question import Question
from tests.app.test_admin_answers import get
from tests.peers.issuer import Answer
from tests.peers.raw import Response
from tests.peers.tokens import public_jwk
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

ISSUERS = {
    "main": {"issuer": "https://idp.test/", "jwks_inline": {"keys": [public_jwk("EdDSA")]}, "audiences": ["api", "web"]}
}
IDP = "https://idp.test/"
KEY = "ed25519-a"
ALGORITHMS = "one of: ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512"
LONG = f"{'k' * 100}... (300 characters)"
ESCAPE = "\x1b[31m\u202e\r\nGET / "


def token_of(stack: Stack, **over: Any) -> str:
    return stack.token(**{"iss": IDP, "aud": "api", **over})


async def kept_of(stack: Stack, token: str) -> tuple[Response, dict[str, Any]]:
    """The answer to a request with this token, and its entry in /rejections."""
    answer = await stack.fetch(request("GET", "/x", token=token))
    kept = await get(stack, f"/rejections/{answer.json()['request_id']}")
    stack.secrets.told(kept.body.decode())
    return answer, kept.json()


@pytest.mark.parametrize(
    ("over", "code", "expected", "found", "issuer", "kid"),
    [
        pytest.param(
            {"iss": "https://idp.test"}, "issuer_unknown", f"one of: {IDP}",
            "https://idp.test, which has a slash too few at its end", "none", None, id="iss without its trailing slash"
        ),
        pytest.param({"iss": ["a"]}, "issuer_unknown", f"one of: {IDP}", '["a"]', "none", None, id="iss that is a list"),
        pytest.param(
            {"iss": ESCAPE}, "issuer_unknown", f"one of: {IDP}", json.dumps(ESCAPE), "none", None, id="iss with escapes"
        ),
        pytest.param(
            {"iss": "k" * 300}, "issuer_unknown", f"one of: {IDP}", LONG, "none", None, id="long iss"
        ),
        pytest.param(
            {"aud": "someone-else"}, "audience_mismatch", "one of: api, web", "someone-else", "main", KEY, id="another audience"
        ),
        pytest.param({"aud": []}, "audience_mismatch", "one of: api, web", "no aud", "main", KEY, id="no audience"),
        pytest.param(
            {"header": {"kid": "k" * 300}}, "key_unknown", f"kid {LONG} for EdDSA", f"main has {KEY}", "none",
            LONG, id="another kid",
        ),
        pytest.param(
            {"header": {"kid": "a\nb"}}, "key_unknown", 'kid "a\\nb" for EdDSA', f"main has {KEY}", "none", '"a\\nb"', id="kid"
        ),
        pytest.param(
            {"header": {"typ": "logout"}}, "token_malformed", "one of: absent, at+jwt, jwt", "logout", "none", None, id="typ"
        ),
        pytest.param(
            {"header": {"alg": "HS256"}}, "algorithm_not_allowed",
            ALGORITHMS, "HS256", "none", None, id="alg",
        ),
        pytest.param({"exp": 1}, "token_expired", None, None, "main", KEY, id="expired"),
        pytest.param({"nbf": 4_000_000_000}, "token_not_yet_valid", None, None, "main", KEY, id="not yet valid"),
        pytest.param({"sub": 5}, "claim_invalid", None, None, "main", KEY, id="a sub that is a number"),
    ],
)  # fmt: skip
async def test_a_refusal_holds_the_expected_and_the_found_value(
    over: dict[str, Any],
    code: str,
    expected: str | None,
    found: str | None,
    issuer: str,
    kid: str | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with running(issuers=ISSUERS, access_log="json") as stack:
        token = token_of(stack, **over)
        answer, kept = await kept_of(stack, token)
        assert answer.json()["code"] == code
        assert (kept["code"], kept["expected"], kept["found"]) == (code, expected, found)
        assert (kept["issuer"], kept["kid"], kept["route"]) == (issuer, kid, "(default)")
        assert stack.sidecar.assembly.handler.telemetry.decisions[issuer, "deny", code] == 1
        if expected is not None:
            explained = str(await explain(stack.sidecar.assembly, Question("GET", "/x", token.encode()), stack.clock))
            assert f"{code}: expected {expected}; found: {found}\n" in explained
        stack.sidecar.assembly.handler.telemetry.access_log.flush()  # type: ignore[union-attr]
    out, err = capfd.readouterr()
    line = next(line for line in map(json.loads, out.splitlines()) if line["url.path"] == "/x")
    assert (line["auth.reason"], line["http.route"]) == (code, "(default)")
    assert (line.get("auth.issuer", "none"), line.get("auth.kid")) == (issuer, kid)
    for text in (out, err, answer.raw.decode()):  # logs and clients see neither
        assert not expected or expected not in text
        assert not found or found == "no aud" or found not in text


RULES = [
    {"path": "/scopes", "require": {"scopes": {"all": ["orders:read"], "any": ["a", "b"]}}},
    {"path": "/roles", "require": {"roles": ["editor"]}},
    {"path": "/claims", "require": {"claims": {"tenant": {"equals": "acme"}}}},
]
SCOPES = "all of: orders:read, and one of: a, b"


@pytest.mark.parametrize(
    ("path", "over", "expected", "found"),
    [
        pytest.param("/scopes", {"scope": "Orders:read b"}, SCOPES, "Orders:read, b", id="a scope in another letter case"),
        pytest.param("/scopes", {"scope": ""}, SCOPES, "none", id="no scope"),
        pytest.param("/scopes", {"scp": ["a\n\x1b"]}, SCOPES, '"a\\n\\u001b"', id="a scope with escapes"),
        pytest.param(
            "/scopes", {"scp": [f"s{n:02}" for n in range(30)]}, SCOPES,
            ", ".join(f"s{n:02}" for n in range(20)) + ", and 10 more", id="many scopes"
        ),
        pytest.param("/roles", {"roles": ["Editor"]}, "all of: editor", "Editor", id="a role in another letter case"),
        pytest.param("/claims", {}, '{"equals": "acme"}', "absent", id="no claim"),
        pytest.param("/claims", {"tenant": "their own"}, '{"equals": "acme"}', "another value", id="another value of the claim"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("of_the_issuer", [False, True])
async def test_a_rule_that_refuses_a_verified_token_reports_the_required_and_the_found_value(
    path: str, over: dict[str, Any], expected: str, found: str, of_the_issuer: bool
) -> None:
    rule = next(rule for rule in RULES if rule["path"] == path)
    issuers = {"main": {**ISSUERS["main"], "require": rule["require"]}} if of_the_issuer else ISSUERS
    async with running(issuers=issuers, routes=[] if of_the_issuer else [{**rule, "path": "/x"}]) as stack:
        answer, kept = await kept_of(stack, token_of(stack, **{"scope": None, **over}))
        assert (answer.status, kept["expected"], kept["found"]) == (403, expected, found)
        assert "their own" not in str(kept)
        assert found not in answer.raw.decode()


TENANT, OTHER = "72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"iss": f"https://idp.test/{TENANT}/v2.0"}, f"https://idp.test/{TENANT}/v2.0, and tid absent"),
        ({"iss": f"https://idp.test/{TENANT}/v2.0", "tid": OTHER}, f"https://idp.test/{TENANT}/v2.0, and tid {OTHER}"),
        (
            {"iss": f"https://idp.test/{TENANT}/v2.0/", "tid": TENANT},
            f"https://idp.test/{TENANT}/v2.0/, which has a slash too many at its end",
        ),
        ({"iss": "https://idp.test//v2.0", "tid": ""}, "https://idp.test//v2.0"),
    ],
)
async def test_the_tenant_of_a_refused_token_is_reported(claims: dict[str, Any], found: str) -> None:
    issuers = {"main": {**ISSUERS["main"], "issuer": "https://idp.test/{tid}/v2.0"}}
    async with running(issuers=issuers) as stack:
        _, kept = await kept_of(stack, token_of(stack, **claims))
        assert (kept["code"], kept["found"]) == ("issuer_unknown", found)


@pytest.mark.parametrize(
    ("token", "found"),
    [
        ("0123456789abcdef", "an opaque token, which only its issuer can read"),
        ("ya29.a0Af_opaque", "an opaque token, which only its issuer can read"),
        ("a.b.c", None),
        ("a.b.c.d", None),
    ],
)
async def test_an_opaque_token_is_reported_as_one(token: str, found: str | None) -> None:
    async with running(issuers=ISSUERS) as stack:
        _, kept = await kept_of(stack, token)
        assert (kept["code"], kept["expected"], kept["found"]) == ("token_malformed", None, found)


async def test_a_skipped_key_is_reported_when_a_token_names_it() -> None:
    keys = [public_jwk("EdDSA"), {**public_jwk("ES256"), "alg": "ES256K"}]
    async with running(issuers={"main": {**ISSUERS["main"], "jwks_inline": {"keys": keys}}}) as stack:
        _, kept = await kept_of(stack, token_of(stack, header={"kid": "p-256-a"}))
        assert kept["found"] == (
            f'main has {KEY}; left out: key 1 (kid "p-256-a", alg "ES256K"): it fits none of the allowed algorithms'
        )


async def test_an_issuers_outage_is_reported_with_the_failure_of_its_server() -> None:
    async with running() as stack:
        stack.issuer.on_jwks = Answer(500)
        _, kept = await kept_of(stack, stack.alice)
        assert (kept["code"], kept["kid"], kept["issuer"]) == ("jwks_unavailable", KEY, "none")
        assert kept["found"].endswith("status 500")


async def test_a_remembered_expired_token_is_reported_like_a_new_one() -> None:
    async with running(issuers=ISSUERS) as stack:
        token = token_of(stack, exp=1)
        for _ in range(2):
            _, kept = await kept_of(stack, token)
            assert (kept["code"], kept["issuer"], kept["kid"]) == ("token_expired", "main", KEY)


async def test_text_that_looks_like_a_token_in_a_kid_or_an_issuer_is_masked() -> None:
    async with running(issuers=ISSUERS) as stack:
        inner = token_of(stack)
        key = f"jsk_{'0' * 16}_{'a' * 43}"
        for over in (
            {"iss": inner},
            {"header": {"kid": inner}},
            {"header": {"kid": key}},
            {"iss": [inner]},
            {"aud": inner},
        ):
            _, kept = await kept_of(stack, token_of(stack, **over))
            assert "***" in kept["found"] + kept["expected"]
            assert key not in str(kept)


async def test_a_refusal_before_routing_is_logged_without_a_route(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="json") as stack:
        await stack.fetch(stack.good("GET", "/%zz"))
        stack.sidecar.assembly.handler.telemetry.access_log.flush()  # type: ignore[union-attr]
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (line["http.route"], line["auth.reason"]) == ("(none)", "path_ambiguous")


async def test_a_list_of_many_issuers_is_cut() -> None:
    keys = {"keys": [public_jwk("EdDSA")]}
    many = {
        f"i{number}": {"issuer": f"https://{number}.test/", "jwks_inline": keys, "audiences": ["a"]}
        for number in range(30)
    }
    async with running(issuers=many) as stack:
        _, kept = await kept_of(stack, stack.token(iss="https://x.test/"))
        assert kept["expected"].endswith("https://19.test/, and 10 more")
