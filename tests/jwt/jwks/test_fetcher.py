"""Key sets over HTTP and from files; every failure has a plain text and replaces nothing."""

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from sidecar.app.server import build
from sidecar.common.loopback import is_loopback
from sidecar.common.tls import system_context
from sidecar.config import parse
from sidecar.jwt.jwks.fetcher import FileKeySet, RemoteKeySet, SeveralKeySets, refresh_hint
from sidecar.jwt.jwks.key_server import TOTAL_S, KeyServer, max_age, shown
from sidecar.jwt.jwks.key_set import Fetch, FetchFailed, KeySet
from tests.peers import tokens
from tests.peers.backend import RawBackend, send
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.tls import client_tls
from tests.peers.wire import close

KEYS = {"keys": [tokens.public_jwk("EdDSA")]}
MAX_BODY_BYTES = 1024 * 1024
GOOD = json.dumps(KEYS).encode()
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer:
        yield issuer


async def fetch(
    session: aiohttp.ClientSession,
    issuer: str,
    jwks_uri: str | None = None,
    *,
    allow_http: bool = False,
    total_s: float = TOTAL_S,
    tls: Callable[[], ssl.SSLContext] = system_context,
) -> KeySet:
    server = KeyServer(lambda: session, jwks_uri or issuer, total_s, tls=tls)
    return await RemoteKeySet(server, issuer, jwks_uri, allow_http)()


class NoNames(AbstractResolver):
    """A resolver on a machine whose name server is down."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        raise OSError("eyJ: a library's text")

    async def close(self) -> None:
        pass


class NamesHere(NoNames):
    """A resolver that resolves every name to this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        here = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        return [here]


async def failure(*args: Any, **over: Any) -> str:
    with pytest.raises(FetchFailed) as caught:
        await fetch(*args, **over)
    return str(caught.value)


async def test_the_query_of_a_url_is_not_reported(session: aiohttp.ClientSession, issuer: ScriptedIssuer) -> None:
    told = await failure(session, issuer.issuer, f"{issuer.jwks_uri}?key=secret")
    assert told == f"{issuer.jwks_uri}: status 404"  # the issuer serves the path only without a query


# The place of the key set


async def test_the_discovery_document_names_the_url_of_the_keys(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer
) -> None:
    issuer.jwks_path = "/elsewhere"
    assert (await fetch(session, issuer.issuer)).document == KEYS
    assert [request.target for request in issuer.requests] == [DISCOVERY, "/elsewhere"]


async def test_the_discovery_document_is_fetched_each_time(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer
) -> None:
    await fetch(session, issuer.issuer)
    issuer.jwks_path = "/moved"
    assert (await fetch(session, issuer.issuer)).document == KEYS
    assert issuer.discovery_fetches == 2


async def test_a_configured_jwks_uri_is_used_without_discovery(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer
) -> None:
    issuer.on_discovery = Answer(500)
    assert (await fetch(session, "https://idp.example/", issuer.jwks_uri)).document == KEYS
    assert issuer.discovery_fetches == 0


@pytest.mark.parametrize("path", ["", "/", "/tenant", "/tenant/", "/__zuplo/issuer"])
async def test_keys_come_from_the_default_path_without_a_discovery_document(
    session: aiohttp.ClientSession, path: str
) -> None:
    async with ScriptedIssuer(path=path.rstrip("/"), discovery=False) as issuer:
        document = (await fetch(session, issuer.url + path)).document
        assert isinstance(document, dict)
        assert document["keys"] == issuer.keys
        assert [request.target for request in issuer.requests] == [
            path.rstrip("/") + DISCOVERY,
            path.rstrip("/") + JWKS,
        ]


@pytest.mark.parametrize("status", [204, 401, 403, 410, 500, 503])
async def test_only_a_404_means_that_there_is_no_discovery_document(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, status: int
) -> None:
    issuer.on_discovery = Answer(status)
    assert await failure(session, issuer.issuer) == f"{issuer.url}{DISCOVERY}: status {status}"
    assert issuer.jwks_fetches == 0


def other_issuer(issuer: ScriptedIssuer, named: object) -> str:
    return f'{issuer.url}{DISCOVERY}: names the issuer {json.dumps(named)}; the configured one is "{issuer.issuer}"'


def metadata(path: str = "") -> str:
    return f"/.well-known/oauth-authorization-server{path}"


