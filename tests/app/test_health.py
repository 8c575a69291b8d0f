"""The probes for the cluster: what each of them depends on."""

from typing import Any

import pytest

from tests.peers.backend import never
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.raw import RawClient, fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running


async def probes(stack: Stack) -> dict[str, int]:
    return {path: (await stack.health(path)).status for path in ("/livez", "/startupz", "/readyz")}


async def ready(stack: Stack) -> None:
    """Wait for the first keys, as a request does."""
    assert (await stack.fetch(stack.good())).status == 200


async def test_all_probes_succeed_after_the_first_keys_arrive() -> None:
    async with running() as stack:
        await ready(stack)
        assert await probes(stack) == {"/livez": 200, "/startupz": 200, "/readyz": 200}
        answer = await stack.health("/readyz")
        assert (answer.body, answer.get("content-type")) == (b"ok\n", "text/plain; charset=utf-8")


async def test_readiness_waits_for_the_first_keys_and_names_their_issuer() -> None:
    issuer = ScriptedIssuer(algs=["EdDSA"])
    issuer.hang()
    async with running(issuer=issuer) as stack:
        answer = await stack.health("/readyz")
        assert (answer.status, answer.body) == (503, b"waiting for the keys of: main\n")
        assert await probes(stack) == {"/livez": 200, "/startupz": 200, "/readyz": 503}
        issuer.release()
        await ready(stack)
        assert (await stack.health("/readyz")).status == 200


async def test_readiness_survives_the_issuers_outage_and_a_restart_of_the_backend() -> None:
    async with running() as stack:
        await ready(stack)
        stack.issuer.on_jwks = Answer(500)
        await stack.backend.go_down()
        stack.clock.ahead_s += 24 * 3600  # long after the keys are no longer trusted
        stack.sidecar.assembly.sources["main"].refresh()
        assert (await stack.fetch(stack.good())).status == 503
        assert await probes(stack) == {"/livez": 200, "/startupz": 200, "/readyz": 200}


async def test_readiness_waits_for_required_issuers_only() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as down:
        await down.go_down()
        for required, status in ((True, 503), (False, 200)):
            async with ScriptedIssuer(algs=["EdDSA"]) as up:
                issuers = {
                    "up": {"issuer": up.issuer, "audiences": [AUDIENCE]},
                    "down": {"issuer": down.issuer, "audiences": [AUDIENCE], "required": required},
                }
                async with running(issuers=issuers) as stack:
                    assert (await stack.fetch(request(token=up.token("EdDSA")))).status == 200
                    answer = await stack.health("/readyz")
                    assert answer.status == status
                    assert b"up" not in answer.body
                    await up.drop_connections()


async def test_a_draining_sidecar_is_alive_and_not_ready() -> None:
    async with running() as stack:
        await ready(stack)
        stack.sidecar.live.resources.draining = True
        answer = await stack.health("/readyz")
        assert (answer.status, answer.body) == (503, b"draining\n")
        assert await probes(stack) == {"/livez": 200, "/startupz": 200, "/readyz": 503}


async def test_the_probes_answer_at_the_limit_of_requests_in_flight() -> None:
    async with running(limits={"in_flight": 1}) as stack, stack.client() as client:
        await ready(stack)
        stack.backend.handler = never
        await client.send(stack.good())
        await stack.backend.received(2)
        assert (await stack.fetch(stack.good())).status == 503
        assert await probes(stack) == {"/livez": 200, "/startupz": 200, "/readyz": 200}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/protected", 404),
        ("GET", "/livez/../x", 404),
        ("POST", "/livez", 405),
        ("DELETE", "/metrics", 405),
        ("POST", "/drain", 404),
        ("GET", "/issuers", 404),
    ],
)
async def test_the_health_listener_serves_nothing_else(method: str, path: str, status: int) -> None:
    async with running() as stack:
        answer = await fetch(stack.sidecar.health_address, request(method, path, token=stack.alice))
        assert answer.status == status
        assert stack.backend.requests == []


async def test_paths_of_probes_need_a_token_at_the_proxys_port() -> None:
    async with running() as stack:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await stack.fetch(request("GET", path))).status == 401


@pytest.mark.parametrize("listener", ["health", "admin"])
async def test_bytes_that_are_not_http_are_answered_without_quoting_them(listener: str) -> None:
    async with running() as stack:
        address = getattr(stack.sidecar, f"{listener}_address")
        async with RawClient.to(address) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: " + stack.credentials + b"\x00\r\n\r\n")
            answer = await client.response()
            rest = await client.closed()
        assert (answer.status, answer.json(), rest) == (400, {"error": "Invalid request"}, b"")


def one_of_two(up: ScriptedIssuer, down: ScriptedIssuer, **settings: Any) -> dict[str, Any]:
    return {
        "up": {"issuer": up.issuer, "audiences": [AUDIENCE]},
        "down": {"issuer": down.issuer, "audiences": [AUDIENCE]} | settings,
    }


@pytest.mark.parametrize(("settings", "status"), [({}, 200), ({"required": True}, 503)])
async def test_only_a_required_issuer_delays_readiness_beyond_30_s(settings: dict[str, Any], status: int) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as up, ScriptedIssuer(algs=["EdDSA"]) as down:
        await down.go_down()
        async with running(issuers=one_of_two(up, down, **settings)) as stack:
            assert (await stack.fetch(request(token=up.token("EdDSA")))).status == 200
            answer = await stack.health("/readyz")
            assert (answer.status, answer.body) == (503, b"waiting for the keys of: down\n")
            stack.clock.ahead_s += 30
            assert (await stack.health("/readyz")).status == status
            await up.drop_connections()


async def test_the_sidecar_is_never_ready_without_keys() -> None:
    issuer = ScriptedIssuer(algs=["EdDSA"])
    issuer.on_jwks = Answer(500)
    async with running(issuer=issuer) as stack:
        stack.clock.ahead_s += 3600
        assert (await stack.health("/readyz")).status == 503


async def test_readyz_upstream_fails_while_the_backend_on_loopback_is_down() -> None:
    async with running() as stack:
        await ready(stack)
        assert (await stack.health("/readyz/upstream")).status == 200
        await stack.backend.go_down()
        answer = await stack.health("/readyz/upstream")
        assert (answer.status, answer.body) == (503, b"the backend accepts no connection\n")
        assert (await stack.health("/readyz")).status == 200
        await stack.backend.come_back()
        assert (await stack.health("/readyz/upstream")).status == 200
        stack.sidecar.live.resources.draining = True
        assert (await stack.health("/readyz/upstream")).body == b"draining\n"


async def test_readyz_upstream_ignores_a_backend_on_another_machine() -> None:
    async with running(upstream="http://192.0.2.1:80", timeouts={"connect": "1ms"}) as stack:
        await stack.fetch(stack.good())  # so that the keys are there
        assert (await stack.health("/readyz/upstream")).status == 200
