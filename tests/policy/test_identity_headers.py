"""Claims become header text without loss, and no claim can add a header."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims, find
from sidecar.policy.identity_headers import (
    ANONYMOUS,
    VERIFIED,
    encode,
)
from tests.peers.identity import LIMITS, MAX_ALL_BYTES, MAX_CLAIMS_BYTES, MAX_HEADER_BYTES, identity_headers
from tests.peers.tokens import b64

PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
"""RFC 9110 section 5.5: the text of a header, without what a recipient would strip."""


def headers(
    claims: dict[str, Any], mapping: Mapping[str, tuple[str, ...]], claims_header: str | None = None
) -> list[str]:
    """The lines without X-JWT-Status."""
    verified = Claims("zuplo", claims, b64(json.dumps(claims).encode()).encode())
    lines = identity_headers(mapping, claims_header).lines(verified).decode("ascii").split("\r\n")
    assert (lines[0], lines[-1]) == ("X-JWT-Status: verified", "")
    return lines[1:-1]


# The percent encoding, and its decoder


def decode_text(value: str) -> str:
    """The decoder of a string, as a backend writes it."""
    return unquote(value, errors="strict")


def decode_list(value: str) -> list[str]:
    return [decode_text(item) for item in value.split(",")]


def decode_json(value: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        pytest.param("alice", "alice", id="string"),
        pytest.param(
            "a b ~!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}", "a b ~!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}", id="printable ASCII"
        ),
        pytest.param("100%", "100%25", id="percent"),
        pytest.param("a%0Ab", "a%250Ab", id="percent: an escape in the claim"),
        pytest.param(" alice", "%20alice", id="space in front"),
        pytest.param("alice ", "alice%20", id="space behind"),
        pytest.param(" ", "%20", id="one space"),
        pytest.param("  ", "%20%20", id="two spaces"),
        pytest.param("   ", "%20 %20", id="three spaces"),
        pytest.param("Jörg", "J%C3%B6rg", id="non-ASCII"),
        pytest.param("\U0001f600", "%F0%9F%98%80", id="emoji"),
        pytest.param("a\rb", "a%0Db", id="CR"),
        pytest.param("a\nb", "a%0Ab", id="LF"),
        pytest.param(
            "a\r\n\r\nGET / HTTP/1.1\r\nHost: x",
            "a%0D%0A%0D%0AGET / HTTP/1.1%0D%0AHost: x",
            id="CRLF+request",
        ),
        pytest.param("a\0b", "a%00b", id="NUL"),
        pytest.param("a\x7fb", "a%7Fb", id="DEL"),
        pytest.param("a\x0bb\tc", "a%0Bb%09c", id="VT and tab"),
        pytest.param("a\x01b\x1fc", "a%01b%1Fc", id="the first and the last of C0"),
        pytest.param("a\u0085b", "a%C2%85b", id="U+0085"),
        pytest.param("a\u2028b", "a%E2%80%A8b", id="U+2028"),
        pytest.param("a\u010ab\u010dc", "a%C4%8Ab%C4%8Dc", id="U+010A/U+010D"),
        pytest.param("true", "true", id="the string true"),
        pytest.param(True, "true", id="bool: true"),
        pytest.param(False, "false", id="bool: false"),
        pytest.param(5, "5", id="int"),
        pytest.param(0, "0", id="int: 0"),
        pytest.param(-(2**63) - 1, "-9223372036854775809", id="int: all digits"),
        pytest.param(10**400, "1" + "0" * 400, id="int: 401 digits"),
        pytest.param(1.5, "1.5", id="number"),
        pytest.param(1e22, "1e+22", id="number with an exponent"),
        pytest.param(["a", "b"], "a,b", id="list"),
        pytest.param(["a"], "a", id="list of one"),
        pytest.param(["a,b", "c"], "a%2Cb,c", id="list element with comma"),
        pytest.param(["a%2Cb", "c"], "a%252Cb,c", id="list element with an escaped comma"),
        pytest.param([" a", "b "], "%20a,b%20", id="list elements with spaces at their ends"),
        pytest.param([""], "", id="list of an empty string"),
        pytest.param(["", ""], ",", id="list of empty strings"),
        pytest.param([1, True, "x", 1.5], "1,true,x,1.5", id="list of scalars"),
        pytest.param(["a\r\nX-JWT-Sub: b"], "a%0D%0AX-JWT-Sub: b", id="list element with CRLF"),
        pytest.param({}, b64(b"{}"), id="object: empty"),
        pytest.param({"a": "é\r\n"}, b64(rb'{"a":"\u00e9\r\n"}'), id="object"),
        pytest.param([["a"]], b64(b'[["a"]]'), id="nested list"),
        pytest.param(["a", {"b": 1}], b64(b'["a",{"b":1}]'), id="list with an object"),
        pytest.param(["a", None], b64(b'["a",null]'), id="list with null"),
        pytest.param(None, None, id="null"),
        pytest.param("", None, id="empty"),
        pytest.param([], None, id="empty list"),
    ],
)
def test_a_claim_is_encoded_as_header_text(claim: object, value: str | None) -> None:
    assert encode(claim) == value
    assert headers({"x": claim}, {"X-JWT-X": ("x",)}) == ([] if value is None else [f"X-JWT-X: {value}"])


def test_half_a_surrogate_pair_cannot_be_encoded() -> None:
    with pytest.raises(UnicodeEncodeError):  # the parser of tokens refuses it earlier
        encode("\ud800")


CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS) | st.text("a %,\r\n\0\x7f\u0085\u2028é")


@given(TEXT)
def test_a_string_is_decoded_from_its_printable_text(value: str) -> None:
    encoded = encode(value)
    if encoded is None:
        assert value == ""
        return
    assert PRINTABLE.fullmatch(encoded)
    assert decode_text(encoded) == value


@given(st.lists(TEXT, min_size=1))
def test_a_list_of_strings_is_decoded_from_its_printable_text(value: list[str]) -> None:
    encoded = encode(value)
    assert encoded is not None
    assert encoded == "" or PRINTABLE.fullmatch(encoded)
    assert decode_list(encoded) == value


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=4
)


@given(st.dictionaries(TEXT, NESTED, max_size=3) | st.lists(st.lists(NESTED, max_size=3), min_size=1, max_size=3))
def test_an_object_or_nested_list_is_decoded_from_base64url(value: Any) -> None:
    encoded = encode(value)
    assert encoded is not None
    assert re.fullmatch("[A-Za-z0-9_-]+", encoded)
    assert decode_json(encoded) == value


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_a_number_or_boolean_is_decoded_exactly(value: float) -> None:
    encoded = encode(value)
    assert encoded is not None
    assert PRINTABLE.fullmatch(encoded)
    assert repr(json.loads(encoded)) == repr(value)


# Finding the claim


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        pytest.param({"sub": "alice"}, ("sub",), "alice", id="a claim"),
        pytest.param({"sub": "alice"}, ("name",), None, id="missing"),
        pytest.param({"a": {"b": {"c": 5}}}, ("a", "b", "c"), 5, id="nested"),
        pytest.param({"a": {"b": 5}}, ("a", "c"), None, id="missing inside"),
        pytest.param({"a": "text"}, ("a", "b"), None, id="inside a string"),
        pytest.param({"a": ["b"]}, ("a", "b"), None, id="inside a list"),
        pytest.param({"a": None}, ("a", "b"), None, id="inside null"),
        pytest.param({"a.b": "top", "a": {"b": "nested"}}, ("a", "b"), "top", id="the top-level name wins"),
        pytest.param({"kubernetes.io": {"namespace": "x"}}, ("kubernetes.io", "namespace"), "x", id="a dot in a name"),
        pytest.param({"a": False}, ("a",), False, id="false is a value"),
        pytest.param({"a.b": 0, "a": {"b": 1}}, ("a", "b"), 0, id="zero is a value"),
        pytest.param({"SUB": "alice"}, ("sub",), None, id="another case"),
    ],
)
def test_a_claim_is_found_by_its_path(claims: dict[str, Any], path: tuple[str, ...], found: object) -> None:
    assert find(claims, path) == found


# The headers


def test_each_present_mapped_claim_is_one_header() -> None:
    mapping = {"X-JWT-Sub": ("sub",), "X-JWT-Scope": ("scope",), "X-Role": ("realm", "role")}
    assert headers({"sub": "alice", "realm": {"role": "x"}}, mapping) == ["X-JWT-Sub: alice", "X-Role: x"]


def test_the_claims_header_holds_the_signed_bytes() -> None:
    payload = b64(b'{ "sub":"alice" }').encode()
    lines = identity_headers({}, "X-JWT-Claims").lines(Claims("zuplo", {"sub": "alice"}, payload))
    assert lines == VERIFIED + b"X-JWT-Claims: " + payload + b"\r\n"


def test_without_a_claims_header_only_the_mapped_claims_are_sent() -> None:
    assert headers({"sub": "alice", "email": "x"}, {"X-JWT-Sub": ("sub",)}, None) == ["X-JWT-Sub: alice"]


def test_identity_headers_are_rendered_once_per_token() -> None:
    identity, claims = identity_headers({"X-JWT-Sub": ("sub",)}, None), Claims("zuplo", {"sub": "alice"})
    assert identity.lines(claims) is identity.lines(claims)


def test_every_request_has_its_status_header() -> None:
    assert [line.decode() for line in (VERIFIED, ANONYMOUS)] == [
        "X-JWT-Status: verified\r\n",
        "X-JWT-Status: anonymous\r\n",
    ]


# Sizes


def test_an_identity_header_has_a_limit_of_bytes() -> None:
    mapping = {"X-JWT-Sub": ("sub",)}
    assert headers({"sub": "x" * MAX_HEADER_BYTES}, mapping) == ["X-JWT-Sub: " + "x" * MAX_HEADER_BYTES]
    with pytest.raises(Rejection) as caught:
        headers({"sub": "x" * (MAX_HEADER_BYTES + 1)}, mapping)
    assert caught.value.reason is Reason.CLAIMS_TOO_LARGE


def test_the_limit_applies_to_the_encoded_text() -> None:
    with pytest.raises(Rejection):
        headers({"sub": "é" * (MAX_HEADER_BYTES // 6 + 1)}, {"X-JWT-Sub": ("sub",)})


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)], ids=["at the limit", "beyond"])
def test_all_identity_headers_share_a_limit_of_bytes(extra: int, fits: bool) -> None:
    around = len(VERIFIED + b"X-JWT-Claims: \r\n")
    claims = Claims("zuplo", {}, b"A" * (MAX_ALL_BYTES - around + extra))
    identity = identity_headers({}, "X-JWT-Claims", limits=LIMITS._replace(claims=MAX_ALL_BYTES))
    if fits:
        assert len(identity.lines(claims)) == MAX_ALL_BYTES
        return
    with pytest.raises(Rejection) as caught:
        identity.lines(claims)
    assert caught.value.reason is Reason.CLAIMS_TOO_LARGE
    with pytest.raises(Rejection):  # the second time too: a refusal is not remembered as an empty set of headers
        identity.lines(claims)


@pytest.mark.parametrize("most", [MAX_CLAIMS_BYTES, 100])
def test_the_claims_header_has_its_own_limit(most: int, caplog: pytest.LogCaptureFixture) -> None:
    """250 groups of 37 characters are more than most backends read in one line."""
    caplog.set_level("INFO")
    identity = identity_headers({}, "X-JWT-Claims", limits=LIMITS._replace(claims=most))
    assert len(identity.lines(Claims("a", {}, b"A" * most))) > most
    with pytest.raises(Rejection) as caught:
        identity.lines(Claims("a", {}, b"A" * (most + 1)))
    assert caught.value.reason is Reason.CLAIMS_TOO_LARGE
    assert caplog.messages == [f"event=claims_too_large header=X-JWT-Claims bytes={most + 1}"]


def test_each_limit_of_identity_headers_is_configurable() -> None:
    identity = identity_headers({"X-A": ("a",), "X-B": ("b",)}, None, limits=LIMITS._replace(one=10, together=50))
    assert b"X-A: aaaaaaaaaa" in identity.lines(Claims("a", {"a": "a" * 10}))
    for claims in ({"a": "a" * 11}, {"a": "a" * 10, "b": "b" * 10}):
        with pytest.raises(Rejection):
            identity.lines(Claims("a", claims))


# Scopes


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "read write"},
        {"scope": ["read", "write"]},
        {"scp": "read write"},
        {"scp": ["read", "write"]},
        {"scopes": ["read", "write"]},
        {"scope": "", "scp": [], "scopes": "read write"},
    ],
    ids=str,
)
def test_scopes_have_one_form_for_every_issuer(claims: dict[str, Any]) -> None:
    assert headers(claims, {"X-JWT-Scope": ("scope",)}) == ["X-JWT-Scope: read write"]


def test_a_space_within_a_scope_is_encoded() -> None:
    (line,) = headers({"scp": ["read write", "all"]}, {"X-JWT-Scope": ("scope",)})
    assert decode_text(line.removeprefix("X-JWT-Scope: ")).split(" ") == ["read%20write", "all"]


@pytest.mark.parametrize("claims", [{}, {"scope": "", "scp": []}, {"permissions": ["read"]}], ids=str)
def test_a_token_without_scopes_gets_no_scope_header(claims: dict[str, Any]) -> None:
    assert headers(claims, {"X-JWT-Scope": ("scope",)}) == []
