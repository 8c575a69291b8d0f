"""A relay of bytes on our event loop: the least that a proxy in Python costs. It reads no HTTP and verifies nothing.

As a program: `python -m benchmarks.peers.relay PORT ORIGIN [CERTIFICATE KEY]`.
"""

import asyncio
import ssl
import sys
from importlib.metadata import version
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.certificate import CERTIFICATE, KEY
from benchmarks.peers import Peer
from benchmarks.setting import Setting

READ_BYTES = 64 * 1024


class _Turn:
    """Sends all bytes of a turn of the loop together, so that the other program is woken up once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._unsent: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append((transport, data))

    def close(self, transport: asyncio.Transport) -> None:
        self._loop.call_soon(transport.close)  # after the bytes of this turn

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for transport, data in unsent:
            if not transport.is_closing():
                transport.write(data)


class _Side(asyncio.BufferedProtocol):
    """One of two connections. What comes before the other one is open waits for it."""

    def __init__(self, memory: memoryview, turn: _Turn) -> None:
        self._memory = memory
        self._turn = turn
        self._early: list[bytes] = []
        self.other: _Side | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._memory[:nbytes])
        if self.other is None:
            self._early.append(data)
        else:
            self._turn.send(self.other.transport, data)

    def join(self, other: "_Side") -> None:
        self.other, other.other = other, self
        for data in self._early:
            other.transport.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.other is not None:
            self._turn.close(self.other.transport)


async def _relay(port: int, origin: int, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    memory = memoryview(bytearray(READ_BYTES))
    turn = _Turn(loop)
    tasks: set[asyncio.Task[None]] = set()

    async def join(client: _Side) -> None:
        _, upstream = await loop.create_connection(lambda: _Side(memory, turn), "127.0.0.1", origin)
        client.join(upstream)

    def accepted() -> _Side:
        client = _Side(memory, turn)
        task = loop.create_task(join(client))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return client

    server = await loop.create_server(accepted, "127.0.0.1", port, ssl=tls)
    await server.serve_forever()


def command(setting: Setting, port: int, _directory: Path) -> list[str]:
    """It has no configuration."""
    tls = [CERTIFICATE, KEY] if setting.tls else []
    root = str(Path(__file__).parents[2])
    program = [sys.executable, "-m", "benchmarks.peers.relay", str(port), str(setting.origin), *tls]
    return ["env", f"PYTHONPATH={root}", *program]


PEER = Peer(
    "relay",
    "a relay of bytes on uvloop, which reads no HTTP",
    "relay.none",
    lambda: f"uvloop {version('uvloop')}",
    command,
    verifies=False,
)

if __name__ == "__main__":
    context = None
    if sys.argv[3:]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*sys.argv[3:])
    uvloop.run(_relay(int(sys.argv[1]), int(sys.argv[2]), context))
