"""deploy/gateway/ and the configurations of docs/gateway.md: they load, and with keys made by the commands nothing is missing."""

import re
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.check import problems_of
from sidecar.config import load, parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "gateway.md").read_text()
EXAMPLES = {
    name: text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for name in [text.splitlines()[0][2:]]
}


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
async def test_the_configurations_of_the_page_can_be_used(text: str, tmp_path: Path) -> None:
    assert main(["keys", "rotate", str(tmp_path / "signing-keys.json")]) == 0
    assert main(["keys", "new", str(tmp_path / "api-keys.json"), "alice", "--scope", "read"]) == 0
    assert await problems_of(parse(text, base=tmp_path, environ={}), online=False) == []


async def test_the_gateway_and_the_sidecar_belong_together(tmp_path: Path) -> None:
    for file in ("gateway.yaml", "sidecar.yaml"):
        (tmp_path / file).write_text((ROOT / "deploy" / "gateway" / file).read_text())
    (tmp_path / "keys").mkdir()
    assert main(["keys", "rotate", str(tmp_path / "keys" / "signing-keys.json")]) == 0
    assert main(["keys", "new", str(tmp_path / "keys" / "api-keys.json"), "alice"]) == 0
    gateway, sidecar = (load(tmp_path / file, environ={}) for file in ("gateway.yaml", "sidecar.yaml"))
    assert await problems_of(gateway, online=False) == await problems_of(sidecar, online=False) == []
    assert gateway.signing is not None
    assert sidecar.issuers["gateway"].issuer == gateway.signing.issuer
    (upstream,) = gateway.upstreams.values()
    assert upstream.token is not None
    assert sidecar.issuers["gateway"].audiences == (upstream.token.audience,)
