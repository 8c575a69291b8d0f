"""The gateway profile of deploy/compose.yaml, with its containers as processes: an API key in, verified claims at the backend."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from benchmarks.process import reserved_port
from tests.real.conftest import StartSidecar
from tests.real.process import run

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
JWT_SIDECAR = str(Path(sys.executable).with_name("jwt-sidecar"))


def configuration(name: str, **places: str) -> dict[str, Any]:
    """One of the configurations, with the names that only Compose knows replaced."""
    text = COMPOSE["configs"][name]["content"]
    for theirs, ours in places.items():
        text = text.replace(
            {"gateway": "http://gateway:8080", "orders": "http://orders:8080"}.get(theirs, theirs), ours
        )
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings


async def test_an_api_key_becomes_verified_claims_at_the_backend(
    sidecar: StartSidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [JWT_SIDECAR, "keys"]
    subprocess.run([*keys, "rotate", str(tmp_path / "signing-keys.json")], check=True)
    new = subprocess.run(
        [*keys, "new", str(tmp_path / "api-keys.json"), "alice", "--scope", "read"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    api_key = next(word for word in new.stdout.split() if word.startswith("jsk_"))
    monkeypatch.setenv("PORT", "0")
    backend = [sys.executable, str(DEPLOY / "examples/python/backend.py")]
    with reserved_port() as first, reserved_port() as second:  # the configurations name each other
        orders, gateway = f"127.0.0.1:{first}", f"127.0.0.1:{second}"
        async with run(*backend, announces=r"listening on (http://\S+)\n") as backend_url:
            settings = configuration("gateway", gateway=f"http://{gateway}", orders=f"http://{orders}")
            settings["api_keys"]["file"] = str(tmp_path / "api-keys.json")
            settings["signing"]["keys_file"] = str(tmp_path / "signing-keys.json")
            behind = configuration("orders", gateway=f"http://{gateway}") | {"upstream": backend_url}
            async with (
                sidecar(**settings | {"listen": gateway}) as url,
                sidecar(**behind | {"listen": orders}),
                aiohttp.ClientSession(url) as client,
            ):
                async with client.get("/protected", headers={"Authorization": f"Bearer {api_key}"}) as response:
                    granted = await response.json()
                async with client.get("/protected") as response:
                    refused = response.status

    assert (granted["message"], granted["sub"], granted["user"]["scope"]) == ("Access granted", "alice", "read")
    assert refused == 401
