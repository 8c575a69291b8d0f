"""One client's connection. It serves one exchange at a time.

`client_limits` has the timeouts of each state.
"""

import asyncio
from typing import Protocol

from sidecar.common.clock import Clock
from sidecar.common.deadlines import NEVER
from sidecar.common.errors import Reason
from sidecar.http.forwarded import Forwarded
from sidecar.http.grammar import END_OF_HEAD, ProtocolError
from sidecar.http.request_head import RequestHead, parse_request_head
from sidecar.proxy.client_limits import BLANK_LINES, LINGER_S
from sidecar.proxy.connection import Connection, Joined, end_by_reset
from sidecar.proxy.exchange import Client, Exchange
from sidecar.proxy.handler import Handler
from sidecar.proxy.lingering_close import LingeringClose
from sidecar.proxy.resources import READ_BYTES, SMALL_READ_BYTES, Resources
from sidecar.proxy.serving import Serving


class Listener(Protocol):
    """The listener, with what all of its connections share."""

    clock: Clock
    resources: Resources
    serving: Serving

    def opened(self, connection: "ClientConnection") -> bool:
        """A client has connected. Returns whether the limit of connections allows it."""

    def closed(self, connection: "ClientConnection") -> None:
        """A connection has closed."""

    def forwarded(self, transport: asyncio.BaseTransport) -> Forwarded:
        """The X-Forwarded-* writer for a connection."""


