"""After a 101: bytes both ways, no faster than either side takes them, until one side ends or the token does.

Frames are counted, never unpacked: only between two frames can the sidecar add a close frame of its own.
"""

import asyncio
from os import urandom
from typing import TYPE_CHECKING

from sidecar.leg import UpstreamConnection

if TYPE_CHECKING:
    from sidecar.connection import ClientConnection

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

    def count(self, data: bytes) -> None:
        """Follow the stream over `data`."""
        at, end = 0, len(data)
        while at < end:
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


class Tunnel:
    """Two connections joined to each other. When one ends so does the other.

    `idle_s` is how long both may be silent; `lasts_s` how long the token that opened the tunnel is still good (None: for ever).
    """

    def __init__(
        self, client: "ClientConnection", upstream: UpstreamConnection, idle_s: float, lasts_s: float | None
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._idle_s = idle_s
        self._lasts_s = lasts_s
        self._from_client = Frames()
        self._from_upstream = Frames()

    async def run(self) -> None:
        """Relay until either side has ended. Cancelled when the client goes away."""
        loop = asyncio.get_running_loop()
        timer = None if self._lasts_s is None else loop.call_later(max(0.0, self._lasts_s), self._expired)
        try:
            self._client.enter_tunnel(self._to_upstream)
            await self._upstream.enter_tunnel(self._to_client)
        finally:
            if timer is not None:
                timer.cancel()
            self._upstream.close()

    def _to_upstream(self, data: bytes) -> None:
        self._from_client.count(data)
        self._pass(data, self._client, self._upstream)

    def _to_client(self, data: bytes) -> None:
        self._from_upstream.count(data)
        self._pass(data, self._upstream, self._client)

    def _pass(
        self,
        data: bytes,
        source: "ClientConnection | UpstreamConnection",
        sink: "ClientConnection | UpstreamConnection",
    ) -> None:
        if sink.transport is None:
            return
        sink.transport.write(data)
        self._upstream.deadline = self._client.clock.monotonic() + self._idle_s
        if sink.writing_paused and source.transport is not None:
            source.transport.pause_reading()
            sink.on_writable(source.transport.resume_reading)

    def _expired(self) -> None:
        for frames, sink, masked in (
            (self._from_upstream, self._client, False),
            (self._from_client, self._upstream, True),
        ):
            if sink.transport is not None and frames.between:
                sink.transport.write(close_frame(TOKEN_EXPIRED, "token expired", masked=masked))
        self._upstream.close()
