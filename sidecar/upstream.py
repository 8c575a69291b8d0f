"""The way to the backend: a pool of keep-alive connections and the lean HTTP/1.1 leg. Only here bytes leave for it.

A connection serves one request at a time and keeps one response parser for its life. It goes back to the pool only when its
answer has been read to the end and nothing else has come: a byte that nobody asked for would be the next client's answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError

from sidecar.clock import Clock
from sidecar.deadlines import NEVER, Deadlines
from sidecar.rejections import Reason, Rejection
from sidecar.request import Request

READ_BYTES = 64 * 1024  # buffered of one body before its sender is held up
KEEP_IDLE_S = 3.0  # shorter than the keep-alive of backends (Node 5 s, puma 20 s), so that they rarely hang up first
MAX_ANSWER_HEADER_BYTES = 64 * 1024  # of one header of an answer
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2; TRACE is refused


class BrokenOff(ConnectionError):
    """The backend ended the connection before its answer was complete."""


class UpstreamConnection(BaseProtocol):
    """One connection to the backend.

    `deadline` is when the silence has lasted too long. `spoken` says whether any byte of an answer has come, `reusable` whether
    the next request may have the connection.
    """

    __slots__ = (
        "_answer", "_early", "_ended", "_head_only", "_on_writable", "_payload", "_responses", "_tunnel", "_upstream",
        "deadline", "interim", "reusable", "spoken",
    )  # fmt: skip

    def __init__(self, upstream: "Upstream", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._upstream = upstream
        self._answer: asyncio.Future[tuple[RawResponseMessage, StreamReader]] | None = None
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._head_only = False
        self._use_new_parser()
        self.interim: Callable[[RawResponseMessage], None] | None = None
        self._tunnel: Callable[[bytes], None] | None = None
        self._early = b""
        self._ended: asyncio.Future[None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self.deadline = NEVER
        self.spoken = False
        self.reusable = True

    def _use_new_parser(self) -> None:
        self._parser = self._responses = HttpResponseParser(
            self,
            self._loop,
            READ_BYTES,
            payload_exception=BrokenOff,
            response_with_body=not self._head_only,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=MAX_ANSWER_HEADER_BYTES,
            max_field_size=MAX_ANSWER_HEADER_BYTES,
        )

    async def exchange(self, head: bytes, head_only: bool, timeout_s: float) -> tuple[RawResponseMessage, StreamReader]:
        """Send a request's head (and what of its body follows it at once); return the answer's head and body.

        Raises BrokenOff when the connection ended first, Rejection when the answer was late or not HTTP.
        """
        if head_only is not self._head_only:  # an answer to HEAD has a length and no body
            self._head_only = head_only
            self._use_new_parser()
        self.spoken = False
        self._answer = self._loop.create_future()
        self.deadline = self._upstream.clock.monotonic() + timeout_s
        self.write(head)
        try:
            return await self._answer
        finally:
            self._answer = None
            self.deadline = NEVER

    def write(self, piece: bytes) -> None:
        """Write bytes of a request. Raises BrokenOff when the connection has ended."""
        if self.transport is None:
            raise BrokenOff
        self.transport.write(piece)

    async def drain(self) -> None:
        """Wait until the backend has taken enough. Raises ConnectionError when it is gone."""
        if self._paused:
            await self._drain_helper()

    def hold(self) -> None:
        """The backend is not to be blamed for silence now, as long as it owes an answer."""
        if self._answer is not None:
            self.deadline = NEVER

    def wait_until(self, deadline: float) -> None:
        """The backend owes an answer by then, if it has not begun to give it."""
        if self._answer is not None:
            self.deadline = deadline

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel(data)
            return
        if self._upgraded:
            self._early += data
            return
        if self._answer is None and self._payload.is_eof():
            self.close()  # nobody asked for this
            return
        self.spoken = True
        try:
            messages, self._upgraded, self._early = self._responses.feed_data(data)
        except HttpProcessingError:
            self.fail(Rejection(Reason.UPSTREAM_INVALID))
            return
        for message, payload in messages:
            if 100 <= message.code < 200 and message.code != 101:
                if self.interim is not None:
                    self.interim(message)
            elif self._answer is not None and not self._answer.done() and message.version.major == 1:
                self._payload = payload
                self._answer.set_result((message, payload))
            else:
                self.fail(Rejection(Reason.UPSTREAM_INVALID))

    def eof_received(self) -> None:
        """The backend has finished; connection_lost follows."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream.deadlines.watched.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._upstream.deadlines.watched.discard(self)
        self._upstream.forget(self)
        self.reusable = False
        with suppress(HttpProcessingError):
            self._responses.feed_eof()  # completes an answer that lasts until the connection ends
        self._break_off(BrokenOff())
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        super().connection_lost(exc)

    async def enter_tunnel(self, sink: Callable[[bytes], None]) -> None:
        """Hand what comes to `sink` from now on, beginning with what came behind the 101; returns when the connection ends."""
        self._tunnel = sink
        if self._early:
            sink(self._early)
        if self.transport is not None:
            self._ended = self._loop.create_future()
            await self._ended

    def on_writable(self, resume: Callable[[], None]) -> None:
        """Call `resume` once when the backend has taken enough."""
        self._on_writable = resume

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp's streams say so after every read
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._on_writable is not None:
            resume, self._on_writable = self._on_writable, None
            resume()

    def expire(self) -> None:
        """The backend was silent for too long."""
        self.fail(Rejection(Reason.UPSTREAM_TIMEOUT))

    def close(self) -> None:
        """End the connection; it cannot be used again."""
        self.reusable = False
        if self.transport is not None:
            self.transport.close()

    def fail(self, rejection: Rejection) -> None:
        """End the connection; whoever waits for its answer gets this rejection."""
        self._break_off(rejection)
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    def _break_off(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        if not self._payload.is_eof():
            self._payload.set_exception(error)


class Answer:
    """An upstream's answer: its head, its body still to be read, and the connection that it comes by."""

    __slots__ = ("_sending", "_upstream", "connection", "message", "payload")

    def __init__(
        self,
        message: RawResponseMessage,
        payload: StreamReader,
        connection: UpstreamConnection,
        upstream: "Upstream",
        sending: "asyncio.Task[None] | None",
    ) -> None:
        self.message = message
        self.payload = payload
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
        return self._sending is None or self._sending.done()

    def release(self) -> None:
        """The answer has been dealt with: keep the connection for the next request if nothing is left on it."""
        connection = self.connection
        if self._sending is not None and not self._sending.done():
            self._sending.cancel()
            connection.reusable = False
        if connection.reusable and self.payload.is_eof() and not self.message.should_close:
            self._upstream.keep(connection)
        else:
            connection.close()


class Upstream:
    """One backend. `address` is (host, port) or the path of a unix socket, `authority` what its Host header would say."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int] | str,
        clock: Clock,
        deadlines: Deadlines,
        *,
        authority: str,
        connections: int = 100,
        connect_s: float = 2.0,
        answer_s: float = 60.0,
        idle_s: float = 300.0,
    ) -> None:
        self.name = name
        self.authority = authority.encode()
        self.clock = clock
        self.deadlines = deadlines
        self.idle_s = idle_s
        self._address = address
        self._most = connections
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._open: set[UpstreamConnection] = set()
        self._opening = 0
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {self._address}: {len(self._open)} connections, {len(self._idle)} idle>"

    async def send(self, head: bytes, request: Request, interim: Callable[[RawResponseMessage], None]) -> Answer:
        """Send a request and return the answer as soon as its head is there; `interim` gets 1xx answers before it.

        `head` lacks the framing and the empty line. Raises Rejection. A request is sent a second time only when its connection
        had been idle, no byte of an answer came, and sending it twice does no harm (RFC 9110 section 9.2.2).
        """
        head, whole = _framed(head, request)
        while True:
            connection = self._take_idle()
            reused = connection is not None
            if connection is None:
                connection = await self.connect()
            connection.interim = interim
            sending = None if whole else asyncio.create_task(self._send_body(connection, request))
            answer = None
            try:
                message, payload = await connection.exchange(head, request.method == "HEAD", self._answer_s)
                answer = Answer(message, payload, connection, self, sending)
                return answer
            except BrokenOff:
                if not (reused and whole and request.method in IDEMPOTENT and not connection.spoken):
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
        now = self.clock.monotonic
        client.invite_body(request)
        try:
            while True:
                client.deadline = now() + self.idle_s
                connection.hold()
                chunk = await payload.readany()
                client.deadline = NEVER
                connection.wait_until(now() + self._answer_s)
                if not chunk:
                    break
                connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if request.length is None else chunk)
                await connection.drain()
            if request.length is None:
                connection.write(b"0\r\n\r\n")
        except RequestPayloadError:
            connection.fail(Rejection(Reason.REQUEST_MALFORMED, "The request's body is not well-formed."))
        except ConnectionError:
            pass  # the backend is gone, or wants no more: what it answered, if anything, is on its way

    async def connect(self) -> UpstreamConnection:
        """Open a connection, or wait for one to come free. Raises Rejection."""
        if len(self._open) + self._opening >= self._most:
            return await self._wait_for_one()
        self._opening += 1
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                if isinstance(self._address, str):
                    _, connection = await loop.create_unix_connection(
                        lambda: UpstreamConnection(self, loop), self._address
                    )
                else:
                    _, connection = await loop.create_connection(
                        lambda: UpstreamConnection(self, loop), *self._address
                    )
        except TimeoutError:
            raise Rejection(Reason.UPSTREAM_TIMEOUT, "The service behind this proxy accepts no connection.") from None
        except OSError:
            raise Rejection(Reason.UPSTREAM_UNREACHABLE) from None
        finally:
            self._opening -= 1
        self._open.add(connection)
        return connection

    async def _wait_for_one(self) -> UpstreamConnection:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._connect_s):
                await turn
        except TimeoutError:
            raise Rejection(
                Reason.OVERLOADED, "All connections to the service behind this proxy are busy.", retry_after_s=1
            ) from None
        finally:
            if not turn.done() or turn.cancelled():
                self._waiting.remove(turn)
        return self._take_idle() or await self.connect()

    def _take_idle(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> None:
        """Take a connection back for the next request."""
        connection.interim = None
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
