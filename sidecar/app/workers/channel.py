"""What the supervisor and a worker say to each other, over a socketpair that nobody else has.

A message is one of the structs here, in MessagePack, behind its length in four bytes. The supervisor asks one thing at a time and
gets one Reply; the rest is told without an answer.
"""

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any, cast

import msgspec

from sidecar.config import Address, Config
from sidecar.jwt.denylist import Entry
from sidecar.jwt.verifier import TokenCacheUse
from sidecar.observability.counters import Counts
from sidecar.observability.rejection_log import Plain


class Keys(msgspec.Struct, tag=True):
    """An issuer's keys as the supervisor has them, after each of its fetches. Times are monotonic, which processes share."""

    issuer: str
    jwks: list[dict[str, Any]] | None
    trusted_until: float
    fetched_at: float | None
    next_fetch_at: float
    forced_at: float
    failures: int


class Shared(msgspec.Struct, tag=True):
    """What operators have done: all of it, each time that it changes. Asks for a Reply."""

    draining: bool
    denied: list[Entry]


class Use(msgspec.Struct, tag=True):
    """Serve by this configuration: the first at these addresses, each later one in place of the one before. Asks for a Reply.

    It is pickled, which is safe in this direction only: what the supervisor says is believed, what a worker says is not.
    """

    config: bytes
    keys: list[Keys]
    shared: Shared
    addresses: list[Address]

    @classmethod
    def of(cls, config: Config, keys: list[Keys], shared: Shared, addresses: list[Address]) -> "Use":
        """The message about a configuration."""
        return cls(pickle.dumps(config), keys, shared, addresses)

    def configuration(self) -> Config:
        """What `of` was told."""
        config: Config = pickle.loads(self.config)  # noqa: S301
        return config


class Count(msgspec.Struct, tag=True):
    """Tell what you have counted. Asks for a Reply."""


class Finish(msgspec.Struct, tag=True):
    """Accept no more, finish what is in flight, and end. The end is the answer."""


class Refresh(msgspec.Struct, tag=True):
    """A worker met a key that this issuer may have by now. The answer is Keys."""

    issuer: str


class Counted(msgspec.Struct):
    """What a worker has counted. `refusals` are the last of `refused`, `suppressed` is by issuer."""

    counts: Counts
    cache: TokenCacheUse
    suppressed: dict[str, int]
    refused: int
    refusals: list[Plain]


class Reply(msgspec.Struct, tag=True):
    """A worker has done as it was asked. `why`: or could not, in words for the operator."""

    why: str | None = None
    counted: Counted | None = None


Message = Keys | Shared | Use | Count | Finish | Refresh | Reply

_LENGTH_BYTES = 4
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Channel(asyncio.Protocol):
    """One end. `received` is called with each message; `closed` ends when the other process says no more, or is no more.

    A message of more than `most_bytes` ends the channel.
    """

    def __init__(self, received: Callable[[Message], None], most_bytes: int = 1 << 32) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = received
        self._transport: asyncio.Transport | None = None
        self._most_bytes = most_bytes
        self._bytes = bytearray()

    @classmethod
    async def over(
        cls, end: socket.socket, received: Callable[[Message], None], most_bytes: int = 1 << 32
    ) -> "Channel":
        """A channel over one end of a socketpair."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(received, most_bytes), sock=end)
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        while len(self._bytes) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._bytes[:_LENGTH_BYTES], "big")
            if end > self._most_bytes:
                raise ValueError("a message that is too long")  # the loop closes the connection then
            if len(self._bytes) < end:
                return
            message = bytes(self._bytes[_LENGTH_BYTES:end])
            del self._bytes[:end]
            self._received(_decode(message))

    def send(self, message: Message) -> None:
        """Say this, if anybody is still there."""
        if self._transport is not None and not self.closed.done():
            encoded = _encode(message)
            self._transport.write(len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded)

    def close(self) -> None:
        """Say no more."""
        if self._transport is not None:
            self._transport.close()
