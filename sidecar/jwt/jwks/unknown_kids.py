"""Tokens that name a key which is not here: what is remembered of their kids, and how often they may make the sidecar ask.

Nothing a client sends can aim the sidecar at the issuer: all of them share one fetch, and there is one such fetch per cooldown.
"""

from collections.abc import Iterable

from cachetools import TTLCache

from sidecar.common.clock import Clock

UNKNOWN_KIDS = 256  # remembered of one issuer
UNKNOWN_KID_S = 60.0  # for how long
COOLDOWN_S = 30.0  # between two fetches that tokens have forced

_TOLD = -1  # the issuer has told that it has no such key


class Cooldown:
    """The time after a forced fetch in which tokens force no other. It begins at the attempt: a failing issuer is asked no more
    often than a healthy one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = float("-inf")

    @property
    def left_s(self) -> float:
        """How long it still lasts."""
        return max(0.0, self._began + COOLDOWN_S - self._clock.monotonic())

    def begin(self) -> None:
        """A fetch is forced now."""
        self._began = self._clock.monotonic()

    def end(self) -> None:
        """An operator wants a fetch at once."""
        self._began = float("-inf")


class UnknownKids:
    """Kids that were missed, each with the number of the fetches that had succeeded by then."""

    def __init__(self, clock: Clock) -> None:
        self._fetched = 0
        self._missed_at: TTLCache[str, int] = TTLCache(UNKNOWN_KIDS, UNKNOWN_KID_S, timer=clock.monotonic)

    def __len__(self) -> int:
        return len(self._missed_at)

    def fetched(self) -> None:
        """Keys have come: whatever was missed before was asked for."""
        self._fetched += 1

    def miss(self, kid: str) -> None:
        """A token names this kid, and there is no such key."""
        if kid not in self._missed_at:
            self._missed_at[kid] = self._fetched

    def is_told(self, kid: str) -> bool:
        """Has the issuer been asked since this kid was missed?"""
        return self._missed_at.get(kid, self._fetched) != self._fetched

    def is_open(self, kid: str) -> bool:
        """Was it missed, and has nobody asked since? Then the issuer may well have this key."""
        return self._missed_at.get(kid) == self._fetched

    def told(self, kid: str) -> None:
        """The issuer has no such key."""
        self._missed_at[kid] = _TOLD

    def replaced(self, gone: Iterable[str]) -> None:
        """The set is another one, and the issuer has told that it has these no more."""
        self._missed_at.clear()
        for kid in gone:
            self._missed_at[kid] = _TOLD
