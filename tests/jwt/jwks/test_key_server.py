"""Requests to the server of an issuer's keys: TLS, headers, the egress proxy, and the clock."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trustme

from sidecar.app.server import Sidecar, build
from sidecar.config import parse
from sidecar.jwt.jwks.key_server import KeyServer, Session, clock_offset_s, egress_proxy, shown
from sidecar.jwt.jwks.key_set import FetchFailed, KeySet
from tests.peers import tokens
from tests.peers.backend import RawBackend, send
from tests.peers.clock import EPOCH, HandClock
from tests.peers.forward import ForwardProxy
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.raw import fetch as ask
from tests.peers.tls import authority
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request, response

KEYS = {"keys": [tokens.public_jwk("EdDSA")]}


@asynccontextmanager
async def sidecar_of(
    directory: Path, iss: str, environ: dict[str, str] | None = None, **keys: Any
) -> AsyncIterator[Sidecar]:
    """The objects of a configuration with one issuer; nothing runs."""
    config = {
        "listen": "127.0.0.1:0", "health": {"listen": "127.0.0.1:0"}, "admin": {"listen": "127.0.0.1:0"},
        "access_log": "off", "upstream": "http://127.0.0.1:1",
        "issuers": {"main": {"issuer": iss, "audiences": [AUDIENCE], **keys}},
    }  # fmt: skip
    sidecar = build(parse(json.dumps(config), base=directory, environ=environ or {}), HandClock())
    try:
        yield sidecar
    finally:
        await sidecar.stop()


async def keys_of(directory: Path, iss: str, environ: dict[str, str] | None = None, **keys: Any) -> KeySet:
    async with sidecar_of(directory, iss, environ, **keys) as sidecar:
        return await sidecar.assembly.sources["main"].fetch()


async def failure(directory: Path, iss: str, **keys: Any) -> str:
    with pytest.raises(FetchFailed) as caught:
        await keys_of(directory, iss, **keys)
    return str(caught.value)


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer:
        yield issuer


# The content of requests


async def test_fetches_have_the_sidecars_user_agent(issuer: ScriptedIssuer, tmp_path: Path) -> None:
    await keys_of(tmp_path, issuer.issuer)
    accept = "application/jwk-set+json, application/json, */*;q=0.1"
    assert {sent.get("accept") for sent in issuer.requests} == {accept}
    assert {sent.get("user-agent") for sent in issuer.requests} == {f"jwt-sidecar/{version('jwt-sidecar')}"}


async def test_a_configured_user_agent_replaces_the_default(issuer: ScriptedIssuer, tmp_path: Path) -> None:
    await keys_of(tmp_path, issuer.issuer, jwks_headers={"user-agent": "Mozilla/5.0"})
    assert {tuple(sent.all("user-agent")) for sent in issuer.requests} == {("Mozilla/5.0",)}


async def test_headers_of_the_configuration_go_with_each_request(issuer: ScriptedIssuer, tmp_path: Path) -> None:
    headers = {"X-Api-Key": "abc", "Authorization": "Basic eA==", "Accept": "application/jwk-set+json"}
    assert (await keys_of(tmp_path, issuer.issuer, jwks_headers=headers)).document == KEYS
    assert len(issuer.requests) == 2
    for sent in issuer.requests:
        assert {name: sent.get(name) for name in headers} == headers


async def test_the_bearer_token_file_is_read_for_each_fetch(issuer: ScriptedIssuer, tmp_path: Path) -> None:
    async with sidecar_of(tmp_path, issuer.issuer, jwks_uri=issuer.jwks_uri, jwks_bearer_token_file="token") as sidecar:
        for token in ("first", "second"):
            (tmp_path / "token").write_text(f"{token}\n")
            await sidecar.assembly.sources["main"].fetch()
            assert issuer.requests[-1].all("authorization") == [f"Bearer {token}"]


@pytest.mark.parametrize("content", [None, "", "\n", "two words", "a\nb", "é"])
async def test_an_invalid_bearer_token_file_stops_the_fetch(
    content: str | None, issuer: ScriptedIssuer, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    said = await failure(tmp_path, issuer.issuer, jwks_bearer_token_file="token")
    assert said == f"{tmp_path / 'token'}: holds no bearer token"
    assert issuer.connections == 0


async def test_credentials_follow_a_redirect_within_the_server(issuer: ScriptedIssuer, tmp_path: Path) -> None:
    issuer.on_discovery = Answer.redirect("/.well-known/jwks.json")
    await keys_of(
        tmp_path, "https://idp.test/", jwks_uri=issuer.url + issuer.discovery_path, jwks_headers={"X-Api-Key": "abc"}
    )
    assert [sent.get("x-api-key") for sent in issuer.requests] == ["abc", "abc"]


async def test_credentials_go_only_to_the_configured_server(issuer: ScriptedIssuer, tmp_path: Path) -> None:
    """A discovery document may name another server for the keys. The credentials do not go there."""
    (tmp_path / "token").write_text("secret")
    async with ScriptedIssuer(algs=["EdDSA"]) as other:
        issuer.on_discovery = Answer.json({"issuer": issuer.issuer, "jwks_uri": other.jwks_uri})
        found = await keys_of(
            tmp_path, issuer.issuer, jwks_headers={"X-Api-Key": "abc"}, jwks_bearer_token_file="token"
        )
        assert found.document == KEYS
        assert issuer.requests[0].get("authorization") == "Bearer secret"
        assert [(sent.get("authorization"), sent.get("x-api-key")) for sent in other.requests] == [(None, None)]


# TLS


def server(*names: str, ca: trustme.CA | None = None, clients: trustme.CA | None = None) -> ScriptedIssuer:
    """An issuer whose certificate is for these names. It may request a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (ca or authority()).issue_cert(*names).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    issuer = ScriptedIssuer(algs=["EdDSA"])
    issuer.tls = context
    return issuer


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return "ca.pem"


