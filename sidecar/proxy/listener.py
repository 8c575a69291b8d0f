"""The proxy's listener: an aiohttp server with the sidecar's own connections."""

import asyncio
import ipaddress
import logging
import socket
import ssl
from heapq import nsmallest

from aiohttp import web

from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.tls import FAILED_HANDSHAKES, failed_handshake
from sidecar.common.watched_file import WatchedFile
from sidecar.http.forwarded import Forwarded
from sidecar.proxy.client_connection import ClientConnection
from sidecar.proxy.client_limits import ClientLimits
from sidecar.proxy.handler import Handler
from sidecar.proxy.resources import Resources
from sidecar.proxy.serving import Serving

SAID_AGAIN_S = 60.0  # between two log lines about failed handshakes with one cause
MOST_REFUSED = (
    64  # connections above the limit that get an answer; further ones are closed at once, since each takes a descriptor
)
IDLE_S = 1.0  # a connection that was idle for this long may be closed for a new one at the limit
LONGEST_IDLE = 64  # idle connections that one search finds: a search visits all connections
NOT_ACCEPTED_S = 1.0  # pause after a connection could not be accepted

log = logging.getLogger("sidecar.listener")


class Listener(web.Server):
    """The proxy's server and its client connections. `scheme` is http or https."""

    def __init__(
        self,
        handler: Handler,
        limits: ClientLimits,
        clock: Clock,
        deadlines: Deadlines,
        resources: Resources,
        scheme: str = "http",
    ) -> None:
        super().__init__(_never_called)
        self.clock = clock
        self.deadlines = deadlines
        self.resources = resources
        self.scheme = scheme
        self.serving = Serving(handler, limits)
        self._open: set[ClientConnection] = set()
        self._idle: list[
            tuple[float, ClientConnection]
        ] = []  # idle connections to close for new ones, the next one last
        self._look_at = float("-inf")
        self._handshakes: set[asyncio.Task[None]] = set()
        self._said: dict[str, float] = {}
        self.use(handler, limits)

    def use(self, handler: Handler, limits: ClientLimits) -> None:
        """Use this handler and these settings from the next request on. A current request keeps its handler."""
        self.serving.handler, self.serving.limits = handler, limits
        self.resources.most_held_bytes = limits.buffered_bytes
        self.resources.hold(0)

    def __call__(self) -> ClientConnection:  # type: ignore[override]  # aiohttp's own handler is not used
        return ClientConnection(self)

    @property
    def connections(self) -> list[ClientConnection]:  # type: ignore[override]
        """The open connections, those in a TLS handshake included."""
        return list(self._open)

    def opened(self, connection: ClientConnection) -> bool:
        """A client has connected. Returns whether the limit of connections allows it."""
        self._count(connection)
        self.deadlines.watched.add(connection)
        if len(self._open) > self.serving.limits.connections + MOST_REFUSED:
            connection.abort()
            return True
        return len(self._open) <= self.serving.limits.connections or self._makes_room()

    def _makes_room(self) -> bool:
        """Close the connection that has been idle for longest. Returns whether there was one."""
        now = self.clock.monotonic()
        if not self._idle and now >= self._look_at:
            longest = now + self.serving.limits.keep_alive_s - IDLE_S
            all_until = ((one.idle_until, number, one) for number, one in enumerate(self._open))
            found = nsmallest(LONGEST_IDLE, (one for one in all_until if one[0] <= longest))
            self._idle = [(until, one) for until, _, one in reversed(found)]
            if not found:
                self._look_at = now + IDLE_S
        while self._idle:
            until, connection = self._idle.pop()
            if connection.idle_until == until:  # else it had a request since
                connection.abort()
                return True
        return False

    def closed(self, connection: ClientConnection) -> None:
        """A connection has closed."""
        self.deadlines.watched.discard(connection)
        if connection in self._open:
            self._open.discard(connection)
            self.resources.connections -= 1

    async def accept_tls(self, listening: socket.socket, certificate: WatchedFile[ssl.SSLContext]) -> None:
        """Accept TLS clients until cancelled. A connection counts from the accept on, before its handshake ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor is left, or the client has left
                log.warning(
                    "event=not_accepted error=%s do='Raise the limit of open files; clients wait until a connection closes.'",
                    error.strerror,
                )
                await asyncio.sleep(NOT_ACCEPTED_S)
                continue
            if len(self._open) >= self.serving.limits.connections and not self._makes_room():
                accepted.close()  # an answer would need a handshake, which costs too much
                continue
            connection = self()
            self._count(connection)
            task = loop.create_task(self._handshake(connection, accepted, certificate.value, str(peer[0])))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _handshake(
        self, connection: ClientConnection, accepted: socket.socket, context: ssl.SSLContext, peer: str
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_handshake_timeout=self.serving.limits.request_headers_s
            )
        except BaseException as error:
            self.closed(connection)  # before the end of the handshake there is no `connection_lost`
            if not isinstance(error, OSError):  # ssl.SSLError is an OSError; only this handshake has failed
                raise
            self._handshake_failed(failed_handshake(error), peer)

    def _handshake_failed(self, cause: str, peer: str) -> None:
        """Count a failed handshake; log at most one line for each cause in SAID_AGAIN_S."""
        handshakes = self.serving.handler.telemetry.handshakes
        handshakes[cause] = handshakes.get(cause, 0) + 1
        now = self.clock.monotonic()
        if now >= self._said.get(cause, now):
            self._said[cause] = now + SAID_AGAIN_S
            log.warning(
                "event=handshake_failed cause=%s peer=%s number=%d do=%r",
                cause,
                peer,
                handshakes[cause],
                FAILED_HANDSHAKES[cause],
            )

    def _count(self, connection: ClientConnection) -> None:
        if connection not in self._open:
            self._open.add(connection)
            self.resources.connections += 1

    def pre_shutdown(self) -> None:
        """Close idle connections now, and the others after their current request."""
        self.serving.is_closing = True
        for connection in self.connections:
            connection.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ARG002  # at once means at once
        """Close all connections at once."""
        await asyncio.sleep(0)  # a handshake task must begin before it can be cancelled
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for connection in self.connections:
            connection.abort()
        while self._open:  # noqa: ASYNC110  # each closes in one of the next turns
            await asyncio.sleep(0)

    def forwarded(self, transport: asyncio.BaseTransport) -> Forwarded:
        """The X-Forwarded-* writer for this connection."""
        peer = transport.get_extra_info("peername")
        address = _peer_address(peer[0]) if isinstance(peer, tuple) else ""
        return Forwarded(address, self.scheme, self._is_trusted(address), self._is_trusted)

    def _is_trusted(self, address: str) -> bool:
        if not address:  # of a client on a unix socket
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self.serving.limits.trusted)


def _peer_address(host: str) -> str:
    """A client's address without its zone; an IPv4 client of `[::]` gets its IPv4 address."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)


async def _never_called(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("requests are served by ClientConnection")
