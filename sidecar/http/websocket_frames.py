"""WebSocket frames (RFC 6455 section 5): finds where frames end, and writes a close frame."""

from os import urandom

MAX_FRAMES = 1024  # followed in one call; then other connections get their turn


class Frames:
    """The position in a stream of frames."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """Is the position exactly between two frames?"""
        return not self._left and not self._head

    def count(self, data: bytes, *, one: bool = False) -> int:
        """Follow the stream over `data`, or with `one` only to the end of the current frame. Returns how many bytes.

        One call follows at most MAX_FRAMES frames.
        """
        at, end, frames = 0, len(data), 0
        while at < end and frames < MAX_FRAMES and not (one and self.between):
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            begun = len(self._head)
            head = self._head + data[at : at + 10 - begun]
            size = _head_size(head)
            if size is None:
                self._head = head
                return end
            at += size - begun
            self._head = b""
            self._left = _rest(head, size)
            frames += 1
        return at


def _head_size(head: bytes) -> int | None:
    """The bytes of a frame's opcode and length (section 5.2); None while they are incomplete."""
    if len(head) < 2:
        return None
    size = 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return size if len(head) >= size else None


def _rest(head: bytes, size: int) -> int:
    """The bytes of a frame after its length: the mask and the payload."""
    mask = 4 if head[1] & 0x80 else 0
    return mask + (head[1] & 0x7F if size == 2 else int.from_bytes(head[2:size]))


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A close frame (section 5.5.1). Frames from a client are masked."""
    payload = code.to_bytes(2) + reason.encode()
    if not masked:
        return bytes((0x88, len(payload))) + payload
    mask = urandom(4)
    return bytes((0x88, 0x80 | len(payload))) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
