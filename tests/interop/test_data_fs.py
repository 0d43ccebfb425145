"""One Data.fs, two owners: ZODB's FileStorage and ours take turns on the same file and index."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.fsIndex import fsIndex

from zeo_core.errors import ConflictError, POSKeyError
from zeo_core.ids import MAX_TID, Tid, successor
from zeo_core.transaction import RecordedTransaction
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

Log = list[tuple[Tid, bytes, bytes, bytes, bytes, list[tuple[bytes, Tid, bytes | None, Tid | None]]]]


def zodb_log(path: Path) -> Log:
    with closing(ZODBFileStorage(str(path), read_only=True)) as storage:
        return [
            (
                t.tid,
                t.status.encode(),
                t.user,
                t.description,
                t.extension_bytes,
                [(r.oid, r.tid, r.data, r.data_txn) for r in t],
            )
            for t in storage.iterator()
        ]


def our_log(transactions: Iterator[RecordedTransaction]) -> Log:
    return [
        (
            t.tid,
            t.status,
            t.metadata.user,
            t.metadata.description,
            t.metadata.extension,
            [tuple(r) for r in t.records],  # type: ignore[misc]
        )
        for t in transactions
    ]


def fill(db: Any, rounds: int = 5) -> None:
    """Do what applications do: trees that grow and split, changes, metadata."""
    with db.transaction() as connection:
        connection.root()["tree"] = OOBTree()
        connection.root()["mapping"] = PersistentMapping()
    for number in range(rounds):
        with db.transaction() as connection:
            txn = connection.transaction_manager.get()
            txn.note(f"round {number} \u20ac")
            txn.setUser(f"user{number}")
            txn.setExtendedInfo("number", number)
            for key in range(100):
                connection.root()["tree"][f"{number}-{key}"] = PersistentMapping({"key": "x" * key * 40})
            connection.root()["mapping"]["last"] = number


def zodb_script(name: str, path: Path) -> str:
    """Return what one of ZODB's scripts says of a file; both say nothing of a sound one."""
    command = [sys.executable, "-m", f"ZODB.scripts.{name}", str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def undo_some(db: Any) -> None:
    """Undo a change, then the undo, then a creation, so that all kinds of back pointers are there."""
    mapping_changes = [entry["id"] for entry in db.undoLog(0, 1)]
    with db.transaction() as connection:
        connection.root()["late"] = PersistentMapping()
    creation = db.undoLog(0, 1)[0]["id"]
    for change in (creation, mapping_changes[0]):
        db.undo(change)
        transaction.commit()
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()


def written_by_zodb(path: Path, *, undo: bool, pack: bool) -> None:
    with closing(ZODB.DB(ZODBFileStorage(str(path)))) as db:
        fill(db)
        if undo:
            undo_some(db)
        if pack:
            now = time.time()
            fill(db, rounds=2)
            db.pack(now)


def assert_same_loads(path: Path) -> None:
    """Assert that both storages answer alike: for every object, current and at each tid of its history."""
    with (
        closing(ZODBFileStorage(str(path), read_only=True)) as zodb,
        closing(FileStorage(path, read_only=True)) as ours,
    ):
        assert len(ours) == len(zodb)
        assert ours.lastTransaction() == zodb.lastTransaction()
        for oid in list(zodb._index):
            tids = [entry["tid"] for entry in zodb.history(oid, 100)]
            assert [entry.tid for entry in ours.revisions(oid, 100)] == tids
            for before in [MAX_TID, *tids, *map(successor, tids)]:
                assert answer(ours.loadBefore, oid, before) == answer(zodb.loadBefore, oid, before)
            for tid in tids:
                assert answer(ours.loadSerial, oid, tid) == answer(zodb.loadSerial, oid, tid)


def answer(call: Callable[..., Any], *args: bytes) -> object:
    try:
        return call(*args)
    except KeyError:
        return KeyError


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(("undo", "pack"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_zodb_wrote_is_all_there(tmp_path: Path, undo: bool, pack: bool, indexed: bool) -> None:
    path = tmp_path / "Data.fs"
    written_by_zodb(path, undo=undo, pack=pack)
    if not indexed:
        (tmp_path / "Data.fs.index").unlink()
    content = path.read_bytes()
    with closing(FileStorage(path)) as storage:
        assert our_log(storage.transactions()) == zodb_log(path)
    assert path.read_bytes() == content
    assert_same_loads(path)


@pytest.mark.parametrize("indexed", [True, False])
def test_zodb_reads_what_we_wrote(tmp_path: Path, indexed: bool) -> None:
    path = tmp_path / "Data.fs"
    with closing(ZODB.DB(FileStorage(path))) as db:
        fill(db)
    if not indexed:
        (tmp_path / "Data.fs.index").unlink()
    with closing(ZODBFileStorage(str(path))) as zodb:
        assert zodb._used_index == indexed
    with closing(FileStorage(path, read_only=True)) as storage:
        assert our_log(storage.transactions()) == zodb_log(path)
    assert_same_loads(path)
    assert zodb_script("fstest", path) == ""
    assert zodb_script("fsrefs", path) == ""


def test_our_index_is_the_one_that_zodb_makes(tmp_path: Path) -> None:
    path, index = tmp_path / "Data.fs", tmp_path / "Data.fs.index"
    with closing(ZODB.DB(FileStorage(path))) as db:
        fill(db)
    ours = fsIndex.load(str(index))
    index.unlink()
    ZODBFileStorage(str(path)).close()
    zodbs = fsIndex.load(str(index))
    assert ours["pos"] == zodbs["pos"] == path.stat().st_size
    assert dict(ours["index"].items()) == dict(zodbs["index"].items())


def test_both_take_turns_on_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "Data.fs"
    for number in range(6):
        with closing(ZODB.DB(FileStorage(path) if number % 2 else ZODBFileStorage(str(path)))) as db:
            with db.transaction() as connection:
                assert connection.root().get("count", 0) == number
                connection.root()["count"] = number + 1
                connection.root()[f"tree{number}"] = OOBTree(dict.fromkeys(range(200), "x"))
            if number == 4:
                undo_some_counting(db)
    assert_same_loads(path)
    assert zodb_script("fstest", path) == ""
    assert not caplog.records


def undo_some_counting(db: Any) -> None:
    """Undo a note made for that, leaving the count as it was."""
    with db.transaction() as connection:
        connection.root()["note"] = "undone at once"
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()


def test_an_index_left_behind_by_either_is_no_harm(tmp_path: Path) -> None:
    path, index, kept = tmp_path / "Data.fs", tmp_path / "Data.fs.index", tmp_path / "kept"
    for first, second in ((FileStorage, ZODBFileStorage), (ZODBFileStorage, FileStorage)):
        with closing(ZODB.DB(first(str(path)))) as db:
            fill(db, 1)
        shutil.copy(index, kept)
        with closing(ZODB.DB(second(str(path)))) as db:
            fill(db, 1)
        shutil.copy(kept, index)
        assert_same_loads(path)
        with closing(first(str(path))) as storage:
            assert storage.lastTransaction() == zodb_log(path)[-1][0]


def test_a_torn_tail_of_zodbs_is_cut_where_zodb_would(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    written_by_zodb(path, undo=False, pack=False)
    whole = path.stat().st_size
    storage = ZODBFileStorage(str(path))
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.store(bytes(8), storage.load(bytes(8))[1], b"voted, never finished", "", txn)
    storage.tpc_vote(txn)
    shutil.copy(path, tmp_path / "Crashed.fs")
    storage.tpc_abort(txn)
    storage.close()
    assert (tmp_path / "Crashed.fs").stat().st_size > whole
    with closing(FileStorage(tmp_path / "Crashed.fs")) as ours:
        assert ours.getSize() == whole
    assert (tmp_path / "Crashed.fs").read_bytes() == path.read_bytes()


@pytest.fixture(params=["file", "mapping"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ZODBStorage:
    return FileStorage(tmp_path / "Data.fs") if request.param == "file" else MappingStorage()


def test_zodbs_db_runs_on_our_storages(storage: ZODBStorage) -> None:
    with closing(ZODB.DB(storage)) as db:
        fill(db)
        with db.transaction() as connection:
            tree = connection.root()["tree"]
            assert len(tree) == 500
            assert tree["4-99"]["key"] == "x" * 99 * 40
            assert connection.root()["mapping"]["last"] == 4
            oid = connection.root()["mapping"]._p_oid
        assert db.objectCount() == len(storage) > 500
        history = db.history(oid, 10)
        assert [entry["user_name"] for entry in history[:2]] == ["/ user4", "/ user3"]


def test_zodbs_connections_conflict_and_invalidate(storage: ZODBStorage) -> None:
    with closing(ZODB.DB(storage)) as db:
        fill(db, 1)
        managers = [transaction.TransactionManager() for _ in range(2)]
        one, two = (db.open(manager).root()["mapping"] for manager in managers)
        one["key"], two["key"] = "one", "two"
        managers[0].commit()
        with pytest.raises(ConflictError) as caught:
            managers[1].commit()
        assert caught.value.oid == one._p_oid
        assert caught.value.class_name == "persistent.mapping.PersistentMapping"
        managers[1].abort()
        assert two["key"] == "one"
        for attempt in managers[1].attempts():
            with attempt:
                two["key"] = "two"
        managers[0].begin()
        assert one["key"] == "two"


def test_zodb_asks_for_what_was_read_to_be_current(storage: ZODBStorage) -> None:
    with closing(ZODB.DB(storage)) as db:
        fill(db, 1)
        managers = [transaction.TransactionManager() for _ in range(2)]
        one, two = (db.open(manager) for manager in managers)
        assert "last" in two.root()["mapping"]
        two.readCurrent(two.root()["mapping"])
        two.root()["new"] = 1
        one.root()["mapping"]["key"] = "changed"
        managers[0].commit()
        with pytest.raises(ConflictError):
            managers[1].commit()
        managers[1].abort()


def test_objects_unknown_to_us_are_key_errors_for_zodb(storage: ZODBStorage) -> None:
    with closing(ZODB.DB(storage)) as db, db.transaction() as connection, pytest.raises(POSKeyError):
        connection.get(b"\0\0\0\0\0\1\0\0")
