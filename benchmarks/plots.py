"""Pictures of a run: how many times better than its peer zeod is, figure by figure, and how costs grow with size."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from benchmarks.figures import Figure
from benchmarks.growth import Growth

__all__ = ["draw_growth", "draw_ratios"]

_BETTER, _WORSE, _PEER = "#2b7a78", "#c8553d", "#888888"
_ROW_INCHES = 0.3


def draw_ratios(path: Path, parts: dict[str, list[Figure]]) -> None:
    """Draw a bar for each figure that has a peer: the median of its ratios, with a whisker from least to most."""
    rows = [figure for figures in parts.values() for figure in figures if figure.ratios()]
    if not rows:
        return
    drawing = Drawing(figsize=(9, max(2.0, _ROW_INCHES * len(rows) + 1)), layout="constrained")
    axes = drawing.subplots()
    places = range(len(rows))
    ratios = [figure.ratios() for figure in rows]
    medians = [statistics.median(found) for found in ratios]
    spread = [
        [median - min(found) for median, found in zip(medians, ratios, strict=True)],
        [max(found) - median for median, found in zip(medians, ratios, strict=True)],
    ]
    colours = [_BETTER if median >= 1 else _WORSE for median in medians]
    axes.barh(places, [median - 1 for median in medians], left=1, color=colours, height=0.6)
    axes.errorbar(medians, places, xerr=spread, fmt="none", ecolor="#222222", elinewidth=0.8, capsize=2)
    axes.set_yticks(places, [figure.name for figure in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    _label_ratios(axes, medians, places)
    axes.axvline(1, color=_PEER, linewidth=1)
    axes.set_xlabel("times better than the peer (its own storage, server and client); whiskers: single turns")
    axes.margins(y=0.01)
    drawing.savefig(path)


def _label_ratios(axes: Axes, medians: Sequence[float], places: Sequence[int]) -> None:
    ticks = [0.25, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = min([*medians, 0.5]) / 1.5, max([*medians, 2]) * 2
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(shown, [f"{tick:g}x" for tick in shown])
    axes.minorticks_off()
    for median, place in zip(medians, places, strict=True):
        axes.annotate(f"{median:.1f}", (high / 1.05, place), ha="right", va="center", fontsize=8)


def draw_growth(path: Path, growths: list[Growth], along: str) -> None:
    """Draw how costs grow, each along its sizes in a field of its own, both axes logarithmic."""
    columns = min(3, len(growths))
    lines = -(-len(growths) // columns)
    drawing = Drawing(figsize=(3.6 * columns, 2.8 * lines), layout="constrained")
    fields = drawing.subplots(lines, columns, squeeze=False)
    for axes in list(fields.flat)[len(growths) :]:
        axes.set_visible(False)
    for axes, growth in zip(fields.flat, growths, strict=False):
        for contender, costs in growth.costs.items():
            sizes = sorted(costs)
            colour = _BETTER if contender == "zeod" else _PEER
            axes.plot(
                sizes,
                [costs[size] for size in sizes],
                marker="o",
                markersize=3,
                color=colour,
                label=f"{contender}: n^{growth.exponent(contender):.2f}",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{growth.name}, {growth.unit}", fontsize=9)
        axes.set_xlabel(along, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    drawing.savefig(path)
