"""One key set: each key is read alone, and a kid matches exactly."""

import asyncio
import ssl
from typing import Any

import pytest

from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.jwk import secret_key
from sidecar.jwt.jwks.key_set import MAX_KEYS, MAX_KEYS_TRIED, FetchFailed, Jwks, TooManyKeys, quoted
from tests.peers import tokens

ALICE, BOB = tokens.public_jwk("EdDSA", "a"), tokens.public_jwk("EdDSA", "b")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="[]"),
        pytest.param(None, id="null"),
        pytest.param("", id='""'),
        pytest.param(5, id="number"),
        pytest.param({}, id="{}"),
        pytest.param({"keys": None}, id='{"keys":null}'),
        pytest.param({"keys": {}}, id='{"keys":{}}'),
        pytest.param({"keys": "x"}, id='{"keys":"x"}'),
        pytest.param({"KEYS": [tokens.public_jwk()]}, id="another case"),
        pytest.param({"error": "not found"}, id='{"error":..}'),
        pytest.param({"a": "-----BEGIN CERTIFICATE-----", "b": 5}, id="PEM by kid, and something else"),
        pytest.param([tokens.public_jwk()], id="a bare list of keys"),
        pytest.param(tokens.public_jwk(), id="a bare key"),
    ],
)
def test_a_document_without_a_list_of_keys_is_refused(document: object) -> None:
    with pytest.raises(FetchFailed) as caught:
        Jwks.of(document, ALGORITHMS)
    assert str(caught.value) == "the document is not a JWK Set: it has no list `keys`"


def test_a_key_set_without_a_usable_key_is_refused() -> None:
    with pytest.raises(FetchFailed) as caught:
        Jwks.of({"keys": []}, ALGORITHMS)
    assert str(caught.value) == "the key set has no usable key (it is empty)"
    with pytest.raises(FetchFailed) as caught:
        Jwks.of({"keys": [5, tokens.jwk(b"secret", kid="x")]}, ALGORITHMS)
    assert str(caught.value) == (
        'the key set has no usable key (key 0: it is not an object; key 1 (kid "x"): its kty is not RSA, EC or OKP)'
    )


def of_one_key(count: int) -> list[Any]:
    return [tokens.jwk(tokens.key("EdDSA"), kid=f"{n}") for n in range(count)]


def test_keys_beyond_the_limit_are_skipped_and_named() -> None:
    assert Jwks.of({"keys": of_one_key(MAX_KEYS)}, ALGORITHMS).skipped == ()
    jwks = Jwks.of({"keys": [*of_one_key(MAX_KEYS + 22), 5, {"kid": "a\n" * 50}]}, ALGORITHMS)
    assert [key.kid for key in jwks.keys] == [f"{n}" for n in range(MAX_KEYS)]
    names = ", ".join(f'"{MAX_KEYS + n}"' for n in range(20))
    assert jwks.skipped == (f"24 keys after the first 1000, which is the limit ({names})",)


def test_quoted_values_of_a_document_are_printable_and_cut() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert quoted(deep, 9) == "nested too deeply"
    assert (quoted("a\nb", 6), quoted("a\nb", 5), quoted(None, 9)) == (r'"a\nb"', r'"a\nb...', "null")


def test_the_number_of_listed_reasons_is_limited() -> None:
    jwks = Jwks.of({"keys": [ALICE, *[5] * 99, *of_one_key(1)]}, ALGORITHMS)
    assert len(jwks.keys) == 2
    assert jwks.skipped == (*(f"key {n}: it is not an object" for n in range(1, 21)), "79 more like these")
    with pytest.raises(FetchFailed) as caught:
        Jwks.of({"keys": [5] * 100_000}, ALGORITHMS)
    assert len(str(caught.value)) < 1000


async def test_a_large_key_set_is_read_in_several_steps() -> None:
    document = {"keys": [5, *of_one_key(MAX_KEYS)]}
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    jwks = await Jwks.of_in_turns(document, ALGORITHMS)
    other.cancel()
    assert turns >= MAX_KEYS // 20
    assert jwks.same_as(Jwks.of(document, ALGORITHMS))
    assert jwks.skipped == Jwks.of(document, ALGORITHMS).skipped
    assert await Jwks.of_in_turns(jwks, ALGORITHMS) is jwks
    unusable: list[dict[str, Any]] = [{}, {"keys": []}, {"keys": [5]}]
    for wrong in unusable:
        with pytest.raises(FetchFailed):
            await Jwks.of_in_turns(wrong, ALGORITHMS)


