"""The bytes that a client may send, and the bytes that then reach the backend.

In the rows `ALICE` stands for the header line with a good token, and `\\n` for the end of a line. Each is sent whole, byte by
byte, and with another request close behind it. Whatever is sent: the backend sees well-formed requests of alice and nothing else.
"""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.peers.backend import Request
from tests.peers.raw import Response
from tests.peers.wire import chunked, request
from tests.proxy.conftest import FEEDS, Stack, running

feeds = pytest.mark.parametrize("feed", FEEDS)

LF = "\x1e"  # in a row: a bare one, since a \n becomes CR LF
SMUGGLED = "GET /smuggled HTTP/1.1\nHost: sidecar.test\n\n"


def rows(*named: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in named])


def bytes_of(stack: Stack, row: str) -> bytes:
    """A row as bytes."""
    return stack.raw(row).replace(LF.encode(), b"\n")


async def said(stack: Stack, row: str, feed: str) -> list[Response]:
    """Send a row; whatever it was, the backend has seen alice's requests for what is hers, and nobody was failed."""
    answers = await stack.converse(bytes_of(stack, row), feed)
    assert answers, "no answer"
    for answer in answers:
        assert answer.status < 500
        if answer.status >= 400:
            assert answer.get("x-jwt-sidecar") == "rejected"
            assert answer.get("content-type") == "application/json"
    for seen in [*stack.backend.requests, *stack.backend.incomplete]:
        assert seen.all("x-jwt-status") == ["verified"]
        assert seen.all("x-jwt-sub") == ["alice"]
        assert seen.target not in ("/smuggled", "/tail")
        assert seen.get("authorization") is None
    return answers


async def refused(stack: Stack, row: str, feed: str, *statuses: int) -> Response:
    """Send a row that is refused, and behind which nothing is read any more; the refusal."""
    [answer] = await said(stack, row, feed)
    assert answer.status in (statuses or (400,))
    assert stack.backend.requests == []
    return answer


async def forwarded(stack: Stack, row: str, feed: str) -> Request:
    """Send a row that is one request of alice; what the backend saw of it. The request behind it lacks a token."""
    answers = await said(stack, row, feed)
    [seen] = stack.backend.requests
    assert [answer.status for answer in answers] == [200, 401]
    return seen


# Smuggling: a length that two programs could read differently

OBFUSCATED = {
    "x before": "Transfer-Encoding: xchunked",
    "x after": "Transfer-Encoding: chunkedx",
    "vertical tab before": "Transfer-Encoding: \x0bchunked",
    "vertical tab after": "Transfer-Encoding: chunked\x0b",
    "form feed before": "Transfer-Encoding: \x0cchunked",
    "form feed after": "Transfer-Encoding: chunked\x0c",
    "NUL before": "Transfer-Encoding: \x00chunked",
    "NUL inside": "Transfer-Encoding: chu\x00nked",
    "no-break space": "Transfer-Encoding: \xa0chunked",
    "high byte inside": "Transfer-Encoding: ch\x96unked",
    "high byte after": "Transfer-Encoding: chunked\xff",
    "single quotes": "Transfer-Encoding: 'chunked'",
    "double quotes": 'Transfer-Encoding: "chunked"',
    "parameter": "Transfer-Encoding: chunked;q=1",
    "semicolon": "Transfer-Encoding: chunked;",
    "comma before": "Transfer-Encoding: ,chunked",
    "comma after": "Transfer-Encoding: chunked,",
    "twice in a list": "Transfer-Encoding: chunked, chunked",
    "two words": "Transfer-Encoding: chunked chunked",
    "identity": "Transfer-Encoding: identity",
    "identity, chunked": "Transfer-Encoding: identity, chunked",
    "chunked, identity": "Transfer-Encoding: chunked, identity",
    "gzip": "Transfer-Encoding: gzip",
    "gzip, chunked": "Transfer-Encoding: gzip, chunked",
    "chunked, gzip": "Transfer-Encoding: chunked, gzip",
    "empty": "Transfer-Encoding:",
    "cut short": "Transfer-Encoding: chunke",
    "another word": "Transfer-Encoding: cow",
    "two headers": "Transfer-Encoding: chunked\nTransfer-Encoding: chunked",
    "two headers, identity last": "Transfer-Encoding: chunked\nTransfer-Encoding: identity",
    "two headers, identity first": "Transfer-Encoding: identity\nTransfer-Encoding: chunked",
    "two headers, other spelling": "Transfer-Encoding: chunked\ntransfer-encoding: x",
    "folded before": "Transfer-Encoding:\n chunked",
    "folded after": "Transfer-Encoding: chunked\n ",
    "folded into another": "X-A: b\n Transfer-Encoding: chunked",
    "space before the colon": "Transfer-Encoding : chunked",
    "tab before the colon": "Transfer-Encoding\t: chunked",
    "colon on the next line": "Transfer-Encoding\n: chunked",
    "NUL in the name": "Transfer-Encoding\x00: chunked",
    "space in the name": "Transfer Encoding: chunked",
    "space before the name": " Transfer-Encoding: chunked",
    "behind a bare CR": "X-A: b\rTransfer-Encoding: chunked",
    "behind a bare LF": "X-A: b\x1eTransfer-Encoding: chunked",
    "behind CR CR LF": "X-A: b\r\nTransfer-Encoding: chunked",
    "long s": "Tran\xc5\xbffer-Encoding: chunked",
}
BODY = f"0\n\n{SMUGGLED}"
LENGTH = len(BODY.replace("\n", "\r\n"))


