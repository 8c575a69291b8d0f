"""Reads the entries of a list one by one, so that a list of a million is never in memory as a whole."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml

READ_CHARACTERS = 65_536  # at a time
MAX_DOCUMENT = 65_536  # characters of one entry, in JSON

# libyaml's loader is much faster, if PyYAML was built with it. Both take every scalar as text: a jti may be all digits.
_YAML = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_BLANKS = re.compile(r"[ \t\r\n]*+")


class NoList(Exception):
    """The file does not hold a list."""


def documents(path: Path) -> Iterator[object]:
    """The entries of a list, in JSON if the file's name ends in .json, else in YAML.

    Raises NoList, Twice, OSError and parsers' errors.
    """
    if path.suffix == ".json":
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield from _Json(text).documents()
    else:
        with path.open("rb") as stream:
            yield from _Yaml(stream).documents()


class Twice(Exception):
    """An entry has a name twice, so that one of two revocations would be lost."""


class _Json:
    """Reads a list in JSON piece by piece."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._held, self._place = text.read(READ_CHARACTERS), 0
        self._decode = json.JSONDecoder(object_pairs_hook=_once).raw_decode

    def documents(self) -> Iterator[object]:
        """Each, as soon as it is read."""
        if (sign := self._sign()) != "[":
            raise NoList if sign else ValueError
        self._place += 1
        if self._sign() == "]":
            self._place += 1
        else:
            sign = ","
            while sign == ",":
                yield self._document()
                sign = self._sign()
                self._place += 1
            if sign != "]":
                raise ValueError
        if self._sign():
            raise ValueError

    def _sign(self) -> str:
        """The next character that is no blank, without taking it; empty at the end."""
        while True:
            blanks = _BLANKS.match(self._held, self._place)
            assert blanks is not None
            self._place = blanks.end()
            if self._place < len(self._held) or not self._more():
                return self._held[self._place : self._place + 1]

    def _document(self) -> object:
        self._sign()
        while True:
            try:
                document, self._place = self._decode(self._held, self._place)
            except ValueError:
                if len(self._held) - self._place > MAX_DOCUMENT or not self._more():
                    raise
            else:
                return document

    def _more(self) -> bool:
        read = self._text.read(READ_CHARACTERS)
        self._held, self._place = self._held[self._place :] + read, 0
        return bool(read)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(members := dict(pairs)) < len(pairs):
        raise Twice
    return members


class _Yaml:
    """Reads a list in YAML event by event."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._next = _YAML(stream).get_event
        self._anchored: dict[str | None, object] = {}

    def documents(self) -> Iterator[object]:
        """Each, as soon as it is read."""
        self._next()  # the stream begins
        if isinstance(self._next(), yaml.StreamEndEvent) or not isinstance(self._next(), yaml.SequenceStartEvent):
            raise NoList
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield self._value(event)
        self._next()  # the document ends
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise ValueError

    def _value(self, event: Any) -> object:
        value: Any
        if isinstance(event, yaml.AliasEvent):
            return self._anchored[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            value = event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := self._next(), yaml.SequenceEndEvent):
                value.append(self._value(item))
        else:
            value = {}
            while not isinstance(name := self._next(), yaml.MappingEndEvent):
                known = self._value(name)
                if known in value:
                    raise Twice
                value[known] = self._value(self._next())
        if event.anchor is not None:
            self._anchored[event.anchor] = value
        return value
