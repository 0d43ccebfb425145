"""Packing, on every storage that can: what goes, what stays, and that commits go on."""

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.storages import KINDS, Kind, Txn, commit
from tests.server.storages.file.graphs import node
from zeo_core.errors import POSKeyError, RecordFormatError, StorageError, UndoError
from zeo_core.ids import MAX_TID, Oid, Tid, pack_id, successor, tid_to_time
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.logged import LoggedStorage
from zeo_server.storages.mapping import MappingStorage

FUTURE_S = time.time() + 3600
ROOT, A, B, C = (pack_id(number) for number in range(4))


@pytest.fixture(params=[kind for kind in KINDS if kind.packs], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def logged(storage: ZODBStorage) -> LoggedStorage:
    assert isinstance(storage, LoggedStorage)
    return storage


def time_of(tid: Tid) -> float:
    """Return a time just after a transaction's; as a float it would often be just before."""
    return tid_to_time(tid) + 1e-6


def filled(storage: LoggedStorage) -> list[Tid]:
    """Commit three revisions of A, out of use from the second transaction on, and two of B."""
    return [
        commit(storage, {ROOT: node(1, 2), A: node(text="a0"), B: node(text="b0")}),
        commit(storage, {ROOT: node(2), A: node(text="a1")}),
        commit(storage, {B: node(text="b2")}),
        commit(storage, {A: node(text="a3")}),
    ]


def test_revisions_that_were_replaced_go(kind: Kind, tmp_path: Path) -> None:
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        tids = filled(storage)
        before = {oid: storage.load_before(oid, successor(tids[2])) for oid in (ROOT, A, B)}
        storage.pack(time_of(tids[2]), None, False)
        assert {oid: storage.load_before(oid, successor(tids[2])) for oid in (ROOT, A, B)} == before
        assert storage.load(A) == (node(text="a3"), tids[3])
        assert storage.load_before(B, tids[2]) is None
        with pytest.raises(POSKeyError):
            storage.load_serial(B, tids[0])
        assert [t.status for t in storage.transactions()] == [b"p", b"p", b" "]
        assert [entry.tid for entry in storage.undo_log()] == [tids[3]]
        with pytest.raises(UndoError):
            storage.undo_writes(tids[2], {})
        assert storage.last_tid() == tids[3]


def test_what_came_later_can_be_undone(kind: Kind, tmp_path: Path) -> None:
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        tids = filled(storage)
        storage.pack(time_of(tids[2]), gc=False)
        txn = Txn()
        storage.tpc_begin(txn)
        assert storage.undo(tids[3], txn) == (None, [A])
        storage.tpc_vote(txn)
        assert storage.load(A) == (node(text="a3"), tids[3])
        tid = storage.tpc_finish(txn)
        assert storage.load(A) == (node(text="a1"), tid)


@pytest.mark.parametrize("name", ["mapping", "file", "demo"])
def test_objects_out_of_use_go_and_what_is_used_again_stays(name: str, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        commit(storage, {ROOT: node(1), A: node(3), C: node(text="precious"), B: node()})
        until = commit(storage, {ROOT: node()})
        commit(storage, {ROOT: node(1)})
        storage.pack(time_of(until))  # A and C were out of use then, and are referred to again (lesson B31)
        assert storage.load(C)[0] == node(text="precious")
        with pytest.raises(POSKeyError):
            storage.load(B)
        assert storage.current_tid(B) is None
        assert len(storage) == 3
        assert storage.new_oid() > C


@pytest.mark.parametrize("name", ["mapping", "file"])
@pytest.mark.parametrize(
    ("record", "error"), [(node(99), StorageError), (b"no pickle", RecordFormatError)], ids=["dangling", "broken"]
)
def test_what_cannot_be_followed_stops_it(name: str, tmp_path: Path, record: bytes, error: type[Exception]) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        tids = [commit(storage, {ROOT: node(1), A: record}), commit(storage, {ROOT: node(1)})]
        with pytest.raises(error, match="0x01"):
            storage.pack(FUTURE_S)
        assert [t.tid for t in storage.transactions()] == tids
        storage.pack(FUTURE_S, gc=False)
        assert storage.load(A)[0] == record


def test_an_earlier_time_than_the_last_packs_does_nothing(kind: Kind, tmp_path: Path) -> None:
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        storage.pack(FUTURE_S, gc=False)  # there is nothing yet
        tids = filled(storage)
        storage.pack(time_of(tids[2]), gc=False)
        left = [(t.tid, list(t.records)) for t in storage.transactions()]
        for until_s in (time_of(tids[2]), time_of(tids[0]), 0.0):
            storage.pack(until_s, gc=False)
            assert [(t.tid, list(t.records)) for t in storage.transactions()] == left
        with pytest.raises(StorageError, match="time"):
            storage.pack(float("nan"))


def test_commits_go_on_at_every_step(kind: Kind, tmp_path: Path) -> None:
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        tids = filled(storage)
        committed: dict[Oid, tuple[bytes, Tid]] = {}
        for step, _ in enumerate(storage.pack_steps(time_of(tids[2]), gc=False)):
            oid, data = pack_id(10 + step), node(text=str(step))
            committed[oid] = data, commit(storage, {oid: data})
            committed[A] = data, commit(storage, {A: data})
        assert committed
        assert {oid: storage.load(oid) for oid in committed} == committed
        assert storage.load_before(B, tids[2]) is None
        assert storage.last_tid() == committed[A][1]
        assert len(list(storage.transactions(successor(tids[3])))) == 2 * (len(committed) - 1)


def test_given_up_it_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        tids = filled(storage)
        steps = storage.pack_steps(FUTURE_S, gc=False)
        next(steps)
        with pytest.raises(StorageError, match="already"):
            storage.pack(FUTURE_S, gc=False)
        assert isinstance(steps, Generator)
        steps.close()
        assert [t.tid for t in storage.transactions()] == tids
        assert [t.status for t in storage.transactions()] == [b" "] * 4
        storage.pack(FUTURE_S, gc=False)
        assert storage.load_before(A, tids[3]) is None


def test_a_deletion_that_is_current_stays_unless_garbage_is_collected(kind: Kind, tmp_path: Path) -> None:
    with kind.open(tmp_path) as opened:
        storage = logged(opened)
        filled(storage)
        txn = Txn()
        storage.tpc_begin(txn)
        storage.deleteObject(A, storage.load(A)[1], txn)
        storage.tpc_vote(txn)
        tid = storage.tpc_finish(txn)
        storage.pack(FUTURE_S, gc=False)
        assert storage.current_tid(A) == tid
        with pytest.raises(POSKeyError):
            storage.load_before(A, MAX_TID)


def test_a_closed_storage_is_not_packed() -> None:
    for storage in (MappingStorage(), DemoStorage()):
        filled(storage)
        steps = storage.pack_steps(FUTURE_S, gc=False)
        next(steps)
        storage.close()
        with pytest.raises(StorageError, match="closed"):
            list(steps)
        with pytest.raises(StorageError, match="closed"):
            storage.pack(FUTURE_S)


@pytest.mark.parametrize("in_files", [False, True])
def test_a_demo_keeps_what_hides_its_base(tmp_path: Path, in_files: bool) -> None:
    """Its mark stays, also for the next opening, and so do its deletions; what the base has shows as it did."""
    base = MappingStorage()
    commit(base, {ROOT: node(1, 2), A: node(text="base a"), B: node(text="base b"), C: node(text="base c")})

    def opened(changes: FileStorage | MappingStorage) -> DemoStorage:
        return DemoStorage(base=base, changes=changes, close_base_on_close=False)

    changes = FileStorage(tmp_path / "changes.fs") if in_files else MappingStorage()
    demo = opened(changes)
    first = commit(demo, {A: node(text="a1")})
    second = commit(demo, {A: node(text="a2")})
    txn = Txn()
    demo.tpc_begin(txn)
    demo.deleteObject(B, demo.load(B)[1], txn)
    demo.tpc_vote(txn)
    demo.tpc_finish(txn)
    with pytest.raises(StorageError, match="garbage"):
        demo.pack(FUTURE_S, gc=True)
    base_tid = base.last_tid()
    assert demo.load_before(A, first) == (node(text="base a"), base_tid, first)
    demo.pack(FUTURE_S)
    commit(base, {C: node(text="not to be seen")})  # the base goes on: the mark parts what is seen from what is not
    later = commit(demo, {C: node(text="c4")})
    for _ in range(2):
        assert demo.load(A) == (node(text="a2"), second)
        assert demo.load_before(A, second) is None  # a1 is gone, and the base's state was another
        assert demo.load_before(C, later) == (node(text="base c"), base_tid, later)
        revision = demo.load_before(A, base_tid[:-1] + bytes([base_tid[-1] + 1]))
        assert revision is not None
        assert revision.data == node(text="base a")
        assert revision.end_tid is not None
        assert base_tid < revision.end_tid < first
        with pytest.raises(POSKeyError):
            demo.load(B)
        if in_files:
            demo.close()
            demo = opened(FileStorage(tmp_path / "changes.fs"))
    with closing(demo):
        assert [t.status for t in demo.transactions(first)][-1] == b" "
