"""What becomes of each header, by its name: every one that has a meaning somewhere is written out here."""

from collections import Counter

import pytest

from sidecar.headers import HOP_BY_HOP, MAX_NAMES, AnswerHeaders, AnswerRoles, Forwarded, RequestHeaders, Roles, fold
from sidecar.rejections import Reason, Rejection

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


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (FRONT_PROXY, "front proxy"),
        (ONE_HOP, "drop"),
        (OURS, "drop claim"),
        (OTHERS, "forward"),
        (["x_other", "x.other", "a b", "caf\xe9", "x_forwarded_user", "x-forwarded-a_b"], "drop underscore"),
    ],
)
def test_what_becomes_of_a_header_of_a_request(names: list[str], role: str) -> None:
    roles = Roles(HOP_BY_HOP)
    for name in names:
        assert (name, roles[name.encode("latin-1")]) == (name, role)
        assert (name, roles[name.upper().encode("latin-1")]) == (name, role)


def test_what_has_a_meaning_here_is_read_under_its_own_name() -> None:
    roles = Roles(HOP_BY_HOP)
    assert {name: roles[name.title().encode()] for name in READ_HERE} == dict(zip(READ_HERE, READ_HERE, strict=True))
    token = "x-forwarded-access-token"
    assert Roles(HOP_BY_HOP, read=[token])[token.encode()] == token


def test_a_name_that_could_be_taken_for_one_with_a_meaning_is_never_sent_on() -> None:
    roles = Roles(HOP_BY_HOP, underscores="allow")
    assert {roles[name.replace("-", "_").encode()] for name in FRONT_PROXY if "-" in name} == {"drop underscore"}
    assert {roles[name.replace("-", ".").encode()] for name in READ_HERE if "-" in name} == {"drop underscore"}
    assert {roles[name.replace("-", "_").encode()] for name in ONE_HOP if "-" in name} == {"drop"}
    assert {roles[name.replace("-", "_").encode()] for name in OURS if "-" in name} == {"drop claim"}
    assert roles[b"x_other"] == "forward"


def test_a_name_that_a_backend_might_fold_is_refused_where_that_is_asked_for() -> None:
    roles = Roles(HOP_BY_HOP, underscores="reject")
    assert roles[b"X-Other"] == "forward"
    with pytest.raises(Rejection) as caught:
        roles[b"x_other"]
    assert caught.value.reason is Reason.REQUEST_MALFORMED
    assert caught.value.details == "A header's name has other characters than letters, digits and -."


def test_what_belongs_to_one_hop_is_known() -> None:
    assert {*ONE_HOP, "connection", "transfer-encoding", "upgrade"} == HOP_BY_HOP


def test_letters_of_other_scripts_and_signs_fold_like_an_underscore() -> None:
    assert fold("X_JWT.Sub \xe9") == "x-jwt-sub--"


def test_so_many_names_are_remembered_and_then_all_are_forgotten() -> None:
    for roles in (Roles(()), AnswerRoles()):
        for number in range(MAX_NAMES):
            assert roles[b"x-%d" % number] == "forward"
        assert len(roles) == MAX_NAMES == 4096
        assert roles[b"x-more"] == "forward"
        assert list(roles) == [b"x-more"]


def test_a_long_name_is_not_remembered() -> None:
    for roles in (Roles(()), AnswerRoles()):
        remembered, long = b"x" * 64, b"x" * 65
        assert (roles[long], roles[remembered]) == ("forward", "forward")
        assert list(roles) == [remembered]


# Requests


def read(*headers: tuple[bytes, bytes], trusted: bool = False) -> RequestHeaders:
    return RequestHeaders(headers, Roles(HOP_BY_HOP), trusted)


def test_what_is_sent_on_keeps_its_order_its_case_and_its_bytes() -> None:
    headers = read((b"Accept", b"a"), (b"Host", b"h"), (b"x-Y", b"\xff"), (b"accept", b"b"), (b"TE", b"trailers"))
    assert b"".join(headers.kept) == b"Accept: a\r\nx-Y: \xff\r\naccept: b\r\n"
    assert headers.special == {"host": [b"h"]}


