"""FileStorage with blobs: they come and go with their transactions."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ZODB.blob
from ZODB.serialize import ObjectWriter

from zeo_core.errors import ConflictError, POSKeyError, ReadOnlyError, StorageError, UndoError
from zeo_core.ids import ROOT_OID, ZERO_TID, Oid, Tid, pack_id
from zeo_core.storage import HasBlobs
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage, records_from
from zeo_server.storages.file.reader import Descriptor, Reader

RECORD: bytes = ObjectWriter().serialize(ZODB.blob.Blob())
OID, OTHER = pack_id(1), pack_id(2)


def opened(directory: Path, **options: Any) -> BlobFileStorage:
    storage = FileStorage(directory / "Data.fs", blob_dir=directory / "blobs", **options)
    assert isinstance(storage, BlobFileStorage)
    return storage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[BlobFileStorage]:
    with closing(opened(tmp_path)) as storage:
        yield storage


def begun(storage: FileStorage) -> Any:
    transaction = SimpleNamespace(user=b"", description=b"", extension={})
    storage.tpc_begin(transaction)
    return transaction


def uncommitted(storage: BlobFileStorage, data: bytes) -> str:
    path = Path(storage.temporaryDirectory(), f"BUC{time.monotonic_ns()}")
    path.write_bytes(data)
    return str(path)


def finish(storage: FileStorage, transaction: Any) -> Tid:
    storage.tpc_vote(transaction)
    return storage.tpc_finish(transaction)


def commit(storage: BlobFileStorage, data: bytes, oid: Oid = OID, serial: Tid = ZERO_TID) -> Tid:
    transaction = begun(storage)
    storage.storeBlob(oid, serial, RECORD, uncommitted(storage, data), "", transaction)
    return finish(storage, transaction)


def undo(storage: BlobFileStorage, tid: Tid) -> Tid:
    transaction = begun(storage)
    try:
        storage.undo(tid, transaction)
        return finish(storage, transaction)
    finally:
        storage.tpc_abort(transaction)


def content(storage: BlobFileStorage, tid: Tid, oid: Oid = OID) -> bytes:
    return Path(storage.loadBlob(oid, tid)).read_bytes()


def files(storage: BlobFileStorage) -> list[tuple[Oid, Tid]]:
    return [(oid, tid) for oid, tid, _path in storage.fshelper.files()]


def test_only_a_storage_with_a_directory_has_blobs(storage: BlobFileStorage, tmp_path: Path) -> None:
    assert isinstance(storage, HasBlobs)
    with closing(FileStorage(tmp_path / "plain.fs")) as plain:
        assert type(plain) is FileStorage
        assert not isinstance(plain, HasBlobs)


def test_a_committed_blob_is_there_and_its_staging_gone(storage: BlobFileStorage) -> None:
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    assert content(storage, first) == b"first"
    assert content(storage, second) == b"second"
    with storage.openCommittedBlobFile(OID, first) as file:
        assert file.read() == b"first"
    assert os.listdir(storage.temporaryDirectory()) == []


def test_an_aborted_blob_leaves_nothing(storage: BlobFileStorage) -> None:
    for vote in (False, True):
        transaction = begun(storage)
        storage.storeBlob(OID, ZERO_TID, RECORD, uncommitted(storage, b"data"), "", transaction)
        if vote:
            storage.tpc_vote(transaction)
        storage.tpc_abort(transaction)
        assert files(storage) == []
        assert os.listdir(storage.temporaryDirectory()) == []


def test_a_conflict_leaves_the_file_with_its_owner(storage: BlobFileStorage) -> None:
    commit(storage, b"first")
    transaction = begun(storage)
    path = uncommitted(storage, b"second")
    with pytest.raises(ConflictError):
        storage.storeBlob(OID, ZERO_TID, RECORD, path, "", transaction)
    storage.tpc_abort(transaction)
    assert Path(path).read_bytes() == b"second"


def test_a_blob_stored_twice_counts_as_last_stored(storage: BlobFileStorage) -> None:
    transaction = begun(storage)
    for data in (b"earlier", b"later"):
        storage.storeBlob(OID, ZERO_TID, RECORD, uncommitted(storage, data), "", transaction)
    assert content(storage, finish(storage, transaction)) == b"later"


def test_a_failed_group_can_be_written_again(storage: BlobFileStorage) -> None:
    staging = storage.stage_blobs()
    paths = [staging.take(uncommitted(storage, data)) for data in (b"1", b"2")]
    staging.sync()
    in_the_way = Path(storage.fshelper.getPathForOID(OTHER))
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    group = [
        PreparedTransaction(TransactionMetadata(), (ObjectWrite(oid, ZERO_TID, RECORD, None, path),))
        for oid, path in zip((OID, OTHER), paths, strict=True)
    ]
    size = os.path.getsize(storage.name())
    with pytest.raises(StorageError, match="0x02"):
        storage.write_group(group)
    assert files(storage) == []
    assert os.path.getsize(storage.name()) == size
    written = storage.write_group(group[:1])
    storage.publish(written)
    staging.discard()
    assert content(storage, written.tids[0]) == b"1"


def test_undo_brings_the_earlier_blob_back(storage: BlobFileStorage) -> None:
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    undone = undo(storage, second)
    assert content(storage, undone) == b"first"
    assert os.path.samefile(storage.loadBlob(OID, first), storage.loadBlob(OID, undone))
    redone = undo(storage, undone)
    assert content(storage, redone) == b"second"


def test_undo_of_a_change_that_was_built_on_is_refused(storage: BlobFileStorage) -> None:
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    commit(storage, b"third", serial=second)
    with pytest.raises(UndoError):
        undo(storage, second)
    assert len(files(storage)) == 3


def test_changes_are_undone_one_after_the_other_in_one_transaction(storage: BlobFileStorage) -> None:
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    third = commit(storage, b"third", serial=second)
    transaction = begun(storage)
    storage.undo(third, transaction)
    storage.undo(second, transaction)
    assert content(storage, finish(storage, transaction)) == b"first"


def test_undo_over_a_blob_stored_in_the_same_transaction_is_refused(storage: BlobFileStorage) -> None:
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    transaction = begun(storage)
    storage.storeBlob(OID, second, RECORD, uncommitted(storage, b"third"), "", transaction)
    with pytest.raises(UndoError):
        storage.undo(second, transaction)
    storage.tpc_abort(transaction)


def test_undo_of_a_creation_and_its_undo(storage: BlobFileStorage) -> None:
    undone = undo(storage, commit(storage, b"first"))
    with pytest.raises(POSKeyError):
        storage.load(OID)
    assert content(storage, undo(storage, undone)) == b"first"


def test_pack_removes_blobs_with_their_records(storage: BlobFileStorage) -> None:
    transaction = begun(storage)
    storage.store(ROOT_OID, ZERO_TID, RECORD, "", transaction)
    finish(storage, transaction)
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    commit(storage, b"other", oid=OTHER)
    phases = [step.phase for step in storage.pack_steps(time.time() + 1, gc=False, keep_old=False)]
    assert phases[-1] == "blobs"
    assert sorted(oid for oid, _tid in files(storage)) == [OID, OTHER]
    assert content(storage, second) == b"second"
    # Nothing refers to these objects; a pack needs something that came after the last one.
    transaction = begun(storage)
    storage.store(ROOT_OID, storage.getTid(ROOT_OID), RECORD, "", transaction)
    finish(storage, transaction)
    list(storage.pack_steps(time.time() + 1, gc=True, keep_old=True))
    assert files(storage) == []
    assert Path(f"{storage.blob_dir}.old").is_dir()


def test_a_reopened_storage_has_its_blobs(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as storage:
        tid = commit(storage, b"data")
    with closing(opened(tmp_path, read_only=True)) as storage:
        assert content(storage, tid) == b"data"
        with pytest.raises(ReadOnlyError):
            storage.stage_blobs()


def test_a_missing_file_whose_blobs_are_there_is_not_made_anew(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as storage:
        commit(storage, b"data")
    for path in tmp_path.glob("Data.fs*"):
        path.unlink()
    with pytest.raises(StorageError, match="is missing, yet there are blobs in"):
        opened(tmp_path)
    opened(tmp_path, create=True).close()


def test_a_locked_file_keeps_the_staging_of_its_owner(storage: BlobFileStorage, tmp_path: Path) -> None:
    transaction = begun(storage)
    storage.storeBlob(OID, ZERO_TID, RECORD, uncommitted(storage, b"data"), "", transaction)
    with pytest.raises(StorageError):
        opened(tmp_path)
    assert content(storage, finish(storage, transaction)) == b"data"


def test_blobs_of_transactions_that_are_cut_off_go(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as storage:
        first = commit(storage, b"first")
        size = storage.byte_size()
        second = commit(storage, b"second", serial=first)
    (tmp_path / "Data.fs.index").unlink()
    with open(tmp_path / "Data.fs", "r+b") as file:
        file.seek(size + 16)
        file.write(b"c")
    reader = Reader(str(tmp_path / "Data.fs"), Descriptor(str(tmp_path / "Data.fs"), os.O_RDONLY))
    assert records_from(reader, size) == [(OID, second)]
    with closing(opened(tmp_path, read_only=True)) as storage:
        assert files(storage) == [(OID, first), (OID, second)]
    with closing(opened(tmp_path)) as storage:
        assert files(storage) == [(OID, first)]


def test_a_torn_transaction_names_no_records(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as storage:
        start = storage.byte_size()
        tid = commit(storage, b"first")
        end = storage.byte_size()
    whole = (tmp_path / "Data.fs").read_bytes()
    torn = tmp_path / "torn.fs"
    for size in range(start, end + 1):
        torn.write_bytes(whole[:size])
        reader = Reader(str(torn), Descriptor(str(torn), os.O_RDONLY))
        assert records_from(reader, start) == ([(OID, tid)] if size == end else [])


def test_a_copy_has_the_blobs(storage: BlobFileStorage, tmp_path: Path) -> None:
    first = commit(storage, b"first")
    second = commit(storage, b"second", serial=first)
    (tmp_path / "copy").mkdir()
    with closing(opened(tmp_path / "copy")) as copy:
        copy.copyTransactionsFrom(storage)
        assert [content(copy, tid) for tid in (first, second)] == [b"first", b"second"]
        assert files(copy) == files(storage)
