"""Requests that could be read in two ways are refused here too, whatever a parser in front has let through."""

from typing import Any, cast

import pytest
from aiohttp import HttpVersion
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sidecar.clock import Clock
from sidecar.connection import ClientConnection
from sidecar.headers import HOP_BY_HOP, Forwarded, Roles
from sidecar.rejections import Reason, Rejection
from sidecar.request import Request


class Arrival:
    """What a request asks of the connection that it came by."""

    clock = Clock()
    forwarded = Forwarded("127.0.0.1", "http", False)


def read(*headers: tuple[bytes, bytes], version: tuple[int, int] = (1, 1)) -> Request:
    """A request with these headers, parsed as if by somebody lenient, and then read."""
    named: Any = CIMultiDictProxy(CIMultiDict((name.decode(), value.decode("latin-1")) for name, value in headers))
    message = RawRequestMessage("POST", "/", HttpVersion(*version), named, headers, False, None, False, False, URL("/"))
    request = Request(message, EMPTY_PAYLOAD, cast(ClientConnection, Arrival()))
    request.read(Roles(HOP_BY_HOP))
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
    ("headers", "version"),
    [
        pytest.param([HOST, FIVE, CHUNKED], (1, 1), id="length and chunks"),
        pytest.param([HOST, CHUNKED, CHUNKED], (1, 1), id="chunked twice"),
        pytest.param([HOST, (b"Transfer-Encoding", b"gzip, chunked")], (1, 1), id="another coding"),
        pytest.param([HOST, CHUNKED], (1, 0), id="chunks in HTTP/1.0"),
        pytest.param([HOST, FIVE, FIVE], (1, 1), id="length twice"),
        pytest.param([HOST, (b"Content-Length", b"+5")], (1, 1), id="length that is no number"),
        pytest.param([HOST, (b"Content-Length", b"")], (1, 1), id="empty length"),
        pytest.param([HOST, HOST], (1, 1), id="host twice"),
        pytest.param([HOST, HOST], (1, 0), id="host twice in HTTP/1.0"),
        pytest.param([(b"Host", b"a/b")], (1, 1), id="host that is none"),
        pytest.param([], (1, 1), id="no host"),
        pytest.param([HOST], (1, 2), id="HTTP/1.2"),
        pytest.param([HOST], (2, 0), id="HTTP/2.0"),
        pytest.param([HOST], (0, 9), id="HTTP/0.9"),
    ],
)
def test_a_request_with_two_meanings_is_malformed(headers: list[tuple[bytes, bytes]], version: tuple[int, int]) -> None:
    with pytest.raises(Rejection) as refused:
        read(*headers, version=version)
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_one_request_id_is_kept_and_others_are_replaced() -> None:
    given = (b"X-Request-Id", b"a.b-1")
    assert read(HOST, given).id == "a.b-1"
    assert len({read(HOST).id, read(HOST).id, read(HOST, given, given).id, "a.b-1"}) == 4
