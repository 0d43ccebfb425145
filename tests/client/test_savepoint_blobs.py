"""The files of savepoints' blobs."""

import os
from pathlib import Path

import pytest

from zeo_client.savepoint_blobs import SavepointBlobs
from zeo_core.errors import StorageError


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    (tmp_path / "parent").mkdir()
    return tmp_path / "parent"


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_a_directory_is_made_for_the_first_file_and_removed_with_the_last(tmp_path: Path, parent: Path) -> None:
    blobs = SavepointBlobs(lambda: str(parent))
    blobs.close()
    assert os.listdir(parent) == []
    blobs.take(0, write(tmp_path / "a", b"a"))
    assert not (tmp_path / "a").exists()
    (directory,) = os.listdir(parent)
    assert directory.startswith("savepoint")
    kept = blobs.path(0)
    assert kept is not None
    assert Path(kept).read_bytes() == b"a"
    blobs.close()
    assert os.listdir(parent) == []
    assert blobs.path(0) is None


def test_files_are_cut_off_with_their_records(tmp_path: Path, parent: Path) -> None:
    blobs = SavepointBlobs(lambda: str(parent))
    for position in (0, 10, 20, 30):
        blobs.take(position, write(tmp_path / "file", b"%d" % position))
    taken = blobs.path(30)
    assert taken is not None
    os.unlink(taken)  # a storage has it
    blobs.cut(20)
    assert [blobs.path(position) is not None for position in (0, 10, 20, 30)] == [True, True, False, False]
    blobs.take(20, write(tmp_path / "file", b"again"))
    assert Path(str(blobs.path(20))).read_bytes() == b"again"
    assert Path(str(blobs.path(10))).read_bytes() == b"10"
    blobs.close()


def test_a_file_that_cannot_be_kept_is_named(tmp_path: Path, parent: Path) -> None:
    blobs = SavepointBlobs(lambda: str(parent))
    with pytest.raises(StorageError, match=r"cannot keep the blob .*missing for a savepoint"):
        blobs.take(0, str(tmp_path / "missing"))
    blobs.close()
