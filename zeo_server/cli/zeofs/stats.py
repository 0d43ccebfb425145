"""`zeofs stats`: what a file holds, class by class."""

import importlib
import json
from collections import deque
from dataclasses import asdict
from typing import Any

import click

from zeo_core.errors import ConfigurationError
from zeo_core.ids import oid_repr, pack_id, unpack_id
from zeo_server.cli.zeofs.present import FILE, count_of, human_size, time_text, work
from zeo_server.storages.file.stats import ClassStats, Stats

__all__ = ["stats"]

_PLOTTED = 20  # classes; more bars could not be read


@click.command
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--limit", type=click.IntRange(min=1), default=30, show_default=True, help="Classes in the table.")
@click.option("--plot", type=FILE, metavar="PICTURE", help="Draw PICTURE (.png, .svg, .pdf); needs zeod[plot].")
def stats(file: str, as_json: bool, limit: int, plot: str | None) -> None:
    """Count the objects of FILE by class: how many, how many bytes, the largest.

    Objects are counted as they are now; records include their older revisions, which a pack would remove. Works while
    a server has FILE open.

    Exit status: 0, or 2 if FILE cannot be read or is damaged.

    \b
    Example:
        zeofs stats Data.fs
        zeofs stats --plot classes.png Data.fs
    """
    done = Stats(file)
    deque(work(done.steps()), maxlen=0)
    if plot is not None:
        _plot(done, plot)
    if as_json:
        click.echo(json.dumps(_report(done)))
    else:
        _print(done, limit)


def _report(done: Stats) -> dict[str, object]:
    classes = [{**asdict(one), "largest_oid": oid_repr(pack_id(one.largest_oid))} for one in done.classes]
    return {
        "file": done.path,
        "bytes": done.size,
        "transactions": done.transactions,
        "records": done.records,
        "objects": done.objects,
        "deleted": done.deleted,
        "first_tid": f"0x{unpack_id(done.first_tid):016x}",
        "last_tid": f"0x{unpack_id(done.last_tid):016x}",
        "classes": classes,
    }


def _print(done: Stats, limit: int) -> None:
    click.echo(f"{done.path}: {human_size(done.size)}, {count_of(done.transactions, 'transaction')}", nl=False)
    if done.transactions:
        click.echo(f" from {time_text(done.first_tid)} to {time_text(done.last_tid)}", nl=False)
    click.echo(f", {count_of(done.objects, 'object')}, {count_of(done.deleted, 'deletion')}\n")
    heads = ("objects", "bytes", "share", "mean", "largest", "of oid", "records", "bytes")
    click.echo("".join(f"{head:>11}" for head in heads) + "  class")
    whole = sum(one.bytes for one in done.classes) or 1
    for one in done.classes[:limit]:
        click.echo(_row(one, whole))
    if len(done.classes) > limit:
        click.echo(f"... and {len(done.classes) - limit:,} more")


def _row(one: ClassStats, whole: int) -> str:
    mean = one.bytes / one.objects if one.objects else 0
    cells = (
        f"{one.objects:,}",
        human_size(one.bytes),
        f"{100 * one.bytes / whole:.1f} %",
        human_size(mean),
        human_size(one.largest),
        oid_repr(pack_id(one.largest_oid)),
        f"{one.records:,}",
        human_size(one.record_bytes),
    )
    return "".join(f"{cell:>11}" for cell in cells) + f"  {one.name}"


def _plot(done: Stats, path: str) -> None:
    """Draw the largest classes: their objects' bytes and, behind them, what their old revisions take."""
    try:
        figure_module: Any = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise ConfigurationError("--plot needs matplotlib: pip install 'zeod[plot]'") from None
    shown = sorted(done.classes, key=lambda one: -one.record_bytes)[:_PLOTTED][::-1]
    figure = figure_module.Figure(figsize=(10, 1.8 + 0.34 * len(shown)), layout="constrained")
    axes = figure.subplots()
    names = [one.name if len(one.name) <= 50 else "..." + one.name[-47:] for one in shown]
    rows = range(len(shown))
    axes.barh(rows, [one.record_bytes / 1e6 for one in shown], color="#c8d4e3", label="all revisions")
    axes.barh(rows, [one.bytes / 1e6 for one in shown], height=0.5, color="#2f5d8a", label="objects as they are now")
    for row, one in zip(rows, shown, strict=True):
        axes.annotate(
            count_of(one.objects, "object"), (one.record_bytes / 1e6, row), (4, 0), "data", "offset points", va="center"
        )
    axes.set_yticks(rows, names)
    axes.margins(x=0.2)
    axes.set_xlabel("MB of object data")
    axes.set_title(f"{done.path}: {count_of(done.objects, 'object')}, {human_size(done.size)}")
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
