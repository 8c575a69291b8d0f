"""The peers work, so that no other test passes because a peer does nothing."""

import asyncio
import gzip
import json
import socket
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from jose import jwt

from tests.peers import patience, tokens
from tests.peers.backend import RawBackend, Request, echo, never, reset_instead, send
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.kernel import STILL, Narrow, still
from tests.peers.raw import RawClient, fetch
from tests.peers.tls import client_tls
from tests.peers.tokens import ABSENT
from tests.peers.wire import Malformed, Truncated, request, response

JWKS = "/.well-known/jwks.json"
DISCOVERY = "/.well-known/openid-configuration"


# Tokens


@pytest.mark.parametrize("alg", tokens.ALGORITHMS)
def test_a_token_verifies_with_its_published_key_and_no_other(alg: str) -> None:
    token = tokens.token(alg)
    tokens.verify(token, tokens.public_jwk(alg), alg)
    for wrong in (tokens.flip(token, 0, 5), tokens.flip(token, 1, 5), tokens.flip(token, 2, 5)):
        with pytest.raises(InvalidSignature):
            tokens.verify(wrong, tokens.public_jwk(alg), alg)
    with pytest.raises(InvalidSignature):
        tokens.verify(token, tokens.public_jwk(alg, "b"), alg)


@pytest.mark.parametrize("bits", [512, 1024])
def test_weak_rsa_keys_can_sign(bits: int) -> None:
    key = tokens.rsa_key(bits)
    assert key.key_size == bits
    tokens.verify(tokens.sign(key, "RS256", {}, {}), tokens.jwk(key), "RS256")


def test_an_hmac_can_have_any_key() -> None:
    token = tokens.sign(b"the public key as text, 32 bytes+", "HS256", {"kid": "x"}, {"sub": "alice"})
    assert jwt.decode(token, "the public key as text, 32 bytes+", algorithms=["HS256"]) == {"sub": "alice"}


def test_none_has_an_empty_signature() -> None:
    assert tokens.sign(None, "none", {}, {}).endswith(".")


def test_raw_bytes_are_signed_unchanged() -> None:
    header, payload = b'{"alg":"none","alg":"RS256"}', b'{"exp":NaN,"exp":1} '
    token = tokens.sign(tokens.key(), "RS256", header, payload)
    assert tokens.parts(token)[:2] == (header, payload)
    tokens.verify(token, tokens.public_jwk(), "RS256")


def test_the_header_may_contradict_the_signature() -> None:
    assert json.loads(tokens.parts(tokens.sign(b"k", "HS256", {"alg": "RS256"}))[0]) == {"alg": "RS256"}
    assert json.loads(tokens.parts(tokens.sign(b"k", "HS256", {"alg": ABSENT}))[0]) == {}


def test_claims_can_be_replaced_nulled_and_left_out() -> None:
    good = tokens.claims(now=1000)
    assert good == {"iss": tokens.ISSUER, "aud": "my-api", "sub": "alice", "iat": 1000, "exp": 1300}
    changed = tokens.claims(now=1000, sub=None, aud=ABSENT, scope="read")
    assert changed == {"iss": tokens.ISSUER, "sub": None, "iat": 1000, "exp": 1300, "scope": "read"}


def test_a_private_jwk_holds_the_private_members() -> None:
    assert {"d", "p", "q", "dp", "dq", "qi"} < tokens.private_jwk(tokens.key("RS256")).keys()
    assert "d" in tokens.private_jwk(tokens.key("ES512"))
    assert "d" in tokens.private_jwk(tokens.key("EdDSA"))
    assert "d" not in tokens.jwk(tokens.key("EdDSA"))


# The backend and the client


async def test_the_backend_keeps_the_exact_bytes_of_a_request() -> None:
    head = b"POST /a%2Fb?q HTTP/1.1\r\nhOst: x\r\nX-Two: 1\r\nx-two:  2 \r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"5\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: t\r\n\r\n"
    async with RawBackend() as backend:
        answer = await fetch(backend.address, head + body)
        came = await backend.received()
    assert answer.status == 200
    assert answer.json() == {"ok": True}
    assert (came.head, came.body_raw, came.body, came.trailers) == (head, body, b"hello!", [("X-Trailer", "t")])
    assert came.headers[:3] == [("hOst", "x"), ("X-Two", "1"), ("x-two", "2")]
    assert (came.method, came.target, came.version, came.complete) == ("POST", "/a%2Fb?q", "HTTP/1.1", True)
    assert came.all("x-TWO") == ["1", "2"]


