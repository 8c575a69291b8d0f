"""docs/how/rules.md: its table is true. docs/how/revoke.md: its deny list loads. (test_pages.py tests their configurations.)"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.jwt.denylist import DenyList, Entry
from sidecar.policy.claim_conditions import condition
from tests.peers.clock import HandClock

HOW = Path(__file__).parent.parent / "docs" / "how"
PAGE = (HOW / "rules.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (HOW / "revoke.md").read_text(), re.MULTILINE | re.DOTALL)
[ENTRIES] = [text for kind, text in BLOCKS if kind == "yaml" and text.startswith("#")]
COMMANDS = [text for kind, text in BLOCKS if kind == "sh"]
ROWS = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \|$", PAGE.partition("| operator |")[2], re.MULTILINE)
REST = {
    "issuers": "issuers: {idp: {issuer: https://idp.example/, audiences: any}}\n",
    "upstream": "upstream: http://127.0.0.1:9292\n",
}


async def test_the_deny_list_loads(tmp_path: Path) -> None:
    path = tmp_path / "denied.yaml"
    path.write_text(ENTRIES)
    denylist = DenyList(HandClock(0), {"https://idp.example/": "idp"}, path)
    await denylist.load()
    assert len(denylist) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_the_entry_in_each_command_is_valid(command: str) -> None:
    [body] = re.findall(r"-d '(.*)'", command)
    assert Entry.read(json.loads(body)).value == "mallory"


@pytest.mark.parametrize(("operator", "satisfied", "not_satisfied"), ROWS)
def test_the_table_of_operators_is_true(operator: str, satisfied: str, not_satisfied: str) -> None:
    asked: Any = yaml.safe_load(operator)
    for value in re.findall(r"`(.*?)`", satisfied):
        assert condition(asked)(json.loads(value)) is True, value
    for value in re.findall(r"`(.*?)`", not_satisfied):
        assert condition(asked)(json.loads(value)) is not True, value


def test_every_operator_is_in_the_table() -> None:
    named = {operator.partition(":")[0] for operator, _, _ in ROWS}
    assert named == {"equals", "in", "prefix", "contains", "any", "all", "exists", "not"}
