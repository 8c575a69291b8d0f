"""Combines the answers of several workers into one."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

# The keys that identify an item of a list: items with the same issuer, route, key or time are combined.
NAMES = ("at", "time", "request_id", "name", "line", "kid", "what", "path", "route", "issuer", "code", "mode")
SAME = {"line", "column", "status", "seconds"}  # numbers that are not summed; durations (`_s`) are not either
ALL = {"usable", "last_reload_successful"}  # true only if true in all workers
FIRST = {"since", "first", "until", "started_at", "fetched_at", "loaded_at"}
LAST = {"last", "time"}
WORST_LAST = ("idle", "good", "fresh", "errors", "stale", "failing", "absent", "note", "warn", "bad")
COUNT = re.compile(
    r"([0-9][0-9,]*) (request|connection|timeout|invalid answer)s?\b"
)  # in the sentence of a problem: a number, and what it counts
ONE_CHANGE_S = 5.0  # within which all workers notice it


def together(answers: Sequence[Any], name: str = "") -> Any:
    """Combine the values under a name: counts are summed, and of states the worst counts."""
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
    if name == "text":
        return _sentence(told)
    return max(told, key=WORST_LAST.index) if set(WORST_LAST) >= set(told) else first


def _sentence(told: list[str]) -> str:
    """One of the sentences, with the sum of what each counts."""
    numbers = [[int(count.replace(",", "")) for count, _ in COUNT.findall(text)] for text in told]
    if len({len(each) for each in numbers}) > 1:
        return told[0]
    sums = iter([sum(column) for column in zip(*numbers, strict=True)])

    def total(match: "re.Match[str]") -> str:
        number = next(sums)
        return f"{number:,} {match[2]}" + ("" if number == 1 else "s")

    return COUNT.sub(total, max(told, key=len))


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
    if found and "level" in found[0]:  # problems, that with the most refused requests first; or changes, each once
        if "at" in found[0]:
            return _changes(found)
        found.sort(key=lambda item: (item["refused"], WORST_LAST.index(item["level"])), reverse=True)
    return found


def _changes(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: dict[tuple[str, ...], datetime] = {}
    once = []
    for change in found:
        kind, at = (change["what"], change["name"], change["text"]), datetime.fromisoformat(change["at"])
        if kind not in kept or (at - kept[kind]).total_seconds() > ONE_CHANGE_S:
            kept[kind] = at
            once.append(change)
    return once
