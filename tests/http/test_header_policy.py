"""The treatment of each header by its name: every header with a meaning is listed here."""

import pytest

from sidecar.common.folding import fold
from sidecar.http.grammar import ProtocolError
from sidecar.http.header_policy import HOP_BY_HOP, MAX_LINE_BYTES, MAX_LINES, ResponseHeaderPolicy
from sidecar.http.request_head import parse_request_head
from sidecar.http.response_head import parse_response_head
from tests.http.heads import HEADERS, LINE_BYTES, answered, head, policy, read

READ_HERE = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
    "upgrade",
    "x-request-id",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "authorization",
]
FRONT_PROXY = [
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-client-cert",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-anything",
    "x-forwarded-",
]
ONE_HOP = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "http2-settings",
    "proxy",
]
OURS = ["x-jwt-sub", "x-jwt-", "x-jwt-anything"]
OTHERS = ["accept", "cookie", "x-jwt", "x", "Via", "x-forwarded", "x-forwardedx"]


def fate(name: str, **more: object) -> str:
    return policy(**more).field(name.encode() + b": x").fate


@pytest.mark.parametrize("name", ["x-http-method-override", "x-http-method", "x-method-override"])
def test_a_dropped_header_that_changes_the_method_counts_as_no_forged_claim(name: str) -> None:
    assert policy(name).field(name.encode() + b": x").fate == "drop"


def test_an_invalid_host_is_a_problem_of_its_line() -> None:
    wanted = "The request needs exactly one valid Host header."
    assert [policy().field(line).problem for line in (b"Host: a", b"Host: a b")] == ["", wanted]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (READ_HERE, "special"),
        (FRONT_PROXY, "front proxy"),
        (ONE_HOP, "drop"),
        (OURS, "drop claim"),
        (OTHERS, "forward"),
        (["traceparent", "tracestate"], "noted"),
        (["x_other", "x.other", "x~other", "x_forwarded_user", "x-forwarded-a_b", "_"], "drop underscore"),
    ],
)
def test_each_header_of_a_request_has_its_treatment(names: list[str], expected: str) -> None:
    for name in names:
        for spelled in (name, name.upper(), name.title()):
            assert (spelled, fate(spelled)) == (spelled, expected)


def test_headers_that_the_sidecar_reads_have_their_own_names() -> None:
    for name in READ_HERE:
        assert policy().field(name.title().encode() + b": x").name == name
    assert fate("x-forwarded-access-token", read=["x-forwarded-access-token"]) == "special"
    assert fate("x-forwarded-access-token") == "front proxy"


def test_trace_context_is_rewritten_with_tracing() -> None:
    assert {fate(name, traced=True) for name in ("traceparent", "Tracestate")} == {"special"}


def test_a_name_that_folds_to_a_special_header_is_never_forwarded() -> None:
    def folded(names: list[str], sign: str) -> set[str]:
        return {fate(name.replace("-", sign), underscores="allow") for name in names if "-" in name}

    assert folded(FRONT_PROXY, "_") == {"drop underscore"}
    assert folded(READ_HERE, ".") == {"drop underscore"}
    assert folded(ONE_HOP, "_") == {"drop"}
    assert folded(OURS, "_") == {"drop claim"}
    assert fate("x_other", underscores="allow") == "forward"


@pytest.mark.parametrize("underscores", ["allow", "drop"])
def test_each_spelling_of_an_identity_header_is_counted_as_a_claim(underscores: str) -> None:
    for name in ("X-Auth-User", "x_auth_user", "X.Auth~User"):
        line = name.encode() + b": mallory"
        assert policy("x-auth-user", underscores=underscores).field(line).fate == "drop claim"
    assert read("x_jwt_sub: a", "X-JWT-Sub: b", underscores=underscores).stripped == ["claim", "claim"]


def test_other_names_that_a_backend_might_fold_are_counted_as_underscore() -> None:
    assert read("x_other: a").stripped == read("X_Real_IP: a", underscores="allow").stripped == ["underscore"]


def test_a_name_that_a_backend_might_fold_is_refused_if_configured() -> None:
    for name in ("x_other", "X_JWT_Sub", "Proxy_Connection"):
        assert fate(name, underscores="reject") == "refuse"
    assert fate("X-Other", underscores="reject") == "forward"
    assert read("a_b: c", underscores="reject").problem == (
        "A header's name has characters other than letters, digits and -."
    )
    assert read("a_b: c").problem == ""


def test_the_hop_by_hop_headers_are_complete() -> None:
    assert {*ONE_HOP, "connection", "transfer-encoding", "upgrade"} == HOP_BY_HOP


def test_every_character_outside_letters_and_digits_folds_to_a_hyphen() -> None:
    assert fold("X_JWT.Sub \xe9") == "x-jwt-sub--"


# Answers


