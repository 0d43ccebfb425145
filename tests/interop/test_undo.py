"""Undo, deletion and restoring in one Data.fs, by ours and by ZODB's FileStorage: each reads and undoes the other's."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZEO.ClientStorage
import ZODB.FileStorage
from ZODB.Connection import TransactionMetaData

from tests.contract.storages import current_serial
from tests.fixtures_runzeo import StartRunZEO
from zeo_client.db import DB
from zeo_core.ids import ROOT_OID, pack_id
from zeo_server.storages.file import FileStorage

A, B, C = pack_id(1), pack_id(2), pack_id(3)

OPENERS: dict[str, Any] = {"ours": FileStorage, "zodb": ZODB.FileStorage.FileStorage}


def transact(storage: Any, *steps: Any) -> bytes:
    """Run steps, each a method's name and its arguments, in one transaction."""
    txn = TransactionMetaData("user", "note")
    storage.tpc_begin(txn)
    for name, *arguments in steps:
        getattr(storage, name)(*arguments, txn)
    storage.tpc_vote(txn)
    tid: bytes = storage.tpc_finish(txn)
    return tid


def put(storage: Any, **objects: bytes) -> bytes:
    oids = {"a": A, "b": B, "c": C}
    return transact(
        storage,
        *(("store", oids[key], current_serial(storage, oids[key]), data, "") for key, data in objects.items()),
    )


def undo_last(storage: Any, *numbers: int) -> bytes:
    lines = storage.undoLog(0, 50)
    return transact(storage, *(("undo", lines[number]["id"]) for number in numbers))


def contents(storage: Any) -> list[object]:
    return [
        (t.tid, t.status, t.user, t.description, [(r.oid, r.tid, r.data, r.data_txn) for r in t])
        for t in storage.iterator()
    ]


def states(storage: Any) -> list[object]:
    """Return what each transaction made of its objects: ZODB writes a record for each undo, the last counts."""
    return [(t.tid, t.status, t.user, {r.oid: (r.tid, r.data) for r in t}) for t in storage.iterator()]


def write_all_kinds(storage: Any) -> None:
    """Write a file with every kind of record."""
    put(storage, a=b"a1", b=b"b1", c=b"c1")
    second = put(storage, a=b"a2", b=b"b2")
    undo_last(storage, 0)
    put(storage, a=b"a3")
    undo_last(storage, 0)
    transact(storage, ("deleteObject", B, storage.lastInvalidations(9)[2][0]))
    undo_last(storage, 0)
    put(storage, c=b"c2")
    put(storage, c=b"c3")
    undo_last(storage, 0, 1)
    assert second < storage.lastTransaction()


@pytest.mark.parametrize(("writer", "reader"), [("ours", "zodb"), ("zodb", "ours")])
def test_what_one_undoes_and_deletes_the_other_reads(tmp_path: Path, writer: str, reader: str) -> None:
    path = str(tmp_path / "Data.fs")
    with closing(OPENERS[writer](path)) as storage:
        write_all_kinds(storage)
        written = contents(storage)
        loaded = [storage.loadBefore(oid, pack_id(2**63 - 1)) for oid in (A, B, C)]
        undoable = storage.undoLog(0, 50)
    with closing(OPENERS[reader](path)) as storage:
        assert contents(storage) == written
        assert [storage.loadBefore(oid, pack_id(2**63 - 1)) for oid in (A, B, C)] == loaded
        assert storage.undoLog(0, 50) == undoable
        undo_last(storage, 0)
        last = contents(storage)
    with closing(OPENERS[writer](path)) as storage:
        assert contents(storage) == last


def test_an_undone_object_takes_a_pointer_not_its_data_again(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs")) as storage:
        put(storage, a=b"x" * 100_000)
        put(storage, a=b"y")
        size = storage.getSize()
        undo_last(storage, 0)
        undo_last(storage, 0)
        undo_last(storage, 0)
        assert storage.getSize() - size < 500
        assert storage.load(A)[0] == b"x" * 100_000


@pytest.mark.parametrize(("source", "target"), [("ours", "zodb"), ("zodb", "ours"), ("ours", "ours")])
def test_a_copy_is_the_same_whoever_makes_it(tmp_path: Path, source: str, target: str) -> None:
    with (
        closing(OPENERS[source](str(tmp_path / "Source.fs"))) as original,
        closing(OPENERS[target](str(tmp_path / "Target.fs"))) as copy,
    ):
        write_all_kinds(original)
        copy.copyTransactionsFrom(original)
        assert states(copy) == states(original)
        if source == "ours":
            assert (tmp_path / "Target.fs").stat().st_size == (tmp_path / "Source.fs").stat().st_size


@pytest.mark.parametrize("kind", ["file", "served"])
def test_our_db_undoes_on_zodbs_storages(kind: str, tmp_path: Path, start_runzeo: StartRunZEO) -> None:
    storage: Any
    if kind == "file":
        storage = ZODB.FileStorage.FileStorage(str(tmp_path / "Data.fs"))
    else:
        storage = ZEO.ClientStorage.ClientStorage(start_runzeo(tmp_path / "Data.fs").address)
    with DB(storage) as db:
        assert db.supportsUndo()
        for value in range(3):
            with db.transaction(f"value {value}") as conn:
                conn.root.value = value
        with db.transaction() as looking:
            assert looking.root.value == 2
            manager = transaction.TransactionManager()
            db.undo([line["id"] for line in db.undoLog(0, 2)], manager.get())
            manager.commit()
            assert looking.root.value == 2
            looking.sync()
            assert looking.root.value == 0
            past = db.open(transaction.TransactionManager(), before=db.history(ROOT_OID)[0]["tid"])
            assert past.root.value == 2
            past.close()