async def test_a_configured_authority_replaces_those_of_the_system(tmp_path: Path, ca_file: str) -> None:
    async with server("127.0.0.1") as issuer, server("127.0.0.1", ca=trustme.CA()) as stranger:
        assert (await keys_of(tmp_path, issuer.issuer, jwks_tls={"ca_file": ca_file})).document == KEYS
        untrusted = "its certificate is not trusted"
        assert (await failure(tmp_path, issuer.issuer)).endswith(untrusted)
        assert (await failure(tmp_path, stranger.issuer, jwks_tls={"ca_file": ca_file})).endswith(untrusted)
        assert stranger.requests == []


async def test_the_file_of_an_authority_is_read_for_each_fetch(tmp_path: Path, ca_file: str) -> None:
    renewed = trustme.CA()
    async with (
        server("127.0.0.1", ca=renewed) as issuer,
        sidecar_of(tmp_path, issuer.issuer, jwks_tls={"ca_file": ca_file}) as sidecar,
    ):
        fetch = sidecar.assembly.sources["main"].fetch
        with pytest.raises(FetchFailed, match="its certificate is not trusted"):
            await fetch()
        renewed.cert_pem.write_to_path(str(tmp_path / ca_file))
        assert (await fetch()).document == KEYS


async def test_server_name_replaces_the_host_name_in_the_check_of_a_certificate(tmp_path: Path, ca_file: str) -> None:
    async with server("idp.internal") as issuer:
        named = {"ca_file": ca_file, "server_name": "idp.internal"}
        assert (await keys_of(tmp_path, issuer.issuer, jwks_tls=named)).document == KEYS
        for wrong in ({"ca_file": ca_file}, {"ca_file": ca_file, "server_name": "idp.external"}):
            assert (await failure(tmp_path, issuer.issuer, jwks_tls=wrong)).endswith("its certificate is not trusted")
        assert len(issuer.requests) == 2


async def test_server_name_applies_only_to_the_configured_server(tmp_path: Path, ca_file: str) -> None:
    async with server("idp.internal") as issuer, server("127.0.0.1") as other:
        issuer.on_discovery = Answer.json({"issuer": issuer.issuer, "jwks_uri": other.jwks_uri})
        named = {"ca_file": ca_file, "server_name": "idp.internal"}
        assert (await keys_of(tmp_path, issuer.issuer, jwks_tls=named)).document == KEYS
        issuer.on_discovery = Answer.json({"issuer": other.issuer, "jwks_uri": issuer.jwks_uri})
        other.on_discovery = Answer.json({"issuer": other.issuer, "jwks_uri": issuer.jwks_uri})
        other_named = {"ca_file": ca_file, "server_name": "127.0.0.1"}
        assert (await failure(tmp_path, other.issuer, jwks_tls=other_named)).endswith("its certificate is not trusted")


