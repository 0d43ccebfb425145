"""A disk that is full, in every phase: nothing is lost, the error says what is wrong, and work goes on afterwards."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage

import zeo_client
from tests.contract.storages import Txn, commit
from tests.fixtures_small_disk import SmallDisk
from tests.fixtures_zeod import StartZeod
from zeo_core.errors import StorageError, StorageFullError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage

ROOT, A, B = pack_id(0), pack_id(1), pack_id(2)

# What ZODB.blob.Blob's records look like: what tells that a file belongs to them.
BLOB = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."
RECORD = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x01.\x80\x03}q\x02."


def records(path: Path) -> dict[tuple[Tid, Oid], bytes | None]:
    """What ZODB finds in the file."""
    storage = ZODBFileStorage(str(path), read_only=True)
    try:
        return {(txn.tid, record.oid): record.data for txn in storage.iterator() for record in txn}
    finally:
        storage.close()


@pytest.fixture
def disk(small_disk: Callable[[int], SmallDisk]) -> SmallDisk:
    return small_disk(48)


def test_a_vote_on_a_full_disk_is_refused_and_the_next_one_granted_when_there_is_room(disk: SmallDisk) -> None:
    path = disk.path / "Data.fs"
    storage = FileStorage(path)
    first = commit(storage, {A: b"first"})
    disk.fill()
    with pytest.raises(StorageFullError, match=r"Data\.fs: .* free"):
        commit(storage, {A: b"x" * (6 << 20)})
    assert storage.load(A) == (b"first", first)
    disk.free()
    second = commit(storage, {A: b"x" * (6 << 20)})
    storage.close()
    assert records(path) == {(first, A): b"first", (second, A): b"x" * (6 << 20)}


def test_a_voted_transaction_is_finished_though_the_disk_fills_up_meanwhile(disk: SmallDisk) -> None:
    path = disk.path / "Data.fs"
    storage = FileStorage(path)
    data = {pack_id(number): bytes([number]) * 20_000 for number in range(1, 200)}
    txn = Txn(description="x" * 60_000, user="y" * 60_000)
    storage.tpc_begin(txn)
    for oid, record in data.items():
        storage.store(oid, ZERO_TID, record, "", txn)
    storage.tpc_vote(txn)
    disk.fill()
    tid = storage.tpc_finish(txn)
    assert storage.load(A) == (data[A], tid)
    storage.close()
    assert records(path) == {(tid, oid): record for oid, record in data.items()}


def test_an_index_that_cannot_be_saved_costs_nothing_but_time(
    disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    path = disk.path / "Data.fs"
    storage = FileStorage(path)
    tids = [commit(storage, {pack_id(number): b"x"}) for number in range(1, 60)]
    storage.check_room(1)
    disk.fill()
    storage._index_saver.save()
    assert "the index could not be saved" in caplog.text
    last = commit(storage, {A: b"in the room that was taken"})
    storage.close()
    assert not (disk.path / "Data.fs.index_tmp").exists()
    storage = FileStorage(path)  # the disk is still full
    assert storage.load(A) == (b"in the room that was taken", last)
    assert storage.load(pack_id(59))[1] == tids[-1]
    storage.close()


def test_a_pack_without_room_leaves_everything_and_works_later(disk: SmallDisk) -> None:
    path = disk.path / "Data.fs"
    storage = FileStorage(path)
    commit(storage, {ROOT: RECORD})
    for number in range(8):
        last = commit(storage, {ROOT: RECORD, A: bytes([number]) * (1 << 20)})
    disk.fill(leave_bytes=600_000)
    before = path.read_bytes()
    with pytest.raises(StorageFullError, match=r"Data\.fs"):
        storage.pack(time.time() + 1, gc=False)
    assert path.read_bytes() == before
    assert not (disk.path / "Data.fs.pack").exists()
    commit(storage, {B: b"commits go on in the room that was taken"})
    disk.free()
    storage.pack(time.time() + 1, gc=False)
    assert storage.load(A) == (b"\7" * (1 << 20), last)
    storage.close()
    assert {oid for _, oid in records(path)} == {ROOT, A, B}


def test_a_blob_without_room_is_refused_and_leaves_no_file(disk: SmallDisk, tmp_path: Path) -> None:
    storage = BlobFileStorage(disk.path / "Data.fs", blob_dir=disk.path / "blobs")
    first = commit(storage, {A: b"first"})
    disk.fill(leave_bytes=2 << 20)
    source = tmp_path / "large"
    txn = Txn()
    storage.tpc_begin(txn)
    source.write_bytes(b"x" * (4 << 20))
    with pytest.raises(StorageError, match="No space left"):
        storage.storeBlob(B, ZERO_TID, BLOB, str(source), "", txn)
    storage.tpc_abort(txn)
    files = [name for _, _, names in os.walk(disk.path / "blobs") for name in names if not name.startswith(".")]
    assert files == []
    assert storage.load(A) == (b"first", first)
    disk.free()
    source.write_bytes(b"x" * (4 << 20))
    txn = Txn()
    storage.tpc_begin(txn)
    storage.storeBlob(B, ZERO_TID, BLOB, str(source), "", txn)
    storage.tpc_vote(txn)
    tid = storage.tpc_finish(txn)
    assert os.path.getsize(storage.loadBlob(B, tid)) == 4 << 20
    storage.close()


def test_a_server_on_a_full_disk_refuses_commits_and_goes_on_when_there_is_room(
    disk: SmallDisk, start_zeod: StartZeod, tmp_path: Path
) -> None:
    server = start_zeod("-f", str(disk.path / "Data.fs"))
    with zeo_client.open(server.url) as db:
        with db.transaction() as conn:
            conn.root()["text"] = "first"
        disk.fill()
        with pytest.raises(StorageFullError, match=r"Data\.fs: .* free"), db.transaction() as conn:
            conn.root()["text"] = "x" * (6 << 20)
        with db.transaction() as conn:
            assert conn.root()["text"] == "first"
        disk.free()
        with db.transaction() as conn:
            conn.root()["text"] = "afterwards"
    assert server.stop() == 0
    with zeo_client.open(disk.path / "Data.fs") as db, db.transaction() as conn:
        assert conn.root()["text"] == "afterwards"


def test_opening_on_a_full_disk_works_and_making_a_file_says_what_is_wrong(disk: SmallDisk) -> None:
    path = disk.path / "Data.fs"
    storage = FileStorage(path)
    tid = commit(storage, {A: b"first"})
    storage.close()
    (disk.path / "Data.fs.index").unlink()
    disk.fill(leave_bytes=8192)  # pages for the index and for the number in a lock file
    storage = FileStorage(path)
    assert storage.load(A) == (b"first", tid)
    with pytest.raises(StorageFullError):
        commit(storage, {A: b"second"})
    storage.close()
    with pytest.raises(StorageError, match=r"Other\.fs"):
        FileStorage(disk.path / "Other.fs")
