"""After a 101: bytes both ways, no faster than either side takes them, until one side ends or the token does.

Frames are counted, never unpacked: only between two frames can the sidecar add a close frame of its own.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from sidecar.common.deadlines import NEVER
from sidecar.http.websocket import Frames, close_frame
from sidecar.proxy.connection import Joined
from sidecar.proxy.resources import READ_BYTES, Resources
from sidecar.proxy.upstream_connection import UpstreamConnection

FRAME_ENDS_S = 5.0  # how long a frame that is on its way when the token expires may take to end
TOKEN_EXPIRED = 4401  # RFC 6455 section 7.4.2: 4000-4999 are for applications; 4401 reads as "401 on a WebSocket"


class Side(Protocol):
    """A connection that is joined to another."""

    resources: Resources
    write_paused: bool

    def write(self, data: bytes) -> None:
        """Send."""

    def pause_reading(self, pause: bool) -> None:
        """Stop reading, or read on."""


class ClientSide(Side, Protocol):
    """The client's connection."""

    def now(self) -> float:
        """Monotonic seconds."""

    def enter_tunnel(self, tunnel: Joined) -> bytes:
        """Hand what comes to the tunnel from now on; returns what came behind the request."""


class Joining(Protocol):
    """Whose connections are joined."""

    upstream: UpstreamConnection | None

    def finish(self, *, keep: bool) -> None:
        """It is over."""


class _Direction:
    """One half of a tunnel. Once it is `ending` it passes on the frame that is under way, says why, and is `over`."""

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
        self._unread = b""  # more frames than are followed in one go; its sender is held up

    def relay(self, data: bytes) -> None:
        """Pass on what has come, and hold up its sender while the receiver has enough."""
        if self._frames is not None:
            passed = self._frames.count(data, one=self.ending)
            if not self.ending:
                assert not self._is_deferred, "its sender is held up"
                self._unread = data[passed:]
                # Where frames are followed, there is one full read a turn: a loop may read much in one.
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
        """The receiver has taken all that it was sent."""
        if not self._is_deferred and not self._sink.write_paused:
            self._source.pause_reading(False)

    def flush(self) -> None:
        """Pass on at once what waits for its turn: its sender has ended."""
        data, self._unread = self._unread, b""
        self._sink.write(data)

    def end(self) -> None:
        """Say that the token has expired, as soon as no frame is under way."""
        frames = self._frames
        assert frames is not None
        self.ending = True
        data, self._unread = self._unread, b""
        self._sink.write(data[: frames.count(data, one=True)])
        if frames.between and not self.over:
            self.over = True
            self._sink.write(close_frame(TOKEN_EXPIRED, "token expired", masked=self._masked))


class Tunnel:
    """The two connections of an exchange, joined to each other. When one ends so does the other.

    `idle_s` is how long both may be silent, `lasts_s` how long the token that opened the tunnel is still good (NEVER: for
    ever). A tunnel of another protocol than `websocket` ends at once then, since its frames are not known.
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
        # Where nothing is to be said at the end, nobody needs to know where a frame ends.
        counted = websocket and lasts_s != NEVER
        defer = client.resources.defer
        self._out = _Direction(client, upstream, defer, masked=True, counted=counted)
        self._back = _Direction(upstream, client, defer, masked=False, counted=counted)
        self._timers: list[asyncio.TimerHandle] = []
        if lasts_s != NEVER:
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(max(0.0, lasts_s), self._expire))
            self._timers.append(loop.call_later(max(0.0, lasts_s) + FRAME_ENDS_S, upstream.close))

    def begin(self) -> None:
        """Take over both connections, with what came to each behind its last message."""
        from_client = self._client.enter_tunnel(self)
        from_upstream = self._upstream.enter_tunnel(self)
        self._passed()
        if from_client:
            self.from_client(from_client)
        if from_upstream:
            self.from_upstream(from_upstream)
        if self._upstream.ended:  # while the client had not taken what came before
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
        """The client has taken all that it was sent."""
        self._back.sink_writable()

    def upstream_writable(self) -> None:
        """The backend has taken all that it was sent."""
        self._out.sink_writable()

    def ended(self) -> None:
        """One of the two connections has ended."""
        for timer in self._timers:
            timer.cancel()
        self._out.flush()
        self._back.flush()
        self._upstream.close()
        self._exchange.upstream = None  # it closes by itself, once it has taken the rest
        self._exchange.finish(keep=False)

    def _passed(self) -> None:
        if not self._upstream.is_open:
            return  # it is ending, and nothing puts that off
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
