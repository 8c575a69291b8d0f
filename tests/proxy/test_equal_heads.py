"""Requests and answers with equal or similar heads are never mixed up, whatever came before them.

Each row is sent to a sidecar that has seen nothing, and again when it has seen its lines many times.
"""

import asyncio
from unittest.mock import ANY

import pytest

from tests.peers.backend import Handler, Request, echo, send
from tests.peers.wire import WEBSOCKET, Truncated, chunked, request, response
from tests.proxy.conftest import Client, Stack, ok, running

ON_EVERY_LOOP = True
LINES = "Host: a.test\nALICE\nX-Kept: 1\nConnection: keep-alive\n\n"
TIMES = 4


def rows(*rows: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows)


async def outcome(stack: Stack, text: str) -> list[object]:
    """The client's answer and the backend's request, without the values that differ between sidecars."""
    seen = len(stack.backend.requests)
    answers = await stack.converse(stack.raw(text))
    told = [(one.status, one.body.partition(b'"request_id"')[0]) for one in answers]
    requests = stack.backend.requests[seen:]
    own = {"X-JWT-Iss", "X-JWT-Claims", "X-Request-Id"}
    return [told, [(one.method, one.target, [line for line in one.headers if line[0] not in own]) for one in requests]]


async def taught(stack: Stack, text: str) -> None:
    """Send a request again and again, on one connection."""
    async with stack.client() as client:
        for _ in range(TIMES):
            assert (await client.request(stack.raw(text))).status == 200


async def turns() -> None:
    """Turns of this loop, in which the sidecar reads what was sent."""
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.mark.parametrize("ids", ["X-Request-Id: not valid!\n", "X-Request-Id: a\nX-Request-Id: a\n", ""])
async def test_every_request_gets_its_own_generated_id(stack: Stack, ids: str) -> None:
    text = f"GET / HTTP/1.1\n{ids}{LINES}"
    async with stack.client() as client:
        told = [(await client.request(stack.raw(text))).get("x-request-id") for _ in range(TIMES + 2)]
    assert len(set(told)) == TIMES + 2


async def test_a_request_id_from_a_client_is_used_only_for_its_request(stack: Stack) -> None:
    async with stack.client() as client:
        for given in ("mine", "mine", "yours", ""):
            headers = [("X-Request-Id", given)] * bool(given)
            told = (await client.request(stack.good(headers=headers))).get("x-request-id")
            assert told == given if given else told not in ("mine", "yours")


async def test_a_long_target_is_refused_also_before_remembered_lines() -> None:
    async with running(limits={"header_bytes": 1200}) as stack:
        await taught(stack, f"GET / HTTP/1.1\n{LINES}")
        assert await outcome(stack, f"GET /{'x' * 1200} HTTP/1.1\n{LINES}") == [[(431, ANY)], []]


async def test_equal_lines_with_different_targets_are_different_requests(stack: Stack) -> None:
    async with stack.client() as client:
        for target in ("/a", "/b?c=d", "/e", "/a"):
            answer = await client.request(stack.raw(f"GET {target} HTTP/1.1\n{LINES}"))
            assert (answer.status, answer.body) == (200, b'{"ok":true}')
    assert [seen.target for seen in stack.backend.requests] == ["/a", "/b?c=d", "/e", "/a"]
    assert len({seen.get("x-request-id") for seen in stack.backend.requests}) == 4
    assert {seen.get("x-kept") for seen in stack.backend.requests} == {"1"}
    assert {seen.get("authorization") for seen in stack.backend.requests} == {None}


