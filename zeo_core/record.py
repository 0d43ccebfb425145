"""The object record: what stands in the storage for one object, whatever format it is written in.

A record that starts with `{name}` is of the format `name`: `{protobuf}` is known from the start, others are registered.
Every other record is of the default format, `pickle`: two pickles one after the other, the class's metadata and the
object's state. The server asks this module, and no pickle directly, what a record refers to and what class it is of;
no class is imported for either answer, because the bytes come from clients and the server has none of the applications'
code.

Before all that, a record may have been transformed by whoever stored it, as wrappers of storages do: one that starts
with `.z` is compressed (zc.zlibstorage's, zlib). No pickle and no format starts with a full stop.

The class's metadata, as existing databases have it:

    class                                   what is written for most classes
    class, arguments of __new__             for classes with __getnewargs__
    (module, name), None or arguments       for instances of classes that are persistent themselves, and old records
    class, None or arguments                in old records
    persistent reference, ...               the class is an object of the database: its record has the name

The references in a pickle, made through the pickle's persistent ids:

    oid, or (oid, class)                    strong, within the database: what `references` is about
    ["w", (oid,)], ["w", (oid, database)], [oid]            weak; the last one in old records
    ["n", (database, oid)], ["m", (database, oid, class)]   strong, into another database

Source: ZODB's serialize module, whose records these are.
"""

import pickle as _stdlib_pickle
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, Protocol, Self

from zodbpickle import pickle
from zodbpickle.pickle_3 import _Unpickler as _PurePythonUnpickler

from zeo_core.errors import RecordFormatError
from zeo_core.ids import Oid, oid_repr
from zeo_core.protobuf_record import PROTOBUF, ProtobufFormat
from zeo_core.unpickling import check_memo

__all__ = [
    "PICKLE",
    "PickleFormat",
    "RecordFormat",
    "class_name",
    "format_name",
    "is_blob_record",
    "pickle_source",
    "references",
    "register_format",
    "register_untransform",
    "untransformed",
]

_BLOB_CLASS: Final = "ZODB.blob.Blob"

PICKLE: Final = "pickle"
"""The name of the format of records without a prefix."""

_MAX_PREFIX_BYTES = 64  # a damaged record may start with a brace by chance; do not search megabytes for its partner


class RecordFormat(Protocol):
    """What the server has to know of a record's format. `data` is the whole record, its prefix included."""

    def references(self, data: bytes) -> list[Oid]:
        """Return the oids of the strong references within this database, in the order of the record, repeats and all.

        RecordFormatError for data that are no such record: garbage collection must stop there rather than take a
        reference for missing.
        """

    def class_name(self, data: bytes) -> str:
        """Return the dotted name of the object's class; RecordFormatError for data that are no such record."""


class _WholeSource:
    """A file for the fast unpickler, which takes more than it asks for: all at the first read, then nothing.

    From a BytesIO it would fetch every opcode and every argument with a call of its own, which takes half of the time
    of reading a usual record. (A `peek` method would do as well, were it not that zodbpickle reads on after an error
    and so turns every exception that a class raises while it is loaded into a SystemError.)
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, _size: int) -> bytes:
        """Return what is left."""
        data, self._data = self._data, b""
        return data

    def readline(self) -> bytes:
        """Return what is left; the unpickler looks for the end of the line in what it has before it asks for more."""
        return self.read(0)


pickle_source: Final[Callable[[bytes], Any]] = BytesIO if pickle.Unpickler is _PurePythonUnpickler else _WholeSource
"""Makes the file from which zodbpickle's Unpickler is to read a record."""


