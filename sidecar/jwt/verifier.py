"""Verifies tokens and remembers the verified ones; jose checks the signatures.

The order of the checks is the order of `verify`: shape, header, issuer, typ, algorithm, key, signature, claims, deny list, and
what the issuer's `require` asks for.
A token that cannot be valid causes no fetch. Before the signature is verified, only `iss` and the claim that fills its template
are read.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.examination import Examination, tell, tell_rule
from sidecar.jwt.issuer import Issuer, TrustedIssuers
from sidecar.jwt.jwks.jwk import VerificationKey
from sidecar.jwt.jwks.key_set import Jwks
from sidecar.jwt.jwks.shared_fetch import KeysAwaited
from sidecar.jwt.token_cache import TokenCache, digest, entry_bytes
from sidecar.jwt.token_checks import HeaderForm, Shape

EXPIRED_BYTES: Final = 900  # of the entry of a token that had expired when it was verified: its payload is not kept
NEVER_ACCEPTED: Final = float("-inf")
REMEMBERED_S: Final = 300.0  # a verified token is verified again after this time


class _Remembered:
    """A token whose signature was verified: its claims, and the key that verified it.

    The entry counts while the issuer's key set has the key, until the Unix time `until`; for a token that had expired, never.
    `denials` is the version of the deny list that the claims were compared with, `size` the approximate bytes of the entry.
    """

    __slots__ = ("claims", "denials", "issuer", "jwks", "key", "size", "until")

    def __init__(
        self, claims: Claims, issuer: Issuer, jwks: Jwks, key: VerificationKey, until: float, denials: int, size: int
    ) -> None:
        self.claims = claims
        self.denials = denials
        self.issuer = issuer
        self.jwks = jwks
        self.key = key
        self.size = size
        self.until = until


class TokenCacheUse(NamedTuple):
    """Statistics of the cache of verified tokens."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    bytes: int = 0


