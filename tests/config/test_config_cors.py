"""`cors` in the configuration: the origins whose pages may read refusals."""

import pytest

from sidecar.config import parse
from tests.config.test_config_problems import problems

REST = "issuers: {a: {issuer: 'https://a/', audiences: any}}\nupstream: http://127.0.0.1:9292\n"
SHAPE = (
    "is not an origin as browsers send it: scheme and host in lower case, without a path or a final /, such as "
    "https://app.example.com; or * alone for all"
)
ORIGIN = "3:18: cors.origins.0:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ["3:1: cors.origins: is missing; list the origins of the pages that may read refusals, such as "
                "https://app.example.com"]),
        ("{origins: []}", ["3:8: cors.origins: is empty, which could mean all or none; add at least one"]),
        ("{origins: [app.example.com]}", [f"{ORIGIN} 'app.example.com' {SHAPE}"]),
        ("{origins: ['https://app.example.com/']}", [f"{ORIGIN} 'https://app.example.com/' {SHAPE}"]),
        ("{origins: ['https://App.example.com']}", [f"{ORIGIN} 'https://App.example.com' {SHAPE}"]),
        ("{origins: ['https://*.example.com']}", [f"{ORIGIN} 'https://*.example.com' {SHAPE}"]),
        ("{origins: ['null']}", [f"{ORIGIN} is the origin of every sandboxed page; name the origins that you mean"]),
        ("{origins: ['https://a.example:443']}", [f"{ORIGIN} 'https://a.example:443' has the default port of its scheme, "
        "which browsers do not send; leave it out"]),
        ("{origins: ['*', 'https://a.example']}", [f"{ORIGIN} means all origins; write it alone, or name the origins"]),
        ("{origins: ['*'], credentials: true}", ["3:37: cors.credentials: would let every page read answers to requests "
        "with the visitor's cookies; name the origins instead of *"]),
    ],
)  # fmt: skip
def test_an_invalid_cors_setting_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{REST}cors: {text}") == expected


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:3000",
        "http://[::1]:8080",
        "https://127.0.0.1",
        "capacitor://localhost",
        "*",
    ],
)
def test_origins_of_browsers_are_accepted(origin: str) -> None:
    config = parse(f"{REST}cors: {{origins: ['{origin}']}}", environ={})
    assert config.cors is not None
    assert (config.cors.origins, config.cors.credentials, config.cors.max_age_s) == ((origin,), False, 600.0)
