"""The proxy's listener and its connections, over reloads and drain."""

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from functools import partial

from sidecar.app.builder.assembly import Assembly
from sidecar.app.builder.components import client_limits
from sidecar.app.descriptors import client_connections, take_all, warn_if_short
from sidecar.app.sockets import BACKLOG
from sidecar.app.state import Live
from sidecar.common.clock import Clock
from sidecar.common.tls import certificate_time, renewed_context, server_context
from sidecar.common.watched_file import WatchedFile
from sidecar.config import Config
from sidecar.proxy.client_limits import ClientLimits
from sidecar.proxy.listener import Listener

log = logging.getLogger("sidecar.data_plane")


class DataPlane:
    """Serves clients with the current assembly. `certificate` is the listener's, loaded again when its files change."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self.certificate: WatchedFile[ssl.SSLContext] | None = None
        self._live = live
        self._clock = clock
        self._listener: Listener | None = None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Accept connections at these sockets. Raises Unusable for TLS files."""
        self._sockets = sockets
        config = self._live.assembly.config
        take_all()
        warn_if_short(config)
        live = self._live
        tls = self._tls()
        listener = self._listener = Listener(
            live.assembly.handler,
            self._limits(config),
            self._clock,
            live.deadlines,
            live.resources,
            "http" if tls is None else "https",
        )
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            if tls is None:
                self._servers.append(await loop.create_server(listener, sock=listening, backlog=BACKLOG))
            else:
                accept = partial(listener.accept_tls, listening, tls)
                self._accepting.append(live.background(accept, f"accept at {listening.fileno()}"))

    def _limits(self, config: Config) -> ClientLimits:
        return replace(client_limits(config), connections=client_connections(config))

    def _tls(self) -> WatchedFile[ssl.SSLContext] | None:
        tls = self._live.assembly.config.tls
        if tls is None:
            return None
        self.certificate = renewed_context(server_context, tls.cert_file, tls.key_file, tls.client_ca_file)
        self._live.files.append(self.certificate)
        self._live.background(self.certificate.keep_fresh, "certificate")
        if (why := certificate_time(tls.cert_file, self._clock.wall())) is not None:
            log.warning("event=certificate_not_valid why=%r do='Renew the certificate; clients do not trust it.'", why)
        return self.certificate

    async def use(self, assembly: Assembly) -> None:
        """Serve with another assembly from the next request on."""
        assert self._listener is not None
        self._listener.use(assembly.handler, self._limits(assembly.config))

    def _accept_no_more(self) -> None:
        for listening in self._sockets:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # for every process with this socket
        for server in self._servers:
            server.close()
        for task in self._accepting:
            task.cancel()
        for listening in self._sockets:
            listening.close()

    async def finish(self) -> None:
        """Stop accepting, close idle connections, and the others after their request or after `timeouts.shutdown`."""
        assert self._listener is not None
        self._accept_no_more()
        self._listener.pre_shutdown()
        try:
            async with asyncio.timeout(self._live.assembly.config.timeouts.shutdown_s):
                while self._listener.connections:  # noqa: ASYNC110  # there is no event for the last one
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning(
                "event=cut_off connections=%d do='Raise timeouts.shutdown if these requests need more time.'",
                len(self._listener.connections),
            )

    async def stop(self) -> None:
        """Close every connection at once."""
        self._accept_no_more()
        if self._listener is not None:
            await self._listener.shutdown()
