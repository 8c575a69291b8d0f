"""The program from its start to its end, as a process of its own; and the end of a sidecar in this one."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.server import CannotStart, build
from sidecar.config import parse
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import LISTENERS, Program, accepts, configuration, program, start
from tests.peers.raw import RawClient, fetch
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, running


async def test_sigterm_finishes_requests_in_flight_and_ends_with_0(tmp_path: Path) -> None:
    async with program(tmp_path) as it:
        half, rest = asyncio.Event(), asyncio.Event()

        async def slow(_request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            await writer.drain()
            half.set()
            await rest.wait()
            writer.write(b"hello")

        it.backend.handler = slow
        async with RawClient.to(it.addresses["proxy"]) as client, RawClient.to(it.addresses["proxy"]) as idle:
            await client.send(it.good("GET", "/slow"))
            await half.wait()
            it.process.terminate()
            await it.until_unready()
            assert (await it.health("/livez")).status == 200
            assert await idle.closed() == b""
            async with patience("new connections to be refused"):
                while await accepts(it.addresses["proxy"]):
                    await asyncio.sleep(0.01)
            assert it.process.returncode is None
            rest.set()
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"hellohello")
            assert await client.closed() == b""
        assert await it.ended() == 0
        assert await it.told() == []


async def test_it_serves_with_connection_close_during_the_drain_delay(tmp_path: Path) -> None:
    async with program(tmp_path, timeouts={"drain_delay": "20s"}) as it:
        async with RawClient.to(it.addresses["proxy"]) as client:
            assert (await client.request(it.good())).get("connection") is None
            it.process.send_signal(signal.SIGINT)
            await it.until_unready()
            for answer in (await client.request(it.good()), await fetch(it.addresses["proxy"], it.good())):
                assert (answer.status, answer.get("connection")) == (200, "close")
        it.process.terminate()
        await it.ended()


@pytest.mark.parametrize("case", ["one process", "workers", "spans that no collector takes"])
async def test_a_second_signal_ends_the_process_at_once(case: str, tmp_path: Path) -> None:
    async with RawBackend(never) as collector:
        settings: dict[str, Any] = {"timeouts": {"drain_delay": "600s", "shutdown": "600s"}}
        if case == "workers":
            settings["workers"] = 2
        elif case == "spans that no collector takes":
            settings["tracing"] = {"endpoint": f"{collector.url}/v1/traces"}
        async with program(tmp_path, **settings) as it:
            it.backend.handler = never
            async with RawClient.to(it.addresses["proxy"]) as client, RawClient.to(it.addresses["proxy"]):
                await client.send(it.good())
                await it.backend.received(2)
                it.process.terminate()
                await it.until_unready()
                it.process.send_signal(signal.SIGINT)
                assert await it.ended() == 0
                assert b" 200 " not in await client.closed()
            assert await it.told() == []
            assert sum("event=stopping_at_once" in line for line in it.lines) == 1


async def test_requests_that_do_not_finish_in_time_are_cut_off(tmp_path: Path) -> None:
    async with program(tmp_path, timeouts={"drain_delay": "0s", "shutdown": "200ms"}) as it:
        it.backend.handler = never
        async with RawClient.to(it.addresses["proxy"]) as client:
            await client.send(it.good())
            await it.backend.received(2)
            it.process.terminate()
            assert await it.ended() == 0
            assert b" 200 " not in await client.closed()


async def test_each_listener_at_port_0_announces_its_port(tmp_path: Path) -> None:
    async with program(tmp_path) as it:
        assert tuple(it.addresses) == LISTENERS
        assert 0 not in {port for _, port in it.addresses.values()}
        assert len(set(it.addresses.values())) == len(LISTENERS)
        assert (await it.health("/readyz")).status == 200
        assert await accepts(it.addresses["admin"])


@contextmanager
def taken_port() -> Iterator[str]:
    """An address where another socket listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def taken(address: str) -> str:
    return f"cannot listen on {address}: Address already in use; choose another address, or port 0 for a free port"


async def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        with taken_port() as address:
            file = tmp_path / "config.yaml"
            file.write_text(json.dumps(configuration(issuer, backend) | {"listen": address}))
            process = await start(file)
            async with patience("the program to give up"):
                _, err = await process.communicate()
        assert process.returncode == 1
        assert err.decode() == f"jwt-sidecar: listen: {taken(address)}\n"


# In this process


@pytest.mark.parametrize("listener", LISTENERS)
async def test_a_failed_start_leaves_no_task_behind(listener: str) -> None:
    tasks = asyncio.all_tasks()
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        with taken_port() as address:
            settings = configuration(issuer, backend)
            key = "listen" if listener == "proxy" else f"{listener}.listen"
            settings |= {"listen": address} if listener == "proxy" else {listener: {"listen": address}}
            sidecar = build(parse(json.dumps(settings)))
            with pytest.raises(CannotStart, match=f"^{key}: {taken(address)}$"):
                await sidecar.start()
            await sidecar.stop()
    assert asyncio.all_tasks() == tasks


async def test_stop_ends_every_connection_at_once() -> None:
    async with running(backend=RawBackend(never)) as stack:
        async with stack.client() as busy, stack.client() as idle, stack.client() as half:
            await busy.send(stack.good())
            await half.send(b"GET / HTTP/1.1\r\n")
            await stack.backend.received()
            async with patience("the sidecar to stop"):
                await stack.sidecar.stop()
            for client in (busy, idle, half):
                assert await client.closed() == b""
        await stack.backend.disconnected()


