"""A table for millions of entries, with 32 bytes for each entry plus the free space of a bytearray.

Python objects would take ten times as much memory, and a reload would free millions of them at once.
"""

import struct
from hashlib import blake2b

_TIMES = struct.Struct("<dd")
_KEY_BYTES = 16  # long enough that nobody finds two texts with one hash
_ENTRY_BYTES = _KEY_BYTES + _TIMES.size
_PART = 0x3FFF  # mask of the number of the part that holds an entry


class Table:
    """Two times for each key; `key_of` makes a key from texts."""

    def __init__(self) -> None:
        self._parts: dict[int, bytearray] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<Table of {self._length} keys in {len(self._parts)} parts>"

    def __getitem__(self, key: bytes) -> tuple[float, float] | None:
        """The times of a key, or None if the table lacks it."""
        part = self._parts.get(_part(key))
        if part is None or (place := _place(part, key)) < 0:
            return None
        return _TIMES.unpack_from(part, place + _KEY_BYTES)

    def raise_to(self, key: bytes, first: float, second: float) -> None:
        """Set the times of a key; if it has times already, keep the later of each."""
        part = self._parts.setdefault(_part(key), bytearray())
        place = _place(part, key)
        if place < 0:
            part += key + _TIMES.pack(first, second)
            self._length += 1
        else:
            one, other = _TIMES.unpack_from(part, place + _KEY_BYTES)
            _TIMES.pack_into(part, place + _KEY_BYTES, max(one, first), max(other, second))


def key_of(*texts: str) -> bytes:
    """A key that is equal only for the same texts in the same order."""
    return blake2b(repr(texts).encode(), digest_size=_KEY_BYTES).digest()


def _part(key: bytes) -> int:
    return int.from_bytes(key[:2], "little") & _PART


def _place(part: bytearray, key: bytes) -> int:
    """The index of an entry, -1 if the part lacks it."""
    place = part.find(key)
    while place != -1 and place % _ENTRY_BYTES:  # a match across two neighbouring entries
        place = part.find(key, place + 1)
    return place
