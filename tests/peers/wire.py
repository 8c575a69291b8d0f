"""HTTP/1.1 messages as bytes: building valid ones, and reading them strictly."""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Iterable

from tests.peers import patience

READ_LIMIT = 16 * 1024 * 1024  # bytes of one head; more than the sidecar accepts, so that a peer never refuses first
Headers = list[tuple[str, str]]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*")
WEBSOCKET = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]
"""The headers of a whole handshake of a client (RFC 6455 section 4.1)."""
REASONS = {200: "OK", 204: "No Content", 304: "Not Modified", 404: "Not Found", 500: "Internal Server Error"}


class Malformed(AssertionError):
    """The other side has sent something other than HTTP/1.1 (RFC 9112)."""


class Truncated(Exception):
    """The other side closed within a message; `part` is the received part, as on the wire."""

    def __init__(self, part: bytes) -> None:
        super().__init__(f"closed after {len(part)} bytes: {part[-200:]!r}")
        self.part = part


class Message:
    """The common part of requests and responses."""

    headers: Headers

    def get(self, name: str) -> str | None:
        """The header's value, None when it is absent; Malformed when it came more than once."""
        found = self.all(name)
        if len(found) > 1:
            raise Malformed(f"{name} came {len(found)} times: {found}")
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        """Every value of the header, in order, whatever the case of its name."""
        return values(self.headers, name)


def values(headers: Headers, name: str) -> list[str]:
    """Every value of a header, in order, whatever the case of its name."""
    return [value for key, value in headers if key.lower() == name.lower()]


def request(
    method: str = "GET",
    target: str = "/",
    *,
    token: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    chunks: Iterable[bytes] | None = None,
    host: str | None = "sidecar.test",
) -> bytes:
    """A well-formed request; `body` goes with Content-Length, `chunks` chunked. Wrong ones are written by hand."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"Host: {host}"] if host is not None else []
    lines += [f"Authorization: Bearer {token}"] if token is not None else []
    lines += [f"{name}: {value}" for name, value in headers]
    if chunks is not None:
        return _head([*lines, "Transfer-Encoding: chunked"]) + chunked(chunks)
    if body is not None:
        return _head([*lines, f"Content-Length: {len(body)}"]) + body
    return _head(lines)


def chunked(chunks: Iterable[bytes], trailers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A chunked body (RFC 9112 section 7.1) with exactly these chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body + b"0\r\n" + _head([f"{name}: {value}" for name, value in trailers])


def _head(lines: list[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape") + b"\r\n"


def response(
    status: int = 200,
    body: bytes = b"",
    headers: Iterable[tuple[str, str]] = (),
    *,
    chunks: Iterable[bytes] | None = None,
    trailers: Iterable[tuple[str, str]] = (),
    sized: bool = True,
) -> bytes:
    """An answer: sized, or with `chunks` chunked, or with `sized=False` ended by the connection's close."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}", *(f"{name}: {value}" for name, value in headers)]
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        body = chunked(chunks, trailers)
    elif sized and status >= 200 and status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}")
    return _head(lines) + body


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait for its end, however the other side ends it."""
    writer.close()
    try:
        async with patience("a connection to close"):
            await writer.wait_closed()
    except (ConnectionError, ssl.SSLError):
        pass


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection: the client gets ECONNRESET, and no byte that is in transit."""
    transport_socket = writer.get_extra_info("socket")
    transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_head(reader: asyncio.StreamReader) -> tuple[bytes, bytes, Headers]:
    """A head: its bytes, its first line, its headers. Raises Malformed, and Truncated (`part` empty: a clean end)."""
    raw = await whole(reader.readuntil(b"\r\n\r\n"))
    first, *lines = raw[:-4].split(b"\r\n")
    return raw, first, _fields(lines)


def framing(headers: Headers) -> str | None:
    """`chunked`, `length`, or None without either header. Malformed when they contradict each other or themselves."""
    coding, length = values(headers, "transfer-encoding"), values(headers, "content-length")
    if (coding and length) or len(coding) > 1 or len(length) > 1:
        raise Malformed(f"framing that can be read two ways: {coding} {length}")
    if coding:
        if coding[0].lower() != "chunked":
            raise Malformed(f"not a framing: {coding[0]!r}")
        return "chunked"
    if length:
        if not re.fullmatch("[0-9]+", length[0]):
            raise Malformed(f"not a length: {length[0]!r}")
        return "length"
    return None


async def read_body(reader: asyncio.StreamReader, headers: Headers) -> tuple[bytes, bytes, Headers]:
    """A body framed by its headers: decoded, as on the wire, and its trailers. Raises Malformed and Truncated."""
    match framing(headers):
        case "chunked":
            return await _read_chunked(reader)
        case "length":
            body = await whole(reader.readexactly(int(values(headers, "content-length")[0])))
            return body, body, []
    return b"", b"", []


async def _read_chunked(reader: asyncio.StreamReader) -> tuple[bytes, bytes, Headers]:
    chunks: list[bytes] = []
    wire: list[bytes] = []

    async def line() -> bytes:
        wire.append(await whole(reader.readuntil(b"\r\n"), wire))
        return wire[-1][:-2]

    while True:
        size = await line()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
            raise Malformed(f"not a chunk size: {size!r}")
        if int(size, 16) == 0:
            break
        wire.append(await whole(reader.readexactly(int(size, 16) + 2), wire))
        if not wire[-1].endswith(b"\r\n"):
            raise Malformed(f"a chunk that does not end where its size says: {wire[-1][-8:]!r}")
        chunks.append(wire[-1][:-2])
    trailers: list[bytes] = []
    while trailer := await line():
        trailers.append(trailer)
    return b"".join(chunks), b"".join(wire), _fields(trailers)


async def whole(reading: Awaitable[bytes], before: Iterable[bytes] = ()) -> bytes:
    """The wanted bytes, or Truncated with `before` and the received part."""
    try:
        return await reading
    except asyncio.IncompleteReadError as error:
        raise Truncated(b"".join(before) + error.partial) from None
    except ConnectionError:  # asyncio drops the bytes that it buffered before a reset
        raise Truncated(b"".join(before)) from None


def _fields(lines: list[bytes]) -> Headers:
    headers: Headers = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Malformed(f"not a header line: {line!r}")
        headers.append((match[1].decode("latin-1"), match[2].decode("latin-1")))
    return headers
