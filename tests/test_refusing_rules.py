"""docs/project/refusing-rules.md names a test for each rule that was taken out: it has to be there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "project" / "refusing-rules.md").read_text()


def test_every_test_that_is_named_is_there() -> None:
    there = {name for file in TESTS.rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 80
    assert {name for name in named if not any(one.startswith(name) for one in there)} == set()


def test_every_file_that_is_named_is_there() -> None:
    assert all((TESTS.parent / file).exists() for file in re.findall(r"tests/[\w/]+\.py", PAGE))
