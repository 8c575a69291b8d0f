"""Tokens as browsers bring them: cookies whose names have a part that varies, cookies in pieces, and subprotocols."""

import asyncio
import json
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import quote

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.token_extractor import AUTHORIZATION, TokenSources
from sidecar.jwt.token_places import Place, TokenCookie, TokenHeader, TokenParameter, TokenSubprotocol
from tests.peers.backend import RawBackend, Request, send
from tests.peers.wire import WEBSOCKET, request
from tests.proxy.conftest import running

AMPLIFY = TokenCookie("CognitoIdentityServiceProvider.4abc.*.idToken")
IN_PIECES = TokenCookie("session", in_pieces=True)
JSON = TokenCookie("sb-abc-auth-token", in_pieces=True, json_member="access_token")


def refusal(cookie: TokenCookie, *values: bytes) -> tuple[Reason, str]:
    """The reason and the details of the refusal of these cookies."""
    with pytest.raises(Rejection) as caught:
        cookie.take(list(values))
    return caught.value.reason, caught.value.details


# Names


@pytest.mark.parametrize(
    ("cookie", "token"),
    [
        pytest.param(b"CognitoIdentityServiceProvider.4abc.alice.idToken=a.b.c", b"a.b.c", id="a user's cookie"),
        pytest.param(
            b"CognitoIdentityServiceProvider.4abc.a.b%40c.idToken=a", b"a", id="a user's name with dots and escapes"
        ),
        pytest.param(b"CognitoIdentityServiceProvider.4abc.alice.accessToken=a", None, id="another token of the user"),
        pytest.param(
            b"CognitoIdentityServiceProvider.9xyz.alice.idToken=a", None, id="the cookie of another application"
        ),
        pytest.param(b"xCognitoIdentityServiceProvider.4abc.alice.idToken=a", None, id="within another name"),
        pytest.param(b"CognitoIdentityServiceProvider.4abc.idToken=a", None, id="the varying part is empty"),
        pytest.param(b"CognitoIdentityServiceProvider.4abc.alice.idToken=", None, id="empty"),
    ],
)
def test_a_cookie_name_may_have_a_part_that_varies(cookie: bytes, token: bytes | None) -> None:
    """AWS Amplify puts the user's name into the names of its cookies."""
    assert AMPLIFY.take([b"x=1; " + cookie]) == token


def test_cookies_of_two_users_with_different_tokens_are_refused() -> None:
    name = b"CognitoIdentityServiceProvider.4abc.%b.idToken=%b"
    assert refusal(AMPLIFY, name % (b"alice", b"a") + b"; " + name % (b"bob", b"b"))[0] is Reason.TOKEN_AMBIGUOUS
    assert AMPLIFY.take([name % (b"alice", b"a") + b"; " + name % (b"bob", b"a")]) == b"a"


def test_a_cookie_name_with_many_stars_is_matched_in_short_time() -> None:
    assert TokenCookie("*a" * 40 + "b").take([b"a" * 20_000 + b"=x"]) is None


@pytest.mark.parametrize("path", ["/x", "/public/x"])
async def test_more_cookies_than_a_browser_keeps_are_refused_on_every_route(path: str) -> None:
    routes = [{"path": "/public/*", "auth": "none"}]
    refused = (431, "headers_too_large", "The request has more than 500 cookies.")
    async with running(token_from=[{"cookie": "sb-*-token", "pieces": True}], routes=routes) as stack:
        for separators, answered in ((b";" * 499, (200, None, None)), (b"a;" * 500, refused)):
            cookies = separators.decode() + f"sb-a-token={stack.alice}"
            answer = await stack.fetch(request("GET", path, headers=[("Cookie", cookies)]))
            assert (answer.status, answer.json().get("code"), answer.json().get("details")) == answered
        assert [seen.target for seen in stack.backend.requests] == [path]


# Pieces


