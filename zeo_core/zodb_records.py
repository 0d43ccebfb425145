"""What ZODB's storage API gives for transactions and their objects: shapes of the contract's values, and no more."""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import IO, Any, Self

from zeo_core.commit_marker import unmarked
from zeo_core.errors import UndoError
from zeo_core.ids import Oid, Tid, tid_to_time
from zeo_core.transaction import HistoryEntry, RecordedObject, RecordedTransaction, UndoEntry, extension_map

__all__ = [
    "DataRecord",
    "TransactionIterator",
    "TransactionRecord",
    "history_line",
    "history_lines",
    "open_blob_of",
    "specified",
    "tid_from_undo_id",
    "undo_lines",
]

_Line = dict[str, Any]


class DataRecord:
    """One object in a transaction: ZODB's IStorageRecordInformation."""

    __slots__ = ("data", "data_txn", "oid", "tid", "version")

    def __init__(self, recorded: RecordedObject) -> None:
        self.oid: Oid = recorded.oid
        self.tid: Tid = recorded.tid
        self.data = recorded.data
        self.data_txn = recorded.data_tid
        self.version = ""


class TransactionRecord:
    """One transaction, to be iterated for its objects, any number of times: ZODB's IStorageTransactionInformation.

    `tpc_begin` takes it for the transaction to be copied: `extension_bytes` are as they stand in the log,
    but for a commit marker.
    """

    def __init__(self, recorded: RecordedTransaction) -> None:
        self.tid = recorded.tid
        self.status = recorded.status.decode("ascii")
        self.user = recorded.metadata.user
        self.description = recorded.metadata.description
        self.extension: Mapping[str, Any] = extension_map(recorded.metadata.extension)
        self.extension_bytes = unmarked(recorded.metadata.extension)
        self._records = recorded.records
        self._data: dict[int, object] = {}

    def __iter__(self) -> Iterator[DataRecord]:
        return map(DataRecord, self._records)

    def data(self, ob: object) -> object:
        """Return what `ob` has kept here; KeyError if nothing."""
        return self._data[id(ob)]

    def set_data(self, ob: object, data: object) -> None:
        """Keep `data` for `ob`."""
        self._data[id(ob)] = data


class TransactionIterator:
    """Walks transactions, once."""

    def __init__(self, transactions: Iterator[RecordedTransaction]) -> None:
        self._transactions: Iterator[RecordedTransaction] = transactions

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TransactionRecord:
        return TransactionRecord(next(self._transactions))

    def close(self) -> None:
        """End the walk."""
        self._transactions = iter(())


def history_line(entry: HistoryEntry) -> _Line:
    """Return a line of an object's history as it travels: time, tid, user_name, description, size."""
    return {**_described(entry), "tid": entry.tid}


def history_lines(entries: Iterable[HistoryEntry]) -> Iterator[_Line]:
    """Walk an object's history as ZODB's dictionaries."""
    for entry in entries:
        yield {**_line(entry), "tid": entry.tid}


def undo_lines(
    entries: Iterable[UndoEntry], first: int, last: int, wanted: Callable[[_Line], object] | None
) -> list[_Line]:
    """Return the lines of an undo log from number `first` up to, not including, `last`; a negative one counts lines."""
    lines = ({**_line(entry), "id": b2a_base64(entry.tid, newline=False)} for entry in entries)
    chosen = lines if wanted is None else (line for line in lines if wanted(line))
    return list(islice(chosen, first, first - last if last < 0 else last))


def _line(entry: HistoryEntry | UndoEntry) -> _Line:
    return {**extension_map(entry.metadata.extension), **_described(entry)}


def _described(entry: HistoryEntry | UndoEntry) -> _Line:
    metadata = entry.metadata
    return {
        "time": tid_to_time(entry.tid),
        "user_name": metadata.user,
        "description": metadata.description,
        "size": entry.size,
    }


def specified(specification: Mapping[str, Any] | None) -> Callable[[_Line], bool] | None:
    """Return the filter that undoInfo's specification stands for: these keys, with these values."""
    if not specification:
        return None
    items = list(specification.items())
    # "not !=" rather than "==": the values may be objects that compare in their own way, such as Zope's prefixes
    return lambda line: not any(line.get(key) != value for key, value in items)


def tid_from_undo_id(transaction_id: bytes) -> Tid:
    """Return the tid that an undo log's id stands for; a tid is taken as it is. UndoError for anything else."""
    if len(transaction_id) == 8:
        return transaction_id
    try:
        tid = a2b_base64(transaction_id, strict_mode=True)
    except Base64Error:
        tid = b""
    if len(tid) != 8:
        raise UndoError(f"{transaction_id!r} is no id of an undo log")
    return tid


def open_blob_of(source: Any, oid: Oid, tid: Tid) -> IO[bytes] | None:
    """Open the blob of a record of another storage, under ZODB's names; None if that has no blobs or has lost it.

    A copy of a database need not wait for a blob that is lost there.
    """
    if not hasattr(source, "openCommittedBlobFile"):
        return None
    with suppress(KeyError):
        blob: IO[bytes] = source.openCommittedBlobFile(oid, tid)
        return blob
    return None
