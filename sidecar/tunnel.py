"""After a 101: bytes both ways, no faster than either side takes them, until one side ends or the token does.

Frames are counted, never unpacked: only between two frames can the sidecar add a close frame of its own.
"""

import asyncio
from collections.abc import Callable
from os import urandom
from typing import TYPE_CHECKING, TypeAlias

from sidecar.deadlines import NEVER
from sidecar.leg import UpstreamConnection

if TYPE_CHECKING:
    from sidecar.connection import ClientConnection

    Side: TypeAlias = ClientConnection | UpstreamConnection

FRAME_ENDS_S = 5.0  # how long a frame that is on its way when the token expires may take to end
TOKEN_EXPIRED = 4401  # RFC 6455 section 7.4.2: 4000-4999 are for applications; 4401 reads as "401 on a WebSocket"


class Frames:
    """Where in a stream of WebSocket frames (RFC 6455 section 5.2) the last byte stood."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """Did the stream stop exactly between two frames?"""
        return not self._left and not self._head

    def count(self, data: bytes, *, one: bool = False) -> int:
        """Follow the stream over `data`, or with `one` only to the end of the frame that is under way; returns how far."""
        at, end = 0, len(data)
        while at < end and not (one and self.between):
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            self._head += data[at : at + 1]
            at += 1
            if (length := _frame_left(self._head)) is not None:
                self._left = length
                self._head = b""
        return at


def _frame_left(head: bytes) -> int | None:
    """How many bytes of a frame follow its length field, or None while that is not complete."""
    if len(head) < 2:
        return None
    mask = 4 if head[1] & 0x80 else 0
    length = head[1] & 0x7F
    extended = {126: 2, 127: 8}.get(length, 0)
    if len(head) < 2 + extended:
        return None
    return mask + (int.from_bytes(head[2:]) if extended else length)


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A close frame (RFC 6455 section 5.5.1); what a client sends is masked."""
    payload = code.to_bytes(2) + reason.encode()
    if not masked:
        return bytes((0x88, len(payload))) + payload
    mask = urandom(4)
    return bytes((0x88, 0x80 | len(payload))) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class _Direction:
    """One half of a tunnel. Once it is `ending` it passes on the frame that is under way, says why, and is `over`."""

    def __init__(
        self, source: "Side", sink: "Side", passed: Callable[[], None], *, masked: bool, counted: bool
    ) -> None:
        self.ending = self.over = False
        self._source = source
        self._sink = sink
        self._passed = passed
        self._masked = masked
        self._frames = Frames() if counted else None

    def relay(self, data: bytes) -> None:
        """Pass on what has come, and hold up its sender while the receiver has enough."""
        if self._sink.transport is None:
            return
        if self._frames is not None:
            data = data[: self._frames.count(data, one=self.ending)]
        self._sink.transport.write(data)
        if self._sink.writing_paused and self._source.transport is not None:
            self._source.transport.pause_reading()
            self._sink.on_writable(self._source.transport.resume_reading)
        if self.ending:
            self.end()
        self._passed()

    def end(self) -> None:
        """Say that the token has expired, as soon as no frame is under way."""
        self.ending = True
        if self._frames is not None and self._frames.between and not self.over:
            self.over = True
            if self._sink.transport is not None:
                self._sink.transport.write(close_frame(TOKEN_EXPIRED, "token expired", masked=self._masked))


class Tunnel:
    """Two connections joined to each other. When one ends so does the other.

    `idle_s` is how long both may be silent, `lasts_s` how long the token that opened the tunnel is still good (NEVER: for
    ever). A tunnel of another protocol than `websocket` ends at once then, since its frames are not known.
    """

    def __init__(
        self,
        client: "ClientConnection",
        upstream: UpstreamConnection,
        idle_s: float,
        lasts_s: float,
        *,
        websocket: bool,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._idle_s = idle_s
        self._lasts_s = lasts_s
        self._websocket = websocket
        counted = (
            websocket and lasts_s != NEVER
        )  # where nothing is to be said at the end, nobody needs to know where it is
        self._out = _Direction(client, upstream, self._passed, masked=True, counted=counted)
        self._back = _Direction(upstream, client, self._passed, masked=False, counted=counted)

    async def run(self) -> None:
        """Relay until either side has ended. Cancelled when the client goes away."""
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        if self._lasts_s != NEVER:
            lasts_s = max(0.0, self._lasts_s)
            timers.append(loop.call_later(lasts_s, self._expire))
            timers.append(loop.call_later(lasts_s + FRAME_ENDS_S, self._upstream.close))
        try:
            self._passed()
            self._client.enter_tunnel(self._out.relay)
            await self._upstream.enter_tunnel(self._back.relay)
        finally:
            for timer in timers:
                timer.cancel()

    def _passed(self) -> None:
        self._upstream.deadline = self._client.clock.monotonic() + self._idle_s
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
