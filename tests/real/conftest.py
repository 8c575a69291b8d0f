"""`jwt-sidecar run` as a separate process, an issuer that it trusts, and a client."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.cli.dev.issuer import Issuer
from sidecar.gateway.signing_key import key_set
from tests.real.process import run

SETTINGS = {
    "listen": "127.0.0.1:0",
    "health": {"listen": "127.0.0.1:0"},
    "admin": {"listen": "127.0.0.1:0"},
    "timeouts": {"drain_delay": "0s"},
}

StartSidecar = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> StartSidecar:
    """``async with sidecar(issuers=..., upstream=...) as url``: `jwt-sidecar run` with these settings on free ports."""

    def start(**settings: Any) -> AbstractAsyncContextManager[str]:
        file = tmp_path_factory.mktemp("sidecar") / "config.yaml"
        file.write_text(json.dumps(SETTINGS | settings))  # JSON is YAML
        command = str(Path(sys.executable).with_name("jwt-sidecar"))
        announces = r"listening proxy (\S+).*listening admin \S+\n"
        return run(command, "run", "-c", str(file), announces=announces, never="event=bug")

    return start


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """An issuer whose key set is in a file."""
    return Issuer("https://issuer.test", audience="api")


@pytest.fixture(scope="session")
def behind(sidecar: StartSidecar, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> StartSidecar:
    """``async with behind(upstream=..., ...) as url``: a sidecar that trusts the issuer; `/public/*` needs no token."""
    keys = tmp_path_factory.mktemp("issuer") / "keys.json"
    keys.write_text(json.dumps(key_set(issuer.keys)))
    trusted = {"issuer": issuer.issuer, "audiences": [issuer.audience], "jwks_file": str(keys), "clock_skew": "0s"}

    def start(**settings: Any) -> AbstractAsyncContextManager[str]:
        defaults = {
            "issuers": {"main": trusted},
            "routes": [{"path": "/public/*", "auth": "none"}],
            "access_log": "off",
        }
        return sidecar(**defaults | settings)

    return start


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that sends paths unchanged and decodes bodies."""
    async with aiohttp.ClientSession() as session:
        yield session