def test_each_header_of_an_answer_has_its_treatment() -> None:
    def becomes(name: str) -> str:
        return ResponseHeaderPolicy().field(name.encode() + b": x").fate

    for name in [*ONE_HOP, "x-jwt-sidecar"]:
        assert (name, becomes(name.title())) == (name, "drop")
    for name in ["content-length", "transfer-encoding", "x-request-id", "connection", "upgrade"]:
        assert (name, becomes(name.title())) == (name, "special")
    for name in ["content-type", "set-cookie", "x_other", "x-jwt-sub", "!#$%&'*+-.^_`|~0aZ"]:
        assert (name, becomes(name)) == (name, "forward")


def test_two_content_lengths_of_an_answer_are_refused() -> None:
    with pytest.raises(ProtocolError):
        answered("Content-Length: 5", "content-length: 5")


# Memory of lines


def test_a_line_is_normalized_to_its_forwarded_form() -> None:
    field = policy().field(b"aCCept:\t a\xff b \t")
    assert (field.name, field.value, field.line) == ("accept", b"a\xff b", b"aCCept: a\xff b\r\n")


PRIVATE = [
    "Authorization", "Proxy-Authorization", "X-Access-Token", "x_access_token", "Cookie", "COOKIE", "X-Request-Id", "traceparent",
    "Tracestate", "If-None-Match", "Sec-WebSocket-Key",
]  # fmt: skip


@pytest.mark.parametrize("underscores", ["drop", "allow", "reject"])
@pytest.mark.parametrize("private", PRIVATE)
def test_private_and_changing_headers_of_requests_are_never_remembered(private: str, underscores: str) -> None:
    rules = policy(read=["x-access-token"], underscores=underscores)
    parse_request_head(head("GET / HTTP/1.1", "Host: a", f"{private}: of-alice"), rules, LINE_BYTES, HEADERS)
    assert list(rules.known) == [b"Host: a"]
    assert b"of-alice" not in repr([rules.known, rules._names]).encode()


@pytest.mark.parametrize("private", ["Set-Cookie", "ETag", "X-Request-Id", "Content-Length"])
def test_private_and_changing_headers_of_answers_are_never_remembered(private: str) -> None:
    rules = ResponseHeaderPolicy()
    parse_response_head(head("HTTP/1.1 200 OK", "Via: x", f"{private}: 5"), rules, HEADERS)
    assert list(rules.known) == [b"Via: x"]


@pytest.mark.parametrize("line", [b"X: a\x00b", b"X: a\r", b"\nX: a", b"X\x7f: a", b"X: a\x1f"])
def test_a_refused_line_is_never_remembered(line: bytes) -> None:
    for rules in (policy(), ResponseHeaderPolicy()):
        for _ in range(2):
            with pytest.raises(ProtocolError):
                rules.field(line)
            rules.field(b"X: a")  # its name is known now
        assert list(rules.known) == [b"X: a"]


def test_a_full_memory_of_lines_is_cleared() -> None:
    for rules in (policy(), ResponseHeaderPolicy()):
        for number in range(MAX_LINES):
            rules.field(b"X-%d: a" % number)
        assert len(rules.known) == len(rules._names) == MAX_LINES == 4096
        assert all(rules.known.values())
        assert all(rules._names.values())
        rules.field(b"X-More: a")
        assert list(rules.known) == [b"X-More: a"]
        assert list(rules._names) == [b"X-More"]


def test_a_long_line_and_a_long_name_are_not_remembered() -> None:
    for rules in (policy(), ResponseHeaderPolicy()):
        assert rules.field(b"X: " + b"a" * (MAX_LINE_BYTES - 2)).fate == "forward"
        assert rules.field(b"x" * (MAX_LINE_BYTES + 1) + b": a").fate == "forward"
        rules.known.clear()
        assert MAX_LINE_BYTES == 256
        line, name = b"X: " + b"a" * (MAX_LINE_BYTES - 3), b"x" * MAX_LINE_BYTES
        rules.field(line)
        rules.field(name + b": a")
        assert list(rules.known) == [line]
        assert list(rules._names) == [b"X", name]


def test_a_refused_line_is_refused_each_time() -> None:
    for rules in (policy(), ResponseHeaderPolicy()):
        for _ in range(2):
            with pytest.raises(ProtocolError):
                rules.field(b"Content-Length : 5")
        assert (rules.known, rules._names) == ({}, {})


def test_a_reader_cannot_change_a_remembered_line() -> None:
    rules = policy()
    raw = head("GET / HTTP/1.1", "Host: a", "X-A: 1", "Connection: x-a", "X-B: 2", "X-Forwarded-Port: 3")
    first, again = (parse_request_head(raw, rules, LINE_BYTES, HEADERS) for _ in range(2))
    assert first.forwarded == again.forwarded == b"X-B: 2\r\n"
    assert first.from_front_proxy == again.from_front_proxy == b"X-Forwarded-Port: 3\r\n"
    first.special["host"].append(b"evil")
    assert parse_request_head(raw, rules, LINE_BYTES, HEADERS).special["host"] == [b"a"]
