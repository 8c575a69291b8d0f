"""A client of raw HTTP/1.1: it sends anything, whole or byte by byte, and reads answers with their framing checked."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.peers import patience
from tests.peers.wire import (
    READ_LIMIT,
    Headers,
    Malformed,
    Message,
    Truncated,
    close,
    framing,
    read_body,
    read_head,
    whole,
)

_STATUS = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9][0-9]) ?([^\x00-\x08\x0a-\x1f\x7f]*)")


@dataclass
class Response(Message):
    """One answer. `raw` is all of its bytes, `delimited` what ended its body: none, length, chunked or close."""

    status: int
    reason: str
    version: str
    headers: Headers
    body: bytes = b""
    raw: bytes = b""
    delimited: str = "none"
    trailers: Headers = field(default_factory=list)
    interim: list["Response"] = field(default_factory=list)
    """The 1xx answers that came before it."""

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def pause_reading(writer: asyncio.StreamWriter) -> None:
    """Read nothing from this connection, so that its kernel buffers fill."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport too


def resume_reading(writer: asyncio.StreamWriter) -> None:
    """Read from it again."""
    writer.transport.resume_reading()  # type: ignore[attr-defined]


class RawClient:
    """One connection of a client. Also `async with RawClient.to(address) as client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: tuple[str, int], *, tls: ssl.SSLContext | None = None) -> Self:
        """Open a connection to (host, port)."""
        async with patience(f"a connection to {address}"):
            return cls(*await asyncio.open_connection(*address, ssl=tls, limit=READ_LIMIT))

    @classmethod
    @asynccontextmanager
    async def to(cls, address: tuple[str, int], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """The same, closed at the end of the block."""
        client = await cls.connect(address, tls=tls)
        async with client:
            yield client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, data: bytes, *, bytewise: bool = False, tail: bytes = b"") -> None:
        """Send the bytes in one write, or each in its own; `tail` goes in the same write as the last of them."""
        pieces = [data[i : i + 1] for i in range(len(data))] if bytewise else [data]
        pieces[-1:] = [b"".join(pieces[-1:]) + tail]
        async with patience(f"the peer to read {len(data)} bytes"):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                for _ in range(3 * bytewise):  # turns in which a server on this loop reads the byte before the next
                    await asyncio.sleep(0)

    async def response(self, method: str = "GET") -> Response:
        """The final answer to a `method` request. Raises Truncated when the connection ends before the answer does."""
        interim: list[Response] = []
        async with patience(f"an answer to {method}"):
            while True:
                response = await read_response(self.reader, method)
                if response.status >= 200 or response.status == 101:
                    response.interim = interim
                    return response
                interim.append(response)

    async def request(self, data: bytes) -> Response:
        """Send one whole request and read its answer."""
        await self.send(data)
        return await self.response(data.partition(b" ")[0].decode("latin-1"))

    async def read(self, n: int) -> bytes:
        """Exactly `n` bytes, for a tunnel. Raises Truncated."""
        async with patience(f"{n} bytes"):
            return await whole(self.reader.readexactly(n))

    async def closed(self) -> bytes:
        """Wait until the other side closes or resets. Return its unread bytes."""
        received = b""
        async with patience("the peer to close the connection"):
            try:
                while piece := await self.reader.read(65536):
                    received += piece
            except ConnectionError:
                pass
        return received

    def finish(self) -> None:
        """Send no more (a half close); answers can still be read."""
        self.writer.write_eof()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close this side; harmless when it is closed."""
        await close(self.writer)


async def fetch(address: tuple[str, int], data: bytes, *, tls: ssl.SSLContext | None = None) -> Response:
    """One request on its own connection."""
    async with RawClient.to(address, tls=tls) as client:
        return await client.request(data)


async def read_response(reader: asyncio.StreamReader, method: str = "GET") -> Response:
    """One answer, interim or final, its body framed as RFC 9112 section 6.3 says."""
    raw, first, headers = await read_head(reader)
    match = _STATUS.fullmatch(first)
    if match is None:
        raise Malformed(f"not a status line: {first!r}")
    version, status, reason = (part.decode("latin-1") for part in match.groups())
    response = Response(int(status), reason, version, headers, raw=raw)
    if method == "HEAD" or response.status < 200 or response.status in (204, 304):
        return response
    response.delimited = framing(headers) or "close"
    try:
        if response.delimited == "close":
            response.body = await whole(reader.read(-1))
            response.raw += response.body
        else:
            response.body, on_wire, response.trailers = await read_body(reader, headers)
            response.raw += on_wire
    except Truncated as error:
        raise Truncated(raw + error.part) from None
    return response
