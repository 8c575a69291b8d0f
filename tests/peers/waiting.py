"""The verifier and its key sets as they are asked in tests: by whoever waits for the keys, as the proxy does."""

from sidecar.jwt.claims import Claims
from sidecar.jwt.jwks.cache import JwksSource, KeysAwaited
from sidecar.jwt.jwks.jwk import Key, VerificationKey
from sidecar.jwt.verifier import Examination, Verifier


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
