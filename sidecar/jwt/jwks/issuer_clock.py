"""Compares an issuer's clock with this one. A wrong clock refuses valid tokens or accepts expired ones."""

DATE_RESOLUTION_S = 1.0  # of the Date header: a smaller offset cannot be measured
WARNING_S = 3600.0  # between two warnings


class IssuerClock:
    """Warns about an offset of more than half of `clock_skew`. `offset_s` is the last measured offset, or None."""

    def __init__(self, clock_skew_s: float) -> None:
        self.offset_s: float | None = None
        self._tolerated_s = max(clock_skew_s / 2, DATE_RESOLUTION_S)
        self._warned_at = float("-inf")

    def measured(self, offset_s: float | None, now: float) -> bool:
        """Keep the offset that a fetch measured at this monotonic time. Returns whether to log a warning."""
        self.offset_s = offset_s
        if offset_s is None or abs(offset_s) <= self._tolerated_s or now - self._warned_at < WARNING_S:
            return False
        self._warned_at = now
        return True
