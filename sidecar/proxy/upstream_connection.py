"""One connection to the backend. It serves one exchange at a time; no other module sends bytes to the backend.

It can be used again only if its answer is complete and no byte has come after it: such a byte would become the next client's
answer.
"""

import asyncio
import ssl
from typing import Protocol

from sidecar.common.clock import Clock
from sidecar.http.head_cache import HeadCache
from sidecar.http.header_policy import ResponseHeaderPolicy
from sidecar.http.response_head import ResponseHead, parse_response_head
from sidecar.proxy.connection import Connection, Joined
from sidecar.proxy.resources import READ_BYTES, Resources

CLOSE_S = 5.0  # how long a backend may take to read the rest before a closing connection is aborted


class Asker(Protocol):
    """The owner of a connection, from the request to the end of the answer."""

    def answer_came(self) -> None:
        """Bytes have come, or the connection has closed."""

    def send_body(self) -> None:
        """The backend has read all sent bytes."""

    def upstream_silent(self) -> None:
        """The backend's deadline has passed."""


class Pool(Protocol):
    """The pool of a connection, with the settings of all its connections."""

    clock: Clock
    resources: Resources
    answer_s: float
    idle_s: float
    head_bytes: int
    headers: int
    header_policy: ResponseHeaderPolicy
    heads: HeadCache[ResponseHead]
    last_head: bytes

    def keep(self, connection: "UpstreamConnection", now: float) -> None:
        """Take a connection back for later use."""

    def forget(self, connection: "UpstreamConnection") -> None:
        """A connection has closed."""


class UpstreamConnection(Connection):
    """A connection to the backend.

    - `asker`: its owner, None in the pool. `asked`: the first bytes of its request were sent.
    - `used`: it has been idle in the pool, so the backend may have closed it. `spoken`: a byte of the current answer has come.
    - `ended`: no more bytes will come.
    - `complete_end`: the backend has closed it in order, over TLS by close_notify (RFC 9112 section 9.8), and not by a reset.
    """

    __slots__ = ("asked", "asker", "complete_end", "ended", "head_only", "pool", "spoken", "used")

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.resources, pool.clock, pool.head_bytes)
        self.pool = pool
        self.asker: Asker | None = None
        self.asked = self.used = self.spoken = self.ended = self.complete_end = self.head_only = False

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)

    def buffer_updated(self, nbytes: int) -> None:
        data = self.memory[:nbytes].tobytes()
        self.is_read_up = nbytes < self.room
        if self.sink is not None:
            self.sink.from_upstream(data)
            return
        if nbytes >= READ_BYTES:
            self.count_full_read()
        if self.asker is None:
            if self.is_open:  # TLS may still read while it closes, and an abort fails then
                self.abort()  # bytes without a request
            return
        if self.used and not self.asked:
            self.unsent = b""
            self.ended = True
            self.abort()  # bytes before the request are not its answer
            self.asker.answer_came()
            return
        self.spoken = True
        reader = self.reader
        reader.feed(data)
        self.asker.answer_came()
        if reader.buffer or self.unread or self.reading_paused:
            self.unread_changed()

    def eof_received(self) -> None:
        """The backend has closed its side. `connection_lost` follows after it has read everything, which may never happen."""
        self.complete_end = _is_in_order(self.transport.get_extra_info("ssl_object"))
        self.ended = True
        self.end()
        if self.sink is None and self.asker is not None:
            self.asker.answer_came()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended = True
        self.is_open = False
        self.unsent = b""
        self.release_held()
        self.pool.forget(self)
        if self.sink is not None:
            self.sink.ended()
        elif self.asker is not None:
            self.asker.answer_came()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.sink is not None:
            self.sink.upstream_writable()
        elif self.asker is not None:
            self.asker.send_body()

    def expire(self) -> None:
        """The backend was silent for too long."""
        if self.sink is None and self.asker is not None:
            self.asker.upstream_silent()
        else:
            self.abort()

    # Called by the owner.

    @property
    def can_be_used_again(self) -> bool:
        """Can the connection serve another request: has no byte come after its answer?

        A full read or a pause may have left bytes in the socket, which would become the next answer. A request that was answered
        before it was sent may get another answer.
        """
        return self.is_open and self.asked and not self.reader.buffer and self.is_read_up and not self.reading_paused

    def start(self, asker: Asker, request: bytes, *, head_only: bool) -> None:
        """Send a request, or its beginning. Its answer goes to this owner."""
        assert self.asker is None
        self.asker = asker
        self.head_only = head_only
        self.asked = self.spoken = False
        self.write(request)

    def flush(self) -> None:
        """Send the bytes of this turn now."""
        super().flush()
        self.asked = True

    def next_head(self) -> ResponseHead | None:
        """Take the next head of an answer; None while it is incomplete. Raises ProtocolError.

        After a 1xx the next head follows.
        """
        pool, reader = self.pool, self.reader
        raw = reader.head(pool.last_head)
        if raw is None:
            return None
        head = pool.heads.get(raw)
        if head is None:
            head = parse_response_head(raw, pool.header_policy, pool.headers)
            pool.heads.offer(raw, head)
        else:
            pool.last_head = raw
        if head.is_final:
            reader.begin_body(0 if self.head_only else head.length)
        else:
            reader.begin_body(0)
            reader.next_message()
        return head

    def abandon(self) -> None:
        """The exchange has ended before its answer: close the connection at once."""
        self.asker = None
        self._forget_unread()
        self.abort()

    def dismiss(self) -> None:
        """The exchange is over and the connection cannot be used again: close it."""
        self.asker = None
        self._forget_unread()
        self.close()

    def release(self, now: float) -> None:
        """The exchange is over and the connection is clean: the next request may use it."""
        assert not self.reader.buffer
        self.asker = None
        if self.unread:
            self.count_unread(0)
        if self.memory is not self.resources.memory:
            self.receiver_is_slow()  # another client must show that it keeps up
        self.reader.next_message()
        self.pool.keep(self, now)

    def _forget_unread(self) -> None:
        self.reader.die()
        self.count_unread(0)

    def enter_tunnel(self, tunnel: Joined) -> bytes:
        """Pass all further bytes to the tunnel; returns the bytes that have come."""
        self.sink = tunnel
        early = self.reader.release()
        self.unread_changed()
        return early

    def close(self) -> None:
        """Close the connection. Bytes that the backend does not read within CLOSE_S are lost."""
        self.end()
        self.deadline = self.now() + CLOSE_S
        self.transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self.end()
        self.transport.abort()


def _is_in_order(tls: ssl.SSLObject | None) -> bool:
    """Has the peer closed its side by close_notify? Over TLS, an attacker can forge the end of TCP alone."""
    if tls is None:
        return True
    try:
        return not tls.read()
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
