"""The gateway half: an API key or a token becomes a minted token, and attacks are refused."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.explain.explanation import Explanation, explain
from sidecar.app.explain.question import Question
from sidecar.app.server import CannotStart, build
from sidecar.app.startup_summary import summary
from sidecar.cli.dev.command import Embedded, _to_paste
from sidecar.config import Config, parse
from sidecar.gateway.key_ring import TimedKey
from sidecar.gateway.signing_key import SigningKey
from tests.gateway.test_api_keys import refusal
from tests.peers import patience, tokens
from tests.peers.backend import RawBackend, Request
from tests.peers.gateway import AUDIENCE, ISSUER, Keys
from tests.peers.issuer import ScriptedIssuer
from tests.peers.wire import request
from tests.proxy.conftest import Stack, ok, running


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def minted(seen: Request, keys: Keys) -> dict[str, Any]:
    """The claims of the backend's only Authorization, after its signature is verified."""
    assert [name for name, _ in seen.headers if "uthoriz" in name.lower()] == ["Authorization"]
    scheme, _, token = (seen.get("authorization") or "").partition(" ")
    assert scheme == "Bearer"
    tokens.verify(token, keys.keys[0].key.jwk, keys.keys[0].key.alg)
    return tokens.payload_of(token)


def gateway(keys: Keys, backend: RawBackend, **more: Any) -> Any:
    """A gateway in front of this backend; the stack's own backend is not used."""
    return running(**{"issuers": None, **keys.settings(backend.url, **more)})


async def test_a_key_is_exchanged_for_a_short_token(keys: Keys) -> None:
    alice = keys.new("alice", "read", tenant="acme")
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        stack.secrets.tokens.add(alice)
        assert (await stack.fetch(request("GET", "/orders", token=alice))).status == 200
        seen = await backend.received()
        claims = minted(seen, keys)
        assert claims["exp"] - claims["iat"] == 300
        expected = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "scope": "read", "tenant": "acme"}
        assert claims == expected | {"iat": claims["iat"], "exp": claims["exp"]}
        assert abs(claims["iat"] - stack.clock.wall()) < 60
        assert alice[21:].encode() not in seen.head


@pytest.mark.parametrize("alg", ["EdDSA", "RS256", "ES256"])
async def test_each_upstream_has_its_configured_algorithm(keys: Keys, alg: str) -> None:
    alice = keys.new("alice")
    keys.sign_with(TimedKey(SigningKey.generate(alg)))
    async with RawBackend(ok) as backend:
        upstreams = {"main": {"url": backend.url, "token": {"audience": "x", "ttl": "30s", "algorithm": alg}}}
        async with gateway(keys, backend, upstreams=upstreams) as stack:
            await stack.fetch(request("GET", "/", token=alice))
            claims = minted(await backend.received(), keys)
            assert (claims["aud"], claims["exp"] - claims["iat"]) == ("x", 30)