def test_a_header_that_has_a_meaning_keeps_each_of_its_values() -> None:
    assert read((b"Host", b"a"), (b"host", b"b")).special == {"host": [b"a", b"b"]}


def test_what_could_be_forged_is_counted_by_its_kind() -> None:
    stripped: Counter[str] = Counter()
    roles = Roles(HOP_BY_HOP | {"x-auth-user"}, stripped=stripped)
    names = ["X-JWT-Sub", "x_jwt_sub", "X.Auth.User", "x_other", "X-Real-IP", "Connection", "Accept", "TE", "Host"]
    for trusted in (False, True):
        RequestHeaders([(name.encode(), b"x") for name in names], roles, trusted)
    assert stripped == {"claim": 6, "underscore": 2, "forwarded": 1}


def test_what_a_front_proxy_says_is_sent_on_from_a_trusted_one_only() -> None:
    said = (b"X-Real-IP", b"192.0.2.1")
    assert read(said).kept == RequestHeaders([said], Roles(HOP_BY_HOP)).kept == []
    assert b"".join(read(said, trusted=True).kept) == b"X-Real-IP: 192.0.2.1\r\n"
    assert read(said, trusted=True).special == {}


@pytest.mark.parametrize(
    ("name", "trusted", "stripped"),
    [
        (b"X-JWT-Sub", False, True),
        (b"x_other", False, True),
        (b"X-Real-IP", False, True),
        (b"X-Real-IP", True, False),
        (b"TE", False, False),
        (b"Accept", False, False),
    ],
)
def test_a_request_says_whether_anything_forged_came_with_it(name: bytes, trusted: bool, stripped: bool) -> None:
    assert read((b"Host", b"a"), (name, b"x"), (b"Accept", b"x"), trusted=trusted).stripped is stripped


def test_the_trace_context_is_sent_on_and_noted() -> None:
    headers = read((b"Traceparent", b"one"), (b"Accept", b"x"), (b"traceparent", b"two"))
    assert b"".join(headers.kept) == b"Traceparent: one\r\nAccept: x\r\ntraceparent: two\r\n"
    assert headers.special == {"traceparent": [b"one", b"two"]}


USUAL = [b"keep-alive", b"Keep-Alive", b"close", b"Upgrade", b"upgrade"]


@pytest.mark.parametrize("connection", USUAL)
def test_what_connection_usually_holds_names_no_header(connection: bytes) -> None:
    headers = read((b"Connection", connection), (connection, b"x"), (b"Close", b"x"), (b"Accept", b"x"))
    assert b"".join(headers.kept).endswith(b"Close: x\r\nAccept: x\r\n")
    assert headers.connection_options() == {connection.lower()}


@pytest.mark.parametrize("connection", [[b"x-one,\tX-TWO "], [b"X-One", b"close, x-two"], [b"x-two,,x-one"]])
def test_a_header_that_connection_names_is_not_sent_on(connection: list[bytes]) -> None:
    named = [(b"Connection", value) for value in connection]
    headers = read((b"X-One", b"1"), *named, (b"X-Two", b"2"), (b"X-Three", b"3"), (b"x-two", b"4"))
    assert b"".join(headers.kept) == b"X-Three: 3\r\n"
    assert headers.connection_options() >= {b"x-one", b"x-two"}


def test_without_connection_there_are_no_options() -> None:
    assert read().connection_options() == set()


# Where a request came from


