"""The composition root: `build` makes the objects from the configuration; a `Sidecar` listens, serves and drains.

The only module that knows all others.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from aiohttp import http_parser, web

from sidecar import config as settings
from sidecar.access_log import LINES, AccessLog
from sidecar.claims import ClaimRules
from sidecar.clock import Clock
from sidecar.config import Config
from sidecar.connection import Listener
from sidecar.deadlines import Deadlines
from sidecar.fetch import FILE_POLL_S, FileKeySet, RemoteKeySet
from sidecar.headers import HOP_BY_HOP, Roles, fold
from sidecar.health import Health
from sidecar.identity import IdentityHeaders
from sidecar.jwks import JwksSource
from sidecar.metrics import Collector
from sidecar.policy import Policy
from sidecar.proxy import Proxy
from sidecar.routes import Auth, Route, Routes
from sidecar.telemetry import Telemetry
from sidecar.upstream import Upstream
from sidecar.verifier import Issuer, Verifier

log = logging.getLogger("sidecar.server")

BACKLOG = 1024


class CannotStart(Exception):
    """The sidecar cannot run here; the text says why and what to do."""


class Sidecar:
    """A running sidecar: the proxy's listener, the health listener, and the tasks behind them."""

    def __init__(self, config: Config, clock: Clock) -> None:
        if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise CannotStart("aiohttp was installed without its C parser, and its other parser lets smuggled requests pass")
        self.config = config
        self.clock = clock
        timeouts = config.timeouts
        self.deadlines = Deadlines(clock, tick_s=_tick_s(timeouts))
        self._session: aiohttp.ClientSession | None = None
        self.sources = {name: self._source(issuer) for name, issuer in config.issuers.items()}
        self.upstreams = {name: self._upstream(upstream) for name, upstream in config.upstreams.items()}
        access_log = None if config.access_log == "off" else AccessLog(LINES[config.access_log])
        self.access_log = access_log
        self.proxy = Proxy(
            _routes(config),
            Verifier([self._issuer(issuer) for issuer in config.issuers.values()], clock),
            IdentityHeaders(config.identity_headers, config.claims_header),
            self.upstreams,
            Telemetry(clock, access_log),
            clock,
            roles=Roles(HOP_BY_HOP | {fold(name) for name in (*config.identity_headers, config.claims_header or "")}),
            realm=config.realm,
            in_flight=config.limits.in_flight,
        )
        required = [self.sources[name] for name, issuer in config.issuers.items() if issuer.required]
        collector = Collector(self.proxy, self.sources.values(), clock)
        self.health = Health(self.proxy, required, collector)
        self.proxy_address = self.health_address = self.admin_address = ("", 0)
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._listener: Listener | None = None
        self._runners: list[web.AppRunner] = []
        self.failed: asyncio.Future[None] | None = None

    def _session_now(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), headers={"Accept": "application/json"}
            )
        return self._session

    def _source(self, issuer: settings.Issuer) -> JwksSource:
        fetch = (
            FileKeySet(issuer.jwks_file)
            if issuer.jwks_file is not None
            else RemoteKeySet(self._session_now, issuer.issuer, issuer.jwks_uri, issuer.allow_http)
        )
        return JwksSource(
            issuer.name,
            fetch,
            issuer.algorithms,
            self.clock,
            refresh_interval_s=FILE_POLL_S if issuer.jwks_file is not None else issuer.refresh_interval_s,
            max_stale_s=issuer.max_stale_s,
        )

    def _issuer(self, issuer: settings.Issuer) -> Issuer:
        rules = ClaimRules(issuer.audiences, clock_skew_s=issuer.clock_skew_s, require_exp=issuer.require_exp)
        return Issuer(issuer.name, issuer.issuer, issuer.algorithms, rules, self.sources[issuer.name])

    def _upstream(self, upstream: settings.Upstream) -> Upstream:
        timeouts = self.config.timeouts
        address = upstream.path if upstream.scheme == "unix" else (upstream.host, upstream.port)
        return Upstream(
            upstream.name,
            address,
            self.clock,
            self.deadlines,
            authority=f"{upstream.host}:{upstream.port}" if upstream.scheme != "unix" else "localhost",
            connections=self.config.limits.upstream_connections,
            connect_s=timeouts.connect_s,
            answer_s=timeouts.response_headers_s,
            idle_s=timeouts.idle_s,
        )

    async def start(self) -> None:
        """Listen at once, before any key has come; fetch the keys behind. Raises CannotStart."""
        loop = asyncio.get_running_loop()
        config = self.config
        self.failed = loop.create_future()
        listener = self._listener = Listener(
            self.proxy, self.clock, self.deadlines, config.timeouts, config.limits, config.trusted_proxies
        )
        try:
            self._server = await loop.create_server(
                listener, config.listen.host, config.listen.port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            raise CannotStart(_why_not(config.listen, error)) from error
        self.proxy_address = self._server.sockets[0].getsockname()[:2]
        self.health_address = await self._serve(self.health.app(), config.health.listen)
        self.admin_address = await self._serve(web.Application(), config.admin.listen)
        self._background(self.deadlines.watch(), "deadlines")
        for source in self.sources.values():
            self._background(source.keep_fresh(), f"keys of {source.name}")

    async def _serve(self, app: web.Application, address: settings.Address) -> tuple[str, int]:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.TCPSite(runner, address.host, address.port, backlog=BACKLOG).start()
        except OSError as error:
            raise CannotStart(_why_not(address, error)) from error
        host, port = runner.addresses[0][:2]
        return host, port

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        # These tasks run for ever. One that ends has a bug, and without it the sidecar would slowly go wrong.
        if not task.cancelled() and self.failed is not None and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError(f"{task.get_name()} ended"))

    async def drain(self) -> None:
        """End politely: tell the cluster, serve on for `drain_delay`, take no more connections, finish what is in flight."""
        timeouts = self.config.timeouts
        self.proxy.draining = True
        log.info("event=draining serve_on_s=%g", timeouts.drain_delay_s)
        await asyncio.sleep(timeouts.drain_delay_s)
        assert self._server is not None
        assert self._listener is not None
        self._server.close()
        for connection in self._listener.connections:
            connection.close()
        try:
            async with asyncio.timeout(timeouts.shutdown_s):
                while self._listener.connections:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("event=cut_off connections=%d", len(self._listener.connections))
        await self.stop()

    async def stop(self) -> None:
        """End at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        if self._listener is not None:
            await self._listener.cut_off()
        for upstream in self.upstreams.values():
            upstream.close()
        for source in self.sources.values():
            await source.stop()
        for runner in self._runners:
            await runner.cleanup()
        if self._session is not None:
            await self._session.close()
        if self.access_log is not None:
            self.access_log.flush()


def build(config: Config, clock: Clock | None = None) -> Sidecar:
    """Make everything from the configuration; nothing is opened yet. Raises CannotStart."""
    return Sidecar(config, clock or Clock())


def _routes(config: Config) -> Routes:
    routes = [
        Route(
            route.path,
            auth=Auth(route.auth),
            methods=route.methods,
            policy=Policy(route.issuers, route.require.scopes if route.require is not None else ()),
            report=route.mode == "report",
            upstream=route.upstream or config.default_upstream,
            forward_token=config.forward_token if route.forward_token is None else route.forward_token,
        )
        for route in config.routes
    ]
    otherwise = Route(
        "/*", upstream=config.default_upstream, forward_token=config.forward_token, name="(default)"
    )
    return Routes(routes, otherwise)


def _tick_s(timeouts: settings.Timeouts) -> float:
    """How often to look at deadlines: a second, or more often where a timeout is so short that a second would matter."""
    shortest_s = min(
        timeouts.response_headers_s, timeouts.idle_s, timeouts.request_headers_s, timeouts.keep_alive_s
    )
    return min(1.0, shortest_s / 4)


def _why_not(address: settings.Address, error: OSError) -> str:
    return f"cannot listen on {address.host}:{address.port}: {os.strerror(error.errno or 0)}"


def url(address: tuple[str, int]) -> str:
    """An address as a URL for people."""
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(sidecar: Sidecar) -> None:
    """Say where the listeners are, one line each."""
    for name, address in (
        ("proxy", sidecar.proxy_address),
        ("health", sidecar.health_address),
        ("admin", sidecar.admin_address),
    ):
        print(f"listening {name} {url(address)}", file=sys.stderr, flush=True)


async def serve(config: Config, started: Callable[[Sidecar], None] = announce) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends at once. Raises CannotStart.

    `started` is told once the listeners accept.
    """
    sidecar = build(config)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    at_once = asyncio.Event()

    def stop() -> None:
        (at_once if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await sidecar.start()
        started(sidecar)
        assert sidecar.failed is not None
        sidecar.failed.add_done_callback(lambda _: stopping.set())
        await stopping.wait()
        if sidecar.failed.done():
            sidecar.failed.result()
        draining = asyncio.create_task(sidecar.drain())
        cut = asyncio.create_task(at_once.wait())
        await asyncio.wait({draining, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        draining.cancel()
    finally:
        await sidecar.stop()
