"""Every refusal has a code, a status and an answer; the answer holds what RFC 6750 and the contract require, and no more."""

import ast
import json
import re
from pathlib import Path

import pytest

import sidecar
from sidecar.common.errors import Reason, Rejection
from sidecar.http.responses import (
    CONTINUE,
    DEFAULT_FORM,
    MAX_REFUSALS,
    PHRASES,
    Form,
    accepted,
    body,
    challenge,
    connection_line,
    interim,
    local,
    refusal,
    relayed,
    switching,
)
from tests.http.heads import answered
from tests.peers.wire import Headers, values

CODES = (
    "token_missing token_ambiguous token_malformed token_too_large algorithm_not_allowed issuer_unknown key_unknown "
    "signature_invalid token_expired token_not_yet_valid token_issued_in_future audience_mismatch claim_missing "
    "claim_invalid token_revoked scope_insufficient claim_mismatch claims_too_large jwks_unavailable path_ambiguous "
    "route_not_found route_denied method_not_allowed request_malformed headers_too_large body_too_large "
    "upstream_unreachable upstream_timeout upstream_invalid overloaded internal_error"
)
"""The first contract. Releases only add codes."""
ADDED = "expectation_failed api_key_unknown api_key_expired api_key_disabled signing_unavailable"

STATUS = {
    "token_missing": 401, "token_ambiguous": 400, "token_malformed": 401, "token_too_large": 401,
    "algorithm_not_allowed": 401, "issuer_unknown": 401, "key_unknown": 401, "signature_invalid": 401,
    "token_expired": 401, "token_not_yet_valid": 401, "token_issued_in_future": 401, "audience_mismatch": 401,
    "claim_missing": 401, "claim_invalid": 401, "token_revoked": 401, "scope_insufficient": 403, "claim_mismatch": 403,
    "claims_too_large": 403, "jwks_unavailable": 503, "path_ambiguous": 400, "route_not_found": 404,
    "route_denied": 403, "method_not_allowed": 405, "request_malformed": 400, "headers_too_large": 431,
    "body_too_large": 413, "upstream_unreachable": 502, "upstream_timeout": 504, "upstream_invalid": 502,
    "overloaded": 503, "internal_error": 500, "expectation_failed": 417,
    "api_key_unknown": 401, "api_key_expired": 401, "api_key_disabled": 401, "signing_unavailable": 503,
}  # fmt: skip

API = Form("api")
QUOTABLE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
"""RFC 6750 section 3: the characters of error_description and of scope."""

EVERY = pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)


def parse(raw: bytes) -> tuple[str, Headers, bytes]:
    head, _, content = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, [(name, value) for name, _, value in (line.partition(": ") for line in lines)], content


def the(name: str, headers: Headers) -> str | None:
    found = values(headers, name)
    assert len(found) <= 1
    return found[0] if found else None


def test_the_codes_equal_the_contract() -> None:
    assert [reason.code for reason in Reason] == [*CODES.split(), *ADDED.split()]


@EVERY
def test_a_reason_has_its_status(reason: Reason) -> None:
    assert reason.status == STATUS[reason.code]


@EVERY
def test_a_401_has_the_error_of_the_replaced_backends(reason: Reason) -> None:
    if reason.status == 401:
        assert reason.error == ("No token provided" if reason is Reason.TOKEN_MISSING else "Invalid token")
    assert reason.error


@EVERY
def test_an_answer_is_json_with_error_details_code_and_request_id(reason: Reason) -> None:
    said = json.loads(body(Rejection(reason), "id-1"))
    assert said.pop("details", None) == (reason.details or None)
    assert said == {"error": reason.error, "code": reason.code, "request_id": "id-1"}


def test_only_the_missing_token_needs_no_details() -> None:
    assert [reason for reason in Reason if not reason.details] == [Reason.TOKEN_MISSING]


def test_details_replace_the_sentence_of_the_reason() -> None:
    said = json.loads(body(Rejection(Reason.TOKEN_EXPIRED, "The token expired 12 s ago."), "id-1"))
    assert said == {
        "error": "Invalid token",
        "details": "The token expired 12 s ago.",
        "code": "token_expired",
        "request_id": "id-1",
    }