@feeds
@rows(*OBFUSCATED.items())
async def test_an_obfuscated_transfer_encoding_is_refused(stack: Stack, row: str, feed: str) -> None:
    head = "POST /x HTTP/1.1\nHost: sidecar.test\nALICE"
    for framing in (row, f"Content-Length: {LENGTH}\n{row}", f"{row}\nContent-Length: {LENGTH}"):
        await refused(stack, f"{head}\n{framing}\n\n{BODY}", feed)


@feeds
@rows(
    ("underscore", "Transfer_Encoding: chunked"),
    ("dot", "Transfer.Encoding: chunked"),
    ("prefix", "X-Transfer-Encoding: chunked"),
)
async def test_a_header_that_folds_to_transfer_encoding_does_not_frame_a_body(
    stack: Stack, row: str, feed: str
) -> None:
    text = f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\nContent-Length: {LENGTH}\n{row}\n\n{BODY}"
    seen = await forwarded(stack, text, feed)
    assert len(seen.body) == LENGTH
    assert seen.get("transfer_encoding") is None


@feeds
@rows(
    ("CL.TE", f"Content-Length: {LENGTH}\nTransfer-Encoding: chunked\n\n{BODY}"),
    ("TE.CL", f"Transfer-Encoding: chunked\nContent-Length: {LENGTH}\n\n{BODY}"),
    ("CL.TE agreeing", "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n"),
    ("twice", f"Content-Length: {LENGTH}\nContent-Length: 0\n\n{BODY}"),
    ("twice the same", f"Content-Length: {LENGTH}\nContent-Length: {LENGTH}\n\n{BODY}"),
    ("twice, other spelling", f"Content-Length: 0\ncontent-length: {LENGTH}\n\n{BODY}"),
    ("list", f"Content-Length: {LENGTH}, 0\n\n{BODY}"),
    ("list of the same", f"Content-Length: {LENGTH}, {LENGTH}\n\n{BODY}"),
    ("comma", f"Content-Length: {LENGTH},\n\n{BODY}"),
    ("plus", f"Content-Length: +{LENGTH}\n\n{BODY}"),
    ("minus", f"Content-Length: -{LENGTH}\n\n{BODY}"),
    ("hexadecimal", f"Content-Length: {LENGTH:#x}\n\n{BODY}"),
    ("underscore", "Content-Length: 5_0\n\n" + "x" * 50),
    ("space inside", "Content-Length: 5 0\n\n" + "x" * 50),
    ("point", f"Content-Length: {LENGTH}.0\n\n{BODY}"),
    ("exponent", "Content-Length: 1e1\n\n" + "x" * 10),
    ("empty", f"Content-Length:\n\n{BODY}"),
    ("word", f"Content-Length: all\n\n{BODY}"),
    ("parameter", f"Content-Length: {LENGTH};a\n\n{BODY}"),
    ("arabic digits", "Content-Length: \xd9\xa5\n\nhello"),
    ("fullwidth digits", "Content-Length: \xef\xbc\x95\n\nhello"),
    ("vertical tab", f"Content-Length: \x0b{LENGTH}\n\n{BODY}"),
    ("2^64", f"Content-Length: 18446744073709551616\n\n{BODY}"),
    ("2^64 + 5", "Content-Length: 18446744073709551621\n\nhello"),
    ("2^63", f"Content-Length: 9223372036854775808\n\n{BODY}"),
    ("5000 digits", f"Content-Length: {'9' * 5000}\n\n{BODY}"),
    ("5000 zeros", f"Content-Length: {'0' * 5000}5\n\nhello"),
    ("space before the colon", f"Content-Length : {LENGTH}\n\n{BODY}"),
    ("folded", f"Content-Length:\n {LENGTH}\n\n{BODY}"),
)
async def test_a_content_length_that_is_not_one_number_is_refused(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\n{row}", feed)


@feeds
@rows(("chunked", "Transfer-Encoding: chunked"), ("both", f"Content-Length: {LENGTH}\nTransfer-Encoding: chunked"))
async def test_chunks_in_http_1_0_are_refused(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, f"POST /x HTTP/1.0\nHost: sidecar.test\nALICE\n{row}\n\n{BODY}", feed)


@feeds
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_a_body_of_a_method_without_one_stays_a_body(stack: Stack, method: str, feed: str) -> None:
    seen = await forwarded(
        stack, f"{method} /x HTTP/1.1\nHost: sidecar.test\nALICE\nContent-Length: {LENGTH}\n\n{BODY}", feed
    )
    assert (seen.method, len(seen.body)) == (method, LENGTH)


@feeds
async def test_bytes_after_a_length_of_zero_are_the_next_request(stack: Stack, feed: str) -> None:
    raw = bytes_of(stack, f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\nContent-Length: 0\n\n{SMUGGLED}")
    answers = await stack.converse(raw, feed)
    assert [answer.status for answer in answers] == [200, 401, 401]
    assert [seen.target for seen in stack.backend.requests] == ["/x"]


@feeds
@rows(
    ("plain", "Transfer-Encoding: chunked"),
    ("upper case", "TRANSFER-ENCODING: CHUNKED"),
    ("spaces before", "Transfer-Encoding:  \tchunked"),
    ("no space", "Transfer-Encoding:chunked"),
)
async def test_a_valid_transfer_encoding_is_written_anew(stack: Stack, row: str, feed: str) -> None:
    seen = await forwarded(stack, f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\n{row}\n\n5\nhello\n0\n\n", feed)
    assert seen.body == b"hello"


@feeds
@rows(("leading zeros", "Content-Length: 0005"), ("spaces around", "Content-Length:  5 \t"))
async def test_a_valid_content_length_is_written_anew(stack: Stack, row: str, feed: str) -> None:
    seen = await forwarded(stack, f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\n{row}\n\nhello", feed)
    assert (seen.body, seen.all("content-length")) == (b"hello", ["5"])


# Chunk syntax

CHUNKED = "POST /x HTTP/1.1\nHost: sidecar.test\nALICE\nTransfer-Encoding: chunked\n\n"


@feeds
@rows(
    ("LF in an extension", f"5;a{LF}b\nhello\n0\n\n"),
    ("CR in an extension", "5;a\rb\nhello\n0\n\n"),
    ("NUL in an extension", "5;a\x00b\nhello\n0\n\n"),
    ("plus", "+5\nhello\n0\n\n"),
    ("minus", "-5\nhello\n0\n\n"),
    ("0x", "0x5\nhello\n0\n\n"),
    ("underscore", "0_5\nhello\n0\n\n"),
    ("space before", " 5\nhello\n0\n\n"),
    ("space after", "5 \nhello\n0\n\n"),
    ("tab after", "5\t\nhello\n0\n\n"),
    ("fullwidth digit", "\xef\xbc\x95\nhello\n0\n\n"),
    ("letter", "g\nhello\n0\n\n"),
    ("empty", "\nhello\n0\n\n"),
    ("comma", "5,5\nhello\n0\n\n"),
    ("overflow", "10000000000000005\nhello\n0\n\n"),
    ("overflow of f", "ffffffffffffffffff\nhello\n0\n\n"),
    ("bare LF after the size", f"5{LF}hello\n0\n\n"),
    ("bare CR after the size", "5\rhello\n0\n\n"),
    ("bare LF after the data", f"5\nhello{LF}0\n\n"),
    ("no end after the data", "5\nhello0\n\n"),
    ("more than the size", "5\nhello!\n0\n\n"),
    ("less than the size", "5\nhell\n0\n\n"),
    ("two bare LF at the end", f"5\nhello\n0{LF}{LF}"),
    ("bare LF at the end", f"5\nhello\n0\n{LF}"),
    ("a word", "5\nhello\nend\n\n"),
    ("a trailer that is none", "5\nhello\n0\nno colon\n\n"),
    ("a trailer with a bare CR", "5\nhello\n0\nX-A: a\rb\n\n"),
    ("a folded trailer", "5\nhello\n0\nX-A: a\n b\n\n"),
)
async def test_invalid_chunk_syntax_never_completes_at_the_backend(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, CHUNKED + row, feed)


@feeds
@rows(
    ("extension", "5;name=value\nhello\n0\n\n"),
    ("quoted extension", '5;name="a b"\nhello\n0\n\n'),
    ("extension of the last", "5\nhello\n0;last\n\n"),
    ("leading zeros", "0005\nhello\n000\n\n"),
    ("upper case", "0A\nhellohello\n0\n\n"),
    ("several", "2\nhe\n3\nllo\n0\n\n"),
)
async def test_valid_chunk_syntax_is_written_anew(stack: Stack, row: str, feed: str) -> None:
    seen = await forwarded(stack, CHUNKED + row, feed)
    assert seen.body in (b"hello", b"hellohello")
    assert b"name" not in seen.body_raw


@feeds
@rows(
    ("Content-Length", "Content-Length: 50"),
    ("Transfer-Encoding", "Transfer-Encoding: identity"),
    ("Host", "Host: elsewhere.test"),
    ("Authorization", "Authorization: Bearer mallory"),
    ("claim", "X-JWT-Sub: mallory"),
    ("folded claim", "X_JWT_Sub: mallory"),
    ("another", "X-Checksum: 1"),
)
async def test_trailers_are_dropped(stack: Stack, row: str, feed: str) -> None:
    answers = await said(stack, f"{CHUNKED}5\nhello\n0\n{row}\n\n", feed)
    assert answers[0].status in (200, 400)
    for seen in stack.backend.requests:
        assert (seen.body, seen.trailers, seen.get("host")) == (b"hello", [], "sidecar.test")
        assert seen.get("x-checksum") is None


# Header syntax, versions, Host


@feeds
@rows(
    ("bare CR", "X-A: a\rb"),
    ("bare LF", f"X-A: a{LF}X-B: b"),
    ("bare CR at the end", "X-A: a\r"),
    ("NUL", "X-A: a\x00b"),
    ("control character", "X-A: a\x01b"),
    ("DEL", "X-A: a\x7fb"),
    ("folded", "X-A: a\n b"),
    ("folded by a tab", "X-A: a\n\tb"),
    ("space in the name", "X A: a"),
    ("space before the colon", "X-A : a"),
    ("tab before the colon", "X-A\t: a"),
    ("space before the name", " X-A: a"),
    ("no colon", "X-A"),
    ("no colon and a token", "ALICE\nAuthorization Bearer x"),
    ("empty name", ": a"),
    ("NUL in the name", "X\x00A: a"),
    ("high byte in the name", "X\xe4A: a"),
    ("parenthesis in the name", "X(A: a"),
    ("at sign in the name", "X@A: a"),
)
async def test_invalid_header_syntax_is_refused(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\nALICE\n{row}\n\n", feed)
    stack.backend.requests.clear()
    await refused(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\n{row}\nALICE\n\n", feed)


@feeds
@rows(
    ("0.9", "GET /x\n\n"),
    ("0.9 with headers", "GET /x HTTP/0.9\nHost: sidecar.test\nALICE\n\n"),
    ("1.2", "GET /x HTTP/1.2\nHost: sidecar.test\nALICE\n\n"),
    ("1.10", "GET /x HTTP/1.10\nHost: sidecar.test\nALICE\n\n"),
    ("2.0", "GET /x HTTP/2.0\nHost: sidecar.test\nALICE\n\n"),
    ("3.0", "GET /x HTTP/3.0\nHost: sidecar.test\nALICE\n\n"),
    ("no minor", "GET /x HTTP/1\nHost: sidecar.test\nALICE\n\n"),
    ("lower case", "GET /x http/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("another protocol", "GET /x ICY/1.0\nHost: sidecar.test\nALICE\n\n"),
    ("more behind", "GET /x HTTP/1.1 x\nHost: sidecar.test\nALICE\n\n"),
    ("preface of HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n"),
    ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x20" * 500),
    ("no HTTP", "hello\n\n"),
    ("no method", " /x HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("empty target", "GET  HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("bare LF", f"GET /x HTTP/1.1{LF}Host: sidecar.test{LF}ALICE{LF}{LF}"),
    ("bare CR", "GET /x HTTP/1.1\rHost: sidecar.test\rALICE\r\r"),
)
async def test_unsupported_versions_are_refused(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, row, feed, 400, 505)


@feeds
@rows(
    ("missing", "X-A: b"),
    ("twice", "Host: sidecar.test\nHost: elsewhere.test"),
    ("twice the same", "Host: sidecar.test\nHost: sidecar.test"),
    ("path", "Host: x/../y"),
    ("user", "Host: a@b"),
    ("port that is no number", "Host: x:abc"),
    ("port that is too long", "Host: x:123456"),
    ("empty", "Host:"),
    ("space", "Host: a b"),
    ("comma", "Host: a,b"),
    ("query", "Host: a?b"),
    ("open bracket", "Host: [::1"),
    ("high bytes", "Host: caf\xc3\xa9"),
    ("percent", "Host: a%00b"),
    ("scheme", "Host: http://sidecar.test"),
)
async def test_a_missing_second_or_invalid_host_is_refused(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, f"GET /x HTTP/1.1\n{row}\nALICE\n\n", feed)


@feeds
@pytest.mark.parametrize("host", ["a", "sidecar.test:8080", "127.0.0.1:1", "[::1]", "[::1]:80", "elsewhere.test"])
async def test_the_host_is_forwarded_and_selects_no_backend(stack: Stack, host: str, feed: str) -> None:
    seen = await forwarded(stack, f"GET /x HTTP/1.1\nHost: {host}\nALICE\n\n", feed)
    assert (seen.get("host"), seen.get("x-forwarded-host")) == (host, host)


# Headers that are dropped or rewritten


@feeds
@rows(
    ("any case", "x-jwt-SUB: mallory"),
    ("twice", "X-JWT-Sub: mallory\nX-JWT-Sub: eve"),
    ("empty", "X-JWT-Sub:"),
    ("underscores", "X_JWT_Sub: mallory"),
    ("mixed", "X-JWT_Sub: mallory"),
    ("dots", "X.Jwt.Sub: mallory"),
    ("other characters", "X!JWT~Sub: mallory"),
    ("another of the prefix", "X-JWT-Email: mallory"),
    ("all claims", "X-JWT-Claims: bWFsbG9yeQ"),
    ("status", "X-JWT-Status: verified"),
    ("folded status", "X_JWT_STATUS: verified"),
    ("configured", "X-User: mallory"),
    ("configured, folded", "x_user: mallory"),
    ("configured, without its claim", "X-Mail: mallory"),
    ("configured without its claim, folded", "X.Mail: mallory"),
)
async def test_spoofed_identity_headers_are_removed_on_every_route(row: str, feed: str) -> None:
    names = {"X-JWT-Sub": "sub", "X-User": "sub", "X-Mail": "email"}
    routes = [{"path": "/public/*", "auth": "none"}, {"path": "/optional/*", "auth": "optional"}]
    async with running(identity_headers=names, routes=routes) as stack:
        for path, credentials in (("/x", "ALICE\n"), ("/public/x", "ALICE\n"), ("/public/x", ""), ("/optional/x", "")):
            stack.backend.requests.clear()
            text = f"GET {path} HTTP/1.1\n{row}\nHost: sidecar.test\n{credentials}{row}\n\n"
            answers = await stack.converse(stack.raw(text), feed)
            assert [answer.status for answer in answers] == [200, 401]
            [seen] = stack.backend.requests
            assert seen.get("x-jwt-claims") != "bWFsbG9yeQ"
            verified = [("X-JWT-Status", "verified"), ("X-JWT-Sub", "alice"), ("X-User", "alice")]
            told = [(name, value) for name, value in seen.headers if name.lower() not in NOT_OF_IDENTITY]
            assert told == (verified if path == "/x" else [("X-JWT-Status", "anonymous")])


NOT_OF_IDENTITY = {
    "host", "x-jwt-claims", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
}  # fmt: skip


@feeds
@pytest.mark.parametrize("name", ["X_Custom", "X.Custom", "X~Custom", "_X", "X-Custom_", "Remote_User"])
async def test_names_that_a_backend_could_fold_are_dropped(stack: Stack, name: str, feed: str) -> None:
    seen = await forwarded(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\nALICE\n{name}: 1\nX-Custom: 2\n\n", feed)
    assert (seen.get(name), seen.get("x-custom")) == (None, "2")


@feeds
@rows(
    ("one", "Connection: X-JWT-Sub"),
    ("lower case", "Connection: x-jwt-sub, x-jwt-status, x-jwt-claims"),
    ("list", "Connection: keep-alive, X-JWT-Sub"),
    ("two headers", "Connection: keep-alive\nConnection: X-JWT-Sub"),
    ("forwarded headers", "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Host"),
    ("framing", "Connection: Content-Length, Transfer-Encoding"),
)
async def test_connection_cannot_remove_headers_of_the_sidecar(stack: Stack, row: str, feed: str) -> None:
    text = f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\n{row}\nX-JWT-Sub: mallory\nContent-Length: 5\n\nhello"
    await said(stack, text, feed)
    seen = await stack.backend.received()
    assert (seen.get("x-jwt-sub"), seen.get("x-jwt-status"), seen.body) == ("alice", "verified", b"hello")
    assert seen.get("x-jwt-claims")
    assert (seen.get("x-forwarded-for"), seen.get("host")) == ("127.0.0.1", "sidecar.test")


HOP_BY_HOP = """\
Connection: keep-alive, X-Nominated, , x-also
Keep-Alive: timeout=5
Proxy-Connection: keep-alive
Proxy-Authorization: Basic eDp5
Proxy-Authenticate: Basic
TE: trailers, gzip
Trailer: X-Checksum
Upgrade: foo/2
HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA
Proxy: http://elsewhere.test
X-Nominated: 1
X-Also: 1
"""


@feeds
async def test_hop_by_hop_headers_of_a_request_are_not_forwarded(stack: Stack, feed: str) -> None:
    answers = await stack.converse(
        stack.raw(f"GET /x HTTP/1.1\nHost: sidecar.test\nALICE\n{HOP_BY_HOP}X-Kept: 1\n\n"), feed
    )
    assert answers[0].status == 200
    seen = await stack.backend.received()
    names = {name.lower() for name, _ in seen.headers}
    ours = {"x-jwt-status", "x-jwt-sub", "x-jwt-iss", "x-jwt-claims", "x-request-id"}
    assert names == ours | {"host", "x-kept", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}


UPGRADE = "GET /x HTTP/1.1\nHost: sidecar.test\n{}Connection: Upgrade\nUpgrade: {}\n\n"


@feeds
@pytest.mark.parametrize("protocol", ["h2c", "websocket", "foo/2", "h2c, websocket", "TLS/1.0"])
async def test_an_upgrade_without_a_token_is_refused(stack: Stack, protocol: str, feed: str) -> None:
    answers = await said(stack, UPGRADE.format("", protocol), feed)
    assert {answer.status for answer in answers} == {401}
    assert stack.backend.requests == []


@feeds
@pytest.mark.parametrize("protocol", ["h2c", "H2C", "h2c, websocket", "TLS/1.0"])
async def test_an_upgrade_to_h2c_is_never_forwarded(stack: Stack, protocol: str, feed: str) -> None:
    settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n"
    await said(stack, UPGRADE.format(f"ALICE\n{settings}", protocol), feed)
    for seen in stack.backend.requests:
        assert (seen.get("upgrade"), seen.get("connection"), seen.get("http2-settings")) == (None, None, None)


PUBLIC = [{"path": "/public/*", "auth": "none"}]


@feeds
@rows(
    ("X-Forwarded-Uri", "X-Forwarded-Uri: /public/x"),
    ("X-Forwarded-Method", "X-Forwarded-Method: OPTIONS"),
    ("X-Forwarded-Prefix", "X-Forwarded-Prefix: /public"),
    ("X-Forwarded-Host", "X-Forwarded-Host: public.test"),
    ("X-Original-URL", "X-Original-URL: /public/x"),
    ("X-Original-Uri", "X-Original-URI: /public/x"),
    ("X-Rewrite-URL", "X-Rewrite-URL: /public/x"),
    ("X-HTTP-Method-Override", "X-HTTP-Method-Override: OPTIONS"),
    ("X-Envoy-Original-Path", "X-Envoy-Original-Path: /public/x"),
    ("kube-probe", "User-Agent: kube-probe/1.31"),
    ("X-Forwarded-For", "X-Forwarded-For: 127.0.0.1"),
    ("X-Forwarded-Authorization", "X-Forwarded-Authorization: Bearer x"),
    ("Proxy-Authorization", "Proxy-Authorization: Bearer x"),
    ("Authorization_", "Authorization_: Bearer x"),
    ("cookie", "Cookie: access_token=x; Authorization=x"),
)
async def test_headers_of_front_proxies_do_not_affect_the_decision(row: str, feed: str) -> None:
    async with running(routes=PUBLIC) as stack:
        for token in ("x", stack.alice):
            text = f"GET /protected HTTP/1.1\nHost: sidecar.test\n{row}\n\n".replace("Bearer x", f"Bearer {token}")
            answers = await said(stack, text.replace("=x", f"={token}"), feed)
            assert {answer.status for answer in answers} == {401}
            assert answers[0].json()["code"] == "token_missing"
        assert stack.backend.requests == []


FORGED = """\
X-Forwarded-For: 203.0.113.9
X-Forwarded-For: 198.51.100.7
X-Forwarded-Proto: https
X-Forwarded-Host: elsewhere.test
X_Forwarded_For: 203.0.113.9
Forwarded: for=203.0.113.9
X-Real-IP: 203.0.113.9
X-Forwarded-Uri: /public
X-Original-URL: /public
X-Forwarded-Client-Cert: Subject="CN=admin"
X-Forwarded-User: admin
Proxy: http://elsewhere.test
"""


@feeds
async def test_forwarded_headers_are_written_anew(stack: Stack, feed: str) -> None:
    seen = await forwarded(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\n{FORGED}ALICE\n\n", feed)
    told = {name.lower(): value for name, value in seen.headers if not name.lower().startswith("x-jwt")}
    assert told.pop("x-request-id")
    assert told == {
        "host": "sidecar.test",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "sidecar.test",
    }


@feeds
async def test_x_forwarded_for_of_a_trusted_proxy_is_extended(feed: str) -> None:
    async with running(trusted_proxies=["127.0.0.0/8"]) as stack:
        seen = await forwarded(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\n{FORGED}ALICE\n\n", feed)
        assert seen.all("x-forwarded-for") == ["203.0.113.9, 198.51.100.7, 127.0.0.1"]
        assert (seen.get("x-forwarded-proto"), seen.get("x-forwarded-host")) == ("https", "elsewhere.test")
        assert seen.get("forwarded") == "for=203.0.113.9, for=127.0.0.1;proto=http"
        assert seen.get("x-real-ip") == "203.0.113.9"
        assert (seen.get("x-forwarded-user"), seen.get("x-forwarded-client-cert")) == ("admin", 'Subject="CN=admin"')
        assert seen.get("proxy") is None


@feeds
@rows(
    ("good", "X-Request-Id: a.b_c-1"),
    ("twice", "X-Request-Id: a\nX-Request-Id: b"),
    ("bad characters", "X-Request-Id: a b"),
    ("too long", f"X-Request-Id: {'a' * 129}"),
    ("empty", "X-Request-Id:"),
)
async def test_one_valid_request_id_is_kept_and_others_are_replaced(stack: Stack, row: str, feed: str) -> None:
    answers = await said(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\nALICE\n{row}\n\n", feed)
    seen = await stack.backend.received()
    if row == "X-Request-Id: a.b_c-1":
        assert seen.get("x-request-id") == "a.b_c-1"
    else:
        assert seen.get("x-request-id") not in (None, *(line.partition(": ")[2] for line in row.split("\n")))
    assert answers[0].get("x-request-id") == seen.get("x-request-id")


# Targets and methods

TRICKS = [
    "//x", "///x", "//elsewhere.test/x", "/./x", "/a/../x", "/../x", "/a/..", "/.", "/..", "/%2e%2e/x", "/%2E./x", "/.%2e/x",
    "/a%2fb", "/a%2Fb", "/a%5cb", "/a%00b", "/a%0ab", "/%252e%252e/x", "/%25252e/x", "/a%252fb", "/%", "/%zz", "/%u002e", "/a;b",
    "/a;/../x", "/..;/x", "/.;x/y", "/a\\b", "/..\\x", "/a#b", "/#", "/x?", "/x??", "/x?a=/../b", "/x?%00", "/x%3fa", "/x%23a",
    "/a|b", "/a{b}", '/"', "/<x>", "/`", "/^", "/public/../x", "/public/%2e%2e/x", "/public/..%2fx", "/public/..;/x",
    "/public//../x", "/public%2f..%2fx", "/public/..", "/public/%252e%252e/x", "/public\\..\\x", "/publicx", "/PUBLIC/x",
    "/Public/", "/x?/public/", "/x#/public/", "/x;/public/", "/x/public/", "/./public/../x", "/public;/../x", "/pub%6cic/../x",
]  # fmt: skip


@feeds
async def test_an_ambiguous_target_needs_a_token_and_is_forwarded_unchanged(feed: str) -> None:
    async with running(routes=PUBLIC) as stack:
        for target in TRICKS:
            stack.backend.requests.clear()
            answers = await said(stack, f"GET {target} HTTP/1.1\nHost: sidecar.test\n\n", feed)
            assert answers[0].status in (400, 401), target
            assert stack.backend.requests == []
            answers = await said(stack, f"GET {target} HTTP/1.1\nHost: sidecar.test\nALICE\n\n", feed)
            assert answers[0].status in (200, 400), target
            assert [seen.target for seen in stack.backend.requests] == [target] * (answers[0].status == 200)


@feeds
@pytest.mark.parametrize("target", ["/public", "/public/", "/public/x", "/public/x?a=/../b#", "/public/x;a=1"])
async def test_canonical_public_paths_pass_without_a_token(target: str, feed: str) -> None:
    async with running(routes=PUBLIC) as stack:
        answers = await stack.converse(stack.raw(f"GET {target} HTTP/1.1\nHost: sidecar.test\n\n"), feed)
        if answers[0].status == 400:
            assert set(target) & set("#;")
            return
        assert [answer.status for answer in answers] == [200, 401]
        [seen] = stack.backend.requests
        assert (seen.target, seen.get("x-jwt-status")) == (target, "anonymous")


@feeds
@rows(
    ("absolute-form, two hosts", "GET http://elsewhere.test/x HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("absolute-form, https", "GET https://elsewhere.test/x HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("absolute-form, user", "GET http://sidecar.test@elsewhere.test/ HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("another scheme", "GET file:///etc/passwd HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("authority", "GET elsewhere.test:80 HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("no slash", "GET x HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("asterisk", "GET * HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("asterisk of OPTIONS", "OPTIONS * HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("high bytes", "GET /caf\xc3\xa9 HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("NUL", "GET /a\x00b HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("space", "GET /a b HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("tab", "GET /a\tb HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
    ("CONNECT", "CONNECT elsewhere.test:443 HTTP/1.1\nHost: elsewhere.test:443\nALICE\n\n"),
    ("CONNECT with a path", "CONNECT /x HTTP/1.1\nHost: sidecar.test\nALICE\n\n"),
)
async def test_targets_of_an_open_proxy_are_refused(stack: Stack, row: str, feed: str) -> None:
    await refused(stack, row, feed, 400, 405)


@feeds
@pytest.mark.parametrize("host", ["sidecar.test", "elsewhere.test", "elsewhere.test:81", "Elsewhere.Test"])
@pytest.mark.parametrize(
    ("rest", "target"),
    [("/x", "/x"), ("/x?a=http://b/", "/x?a=http://b/"), ("", "/"), ("?a", "/?a"), ("//b/x", "//b/x")],
)
async def test_the_absolute_form_with_the_host_is_forwarded_in_origin_form(
    stack: Stack, host: str, rest: str, target: str, feed: str
) -> None:
    row = f"GET http://{host.lower()}{rest} HTTP/1.1\nHost: {host}\nALICE\n\n"
    seen = await forwarded(stack, row, feed)
    assert (seen.target, seen.get("host")) == (target, host)


@feeds
@pytest.mark.parametrize(
    "method", ["GET", "OPTIONS", "FOO", "get", "Get", "TRACE", "CONNECT", "PURGE", "PROPFIND", "M-SEARCH", "PATCH"]
)
async def test_no_method_without_a_token_reaches_the_backend(stack: Stack, method: str, feed: str) -> None:
    answers = await said(stack, f"{method} /x HTTP/1.1\nHost: sidecar.test\n\n", feed)
    assert answers[0].status in (400, 401, 405)
    assert stack.backend.requests == []


@feeds
@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_connect_and_trace_are_refused_with_a_token(stack: Stack, method: str, feed: str) -> None:
    target = "sidecar.test:443" if method == "CONNECT" else "/x"
    answers = await said(stack, f"{method} {target} HTTP/1.1\nHost: sidecar.test\nALICE\n\n", feed)
    assert answers[0].status == 405
    assert (answers[0].get("allow") or "").startswith("GET")
    assert stack.backend.requests == []


@feeds
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])
async def test_other_methods_with_a_token_are_forwarded(stack: Stack, method: str, feed: str) -> None:
    assert (await forwarded(stack, f"{method} /x HTTP/1.1\nHost: sidecar.test\nALICE\n\n", feed)).method == method


# Bytes after a request


def hidden(stack: Stack, target: str = "/smuggled") -> bytes:
    """A complete request of alice, to send in place of a body."""
    return stack.good("GET", target)


@feeds
@pytest.mark.parametrize("sized", [True, False])
async def test_the_unread_body_of_a_401_is_never_read_as_a_request(stack: Stack, sized: bool, feed: str) -> None:
    body: dict[str, Any] = {"body": hidden(stack)} if sized else {"chunks": [hidden(stack)]}
    answers = await stack.converse(request("POST", "/x", **body), feed)
    assert {answer.status for answer in answers} == {401}
    assert stack.backend.connections == 0


@pytest.mark.parametrize("size", [5, 200_000])
async def test_the_unread_body_of_a_401_may_be_late_and_large(stack: Stack, size: int) -> None:
    body = hidden(stack) * (size // 400 + 1)
    head = request("POST", "/x", headers=[("Content-Length", str(len(body) + 1))])
    async with stack.client() as client:
        await client.send(head)
        first = await client.response("POST")
        assert (first.status, first.get("connection")) == (401, "close")
        await client.send(body)
        assert await client.answers() == []
    assert stack.backend.connections == 0


async def test_an_expectation_without_a_token_is_refused_before_the_body(stack: Stack) -> None:
    async with stack.client() as client:
        await client.send(request("POST", "/x", headers=[("Expect", "100-continue"), ("Content-Length", "5")]))
        answer = await client.response("POST")
        assert (answer.status, answer.interim) == (401, [])
        await client.send(b"hello")
        assert await client.answers() == []
    assert stack.backend.connections == 0


async def test_an_expectation_with_a_token_gets_100_then_200(stack: Stack) -> None:
    async with stack.client() as client:
        await client.send(stack.good("POST", "/x", headers=[("Expect", "100-continue"), ("Content-Length", "5")]))
        invited = await client.reader.readuntil(b"\r\n\r\n")
        assert invited == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert (await client.response("POST")).status == 200
    seen = await stack.backend.received()
    assert (seen.body, seen.get("expect")) == (b"hello", None)


@feeds
async def test_an_expectation_with_its_body_gets_200(stack: Stack, feed: str) -> None:
    raw = stack.good("POST", "/x", headers=[("Expect", "100-continue")], body=b"hello")
    answers = await stack.converse(raw, feed)
    assert [answer.status for answer in answers] == [200, 401]
    assert all(interim.status == 100 for interim in answers[0].interim)


@feeds
async def test_an_expectation_of_http_1_0_is_ignored(stack: Stack, feed: str) -> None:
    head = "POST /x HTTP/1.0\nHost: sidecar.test\nALICE\nConnection: keep-alive\nContent-Length: 5\n"
    answers = await said(stack, f"{head}Expect: 100-continue\n\nhello", feed)
    assert [(answer.status, answer.interim) for answer in answers] == [(200, []), (401, [])]


@feeds
@pytest.mark.parametrize("expectation", ["banana", "100-continue, banana", "200-ok"])
async def test_an_unknown_expectation_is_refused(stack: Stack, expectation: str, feed: str) -> None:
    text = f"POST /x HTTP/1.1\nHost: sidecar.test\nALICE\nExpect: {expectation}\nContent-Length: 5\n\nhello"
    await refused(stack, text, feed, 400, 417)


def users(stack: Stack, names: Iterable[str]) -> list[bytes]:
    return [request("GET", f"/{name}", token=stack.token(sub=name)) for name in names]


@feeds
async def test_pipelined_requests_are_decided_separately_and_answered_in_order(stack: Stack, feed: str) -> None:
    alice, bob, carol = users(stack, ["alice", "bob", "carol"])
    bad = request("GET", "/bad", token=stack.token(aud="elsewhere"))
    none = request("GET", "/none")
    answers = await stack.converse(alice + bad + bob + none + carol, feed)
    assert [answer.status for answer in answers[:5]] == [200, 401, 200, 401, 200]
    assert [(seen.target, seen.get("x-jwt-sub")) for seen in stack.backend.requests] == [
        ("/alice", "alice"), ("/bob", "bob"), ("/carol", "carol"),
    ]  # fmt: skip


async def test_all_of_many_pipelined_requests_are_answered(stack: Stack) -> None:
    many = [f"u{number}" for number in range(100)]
    async with stack.client() as client:
        await client.send(b"".join(users(stack, many)))
        for _ in many:
            assert (await client.response()).status == 200
    assert [seen.get("x-jwt-sub") for seen in stack.backend.requests] == many


async def test_a_persistent_connection_keeps_no_identity(stack: Stack) -> None:
    async with stack.client() as client:
        assert (await client.request(stack.good())).status == 200
        assert (await client.request(request())).status == 401
        assert (await client.request(request(token=stack.token(sub="bob")))).status == 200
    assert [seen.get("x-jwt-sub") for seen in stack.backend.requests] == ["alice", "bob"]


@feeds
async def test_bytes_after_invalid_http_are_not_read(stack: Stack, feed: str) -> None:
    answers = await stack.converse(stack.good("GET", "/x") + b"\x00\r\n\r\n" + hidden(stack), feed)
    statuses = [answer.status for answer in answers]
    assert statuses in (
        [200, 400],
        [400],
    )  # a request in one piece with them may be lost; it is not executed
    assert [seen.target for seen in stack.backend.requests] == ["/x"] * (len(statuses) - 1)


@feeds
async def test_a_request_with_connection_close_is_the_last(stack: Stack, feed: str) -> None:
    raw = stack.good("GET", "/x", headers=[("Connection", "close")]) + hidden(stack)
    [answer] = await stack.converse(raw, feed)
    assert answer.status in (200, 400)  # the latter when both came in one piece
    assert [seen.target for seen in stack.backend.requests] == ["/x"] * (answer.status == 200)


@feeds
async def test_a_refusal_never_holds_the_token(stack: Stack, feed: str) -> None:
    """aiohttp's own answers quote the line that does not parse."""
    for row in ("ALICE\x00", "ALICE\rx", "X-A: b\n ALICE", "ALICE\nAuthorization: x", "ALICE \x01"):
        answers = await said(stack, f"GET /x HTTP/1.1\nHost: sidecar.test\n{row}\n\n", feed)
        assert answers[0].status in (400, 401)
    assert stack.backend.requests == []


@feeds
async def test_chunks_of_every_size_are_forwarded(stack: Stack, feed: str) -> None:
    body = [b"a", b"b" * 1000, b"c" * 17]
    raw = stack.good("POST", "/x")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)
    answers = await stack.converse(raw, feed)
    assert [answer.status for answer in answers] == [200, 401]
    assert stack.backend.requests[0].body == b"".join(body)
