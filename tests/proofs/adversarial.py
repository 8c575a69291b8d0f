"""`make adversarial`: hundreds of slow peers, thousands of idle ones and a flood, inside the memory of the shipped pod.

500 clients that read an answer of 8 MiB slowly, 500 that send a body slowly, as many idle connections as there may be, and 20
that send requests without a token as fast as they can, all at once; GOOD clients with a token ask all the while, and some before.
At the end the process is alive, has held less than the limit of the shipped container, and has answered the good clients.
"""

import argparse
import asyncio
import contextlib
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop
import yaml

from sidecar.cli.dev.issuer import Issuer
from tests.peers.raw import read_response
from tests.peers.wire import request
from tests.proofs.running import AUDIENCE, MIB, Sidecar, memory_mib, running

READERS = WRITERS = 500
IDLE = 10_000
FLOODING = 20
GOOD = 10
ANSWER_BYTES = 8 * MIB
ROUTES = [{"path": "/public/*", "auth": "none"}]
MANIFEST = Path(__file__).parents[2] / "deploy/kustomize/component/sidecar.yaml"

Address = tuple[str, int]


def pod_limit_mib() -> int:
    """The memory limit of the shipped container."""
    [container] = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["initContainers"]
    limit: str = container["resources"]["limits"]["memory"]
    return int(limit.removesuffix("Mi"))


@contextlib.asynccontextmanager
async def backend() -> AsyncIterator[str]:
    """Large answers at /public/large, `ok` elsewhere, whatever the body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0] or 0)
                await reader.readexactly(length)
                size = ANSWER_BYTES if b" /public/large " in head else 2
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for at in range(0, size, 65536):
                    writer.write(bytes(min(65536, size - at)))
                    await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def slow_reader(address: Address) -> None:
    """Reads 1 KiB a second."""
    reader, writer = await asyncio.open_connection(*address, limit=1024)
    writer.write(request("GET", "/public/large"))
    while await reader.read(1024):
        await asyncio.sleep(1)


async def slow_writer(address: Address) -> None:
    """Sends a burst, then a byte a second."""
    _, writer = await asyncio.open_connection(*address)
    writer.write(b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + bytes(64 * 1024))
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(1)


async def idle(address: Address) -> None:
    """Has received one answer, and stays silent."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request("GET", "/public/x"))
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


async def flood(address: Address) -> None:
    """Requests without a token, eight at a time."""
    reader, writer = await asyncio.open_connection(*address)
    while True:
        writer.write(request("GET", "/x") * 8)
        for _ in range(8):
            await read_response(reader)


async def good(address: Address, token: str, answers: Counter[str], latencies: list[float]) -> None:
    """Sends requests with a token without end, over a persistent connection."""
    writer = None
    while True:
        began = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(*address)
            writer.write(request("GET", "/", token=token))
            async with asyncio.timeout(30):  # wait_for can lose a cancellation on 3.11
                answer = await read_response(reader)
            answers[str(answer.status)] += 1
            latencies.append(time.perf_counter() - began)
            if answer.get("connection") == "close":
                writer.close()
                writer = None
        except (OSError, EOFError, TimeoutError) as error:
            answers[type(error).__name__] += 1
            writer = None
        await asyncio.sleep(0.05)


async def attack(proxy: Sidecar, token: str, seconds: float) -> int:
    """Run all of it at once. Return the number of faults."""
    answers: Counter[str] = Counter()
    latencies: list[float] = []
    tasks = [asyncio.create_task(good(proxy.proxy, token, answers, latencies)) for _ in range(GOOD)]
    await asyncio.sleep(1)
    for number, client in ((READERS, slow_reader), (WRITERS, slow_writer), (FLOODING, flood), (IDLE, idle)):
        for at in range(0, number, 50):
            tasks += [asyncio.create_task(client(proxy.proxy)) for _ in range(min(50, number - at))]
            await asyncio.sleep(0.05)
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    peak, limit = memory_mib(proxy.pid, "VmHWM"), pod_limit_mib()
    alive = Path(f"/proc/{proxy.pid}").exists()
    print(f"memory at most: {peak:.0f} MiB of {limit}; alive at the end: {alive}; bugs in the log: {len(proxy.bugs())}")
    ms = [seconds * 1000 for seconds in statistics.quantiles(latencies, n=100)]
    print(f"good clients: {dict(answers)}; median {ms[49]:.0f} ms, 99th percentile {ms[98]:.0f} ms")
    wrong = [peak > limit, not alive, bool(proxy.bugs()), answers["200"] < 0.9 * answers.total()]
    return sum(wrong)


def main() -> int:
    """Run it; 0 without a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    issuer = Issuer("https://issuer.test", audience=AUDIENCE)

    async def run() -> int:
        async with backend() as url:
            with running(url, issuer, routes=ROUTES) as proxy:
                return await attack(proxy, issuer.mint("EdDSA", sub="alice"), seconds)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


if __name__ == "__main__":
    sys.exit(main())
