"""The shapes of ZODB's API over the contract's values, with ZODB's interfaces as the oracle."""

from io import BytesIO

import pytest
import zope.interface.verify
from ZODB.interfaces import IStorageRecordInformation, IStorageTransactionInformation

from zeo_core.errors import POSKeyError, UndoError
from zeo_core.ids import pack_id, tid_from_time
from zeo_core.transaction import (
    HistoryEntry,
    RecordedObject,
    RecordedTransaction,
    TransactionMetadata,
    UndoEntry,
    extension_bytes,
)
from zeo_core.zodb_records import (
    TransactionIterator,
    TransactionRecord,
    history_lines,
    open_blob_of,
    specified,
    tid_from_undo_id,
    undo_lines,
)

A, TID = pack_id(1), tid_from_time(1e9)
EXTENSION = extension_bytes({"k": 1, "time": "no time"})
METADATA = TransactionMetadata(b"user", b"what", EXTENSION)
RECORDED = RecordedTransaction(TID, b"p", METADATA, [RecordedObject(A, TID, b"data", pack_id(3))])


def test_a_transaction_has_what_zodb_asks_for() -> None:
    shown = TransactionRecord(RECORDED)
    assert zope.interface.verify.verifyObject(IStorageTransactionInformation, shown, tentative=True)
    assert (shown.tid, shown.status, shown.user, shown.description) == (TID, "p", b"user", b"what")
    assert shown.extension == {"k": 1, "time": "no time"}
    assert shown.extension_bytes == EXTENSION
    for _ in range(2):
        (item,) = shown
        assert zope.interface.verify.verifyObject(IStorageRecordInformation, item, tentative=True)
        assert (item.oid, item.tid, item.data, item.data_txn, item.version) == (A, TID, b"data", pack_id(3), "")


def test_a_transaction_keeps_data_of_others() -> None:
    shown, key = TransactionRecord(RECORDED), object()
    with pytest.raises(KeyError):
        shown.data(key)
    shown.set_data(key, "kept")
    assert shown.data(key) == "kept"


def test_an_iterator_is_used_once_and_may_be_closed() -> None:
    iterator = TransactionIterator(iter([RECORDED, RECORDED]))
    assert next(iterator).tid == TID
    assert len(list(iterator)) == 1
    assert list(iterator) == []
    closed = TransactionIterator(iter([RECORDED]))
    closed.close()
    assert list(closed) == []


def test_lines_have_the_extension_but_not_in_place_of_what_is_known() -> None:
    (line,) = history_lines([HistoryEntry(TID, METADATA, 7)])
    assert line == {"time": 1e9, "tid": TID, "user_name": b"user", "description": b"what", "size": 7, "k": 1}
    (undo,) = undo_lines([UndoEntry(TID, METADATA, 7)], 0, -20, None)
    assert undo.pop("id") != TID
    assert undo == {"time": 1e9, "user_name": b"user", "description": b"what", "size": 7, "k": 1}


def test_a_specification_compares_as_its_values_do() -> None:
    class Prefix:
        def __ne__(self, other: object) -> bool:
            return not (isinstance(other, bytes) and other.startswith(b"us"))

        __hash__ = None  # type: ignore[assignment]

    assert specified(None) is specified({}) is None
    wanted = specified({"user_name": Prefix()})
    assert wanted is not None
    assert wanted({"user_name": b"user"})
    assert not wanted({"user_name": b"other"})
    assert not wanted({})


def test_ids_of_the_undo_log_are_read_back() -> None:
    (line,) = undo_lines([UndoEntry(TID, METADATA, 7)], 0, 1, None)
    assert tid_from_undo_id(line["id"]) == tid_from_undo_id(TID) == TID
    for wrong in (b"", b"*", b"c2hvcnRlcg=="):
        with pytest.raises(UndoError):
            tid_from_undo_id(wrong)


def test_a_blob_that_is_not_there_is_none() -> None:
    class Lost:
        def openCommittedBlobFile(self, oid: bytes, tid: bytes) -> BytesIO:  # noqa: N802
            if oid != A:
                raise POSKeyError(oid)
            return BytesIO(b"data")

    assert open_blob_of(object(), A, TID) is None
    assert open_blob_of(Lost(), pack_id(2), TID) is None
    blob = open_blob_of(Lost(), A, TID)
    assert blob is not None
    assert blob.read() == b"data"
