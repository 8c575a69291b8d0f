"""A small memory for bytes that keep coming: what was made of them is kept when they come for the second time."""

from typing import TypeVar

MAX_KEPT = 256
MAX_SEEN = 1024
MAX_BYTES = 4096  # of what is kept

Made = TypeVar("Made")


class Recurring(dict[bytes, Made]):
    """Bytes and what was made of them. Bytes that come only once cost no more than a number; the oldest make room."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def come_again(self, key: bytes) -> bool:
        """These bytes have come; had they come before, and are they worth keeping?"""
        if len(key) > MAX_BYTES:
            return False
        if hash(key) in self._seen:
            return True
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(hash(key))
        return False

    def keep(self, key: bytes, made: Made) -> None:
        """Keep what was made of these bytes."""
        if len(self) >= MAX_KEPT:
            del self[next(iter(self))]
        self[key] = made
