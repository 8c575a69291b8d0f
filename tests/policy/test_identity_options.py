"""The other ways to write identity headers: encodings, texts with claims in them, what is left out, names with `_`."""

import base64
import json
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.errors import Reason, Rejection
from sidecar.config import parse
from sidecar.config.identity import IdentityHeader as HeaderSettings
from sidecar.http.header_policy import REFUSE, SPECIAL, RequestHeaderPolicy
from sidecar.jwt.claims import Claims
from sidecar.policy.identity_headers import (
    ENCODINGS,
    VERIFIED,
    IdentityHeader,
    encode,
)
from tests.peers.identity import MAX_ALL_BYTES, MAX_HEADER_BYTES, identity_headers
from tests.peers.tokens import b64
from tests.peers.wire import request
from tests.proxy.conftest import running

ALWAYS_ESCAPED = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
"""Control characters and the separators of lines, in UTF-8."""


def headers(claims: dict[str, Any], encoding: str = "percent", /, **mapping: IdentityHeader | tuple[str, ...]) -> Any:
    """The headers but X-JWT-Status; names are written with `_`."""
    named = {name.replace("_", "-"): what for name, what in mapping.items()}
    lines = identity_headers(named, None, encoding).lines(Claims("a", claims)).split(b"\r\n")
    assert (lines[0], lines[-1]) == (b"X-JWT-Status: verified", b"")
    return dict(line.decode().split(": ", 1) for line in lines[1:-1])


# Encodings


@pytest.mark.parametrize(
    ("claim", "base64url", "raw_utf8"),
    [
        pytest.param("alice", b64(b"alice"), "alice", id="string"),
        pytest.param("Jörg 漢\U0001f600", b64("Jörg 漢\U0001f600".encode()), "Jörg 漢\U0001f600", id="non-ASCII"),
        pytest.param(" 100% ", b64(b" 100% "), "%20100%25%20", id="percent and spaces at the ends"),
        pytest.param("a,b", b64(b"a,b"), "a,b", id="comma"),
        pytest.param("a\r\nX: b", b64(b"a\r\nX: b"), "a%0D%0AX: b", id="CRLF"),
        pytest.param("a\0\t\x0b\x7fb", b64(b"a\0\t\x0b\x7fb"), "a%00%09%0B%7Fb", id="NUL, tab, VT and DEL"),
        pytest.param("\x85\u2028\u010d", b64("\x85\u2028\u010d".encode()), "%C2%85%E2%80%A8\u010d", id="line breaks"),
        pytest.param(True, b64(b"true"), "true", id="bool"),
        pytest.param(-12, b64(b"-12"), "-12", id="int"),
        pytest.param(["ä,b", "c"], f"{b64('ä,b'.encode())},{b64(b'c')}", "ä%2Cb,c", id="list element with comma"),
        pytest.param([1, "x", False], f"{b64(b'1')},{b64(b'x')},{b64(b'false')}", "1,x,false", id="list of scalars"),
        pytest.param(["", ""], ",", ",", id="list of empty strings"),
        pytest.param({"a": "é"}, b64(rb'{"a":"\u00e9"}'), b64(rb'{"a":"\u00e9"}'), id="object"),
        pytest.param([["a"]], b64(b'[["a"]]'), b64(b'[["a"]]'), id="nested list"),
        pytest.param("", None, None, id="empty"),
        pytest.param(None, None, None, id="null"),
    ],
)
def test_each_encoding_writes_claims_in_its_form(claim: object, base64url: str | None, raw_utf8: str | None) -> None:
    for encoding, value in (("base64url", base64url), ("raw_utf8", raw_utf8)):
        assert encode(claim, ENCODINGS[encoding]) == value
        assert headers({"x": claim}, encoding, X=("x",)) == ({} if value is None else {"X": value})


CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS) | st.text("a %,\r\n\0\x7f\u0085\u2028é")


def unescaped(value: str) -> str:
    return unquote_to_bytes(value.encode()).decode()


def from_base64url(value: str) -> str:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()