class MetadataOnly(ScriptedIssuer):
    """An issuer without OpenID Connect discovery, with the metadata of RFC 8414: `said` is the document, None the right one."""

    said: Answer | None = None

    def __init__(self, path: str = "") -> None:
        super().__init__(algs=["EdDSA"], path=path, jwks_path="/keys", discovery=False)

    def _answer_to(self, target: str) -> Answer:
        if target == metadata(self.path):
            return self.said or Answer.json({"issuer": self.issuer, "jwks_uri": self.jwks_uri})
        return super()._answer_to(target)


@pytest.mark.parametrize("path", ["", "/tenant", "/tenant/one"])
async def test_oauth_metadata_names_the_url_of_the_keys(session: aiohttp.ClientSession, path: str) -> None:
    async with MetadataOnly(path) as issuer:
        assert (await fetch(session, issuer.issuer)).document == KEYS
        assert [request.target for request in issuer.requests] == [
            path + DISCOVERY,
            path + JWKS,
            metadata(path),
            "/keys",
        ]


async def test_oauth_metadata_must_name_the_configured_issuer(session: aiohttp.ClientSession) -> None:
    async with MetadataOnly("/tenant") as issuer:
        issuer.said = Answer.json({"issuer": issuer.url, "jwks_uri": issuer.jwks_uri})
        assert await failure(session, issuer.issuer) == (
            f"{issuer.issuer}{DISCOVERY}: status 404; {issuer.issuer}{JWKS}: status 404; {issuer.url}{metadata('/tenant')}: "
            f'names the issuer "{issuer.url}"; the configured one is "{issuer.issuer}"'
        )
        assert issuer.jwks_fetches == 0
        issuer.said = Answer.json({"issuer": issuer.issuer})
        assert (await failure(session, issuer.issuer)).endswith(
            "has no jwks_uri that may be fetched (https; from an issuer on loopback http there, too), but null"
        )


async def test_every_url_that_was_tried_is_reported_with_its_answer(session: aiohttp.ClientSession) -> None:
    async with ScriptedIssuer(path="/tenant", jwks_path="/keys", discovery=False) as issuer:
        said = f"{issuer.issuer}{DISCOVERY}: status 404; {issuer.issuer}{JWKS}: status 404"
        last = f"{issuer.url}{metadata('/tenant')}: status 404"
        assert await failure(session, issuer.issuer) == f"{said}; {last}"
        issuer.jwks_path, issuer.on_jwks = f"/tenant{JWKS}", Answer(500)
        assert await failure(session, issuer.issuer) == said.replace("jwks.json: status 404", "jwks.json: status 500")


async def test_an_unusual_issuer_of_a_discovery_document_is_quoted_and_cut(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer
) -> None:
    issuer.on_discovery = Answer.json({"issuer": "a\r\nb\x1b" + "x" * 1000, "jwks_uri": issuer.jwks_uri})
    said = await failure(session, issuer.issuer)
    assert said.isprintable()
    assert len(said) < 400
    assert 'names the issuer "a\\r\\nb' in said


async def test_no_other_url_is_tried_when_the_documents_jwks_uri_fails(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer
) -> None:
    issuer.on_discovery = Answer.json({"issuer": issuer.issuer, "jwks_uri": f"{issuer.url}/gone"})
    assert await failure(session, issuer.issuer) == f"{issuer.url}/gone: status 404"
    assert [request.target for request in issuer.requests] == [DISCOVERY, "/gone"]


@pytest.mark.parametrize(
    "named",
    [
        pytest.param("https://evil.example", id="another"),
        pytest.param("{issuer}/", id="with a trailing slash"),
        pytest.param("{issuer}x", id="with one more letter"),
        pytest.param(None, id="null"),
        pytest.param(["{issuer}"], id="a list"),
    ],
)
async def test_the_discovery_document_must_name_the_configured_issuer(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, named: object
) -> None:
    named = json.loads(json.dumps(named).replace("{issuer}", issuer.issuer))
    issuer.on_discovery = Answer.json({"issuer": named, "jwks_uri": issuer.jwks_uri})
    assert await failure(session, issuer.issuer) == other_issuer(issuer, named)
    issuer.on_discovery = Answer.json({"jwks_uri": issuer.jwks_uri})
    assert await failure(session, issuer.issuer) == other_issuer(issuer, None)
    assert issuer.jwks_fetches == 0


