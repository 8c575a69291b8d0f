"""Names that begin with `_` are private: the sidecar uses no private attribute of any library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sidecar

PACKAGE = Path(sidecar.__file__).parent
SOURCES = {file.relative_to(PACKAGE).as_posix(): file.read_text() for file in sorted(PACKAGE.rglob("*.py"))}
PUBLIC = {"_replace", "_asdict", "_fields", "_exit"}
"""Public in spite of the `_`: the first three of named tuples, the last of `os`."""
Classes = dict[str, ast.ClassDef]


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def attributes(node: ast.AST) -> Iterator[ast.Attribute]:
    """The private attributes used anywhere in a source."""
    return (one for one in ast.walk(node) if isinstance(one, ast.Attribute) and private(one.attr))


def of_self(attribute: ast.Attribute) -> bool:
    return isinstance(attribute.value, ast.Name) and attribute.value.id in ("self", "cls")


def of_super(attribute: ast.Attribute) -> bool:
    return ast.unparse(attribute.value) == "super()"


def made_by(one: ast.ClassDef) -> set[str]:
    """The attributes that a class defines: methods, names in its body, and assignments to self."""
    names = {node.name for node in one.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {
        node.id for line in one.body for node in ast.walk(line) if isinstance(line, ast.Assign | ast.AnnAssign)
        if isinstance(node, ast.Name)
    }  # fmt: skip
    return names | {each.attr for each in attributes(one) if of_self(each) and isinstance(each.ctx, ast.Store)}


def classes_of(sources: dict[str, str]) -> Classes:
    return {
        node.name: node
        for source in sources.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def inherited_by(one: ast.ClassDef, classes: Classes) -> set[str]:
    """The attributes that base classes of the sidecar define."""
    bases = [classes[name] for base in one.bases if (name := ast.unparse(base).partition("[")[0]) in classes]
    return set().union(*(made_by(base) | inherited_by(base, classes) for base in bases))


def strange(sources: dict[str, str]) -> set[str]:
    """The uses of private attributes and names that the sidecar does not define."""
    classes = classes_of(sources)
    ours = set().union(*map(made_by, classes.values()))
    found: set[str] = set()
    for file, source in sources.items():
        tree = ast.parse(source)
        for one in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            inherited = inherited_by(one, classes)
            known = made_by(one) | inherited
            found |= {
                f"{file}: {ast.unparse(each)}" for each in attributes(one) if of_self(each) and each.attr not in known
            }
            found |= {
                f"{file}: {ast.unparse(each)}"
                for each in attributes(one)
                if of_super(each) and each.attr not in inherited
            }
        for each in attributes(tree):
            if not of_self(each) and not of_super(each) and each.attr not in ours:
                found.add(f"{file}: {ast.unparse(each)}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("sidecar"):
                found |= {f"{file}: {node.module}.{name.name}" for name in node.names if private(name.name)}
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            "class A(web.Server):\n def f(self): return self._loop",
            {"a: self._loop"},
            id="from a base class of a library",
        ),
        pytest.param("class A(web.Server):\n def f(self): self._a = 1; self._a", set(), id="its own attribute"),
        pytest.param(
            "class A(B):\n def f(self): self._a\nclass B:\n def _a(self): pass", set(), id="from a base class of ours"
        ),
        pytest.param("class A:\n _a = 1\n def f(self): self._a", set(), id="from the class body"),
        pytest.param("class A(B):\n def _f(self): super()._f()", {"a: super()._f"}, id="overridden, through super()"),
        pytest.param("def f(thing): thing._kwargs", {"a: thing._kwargs"}, id="of an object of a library"),
        pytest.param("class A:\n def f(self): self._a = 1\ndef f(a): a._a", set(), id="of another object of ours"),
        pytest.param("from aiohttp.connector import _SSL", {"a: aiohttp.connector._SSL"}, id="imported"),
        pytest.param("def f(point): point._replace(x=1).__class__", set(), id="documented despite the underscore"),
    ],
)
def test_private_attributes_of_libraries_are_found(source: str, expected: set[str]) -> None:
    assert strange({"a": source}) == expected


def test_no_private_attribute_of_a_library_is_used() -> None:
    assert strange(SOURCES) == set()