async def test_a_connection_serves_many_requests_and_is_counted_once() -> None:
    async with RawBackend(echo) as backend, RawClient.to(backend.address) as client:
        for body in (b"one", b"", b"three"):
            assert (await client.request(request("PUT", "/", body=body))).body == body
        assert (await backend.received(3)).connection == 1
        assert (backend.connections, backend.open_connections) == (1, 1)
        await client.close()
        await backend.disconnected()
        assert backend.open_connections == 0


@pytest.mark.parametrize("bytewise", [False, True])
async def test_bytes_arrive_whole_or_one_by_one_and_the_tail_is_the_next_request(bytewise: bool) -> None:
    async with RawBackend(echo) as backend, RawClient.to(backend.address) as client:
        await client.send(
            request("POST", "/1", body=b"abc"), bytewise=bytewise, tail=request("POST", "/2", chunks=[b"d"])
        )
        assert (await client.response()).body == b"abc"
        assert (await client.response()).body == b"d"
        assert [came.target for came in backend.requests] == ["/1", "/2"]


async def test_bytes_sent_one_by_one_are_read_in_several_pieces() -> None:
    pieces: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(100):
            pieces.append(piece)
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    async with server, RawClient.to(server.sockets[0].getsockname()) as client:
        await client.send(b"0123456789", bytewise=True)
        client.finish()
        assert await client.closed() == b""
    assert b"".join(pieces) == b"0123456789"
    assert len(pieces) > 5


async def test_the_peers_serve_on_a_unix_socket_and_over_tls(tmp_path: Path) -> None:
    async with RawBackend(unix=tmp_path / "s") as backend:
        assert backend.url == f"unix://{tmp_path}/s"
        async with RawClient(*await asyncio.open_unix_connection(tmp_path / "s")) as client:
            assert (await client.request(request())).status == 200
    async with ScriptedIssuer(tls=True) as issuer:
        assert issuer.jwks_uri.startswith("https://127.0.0.1:")
        answer = await fetch(issuer.address, request(target=JWKS), tls=client_tls())
        assert answer.json() == {"keys": issuer.keys}


async def test_each_framing_is_recognized() -> None:
    pieces = [
        response(103) + response(200, b"sized"),
        response(200, chunks=[b"chu", b"nked"], trailers=[("X-T", "1")]),
        response(204),
        response(304),
        response(200, b"until the close", sized=False),
    ]
    async with RawBackend() as backend, RawClient.to(backend.address) as client:
        answers = []
        for piece in pieces:
            backend.handler = send(piece, close=piece is pieces[-1])
            answers.append(await client.request(request()))
        assert await client.closed() == b""
    assert [answer.body for answer in answers] == [b"sized", b"chunked", b"", b"", b"until the close"]
    assert [answer.delimited for answer in answers] == ["length", "chunked", "none", "none", "close"]
    assert [interim.status for interim in answers[0].interim] == [103]
    assert answers[1].raw == pieces[1]
    assert answers[1].trailers == [("X-T", "1")]


async def test_an_answer_to_head_has_no_body() -> None:
    async with RawBackend(send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as backend:
        assert (await fetch(backend.address, request("HEAD"))).get("content-length") == "5"


@pytest.mark.parametrize(
    "answer",
    [
        response(200, b"12345")[:-1],
        response(200, chunks=[b"123"])[:-1],
        response(200, chunks=[b"123"])[:-9],
        b"HTTP/1.1 200 OK\r\nContent-",
        b"",
    ],
)
async def test_a_truncated_answer_raises_an_error(answer: bytes) -> None:
    async with RawBackend(send(answer, close=True)) as backend, RawClient.to(backend.address) as client:
        with pytest.raises(Truncated) as truncated:
            await client.request(request())
        assert truncated.value.part == answer


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
    ],
)
async def test_a_malformed_answer_raises_an_error(answer: bytes) -> None:
    async with RawBackend(send(answer, close=True)) as backend, RawClient.to(backend.address) as client:
        with pytest.raises(Malformed):
            await client.request(request())


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nA b\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nHo"])
async def test_a_malformed_request_fails_the_test_at_the_end(sent: bytes) -> None:
    async def receive() -> None:
        async with RawBackend() as backend, RawClient.to(backend.address) as client:
            await client.send(sent)
            client.finish()
            assert await client.closed() == b""

    with pytest.raises(Malformed):
        await receive()