@pytest.mark.parametrize(
    "cookies",
    [
        pytest.param(b"session.0=aa; session.1=bb; session.2=cc", id="Auth.js, Supabase"),
        pytest.param(b"session-0=aa; session-1=bb; session-2=cc", id="AWS load balancer"),
        pytest.param(b"session_0=aa; session_1=bb; session_2=cc", id="oauth2-proxy"),
        pytest.param(b"session__0=aa; session__1=bb; session__2=cc", id="Auth0"),
        pytest.param(b"session=chunks-3; sessionC1=aa; sessionC2=bb; sessionC3=cc", id="ASP.NET Core"),
        pytest.param(b"session=chunks:3; sessionC1=aa; sessionC2=bb; sessionC3=cc", id="ASP.NET of Microsoft.Owin"),
        pytest.param(b"session.2=cc; other=1; session.0=aa; session.1=bb", id="in any order"),
        pytest.param(b"session.0=aa; session.1=bb; session.2=cc; session.1=bb", id="one piece twice"),
        pytest.param(
            b"session.0=aa; session.1=bb; session.2=cc; session=", id="beside an empty cookie of the whole name"
        ),
        pytest.param(
            b"session.0=aa; session.1=bb; session.2=cc; session=aabbcc", id="beside a cookie with the whole token"
        ),
        pytest.param(b"session=aabbcc", id="not in pieces"),
    ],
)
def test_a_token_in_pieces_is_joined_and_removed(cookies: bytes) -> None:
    assert IN_PIECES.take([cookies]) == b"aabbcc"
    assert IN_PIECES.without(b"a=1; " + cookies + b"; b=2").replace(b"other=1; ", b"") == b"a=1; b=2"


def test_pieces_are_joined_in_the_order_of_their_numbers() -> None:
    pieces = [f"session.{number}=<{number}>" for number in range(12)]
    assert (
        IN_PIECES.take([piece.encode() for piece in reversed(pieces)])
        == "".join(f"<{number}>" for number in range(12)).encode()
    )


def test_zero_announced_pieces_hold_no_token() -> None:
    for cookies in (b"session=chunks-0", b"session=chunks-0; sessionC1=a"):
        assert IN_PIECES.take([cookies]) is None


MISSING = "A piece of the cookie that brings the token is missing."


@pytest.mark.parametrize(
    ("cookies", "reason", "details"),
    [
        pytest.param(
            b"session.0=a; session.2=c", Reason.TOKEN_MALFORMED, MISSING, id="a piece in the middle is missing"
        ),
        pytest.param(b"session.2=a", Reason.TOKEN_MALFORMED, MISSING, id="the first pieces are missing"),
        pytest.param(b"session=chunks-2; sessionC1=a", Reason.TOKEN_MALFORMED, MISSING, id="the last piece is missing"),
        pytest.param(b"session=chunks-2", Reason.TOKEN_MALFORMED, MISSING, id="all"),
        pytest.param(
            b"session.0=a; session.1=b; session.1=c",
            Reason.TOKEN_AMBIGUOUS,
            Reason.TOKEN_AMBIGUOUS.details,
            id="two pieces with the same number",
        ),
        pytest.param(
            b"session.0=a; session=b",
            Reason.TOKEN_AMBIGUOUS,
            Reason.TOKEN_AMBIGUOUS.details,
            id="beside a cookie with another whole token",
        ),
    ],
)
def test_pieces_that_do_not_make_one_token_are_refused(cookies: bytes, reason: Reason, details: str) -> None:
    assert refusal(IN_PIECES, cookies) == (reason, details)


def test_numbered_cookies_are_left_alone_without_pieces() -> None:
    cookies = b"session.0=a; session-1=b; sessionC1=c; session=t"
    assert TokenCookie("session").take([cookies]) == b"t"
    assert TokenCookie("session").without(cookies) == b"session.0=a; session-1=b; sessionC1=c"
    assert IN_PIECES.take([b"session.x=a; session.=b; session.100=c; xsession.0=d"]) is None


# JSON


