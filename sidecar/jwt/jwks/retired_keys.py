"""Keys that an issuer has taken out of its set, and how long each of them is still trusted: the grace of removed keys.

No grace by default, since a key may have been taken out because it was stolen; and never a longer one than was configured.
"""

from collections.abc import Container, Mapping

from sidecar.common.clock import Clock
from sidecar.jwt.jwks.jwk import VerificationKey
from sidecar.jwt.jwks.key_set import MAX_KEYS, Jwks


class RemovedKeys:
    """The removed keys of one issuer, each with the monotonic time when its grace ends: `grace_s` after it was first missed."""

    def __init__(self, grace_s: float, clock: Clock) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._ends: Mapping[VerificationKey, float] = {}

    @property
    def next_end(self) -> float:
        """When the next grace ends; infinity when there is none."""
        return min(self._ends.values(), default=float("inf"))

    def grace_s(self, key: VerificationKey) -> float | None:
        """For how long a key is still trusted that the issuer has taken out; None for one that it publishes."""
        end = self._ends.get(key)
        return None if end is None else max(0.0, end - self._clock.monotonic())

    def published(self, jwks: Jwks) -> Jwks:
        """The set without those keys; the very same where it has none of them."""
        return _without(self._ends, jwks)

    def added_to(self, new: Jwks, last: Jwks | None) -> Jwks:
        """The new set, and for the grace what was in the last one and is not in it; the very same where that is nothing."""
        now = self._clock.monotonic()
        missed = () if last is None else last.keys
        ends = {**self._ends, **{key: now + self._grace_s for key in missed if key not in self._ends}}
        self._ends = dict([(key, end) for key, end in ends.items() if end > now and key not in new][-MAX_KEYS:])
        return Jwks((*new.keys, *self._ends), new.skipped, any_kid=new.any_kid) if self._ends else new

    def ended(self, jwks: Jwks) -> Jwks:
        """The set without the keys whose grace has ended; the very same where none has."""
        now = self._clock.monotonic()
        ended = {key for key, end in self._ends.items() if end <= now}
        self._ends = {key: end for key, end in self._ends.items() if key not in ended}
        return _without(ended, jwks)

    def taken_over(self, new: Jwks | None, old: "RemovedKeys", last: Jwks) -> Jwks:
        """The new set, or else the last one of another source of the same issuer; and for the grace what only that one has.

        Graces go on that run in either, none of them longer than it would be here.
        """
        published = old.published(last) if new is None else self.published(new)
        most = self._clock.monotonic() + self._grace_s
        self._ends = {**self._ends, **{key: min(end, most) for key, end in old._ends.items()}}
        return self.added_to(published, last)


def _without(removed: Container[VerificationKey], jwks: Jwks) -> Jwks:
    kept = [key for key in jwks.keys if key not in removed]
    return jwks if len(kept) == len(jwks.keys) else Jwks(kept, jwks.skipped, any_kid=jwks.any_kid)