async def test_equal_lines_with_different_tokens_keep_their_identities(stack: Stack) -> None:
    """A client that sends another client's lines with its own token, or without one, has its own identity."""
    bob = stack.token(sub="bob")
    who = {"alice": stack.alice, "bob": bob, "nobody": None}

    async def ask(name: str, number: int) -> None:
        async with stack.client() as client:
            for turn in range(TIMES):
                answer = await client.request(request("GET", f"/{name}/{number}/{turn}", token=who[name]))
                assert answer.status == (401 if name == "nobody" else 200)

    await asyncio.gather(*(ask(name, number) for number in range(3) for name in who))
    assert len(stack.backend.requests) == 2 * 3 * TIMES
    for seen in stack.backend.requests:
        assert seen.get("x-jwt-sub") == seen.target.split("/")[1]


async def test_pipelined_requests_of_several_identities_keep_them(stack: Stack) -> None:
    bob = stack.token(sub="bob")
    tokens = [stack.alice, None, bob, bob, None, stack.alice]
    async with stack.client() as client:
        await client.send(b"".join(request(token=token) for token in tokens))
        assert [(await client.response()).status for _ in tokens] == [401 if token is None else 200 for token in tokens]
    assert [seen.get("x-jwt-sub") for seen in stack.backend.requests] == ["alice", "bob", "bob", "alice"]


@rows(
    "GET /a HTTP/1.1\n",
    "HEAD /a HTTP/1.1\n",
    "POST /a HTTP/1.1\n",
    "OPTIONS /a HTTP/1.1\n",
    "PROPFIND /a HTTP/1.1\n",
    "TRACE /a HTTP/1.1\n",
    "CONNECT a.test:80 HTTP/1.1\n",
    "PRI * HTTP/1.1\n",
    "get /a HTTP/1.1\n",
    "GET /a HTTP/1.0\n",
    "GET /a HTTP/1.2\n",
    "GET /a http/1.1\n",
    "GET /a HTTP/1.1 \n",
    "GET  /a HTTP/1.1\n",
    "GET /a\n",
    "GET a HTTP/1.1\n",
    "GET * HTTP/1.1\n",
    "GET http://b.test/a HTTP/1.1\n",
    "GET /a#b HTTP/1.1\n",
    "GET /a?b=/c?d HTTP/1.1\n",
    "GET //b.test/a HTTP/1.1\n",
    "GET /a/../b HTTP/1.1\n",
    "GET /a%2fb HTTP/1.1\n",
    "GET /a%00 HTTP/1.1\n",
    "GET /a% HTTP/1.1\n",
    'GET /"a HTTP/1.1\n',
    "GET /\xe4 HTTP/1.1\n",
    "GET /a\x00 HTTP/1.1\n",
    "GET /a HTTP/1.1\r\n",
    "\nGET /a HTTP/1.1\n",
    "\n\nGET /a HTTP/1.1\n",
    "GET / HTTP/1.1\nX-Kept: 0\n",
    "GET / HTTP/1.1\nGET / HTTP/1.1\n",
    f"GET /{'a' * 9000} HTTP/1.1\n",
)
async def test_remembered_lines_after_any_request_line_change_no_outcome(stack: Stack, row: str) -> None:
    fresh = await outcome(stack, row + LINES)
    await taught(stack, f"GET / HTTP/1.1\n{LINES}")
    assert await outcome(stack, row + LINES) == fresh


@rows(
    f"GET /b HTTP/1.1\n{LINES}",
    f"GET /b HTTP/1.1\n{LINES}GET /c HTTP/1.1\n{LINES}",
    "GET /b HTTP/1.1\nHost: a",
    "hello",
    "\n",
)
async def test_remembered_lines_with_more_bytes_change_no_outcome(stack: Stack, row: str) -> None:
    text = f"GET /a HTTP/1.1\n{LINES}{row}"
    fresh = await outcome(stack, text)
    await taught(stack, f"GET / HTTP/1.1\n{LINES}")
    assert await outcome(stack, text) == fresh


