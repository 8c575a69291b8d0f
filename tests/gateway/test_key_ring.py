"""Signing keys with times: which one signs and which are published as time passes; and their file."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from sidecar.common.errors import Reason, Rejection
from sidecar.gateway.key_ring import ALWAYS, NEVER, KeyRing, TimedKey, rotated
from sidecar.gateway.signing_key import ALGORITHMS, SigningKey
from tests.peers import tokens

FIRST, SECOND, OTHER = SigningKey.generate("EdDSA"), SigningKey.generate("EdDSA"), SigningKey.generate("ES256")
RING = KeyRing(
    [
        TimedKey(FIRST, 0, 0, retire_at=4600),
        TimedKey(SECOND, publish_from=100, sign_from=1000),
        TimedKey(OTHER),
    ]
)


def signer(now: float, algorithm: str = "EdDSA", ring: KeyRing = RING) -> SigningKey:
    return ring.signer(algorithm, now).key


@pytest.mark.parametrize(
    ("now", "signs", "published"),
    [
        (0, FIRST, {FIRST}),
        (99, FIRST, {FIRST}),
        (100, FIRST, {FIRST, SECOND}),
        (999, FIRST, {FIRST, SECOND}),
        (1000, SECOND, {FIRST, SECOND}),
        (4599, SECOND, {FIRST, SECOND}),
        (4600, SECOND, {SECOND}),
    ],
)
def test_a_key_is_published_before_it_signs_and_after_it_stops(
    now: float, signs: SigningKey, published: set[SigningKey]
) -> None:
    assert signer(now) is signs
    assert set(RING.published(now)) == published | {OTHER}
    assert signer(now, "ES256") is OTHER


def test_a_missing_key_for_the_time_and_algorithm_is_signing_unavailable() -> None:
    later, gone = TimedKey(FIRST, 10, 10), TimedKey(SECOND, 0, 0, 10)
    for ring, algorithm in ((KeyRing([]), "EdDSA"), (RING, "RS256"), (KeyRing([later]), "EdDSA")):
        with pytest.raises(Rejection) as caught:
            ring.signer(algorithm, 9)
        assert (caught.value.reason, caught.value.retry_after_s) == (Reason.SIGNING_UNAVAILABLE, 60)
    with pytest.raises(Rejection):
        KeyRing([gone]).signer("EdDSA", 10)
    assert KeyRing([gone]).published(10) == []


def test_all_replicas_choose_the_same_of_two_simultaneous_keys() -> None:
    both = [TimedKey(FIRST, 0, 5), TimedKey(SECOND, 0, 5)]
    assert signer(5, ring=KeyRing(both)) is signer(5, ring=KeyRing(reversed(both)))


# The file


def file(*documents: Any) -> bytes:
    return json.dumps({"keys": documents}).encode()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_is_written_and_read_as_a_private_jwk_with_its_times(alg: str) -> None:
    timed = TimedKey(SigningKey.generate(alg), 1_800_000_000, 1_800_000_900, 1_800_003_600)
    document = timed.document()
    assert document["publish_from"] == "2027-01-15T08:00:00Z"
    (read,) = KeyRing.read(file(document)).keys
    assert read[1:] == timed[1:]
    assert read.key.jwk == timed.key.jwk
    tokens.verify(read.key.sign({}), timed.key.jwk, alg)
    assert TimedKey.read(TimedKey(timed.key).document())[1:] == (ALWAYS, ALWAYS, NEVER)


ED25519 = FIRST.private_jwk()
P256 = OTHER.private_jwk()
RSA = SigningKey.generate("RS256").private_jwk()
NO_KEY = "is no private JWK of Ed25519, RSA with 2048 bits or more, or P-256"
CONTRADICTS = "contradicts itself: its public members, kid and alg must belong to its private key"
ORDER = "must be published no later than it signs, and retire after that"
T1, T2 = "2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z"


def small_rsa() -> dict[str, Any]:
    return tokens.private_jwk(rsa.generate_private_key(65537, 1024))


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        pytest.param(5, "must be an object", id="number"),
        pytest.param({}, NO_KEY, id="empty"),
        pytest.param(FIRST.jwk, NO_KEY, id="public key"),
        pytest.param(ED25519 | {"d": 5}, NO_KEY, id="number as key"),
        pytest.param(ED25519 | {"d": ED25519["d"][:-1]}, NO_KEY, id="short key"),
        pytest.param({"kty": "oct", "k": "AAAA"}, NO_KEY, id="secret"),
        pytest.param(P256 | {"crv": "P-384"}, NO_KEY, id="other curve"),
        pytest.param(P256 | {"d": "AA"}, NO_KEY, id="zero"),
        pytest.param({**RSA, "p": RSA["q"], "q": RSA["q"]}, NO_KEY, id="RSA with two equal factors"),
        pytest.param(small_rsa(), NO_KEY, id="small RSA"),
        pytest.param(ED25519 | {"x": SECOND.jwk["x"]}, CONTRADICTS, id="public key of another pair"),
        pytest.param(ED25519 | {"kid": "a"}, CONTRADICTS, id="another kid"),
        pytest.param(ED25519 | {"alg": "RS256"}, CONTRADICTS, id="another algorithm"),
        pytest.param(RSA | {"alg": "PS256"}, CONTRADICTS, id="another algorithm of the same key"),
        pytest.param(ED25519 | {"publish_from": T2, "sign_from": T1}, ORDER, id="signs before it is published"),
        pytest.param(ED25519 | {"publish_from": T1}, ORDER, id="signs always, but is published later"),
        pytest.param(ED25519 | {"sign_from": T2, "retire_at": T2}, ORDER, id="retires when it starts to sign"),
        pytest.param(
            ED25519 | {"retire_at": 5}, "a time must be written like 2026-12-31T23:59:59Z", id="number as time"
        ),
    ],
)
def test_an_invalid_signing_key_is_refused_with_its_problem(document: Any, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        KeyRing.read(file(P256, document))
    assert str(caught.value) == f"key 1: {problem}"
    assert ED25519["d"] not in str(caught.value)


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^has the same key twice$"):
        KeyRing.read(file(ED25519, ED25519 | {"sign_from": T1}))


# Rotation


def test_each_algorithm_has_one_signing_key() -> None:
    assert [timed.key for timed in RING.signers(0)] == [OTHER, FIRST]
    assert [timed.key for timed in RING.signers(1000)] == [OTHER, SECOND]
    assert KeyRing([TimedKey(FIRST, 0, 5, 9)]).signers(4) == KeyRing([TimedKey(FIRST, 0, 5, 9)]).signers(9) == []
    assert len(KeyRing([TimedKey(FIRST, 0, 5, 9)]).signers(5)) == 1


def times(ring: KeyRing) -> list[tuple[float, ...]]:
    return [timed[1:] for timed in ring.keys]


def test_the_first_key_of_a_ring_signs_at_once() -> None:
    ring = rotated(KeyRing([TimedKey(OTHER)]), "EdDSA", 100.7, 900, 3600)
    assert times(ring) == [(ALWAYS, ALWAYS, NEVER), (100, 100, NEVER)]
    assert [timed.key.alg for timed in ring.keys] == ["ES256", "EdDSA"]


def test_the_next_key_takes_over_and_earlier_keys_retire_later() -> None:
    ring = rotated(KeyRing([TimedKey(FIRST, 0, 0), TimedKey(OTHER)]), "EdDSA", 100, 900, 3600)
    assert times(ring) == [(0, 0, 4600), (ALWAYS, ALWAYS, NEVER), (100, 1000, NEVER)]
    again = rotated(ring, "EdDSA", 200, 900, 9999)
    assert times(again) == [(0, 0, 4600), (ALWAYS, ALWAYS, NEVER), (100, 1000, 11099), (200, 1100, NEVER)]
    at_once = rotated(ring, "EdDSA", 300, 0, 0)
    assert times(at_once) == [(0, 0, 301), (ALWAYS, ALWAYS, NEVER), (300, 300, NEVER)]


def test_a_planned_key_with_the_same_time_is_replaced() -> None:
    ring = rotated(KeyRing([TimedKey(FIRST, 0, 0)]), "EdDSA", 100, 900, 3600)
    assert times(rotated(ring, "EdDSA", 100, 900, 3600)) == [(0, 0, 4600), (100, 1000, NEVER)]


def test_two_keys_never_begin_to_sign_at_the_same_time() -> None:
    ring = rotated(KeyRing([TimedKey(FIRST, 100, 100)]), "EdDSA", 100, 0, 3600)
    assert times(ring) == [(100, 100, 3701), (100, 101, NEVER)]


def test_retired_keys_are_left_out() -> None:
    gone, last = TimedKey(FIRST, 0, 0, 100), TimedKey(OTHER, 0, 0, 101)
    assert times(rotated(KeyRing([gone, last]), "EdDSA", 100, 900, 3600)) == [(0, 0, 101), (100, 100, NEVER)]


def test_no_kid_looks_like_an_option_to_a_command() -> None:
    kids = [
        rotated(KeyRing([]), "EdDSA", 0, 0, 0).keys[0].key.kid for _ in range(700)
    ]  # without the rule, one in 64 does
    assert [kid for kid in kids if kid.startswith("-")] == []
