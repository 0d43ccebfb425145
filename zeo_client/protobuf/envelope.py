"""The envelope of a record, for many objects in little time: read several times as fast as by zeo_core.protobuf_record.

The package `protobuf` reads it; it is written from parts that repeat from record to record.

Classes come as the bytes of their ClassMetadata, which on the wire is the same, and are read once for many records.
"""

from functools import lru_cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from zeo_core.ids import Oid
from zeo_core.protobuf_record import PREFIX, ClassMetadata, decode
from zeo_core.protobuf_wire import delimited, varint

__all__ = ["NO_DATABASE", "class_metadata", "encoded_class", "encoded_reference", "read_envelope", "write_envelope"]

NO_DATABASE: Final = "\0"
"""What stands for the database's name in a reference that has none."""

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "zeod.envelope"


def _classes() -> tuple[Any, Any]:
    """Return the classes of ObjectRecord and of ClassMetadata."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    required, optional = _Field.LABEL_REQUIRED, _Field.LABEL_OPTIONAL
    _add_fields(
        file.message_type.add(name="ClassMetadata"),
        ("module_name", required, _Field.TYPE_STRING),
        ("class_name", required, _Field.TYPE_STRING),
    )
    reference = file.message_type.add(name="Reference")
    _add_fields(
        reference,
        ("refid", required, _Field.TYPE_UINT32),
        ("zoid", required, _Field.TYPE_UINT64),
        ("class_meta", optional, _Field.TYPE_BYTES),
        ("database", optional, _Field.TYPE_STRING),
        ("weak", optional, _Field.TYPE_BOOL),
    )
    reference.field[3].default_value = NO_DATABASE  # to ask whether it is set takes three times as long
    record = file.message_type.add(name="ObjectRecord")
    _add_fields(record, ("class_meta", required, _Field.TYPE_BYTES), ("state", required, _Field.TYPE_BYTES))
    references = record.field.add(name="references", number=3, label=_Field.LABEL_REPEATED, type=_Field.TYPE_MESSAGE)
    references.type_name = f".{_PACKAGE}.Reference"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return tuple(
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in ("ObjectRecord", "ClassMetadata")
    )  # type: ignore[return-value]


def _add_fields(message: Any, *fields: tuple[str, Any, Any]) -> None:
    for number, (name, label, kind) in enumerate(fields, 1):
        message.field.add(name=name, number=number, label=label, type=kind)


_ObjectRecord, _ClassMetadata = _classes()


def read_envelope(data: bytes) -> Any:
    """Return the ObjectRecord in a record; RecordFormatError if it is none, or a field comes twice in it."""
    try:
        record = _ObjectRecord.FromString(data[len(PREFIX) :])
    except DecodeError:
        decode(data)  # says what is wrong
        raise
    if not record.IsInitialized() or record.ByteSize() != len(data) - len(PREFIX):
        # Not as any encoder writes it. `protobuf` takes much that zeo_core refuses, so that a pack cannot see other
        # references in a record than we do.
        decode(data)
    return record


@lru_cache(maxsize=1024)
def class_metadata(encoded: bytes) -> ClassMetadata:
    """Return what a ClassMetadata says."""
    message = _ClassMetadata.FromString(encoded)
    return ClassMetadata(message.module_name, message.class_name)


@lru_cache(maxsize=1024)
def encoded_class(module: str, name: str) -> bytes:
    """Return a ClassMetadata with its length before it."""
    encoded = _ClassMetadata(module_name=module, class_name=name).SerializeToString()
    return varint(len(encoded)) + bytes(encoded)


def encoded_reference(refid: int, oid: Oid, class_part: bytes = b"", database: str = "", weak: bool = False) -> bytes:
    """Return a reference as a field of an ObjectRecord; `class_part` is of encoded_class."""
    body = b"\x08%b\x10%b" % (varint(refid), varint(int.from_bytes(oid, "big")))
    if class_part:
        body += b"\x1a" + class_part
    if database:
        body += delimited(4, database.encode())
    if weak:
        body += b"\x28\x01"
    return b"\x1a%b%b" % (varint(len(body)), body)


def write_envelope(class_part: bytes, state: bytes, references: list[bytes]) -> bytes:
    """Return a record: `references` are fields of an ObjectRecord."""
    return b"%b\n%b\x12%b%b%b" % (PREFIX, class_part, varint(len(state)), state, b"".join(references))
