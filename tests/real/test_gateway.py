"""The whole model scenario on this program alone: curl with an API key -> gateway -> sidecar -> Ruby backend.

And the tokens of the gateway before other verifiers: Envoy, PyJWT, Ruby's jwt and Node's jose.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import jwt
import pytest

from benchmarks.issuer import AUDIENCE, Issuer
from benchmarks.peers import envoy
from benchmarks.proxies import await_accepted, started
from benchmarks.setting import Setting
from sidecar.gateway.key_ring import TimedKey
from sidecar.gateway.signing_key import ALGORITHMS, SigningKey
from tests.conftest import Need
from tests.peers.backend import RawBackend
from tests.peers.forward import Balancer
from tests.peers.gateway import ISSUER, Keys
from tests.real.conftest import StartSidecar
from tests.real.process import run

HERE = Path(__file__).parent
JOSE = HERE / "idp" / "node_modules" / "jose"


class Scenario(NamedTuple):
    """The gateway's address, alice's API key, and the traffic before the sidecar and before the backend."""

    url: str
    alice: str
    before_sidecar: Balancer
    before_backend: Balancer


@pytest.fixture
async def scenario(need: Need, sidecar: StartSidecar, tmp_path: Path) -> AsyncIterator[Scenario]:
    """Puma with Rack, a sidecar before it and a gateway before that, each a separate process."""
    puma = [need("puma"), "--bind", "tcp://127.0.0.1:0", "--threads", "1:2", str(HERE / "ruby" / "config.ru")]
    keys = Keys(tmp_path)
    async with AsyncExitStack() as running:
        enter = running.enter_async_context
        published = await enter(Balancer())
        issuer = f"{published.url}/__gateway/issuer"
        backend = await enter(run(*puma, announces=r"Listening on (http://\S+)\n"))
        before_backend = await enter(Balancer([place(backend)]))
        before_sidecar = await enter(Balancer())
        gateway = {
            "api_keys": {"file": str(keys.api_keys)},
            "signing": {"issuer": issuer, "keys_file": str(keys.signing)},
            "upstreams": {"backend": {"url": before_sidecar.url, "token": {"audience": "my-api"}}},
            "routes": [{"path": "/*", "auth": "api_key"}],
        }
        alice = keys.new("alice", "read write", tenant="acme")
        url = await enter(sidecar(**gateway))
        published.places.append(place(url))
        trusted = {"gateway": {"issuer": issuer, "audiences": ["my-api"]}}
        verifying = sidecar(issuers=trusted, upstream=before_backend.url, identity_headers={"X-JWT-Sub": "sub"})
        before_sidecar.places.append(place(await enter(verifying)))
        yield Scenario(url, alice, before_sidecar, before_backend)


def place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def output(*command: str, stdin: str = "") -> str:
    """The output of a program, which must end with 0."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_model_scenario_works_from_api_key_to_ruby_backend(scenario: Scenario, need: Need) -> None:
    alice = scenario.alice
    told = await output(need("curl"), "-s", "-H", f"Authorization: Bearer {alice}", f"{scenario.url}/protected")
    answer = json.loads(told)
    assert answer["message"] == "Access granted"
    claims = answer["user"]["claims"]
    assert (answer["user"]["sub"], claims["sub"], claims["scope"], claims["tenant"]) == (
        "alice",
        "alice",
        "read write",
        "acme",
    )
    assert (claims["aud"], claims["exp"] - claims["iat"]) == ("my-api", 300)
    for passed in (scenario.before_sidecar.passed, scenario.before_backend.passed):
        assert b"/protected" in passed
        for secret in (alice, alice[4:20], alice[21:]):
            assert secret.encode() not in passed
            assert secret.encode().hex().encode() not in passed
    assert b"eyJ" in scenario.before_sidecar.passed
    assert b"uthorization" not in scenario.before_backend.passed


async def test_a_client_without_a_key_gets_the_refusal_of_the_replaced_backend(scenario: Scenario, need: Need) -> None:
    told = json.loads(await output(need("curl"), "-s", f"{scenario.url}/protected"))
    assert (told["error"], told["code"]) == ("No token provided", "token_missing")
    wrong = ["-H", "Authorization: Bearer jsk_0000000000000000_x"]
    told = json.loads(await output(need("curl"), "-s", *wrong, f"{scenario.url}/protected"))
    assert (told["error"], told["code"]) == ("Invalid token", "api_key_unknown")
    assert scenario.before_sidecar.passed == b""


