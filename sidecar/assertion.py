"""The signed assertion: a short JWT of our own that carries the verified claims, for a backend that wants proof.

Its `iss` and `aud` are those of the configuration, `iat` and `exp` are its own. The claims of the client's token follow as they
are, that token's `iss` as `original_iss`; `nbf`, `jti` and `cnf` speak of that token alone and are left out.
"""

from collections.abc import Mapping
from math import ceil

from sidecar.claims import Claims, Path
from sidecar.clock import Clock
from sidecar.identity import MAX_ALL_BYTES, IdentityHeader, IdentityHeaders, too_large
from sidecar.minting import SigningKey

REUSED = 0.8  # of its life: whoever gets it last still has a fifth of it to look at it

_OF_THAT_TOKEN_ALONE = ("nbf", "jti", "cnf")


class Assertion:
    """Mints the assertion for verified claims, and reuses it for most of its life. `header` is the name of its header."""

    def __init__(self, key: SigningKey, clock: Clock, *, header: str, issuer: str, audience: str, ttl_s: float) -> None:
        self.header = header
        self._key = key
        self._clock = clock
        self._own = {"iss": issuer, "aud": audience}
        self._ttl_s = ttl_s

    def line(self, claims: Claims) -> bytes:
        """The header line for verified claims; it is kept with them."""
        now = self._clock.wall()
        if claims.assertion is not None:
            line, minted, reused_until = claims.assertion
            if minted <= now < reused_until:
                return line
        issued = int(now)
        expires = ceil(min(issued + self._ttl_s, claims.valid_until))  # it never outlives the token that it stands for
        token = self._key.sign(
            {name: claim for name, claim in claims.claims.items() if name not in _OF_THAT_TOKEN_ALONE}
            | {"original_iss": claims.claims.get("iss"), "iat": issued, "exp": expires}
            | self._own
        )
        line = f"{self.header}: {token}\r\n".encode()
        claims.assertion = line, now, now + REUSED * (expires - now)
        return line


class AssertedIdentity(IdentityHeaders):
    """Identity headers and the assertion behind them."""

    def __init__(
        self,
        mapping: Mapping[str, Path | IdentityHeader],
        claims_header: str | None,
        encoding: str,
        assertion: Assertion,
    ) -> None:
        super().__init__(mapping, claims_header, encoding)
        self._assertion = assertion

    def lines(self, claims: Claims) -> bytes:
        """As those of IdentityHeaders; the assertion counts with them."""
        lines = super().lines(claims) + self._assertion.line(claims)
        if len(lines) > MAX_ALL_BYTES:
            raise too_large(self._assertion.header, len(lines))
        return lines
