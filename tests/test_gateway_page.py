"""The configurations of docs/how/gateway.md load, and need nothing but the keys that its commands make."""

import re
from pathlib import Path

import pytest

from sidecar.cli.check import problems_of
from sidecar.cli.main import main
from sidecar.config import parse

PAGE = (Path(__file__).parents[1] / "docs" / "how" / "gateway.md").read_text()
EXAMPLES = {text.splitlines()[0].removeprefix("# "): text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)}


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
async def test_the_configurations_of_the_page_load_without_problems(text: str, tmp_path: Path) -> None:
    assert main(["keys", "rotate", str(tmp_path / "signing-keys.json")]) == 0
    assert main(["keys", "new", str(tmp_path / "api-keys.json"), "alice", "--scope", "read"]) == 0
    assert await problems_of(parse(text, base=tmp_path, environ={}), online=False) == []
