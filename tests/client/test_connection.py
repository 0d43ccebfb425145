"""Connections: objects, transactions and what they show."""

import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.interfaces import IConnection
from zope.interface.verify import verifyObject

from tests.client.objects import Node, Plain, Session, state_of, write
from zeo_client.connection import Connection, resetCaches
from zeo_client.db import DB
from zeo_core.errors import (
    ConflictError,
    ConnectionStateError,
    InvalidObjectReference,
    POSKeyError,
    ReadConflictError,
    StateLoadError,
    StorageTransactionError,
    UnpicklableError,
)
from zeo_core.ids import ROOT_OID, ZERO_TID, Oid, Tid, oid_repr, pack_id
from zeo_server.storages.mapping import MappingStorage

# -- objects


def test_it_is_what_zodb_calls_a_connection(conn: Connection) -> None:
    verifyObject(IConnection, conn)


def test_the_root_is_a_mapping_and_a_name_space(conn: Connection) -> None:
    conn.root.answer = 42
    assert conn.root()["answer"] == conn.root.answer == 42
    assert isinstance(conn.root(), PersistentMapping)
    assert conn.root()._p_oid == ROOT_OID


def test_what_was_committed_is_there_for_the_next(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=1, children=[Node(x=2), Plain(x=3)])
    ann.commit()
    bob.conn.sync()
    a = bob.root["a"]
    assert (a.x, a.children[0].x, a.children[1].x) == (1, 2, 3)
    assert a is not ann.root["a"]
    assert a._p_oid == ann.root["a"]._p_oid


def test_objects_come_as_ghosts_and_are_the_same_each_time(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=1)
    ann.commit()
    bob.conn.sync()
    a = bob.root["a"]
    assert state_of(a) == "ghost"
    assert a.x == 1
    assert state_of(a) == "clean"
    assert a._p_serial == ann.root["a"]._p_serial == bob.conn.db().lastTransaction()
    assert bob.conn.get(a._p_oid) is bob.conn[a._p_oid] is a


def test_the_size_of_a_record_is_known(ann: Session) -> None:
    ann.root["a"] = Node(x="x" * 10_000)
    ann.commit()
    stored = ann.root["a"]._p_estimated_size
    ann.conn.cacheMinimize()
    assert ann.root["a"].x
    assert ann.root["a"]._p_estimated_size == stored > 10_000


def test_get_by_oid_loads_the_class(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=1)
    ann.commit()
    bob.conn.sync()
    a = bob.conn.get(ann.root["a"]._p_oid)
    assert (type(a), a._p_changed, a.x) == (Node, None, 1)


def test_an_unknown_oid_is_a_key_error(conn: Connection) -> None:
    with pytest.raises(POSKeyError, match="0x2a"):
        conn.get(pack_id(42))
    with pytest.raises(KeyError):
        conn[pack_id(42)]


def test_add_gives_an_oid_at_once(ann: Session, bob: Session) -> None:
    node = Node(x=1)
    ann.conn.add(node)
    ann.conn.add(node)
    assert node._p_jar is ann.conn
    assert ann.conn.get(node._p_oid) is node
    ann.commit()
    bob.conn.sync()
    assert bob.conn.get(node._p_oid).x == 1


def test_add_refuses_what_it_cannot_store(ann: Session, bob: Session) -> None:
    with pytest.raises(TypeError, match=r"not tests\.client\.objects\.Plain: derive it from Persistent"):
        ann.conn.add(Plain())
    node = Node()
    bob.conn.add(node)
    with pytest.raises(InvalidObjectReference, match=f"belongs to .*{id(bob.conn):#x}"):
        ann.conn.add(node)


def test_an_object_added_while_another_is_stored_is_stored_too(ann: Session, bob: Session) -> None:
    ann.root["a"] = Adding()
    ann.commit()
    bob.conn.sync()
    assert bob.conn.get(bob.root["a"].added).x == 1


class Adding(Node):
    def __getstate__(self) -> Any:
        added = Node(x=1)
        self._p_jar.add(added)
        self.added = added._p_oid
        return super().__getstate__()


