"""The rule for a request; a path that two programs could read differently is refused if their rules differ."""

import posixpath
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.common.errors import Reason, Rejection
from sidecar.policy.access_policy import Policy
from sidecar.policy.path_normalization import (
    FINAL_DOT,
    FINAL_SLASH,
    FORMAT,
    IGNORABLE,
    LETTER_CASE,
    MAX_READINGS,
    Ignored,
    readings,
)
from sidecar.policy.routes import REFUSED_METHODS, Auth, Route, Routes, host_name
from tests.peers.cpu import least_cpu_s

PUBLIC = Route("/public/*", auth=Auth.NONE)
ROBOTS = Route("/robots.txt", auth=Auth.NONE)
CLOSED = Route("/public/closed/*", auth=Auth.DENY)
ADMIN = Route("/admin/*", policy=Policy(scopes=["admin"]))
READ = Route("/items/*", methods=["GET", "HEAD"], auth=Auth.OPTIONAL)
ITEMS = Route("/items/*")
OTHERWISE = Route("/*", name="(default)")
ROUTES = Routes([CLOSED, PUBLIC, ROBOTS, ADMIN, READ, ITEMS], OTHERWISE)


def match(target: str, method: str = "GET") -> Route:
    return ROUTES.match(method, target)


def refusal(target: str, method: str = "GET") -> Reason:
    with pytest.raises(Rejection) as caught:
        match(target, method)
    return caught.value.reason


# Paths with one reading


@pytest.mark.parametrize(
    ("target", "route"),
    [
        pytest.param("/", OTHERWISE, id="the root"),
        pytest.param("/protected", OTHERWISE, id="no rule"),
        pytest.param("/public", PUBLIC, id="the prefix itself"),
        pytest.param("/public/", PUBLIC, id="the prefix with a slash"),
        pytest.param("/public/a/b", PUBLIC, id="below the prefix"),
        pytest.param("/public/closed", CLOSED, id="first match"),
        pytest.param("/public/closedx", PUBLIC, id="first match, segment by segment"),
        pytest.param("/publicx", OTHERWISE, id="path rules: /publicx"),
        pytest.param("/public-x", OTHERWISE, id="path rules: /public-x"),
        pytest.param("/PUBLIC/a", OTHERWISE, id="path rules: case"),
        pytest.param("/a/public/b", OTHERWISE, id="path rules: the prefix later"),
        pytest.param("/protected?/public/", OTHERWISE, id="path rules: query containing the prefix"),
        pytest.param("/protected?x=/../public/a", OTHERWISE, id="path rules: dots in the query"),
        pytest.param("/protected??/public", OTHERWISE, id="path rules: ?-tricks"),
        pytest.param("/public?/../admin", PUBLIC, id="path rules: a query that climbs"),
        pytest.param("/public/a?b#c%zz\\", PUBLIC, id="path rules: a query may hold anything"),
        pytest.param("/?", OTHERWISE, id="empty query"),
        pytest.param("/robots.txt", ROBOTS, id="exact"),
        pytest.param("/robots.txt/", OTHERWISE, id="exact: not below"),
        pytest.param("/robotsxtxt", OTHERWISE, id="exact: to the letter"),
        pytest.param("/public/...", PUBLIC, id="three dots"),
        pytest.param("/public/.hidden/..x/x..", PUBLIC, id="dots in names"),
        pytest.param("/public/a:b@c!$&'()*+,=~_-.", PUBLIC, id="every plain character"),
    ],
)
def test_a_plain_path_meets_the_first_rule_that_covers_it(target: str, route: Route) -> None:
    assert match(target) is route


@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", READ), ("HEAD", READ), ("POST", ITEMS), ("post", ITEMS), ("OPTIONS", ITEMS), ("FOO", ITEMS)],
)
def test_a_rule_for_some_methods_leaves_other_methods_to_later_rules(method: str, route: Route) -> None:
    assert match("/items/1", method) is route


def test_a_rule_for_get_includes_head() -> None:
    read, alone = Route("/x", methods=["GET"], auth=Auth.NONE), Route("/x", methods=["HEAD"])
    assert Routes([read, ITEMS], OTHERWISE).match("HEAD", "/x") is read
    assert Routes([alone, read], OTHERWISE).match("HEAD", "/x") is alone
    assert Routes([alone, read], OTHERWISE).match("GET", "/x") is read
    assert Routes([Route("/x", methods=["POST"])], OTHERWISE).match("HEAD", "/x") is OTHERWISE


def test_the_default_rule_covers_every_path() -> None:
    for path in ("/", "/a", "/a/b"):
        assert OTHERWISE.covers(path)


@pytest.mark.parametrize("method", ["get", "Get", "gET", "head"])
def test_a_method_that_meets_another_rule_in_upper_case_is_refused(method: str) -> None:
    assert refusal("/items/1", method) is Reason.METHOD_NOT_ALLOWED
    assert match("/admin", method) is ADMIN, "its rule names no methods"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "connect", "Trace"])
