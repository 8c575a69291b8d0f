"""The program as a separate process, between a real issuer and a real backend."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.raw import RawClient, Response, fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request

LISTENERS = ("proxy", "health", "admin")


class Program:
    """`jwt-sidecar run` at work. `lines` is what it has written to stderr, `addresses` what it announced there."""

    def __init__(self, process: asyncio.subprocess.Process, issuer: ScriptedIssuer, backend: RawBackend) -> None:
        self.process = process
        self.issuer = issuer
        self.backend = backend
        self.addresses: dict[str, tuple[str, int]] = {}
        self.lines: list[str] = []
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._grown:
                self.lines.append(line.decode().rstrip("\n"))
                self._grown.notify_all()

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until this many lines have matched. Return the last one."""
        async with patience(f"{times} lines like {pattern}"), self._grown:
            while len(found := [match for line in self.lines if (match := re.search(pattern, line))]) < times:
                assert not self._reading.done(), f"the program ended before it printed {pattern}"
                await self._grown.wait()
        return found[times - 1]

    async def announced(self) -> None:
        """Read the three lines with its addresses."""
        for name in LISTENERS:
            found = await self.says(rf"^listening {name} http://(127\.0\.0\.1):(\d+)$")
            self.addresses[name] = (found[1], int(found[2]))

    def good(self, method: str = "GET", target: str = "/", **rest: Any) -> bytes:
        """A request of alice."""
        return request(method, target, token=self.issuer.token("EdDSA"), **rest)

    async def health(self, path: str) -> Response:
        """An answer of its health listener."""
        return await fetch(self.addresses["health"], request("GET", path))

    async def metric(self, series: str) -> float:
        """The value of a series, named as the text of /metrics does."""
        lines = (await self.health("/metrics")).body.decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{series} ")).rpartition(" ")[2])

    async def admin(self, method: str, path: str, body: Any = None) -> Response:
        """An answer of its admin listener."""
        raw = b"" if body is None else json.dumps(body).encode()
        headers = [("Content-Type", "application/json")]
        address = self.addresses["admin"]
        return await fetch(address, request(method, path, host="localhost", headers=headers, body=raw))

    async def until_unready(self) -> None:
        """Wait until its readiness reports the drain."""
        async with patience("/readyz to say 503"):
            while (await self.health("/readyz")).status != 503:
                await asyncio.sleep(0.01)

    async def ended(self) -> int:
        """Wait for its end. Return the exit code."""
        async with patience("the program to end"):
            await self._reading
            return await self.process.wait()

    async def told(self) -> list[str]:
        """The lines on its stderr that look like a failure."""
        await self._reading
        return [line for line in self.lines if re.search("Traceback|ERROR|CRITICAL|Error|never retrieved", line)]


@asynccontextmanager
async def program(
    tmp_path: Path, *, issuer: ScriptedIssuer | None = None, backend: RawBackend | None = None, **settings: Any
) -> AsyncIterator[Program]:
    """Run it with these settings in `config.yaml`, up to a first served request."""
    async with issuer or ScriptedIssuer(algs=["EdDSA"]) as issuer, backend or RawBackend() as backend:
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(configuration(issuer, backend) | settings))  # JSON is YAML
        async with started(file, issuer, backend) as it:
            yield it


@asynccontextmanager
async def started(file: Path, issuer: ScriptedIssuer, backend: RawBackend) -> AsyncIterator[Program]:
    """Run it with this file, up to a first served request. Remaining processes are killed at the end."""
    process = await start(file)
    it = Program(process, issuer, backend)
    try:
        await it.announced()
        assert (await fetch(it.addresses["proxy"], it.good())).status == 200
        yield it
    finally:
        if process.returncode is None:
            process.kill()
        await it.ended()


def configuration(issuer: ScriptedIssuer, backend: RawBackend) -> dict[str, Any]:
    """A file for this issuer and backend, on free ports."""
    return {
        "listen": "127.0.0.1:0",
        "health": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "issuers": {"main": {"issuer": issuer.issuer, "audiences": [AUDIENCE]}},
        "upstream": backend.url,
        "timeouts": {"drain_delay": "0s"},
    }


async def start(file: Path) -> asyncio.subprocess.Process:
    """`jwt-sidecar run` with this file."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "run", "-c", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def limited(file: Path, limits: str, issuer: ScriptedIssuer, backend: RawBackend) -> Program:
    """The same, after a line of Python that limits a resource of its process."""
    code = f"{limits}import sys; from sidecar.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "run", "-c", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    it = Program(process, issuer, backend)
    await it.announced()
    return it


async def accepts(address: tuple[str, int]) -> bool:
    """Does a program listen there?"""
    try:
        async with RawClient.to(address):
            return True
    except ConnectionError:
        return False
