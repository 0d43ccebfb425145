"""How a cost grows with a size: costs at several sizes, and the exponent that fits them best."""

import math
import statistics
from dataclasses import dataclass, field

__all__ = ["Growth"]


@dataclass(frozen=True)
class Growth:
    """The cost of one thing, in `unit`, by contender and size."""

    name: str
    unit: str
    costs: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, contender: str, size: int, cost: float) -> None:
        """Take a cost."""
        self.costs.setdefault(contender, {})[size] = cost

    def exponent(self, contender: str) -> float:
        """Return e so that cost = c * size**e fits best (least squares of the logarithms); nan for a single size."""
        points = [(math.log(size), math.log(cost)) for size, cost in self.costs[contender].items() if cost > 0]
        if len(points) < 2:
            return math.nan
        return statistics.linear_regression(*zip(*points, strict=True)).slope
