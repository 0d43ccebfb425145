"""Copies between storages, ours and ZODB's: every transaction, byte for byte; interrupted ones are gone on with."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ZODB.FileStorage import FileStorage as PeerFileStorage
from ZODB.MappingStorage import MappingStorage as PeerMappingStorage

from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from tests.server.storages.file.damaged import zodb_file
from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID
from zeo_server.storages.copying import Copy, StorageTarget
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

Make = Callable[[Path], Any]
TARGETS: dict[str, Make] = {
    "ours": lambda path: FileStorage(path / "Copy.fs"),
    "ours, in memory": lambda path: MappingStorage("copy"),
    "ZODB's": lambda path: PeerFileStorage(str(path / "Copy.fs")),
}


def contents(storage: Any) -> list[object]:
    return [
        (
            transaction.tid,
            transaction.status,
            transaction.user,
            transaction.description,
            transaction.extension,
            [(record.oid, record.tid, record.data, record.data_txn) for record in transaction],
        )
        for transaction in storage.iterator()
    ]


def copy(source: Any, target: Any, **options: Any) -> Copy:
    made = Copy(source, StorageTarget(target), **options)
    steps = list(made.steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    return made


@pytest.mark.parametrize("source_class", [FileStorage, PeerFileStorage])
@pytest.mark.parametrize("kind", TARGETS)
def test_all_is_copied_undo_and_metadata_too(tmp_path: Path, source_class: Any, kind: str) -> None:
    zodb_file(tmp_path / "Data.fs")
    with closing(source_class(str(tmp_path / "Data.fs"))) as source, closing(TARGETS[kind](tmp_path)) as target:
        made = copy(source, target)
        assert (made.transactions, made.last_tid) == (8, source.lastTransaction())
        assert contents(target) == contents(source)


def test_a_file_by_zodb_and_one_by_us_are_the_same(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    source, target = FileStorage(tmp_path / "Data.fs", read_only=True), FileStorage(tmp_path / "Copy.fs")
    with closing(source), closing(target):
        copy(source, target)
    assert (tmp_path / "Copy.fs").read_bytes() == content


@pytest.mark.parametrize("target_class", [FileStorage, PeerFileStorage])
def test_blobs(tmp_path: Path, target_class: Any) -> None:
    zodb_blobs(tmp_path)
    (tmp_path / "to").mkdir()
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True, blob_dir=tmp_path / "blobs")) as source:
        to = target_class(str(tmp_path / "to" / "Data.fs"), blob_dir=str(tmp_path / "to" / "blobs"))
        with closing(to) as target:
            assert copy(source, target).blobs == 8
    paths = blob_paths(tmp_path / "blobs")
    assert [path.relative_to(tmp_path) for path in paths] == [
        path.relative_to(tmp_path / "to") for path in blob_paths(tmp_path / "to")
    ]
    assert all((tmp_path / "to" / path.relative_to(tmp_path)).read_bytes() == path.read_bytes() for path in paths)


def test_blobs_that_are_lost_or_not_wanted_or_have_no_place(tmp_path: Path) -> None:
    zodb_blobs(tmp_path)
    blob_paths(tmp_path / "blobs")[0].unlink()
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True, blob_dir=tmp_path / "blobs")) as source:
        with pytest.raises(StorageError, match=r"memory: has no blobs, and transaction .* does"):
            copy(source, MappingStorage("memory"))
        made = copy(source, MappingStorage("memory"), dry_run=True)
        assert (made.blobs, made.lost_blobs) == (7, 1)
        assert copy(source, MappingStorage("memory"), blobs=False).blobs == 0


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    target = MappingStorage("memory")
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True)) as source:
        assert copy(source, target, dry_run=True).transactions == 8
    assert target.lastTransaction() == ZERO_TID


@pytest.mark.parametrize("done", range(9))
def test_resuming_goes_on_from_any_transaction(tmp_path: Path, done: int) -> None:
    zodb_file(tmp_path / "Data.fs")
    target = MappingStorage("memory")
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True)) as source:
        tids = [transaction.tid for transaction in source.iterator()]
        steps = Copy(source, StorageTarget(target)).steps()
        for _ in range(done):
            next(steps)
        assert target.lastTransaction() == (tids[done - 1] if done else ZERO_TID)
        if done:
            with pytest.raises(StorageError, match="the target has transactions already"):
                Copy(source, StorageTarget(target))
        made = copy(source, target, resume=True)
        assert (made.compared, made.transactions) == (done, 8 - done)
        assert contents(target) == contents(source)


def test_what_is_no_beginning_is_not_continued(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True)) as source:
        transactions = list(source.iterator())

        def refused(first: Any, data: bytes | None = None) -> None:
            target = MappingStorage("memory")
            target.tpc_begin(first, first.tid, first.status)
            for record in first:
                target.restore(record.oid, record.tid, data or record.data, "", None, first)
            target.tpc_vote(first)
            target.tpc_finish(first)
            with pytest.raises(StorageError, match="not resumed: "):
                copy(source, target, resume=True)

        refused(transactions[1])  # the source has one before
        refused(transactions[0], b"other data")
        transactions[0].description = b"other"
        refused(transactions[0])
        transactions[-1].tid = b"\x7f" * 8  # later than all of the source's
        refused(transactions[-1])


def test_what_is_no_source_or_target() -> None:
    class Nothing:
        def getName(self) -> str:  # noqa: N802
            return "nothing"

        def lastTransaction(self) -> bytes:  # noqa: N802
            return ZERO_TID

    with pytest.raises(StorageError, match="nothing: cannot be copied to: it has no 'restore'"):
        StorageTarget(Nothing())
    with pytest.raises(StorageError, match="nothing: cannot be copied: it has no 'iterator'"):
        Copy(Nothing(), StorageTarget(MappingStorage("memory")))
    with pytest.raises(StorageError, match="it has no 'restore'"):
        StorageTarget(PeerMappingStorage())
