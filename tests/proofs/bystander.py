"""The effect of one client's load on others: a bystander with a valid token, and a kubelet that asks /livez.

    python -m tests.proofs.bystander [--seconds 10] [--only "no token"]

The sidecar, the backend and the load are a process each; the bystander and the kubelet live in this one, before which the
backend and the load have to step back (nice). The bystander asks every 20 ms on its own connection, the kubelet every 50 ms on
a new one; a time is from the request to the whole answer, and a waiting client sends nothing in between.
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import quantiles

import uvloop

from sidecar.cli.dev.issuer import Issuer
from tests.peers.raw import fetch
from tests.peers.wire import WEBSOCKET, chunked, request
from tests.proofs import subject, verdict
from tests.proofs.idle import Address, Client, idle_clients
from tests.proofs.running import AUDIENCE, Sidecar, running

MOST_MS = 100.0  # for /livez: a tenth of a kubelet's default timeout
BURST = 256 << 10
SETTLE_S = 1.0  # for a load to begin, and for its remains to end
CONNECTIONS = 4  # of a flood
BYTEWISE = 200  # connections that send their heads byte by byte
READERS = 40  # each fills 5 to 15 MiB of the kernel; without memory for TCP no program here can continue
LARGE = 64 << 20
NICE = 10
TOKEN, FORGED = b"TOKEN", b"FORGED"  # placeholders for the tokens
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
TINY = b"1\r\nx\r\n" * 10_000


@dataclass
class Flood:
    """The bytes of each connection: `first` once, then `again` as long as it is read; answers are dropped."""

    first: bytes = b""
    again: bytes = b""
    connections: int = CONNECTIONS


def _burst(raw: bytes) -> bytes:
    return raw * (BURST // len(raw))


def _post(headers: list[tuple[str, str]]) -> bytes:
    return request("POST", "/body", token=TOKEN.decode(), headers=headers)


_CHUNKED = _post([("Transfer-Encoding", "chunked")])
FLOODS = {
    "no token": Flood(again=_burst(request("GET", "/x"))),
    "forged tokens": Flood(again=_burst(request("GET", "/x", token=FORGED.decode()))),
    "paths of 2,000 slashes": Flood(again=_burst(request("GET", "/" * 2000))),
    "encoded slashes": Flood(again=_burst(request("GET", "/a" + "%2F..%2F" * 200))),
    "good requests": Flood(again=_burst(request("GET", "/x", token=TOKEN.decode()))),
    "empty frames": Flood(
        request("GET", "/", token=TOKEN.decode(), headers=WEBSOCKET), b"\x82\x80\x01\x02\x03\x04" * 10_000
    ),
    "tiny chunks up": Flood(_CHUNKED, TINY),
    "tiny chunks down": Flood(request("GET", "/chunks", token=TOKEN.decode())),
    "103s": Flood(request("GET", "/hints", token=TOKEN.decode())),
    "trailers": Flood(again=_CHUNKED + chunked([b"x"], [("X-A", "x" * 32_000)] * 97)),
    "empty lines": Flood(again=b"\r\n" * 10_000),
}
LOADS = [*FLOODS, "heads byte by byte", "slow readers"]
IDLE = "nothing"


# The load


class _Pouring(asyncio.Protocol):
    def __init__(self, flood: Flood) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._flood = flood
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        transport.set_write_buffer_limits(BURST)  # type: ignore[attr-defined]
        self._transport.write(self._flood.first)
        self._pour()

    def data_received(self, data: bytes) -> None:
        pass

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pour()

    def connection_lost(self, exc: Exception | None) -> None:
        self._paused = True
        self.ended.set_result(None)

    def _pour(self) -> None:
        while self._flood.again and not self._paused and not self._transport.is_closing():
            self._transport.write(self._flood.again)


async def _flood(proxy: Address, flood: Flood) -> None:
    while True:
        with suppress(OSError):
            _, pouring = await asyncio.get_running_loop().create_connection(lambda: _Pouring(flood), *proxy)
            await pouring.ended
        await asyncio.sleep(0.01)


async def _bytewise(proxy: Address, head: bytes) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(*proxy)
            for at in range(len(head)):
                writer.write(head[at : at + 1])
                await asyncio.sleep(0)
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()


async def _read_slowly(proxy: Address, raw: bytes) -> None:
    loop = asyncio.get_running_loop()
    while True:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        with connection, suppress(OSError):
            await loop.sock_connect(connection, proxy)
            await loop.sock_sendall(connection, raw)
            while await loop.sock_recv(connection, 1024):
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.01)


def put_under(name: str, proxy: Address, token: bytes, forged: bytes) -> None:
    """The process of a load; it runs until it is killed."""
    os.nice(NICE)

    def filled(raw: bytes) -> bytes:
        return raw.replace(TOKEN, token).replace(FORGED, forged)

    async def run() -> None:
        if name in FLOODS:
            flood = FLOODS[name]
            flood = Flood(filled(flood.first), filled(flood.again), flood.connections)
            clients: list[Coroutine[None, None, None]] = [_flood(proxy, flood) for _ in range(flood.connections)]
        elif name == "slow readers":
            clients = [_read_slowly(proxy, request("GET", "/large", token=token.decode())) for _ in range(READERS)]
        else:
            clients = [_bytewise(proxy, request("GET", "/x", token=token.decode())) for _ in range(BYTEWISE)]
        await asyncio.gather(*clients)

    uvloop.run(run())


# The backend


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"\r\nupgrade:" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                while await reader.read(BURST):
                    pass
                break
            if b"\r\ntransfer-encoding:" in head:
                rest = b""
                while not rest.endswith(b"0\r\n\r\n"):
                    piece = await reader.read(BURST)
                    if not piece:
                        return
                    rest = (rest + piece)[-5:]
            path = head.split(b" ", 2)[1]
            if path == b"/chunks":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while path in (b"/chunks", b"/hints"):
                writer.write(TINY if path == b"/chunks" else HINT * 1000)
                await writer.drain()
            if path == b"/large":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BURST)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
                for _ in range(LARGE // BURST):
                    writer.write(bytes(BURST))
                    await writer.drain()
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
    writer.close()


def answer_all(where: Connection) -> None:
    """The process of the backend; it runs until it is killed."""
    os.nice(NICE)

    async def run() -> None:
        server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1024)
        where.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


# The bystander


@dataclass
class Seen:
    """The durations of answers, and the number of missing and of wrong ones."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def cells(self) -> str:
        """Median, p99 and the longest, in milliseconds."""
        if len(self.seconds) < 2:
            return f"{'|'.join(f' {second * 1e3:,.0f} ' for second in self.seconds) or ' - '}| - | - "
        percent = quantiles(self.seconds, n=100, method="inclusive")
        return "|".join(f" {value * 1e3:,.1f} " for value in (percent[49], percent[98], max(self.seconds)))