DECODERS = pytest.mark.parametrize(
    ("encoding", "decode"),
    [("percent", unescaped), ("raw_utf8", unescaped), ("base64url", from_base64url)],
    ids=["percent", "raw_utf8", "base64url"],
)


@DECODERS
@given(value=TEXT.filter(bool))
def test_a_string_is_decoded_in_every_encoding(encoding: str, decode: Callable[[str], str], value: str) -> None:
    text = encode(value, ENCODINGS[encoding])
    assert text is not None
    assert ALWAYS_ESCAPED.search(text.encode()) is None
    assert text == text.strip(" ")
    assert decode(text) == value


@DECODERS
@given(value=st.lists(TEXT, min_size=1))
def test_a_list_is_decoded_in_every_encoding(encoding: str, decode: Callable[[str], str], value: list[str]) -> None:
    text = encode(value, ENCODINGS[encoding])
    assert text is not None
    assert ALWAYS_ESCAPED.search(text.encode()) is None
    assert [decode(item) for item in text.split(",")] == value


def test_the_limit_of_raw_utf8_counts_bytes() -> None:
    claims = {"x": "é" * (MAX_HEADER_BYTES // 2)}
    assert headers(claims, "raw_utf8", X=("x",)) == {"X": claims["x"]}
    with pytest.raises(Rejection):
        headers({"x": claims["x"] + "é"}, "raw_utf8", X=("x",))


# Templates with claims


@pytest.mark.parametrize(
    ("template", "claims", "value"),
    [
        pytest.param("user:{sub}", {"sub": "alice"}, "user:alice", id="prefix"),
        pytest.param("{sub}@{tenant.id}", {"sub": "a", "tenant": {"id": 5}}, "a@5", id="two claims"),
        pytest.param("{a\\.b.c}", {"a.b": {"c": "x"}}, "x", id="a dot in a name"),
        pytest.param("{a.b}", {"a.b": "top", "a": {"b": "x"}}, "top", id="the top-level name wins"),
        pytest.param("gateway", {}, "gateway", id="constant"),
        pytest.param("{{sub}} {sub} }}{{", {"sub": "a"}, "{sub} a }{", id="braces"),
        pytest.param("{sub}{sub}", {"sub": "a"}, "aa", id="twice"),
        pytest.param("admin: {admin}", {"admin": False}, "admin: false", id="bool"),
        pytest.param("100% {sub}", {"sub": "é\r\n"}, "100%25 %C3%A9%0D%0A", id="encoded as a whole"),
        pytest.param(" {sub} ", {"sub": "a"}, "%20a%20", id="spaces at the ends"),
        pytest.param("{sub}", {"sub": "{email}", "email": "x"}, "{email}", id="plain substitution only"),
        pytest.param("user:{sub}", {}, None, id="missing"),
        pytest.param("user:{sub}", {"sub": None}, None, id="null"),
        pytest.param("user:{sub}", {"sub": ""}, None, id="empty"),
        pytest.param("{sub}:{role}", {"sub": "a"}, None, id="one of two missing"),
        pytest.param("role:{roles}", {"roles": ["a"]}, None, id="list"),
        pytest.param("{x}", {"x": {}}, None, id="object"),
    ],
)
def test_a_template_is_filled_with_claims(template: str, claims: dict[str, Any], value: str | None) -> None:
    config = configured(f"X-T: {{value: {json.dumps(template)}}}")
    assert config.claim is None
    assert config.value is not None
    assert headers(claims, X_T=IdentityHeader(template=config.value)) == ({} if value is None else {"X-T": value})


def test_a_filled_template_is_encoded_as_a_whole() -> None:
    template = ("user:", ("sub",))
    assert headers({"sub": "é"}, "base64url", X=IdentityHeader(template=template)) == {"X": b64("user:é".encode())}
    assert headers({"sub": "é"}, "raw_utf8", X=IdentityHeader(template=template)) == {"X": "user:é"}


# Sizes


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "sidecar.identity")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "sidecar.identity"]


