"""Minting: the claims of a minted token, how long it is reused, and when another replaces it."""

from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.gateway.key_ring import KeyRing, TimedKey
from sidecar.gateway.signing_key import SigningKey
from sidecar.gateway.token_minter import REUSED, Mint
from sidecar.jwt.claims import Claims
from tests.peers import tokens
from tests.peers.clock import EPOCH, HandClock

FIRST, SECOND = SigningKey.generate("EdDSA"), SigningKey.generate("EdDSA")
KEYED = {"sub": "alice", "scope": "read", "tenant": "acme"}
OUTER: dict[str, Any] = {
    "iss": "https://idp/",
    "sub": "alice",
    "aud": "web",
    "exp": EPOCH + 900,
    "iat": EPOCH,
    "nbf": EPOCH,
    "jti": "x",
}


class Minting:
    """A mint, its clock, and the ring of keys that it uses."""

    def __init__(self, *keys: TimedKey, ttl_s: float = 300.0, claims: Any = None) -> None:
        self.clock = HandClock()
        self.counts: dict[str, int] = {}
        self.ring = KeyRing(keys or [TimedKey(FIRST)])
        self.mint = Mint(
            lambda: self.ring,
            self.clock,
            self.counts,
            issuer="https://gw/",
            audience="orders",
            ttl_s=ttl_s,
            algorithm="EdDSA",
            before="Authorization: Bearer ",
            claims=claims,
        )

    def claims(self, of: Claims) -> dict[str, Any]:
        return tokens.payload_of(self.mint.minted(of).token)


def keyed(until: float = float("inf"), **claims: Any) -> Claims:
    return Claims("api_keys", KEYED | claims, valid_until=until)


def outer(**claims: Any) -> Claims:
    merged = OUTER | claims
    return Claims("idp", merged, valid_until=merged["exp"] + 60)


def test_a_key_becomes_a_short_token_for_one_audience() -> None:
    its = Minting()
    claims = keyed()
    line = its.mint.line(claims)
    assert line.startswith(b"Authorization: Bearer ")
    token = line[22:-2].decode()
    tokens.verify(token, FIRST.jwk, "EdDSA")
    assert tokens.payload_of(token) == KEYED | {
        "iss": "https://gw/",
        "aud": "orders",
        "iat": EPOCH,
        "exp": EPOCH + 300,
    }
    assert tokens.parts(token)[0] == b'{"alg":"EdDSA","kid":"%b","typ":"JWT"}' % FIRST.kid.encode()


def test_a_minted_token_names_the_original_issuer() -> None:
    assert Minting().claims(outer(scope="read", cnf={"x": 1})) == {
        "iss": "https://gw/",
        "aud": "orders",
        "iat": EPOCH,
        "exp": EPOCH + 300,
        "sub": "alice",
        "scope": "read",
        "original_iss": "https://idp/",
    }


def test_an_original_issuer_that_a_token_claims_is_not_copied() -> None:
    assert Minting().claims(outer(original_iss="https://evil/"))["original_iss"] == "https://idp/"
    assert "original_iss" not in Minting().claims(outer(iss=None, original_iss="https://evil/"))


def test_only_the_configured_claims_are_copied() -> None:
    its = Minting(claims={"roles": ("realm", "roles"), "none": ("none",)})
    claims = its.claims(outer(realm={"roles": ["a"]}, email="a@b", sub="bob"))
    assert claims.keys() == {"iss", "aud", "iat", "exp", "sub", "roles", "original_iss"}
    assert (claims["sub"], claims["roles"]) == ("bob", ["a"])
    assert Minting(claims={"sub": ("tenant",)}).claims(keyed())["sub"] == "acme"


@pytest.mark.parametrize(
    ("of", "lasts_s"),
    [
        pytest.param(keyed(EPOCH + 100.5), 100, id="key"),
        pytest.param(outer(exp=EPOCH + 200), 200, id="token"),
        pytest.param(outer(exp=EPOCH + 200.9), 200, id="token whose exp has a fraction"),
        pytest.param(outer(exp=EPOCH - 10), -10, id="token that is accepted by clock skew only"),
        pytest.param(keyed(), 300, id="key without an end"),
    ],
)
def test_a_minted_token_never_outlives_the_original_credential(of: Claims, lasts_s: int) -> None:
    its = Minting()
    assert its.claims(of)["exp"] == its.mint.minted(of).expires == EPOCH + lasts_s


