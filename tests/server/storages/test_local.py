"""What embedded storages share: oids, metadata, the commit lock."""

from collections.abc import Sequence
from threading import Thread

import pytest

from tests.contract.storages import Txn, commit
from tests.core import test_protobuf_resolve as messages
from tests.core.test_resolve import Counter, Faulty, record, state_of
from zeo_core.classes import import_class
from zeo_core.errors import ConflictError, StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.local import MAX_METADATA_BYTES, OidSequence, check_writable, metadata_of
from zeo_server.storages.mapping import MappingStorage

A = pack_id(1)


def test_oids_start_above_the_root() -> None:
    assert OidSequence().take(3) == [pack_id(1), pack_id(2), pack_id(3)]
    assert OidSequence(7).take(1) == [pack_id(8)]
    assert OidSequence().take(0) == []


def test_oids_in_use_are_passed_by() -> None:
    oids = OidSequence()
    oids.pass_by([pack_id(5), pack_id(300), pack_id(6)])
    oids.pass_by([pack_id(2)])
    oids.pass_by([])
    assert oids.take(1) == [pack_id(301)]


def test_oids_run_out_with_an_error_that_says_so() -> None:
    oids = OidSequence(2**64 - 3)
    assert oids.take(2) == [pack_id(2**64 - 2), pack_id(2**64 - 1)]
    with pytest.raises(StorageError, match="no oids left"):
        oids.take(1)


