"""The blob directory by itself: staging, placing, removing, and what a failure leaves behind."""

import os
import pickle
import stat
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.server.storages.file.test_writer import file_size_limit
from zeo_core.errors import POSKeyError, StorageError
from zeo_core.ids import Oid, Tid, pack_id
from zeo_server.storages.blobs import BlobDirectory, BlobFile, StagedBlob

OID, OTHER = pack_id(0x123), pack_id(0x7FFF)
FIRST, SECOND, THIRD = pack_id(0x3C8 << 48), pack_id((0x3C8 << 48) + 1), pack_id((0x3C8 << 48) + 2)


@pytest.fixture(params=["bushy", "lawn"])
def blobs(tmp_path: Path, request: pytest.FixtureRequest) -> BlobDirectory:
    return BlobDirectory(tmp_path / "blobs", layout=request.param)


def written(blobs: BlobDirectory, data: bytes) -> str:
    """Return a new file under tmp/, as ZODB's Blob leaves it for storeBlob."""
    path = os.path.join(blobs.temp_dir, f"BUC{time.monotonic_ns()}")
    Path(path).write_bytes(data)
    return path


def commit(blobs: BlobDirectory, oid: Oid, tid: Tid, data: bytes) -> str:
    staging = blobs.stage()
    staged = staging.take(written(blobs, data))
    staging.sync()
    blobs.place([StagedBlob(staged, oid, tid)])
    staging.discard()
    return blobs.load(oid, tid)


def names(blobs: BlobDirectory) -> list[tuple[Oid, Tid]]:
    return [(oid, tid) for oid, tid, _path in blobs.files()]


def all_files(directory: str) -> list[str]:
    return [name for _path, _directories, files in os.walk(directory) for name in files]


def test_a_committed_blob_is_a_read_only_file(blobs: BlobDirectory) -> None:
    path = Path(commit(blobs, OID, FIRST, b"data"))
    assert path.read_bytes() == b"data"
    assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    assert path.stat().st_mode & stat.S_IRUSR
    assert path.stat().st_nlink == 1
    assert os.listdir(blobs.temp_dir) == []


def test_the_file_that_is_taken_over_is_gone(blobs: BlobDirectory) -> None:
    source = written(blobs, b"data")
    blobs.stage().take(source)
    assert not os.path.exists(source)


def test_a_file_that_is_not_there_cannot_be_taken(blobs: BlobDirectory) -> None:
    with pytest.raises(StorageError, match="missing: No such file"):
        blobs.stage().take(os.path.join(blobs.temp_dir, "missing"))


def test_a_blob_that_is_not_there(blobs: BlobDirectory) -> None:
    with pytest.raises(POSKeyError):
        blobs.load(OID, FIRST)
    with pytest.raises(POSKeyError):
        blobs.open_committed(OID, FIRST)


def test_a_discarded_staging_leaves_nothing(blobs: BlobDirectory) -> None:
    staging = blobs.stage()
    staging.take(written(blobs, b"data"))
    staging.discard()
    staging.discard()
    assert all_files(blobs.path) == [".layout"]


def test_a_repeated_blob_outlives_the_one_that_it_repeats(blobs: BlobDirectory) -> None:
    commit(blobs, OID, FIRST, b"data")
    staging = blobs.stage()
    staged = staging.repeat(blobs.load(OID, FIRST))
    assert list(blobs.remove_unkept(lambda _oid, _tid: False, FIRST)) == [(4, 4)]
    staging.sync()
    blobs.place([StagedBlob(staged, OID, SECOND)])
    assert Path(blobs.load(OID, SECOND)).read_bytes() == b"data"


def test_all_files_of_a_group_are_placed_or_none(blobs: BlobDirectory) -> None:
    staging = blobs.stage()
    staged = [staging.take(written(blobs, b"%d" % number)) for number in range(3)]
    # A file in the way of the last one's directory.
    in_the_way = Path(blobs.getPathForOID(OTHER))
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.touch()
    group = [StagedBlob(path, oid, FIRST) for path, oid in zip(staged, (OID, pack_id(5), OTHER), strict=True)]
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        blobs.place(group)
    assert names(blobs) == []
    in_the_way.unlink()
    blobs.place(group)
    assert sorted(names(blobs)) == sorted((oid, FIRST) for oid in (OID, pack_id(5), OTHER))


def test_what_a_crash_left_in_the_place_is_replaced(blobs: BlobDirectory) -> None:
    commit(blobs, OID, FIRST, b"of a transaction that was cut off")
    assert Path(commit(blobs, OID, FIRST, b"of the next one")).read_bytes() == b"of the next one"


def test_files_are_walked(blobs: BlobDirectory) -> None:
    for oid, tid in ((OID, SECOND), (OTHER, FIRST), (OID, FIRST)):
        commit(blobs, oid, tid, b"data")
    Path(blobs.getPathForOID(OID), "README").touch()
    Path(blobs.path, "0x").mkdir()
    assert names(blobs) == [(OID, FIRST), (OID, SECOND), (OTHER, FIRST)]
    assert all(path == blobs.path_of(oid, tid) for oid, tid, path in blobs.files())


