"""Keys that an issuer has taken out of its set, and how long each of them is still trusted: the grace of removed keys.

No grace by default, since a key may have been taken out because it was stolen; and never a longer one than was configured.
"""

from collections.abc import Mapping

from sidecar.clock import Clock
from sidecar.key_set import MAX_KEYS, Jwks
from sidecar.keys import VerificationKey


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

    def added_to(self, new: Jwks, last: Jwks | None) -> Jwks:
        """The new set, and for the grace what was in the last one and is not in it."""
        if not self._grace_s or last is None:
            return new
        end = self._clock.monotonic() + self._grace_s
        ends = {**self._ends, **{key: end for key in last.keys if key not in self._ends}}
        self._ends = dict([(key, end) for key, end in ends.items() if key not in new][-MAX_KEYS:])
        return Jwks((*new.keys, *self._ends), new.skipped, any_kid=new.any_kid)

    def ended(self, jwks: Jwks) -> Jwks:
        """The set without the keys whose grace has ended; the very same where none has."""
        now = self._clock.monotonic()
        ended = {key for key, end in self._ends.items() if end <= now}
        if not ended:
            return jwks
        self._ends = {key: end for key, end in self._ends.items() if key not in ended}
        return Jwks([key for key in jwks.keys if key not in ended], jwks.skipped, any_kid=jwks.any_kid)

    def begin_with(self, old: "RemovedKeys") -> None:
        """Go on with the graces of another source of the same issuer, none of them longer than they would be here."""
        most = self._clock.monotonic() + self._grace_s
        self._ends = {key: min(end, most) for key, end in old._ends.items()}
