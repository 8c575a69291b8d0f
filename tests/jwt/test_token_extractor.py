"""Exactly one Authorization header with exactly one token."""

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.token_extractor import AUTHORIZATION


@pytest.mark.parametrize(
    ("credentials", "token"),
    [
        pytest.param(b"Bearer a.b.c", b"a.b.c", id="scheme: Bearer"),
        pytest.param(b"bearer a.b.c", b"a.b.c", id="scheme: bearer"),
        pytest.param(b"BEARER a.b.c", b"a.b.c", id="scheme: BEARER"),
        pytest.param(b"bEaReR a.b.c", b"a.b.c", id="scheme: mixed"),
        pytest.param(b"Bearer   a.b.c", b"a.b.c", id="scheme: several spaces"),
    ],
)
def test_a_bearer_header_holds_one_token(credentials: bytes, token: bytes) -> None:
    assert AUTHORIZATION.take([credentials]) == token


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="no header"),
        pytest.param([], id="no header: none in the list"),
        pytest.param([b""], id="scheme: empty header"),
        pytest.param([b"Basic x"], id="scheme: Basic x"),
        pytest.param([b"Token x"], id="scheme: Token x"),
        pytest.param([b"a.b.c"], id="scheme: bare token"),
        pytest.param([b"BearerX a.b.c"], id="scheme: longer word"),
        pytest.param([b"Bearer-Token a.b.c"], id="scheme: longer word with a hyphen"),
        pytest.param([b"XBearer a.b.c"], id="scheme: Bearer inside a word"),
        pytest.param([b"Basic Bearer a.b.c"], id="scheme: Bearer later"),
    ],
)
def test_another_scheme_holds_no_token(authorization: list[bytes] | None) -> None:
    assert AUTHORIZATION.take(authorization) is None


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(b"Bearer", id="scheme: Bearer alone"),
        pytest.param(b"bearer ", id="scheme: Bearer and a space"),
        pytest.param(b"Bearer a b", id="scheme: Bearer a b"),
        pytest.param(b"Bearer a ", id="scheme: space after the token"),
        pytest.param(b"Bearer\tx", id="scheme: Bearer<TAB>x"),
        pytest.param(b"Bearer \tx", id="scheme: space and tab"),
        pytest.param(b"Bearer a\tb", id="scheme: tab in the token"),
        pytest.param(b"Bearer, Bearer a", id="duplicate Authorization: comma-joined, first empty"),
        pytest.param(b"Bearer a, Bearer b", id="duplicate Authorization: comma-joined"),
        pytest.param(b"Bearer a,Basic b", id="duplicate Authorization: comma-joined with another scheme"),
        pytest.param(b'Bearer="a"', id="scheme: a parameter"),
        pytest.param("BEARER\u212a a".encode(), id="scheme: a letter beyond ASCII"),
    ],
)
def test_a_bearer_header_without_exactly_one_token_is_refused(credentials: bytes) -> None:
    with pytest.raises(Rejection) as caught:
        AUTHORIZATION.take([credentials])
    assert caught.value.reason is Reason.TOKEN_MALFORMED
    assert caught.value.details == "The Authorization header must be the word Bearer, a space, one token."


@pytest.mark.parametrize("authorization", [[b"Bearer a", b"Bearer a"], [b"Bearer a", b""], [b"", b"Bearer a", b""]])
def test_equal_headers_count_once_and_empty_ones_do_not_count(authorization: list[bytes]) -> None:
    assert AUTHORIZATION.take(authorization) == b"a"


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param([b"Bearer good", b"Bearer bad"], id="duplicate Authorization: (good,bad)"),
        pytest.param([b"Bearer bad", b"Bearer good"], id="duplicate Authorization: (bad,good)"),
        pytest.param([b"Basic x", b"Bearer good"], id="duplicate Authorization: another scheme first"),
    ],
)
def test_different_authorization_headers_are_refused(authorization: list[bytes]) -> None:
    with pytest.raises(Rejection) as caught:
        AUTHORIZATION.take(authorization)
    assert caught.value.reason is Reason.TOKEN_AMBIGUOUS
    assert caught.value.details == "The request has more than one Authorization header."
