"""Requests that could be read in two ways are refused here too, whatever a parser in front has let through."""

import re
import timeit
from typing import Any, cast

import pytest
from aiohttp import HttpVersion
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sidecar.claims import Claims
from sidecar.clock import Clock
from sidecar.connection import ClientConnection
from sidecar.headers import HOP_BY_HOP, Forwarded, Roles
from sidecar.rejections import Reason, Rejection
from sidecar.request import REQUEST_ID, Request
from sidecar.routes import Route


class Arrival:
    """What a request asks of the connection that it came by."""

    clock = Clock()
    forwarded = Forwarded("127.0.0.1", "http", False)


def arrived(
    *headers: tuple[bytes, bytes],
    method: str = "POST",
    target: str = "/",
    version: tuple[int, int] = (1, 1),
    closes: bool = False,
    upgrade: bool = False,
) -> Request:
    """A request with these headers, parsed as if by somebody lenient."""
    named: Any = CIMultiDictProxy(CIMultiDict((name.decode(), value.decode("latin-1")) for name, value in headers))
    message = RawRequestMessage(
        method, target, HttpVersion(*version), named, headers, closes, None, upgrade, False, URL("/")
    )
    return Request(message, EMPTY_PAYLOAD, cast(ClientConnection, Arrival()))


def read(*headers: tuple[bytes, bytes], roles: Roles | None = None, **more: Any) -> Request:
    """The same, and then read."""
    request = arrived(*headers, **more)
    request.read(roles or Roles(HOP_BY_HOP))
    return request


HOST = (b"Host", b"sidecar.test")
CHUNKED = (b"Transfer-Encoding", b"chunked")
FIVE = (b"Content-Length", b"5")


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        pytest.param([HOST], 0, id="no body"),
        pytest.param([HOST, FIVE], 5, id="sized"),
        pytest.param([HOST, CHUNKED], None, id="chunked"),
        pytest.param([HOST, (b"transfer-encoding", b"Chunked")], None, id="chunked in other case"),
    ],
)
def test_a_request_with_one_meaning_is_read(headers: list[tuple[bytes, bytes]], length: int | None) -> None:
    request = read(*headers)
    assert (request.length, request.host) == (length, b"sidecar.test")


@pytest.mark.parametrize(
    ("host", "good"),
    [
        (b"a", True),
        (b"A-1_b.~", True),
        (b"a:", True),
        (b"a:12345", True),
        (b"a:123456", False),
        (b"[::1]", True),
        (b"[::1]:80", True),
        (b"[fe80::a.b]", True),
        (b"[]", False),
        (b"[g]", False),
        (b"::1", False),
        (b"", False),
        (b"a b", False),
        (b"a@b", False),
        (b"a,b", False),
        (b"\xff", False),
        (b"a\n", False),
    ],
)
def test_a_host_is_a_name_or_an_address_and_perhaps_a_port(host: bytes, good: bool) -> None:
    if good:
        assert read((b"Host", host)).host == host
    else:
        with pytest.raises(Rejection, match="request_malformed"):
            read((b"Host", host))


HOST_WANTED = "The request needs exactly one valid Host header."
CHUNKS_WANTED = "Transfer-Encoding must be chunked, alone, in HTTP/1.1."
LENGTH_WANTED = "Content-Length must be one number."
VERSION_WANTED = "Only HTTP/1.0 and HTTP/1.1 are spoken here."