@pytest.mark.parametrize("target", ["/public/a", "/admin", "backend:80", "*"])
def test_connect_and_trace_are_refused_everywhere(method: str, target: str) -> None:
    with pytest.raises(Rejection) as caught:
        match(target, method)
    assert caught.value.reason is Reason.METHOD_NOT_ALLOWED
    assert caught.value.allow is not None
    assert REFUSED_METHODS.isdisjoint(caught.value.allow.split(", "))
    assert caught.value.allow == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


# Targets and paths with no reading


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("", id="request target: empty"),
        pytest.param("*", id="request target: *"),
        pytest.param("http://other.example/public/a", id="request target: absolute-form"),
        pytest.param("https://other.example/public/a", id="request target: absolute-form, https"),
        pytest.param("other.example:80", id="request target: authority-form"),
        pytest.param("public/a", id="request target: no slash"),
        pytest.param("?/public/a", id="request target: only a query"),
        pytest.param("\\public\\a", id="request target: a backslash first"),
        pytest.param("%2fpublic", id="request target: an encoded slash first"),
    ],
)
def test_a_target_that_is_not_a_path_is_refused(target: str) -> None:
    with pytest.raises(Rejection) as caught:
        match(target)
    assert caught.value.reason is Reason.REQUEST_MALFORMED
    assert caught.value.details == "The request target must be a path."


@pytest.mark.parametrize("prefix", ["/public", "/admin", ""])
@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("/a\\b", id="\\"),
        pytest.param("/a%00", id="%00"),
        pytest.param("/a%0d%0aX: y", id="%0d%0a"),
        pytest.param("/a%1f", id="%1f"),
        pytest.param("/a%7F", id="%7F"),
        pytest.param("/a#b", id="#"),
        pytest.param("/a#?b", id="#?"),
        pytest.param("/a%", id="%"),
        pytest.param("/a%2", id="%2"),
        pytest.param("/a%zz", id="%zz"),
        pytest.param("/a%u002e", id="%u002e"),
        pytest.param("/é", id="non-ASCII"),
        pytest.param("/\udce9", id="a byte >= 0x80"),
        pytest.param("/a b", id="space"),
        pytest.param("/a\tb", id="tab"),
        pytest.param("/a\nb", id="newline"),
        pytest.param("/a\n", id="newline at the end"),
        pytest.param("/a`b", id="backtick"),
        pytest.param("/..;/admin", id="..;"),
        pytest.param("/.;/admin", id=".;"),
        pytest.param("/..;a=1", id="..;a=1"),
        pytest.param("/%2e%2e;/admin", id="%2e%2e;"),
        pytest.param("/..%3b/admin", id="..%3b"),
        pytest.param("/%2e%2e%253b/admin", id="%2e%2e%253b"),
        pytest.param("/%2500", id="%2500"),
        pytest.param("/..%c0%afadmin", id="a slash that is too long in UTF-8"),
        pytest.param("/%C0%AE%c1%8e/admin", id="a dot that is too long in UTF-8"),
        pytest.param("/%e0%80%ae", id="a dot of three bytes"),
        pytest.param("/%f0%80%80%ae", id="a dot of four bytes"),
        pytest.param("/%25c0%25ae", id="%25c0%25ae"),
        pytest.param("/..%20/admin", id="dots and a space"),
        pytest.param("/.%20%20", id="a dot and spaces"),
        pytest.param("/%2e%2e%2520/admin", id="%2e%2e%2520"),
    ],
)
def test_an_unreadable_path_is_refused_under_every_rule(prefix: str, rest: str) -> None:
    assert refusal(prefix + rest) is Reason.PATH_AMBIGUOUS