class ClientConnection(Connection, Client):
    """A client's connection. `exchange` is the current request; later bytes are not parsed before it is over."""

    __slots__ = (
        "_due", "_head_by", "_may_recur", "_taken_by", "_trusted", "_turn_is_due", "exchange", "forwarded", "listener",
        "serving",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self.serving = listener.serving
        super().__init__(listener.resources, listener.clock, self.serving.limits.head_bytes, BLANK_LINES)
        self.listener = listener
        self.exchange: Exchange | None = None
        self.forwarded: Forwarded
        self._turn_is_due = False
        self._may_recur = True  # the last head: a client whose heads cannot recur sends more of them
        self._head_by = NEVER  # deadline of a head that has begun
        self._due = self._taken_by = NEVER  # deadlines for the client to send something, and to read its answer

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)
        self._identify_peer()
        has_room = self.listener.opened(self)
        self._due = self.now() + self.serving.limits.keep_alive_s
        self._set_deadline()
        if not has_room:
            self._refuse_unread(Reason.OVERLOADED)

    def buffer_updated(self, nbytes: int) -> None:
        data = self.memory[:nbytes].tobytes()
        reader = self.reader
        if (
            self._may_recur
            and self.exchange is None
            and reader.state == "head"
            and not reader.buffer
            and not self.write_paused
            and data.endswith(END_OF_HEAD)
        ):
            handler = self.serving.handler
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
        """The client has closed its side. A half-closed client looks like one that left, so it counts as one."""
        if self.exchange is not None and self.sink is None:
            self.abort()
        else:  # the loop closes the connection after the client has read everything; a deadline limits that
            self._due = min(self._due, self.now() + self.serving.limits.idle_s)
            self._set_deadline()
        self._left()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.listener.closed(self)
        self.unsent = b""
        self.release_held()
        self.count_unread(0)
        self.reader.die()  # also for deferred work
        self._left()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.exchange is None and self.sink is None:
            self._due = NEVER  # the next request waits until the client has read its answer
        self._taken_by = self.now() + self.serving.limits.idle_s
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
        """A deadline has passed: the client was silent for too long, or did not read its answer."""
        self.abort()

    # Called by the exchange and the tunnel.

    def body_is_owed(self, owed: bool, within_s: float | None = None) -> None:
        """Set whether the client must send a piece of its body, by default within `timeouts.idle`."""
        self.wait_for((within_s or self.serving.limits.idle_s) if owed else NEVER)

    def wait_for(self, within_s: float) -> None:
        """Set the deadline for the client's next step."""
        self._due = self.now() + within_s
        self._set_deadline()

    def exchange_over(self, keep: bool, now: float) -> None:
        """The exchange has ended, at `now` in monotonic seconds.

        With `keep` the next request is parsed in the next turn of the loop.
        """
        self.exchange = self.sink = None
        self._due = NEVER
        if not self.is_open:
            return
        reader = self.reader
        if not keep or self.serving.is_closing or reader.state != "complete":
            self._linger()
            return
        reader.next_message()
        if self.write_paused:  # the next request waits until the client has read this answer
            self._set_deadline()
        else:
            self._await_request(now)

    def enter_tunnel(self, tunnel: Joined) -> bytes:
        """Pass all further bytes to the tunnel; returns the bytes after the request."""
        self.sink = tunnel
        early = self.reader.release()
        self.unread_changed()
        return early

    def abort(self) -> None:
        """Close the connection at once; within an answer by a reset, since an HTTP/1.0 client takes any close for its end."""
        self.flush()
        if self.is_open and (self.write_paused or (self.exchange is not None and self.sink is None)):
            end_by_reset(self.transport)
        self.is_open = False
        self.transport.abort()

    @property
    def idle_until(self) -> float:
        """The time at which an idle connection expires; NEVER if it does anything but wait for a request."""
        waits = self.is_open and self.exchange is None and self.sink is None and not self.reader.buffer
        waits = waits and not self.unsent and not self.transport.get_write_buffer_size()
        return self._due if waits else NEVER

    def close(self) -> None:
        """Close the connection if it is idle. Otherwise it closes after the current request and its body."""
        is_idle = self.exchange is None and self.sink is None and not self.reader.buffer
        if is_idle and self.is_open:
            self.end()
            self.wait_for(LINGER_S)  # for the client to read the answer
            self.transport.close()

    # Begin and end of requests.

    def _await_request(self, now: float) -> None:
        """Wait for the next request; parse received bytes in the next turn of the loop."""
        if self.reader.buffer:
            self._turn_is_due = True
            self.resources.defer(self._turn)
        else:
            self._due = now + self.serving.limits.keep_alive_s
        self.deadline = self._due

    def _turn(self) -> None:
        self._turn_is_due = False
        self._read()

    def _read(self) -> None:
        """Parse the received bytes."""
        reader = self.reader
        if self._turn_is_due:
            pass  # deferred: other connections come first
        elif self.exchange is not None:
            if reader.state == "body":
                self.exchange.send_body()
            if reader.state == "complete" and reader.buffer and self._head_by == NEVER:
                self._head_by = self.now() + self.serving.limits.request_headers_s
        elif reader.state == "head" and self.is_open and not self.write_paused:
            self._next_request()
        if reader.buffer or self.unread or self.reading_paused:
            self.unread_changed()

    def _next_request(self) -> None:
        reader, limits = self.reader, self.serving.limits
        handler = self.serving.handler
        try:
            raw = reader.head()
            if raw is None:
                if reader.buffer:
                    if self._head_by == NEVER:
                        self._head_by = self.now() + limits.request_headers_s
                    self._due = self._head_by
                    if self.resources.spent and len(reader.buffer) > SMALL_READ_BYTES:
                        self._refuse_unread(Reason.OVERLOADED)
                else:  # only empty lines so far
                    self._head_by = NEVER
                    if self._due == NEVER:
                        self._due = self.now() + limits.keep_alive_s
                self._set_deadline()
                return
            head = handler.heads.get(raw) if self._may_recur else None
            if head is None:
                head = parse_request_head(raw, handler.header_policy, limits.header_bytes, limits.headers)
                self._may_recur = head.may_recur
        except ProtocolError as error:
            self._refuse_unread(
                Reason.HEADERS_TOO_LARGE if error.too_large else Reason.REQUEST_MALFORMED, cause=error.rule
            )
            return
        reader.begin_body(head.length)
        self._begin(handler, head, raw)

    def _begin(self, handler: Handler, head: RequestHead, raw: bytes = b"") -> None:
        """Serve a request; `raw` are the bytes of a head that is not remembered."""
        reader, limits = self.reader, self.serving.limits
        self.deadline = self._due = self._head_by = NEVER
        if reader.buffer and reader.state == "complete":
            self._head_by = self.now() + limits.request_headers_s
        if self._trusted is not limits.trusted:  # after a reload
            self._identify_peer()
        self.exchange = exchange = handler.exchange(head, self.forwarded, self, raw)
        handler.receive(exchange)

    def _identify_peer(self) -> None:
        self._trusted = self.serving.limits.trusted
        self.forwarded = self.listener.forwarded(self.transport)

    def _refuse_unread(self, reason: Reason, cause: str = "") -> None:
        """Refuse bytes that are no valid request."""
        self.write(self.serving.handler.answers.refuse_unread(reason, self.forwarded.peer, cause))
        self._linger()

    def _left(self) -> None:
        self.end()
        if self.sink is not None:
            self.sink.ended()
        elif self.exchange is not None:
            self.exchange.finish()  # there is no client to answer

    def _linger(self) -> None:
        """Close the sending side, and drop further bytes of the client."""
        self.flush()
        owes_body = self.reader.state == "body"
        self.reader.die()
        self.count_unread(0)
        self.pause_reading(False)
        self._due = NEVER
        self._set_deadline()
        self.sink = LingeringClose(self, self.serving.limits.idle_s, owes_body=owes_body)

    def _set_deadline(self) -> None:
        self.deadline = min(self._due, self._taken_by)
