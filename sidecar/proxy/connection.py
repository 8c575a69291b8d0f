"""What a client's connection and a backend's have in common: how they read, how they send, and what they hold meanwhile."""

import asyncio
import socket
import struct
from typing import Protocol, cast

from sidecar.common.deadlines import NEVER
from sidecar.http.message_reader import HEAD, MessageReader
from sidecar.proxy.resources import KEEPS_UP, READ_BYTES, UNSENT_BYTES, Resources


class Joined(Protocol):
    """What takes all that comes from a connection: a tunnel between two, or a close that lingers."""

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""

    def from_upstream(self, data: bytes) -> None:
        """Bytes from the backend."""

    def client_writable(self) -> None:
        """The client has taken all that it was sent."""

    def upstream_writable(self) -> None:
        """The backend has taken all that it was sent."""

    def ended(self) -> None:
        """One of the two connections has ended."""


class Connection(asyncio.BufferedProtocol):
    """Reads into the memory that all share, as far as there is room, and says when its peer does not take what it is sent.

    - `deadline` is when the peer's silence has lasted too long. `is_open`: something can be sent.
    - `write_paused`: the peer has not taken all that it was sent.
    - `reader` holds what has come and is not dealt with, `unread` how many bytes the budget knows of. `sink` takes all that
      comes, once there is one.
    - `room` is how much the read under way may take; `is_read_up`: the last one left nothing in the socket.
    """

    __slots__ = (
        "_full_reads", "_held", "_most_head_bytes", "deadline", "is_open", "is_read_up", "memory", "reader", "reading_paused",
        "resources", "room", "sink", "transport", "unread", "write_paused",
    )  # fmt: skip

    def __init__(self, resources: Resources, head_bytes: int, blank_lines: int = 0) -> None:
        self.resources = resources
        self.memory = resources.memory
        self.reader = MessageReader(head_bytes, blank_lines)
        self.transport: asyncio.Transport
        self.sink: Joined | None = None
        self.deadline = NEVER
        self.is_open = False
        self.write_paused = False
        self._most_head_bytes = max(READ_BYTES, head_bytes)
        self.reading_paused = False
        self._full_reads = 0  # since the receiver was slow
        self._held = 0
        self.unread = 0
        self.room = 0
        self.is_read_up = True

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(UNSENT_BYTES, 0)
        self.is_open = True

    def get_buffer(self, _sizehint: int) -> memoryview:
        memory = self.memory
        if self.reader.buffer or self.resources.spent:
            memory = self.resources.room(len(self.reader.buffer), self._most_unread())
        self.room = len(memory)
        return memory

    def count_full_read(self) -> None:
        """As much has come as one read takes. Where the receiver keeps up, reads become larger."""
        self._full_reads += 1
        if self._full_reads == KEEPS_UP:
            self.memory = self.resources.large_memory

    def receiver_is_slow(self) -> None:
        """The receiver of what comes here does not take all at once: read no more than it may hold."""
        self._full_reads = 0
        self.memory = self.resources.memory

    def unread_changed(self) -> None:
        """Read on, or not: as many bytes wait here as may."""
        unread = len(self.reader.buffer)
        self.count_unread(unread)
        self.pause_reading(unread >= self._most_unread())

    def count_unread(self, unread: int) -> None:
        """So many bytes wait here: tell the budget."""
        if unread != self.unread:
            self.resources.hold(unread - self.unread)
            self.unread = unread

    def pause_reading(self, pause: bool) -> None:
        """Stop reading, or read on."""
        if pause is not self.reading_paused and self.is_open:
            self.reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes. Nothing is sent to a peer that is gone: who uses the connection is told of that."""
        if self.is_open:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.write_paused = True
        self._held = self.transport.get_write_buffer_size()
        self.resources.hold(self._held)

    def resume_writing(self) -> None:
        self.write_paused = False
        self.release_held()

    def release_held(self) -> None:
        """Nothing waits to be sent any more."""
        self.resources.hold(-self._held)
        self._held = 0

    def _most_unread(self) -> int:
        return self._most_head_bytes if self.reader.state == HEAD else self.resources.unread_bytes


def end_by_reset(transport: asyncio.Transport) -> None:
    """Let the peer see a reset when this transport is closed, so that it takes no part of an answer for the whole."""
    raw = transport.get_extra_info("socket")
    if raw is not None:  # TLS has none any more where its connection is lost, a turn before it says so
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # struct linger: on, for no time
