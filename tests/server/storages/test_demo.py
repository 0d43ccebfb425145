"""DemoStorage's border; tests/contract holds it to what all storages keep."""

import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.storages import Txn, commit
from zeo_core.errors import ConflictError, POSKeyError, ReadOnlyError, StorageClosedError, StorageError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor, tid_from_time, unpack_id
from zeo_core.transaction import HistoryEntry, ObjectWrite, PreparedTransaction, Revision, TransactionMetadata
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.local import LocalStorage
from zeo_server.storages.mapping import MappingStorage

A, B, C, D = (pack_id(number) for number in range(1, 5))
OIDS = [A, B, C, D]


class Foreign:
    """A base that is neither here nor ours, as a server's storage is: it can be loaded from, and no more."""

    def __init__(self, storage: LocalStorage) -> None:
        self._storage = storage

    def name(self) -> str:
        return self._storage.name()

    def read_only(self) -> bool:
        return True

    def last_tid(self) -> Tid:
        return self._storage.last_tid()

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        return self._storage.load_before(oid, tid)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        return self._storage.load_serial(oid, tid)

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        return self._storage.revisions(oid, size)

    def object_count(self) -> int:
        return self._storage.object_count()

    def byte_size(self) -> int:
        return self._storage.byte_size()

    def close(self) -> None:
        self._storage.close()


def write(storage: LocalStorage, data: dict[Oid, bytes | None], tid: Tid | None = None) -> Tid:
    """Commit by the server's way, which also deletes."""
    writes = [ObjectWrite(oid, storage.current_tid(oid) or ZERO_TID, record) for oid, record in data.items()]
    group = storage.write_group([PreparedTransaction(TransactionMetadata(), tuple(writes), tid)])
    storage.publish(group)
    return group.tids[0]


def test_the_base_shows_through_until_it_is_changed() -> None:
    base = MappingStorage()
    first = commit(base, {A: b"a1", B: b"b1"})
    second = commit(base, {A: b"a2"})
    demo = DemoStorage(base=base)
    assert demo.last_tid() == second
    assert demo.load_before(A, MAX_TID) == (b"a2", second, None)
    third = commit(demo, {A: b"a3", C: b"c3"})
    fourth = commit(demo, {A: b"a4"})
    assert first < second < third < fourth == demo.last_tid()
    assert demo.load_before(A, second) == (b"a1", first, second)
    assert demo.load_before(A, successor(second)) == (b"a2", second, third)
    assert demo.load_before(A, third) == (b"a2", second, third)
    assert demo.load_before(A, fourth) == (b"a3", third, fourth)
    assert demo.load_before(A, MAX_TID) == (b"a4", fourth, None)
    assert demo.load_before(B, MAX_TID) == (b"b1", first, None)
    assert demo.load_before(C, third) is None
    assert [entry.tid for entry in demo.revisions(A, 3)] == [fourth, third, second]
    assert [entry.tid for entry in demo.revisions(A, 9)] == [fourth, third, second, first]
    assert [demo.load_serial(A, tid) for tid in (first, second, third, fourth)] == [b"a1", b"a2", b"a3", b"a4"]
    assert len(demo) == 3


def test_the_base_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with closing(FileStorage(path)) as base:
        commit(base, {A: b"a"})
    before = path.read_bytes()
    demo = DemoStorage(base=FileStorage(path, read_only=True))
    assert not demo.read_only()
    commit(demo, {A: b"changed", demo.new_oid(): b"new"})
    demo.close()
    assert path.read_bytes() == before


def test_what_is_deleted_in_the_changes_does_not_show_the_bases_data() -> None:
    base = MappingStorage()
    created = commit(base, {A: b"a"})
    demo = DemoStorage(base=base)
    deleted = write(demo, {A: None})
    for tid in (successor(deleted), MAX_TID):
        with pytest.raises(POSKeyError):
            demo.load_before(A, tid)
    assert demo.load_before(A, deleted) == (b"a", created, deleted)
    assert demo.current_tid(A) == deleted
    recreated = write(demo, {A: b"again"})
    assert demo.load_before(A, MAX_TID) == (b"again", recreated, None)
    with pytest.raises(POSKeyError):
        demo.load_before(A, recreated)


