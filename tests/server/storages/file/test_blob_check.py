"""The check of blobs: silent on ZODB's and on ours, loud when one is missing, alone, or can be written to."""

import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as PeerFileStorage
from ZODB.serialize import referencesf

from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from zeo_server.storages.blob_layout import find_beside
from zeo_server.storages.blobs import BlobDirectory
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_check import BlobCheck
from zeo_server.storages.file.check import Check


def checked(directory: Path) -> tuple[list[str], BlobCheck]:
    check = Check(str(directory / "Data.fs"), blob_dir=str(directory / "blobs"))
    steps = list(check.steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    assert check.blobs is not None
    return [str(fault).replace(str(directory) + "/", "") for fault in check.faults], check.blobs


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    zodb_blobs(tmp_path)
    return tmp_path


def test_zodbs_blobs_are_good_also_after_an_undo_and_a_pack(directory: Path) -> None:
    faults, blobs = checked(directory)
    assert faults == []
    assert (blobs.blobs, blobs.files, blobs.layout, blobs.unfinished) == (8, 8, "bushy", 0)
    with closing(PeerFileStorage(str(directory / "Data.fs"), blob_dir=str(directory / "blobs"))) as storage:
        storage.pack(time.time(), referencesf)
    faults, blobs = checked(directory)
    assert faults == []
    assert (blobs.blobs, blobs.files) == (4, 4)


def test_a_missing_file_is_told_at_its_record(directory: Path) -> None:
    paths = blob_paths(directory / "blobs")
    for path in paths:
        path.rename(path.with_suffix(".away"))
        (fault,), blobs = checked(directory)
        path.with_suffix(".away").rename(path)
        assert fault.startswith("Data.fs: at byte ")
        assert fault.endswith(f"is missing: {path.relative_to(directory)}")
        assert blobs.files == len(paths) - 1
    shutil.rmtree(directory / "blobs")
    assert checked(directory)[0] == ["blobs: at byte 0: there is no such directory for the blobs"]


def test_a_file_without_record_is_told_unless_it_is_later_than_the_check(directory: Path) -> None:
    path = blob_paths(directory / "blobs")[0]
    alone = path.with_name("0x0000000000000005.blob")
    shutil.copy2(path, alone)
    shutil.copy2(path, path.with_name("0x7000000000000000.blob"))
    (fault,), blobs = checked(directory)
    assert fault.startswith(f"{alone.relative_to(directory)}: at byte 0: no record of oid ")
    assert blobs.unfinished == 1
    with closing(FileStorage(directory / "Data.fs", read_only=True)) as storage:
        last = next(iter(storage.undo_log())).tid
        root = BlobDirectory(directory / "blobs").path_of(bytes(8), last)
    Path(root).parent.mkdir()
    shutil.copy2(path, root)
    assert len(checked(directory)[0]) == 2  # the root has such a record, or none: it is no blob's


def test_permissions_and_kinds_of_files(directory: Path) -> None:
    first, second = blob_paths(directory / "blobs")[:2]
    first.chmod(0o640)
    second.rename(second.with_suffix(".away"))
    second.symlink_to(second.with_suffix(".away"))
    faults, _ = checked(directory)
    assert len(faults) == 2
    assert any("can be written to: its permissions are 640" in fault for fault in faults)
    assert any("a blob that is no plain file" in fault for fault in faults)


def test_the_marker(directory: Path) -> None:
    (directory / "blobs" / ".layout").write_text("round")
    (fault,), blobs = checked(directory)
    assert "unknown blob layout 'round'" in fault
    assert blobs.layout == "unknown"
    (directory / "blobs" / ".layout").unlink()
    faults, _ = checked(directory)
    assert faults[0] == "blobs: at byte 0: there is no .layout, which says how the blobs are laid out: lawn is assumed"


def test_a_transaction_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    zodb_blobs(tmp_path, text="x" * 900_000)
    faults, blobs = checked(tmp_path)
    assert faults == []
    assert blobs.blobs == blobs.files == 8


def test_a_directory_is_found_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "filestorage" / "Data.fs"
    assert find_beside(str(file)) is None
    for place in ("blobstorage", "filestorage/blobstorage", "filestorage/blobs", "filestorage/Data.fs.blobs"):
        (tmp_path / place).mkdir(parents=True)
        assert find_beside(str(file)) != str(tmp_path / place)
        (tmp_path / place / ".layout").write_text("bushy")
        assert find_beside(str(file)) == str(tmp_path / place)
    monkeypatch.chdir(tmp_path / "filestorage")
    assert find_beside("Data.fs") == "Data.fs.blobs"
