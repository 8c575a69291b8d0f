"""A path that two programs could read differently is refused if their rules differ."""

from contextlib import suppress

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.policy.path_normalization import (
    MAX_READINGS,
)
from sidecar.policy.routes import Auth, Route, Routes
from tests.peers.cpu import least_cpu_s
from tests.policy.example_routes import ADMIN, OTHERWISE, PUBLIC, match, refusal


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


def test_a_path_with_many_layers_of_escapes_is_refused_at_once() -> None:
    assert refusal("/public/%" + "25" * 2000 + "2e") is Reason.PATH_AMBIGUOUS


def test_a_path_of_slashes_is_read_in_linear_time() -> None:
    def fastest(path: str) -> float:
        def ask() -> None:
            with suppress(Rejection):
                match(path)

        return least_cpu_s(ask, number=20, repeat=20)

    assert fastest("/" * 2000) < 6 * fastest("/%61a" * 400)


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
