"""The tunnel after a 101: passes bytes both ways, no faster than the receiver reads, until one side closes or the token expires.

Frames are counted and not decoded: the sidecar can add its close frame only between two frames.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from sidecar.common.deadlines import NEVER
from sidecar.http.websocket_frames import Frames, close_frame
from sidecar.proxy.connection import Joined
from sidecar.proxy.resources import READ_BYTES, Resources
from sidecar.proxy.upstream_connection import UpstreamConnection

FRAME_ENDS_S = 5.0  # how long a frame may take to end after the token has expired
TOKEN_EXPIRED = 4401  # RFC 6455 section 7.4.2: 4000-4999 are for applications; 4401 reads as "401 on a WebSocket"


class Side(Protocol):
    """One of the two connections."""

    __slots__ = ()

    resources: Resources
    write_paused: bool

    def write(self, data: bytes) -> None:
        """Send bytes, at the end of this turn unless there are many."""

    def pause_reading(self, pause: bool) -> None:
        """Pause reading, or resume it."""


class ClientSide(Side, Protocol):
    """The client's connection."""

    __slots__ = ()

    def now(self) -> float:
        """Monotonic seconds."""

    def enter_tunnel(self, tunnel: Joined) -> bytes:
        """Pass all further bytes to the tunnel; returns the bytes after the request."""


class Joining(Protocol):
    """The exchange whose connections are joined."""

    upstream: UpstreamConnection | None

    def finish(self) -> None:
        """End the exchange."""


class _Direction:
    """One direction of a tunnel. After `end` it passes on the current frame, sends a close frame, and is `over`."""

    __slots__ = ("_defer", "_frames", "_is_deferred", "_masked", "_sink", "_source", "_unread", "ending", "over")

    def __init__(
        self, source: Side, sink: Side, defer: Callable[[Callable[[], None]], None], *, masked: bool, counted: bool
    ) -> None:
        self.ending = self.over = self._is_deferred = False
        self._source = source
        self._sink = sink
        self._defer = defer
        self._masked = masked
        self._frames = Frames() if counted else None
        self._unread = b""  # frames beyond the limit of one call; their sender is paused

    def relay(self, data: bytes) -> None:
        """Pass on bytes, and pause their sender while the receiver is slow."""
        if self._frames is not None:
            passed = self._frames.count(data, one=self.ending)
            if not self.ending:
                assert not self._is_deferred, "its sender is paused"
                self._unread = data[passed:]
                # If frames are counted, one full read in a turn is the limit: a loop may read more than once.
                self._is_deferred = bool(self._unread) or len(data) >= READ_BYTES
            data = data[:passed]
        self._sink.write(data)
        if self._is_deferred:
            self._defer(self._again)
        if self._is_deferred or self._sink.write_paused:
            self._source.pause_reading(True)
        if self.ending:
            self.end()

    def _again(self) -> None:
        self._is_deferred = False
        if self._unread:
            self.relay(self._unread)
        self.sink_writable()

    def sink_writable(self) -> None:
        """The receiver has read all sent bytes."""
        if not self._is_deferred and not self._sink.write_paused:
            self._source.pause_reading(False)

    def flush(self) -> None:
        """Pass on the waiting bytes at once: their sender has closed."""
        data, self._unread = self._unread, b""
        self._sink.write(data)

    def end(self) -> None:
        """Send a close frame that says that the token has expired, after the current frame."""
        frames = self._frames
        assert frames is not None
        self.ending = True
        data, self._unread = self._unread, b""
        self._sink.write(data[: frames.count(data, one=True)])
        if frames.between and not self.over:
            self.over = True
            self._sink.write(close_frame(TOKEN_EXPIRED, "token expired", masked=self._masked))


class Tunnel:
    """The two joined connections of an exchange. When one closes, the other is closed too.

    `idle_s` is how long both may be silent. `lasts_s` is the remaining lifetime of the token (NEVER: unlimited). When it
    expires, a WebSocket gets a close frame; a tunnel of another protocol closes at once.
    """

    def __init__(
        self,
        exchange: Joining,
        client: ClientSide,
        upstream: UpstreamConnection,
        lasts_s: float,
        *,
        websocket: bool,
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._upstream = upstream
        self._idle_s = upstream.pool.idle_s
        self._websocket = websocket
        # Without an end by expiry there is no close frame to send, so frames are not counted.
        counted = websocket and lasts_s != NEVER
        defer = client.resources.defer
        self._out = _Direction(client, upstream, defer, masked=True, counted=counted)
        self._back = _Direction(upstream, client, defer, masked=False, counted=counted)
        self._timers: list[asyncio.TimerHandle] = []
        if lasts_s != NEVER:
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(lasts_s, self._expire))
            self._timers.append(loop.call_later(lasts_s + FRAME_ENDS_S, upstream.close))

    def begin(self) -> None:
        """Take over both connections, with the bytes after their last message."""
        from_client = self._client.enter_tunnel(self)
        from_upstream = self._upstream.enter_tunnel(self)
        self._passed()
        if from_client:
            self.from_client(from_client)
        if from_upstream:
            self.from_upstream(from_upstream)
        if self._upstream.ended:  # it closed while the client was slow
            self.ended()

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""
        self._out.relay(data)
        self._passed()

    def from_upstream(self, data: bytes) -> None:
        """Bytes from the backend."""
        self._back.relay(data)
        self._passed()

    def client_writable(self) -> None:
        """The client has read all sent bytes."""
        self._back.sink_writable()

    def upstream_writable(self) -> None:
        """The backend has read all sent bytes."""
        self._out.sink_writable()

    def ended(self) -> None:
        """One of the two connections has closed."""
        for timer in self._timers:
            timer.cancel()
        self._out.flush()
        self._back.flush()
        self._upstream.close()
        self._exchange.upstream = None  # it closes itself after it has sent the rest
        self._exchange.finish()

    def _passed(self) -> None:
        if not self._upstream.is_open:
            return  # it is ending already
        self._upstream.deadline = self._client.now() + self._idle_s
        self._close_if_over()

    def _expire(self) -> None:
        if self._websocket:
            self._out.end()
            self._back.end()
            self._close_if_over()
        else:
            self._upstream.close()

    def _close_if_over(self) -> None:
        if self._out.over and self._back.over:
            self._upstream.close()