@pytest.mark.parametrize(
    "document", [{"access_token": "a.b.c", "refresh_token": "r"}, {"user": {"name": "Zoë"}, "access_token": "a.b.c"}]
)
def test_a_session_in_json_holds_the_token_as_a_member(document: dict[str, Any]) -> None:
    """Supabase's browser libraries store the session so."""
    text = json.dumps(document)
    padded = b"base64-" + urlsafe_b64encode(text.encode())
    encoded = padded.rstrip(b"=")
    percent = quote(text).encode()
    half = len(encoded) // 2
    for cookies in (
        b"sb-abc-auth-token=" + encoded,
        b"sb-abc-auth-token=" + padded,
        b"sb-abc-auth-token=" + percent,
        b"sb-abc-auth-token.0=%b; sb-abc-auth-token.1=%b" % (encoded[:half], encoded[half:]),
    ):
        assert JSON.take([cookies]) == b"a.b.c"
        assert JSON.without(cookies) == b""


@pytest.mark.parametrize("text", [b"a.b.c", b"base64-!", b"base64-W10", b"%5B%22a%22%5D", b"%7B", b"%7B%22a%22:NaN%7D"])
def test_a_session_that_is_not_a_json_object_is_refused(text: bytes) -> None:
    details = "The cookie that brings the token is not a JSON object."
    assert refusal(JSON, b"sb-abc-auth-token=" + text) == (Reason.TOKEN_MALFORMED, details)


@pytest.mark.parametrize("text", ["{}", '{"access_token": ""}', '{"access_token": null}', '{"access_token": 1}'])
def test_a_session_without_a_token_counts_as_no_token(text: str) -> None:
    assert JSON.take([b"sb-abc-auth-token=" + quote(text).encode()]) is None


# The order of places


def test_several_tokens_first_uses_the_first_place() -> None:
    places: list[Place] = [AUTHORIZATION, TokenHeader("X-Token"), TokenCookie("session"), TokenParameter("t")]
    first = TokenSources(places, first=True)
    assert first.take({"authorization": [b"Bearer a"], "cookie": [b"session=b"]}, "/?t=c") == b"a"
    assert first.take({"authorization": [b"Basic a"], "cookie": [b"session=b"]}, "/?t=c") == b"b"
    assert first.take({"x-token": [b""]}, "/?t=c") == b"c"
    assert TokenSources(places[::-1], first=True).take({"authorization": [b"Bearer a"]}, "/?t=c") == b"c"
    for values in ([b"Bearer a", b"Bearer b"], [b"Bearer a b"]):  # two tokens in one place are ambiguous in any order
        with pytest.raises(Rejection):
            first.take({"authorization": values, "cookie": [b"session=b"]}, "/")


def test_an_unused_token_is_not_forwarded() -> None:
    first = TokenSources([AUTHORIZATION, TokenCookie("session"), TokenParameter("t")], first=True)
    special = {"authorization": [b"Bearer a"], "cookie": [b"session=b; x=1"]}
    assert first.sent_on(b"/?t=a&y", special, forward_token=True) == (
        b"/?t=a&y",
        b"Authorization: Bearer a\r\nCookie: x=1\r\n",
    )
    basic = {"authorization": [b"Basic a"], "cookie": [b"session=b; x=1"]}
    assert first.sent_on(b"/?t=c", basic, forward_token=True) == (
        b"/",
        b"Authorization: Basic a\r\nCookie: session=b; x=1\r\n",
    )
    twice = {"authorization": [b"Bearer a", b"Bearer b"], "cookie": [b"session=b"]}
    assert first.sent_on(b"/?t=c", twice, forward_token=True) == (b"/", b"Cookie: session=b\r\n")


async def test_a_token_in_a_header_and_a_cookie_is_accepted() -> None:
    """Cloudflare Access sends both, and renews its cookie later than its header."""
    places = [{"header": "Cf-Access-Jwt-Assertion"}, {"cookie": "CF_Authorization"}]
    cases: list[tuple[dict[str, Any], list[int]]] = [({}, [200, 400]), ({"several_tokens": "first"}, [200, 200])]
    for settings, statuses in cases:
        async with running(token_from=places, routes=[{"path": "/public/*", "auth": "none"}], **settings) as stack:
            for cookie, status in zip((stack.alice, stack.token(sub="bob")), statuses, strict=True):
                headers = [("Cf-Access-Jwt-Assertion", stack.alice), ("Cookie", f"a=1; CF_Authorization={cookie}")]
                assert (await stack.fetch(request("GET", "/x", headers=headers))).status == status
                assert (await stack.fetch(request("GET", "/public/x", headers=headers))).status == 200
            for received in stack.backend.requests:
                assert (received.get("cookie"), received.get("cf-access-jwt-assertion")) == ("a=1", None)
                assert received.target == "/public/x" or received.get("x-jwt-sub") == "alice"


