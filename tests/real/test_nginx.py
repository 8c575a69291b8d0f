"""nginx as the backend: its files by sendfile, its conditional and compressed answers, and its closing of connections."""

import asyncio
import gzip
import hashlib
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio

from sidecar.cli.dev.issuer import Issuer
from tests.conftest import Need
from tests.peers import patience
from tests.real.conftest import StartSidecar

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE = os.urandom(5_000_000)
TEXT = b"a line of text\n" * 1000
CONFIG = """\
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {}
http {
    access_log off;
    sendfile on;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    types { text/plain txt; }
    server {
        listen unix:%(socket)s;
        root files;
        location / { }
        location /packed/ { alias files/; gzip on; gzip_types text/plain; gzip_http_version 1.1; }
        location /twice/ { alias files/; keepalive_requests 2; }
        location /once/ { alias files/; keepalive_timeout 0; }
        location /who { add_header X-Connection $connection; return 200 "$http_x_jwt_sub $connection_requests"; }
        location /hasty { keepalive_timeout 100ms; add_header X-Connection $connection; return 200 "hasty"; }
        location /small { client_max_body_size 1k; return 200 "small"; }
        location /elsewhere { return 301 $scheme://$http_host/who; }
    }
}
"""

Get = Callable[..., Awaitable[tuple[aiohttp.ClientResponse, bytes]]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(need: Need, behind: StartSidecar, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A sidecar before nginx, on a Unix socket: nginx cannot be asked for a free port."""
    directory = tmp_path_factory.mktemp("nginx")
    files = directory / "files"
    files.mkdir()
    (files / "file.bin").write_bytes(FILE)
    (files / "text.txt").write_bytes(TEXT)
    socket = directory / "nginx.sock"
    (directory / "nginx.conf").write_text(CONFIG % {"socket": socket})
    nginx = await asyncio.create_subprocess_exec(
        need("nginx"), "-e", "stderr", "-p", str(directory), "-c", "nginx.conf", stderr=asyncio.subprocess.PIPE
    )
    try:
        assert nginx.stderr is not None
        async with patience("nginx to start"):
            while b"start worker process" not in (line := await nginx.stderr.readline()):
                assert line, "nginx ended"
        async with behind(upstream=f"unix://{socket}") as url:
            yield url
    finally:
        nginx.terminate()
        await nginx.wait()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def get(url: str, issuer: Issuer) -> AsyncIterator[Get]:
    """``response, body = await get(path, **headers)`` of alice; bodies as they come, over one connection where it is kept."""
    connector = aiohttp.TCPConnector(limit=1)
    credentials = {"Authorization": f"Bearer {issuer.mint(sub='alice')}"}
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, headers=credentials) as session:

        async def get(
            path: str, method: str = "GET", body: bytes = b"", **headers: str
        ) -> tuple[aiohttp.ClientResponse, bytes]:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.request(
                method, f"{url}{path}", headers=given, data=io.BytesIO(body), allow_redirects=False
            ) as response:
                return response, await response.read()

        yield get


async def test_a_file_is_relayed_whole_with_its_length(get: Get) -> None:
    response, body = await get("/file.bin")
    assert hashlib.sha256(body).digest() == hashlib.sha256(FILE).digest()
    assert (response.headers["Content-Length"], response.headers["Accept-Ranges"]) == (str(len(FILE)), "bytes")


async def test_an_answer_to_head_has_the_length_of_the_file(get: Get) -> None:
    for _ in range(3):
        response, body = await get("/file.bin", "HEAD")
        assert (response.status, response.headers["Content-Length"], body) == (200, str(len(FILE)), b"")
    assert (await get("/text.txt"))[1] == TEXT


async def test_ranges_of_a_file_are_relayed(get: Get) -> None:
    response, body = await get("/file.bin", Range="bytes=1000000-1999999")
    assert (response.status, body) == (206, FILE[1_000_000:2_000_000])
    assert response.headers["Content-Range"] == f"bytes 1000000-1999999/{len(FILE)}"
    response, body = await get("/file.bin", Range="bytes=-5")
    assert (response.status, body) == (206, FILE[-5:])
    response, body = await get("/file.bin", Range="bytes=0-0,10-11")
    assert (response.status, response.headers["Content-Type"].partition(";")[0]) == (206, "multipart/byteranges")
    assert FILE[10:12] in body
    response, body = await get("/file.bin", Range=f"bytes={len(FILE)}-")
    assert response.status == 416


async def test_an_unchanged_resource_is_a_304_without_a_body(get: Get) -> None:
    first, _ = await get("/text.txt")
    by_tag, body = await get("/text.txt", If_None_Match=first.headers["ETag"])
    assert (by_tag.status, body, by_tag.headers["ETag"]) == (304, b"", first.headers["ETag"])
    by_time, body = await get("/text.txt", If_Modified_Since=first.headers["Last-Modified"])
    assert (by_time.status, body) == (304, b"")
    assert (await get("/text.txt"))[1] == TEXT


async def test_compressed_answers_of_nginx_are_relayed_unchanged(get: Get) -> None:
    response, body = await get("/packed/text.txt", Accept_Encoding="gzip")
    assert (response.headers["Content-Encoding"], gzip.decompress(body)) == ("gzip", TEXT)
    assert len(body) < len(TEXT) / 10
    response, body = await get("/packed/text.txt", Accept_Encoding="identity")
    assert ("Content-Encoding" in response.headers, body) == (False, TEXT)


@pytest.mark.parametrize("path", ["/twice/", "/once/"])
async def test_connections_that_nginx_closes_after_an_answer_are_replaced(get: Get, path: str) -> None:
    for _ in range(6):
        response, body = await get(f"{path}text.txt")
        assert (response.status, body) == (200, TEXT)
        assert response.headers.get("Connection") != "close"  # that header concerns only nginx and the sidecar


async def test_connections_that_nginx_closes_while_idle_are_replaced(get: Get) -> None:
    connections = set()
    for pause_s in (0, 0.09, 0.095, 0.1, 0.105, 0.11, 0.15):  # around the time when nginx closes
        await asyncio.sleep(pause_s)
        response, body = await get("/hasty")
        assert (response.status, body) == (200, b"hasty")
        connections.add(response.headers["X-Connection"])
    assert len(connections) > 1


async def test_other_connections_to_nginx_are_reused(get: Get) -> None:
    connections = {(await get("/who"))[0].headers["X-Connection"] for _ in range(10)}
    assert len(connections) == 1


async def test_nginx_reads_the_identity(get: Get) -> None:
    _, body = await get("/who", X_JWT_Sub="mallory")
    assert body.split()[0] == b"alice"


async def test_the_client_reads_an_early_refusal_of_nginx(get: Get) -> None:
    response, body = await get("/small", "POST", b"a" * 5_000_000)
    assert (response.status, b"413 Request Entity Too Large" in body) == (413, True)
    assert (await get("/who"))[0].status == 200


async def test_redirects_of_nginx_reach_the_client(get: Get, url: str) -> None:
    response, _ = await get("/elsewhere")
    assert (response.status, response.headers["Location"]) == (301, f"{url}/who")


async def test_errors_of_nginx_are_relayed_without_the_sidecars_mark(get: Get) -> None:
    response, body = await get("/nothing/here")
    assert (response.status, response.headers["Server"].partition("/")[0]) == (404, "nginx")
    assert (b"404 Not Found" in body, "X-JWT-Sidecar" in response.headers) == (True, False)


async def test_simultaneous_requests_get_their_own_ranges(get: Get, url: str, issuer: Issuer) -> None:
    credentials = {"Authorization": f"Bearer {issuer.mint()}"}
    async with aiohttp.ClientSession(headers=credentials) as session:

        async def one(at: int) -> bool:
            async with session.get(f"{url}/file.bin", headers={"Range": f"bytes={at}-{at + 99_999}"}) as response:
                return await response.read() == FILE[at : at + 100_000]

        assert all(await asyncio.gather(*(one(at) for at in range(0, 4_000_000, 40_000))))
