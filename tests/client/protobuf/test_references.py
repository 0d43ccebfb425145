"""Targets of reference messages: set, asked for, deleted."""

import pytest

from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import Phone


def test_a_reference_is_set_found_and_deleted(bob: Person) -> None:
    alice = Person(name="Alice")
    ref = bob.friends.add()
    assert bob.protobuf_refs.get(ref) is None
    bob.protobuf_refs.set(ref, alice)
    assert bob.protobuf_refs.get(ref) is alice
    assert bob.friends[0] is alice
    bob.protobuf_refs.delete(ref)
    assert bob.protobuf_refs.get(ref, "gone") == "gone"
    assert bob.__getstate__()[1] == {}


def test_setting_marks_the_object_unless_nothing_changes(bob: Person) -> None:
    alice = Person()
    ref = bob.protobuf.friends.add()
    for target, changed in ((alice, True), (alice, False), (Person(), True)):
        bob._p_changed = False
        bob.protobuf_refs.set(ref, target)
        assert bob._p_changed is changed


def test_what_is_shown_in_the_place_of_a_reference_is_taken_as_it_is(bob: Person) -> None:
    alice = Person()
    bob.friends.append(alice)
    assert bob.protobuf_refs.get(bob.friends[0]) is alice
    assert bob.protobuf_refs.get(bob.protobuf.friends[0]) is alice
    assert bob.protobuf_refs.get(bob.spouse, "nobody") == "nobody"


def test_references_that_say_more_are_messages(bob: Person) -> None:
    alice = Person()
    relation = bob.relations.add(kind="neighbour")
    bob.protobuf_refs.set(relation, alice)
    assert bob.relations[0].kind == "neighbour"
    assert bob.protobuf_refs.get(bob.relations[0]) is alice


@pytest.mark.parametrize("wrong", [None, Phone(), {}, "x"])
def test_only_a_reference_message_can_be_given_a_target(bob: Person, wrong: object) -> None:
    with pytest.raises(TypeError, match="a reference message is wanted"):
        bob.protobuf_refs.set(wrong, bob)
    with pytest.raises(TypeError, match="a reference message is wanted"):
        bob.protobuf_refs.delete(wrong)
