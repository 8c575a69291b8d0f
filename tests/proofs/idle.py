"""The cost of idle keep-alive clients for a proxy.

The cost is the memory (VmRSS) of the process with IDLE of them, after one request each, less that without them; of jwt-sidecar
and of Envoy, in the configurations of the benchmarks, one after the other.
"""

import asyncio
import tempfile
from pathlib import Path

import uvloop

from benchmarks.issuer import serving_issuers
from benchmarks.origin import nginx_origin
from benchmarks.peers import Missing, envoy, sidecar
from benchmarks.proxies import await_accepted, started
from benchmarks.setting import Setting
from tests.peers.wire import request
from tests.proofs.running import memory_mib

IDLE = 5000
AT_ONCE = 50  # clients that open, or ask, together
SETTLE_S = 2.0

Address = tuple[str, int]


class Client(asyncio.Protocol):
    """A keep-alive connection that sends one request on command; the answer must be a 200."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._received = b""
        self._answered: asyncio.Future[bool] | None = None
        self.transport: asyncio.Transport
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and self._answered is not None and not self._answered.done():
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
            if len(body) >= length:
                self._answered.set_result(head.startswith(b"HTTP/1.1 200 "))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(False)

    async def ask(self) -> bool:
        """Was it answered 200?"""
        if self.lost:
            return False
        self._received = b""
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(self._raw)
        good = await self._answered
        self._answered = None
        self._received = b""
        return good


async def idle_clients(address: Address, raw: bytes, number: int) -> list[Client]:
    """This many connections, each after one request."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for at in range(0, number, AT_ONCE):
        some = range(at, min(at + AT_ONCE, number))
        made = await asyncio.gather(*(loop.create_connection(lambda: Client(raw), *address) for _ in some))
        clients += [client for _, client in made]
        if await unanswered(clients[at:]):
            raise ConnectionError("a client was not answered 200")
    return clients


async def unanswered(clients: list[Client]) -> int:
    """The number of them without a 200."""
    failed = 0
    for at in range(0, len(clients), AT_ONCE):
        failed += (await asyncio.gather(*(client.ask() for client in clients[at : at + AT_ONCE]))).count(False)
    return failed


async def cost_kib(pid: int, address: Address, raw: bytes) -> tuple[float, float]:
    """(KiB of memory for an idle connection, MiB of the process without them)."""
    for client in await idle_clients(address, raw, 50):  # the remains of the first requests do not count
        for _ in range(40):
            await client.ask()
        client.transport.close()
    await asyncio.sleep(SETTLE_S)
    without_mib = memory_mib(pid, "VmRSS")
    clients = await idle_clients(address, raw, IDLE)
    await asyncio.sleep(SETTLE_S)
    with_mib = memory_mib(pid, "VmRSS")
    if any(client.lost for client in clients):
        raise ConnectionError("an idle client was disconnected")
    for client in clients:
        client.transport.close()
    await asyncio.sleep(SETTLE_S)
    return (with_mib - without_mib) * 1024 / IDLE, without_mib


def compare() -> int:
    """Print the table. Return the number of proxies that could not be measured."""
    failures = 0
    print("\n|             | KiB for an idle connection | MiB without them |\n| ----------- | ----: | ----: |")
    with tempfile.TemporaryDirectory(prefix="soak-") as directory, serving_issuers() as issuers:
        root = Path(directory)
        root.chmod(0o755)
        with nginx_origin(root / "origin") as origin:
            setting = Setting(root / "idle", origin, (issuers.add("one"),))
            for peer in (sidecar.PEER, envoy.PEER):
                try:
                    version = peer.version()
                    with started(peer, setting) as proxy:
                        token = setting.issuers[0].token()
                        await_accepted(proxy, token)
                        raw = request(token=token)
                        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                            kib, mib = runner.run(cost_kib(proxy.process.pid, ("127.0.0.1", proxy.port), raw))
                    print(f"| {version} | {kib:.1f} | {mib:.0f} |", flush=True)
                except (Missing, ConnectionError) as error:
                    failures += 1
                    print(f"| {peer.name} | {error} | |", flush=True)
    return failures
