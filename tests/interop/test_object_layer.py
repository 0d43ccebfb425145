"""The object layer beside ZODB's: each reads and changes what the other wrote, and their records are the same bytes."""

import datetime
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transaction
import ZODB
import ZODB.serialize
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree, OOTreeSet
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import PersistentWeakKeyDictionary, WeakRef
from ZODB.broken import PersistentBroken as ZODBPersistentBroken

from tests.client.objects import Node, Plain, Slotted, WithNewArgs
from zeo_client.broken import PersistentBroken
from zeo_client.db import DB
from zeo_client.serialize import ObjectWriter
from zeo_core.ids import Oid
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

Open = Callable[[ZODBStorage], AbstractContextManager[Any]]
"""Gives a connection to the database on a storage, in a transaction that is committed at the end."""


@contextmanager
def ours(storage: ZODBStorage) -> Iterator[Any]:
    db = DB(storage)
    with db.transaction() as conn:
        yield conn


@contextmanager
def zodbs(storage: ZODBStorage) -> Iterator[Any]:
    db = ZODB.DB(storage)
    with db.transaction() as conn:
        yield conn


BOTH_WAYS = pytest.mark.parametrize(
    ("writer", "reader"), [(zodbs, ours), (ours, zodbs)], ids=["ours reads ZODB's", "ZODB reads ours"]
)


@pytest.fixture
def storage() -> MappingStorage:
    return MappingStorage()


def records(storage: MappingStorage) -> list[tuple[Oid, bytes | None]]:
    """Return all object records in the order of the log."""
    return [(each.oid, each.data) for transaction in storage.transactions() for each in transaction.records]


def fill(root: Any) -> None:
    """Put one of everything into a database."""
    shared = Node(name="shared")
    root["plain"] = Plain(a=[1, (2, 3)], b={"x": {4, 5}}, c=frozenset([6]))
    root["values"] = [None, True, -1, 2**70, 1.5, 2j, "text äöü", b"bytes \xff", Decimal("1.10")]
    root["times"] = (datetime.datetime(2024, 2, 29, 12, 30), datetime.date(1999, 12, 31), datetime.timedelta(1, 2))
    root["classes"] = [Node, Plain, dict, len]
    root["node"] = Node(shared=shared, again=[shared, {"x": shared}])
    root["slots"] = Slotted(shared, {"left": 1})
    root["newargs"] = WithNewArgs("key")
    root["node"].newargs = root["newargs"]
    root["mapping"] = PersistentMapping(a=1, shared=shared)
    root["list"] = PersistentList([1, shared, [2]])
    root["tree"] = OOBTree({f"key {number:03}": Node(number=number) for number in range(200)})
    root["numbers"] = IOBTree({number: str(number) for number in range(500)})
    root["set"] = OOTreeSet(["b", "a"])
    root["length"] = Length(7)
    root["weak"] = [WeakRef(shared), WeakRef(root["list"])]
    root["weak keys"] = PersistentWeakKeyDictionary([(shared, "value")])


def check(root: Any) -> None:
    """Compare a database with what `fill` put into it."""
    shared = root["node"].shared
    assert shared.name == "shared"
    assert root["plain"] == Plain(a=[1, (2, 3)], b={"x": {4, 5}}, c=frozenset([6]))
    assert root["values"] == [None, True, -1, 2**70, 1.5, 2j, "text äöü", b"bytes \xff", Decimal("1.10")]
    assert root["times"] == (
        datetime.datetime(2024, 2, 29, 12, 30),
        datetime.date(1999, 12, 31),
        datetime.timedelta(1, 2),
    )
    assert root["classes"] == [Node, Plain, dict, len]
    assert root["node"].again == [shared, {"x": shared}]
    assert (root["slots"].left, root["slots"].right) == (shared, {"left": 1})
    assert root["node"].newargs is root["newargs"]
    assert (root["newargs"].note, root["newargs"].__getnewargs__()) == ("keykey", ("key",))
    assert dict(root["mapping"]) == {"a": 1, "shared": shared}
    assert list(root["list"]) == [1, shared, [2]]
    assert [(key, node.number) for key, node in root["tree"].items()] == [(f"key {n:03}", n) for n in range(200)]
    assert list(root["numbers"].items()) == [(number, str(number)) for number in range(500)]
    assert list(root["set"]) == ["a", "b"]
    assert root["length"]() == 7
    assert [weak() for weak in root["weak"]] == [shared, root["list"]]
    assert root["weak keys"][shared] == "value"


