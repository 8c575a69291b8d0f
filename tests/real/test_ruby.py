"""The model scenario with a Ruby backend: Puma and Rack read the verified claims behind the sidecar."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import RawTestServer

from sidecar.cli.dev.issuer import Issuer, answer_for
from sidecar.common.encoding import base64url
from tests.conftest import Need
from tests.real.conftest import StartSidecar
from tests.real.process import run

RUBY = Path(__file__).with_name("ruby")
NAME = "Jörg 100% + Ä,漢字 "  # a space at the end, a percent sign, and a plus sign that must not become a space


@pytest.fixture
async def backend(need: Need) -> AsyncIterator[str]:
    """The address of the Ruby backend."""
    command = [need("puma"), "--bind", "tcp://127.0.0.1:0", "--threads", "1:2", str(RUBY / "config.ru")]
    async with run(*command, announces=r"Listening on (http://\S+)\n") as url:
        yield url


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer with a path, and its keys at `{issuer}/.well-known/jwks.json`, like Zuplo's."""
    async with RawTestServer(lambda request: answer(request)) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.port}/__zuplo/issuer", audience="my-api")
        answer = answer_for([issuer])
        yield issuer


@pytest.fixture
async def url(backend: str, issuer: Issuer, sidecar: StartSidecar) -> AsyncIterator[str]:
    settings = {
        "issuers": {"zuplo": {"issuer": issuer.issuer, "audiences": ["my-api"]}},
        "identity_headers": {"X-JWT-Sub": "sub", "X-JWT-Name": "name"},
        "routes": [{"path": "/public/*", "auth": "none"}],
        "upstream": backend,
    }
    async with sidecar(**settings) as url:
        yield url


async def get(client: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    async with client.get(url, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("alg", ["EdDSA", "RS256"])
async def test_rack_reads_the_verified_claims(
    url: str, issuer: Issuer, client: aiohttp.ClientSession, alg: str
) -> None:
    token = issuer.mint(alg, sub="user-1", name=NAME)

    status, body = await get(client, f"{url}/protected", Authorization=f"Bearer {token}")

    assert (status, body["message"]) == (200, "Access granted")
    user = body["user"]
    assert (user["sub"], user["name"], user["claims"]["name"]) == ("user-1", NAME, NAME)


async def test_a_refusal_equals_that_of_the_replaced_backend(
    url: str, issuer: Issuer, client: aiohttp.ClientSession
) -> None:
    status, body = await get(client, f"{url}/protected")
    assert (status, body["error"]) == (401, "No token provided")

    status, body = await get(client, f"{url}/protected", Authorization=f"Bearer {issuer.mint('EdDSA', -3600)}")
    assert (status, body["error"], body["code"]) == (401, "Invalid token", "token_expired")
    assert body["details"]


@pytest.mark.parametrize("dash", ["-", "_"])  # Puma folds `_` into `-`
async def test_rack_never_sees_a_spoofed_identity_header(
    url: str, backend: str, issuer: Issuer, client: aiohttp.ClientSession, dash: str
) -> None:
    evil = {"Status": "verified", "Sub": "evil", "Name": "evil", "Claims": base64url(b'{"sub":"evil"}')}
    spoofed = {f"X{dash}JWT{dash}{name}": value for name, value in evil.items()}
    token = issuer.mint(
        "EdDSA", sub="user-1"
    )  # without a name the sidecar sets no header that could replace the spoofed one

    _, past_the_sidecar = await get(client, f"{backend}/protected", **spoofed)
    _, through_the_sidecar = await get(client, f"{url}/protected", Authorization=f"Bearer {token}", **spoofed)

    assert past_the_sidecar["user"] == {"sub": "evil", "name": "evil", "claims": {"sub": "evil"}}
    user = through_the_sidecar["user"]
    assert (user["sub"], user["name"], user["claims"]["sub"]) == ("user-1", None, "user-1")


async def test_the_backend_fails_closed_when_the_sidecar_did_not_verify(
    url: str, backend: str, client: aiohttp.ClientSession
) -> None:
    through_a_public_route = await get(client, f"{url}/public/x", X_JWT_Status="verified", X_JWT_Sub="evil")
    past_the_sidecar = await get(client, f"{backend}/protected")
    assert through_a_public_route == past_the_sidecar == (403, {"error": "Not verified"})
