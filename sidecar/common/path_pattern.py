"""Patterns of paths. The time for a match grows with the lengths of path and pattern and with nothing else.

No part of a path is tried in more than one way. Python's `re` backtracks, and hangs on some paths.
"""

import re
from collections.abc import Callable

MOST_STEPS = 4000  # of a compiled regular expression: the most that one character of a path may cost

# RE2 reads such a { as a literal brace, Python as a repetition (`{,5}`) or an error (`{99999}`): the rule would match no path.
_BRACE = re.compile(r"(?<!\\)(?<!\\[pPx])\{(?!\d{1,4}(?:,\d{0,4})?\})")

Fits = Callable[[str], bool]


def stars(pattern: str, *, below: bool) -> Fits:
    """Match a whole path; each `*` stands for a part of one segment. With `below`, paths below a match also match."""
    segments = [segment.split("*") for segment in pattern.split("/")]

    def fits(path: str) -> bool:
        found = path.split("/", len(segments)) if below else path.split("/")
        enough = len(found) >= len(segments) if below else len(found) == len(segments)
        return enough and all(map(parts_fit, segments, found))

    return fits


def parts_fit(texts: list[str], segment: str) -> bool:
    """Are the texts between the `*` of a pattern in the segment, in order, the first at its start and the last at its end?

    If a text occurs more than once, its first place is enough, so no place is tried twice.
    """
    first, *between = texts
    if not between:
        return segment == first
    last = between.pop()
    end = len(segment) - len(last)
    place = len(first)
    if place > end or not segment.startswith(first) or not segment.endswith(last):
        return False
    for text in between:
        place = segment.find(text, place, end)
        if place < 0:
            return False
        place += len(text)
    return True


def regular(expression: str, *, any_case: bool = False) -> Fits:
    """Match a whole path by a regular expression of RE2. Raises ValueError.

    `any_case` ignores the case of letters.
    """
    if (brace := _BRACE.search(expression)) is not None:
        raise ValueError(
            f"the {{ at character {brace.start()} is no repetition; write {{1,5}} for a repetition or \\{{ for a brace"
        )
    import re2  # imported only by such rules: 3 MiB

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = 1 << 20
    options.case_sensitive = not any_case
    try:
        compiled = re2.compile(expression, options)
    except re2.error as error:
        raise ValueError(str(error.args[0], "utf-8", "replace")) from None
    if compiled.programsize > MOST_STEPS and not any_case:
        raise ValueError(
            f"it repeats too much: it compiles to {compiled.programsize} steps, and the limit is {MOST_STEPS}"
        )

    def fits(path: str) -> bool:
        # A byte that is no UTF-8 counts as one unassigned character, as in the readings of a path.
        return compiled.fullmatch(path.encode("utf-8", "replace")) is not None

    return fits