@pytest.mark.parametrize(
    ("headers", "version", "details"),
    [
        pytest.param([HOST, FIVE, CHUNKED], (1, 1), CHUNKS_WANTED, id="length and chunks"),
        pytest.param([HOST, CHUNKED, CHUNKED], (1, 1), CHUNKS_WANTED, id="chunked twice"),
        pytest.param([HOST, (b"Transfer-Encoding", b"gzip, chunked")], (1, 1), CHUNKS_WANTED, id="another coding"),
        pytest.param([HOST, CHUNKED], (1, 0), CHUNKS_WANTED, id="chunks in HTTP/1.0"),
        pytest.param([HOST, FIVE, FIVE], (1, 1), LENGTH_WANTED, id="length twice"),
        pytest.param([HOST, (b"Content-Length", b"+5")], (1, 1), LENGTH_WANTED, id="length that is no number"),
        pytest.param([HOST, (b"Content-Length", b"")], (1, 1), LENGTH_WANTED, id="empty length"),
        pytest.param([HOST, (b"Content-Length", b"0" * 19)], (1, 1), LENGTH_WANTED, id="length of 19 digits"),
        pytest.param([HOST, HOST], (1, 1), HOST_WANTED, id="host twice"),
        pytest.param([HOST, HOST], (1, 0), HOST_WANTED, id="host twice in HTTP/1.0"),
        pytest.param([(b"Host", b"a/b")], (1, 1), HOST_WANTED, id="host that is none"),
        pytest.param([(b"Host", b"a/b")], (1, 0), HOST_WANTED, id="host that is none in HTTP/1.0"),
        pytest.param([], (1, 1), HOST_WANTED, id="no host"),
        pytest.param([HOST], (1, 2), VERSION_WANTED, id="HTTP/1.2"),
        pytest.param([HOST], (2, 0), VERSION_WANTED, id="HTTP/2.0"),
        pytest.param([HOST], (0, 9), VERSION_WANTED, id="HTTP/0.9"),
    ],
)
def test_a_request_with_two_meanings_is_malformed(
    headers: list[tuple[bytes, bytes]], version: tuple[int, int], details: str
) -> None:
    with pytest.raises(Rejection) as refused:
        read(*headers, version=version)
    assert (refused.value.reason, refused.value.details) == (Reason.REQUEST_MALFORMED, details)


def test_http_1_0_needs_no_host() -> None:
    assert read(version=(1, 0)).host == b""


def test_a_length_has_at_most_18_digits() -> None:
    assert read(HOST, (b"Content-Length", b"9" * 18)).length == 10**18 - 1


ID = (b"X-Request-Id", b"a.b-1")


@pytest.mark.parametrize("given", [b"a.b-1", b"A_9", b"x" * 128])
def test_one_request_id_is_kept(given: bytes) -> None:
    assert read(HOST, (b"X-Request-Id", given)).id == given.decode()


@pytest.mark.parametrize(
    "given", [[], [ID, ID], [(b"X-Request-Id", b"")], [(b"X-Request-Id", b"x" * 129)], [(b"X-Request-Id", b"a b")]]
)
def test_a_request_without_one_gets_an_id_that_no_other_has(given: list[tuple[bytes, bytes]]) -> None:
    one, other = read(HOST, *given).id, read(HOST, *given).id
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]+", one)
    assert one != other


def test_a_name_that_is_refused_leaves_an_id_for_the_answer() -> None:
    request = arrived(HOST, (b"A_b", b"c"))
    with pytest.raises(Rejection, match="request_malformed"):
        request.read(Roles(HOP_BY_HOP, underscores="reject"))
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]+", request.id)
    assert (request.headers.kept, request.headers.special, request.trace_id) == ([], {}, None)


def test_on_arrival_nothing_is_known_of_a_request() -> None:
    request = arrived(HOST, target="/a?b=c")
    assert (request.method, request.target, request.path) == ("POST", "/a?b=c", "/a")
    assert (request.id, request.host, request.length, request.route) == ("", b"", 0, None)
    assert (request.claims, request.issuer, request.authorized, request.lines) == (None, "none", False, b"")
    assert (request.rejected, request.details, request.reported, request.status) == (None, "", False, 0)
    assert (request.sent, request.answered, request.broken_off) == (0.0, 0.0, False)
    assert 0 < request.started <= Clock().monotonic()


@pytest.mark.parametrize("reported", [False, True])
def test_why_a_request_is_refused_is_kept(reported: bool) -> None:
    request = arrived(HOST)
    request.refused(Rejection(Reason.TOKEN_EXPIRED, "Long ago."), reported=reported)
    assert (request.rejected, request.details, request.reported) == (Reason.TOKEN_EXPIRED, "Long ago.", reported)
    request.refused(Rejection(Reason.TOKEN_EXPIRED))
    assert not request.reported


def test_what_was_decided() -> None:
    request = arrived(HOST)
    assert request.result == "allow"
    request.refused(Rejection(Reason.TOKEN_EXPIRED))
    assert request.result == "deny"
    request.refused(Rejection(Reason.JWKS_UNAVAILABLE))
    assert request.result == "error"
    request.refused(Rejection(Reason.JWKS_UNAVAILABLE), reported=True)
    assert request.result == "report"


