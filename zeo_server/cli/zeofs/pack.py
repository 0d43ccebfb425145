"""`zeofs pack`: drop old revisions and unreachable objects from a file."""

import os
import time
from collections import deque

import click

from zeo_core.ids import Tid, tid_to_time
from zeo_server.cli.zeofs.present import DIRECTORY, FILE, human_size, parse_time, work
from zeo_server.storages.file import offline
from zeo_server.storages.file.walk import open_reader

__all__ = ["pack"]

_DAY_S = 24 * 60 * 60


@click.command
@click.argument("file", type=FILE)
@click.option("--days", type=click.FloatRange(min=0), default=0, show_default=True, help="Keep what is younger.")
@click.option("--until", type=parse_time, metavar="TIME", help="Keep what is later than TIME, in place of --days.")
@click.option("--gc/--no-gc", default=True, show_default=True, help="Remove objects that nothing refers to, too.")
@click.option("--keep-old/--no-keep-old", default=True, show_default=True, help="Keep the file as it was as FILE.old.")
@click.option("--blob-dir", type=DIRECTORY, help="The directory of the blobs: those of removed records go, too.")
def pack(file: str, days: float, until: Tid | None, gc: bool, keep_old: bool, blob_dir: str | None) -> None:
    """Remove from FILE the revisions that were replaced by the pack time: now, unless told otherwise.

    With --gc, objects go as well that could not be reached from the root at the pack time and that nothing written
    later refers to; use --no-gc where objects of another database refer to some in FILE. The packed file takes the
    place of FILE when it is complete and on disk; whatever interrupts a pack leaves FILE as it was.

    No server may have FILE open. Blobs are only touched if their directory is named.

    Exit status: 0 if FILE is packed, 2 if not.

    \b
    Example:
        zeofs pack --days 7 Data.fs
    """
    open_reader(file)  # a file that is not there is not to be made
    before = os.path.getsize(file)
    until_s = time.time() - days * _DAY_S if until is None else tid_to_time(until)
    deque(work(offline.pack(file, until_s, gc=gc, keep_old=keep_old, blob_dir=blob_dir)), maxlen=0)
    click.echo(f"{file}: packed, {human_size(before)} before, {human_size(os.path.getsize(file))} now")