def test_what_is_deleted_in_the_base_is_not_an_object_to_come() -> None:
    base = MappingStorage()
    commit(base, {A: b"a"})
    deleted = write(base, {A: None})
    demo = DemoStorage(base=base)
    assert demo.current_tid(A) == deleted
    recreated = write(demo, {A: b"again", B: b"new"})
    with pytest.raises(POSKeyError):
        demo.load_before(A, recreated)
    assert demo.load_before(B, recreated) is None


def test_a_serial_of_the_base_is_what_changes_are_checked_against() -> None:
    base = MappingStorage()
    old, new = commit(base, {A: b"1"}), commit(base, {A: b"2"})
    demo = DemoStorage(base=base)
    for serial in (old, ZERO_TID):
        with pytest.raises(ConflictError) as caught:
            commit(demo, {A: b"3"}, {A: serial})
        assert caught.value.serials == (new, serial)
    commit(demo, {A: b"3"}, {A: new})


def test_tids_are_later_than_the_bases_whatever_the_clock_says() -> None:
    base = MappingStorage()
    tomorrow = write(base, {A: b"a"}, tid_from_time(time.time() + 86_400))
    demo = DemoStorage(base=base)
    assert commit(demo, {A: b"b"}) > tomorrow
    assert next(transaction.tid for transaction in demo.transactions()) == tomorrow


def test_a_base_that_goes_on_shows_its_state_at_the_border(tmp_path: Path) -> None:
    base = MappingStorage()
    first = commit(base, {A: b"a1", B: b"b1"})
    demo = DemoStorage(base=base, changes=FileStorage(tmp_path / "changes.fs"), close_base_on_close=False)
    commit(base, {A: b"a2", B: b"b2"})
    third = commit(demo, {B: b"mine"})
    commit(base, {A: b"a3", C: b"c3"})
    for _ in range(2):
        assert demo.load_before(A, MAX_TID) == (b"a1", first, None)
        assert demo.load_before(B, successor(first)) == (b"b1", first, third)
        assert demo.current_tid(A) == first
        assert demo.current_tid(C) is None
        assert [entry.tid for entry in demo.revisions(A, 5)] == [first]
        assert [transaction.tid for transaction in demo.transactions()] == [first, third]
        with pytest.raises(POSKeyError):
            demo.revisions(C, 1)
        demo.close()
        # opened again, it is the same border
        demo = DemoStorage(base=base, changes=FileStorage(tmp_path / "changes.fs"), close_base_on_close=False)
    demo.close()
    assert base.load(A)[0] == b"a3"


def test_the_mark_of_the_border_is_the_changes_own_business() -> None:
    base, changes = MappingStorage(), MappingStorage()
    first = commit(base, {A: b"a"})
    demo = DemoStorage(base=base, changes=changes)
    told: list[tuple[Tid, list[Oid]]] = []
    transaction = PreparedTransaction(TransactionMetadata(), (ObjectWrite(B, ZERO_TID, b"b"),))
    one = demo.write_group([transaction])
    two = demo.write_group([PreparedTransaction(TransactionMetadata(), (ObjectWrite(C, ZERO_TID, b"c"),))])
    demo.publish(one, lambda tid, oids: told.append((tid, list(oids))))
    demo.publish(two, lambda tid, oids: told.append((tid, list(oids))))
    assert told == [(one.tids[0], [B]), (two.tids[0], [C])]
    assert [transaction.tid for transaction in demo.transactions()] == [first, *one.tids, *two.tids]
    assert [transaction.tid for transaction in changes.transactions()] == [successor(first), *one.tids, *two.tids]


def test_a_restored_transaction_may_follow_the_base_at_once() -> None:
    base, changes = MappingStorage(), MappingStorage()
    first = commit(base, {A: b"a"})
    demo = DemoStorage(base=base, changes=changes)
    second = write(demo, {A: b"b"}, successor(first))
    assert second == successor(first)
    for storage in (demo, DemoStorage(base=base, changes=changes)):
        assert storage.load_before(A, second) == (b"a", first, second)
        assert [transaction.tid for transaction in storage.transactions()] == [first, second]


def test_changes_that_were_not_made_over_this_base_are_refused() -> None:
    changes, base = MappingStorage(), MappingStorage()
    commit(changes, {A: b"a"})
    commit(base, {A: b"later"})
    with pytest.raises(StorageError, match="are not changes of"):
        DemoStorage(base=base, changes=changes)
    with pytest.raises(StorageError, match="cannot be base and changes"):
        DemoStorage(base=base, changes=base)
    with pytest.raises(StorageError, match="cannot take the changes"):
        DemoStorage(base=base, changes=Foreign(changes))  # type: ignore[arg-type]


