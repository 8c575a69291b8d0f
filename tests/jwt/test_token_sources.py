"""The places of tokens in a request; the backend gets everything but the token, byte for byte."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.errors import Reason, Rejection
from sidecar.config import json_schema, parse
from sidecar.jwt.token_extractor import AUTHORIZATION, TokenSources
from sidecar.jwt.token_places import TokenCookie, TokenHeader, TokenParameter
from tests.peers.wire import WEBSOCKET, request
from tests.proxy.conftest import running

X_TOKEN = TokenHeader("X-Token")
SESSION = TokenCookie("session")
ACCESS_TOKEN = TokenParameter("access_token")
EVERYWHERE = TokenSources([AUTHORIZATION, X_TOKEN, SESSION, ACCESS_TOKEN])


def take(sources: TokenSources, target: str = "/", **headers: list[bytes]) -> bytes | None:
    """The token among these headers; their names have `_` for `-`."""
    return sources.take({name.replace("_", "-"): values for name, values in headers.items()}, target)


# Finding the token


@pytest.mark.parametrize(
    ("value", "token"),
    [
        pytest.param(b"Token a.b.c", b"a.b.c", id="prefix"),
        pytest.param(b"tOKEN   a.b.c", b"a.b.c", id="any case, several spaces"),
        pytest.param(b"a.b.c", None, id="without the prefix"),
        pytest.param(b"x Token a.b.c", None, id="prefix matched at the start only"),
        pytest.param(b"XToken a.b.c", None, id="prefix at the end of a word"),
        pytest.param(b"Tokens a.b.c", None, id="prefix at the start of a word"),
        pytest.param(b"Bearer a.b.c", None, id="prefix of another header"),
    ],
)
def test_a_prefix_is_matched_at_the_start_only(value: bytes, token: bytes | None) -> None:
    assert TokenHeader("X-Token", "Token").take([value]) == token
    assert take(TokenSources([TokenHeader("X-Token", "Token")]), x_token=[value]) == token


@pytest.mark.parametrize("value", [b"Token", b"Token ", b"Token a b", b"Token\ta", b"Token a\tb", b"Token, Token a"])
def test_a_prefix_without_exactly_one_token_is_refused(value: bytes) -> None:
    with pytest.raises(Rejection) as caught:
        TokenHeader("X-Token", "Token").take([value])
    assert caught.value.reason is Reason.TOKEN_MALFORMED
    assert caught.value.details == "The X-Token header must be the word Token, a space, one token."


def test_a_prefix_is_matched_literally() -> None:
    assert TokenHeader("X-Token", "a.c*").take([b"A.C* x"]) == b"x"
    assert TokenHeader("X-Token", "a.c*").take([b"abcc"]) is None


def test_a_header_without_prefix_is_the_token() -> None:
    assert take(TokenSources([X_TOKEN]), x_token=[b"Bearer a.b.c"]) == b"Bearer a.b.c"
    assert take(TokenSources([X_TOKEN]), x_token=[b""]) is None


@pytest.mark.parametrize(
    ("target", "headers", "token"),
    [
        pytest.param("/", {}, None, id="nowhere"),
        pytest.param("/", {"authorization": [b"Bearer a"]}, b"a", id="Authorization"),
        pytest.param("/", {"x_token": [b"a"]}, b"a", id="another header"),
        pytest.param("/", {"authorization": [b"Basic x"], "x_token": [b"a"]}, b"a", id="Basic beside another header"),
        pytest.param("/", {"cookie": [b"session=a"]}, b"a", id="cookie"),
        pytest.param("/", {"cookie": [b"x=y; session=a; z=session"]}, b"a", id="cookie among others"),
        pytest.param("/", {"cookie": [b"x=y;session = a ;z"]}, b"a", id="cookie with odd spaces"),
        pytest.param("/", {"cookie": [b"x=1", b"session=a"]}, b"a", id="cookie in a second header"),
        pytest.param("/", {"cookie": [b"Session=a; sessions=b; xsession=c"]}, None, id="cookies of other names"),
        pytest.param("/", {"cookie": [b"x=session=a"]}, None, id="cookie whose value looks like another cookie"),
        pytest.param("/", {"cookie": [b"session=a=b"]}, b"a=b", id="cookie with = in its value"),
        pytest.param("/", {"cookie": [b"session="]}, None, id="empty cookie"),
        pytest.param("/", {"cookie": [b"session"]}, None, id="cookie without ="),
        pytest.param("/?access_token=a", {}, b"a", id="query"),
        pytest.param("/?x=1&access_token=a&y", {}, b"a", id="query among others"),
        pytest.param("/?x=1;access_token=a;y", {}, b"a", id="query between semicolons"),
        pytest.param("/?access%5Ftoken=a", {}, b"a", id="query whose name is escaped"),
        pytest.param("/?access_token=%61", {}, b"%61", id="query whose value is escaped"),
        pytest.param("/?access_token=", {}, None, id="query: empty"),
        pytest.param("/?access_token", {}, None, id="query: without ="),
        pytest.param("/", {"authorization": [b"Bearer a", b"Bearer a"]}, b"a", id="the same Authorization twice"),
        pytest.param("/", {"authorization": [b"", b"Bearer a"]}, b"a", id="an empty Authorization first"),
        pytest.param("/", {"x_token": [b"", b""]}, None, id="two empty headers"),
        pytest.param("/", {"cookie": [b"session=a; session=a"]}, b"a", id="the same cookie twice"),
        pytest.param("/", {"cookie": [b"session=a; session="]}, b"a", id="an empty cookie beside the cookie"),
        pytest.param("/", {"cookie": [b"session=a", b"session=a"]}, b"a", id="the same cookie in two headers"),
        pytest.param("/?access_token=a&access_token=a", {}, b"a", id="the same parameter twice"),
        pytest.param("/?access_token=&access_token=a", {}, b"a", id="an empty parameter first"),
        pytest.param(
            "/", {"authorization": [b"Bearer a"], "cookie": [b"session="]}, b"a", id="an empty cookie beside a header"
        ),
        pytest.param(
            "/?access_token=a",
            {"authorization": [b"Bearer a"], "x_token": [b"a"], "cookie": [b"session=a"]},
            b"a",
            id="the same token in every place",
        ),
        pytest.param("/access_token=a", {}, None, id="in the path"),
        pytest.param("/?Access_Token=a&access_tokens=b&x=access_token=c", {}, None, id="parameters of other names"),
        pytest.param("/?access_token=\udcff", {}, b"\xff", id="query with a byte that is not UTF-8"),
        pytest.param("/?", {"cookie": [b""]}, None, id="empty query and cookie"),
    ],
)
def test_the_token_is_found_in_each_place(target: str, headers: dict[str, list[bytes]], token: bytes | None) -> None:
    assert take(EVERYWHERE, target, **headers) == token


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        pytest.param("/", {"authorization": [b"Bearer a", b"Bearer b"]}, id="duplicate Authorization"),
        pytest.param("/", {"authorization": [b"Basic x", b"Bearer b"]}, id="duplicate Authorization: another scheme"),
        pytest.param("/", {"x_token": [b"a", b"b"]}, id="duplicate header"),
        pytest.param("/", {"cookie": [b"session=a; session=b"]}, id="duplicate cookie"),
        pytest.param("/", {"cookie": [b"session=a", b"session=b"]}, id="duplicate cookie: in two headers"),
        pytest.param("/?access_token=a&access_token=b", {}, id="duplicate parameter"),
        pytest.param("/?access_token=a;access_token=b", {}, id="duplicate parameter: semicolon"),
        pytest.param("/?access_token=a&access%5ftoken=b", {}, id="duplicate parameter: escaped"),
        pytest.param("/", {"authorization": [b"Bearer a"], "x_token": [b"b"]}, id="two headers"),
        pytest.param("/", {"authorization": [b"Bearer a"], "cookie": [b"session=b"]}, id="header and cookie"),
        pytest.param("/?access_token=b", {"authorization": [b"Bearer a"]}, id="header and query"),
        pytest.param("/?access_token=b", {"cookie": [b"session=a"]}, id="cookie and query"),
    ],
)
def test_more_than_one_token_is_refused(target: str, headers: dict[str, list[bytes]]) -> None:
    with pytest.raises(Rejection) as caught:
        take(EVERYWHERE, target, **headers)
    assert caught.value.reason is Reason.TOKEN_AMBIGUOUS


def test_only_configured_places_are_read() -> None:
    everywhere: dict[str, Any] = {"x_token": [b"a"], "cookie": [b"session=a"], "target": "/?access_token=a"}
    assert take(TokenSources(), **everywhere) is None
    assert take(TokenSources([X_TOKEN, TokenCookie("other"), TokenParameter("other")]), **everywhere) == b"a"
    assert take(TokenSources([SESSION]), **everywhere) == b"a"
    assert take(TokenSources([ACCESS_TOKEN]), **everywhere) == b"a"


def test_every_configured_place_is_read() -> None:
    assert take(TokenSources([AUTHORIZATION, SESSION]), cookie=[b"session=a"]) == b"a"
    assert take(TokenSources([AUTHORIZATION, ACCESS_TOKEN]), "/?access_token=a") == b"a"
    assert take(TokenSources([AUTHORIZATION, X_TOKEN]), x_token=[b"a"]) == b"a"
    assert take(TokenSources([]), authorization=[b"Bearer a"]) is None


def test_separators_are_not_read_as_cookies_or_parameters() -> None:
    assert take(TokenSources([TokenCookie(";")]), cookie=[b"a; b"]) is None
    assert take(TokenSources([TokenParameter("&"), TokenParameter(";")]), "/?a&b;c") is None


def test_only_in_headers_is_true_for_places_in_headers_alone() -> None:
    assert TokenSources([AUTHORIZATION, X_TOKEN]).only_in_headers is True
    assert TokenSources([AUTHORIZATION, SESSION]).only_in_headers is False
    assert TokenSources([ACCESS_TOKEN]).only_in_headers is False


def test_a_place_has_the_name_and_role_of_its_header() -> None:
    assert [(place.name, place.role) for place in (X_TOKEN, SESSION, ACCESS_TOKEN)] == [
        ("X-Token", "x-token"),
        ("Cookie", "cookie"),
        ("", ""),
    ]
    assert X_TOKEN.without(b"a") == b""


# Forwarded values


@pytest.mark.parametrize(
    ("target", "cookies", "sent_target", "sent_cookies"),
    [
        pytest.param(b"/", [b"session=a"], b"/", [], id="only cookie"),
        pytest.param(b"/", [b"session=a; x=1; y"], b"/", [b"x=1; y"], id="first cookie"),
        pytest.param(b"/", [b"x=1; session=a;  y"], b"/", [b"x=1; y"], id="cookie between"),
        pytest.param(b"/", [b"x=1;y;\tsession=a"], b"/", [b"x=1;y"], id="last cookie"),
        pytest.param(b"/", [b"session=a; x=1; session=b"], b"/", [b"x=1"], id="cookie twice"),
        pytest.param(b"/", [b"session=a", b" x = 1 ;", b"session=b"], b"/", [b" x = 1 ;"], id="several headers"),
        pytest.param(b"/", [b'x="session=a"; Session=b'], b"/", [b'x="session=a"; Session=b'], id="other cookies"),
        pytest.param(b"/x?access_token=a", [], b"/x", [], id="only parameter"),
        pytest.param(b"/x?access_token=a&y=%2F+%zz", [], b"/x?y=%2F+%zz", [], id="first parameter"),
        pytest.param(b"/x?y&&access_token=a&z=1", [], b"/x?y&&z=1", [], id="parameter between"),
        pytest.param(b"/x?y=?;access_token=a", [], b"/x?y=?", [], id="last parameter"),
        pytest.param(b"/x?a;access_token=b&c", [], b"/x?a;c", [], id="parameter between different separators"),
        pytest.param(b"/x?access_token=a&y&access%5Ftoken=b", [], b"/x?y", [], id="parameter twice"),
        pytest.param(b"/x?", [], b"/x?", [], id="empty query"),
        pytest.param(b"/x?y=1&z=\xff\xc3\xa9", [], b"/x?y=1&z=\xff\xc3\xa9", [], id="other parameters"),
        pytest.param(b"/x?y=\xff&access_token=a", [], b"/x?y=\xff", [], id="bytes that are not UTF-8"),
    ],
)
def test_only_tokens_are_removed(
    target: bytes, cookies: list[bytes], sent_target: bytes, sent_cookies: list[bytes]
) -> None:
    special = {"cookie": cookies, "authorization": [b"Bearer a"], "x-token": [b"a"]}
    lines = b"".join(b"Cookie: %b\r\n" % cookie for cookie in sent_cookies)
    assert EVERYWHERE.sent_on(target, special, forward_token=False) == (sent_target, lines)


def test_forwarded_values_are_unchanged() -> None:
    cookies = [b"session=a; x=1", b"session=b"]
    special = {"authorization": [b"bEARER  a"], "x-token": [b"a", b"b"], "cookie": cookies}
    target, lines = EVERYWHERE.sent_on(b"/?access_token=a", special, forward_token=True)
    assert target == b"/?access_token=a"
    assert lines == b"Authorization: bEARER  a\r\nX-Token: a\r\nCookie: session=a; x=1\r\nCookie: session=b\r\n"


def test_no_client_value_is_forwarded_under_a_name_of_the_sidecar() -> None:
    sources = TokenSources([TokenHeader("X-JWT-Assertion"), SESSION])
    special = {"x-jwt-assertion": [b"a"], "cookie": [b"session=a"]}
    assert sources.take(special, "/") == b"a"
    assert sources.sent_on(b"/", special, forward_token=True) == (b"/", b"Cookie: session=a\r\n")


PAIRS = st.text("ab=%+ ", max_size=4).filter(lambda pair: not pair.strip().startswith("t="))


@given(st.lists(st.tuples(PAIRS, st.sampled_from("&;")), min_size=1, max_size=5), st.data())
def test_removing_a_token_restores_the_query_before_it(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    sources = TokenSources([TokenParameter("t")])
    query = "".join(pair + separator for pair, separator in pairs)[:-1]
    at = data.draw(st.integers(0, len(pairs)))
    before = "".join(pair + separator for pair, separator in pairs[:at])
    with_token = f"{before}t=a&{query[len(before) :]}" if at < len(pairs) else f"{query}&t=a"
    assert sources.take({}, f"/?{with_token}") == b"a"
    expected = f"/?{query}" if query else "/"
    assert sources.sent_on(f"/?{with_token}".encode(), {}, forward_token=False) == (expected.encode(), b"")


# Through the proxy

ELSEWHERE = [{"header": "Authorization"}, {"header": "X-Token"}, {"cookie": "session"}, {"query": "access_token"}]


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"target": "/?access_token=ALICE"}, id="token elsewhere: query"),
        pytest.param({"headers": [("Cookie", "access_token=ALICE; session=ALICE")]}, id="token elsewhere: cookie"),
        pytest.param(
            {
                "method": "POST",
                "headers": [("Content-Type", "application/x-www-form-urlencoded")],
                "body": b"access_token=ALICE",
            },
            id="token elsewhere: form",
        ),
        *(
            pytest.param({"headers": [(name, "Bearer ALICE")]}, id=f"token elsewhere: {name}")
            for name in (
                "Proxy-Authorization",
                "X-Forwarded-Authorization",
                "Authorization_",
                "Authorization-",
                "X-Token",
            )
        ),
    ],
)
async def test_a_token_in_an_unconfigured_place_does_not_count(elsewhere: dict[str, Any]) -> None:
    async with running() as stack:
        text = {"method": "GET", "target": "/", **elsewhere}
        raw = request(text.pop("method"), text.pop("target"), **text).replace(b"ALICE", stack.alice.encode())
        if "body" in elsewhere:
            raw = raw.replace(b"Content-Length: 18", b"Content-Length: %d" % (13 + len(stack.alice)))
        answer = await stack.fetch(raw)
        assert (answer.status, answer.json()["code"]) == (401, "token_missing")
        assert stack.backend.requests == []


async def test_a_token_in_an_unconfigured_query_is_forwarded_unchanged() -> None:
    async with running() as stack:
        bob = stack.token(sub="bob")
        assert (await stack.fetch(stack.good(target=f"/?access_token={bob}"))).status == 200
        received = await stack.backend.received()
        assert (received.get("x-jwt-sub"), received.target) == ("alice", f"/?access_token={bob}")


async def test_different_tokens_in_two_configured_places_are_refused() -> None:
    async with running(token_from=ELSEWHERE) as stack:
        bob = stack.token(sub="bob")
        for raw in (
            stack.good(target=f"/?access_token={bob}"),
            stack.good(headers=[("Cookie", f"session={bob}")]),
            stack.good(headers=[("X-Token", bob)]),
            request("GET", f"/?access_token={bob}", headers=[("Cookie", f"session={stack.alice}")]),
            request("GET", f"/?access_token={bob}&access_token={stack.alice}"),
            request("GET", "/", headers=[("X-Token", bob), ("X-Token", stack.alice)]),
            request("GET", "/", headers=[("Cookie", f"session={bob}; session={stack.alice}")]),
        ):
            answer = await stack.fetch(raw)
            assert (answer.status, answer.json()["code"]) == (400, "token_ambiguous")
            assert 'error="invalid_request"' in (answer.get("www-authenticate") or "")
        assert stack.backend.requests == []


@pytest.mark.parametrize("target", ["/x", "/public/x"])
@pytest.mark.parametrize("forward_token", [False, True])
async def test_forward_token_decides_for_every_place(target: str, forward_token: bool) -> None:
    routes = [{"path": "/public/*", "auth": "none"}]
    async with running(token_from=ELSEWHERE, forward_token=forward_token, routes=routes) as stack:
        token = stack.alice
        cookie = f"a=1; session={token}; b=%7E"
        query = f"{target}?a=%7e&access_token={token}&b=+"
        for raw in (
            request("GET", target, token=token),
            request("GET", target, headers=[("x-tOKEN", token)]),
            request("GET", target, headers=[("Cookie", cookie)]),
            request("GET", query),
        ):
            assert (await stack.fetch(raw)).status == 200
        first, second, third, fourth = stack.backend.requests
        if forward_token:
            assert (first.get("authorization"), second.get("x-token")) == (f"Bearer {token}", token)
            assert (third.get("cookie"), fourth.target) == (cookie, query)
        else:
            assert (third.get("cookie"), fourth.target) == ("a=1; b=%7E", f"{target}?a=%7e&b=+")
            assert [received for received in stack.backend.requests if token.encode() in received.head] == []


@pytest.mark.parametrize("forward_token", [False, True])
async def test_a_route_can_override_forward_token(forward_token: bool) -> None:
    routes = [{"path": "/other", "forward_token": forward_token}]
    async with running(forward_token=not forward_token, routes=routes) as stack:
        for target in ("/", "/other"):
            assert (await stack.fetch(stack.good(target=target))).status == 200
        credentials = [f"Bearer {stack.alice}", None] if not forward_token else [None, f"Bearer {stack.alice}"]
        assert [received.get("authorization") for received in stack.backend.requests] == credentials


async def test_basic_credentials_beside_a_token_header_go_to_the_backend() -> None:
    async with running(token_from=[{"header": "X-Token"}]) as stack:
        headers = [("Authorization", "Basic YTpi"), ("X-Token", stack.alice)]
        assert (await stack.fetch(request("GET", "/", headers=headers))).status == 200
        received = await stack.backend.received()
        assert (received.get("x-jwt-sub"), received.get("authorization")) == ("alice", "Basic YTpi")
        assert received.get("x-token") is None

        answer = await stack.fetch(stack.good())
        assert answer.json()["code"] == "token_missing"


async def test_basic_credentials_beside_a_token_are_ignored_if_both_headers_are_configured() -> None:
    async with running(token_from=ELSEWHERE) as stack:
        headers = [("Authorization", "Basic YTpi"), ("X-Token", stack.alice)]
        assert (await stack.fetch(request("GET", "/", headers=headers))).status == 200


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        pytest.param(request("GET", "/optional"), "anonymous", id="absent"),
        pytest.param(request("GET", "/optional?access_token=x"), "token_malformed", id="bad in the query"),
        pytest.param(request("GET", "/optional?access_token"), "anonymous", id="empty in the query"),
        pytest.param(
            request("GET", "/optional", headers=[("Cookie", "session=x")]), "token_malformed", id="bad cookie"
        ),
        pytest.param(request("GET", "/optional", headers=[("X-Token", "x")]), "token_malformed", id="bad header"),
    ],
)
async def test_an_optional_token_may_be_absent_but_not_bad(raw: bytes, outcome: str) -> None:
    async with running(token_from=ELSEWHERE, routes=[{"path": "/optional", "auth": "optional"}]) as stack:
        answer = await stack.fetch(raw)
        if outcome == "anonymous":
            assert (await stack.backend.received()).get("x-jwt-status") == outcome
        else:
            assert (answer.status, answer.json()["code"]) == (401, outcome)


@pytest.mark.parametrize("access_log", ["json", "ecs", "combined"])
async def test_a_token_in_the_query_is_not_in_the_access_log(
    access_log: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(token_from=ELSEWHERE, access_log=access_log) as stack:
        assert (await stack.fetch(request("GET", f"/seen?access_token={stack.alice}"))).status == 200
        assert (await stack.fetch(request("GET", f"/seen?access_token={stack.alice}x"))).status == 401
    written, errors = capfd.readouterr()
    assert written.count("/seen") == 2
    assert "access_token" not in written + errors
    assert stack.alice[-12:] not in written + errors


async def test_a_websocket_may_send_its_token_in_the_query() -> None:
    async with running(token_from=ELSEWHERE) as stack:
        async with stack.client() as client:
            await client.send(request("GET", f"/ws?access_token={stack.alice}", headers=WEBSOCKET))
            received = await stack.backend.received()
        assert (received.target, received.get("upgrade")) == ("/ws", "websocket")


# In the configuration


def sources(text: str, issuers: str = "{a: {issuer: 'https://a/', audiences: any}}") -> list[tuple[str | None, ...]]:
    config = parse(f"issuers: {issuers}\nupstream: http://127.0.0.1:9292\n{text}", environ={})
    return [(one.header, one.scheme, one.cookie, one.query) for one in config.token_sources]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [("Authorization", "Bearer", None, None)], id="default"),
        pytest.param(
            "token_from: [{header: authorization}, {header: X-Token}, {header: X-T, prefix: Token}]",
            [("authorization", "Bearer", None, None), ("X-Token", "", None, None), ("X-T", "Token", None, None)],
            id="prefix",
        ),
        pytest.param("token_from: [{header: X-T, prefix: 'Bearer '}]", [("X-T", "Bearer", None, None)], id="its space"),
        pytest.param(
            "token_from: [{header: Authorization, prefix: ''}]", [("Authorization", "", None, None)], id="bare token"
        ),
        pytest.param(
            "token_from: [{cookie: s}, {cookie: t}, {query: s}]",
            [(None, "", "s", None), (None, "", "t", None), (None, "", None, "s")],
            id="cookies and query",
        ),
        pytest.param(
            "token_from: [{header: X-Forwarded-Access-Token}]",
            [("X-Forwarded-Access-Token", "", None, None)],
            id="header of a front proxy",
        ),
    ],
)
def test_token_from_lists_the_places_of_tokens(text: str, expected: list[tuple[str | None, ...]]) -> None:
    assert sources(text) == expected


def test_a_preset_sets_the_places_of_tokens_unless_the_file_does() -> None:
    cloudflare = "c: {preset: cloudflare_access, issuer: 'https://c/', audiences: any}"
    other = "a: {issuer: 'https://a/', audiences: any}"
    own = [("Cf-Access-Jwt-Assertion", "", None, None), (None, "", "CF_Authorization", None)]
    authorization = ("Authorization", "Bearer", None, None)
    assert sources("", f"{{{cloudflare}}}") == own
    assert sources("", f"{{{cloudflare}, {other}}}") == [*own, authorization]
    assert sources("token_from: [{header: Authorization}]", f"{{{cloudflare}}}") == [authorization]


def test_the_schema_shows_the_default() -> None:
    assert json_schema()["properties"]["token_from"]["default"] == [{"header": "Authorization", "prefix": "Bearer"}]
