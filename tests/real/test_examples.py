"""The backends of deploy/examples behind a sidecar: each reads verified identities, and refuses direct requests.

Not run here: Cuba and Spring, which Debian does not have, and Go, whose tools are large.
"""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from benchmarks.process import reserved_port
from sidecar.cli.dev.issuer import Issuer
from tests.conftest import Need
from tests.real.conftest import StartSidecar
from tests.real.process import run

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
NAME = "Jörg 100% + Ä,漢字 "  # a space at the end, a percent sign, and a plus sign that must not become a space
COMMANDS = {
    "express": ["node", "server.mjs"],
    "java": ["java", "Backend.java"],
    "php": ["php", "-S", "127.0.0.1:{port}", "index.php"],
    "python": ["python3", "backend.py"],
    "rack": ["puma", "--bind", "unix://{directory}/app.sock", "config.ru"],
    "rails": ["puma", "--bind", "tcp://127.0.0.1:0", "config.ru"],
    "sinatra": ["puma", "--bind", "tcp://127.0.0.1:0", "config.ru"],
}
ANNOUNCES = r"(?:[Ll]istening on|Development Server) \(?((?:http|unix)://[^\s)]+)"


def need_library(name: str, need: Need) -> None:
    """Skip or fail the test if a program exists without the library that the example uses."""
    if name == "express":
        need(str(EXAMPLES / "express/node_modules/express"), "npm ci --prefix deploy/examples/express")
    if name == "java":
        need("javac", "install a JDK: a JRE alone cannot run a source file")
    if name in ("rails", "sinatra") and shutil.which("ruby"):
        library = {"rails": "action_controller/railtie", "sinatra": "sinatra/base"}[name]
        if subprocess.run(["ruby", "-r", library, "-e", ""], stderr=subprocess.DEVNULL, check=False).returncode:
            need(f"Ruby's {library}", "install ruby-railties and ruby-sinatra")


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=COMMANDS)
async def backend(
    request: pytest.FixtureRequest, need: Need, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The address of the example."""
    name = request.param
    need_library(name, need)
    program, *arguments = COMMANDS[name]
    directory = tmp_path_factory.mktemp(name)
    with reserved_port() as port, pytest.MonkeyPatch.context() as surroundings:
        filled = [word.format(port=port, directory=directory) for word in arguments]
        surroundings.chdir(EXAMPLES / name)
        surroundings.setenv("PORT", "0")
        async with run(need(program), *filled, announces=ANNOUNCES) as url:
            surroundings.undo()
            yield url


async def get(url: str, socket_path: str | None = None, **headers: str) -> tuple[int, Any]:
    connector = aiohttp.UnixConnector(socket_path) if socket_path else None
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.get(f"{url}/protected", headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_an_example_backend_accepts_only_verified_identities(
    backend: str, behind: StartSidecar, issuer: Issuer
) -> None:
    public = {"path": "/*", "hosts": ["public.test"], "auth": "none"}
    async with behind(upstream=backend, routes=[public]) as url:
        named = await get(url, Authorization=f"Bearer {issuer.mint(sub=NAME)}")
        nameless = await get(url, Authorization=f"Bearer {issuer.mint(sub=None)}")
        forged = await get(url, Host="public.test", X_JWT_Status="verified", **{"X-JWT-Sub": "mallory"})
        refused = await get(url)
    if backend.startswith("unix:"):
        past_the_sidecar = await get("http://localhost", backend.removeprefix("unix://"))
    else:
        past_the_sidecar = await get(backend)

    status, body = named
    assert (status, body["message"], body["sub"]) == (200, "Access granted", NAME)
    assert (body["user"]["sub"], body["user"]["iss"]) == (NAME, issuer.issuer)
    assert (nameless[0], nameless[1]["sub"]) == (200, None)
    assert (refused[0], refused[1]["code"]) == (401, "token_missing")
    assert forged == past_the_sidecar == (403, {"error": "Not verified"})


async def test_an_example_backend_listens_only_on_loopback(backend: str) -> None:
    if backend.startswith("unix:"):
        return  # it has no port
    port = int(backend.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port)):
        pass  # another address of this machine: a listener on 0.0.0.0 answers there too
