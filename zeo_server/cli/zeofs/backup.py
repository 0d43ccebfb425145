"""`zeofs backup`: save a file, or what was added to it since the last backup."""

import sys
from collections import deque

import click

from zeo_server.cli.zeofs.present import FILE, blob_directory, blob_options, count_of, human_size, time_text, work
from zeo_server.storages.file.backup import Backup

__all__ = ["backup"]


@click.command
@click.argument("file", type=FILE)
@click.argument("repository", type=click.Path(file_okay=False))
@click.option("--full", is_flag=True, help="Make a full backup, even where an incremental one would do.")
@blob_options
@click.option("--quick", is_flag=True, help="Compare with the file only the last part, not all that is backed up.")
def backup(file: str, repository: str, full: bool, quick: bool, blob_dir: str | None, blobs: bool) -> None:
    """Back up FILE into the directory REPOSITORY, which is made if it does not exist.

    Works while a server has FILE open: what is committed when the backup begins is in it. The first backup is a full
    one, the next ones have what was added since, until a pack makes a full one necessary. Blobs are included, if their
    directory is named by --blob-dir or found beside FILE, as `zeofs check` finds it.

    Exit status: 0 if the repository is up to date, 1 if it is, but without blobs that FILE has lost, 2 if it is not.

    \b
    Example:
        zeofs backup Data.fs /backups/data
        zeofs restore /backups/data Restored.fs
    """
    directory = blob_directory(file, blob_dir, blobs=blobs)
    done = Backup(file, repository, full=full, quick=quick, blob_dir=directory)
    deque(work(done.steps()), maxlen=0)
    part = done.part
    if part is None:
        click.echo(f"{repository}: nothing new in {file}")
        return
    kind = f"full backup ({done.reason})" if part.full else "incremental backup"
    size = human_size(part.end - part.start)
    saved = f" with {count_of(part.blobs.count, 'blob')}" if part.blobs is not None else ""
    click.echo(f"{repository}: {kind} of {size}{saved} up to {time_text(part.tid)} in {part.name}")
    if part.blobs is not None and part.blobs.lost:
        click.echo(f"{directory}: {count_of(part.blobs.lost, 'blob')} missing: see zeofs check")
        sys.exit(1)
