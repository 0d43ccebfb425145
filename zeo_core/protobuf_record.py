"""The envelope of an object whose state is a Protocol Buffers message, read and written without the package `protobuf`.

So a server or a pack that has none of the applications' schemas, nor the package, still follows what such objects refer
to. The record is PREFIX and behind it an ObjectRecord, a message of this schema:

    message ClassMetadata {
        required string module_name = 1;
        required string class_name = 2;
    }
    message Reference {
        required uint32 refid = 1;              // what the state names the target by: its identity in this record
        required uint64 zoid = 2;               // the target's oid, as an integer
        optional ClassMetadata class_meta = 3;  // lets a ghost be made without a load
        optional string database = 4;           // the target is in another database
        optional bool weak = 5;                 // class_meta and database do not apply
    }
    message ObjectRecord {
        required ClassMetadata class_meta = 1;
        required bytes state = 2;               // the object's own message, serialized
        repeated Reference references = 3;
    }

The state is bytes here; what is in it is the application's. Fields of other numbers are skipped, for what later
versions may add. Nothing else is let pass: a singular field that comes twice, and a number that does not fit, which
decoders of Protocol Buffers take each in its own way, are errors. Two readers of one record shall never see two
different references in it.

Source: the records of keas.pbpersist, with which these are interchangeable.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple

from zeo_core.errors import RecordFormatError
from zeo_core.ids import Oid, pack_id, unpack_id
from zeo_core.protobuf_wire import DELIMITED, VARINT, MalformedError, delimited, fields, varint

__all__ = [
    "PREFIX",
    "PROTOBUF",
    "ClassMetadata",
    "ObjectRecord",
    "ProtobufFormat",
    "Reference",
    "decode",
    "encode",
    "redirected",
]

PROTOBUF: Final = "protobuf"
"""The name of the format."""

PREFIX: Final = b"{protobuf}"
"""What every record of the format begins with; no pickle does."""

_CACHED_MAX_BYTES = 256  # names of classes repeat from record to record; longer ones, which a peer made up, do not


class ClassMetadata(NamedTuple):
    """Where a class is found."""

    module_name: str
    class_name: str

    @property
    def dotted_name(self) -> str:
        """The two names in one, as they are written elsewhere."""
        return f"{self.module_name}.{self.class_name}"


class Reference(NamedTuple):
    """An object that the state refers to by `refid`; `zoid` is its oid as an integer."""

    refid: int
    zoid: int
    class_meta: ClassMetadata | None = None
    database: str | None = None
    weak: bool = False

    @property
    def oid(self) -> Oid:
        """The target's oid."""
        return pack_id(self.zoid)

    def is_strong_and_local(self) -> bool:
        """Tell whether the target is to be kept by the database in which this record is."""
        return not self.weak and self.database is None


class ObjectRecord(NamedTuple):
    """The envelope."""

    class_meta: ClassMetadata
    state: bytes
    references: tuple[Reference, ...] = ()


def encode(record: ObjectRecord) -> bytes:
    """Return the record's bytes, PREFIX included: the very ones that the package `protobuf` would write.

    ValueError for a number that does not fit, or text that UTF-8 cannot hold.
    """
    parts = [PREFIX, b"\n", _sized(_encoded_class(record.class_meta)), b"\x12", _sized(record.state)]
    for reference in record.references:
        parts += (b"\x1a", _sized(_encoded_reference(reference)))
    return b"".join(parts)


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data


@lru_cache
def _encoded_class(class_meta: ClassMetadata) -> bytes:
    return delimited(1, class_meta.module_name.encode()) + delimited(2, class_meta.class_name.encode())


def _encoded_reference(reference: Reference) -> bytes:
    refid, zoid, class_meta, database, weak = reference
    if not 0 <= refid < 1 << 32:
        raise ValueError(f"a refid is a number of 32 bits without sign, not {refid}")
    encoded = b"\x08" + varint(refid) + b"\x10" + varint(zoid)
    if class_meta is not None:
        encoded += b"\x1a" + _sized(_encoded_class(class_meta))
    if database is not None:
        encoded += delimited(4, database.encode())
    return encoded + b"\x28\x01" if weak else encoded


