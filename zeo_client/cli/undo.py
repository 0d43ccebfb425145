"""`zeo undo`: take transactions back."""

import click
import transaction

from zeo_client.cli.place import Place, connect, with_server
from zeo_client.undo import undo_ids
from zeo_core.ids import Tid

__all__ = ["parse_tid", "undo"]


def parse_tid(text: str) -> Tid:
    """Return the tid that `text` means, its 16 hexadecimal digits; click.BadParameter if it means none."""
    digits = text.removeprefix("0x")
    try:
        tid = bytes.fromhex(digits)
    except ValueError:
        tid = b""
    if len(tid) != 8:
        raise click.BadParameter(f"{text!r} is no tid: give its 16 hexadecimal digits, as `zeo undolog` prints them")
    return tid


@click.command
@with_server
@click.argument("tids", metavar="TID...", type=parse_tid, nargs=-1, required=True)
@click.option("--user", default="", help="Who takes them back, for the log.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for a connection.")
def undo(where: Place, tids: tuple[Tid, ...], user: str, timeout: float) -> None:
    """Take back transactions of the storage at WHERE, in the order given, in one transaction.

    Nothing is changed if one of them cannot be, since what it wrote was changed later. Give the newest first.

    \b
    Example:
        zeo undo 127.0.0.1:9672 03f4d2a1b6c7e899
    """
    storage = connect(where, timeout, read_only=False)
    own = transaction.Transaction()
    own.user, own.description = user, "undo " + " ".join(tid.hex() for tid in tids)
    try:
        storage.tpc_begin(own)
        try:
            for undo_id in undo_ids(tids):
                storage.undo(undo_id, own)
            changed = storage.tpc_vote(own)
            tid = storage.tpc_finish(own)
        finally:
            storage.tpc_abort(own)
    finally:
        storage.close()
    click.echo(f"{storage.name()}: undone, {len(changed)} objects changed by transaction {tid.hex()}")