class Verifier:
    """Verifies tokens of the configured issuers. `hits` counts remembered tokens, `misses` the others.

    `entries` and `most_bytes` limit the cache. `minted` is how many tokens the sidecar may mint for each.
    """

    def __init__(
        self,
        issuers: Collection[Issuer],
        clock: Clock,
        denylist: DenyList,
        entries: int,
        most_bytes: int,
        minted: int = 0,
    ) -> None:
        self.denylist = denylist
        self._shape = Shape(allow_padding=any(issuer.allow_padding for issuer in issuers))
        self._header = HeaderForm()
        self.issuers = TrustedIssuers(issuers)
        self.clock = clock
        self._monotonic, self._wall = clock.monotonic, clock.wall  # looked up once
        self._minted = minted
        self._remembered: TokenCache[_Remembered] = TokenCache(entries, most_bytes)
        self.hits = 0
        self.misses = 0

    @property
    def cache(self) -> TokenCacheUse:
        """The statistics of the cache."""
        remembered = self._remembered
        return TokenCacheUse(self.hits, self.misses, remembered.evictions, len(remembered), remembered.bytes)

    def count_from(self, before: "Verifier") -> None:
        """Continue the counters of another verifier."""
        self.hits, self.misses = before.hits, before.misses
        self._remembered.evictions = before._remembered.evictions

    def __repr__(self) -> str:
        return f"<Verifier of {self.issuers!r}: {len(self._remembered)} tokens remembered>"

    def known(self, remembered_by: bytes) -> Claims | None:
        """The claims of a remembered token, by its digest; None if it must be verified by `verify`.

        Raises Rejection for a remembered token that has expired.
        """
        known = self._vouched_for(remembered_by)
        if known is None:
            return None
        now = self._wall()
        if now >= known.claims.valid_until:
            self.hits += 1
            rejection = known.issuer.rules.expired(known.claims.valid_until, now)
            rejection.issuer, rejection.kid = known.claims.issuer, known.claims.kid
            raise rejection
        if known.denials != self.denylist.changes:
            if self.denylist.denies(known.claims.issuer, known.claims.claims):
                return None
            known.denials = self.denylist.changes
        if not known.claims.valid_from <= now < known.until:
            return None
        self.hits += 1
        return known.claims

    def _vouched_for(self, digest: bytes) -> _Remembered | None:
        """The entry of the token with this digest, if its key is still trusted."""
        known = self._remembered.find(digest)
        if known is None:
            return None
        source = known.issuer.source
        if known.jwks is not source.jwks:
            if source.jwks is None or known.key not in source.jwks:
                self._remembered.forget(digest)  # the issuer has removed its key
                return None
            known.jwks = source.jwks
        return known if self._monotonic() < source.trusted_until else None

    def verify(
        self,
        token: bytes,
        seen: Examination | None = None,
        awaited: KeysAwaited | None = None,
        remembered_by: bytes | None = None,
    ) -> Claims:
        """Verify a token. Raises Rejection, and KeysAwaited if a fetch may bring its key.

        With `seen` the token is only examined: `seen` gets each check as it begins, and nothing is counted or remembered.
        `awaited` is the fetch that the caller has waited for. `remembered_by` is the token's digest, if it is known.
        """
        examined = seen is not None
        remembered_by = remembered_by or digest(token)
        if not examined:
            self.misses += awaited is None
        seen = seen or Examination()
        seen.token = token
        seen.begun.clear()  # an earlier call may have gone as far as the key
        try:
            return self._verified(token, remembered_by, seen, awaited, examined=examined)
        except Rejection as rejection:
            tell(rejection, seen)
            raise

    def _verified(
        self, token: bytes, remembered_by: bytes, seen: Examination, awaited: KeysAwaited | None, *, examined: bool
    ) -> Claims:
        begun = seen.begun
        begun.append(self._shape)
        jws = seen.jws = self._shape.read(token)
        begun.append(self._header)
        algorithm, kid, typ = self._header.read(jws)
        begun.append(self.issuers)
        issuer = self.issuers.of(jws)
        seen.issuer = issuer.name
        begun.append(issuer.typ)
        issuer.typ.judge(typ)
        if issuer.signer is not None:
            begun.append(issuer.signer)
            issuer.signer.judge(jws)
        begun.append(issuer.algorithm)
        issuer.algorithm.judge(algorithm)
        begun.append(issuer.key)
        seen.kid = kid
        candidates = issuer.key.candidates(jws, kid, algorithm, awaited)
        jwks = issuer.source.jwks
        assert jwks is not None
        begun.append(issuer.signature)
        key = seen.key = issuer.signature.key(jws, candidates, awaited)
        now = self.clock.wall()
        try:
            valid_from, valid_until = issuer.rules.check(jws.payload, now, seen.begun)
        except Rejection as rejection:
            if rejection.reason is Reason.TOKEN_EXPIRED and not examined:
                ended = Claims(issuer.name, {}, valid_until=issuer.rules.ends(jws.payload), kid=key.kid)
                self._remembered.keep(
                    remembered_by, _Remembered(ended, issuer, jwks, key, NEVER_ACCEPTED, 0, EXPIRED_BYTES)
                )
            raise
        begun.append(self.denylist)
        if self.denylist.denies(issuer.name, jws.payload):
            raise Rejection(Reason.TOKEN_REVOKED)
        claims = seen.claims = Claims(issuer.name, jws.payload, jws.payload_segment, valid_from, valid_until, key.kid)
        for check in issuer.required:
            begun.append(check)
            try:
                check.judge(claims)
            except Rejection as rejection:
                tell_rule(rejection, check, claims)
                raise
        if examined:
            return claims
        known = self._remembered.find(remembered_by)
        if (
            known is not None and known.key == key and now < known.until
        ):  # another request with this token has waited for the same keys
            claims = known.claims
        until = min(valid_until, now + REMEMBERED_S)
        remembered = _Remembered(
            claims, issuer, jwks, key, until, self.denylist.changes, entry_bytes(jws, self._minted)
        )
        self._remembered.keep(remembered_by, remembered)
        return claims
