"""A histogram in the making: one list addition for each value."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence


class Histogram:
    """Counts values by the first of `bounds` (ascending) that they do not exceed; `sum` is that of all values."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Each bound, `+Inf` last, with the number of values up to it: what Prometheus calls buckets."""
        total = 0
        for bound, number in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += number
            yield bound, total
