"""Several workers behind one port, as clients and operators see them."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sidecar.app.workers.fork import ForkServer
from sidecar.app.workers.supervisor import ALIVE_S, Supervisor
from sidecar.config import parse
from sidecar.jwt.denylist import ALWAYS, DenyList, Entry
from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.clock import HandClock
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.load import load
from tests.peers.program import Program, accepts, configuration, limited, program, start
from tests.peers.raw import RawClient
from tests.peers.wire import request


@asynccontextmanager
async def workers(tmp_path: Path, number: int = 2, **settings: Any) -> AsyncIterator[Program]:
    async with program(tmp_path, workers=number, **{"access_log": "off"} | settings) as it:
        yield it


def processes(it: Program) -> list[int]:
    """The workers: the children of the program's child."""
    [forker] = children(it.process.pid)
    return children(forker)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def serving(it: Program, number: int) -> None:
    async with patience(f"{number} workers"):
        while await it.metric("jwt_sidecar_workers") != number:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def each(it: Program, number: int = 2) -> AsyncIterator[list[RawClient]]:
    """A connection to each worker. The kernel chooses the worker; the other end of the socket tells which one it is."""
    async with AsyncExitStack() as open_ones:
        found: dict[int, RawClient] = {}
        async with patience("a connection to each worker"):
            while len(found) < number:
                client = await open_ones.enter_async_context(RawClient.to(it.addresses["proxy"]))
                found.setdefault(await owner(it, client), client)
        yield list(found.values())


async def owner(it: Program, client: RawClient) -> int:
    """The worker at the other end of a connection, once it has accepted it."""
    async with patience("the connection to be accepted"):
        while (found := _owner(it, client)) is None:
            await asyncio.sleep(0.001)
    return found


