"""Signing keys with times. The file and the clock alone decide which key signs and which keys are published.

So all replicas that share the file change from one key to the next at the same time. A key is published before it signs, and
until the last token that it signed has expired:

    publish_from          sign_from             sign_from of the next      retire_at
        | published, not used | signs                  | published, not used   |
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sidecar.common.errors import Reason, Rejection
from sidecar.gateway.key_file import members, moment, rfc3339
from sidecar.gateway.signing_key import SigningKey

ALWAYS, NEVER = float("-inf"), float("inf")

_TIMES = ("publish_from", "sign_from", "retire_at")


class TimedKey(NamedTuple):
    """A key and its Unix times. It signs from `sign_from` until the next key of its algorithm signs, or until `retire_at`."""

    key: SigningKey
    publish_from: float = ALWAYS
    sign_from: float = ALWAYS
    retire_at: float = NEVER

    @classmethod
    def read(cls, document: object) -> "TimedKey":
        """Parse a private JWK with times. Raises ValueError."""
        if not isinstance(document, dict):
            raise ValueError("must be an object")
        times = {name: moment(document[name]) for name in _TIMES if name in document}
        timed = cls(SigningKey.of_jwk(document), **times)
        if not timed.publish_from <= timed.sign_from < timed.retire_at:
            raise ValueError("must be published no later than it signs, and retire after that")
        return timed

    def document(self) -> dict[str, Any]:
        """The key in the form of the file, private members included."""
        times = zip(_TIMES, self[1:], strict=True)
        return self.key.private_jwk() | {name: rfc3339(at) for name, at in times if at not in (ALWAYS, NEVER)}


class KeyRing:
    """An immutable set of signing keys."""

    def __init__(self, keys: Iterable[TimedKey]) -> None:
        self.keys = tuple(keys)
        self._by_kid = {timed.key.kid: timed for timed in self.keys}

    @classmethod
    def read(cls, content: bytes, _before: object = None) -> "KeyRing":
        """Parse a file, all keys or none. Raises ValueError."""
        keys: list[TimedKey] = []
        for number, document in enumerate(members(content)):
            try:
                keys.append(TimedKey.read(document))
            except ValueError as error:
                raise ValueError(f"key {number}: {error}") from None
        if len((ring := cls(keys))._by_kid) < len(keys):
            raise ValueError("has the same key twice")
        return ring

    def __repr__(self) -> str:
        return f"<KeyRing of {', '.join(self._by_kid)}>"

    def signer(self, algorithm: str, now: float) -> TimedKey:
        """The key that signs at `now`: the one that began to sign last. Raises Rejection (signing_unavailable)."""
        due = [timed for timed in self.keys if timed.key.alg == algorithm and timed.sign_from <= now < timed.retire_at]
        if not due:
            raise Rejection(Reason.SIGNING_UNAVAILABLE, retry_after_s=60)
        return max(due, key=lambda timed: (timed.sign_from, timed.key.kid))

    def signers(self, now: float) -> list[TimedKey]:
        """The keys that sign at `now`, one for each algorithm."""
        due = {timed.key.alg for timed in self.keys if timed.sign_from <= now < timed.retire_at}
        return [self.signer(algorithm, now) for algorithm in sorted(due)]

    def publishes(self, kid: str, now: float) -> bool:
        """Is the key with this kid published at `now`?"""
        timed = self._by_kid.get(kid)
        return timed is not None and timed.publish_from <= now < timed.retire_at

    def published(self, now: float) -> list[SigningKey]:
        """The keys to publish at `now`: those that sign, will sign soon, or have signed tokens that are still valid."""
        return [timed.key for timed in self.keys if timed.publish_from <= now < timed.retire_at]


def rotated(ring: KeyRing, algorithm: str, now: float, ahead_s: float, keep_s: float) -> KeyRing:
    """Add a new key that is published from `now` and replaces the signing key `ahead_s` seconds later.

    The replaced keys stay published for `keep_s` more. Retired keys, and keys that would sign later than the new one, are
    removed.
    """
    now = float(int(now))
    kept = [timed for timed in ring.keys if now < timed.retire_at]
    before = [timed for timed in kept if timed.key.alg == algorithm]
    signing = [timed.sign_from for timed in before if timed.sign_from <= now]
    # A first key signs at once: no verifier has an older key set.
    sign_from = max(now + ahead_s, *(at + 1 for at in signing)) if signing else now
    retire_at = sign_from + max(keep_s, 1)
    key = SigningKey.generate(algorithm)
    while key.kid.startswith("-"):  # a command would take the kid for an option
        key = SigningKey.generate(algorithm)
    kept = [
        timed._replace(retire_at=min(timed.retire_at, retire_at)) if timed in before else timed
        for timed in kept
        if timed not in before or timed.sign_from < sign_from
    ]
    return KeyRing([*kept, TimedKey(key, now, sign_from)])
