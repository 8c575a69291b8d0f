"""docs/project/proofs.md: its commands and modules exist, and so do the tests that proofs/refusing_rules.csv names."""

import csv
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "project" / "proofs.md").read_text()
RULES = list(csv.DictReader((TESTS / "proofs" / "refusing_rules.csv").read_text().splitlines()))


def test_every_named_test_exists() -> None:
    there = {name for file in TESTS.rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    named = {name for rule in RULES for name in rule["tests"].split()}
    assert named - there == set()


def test_every_named_module_exists() -> None:
    modules = {rule["module"] for rule in RULES}
    assert {name for name in modules if not (TESTS.parent / "sidecar" / f"{name}.py").exists()} == set()


def test_every_command_on_the_page_exists() -> None:
    makefile = (TESTS.parent / "Makefile").read_text()
    targets = {word for line in re.findall(r"^([\w -]+):", makefile, re.MULTILINE) for word in line.split()}
    assert set(re.findall(r"`make ([\w-]+)", PAGE)) <= targets
    programs = re.findall(r"`python -m tests\.proofs\.(\w+)", PAGE)
    assert [name for name in programs if not (TESTS / "proofs" / f"{name}.py").exists()] == []


def test_every_file_that_judges_a_mutant_exists() -> None:
    files = set(re.findall(r"[\w/]*\btest_\w+\.py", (TESTS / "proofs" / "mutation.py").read_text()))
    assert {name for name in files if not (TESTS / name).exists()} == set()
    assert files


def test_every_mutated_module_on_the_page_exists() -> None:
    modules = re.findall(r"^\| `([\w/]+)` \|", PAGE, re.MULTILINE)
    assert modules
    assert [name for name in modules if not (TESTS.parent / "sidecar" / f"{name}.py").exists()] == []