@BOTH_WAYS
def test_one_reads_what_the_other_wrote(storage: MappingStorage, writer: Open, reader: Open) -> None:
    with writer(storage) as conn:
        fill(conn.root())
    with reader(storage) as conn:
        check(conn.root())


@BOTH_WAYS
def test_one_changes_what_the_other_wrote(storage: MappingStorage, writer: Open, reader: Open) -> None:
    with writer(storage) as conn:
        fill(conn.root())
    with reader(storage) as conn:
        root = conn.root()
        root["node"].shared.name = "changed"
        root["newargs"].note = "changed"
        root["slots"].left = None
        root["list"].append(root["node"])
        del root["tree"]["key 007"]
        root["tree"].update({f"key 007 {number}": Node(number=7) for number in range(50)})
        root["length"].change(3)
        root["new"] = Node(parent=root["node"])
    with writer(storage) as conn:
        root = conn.root()
        assert root["mapping"]["shared"].name == "changed"
        assert (root["newargs"].note, root["newargs"].__getnewargs__()) == ("changed", ("key",))
        assert (root["slots"].left, root["slots"].right) == (None, {"left": 1})
        assert root["list"][-1] is root["new"].parent is root["node"]
        assert "key 007" not in root["tree"]
        assert len(root["tree"]) == 249
        root["tree"]._check()
        assert root["length"]() == 10


@BOTH_WAYS
def test_through_a_file(tmp_path: Path, writer: Open, reader: Open) -> None:
    for number, opened in enumerate((writer, reader, writer)):
        with closing(FileStorage(str(tmp_path / "Data.fs"), create=number == 0)) as storage, opened(storage) as conn:
            if number == 0:
                fill(conn.root())
            check(conn.root())
            conn.root()["reader"] = number


def test_both_write_the_same_database() -> None:
    databases = []
    for opened in (ours, zodbs):
        storage = MappingStorage()
        with opened(storage) as conn:
            fill(conn.root())
        with opened(storage) as conn:
            conn.root()["tree"]["another"] = [conn.root()["node"], Node()]
            conn.root()["list"].append(PersistentMapping(x=Node()))
            conn.add(Node(alone=True))
        databases.append(records(storage))
    assert databases[0] == databases[1]


# A graph as a recipe: for each node its kind, and a value in which numbers in a tuple stand for other nodes.
KINDS: dict[str, Callable[[], Any]] = {
    "node": Node,
    "mapping": PersistentMapping,
    "list": PersistentList,
    "new arguments": lambda: WithNewArgs("key"),
    "tree": OOBTree,
}
leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.builds(lambda number: ("strong", number), st.integers(0, 6)),
    st.builds(lambda number: ("weak", number), st.integers(0, 6)),
    st.just(("class", 0)),
)
value = st.recursive(
    leaf,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)
recipes = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), value), min_size=1, max_size=7)


def cook(recipe: list[tuple[str, Any]]) -> list[Any]:
    """Return the nodes of a graph."""
    nodes = [KINDS[kind]() for kind, _ in recipe]

    def resolve(part: Any) -> Any:
        if isinstance(part, tuple):
            what, number = part
            target = nodes[number % len(nodes)]
            return Plain if what == "class" else WeakRef(target) if what == "weak" else target
        if isinstance(part, list):
            return [resolve(each) for each in part]
        if isinstance(part, dict):
            return {key: resolve(each) for key, each in part.items()}
        return part

    for node, (_, part) in zip(nodes, recipe, strict=True):
        resolved = resolve(part)
        if isinstance(node, PersistentList):
            node.append(resolved)
        elif isinstance(node, PersistentMapping | OOBTree):
            node["key"] = resolved
        else:
            node.value = resolved
    return nodes


@given(recipe=recipes, later=value)
@settings(max_examples=80, deadline=None)
def test_any_graph_becomes_the_same_records(recipe: list[tuple[str, Any]], later: Any) -> None:
    databases = []
    for opened in (ours, zodbs):
        storage = MappingStorage()
        with opened(storage) as conn:
            conn.root()["nodes"] = cook(recipe)[:2]  # some are reached through others only, or not at all
        with opened(storage) as conn:
            conn.root()["later"] = Plain(value=cook([("node", later)])[0])
            conn.root()["nodes"][0]._p_changed = True
        databases.append(records(storage))
    assert databases[0] == databases[1]


