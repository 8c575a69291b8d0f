"""One connection to the backend. It serves one exchange at a time; only here bytes leave for the backend.

It can be used again only when its answer is complete and nothing has come behind it: a byte that nobody asked for would be the
next client's answer.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING, Protocol, cast

from sidecar.deadlines import NEVER
from sidecar.http.message_reader import BODY, MessageReader
from sidecar.http.response_head import ResponseHead, parse_response_head
from sidecar.proxy.resources import KEEPS_UP, READ_BYTES, UNSENT_BYTES

if TYPE_CHECKING:
    from sidecar.proxy.tunnel import Tunnel
    from sidecar.proxy.upstream_pool import UpstreamPool

CLOSE_S = 5.0  # how long a backend has to take the rest of what was sent to a connection that is closed


class Asker(Protocol):
    """Who a connection belongs to, from its request to the end of the answer."""

    def answer_came(self) -> None:
        """Something has come, or the connection has ended."""

    def send_body(self) -> None:
        """The backend has taken all that it was sent."""

    def upstream_silent(self) -> None:
        """The backend's time is over."""


class UpstreamConnection(asyncio.BufferedProtocol):
    """A connection to the backend. `deadline` is when its silence has lasted too long.

    - `asker` is who it belongs to, None in the pool.
    - `used`: it has been in the pool, so the backend may have ended it meanwhile. `spoken`: a byte of this one's answer has come.
    - `is_open`: something can be sent. `ended`: nothing more will come.
    - `complete_end`: the backend has ended it in order, by TLS's close_notify where that is spoken (RFC 9112 section 9.8), and
      not by a reset.
    """

    __slots__ = (
        "_full_reads", "_held", "_is_read_up", "_memory", "_reading_paused", "_resources", "_room", "_transport", "_tunnel",
        "asker", "complete_end", "deadline", "ended", "head_only", "is_open", "pool", "reader", "spoken", "used",
        "write_paused",
    )  # fmt: skip

    def __init__(self, pool: "UpstreamPool") -> None:
        self.pool = pool
        self._resources = pool.resources
        self._memory = pool.resources.memory
        self._full_reads = 0  # in a row that the client has taken at once
        self._room = 0  # of the read that is under way
        self._is_read_up = True  # did the last read leave nothing in the socket?
        self.reader = MessageReader(pool.head_bytes)
        self.asker: Asker | None = None
        self.deadline = NEVER
        self.used = self.spoken = self.ended = self.complete_end = self.head_only = False
        self.write_paused = False
        self._transport: asyncio.Transport | None = None
        self.is_open = False
        self._reading_paused = False
        self._held = 0
        self._tunnel: Tunnel | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(UNSENT_BYTES, 0)
        self.is_open = True

    def get_buffer(self, _sizehint: int) -> memoryview:
        memory = self._memory
        if self.reader.buffer or self._resources.spent:
            memory = self._resources.room(len(self.reader.buffer), self._most_unread())
        self._room = len(memory)
        return memory

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._memory[:nbytes])
        self._is_read_up = nbytes < self._room
        if nbytes >= READ_BYTES:
            self._full_reads += 1
            if self._full_reads == KEEPS_UP:
                self._memory = self._resources.large_memory
        if self._tunnel is not None:
            self._tunnel.from_upstream(data)
            return
        if self.asker is None:
            self.abort()  # nobody asked for this
            return
        self.spoken = True
        reader = self.reader
        reader.feed(data)
        self.asker.answer_came()
        if reader.buffer or self._reading_paused:
            self.unread_changed()

    def eof_received(self) -> None:
        """The backend has finished. `connection_lost` comes only once it has taken what was sent, which it may never do."""
        assert self._transport is not None
        self.complete_end = _is_in_order(self._transport.get_extra_info("ssl_object"))
        self.ended = True
        self.is_open = False
        if self._tunnel is None and self.asker is not None:
            self.asker.answer_came()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended = True
        self.is_open = False
        self._release_held()
        self.pool.forget(self)
        if self._tunnel is not None:
            self._tunnel.ended()
        elif self.asker is not None:
            self.asker.answer_came()

    def pause_writing(self) -> None:
        assert self._transport is not None
        self.write_paused = True
        self._held = self._transport.get_write_buffer_size()  # what its sender holds unread is counted there
        self._resources.hold(self._held)

    def resume_writing(self) -> None:
        self.write_paused = False
        self._release_held()
        if self._tunnel is not None:
            self._tunnel.upstream_writable()
        elif self.asker is not None:
            self.asker.send_body()

    def expire(self) -> None:
        """The backend was silent for too long."""
        if self._tunnel is None and self.asker is not None:
            self.asker.upstream_silent()
        else:
            self.abort()

    # What the one calls who it belongs to.

    @property
    def can_be_used_again(self) -> bool:
        """Has nothing come behind its answer?

        What a read without room for more, or a pause, may have left in the socket would be the next asker's.
        """
        return self.is_open and not self.reader.buffer and self._is_read_up and not self._reading_paused

    def start(self, asker: Asker, request: bytes, *, head_only: bool) -> None:
        """Send a request, or its beginning; its answer belongs to this asker."""
        assert self.asker is None
        self.asker = asker
        self.head_only = head_only
        self.spoken = False
        self.write(request)

    def write(self, data: bytes) -> None:
        """Send more. Nothing is sent to a connection that has ended: its asker is told of that."""
        if self.is_open:
            assert self._transport is not None
            self._transport.write(data)

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

    def unread_changed(self) -> None:
        """Read on, or not: as many bytes wait here as may."""
        if not self.is_open or self._transport is None:
            return
        full = len(self.reader.buffer) >= self._most_unread()
        if full is not self._reading_paused:
            self._reading_paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def abandon(self) -> None:
        """The exchange has ended before its answer did: end the connection at once."""
        self.asker = None
        self.deadline = NEVER
        self.abort()

    def dismiss(self) -> None:
        """The exchange is over, and the connection cannot be used again: end it."""
        self.asker = None
        self.close()

    def receiver_is_slow(self) -> None:
        """The client does not take all at once: read no more than it may hold."""
        self._full_reads = 0
        self._memory = self._resources.memory

    def release(self, now: float) -> None:
        """The exchange is over and has left nothing behind: the next request may have the connection."""
        assert not self.reader.buffer
        self.asker = None
        self.reader.next_message()
        self.pool.keep(self, now)

    def enter_tunnel(self, tunnel: "Tunnel") -> bytes:
        """Hand what comes to the tunnel from now on; returns what came already."""
        self._tunnel = tunnel
        early = self.reader.release()
        self.unread_changed()
        return early

    def pause_reading(self) -> None:
        """Of a tunnel: stop reading."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Of a tunnel: read on."""
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """End the connection. What the backend does not take in time is lost."""
        if self._transport is not None:
            self.is_open = False
            self.deadline = self.pool.clock.monotonic() + CLOSE_S
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self.is_open = False
            self._transport.abort()

    def _most_unread(self) -> int:
        pool = self.pool
        return pool.resources.unread_bytes if self.reader.state == BODY else max(READ_BYTES, pool.head_bytes)

    def _release_held(self) -> None:
        self._resources.hold(-self._held)
        self._held = 0


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
