"""The documents of a list in a file, one after another: a list of a million never stands in memory as a whole."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml

READ_CHARACTERS = 65_536  # at a time
MAX_DOCUMENT = 65_536  # characters of one that is read whole, in JSON

# libyaml's is far quicker, where PyYAML was built with it. Each takes every scalar for text, so that a jti of digits is one.
_YAML = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_BLANKS = re.compile(r"[ \t\r\n]*+")


class NoList(Exception):
    """The file holds something else than a list."""


def documents(path: Path) -> Iterator[object]:
    """Those of a list: in JSON if the file's name ends so, else in YAML. Raises NoList, OSError, or whatever the parsers do."""
    if path.suffix == ".json":
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield from _Json(text).documents()
    else:
        with path.open("rb") as stream:
            yield from _Yaml(stream).documents()


class _Json:
    """A list in JSON, read a piece at a time."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._held = ""
        self._place = 0
        self._decode = json.JSONDecoder().raw_decode

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
        """The next character that is no blank, which stays the next one; empty at the end."""
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


class _Yaml:
    """A list in YAML, read event by event."""

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
                value[known] = self._value(self._next())
        if event.anchor is not None:
            self._anchored[event.anchor] = value
        return value