def test_an_identity_header_has_a_claim_or_a_template_and_is_not_omitted_by_default() -> None:
    assert IdentityHeader(("sub",)) == IdentityHeader(claim=("sub",), template=(), omit=False)
    assert IdentityHeader(template=["x"]) == IdentityHeader(claim=(), template=["x"], omit=False)


def test_an_oversized_header_is_named_in_the_log(told: Callable[[], list[str]]) -> None:
    with pytest.raises(Rejection) as caught:
        headers({"sub": "a", "groups": "x" * 5000}, X_JWT_Sub=("sub",), X_JWT_Groups=("groups",))
    assert caught.value.reason is Reason.CLAIMS_TOO_LARGE
    assert told() == ["event=claims_too_large header=X-JWT-Groups bytes=5000"]


def test_an_oversized_header_with_omit_is_left_out(told: Callable[[], list[str]]) -> None:
    mapping: dict[str, Any] = {"X_JWT_Sub": ("sub",), "X_JWT_Groups": IdentityHeader(("groups",), omit=True)}
    fits = "x" * MAX_HEADER_BYTES
    assert headers({"sub": "a", "groups": fits}, **mapping) == {"X-JWT-Sub": "a", "X-JWT-Groups": fits}
    assert told() == []
    assert headers({"sub": "a", "groups": fits + "x"}, **mapping) == {"X-JWT-Sub": "a"}
    assert told() == [f"event=header_omitted header=X-JWT-Groups bytes={MAX_HEADER_BYTES + 1}"]


def test_an_omitted_header_does_not_affect_the_others() -> None:
    mapping: dict[str, Any] = {"X_JWT_Groups": IdentityHeader(("groups",), omit=True), "X_JWT_Sub": ("sub",)}
    assert headers({"sub": "a", "groups": "x" * 5000}, **mapping) == {"X-JWT-Sub": "a"}


def test_no_header_is_omitted_while_all_fit_the_shared_limit() -> None:
    mapping = {f"X-{at}": IdentityHeader((f"c{at}",), omit=True) for at in range(4)}
    around = len(VERIFIED) + sum(len(f"{name}: \r\n") for name in mapping)
    claims = dict.fromkeys(("c0", "c1", "c2"), "x" * MAX_HEADER_BYTES)
    for beyond in (0, 1):
        last = "x" * (MAX_ALL_BYTES - around - 3 * MAX_HEADER_BYTES + beyond)
        lines = identity_headers(mapping, None).lines(Claims("zuplo", {**claims, "c3": last}))
        assert (len(lines) == MAX_ALL_BYTES) is (beyond == 0)
        assert lines.count(b"\r\n") == 5 - beyond


def test_the_largest_header_with_omit_is_left_out_first(told: Callable[[], list[str]]) -> None:
    large = "x" * 4000
    mapping: dict[str, Any] = {
        "X_A": IdentityHeader(("small",), omit=True),
        "X_B": IdentityHeader(("medium",), omit=True),
        "X_C": ("large",),
        "X_D": ("large",),
        "X_E": ("large",),
        "X_F": IdentityHeader(("large",), omit=True),
    }
    claims = {"small": "a", "medium": "x" * 1000, "large": large}
    assert list(headers(claims, **mapping)) == ["X-A", "X-B", "X-C", "X-D", "X-E"]
    assert told() == ["event=header_omitted header=X-F bytes=4000"]


def test_a_request_is_refused_if_its_headers_are_too_large_after_all_omissions(told: Callable[[], list[str]]) -> None:
    mapping: dict[str, Any] = {f"X_{number}": ("large",) for number in range(5)}
    with pytest.raises(Rejection) as caught:
        headers({"large": "x" * 4000}, X_A=IdentityHeader(("large",), omit=True), **mapping)
    assert caught.value.reason is Reason.CLAIMS_TOO_LARGE
    assert told()[0] == "event=header_omitted header=X-A bytes=4000"
    assert re.fullmatch(r"event=claims_too_large header=\(all\) bytes=[0-9]+", told()[1])
    assert int(told()[1].rpartition("=")[2]) > MAX_ALL_BYTES


