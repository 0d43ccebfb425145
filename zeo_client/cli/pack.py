"""`zeo pack`: have a server pack one of its storages."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from zeo_client.cli.place import Place, connect, figures_at, with_server
from zeo_core.errors import ZeodError

__all__ = ["pack", "until"]

_LOOK_EVERY_S: Final = 0.5
_SILENT_S: Final = 2.0  # work that is done sooner needs no progress bar


@click.command
@with_server
@click.option("-d", "--days", type=click.FloatRange(min=0), default=0, show_default=True, help="Keep what is younger.")
@click.option("-t", "--time", "clock", metavar="HH:MM[:SS]", help="Keep what is later than this time of that day.")
@click.option("--no-wait", is_flag=True, help="Have it packed, and do not wait for the end.")
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="Wait so long for a connection.")
def pack(where: Place, days: float, clock: str | None, no_wait: bool, timeout: float) -> None:
    """Have the server at WHERE drop from a storage the revisions that were replaced, and unreachable objects.

    The server goes on serving meanwhile. Packing again to an earlier time does nothing.

    \b
    Examples:
        zeo pack --days 7 127.0.0.1:9672
        zeo pack --days 1 --time 03:00 zeo://db.example.org/main
    """
    time_s = until(datetime.now(), days, clock)
    storage = connect(where, timeout, read_only=False)
    try:
        before = storage.getSize()
        with _progress(where) if sys.stderr.isatty() and not no_wait else nullcontext():
            storage.pack(time_s, wait=not no_wait)
        if no_wait:
            click.echo(f"{storage.name()}: is being packed, {before:,} bytes")
        else:
            storage.ping()  # behind it the new size is known
            click.echo(f"{storage.name()}: packed, {before:,} bytes before, {storage.getSize():,} now")
    finally:
        storage.close()


def until(now: datetime, days: float, clock: str | None) -> float:
    """Return the time to pack to, in seconds since 1970: so many days ago, at that time of the day if one is given."""
    then = now - timedelta(days=days)
    if clock is not None:
        for form in ("%H:%M:%S", "%H:%M", "%H"):
            with suppress(ValueError):
                at = datetime.strptime(clock, form)
                then = then.replace(hour=at.hour, minute=at.minute, second=at.second, microsecond=0)
                break
        else:
            raise click.BadParameter(f"{clock!r} is no time of the day: give HH:MM or HH:MM:SS")
    return then.timestamp()


@contextmanager
def _progress(where: Place) -> Iterator[None]:
    """Show how far the server is, as it says itself to a second connection; ZEO's servers do not."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(where, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(where: Place, ended: threading.Event) -> None:
    if ended.wait(_SILENT_S):
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}
        while not ended.wait(_LOOK_EVERY_S):
            with suppress(ZeodError, KeyError, TypeError):  # another server, another look
                phase, done, total = figures_at(where)[where.storage_or_default]["pack"]
                if phase not in tasks:
                    tasks[phase] = shown.add_task(phase, total=total)
                shown.update(tasks[phase], completed=done, total=total)
