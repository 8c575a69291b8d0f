"""Tokens of real providers through the sidecar and through Envoy's `jwt_authn`: envoy-providers.md has every difference.

Envoy is told of each provider what `jwt_authn` can say: issuers, audiences, keys, the place of the token, subjects.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from benchmarks.peers import Peer, envoy
from benchmarks.proxies import await_accepted, started
from benchmarks.setting import CLAIM_HEADERS, CLAIMS_HEADER, Setting
from sidecar.common.clock import Clock
from sidecar.config import Issuer
from tests.conftest import Need
from tests.jwt.test_providers import configured, sidecar_of, token_of
from tests.peers import tokens
from tests.peers.backend import RawBackend
from tests.peers.providers import ROWS, SECRET, Row, key_set
from tests.peers.wire import request
from tests.real.conftest import SETTINGS
from tests.real.test_envoy import Outcome, outcome, row
from tests.real.test_import import configuration, jwt_authn

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (Path(__file__).parents[2] / "docs" / "understand" / "envoy-providers.md").read_text()
ROWS_TOLD = re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)

Json = dict[str, Any]
Outcomes = dict[str, tuple[Outcome, Outcome]]
"""Request -> its outcome with the sidecar, and with Envoy."""


def requests(row: Row) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(name, headers) of each request, with the token in the first place of the preset."""
    (issuer,) = configured(row).issuers.values()
    token = token_of(row, Clock())
    place = issuer.token_from[0]
    for what, over in {
        "good": {},
        "signature": {"name": "forger"},
        **{k: v for k, (v, _) in row.refused.items()},
    }.items():
        text = token(**over)
        if place.cookie:
            yield what, [("Cookie", f"{place.cookie}={text}")]
        else:
            yield what, [(place.header or "", f"Bearer {text}" if place.header == "Authorization" else text)]


def providers(row: Row) -> list[Json]:
    """A configuration of Envoy: a provider for each `iss`."""
    (issuer,) = configured(row).issuers.values()
    tenants = yaml.safe_load(row.lines).popitem()[1].get("tenant")
    place = issuer.token_from[0]
    keys = json.loads(key_set("ES256")() if "{kid}" in (issuer.jwks_uri or "") else (row.keys or key_set(row.alg))())
    if row.alg == "HS256":
        keys["keys"].append(tokens.jwk(SECRET.encode()))
    more: Json = {"local_jwks": {"inline_string": json.dumps(keys)}, "audiences": list(issuer.audiences or ())}
    if place.cookie:
        more["from_cookies"] = [place.cookie]
    elif place.header != "Authorization":
        more["from_headers"] = [{"name": place.header}]
    if issuer.subjects:
        more["subjects"] = {"prefix": issuer.subjects.prefix[0]}
    more["claim_to_headers"] = [{"header_name": name, "claim_name": claim} for name, claim in CLAIM_HEADERS.items()]
    more["forward_payload_header"] = CLAIMS_HEADER
    return [more if iss is None else {"issuer": iss, **more} for iss in names(issuer, tenants)]


def names(issuer: Issuer, tenants: object) -> list[str | None]:
    """Every `iss`; None for any, where it cannot be written."""
    written = [issuer.issuer, *issuer.issuer_aliases]
    if issuer.assume_issuer or tenants == "any":
        return [None]
    if isinstance(tenants, list):
        return [iss.replace("{tid}", tenant) for iss in written for tenant in tenants]
    return list(written)


def configured_envoy(port: int, backend: RawBackend) -> Json:
    """One Envoy for all rows, each below a path of its own."""
    theirs = configuration(port, backend, {})
    filter_ = jwt_authn(theirs)
    filter_["rules"] = []
    for number, shape in enumerate(ROWS.values()):
        own = {f"{number}-{count}": provider for count, provider in enumerate(providers(shape))}
        filter_["providers"] |= own
        each = [{"provider_name": name} for name in own]
        requires = each[0] if len(each) == 1 else {"requires_any": {"requirements": each}}
        filter_["rules"].append({"match": {"path": f"/{number}"}, "requires": requires})
    return theirs


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outcomes(need: Need, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outcomes]:
    """The result of every request, with a sidecar of that provider alone and with Envoy."""
    need(str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it")
    async with RawBackend() as backend:
        setting = Setting(tmp_path_factory.mktemp("providers"), backend.address[1], ())

        def command(_setting: Setting, port: int, directory: Path) -> list[str]:
            (directory / "envoy.json").write_text(json.dumps(configured_envoy(port, backend)))
            return [str(envoy.BINARY), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

        with started(Peer("providers", "", "envoy.json", envoy.version, command), setting) as theirs:
            await asyncio.to_thread(await_accepted, theirs, "of nobody: no rule is for /")
            found: Outcomes = {}
            for number, (name, shape) in enumerate(ROWS.items()):
                async with sidecar_of(shape, Clock(), upstream=backend.url, **SETTINGS) as sidecar:
                    await sidecar.start()
                    for what, headers in requests(shape):
                        wire = request("GET", f"/{number}", headers=headers)
                        both = [await outcome(port, wire, backend) for port in (sidecar.proxy_address[1], theirs.port)]
                        found[f"{name}: {what}"] = both[0], both[1]
            yield found


def told_of(name: str, ours: Outcome, theirs: Outcome) -> str | None:
    """The row of the page for this request: its own or, if the two differ, that of all providers (`*`)."""
    lines = [name] if ours == theirs else [name, f"*: {name.rpartition(': ')[2]}"]
    return next((told for line in lines for told in ROWS_TOLD if told.startswith(f"| `{line}` |")), None)


async def test_the_page_lists_exactly_the_differences_for_each_provider(outcomes: Outcomes) -> None:
    wrong, used = [], set()
    for name, (ours, theirs) in outcomes.items():
        told = told_of(name, ours, theirs)
        used.add(told)
        found = "" if ours == theirs else row(name, ours, theirs).partition(" |")[2]
        if (told or "").partition(" |")[2] != found:
            wrong.append(f"| `{name}` |{found}")
    print("\n".join(["Differences that the page does not tell:", *wrong]))
    print("\n".join(["Differences that it tells and that are none:", *sorted(set(ROWS_TOLD) - used)]))
    assert wrong == []
    assert set(ROWS_TOLD) <= used


async def test_the_page_counts_the_requests_and_the_differences(outcomes: Outcomes) -> None:
    differ = [name for name, (ours, theirs) in outcomes.items() if ours != theirs]
    assert f"{len(outcomes)} requests; {len(differ)} of them differ" in " ".join(PAGE.split())