def test_changes_are_seen_only_as_a_whole_object(ann: Session, bob: Session) -> None:
    """A change inside of what is not persistent has to be told: the old rule of persistence."""
    ann.root["a"] = Node(items=[])
    ann.commit()
    ann.root["a"].items.append(1)
    ann.commit()
    bob.conn.sync()
    assert bob.root["a"].items == []
    ann.root["a"]._p_changed = True
    ann.commit()
    bob.conn.sync()
    assert bob.root["a"].items == [1]


def test_a_change_that_was_taken_back_is_not_stored(ann: Session) -> None:
    ann.root["a"] = 1
    ann.commit()
    last = ann.root._p_serial
    ann.root["a"] = 2
    ann.root._p_changed = False
    ann.root._p_deactivate()
    ann.commit()
    assert ann.root["a"] == 1
    assert ann.root._p_serial == last


# -- abort


def test_an_abort_forgets_changes_and_new_objects(ann: Session) -> None:
    ann.root["a"] = Node(x=1)
    ann.commit()
    added, reached = Node(), Node()
    ann.conn.add(added)
    ann.root["a"].x = 2
    ann.root["reached"] = reached
    ann.manager.abort()
    assert ann.root["a"].x == 1
    assert "reached" not in ann.root
    for obj in (added, reached):
        assert (obj._p_jar, obj._p_oid, obj._p_serial) == (None, None, ZERO_TID)


def test_a_commit_that_fails_forgets_the_new_objects_that_it_met(ann: Session, bob: Session) -> None:
    """Also those that were given an oid, but not stored before it failed."""
    good, unmet = Node(), Node()
    ann.root["bad"] = bad = Node(first=good, lock=threading.Lock(), other=unmet)
    with pytest.raises(UnpicklableError):
        ann.commit()
    ann.manager.abort()
    assert [obj._p_jar for obj in (good, unmet, bad)] == [None] * 3
    ann.root["good"] = good
    ann.commit()
    bob.conn.sync()
    assert type(bob.root["good"]) is Node


def test_after_a_conflict_new_objects_can_be_stored_again(ann: Session, bob: Session) -> None:
    node = Node(child=Node(x=1))
    ann.root["a"] = node
    bob.root["b"] = 1
    bob.commit()
    with pytest.raises(ConflictError):
        ann.commit()
    ann.manager.abort()
    assert node._p_oid is node.child._p_oid is None
    ann.root["a"] = node
    ann.commit()
    bob.conn.sync()
    assert bob.root["a"].child.x == 1


def test_another_resource_that_refuses_takes_this_one_with_it(ann: Session, bob: Session) -> None:
    node = ann.root["a"] = Node()
    ann.manager.get().join(Refusing())
    with pytest.raises(RuntimeError, match="refused"):
        ann.commit()
    ann.manager.abort()
    assert node._p_jar is None
    bob.root["b"] = 1  # the storage is not left locked
    bob.commit()
    assert "a" not in ann.root


class Refusing:
    """A resource that fails when all others have voted."""

    transaction_manager = None

    def abort(self, _transaction: object) -> None:
        """Do nothing."""

    tpc_begin = commit = tpc_finish = tpc_abort = abort

    def tpc_vote(self, _transaction: object) -> None:
        raise RuntimeError("refused")

    def sortKey(self) -> str:  # noqa: N802
        return "~"


def test_two_connections_in_one_transaction_are_refused(db: DB) -> None:
    manager = transaction.TransactionManager()
    one, two = db.open(manager), db.open(manager)
    one.root.a = 1
    two.root.b = 1
    with pytest.raises(StorageTransactionError, match="one connection a transaction"):
        manager.commit()
    manager.abort()
    one.root.a = 1
    manager.commit()
    assert two.root.a == 1


# -- closing


def test_a_closed_connection_says_so(db: DB, ann: Session) -> None:
    ann.root["a"] = Node(x=1)
    ann.commit()
    a, conn = ann.root["a"], ann.conn
    a._p_deactivate()
    conn.close()
    conn.close()
    for action in (lambda: conn.root, lambda: conn.add(Node()), conn.sync, conn.isReadOnly, lambda: a.x):
        with pytest.raises(ConnectionStateError, match="closed"):
            action()
    with pytest.raises(ConnectionStateError, match="change an object"):
        ann.conn.register(a)


