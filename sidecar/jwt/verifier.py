"""token -> Claims: remembers verified tokens, asks jose for the signature.

The order of the checks is the order of `verify`: shape, header, issuer, typ, algorithm, key, signature, claims, deny list, and
what the issuer's `require` asks for.
Nothing is fetched for a token that could not be valid, and before the signature is verified no claim is looked at but `iss`, and
the one that fills its template.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims
from sidecar.jwt.compact_jws import PADDED, Jws, parse
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.examination import Examination, tell
from sidecar.jwt.issuer import Issuer, media_type
from sidecar.jwt.jwks.cache import KeysAwaited
from sidecar.jwt.jwks.jwk import SAME_ALGORITHM, THUMBPRINTS, VerificationKey
from sidecar.jwt.jwks.key_set import Jwks
from sidecar.jwt.token_cache import TokenCache, digest, entry_bytes

REMEMBERED_TOKENS = 10_000
REMEMBERED_BYTES = 32 * 1024 * 1024
EXPIRED_BYTES = 900  # of a token that had expired when it was verified: nothing of its payload is kept
NEVER_ACCEPTED = float("-inf")
REMEMBERED_S = 300.0  # a verified token is verified again after this, however long it is valid
REQUIRED = "required "  # before the names of the checks of an issuer's policy


class _Remembered:
    """A token whose signature was verified: its claims, and the key that vouches for it as long as its issuer publishes that key.

    It is accepted before `until`, a Unix time; never, if it had expired when it was verified. `denials` is the state of the deny
    list that it was compared with, `size` about how many bytes it takes to remember it.
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
    """What a verifier says of the tokens that it remembers; `entries` is how many it does."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    bytes: int = 0


class Verifier:
    """Judges tokens of the configured issuers. `hits` counts the remembered ones, `misses` those that had to be verified.

    It remembers so many `entries`, which take so many bytes.
    """

    def __init__(
        self,
        issuers: Collection[Issuer],
        clock: Clock,
        denylist: DenyList | None = None,
        entries: int = REMEMBERED_TOKENS,
        most_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        self.issuers = issuers
        self.denylist = DenyList(clock) if denylist is None else denylist
        self._by_iss: Mapping[str, Issuer] = {
            iss: issuer for issuer in issuers for iss in (issuer.issuer, *issuer.aliases)
        }
        self._templates = [(template, issuer) for issuer in issuers for template in issuer.templates]
        self._assumed = next((issuer for issuer in issuers if issuer.assumed), None)
        self._allow_padding = any(issuer.allow_padding for issuer in issuers)
        self.clock = clock
        self._remembered: TokenCache[_Remembered] = TokenCache(entries, most_bytes)
        self.hits = 0
        self.misses = 0

    @property
    def cache(self) -> TokenCacheUse:
        """How remembering goes."""
        remembered = self._remembered
        return TokenCacheUse(self.hits, self.misses, remembered.evictions, len(remembered), int(remembered.currsize))

    def count_from(self, before: "Verifier") -> None:
        """Go on counting where another verifier stops."""
        self.hits, self.misses = before.hits, before.misses
        self._remembered.evictions = before._remembered.evictions

    def __repr__(self) -> str:
        return f"<Verifier of {', '.join(self._by_iss)}: {len(self._remembered)} tokens remembered>"

    def cached(self, token: bytes) -> Claims | None:
        """The claims of a token verified before, or None whenever there is any doubt: then `verify` finds the reason."""
        return self.known(digest(token))

    def known(self, digest: bytes) -> Claims | None:
        """The same for the token with this digest."""
        known = self._vouched_for(digest)
        if known is None:
            return None
        if known.denials != self.denylist.changes:
            if self.denylist.denies(known.claims.issuer, known.claims.claims):
                return None
            known.denials = self.denylist.changes
        now = self.clock.wall()
        if not known.claims.valid_from <= now < known.until:
            return None
        self.hits += 1
        return known.claims

    def _vouched_for(self, digest: bytes) -> _Remembered | None:
        """What is remembered of the token with this digest, if its key can be trusted now."""
        if digest not in self._remembered:  # an exception, or its `get`, would cost more
            return None
        known = self._remembered[digest]
        source = known.issuer.source
        if known.jwks is not source.jwks:
            if source.jwks is None or known.key not in source.jwks:
                del self._remembered[digest]  # its key was withdrawn
                return None
            known.jwks = source.jwks
        return known if self.clock.monotonic() < source.trusted_until else None

    def _refuse_expired(self, remembered_by: bytes) -> None:
        """Refuse a token that is remembered and has expired: its signature needs no second look. Raises Rejection."""
        known = self._vouched_for(remembered_by)
        now = self.clock.wall()
        if known is not None and now >= known.claims.valid_until:
            self.hits += 1
            rejection = known.issuer.rules.expired(known.claims.valid_until, now)
            rejection.issuer, rejection.kid = known.claims.issuer, known.claims.kid
            raise rejection

    def verify(
        self,
        token: bytes,
        seen: Examination | None = None,
        awaited: KeysAwaited | None = None,
        remembered_by: bytes | None = None,
    ) -> Claims:
        """Verify a token from the beginning. Raises Rejection, and KeysAwaited when its key may be on its way.

        With `seen` it is only examined: `seen` is told of each check as it begins, and nothing is counted or remembered.
        `awaited` are the keys that were waited for, `remembered_by` is the token's digest where that is known.
        """
        examined = seen is not None
        remembered_by = remembered_by or digest(token)
        if not examined:
            self._refuse_expired(remembered_by)
            self.misses += awaited is None
        seen = seen or Examination()
        seen.token = token
        seen.begun.clear()  # it may have come as far as its key before, which was awaited
        try:
            return self._verified(token, remembered_by, seen, awaited, examined=examined)
        except Rejection as rejection:
            tell(rejection, seen, self.issuers)
            raise

    def _verified(
        self, token: bytes, remembered_by: bytes, seen: Examination, awaited: KeysAwaited | None, *, examined: bool
    ) -> Claims:
        begin = seen.begun.append
        begin("shape")
        jws = seen.jws = parse(token, allow_padding=self._allow_padding)
        begin("header")
        algorithm, kid, typ = _header(jws)
        thumbprint = _thumbprint(jws) if kid is None else None
        begin("issuer")
        issuer = seen.issuer = self._issuer(jws)
        if jws.padded and not issuer.allow_padding:
            raise Rejection(Reason.TOKEN_MALFORMED, PADDED)
        begin("typ")
        if typ not in issuer.accepted_typ:
            raise Rejection(Reason.TOKEN_MALFORMED, "The token is of another type (typ) than is accepted.")
        if issuer.signer is not None:
            begin("signer")
            if jws.header.get("signer") != issuer.signer:
                raise Rejection(Reason.ISSUER_UNKNOWN, "The token's header names another signer than is trusted here.")
        begin("algorithm")
        if algorithm not in issuer.algorithms:
            raise Rejection(Reason.ALGORITHM_NOT_ALLOWED)
        begin("key")
        source = issuer.source
        candidates = source.keys_for(kid, algorithm, awaited, thumbprint)
        if issuer.templates:
            candidates = issuer.keys_of_tenant(candidates, jws.payload)
        jwks = source.jwks
        assert jwks is not None
        begin("signature")
        for key, jose_key in candidates:
            if jws.signature and jose_key.verify(jws.signing_input, jws.signature):
                seen.key = key
                break
        else:
            if awaited is None:
                source.reconsider()
            raise Rejection(Reason.SIGNATURE_INVALID)
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
        begin("denylist")
        if self.denylist.denies(issuer.name, jws.payload):
            raise Rejection(Reason.TOKEN_REVOKED)
        claims = Claims(issuer.name, jws.payload, jws.payload_segment, valid_from, valid_until, key.kid)
        if issuer.policy is not None:
            for name, check in issuer.policy.checks:
                begin(REQUIRED + name)
                check(claims)
        if examined:
            return claims
        known = self._remembered.get(remembered_by)
        if known is not None and known.key == key and now < known.until:  # by another that waited for the same keys
            claims = known.claims
        until = min(valid_until, now + REMEMBERED_S)
        remembered = _Remembered(claims, issuer, jwks, key, until, self.denylist.changes, entry_bytes(jws))
        self._remembered.keep(remembered_by, remembered)
        return claims

    def _issuer(self, jws: Jws) -> Issuer:
        iss = jws.payload.get("iss")
        if iss is None:
            if self._assumed is not None:
                return self._assumed
            raise Rejection(Reason.ISSUER_UNKNOWN, "The token has no iss claim.")
        issuer = self._by_iss.get(iss) if isinstance(iss, str) else None
        if issuer is None:
            issuer = next((of for template, of in self._templates if template.filled_by(jws.payload) == iss), None)
        if issuer is None:
            raise Rejection(Reason.ISSUER_UNKNOWN)
        return issuer


def _header(jws: Jws) -> tuple[str, str | None, str]:
    """(alg, kid, typ) of a header that asks for nothing else (RFC 7515 section 4.1). Raises Rejection."""
    header = jws.header
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's header has no alg.")
    if "crit" in header or "b64" in header:  # section 4.1.11: what is not understood must be refused
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's header asks for an extension that is not supported.")
    kid = header.get("kid")
    if "kid" in header and not isinstance(kid, str):
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's kid is not a string.")
    typ = header.get("typ", "absent")
    if not isinstance(typ, str):
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's typ is not a string.")
    if algorithm in SAME_ALGORITHM:
        algorithm = SAME_ALGORITHM[algorithm]
    return algorithm, kid, media_type(typ)


def _thumbprint(jws: Jws) -> str | None:
    """That of the certificate of the key, if the header tells one. Only a hint: anything else is not looked at."""
    return next((told for name in THUMBPRINTS if isinstance(told := jws.header.get(name), str)), None)
