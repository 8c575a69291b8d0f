"""The HTTP/1.1 reader that judges in `tests.proofs.traffic`: what it accepts and what it refuses."""

import ast
from pathlib import Path

import pytest

from tests.proofs import http_model
from tests.proofs.http_model import Answer, Got, Head, Malformed, Reader, Steps, Truncated, finish, framing, head

OK = b"HTTP/1.1 200 OK\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"


def read(steps: Steps[Got], reader: Reader, data: bytes, end: str = "", step: int = 10_000) -> Got | None:
    """The parsed messages of these bytes, fed in pieces of this size, with this end."""
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        if (got := finish(steps)) is not None:
            reader.feed(data[at + step :])
            return got
    reader.end = end
    return finish(steps) if end else None


def answer(data: bytes, method: str = "GET", end: str = "", step: int = 10_000) -> tuple[Answer | None, bytes]:
    """The answer, and the bytes after it."""
    reader = Reader()
    return read(reader.answer(method, []), reader, data, end, step), bytes(reader.buffer)


def test_the_model_shares_no_code_with_the_sidecar() -> None:
    imports = [
        node for node in ast.walk(ast.parse(Path(http_model.__file__).read_text())) if isinstance(node, ast.ImportFrom)
    ]
    assert {node.module for node in imports} == {"collections.abc", "dataclasses", "typing"}


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
@pytest.mark.parametrize(
    ("rest", "method", "body", "ends_with", "left"),
    [
        (b"Content-Length: 5\r\n\r\nhelloHTTP", "GET", b"hello", "length", b"HTTP"),
        (b"Content-Length: 0\r\n\r\n", "GET", b"", "length", b""),
        (b"Content-Length: 5\r\n\r\nnext", "HEAD", b"", "none", b"next"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nx", "GET", b"hello", "chunked", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n\r\n", "GET", b"", "chunked", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", "HEAD", b"", "none", b""),
        (b"\r\nhello", "GET", b"hello", "close", b""),
    ],
)
def test_valid_answers_are_read_with_their_framing(
    rest: bytes, method: str, body: bytes, ends_with: str, left: bytes, step: int
) -> None:
    got, behind = answer(OK + rest, method, "fin", step)
    assert got is not None
    assert (got.status, got.body, got.ends_with, behind) == (200, body, ends_with, left)


@pytest.mark.parametrize("first", ["204 No Content", "304 Not Modified", "101 Switching Protocols"])
def test_answers_204_304_and_101_have_no_body(first: str) -> None:
    got, behind = answer(f"HTTP/1.1 {first}\r\n\r\nnext".encode())
    assert got is not None
    assert (got.body, behind) == (b"", b"next")


def test_interim_answers_are_read_before_the_final_one() -> None:
    reader, interim = Reader(), list[Head]()
    steps = reader.answer("GET", interim)
    reader.feed(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert finish(steps) is None
    assert [(one.status, one.get("link")) for one in interim] == [(103, "</a>")]
    reader.feed(OK + b"Content-Length: 1\r\n\r\na")
    got = finish(steps)
    assert got is not None
    assert got.body == b"a"


def test_an_end_without_bytes_is_no_answer() -> None:
    assert answer(b"", end="fin") == (None, b"")


@pytest.mark.parametrize(
    ("data", "end", "body"),
    [
        (OK[:9], "fin", b""),
        (OK + b"Content-Length: 5\r\n\r\nhell", "fin", b"hell"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell", "fin", b"hell"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r", "fin", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "fin", b"hello"),
        (OK + b"\r\nhell", "reset", b"hell"),
    ],
)
def test_an_incomplete_answer_is_truncated(data: bytes, end: str, body: bytes) -> None:
    with pytest.raises(Truncated) as raised:
        answer(data, end=end)
    assert raised.value.body == body


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"stray HTTP/1.1 200 OK\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        OK + b"X-A : b\r\n\r\n",
        OK + b"X-A: b\r\n folded\r\n\r\n",
        OK + b"X-A: b\x00\r\n\r\n",
        OK + b"X-A: b\rc\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\na",
        OK + b"Content-Length: 1234567890123456789\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_invalid_answers_are_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        answer(raw)


def test_a_valid_request_is_read_with_its_framing() -> None:
    reader = Reader()
    got = read(reader.request(), reader, GET + b"X-A:  b c \r\nContent-Length: 2\r\n\r\nhi")
    assert got is not None
    assert (got.method, got.target, got.all("x-a"), framing(got)) == ("GET", "/x", ["b c"], ("length", 2))
    assert read(reader.body(got, *framing(got)), reader, b"", "fin") == b"hi"
    assert framing(head(GET + b"\r\n")) == ("none", 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /x HTTP/1.1\r\n\r\n",
        GET + b"Host: b\r\n\r\n",
        b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET x HTTP/1.1\r\nHost: a\r\n\r\n",
        OK + b"\r\n",
    ],
)
def test_invalid_requests_are_malformed(raw: bytes) -> None:
    reader = Reader()
    with pytest.raises(Malformed):
        read(reader.request(), reader, raw)


@pytest.mark.parametrize(
    ("raw", "lasts"),
    [
        (OK + b"\r\n", True),
        (OK + b"Connection: X-A, Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_connection_persists_by_version_and_connection_header(raw: bytes, lasts: bool) -> None:
    assert head(raw).lasts is lasts
