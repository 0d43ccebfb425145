"""Plain objects that two persistent ones share, found before the commit makes copies of them."""

import datetime
import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from BTrees.OOBTree import OOBTree
from persistent.wref import WeakRef

from tests.client.objects import Node, Plain
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.sharing import Shared, find_shared


@pytest.fixture
def conn() -> Iterator[Connection]:
    with DB(None) as db, db.transaction() as connection:
        yield connection


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Frozen:
    x: int


class Pair(NamedTuple):
    left: Any
    right: Any


def places(found: list[Shared]) -> list[list[str]]:
    return [sorted(path for _obj, path in shared.places) for shared in found]


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, Plain(a=1), deque([1])])
def test_what_can_change_is_told_with_its_places(conn: Connection, value: Any) -> None:
    conn.root.a, conn.root.b = Node(mine=value), Node(also=[value])
    assert places(find_shared(conn)) == [[".also[0]", ".mine"]]


@pytest.mark.parametrize(
    "value", ["text", 1.5, (1, 2), Decimal(1), datetime.date(2020, 1, 1), Colour.RED, Frozen(1), Pair(1, 2), Node, len]
)
def test_values_may_be_shared(conn: Connection, value: Any) -> None:
    conn.root.a, conn.root.b = Node(x=value), Node(x=value)
    assert find_shared(conn) == []


def test_persistent_objects_may_be_shared(conn: Connection) -> None:
    shared = Node(x=[1])
    conn.root.a, conn.root.b = Node(x=shared, weak=WeakRef(shared)), Node(x=shared)
    assert find_shared(conn) == []


def test_the_same_list_twice_in_one_object_stays_one(conn: Connection) -> None:
    lines = [1]
    conn.root.a = Node(x=lines, y=lines)
    assert find_shared(conn) == []


def test_only_the_outermost_is_told(conn: Connection) -> None:
    shared = {"a": [[1]]}
    conn.root.a, conn.root.b = Node(x=shared), Node(x=shared)
    assert places(find_shared(conn)) == [[".x", ".x"]]


def test_entries_of_a_tree_are_looked_at(conn: Connection) -> None:
    shared = [1]
    conn.root.tree = OOBTree({number: number for number in range(200)})
    conn.root.tree[7] = shared
    conn.root.b = Node(x=shared)
    assert places(find_shared(conn)) == [[".x", "[7]"]]


def test_a_stored_object_and_a_new_one(conn: Connection) -> None:
    conn.root.old = Node(lines=[1])
    conn.transaction_manager.commit()
    conn.root.new = Node(lines=conn.root.old.lines)
    assert places(find_shared(conn)) == [[".lines", ".lines"]]
    conn.transaction_manager.commit()
    conn.cacheMinimize()
    assert conn.root.new.lines is not conn.root.old.lines  # what it warned of
    assert find_shared(conn) == []


def test_objects_that_nothing_refers_to_are_given(conn: Connection) -> None:
    shared = [1]
    one, other = Node(x=shared), Node(x=shared)
    assert find_shared(conn) == []
    assert places(find_shared(conn, one, other)) == [[".x", ".x"]]


def test_the_text_says_what_to_do(conn: Connection) -> None:
    shared = [1]
    conn.root.a, conn.root.b = Node(x=shared), Node(x=shared)
    conn.transaction_manager.savepoint()  # gives them their oids
    text = str(find_shared(conn)[0])
    assert text.startswith("one builtins.list is part of tests.client.objects.Node 0x")
    assert text.count(" at .x") == 2
    assert text.endswith("make it persistent if it is to stay one object, or copy it")
