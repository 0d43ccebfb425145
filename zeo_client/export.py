r"""Exports: an object and all that can be reached from it, in a file that another database can take in (ZODB's .zexp).

The file: the four bytes `ZEXP`; for each object its oid, the length of its record (8 bytes each, big-endian) and the
record; behind the record of a blob the ten bytes `\0BLOBSTART`, the length of its file (8 bytes) and the file; at the
end 16 bytes 0xff. The first object is the one that was exported. An object comes after one that refers to it.

The oids are those of the database that was exported from. Importing gives the objects fresh ones, and rewrites all
references. A reference to an object that is not in the file (it was lost, or only weakly referred to) leads nowhere
afterwards; one into another database stays what it is.
"""

import logging
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import IO, Any, Final, NamedTuple, NoReturn

from zodbpickle import pickle

from zeo_client.blob_access import BlobAccess
from zeo_client.broken import BrokenPickler
from zeo_client.serialize import PROTOCOL, FindClass
from zeo_client.zodb_names import written_by_zodb
from zeo_core.errors import ExportError, POSKeyError
from zeo_core.ids import Oid, Tid, oid_repr
from zeo_core.protobuf_record import PREFIX, redirected
from zeo_core.record import is_blob_record, pickle_source, references

__all__ = [
    "MAGIC",
    "ExportFile",
    "Import",
    "ImportedObject",
    "Importers",
    "export_file",
    "import_file",
    "name_of",
    "write_export",
]

logger = logging.getLogger(__name__)

MAGIC: Final = b"ZEXP"
"""How an export begins."""

_END: Final = b"\xff" * 16
_BLOB: Final = b"\0BLOBSTART"
_HEADER: Final = struct.Struct(">8sQ")
_LENGTH: Final = struct.Struct(">Q")
_PIECE_BYTES: Final = 1 << 20  # what is read at once: a length in a damaged file may be any number

_Load = Callable[[Oid], tuple[bytes, Tid]]

ExportFile = str | os.PathLike[str] | IO[bytes]
"""A file to export to or to import from: its path, or itself."""

Importers = Mapping[bytes, Callable[[Any, IO[bytes], str], Any]]
"""Importers of other formats, by the first four bytes: called with connection, file (at its start) and clue."""


class ImportedObject(NamedTuple):
    """A new object: its oid, its record, and the path of a file with its data if it is a blob."""

    oid: Oid
    data: bytes
    blob: str | None


def name_of(file: Any) -> str:
    """Return what errors call a file."""
    return str(getattr(file, "name", file))


def export_file(load: _Load, blobs: BlobAccess, oid: Oid, file: Any, piece_bytes: int) -> IO[bytes]:
    """Write an export to `file`, a path or a file, None for a temporary one; return the file, open, at its end.

    What the transaction has changed is not in it, unless a savepoint has it. POSKeyError if there is no such object.
    A file that was made here is removed if the export fails.
    """
    if file is None:
        file = tempfile.TemporaryFile(prefix="EXP")  # noqa: SIM115 - it is what is asked for
    elif isinstance(file, str | os.PathLike):
        return _export_to(os.fspath(file), load, blobs, oid, piece_bytes)
    write_export(load, blobs, oid, file, piece_bytes)
    opened: IO[bytes] = file
    return opened


def _export_to(path: str, load: _Load, blobs: BlobAccess, oid: Oid, piece_bytes: int) -> IO[bytes]:
    file = open(path, "w+b")  # noqa: SIM115 - it is what is asked for
    try:
        write_export(load, blobs, oid, file, piece_bytes)
    except BaseException:
        file.close()
        os.unlink(path)
        raise
    return file


def write_export(load: _Load, blobs: BlobAccess, oid: Oid, file: IO[bytes], piece_bytes: int = _PIECE_BYTES) -> None:
    """Write the object and what it reaches, one record after the other. POSKeyError if it does not exist itself.

    An object that is referred to but lost is left out, as it is in the database; a warning is logged.
    """
    file.write(MAGIC)
    known, waiting = {oid}, deque([oid])
    while waiting:
        current = waiting.popleft()
        try:
            data, serial = load(current)
        except POSKeyError:
            if current == oid:
                raise
            logger.warning("%s: left out object %s, which does not exist", name_of(file), oid_repr(current))
            continue
        file.write(_HEADER.pack(current, len(data)))
        file.write(data)
        if is_blob_record(data):
            _write_blob(blobs.open_revision(current, serial), file, piece_bytes)
        for reference in references(data):
            if reference not in known:
                known.add(reference)
                waiting.append(reference)
    file.write(_END)


def _write_blob(source: IO[bytes], file: IO[bytes], piece_bytes: int) -> None:
    with source:
        # The length comes first, and the file does not change any more.
        left = os.fstat(source.fileno()).st_size
        file.write(_BLOB + _LENGTH.pack(left))
        while piece := source.read(piece_bytes):
            file.write(piece)
            left -= len(piece)
        if left:
            raise OSError(f"{source.name}: its length changed while it was read")


