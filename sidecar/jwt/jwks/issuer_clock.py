"""How far an issuer's clock is ahead of this one. A clock that is off refuses good tokens or accepts expired ones."""

DATE_RESOLUTION_S = 1.0  # of the Date header: a smaller offset cannot be measured
WARNING_S = 3600.0  # between two warnings


class IssuerClock:
    """Half of the skew that tokens are allowed is worth a warning. `offset_s` is what was measured last, or None."""

    def __init__(self, clock_skew_s: float) -> None:
        self.offset_s: float | None = None
        self._tolerated_s = max(clock_skew_s / 2, DATE_RESOLUTION_S)
        self._warned_at = float("-inf")

    def measured(self, offset_s: float | None, now: float) -> bool:
        """Take the offset that a fetch at this monotonic time has measured; is it time for a warning?"""
        self.offset_s = offset_s
        if offset_s is None or abs(offset_s) <= self._tolerated_s or now - self._warned_at < WARNING_S:
            return False
        self._warned_at = now
        return True
