"""`zeo history`: which transactions wrote an object."""

import click

from zeo_client.cli.log_lines import print_lines
from zeo_client.cli.place import Place, connect, with_server
from zeo_core.ids import Oid, pack_id

__all__ = ["history", "parse_oid"]


def parse_oid(text: str) -> Oid:
    """Return the oid that `text` means, 0x1f or 31; click.BadParameter if it means none."""
    try:
        return pack_id(int(text, 0))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no oid: give a number, such as 0x1f or 31") from error


@click.command
@with_server
@click.argument("oid", type=parse_oid)
@click.option("-n", "--count", type=click.IntRange(1), default=20, show_default=True, help="Print up to so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for a connection.")
def history(where: Place, oid: Oid, count: int, as_json: bool, timeout: float) -> None:
    """Print the transactions that wrote the object OID in the storage at WHERE, newest first.

    \b
    Example:
        zeo history 127.0.0.1:9672 0x1f
    """
    storage = connect(where, timeout, read_only=True)
    try:
        print_lines(storage.revisions(oid, count), as_json=as_json)
    finally:
        storage.close()