@pytest.mark.parametrize("document", [[], None, "x", 5], ids=repr)
async def test_a_discovery_document_must_be_an_object(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, document: object
) -> None:
    issuer.on_discovery = Answer.json(document)
    assert await failure(session, issuer.issuer) == other_issuer(issuer, None)


@pytest.mark.parametrize(
    "jwks_uri",
    [
        pytest.param(None, id="null"),
        pytest.param(5, id="number"),
        pytest.param(["https://127.0.0.1/"], id="list"),
        pytest.param("", id="empty"),
        pytest.param("/jwks", id="relative"),
        pytest.param("file:///etc/passwd", id="file://"),
        pytest.param("ftp://127.0.0.1/jwks", id="ftp"),
        pytest.param("data:application/json,{}", id="data"),
        pytest.param("http://idp.example/jwks", id="plain http"),
        pytest.param("http://localhost.example/jwks", id="plain http to a name that begins like loopback"),
        pytest.param("http://127.0.0.1.example/jwks", id="plain http to a name that begins like an address"),
        pytest.param("http:///jwks", id="http without a host"),
        pytest.param("https:///jwks", id="https without a host"),
        pytest.param("https://[::1/jwks", id="not a URL"),
    ],
)
async def test_a_jwks_uri_must_be_https_or_on_loopback(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, jwks_uri: object
) -> None:
    issuer.on_discovery = Answer.json({"issuer": issuer.issuer, "jwks_uri": jwks_uri})
    assert await failure(session, issuer.issuer) == (
        f"{issuer.url}{DISCOVERY}: has no jwks_uri that may be fetched (https; from an issuer on loopback http there, too), "
        f"but {json.dumps(jwks_uri)}"
    )


async def test_plain_http_beyond_loopback_needs_allow_http(
    issuer: ScriptedIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames())) as session:
        issuer.on_discovery = Answer.json({"issuer": issuer.issuer, "jwks_uri": "http://idp.example/jwks"})
        assert "no jwks_uri that may be fetched" in await failure(session, issuer.issuer)
        said = await failure(session, issuer.issuer, allow_http=True)
        assert said == "http://idp.example/jwks: its host name cannot be resolved"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_remote_issuer_cannot_name_a_jwks_uri_on_loopback(
    issuer: ScriptedIssuer, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    elsewhere = issuer.issuer.replace("127.0.0.1", "idp.example")
    jwks_uri = issuer.jwks_uri.replace("127.0.0.1", host)
    issuer.on_discovery = Answer.json({"issuer": elsewhere, "jwks_uri": jwks_uri})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NamesHere())) as session:
        assert "no jwks_uri that may be fetched" in await failure(session, elsewhere)
        assert issuer.fetches[JWKS] == 0
        assert (await fetch(session, elsewhere, allow_http=True)).document == KEYS


async def test_keys_are_fetched_over_verified_tls(session: aiohttp.ClientSession) -> None:
    async with ScriptedIssuer(algs=["EdDSA"], tls=True) as issuer:
        assert (await fetch(session, issuer.issuer, tls=client_tls)).document == KEYS
        assert await failure(session, issuer.issuer) == f"{issuer.url}{DISCOVERY}: its certificate is not trusted"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("127.0.0", False),
        ("128.0.0.1", False),
        ("10.127.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_loopback_is_recognized_without_dns(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_one_redirect_within_the_origin_is_followed(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, status: int
) -> None:
    issuer.on_discovery = Answer.redirect(JWKS, status)
    assert (await fetch(session, "x", issuer.url + DISCOVERY)).document == KEYS
    issuer.on_discovery = Answer.redirect(issuer.jwks_uri, status)
    assert (await fetch(session, "x", issuer.url + DISCOVERY)).document == KEYS


async def test_a_second_redirect_is_not_followed(session: aiohttp.ClientSession, issuer: ScriptedIssuer) -> None:
    issuer.on_jwks = Answer.redirect(JWKS)
    assert await failure(session, "x", issuer.jwks_uri) == f"{issuer.jwks_uri}: status 302"
    assert issuer.jwks_fetches == 2


@pytest.mark.parametrize("status", [300, 303, 304, 305])
async def test_another_3xx_status_is_a_failure(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, status: int
) -> None:
    issuer.on_discovery = Answer.redirect(JWKS, status)
    assert await failure(session, issuer.issuer) == f"{issuer.url}{DISCOVERY}: status {status}"
    assert issuer.jwks_fetches == 0


