"""A blob directory that is shared with the server."""

import os
import shutil
from pathlib import Path

import pytest
from ZODB.blob import FilesystemHelper

from zeo_client.blob_cache import move
from zeo_client.shared_blobs import SharedBlobs
from zeo_core.errors import POSKeyError, StorageError
from zeo_core.ids import pack_id

A, TID = pack_id(1), pack_id(7)


@pytest.mark.parametrize("layout", ["bushy", "lawn"])
def test_the_layout_is_the_directorys(tmp_path: Path, layout: str) -> None:
    theirs = FilesystemHelper(str(tmp_path), layout)
    theirs.create()
    shared = SharedBlobs(str(tmp_path))
    with pytest.raises(POSKeyError):
        shared.load(A, TID)
    path = theirs.getBlobFilename(A, TID)
    os.makedirs(os.path.dirname(path))
    Path(path).write_bytes(b"data")
    assert shared.load(A, TID) == path


def test_a_new_directory_is_marked(tmp_path: Path) -> None:
    shared = SharedBlobs(str(tmp_path / "new"))
    assert (tmp_path / "new" / ".layout").read_text() == "bushy"
    assert os.path.isdir(shared.temporary)
    FilesystemHelper(str(tmp_path / "new")).create()


def test_a_cache_is_no_servers_directory(tmp_path: Path) -> None:
    (tmp_path / ".layout").write_text("zeocache")
    with pytest.raises(StorageError, match="unknown blob layout 'zeocache'"):
        SharedBlobs(str(tmp_path))


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        SharedBlobs(str(tmp_path / "file" / "blobs"))


def test_a_file_is_taken_into_the_directory_of_its_object(tmp_path: Path) -> None:
    shared = SharedBlobs(str(tmp_path / "blobs"))
    source = tmp_path / "source"
    source.write_bytes(b"data")
    path = shared.take(A, str(source))
    assert path.endswith(".tmp")
    assert os.path.dirname(path) == FilesystemHelper(shared.path).getPathForOID(A).rstrip("/")
    assert Path(path).read_bytes() == b"data"
    shared.close()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    shared = SharedBlobs(str(tmp_path / "blobs"))
    with pytest.raises(FileNotFoundError):
        shared.take(A, str(tmp_path / "missing"))


def test_a_directory_that_vanishes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedBlobs(str(tmp_path / "blobs"))
    left = [3]

    def moved(source: str, directory: str, prefix: str, suffix: str) -> str:
        left[0] -= 1
        if left[0] > 0:
            shutil.rmtree(directory)  # as the server may, which found it empty
        return move(source, directory, prefix, suffix)

    monkeypatch.setattr("zeo_client.shared_blobs.move", moved)
    source = tmp_path / "source"
    source.write_bytes(b"data")
    assert Path(shared.take(A, str(source))).read_bytes() == b"data"
    assert left == [0]
