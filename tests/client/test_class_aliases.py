"""Classes that moved: found under their names of before, in pickles and in other records."""

from collections.abc import Iterator

import pytest

from tests.client.objects import Node, Session, write
from tests.client.protobuf.classes import Person
from zeo_client import class_aliases
from zeo_client.class_aliases import aliased, register_alias
from zeo_client.db import DB
from zeo_client.protobuf import register
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture(autouse=True)
def _no_aliases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(class_aliases, "_classes", {})
    yield
    assert aliased("tests.client.objects", "Node") is None


def test_a_pickled_object_is_found_again(db: DB, storage: MappingStorage) -> None:
    session = Session(db)
    session.root["x"] = node = Node(child=Node(name="child"))
    session.commit()
    data = storage.load(node._p_oid, "")[0].replace(b"tests.client.objects\nNode", b"old.place.of\nItem")
    write(storage, {node._p_oid: data})
    register_alias("old.place.of.Item", Node)
    found = Session(db).conn.get(node._p_oid)
    assert type(found) is Node
    assert type(found.child) is Node
    assert found.child.name == "child"
    found.name = "new"
    found._p_jar.transaction_manager.commit()
    assert b"old.place" not in storage.load(node._p_oid, "")[0]


def test_an_object_with_a_message_is_found_again_and_by_references(db: DB, storage: MappingStorage) -> None:
    register()
    session = Session(db)
    session.root["bob"] = bob = Person(name="Bob", spouse=Person(name="Alice"))
    session.commit()
    place = b"tests.client.protobuf.classes"
    old = {
        each._p_oid: storage.load(each._p_oid, "")[0].replace(place, b"x" * len(place)) for each in (bob, bob.spouse)
    }
    root = session.conn.root()
    root_data = storage.load(root._p_oid, "")[0]
    write(storage, old | {root._p_oid: root_data.replace(place, b"x" * len(place))})
    register_alias(f"{'x' * len(place)}.Person", Person)
    found = Session(db).root["bob"]
    assert (type(found), type(found.spouse), found.name, found.spouse.name) == (Person, Person, "Bob", "Alice")


def test_a_class_that_is_there_goes_before_an_alias(db: DB) -> None:
    register_alias("tests.client.protobuf.classes.Person", Node)
    session = Session(db)
    session.root["x"] = Person()
    session.commit()
    assert type(Session(db).root["x"]) is Person


@pytest.mark.parametrize("name", ["Person", "", ".Person", "module."])
def test_an_alias_is_a_module_and_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="an alias is a module and a name"):
        register_alias(name, Person)
