"""Two gateway processes change their signing key under load, in front of a sidecar process: no request may fail.

python -m tests.proofs.rotation [--connections 32]

The second gateway gets the changed file LATE_S after the first one, as from a mounted Secret. Takes about four minutes.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.process import reserved_port
from sidecar.cli.main import main as command
from sidecar.gateway.key_ring import KeyRing
from tests.peers.backend import RawBackend
from tests.peers.forward import Balancer
from tests.peers.gateway import AUDIENCE, Keys
from tests.peers.raw import RawClient, fetch
from tests.peers.wire import request
from tests.proofs import subject, verdict
from tests.real.process import run

LATE_S, AHEAD_S, KEEP_S, TTL_S, LEARN_S = 10, 90, 40, 20, 72
PAUSE_S = 0.05  # between two requests of a connection


async def proof(connections: int, directory: Path) -> bool:
    """Run everything. Did no request fail, and has the key changed everywhere?"""
    paths = [directory / name for name in ("a", "b")]
    for path in paths:
        path.mkdir()
    first, second = Keys(paths[0]), Keys(paths[1])
    alice = first.new("alice")
    for file in (first.api_keys, first.signing):
        shutil.copy(file, paths[1])
    async with AsyncExitStack() as running:
        backend = await running.enter_async_context(RawBackend())
        balancer = await running.enter_async_context(Balancer())
        issuer = f"{balancer.url}/issuer"
        trusted = {"issuer": issuer, "audiences": [AUDIENCE], "clock_skew": "0s"}
        behind = running.enter_context(reserved_port())
        for keys in (first, second):
            upstream = {"url": f"http://127.0.0.1:{behind}", "token": {"audience": AUDIENCE, "ttl": f"{TTL_S}s"}}
            signing = {"issuer": issuer, "keys_file": str(keys.signing)}
            settings = keys.settings("x", upstreams={"main": upstream}, signing=signing)
            url = await running.enter_async_context(sidecar(keys.signing.parent, settings))
            host, _, port = url.removeprefix("http://").rpartition(":")
            balancer.places.append((host, int(port)))
        settings = {"issuers": {"gateway": trusted}, "upstream": backend.url, "listen": f"127.0.0.1:{behind}"}
        await running.enter_async_context(sidecar(directory, settings))
        told: Counter[int] = Counter()
        ends = asyncio.Event()
        load = [asyncio.create_task(client(balancer.address, alice, told, ends)) for _ in range(connections)]
        load.append(asyncio.create_task(forget(backend, ends)))
        await asyncio.sleep(LATE_S)
        arguments = ["--ahead", f"{AHEAD_S}s", "--keep", f"{KEEP_S}s"]
        assert command(["keys", "rotate", str(first.signing), *arguments]) == 0
        await asyncio.sleep(LATE_S)
        shutil.copy(first.signing, second.signing)
        await asyncio.sleep(AHEAD_S + KEEP_S + LEARN_S)
        ends.set()
        await asyncio.gather(*load)
        wanted = KeyRing.read(first.signing.read_bytes()).keys[-1].key.kid
        page = request("GET", "/issuer/.well-known/jwks.json")
        kids = [[key["kid"] for key in (await fetch(place, page)).json()["keys"]] for place in balancer.places]
        print(f"answers by status: {dict(told)}; only the new key is published: {kids == [[wanted]] * 2}", flush=True)
        return told.keys() == {200} and kids == [[wanted]] * 2


def sidecar(directory: Path, settings: dict[str, Any]) -> Any:
    """`jwt-sidecar run` with these settings, in the directory."""
    listeners = {name: {"listen": "127.0.0.1:0"} for name in ("health", "admin")}
    config = {"listen": "127.0.0.1:0", **listeners, "access_log": "off", "timeouts": {"drain_delay": "0s"}, **settings}
    file = directory / "config.yaml"
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    program = str(Path(sys.executable).with_name("jwt-sidecar"))
    announces = r"listening proxy (\S+).*listening admin \S+\n"
    return run(program, "run", "-c", str(file), announces=announces, never="event=bug")


async def client(address: tuple[str, int], key: str, told: Counter[int], ends: asyncio.Event) -> None:
    """One request after the other, on connections of a hundred each."""
    while not ends.is_set():
        async with RawClient.to(address) as connection:
            for _ in range(100):
                told[(await connection.request(request("GET", "/", token=key))).status] += 1
                if ends.is_set():
                    break
                await asyncio.sleep(PAUSE_S)


async def forget(backend: RawBackend, ends: asyncio.Event) -> None:
    """Clear the requests that the backend has recorded."""
    while not ends.is_set():
        await asyncio.sleep(1)
        backend.requests.clear()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, default=32)
    print(subject(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(verdict(not asyncio.run(proof(options.parse_args().connections, Path(scratch)))))