# Names that a backend might fold

NAMES = {
    "X_Other": "forward",
    "X.Other": "forward",
    "x_jwt_sub": "drop claim",
    "X.JWT-Anything": "drop claim",
    "X_User": "drop claim",
    "Content_Length": "drop underscore",
    "transfer.encoding": "drop underscore",
    "HOST_": "forward",
    "X_Forwarded_For": "drop underscore",
    "X_Real_Ip": "drop underscore",
    "Authorization_": "forward",
    "author!zation": "forward",
    "x_token": "drop underscore",
    "te": "drop",
}


def fate_of(name: str, policy: RequestHeaderPolicy) -> str:
    return policy.field(name.encode() + b": 1").fate


def test_underscore_headers_decides_about_names_that_fold_to_no_special_header() -> None:
    for underscores in ("drop", "allow"):
        policy = RequestHeaderPolicy({"te", "x-user"}, read={"authorization", "x-token"}, underscores=underscores)
        instead = "drop underscore" if underscores == "drop" else "forward"
        expected = {name: instead if fate == "forward" else fate for name, fate in NAMES.items()}
        assert {name: fate_of(name, policy) for name in NAMES} == expected
    policy = RequestHeaderPolicy({"te", "x-user"}, underscores="reject")
    for name in NAMES:
        for _ in range(2):  # twice: a refusal is not remembered as another result
            assert fate_of(name, policy) == ("drop" if name == "te" else REFUSE)


def test_a_configured_token_header_is_read_despite_an_underscore() -> None:
    for underscores in ("drop", "allow", "reject"):
        policy = RequestHeaderPolicy((), read={"x_token"}, underscores=underscores)
        field = policy.field(b"X_Token: secret")
        assert (field.fate, field.name, field.value) == (SPECIAL, "x_token", b"secret")


SPOOFS = [
    (name, "evil") for name in ("X_JWT_Sub", "x.jwt.sub", "X-JWT-Sub", "x-jwt_Status", "X_JWT_Claims", "X-JWT-Foo")
]


@pytest.mark.parametrize("underscores", ["drop", "allow"])
@pytest.mark.parametrize("target", ["/", "/public/x"])
async def test_spoofed_headers_never_reach_the_backend(underscores: str, target: str) -> None:
    async with running(underscore_headers=underscores, routes=[{"path": "/public/*", "auth": "none"}]) as stack:
        await stack.fetch(stack.good(target=target, headers=[*SPOOFS, ("X_Other", "good")]))
        received = await stack.backend.received()
        assert b"evil" not in received.head
        assert received.get("x_other") == ("good" if underscores == "allow" else None)


async def test_a_name_with_an_underscore_is_refused_with_underscore_headers_reject() -> None:
    async with running(underscore_headers="reject") as stack:
        answer = await stack.fetch(stack.good(headers=[("X_Other", "1")]))
        assert (answer.status, answer.json()["code"]) == (400, "request_malformed")
        assert answer.json()["request_id"] == answer.get("x-request-id") != ""
        assert (await stack.fetch(stack.good(headers=[("X-Other", "1")]))).status == 200
        assert len(stack.backend.requests) == 1


# Claims that could become headers, end to end

WINDOWS = {
    "CR": "a\rX-JWT-Admin: true",
    "LF": "a\nX-JWT-Admin: true",
    "CRLF+request": "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL": "a\0b",
    "DEL": "a\x7fb",
    "VT": "a\x0bb",
    "U+0085": "a\u0085b",
    "U+2028": "a\u2028b",
    "U+010A/U+010D": "a\u010d\u010aX-JWT-Admin: true",
    "non-ASCII": "Jörg",
    "emoji": "\U0001f600",
    "comma": "a,b",
}


