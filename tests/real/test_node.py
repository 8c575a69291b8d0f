"""Node's http server as the backend and its client in front: the most common pair around a sidecar."""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from sidecar.cli.dev.issuer import Issuer
from tests.conftest import Need
from tests.peers import patience
from tests.peers.raw import RawClient
from tests.peers.wire import request
from tests.real.conftest import StartSidecar
from tests.real.process import run

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE = Path(__file__).with_name("node")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(need: Need, behind: StartSidecar) -> AsyncIterator[str]:
    """A sidecar before Node's server."""
    async with (
        run(need("node"), str(NODE / "backend.mjs"), announces=r"(http://\S+)\n") as backend,
        behind(upstream=backend) as url,
    ):
        yield url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alice(url: str, issuer: Issuer) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with the token of alice."""
    credentials = {"Authorization": f"Bearer {issuer.mint(sub='alice')}"}
    async with aiohttp.ClientSession(url, headers=credentials) as session:
        yield session


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


async def test_node_reads_only_the_verified_identity(alice: aiohttp.ClientSession) -> None:
    async with alice.get("/who", headers={"X-JWT-Sub": "mallory", "x_jwt_sub": "mallory"}) as response:
        seen = await response.json()
    assert (seen["sub"], seen["status"]) == ("alice", "verified")
    assert [name for name in seen["names"] if "jwt" in name.lower()] == [
        "X-JWT-Status",
        "X-JWT-Sub",
        "X-JWT-Iss",
        "X-JWT-Scope",
        "X-JWT-Claims",
    ]
    assert "Authorization" not in seen["names"]


async def test_parallel_requests_of_many_users_each_get_their_own_identity(
    need: Need, url: str, issuer: Issuer
) -> None:
    tokens = {
        f"user-{number}": issuer.mint("EdDSA" if number % 2 else "ES256", sub=f"user-{number}") for number in range(40)
    }
    process = await asyncio.create_subprocess_exec(
        need("node"), str(NODE / "client.mjs"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with patience("the client on Node"):
        output, _ = await process.communicate(json.dumps({"url": url, "tokens": tokens}).encode())
    result = json.loads(output)
    assert (result["answers"], result["wrong"]) == (600, [])
    assert result["connections"] < 200  # connections persist, except after refused requests with an unread body


async def test_trailers_of_node_are_dropped(url: str, issuer: Issuer) -> None:
    async with RawClient.to(address(url)) as client:
        answer = await client.request(request(target="/trailers", token=issuer.mint(), headers=[("TE", "trailers")]))
    assert (answer.body, answer.trailers, answer.get("trailer")) == (b"hello world", [], None)


async def test_early_hints_of_node_precede_the_answer(url: str, issuer: Issuer) -> None:
    async with RawClient.to(address(url)) as client:
        answer = await client.request(request(target="/hints", token=issuer.mint()))
    [hint] = answer.interim
    assert (hint.status, hint.get("link"), hint.get("x-request-id")) == (103, "</style.css>; rel=preload", None)
    assert (answer.status, answer.body) == (200, b"hinted")


async def test_server_sent_events_are_relayed_one_by_one(alice: aiohttp.ClientSession) -> None:
    """The backend sends the next event after this client has read the last one, so no event may be buffered."""
    async with alice.get("/events") as events, patience("an event"):
        for number in range(20):
            event = await events.content.readuntil(b"\n\n")
            assert event == f"id: {number}\ndata: event {number}\n\n".encode()
            async with alice.get("/next") as response:
                assert response.status == 200


async def test_the_backend_notices_that_its_client_has_left(alice: aiohttp.ClientSession) -> None:
    async with alice.get("/events") as events:
        await events.content.readuntil(b"\n\n")
    async with patience("the backend to see that its listener is gone"):
        while True:
            async with alice.get("/next") as response:
                if await response.text() == "0":
                    break


async def test_both_bodies_are_relayed_at_the_same_time(alice: aiohttp.ClientSession) -> None:
    """Each piece is sent after the answer to the previous one."""
    answered: asyncio.Queue[bytes] = asyncio.Queue()

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield f"piece {number}".encode()
            assert await answered.get() == f"got piece {number}".encode()

    async with patience("a conversation"), alice.post("/converse", data=pieces()) as response:
        for _ in range(5):
            answered.put_nowait(await response.content.readany())
        assert await response.content.read() == b"end"


async def test_an_answer_before_the_end_of_the_body_reaches_the_client(url: str, issuer: Issuer) -> None:
    async with RawClient.to(address(url)) as client:
        await client.send(request("POST", "/early", token=issuer.mint(), headers=[("Content-Length", "1000000")]))
        answer = await client.response("POST")
        assert (answer.status, answer.body, answer.get("connection")) == (403, b"no", "close")


async def test_a_crash_of_the_backend_is_a_502_and_the_next_request_is_served(alice: aiohttp.ClientSession) -> None:
    async with alice.post("/crash") as response:
        assert (response.status, (await response.json())["code"]) == (502, "upstream_unreachable")
    async with alice.get("/who") as response:
        assert response.status == 200


async def test_connections_that_node_closes_while_idle_are_replaced(alice: aiohttp.ClientSession) -> None:
    for pause_s in (0.27, 0.29, 0.3, 0.305, 0.31, 0.33):  # around its keepAliveTimeout
        await asyncio.sleep(pause_s)
        async with alice.get("/who") as response:
            assert response.status == 200


async def test_several_set_cookie_headers_are_relayed_separately(alice: aiohttp.ClientSession) -> None:
    async with alice.get("/cookies") as response:
        assert response.headers.getall("Set-Cookie") == ["a=1; HttpOnly", "b=2, with a comma"]


async def test_a_slow_body_arrives_whole(alice: aiohttp.ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"a" * 1000
            await asyncio.sleep(0.01)

    async with alice.post("/who", data=pieces()) as response:
        assert (await response.json())["sha256"] == sha256(b"a" * 20_000).hexdigest()
