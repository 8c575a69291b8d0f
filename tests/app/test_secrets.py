"""Tokens and API keys come out nowhere that they do not belong, however they are spelled."""

import json
from pathlib import Path
from urllib.parse import quote

from tests.peers import patience
from tests.peers.gateway import Keys
from tests.peers.wire import request
from tests.proxy.conftest import running


def escaped(text: str) -> str:
    return "".join(f"%{ord(character):02X}" for character in text)


async def test_an_api_key_behind_escapes_does_not_reach_the_backend(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key = keys.new("alice")
    async with running(**keys.settings(routes=[{"path": "/*", "auth": "none"}])) as stack, patience("all answers"):
        stack.secrets.tokens.add(key[21:])
        for spelled in (key, escaped(key), quote(escaped(key)), key.replace("_", "%5f"), "%6a" + key[1:]):
            for raw in (
                request("GET", f"/x/{spelled}"),
                request("GET", f"/x?key={spelled}"),
                request("GET", "/x", headers=[("Cookie", f"a={spelled}")]),
            ):
                answer = await stack.fetch(raw)
                assert (answer.status, answer.json()["code"]) == (400, "request_malformed")
        assert stack.backend.requests == []


def test_no_command_takes_a_token_or_a_key_as_an_argument() -> None:
    """Whoever may list processes reads arguments."""
    text = (Path(__file__).parents[2] / "sidecar" / "cli" / "arguments.py").read_text()
    assert '"--token-file"' in text
    assert '"--token"' not in text
    assert '"--key"' not in text
    assert json.dumps("--secret") not in text
