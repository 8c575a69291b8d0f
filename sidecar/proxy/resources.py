"""What the connections of this process share: the memory that they read into, a budget for bytes in flight, and turns."""

import asyncio
from collections import deque
from collections.abc import Callable

READ_BYTES = 64 * 1024  # of one read, and of what one direction of one connection holds unread
LARGE_READ_BYTES = 256 * 1024  # of one read, where a receiver keeps up
KEEPS_UP = 128  # full reads in a row that a receiver has taken at once
UNSENT_BYTES = 4 * 1024  # may wait to be sent before a sender is held up: small messages of one turn leave together
SMALL_READ_BYTES = 4 * 1024  # of one read while the budget is spent
MOST_IN_A_TURN = 16  # pieces of deferred work in one turn of the loop


class Resources:
    """Made once for a process; its limits follow the configuration.

    `memory` is what every connection reads into: a read is dealt with before the next one, so an idle connection holds none.
    A direction whose receiver does not take what was sent holds what waits to be sent, which is no more than one read, and what
    is unread. So does a client's connection that has sent more than can be dealt with: a part of a head, a body that waits for
    its backend, or other requests. `held_bytes` is the sum of these; beyond `most_held_bytes` new requests are refused, and
    reads are small.

    `connections` are those of clients, with handshakes under way. `draining`: each answer is the last one of its connection.
    """

    def __init__(self, most_held_bytes: int = 64 * 1024 * 1024) -> None:
        self.large_memory = memoryview(bytearray(LARGE_READ_BYTES))
        self.memory = self.large_memory[:READ_BYTES]
        self.most_held_bytes = most_held_bytes
        self.held_bytes = 0
        self.connections = 0
        self.requests_in_flight = 0
        self.draining = False
        self.spent = False  # is the budget?
        self._deferred: deque[Callable[[], None]] = deque()
        self._turn_is_due = False

    def hold(self, held_bytes: int) -> None:
        """So many bytes more are held, or less."""
        self.held_bytes += held_bytes
        self.spent = self.held_bytes > self.most_held_bytes

    @property
    def unread_bytes(self) -> int:
        """How many bytes of a body a connection may hold unread before it stops reading."""
        return SMALL_READ_BYTES if self.spent else READ_BYTES

    def room(self, unread: int, most: int) -> memoryview:
        """What a connection reads into that holds `unread` bytes and may hold `most`."""
        room = max(1, most - unread)
        return self.memory if room >= READ_BYTES else self.memory[:room]

    def defer(self, work: Callable[[], None]) -> None:
        """Do some work in the next turn of the loop, after the connections that have bytes for us."""
        self._deferred.append(work)
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        try:
            for _ in range(min(MOST_IN_A_TURN, len(self._deferred))):
                self._deferred.popleft()()
        finally:  # also behind work that fails: the rest is others'
            self._turn_is_due = bool(self._deferred)
            if self._turn_is_due:
                asyncio.get_running_loop().call_soon(self._turn)
