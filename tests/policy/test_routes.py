"""The rule for a request, by its path, method and host."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.errors import Reason, Rejection
from sidecar.policy.routes import REFUSED_METHODS, Auth, Route, Routes, host_name
from tests.peers.cpu import least_cpu_s
from tests.policy.example_routes import ADMIN, CLOSED, ITEMS, OTHERWISE, PUBLIC, READ, ROBOTS, match, refusal


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


def test_a_regular_expression_covers_every_path_over_2048_characters() -> None:
    rule = Route("", regex="/x")
    assert rule.covers("/".ljust(2048, "a")) is False
    assert rule.covers("/".ljust(2049, "a")) is True


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
