"""A head of an answer has one reading or none, however lenient other programs are."""

import pytest

from sidecar.http.framing import CHUNKED, UNTIL_CLOSE
from sidecar.http.grammar import ProtocolError
from tests.http.heads import HEADERS, answered

FIRST_WANTED = r"^An answer must begin with HTTP/1.1 and a status of three digits\.$"


@pytest.mark.parametrize(
    ("first", "passed_on", "minor"),
    [
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", 1),
        (b"HTTP/1.0 404 Not  Found", b"HTTP/1.1 404 Not  Found\r\n", 0),
        (b"HTTP/1.7 999 ", b"HTTP/1.1 999 \r\n", 1),
        (b"HTTP/1.1 200", b"HTTP/1.1 200 \r\n", 1),
        (b"HTTP/1.1 200 Gr\xc3\xbc\xc3\x9f", b"HTTP/1.1 200 \r\n", 1),
        (b"HTTP/1.1 200 a\tb", b"HTTP/1.1 200 \r\n", 1),
    ],
)
def test_a_status_line_is_passed_on_in_http_1_1(first: bytes, passed_on: bytes, minor: int) -> None:
    found = answered(first=first)
    assert (found.lines, found.minor, found.status) == (passed_on, minor, int(first[9:12]))


@pytest.mark.parametrize(
    "first",
    [
        "", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 099 x", "HTTP/1.1 000", "HTTP/1.1  200 OK",
        "HTTP/1.1 200OK", "HTTP/1.1\t200 OK", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK", "HTTP/1.11 200 OK", "http/1.1 200 OK",
        "RTSP/1.0 200 OK", " HTTP/1.1 200 OK", "HTTP/1.1 +20 OK", "HTTP/1.1 2x0 OK", "ICY 200 OK", "GET / HTTP/1.1",
        "HTTP/1.1 200\tOK",
    ],
)  # fmt: skip
def test_an_invalid_status_line_is_refused(first: str) -> None:
    with pytest.raises(ProtocolError, match=FIRST_WANTED):
        answered(first=first)


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 200 a\0b", b"HTTP/1.1 200 a\x7fb", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 a\nb"]
)
def test_a_phrase_with_control_characters_is_refused(first: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"must end in CRLF|must not hold control characters"):
        answered(first=first)


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(100, False), (101, True), (102, False), (199, False), (200, True), (204, True), (999, True)],
)
def test_another_head_follows_each_1xx_but_101(status: int, is_final: bool) -> None:
    assert answered(first=f"HTTP/1.1 {status} x").is_final is is_final


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b", b"\x08", b"\x1f", b"\x7f", b"\x0a", b"\x0b"])
def test_a_value_with_control_characters_is_refused(value: bytes) -> None:
    for lines in ([b"X-One: 1", b"X-Two: " + value], [b"X-Two: " + value, b"X-One: 1"]):
        with pytest.raises(ProtocolError):
            answered(*lines)


@pytest.mark.parametrize("value", [b"", b"a\tb", b"~", b"\x80", b"\xff"])
def test_any_other_value_is_passed_on(value: bytes) -> None:
    assert answered(b"X-One: " + value).lines == b"HTTP/1.1 200 OK\r\nX-One: %b\r\n" % value


@pytest.mark.parametrize(
    "name", ["content-length ", "content length", "", "caf\xe9", "a(", "a\t", " a", "\ta", "Transfer-Encoding "]
)
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="A header line must be"):
        answered("X-One: 1", f"{name}: 5")


def test_an_answer_has_a_limit_of_headers() -> None:
    lines = [f"X-{number}: x" for number in range(HEADERS)]
    assert answered(*lines).status == 200
    with pytest.raises(ProtocolError, match=rf"^An answer must have no more than {HEADERS} headers\.$"):
        answered(*lines, "X-Last: x")


def test_a_folded_line_and_a_line_without_colon_are_refused() -> None:
    for line in (" folded", "\tfolded", "nocolon", ""):
        with pytest.raises(ProtocolError, match="A header line must be"):
            answered("X-One: 1", line, "X-Two: 2")


