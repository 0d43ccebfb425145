"""The contract of undoing, deleting and restoring, of the storages that keep a log of their own."""

from collections.abc import Callable
from typing import cast

import pytest

from tests.contract.storages import Txn, Undoing, commit
from tests.core.test_resolve import Counter, record, state_of
from zeo_core.classes import import_class
from zeo_core.errors import (
    ConflictError,
    MultipleUndoErrors,
    POSKeyError,
    ReadConflictError,
    StorageError,
    StorageTransactionError,
    UndoError,
)
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.storage import Commits, Undoes
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.logged import LoggedStorage

A, B, C = pack_id(1), pack_id(2), pack_id(3)


@pytest.fixture
def logged(undoing_storage: ZODBStorage) -> Undoing:
    """A storage that can undo."""
    assert undoing_storage.supportsUndo()
    return cast(Undoing, undoing_storage)


@pytest.fixture
def local(local_undoing_storage: ZODBStorage) -> LoggedStorage:
    """One in this process, where the test can say what resolves conflicts."""
    assert isinstance(local_undoing_storage, LoggedStorage)
    assert isinstance(local_undoing_storage, Undoes)
    return local_undoing_storage


def transact(storage: Undoing | LoggedStorage, *steps: Callable[[Txn], object]) -> Tid:
    txn = Txn("undoer")
    storage.tpc_begin(txn)
    try:
        for step in steps:
            step(txn)
        storage.tpc_vote(txn)
        return storage.tpc_finish(txn)
    except BaseException:
        storage.tpc_abort(txn)
        raise


def undo(storage: Undoing | LoggedStorage, *tids: Tid) -> Tid:
    return transact(storage, *(lambda txn, tid=tid: storage.undo(tid, txn) for tid in tids))


def delete(storage: Undoing, oid: Oid, serial: Tid) -> Tid:
    return transact(storage, lambda txn: storage.deleteObject(oid, serial, txn))


def last_records(storage: Undoing | LoggedStorage) -> list[tuple[object, ...]]:
    tid = storage.last_tid()
    (last,) = storage.transactions(tid, tid)
    return [tuple(item) for item in last.records]


def test_an_undone_change_is_a_new_revision_with_the_data_of_before(logged: Undoing) -> None:
    first = commit(logged, {A: b"one", B: b"b"})
    second = commit(logged, {A: b"two"})
    third = undo(logged, second)
    assert logged.load(A) == (b"one", third)
    assert logged.load_before(A, third) == (b"two", second, third)
    assert last_records(logged) == [(A, third, b"one", first)]
    fourth = undo(logged, third)
    assert logged.load(A) == (b"two", fourth)
    assert last_records(logged) == [(A, fourth, b"two", second)]
    assert logged.revisions(A, 1)[0].metadata.user == b"undoer"


def test_an_undone_creation_ends_the_object_and_may_be_undone(logged: Undoing) -> None:
    first = commit(logged, {A: b"a"})
    second = undo(logged, first)
    with pytest.raises(POSKeyError):
        logged.load(A)
    with pytest.raises(POSKeyError):
        logged.getTid(A)
    with pytest.raises(ConflictError):
        commit(logged, {A: b"new"}, {A: first})
    with pytest.raises(ReadConflictError):
        commit(logged, {B: b"b"}, current=[(A, first)])
    if isinstance(logged, Commits):
        assert logged.current_tid(A) == second
    assert last_records(logged) == [(A, second, None, None)]
    third = undo(logged, second)
    assert logged.load(A) == (b"a", third)
    assert last_records(logged) == [(A, third, b"a", first)]


@pytest.mark.parametrize("newest_first", [True, False])
def test_several_are_undone_in_one_transaction(local: LoggedStorage, newest_first: bool) -> None:
    local.resolve_conflicts(import_class)
    tids = [commit(local, {A: record(Counter, {"n": n}), B: b"%d" % (n % 2)}) for n in range(4)]
    if newest_first:
        last = undo(local, tids[3], tids[2])
        assert last_records(local)[0] == (A, last, record(Counter, {"n": 1}), tids[1])
    else:
        with pytest.raises(MultipleUndoErrors):
            undo(local, tids[2], tids[3])  # B has no class that resolves it
        undo(local, commit(local, {B: b"1"}))
    tids = [commit(local, {A: record(Counter, {"n": n})}) for n in (10, 20, 40)]
    chosen = tids[1:][::-1] if newest_first else tids[1:]
    undo(local, *chosen)
    assert state_of(local.load(A)[0]) == {"n": 10}


