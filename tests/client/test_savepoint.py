"""Savepoints: the spool they are kept in, and what a connection shows, commits and forgets with them."""

import gc
from pathlib import Path
from typing import Any

import pytest
import transaction
from BTrees.OOBTree import OOBTree
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from transaction.interfaces import InvalidSavepointRollbackError

from tests.client.objects import Node, Session, state_of
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.savepoint import Mark, Savepoint, Spool
from zeo_core.errors import (
    ConflictError,
    ConnectionStateError,
    POSKeyError,
    ReadConflictError,
    StorageError,
    UnpicklableError,
)
from zeo_core.ids import ZERO_TID, Oid, pack_id
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)

# -- the spool


@pytest.mark.parametrize("memory_bytes", [0, 60, 10_000])
def test_the_last_record_of_an_object_counts_until_it_is_reset(memory_bytes: int, tmp_path: Path) -> None:
    spool = Spool(memory_bytes or 1, str(tmp_path))
    spool.store(A, ZERO_TID, b"one")
    early = spool.mark()
    spool.store(B, pack_id(7), b"x" * 100)
    spool.created[B] = True
    late = spool.mark()
    spool.store(A, ZERO_TID, b"two")
    assert spool.load(A) == (b"two", ZERO_TID)
    assert spool.load(B) == (b"x" * 100, pack_id(7))
    assert spool.oids() == [B, A]
    assert (spool.oids_since(early), spool.oids_since(late)) == ({A, B}, {A})
    assert (spool.created_since(early), spool.created_since(late)) == ({B}, set())
    spool.reset(late)
    assert spool.load(A) == (b"one", ZERO_TID)
    spool.reset(early)
    assert not spool.has(late)
    assert B not in spool
    assert len(spool) == 1
    assert spool.created == {}
    spool.store(B, ZERO_TID, b"three")
    assert (spool.load(A)[0], spool.load(B)[0]) == (b"one", b"three")
    spool.close()


