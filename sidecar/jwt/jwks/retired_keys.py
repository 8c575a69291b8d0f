"""Keys that an issuer has removed from its set, and the grace period in which they stay trusted.

There is no grace period by default, since an issuer removes a stolen key. It is never longer than configured.
"""

from collections.abc import Container, Mapping

from sidecar.common.clock import Clock
from sidecar.jwt.jwks.jwk import VerificationKey
from sidecar.jwt.jwks.key_set import MAX_KEYS, Jwks


class RemovedKeys:
    """The removed keys of one issuer, each with the monotonic time at which its grace period ends.

    A grace period of `grace_s` seconds begins when a fetch first lacks the key.
    """

    def __init__(self, grace_s: float, clock: Clock) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._ends: Mapping[VerificationKey, float] = {}

    @property
    def next_end(self) -> float:
        """The end of the next grace period; infinity if there is none."""
        return min(self._ends.values(), default=float("inf"))

    def grace_s(self, key: VerificationKey) -> float | None:
        """For how many seconds a removed key stays trusted; None for a key that the issuer publishes."""
        end = self._ends.get(key)
        return None if end is None else max(0.0, end - self._clock.monotonic())

    def published(self, jwks: Jwks) -> Jwks:
        """The set without removed keys; the same object if it has none."""
        return _without(self._ends, jwks)

    def added_to(self, new: Jwks, last: Jwks | None) -> Jwks:
        """The new set plus the keys that only the last set has, for their grace period; the same object if there are none."""
        now = self._clock.monotonic()
        missed = () if last is None else last.keys
        ends = {**self._ends, **{key: now + self._grace_s for key in missed if key not in self._ends}}
        self._ends = dict([(key, end) for key, end in ends.items() if end > now and key not in new][-MAX_KEYS:])
        return Jwks((*new.keys, *self._ends), new.skipped, any_kid=new.any_kid) if self._ends else new

    def ended(self, jwks: Jwks) -> Jwks:
        """The set without the keys whose grace period has ended; the same object if there are none."""
        now = self._clock.monotonic()
        ended = {key for key, end in self._ends.items() if end <= now}
        self._ends = {key: end for key, end in self._ends.items() if key not in ended}
        return _without(ended, jwks)

    def taken_over(self, new: Jwks | None, old: "RemovedKeys", last: Jwks) -> Jwks:
        """The new set, or else the last set of another source of the same issuer, plus the keys that only that set has.

        Grace periods of both sources continue, but none is longer than `grace_s` allows.
        """
        published = old.published(last) if new is None else self.published(new)
        most = self._clock.monotonic() + self._grace_s
        self._ends = {**self._ends, **{key: min(end, most) for key, end in old._ends.items()}}
        return self.added_to(published, last)


def _without(removed: Container[VerificationKey], jwks: Jwks) -> Jwks:
    kept = [key for key in jwks.keys if key not in removed]
    return jwks if len(kept) == len(jwks.keys) else Jwks(kept, jwks.skipped, any_kid=jwks.any_kid)
