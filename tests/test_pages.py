"""The pages of docs/: every configuration on them loads, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from sidecar.config import parse

ROOT = Path(__file__).parent.parent
OURS = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")]
PAGES = sorted(page for page in OURS if "node_modules" not in page.parts)
WHOLE = [
    pytest.param(page, text, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
    if re.search(r"^issuers:", text, re.MULTILINE) and re.search(r"^upstreams?:", text, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "text"), WHOLE)
def test_every_whole_configuration_loads(page: Path, text: str) -> None:
    parse(text, f"{page.name}", environ={}, base=ROOT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
