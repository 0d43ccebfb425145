"""`zeofs recover`: save what can be read of a damaged file."""

import json
import sys
from collections import deque

import click

from zeo_core.ids import oid_repr, unpack_id
from zeo_server.cli.zeofs.present import FILE, count_of, work
from zeo_server.storages.file.salvage import Loss, Salvage

__all__ = ["recover"]


@click.command
@click.argument("damaged", type=FILE)
@click.argument("target", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def recover(damaged: str, target: str, as_json: bool) -> None:
    """Copy all that can be read of the file DAMAGED into the new file TARGET, and name what is lost.

    DAMAGED is only read, and TARGET must not exist. Check TARGET afterwards: objects may refer to lost ones.

    Exit status: 0 if nothing is lost, 1 if something is, 2 if it could not be done.

    \b
    Example:
        zeofs recover Data.fs Salvaged.fs
        zeofs check Salvaged.fs
    """
    done = Salvage(damaged, target)
    deque(work(done.steps()), maxlen=0)
    if as_json:
        report = {"transactions": done.transactions, "records": done.records, "lost_bytes": done.lost_bytes}
        click.echo(json.dumps({**report, "loss_count": done.loss_count, "losses": list(map(_fields, done.losses))}))
    else:
        for loss in done.losses:
            click.echo(f"{damaged}: lost: {loss}")
        if done.loss_count > len(done.losses):
            click.echo(f"... and {count_of(done.loss_count - len(done.losses), 'more loss')}")
        saved = f"{count_of(done.transactions, 'transaction')} with {count_of(done.records, 'record')}"
        click.echo(f"{target}: {saved} saved, {count_of(done.lost_bytes, 'byte')} lost")
    sys.exit(1 if done.loss_count else 0)


def _fields(loss: Loss) -> dict[str, object]:
    tid = None if loss.tid is None else f"0x{unpack_id(loss.tid):016x}"
    oid = None if loss.oid is None else oid_repr(loss.oid)
    return {"start": loss.start, "end": loss.end, "reason": loss.reason, "tid": tid, "oid": oid}
