"""`zeo top`: what a server is doing, again and again."""

import itertools
import time
from collections.abc import Mapping
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from zeo_client.cli.place import Place, figures_at, with_server
from zeo_client.cli.quantities import seconds, size
from zeo_client.cli.status import chosen, time_of
from zeo_client.monitoring import Figures

__all__ = ["table", "top"]

_COLUMNS: Final = (
    *("storage", "loads", "stores", "commits", "conflicts", "resolved", "aborts"),
    *("clients", "open", "waits", "last"),
)
_WIDE_COLUMNS: Final = ("group", "write", "99 %", "unread", "in", "out")  # zeod tells these, ZEO's servers do not
_WIDE_FROM: Final = 110  # columns of the terminal
_COUNTERS: Final = ("loads", "stores", "commits", "conflicts", "conflicts_resolved", "aborts")


@click.command
@with_server
@click.option("-i", "--interval", type=click.FloatRange(0.05), default=2.0, show_default=True, metavar="SECONDS")
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many tables; else with Ctrl-C.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for an answer.")
def top(where: Place, interval: float, count: int | None, timeout: float) -> None:
    """Show what the server at WHERE does: for each storage, what happens a second, and who waits.

    \b
    Example:
        zeo top 127.0.0.1:9672
    """
    console = Console(highlight=False)
    before, before_s = chosen(figures_at(where, timeout), where), time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        try:
            for _ in range(count) if count else itertools.count():
                time.sleep(interval)
                now, now_s = chosen(figures_at(where, timeout), where), time.monotonic()
                wide = console.width >= _WIDE_FROM
                live.update(table(str(where.address), before, now, now_s - before_s, wide=wide), refresh=True)
                before, before_s = now, now_s
        except KeyboardInterrupt:
            pass  # how one leaves


def table(
    title: str, before: Mapping[str, Figures], now: Mapping[str, Figures], elapsed_s: float, *, wide: bool = False
) -> Table:
    """Return the table of what happened between two looks at the figures, a row for each storage.

    It fits into the 80 columns of the smallest terminal, unless it is to be `wide`.
    """
    columns = (*_COLUMNS[:-1], *_WIDE_COLUMNS, _COLUMNS[-1]) if wide else _COLUMNS
    made = Table(*columns, title=f"{title}, per second", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in made.columns[1:-1]:
        column.justify = "right"
    for name, figures in now.items():
        earlier = before.get(name, {})
        # a server that was restarted counts from 0 again
        rates = [max(0, figures[key] - earlier.get(key, 0)) / elapsed_s for key in _COUNTERS]
        made.add_row(
            name,
            *(f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}" for rate in rates),
            str(figures["connections"]),
            str(figures["active_txns"]),
            str(figures["waiting"]),
            *(_writing(earlier, figures, elapsed_s) if wide else ()),
            time_of(str(figures["last-transaction"])).rpartition(" ")[2],
        )
    return made


def _writing(earlier: Figures, now: Figures, elapsed_s: float) -> tuple[str, ...]:
    """Return what the wide table has more: group size, write time, its 99 %, backlog, bytes in and out a second."""
    if "group_sizes" not in now:
        return ("-",) * len(_WIDE_COLUMNS)
    group, write = _mean(earlier, now, "group_sizes"), _mean(earlier, now, "write_seconds")
    p99 = now["write_seconds"]["p99"]
    rates = [max(0, now[key] - earlier.get(key, 0)) / elapsed_s for key in ("bytes_in", "bytes_out")]
    return (
        "-" if group is None else f"{group:.1f}",
        "-" if write is None else seconds(write),
        "-" if p99 is None else seconds(p99),
        size(now["backlog_bytes"]),
        *map(size, rates),
    )


def _mean(earlier: Figures, now: Figures, key: str) -> float | None:
    """Return the mean of a histogram's values since an earlier look, None without values."""
    before = earlier.get(key, {"count": 0, "sum": 0.0})
    if now[key]["count"] < before["count"]:  # restarted
        before = {"count": 0, "sum": 0.0}
    count = now[key]["count"] - before["count"]
    return (now[key]["sum"] - before["sum"]) / count if count else None
