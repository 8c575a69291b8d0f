"""A request as a client knows it, a URL or a curl command, for `explain`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.curl import NotUnderstood, Request, of_curl, of_url
from sidecar.cli.main import main
from tests.peers import tokens
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import configuration

Said = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("curl http://api.example/a?b=c", ("GET", "/a?b=c", "api.example", ())),
        (
            "curl -sS -XPUT 'http://api.example:8080/a' -H 'Authorization: Bearer x' -H 'Content-Length: 3'",
            ("PUT", "/a", "api.example:8080", (("Authorization", "Bearer x"),)),
        ),
        (
            "curl 'https://api.example/' \\\n  -H 'accept: */*' \\\n  -b 's=x; a=b' \\\n  --data-raw $'it\\'s' --compressed",
            ("POST", "/", "api.example", (("accept", "*/*"), ("Cookie", "s=x; a=b"))),
        ),
        ("curl -G api.example/s -d q=1 -d r=2", ("GET", "/s?q=1&r=2", "api.example", ())),
        ("curl -I -k --max-time 3 https://user:pw@api.example", ("HEAD", "/", "api.example", ())),
        ("/usr/bin/curl api.example", ("GET", "/", "api.example", ())),
        ("curl -i -H'Host: other' http://127.0.0.1:8080/x", ("GET", "/x", "other", ())),
        ("--url=http://a/b --json '{}' -o /dev/null", ("POST", "/b", "a", ())),
    ],
)
def test_a_curl_line_becomes_a_request(line: str, told: Any) -> None:
    assert of_curl(line) == Request(*told)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("curl -H x", "names no URL"),
        ("curl 'x", "open quote"),
        ("curl ftp://a/b", "not a URL"),
        ("curl 'http://[::1'", "not a URL"),
        (f"curl -H Authorization: Bearer {tokens.token()} http://a", r"Bearer \*\*\* http://a"),
        ("wget http://a/b", "only one of these can be the URL of a curl line: wget http://a/b;"),
        ("curl http://a/b http://a/c", "only one of these"),
        ("curl --limit-rate 1k http://a/b", "1k http://a/b; take the others out"),
    ],
)
def test_an_invalid_curl_line_is_reported(line: str, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        of_curl(line)


def test_a_url_becomes_a_get_request() -> None:
    assert of_url("http://api.example/a") == Request("GET", "/a", "api.example", ())
    assert of_url("api.example").path == "/"


async def test_explain_accepts_a_url_and_a_curl_line(tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        routes = [{"path": "/admin/*", "hosts": ["api.example"], "require": {"scopes": ["admin"]}}]
        file.write_text(json.dumps(configuration(issuer, backend) | {"routes": routes}))
        token = tmp_path / "token"
        token.write_text(issuer.token("EdDSA", scope="admin"))
        explain = ["explain", "-c", str(file)]
        url = ["--url", "http://api.example/admin/x", "--token-file", str(token)]
        assert await asyncio.to_thread(main, [*explain, *url]) == 0
        curl = f"curl http://api.example/admin/x -H 'Authorization: Bearer {issuer.token('EdDSA', scope='read')}'"
        assert await asyncio.to_thread(main, [*explain, "--curl", curl]) == 1
        said = capsys.readouterr().out
        assert said.count("routes.0 ") == 2
        assert said.endswith("rejected: 403 scope_insufficient: The token lacks a required scope.\n")
        assert await asyncio.to_thread(main, [*explain, "--path", "orders", "--token-file", str(token)]) == 2
        assert capsys.readouterr().err == "jwt-sidecar: --path orders: a path begins with /; write /orders\n"
        assert await asyncio.to_thread(main, ["explain", "--path", "/x"]) == 2
        assert "-c FILE is missing" in capsys.readouterr().err
