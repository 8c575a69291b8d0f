"""The accepted kinds of tokens of an issuer, and the recorded checks of a token."""

from collections.abc import Mapping
from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.compact_jws import PADDED
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.examination import Examination
from sidecar.jwt.issuer import ACCEPTED_TYP, Issuer
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_set import Jwks, KeySet
from sidecar.jwt.verifier import Verifier
from tests.peers import tokens
from tests.peers.clock import EPOCH, HandClock
from tests.peers.tokens import ABSENT
from tests.peers.waiting import cached, verified, verifier_of

NOW = int(EPOCH)
ALL_CHECKS = [
    "shape", "header", "issuer", "typ", "algorithm", "key", "signature", "exp", "nbf", "iat", "aud", "names", "cnf", "denylist",
]  # fmt: skip


async def nothing() -> KeySet:
    raise AssertionError("no key is to be fetched")


class AskedJwks(Jwks):
    """Counts the lookups of keys."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return super().__contains__(key)


class AskedDenyList(DenyList):
    """Counts the lookups of tokens."""

    asked = 0

    def denies(self, issuer: str, claims: Mapping[str, Any]) -> bool:
        self.asked += 1
        return super().denies(issuer, claims)


def jwks() -> AskedJwks:
    return AskedJwks(Jwks.of({"keys": [tokens.public_jwk("EdDSA")]}, ["EdDSA"]).keys)


def verifier(accepted_typ: Any = ACCEPTED_TYP) -> Verifier:
    clock = HandClock()
    source = JwksSource("main", nothing, ["EdDSA"], clock)
    source.jwks = jwks()
    source.trusted_until = float("inf")
    rules = ClaimRules([tokens.AUDIENCE])
    issuer = Issuer("main", tokens.ISSUER, ["EdDSA"], rules, source, accepted_typ)
    return verifier_of([issuer], clock, AskedDenyList(clock, {tokens.ISSUER: "main"}))


def token(**header: Any) -> bytes:
    return tokens.token("EdDSA", now=NOW, header=header).encode()


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "Jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT", ABSENT]
)
async def test_jwt_and_at_jwt_are_accepted_by_default(typ: object) -> None:
    await verified(verifier(), token(typ=typ))


@pytest.mark.parametrize(
    "typ",
    [
        "", "JWS", "JOSE", "JWE", "dpop+jwt", "logout+jwt", "secevent+jwt", "id+jwt", "jwt ", " JWT", "at+jwt;a=b", "text/jwt",
        "application/", "application/application/jwt", "at jwt",
    ],
)  # fmt: skip
async def test_another_typ_is_refused_by_default(typ: str) -> None:
    with pytest.raises(Rejection) as caught:
        await verified(verifier(), token(typ=typ))
    assert caught.value.reason is Reason.TOKEN_MALFORMED
    assert caught.value.details == "The token's type (typ) is not accepted here."


@pytest.mark.parametrize("typ", [None, 5, True, [], ["JWT"], {"JWT": 1}])
async def test_a_typ_that_is_not_a_string_is_refused(typ: object) -> None:
    with pytest.raises(Rejection) as caught:
        await verified(verifier(), token(typ=typ))
    assert (caught.value.reason, caught.value.details) == (
        Reason.TOKEN_MALFORMED,
        "The token's typ is not a string.",
    )


@pytest.mark.parametrize(
    ("accepted", "typ", "good"),
    [
        (["at+jwt"], "at+jwt", True),
        (["application/at+JWT"], "AT+jwt", True),
        (["at+jwt"], "JWT", False),
        (["at+jwt"], ABSENT, False),
        (["absent"], ABSENT, True),
        (["absent"], "JWT", False),
        (["JOSE"], "jose", True),
    ],
)
async def test_accepted_typ_replaces_the_accepted_kinds(accepted: list[str], typ: object, good: bool) -> None:
    if good:
        await verified(verifier(accepted), token(typ=typ))
    else:
        with pytest.raises(Rejection, match="token_malformed"):
            await verified(verifier(accepted), token(typ=typ))


async def test_every_check_of_a_good_token_is_reported_in_order() -> None:
    seen = Examination()
    await verified(verifier(), token(), seen)
    assert [check.name for check in seen.begun] == ALL_CHECKS
    assert seen.jws is not None
    assert seen.key is not None
    assert (seen.issuer, seen.key.kid) == ("main", "ed25519-a")


async def test_every_check_of_a_good_token_reports_what_it_expected_and_found() -> None:
    seen = Examination()
    await verified(verifier(["jwt"]), token(typ="JWT"), seen)
    assert [(check.name, check.expected(seen), check.found(seen, NOW)) for check in seen.begun] == [
        ("shape", "", "a header, a payload and a signature"),
        ("header", "", "alg EdDSA, kid ed25519-a, typ JWT"),
        ("issuer", f"one of: {tokens.ISSUER}", f"main: {tokens.ISSUER}"),
        ("typ", "one of: jwt", "JWT"),
        ("algorithm", "one of: EdDSA", "EdDSA"),
        ("key", "kid ed25519-a for EdDSA", "main has ed25519-a"),
        ("signature", "", "matches"),
        ("exp", "a time in the future, with 60 s of skew", "in 5 min"),
        ("nbf", "a time in the past, with 60 s of skew", "absent"),
        ("iat", "a time in the past, with 60 s of skew", "0 s ago"),
        ("aud", f"one of: {tokens.AUDIENCE}", tokens.AUDIENCE),
        ("names", "a string in sub and jti", "sub alice, jti absent"),
        ("cnf", "no key that the token is bound to", "absent"),
        ("denylist", "", "not on it"),
    ]


@pytest.mark.parametrize(
    ("last", "wrong"),
    [
        ("shape", b"a.b"),
        ("header", token(crit=["x"])),
        ("issuer", tokens.token("EdDSA", now=NOW, iss="https://other.test/").encode()),
        ("typ", token(typ="JOSE")),
        ("algorithm", tokens.token("RS256", now=NOW).encode()),
        ("signature", tokens.flip(token().decode()).encode()),
        ("exp", tokens.token("EdDSA", now=NOW, exp=1).encode()),
        ("nbf", tokens.token("EdDSA", now=NOW, nbf=NOW + 900).encode()),
        ("iat", tokens.token("EdDSA", now=NOW, iat=NOW + 900).encode()),
        ("aud", tokens.token("EdDSA", now=NOW, aud="other").encode()),
        ("cnf", tokens.token("EdDSA", now=NOW, cnf={"jkt": "x"}).encode()),
    ],
)
async def test_the_last_reported_check_is_the_refusing_one(last: str, wrong: bytes) -> None:
    seen = Examination()
    with pytest.raises(Rejection):
        await verified(verifier(), wrong, seen)
    assert [check.name for check in seen.begun] == ALL_CHECKS[: ALL_CHECKS.index(last) + 1]


async def test_the_key_is_reported_only_after_it_has_verified() -> None:
    seen = Examination()
    with pytest.raises(Rejection):
        await verified(verifier(), tokens.flip(token().decode()).encode(), seen)
    assert seen.key is None
    signature = seen.begun[-1]
    assert (signature.expected(seen), signature.found(seen, NOW)) == ("", "does not match kid ed25519-a")


@pytest.mark.parametrize(
    ("kept", "error", "found"),
    [
        (False, None, "the keys were not fetched yet"),
        (False, "status 500", "status 500"),
        (True, "status 500", "status 500"),
    ],
    ids=["no fetch", "a failure", "keys that are too old"],
)
async def test_the_failure_of_a_fetch_is_reported_without_trusted_keys(
    kept: bool, error: str | None, found: str
) -> None:
    judge, seen = verifier(), Examination()
    source = judge.issuers.all[0].source
    source.trusted_until, source.last_error = float("-inf"), error
    if not kept:
        source.jwks = None
    with pytest.raises(Rejection, match="jwks_unavailable"):
        await verified(judge, token(), seen)
    key = seen.begun[-1]
    assert (key.name, key.expected(seen), key.found(seen, NOW)) == ("key", "", found)


async def test_skipped_keys_are_reported_beside_the_used_ones() -> None:
    judge, seen = verifier(), Examination()
    judge.issuers.all[0].source.jwks = Jwks.of({"keys": [tokens.public_jwk("EdDSA"), 5, {}]}, ["EdDSA"])
    await verified(judge, token(), seen)
    key = next(check for check in seen.begun if check.name == "key")
    assert (
        key.found(seen, NOW)
        == "main has ed25519-a; left out: key 1: it is not an object; key 2: its kty is not RSA, EC or OKP"
    )


# Invalid headers, and the counters


@pytest.mark.parametrize(
    ("header", "details"),
    [
        ({"alg": ABSENT}, "The token's header has no alg."),
        ({"alg": 5}, "The token's header has no alg."),
        ({"crit": ["exp"]}, "The token's header asks for an extension that is not supported."),
        ({"b64": True}, "The token's header asks for an extension that is not supported."),
        ({"kid": 5}, "The token's kid is not a string."),
        ({"kid": None}, "The token's kid is not a string."),
    ],
)
async def test_an_invalid_header_is_refused_with_its_fault(header: dict[str, Any], details: str) -> None:
    with pytest.raises(Rejection) as caught:
        await verified(verifier(), token(**header))
    assert (caught.value.reason, caught.value.details) == (Reason.TOKEN_MALFORMED, details)


async def test_a_padded_token_is_refused_by_default() -> None:
    padded = b".".join(part + b"=" * (-len(part) % 4) for part in token().split(b"."))
    assert padded != token()
    with pytest.raises(Rejection) as caught:
        await verified(verifier(), padded)
    assert (caught.value.reason, caught.value.details) == (Reason.TOKEN_MALFORMED, PADDED)


async def test_only_a_valid_remembered_token_counts_as_a_hit() -> None:
    judge = verifier()
    (issuer,) = judge.issuers.all
    good = token()
    await verified(judge, good)
    assert (judge.hits, judge.misses) == (0, 1)
    claims = cached(judge, good)
    assert claims is not None
    assert (judge.hits, judge.misses) == (1, 1)

    issuer.source.trusted_until = float("-inf")
    assert cached(judge, good) is None
    issuer.source.trusted_until = float("inf")

    judge.denylist.add({"iss": tokens.ISSUER, "sub": "alice"})
    assert cached(judge, good) is None

    issuer.source.jwks = None
    assert cached(judge, good) is None
    assert cached(judge, b"another") is None
    assert (judge.hits, judge.misses) == (1, 1)
    with pytest.raises(Rejection):
        await verified(judge, b"another")
    assert (judge.hits, judge.misses) == (1, 2)


async def test_a_remembered_token_is_checked_once_against_each_key_set_and_deny_list() -> None:
    judge, good = verifier(), token()
    source, denials = judge.issuers.all[0].source, judge.denylist
    first, second = source.jwks, jwks()
    assert isinstance(first, AskedJwks)
    assert isinstance(denials, AskedDenyList)
    await verified(judge, good)
    assert (first.asked, denials.asked) == (0, 1)
    for _ in range(2):
        assert cached(judge, good)
    assert (first.asked, denials.asked) == (0, 1)

    source.jwks = second
    denials.add({"iss": tokens.ISSUER, "sub": "bob"})
    for _ in range(2):
        assert cached(judge, good)
    assert (second.asked, denials.asked) == (1, 2)