def test_relayed_headers_keep_their_order_case_and_bytes() -> None:
    found = answered("ETag: a", "Keep-Alive: x", b"etag: \xff", "Content-Length: 5", "X-JWT-Sidecar: rejected")
    assert found.lines == b"HTTP/1.1 200 OK\r\nETag: a\r\netag: \xff\r\n"
    assert found.framing == b"Content-Length: 5\r\n"


def test_a_header_of_an_answer_named_by_connection_is_not_relayed() -> None:
    first = b"HTTP/1.1 200 OK\r\n"
    assert answered("X-One: 1", "Connection: close, x-one", "X-Two: 2").lines == first + b"X-Two: 2\r\n"
    assert answered("X-One: 1", "Connection: X-two", "Connection: x-one", "X-Two: 2").lines == first
    assert answered("Connection: close", "X-Two: 2", "Close: 3").lines == first + b"X-Two: 2\r\nClose: 3\r\n"
    assert answered("Connection: keep-alive, UPGRADE", "X: 2").lines == first + b"X: 2\r\n"


def test_connection_cannot_remove_the_status_line() -> None:
    found = answered("Connection: http/1.1 200 a", "X: 1", first="HTTP/1.1 200 a:b")
    assert found.lines == b"HTTP/1.1 200 a:b\r\nX: 1\r\n"


@pytest.mark.parametrize(
    ("lines", "status", "length", "content_length"),
    [
        ([], 200, UNTIL_CLOSE, None),
        (["Content-Length: 5"], 200, 5, b"5"),
        (["Content-Length: 0"], 200, 0, b"0"),
        (["Transfer-Encoding: chunked"], 200, CHUNKED, None),
        (["Content-Length: 5"], 204, 0, None),
        (["Content-Length: 5"], 304, 0, b"5"),
        (["Transfer-Encoding: chunked"], 304, 0, None),
        ([], 103, 0, None),
        ([], 101, 0, None),
    ],
)
def test_an_answer_has_the_length_of_its_headers_and_status(
    lines: list[str], status: int, length: int, content_length: bytes | None
) -> None:
    found = answered(*lines, first=f"HTTP/1.1 {status} x")
    framing = b"" if content_length is None else b"Content-Length: %b\r\n" % content_length
    assert (found.length, found.framing) == (length, framing)


@pytest.mark.parametrize("status", [103, 200, 204, 304])
@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5, 5"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: -1"],
        ["Content-Length: 18446744073709551621"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding:"],
    ],
)
def test_an_answer_with_an_ambiguous_length_is_refused_for_every_status(lines: list[str], status: int) -> None:
    with pytest.raises(ProtocolError):
        answered(*lines, first=f"HTTP/1.1 {status} x")


def test_a_chunked_answer_in_http_1_0_is_refused() -> None:
    with pytest.raises(ProtocolError):
        answered("Transfer-Encoding: chunked", first="HTTP/1.0 200 OK")


def test_a_backend_decides_whether_its_connection_persists() -> None:
    assert answered().persists
    assert not answered("Connection: x, Close").persists
    assert not answered(first="HTTP/1.0 200 OK").persists
    assert answered("Connection: keep-alive", first="HTTP/1.0 200 OK").persists


def test_a_request_id_of_an_answer_is_kept_unless_doubled_or_secret() -> None:
    assert answered("X-Request-Id: of-alice").id_line == b"X-Request-Id: of-alice\r\n"
    for lines in ([], ["X-Request-Id: a", "X-Request-Id: a"], ["X-Request-Id: a b"], ["X-Request-Id: jsk_a"]):
        assert answered(*lines).id_line == b""


def test_a_101_names_exactly_one_protocol() -> None:
    assert answered("Upgrade: WebSocket").upgrade == b"websocket"
    assert answered().upgrade is answered("Upgrade: a", "Upgrade: a").upgrade is None
