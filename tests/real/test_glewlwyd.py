"""Glewlwyd, an authorization server in C with JOSE code of its own, issues the tokens: one issuer for each algorithm."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import RawTestServer
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.process import reserved_port
from sidecar.cli.dev.backend import Backend
from tests.conftest import Need
from tests.peers import patience, tokens
from tests.peers.raw import RawClient
from tests.real.conftest import StartSidecar
from tests.real.process import run

TABLES = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
INSTALL = "apt-get install dbconfig-sqlite3 glewlwyd"
CLIENT, SECRET = "orders-client", "test-only"
KINDS = {"RS256": "rsa", "PS256": "rsa-pss", "ES256": "ecdsa", "EdDSA": "eddsa"}
CONFIG = """
port={port}
bind_address="127.0.0.1"
external_url="http://127.0.0.1:{port}"
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="INFO"
cookie_domain="127.0.0.1"
session_key="session"
session_expiration=3600
admin_scope="g_admin"
profile_scope="g_profile"
admin_session_authentication="cookie"
profile_session_authentication="cookie"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database={{ type="sqlite3"; path="{database}"; }};
"""


class Glewlwyd:
    """The server, for its administrator and its clients."""

    def __init__(self, url: str) -> None:
        self.url = url

    def issuer(self, alg: str) -> str:
        """The `iss` of the issuer that signs with `alg`."""
        return f"{self.url}/{KINDS[alg]}"

    async def prepare(self) -> None:
        """Log in as its administrator; make two scopes, a client, and an issuer for each algorithm."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as admin:
            await self._said(admin, "auth/", {"username": "admin", "password": "password"})
            for scope in ("orders", "stock"):
                await self._said(admin, "scope/", {"name": scope, "password_required": False, "scheme": {}})
            for alg, kind in KINDS.items():
                key = tokens.key(alg).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
                parameters = {
                    "iss": self.issuer(alg),
                    "jwt-type": kind,
                    "jwt-key-size": "256",
                    "key": key,
                    "cert": tokens.public_pem(alg).decode(),
                    "jwks-show": True,
                    "allow-non-oidc": True,
                    "auth-type-client-enabled": True,
                }
                await self._said(admin, "mod/plugin/", {"module": "oidc", "name": kind, "parameters": parameters})
            client = {
                "client_id": CLIENT,
                "password": SECRET,
                "confidential": True,
                "enabled": True,
                "token_endpoint_auth_method": ["client_secret_basic"],
                "authorization_type": ["client_credentials"],
                "scope": ["orders", "stock"],
            }
            await self._said(admin, "client/", client)

    async def _said(self, admin: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
        async with admin.post(f"{self.url}/{path}", json=body) as response:
            assert response.status == 200, (path, await response.text())

    async def token(self, client: aiohttp.ClientSession, alg: str, scope: str = "orders") -> str:
        """An access token by the client credentials grant. Its `aud` is the scope."""
        form = {"grant_type": "client_credentials", "scope": scope}
        headers = {"Authorization": aiohttp.encode_basic_auth(CLIENT, SECRET)}
        async with client.post(f"{self.issuer(alg)}/token", data=form, headers=headers) as response:
            assert response.status == 200, await response.text()
            token: str = (await response.json())["access_token"]
            return token


async def listening(port: int) -> None:
    """It announces its start shortly before it listens."""
    async with patience("Glewlwyd to listen"):
        while True:
            try:
                (await RawClient.connect(("127.0.0.1", port))).abort()
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.fixture
async def glewlwyd(need: Need, tmp_path: Path) -> AsyncIterator[Glewlwyd]:
    program = need("glewlwyd", INSTALL)
    need(TABLES, INSTALL)
    with closing(sqlite3.connect(tmp_path / "database")) as database, database:
        database.executescript(Path(TABLES).read_text())
    with reserved_port() as port:
        (tmp_path / "conf").write_text(CONFIG.format(port=port, database=tmp_path / "database"))
        async with run(program, f"--config-file={tmp_path / 'conf'}", announces=r"Glewlwyd started on port (\d+)"):
            await listening(port)
            server = Glewlwyd(f"http://127.0.0.1:{port}/api")
            await server.prepare()
            yield server


async def test_only_valid_access_tokens_of_glewlwyd_are_accepted(
    glewlwyd: Glewlwyd, sidecar: StartSidecar, client: aiohttp.ClientSession
) -> None:
    issuers = {alg.lower(): {"issuer": glewlwyd.issuer(alg), "audiences": ["orders"]} for alg in KINDS}

    async def get(url: str, token: str) -> tuple[int, Any]:
        async with client.get(f"{url}/protected", headers={"Authorization": f"Bearer {token}"}) as response:
            return response.status, await response.json()

    async with (
        RawTestServer(Backend().answer) as backend,
        sidecar(issuers=issuers, upstream=f"http://127.0.0.1:{backend.port}") as url,
    ):
        for alg in KINDS:
            token = await glewlwyd.token(client, alg)
            header = json.loads(tokens.unb64(token.split(".")[0]))
            assert (header["alg"], header["typ"]) == (alg, "at+jwt")
            status, body = await get(url, token)
            assert status == 200, body
            claims = body["user"]
            assert (claims["iss"], claims["sub"], claims["scope"]) == (glewlwyd.issuer(alg), CLIENT, "orders")

            status, body = await get(url, await glewlwyd.token(client, alg, "stock"))
            assert (status, body["code"]) == (401, "audience_mismatch")
            forged = tokens.sign(tokens.key(alg, "forger"), alg, header, tokens.unb64(token.split(".")[1]))
            status, body = await get(url, forged)
            assert (status, body["code"]) == (401, "signature_invalid")
