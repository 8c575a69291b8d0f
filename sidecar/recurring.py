"""A small memory for bytes that keep coming: what was made of them is kept when they come for the second time."""

from typing import TypeVar

MAX_KEPT = 256
MAX_SEEN = 4096
MAX_BYTES = 4096  # of what is kept

Made = TypeVar("Made")


class Recurring(dict[bytes, Made]):
    """Bytes and what was made of them. Bytes that come only once cost no more than a number; the oldest make room."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def came(self, bytes_: bytes, made: Made) -> None:
        """These came, and this was made of them."""
        if hash(bytes_) not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(hash(bytes_))
        elif len(bytes_) <= MAX_BYTES:
            if len(self) >= MAX_KEPT:
                del self[next(iter(self))]
            self[bytes_] = made
