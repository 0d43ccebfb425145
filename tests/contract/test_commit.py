"""The contract of two-phase commits."""

from threading import Thread

import pytest

from tests.contract.storages import Txn, commit
from zeo_core.errors import ConflictError, POSKeyError, ReadConflictError, StorageError, StorageTransactionError
from zeo_core.ids import MAX_TID, ZERO_TID, Tid, pack_id, successor, unpack_id
from zeo_core.zodb import ZODBStorage

A, B, C = pack_id(1), pack_id(2), pack_id(3)


def test_tids_grow_however_fast_they_are_asked_for(storage: ZODBStorage) -> None:
    tids = [commit(storage, {pack_id(number): b"x"}) for number in range(1, 30)]
    assert tids == sorted(set(tids))
    assert storage.last_tid() == tids[-1]


def test_nothing_is_visible_before_the_end(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"old"})
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, first, b"new", "", txn)
    storage.store(B, ZERO_TID, b"new", "", txn)
    storage.tpc_vote(txn)
    assert storage.load(A) == (b"old", first)
    assert storage.last_tid() == first
    with pytest.raises(POSKeyError):
        storage.load(B)
    second = storage.tpc_finish(txn)
    assert storage.load(A) == (b"new", second)
    assert storage.load(B) == (b"new", second)


@pytest.mark.parametrize("voted", [False, True])
def test_an_aborted_transaction_leaves_nothing(storage: ZODBStorage, voted: bool) -> None:
    first = commit(storage, {A: b"old"})
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, first, b"new", "", txn)
    storage.store(B, ZERO_TID, b"new", "", txn)
    if voted:
        storage.tpc_vote(txn)
    storage.tpc_abort(txn)
    storage.tpc_abort(txn)
    assert storage.load(A) == (b"old", first)
    with pytest.raises(POSKeyError):
        storage.load(B)
    assert commit(storage, {A: b"newer", B: b"newer"}) == storage.last_tid() > first


def test_a_stale_serial_is_a_conflict_that_says_with_what(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"1"})
    second = commit(storage, {A: b"2"})
    with pytest.raises(ConflictError) as caught:
        commit(storage, {B: b"fine", A: b"3"}, {A: first})
    assert caught.value.oid == A
    assert caught.value.serials == (second, first)
    assert storage.load(A) == (b"2", second)
    with pytest.raises(POSKeyError):
        storage.load(B)
    assert commit(storage, {A: b"3"}) > second


@pytest.mark.parametrize("serial", [ZERO_TID, pack_id(5), MAX_TID])
def test_a_wrong_serial_of_an_existing_object_is_a_conflict(storage: ZODBStorage, serial: Tid) -> None:
    commit(storage, {A: b"1"})
    with pytest.raises(ConflictError):
        commit(storage, {A: b"2"}, {A: serial})


def test_a_serial_for_an_object_that_is_not_there_is_a_conflict(storage: ZODBStorage) -> None:
    tid = commit(storage, {A: b"1"})
    with pytest.raises(ConflictError) as caught:
        commit(storage, {B: b"2"}, {B: tid})
    assert caught.value.serials == (ZERO_TID, tid)


def test_what_was_read_must_be_current_at_the_vote(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"1", B: b"1"})
    second = commit(storage, {A: b"2"})
    third = commit(storage, {C: b"fine"}, current=[(A, second), (B, first)])
    for stale in ([(A, first)], [(B, second)], [(B, first), (A, first)]):
        with pytest.raises(ReadConflictError) as caught:
            commit(storage, {C: b"not fine"}, current=stale)
        assert caught.value.oid == stale[-1][0]
    assert storage.load(C) == (b"fine", third)


def test_a_transaction_without_objects_has_a_tid_like_any_other(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"1"})
    second = commit(storage, {})
    assert second == storage.last_tid() > first
    assert storage.load_before(A, MAX_TID) == (b"1", first, None)


def test_storing_an_object_twice_keeps_the_later_data(storage: ZODBStorage) -> None:
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, ZERO_TID, b"first", "", txn)
    storage.store(A, ZERO_TID, b"second", "", txn)
    storage.tpc_vote(txn)
    tid = storage.tpc_finish(txn)
    assert storage.load(A) == (b"second", tid)
    assert len(storage.revisions(A, 5)) == 1


