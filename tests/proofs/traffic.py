"""Many clients at once against a sidecar process, judged by a model of HTTP/1.1 that shares no code with it.

    python -m tests.proofs.traffic --seconds 1800 --seed 1
    python -m tests.proofs.traffic --seed 1 --first 4711 --scenes 1     # the scene of that number, alone
    python -m tests.proofs.traffic --sources ../other --python ../other/.venv/bin/python     # of another working tree

A scene is a few connections of a few users; what each sends and what the backend answers comes of the seed and the scene's number
(`traffic_scenes`), who says that something is wrong are the clients and the backend (`traffic_peers`).
"""

import argparse
import asyncio
import json
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

import sidecar
from tests.peers import tokens
from tests.proofs import subject, verdict
from tests.proofs.http_model import Malformed
from tests.proofs.traffic_peers import PATIENCE_S, Backend, Client, Wrong, told
from tests.proofs.traffic_scenes import USERS, VARIANTS, Author, Case, Connection, Scene, Script, Step

SOURCES = Path(sidecar.__file__).parents[1]
LANES = 6  # scenes at a time
MOST_COMPLAINTS = 5
MOST_TOLD = 12_000
START_S = 30.0
SETTLED_S = 1.0  # without a change
TELL_S = 60.0
WARM_S = 20.0
MOST_GROWTH_MIB = 24.0  # from then to the end
RELOAD_EVERY_S = 10.0  # what is remembered begins anew with each
DAY_S = 86_400
MIB = 1 << 20