def decode(data: bytes) -> ObjectRecord:
    """Read a whole record, PREFIX included. RecordFormatError if it is none."""
    try:
        class_meta, state, references = _top_level(data)
        return ObjectRecord(_class_metadata(class_meta), state, tuple(map(_reference, references)))
    except (MalformedError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"no protobuf object record: {error}") from error


def _top_level(data: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Return what stands in the fields of an ObjectRecord."""
    if data[: len(PREFIX)] != PREFIX:
        raise MalformedError(f"it begins with {data[: len(PREFIX)]!r}")
    singular: dict[int, Any] = {}
    references: list[bytes] = []
    for number, wire_type, value in fields(data[len(PREFIX) :]):
        if number > 3:
            continue
        if wire_type != DELIMITED:
            raise MalformedError(f"field {number} of ObjectRecord is of wire type {wire_type}")
        if number == 3:
            references.append(value)  # type: ignore[arg-type] # bytes, by the wire type
        elif number in singular:
            raise MalformedError(f"field {number} of ObjectRecord comes twice")
        else:
            singular[number] = value
    try:
        return singular[1], singular[2], references
    except KeyError as error:
        raise MalformedError(f"field {error} of ObjectRecord is missing") from None


_CLASS_FIELDS: Final = {1: ("module_name", DELIMITED), 2: ("class_name", DELIMITED)}
_REFERENCE_FIELDS: Final = {
    1: ("refid", VARINT),
    2: ("zoid", VARINT),
    3: ("class_meta", DELIMITED),
    4: ("database", DELIMITED),
    5: ("weak", VARINT),
}


def _singular(message: str, known: dict[int, tuple[str, int]], data: bytes) -> dict[int, Any]:
    """Return the fields of a message that has no repeated ones, by number; those that are not known are skipped."""
    found: dict[int, Any] = {}
    for number, wire_type, value in fields(data):
        if number not in known:
            continue
        name, expected_type = known[number]
        if wire_type != expected_type:
            raise MalformedError(f"{message}.{name} is of wire type {wire_type}")
        if number in found:
            raise MalformedError(f"{message}.{name} comes twice")
        found[number] = value
    return found


def _class_metadata(data: bytes) -> ClassMetadata:
    return _known_class(data) if len(data) <= _CACHED_MAX_BYTES else _read_class(data)


def _read_class(data: bytes) -> ClassMetadata:
    found = _singular("ClassMetadata", _CLASS_FIELDS, data)
    if len(found) != 2:
        raise MalformedError("ClassMetadata lacks module_name or class_name")
    return ClassMetadata(found[1].decode(), found[2].decode())


_known_class = lru_cache(maxsize=1024)(_read_class)


def _reference(data: bytes) -> Reference:
    found = _singular("Reference", _REFERENCE_FIELDS, data)
    refid, zoid, class_meta, database = map(found.get, (1, 2, 3, 4))
    if refid is None or zoid is None:
        raise MalformedError("Reference lacks refid or zoid")
    if refid >= 1 << 32:
        raise MalformedError(f"a refid of more than 32 bits: {refid}")
    return Reference(
        refid,
        zoid,
        None if class_meta is None else _class_metadata(class_meta),
        None if database is None else database.decode(),
        5 in found and found[5] != 0,
    )


def redirected(data: bytes, target: Callable[[Oid], Oid]) -> bytes:
    """Return the record with other targets for what it refers to within its database, weakly or not.

    The state stays as it is: it names its targets by refid.
    """
    record = decode(data)
    return encode(
        record._replace(
            references=tuple(
                reference._replace(zoid=unpack_id(target(reference.oid)))
                if reference.weak or reference.database is None
                else reference
                for reference in record.references
            )
        )
    )


class ProtobufFormat:
    """What the server has to know of the format, see zeo_core.record.RecordFormat."""

    def references(self, data: bytes) -> list[Oid]:
        """Return the oids of the strong references within this database."""
        return [reference.oid for reference in decode(data).references if reference.is_strong_and_local()]

    def class_name(self, data: bytes) -> str:
        """Return the dotted name of the object's class."""
        # As every encoder writes it, the class comes first, its length in one byte; no need to read the rest then.
        start = len(PREFIX) + 2
        if data[start - 2 : start - 1] == b"\n" and start < len(data) and data[start - 1] < 128:
            with suppress(MalformedError, UnicodeDecodeError):
                return _known_class(data[start : start + data[start - 1]]).dotted_name
        return decode(data).class_meta.dotted_name
