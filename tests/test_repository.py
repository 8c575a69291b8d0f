"""The files of the repository: few names at the top, and nothing that depends on one machine."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = {
    *("pyproject.toml", "requirements.txt", "Makefile", "config.yaml", "config.minimal.yaml", ".gitignore"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"),
    *("sidecar", "tests", "deploy", "docs", "benchmarks", ".ci", ".github"),
}
LOCKS = [ROOT / "requirements.txt", ROOT / "tests/requirements.txt"]
ELSEWHERE = {
    "the address of a package registry": r"pypi\.(?:org|python)|pythonhosted|registry\.npmjs|rubygems\.org",
    "an option that names a package index": r"--(?:extra-)?index-url|--find-links|--trusted-host",
    "the place that a package came from": r'"resolved"\s*:',
    "a path of one machine": rf"(?<![\w.}}])/(?:root|home|Users|work|workspace)/|{re.escape(str(ROOT))}(?![\w.-])",
}


def files(directory: Path = ROOT, ignored: tuple[str, ...] = (".git",)) -> Iterator[Path]:
    """All files except those that a .gitignore excludes."""
    own = directory / ".gitignore"
    for pattern in own.read_text().splitlines() if own.exists() else []:
        pattern = pattern.rstrip("/")
        ignored += (f"{directory}/{pattern}" if "/" in pattern else pattern,)
    for path in sorted(directory.iterdir()):
        if not any(fnmatch(path.name, pattern) or fnmatch(str(path), pattern) for pattern in ignored):
            if path.is_dir():
                yield from files(path, ignored)
            else:
                yield path


def pinned(lock: Path) -> dict[str, str]:
    """Name -> version of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_top_level_has_only_the_listed_names() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in files()} <= TOP


def test_no_file_depends_on_one_machine_or_registry() -> None:
    found = [
        f"{file.relative_to(ROOT)} holds {what}: {match[0]}"
        for file in files()
        if file != Path(__file__)
        for what, pattern in ELSEWHERE.items()
        for match in re.finditer(pattern, file.read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "lock",
    [file for file in files() if fnmatch(file.name, "requirements*.txt")],
    ids=lambda lock: str(lock.relative_to(ROOT)),
)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    requirements = re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", lock.read_text(), flags=re.MULTILINE).strip())
    assert requirements
    assert [
        text for text in requirements if not re.match(r"[a-z0-9-]+==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", text)
    ] == []


def test_the_tests_run_with_the_shipped_versions() -> None:
    runtime, tests = (pinned(lock) for lock in LOCKS)
    assert runtime.items() <= tests.items()
