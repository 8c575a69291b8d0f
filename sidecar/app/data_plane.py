"""Where clients are served: the proxy's listener, with the connections that came in there."""

import asyncio
import logging
import os
import socket
import ssl

from sidecar.app.builder.assembly import Assembly
from sidecar.app.builder.components import listener_settings
from sidecar.app.state import Live
from sidecar.common.clock import Clock
from sidecar.common.tls import Renewed, load_server_files, server_context
from sidecar.config import Address
from sidecar.jwt.jwks.fetcher import FILE_POLL_S
from sidecar.proxy.listener import Listener

BACKLOG = 1024

log = logging.getLogger("sidecar.data_plane")


class DataPlane:
    """Serves clients by what is in use. `certificate` is the listener's, loaded again when its files change."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self.certificate: Renewed | None = None
        self._live = live
        self._clock = clock
        self._listener: Listener | None = None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []

    async def listen(self, port: int | None = None) -> tuple[str, int]:
        """Accept connections at the configured address; where that is. Raises OSError, and Unusable for TLS.

        With `port` on this one instead of the configured, shared with other processes.
        """
        config = self._live.assembly.config
        live = self._live
        tls = self._tls()
        listener = self._listener = Listener(
            live.assembly.handler,
            listener_settings(config),
            self._clock,
            live.deadlines,
            live.resources,
            "http" if tls is None else "https",
        )
        self._sockets = listening_sockets(
            config.listen.host, config.listen.port if port is None else port, shared=port is not None
        )
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            if tls is None:
                self._servers.append(await loop.create_server(listener, sock=listening, backlog=BACKLOG))
            else:
                self._accepting.append(loop.create_task(listener.accept_tls(listening, tls)))
        host, bound = self._sockets[0].getsockname()[:2]
        return host, bound

    def _tls(self) -> ssl.SSLContext | None:
        tls = self._live.assembly.config.tls
        if tls is None:
            return None
        files = tls.cert_file, tls.key_file, tls.client_ca_file
        context = server_context(*files)
        self.certificate = Renewed(lambda: load_server_files(context, *files), files)
        self._live.background(_look_again(self.certificate), "certificate")
        return context

    async def use(self, assembly: Assembly) -> None:
        """Serve by another assembly, from one request to the next."""
        assert self._listener is not None
        self._listener.use(assembly.handler, listener_settings(assembly.config))

    def _accept_no_more(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._accepting:
            task.cancel()
        for listening in self._sockets:
            listening.close()

    async def finish(self) -> None:
        """Accept no more, end idle connections, and the others with what they serve, or when `shutdown` is over."""
        assert self._listener is not None
        self._accept_no_more()
        self._listener.pre_shutdown()
        try:
            async with asyncio.timeout(self._live.assembly.config.timeouts.shutdown_s):
                while self._listener.connections:  # noqa: ASYNC110  # nobody tells when the last one has gone
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning(
                "event=cut_off connections=%d do='If they were worth waiting for, raise timeouts.shutdown.'",
                len(self._listener.connections),
            )

    async def stop(self) -> None:
        """End every connection at once."""
        self._accept_no_more()
        if self._listener is not None:
            await self._listener.shutdown()


def listening_sockets(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """A socket for each address of the host; `shared` with other processes. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=shared))
            sockets[-1].setblocking(False)
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


async def _look_again(renewed: Renewed) -> None:
    while True:
        await asyncio.sleep(FILE_POLL_S)
        renewed()


def cannot_listen(key: str, address: Address, error: OSError) -> str:
    """Why there is no listener at the address, where the configuration names it, and what to do."""
    why = os.strerror(error.errno or 0)
    return f"{key}: cannot listen on {address.host}:{address.port}: {why}; choose another, or port 0 for a free one"
