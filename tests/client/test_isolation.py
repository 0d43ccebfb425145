"""What transactions see of each other, and when they conflict."""

import time

import pytest
from BTrees.OOBTree import OOBTree
from transaction.interfaces import NoTransaction

from tests.client.objects import Node, Session, state_of
from zeo_client.db import DB
from zeo_core.errors import (
    ConflictError,
    ReadConflictError,
)
from zeo_server.storages.mapping import MappingStorage

# -- isolation


def test_a_transaction_sees_one_state(ann: Session, bob: Session) -> None:
    ann.root["a"], ann.root["b"] = Node(x=1), Node(x=1)
    ann.commit()
    bob.manager.begin()
    assert bob.root["a"].x == 1
    ann.root["a"].x = ann.root["b"].x = 2
    ann.root["c"] = 3
    ann.commit()
    assert (bob.root["a"].x, bob.root["b"].x, "c" in bob.root) == (1, 1, False)
    bob.manager.begin()
    assert (bob.root["a"].x, bob.root["b"].x, bob.root["c"]) == (2, 2, 3)


def test_a_transaction_that_ends_moves_the_view_too(ann: Session, bob: Session) -> None:
    ann.root["a"] = 1
    ann.commit()
    assert "a" not in bob.root
    bob.manager.abort()
    assert bob.root["a"] == 1


def test_explicit_transactions_move_the_view_only_when_they_begin(db: DB, ann: Session) -> None:
    eve = Session(db, explicit=True)
    with pytest.raises(NoTransaction):
        eve.manager.get()
    eve.manager.begin()
    assert "a" not in eve.root
    ann.root["a"] = 1
    ann.commit()
    eve.manager.abort()
    eve.manager.begin()
    assert eve.root["a"] == 1
    eve.root["a"] = 2
    eve.commit()
    ann.conn.sync()
    assert ann.root["a"] == 2


def test_own_changes_are_read_before_they_are_committed(ann: Session) -> None:
    ann.root["a"] = Node(x=1)
    assert ann.root["a"].x == 1
    ann.commit()
    ann.root["a"].x = 2
    ann.conn.cacheMinimize()
    ann.conn.cacheGC()
    assert ann.root["a"].x == 2


def test_after_a_reconnection_everything_is_loaded_again(ann: Session, db: DB) -> None:
    ann.root["a"] = a = Node(x=1)
    ann.commit()
    db.hub.invalidateCache()
    assert state_of(a) == "clean"
    ann.conn.sync()
    assert state_of(a) == "ghost"
    assert a.x == 1


def test_a_state_that_was_packed_away_is_a_read_conflict(ann: Session, bob: Session, storage: MappingStorage) -> None:
    ann.root["a"] = a = Node(x=1)
    ann.commit()
    bob.conn.sync()
    ghost = bob.root["a"]
    ann.root["a"].x = 2
    ann.commit()
    storage.pack(time.time() + 1)
    with pytest.raises(ReadConflictError, match="packed away") as info:
        _ = ghost.x
    assert info.value.oid == a._p_oid
    bob.conn.sync()
    assert ghost.x == 2


# -- conflicts


def test_of_two_who_change_one_object_the_second_conflicts(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=0)
    ann.commit()
    first = ann.root["a"]._p_serial
    bob.conn.sync()
    read = bob.root["a"]
    read.x = 2
    ann.root["a"].x = 1
    ann.commit()
    with pytest.raises(ConflictError) as info:
        bob.commit()
    error = info.value
    assert error.oid == read._p_oid
    assert error.serials == (ann.root["a"]._p_serial, first)
    assert "tests.client.objects.Node" in str(error)
    bob.manager.abort()
    assert read.x == 1


def test_attempts_of_the_transaction_manager_go_on_after_a_conflict(ann: Session, bob: Session) -> None:
    ann.root["a"] = 0
    ann.commit()
    tries = 0
    for attempt in bob.manager.attempts(3):
        with attempt:
            tries += 1
            bob.root["a"] += 10
            if tries == 1:
                ann.root["a"] += 1
                ann.commit()
    assert tries == 2
    assert bob.root["a"] == 11


def test_run_of_the_transaction_manager_goes_on_after_a_conflict(ann: Session, bob: Session) -> None:
    ann.root["a"] = 0
    ann.commit()

    def add() -> int:
        bob.root["a"] += 10
        if bob.root["a"] == 10:
            ann.root["a"] += 1
            ann.commit()
        return int(bob.root["a"])

    assert bob.manager.run(add) == 11


def test_read_current_makes_a_change_of_what_was_read_a_conflict(ann: Session, bob: Session) -> None:
    ann.root["limit"], ann.root["b"] = Node(x=1), Node()
    ann.commit()
    bob.conn.sync()
    bob.conn.readCurrent(bob.root["limit"])
    assert bob.root["limit"].x == 1
    bob.root["b"].x = 1
    ann.root["limit"].x = 0
    ann.commit()
    with pytest.raises(ReadConflictError) as info:
        bob.commit()
    assert info.value.oid == ann.root["limit"]._p_oid
    bob.manager.abort()
    assert bob.root["limit"].x == 0


def test_read_current_ends_with_its_transaction(ann: Session, bob: Session) -> None:
    ann.root["limit"], ann.root["b"] = Node(x=1), Node()
    ann.commit()
    bob.conn.sync()
    assert bob.root["limit"].x == 1
    bob.conn.readCurrent(bob.root["limit"])
    bob.conn.readCurrent(Node())
    bob.manager.begin()
    ann.root["limit"].x = 0
    ann.commit()
    bob.root["b"].x = 1
    bob.commit()


def test_an_object_that_is_read_current_and_changed_is_checked_once(ann: Session) -> None:
    ann.root["tree"] = OOBTree({number: number for number in range(100)})
    ann.commit()
    ann.root["tree"][5] = "changed"  # which the tree reads as current on its way
    ann.commit()
    assert ann.root["tree"][5] == "changed"