def test_a_base_that_is_older_than_the_changes_take_it_for_is_refused() -> None:
    base, changes = MappingStorage(), MappingStorage()
    commit(base, {A: b"a"})
    commit(DemoStorage(base=base, changes=changes), {B: b"b"})
    with pytest.raises(StorageError, match="are not changes of Mapping Storage, which ends at"):
        DemoStorage(base=MappingStorage(), changes=changes)


def test_undoing_a_change_brings_back_the_bases_data() -> None:
    base = MappingStorage()
    first = commit(base, {A: b"a"})
    write(base, {B: b"b"})
    write(base, {B: None})
    demo = DemoStorage(base=base)
    second = write(demo, {A: b"changed", B: b"again", C: b"new"})
    assert [entry.tid for entry in demo.undo_log()] == [second]
    assert [line["size"] for line in demo.undoLog(0, 5)] == [len(b"changedagainnew")]
    txn = Txn()
    demo.tpc_begin(txn)
    assert sorted(demo.undo(demo.undoLog(0, 1)[0]["id"], txn)[1]) == [A, B, C]
    demo.tpc_vote(txn)
    undone = demo.tpc_finish(txn)
    assert demo.load(A) == (b"a", undone)
    for oid in (B, C):
        with pytest.raises(POSKeyError):
            demo.load(oid)
    assert demo.load_before(A, second) == (b"a", first, second)


def test_objects_and_last_transactions_are_walked_over_both() -> None:
    base = MappingStorage()
    tids = [commit(base, {A: b"a"}), commit(base, {C: b"c"})]
    demo = DemoStorage(base=base)
    assert [tid for tid, _ in demo.lastInvalidations(5)] == tids
    tids += [commit(demo, {B: b"b"}), write(demo, {A: None}), commit(demo, {D: b"d"})]
    for count in range(7):
        assert [tid for tid, _ in demo.lastInvalidations(count)] == (tids[-count:] if count else [])
    walked: list[tuple[Oid, bytes]] = []
    following: Oid | None = ZERO_TID
    while following is not None:
        oid, _, data, following = demo.record_iternext(following)
        walked.append((oid, data))
    assert walked == [(B, b"b"), (C, b"c"), (D, b"d")]
    with pytest.raises(StorageError, match="cannot be walked"):
        DemoStorage(base=Foreign(base)).record_iternext()


def test_new_oids_are_above_those_of_base_and_changes(tmp_path: Path) -> None:
    base = MappingStorage()
    commit(base, {pack_id(70): b"x"})
    demo = DemoStorage(base=base, changes=FileStorage(tmp_path / "changes.fs"), close_base_on_close=False)
    assert demo.new_oids(2) == [pack_id(71), pack_id(72)]
    commit(demo, {pack_id(90): b"y"})
    assert demo.new_oid() == pack_id(91)
    demo.close()
    demo = DemoStorage(base=base, changes=FileStorage(tmp_path / "changes.fs"))
    assert demo.new_oid() == pack_id(91)
    demo.close()


def test_over_a_base_that_does_not_tell_its_oids_they_start_far_off(tmp_path: Path) -> None:
    base = MappingStorage()
    first = commit(base, {A: b"a"})
    demo = DemoStorage(base=Foreign(base), changes=FileStorage(tmp_path / "changes.fs"), close_base_on_close=False)
    oid = demo.new_oid()
    assert unpack_id(oid) > 2**61
    tid = commit(demo, {oid: b"new", A: b"changed"}, {A: first})
    assert demo.current_tid(B) is None
    assert len(demo) == 2
    assert [transaction.tid for transaction in demo.transactions(tid)] == [tid]
    with pytest.raises(StorageError, match="cannot be walked"):
        demo.transactions()
    demo.close()
    again = DemoStorage(base=Foreign(base), changes=FileStorage(tmp_path / "changes.fs"))
    assert again.new_oid() == successor(oid)
    again.close()


