"""The start imports only modules that it needs, and leaves nothing behind."""

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest

from sidecar.cli.quick_imports import quick_imports
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.tls import authority, server_tls
from tests.peers.wire import response

AUTHORITIES_OF_AIOHTTP = """
from sidecar.cli.quick_imports import quick_imports
with quick_imports():
    import sidecar.app.server
from aiohttp.connector import _SSL_CONTEXT_VERIFIED
print(_SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"])
"""


async def output(*arguments: str, **environ: str) -> tuple[int | None, str]:
    """The exit code and the output of another Python."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=os.environ | environ
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(file))
    return str(file)


async def test_importing_aiohttp_loads_no_certificate_authorities(ca_file: str) -> None:
    assert await output("-c", AUTHORITIES_OF_AIOHTTP, SSL_CERT_FILE=ca_file) == (0, "0\n")


async def test_modules_for_metrics_and_traces_are_not_imported_to_serve() -> None:
    unneeded = "{'prometheus_client', 'opentelemetry'} & {*sys.modules}"
    assert await output("-c", f"import sys, sidecar.app.server; print({unneeded})") == (0, "set()\n")


async def test_certificates_of_issuers_are_verified_with_the_systems_authorities(tmp_path: Path, ca_file: str) -> None:
    async with ScriptedIssuer(algs=["EdDSA"], tls=True) as issuer, RawBackend() as backend:
        config = tmp_path / "config.yaml"
        config.write_text(
            f"issuers: {{main: {{issuer: '{issuer.issuer}', audiences: [api]}}}}\nupstream: {backend.url}\n"
        )
        check = ("-m", "sidecar", "check", "--online", "-c", str(config))
        assert await output(*check, SSL_CERT_FILE=ca_file) == (0, f"{config}: no problems found\n")
        code, said = await output(*check, SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)
        assert code == 2
        assert "its certificate is not trusted" in said


KEYS_THROUGH_A_PROXY = """
import asyncio
from sidecar.cli.quick_imports import quick_imports
with quick_imports():
    from sidecar.jwt.jwks.fetcher import RemoteKeySet
    from sidecar.jwt.jwks.key_server import KeyServer, Session
async def fetch():
    session = Session()
    server = KeyServer(session, "http://idp.test/keys")
    print((await RemoteKeySet(server, "http://idp.test/", "http://idp.test/keys", True)()).document)
    await session.close()
asyncio.run(fetch())
"""


async def test_the_certificate_of_an_egress_proxy_is_verified_with_the_systems_authorities(ca_file: str) -> None:
    """It also holds for keys over plain http."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(200, b'{"keys":[]}', [("Content-Type", "application/json")]))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_tls()) as proxy:
        url = f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        environ = {"SSL_CERT_FILE": ca_file, "HTTP_PROXY": url, "http_proxy": url, "NO_PROXY": "", "no_proxy": ""}
        assert await output("-c", KEYS_THROUGH_A_PROXY, **environ) == (0, "{'keys': []}\n")


def test_quick_imports_restores_the_environment_and_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ca.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    before = dict(os.environ)
    with quick_imports():
        assert not gc.isenabled()
    assert dict(os.environ) == before
    assert gc.isenabled()
    gc.unfreeze()
