"""Reads YAML into plain values with their lines and columns.

Stricter than YAML 1.1: scalars are those of YAML 1.2's core schema (`on`, `yes`, `1:30` and `0123` are text), a key is text and
comes once, a file is one document, and there are no tags, anchors, aliases and empty values. `${VAR}` and `${VAR:-default}` are
replaced from the environment in parsed scalars, never in the text, so the content of a variable cannot become a list or a key.
`$$` is one `$`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""The path of a value: keys, and the numbers of list items from 0."""
Mark = tuple[int, int]
"""Line and column, from 1."""

MAX_DEPTH = 20  # the deepest key of the configuration is at 5; the parser is recursive
SHOWN_CHARACTERS = 40  # enough to find a value in the file

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|(?P<wrong>\{))")
# At most 18 digits: no setting needs more, and int() is slow for long ones.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NULLS = ("", "~", "null", "Null", "NULL")
_SURROGATE = re.compile("[\ud800-\udfff]")

# A part of PyYAML's message, whether to report the place where the construct began, and the sidecar's message.
_SYNTAX = (
    ("could not find expected ':'", True, "a key needs a ':' after it; write `key: value`"),
    ("mapping values are not", False, "a ':' is not allowed here; indent the keys of a block alike, quote a value with ': '"),
    ("'\\t' that cannot start", False, "a tab cannot indent in YAML; use spaces"),
    ("cannot start any token", False, "a value cannot begin with this character; put it in quotes"),
    ("sequence entries are not", False, "a '-' is not allowed here; begin each item of a list on a line of its own"),
    ("<block end>", False, "this does not match the lines above; indent the keys of a block alike, quote values like [a]b"),
    ("the node content", False, "a value is missing here; put one with any of : [ ] { } , in quotes"),
    ("<document start>", False, "this does not match the lines above; indent the keys of a block alike"),
    ("expected ',' or", False, "a ',' or the closing bracket is missing before this; in brackets ${VAR} needs quotes"),
    ("unexpected end of stream", True, "this quoted text is not closed"),
    ("escape", False, "this escape does not exist in double quotes; use single quotes for a plain backslash"),
    ("expected alphabetic or numeric", False, "a value that begins with * or & must be in quotes"),
    ("special characters", False, "a control character is not allowed here; write it as an escape in double quotes"),
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Problem:
    """One problem of the file: its place, the problem and the choices. Line 0: the whole file."""

    source: str
    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        if not self.line:
            return self.text
        where = f"{self.source}:{self.line}:{self.column}"
        return f"{where}: {self.path}: {self.text}" if self.path else f"{where}: {self.text}"


class Section(dict[str, object]):
    """A mapping of the file, through which problems below it are reported."""

    def __init__(self, source: "Source", path: Path) -> None:
        super().__init__()
        self.path = path
        self._source = source

    def report(self, text: str, *keys: str | int, at_key: bool = False) -> None:
        """Report a problem of the value at `keys` below this section, or of its key. `{input}` becomes the value as written."""
        self._source.report(text, (*self.path, *keys), at_key=at_key)

    def line(self, *keys: str | int) -> int:
        """The line of a key."""
        return self._source.mark((*self.path, *keys), at_key=True)[0]


class Source:
    """A parsed configuration file. `root` is made of Section, list, str, int, float and bool.

    A value that was reported is None; no other value is. `problems` grows during later checks.
    """

    def __init__(self, text: str, name: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self.problems: set[Problem] = set()
        self._environ = environ
        self._keys: dict[Path, Mark] = {(): (1, 1)}
        self._values: dict[Path, Mark] = {(): (1, 1)}
        self._shown: dict[Path, str] = {}
        self.root: object = None
        try:
            self._loader = yaml.SafeLoader(text)
            self.root = self._document()
        except _UnreadableError as error:
            self._add(error.mark, (), str(error))
        except yaml.reader.ReaderError as error:
            before = text[: error.position].split("\n")
            self._add((len(before), len(before[-1]) + 1), (), _in_our_words(str(error))[1])
        except yaml.MarkedYAMLError as error:
            from_start, words = _in_our_words(error.problem or "")
            self._add(
                _position(error.context_mark if from_start and error.context_mark else error.problem_mark), (), words
            )
        except (ValueError, OverflowError):  # PyYAML: "\UFFFFFFFF", and a version with thousands of digits
            self._add(_position(self._loader.get_mark()), (), _in_our_words("escape")[1])

    def report(self, text: str, path: Path, *, at_key: bool = False) -> None:
        """Add a problem at the nearest place in the file: a missing key is reported at the beginning of its section."""
        shown = self._shown.get(path, "this")
        self._add(self.mark(path, at_key=at_key), path, text.replace("{input}", shown))

    def mark(self, path: Path, *, at_key: bool) -> Mark:
        """The position of a value or its key; of the nearest section above if the file lacks it."""
        if path in self._values:
            return (self._keys if at_key else self._values)[path]
        while path not in self._keys:
            path = path[:-1]
        return self._keys[path]

    def _add(self, mark: Mark, path: Path, text: str) -> None:
        self.problems.add(Problem(self.name, *mark, _written(path), text))

    def _document(self) -> object:
        self._event()  # the stream's start
        if isinstance(self._event(), yaml.StreamEndEvent):
            return None
        root = self._node(self._event(), ())
        self._event()  # the document's end
        further = self._event()
        if not isinstance(further, yaml.StreamEndEvent):
            self._add(_position(further.start_mark), (), "a second document begins here; the file may hold only one")
        return root

    def _node(self, event: Any, path: Path) -> object:
        """Parse the value that begins with `event`."""
        mark = _position(event.start_mark)
        key_mark = self._keys.setdefault(path, mark)
        scalar = isinstance(event, yaml.ScalarEvent | yaml.AliasEvent)
        # A list or mapping may begin lines below its key, so the key is the better place.
        self._values[path] = mark if scalar else key_mark
        if len(path) > MAX_DEPTH:
            raise _UnreadableError(mark, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            self.report("aliases are not allowed; write the value out, or quote it if it begins with a *", path)
            return None
        if event.anchor is not None:
            self.report("anchors are not allowed; quote the value if it begins with an &", path)
        value: object
        if scalar:
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._shown[path] = "a list"
            value = self._items(path)
        else:
            self._shown[path] = "a mapping"
            value = self._section(path)
        if event.tag is not None:
            self.report("tags are not allowed; quote the value if it begins with a !", path)
            return None
        return value

    def _event(self) -> Any:
        return self._loader.get_event()  # type: ignore[no-untyped-call]

    def _items(self, path: Path) -> list[object]:
        items: list[object] = []
        while not isinstance(event := self._event(), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _section(self, path: Path) -> Section:
        section = Section(self, path)
        while not isinstance(event := self._event(), yaml.MappingEndEvent):
            mark = _position(event.start_mark)
            key = self._key(event, path)
            if key is not None and key not in section:
                self._keys[(*path, key)] = mark
                section[key] = self._node(self._event(), (*path, key))
                continue
            if key is not None:
                self._add(
                    mark, (*path, key), f"given twice; remove one (the first is on line {self._keys[(*path, key)][0]})"
                )
            self._skip(self._event())
        return section

    def _key(self, event: Any, path: Path) -> str | None:
        """Parse the key that begins with `event`; report an invalid one and return None."""
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            self._skip(event)
            text = "a key must be plain text, without tag, anchor or alias"
        elif event.style is not None or isinstance(_typed(event.value), str):
            return str(event.value)
        elif event.value:
            text = f"the key {event.value!r} is not text; put it in quotes"
        else:
            text = "a key is missing before the ':'"
        self._add(_position(event.start_mark), path, text)
        return None

    def _skip(self, event: Any) -> None:
        """Skip the value that begins with `event`."""
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return
            event = self._event()

    def _scalar(self, event: yaml.ScalarEvent, path: Path) -> object:
        text = self._replaced(event.value, path)
        if text is None:
            return None
        # Only plain scalars have a type; a quoted scalar is text, also after a variable was replaced.
        value = _typed(text) if event.style is None else text
        written = event.value if len(event.value) <= SHOWN_CHARACTERS else event.value[:SHOWN_CHARACTERS] + "..."
        # As written, so that no message shows the content of a variable.
        self._shown[path] = repr(written) if isinstance(value, str) else written
        if value is None:
            self.report("has no value; give it one, or leave the key out", path)
        if _SURROGATE.search(text):
            self.report("is not Unicode text: it holds half of a surrogate pair; remove it", path)
            return None
        return value

    def _replaced(self, text: str, path: Path) -> str | None:
        """The text with its variables replaced; None if one is unknown."""
        good = True

        def value(match: re.Match[str]) -> str:
            nonlocal good
            name, default = match["name"], match["default"]
            if match["wrong"]:
                good = False
                self.report(
                    "'${' begins a variable; write ${NAME} or ${NAME:-default}, or $${ for the characters themselves",
                    path,
                )
            elif name is None:
                return "$"
            elif default is not None:
                return self._environ.get(name) or default  # as in a shell: the default also replaces an empty variable
            elif name in self._environ:
                return self._environ[name]
            else:
                good = False
                self.report(
                    f"the environment has no variable {name}; set it, or give a default: ${{{name}:-...}}", path
                )
            return ""

        replaced = _VARIABLE.sub(value, text)
        return replaced if good else None


class _UnreadableError(Exception):
    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark = mark


def _typed(text: str) -> object:
    """A plain scalar's value by the core schema (YAML 1.2 section 10.3.2); `0123`, `.inf` and `.nan` stay text."""
    if text in NULLS:
        return None
    if text in WORDS:
        return WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def _position(mark: Any) -> Mark:
    return mark.line + 1, mark.column + 1  # PyYAML counts from 0


def _in_our_words(problem: str) -> tuple[bool, str]:
    """Whether to report the place where the construct began, and the message."""
    for theirs, from_start, ours in _SYNTAX:
        if theirs in problem:
            return from_start, ours
    return False, "this is not valid YAML"


def _written(path: Path) -> str:
    return ".".join(part if isinstance(part, str) and part.isprintable() and part else repr(part) for part in path)
