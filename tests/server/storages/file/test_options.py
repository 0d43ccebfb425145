"""FileStorage's options: opening as of a past time, quota, what a pack does when it is not told."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contract.storages import commit
from zeo_core.errors import POSKeyError, ReadOnlyError, StorageError, StorageFullError
from zeo_core.ids import MAX_TID, ZERO_TID, pack_id, successor
from zeo_server.storages.file import FileStorage

A, B = pack_id(1), pack_id(2)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_file_opens_as_of_any_tid(tmp_path: Path, indexed: bool) -> None:
    path = tmp_path / "Data.fs"
    with closing(FileStorage(path)) as storage:
        tids = [commit(storage, {A: b"%d" % number}) for number in range(4)]
    saved = Path(f"{path}.index").read_bytes()
    if not indexed:
        Path(f"{path}.index").unlink()
    for number, tid in enumerate(tids):
        with closing(FileStorage(path, read_only=True, stop=successor(tid))) as storage:
            assert storage.last_tid() == tid
            assert storage.load_before(A, MAX_TID) == (b"%d" % number, tid, None)
            assert [t.tid for t in storage.transactions()] == tids[: number + 1]
            with pytest.raises(ReadOnlyError):
                storage.new_oid()
    with closing(FileStorage(path, read_only=True, stop=tids[0])) as storage:
        assert storage.last_tid() == ZERO_TID
        with pytest.raises(POSKeyError):
            storage.load(A)
    with closing(FileStorage(path, read_only=True, stop=MAX_TID)) as storage:
        assert storage.last_tid() == tids[-1]
    if indexed:
        assert Path(f"{path}.index").read_bytes() == saved
    with pytest.raises(StorageError, match="only read-only"):
        FileStorage(path, stop=tids[0])


def test_a_file_does_not_grow_over_its_quota(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs", quota=1000)) as storage:
        first = commit(storage, {A: b"x" * 500})
        with pytest.raises(StorageFullError, match="quota of 1000"):
            commit(storage, {B: b"x" * 500})
        assert storage.last_tid() == first
        commit(storage, {B: b"x" * 200})
        assert storage.byte_size() <= 1000
    with closing(FileStorage(tmp_path / "Data.fs")) as storage:
        commit(storage, {B: b"x" * 2000})


@pytest.mark.parametrize("keep", [True, False])
def test_a_pack_that_is_not_told_does_as_the_storage_was_told(tmp_path: Path, keep: bool) -> None:
    options: dict[str, Any] = {"pack_gc": keep, "pack_keep_old": keep}
    with closing(FileStorage(tmp_path / "Data.fs", **options)) as storage:
        commit(
            storage, {pack_id(0): b"cpersistent.mapping\nPersistentMapping\n.}.", A: b"cpersistent\nPersistent\n.}."}
        )
        tid = commit(storage, {B: b"cpersistent\nPersistent\n.}."})
        storage.pack(4e9)
        assert storage.last_tid() == tid
        assert (tmp_path / "Data.fs.old").exists() == keep
        if keep:
            with pytest.raises(POSKeyError):
                storage.load(A)
        else:
            assert storage.load(A)
