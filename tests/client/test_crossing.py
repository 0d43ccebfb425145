"""Several databases: connections that are open together, and references from one to another."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
from persistent.wref import WeakRef

from tests.client.objects import Node, WithNewArgs
from zeo_client.connection import Connection
from zeo_client.crossing import crossed_into
from zeo_client.db import DB
from zeo_core.errors import ConnectionStateError, InvalidObjectReference, POSKeyError
from zeo_core.ids import successor
from zeo_server.storages.mapping import MappingStorage

Pair = tuple[Connection, Connection]


@pytest.fixture
def one() -> Iterator[DB]:
    with DB(MappingStorage("one"), database_name="1", databases={}) as db:
        yield db


@pytest.fixture
def two(one: DB) -> Iterator[DB]:
    with DB(MappingStorage("two"), database_name="2", databases=one.databases) as db:
        yield db


@pytest.fixture
def pair(one: DB, two: DB) -> Pair:
    conn = one.open(transaction.TransactionManager())
    return conn, conn.get_connection("2")


def commit(conn: Connection) -> None:
    conn.transaction_manager.commit()


def reopened(db: DB) -> Connection:
    """Return a connection of which nothing is in memory."""
    conn = db.open(transaction.TransactionManager())
    conn.cacheMinimize()
    return conn


# -- databases that know each other


def test_databases_by_name(one: DB, two: DB) -> None:
    assert one.databases is two.databases
    assert dict(one.databases) == {"1": one, "2": two}
    with pytest.raises(ValueError, match="database_name '2' already in databases"):
        DB(MappingStorage(), database_name="2", databases=one.databases)
    assert one.databases["2"] is two


def test_a_closed_database_gives_its_name_free() -> None:
    databases: dict[str, Any] = {}
    DB(MappingStorage(), databases=databases).close()
    assert databases["unnamed"].closed
    with DB(MappingStorage(), databases=databases) as db:
        assert databases == {"unnamed": db}
    assert db.databases == {}


# -- connections that are open together


def test_connections_of_one_group(pair: Pair) -> None:
    first, second = pair
    assert first.connections is second.connections
    assert first.connections == {"1": first, "2": second}
    assert second.get_connection("1") is first.get_connection("1") is first
    assert first.get_connection("2") is second
    assert second.transaction_manager is first.transaction_manager


def test_a_database_that_there_is_not(pair: Pair) -> None:
    with pytest.raises(KeyError, match="no way"):
        pair[0].get_connection("no way")


def test_they_commit_and_abort_together(pair: Pair, one: DB, two: DB) -> None:
    first, second = pair
    first.root.a, second.root.a = 1, 2
    commit(first)
    first.root.a, second.root.a = 3, 4
    first.transaction_manager.abort()
    assert (first.root.a, second.root.a) == (1, 2)
    assert (reopened(one).root.a, reopened(two).root.a) == (1, 2)


def test_they_are_closed_and_opened_together(pair: Pair, one: DB, two: DB) -> None:
    first, second = pair
    first.close()
    assert second.opened is None
    assert second.transaction_manager is None
    other = two.open(transaction.TransactionManager())
    assert other is not second  # it stays with the first
    assert one.open(transaction.TransactionManager()) is first
    assert first.get_connection("2") is second
    assert second.opened is not None


def test_closing_the_second_closes_the_first(pair: Pair, two: DB) -> None:
    first, second = pair
    second.close()
    assert first.opened is None
    assert two.open(transaction.TransactionManager()) is second
    assert first.opened is not None


def test_none_is_closed_while_one_has_changes(pair: Pair) -> None:
    first, second = pair
    second.root.a = 1
    with pytest.raises(ConnectionStateError, match="uncommitted changes"):
        first.close()
    assert first.opened is not None
    first.transaction_manager.abort()
    first.close()


def test_a_closed_one_gets_no_others(one: DB, two: DB) -> None:
    conn = one.open()
    conn.close()
    with pytest.raises(ConnectionStateError, match="cannot get a connection to '2'"):
        conn.get_connection("2")


def test_one_that_has_others_with_it_joins_no_group(pair: Pair, one: DB, two: DB) -> None:
    pair[1].close()  # idle in the pool of the second database, with a connection to the first
    conn = one.open(transaction.TransactionManager())
    assert conn.get_connection("2") is not pair[1]
    assert conn.get_connection("1") is conn


def test_caches_are_emptied_together(pair: Pair) -> None:
    first, second = pair
    first.root.a, second.root.a = Node(), Node()
    commit(first)
    first.cacheMinimize()
    assert (first.cached, second.cached) == (0, 0)
    first.cacheGC()


def test_a_full_pool_lets_all_of_a_group_go(one: DB, two: DB) -> None:
    one.setPoolSize(0)
    conn = one.open(transaction.TransactionManager())
    second = conn.get_connection("2")
    conn.close()
    hubs = [list[object](db.hub._listeners) for db in (one, two)]
    assert conn._snapshot not in hubs[0]
    assert second._snapshot not in hubs[1]


def test_closing_one_database_leaves_the_other_in_use(pair: Pair, one: DB, two: DB) -> None:
    first, second = pair
    one.close()
    assert first.opened is None
    second.root.a = 1
    commit(second)
    second.close()
    assert two.open().root.a == 1


def test_beside_a_connection_to_the_past(pair: Pair, one: DB, two: DB) -> None:
    first, second = pair
    second.root.a = 1
    commit(first)
    first.root.a = 1
    commit(first)
    at = one.lastTransaction()
    second.root.a = 2
    commit(first)
    first.root.a = 2
    commit(first)
    past = one.open(transaction.TransactionManager(), at=at)
    assert (past.root.a, past.get_connection("2").root.a) == (1, 1)
    # The second database's last transaction is older than this moment, which is no reason to refuse it.
    past = one.open(transaction.TransactionManager(), at=one.lastTransaction())
    assert past.get_connection("2").root.a == 2
    assert past.get_connection("2").before == successor(two.lastTransaction())


# -- references


@pytest.mark.parametrize("make", [Node, lambda: WithNewArgs("key")], ids=["Node", "WithNewArgs"])
def test_an_object_of_another_database_is_referred_to(make: Any, pair: Pair, one: DB, two: DB) -> None:
    first, second = pair
    first.root.target = target = make()
    commit(first)
    second.root.referrer = Node(target=target)
    commit(first)
    assert target._p_jar is first
    conn = reopened(two)
    found = conn.root.referrer.target
    assert found._p_jar.db() is one
    assert found is conn.get_connection("1").root.target
    assert conn.connections["1"].opened is not None


def test_reading_a_reference_loads_nothing_of_the_other_database(pair: Pair, two: DB) -> None:
    first, second = pair
    first.root.target = Node()
    commit(first)
    second.root.referrer = Node(target=first.root.target)
    commit(first)
    conn = reopened(two)
    assert conn.root.referrer.target._p_changed is None
    assert conn.get_connection("1").getTransferCounts() == (0, 0)


def pack_away(conn: Connection) -> None:
    """Remove the target: a pack knows only its own database."""
    del conn.root.target
    commit(conn)
    conn.db().pack(time.time() + 1)


def test_a_target_that_is_gone_is_told_when_it_is_used(pair: Pair, two: DB) -> None:
    first, second = pair
    first.root.target = target = Node()
    commit(first)
    second.root.referrer = Node(target=target, own=1)
    commit(first)
    pack_away(first)
    conn = reopened(two)
    assert conn.root.referrer.own == 1
    with pytest.raises(POSKeyError):
        conn.root.referrer.target._p_activate()


def test_references_survive_closing(pair: Pair, one: DB) -> None:
    first, second = pair
    second.root.target = target = Node()
    commit(first)
    first.root.x, first.root.y = Node(target=target), Node(target=target)
    commit(first)
    first.root.x._p_deactivate()
    first.close()
    again = one.open(transaction.TransactionManager())
    assert again.root.x.target is again.root.y.target is target


def test_a_new_object_belongs_where_it_was_added(pair: Pair) -> None:
    first, second = pair
    first.root.node = second.root.node = node = Node()
    first.add(node)
    commit(first)
    assert node._p_jar is first


def test_a_new_object_in_two_databases_belongs_nowhere(pair: Pair) -> None:
    first, second = pair
    first.root.node = second.root.node = Node()
    with pytest.raises(InvalidObjectReference, match="reachable from several databases"):
        commit(first)
    first.transaction_manager.abort()
    first.root.node = node = Node()
    commit(first)
    second.root.node = node
    commit(first)
    assert node._p_jar is first


def test_a_savepoint_does_not_decide_where_an_object_belongs(pair: Pair) -> None:
    first, second = pair
    first.root.node = node = Node()
    first.transaction_manager.savepoint()
    second.root.node = node
    with pytest.raises(InvalidObjectReference, match="reachable from several databases"):
        commit(first)
    first.transaction_manager.abort()


def test_adding_and_a_savepoint_do(pair: Pair) -> None:
    first, second = pair
    first.root.node = node = Node()
    first.add(node)
    first.transaction_manager.savepoint()
    second.root.node = node
    node.value = 1
    commit(first)
    assert node._p_jar is first
    assert second.root.node is node


def refusal(conn: Connection, obj: Any) -> str:
    """Return why a commit refuses that the root of `conn` refers to `obj`."""
    conn.root.refused = obj
    with pytest.raises(InvalidObjectReference) as info:
        commit(conn)
    conn.transaction_manager.abort()
    return str(info.value)


def test_objects_of_databases_that_do_not_know_each_other(pair: Pair) -> None:
    with DB(MappingStorage("three"), database_name="3") as three:
        third = three.open(pair[0].transaction_manager)
        third.root.node = Node()
        commit(third)
        text = refusal(pair[0], third.root.node)
    assert "the two databases do not know each other" in text
    assert "of a connection to the database '1'" in text
    assert "of a connection to the database '3'" in text


def test_objects_of_a_database_of_the_same_name(pair: Pair) -> None:
    with DB(MappingStorage("three"), database_name="2") as three, three.transaction() as third:
        third.root.node = Node()
        third.transaction_manager.commit()
        assert "do not know each other" in refusal(pair[0], third.root.node)


def test_objects_of_a_connection_that_was_opened_by_itself(pair: Pair, one: DB, two: DB) -> None:
    for db, hint in ((two, r"conn.get_connection('2')"), (one, "conn.get(oid)")):
        alone = db.open(pair[0].transaction_manager)
        alone.root.node = Node()
        commit(alone)
        text = refusal(pair[0], alone.root.node)
        assert "an object belongs to one connection" in text
        assert hint in text


def test_without_xrefs(one: DB) -> None:
    with DB(MappingStorage("two"), database_name="2", databases=one.databases, xrefs=False):
        first = one.open(transaction.TransactionManager())
        second = first.get_connection("2")
        first.root.x = second.root()
        commit(first)
        assert "was opened without xrefs" in refusal(second, first.root())
        first.transaction_manager.abort()


def test_the_name_of_the_database(pair: Pair) -> None:
    first, second = pair
    first.root.a = Node()
    commit(first)
    assert crossed_into(second, second.root(), first.root.a) == "1"


# -- weak references


def test_weak_references_across_databases(pair: Pair, two: DB) -> None:
    first, second = pair
    first.root.target = target = Node()
    commit(first)
    second.root.weak = WeakRef(target)
    commit(first)
    conn = reopened(two)
    found = conn.root.weak()
    assert found is conn.get_connection("1").root.target
    pack_away(first)
    assert reopened(two).root.weak() is None


def test_a_weak_reference_into_a_database_that_is_not_open(pair: Pair, two: DB) -> None:
    first, second = pair
    first.root.target = target = Node()
    commit(first)
    second.root.weak = WeakRef(target)
    commit(first)
    del two.databases["1"]
    conn = reopened(two)
    assert conn.root.weak.database_name == "1"
    conn.root.other = [conn.root.weak]
    commit(conn)  # written back as it was
    assert conn.root.other[0].oid == target._p_oid
