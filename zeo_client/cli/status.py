"""`zeo status`: what a server says of its storages."""

import json
import time
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from zeo_client.cli.place import Place, figures_at, with_server
from zeo_client.cli.quantities import seconds, size
from zeo_client.monitoring import Figures
from zeo_core.errors import ConfigurationError
from zeo_core.ids import tid_to_time

__all__ = ["chosen", "status", "text_of", "time_of"]


@click.command
@with_server
@click.option("--json", "as_json", is_flag=True, help="Print what the server says, as JSON.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for an answer.")
def status(where: Place, as_json: bool, timeout: float) -> None:
    """Print what the server at WHERE says of its storages: figures since it was started.

    \b
    Examples:
        zeo status 127.0.0.1:9672
        zeo status --json zeo://db.example.org/main
    """
    storages = chosen(figures_at(where, timeout), where)
    if as_json:
        click.echo(json.dumps(storages, indent=2))
        return
    names = dict.fromkeys(key for figures in storages.values() for key in figures)
    table = Table("", *storages, box=None, pad_edge=False)
    for key in names:
        table.add_row(key.replace("_", " "), *(text_of(key, figures.get(key)) for figures in storages.values()))
    Console(highlight=False, soft_wrap=True).print(table)


def chosen(storages: dict[str, Figures], where: Place) -> dict[str, Figures]:
    """Return the figures of the storage that WHERE names, of all if it names none; ConfigurationError if it is not."""
    if not where.storage:
        return storages
    if where.storage not in storages:
        there = ", ".join(sorted(storages)) or "none"
        raise ConfigurationError(f"{where.address}: no storage {where.storage!r} there, but {there}")
    return {where.storage: storages[where.storage]}


def time_of(tid: str) -> str:
    """Return when a transaction was, given its tid as the figures have it."""
    try:
        number = bytes.fromhex(tid)
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(tid_to_time(number))) if any(number) else "never"
    except ValueError:
        return tid


def text_of(key: str, value: Any) -> str:
    """Return a figure as people read it."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return _spread(key, value)
    if key == "pack":
        phase, done, total = value
        return f"{phase}, {size(done)} of {size(total)}"
    if key.endswith("_bytes") or key in ("bytes_in", "bytes_out"):
        return size(value)
    if key in ("last-transaction", "upstream_last_tid"):
        return f"{value} ({time_of(str(value))})"
    if key == "lock_time":
        return f"{max(0.0, time.time() - float(value)):.1f} s ago"
    return f"{value:,}" if type(value) is int else str(value)


def _spread(key: str, told: Mapping[str, Any]) -> str:
    """Return a histogram in a few words."""
    if not told["count"]:
        return "-"
    text = seconds if key.endswith("_seconds") else "{:.1f}".format
    return f"mean {text(told['sum'] / told['count'])}, 99 % up to {text(told['p99'])}, {told['count']:,} times"
