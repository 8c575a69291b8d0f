"""The summary at the start: protected and open paths, issuers, and a remedy for every warning."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import sidecar
from sidecar.app.server import announce
from sidecar.app.startup_summary import MOST_NAMED, summary
from sidecar.config import parse
from tests.proxy.conftest import running

ISSUER: dict[str, Any] = {"issuer": "https://idp.test/", "audiences": ["api"]}
SMALLEST: dict[str, Any] = {"issuers": {"main": ISSUER}, "upstream": "http://127.0.0.1:9292"}


def said(environ: dict[str, str] | None = None, **settings: Any) -> list[str]:
    return list(summary(parse(json.dumps(SMALLEST | settings), environ=environ or {})))


def about(environ: dict[str, str] | None = None, **issuer: Any) -> list[str]:
    """The lines about one issuer with these settings."""
    lines = said(environ, issuers={"main": ISSUER | issuer})
    return lines[: next(at for at, line in enumerate(lines) if line.startswith("protected"))]


def test_the_smallest_configuration_has_three_lines() -> None:
    assert said() == [
        "issuer main: https://idp.test/, tokens for api, keys from discovery at https://idp.test/.well-known/",
        "protected, a valid token is needed: everything else",
        "upstream default: http://127.0.0.1:9292",
    ]


def test_every_kind_of_rule_has_its_line() -> None:
    routes: list[dict[str, Any]] = [
        {"path": "/public/*", "auth": "none"},
        {"path": "/health", "auth": "none", "methods": ["GET", "HEAD"], "hosts": ["api.test"]},
        {"path": "/feed", "auth": "optional"},
        {"path": "/internal/*", "auth": "deny"},
        {"path": "/trial/*", "mode": "report"},
        {"path_regex": "/users/[0-9]+", "require": {"scopes": ["admin"]}},
    ]
    assert said(routes=routes)[1:-1] == [
        "public, tokens are not checked: /public/*, GET,HEAD /health (only api.test)",
        "open, a token must be valid if there is one: /feed",
        "closed, every request is refused: /internal/*",
        "report mode, nothing is refused for its token (until you write mode: enforce): /trial/*",
        "protected, a valid token is needed: /users/[0-9]+, and everything else",
    ]


def test_api_keys_and_minted_tokens_have_their_lines() -> None:
    config = {
        "api_keys": {"file": "keys.json"},
        "signing": {"issuer": "https://gw.test", "keys_file": "/run/signing.json"},
        "upstreams": {"default": {"url": "http://127.0.0.1:9292", "token": {"audience": "backend"}}},
        "routes": [{"path": "/v1/*", "auth": "api_key"}],
    }
    assert list(summary(parse(json.dumps(config), environ={}))) == [
        "own issuer: https://gw.test, signs with /run/signing.json",
        "for the holders of API keys: /v1/*",
        "closed, since there is no issuer: everything else",
        "upstream default: http://127.0.0.1:9292, with a minted token for backend",
    ]


def test_forward_auth_has_a_line_with_its_trusted_proxies() -> None:
    asked: dict[str, Any] = {"forward_auth": {"original": "path"}, "trusted_proxies": ["10.0.0.0/8"]}
    assert said(**asked)[2] == "forward-auth at /auth (path), asked by 10.0.0.0/8"


def test_a_long_list_of_rules_is_cut_and_counted() -> None:
    line = said(routes=[{"path": f"/{number}", "auth": "none"} for number in range(MOST_NAMED + 3)])[1]
    assert line.endswith(f"/{MOST_NAMED - 1} and 3 more")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"jwks_uri": "https://idp.test/keys?secret"}, "https://idp.test/keys"),
        ({"jwks_file": "/keys.json"}, "the file /keys.json"),
        ({"public_key_file": "/key.pem"}, "the file /key.pem"),
        ({"jwks_inline": {"keys": []}}, "the configuration (jwks_inline)"),
        ({"secret_file": "/secret"}, "the file /secret"),
        ({"secret_env": "NAME"}, "a variable (secret_env)"),
    ],
)
def test_an_issuers_line_names_the_source_of_its_keys(keys: dict[str, Any], told: str) -> None:
    algorithms = {"algorithms": ["HS256"]} if "secret" in next(iter(keys)) else {}
    [line] = about({"NAME": "s" * 40}, **keys, **algorithms)
    assert line.endswith(f"keys from {told}")


@pytest.mark.parametrize(
    ("weak", "do"),
    [
        ({"audiences": "any"}, "list the audiences"),
        ({"require_exp": False}, "set require_exp: true"),
        ({"issuer": "http://idp.test/", "allow_http": True}, "use https"),
        (
            {"jwks_uri": "https://idp.test/", "jwks_tls": {"insecure_skip_verify": True}},
            "name the key server's authority",
        ),
    ],
)
def test_weaknesses_of_an_issuer_are_printed_with_their_remedy(weak: dict[str, Any], do: str) -> None:
    _, line = about({"ALLOW_INSECURE": "1"}, **weak)
    assert line.startswith("  weak: ")
    assert do in line


def test_weaknesses_of_an_upstream_are_printed_with_their_remedy() -> None:
    upstreams = {"default": {"url": "https://b.test", "tls": {"insecure_skip_verify": True}}}
    lines = list(
        summary(
            parse(json.dumps({"issuers": {"main": ISSUER}, "upstreams": upstreams}), environ={"ALLOW_INSECURE": "1"})
        )
    )
    assert lines[-1].startswith("  weak: ")


def test_no_secret_is_printed() -> None:
    headers: dict[str, Any] = {"jwks_headers": {"X-Api-Key": "hidden"}, "jwks_uri": "https://idp.test/?key=hidden"}
    assert "hidden" not in "\n".join(about(**headers))


def warnings() -> list[str]:
    """Every call that warns, as its source."""
    return [
        ast.unparse(node)
        for file in sorted(Path(sidecar.__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.warning", "log.error", "log.exception")
    ]


def test_every_warning_has_its_remedy() -> None:
    assert len(warnings()) > 5
    assert [text for text in warnings() if " do=" not in text] == []


async def test_the_summary_precedes_the_addresses_at_the_start(capfd: pytest.CaptureFixture[str]) -> None:
    async with running() as stack:
        announce(stack.sidecar)
        lines = capfd.readouterr().err.splitlines()
        assert lines[:-3] == list(summary(stack.sidecar.config))
        assert [line.split()[:2] for line in lines[-3:]] == [
            ["listening", name] for name in ("proxy", "health", "admin")
        ]


def test_a_load_balancer_with_a_required_signer_has_no_weak_audience() -> None:
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/my-lb/50dc6c495c0c9188"
    text = f"issuers: {{lb: {{preset: aws_alb, arn: '{arn}', issuer: https://idp.example/}}}}\nupstream: http://127.0.0.1:1"
    lines = list(summary(parse(text)))
    assert lines[0] == (
        "issuer lb: https://idp.example/, tokens for any audience, "
        "keys from https://public-keys.auth.elb.eu-west-1.amazonaws.com/{kid}"
    )
    assert not [line for line in lines if "weak" in line]
