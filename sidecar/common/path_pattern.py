"""Patterns of paths, which take time by the length of the path and the pattern, whatever the two are.

Nothing here tries a part of a path in more than one way. Python's own `re` does, and hangs on some paths.
"""

import re
from collections.abc import Callable

MOST_STEPS = 4000  # of a regular expression, once it is compiled; a character of a path costs as many at most

# RE2 takes such a { for a brace itself, where Python repeats (`{,5}`) or refuses (`{99999}`): the rule would meet no path.
_BRACE = re.compile(r"(?<!\\)(?<!\\[pPx])\{(?!\d{1,4}(?:,\d{0,4})?\})")

Fits = Callable[[str], bool]


def stars(pattern: str, *, below: bool) -> Fits:
    """Does a whole path fit a pattern in which each `*` stands for a part of one segment? `below`: so do paths below."""
    segments = [segment.split("*") for segment in pattern.split("/")]

    def fits(path: str) -> bool:
        found = path.split("/", len(segments)) if below else path.split("/")
        enough = len(found) >= len(segments) if below else len(found) == len(segments)
        return enough and all(map(parts_fit, segments, found))

    return fits


def parts_fit(texts: list[str], segment: str) -> bool:
    """Are these texts, what a pattern has between its `*`, in the segment, in their order, the first one at its start
    and the last one at its end?

    The first place where a text between two `*` stands is as good as any later one, so none is tried twice.
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
    """Does a whole path fit a regular expression? RE2 follows all ways through it at once. Raises ValueError.

    `any_case`: whatever the case of its letters.
    """
    if (brace := _BRACE.search(expression)) is not None:
        raise ValueError(
            f"the {{ at character {brace.start()} repeats nothing; {{1,5}} does, and a brace itself is \\{{"
        )
    import re2  # 3 MiB that only such rules need

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
        raise ValueError(f"it repeats too much: {compiled.programsize} steps, and {MOST_STEPS} is the most")

    def fits(path: str) -> bool:
        # Bytes that are no text are one character each, as in the readings of a path, and no character that has a name.
        return compiled.fullmatch(path.encode("utf-8", "replace")) is not None

    return fits
