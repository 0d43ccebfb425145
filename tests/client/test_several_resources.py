"""Transactions over several databases and other resources: all or none, savepoints included."""

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
from transaction.interfaces import NoTransaction

from tests.client.objects import Node, state_of
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_core.errors import ConflictError, InvalidObjectReference, StorageError
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture
def databases() -> Iterator[dict[str, DB]]:
    together: dict[str, DB] = {}
    for name in ("one", "two"):
        DB(MappingStorage(name), database_name=name, databases=together)
    opened = list(together.values())
    yield together
    for db in opened:
        db.close()


@pytest.fixture
def manager() -> transaction.TransactionManager:
    return transaction.TransactionManager()


@pytest.fixture
def one(databases: dict[str, DB], manager: Any) -> Connection:
    return databases["one"].open(manager)


@pytest.fixture
def two(one: Connection) -> Connection:
    return one.get_connection("two")


def committed(db: DB, name: str) -> Any:
    with db.transaction() as conn:
        return conn.root().get(name)


def test_both_or_none_are_committed(one: Connection, two: Connection, databases: Any, manager: Any) -> None:
    one.root.a = two.root.a = 1
    manager.commit()
    assert [committed(db, "a") for db in databases.values()] == [1, 1]
    one.root.a = two.root.a = 2
    with databases["two"].transaction() as conn:
        conn.root.a = 3
    with pytest.raises(ConflictError):
        manager.commit()
    manager.abort()
    assert [committed(db, "a") for db in databases.values()] == [1, 3]
    assert (one.root.a, two.root.a) == (1, 3)


def test_a_savepoint_is_one_of_both(one: Connection, two: Connection, databases: Any, manager: Any) -> None:
    one.root.a = two.root.a = 1
    savepoint = manager.savepoint()
    one.root.a = two.root.a = 2
    one.root.b = node = Node()
    manager.savepoint()
    one.cacheMinimize()  # of both
    assert (one.root.a, two.root.a) == (2, 2)
    savepoint.rollback()
    assert (one.root.a, two.root.a) == (1, 1)
    assert node._p_jar is None
    manager.commit()
    assert [committed(db, "a") for db in databases.values()] == [1, 1]


def test_who_joins_after_a_savepoint_is_rolled_back_to_nothing(one: Connection, two: Connection, manager: Any) -> None:
    one.root.a = 1
    savepoint = manager.savepoint()
    two.root.a = node = Node()
    two.add(node)
    savepoint.rollback()
    assert node._p_jar is None
    assert "a" not in two.root()
    two.root.a = 2
    manager.savepoint()
    savepoint.rollback()
    assert "a" not in two.root()
    two.root.a = 3
    manager.commit()
    assert (one.root.a, two.root.a) == (1, 3)


def test_a_new_object_of_a_savepoint_is_still_known_for_new(one: Connection, two: Connection, manager: Any) -> None:
    """Else it would depend on a savepoint to which database it goes."""
    one.root.a = node = Node()
    manager.savepoint()
    two.root.a = node
    with pytest.raises(InvalidObjectReference):
        manager.commit()
    manager.abort()
    one.add(node)
    manager.savepoint()
    two.root.a = node
    manager.commit()
    assert two.root.a is node
    assert node._p_jar is one


def test_both_follow_when_a_transaction_begins(one: Connection, two: Connection, databases: Any, manager: Any) -> None:
    manager.begin()
    assert "a" not in two.root()
    with databases["two"].transaction() as conn:
        conn.root.a = 1
    assert "a" not in two.root()
    one.sync()
    assert two.root.a == 1


class Mail:
    """A resource that sends when the transaction is finished, or fails in a phase."""

    transaction_manager = None

    def __init__(self, fails_in: str = "") -> None:
        self.fails_in = fails_in
        self.phases: list[str] = []

    def note(self, phase: str) -> None:
        self.phases.append(phase)
        if self.fails_in == phase:
            raise StorageError(f"told to fail in {phase}")

    def abort(self, _transaction: object) -> None:
        self.note("abort")

    def tpc_begin(self, _transaction: object) -> None:
        self.note("tpc_begin")

    def commit(self, _transaction: object) -> None:
        self.note("commit")

    def tpc_vote(self, _transaction: object) -> None:
        self.note("tpc_vote")

    def tpc_finish(self, _transaction: object) -> None:
        self.note("tpc_finish")

    def tpc_abort(self, _transaction: object) -> None:
        self.note("tpc_abort")

    def sortKey(self) -> str:  # noqa: N802
        return "~mail"  # after all databases


@pytest.mark.parametrize("phase", ["tpc_begin", "commit", "tpc_vote"])
def test_a_resource_that_fails_takes_all_with_it(
    one: Connection, two: Connection, manager: Any, databases: Any, phase: str
) -> None:
    one.root.a = new = Node()
    two.root.a = 1
    manager.savepoint()
    one.root.b = 1
    manager.get().join(mail := Mail(phase))
    with pytest.raises(StorageError, match=phase):
        manager.commit()
    manager.abort()
    assert "tpc_abort" in mail.phases
    assert new._p_jar is None
    assert [committed(db, "a") for db in databases.values()] == [None, None]
    one.root.a = two.root.a = 2
    manager.commit()
    assert [committed(db, "a") for db in databases.values()] == [2, 2]


def test_a_resource_that_agrees_is_told_when_all_have(one: Connection, manager: Any) -> None:
    one.root.a = 1
    manager.get().join(mail := Mail())
    manager.commit()
    assert mail.phases == ["tpc_begin", "commit", "tpc_vote", "tpc_finish"]


def test_hooks_and_synchronizers_see_the_state_that_is_due(one: Connection, manager: Any) -> None:
    seen: list[tuple[str, str]] = []
    one.root.a = node = Node(x=1)

    class Watching:
        def note(self, name: str) -> None:
            seen.append((name, state_of(node)))

        def beforeCompletion(self, _transaction: object) -> None:  # noqa: N802
            self.note("before completion")

        def afterCompletion(self, _transaction: object) -> None:  # noqa: N802
            self.note("after completion")

        def newTransaction(self, _transaction: object) -> None:  # noqa: N802
            self.note("new transaction")

    manager.commit()
    watching = Watching()
    manager.registerSynch(watching)
    manager.begin()
    manager.get().addBeforeCommitHook(setattr, (node, "x", 2))
    manager.get().addAfterCommitHook(lambda _succeeded: watching.note("after commit"))
    manager.commit()
    assert seen == [
        ("new transaction", "clean"),
        ("before completion", "changed"),
        ("after completion", "clean"),
        ("after commit", "clean"),
    ]
    assert committed(one.db(), "a") is not None


def test_with_explicit_transactions_nothing_happens_outside(databases: dict[str, DB]) -> None:
    explicit = transaction.TransactionManager(explicit=True)
    conn = databases["one"].open(explicit)
    with explicit:
        conn.root.a = node = Node(x=1)
    with pytest.raises(NoTransaction):
        node.x = 2
    with explicit:
        assert node.x == 1
    conn.close()
