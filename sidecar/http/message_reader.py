"""Reads one direction of one connection: bytes in, heads and pieces of bodies out.

A reader is in exactly one state. It parses the next head only after a call of `next_message`, so that bytes of one message never
become part of another.
"""

from typing import Final, Literal

from sidecar.http.chunked import ChunkedDecoder
from sidecar.http.framing import CHUNKED, UNTIL_CLOSE
from sidecar.http.grammar import END_OF_HEAD, ProtocolError, refuse_controls

State = Literal[
    "head",  # waiting for a head
    "taken",  # the caller has taken a head; `begin_body` must follow
    "body",  # waiting for bytes of a body
    "complete",  # the message has ended; further bytes belong to the next one
    "tunnel",  # no longer HTTP: every byte is passed on
    "dead",  # further bytes are ignored
]

SMALL_BYTES: Final = 4 * 1024  # data up to this size is copied rather than kept in a bytearray


class MessageReader:
    """Reads messages.

    `head_bytes` limits a head, and the trailers of a chunked body. `blank_lines` is how many empty lines may come before a
    message: a server accepts some before a request (RFC 9112 section 2.2).
    """

    __slots__ = ("_blank_lines", "_blank_lines_left", "_chunks", "_head_bytes", "_left", "_scanned", "buffer", "state")

    def __init__(self, head_bytes: int, blank_lines: int = 0) -> None:
        self.state: State = "head"
        self._head_bytes = head_bytes
        self._blank_lines = self._blank_lines_left = blank_lines
        self.buffer: bytes | bytearray = b""  # bytes that nobody has taken yet
        self._scanned = 0  # bytes of an unfinished head that were scanned
        self._left: int  # of a body: bytes, CHUNKED or UNTIL_CLOSE
        self._chunks: ChunkedDecoder | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes. The caller keeps `buffer` within bounds."""
        if self.state == "dead":
            return
        if not self.buffer:
            self.buffer = data
            return
        if isinstance(self.buffer, bytes):
            self.buffer = bytearray(self.buffer)
        self.buffer += data

    def head(self, likely: bytes = b"") -> bytes | None:
        """Take the next head with its CRLFCRLF; None while it is incomplete. Raises ProtocolError.

        `likely` is a head that was taken before: if the bytes begin with it, it is returned, and its end is not searched for.

        A call of `begin_body` must follow.
        """
        assert self.state == "head"
        buffer = self.buffer
        if not buffer:
            return None
        if likely and isinstance(buffer, bytes) and buffer.startswith(likely):
            self._begin_message(len(likely))
            return likely
        if buffer[0] == 0x0D:
            self._drop_blank_lines()
            buffer = self.buffer
        end = buffer.find(END_OF_HEAD, max(0, self._scanned - len(END_OF_HEAD)))
        if end == -1:
            self._refuse_larger(len(buffer) + 1)
            self._look_at_unfinished()
            return None
        return self._begin_message(end + len(END_OF_HEAD))

    def skip_known(self) -> None:
        """Skip a whole message without a body that the caller knows by its bytes. They are not fed."""
        assert self.state == "head"
        assert not self.buffer
        self._blank_lines_left = self._blank_lines
        self.state = "complete"

    def begin_body(self, length: int) -> None:
        """Set the length of the body after a head: a number of bytes, CHUNKED or UNTIL_CLOSE."""
        assert self.state == "taken"
        if not length:
            self.state = "complete"
            return
        self._left = length
        self._chunks = ChunkedDecoder(self._head_bytes) if length == CHUNKED else None
        self.state = "body"

    def body(self) -> bytes:
        """Take the received bytes of the body; empty when none are there, or when the message is complete.

        One call does bounded work; `ready` tells whether another call would return more. Raises ProtocolError.
        """
        if self.state != "body" or not self.buffer:
            return b""
        if self._chunks is not None:
            return self._decoded(self._chunks)
        if self._left == UNTIL_CLOSE:
            return self._take(len(self.buffer))
        piece = self._take(min(self._left, len(self.buffer)))
        self._left -= len(piece)
        if not self._left:
            self.state = "complete"
        return piece

    @property
    def ready(self) -> bool:
        """Can `body` return more without further bytes?"""
        return self.state == "body" and len(self.buffer) > self._scanned

    def next_message(self) -> None:
        """Begin the next message. Call it only when the current one is complete."""
        assert self.state == "complete"
        self.state = "head"

    def end(self) -> bool:
        """The sender has closed its side. Returns whether the message is complete.

        A body of UNTIL_CLOSE is complete once all of it has been taken.
        """
        if self.state == "body" and self._left == UNTIL_CLOSE and not self.buffer:
            self.state = "complete"
        return self.state == "complete"

    def release(self) -> bytes:
        """Begin a tunnel: take all buffered bytes. Later bytes bypass the reader."""
        self.state = "tunnel"
        return self._take(len(self.buffer))

    def die(self) -> None:
        """Drop the buffered bytes and ignore all later ones."""
        self.state = "dead"
        self.buffer = b""

    def _decoded(self, chunks: ChunkedDecoder) -> bytes:
        data = self.buffer if isinstance(self.buffer, bytes) else bytes(self.buffer)
        try:
            pieces, used = chunks.decode(data)
        except ProtocolError:
            self.state = "dead"
            raise
        if used == len(data):
            self.buffer = b""
        elif used:
            self.buffer = data[used:]
        self._scanned = 0
        if chunks.done:
            self.state = "complete"
        elif not chunks.more:
            self._scanned = len(self.buffer)  # an incomplete line
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin_message(self, size: int) -> bytes:
        """Take a head of this size."""
        self._refuse_larger(size)
        self._scanned = 0
        self._blank_lines_left = self._blank_lines
        self.state = "taken"
        return self._take(size)

    def _take(self, size: int) -> bytes:
        buffer = self.buffer
        if size == len(buffer):
            self.buffer = b""
            return buffer if isinstance(buffer, bytes) else bytes(buffer)
        if isinstance(buffer, bytes):
            if len(buffer) - size <= SMALL_BYTES:
                self.buffer = buffer[size:]
                return buffer[:size]
            buffer = self.buffer = bytearray(buffer)
        taken = bytes(memoryview(buffer)[:size])
        del buffer[:size]  # which moves nothing
        return taken

    def _drop_blank_lines(self) -> None:
        while self.buffer[:2] == b"\r\n":
            if not self._blank_lines_left:
                self.state = "dead"
                raise ProtocolError("Too many empty lines come before the message.")
            self._blank_lines_left -= 1
            self._take(2)
        self._scanned = 0  # an earlier scan may have seen only the first of these bytes

    def _refuse_larger(self, size: int) -> None:
        if size > self._head_bytes:
            self.state = "dead"
            raise ProtocolError(f"A head must not be larger than {self._head_bytes} bytes.", too_large=True)

    def _look_at_unfinished(self) -> None:
        """Refuse an unfinished head early if a line does not end in CRLF: the end of such a head would never come."""
        unfinished = bytes(self.buffer[self._scanned :]).removesuffix(b"\r")  # its LF may follow
        try:
            for line in unfinished.split(b"\r\n"):
                refuse_controls(line)
        except ProtocolError:
            self.state = "dead"
            raise
        self._scanned += len(unfinished)
