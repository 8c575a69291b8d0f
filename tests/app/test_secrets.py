"""Tokens and API keys, sent in every place, never appear in logs, metrics, pages, answers, traces or arguments."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sidecar.cli.arguments import SHELLS
from sidecar.cli.main import main
from tests.app.test_admin_answers import get, post
from tests.observability.test_tracing import collector
from tests.peers import patience
from tests.peers.gateway import Keys
from tests.peers.tokens import b64
from tests.peers.wire import WEBSOCKET, request
from tests.proxy.conftest import Stack, running

PLACES: list[dict[str, Any]] = [
    {"header": "Authorization"},
    {"header": "X-Token"},
    {"cookie": "sid", "pieces": True},
    {"cookie": "user.*.token"},
    {"query": "access_token"},
    {"subprotocol": "bearer"},
]
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/keys/*", "auth": "api_key"},
    {"path": "/report/*", "mode": "report", "forward_token": False, "require": {"scopes": ["admin"]}},
]
ADMIN = (
    "/", "/status", "/timeline", "/rejections", "/rejections?by=code,issuer,route", "/routes", "/upstreams", "/configuration",
    "/issuers", "/codes",
)  # fmt: skip


def escaped(text: str) -> str:
    return "".join(f"%{ord(character):02X}" for character in text)


def sent(secret: str, path: str) -> list[bytes]:
    """Requests with the secret in every possible place."""
    half = len(secret) // 2
    headers: list[tuple[str, str]] = [
        ("Authorization", f"Bearer {secret}"),
        ("Authorization", f"ApiKey {secret}"),
        ("X-Token", secret),
        ("X-Other", secret),
        ("Proxy-Authorization", f"Bearer {secret}"),
        ("Cookie", f"a=1; sid={secret}"),
        ("Cookie", f"sid.0={secret[:half]}; sid.1={secret[half:]}"),
        ("Cookie", f"user.{'u' * 20}.token={secret}"),
        ("Sec-WebSocket-Protocol", f"bearer, {secret}"),
        ("X-Request-Id", secret),
        ("X-JWT-Sub", secret),
        ("Origin", f"https://{secret}.example"),
        ("Expect", secret),
    ]
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    return [
        *(request("GET", path, headers=[header]) for header in headers),
        request("GET", path, headers=[*WEBSOCKET, ("Sec-WebSocket-Protocol", f"bearer, {secret}")]),
        request("GET", f"{path}?access_token={secret}&x={secret}"),
        request("GET", f"{path}?access_token={escaped(secret)}"),
        request("GET", f"{path}/{secret}/x"),
        request("GET", f"{path}/{escaped(secret)}"),
        request("GET", f"{path}/{quote(escaped(secret))}"),
        request("GET", f"{path}/{secret}/%zz"),
        request("POST", path, headers=form, body=f"access_token={secret}".encode()),
        request(secret, path),
        request("GET", path, host=secret),
        f"GET {path} HTTP/1.1\r\nHost: h\r\nbad {secret}\r\n\r\n".encode(),
        f"{secret}\r\n\r\n".encode(),
        f"GET {secret} HTTP/1.1\r\nHost: h\r\n\r\n".encode(),
    ]


def secrets_of(stack: Stack, keys: Keys) -> list[str]:
    """A good token, bad ones, tokens in unusual spellings, and API keys."""
    _, payload, signature = stack.alice.split(".")
    odd = [
        f"{b64(head)}.{payload}.{signature}"
        for head in (b'{\n"alg": "EdDSA"}', b' {"alg":"EdDSA"}', b'{\t"alg":"EdDSA"}')
    ]
    key, off = keys.new("alice"), keys.new("bob", enabled=False)
    within = [stack.token(iss=stack.alice), stack.token(header={"kid": key}), stack.token(aud=[stack.alice])]
    tokens = [stack.alice, stack.alice[:-4] + "AAAA", stack.token(exp=1), *within, *odd]
    stack.secrets.tokens |= {*tokens, payload, signature, key[21:], off[21:]}  # the id of a key may appear
    return [*tokens, key, off]


@pytest.mark.parametrize("access_log", ["json", "ecs", "combined"])
async def test_no_secret_appears_in_any_output(
    access_log: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = Keys(tmp_path)
    settings = keys.settings(routes=ROUTES, token_from=PLACES, cors={"origins": ["*"]}, access_log=access_log)
    async with collector() as traces:
        settings |= {"tracing": {"endpoint": traces.url}, "error_detail": "full", "api_keys": settings["api_keys"]}
        async with running(**settings) as stack:
            for secret in secrets_of(stack, keys):
                for path in ("/x", "/public/x", "/keys/x", "/report/x"):
                    for raw in sent(secret, path):
                        async with stack.client() as client:
                            await client.send(raw)
                            answer = await client.answer()
                            assert answer is None or answer.status
                asked = {"token": secret, "method": "GET", "path": f"/x/{secret}?access_token={secret}"}
                await post(stack, "/explain", asked)
            for page in ADMIN:
                stack.secrets.told((await get(stack, page)).body.decode())
            stack.secrets.told((await stack.health("/metrics")).body.decode())
            for received in stack.backend.requests:  # paths and bodies go to the backend, unless they hold a key
                line = received.head.partition(b"\r\n")[2].decode("latin-1")
                stack.secrets.told(
                    "\n".join(
                        one
                        for one in line.split("\r\n")
                        if not one.lower().startswith(
                            ("x-other", "x-jwt-claims", "host", "x-forwarded-host", "origin", "expect")
                        )
                    )
                )
            telemetry = stack.sidecar.live.telemetry
            assert telemetry.access_log is not None
            telemetry.access_log.flush()
            out, err = capfd.readouterr()
            assert out.count("\n") > 1000
            stack.secrets.told(out)
            stack.secrets.told(err)
    assert traces.spans
    stack.secrets.told("\n".join(map(str, traces.spans)))
    assert stack.secrets.leaked() == []


async def test_an_api_key_in_an_escaped_spelling_does_not_reach_the_backend(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("shell", SHELLS)
def test_no_command_takes_a_token_or_a_key_as_an_argument(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Users who may list processes can read arguments."""
    assert main(["completion", shell]) == 0
    named = set(re.findall(r"--([\w-]*(?:token|key|secret)[\w-]*)", capsys.readouterr().out))
    assert named == {"token-file"}
