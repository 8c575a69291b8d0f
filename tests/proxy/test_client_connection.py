"""A client's connection in states that no real socket can be brought to: turns, deadlines and ends. The tests are both ends."""

from pathlib import Path

import pytest

from sidecar.gateway.token_endpoint import FORM_S, MAX_FORM_BYTES
from sidecar.http.chunked import MAX_CHUNKS
from sidecar.http.responses import CONTINUE
from sidecar.proxy.client_limits import LINGER_S
from sidecar.proxy.resources import KEEPS_UP, LARGE_READ_BYTES, READ_BYTES, UNSENT_BYTES
from tests.peers.clock import HandClock
from tests.peers.gateway import AUDIENCE, ISSUER, Keys
from tests.peers.memory import Line, in_memory, lines
from tests.peers.wire import chunked, request, response
from tests.proxy.in_memory import ANSWER, DENY, OPEN, proxy, status, targets, turns, with_token

REFUSED = request("GET", "/denied")


async def recurs(client: Line, asking: bytes) -> None:
    """The client sends a request until its head is remembered, and gets its answers."""
    for _ in range(3):
        client.say(asking)
        await turns()
        lines()[0].say(ANSWER)
        await turns()


@in_memory
async def test_new_bytes_do_not_advance_a_clients_turn(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client(2 * REFUSED)
        client.say(REFUSED)
        assert client.sent.count(b"HTTP/1.1 403") == 1
        await turns()
        assert client.sent.count(b"HTTP/1.1 403") == 3


# Deadlines


@in_memory
async def test_a_slow_body_does_not_shorten_the_deadline_of_the_next_head(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", headers=[("Content-Length", "2")]) + b"x")
        await turns()
        clock.advance(50)  # a head may take 10
        client.say(b"y")
        lines()[0].say(ANSWER)
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        at.tick()
        assert not client.aborted


@in_memory
async def test_a_body_in_pieces_and_a_slow_answer_do_not_shorten_the_next_deadline(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", headers=[("Content-Length", "2")]))
        await turns()
        client.say(b"x")
        client.say(b"y")
        clock.advance(50)  # a head may take 10
        lines()[0].say(ANSWER)
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        at.tick()
        assert not client.aborted


@pytest.mark.parametrize("reads", [1, 2])
@in_memory
async def test_a_head_that_begins_during_a_request_has_the_deadline_of_a_head(clock: HandClock, reads: int) -> None:
    begun = [b"GET /1 HTTP/1.1\r\n", b""]
    async with proxy(clock) as at:
        client = at.client(request() + begun[reads - 1])
        await turns()
        client.say(begun[reads - 2])
        clock.advance(9.9)  # a head may take 10
        lines()[0].say(ANSWER)
        await turns()
        at.tick()
        assert not client.aborted
        at.wait(0.1)
        assert client.aborted


@in_memory
async def test_a_client_with_only_an_empty_line_is_idle(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request() + b"\r\n")
        await turns()
        lines()[0].say(ANSWER)
        await turns()
        at.wait(74.9)  # of 75 by default
        assert not client.aborted
        at.wait(0.1)
        assert client.aborted


@in_memory
async def test_a_new_client_is_idle(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client()
        at.wait(74.9)  # of 75 by default
        assert not client.aborted
        at.wait(0.1)
        assert client.aborted


# Ends


@in_memory
async def test_an_idle_connection_is_closed_without_a_reset(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        lines()[0].say(ANSWER)
        at.wait(74.9)  # of 75 by default
        assert not client.aborted
        at.wait(0.1)
        assert (client.aborted, client.reset) == (True, False)


@in_memory
async def test_a_closed_connection_has_time_to_receive_its_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.fill()
        lines()[0].say(ANSWER)
        client.drain()
        [connection] = at.listener.connections
        connection.close()
        at.wait(LINGER_S - 0.1)
        assert (client.closed, client.aborted) == (True, False)
        at.wait(0.1)
        assert client.aborted


@in_memory
async def test_a_closed_connection_gets_no_further_answer(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client()
        client.is_tls = True
        [connection] = at.listener.connections
        connection.close()
        client.say(REFUSED)
        assert client.sent == b""


@in_memory
async def test_a_client_that_does_not_read_its_refusal_has_the_idle_timeout(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(b"GET / ")
        client.is_full = True
        client.say(b"no HTTP\r\n\r\n")
        assert b" 400 " in client.sent
        at.wait(299)  # a head may take 10, a reader 300
        assert not client.aborted
        at.wait(1)
        assert client.aborted


@in_memory
async def test_a_request_after_its_connections_deadline_reaches_no_backend(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client()
        client.is_tls = True
        at.wait(75)
        assert client.aborted
        client.say(request())
        await turns()
        assert lines() == []


@in_memory
async def test_a_client_that_leaves_during_a_lingering_close_gets_no_more_bytes(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client()
        client.is_full = True
        client.say(b"no HTTP\r\n\r\n")
        assert b" 400 " in client.sent
        client.finish()
        client.drain()
        assert not client.finished


@in_memory
async def test_reads_of_a_body_grow_while_the_backend_keeps_up(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", str(1 << 30))]))
        await turns()
        [connection] = at.listener.connections
        for _ in range(KEEPS_UP):
            assert len(connection.get_buffer(-1)) == READ_BYTES
            client.say(b"x" * READ_BYTES)
        assert len(connection.get_buffer(-1)) == LARGE_READ_BYTES
        assert status(client) == 0


@in_memory
async def test_reads_of_a_body_shrink_when_the_backend_stops_reading(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", str(1 << 30))]))
        await turns()
        [connection] = at.listener.connections
        for _ in range(KEEPS_UP):
            client.say(b"x" * READ_BYTES)
        lines()[0].fill()
        client.say(b"x")
        assert len(connection.get_buffer(-1)) < READ_BYTES
        lines()[0].drain()
        await turns()
        for _ in range(KEEPS_UP):
            assert len(connection.get_buffer(-1)) == READ_BYTES
            client.say(b"x" * READ_BYTES)
        assert len(connection.get_buffer(-1)) == LARGE_READ_BYTES


@in_memory
async def test_reading_a_client_pauses_when_its_buffer_is_full(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", str(1 << 30))]))
        await turns()
        lines()[0].fill()
        client.say(b"x" * (READ_BYTES - 1))
        assert client.is_reading()
        client.say(b"x")
        assert not client.is_reading()
        lines()[0].drain()
        await turns()
        assert client.is_reading()


@in_memory
async def test_reading_a_paused_client_resumes_after_an_early_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", str(1 << 30))]))
        await turns()
        lines()[0].fill()
        client.say(b"x" * READ_BYTES)
        assert not client.is_reading()
        lines()[0].say(response(413))
        assert (status(client), client.is_reading()) == (413, True)
        assert at.live.resources.held_bytes == 0


@in_memory
async def test_a_part_of_a_body_is_buffered_only_until_the_backend_has_it(clock: HandClock) -> None:
    async with proxy(clock) as at:
        at.client(request("PUT", headers=[("Content-Length", "9")]) + b"hello")
        await turns()
        assert lines()[0].sent.endswith(b"\r\n\r\nhello")
        assert at.live.resources.held_bytes == 0


@in_memory
async def test_the_write_limit_of_a_connection_is_small(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        assert (client.limits, lines()[0].limits) == ((UNSENT_BYTES, 0), (UNSENT_BYTES, 0))


@in_memory
async def test_a_client_that_reads_nothing_is_reset_after_the_idle_timeout(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.is_full = True
        lines()[0].say(ANSWER[:-1])
        at.wait(299)  # of 300 by default
        assert not client.aborted
        at.wait(1)
        assert (client.reset, client.aborted) == (True, True)


@pytest.mark.parametrize("expects", [[], [("Expect", "100-continue"), ("Connection", "close")]])
@in_memory
async def test_a_client_that_does_not_read_the_answer_to_its_form_has_the_idle_timeout(
    clock: HandClock, tmp_path: Path, expects: list[tuple[str, str]]
) -> None:
    keys = Keys(tmp_path)
    signing = {"issuer": ISSUER, "keys_file": str(keys.signing), "token_endpoint": {"audience": AUDIENCE}}
    async with proxy(clock, **keys.settings(signing=signing)) as at:
        client = at.client()
        client.is_full = bool(expects)  # it does not read `100 Continue` either
        client.say(request("POST", "/__gw/issuer/token", headers=[("Content-Length", "1"), *expects]))
        client.is_full = True
        client.say(b"x")
        assert (b" 100 Continue" in client.sent, b" 401 Unauthorized" in client.sent) == (bool(expects), True)
        at.wait(299)  # a form may take 10, a reader 300
        assert not client.aborted
        at.wait(1)
        assert client.aborted


@pytest.mark.parametrize(("size", "answered"), [(MAX_FORM_BYTES, 401), (MAX_FORM_BYTES + 1, 413)])
@in_memory
async def test_a_form_of_the_largest_size_is_read(clock: HandClock, tmp_path: Path, size: int, answered: int) -> None:
    keys = Keys(tmp_path)
    signing = {"issuer": ISSUER, "keys_file": str(keys.signing), "token_endpoint": {"audience": AUDIENCE}}
    async with proxy(clock, **keys.settings(signing=signing)) as at:
        client = at.client(request("POST", "/__gw/issuer/token", body=b"x" * size))
        assert status(client) == answered


@pytest.mark.parametrize(
    ("framing", "body", "passed_on"),
    [
        (("Content-Length", "0"), b"", b"\r\nContent-Length: 0\r\n\r\n"),
        (("Content-Length", "5"), b"hello", b"\r\nContent-Length: 5\r\n\r\nhello"),
        (("Transfer-Encoding", "chunked"), b"", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (("Transfer-Encoding", "chunked"), b"5\r\nhello\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ],
)
@in_memory
async def test_what_came_of_a_body_before_its_connection_goes_with_the_head(
    clock: HandClock, framing: tuple[str, str], body: bytes, passed_on: bytes
) -> None:
    async with proxy(clock) as at:
        at.client(request("PUT", headers=[framing]) + body)
        await turns()
        assert lines()[0].sent.endswith(passed_on)


@in_memory
async def test_a_limited_number_of_requests_is_in_flight(clock: HandClock) -> None:
    async with proxy(clock, limits={"in_flight": 1}) as at:
        first = at.client(request())
        await turns()
        assert status(at.client(request())) == 503
        lines()[0].say(ANSWER)
        assert status(first) == 200


@in_memory
async def test_a_body_that_begins_malformed_sends_nothing_to_the_backend(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", headers=[("Transfer-Encoding", "chunked")]) + b"zz\r\n")
        await turns()
        at.tick()
        assert status(client) == 400
        assert (lines()[0].sent, lines()[0].aborted) == (b"", True)


@in_memory
async def test_a_client_whose_body_is_sent_owes_nothing_during_a_slow_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Content-Length", "2")]))
        await turns()
        client.say(b"x")
        client.say(b"y")
        lines()[0].say(ANSWER[:-2])
        clock.advance(200)
        lines()[0].say(ANSWER[-2:-1])
        at.wait(150)  # of 300 by default for a piece
        lines()[0].say(ANSWER[-1:])
        assert client.sent.endswith(b"hello")


# The owner of a body and of a request


@in_memory
async def test_a_repeated_head_has_its_own_body(clock: HandClock) -> None:
    head = request("POST", "/again", headers=[("Content-Length", "24")])
    body = b"GET /denied HTTP/1.1\r\n\r\n"
    async with proxy(clock) as at:
        client = at.client()
        for number in range(1, 5):
            client.say(head)
            client.say(body)
            await turns()
            assert lines()[0].sent.count(body) == number
            lines()[0].say(ANSWER)
            await turns()
        assert client.sent.count(b"HTTP/1.1 200") == 4


@in_memory
async def test_a_request_on_a_closed_connection_reaches_no_backend(clock: HandClock) -> None:
    asking = request()
    async with proxy(clock) as at:
        for _ in range(3):  # also as a head that recurs
            client = at.client()
            client.is_tls = True
            [connection] = at.listener.connections
            connection.close()
            client.say(asking)
            await turns()
            assert lines() == []
            client.end()


@in_memory
async def test_a_repeated_head_on_a_closed_connection_reaches_no_backend(clock: HandClock) -> None:
    asking = request()
    async with proxy(clock) as at:
        client = at.client()
        await recurs(client, asking)
        client.is_tls = True
        [connection] = at.listener.connections
        connection.close()
        before = lines()[0].sent
        client.say(asking)
        await turns()
        assert lines()[0].sent == before


@in_memory
async def test_a_request_waits_until_its_client_has_read_the_previous_answer(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        client.is_full = True
        lines()[0].say(ANSWER)
        before = lines()[0].sent
        for part in (b"GET /1 HTTP/1.1\r\n", b"Host: a\r\n\r\n"):
            client.say(part)
            await turns()
        assert lines()[0].sent == before
        client.is_full = False
        client.drain()
        await turns()
        assert lines()[0].sent.count(b"GET /1 ") == 1


# The close of a TLS client, which cannot close one direction only


@in_memory
async def test_a_tls_client_without_a_pending_body_is_closed_with_its_refusal(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client()
        client.is_tls = True
        client.say(b"no HTTP\r\n\r\nmore")
        assert (b" 400 " in client.sent, client.closed, client.aborted) == (True, True, False)
        at.wait(299)  # of 300 by default, to read it
        assert not client.aborted
        at.wait(1)
        assert client.aborted


@in_memory
async def test_a_tls_client_with_a_pending_body_has_time_to_read_its_refusal(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY) as at:
        client = at.client()
        client.is_tls = True
        client.say(request("POST", "/denied", headers=[("Content-Length", "9")]))
        assert (b" 403 " in client.sent, client.closed) == (True, False)
        at.wait(LINGER_S - 0.1)
        assert not client.closed
        at.wait(0.1)
        assert client.aborted


@in_memory
async def test_a_refused_body_gets_no_100_continue(clock: HandClock) -> None:
    headers = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
    async with proxy(clock) as at:
        client = at.client()
        client.is_tls = True
        client.say(request("POST", headers=headers) + b"no chunk\r\n")
        await turns()
        assert status(client) == 400
        assert b"100 Continue" not in client.sent
        assert b'"The request\'s body is not well-formed."' in client.sent


# Bytes that are no request


@pytest.mark.parametrize(("detail", "told"), [("full", True), ("code", False)])
@in_memory
async def test_a_refusal_of_invalid_bytes_names_the_rule_only_with_full_detail(
    clock: HandClock, detail: str, told: bool
) -> None:
    async with proxy(clock, error_detail=detail, listen="127.0.0.1:8080") as at:
        client = at.client(b"no HTTP\r\n\r\n")
        assert (b'"cause"' in client.sent) is told
        assert b"\r\nConnection: close\r\n" in client.sent
        assert b"Retry-After" not in client.sent


@in_memory
async def test_a_client_beyond_the_limit_of_connections_may_retry_after_a_second(clock: HandClock) -> None:
    async with proxy(clock, limits={"connections": 1}) as at:
        at.client(request())
        await turns()
        refused = at.client()
        assert b" 503 " in refused.sent
        assert b"\r\nRetry-After: 1\r\n" in refused.sent
        assert b"\r\nConnection: close\r\n" in refused.sent


# Large answers and bodies in turns


@in_memory
async def test_new_bytes_of_an_answer_wait_for_their_turn(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request())
        await turns()
        many = chunked([b"x"] * (2 * MAX_CHUNKS)).removesuffix(b"0\r\n\r\n")
        lines()[0].say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + many)
        before = client.sent
        lines()[0].say(b"1\r\ny\r\n")
        assert client.sent == before
        await turns()
        assert client.sent.count(b"x") == 2 * MAX_CHUNKS
        assert b"\r\nTransfer-Encoding: chunked\r\n" in client.sent
        lines()[0].say(b"0\r\n\r\n")
        await turns()
        assert client.sent.endswith(b"0\r\n\r\n")


@in_memory
async def test_new_bytes_of_a_body_wait_for_their_turn(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("PUT", headers=[("Transfer-Encoding", "chunked")]))
        await turns()
        client.say(chunked([b"x"] * (2 * MAX_CHUNKS)).removesuffix(b"0\r\n\r\n"))
        before = lines()[0].sent
        client.say(b"1\r\ny\r\n")
        assert lines()[0].sent == before
        await turns()
        assert lines()[0].sent.count(b"x") == 2 * MAX_CHUNKS
        client.say(b"0\r\n\r\n")
        assert lines()[0].sent.endswith(b"0\r\n\r\n")


# Forward-auth requests


@in_memory
async def test_a_forward_auth_request_opens_no_connection_to_the_backend(clock: HandClock) -> None:
    async with proxy(clock, forward_auth={"original": "path"}, trusted_proxies=["127.0.0.0/8"]) as at:
        asker = at.client(request("GET", "/auth/x"))
        await turns()
        assert (status(asker), lines()) == (200, [])


# Heads that recur


@pytest.mark.parametrize("parts", [1, 2])
@in_memory
async def test_a_head_that_recurs_is_parsed_once(clock: HandClock, tmp_path: Path, parts: int) -> None:
    async with with_token(clock, tmp_path, 100) as (at, alice):
        asking = request(token=alice)
        client = at.client()
        [connection] = at.listener.connections
        seen = []
        for _ in range(5):
            client.say(asking[: len(asking) // parts])
            client.say(asking[len(asking) // parts :])
            await turns()
            lines()[0].say(ANSWER[:-1])
            assert connection.exchange is not None
            seen.append(connection.exchange)
            lines()[0].say(ANSWER[-1:])
            await turns()
        assert client.sent.count(b"hello") == 5
        assert seen[3].head is seen[4].head
        assert seen[3].response is seen[4].response
        assert seen[3].claims is seen[4].claims
        assert seen[3].forwarded is seen[4].forwarded
        assert seen[4].head.token_digest is not None
        cache = at.live.assembly.handler.authentication.verifier.cache
        assert (cache.hits, cache.misses) == (4, 1)
        assert bool(seen[4].raw) == (parts == 2)


@in_memory
async def test_a_body_that_equals_a_head_that_recurs_is_a_body(clock: HandClock) -> None:
    asking = request()
    async with proxy(clock) as at:
        client = at.client()
        await recurs(client, asking)
        client.say(request("POST", headers=[("Content-Length", str(len(asking)))]))
        client.say(asking)
        assert lines()[0].sent.endswith(b"\r\n\r\n" + asking)
        lines()[0].say(ANSWER)
        assert client.sent.count(b"hello") == 4


# Forms


@in_memory
async def test_a_client_that_expects_it_is_asked_for_its_form_and_has_a_while_to_send_it(
    clock: HandClock, tmp_path: Path
) -> None:
    keys = Keys(tmp_path)
    signing = {"issuer": ISSUER, "keys_file": str(keys.signing), "token_endpoint": {"audience": AUDIENCE}}
    async with proxy(clock, **keys.settings(signing=signing)) as at:
        headers = [("Content-Length", "2"), ("Expect", "100-continue")]
        client = at.client(request("POST", "/__gw/issuer/token", headers=headers))
        assert client.sent == CONTINUE
        client.say(b"x")
        at.wait(FORM_S - 0.1)
        assert not client.aborted
        at.wait(0.1)
        assert client.aborted


@in_memory
async def test_a_token_in_the_query_is_verified_once(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 100, token_from=[{"query": "t"}]) as (at, alice):
        client = at.client()
        for number in range(1, 4):
            client.say(request("GET", f"/?t={alice}"))
            await turns()
            lines()[0].say(ANSWER)
            await turns()
            assert client.sent.count(b"hello") == number
        cache = at.live.assembly.handler.authentication.verifier.cache
        assert (cache.hits, cache.misses) == (2, 1)


# Bytes of one turn


@in_memory
async def test_a_piece_that_is_too_large_to_wait_follows_the_waiting_bytes(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client()
        connection = client.protocol
        for size in (1, UNSENT_BYTES - 1):
            connection.write(b"a" * size)
        assert client.sent == b""
        connection.write(b"b")
        assert client.sent == b"a" * UNSENT_BYTES + b"b"
        connection.write(b"c")
        assert client.sent[-1:] == b"b"
        await turns()
        assert client.sent[-1:] == b"c"


@pytest.mark.parametrize("end", ["close", "abort"])
@in_memory
async def test_bytes_of_this_turn_come_before_the_end_of_their_connection(clock: HandClock, end: str) -> None:
    async with proxy(clock) as at:
        client = at.client()
        connection = client.protocol
        connection.write(b"a")
        getattr(connection, end)()
        assert (client.sent, client.closed) == (b"a", True)
        connection.write(b"b")
        await turns()
        assert client.sent == b"a"


@in_memory
async def test_a_client_that_does_not_read_an_answer_has_the_idle_timeout(clock: HandClock) -> None:
    async with proxy(clock, routes=DENY, timeouts={"idle": "100s", "keep_alive": "10s"}) as at:
        client = at.client()
        client.is_full = True
        client.say(REFUSED)
        at.wait(99)
        assert not client.aborted
        at.wait(1)
        assert client.aborted


# Ends and limits that no other event brings about


@pytest.mark.parametrize("minor", [0, 1])
@in_memory
async def test_a_client_that_closes_its_side_within_an_answer_is_reset(clock: HandClock, minor: int) -> None:
    """For an HTTP/1.0 client any end but a reset completes the answer, and it may never read the unsent bytes."""
    async with proxy(clock) as at:
        client = at.client(request().replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
        await turns()
        lines()[0].say(b"HTTP/1.1 200 OK\r\n\r\npart")
        client.finish()
        assert (client.reset, client.aborted, lines()[0].aborted) == (True, True, True)


@in_memory
async def test_the_deadline_of_a_head_begins_after_empty_lines(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("GET", "/0") + b"\r\n")
        await turns()
        clock.advance(50)  # a head may take 10
        lines()[0].say(ANSWER)
        await turns()
        client.say(b"GET /1 HTTP/1.1\r\n")
        at.tick()
        client.say(b"Host: a\r\n\r\n")
        assert targets(lines()[0]) == ["/0", "/1"]


@in_memory
async def test_a_tls_client_without_a_socket_is_aborted_without_an_error(clock: HandClock) -> None:
    async with proxy(clock) as at:
        client = at.client(request("POST", "/", headers=[("Content-Length", "9")]))
        await turns()
        del client._extra["socket"]  # type: ignore[attr-defined]  # so do the TLS transports of both loops
        at.wait(300)
        assert client.aborted


@in_memory
async def test_a_body_with_an_oversized_content_length_is_refused_before_it_begins(clock: HandClock) -> None:
    async with proxy(clock, routes=[{**OPEN, "max_body_bytes": 9}]) as at:
        for size, answered in ((9, 0), (10, 413)):
            client = at.client(request("POST", headers=[("Content-Length", str(size))]))
            await turns()
            assert status(client) == answered
        assert len(lines()) == 1


@in_memory
async def test_a_slow_reader_gets_no_bytes_after_the_token_expired(clock: HandClock, tmp_path: Path) -> None:
    async with with_token(clock, tmp_path, 10, close_on_expiry="all") as (at, alice):
        client = at.client(request(token=alice))
        await turns()
        lines()[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nfirst")
        client.fill()
        lines()[0].say(b"second")
        at.wait(9.9)
        assert not client.aborted
        at.wait(0.1)
        assert (client.reset, client.aborted, lines()[0].aborted) == (True, True, True)
        assert at.live.telemetry.decisions == {("main", "deny", "token_expired"): 1}