# Paths with several readings


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/public/../admin", id=".."),
        pytest.param("/public/./../admin", id="/./"),
        pytest.param("/public/a/../../admin", id=".. twice"),
        pytest.param("/public/..", id=".. at the end"),
        pytest.param("/public/closed/../a", id=".. out of a closed path"),
        pytest.param("/public/a/../closed", id=".. into a closed path"),
        pytest.param("/public/%2e%2e/admin", id="%2e%2e"),
        pytest.param("/public/%2E./admin", id="%2E."),
        pytest.param("/public/%252e%252e/admin", id="%252e"),
        pytest.param("/public//../admin", id="// and .."),
        pytest.param("/public/a//../../admin", id="// before two .."),
        pytest.param("//public/a", id="// in front"),
        pytest.param("//x/admin/a", id="// and a host before the path"),
        pytest.param("//x/admin", id="// and a host, the prefix itself"),
        pytest.param("///x/admin", id="/// and a host before the path"),
        pytest.param("//x//y/admin", id="// and a host, twice"),
        pytest.param("/%2e//x/admin", id="// and a host after a dot"),
        pytest.param("/;//x/admin", id="// and a host after parameters"),
        pytest.param("/public//closed", id="// inside"),
        pytest.param("/public/./closed", id="/./ inside"),
        pytest.param("/./public", id="/./ in front"),
        pytest.param("/../public", id=".. above the root"),
        pytest.param("/%61dmin/a", id="a needless escape"),
        pytest.param("/%70ublic", id="a needless escape in the public prefix"),
        pytest.param("/public/clo%73ed", id="a needless escape inside a segment"),
        pytest.param("/public%3f/a", id="%3f"),
        pytest.param("/admin%3fx", id="%3f after the admin's path"),
        pytest.param("/admin%23x", id="%23"),
        pytest.param("/admin%253fx", id="%253f"),
        pytest.param("/admin;x", id=";"),
        pytest.param("/admin;x/public", id="; in a segment"),
        pytest.param("/public;x=1/a", id="; in the public prefix"),
        pytest.param("/public%2fa", id="%2f"),
        pytest.param("/public/..%2Fadmin", id="..%2F"),
        pytest.param("/public/..%5Cadmin", id="..%5C"),
        pytest.param("/public/..%252fadmin", id="..%252f"),
        pytest.param("/public/a%2F../closed", id="a%2F.."),
        pytest.param("/public/a%2Fb/%2e%2e/%2e%2e/x", id="dots that climb over an encoded slash, or over its parts"),
        pytest.param("/public/closed;x", id="; after a closed path"),
        pytest.param("/admin%3bx", id="%3b"),
        pytest.param("/public/;/../../admin", id="a segment of parameters and .."),
        pytest.param("/robots.txt;x", id="; after an exact path"),
        pytest.param("/admin/;x%3fy/..", id="everything at once"),
        pytest.param("/a;b/../admin%3fx", id="everything at once: parameters, dots, %3f"),
    ],
)
def test_a_path_whose_readings_meet_different_rules_is_refused(target: str) -> None:
    assert refusal(target) is Reason.PATH_AMBIGUOUS
    assert refusal(f"{target}?q") is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize(
    ("target", "route"),
    [
        pytest.param("/public/caf%C3%A9", PUBLIC, id="non-ASCII, encoded"),
        pytest.param("/public/caf%E9", PUBLIC, id="not UTF-8, encoded"),
        pytest.param("/public/a%20b", PUBLIC, id="space, encoded"),
        pytest.param("/public/100%25", PUBLIC, id="percent, encoded"),
        pytest.param("/public/%2541", PUBLIC, id="percent, encoded, before digits"),
        pytest.param("/public/a/../b", PUBLIC, id="dots inside one rule"),
        pytest.param("/public//b", PUBLIC, id="// inside one rule"),
        pytest.param("/public/a;v=1/b", PUBLIC, id="parameters inside one rule"),
        pytest.param("/public/a%3fb%23c", PUBLIC, id="encoded ? and # inside one rule"),
        pytest.param("/public/a%3bb", PUBLIC, id="encoded ; inside one rule"),
        pytest.param("/admin/a/./b", ADMIN, id="a dot inside one rule"),
        pytest.param("/public/group%2Fname", PUBLIC, id="%2F inside one rule"),
        pytest.param("/public/group%5cname", PUBLIC, id="%5c inside one rule"),
        pytest.param("/public/group%252Fname", PUBLIC, id="%252F inside one rule"),
        pytest.param("/x%2Fy", OTHERWISE, id="%2F where no rule is"),
        pytest.param('/public/[{^"<>|}]', PUBLIC, id="characters that should be encoded"),
        pytest.param("/x/../y", OTHERWISE, id="dots where no rule is"),
        pytest.param("//x/y", OTHERWISE, id="// and a host where no rule is"),
        pytest.param("//x", OTHERWISE, id="// and a host alone"),
    ],
)
def test_a_path_whose_readings_all_meet_one_rule_is_matched_by_it(target: str, route: Route) -> None:
    assert match(target) is route


def test_a_path_with_several_readings_is_accepted_without_rules() -> None:
    assert Routes([], OTHERWISE).match("GET", "/a/../b;x%3f//c") is OTHERWISE


def test_rules_for_other_methods_do_not_make_a_path_ambiguous() -> None:
    routes = Routes([Route("/a", methods=["POST"]), Route("/b", methods=["POST"])], OTHERWISE)
    assert routes.match("GET", "/a/../b") is OTHERWISE
    with pytest.raises(Rejection):
        routes.match("POST", "/a/../b")


def test_a_path_with_several_readings_has_at_most_2048_characters() -> None:
    assert match("/public/%61".ljust(2048, "x")) is PUBLIC
    assert refusal("/public/%61".ljust(2049, "x")) is Reason.PATH_AMBIGUOUS
    assert match("/public/a".ljust(2049, "x")) is PUBLIC


def test_the_number_of_readings_of_a_path_is_limited() -> None:
    assert match("/public/%" + "25" * (MAX_READINGS - 2) + "61") is PUBLIC
    assert refusal("/public/%" + "25" * (MAX_READINGS - 1) + "61") is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize(
    ("path", "resolved"),
    [("/a/.", "/a/"), ("/a/b/..", "/a/"), ("/a/..", "/"), ("/./a", "/a"), ("/a/../b", "/b"), ("/.", "/")],
)
def test_dot_segments_are_resolved_as_in_rfc_3986(path: str, resolved: str) -> None:
    assert readings(path) == {path, resolved}


def test_dot_segments_above_the_root_are_dropped_or_kept() -> None:
    assert readings("/a/../../b") == {"/a/../../b", "/b", "/../b"}
    assert readings("/..") == {"/..", "/../", "/"}


