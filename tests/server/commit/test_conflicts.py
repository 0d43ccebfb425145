"""What stands against a commit."""

import pytest
from BTrees.Length import Length

from tests.contract.storages import commit
from tests.core.test_resolve import Counter, record
from tests.server.commit.test_transaction import Nobody
from zeo_core.errors import ConflictError, POSKeyError, ReadConflictError, StorageError
from zeo_core.ids import ZERO_TID, Tid, pack_id
from zeo_server.allow_list import AllowList
from zeo_server.commit.conflicts import OIDS_AHEAD_MAX, Checked, Checker
from zeo_server.commit.resolver import Resolver
from zeo_server.commit.transaction import ServerTransaction
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def storage() -> MappingStorage:
    return MappingStorage()


@pytest.fixture
def first(storage: MappingStorage) -> Tid:
    tid = commit(storage, {A: b"a"})
    commit(storage, {A: b"aa"})
    return tid


def check(storage: MappingStorage, transaction: ServerTransaction) -> Checked:
    return Checker(storage, Resolver(storage.load_before, AllowList()), "1").check(transaction, 0)


def begun() -> ServerTransaction:
    return ServerTransaction(Nobody(), 1)


def test_nothing_stands_against_what_is_current(storage: MappingStorage, first: Tid) -> None:
    transaction = begun()
    transaction.store(A, storage.last_tid(), b"aaa")
    transaction.store(B, ZERO_TID, b"b")
    transaction.check(A, first)  # covered by the store
    assert check(storage, transaction) == (None, [])


def test_a_conflict_for_good_unless_somebody_can_resolve_it(storage: MappingStorage, first: Tid) -> None:
    transaction = begun()
    transaction.store(A, first, record(Counter, {"n": 1}))
    fault = check(storage, transaction).fault
    assert isinstance(fault, ConflictError)
    assert (fault.oid, fault.serials) == (A, (storage.last_tid(), first))
    assert fault.class_name == "tests.core.test_resolve.Counter"
    transaction.resolves = True
    fault, conflicts = check(storage, transaction)
    assert fault is None
    assert [(conflict.oid, conflict.read) for conflict in conflicts] == [(A, first)]
    transaction.resolved[A] = None  # here, in an earlier round: its client has other data
    assert isinstance(check(storage, transaction).fault, ConflictError)


def test_a_class_on_the_list_may_be_resolved_here(storage: MappingStorage, first: Tid) -> None:
    transaction = begun()
    transaction.store(A, first, record(Length, 3))
    assert check(storage, transaction).fault is None
    transaction.store(A, ZERO_TID, record(Length, 3))  # new, and the oid is taken
    assert isinstance(check(storage, transaction).fault, ConflictError)


def test_deletions(storage: MappingStorage, first: Tid) -> None:
    for oid, serial, expected in ((A, first, ConflictError), (B, ZERO_TID, POSKeyError), (B, first, POSKeyError)):
        transaction = begun()
        transaction.resolves = True
        transaction.delete(oid, serial)
        assert isinstance(check(storage, transaction).fault, expected)


def test_a_stale_read(storage: MappingStorage, first: Tid) -> None:
    transaction = begun()
    transaction.check(A, first)
    assert isinstance(check(storage, transaction).fault, ReadConflictError)


def test_what_is_restored_has_no_conflicts_but_must_be_later(storage: MappingStorage, first: Tid) -> None:
    transaction = begun()
    transaction.restore(A, b"x", None)
    transaction.restore(B, None, None)
    assert check(storage, transaction) == (None, [])
    transaction.restore_as(storage.last_tid(), " ")
    assert isinstance(check(storage, transaction).fault, StorageError)


def test_new_objects_cannot_use_up_the_oids_of_everybody(storage: MappingStorage, first: Tid) -> None:
    near, far = pack_id(2 + OIDS_AHEAD_MAX), pack_id(3 + OIDS_AHEAD_MAX)
    storage.new_oids(1)  # 2
    transaction = begun()
    transaction.store(near, ZERO_TID, b"near")
    assert check(storage, transaction).fault is None
    for oid in (far, b"\xff" * 8):
        transaction = begun()
        transaction.store(oid, ZERO_TID, b"far")
        fault = check(storage, transaction).fault
        assert isinstance(fault, StorageError)
        assert "is no oid that was given out" in str(fault)


def test_what_is_restored_and_what_is_there_may_have_any_oid(storage: MappingStorage) -> None:
    last = b"\xff" * 7 + b"\xf0"
    transaction = begun()
    transaction.restore(last, b"restored", None)
    assert check(storage, transaction).fault is None
    tid = commit(storage, {last: b"there"})
    transaction = begun()
    transaction.store(last, tid, b"changed")
    assert check(storage, transaction).fault is None


def test_what_a_client_asks_for_in_vain_is_no_error_of_the_server(
    storage: MappingStorage, first: Tid, caplog: pytest.LogCaptureFixture
) -> None:
    transaction = begun()
    transaction.restore_as(first, " ")
    assert "cannot restore" in str(check(storage, transaction).fault)
    assert caplog.records == []
