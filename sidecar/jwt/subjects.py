"""The `sub` values that an issuer may use."""

from collections.abc import Collection, Sequence


class Subjects:
    """The `sub` values that an issuer may use: exact values, prefixes and patterns.

    In a pattern `*` stands for any number of characters, and every other character for itself.
    """

    def __init__(self, exact: Collection[str] = (), prefix: Collection[str] = (), glob: Collection[str] = ()) -> None:
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefix)
        self._globs = tuple(tuple(pattern.split("*")) for pattern in glob)
        assert all(len(pieces) > 1 for pieces in self._globs), "a pattern without * is a subject"

    def __contains__(self, subject: str) -> bool:
        return (
            subject in self._exact
            or subject.startswith(self._prefixes)
            or any(_fits(pieces, subject) for pieces in self._globs)
        )

    def __str__(self) -> str:
        return ", ".join(
            (*sorted(self._exact), *(f"{prefix}*" for prefix in self._prefixes), *map("*".join, self._globs))
        )


def _fits(pieces: Sequence[str], text: str) -> bool:
    """Does the text match a pattern that was split at its `*`? The time is linear in the text for each piece."""
    first, *between, last = pieces
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in between:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(text) - at >= len(last) and text.endswith(last)
