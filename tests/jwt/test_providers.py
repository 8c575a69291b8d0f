"""Every provider of docs/how/choose-an-issuer.md by name: the lines that its users write, and tokens and keys in its shape.

Each token of a row is accepted, and refused for another audience, tenant or kind, and by another key. The keys come over HTTP
from where the preset says that they are, but for the host.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from sidecar.app.server import Sidecar, build
from sidecar.cli.check import preset_lines
from sidecar.common.clock import Clock
from sidecar.config import Config, Issuer, parse
from sidecar.config.presets import PRESETS
from sidecar.policy.granted import granted_roles, scopes_in_one_form
from tests.jwt.test_real_issuers import Files, padded, refusal
from tests.peers import tokens
from tests.peers.clock import HandClock, in_its_time_with_sockets
from tests.peers.issuer import Answer
from tests.peers.providers import ROWS, SECRET, Row, key_set
from tests.peers.tokens import ABSENT
from tests.peers.waiting import verified


def configured(row: Row, **settings: Any) -> Config:
    lines = "\n".join(f"  {line}" for line in row.lines.splitlines())
    rest = yaml.safe_dump({"upstream": "http://127.0.0.1:1", "access_log": "off", **settings})
    return parse(f"issuers:\n{lines}\n{rest}", environ={"SECRET": SECRET})


@asynccontextmanager
async def sidecar_of(row: Row, clock: Clock, **settings: Any) -> AsyncIterator[Sidecar]:
    """The objects of the row's configuration. A local server serves the keys under the paths of the provider."""
    config = configured(row, **settings)
    (name,) = config.issuers
    async with Files() as server:
        server.files = {row.path or "/": Answer(200, (row.keys or key_set(row.alg))())}

        def here(url: str | None) -> str | None:
            return url and f"{server.url}{urlsplit(url).path}"

        issuer = config.issuers[name]
        for place in issuer.more_keys:  # every place must be there
            if place.jwks_uri and urlsplit(place.jwks_uri).path != row.path:
                server.files[urlsplit(place.jwks_uri).path] = Answer(200, key_set("ES512")())
        if issuer.jwks_uri and "{kid}" not in issuer.jwks_uri and urlsplit(issuer.jwks_uri).path not in server.files:
            server.files[urlsplit(issuer.jwks_uri).path] = Answer(200, key_set(row.alg, kid="of another policy")())
        moved: dict[str, Any] = {
            "jwks_uri": here(issuer.jwks_uri),
            "more_keys": tuple(
                place.model_copy(update={"jwks_uri": here(place.jwks_uri)}) for place in issuer.more_keys
            ),
        }
        if row.path is None:  # its own server asks for a pod's credentials
            moved = {"jwks_uri": None, "jwks_inline": json.loads(key_set(row.alg)()), "jwks_tls": None}
        issuers: dict[str, Issuer] = {name: issuer.model_copy(update=moved)}
        sidecar = build(config.model_copy(update={"issuers": issuers}), clock)
        try:
            await sidecar.assembly.sources[name].fetch_now()
            assert sidecar.assembly.sources[name].last_error is None
            yield sidecar
        finally:
            await sidecar.stop()


def token_of(row: Row, clock: Clock) -> Callable[..., str]:
    def made(name: str = "a", header: dict[str, Any] | None = None, **over: Any) -> str:
        payload = tokens.claims(**{"now": clock.wall(), "aud": "my-api", "exp": 2**33, **row.claims, **over})
        members = {"kid": tokens.kid(row.alg) if row.alg != "HS256" else ABSENT, **row.header, **(header or {})}
        members = {key: value for key, value in members.items() if value is not ABSENT}
        if row.alg == "HS256":
            return tokens.sign(SECRET.encode() if name == "a" else b"forger" * 8, row.alg, members, payload)
        return tokens.sign(tokens.key(row.alg, name), row.alg, members, payload)

    return padded(made) if row.padded else made


