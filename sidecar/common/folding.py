"""Names of headers as the loosest backend reads them."""

import re

_NOT_ALNUM = re.compile(r"[^a-z0-9]")


def fold(name: str) -> str:
    """In lower case, with `-` for all that is neither letter nor digit: Rack reads `_` so, PHP `_` and `.`."""
    return _NOT_ALNUM.sub("-", name.lower())
