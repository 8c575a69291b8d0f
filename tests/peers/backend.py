"""A server of raw HTTP/1.1: it keeps every byte that reaches it and answers whatever a test says, right or wrong.

async with RawBackend() as backend:
    backend.handler = send(response(404, b"no"))
    ...
    first = await backend.received(1)
    assert first.get("x-jwt-sub") == "alice"
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.peers import Tally, patience
from tests.peers.wire import (
    READ_LIMIT,
    Headers,
    Malformed,
    Message,
    Truncated,
    close,
    read_body,
    read_head,
    reset,
    response,
)


@dataclass
class Request(Message):
    """One request as received."""

    method: str
    target: str
    version: str
    headers: Headers
    head: bytes
    """The exact bytes up to and with the empty line."""
    connection: int
    """The number of its connection, from 1."""
    reader: asyncio.StreamReader = field(repr=False)
    """The stream with the rest of the connection (a tunnel; a body read piece by piece)."""
    body: bytes = b""
    body_raw: bytes = b""
    """The body as on the wire, with its chunks."""
    trailers: Headers = field(default_factory=list)
    complete: bool = False
    """Whether the body has been read to its end."""

    async def read(self) -> bytes:
        """Read the body to its end, once. Raises Truncated when the connection ends first."""
        if not self.complete:
            try:
                self.body, self.body_raw, self.trailers = await read_body(self.reader, self.headers)
            except Truncated as error:
                self.body_raw = error.part
                raise
            self.complete = True
        return self.body


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def send(*pieces: bytes, close: bool = False) -> Handler:
    """A handler that sends exactly these bytes, each piece in its own write, then closes or keeps the connection."""

    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if close:
            writer.close()

    return handler


async def never(_request: Request, _writer: asyncio.StreamWriter) -> None:
    """A handler that does not answer; the connection stays open until the end of the backend."""
    await asyncio.Event().wait()


async def reset_instead(_request: Request, writer: asyncio.StreamWriter) -> None:
    """A handler that answers with a TCP reset."""
    reset(writer)


async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
    """A handler that sends the body back."""
    writer.write(response(200, await request.read(), [("Content-Type", "application/octet-stream")]))


async def ok(_request: Request, writer: asyncio.StreamWriter) -> None:
    """The handler of a new backend: 200 and a small JSON object."""
    writer.write(response(200, b'{"ok":true}', [("Content-Type", "application/json")]))


class RawBackend:
    """A server on 127.0.0.1 at a free port, or on a Unix socket, as an async context manager.

    What came: `requests` (whole ones; with `read_bodies=False` each as soon as its head has come), `incomplete` (the
    connection ended inside the body), `connections`; to be waited for with `received`, `interrupted`, `connected` and
    `disconnected`. `failures`: bytes that are not HTTP/1.1 (Malformed), and exceptions of a handler; the connection is
    closed, and the end of the context raises the first of them, so that no test passes over it. A test that means them
    clears the list.

    What it does: `handler`, called for each request in turn on its connection; the connection is kept unless the
    handler closes it or the request says `Connection: close`.
    """

    def __init__(
        self,
        handler: Handler = ok,
        *,
        unix: str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        read_bodies: bool = True,
    ) -> None:
        self.handler = handler
        self.read_bodies = read_bodies
        self.unix = unix
        self.tls = tls
        self.requests: list[Request] = []
        self.incomplete: list[Request] = []
        self.failures: list[BaseException] = []
        self._requests = Tally("requests")
        self._incomplete = Tally("incomplete requests")
        self._connections = Tally("connections")
        self._disconnections = Tally("ended connections")
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._address: tuple[str, int] | None = None

    async def __aenter__(self) -> Self:
        if self.unix is None:
            # Holds the port while the listener is down: bound, never listening, so that connecting to it is refused.
            self._reserved = _bound(("127.0.0.1", 0))
            self._address = self._reserved.getsockname()
        await self.come_back()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.go_down()
        if self._reserved is not None:
            self._reserved.close()
        for failure in self.failures:
            if error is None:
                raise failure
            error.add_note(f"and {self.url} met {failure!r}")

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) of the TCP listener; the port stays while it is down."""
        assert self._address is not None, "started, and not on a Unix socket"
        return self._address

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT, https://... or unix:///path."""
        if self.unix is not None:
            return f"unix://{os.fspath(self.unix)}"
        return f"{'https' if self.tls else 'http'}://{self.address[0]}:{self.address[1]}"

    @property
    def connections(self) -> int:
        """The number of accepted connections."""
        return self._connections.count

    @property
    def open_connections(self) -> int:
        """The number of them that are open."""
        return self._connections.count - self._disconnections.count

    async def received(self, n: int = 1) -> Request:
        """The n-th request, from 1, as soon as it has arrived."""
        await self._requests.reach(n)
        return self.requests[n - 1]

    async def interrupted(self, n: int = 1) -> Request:
        """The n-th request, from 1, whose connection ended inside its body."""
        await self._incomplete.reach(n)
        return self.incomplete[n - 1]

    async def connected(self, n: int = 1) -> None:
        """Wait for the n-th connection."""
        await self._connections.reach(n)

    async def disconnected(self, n: int = 1) -> None:
        """Wait until n connections have closed, by either side; also while a handler runs."""
        await self._disconnections.reach(n)

    async def go_down(self) -> None:
        """Stop listening and drop every connection; connecting is refused until `come_back`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.drop_connections()
        if server is not None:
            async with patience("the listener to close"):
                await server.wait_closed()

    async def come_back(self) -> None:
        """Listen again, at the same address."""
        loop = asyncio.get_running_loop()
        if self.unix is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.unix)
            self._server = await loop.create_unix_server(self._protocol, os.fspath(self.unix), ssl=self.tls)
        else:
            self._server = await loop.create_server(
                self._protocol, sock=_bound(self.address), ssl=self.tls, backlog=1024
            )

    async def drop_connections(self, *, by_reset: bool = False) -> None:
        """End every open connection, idle or not, as a restarted server does; a handler at work is cancelled."""
        while self._open:
            task, writer = self._open.popitem()
            if by_reset:
                reset(writer)
            writer.transport.abort()  # not close: it would wait for a client that does not read
            task.cancel()
            await asyncio.wait([task])

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = _Reader(self._disconnections.add)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted just before `go_down`
            writer.transport.abort()
            return
        self._connections.add()
        task = asyncio.get_running_loop().create_task(self._serve(self.connections, reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self.failures.append(failure)

    async def _serve(self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request: Request | None = None
        try:
            while not writer.is_closing():
                request = None
                request = await _next_request(connection, reader)
                if self.read_bodies:
                    await request.read()
                self.requests.append(request)
                self._requests.add()
                await self.handler(request, writer)
                await writer.drain()
                if not writer.is_closing():
                    await request.read()  # the bytes that a handler leaves unread are not the next request
                if "close" in (request.get("connection") or "").lower() or request.version == "HTTP/1.0":
                    break
        except (Truncated, ConnectionError):
            if request is not None and not request.complete:
                self.incomplete.append(request)
                self._incomplete.add()
        finally:
            await close(writer)


async def _next_request(connection: int, reader: asyncio.StreamReader) -> Request:
    """Raise Truncated if there is none, Malformed for an incomplete one."""
    try:
        head, first, headers = await read_head(reader)
    except Truncated as error:
        if error.part:
            raise Malformed(f"the connection ended inside a head: {error.part!r}") from None
        raise
    match first.decode("latin-1").split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0" as version]:
            return Request(method, target, version, headers, head, connection, reader)
    raise Malformed(f"not a request line: {first!r}")


class _Reader(asyncio.StreamReader):
    """Reports the end of the connection once, even if no handler reads."""

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__(READ_LIMIT)
        self._ended: Callable[[], None] | None = ended

    def feed_eof(self) -> None:
        super().feed_eof()
        self._say()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self._say()

    def _say(self) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()


def _bound(address: tuple[str, int]) -> socket.socket:
    # With the protocol named, asyncio switches Nagle's algorithm off; an answer in two writes would wait 40 ms for an ACK.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return bound
