"""token -> Claims: remembers verified tokens, asks jose for the signature.

The order of the checks is the order of `verify`: shape, header, issuer, algorithm, key, signature, claims. Nothing is
fetched for a token that could not be valid, and no claim but `iss` is looked at before the signature is verified.
"""

from collections.abc import Collection, Mapping
from hashlib import sha256

from cachetools import LRUCache

from sidecar.claims import ClaimRules, Claims
from sidecar.clock import Clock
from sidecar.jwks import Jwks, JwksSource
from sidecar.jws import Jws, parse
from sidecar.keys import VerificationKey
from sidecar.rejections import Reason, Rejection

REMEMBERED_TOKENS = 1024  # about 2 KB each
REMEMBERED_S = 300.0  # a verified token is verified again after this, however long it is valid


class Issuer:
    """One trusted issuer: what its tokens must be signed with and what they must claim."""

    __slots__ = ("algorithms", "issuer", "name", "rules", "source")

    def __init__(
        self, name: str, issuer: str, algorithms: Collection[str], rules: ClaimRules, source: JwksSource
    ) -> None:
        self.name = name
        self.issuer = issuer
        self.algorithms = frozenset(algorithms)
        self.rules = rules
        self.source = source


class _Remembered:
    """A verified token: its claims, and the key that vouches for it as long as its issuer publishes that key."""

    __slots__ = ("claims", "jwks", "key", "source", "until")

    def __init__(self, claims: Claims, source: JwksSource, jwks: Jwks, key: VerificationKey, until: float) -> None:
        self.claims = claims
        self.source = source
        self.jwks = jwks
        self.key = key
        self.until = until


class Verifier:
    """Judges tokens of the configured issuers. `hits` and `misses` count the remembered tokens."""

    def __init__(self, issuers: Collection[Issuer], clock: Clock) -> None:
        self._by_iss: Mapping[str, Issuer] = {issuer.issuer: issuer for issuer in issuers}
        self._clock = clock
        self._remembered: LRUCache[bytes, _Remembered] = LRUCache(REMEMBERED_TOKENS)
        self.hits = 0
        self.misses = 0

    def __repr__(self) -> str:
        return f"<Verifier of {', '.join(self._by_iss)}: {len(self._remembered)} tokens remembered>"

    def cached(self, token: bytes) -> Claims | None:
        """The claims of a token verified before, or None whenever there is any doubt: then `verify` finds the reason."""
        digest = sha256(token).digest()  # the token itself is not kept
        known = self._remembered.get(digest)
        if known is None:
            self.misses += 1
            return None
        source = known.source
        if known.jwks is not source.jwks:
            if source.jwks is None or known.key not in source.jwks:
                del self._remembered[digest]  # its key was withdrawn
                self.misses += 1
                return None
            known.jwks = source.jwks
        now = self._clock.wall()
        if not known.claims.valid_from <= now < known.until or self._clock.monotonic() >= source.trusted_until:
            self.misses += 1
            return None
        self.hits += 1
        return known.claims

    async def verify(self, token: bytes) -> Claims:
        """Verify a token from the beginning. Raises Rejection; waits only when its key is not there."""
        jws = parse(token)
        algorithm, kid = _header(jws)
        issuer = self._issuer(jws)
        if algorithm not in issuer.algorithms:
            raise Rejection(Reason.ALGORITHM_NOT_ALLOWED)
        source = issuer.source
        candidates = await source.keys_for(kid, algorithm)
        jwks = source.jwks
        assert jwks is not None
        for key, jose_key in candidates:
            if jws.signature and jose_key.verify(jws.signing_input, jws.signature):
                break
        else:
            raise Rejection(Reason.SIGNATURE_INVALID)
        now = self._clock.wall()
        valid_from, valid_until = issuer.rules.check(jws.payload, now)
        claims = Claims(issuer.name, jws.payload, jws.payload_segment, valid_from, valid_until)
        until = min(valid_until, now + REMEMBERED_S)
        self._remembered[sha256(token).digest()] = _Remembered(claims, source, jwks, key, until)
        return claims

    def _issuer(self, jws: Jws) -> Issuer:
        iss = jws.payload.get("iss")
        if iss is None:
            raise Rejection(Reason.ISSUER_UNKNOWN, "The token has no iss claim.")
        issuer = self._by_iss.get(iss) if isinstance(iss, str) else None
        if issuer is None:
            raise Rejection(Reason.ISSUER_UNKNOWN)
        return issuer


def _header(jws: Jws) -> tuple[str, str | None]:
    """(alg, kid) of a header that asks for nothing else (RFC 7515 section 4.1). Raises Rejection."""
    header = jws.header
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's header has no alg.")
    if "crit" in header or "b64" in header:  # section 4.1.11: what is not understood must be refused
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's header asks for an extension that is not supported.")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's kid is not a string.")
    if "kid" in header and kid is None:
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's kid is not a string.")
    return algorithm, kid
