"""The OpenID-certified `oidc-provider` issues the tokens: RFC 9068 access tokens (`typ: at+jwt`), keys by discovery."""

import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import RawTestServer

from sidecar.cli.dev.backend import Backend
from tests.conftest import Need
from tests.real.conftest import StartSidecar
from tests.real.process import run

IDP = Path(__file__).with_name("idp")
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]


class Idp:
    """The authorization server, for its clients."""

    def __init__(self, issuer: str, client: aiohttp.ClientSession) -> None:
        self.issuer = issuer
        self._client = client

    async def token(self, alg: str) -> str:
        """An access token by the client credentials grant (RFC 6749 section 4.4), signed with `alg`."""
        form = {"grant_type": "client_credentials", "scope": "orders.read", "resource": f"urn:api:{alg}"}
        headers = {"Authorization": aiohttp.encode_basic_auth("orders-client", "test-only")}
        async with self._client.post(f"{self.issuer}/token", data=form, headers=headers) as response:
            assert response.status == 200, await response.text()
            token: str = (await response.json())["access_token"]
            return token

    async def rotate(self) -> None:
        """Replace every key."""
        async with self._client.post(f"{self.issuer}/rotate") as response:
            assert response.status == 204


@pytest.fixture
async def idp(need: Need, client: aiohttp.ClientSession) -> AsyncIterator[Idp]:
    """The authorization server with new keys."""
    node = need("node")
    need(str(IDP / "node_modules"), "npm ci --prefix tests/real/idp")
    async with run(node, str(IDP / "idp.mjs"), announces=r"(http://[\d.:]+)\n") as issuer:
        yield Idp(issuer, client)


@pytest.fixture
async def protected(idp: Idp, sidecar: StartSidecar) -> AsyncIterator[str]:
    """The address of `/protected` behind a sidecar that trusts the authorization server."""
    async with RawTestServer(Backend().answer) as backend:
        issuers = {"idp": {"issuer": idp.issuer, "audiences": ["orders-api"]}}
        async with sidecar(issuers=issuers, upstream=f"http://127.0.0.1:{backend.port}") as url:
            yield f"{url}/protected"


async def get(client: aiohttp.ClientSession, url: str, token: str) -> tuple[int, Any]:
    async with client.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
        return response.status, await response.json()


async def test_access_tokens_of_every_algorithm_verify_with_one_mixed_key_set(
    idp: Idp, protected: str, client: aiohttp.ClientSession
) -> None:
    for alg in ALGORITHMS:
        token = await idp.token(alg)
        header = json.loads(urlsafe_b64decode(token.split(".")[0] + "=="))
        assert (header["alg"], header["typ"]) == (alg, "at+jwt")

        status, body = await get(client, protected, token)

        assert status == 200, body
        claims = body["user"]
        assert (claims["iss"], claims["sub"], claims["aud"]) == (idp.issuer, "orders-client", "orders-api")
        assert (claims["name"], claims["tenant"]) == ("Jörg", {"id": 7})


async def test_a_rotation_accepts_new_tokens_and_refuses_remembered_old_ones(
    idp: Idp, protected: str, client: aiohttp.ClientSession
) -> None:
    old = await idp.token("EdDSA")
    assert (await get(client, protected, old))[0] == 200

    await idp.rotate()
    new = await idp.token("EdDSA")

    assert (await get(client, protected, new))[0] == 200
    status, body = await get(client, protected, old)
    assert (status, body["code"]) == (401, "key_unknown")
