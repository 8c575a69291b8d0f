"""The composition root: `build` makes the objects from the configuration; a `Sidecar` listens, serves and drains."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from aiohttp import http_parser, web

from sidecar.app.admin.app import Admin
from sidecar.app.builder.assembly import Assembly
from sidecar.app.data_plane import DataPlane
from sidecar.app.health import Health
from sidecar.app.http_runner import listeners, where
from sidecar.app.local_socket import own_socket
from sidecar.app.reload import Reload
from sidecar.app.sockets import bound, listening_sockets
from sidecar.app.startup_summary import summary
from sidecar.app.state import Live
from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.common.stderr import say
from sidecar.config import Config
from sidecar.config.addresses import Address
from sidecar.jwt.denylist import Entry

THREAD_SWITCH_S = (
    0.0005  # how long the loop waits for a thread that makes a scrape or reads a deny list; Python's own is 5 ms
)

log = logging.getLogger("sidecar.server")


class CannotStart(Exception):
    """The sidecar cannot start; the text says why and what to do."""


class Served(Protocol):
    """One sidecar, or several behind a supervisor. `failed` ends when it would be unsafe to continue."""

    config: Config
    proxy_addresses: list[Address]
    health_address: Address
    admin_address: Address
    failed: "asyncio.Future[None]"

    async def start(self, own: socket.socket | None = None) -> None:
        """Start to listen, also at the local socket of this process. Raises CannotStart."""

    def ask_reload(self) -> None:
        """Reload the configuration."""

    async def drain(self) -> None:
        """Drain, then end."""

    async def stop(self, *, at_once: bool = False) -> None:
        """End. `at_once`: do not wait for spans to be sent."""


class Sidecar:
    """A running sidecar with its listeners. With `file` it reloads the configuration when the file changes."""

    def __init__(self, config: Config, clock: Clock, file: Path | None = None) -> None:
        if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise CannotStart(
                "aiohttp is installed without its C parser, and its Python parser allows request smuggling; reinstall aiohttp"
            )
        self.config = config
        self.clock = clock
        try:
            self.live = Live(config, clock)
        except Unusable as error:
            raise CannotStart(str(error)) from error
        self.health = Health(self.live, clock)
        self.admin = Admin(self.live, config.admin.listen.host, clock)
        self.proxy_addresses: list[Address] = []
        self.health_address = self.admin_address = Address("", 0)
        self.plane = DataPlane(self.live, clock)
        self.reload = None if file is None else Reload(file, self.live, self.plane.use)
        self.failed: asyncio.Future[None]
        self._runners: list[web.AppRunner] = []

    @property
    def proxy_address(self) -> Address:
        """The first address of the proxy's listener."""
        return self.proxy_addresses[0]

    @property
    def assembly(self) -> Assembly:
        """The current assembly."""
        return self.live.assembly

    async def start(self, own: socket.socket | None = None) -> None:
        """Listen at once, and fetch the keys in the background. Raises CannotStart.

        At `own`, the local socket of the process, it answers the commands that look for it.
        """
        config = self.config
        try:
            await self.begin(listening_sockets("listen", config.listen))
            health = web.Application()
            health.add_routes(self.health.routes())
            self._runners = await listeners(config, health, self.admin.app(), own)
        except Unusable as error:
            raise CannotStart(str(error)) from error
        self.health_address, self.admin_address = map(where, self._runners)
        self.live.health, self.live.admin = f"http://{self.health_address}", f"http://{self.admin_address}"

    async def begin(
        self, sockets: list[socket.socket], denied: Iterable[Entry] = (), draining_since: float | None = None
    ) -> None:
        """Serve clients at these sockets, with the operators' earlier changes. Raises CannotStart."""
        try:
            await self.live.prepare()
            self.live.assembly.denylist.have_added(denied)
            if draining_since is not None:
                self.live.drain.begin(draining_since)
            await self.plane.listen(sockets)
        except Unusable as error:
            for opened in sockets:
                opened.close()
            raise CannotStart(str(error)) from error
        assert self.live.failed is not None
        self.failed = self.live.failed
        self.proxy_addresses = bound(sockets)
        scheme = "http" if self.config.tls is None else "https"
        self.live.listens = ", ".join(f"{scheme}://{address}" for address in self.proxy_addresses)
        self.live.begin()
        if self.reload is not None:
            self.live.background(self.reload.follow, "reload")

    def ask_reload(self) -> None:
        """Reload the configuration, if it has a file."""
        if self.reload is not None:
            self.reload.asked.set()

    async def drain(self) -> None:
        """Drain: become unready, serve for `drain_delay`, then stop accepting and finish the requests in flight.

        The delay counts from the begin of the drain, so a `/drain` long before has used it up.
        """
        timeouts = self.assembly.config.timeouts
        self.live.drain.stopping = True
        self.live.drain.begin()
        assert self.live.drain.since is not None
        serve_on_s = max(0.0, self.live.drain.since + timeouts.drain_delay_s - self.clock.monotonic())
        log.info("event=stopping serve_on_s=%.1f", serve_on_s)
        await asyncio.sleep(serve_on_s)
        await self.plane.finish()
        await self.stop()

    async def stop(self, *, at_once: bool = False) -> None:
        """End. `at_once`: do not wait for spans to be sent."""
        await self.plane.stop()
        await self.live.stop(at_once=at_once)
        for runner in self._runners:
            await runner.cleanup()


def build(config: Config, clock: Clock | None = None, file: Path | None = None) -> Sidecar:
    """Make a sidecar from the configuration, without opening sockets. Raises CannotStart."""
    return Sidecar(config, clock or Clock(), file)


def announce(served: Served) -> None:
    """Print the summary and the listeners. A full disk does not stop the start."""
    with suppress(OSError):
        _say(served)


def _say(served: Served) -> None:
    for line in summary(served.config):
        say(line)
    clients = "http" if served.config.tls is None else "https"
    for name, scheme, addresses in (
        ("proxy", clients, served.proxy_addresses),
        ("health", "http", [served.health_address]),
        ("admin", "http", [served.admin_address]),
    ):
        for address in addresses:
            say(f"listening {name} {scheme}://{address}")


async def serve(make: Callable[[], Served], started: Callable[[Any], None] = announce) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends at once. SIGHUP reloads the configuration.

    `started` is called when the listeners accept connections. Raises CannotStart.
    """
    sys.setswitchinterval(THREAD_SWITCH_S)
    served = make()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    at_once = asyncio.Event()

    def stop() -> None:
        (at_once if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, served.ask_reload)
    try:
        await served.start(own_socket())
        started(served)
        served.failed.add_done_callback(lambda _: stopping.set())
        await stopping.wait()
        if served.failed.done():
            served.failed.result()
        draining = asyncio.create_task(served.drain())
        cut = asyncio.create_task(at_once.wait())
        await asyncio.wait({draining, cut}, return_when=asyncio.FIRST_COMPLETED)
        if at_once.is_set():
            log.warning(
                "event=stopping_at_once why='a second signal' do='No action is needed; requests in flight are cut off.'"
            )
        cut.cancel()
        draining.cancel()
    finally:
        await served.stop(at_once=at_once.is_set())