@pytest.mark.parametrize("name", ROWS)
@in_its_time_with_sockets
async def test_only_valid_tokens_of_a_provider_are_accepted(name: str, clock: HandClock) -> None:
    row = ROWS[name]
    token = token_of(row, clock)
    async with sidecar_of(row, clock) as sidecar:
        verifier = sidecar.assembly.handler.authentication.verifier
        (issuer,) = sidecar.assembly.config.issuers.values()
        claims = await verified(verifier, token().encode())
        assert granted_roles(claims.claims, issuer.role_claims) == row.roles
        assert scopes_in_one_form(claims.claims) == row.scope
        assert (await refusal(verifier, token(name="forger"))).reason.code == "signature_invalid"
        for what, (over, code) in row.refused.items():
            assert (await refusal(verifier, token(**over))).reason.code == code, what
        assert row.refused.keys() >= {"tenant", "kind"}
        assert "audience" in row.refused or issuer.audiences is None


@pytest.mark.parametrize("name", ROWS)
def test_a_few_lines_configure_a_provider_and_the_url_of_its_keys(name: str) -> None:
    row = ROWS[name]
    config = configured(row)
    (issuer,) = config.issuers.values()
    assert len(row.lines.splitlines()) <= row.most_lines
    assert row.most_lines == 4 or len(yaml.safe_load(row.lines).popitem()[1]) == 4
    places = [urlsplit(place.jwks_uri or "").path for place in (issuer, *issuer.more_keys)]
    assert row.path is None or row.path in [path.replace("{kid}", tokens.kid("ES256")) for path in places]


@pytest.mark.parametrize("name", ROWS)
def test_check_prints_the_settings_of_the_preset(name: str) -> None:
    config = configured(ROWS[name])
    (issuer,) = config.issuers.values()
    told = list(preset_lines(config))
    if issuer.preset is None:
        assert told == []
        return
    assert told[0] == f"issuers.{issuer.name}, with preset {issuer.preset}:"
    places = [str(place.jwks_uri or place.keys_from) for place in (issuer, *issuer.more_keys)]
    assert f"  keys from: {', '.join(places)}" in told
    assert f"  algorithms: {', '.join(issuer.algorithms)}" in told
    assert any(line.startswith("  audiences: ") for line in told)
    assert any(line.startswith(f"  issuer: {issuer.issuer}") for line in told)


WITH_A_SLASH_OR_WITHOUT = [
    name
    for name, row in ROWS.items()
    if (preset := yaml.safe_load(row.lines).popitem()[1].get("preset")) and PRESETS[preset].slash is not None
    if "  issuer: " in row.lines and "slash" not in name
]


@pytest.mark.parametrize("name", WITH_A_SLASH_OR_WITHOUT)
@in_its_time_with_sockets
async def test_a_missing_or_surplus_slash_of_the_issuer_is_accepted_and_reported(name: str, clock: HandClock) -> None:
    right = configured(ROWS[name])
    (issuer,) = right.issuers.values()
    wrong = issuer.issuer.removesuffix("/") if issuer.issuer.endswith("/") else f"{issuer.issuer}/"
    row = ROWS[name]._replace(lines=ROWS[name].lines.replace(f"issuer: {issuer.issuer}", f"issuer: {wrong}"))
    which = "few" if issuer.issuer.endswith("/") else "many"
    said = f"  issuer has a slash too {which}; the tokens have {issuer.issuer}, which is accepted too: write that"
    assert said not in preset_lines(right)
    assert said in preset_lines(configured(row))
    async with sidecar_of(row, clock) as sidecar:
        await verified(sidecar.assembly.handler.authentication.verifier, token_of(row, clock)().encode())


def test_every_preset_has_a_row() -> None:
    tried = {issuer.preset for row in ROWS.values() for issuer in configured(row).issuers.values()}
    assert tried - {None} == set(PRESETS)
