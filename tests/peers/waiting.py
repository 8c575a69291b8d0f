"""The verifier and its key sets for tests; the caller waits for keys like the proxy."""

from collections.abc import Collection

from sidecar.common.clock import Clock
from sidecar.common.errors import Rejection
from sidecar.jwt.claims import Claims
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.examination import Examination
from sidecar.jwt.issuer import Issuer
from sidecar.jwt.jwks.algorithms import Key
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.jwk import VerificationKey
from sidecar.jwt.jwks.shared_fetch import KeysAwaited
from sidecar.jwt.token_cache import digest
from sidecar.jwt.verifier import Verifier


def verifier_of(
    issuers: Collection[Issuer],
    clock: Clock,
    denylist: DenyList | None = None,
    entries: int = 10_000,
    most_bytes: int = 32 << 20,
) -> Verifier:
    """A verifier with the configuration's defaults for deny list and cache."""
    return Verifier(issuers, clock, DenyList(clock) if denylist is None else denylist, entries, most_bytes)


def cached(verifier: Verifier, token: bytes) -> Claims | None:
    """The claims of a remembered token; None if it must be verified, or has expired."""
    try:
        return verifier.known(digest(token))
    except Rejection:
        return None


async def verified(verifier: Verifier, token: bytes, seen: Examination | None = None) -> Claims:
    """The token's claims, once its key has come. Raises Rejection."""
    try:
        return verifier.verify(token, seen)
    except KeysAwaited as keys:
        await keys.landed()
        return verifier.verify(token, seen, awaited=keys)


async def keys_for(source: JwksSource, kid: str | None, algorithm: str) -> list[tuple[VerificationKey, Key]]:
    """The keys that fit, once a fetch that may bring them has ended. Raises Rejection."""
    try:
        return source.keys_for(kid, algorithm)
    except KeysAwaited as keys:
        await keys.landed()
        return source.keys_for(kid, algorithm, awaited=keys)