# Other verifiers


class Issued(NamedTuple):
    """A token of the gateway, and the values to verify it."""

    token: str
    issuer: str
    jwks_uri: str
    alg: str


@asynccontextmanager
async def issued(sidecar: StartSidecar, tmp_path: Path, alg: str) -> AsyncIterator[Issued]:
    keys = Keys(tmp_path)
    keys.sign_with(TimedKey(SigningKey.generate(alg)))
    alice = keys.new("alice", "read", nickname="Jörg")
    signing = {
        "issuer": ISSUER,
        "keys_file": str(keys.signing),
        "token_endpoint": {"audience": AUDIENCE, "algorithm": alg},
    }
    settings = keys.settings(signing=signing, upstream="http://127.0.0.1:9")
    async with sidecar(**settings) as url, aiohttp.ClientSession() as client:
        here = f"{url}{urlsplit(ISSUER).path}"
        basic = {"Authorization": aiohttp.encode_basic_auth("alice", alice)}
        form = {"grant_type": "client_credentials"}
        async with client.post(f"{here}/token", data=form, headers=basic) as answer:
            token = (await answer.json())["access_token"]
        yield Issued(token, ISSUER, f"{here}/.well-known/jwks.json", alg)


def check(claims: dict[str, Any], it: Issued) -> None:
    assert (claims["sub"], claims["scope"], claims["nickname"]) == ("alice", "read", "Jörg")
    assert (claims["iss"], claims["aud"]) == (it.issuer, AUDIENCE)


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_pyjwt_accepts_the_tokens(sidecar: StartSidecar, tmp_path: Path, alg: str) -> None:
    async with issued(sidecar, tmp_path, alg) as it:
        keys = jwt.PyJWKClient(it.jwks_uri)
        key = await asyncio.to_thread(keys.get_signing_key_from_jwt, it.token)
        check(jwt.decode(it.token, key, algorithms=[alg], audience=AUDIENCE, issuer=it.issuer), it)


@pytest.mark.parametrize("alg", ["RS256", "ES256"])  # EdDSA needs another gem
async def test_rubys_jwt_accepts_the_tokens(sidecar: StartSidecar, tmp_path: Path, need: Need, alg: str) -> None:
    ruby = need("ruby")
    found = await output(ruby, "-e", "puts Gem::Specification.find_all_by_name('jwt').map(&:full_gem_path)")
    need(found.strip() or "the gem jwt", "apt-get install ruby-jwt")
    async with issued(sidecar, tmp_path, alg) as it:
        script = str(HERE / "verifiers" / "verify.rb")
        told = await output(ruby, script, it.jwks_uri, it.issuer, AUDIENCE, alg, stdin=it.token)
        check(json.loads(told), it)


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_nodes_jose_accepts_the_tokens(sidecar: StartSidecar, tmp_path: Path, need: Need, alg: str) -> None:
    node = need("node")
    need(str(JOSE), "npm ci --prefix tests/real/idp")
    async with issued(sidecar, tmp_path, alg) as it:
        script = str(HERE / "verifiers" / "verify.mjs")
        told = await output(node, script, str(JOSE), it.jwks_uri, it.issuer, AUDIENCE, alg, stdin=it.token)
        check(json.loads(told), it)


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_envoy_accepts_the_tokens(sidecar: StartSidecar, tmp_path: Path, need: Need, alg: str) -> None:
    need(str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it")
    async with issued(sidecar, tmp_path, alg) as it, RawBackend() as backend:
        issuer = Issuer("main", "ES256", "")  # its own key is not used
        issuer.iss, issuer.jwks_uri = it.issuer, it.jwks_uri
        setting = Setting(tmp_path, backend.address[1], (issuer,))
        with started(envoy.PEER, setting) as proxy:
            await asyncio.to_thread(await_accepted, proxy, it.token)
            seen = await backend.received()
            assert (seen.get("x-jwt-sub"), seen.get("x-jwt-scope")) == ("alice", "read")
