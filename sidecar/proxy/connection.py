"""The common base of client and backend connections: reading, sending, backpressure and the budget of held bytes."""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Protocol, cast

from sidecar.common.clock import Clock
from sidecar.common.deadlines import NEVER
from sidecar.http.message_reader import MessageReader
from sidecar.proxy.resources import (
    KEEPS_UP,
    KERNEL_UNSENT_BYTES,
    LARGE_KERNEL_UNSENT_BYTES,
    READ_BYTES,
    SOON_S,
    UNSENT_BYTES,
    Resources,
    Unsent,
)


class Joined(Protocol):
    """The receiver of all bytes of a connection: a tunnel, or a lingering close."""

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""

    def from_upstream(self, data: bytes) -> None:
        """Bytes from the backend."""

    def client_writable(self) -> None:
        """The client has read all sent bytes."""

    def upstream_writable(self) -> None:
        """The backend has read all sent bytes."""

    def ended(self) -> None:
        """One of the two connections has closed."""


class Receiver(Protocol):
    """The connection that gets the bytes of another one."""

    read_soon: bool

    def let_kernel_take(self, *, more: bool) -> None:
        """Set how many unsent bytes the kernel takes."""


class Connection(asyncio.BufferedProtocol, Unsent):
    """Reads into the shared memory within its limits, and reports when its peer reads too slowly.

    - `deadline`: monotonic time at which the connection expires. `is_open`: neither side has closed it whole.
    - `write_paused`: the peer has not read all sent bytes.
    - `reader`: holds received bytes. `unread`: how many of them the budget counts. `sink`: gets all bytes, once there is one.
    - `unsent`: bytes to send at the end of this turn of the loop.
    - `read_soon`: when bytes waited for the peer, it read them within SOON_S.
    - `room`: the most bytes of the current read. `is_read_up`: the last read left nothing in the socket.
    """

    __slots__ = (
        "_full_reads", "_held", "_kernel_takes_more", "_most_head_bytes", "_waits_since", "clock", "deadline", "is_open",
        "is_read_up", "memory", "read_soon", "reader", "reading_paused", "resources", "room", "sink", "transport", "unread",
        "unsent", "write_paused",
    )  # fmt: skip

    def __init__(self, resources: Resources, clock: Clock, head_bytes: int, blank_lines: int = 0) -> None:
        self.resources = resources
        self.clock = clock
        self.memory = resources.memory
        self.reader = MessageReader(head_bytes, blank_lines)
        self.transport: asyncio.Transport
        self.sink: Joined | None = None
        self.deadline = NEVER
        self.is_open = False
        self.write_paused = False
        self._most_head_bytes = max(READ_BYTES, head_bytes)
        self.reading_paused = False
        self._full_reads = 0  # in a row, since the receiver was slow
        self._held = 0
        self._kernel_takes_more = False
        self._waits_since: float
        self.read_soon: bool  # known once bytes have waited
        self.unread = 0
        self.unsent = b""
        self.room: int
        self.is_read_up: bool

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Use this transport: the connection is open."""
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
        """Count a read that filled its memory. Reads become larger while the receiver keeps up."""
        self._full_reads += 1
        if self._full_reads == KEEPS_UP:
            self.memory = self.resources.large_memory

    def receiver_waits(self) -> None:
        """The receiver has not read all sent bytes: read no more at once than may be held for it."""
        self.memory = self.resources.memory

    def receiver_goes_on(self, receiver: Receiver) -> None:
        """The receiver has read all sent bytes. Reads are large again if it keeps up."""
        if not receiver.read_soon:
            self.receiver_is_slow()
        keeps_up = self._full_reads >= KEEPS_UP
        if keeps_up:
            self.memory = self.resources.large_memory
        receiver.let_kernel_take(more=keeps_up)

    def receiver_is_slow(self) -> None:
        """The receiver must prove again that it keeps up."""
        self._full_reads = 0
        self.receiver_waits()

    def let_kernel_take(self, *, more: bool) -> None:
        """Set how many unsent bytes the kernel takes: more for a peer that keeps up."""
        raw = self.transport.get_extra_info("socket") if more is not self._kernel_takes_more else None
        if raw is not None:
            self._kernel_takes_more = more
            with suppress(OSError):  # the peer has reset the connection
                limit = LARGE_KERNEL_UNSENT_BYTES if more else KERNEL_UNSENT_BYTES
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)

    def unread_changed(self) -> None:
        """Pause or resume reading, by the number of unread bytes."""
        unread = len(self.reader.buffer)
        self.count_unread(unread)
        self.pause_reading(unread >= self._most_unread())

    def count_unread(self, unread: int) -> None:
        """Report the number of unread bytes to the budget."""
        if unread != self.unread:
            self.resources.hold(unread - self.unread)
            self.unread = unread

    def pause_reading(self, pause: bool) -> None:
        """Pause reading, or resume it."""
        if pause is not self.reading_paused and self.is_open:
            self.reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes, at the end of this turn unless there are many. Bytes for a closed connection are dropped."""
        if not self.is_open:
            return
        earlier = self.unsent
        self.unsent = earlier + data if earlier else data
        if len(self.unsent) > UNSENT_BYTES:
            self.flush()
        elif not earlier:
            self.resources.flush_soon(self)

    def flush(self) -> None:
        """Send the bytes of this turn now. Call it before you read `write_paused`."""
        if self.unsent:
            data, self.unsent = self.unsent, b""
            self.transport.write(data)
            if self.write_paused:
                self.count_held()

    def end(self) -> None:
        """Send the bytes of this turn, and take no more."""
        self.flush()
        self.is_open = False

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock.monotonic()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._waits_since = self.now()
        self.count_held()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.read_soon = self.now() <= self._waits_since + SOON_S
        self.release_held()

    def count_held(self) -> None:
        """Report to the budget how many bytes wait to be sent."""
        held = self.transport.get_write_buffer_size()
        self.resources.hold(held - self._held)
        self._held = held

    def release_held(self) -> None:
        """Report to the budget that no bytes wait to be sent."""
        self.resources.hold(-self._held)
        self._held = 0

    def _most_unread(self) -> int:
        return self._most_head_bytes if self.reader.state == "head" else self.resources.unread_bytes


def end_by_reset(transport: asyncio.Transport) -> None:
    """Make the close of this transport a reset, so that the peer does not take a part of an answer for the whole."""
    raw = transport.get_extra_info("socket")
    if raw is not None:  # TLS drops the socket one turn before `connection_lost`
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # struct linger: on, 0 s