def test_a_connection_with_changes_cannot_be_closed(ann: Session) -> None:
    ann.root["a"] = 1
    with pytest.raises(ConnectionStateError, match="commit or abort"):
        ann.conn.close()
    ann.manager.abort()
    ann.conn.close()


def test_names(ann: Session, db: DB) -> None:
    assert ann.conn.db() is db
    assert ann.conn.get_connection("unnamed") is ann.conn
    assert repr(ann.conn).startswith("<open Connection to 'unnamed'")
    assert ann.conn.isReadOnly() is False
    assert ann.conn.sortKey().startswith("Mapping Storage:")
    ann.conn.close()
    assert repr(ann.conn).startswith("<closed Connection")


def test_the_cache_is_kept_to_its_size_at_the_end_of_a_transaction(storage: MappingStorage) -> None:
    with DB(storage, cache_size=10) as db:
        ann = Session(db)
        ann.root["all"] = [Node(x=number) for number in range(100)]
        ann.commit()
        assert sum(node.x for node in ann.root["all"]) == 4950
        assert ann.conn.cached > 100  # nothing goes in the middle of a transaction
        ann.manager.abort()
        assert ann.conn.cached <= 10


def test_the_cache_is_kept_to_its_bytes(storage: MappingStorage) -> None:
    with DB(storage, cache_size_bytes=50_000) as db:
        ann = Session(db)
        ann.root["all"] = [Node(x="x" * 10_000) for _ in range(20)]
        ann.commit()
        assert ann.conn.cached <= 10


def test_a_change_behind_the_back_is_seen(ann: Session, storage: MappingStorage) -> None:
    ann.root["a"] = a = Node(x=1)
    ann.commit()
    data, _ = ann.conn._snapshot.load(a._p_oid)
    write(storage, {a._p_oid: data.replace(b"K\x01", b"K\x07")})
    assert a.x == 1
    ann.conn.sync()
    assert a.x == 7


# -- loading


def test_a_past_state_can_be_looked_at(ann: Session) -> None:
    ann.root["a"] = a = Node(x=1, other=Node(x=5))
    ann.commit()
    first = a._p_serial
    a.x = 2
    ann.commit()
    past = ann.conn.oldstate(a, first)
    assert (past["x"], past["other"]) == (1, a.other)
    assert (a.x, ann.conn.oldstate(a, a._p_serial)["x"]) == (2, 2)
    with pytest.raises(POSKeyError):
        ann.conn.oldstate(a, pack_id(1))


def test_a_state_that_cannot_be_loaded_is_logged(ann: Session, caplog: pytest.LogCaptureFixture) -> None:
    ann.root["a"] = a = Refractory(x=1)
    ann.commit()
    oid = oid_repr(a._p_oid)
    a._p_deactivate()
    with pytest.raises(StateLoadError):
        _ = a.x
    unknown = Refractory.__new__(Refractory)
    ann.conn._cache.new_ghost(pack_id(99), unknown)
    with pytest.raises(POSKeyError):
        _ = unknown.x
    texts = [record.getMessage() for record in caplog.records if record.name == "zeo_client.serialize"]
    name = "tests.client.test_connection.Refractory"
    assert texts == [f"cannot load the state of {name} with oid {each}" for each in (oid, "0x63")]
    assert all(record.exc_info for record in caplog.records)


class Refractory(Node):
    def __setstate__(self, _state: Any) -> None:
        raise RuntimeError("no")


def test_a_closed_connection_that_is_asked_for_a_state_is_logged(
    ann: Session, caplog: pytest.LogCaptureFixture
) -> None:
    ann.root["a"] = a = Node(x=1)
    ann.commit()
    a._p_deactivate()
    ann.conn.close()
    with pytest.raises(ConnectionStateError):
        _ = a.x
    [record] = caplog.records
    assert record.exc_info


def test_a_read_conflict_names_the_class_and_is_not_logged(
    ann: Session, bob: Session, storage: MappingStorage, caplog: pytest.LogCaptureFixture
) -> None:
    ann.root["a"] = Node(x=1)
    ann.commit()
    bob.conn.sync()
    ghost = bob.root["a"]
    ann.root["a"].x = 2
    ann.commit()
    storage.pack(time.time() + 1)
    with pytest.raises(ReadConflictError, match=r"class tests\.client\.objects\.Node"):
        _ = ghost.x
    assert caplog.records == []


