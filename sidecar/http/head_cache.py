"""Remembers parsed heads by their exact bytes, so that a head that recurs is parsed once."""

from typing import Final, Generic, TypeVar

MAX_HEADS: Final = 256
MAX_SEEN: Final = 1024  # hashes of heads that came once
MAX_HEAD_BYTES: Final = 4096

Head = TypeVar("Head")


class HeadCache(Generic[Head]):
    """Bytes of a head -> the parsed head, for a bounded number of heads.

    A head is kept from the second time on; the first time costs a number. The oldest heads make room for new ones.
    """

    __slots__ = ("_heads", "_most", "_seen", "get")

    def __init__(self, most: int = MAX_HEADS) -> None:
        self._most = most
        self._heads: dict[bytes, Head] = {}
        self._seen: set[int] = set()
        self.get = self._heads.get
        """The parsed head for exactly these bytes, or None."""

    def __len__(self) -> int:
        return len(self._heads)

    def offer(self, raw: bytes, head: Head) -> None:
        """Keep a parsed head if its bytes have come before."""
        if len(raw) > MAX_HEAD_BYTES or not self._most:
            return
        number = hash(raw)
        if number not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(number)
            return
        if len(self._heads) >= self._most and raw not in self._heads:
            del self._heads[next(iter(self._heads))]
        self._heads[raw] = head
