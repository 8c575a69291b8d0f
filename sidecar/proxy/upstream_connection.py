"""One connection to the backend. It serves one exchange at a time; only here bytes leave for the backend.

It can be used again only when its answer is complete and nothing has come behind it: a byte that nobody asked for would be the
next client's answer.
"""

import asyncio
import ssl
from typing import Protocol

from sidecar.common.clock import Clock
from sidecar.common.deadlines import NEVER
from sidecar.http.head_cache import HeadCache
from sidecar.http.header_policy import ResponseHeaderPolicy
from sidecar.http.response_head import ResponseHead, parse_response_head
from sidecar.proxy.connection import Connection, Joined
from sidecar.proxy.resources import READ_BYTES, Resources

CLOSE_S = 5.0  # how long a backend has to take the rest of what was sent to a connection that is closed


class Asker(Protocol):
    """Who a connection belongs to, from its request to the end of the answer."""

    def answer_came(self) -> None:
        """Something has come, or the connection has ended."""

    def send_body(self) -> None:
        """The backend has taken all that it was sent."""

    def upstream_silent(self) -> None:
        """The backend's time is over."""


class Pool(Protocol):
    """Where a connection comes from, and what holds for all that come from there."""

    clock: Clock
    resources: Resources
    answer_s: float
    idle_s: float
    head_bytes: int
    headers: int
    header_policy: ResponseHeaderPolicy
    heads: HeadCache[ResponseHead]

    def keep(self, connection: "UpstreamConnection", now: float) -> None:
        """Take a connection back."""

    def forget(self, connection: "UpstreamConnection") -> None:
        """A connection has ended."""


class UpstreamConnection(Connection):
    """A connection to the backend.

    - `asker` is who it belongs to, None in the pool.
    - `used`: it has been in the pool, so the backend may have ended it meanwhile. `spoken`: a byte of this one's answer has come.
    - `ended`: nothing more will come.
    - `complete_end`: the backend has ended it in order, by TLS's close_notify where that is spoken (RFC 9112 section 9.8), and
      not by a reset.
    """

    __slots__ = ("asker", "complete_end", "ended", "head_only", "pool", "spoken", "used")

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.resources, pool.head_bytes)
        self.pool = pool
        self.asker: Asker | None = None
        self.used = self.spoken = self.ended = self.complete_end = self.head_only = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self.memory[:nbytes])
        self.is_read_up = nbytes < self.room
        if nbytes >= READ_BYTES:
            self.count_full_read()
        if self.sink is not None:
            self.sink.from_upstream(data)
            return
        if self.asker is None:
            if self.is_open:  # TLS may still read while it closes, and an abort within that fails
                self.abort()  # nobody asked for this
            return
        self.spoken = True
        reader = self.reader
        reader.feed(data)
        self.asker.answer_came()
        if reader.buffer or self.unread or self.reading_paused:
            self.unread_changed()

    def eof_received(self) -> None:
        """The backend has finished. `connection_lost` comes only once it has taken what was sent, which it may never do."""
        self.complete_end = _is_in_order(self.transport.get_extra_info("ssl_object"))
        self.ended = True
        self.is_open = False
        if self.sink is None and self.asker is not None:
            self.asker.answer_came()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended = True
        self.is_open = False
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

    # What the one calls who it belongs to.

    @property
    def can_be_used_again(self) -> bool:
        """Has nothing come behind its answer?

        What a read without room for more, or a pause, may have left in the socket would be the next asker's.
        """
        return self.is_open and not self.reader.buffer and self.is_read_up and not self.reading_paused

    def start(self, asker: Asker, request: bytes, *, head_only: bool) -> None:
        """Send a request, or its beginning; its answer belongs to this asker."""
        assert self.asker is None
        self.asker = asker
        self.head_only = head_only
        self.spoken = False
        self.write(request)

    def next_head(self) -> ResponseHead | None:
        """Take the next head of an answer, None while it has not all come. Raises ProtocolError.

        Behind a 1xx the next head follows.
        """
        reader = self.reader
        raw = reader.head()
        if raw is None:
            return None
        pool = self.pool
        head = pool.heads.get(raw)
        if head is None:
            head = parse_response_head(raw, pool.header_policy, pool.headers)
            pool.heads.offer(raw, head)
        if head.status == 101 or head.status >= 200:
            reader.begin_body(0 if self.head_only else head.length)
        else:
            reader.begin_body(0)
            reader.next_message()
        return head

    def abandon(self) -> None:
        """The exchange has ended before its answer did: end the connection at once."""
        self.asker = None
        self.deadline = NEVER
        self._forget_unread()
        self.abort()

    def dismiss(self) -> None:
        """The exchange is over, and the connection cannot be used again: end it."""
        self.asker = None
        self._forget_unread()
        self.close()

    def release(self, now: float) -> None:
        """The exchange is over and has left nothing behind: the next request may have the connection."""
        assert not self.reader.buffer
        self.asker = None
        if self.unread:
            self.count_unread(0)
        self.reader.next_message()
        self.pool.keep(self, now)

    def _forget_unread(self) -> None:
        self.reader.die()
        self.count_unread(0)

    def enter_tunnel(self, tunnel: Joined) -> bytes:
        """Hand what comes to the tunnel from now on; returns what came already."""
        self.sink = tunnel
        early = self.reader.release()
        self.unread_changed()
        return early

    def close(self) -> None:
        """End the connection. What the backend does not take in time is lost."""
        self.is_open = False
        self.deadline = self.pool.clock.monotonic() + CLOSE_S
        self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.is_open = False
        self.transport.abort()


def _is_in_order(tls: ssl.SSLObject | None) -> bool:
    """Has the peer ended its side itself? An end of TCP alone may be anybody's, where TLS has a word for it."""
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
