"""Differences that many backends ignore (`backend_ignores`): a closed rule protects the paths that differ only in them, too."""

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.policy.path_normalization import (
    FINAL_DOT,
    FINAL_SLASH,
    FORMAT,
    IGNORABLE,
    LETTER_CASE,
    Ignored,
)
from sidecar.policy.routes import Auth, Route, Routes
from tests.peers.cpu import least_cpu_s
from tests.policy.example_routes import ADMIN, ITEMS, OTHERWISE, PUBLIC, ROBOTS, ROUTES

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
