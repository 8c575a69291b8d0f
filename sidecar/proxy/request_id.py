"""Ids for requests without one."""

from os import register_at_fork, urandom
from typing import Final


class RequestIds:
    """Makes ids: a random half, unique across processes, and a number, cheaper than a random number for each request."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Take another random half: after a fork two workers would give two requests the same id."""
        self._random = urandom(8).hex()
        self._number = 0

    def next(self) -> str:
        """The next id."""
        self._number += 1
        return f"{self._random}-{self._number}"


_ids: Final = RequestIds()
register_at_fork(after_in_child=_ids.begin)


def new_id() -> str:
    """The next id."""
    return _ids.next()
