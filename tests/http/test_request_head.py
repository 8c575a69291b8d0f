"""A head of a request has one reading or none; a head that can be parsed but not accepted has a reason."""

import pytest

from sidecar.http.framing import CHUNKED
from sidecar.http.grammar import ProtocolError
from sidecar.http.request_head import REQUEST_ID, RequestHead, parse_request_head
from tests.http.heads import HEADERS, LINE_BYTES, head, policy, read
from tests.peers.cpu import least_cpu_s


def parse(*lines: str | bytes, line_bytes: int = LINE_BYTES) -> RequestHead:
    return parse_request_head(head(*lines), policy(), line_bytes, HEADERS)


def refused(*lines: str | bytes, line_bytes: int = LINE_BYTES) -> str:
    with pytest.raises(ProtocolError) as caught:
        parse(*lines, line_bytes=line_bytes)
    assert not caught.value.too_large
    return caught.value.rule


# The request line

FIRST_WANTED = (
    "A request must begin with a method of 64 characters at most, its target in ASCII and HTTP/1.1, one space between."
)
VERSION_WANTED = "Only HTTP/1.0 and HTTP/1.1 are supported."


@pytest.mark.parametrize(
    ("first", "method", "target", "minor"),
    [
        ("GET / HTTP/1.1", "GET", "/", 1),
        ("get /a?b#c HTTP/1.0", "get", "/a?b#c", 0),
        ("!#$%&'*+-.^_`|~09azAZ !~ HTTP/1.1", "!#$%&'*+-.^_`|~09azAZ", "!~", 1),
    ],
)
def test_a_request_line_is_a_method_a_target_and_a_version(first: str, method: str, target: str, minor: int) -> None:
    found = parse(first, "Host: a")
    assert (found.method, found.target, found.minor, found.problem) == (method, target, minor, "")


@pytest.mark.parametrize(
    "first",
    [
        "",
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / a HTTP/1.1",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        " / HTTP/1.1",
        "G(T / HTTP/1.1",
        "G\xe9T / HTTP/1.1",
        "GET /\xe9 HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/1.",
        "GET / HTTP/1.11",
        "GET / HTTP/11.1",
        "GET / HTTP/ 1.1",
        "GET / HTTP/1,1",
        "GET / RTSP/1.0",
        "GET / HTTP/1.x",
        "Host: a",
    ],
)
def test_an_invalid_request_line_is_refused(first: str) -> None:
    assert refused(first, "Host: a") == FIRST_WANTED


@pytest.mark.parametrize("version", ["1.2", "2.0", "0.9", "9.9"])
def test_another_version_is_refused_with_the_accepted_ones(version: str) -> None:
    assert refused(f"GET / HTTP/{version}", "Host: a") == VERSION_WANTED


# Lines

LINE_WANTED = "A header line must be a name, a colon and a value."
CRLF_WANTED = "A line must end in CRLF."
NO_CONTROLS = "A head must not hold control characters."


@pytest.mark.parametrize(
    "line",
    [
        "nocolon", "no colon", ": value", "a : b", "a\t: b", " a: b", "\ta: b", " folded", "a b: c", "a(: b", "\xe9: b", "a@: b",
        '"a": b', "",
    ],
)  # fmt: skip
def test_an_invalid_header_line_is_refused(line: str) -> None:
    assert refused("GET / HTTP/1.1", line, "Host: a") == LINE_WANTED
    assert refused("GET / HTTP/1.1", "Host: a", line, "X: y") == LINE_WANTED


@pytest.mark.parametrize("odd", ["\r", "\n", "\r\r", "\n\n", "\n\r"])
@pytest.mark.parametrize("where", ["GET /{} HTTP/1.1", "X: a{}b", "X{}: a", "X: a{}", "{}X: a", "X:{}a"])
def test_a_cr_or_lf_outside_a_line_end_is_refused(where: str, odd: str) -> None:
    lines = ["GET / HTTP/1.1", "Host: a", where.format(odd)] if "GET" not in where else [where.format(odd), "Host: a"]
    assert refused(*lines) == CRLF_WANTED


