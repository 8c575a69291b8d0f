"""The reference of the configuration for people, docs/reference/configuration.md, made from its JSON Schema."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.command_line import command_line
from sidecar.config import json_schema

Schema = dict[str, Any]

_HEAD = """\
# Configuration reference

This page has every key. It is made from the schema of the file (`python -m docs.reference`). [config.yaml](../../config.yaml)
shows every key with its default and the reason for it. [Rules](../how/rules.md), [issuers](../how/choose-an-issuer.md) and
[headers](headers.md) have examples. `jwt-sidecar check -c FILE` names every problem of a file, with line and column.

Durations are written `500ms`, `60s`, `5m` or `1h`. Relative paths of files begin at the directory of the configuration. `${NAME}`
and `${NAME:-default}` in a value are replaced from the environment. **Bold** keys have no default and must be there.
"""


def reference(schema: Schema) -> str:
    """Markdown: a table of keys for each mapping of the file, in the order in which the file has them."""
    sections = schema["$defs"]
    places: dict[str, str] = {}
    _place(schema, "", sections, places)
    tables = [_table("The whole file", schema, places)]
    tables += [_table(f"`{places[name]}`", sections[name], places) for name in places]
    return "\n".join([_HEAD, *tables])


def _place(section: Schema, path: str, sections: dict[str, Schema], places: dict[str, str]) -> None:
    """Note for each kind of mapping where the file has it first."""
    for key, entry in section.get("properties", {}).items():
        for name, below in _referred(entry):
            if name not in places:
                places[name] = f"{path}{key}{below}"
                _place(sections[name], f"{places[name]}.", sections, places)


def _referred(entry: Schema, below: str = "") -> Iterator[tuple[str, str]]:
    """The kinds of mappings that a value may be or hold, each with what stands for its key or number."""
    if "$ref" in entry:
        yield entry["$ref"].rpartition("/")[2], below
    for choice in entry.get("anyOf", []):
        yield from _referred(choice, below)
    if isinstance(inner := entry.get("additionalProperties"), dict):
        yield from _referred(inner, f"{below}.NAME")
    if "items" in entry:
        yield from _referred(entry["items"], f"{below}[]")


def _table(title: str, section: Schema, places: dict[str, str]) -> str:
    required = section.get("required", [])
    rows = [
        f"| {f'**`{key}`**' if key in required else f'`{key}`'} | {_cell(entry.get('description', ''))} "
        f"| {_kind(entry, places)} | {_default(entry)} |"
        for key, entry in section["properties"].items()
    ]
    return "\n".join(
        [
            f"## {title}",
            "",
            section["description"],
            "",
            "| key | | value | default |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _kind(entry: Schema, places: dict[str, str]) -> str:
    """What a value may be, in a few words."""
    if "$ref" in entry:
        place = places[entry["$ref"].rpartition("/")[2]]
        anchor = "".join(char for char in place.lower() if char.isalnum() or char in "_-")
        return f"[`{place}`](#{anchor})"
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(_kind(choice, places) for choice in entry["anyOf"]))
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{choice}`" for choice in entry["enum"])
    match entry["type"]:
        case "array":
            return f"list of {_kind(entry['items'], places)}"
        case "object":
            inner = entry.get("additionalProperties")
            if isinstance(inner, dict):
                return f"NAME: {_kind(inner, places)}"
            return " ".join(["mapping", *[f"`{key}`" for key in entry.get("properties", {})]])
        case "integer":
            return f"number from {entry['minimum']}"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "duration" if "(ms|s|m|h)" in entry.get("pattern", "") else "text"
        case kinds:
            return ", ".join(kinds)


def _default(entry: Schema) -> str:
    default = entry.get("default")
    if default in (None, {}, []):
        return ""
    return f"`{_cell(_written(default))}`"


def _written(value: object) -> str:
    """A value as one line of YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_written(inner)}' for key, inner in value.items())}}}"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    schema = json_schema()
    here = Path(__file__).parent
    (here / "config.schema.json").write_text(json.dumps(schema, indent=2) + "\n")
    (here / "reference" / "configuration.md").write_text(reference(schema) + "\n")
    (here / "reference" / "cli.md").write_text(command_line())