@pytest.mark.parametrize("where", ["on_jwks", "on_discovery"])
async def test_a_redirect_to_another_origin_is_not_followed(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, where: str
) -> None:
    async with ScriptedIssuer() as evil:
        setattr(issuer, where, Answer.redirect(evil.jwks_uri))
        said = await failure(session, issuer.issuer)
        assert said.endswith(f': redirects to another origin ("{evil.url}"), which is not followed')
        assert evil.connections == 0


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("https://{authority}/jwks", id="another scheme"),
        pytest.param("http://localhost:{port}/jwks", id="another name for the host"),
        pytest.param("http://user:secret@{authority}/jwks", id="with credentials"),
        pytest.param("//evil.example/jwks", id="another host without a scheme"),
        pytest.param("file:///etc/passwd", id="file://"),
    ],
)
async def test_another_scheme_host_or_port_is_another_origin(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, location: str
) -> None:
    host, port = issuer.address
    issuer.on_jwks = Answer.redirect(location.format(authority=f"{host}:{port}", port=port))
    said = await failure(session, "x", issuer.jwks_uri)
    assert said.startswith(f"{issuer.jwks_uri}: redirects to another origin (")
    assert said.endswith("), which is not followed")
    assert "secret" not in said


async def test_a_redirect_without_a_valid_url_fails(session: aiohttp.ClientSession, issuer: ScriptedIssuer) -> None:
    issuer.on_jwks = Answer.redirect("http://[")
    assert await failure(session, "x", issuer.jwks_uri) == f"{issuer.jwks_uri}: not a valid HTTP answer"
    issuer.on_jwks = Answer(302)
    assert await failure(session, "x", issuer.jwks_uri) == f"{issuer.jwks_uri}: status 302"


# Failures of an answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(Answer(500), "status 500", id="500"),
        pytest.param(Answer(404, GOOD), "status 404", id="404"),
        pytest.param(Answer(204), "status 204", id="204"),
        pytest.param(Answer(206, GOOD), "status 206", id="206"),
        pytest.param(Answer(401, GOOD), "status 401", id="401"),
        pytest.param(Answer.html(), "an HTML page, not JSON", id="HTML"),
        pytest.param(Answer(200, GOOD[:-1]), "not JSON", id="invalid JSON"),
        pytest.param(Answer(200, b""), "not JSON", id='""'),
        pytest.param(Answer(200, b'{"keys":"\xff"}'), "not JSON", id="bad UTF-8"),
        pytest.param(Answer(200, b"[" * 100_000 + b"]" * 100_000), "not JSON", id="deep nesting"),
        pytest.param(Answer(200, b"9" * 10_000), "not JSON", id="huge integer"),
        pytest.param(Answer(200, GOOD, by_reset=True, cut=20), "the connection broke off", id="reset"),
        pytest.param(Answer(200, GOOD, cut=20), "the connection broke off", id="half body"),
        pytest.param(Answer(200, b" " * 1024, times=30 * 1024), "larger than 1 MiB", id="30 MB"),
        pytest.param(Answer.gzipped(b" " * 30_000_000), "larger than 1 MiB", id="gzip bomb"),
        pytest.param(
            Answer(200, GOOD + b" " * (MAX_BODY_BYTES - len(GOOD) + 1)),
            "larger than 1 MiB",
            id="one byte over the limit",
        ),
        pytest.param(
            Answer(200, b"not gzip", (("Content-Encoding", "gzip"),)),
            "the connection broke off",
            id="Content-Encoding: gzip, but no gzip",
        ),
    ],
)
async def test_a_bad_answer_is_reported_with_its_fault(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, answer: Answer, why: str
) -> None:
    issuer.on_jwks = answer
    assert await failure(session, "x", issuer.jwks_uri) == f"{issuer.jwks_uri}: {why}"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not a valid HTTP answer", id="another protocol"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", "not a valid HTTP answer", id="no status"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "not a valid HTTP answer", id="huge head"
        ),
        pytest.param(b"", "the connection broke off", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Len", "the connection broke off", id="half a head"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not a valid HTTP answer", id="no chunk"
        ),
    ],
)
async def test_an_answer_that_is_not_http_is_reported(session: aiohttp.ClientSession, raw: bytes, why: str) -> None:
    async with RawBackend(send(raw, close=True)) as backend:
        url = f"{backend.url}/secret-path"
        assert await failure(session, "x", url) == f"{url}: {why}"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(200, GOOD, (("Content-Type", "text/plain"),)), id="text/plain"),
        pytest.param(Answer(200, GOOD, ()), id="no Content-Type"),
        pytest.param(Answer(200, GOOD, (("Content-Type", "application/jwk-set+json"),)), id="application/jwk-set+json"),
        pytest.param(Answer.gzipped(GOOD), id="gzip"),
        pytest.param(Answer(200, GOOD + b" " * (MAX_BODY_BYTES - len(GOOD))), id="exactly at the size limit"),
    ],
)
async def test_a_key_set_is_read_with_every_content_type_and_gzip(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer, answer: Answer
) -> None:
    issuer.on_jwks = answer
    assert (await fetch(session, "x", issuer.jwks_uri)).document == KEYS