@rows(
    f"\nGET / HTTP/1.1\n{LINES}",
    f"GET / HTTP/1.1\n{LINES.replace('keep-alive', 'x-kept')}",
    "GET / HTTP/1.1\nHost: a.test\nALICE\nContent-Length: 0\n\n",
    "GET / HTTP/1.1\nHost: a.test\nALICE\nContent-Length: 1\n\n!",
    "GET / HTTP/1.1\nHost: a.test\nALICE\nTransfer-Encoding: chunked\n\n0\n\n",
    "GET / HTTP/1.1\nHost: a.test\nALICE\nExpect: 100-continue\n\n",
    "GET / HTTP/1.1\nHost: a.test\nALICE\nX-Request-Id: mine\n\n",
)
@pytest.mark.parametrize("line", ["GET /b HTTP/1.1\n", "GET /b HTTP/1.1\nGET / HTTP/1.1\n"])
async def test_repeated_lines_change_no_outcome(stack: Stack, row: str, line: str) -> None:
    text = line + row.partition("HTTP/1.1\n")[2]
    fresh = await outcome(stack, text)
    await taught(stack, row)
    assert await outcome(stack, text) == fresh


@pytest.mark.parametrize("method", ["GET", "PROPFIND"])
async def test_heads_that_differ_in_one_line_are_not_mixed_up(stack: Stack, method: str) -> None:
    async with stack.client() as client:
        for number in range(TIMES):
            lines = f"Host: a.test\nALICE\nX-Kept: {number}\n\n"
            await client.send(stack.raw(f"{method} /a HTTP/1.1\n{lines}{method} /b HTTP/1.1\n{lines}"))
            assert [(await client.response()).status for _ in "ab"] == [200, 200]
    assert [seen.get("x-kept") for seen in stack.backend.requests] == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert [seen.target for seen in stack.backend.requests] == ["/a", "/b"] * TIMES


async def test_a_late_body_is_not_part_of_the_next_request(stack: Stack) -> None:
    stack.backend.handler = echo
    async with stack.client() as client:
        for _ in range(TIMES):
            await client.send(stack.raw("POST / HTTP/1.1\nHost: a.test\nALICE\nContent-Length: 5\n\n"))
            await turns()
            await client.send(b"hello")
            assert (await client.response()).body == b"hello"
            assert (await client.request(stack.raw("GET / HTTP/1.1\nHost: a.test\nALICE\n\n"))).status == 200


async def test_remembered_bytes_within_a_head_after_a_body_stay_part_of_it(stack: Stack) -> None:
    await taught(stack, f"GET / HTTP/1.1\n{LINES}")
    async with stack.client() as client:
        await client.send(stack.raw("POST / HTTP/1.1\nHost: a.test\nALICE\nContent-Length: 5\n\n"))
        await turns()
        await client.send(b"helloGET /x HTTP/1.1\r\nX-Before: ")
        assert (await client.response()).status == 200
        await turns()
        assert (await client.request(stack.raw(f"GET / HTTP/1.1\n{LINES}"))).status == 200
    assert (stack.backend.requests[-1].target, stack.backend.requests[-1].get("x-before")) == ("/x", "GET / HTTP/1.1")


@pytest.mark.parametrize("headers", [[("Connection", "close")], WEBSOCKET])
async def test_lines_that_end_a_connection_do_so_each_time(stack: Stack, headers: list[tuple[str, str]]) -> None:
    raw = stack.good(headers=headers)
    for _ in range(TIMES):
        assert (await stack.fetch(raw)).get("connection") == "close"
    assert {seen.get("upgrade") for seen in stack.backend.requests} == {"websocket" if headers is WEBSOCKET else None}


@rows("X-JWT-Sub: bob", "X_Custom: 1", "X-Real-Ip: 1.2.3.4")
async def test_stripped_headers_are_counted_each_time(stack: Stack, row: str) -> None:
    await taught(stack, f"GET / HTTP/1.1\nHost: a.test\nALICE\n{row}\n\n")
    assert sum(stack.sidecar.live.telemetry.headers_stripped.values()) == TIMES
    for seen in stack.backend.requests:
        assert (seen.get("x-jwt-sub"), seen.get("x_custom"), seen.get("x-real-ip")) == ("alice", None, None)