def test_a_path_after_leading_slashes_may_be_read_as_a_host() -> None:
    assert readings("//x/y") == {"//x/y", "/x/y", "/y"}
    assert readings("///x//y") == {"///x//y", "/x/y", "/x//y", "//y", "/y", "/"}


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        pytest.param("/a%41/%2e/b", "/a%41/b", id="a browser's URL parser"),
        pytest.param("/a%41%2f%5C%2e", "/a%41/\\.", id="Rack::Protection"),
        pytest.param("//a//b", "/a//b", id="Python's http.server"),
        pytest.param("//a//b/../c/", "//a/c", id="POSIX"),
        pytest.param("/a;b;c/d;e", "/a;b/d", id="Jetty"),
        pytest.param("/[|<", "/%5B%7C%3C", id="raw characters: all"),
        pytest.param("/[|<", "/[%7C%3C", id="raw characters: without brackets"),
        pytest.param("/[|<", "/[|%3C", id="raw characters: HTML's"),
    ],
)
def test_a_path_has_the_readings_of_real_programs(path: str, reading: str) -> None:
    assert reading in readings(path)


def test_a_path_with_many_layers_of_escapes_is_refused_at_once() -> None:
    assert refusal("/public/%" + "25" * 2000 + "2e") is Reason.PATH_AMBIGUOUS


def test_a_rule_may_depend_on_the_spelling_of_a_character() -> None:
    routes = Routes([Route("", regex="/a%5B.*", auth=Auth.NONE)], OTHERWISE)
    with pytest.raises(Rejection):
        routes.match("GET", "/a[")


@pytest.mark.parametrize(
    "refusing", [Route("/files/*", encoded_slashes=False), Route("/files/*", strip_prefix="/files")]
)
@pytest.mark.parametrize("slash", ["%2F", "%2f", "%5c", "%252f", "%25255C"])
def test_encoded_slashes_are_refused_by_reject_and_by_a_stripped_prefix(refusing: Route, slash: str) -> None:
    routes = Routes([refusing], OTHERWISE)
    assert routes.match("GET", "/files/a%20b;c") is refusing
    assert routes.match("GET", f"/other/a{slash}b") is OTHERWISE
    with pytest.raises(Rejection) as caught:
        routes.match("GET", f"/files/a{slash}b")
    assert caught.value.details == "The path has an encoded slash or backslash, and its rule refuses both."


CASES = Routes(
    [ROBOTS, PUBLIC, ADMIN, ITEMS, Route("/files/*/x", auth=Auth.DENY), Route("", regex="/r/[a-z]+", auth=Auth.DENY)],
    Route("/*", auth=Auth.OPTIONAL),
)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/Admin", id="letter case"),
        pytest.param("/ADMIN/x", id="letter case, below"),
        pytest.param("/FILES/a/X", id="letter case, a pattern"),
        pytest.param("/R/ABC", id="letter case, a regular expression"),
        pytest.param("/files/a/x/", id="a slash at the end"),
        pytest.param("/files/a/x//", id="slashes at the end"),
        pytest.param("/r/abc/", id="a slash at the end, a regular expression"),
        pytest.param("/admin.", id="a dot at the end"),
        pytest.param("/admin./x", id="a dot at the end of a segment"),
        pytest.param("/admin%20", id="a space at the end"),
        pytest.param("/admin.json", id="a format"),
        pytest.param("/admin.tar.gz", id="two formats"),
        pytest.param("/r/abc.html", id="a format, a regular expression"),
        pytest.param("/adm%C4%B1n", id="letter case, of other alphabets"),
        pytest.param("/Admin.json/", id="all of them"),
        pytest.param("/Admin.Json%2e", id="all of them, encoded"),
    ],
)
def test_a_path_that_equals_a_closed_rule_but_for_ignored_parts_is_refused(path: str) -> None:
    with pytest.raises(Rejection) as caught:
        CASES.match("GET", path)
    assert caught.value.reason is Reason.PATH_AMBIGUOUS
    if "%" not in path and "//" not in path:
        assert caught.value.details == (
            "Another rule covers this path but for a difference that many programs ignore: the case of letters, a slash or "
            "dot at the end, or a format such as .json."
        )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        pytest.param("/PUBLIC/x", None, id="another reading is public"),
        pytest.param("/Robots.TXT", None, id="another reading is public by an exact path"),
        pytest.param("/robots.txt", ROBOTS, id="the format belongs to the rule's path"),
        pytest.param("/robots", None, id="the rule's path has a format, the request's has none"),
        pytest.param("/public/Admin.json", PUBLIC, id="both readings are below the same public rule"),
        pytest.param("/admin/A.json/", ADMIN, id="both readings are below the same admin rule"),
        pytest.param("/admin/...", ADMIN, id="a segment of dots only"),
        pytest.param("/.admin", None, id="a segment with a leading dot"),
        pytest.param("/x.json", None, id="no rule matches another reading"),
        pytest.param("/", None, id="the root"),
    ],
)
def test_a_path_unlike_every_closed_rule_meets_its_own_rule(path: str, route: Route | None) -> None:
    assert CASES.match("GET", path) is (route or CASES._otherwise)


def test_a_rule_with_the_exact_path_decides() -> None:
    named = [Route(path, auth=Auth.NONE) for path in ("/Admin", "/admin/", "/admin.json", "/admin.")]
    for rules in ([*named, ADMIN], [Route("/admin", auth=Auth.DENY), *named]):
        routes = Routes(rules, OTHERWISE)
        assert [routes.match("GET", route.path) for route in named] == named