async def test_an_issuer_that_is_down_is_reported(session: aiohttp.ClientSession, issuer: ScriptedIssuer) -> None:
    await issuer.go_down()
    assert await failure(session, "x", issuer.jwks_uri) == f"{issuer.jwks_uri}: no connection"


async def test_a_host_without_tls_is_reported(session: aiohttp.ClientSession) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await close(writer)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await failure(session, "x", url) == f"{url}: the TLS handshake failed"


@pytest.mark.parametrize("url", ["https://127.0.0.1:99999/", "https://" + "a" * 70 + ".example/"])
async def test_an_invalid_url_is_reported(
    session: aiohttp.ClientSession, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    assert await failure(session, "x", url) == f"{url}: not a URL"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("https://127.0.0.1:1/\x1b[31m\n\u202e", "https://127.0.0.1:1/\\u001b[31m\\n\\u202e"),
        ("https://user:password@127.0.0.1:1/", "https://127.0.0.1:1/"),
        ("https://127.0.0.1:1/" + "a" * 900_000, "https://127.0.0.1:1/" + "a" * 280 + "..."),
    ],
)
def test_a_url_is_reported_in_one_short_line_without_its_user(named: str, told: str) -> None:
    assert shown(named) == told


async def test_a_hanging_fetch_times_out(session: aiohttp.ClientSession, issuer: ScriptedIssuer) -> None:
    issuer.hang()
    said = await failure(session, "x", issuer.jwks_uri, total_s=0.05)
    assert said == f"{issuer.jwks_uri}: no complete answer within 0.05 s"
    issuer.release()


async def test_the_timeout_of_a_fetch_covers_the_whole_answer(
    session: aiohttp.ClientSession, issuer: ScriptedIssuer
) -> None:
    issuer.on_jwks = Answer(200, GOOD, drip_s=0.02)  # more than a second in all
    said = await failure(session, "x", issuer.jwks_uri, total_s=0.1)
    assert said == f"{issuer.jwks_uri}: no complete answer within 0.1 s"
    await issuer.drop_connections()


# The content of requests


async def test_a_fetch_sends_no_header_of_a_client_and_no_cookie() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer:
        issuer.on_discovery = Answer(
            200,
            json.dumps({"issuer": issuer.issuer, "jwks_uri": issuer.jwks_uri}).encode(),
            (("Content-Type", "application/json"), ("Set-Cookie", "session=secret; Path=/")),
        )
        config = f"{{issuers: {{main: {{issuer: '{issuer.issuer}', audiences: [a]}}}}, upstream: 'http://127.0.0.1:1'}}"
        sidecar = build(parse(config))
        try:
            for _ in range(2):
                assert (await sidecar.assembly.sources["main"].fetch()).document == KEYS
        finally:
            await sidecar.stop()
        sent = {name.lower() for request in issuer.requests for name, _ in request.headers}
        assert len(issuer.requests) == 4
        assert {request.method for request in issuer.requests} == {"GET"}
        assert sent <= {"host", "accept", "accept-encoding", "user-agent"}


