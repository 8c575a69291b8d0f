"""A forward proxy (RFC 9110 section 3.7) that a test can send to anywhere.

async with ForwardProxy({"idp.test:443": issuer.address}) as proxy:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
"""

import asyncio
from urllib.parse import urlsplit

from tests.peers.backend import RawBackend, Request
from tests.peers.wire import close, response


class ForwardProxy(RawBackend):
    """Takes requests in absolute form, and CONNECT. `places` says where each authority really is; others get a 502."""

    def __init__(self, places: dict[str, tuple[str, int]], *, status: int = 200) -> None:
        super().__init__(self._forward)
        self.places = places
        self.status = status
        """What it answers instead of forwarding, unless 200."""

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


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.write_eof()
    except OSError:
        target.close()
