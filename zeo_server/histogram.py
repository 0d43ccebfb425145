"""How values are spread: counts in fixed buckets, as Prometheus has them.

To take note of a value costs a search of a short tuple and two additions, about 0.2 us, so that also what happens at
every read of a socket can be measured. Each histogram is fed by one thread, without a lock; whoever reads it from
another one may miss the value that is just being added.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

__all__ = ["GROUP_SIZES", "SECONDS", "Distribution", "Histogram"]

SECONDS: tuple[float, ...] = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of buckets for times: from a load out of memory to a disk that is stuck."""

GROUP_SIZES: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of buckets for the number of transactions that are written at once."""


class Distribution(NamedTuple):
    """A histogram at one moment: the buckets' upper bounds, the counts of each and of what is above all, the sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    @property
    def total(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """Return for each bound how many values were not above it, and at last how many there were."""
        return list(accumulate(self.counts))

    def quantile(self, part: float) -> float | None:
        """Return about what `part` of all values were not above, None without values.

        Within a bucket the values are taken to be spread evenly; above the last bound it is that bound.
        """
        wanted = part * self.total
        below, lower = 0, 0.0
        for count, upper in zip(self.counts, self.bounds, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below, lower = below + count, upper
        return self.bounds[-1] if self.total else None

    def as_map(self) -> dict[str, object]:
        """Return what monitors are told: count and sum, which grow, and median and p99 since the start."""
        return {"count": self.total, "sum": self.sum, "median": self.quantile(0.5), "p99": self.quantile(0.99)}


class Histogram:
    """Counts values in buckets."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Count in buckets with these upper bounds, which grow, and one for what is above them."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Take note of a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def frozen(self) -> Distribution:
        """Return the state as of now."""
        return Distribution(self._bounds, tuple(self._counts), self._sum)
