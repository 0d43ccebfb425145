"""Where a blob's files come from: the storage, or a savepoint."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from zeo_client.blob import Blob
from zeo_client.blob_access import BlobAccess
from zeo_client.db import DB
from zeo_core.errors import POSKeyError, Unsupported
from zeo_core.ids import Oid
from zeo_server.storages.file.blob_storage import BlobFileStorage
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[BlobFileStorage]:
    with closing(BlobFileStorage(tmp_path / "Data.fs", blob_dir=tmp_path / "blobs")) as storage:
        yield storage


def nothing(_oid: Oid) -> None:
    return None


def test_a_storage_without_blobs_is_only_asked_when_there_is_a_blob() -> None:
    access = BlobAccess(MappingStorage(), nothing)
    assert access.temporary_directory() == tempfile.gettempdir()
    with pytest.raises(Unsupported, match=r"Storing Blobs in .* is not supported; open it with"):
        access.storage("Storing")


def test_a_committed_blob_is_the_storages(storage: BlobFileStorage) -> None:
    with DB(storage) as db, db.transaction() as conn:
        conn.root.blob = blob = Blob(b"data")
        access = BlobAccess(storage, nothing)
        assert access.temporary_directory() == storage.temporaryDirectory()
        assert not access.exists(blob)
        conn.transaction_manager.commit()
        assert access.is_committed(blob)
        assert Path(access.path(blob)).read_bytes() == b"data"
        with access.open(blob) as uncounted, access.open(blob, counted=True) as counted:
            assert uncounted.read() == counted.read() == b"data"
        Path(access.path(blob)).unlink()
        with pytest.raises(POSKeyError):
            access.open(blob)


def test_what_a_savepoint_holds_comes_first(storage: BlobFileStorage, tmp_path: Path) -> None:
    (tmp_path / "held").write_bytes(b"held")
    access = BlobAccess(storage, lambda _oid: str(tmp_path / "held"))
    blob = Blob()
    assert not access.exists(blob)
    blob._p_oid = b"12345678"
    assert access.exists(blob)
    assert not access.is_committed(blob)
    with access.open(blob) as uncounted, access.open(blob, counted=True) as counted:
        assert uncounted.read() == counted.read() == b"held"
