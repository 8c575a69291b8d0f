"""The chunked coding (RFC 9112 section 7.1), decoded. Sizes, extensions and trailers are bounded; trailers are dropped."""

import re

from sidecar.http.grammar import ProtocolError, refuse_controls, split_field

MAX_SIZE_LINE = 256  # bytes of a chunk's size line, extensions included
MAX_TRAILER_LINE = 2048  # bytes of one trailer
MAX_CHUNKS = 512  # decoded in one call; then other connections get their turn

# A blank after the size is allowed only before an extension: some programs read on there.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class ChunkedDecoder:
    """Decodes one body. `done`: the body has ended. `more`: `decode` stopped after MAX_CHUNKS, so that others get their turn.

    `trailer_bytes` is how many bytes of trailers are still allowed.
    """

    __slots__ = ("_data_left", "_in_trailers", "_line_end_due", "done", "more", "trailer_bytes")

    def __init__(self, trailer_bytes: int) -> None:
        self.done = False
        self.more = False
        self.trailer_bytes = trailer_bytes
        self._data_left = 0
        self._line_end_due = False  # the CRLF after a chunk's data
        self._in_trailers = False

    def decode(self, data: bytes) -> tuple[list[bytes], int]:
        """Return (pieces of the body, how many bytes of `data` they took).

        The rest of `data` is an unfinished line, or bytes after the body's end; with `more` the caller decodes it again.
        Raises ProtocolError.
        """
        pieces: list[bytes] = []
        at, end = 0, len(data)
        chunks = 0
        while at < end and not self.done and chunks < MAX_CHUNKS:
            if self._data_left:
                piece = data[at : at + self._data_left]
                pieces.append(piece)
                at += len(piece)
                self._data_left -= len(piece)
                self._line_end_due = not self._data_left
            elif self._line_end_due:
                if not b"\r\n".startswith(data[at : at + 2]):
                    raise ProtocolError("A chunk must end where its size says.")
                if end - at < 2:
                    break
                at += 2
                self._line_end_due = False
            elif self._in_trailers:
                line_end = data.find(b"\n", at) + 1
                if (line_end or end) - at > min(self.trailer_bytes, MAX_TRAILER_LINE):
                    raise ProtocolError("The trailers of a chunked body are larger than accepted.", too_large=True)
                if not line_end:
                    break
                self._trailer(data[at:line_end])
                at = line_end
                chunks += 1
            else:
                line_end = data.find(b"\n", at, at + MAX_SIZE_LINE) + 1
                if not line_end:
                    if end - at >= MAX_SIZE_LINE:
                        raise ProtocolError("A chunk's size and extensions are longer than accepted.")
                    break
                size = _SIZE.fullmatch(data, at, line_end)
                if size is None:
                    raise ProtocolError("A chunk must begin with its size in hexadecimal digits.")
                at = line_end
                self._data_left = int(size[1], 16)
                self._in_trailers = not self._data_left
                chunks += 1
        self.more = at < end and not self.done and chunks >= MAX_CHUNKS
        return pieces, at

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        text = line.removesuffix(b"\r\n")
        refuse_controls(text)
        split_field(text)
        self.trailer_bytes -= len(line)
