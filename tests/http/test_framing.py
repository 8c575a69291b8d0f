"""Where a body ends and whether its connection persists: each message that another program could read differently is refused."""

import pytest

from sidecar.http.chunked import ChunkedDecoder
from sidecar.http.framing import (
    CHUNKED,
    LAST_CHUNK,
    UNTIL_CLOSE,
    chunk,
    persists,
    request_length,
    response_length,
)
from sidecar.http.grammar import ProtocolError, options

CODING = [b"chunked"]
CHUNKS_WANTED = r"^Transfer-Encoding must be chunked, alone, in HTTP/1.1\.$"
LENGTH_WANTED = r"^Content-Length must be one number\.$"
BAD_LENGTHS = [
    [b""], [b"+5"], [b"-5"], [b"5,5"], [b"5, 5"], [b"0x5"], [b"5 "], [b" 5"], [b"1_0"], [b"\xb2"], [b"5.0"], [b"0" * 19],
    [b"5", b"5"], [b"5", b"6"], [b"\xd9\xa5"],
]  # fmt: skip
BAD_CODINGS = [
    [b""], [b"identity"], [b"gzip"], [b"gzip, chunked"], [b"chunked, chunked"], [b"chunked,"], [b"chunked;a"], [b"chunked "],
    [b"xchunked"], [b"chunked", b"chunked"], [b"gzip", b"chunked"], [b"chun\xe2\x84\xaaed"],
]  # fmt: skip


@pytest.mark.parametrize(("said", "length"), [(b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, 10**18 - 1)])
@pytest.mark.parametrize("minor", [0, 1])
def test_a_content_length_is_one_number_of_at_most_18_digits(minor: int, said: bytes, length: int) -> None:
    assert request_length(minor, [], [said]) == response_length(200, minor, [], [said]) == length


@pytest.mark.parametrize("lengths", BAD_LENGTHS)
@pytest.mark.parametrize("minor", [0, 1])
def test_any_other_content_length_is_refused(minor: int, lengths: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match=LENGTH_WANTED):
        request_length(minor, [], lengths)
    for status in (103, 200, 204, 304):
        with pytest.raises(ProtocolError, match=LENGTH_WANTED):
            response_length(status, minor, [], lengths)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_the_only_transfer_coding_is_chunked(coding: bytes) -> None:
    assert request_length(1, [coding], []) == response_length(200, 1, [coding], []) == CHUNKED


@pytest.mark.parametrize("codings", BAD_CODINGS)
def test_any_other_transfer_coding_is_refused(codings: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match=CHUNKS_WANTED):
        request_length(1, codings, [])
    for status in (103, 200, 204, 304):
        with pytest.raises(ProtocolError, match=CHUNKS_WANTED):
            response_length(status, 1, codings, [])


@pytest.mark.parametrize(("minor", "lengths"), [(0, []), (1, [b"5"]), (1, [b"0"]), (1, [b"x"])])
def test_chunked_needs_http_1_1_and_no_content_length(minor: int, lengths: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match=CHUNKS_WANTED):
        request_length(minor, CODING, lengths)
    with pytest.raises(ProtocolError, match=CHUNKS_WANTED):
        response_length(200, minor, CODING, lengths)


def test_a_missing_length_means_no_body_of_a_request_and_an_answer_until_close() -> None:
    assert request_length(0, [], []) == request_length(1, [], []) == 0
    assert response_length(200, 0, [], []) == response_length(404, 1, [], []) == UNTIL_CLOSE


@pytest.mark.parametrize("status", [100, 101, 199, 204, 304])
def test_answers_1xx_204_and_304_have_no_body(status: int) -> None:
    for codings, lengths in ((CODING, []), ([], [b"5"]), ([], [])):
        assert response_length(status, 1, codings, lengths) == 0


@pytest.mark.parametrize(
    ("minor", "connection", "lasts"),
    [
        (1, [], True),
        (0, [], False),
        (1, [b"close"], False),
        (1, [b"Keep-Alive"], True),
        (0, [b"Keep-Alive"], True),
        (0, [b"x, keep-alive"], True),
        (1, [b"keep-alive", b"x,CLOSE\t"], False),
        (0, [b"keep-alive, close"], False),
        (1, [b"closed"], True),
        (1, [b""], True),
        (0, [b"x"], False),
    ],
)
def test_the_sender_of_a_message_decides_whether_its_connection_persists(
    minor: int, connection: list[bytes], lasts: bool
) -> None:
    assert persists(minor, connection) is lasts


def test_the_symbolic_lengths_are_negative_and_differ() -> None:
    lower, higher = sorted((CHUNKED, UNTIL_CLOSE))
    assert lower < higher < 0


def test_the_members_of_a_list_are_lower_case_and_not_empty() -> None:
    assert options([b",A,, b\t", b"", b"c d"]) == {b"a", b"b", b"c d"}


def test_the_decoder_reads_the_sidecars_own_chunks() -> None:
    decoder = ChunkedDecoder(100)
    raw = chunk(b"a" * 300) + chunk(b"b") + LAST_CHUNK
    pieces, used = decoder.decode(raw)
    assert (b"".join(pieces), used, decoder.done) == (b"a" * 300 + b"b", len(raw), True)
    assert raw.startswith(b"12c\r\n")
