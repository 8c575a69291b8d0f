"""The arrows between the folders (docs/understand/architecture.md), read from every import, also those for types only.

And the size of the files.
"""

import ast
from pathlib import Path

import pytest

import sidecar

FOLDERS = ("common", "http", "jwt", "policy", "gateway", "observability", "proxy", "app", "cli", "__main__")
"""Each imports itself and those before it. Besides, `config` imports `common`, and is read by READERS only."""
READERS = ("app", "cli")
PURE = (
    *("common.path_pattern", "http", "jwt.token_extractor", "jwt.compact_jws", "jwt.claims"),
    *("policy.routes", "policy.access_policy", "policy.claim_conditions", "policy.identity_headers"),
)
"""The results of these modules depend on their arguments only."""
MOST_LINES = 300  # of a file: a longer one holds more than one idea
WORLD = {"aiohttp", "asyncio", "datetime", "socket", "ssl", "threading", "time", "uvloop"}

Imports = dict[str, set[str]]

PACKAGE = Path(sidecar.__file__).parent
SOURCES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): file.read_text()
    for file in sorted(PACKAGE.rglob("*.py"))
}
"""By the name within the package: `jwt.claims`; a folder is its `__init__`."""


def imported(source: str) -> set[str]:
    """The full names of all imports anywhere in a source; of `from a import b` both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def ours(names: set[str]) -> set[str]:
    """The names that are modules of the sidecar. A folder is left out if one of its modules is imported."""
    found = {name.removeprefix("sidecar.") for name in names if name.startswith("sidecar.")} & SOURCES.keys()
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def folder(module: str) -> str:
    return module.partition(".")[0]


def may_import(near: str, far: str) -> bool:
    if near == "config":
        return far in ("config", "common")
    if far == "config":
        return near in READERS
    return FOLDERS.index(far) <= FOLDERS.index(near)


def wrong_arrows(imports: Imports) -> list[str]:
    return [
        f"{near} imports {far}"
        for near, fars in imports.items()
        for far in sorted(fars)
        if not may_import(folder(near), folder(far))
    ]


def reachable(module: str, imports: Imports) -> set[str]:
    """All that a module imports, directly or through others."""
    seen: set[str] = set()
    waiting = [*imports[module]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imports[name]
    return seen


def in_circles(imports: Imports) -> list[str]:
    return [module for module in imports if module in reachable(module, imports)]


ALL = {name: imported(source) for name, source in SOURCES.items() if name}
OURS = {name: ours(names) for name, names in ALL.items()}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import sidecar.jwt.claims, json", {"jwt.claims"}),
        ("from sidecar.jwt import claims", {"jwt.claims"}),
        ("from sidecar.jwt.claims import Claims", {"jwt.claims"}),
        ("from sidecar import config", {"config"}),
        ("def f():\n    from sidecar.config import Config", {"config"}),
        ("if TYPE_CHECKING:\n    from sidecar.proxy.handler import Handler", {"proxy.handler"}),
    ],
)
def test_every_form_of_import_is_read(source: str, expected: set[str]) -> None:
    assert ours(imported(source)) == expected


@pytest.mark.parametrize(
    ("near", "far"),
    [
        ("http.framing", "jwt.claims"),
        ("proxy.handler", "config.route"),
        ("config.route", "http.framing"),
        ("app", "cli"),
    ],
)
def test_an_import_against_the_arrows_is_found(near: str, far: str) -> None:
    assert wrong_arrows({near: {far}}) == [f"{near} imports {far}"]


def test_a_circle_is_found() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_every_module_lies_in_a_folder() -> None:
    assert {folder(name) for name in OURS} == {*FOLDERS, "config"}


def test_imports_follow_the_arrows() -> None:
    assert wrong_arrows(OURS) == []


def test_no_module_imports_itself_through_others() -> None:
    assert in_circles(OURS) == []


@pytest.mark.parametrize("name", [name for name in OURS if folder(name) in PURE or name in PURE])
def test_the_rules_are_pure(name: str) -> None:
    near = {name, *reachable(name, OURS)}
    assert {f"{one} imports {far}" for one in near for far in ALL[one] if folder(far) in WORLD} == set()
    assert [node.name for node in ast.walk(ast.parse(SOURCES[name])) if isinstance(node, ast.AsyncFunctionDef)] == []


def test_no_file_exceeds_the_limit_of_lines() -> None:
    assert {name: lines for name, source in SOURCES.items() if (lines := source.count("\n")) > MOST_LINES} == {}
