"""One client's connection: bytes in, one exchange at a time, bytes out.

What is waited for, and for how long, is in `client_limits`.
"""

import asyncio
from typing import Protocol

from sidecar.common.clock import Clock
from sidecar.common.deadlines import NEVER
from sidecar.common.errors import Reason
from sidecar.http.forwarded import Forwarded
from sidecar.http.grammar import END_OF_HEAD, ProtocolError
from sidecar.http.message_reader import BODY, COMPLETE, HEAD
from sidecar.http.request_head import RequestHead, parse_request_head
from sidecar.proxy.client_limits import BLANK_LINES, LINGER_S, ClientLimits
from sidecar.proxy.connection import Connection, Joined, end_by_reset
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.handler import Handler
from sidecar.proxy.lingering_close import LingeringClose
from sidecar.proxy.resources import READ_BYTES, SMALL_READ_BYTES, Resources


class Listener(Protocol):
    """Where clients connect, and what holds for all of them."""

    handler: Handler
    clock: Clock
    resources: Resources
    limits: ClientLimits
    is_closing: bool

    def opened(self, connection: "ClientConnection") -> bool:
        """A client has connected; is there room for it?"""

    def closed(self, connection: "ClientConnection") -> None:
        """A connection has ended."""

    def forwarded(self, transport: asyncio.BaseTransport) -> Forwarded:
        """What the backend is to be told about a connection."""