@given(recipe=recipes)
@settings(max_examples=50, deadline=None)
def test_one_object_after_the_other_becomes_the_record_that_zodbs_writer_makes(recipe: list[tuple[str, Any]]) -> None:
    with DB(MappingStorage()) as db:
        conn = db.open(transaction.TransactionManager())
        writer = ObjectWriter(conn)
        nodes = cook(recipe)
        conn.add(nodes[0])
        waiting = nodes[:1]
        while waiting:
            obj = waiting.pop()
            data = writer.serialize(obj)
            waiting.extend(writer.new)
            writer.new.clear()
            assert data == ZODB.serialize.ObjectWriter(obj).serialize(obj)


# -- classes that are gone

GONE = "zeod_tests_interop_gone"


@pytest.fixture
def gone() -> Iterator[ModuleType]:
    """A module with classes, which a test takes away."""
    module = ModuleType(GONE)
    for name, base in (("Thing", Node), ("Keyed", WithNewArgs), ("Part", Plain)):
        setattr(module, name, type(name, (base,), {"__module__": GONE}))
    sys.modules[GONE] = module
    yield module
    sys.modules.pop(GONE, None)


def fill_with_gone(root: Any, gone: ModuleType) -> None:
    root["thing"] = gone.Thing(x=1, part=gone.Part(y=2))
    root["keyed"] = gone.Keyed("key")
    root["part"] = gone.Part(thing=root["thing"])


@BOTH_WAYS
def test_what_one_leaves_of_broken_objects_heals_with_the_other(
    storage: MappingStorage, gone: ModuleType, writer: Open, reader: Open
) -> None:
    with writer(storage) as conn:
        fill_with_gone(conn.root(), gone)
    del sys.modules[GONE]
    with reader(storage) as conn:
        assert isinstance(conn.root()["thing"], PersistentBroken | ZODBPersistentBroken)
        conn.root()["other"] = conn.root()["thing"]  # changes the root, and with it the broken part in it
        conn.root()["node"] = Node(parts=[conn.root()["part"]])
    sys.modules[GONE] = gone
    for opened in (writer, reader):
        with opened(storage) as conn:
            root = conn.root()
            assert root["thing"] is root["other"]
            assert (type(root["thing"]), root["thing"].x, root["thing"].part.y) == (gone.Thing, 1, 2)
            assert (type(root["keyed"]), root["keyed"].note) == (gone.Keyed, "keykey")
            assert root["part"].thing is root["thing"]
            assert root["node"].parts[0].thing is root["thing"]


def test_zodbs_mark_of_a_broken_object_is_read_while_the_class_is_still_gone(
    storage: MappingStorage, gone: ModuleType
) -> None:
    with zodbs(storage) as conn:
        fill_with_gone(conn.root(), gone)
    del sys.modules[GONE]
    with zodbs(storage) as conn:
        conn.root()["other"] = 1
    with ours(storage) as conn:
        assert conn.root()["thing"].broken_state["x"] == 1
        conn.root()["another"] = 1
    sys.modules[GONE] = gone
    with zodbs(storage) as conn:
        assert conn.root()["part"].thing.x == 1


@BOTH_WAYS
def test_weak_references_die_alike(storage: MappingStorage, writer: Open, reader: Open) -> None:
    with writer(storage) as conn:
        conn.root()["weak"] = WeakRef(conn.root())
        conn.root()["weak"].oid = b"\0" * 7 + b"\x77"
        conn.root()["weak"].dm = conn
    with reader(storage) as conn:
        assert conn.root()["weak"]() is None


def test_an_object_that_both_have_open_conflicts(storage: MappingStorage) -> None:
    """One storage under two databases: neither hears of the other's commits but by the storage's last tid."""
    with DB(storage) as db:
        other = ZODB.DB(storage)
        manager = transaction.TransactionManager()
        conn = db.open(manager)
        conn.root()["x"] = 1
        manager.commit()
        with other.transaction() as theirs:
            theirs.root()["x"] = 2
        conn.root()["x"] = 3
        with pytest.raises(transaction.interfaces.TransientError):
            manager.commit()
        manager.abort()
        assert conn.root()["x"] == 2
