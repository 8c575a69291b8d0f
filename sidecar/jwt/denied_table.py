"""Many entries in little memory: 32 bytes for each, beside what a bytearray keeps free.

Millions of Python objects would take ten times as much, and let go of them all at once when another list takes their place.
"""

import struct
from hashlib import blake2b

_TIMES = struct.Struct("<dd")
_KEY_BYTES = 16  # nobody finds two texts of one such hash
_ENTRY_BYTES = _KEY_BYTES + _TIMES.size
_PART = 0x3FFF  # an entry is looked for in one of so many parts


class Table:
    """Two times for each key, a text or a tuple of them."""

    def __init__(self) -> None:
        self._parts: dict[int, bytearray] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: bytes) -> tuple[float, float] | None:
        """The times of a key that `key_of` made, None where it has none."""
        part = self._parts.get(_part(key))
        place = -1 if part is None else _place(part, key)
        return None if part is None or place < 0 else _TIMES.unpack_from(part, place + _KEY_BYTES)

    def raise_to(self, key: bytes, first: float, second: float) -> None:
        """Take the times of a key; where it has some, the later of each."""
        part = self._parts.setdefault(_part(key), bytearray())
        place = _place(part, key)
        if place < 0:
            part += key + _TIMES.pack(first, second)
            self._length += 1
        else:
            one, other = _TIMES.unpack_from(part, place + _KEY_BYTES)
            _TIMES.pack_into(part, place + _KEY_BYTES, max(one, first), max(other, second))


def key_of(*texts: str) -> bytes:
    """The same for the same texts in the same order, and for no others."""
    sizes = ",".join(str(len(text)) for text in texts)
    return blake2b(f"{sizes}:{''.join(texts)}".encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def _part(key: bytes) -> int:
    return int.from_bytes(key[:2], "little") & _PART


def _place(part: bytearray, key: bytes) -> int:
    """Where the entry begins, -1 if it is not there."""
    place = part.find(key)
    while place >= 0 and place % _ENTRY_BYTES:  # bytes of two neighbours
        place = part.find(key, place + 1)
    return place
