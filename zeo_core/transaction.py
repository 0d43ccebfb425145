"""Values that cross the storage contract; all of them immutable.

A transaction's `user` and `description` are UTF-8 bytes. Its `extension` is kept as the bytes that stand in the log, a
pickled dictionary or nothing at all, so that copying a database never rewrites it; `extension_map` reads it without
importing anything and `extension_bytes` makes it.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple, Protocol, Self

from zodbpickle import pickle

from zeo_core.ids import Oid, Tid
from zeo_core.unpickling import check_memo

__all__ = [
    "HistoryEntry",
    "Invalidation",
    "ObjectWrite",
    "PreparedTransaction",
    "RecordedObject",
    "RecordedTransaction",
    "Revision",
    "SpooledData",
    "TransactionMetadata",
    "UndoEntry",
    "check_extension",
    "extension_bytes",
    "extension_map",
    "whole",
]

_PROTOCOL = 3  # what ZODB writes, so that it reads what we write

_MAX_DEPTH = 100
"""Levels of an extension. A peer's msgpack stops at 511, some of which the message around it takes."""

_MAX_CHARACTERS = 1024 * 1024
"""What an extension comes to when written out; as a pickle, where repeated values count once, it has at most 64 KiB."""


class Revision(NamedTuple):
    """One revision of an object: its data, the tid that wrote it, and the tid that replaced it, None if current.

    A tuple, because this very triple is what ZODB's loadBefore returns.
    """

    data: bytes
    tid: Tid
    end_tid: Tid | None


class SpooledData(Protocol):
    """An object's data that are not in memory but in a file: one of the many of a large transaction."""

    def __len__(self) -> int:
        """Return how many bytes they are; not 0."""

    def read(self) -> bytes:
        """Return them; StorageError if they cannot be had. May wait for the disk."""


def whole(data: bytes | SpooledData | None) -> bytes | None:
    """Return data themselves, wherever they are; None for None."""
    return data if data is None or isinstance(data, bytes) else data.read()


class ObjectWrite(NamedTuple):
    """One object in a transaction: the new data, and the serial (tid) of the revision it was made from.

    Only a storage that `Spools` is given `data` that are not in memory; `whole` reads them. `data` None ends the
    object's existence: it is deleted, or its creation is undone. `data_tid` names an earlier transaction in which the
    object had these very data; a storage that can, repeats them by reference instead of writing them again. It is a
    hint, to be used only if it is true: `data` are always given whole. `blob` is the path of the staged blob file that
    belongs to this revision.
    """

    oid: Oid
    serial: Tid
    data: bytes | SpooledData | None
    data_tid: Tid | None = None
    blob: str | None = None


class Invalidation(NamedTuple):
    """What a committed transaction changed; `oids` may be empty, the tid is announced all the same (lesson B8)."""

    tid: Tid
    oids: tuple[Oid, ...]


@dataclass(frozen=True, slots=True)
class TransactionMetadata:
    """What is said about a transaction beside its objects. Lengths are limited to 65,535 bytes each by the format."""

    user: bytes = b""
    description: bytes = b""
    extension: bytes = b""


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A transaction whose conflicts are checked: all that is left is to give it a tid and write it.

    `writes` has each oid once. An oid without a write that was only checked to be current does not appear. `tid` is
    given to restore a transaction of another storage under its own tid, with its `status`, b" " or b"p"; it must be
    later than every tid of the storage. None lets the storage give the tid.
    """

    metadata: TransactionMetadata
    writes: tuple[ObjectWrite, ...]
    tid: Tid | None = None
    status: bytes = b" "


class RecordedObject(NamedTuple):
    """One object record as an iterator gives it. `data` is None where the transaction undid the object's creation.

    `data_tid` is the transaction whose data this record repeats (undo), None if it brought its own.
    """

    oid: Oid
    tid: Tid
    data: bytes | None
    data_tid: Tid | None


class RecordedTransaction(NamedTuple):
    """One transaction as an iterator gives it; `status` is b" " or, once packed, b"p"."""

    tid: Tid
    status: bytes
    metadata: TransactionMetadata
    records: Iterable[RecordedObject]


class UndoEntry(NamedTuple):
    """One line of the undo log: a transaction that may be undone; `size` counts its bytes."""

    tid: Tid
    metadata: TransactionMetadata
    size: int


class HistoryEntry(NamedTuple):
    """One line of an object's history, newest first; `size` counts the bytes of its data."""

    tid: Tid
    metadata: TransactionMetadata
    size: int