class _Inert:
    """Stands for every class that a pickle names, so that no class is imported: takes what is done to it in silence."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def append(self, _item: object) -> None:
        """Take an item that the pickle appends."""

    def extend(self, _items: object) -> None:
        """Take the items that the pickle appends."""

    def __setitem__(self, _key: object, _value: object) -> None:
        pass


class _MetadataUnpickler(pickle.Unpickler):
    """Reads a class's metadata; classes come as inert stand-ins of the same name, persistent ones named by oid."""

    def find_class(self, module: str, name: str) -> type[_Inert]:
        """Return the stand-in for a class."""
        return type(name, (_Inert,), {"__module__": module})

    def persistent_load(self, reference: object) -> type[_Inert]:
        """Return the stand-in for a class that is an object of the database."""
        oid = reference[0] if isinstance(reference, tuple) else reference
        return type(oid_repr(oid), (_Inert,), {"__module__": "persistent class"})


class PickleFormat:
    """The default format: class metadata and state, two pickles of protocol 3 or, in old databases, less."""

    def references(self, data: bytes) -> list[Oid]:
        """Return the strong references; see RecordFormat."""
        found: list[Any] = []
        # errors="bytes": Python 2 wrote oids as strings, and those have bytes beyond ASCII in larger databases.
        unpickler = pickle.Unpickler(pickle_source(data), errors="bytes")
        unpickler.persistent_load = found.append
        try:
            unpickler.noload()  # the class's metadata: a persistent class is referred to from here
            unpickler.noload()
        except Exception as error:
            raise RecordFormatError(f"no pickled object record: {_reason(error)}") from error
        return _strong(found)

    def class_name(self, data: bytes) -> str:
        """Return the class's dotted name; see RecordFormat."""
        try:
            return _plain_class_name(data) or _metadata_class_name(data)
        except RecordFormatError:
            raise
        except Exception as error:
            raise RecordFormatError(f"no class in a pickled object record: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _strong(found: list[Any]) -> list[Oid]:
    """Return the oids of those references that are strong."""
    # The usual case without a call for each: pairs of an oid and a class. One that begins otherwise is seen to below.
    if set(map(type, found)) == {tuple} and all(found):
        oids: list[Oid] = [reference[0] for reference in found]
        if set(map(type, oids)) == {bytes} and set(map(len, oids)) == {8}:
            return oids
    return [_oid(reference) for reference in found if not isinstance(reference, list)]


def _oid(reference: object) -> Oid:
    """Return the oid in a strong reference: alone, or first in a pair with the class."""
    oid = reference[0] if isinstance(reference, tuple) and reference else reference
    if isinstance(oid, str):
        oid = oid.encode("ascii", "ignore")  # Python 2's string, all of whose bytes happened to be ASCII
    if not isinstance(oid, bytes) or len(oid) != 8:
        raise RecordFormatError(f"a persistent reference without an oid: {reference!r:.100}")
    return oid


def _plain_class_name(data: bytes) -> str:
    """Return the name of a class that the record names first of all, "" if it begins otherwise.

    That is how nearly every record begins, and much faster to read than by an unpickler: GLOBAL, the module, a line
    end, the name, a line end; with the protocol's mark before it, and a MARK where a tuple follows in protocol 1.
    """
    start = 2 if data[:1] == _stdlib_pickle.PROTO else 0
    start += data[start : start + 1] == _stdlib_pickle.MARK
    if data[start : start + 1] != _stdlib_pickle.GLOBAL:
        return ""
    module_end = data.index(b"\n", start)
    name_end = data.index(b"\n", module_end + 1)
    return f"{data[start + 1 : module_end].decode()}.{data[module_end + 1 : name_end].decode()}"


def _metadata_class_name(data: bytes) -> str:
    check_memo(data)  # the bytes are a client's, and this runs in the server
    metadata = _MetadataUnpickler(pickle_source(data), errors="bytes").load()
    described = metadata[0] if isinstance(metadata, tuple) and metadata else metadata
    if isinstance(described, type):
        return f"{described.__module__}.{described.__qualname__}"
    if isinstance(described, tuple) and len(described) == 2 and all(isinstance(part, str) for part in described):
        return ".".join(described)
    raise RecordFormatError(f"no class in a pickled object record: {metadata!r:.100}")


_formats: dict[str, RecordFormat] = {PICKLE: PickleFormat(), PROTOBUF: ProtobufFormat()}


def register_format(name: str, record_format: RecordFormat) -> None:
    """Make records that start with `{name}` known, for the whole process; the last registration of a name counts."""
    if not name.isidentifier() or len(name) > _MAX_PREFIX_BYTES - 2:
        raise ValueError(
            f"a record format's name must be an identifier of up to {_MAX_PREFIX_BYTES - 2} letters: {name!r}"
        )
    _formats[name] = record_format


def format_name(data: bytes) -> str:
    """Return the name of the format that `data` claim to have, without looking further."""
    if data[:1] != b"{":  # no pickle opcode, so that no pickle can be taken for another format
        return PICKLE
    end = data.find(b"}", 1, _MAX_PREFIX_BYTES)
    if end < 0:
        raise RecordFormatError(f"an object record that starts neither as a pickle nor with {{format}}: {data[:20]!r}")
    return data[1:end].decode("utf-8", "backslashreplace")


_MAX_INFLATED_BYTES: Final = 1 << 30  # a client's few bytes must not take all of the server's memory


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    record = inflater.decompress(data, _MAX_INFLATED_BYTES)
    if not inflater.eof:
        reason = "cut off" if not inflater.unconsumed_tail else f"of more than {_MAX_INFLATED_BYTES} bytes"
        raise ValueError(f"compressed data, {reason}")
    return record


_untransforms: dict[bytes, Callable[[bytes], bytes]] = {b".z": _inflated}


def register_untransform(mark: bytes, untransform: Callable[[bytes], bytes]) -> None:
    """Make records known that start with `mark`, for the whole process: `untransform` gets the bytes behind it.

    `mark` is a full stop and one more byte; ValueError for anything else. The last registration of a mark counts.
    """
    if len(mark) != 2 or mark[:1] != b".":
        raise ValueError(f"the mark of transformed records must be a full stop and one more byte: {mark!r}")
    _untransforms[mark] = untransform


def untransformed(data: bytes) -> bytes:
    """Return the record as it was before a wrapper of a storage compressed it, or `data` if none did.

    RecordFormatError if it is damaged, or nobody knows how to read it.
    """
    if data[:1] != b".":
        return data
    untransform = _untransforms.get(data[:2])
    if untransform is None:
        raise RecordFormatError(f"an object record transformed in an unknown way, {data[:2]!r}: is its package there?")
    try:
        return untransform(data[2:])
    except Exception as error:
        raise RecordFormatError(
            f"an object record that starts with {data[:2]!r} is damaged: {_reason(error)}"
        ) from error


def _format_of(data: bytes) -> RecordFormat:
    name = format_name(data)
    try:
        return _formats[name]
    except KeyError:
        raise RecordFormatError(f"an object record of the unknown format {name!r}: is its package installed?") from None


def references(data: bytes) -> list[Oid]:
    """Return the oids of the strong references within this database, in order, repeats included.

    RecordFormatError for a record that cannot be read.
    """
    data = untransformed(data)
    return _format_of(data).references(data)


def class_name(data: bytes) -> str:
    """Return the dotted name of the object's class. RecordFormatError for a record that cannot be read.

    A class that is itself an object of the database is named by its oid: "persistent class.0x2a".
    """
    data = untransformed(data)
    return _format_of(data).class_name(data)


def is_blob_record(data: bytes | None) -> bool:
    """Tell whether an object's record is a blob's, so that a file belongs to it."""
    # The bytes are looked for first: most records are of other classes, and reading one takes its time. A compressed
    # record is longer than a blob's, which is too short to be compressed.
    if not data or b"ZODB.blob" not in data:
        return False
    try:
        return class_name(data) == _BLOB_CLASS
    except RecordFormatError:
        return False