def test_a_rule_with_ignored_parts_also_protects_the_path_without_them() -> None:
    for rule in ("/Admin", "/Admin/*", "/admin/", "/ADMIN*"):
        routes = Routes([Route(rule, auth=Auth.DENY), Route("/*", auth=Auth.NONE)], OTHERWISE)
        with pytest.raises(Rejection):
            routes.match("GET", "/admin")
    regex = Routes([Route("", regex="/A.*", auth=Auth.DENY), Route("/*", auth=Auth.NONE)], OTHERWISE)
    with pytest.raises(Rejection):
        regex.match("GET", "/admin")


def test_only_rules_before_the_matching_one_are_compared_for_ignored_parts() -> None:
    routes = Routes([Route("/*", methods=["GET"]), Route("/admin", auth=Auth.DENY)], OTHERWISE)
    assert routes.match("GET", "/Admin").path == ""
    assert routes.alike("GET", "/admin", b"", routes.rules[1]) == {}
    assert routes.alike("POST", "/Admin", b"", OTHERWISE) == {"/admin": routes.rules[1]}
    assert routes.meanings("GET", "/a/../b") == {"/a/../b": routes.rules[0], "/b": routes.rules[0]}
    assert Routes([Route("/x", hosts=["xx"])], OTHERWISE).meanings("GET", "/x") == {"/x": OTHERWISE}


@pytest.mark.parametrize(
    ("rule", "bare"),
    [
        (Route("/*"), True), (Route("/"), True), (Route("/a.b/*"), True), (Route("/a*/b"), True), (Route("/A"), False),
        (Route("/a/"), False), (Route("/a."), False), (Route("", regex="/a[b-c]+"), True), (Route("", regex="/A"), False),
    ],
)  # fmt: skip
def test_rules_without_ignorable_parts_allow_a_shortcut(rule: Route, bare: bool) -> None:
    assert rule.is_bare is bare
    assert Routes([PUBLIC, rule, ADMIN], OTHERWISE)._bare is bare
    opened = Route(rule.path or "/A", auth=Auth.NONE)
    assert Routes([opened], OTHERWISE)._bare is True


def test_a_plain_path_with_a_stripped_prefix_is_matched_as_sent() -> None:
    stripped = Route("/api/*", strip_prefix="/api")
    rules = [Route("/api/", auth=Auth.NONE), stripped, Route("/Z")]
    assert Routes(rules, OTHERWISE).match("GET", "/api") is stripped
    assert Routes(rules, OTHERWISE).all == (*rules, OTHERWISE)


@pytest.mark.parametrize(
    "long", ["/a" + ".a" * 4000 + "/x.y", "/" + "." * 8000 + "/x", "/a" + "." * 8000, "/A" * 4000 + ".b"]
)
def test_ignored_parts_of_a_long_path_are_found_in_linear_time(long: str) -> None:
    def fastest(path: str) -> float:
        return least_cpu_s(lambda: ROUTES.match("GET", path), number=3, repeat=5)

    assert fastest(long) < 20 * fastest("/" + "a" * 8000 + ".b")


def test_a_regular_expression_covers_every_path_over_2048_characters() -> None:
    rule = Route("", regex="/x")
    assert rule.covers("/".ljust(2048, "a")) is False
    assert rule.covers("/".ljust(2049, "a")) is True


def test_rules_for_other_methods_or_hosts_or_in_report_mode_cause_no_ambiguity() -> None:
    for other in (
        Route("/admin", auth=Auth.DENY, methods=["POST"]),
        Route("/admin", auth=Auth.DENY, hosts=["x"]),
        Route("/admin", auth=Auth.DENY, report=True),
    ):
        assert Routes([other], OTHERWISE).match("GET", "/Admin") is OTHERWISE


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        (LETTER_CASE, ["/Admin", "/aDMIN"]), (FINAL_SLASH, ["/admin/"]), (FINAL_DOT, ["/admin.", "/admin.."]),
        (FORMAT, ["/admin.json"]),
    ],
)  # fmt: skip
def test_each_ignored_difference_can_be_disabled(name: str, paths: list[str]) -> None:
    closed = [Route("/admin", auth=Auth.DENY)]
    exact = Routes(closed, OTHERWISE, Ignored(*(other for other in IGNORABLE if other not in (name, FORMAT))))
    alone = Routes(closed, OTHERWISE, Ignored(name))
    for path in paths:
        assert exact.match("GET", path) is OTHERWISE
        with pytest.raises(Rejection):
            alone.match("GET", path)


def test_ignored_parts_are_checked_after_a_stripped_prefix() -> None:
    routes = Routes([Route("/api/open/*", strip_prefix="/api"), Route("/api/admin", auth=Auth.DENY)], OTHERWISE)
    for path in ("/api/open/../Admin", "/api/open/../../admin.json"):
        with pytest.raises(Rejection):
            routes.match("GET", path)


STRIPPED = Route("/api/public/*", strip_prefix="/api", auth=Auth.NONE)
BEHIND = Routes([STRIPPED, Route("/api/*", auth=Auth.DENY)], OTHERWISE)