@pytest.mark.parametrize("code", [*range(9), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F])
def test_a_control_character_is_refused_in_every_line(code: int) -> None:
    for lines in (["GET /%b HTTP/1.1"], ["GET / HTTP/1.1", "X: a%bb"], ["GET / HTTP/1.1", "X%b: a"]):
        assert refused(*(line.encode().replace(b"%b", bytes([code])) for line in lines)) == NO_CONTROLS


@pytest.mark.parametrize("value", [b"", b"a\tb", b"a  b", b"~", b"\x80", b"\xff", b"a:b", b":", b",,"])
def test_any_other_value_is_forwarded_unchanged(value: bytes) -> None:
    assert read(b"X-One: " + value).forwarded == b"X-One: %b\r\n" % value


def test_blanks_around_a_value_are_removed() -> None:
    assert read(b"X-One:\t \ta b \t").forwarded == read(b"X-One:a b").forwarded == b"X-One: a b\r\n"


def test_a_method_has_64_characters_at_most() -> None:
    assert read(first=f"{'M' * 64} / HTTP/1.1").method == "M" * 64
    assert refused(f"{'M' * 65} / HTTP/1.1", "Host: a") == FIRST_WANTED


def test_each_header_line_and_the_request_line_have_a_limit() -> None:
    fits = "X: " + "a" * 47
    assert parse("GET / HTTP/1.1", "Host: a", fits, line_bytes=50).problem == ""
    for lines in (["GET / HTTP/1.1", "Host: a", fits + "a"], ["GET /" + "a" * 60 + " HTTP/1.1"]):
        with pytest.raises(ProtocolError) as caught:
            parse(*lines, line_bytes=50)
        assert (caught.value.rule, caught.value.too_large) == ("A line of the head is longer than accepted.", True)


# Forwarded lines


def test_forwarded_headers_keep_their_order_case_and_bytes() -> None:
    found = read("Accept: a", b"x-Y: \xff", "accept: b", "TE: trailers")
    assert found.forwarded == b"Accept: a\r\nx-Y: \xff\r\naccept: b\r\n"
    assert found.special == {"host": [b"sidecar.test"]}


def test_a_special_header_keeps_each_of_its_values() -> None:
    assert read("Authorization: a", "authorization: b").special["authorization"] == [b"a", b"b"]


def test_stripped_headers_are_counted_by_their_kind() -> None:
    names = ["X-JWT-Sub", "x_jwt_sub", "X.Auth.User", "x_other", "X-Real-IP", "X-Forwarded-Port", "Accept", "TE"]
    raw = head("GET / HTTP/1.1", "Host: a", *(f"{name}: x" for name in names))
    found = parse_request_head(raw, policy("x-auth-user"), LINE_BYTES, HEADERS)
    assert found.stripped == ["claim", "claim", "claim", "underscore"]
    assert found.from_front_proxy == b"X-Real-IP: x\r\nX-Forwarded-Port: x\r\n"
    assert found.forwarded == b"Accept: x\r\n"


def test_the_trace_context_is_forwarded_and_noted() -> None:
    found = read("Traceparent: one", "Accept: x", "traceparent: two")
    assert found.forwarded == b"Traceparent: one\r\nAccept: x\r\ntraceparent: two\r\n"
    assert found.special["traceparent"] == [b"one", b"two"]
    found = read("Traceparent: one", "tracestate: two", traced=True)
    assert (found.forwarded, found.special["tracestate"]) == (b"", [b"two"])


def test_a_trace_has_one_parent_and_its_state_may_have_several_lines() -> None:
    found = read("Traceparent: one", "tracestate: two")
    assert (found.traceparent, found.tracestate) == (b"one", b"two")
    found = read("Traceparent: one", "traceparent: one", "Tracestate: two", "Tracestate: three")
    assert (found.traceparent, found.tracestate) == (None, b"two,three")
    assert (read().traceparent, read().tracestate) == (None, None)


@pytest.mark.parametrize("connection", ["keep-alive", "Keep-Alive", "close", "Upgrade", "upgrade"])
def test_the_usual_options_of_connection_name_no_header(connection: str) -> None:
    found = read(f"Connection: {connection}", "Close: x", "Accept: x", "X-Real-IP: x")
    assert (found.forwarded, found.from_front_proxy) == (b"Close: x\r\nAccept: x\r\n", b"X-Real-IP: x\r\n")


