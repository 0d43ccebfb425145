"""`zeofs index`: is the saved index right, and make it anew."""

import sys
from collections import deque

import click

from zeo_core.errors import StorageError
from zeo_server.cli.zeofs.present import FILE, count_of, work
from zeo_server.storages.file.check import Check
from zeo_server.storages.file.rebuild import Rebuild

__all__ = ["index"]


@click.command
@click.argument("file", type=FILE)
@click.option("--rebuild", is_flag=True, help="Make the index anew and save it; no server may have FILE open.")
def index(file: str, rebuild: bool) -> None:
    """Compare the index of FILE, which is in FILE.index, with FILE; with --rebuild, make it anew.

    Without an index, opening a database takes as long as reading all of it. An index that ends before the file does is
    all right: the rest is scanned.

    Exit status: 0 if the index is right or was made, 1 if it is missing or wrong, 2 if FILE is damaged or in use.

    \b
    Example:
        zeofs index Data.fs
        zeofs index --rebuild Data.fs
    """
    if rebuild:
        made = Rebuild(file)
        deque(work(made.steps()), maxlen=0)
        click.echo(f"{file}.index: made, {count_of(made.objects, 'object')}")
        return
    done = Check(file)
    deque(work(done.steps()), maxlen=0)
    path = f"{file}.index"
    for fault in done.faults:
        if fault.path == path:
            click.echo(str(fault))
        else:
            raise StorageError(f"{fault}; see zeofs check")
    click.echo(f"{path}: {done.index}")
    sys.exit(0 if done.index.startswith("agrees") else 1)
