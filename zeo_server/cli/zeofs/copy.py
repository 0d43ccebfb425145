"""`zeofs copy`: a database to another place, transaction by transaction."""

import os
import sys
import tempfile
from collections import deque
from contextlib import ExitStack, closing

import click

from zeo_core.errors import StorageError
from zeo_core.ids import Tid
from zeo_server.cli.zeofs.places import file_at, open_storage
from zeo_server.cli.zeofs.present import DIRECTORY, count_of, parse_time, time_text, work
from zeo_server.storages.blob_layout import find_beside
from zeo_server.storages.copying import Copy, StorageTarget, Target
from zeo_server.storages.file.file_target import FileTarget

__all__ = ["copy"]


@click.command
@click.argument("source")
@click.argument("target")
@click.option("--until", type=parse_time, metavar="TIME", help="Copy the transactions up to TIME only.")
@click.option("--resume", is_flag=True, help="Go on behind what TARGET has, if that is a true beginning of SOURCE.")
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing.")
@click.option("--blob-dir", type=DIRECTORY, help="The directory of the blobs of SOURCE, if that is a file.")
@click.option("--to-blob-dir", type=click.Path(file_okay=False), help="The same for TARGET.")
@click.option("--blobs/--no-blobs", default=True, help="Leave out the blobs, and copy only their records.")
def copy(
    source: str,
    target: str,
    until: Tid | None,
    resume: bool,
    dry_run: bool,
    blob_dir: str | None,
    to_blob_dir: str | None,
    blobs: bool,
) -> None:
    """Copy the database SOURCE to TARGET: all its transactions, with their tids and what they undo, and its blobs.

    \b
    SOURCE and TARGET are each one of
        Data.fs, file:///path    a file; a server may have the source open
        zeo://host:port/name     a storage of a server; zeo:///path/to/socket?storage=name
        zeo.conf#name            a storage of a zeo.conf; zeo.conf, if it has only one
        memory://                nowhere: to see whether a copy can be made

    The copy is as of the moment at which it begins. TARGET must be empty, unless --resume is given. A new file appears
    when it is complete; until then it is TARGET.part. The blobs of a file are in the directory that is named, or found
    beside it, or, for a new one, TARGET.blobs.

    Exit status: 0 if all is copied, 1 if SOURCE has lost blobs, 2 if the copy was not made.

    \b
    Example:
        zeofs copy Data.fs Copy.fs
        zeofs copy --until 2026-01-31T12:00:00 Data.fs January.fs
        zeofs copy --resume zeo://old.example.com:8100 zeo.conf#main
    """
    with ExitStack() as opened:
        found = _source_blobs(opened, source, blob_dir) if blobs else None
        storage = opened.enter_context(closing(open_storage(source, read_only=True, blob_dir=found)))
        to = _target(opened, target, to_blob_dir, resume=resume, dry_run=dry_run, blobs=blobs)
        done = Copy(storage, to, until=until, resume=resume, dry_run=dry_run, blobs=blobs)
        _run(done, target)
        if isinstance(to, FileTarget):
            to.complete()
    would = "would be " if dry_run else ""
    compared = f", {done.compared:,} compared that were there" if resume else ""
    with_blobs = f" with {count_of(done.blobs, 'blob')}" if done.blobs else ""
    click.echo(f"{target}: {count_of(done.transactions, 'transaction')}{with_blobs} {would}copied{compared}")
    if done.lost_blobs:
        click.echo(f"{source}: {count_of(done.lost_blobs, 'blob')} could not be copied: the source does not have them")
        sys.exit(1)


def _source_blobs(opened: ExitStack, source: str, blob_dir: str | None) -> str | None:
    """Return the directory of the source's blobs; for a server's storage, a temporary one for those fetched."""
    path = file_at(source)
    if path is not None:
        return blob_dir or find_beside(path)
    return _passing(opened) if source.startswith("zeo://") else blob_dir


def _passing(opened: ExitStack) -> str:
    """Return a directory for blobs on their way to or from a server."""
    return opened.enter_context(tempfile.TemporaryDirectory(prefix="zeofs-blobs-", ignore_cleanup_errors=True))


def _target(
    opened: ExitStack, target: str, blob_dir: str | None, *, resume: bool, dry_run: bool, blobs: bool
) -> Target:
    path = file_at(target)
    if blobs and target.startswith("zeo://"):
        blob_dir = _passing(opened)
    if path is None or (resume and os.path.exists(path)):
        beside = find_beside(path) if path else None
        storage = open_storage(target, read_only=dry_run, blob_dir=blob_dir or beside)
        return StorageTarget(opened.enter_context(closing(storage)))
    if dry_run:
        return StorageTarget(opened.enter_context(closing(open_storage("memory://", read_only=False))))
    if os.path.exists(path + ".part") and not resume:
        raise StorageError(f"{path}.part: left by a copy that was cut short: go on with --resume, or remove it")
    return opened.enter_context(FileTarget(path, blob_dir or path + ".blobs"))


def _run(done: Copy, target: str) -> None:
    try:
        deque(work(done.steps()), maxlen=0)
    except BaseException:
        if done.transactions:
            click.echo(f"{target}: copied up to {time_text(done.last_tid)}; --resume goes on from there", err=True)
        raise
