"""The contract of writing groups: deletions, data repeated by reference, transactions that bring their tids."""

import pytest

from tests.contract.storages import commit
from zeo_core.errors import POSKeyError, StorageError
from zeo_core.ids import MAX_TID, ZERO_TID, Tid, pack_id, successor
from zeo_core.storage import Commits, Iterates
from zeo_core.transaction import ObjectWrite, PreparedTransaction, RecordedObject, Revision, TransactionMetadata
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.local import LocalStorage

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def local(local_storage: ZODBStorage) -> LocalStorage:
    """A storage whose groups the test writes itself."""
    assert isinstance(local_storage, LocalStorage)
    assert isinstance(local_storage, Commits)
    return local_storage


def write(storage: LocalStorage, *writes: ObjectWrite, tid: Tid | None = None, status: bytes = b" ") -> Tid:
    group = storage.write_group([PreparedTransaction(TransactionMetadata(), writes, tid, status)])
    storage.publish(group)
    return group.tids[0]


def records(storage: Iterates) -> list[list[RecordedObject]]:
    return [list(transaction.records) for transaction in storage.transactions()]


def test_a_deletion_is_a_revision_without_data(local: LocalStorage) -> None:
    first = write(local, ObjectWrite(A, ZERO_TID, b"a"))
    second = write(local, ObjectWrite(A, first, None))
    assert local.load_before(A, second) == Revision(b"a", first, second)
    assert local.current_tid(A) == second
    assert records(local)[1] == [(A, second, None, None)]
    assert [(entry.tid, entry.size) for entry in local.revisions(A, 5)] == [(second, 0), (first, 1)]
    assert local.load_serial(A, first) == b"a"
    with pytest.raises(POSKeyError):
        local.load_before(A, successor(second))
    with pytest.raises(POSKeyError):
        local.load_serial(A, second)
    third = write(local, ObjectWrite(A, second, b"again"))
    assert local.load_before(A, MAX_TID) == Revision(b"again", third, None)
    assert local.load_before(A, second) == Revision(b"a", first, second)


def test_data_may_be_repeated_by_reference(local: LocalStorage) -> None:
    first = write(local, ObjectWrite(A, ZERO_TID, b"one"))
    second = write(local, ObjectWrite(A, first, b"two"))
    third = write(local, ObjectWrite(A, second, b"one", first))
    fourth = write(local, ObjectWrite(A, third, b"one", third))
    assert local.load_before(A, fourth) == Revision(b"one", third, fourth)
    assert local.load_serial(A, fourth) == b"one"
    assert [entry.size for entry in local.revisions(A, 5)] == [3, 3, 3, 3]
    assert [batch[0] for batch in records(local)[2:]] == [(A, third, b"one", first), (A, fourth, b"one", first)]


@pytest.mark.parametrize("wrong", [pack_id(1), None])
def test_a_reference_to_other_data_is_not_believed(local: LocalStorage, wrong: Tid | None) -> None:
    first = write(local, ObjectWrite(A, ZERO_TID, b"one"), ObjectWrite(B, ZERO_TID, b"b"))
    second = write(local, ObjectWrite(A, first, b"two", wrong or first))
    assert local.load_before(A, MAX_TID) == Revision(b"two", second, None)
    assert records(local)[1] == [(A, second, b"two", None)]


def test_a_transaction_may_bring_its_tid_and_status(local: LocalStorage) -> None:
    first = write(local, ObjectWrite(A, ZERO_TID, b"old"), tid=pack_id(1000))
    second = write(local, ObjectWrite(A, first, b"new"), tid=pack_id(1002), status=b"p")
    assert (first, second, local.last_tid()) == (pack_id(1000), pack_id(1002), pack_id(1002))
    assert [(t.tid, t.status) for t in local.transactions()] == [(first, b" "), (second, b"p")]
    assert commit(local, {B: b"b"}) > second


@pytest.mark.parametrize("tid", [pack_id(999), pack_id(1000), MAX_TID, b"\xff" * 8])
def test_a_tid_that_is_not_later_than_all_others_is_refused(local: LocalStorage, tid: Tid) -> None:
    first = write(local, ObjectWrite(A, ZERO_TID, b"old"), tid=pack_id(1000))
    with pytest.raises(StorageError, match="cannot restore"):
        write(local, ObjectWrite(A, first, b"new"), tid=tid)
    later = PreparedTransaction(TransactionMetadata(), (), pack_id(1010))
    with pytest.raises(StorageError, match="cannot restore"):
        local.write_group([later, PreparedTransaction(TransactionMetadata(), (), pack_id(1005))])
    assert write(local, ObjectWrite(A, first, b"new"), tid=pack_id(1001)) == local.last_tid()


def test_a_status_that_no_finished_transaction_has_is_refused(local: LocalStorage) -> None:
    with pytest.raises(StorageError, match="status"):
        write(local, ObjectWrite(A, ZERO_TID, b"a"), status=b"c")
    assert local.last_tid() == ZERO_TID
