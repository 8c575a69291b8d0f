"""A second HTTP/1.1 reader, for the judge of `traffic`: small, strict, and without code of the sidecar or of aiohttp.

It reads what a well-behaved program may send (RFC 9112) and nothing else: what other readers forgive is Malformed here.

    reader = Reader()
    steps = reader.answer("GET", [])
    reader.feed(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
    answer = finish(steps)          # None: more bytes are needed
"""

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar

MAX_HEAD = 256 * 1024
MAX_LINE = 4096  # of the lines between chunks

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") (/[!-~]*) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9][0-9]) [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")

Got = TypeVar("Got")
Steps = Generator[None, None, Got]
"""Reading as far as the bytes go: each step asks for more of them, the end is what was read."""


class Malformed(Exception):
    """These bytes are not HTTP/1.1, or can be read in two ways."""


class Truncated(Exception):
    """The connection ended within a message. `head` is its head, if that was whole, `body` what came of its body."""

    def __init__(self, head: "Head | None", body: bytes) -> None:
        super().__init__(f"ended within {head or 'a head'} after {len(body)} bytes of its body")
        self.head = head
        self.body = body


@dataclass
class Head:
    """The first line, taken apart, and the headers as they came. Of a request `status` is 0, of an answer `method` is empty."""

    version: str
    method: str = ""
    target: str = ""
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a header, in their order."""
        return [value for own, value in self.headers if own.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a header that comes at most once, or None. Raises Malformed."""
        values = self.all(name)
        if len(values) > 1:
            raise Malformed(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None

    @property
    def options(self) -> set[str]:
        """The members of `Connection`, in lower case."""
        return {option.strip().lower() for value in self.all("connection") for option in value.split(",")} - {""}

    @property
    def lasts(self) -> bool:
        """Does the connection persist after this message (RFC 9112 section 9.3)?"""
        return "close" not in self.options and (self.version == "HTTP/1.1" or "keep-alive" in self.options)


@dataclass
class Answer(Head):
    """A final answer. `ends_with`: none, length, chunked, close, or tunnel for a 101."""

    body: bytes = b""
    ends_with: str = "none"


def head(raw: bytes) -> Head:
    """Read one head, from its first byte to the end of its empty line. Raises Malformed."""
    if not raw.endswith(b"\r\n\r\n") or raw.find(b"\r\n\r\n") != len(raw) - 4:
        raise Malformed(f"not exactly one head: {raw!r}")
    first, *lines = raw[:-4].split(b"\r\n")
    if match := _STATUS_LINE.fullmatch(first):
        read = Head(match[1].decode(), status=int(match[2]))
    elif match := _REQUEST_LINE.fullmatch(first):
        read = Head(match[3].decode(), match[1].decode(), match[2].decode())
    else:
        raise Malformed(f"not a first line: {first!r}")
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Malformed(f"not a header: {line!r}")
        read.headers.append((match[1].decode(), match[2].decode("latin-1")))
    return read


def framing(read: Head, method: str = "") -> tuple[str, int]:
    """(what ends the body, its length) by RFC 9112 section 6.3; of an answer with the method of its request. Raises Malformed."""
    coding, length = read.get("transfer-encoding"), read.get("content-length")
    if coding is not None and (length is not None or coding.lower() != "chunked" or read.version != "HTTP/1.1"):
        raise Malformed(f"a framing that can be read in two ways: {read}")
    if length is not None and not _LENGTH.fullmatch(length):
        raise Malformed(f"not a length: {length!r}")
    if (100 <= read.status < 200 or read.status == 204) and (coding is not None or length is not None):
        raise Malformed(f"a body where none can be: {read}")
    if read.status == 101:
        return "tunnel", 0
    if 100 <= read.status < 200 or read.status in (204, 304) or method == "HEAD":
        return "none", 0
    if coding is not None:
        return "chunked", 0
    if length is not None:
        return "length", int(length)
    return ("close", 0) if read.status else ("none", 0)


def finish(steps: Steps[Got]) -> Got | None:
    """The parsed message, or None if more bytes are needed."""
    try:
        next(steps)
    except StopIteration as end:
        value: Got = end.value
        return value
    return None


class Reader:
    """One direction of one connection. `end` says how it ended, once it has: "fin", or any other word for an end that is none."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.end = ""

    def feed(self, data: bytes) -> None:
        """Receive bytes."""
        self.buffer += data

    def request(self) -> Steps[Head | None]:
        """Read the head of a request; None: the connection ended before one. Raises Malformed and Truncated."""
        raw = yield from self._head()
        if not raw:
            return None
        read = head(raw)
        if not read.method:
            raise Malformed(f"not a request: {raw!r}")
        if read.version == "HTTP/1.1" and read.get("host") is None:
            raise Malformed(f"no Host: {raw!r}")
        return read

    def answer(self, method: str, interim: list[Head]) -> Steps[Answer | None]:
        """Read the final answer to a request; None: the connection ended before it. `interim` gets the 1xx answers as they come.

        Raises Malformed and Truncated.
        """
        while raw := (yield from self._head()):
            read = head(raw)
            if not read.status:
                raise Malformed(f"not an answer: {raw!r}")
            ends_with, length = framing(read, method)
            if 100 <= read.status < 200 and read.status != 101:
                interim.append(read)
                continue
            body = yield from self.body(read, ends_with, length)
            return Answer(read.version, "", "", read.status, read.headers, body, ends_with)
        return None

    def body(self, of: Head, ends_with: str, length: int) -> Steps[bytes]:
        """Read a body that is framed so. Raises Malformed, and Truncated when the connection ended before it did."""
        body = bytearray()
        match ends_with:
            case "length":
                yield from self._take(length, of, body)
            case "chunked":
                while size := (yield from self._size(of, body)):
                    yield from self._take(size, of, body)
                    if (yield from self._line(of, body)):
                        raise Malformed(f"a chunk that does not end where it said, in the body of {of}")
                while line := (yield from self._line(of, body)):
                    if not _FIELD.fullmatch(line):
                        raise Malformed(f"not a trailer: {line!r}")
            case "close":
                while not self.end:
                    yield
                body += self.buffer
                self.buffer.clear()
                if self.end != "fin":
                    raise Truncated(of, bytes(body))
        return bytes(body)

    def _head(self) -> Steps[bytes]:
        """The bytes of the next head; none where the connection ended before its first."""
        while (at := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > MAX_HEAD:
                raise Malformed(f"a head without an end: {bytes(self.buffer[:200])!r}")
            if self.end and self.buffer:
                raise Truncated(None, b"")
            if self.end:
                return b""
            yield
        return self._cut(at + 4)

    def _take(self, size: int, of: Head, body: bytearray) -> Steps[None]:
        """This many bytes of a body."""
        while size:
            piece = self._cut(min(size, len(self.buffer)))
            body += piece
            size -= len(piece)
            if size and self.end:
                raise Truncated(of, bytes(body))
            if size:
                yield

    def _line(self, of: Head, body: bytearray) -> Steps[bytes]:
        """A line within a chunked body, without its end."""
        while (at := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > MAX_LINE:
                raise Malformed(f"a line without an end in the body of {of}")
            if self.end:
                raise Truncated(of, bytes(body))
            yield
        return self._cut(at + 2)[:-2]

    def _size(self, of: Head, body: bytearray) -> Steps[int]:
        """The size of the next chunk."""
        line = yield from self._line(of, body)
        if not _SIZE.fullmatch(line):
            raise Malformed(f"not the size of a chunk: {line!r}")
        return int(line, 16)

    def _cut(self, size: int) -> bytes:
        piece = bytes(self.buffer[:size])
        del self.buffer[:size]
        return piece
