"""Remembers unknown kids of tokens, and limits the fetches that they cause.

Clients cannot make the sidecar flood the issuer: all unknown kids share one fetch, and there is one such fetch per cooldown.
"""

from collections.abc import Iterable

from cachetools import TTLCache

from sidecar.common.clock import Clock

UNKNOWN_KIDS = 256  # remembered of one issuer
UNKNOWN_KID_S = 60.0  # for how long
COOLDOWN_S = 30.0  # between two fetches on demand of tokens


class Cooldown:
    """The time after a fetch on demand in which no other one begins. It starts at the attempt, so a failing issuer gets no more
    fetches than a healthy one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = float("-inf")

    @property
    def left_s(self) -> float:
        """The rest of the cooldown in seconds."""
        return max(0.0, self._began + COOLDOWN_S - self._clock.monotonic())

    def begin(self) -> None:
        """Start the cooldown: a fetch on demand begins."""
        self._began = self._clock.monotonic()

    def end(self) -> None:
        """End the cooldown: an operator wants a fetch now."""
        self._began = float("-inf")


class UnknownKids:
    """Unknown kids, each with the last successful fetch before it was first missed; None: the issuer has no such key."""

    def __init__(self, clock: Clock) -> None:
        self._last_fetch = object()
        self._missed_after: TTLCache[str, object] = TTLCache(UNKNOWN_KIDS, UNKNOWN_KID_S, timer=clock.monotonic)

    def __len__(self) -> int:
        return len(self._missed_after)

    def fetched(self, looked_up: Iterable[str] | None) -> None:
        """Record a successful fetch. It answers for the kids that it `looked_up`; None: for all kids missed before."""
        if looked_up is None:
            self._last_fetch = object()
        for kid in looked_up or ():
            self.mark_absent(kid)  # it matters only if the set lacks it

    def miss(self, kid: str) -> None:
        """Record that a token names an unknown kid."""
        if kid not in self._missed_after:
            self._missed_after[kid] = self._last_fetch

    def is_absent(self, kid: str) -> bool:
        """Did a fetch succeed since this kid was missed, so that the issuer does not have it?"""
        return self._missed_after.get(kid, self._last_fetch) is not self._last_fetch

    def is_open(self, kid: str) -> bool:
        """Was the kid missed, with no fetch since, so that the issuer may have it?"""
        return self._missed_after.get(kid) is self._last_fetch

    def mark_absent(self, kid: str) -> None:
        """Record that the issuer does not have this key."""
        self._missed_after[kid] = None

    def replaced(self, gone: Iterable[str]) -> None:
        """Record kids that a new key set no longer has."""
        self._missed_after.clear()
        for kid in gone:
            self.mark_absent(kid)
