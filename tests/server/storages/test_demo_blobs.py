"""Blobs on both sides of a demo's border."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
import ZODB.blob
from ZODB.interfaces import IBlobStorage
from ZODB.serialize import ObjectWriter

from tests.contract.storages import Txn
from zeo_core.errors import POSKeyError, StorageError, UndoError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.demo_blobs import BlobDemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage
from zeo_server.storages.mapping import MappingStorage

RECORD: bytes = ObjectWriter().serialize(ZODB.blob.Blob())
A, B = pack_id(1), pack_id(2)


def file_storage(directory: Path, name: str) -> BlobFileStorage:
    storage = FileStorage(directory / f"{name}.fs", blob_dir=directory / name)
    assert isinstance(storage, BlobFileStorage)
    return storage


def commit(storage: Any, oid: Oid, content: bytes) -> Tid:
    txn = Txn()
    storage.tpc_begin(txn)
    path = Path(storage.temporaryDirectory(), f"new{time.monotonic_ns()}")
    path.write_bytes(content)
    storage.storeBlob(oid, storage.current_tid(oid) or ZERO_TID, RECORD, str(path), "", txn)
    storage.tpc_vote(txn)
    tid: Tid = storage.tpc_finish(txn)
    return tid


def undo(storage: BlobDemoStorage) -> Tid:
    txn = Txn()
    storage.tpc_begin(txn)
    try:
        storage.undo(storage.undoLog(0, 1)[0]["id"], txn)
        storage.tpc_vote(txn)
        return storage.tpc_finish(txn)
    finally:
        storage.tpc_abort(txn)


def content(storage: BlobDemoStorage, oid: Oid, tid: Tid) -> bytes:
    with storage.openCommittedBlobFile(oid, tid) as file:
        found: bytes = file.read()
    assert Path(storage.loadBlob(oid, tid)).read_bytes() == found
    return found


@pytest.fixture
def base(tmp_path: Path) -> Iterator[BlobFileStorage]:
    with closing(file_storage(tmp_path, "base")) as storage:
        yield storage


@pytest.fixture(params=["temporary", "kept"])
def demo(request: pytest.FixtureRequest, base: BlobFileStorage, tmp_path: Path) -> Iterator[BlobDemoStorage]:
    commit(base, A, b"base")
    changes = file_storage(tmp_path, "changes") if request.param == "kept" else None
    with closing(DemoStorage(base=base, changes=changes, close_base_on_close=False)) as storage:
        assert isinstance(storage, BlobDemoStorage)
        yield storage


def test_blobs_of_both_sides(demo: BlobDemoStorage, base: BlobFileStorage, tmp_path: Path) -> None:
    first = base.last_tid()
    files = sorted(Path(base.blob_dir).rglob("*"))
    second, third = commit(demo, A, b"changed"), commit(demo, B, b"new")
    assert [content(demo, A, tid) for tid in (first, second)] == [b"base", b"changed"]
    assert content(demo, B, third) == b"new"
    for tid in (first, second, MAX_TID):
        with pytest.raises(POSKeyError):
            demo.loadBlob(B, tid)
    assert sorted(Path(base.blob_dir).rglob("*")) == files


def test_undoing_repeats_the_bases_blob(demo: BlobDemoStorage) -> None:
    commit(demo, A, b"changed")
    assert content(demo, A, undo(demo)) == b"base"
    assert content(demo, A, undo(demo)) == b"changed"


def test_a_blob_that_was_changed_later_is_not_undone(demo: BlobDemoStorage) -> None:
    commit(demo, A, b"changed")
    first = demo.undoLog(0, 1)[0]["id"]
    commit(demo, A, b"changed again")
    txn = Txn()
    demo.tpc_begin(txn)
    with pytest.raises(UndoError):
        demo.undo(first, txn)
    demo.tpc_abort(txn)


def test_an_aborted_blob_is_gone(demo: BlobDemoStorage) -> None:
    txn = Txn()
    demo.tpc_begin(txn)
    path = Path(demo.temporaryDirectory(), "new")
    path.write_bytes(b"new")
    demo.storeBlob(B, ZERO_TID, RECORD, str(path), "", txn)
    demo.tpc_vote(txn)
    demo.tpc_abort(txn)
    assert [name for name in os.listdir(demo.temporaryDirectory()) if not name.startswith(".")] == []


def test_a_temporary_directory_goes_with_the_storage(base: BlobFileStorage) -> None:
    for end in ("close", "pop"):
        demo = DemoStorage(base=base, close_base_on_close=False).push()
        assert isinstance(demo, BlobDemoStorage)
        commit(demo, A, b"x")
        directory = Path(demo.temporaryDirectory())
        assert directory.is_dir()
        getattr(demo, end)()
        assert not directory.parent.parent.exists()
        below = demo.base
        assert isinstance(below, BlobDemoStorage)
        below.close()


def test_a_copy_has_the_blobs(demo: BlobDemoStorage, base: BlobFileStorage) -> None:
    second = commit(demo, A, b"changed")
    copy = BlobDemoStorage()
    copy.copyTransactionsFrom(demo)
    assert [content(copy, A, tid) for tid in (base.last_tid(), second)] == [b"base", b"changed"]
    copy.close()


def test_changes_without_blobs_have_none(base: BlobFileStorage, tmp_path: Path) -> None:
    demo = DemoStorage(base=base, changes=MappingStorage(), close_base_on_close=False)
    assert not isinstance(demo, BlobDemoStorage)
    assert not IBlobStorage.providedBy(demo)
    with pytest.raises(StorageError, match="cannot take the blobs"):
        BlobDemoStorage(base=base, changes=MappingStorage())
    only_changes = DemoStorage(base=MappingStorage(), changes=file_storage(tmp_path, "changes"))
    assert isinstance(only_changes, BlobDemoStorage)
    with pytest.raises(POSKeyError):
        only_changes.loadBlob(A, ZERO_TID)
    only_changes.close()


def test_zodbs_blobs_on_it(demo: BlobDemoStorage) -> None:
    assert IBlobStorage.providedBy(demo)
    with closing(ZODB.DB(demo)) as db:
        with closing(db.open()) as connection:
            connection.root()["blob"] = ZODB.blob.Blob(b"one")
            transaction.commit()
            with connection.root()["blob"].open("w") as file:
                file.write(b"two")
            transaction.commit()
        with closing(db.open()) as connection, connection.root()["blob"].open("r") as file:
            assert file.read() == b"two"