def test_verified_claims_name_the_issuer_and_authorize_unless_they_are_refused() -> None:
    request = arrived(HOST)
    request.claims = Claims("main", {})
    assert (request.issuer, request.authorized) == ("main", True)
    request.refused(Rejection(Reason.SCOPE_INSUFFICIENT))
    assert (request.issuer, request.authorized) == ("main", False)


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("said", "trace_id"),
    [
        ([], None),
        ([f"00-{TRACE}-{SPAN}-01"], TRACE),
        ([f"00-{TRACE}-{SPAN}-01"] * 2, None),
        ([f"fe-{TRACE}-{SPAN}-01-what.comes-later"], TRACE),
        ([f"00-{TRACE}-{SPAN}-01-more"], None),
        ([f"ff-{TRACE}-{SPAN}-01"], None),
        ([f"00-{'0' * 32}-{SPAN}-01"], None),
        ([f"00-{TRACE}-{'0' * 16}-01"], None),
        ([f"00-{TRACE.upper()}-{SPAN}-01"], None),
        ([f"00-{TRACE}-{SPAN}"], None),
        ([f" 00-{TRACE}-{SPAN}-01"], None),
    ],
)
def test_one_valid_traceparent_names_the_trace(said: list[str], trace_id: str | None) -> None:
    roles = Roles(HOP_BY_HOP, read=["traceparent"])
    assert read(HOST, *((b"Traceparent", one.encode()) for one in said), roles=roles).trace_id == trace_id


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a", "/a"),
        ("/a?b?c", "/a"),
        ("/ä", "/ä"),
        ("/ä/\udcff", r"/\xe4/\udcff"),
        ("/\x85\u2028", r"/\x85\u2028"),
        ("/eyJhbGciOiJub25lIn0.e30.?x", "/***"),
    ],
)
def test_the_path_for_people_has_no_query_no_token_and_no_odd_bytes(target: str, path: str) -> None:
    assert arrived(HOST, target=target).path == path


def test_a_long_request_id_takes_no_longer_to_refuse_than_a_short_one_to_accept() -> None:
    def fastest(said: bytes) -> float:
        return min(timeit.repeat(lambda: REQUEST_ID.fullmatch(said), number=1, repeat=20))

    assert fastest(b"eyJ" * 2700) < 100 * fastest(b"a" * 128)


def asked(*protocols: bytes, upgrade: bool = True, route: Route | None = None) -> bytes | None:
    request = read(HOST, *((b"Upgrade", protocol) for protocol in protocols), upgrade=upgrade)
    request.route = route or Route("/", upgrades=["websocket", "other"])
    return request.upgrade


def test_a_protocol_is_asked_for_once_and_must_be_one_of_the_routes() -> None:
    assert asked(b"websocket") == b"websocket"
    assert asked(b"Other") == b"other"
    assert asked(b"other", route=Route("/")) is None
    assert asked(b"websocket", b"websocket") is None
    assert asked(b"websocket, other") is None
    assert asked() is None
    assert asked(b"websocket", upgrade=False) is None
    assert read(HOST, (b"Upgrade", b"websocket"), upgrade=True).upgrade is None, "no route has been found"


ORIGIN, ASKS = (b"Origin", b"https://app.example"), (b"ACCESS-CONTROL-REQUEST-METHOD", b"PUT")


@pytest.mark.parametrize(
    ("headers", "more", "preflight"),
    [
        ([ORIGIN, ASKS], {}, True),
        ([ORIGIN, ASKS, (b"Content-Length", b"0")], {}, True),
        ([ORIGIN], {}, False),
        ([ASKS], {}, False),
        ([ORIGIN, ASKS], {"method": "GET"}, False),
        ([ORIGIN, ASKS], {"upgrade": True}, False),
        ([ORIGIN, ASKS, FIVE], {}, False),
        ([ORIGIN, ASKS, CHUNKED], {}, False),
    ],
)
def test_a_preflight_is_nothing_but_one(
    headers: list[tuple[bytes, bytes]], more: dict[str, Any], preflight: bool
) -> None:
    assert read(HOST, *headers, **{"method": "OPTIONS", **more}).preflight == preflight


CONTINUE = (b"Expect", b"100-Continue")


def test_what_is_expected_is_100_continue_or_nothing() -> None:
    assert read(HOST, CONTINUE).expects_continue
    assert not read(HOST).expects_continue
    assert not read(HOST, CONTINUE, version=(1, 0)).expects_continue
    assert not read(HOST, (b"Expect", b"x"), version=(1, 0)).expects_continue
    for expected in ([CONTINUE, CONTINUE], [(b"Expect", b"100")]):
        with pytest.raises(Rejection, match="expectation_failed"):
            read(HOST, *expected)


def test_a_client_that_closes_does_not_keep_its_connection() -> None:
    assert arrived(HOST).keep_alive
    assert not arrived(HOST, closes=True).keep_alive