@pytest.mark.parametrize("encoding", ["percent", "base64url", "raw_utf8"])
@pytest.mark.parametrize("claim", [pytest.param(text, id=f"claim -> header: {name}") for name, text in WINDOWS.items()])
async def test_no_claim_becomes_another_header(encoding: str, claim: str) -> None:
    names = {"X-JWT-Sub": "sub", "X-JWT-List": "list", "X-T": {"value": "user:{sub}"}}
    async with running(identity_headers=names, encoding=encoding) as stack:
        token = stack.token(sub=claim, list=[claim, "x"])
        assert (await stack.fetch(request("GET", "/", token=token))).status == 200
        assert len(stack.backend.requests) == 1
        received = await stack.backend.received()
        assert ALWAYS_ESCAPED.search(received.head.replace(b"\r\n", b"")) is None
        assert received.get("x-jwt-admin") is None
        decode = from_base64url if encoding == "base64url" else unescaped
        text = {
            name: (received.get(name) or "").encode("latin-1").decode() for name in ("x-jwt-sub", "x-jwt-list", "x-t")
        }
        assert decode(text["x-jwt-sub"]) == claim
        assert [decode(item) for item in text["x-jwt-list"].split(",")] == [claim, "x"]
        assert decode(text["x-t"]) == f"user:{claim}"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"x": None}, None, id="claim -> header: null"),
        pytest.param({}, None, id="claim absent"),
        pytest.param({"x": True}, "true", id="claim -> header: bool"),
        pytest.param({"x": 5}, "5", id="claim -> header: int"),
        pytest.param({"x": ["a,b", "c"]}, "a%2Cb,c", id="claim -> header: list element with comma"),
        pytest.param({"x": {"a": 1}}, b64(b'{"a":1}'), id="claim -> header: object"),
        pytest.param({"x": ""}, None, id="claim -> header: empty"),
    ],
)
async def test_a_claim_of_each_type_reaches_the_backend_encoded(claims: dict[str, Any], expected: str | None) -> None:
    async with running(identity_headers={"X-Claim": "x"}) as stack:
        token = stack.token(**claims)
        assert (await stack.fetch(request("GET", "/", token=token, headers=[("X-Claim", "evil")]))).status == 200
        assert (await stack.backend.received()).get("x-claim") == expected


async def test_oversized_and_unencodable_claims_are_refused_or_left_out() -> None:
    names = {"X-JWT-Sub": "sub", "X-JWT-Groups": {"claim": "groups", "on_oversize": "omit"}}
    async with running(identity_headers=names, claims_header="off") as stack:
        answer = await stack.fetch(request("GET", "/", token=stack.token(sub="x" * 10_000)))
        assert (answer.status, answer.json()["code"]) == (403, "claims_too_large")
        assert stack.backend.requests == []
        answer = await stack.fetch(request("GET", "/", token=stack.token(groups="x" * 10_000)))
        assert answer.status == 200
        received = await stack.backend.received()
        assert (received.get("x-jwt-sub"), received.get("x-jwt-groups")) == ("alice", None)
        answer = await stack.fetch(request("GET", "/", token=stack.token(sub="\ud800")))
        assert (answer.status, answer.json()["code"]) == (401, "token_malformed")


# In the configuration


def configured(text: str) -> HeaderSettings:
    """The one identity header of a file."""
    smallest = "issuers: {a: {issuer: 'https://a/', audiences: any}}\nupstream: http://127.0.0.1:9292\n"
    (header,) = parse(f"{smallest}identity_headers: {{{text}}}", environ={}).identity_headers.values()
    assert isinstance(header, HeaderSettings)
    return header


def test_an_identity_header_is_configured_by_claim_or_template() -> None:
    header = configured("X-A: {claim: a.b, on_oversize: omit}")
    assert (header.claim, header.value, header.on_oversize) == (("a", "b"), None, "omit")
    header = configured("X-A: {claim: [a.b]}")
    assert (header.claim, header.on_oversize) == (("a.b",), "reject")
    header = configured("X-A: {value: '{sub}-{a.b}', on_oversize: omit}")
    assert (header.claim, header.value, header.on_oversize) == (None, (("sub",), "-", ("a", "b")), "omit")
