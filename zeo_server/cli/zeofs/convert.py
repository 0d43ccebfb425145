"""`zeofs convert`: pickled records of the application's classes into another format, by the classes themselves."""

import importlib.metadata
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any

import click

from zeo_core.errors import ConfigurationError
from zeo_core.ids import oid_repr
from zeo_server.cli.zeofs.present import FILE, count_of, human_size, work
from zeo_server.storages.blob_layout import find_beside
from zeo_server.storages.file import FileStorage

__all__ = ["convert"]

_ENTRY_POINTS = "zeod.conversions"  # zeo_client, which makes objects, is reached through them
_SHOWN = 20  # faults that are printed one by one


@click.command
@click.argument("file", type=FILE)
@click.option("--to", "target", type=click.Choice(["protobuf"]), required=True, help="The format to convert to.")
@click.option(
    "--class", "classes", multiple=True, required=True, metavar="CLASS", help="A class, as its records name it."
)
@click.option("--import", "modules", multiple=True, metavar="MODULE", help="Import this first: one that knows aliases.")
@click.option("--dry-run", is_flag=True, help="Try all, write nothing; works while a server has FILE open.")
@click.option("--skip", is_flag=True, help="Leave out what cannot be converted, instead of converting nothing.")
@click.option("--batch", type=click.IntRange(min=1), default=1000, show_default=True, help="Objects in a transaction.")
def convert(
    file: str, target: str, classes: Sequence[str], modules: Sequence[str], dry_run: bool, skip: bool, batch: int
) -> None:
    """Turn the pickled records of classes in FILE into records whose state is a protobuf message.

    The classes must be the application's present ones, with the message, and importable; they are sought in the current
    directory, too. Unlike all other commands this one runs the application's code. No server may have FILE open.

    First every object is tried, and nothing is written if one cannot be converted, unless --skip is given. Then the
    objects are stored anew, in transactions of their own: what was is there until the next pack, and can be undone. If
    it is interrupted, run it again: it goes on with what is left.

    Exit status: 0 if all is or could be converted, 1 if some objects cannot be, 2 if the work was not done.

    \b
    Example:
        zeofs convert --to protobuf --class app.contacts.Contact --dry-run Data.fs
        zeofs convert --to protobuf --class app.contacts.Contact Data.fs
    """
    sys.path.insert(0, os.getcwd())
    if not os.path.exists(file):
        raise ConfigurationError(f"{file}: there is no such file")
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise ConfigurationError(f"--import {module}: {error}") from error
    # What cannot be loaded is told below; without a handler the log would show each once more, with a traceback.
    logging.getLogger("zeo_client").addHandler(logging.NullHandler())
    conversion = _conversion(target)
    storage = FileStorage(file, read_only=dry_run, blob_dir=find_beside(file))
    with closing(conversion(storage, classes, batch)) as done:
        deque(work(done.check()), maxlen=0)
        _tell(file, done)
        if not dry_run and (skip or not done.fault_count):
            _run(file, done)
            click.echo(f"{file}: {count_of(done.converted, 'object')} converted")
        elif not dry_run:
            click.echo(f"{file}: nothing was converted; --skip leaves out what cannot be")
        if done.fault_count:
            sys.exit(1)


def _conversion(target: str) -> Callable[..., Any]:
    for entry_point in importlib.metadata.entry_points(group=_ENTRY_POINTS, name=target):
        try:
            found: Callable[..., Any] = entry_point.load()
        except ImportError as error:
            raise ConfigurationError(f"{error}: pip install 'zeod[{target}]' brings what is needed") from error
        return found
    raise ConfigurationError(f"no installed package converts to {target} (entry points {_ENTRY_POINTS})")


def _tell(file: str, done: Any) -> None:
    sizes = f", {human_size(done.pickled_bytes)} as pickles, {human_size(done.message_bytes)} with messages"
    click.echo(
        f"{file}: {count_of(done.found - done.fault_count, 'object')} to convert{sizes}"
        + (f"; {count_of(done.already, 'object')} converted before" if done.already else "")
    )
    for fault in done.faults[:_SHOWN]:
        click.echo(f"    {oid_repr(fault.oid):>12}  {fault.class_name}  {fault.reason}")
    if done.fault_count > _SHOWN:
        click.echo(f"    and {done.fault_count - _SHOWN:,} more")
    if done.fault_count:
        click.echo(f"{file}: {count_of(done.fault_count, 'object')} cannot be converted")


def _run(file: str, done: Any) -> None:
    try:
        deque(work(done.convert()), maxlen=0)
    except BaseException:
        click.echo(f"{file}: {count_of(done.converted, 'object')} converted; run it again to go on", err=True)
        raise