def test_a_spool_leaves_no_file_behind(tmp_path: Path) -> None:
    spool = Spool(10, str(tmp_path))
    spool.store(A, ZERO_TID, b"x" * 100)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_written_or_read_says_where(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    spool = Spool(10, str(gone))
    with pytest.raises(StorageError, match=f"cannot write a savepoint to a file in {gone}"):
        spool.store(A, ZERO_TID, b"x" * 100)
    spool.close()
    spool = Spool(10, str(tmp_path))
    spool.store(A, ZERO_TID, b"x" * 100)
    spool._file.truncate(50)
    with pytest.raises(StorageError, match=r"damaged: no record of 0x01"):
        spool.load(A)
    spool.close()


# -- what a connection shows


def test_a_rollback_shows_what_was_there(ann: Session, bob: Session) -> None:
    ann.root["a"] = 1
    savepoint = ann.manager.savepoint()
    ann.root["a"], ann.root["b"] = 2, 2
    savepoint.rollback()
    assert dict(ann.root) == {"a": 1}
    ann.root["c"] = 3
    savepoint.rollback()
    assert dict(ann.root) == {"a": 1}
    ann.commit()
    bob.conn.sync()
    assert dict(bob.root) == {"a": 1}


def test_savepoints_nest(ann: Session) -> None:
    savepoints = []
    for number in range(5):
        ann.root["number"] = number
        savepoints.append(ann.manager.savepoint())
    savepoints[3].rollback()
    assert ann.root["number"] == 3
    with pytest.raises(InvalidSavepointRollbackError):
        savepoints[4].rollback()
    savepoints[1].rollback()
    assert ann.root["number"] == 1
    savepoints[0].rollback()
    ann.commit()
    assert ann.root["number"] == 0


def test_a_savepoint_before_the_first_change_is_harmless(ann: Session) -> None:
    savepoint = ann.manager.savepoint()
    ann.root["a"] = 1
    savepoint.rollback()
    assert "a" not in ann.root
    ann.root["b"] = 1
    ann.commit()
    assert ann.root["b"] == 1


def test_others_see_nothing_of_a_savepoint(ann: Session, bob: Session) -> None:
    ann.root["a"] = 1
    ann.manager.savepoint()
    bob.conn.sync()
    assert "a" not in bob.root


def test_objects_let_go_at_a_savepoint_are_loaded_from_it(storage: MappingStorage) -> None:
    with DB(storage, cache_size=10) as db:
        ann = Session(db)
        ann.root["tree"] = tree = OOBTree({number: Node(x=number) for number in range(100)})
        ann.manager.savepoint()
        assert ann.conn.cached <= 10
        tree[5].x = "changed"
        del tree[7]
        ann.manager.savepoint()
        ann.conn.cacheMinimize()
        assert ann.conn.cached == 0
        expected = [number for number in range(100) if number != 7]
        assert [node.x for node in tree.values()] == ["changed" if number == 5 else number for number in expected]
        ann.commit()
        bob = Session(db)
        assert [node.x for node in bob.root["tree"].values()][4:7] == [4, "changed", 6]
        ann.root["tree"][8].x = "changed again"  # whether or not it is in memory, its serial is known
        ann.commit()


def test_a_large_transaction_goes_to_disk(ann: Session, bob: Session) -> None:
    ann.conn._commit.spool_memory_bytes = 1000
    for number in range(20):
        ann.root[number] = Node(x="x" * 200)
        savepoint = ann.manager.savepoint()
    ann.root[20] = 1
    savepoint.rollback()
    ann.conn.cacheMinimize()
    ann.commit()
    bob.conn.sync()
    assert [len(bob.root[number].x) for number in range(20)] == [200] * 20
    assert 20 not in bob.root


def test_an_object_of_a_savepoint_is_found_by_its_oid(ann: Session) -> None:
    node = Node(x=1)
    ann.conn.add(node)
    oid = node._p_oid
    ann.manager.savepoint()
    assert ann.conn.get(oid) is node
    del node
    ann.conn.cacheMinimize()
    gc.collect()
    found = ann.conn.get(oid)
    assert (type(found), found.x) == (Node, 1)
    ann.manager.abort()
    with pytest.raises(POSKeyError):
        ann.conn.get(oid)


def test_an_abort_forgets_savepoints_too(ann: Session) -> None:
    ann.root["a"] = kept = Node(x=1)
    ann.commit()
    ann.root["b"] = new = Node()
    kept.x = 2
    savepoint = ann.manager.savepoint()
    new.x = 3  # changed again since
    ann.manager.abort()
    assert (new._p_jar, new._p_oid, new._p_changed) == (None, None, False)
    assert (kept.x, "b" in ann.root) == (1, False)
    with pytest.raises(InvalidSavepointRollbackError):
        savepoint.rollback()
    ann.root["b"] = new
    ann.commit()
    assert new.x == 3


# -- new objects


def test_a_rollback_disowns_the_objects_that_are_newer(ann: Session) -> None:
    older, newer, newest = Node(x=0), Node(x=1), Node(x=2)
    ann.root["older"] = older
    savepoint = ann.manager.savepoint()
    ann.root["newer"] = newer
    older.x = 10
    ann.manager.savepoint()
    ann.conn.add(newest)
    savepoint.rollback()
    assert older._p_jar is ann.conn
    assert older.x == 0
    for number, obj in enumerate((newer, newest), 1):
        assert (obj._p_jar, obj._p_oid, obj.x) == (None, None, number)
    ann.root["newest"] = newest
    ann.commit()
    assert sorted(ann.root) == ["newest", "older"]
    assert newest._p_serial == ann.conn.db().lastTransaction()


def test_it_is_known_which_new_objects_nobody_added(ann: Session) -> None:
    commit = ann.conn._commit
    added, met = Node(), Node()
    ann.conn.add(added)
    ann.root["met"] = met
    assert not commit.implicitly_added(added._p_oid)
    savepoint = ann.manager.savepoint()
    oid = met._p_oid
    assert (commit.implicitly_added(added._p_oid), commit.implicitly_added(oid)) == (False, True)
    met.x = 1
    ann.manager.savepoint()
    savepoint.rollback()
    assert commit.implicitly_added(oid)
    ann.commit()
    assert not commit.implicitly_added(oid)


def test_an_object_that_loads_at_once_loads_the_older_state(ann: Session) -> None:
    ann.root["eager"] = eager = Eager()
    ann.commit()
    eager.x = 1
    savepoint = ann.manager.savepoint()
    eager.x = 2
    ann.manager.savepoint()
    savepoint.rollback()
    assert eager.x == 1
    ann.manager.abort()
    assert not hasattr(eager, "x")


class Eager(Node):
    def _p_invalidate(self) -> None:
        super()._p_invalidate()
        self._p_activate()


# -- commits


def test_what_was_changed_before_and_after_a_savepoint_is_stored_once(ann: Session, bob: Session) -> None:
    ann.root["a"], ann.root["b"] = Node(x=0), Node(x=0)
    ann.commit()
    ann.root["a"].x = ann.root["b"].x = 1
    ann.manager.savepoint()
    ann.root["a"].x = 2
    ann.commit()
    tid = ann.conn.db().lastTransaction()
    bob.conn.sync()
    for root in (ann.root, bob.root):
        assert (root["a"].x, root["b"].x) == (2, 1)
        assert root["a"]._p_serial == root["b"]._p_serial == tid
    assert state_of(ann.root["a"]) == state_of(ann.root["b"]) == "clean"


def test_a_conflict_of_a_savepoint_is_found(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=0)
    ann.commit()
    bob.conn.sync()
    bob.root["a"].x = 1
    bob.manager.savepoint()
    bob.conn.cacheMinimize()
    assert bob.root["a"].x == 1  # its serial came back with it
    ann.root["a"].x = 2
    ann.commit()
    with pytest.raises(ConflictError, match=r"class tests\.client\.objects\.Node"):
        bob.commit()
    bob.manager.abort()
    assert bob.root["a"].x == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_read_current_counts_across_savepoints(ann: Session, bob: Session, when: str) -> None:
    ann.root["limit"], ann.root["b"] = Node(x=1), Node()
    ann.commit()
    bob.conn.sync()
    if when == "before":
        bob.conn.readCurrent(bob.root["limit"])
    bob.root["b"].x = 1
    bob.manager.savepoint()
    if when == "after":
        bob.conn.readCurrent(bob.root["limit"])
    ann.root["limit"].x = 0
    ann.commit()
    with pytest.raises(ReadConflictError, match=r"class tests\.client\.objects\.Node"):
        bob.commit()
    bob.manager.abort()


def test_read_current_counts_again_when_the_change_is_rolled_back(ann: Session, bob: Session) -> None:
    ann.root["limit"], ann.root["b"] = Node(x=1), Node()
    ann.commit()
    bob.conn.sync()
    bob.conn.readCurrent(bob.root["limit"])
    bob.root["b"].x = 1
    savepoint = bob.manager.savepoint()
    bob.root["limit"].x = 2
    bob.manager.savepoint()
    savepoint.rollback()
    ann.root["limit"].x = 0
    ann.commit()
    with pytest.raises(ReadConflictError):
        bob.commit()
    bob.manager.abort()


def test_a_commit_that_fails_forgets_its_savepoints(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=0)
    ann.commit()
    new = ann.root["a"].new = Node(x=1)
    ann.manager.savepoint()
    bob.conn.sync()
    bob.root["a"].x = 1
    bob.commit()
    with pytest.raises(ConflictError):
        ann.commit()
    ann.manager.abort()
    assert (new._p_jar, new._p_oid, new.x) == (None, None, 1)
    assert not hasattr(ann.root["a"], "new")


def test_a_savepoint_that_fails_leaves_only_the_abort(ann: Session) -> None:
    fine = ann.root["fine"] = Node(x=1)
    ann.root["bad"] = Node(x=lambda: None)
    with pytest.raises(UnpicklableError):
        ann.manager.savepoint()
    ann.manager.abort()
    assert fine._p_jar is None
    assert dict(ann.root) == {}
    ann.root["fine"] = fine
    ann.commit()


def test_a_connection_with_a_savepoint_cannot_be_closed(ann: Session) -> None:
    ann.root["a"] = 1
    ann.manager.savepoint()
    with pytest.raises(ConnectionStateError, match="uncommitted changes"):
        ann.conn.close()
    ann.manager.abort()
    ann.conn.close()


def test_an_optimistic_savepoint_goes_with_resources_that_have_none(ann: Session) -> None:
    ann.root["a"] = 1
    ann.manager.get().join(WithoutSavepoints())
    with pytest.raises(TypeError, match="Savepoints unsupported"):
        ann.manager.savepoint()
    ann.manager.abort()
    ann.root["a"] = 1
    ann.manager.get().join(WithoutSavepoints())
    savepoint = ann.manager.savepoint(optimistic=True)
    with pytest.raises(TypeError, match="Savepoints unsupported"):
        savepoint.rollback()
    ann.manager.abort()
    ann.root["a"] = 1
    ann.manager.get().join(WithoutSavepoints())
    ann.manager.savepoint(optimistic=True)
    ann.commit()
    assert ann.root["a"] == 1


class WithoutSavepoints:
    """A resource that goes with everything but savepoints."""

    transaction_manager = None

    def abort(self, _transaction: object) -> None:
        """Do nothing."""

    tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = abort

    def sortKey(self) -> str:  # noqa: N802
        return "~"


def test_a_savepoint_of_its_own_hand_is_checked_too(conn: Connection) -> None:
    """`transaction` invalidates savepoints itself; this is for who calls a resource's savepoint directly."""
    conn.root.a = 1
    first = conn.savepoint()
    conn.root.a = 2
    second = conn.savepoint()
    first.rollback()
    with pytest.raises(InvalidSavepointRollbackError, match="earlier savepoint"):
        second.rollback()
    conn.transaction_manager.abort()
    with pytest.raises(InvalidSavepointRollbackError, match="is over"):
        first.rollback()
    assert isinstance(first, Savepoint)


# -- a model


class Model(RuleBasedStateMachine):
    """Any order of changes, savepoints, rollbacks and evictions shows what a dictionary that is copied shows."""

    def __init__(self) -> None:
        super().__init__()
        self.db = DB(MappingStorage(), cache_size=2)
        self.user = Session(self.db)
        self.committed: dict[int, int] = {}
        self.now: dict[int, int] = {}
        self.savepoints: list[tuple[Any, dict[int, int]]] = []
        self.user.conn._commit.spool_memory_bytes = 300

    def shown(self, session: Session) -> dict[int, int]:
        return {key: node.x for key, node in session.root.items()}

    @rule(key=st.integers(0, 5), value=st.integers(0, 9))
    def change(self, key: int, value: int) -> None:
        root = self.user.root
        if key in root and value % 2:
            root[key].x = value
        else:
            root[key] = Node(x=value)
        self.now[key] = value

    @rule(key=st.integers(0, 5))
    def remove(self, key: int) -> None:
        self.user.root.pop(key, None)
        self.now.pop(key, None)

    @rule()
    def savepoint(self) -> None:
        self.savepoints.append((self.user.manager.savepoint(), dict(self.now)))

    @precondition(lambda self: self.savepoints)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.savepoints) - 1))
        savepoint, then = self.savepoints[number]
        savepoint.rollback()
        del self.savepoints[number + 1 :]
        self.now = dict(then)
        assert self.shown(self.user) == self.now

    @rule()
    def evict(self) -> None:
        self.user.conn.cacheMinimize()
        assert self.shown(self.user) == self.now

    @rule()
    def commit(self) -> None:
        self.user.commit()
        self.committed = dict(self.now)
        self.savepoints.clear()
        assert self.shown(Session(self.db)) == self.shown(self.user) == self.committed

    @rule()
    def abort(self) -> None:
        self.user.manager.abort()
        self.now = dict(self.committed)
        self.savepoints.clear()
        assert self.shown(self.user) == self.now

    def teardown(self) -> None:
        self.user.manager.abort()
        self.db.close()
        transaction.abort()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_a_mark_is_a_place(tmp_path: Path) -> None:
    spool = Spool(10, str(tmp_path))
    assert spool.mark() == Mark(0, 0)
    oid: Oid = A
    spool.store(oid, ZERO_TID, b"12345")
    assert spool.mark() == Mark(1, 29)
    spool.close()
