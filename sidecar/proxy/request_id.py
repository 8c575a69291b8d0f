"""Ids for requests without one."""

from itertools import count
from os import register_at_fork, urandom

# The random half is unique across processes, the number within one: cheaper than a random number for each request.
_prefix = [urandom(8).hex()]
_numbers = count()


def _after_fork() -> None:
    _prefix[0] = urandom(8).hex()  # else two workers give two requests the same id


register_at_fork(after_in_child=_after_fork)


def new_id() -> str:
    """The next id."""
    return f"{_prefix[0]}-{next(_numbers):x}"
