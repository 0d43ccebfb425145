"""`zeofs dump` and `zeofs tail`: the transactions of a file, for people and for programs."""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

import click

from zeo_core.ids import Oid, Tid, oid_repr, unpack_id
from zeo_core.transaction import RecordedObject, RecordedTransaction, extension_map
from zeo_server.cli.zeofs.present import FILE, count_of, human_size, parse_oid, parse_time, time_text
from zeo_server.cli.zeofs.states import States, schema_options
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.format import STATUS_PACKED
from zeo_server.storages.file.graph import safe_class_name
from zeo_server.storages.file.log import Log
from zeo_server.storages.file.recover import read_contents
from zeo_server.storages.file.walk import open_reader

__all__ = ["dump", "tail"]


@click.command
@click.argument("file", type=FILE)
@click.option("--since", type=parse_time, metavar="TIME", help="Begin with the first transaction from TIME on.")
@click.option("--until", type=parse_time, metavar="TIME", help="End with the last transaction up to TIME.")
@click.option("--oid", type=parse_oid, metavar="OID", help="Only records of this object, and their transactions.")
@click.option("--records/--no-records", default=True, show_default=True, help="Show the transactions' records.")
@click.option("--states", "with_states", is_flag=True, help="Show the states that are protobuf messages.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each transaction.")
@schema_options
def dump(
    file: str,
    since: Tid | None,
    until: Tid | None,
    oid: Oid | None,
    records: bool,
    with_states: bool,
    as_json: bool,
    schemas: Sequence[str],
    messages: Sequence[str],
) -> None:
    """Show the transactions of FILE, oldest first, and what they wrote.

    Works while a server has FILE open. No class is imported, but a module that --schema names is.

    Exit status: 0, or 2 if FILE cannot be read or is damaged.

    \b
    Example:
        zeofs dump --since 2026-01-31T12:00:00 Data.fs
        zeofs dump --json Data.fs | jq -r .description
        zeofs dump --states --schema app.contacts Data.fs
    """
    states = States(schemas, messages) if with_states or schemas or messages else None
    storage = FileStorage(file, read_only=True)
    try:
        for transaction in storage.transactions(since, until):
            _show(transaction, records, as_json, oid, states)
    finally:
        storage.close()


@click.command
@click.argument("file", type=FILE)
@click.option("-n", "--count", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("--records/--no-records", default=False, show_default=True, help="Show the transactions' records.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each transaction.")
def tail(file: str, count: int, records: bool, as_json: bool) -> None:
    """Show the last transactions of FILE, oldest first.

    Works while a server has FILE open; takes no longer for a large file.

    Exit status: 0, or 2 if FILE cannot be read or is damaged.

    \b
    Example:
        zeofs tail -n 3 Data.fs
    """
    reader = open_reader(file)
    log = Log(reader, read_contents(reader, read_only=True).end)
    last = deque(islice(log.headers_backwards(), count), maxlen=1)
    if last:
        for transaction in log.transactions(last[0].tid, None):
            _show(transaction, records, as_json, None)


def _show(
    transaction: RecordedTransaction, records: bool, as_json: bool, oid: Oid | None, states: States | None = None
) -> None:
    shown = [record for record in transaction.records if oid is None or record.oid == oid]
    if oid is not None and not shown:
        return
    if as_json:
        click.echo(json.dumps(_fields(transaction, shown if records else None, states), default=_plain))
        return
    metadata = transaction.metadata
    texts = [_text(metadata.user), _text(metadata.description).replace("\n", " / ")]
    packed = ["packed"] if transaction.status == STATUS_PACKED else []
    size = human_size(sum(len(record.data or b"") for record in shown))
    what = [f"0x{unpack_id(transaction.tid):016x}", time_text(transaction.tid), count_of(len(shown), "record"), size]
    click.echo("  ".join(text for text in (*what, *packed, *texts) if text))
    for record in shown if records else ():
        click.echo(_line(record))
        for line in states.lines(record.data) if states else ():
            click.echo(f"        {line}")


def _line(record: RecordedObject) -> str:
    repeats = "" if record.data_tid is None else f"  repeats 0x{unpack_id(record.data_tid):016x}"
    if record.data is None:
        return f"    {oid_repr(record.oid):>12}  {'deleted':>10}{repeats}"
    return (
        f"    {oid_repr(record.oid):>12}  {human_size(len(record.data)):>10}  {safe_class_name(record.data)}{repeats}"
    )


def _fields(
    transaction: RecordedTransaction, records: Iterable[RecordedObject] | None, states: States | None
) -> dict[str, object]:
    metadata = transaction.metadata
    fields: dict[str, object] = {
        "tid": f"0x{unpack_id(transaction.tid):016x}",
        "time": time_text(transaction.tid),
        "packed": transaction.status == STATUS_PACKED,
        "user": _text(metadata.user),
        "description": _text(metadata.description),
        "extension": {str(key): value for key, value in extension_map(metadata.extension).items()},
    }
    if records is not None:
        fields["records"] = [
            {
                "oid": oid_repr(record.oid),
                "class": None if record.data is None else safe_class_name(record.data),
                "size": None if record.data is None else len(record.data),
                "repeats": None if record.data_tid is None else f"0x{unpack_id(record.data_tid):016x}",
                **({"state": states.fields(record.data)} if states else {}),
            }
            for record in records
        ]
    return fields


def _text(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _plain(value: object) -> str:
    """Return what JSON has for a value of an extension that it does not know."""
    return _text(value) if isinstance(value, bytes) else repr(value)
