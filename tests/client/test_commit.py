"""The phases of a commit, as a storage sees them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import transaction

from tests.client.objects import Node
from zeo_client.db import DB
from zeo_core.errors import ConflictError, InvalidObjectReference, StorageError
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.transaction import extension_map
from zeo_server.storages.mapping import MappingStorage


class Watched(MappingStorage):
    """Notes the calls; resolves what it is told to, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.resolves: list[Oid] = []
        self.fails_in = ""

    def _note(self, name: str, *details: object) -> None:
        self.calls.append((name, *details) if details else name)
        if self.fails_in == name:
            raise StorageError(f"told to fail in {name}")

    def tpc_begin(self, transaction: Any, tid: Tid | None = None, status: str | bytes = b" ") -> None:
        self._note("begin")
        super().tpc_begin(transaction, tid, status)

    def store(self, oid: Oid, serial: Tid | None, data: bytes, version: str, transaction: Any) -> None:
        self._note("store", oid, serial)
        super().store(oid, serial, data, version, transaction)

    def check_current(self, oid: Oid, serial: Tid, transaction: Any) -> None:
        self._note("check", oid, serial)
        super().check_current(oid, serial, transaction)

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        self._note("vote")
        super().tpc_vote(transaction)
        return self.resolves

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        self._note("finish")
        return super().tpc_finish(transaction, announce)

    def tpc_abort(self, transaction: Any) -> None:
        self._note("abort")
        super().tpc_abort(transaction)


@pytest.fixture
def storage() -> Watched:
    return Watched()


@pytest.fixture
def manager() -> transaction.TransactionManager:
    return transaction.TransactionManager()


def opened(db: DB, manager: transaction.TransactionManager, storage: Watched) -> Any:
    """Return the root of a new connection; what happened so far is forgotten."""
    root = db.open(manager).root()
    storage.calls.clear()
    return root


def names(storage: Watched) -> list[str]:
    return [call if isinstance(call, str) else call[0] for call in storage.calls]


def test_a_commit_goes_through_its_phases(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    before = root._p_serial
    root["a"] = node = Node()
    manager.commit()
    stores = [("store", root._p_oid, before), ("store", node._p_oid, ZERO_TID)]
    assert storage.calls == ["begin", *stores, "vote", "finish"]
    assert (node._p_serial, node._p_changed) == (root._p_serial, False) == (db.lastTransaction(), False)


def test_a_transaction_without_changes_does_not_reach_the_storage(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    assert "a" not in root
    manager.commit()
    assert storage.calls == []


def test_each_object_is_stored_once(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    node = Node()
    root._p_jar.add(node)
    root["a"] = root["b"] = node
    node.parent = root
    node.itself = node
    manager.commit()
    assert sorted(call[1] for call in storage.calls if call[0] == "store") == sorted([root._p_oid, node._p_oid])


def test_what_the_transaction_says_of_itself_is_stored(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    root["a"] = 1
    manager.get().setUser("ann")
    manager.get().note("a note")
    manager.get().setExtendedInfo("ticket", 7)
    manager.commit()
    [recorded] = storage.transactions(db.lastTransaction())
    assert recorded.metadata.user == b" ann" or recorded.metadata.user == b"/ ann"
    assert recorded.metadata.description == b"a note"
    assert extension_map(recorded.metadata.extension) == {"ticket": 7}


@pytest.mark.parametrize("phase", ["begin", "store", "check", "vote", "finish"])
def test_a_failure_in_any_phase_leaves_nothing_behind(db: DB, manager: Any, storage: Watched, phase: str) -> None:
    root = opened(db, manager, storage)
    root["read"] = Node()
    manager.commit()
    last = db.lastTransaction()
    root["new"] = new = Node()
    root._p_jar.readCurrent(root["read"])
    storage.fails_in = phase
    with pytest.raises(StorageError, match=phase):
        manager.commit()
    manager.abort()
    assert (new._p_oid, new._p_jar, root._p_changed) == (None, None, None)
    assert "new" not in root
    assert db.lastTransaction() == last
    storage.fails_in = ""
    root["new"] = new
    manager.commit()
    assert root["new"]._p_serial == db.lastTransaction() > last


def test_an_abort_before_the_commit_does_not_reach_the_storage(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    root["a"] = 1
    manager.abort()
    assert storage.calls == []
    assert root._p_changed is None


def test_what_the_storage_resolved_is_loaded_again(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    root["a"], root["b"] = Node(x=1), Node(x=1)
    manager.commit()
    root["a"].x = root["b"].x = 2
    storage.resolves = [root["a"]._p_oid]
    manager.commit()
    assert root["a"]._p_changed is None
    assert root["b"]._p_changed is False
    assert root["a"].x == 2


def test_a_read_conflict_makes_the_object_a_ghost(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    root["a"] = Node(x=1)
    manager.commit()
    root._p_jar.readCurrent(root["a"])
    root["b"] = 1
    with db.transaction() as other:
        other.root.a.x = 2
    with pytest.raises(ConflictError):
        manager.commit()
    manager.abort()
    assert root["a"].x == 2


def test_an_object_that_is_changed_while_another_is_stored_is_stored_too(
    db: DB, manager: Any, storage: Watched
) -> None:
    root = opened(db, manager, storage)
    root["counter"], root["counting"] = Node(count=0), Counting()
    root["counting"].counter = root["counter"]
    manager.commit()
    root["counting"].x = 1
    manager.commit()
    root._p_jar.cacheMinimize()
    assert root["counter"].count == 2


class Counting(Node):
    def __getstate__(self) -> Any:
        self.counter.count += 1
        return super().__getstate__()


def test_an_object_that_was_taken_away_meanwhile_is_named(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    node = Node()
    root._p_jar.add(node)
    del node._p_jar
    del node._p_oid
    with db.transaction() as other:
        other.root.node = node
        other.add(node)
        with pytest.raises(InvalidObjectReference, match=r"Node with oid 0x.. was moved to .*Connection"):
            manager.commit()
        manager.abort()
        assert node._p_jar is other
    opened(db, manager, storage)["b"] = 1
    manager.commit()


def test_others_hear_of_a_commit_before_the_last_tid_moves(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    other = db.open(transaction.TransactionManager())
    assert "a" not in other.root()
    seen: list[tuple[bool, bool]] = []
    committed = db.hub.committed

    def watch(tid: Tid, oids: Any, committer: Any) -> None:
        committed(tid, oids, committer)
        seen.append((db.lastTransaction() < tid, other._snapshot._known == tid))  # type: ignore[attr-defined]

    db.hub.committed = watch  # type: ignore[method-assign]
    root["a"] = 1
    manager.commit()
    assert seen == [(True, True)]


def test_a_large_record_is_warned_of_and_stored(db: DB, manager: Any, storage: Watched) -> None:
    root = opened(db, manager, storage)
    root._p_jar._commit.large_record_bytes = 1000
    root["small"] = Node(x="x" * 500)
    manager.commit()
    root["large"] = large = Node(x="x" * 2000)
    with pytest.warns(UserWarning, match=r"the record of tests\.client\.objects\.Node with oid 0x02 is large: 2\d\d\d"):
        manager.commit()
    assert large._p_serial == db.lastTransaction()
