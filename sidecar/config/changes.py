"""The keys that differ between two configurations, by their paths; never their values, which may be secret."""

from collections.abc import Iterator

from sidecar.common.masking import without_tokens
from sidecar.config.file import Config
from sidecar.config.struct import Struct

MOST_NAMED = 5
MOST_SHOWN = 100  # characters of a path: it may hold names of claims and headers


def changed_keys(before: Config, after: Config) -> str:
    """The paths of the changed keys for people, such as `issuers.main.audiences, routes.3.mode, and 2 more`."""
    paths = [".".join(path) for path in _changed(before, after)]
    named = ", ".join(map(_shown, paths[:MOST_NAMED])) or "no key"
    more = len(paths) - MOST_NAMED
    return f"{named}, and {more} more" if more > 0 else named


def _changed(before: object, after: object, *path: str) -> Iterator[tuple[str, ...]]:
    """The path of each value that differs. A list with more or fewer items is one value."""
    if isinstance(before, Struct) and isinstance(after, Struct) and type(before) is type(after):
        keys = before.keys()
        for field, about in type(before).model_fields.items():
            if (name := about.alias or field) in keys:
                yield from _changed(getattr(before, field), getattr(after, field), *path, name)
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in before | after:
            yield from _changed(before.get(name), after.get(name), *path, str(name))
    elif _items(before) and _items(after) and len(before) == len(after):  # type: ignore[arg-type]
        for number, (one, other) in enumerate(zip(before, after, strict=True)):  # type: ignore[call-overload]
            yield from _changed(one, other, *path, str(number))
    elif before != after:
        yield path


def _items(value: object) -> bool:
    """Is this a list of structs?"""
    return isinstance(value, tuple) and any(isinstance(item, Struct) for item in value)


def _shown(path: str) -> str:
    path = without_tokens(path)[:MOST_SHOWN]
    return path if path.isprintable() else ascii(path)
