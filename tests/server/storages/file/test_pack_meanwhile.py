"""What is committed during a pack by other ways than a plain store: undos, deletions, restored transactions, blobs."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from ZODB.scripts import fstest

from tests.server.storages.file import test_blob_storage
from tests.server.storages.file.graphs import commit, node
from tests.server.storages.file.test_blob_storage import begun, finish, opened
from tests.server.storages.file.test_pack import time_of
from zeo_core.errors import POSKeyError, UndoError
from zeo_core.ids import MAX_TID, Tid, pack_id, successor, unpack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage

ROOT, A, B, C, BLOB = (pack_id(number) for number in range(5))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[BlobFileStorage]:
    with closing(opened(tmp_path)) as storage:
        yield storage
    fstest.main([str(tmp_path / "Data.fs")])


@pytest.fixture(params=["scan", "mark", "copy"])
def phase(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def filled(storage: BlobFileStorage) -> list[Tid]:
    """Commit some revisions and a blob; the last of them is later than the time up to which is packed."""
    tids = [commit(storage, {0: node(1, 2, 4), 1: node(3, text="a0"), 2: node(text="b0"), 3: node(text="c0")})]
    tids.append(test_blob_storage.commit(storage, b"blob 1", BLOB))
    tids.append(test_blob_storage.commit(storage, b"blob 2", BLOB, tids[1]))
    tids.append(commit(storage, {1: node(text="a3, c is out of use")}))
    tids.append(commit(storage, {2: node(text="b4")}))
    return tids


def pack_and(storage: FileStorage, until: Tid, phase: str, act: Callable[[], Tid]) -> Tid:
    """Pack, and act at the first step of a phase; return what that gave."""
    given: list[Tid] = []
    for step in storage.pack_steps(time_of(until)):
        if step.phase == phase and not given:
            given.append(act())
    return given[0]


def undo(storage: FileStorage, tid: Tid) -> Tid:
    transaction = begun(storage)
    try:
        storage.undo(tid, transaction)
        return finish(storage, transaction)
    finally:
        storage.tpc_abort(transaction)


def test_an_undo_of_what_is_being_packed(storage: BlobFileStorage, phase: str) -> None:
    """It repeats a record from before the boundary, and with it an object that was out of use is referred to again."""
    tids = filled(storage)
    tid = pack_and(storage, tids[3], phase, lambda: undo(storage, tids[3]))
    assert storage.load(A) == (node(3, text="a0"), tid)
    assert storage.load_before(A, tid) == (node(text="a3, c is out of use"), tids[3], tid)
    assert storage.load(C)[0] == node(text="c0")
    with pytest.raises(UndoError):
        undo(storage, tids[3])
    assert undo(storage, tid) == storage.load(A)[1]
    assert storage.load(A)[0] == node(text="a3, c is out of use")


def test_an_undo_of_what_came_later(storage: BlobFileStorage, phase: str) -> None:
    tids = filled(storage)
    tid = pack_and(storage, tids[3], phase, lambda: undo(storage, tids[4]))
    assert storage.load(B) == (node(text="b0"), tid)
    assert storage.load_before(B, tid) == (node(text="b4"), tids[4], tid)
    assert storage.load_before(B, tids[4]) == (node(text="b0"), tids[0], tids[4])
    with pytest.raises(POSKeyError):
        storage.load(C)


def test_a_deletion(storage: BlobFileStorage, phase: str) -> None:
    tids = filled(storage)
    # what is to be deleted must not be referred to, or the pack says so
    commit(storage, {0: node(1, 4)})

    def delete() -> Tid:
        transaction = begun(storage)
        storage.deleteObject(B, tids[4], transaction)
        return finish(storage, transaction)

    tid = pack_and(storage, tids[3], phase, delete)
    with pytest.raises(POSKeyError):
        storage.load(B)
    assert storage.current_tid(B) == tid
    assert storage.load_before(B, tid) == (node(text="b4"), tids[4], tid)
    undo(storage, tid)
    assert storage.load(B)[0] == node(text="b4")


def test_a_restored_transaction(storage: BlobFileStorage, phase: str) -> None:
    """It repeats, as it did where it comes from, a record that is being packed away."""
    tids = filled(storage)
    data = storage.load_serial(A, tids[0])

    def restore() -> Tid:
        tid = pack_id(unpack_id(storage.last_tid()) + 1000)
        transaction = begun_with(storage, tid)
        storage.restore(A, tid, data, "", tids[0], transaction)
        assert finish(storage, transaction) == tid
        return tid

    tid = pack_and(storage, tids[3], phase, restore)
    assert storage.load(A) == (data, tid)
    assert storage.load(C)[0] == node(text="c0")
    walked = [record for t in storage.transactions(tid) for record in t.records]
    assert [(record.oid, record.data) for record in walked] == [(A, data)]


def begun_with(storage: FileStorage, tid: Tid) -> object:
    transaction = SimpleNamespace(user=b"", description=b"", extension={})
    storage.tpc_begin(transaction, tid)
    return transaction


def test_a_blob(storage: BlobFileStorage, phase: str) -> None:
    tids = filled(storage)
    tid = pack_and(storage, tids[3], phase, lambda: test_blob_storage.commit(storage, b"blob 3", BLOB, tids[2]))
    assert test_blob_storage.content(storage, tid, BLOB) == b"blob 3"
    assert test_blob_storage.content(storage, tids[2], BLOB) == b"blob 2"
    with pytest.raises(POSKeyError):
        storage.loadBlob(BLOB, tids[1])
    assert test_blob_storage.files(storage) == [(BLOB, tids[2]), (BLOB, tid)]


def test_an_undo_of_a_blob(storage: BlobFileStorage, phase: str) -> None:
    """The file that it repeats goes with the pack; it has a name of its own by then."""
    tids = filled(storage)
    tid = pack_and(storage, tids[3], phase, lambda: undo(storage, tids[2]))
    assert test_blob_storage.content(storage, tid, BLOB) == b"blob 1"
    assert test_blob_storage.files(storage) == [(BLOB, tids[2]), (BLOB, tid)]
    revision = storage.load_before(BLOB, MAX_TID)
    assert revision is not None
    assert revision.tid == tid
    assert storage.load_before(BLOB, successor(tids[2])) is not None


def test_a_vote_before_and_a_finish_after(storage: BlobFileStorage) -> None:
    """A transaction that repeats what is packed away between its vote and its finish has it all the same."""
    tids = filled(storage)
    transaction = begun(storage)
    storage.undo(tids[2], transaction)
    storage.undo(tids[4], transaction)
    storage.tpc_vote(transaction)
    storage.pack(time_of(tids[4]))
    tid = storage.tpc_finish(transaction)
    assert test_blob_storage.content(storage, tid, BLOB) == b"blob 1"
    assert storage.load(B) == (node(text="b0"), tid)


def test_an_undo_whose_references_are_packed_away_before_its_finish_is_refused(storage: BlobFileStorage) -> None:
    tids = filled(storage)
    transaction = begun(storage)
    storage.undo(tids[3], transaction)  # back to the state of A that refers to C
    storage.tpc_vote(transaction)
    storage.pack(time_of(tids[4]))
    with pytest.raises(POSKeyError):
        storage.load(C)
    with pytest.raises(UndoError, match="0x03, which was packed away since the undo was voted"):
        storage.tpc_finish(transaction)
    assert storage.load(A) == (node(text="a3, c is out of use"), tids[3])
    assert commit(storage, {1: node(text="a5")})
