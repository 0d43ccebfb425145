"""`zeo nagios`: a check for Nagios and what understands its plug-ins; in the place of ZEO's `zeo-nagios`."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

import click

from zeo_client.cli.place import Place, figures_at, with_server
from zeo_client.cli.status import chosen
from zeo_client.monitoring import Figures
from zeo_core.errors import ZeodError

__all__ = ["nagios"]

_OK, _WARNING, _CRITICAL = 0, 1, 2  # the exit statuses of a plug-in

_LEVELS: Final = ("active_txns", "connections", "waiting")
_COUNTERS: Final = ("aborts", "commits", "conflicts", "conflicts_resolved", "loads", "stores")
_UNITS: Final = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}
_EMPTY: Final = "0" * 16


@click.command
@with_server
@click.option("-m", "--output-metrics", is_flag=True, help="Print figures for graphs, too.")
@click.option("-s", "--status-path", metavar="FILE", help="Keep the last figures in FILE: rates are the differences.")
@click.option("-u", "--time-units", type=click.Choice(list(_UNITS)), default="minutes", show_default=True)
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for an answer.")
def nagios(where: Place, output_metrics: bool, status_path: str | None, time_units: str, timeout: float) -> None:
    """Check the server at WHERE, with the output and the exit status of a Nagios plug-in.

    \b
    Exit status:
        0  it answers
        1  a storage is empty or cut off from the server whose it is, or there is none
        2  it cannot be reached

    \b
    Example:
        zeo nagios -m -s /var/tmp/zeo.status 127.0.0.1:9672
    """
    try:
        storages = chosen(figures_at(where, timeout), where)
    except ZeodError as error:
        click.echo(f"Can't connect {error}")
        sys.exit(_CRITICAL)
    metrics: list[str] = []
    if output_metrics:
        metrics = [_metric(name, key, figures[key]) for name, figures in sorted(storages.items()) for key in _LEVELS]
        if status_path is not None:
            metrics += _rates(storages, status_path, _UNITS[time_units])
    empty = [name for name, figures in sorted(storages.items()) if figures.get("last-transaction") == _EMPTY]
    lines = [f"Empty storage {name!r}" for name in empty]
    lines += [
        f"Storage {name!r} is without its server {figures['upstream_address']}"
        for name, figures in sorted(storages.items())
        if figures.get("upstream_connected") is False
    ]
    if not storages:
        lines = ["No storages"]
    _print(lines or ["OK"], metrics)
    sys.exit(_WARNING if lines else _OK)


def _metric(storage: str, key: str, value: object) -> str:
    label = key if storage == "1" else f"{storage}:{key}"
    return f"'{label}'={value}" if " " in label else f"{label}={value}"


def _rates(storages: Mapping[str, Figures], path: str, unit_s: float) -> list[str]:
    """Return how fast the counters have grown since the figures in the file at `path`, and keep these there."""
    now_s = time.time()
    before, elapsed_s = _kept(path, now_s)
    rates = [
        _metric(name, key, (figures[key] - before[name].get(key, 0)) / (elapsed_s / unit_s))
        for name, figures in sorted(storages.items())
        for key in _COUNTERS
        # after a restart the counters begin anew: a rate below zero would be told
        if name in before and elapsed_s > 0 and figures[key] >= before[name].get(key, 0)
    ]
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({name: dict(figures) for name, figures in storages.items()}, file)
    os.utime(temporary, (now_s, now_s))
    os.replace(temporary, path)
    return rates


def _kept(path: str, now_s: float) -> tuple[dict[str, Figures], float]:
    """Return the figures in the file at `path` and their age in seconds; none if there are none, or they are torn."""
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        age_s = now_s - os.stat(path).st_mtime
    except (OSError, ValueError):
        return {}, 0.0
    return (kept, age_s) if isinstance(kept, dict) else ({}, 0.0)


def _print(lines: list[str], metrics: list[str]) -> None:
    """Print messages and figures in a plug-in's form: the first figure on the first line, the others at the end."""
    first = lines[0] + (f"|{metrics[0]}" if metrics else "")
    text = [first, *lines[1:]]
    if len(metrics) > 1:
        text.append("| " + "\n ".join(metrics[1:]))
    click.echo("\n".join(text))