async def test_empty_lines_before_a_remembered_head_are_skipped(stack: Stack) -> None:
    async with stack.client() as client:
        for _ in range(TIMES):
            await client.send(b"\r\n\r\n")
            await turns()
            assert (await client.request(stack.raw(f"GET / HTTP/1.1\n{LINES}"))).status == 200
            for piece in (b"\r", b"\n"):
                await client.send(piece)
                await turns()
            assert (await client.request(stack.raw(f"GET / HTTP/1.1\n{LINES}"))).status == 200
    assert (await stack.fetch(b"GET / HTTP/1.1\r\n\r\n")).status == 400


@pytest.mark.parametrize("before", ["", f"GET / HTTP/1.1\n{LINES}"])
async def test_remembered_bytes_within_a_head_stay_part_of_it(stack: Stack, before: str) -> None:
    await taught(stack, f"GET / HTTP/1.1\n{LINES}")
    async with stack.client() as client:
        await client.send(stack.raw(before + "GET /x HTTP/1.1\nX-Before: "))
        if before:
            assert (await client.response()).status == 200
        await turns()
        assert (await client.request(stack.raw(f"GET / HTTP/1.1\n{LINES}"))).status == 200
    assert (stack.backend.requests[-1].target, stack.backend.requests[-1].get("x-before")) == ("/x", "GET / HTTP/1.1")


async def test_a_request_after_remembered_lines_has_its_own_lines(stack: Stack) -> None:
    await taught(stack, f"GET / HTTP/1.1\n{LINES}")
    go_on = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await ok(request, writer)

    stack.backend.handler = slow
    async with stack.client() as client:
        await client.send(stack.raw(f"GET / HTTP/1.1\n{LINES}"))
        await stack.backend.received(TIMES + 1)
        await client.send(stack.raw(f"GET / HTTP/1.1\n{LINES.replace('X-Kept: 1', 'X-Kept: 2')}"))
        await turns()
        go_on.set()
        assert [(await client.response()).status for _ in "ab"] == [200, 200]
    assert [seen.get("x-kept") for seen in stack.backend.requests[-2:]] == ["1", "2"]


async def test_a_head_in_two_pieces_is_read_as_one_for_every_cut(stack: Stack) -> None:
    raw = stack.raw(f"GET /x HTTP/1.1\n{LINES}")
    async with stack.client() as client:
        for cut in [*range(1, 40), *range(len(raw) - 40, len(raw))]:
            await client.send(raw[:cut])
            await turns()
            await client.send(raw[cut:])
            assert (await client.response()).status == 200
    assert {(seen.target, seen.get("x-kept")) for seen in stack.backend.requests} == {("/x", "1")}


async def test_the_token_of_a_remembered_head_expires(stack: Stack) -> None:
    stack.alice = stack.token(exp=int(stack.clock.wall()) + 100)
    await taught(stack, f"GET / HTTP/1.1\n{LINES}")
    stack.clock.ahead_s = 200
    answer = await stack.fetch(stack.raw(f"GET / HTTP/1.1\n{LINES}"))
    assert (answer.status, answer.json()["code"]) == (401, "token_expired")


async def test_a_token_in_the_query_is_read_for_each_request() -> None:
    token_from = [{"query": "t"}, {"header": "Authorization", "prefix": "Bearer"}]
    async with running(token_from=token_from) as stack:
        bob = stack.token(sub="bob")
        for token in (stack.alice, stack.alice, stack.alice, bob):
            answer = await stack.fetch(stack.raw(f"GET /?t={token} HTTP/1.1\nHost: a.test\n\n"))
            assert answer.status == 200
        assert [seen.get("x-jwt-sub") for seen in stack.backend.requests] == ["alice", "alice", "alice", "bob"]
        answer = await stack.fetch(stack.raw("GET / HTTP/1.1\nHost: a.test\n\n"))
        assert (answer.status, answer.json()["code"]) == (401, "token_missing")