@EVERY
def test_an_answer_is_one_complete_message_marked_as_rejected(reason: Reason) -> None:
    first, headers, content = parse(refusal(Rejection(reason), "id-1", API))
    assert re.fullmatch(rf"HTTP/1\.1 {reason.status} [A-Za-z ]+", first)
    assert content == body(Rejection(reason), "id-1")
    assert the("Content-Length", headers) == str(len(content))
    assert the("Content-Type", headers) == "application/json"
    assert the("Cache-Control", headers) == "no-store"
    assert the("X-JWT-Sidecar", headers) == "rejected"
    assert the("X-Request-Id", headers) == "id-1"
    assert the("Connection", headers) is None


def test_an_answer_to_head_has_the_length_without_the_body() -> None:
    raw = refusal(Rejection(Reason.TOKEN_MISSING), "id-1", API)
    assert refusal(Rejection(Reason.TOKEN_MISSING), "id-1", API, head_only=True) == raw.partition(b"{")[0]


def test_an_answer_announces_the_end_of_its_connection() -> None:
    _, headers, _ = parse(refusal(Rejection(Reason.REQUEST_MALFORMED), "id-1", API, connection_line(False, 1)))
    assert the("Connection", headers) == "close"


# WWW-Authenticate


@EVERY
def test_the_challenge_follows_rfc_6750(reason: Reason) -> None:
    _, headers, _ = parse(refusal(Rejection(reason), "id-1", API))
    said = the("WWW-Authenticate", headers)
    assert said == challenge(Rejection(reason), API)
    if reason is Reason.TOKEN_MISSING:
        assert said == 'Bearer realm="api"'
    elif reason.status == 401:
        assert said == f'Bearer realm="api", error="invalid_token", error_description="{reason.details}"'
    elif reason in (Reason.SCOPE_INSUFFICIENT, Reason.CLAIM_MISMATCH):
        assert said == f'Bearer realm="api", error="insufficient_scope", error_description="{reason.details}"'
    elif reason is Reason.TOKEN_AMBIGUOUS:
        assert said == f'Bearer realm="api", error="invalid_request", error_description="{reason.details}"'
    else:
        assert said is None


def test_a_challenge_names_the_required_scope() -> None:
    said = challenge(Rejection(Reason.SCOPE_INSUFFICIENT, "No.", scope="read write"), API)
    assert said == 'Bearer realm="api", error="insufficient_scope", error_description="No.", scope="read write"'


def test_a_bearer_challenge_names_the_metadata_of_the_resource() -> None:
    form = Form("api", resource_metadata="https://a/m")
    assert challenge(Rejection(Reason.TOKEN_MISSING), form) == 'Bearer realm="api", resource_metadata="https://a/m"'
    assert challenge(Rejection(Reason.TOKEN_MISSING), form._replace(scheme="Basic")) == 'Basic realm="api"'
    assert challenge(Rejection(Reason.PATH_AMBIGUOUS), form) is None


def test_a_challenge_without_details_has_no_empty_description() -> None:
    assert challenge(Rejection(Reason.TOKEN_EXPIRED, ""), API) == 'Bearer realm="api", error="invalid_token"'


