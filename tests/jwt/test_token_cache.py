"""Remembered tokens: how long each stays, which key it stays with, and the limits of their cache."""

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sidecar.common.errors import Rejection
from sidecar.jwt.compact_jws import Jws
from sidecar.jwt.token_cache import digest, entry_bytes
from sidecar.jwt.verifier import REMEMBERED_S, TokenCacheUse
from tests.jwt.issuers import NOW, Issuers, good, sent
from tests.peers import tokens
from tests.peers.clock import HandClock, in_its_time
from tests.peers.identity import identity_headers
from tests.peers.tokens import ABSENT
from tests.peers.waiting import cached


@in_its_time
async def test_a_verified_token_is_remembered(issuers: Issuers, clock: HandClock) -> None:
    token = good()
    assert issuers.cached(token) is None
    claims = await issuers.verify(token)
    assert issuers.cached(token) is claims
    assert (issuers.verifier.hits, issuers.verifier.misses) == (1, 1)
    assert repr(issuers.verifier).endswith(": 1 tokens remembered>")


@in_its_time
async def test_a_remembered_token_expires_between_two_uses(issuers: Issuers, clock: HandClock) -> None:
    token = good(exp=NOW + 10)
    await issuers.verify(token)
    clock.advance(69.5)
    assert issuers.cached(token)
    clock.advance(0.5)
    assert await issuers.refusal(token) == "token_expired"


@in_its_time
async def test_a_remembered_token_is_refused_before_its_nbf_when_the_clock_is_set_back(
    issuers: Issuers, clock: HandClock
) -> None:
    token = good(nbf=NOW)
    await issuers.verify(token)
    clock.advance(-60)
    assert issuers.cached(token)
    clock.advance(-1)
    assert await issuers.refusal(token) == "token_not_yet_valid"


@in_its_time
async def test_a_token_is_remembered_for_a_limited_time(issuers: Issuers, clock: HandClock) -> None:
    token = good(exp=NOW + 9999)
    await issuers.verify(token)
    clock.advance(REMEMBERED_S - 0.5)
    assert issuers.cached(token)
    clock.advance(0.5)
    assert issuers.cached(token) is None
    await issuers.verify(token)
    assert issuers.cached(token)


@pytest.mark.parametrize(
    ("variant", "code"),
    [
        pytest.param(lambda token: tokens.flip(token), "signature_invalid", id="same h.p, other signature"),
        pytest.param(lambda token: token.rpartition(".")[0] + ".", "signature_invalid", id="same h.p, no signature"),
        pytest.param(lambda token: token + "A", "signature_invalid", id="junk variant: a letter more"),
        pytest.param(lambda token: token + "=", "token_malformed", id="junk variant: padding"),
        pytest.param(lambda token: token.upper(), "token_malformed", id="case variant"),
        pytest.param(lambda token: " " + token, "token_malformed", id="junk variant: a space"),
        pytest.param(lambda token: token[:-1], "token_malformed", id="junk variant: a letter less"),
    ],
)
@in_its_time
async def test_a_variant_of_a_remembered_token_is_refused(
    issuers: Issuers, variant: Callable[[str], str], code: str, clock: HandClock
) -> None:
    token = good()
    await issuers.verify(token)
    assert await issuers.refusal(variant(token)) == code
    assert issuers.cached(token)


@in_its_time
async def test_a_remembered_token_is_forgotten_when_its_key_is_withdrawn(issuers: Issuers, clock: HandClock) -> None:
    token = good()
    await issuers.verify(token)
    issuers.publish(tokens.public_jwk("EdDSA"))
    assert issuers.cached(token) is None
    assert repr(issuers.verifier).endswith(": 0 tokens remembered>")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(tokens.jwk(tokens.key("RS256", "b"), kid="rsa-a"), id="another key under the same kid"),
        pytest.param(tokens.jwk(tokens.key("RS256"), kid="renamed"), id="the same key under another kid"),
        pytest.param(
            tokens.jwk(tokens.key("RS256"), kid="rsa-a", alg="PS256"), id="the same key for another algorithm"
        ),
        pytest.param(tokens.jwk(tokens.key("EdDSA"), kid="rsa-a"), id="a key of another kind under the same kid"),
    ],
)
@in_its_time
async def test_a_remembered_token_is_forgotten_when_its_key_changes(
    issuers: Issuers, other: dict[str, Any], clock: HandClock
) -> None:
    token = good()
    await issuers.verify(token)
    issuers.publish(other)
    assert issuers.cached(token) is None


@in_its_time
async def test_a_token_stays_remembered_while_its_key_stays_in_the_set(issuers: Issuers, clock: HandClock) -> None:
    token = good()
    claims = await issuers.verify(token)
    issuers.publish(tokens.public_jwk("RS256", "b"), tokens.public_jwk("RS256"))
    assert issuers.cached(token) is claims
    issuers.publish(tokens.public_jwk("RS256", "b"))
    assert issuers.cached(token) is None


@in_its_time
async def test_a_remembered_token_is_refused_while_its_issuers_keys_are_too_old(
    issuers: Issuers, clock: HandClock
) -> None:
    token = good(exp=NOW + 9999)
    await issuers.verify(token)
    issuers.sources["main"].trusted_until = clock.monotonic() + 10
    clock.advance(9.5)
    assert issuers.cached(token)
    clock.advance(0.5)
    assert await issuers.refusal(token) == "jwks_unavailable"
    issuers.sources["main"].trusted_until = float("inf")
    assert issuers.cached(token)