@pytest.mark.parametrize("connection", [["x-one,\tX-TWO ,x-real-ip"], ["X-One", "close, x-two, X-Real-IP"]])
def test_a_header_named_by_connection_is_not_forwarded(connection: list[str]) -> None:
    named = [f"Connection: {value}" for value in connection]
    found = read("X-One: 1", *named, "X-Two: 2", "X-Three: 3", "x-two: 4", "X-Real-IP: 5")
    assert (found.forwarded, found.from_front_proxy) == (b"X-Three: 3\r\n", b"")


def test_the_values_of_a_dropped_header_can_be_read() -> None:
    found = read("TE: a", "te:b", "X-JWT-Sub: c", "Accept: d")
    assert [found.values(name) for name in ("te", "x-jwt-sub", "accept", "none")] == [[b"a", b"b"], [b"c"], [b"d"], []]


def test_a_refused_name_keeps_the_request_id() -> None:
    found = read("a_b: c", "X-Request-Id: of-alice", underscores="reject")
    assert found.problem == "A header's name has characters other than letters, digits and -."
    assert (found.host, found.request_id) == (b"", "of-alice")


# Host

HOST_WANTED = "The request needs exactly one valid Host header."


@pytest.mark.parametrize(
    ("host", "good"),
    [
        (b"a", True),
        (b"A-1_b.~", True),
        (b"a:", True),
        (b"a:12345", True),
        (b"a:123456", False),
        (b"a:b", False),
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
        (b"a/b", False),
        (b"\xff", False),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_host_is_a_name_or_an_address_with_an_optional_port(version: str, host: bytes, good: bool) -> None:
    found = parse(f"GET / HTTP/{version}", b"Host: " + host)
    assert (found.host, found.problem) == ((host, "") if good else (b"", HOST_WANTED))


def test_a_request_has_one_host_and_http_1_0_may_omit_it() -> None:
    assert parse("GET / HTTP/1.1").problem == HOST_WANTED
    assert parse("GET / HTTP/1.0").problem == ""
    for version in ("1.0", "1.1"):
        assert parse(f"GET / HTTP/{version}", "Host: a", "host: a").problem == HOST_WANTED


# The target

OTHER_HOST = "The request target names another host than the Host header."


@pytest.mark.parametrize(
    ("target", "is_read_as"),
    [
        ("http://sidecar.test/x?y", "/x?y"),
        ("HTTPS://SIDECAR.TEST/x", "/x"),
        ("http://sidecar.test", "/"),
        ("http://sidecar.test?y=/z", "/?y=/z"),
        ("http://sidecar.test#y", "/#y"),
        ("http://sidecar.test//x", "//x"),
    ],
)
def test_a_target_with_the_host_is_read_as_a_path(target: str, is_read_as: str) -> None:
    found = read(first=f"GET {target} HTTP/1.1")
    assert (found.target, found.problem) == (is_read_as, "")


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("http://a.test:80", "a.test"),
        ("http://A.test", "a.TEST:80"),
        ("HTTPS://a.test:443", "a.test"),
        ("http://a.test:", "a.test"),
        ("http://a.test", "a.test:"),
        ("http://a.test:80", "a.test:"),
        ("http://a.test:81", "a.test:81"),
        ("http://[::1]:80", "[::1]"),
        ("http://[::80]", "[::80]:80"),
    ],
)
def test_the_default_port_equals_a_missing_port(authority: str, host: str) -> None:
    found = parse(f"GET {authority}/x HTTP/1.1", f"Host: {host}")
    assert (found.target, found.host, found.problem) == ("/x", host.encode(), "")


@pytest.mark.parametrize(
    "target",
    [
        "http://other.test/x",
        "http://sidecar.test:443/x",
        "https://sidecar.test:80/x",
        "http://sidecar.test:8080/x",
        "http://sidecar.test::80/x",
        "http://sidecar.test.evil/x",
        "http://sidecar.test\\/",
    ],
)
def test_a_target_with_another_host_is_refused(target: str) -> None:
    found = read(first=f"GET {target} HTTP/1.1")
    assert (found.target, found.problem) == (target, OTHER_HOST)


@pytest.mark.parametrize("user", ["a", "a:secret", "a@b:secret", "x\\", ""])
def test_a_refused_target_loses_its_user_and_password(user: str) -> None:
    found = read(first=f"GET http://{user}@sidecar.test/x?y@z HTTP/1.1")
    assert (found.target, found.problem) == ("http://sidecar.test/x?y@z", OTHER_HOST)


