"""The composition root: `build` makes the objects from the configuration; a `Sidecar` listens, serves and drains.

The only module that knows all others.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import http_parser, web

from sidecar.app.admin.app import Admin
from sidecar.app.builder.assembly import Assembly
from sidecar.app.data_plane import DataPlane
from sidecar.app.health import Health
from sidecar.app.http_runner import QuietRunner
from sidecar.app.reload import Reload
from sidecar.app.running import own_socket
from sidecar.app.sockets import BACKLOG, bound, listening_sockets
from sidecar.app.startup_summary import summary
from sidecar.app.state import Live
from sidecar.app.workers.fork import Forker
from sidecar.app.workers.supervisor import Workers
from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.config import Config
from sidecar.config.addresses import Address, is_loopback

log = logging.getLogger("sidecar.server")


class CannotStart(Exception):
    """The sidecar cannot run here; the text says why and what to do."""


class Sidecar:
    """A running sidecar: the listeners, and what is behind them.

    With `file` its configuration is read again when it changes, with `forker` clients are served by the workers that it makes.
    """

    def __init__(self, config: Config, clock: Clock, file: Path | None = None, forker: Forker | None = None) -> None:
        if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise CannotStart(
                "aiohttp has no C parser here, and its other one lets smuggled requests pass; reinstall aiohttp"
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
        self.workers = None if forker is None else Workers(self.live, forker, config.workers)
        self.plane = self.workers or DataPlane(self.live, clock)
        self.reload = None if file is None else Reload(file, self.live, self.plane.use)
        self._runners: list[web.AppRunner] = []

    @property
    def proxy_address(self) -> Address:
        """The first of the addresses at which clients are served."""
        return self.proxy_addresses[0]

    @property
    def assembly(self) -> Assembly:
        """What is in use now."""
        return self.live.assembly

    async def start(self) -> None:
        """Listen at once, before any key has come; fetch the keys behind. Raises CannotStart."""
        config = self.config
        if not is_loopback(config.admin.listen.host):
            log.warning(
                "event=admin_exposed listen=%s do='It has no password: let it listen on 127.0.0.1 and use a port forward.'",
                config.admin.listen.host,
            )
        try:
            await self.live.prepare()
            self.proxy_addresses = await self.plane.listen()
            self.health_address = await self._serve("health", self.health.app(), config.health.listen)
            self.admin_address = await self._serve("admin", self.admin.app(), config.admin.listen)
        except Unusable as error:
            raise CannotStart(str(error)) from error
        scheme = "http" if config.tls is None else "https"
        self.live.listens = ", ".join(f"{scheme}://{address}" for address in self.proxy_addresses)
        self.live.health, self.live.admin = f"http://{self.health_address}", f"http://{self.admin_address}"
        self.live.begin()
        if self.reload is not None:
            self.live.background(self.reload.follow(), "reload")

    async def _serve(self, name: str, app: web.Application, address: Address) -> Address:
        if self.workers is not None:
            app.middlewares.insert(0, self.workers.for_all)
        runner = QuietRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        sockets = listening_sockets(f"{name}.listen", [address])
        for listening in sockets:
            await web.SockSite(runner, listening, backlog=BACKLOG).start()
        if name == "admin" and (own := own_socket()) is not None:
            await web.SockSite(runner, own).start()
        return bound(sockets)[0]

    async def drain(self) -> None:
        """End politely: tell the cluster, serve on for `drain_delay`, take no more connections, finish what is in flight.

        The delay began when draining did: after a `/drain` long ago nobody is left who has to be told.
        """
        timeouts = self.assembly.config.timeouts
        self.live.stopping = True
        self.live.drain()
        if self.workers is not None:
            await self.workers.share()
        assert self.live.draining_since is not None
        serve_on_s = max(0.0, self.live.draining_since + timeouts.drain_delay_s - self.clock.monotonic())
        log.info("event=stopping serve_on_s=%.1f", serve_on_s)
        await asyncio.sleep(serve_on_s)
        await self.plane.finish()
        await self.stop()

    async def stop(self, *, at_once: bool = False) -> None:
        """End; `at_once` also where spans wait to be sent."""
        await self.plane.stop()
        await self.live.stop(at_once=at_once)
        for runner in self._runners:
            await runner.cleanup()


def build(
    config: Config, clock: Clock | None = None, file: Path | None = None, forker: Forker | None = None
) -> Sidecar:
    """Make everything from the configuration; nothing is opened yet. Raises CannotStart."""
    return Sidecar(config, clock or Clock(), file, forker)


def announce(sidecar: Sidecar) -> None:
    """Say what is protected, and where the listeners are."""
    for line in summary(sidecar.config):
        print(line, file=sys.stderr)
    live = sidecar.live
    for name, urls in (("proxy", live.listens.split(", ")), ("health", [live.health]), ("admin", [live.admin])):
        for url in urls:
            print(f"listening {name} {url}", file=sys.stderr, flush=True)


async def serve(
    config: Config,
    started: Callable[[Sidecar], None] = announce,
    file: Path | None = None,
    forker: Forker | None = None,
) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends at once. Raises CannotStart.

    `started` is told once the listeners accept. With `file` the configuration is read again when it changes, and on SIGHUP.
    """
    sidecar = build(config, file=file, forker=forker)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    at_once = asyncio.Event()

    def stop() -> None:
        (at_once if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if sidecar.reload is not None:
        loop.add_signal_handler(signal.SIGHUP, sidecar.reload.asked.set)
    try:
        await sidecar.start()
        started(sidecar)
        assert sidecar.live.failed is not None
        sidecar.live.failed.add_done_callback(lambda _: stopping.set())
        await stopping.wait()
        if sidecar.live.failed.done():
            sidecar.live.failed.result()
        draining = asyncio.create_task(sidecar.drain())
        cut = asyncio.create_task(at_once.wait())
        await asyncio.wait({draining, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        draining.cancel()
    finally:
        await sidecar.stop(at_once=at_once.is_set())
