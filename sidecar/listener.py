"""The proxy's listener: what all connections of its clients share."""

import asyncio
import ipaddress
from typing import TYPE_CHECKING

from aiohttp import web

from sidecar.clock import Clock
from sidecar.connection import ClientConnection
from sidecar.deadlines import Deadlines
from sidecar.headers import Forwarded

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.proxy import Proxy


class Listener(web.Server):
    """What the connections of the proxy's socket share: the proxy, the clock and the limits."""

    def __init__(self, proxy: "Proxy", config: "Config", clock: Clock, deadlines: Deadlines) -> None:
        super().__init__(proxy.handle, handler_cancellation=True)  # type: ignore[arg-type]  # called by ClientConnection
        self.clock = clock
        self.deadlines = deadlines
        self.closing = False
        self.use(proxy, config)

    def use(self, proxy: "Proxy", config: "Config") -> None:
        """Serve by these from the next request on; one that is being served keeps the proxy that it began with."""
        timeouts, limits = config.timeouts, config.limits
        self.proxy = proxy
        self.request_headers_s = timeouts.request_headers_s
        self.idle_s = timeouts.idle_s
        self.head_bytes = (
            2 * limits.header_bytes
        )  # all headers together: one may be as long as a token, the others are short
        self.keep_alive_s = timeouts.keep_alive_s
        self._limits = limits
        self.trusted = config.trusted_proxies

    def __call__(self) -> ClientConnection:
        return ClientConnection(
            self,
            self._loop,
            max_line_size=self._limits.header_bytes,
            max_field_size=self._limits.header_bytes,
            max_headers=self._limits.headers,
        )

    def finish(self) -> None:
        """End idle connections now, and others as soon as the request that they serve has been answered."""
        self.closing = True
        for connection in self.connections:
            connection.close()

    async def cut_off(self) -> None:
        """End all connections at once."""
        connections = self.connections
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        tasks = [connection._task_handler for connection in connections if connection._task_handler is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def full(self) -> bool:
        """Are there as many connections as there may be?"""
        return len(self._connections) >= self._limits.connections

    def forwarded(self, transport: asyncio.BaseTransport) -> Forwarded:
        """What the backend is to be told about this connection."""
        peer = transport.get_extra_info("peername")
        address = peer[0].partition("%")[0] if isinstance(peer, tuple) else ""
        scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        return Forwarded(address, scheme, self._is_trusted(address))

    def _is_trusted(self, address: str) -> bool:
        if not self.trusted or not address:
            return False
        parsed = ipaddress.ip_address(address)
        if parsed.version == 6 and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self.trusted)
