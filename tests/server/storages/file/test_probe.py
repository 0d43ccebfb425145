"""Looking whether a file could be opened."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.storages import commit
from zeo_core.errors import FileFormatError, FileLockedError, StorageError
from zeo_core.ids import pack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.probe import probe_file


def test_a_file_that_is_there_or_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    probe_file(str(path), blob_dir=str(tmp_path / "blobs"))
    assert list(tmp_path.iterdir()) == []
    with closing(FileStorage(path)) as storage:
        commit(storage, {pack_id(1): b"data"})
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    probe_file(str(path))
    probe_file(str(path), read_only=True)
    before.pop("Data.fs.lock")  # its holder's number
    assert before.items() <= {each.name: each.read_bytes() for each in tmp_path.iterdir()}.items()


def test_what_keeps_it_from_being_opened(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with pytest.raises(StorageError, match="does not exist"):
        probe_file(str(path), read_only=True)
    with pytest.raises(StorageError, match="no such directory"):
        probe_file(str(tmp_path / "nowhere" / "Data.fs"))
    with pytest.raises(StorageError, match="no such directory"):
        probe_file(str(path), blob_dir=str(tmp_path / "nowhere" / "blobs"))
    (tmp_path / "Data.fs.index").touch()
    with pytest.raises(StorageError, match=r"Data\.fs: is missing, yet there is"):
        probe_file(str(path))
    probe_file(str(path), create=True)
    path.write_bytes(b"no database")
    with pytest.raises(FileFormatError, match=r"Data\.fs"):
        probe_file(str(path))


def test_a_file_that_another_has_open(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with closing(FileStorage(path)), pytest.raises(FileLockedError):
        probe_file(str(path))
    probe_file(str(path))
