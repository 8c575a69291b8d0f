"""Header names as the loosest backend reads them."""

import re

_NOT_ALNUM = re.compile(r"[^a-z0-9]")


def fold(name: str) -> str:
    """Lower case, with `-` in place of every other character than letters and digits, as Rack reads `_`, and PHP `_` and `.`."""
    return _NOT_ALNUM.sub("-", name.lower())
