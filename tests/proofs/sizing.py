"""`make sizing`: the memory of one more of each thing, for docs/how/size.md.

Each is measured as the resident memory of a `jwt-sidecar run` with many of them less that without, divided by their number.
"""

import asyncio
import contextlib
import json
import resource
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from sidecar.cli.dev.issuer import Issuer
from sidecar.gateway.signing_key import key_set
from tests.peers.raw import fetch
from tests.peers.wire import request
from tests.proofs.running import AUDIENCE, Sidecar, memory_mib, running

SETTLE_S = 2.0
MANY = {"connection": 4000, "WebSocket": 1000, "request in flight": 900}
TOKENS = {0: 4000, 140: 800, 640: 250}
"""The number of groups in a token -> the number of such tokens. All of them are remembered."""
HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A backend that accepts every upgrade, and answers nothing else but GET /."""

    for_ever = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"pgrade: websocket" in head:
                    accept = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                    )
                    await for_ever.wait()
                if not head.startswith(b"GET / "):
                    await for_ever.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def opened(proxy: Sidecar, raw: bytes, number: int, answered: bool) -> list[asyncio.StreamWriter]:
    """This many connections, each with one sent request; `answered` waits for the head of its answer."""
    writers: list[asyncio.StreamWriter] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*proxy.proxy)
        writer.write(raw)
        if answered:
            await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)

    for _ in range(0, number, 50):
        await asyncio.gather(*(one() for _ in range(50)))
    return writers


async def of_connections(url: str, issuer: Issuer, name: str) -> float:
    """KiB of each connection of a kind, in a new process."""
    token = issuer.mint("EdDSA", sub="alice")
    raw = {
        "connection": request(token=token),
        "WebSocket": request(token=token, headers=HANDSHAKE),
        "request in flight": request(target="/never", token=token),
    }[name]
    with running(url, issuer) as proxy:
        for _ in range(20):
            await fetch(proxy.proxy, request(token=token))
        await asyncio.sleep(SETTLE_S)
        without = memory_mib(proxy.pid, "VmRSS")
        writers = await opened(proxy, raw, MANY[name], answered=name != "request in flight")
        await asyncio.sleep(SETTLE_S)
        found = (memory_mib(proxy.pid, "VmRSS") - without) * 1024 / MANY[name]
        for writer in writers:
            writer.transport.abort()
        return found


async def of_tokens(url: str, issuer: Issuer, groups: int, number: int) -> tuple[int, float]:
    """(bytes of a token with this number of groups, bytes of one more remembered token). All claims go into a header."""
    names = [f"department-{at:04}" for at in range(groups)]
    limits = {"claims_header_bytes": 32768, "identity_headers_bytes": 65536}
    with running(url, issuer, limits=limits) as proxy:

        async def served(first: int, last: int) -> str:
            for at in range(first, last):
                token = issuer.mint("RS256", sub=f"user-{at}", groups=names, jti=f"{at:032x}")
                assert (await fetch(proxy.proxy, request(token=token))).status == 200
            return token

        await served(0, 50)
        without = memory_mib(proxy.pid, "VmRSS")
        token = await served(50, 50 + number)
        return len(token), (memory_mib(proxy.pid, "VmRSS") - without) * 2**20 / number


async def at_rest(url: str, issuer: Issuer, **settings: Any) -> float:
    """MiB of a process that has served a first request."""
    with running(url, issuer, **settings) as proxy:
        assert (await fetch(proxy.proxy, request(token=issuer.mint("EdDSA", sub="alice")))).status == 200
        await asyncio.sleep(SETTLE_S)
        return memory_mib(proxy.pid, "VmRSS")


async def measure() -> None:
    """Print a line for each."""
    issuer = Issuer("https://issuer.test", audience=AUDIENCE)
    async with silent() as url:
        base = await at_rest(url, issuer)
        print(f"the process: {base:.0f} MiB", flush=True)
        for kind in MANY:
            print(f"{kind}: {await of_connections(url, issuer, kind):.1f} KiB", flush=True)
        for groups, number in TOKENS.items():
            size, taken = await of_tokens(url, issuer, groups, number)
            print(f"token of {size:,} bytes: {taken:,.0f} bytes", flush=True)
        routes = [{"path": f"/team-{at}/*", "require": {"scopes": [f"team-{at}"]}} for at in range(2000)]
        print(f"route: {(await at_rest(url, issuer, routes=routes) - base) * 1024 / 2000:.1f} KiB", flush=True)
        with tempfile.TemporaryDirectory() as name:
            denied = Path(name, "denied.json")
            for number in (100_000, 200_000):
                denied.write_text(json.dumps([{"iss": issuer.issuer, "jti": f"{at:032x}"} for at in range(number)]))
                more = await at_rest(url, issuer, denylist_file=str(denied)) - base
                print(f"deny list of {number} entries: {more:.1f} MiB", flush=True)
            keys = Path(name, "keys.json")
            keys.write_text(json.dumps(key_set(issuer.keys)))
            more_issuers = {
                f"tenant-{at}": {"issuer": f"https://{at}.test/", "audiences": ["a"], "jwks_file": str(keys)}
                for at in range(200)
            }
            more_issuers["main"] = {"issuer": issuer.issuer, "audiences": [AUDIENCE], "jwks_file": str(keys)}
            more = await at_rest(url, issuer, issuers=more_issuers) - base
            print(f"issuer of {len(issuer.keys)} keys: {more * 1024 / 200:.0f} KiB", flush=True)


def main() -> int:
    """Measure."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