def _owner(it: Program, client: RawClient) -> int | None:
    port = client.writer.get_extra_info("sockname")[1]
    peer = it.addresses["proxy"][1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{peer:04X}") and fields[2].endswith(f":{port:04X}"):
            inode = f"socket:[{fields[9]}]"
            for pid in processes(it):
                if inode in map(_link, Path(f"/proc/{pid}/fd").iterdir()):
                    return pid
    return None


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


async def test_all_workers_serve_and_their_counts_are_summed(tmp_path: Path) -> None:
    async with workers(tmp_path, 3) as it, each(it, 3) as clients:
        assert sorted([await owner(it, client) for client in clients]) == sorted(processes(it))
        ids = set()
        for client in clients:
            for raw, status in ((it.good(), 200), (it.good(), 200), (request(), 401)):
                answer = await client.request(raw)
                assert answer.status == status
                ids.add(answer.get("x-request-id"))
        assert len(ids) == 9
        page = (await it.health("/metrics")).body.decode()
        assert 'jwt_sidecar_requests_total{code="200",method="GET",route="(default)"} 7.0' in page
        assert 'jwt_sidecar_requests_total{code="401",method="GET",route="(default)"} 3.0' in page
        assert 'jwt_sidecar_request_duration_seconds_count{route="(default)"} 10.0' in page
        assert "jwt_sidecar_workers 3.0" in page
        assert "jwt_sidecar_requests_in_flight 0.0" in page
        misses = await it.metric("jwt_sidecar_token_cache_misses_total")
        assert misses + await it.metric("jwt_sidecar_token_cache_hits_total") == 7
        assert await it.metric("jwt_sidecar_token_cache_entries") == misses
        assert await it.metric("jwt_sidecar_connections") >= 3
        assert (
            await it.metric('jwt_sidecar_jwks_fetches_total{issuer="main",result="success",trigger="scheduled"}') == 3
        )
        status = (await it.admin("GET", "/status")).json()
        assert (status["refusals"], len(status["last"]), status["sidecar"]["workers"]) == (3, 3, 3)
        assert len((await it.admin("GET", "/status?after=2")).json()["last"]) == 1
        times = [one["time"] for one in (await it.admin("GET", "/rejections")).json()["rejections"]]
        assert times == sorted(times, reverse=True)


async def test_a_burst_of_unknown_keys_causes_one_fetch_per_worker(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        fetches = it.issuer.jwks_fetches
        bad = [request("GET", "/", token=it.issuer.token("EdDSA", name=f"k{number}")) for number in range(10)]
        answers = await asyncio.gather(*(_all(client, bad) for client in clients))
        assert answers == [["key_unknown", *["jwks_unavailable"] * 9]] * 2
        assert it.issuer.jwks_fetches == fetches + 2


async def _all(client: RawClient, requests: list[bytes]) -> list[str]:
    return [(await client.request(raw)).json()["code"] for raw in requests]


async def test_a_refresh_by_operators_reaches_all_workers(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        old = it.good()
        it.issuer.rotate()
        assert (await it.admin("POST", "/jwks/refresh", {})).status == 200
        for client in clients:
            assert (await client.request(old)).json()["code"] == "key_unknown"


async def test_a_revoked_token_is_refused_by_present_and_later_workers(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        for client in clients:
            assert (await client.request(it.good())).status == 200
        entry = {"iss": it.issuer.issuer, "sub": "alice"}
        assert (await it.admin("POST", "/denylist", entry)).json() == {"entries": 1}
        for client in clients:
            assert (await client.request(it.good())).json()["code"] == "token_revoked"
        [first, _] = processes(it)
        os.kill(first, signal.SIGKILL)
        await it.says("event=worker_replaced")
        async with each(it) as later:
            for client in later:
                assert (await client.request(it.good())).json()["code"] == "token_revoked"


async def test_a_reload_reaches_present_and_later_workers(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with workers(tmp_path) as it, each(it) as clients:
        config = json.loads(file.read_text()) | {"routes": [{"path": "/open", "auth": "none"}]}
        file.write_text(json.dumps(config))
        it.process.send_signal(signal.SIGHUP)
        await it.says("event=config_reloaded", times=2)
        for client in clients:
            assert (await client.request(request("GET", "/open"))).status == 200
        assert it.issuer.jwks_fetches == 2
        file.write_text("{}")
        it.process.send_signal(signal.SIGHUP)
        await it.says("event=config_kept", times=2)
        assert await it.metric("jwt_sidecar_config_last_reload_successful") == 0
        os.kill(processes(it)[0], signal.SIGKILL)
        await it.says("event=worker_replaced")
        async with each(it) as later:
            for client in later:
                assert (await client.request(request("GET", "/open"))).status == 200
        await it.says("event=config_kept", times=3)  # the new worker reports the problems of the file too


async def test_a_worker_started_before_a_reload_reads_the_changed_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with workers(tmp_path) as it:
        config = json.loads(file.read_text()) | {"routes": [{"path": "/open", "auth": "none"}]}
        before = set(processes(it))
        file.write_text(json.dumps(config))
        os.kill(min(before), signal.SIGKILL)
        await it.says("event=worker_replaced")
        [late] = set(processes(it)) - before
        async with each(it) as clients:
            [client] = [one for one in clients if await owner(it, one) == late]
            async with patience("the changed file to be in use"):
                while (await client.request(request("GET", "/open"))).status != 200:
                    await asyncio.sleep(0.05)


async def test_a_drain_reaches_present_and_later_workers(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        assert (await it.admin("POST", "/drain")).status == 200
        assert (await it.health("/readyz")).status == 503
        for client in clients:
            answer = await client.request(it.good())
            assert (answer.status, answer.get("connection")) == (200, "close")
        assert await it.metric('jwt_sidecar_requests_total{code="200",method="GET",route="(default)"}') == 3
        os.kill(processes(it)[0], signal.SIGKILL)
        await it.says("event=worker_replaced")
        async with each(it) as later:
            for client in later:
                assert (await client.request(it.good())).get("connection") == "close"
        assert await it.metric('jwt_sidecar_requests_total{code="200",method="GET",route="(default)"}') == 5


async def test_a_killed_worker_ends_only_its_own_connections(tmp_path: Path) -> None:
    async with workers(tmp_path, 3) as it, each(it, 3) as clients:
        raw = it.good()
        before = await it.metric('jwt_sidecar_requests_total{code="200",method="GET",route="(default)"}')
        owners = [await owner(it, client) for client in clients]
        async with load(lambda: it.addresses["proxy"], raw, clients=30) as under_load:
            await under_load.more(300)
            os.kill(owners[0], signal.SIGKILL)
            await it.says("event=worker_died")
            assert (await it.health("/readyz")).status == 200
            await it.says("event=worker_replaced")
            await under_load.more(300)
        assert set(under_load.answers) == {200}
        assert len(under_load.failed) <= 30  # each client lost only its connection to this worker
        assert await clients[0].closed() == b""
        for client in clients[1:]:
            assert (await client.request(raw)).status == 200
        await serving(it, 3)
        assert owners[0] not in processes(it)
        after = await it.metric('jwt_sidecar_requests_total{code="200",method="GET",route="(default)"}')
        assert after > before  # the last known counts of the dead worker stay in the sum


async def test_sigterm_ends_all_workers_after_their_requests_in_flight(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        answering = asyncio.Event()

        async def slow(_request: object, writer: asyncio.StreamWriter) -> None:
            await answering.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        it.backend.handler = slow
        for client in clients:
            await client.send(it.good())
        await it.backend.received(3)
        pids = [*children(it.process.pid), *processes(it)]
        it.process.terminate()
        await it.until_unready()
        async with patience("new connections to be refused"):
            while await accepts(it.addresses["proxy"]):
                await asyncio.sleep(0.01)
        answering.set()
        for client in clients:
            answer = await client.response()
            assert (answer.body, answer.get("connection")) == (b"ok", "close")
            await client.close()
        assert await it.ended() == 0
        assert await it.told() == []
        assert not any(map(alive, pids))


async def test_no_process_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    async with workers(tmp_path) as it:
        pids = [*children(it.process.pid), *processes(it)]
        it.process.kill()
        await it.ended()
        async with patience("the workers to end"):
            while any(map(alive, pids)):
                await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


async def test_all_workers_end_when_the_forking_process_dies(tmp_path: Path) -> None:
    async with workers(tmp_path) as it:
        [forker] = children(it.process.pid)
        pids = processes(it)
        os.kill(forker, signal.SIGKILL)
        assert await it.ended() == 1
        assert [line.split(" do=")[0].split()[-1] for line in await it.told()] == ["event=forker_died"]
        async with patience("the workers to end"):
            while any(map(alive, pids)):
                await asyncio.sleep(0.01)


async def test_a_worker_is_replaced_while_the_forking_process_is_stopped(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        [forker] = children(it.process.pid)
        killed = await owner(it, clients[0])
        os.kill(forker, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        assert (await clients[1].request(it.good())).status == 200
        await it.says(f"event=worker_died worker=[12] pid={killed}")
        await it.says("event=worker_replaced")
        await serving(it, 2)
        assert it.process.returncode is None


async def test_a_silent_worker_is_replaced_and_its_waiting_clients_are_served(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        stopped = await owner(it, clients[0])
        os.kill(stopped, signal.SIGSTOP)
        async with AsyncExitStack() as open_ones:
            waiting = [await open_ones.enter_async_context(RawClient.to(it.addresses["proxy"])) for _ in range(20)]
            for client in waiting:
                await client.send(it.good())
            assert [(await client.response()).status for client in waiting] == [200] * 20
        await it.says(f"event=worker_silent worker=[12] pid={stopped}")
        assert not alive(stopped)
        assert await it.metric('jwt_sidecar_worker_replacements_total{why="silent"}') == 1
        assert (await clients[1].request(it.good())).status == 200


async def test_a_drain_does_not_wait_for_a_silent_worker(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        os.kill(await owner(it, clients[0]), signal.SIGSTOP)
        assert (await it.health("/readyz")).status == 200
        assert (await it.admin("POST", "/drain", {})).json()["draining"]
        assert (await it.health("/readyz")).body == b"draining\n"


async def test_a_change_that_a_worker_missed_fails_and_reaches_the_next_worker(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        os.kill(await owner(it, clients[0]), signal.SIGSTOP)
        answer = await it.admin("POST", "/denylist", {"iss": it.issuer.issuer, "sub": "alice"})
        assert (answer.status, answer.json()["error"][:22]) == (504, "Not done in every work")
        assert (await clients[1].request(it.good())).json()["code"] == "token_revoked"
        await it.says("event=worker_replaced")
        async with each(it) as later:
            for client in later:
                assert (await client.request(it.good())).json()["code"] == "token_revoked"


async def test_a_worker_refuses_commands_of_other_processes(tmp_path: Path) -> None:
    async with workers(tmp_path) as it:
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        inodes = {_link(path) for path in Path(f"/proc/{processes(it)[0]}/fd").iterdir()}
        names = [
            line[7][1:] for line in lines if len(line) > 7 and line[7][0] == "@" and f"socket:[{line[6]}]" in inodes
        ]
        assert len(names) >= 2
        for name in names:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(5)
                stranger.connect("\0" + name)
                stranger.sendall(
                    b"POST /worker/finish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n"
                )
                assert stranger.recv(1000).startswith(b"HTTP/1.1 403 ")
        for path in ("/worker", "/x/../worker", "/./worker", "/x/%2e%2e/worker", "//x/worker", "/%77orker"):
            assert (await it.admin("POST", f"{path}/finish", {})).status == 404
            assert (await it.admin("GET", f"{path}/configuration")).status == 404
        assert (await it.health("/readyz/../livez")).status == 404


async def test_the_last_of_two_entries_about_the_same_tokens_applies_in_a_later_worker() -> None:
    config = parse("issuers: {a: {issuer: 'https://a.example', audiences: any}}\nupstream: http://a", "c")
    clock, supervisor = HandClock(), Supervisor(config, cast(ForkServer, None), [])
    names = {"https://a.example": "a", "https://also.example": "a"}
    for iss, until in ((1, 100), (0, 200), (1, 300)):
        supervisor.keep_denied(Entry(list(names)[iss], "sub", "alice", ALWAYS, clock.wall() + until))
    later = DenyList(clock, names)
    later.have_added(supervisor.denied.values())
    clock.advance(250)
    assert later.denies("a", {"iss": "https://a.example", "sub": "alice"})


async def test_a_worker_started_during_an_outage_begins_with_the_snapshot(tmp_path: Path) -> None:
    async with workers(tmp_path, jwks_snapshot_dir=str(tmp_path)) as it:
        it.issuer.on_jwks = Answer(500)
        os.kill(processes(it)[0], signal.SIGKILL)
        await it.says("event=worker_replaced")
        async with each(it) as clients:
            for client in clients:
                assert (await client.request(it.good())).status == 200


async def test_a_port_in_use_is_reported_as_without_workers(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend, workers(tmp_path) as it:
        host, port = it.addresses["proxy"]
        file = tmp_path / "second.yaml"
        file.write_text(json.dumps(configuration(issuer, backend) | {"listen": f"{host}:{port}", "workers": 2}))
        process = await start(file)
        async with patience("the program to give up"):
            _, err = await process.communicate()
        assert process.returncode == 1
        assert err.decode().startswith(
            f"jwt-sidecar: listen: cannot listen on {host}:{port}: Address already in use; "
            "choose another address, or port 0 for a free port"
        )


async def test_a_file_that_a_worker_cannot_use_is_reported_at_the_start(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file = tmp_path / "config.yaml"
        tls = {"cert_file": str(tmp_path / "missing.crt")}
        file.write_text(json.dumps(configuration(issuer, backend) | {"tls": tls, "workers": 2}))
        process = await start(file)
        async with patience("the program to give up"):
            _, err = await process.communicate()
        assert process.returncode == 1
        assert f"jwt-sidecar: {tmp_path}/missing.crt: cannot be read: No such file or directory" in err.decode()


async def test_a_hundred_reloads_of_two_workers_lose_no_request(tmp_path: Path) -> None:
    async with workers(tmp_path) as it:
        file = tmp_path / "config.yaml"
        config = json.loads(file.read_text())
        more = config | {"routes": [{"path": "/open/*", "auth": "none"}], "limits": {"header_bytes": 16384}}
        async with load(lambda: it.addresses["proxy"], it.good("GET", "/x"), clients=10) as under_load:
            for number in range(1, 101):
                file.write_text(json.dumps(more if number % 2 else config))
                it.process.send_signal(signal.SIGHUP)
                await it.says("event=config_reloaded", 2 * number)
            await under_load.more(100)
        assert (set(under_load.answers), under_load.failed) == ({200}, [])
        assert await it.metric('jwt_sidecar_config_reloads_total{result="success"}') == 200
        assert await it.metric('jwt_sidecar_worker_replacements_total{why="died"}') == 0


async def test_workers_serve_on_a_full_disk(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file = tmp_path / "config.yaml"
        settings = {"workers": 2, "jwks_snapshot_dir": str(tmp_path)}
        file.write_text(json.dumps(configuration(issuer, backend) | settings))
        full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "  # every file is on a full disk
        it = await limited(file, full, issuer, backend)
        async with each(it) as clients:
            for client in clients:
                assert (await client.request(it.good())).status == 200
        await it.says("event=snapshot_not_written", 2)
        os.kill(processes(it)[0], signal.SIGKILL)
        await it.says("event=worker_replaced")
        it.process.terminate()
        assert await it.ended() == 0


async def test_workers_at_their_limit_of_descriptors_are_not_replaced(tmp_path: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(configuration(issuer, backend) | {"workers": 2}))
        few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (356, 356)); "
        it = await limited(file, few, issuer, backend)
        assert await it.metric("jwt_sidecar_connections_limit") == 100
        pids = processes(it)
        async with AsyncExitStack() as open_ones:
            for _ in range(800):
                await open_ones.enter_async_context(RawClient.to(it.addresses["proxy"]))
            async with patience("the workers to be full"):
                while await it.metric("jwt_sidecar_connections") < 100:
                    await asyncio.sleep(0.01)
            assert (await it.health("/readyz")).status == 200
            assert (await it.admin("POST", "/jwks/refresh", {})).status == 200
            assert processes(it) == pids
        it.process.terminate()
        assert await it.ended() == 0


async def test_a_pause_of_the_container_replaces_no_worker(tmp_path: Path) -> None:
    async with workers(tmp_path) as it, each(it) as clients:
        pids = processes(it)
        everybody = [it.process.pid, *children(it.process.pid), *pids]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2 * ALIVE_S)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            assert (await client.request(it.good())).status == 200
        await it.admin("POST", "/jwks/refresh", {})
        assert processes(it) == pids
