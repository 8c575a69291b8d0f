"""A forward proxy (RFC 9110 section 3.7) whose destinations a test chooses.

async with ForwardProxy({"idp.test:443": issuer.address}) as proxy:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.peers.backend import RawBackend, Request
from tests.peers.wire import close, response


class ForwardProxy(RawBackend):
    """Takes requests in absolute form, and CONNECT. `places` says where each authority really is; others get a 502."""

    def __init__(self, places: dict[str, tuple[str, int]], *, status: int = 200) -> None:
        super().__init__(self._forward)
        self.places = places
        self.status = status
        """The status of its answers in place of forwarding, unless 200."""

    @property
    def asked(self) -> list[str]:
        """`CONNECT idp.test:443` or `GET http://idp.test/keys`, in order."""
        return [f"{request.method} {request.target}" for request in self.requests]

    async def _forward(self, request: Request, writer: asyncio.StreamWriter) -> None:
        tunnel = request.method == "CONNECT"
        parts = urlsplit(request.target)
        place = self.places.get(request.target if tunnel else parts.netloc)
        if self.status != 200 or place is None:
            writer.write(response(502 if place is None else self.status))
            return
        far_reader, far_writer = await asyncio.open_connection(*place)
        try:
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = asyncio.create_task(_copy(far_reader, writer))
                await _copy(request.reader, far_writer)
                await back
            else:
                path = request.target.removeprefix(f"{parts.scheme}://{parts.netloc}")
                head = [f"{request.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers)]
                far_writer.write("\r\n".join([*head, "Connection: close", "", ""]).encode())
                await _copy(far_reader, writer)
        finally:
            await close(far_writer)
            writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, seen: bytearray | None = None) -> None:
    try:
        while data := await source.read(65536):
            if seen is not None:
                seen += data
            target.write(data)
            await target.drain()
        target.write_eof()
    except OSError:
        target.close()


class Balancer:
    """Takes connections and passes the bytes on to `places`, one after the other: a Service in front of replicas.

    `passed` is every byte that clients sent.
    """

    def __init__(self, places: Iterable[tuple[str, int]] = ()) -> None:
        self.places = list(places)
        self.passed = bytearray()
        self.address = ("", 0)
        self._next = 0
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.address[0]}:{self.address[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._next += 1
        if not self.places:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(*self.places[self._next % len(self.places)])
        try:
            back = asyncio.create_task(_copy(far_reader, writer))
            await _copy(reader, far_writer, self.passed)
            await back
        finally:
            await close(far_writer)
            await close(writer)
