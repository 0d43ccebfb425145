"""Backups with blobs: full, incremental, after a pack, as of any time, damaged, interrupted, without links."""

import errno
import fcntl
import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest
import transaction
from ZODB.blob import Blob
from ZODB.DB import DB

from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from zeo_core.errors import StorageError
from zeo_core.ids import Tid
from zeo_core.storage import Progress
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.backup import Backup, Repository, Restore, verify
from zeo_server.storages.file.check import Check


def back_up(directory: Path, *, full: bool = False, blobs: bool = True) -> Backup:
    blob_dir = str(directory / "blobs") if blobs else None
    backup = Backup(str(directory / "Data.fs"), str(directory / "repository"), full=full, blob_dir=blob_dir)
    list(backup.steps())
    return backup


def restored(directory: Path, at: Tid | None = None) -> Restore:
    target, blobs = directory / "restored" / "Data.fs", directory / "restored" / "blobs"
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir()
    restore = Restore(str(directory / "repository"), str(target), at=at, blob_dir=str(blobs))
    steps = list(restore.steps())
    assert all(step.done_bytes <= step.total_bytes for step in steps)
    check = Check(str(target), read_records=True, blob_dir=str(blobs))
    list(check.steps())
    assert [str(fault) for fault in check.faults] == []
    return restore


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in blob_paths(directory)}


def change(directory: Path, data: bytes) -> Tid:
    """Commit a change of a blob with our storage."""
    storage = FileStorage(directory / "Data.fs", blob_dir=directory / "blobs")
    with closing(DB(storage)) as db:
        manager = transaction.TransactionManager()
        db.open(manager).root()["changed"] = Blob(data)
        manager.commit()
        return storage.last_tid()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    zodb_blobs(tmp_path)
    return tmp_path


def test_full_then_incremental_then_as_of_any_time(directory: Path) -> None:
    states = {}
    for number in range(3):
        with closing(FileStorage(directory / "Data.fs", read_only=True)) as storage:
            states[storage.last_tid()] = contents(directory / "blobs")
        backup = back_up(directory)
        assert backup.part is not None
        assert backup.part.blobs is not None
        assert (backup.part.full, backup.part.blobs.count) == (number == 0, 1 if number else 8)
        change(directory, b"%d" % number)
    for tid, blobs in states.items():
        assert restored(directory, tid).blobs == len(blobs)
        assert contents(directory / "restored" / "blobs") == blobs
    assert all(not path.stat().st_mode & 0o222 for path in blob_paths(directory / "restored"))
    assert [line for line in verify(str(directory / "repository")) if not isinstance(line, Progress)] == []


def test_a_pack_makes_a_full_backup_and_what_it_removed_is_still_restored(directory: Path) -> None:
    before = contents(directory / "blobs")
    back_up(directory)
    with closing(FileStorage(directory / "Data.fs", read_only=True)) as storage:
        tid = storage.last_tid()
    with closing(FileStorage(directory / "Data.fs", blob_dir=directory / "blobs")) as storage:
        storage.pack(time.time())
    shutil.rmtree(directory / "blobs.old")
    change(directory, b"later")
    after = contents(directory / "blobs")
    assert set(before) - set(after)
    backup = back_up(directory)
    assert (backup.part and backup.part.full, "packed" in backup.reason) == (True, True)
    restored(directory)
    assert contents(directory / "restored" / "blobs") == after
    restored(directory, tid)
    assert contents(directory / "restored" / "blobs") == before


