"""Builds the objects of the gateway half."""

from sidecar.common.clock import Clock
from sidecar.common.errors import Rejection, Unusable
from sidecar.common.watched_file import WatchedFile
from sidecar.config import Config, MintedToken
from sidecar.gateway.api_keys import ApiKeys, Entries
from sidecar.gateway.gateway import Gateway
from sidecar.gateway.issuer_metadata import OwnIssuer
from sidecar.gateway.key_ring import KeyRing
from sidecar.gateway.token_minter import Mint
from sidecar.jwt.token_places import TokenHeader


def gateway(config: Config, clock: Clock, counts: dict[str, int]) -> Gateway:
    """The gateway half of one configuration; `counts` counts minted tokens. Raises Unusable."""
    accepted = api_keys(config, clock)
    signing = config.signing
    if signing is None:
        return Gateway(accepted)
    ring = WatchedFile.of(signing.keys_file, KeyRing.read, secret=True)
    mints = {
        name: _mint(signing.issuer, upstream.token, ring, clock, counts, "Authorization: Bearer ")
        for name, upstream in config.upstreams.items()
        if upstream.token is not None
    }
    wanted = signing.token_endpoint
    mint = None if wanted is None else _mint(signing.issuer, wanted, ring, clock, counts)
    return Gateway(accepted, ring, mints, OwnIssuer(signing.issuer, ring, clock, accepted, mint))


def api_keys(config: Config, clock: Clock) -> ApiKeys | None:
    """The accepted API keys, if configured. Raises Unusable."""
    wanted = config.api_keys
    if wanted is None:
        return None
    file = WatchedFile.of(wanted.file, Entries.read, secret=True)
    return ApiKeys(file, TokenHeader(wanted.header, wanted.scheme), clock, wanted.scheme or "ApiKey")


def _mint(
    issuer: str,
    wanted: MintedToken,
    ring: WatchedFile[KeyRing],
    clock: Clock,
    counts: dict[str, int],
    before: str = "",
) -> Mint:
    """A mint. Raises Unusable if no key can sign now."""
    alg = wanted.algorithm
    try:
        ring.value.signer(alg, clock.wall())
    except Rejection:
        cure = f"jwt-sidecar keys rotate --algorithm {alg} makes one"
        raise Unusable(f"{ring.path}: no key signs {alg} now; {cure}") from None
    return Mint(
        lambda: ring.value,
        clock,
        counts,
        issuer=issuer,
        audience=wanted.audience,
        ttl_s=wanted.ttl_s,
        algorithm=alg,
        before=before,
        claims=wanted.claims,
    )
