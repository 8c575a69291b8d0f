"""The proxy's listener: an aiohttp server whose connections are our own, and what they share."""

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
from sidecar.http.forwarded import Forwarded
from sidecar.proxy.client_connection import ClientConnection
from sidecar.proxy.client_limits import ClientLimits
from sidecar.proxy.handler import Handler
from sidecar.proxy.resources import Resources

SAID_AGAIN_S = 60.0  # between two lines about failed handshakes of one cause
MOST_REFUSED = 64  # connections above the limit that hear why; more end at once, since they take descriptors meanwhile
IDLE_S = 1.0  # a connection that has waited so long for a request makes room for a new one, if there is none
LONGEST_IDLE = 64  # connections that are found at a time: all have to be looked at
NOT_ACCEPTED_S = 1.0  # before the next try, when a connection could not be accepted

log = logging.getLogger("sidecar.listener")


class Listener(web.Server):
    """What the connections of the proxy's sockets share. `scheme` is http or https."""

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
        self.is_closing = False
        self._open: set[ClientConnection] = set()
        self._idle: list[tuple[float, ClientConnection]] = []  # that make room for others, the next one last
        self._look_at = float("-inf")
        self._handshakes: set[asyncio.Task[None]] = set()
        self._said: dict[str, float] = {}
        self.use(handler, limits)

    def use(self, handler: Handler, limits: ClientLimits) -> None:
        """Serve by these from the next request on; one that is being served keeps the handler that it began with."""
        self.handler = handler
        self.limits = limits
        self.resources.most_held_bytes = limits.buffered_bytes
        self.resources.hold(0)

    def __call__(self) -> ClientConnection:  # type: ignore[override]  # aiohttp's own handler is not used
        return ClientConnection(self)

    @property
    def connections(self) -> list[ClientConnection]:  # type: ignore[override]
        """The connections that are open, also those that are in a handshake."""
        return list(self._open)

    def opened(self, connection: ClientConnection) -> bool:
        """A client has connected; is there room for it?"""
        self._count(connection)
        self.deadlines.watched.add(connection)
        if len(self._open) > self.limits.connections + MOST_REFUSED:
            connection.abort()
            return True
        return len(self._open) <= self.limits.connections or self._makes_room()

    def _makes_room(self) -> bool:
        """End the connection that has waited longest for its next request; is there one?"""
        now = self.clock.monotonic()
        if not self._idle and now >= self._look_at:
            longest = now + self.limits.keep_alive_s - IDLE_S
            all_until = ((one.idle_until, number, one) for number, one in enumerate(self._open))
            found = nsmallest(LONGEST_IDLE, (one for one in all_until if one[0] <= longest))
            self._idle = [(until, one) for until, _, one in reversed(found)]
            if not found:
                self._look_at = now + IDLE_S
        while self._idle:
            until, connection = self._idle.pop()
            if connection.idle_until == until:  # else it has had a request since
                connection.abort()
                return True
        return False

    def closed(self, connection: ClientConnection) -> None:
        """A connection has ended."""
        self.deadlines.watched.discard(connection)
        if connection in self._open:
            self._open.discard(connection)
            self.resources.connections -= 1

    async def accept_tls(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """Accept clients that speak TLS, for ever. A connection counts from its first byte: a handshake is one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor is left, or the client is gone already
                log.warning("event=not_accepted error=%s do='Raise the limit of open files.'", error.strerror)
                await asyncio.sleep(NOT_ACCEPTED_S)
                continue
            if len(self._open) >= self.limits.connections and not self._makes_room():
                accepted.close()  # a handshake costs more than a refusal is worth
                continue
            connection = self()
            self._count(connection)
            task = loop.create_task(self._handshake(connection, accepted, context, str(peer[0])))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _handshake(
        self, connection: ClientConnection, accepted: socket.socket, context: ssl.SSLContext, peer: str
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_handshake_timeout=self.limits.request_headers_s
            )
        except BaseException as error:
            self.closed(connection)  # nobody else says so before the handshake has ended
            if not isinstance(error, OSError):  # ssl.SSLError is one too; nothing but this handshake has failed
                raise
            self._handshake_failed(failed_handshake(error), peer)

    def _handshake_failed(self, cause: str, peer: str) -> None:
        """Count it; in the log is one line of each cause in a minute."""
        handshakes = self.handler.telemetry.handshakes
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
        """End idle connections now, and others as soon as the request that they serve has been answered."""
        self.is_closing = True
        for connection in self.connections:
            connection.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ARG002  # at once means at once
        """End all connections at once."""
        await asyncio.sleep(0)  # a handshake that has not begun would not notice that it is cancelled
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for connection in self.connections:
            connection.abort()
        while self._open:  # noqa: ASYNC110  # each says so in one of the next turns
            await asyncio.sleep(0)

    def forwarded(self, transport: asyncio.BaseTransport) -> Forwarded:
        """What the backend is to be told about this connection."""
        peer = transport.get_extra_info("peername")
        address = _peer_address(peer[0]) if isinstance(peer, tuple) else ""
        return Forwarded(address, self.scheme, self._is_trusted(address), self._is_trusted)

    def _is_trusted(self, address: str) -> bool:
        if not self.limits.trusted or not address:
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self.limits.trusted)


def _peer_address(host: str) -> str:
    """A client's address without its zone, and that of an IPv4 client at `[::]` as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)


async def _never_called(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("requests are served by ClientConnection")
