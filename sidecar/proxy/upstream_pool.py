"""The connections to one backend, and the requests that wait for one."""

import asyncio
import errno
import ssl
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import Reason, Rejection
from sidecar.common.tls import why_not_connected
from sidecar.http.head_cache import HeadCache
from sidecar.http.header_policy import ResponseHeaderPolicy
from sidecar.http.response_head import ResponseHead
from sidecar.proxy.exchange import Exchange, Waiting
from sidecar.proxy.resources import Resources
from sidecar.proxy.upstream_connection import Pool, UpstreamConnection

# Shorter than the keep-alive of backends (Node 5 s, puma 20 s), so that they rarely close first.
KEEP_IDLE_S: Final = 3.0


class PoolUse(NamedTuple):
    """The numbers of open, idle and opening connections, and of waiting requests.

    `most` is the limit of connections.
    """

    open: int
    idle: int
    opening: int
    waiting: int
    most: int


class UpstreamPool(Waiting, Pool):
    """The connections to one backend.

    `address` is (host, port) or the path of a unix socket, `authority` the value of its Host header. `tls` returns the context
    for a new connection; the certificate must be valid for `server_name`. `connections` is the limit of connections.
    `connect_s`, `answer_s` and `idle_s` are the timeouts for a connection, for the begin of an answer, and for its next piece.
    `head_bytes` and `headers` limit the head of an answer.
    """

    def __init__(
        self,
        name: str,
        address: tuple[str, int] | str,
        clock: Clock,
        deadlines: Deadlines,
        resources: Resources,
        *,
        authority: str,
        tls: Callable[[], ssl.SSLContext] | None = None,
        server_name: str | None = None,
        connections: int,
        connect_s: float,
        answer_s: float,
        idle_s: float,
        head_bytes: int,
        headers: int,
    ) -> None:
        self.name = name
        self.authority = authority.encode()
        self.scheme = "http" if tls is None else "https"
        self.clock = clock
        self.resources = resources
        self.address = address
        self.answer_s = answer_s
        self.idle_s = idle_s
        self.head_bytes = head_bytes
        self.headers = headers
        self.header_policy = ResponseHeaderPolicy()
        self.heads: HeadCache[ResponseHead] = HeadCache()
        self.last_head = b""  # the last remembered head that came: the next answer may begin with the same bytes
        self._deadlines = deadlines
        self._tls = tls
        self._server_name = server_name
        self._most = connections
        self._connect_s = connect_s
        self._open: set[UpstreamConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()  # a queue from whose middle requests can be removed
        self._is_retired = False

    def __repr__(self) -> str:
        return f"<UpstreamPool {self.name} {self.address}: {len(self._open)} connections, {len(self._idle)} idle>"

    @property
    def use(self) -> PoolUse:
        """The numbers of its connections and waiting requests."""
        return PoolUse(len(self._open), len(self._idle), len(self._opening), len(self._waiting), self._most)

    def send(self, exchange: Exchange) -> None:
        """Send a request over an idle connection, a new one, or the next one that becomes free."""
        exchange.pool = self
        connection = self._take_idle()
        if connection is not None:
            exchange.connected(connection)
        elif len(self._open) + len(self._opening) < self._most:
            self._begin(self._open_for(exchange))
        else:
            self._waiting[exchange] = None
            exchange.deadline = self.clock.monotonic() + self._connect_s
            self._deadlines.watched.add(exchange)

    def withdraw(self, exchange: Exchange) -> None:
        """Remove a request from the queue."""
        if exchange in self._waiting:
            del self._waiting[exchange]
            self._deadlines.watched.discard(exchange)

    async def connect(self) -> UpstreamConnection:
        """Open a connection. Raises Rejection."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                if isinstance(self.address, str):
                    _, connection = await loop.create_unix_connection(lambda: UpstreamConnection(self), self.address)
                else:
                    _, connection = await loop.create_connection(
                        lambda: UpstreamConnection(self),
                        *self.address,
                        ssl=None if self._tls is None else self._tls(),
                        server_hostname=self._server_name,
                    )
        except ssl.SSLCertVerificationError as error:
            details = "The certificate of the service behind this proxy is not trusted."
            raise Rejection(Reason.UPSTREAM_UNREACHABLE, details, cause=why_not_connected(error)) from None
        except TimeoutError:
            raise Rejection(
                Reason.UPSTREAM_TIMEOUT, "The service behind this proxy did not accept a connection in time."
            ) from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # not the backend's fault
                raise Rejection(
                    Reason.OVERLOADED, cause="The sidecar has no file descriptor left for a connection."
                ) from None
            raise Rejection(Reason.UPSTREAM_UNREACHABLE, cause=why_not_connected(error)) from None
        if not connection.is_open:  # closed at once
            raise Rejection(Reason.UPSTREAM_UNREACHABLE)
        self._open.add(connection)
        self._deadlines.watched.add(
            connection
        )  # only now: uvloop calls no `connection_lost` for a cancelled connection
        return connection

    def keep(self, connection: UpstreamConnection, now: float) -> None:
        """Take a connection back for the next request, at `now` in monotonic seconds."""
        if self._is_retired:
            connection.close()
            return
        connection.used = True
        connection.deadline = now + KEEP_IDLE_S
        self._idle.append(connection)
        if self._waiting:
            self._serve_waiting()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has ended."""
        self._deadlines.watched.discard(connection)
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._serve_waiting()

    def retire(self) -> None:
        """No new requests will come: close idle connections now, and each other one after its request."""
        self._is_retired = True
        for connection in list(self._idle):
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for task in self._opening:
            task.cancel()
        for connection in list(self._open):
            connection.close()

    def _take_idle(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[None]") -> None:
        self._opening.discard(task)
        self._serve_waiting()

    async def _open_for(self, exchange: Exchange) -> None:
        """Open a connection for a request; if the request has ended, the next waiting one gets the connection."""
        try:
            connection = await self.connect()
        except Rejection as rejection:
            exchange.fail(rejection)
        except Exception as error:  # noqa: BLE001
            exchange.handler.bug(exchange, error)
        else:
            if exchange.is_over:
                self.keep(connection, self.clock.monotonic())
            else:
                exchange.connected(connection)

    def _serve_waiting(self) -> None:
        """Give free connections to the waiting requests, in order."""
        while self._waiting:
            connection = self._take_idle()
            if connection is None and len(self._open) + len(self._opening) >= self._most:
                return
            exchange, _ = self._waiting.popitem(last=False)
            self._deadlines.watched.discard(exchange)
            if connection is None:
                self._begin(self._open_for(exchange))
            else:
                exchange.connected(connection)
