"""One direction of one connection: bytes in; heads and pieces of bodies out, each message by itself.

A reader is in exactly one state. The next head is not looked at until the one who took this message says so, so nothing of one
message can be taken for a part of another.
"""

from sidecar.http.chunked import ChunkedDecoder
from sidecar.http.framing import CHUNKED, UNTIL_CLOSE
from sidecar.http.grammar import END_OF_HEAD, ProtocolError, refuse_controls

HEAD = "head"  # a head is to come
TAKEN = "taken"  # a head has been taken; the length of its body is not known yet
BODY = "body"  # bytes of a body are to come
COMPLETE = "complete"  # the message has ended; what follows is the next one
TUNNEL = "tunnel"  # no HTTP any more: every byte is passed on
DEAD = "dead"  # what comes has no meaning

SMALL_BYTES = 4 * 1024  # are copied rather than kept in a bytearray


class MessageReader:
    """Reads messages.

    `head_bytes` limits a head, and the trailers of a chunked body. So many `blank_lines` may come before a message: a server
    accepts some before a request (RFC 9112 section 2.2).
    """

    __slots__ = ("_blank_lines", "_blank_lines_left", "_chunks", "_head_bytes", "_left", "_scanned", "buffer", "state")

    def __init__(self, head_bytes: int, blank_lines: int = 0) -> None:
        self.state = HEAD
        self._head_bytes = head_bytes
        self._blank_lines = self._blank_lines_left = blank_lines
        self.buffer: bytes | bytearray = b""  # what waits here
        self._scanned = 0  # bytes of an unfinished head that have been looked at
        self._left: int  # of a body: bytes, CHUNKED or UNTIL_CLOSE
        self._chunks: ChunkedDecoder | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes that have come. Whoever feeds keeps `buffer` within bounds."""
        if self.state == DEAD:
            return
        if not self.buffer:
            self.buffer = data
            return
        if isinstance(self.buffer, bytes):
            self.buffer = bytearray(self.buffer)
        self.buffer += data

    def head(self) -> bytes | None:
        """Take the next head with its CRLFCRLF, or None while it has not all come. Raises ProtocolError.

        `begin_body` has to follow.
        """
        assert self.state == HEAD
        buffer = self.buffer
        if not buffer:
            return None
        if buffer.startswith(b"\r\n"):
            self._drop_blank_lines()
            buffer = self.buffer
        end = buffer.find(END_OF_HEAD, max(0, self._scanned - 3))
        if end < 0:
            self._refuse_larger(len(buffer) + 1)
            self._look_at_unfinished()
            return None
        size = end + len(END_OF_HEAD)
        self._refuse_larger(size)
        self._scanned = 0
        self._blank_lines_left = self._blank_lines
        self.state = TAKEN
        return self._take(size)

    def skip_known(self) -> None:
        """All that has come is one whole message without a body, which is known by its bytes: it is not fed."""
        assert self.state == HEAD
        assert not self.buffer
        self._blank_lines_left = self._blank_lines
        self.state = COMPLETE

    def begin_body(self, length: int) -> None:
        """Say where the message ends whose head was taken: a number of bytes, CHUNKED or UNTIL_CLOSE."""
        assert self.state == TAKEN
        if not length:
            self.state = COMPLETE
            return
        self._left = length
        self._chunks = ChunkedDecoder(self._head_bytes) if length == CHUNKED else None
        self.state = BODY

    def body(self) -> bytes:
        """Take the bytes of the body that are here; none when more have to come, or when its state is COMPLETE.

        Work is bounded: `ready` says whether there is more to be had at once. Raises ProtocolError.
        """
        if self.state != BODY or not self.buffer:
            return b""
        if self._chunks is not None:
            return self._decoded(self._chunks)
        if self._left == UNTIL_CLOSE:
            return self._take(len(self.buffer))
        piece = self._take(min(self._left, len(self.buffer)))
        self._left -= len(piece)
        if not self._left:
            self.state = COMPLETE
        return piece

    @property
    def ready(self) -> bool:
        """May `body` have more, without more bytes coming?"""
        return self.state == BODY and len(self.buffer) > self._scanned

    def next_message(self) -> None:
        """Go on to the next message. Only behind a complete one."""
        assert self.state == COMPLETE
        self.state = HEAD

    def end(self) -> bool:
        """The sender has finished: is the message complete?

        A body that lasts until the connection closes is, once all of it has been taken.
        """
        if self.state == BODY and self._left == UNTIL_CLOSE and not self.buffer:
            self.state = COMPLETE
        return self.state == COMPLETE

    def release(self) -> bytes:
        """Every byte that is here, for a tunnel; those to come do not pass through here."""
        self.state = TUNNEL
        return self._take(len(self.buffer))

    def die(self) -> None:
        """Forget what is here, and what is still to come."""
        self.state = DEAD
        self.buffer = b""

    def _decoded(self, chunks: ChunkedDecoder) -> bytes:
        data = self.buffer if isinstance(self.buffer, bytes) else bytes(self.buffer)
        try:
            pieces, used = chunks.decode(data)
        except ProtocolError:
            self.state = DEAD
            raise
        if used == len(data):
            self.buffer = b""
        elif used:
            self.buffer = data[used:]
        self._scanned = 0
        if chunks.done:
            self.state = COMPLETE
        elif not chunks.more:
            self._scanned = len(self.buffer)  # a part of a line, until more comes
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
                self.state = DEAD
                raise ProtocolError("Too many empty lines come before a message.")
            self._blank_lines_left -= 1
            self._take(2)
        self._scanned = 0  # the first of these bytes may have come alone

    def _refuse_larger(self, size: int) -> None:
        if size > self._head_bytes:
            self.state = DEAD
            raise ProtocolError(f"A head must not be larger than {self._head_bytes} bytes.", too_large=True)

    def _look_at_unfinished(self) -> None:
        """Refuse a head at once that can only be refused: the end of one whose lines do not end in CRLF would never come."""
        buffer, begin = self.buffer, max(0, self._scanned - 1)
        pairs = buffer.count(b"\r\n", begin)
        feeds, returns = buffer.count(b"\n", begin), buffer.count(b"\r", begin)
        if self._scanned and buffer[begin : begin + 1] == b"\n":
            feeds -= 1  # looked at with the byte before it
        try:
            if feeds != pairs or returns - (buffer[-1:] == b"\r") != pairs:
                raise ProtocolError("A line must end in CRLF.")
            refuse_controls(bytes(buffer[begin:]))
        except ProtocolError:
            self.state = DEAD
            raise
        self._scanned = len(buffer)