def test_a_minted_token_never_outlives_the_publication_of_its_key() -> None:
    assert Minting(TimedKey(FIRST, 0, 0, EPOCH + 50.5)).claims(keyed())["exp"] == EPOCH + 50


def test_each_identity_reuses_its_token_for_most_of_its_lifetime() -> None:
    its = Minting()
    alice, bob = keyed(), keyed(sub="bob")
    first = its.mint.line(alice)
    assert its.mint.line(bob) != first
    its.clock.advance(300 * REUSED - 0.1)
    assert its.mint.line(alice) is first
    assert its.counts["orders"] == 2
    its.clock.advance(0.1)
    assert its.claims(alice)["exp"] == EPOCH + 540
    assert its.counts["orders"] == 3


def test_each_mint_has_its_own_tokens() -> None:
    alice, its, others = keyed(), Minting(), Minting()
    assert its.mint.line(alice) is its.mint.line(alice)
    assert others.mint.line(alice) is not its.mint.line(alice)
    assert (its.counts["orders"], others.counts["orders"]) == (1, 1)


def test_a_token_is_not_replaced_by_one_that_expires_at_the_same_time() -> None:
    its = Minting()
    token = outer(exp=EPOCH + 20)
    for _ in range(80):  # until the end of the clock skew
        its.mint.line(token)
        its.clock.advance(1)
    assert its.counts["orders"] == 1


@pytest.mark.parametrize(("left_s", "again"), [(300, False), (301, True)])
def test_a_token_is_replaced_only_by_one_that_lasts_longer(left_s: float, again: bool) -> None:
    its = Minting()
    key = keyed(EPOCH + left_s)
    first = its.mint.minted(key)
    its.clock.advance(260)
    assert (its.mint.minted(key) is not first) is again


def test_a_token_is_replaced_when_the_clock_is_set_back() -> None:
    its, alice = Minting(), keyed()
    its.mint.line(alice)
    its.clock.advance(-60)
    assert its.claims(alice)["iat"] == EPOCH - 60


def test_a_rotation_changes_the_signer_and_keeps_earlier_tokens() -> None:
    its = Minting(TimedKey(FIRST, 0, 0, EPOCH + 4600), TimedKey(SECOND, EPOCH, EPOCH + 100))
    alice, bob = keyed(), keyed()
    first = its.mint.line(alice)
    its.ring = KeyRing([*its.ring.keys])  # the file is read again
    its.clock.advance(100)
    assert its.mint.line(alice) is first  # the publication of its key outlasts it
    assert its.mint.minted(bob).kid == SECOND.kid


def test_a_token_of_a_withdrawn_key_is_not_reused() -> None:
    its, alice = Minting(TimedKey(FIRST), TimedKey(SECOND, 0, 0)), keyed()
    assert its.mint.minted(alice).kid == SECOND.kid
    its.ring = KeyRing([TimedKey(FIRST)])
    assert its.mint.minted(alice).kid == FIRST.kid
    its.ring = KeyRing([])
    with pytest.raises(Rejection) as caught:
        its.mint.line(alice)
    assert caught.value.reason is Reason.SIGNING_UNAVAILABLE


def test_a_token_is_not_reused_after_the_publication_of_its_key_ends() -> None:
    """An operator may shorten the times of a key that has signed longer tokens."""
    its = Minting(TimedKey(FIRST))
    claims = keyed()
    first = its.mint.minted(claims)
    assert first.expires == EPOCH + 300
    its.ring = KeyRing([TimedKey(FIRST, retire_at=EPOCH + 100), TimedKey(SECOND, sign_from=EPOCH + 50)])
    its.clock.advance(99)
    assert its.mint.minted(claims) is first
    its.clock.advance(1)
    assert its.mint.minted(claims).kid == SECOND.kid
    its.ring = KeyRing([TimedKey(SECOND, publish_from=EPOCH + 200, sign_from=EPOCH + 200), TimedKey(FIRST)])
    assert its.mint.minted(claims).kid == FIRST.kid


def test_a_token_that_expires_with_its_original_is_not_reused_after_its_key_retires() -> None:
    its = Minting(TimedKey(FIRST), ttl_s=3600)
    claims = keyed(until=EPOCH + 900)
    assert its.mint.minted(claims).kid == FIRST.kid
    its.ring = KeyRing([TimedKey(FIRST, retire_at=EPOCH + 100)])
    its.clock.advance(100)
    with pytest.raises(Rejection) as caught:
        its.mint.minted(claims)
    assert caught.value.reason is Reason.SIGNING_UNAVAILABLE
