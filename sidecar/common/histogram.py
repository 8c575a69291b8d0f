"""A histogram that costs one list addition for each value."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Histogram:
    """Counts each value in the first of `bounds` (ascending) that it does not exceed. `sum` is the sum of all values."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def __add__(self, other: "Histogram") -> "Histogram":
        counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.sum + other.sum)

    def add(self, value: float) -> int:
        """Count a value; returns the number of its bucket."""
        bucket = 0 if value <= self.bounds[0] else bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Prometheus buckets: each bound, `+Inf` last, with the number of values up to it."""
        total = 0
        for bound, number in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += number
            yield bound, total
