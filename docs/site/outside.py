"""Brings files outside docs/ into the site: each file that a page links to becomes a page below repository/.

A page of Markdown stays one. Any other text becomes a page that shows it. A picture is copied. A link to a folder leads to its
README.md; without one only the link's text remains.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(((?!https?:|mailto:|#)[^)#\s]+)(#[^)\s]*)?\)")
PICTURES = {".png", ".svg"}
HIGHLIGHTED = {"yml": "yaml", "conf": "nginx", "ru": "ruby", "mjs": "js", "Dockerfile": "docker"}
LISTED = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config.yaml", "deploy/examples/README.md")  # in mkdocs.yml


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    waiting = [*(ROOT / name for name in LISTED), *(target for page in pages for target in targets(page))]
    done = set()
    while waiting:
        target = waiting.pop()
        if target in done or target.is_relative_to(DOCS):
            continue
        done.add(target)
        if target.suffix in PICTURES:
            files.append(File.generated(config, uri(target), abs_src_path=str(target)))
        else:
            level = InclusionLevel.INCLUDED if str(target.relative_to(ROOT)) in LISTED else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, uri(target), content=shown(target), inclusion=level))
            waiting += targets(target) if target.suffix == ".md" else ()
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    here = page.file.src_uri
    source = ROOT / here.removeprefix("repository/") if here.startswith("repository/") else DOCS / here

    def link(match: re.Match[str]) -> str:
        picture, text, path, fragment = match.groups()
        target = resolved(source, path)
        if target is None:
            return text if (source.parent / path).exists() else match[0]
        to = os.path.relpath(uri(target), os.path.dirname(here))
        return f"{picture}[{text}]({to}{fragment or ''})"

    return LINK.sub(link, markdown)


def targets(page: Path) -> list[Path]:
    """The files that a page links to."""
    found = (resolved(page, match[3]) for match in LINK.finditer(page.read_text()))
    return [target for target in found if target]


def resolved(page: Path, link: str) -> Path | None:
    """The file that a link of a page leads to. None: there is no file."""
    target = Path(os.path.normpath(page.parent / link))
    target = target / "README.md" if target.is_dir() else target
    return target if target.is_file() else None


def uri(target: Path) -> str:
    """Where the site has a file of the repository."""
    if target.is_relative_to(DOCS):
        return str(target.relative_to(DOCS))
    path = f"repository/{target.relative_to(ROOT)}"
    return path if target.suffix in {".md", *PICTURES} else f"{path}.md"


def shown(target: Path) -> str:
    """A file as a page. Text other than Markdown is a block of code; search leaves it out unless mkdocs.yml lists it."""
    text = target.read_text()
    if target.suffix == ".md":
        return text
    language = HIGHLIGHTED.get(target.suffix[1:] or target.name, target.suffix[1:] or "text")
    listed = str(target.relative_to(ROOT)) in LISTED
    head = f"---\nsearch: {{exclude: {str(not listed).lower()}}}\n---\n\n"
    return f"{head}# {target.relative_to(ROOT)}\n\n````{language}\n{text.rstrip()}\n````\n"