def test_who_is_not_trusted_says_nothing_about_where_a_request_came_from() -> None:
    said = {name: [b"evil"] for name in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")}
    lines = Forwarded("192.0.2.1", "http", False).lines(b"h", said)
    assert lines == b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"


def test_what_a_trusted_proxy_says_is_kept_and_extended() -> None:
    forwarded = Forwarded("192.0.2.1", "http", True)
    assert forwarded.lines(b"h", {}) == (
        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
    )
    said = {
        "x-forwarded-for": [b"a", b"b, c"],
        "x-forwarded-proto": [b"http", b"https"],
        "x-forwarded-host": [b"one", b"two"],
        "forwarded": [b"for=a", b"for=b"],
    }
    assert forwarded.lines(b"h", said) == (
        b"X-Forwarded-For: a, b, c, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: two\r\n"
        b"Forwarded: for=a, for=b, for=192.0.2.1;proto=http\r\n"
    )


def test_an_ipv6_address_is_quoted_in_forwarded() -> None:
    lines = Forwarded("2001:db8::1", "https", True).lines(b"h", {"forwarded": [b"for=a"]})
    assert lines.endswith(b'Forwarded: for=a, for="[2001:db8::1]";proto=https\r\n')


def test_a_peer_is_named_in_ascii() -> None:
    assert Forwarded("fe80::1%\xe9th", "http", False).peer == b"fe80::1%th"


# Answers

MEANT = ["content-length", "transfer-encoding", "x-request-id", "connection"]


def test_what_becomes_of_a_header_of_an_answer() -> None:
    roles = AnswerRoles()
    for name in [*ONE_HOP, "upgrade", "x-jwt-sidecar"]:
        assert (name, roles[name.title().encode()]) == (name, "drop")
    for name in MEANT:
        assert (name, roles[name.title().encode()]) == (name, name)
    for name in ["content-type", "set-cookie", "x_other", "x-jwt-sub", "!#$%&'*+-.^_`|~0aZ"]:
        assert (name, roles[name.encode()]) == (name, "forward")
    for name in ["content-length ", "content length", "", "caf\xe9", "a:", "a(", "a\t"]:
        assert (name, roles[name.encode("latin-1")]) == (name, "malformed")


def answered(*headers: tuple[bytes, bytes]) -> AnswerHeaders:
    return AnswerHeaders(headers, AnswerRoles())


def test_what_of_an_answer_is_sent_on_keeps_its_order_its_case_and_its_bytes() -> None:
    headers = answered((b"ETag", b"a"), (b"Upgrade", b"x"), (b"etag", b"\xff"), (b"Content-Length", b"5"))
    assert b"".join(headers.kept) == b"ETag: a\r\netag: \xff\r\n"
    assert headers.special == {"content-length": b"5"}
    assert headers.clean


def test_several_values_of_a_header_of_an_answer_are_one_list() -> None:
    assert answered((b"Content-Length", b"5"), (b"content-length", b"6")).special == {"content-length": b"5,6"}


def test_a_header_of_an_answer_that_connection_names_is_not_sent_on() -> None:
    headers = answered((b"X-One", b"1"), (b"Connection", b"close, x-one"), (b"X-Two", b"2"))
    assert b"".join(headers.kept) == b"X-Two: 2\r\n"
    headers = answered((b"X-One", b"1"), (b"Connection", b"x-two"), (b"Connection", b"x-one"), (b"X-Two", b"2"))
    assert headers.kept == []
    assert b"".join(answered((b"Connection", b"close"), (b"X-Two", b"2")).kept) == b"X-Two: 2\r\n"


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b", b"\x08", b"\x1f", b"\x7f", b"\x0a", b"\x0b"])
def test_a_value_that_could_end_its_line_is_not_clean(value: bytes) -> None:
    assert not answered((b"X-One", b"1"), (b"X-Two", value)).clean
    assert not answered((b"X-Two", value), (b"X-One", b"1")).clean


@pytest.mark.parametrize("value", [b"", b"a\tb", b" ", b"~", b"\x80", b"\xff"])
def test_any_other_value_is_clean(value: bytes) -> None:
    assert answered((b"X-One", value)).clean


def test_an_answer_with_a_name_that_is_none_is_not_clean() -> None:
    assert not answered((b"X-One", b"1"), (b"Content-Length ", b"5")).clean
