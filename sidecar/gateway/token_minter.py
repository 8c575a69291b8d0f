"""Mints short-lived tokens from verified claims. A minted token is reused for most of its lifetime.

`iss` and `aud` of a minted token come from the configuration, `iat` and `exp` are new. All verified claims are copied, or only
the configured ones; the `iss` of the verified token becomes `original_iss`. `nbf`, `jti`, `cnf` and an `original_iss` are not
copied: they apply to the verified token only.
"""

from collections.abc import Callable, Mapping
from math import ceil, floor, inf
from typing import NamedTuple

from sidecar.common.clock import Clock
from sidecar.gateway.key_ring import KeyRing
from sidecar.jwt.claims import Claims, Path, find

REUSED = 0.8  # of its lifetime: a backend has at least the last fifth to verify it

_OF_THAT_TOKEN_ALONE = frozenset({"nbf", "jti", "cnf", "original_iss"})


class Minted(NamedTuple):
    """A minted token as a header line. It may be sent from `since` until `reused_until` (Unix times).

    `kid` is the key id of its signing key.
    """

    line: bytes
    kid: str
    expires: int
    since: float
    reused_until: float

    @property
    def token(self) -> str:
        """The token, which ends the line."""
        return self.line.rpartition(b" ")[2].decode().rstrip()


class Mint:
    """Mints tokens for one audience. `ring` returns the current signing keys; `before` is the text before the token in its line.

    `claims` maps the name of a claim to its path in the verified claims; None copies all claims. `counts` counts minted tokens by
    audience.
    """

    def __init__(
        self,
        ring: Callable[[], KeyRing],
        clock: Clock,
        counts: dict[str, int],
        *,
        issuer: str,
        audience: str,
        ttl_s: float,
        algorithm: str,
        before: str = "",
        claims: Mapping[str, Path] | None = None,
    ) -> None:
        self.audience = audience
        self._ring = ring
        self._clock = clock
        self._counts = counts
        self._own = {"iss": issuer, "aud": audience}
        self._ttl_s = ttl_s
        self._algorithm = algorithm
        self._before = before
        self._claims = claims

    def __repr__(self) -> str:
        return f"<Mint for {self.audience}>"

    def line(self, claims: Claims) -> bytes:
        """The header line for verified claims. Raises Rejection (signing_unavailable)."""
        return self.minted(claims).line

    def minted(self, claims: Claims) -> Minted:
        """The token for verified claims, kept with them for reuse. Raises Rejection (signing_unavailable)."""
        now = self._clock.wall()
        ring = self._ring()
        known: Minted | None = claims.minted.get(self)
        if known is not None and known.since <= now < known.reused_until and ring.publishes(known.kid, now):
            return known
        minted = claims.minted[self] = self._mint(claims, ring, now)
        return minted

    def _mint(self, claims: Claims, ring: KeyRing, now: float) -> Minted:
        signer = ring.signer(self._algorithm, now)
        issued = int(now)
        # It never outlives the original credential or the publication of its key.
        original = min(claims.claims.get("exp", inf), claims.valid_until)
        longest = min(ceil(issued + self._ttl_s), signer.retire_at)
        expires = floor(min(original, longest))
        token = signer.key.sign({**self._carried(claims.claims), "iat": issued, "exp": expires, **self._own})
        self._counts[self.audience] = self._counts.get(self.audience, 0) + 1
        # A token that ends with the original credential is reused to its end: a new one would end no later.
        reused_until = inf if original <= longest else now + REUSED * (expires - now)
        line = f"{self._before}{token}\r\n".encode()
        return Minted(line, signer.key.kid, expires, now, reused_until)

    def _carried(self, verified: Mapping[str, object]) -> dict[str, object]:
        original = {} if verified.get("iss") is None else {"original_iss": verified["iss"]}
        if self._claims is None:
            return {name: claim for name, claim in verified.items() if name not in _OF_THAT_TOKEN_ALONE} | original
        found = {name: find(verified, path) for name, path in {"sub": ("sub",), **self._claims}.items()}
        return {name: claim for name, claim in found.items() if claim is not None} | original
