"""The way to one backend: a pool of keep-alive connections, and a request's way out and its answer's way in."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable

from aiohttp.http import RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError

from sidecar.clock import Clock
from sidecar.deadlines import NEVER, Deadlines
from sidecar.leg import AnswerHead, BrokenOff, UpstreamConnection
from sidecar.recurring import Recurring
from sidecar.rejections import Reason, Rejection
from sidecar.request import Request

KEEP_IDLE_S = 3.0  # shorter than the keep-alive of backends (Node 5 s, puma 20 s), so that they rarely hang up first
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2; TRACE is refused


class Answer:
    """An upstream's answer: its head, its body still to be read, and the connection that it comes by."""

    __slots__ = ("_body", "_sending", "_upstream", "connection", "head", "message", "payload")

    def __init__(
        self,
        head: AnswerHead,
        body: StreamReader | bytes,
        connection: UpstreamConnection,
        upstream: "Upstream",
        sending: "asyncio.Task[None] | None",
    ) -> None:
        self.head = head
        self.message = head.message
        self._body = body if isinstance(body, bytes) else None
        self.payload = EMPTY_PAYLOAD if isinstance(body, bytes) else body
        self.connection = connection
        self._upstream = upstream
        self._sending = sending

    @property
    def idle_s(self) -> float:
        """How long either side may be silent within a body."""
        return self._upstream.idle_s

    @property
    def request_sent(self) -> bool:
        """Has the whole request gone out?"""
        return self.connection.request_sent

    def whole(self) -> bytes | None:
        """The body, to be taken once, if all of it is here."""
        if self._body is not None:
            return self._body
        return self.payload.read_nowait(-1) if self.payload.is_eof() and self.payload.exception() is None else None

    def release(self) -> None:
        """The answer has been dealt with: keep the connection for the next request if nothing is left on it."""
        connection = self.connection
        if self._sending is not None:
            self._sending.cancel()
        if self.payload.is_eof() and not self.message.should_close and connection.at_rest:
            self._upstream.keep(connection)
        else:
            connection.close()


