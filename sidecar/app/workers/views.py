"""What several workers answer to the same question of an operator, as one answer."""

from collections.abc import Sequence
from typing import Any

# What two items of a list are told apart by, as far as they have it: those of one issuer, route, key or moment are one.
NAMES = ("at", "time", "request_id", "name", "line", "kid", "what", "path", "route", "issuer", "code", "mode")
SAME = {"line", "column", "status", "seconds"}  # numbers that do not add up, as little as durations (`_s`)
ALL = {"usable", "last_reload_successful"}  # true only where it is true of all
FIRST = {"since", "started_at", "fetched_at", "loaded_at"}
LAST = {"last", "time"}
WORST_LAST = ("idle", "good", "fresh", "errors", "stale", "failing", "absent")


def together(answers: Sequence[Any], name: str = "") -> Any:
    """One value in place of those that are here under a name: counts add up, of states the worst is told."""
    told = [answer for answer in answers if answer is not None]
    if not told:
        return None
    first = told[0]
    if isinstance(first, dict):
        keys = dict.fromkeys(key for answer in told for key in answer)
        return {key: together([answer[key] for answer in told if key in answer], key) for key in keys}
    if isinstance(first, list):
        return _lists(told, name)
    if isinstance(first, bool):
        return all(told) if name in ALL else any(told)
    if isinstance(first, int | float):
        return max(told) if name in SAME or name.endswith("_s") else sum(told)
    if name in FIRST | LAST:
        return min(told) if name in FIRST else max(told)
    return max(told, key=WORST_LAST.index) if set(WORST_LAST) >= set(told) else first


def _lists(lists: list[list[Any]], name: str) -> list[Any]:
    items = [item for one in lists for item in one]
    if items and all(isinstance(item, int | float) for item in items):
        return lists[0] if name.endswith("_s") else [sum(column) for column in zip(*lists, strict=True)]
    if not all(isinstance(item, dict) for item in items):
        return lists[0]
    alike: dict[tuple[str, ...], list[Any]] = {}
    for item in items:
        alike.setdefault(tuple(repr(item.get(key)) for key in NAMES), []).append(item)
    found = [together(each) for each in alike.values()]
    for key, newest_first in (("at", False), ("time", True), ("last_minute", True)):
        if found and key in found[0]:
            found.sort(key=lambda item: item[key], reverse=newest_first)
    return found
