"""The pool of connections."""

import gc
import logging
import time

import pytest
import transaction

from tests.client.objects import Node
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.pool import ConnectionPool


def new(db: DB) -> Connection:
    return Connection(db, 10, 0)


def test_the_last_that_came_back_is_the_first_to_go(db: DB) -> None:
    pool, first, second = ConnectionPool(2), new(db), new(db)
    assert pool.take() is None
    for connection in (first, second):
        pool.add(connection)
        assert pool.put_back(connection) == []
    assert [pool.take(), pool.take(), pool.take()] == [second, first, None]


def test_there_is_room_for_so_many_and_the_oldest_goes(db: DB) -> None:
    pool = ConnectionPool(2)
    connections = [new(db) for _ in range(4)]
    for connection in connections:
        pool.add(connection)
    surplus = [pool.put_back(connection) for connection in connections]
    assert surplus == [[], [], [connections[0]], [connections[1]]]
    assert set(pool.everything()) == set(connections[2:])


def test_a_pool_without_room_keeps_none(db: DB) -> None:
    pool, connection = ConnectionPool(0), new(db)
    pool.add(connection)
    assert pool.put_back(connection) == [connection]
    assert pool.take() is None


def test_a_forgotten_connection_is_forgotten(db: DB) -> None:
    pool = ConnectionPool(2)
    pool.add(new(db))
    gc.collect()
    assert pool.everything() == []


def test_clear_returns_all(db: DB) -> None:
    pool, idle, used = ConnectionPool(2), new(db), new(db)
    pool.add(idle)
    pool.add(used)
    pool.put_back(idle)
    assert set(pool.clear()) == {idle, used}
    assert pool.everything() == []
    assert pool.take() is None


def test_too_many_open_at_once_are_logged(db: DB, caplog: pytest.LogCaptureFixture) -> None:
    pool = ConnectionPool(1)
    connections = [new(db) for _ in range(3)]
    for connection in connections:
        pool.add(connection)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.CRITICAL]
    assert "3 connections are open at once" in caplog.text


def test_a_connection_keeps_its_objects_in_the_pool(db: DB) -> None:
    conn = db.open(transaction.TransactionManager())
    root = conn.root()
    assert root._p_changed is None or len(root) == 0
    conn.close()
    again = db.open(transaction.TransactionManager())
    assert again is conn
    assert again.root() is root


def test_the_largest_cache_is_given_out_first(db: DB) -> None:
    with db.transaction() as conn:
        for name in "abc":
            conn.root()[name] = Node()
    pool, large, small = ConnectionPool(3), db.open(transaction.TransactionManager()), new(db)
    for name in "abc":
        large.root()[name]._p_activate()
    for connection in (large, small):
        pool.add(connection)
        pool.put_back(connection)
    assert pool.take() is large
    assert pool.take() is small


def test_connections_to_several_moments_share_a_pool(db: DB) -> None:
    early, late = b"\0" * 7 + b"\1", b"\0" * 7 + b"\2"
    pool = ConnectionPool(2)
    first, second, third = (Connection(db, 10, 0, before) for before in (early, late, late))
    for connection in (first, second):
        pool.add(connection)
        pool.put_back(connection)
    assert pool.take(early) is first
    assert pool.take(early) is None
    assert pool.take() is None
    pool.add(third)
    assert pool.put_back(third) == []
    assert pool.put_back(first) == [second]
    assert {pool.take(early), pool.take(late)} == {first, third}


def test_a_connection_with_others_is_not_taken_where_one_alone_is_wanted(db: DB) -> None:
    pool, connection = ConnectionPool(2), new(db)
    connection.connections["other"] = new(db)
    pool.add(connection)
    pool.put_back(connection)
    assert pool.take(alone=True) is None
    assert pool.take() is connection


def test_who_waits_too_long_goes(db: DB, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    pool, first, second = ConnectionPool(3, timeout=10), new(db), new(db)
    pool.add(first)
    pool.add(second)
    pool.put_back(first)
    now += 8
    pool.put_back(second)
    now += 8
    assert pool.reduce() == [first]
    assert pool.everything() == [second]
    now += 8
    assert pool.reduce() == [second]


def test_a_smaller_pool_gives_the_oldest_up(db: DB) -> None:
    pool, first, second = ConnectionPool(2), new(db), new(db)
    for connection in (first, second):
        pool.add(connection)
        pool.put_back(connection)
    pool.size = 1
    assert pool.reduce() == [first]
    assert pool.take() is second
