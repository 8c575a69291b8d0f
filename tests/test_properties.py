"""Every token ends as Claims or as a Rejection, and an unsigned one never as Claims.

`make properties` gives these properties 1,000,000 tokens and more (tests/proofs/properties.py).
"""

import functools
import json
import string
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.errors import Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.compact_jws import parse
from sidecar.jwt.subjects import Subjects
from tests.peers import tokens
from tests.peers.tokens import b64
from tests.proofs.judge import AUDIENCES, RELAXED_RULES, RULES, Judge, acceptable
from tests.proofs.odd_tokens import GOOD, NAMES, NOW, QUICK, VALUES, Odd, odd_token

judge = functools.cache(Judge)

NUMBERS = st.integers() | st.floats() | st.integers(NOW - 400, NOW + 400) | st.floats(NOW - 70, NOW + 70)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text() | st.sampled_from(VALUES)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES) | st.text(), JSON, max_size=6)
SIGNERS = st.sampled_from(QUICK)
RANDOM = st.randoms(use_true_random=False)


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(st.binary() | st.text(f"{string.ascii_letters}{string.digits}-_....", max_size=300).map(str.encode))
def test_random_bytes_are_rejected(token: bytes) -> None:
    assert judge().judge(Odd("noise", token)) != "accepted"


@given(RANDOM)
def test_a_changed_token_is_accepted_only_if_its_signed_part_is_unchanged(random: Random) -> None:
    judge().judge(odd_token(random))


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=4)), max_size=3),
    st.sampled_from(GOOD),
)
def test_a_valid_token_with_other_bytes_is_accepted_only_if_its_signed_part_is_unchanged(
    changes: list[tuple[int, int, bytes]], token: bytes
) -> None:
    for at, removed, added in changes:
        token = token[:at] + added + token[at + removed :]
    judge().judge(Odd("mutated", token))


@given(OBJECTS, OBJECTS, SIGNERS)
def test_signed_claims_of_any_content_are_judged(header: dict[str, Any], claims: dict[str, Any], signer: Any) -> None:
    for said in (claims, tokens.claims(now=NOW, iss=signer.iss) | claims):
        for named in (header, {**header, "alg": signer.alg, "kid": signer.kid}):
            token = tokens.sign(signer.key, signer.alg, text(named), text(said)).encode()
            judge().judge(Odd("signed", token, token.rpartition(b".")[0], signer.owner))


@given(OBJECTS, st.sampled_from(GOOD), st.binary(max_size=80))
def test_an_unsigned_token_is_never_accepted(claims: dict[str, Any], token: bytes, other: bytes) -> None:
    header, payload, signature = tokens.parts(token.decode())
    if (unsigned := text(json.loads(payload) | claims)) != payload:
        for made_up in (signature, other):
            assert judge().judge(Odd("unsigned", tokens.join(header, unsigned, made_up).encode())) != "accepted"


@given(OBJECTS, OBJECTS, st.binary())
def test_every_readable_token_has_one_spelling(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes
) -> None:
    token = tokens.join(text(header), text(claims), signature).encode()
    try:
        jws = parse(token)
    except Rejection:
        return
    assert (jws.header, jws.payload, jws.signature) == (header, claims, signature)
    assert jws.signing_input + b"." + b64(jws.signature).encode() == token


DATES = {name: st.integers(NOW - 400, NOW + 400) | JSON for name in ("exp", "nbf", "iat")}
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        **DATES,
        "aud": st.sampled_from([tokens.AUDIENCE, [tokens.AUDIENCE], "other"]) | JSON,
        "sub": st.sampled_from(["alice", "svc:a", "a/b/c"]) | JSON,
        "cnf": st.dictionaries(st.sampled_from(["jkt", "x5t#S256", "jwk"]), JSON) | JSON,
        "a": JSON,
        "a.b": JSON,
    },
)
STRICT = ClaimRules(
    AUDIENCES,
    all_audiences=True,
    audience_claims=("aud", "a"),
    clock_skew_s=0,
    max_lifetime_s=300,
    required=[("a", "b")],
    rejected=[("a", "c")],
    subjects=Subjects(["alice"], ["svc:"], ["a/*/c"]),
)


@given(CLAIMS | OBJECTS)
def test_claims_of_any_kind_are_judged(claims: dict[str, Any]) -> None:
    for rules, good in (
        (RULES, acceptable(claims)),
        (RELAXED_RULES, acceptable(claims, relaxed=True)),
        (STRICT, None),
    ):
        try:
            valid_from, valid_until = rules.check(claims, NOW)
        except Rejection:
            assert not good
        else:
            assert valid_from <= NOW < valid_until
            assert good or (good is None and valid_until <= NOW + 300)
