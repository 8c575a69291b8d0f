"""curl through the sidecar: common commands, and the behaviour of libcurl in other programs."""

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from sidecar.cli.dev.issuer import Issuer
from tests.conftest import Need
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, send
from tests.peers.wire import response
from tests.real.conftest import StartSidecar

pytestmark = pytest.mark.asyncio(loop_scope="module")

TWO_MB = os.urandom(2_000_000)  # curl sends `Expect: 100-continue` with more than one


@dataclass
class Result:
    """The result of a curl: its exit code, its output, its log of `-v`."""

    code: int
    output: bytes
    told: str


Curl = Callable[..., Awaitable[Result]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_backend() -> AsyncIterator[RawBackend]:
    async with RawBackend() as backend:
        yield backend


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(shared_backend: RawBackend, behind: StartSidecar) -> AsyncIterator[str]:
    async with behind(upstream=shared_backend.url) as url:
        yield url


@pytest.fixture
def backend(shared_backend: RawBackend) -> RawBackend:
    """The backend. It answers with the number of received bytes and their hash."""
    shared_backend.requests.clear()
    shared_backend.handler = counted
    return shared_backend


async def counted(request: Request, writer: asyncio.StreamWriter) -> None:
    body = await request.read()
    writer.write(response(200, f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()))


def digest(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


@pytest.fixture
def curl(need: Need, issuer: Issuer) -> Curl:
    """``await curl(*arguments, stdin=...)``, with a good token unless `token=False`."""
    program = need("curl")

    async def run(*arguments: str, stdin: bytes = b"", token: bool = True) -> Result:
        credentials = ["-H", f"Authorization: Bearer {issuer.mint(sub='alice')}"] if token else []
        process = await asyncio.create_subprocess_exec(
            program, "-q", "-sv", "--max-time", "20", *credentials, *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with patience("curl"):
            output, told = await process.communicate(stdin)
        assert process.returncode is not None
        return Result(process.returncode, output, told.decode("latin-1"))

    return run


async def test_a_get_reaches_the_backend_with_alices_identity(curl: Curl, url: str, backend: RawBackend) -> None:
    result = await curl(f"{url}/x?a=b")
    assert (result.code, result.output) == (0, digest(b""))
    [seen] = backend.requests
    assert (seen.method, seen.target, seen.get("x-jwt-sub"), seen.get("authorization")) == (
        "GET",
        "/x?a=b",
        "alice",
        None,
    )


async def test_a_get_without_a_token_gets_the_refusal(curl: Curl, url: str, backend: RawBackend) -> None:
    result = await curl("--fail-with-body", f"{url}/x", token=False)
    assert (result.code, json.loads(result.output)["code"]) == (22, "token_missing")
    assert backend.requests == []


async def test_a_large_post_gets_100_continue_and_arrives_whole(curl: Curl, url: str, backend: RawBackend) -> None:
    result = await curl("--data-binary", "@-", f"{url}/x", stdin=TWO_MB)
    assert "> Expect: 100-continue" in result.told
    assert "< HTTP/1.1 100 Continue" in result.told
    assert (result.code, result.output) == (0, digest(TWO_MB))
    [seen] = backend.requests
    assert (seen.get("expect"), seen.get("content-length")) == (None, "2000000")


@pytest.mark.parametrize("waits", [True, False], ids=["the body after 100 Continue", "the body at once"])
async def test_curl_reads_the_refusal_of_a_large_post(curl: Curl, url: str, backend: RawBackend, waits: bool) -> None:
    expect = [] if waits else ["-H", "Expect:"]
    result = await curl(*expect, "--data-binary", "@-", f"{url}/x", stdin=TWO_MB * 5, token=False)
    assert (result.code, json.loads(result.output)["code"]) == (0, "token_missing")
    assert "100 Continue" not in result.told
    assert backend.requests == []


async def test_an_upload_of_unknown_length_is_chunked(curl: Curl, url: str, backend: RawBackend) -> None:
    result = await curl("-T", "-", f"{url}/x", stdin=TWO_MB)
    assert (result.code, result.output) == (0, digest(TWO_MB))
    [seen] = backend.requests
    assert (seen.method, seen.get("transfer-encoding"), seen.get("content-length")) == ("PUT", "chunked", None)


async def test_an_answer_to_head_has_the_length_of_the_body(curl: Curl, url: str, backend: RawBackend) -> None:
    backend.handler = send(response(200, headers=[("Content-Length", "1234")], sized=False))
    result = await curl("-I", f"{url}/x", f"{url}/x")
    assert (result.code, result.output.count(b"Content-Length: 1234\r\n")) == (0, 2)
    assert "Re-using existing connection" in result.told
    assert [seen.method for seen in backend.requests] == ["HEAD", "HEAD"]


async def test_curl_with_http_1_0_gets_a_body_until_close(curl: Curl, url: str, backend: RawBackend) -> None:
    backend.handler = send(response(200, chunks=[b"hello ", b"world"]))
    result = await curl("--http1.0", f"{url}/x")
    assert (result.code, result.output) == (0, b"hello world")
    assert "chunked" not in result.told
    assert backend.requests[0].version == "HTTP/1.1"


async def test_a_request_for_http_2_is_served_as_http_1_1(curl: Curl, url: str, backend: RawBackend) -> None:
    result = await curl("--http2", f"{url}/x")
    assert "> Upgrade: h2c" in result.told
    assert (result.code, result.output) == (0, digest(b""))
    [seen] = backend.requests
    assert (seen.get("upgrade"), seen.get("http2-settings"), seen.get("connection")) == (None, None, None)


@pytest.mark.parametrize("path", ["/a/../b", "/a//b", "/%7Ea", "/a/./b?c=%2F"])
async def test_a_path_with_path_as_is_is_forwarded_unchanged(
    curl: Curl, url: str, backend: RawBackend, path: str
) -> None:
    result = await curl("--path-as-is", f"{url}{path}")
    assert (result.code, [seen.target for seen in backend.requests]) == (0, [path])


@pytest.mark.parametrize("path", ["/public/../x", "/public/%2e%2e/x", "/public/..%2fx", "/public/..;/x"])
async def test_a_path_with_path_as_is_does_not_leave_the_public_rule(
    curl: Curl, url: str, backend: RawBackend, path: str
) -> None:
    result = await curl("--path-as-is", f"{url}{path}", token=False)
    assert json.loads(result.output)["code"] in ("path_ambiguous", "token_missing")
    assert backend.requests == []


async def test_compressed_bodies_are_relayed_unchanged(curl: Curl, url: str, backend: RawBackend) -> None:
    packed = gzip.compress(b"hello " * 1000)
    backend.handler = send(response(200, packed, [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]))
    decoded = await curl("--compressed", f"{url}/x")
    as_it_is = await curl("-H", "Accept-Encoding: gzip", f"{url}/x")
    assert (decoded.code, decoded.output) == (0, b"hello " * 1000)
    assert (as_it_is.code, as_it_is.output) == (0, packed)
    assert "gzip" in (backend.requests[0].get("accept-encoding") or "")


async def test_the_backend_answers_a_range(curl: Curl, url: str, backend: RawBackend) -> None:
    backend.handler = send(response(206, b"cde", [("Content-Range", "bytes 2-4/26")]))
    result = await curl("-r", "2-4", f"{url}/x")
    assert (result.code, result.output) == (0, b"cde")
    assert "< Content-Range: bytes 2-4/26" in result.told
    assert backend.requests[0].get("range") == "bytes=2-4"


async def test_connections_persist_over_requests_and_refusals(curl: Curl, url: str, backend: RawBackend) -> None:
    result = await curl(f"{url}/x", f"{url}/public/x", f"{url}/x")
    assert result.told.count("Re-using existing connection") == 2
    refused = await curl(f"{url}/x", f"{url}/public/x", token=False)
    assert refused.told.count("Re-using existing connection") == 1
    assert [seen.get("x-jwt-sub") for seen in backend.requests] == ["alice", None, "alice", None]


async def test_a_slow_upload_arrives_whole(curl: Curl, url: str, backend: RawBackend) -> None:
    body = TWO_MB[:300_000]
    result = await curl("--limit-rate", "300k", "--data-binary", "@-", f"{url}/x", stdin=body)
    assert (result.code, result.output) == (0, digest(body))


async def test_an_incomplete_answer_is_an_error_in_curl(curl: Curl, url: str, backend: RawBackend) -> None:
    backend.handler = send(response(200, headers=[("Content-Length", "1000")], sized=False), b"short", close=True)
    sized = await curl(f"{url}/x")
    backend.handler = send(response(200, chunks=[b"short"])[:-5], close=True)
    chunked = await curl(f"{url}/x")
    assert sized.code in (18, 56)  # CURLE_PARTIAL_FILE, CURLE_RECV_ERROR
    assert chunked.code in (18, 56)
