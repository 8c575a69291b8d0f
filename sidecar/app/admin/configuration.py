"""The configuration without secrets, and the problems of a changed file that was refused.

A configuration may hold a secret in any place. So the page never shows: values of `jwks_headers`, credentials and queries in
URLs, defaults of variables, anything that looks like a token, comments, and the values on a line with a problem.
"""

import re
from collections.abc import Iterator, Set
from typing import Any

import yaml

from sidecar.app.state import ConfigurationFile
from sidecar.common.clock import iso_time
from sidecar.common.masking import without_tokens
from sidecar.config import Config

HIDDEN = "***"
SECRET = frozenset({"jwks_headers"})  # keys with secret values

_CREDENTIALS = re.compile(r"(://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^?#\s]*\?)[^\s\"']+")
_DEFAULT = re.compile(r"(\$\{\w+:-)[^{}]*")
_COMMENT = re.compile(r"#.*")


def configuration(config: Config, file: ConfigurationFile) -> dict[str, Any]:
    """The configuration in use, and under `refused` a changed file that was refused, with its problems."""
    refused = file.refused
    return {
        "file": None if file.path is None else str(file.path),
        "hash": config.digest,
        "loaded_at": iso_time(file.loaded_at),
        "restart_needed": file.restart_needed,
        "lines": shown(config.written),
        "refused": None
        if refused is None
        else {
            "at": iso_time(refused.at),
            "problems": [
                {name: getattr(problem, name) or None for name in ("line", "column", "path", "text")}
                for problem in refused.problems
            ],
            "lines": shown(refused.text, {problem.line for problem in refused.problems}),
        },
    }


def shown(text: str, wrong: Set[int] = frozenset()) -> list[str]:
    """The lines of a file without possible secrets; `wrong` are lines with a problem. Empty for a file that is not YAML."""
    try:
        values = sorted(_values(yaml.compose(text, Loader=yaml.SafeLoader), "value", set()))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return []
    parts = []
    at = 0
    for begin, end, kind in values:
        parts.append(_COMMENT.sub("", text[at:begin]))  # no other text between two values
        value = text[begin:end]
        first = text.count("\n", 0, begin) + 1
        lines = range(first, first + value.count("\n") + 1)
        if kind == "secret" or (kind == "value" and wrong & {*lines}):
            parts.append(HIDDEN + "\n" * value.count("\n"))
        else:
            parts.append(_without_secrets(value))
        at = end
    parts.append(_COMMENT.sub("", text[at:]))
    return [line.rstrip() for line in "".join(parts).splitlines()]


def _values(node: Any, kind: str, seen: set[int]) -> Iterator[tuple[int, int, str]]:
    """The positions of the scalars and their kind: key, value or secret. Each aliased node is visited once."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _values(key, "key", seen)
            secret = isinstance(key, yaml.ScalarNode) and key.value in SECRET
            yield from _values(value, "secret" if secret else kind, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _values(item, kind, seen)
    else:
        yield node.start_mark.index, node.end_mark.index, kind


def _without_secrets(value: str) -> str:
    value = _CREDENTIALS.sub(rf"\1{HIDDEN}@", value)
    value = _QUERY.sub(rf"\1{HIDDEN}", value)
    return without_tokens(_DEFAULT.sub(rf"\1{HIDDEN}", value))
