"""The gateway's own issuer: discovery, the key set with caching, and the token endpoint."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from sidecar.common.errors import Reason
from sidecar.gateway.key_ring import TimedKey
from sidecar.gateway.signing_key import SigningKey
from sidecar.http.responses import CONTINUE
from tests.peers import patience, tokens
from tests.peers.clock import EPOCH
from tests.peers.gateway import AUDIENCE, ISSUER, Keys
from tests.peers.raw import Response
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

BASE = "/__gw/issuer"
JWKS, DISCOVERY, TOKEN = f"{BASE}/.well-known/jwks.json", f"{BASE}/.well-known/openid-configuration", f"{BASE}/token"
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@asynccontextmanager
async def issuing(keys: Keys, issuer: str = ISSUER, **more: Any) -> AsyncIterator[Stack]:
    """A gateway with a token endpoint, whose routes refuse every request. Here an answer may hold a token."""
    signing = {"issuer": issuer, "keys_file": str(keys.signing), "token_endpoint": {"audience": AUDIENCE, "ttl": "60s"}}
    settings = keys.settings(signing=signing, routes=[{"path": "/*", "auth": "deny"}])
    async with running(**{"issuers": None, **settings, **more}) as stack:
        stack.secrets.tokens.clear()
        yield stack


# The public pages


async def test_discovery_names_the_key_set_and_the_token_endpoint(keys: Keys) -> None:
    async with issuing(keys) as stack:
        answer = await stack.fetch(request("GET", DISCOVERY))
        assert (answer.status, answer.get("content-type"), answer.get("x-jwt-sidecar")) == (
            200,
            "application/json",
            "issuer",
        )
        assert answer.json() == {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "token_endpoint": f"{ISSUER}/token",
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }
        assert stack.backend.requests == []


async def test_the_key_set_holds_the_currently_published_public_keys(keys: Keys) -> None:
    first, second, gone = (SigningKey.generate(alg) for alg in ("EdDSA", "RS256", "ES256"))
    keys.sign_with(TimedKey(first), TimedKey(second, EPOCH, EPOCH + 1), TimedKey(gone, 0, 0, EPOCH))
    async with issuing(keys) as stack:
        assert (await stack.fetch(request("GET", JWKS))).json() == {"keys": [first.jwk, gone.jwk]}
        stack.clock.ahead_s += EPOCH - stack.clock.wall()
        answer = await stack.fetch(request("GET", JWKS))
        assert answer.json() == {"keys": [first.jwk, second.jwk]}
        assert answer.get("cache-control") == "public, max-age=60"
        assert first.private_jwk()["d"] not in answer.raw.decode()


@pytest.mark.parametrize("page", [JWKS, DISCOVERY])
async def test_a_page_with_a_known_etag_is_a_304(keys: Keys, page: str) -> None:
    async with issuing(keys) as stack, stack.client() as client:
        etag = (await client.request(request("GET", page))).get("etag") or ""
        assert etag.startswith('"')
        for known in (etag, f"W/{etag}", f'"a", {etag}', "*"):
            answer = await client.request(request("GET", page, headers=[("If-None-Match", known)]))
            assert (answer.status, answer.body, answer.get("etag")) == (304, b"", etag)
            assert answer.get("cache-control") == "public, max-age=60"
            assert answer.get("content-length") is None
        answer = await client.request(request("GET", page, headers=[("If-None-Match", '"other"')]))
        assert answer.status == 200
        head = await client.request(request("HEAD", f"{page}?x=1"))
        assert (head.status, head.body, head.get("content-length")) == (200, b"", str(len(answer.body)))


@pytest.mark.parametrize("page", [JWKS, DISCOVERY])
async def test_a_page_of_the_issuer_accepts_only_get_and_head(keys: Keys, page: str) -> None:
    async with issuing(keys) as stack:
        answer = await stack.fetch(request("POST", page, body=b"x"))
        assert (answer.status, answer.json()["code"], answer.get("allow")) == (405, "method_not_allowed", "GET, HEAD")


@pytest.mark.parametrize(
    "target",
    ["/.well-known/jwks.json", f"{JWKS}/", f"{JWKS}x", JWKS.replace("jwks", "%6Awks"), f"/{JWKS}", BASE, f"/x{JWKS}"],
)
async def test_only_the_exact_paths_are_pages(keys: Keys, target: str) -> None:
    async with issuing(keys) as stack:
        assert (await stack.fetch(request("GET", target))).json()["code"] == "route_denied"


async def test_an_issuer_without_a_path_has_its_pages_at_the_root(keys: Keys) -> None:
    for issuer in ("https://gateway.test", "https://gateway.test/"):
        async with issuing(keys, issuer) as stack:
            document = (await stack.fetch(request("GET", "/.well-known/openid-configuration"))).json()
            assert (document["issuer"], document["jwks_uri"]) == (issuer, "https://gateway.test/.well-known/jwks.json")
            assert document["token_endpoint"] == "https://gateway.test/token"
            assert (await stack.fetch(request("GET", "/.well-known/jwks.json"))).status == 200


async def test_the_pages_of_the_issuer_have_their_own_route_in_the_metrics(keys: Keys) -> None:
    async with issuing(keys) as stack:
        await stack.fetch(request("GET", JWKS))
        await stack.fetch(request("POST", TOKEN))
        text = (await stack.health("/metrics")).body.decode()
        assert 'jwt_sidecar_requests_total{code="200",method="GET",route="(issuer)"} 1.0' in text
        assert 'jwt_sidecar_requests_total{code="401",method="POST",route="(token)"} 1.0' in text


async def test_a_page_closes_its_connection_during_a_drain(keys: Keys) -> None:
    async with issuing(keys) as stack:
        assert (await stack.fetch(request("GET", JWKS))).get("connection") is None
        stack.sidecar.live.resources.draining = True
        assert (await stack.fetch(request("GET", JWKS))).get("connection") == "close"


async def test_a_sidecar_accepts_tokens_of_a_gateway_as_its_issuer(keys: Keys) -> None:
    alice = keys.new("alice", "read")
    async with issuing(keys) as asked:
        host, port = asked.sidecar.proxy_address
        issuer = {"issuer": ISSUER, "jwks_uri": f"http://{host}:{port}{JWKS}", "audiences": [AUDIENCE]}
        token = (await ask(asked, alice)).json()["access_token"]
        async with running(issuers={"gateway": issuer}) as stack:
            assert (await stack.fetch(request("GET", "/", token=token))).status == 200
            seen = await stack.backend.received()
            assert (seen.get("x-jwt-sub"), seen.get("x-jwt-iss"), seen.get("x-jwt-scope")) == ("alice", ISSUER, "read")


# The token endpoint


async def ask(stack: Stack, key: str | None, name: str = "alice", form: Any = GRANT, **headers: str) -> Response:
    """Ask for a token with a key as client_secret."""
    sent = [("Content-Type", "application/x-www-form-urlencoded"), *headers.items()]
    if key is not None:
        sent.append(("Authorization", "Basic " + b64encode(f"{quote(name)}:{quote(key)}".encode()).decode()))
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    return await stack.fetch(request("POST", TOKEN, headers=sent, body=body))


async def test_the_holder_of_a_key_gets_a_token(keys: Keys) -> None:
    alice = keys.new("alice", "read write", tenant="acme")
    async with issuing(keys) as stack:
        stack.secrets.tokens.add(alice)
        for answer in (await ask(stack, alice), await ask(stack, None, Authorization=f"Bearer {alice}")):
            assert (answer.status, answer.get("cache-control"), answer.get("pragma")) == (200, "no-store", "no-cache")
            told = answer.json()
            assert told.keys() == {"access_token", "token_type", "expires_in"}
            assert (told["token_type"], 55 <= told["expires_in"] <= 60) == ("Bearer", True)
            tokens.verify(told["access_token"], keys.keys[0].key.jwk, "EdDSA")
            claims = tokens.payload_of(told["access_token"])
            assert (claims["sub"], claims["scope"], claims["tenant"]) == ("alice", "read write", "acme")
            assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == (ISSUER, AUDIENCE, 60)
        assert stack.backend.requests == []


async def test_a_token_can_be_requested_with_fewer_scopes(keys: Keys) -> None:
    alice = keys.new("alice", "read write")
    async with issuing(keys) as stack:
        for wanted in ("read", "write read"):
            told = (await ask(stack, alice, form=GRANT | {"scope": wanted})).json()
            assert tokens.payload_of(told["access_token"])["scope"] == wanted
        told = (await ask(stack, alice)).json()
        assert tokens.payload_of(told["access_token"])["scope"] == "read write"


async def test_the_token_endpoint_reuses_a_token_for_most_of_its_lifetime(keys: Keys) -> None:
    alice = keys.new("alice")
    async with issuing(keys) as stack:
        first = (await ask(stack, alice)).json()
        stack.clock.ahead_s += 30
        again = (await ask(stack, alice)).json()
        assert again["access_token"] == first["access_token"]
        assert 25 <= again["expires_in"] <= 30
        stack.clock.ahead_s += 20
        assert (await ask(stack, alice)).json()["access_token"] != first["access_token"]


GRANTS = "The grant_type must be client_credentials."
OTHERS = "This endpoint gives no tokens for this audience."
LACKS = "The API key lacks a requested scope."
REFUSED = {
    "no client": (None, GRANT, 401, "invalid_client", "token_missing", None),
    "no key": ("nonsense", GRANT, 401, "invalid_client", "api_key_unknown", "The API key is unknown."),
    "other grant": ("alice", {"grant_type": "password"}, 400, "unsupported_grant_type", "request_malformed", GRANTS),
    "no grant": ("alice", {}, 400, "unsupported_grant_type", "request_malformed", GRANTS),
    "other scope": ("alice", GRANT | {"scope": "read admin"}, 400, "invalid_scope", "request_malformed", LACKS),
    "no scope": ("alice", GRANT | {"scope": " "}, 400, "invalid_scope", "request_malformed", LACKS),
    "other resource": ("alice", GRANT | {"resource": "https://x/"}, 400, "invalid_target", "request_malformed", OTHERS),
    "other audience": ("alice", GRANT | {"audience": "payments"}, 400, "invalid_target", "request_malformed", OTHERS),
    "twice": ("alice", b"a=b&a=c", 400, "invalid_request", "request_malformed", "A parameter came twice."),
    "no form": ("alice", b'{"grant_type": "x"}', 400, "invalid_request", "request_malformed", "The body must be a form."),
    "not ASCII": ("alice", b"\xff=\xff", 400, "invalid_request", "request_malformed", "The body must be a form."),
    "large": ("alice", b"x=" + b"x" * 8191, 413, "invalid_request", "body_too_large", Reason.BODY_TOO_LARGE.details),
    "all but large": ("alice", b"x=" + b"x" * 8190, 400, "unsupported_grant_type", "request_malformed", GRANTS),
}  # fmt: skip


@pytest.mark.parametrize(("who", "form", "status", "error", "code", "said"), REFUSED.values(), ids=REFUSED)
async def test_refusals_use_the_error_codes_of_oauth(
    keys: Keys, who: str | None, form: Any, status: int, error: str, code: str, said: str | None
) -> None:
    alice = keys.new("alice", "read")
    async with issuing(keys) as stack:
        answer = await ask(stack, alice if who == "alice" else who, form=form)
        told = answer.json()
        assert (answer.status, told["error"], told["code"]) == (status, error, code)
        assert told.get("error_description") == said
        assert told.keys() <= {"error", "error_description", "code", "request_id"}
        assert answer.get("cache-control") == "no-store"
        assert answer.get("www-authenticate") == ('Basic realm="jwt-sidecar"' if status == 401 else None)


async def test_a_key_is_only_accepted_with_its_holder_as_client_id(keys: Keys) -> None:
    alice, bob = keys.new("alice & co: 100%"), keys.new("bob")
    async with issuing(keys) as stack:
        assert (await ask(stack, alice, "alice & co: 100%")).status == 200
        for key, name in ((alice, "bob"), (bob, "alice & co: 100%"), (bob, "")):
            answer = await ask(stack, key, name)
            assert (answer.status, answer.json()["code"]) == (401, "api_key_unknown")
            assert answer.json()["error_description"] == "The API key does not belong to this client_id."


@pytest.mark.parametrize(
    "credentials", ["Basic", "Basic ", "Basic !", "Basic YQ", "Basic /w==", "Basic YTpiOmM=", "Digest x"]
)
async def test_broken_credentials_are_refused(keys: Keys, credentials: str) -> None:
    async with issuing(keys) as stack:
        answer = await ask(stack, None, Authorization=credentials)
        assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("over", [{"enabled": False}, {"expires": 1.0}])
async def test_an_expired_or_disabled_key_gets_no_token(keys: Keys, over: dict[str, Any]) -> None:
    alice = keys.new("alice")
    keys.change(alice, **over)
    async with issuing(keys) as stack:
        answer = await ask(stack, alice)
        assert (answer.status, answer.json()["code"][:8]) == (401, "api_key_")


async def test_the_token_endpoint_accepts_only_post(keys: Keys) -> None:
    alice = keys.new("alice")
    async with issuing(keys) as stack:
        answer = await stack.fetch(request("GET", f"{TOKEN}?grant_type=client_credentials", token=alice))
        assert (answer.status, answer.get("allow")) == (405, "POST")


async def test_a_slow_form_is_read_until_its_timeout(keys: Keys) -> None:
    alice = keys.new("alice")
    async with issuing(keys) as stack:
        body = urlencode(GRANT).encode()
        head = request("POST", TOKEN, token=alice, body=body, headers=[("Expect", "100-continue")])[: -len(body)]
        async with stack.client() as client:
            await client.send(head)
            assert await client.read(len(CONTINUE)) == CONTINUE
            await client.send(body)
            assert (await client.response()).status == 200
        async with stack.client() as client:
            await client.send(head)
            assert await client.read(len(CONTINUE)) == CONTINUE
            await client.send(body[:5])
            await stack.health("/livez")  # meanwhile the sidecar reads the beginning
            stack.wait(11)  # of 10
            assert await client.closed() == b""


async def test_a_broken_body_of_a_form_is_refused(keys: Keys) -> None:
    alice = keys.new("alice")
    async with issuing(keys) as stack:
        head = request("POST", TOKEN, token=alice, headers=[("Transfer-Encoding", "chunked")])
        async with stack.client() as client:
            await client.send(head + b"5\r\ngrant\r\n")
            async with patience("the sidecar to wait for the form"):
                while not stack.sidecar.live.resources.requests_in_flight:
                    await asyncio.sleep(0)
            await client.send(b"nonsense\r\n")
            answer = await client.response()
        told = answer.json()
        assert (answer.status, told["code"], answer.get("connection")) == (400, "request_malformed", "close")
        assert told["error_description"] == "The request's body is not well-formed."


async def test_a_gateway_without_token_endpoint_refuses_its_path(keys: Keys) -> None:
    alice = keys.new("alice")
    settings = keys.settings("http://127.0.0.1:9", routes=[{"path": "/*", "auth": "deny"}])
    async with running(issuers=None, **settings) as stack:
        assert (await ask(stack, alice)).json()["code"] == "route_denied"
        document = (await stack.fetch(request("GET", DISCOVERY))).json()
        assert "token_endpoint" not in json.dumps(document)
