"""`jwt-sidecar import envoy|istio FILE`: prints a configuration, with comments about settings without an equivalent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sidecar.cli.convert.envoy import envoy
from sidecar.cli.convert.istio import istio
from sidecar.cli.convert.reading import Imported, NotUnderstood
from sidecar.config import ConfigError, parse
from sidecar.config.yaml_source import NULLS, WORDS

MAX_VALUES = 1_000_000  # aliases of aliases are written out, so a short file can stand for too many values
_TAG_NAMES = ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge", "value")
_TAGS = {f"tag:yaml.org,2002:{tag}" for tag in _TAG_NAMES}


def imported(program: str, file: str) -> Imported:
    """Convert a file of `envoy` or `istio`. Raises NotUnderstood, OSError."""
    try:
        documents = _documents(Path(file).read_bytes())
        result = istio(documents) if program == "istio" else envoy(documents)
        result.text(file)  # a key set in it can be too deep as well
    except RecursionError:
        raise NotUnderstood("it is nested too deeply, or an alias in it contains itself") from None
    return result


def problems_of(text: str) -> list[str]:
    """The problems of the printed configuration: the other program may allow values that the sidecar does not."""
    try:
        parse(text, "the printed configuration", environ={})
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def _documents(content: bytes) -> list[object]:
    """Parse the file into mappings, lists, texts and booleans. Numbers stay text: `0123` and `1e3` are as written."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotUnderstood(f"it is not UTF-8 text (line {content.count(10, 0, error.start) + 1})") from None
    try:
        return [json.loads(text, object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=str)]
    except ValueError:
        pass
    try:
        budget = iter(range(MAX_VALUES))
        return [_value(node, budget) for node in yaml.compose_all(text, yaml.SafeLoader)]
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise NotUnderstood(f"it is neither YAML nor JSON{line}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise NotUnderstood(f"{twice!r} is given twice in one object")
    return found


def _value(node: yaml.Node, budget: Iterator[int]) -> object:
    if next(budget, None) is None:
        raise NotUnderstood(f"its aliases expand to more than {MAX_VALUES} values; write them out")
    line = node.start_mark.line + 1
    if node.tag not in _TAGS:
        raise NotUnderstood(f"a value has the tag {node.tag} (line {line})")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, budget) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise NotUnderstood(f"a key is a list or a mapping (line {key.start_mark.line + 1})")
            if key.value in found:
                raise NotUnderstood(f"{key.value!r} is given twice (line {key.start_mark.line + 1})")
            found[key.value] = _value(value, budget)
        return found
    assert isinstance(node, yaml.ScalarNode)
    if node.style is not None:
        return node.value
    return None if node.value in NULLS else WORDS.get(node.value, node.value)
