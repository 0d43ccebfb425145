"""`zeo undolog`: which transactions may be undone."""

from itertools import islice

import click

from zeo_client.cli.log_lines import print_lines
from zeo_client.cli.place import Place, connect, with_server

__all__ = ["undolog"]


@click.command
@with_server
@click.option("-n", "--count", type=click.IntRange(1), default=20, show_default=True, help="Print up to so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for a connection.")
def undolog(where: Place, count: int, as_json: bool, timeout: float) -> None:
    """Print the transactions of the storage at WHERE that may be undone, newest first.

    \b
    Example:
        zeo undolog -n 50 127.0.0.1:9672
    """
    storage = connect(where, timeout, read_only=True)
    try:
        print_lines(islice(storage.undo_log(), count), as_json=as_json)
    finally:
        storage.close()