def test_a_later_change_is_kept_if_the_class_can_resolve_it(local: LoggedStorage) -> None:
    tids = [commit(local, {A: record(Counter, {"n": n})}) for n in (1, 5, 6)]
    with pytest.raises(UndoError):
        undo(local, tids[1])
    local.resolve_conflicts(import_class)
    undo(local, tids[1])
    assert state_of(local.load(A)[0]) == {"n": 2}


def test_what_was_changed_since_cannot_be_undone_and_every_object_is_named(logged: Undoing) -> None:
    first = commit(logged, {A: b"1", B: b"1", C: b"1"})
    second = commit(logged, {A: b"2", B: b"2", C: b"2"})
    third = commit(logged, {A: b"3", C: b"3"})
    for tid in (first, second):
        with pytest.raises(MultipleUndoErrors) as caught:
            undo(logged, tid)
    assert {oid for oid, _reason in caught.value.errors} == {A, C}
    assert logged.last_tid() == third
    undo(logged, third)
    undo(logged, second)
    assert [logged.load(oid)[0] for oid in (A, B, C)] == [b"1"] * 3


def test_a_state_that_was_come_back_to_may_be_undone(logged: Undoing) -> None:
    tids = [commit(logged, {A: data}) for data in (b"1", b"2", b"3", b"2")]
    undo(logged, tids[1])
    assert logged.load(A)[0] == b"1"


@pytest.mark.parametrize("tid", [ZERO_TID, MAX_TID, b"no base64!!!", b"c2hvcnQ=", b"*", b""])
def test_an_unknown_transaction_is_an_undo_error(logged: Undoing, tid: bytes) -> None:
    commit(logged, {A: b"1"})
    with pytest.raises(UndoError):
        undo(logged, tid)
    with pytest.raises(StorageTransactionError):
        logged.undo(logged.last_tid(), Txn())


def test_a_packed_transaction_cannot_be_undone_nor_one_before_it(logged: Undoing) -> None:
    packed, source = Txn(), Txn()
    logged.tpc_begin(packed, pack_id(1000), "p")
    logged.restore(A, pack_id(1000), b"a", "", None, packed)
    logged.tpc_vote(packed)
    logged.tpc_finish(packed)
    second = commit(logged, {B: b"b"}, txn=source)
    assert [entry.tid for entry in logged.undo_log()] == [second]
    with pytest.raises(UndoError, match="packed"):
        undo(logged, pack_id(1000))


def test_the_undo_log_has_what_zodb_shows(logged: Undoing) -> None:
    tids = [commit(logged, {A: b"%d" % n}, txn=Txn(f"user {n % 2}", f"note {n}", {"k": n})) for n in range(9)]
    lines = logged.undoLog(0, 100)
    assert [line["description"] for line in lines] == [b"note %d" % n for n in reversed(range(9))]
    assert lines[0]["k"] == 8
    assert set(lines[0]) == {"id", "time", "user_name", "description", "size", "k"}
    assert lines == logged.undoInfo(0, -100) == logged.undoLog()
    assert logged.undoLog(2, 5) == logged.undoLog(2, -3) == lines[2:5]
    assert logged.undoInfo(1, 3, {"user_name": b"user 1"}) == [lines[3], lines[5]]
    assert logged.undoLog(0, 2, lambda line: line["k"] < 3) == lines[6:8]
    transact(logged, lambda txn: logged.undo(lines[0]["id"], txn))
    assert logged.load(A)[0] == b"7"
    if isinstance(logged, LoggedStorage):
        assert [tid for tid, _ in logged.lastInvalidations(3)] == [*tids[-2:], logged.last_tid()]


