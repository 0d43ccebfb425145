"""Values that cross the storage contract; all of them immutable.

A transaction's `user` and `description` are UTF-8 bytes. Its `extension` is kept as the bytes that stand in the log, a
pickled dictionary or nothing at all, so that copying a database never rewrites it; `extension_map` reads it without
importing anything and `extension_bytes` makes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import zodbpickle
from zodbpickle import pickle

from zeo_core.ids import Oid, Tid

__all__ = [
    "HistoryEntry",
    "Invalidation",
    "ObjectWrite",
    "PreparedTransaction",
    "RecordedObject",
    "RecordedTransaction",
    "Revision",
    "TransactionMetadata",
    "extension_bytes",
    "extension_map",
]

_PROTOCOL = 3  # what ZODB writes, so that it reads what we write


class Revision(NamedTuple):
    """One revision of an object: its data, the tid that wrote it, and the tid that replaced it, None if current.

    A tuple, because this very triple is what ZODB's loadBefore returns.
    """

    data: bytes
    tid: Tid
    end_tid: Tid | None


class ObjectWrite(NamedTuple):
    """One object in a transaction: the new data, and the serial (tid) of the revision it was made from."""

    oid: Oid
    serial: Tid
    data: bytes


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

    `writes` has each oid once. An oid without a write that was only checked to be current does not appear.
    """

    metadata: TransactionMetadata
    writes: tuple[ObjectWrite, ...]


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
            return zodbpickle.binary
        raise pickle.UnpicklingError(f"{module}.{name} in transaction metadata")


def extension_map(extension: bytes) -> dict[str, Any]:
    """Return the extension's dictionary; empty if there is none or it holds more than plain values."""
    if not extension:
        return {}
    try:
        value = _PlainUnpickler(BytesIO(extension)).load()
    except Exception:  # noqa: BLE001 - any garbage may stand in a twenty-year-old file; it must not stop an iteration
        return {}
    return value if isinstance(value, dict) else {}


def extension_bytes(extension: Mapping[str, Any] | None) -> bytes:
    """Return the bytes that the log keeps for an extension, b"" for an empty one.

    TypeError if it holds what the wire could not carry (lesson B42): keys that are no text, values that are no plain
    values.
    """
    if not extension:
        return b""
    for key, value in extension.items():
        if not isinstance(key, str):
            raise TypeError(f"transaction extension: key {key!r} is no text")
        _check_plain(key, value)
    dumped: bytes = pickle.dumps(dict(extension), _PROTOCOL)
    return dumped


def _check_plain(path: str, value: object) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(f"{path}[{key!r}]", key)
            _check_plain(f"{path}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(f"{path}[{index}]", item)
    elif not isinstance(value, str | bytes | bool | int | float | None):
        raise TypeError(f"transaction extension: {path} is a {type(value).__name__}, not a plain value")
