"""/probe/NAME: how a kubelet probes a backend on loopback, and which probes readiness waits for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never, send
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.raw import fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, ok, running

PROBES: dict[str, Any] = {"backend": {"path": "/health?deep=1"}}
HEALTH: dict[str, Any] = {"listen": "127.0.0.1:0", "probes": PROBES}


async def probe(stack: Stack, name: str = "backend") -> int:
    return (await stack.health(f"/probe/{name}")).status


async def ready(stack: Stack) -> tuple[int, bytes]:
    answer = await stack.health("/readyz")
    return answer.status, answer.body


@pytest.mark.parametrize("status", [200, 204, 302, 404, 500, 503])
async def test_a_probe_answers_with_the_backends_status_and_no_header_or_body(status: int) -> None:
    async with running(health=HEALTH) as stack:
        said = response(
            status, b"" if status == 204 else b"secret", [("Location", "http://secret"), ("X-Secret", "secret")]
        )
        stack.backend.handler = send(said)
        answer = await stack.health("/probe/backend")
        assert (answer.status, answer.body) == (status, b"")
        assert b"secret" not in answer.raw


@pytest.mark.parametrize("socket", [False, True])
async def test_no_part_of_the_callers_request_reaches_the_backend(socket: bool, tmp_path: Path) -> None:
    backend = RawBackend(ok, unix=tmp_path / "app.sock" if socket else None)
    async with running(backend=backend, health=HEALTH) as stack:
        asked = request(
            "GET", "/probe/backend?x=secret", token=stack.alice, headers=[("Cookie", "a"), ("X-JWT-Sub", "b")]
        )
        assert (await fetch(stack.sidecar.health_address, asked)).status == 200
        seen = await stack.backend.received()
        assert (seen.method, seen.target) == ("GET", "/health?deep=1")
        host = "localhost" if socket else ":".join(map(str, stack.backend.address))
        assert seen.headers == [
            ("Host", host), ("User-Agent", "jwt-sidecar"), ("X-JWT-Status", "anonymous"), ("Connection", "close"),
        ]  # fmt: skip
        await stack.backend.disconnected()


async def test_a_probe_is_signed_for_a_backend_with_request_signatures(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 40)
    async with running(health=HEALTH, signature={"secret_file": str(secret)}) as stack:
        assert await probe(stack) == 200
        assert (await stack.backend.received()).get("x-jwt-signature")


async def test_a_backend_that_cannot_be_reached_is_502_and_a_slow_one_504() -> None:
    health = HEALTH | {"probes": {"backend": {"path": "/", "timeout": "50ms"}}}
    async with running(health=health) as stack:
        stack.backend.handler = never
        assert await probe(stack) == 504
    async with running(health=HEALTH) as stack:
        stack.backend.handler = send(b"no HTTP\r\n\r\n", close=True)
        assert await probe(stack) == 502
        stack.backend.handler = send(b"", close=True)
        assert await probe(stack) == 502
        stack.backend.handler = send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        assert await probe(stack) == 502
        await stack.backend.go_down()
        assert await probe(stack) == 502


async def test_an_unknown_probe_is_a_404_without_a_request_to_a_backend() -> None:
    async with running(health=HEALTH) as stack:
        assert [await probe(stack, name) for name in ("other", "backend/x", "")] == [404, 404, 404]
        assert stack.backend.connections == 0


async def test_a_probe_goes_to_its_configured_upstream() -> None:
    async with RawBackend(send(response(418))) as other:
        upstreams = {"other": {"url": other.url}}
        probes = {"other": {"path": "/", "upstream": "other"}}
        async with running(health=HEALTH | {"probes": probes}, upstreams=upstreams) as stack:
            assert await probe(stack, "other") == 418
            assert stack.backend.connections == 0


async def test_concurrent_probes_share_one_answer() -> None:
    async with running(health=HEALTH) as stack:
        answering = asyncio.Event()

        async def slow(_request: Request, writer: asyncio.StreamWriter) -> None:
            await answering.wait()
            writer.write(response(200))

        stack.backend.handler = slow
        asked = [asyncio.create_task(probe(stack)) for _ in range(5)]
        await stack.backend.received()
        assert await probe(stack, "other") == 404  # by then the sidecar has read the others too
        answering.set()
        assert await asyncio.gather(*asked) == [200] * 5
        assert stack.backend.connections < 5
        assert await probe(stack) == 200, "the next question goes to the server again"


async def test_a_shared_answer_survives_the_first_caller_leaving() -> None:
    async with running(health=HEALTH) as stack:
        stack.backend.handler = never
        shared = stack.sidecar.assembly.probes["backend"]
        first, *others = [asyncio.create_task(shared.status()) for _ in range(4)]
        await stack.backend.received()
        stack.backend.handler = ok
        first.cancel()
        assert await asyncio.gather(*others) == [200] * 3
        assert first.cancelled()
        assert stack.backend.connections == 2


async def test_a_busy_backend_still_passes_its_probe() -> None:
    async with running(health=HEALTH, limits={"upstream_connections": 1}) as stack, stack.client() as client:
        stack.backend.handler = never
        await client.send(stack.good())
        await stack.backend.received()
        stack.backend.handler = ok
        assert await probe(stack) == 200


async def test_readiness_ignores_the_backend_by_default() -> None:
    async with running(health=HEALTH) as stack:
        await stack.fetch(stack.good())
        await stack.backend.go_down()
        assert await ready(stack) == (200, b"ok\n")


async def test_readiness_waits_for_ready_probes() -> None:
    probes = {"backend": {"path": "/health"}, "other": {"path": "/other"}}
    async with running(health=HEALTH | {"probes": probes, "ready_probes": ["backend"]}) as stack:
        await stack.fetch(stack.good())
        assert await ready(stack) == (200, b"ok\n")
        for status, is_ready in ((399, 200), (400, 503), (503, 503)):
            stack.backend.handler = send(response(status), close=True)
            assert (await ready(stack))[0] == is_ready
        await stack.backend.go_down()
        assert await ready(stack) == (503, b"failing probes: backend\n")
        assert (await stack.health("/livez")).status == 200
        assert (await stack.health("/startupz")).status == 200
        await stack.backend.come_back()
        stack.backend.handler = ok
        assert (await ready(stack))[0] == 200


@pytest.mark.parametrize(("fails", "status"), [(False, 200), (True, 503)])
async def test_readiness_fails_without_trusted_keys_only_if_configured(fails: bool, status: int) -> None:
    async with running(health={"listen": "127.0.0.1:0", "fail_ready_when_stale": fails}) as stack:
        await stack.fetch(stack.good())
        stack.issuer.on_jwks = Answer(500)
        assert (await ready(stack))[0] == 200
        stack.clock.ahead_s += 24 * 3600
        assert (await ready(stack))[0] == status
        stack.issuer.on_jwks = None
        stack.sidecar.assembly.sources["main"].refresh()
        async with patience("new keys"):
            while (await ready(stack))[0] != 200:
                await asyncio.sleep(0)


async def test_readiness_needs_the_keys_of_one_issuer() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as up:
        issuers = {
            "up": {"issuer": up.issuer, "audiences": [AUDIENCE]},
            "none": {"issuer": "https://none.test/", "audiences": [AUDIENCE], "jwks_file": "/none", "required": False},
        }
        async with running(issuers=issuers, health={"listen": "127.0.0.1:0", "fail_ready_when_stale": True}) as stack:
            assert (await stack.fetch(request(token=up.token("EdDSA")))).status == 200
            assert (await ready(stack))[0] == 200
            await up.drop_connections()