# Freshness


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", None),
        ("public", None),
        ("max-age=90", 90.0),
        ("public, max-age=90, must-revalidate", 90.0),
        ("public,max-age=90", 90.0),
        ("Max-Age=90", 90.0),
        ("max-age=0", 0.0),
        ("s-maxage=90", None),
        ("x-max-age=90", None),
        ("max-age=-1", None),
        ("max-age=1e3", None),
        ("max-age=" + "9" * 5000, None),
        ("no-store", 0.0),
        ("no-cache, max-age=90", 0.0),
        ("No-Store", 0.0),
    ],
)
def test_the_max_age_is_read_from_cache_control(cache_control: str, seconds: float | None) -> None:
    assert max_age(cache_control) == seconds


async def test_the_max_age_of_the_key_set_is_used_and_not_that_of_discovery(session: aiohttp.ClientSession) -> None:
    async with ScriptedIssuer(algs=["EdDSA"], cache_control="max-age=120") as issuer:
        assert (await fetch(session, issuer.issuer))[:2] == (KEYS, 120.0)
        issuer.cache_control = None
        issuer.on_discovery = Answer(
            200,
            json.dumps({"issuer": issuer.issuer, "jwks_uri": issuer.jwks_uri}).encode(),
            (("Cache-Control", "max-age=120"),),
        )
        assert (await fetch(session, issuer.issuer))[:2] == (KEYS, None)


@pytest.mark.parametrize(
    ("document", "seconds"),
    [
        ({"spiffe_refresh_hint": 0}, 0.0),
        ({"spiffe_refresh_hint": 2**31 - 1}, 2.0**31 - 1),
        ({"spiffe_refresh_hint": 2**31}, None),
        ({"spiffe_refresh_hint": -1}, None),
        ({"spiffe_refresh_hint": 5.0}, None),
        ({"spiffe_refresh_hint": True}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_spiffe_refresh_hint_is_a_number_of_seconds(document: object, seconds: float | None) -> None:
    assert refresh_hint(document) == seconds


@pytest.mark.parametrize(
    ("answers", "max_age_s", "offset_s"),
    [
        (((None, None), (None, None)), None, None),
        (((None, None), (90.0, 5.0)), 90.0, 5.0),
        (((90.0, 0.0), (60.0, 5.0)), 60.0, 0.0),
    ],
)
async def test_several_places_are_as_fresh_as_the_least_fresh_and_have_the_first_known_clock(
    answers: tuple[tuple[float | None, float | None], ...], max_age_s: float | None, offset_s: float | None
) -> None:
    def place(age_s: float | None, ahead_s: float | None) -> Fetch:
        async def fetch() -> KeySet:
            return KeySet(KEYS, age_s, ahead_s)

        return fetch

    found = await SeveralKeySets([(place(*answer), ["EdDSA"]) for answer in answers])()
    assert found[1:3] == (max_age_s, offset_s)


# Files


async def test_a_file_is_read_again_at_each_fetch(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    fetch = FileKeySet(file)
    file.write_bytes(GOOD)
    assert await fetch() == KeySet(KEYS, None)
    file.write_text('{"keys":[]}')
    assert await fetch() == KeySet({"keys": []}, None)


async def test_an_atomic_update_of_a_mounted_secret_is_read(tmp_path: Path) -> None:
    """A kubelet does it so: the file is a link through `..data`, and another link is renamed over `..data`."""
    for name, content in (("..1", GOOD), ("..2", b'{"keys":[5]}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "jwks.json").write_bytes(content)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "jwks.json").symlink_to("..data/jwks.json")
    fetch = FileKeySet(tmp_path / "jwks.json")
    assert (await fetch()).document == KEYS
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    assert (await fetch()).document == {"keys": [5]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "cannot be read: No such file or directory", id="missing"),
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(GOOD[:-1], "not JSON", id="half written"),
        pytest.param(b"\xff", "not JSON", id="bad UTF-8"),
        pytest.param(b"[" * 100_000, "not JSON", id="deep nesting"),
        pytest.param(GOOD + b" " * MAX_BODY_BYTES, "cannot be read: it is larger than 1 MiB", id="large"),
    ],
)
async def test_a_bad_file_is_reported_with_its_fault(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FetchFailed) as caught:
        await FileKeySet(file)()
    assert str(caught.value) == f"{file}: {why}"


async def test_a_directory_in_place_of_a_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=re.escape(f"{tmp_path}: cannot be read: Is a directory")):
        await FileKeySet(tmp_path)()


async def test_a_file_has_the_size_limit_of_an_answer(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(GOOD + b" " * (MAX_BODY_BYTES - len(GOOD)))
    assert (await FileKeySet(file)()).document == KEYS
