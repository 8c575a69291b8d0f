"""Remembers verified tokens by their digest, within two limits: a number of entries and an approximate number of bytes."""

from collections import OrderedDict
from hashlib import sha256
from typing import Final, Generic, Protocol, TypeVar

from sidecar.jwt.compact_jws import Jws

# The bytes of an entry (docs/understand/performance.md): its objects; its payload, as signed and in the header for the backend;
# and each value in it.
_ENTRY_BYTES: Final = 900
_PAYLOAD_TIMES: Final = 2.8
_VALUE_BYTES: Final = 64
_MINTED_BYTES: Final = 900  # of each token that the sidecar mints for it, besides the payload once more


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


class TokenCache(Generic[Remembered]):
    """Digest -> remembered token. A full cache evicts the least recently used ones; `evictions` counts them."""

    def __init__(self, most_entries: int, most_bytes: int) -> None:
        self._tokens: OrderedDict[bytes, Remembered] = OrderedDict()  # the least recently used first
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self.bytes = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, remembered_by: bytes) -> Remembered | None:
        """The remembered token with this digest, which counts as used."""
        entry = self._tokens.get(remembered_by)
        if entry is not None:
            self._tokens.move_to_end(remembered_by)
        return entry

    def keep(self, remembered_by: bytes, entry: Remembered) -> None:
        """Remember a token, unless its entry is larger than the whole cache may be."""
        size = entry.size
        if size > self._most_bytes:
            return
        self.forget(remembered_by)
        tokens = self._tokens
        while len(tokens) >= self._most_entries or self.bytes + size > self._most_bytes:
            evicted = tokens.popitem(last=False)[1]
            self.bytes -= evicted.size
            self.evictions += 1
        tokens[remembered_by] = entry
        self.bytes += size

    def forget(self, remembered_by: bytes) -> None:
        """Remove the token with this digest, if it is remembered."""
        entry = self._tokens.pop(remembered_by, None)
        if entry is not None:
            self.bytes -= entry.size