@in_its_time
async def test_a_token_that_is_verified_again_has_the_same_claims_object(issuers: Issuers, clock: HandClock) -> None:
    """Requests that wait for the same keys share rendered headers and minted tokens. Another key needs new ones."""
    token = good("RS256", header={"kid": ABSENT})
    first = await issuers.verify(token)
    assert await issuers.verify(token) is first
    issuers.publish({**tokens.public_jwk("RS256"), "kid": "another"})
    second = await issuers.verify(token)
    assert second is not first
    assert (first.claims, second.kid) == (second.claims, "another")


def test_the_counts_of_a_new_cache_are_zero() -> None:
    assert tuple(TokenCacheUse()) == (0, 0, 0, 0, 0)


@in_its_time
async def test_a_full_cache_drops_the_least_used_tokens(issuers: Issuers, clock: HandClock) -> None:
    first, second = good("EdDSA", jti="1"), good("EdDSA", jti="2")
    few = issuers.remembering(entries=20)
    for token in (first, second):
        few.verify(sent(token))
    for n in range(19):
        assert cached(few, sent(first))
        few.verify(sent(good("EdDSA", jti=f"-{n}")))
    assert cached(few, sent(first))
    assert cached(few, sent(second)) is None
    assert repr(few).endswith(": 20 tokens remembered>")
    assert (few.cache.entries, few.cache.evictions) == (20, 1)


@in_its_time
async def test_remembered_tokens_stay_within_their_limit_of_memory(issuers: Issuers, clock: HandClock) -> None:
    few = issuers.remembering(most_bytes=20_000)
    small, large = good("EdDSA", jti="1"), good("EdDSA", groups=["g" * 10] * 100)
    few.verify(sent(small))
    few.verify(sent(large))
    assert cached(few, sent(small))
    assert cached(few, sent(large))
    assert few.cache.bytes <= 20_000
    few.verify(sent(good("EdDSA", groups=["h" * 10] * 100)))
    assert cached(few, sent(large)) is None
    assert few.cache.bytes <= 20_000
    few.verify(sent(good("EdDSA", groups=["i" * 10] * 400)))  # larger than the limit
    assert few.cache.entries == 1
    few = issuers.remembering()
    few.verify(sent(small))
    for room, entries in ((few.cache.bytes, 1), (few.cache.bytes - 1, 0)):
        alone = issuers.remembering(most_bytes=room)
        alone.verify(sent(small))
        assert alone.cache.entries == entries


@in_its_time
async def test_the_counted_size_of_a_remembered_token_is_close_to_its_memory(
    issuers: Issuers, clock: HandClock
) -> None:
    payloads: list[dict[str, Any]] = [
        {"groups": []},
        {"groups": [f"group-{g}" for g in range(30)]},
        {"groups": [f"group-{g}" for g in range(300)]},
        {"groups": [{f"group-{g}": g} for g in range(200)]},
        {"sub": "a" * 3000 + "\U0001f600"},
    ]
    for claims in payloads:
        verifier = issuers.remembering()
        made = [sent(good("EdDSA", jti=f"{n}", **claims)) for n in range(50)]
        identity = identity_headers({"X-JWT-Sub": ("sub",)}, "X-JWT-Claims")
        identity.lines(verifier.verify(sent(good("EdDSA"))))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        counted = -verifier.cache.bytes
        for token in made:
            with suppress(Rejection):  # too large for headers
                identity.lines(verifier.verify(token))
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        counted += verifier.cache.bytes
        assert 0.7 * taken < counted < 2 * taken, f"{claims}"[:100]


def test_the_size_of_a_remembered_token_is_counted_by_its_payload_and_its_values() -> None:
    assert entry_bytes(Jws({}, {}, b"", b"", b"", b"", padded=False)) == 900 + 3 * 64
    jws = Jws({}, {"aud": list(range(7))}, b"", b"x" * 1000, b"", b"", padded=False)
    assert entry_bytes(jws) == 900 + 2800 + 640
    assert entry_bytes(jws, minted=2) == 900 + 2800 + 640 + 2 * 1900


@in_its_time
async def test_a_repeated_expired_token_is_verified_once(issuers: Issuers, clock: HandClock) -> None:
    token = good("EdDSA", exp=NOW - 3600)
    assert await issuers.refusal(token) == "token_expired"
    clock.advance(60)
    with pytest.raises(Rejection, match="token_expired") as caught:
        issuers.verifier.known(digest(sent(token)))
    assert caught.value.details == "The token expired 61 min ago."
    assert tuple(issuers.verifier.cache)[:2] == (2, 1), "each use of a remembered token is a hit"


@in_its_time
async def test_a_remembered_token_that_expires_is_not_verified_again(issuers: Issuers, clock: HandClock) -> None:
    token = good("EdDSA", exp=NOW + 10)
    await issuers.verify(token)
    clock.advance(70)
    with pytest.raises(Rejection) as caught:
        issuers.verifier.known(digest(sent(token)))
    assert (caught.value.reason.code, caught.value.details) == ("token_expired", "The token expired 60 s ago.")
    assert issuers.verifier.misses == 1


@in_its_time
async def test_an_expired_token_is_checked_completely_when_the_clock_is_set_back(
    issuers: Issuers, clock: HandClock
) -> None:
    token = good("EdDSA", exp=NOW - 3600, iat=NOW - 9000, aud="another")
    assert await issuers.refusal(token) == "token_expired"
    clock.advance(-7200)
    assert await issuers.refusal(token) == "audience_mismatch"


@in_its_time
async def test_a_remembered_expired_token_is_forgotten_with_its_key(issuers: Issuers, clock: HandClock) -> None:
    token = good("EdDSA", exp=NOW - 3600)
    assert await issuers.refusal(token) == "token_expired"
    issuers.publish(tokens.public_jwk("RS256"))
    assert issuers.cached(token) is None
    assert issuers.verifier.cache.entries == 0
