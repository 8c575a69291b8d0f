"""config -> the gateway half: which API keys are accepted, what is minted for whom, and what is served of our own issuer."""

from typing import Any

from sidecar.common.clock import Clock
from sidecar.common.errors import Rejection, Unusable
from sidecar.common.watched_file import FollowedFile
from sidecar.config import Config, MintedToken
from sidecar.gateway.api_keys import ApiKeys, Entries
from sidecar.gateway.key_ring import KeyRing
from sidecar.gateway.token_endpoint import OwnIssuer
from sidecar.gateway.token_minter import Mint
from sidecar.jwt.token_extractor import TokenHeader


class Gateway:
    """The objects of one configuration; what is not configured is None or empty. Raises Unusable.

    `mints` are by the names of upstreams; `counts` is told of each token that is minted.
    """

    def __init__(self, config: Config, clock: Clock, counts: dict[str, int]) -> None:
        self.api_keys = api_keys(config, clock)
        self.key_ring: FollowedFile[KeyRing] | None = None
        self.mints: dict[str, Mint] = {}
        self.issuer: OwnIssuer | None = None
        self._clock = clock
        self._counts = counts
        signing = config.signing
        if signing is None:
            return
        ring = self.key_ring = FollowedFile(signing.keys_file, KeyRing.read, secret=True)
        for name, upstream in config.upstreams.items():
            if upstream.token is not None:
                self.mints[name] = self._mint(signing.issuer, upstream.token, ring, "Authorization: Bearer ")
        wanted = signing.token_endpoint
        mint = None if wanted is None else self._mint(signing.issuer, wanted, ring)
        self.issuer = OwnIssuer(signing.issuer, ring, clock, self.api_keys, mint)

    @property
    def files(self) -> list[FollowedFile[Any]]:
        """The files of keys, which are read again when they change."""
        files = (None if self.api_keys is None else self.api_keys.file, self.key_ring)
        return [file for file in files if file is not None]

    def _mint(self, issuer: str, wanted: MintedToken, ring: FollowedFile[KeyRing], before: str = "") -> Mint:
        """What makes tokens of one kind. Raises Unusable when none of the keys can sign them now."""
        alg = wanted.algorithm
        try:
            ring.value.signer(alg, self._clock.wall())
        except Rejection:
            cure = f"jwt-sidecar keys rotate --algorithm {alg} makes one"
            raise Unusable(f"{ring.path}: no key signs {alg} now; {cure}") from None
        return Mint(
            lambda: ring.value,
            self._clock,
            self._counts,
            issuer=issuer,
            audience=wanted.audience,
            ttl_s=wanted.ttl_s,
            algorithm=alg,
            before=before,
            claims=wanted.claims,
        )


def api_keys(config: Config, clock: Clock) -> ApiKeys | None:
    """The API keys that are accepted. Raises Unusable."""
    wanted = config.api_keys
    if wanted is None:
        return None
    file = FollowedFile(wanted.file, Entries.read, secret=True)
    return ApiKeys(file, TokenHeader(wanted.header, wanted.scheme), clock, wanted.scheme or "ApiKey")
