"""Remembers verified tokens by their digest, within two limits: a number of entries and an approximate number of bytes."""

from hashlib import sha256
from typing import Protocol, TypeVar

from cachetools import LRUCache

from sidecar.jwt.compact_jws import Jws

# The bytes of an entry (docs/understand/performance.md): its objects; its payload, as signed and in the header for the backend;
# and each value in it.
_ENTRY_BYTES = 900
_PAYLOAD_TIMES = 2.8
_VALUE_BYTES = 64
_MINTED_BYTES = 900  # of each token that the sidecar mints for it, besides the payload once more


class Entry(Protocol):
    """A remembered token."""

    size: int


Remembered = TypeVar("Remembered", bound=Entry)


def digest(token: bytes) -> bytes:
    """The key of a token in the cache; the token itself is not kept."""
    return sha256(token).digest()


def entry_bytes(jws: Jws, minted: int = 0) -> int:
    """The approximate size of a token's entry in bytes; `minted` tokens may be minted for it."""
    payload = len(jws.payload_segment)
    minted_bytes = minted * (_MINTED_BYTES + payload)
    return int(_ENTRY_BYTES + _PAYLOAD_TIMES * payload + _VALUE_BYTES * jws.values) + minted_bytes


class TokenCache(LRUCache[bytes, Remembered]):
    """Digest -> remembered token. A full cache evicts the least recently used ones; `evictions` counts them."""

    def __init__(self, entries: int, most_bytes: int) -> None:
        super().__init__(most_bytes, getsizeof=lambda entry: entry.size)
        self._entries = entries
        self.evictions = 0

    def keep(self, remembered_by: bytes, entry: Remembered) -> None:
        """Remember a token, unless its entry is larger than the whole cache may be."""
        if entry.size > self.maxsize:
            return
        if len(self) >= self._entries and remembered_by not in self:
            self.popitem()
        self[remembered_by] = entry

    def popitem(self) -> tuple[bytes, Remembered]:
        """Evict the least recently used token."""
        self.evictions += 1
        return super().popitem()
