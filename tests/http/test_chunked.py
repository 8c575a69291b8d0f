"""Decoding of a chunked body: strict sizes, exact line ends, and limits for everything but the body."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.chunked import MAX_CHUNKS, MAX_SIZE_LINE, ChunkedDecoder
from sidecar.http.grammar import ProtocolError
from tests.http.streams import byte_by_byte, cut

TRAILER_BYTES = 100


def decoded(pieces: list[bytes], trailer_bytes: int = TRAILER_BYTES) -> tuple[bytes, bool, bytes]:
    """(the body, has it ended?, the bytes that are left), decoded as the reader does it."""
    decoder, waiting, body = ChunkedDecoder(trailer_bytes), b"", b""
    for piece in pieces:
        waiting += piece
        while True:
            found, used = decoder.decode(waiting)
            waiting = waiting[used:]
            body += b"".join(found)
            if not decoder.more:
                break
    return body, decoder.done, waiting


def every_way(raw: bytes, trailer_bytes: int = TRAILER_BYTES) -> tuple[bytes, bool, bytes]:
    """The same whole and byte by byte."""
    results = []
    for pieces in ([raw], byte_by_byte(raw)):
        try:
            results.append(decoded(pieces, trailer_bytes))
        except ProtocolError as error:
            results.append((error.rule.encode(), error.too_large, b""))
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize(
    "raw",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"05\r\nhello\r\n000\r\n\r\n",
        b"000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
        b'5 \t;a="b;c"\xff\r\nhello\r\n0\r\n\r\n',
        b"5\r\nhello\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n",
    ],
)
def test_a_chunked_body_is_decoded_and_its_trailers_are_dropped(raw: bytes) -> None:
    assert every_way(raw) == (b"hello", True, b"")
    assert decoded([raw + b"GET /"]) == (b"hello", True, b"GET /")


def test_a_size_is_hexadecimal_in_upper_or_lower_case() -> None:
    assert every_way(b"a\r\n" + b"x" * 10 + b"\r\nB\r\n" + b"y" * 11 + b"\r\n0\r\n\r\n")[0] == b"x" * 10 + b"y" * 11


def test_a_size_has_several_digits() -> None:
    assert every_way(b"1A\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n")[0] == b"x" * 26


def test_the_line_end_after_a_chunk_is_consumed_with_it() -> None:
    assert ChunkedDecoder(TRAILER_BYTES).decode(b"1\r\na\r\n") == ([b"a"], 6)


def test_an_empty_body_has_only_the_last_chunk() -> None:
    assert every_way(b"0\r\n\r\n") == (b"", True, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n", b"\n", b"5\nhello\r\n", b"5\r", b" 5\r\n", b"5 \r\n", b"5\t\r\n", b"+5\r\n", b"-5\r\n", b"0x5\r\n", b"5h\r\n",
        b"g\r\n", b";a\r\n", b"5,5\r\n", b"5 a\r\n", b"5;a\n", b"5;a\0b\r\n", b"5;\x7f\r\n", b"5;a\rb\r\n", b"1_0\r\n",
        b"\xb2\r\n", b"0000000000000005\r\n", b"fffffffffffffffff\r\n",
    ],
)  # fmt: skip
def test_an_invalid_size_is_refused(raw: bytes) -> None:
    raw = raw if raw.endswith(b"\n") else raw + b"\n" if raw != b"5\r" else b"5\rx\n"
    assert every_way(raw) == (b"A chunk must begin with its size in hexadecimal digits.", False, b"")


@pytest.mark.parametrize("end", [b"\n", b"x\r\n", b"\rx", b"\r\r\n", b"\n\r\n", b"0\r\n"])
def test_a_chunk_must_end_at_its_size(end: bytes) -> None:
    assert every_way(b"1\r\na" + end) == (b"A chunk must end where its size says.", False, b"")


def test_a_size_with_its_extensions_has_a_limit() -> None:
    fits = b"5;" + b"a" * (MAX_SIZE_LINE - 4) + b"\r\n"
    assert len(fits) == MAX_SIZE_LINE
    assert every_way(fits + b"hello\r\n0\r\n\r\n")[0] == b"hello"
    for longer in (b"5;" + b"a" * (MAX_SIZE_LINE - 3) + b"\r\n", b"5;" + b"a" * (MAX_SIZE_LINE - 2)):
        assert every_way(longer)[0] == b"A chunk's size and extensions are longer than accepted."


@pytest.mark.parametrize(
    ("trailer", "rule"),
    [
        (b"nocolon\r\n", "A header line must be"),
        (b" a: b\r\n", "A header line must be"),
        (b"a : b\r\n", "A header line must be"),
        (b": b\r\n", "A header line must be"),
        (b"a: b\n", "A line must end in CRLF"),
        (b"\n", "A line must end in CRLF"),
        (b"a: b\r\r\n", "A line must end in CRLF"),
        (b"a: \rb\r\n", "A line must end in CRLF"),
        (b"a: \0\r\n", "A head must not hold control"),
        (b"a: \x0b\r\n", "A head must not hold control"),
        (b"a: \x7f\r\n", "A head must not hold control"),
    ],
)
def test_an_invalid_trailer_is_refused(trailer: bytes, rule: str) -> None:
    assert every_way(b"0\r\n" + trailer + b"\r\n")[0].startswith(rule.encode())
    assert every_way(b"0\r\nX: y\r\n" + trailer + b"\r\n")[0].startswith(rule.encode())


def test_all_trailers_share_one_limit() -> None:
    line = b"X: 34567\r\n"
    assert every_way(b"0\r\n" + line * 9 + b"\r\n") == (b"", True, b"")
    assert every_way(b"0\r\n" + line * 10 + b"\r\n")[:2] == (
        b"The trailers of a chunked body are larger than accepted.",
        True,
    )
    assert every_way(b"0\r\nX: " + b"a" * 200)[1] is True, "an unfinished trailer"
    assert every_way(b"0\r\nX: " + b"a" * 97)[:2] == (b"", False)


@pytest.mark.parametrize("piece", [b"1\r\na\r\n", b"2;x\r\nab\r\n"])
def test_decoding_pauses_after_a_limited_number_of_chunks(piece: bytes) -> None:
    decoder = ChunkedDecoder(TRAILER_BYTES)
    raw = piece * (MAX_CHUNKS + 5) + b"0\r\n\r\n"
    pieces, used = decoder.decode(raw)
    assert decoder.more
    assert not decoder.done
    assert len(pieces) <= MAX_CHUNKS
    assert used <= MAX_CHUNKS * len(piece)
    assert decoded([raw]) == (b"".join(piece.split(b"\r\n")[1] for _ in range(MAX_CHUNKS + 5)), True, b"")


def test_decoding_pauses_after_a_limited_number_of_trailers() -> None:
    decoder = ChunkedDecoder(10**6)
    raw = b"0\r\n" + b"X: y\r\n" * (MAX_CHUNKS + 5) + b"\r\n"
    _, used = decoder.decode(raw)
    assert (decoder.more, decoder.done) == (True, False)
    assert used == 3 + 6 * (MAX_CHUNKS - 1), "each trailer counts as one chunk"
    assert decoded([raw], 10**6) == (b"", True, b"")


def test_an_incomplete_chunk_waits_for_more_bytes() -> None:
    decoder = ChunkedDecoder(TRAILER_BYTES)
    assert decoder.decode(b"1\r\na\r\n" * (MAX_CHUNKS - 1) + b"5") == ([b"a"] * (MAX_CHUNKS - 1), 6 * (MAX_CHUNKS - 1))
    assert not decoder.more
    decoder.decode(b"1\r\na\r\n" * (MAX_CHUNKS - 1) + b"1\r\n")
    assert not decoder.more


def test_bytes_after_the_last_chunk_are_not_read() -> None:
    decoder = ChunkedDecoder(TRAILER_BYTES)
    assert decoder.decode(b"0\r\n\r\nzzz") == ([], 5)
    assert decoder.decode(b"zzz") == ([], 0)


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@given(chunks=CHUNKS, behind=st.binary(max_size=10), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_the_decoded_body_does_not_depend_on_the_cuts(chunks: list[bytes], behind: bytes, cuts: list[int]) -> None:
    raw = b"".join(b"%x;e\r\n%b\r\n" % (len(piece), piece) for piece in chunks) + b"0\r\nX: y\r\n\r\n"
    assert decoded(cut(raw + behind, cuts)) == (b"".join(chunks), True, behind)
    assert decoded(byte_by_byte(raw)) == (b"".join(chunks), True, b"")
