"""A token has exactly one spelling and one meaning. Every other one is refused before its signature is verified."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.compact_jws import (
    MAX_DEPTH,
    MAX_HEADER_BYTES,
    MAX_REMEMBERED,
    MAX_REMEMBERED_BYTES,
    MAX_TOKEN_BYTES,
    Jws,
    base64url,
    parse,
    strict_json_object,
)
from tests.peers.cpu import least_cpu_s
from tests.peers.tokens import b64

PADDED = "The token's parts are padded with =; a JWT has no padding."
THREE_PARTS = "The token is not three base64url parts joined by dots."
ENCRYPTED = "The token is encrypted (JWE); only signed tokens are accepted."
HEADER = "The token's header is not a base64url JSON object."
PAYLOAD = "The token's payload is not a base64url JSON object."
SIGNATURE = "The token's signature is not base64url."

H, P, S = b64(b'{"alg":"RS256"}'), b64(b'{"sub":"alice"}'), b64(b"signature")
GOOD = f"{H}.{P}.{S}"
NEVER_REMEMBERED = b64(json.dumps({"alg": "RS256", "pad": "x" * (MAX_REMEMBERED_BYTES * 3 // 4)}).encode())


def parts(jws: Jws) -> tuple[object, ...]:
    return jws.header, jws.payload, jws.payload_segment, jws.signing_input, jws.signature, jws.padded


def refusal(token: str | bytes) -> Rejection:
    with pytest.raises(Rejection) as caught:
        parse(token.encode() if isinstance(token, str) else token)
    return caught.value


def nested(levels: int, innermost: str = "") -> bytes:
    """An object with this many nested objects and lists."""
    return f'{{"a":{"[" * (levels - 1)}{innermost}{"]" * (levels - 1)}}}'.encode()


def test_a_token_is_split_into_its_signed_part_and_its_claims() -> None:
    jws = parse(GOOD.encode())
    assert (jws.header, jws.payload) == ({"alg": "RS256"}, {"sub": "alice"})
    assert (jws.text, jws.payload_segment) == (b'{"sub":"alice"}', P.encode())
    assert (jws.signing_input, jws.signature, jws.padded) == (f"{H}.{P}".encode(), b"signature", False)


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        ("{}", 3),
        ('{"a":[1,2],"b":{}}', 9),
        (f'{{"a":"{"x" * 144}"}}', 3),
        (f'{{"a":"{"x" * 144}é"}}', 12),
        (f'{{"a":"{"x" * 144}\\u00e9"}}', 12),
        (f'{{"a":"{"x" * 136}é"}}', 12),
        (f'{{"a":"{"x" * 132}é"}}', 11),
    ],
)
def test_the_values_of_a_payload_are_counted(payload: str, values: int) -> None:
    assert parse(f"{H}.{b64(payload.encode())}.{S}".encode()).values == values


def header_of(name: str, size: int = 0) -> dict[str, Any]:
    """The parsed header of a token."""
    header = json.dumps({"alg": "RS256", "kid": name, "pad": "x" * size}).encode()
    return parse(f"{b64(header)}.{P}.{S}".encode()).header


def test_a_repeated_header_is_parsed_once_within_a_limited_memory() -> None:
    first = header_of("first")
    assert header_of("first") is first
    for number in range(MAX_REMEMBERED):
        header_of(f"{number}")
    again = header_of("first")
    assert again == first
    assert again is not first
    assert header_of("long", 512) is not header_of("long", 512)


def test_an_empty_signature_is_left_to_the_verifier() -> None:
    assert parse(f"{H}.{P}.".encode()).signature == b""


@pytest.mark.parametrize(
    ("token", "details"),
    [
        pytest.param("", THREE_PARTS, id="segments: empty"),
        pytest.param(".", THREE_PARTS, id="segments: a dot"),
        pytest.param("..", THREE_PARTS, id="segments: two dots"),
        pytest.param(H, THREE_PARTS, id="segments: one"),
        pytest.param(f"{H}.{P}", THREE_PARTS, id="empty / missing signature: h.p"),
        pytest.param(f"{GOOD}.{S}", THREE_PARTS, id="segments: four"),
        pytest.param(f".{GOOD}", THREE_PARTS, id="segments: leading dot"),
        pytest.param(f"{GOOD}.", THREE_PARTS, id="segments: trailing dot"),
        pytest.param(f".{P}.{S}", THREE_PARTS, id="segments: no header"),
        pytest.param(f"{H}..{S}", THREE_PARTS, id="segments: no payload"),
        pytest.param("." * 3000, THREE_PARTS, id="segments: 3000 dots"),
        pytest.param(f"{H}.{P[:4]}....{P[4:]}.{S}", THREE_PARTS, id="dots inside the payload"),
        pytest.param(f"{H}.{P[:4]}..{P[4:]}.{S}", ENCRYPTED, id="dots inside the payload: as many as a JWE has"),
        pytest.param(f"{H}.a.b.c.d", ENCRYPTED, id="JWE"),
        pytest.param(f"{H}....", ENCRYPTED, id="JWE: direct encryption, empty parts"),
        pytest.param(json.dumps({"payload": P, "protected": H, "signature": S}), THREE_PARTS, id="JSON serialisation"),
        pytest.param(f"{H}!!!!.{P}.{S}", THREE_PARTS, id="base64url: junk in the header"),
        pytest.param(f"{H}.{P[:4]}!!!!{P[4:]}.{S}", THREE_PARTS, id="base64url: junk in the payload"),
        pytest.param(f"{H}.{P}.{S}!!!!", THREE_PARTS, id="base64url: junk in the signature"),
        pytest.param(f"{H}.{P} .{S}", THREE_PARTS, id="base64url: space"),
        pytest.param(f"{GOOD}\n", THREE_PARTS, id="base64url: newline at the end"),
        pytest.param(f"{GOOD}\t", THREE_PARTS, id="base64url: tab"),
        pytest.param(f"{H}.{P}.+/{S[2:]}", THREE_PARTS, id="base64url: + and /"),
        pytest.param(f"{H}.{P}.{S}==AA", THREE_PARTS, id="base64url: bytes after ="),
        pytest.param(f"{H}.{P}.\u00a0{S}", THREE_PARTS, id="base64url: NBSP"),
        pytest.param(f"{H}=.{P}.{S}", PADDED, id="base64url `=` padding: header"),
        pytest.param(f"{H}.{P}=.{S}", PADDED, id="base64url `=` padding: payload"),
        pytest.param(f"{H}.{P}.{S}=", PADDED, id="base64url `=` padding: signature"),
        pytest.param(f"{H}==.{P}==.{S}==", PADDED, id="base64url `=` padding: all"),
        pytest.param(f"{H}===.{P}.{S}", THREE_PARTS, id="base64url `=` padding: more than there can be"),
        pytest.param(f"{b64(b'{} ')}A.{P}.{S}", HEADER, id="base64url: header of an impossible length"),
        pytest.param(f"{H}.{b64(b'{} ')}A.{S}", PAYLOAD, id="base64url: payload of an impossible length"),
        pytest.param(f"{H}.{P}.AAAAA", SIGNATURE, id="base64url: signature of an impossible length"),
        pytest.param(f"e31.{P}.{S}", HEADER, id="non-canonical trailing bits: header"),
        pytest.param(f"{H}.e31.{S}", PAYLOAD, id="non-canonical trailing bits: payload"),
        pytest.param(f"{H}.{P}.AB", SIGNATURE, id="non-canonical trailing bits: signature"),
        pytest.param(f"{H}.{P}.{S}".encode() + b"\x80", THREE_PARTS, id="bytes >= 0x80"),
        pytest.param(f"{GOOD}\0", THREE_PARTS, id="NUL in the token"),
        pytest.param(f"\x01{GOOD}", THREE_PARTS, id="C0 in the token"),
    ],
)
def test_a_second_spelling_is_refused(token: str | bytes, details: str) -> None:
    parse(GOOD.encode())  # the header H is remembered
    spelled = token if isinstance(token, bytes) else token.encode()
    for same in (spelled, spelled.replace(H.encode(), NEVER_REMEMBERED.encode())):
        rejection = refusal(same)
        assert (rejection.reason, rejection.details) == (Reason.TOKEN_MALFORMED, details)


@pytest.mark.parametrize("claims", [b"{}", b'{"a":1}', b'{"a":12}', b'{"sub":"alice"}'])
@pytest.mark.parametrize("header", [b'{"alg":"x"}', b'{"alg":"xy"}', b'{"alg":"xyz"}'])
@pytest.mark.parametrize("signature", [b"", b"s", b"si", b"sig"])
def test_padded_tokens_are_read_with_allow_padding(header: bytes, claims: bytes, signature: bytes) -> None:
    segments = [urlsafe_b64encode(part) for part in (header, claims, signature)]
    padded, plain = b".".join(segments), b".".join(segment.rstrip(b"=") for segment in segments)
    found, other = parse(padded, allow_padding=True), parse(plain, allow_padding=True)
    assert parts(other) == parts(parse(plain))
    assert parts(found)[:3] == parts(other)[:3]
    assert (found.signing_input, found.signature) == (padded.rpartition(b".")[0], signature)
    assert found.padded == (padded != plain)


ODD = b64(b'{"alg":"x"}')  # needs one = after it; H, P and S need none


@pytest.mark.parametrize(
    "token",
    [f"{H}=.{P}.{S}", f"{H}.{P}==.{S}", f"{H}.{P}.{S}=", f"{ODD}==.{P}.{S}", f"{ODD}.{P}.AA==", f"{ODD}=.{P}.AA"],
)
def test_padding_has_one_spelling(token: str) -> None:
    with pytest.raises(Rejection) as caught:
        parse(token.encode(), allow_padding=True)
    assert caught.value.details == "The token's parts are padded with =, but the number of = is wrong."


NOT_ONE_OBJECT = [
    pytest.param(b"[]", id="a list"),
    pytest.param(b'"x"', id="a string"),
    pytest.param(b"null", id="null"),
    pytest.param(b"5", id="a number"),
    pytest.param(b"{alg:1}", id="no quotes"),
    pytest.param(b"{'alg':1}", id="single quotes"),
    pytest.param(b'{"a":1,}', id="trailing comma"),
    pytest.param(b'{"a":1', id="not closed"),
    pytest.param(b'{"a":"\xff"}', id="invalid UTF-8"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
    pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
    pytest.param('{"a":1}'.encode("utf-16-le"), id="UTF-16 without a mark"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
    pytest.param(b'{"a":NaN}', id="NaN"),
    pytest.param(b'{"a":Infinity}', id="Infinity"),
    pytest.param(b'{"a":-Infinity}', id="-Infinity"),
    pytest.param(b'{"a":1e400}', id="1e400"),
    pytest.param(b'{"a":-1e400}', id="-1e400"),
    pytest.param(b'{"a":1}{}', id="trailing data"),
    pytest.param(b'{"a":1}\0', id="NUL after the JSON"),
    pytest.param(b'{"a":"\0"}', id="NUL in a string"),
    pytest.param(b'{"a":"\n"}', id="a raw newline in a string"),
    pytest.param(rb'{"a":"\ud800"}', id="half a surrogate pair"),
    pytest.param(rb'{"a":"\udc00\ud800"}', id="a surrogate pair in the wrong order"),
    pytest.param(rb'{"\ud800":1}', id="half a surrogate pair in a name"),
    pytest.param(b'{"a":1,"a":1}', id="duplicate members"),
    pytest.param(rb'{"a":1,"\u0061":2}', id="duplicate members, one escaped"),
    pytest.param(b'{"b":{"a":1,"a":2}}', id="duplicate members inside"),
    pytest.param(nested(MAX_DEPTH + 1), id="one level too deep"),
    pytest.param(nested(1400), id="deep header"),
    pytest.param(nested(MAX_DEPTH + 1, "1"), id="one level too deep around a number"),
]
NOT_FOR_A_HEADER = [
    pytest.param(b"", id="nothing"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="huge integer"),
    pytest.param(nested(5500), id="deep"),
]


@pytest.mark.parametrize("text", [*NOT_ONE_OBJECT, *NOT_FOR_A_HEADER])
def test_anything_but_one_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        strict_json_object(text)


@pytest.mark.parametrize("text", NOT_ONE_OBJECT)
def test_a_header_or_payload_that_is_not_one_json_object_is_refused(text: bytes) -> None:
    assert refusal(f"{b64(text)}.{P}.{S}").details == HEADER
    rejection = refusal(f"{H}.{b64(text)}.{S}")
    assert (rejection.reason, rejection.details) == (Reason.TOKEN_MALFORMED, PAYLOAD)


@pytest.mark.parametrize("text", NOT_FOR_A_HEADER[1:])
def test_a_large_payload_that_is_not_one_json_object_is_refused(text: bytes) -> None:
    rejection = refusal(f"{H}.{b64(text)}.{S}")
    assert (rejection.reason, rejection.details) == (Reason.TOKEN_MALFORMED, PAYLOAD)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"{}", id="empty object"),
        pytest.param(b' { "a" : 1 }\r\n', id="white space"),
        pytest.param(rb'{"a":"\ud83d\ude00"}', id="a complete surrogate pair"),
        pytest.param('{"a":"\U0001f600"}'.encode(), id="UTF-8"),
        pytest.param(rb'{"a":"\u0000"}', id="an escaped NUL is a character"),
        pytest.param(nested(MAX_DEPTH), id="at the maximum depth"),
        pytest.param(nested(MAX_DEPTH, "1"), id="at the maximum depth, around a number"),
        pytest.param(nested(MAX_DEPTH, '"["'), id="at the maximum depth, around a bracket in a string"),
        pytest.param(b'{"a":[' + b"[]," * 50 + b"[]]}", id="wide, not deep"),
        pytest.param(b'{"a":"' + b"[{" * 50 + b'"}', id="brackets in a string"),
        pytest.param(b'{"a":1e10,"b":1.5,"c":-0}', id="numbers"),
    ],
)
def test_unambiguous_json_is_read(text: bytes) -> None:
    assert strict_json_object(text) == json.loads(text)


def sized(header_bytes: int, token_bytes: int) -> bytes:
    """A token with exactly these bytes in its header segment and in total (each a possible length of base64url)."""
    rest = token_bytes - header_bytes - 2
    header = b'{"a":"' + b"x" * (header_bytes * 3 // 4 - 8) + b'"}'
    token = f"{b64(header)}.{P}.".encode() + b"A" * (rest - len(P))
    assert (token.index(b"."), len(token)) == (header_bytes, token_bytes)
    return token


@pytest.mark.parametrize(
    ("token", "details"),
    [
        pytest.param(sized(64, MAX_TOKEN_BYTES + 2), Reason.TOKEN_TOO_LARGE.details, id="oversize: just"),
        pytest.param(b"A" * 300_000, Reason.TOKEN_TOO_LARGE.details, id="oversize: 300 KB"),
        pytest.param(
            sized(MAX_HEADER_BYTES + 4, 5000), "The token's header is larger than 4 KiB.", id="oversize: header"
        ),
    ],
)
def test_an_oversized_token_is_refused(token: bytes, details: str) -> None:
    rejection = refusal(token)
    assert (rejection.reason, rejection.details) == (Reason.TOKEN_TOO_LARGE, details)


@pytest.mark.parametrize("token", [sized(64, MAX_TOKEN_BYTES), sized(MAX_HEADER_BYTES, 6000)], ids=["token", "header"])
def test_a_token_and_a_header_of_exactly_the_limit_are_accepted(token: bytes) -> None:
    parse(token)


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize(("before", "last"), [("A", "AQgw"), ("AA", "AEIMQUYcgkosw048"), ("AAA", ALPHABET), ("", "")])
def test_a_segment_with_surplus_bits_is_refused(before: str, last: str) -> None:
    for character in map(chr, range(128)):
        segment = (before + character).encode()
        if character in last:
            assert b64(base64url(segment)).encode() == segment
        else:
            with pytest.raises(ValueError):
                base64url(segment)


@pytest.mark.parametrize("code", [code for code in range(256) if chr(code) not in ALPHABET])
def test_a_character_outside_the_alphabet_is_refused(code: int) -> None:
    other = bytes([code])
    for segment in (b"?AAAA", b"AA?AA", b"AAAA?", b"AAA?", b"A?A", b"AAAA?AAA", b"AAAA????", b"??AA??AA"):
        with pytest.raises(ValueError):
            base64url(segment.replace(b"?", other))


@given(st.binary())
def test_base64url_decodes_its_own_encoding(data: bytes) -> None:
    assert base64url(b64(data).encode()) == data


@given(st.text("AQgwBx_-9", max_size=12))
def test_every_value_has_exactly_one_segment(segment: str) -> None:
    try:
        decoded = base64url(segment.encode())
    except ValueError:
        return
    assert b64(decoded) == segment


def test_numbers_with_large_exponents_take_little_longer_than_others() -> None:
    def least(number: str) -> float:
        text = f'{{"a":[{",".join([number] * 2000)}]}}'.encode()
        return least_cpu_s(lambda: strict_json_object(text), repeat=5)

    assert least("1e308") < 20 * least("11.25")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.dictionaries(st.text(), st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=8)))
def test_all_json_values_are_decoded_unchanged(value: dict[str, Any]) -> None:
    assert strict_json_object(json.dumps(value).encode()) == value
    assert strict_json_object(json.dumps(value, ensure_ascii=False).encode()) == value
