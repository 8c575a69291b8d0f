"""aiohttp's C parser (llhttp) accepts every head that the sidecar accepts, and reads it in the same way.

The two strict readers share no code. They differ on purpose in three points; the tests change a head there before llhttp gets it:

- llhttp knows a list of methods, the sidecar accepts any token. For llhttp, CONNECT and PRI are not HTTP.
- The sidecar reads an answer of HTTP/1.2 and later as HTTP/1.1 (RFC 9110 section 2.5); llhttp refuses its version.
- aiohttp refuses a request with two of some headers that have no meaning for the sidecar, such as ETag.
"""

from random import Random

import pytest
from aiohttp.http import HttpRequestParser, HttpResponseParser, RawRequestMessage, RawResponseMessage
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.framing import CHUNKED, UNTIL_CLOSE
from sidecar.http.grammar import ProtocolError
from sidecar.http.header_policy import ResponseHeaderPolicy
from sidecar.http.request_head import parse_request_head
from sidecar.http.response_head import parse_response_head
from tests.http.heads import HEADERS, LINE_BYTES, facts, policy
from tests.proofs.core import ODD, answer, request, turned

LARGE = {"max_line_size": LINE_BYTES, "max_field_size": LINE_BYTES, "max_headers": 1000}
METHODS = {"GET", "HEAD", "POST", "PUT", "OPTIONS", "QUERY"}
CASES = 4000


def head_of(raw: bytes) -> bytes:
    """The first head of a stream, valid or not."""
    return raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def llhttp_request(raw: bytes) -> RawRequestMessage:
    messages, _, rest = HttpRequestParser(
        None, None, 2**16, response_with_body=False, auto_decompress=False, **LARGE  # type: ignore[arg-type]
    ).feed_data(raw)  # fmt: skip
    assert (len(messages), rest) == (1, b"")
    return messages[0][0]


def llhttp_answer(raw: bytes) -> RawResponseMessage:
    parser = HttpResponseParser(
        None, None, 2**16, response_with_body=False, auto_decompress=False, **LARGE  # type: ignore[arg-type]
    )  # fmt: skip
    messages, _, rest = parser.feed_data(raw)
    assert (len(messages), rest) == (1, b"")
    return messages[0][0]


def fields_of(raw: bytes) -> tuple[tuple[bytes, bytes], ...]:
    pairs = (line.partition(b":") for line in raw.split(b"\r\n")[1:-2])
    return tuple((name, value.strip(b" \t")) for name, _, value in pairs)


def same_request(raw: bytes) -> bool:
    """Is it accepted? If so, assert that llhttp reads it alike."""
    try:
        found = parse_request_head(raw, policy(underscores="allow"), LINE_BYTES, HEADERS)
    except ProtocolError:
        return False
    if found.problem:
        return False
    method, target, _ = raw.split(b" ", 2)
    if found.method not in METHODS:
        method = b"GET"
        raw = method + raw[len(found.method) :]
    if not found.target.startswith("/"):
        return False  # the rules about paths refuse it later
    for name in ("etag", "content-type", "server", "user-agent", "max-forwards"):
        if len(found.values(name)) > 1:
            return True
    seen = llhttp_request(raw)
    assert (seen.method, seen.path) == (method.decode(), target.decode())
    assert tuple(seen.version) == (1, found.minor)
    assert seen.raw_headers == fields_of(raw)
    assert seen.chunked == (found.length == CHUNKED)
    if found.length > 0:
        assert int(seen.headers["Content-Length"]) == found.length
    if not found.special.get("connection", [b""])[1:] and found.method != "CONNECT":
        assert seen.should_close is not found.persists or b"," in found.special.get("connection", [b""])[0]
    return True


def same_answer(raw: bytes) -> bool:
    """Is it accepted? If so, assert that llhttp reads it alike."""
    try:
        found = parse_response_head(raw, ResponseHeaderPolicy(), HEADERS)
    except ProtocolError:
        return False
    seen = llhttp_answer(b"HTTP/1.%d%b" % (found.minor, raw[8:]))
    assert seen.code == found.status
    assert seen.version.minor == found.minor
    assert seen.raw_headers == fields_of(raw)
    if found.length == CHUNKED:
        assert seen.chunked
    elif found.length > 0:
        assert int(seen.headers["Content-Length"]) == found.length
    elif found.length == UNTIL_CLOSE:
        assert not seen.chunked
        assert "Content-Length" not in seen.headers
    return True


@pytest.mark.parametrize("seed", ["1", "2"])
def test_llhttp_reads_nearly_valid_requests_alike(seed: str) -> None:
    accepted = 0
    for number in range(CASES):
        random = Random(f"{seed}:{number}")
        raw = request(random)
        accepted += same_request(head_of(turned(random, raw) if random.random() < 0.7 else raw))
    assert accepted > CASES / 5


@pytest.mark.parametrize("seed", ["1", "2"])
def test_llhttp_reads_nearly_valid_answers_alike(seed: str) -> None:
    accepted = 0
    for number in range(CASES):
        random = Random(f"{seed}:{number}")
        raw = answer(random)
        accepted += same_answer(head_of(turned(random, raw) if random.random() < 0.7 else raw))
    assert accepted > CASES / 5


PART = st.one_of(st.sampled_from([odd for odd in ODD if odd != b"\r\n\r\n"]), st.binary(max_size=3))


@given(method=PART, target=PART, name=PART, value=PART, last=PART)
def test_llhttp_reads_odd_bytes_in_a_head_alike(
    method: bytes, target: bytes, name: bytes, value: bytes, last: bytes
) -> None:
    fields = b"Host: a\r\nX%b: %b\r\nY: %b\r\n\r\n" % (name, value, last)
    same_request(head_of(b"GET%b /%b HTTP/1.1\r\n%b" % (method, target, fields)))
    same_answer(head_of(b"HTTP/1.1 200 %b\r\n%b" % (target, fields)))


@given(
    value=st.binary(max_size=20),
    name=st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade"]),
)
def test_llhttp_reads_odd_framing_alike(name: bytes, value: bytes) -> None:
    for more in (b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
        same_request(head_of(b"POST / HTTP/1.1\r\nHost: a\r\n%b: %b\r\n%b\r\n" % (name, value, more)))
        same_answer(head_of(b"HTTP/1.1 200 OK\r\n%b: %b\r\n%b\r\n" % (name, value, more)))


def test_heads_are_read_alike_with_and_without_remembered_lines() -> None:
    """Each head is read with all earlier lines remembered, and with none."""
    warm, warm_answers = policy(), ResponseHeaderPolicy()
    for number in range(CASES):
        random = Random(f"memory:{number}")
        raw, other = head_of(turned(random, request(random))), head_of(turned(random, answer(random)))
        for _ in range(2):
            assert facts(lambda: parse_request_head(raw, warm, LINE_BYTES, HEADERS)) == facts(  # noqa: B023
                lambda: parse_request_head(raw, policy(), LINE_BYTES, HEADERS)  # noqa: B023
            )
            assert facts(lambda: parse_response_head(other, warm_answers, HEADERS)) == facts(  # noqa: B023
                lambda: parse_response_head(other, ResponseHeaderPolicy(), HEADERS)  # noqa: B023
            )
    assert len(warm.known) > 100
