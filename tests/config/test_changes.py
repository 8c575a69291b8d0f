"""A reload names the keys that it changed, and none of their values."""

import json
from typing import Any

import pytest

from sidecar.config import Config, parse
from sidecar.config.changes import changed_keys

FILE: dict[str, Any] = {
    "issuers": {"main": {"issuer": "https://idp.test/", "audiences": ["a"], "jwks_headers": {"X-Key": "secret"}}},
    "upstream": "http://127.0.0.1:9292",
    "routes": [{"path": "/a"}, {"path": "/b"}],
}


def config(**over: Any) -> Config:
    return parse(json.dumps(FILE | over))


def issuer(**over: Any) -> dict[str, Any]:
    return {"main": FILE["issuers"]["main"] | over}


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({}, "no key"),
        ({"issuers": issuer(audiences=["another"])}, "issuers.main.audiences"),
        ({"issuers": issuer(jwks_headers={"X-Key": "other"})}, "issuers.main.jwks_headers.X-Key"),
        ({"issuers": issuer() | {"more": issuer(issuer="https://more.test/")["main"]}}, "issuers.more"),
        ({"routes": [{"path": "/a"}, {"path": "/b", "auth": "none"}]}, "routes.1.auth"),
        ({"routes": [{"path": "/b"}]}, "routes"),
        ({"timeouts": {"connect": "9s"}, "realm": "r"}, "realm, timeouts.connect"),
        (
            {"limits": {"in_flight": 9, "header_bytes": 9000}, "realm": "r", "access_log": "off", "forward_token": True}
            | {"claims_header": "off", "error_format": "problem"},
            "claims_header, forward_token, access_log, realm, error_format, and 2 more",
        ),
    ],
)
def test_a_reload_names_the_changed_keys(over: dict[str, Any], told: str) -> None:
    assert changed_keys(config(), config(**over)) == told


def test_moving_a_key_to_another_line_is_no_change() -> None:
    assert changed_keys(config(), parse("\n\n# a comment\n" + json.dumps(FILE, indent=2))) == "no key"


def test_a_changed_key_is_named_by_a_short_printable_path() -> None:
    routes = [{"path": "/a", "require": {"claims": {"x\n" * 100: {"equals": "secret"}}}}]
    other = [{"path": "/a", "require": {"claims": {"x\n" * 100: {"equals": "other"}}}}]
    told = changed_keys(config(routes=routes), config(routes=other))
    assert told.isprintable()
    assert len(told) < 300
