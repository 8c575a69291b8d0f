"""Messages are separated correctly for every cut of their bytes, and incomplete ones are bounded."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.chunked import MAX_CHUNKS
from sidecar.http.framing import CHUNKED, LAST_CHUNK, UNTIL_CLOSE, chunk
from sidecar.http.grammar import ProtocolError
from sidecar.http.header_policy import ResponseHeaderPolicy
from sidecar.http.message_reader import MessageReader
from tests.http.heads import head, policy
from tests.http.streams import BLANK_LINES, Outcome, Reading, byte_by_byte, cut, facts

GET = head("GET /first HTTP/1.1", "Host: a")
POST = head("POST /second HTTP/1.1", "Host: a", "Content-Length: 5") + b"hello"
PUT = (
    head("PUT /third HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + b"2;x\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n"
)


def requests(*pieces: bytes, **limits: int) -> Outcome:
    return Reading(policy(), None, **limits).read(pieces)


def every_way(raw: bytes, head_only: list[bool] | None = None, **limits: int) -> Outcome:
    """A stream read whole, byte by byte and in two pieces cut anywhere: always the same."""
    rules = ResponseHeaderPolicy() if head_only is not None else policy()
    whole = Reading(rules, head_only, **limits).read([raw])
    for pieces in [byte_by_byte(raw), *([raw[:at], raw[at:]] for at in range(1, len(raw)))]:
        assert facts(Reading(rules, head_only, **limits).read(pieces)) == facts(whole)
    return whole


def bodies(outcome: Outcome) -> list[tuple[str, bytes]]:
    assert not outcome.refused
    return [(message.raw.split(b" ")[1].decode(), message.body) for message in outcome.messages]


def reader_of(data: bytes, head_bytes: int = 1000) -> MessageReader:
    reader = MessageReader(head_bytes, BLANK_LINES)
    reader.feed(data)
    return reader


# Messages


def test_requests_are_read_alike_in_one_piece_and_in_many() -> None:
    outcome = every_way(GET + POST + PUT + GET)
    assert bodies(outcome) == [("/first", b""), ("/second", b"hello"), ("/third", b"hello"), ("/first", b"")]
    assert (outcome.begun, outcome.unread) == (None, 0)


def test_answers_are_read_alike_in_one_piece_and_in_many() -> None:
    raw = (
        head("HTTP/1.1 103 Early Hints", "Link: </a>")
        + head("HTTP/1.1 200 OK", "Content-Length: 5")
        + b"hello"
        + head("HTTP/1.1 200 OK", "Content-Length: 5")  # the answer to HEAD
        + head("HTTP/1.1 204 No Content", "Content-Length: 5")
        + head("HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked")
        + head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
        + b"5\r\nhello\r\n0\r\n\r\n"
        + head("HTTP/1.1 200 OK")
        + b"until\r\n\r\nthe end"
    )
    outcome = every_way(raw, [False, True, False, False, False, False])
    assert not outcome.refused
    assert [message.body for message in outcome.messages] == [
        b"", b"hello", b"", b"", b"", b"hello", b"until\r\n\r\nthe end"
    ]  # fmt: skip


@given(
    picked=st.lists(st.sampled_from([GET, POST, PUT, b"\r\n", b"\r\n\r\n"]), min_size=1, max_size=6),
    torn=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 600), max_size=10),
)
def test_the_messages_read_do_not_depend_on_the_cuts(picked: list[bytes], torn: int, cuts: list[int]) -> None:
    raw = b"".join(picked)
    raw = raw[: len(raw) - min(torn, len(raw))]
    whole = requests(raw)
    assert facts(requests(*cut(raw, cuts))) == facts(whole)
    assert facts(requests(*byte_by_byte(raw))) == facts(whole)


PIECES = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"abc",
        b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n", b"\r\n\r\n", b"3;", b"HTTP/1.1 200 OK\r\n", b"\t",
        b"X: y\r\n",
    ]
)  # fmt: skip


@given(
    parts=st.lists(PIECES, max_size=14),
    answers=st.booleans(),
    cuts=st.lists(st.integers(0, 150), min_size=1, max_size=8),
)
def test_refusals_do_not_depend_on_the_cuts(parts: list[bytes], answers: bool, cuts: list[int]) -> None:
    raw = (b"HTTP/1.1 200 OK\r\n" if answers else b"GET / HTTP/1.1\r\n") + b"".join(parts)
    limits = {"head_bytes": 90, "headers": 4}
    for pieces in (cut(raw, cuts), byte_by_byte(raw)):
        if answers:
            whole = Reading(ResponseHeaderPolicy(), [False], **limits).read([raw])
            other = Reading(ResponseHeaderPolicy(), [False], **limits).read(pieces)
        else:
            whole, other = requests(raw, **limits), requests(*pieces, **limits)
        assert facts(other) == facts(whole)


# Empty lines


@pytest.mark.parametrize("lines", range(BLANK_LINES + 1))
def test_a_few_empty_lines_may_precede_a_request(lines: int) -> None:
    assert bodies(every_way(b"\r\n" * lines + GET + b"\r\n" * lines + GET)) == [("/first", b"")] * 2


def test_too_many_empty_lines_and_other_line_ends_are_refused() -> None:
    assert every_way(b"\r\n" * (BLANK_LINES + 1)).refused == "Too many empty lines come before the message."
    for odd in (b"\n", b"\r\r\n", b"\n\r\n", b"\rG", b"\r\n\n", b" \r\n", b"\0"):
        assert every_way(odd + GET).refused
    for unfinished in (b"\n", b"\r\n\n", b"\r\r", b"\n\r"):
        assert every_way(unfinished).refused
    assert every_way(b"\r").refused == every_way(b"\r\n\r").refused == ""


def test_empty_lines_are_counted_for_each_request() -> None:
    one = b"\r\n" * BLANK_LINES + GET
    assert len(bodies(every_way(one * 3))) == 3


# Heads


@pytest.mark.parametrize("end", [b"\r\n\n", b"\n\r\n", b"\n\n", b"\r\r", b"\r\n\r", b"\n"])
def test_a_head_ends_only_at_crlfcrlf(end: bytes) -> None:
    outcome = every_way(b"GET / HTTP/1.1\r\nHost: a" + end + b"x")
    assert outcome.messages == []
    assert outcome.refused


@pytest.mark.parametrize("fault", [b"\n", b"a\nb", b"\0", b"a\rb", b"\x0b", b"\x7f"])
def test_an_invalid_head_is_refused_before_its_end(fault: bytes) -> None:
    outcome = every_way(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + fault + b"y")
    assert outcome.refused in ("A line must end in CRLF.", "A head must not hold control characters.")
    assert not outcome.too_large


def test_an_incomplete_head_waits_for_more_bytes() -> None:
    for size in range(1, len(GET)):
        outcome = every_way(GET[:size])
        assert (outcome.messages, outcome.refused, outcome.unread) == ([], "", size)


def test_a_head_has_a_limit_of_bytes() -> None:
    assert bodies(every_way(GET * 2, head_bytes=len(GET))) == [("/first", b"")] * 2
    for raw in (GET, GET[: len(GET) - 1], GET[: len(GET) - 1] + b"x" * 50):
        outcome = every_way(raw, head_bytes=len(GET) - 1)
        assert (outcome.refused, outcome.too_large) == (f"A head must not be larger than {len(GET) - 1} bytes.", True)


def test_bytes_after_a_head_do_not_count_toward_its_size() -> None:
    body = b"x" * 5000
    raw = head("POST / HTTP/1.1", "Host: a", "Content-Length: 5000") + body
    assert bodies(requests(raw, head_bytes=80, headers=3)) == [("/", body)]


def test_a_head_has_a_limit_of_headers() -> None:
    raw = head("GET /first HTTP/1.1", "Host: a", "X: y")  # four line ends
    assert bodies(every_way(raw + raw, headers=2)) == [("/first", b"")] * 2
    outcome = every_way(raw, headers=1)
    assert (outcome.refused, outcome.too_large) == ("A request must have no more than 1 headers.", True)


def test_the_next_head_is_read_only_after_the_current_message() -> None:
    reader = reader_of(GET + b"\0no HTTP\n\n")
    assert reader.head() == GET
    assert (reader.body(), reader.ready, reader.state) == (b"", False, "taken")
    with pytest.raises(AssertionError):
        reader.head()
    reader.begin_body(0)
    assert (reader.ready, reader.state) == (False, "complete")
    with pytest.raises(AssertionError):
        reader.head()
    reader.next_message()
    with pytest.raises(ProtocolError):
        reader.head()
    assert reader.state == "dead"


def test_the_next_message_begins_only_after_the_end_of_the_current_one() -> None:
    reader = reader_of(GET)
    for before in ("head", "taken", "body"):
        assert reader.state == before
        with pytest.raises(AssertionError):
            reader.next_message()
        if before == "head":
            reader.head()
        elif before == "taken":
            with pytest.raises(AssertionError):
                reader_of(b"").begin_body(1)
            reader.begin_body(1)


# Bodies


def test_a_sized_body_has_exactly_its_bytes() -> None:
    reader = reader_of(POST + GET)
    reader.head()
    reader.begin_body(5)
    assert reader.ready
    assert (reader.body(), reader.state, reader.body()) == (b"hello", "complete", b"")
    assert len(reader.buffer) == len(GET)
    assert not reader.ready
    reader.next_message()
    assert reader.head() == GET


def test_an_incomplete_body_waits_for_more_bytes() -> None:
    for raw in (POST[:-1], POST[:-5], PUT[:-1], PUT[:-7], PUT[:-25]):
        outcome = every_way(raw)
        assert outcome.begun is not None
        assert (outcome.messages, outcome.refused) == ([], "")


@pytest.mark.parametrize("broken", [b"5\r\nhelloX", b"5\r\nhello\r\nz\r\n", b"zz\r\n", b"0\r\nno trailer\r\n\r\n"])
def test_a_broken_body_ends_its_connection(broken: bytes) -> None:
    outcome = every_way(GET + head("PUT /x HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + broken + GET)
    assert [message.raw for message in outcome.messages] == [GET]
    assert outcome.refused
    reader = reader_of(PUT[: PUT.index(b"2;x")] + b"zz\r\n")
    reader.head()
    reader.begin_body(CHUNKED)
    with pytest.raises(ProtocolError):
        reader.body()
    assert reader.state == "dead"
    reader.feed(GET)
    assert not reader.ready


def test_trailers_have_the_limit_of_a_head() -> None:
    raw = head("PUT /x HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + b"0\r\n"
    good = every_way(raw + b"X: " + b"y" * 50 + b"\r\n\r\n", head_bytes=len(raw))
    assert bodies(good) == [("/x", b"")]
    bad = every_way(raw + b"X: " + b"y" * 70 + b"\r\n\r\n", head_bytes=len(raw))
    assert (bad.messages, bad.too_large) == ([], True)


def test_a_body_until_close_is_complete_after_its_last_byte_is_read() -> None:
    reader = reader_of(GET + b"abc")
    reader.head()
    reader.begin_body(UNTIL_CLOSE)
    assert not reader.end()
    assert (reader.body(), reader.state) == (b"abc", "body")
    assert reader.end()
    assert reader.state == "complete"


@pytest.mark.parametrize("length", [5, CHUNKED])
def test_a_sized_or_chunked_body_is_incomplete_at_the_end_of_its_connection(length: int) -> None:
    reader = reader_of(GET)
    reader.head()
    reader.begin_body(length)
    assert not reader.end()
    assert reader.state == "body"


def test_a_body_until_close_may_be_empty() -> None:
    reader = reader_of(GET)
    reader.head()
    reader.begin_body(UNTIL_CLOSE)
    assert reader.body() == b""
    assert reader.end()


def test_a_body_is_read_in_bounded_steps() -> None:
    reader = reader_of(head("PUT / HTTP/1.1") + chunk(b"a") * (3 * MAX_CHUNKS) + b"5")
    reader.head()
    reader.begin_body(CHUNKED)
    steps = []
    while reader.ready:
        steps.append(reader.body())
    assert b"".join(steps) == b"a" * 3 * MAX_CHUNKS
    assert max(map(len, steps)) <= MAX_CHUNKS
    assert (len(reader.buffer), reader.ready) == (1, False), "a part of a line is kept until its rest comes"
    reader.feed(b"\r\nhello")
    assert reader.ready
    assert reader.body() == b"hello"


def test_a_part_of_a_chunk_is_available_at_once() -> None:
    reader = reader_of(GET + chunk(b"a") * (MAX_CHUNKS - 1) + b"5\r\nh")
    reader.head()
    reader.begin_body(CHUNKED)
    assert reader.body() == b"a" * (MAX_CHUNKS - 1)
    assert reader.ready
    assert reader.body() == b"h"


def test_the_pieces_of_a_body_are_bytes_for_every_cut() -> None:
    for length, body in ((CHUNKED, chunk(b"hello") + LAST_CHUNK), (5, b"hello")):
        reader = reader_of(GET + body[:1])
        reader.feed(body[1:])
        reader.head()
        reader.begin_body(length)
        piece = reader.body()
        assert (piece, type(piece), reader.state) == (b"hello", bytes, "complete")


def test_only_a_small_remainder_is_copied() -> None:
    for rest, kind in ((0, bytes), (4096, bytes), (4097, bytearray)):
        reader = reader_of(GET + b"x" * rest)
        assert type(reader.head()) is bytes
        assert (len(reader.buffer), type(reader.buffer)) == (rest, kind)


def test_many_pieces_are_gathered_in_one_buffer() -> None:
    reader = reader_of(GET[:1])
    reader.feed(GET[1:2])
    place = reader.buffer
    reader.feed(GET[2:])
    assert reader.buffer is place
    assert reader.head() == GET


@pytest.mark.parametrize("cut", [0, 1, len(GET) - 1, len(GET), len(GET) + 2])
@pytest.mark.parametrize("likely", [b"", GET, GET.replace(b"GET", b"PUT"), GET + GET])
def test_a_head_is_the_same_whatever_head_is_likely(likely: bytes, cut: int) -> None:
    raw = GET + b"body"
    reader = reader_of(raw[:cut])
    head = reader.head(likely)
    reader.feed(raw[cut:])
    assert (head or reader.head(likely)) == GET
    reader.begin_body(4)
    assert (reader.body(), reader.buffer, reader.state) == (b"body", b"", "complete")


def test_a_likely_head_is_not_copied() -> None:
    assert reader_of(bytes(bytearray(GET))).head(GET) is GET


# The end


def test_a_skipped_message_is_complete_and_resets_the_count_of_empty_lines() -> None:
    reader = reader_of(b"\r\n" * BLANK_LINES)
    assert reader.head() is None
    reader.skip_known()
    assert reader.state == "complete"
    reader.next_message()
    reader.feed(b"\r\n" * BLANK_LINES + GET)
    assert reader.head() == GET


def test_an_empty_line_before_an_answer_is_refused() -> None:
    reader = MessageReader(1000)
    reader.feed(b"\r\n" + GET)
    with pytest.raises(ProtocolError, match="Too many empty lines"):
        reader.head()


def test_a_tunnel_gets_exactly_the_bytes_after_the_request() -> None:
    reader = reader_of(GET + b"\0\n\n" + POST)
    reader.head()
    reader.begin_body(0)
    assert reader.release() == b"\0\n\n" + POST
    assert (reader.state, len(reader.buffer)) == ("tunnel", 0)


def test_a_closed_reader_keeps_no_bytes() -> None:
    reader = reader_of(GET[:10])
    assert reader.head() is None
    reader.die()
    reader.feed(b"x" * 1000)
    assert (reader.state, len(reader.buffer), reader.ready) == ("dead", 0, False)


@pytest.mark.parametrize("raw", [b"\n", b"X\n", b"X\0", b"\r\n" * (BLANK_LINES + 1), b"X" * 1000])
def test_a_reader_keeps_no_bytes_after_a_refusal(raw: bytes) -> None:
    reader = reader_of(raw)
    with pytest.raises(ProtocolError):
        reader.head()
    assert reader.state == "dead"
    before = len(reader.buffer)
    reader.feed(GET)
    assert len(reader.buffer) == before


def test_a_refusal_quotes_no_part_of_its_message() -> None:
    for raw in (b"GET /secret\n", b"secret\r\n\r\n", b"\r\nsecret: a\0\r\n\r\n"):
        outcome = every_way(raw)
        assert outcome.refused
        assert re.search("secret", outcome.refused) is None