def test_a_target_with_a_host_needs_the_host_header_also_in_http_1_0() -> None:
    assert parse("GET http://a/ HTTP/1.0").problem == OTHER_HOST


def test_options_asterisk_is_refused_for_the_backend() -> None:
    assert read(first="OPTIONS * HTTP/1.1").problem.startswith("OPTIONS * asks about the proxy")


@pytest.mark.parametrize(
    "target", ["*", "a", "a.test:443", "http:/sidecar.test", "http://", "ftp://sidecar.test/", "?"]
)
def test_other_targets_are_left_to_the_rules_about_paths(target: str) -> None:
    found = read(first=f"GET {target} HTTP/1.1")
    assert (found.target, found.problem) == (target, "")
    assert not found.target.startswith("/")


# The body

CHUNKS_WANTED = "Transfer-Encoding must be chunked, alone, in HTTP/1.1."
LENGTH_WANTED = "Content-Length must be one number."


def test_the_length_of_a_body_is_read() -> None:
    assert (read().length, read().sized, read().problem) == (0, False, "")
    found = read("Content-Length: 5")
    assert (found.length, found.sized, found.problem) == (5, True, "")
    found = read("transfer-encoding: Chunked")
    assert (found.length, found.sized, found.problem) == (CHUNKED, False, "")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["Content-Length: 5", "Transfer-Encoding: chunked"], CHUNKS_WANTED),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], CHUNKS_WANTED),
        (["Content-Length: 5", "Content-Length: 5"], LENGTH_WANTED),
        (["Content-Length: +5"], LENGTH_WANTED),
    ],
)
def test_an_ambiguous_length_is_a_problem_and_no_body(lines: list[str], problem: str) -> None:
    found = read(*lines)
    assert (found.problem, found.length) == (problem, 0)


def test_chunked_in_http_1_0_is_a_problem() -> None:
    assert read("Transfer-Encoding: chunked", first="POST / HTTP/1.0").problem == CHUNKS_WANTED


# The connection


@pytest.mark.parametrize(
    ("first", "lines", "persists"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: x", "Connection: y, CLOSE"], False),
        ("GET / HTTP/1.1", ["Connection: keep-alive"], True),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: Keep-Alive"], True),
        ("GET / HTTP/1.0", ["Connection: keep-alive, close"], False),
        ("CONNECT a:1 HTTP/1.1", [], False),
    ],
)
def test_a_client_decides_whether_its_connection_persists(first: str, lines: list[str], persists: bool) -> None:
    assert read(*lines, first=first).persists is persists


@pytest.mark.parametrize(
    ("lines", "may_recur"),
    [
        ([], True),
        (["Accept: x"], True),
        (["Connection: close"], False),
        (["Upgrade: x"], False),
        (["X_Y: z"], False),
        (["X-JWT-Sub: alice"], False),
    ],
)
def test_heads_with_counted_or_connection_headers_are_not_remembered(lines: list[str], may_recur: bool) -> None:
    assert read(*lines).may_recur is may_recur


@pytest.mark.parametrize(
    ("first", "goes_on"),
    [
        ("GET /x?y HTTP/1.1", b"GET /x?y HTTP/1.1"),
        ("PUT /x HTTP/1.0", b"PUT /x HTTP/1.1"),
        ("GET http://sidecar.test/x HTTP/1.1", b"GET /x HTTP/1.1"),
    ],
)
def test_a_request_is_forwarded_as_http_1_1_with_a_path(first: str, goes_on: bytes) -> None:
    found = read(first=first)
    assert (found.request_line, found.problem) == (goes_on, "")


def test_a_request_with_a_problem_ends_its_connection() -> None:
    for lines in (["Host: twice"], ["Content-Length: x"]):
        found = read(*lines)
        assert found.problem
        assert not found.persists


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ASKS = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"]
HANDSHAKE = [*ASKS, f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]


def upgrade(*lines: str, first: str = "GET / HTTP/1.1") -> bytes | None:
    return read(*lines, first=first).upgrade


def test_a_complete_handshake_requests_websocket() -> None:
    assert upgrade(*HANDSHAKE) == b"websocket"
    assert upgrade(*HANDSHAKE, "Content-Length: 0") == b"websocket"


