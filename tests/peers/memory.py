"""Connections without a socket, for moments that no socket can be brought to: a test is the other side, step by step.

@in_memory
async def test_a_connection(clock: HandClock) -> None:
    ...                                 # something that calls loop.create_connection
    [line] = lines()
    line.say(response(200))             # now, and not in some turn of the loop
    line.end()
"""

import asyncio
import functools
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from sidecar.proxy.connection import Connection
from tests.peers.clock import HandClock, HandLoop, in_its_time


class Line(asyncio.Transport):
    """One connection of the sidecar, its `protocol`.

    `sent`: all that was written to it, also what nobody would get because it has been closed before.
    `peer`: the address of the other side. `is_full`: it does not read. `is_tls`: one direction alone cannot be closed, and what
    comes is still read while it closes. `tls`: the session that the connection reports.
    `limits`: from how many unsent bytes on the other side counts as slow, and until how many.
    `finished`: this side sends no more. `reset`: it has been aborted such that the other side can tell. `lost`: the end has come.
    """

    def __init__(self, protocol: Connection, peer: Any = ("127.0.0.1", 1)) -> None:
        super().__init__(extra={"peername": peer, "socket": self})
        self.sent = b""
        self.is_full = self.is_tls = False
        self.closed = self.aborted = self.finished = self.reset = self.lost = False
        self.kernel_unsent: int | None = None  # TCP_NOTSENT_LOWAT, if it was changed
        self.protocol = protocol
        self._reading = True
        self.tls: ssl.SSLObject | None = None
        self.limits: tuple[int | None, int | None] = (None, None)
        self._unread = b""
        self._unsent = 0
        protocol.connection_made(self)

    def say(self, data: bytes, *, ends_turn: bool = True) -> None:
        """Bytes arrive: one turn of the loop, or its beginning."""
        self._unread += data
        while self._reading and self._unread and (self.is_tls or not self.closed):
            room = self.protocol.get_buffer(-1)
            size = min(len(room), len(self._unread))
            room[:size] = self._unread[:size]
            self._unread = self._unread[size:]
            self.protocol.buffer_updated(size)
        if ends_turn:
            self._end_turn()

    def finish(self) -> None:
        """The other side sends a FIN."""
        self.protocol.eof_received()
        self.closed = True
        self._end_turn()

    def end(self, error: Exception | None = None) -> None:
        """The other side has closed the connection, or reset it with an error."""
        self.closed = self.lost = True
        self.protocol.connection_lost(error)
        self._end_turn()

    def fill(self) -> None:
        """The other side stops reading."""
        self.protocol.pause_writing()

    def drain(self) -> None:
        """The other side has read everything."""
        self._unsent = 0
        self.protocol.resume_writing()
        self._end_turn()

    def _end_turn(self) -> None:
        self.protocol.resources.flush()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data
        if self.is_full:
            self._unsent += len(data)
            if self._unsent == len(data):
                self.fill()

    def can_write_eof(self) -> bool:
        return not self.is_tls

    def write_eof(self) -> None:
        self.finished = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.tls if name == "ssl_object" else super().get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def setsockopt(self, _level: int, option: int, value: Any) -> None:
        if option == socket.SO_LINGER:
            on, seconds = struct.unpack("ii", value)
            self.reset = bool(on) and seconds == 0
        else:
            self.kernel_unsent = value

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        asyncio.get_running_loop().call_soon(self.say, b"")


class _Loop(HandLoop):
    def __init__(self, clock: HandClock, quiet_s: float) -> None:
        super().__init__(clock, quiet_s)
        self.lines: list[Line] = []
        self.ended: int = 0
        self.refused: Exception | None = None
        self.accepted: list[Exception | Any] = []

    async def sock_accept(self, _listening: Any) -> tuple[Any, Any]:
        while not self.accepted:
            await asyncio.sleep(3600)
        one = self.accepted.pop(0)
        if isinstance(one, Exception):
            raise one
        return None, one

    async def connect_accepted_socket(self, factory: Callable[[], Any], *_: Any, **__: Any) -> tuple[Any, Any]:  # type: ignore[override]
        protocol = factory()
        return Line(protocol), protocol

    async def create_connection(self, factory: Callable[[], Any], *_: Any, **__: Any) -> tuple[Any, Any]:  # type: ignore[override]
        await asyncio.sleep(0)
        if self.refused is not None:
            raise self.refused
        line = Line(factory())
        self.lines.append(line)
        if self.ended:
            self.ended -= 1
            line.end()
        return line, line.protocol


in_memory = functools.partial(in_its_time, loop=_Loop)
"""Runs an async test that takes a `clock`, in a loop of that clock whose TCP connections are Lines."""


def lines() -> list[Line]:
    """All opened connections, in order."""
    return _loop().lines


def end_at_once(number: int) -> None:
    """Let the next connections, this many, end as soon as they open."""
    _loop().ended = number


def refuse(error: Exception | None) -> None:
    """Let every new connection fail for this reason; None ends that."""
    _loop().refused = error


def accept(*clients: Any) -> None:
    """These clients connect to a TLS listener, each the address of one; or an exception for one that cannot be accepted."""
    _loop().accepted += clients


def _loop() -> _Loop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    return loop