def import_file(
    connection: Any,
    find_class: FindClass,
    file: ExportFile,
    clue: str,
    importers: Importers,
) -> Any:
    """Take the objects in `file` into the connection's transaction, and return the one that was exported, None if none.

    Somebody has to refer to it, or the next pack removes it. `clue` is added to the transaction's description. A file
    that begins as one of `importers` says is left to that. ExportError, naming the file, for a file that is damaged or
    no export: nothing is taken in then.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return import_file(connection, find_class, opened, clue, importers)
    magic = file.read(len(MAGIC))
    if magic in importers:
        file.seek(0)
        return importers[magic](connection, file, clue)
    if magic != MAGIC:
        raise ExportError(name_of(file), f"it begins with {magic!r}, not with {MAGIC!r}")
    taken = Import(file, connection.blobs, connection.new_oid, find_class)
    connection.take_in(taken.objects())
    if clue:
        connection.transaction_manager.get().note(clue)
    return None if taken.root is None else connection.get(taken.root)


class _Reference:
    """Stands for a persistent object between reading a record and writing it again."""

    __slots__ = ("reference",)

    def __init__(self, reference: Any) -> None:
        self.reference = reference


def _persistent_id(obj: Any) -> Any:
    return obj.reference if type(obj) is _Reference else None


class _Unpickler(pickle.Unpickler):
    __slots__ = ("find_class",)


class Import:
    """Reads an export: `objects` gives them with fresh oids. All raise ExportError, naming the file, for a bad one."""

    def __init__(self, file: IO[bytes], blobs: BlobAccess, new_oid: Callable[[], Oid], find_class: FindClass) -> None:
        """Read `file` from behind its magic."""
        self._file = file
        self._name = name_of(file)
        self._blobs = blobs
        self._new_oid = new_oid
        self._find_class = find_class
        self._oids: dict[Oid, Oid] = {}
        self._seen: set[Oid] = set()
        self.root: Oid | None = None
        """The fresh oid of the object that was exported, once it was read; None in an export of nothing."""

    def objects(self) -> Iterator[ImportedObject]:
        """Walk the objects in the order of the file; whoever takes one takes its blob's file over."""
        while (header := self._read(_HEADER.size)) != _END:
            old, size = _HEADER.unpack(header)
            if old in self._seen:
                self._refuse(f"object {oid_repr(old)} is in it twice")
            self._seen.add(old)
            oid = self._fresh(old)
            self.root = self.root or oid
            data = self._rewritten(old, self._read(size))
            yield ImportedObject(oid, data, self._blob(old) if is_blob_record(data) else None)

    def _fresh(self, old: Oid) -> Oid:
        oid = self._oids.get(old)
        if oid is None:
            oid = self._oids[old] = self._new_oid()
        return oid

    def _rewritten(self, old: Oid, record: bytes) -> bytes:
        try:
            if record.startswith(PREFIX):
                return redirected(record, self._fresh)
            unpickler: Any = _Unpickler(pickle_source(record))
            unpickler.find_class = self._find_class
            unpickler.persistent_load = self._load_reference
            parts = unpickler.load(), unpickler.load()
            try:
                return _dumped(pickle.Pickler, parts)
            except (TypeError, AttributeError, pickle.PicklingError):
                return _dumped(BrokenPickler, parts)  # some class cannot be imported, or nothing helps
        except Exception as error:  # noqa: BLE001 - whatever the bytes, and the classes that they name, lead to
            self._refuse(f"object {oid_repr(old)}: {type(error).__name__}: {error}", error)

    def _load_reference(self, reference: Any) -> _Reference:
        """Return what stands for a reference, which is changed to the fresh oid; other databases' are left."""
        if isinstance(reference, tuple):
            oid, *rest = reference
            return _Reference((self._fresh_from(oid), *rest))
        if not isinstance(reference, list):
            return _Reference(self._fresh_from(reference))
        if len(reference) == 1:
            return _Reference(["w", (self._fresh_from(reference[0]),)])
        kind, arguments = reference
        if kind == "w" and len(arguments) == 1:
            return _Reference(["w", (self._fresh_from(arguments[0]),)])
        return _Reference(reference)

    def _fresh_from(self, oid: Any) -> Oid:
        oid = oid.encode("ascii") if isinstance(oid, str) else oid
        if not isinstance(oid, bytes) or len(oid) != 8:
            raise ValueError(f"a reference without an oid: {oid!r:.100}")
        return self._fresh(oid)

    def _blob(self, old: Oid) -> str:
        if self._read(len(_BLOB)) != _BLOB:
            self._refuse(f"the blob {oid_repr(old)} has no data")
        (left,) = _LENGTH.unpack(self._read(_LENGTH.size))
        self._blobs.storage("Importing")
        descriptor, path = tempfile.mkstemp(prefix="BUC", dir=self._blobs.temporary_directory())
        try:
            with open(descriptor, "wb") as file:
                while left:
                    piece = self._read(min(left, _PIECE_BYTES))
                    file.write(piece)
                    left -= len(piece)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        return path

    def _read(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._file.read(min(size, _PIECE_BYTES))
            if not piece:
                self._refuse("it is cut off")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        raise ExportError(self._name, reason) from cause


def _dumped(pickler_class: Any, parts: tuple[Any, Any]) -> bytes:
    file = BytesIO()
    pickler = pickler_class(file, PROTOCOL)
    pickler.persistent_id = _persistent_id
    for part in parts:
        pickler.dump(part)
    return written_by_zodb(file.getvalue())