async def test_a_bug_in_a_handler_fails_the_test_at_the_end() -> None:
    async def wrong(came: Request, writer: asyncio.StreamWriter) -> None:
        raise ZeroDivisionError

    async def receive() -> None:
        async with RawBackend(wrong) as backend, RawClient.to(backend.address) as client:
            await client.send(request())
            assert await client.closed() == b""

    with pytest.raises(ZeroDivisionError):
        await receive()


async def test_a_request_with_an_incomplete_body_does_not_count_as_received() -> None:
    async with RawBackend() as backend, RawClient.to(backend.address) as client:
        await client.send(request("POST", "/", body=b"12345")[:-1])
        client.finish()
        came = await backend.interrupted()
        assert (came.body_raw, came.complete, backend.requests) == (b"1234", False, [])


async def test_the_backend_can_answer_before_the_body() -> None:
    async with RawBackend(send(response(413)), read_bodies=False) as backend, RawClient.to(backend.address) as client:
        whole = request("POST", "/", body=b"12345")
        await client.send(whole[:-5])
        assert (await client.response("POST")).status == 413
        assert not backend.requests[0].complete
        await client.send(whole[-5:])
        assert (await client.request(request("POST", "/2", body=b""))).status == 413
        assert backend.requests[0].body == b"12345"


async def test_a_silent_backend_notices_that_its_client_has_left() -> None:
    async with RawBackend(never) as backend, RawClient.to(backend.address) as client:
        await client.send(request())
        await backend.received()
        client.abort()
        await backend.disconnected()


async def test_a_reset_arrives_as_a_reset() -> None:
    async with RawBackend(reset_instead) as backend, RawClient.to(backend.address) as client:
        await client.send(request())
        with pytest.raises(ConnectionResetError):
            await client.reader.read(1)


@pytest.mark.parametrize("by_reset", [False, True])
async def test_an_idle_connection_can_be_dropped(by_reset: bool) -> None:
    async with RawBackend() as backend, RawClient.to(backend.address) as client:
        await client.request(request())
        await backend.drop_connections(by_reset=by_reset)
        assert await client.closed() == b""
        assert backend.open_connections == 0


async def test_a_server_that_is_down_refuses_connections_and_returns_at_its_address() -> None:
    async with RawBackend() as backend:
        address = backend.address
        for _ in range(2):
            async with RawClient.to(address) as client:
                assert (await client.request(request())).status == 200
                await backend.go_down()
                assert await client.closed() == b""
            with pytest.raises(ConnectionRefusedError):
                await RawClient.connect(address)
            await backend.come_back()
        assert (await fetch(address, request())).status == 200


# The scripted issuer


async def test_the_issuer_publishes_the_keys_that_its_tokens_verify_with() -> None:
    async with ScriptedIssuer(path="/realm") as issuer:
        found = (await fetch(issuer.address, request(target="/realm" + DISCOVERY))).json()
        assert found == {"issuer": issuer.issuer, "jwks_uri": issuer.jwks_uri}
        published = (await fetch(issuer.address, request(target=issuer.jwks_path))).json()["keys"]
        for alg in issuer.algs:
            token = issuer.token(alg)
            kid = json.loads(tokens.parts(token)[0])["kid"]
            tokens.verify(token, next(jwk for jwk in published if jwk["kid"] == kid), alg)
            assert tokens.payload_of(token)["iss"] == issuer.issuer
        assert (issuer.jwks_fetches, issuer.discovery_fetches) == (1, 1)


