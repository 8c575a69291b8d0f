"""One client's connection: its requests are served one after the other, in one task.

aiohttp parses, buffers and counts; what is decided here is how long a client may take, what becomes of bytes that are no
HTTP, and when the connection can be used again. aiohttp's own error answers quote the offending line, token included, and are
never sent.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE, RequestHandler, RequestPayloadError, _ErrInfo

from sidecar.deadlines import NEVER
from sidecar.headers import Forwarded
from sidecar.recurring import MAX_BYTES
from sidecar.rejections import Reason
from sidecar.request import Request

if TYPE_CHECKING:
    from sidecar.listener import Listener

LINGER_S = 5.0  # a body that nobody wants is read for this long, so that its sender reads our answer
READ_BYTES = 64 * 1024  # buffered of one body before its sender is held up
_END = b"\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time


class ClientConnection(RequestHandler):
    """A client's connection; `deadline` is when its silence has lasted too long.

    `sent_on`: more has come with a request that asks for another protocol. aiohttp keeps that aside for WebSockets only.
    """

    __slots__ = (
        "_between",
        "_body_by",
        "_broken",
        "_drained_by",
        "_head_bytes",
        "_head_end",
        "_last_body",
        "_lines",
        "_lingering",
        "_on_writable",
        "_recurring_bytes",
        "_trusted",
        "_tunnel",
        "clock",
        "deadline",
        "forwarded",
        "listener",
        "sent_on",
    )

    def __init__(self, listener: "Listener", loop: asyncio.AbstractEventLoop, **limits: Any) -> None:
        super().__init__(
            listener,
            loop=loop,
            keepalive_timeout=0,  # ours: `deadline`
            access_log=None,  # type: ignore[arg-type]  # ours: telemetry
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            **limits,
        )
        # aiohttp's parser stops by its own count, which is one too high once a body has ended after its request was taken; it
        # goes on only where reading was stopped too.
        self._max_msg_queue_size = MAX_MSG_QUEUE_SIZE - 1
        self.listener = listener
        self.clock = listener.clock
        self.deadline = NEVER
        self._body_by = self._drained_by = NEVER  # a client may owe a piece of its body and take nothing of its answer
        self.forwarded: Forwarded
        self._tunnel: Callable[[bytes], None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self._last_body: StreamReader = EMPTY_PAYLOAD
        self._head_bytes = 0
        self._recurring_bytes = min(MAX_BYTES, self.max_line_size)  # in which no line can be too long
        self._head_end = b""  # the last bytes of a head that goes on, in which its end may begin
        self._lines = b""
        self._between = True  # no part of a request is in the parser; False in doubt
        self._broken = False
        self._lingering = False
        self.sent_on = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._look_at_peer(transport)
        self.listener.deadlines.watched.add(self)
        self.listener.proxy.telemetry.connections += 1
        full = self.listener.full
        super().connection_made(transport)
        if full:
            self.write(self.listener.proxy.refuse_unread(Reason.OVERLOADED, self))
            super().close()

    def _look_at_peer(self, transport: asyncio.BaseTransport) -> None:
        self.forwarded = self.listener.forwarded(transport)
        self._trusted = self.listener.trusted

    def connection_lost(self, exc: BaseException | None) -> None:
        self.listener.deadlines.watched.discard(self)
        self.listener.proxy.telemetry.connections -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel(data)
            return
        if self._broken:
            return  # after bytes that are no HTTP nothing on this connection has a meaning
        lines = b""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and self._between and len(data) <= self._recurring_bytes:
            lines, known = self.listener.proxy.heads.parsed(data)
            if known is not None:
                self._lines = lines
                self._last_body = EMPTY_PAYLOAD
                self._messages.append((known, EMPTY_PAYLOAD))
                waiter.set_result(None)
                return
        in_body = not self._last_body.is_eof()
        before = self._request_count
        super().data_received(data)
        if self._request_count == before:
            self._between = False
            if not in_body:  # nor the last piece of one
                self._head_end = (self._head_end + data)[-3:]
                self._head_goes_on(len(data))
                self.sent_on = self.sent_on or bool(data)
            elif self._last_body.is_eof():
                self.sent_on = True  # for all that is known
            elif data and not self._reading_paused:
                self.data_received(b"")  # a pause that is over may have stopped aiohttp's parser
            return
        data, self._head_end = self._head_end + data, b""
        # Of the request that these very bytes were, and of no other.
        self._lines = lines if self._request_count == before + 1 else b""
        self._head_bytes = 0
        message, payload = self._messages[-1] if self._messages else (None, self._last_body)
        if not isinstance(message, _ErrInfo):
            self._last_body = payload
            # Behind a body, and where reading is stopped, the parser may hold what it has not looked at.
            self._between = payload is EMPTY_PAYLOAD and data.endswith(_END) and not self._buffer_paused
            if message is not None and message.upgrade:
                self.sent_on = not 0 <= data.find(_END) == len(data) - len(_END)
            return
        self._broken = True
        if not self._last_body.is_eof():
            self._last_body.set_exception(RequestPayloadError())  # aiohttp leaves its reader waiting

    def _head_goes_on(self, size: int) -> None:
        """A head has begun, and not ended: from its first byte it has so long, and so many bytes for all of its headers."""
        if self._waiter is not None and not self._head_bytes:
            self.deadline = self.clock.monotonic() + self.listener.request_headers_s
        self._head_bytes += size
        if self._head_bytes > self.listener.head_bytes:
            self._broken = True
            too_long = LineTooLong(b"", self.listener.head_bytes)
            self._messages.append(
                (_ErrInfo(Reason.HEADERS_TOO_LARGE.status, too_long, too_long.message), EMPTY_PAYLOAD)
            )
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def expire(self) -> None:
        """The client was silent for too long, or did not take what it was sent."""
        if self._paused:
            self.abort()
        elif self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """End the connection if it is idle. A request that is being served ends it itself, with all of its body."""
        if self._waiter is not None:
            super().close()

    async def start(self) -> None:
        """Serve the connection's requests, in their order, until it ends. Runs as the connection's one task."""
        try:
            keep = True
            while keep and not self._close and not self.listener.closing:
                message, payload = self._messages.popleft() if self._messages else await self._next()
                self._message_taken()
                if isinstance(message, _ErrInfo):
                    self.write(self.listener.proxy.refuse_unread(why_unread(message.exc), self))
                    await self._linger()
                    break
                if self._trusted is not self.listener.trusted and self.transport is not None:  # after a reload
                    self._look_at_peer(self.transport)
                lines, self._lines = self._lines, b""
                request = Request(message, payload, self, lines)
                keep = await self.listener.proxy.handle(request) and payload.is_eof()
                if self._paused:
                    await self.drain(self.clock.monotonic() + self.listener.idle_s)
                if not keep or (message.chunked and not self.parse_afresh()):
                    keep = False
                    await self._linger()
                if self._messages:
                    await asyncio.sleep(0)  # the next one is here already; nobody else waits for all of them
        except ConnectionError:
            pass  # the client is gone
        finally:
            if self.transport is not None and not self._lingering:
                self.transport.close()

    async def _next(self) -> tuple[RawRequestMessage | _ErrInfo, StreamReader]:
        """Wait for the next request."""
        self.deadline = self.clock.monotonic() + self.listener.keep_alive_s
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.deadline = NEVER
        return self._messages.popleft()

    def _message_taken(self) -> None:
        """Let aiohttp read on where it had stopped because too many pipelined requests were waiting."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def write(self, piece: bytes) -> None:
        """Write bytes of an answer. Raises ConnectionError when the client is gone."""
        if self.transport is None:
            raise ConnectionResetError
        self.transport.write(piece)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        """Write bytes of an answer that come in pieces. Raises ConnectionError when the client is gone."""
        if self.transport is None:
            raise ConnectionResetError
        self.transport.writelines(pieces)

    def abort(self) -> None:
        """End the connection at once, by a reset: to an HTTP/1.0 client any other end completes what was sent."""
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    async def drain(self, deadline: float) -> None:
        """Wait until the client has taken enough, but no longer than `deadline`. Raises ConnectionError."""
        if self._paused:
            self._drained_by = deadline
            self.deadline = min(deadline, self._body_by)
            await self._drain_helper()
            self._drained_by = NEVER
            self.deadline = self._body_by

    def wait_for_body(self, deadline: float) -> None:
        """The client owes a piece of its body by then (NEVER: it does not), whatever else it has to do by when."""
        self._body_by = deadline
        self.deadline = min(deadline, self._drained_by)

    def enter_tunnel(self, sink: Callable[[bytes], None]) -> None:
        """Hand what comes to `sink` from now on, beginning with what came behind the request."""
        self._tunnel = sink
        if self._message_tail:
            tail, self._message_tail = self._message_tail, b""
            sink(tail)
        if self._buffer_paused:
            self._resume_reading_for_buffer()

    def on_writable(self, resume: Callable[[], None]) -> None:
        """Call `resume` once when the client has taken enough."""
        self._on_writable = resume

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp's streams say so after every read
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._on_writable is not None:
            resume, self._on_writable = self._on_writable, None
            resume()

    def invite_body(self, request: Request) -> None:
        """Send the `100 Continue` that a client waits for (RFC 9110 section 10.1.1), now that its request is accepted."""
        if request.expects_continue:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def parse_afresh(self) -> bool:
        """Take a new parser: aiohttp's gives the last trailer of a chunked body to the next request as a header.

        Says False when that request has begun already, and is not to be believed.
        """
        try:
            if self._messages or self._parser is None or self._parser.feed_eof() is not None:
                return False
        except HttpProcessingError:
            return False
        self._parser = HttpRequestParser(
            self,
            self._loop,
            READ_BYTES,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=MAX_MSG_QUEUE_SIZE,
        )
        return True

    async def _linger(self) -> None:
        """Say no more, and drop what the client still sends until it closes too (RFC 9112 section 9.6).

        Closing at once would destroy the answer on its way to a client that is still sending.
        """
        transport = self.transport
        if transport is None or not transport.can_write_eof():  # TLS cannot close one direction only
            return
        self._broken = True
        self._body_by = NEVER  # nobody wants it any more
        transport.set_write_buffer_limits(0)  # now "enough" is all of it
        await self.drain(self.clock.monotonic() + self.listener.idle_s)
        self._lingering = True
        self.deadline = self.clock.monotonic() + LINGER_S
        transport.write_eof()
        transport.resume_reading()


def why_unread(error: BaseException) -> Reason:
    """Why bytes that aiohttp could not parse are refused."""
    too_long = isinstance(error, LineTooLong) or "Too many headers" in str(error)
    return Reason.HEADERS_TOO_LARGE if too_long else Reason.REQUEST_MALFORMED
