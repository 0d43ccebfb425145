"""The state in memory: the message, and the numbers of what it refers to."""

import copy
import pickle

import pytest

from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB
from zeo_client.protobuf.state import SLOT, Held, StateTuple, held_of, hold

MAX_REFID = (1 << 32) - 1


def test_each_target_has_one_number() -> None:
    held = Held(None, {})
    first, second = object(), object()
    assert [held.refid_of(each) for each in (first, second, first)] == [1, 2, 1]
    assert held.targets == {1: first, 2: second}


def test_equal_targets_are_told_apart() -> None:
    held = Held(None, {})
    assert held.refid_of([]) != held.refid_of([])


def test_numbers_of_others_are_kept_whatever_they_are() -> None:
    known, other, fresh = object(), object(), object()
    held = Held(None, {MAX_REFID: known, 1: other})
    assert held.refid_of(known) == MAX_REFID
    assert held.refid_of(fresh) == 2


def test_a_number_whose_target_was_exchanged_is_not_used_for_the_one_before() -> None:
    held = Held(None, {})
    first, second = object(), object()
    refid = held.refid_of(first)
    held.targets[refid] = second
    assert held.refid_of(first) != refid


def test_a_state_is_pickled_as_a_plain_pair() -> None:
    state = StateTuple((b"x", {1: "target"}))
    assert state.serial_format == "protobuf"
    assert b"zeo_client" not in pickle.dumps(state)
    restored = pickle.loads(pickle.dumps(state))
    assert type(restored) is tuple
    assert restored == state
    assert copy.copy(state) == state


def test_an_object_made_without_init_has_an_empty_message() -> None:
    person = Person.__new__(Person)
    assert held_of(person).message == PersonPB()
    assert held_of(person) is held_of(person)


def test_a_state_is_given_without_a_change(bob: Person) -> None:
    hold(bob, Held(PersonPB(name="Robert"), {}))
    assert bob.name == "Robert"
    assert not bob._p_changed


def test_a_ghost_loses_its_state(bob: Person) -> None:
    slot = getattr(Person, SLOT)
    assert slot.__get__(bob).message.name == "Bob"
    bob._p_deactivate()
    assert bob._p_changed is None
    with pytest.raises(AttributeError):
        slot.__get__(bob)
    assert bob.name == "Bob"