class Upstream:
    """One backend. `address` is (host, port) or the path of a unix socket, `authority` what its Host header would say.

    `tls` gives the context for a new connection; the certificate must be valid for `server_name`. `connections` is how many
    there may be at once.
    """

    def __init__(
        self,
        name: str,
        address: tuple[str, int] | str,
        clock: Clock,
        deadlines: Deadlines,
        *,
        authority: str,
        tls: Callable[[], ssl.SSLContext] | None = None,
        server_name: str | None = None,
        connections: int,
        connect_s: float,
        answer_s: float,
        idle_s: float,
    ) -> None:
        self.name = name
        self.authority = authority.encode()
        self.scheme = "http" if tls is None else "https"
        self.clock = clock
        self.deadlines = deadlines
        self.idle_s = idle_s
        self.address = address
        self._tls = tls
        self._server_name = server_name
        self._most = connections
        self._connect_s = connect_s
        self._answer_s = answer_s
        self.heads: Recurring[AnswerHead] = Recurring()
        self._open: set[UpstreamConnection] = set()
        self._opening = 0
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._retired = False

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {self.address}: {len(self._open)} connections, {len(self._idle)} idle>"

    async def send(self, head: bytes, request: Request, interim: Callable[[RawResponseMessage], None]) -> Answer:
        """Send a request and return the answer as soon as its head is there; `interim` gets 1xx answers before it.

        `head` lacks the framing and the empty line. Raises Rejection. A request is sent a second time only when its connection
        had been idle, no byte of an answer came, and sending it twice does no harm (RFC 9110 section 9.2.2).
        """
        head, whole = _framed(head, request)
        while True:
            connection = self._take_idle() or await self.connect()
            connection.interim = interim
            connection.request_sent = whole
            sending = None if whole else asyncio.create_task(self._send_body(connection, request))
            answer = None
            try:
                answered, body = await connection.exchange(head, request.method == "HEAD", self._answer_s)
                answer = Answer(answered, body, connection, self, sending)
                return answer
            except BrokenOff:
                if not (connection.used and whole and request.method in IDEMPOTENT and not connection.spoken):
                    request.broken_off = True
                    raise Rejection(
                        Reason.UPSTREAM_UNREACHABLE, "The service behind this proxy ended the connection."
                    ) from None
            finally:
                if answer is None:
                    connection.close()
                    if sending is not None:
                        sending.cancel()

    async def _send_body(self, connection: UpstreamConnection, request: Request) -> None:
        """Pass the body on as it comes, no faster than the backend takes it."""
        client = request.connection
        payload = request.payload
        most = request.route.max_body if request.route is not None else None
        now = self.clock.monotonic
        try:
            client.invite_body(request)
            while True:
                client.wait_for_body(now() + self.idle_s)
                connection.hold()
                chunk = await payload.readany()
                client.wait_for_body(NEVER)
                connection.wait_until(now() + self._answer_s)
                if not chunk:
                    break
                if most is not None and payload.total_bytes > most:
                    connection.fail(Rejection(Reason.BODY_TOO_LARGE))
                    return
                connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if request.length is None else chunk)
                await connection.drain()
            if request.length is None:
                connection.write(b"0\r\n\r\n")
            connection.request_sent = True
        except RequestPayloadError:
            connection.fail(Rejection(Reason.REQUEST_MALFORMED, "The request's body is not well-formed."))
        except ConnectionError:
            pass  # the backend is gone, or wants no more: what it answered, if anything, is on its way
        except RuntimeError:
            if client.transport is not None:
                raise
            # the client is gone: this is what aiohttp says to whoever still waits for its body

    async def connect(self) -> UpstreamConnection:
        """Open a connection, or wait for one to come free. Raises Rejection."""
        if len(self._open) + self._opening >= self._most:
            return await self._wait_for_one()
        self._opening += 1
        loop = asyncio.get_running_loop()
        connection = None
        try:
            async with asyncio.timeout(self._connect_s):
                if isinstance(self.address, str):
                    _, connection = await loop.create_unix_connection(
                        lambda: UpstreamConnection(self, loop), self.address
                    )
                else:
                    _, connection = await loop.create_connection(
                        lambda: UpstreamConnection(self, loop),
                        *self.address,
                        ssl=None if self._tls is None else self._tls(),
                        server_hostname=self._server_name,
                    )
        except ssl.SSLCertVerificationError:
            raise Rejection(
                Reason.UPSTREAM_UNREACHABLE, "The certificate of the service behind this proxy is not trusted."
            ) from None
        except TimeoutError:
            raise Rejection(Reason.UPSTREAM_TIMEOUT, "The service behind this proxy accepts no connection.") from None
        except OSError:
            raise Rejection(Reason.UPSTREAM_UNREACHABLE) from None
        finally:
            self._opening -= 1
            if connection is None:
                self._next_turn()
        if connection.transport is None:  # gone as soon as it was there
            raise Rejection(Reason.UPSTREAM_UNREACHABLE)
        self._open.add(connection)
        self.deadlines.watched.add(connection)  # only now: uvloop never says that a cancelled connection has gone
        return connection

    async def _wait_for_one(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_s
        line_up = self._waiting.append
        while True:
            turn: asyncio.Future[None] = loop.create_future()
            line_up(turn)
            try:
                async with asyncio.timeout_at(until):
                    await turn
            except BaseException as error:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._next_turn()  # it was granted in the very moment in which this client gave up
                if isinstance(error, TimeoutError):
                    raise Rejection(
                        Reason.OVERLOADED, "All connections to the service behind this proxy are busy.", retry_after_s=1
                    ) from None
                raise
            if (connection := self._take_idle()) is not None:
                return connection
            if len(self._open) + self._opening < self._most:
                return await self.connect()
            line_up = self._waiting.appendleft  # somebody else took it in the very turn in which it was granted

    def _take_idle(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            assert connection.transport is not None  # else it would have been forgotten
            if not connection.transport.is_closing():
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> None:
        """Take a connection back for the next request."""
        if self._retired:
            connection.close()
            return
        connection.interim = None
        connection.used = True
        connection.deadline = self.clock.monotonic() + KEEP_IDLE_S
        self._idle.append(connection)
        self._next_turn()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has ended."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next_turn()

    def _next_turn(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def retire(self) -> None:
        """No new request will come: end idle connections now, and each other one with its request."""
        self._retired = True
        for connection in list(self._idle):
            connection.close()

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._open):
            connection.close()


def _framed(head: bytes, request: Request) -> tuple[bytes, bool]:
    """(the complete head with what of the body is there, whether that is all of the body).

    The framing is made anew (RFC 9112 section 6): a body that is here already gets its length, others keep their kind.
    """
    payload = request.payload
    if request.length == 0:
        if "content-length" in request.headers.special:
            return head + b"Content-Length: 0\r\n\r\n", True
        return head + b"\r\n", True
    if payload.is_eof() and payload.exception() is None:
        body = payload.read_nowait(-1)
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), True
    if request.length is None:
        return head + b"Transfer-Encoding: chunked\r\n\r\n", False
    return b"%bContent-Length: %d\r\n\r\n" % (head, request.length), False
