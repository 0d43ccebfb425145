"""The pool of connections."""

import gc
import logging

import pytest
import transaction

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
