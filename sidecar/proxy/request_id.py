"""Ids for requests without one."""

from itertools import count
from os import urandom

# The random half is unique across replicas, the number within one: cheaper than a random number for each request.
_prefix = urandom(8).hex()
_numbers = count()


def new_id() -> str:
    """The next id."""
    return f"{_prefix}-{next(_numbers):x}"
