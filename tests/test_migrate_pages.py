"""docs/how/migrate: its pages show the output of the command, and their tables name the right lines."""

import re
from pathlib import Path

import pytest

from sidecar.cli.convert.command import imported

PAGES = Path(__file__).parent.parent / "docs" / "how" / "migrate"


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", ["envoy", "istio"])
def test_import_prints_exactly_the_output_on_the_page(program: str, tmp_path: Path) -> None:
    theirs, ours = blocks(f"{program}.md", "yaml")
    name, _, text = theirs.removeprefix("# ").partition("\n")
    (tmp_path / name).write_text(text)
    result = imported(program, str(tmp_path / name))
    assert (result.text(name), result.equivalent) == (ours, True)


def test_the_page_shows_the_comment_about_an_open_rule(tmp_path: Path) -> None:
    rules, further = "                      rules:\n", "                        - match: {prefix: /public/}\n"
    theirs, _ = blocks("envoy.md", "yaml")
    (tmp_path / "envoy.yaml").write_text(theirs.replace(rules, rules + further))
    result = imported("envoy", str(tmp_path / "envoy.yaml"))
    assert not result.equivalent
    (said,) = blocks("envoy.md", "text")
    assert said in result.text("envoy.yaml")


def test_the_table_names_the_lines_of_the_ruby_code() -> None:
    lines = blocks("ruby.md", "ruby")[0].splitlines()
    rows = re.findall(r"^\| (\d+) \| `(.*?)` \|", (PAGES / "ruby.md").read_text(), re.MULTILINE)
    assert len(rows) == 14
    assert [code for number, code in rows if code.replace("\\", "") not in lines[int(number) - 1]] == []