@pytest.mark.parametrize(
    "path",
    [
        "/api/public/../../api/public/secret", "/api/public/%2e%2e/%2e%2e/api/public/x", "/api/public/../../../api/public/x",
        "/api/public//../../../api/public/x", "/api/public/a;/../../../api/public/x", "/api/public/..//../api/public",
        "/api/public/a/../../../api/public", "/api/public/%252e%252e/../api/public/x",
    ],
)  # fmt: skip
def test_dot_segments_that_leave_a_rule_after_its_stripped_prefix_are_refused(path: str) -> None:
    """The backend reads the first one as /api/public/secret, which this rule does not cover in plain form."""
    with pytest.raises(Rejection) as caught:
        BEHIND.match("GET", path)
    assert caught.value.reason is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize(
    "path", ["/api/public", "/api/public/x", "/api/public/a/../b", "/api/public/a//b", "/api/public/a%20b;c"]
)
def test_dot_segments_within_a_rule_pass_after_its_stripped_prefix(path: str) -> None:
    assert BEHIND.match("GET", path) is STRIPPED


def test_a_stripped_prefix_ends_at_a_segment() -> None:
    route = Route("", regex="/.*", strip_prefix="/api")
    assert [route.sent(path) for path in ("/api", "/api?x", "/api/", "/api/x?y")] == ["/", "/?x", "/", "/x?y"]
    for path in ("/apix", "/API/x", "/%61pi/x", "/api//x", "/x"):
        with pytest.raises(Rejection) as caught:
            route.sent(path)
        assert caught.value.reason is Reason.PATH_AMBIGUOUS
    assert Route("/x").sent("//x") == "//x"


@pytest.mark.parametrize(
    ("path", "details"),
    [
        ("/a`b", "The path has '`' as it is, which programs read in different ways; percent-encode it."),
        ("/a\\b", "The path has '\\\\' as it is, which programs read in different ways; percent-encode it."),
        ("/a%zz", "The path has a % that begins no escape; write %25 for a %."),
        (
            "/é",
            "The path has a character outside visible ASCII, which programs read in different ways; percent-encode it.",
        ),
    ],
)
def test_an_unreadable_character_is_named(path: str, details: str) -> None:
    with pytest.raises(Rejection) as caught:
        match(path)
    assert caught.value.details == details


# The changes that programs make to a path, one at a time, in any order and number. This is a second implementation on purpose.


def dots_resolved(path: str, *, above: bool = False) -> str:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = [*kept, ".."] if above and set(kept) <= {".."} else kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if path.endswith(("/.", "/..")) and kept else "")


PROGRAMS: Sequence[Callable[[str], str]] = (
    unquote,
    dots_resolved,
    lambda path: re.sub("/+", "/", path),
    lambda path: path.replace("\\", "/"),
    lambda path: unquote(re.sub("(?i)%(2f|5c)", r"%25\1", path)),
    lambda path: re.sub(r'[\[\]{}^"<>|]', lambda raw: f"%{ord(raw[0]):02X}", path),
    lambda path: path.split("?")[0],
    lambda path: path.split("#")[0],
    lambda path: path.split("\0")[0],
    lambda path: re.sub(";[^/]*", "", path),
    lambda path: re.sub(r"(?i)%(?:2e|2f|5c)", lambda escape: unquote(escape[0]), path),
    lambda path: re.sub("/(?:%2[Ee]|[.]){1,2}(?![^/])", lambda dots: unquote(dots[0]), path),
    lambda path: re.sub(";[^;/]*(?![^/])", "", path),
    lambda path: "/" + path.lstrip("/"),
    lambda path: posixpath.normpath(path) if re.match("//[^/]", path + "x") else path,
    lambda path: "/" + path[2:].partition("/")[2] if path.startswith("//") else path,
    lambda path: "/" + path.lstrip("/").partition("/")[2] if path.startswith("//") else path,
)


def every_reading(path: str) -> set[str]:
    found, waiting = set[str](), [path]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [program(one) for program in PROGRAMS]
    return found


PIECES = (
    *(
        "/",
        "//",
        "public",
        "closed",
        "admin",
        "robots.txt",
        "a",
        ".",
        "..",
        "...",
        "%2e",
        "%2E%2e",
        "%252e",
        "%2f",
        "%5c",
    ),
    *(
        "\\",
        ";",
        "..;",
        ";a=1",
        "%3b",
        "%253b",
        "%3f",
        "%23",
        "#",
        "%",
        "%00",
        "%61dmin",
        "%25",
        "%2561",
        "%C3%A9",
        "x",
    ),
)
PATHS = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces))