def written_details() -> list[str]:
    """Every text that the package gives to a Rejection as its details; `0` stands for each value of an f-string."""
    found = []
    for file in sorted(Path(sidecar.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Rejection":
                for said in [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "details")]:
                    parts = said.values if isinstance(said, ast.JoinedStr) else [said]
                    texts = [str(part.value) if isinstance(part, ast.Constant) else "0" for part in parts]
                    if texts != ["0"]:  # a name: its text is unknown here
                        found.append("".join(texts))
    return found


def test_every_description_is_a_quotable_sentence() -> None:
    texts = [*written_details(), *(reason.details for reason in Reason if reason.details)]
    assert len(texts) > len(Reason)
    assert [text for text in texts if not (QUOTABLE.fullmatch(text) and text.endswith("."))] == []


# Headers that some refusals carry


@pytest.mark.parametrize(("seconds", "said"), [(0.0, "1"), (1.0, "1"), (1.6, "2"), (29.7, "30")])
def test_retry_after_is_whole_seconds_and_at_least_1(seconds: float, said: str) -> None:
    rejection = Rejection(Reason.JWKS_UNAVAILABLE, retry_after_s=seconds)
    assert the("Retry-After", parse(refusal(rejection, "id-1", API))[1]) == said


def test_retry_after_is_only_sent_if_known() -> None:
    assert the("Retry-After", parse(refusal(Rejection(Reason.JWKS_UNAVAILABLE), "id-1", API))[1]) is None


def test_every_overloaded_answer_has_retry_after_1() -> None:
    assert the("Retry-After", parse(refusal(Rejection(Reason.OVERLOADED), "id-1", API))[1]) == "1"


def test_a_405_names_the_methods() -> None:
    rejection = Rejection(Reason.METHOD_NOT_ALLOWED, allow="GET, HEAD")
    assert the("Allow", parse(refusal(rejection, "id-1", API))[1]) == "GET, HEAD"
    assert the("Allow", parse(refusal(Rejection(Reason.ROUTE_DENIED), "id-1", API))[1]) is None


def test_the_text_of_a_rejection_is_its_code() -> None:
    assert str(Rejection(Reason.TOKEN_EXPIRED, "The token expired 12 s ago.")) == "token_expired"


# Other forms


def test_a_problem_follows_rfc_9457() -> None:
    _, headers, content = parse(refusal(Rejection(Reason.TOKEN_EXPIRED), "id-1", Form(problem=True)))
    assert the("Content-Type", headers) == "application/problem+json"
    assert json.loads(content) == {
        "type": "urn:jwt-sidecar:token_expired",
        "title": "Invalid token",
        "status": 401,
        "detail": "The token has expired.",
        "code": "token_expired",
        "request_id": "id-1",
    }


@pytest.mark.parametrize("problem", [False, True])
def test_a_minimal_answer_has_no_sentence_in_body_or_challenge(problem: bool) -> None:
    form = Form(problem=problem, detail="minimal")
    _, headers, content = parse(refusal(Rejection(Reason.TOKEN_EXPIRED), "id-1", form))
    assert not {"details", "detail"} & json.loads(content).keys()
    assert json.loads(content)["code"] == "token_expired"
    assert the("WWW-Authenticate", headers) == 'Bearer realm="jwt-sidecar", error="invalid_token"'


def test_a_plain_answer_is_a_sentence_with_code_and_request_id() -> None:
    for rejection, sentence in (
        (Rejection(Reason.TOKEN_EXPIRED), f"{Reason.TOKEN_EXPIRED.error}: {Rejection(Reason.TOKEN_EXPIRED).details}"),
        (Rejection(Reason.TOKEN_MISSING), Reason.TOKEN_MISSING.error),
    ):
        _, headers, content = parse(refusal(rejection, "id-1", Form(plain=True)))
        assert the("Content-Type", headers) == "text/plain; charset=utf-8"
        assert content == f"{sentence} ({rejection.reason.code}, request id-1)".encode()


def test_only_full_detail_names_the_rule() -> None:
    where = {"route": "/admin/*"}
    for detail, told in (("minimal", None), ("code", None), ("full", "/admin/*")):
        raw = refusal(Rejection(Reason.TOKEN_EXPIRED), "id-1", Form(detail=detail), where=where)
        assert json.loads(parse(raw)[2]).get("route") == told


@pytest.mark.parametrize(
    ("rejection", "error"),
    [
        (Rejection(Reason.TOKEN_EXPIRED), "invalid_client"),
        (Rejection(Reason.REQUEST_MALFORMED), "invalid_request"),
        (Rejection(Reason.METHOD_NOT_ALLOWED), "invalid_request"),
        (Rejection(Reason.REQUEST_MALFORMED, oauth_error="invalid_grant"), "invalid_grant"),
    ],
)
def test_a_refusal_of_the_token_endpoint_follows_rfc_6749(rejection: Rejection, error: str) -> None:
    form = Form(oauth=True, problem=True, scheme="Basic")
    _, headers, content = parse(refusal(rejection, "id-1", form))
    said = json.loads(content)
    assert said == {
        "error": error,
        "error_description": rejection.details,
        "code": rejection.reason.code,
        "request_id": "id-1",
    }
    assert the("Content-Type", headers) == "application/json"
    asked = 'Basic realm="jwt-sidecar"' if rejection.reason.status == 401 else None
    assert the("WWW-Authenticate", headers) == asked
    assert "error_description" not in json.loads(body(rejection, "id-1", form._replace(detail="minimal")))


# Other answers


def test_each_status_of_a_reason_has_its_phrase() -> None:
    assert {reason.status for reason in Reason} <= PHRASES.keys()
    assert PHRASES == {
        200: "OK", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
        404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 417: "Expectation Failed",
        431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
        504: "Gateway Timeout",
    }  # fmt: skip
    assert Form().detail == "code"


@pytest.mark.parametrize(
    ("keep", "minor", "line"),
    [
        (True, 1, b""),
        (True, 0, b"Connection: keep-alive\r\n"),
        (False, 1, b"Connection: close\r\n"),
        (False, 0, b"Connection: close\r\n"),
    ],
)
def test_each_answer_has_the_connection_header_of_its_version(keep: bool, minor: int, line: bytes) -> None:
    assert connection_line(keep, minor) == line


def of_our_own(status: int, content: bytes = b"{}", *, head_only: bool = False) -> tuple[str, Headers, bytes]:
    line = connection_line(False, 1)
    return parse(local(status, {"ETag": "x"}, content, "issuer", "id-1", line, head_only=head_only))


def test_a_refusal_does_not_depend_on_earlier_ones() -> None:
    def said(number: int) -> bytes:
        rejection = Rejection(Reason.JWKS_UNAVAILABLE, f"{number} are too many.", allow="GET", retry_after_s=number)
        return refusal(rejection, f"id-{number}", DEFAULT_FORM, b"")

    before = [said(number) for number in range(MAX_REFUSALS + 2)]
    for number in (0, 1, MAX_REFUSALS, MAX_REFUSALS + 1):
        assert said(number) == before[number]
        assert f'"details": "{number} are too many."'.encode() in before[number]
        assert f"Retry-After: {max(1, number)}\r\nAllow: GET\r\n".encode() in before[number]


def test_another_answer_of_the_sidecar_is_complete_and_marked() -> None:
    assert of_our_own(200) == (
        "HTTP/1.1 200 OK",
        [
            ("ETag", "x"),
            ("Content-Type", "application/json"),
            ("Content-Length", "2"),
            ("X-JWT-Sidecar", "issuer"),
            ("X-Request-Id", "id-1"),
            ("Connection", "close"),
        ],
        b"{}",
    )


def test_another_answer_of_the_sidecar_to_head_has_no_body() -> None:
    assert of_our_own(200, head_only=True) == (*of_our_own(200)[:2], b"")


@pytest.mark.parametrize("status", [204, 304])
def test_another_answer_of_the_sidecar_without_body_has_no_length(status: int) -> None:
    first, headers, content = of_our_own(status, b"")
    assert first == f"HTTP/1.1 {status} {PHRASES[status]}"
    assert [name for name, _ in headers] == ["ETag", "X-JWT-Sidecar", "X-Request-Id", "Connection"]
    assert content == b""


def test_an_accepted_forward_auth_request_gets_identity_headers() -> None:
    first, headers, content = parse(accepted(b"X-JWT-Sub: alice\r\n", "id-1", connection_line(True, 0)))
    assert (first, content) == ("HTTP/1.1 200 OK", b"")
    assert headers == [
        ("Content-Length", "0"),
        ("Cache-Control", "no-store"),
        ("X-JWT-Sub", "alice"),
        ("X-Request-Id", "id-1"),
        ("Connection", "keep-alive"),
    ]


def test_an_answer_is_relayed_with_its_framing_and_one_id() -> None:
    head = answered("ETag: x", "Connection: close", "Content-Length: 5")
    assert relayed(head, b"Content-Length: 5\r\n", b"X-Request-Id: id-1\r\n", b"") == (
        b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 5\r\nX-Request-Id: id-1\r\n\r\n"
    )
    ended = relayed(answered("X-Request-Id: theirs"), b"", b"X-Request-Id: id-1\r\n", connection_line(False, 1))
    assert ended == b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nConnection: close\r\n\r\n"


def test_interim_answers_and_a_switch_of_protocols_are_relayed() -> None:
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
    hints = answered("Link: </a>", "Connection: x", "Content-Length: 5", first="HTTP/1.1 103 Early Hints")
    assert interim(hints) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    switch = answered("Upgrade: websocket", "Connection: upgrade", "X: y", first="HTTP/1.0 101 Go")
    assert switching(switch, b"websocket") == (
        b"HTTP/1.1 101 Go\r\nX: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert switching(switch, b"websocket", b"ours") == (
        b"HTTP/1.1 101 Go\r\nX: y\r\nSec-WebSocket-Protocol: ours\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    theirs = answered("sec-websocket-protocol: theirs", first="HTTP/1.1 101 Go")
    assert switching(theirs, b"websocket", b"ours") == switching(theirs, b"websocket")