class _PlainUnpickler(pickle.Unpickler):
    """Reads what extensions hold, plain values, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class but zodbpickle's bytes."""
        if (module, name) == ("zodbpickle", "binary"):
            return _Binary
        raise pickle.UnpicklingError(f"{module}.{name} in transaction metadata")


class _Binary(bytes):
    """Stands for zodbpickle.binary, which like bytes would make a gigabyte of a number."""

    def __new__(cls, value: bytes = b"") -> Self:
        if not isinstance(value, bytes):
            raise pickle.UnpicklingError(f"bytes made of a {type(value).__name__}")
        return super().__new__(cls, value)


def extension_map(extension: bytes) -> dict[str, Any]:
    """Return the extension's dictionary; empty if there is none or it holds what `extension_bytes` refuses."""
    if not extension:
        return {}
    try:
        check_memo(extension)
        return _plain_extension(_PlainUnpickler(BytesIO(extension)).load())
    except Exception:  # noqa: BLE001 - any garbage may stand in a twenty-year-old file; it must not stop an iteration
        return {}


def check_extension(extension: bytes) -> None:
    """Raise TypeError if a stranger's bytes are no dictionary of plain values, which everybody can read safely."""
    if not extension:
        return
    try:
        check_memo(extension)
        found = _PlainUnpickler(BytesIO(extension)).load()
    except Exception as error:  # noqa: BLE001 - whatever a broken pickle raises
        raise TypeError(f"transaction extension: {type(error).__name__}: {error}"[:200]) from None
    _plain_extension(found)


def extension_bytes(extension: Mapping[str, Any] | None) -> bytes:
    """Return the bytes that the log keeps for an extension, b"" for an empty one.

    TypeError if it holds what the wire could not carry (lesson B42): keys that are no text, values that are no plain
    values, numbers of more than 64 bits, text that is no Unicode, or too much of all that.
    """
    if not extension:
        return b""
    dumped: bytes = pickle.dumps(_plain_extension(extension), _PROTOCOL)
    return dumped


def _plain_extension(extension: object) -> dict[str, Any]:
    """Return a copy of the extension that is made of builtins, not their subclasses; else TypeError."""
    if not isinstance(extension, Mapping):
        raise TypeError(f"transaction extension: a {type(extension).__name__} instead of a dictionary")
    copier = _PlainCopier()
    for key in extension:
        if not isinstance(key, str):
            raise TypeError(f"transaction extension: key {reprlib.repr(key)} is no text")
    return {copier.text("a key", key): copier.value(key, value, 1) for key, value in extension.items()}


class _PlainCopier:
    """Copies plain values; refuses all others, naming the path to them, and too many, as of a list within itself."""

    def __init__(self) -> None:
        self._left = _MAX_CHARACTERS

    def value(self, path: str, value: object, depth: int) -> object:
        """Return a copy of `value`."""
        self._count(path, 1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(path, value)
        if isinstance(value, bytes):
            self._count(path, len(value))
            return bytes(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise _refused(path, "takes more than 64 bits")
            return int(value)
        return self._container(path, value, depth)

    def text(self, path: str, text: str) -> str:
        """Return a copy of `text`."""
        self._count(path, len(text))
        try:
            return text.encode("utf-8").decode("utf-8")
        except UnicodeEncodeError:
            raise _refused(path, "is no Unicode text") from None

    def _container(self, path: str, value: object, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise _refused(path, f"is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            return {
                self._key(path, key): self.value(f"{path}[{key!r:.100}]", item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            copies = [self.value(f"{path}[{index}]", item, depth + 1) for index, item in enumerate(value)]
            return copies if isinstance(value, list) else tuple(copies)
        raise _refused(path, f"is a {type(value).__name__}, not a plain value")

    def _key(self, path: str, key: object) -> object:
        # the other keys that msgpack could carry are what its decoders refuse unless told otherwise
        if not isinstance(key, str | bytes):
            raise _refused(path, f"has a key, {reprlib.repr(key)}, that is neither text nor bytes")
        return self.value(f"a key of {path}", key, 0)

    def _count(self, path: str, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _refused(path, f"is where it takes more than {_MAX_CHARACTERS} characters")


def _refused(path: str, reason: str) -> TypeError:
    return TypeError(f"transaction extension: {path[:200]} {reason}")