async def test_a_drain_closes_idle_connections_and_finishes_the_others() -> None:
    async with running(timeouts={"drain_delay": "0s"}) as stack:
        answering = asyncio.Event()

        async def slow(_request: Request, writer: asyncio.StreamWriter) -> None:
            await answering.wait()
            writer.write(response(200, b"hello"))

        stack.backend.handler = slow
        async with stack.client() as busy, stack.client() as idle:
            await busy.send(stack.good())
            await stack.backend.received()
            draining = asyncio.create_task(stack.sidecar.drain())
            assert await idle.closed() == b""
            assert not draining.done()
            answering.set()
            answer = await busy.response()
            assert (answer.body, answer.get("connection")) == (b"hello", "close")
            assert await busy.closed() == b""
            await busy.close()
            async with patience("the end of the drain"):
                await draining


@pytest.mark.parametrize("framing", [("Content-Length", "10"), ("Transfer-Encoding", "chunked")])
async def test_a_drain_finishes_an_upload_in_progress(framing: tuple[str, str]) -> None:
    first, second = (b"hello", b"hello") if framing[1] == "10" else (b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n\r\n")
    async with running(timeouts={"drain_delay": "0s"}) as stack, stack.client() as idle:
        async with stack.client() as client:
            await client.send(stack.good("POST", "/x", headers=[framing]) + first)
            await stack.backend.connected()
            draining = asyncio.create_task(stack.sidecar.drain())
            assert await idle.closed() == b""
            await client.send(second)
            answer = await client.response("POST")
            assert (answer.status, answer.get("connection")) == (200, "close")
        async with patience("the end of the drain"):
            await draining
        assert (await stack.backend.received()).body == b"hellohello"


async def test_a_stopped_sidecar_accepts_no_connection() -> None:
    async with running() as stack:
        address = stack.sidecar.proxy_address
        assert 0 not in {
            stack.sidecar.proxy_address[1],
            stack.sidecar.health_address[1],
            stack.sidecar.admin_address[1],
        }
    assert not await accepts(address)


async def test_a_failed_background_task_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as stack:
        live = stack.sidecar.live
        begun = 0
        again = asyncio.Event()

        async def work() -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                raise ZeroDivisionError("a secret")
            again.set()
            await asyncio.Event().wait()

        live.background(work, "a task")
        async with patience("the task to start again"):
            await again.wait()
        assert await metric(stack, "jwt_sidecar_task_failures_total") == 1
        assert not stack.sidecar.failed.done()
        stack.secrets.errors.clear()
    [line] = [record.getMessage() for record in caplog.records if "event=task_failed" in record.getMessage()]
    assert line.startswith("event=task_failed task=a task type=ZeroDivisionError at=")
    assert "secret" not in caplog.text


async def test_a_vital_task_that_keeps_failing_ends_the_process() -> None:
    async with running() as stack:

        async def work() -> None:
            raise ZeroDivisionError

        stack.sidecar.live.background(work, "a task", vital=True)
        async with patience("the end"):
            await asyncio.wait({stack.sidecar.failed})
        assert isinstance(stack.sidecar.failed.exception(), ZeroDivisionError)
        stack.secrets.errors.clear()


async def metric(stack: Stack, name: str) -> float:
    lines = (await stack.health("/metrics")).body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


async def test_the_program_starts_when_no_one_reads_its_output(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file = tmp_path / "config.yaml"
        with socket.create_server(("127.0.0.9", 0)) as free:  # where nothing else takes the port meanwhile
            address = free.getsockname()
        settings = configuration(issuer, backend) | {"listen": f"127.0.0.9:{address[1]}"}
        file.write_text(json.dumps(settings))
        with open("/dev/full", "wb") as full:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sidecar", "run", "-c", str(file)), stdout=full, stderr=full
            )
            async with patience("the sidecar to serve"):
                while not await accepts(address):
                    assert process.returncode is None
                    await asyncio.sleep(0.01)
            raw = request(token=issuer.token("EdDSA"))
            assert (await fetch(address, raw)).status == 200
            process.terminate()
            await process.wait()


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_line_on_stderr_is_written_in_one_call(tmp_path: Path, workers: int) -> None:
    """So that no line of another process comes in between, even if PYTHONUNBUFFERED is set."""
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(configuration(issuer, backend) | {"workers": workers}))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # a datagram for each call
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "sidecar", "run", "-c", str(file)),
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                    stderr=theirs.fileno(),
                )
            written: list[bytes] = []
            async with patience("its addresses"):
                while len([one for one in written if one.startswith(b"listening ")]) < len(LISTENERS):
                    written.append(await asyncio.get_running_loop().sock_recv(ours, 65536))
            process.terminate()
            await process.wait()
        assert [one for one in written if one.count(b"\n") != 1 or not one.endswith(b"\n")] == []


async def test_sighup_before_the_start_is_complete_does_not_end_the_process(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file = tmp_path / "config.yaml"
        os.mkfifo(file)  # it waits for its configuration
        process = await start(file)
        it = Program(process, issuer, backend)
        opened = await asyncio.to_thread(open, file, "w")
        process.send_signal(signal.SIGHUP)
        with opened:
            opened.write(json.dumps(configuration(issuer, backend)))
        await it.announced()
        process.terminate()
        assert await it.ended() == 0