def of_version_8() -> str:
    der = ssl.PEM_cert_to_DER_cert(tokens.certificate("ES256"))
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1))


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(tokens.public_jwk("ES256"), id="EC first"),
        pytest.param(tokens.public_jwk("EdDSA"), id="OKP first"),
        pytest.param({"kty": "AKP", "kid": "x", "alg": "ML-DSA-44", "pub": "x"}, id="AKP first"),
        pytest.param({"kty": "x"}, id="unknown kty"),
        pytest.param({"kty": "RSA", "kid": "x"}, id="RSA without n/e"),
        pytest.param({"kty": "RSA", "n": "", "e": ""}, id='n=""'),
        pytest.param({"kty": "RSA", "n": 5, "e": 5}, id="n=5"),
        pytest.param({"kty": "RSA", "n": "é", "e": "é"}, id='n="é"'),
        pytest.param({**tokens.public_jwk(), "e": "AQ"}, id="e=1"),
        pytest.param({"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}, id="off-curve"),
        pytest.param({"kty": "EC", "crv": "x", "x": "AQ", "y": "AQ"}, id="unknown crv"),
        pytest.param({"kty": "EC", "crv": ["P-256"], "x": "AQ", "y": "AQ"}, id="crv list"),
        pytest.param(5, id="non-object"),
        pytest.param(None, id="non-object: null"),
        pytest.param({**tokens.public_jwk(), "kid": 5}, id="kid number"),
        pytest.param({**tokens.public_jwk(), "kid": ["x"]}, id="kid list"),
        pytest.param(tokens.jwk(tokens.rsa_key(2048, "b")), id="kid missing"),
        pytest.param({**tokens.public_jwk(), "key_ops": 5}, id="key_ops=5"),
        pytest.param({"kty": "RSA", "n": tokens.b64uint(2**100_000), "e": "AQAB"}, id="100 kbit n"),
        pytest.param(tokens.jwk(tokens.rsa_key(512), kid="x"), id="weak RSA"),
        pytest.param(tokens.jwk(b"secret", kid="rsa-a"), id="oct key in the JWKS"),
    ],
)
def test_an_invalid_key_does_not_affect_the_good_ones(odd: object) -> None:
    good = tokens.public_jwk("RS256")
    for members in ([odd, good], [good, odd]):
        found = Jwks.of({"keys": members}, ALGORITHMS).find("rsa-a", "RS256")
        assert [key.by_algorithm["RS256"] for key, _ in found] == [jose_key for _, jose_key in found]
        assert len(found) == 1


def test_skipped_keys_are_reported() -> None:
    jwks = Jwks.of({"keys": [5, tokens.public_jwk(), {"kty": "x"}]}, ALGORITHMS)
    assert jwks.skipped == ("key 0: it is not an object", "key 2: its kty is not RSA, EC or OKP")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(of_version_8(), id="a certificate of an unknown version"),
        pytest.param("-----BEGIN PUBLIC KEY-----\ud800", id="half of a surrogate pair"),
    ],
)
def test_an_invalid_certificate_does_not_affect_the_good_ones(odd: str) -> None:
    jwks = Jwks.of({"odd": odd, "good": tokens.public_pem("ES256").decode()}, ["ES256"])
    assert [key.kid for key in jwks.keys] == ["good"]
    assert jwks.skipped == ("key 0: it holds no PEM public key or certificate; write one with openssl pkey -pubout",)


def test_skipped_keys_are_reported_with_kid_and_algorithm() -> None:
    odd = [
        {**tokens.public_jwk("ES256"), "alg": "ES256K"},
        {"kty": "AKP", "alg": "ML-DSA-44"},
        {"kty": "x", "alg": "\n" * 50},
        {"kty": "x", "alg": ["x"]},
    ]
    assert Jwks.of({"keys": [ALICE, *odd]}, ALGORITHMS).skipped == (
        'key 1 (kid "p-256-a", alg "ES256K"): it fits none of the allowed algorithms',
        'key 2 (alg "ML-DSA-44"): its kty is not RSA, EC or OKP',
        'key 3 (alg "' + 19 * r"\n" + "\\...): its kty is not RSA, EC or OKP",
        'key 4 (alg ["x"]): its kty is not RSA, EC or OKP',
    )


@pytest.mark.parametrize(
    "kid",
    [
        pytest.param("ED25519-A", id="kid injection: case variant"),
        pytest.param("ed25519-a ", id="kid injection: trailing space"),
        pytest.param("ed25519-a\0", id="kid injection: NUL"),
        pytest.param("ed25519", id="kid injection: prefix"),
        pytest.param("../../dev/null", id="kid injection: path"),
        pytest.param("' OR 1=1 --", id="kid injection: SQL"),
        pytest.param("a\r\nb", id="kid injection: CRLF"),
        pytest.param("https://evil.example/jwks", id="kid injection: URL"),
        pytest.param("__proto__", id="kid injection: __proto__"),
        pytest.param("", id="kid injection: empty"),
    ],
)
def test_a_kid_matches_only_exactly(kid: str) -> None:
    jwks = Jwks.of({"keys": [ALICE]}, ALGORITHMS)
    assert len(jwks.find("ed25519-a", "EdDSA")) == 1
    assert jwks.find(kid, "EdDSA") == []