def test_files_are_shared_where_that_can_be_and_copied_elsewhere(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(fcntl, "ioctl", refused)
    back_up(directory)
    saved = blob_paths(directory / "repository")
    assert all(path.stat().st_nlink == 2 for path in saved)
    restored(directory)
    assert all(path.stat().st_nlink == 1 for path in blob_paths(directory / "restored"))
    shutil.rmtree(directory / "repository")
    monkeypatch.setattr(os, "link", refused)
    back_up(directory)
    assert all(path.stat().st_nlink == 1 for path in blob_paths(directory / "repository"))
    assert contents(directory / "repository" / "blobs") == contents(directory / "blobs")


def test_damage_is_told_and_not_restored(directory: Path) -> None:
    backup = back_up(directory)
    assert backup.part is not None
    blob = blob_paths(directory / "repository")[0]
    content = blob.read_bytes()
    blob.unlink()
    for damaged in (content + b"x", content[:-1] + b"x", None):
        if damaged is not None:
            blob.unlink(missing_ok=True)
            blob.write_bytes(damaged)
        else:
            blob.unlink()
        (told,) = [line for line in verify(str(directory / "repository")) if isinstance(line, str)]
        assert str(blob) in told
        with pytest.raises(StorageError, match=blob.name):
            restored(directory)
        assert not (directory / "restored" / "Data.fs").exists()
        assert not (directory / "restored" / "blobs").exists()
    back_up(directory, full=True)  # what is damaged in the repository is replaced
    restored(directory)
    listed = directory / "repository" / f"{backup.part.name}.blobs"
    listed.write_bytes(listed.read_bytes()[:-5])
    lines = [line for line in verify(str(directory / "repository")) if isinstance(line, str)]
    assert lines == [f"{listed}: damaged: its bytes are not those that were saved (SHA-256)"]


def test_a_lost_blob_does_not_stop_a_backup(directory: Path) -> None:
    blob_paths(directory / "blobs")[0].unlink()
    backup = back_up(directory)
    assert backup.part is not None
    assert backup.part.blobs is not None
    assert (backup.part.blobs.count, backup.part.blobs.lost) == (8, 1)
    target = directory / "Restored.fs"
    restore = Restore(str(directory / "repository"), str(target), blob_dir=str(directory / "there"))
    list(restore.steps())
    assert (restore.blobs, restore.lost_blobs) == (7, 1)


def test_a_pack_in_between_is_noticed(directory: Path) -> None:
    backup = Backup(str(directory / "Data.fs"), str(directory / "repository"), blob_dir=str(directory / "blobs"))
    steps = backup.steps()
    with closing(FileStorage(directory / "Data.fs", blob_dir=directory / "blobs")) as storage:
        storage.pack(time.time())
    with pytest.raises(StorageError, match="was packed during the backup"):
        list(steps)
    assert Repository(str(directory / "repository")).parts == []


def test_backups_do_not_go_without_blobs_unasked(directory: Path) -> None:
    backup = back_up(directory, blobs=False)
    assert backup.part is not None
    assert backup.part.blobs is None
    assert back_up(directory).reason == "the first with blobs"
    change(directory, b"new")
    with pytest.raises(StorageError, match="the backups so far have blobs"):
        back_up(directory, blobs=False)
    back_up(directory, full=True, blobs=False)
    restore = Restore(str(directory / "repository"), str(directory / "Restored.fs"), blob_dir=str(directory / "none"))
    list(restore.steps())
    assert not (directory / "none").exists()


def test_what_is_there_is_not_written_over(directory: Path) -> None:
    back_up(directory)
    with pytest.raises(StorageError, match="exists already"):
        Restore(str(directory / "repository"), str(directory / "New.fs"), blob_dir=str(directory / "blobs"))


def test_an_interrupted_backup_is_gone_on_with(directory: Path) -> None:
    backup = Backup(str(directory / "Data.fs"), str(directory / "repository"), blob_dir=str(directory / "blobs"))
    steps = backup.steps()
    for _ in range(3):
        assert next(steps).phase == "saving blobs"
    steps.close()  # type: ignore[attr-defined]
    assert len(blob_paths(directory / "repository")) == 3
    back_up(directory)
    restored(directory)
    assert contents(directory / "restored" / "blobs") == contents(directory / "blobs")
