"""`zeofs copy`: a database into a new file, transaction by transaction."""

from collections.abc import Iterator

import click

from zeo_core.ids import Tid
from zeo_core.storage import Progress
from zeo_server.cli.zeofs.present import FILE, count_of, parse_time, work
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.fresh import FreshFile

__all__ = ["copy"]


@click.command
@click.argument("source", type=FILE)
@click.argument("target", type=FILE)
@click.option("--until", type=parse_time, metavar="TIME", help="Copy the transactions up to TIME only.")
def copy(source: str, target: str, until: Tid | None) -> None:
    r"""Copy the database in the file SOURCE to the new file TARGET: all its transactions, with their tids.

    Works while a server has SOURCE open; the copy is as of the moment at which it begins. Every record is read and
    laid out anew, so that a copy that is made is whole. TARGET appears when it is complete.

    Exit status: 0 if TARGET was made, 2 if not.

    \b
    Example:
        zeofs copy Data.fs Copy.fs
        zeofs copy --until 2026-01-31T12:00:00 Data.fs January.fs
    """
    with FreshFile(target) as fresh:
        storage = FileStorage(source, read_only=True)
        try:
            count = sum(work(_copy(storage, fresh, until), int))
            fresh.complete()
        finally:
            storage.close()
    click.echo(f"{target}: {count_of(count, 'transaction')} copied")


def _copy(storage: FileStorage, fresh: FreshFile, until: Tid | None) -> Iterator[Progress | int]:
    """Copy the transactions; yield 1 for each, and how many bytes are done."""
    total = storage.byte_size()
    for transaction in storage.transactions(stop=until):
        fresh.add(transaction.tid, transaction.status, transaction.metadata, transaction.records)
        yield 1
        yield Progress("copying", min(fresh.size, total), total)