def test_loads_and_stores_are_counted(ann: Session) -> None:
    ann.root["a"] = Node(x=1)
    ann.manager.savepoint()
    ann.root["a"].x = 2
    ann.commit()
    ann.conn.cacheMinimize()
    ann.conn.getTransferCounts(clear=True)
    assert ann.root["a"].x == 2
    ann.root["a"].x = 3
    ann.commit()
    assert ann.conn.getTransferCounts(clear=True) == (2, 1)
    assert ann.conn.getTransferCounts() == (0, 0)


def test_a_full_sweep_makes_ghosts_of_what_was_not_used_since(ann: Session) -> None:
    ann.root["a"] = a = Node(x=1)
    ann.commit()
    ann.conn.cacheFullSweep()
    ann.conn.cacheFullSweep()
    assert state_of(a) == "ghost"


class Far(MappingStorage):
    """Notes what is fetched beforehand, and when it is to catch up."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[object, ...]] = []
        self.synced = 0

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        self.asked.append((list(oids), tid, *((depth, max_bytes) if depth else ())))

    def sync(self, force: bool = True) -> None:
        assert force
        self.synced += 1


def test_objects_are_fetched_beforehand_where_the_storage_can() -> None:
    far = Far()
    with DB(far) as db:
        ann = Session(db)
        ann.root["nodes"] = nodes = [Node(x=number) for number in range(3)]
        ann.commit()
        oids = [node._p_oid for node in nodes]
        ann.conn.prefetch(oids[0], nodes[1:], (oid for oid in oids), ann.root, Node())
        ann.conn.prefetch()
        ann.conn.prefetch(oids[0], depth=2, max_bytes=10)
        start = ann.conn._snapshot.start
        assert far.asked == [([*oids, *oids, ROOT_OID], start), ([], start), ([oids[0]], start, 2, 10)]


def test_other_storages_fetch_nothing_beforehand(ann: Session) -> None:
    ann.conn.prefetch(ROOT_OID, ann.root, [ROOT_OID])


def test_a_storage_catches_up_when_a_transaction_begins_and_only_then() -> None:
    far = Far()
    with DB(far) as db:
        far.synced = 0
        ann = Session(db)
        assert far.synced == 0
        ann.root["a"] = 1
        ann.commit()
        ann.root["a"] = 2
        ann.manager.abort()
        assert far.synced == 0
        ann.manager.begin()
        ann.conn.sync()
        assert far.synced == 2
        eve = transaction.TransactionManager()
        eve.begin()
        db.open(eve)
        assert far.synced == 3


# -- closing


def test_callbacks_are_called_once_when_it_is_closed(db: DB, caplog: pytest.LogCaptureFixture) -> None:
    conn, called = db.open(), []

    def fail() -> None:
        raise RuntimeError("on purpose")

    conn.onCloseCallback(fail)
    conn.onCloseCallback(lambda: called.append(1))
    conn.close()
    assert called == [1]
    assert "on purpose" in caplog.text
    assert "failed, which was to be called when it is closed" in caplog.text
    assert db.open() is conn
    conn.close()
    assert called == [1]


def test_a_database_may_be_closed_with_its_connection(db: DB) -> None:
    conn = db.open()
    conn.onCloseCallback(db.close)
    conn.close()
    assert db.closed
    assert conn.opened is None


def test_debug_information_ends_with_the_opening(db: DB) -> None:
    conn = db.open()
    conn.setDebugInfo("a")
    conn.setDebugInfo("b", "c")
    assert conn.getDebugInfo() == ("a", "b", "c")
    conn.close()
    assert db.open() is conn
    assert conn.getDebugInfo() == ()


def test_caches_can_be_reset_for_classes_that_were_loaded_anew(db: DB) -> None:
    manager = transaction.TransactionManager()
    conn = db.open(manager)
    conn.root.a = before = Node(x=1)
    manager.commit()
    resetCaches()
    assert conn.root.a is before  # nothing changes under a connection that is open
    conn.close()
    again = db.open(manager)
    assert again is conn
    assert again.root.a is not before
    again.root.a.x += 1
    manager.commit()
    assert again.root.a._p_serial == db.lastTransaction()
