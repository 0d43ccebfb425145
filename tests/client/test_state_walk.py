"""The parts of a record and the ways to them."""

import collections
import functools
from typing import Any, NamedTuple

import pytest
from BTrees.OOBTree import OOBTree, OOSet
from persistent import Persistent
from persistent.mapping import PersistentMapping

from tests.client.objects import Node, Plain, Slotted, WithNewArgs
from zeo_client.serialize import is_reference
from zeo_client.state_walk import walk

MARK = ["mark"]


class WithState:
    """Stores something else than its attributes."""

    def __getstate__(self) -> Any:
        return {"stored": MARK}


class WithReduce:
    """Is made by a function."""

    def __reduce__(self) -> Any:
        return Plain, (), {"stored": MARK}


class PlainSlots:
    """Not persistent, with a slot."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.slot = MARK


class Mine(dict[str, Any]):
    """A dictionary with attributes."""


class Pair(NamedTuple):
    left: Any
    right: Any


class Own(Persistent):
    """Persistent, with a state of its own."""

    def __getstate__(self) -> Any:
        return [MARK]


def mine() -> Mine:
    made = Mine(key=1)
    made.note = MARK  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (Node(x=MARK), ".x"),
        (Node(x=[{"a": (1, MARK)}]), ".x[0]['a'][1]"),
        (Node(x={(1, "b"): MARK}), ".x[(1, 'b')]"),
        (Node(x={Plain: MARK}), ".x[<builtins.type>]"),
        (Node(x={"k" * 200: MARK}), f".x['{'k' * 27}...{'k' * 28}']"),
        (Node(x=Plain(y=MARK)), ".x.y"),
        (Node(x=PlainSlots()), ".x.slot"),
        (Node(x=WithState()), ".x.__getstate__()['stored']"),
        (Node(x=WithReduce()), ".x.__reduce__()[2]['stored']"),
        (Node(x=Mine(key=MARK)), ".x['key']"),
        (Node(x=mine()), ".x.note"),
        (Node(x=Pair(1, MARK)), ".x[1]"),
        (Node(x=collections.deque([1, MARK])), ".x[1]"),
        (Node(x=collections.defaultdict(list, a=MARK)), ".x['a']"),
        (Node(x=functools.partial(print, MARK)), ".x.__reduce__()[2][1][0]"),
        (Slotted(1, MARK), ".right"),
        (Own(), ".__getstate__()[0]"),
        (PersistentMapping(a=MARK), ".data['a']"),
        (OOBTree({"a": MARK}), "['a']"),
    ],
)
def test_path(obj: Any, path: str) -> None:
    assert [part.path for part in walk(obj, is_reference) if part.value is MARK] == [path]


def test_what_is_referred_to_is_not_entered() -> None:
    parts = list(walk(Node(x=Node(y=MARK), z=[WithNewArgs("a")]), is_reference))
    assert [(part.path, part.referred) for part in parts] == [(".x", True), (".z", False), (".z[0]", True)]


def test_each_part_is_given_once_and_cycles_end() -> None:
    loop: dict[str, Any] = {"mark": MARK}
    loop["again"] = loop
    assert [part.path for part in walk(Node(x=loop, y=MARK), is_reference)] == [".x", ".x['mark']"]


def test_a_set_of_trees_has_its_keys() -> None:
    assert [part.path for part in walk(OOSet([(1, 2)]), is_reference)] == ["[(1, 2)]"]


def test_an_empty_tree_and_a_large_one_have_no_entries_here() -> None:
    large = OOBTree(dict.fromkeys(range(1000), MARK))
    assert MARK not in [part.value for part in walk(large, is_reference)]
    assert list(walk(OOBTree(), is_reference)) == []


def test_of_a_deep_path_the_middle_is_left_out() -> None:
    deep: list[Any] = [MARK]
    for _ in range(5_000):
        deep = [deep]
    (path,) = [part.path for part in walk(Node(x=deep), is_reference) if part.value is MARK]
    assert path == ".x" + "[0]" * 9 + "..." + "[0]" * 10


def test_a_huge_state_is_not_walked_to_its_end() -> None:
    assert sum(1 for _ in walk(Node(x=[[] for _ in range(200_500)]), is_reference)) == 200_000