def test_files_of_an_unfinished_transaction_are_removed(blobs: BlobDirectory) -> None:
    commit(blobs, OID, FIRST, b"data")
    commit(blobs, OID, SECOND, b"data")
    blobs.remove([(OID, SECOND), (OTHER, SECOND)])
    assert names(blobs) == [(OID, FIRST)]
    blobs.remove([(OID, FIRST)])
    assert sorted(os.listdir(blobs.path)) == [".layout", "tmp"]


def test_a_pack_removes_what_is_not_kept(blobs: BlobDirectory) -> None:
    for oid, tid in ((OID, FIRST), (OID, SECOND), (OTHER, FIRST), (OID, THIRD)):
        commit(blobs, oid, tid, b"data" if tid == FIRST else b"larger data")
    steps = list(blobs.remove_unkept(lambda oid, tid: (oid, tid) == (OID, SECOND), SECOND))
    assert steps == [(4, 19), (15, 19), (19, 19)]
    assert names(blobs) == [(OID, SECOND), (OID, THIRD)]
    assert not os.path.exists(blobs.getPathForOID(OTHER))
    assert not os.path.exists(blobs.path + ".old")


def test_a_pack_can_keep_all_that_was_there(blobs: BlobDirectory) -> None:
    commit(blobs, OID, FIRST, b"first")
    commit(blobs, OID, SECOND, b"second")
    steps = list(blobs.remove_unkept(lambda _oid, tid: tid == SECOND, SECOND, keep_old=True))
    assert steps == [(5, 22), (11, 22), (16, 22), (22, 22)]
    old = BlobDirectory(blobs.path + ".old", read_only=True)
    assert old.layout is blobs.layout
    assert names(old) == [(OID, FIRST), (OID, SECOND)]
    assert names(blobs) == [(OID, SECOND)]
    list(blobs.remove_unkept(lambda _oid, _tid: True, SECOND, keep_old=True))
    assert names(old) == [(OID, SECOND)]
    list(blobs.remove_unkept(lambda _oid, _tid: True, SECOND))
    assert not os.path.exists(old.path)


def test_opening_removes_what_processes_that_ended_have_left(blobs: BlobDirectory) -> None:
    blobs.stage().take(written(blobs, b"staged"))
    written(blobs, b"of a client that shares the directory")
    BlobDirectory(blobs.path, read_only=True)
    assert len(all_files(blobs.temp_dir)) == 2
    BlobDirectory(blobs.path)
    assert len(all_files(blobs.temp_dir)) == 1


def test_opening_read_only_makes_nothing(tmp_path: Path) -> None:
    blobs = BlobDirectory(tmp_path / "blobs", read_only=True)
    assert os.listdir(tmp_path) == []
    assert names(blobs) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    with pytest.raises(StorageError, match=str(tmp_path / "blobs")):
        BlobDirectory(tmp_path / "blobs")


class Opened:
    """Counts what a Blob counts."""

    def __init__(self) -> None:
        self.closed_files: list[Any] = []

    def closed(self, file: Any) -> None:
        """Take note of a closed file."""
        self.closed_files.append(file)


def test_a_blob_hears_of_its_files(blobs: BlobDirectory) -> None:
    commit(blobs, OID, FIRST, b"data")
    blob = Opened()
    with blobs.open_committed(OID, FIRST, blob) as file:
        assert isinstance(file, BlobFile)
        assert file.read() == b"data"
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(file)
        assert not blob.closed_files
    assert blob.closed_files == [file]
    with blobs.open_committed(OID, FIRST) as plain:
        assert plain.read() == b"data"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on another file system than the tests' own."""
    with TemporaryDirectory(dir="/dev/shm") as directory:
        assert os.stat(directory).st_dev != os.stat(tmp_path).st_dev
        yield Path(directory)


def test_a_file_of_another_file_system_is_copied(blobs: BlobDirectory, elsewhere: Path) -> None:
    (elsewhere / "source").write_bytes(b"data")
    staging = blobs.stage()
    staged = staging.take(str(elsewhere / "source"))
    staging.sync()
    assert os.listdir(elsewhere) == []
    blobs.place([StagedBlob(staged, OID, FIRST)])
    assert Path(blobs.load(OID, FIRST)).read_bytes() == b"data"


def test_a_blob_that_finds_no_room_leaves_its_source(blobs: BlobDirectory, elsewhere: Path) -> None:
    (elsewhere / "source").write_bytes(b"x" * 10_000)
    staging = blobs.stage()
    with file_size_limit(4096), pytest.raises(StorageError, match="File too large"):
        staging.take(str(elsewhere / "source"))
    staging.sync()
    staging.discard()
    assert os.listdir(elsewhere) == ["source"]
    assert os.listdir(blobs.temp_dir) == []


def test_an_open_file_is_copied(blobs: BlobDirectory) -> None:
    staging = blobs.stage()
    staged = staging.copy(BytesIO(b"data"))
    staging.sync()
    blobs.place([StagedBlob(staged, OID, FIRST)])
    assert Path(blobs.load(OID, FIRST)).read_bytes() == b"data"
