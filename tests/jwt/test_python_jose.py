"""The use of python-jose: the used parts, their users, and its unused dependencies (docs/project/python-jose.md)."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = ("ecdsa", "pyasn1", "rsa", "six")
SEAM = Path("sidecar/jwt/jwks/algorithms.py")
USED = {
    "jose.jwk",
    "jose.backends.base.Key",
    "jose.backends.cryptography_backend.CryptographyECKey",
    "jose.backends.cryptography_backend.CryptographyRSAKey",
    "jose.exceptions.JOSEError",
}


def imported(file: Path) -> set[str]:
    """The full names of what a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_only_one_module_imports_python_jose() -> None:
    using = {
        file.relative_to(ROOT): found
        for file in (ROOT / "sidecar").rglob("*.py")
        if (found := {name for name in imported(file) if name.partition(".")[0] == "jose"})
    }
    assert using == {SEAM: USED}


@pytest.mark.parametrize("lock", ["requirements.txt", "deploy/requirements-otel.txt", "tests/requirements.txt"])
def test_unused_dependencies_of_python_jose_are_in_no_lock(lock: str) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
    assert "python-jose" in pinned
    assert not pinned & {*NOT_SHIPPED}


BLOCKED = f"""
import importlib, pkgutil, sys
for name in {NOT_SHIPPED}:
    sys.modules[name] = None  # an import of it is an ImportError
import sidecar
for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


@pytest.mark.skipif(find_spec("opentelemetry") is None, reason="tracing imports the extra otel")
def test_the_program_imports_without_the_unused_dependencies() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_the_unused_dependencies() -> None:
    used = [
        str(file.relative_to(ROOT))
        for folder in ("sidecar", "tests", "benchmarks", "deploy")
        for file in (ROOT / folder).rglob("*.py")
        if ".tools" not in file.parts and {name.partition(".")[0] for name in imported(file)} & {*NOT_SHIPPED}
    ]
    assert used == []
