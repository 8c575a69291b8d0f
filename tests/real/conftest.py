"""`jwt-sidecar run` as a process of its own, and a client."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.real.process import run

SETTINGS = {
    "listen": "127.0.0.1:0",
    "health": {"listen": "127.0.0.1:0"},
    "admin": {"listen": "127.0.0.1:0"},
    "timeouts": {"drain_delay": "0s"},
}

StartSidecar = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def sidecar(tmp_path: Path) -> StartSidecar:
    """``async with sidecar(issuers=..., upstream=...) as url``: `jwt-sidecar run` with these settings on free ports."""

    def start(**settings: Any) -> AbstractAsyncContextManager[str]:
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(SETTINGS | settings))  # JSON is YAML
        command = str(Path(sys.executable).with_name("jwt-sidecar"))
        return run(command, "run", "-c", str(file), announces=r"listening proxy (\S+).*listening admin \S+\n")

    return start


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that sends what it is given and decodes what it gets."""
    async with aiohttp.ClientSession() as session:
        yield session