def test_a_load_that_has_to_look_for_the_first_change_says_so_beforehand() -> None:
    base = MappingStorage()
    first = commit(base, {A: b"base"})
    demo = DemoStorage(base=base)
    second = commit(demo, {A: b"changes"})
    commit(demo, {A: b"again"})
    with pytest.raises(BlockingIOError):
        demo.load_cached(A, second)
    assert demo.load_before(A, second) == demo.load_cached(A, second) == (b"base", first, second)


def test_push_and_pop() -> None:
    lower = DemoStorage(base=MappingStorage())
    first = commit(lower, {A: b"lower"})
    upper = lower.push()
    second = commit(upper, {A: b"upper"})
    assert upper.load(A) == (b"upper", second)
    assert upper.load_before(A, second) == (b"lower", first, second)
    assert upper.pop() is lower
    with pytest.raises(StorageClosedError):
        upper.load(A)
    assert lower.load(A) == (b"lower", first)
    changes = MappingStorage()
    again = lower.push(changes)
    assert again.changes is changes
    again.close()
    commit(lower, {A: b"more"})
    lower.close()


def test_closing_closes_what_it_is_told_to() -> None:
    for close_base in (None, True, False):
        for close_changes in (None, True, False):
            base, changes = MappingStorage(), MappingStorage()
            demo = DemoStorage("name", base, changes, close_base, close_changes)
            assert demo.name() == "name"
            demo.close()
            demo.close()
            assert _is_closed(base) == (close_base is not False)
            assert _is_closed(changes) == (close_changes is not False)
            with pytest.raises(StorageClosedError):
                demo.load(A)
            with pytest.raises(StorageClosedError):
                commit(demo, {})


def test_over_read_only_changes_it_is_read_only(tmp_path: Path) -> None:
    FileStorage(tmp_path / "changes.fs").close()
    demo = DemoStorage(changes=FileStorage(tmp_path / "changes.fs", read_only=True))
    assert demo.read_only()
    for write_something in (lambda: commit(demo, {}), lambda: demo.write_group([]), demo.new_oid):
        with pytest.raises(ReadOnlyError):
            write_something()
    demo.close()


def test_a_group_of_another_storage_is_not_published() -> None:
    with pytest.raises(TypeError, match="not written by a DemoStorage"):
        DemoStorage().publish(MappingStorage().write_group([]))


def _is_closed(storage: MappingStorage) -> bool:
    try:
        storage.current_tid(A)
    except StorageClosedError:
        return True
    return False


records = st.one_of(st.none(), st.binary(min_size=1, max_size=3))
steps = st.lists(
    st.one_of(st.just("push"), st.just("reopen"), st.dictionaries(st.sampled_from(OIDS), records, max_size=3)),
    max_size=12,
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_layers_answer_as_one_storage_does(steps: list[str | dict[Oid, bytes | None]]) -> None:
    """Deletions, several borders, openings: against one MappingStorage that was told the same."""
    plain, demo = MappingStorage(), DemoStorage()
    tids = [ZERO_TID]
    for step in steps:
        if step == "push":
            demo = demo.push()
        elif step == "reopen":
            assert isinstance(demo.changes, MappingStorage)
            demo = DemoStorage(base=demo.base, changes=demo.changes)
        elif isinstance(step, dict):
            tids.append(write(demo, step))
            write(plain, step, tids[-1])
    assert demo.last_tid() == plain.last_tid() == tids[-1]
    assert _walked(demo) == _walked(plain)
    for oid in OIDS:
        assert demo.current_tid(oid) == plain.current_tid(oid)
        assert _called(demo.revisions, oid, 99) == _called(plain.revisions, oid, 99)
        for tid in tids:
            assert _called(demo.load_serial, oid, tid) == _called(plain.load_serial, oid, tid)
            for before in (tid, successor(tid), MAX_TID):
                expected = _called(plain.load_before, oid, before)
                assert _called(demo.load_cached, oid, before) in (expected, BlockingIOError)
                assert _called(demo.load_before, oid, before) == expected
                assert _called(demo.load_cached, oid, before) == expected


def _called(call: object, *args: object) -> object:
    assert callable(call)
    try:
        return call(*args)
    except (POSKeyError, BlockingIOError) as error:
        return type(error)


def _walked(storage: LocalStorage) -> list[tuple[Tid, list[object]]]:
    return [(transaction.tid, list(transaction.records)) for transaction in storage.transactions()]
