"""Undoing transactions through a DB."""

from pathlib import Path
from typing import Any

import pytest
import transaction

from tests.client.objects import Node, Session
from tests.fixtures_zeod import StartZeod
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_client.undo import Undo, undo_ids
from zeo_core.errors import StorageTransactionError, UndoError
from zeo_core.ids import Tid
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture(params=["memory", "file", "served"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "served":
        start_zeod: StartZeod = request.getfixturevalue("start_zeod")
        return ClientStorage(start_zeod("-f", "served.fs").url.removeprefix("zeo://"))
    return MappingStorage() if request.param == "memory" else FileStorage(tmp_path / "Data.fs")


@pytest.fixture
def tids(db: DB) -> list[Tid]:
    """The tids of the transactions that gave node `a` the values 0, 1, 2, and of one that gave `b` 10."""
    committed = []
    for value in range(3):
        with db.transaction(f"a is {value}") as conn:
            if value == 0:
                conn.root.a, conn.root.b = Node(), Node(value=0)
            conn.root.a.value = value
        committed.append(db.lastTransaction())
    with db.transaction("b is 10") as conn:
        conn.root.b.value = 10
    return [*committed, db.lastTransaction()]


def values(db: DB) -> tuple[int, int]:
    with db.transaction() as conn:
        return conn.root.a.value, conn.root.b.value


def test_one_transaction(db: DB, tids: list[Tid]) -> None:
    db.undo(tids[3])
    assert values(db) == (2, 10)  # not before the commit
    transaction.get().note("never mind b")
    transaction.commit()
    assert values(db) == (2, 0)
    assert db.undoLog(0, 1)[0]["description"] == "never mind b"


def test_by_the_id_of_the_log(db: DB, tids: list[Tid]) -> None:
    manager = transaction.TransactionManager()
    [line] = [line for line in db.undoLog() if line["description"] == "b is 10"]
    db.undo(line["id"], manager.get())
    manager.commit()
    assert values(db) == (2, 0)


def test_several_in_one(db: DB, tids: list[Tid]) -> None:
    db.undo([tids[2], tids[1]])
    db.undo(tids[3])
    transaction.commit()
    assert values(db) == (0, 0)
    db.undoMultiple([db.undoLog(0, 1)[0]["id"].decode()])  # the undo of undo
    transaction.commit()
    assert values(db) == (2, 10)


def test_connections_load_again_what_was_undone(db: DB, tids: list[Tid], ann: Session) -> None:
    own = db.open()
    assert (own.root.b.value, ann.root["b"].value) == (10, 10)
    db.undo(tids[3])
    transaction.commit()
    assert own.root.b.value == 0  # it is in the same transaction
    assert ann.root["b"].value == 10  # its snapshot is older
    ann.manager.begin()
    assert ann.root["b"].value == 0


def test_what_was_changed_since_cannot_be_undone(db: DB, tids: list[Tid]) -> None:
    db.undo(tids[1])
    with pytest.raises(UndoError, match="changed by a later transaction"):
        transaction.commit()
    transaction.abort()
    assert values(db) == (2, 10)
    with db.transaction() as conn:  # nothing is left in the way
        conn.root.a.value = 3


def test_an_abort_undoes_nothing(db: DB, tids: list[Tid]) -> None:
    db.undo(tids[3])
    transaction.abort()
    transaction.commit()
    assert values(db) == (2, 10)


def test_a_transaction_that_there_is_not(db: DB) -> None:
    db.undo(b"\0" * 7 + b"\1")
    with pytest.raises(UndoError, match="there is no transaction"):
        transaction.commit()
    transaction.abort()


@pytest.mark.parametrize("tid", [5, None, 1.5], ids=repr)
def test_what_names_no_transaction(db: DB, tid: Any) -> None:
    with pytest.raises(UndoError, match="names no transaction"):
        db.undo([tid])


def test_names() -> None:
    tid = bytes(range(8))
    assert undo_ids(tid) == undo_ids([tid]) == [b"AAECAwQFBgc="]
    assert undo_ids("AAECAwQFBgc=") == undo_ids([b"AAECAwQFBgc="]) == [b"AAECAwQFBgc="]


def test_beside_changes_of_the_same_database(db: DB, tids: list[Tid]) -> None:
    """Both would wait for the storage: the error says so instead."""
    conn = db.open()
    conn.root.a.value = 5
    db.undo(tids[3])
    with pytest.raises(StorageTransactionError, match="or a connection and an undo"):
        transaction.commit()
    transaction.abort()
    assert values(db) == (2, 10)


def test_beside_changes_of_another_database(db: DB, tids: list[Tid]) -> None:
    with DB(MappingStorage("other")) as other:
        other.open().root.a = 1
        db.undo(tids[3])
        transaction.commit()
        assert values(db) == (2, 0)
        with other.transaction() as conn:
            assert conn.root.a == 1


def test_savepoints(db: DB, tids: list[Tid]) -> None:
    before = transaction.savepoint()
    db.undo(tids[3])
    middle = transaction.savepoint()
    db.undo(tids[2])
    middle.rollback()
    transaction.commit()
    assert values(db) == (2, 0)
    with pytest.raises(transaction.interfaces.InvalidSavepointRollbackError):
        before.rollback()


def test_a_rollback_to_before_the_first(db: DB, tids: list[Tid]) -> None:
    savepoint = transaction.savepoint()
    db.undo(tids[2])
    savepoint.rollback()
    db.undo(tids[3])
    transaction.commit()
    assert values(db) == (2, 0)


def test_one_resource_a_transaction(db: DB, tids: list[Tid]) -> None:
    manager = transaction.TransactionManager()
    assert Undo.of(db, manager.get()) is Undo.of(db, manager.get())
    assert Undo.of(db, manager.get()).sortKey().startswith(db.getName())
    manager.abort()


def test_the_log(db: DB, tids: list[Tid]) -> None:
    assert [line["description"] for line in db.undoLog(0, 2)] == ["b is 10", "a is 2"]
    assert [line["description"] for line in db.undoLog(1, -2)] == ["a is 2", "a is 1"]
    assert [line["description"] for line in db.undoLog(filter=lambda line: b"1" in line["description"])] == [
        "b is 10",
        "a is 1",
    ]
    assert [line["description"] for line in db.undoInfo(specification={"description": b"a is 1"})] == ["a is 1"]
    assert db.undo_info(0, 1) == db.undoInfo(0, 1) == db.undoLog(0, 1)


def test_the_history_of_an_object(db: DB, tids: list[Tid]) -> None:
    with db.transaction() as conn:
        oid = conn.root.a._p_oid
    assert [line["tid"] for line in db.history(oid, 10)] == tids[2::-1]
    [line] = db.history(oid)
    assert (line["description"], line["user_name"]) == ("a is 2", "")


class Forgetful(MappingStorage):
    def supportsUndo(self) -> bool:  # noqa: N802
        return False


def test_a_storage_without_history() -> None:
    with DB(Forgetful()) as db:
        assert not db.supportsUndo()
        assert db.undoLog() == db.undoInfo() == []
        with pytest.raises(NotImplementedError, match="cannot undo"):
            db.undo(db.lastTransaction())
