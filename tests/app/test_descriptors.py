"""File descriptors, and their users: clients, and connections to the other listeners."""

import json
import resource
from contextlib import AsyncExitStack
from pathlib import Path

from sidecar.app.http_runner import MOST_CONNECTIONS
from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import configuration, limited
from tests.peers.raw import RawClient
from tests.proxy.conftest import running


def files(soft: int, hard: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "


async def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file.write_text(json.dumps(configuration(issuer, backend)))
        it = await limited(file, files(256, 20_000), issuer, backend)
        assert resource.prlimit(it.process.pid, resource.RLIMIT_NOFILE) == (20_000, 20_000)
        it.process.terminate()
        assert await it.ended() == 0
        assert not any("event=descriptors_do_not_fit" in line for line in it.lines)


async def test_clients_leave_descriptors_for_probes_and_backends(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file.write_text(json.dumps(configuration(issuer, backend)))
        it = await limited(file, files(356, 356), issuer, backend)
        await it.says("event=descriptors_do_not_fit open_files=356 needed=11256 connections=50 ")
        assert await it.metric("jwt_sidecar_connections_limit") == 50
        async with AsyncExitStack() as open_ones:
            busy = [await open_ones.enter_async_context(RawClient.to(it.addresses["proxy"])) for _ in range(50)]
            for client in busy:  # a head that has begun: none of them is idle
                await client.send(it.good()[:-2])
            others = [await open_ones.enter_async_context(RawClient.to(it.addresses["proxy"])) for _ in range(350)]
            told = [await client.closed() for client in others]
            for client in busy:
                await client.send(b"\r\n")
                assert (await client.response()).status == 200
            assert sum(b'"overloaded"' in one for one in told) >= 64
            assert all(b'"overloaded"' in one for one in told if one)
            assert (await it.health("/readyz")).status == 200
            assert (await it.admin("POST", "/drain")).status == 200
        it.process.terminate()
        assert await it.ended() == 0


async def test_silent_connections_do_not_block_a_probe() -> None:
    async with running() as stack, AsyncExitStack() as open_ones:
        address = stack.sidecar.health_address
        silent = [await open_ones.enter_async_context(RawClient.to(address)) for _ in range(4 * MOST_CONNECTIONS)]
        assert (await stack.health("/livez")).status == 200
        for client in silent[: 3 * MOST_CONNECTIONS]:
            async with patience("the oldest connection to close"):
                assert await client.closed() == b""
        await silent[-1].send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await silent[-1].response()).status == 200