class ClientConnection(Connection):
    """A client's connection.

    - `exchange` is the request in hand. Nothing behind it is looked at before it is over.
    """

    __slots__ = (
        "_due", "_head_by", "_taken_by", "_trusted", "_turn_is_due", "exchange", "forwarded",
        "listener",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.resources, listener.limits.head_bytes, BLANK_LINES)
        self.listener = listener
        self.exchange: Exchange | None = None
        self.forwarded: Forwarded
        self._trusted = listener.limits.trusted
        self._turn_is_due = False
        self._head_by = NEVER  # a head that has begun has to end by then
        self._due = self._taken_by = NEVER  # a client may owe something, and take nothing of its answer

    def now(self) -> float:
        """Monotonic seconds."""
        return self.listener.clock.monotonic()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self.listener
        self.attach(transport)
        self.forwarded = listener.forwarded(transport)
        has_room = listener.opened(self)
        self._due = self.now() + listener.limits.keep_alive_s
        self._set_deadline()
        if not has_room:
            self._refuse_unread(Reason.OVERLOADED)

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self.memory[:nbytes])
        reader = self.reader
        if (
            self.exchange is None
            and reader.state == HEAD
            and not reader.buffer
            and not self.write_paused
            and data.endswith(END_OF_HEAD)
        ):
            handler = self.listener.handler
            head = handler.heads.get(data)
            if head is not None and not head.length and self.is_open:
                reader.skip_known()
                self._begin(handler, head)
                return
        if self.sink is not None:
            self.sink.from_client(data)
            return
        if nbytes >= READ_BYTES:
            self.count_full_read()
        reader.feed(data)
        self._read()

    def eof_received(self) -> None:
        """The client has finished. Whether it only sends no more or has left cannot be told, so it has left."""
        if self.exchange is not None and self.sink is None:
            self.abort()
        else:  # the loop ends the connection, once the client has taken what was sent, which it may never do
            self._due = min(self._due, self.now() + self.listener.limits.idle_s)
            self._set_deadline()
        self._left()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.listener.closed(self)
        self.is_open = False
        self.release_held()
        self.count_unread(0)
        self.reader.die()  # also for a turn that is still due
        self._left()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taken_by = self.now() + self.listener.limits.idle_s
        self._set_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken_by = NEVER
        self._set_deadline()
        if self.sink is not None:
            self.sink.client_writable()
        elif self.exchange is not None:
            self.exchange.client_writable()
        elif self.is_open:
            self._await_request(self.now())

    def expire(self) -> None:
        """The client was silent for too long, or did not take what it was sent."""
        self.abort()

    # What the exchange and the tunnel call.

    def body_is_owed(self, owed: bool, within_s: float | None = None) -> None:
        """The client owes a piece of its body, by default within `timeouts.idle`, or it does not."""
        self.wait_for((within_s or self.listener.limits.idle_s) if owed else NEVER)

    def wait_for(self, within_s: float) -> None:
        """The client has so long to do what is waited for."""
        self._due = self.now() + within_s
        self._set_deadline()

    def exchange_over(self, keep: bool, now: float) -> None:
        """The exchange has ended, at so many monotonic seconds.

        With `keep` the next request is looked at, in the next turn of the loop.
        """
        self.exchange = self.sink = None
        self._due = NEVER
        if not self.is_open:
            return
        reader = self.reader
        if not keep or self.listener.is_closing or reader.state != COMPLETE:
            self._linger()
            return
        reader.next_message()
        if self.write_paused:  # nothing more is answered before it has taken this
            self._set_deadline()
        else:
            self._await_request(now)

    def enter_tunnel(self, tunnel: Joined) -> bytes:
        """Hand what comes to the tunnel from now on; returns what came behind the request."""
        self.sink = tunnel
        early = self.reader.release()
        self.unread_changed()
        return early

    def abort(self) -> None:
        """End the connection at once; within an answer by a reset, since to an HTTP/1.0 client any other end completes it."""
        if self.is_open and (self.write_paused or (self.exchange is not None and self.sink is None)):
            end_by_reset(self.transport)
        self.is_open = False
        self.transport.abort()

    @property
    def idle_until(self) -> float:
        """When it ends if no next request begins; NEVER where it does anything but wait for one."""
        waits = self.is_open and self.exchange is None and self.sink is None and not self.reader.buffer
        waits = waits and not self.transport.get_write_buffer_size()
        return self._due if waits else NEVER

    def close(self) -> None:
        """End the connection if it is idle. A request that is being served ends it itself, with all of its body."""
        is_idle = self.exchange is None and self.sink is None and not self.reader.buffer
        if is_idle and self.is_open:
            self.is_open = False
            self.wait_for(LINGER_S)  # it takes what was sent
            self.transport.close()

    # The beginning and the end.

    def _await_request(self, now: float) -> None:
        """Wait for the next request, or look at what is here of it in the next turn of the loop."""
        if self.reader.buffer:
            self._turn_is_due = True
            self.resources.defer(self._turn)
        else:
            self._due = now + self.listener.limits.keep_alive_s
        self.deadline = self._due

    def _turn(self) -> None:
        self._turn_is_due = False
        self._read()

    def _read(self) -> None:
        """Go on with what has come."""
        reader = self.reader
        if self._turn_is_due:
            pass  # others come first
        elif self.exchange is not None:
            if reader.state == BODY:
                self.exchange.send_body()
            if reader.state == COMPLETE and reader.buffer and self._head_by == NEVER:
                self._head_by = self.now() + self.listener.limits.request_headers_s
        elif reader.state == HEAD and self.is_open and not self.write_paused:
            self._next_request()
        if reader.buffer or self.unread or self.reading_paused:
            self.unread_changed()

    def _next_request(self) -> None:
        listener = self.listener
        reader = self.reader
        handler = listener.handler
        try:
            raw = reader.head()
            if raw is None:
                if reader.buffer:
                    if self._head_by == NEVER:
                        self._head_by = self.now() + listener.limits.request_headers_s
                    self._due = self._head_by
                    if self.resources.spent and len(reader.buffer) > SMALL_READ_BYTES:
                        self._refuse_unread(Reason.OVERLOADED)
                else:  # only empty lines have come
                    self._head_by = NEVER
                    if self._due == NEVER:
                        self._due = self.now() + listener.limits.keep_alive_s
                self._set_deadline()
                return
            head = handler.heads.get(raw)
            if head is None:
                head = parse_request_head(
                    raw, handler.header_policy, listener.limits.header_bytes, listener.limits.headers
                )
        except ProtocolError as error:
            self._refuse_unread(
                Reason.HEADERS_TOO_LARGE if error.too_large else Reason.REQUEST_MALFORMED, cause=error.rule
            )
            return
        reader.begin_body(head.length)
        self._begin(handler, head, raw)

    def _begin(self, handler: Handler, head: RequestHead, raw: bytes = b"") -> None:
        """Serve a request; `raw` are the bytes of a head that is not known by them."""
        listener = self.listener
        reader = self.reader
        self.deadline = self._due = self._head_by = NEVER
        if reader.buffer and reader.state == COMPLETE:
            self._head_by = self.now() + listener.limits.request_headers_s
        if self._trusted is not listener.limits.trusted:  # after a reload
            self._trusted = listener.limits.trusted
            self.forwarded = listener.forwarded(self.transport)
        self.exchange = exchange = handler.exchange(head, self.forwarded, self, raw)
        handler.receive(exchange)

    def _refuse_unread(self, reason: Reason, cause: str = "") -> None:
        """Answer bytes that never became a request."""
        self.write(self.listener.handler.answers.refuse_unread(reason, self.forwarded.peer, cause))
        self._linger()

    def _left(self) -> None:
        self.is_open = False
        if self.sink is not None:
            self.sink.ended()
        elif self.exchange is not None:
            self.exchange.finish(keep=False)  # nobody is left to be answered

    def _linger(self) -> None:
        """Say no more, and drop what the client still sends."""
        owes_body = self.reader.state == BODY
        self.reader.die()
        self.count_unread(0)
        self.pause_reading(False)
        self._due = NEVER
        self._set_deadline()
        self.sink = LingeringClose(self, self.listener.limits.idle_s, owes_body=owes_body)

    def _set_deadline(self) -> None:
        self.deadline = min(self._due, self._taken_by)