def test_threads_never_get_the_same_oid() -> None:
    oids = OidSequence()
    taken: list[bytes] = []
    threads = [Thread(target=lambda: taken.extend(oids.take(7) * 1)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == len(taken) == 140


def test_metadata_are_utf8_whatever_they_were_given_as() -> None:
    assert metadata_of(Txn("us\u00e9r", b"d\xff", {})) == TransactionMetadata(b"us\xc3\xa9r", b"d\xff", b"")
    assert metadata_of(Txn(extension=b"kept \xff")).extension == b"kept \xff"
    longest = b"x" * MAX_METADATA_BYTES
    assert metadata_of(Txn(longest, longest, longest)) == TransactionMetadata(longest, longest, longest)


@pytest.mark.parametrize("name", ["user", "description", "extension"])
def test_metadata_that_are_too_long_are_named(name: str) -> None:
    too_long = {name: b"x" * (MAX_METADATA_BYTES + 1)}
    with pytest.raises(StorageError, match=f"{name} takes 65536 bytes"):
        metadata_of(Txn(**too_long))
    with pytest.raises(StorageError, match=f"{name} takes 65536 bytes"):
        check_writable([PreparedTransaction(TransactionMetadata(**too_long), ())])


def test_a_write_without_data_is_named() -> None:
    with pytest.raises(StorageError, match="0x01"):
        check_writable([PreparedTransaction(TransactionMetadata(), (ObjectWrite(A, ZERO_TID, b""),))])


@pytest.mark.parametrize(("oid", "serial"), [(b"short", ZERO_TID), (A, b"short"), ("1", ZERO_TID)])
def test_ids_of_the_wrong_kind_are_refused(oid: bytes, serial: Tid) -> None:
    with pytest.raises(StorageError, match="8 bytes"):
        commit(MappingStorage(), {oid: b"x"}, {oid: serial})


def test_versions_are_refused() -> None:
    storage, txn = MappingStorage(), Txn()
    storage.tpc_begin(txn)
    with pytest.raises(StorageError, match="version"):
        storage.store(A, ZERO_TID, b"x", "version", txn)


def test_finish_needs_a_vote_after_the_last_store() -> None:
    storage, txn = MappingStorage(), Txn()
    storage.tpc_begin(txn)
    with pytest.raises(StorageTransactionError, match="voted"):
        storage.tpc_finish(txn)
    storage.tpc_vote(txn)
    storage.store(A, ZERO_TID, b"x", "", txn)
    with pytest.raises(StorageTransactionError, match="voted"):
        storage.tpc_finish(txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)


def test_a_conflict_names_the_class_if_the_record_tells_it() -> None:
    storage = MappingStorage()
    commit(storage, {A: b"x"})
    for data, name in ((b"cmodule\nClass\n.}.", "module.Class"), (b"no pickle", None)):
        with pytest.raises(ConflictError) as caught:
            commit(storage, {A: data}, {A: ZERO_TID})
        assert caught.value.class_name == name


def test_a_failing_announcement_does_not_undo_the_commit() -> None:
    storage = MappingStorage()
    told: list[Tid] = []

    def announce(tid: Tid) -> None:
        told.append(tid)
        raise KeyError("announce")

    with pytest.raises(KeyError):
        commit(storage, {A: b"x"}, announce=announce)
    assert storage.last_tid() == told[0]
    assert commit(storage, {A: b"y"}) > told[0]


def test_a_waiting_transaction_begins_when_the_other_ends() -> None:
    storage, first = MappingStorage(), Txn()
    storage.tpc_begin(first)
    order: list[str] = []

    def second() -> None:
        commit(storage, {A: b"second"})
        order.append("second")

    thread = Thread(target=second)
    thread.start()
    storage.store(A, ZERO_TID, b"first", "", first)
    storage.tpc_vote(first)
    assert order == []
    storage.tpc_finish(first)
    thread.join()
    assert order == ["second"]
    assert storage.load(A)[0] == b"second"


def counters(*numbers: int) -> list[bytes]:
    return [record(Counter, {"n": number}) for number in numbers]


def test_no_serial_stands_for_a_new_object() -> None:
    storage, txn = MappingStorage(), Txn()
    storage.tpc_begin(txn)
    storage.store(A, None, b"x", "", txn)
    storage.tpc_vote(txn)
    assert storage.load_serial(A, storage.tpc_finish(txn)) == b"x"


def test_a_resolved_conflict_is_reported_by_the_vote() -> None:
    storage, txn = MappingStorage(), Txn()
    one, five, three = counters(1, 5, 3)
    first = commit(storage, {A: one})
    commit(storage, {A: five})
    storage.resolve_conflicts(import_class)
    storage.tpc_begin(txn)
    storage.store(A, first, three, "", txn)
    storage.store(A, first, three, "", txn)
    assert list(storage.tpc_vote(txn)) == [A]
    storage.tpc_finish(txn)
    assert state_of(storage.load(A)[0]) == {"n": 7}
    storage.resolve_conflicts(None)
    with pytest.raises(ConflictError):
        commit(storage, {A: three}, {A: first})


def test_messages_are_merged_as_a_rule_says_without_their_class() -> None:
    storage = MappingStorage()
    storage.resolve_conflicts(messages.no_class, lambda *_: messages.SETS)
    first = commit(storage, {A: messages.OLD})
    commit(storage, {A: messages.COMMITTED})
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, first, messages.NEW, "", txn)
    assert storage.tpc_vote(txn) == [A]
    storage.tpc_finish(txn)
    merged = messages.shown(storage.load(A)[0])
    assert merged["guardians"] == [messages.ALICE, messages.BOB, messages.CAROL, messages.DAVE]


def test_a_new_object_whose_oid_is_taken_is_never_resolved() -> None:
    """B25: there is no state that both sides began with."""
    storage = MappingStorage()
    storage.resolve_conflicts(import_class)
    commit(storage, {A: counters(1)[0]})
    for serial in (ZERO_TID, pack_id(5)):
        with pytest.raises(ConflictError):
            commit(storage, {A: counters(2)[0]}, {A: serial})


def test_records_are_resolved_as_the_db_sees_them() -> None:
    class Reversing:
        """A DB through which records are turned round."""

        def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
            """Hear of a commit."""

        def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
            """Hear of anything."""

        def transform_record_data(self, data: bytes) -> bytes:
            return data[::-1]

        untransform_record_data = transform_record_data

    storage, txn = MappingStorage(), Txn()
    storage.registerDB(Reversing())
    one, five, three = (data[::-1] for data in counters(1, 5, 3))
    first = commit(storage, {A: one})
    commit(storage, {A: five})
    storage.tpc_begin(txn)
    storage.store(A, first, three, "", txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)
    assert state_of(storage.load(A)[0][::-1]) == {"n": 7}


def test_a_method_at_fault_is_logged_and_the_conflict_remains(caplog: pytest.LogCaptureFixture) -> None:
    storage = MappingStorage()
    storage.resolve_conflicts(import_class)
    first = commit(storage, {A: record(Faulty, {})})
    commit(storage, {A: record(Faulty, {"n": 1})})
    with pytest.raises(ConflictError, match="Faulty"):
        commit(storage, {A: record(Faulty, {"n": 2})}, {A: first})
    assert "a fault" in caplog.text


def test_a_restored_tid_is_checked_at_the_vote() -> None:
    storage, txn = MappingStorage(), Txn()
    tid = commit(storage, {A: b"a"})
    storage.tpc_begin(txn, tid)
    with pytest.raises(StorageError, match="cannot restore"):
        storage.tpc_vote(txn)
    storage.tpc_abort(txn)


def test_the_last_transaction_is_told_when_it_is_announced() -> None:
    storage = MappingStorage()
    seen: list[Tid] = []
    asking: list[Thread] = []

    def announce(_tid: Tid) -> None:
        asking.append(Thread(target=lambda: seen.append(storage.lastTransaction())))
        asking[0].start()

    tid = commit(storage, {A: b"a"}, announce=announce)
    asking[0].join()
    assert seen == [tid]
