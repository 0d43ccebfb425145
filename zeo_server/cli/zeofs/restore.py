"""`zeofs restore`: a file from its backups."""

import sys
from collections import deque

import click

from zeo_core.ids import Tid
from zeo_server.cli.zeofs.present import FILE, count_of, parse_time, time_text, work
from zeo_server.storages.file.backup import Restore, verify

__all__ = ["restore"]


@click.command
@click.argument("repository", type=click.Path(file_okay=False))
@click.argument("target", type=FILE, required=False)
@click.option("--at", type=parse_time, metavar="TIME", help="Restore the state as of TIME instead of the last one.")
@click.option("--blob-dir", type=click.Path(), help="Where the blobs go; TARGET.blobs unless told otherwise.")
@click.option("--no-blobs", is_flag=True, help="Leave the blobs out.")
@click.option("--verify", "only_verify", is_flag=True, help="Restore nothing; read all backups and compare checksums.")
def restore(
    repository: str, target: str | None, at: Tid | None, blob_dir: str | None, no_blobs: bool, only_verify: bool
) -> None:
    """Make the new file TARGET from the backups in the directory REPOSITORY.

    TARGET must not exist, and appears when it is complete, verified by its checksums and on disk; so do the blobs, if
    there are any, in --blob-dir.

    Exit status: 0 if all is well, 1 if --verify finds damage, 2 if nothing was restored.

    \b
    Example:
        zeofs restore /backups/data Data.fs
        zeofs restore --at 2026-01-31T12:00:00 /backups/data Noon.fs
        zeofs restore --verify /backups/data
    """
    if only_verify:
        faults = list(work(verify(repository), str))
        for fault in faults:
            click.echo(fault)
        click.echo(f"{repository}: {'damaged' if faults else 'all backups are as they were made'}")
        sys.exit(1 if faults else 0)
    if target is None:
        raise click.UsageError("Missing argument 'TARGET'.")
    done = Restore(repository, target, at=at, blob_dir=None if no_blobs else blob_dir or target + ".blobs")
    deque(work(done.steps()), maxlen=0)
    blobs = f" with {count_of(done.blobs, 'blob')}" if done.blobs else ""
    if done.lost_blobs:
        click.echo(f"{target}: {count_of(done.lost_blobs, 'blob')} had been lost before the backup")
    click.echo(f"{target}: restored{blobs}, last commit {time_text(done.last_tid)}")
