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
from collections.abc import Callable
from typing import Any

from tests.peers.clock import HandClock, HandLoop, in_its_time


class Line(asyncio.Transport):
    """One connection. `sent` is all that was written to it, also what nobody would get because it has been closed before."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False
        self.aborted = False
        self._protocol = protocol
        self._reading = True
        self._unread = b""
        protocol.connection_made(self)

    def say(self, data: bytes) -> None:
        """What comes by it; once it is read."""
        self._unread += data
        if self._reading and self._unread:
            unread, self._unread = self._unread, b""
            self._protocol.data_received(unread)

    def end(self, error: Exception | None = None) -> None:
        """It has ended: the other side closed it, or with an error broke it off."""
        self.closed = True
        self._protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

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

    async def create_connection(self, factory: Callable[[], Any], *_: Any, **__: Any) -> tuple[Any, Any]:
        await asyncio.sleep(0)
        line = Line(factory())
        self.lines.append(line)
        if self.ended:
            self.ended -= 1
            line.end()
        return line, line._protocol


in_memory = functools.partial(in_its_time, loop=_Loop)
"""Runs an async test that takes a `clock`, in a loop of that clock whose TCP connections are Lines."""


def lines() -> list[Line]:
    """All connections that were opened, in their order."""
    return _loop().lines


def end_at_once(number: int) -> None:
    """So many connections that are still to be opened have ended when they are there."""
    _loop().ended = number


def _loop() -> _Loop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    return loop
