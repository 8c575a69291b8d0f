"""A whole sidecar without its sockets, for states that no real socket can be brought to: a test is both ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar.app.builder.components import client_limits
from sidecar.app.state import Live
from sidecar.config import parse
from sidecar.proxy.listener import Listener
from sidecar.proxy.upstream_pool import UpstreamPool
from tests.peers.clock import HandClock
from tests.peers.memory import Line, lines
from tests.peers.tokens import AUDIENCE, ISSUER, public_jwk, token
from tests.peers.wire import request, response

ANSWER = response(200, b"hello")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OPEN = {"path": "/*", "auth": "none"}
DENY = [{"path": "/denied", "auth": "deny"}, OPEN]


async def turns() -> None:
    """Turns of this loop, in which all tasks run as far as they can."""
    for _ in range(8):
        await asyncio.sleep(0)


class Proxy:
    """A whole sidecar without its sockets."""

    def __init__(self, live: Live, listener: Listener, clock: HandClock) -> None:
        self.live = live
        self.listener = listener
        self._clock = clock

    @property
    def pool(self) -> UpstreamPool:
        return self.live.assembly.upstreams["default"]

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a connection."""
        return len(self.pool._waiting)

    def client(self, raw: bytes = b"") -> Line:
        """A client that has sent this."""
        line = Line(self.listener())
        line.say(raw)
        return line

    def clients(self, number: int) -> list[Line]:
        """Clients that each have sent a request, to /0, /1 and so on."""
        return [self.client(request("GET", f"/{one}")) for one in range(number)]

    def tick(self) -> None:
        """Check the deadlines: one turn of the loop."""
        self.live.deadlines.tick()
        self.live.resources.flush()

    def wait(self, seconds: float) -> None:
        """Let this time pass, and check the deadlines."""
        self._clock.advance(seconds)
        self.tick()


@asynccontextmanager
async def proxy(clock: HandClock, connections: int = 10, **settings: Any) -> AsyncIterator[Proxy]:
    """A proxy with this limit of connections to its backend."""
    defaults: dict[str, Any] = {
        "issuers": {"main": {"issuer": "https://issuer.test", "audiences": ["a"]}},
        "upstream": "http://backend.test",
        "limits": {"upstream_connections": connections},
        "timeouts": {"connect": "2s"},
        "routes": [OPEN],
        "access_log": "off",
    }
    config = parse(json.dumps(defaults | settings))
    live = Live(config, clock)
    listener = Listener(live.assembly.handler, client_limits(config), clock, live.deadlines, live.resources)
    made = Proxy(live, listener, clock)
    yield made
    for connection in made.listener.connections:
        connection.transport.end()  # type: ignore[attr-defined]
    for line in lines():
        if not line.lost:
            line.end()
    await turns()
    assert live.resources.requests_in_flight == live.resources.connections == live.resources.held_bytes == 0
    assert live.deadlines.watched == set()
    await live.stop()


@asynccontextmanager
async def with_token(
    clock: HandClock, folder: Path, lasts_s: float, *, fetched: bool = True, **settings: Any
) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy with one connection, and a token with this lifetime. `fetched`: the proxy has its key already."""
    (folder / "keys.json").write_text(json.dumps({"keys": [public_jwk("EdDSA")]}))
    issuers = {"main": {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks_file": str(folder / "keys.json")}}
    wide = {"issuers": issuers, "routes": [], "timeouts": {"idle": "1000s"}}
    async with proxy(clock, connections=1, **{**wide, **settings}) as at:
        if fetched:
            await at.live.assembly.sources["main"].fetch_now()
        yield at, token("EdDSA", now=clock.wall() - 360 + lasts_s)  # for 300 s, and 60 s of leeway


def targets(line: Line) -> list[str]:
    """The targets of the requests on a line of the backend."""
    return [part.split(b" ")[0].decode() for part in line.sent.split(b"GET ")[1:]]


def status(line: Line) -> int:
    """The status of the client's last answer, 0 without an answer."""
    return int((b" 0" + line.sent).rpartition(b"HTTP/1.1 ")[2].split()[0])