@pytest.mark.parametrize("path", ["/", "/public/x", "/optional", "/report", "/socket"])
async def test_tokens_are_removed_from_every_place_on_every_route(path: str) -> None:
    places = [
        {"header": "Authorization"}, {"header": "X-Token"}, {"cookie": "sid", "pieces": True}, {"cookie": "u.*.token"},
        {"query": "t"}, {"subprotocol": "bearer"},
    ]  # fmt: skip
    routes = [
        {"path": "/public/*", "auth": "none"},
        {"path": "/optional", "auth": "optional"},
        {"path": "/report", "mode": "report", "forward_token": False},
    ]
    async with running(token_from=places, routes=routes) as stack:
        token = stack.alice
        headers = [
            ("Authorization", f"Bearer {token}"),
            ("X-Token", token),
            ("Cookie", f"sid.0={token[:20]}; sid.1={token[20:]}; a=1; u.alice.token={token}"),
            ("Sec-WebSocket-Protocol", f"chat, bearer, {token}"),
        ]
        assert (await stack.fetch(request("GET", f"{path}?t={token}&b=2", headers=headers))).status == 200
        received = await stack.backend.received()
        assert (received.target, received.get("cookie")) == (f"{path}?b=2", "a=1")
        assert received.get("sec-websocket-protocol") == "chat"
        assert received.get("x-jwt-sub") == (None if path == "/public/x" else "alice")
        assert token[20:].encode() not in received.head


# Subprotocols


BEARER = TokenSubprotocol("bearer")


@pytest.mark.parametrize(
    ("values", "token", "left"),
    [
        pytest.param([b"bearer, a.b.c"], b"a.b.c", b"", id="only the token"),
        pytest.param(
            [b"graphql-ws, bearer, a.b.c, chat"], b"a.b.c", b"graphql-ws, chat", id="beside other subprotocols"
        ),
        pytest.param([b"bearer,a.b.c,chat"], b"a.b.c", b"chat", id="without blanks"),
        pytest.param([b"bearer", b"a.b.c, chat"], b"a.b.c", b"chat", id="in two lines"),
        pytest.param([b"bearer, a, bearer, a"], b"a", b"", id="the same token twice"),
        pytest.param([b"chat"], None, b"chat", id="no marker offered"),
        pytest.param([b"Bearer, a"], None, b"Bearer, a", id="the marker in another letter case"),
        pytest.param([b"chat, bearer"], None, b"chat", id="nothing after the marker"),
        pytest.param([b"bearer, "], None, b"", id="empty"),
        pytest.param([b""], None, b"", id="an empty header"),
    ],
)
def test_the_subprotocol_after_the_marker_is_the_token(values: list[bytes], token: bytes | None, left: bytes) -> None:
    assert BEARER.take(values) == token
    lines = b"Sec-WebSocket-Protocol: %b\r\n" % left if left else b""
    sources = TokenSources([BEARER])
    assert sources.sent_on(b"/", {"sec-websocket-protocol": values}, forward_token=False) == (b"/", lines)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        pytest.param(b"bearer, bearer, a.b.c", b"", id="a marker after the marker"),
        pytest.param(b"bearer, a.b.c, bearer, bearer, d.e.f, chat", b"chat", id="several"),
    ],
)
def test_possible_tokens_are_removed_also_on_public_routes(value: bytes, left: bytes) -> None:
    assert BEARER.without(value) == left


