"""References that are shown as the objects that they lead to."""

from typing import Any

import pytest

from tests.client.objects import Session, state_of
from tests.client.protobuf.classes import Person
from zeo_client.db import DB


@pytest.fixture
def people() -> list[Person]:
    return [Person(name=name) for name in ("Alice", "Carol", "Dave")]


def test_a_list_of_objects_behaves_as_one(bob: Person, people: list[Person]) -> None:
    alice, carol, dave = people
    bob.friends.append(alice)
    bob.friends.extend([carol, dave])
    assert bob.friends[0] is alice
    assert [each.name for each in bob.friends] == ["Alice", "Carol", "Dave"]
    assert bob.friends[1:] == [carol, dave]
    assert bob.friends == people
    assert bob.friends != people[:2]
    assert bob.friends != 1
    assert carol in bob.friends
    assert bob not in bob.friends
    bob.friends[0] = dave
    bob.friends[1:2] = [alice, alice]
    assert list(bob.friends) == [dave, alice, alice, dave]
    assert (bob.friends.index(alice), bob.friends.index(alice, 2), bob.friends.count(dave)) == (1, 2, 2)
    with pytest.raises(ValueError, match="no reference to"):
        bob.friends.index(carol)
    bob.friends.remove(alice)
    assert bob.friends.pop() is dave
    del bob.friends[:1]
    bob.friends.insert(0, bob)
    assert list(bob.friends) == [bob, alice]
    bob.friends.sort(key=lambda each: each.name)
    assert list(bob.friends) == [alice, bob]
    bob.friends.reverse()
    bob.friends += [carol]
    assert list(bob.friends) == [bob, alice, carol]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda friends, alice: friends.append(alice), True),
        (lambda friends, alice: friends.__setitem__(0, alice), False),
        (lambda friends, alice: friends.__setitem__(0, friends[1]), True),
        (lambda friends, alice: friends.__setitem__(slice(None), list(friends)), False),
        (lambda friends, alice: [*friends, alice in friends, friends.index(alice), friends[:1]], False),
        (lambda friends, alice: friends.clear(), True),
    ],
)
def test_a_change_of_the_list_is_told(bob: Person, people: list[Person], change: Any, changed: bool) -> None:
    bob.friends = people
    bob._p_changed = False
    change(bob.friends, people[0])
    assert state_of(bob) == ("changed" if changed else "clean")


def test_a_field_is_the_object_or_none(bob: Person, people: list[Person]) -> None:
    alice, carol, _ = people
    assert bob.spouse is None
    bob.spouse = alice
    assert bob.spouse is alice
    bob._p_changed = False
    bob.spouse = alice
    assert state_of(bob) == "clean"
    bob.spouse = carol
    assert state_of(bob) == "changed"
    bob.spouse = None
    assert not bob.protobuf.HasField("spouse")
    bob._p_changed = False
    bob.spouse = None
    assert state_of(bob) == "clean"


def test_objects_are_shown_in_parts_too(bob: Person, people: list[Person]) -> None:
    alice, carol, dave = people
    bob.phone = {"number": "1", "owner": alice}
    bob.phones.add(number="2", owner=carol)
    bob.phone_book["x"].owner = dave
    assert (bob.phone.owner, bob.phones[0].owner, bob.phone_book["x"].owner) == (alice, carol, dave)
    assert bob.protobuf.phone.owner._p_refid == 1


def test_a_map_to_objects_behaves_as_a_dictionary(bob: Person, people: list[Person]) -> None:
    alice, carol, _ = people
    bob.relatives["aunt"] = alice
    bob.relatives = {**bob.relatives, "cousin": carol}
    assert bob.relatives["aunt"] is alice
    assert dict(bob.relatives) == {"aunt": alice, "cousin": carol}
    bob._p_changed = False
    with pytest.raises(KeyError):
        bob.relatives["uncle"]
    assert bob.relatives.get("uncle") is None
    bob.relatives["aunt"] = alice
    assert state_of(bob) == "clean"
    assert bob.relatives.pop("aunt") is alice
    assert state_of(bob) == "changed"
    assert list(bob.relatives.values()) == [carol]


def test_a_oneof_takes_an_object(bob: Person, people: list[Person]) -> None:
    bob.email = "bob@example.org"
    bob.assistant = people[0]
    assert (bob.email, bob.assistant is people[0], bob.protobuf.WhichOneof("reached_by")) == ("", True, "assistant")
    bob.pager = {"number": "7"}
    assert (bob.assistant, bob.pager.number) == (None, "7")
    bob.email = "bob@example.org"
    looked_at = bob.pager
    for _ in range(2):
        bob._p_changed = False
        bob.pager = None
        bob.protobuf.ClearField("pager")
        assert (bob.email, state_of(bob), looked_at.number) == ("bob@example.org", "clean", "")
    bob.protobuf.ClearField("reached_by")
    assert (bob.email, state_of(bob)) == ("", "changed")


def test_references_without_a_target_are_none(bob: Person) -> None:
    ref = bob.friends.add()
    assert list(bob.friends) == [None]
    bob.protobuf_refs.set(ref, bob)
    assert bob.friends[0] is bob
    bob.friends.append(None)
    bob.friends[0] = None
    assert list(bob.friends) == [None, None]


def test_reference_messages_can_be_given_too(bob: Person, people: list[Person]) -> None:
    bob.friends = people
    bob.spouse = bob.protobuf.friends[1]
    bob.friends.append(bob.protobuf.friends[2])
    assert (bob.spouse, bob.friends[-1]) == (people[1], people[2])


def test_the_objects_come_back_from_the_database(db: DB, session: Session, bob: Person, people: list[Person]) -> None:
    alice, carol, dave = people
    bob.friends = people
    bob.spouse = alice
    bob.relatives["x"] = dave
    bob.phone.owner = carol
    session.commit()
    other = Session(db).root["bob"]
    assert [each.name for each in other.friends] == ["Alice", "Carol", "Dave"]
    assert other.spouse is other.friends[0]
    assert other.relatives["x"] is other.friends[2]
    assert other.phone.owner is other.friends[1]
    assert other.spouse._p_jar is other._p_jar
    assert state_of(other) == "clean"


def test_classes_can_have_references_as_messages(bob: Person) -> None:
    class Plainer(Person):
        protobuf_live_references = False

    person = Plainer()
    person.protobuf_refs.set(person.friends.add(), bob)
    assert person.friends[0]._p_refid == 1
    assert not person.protobuf.HasField("spouse")
    with pytest.raises(TypeError, match="Ref wants a message of its type"):
        person.spouse = bob