@pytest.mark.parametrize("left_out", range(4))
def test_an_incomplete_handshake_is_an_ordinary_request(left_out: int) -> None:
    lines = HANDSHAKE[:left_out] + HANDSHAKE[left_out + 1 :]
    assert upgrade(*lines) is None


@pytest.mark.parametrize(
    "more",
    [
        "Content-Length: 5", "Transfer-Encoding: chunked", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13",
        "Upgrade: websocket", "Upgrade: h2c",
    ],
)  # fmt: skip
def test_a_handshake_with_a_body_or_a_second_value_is_an_ordinary_request(more: str) -> None:
    assert upgrade(*HANDSHAKE, more) is None


@pytest.mark.parametrize("named", ["Sec-WebSocket-Key", "sec-websocket-version"])
def test_a_handshake_with_headers_named_by_connection_is_an_ordinary_request(named: str) -> None:
    assert upgrade(*HANDSHAKE, f"Connection: {named}") is None


@pytest.mark.parametrize("first", ["POST / HTTP/1.1", "GET / HTTP/1.0", "HEAD / HTTP/1.1"])
def test_a_handshake_needs_get_and_http_1_1(first: str) -> None:
    assert upgrade(*HANDSHAKE, first=first) is None


@pytest.mark.parametrize(
    "key", ["", KEY[:-2], KEY + "=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j", "*" * 22 + "=="]
)
def test_a_handshake_needs_a_key_of_16_bytes_in_base64(key: str) -> None:
    assert upgrade(*ASKS, f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13") is None


@pytest.mark.parametrize("version", ["", "8", "013", "13, 8"])
def test_a_handshake_needs_version_13(version: str) -> None:
    assert upgrade(*ASKS, f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Version: {version}") is None


def test_an_upgrade_to_another_protocol_needs_http_1_1_and_no_body() -> None:
    asked = ["Connection: Upgrade", "Upgrade: Other/1"]
    assert upgrade(*asked, first="POST / HTTP/1.1") == b"other/1"
    assert upgrade(*asked, "Content-Length: 1", first="POST / HTTP/1.1") is None
    assert upgrade(*asked, first="POST / HTTP/1.0") is None
    assert upgrade(asked[1]) is None
    assert upgrade(asked[0]) is None
    for protocol in ("a, b", "", "a b", "a/", "a/b/c"):
        assert upgrade("Connection: upgrade", f"Upgrade: {protocol}") is None


# Expectations, preflights, request ids


def test_the_only_expectation_is_100_continue() -> None:
    def expects(*values: str, first: str = "POST / HTTP/1.1") -> tuple[bool, bool]:
        found = read(*(f"Expect: {value}" for value in values), first=first)
        return found.expects_continue, found.unmet_expectation

    assert expects() == (False, False)
    assert expects("100-Continue") == (True, False)
    assert expects("100-continue", "100-continue") == expects("100") == expects("") == (False, True)
    assert expects("100-continue", first="POST / HTTP/1.0") == expects("x", first="POST / HTTP/1.0") == (False, False)


@pytest.mark.parametrize("given", ["a.b-1", "A_9", "x" * 128, "eyJ", "jsk", "eyJa"])
def test_a_valid_request_id_is_kept(given: str) -> None:
    assert read(f"X-Request-Id: {given}").request_id == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", "\xe9", "jsk_a", "eyJhbGciOiJub25lIn0.e30.", "a.eyJ.b"])
def test_an_invalid_or_secret_request_id_is_dropped(given: str) -> None:
    assert read(f"X-Request-Id: {given}").request_id == ""


def test_two_request_ids_are_ignored() -> None:
    assert read().request_id == read("X-Request-Id: a", "x-request-id: a").request_id == ""


def test_a_long_request_id_is_refused_in_short_time() -> None:
    def fastest(said: bytes) -> float:
        return least_cpu_s(lambda: REQUEST_ID.fullmatch(said), number=1, repeat=20)

    assert fastest(b"eyJ" * 2700) < 100 * fastest(b"a" * 128)


def test_a_request_with_a_problem_has_its_id_and_target() -> None:
    found = parse("GET /a HTTP/1.1", "X-Request-Id: of-alice")
    assert (found.problem, found.request_id, found.target) == (HOST_WANTED, "of-alice", "/a")
