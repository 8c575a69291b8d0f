"""The arrows between the modules of the house, read from their imports."""

import ast
from pathlib import Path

import pytest

import sidecar

PACKAGE = Path(sidecar.__file__).parent
FILES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}

COMMANDS = {"dev", "drain", "check", "importing", "keys_command"}
"""What serves one command only, by its name."""
PURE_RULES = {
    f"sidecar.{name}"
    for name in ("path_pattern", "routes", "bearer", "jws", "claims", "conditions", "policy", "identity")
}
"""Rules without a socket, a clock or a loop: what they answer depends on what they are given, and on nothing else."""
WORLD = {"aiohttp", "asyncio", "datetime", "socket", "ssl", "threading", "time", "uvloop"}


def imported(source: str) -> set[str]:
    """The full names of the modules that a source imports, wherever in it. All imports here are absolute."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            names |= submodules or {node.module}
    return names


class WithoutTypes(ast.NodeTransformer):
    """Takes out what only a type checker reads: two modules may name each other's types."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def ours(names: set[str]) -> set[str]:
    return (names & FILES.keys()) - {"sidecar"}


SOURCES = {name: file.read_text() for name, file in FILES.items()}
IMPORTS = {name: imported(source) for name, source in SOURCES.items()}
OURS = {name: ours(names) for name, names in IMPORTS.items()}
HTTP = {name for name in FILES if name.startswith("sidecar.http.")}
OURS_AT_RUN_TIME = {
    name: ours(imported(ast.unparse(WithoutTypes().visit(ast.parse(source))) or "pass"))
    for name, source in SOURCES.items()
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from aiohttp import web", {"aiohttp"}),
        ("from sidecar import claims, clock", {"sidecar.jwt.claims", "sidecar.common.clock"}),
        ("from sidecar.http.responses import Form", {"sidecar.http.responses"}),
        ("def f():\n    import time", {"time"}),
    ],
)
def test_every_form_of_import_is_read(source: str, expected: set[str]) -> None:
    assert imported(source) == expected


def test_nothing_imports_the_command_line() -> None:
    assert importers("sidecar.__main__") == set()


def test_only_commands_import_the_composition_root() -> None:
    assert importers("sidecar.server") <= {"__main__", *COMMANDS}


def test_only_the_command_line_imports_what_serves_one_command() -> None:
    commands = [module for module in OURS if area(module) in COMMANDS]
    assert set().union(*(importers(module) - {area(module)} for module in commands)) <= {"__main__"}


def test_configuration_knows_no_module_but_its_own_parts() -> None:
    """And what reads a pattern, which refuses one that takes too long."""
    assert {area(module).partition("_")[0] for module in reachable("sidecar.config", OURS)} <= {
        "config",
        "yaml",
        "path",
    }


def test_errors_know_no_other_module() -> None:
    assert OURS["sidecar.common.errors"] == set()


def test_http_knows_no_module_but_what_is_common() -> None:
    assert HTTP
    assert {area(far) for name in HTTP for far in OURS[name]} <= {"http", "common"}


@pytest.mark.parametrize("name", sorted(PURE_RULES | HTTP))
def test_the_rules_are_pure(name: str) -> None:
    outside = {f"{near} imports {far}" for near in reachable(name, OURS) for far in IMPORTS[near] if top(far) in WORLD}
    assert outside == set()
    assert [node.name for node in ast.walk(ast.parse(SOURCES[name])) if isinstance(node, ast.AsyncFunctionDef)] == []


def test_no_module_imports_itself_through_others() -> None:
    circles = [
        name
        for name, near in OURS_AT_RUN_TIME.items()
        if any(name in reachable(module, OURS_AT_RUN_TIME) for module in near)
    ]
    assert circles == []


def area(module: str) -> str:
    """`proxy` for sidecar.proxy, `dev` for sidecar.dev and everything in it, nothing for sidecar itself."""
    return module.removeprefix("sidecar").lstrip(".").partition(".")[0]


def top(module: str) -> str:
    return module.partition(".")[0]


def importers(module: str) -> set[str]:
    """The areas of the modules that import one."""
    return {area(name) for name, near in OURS.items() if module in near}


def reachable(module: str, imports: dict[str, set[str]]) -> set[str]:
    """The module and everything of ours that it imports, directly or through others."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imports[name]
    return seen
