"""`zeofs show`: one object, without importing its class."""

import json
from collections.abc import Sequence

import click

from zeo_core.errors import POSKeyError, RecordFormatError
from zeo_core.ids import MAX_TID, Oid, Tid, oid_repr, successor, unpack_id
from zeo_core.record import references
from zeo_core.transaction import HistoryEntry
from zeo_server.cli.zeofs.present import FILE, count_of, human_size, parse_oid, parse_time, time_text
from zeo_server.cli.zeofs.states import States, schema_options
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.graph import safe_class_name

__all__ = ["show"]


@click.command
@click.argument("file", type=FILE)
@click.argument("oid", type=parse_oid)
@click.option("--at", type=parse_time, metavar="TIME", help="Show the object as it was at TIME.")
@click.option("--history", type=click.IntRange(min=1), default=10, show_default=True, help="Revisions to list.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@schema_options
def show(
    file: str,
    oid: Oid,
    at: Tid | None,
    history: int,
    as_json: bool,
    schemas: Sequence[str],
    messages: Sequence[str],
) -> None:
    """Show the object OID of FILE: its class, size, references, history, and a state that is a protobuf message.

    Works while a server has FILE open. No class is imported, so that this shows objects whose class is gone; but a
    module that --schema names is.

    Exit status: 0, or 2 if there is no such object or FILE cannot be read.

    \b
    Example:
        zeofs show Data.fs 0x2a
        zeofs show --schema contacts.desc --message app.contacts.Contact=contacts.ContactPB Data.fs 0x2a
    """
    states = States(schemas, messages)
    storage = FileStorage(file, read_only=True)
    try:
        shown = _Object(storage, oid, at, history, states)
    finally:
        storage.close()
    if as_json:
        click.echo(json.dumps(shown.fields()))
    else:
        shown.print()


class _Object:
    """What is shown of one object."""

    def __init__(self, storage: FileStorage, oid: Oid, at: Tid | None, history: int, states: States) -> None:
        self._states = states
        self.oid = oid
        self.history = storage.revisions(oid, history)
        self.data: bytes | None = None
        self.tid: Tid | None = None
        self.targets: dict[Oid, str] = {}
        self.fault = ""
        try:
            revision = storage.load_before(oid, MAX_TID if at is None else successor(at))
        except POSKeyError:
            return  # deleted by then
        if revision is None:
            raise POSKeyError(oid)
        self.data, self.tid = revision.data, revision.tid
        try:
            found = dict.fromkeys(references(revision.data))
        except RecordFormatError as error:
            self.fault = str(error)
        else:
            self.targets = {target: _class_of(storage, target) for target in found}

    def fields(self) -> dict[str, object]:
        """Return what is shown as JSON has it."""
        return {
            "oid": oid_repr(self.oid),
            "class": None if self.data is None else safe_class_name(self.data),
            "size": None if self.data is None else len(self.data),
            "tid": None if self.tid is None else f"0x{unpack_id(self.tid):016x}",
            "fault": self.fault or None,
            "state": self._states.fields(self.data),
            "references": [{"oid": oid_repr(target), "class": name} for target, name in self.targets.items()],
            "history": [_entry_fields(entry) for entry in self.history],
        }

    def print(self) -> None:
        """Print what is shown for people."""
        if self.data is None or self.tid is None:
            click.echo(f"{oid_repr(self.oid)}  deleted")
        else:
            click.echo(f"{oid_repr(self.oid)}  {safe_class_name(self.data)}  {human_size(len(self.data))}")
            click.echo(f"written  {time_text(self.tid)}  0x{unpack_id(self.tid):016x}")
        if self.fault:
            click.echo(f"its record cannot be read: {self.fault}")
        click.echo(count_of(len(self.targets), "reference"))
        for target, name in self.targets.items():
            click.echo(f"    {oid_repr(target):>12}  {name}")
        for line in self._states.lines(self.data):
            click.echo(line)
        click.echo(count_of(len(self.history), "revision") + ", newest first")
        for entry in self.history:
            texts = [_text(entry.metadata.user), _text(entry.metadata.description)]
            what = (time_text(entry.tid), f"0x{unpack_id(entry.tid):016x}", f"{human_size(entry.size):>8}", *texts)
            click.echo("    " + "  ".join(text for text in what if text))


def _class_of(storage: FileStorage, oid: Oid) -> str:
    try:
        return safe_class_name(storage.load(oid)[0])
    except POSKeyError:
        return "(does not exist)"


def _entry_fields(entry: HistoryEntry) -> dict[str, object]:
    return {
        "tid": f"0x{unpack_id(entry.tid):016x}",
        "time": time_text(entry.tid),
        "size": entry.size,
        "user": _text(entry.metadata.user),
        "description": _text(entry.metadata.description),
    }


def _text(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
