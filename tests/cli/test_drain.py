"""Draining: no client is turned away, and every client learns to go elsewhere."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sidecar.app.local_socket import running as running_here
from sidecar.cli.main import main
from tests.peers import patience
from tests.peers.backend import RawBackend, send
from tests.peers.issuer import ScriptedIssuer
from tests.peers.load import Address, load
from tests.peers.program import Program, configuration, started
from tests.peers.raw import fetch
from tests.peers.wire import Truncated, request
from tests.proxy.conftest import Stack, running

JSON = [("Content-Type", "application/json")]


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running() as stack:
        yield stack


async def drain(stack: Stack) -> None:
    raw = request("POST", "/drain", host="localhost", headers=JSON)
    answer = await fetch(stack.sidecar.admin_address, raw)
    assert (answer.status, answer.json()) == (200, {"draining": True, "in_flight": 0})


async def test_a_drained_sidecar_is_not_ready_and_still_serves(stack: Stack) -> None:
    async with stack.client() as client:
        assert (await client.request(stack.good())).get("connection") is None
        await drain(stack)
        answer = await stack.health("/readyz")
        assert (answer.status, answer.body) == (503, b"draining\n")
        answer = await client.request(stack.good())
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert await client.closed() == b""
    for raw, status in ((stack.good(), 200), (request(), 401)):
        answer = await stack.fetch(raw)
        assert (answer.status, answer.get("connection")) == (status, "close")
    await drain(stack)  # a second drain changes nothing


async def test_a_reload_does_not_end_a_drain(tmp_path: Path) -> None:
    async with running(file=tmp_path / "config.yaml") as stack:
        await drain(stack)
        assert stack.sidecar.reload is not None
        assert await stack.sidecar.reload.reload()
        assert (await stack.fetch(stack.good())).get("connection") == "close"


async def test_sigterm_waits_for_the_rest_of_the_drain_delay() -> None:
    async with running(timeouts={"drain_delay": "20s"}) as stack:
        await drain(stack)
        stack.clock.ahead_s += 15
        ending = asyncio.create_task(stack.sidecar.drain())
        assert (await stack.fetch(stack.good())).status == 200
        ending.cancel()
        stack.clock.ahead_s += 5
        async with asyncio.timeout(10):
            await stack.sidecar.drain()


# The command


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["drain", *arguments])


async def test_the_command_drains_and_undrains_over_the_admin_listener(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = stack.sidecar.admin_address
    assert await run("--admin", f"http://{host}:{port}") == 0
    said = capsys.readouterr()
    whom = f"pid {os.getpid()}, {stack.sidecar.live.listens}"
    told = f"draining: no longer ready, still serving (0 requests in flight): {whom}\n"
    assert (said.out, said.err) == (f"{told}undo it with: jwt-sidecar drain --undrain\n", "")
    assert stack.sidecar.live.resources.draining
    assert await run("--undrain", "--admin", f"http://{host}:{port}") == 0
    assert capsys.readouterr().out == f"ready again, no longer draining: {whom}\n"
    assert not stack.sidecar.live.resources.draining
    assert (await stack.health("/readyz")).status == 200


async def test_undrain_fails_while_the_process_stops(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(timeouts={"drain_delay": "20s"}) as stack:
        ending = asyncio.create_task(stack.sidecar.drain())
        await asyncio.sleep(0)
        host, port = stack.sidecar.admin_address
        assert await run("--undrain", "--admin", f"http://{host}:{port}") == 1
        assert "The sidecar is stopping, and that cannot be undone." in capsys.readouterr().err
        ending.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="the names of its sockets are Linux's")
@pytest.mark.parametrize("now", ["{", None, '{"admin": {"listen": "127.0.0.1:1"}}'])
async def test_the_command_finds_a_sidecar_whose_file_has_changed(
    now: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file.write_text(json.dumps(configuration(issuer, backend)))
        async with started(file, issuer, backend) as program:
            file.unlink() if now is None else file.write_text(now)
            assert await run("-c", str(file)) == 0
            said = capsys.readouterr().out
            assert f": pid {program.process.pid}, " in said
            assert str(file) in said
            assert (await program.health("/readyz")).status == 503
            assert await run("--undrain", "--pid", str(program.process.pid)) == 0
            assert (await program.health("/readyz")).status == 200
            program.process.terminate()
            assert await program.ended() == 0


async def test_the_commands_find_no_sidecar_within_another_program(stack: Stack) -> None:
    """The sidecars of this suite are such: a command in another test must not connect to one that is ending."""
    assert os.getpid() not in [one.pid for one in running_here()]


@pytest.mark.skipif(sys.platform != "linux", reason="the names of its sockets are Linux's")
async def test_one_of_several_sidecars_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file.write_text(json.dumps(configuration(issuer, backend)))
        async with started(file, issuer, backend) as one, started(file, issuer, backend) as other:
            assert await run() == 1
            said = capsys.readouterr().err
            assert said.startswith("jwt-sidecar: several sidecars run here; choose one: ")
            for program in (one, other):
                assert f"--pid {program.process.pid} (" in said
                assert (await program.health("/readyz")).status == 200
            for program in (one, other):
                program.process.terminate()
                assert await program.ended() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
async def test_the_command_reads_the_admin_address_from_the_file(
    host: str, tmp_path: Path, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    settings = configuration(stack.issuer, stack.backend)
    file.write_text(json.dumps(settings | {"admin": {"listen": f"{host}:{stack.sidecar.admin_address[1]}"}}))
    assert await run("-c", str(file)) == 0
    assert stack.sidecar.live.resources.draining
    file.write_text(json.dumps(settings))
    assert await run("-c", str(file)) == 2
    assert "its admin.listen has port 0, so the port is printed only at the start" in capsys.readouterr().err
    file.write_text("{}")
    assert await run("-c", str(file)) == 2


@pytest.mark.parametrize(
    "url", ["", "x", "https://127.0.0.1:9901", "http://127.0.0.1", "http://127.0.0.1:0", "http://a:b"]
)
async def test_an_invalid_url_is_a_usage_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("--admin", url) == 2
    assert capsys.readouterr().err.startswith(f"jwt-sidecar: {url} is not the URL of an admin listener")


async def test_a_missing_sidecar_or_another_program_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    async with RawBackend() as backend:
        assert await run("--admin", backend.url) == 1
        backend.handler = send(b"not HTTP\r\n\r\n", close=True)
        assert await run("--admin", backend.url) == 1
        await backend.go_down()
        assert await run("--admin", backend.url) == 1
    assert capsys.readouterr().err.count("; check that this is its admin.listen\n") == 3


# A rolling restart


class Service:
    """A cluster's Service: distributes new connections among the replicas whose /readyz is 200."""

    def __init__(self) -> None:
        self.members: list[Program] = []
        self.ready: list[Program] = []
        self._turn = 0

    def where(self) -> Address:
        self._turn += 1
        return self.ready[self._turn % len(self.ready)].addresses["proxy"]

    async def look(self) -> None:
        while True:
            for member in list(self.members):
                try:
                    ready = (await member.health("/readyz")).status == 200
                except (OSError, Truncated):
                    ready = False
                if ready != (member in self.ready):
                    (self.ready.append if ready else self.ready.remove)(member)
            await asyncio.sleep(0.02)

    async def until(self, number: int) -> None:
        async with patience(f"{number} ready members"):
            while len(self.ready) != number:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    one = Service()
    looking = asyncio.create_task(one.look())
    try:
        yield one
    finally:
        looking.cancel()


async def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    """Two sidecars are replaced one after the other, the first with a preStop hook, the second without.

    As in a Deployment, the new one is ready before the old one has to end.
    """
    file = tmp_path / "config.yaml"
    async with (
        ScriptedIssuer(algs=["EdDSA"]) as issuer,
        RawBackend() as backend,
        service() as members,
        AsyncExitStack() as programs,
    ):
        config = configuration(issuer, backend)
        file.write_text(json.dumps(config | {"access_log": "off", "timeouts": {"drain_delay": "3s"}}))

        async def add() -> Program:
            one = await programs.enter_async_context(started(file, issuer, backend))
            members.members.append(one)
            return one

        old = [await add(), await add()]
        await members.until(2)
        async with load(members.where, old[0].good("GET", "/x"), clients=8) as clients:
            for one, pre_stop in zip(old, (True, False), strict=True):
                await clients.more(200)
                await add()
                await members.until(3)
                if pre_stop:
                    host, port = one.addresses["admin"]
                    assert await run("--admin", f"http://{host}:{port}") == 0
                one.process.terminate()
                assert await one.ended() == 0
                await members.until(2)
            await clients.more(200)
        assert clients.lost == {}
        assert [await one.told() for one in old] == [[], []]
