"""Lines on standard error, which several processes share."""

import sys


def say(line: str) -> None:
    """Write a line in one call, so that no line of another process comes in between.

    `print` makes two calls if PYTHONUNBUFFERED is set, as it is in many images: one for the line, one for its end.
    """
    if sys.stderr is not None:  # None: it was closed before the start
        sys.stderr.write(f"{line}\n")