# Many at once


@pytest.mark.parametrize("number", [1, 31, 32, 33, 34, 64, 100])
async def test_pipelined_requests_keep_their_own_tokens(stack: Stack, number: int) -> None:
    """Work after a number of requests on a connection does not mix up the next request with another one."""
    people = [f"user-{one}" for one in range(number)]
    raw = b"".join(request("GET", f"/{name}", token=stack.token(sub=name)) for name in people)
    async with stack.client() as client:
        await client.send(raw)
        for _ in people:
            assert (await client.response()).status == 200
        assert (await client.request(request("GET", "/bare"))).status == 401
    assert [(seen.target, seen.get("x-jwt-sub")) for seen in stack.backend.requests] == [
        (f"/{name}", name) for name in people
    ]


@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 99])
async def test_one_request_without_a_token_among_a_hundred_is_refused(stack: Stack, at: int) -> None:
    pieces = [stack.good("GET", f"/{one}") for one in range(100)]
    pieces[at] = request("GET", f"/{at}")
    async with stack.client() as client:
        await client.send(b"".join(pieces))
        told = [(await client.response()).status for _ in pieces]
    assert told == [401 if one == at else 200 for one in range(100)]
    assert [seen.target for seen in stack.backend.requests] == [f"/{one}" for one in range(100) if one != at]


async def body_in_its_time(stack: Stack, client: Client) -> None:
    """A request whose body ends after its head has gone to the backend."""
    await client.send(stack.raw("POST / HTTP/1.1\nHost: a.test\nALICE\nContent-Length: 5\n\n"))
    await stack.backend.connected()
    await client.send(b"hello")
    assert (await client.response()).status == 200


async def test_requests_after_a_late_body_keep_their_order(stack: Stack) -> None:
    async with stack.client() as client:
        await body_in_its_time(stack, client)
        targets = [f"/{number}" for number in range(40)]
        await client.send(b"".join(stack.good("GET", target) for target in targets))
        for _ in targets:
            assert (await client.response()).status == 200
        for _ in range(TIMES):
            await client.send(stack.good() * 33 + request("GET", "/bare"))
            assert [(await client.response()).status for _ in range(34)] == [200] * 33 + [401]
    assert [seen.target for seen in stack.backend.requests][1:41] == targets


# Answers

ANSWER = response(200, b"hello", [("X-Kept", "1"), ("Set-Cookie", "a=b")])
HEAD = ANSWER.removesuffix(b"hello")
EARLY = b"HTTP/1.1 103 Early Hints\r\n\r\n"


def pieces(*pieces: bytes) -> Handler:
    """A handler that sends each of these in its own time."""

    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await turns()

    return handler


def on_path(handler: Handler) -> Handler:
    """ANSWER, but what the handler says to the path of the row."""

    async def answering(request: Request, writer: asyncio.StreamWriter) -> None:
        await (handler if request.target == "/row" else send(ANSWER))(request, writer)

    return answering


