"""Counts the bytes that the kernel holds for connections on this machine, and so the bytes that a proxy between two ends holds.

taken = wire.taken(sent)                # of so many bytes that one end has given to the kernel, what the other has read
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

Address = tuple[str, int]
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
STILL = 50  # answers to somebody else in a row, within which nothing has moved


@dataclass(frozen=True)
class Wire:
    """One direction of a TCP connection over IPv4."""

    sender: Address
    receiver: Address

    def held(self) -> int:
        """The bytes that the sender has given to the kernel and that the receiver has not read.

        For up to 40 ms what has come and is not acknowledged counts twice: ask when nothing moves any more.
        """
        unsent, _ = _queues(self.sender, self.receiver)
        _, unread = _queues(self.receiver, self.sender)
        return unsent + unread

    def taken(self, given: int) -> int:
        """The bytes that the receiver has read, when the sender has given this many to the kernel."""
        return given - self.held()

    def given(self, read: int) -> int:
        """The bytes that the sender has given to the kernel, when the receiver has read this many."""
        return read + self.held()


def _queues(local: Address, remote: Address) -> tuple[int, int]:
    """(not acknowledged, not read) of the end at `local`; nothing if it has closed."""
    wanted = [_hexadecimal(local), _hexadecimal(remote)]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            sending, _, receiving = fields[4].partition(":")
            return int(sending, 16), int(receiving, 16)
    return 0, 0


def _hexadecimal(address: Address) -> str:
    number = int.from_bytes(socket.inet_aton(address[0]), "little")
    return f"{number:08X}:{address[1]:04X}"


class Narrow:
    """A client whose kernel keeps next to nothing: `sent` and `received` are what the other side has really moved."""

    def __init__(self, address: Address, buffer: int = 4096) -> None:
        self.socket: socket.socket = socket.socket()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(address)  # at once: a listener of this machine
        self.socket.setblocking(False)
        own, other = self.socket.getsockname(), self.socket.getpeername()
        self.up = Wire(own, other)
        self.down = Wire(other, own)
        self.sent = 0
        self.received = b""
        self.ended = False

    def __enter__(self) -> "Narrow":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    async def speak_tls(self, context: ssl.SSLContext) -> None:
        """Do a handshake. From then on the kernel holds more than what is sent, by its records and the handshake itself."""
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1", do_handshake_on_connect=False)
        while True:
            try:
                return self.socket.do_handshake()
            except NOT_NOW:
                await asyncio.sleep(0)

    def send(self, data: bytes) -> int:
        """Send the bytes that fit now. Return their number; nothing after the end of the connection."""
        count = 0
        try:
            while not self.ended and count < len(data):
                count += self.socket.send(data[count:])
        except NOT_NOW:
            pass
        except ConnectionError:
            self.ended = True
        self.sent += count
        return count

    def receive(self, most: int) -> int:
        """Read at most this many of the arrived bytes. Return their number."""
        try:
            piece = self.socket.recv(most)
        except NOT_NOW:
            return 0
        except ConnectionError:
            piece = b""
        self.ended = self.ended or not piece
        self.received += piece
        return len(piece)


def narrow(writer: asyncio.StreamWriter, buffer: int = 4096) -> None:
    """The same for the sending end of a server's connection: no bytes wait in its transport, few in its kernel."""
    writer.transport.set_write_buffer_limits(0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)


async def still(moved: Callable[[], int], ask: Callable[[], Awaitable[object]]) -> int:
    """The count of `moved`, after it stayed the same while `ask` was answered STILL times."""
    last, same = moved(), 0
    while same < STILL:
        await ask()
        last, same = (now, same + 1) if (now := moved()) == last else (now, 0)
    return last
