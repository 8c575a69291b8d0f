"""Resources that all connections of the process share: memory for reads, a budget of held bytes, and the work of a turn's end."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

READ_BYTES: Final = 64 * 1024  # of one read, and the most unread bytes of one direction of a connection
LARGE_READ_BYTES: Final = 256 * 1024  # of one read, while the receiver keeps up
SOON_S: Final = 0.1  # within which a receiver that keeps up reads the bytes that wait for it
KEEPS_UP: Final = 8  # full reads that the receiver has taken without a long wait
UNSENT_BYTES: Final = 4 * 1024  # may wait to be sent before the sender is paused, here and in the transport
KERNEL_UNSENT_BYTES: Final = 128 * 1024  # the most that the kernel takes for a slow client; its default is megabytes
LARGE_KERNEL_UNSENT_BYTES: Final = 1024 * 1024  # for a client that keeps up: larger writes wake it up less often
SMALL_READ_BYTES: Final = 4 * 1024  # of one read while the budget is used up
MOST_IN_A_TURN: Final = 16  # pieces of deferred work in one turn of the loop
MOST_TOGETHER: Final = 32  # connections that are flushed together


class Unsent(Protocol):
    """A connection with bytes to send."""

    __slots__ = ()

    def flush(self) -> None:
        """Send the bytes of this turn."""


class Resources:
    """One object for the process; its limits follow the configuration.

    Every connection reads into `memory`. A read is processed before the next one, so an idle connection holds no memory. A
    direction with a slow receiver holds the bytes that wait to be sent, at most UNSENT_BYTES and one read, and unread bytes. A
    client's connection also holds an incomplete head, a body that waits for its backend, or further requests. `held_bytes` is
    the sum of these. Beyond `most_held_bytes` new requests are refused, and reads are small.

    `connections` counts clients, those in a handshake included. `draining`: each answer is the last one of its connection.
    """

    def __init__(self, most_held_bytes: int = sys.maxsize) -> None:
        self.large_memory = memoryview(bytearray(LARGE_READ_BYTES))
        self.memory = self.large_memory[:READ_BYTES]
        self.most_held_bytes = most_held_bytes
        self.held_bytes = 0
        self.connections = 0
        self.requests_in_flight = 0
        self.draining = False
        self.spent = False  # is the budget used up?
        self._unsent: list[Unsent] = []
        self._deferred: deque[Callable[[], None]] = deque()
        self._turn_is_due = False

    def hold(self, held_bytes: int) -> None:
        """Add to `held_bytes`; a negative number subtracts."""
        self.held_bytes += held_bytes
        self.spent = self.held_bytes > self.most_held_bytes

    @property
    def unread_bytes(self) -> int:
        """The most unread bytes of a body before its connection stops reading."""
        return SMALL_READ_BYTES if self.spent else READ_BYTES

    def room(self, unread: int, most: int) -> memoryview:
        """The memory for the next read of a connection that holds `unread` bytes and may hold `most`."""
        return self.memory[: max(1, most - unread)]

    def flush_soon(self, connection: Unsent) -> None:
        """Flush a connection at the end of this turn of the loop.

        To send to a program that sleeps costs more, because the kernel wakes it up. It stays awake while more comes.
        """
        unsent = self._unsent
        unsent.append(connection)
        if len(unsent) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif len(unsent) == MOST_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Flush the connections that have written something in this turn."""
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001  # the rest, and the caller, belong to other connections
                context = {"message": "bytes could not be sent", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)

    def defer(self, work: Callable[[], None]) -> None:
        """Run work in the next turn of the loop, after the connections that have received bytes."""
        self._deferred.append(work)
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        try:
            for _ in range(min(MOST_IN_A_TURN, len(self._deferred))):
                self._deferred.popleft()()
        finally:  # also after work that fails: the rest belongs to other connections
            self._turn_is_due = bool(self._deferred)
            if self._turn_is_due:
                asyncio.get_running_loop().call_soon(self._turn)