def readings_by_every_program(path: str) -> set[str] | None:
    """The readings of a path when each program reads every reading again; None for an unreadable path."""
    readable = r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/;\[\]{}^\"<>|]|%[0-9A-Fa-f]{2})*"
    if len(path) > 2048 or re.fullmatch(readable, path) is None:
        return None
    programs: list[Callable[[str], str]] = [
        lambda path: unquote(path, errors="surrogateescape"),
        lambda path: unquote(re.sub("(?i)%(2f|5c)", r"%25\1", path), errors="surrogateescape"),
        lambda path: path.replace("\\", "/"),
        lambda path: re.split("[?#]", path)[0],
        lambda path: re.sub(r"(?i)%(?:2e|2f|5c)", lambda escape: unquote(escape[0]), path),
        lambda path: re.sub("/(?:%2[Ee]|[.]){1,2}(?![^/])", lambda dots: unquote(dots[0]), path),
        lambda path: re.sub(";[^;/]*(?![^/])", "", path),
        lambda path: "/" + path.lstrip("/"),
        lambda path: posixpath.normpath(path) if re.match("//[^/]", path + "x") else path,
        lambda path: dots_resolved(path, above=True),
        lambda path: re.sub("^//[^/]*", "", path) or "/",
        lambda path: re.sub("^//+[^/]*", "", path) or "/",
        lambda path: re.sub("/{2,}", "/", path),
        lambda path: dots_resolved(path),
    ]
    raw = [
        "".join(f"%{ord(one):02X}" if one in encoded else one for one in path)
        for encoded in ('[]{}^"<>|', '{}^"<>|', '{}"<>')
    ]
    found, unread, read = set[str](), {path, *raw}, 0
    while unread:
        reading = unread.pop()
        found.add(reading)
        read += len(reading)
        if (
            re.search(r"(?i)%(?:[01][0-9a-f]|7f|c[01]%[89ab]|e0%[89]|f0%8)|/\.{1,2}(;| +(/|$))", reading)
            or len(found) > 64
            or read > 8 * 2048
        ):
            return None
        unread |= {program(reading) for program in programs} - found
    return found


@given(st.one_of(PATHS, st.tuples(PATHS, st.integers(1, 400)).map(lambda made: made[0] * made[1])))
@example("/" * 2000)
@example("/;" * 1000)
@example("//a" * 600)
@example("/.a;/.b//..")
@example("///public/")
def test_the_readings_equal_those_of_all_programs_in_any_order(path: str) -> None:
    try:
        found = readings(path)
    except Rejection:
        found = None
    assert found == readings_by_every_program(path)


def test_a_path_of_slashes_is_read_in_linear_time() -> None:
    def fastest(path: str) -> float:
        def ask() -> None:
            with suppress(Rejection):
                match(path)

        return least_cpu_s(ask, number=20, repeat=20)

    assert fastest("/" * 2000) < 6 * fastest("/%61a" * 400)


@given(PATHS)
@example("/a;x/..%3f/admin")
@example("/admin%3bx%3f/../../public")
@example("/public;/a%3b/..%253b/../admin")
@example("/a/..//x/admin")
@example("/;///x/admin")
def test_no_reading_of_an_accepted_path_meets_another_rule(path: str) -> None:
    try:
        served = match(path)
    except Rejection:
        return
    for reading in every_reading(path):
        assert match_plain(reading) is served, reading


@given(PATHS, st.sampled_from(["/public", "/a", "/public/closed", "/admin"]))
@example("/public/../../public/closed", "/public")
@example("/public/x/../../../public", "/public")
def test_no_reading_of_a_path_after_its_stripped_prefix_meets_another_rule(path: str, prefix: str) -> None:
    """Each reading of the backend's path is also accepted as a plain request."""
    stripped = Route("/public/*", auth=Auth.NONE, strip_prefix=prefix) if prefix.startswith("/public") else Route(
        f"{prefix}/*", strip_prefix=prefix
    )  # fmt: skip
    rules = [CLOSED, stripped, ROBOTS, ADMIN]
    routes = Routes(rules, OTHERWISE)
    try:
        served = routes.match("GET", path)
        sent = served.sent(path)
    except Rejection:
        return
    for reading in every_reading(sent):
        plain = served.strip_prefix + reading
        assert next((route for route in rules if route.covers(plain)), OTHERWISE) is served, reading


def match_plain(path: str) -> Route:
    """The first rule that covers the path without normalization."""
    return next((route for route in (CLOSED, PUBLIC, ROBOTS, ADMIN, READ) if route.covers(path)), OTHERWISE)


RULE_PATHS = st.sampled_from(["/", "/*", "/a", "/a/*", "/a/b", "/a/b/*", "/a/b/c/*", "/*/b", "/a*", "/a/", "/*b/*"])
RULES = st.lists(
    st.one_of(
        RULE_PATHS.map(Route),
        st.builds(Route, RULE_PATHS, methods=st.sampled_from([["GET"], ["POST"]])),
        st.builds(Route, RULE_PATHS, hosts=st.sampled_from([["x"], ["*.x"]])),
        st.builds(Route, st.just(""), regex=st.sampled_from(["/a/.*", "/[ab]+"])),
    ),
    max_size=8,
)


