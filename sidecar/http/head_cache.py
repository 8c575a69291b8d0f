"""Heads that keep coming, by their exact bytes: each is parsed once. What is remembered is what the pure function gives."""

from typing import Generic, TypeVar

MAX_HEADS = 256
MAX_SEEN = 1024  # heads of which it is known that they have come once
MAX_HEAD_BYTES = 4096

Head = TypeVar("Head")


class HeadCache(Generic[Head]):
    """Bytes of a head -> the head, for at most so many heads.

    One that comes only once costs no more than a number; the oldest make room.
    """

    __slots__ = ("_heads", "_most", "_seen", "get")

    def __init__(self, most: int = MAX_HEADS) -> None:
        self._most = most
        self._heads: dict[bytes, Head] = {}
        self._seen: set[int] = set()
        self.get = self._heads.get
        """The head for exactly these bytes, or None."""

    def __len__(self) -> int:
        return len(self._heads)

    def offer(self, raw: bytes, head: Head) -> None:
        """These bytes were parsed as this head: keep it when they have come before."""
        if len(raw) > MAX_HEAD_BYTES or not self._most:
            return
        number = hash(raw)
        if number not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(number)
            return
        if len(self._heads) >= self._most:
            del self._heads[next(iter(self._heads))]
        self._heads[raw] = head
