"""`zeofs refs`: who refers to an object, and which references lead nowhere."""

import json
import sys

import click

from zeo_core.errors import POSKeyError
from zeo_core.ids import Oid, oid_repr
from zeo_server.cli.zeofs.present import FILE, count_of, parse_oid, work
from zeo_server.storages.file.graph import Graph, Reference

__all__ = ["refs"]


@click.command
@click.argument("file", type=FILE)
@click.argument("oid", type=parse_oid, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each reference.")
def refs(file: str, oid: Oid | None, as_json: bool) -> None:
    """Show which objects of FILE refer to the object OID; without OID, the references that lead nowhere.

    Looks at the objects as they are now; no class is imported. Weak references, and those into other databases, are
    left out. Reads all of FILE, also while a server has it open.

    Exit status: 0, 1 if references lead nowhere or a record cannot be read, 2 if FILE cannot be read or is damaged, or
    there is no object OID.

    \b
    Example:
        zeofs refs Data.fs 0x2a
        zeofs refs Data.fs
    """
    graph = Graph(file)
    if oid is not None and not graph.has(oid):
        raise POSKeyError(oid)
    count = 0
    for reference in work(graph.dangling() if oid is None else graph.referrers(oid), Reference):
        count += 1
        click.echo(json.dumps(_fields(reference)) if as_json else _line(reference, oid))
    for position, source, reason in graph.unreadable:
        click.echo(f"{file}: at byte {position}: the record of oid {oid_repr(source)}: {reason}", err=True)
    if not as_json:
        click.echo(f"{file}: {count_of(count, 'dangling reference' if oid is None else 'reference')}")
    sys.exit(1 if graph.unreadable or (oid is None and count) else 0)


def _line(reference: Reference, oid: Oid | None) -> str:
    line = f"{oid_repr(reference.source)}  {reference.source_class}"
    return line if oid is not None else f"{line}  refers to {oid_repr(reference.target)}, which does not exist"


def _fields(reference: Reference) -> dict[str, object]:
    return {
        "oid": oid_repr(reference.source),
        "class": reference.source_class,
        "refers_to": oid_repr(reference.target),
        "position": reference.position,
    }