async def test_rotation_replaces_the_keys_or_adds_to_them() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer:
        assert [jwk["kid"] for jwk in issuer.keys] == ["ed25519-a"]
        issuer.rotate(overlap=True)
        assert [jwk["kid"] for jwk in issuer.keys] == ["ed25519-b", "ed25519-a"]
        issuer.rotate()
        assert [jwk["kid"] for jwk in issuer.keys] == ["ed25519-c"]
        tokens.verify(issuer.token("EdDSA"), issuer.keys[0], "EdDSA")


async def test_discovery_can_be_off() -> None:
    async with ScriptedIssuer(discovery=False) as issuer:
        assert (await fetch(issuer.address, request(target=DISCOVERY))).status == 404
        assert (await fetch(issuer.address, request(target=JWKS))).status == 200


async def test_a_hanging_issuer_counts_the_fetch_and_answers_when_released() -> None:
    async with ScriptedIssuer() as issuer, RawClient.to(issuer.address) as client:
        issuer.hang()
        await client.send(request(target=JWKS))
        await issuer.fetched(1)
        answer = asyncio.ensure_future(client.response())
        await asyncio.sleep(0)
        assert not answer.done()
        issuer.release()
        assert (await answer).status == 200


async def test_the_issuer_gives_the_configured_answers() -> None:
    async with ScriptedIssuer(cache_control="max-age=5", date_offset_s=3600, now=lambda: 0.0) as issuer:

        async def told(answer: Answer) -> tuple[int, bytes]:
            issuer.on_jwks = answer
            got = await fetch(issuer.address, request(target=JWKS))
            assert got.get("date") == "Thu, 01 Jan 1970 01:00:00 GMT"
            assert got.get("cache-control") == "max-age=5"
            return got.status, got.body

        assert await told(Answer(500)) == (500, b"")
        assert await told(Answer(204)) == (204, b"")
        assert await told(Answer(200, b"{")) == (200, b"{")
        assert (await told(Answer.html()))[1].startswith(b"<!doctype html>")
        assert await told(Answer(200, b" " * 1000, times=2000)) == (200, b" " * 2_000_000)
        assert await told(Answer(200, b'{"keys":[]}', drip_s=0)) == (200, b'{"keys":[]}')
        assert gzip.decompress((await told(Answer.gzipped(b"0" * 1000)))[1]) == b"0" * 1000
        assert (await told(Answer.redirect("http://elsewhere.test/")))[0] == 302


async def test_the_issuer_breaks_off_at_the_configured_byte() -> None:
    async with ScriptedIssuer() as issuer:
        issuer.on_jwks = Answer(200, b"0123456789", cut=5)
        with pytest.raises(Truncated) as truncated:
            await fetch(issuer.address, request(target=JWKS))
        assert truncated.value.part.endswith(b"\r\n\r\n01234")
        issuer.on_jwks = Answer(200, b"0123456789", cut=5, by_reset=True)
        with pytest.raises(Truncated):
            await fetch(issuer.address, request(target=JWKS))


# Bytes in the kernel


async def test_unread_bytes_in_the_kernel_are_distinguished_from_read_ones() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with Narrow(server.getsockname()) as client:
            accepted, _ = await loop.sock_accept(server)
            with accepted:
                accepted.setblocking(False)
                assert client.send(b"x" * 1000) == 1000
                assert client.up.taken(client.sent) == 0
                assert len(accepted.recv(400)) == 400
                assert client.up.taken(client.sent) == 400
                accepted.send(b"y" * 500)
                assert client.down.given(0) == 500
                assert client.receive(200) == 200
                assert (client.down.held(), client.down.given(200)) == (300, 500)


async def test_a_client_with_small_buffers_sends_only_the_bytes_that_fit() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with Narrow(server.getsockname()) as client:
            accepted, _ = await loop.sock_accept(server)
            with accepted:
                assert 0 < client.send(bytes(64 << 20)) == client.sent < 64 << 20
                async with patience("what has come and was not yet acknowledged to be counted once"):
                    while client.up.held() != client.sent:
                        await asyncio.sleep(0)
                assert client.receive(1) == 0
                assert not client.ended
            assert client.receive(1) == 0
            assert client.ended


async def test_still_waits_until_a_figure_stops_changing() -> None:
    moved = iter([*range(100), *[100] * 1000])
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1

    assert await still(lambda: next(moved), ask) == 100
    assert asked == 100 + STILL
