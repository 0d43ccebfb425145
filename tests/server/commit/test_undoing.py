"""What takes transactions back on the server."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.storages import commit
from zeo_core.errors import StorageError, UndoError
from zeo_core.ids import pack_id
from zeo_core.transaction import ObjectWrite
from zeo_server.commit.undoing import RepeatedBlob, repeated_blobs, undo_writes
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)
BLOB = b"\x80\x03czodb_blob\nq\x00."


def test_several_one_on_top_of_the_other() -> None:
    storage = MappingStorage()
    tids = [commit(storage, {A: b"%d" % number, B: b"b%d" % (number // 2)}) for number in range(4)]
    writes = undo_writes(storage, [tids[3], tids[2]], {})
    assert (writes[A].data, writes[A].serial) == (b"1", tids[3])
    assert writes[B].data == b"b0"
    with pytest.raises(UndoError):
        undo_writes(storage, [tids[2]], {A: ObjectWrite(A, tids[3], b"staged")})


def test_a_storage_without_blobs_repeats_none() -> None:
    assert repeated_blobs(MappingStorage(), {A: ObjectWrite(A, pack_id(1), b"ZODB.blob", pack_id(1))}) == {}


def test_a_repeated_blob_is_a_copy(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs", blob_dir=tmp_path / "blobs")) as storage:
        assert isinstance(storage, BlobFileStorage)
        source = tmp_path / "source"
        source.write_bytes(b"contents")
        txn = type("Txn", (), {"user": "", "description": "", "extension": {}})()
        storage.tpc_begin(txn)
        storage.storeBlob(A, bytes(8), BLOB, str(source), "", txn)
        storage.tpc_vote(txn)
        tid = storage.tpc_finish(txn)
        repeated = RepeatedBlob(storage, A, tid)
        path = repeated.complete()
        assert Path(path).read_bytes() == b"contents"
        assert os.path.dirname(path) == os.path.normpath(storage.temporaryDirectory())
        repeated.discard()
        assert not os.path.exists(path)
        repeated.discard()
        with pytest.raises(StorageError):
            RepeatedBlob(storage, B, tid).complete()
