"""File descriptors, and what takes them: clients, and connections to the listeners beside the proxy's."""

import asyncio
import json
import resource
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from sidecar.app.http_runner import MOST_CONNECTIONS
from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import Program, configuration
from tests.peers.raw import RawClient
from tests.proxy.conftest import running


def limited(soft: int, hard: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "


async def started(file: Path, limits: str, issuer: ScriptedIssuer, backend: RawBackend) -> Program:
    code = f"{limits}import sys; sys.argv[0] = 'jwt-sidecar'; from sidecar.cli.main import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "run", "-c", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    it = Program(process, issuer, backend)
    await it.announced()
    return it


async def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file.write_text(json.dumps(configuration(issuer, backend)))
        it = await started(file, limited(256, 20_000), issuer, backend)
        assert resource.prlimit(it.process.pid, resource.RLIMIT_NOFILE) == (20_000, 20_000)
        it.process.terminate()
        assert await it.ended() == 0
        assert not any("event=descriptors_do_not_fit" in line for line in it.lines)


async def test_clients_leave_descriptors_for_probes_and_for_who_is_served(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file.write_text(json.dumps(configuration(issuer, backend)))
        it = await started(file, limited(356, 356), issuer, backend)
        await it.says("event=descriptors_do_not_fit open_files=356 needed=11256 connections=50 ")
        assert await it.metric("jwt_sidecar_connections_limit") == 50
        async with AsyncExitStack() as open_ones:
            idle = [await open_ones.enter_async_context(RawClient.to(it.addresses["proxy"])) for _ in range(400)]
            for client in idle[:50]:
                assert (await client.request(it.good())).status == 200
            told = [await client.closed() for client in idle[50:]]
            assert sum(b'"overloaded"' in one for one in told) >= 64
            assert all(b'"overloaded"' in one for one in told if one)
            assert (await it.health("/readyz")).status == 200
            assert (await it.admin("POST", "/drain")).status == 200
        it.process.terminate()
        assert await it.ended() == 0


async def test_silent_connections_keep_no_probe_out() -> None:
    async with running() as stack, AsyncExitStack() as open_ones:
        address = stack.sidecar.health_address
        silent = [await open_ones.enter_async_context(RawClient.to(address)) for _ in range(4 * MOST_CONNECTIONS)]
        assert (await stack.health("/livez")).status == 200
        for client in silent[: 3 * MOST_CONNECTIONS]:
            async with patience("the oldest to end"):
                assert await client.closed() == b""
        await silent[-1].send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await silent[-1].response()).status == 200
