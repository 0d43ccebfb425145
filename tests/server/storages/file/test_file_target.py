"""A new file as a target: there when it is complete, and gone on with when a copy was cut short anywhere."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from zeo_core.errors import FileFormatError, FileLockedError, StorageError
from zeo_server.storages.copying import Copy
from zeo_server.storages.file import FileStorage, fresh
from zeo_server.storages.file.check import Check
from zeo_server.storages.file.file_target import FileTarget


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    zodb_blobs(tmp_path / "source")
    return tmp_path / "source"


def copy(source: Path, target: Path, *, steps: int | None = None) -> Copy:
    """Copy, or do only some steps."""
    with (
        closing(FileStorage(source / "Data.fs", read_only=True, blob_dir=source / "blobs")) as storage,
        FileTarget(str(target / "Data.fs"), str(target / "blobs")) as to,
    ):
        made = Copy(storage, to, resume=True)
        for number, _ in enumerate(made.steps(), 1):
            if number == steps:
                return made
        to.complete()
    return made


def is_same(source: Path, target: Path) -> bool:
    check = Check(str(target / "Data.fs"), read_records=True, blob_dir=str(target / "blobs"))
    list(check.steps())
    assert check.faults == []
    ours, theirs = blob_paths(target / "blobs"), blob_paths(source / "blobs")
    blobs = [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    return blobs and (source / "Data.fs").read_bytes() == (target / "Data.fs").read_bytes()


def test_it_appears_when_it_is_complete(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path, steps=4)
    assert not (tmp_path / "Data.fs").exists()
    made = copy(source, tmp_path)
    assert (made.compared, made.transactions) == (4, 4)
    assert is_same(source, tmp_path)
    assert not (tmp_path / "Data.fs.part").exists()
    with pytest.raises(StorageError, match="exists already"):
        FileTarget(str(tmp_path / "Data.fs"), None)


def test_a_copy_that_was_cut_at_any_byte_is_gone_on_with(source: Path, tmp_path: Path) -> None:
    content = (source / "Data.fs").read_bytes()
    for cut in range(4, len(content), 331):
        (tmp_path / "Data.fs.part").write_bytes(content[:cut] + b"\0" * (cut % 3))
        copy(source, tmp_path)
        assert is_same(source, tmp_path)
        (tmp_path / "Data.fs").unlink()


def test_what_was_waiting_to_be_written_is_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (1, 4 << 20):
        monkeypatch.setattr(fresh, "_BLOCK_BYTES", block)
        copy(source, tmp_path, steps=5)
        assert (source / "Data.fs").read_bytes().startswith((tmp_path / "Data.fs.part").read_bytes())
        assert copy(source, tmp_path).compared == 5
        assert is_same(source, tmp_path)
        (tmp_path / "Data.fs").unlink()


def test_nothing_copied_leaves_nothing(tmp_path: Path) -> None:
    with FileTarget(str(tmp_path / "Data.fs"), None):
        assert (tmp_path / "Data.fs.part").exists()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_gone_on_with(source: Path, tmp_path: Path) -> None:
    part = tmp_path / "Data.fs.part"
    part.write_bytes(b"something else")
    with pytest.raises(FileFormatError, match="it starts with"):
        FileTarget(str(tmp_path / "Data.fs"), None)
    part.unlink()
    with FileTarget(str(tmp_path / "Data.fs"), None), pytest.raises(FileLockedError, match=r"Data\.fs\.part"):
        FileTarget(str(tmp_path / "Data.fs"), None)
    with (
        closing(FileStorage(source / "Data.fs", read_only=True, blob_dir=source / "blobs")) as storage,
        FileTarget(str(tmp_path / "Data.fs"), None) as target,
        pytest.raises(StorageError, match=r"no directory for blobs, and transaction .* has some"),
    ):
        list(Copy(storage, target).steps())