async def test_a_burst_of_one_identity_mints_one_token(keys: Keys) -> None:
    alice = keys.new("alice")
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        answers = await asyncio.gather(*(stack.fetch(request("GET", "/", token=alice)) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert len({seen.get("authorization") for seen in backend.requests}) == 1
        assert stack.sidecar.live.telemetry.minted == {AUDIENCE: 1}


def exchange(keys: Keys, backend: RawBackend, **more: Any) -> Any:
    """The same, with tokens of an issuer in place of API keys."""
    return running(**keys.settings(backend.url, **{"api_keys": None, "routes": None, **more}))


async def test_a_verified_token_is_exchanged_for_a_short_one(keys: Keys) -> None:
    async with RawBackend(ok) as backend, exchange(keys, backend) as stack:
        assert (await stack.fetch(stack.good())).status == 200
        claims = minted(await backend.received(), keys)
        assert (claims["sub"], claims["aud"], claims["iss"]) == ("alice", AUDIENCE, ISSUER)
        assert claims["original_iss"] == stack.issuer.issuer
        assert stack.sidecar.assembly.handler.authentication.verifier.cache.bytes > 1800, (
            "the size of the minted token is counted too"
        )
        assert claims["exp"] <= tokens.payload_of(stack.alice)["exp"]
        short = stack.token(sub="bob", exp=int(stack.clock.wall()) + 20)
        await stack.fetch(request("GET", "/", token=short))
        assert minted(await backend.received(2), keys)["exp"] == tokens.payload_of(short)["exp"]


async def test_a_burst_that_waits_for_the_issuers_keys_mints_one_token(keys: Keys) -> None:
    issuer = ScriptedIssuer(algs=["EdDSA"])
    issuer.hang()
    async with RawBackend(ok) as backend, exchange(keys, backend, issuer=issuer) as stack:
        burst = [asyncio.create_task(stack.fetch(stack.good())) for _ in range(20)]
        async with patience("all requests to wait"):
            while stack.sidecar.assembly.handler.resources.requests_in_flight < len(burst):
                await asyncio.sleep(0)
        issuer.release()
        assert {answer.status for answer in await asyncio.gather(*burst)} == {200}
        assert stack.sidecar.live.telemetry.minted == {AUDIENCE: 1}


# Attacks


@pytest.mark.parametrize("token_header", ["Authorization", "X-Token"])
async def test_a_clients_authorization_never_reaches_the_backend_with_the_minted_token(
    keys: Keys, token_header: str
) -> None:
    alice = keys.new("alice")
    api_keys = {"file": str(keys.api_keys), "header": "X-Api-Key"}
    routes = [{"path": "/open/*", "auth": "none"}, {"path": "/maybe/*", "auth": "api_key", "mode": "report"}]
    routes.append({"path": "/*", "auth": "api_key"})
    own = [("Authorization", "Bearer a.b.c"), ("authorization", "Basic YTpi"), ("Proxy-Authorization", "Basic YTpi")]
    own.append(("Authorization_", "x"))
    settings = {"api_keys": api_keys, "routes": routes, "token_from": [{"header": token_header}]}
    async with RawBackend(ok) as backend, gateway(keys, backend, **settings) as stack:
        await stack.fetch(request("GET", "/", headers=[("X-Api-Key", alice), *own]))
        assert minted(await backend.received(), keys)["sub"] == "alice"
        for number, target in enumerate(("/open/x", "/maybe/x"), 2):
            assert (await stack.fetch(request("GET", target, headers=own))).status == 200
            seen = await backend.received(number)
            assert b"uthorization" not in seen.head
            assert seen.get("x-jwt-status") == ("anonymous" if target == "/open/x" else "report")


async def test_requests_that_a_rule_would_refuse_get_no_minted_token(keys: Keys) -> None:
    alice = keys.new("alice", "read")
    routes = [{"path": "/*", "auth": "api_key", "mode": "report", "require": {"scopes": ["admin"]}}]
    async with RawBackend(ok) as backend, gateway(keys, backend, routes=routes) as stack:
        assert (await stack.fetch(request("GET", "/", token=alice))).status == 200
        seen = await backend.received()
        assert (seen.get("x-jwt-status"), seen.get("authorization")) == ("report", None)


async def test_each_upstream_gets_only_its_own_token(keys: Keys) -> None:
    alice = keys.new("alice")
    async with RawBackend(ok) as main, RawBackend(ok) as plain, RawBackend(ok) as other:
        upstreams = {
            "default": {"url": main.url, "token": {"audience": "main"}},
            "plain": {"url": plain.url},
            "other": {"url": other.url, "token": {"audience": "other"}},
        }
        routes = [
            {"path": f"/{name}/*", "auth": "api_key", "upstream": name} for name in ("plain", "other")
        ]  # fmt: skip
        routes.append({"path": "/*", "auth": "api_key", "upstream": "default"})
        async with gateway(keys, main, upstreams=upstreams, routes=routes) as stack:
            for target in ("/", "/plain/x", "/other/x"):
                assert (await stack.fetch(request("GET", target, token=alice))).status == 200
            assert minted(await main.received(), keys)["aud"] == "main"
            assert minted(await other.received(), keys)["aud"] == "other"
            assert (await plain.received()).get("authorization") is None


async def test_a_disabled_key_gets_no_reused_token(keys: Keys) -> None:
    alice = keys.new("alice")
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        await stack.fetch(request("GET", "/", token=alice))
        keys.change(alice, enabled=False)
        stack.sidecar.assembly.gateway.api_keys.file.look()
        refusal(await stack.fetch(request("GET", "/", token=alice)), 401, "api_key_disabled")
        assert len(backend.requests) == 1


async def test_a_changed_entry_changes_the_rights_of_its_key(keys: Keys) -> None:
    alice = keys.new("alice", "read write")
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        await stack.fetch(request("GET", "/", token=alice))
        keys.change(alice, scopes=("read",))
        stack.sidecar.assembly.gateway.api_keys.file.look()
        await stack.fetch(request("GET", "/", token=alice))
        assert [minted(seen, keys)["scope"] for seen in backend.requests] == ["read write", "read"]


async def test_a_minted_token_is_not_accepted_again(keys: Keys) -> None:
    alice = keys.new("alice")
    async with RawBackend(ok) as backend:
        settings = keys.settings(backend.url, routes=[{"path": "/keys/*", "auth": "api_key"}])
        async with running(**settings) as stack:
            await stack.fetch(request("GET", "/keys/x", token=alice))
            ours = (await backend.received()).get("authorization")
            for target, code in (("/", "issuer_unknown"), ("/keys/x", "api_key_unknown")):
                refusal(await stack.fetch(request("GET", target, headers=[("Authorization", ours or "")])), 401, code)


async def test_without_a_signing_key_the_backend_gets_no_request(keys: Keys) -> None:
    alice = keys.new("alice")
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        keys.sign_with()
        stack.sidecar.assembly.gateway.key_ring.look()
        answer = await stack.fetch(request("GET", "/", token=alice))
        refusal(answer, 503, "signing_unavailable")
        assert answer.get("retry-after") == "60"
        assert answer.get("www-authenticate") is None
        assert backend.requests == []


@pytest.mark.parametrize("file", ["api_keys", "signing"])
@pytest.mark.parametrize("content", [None, "", "{}"])
async def test_the_sidecar_does_not_start_with_an_invalid_file_of_keys(
    keys: Keys, file: str, content: str | None
) -> None:
    path: Path = getattr(keys, file)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(CannotStart) as caught:
        build(stack_config(keys))
    assert str(caught.value).startswith(f"{path}: ")


async def test_the_sidecar_does_not_start_without_a_key_for_a_used_algorithm(keys: Keys) -> None:
    keys.sign_with(TimedKey(SigningKey.generate("ES256")))
    with pytest.raises(CannotStart) as caught:
        build(stack_config(keys))
    cure = "jwt-sidecar keys rotate --algorithm EdDSA makes one"
    assert str(caught.value) == f"{keys.signing}: no key signs EdDSA now; {cure}"


def stack_config(keys: Keys) -> Config:
    settings = {name: value for name, value in keys.settings("http://127.0.0.1:9").items() if value is not None}
    return parse(json.dumps(settings))


async def test_metrics_count_keys_and_minted_tokens(keys: Keys) -> None:
    alice = keys.new("alice")
    keys.new("bob", expires=1.0)
    keys.new("carl", enabled=False)
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        now = stack.clock.wall()
        keys.sign_with(
            keys.keys[0]._replace(publish_from=now - 100, sign_from=now - 100), TimedKey(SigningKey.generate("ES256"))
        )
        stack.sidecar.assembly.gateway.key_ring.look()
        for _ in range(2):
            await stack.fetch(request("GET", "/", token=alice))
        keys.api_keys.write_text("")
        stack.sidecar.assembly.gateway.api_keys.file.look()
        stack.secrets.errors.clear()
        told = (await stack.health("/metrics")).body.decode()
        assert f'jwt_sidecar_minted_tokens_total{{audience="{AUDIENCE}"}} 1.0' in told
        assert [f'jwt_sidecar_api_keys{{state="{state}"}} 1.0' in told for state in ("on", "expired", "disabled")] == [
            True
        ] * 3
        (age,) = re.findall(r'jwt_sidecar_signing_key_age_seconds\{alg="EdDSA"\} (\S+)', told)
        assert 100 <= float(age) < 160
        assert 'jwt_sidecar_key_file_good{file="api-keys.json"} 0.0' in told
        assert 'jwt_sidecar_key_file_good{file="signing-keys.json"} 1.0' in told
        assert 'jwt_sidecar_auth_total{issuer="api_keys",reason="allowed",result="allow"} 2.0' in told


# `explain`


async def told(stack: Stack, path: str, key: str | None) -> Explanation:
    question = Question("GET", path, None if key is None else key.encode(), "sidecar.test")
    return await explain(stack.sidecar.assembly, question, stack.clock)


async def test_explain_shows_the_holder_and_the_head_but_no_secret(keys: Keys) -> None:
    alice = keys.new("alice", "read")
    routes = [
        {"path": "/admin/*", "auth": "api_key", "require": {"scopes": ["admin"]}},
        {"path": "/*", "auth": "api_key"},
    ]
    for api_keys in ({"file": str(keys.api_keys)}, {"file": str(keys.api_keys), "header": "X-Api-Key"}):
        async with RawBackend(ok) as backend, gateway(keys, backend, routes=routes, api_keys=api_keys) as stack:
            good = await told(stack, "/orders", alice)
            assert good.rejection is None
            assert f"ok    api key     {alice[4:20]} of alice" in good.lines
            assert "  Authorization: Bearer ***" in good.lines
            bad = await told(stack, "/admin/x", alice)
            assert bad.lines[-1] == "rejected: 403 scope_insufficient: The token lacks a required scope."
            assert alice[21:] not in f"{good}{bad}"


async def test_explain_says_why_a_key_is_refused(keys: Keys) -> None:
    off, ended = keys.new("alice", enabled=False), keys.new("bob", expires=1.0)
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        for key, code in ((off, "disabled"), (ended, "expired"), ("jsk_x", "unknown")):
            explanation = await told(stack, "/", key)
            answer = await stack.fetch(request("GET", "/", token=key))
            refused = answer.json()
            assert refused["code"] == f"api_key_{code}"
            assert explanation.lines[-2:] == [
                f"FAIL  api key     {refused['code']}: {refused['details']}",
                f"rejected: 401 {refused['code']}: {refused['details']}",
            ]
        assert (await told(stack, "/", None)).lines[-2] == "FAIL  api key     token_missing: No token provided"


async def test_explain_shows_refusals_after_the_rules(keys: Keys) -> None:
    alice = keys.new("alice")
    async with RawBackend(ok) as backend, gateway(keys, backend) as stack:
        assert "the sidecar's own page (issuer)" in str(await told(stack, "/__gw/issuer/.well-known/jwks.json", None))
        explanation = await told(stack, f"/?key={alice}", alice)
        assert explanation.lines[-1].startswith(
            "rejected: 400 request_malformed: The request has an API key in a place"
        )
        assert alice not in str(explanation)
        keys.sign_with()
        stack.sidecar.assembly.gateway.key_ring.look()
        assert (await told(stack, "/", alice)).lines[-1].startswith("rejected: 503 signing_unavailable")


def test_the_summary_lists_routes_with_api_keys_and_minted_tokens(keys: Keys) -> None:
    config = stack_config(keys)
    assert list(summary(config)) == [
        f"own issuer: {ISSUER}, signs with {keys.signing}",
        "for the holders of API keys: /*",
        "closed, since there is no issuer: everything else",
        f"upstream main: http://127.0.0.1:9, with a minted token for {AUDIENCE}",
    ]


async def test_dev_prints_the_command_that_makes_a_key(keys: Keys) -> None:
    config = stack_config(keys)
    assert f"jwt-sidecar keys new {keys.api_keys} NAME" in _to_paste(config, Embedded(), "http://127.0.0.1:8080")


async def test_forward_token_does_not_forward_a_key(keys: Keys) -> None:
    alice = keys.new("alice")
    routes = [{"path": "/keys/*", "auth": "api_key"}]
    async with running(**keys.settings(routes=routes, forward_token=True)) as stack:
        assert (await stack.fetch(request("GET", "/keys/x", token=alice))).status == 200
        assert (await stack.fetch(stack.good())).status == 200
        assert [seen.get("authorization") for seen in stack.backend.requests] == [None, f"Bearer {stack.alice}"]