class Sidecar:
    """The process: its address, its log and its memory."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path, config: dict[str, Any]) -> None:
        self.process = process
        self.address = ("127.0.0.1", 0)
        self.reloads = 0
        self._log = directory / "output.log"
        self._file = directory / "config.yaml"
        self._config = config
        self._reloaded = 0.0

    async def listening(self) -> None:
        """Wait until it serves."""
        async with asyncio.timeout(START_S):
            while not (found := re.search(r"listening proxy http://127\.0\.0\.1:(\d+)", self._log.read_text())):
                if self.process.returncode is not None:
                    raise RuntimeError(f"the sidecar did not start: {self._log.read_text()}")
                await asyncio.sleep(0.02)
            while "keys_loaded" not in self._log.read_text():
                await asyncio.sleep(0.02)
        self.address = ("127.0.0.1", int(found[1]))

    def reload(self) -> None:
        """Change the realm, and add or remove a header with the subject. Not too often."""
        if time.monotonic() - self._reloaded < RELOAD_EVERY_S:
            return
        self._reloaded = time.monotonic()
        self.reloads += 1
        headers = {"X-JWT-Sub": "sub", "X-JWT-Iss": "iss"} | ({"X-JWT-Who": "sub"} if self.reloads % 2 else {})
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._config | {"realm": f"realm {self.reloads}", "identity_headers": headers}))
        new.replace(self._file)
        self.process.send_signal(signal.SIGHUP)

    def complaints(self) -> list[str]:
        """The lines of its log that report a fault."""
        pattern = "event=bug|Traceback|config_kept|never retrieved|CRITICAL"
        return [line for line in self._log.read_text(errors="replace").splitlines() if re.search(pattern, line)]

    @property
    def log_end(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    @property
    def memory_mib(self) -> float:
        """The resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    @property
    def descriptors(self) -> int:
        """The number of open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@asynccontextmanager
async def running(backend: str, python: str, sources: Path) -> AsyncIterator[Sidecar]:
    """Run the sidecar of these sources."""
    with tempfile.TemporaryDirectory(prefix="proof-") as name:
        directory = Path(name)
        (directory / "keys.json").write_text(json.dumps({"keys": [tokens.public_jwk("EdDSA")]}))
        keys = {"audiences": [tokens.AUDIENCE], "jwks_file": str(directory / "keys.json")}
        config: dict[str, Any] = {
            **{name: {"listen": "127.0.0.1:0"} for name in ("health", "admin")},
            "listen": "127.0.0.1:0",
            "issuers": {"main": {"issuer": tokens.ISSUER, **keys}},
            "upstream": backend,
            "access_log": "off",
            "identity_headers": {"X-JWT-Sub": "sub", "X-JWT-Iss": "iss"},
            "routes": [{"path": "/public/*", "auth": "none"}, {"path": "/maybe/*", "auth": "optional"}],
            "timeouts": {"drain_delay": "0s"},
        }
        (directory / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        with (directory / "output.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(python, "-m", "sidecar", "run", "-c", str(directory / "config.yaml")),
                cwd=sources,  # where `-m` looks first
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=log,
                stderr=log,
            )
        try:
            it = Sidecar(process, directory, config)
            await it.listening()
            yield it
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@dataclass
class Run:
    """Scenes, several at a time, until the time is over or too many have failed."""

    sidecar: Sidecar
    backend: Backend
    options: argparse.Namespace
    figures: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _tokens: dict[str, bytes] = field(default_factory=dict)
    _minted: Iterator[int] = field(default_factory=count)
    _last: deque[tuple[Scene, list[Client]]] = field(default_factory=lambda: deque(maxlen=200))

    def __post_init__(self) -> None:
        for user in USERS:
            for variant in range(VARIANTS):
                self._tokens[f"{user}.{variant}"] = self._mint(user)
            self._tokens[f"{user}.expired"] = self._mint(user, exp=int(time.time()) - DAY_S)
            header = {"kid": tokens.kid("EdDSA")}
            self._tokens[f"{user}.forged"] = self._mint(user, name="forger", header=header)
        without = {*self.options.without, *(["bad ends"] if self.options.forgiving else [])}
        self._author = Author(self._tokens, self._mint, frozenset(without))

    def _mint(self, user: str, **over: Any) -> bytes:
        lasting: dict[str, Any] = {"sub": user, "exp": int(time.time()) + DAY_S, "jti": f"{next(self._minted)}"}
        return tokens.token("EdDSA", **lasting | over).encode()

    async def scenes(self) -> None:
        """Play them."""
        first, began = self.options.first, time.monotonic()
        numbers = iter(count(first))

        async def lane() -> None:
            while time.monotonic() - began < self.options.seconds and len(self.failures) < self.options.failures:
                number = next(numbers)
                if number >= first + self.options.scenes or self.sidecar.process.returncode is not None:
                    return
                await self._play(self._author.scene(self.options.seed, number), began)

        await asyncio.gather(*(lane() for _ in range(LANES)))

    async def _play(self, scene: Scene, began: float) -> None:
        clients = [
            Client(connection, self.figures, self.options.patience, forgiving=self.options.forgiving)
            for connection in scene.connections
        ]
        self._last.append((scene, clients))
        self.backend.expect(scene)

        async def play(client: Client, after_s: float) -> None:
            await asyncio.sleep(after_s)
            await client.play(self.sidecar.address)

        parts = [play(client, after_s) for client, after_s in zip(clients, scene.starts, strict=True)]
        ends = await asyncio.gather(*parts, self._reload(scene.reload_after_s), return_exceptions=True)
        self.figures["scenes"] += 1
        self.figures["connections"] += len(clients)
        self.figures["requests sent"] += sum(len(one.cases) for one in scene.connections)
        if self.sidecar.process.returncode is not None:
            return  # which is the failure
        for number, end in enumerate(ends, 1):
            if isinstance(end, Wrong | Malformed | OSError):
                self._fail(scene.number, f"connection {number}: {end!r}", began, number)
            elif isinstance(end, BaseException):
                raise end
        for number, wrong in self.backend.failures:
            self._fail(number, wrong, began)
        self.backend.failures.clear()

    async def _reload(self, after_s: float | None) -> None:
        if after_s is not None:
            await asyncio.sleep(after_s)
            self.sidecar.reload()

    def _fail(self, number: int, wrong: str, began: float, connection: int = 0) -> None:
        """Print the fault, and the sent and received bytes of one connection of the scene, or of all (0)."""
        after = f"after {self.figures['scenes']} scenes and {time.monotonic() - began:.1f} s"
        self.failures.append(wrong)
        print(f"scene {number} of seed {self.options.seed}, {after}: {wrong[:3000]}", flush=True)
        for scene, clients in self._last:
            if scene.number == number:
                for at, (one, client) in enumerate(zip(scene.connections, clients, strict=True), 1):
                    if connection in (0, at):
                        print(f"connection {at}: {told(one, client, self._tokens)[:MOST_TOLD]}", flush=True)

    async def good(self) -> None:
        """An ordinary request is served. Raises Wrong."""
        case = Case("ffffff-1", "GET", "/t/ffffff-1", "good", "alice", owner="alice", sent=1)
        case.head = b"GET /t/ffffff-1 HTTP/1.1\r\nHost: sidecar.test\r\nX-Own: alice\r\n"
        case.head += b"Authorization: Bearer " + self._tokens["alice.0"] + b"\r\n\r\n"
        case.script = Script([(0.0, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")], body=b"good")
        connection = Connection([case], [Step(case.head)])
        self.backend.expect(Scene(0xFFFFFF, [connection]))
        await Client(connection, Counter()).play(self.sidecar.address)
        if self.backend.failures:
            raise Wrong(self.backend.failures[0][1])


@dataclass
class Memory:
    """The memory of the process: warm, at the most, and at the end."""

    warm: float = math.nan
    peak: float = 0.0
    last: float = 0.0

    async def follow(self, run: Run, warm_s: float) -> None:
        """Measure it every second, and print the progress every minute."""
        began = told_at = time.monotonic()
        while run.sidecar.process.returncode is None:
            self.last = run.sidecar.memory_mib
            self.peak = max(self.peak, self.last)
            if math.isnan(self.warm) and time.monotonic() - began >= warm_s:
                self.warm = self.last
            if time.monotonic() - told_at > TELL_S:
                told_at = time.monotonic()
                print(f"{run.figures['scenes']} scenes, {len(run.failures)} failures, {self.last:.0f} MiB", flush=True)
            await asyncio.sleep(1.0)


async def settled(sidecar: Sidecar, backend: Backend, most: int = 0) -> int:
    """The number of open descriptors after the backend has ended all connections: `most`, or where it stays."""
    backend.drop()
    found, since = sidecar.descriptors, time.monotonic()
    while found > most and time.monotonic() - since < SETTLED_S:
        await asyncio.sleep(0.05)
        if (now := sidecar.descriptors) != found:
            found, since = now, time.monotonic()
    return found


async def prove(options: argparse.Namespace) -> int:
    """Run it. Return the number of failures."""
    backend = Backend()
    async with running(await backend.start(), options.python, options.sources) as sidecar:
        run = Run(sidecar, backend, options)
        await run.good()
        before = await settled(sidecar, backend)
        memory = Memory()
        following = asyncio.create_task(memory.follow(run, WARM_S))
        began = time.monotonic()
        await run.scenes()
        took = time.monotonic() - began
        following.cancel()
        if sidecar.process.returncode is not None:
            run.failures.append(f"the sidecar ended with {sidecar.process.returncode} after {sidecar.log_end}")
        else:
            try:
                await run.good()
            except (Wrong, Malformed, OSError) as error:
                run.failures.append(f"at the end an ordinary request: {error}")
            after = await settled(sidecar, backend, before)
            if after > before:
                run.failures.append(f"{before} descriptors before, {after} after")
            print(f"descriptors {before} before, {after} after; {sidecar.reloads} reloads")
        run.failures += sidecar.complaints()[:MOST_COMPLAINTS]
        if memory.last > memory.warm + MOST_GROWTH_MIB:  # never where it did not run long enough to be warm
            run.failures.append("memory grew")
        await backend.stop()
    for failure in run.failures:
        print(f"failure: {failure[:1000]}")
    print(
        f"memory {memory.warm:.0f} MiB after {WARM_S:.0f} s, {memory.peak:.0f} MiB at most, {memory.last:.0f} MiB at the end"
    )
    told_figures = ", ".join(f"{value} {name}" for name, value in run.figures.items())
    print(f"{told_figures}, {backend.requests} requests at the backend on {backend.connections} connections")
    rate = run.figures["answers"] / took
    print(
        f"seed {options.seed}: {run.figures['scenes']} scenes in {took:.0f} s, {rate:.0f} answers/s, {len(run.failures)} failures"
    )
    return len(run.failures)


def main() -> int:
    """0: no rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0, help="the number of the first scene")
    parser.add_argument("--scenes", type=float, default=math.inf, help="so many at most")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="the directory with the package `sidecar` to run")
    parser.add_argument("--python", default=sys.executable, help="what to run it with")
    parser.add_argument("--failures", type=int, default=20, help="so many end the run")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds that a client waits for more")
    parser.add_argument("--without", action="append", default=[], help="leave out a kind of answer, such as `stray`")
    parser.add_argument("--forgiving", action="store_true", help="allow three faults of sources up to 61441b6")
    options = parser.parse_args()
    print(subject(options.sources / "sidecar"), flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return verdict(runner.run(prove(options)))


if __name__ == "__main__":
    sys.exit(main())
