"""One corpus of tokens through the sidecar and through Envoy's `jwt_authn`: two pages of docs/understand have the result.

It fails if a difference has no row on the pages, and if a row has no difference.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.issuer import AUDIENCE, Issuer
from benchmarks.peers import envoy
from benchmarks.proxies import await_accepted, started
from benchmarks.setting import CLAIM_HEADERS, CLAIMS_HEADER, Setting
from tests.conftest import Need
from tests.peers import tokens
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.raw import fetch
from tests.peers.wire import Truncated
from tests.real.conftest import StartSidecar
from tests.real.corpus import corpus
from tests.real.corpus.making import KEYS

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = Path(__file__).parents[2] / "docs" / "understand"
PAGE = "".join((PAGES / name).read_text() for name in ("envoy-differences.md", "envoy-headers.md"))
REASONS = re.findall(r"^### .*?(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)
SHOWN = 40  # characters of a header's value

Outcome = dict[str, str]
"""The status and, if the request was accepted, the headers at the backend. The status `closed` means no answer."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outcomes(
    need: Need, sidecar: StartSidecar, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, tuple[Outcome, Outcome]]]:
    """The result of every request of the corpus, with the sidecar and with Envoy."""
    need(str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it")
    async with ScriptedIssuer() as publisher, RawBackend() as backend:
        publisher.keys = KEYS
        issuer = Issuer("main", "ES256", "")  # its own key is not used
        issuer.iss, issuer.jwks_uri = tokens.ISSUER, publisher.jwks_uri
        setting = Setting(tmp_path_factory.mktemp("envoy"), backend.address[1], (issuer,), claims_header=True)
        same = sidecar(
            issuers={"main": {"issuer": issuer.iss, "jwks_uri": issuer.jwks_uri, "audiences": [AUDIENCE]}},
            upstream=backend.url,
            identity_headers=CLAIM_HEADERS,
            claims_header=CLAIMS_HEADER,
            access_log="off",
        )
        async with same as url:
            with started(envoy.PEER, setting) as proxy:
                await asyncio.to_thread(await_accepted, proxy, tokens.token(aud=AUDIENCE))
                ports = int(url.rpartition(":")[2]), proxy.port
                yield {
                    name: (await outcome(ports[0], request, backend), await outcome(ports[1], request, backend))
                    for name, request in corpus().items()
                }


async def outcome(port: int, request: bytes, backend: RawBackend) -> Outcome:
    backend.requests.clear()
    try:
        answer = await fetch(("127.0.0.1", port), request)
    except (Truncated, ConnectionError):
        answer = None
    assert len(backend.requests) == (answer is not None and answer.status == 200), (
        "only accepted requests reach the backend"
    )
    found = {"status": "closed" if answer is None else str(answer.status)}
    if answer is not None and answer.status == 503 and b"does not know the token's key yet" in answer.body:
        found = {"status": "401"}  # a kid that the sidecar has not requested yet
    for seen in backend.requests:
        found |= {name: ", ".join(seen.all(name)) for name in (*CLAIM_HEADERS, CLAIMS_HEADER) if seen.all(name)}
    return found


def row(name: str, ours: Outcome, theirs: Outcome) -> str:
    """A difference as a line of the page."""
    return f"| `{name}` | {told(ours, theirs)} | {told(theirs, ours)} |"


def told(outcome: Outcome, other: Outcome) -> str:
    """The status and, where both were accepted, the headers that differ."""
    parts = [outcome["status"]]
    if parts == [other["status"]]:
        parts += [shown(header, outcome) for header in {**outcome, **other} if outcome.get(header) != other.get(header)]
    return ", ".join(parts)


def shown(header: str, outcome: Outcome) -> str:
    if header not in outcome:
        return f"no {header}"
    text = outcome[header].encode("latin-1").decode("utf-8", "backslashreplace")
    text = text.encode("ascii", "backslashreplace").decode()
    return f"`{header}: {text if len(text) <= SHOWN else text[:SHOWN] + '...'}`"


async def test_both_accept_valid_tokens(outcomes: dict[str, tuple[Outcome, Outcome]]) -> None:
    for name, (ours, theirs) in outcomes.items():
        if name.startswith("good: "):
            assert (ours["status"], ours) == ("200", theirs), name


async def test_the_pages_list_exactly_the_differences_from_envoy(outcomes: dict[str, tuple[Outcome, Outcome]]) -> None:
    found = {row(name, *both) for name, both in outcomes.items() if both[0] != both[1]}
    told = set(ROWS)
    print("\n".join(["Differences that the page does not tell:", *sorted(found - told)]))
    print("\n".join(["Differences that it tells and that are none:", *sorted(told - found)]))
    assert found == told


async def test_the_pages_list_each_difference_once() -> None:
    assert len(set(ROWS)) == len(ROWS)
    assert sorted(row for reason in REASONS for row in ROWS if row in reason) == sorted(ROWS)


async def test_every_reason_names_its_rule() -> None:
    assert [reason for reason in REASONS if not re.search(r"RFC \d+ section \d", reason.partition("| ---")[0])] == []


async def test_the_pages_have_the_number_of_requests_and_differences() -> None:
    assert f"{len(corpus())} requests; {len(ROWS)} of them differ" in PAGE
    assert f"Envoy {envoy.VERSION}" in PAGE