@pytest.mark.parametrize(
    ("offered", "marker"),
    [
        (None, b""),
        ([b"chat"], b""),
        ([b"chat", b"bearer"], b"bearer"),
        ([b"bearer", b"chat"], b"bearer"),
        ([b"chat, bearer, a"], b"bearer"),
    ],
)
def test_an_answer_may_name_the_marker_if_it_was_offered(offered: list[bytes] | None, marker: bytes) -> None:
    special = {} if offered is None else {"sec-websocket-protocol": offered}
    assert TokenSources([AUTHORIZATION, BEARER]).marker(special) == marker


def test_two_tokens_as_subprotocols_are_refused() -> None:
    with pytest.raises(Rejection) as caught:
        BEARER.take([b"bearer, a, bearer, b"])
    assert caught.value.reason is Reason.TOKEN_AMBIGUOUS


async def handshake(offered: str | None, chosen: str | None, **settings: Any) -> tuple[str | None, str | None, int]:
    """(the subprotocols that the backend gets, the one in the answer to the client, the status); ALICE is a token."""

    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        line = f"Sec-WebSocket-Protocol: {chosen}\r\n" if chosen is not None else ""
        writer.write(
            f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{line}Upgrade: websocket\r\n\r\n".encode()
        )
        await asyncio.Event().wait()

    places = [{"header": "Authorization"}, {"subprotocol": "bearer"}]
    async with running(backend=RawBackend(upgrade), token_from=places, **settings) as stack, stack.client() as client:
        headers = list(WEBSOCKET)
        if offered is not None:
            headers.append(("Sec-WebSocket-Protocol", offered.replace("ALICE", stack.alice)))
        await client.send(request("GET", "/", headers=headers))
        answer = await client.response()
        if answer.status != 101:
            assert stack.backend.requests == []
            return None, answer.get("sec-websocket-protocol"), answer.status
        seen = (await stack.backend.received()).get("sec-websocket-protocol")
        seen = None if seen is None else seen.replace(stack.alice, "ALICE")
        return seen, answer.get("sec-websocket-protocol"), answer.status


OPEN = [{"path": "/*", "auth": "none"}]


@pytest.mark.parametrize(
    ("offered", "chosen", "settings", "expected"),
    [
        pytest.param("bearer, ALICE", None, {}, (None, "bearer", 101), id="the marker alone"),
        pytest.param("bearer, ALICE, chat", None, {}, ("chat", "bearer", 101), id="the marker, as the backend chooses none"),
        pytest.param("chat, bearer, ALICE", "chat", {}, ("chat", "chat", 101), id="the backend chooses"),
        pytest.param("bearer, x", None, {}, (None, None, 401), id="a bad token"),
        pytest.param("chat", None, {}, (None, None, 401), id="no token"),
        pytest.param("bearer, ALICE", None, {"routes": OPEN}, (None, "bearer", 101), id="the marker on a public route"),
        pytest.param("chat", "chat", {"routes": OPEN}, ("chat", "chat", 101), id="no marker offered"),
        pytest.param(None, None, {"routes": OPEN}, (None, None, 101), id="no subprotocol offered, none answered"),
        pytest.param(
            "bearer, ALICE", "bearer", {"forward_token": True}, ("bearer, ALICE", "bearer", 101), id="forward_token"
        ),
    ],
)  # fmt: skip
async def test_a_websocket_may_send_its_token_as_a_subprotocol(
    offered: str, chosen: str | None, settings: dict[str, Any], expected: tuple[str | None, str | None, int]
) -> None:
    """A browser ends a connection whose answer names none of the subprotocols that it offered (RFC 6455 section 4.1)."""
    assert await handshake(offered, chosen, **settings) == expected


async def test_a_declined_websocket_is_answered_without_subprotocol() -> None:
    async with running(
        backend=RawBackend(send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
        token_from=[{"subprotocol": "bearer"}],
    ) as stack:
        headers = [*WEBSOCKET, ("Sec-WebSocket-Protocol", f"bearer, {stack.alice}")]
        answer = await stack.fetch(request("GET", "/", headers=headers))
        assert (answer.status, answer.get("sec-websocket-protocol")) == (200, None)
