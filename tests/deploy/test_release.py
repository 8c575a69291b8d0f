"""The requirements of a release: one version everywhere, a changelog, and workflows without secrets."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import Tool
from tests.deploy.version import PLACES, ROOT, VERSION, missing

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize(("place", "pattern", "value"), PLACES)
def test_every_place_has_the_version_and_addresses_of_the_package(place: str, pattern: str, value: str) -> None:
    assert set(re.findall(pattern, (ROOT / place).read_text())) == {value}, "python -m tests.deploy.version"


def test_each_version_of_the_changelog_has_a_date() -> None:
    headings = re.findall(r"^## (.+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [heading for heading in headings if heading != "[Unreleased]"]
    assert re.fullmatch(rf"\[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d", versions[0])
    assert [heading for heading in versions if not re.fullmatch(r"\[[\d.]+\] - \d{4}-\d\d-\d\d", heading)] == []


RELEASE = {
    "tag": "v1.2.0",
    "version": "1.2.0",
    "addresses": "https://forge.test/we/jwt-sidecar",
    "changelog": "## [1.2.0] - 2030-01-31",
}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"tag": "v1.2.1"}, "The tag is v1.2.1, the version in pyproject.toml is 1.2.0."),
        (
            {"changelog": "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2030-01-31"},
            "CHANGELOG.md begins with '## [Unreleased]'. Write ## [1.2.0] - and the date.",
        ),
        (
            {"changelog": "## [1.2.0] - Unreleased"},
            "CHANGELOG.md begins with '## [1.2.0] - Unreleased'. Write ## [1.2.0] - and the date.",
        ),
        (
            {"addresses": "https://github.com/YOUR-ORGANISATION/jwt-sidecar"},
            "pyproject.toml names no owner. Replace YOUR-ORGANISATION, then run python -m tests.deploy.version.",
        ),
    ],
)
def test_an_incomplete_release_is_reported(changed: dict[str, str], problem: str) -> None:
    assert missing(**RELEASE) == []
    assert missing(**RELEASE | changed) == [problem]


def test_a_version_of_the_changelog_has_each_section_once() -> None:
    for version in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        sections = re.findall(r"^### (\w+)", version, re.MULTILINE)
        assert len(sections) == len(set(sections)), version[:20]


def test_one_place_names_the_owner() -> None:
    """YOUR-ORGANISATION is to be replaced before the first release, in pyproject.toml; SECURITY.md gets a copy."""
    texts = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")]
    texts += [file for folder in ("deploy", "docs", ".github") for file in (ROOT / folder).rglob("*") if file.is_file()]
    holding = {
        str(file.relative_to(ROOT)): len(lines)
        for file in texts
        if (lines := re.findall(r"\bYOUR-ORGANISATION\b", file.read_text(errors="replace")))
    }
    assert holding.keys() <= {"pyproject.toml", "SECURITY.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_installs_an_unpublished_package_or_image(page: Path) -> None:
    assert not re.search(r"pip install (?:-\S+ )*['\"]?jwt-sidecar", page.read_text())
    assert not re.search(r"(?:docker|podman) (?:run|pull) [^\n]*\bghcr\.io", page.read_text())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_runs_fixed_versions_with_the_least_rights(file: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "permissions" in job
        for step in job["steps"]:
            used = step.get("uses", "")
            assert not used or re.fullmatch(r"[\w./-]+@v\d+(?:\.\d+)*", used), used
            for options in re.findall("pip install (.*)", step.get("run", "")):
                assert "--require-hashes" in options, options
    secrets = set(re.findall(r"secrets\.(\w+)", file.read_text()))
    assert secrets <= {"GITHUB_TOKEN"}


def test_actionlint_finds_nothing(tool: Tool) -> None:
    assert WORKFLOWS
    assert tool("actionlint", *map(str, WORKFLOWS)) == ""


def test_the_bounds_of_aiohttp_begin_at_the_tested_version() -> None:
    [pinned] = re.findall(r"^aiohttp==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    major, minor, _ = pinned.split(".")
    bounds = f'"aiohttp>={pinned},<{major}.{int(minor) + 1}"'
    assert bounds in (ROOT / "pyproject.toml").read_text()
