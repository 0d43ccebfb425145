"""The past: connections to it, and how its moments are named."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
from persistent.timestamp import TimeStamp

from tests.client.objects import Node
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.historical import tid_before
from zeo_core.errors import POSKeyError, ReadOnlyHistoryError
from zeo_core.ids import MAX_TID, Oid, Tid, pack_id, successor, tid_from_time, tid_to_time, unpack_id
from zeo_server.storages.mapping import MappingStorage

WHEN = datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        WHEN,
        WHEN.replace(tzinfo=None),
        WHEN.astimezone(timezone(timedelta(hours=5))),
        WHEN.timestamp(),
        tid_from_time(WHEN.timestamp()),
        TimeStamp(tid_from_time(WHEN.timestamp())),
    ],
    ids=repr,
)
def test_a_moment_has_many_names(moment: Any) -> None:
    tid = tid_from_time(WHEN.timestamp())
    assert tid_before(None, moment) == tid
    assert tid_before(moment, None) == successor(tid)


def test_no_moment() -> None:
    assert tid_before(None, None) is None
    with pytest.raises(ValueError, match="not both"):
        tid_before(WHEN, WHEN)


@pytest.mark.parametrize(
    "moment", ["2026-03-04", b"short", True, object(), ()], ids=["text", "bytes", "bool", "object", "tuple"]
)
def test_what_is_no_moment(moment: Any) -> None:
    with pytest.raises(ValueError, match="is no moment"):
        tid_before(moment, None)
    with pytest.raises(ValueError, match="is no moment"):
        tid_before(None, moment)


@pytest.fixture
def tids(db: DB) -> list[Tid]:
    """The tids of three transactions: value 0, 1 and 2."""
    committed = []
    for value in range(3):
        with db.transaction() as conn:
            if value == 0:
                conn.root.node = Node()
            conn.root.node.value = value
        committed.append(db.lastTransaction())
    return committed


def past(db: DB, **moment: Any) -> Connection:
    return db.open(transaction.TransactionManager(), **moment)


def test_as_of_and_before(db: DB, tids: list[Tid]) -> None:
    for value, tid in enumerate(tids):
        assert past(db, at=tid).root.node.value == value
    assert past(db, before=tids[2]).root.node.value == 1
    assert past(db, before=successor(tids[2])).root.node.value == 2
    assert not hasattr(past(db, before=tids[0]).root, "node")
    assert past(db, at=tids[1]).before == successor(tids[1])
    assert db.open().before is None


def test_by_the_clock(db: DB, tids: list[Tid]) -> None:
    moment = datetime.fromtimestamp(tid_to_time(tids[1]), UTC)
    seen = past(db, before=moment)
    assert seen.before is not None
    assert seen.root.node.value in (0, 1)  # a datetime has microseconds, a tid is finer


def test_what_is_committed_later_is_not_seen(db: DB, tids: list[Tid]) -> None:
    conn = past(db, at=tids[2])
    assert conn.root.node.value == 2
    with db.transaction() as other:
        other.root.node.value = 3
    conn.sync()
    conn.cacheMinimize()
    assert conn.root.node.value == 2


def test_an_object_that_was_not_there_yet(db: DB, tids: list[Tid]) -> None:
    with db.transaction() as conn:
        oid: Oid = conn.root.node._p_oid
    with pytest.raises(POSKeyError):
        past(db, before=tids[0]).get(oid)


def test_nothing_can_be_committed(db: DB, tids: list[Tid]) -> None:
    conn = past(db, at=tids[1])
    assert conn.isReadOnly()
    conn.root.node.value = 7
    with pytest.raises(ReadOnlyHistoryError, match="shows the database as it was before"):
        conn.transaction_manager.commit()
    conn.transaction_manager.abort()
    assert conn.root.node.value == 1
    assert db.lastTransaction() == tids[2]


def test_nothing_can_be_added_or_kept_aside(db: DB, tids: list[Tid]) -> None:
    conn = past(db, at=tids[1])
    with pytest.raises(ReadOnlyHistoryError):
        conn.add(Node())
    with pytest.raises(ReadOnlyHistoryError):
        conn.new_oid()
    conn.transaction_manager.abort()
    conn.root.node.value = 7
    with pytest.raises(ReadOnlyHistoryError):
        conn.transaction_manager.savepoint()
    conn.transaction_manager.abort()


def test_the_future_cannot_be_seen(db: DB, tids: list[Tid]) -> None:
    for moment in (successor(tids[2]), datetime.now(UTC) + timedelta(days=1), MAX_TID[:-1] + b"\0"):
        with pytest.raises(ValueError, match="cannot open an historical connection in the future"):
            past(db, at=moment)
    past(db, at=tids[2]).close()
    past(db, before=successor(tids[2])).close()


class Late(MappingStorage):
    """A client's storage that hears of the last transaction only when it asks."""

    def __init__(self) -> None:
        super().__init__()
        self.behind = False

    def last_tid(self) -> Tid:
        last = super().last_tid()
        return pack_id(unpack_id(last) - 1) if self.behind else last

    def ping(self) -> None:
        self.behind = False


def test_a_transaction_of_another_client_is_asked_for() -> None:
    storage = Late()
    with DB(storage) as db:
        last = db.lastTransaction()
        storage.behind = True
        assert past(db, at=last).before == successor(last)


def test_a_transaction_of_another_client_is_asked_for_beside_a_connection_to_the_past(db: DB) -> None:
    storage = Late()
    with DB(storage, database_name="late", databases=db.databases) as late:
        with db.transaction() as conn:
            conn.root.a = 1
        last = late.lastTransaction()
        storage.behind = True
        beside = past(db, at=db.lastTransaction()).get_connection("late")
        assert beside.before == successor(last)


def test_they_have_a_pool_of_their_own(db: DB, tids: list[Tid]) -> None:
    conn = past(db, at=tids[1])
    conn.close()
    assert past(db, before=successor(tids[1])) is conn
    assert past(db, at=tids[0]) is not conn
    assert db.open() is not conn


def test_a_view_hears_of_nothing(db: DB, tids: list[Tid]) -> None:
    conn = past(db, at=tids[1])
    assert conn._snapshot not in list[object](db.hub._listeners)
    assert conn._snapshot.advance() == ()
    conn._snapshot.release()


def test_closing_the_database_ends_them(storage: MappingStorage) -> None:
    db = DB(storage)
    conn = past(db, at=db.lastTransaction())
    db.close()
    assert conn.opened is None