@pytest.mark.parametrize("together", [True, False])
async def test_a_client_certificate_is_sent_on_request(tmp_path: Path, ca_file: str, together: bool) -> None:
    clients = trustme.CA()
    shown = clients.issue_cert("sidecar.test")
    if together:
        shown.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
        files = {"cert_file": "client.pem"}
    else:
        shown.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
        shown.private_key_pem.write_to_path(str(tmp_path / "client.key"))
        files = {"cert_file": "client.pem", "key_file": "client.key"}
    async with server("127.0.0.1", clients=clients) as issuer:
        assert (await keys_of(tmp_path, issuer.issuer, jwks_tls={"ca_file": ca_file, **files})).document == KEYS
        await failure(tmp_path, issuer.issuer, jwks_tls={"ca_file": ca_file})
        assert len(issuer.requests) == 2


async def test_insecure_skip_verify_accepts_any_certificate(tmp_path: Path) -> None:
    async with server("another.test", ca=trustme.CA()) as issuer:
        found = await keys_of(tmp_path, issuer.issuer, {"ALLOW_INSECURE": "1"}, jwks_tls={"insecure_skip_verify": True})
        assert found.document == KEYS


@pytest.mark.parametrize("content", [None, b"", b"junk"])
async def test_an_unreadable_authority_fails_the_fetch(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    async with server("127.0.0.1") as issuer:
        said = await failure(tmp_path, issuer.issuer, jwks_tls={"ca_file": "ca.pem"})
        assert said.startswith(f"{tmp_path / 'ca.pem'}: ")
        assert issuer.connections == 0


# The egress proxy


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_plain_http_goes_through_the_proxy(
    issuer: ScriptedIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ForwardProxy({"idp.test": issuer.address}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        found = await keys_of(tmp_path, "x", jwks_uri="http://idp.test/.well-known/jwks.json", allow_http=True)
        assert found.document == KEYS
        assert proxy.asked == ["GET http://idp.test/.well-known/jwks.json"]
        assert issuer.requests[0].get("host") == "idp.test"


async def test_https_goes_through_a_tunnel_of_the_proxy(
    tmp_path: Path, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server("idp.test") as issuer:
        issuer.on_discovery = Answer.json(
            {"issuer": "https://idp.test", "jwks_uri": "https://idp.test/.well-known/jwks.json"}
        )
        async with ForwardProxy({"idp.test:443": issuer.address}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            found = await keys_of(
                tmp_path,
                "https://idp.test",
                jwks_tls={"ca_file": ca_file},
                jwks_headers={"Authorization": "Basic secret"},
            )
            assert found.document == KEYS
            assert set(proxy.asked) == {"CONNECT idp.test:443"}
            assert b"secret" not in b"".join(asked.head for asked in proxy.requests)
            assert [sent.get("authorization") for sent in issuer.requests] == ["Basic secret"] * 2
            assert (await failure(tmp_path, "https://idp.test")).endswith("its certificate is not trusted")


async def test_credentials_of_the_proxy_go_to_the_proxy(
    issuer: ScriptedIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ForwardProxy({"idp.test": issuer.address}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:pass@"))
        await keys_of(tmp_path, "x", jwks_uri="http://idp.test/.well-known/jwks.json", allow_http=True)
        assert proxy.requests[0].get("proxy-authorization") == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_is_reported(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ForwardProxy({"idp.test:443": ("127.0.0.1", 1)}, status=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        said = await failure(tmp_path, "x", jwks_uri="https://idp.test/keys")
        assert said == f"https://idp.test/keys: the egress proxy refused with status {status}"


async def test_a_proxy_that_is_down_is_reported_and_not_bypassed(
    issuer: ScriptedIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ForwardProxy({"localhost": issuer.address}) as proxy:
        await proxy.go_down()
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        said = await failure(tmp_path, "x", jwks_uri="http://idp.test/keys", allow_http=True)
        assert said == "http://idp.test/keys: the egress proxy cannot be reached"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://proxy.test:port", "HTTPS_PROXY is not the URL of a proxy, such as http://proxy.example:3128"),
        ("http://", "HTTPS_PROXY is not the URL of a proxy, such as http://proxy.example:3128"),
        ("http://proxy.test:0", "HTTPS_PROXY is not the URL of a proxy, such as http://proxy.example:3128"),
        (
            "socks5://proxy.test:1080",
            "HTTPS_PROXY names a proxy of socks5; only http and https proxies are supported",
        ),
    ],
)
async def test_an_invalid_proxy_is_reported_with_its_variable(
    value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert await failure(tmp_path, "x", jwks_uri="https://idp.test/keys") == said


@pytest.mark.parametrize("proxy", ["http://proxy.test:1", "https://proxy.test:3128"])
def test_a_proxy_may_have_any_port_and_use_tls(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert egress_proxy("https://idp.test/keys") == proxy


@pytest.mark.parametrize(
    ("url", "proxy", "encrypted"),
    [
        ("http://idp.test/keys", "http", False),
        ("https://idp.test/keys", "http", True),
        ("http://idp.test/keys", "https", True),
    ],
)
async def test_a_tls_context_is_made_only_for_a_server_or_a_proxy_with_tls(
    url: str, proxy: str, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[ssl.SSLContext] = []

    def tls() -> ssl.SSLContext:
        contexts.append(ssl.create_default_context())
        return contexts[-1]

    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"{proxy}://127.0.0.1:1")
    session = Session()
    with pytest.raises(FetchFailed, match="the egress proxy cannot be reached"):
        await KeyServer(session, url, tls=tls).get(url)
    await session.close()
    assert bool(contexts) is encrypted


def test_a_proxy_without_a_scheme_uses_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    assert egress_proxy("https://idp.test/keys") == "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("http://idp.test/", "", True),
        ("http://idp.test/", "other.test", True),
        ("http://idp.test/", "idp.test", False),
        ("http://idp.test/", ".test", False),
        ("http://a.idp.test/", "idp.test", False),
        ("http://idp.test/", "*", False),
        ("https://idp.test/", "", False),
        ("http://127.0.0.1:1/", "", False),
        ("http://localhost/", "", False),
        ("http://[::1]/", "", False),
    ],
)
def test_no_proxy_and_loopback_bypass_the_proxy(
    url: str, no_proxy: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert egress_proxy(url) == ("http://proxy.test:3128" if proxied else None)


def test_a_long_url_is_cut_in_a_message() -> None:
    whole = f"https://idp.test/{'a' * 283}"
    assert (len(whole), shown(whole)) == (300, whole)
    assert shown(whole + "a") == whole + "..."


# The server's clock


@pytest.mark.parametrize(
    ("date", "age", "offset_s"),
    [
        (formatdate(EPOCH, usegmt=True), "", 0.0),
        (formatdate(EPOCH + 45, usegmt=True), "", 45.0),
        (formatdate(EPOCH - 45, usegmt=True), "", -45.0),
        (formatdate(EPOCH - 45, usegmt=True), "45", 0.0),
        (formatdate(EPOCH - 45, usegmt=True), "-1", -45.0),
        (formatdate(EPOCH - 45, usegmt=True), "x", -45.0),
        (formatdate(EPOCH, usegmt=True), "²", 0.0),
        (formatdate(EPOCH - 10**10, usegmt=True), str(10**10), 0.0),
        ("", "", None),
        ("yesterday", "", None),
        ("Thu, 32 Jan 2027 08:00:00 GMT", "", None),
        ("Thu, 01 Jan 99999 08:00:00 GMT", "", None),
        ("x" * 5000, "9" * 5000, None),
    ],
)
def test_the_offset_of_a_servers_clock_follows_from_date_and_age(date: str, age: str, offset_s: float | None) -> None:
    assert clock_offset_s(date, age, EPOCH) == offset_s


@pytest.mark.parametrize(
    ("headers", "offset_s"),
    [
        ({"Date": formatdate(EPOCH - 45, usegmt=True), "Age": "40"}, -5.0),
        ({"Date": formatdate(EPOCH - 45, usegmt=True)}, -45.0),
        ({"Age": "40"}, None),
    ],
)
async def test_date_and_age_are_read_from_the_answer_with_the_key_set(
    tmp_path: Path, headers: dict[str, str], offset_s: float | None
) -> None:
    answer = response(200, json.dumps(KEYS).encode(), headers=list(headers.items()))
    async with RawBackend(send(answer)) as server:
        assert (await keys_of(tmp_path, "x", jwks_uri=server.url)).clock_offset_s == offset_s


async def test_the_offset_of_an_issuers_clock_is_measured_and_shown(tmp_path: Path) -> None:
    clock = HandClock()
    async with (
        ScriptedIssuer(algs=["EdDSA"], date_offset_s=45.0, now=clock.wall) as issuer,
        sidecar_of(tmp_path, issuer.issuer) as sidecar,
    ):
        await sidecar.start()
        while not sidecar.assembly.sources["main"].usable:
            await asyncio.sleep(0)
        metrics = await ask(sidecar.health_address, request("GET", "/metrics"))
        assert b'jwt_sidecar_jwks_clock_offset_seconds{issuer="main"} 45.0\n' in metrics.body