@given(
    RULES,
    st.sampled_from(["/", "/a", "/b", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/c/b", "/ab", "//", "/a//b", "/x/a/b/c"]),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from([b"x", b"y.x", b"z"]),
)
def test_the_index_of_rules_finds_the_first_matching_rule(
    rules: list[Route], path: str, method: str, host: bytes
) -> None:
    fitting = (
        route
        for route in rules
        if route.covers(path) and (route.methods is None or method in route.methods) and route.serves(host_name(host))
    )
    assert Routes(rules, OTHERWISE)._first(method, path, host) is next(fitting, OTHERWISE)


def test_matching_takes_as_long_for_2000_rules_as_for_10() -> None:
    def fastest(number: int, path: str) -> float:
        rules = [Route(f"/api/{one}{below}") for one in range(number // 2) for below in ("", "/x/*")]
        routes = Routes(rules, OTHERWISE)
        return least_cpu_s(lambda: routes.match("GET", path), number=200, repeat=20)

    for path in ("/api/4", "/api/4/x/y", "/api/none/at/all"):
        assert fastest(2000, path) < 3 * fastest(10, path)
    assert Routes([Route(f"/{one}") for one in range(9)], OTHERWISE).match("GET", "/8").path == "/8"


def test_the_text_of_a_route_is_its_path_and_auth() -> None:
    assert repr(PUBLIC) == "<Route /public/* none>"
    assert OTHERWISE.name == "(default)"


def test_every_word_of_auth_is_known() -> None:
    assert [Auth(word) for word in ("required", "optional", "api_key", "none", "deny")] == list(Auth)


def test_a_route_has_defaults_for_everything_but_its_path() -> None:
    plain = Route("/x")
    assert (plain.auth, plain.policy.checks, plain.methods, plain.upstream) == (Auth.REQUIRED, (), None, "default")
    assert (plain.preflight, plain.preserve_host, plain.report, plain.forward_token) == (True, True, False, False)
    assert (plain.strip_prefix, plain.max_body, plain.upgrades) == ("", None, frozenset({b"websocket"}))
    told = Route("/x", report=True, forward_token=True, preflight=False, preserve_host=False, upgrades=["a"])
    assert (told.preflight, told.preserve_host, told.report, told.forward_token) == (False, False, True, True)
    assert told.upgrades == {b"a"}


def test_a_host_name_is_normalized_without_its_port() -> None:
    names = {
        b"A.test:80": "a.test",
        b"a:": "a",
        b"[::1]:8": "[::1]",
        b"\xff": "\ufffd",
        b"a.test.": "a.test",
        b"a.:80": "a",
    }
    assert {host: host_name(host) for host in names} == names
    named = Route("/x", hosts=["xx"])
    assert Routes([named], OTHERWISE).match("GET", "/x") is OTHERWISE
    assert Routes([named], OTHERWISE).match("GET", "/x", b"XX:1") is named


@pytest.mark.parametrize("path", ["/" * 2000, "//a" * 600, "/;" * 1000, "//" * 10 + "a" * 1900])
def test_a_long_path_with_many_readings_is_refused(path: str) -> None:
    with pytest.raises(Rejection) as caught:
        readings(path)
    assert caught.value.reason is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize("path", ["//" * 10 + "a" * 190, "/a;b" * 500, "//" + "a" * 2000, "/a%20b" * 300])
def test_a_short_path_or_one_with_few_readings_is_read(path: str) -> None:
    assert path in readings(path)


@pytest.mark.parametrize(
    "rule",
    [
        Route("/objects/*-*-*-*-*/*-*-*-*-*.x"),
        Route("/objects/*a*a*a*a*b*/*"),
        Route("", regex="/objects/(-|--|-a?)*(-*)*x"),
        Route("", regex="/objects/.*-.*-.*-.*-.*-.*x"),
        Route("", regex="/(?:.?){300}x"),
    ],
)
def test_no_pattern_backtracks(rule: Route) -> None:
    """A pattern that backtracks takes exponential time here."""
    for path in ("/objects/" + "-" * 2000, "/objects/" + "-" * 1000 + "/" + "-" * 1000, "/objects/" + "a-" * 1000):
        assert rule.covers(path) is False


def test_a_pattern_with_many_stars_takes_linear_time() -> None:
    def fastest(pattern: str) -> float:
        route = Route(pattern)
        return least_cpu_s(lambda: route.covers("/objects/" + "-" * 2000), number=10, repeat=20)

    assert fastest("/objects/*-*-*-*-*x") < 10 * fastest("/objects/*x")


@pytest.mark.parametrize(
    ("regex", "path", "fits"),
    [
        ("/a/[0-9]+", "/a/12", True),
        ("/a/[0-9]+", "/a/12/b", False),
        ("/a/[0-9]+", "/b/a/12", False),
        ("/a|/b", "/b", True),
        ("/a|/b", "/bx", False),
        ("/a/.", "/a/\udce9", True),
        ("/a/.", "/a/é", True),
        ("/a/..", "/a/é", False),
        (r"/a/\d", "/a/٣", False),
    ],
)
def test_a_regular_expression_matches_the_whole_path(regex: str, path: str, fits: bool) -> None:
    assert Route("", regex=regex).covers(path) is fits


def test_stars_match_any_part_of_their_segment() -> None:
    """The pattern is compared with its plain regular expression, which tries everything."""
    asked = ["/" + "".join(some) for length in range(5) for some in product("ab/", repeat=length)]
    for path in ("/" + "".join(some) for length in range(6) for some in product("ab*/", repeat=length)):
        below = "(?:/.*)?" if path.endswith("/*") else ""
        plain = re.compile("[^/]*".join(map(re.escape, path.removesuffix("/*").split("*"))) + below)
        route = Route(path)
        assert [one for one in asked if route.covers(one)] == [one for one in asked if plain.fullmatch(one)], path