def test_a_tid_is_announced_when_loads_see_it_and_last_tid_does_not_yet(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"1"})
    seen: list[object] = []

    def announce(tid: Tid) -> None:
        seen.append((tid, storage.load_before(A, successor(tid)), storage.last_tid()))

    second = commit(storage, {A: b"2"}, announce=announce)
    assert seen == [(second, (b"2", second, None), first)]
    assert storage.last_tid() == second


def test_calls_for_another_transaction_are_refused(storage: ZODBStorage) -> None:
    mine, other = Txn(), Txn()
    storage.tpc_begin(mine)
    for call in (
        lambda: storage.store(A, ZERO_TID, b"x", "", other),
        lambda: storage.check_current(A, ZERO_TID, other),
        lambda: storage.tpc_vote(other),
        lambda: storage.tpc_finish(other),
        lambda: storage.tpc_begin(mine),
    ):
        with pytest.raises(StorageTransactionError):
            call()
    storage.tpc_abort(other)
    storage.store(A, ZERO_TID, b"x", "", mine)
    storage.tpc_vote(mine)
    tid = storage.tpc_finish(mine)
    assert storage.load(A) == (b"x", tid)
    with pytest.raises(StorageTransactionError):
        storage.store(A, ZERO_TID, b"x", "", mine)


@pytest.mark.parametrize("extension", [{1: "key"}, {"key": object()}, {"list": [set()]}])
def test_an_extension_that_the_wire_could_not_carry_is_refused_at_the_beginning(
    storage: ZODBStorage, extension: object
) -> None:
    with pytest.raises(TypeError):
        storage.tpc_begin(Txn(extension=extension))
    assert commit(storage, {A: b"1"}) == storage.last_tid()


@pytest.mark.parametrize(
    "text", [Txn(user="u" * 65_536), Txn(description="\u00e9" * 40_000), Txn(extension={"k": "x" * 70_000})]
)
def test_metadata_that_the_log_has_no_room_for_are_refused(storage: ZODBStorage, text: Txn) -> None:
    with pytest.raises(StorageError, match="65535"):
        commit(storage, {A: b"1"}, txn=text)
    assert commit(storage, {A: b"1"}) == storage.last_tid()


def test_an_object_without_data_is_refused(storage: ZODBStorage) -> None:
    with pytest.raises(StorageError):
        commit(storage, {A: b""})
    assert commit(storage, {A: b"1"}) == storage.last_tid()


def test_oids_are_never_given_twice(storage: ZODBStorage) -> None:
    taken = [storage.new_oid() for _ in range(250)]
    commit(storage, {pack_id(10_000): b"chosen by the client"})
    taken += [storage.new_oid() for _ in range(250)]
    assert len(set(taken)) == 500
    assert pack_id(0) not in taken
    assert pack_id(10_000) not in taken


def test_a_large_transaction(storage: ZODBStorage) -> None:
    objects = {pack_id(number): b"%d" % number for number in range(60_000, 70_000)}
    tid = commit(storage, objects, dict.fromkeys(objects, ZERO_TID))
    for number in (60_000, 65_535, 65_536, 69_999):
        assert storage.load(pack_id(number)) == (b"%d" % number, tid)


def test_transactions_of_several_threads_follow_each_other(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"0"})
    failed: list[BaseException] = []

    def count() -> None:
        for _ in range(10):
            while True:
                data, serial = storage.load(A)
                try:
                    commit(storage, {A: b"%d" % (int(data) + 1)}, {A: serial})
                    break
                except ConflictError:
                    continue
                except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                    failed.append(error)
                    return

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert storage.load(A)[0] == b"40"
    assert unpack_id(storage.last_tid()) > unpack_id(first)


def test_a_reader_sees_one_state_while_others_commit(storage: ZODBStorage) -> None:
    commit(storage, {A: b"0", B: b"0"})
    torn: list[object] = []
    done: list[bool] = []

    def read() -> None:
        while not done:
            before = successor(storage.last_tid())
            states = [storage.load_before(oid, before) for oid in (A, B, A)]
            if len({state[:2] for state in states if state}) != 1 or None in states:
                torn.append(states)

    reader = Thread(target=read)
    reader.start()
    for number in range(1, 60):
        commit(storage, {A: b"%d" % number, B: b"%d" % number})
    done.append(True)
    reader.join()
    assert torn == []
