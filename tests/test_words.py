"""Private words and inverted clauses in pages and sources: the part of CONTRIBUTING.md, Words, that a pattern can find."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRIVATE = {  # a pattern -> what to write
    r"bad day|in the very|knocks?|legs?|quiet|rooms": "the field's term",
    r"believe[ds]?|believing": "trusted, accepted",
    r"forkers?": "the process that makes workers",
    r"taken for": "read as, counts as",
    r"for want of|that which|nor do|mend(?:s|ed|ing)?|serves? on": "for lack of, the one that, repair, stay in use",
    r"(?<!there )(?<!that )(?:is|are) no (?:RFC|HTTP|JSON|text|list|number|claim|token|CORS|whole)": "is not a",
    r"whoever|whomever|anybody": "the person or program that is meant",
    r"elegantly|seamlessly|utili[sz]e[ds]?": "nothing, or: use",
    r"(?:what|who) (?:is|was|has|comes?|came)\b[^.:;,()|]{0,50} (?:is|are|was|were)": "the subject first",
}
OF_SOURCES = {r'("""|# |// )(?:What|Who|Whoever|Whatever)\b': "a noun, or a verb: `The keys that ...`, `Read ...`"}
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "config.yaml", "config.minimal.yaml")),
    *sorted(path for end in ("md", "yaml", "yml") for path in ROOT.glob(f"docs/**/*.{end}")),
    *sorted(path for end in ("md", "yaml", "yml") for path in ROOT.glob(f"deploy/**/*.{end}")),
]
SOURCES = sorted(path for end in ("py", "js", "html", "yaml") for path in ROOT.glob(f"sidecar/**/*.{end}"))


def found(paths: list[Path], patterns: dict[str, str]) -> list[str]:
    """Each match of a pattern, with the words to write instead."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: {instead}"
        for path in paths
        if "node_modules" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for pattern, instead in patterns.items()
        if (match := re.search(rf"(?<![\w.-])(?:{pattern})(?![\w-])", line, re.IGNORECASE))
    ]


def test_the_pages_have_no_private_words() -> None:
    assert found(PAGES, PRIVATE) == []


def test_the_sources_have_no_private_words() -> None:
    assert found(SOURCES, PRIVATE | OF_SOURCES) == []
