"""An exchange as a record of plain values for logs and metrics; tests/http has the parsing of its head."""

import os
import re

import pytest

from sidecar.app.builder.assembly import Assembly
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import Reason, Rejection
from sidecar.config import parse
from sidecar.http.forwarded import Forwarded
from sidecar.jwt.claims import Claims
from sidecar.observability.telemetry import Telemetry
from sidecar.policy.routes import Route
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.request_id import new_id
from sidecar.proxy.resources import Resources
from sidecar.proxy.upgrade import requested
from tests.http.heads import read

CONFIG = """
issuers:
  main: {issuer: https://issuer.test, audiences: [api]}
upstream: http://127.0.0.1:9
"""


def arrived(*lines: str, first: str = "POST / HTTP/1.1") -> Exchange:
    """A request with these header lines, as the handler gets it."""
    clock = Clock()
    assembly = Assembly(parse(CONFIG), clock, Deadlines(clock), Resources(), Telemetry(clock))
    return assembly.handler.exchange(read(*lines, first=first), Forwarded("192.0.2.1", "https", False))


def test_a_new_request_has_only_the_values_of_its_head() -> None:
    request = arrived("X-Request-Id: of-alice", first="POST /a?b=c HTTP/1.0")
    assert (request.method, request.target, request.path, request.minor) == ("POST", "/a?b=c", "/a", 0)
    assert (request.id, request.host, request.peer, request.scheme) == (
        "of-alice",
        b"sidecar.test",
        "192.0.2.1",
        "https",
    )
    assert (request.route, request.claims, request.issuer, request.authorized) == (None, None, "none", False)
    assert (request.rejected, request.details, request.reported, request.status) == (None, "", False, 0)
    assert (request.sent, request.answered, request.broken_off, request.result) == (0.0, 0.0, False, "left")
    assert 0 < request.started <= Clock().monotonic()


@pytest.mark.parametrize(
    "given", [[], ["X-Request-Id: a", "X-Request-Id: a"], ["X-Request-Id:"], ["X-Request-Id: a b"]]
)
def test_a_request_without_a_valid_id_gets_a_unique_one(given: list[str]) -> None:
    one, other = arrived(*given).id, arrived(*given).id
    assert re.fullmatch("[0-9a-f]{16}-[0-9]+", one)
    assert len({one, other, new_id()}) == 3


def test_an_id_is_a_random_number_of_the_process_and_a_count() -> None:
    prefix, number = new_id().split("-")
    assert re.fullmatch(r"[0-9a-f]{16}", prefix)
    assert new_id() == f"{prefix}-{int(number) + 1}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_ids_of_its_own() -> None:
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(tell, new_id().encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(pid, 0)
    with open(told) as answer:
        prefix = answer.read().partition("-")[0]
    assert re.fullmatch(r"[0-9a-f]{16}", prefix)
    assert not new_id().startswith(prefix)


@pytest.mark.parametrize("reported", [False, True])
def test_a_request_keeps_the_reason_of_its_refusal(reported: bool) -> None:
    request = arrived()
    request.refused(Rejection(Reason.TOKEN_EXPIRED, "Long ago.", cause="Exp."), reported=reported)
    assert (request.rejected, request.details, request.reported) == (Reason.TOKEN_EXPIRED, "Long ago.", reported)
    assert request.cause == "Exp."
    request.refused(Rejection(Reason.TOKEN_EXPIRED))
    assert (request.reported, request.cause) == (False, "")


def test_a_request_has_the_result_of_its_decision() -> None:
    request = arrived()
    assert request.result == "left"
    request.status = 200
    assert request.result == "allow"
    request.refused(Rejection(Reason.TOKEN_EXPIRED))
    assert request.result == "deny"
    request.refused(Rejection(Reason.JWKS_UNAVAILABLE))
    assert request.result == "error"
    request.refused(Rejection(Reason.JWKS_UNAVAILABLE), reported=True)
    assert request.result == "report"


def test_verified_claims_authorize_a_request_unless_it_is_refused() -> None:
    request = arrived()
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
        ([f"x 00-{TRACE}-{SPAN}-01"], None),
    ],
)
def test_one_valid_traceparent_names_the_trace(said: list[str], trace_id: str | None) -> None:
    assert arrived(*(f"Traceparent: {one}" for one in said)).trace_id == trace_id


def test_the_trace_of_the_sidecar_takes_precedence() -> None:
    request = arrived(f"Traceparent: 00-{TRACE}-{SPAN}-01", "Tracestate: a=b")
    assert request.tracestate == b"a=b"
    request.span_trace_id = "ours"
    assert request.trace_id == "ours"


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
def test_the_printed_path_has_no_query_token_or_control_character(target: str, path: str) -> None:
    request = arrived()
    request.ask_about("GET", target, b"other.test")  # targets of forward-auth requests are read less strictly
    assert (request.path, request.method, request.host) == (path, "GET", b"other.test")


def asked(*protocols: str, route: Route | None = None) -> bytes | None:
    request = arrived("Connection: Upgrade", *(f"Upgrade: {one}" for one in protocols), first="GET / HTTP/1.1")
    request.route = route or Route("/", upgrades=["websocket", "other"])
    return requested(request)


def test_an_upgrade_needs_one_protocol_that_the_route_allows() -> None:
    assert asked("Other") == b"other"
    assert asked("other", route=Route("/")) is None
    assert asked("other", "other") is asked("other, other") is asked() is None
    request = arrived("Connection: Upgrade", "Upgrade: other", first="GET / HTTP/1.1")
    assert requested(request) is None, "no route has been found"


def test_a_preflight_is_an_options_request() -> None:
    lines = ["Origin: https://app.example", "Access-Control-Request-Method: PUT"]
    assert arrived(*lines, first="OPTIONS / HTTP/1.1").is_preflight
    assert not arrived(*lines, first="GET / HTTP/1.1").is_preflight
