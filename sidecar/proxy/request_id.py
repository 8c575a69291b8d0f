"""The id of a request that brought none."""

from itertools import count
from os import urandom

# Unique across replicas by the random half, within one by the number: cheaper than a random number for each request.
_prefix = urandom(8).hex()
_numbers = count(1)


def new_id() -> str:
    """The next one."""
    return f"{_prefix}-{next(_numbers):x}"