def test_a_key_is_found_only_for_its_own_algorithms() -> None:
    jwks = Jwks.of({"keys": [tokens.public_jwk("ES256"), tokens.public_jwk("EdDSA")]}, ALGORITHMS)
    assert jwks.find("p-256-a", "RS256") == []
    assert jwks.find("p-256-a", "ES384") == []
    assert jwks.find("ed25519-a", "ES256") == []


def test_a_token_without_kid_fits_a_limited_number_of_keys() -> None:
    members = [tokens.jwk(tokens.key("EdDSA"), kid=f"{n}") for n in range(MAX_KEYS_TRIED + 1)]
    few = Jwks.of({"keys": [tokens.public_jwk("ES256"), *members[:-1]]}, ALGORITHMS)
    assert [key.kid for key, _ in few.find(None, "EdDSA")] == [f"{n}" for n in range(MAX_KEYS_TRIED)]
    many = Jwks.of({"keys": [tokens.public_jwk("ES256"), *members]}, ALGORITHMS)
    assert [key.kid for key, _ in many.find(None, "ES256")] == ["p-256-a"]
    assert [key.kid for key, _ in many.find("7", "EdDSA")] == ["7"]
    with pytest.raises(TooManyKeys):
        many.find(None, "EdDSA")


@pytest.mark.parametrize("name", ["x5t", "x5t#S256"])
def test_a_thumbprint_selects_a_key_without_kid(name: str) -> None:
    members = [tokens.jwk(tokens.key("EdDSA"), kid=f"{n}", **{name: f"of {n}"}) for n in range(MAX_KEYS_TRIED + 1)]
    jwks = Jwks.of({"keys": [*members, tokens.public_jwk("ES256", **{name: "of 3"})]}, ALGORITHMS)
    for here in (
        jwks,
        Jwks.of({"keys": [key.jwk() for key in jwks.keys]}, ALGORITHMS),
    ):  # the second one as from a snapshot
        assert [key.kid for key, _ in here.find(None, "EdDSA", "of 3")] == ["3"]
        assert [key.kid for key, _ in here.find("5", "EdDSA", "of 3")] == ["5"]
        with pytest.raises(TooManyKeys):
            here.find(None, "EdDSA", "of another")


def test_key_sets_with_different_thumbprints_are_different() -> None:
    one, other, same = (Jwks.of({"keys": [{**ALICE, "x5t": x5t}]}, ALGORITHMS) for x5t in ("a", "b", "a"))
    assert one.same_as(same)
    assert not one.same_as(other)
    assert not one.same_as(Jwks.of({"keys": [{**BOB, "x5t": "a"}]}, ALGORITHMS))


def test_a_key_without_kid_fits_every_kid_of_no_other_key() -> None:
    members = [tokens.jwk(tokens.key("EdDSA", name)) for name in ("a", "b")]
    jwks = Jwks.of({"keys": [*members, tokens.public_jwk("EdDSA", "c")]}, ALGORITHMS)
    assert [key for key, _ in jwks.find("whatever", "EdDSA")] == list(jwks.keys[:2])
    assert [key for key, _ in jwks.find("ed25519-c", "EdDSA")] == [jwks.keys[2]]
    assert jwks.find("whatever", "ES256") == []
    with pytest.raises(TooManyKeys):
        Jwks.of({"keys": members * MAX_KEYS_TRIED}, ALGORITHMS).find("whatever", "EdDSA")


def test_a_duplicate_kid_finds_both_keys_in_order() -> None:
    members = [tokens.jwk(tokens.key("EdDSA", name), kid="x") for name in ("a", "b")]
    jwks = Jwks.of({"keys": [*members, tokens.jwk(tokens.key("ES256"), kid="x")]}, ALGORITHMS)
    assert [key for key, _ in jwks.find("x", "EdDSA")] == list(jwks.keys[:2])
    assert [key for key, _ in jwks.find("x", "ES256")] == list(jwks.keys[2:])


def test_a_key_set_contains_its_keys() -> None:
    here, there = Jwks.of({"keys": [ALICE]}, ALGORITHMS), Jwks.of({"keys": [BOB]}, ALGORITHMS)
    assert here.keys[0] in here
    assert here.keys[0] in Jwks.of({"keys": [BOB, ALICE]}, ALGORITHMS)
    assert here.keys[0] not in there
    assert "ed25519-a" not in here
    assert repr(here) == "<Jwks of 1 keys>"


def test_a_prepared_key_set_is_used_unchanged_and_may_fit_any_kid() -> None:
    secret = secret_key(b"x" * 32, ["HS256"])
    unnamed = Jwks([secret], any_kid=True)
    assert Jwks.of(unnamed, ALGORITHMS) is unnamed
    assert [key for key, _ in unnamed.find("whatever", "HS256")] == [secret]