async def every(interval_s: float, until: float, ask: Callable[[], Coroutine[None, None, bool]]) -> Seen:
    """Send a request at each multiple of the interval at which none waits for an answer; one that waits at the end counts too."""
    seen = Seen()
    while (began := time.perf_counter()) < until:
        if await ask():
            seen.seconds.append(time.perf_counter() - began)
        else:
            seen.failed += 1
        took = time.perf_counter() - began
        await asyncio.sleep(interval_s - took % interval_s)
    return seen


async def look_on(proxy: Sidecar, clients: list[Client], raw: bytes, seconds: float) -> tuple[Seen, Seen]:
    """The bystander with its connection, and the kubelet, for this many seconds."""
    probe = request("GET", "/livez")

    async def bystander() -> bool:
        if clients[0].lost:
            with suppress(OSError):
                clients[:] = await idle_clients(proxy.proxy, raw, 1)
        return await clients[0].ask()

    async def kubelet() -> bool:
        try:
            return (await fetch(proxy.health, probe)).status == 200
        except (OSError, AssertionError):  # no answer within the patience of the tests
            return False

    until = time.perf_counter() + seconds
    both = await asyncio.gather(every(0.02, until, bystander), every(0.05, until, kubelet))
    clients[0].transport.abort()
    return both[0], both[1]


@asynccontextmanager
async def under(name: str, proxy: Sidecar, token: str, forged: str) -> AsyncIterator[None]:
    """A load during the block."""
    process = None
    if name != IDLE:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=put_under, args=(name, proxy.proxy, token.encode(), forged.encode()))
        process.start()
    try:
        await asyncio.sleep(2 * SETTLE_S)  # the start of a process takes a part of it
        yield
    finally:
        if process is not None:
            process.kill()
            process.join()


async def show(names: list[str], backend: str, seconds: float) -> int:
    """Print a row for each load, each with its own sidecar. Return the number of loads that slow others too much."""
    issuer = Issuer("https://issuer.test", audience=AUDIENCE)
    token = issuer.mint("EdDSA", 86_400)
    raw = request("GET", "/", token=token)
    head, _, signature = token.rpartition(".")
    forged = f"{head}.{signature[:10][::-1]}{signature[10:]}"
    print(
        "| load | bystander: median | p99 | longest, ms | /livez: median | p99 | longest, ms | answers | none, or wrong |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    failures = 0
    for name in names:
        with running(backend, issuer) as proxy:
            clients = await idle_clients(proxy.proxy, raw, 1)
            async with under(name, proxy, token, forged):
                bystander, kubelet = await look_on(proxy, clients, raw, seconds)
            answers = f"{len(bystander.seconds)} + {len(kubelet.seconds)}"
            failed = bystander.failed + kubelet.failed
            print(f"| {name} |{bystander.cells()}|{kubelet.cells()}| {answers} | {failed} |", flush=True)
            failures += failed > 0 or max(kubelet.seconds, default=1.0) * 1e3 > MOST_MS
            for line in proxy.bugs():
                print(line)
                failures += 1
    return failures


def main() -> int:
    """0: every request was answered, /livez within MOST_MS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load (default: %(default)s)")
    parser.add_argument("--only", choices=LOADS, action="append", help="this load, beside none (default: all)")
    options = parser.parse_args()
    print(subject(), flush=True)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    backend = context.Process(target=answer_all, args=(there,), daemon=True)
    backend.start()
    try:
        names = [IDLE, *(options.only or LOADS)]
        return verdict(uvloop.run(show(names, f"http://127.0.0.1:{here.recv()}", options.seconds)))
    finally:
        backend.kill()


if __name__ == "__main__":
    sys.exit(main())