def test_an_aborted_undo_leaves_nothing(logged: Undoing) -> None:
    tid = commit(logged, {A: b"1"})
    txn = Txn()
    logged.tpc_begin(txn)
    told = logged.undo(tid, txn)
    voted = logged.tpc_vote(txn)
    assert [*told[1], *voted] == [A]  # a server tells at the vote
    logged.tpc_abort(txn)
    assert logged.load(A) == (b"1", tid)
    assert commit(logged, {A: b"2"}) == logged.last_tid()


def test_an_object_is_deleted_if_its_serial_is_named(logged: Undoing) -> None:
    first = commit(logged, {A: b"1", B: b"b"})
    with pytest.raises(POSKeyError):
        delete(logged, C, first)
    with pytest.raises(ConflictError):
        delete(logged, A, ZERO_TID)
    second = delete(logged, A, first)
    with pytest.raises(POSKeyError):
        logged.load_before(A, successor(second))
    assert logged.load_before(A, second) == (b"1", first, second)
    undo(logged, second)
    assert logged.load(A)[0] == b"1"


def test_objects_are_walked_in_order_and_deleted_ones_left_out(logged: Undoing) -> None:
    with pytest.raises(ValueError, match="no object"):
        logged.record_iternext()
    oids = [ROOT_OID, A, B, pack_id(65_535), pack_id(65_536), pack_id(2**31)]
    if isinstance(logged, LoggedStorage):  # a server takes no such oids from its clients
        oids += [pack_id(2**40), b"\xff" * 8]
    tid = commit(logged, {oid: b"%d" % number for number, oid in enumerate(oids)})
    delete(logged, B, tid)
    walked, following = [], None
    while True:
        oid, serial, data, following = logged.record_iternext(following)
        walked.append((oid, data))
        assert serial == tid
        if following is None:
            break
    assert walked == [(oid, b"%d" % number) for number, oid in enumerate(oids) if oid != B]


def test_the_last_invalidations_oldest_first(local: LoggedStorage) -> None:
    assert local.lastInvalidations(3) == []
    tids = [commit(local, {A: b"%d" % number, pack_id(number + 5): b"x"}) for number in range(4)]
    assert local.lastInvalidations(0) == []
    assert local.lastInvalidations(2) == [(tids[2], [A, pack_id(7)]), (tids[3], [A, pack_id(8)])]
    assert [tid for tid, _ in local.lastInvalidations(99)] == tids


def test_a_copy_has_the_same_transactions_and_goes_on(logged: Undoing, other_undoing: Undoing) -> None:
    first = commit(logged, {A: b"1", B: b"b"}, txn=Txn("user", "note", {"k": 1}))
    second = commit(logged, {A: b"2"})
    undo(logged, second)
    delete(logged, B, first)
    undo(logged, logged.last_tid())
    other_undoing.copyTransactionsFrom(logged, verbose=1)
    assert walked(other_undoing) == walked(logged)
    assert other_undoing.last_tid() == logged.last_tid()
    with pytest.raises(StorageError, match="cannot restore"):
        other_undoing.copyTransactionsFrom(logged)
    last = commit(logged, {C: b"c"})
    other_undoing.tpc_begin(final := list(logged.iterator())[-1], final.tid, final.status)
    for item in [*final, *final]:
        other_undoing.restore(item.oid, item.tid, item.data, item.version, item.data_txn, final)
    other_undoing.tpc_vote(final)
    assert other_undoing.tpc_finish(final) == last
    assert walked(other_undoing) == walked(logged)
    assert other_undoing.new_oid() > C


def walked(storage: Undoing) -> list[object]:
    return [(t.tid, t.status, t.metadata, list(t.records)) for t in storage.transactions()]


def test_of_two_restored_records_of_one_object_the_last_counts(logged: Undoing) -> None:
    first = commit(logged, {A: b"1"})
    second = commit(logged, {A: b"2"})
    restored = transact(
        logged,
        lambda txn: logged.restore(A, ZERO_TID, b"1", "", first, txn),
        lambda txn: logged.restore(A, ZERO_TID, b"2", "", first, txn),  # not what that one wrote
    )
    assert last_records(logged) == [(A, restored, b"2", None)]
    assert logged.load_before(A, restored) == (b"2", second, restored)
