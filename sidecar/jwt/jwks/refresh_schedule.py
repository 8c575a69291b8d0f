"""Computes the times of fetches of an issuer's keys, and the time until which keys are trusted."""

from collections.abc import Callable

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0  # backoff after failures, with full jitter
RETRY_MOST_EMPTY_S = 5.0  # the longest pause while there is no usable key: every request fails then
MIN_REFRESH_S, MAX_REFRESH_S = 60.0, 3600.0  # bounds of the max-age of a key set
JITTER = 0.1  # of the refresh interval, so that replicas do not fetch together


class RefreshSchedule:
    """The schedule of one issuer. `failures` counts failures since the last success; `spread` picks a number between two.

    `fresh_s` is the time from a fetch to the next one that is due; `max_stale` begins then.
    """

    def __init__(self, interval_s: float, max_stale_s: float, spread: Callable[[float, float], float]) -> None:
        self.interval_s = interval_s
        self.max_stale_s = max_stale_s
        self.failures = 0
        self.fresh_s = 0.0
        self._backoff_s = RETRY_FIRST_S
        self._spread = spread

    def after_success(self, now: float, max_age_s: float | None) -> tuple[float, float]:
        """Return (time of the next fetch, time until which the keys are trusted). `max_age_s` is the max-age of the key set."""
        self.failures = 0
        self._backoff_s = RETRY_FIRST_S
        self.fresh_s = self.interval_s if max_age_s is None else min(max(max_age_s, MIN_REFRESH_S), MAX_REFRESH_S)
        trusted_until = now + self.fresh_s + self.max_stale_s
        return min(now + self.fresh_s * self._spread(1 - JITTER, 1 + JITTER), trusted_until), trusted_until

    def after_failure(self, now: float, *, usable: bool) -> tuple[float, float]:
        """Return (time of the next try, the longest pause before it). `usable`: keys of an earlier fetch are in use."""
        most_s = min(RETRY_MOST_S if usable else RETRY_MOST_EMPTY_S, self.interval_s)
        pause_s = min(self._backoff_s, most_s)
        self.failures += 1
        self._backoff_s *= 2
        return now + self._spread(0.0, pause_s), pause_s

    def trusted_as_of(self, fetched_at: float, fresh_s: float) -> float:
        """The time until which keys are trusted that another source, with its `fresh_s`, fetched at `fetched_at`."""
        self.fresh_s = min(fresh_s, self.interval_s)
        return fetched_at + self.fresh_s + self.max_stale_s