async def relayed(stack: Stack, handler: Handler, method: str, times: int) -> list[object]:
    """The answers to the row after a number of ANSWERs, and then to each other."""
    stack.backend.handler = on_path(handler)
    told: list[object] = []
    async with stack.client() as client:
        for _ in range(times):
            assert (await client.request(stack.good())).body == b"hello"
    for raw in (stack.good(method, "/row"), stack.good("GET", "/row"), stack.good()):
        async with stack.client() as client:
            await client.send(raw)
            try:
                answer = await client.response(raw.partition(b" ")[0].decode())
            except Truncated as truncated:
                told.append(("broken off", truncated.part.partition(b"\r\n\r\n")[2]))
            else:
                body = answer.body.partition(b'"request_id"')[0]
                told.append(
                    (answer.status, [h for h in answer.headers if h[0] != "X-Request-Id"], body, len(answer.interim))
                )
    return told


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(send(ANSWER), id="the same answer"),
        pytest.param(send(HEAD + b"world"), id="another body"),
        pytest.param(pieces(HEAD, b"hello"), id="the body in a later write"),
        pytest.param(pieces(HEAD[:30], HEAD[30:] + b"hello"), id="the head in two writes"),
        pytest.param(pieces(b"HTTP/1.1 200 OK\r\nX-Before: ", ANSWER), id="within another head"),
        pytest.param(send(HEAD + b"hel", close=True), id="a truncated body"),
        pytest.param(send(HEAD, close=True), id="no body"),
        pytest.param(send(ANSWER, close=True), id="the answer closes the connection without saying so"),
        pytest.param(send(ANSWER.replace(b" 200 OK", b" 304 Not Modified").removesuffix(b"hello")), id="304"),
        pytest.param(send(ANSWER.replace(b"X-Kept", b"X Kept")), id="a header name with a space"),
        pytest.param(send(EARLY + ANSWER), id="after an interim answer"),
        pytest.param(send(ANSWER.replace(b"X-Kept: 1", b"Connection: close"), close=True), id="Connection: close"),
    ],
)
async def test_remembered_heads_of_answers_change_no_outcome(stack: Stack, handler: Handler, method: str) -> None:
    fresh = await relayed(stack, handler, method, 0)
    assert await relayed(stack, handler, method, TIMES) == fresh


@rows(
    "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n",
    "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 1\n\n!",
    "HTTP/1.0 200 OK\nContent-Length: 1\n\n!",
    "HTTP/1.1 304 Not Modified\nContent-Length: 0\n\n",
    "HTTP/1.1 204 No Content\n\n",
    "HTTP/1.1 200 OK\nContent-Length : 1\n\n!",
)
async def test_equal_answers_are_relayed_alike_each_time(stack: Stack, row: str) -> None:
    stack.backend.handler = send(row.replace("\n", "\r\n").encode(), close="close" in row or "1.0" in row)
    told = [await stack.fetch(stack.good()) for _ in range(TIMES)]
    assert len({(one.status, one.body.partition(b'"request_id"')[0], one.delimited) for one in told}) == 1
    stack.backend.handler = ok
    assert (await stack.fetch(stack.good())).body == b'{"ok":true}'


async def test_a_head_whose_end_arrives_alone_is_not_mistaken_for_another(stack: Stack) -> None:
    for number in range(TIMES):
        head = response(200, headers=[("X-Number", str(number // 3))])
        stack.backend.handler = pieces(head[:-2], head[-2:])
        assert (await stack.fetch(stack.good())).get("x-number") == str(number // 3)


async def test_interim_answers_are_relayed_each_time(stack: Stack) -> None:
    stack.backend.handler = send(EARLY + ANSWER)
    for _ in range(TIMES):
        answer = await stack.fetch(stack.good())
        assert (answer.body, [one.status for one in answer.interim]) == (b"hello", [103])
    stack.backend.handler = pieces(EARLY + ANSWER[:5], ANSWER[5:])  # as many bytes as the other's body
    answer = await stack.fetch(stack.good())
    assert (answer.body, [one.status for one in answer.interim]) == (b"hello", [103])


async def test_chunked_answers_with_equal_heads_have_their_own_bodies(stack: Stack) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    stack.backend.handler = send(head + chunked([b"hello"]))
    for _ in range(TIMES):
        assert (await stack.fetch(stack.good())).body == b"hello"
    stack.backend.handler = send(head + b"0\r\n\r\n")
    assert (await stack.fetch(stack.good())).body == b""


async def test_every_repeated_handshake_opens_a_tunnel(stack: Stack) -> None:
    stack.backend.handler = pieces(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"\x81\x02hi"
    )
    raw = stack.good(headers=WEBSOCKET)
    for _ in range(TIMES):
        async with stack.client() as client:
            assert (await client.request(raw)).status == 101
            assert await client.read(4) == b"\x81\x02hi"
