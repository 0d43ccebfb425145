"""Blobs of another server, served on."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.server.in_process import in_process
from tests.server.relay import commit
from zeo_client.storage import ClientStorage
from zeo_core.errors import StorageError
from zeo_core.ids import pack_id
from zeo_core.storage import HasBlobs
from zeo_server.storages.file import FileStorage
from zeo_server.storages.relayed_blobs import RelayedBlobStorage, RelayedStage

A = pack_id(1)


def test_a_blob_is_fetched_and_kept(tmp_path: Path) -> None:
    served = FileStorage(tmp_path / "Data.fs", blob_dir=tmp_path / "blobs")
    with in_process({"1": served}) as server:
        assert isinstance(server.address, tuple)
        writer = ClientStorage(server.address, blob_dir=tmp_path / "writer")
        with closing(writer):
            tid = store_blob(writer, b"film")
        with closing(RelayedBlobStorage(ClientStorage(server.address, blob_dir=tmp_path / "cache"))) as storage:
            assert isinstance(storage, HasBlobs)
            path = Path(storage.loadBlob(A, tid))
            assert path.read_bytes() == b"film"
            assert tmp_path / "cache" in path.parents
            assert storage.loadBlob(A, tid) == str(path)
            with pytest.raises(KeyError):
                storage.loadBlob(A, pack_id(7))


class Transaction:
    user = description = ""
    extension: dict[str, str] = {}  # noqa: RUF012 - as the field has it


def store_blob(storage: ClientStorage, data: bytes) -> bytes:
    file = Path(storage.temporaryDirectory()) / "new"  # type: ignore[attr-defined]
    file.write_bytes(data)
    transaction = Transaction()
    storage.tpc_begin(transaction)
    storage.storeBlob(A, None, b"blob", str(file), "", transaction)  # type: ignore[attr-defined]
    storage.tpc_vote(transaction)
    return storage.tpc_finish(transaction)


def test_a_storage_without_blobs_is_none_of_these() -> None:
    with in_process() as server:
        assert isinstance(server.address, tuple)
        commit(server, A)
        with closing(ClientStorage(server.address)) as client, pytest.raises(StorageError, match="no directory"):
            RelayedBlobStorage(client)


def test_files_are_taken_over_and_removed(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    stage = RelayedStage(str(tmp_path / "stage"))
    source = tmp_path / "blob"
    source.write_bytes(b"film")
    path = Path(stage.take(str(source)))
    stage.sync()
    assert (path.read_bytes(), path.parent, source.exists()) == (b"film", tmp_path / "stage", False)
    stage.discard()
    stage.discard()
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_file_that_is_not_there_is_not_taken_over(tmp_path: Path) -> None:
    stage = RelayedStage(str(tmp_path))
    with pytest.raises(StorageError, match="nowhere"):
        stage.take(str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []
