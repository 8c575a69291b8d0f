"""A verifier of several issuers, and good tokens of theirs."""

import functools
import json
from collections.abc import Sequence
from typing import Any

import pytest

from sidecar.common.errors import Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.claims import Claims
from sidecar.jwt.issuer import Issuer
from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_set import Jwks, KeySet
from sidecar.jwt.verifier import Verifier
from tests.peers import tokens
from tests.peers.clock import EPOCH, HandClock
from tests.peers.waiting import cached, verified, verifier_of

NOW = int(EPOCH)
NARROW, ANYONE, RELAXED = "https://narrow.test/", "https://anyone.test/", "https://relaxed.test/"
KEYS = json.dumps(
    {
        "keys": [
            tokens.public_jwk("RS256"),
            tokens.public_jwk("ES256"),
            tokens.public_jwk("ES384"),
            tokens.public_jwk("ES512"),
            tokens.public_jwk("EdDSA"),
            tokens.jwk(tokens.key("RS256", "b"), kid="enc", use="enc"),
            tokens.jwk(tokens.key("RS256", "b"), kid="wrap", key_ops=["wrapKey"]),
            tokens.jwk(tokens.key("RS256", "b"), kid="pss", alg="PS256"),
            tokens.jwk(tokens.rsa_key(1024), kid="weak"),
            tokens.jwk(b"a secret of thirty-two bytes and more", kid="oct"),
        ]
    }
)
OTHER_KEYS = json.dumps({"keys": [tokens.public_jwk("EdDSA", "b")]})


@functools.cache
def key_set(text: str, *algorithms: str) -> Jwks:
    """Made once in a run, since no test changes it."""
    return Jwks.of(json.loads(text), algorithms)


class Issuers:
    """A Verifier of issuers whose keys are there already. `asked` lists the issuers that are asked for keys."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.sources: dict[str, JwksSource] = {}
        skewed = ClaimRules(["my-api", "also-me"], clock_skew_s=60)
        self.verifier = verifier_of(
            [
                self._issuer("main", tokens.ISSUER, skewed),
                self._issuer("narrow", NARROW, skewed, ["RS256"]),
                self._issuer("anyone", ANYONE, ClaimRules(None), keys=OTHER_KEYS),
                self._issuer("relaxed", RELAXED, ClaimRules(None, require_exp=False)),
            ],
            clock,
        )

    def _issuer(
        self, name: str, iss: str, rules: ClaimRules, algorithms: Sequence[str] = ALGORITHMS, keys: str = KEYS
    ) -> Issuer:
        async def fetch() -> KeySet:
            self.asked.append(name)
            return KeySet(json.loads(keys), None)

        source = self.sources[name] = JwksSource(name, fetch, algorithms, self.clock)
        source.jwks = key_set(keys, *algorithms)
        source.trusted_until = float("inf")
        return Issuer(name, iss, algorithms, rules, source)

    def remembering(self, **bounds: int) -> Verifier:
        """Another verifier of the same issuers, with its own limits."""
        return verifier_of(self.verifier.issuers.all, self.clock, None, **bounds)

    def publish(self, *keys: Any, name: str = "main") -> None:
        """Replace the keys of an issuer at once."""
        self.sources[name].jwks = Jwks.of({"keys": [*keys]}, ALGORITHMS)

    async def verify(self, token: str) -> Claims:
        return await verified(self.verifier, sent(token))

    def cached(self, token: str) -> Claims | None:
        return cached(self.verifier, sent(token))

    async def refusal(self, token: str) -> str:
        with pytest.raises(Rejection) as caught:
            await self.verify(token)
        assert self.cached(token) is None
        return caught.value.reason.code


def sent(token: str) -> bytes:
    """The bytes of a header's text, as the server receives them."""
    return token.encode("utf-8", "surrogateescape")


def good(alg: str = "RS256", **over: Any) -> str:
    return tokens.token(alg, now=NOW, **over)
