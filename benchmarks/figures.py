"""What a benchmark has found: figures of contenders that took turns, with their ratios and spreads."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

__all__ = ["Figure", "compare", "table"]

_NAME_WIDTH, _VALUE_WIDTH = 48, 15


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, in `unit`: a sample for each turn of each contender, the peer first, zeod last.

    With one contender it is a fact about the machine.
    """

    name: str
    unit: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    more_is_better: bool = False

    def add(self, contender: str, sample: float) -> None:
        """Take what a contender's turn brought."""
        self.samples.setdefault(contender, []).append(sample)

    def median(self, contender: str) -> float:
        """Return the median of a contender's turns."""
        return statistics.median(self.samples[contender])

    def ratios(self) -> list[float]:
        """Return for each turn how many times better zeod was than the peer; nothing if there is no peer."""
        if len(self.samples) < 2:
            return []
        peer, *_, ours = self.samples.values()
        pairs = zip(peer, ours, strict=True)
        return [b / a if self.more_is_better else a / b for a, b in pairs if a and b]


def compare(
    name: str,
    unit: str,
    contenders: Sequence[str],
    repeats: int,
    measure: Callable[[str], float],
    *,
    more_is_better: bool = False,
) -> Figure:
    """Measure each contender `repeats` times, taking turns."""
    figure = Figure(name, unit, more_is_better=more_is_better)
    for _ in range(repeats):
        for contender in contenders:
            figure.add(contender, measure(contender))
    return figure


def table(figures: Iterable[Figure]) -> Iterator[str]:
    """Return the lines of a table: medians, the median of the ratios, and their spread."""
    for contenders, group in groupby(figures, lambda figure: tuple(figure.samples)):
        yield ""
        heads = "".join(f"{contender:>{_VALUE_WIDTH}}" for contender in contenders)
        yield f"{'':{_NAME_WIDTH}}{heads}" + ("   ratio   of single turns" if len(contenders) > 1 else "")
        yield from map(_line, group)


def _line(figure: Figure) -> str:
    values = (f"{_number(figure.median(contender))} {figure.unit}" for contender in figure.samples)
    line = f"{figure.name:{_NAME_WIDTH}}" + "".join(f"{value:>{_VALUE_WIDTH}}" for value in values)
    ratios = figure.ratios()
    if not ratios:
        return line
    return f"{line}{statistics.median(ratios):>8.2f}   {min(ratios):.2f} .. {max(ratios):.2f}"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
