"""Thousands of idle clients and hundreds of slow ones, while ordinary requests are still answered.

    python -m tests.proofs.soak [--seconds 60]

1. What an idle keep-alive connection costs, beside Envoy: `idle.compare`.
2. IDLE idle connections, and SLOW slow ones of three kinds: heads that come byte by byte, bodies that come drop by drop, readers
   that take an answer drop by drop. At the same time ordinary requests, each of which must be answered 200. At the end every idle
   connection must still answer, and when all have gone nothing of them may be left.
"""

import argparse
import asyncio
import contextlib
import math
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import quantiles

import uvloop

from sidecar.cli.dev.issuer import Issuer
from tests.peers.raw import fetch
from tests.peers.wire import request
from tests.proofs import subject, verdict
from tests.proofs.idle import IDLE, Address, compare, idle_clients, unanswered
from tests.proofs.running import AUDIENCE, Sidecar, descriptors, memory_mib, running

SLOW = 500
BIG_BYTES = 8 << 20
ORDINARY = 8  # clients that send one request after the other
CONNECTIONS = {"upstream_connections": 1000}
"""Slow bodies and slow readers each keep a connection to the backend: there must be more than of them."""
ROUNDS = 2  # the second shows whether the first has left memory in use
LEFT_S = 30.0  # for all connections to end; idle ones to the backend stay for a few seconds


@contextlib.asynccontextmanager
async def backend() -> AsyncIterator[str]:
    """Answers /big with BIG_BYTES and other targets with a few, after the request's body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].split(b"\r")[0] or 0)
                while length:
                    length -= len(await reader.read(length)) or length
                body = bytes(BIG_BYTES) if head.startswith(b"get /big ") else b"hello"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Slow:
    """The slow clients; `ends` counts how their connections ended, by kind."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self.ends: Counter[str] = Counter()
        self.taken = 0

    async def head(self) -> None:
        """Sends a head byte by byte; it must be cut off, and connects again."""
        raw = request("GET", "/", token=self._token)
        await self._again_and_again("heads cut off", lambda writer: self._drip(writer, raw, 1, 0.5))

    async def body(self) -> None:
        """Sends a body ten bytes at a time."""
        raw = request("POST", "/", token=self._token, body=bytes(1_000_000))
        at = raw.index(b"\r\n\r\n") + 4

        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(raw[:at])
            await self._drip(writer, raw[at:], 10, 0.2)

        await self._again_and_again("bodies cut off", send)

    async def reader(self) -> None:
        """Reads an answer that is much larger than all buffers, a kilobyte at a time."""
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        with connection:
            await loop.sock_connect(connection, self._address)
            await loop.sock_sendall(connection, request("GET", "/big", token=self._token))
            while piece := await loop.sock_recv(connection, 1024):
                self.taken += len(piece)
                await asyncio.sleep(0.2)
        self.ends["readers cut off"] += 1

    async def _again_and_again(self, end: str, send: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        while True:
            reader, writer = await asyncio.open_connection(*self._address)
            sending = asyncio.ensure_future(send(writer))
            try:
                with contextlib.suppress(ConnectionError):
                    await reader.read(1)
                self.ends[end] += 1
            finally:
                sending.cancel()
                writer.transport.abort()

    async def _drip(self, writer: asyncio.StreamWriter, raw: bytes, step: int, pause_s: float) -> None:
        for at in range(0, len(raw), step):
            writer.write(raw[at : at + step])
            await asyncio.sleep(pause_s)


async def ordinary(address: Address, raw: bytes, latencies: list[float], failed: Counter[str]) -> None:
    """One request after the other, until cancelled."""
    while True:
        [client] = await idle_clients(address, raw, 1)
        try:
            while not client.lost:
                began = time.perf_counter()
                if await client.ask():
                    latencies.append(time.perf_counter() - began)
                else:
                    failed["ordinary requests"] += 1
                await asyncio.sleep(0.01)
        finally:
            client.transport.close()


async def soak(proxy: Sidecar, token: str, seconds: float, before: int) -> int:
    """The number of faults; `before` is the number of open descriptors without clients."""
    raw = request(token=token)
    before_mib = memory_mib(proxy.pid, "VmRSS")
    idle = await idle_clients(proxy.proxy, raw, IDLE)
    slow = Slow(proxy.proxy, token)
    kinds = (slow.head, slow.body, slow.reader)
    latencies: list[float] = []
    failed: Counter[str] = Counter()
    tasks = [asyncio.ensure_future(kinds[number % 3]()) for number in range(SLOW)]
    tasks += [asyncio.ensure_future(ordinary(proxy.proxy, raw, latencies, failed)) for _ in range(ORDINARY)]
    await asyncio.sleep(seconds)
    full, full_mib = descriptors(proxy.pid), memory_mib(proxy.pid, "VmRSS")
    in_flight = await gauge(proxy)
    failed["idle clients"] += await unanswered(idle)
    for task in tasks:
        if task.done() and (error := task.exception()) is not None:
            failed[f"clients: {error!r}"] += 1
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for client in idle:
        client.transport.close()
    left = await settled(proxy, before)
    percent = quantiles(latencies or [math.nan] * 2, n=100)
    for line in (
        f"{IDLE} idle and {SLOW} slow clients for {seconds:.0f} s; {in_flight:.0f} requests in flight",
        f"ordinary requests answered 200: {len(latencies)}, p50 {percent[49] * 1e3:.1f} ms, p99 {percent[98] * 1e3:.1f} ms; "
        f"not: {failed['ordinary requests']}",
        f"idle clients that did not answer at the end: {failed['idle clients']}",
        f"slow clients: {dict(slow.ends)}, {slow.taken >> 10} KiB taken by the readers",
        f"descriptors: {before} without clients, {full} with all, {left} after",
        f"memory: {before_mib:.0f} MiB before, {full_mib:.0f} with all, {memory_mib(proxy.pid, 'VmRSS'):.0f} after",
    ):
        print(line, flush=True)
    if left > before or await gauge(proxy) > 0:
        failed["leaks"] += 1
    for line in proxy.bugs():
        print(line)
        failed["bugs"] += 1
    return sum(failed.values())


async def settled(proxy: Sidecar, most: int) -> int:
    """The number of open descriptors, once there are at most `most`, or after LEFT_S."""
    deadline = time.monotonic() + LEFT_S
    while (now := descriptors(proxy.pid)) > most and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return now


async def gauge(proxy: Sidecar) -> float:
    """The requests in flight on /metrics."""
    metrics = (await fetch(proxy.health, request(target="/metrics"))).body.decode()
    return float(metrics.partition("\njwt_sidecar_requests_in_flight ")[2].split("\n")[0])


def main() -> int:
    """0: everything was answered and nothing is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of idle and slow clients together (default: %(default)s)"
    )
    seconds: float = parser.parse_args().seconds
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the proxies, its children, inherit it
    print(f"{subject()}; {hard} descriptors (were {soft})", flush=True)
    failures = compare()
    issuer = Issuer("https://issuer.test", audience=AUDIENCE)

    async def run() -> int:
        async with backend() as url:
            # Idle clients are to be there at the end of a round, however long that is.
            timeouts = {"keep_alive": f"{seconds + 60:.0f}s", "drain_delay": "0s"}
            with running(url, issuer, limits=CONNECTIONS, timeouts=timeouts) as proxy:
                before, token = descriptors(proxy.pid), issuer.mint("EdDSA", 86_400)
                return sum([await soak(proxy, token, seconds, before) for _ in range(ROUNDS)])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failures += runner.run(run())
    return verdict(failures)


if __name__ == "__main__":
    sys.exit(main())
