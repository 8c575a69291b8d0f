"""The whole Verifier with present keys, and beside it an oracle that knows the signer of every token."""

import asyncio
import json
import math
from datetime import UTC, datetime
from typing import Any

from sidecar.common.errors import Rejection
from sidecar.http.responses import Form
from sidecar.http.responses import refusal as answer
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.claims import Claims
from sidecar.jwt.compact_jws import MAX_DEPTH
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.issuer import ACCEPTED_TYP, Issuer
from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.jwk import secret_key
from sidecar.jwt.jwks.key_set import Jwks, KeySet
from sidecar.jwt.jwks.shared_fetch import KeysAwaited
from tests.peers import tokens
from tests.peers.clock import HandClock
from tests.peers.tokens import b64
from tests.peers.waiting import cached, verifier_of
from tests.proofs.odd_tokens import MAIN, NOW, RELAXED, SECRET, SECRETIVE, SIGNED, Odd

ISS = {"main": MAIN, "secret": SECRETIVE, "relaxed": RELAXED}
AUDIENCES = (tokens.AUDIENCE, "also-me")
SKEW_S = 60
LATEST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
RULES = ClaimRules(AUDIENCES, clock_skew_s=SKEW_S)
RELAXED_RULES = ClaimRules(None, clock_skew_s=SKEW_S, require_exp=False, reject_bound=False)
DENIED = "mallory"


class Judge:
    """Verifies tokens as the sidecar does. Nothing is fetched any more, and the clock stands at NOW."""

    def __init__(self) -> None:
        clock = HandClock(NOW)
        public = {"keys": [tokens.public_jwk(alg) for alg in ("RS256", "ES256", "ES384", "ES512", "EdDSA")]}
        other = {"keys": [tokens.public_jwk("EdDSA", "b")]}
        self._sources: list[JwksSource] = []
        issuers = [
            self._issuer("main", ALGORITHMS, RULES, Jwks.of(public, ALGORITHMS), clock),
            self._issuer("secret", ("HS256",), RULES, Jwks([secret_key(SECRET, ["HS256"])], any_kid=True), clock),
            self._issuer("relaxed", ("EdDSA",), RELAXED_RULES, Jwks.of(other, ("EdDSA",)), clock),
        ]
        denylist = DenyList(clock, {iss: name for name, iss in ISS.items()})
        for iss in ISS.values():
            denylist.add({"iss": iss, "sub": DENIED})
        self.verifier = verifier_of(issuers, clock, denylist)
        asyncio.run(self._ask_in_vain())

    def _issuer(
        self, name: str, algorithms: tuple[str, ...], rules: ClaimRules, jwks: Jwks, clock: HandClock
    ) -> Issuer:
        async def fetch() -> KeySet:
            return KeySet(jwks, None)

        source = JwksSource(name, fetch, algorithms, clock)
        source.jwks, source.trusted_until = jwks, float("inf")
        self._sources.append(source)
        return Issuer(name, ISS[name], algorithms, rules, source, ACCEPTED_TYP)

    async def _ask_in_vain(self) -> None:
        """The one fetch for unknown kids; the next would come after a cooldown, which never ends here."""
        for source in self._sources:
            source.refresh()
            await source.fetch_now()

    def claims(self, token: bytes) -> Claims:
        """The verifier's result. Raises Rejection, and AssertionError if it would wait for keys."""
        try:
            return self.verifier.verify(token)
        except KeysAwaited as keys:
            raise AssertionError("it waits") from keys

    def judge(self, odd: Odd) -> str:
        """`accepted` or the code of the refusal. AssertionError: a rule was broken; any other exception is one too many."""
        try:
            claims = self.claims(odd.token)
        except Rejection as rejection:
            refusal = rejection
        else:
            return self._accepted(odd, claims)
        assert cached(self.verifier, odd.token) is None, "refused, but remembered"
        answer(refusal, "id", Form()).decode("ascii")
        assert odd.kind != "good", f"a good token was refused: {refusal.details}"
        return refusal.reason.code

    def _accepted(self, odd: Odd, claims: Claims) -> str:
        assert cached(self.verifier, odd.token) is claims, "accepted, but not remembered"
        signing_input = odd.token.rpartition(b".")[0]
        owner = odd.owner if signing_input == odd.signing_input else SIGNED.get(signing_input)
        assert claims.issuer == owner, f"{owner} signed it, the verifier names {claims.issuer}"
        parts = tokens.parts(odd.token.decode())
        assert ".".join(map(b64, parts)).encode() == odd.token, "a second spelling"
        assert claims.payload_segment == signing_input.partition(b".")[2], "other bytes than were signed"
        header, payload = map(read, parts[:2])
        assert (claims.claims, payload["iss"]) == (payload, ISS[claims.issuer]), "other claims than were signed"
        assert not {"crit", "b64"} & header.keys(), "an extension was overlooked"
        assert acceptable(payload, relaxed=claims.issuer == "relaxed"), "claims that are not good"
        assert payload.get("sub") != DENIED, "a token that the deny list denies"
        return "accepted"


def read(text: bytes) -> dict[str, Any]:
    """A JSON object that every reader reads alike; AssertionError otherwise."""
    value: dict[str, Any] = json.loads(
        text.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
    )
    assert depth(value) <= MAX_DEPTH, "deeper than is accepted"
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in members}) == len(members), "a name came twice"
    return dict(members)


def _finite(text: str) -> float:
    assert math.isfinite(float(text)), "not a number"
    return float(text)


def depth(value: Any) -> int:
    """The number of objects and lists around the innermost value."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def acceptable(claims: dict[str, Any], *, relaxed: bool = False) -> bool:
    """Are these claims good at NOW? A second implementation of sidecar/jwt/claims.py."""
    dates = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(type(date) in (int, float) and abs(date) < LATEST + 1 for date in dates.values()):
        return False
    if dates.get("exp", float("inf" if relaxed else "-inf")) <= NOW - SKEW_S:
        return False
    if max(dates.get("nbf", 0), dates.get("iat", 0)) > NOW + SKEW_S:
        return False
    if any(claims.get(name) is not None and not isinstance(claims[name], str) for name in ("sub", "jti")):
        return False
    if relaxed:
        return True
    aud, cnf = claims.get("aud"), claims.get("cnf")
    meant = aud if isinstance(aud, list) else [aud]
    for_us = all(isinstance(one, str) for one in meant) and not {*AUDIENCES}.isdisjoint(meant)
    return for_us and (cnf is None or (isinstance(cnf, dict) and "jkt" not in cnf and "x5t#S256" not in cnf))
