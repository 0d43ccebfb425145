"""The states of records with protobuf messages, for people and for programs, with their schema or without.

Without it a state is shown as what its bytes can be: numbers, text, messages within messages, by the fields' numbers.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from zeo_core.errors import RecordFormatError
from zeo_core.ids import oid_repr
from zeo_core.protobuf_record import PREFIX, ClassMetadata, ObjectRecord, Reference, decode
from zeo_core.protobuf_wire import DELIMITED, MalformedError, fields
from zeo_core.record import untransformed
from zeo_server.protobuf_schemas import MessageTypes

__all__ = ["States", "schema_options"]

_MAX_DEPTH: Final = 20
_INDENT: Final = "    "

_Command = TypeVar("_Command", bound=Callable[..., Any])


def schema_options(command: _Command) -> _Command:
    """Add the options that say how states are decoded; the command takes them as `schemas` and `messages`."""
    add_schema = click.option(
        "--schema",
        "schemas",
        multiple=True,
        metavar="SCHEMA",
        help="Decode protobuf states by the schemas in a file that protoc --descriptor_set_out wrote, see --message, or"
        " by those of the classes in a module, which is imported: the application's code runs. Repeatable.",
    )
    add_message = click.option(
        "--message",
        "messages",
        multiple=True,
        metavar="CLASS=MESSAGE",
        help="In the files of --schema, the message of a class: app.contacts.Contact=contacts.ContactPB. Repeatable.",
    )
    return add_schema(add_message(command))


class States:
    """What states say. click.BadParameter if there is no such schema or message."""

    def __init__(self, schemas: Sequence[str] = (), messages: Sequence[str] = ()) -> None:
        files = [schema for schema in schemas if Path(schema).exists()]
        try:
            for schema in schemas:
                if schema not in files:
                    _import(schema)
            self._messages = _messages_of_classes(files, messages)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
        self._looks_at_modules = len(files) < len(schemas)

    def lines(self, data: bytes | None) -> Iterator[str]:
        """Return the state in lines for people; none for a record of another format, or one that cannot be read."""
        record = _record(data)
        if record is None:
            return
        message, fault = self._decoded(record)
        if message is None:
            yield f"state by field numbers{fault and f' ({fault})'}:"
            shown = _as_lines(_numbered(record.state))
        else:
            from google.protobuf import text_format

            yield f"state, {message.DESCRIPTOR.full_name}:"
            shown = iter(text_format.MessageToString(message, as_utf8=True, print_unknown_fields=True).splitlines())
        for line in shown:
            yield _INDENT + line
        for reference in record.references:
            yield f"{_INDENT}refid {reference.refid} is {_target(reference)}"

    def fields(self, data: bytes | None) -> object:
        """Return the state as JSON has it; None for a record of another format, or one that cannot be read."""
        record = _record(data)
        if record is None:
            return None
        message, _ = self._decoded(record)
        if message is None:
            content, name = _numbered(record.state), None
        else:
            from google.protobuf import json_format

            content = json_format.MessageToDict(message, preserving_proto_field_name=True)
            name = message.DESCRIPTOR.full_name
        return {"message": name, "fields": content, "refids": [_reference(each) for each in record.references]}

    def _decoded(self, record: ObjectRecord) -> tuple[Any, str]:
        """Return the state as a message, or None, and why, if a message of that class does not fit."""
        message = self._message(record.class_meta)
        if message is None:
            return None, ""
        try:
            return message.FromString(record.state), ""
        except Exception as error:  # noqa: BLE001 - DecodeError, and whatever an application's class raises
            return None, f"{message.DESCRIPTOR.full_name} does not fit: {error}"

    def _message(self, class_meta: ClassMetadata) -> Any:
        found = self._messages.get(class_meta.dotted_name)
        if found is None and self._looks_at_modules:
            cls = getattr(sys.modules.get(class_meta.module_name), class_meta.class_name, None)
            found = getattr(cls, "protobuf_type", None)
        return found


def _import(schema: str) -> None:
    try:
        import_module(schema)
    except ImportError as error:
        raise ValueError(f"{schema!r} is no file, and no module that can be imported: {error}") from error


def _messages_of_classes(files: Sequence[str], messages: Sequence[str]) -> dict[str, Any]:
    found = {}
    types = MessageTypes(files) if files else None
    for text in messages:
        class_name, _, name = text.partition("=")
        if types is None or not name:
            raise ValueError(f"--message {text}: it takes CLASS=MESSAGE, and a file in --schema that has the message")
        found[class_name] = types.message(name)
    return found


def _record(data: bytes | None) -> ObjectRecord | None:
    if data is None:
        return None
    try:
        record = untransformed(data)
        return decode(record) if record.startswith(PREFIX) else None
    except RecordFormatError:
        return None


def _numbered(message: bytes, depth: int = 0) -> dict[str, Any]:
    """Return what a message may say: lists of values by the fields' numbers; {"hex": ...} for what is none."""
    found: dict[str, Any] = {}
    try:
        for number, wire_type, value in fields(message):
            found.setdefault(str(number), []).append(_guess(wire_type, value, depth))
    except MalformedError:
        return {"hex": f"0x{message.hex()}"}
    return found


def _guess(wire_type: int, value: int | bytes, depth: int) -> Any:
    if isinstance(value, int):
        return value
    if wire_type != DELIMITED:
        return {"hex": f"0x{value[::-1].hex()}"}  # a number of fixed width, or a float
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if text.replace("\n", "").isprintable():
        return text
    return _numbered(value, depth + 1) if depth < _MAX_DEPTH else {"hex": f"0x{value.hex()}"}


def _as_lines(found: dict[str, Any]) -> Iterator[str]:
    if "hex" in found:
        yield f"no message: {found['hex']}"
        return
    for number, values in found.items():
        for value in values:
            if isinstance(value, dict) and "hex" not in value:
                yield f"{number} {{"
                for line in _as_lines(value):
                    yield _INDENT + line
                yield "}"
            else:
                yield f"{number}: {value['hex'] if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)}"


def _target(reference: Reference) -> str:
    class_name = "" if reference.class_meta is None else f"  {reference.class_meta.dotted_name}"
    weakly = ", weakly" if reference.weak else ""
    elsewhere = "" if reference.database is None else f" of the database {reference.database!r}"
    return f"{oid_repr(reference.oid)}{elsewhere}{weakly}{class_name}"


def _reference(reference: Reference) -> dict[str, object]:
    return {
        "refid": reference.refid,
        "oid": oid_repr(reference.oid),
        "class": None if reference.class_meta is None else reference.class_meta.dotted_name,
        "database": reference.database,
        "weak": reference.weak,
    }
