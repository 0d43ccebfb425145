"""`zeofs backup`: save a file, or what was added to it since the last backup."""

from collections import deque

import click

from zeo_server.cli.zeofs.present import FILE, human_size, time_text, work
from zeo_server.storages.file.backup import Backup

__all__ = ["backup"]


@click.command
@click.argument("file", type=FILE)
@click.argument("repository", type=click.Path(file_okay=False))
@click.option("--full", is_flag=True, help="Make a full backup, even where an incremental one would do.")
@click.option("--quick", is_flag=True, help="Compare with the file only the last part, not all that is backed up.")
def backup(file: str, repository: str, full: bool, quick: bool) -> None:
    r"""Back up FILE into the directory REPOSITORY, which is made if it does not exist.

    Works while a server has FILE open: what is committed when the backup begins is in it. The first backup is a full
    one, the next ones have what was added since, until a pack makes a full one necessary. Blobs are not included.

    Exit status: 0 if the repository is up to date, 2 if it is not.

    \b
    Example:
        zeofs backup Data.fs /backups/data
        zeofs restore /backups/data Restored.fs
    """
    done = Backup(file, repository, full=full, quick=quick)
    deque(work(done.steps()), maxlen=0)
    part = done.part
    if part is None:
        click.echo(f"{repository}: nothing new in {file}")
        return
    kind = f"full backup ({done.reason})" if part.full else "incremental backup"
    size = human_size(part.end - part.start)
    click.echo(f"{repository}: {kind} of {size} up to {time_text(part.tid)} in {part.name}")
