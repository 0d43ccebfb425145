"""Plain Python values for fields of every kind."""

import datetime
from typing import Any

import pytest

from tests.client.objects import state_of
from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB, Phone, Ref
from zeo_client.protobuf.assignment import assign, fill, is_map, new_element, new_entry, refer, target_of
from zeo_client.protobuf.state import Held

BORN = datetime.datetime(2001, 2, 3, 4, 5, 6)


def field(name: str) -> Any:
    return PersonPB.DESCRIPTOR.fields_by_name[name]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("name", "Bob", PersonPB(name="Bob")),
        ("status", 1, PersonPB(status=PersonPB.ACTIVE)),
        ("status", "ACTIVE", PersonPB(status=PersonPB.ACTIVE)),
        (
            "phone",
            {"number": "1", "forwarded_to": {"number": "2"}},
            PersonPB(phone={"number": "1", "forwarded_to": {"number": "2"}}),
        ),
        ("phone", {}, PersonPB(phone={})),
        ("phone", Phone(number="1"), PersonPB(phone={"number": "1"})),
        ("phone", {"number": None, "tags": ("a",)}, PersonPB(phone={"tags": ["a"]})),
        ("numbers", (1, 2), PersonPB(numbers=[1, 2])),
        ("phones", [{"number": "1"}, Phone(number="2")], PersonPB(phones=[{"number": "1"}, {"number": "2"}])),
        ("scores", {"a": 1}, PersonPB(scores={"a": 1})),
        ("phone_book", {"a": {"number": "1"}}, PersonPB(phone_book={"a": {"number": "1"}})),
        ("born", BORN, PersonPB(born=BORN)),
        ("commute", datetime.timedelta(hours=1), PersonPB(commute=datetime.timedelta(hours=1))),
        ("settings", {"a": [1, None, {"b": True}]}, PersonPB(settings={"a": [1, None, {"b": True}]})),
        ("title", "Dr", PersonPB(title={"value": "Dr"})),
        ("relations", [{"kind": "aunt"}], PersonPB(relations=[{"kind": "aunt"}])),
    ],
)
def test_a_field_takes_what_stands_for_it(bob: Person, name: str, value: Any, message: Any) -> None:
    made = PersonPB(phone={"number": "old", "tags": ["x"]}, numbers=[7], scores={"old": 1})
    made.ClearField(name) if name not in ("phone", "numbers", "scores") else None
    assign(made, field(name), value, Held(None, {}), live=True)
    assert getattr(made, name) == getattr(message, name)
    assert message.HasField(name) == made.HasField(name) if field(name).has_presence else True
    setattr(bob, name, value)
    assert getattr(bob.protobuf, name) == getattr(message, name)
    bob._p_changed = False
    setattr(bob, name, value)
    assert state_of(bob) == "clean"


@pytest.mark.parametrize("name", ["phone", "born", "pager", "title", "settings"])
def test_none_unsets_a_message(bob: Person, name: str) -> None:
    getattr(bob.protobuf, name).SetInParent()
    setattr(bob, name, None)
    assert not bob.protobuf.HasField(name)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("name", 1, TypeError),
        ("name", None, TypeError),
        ("age", "x", TypeError),
        ("age", 1 << 40, ValueError),
        ("phone", "x", TypeError),
        ("phone", PersonPB(), TypeError),
        ("phone", {"colour": "red"}, AttributeError),
        ("phone", {"number": 1}, TypeError),
        ("numbers", 1, TypeError),
        ("numbers", "12", TypeError),
        ("numbers", None, TypeError),
        ("numbers", ["x"], TypeError),
        ("phones", {"number": "1"}, TypeError),
        ("phones", [1], TypeError),
        ("scores", [1], TypeError),
        ("scores", {"a": "x"}, TypeError),
        ("phone_book", {"a": 1}, TypeError),
        ("title", 1, TypeError),
    ],
)
def test_what_does_not_fit_changes_nothing(bob: Person, name: str, value: Any, error: type[Exception]) -> None:
    before = bob.protobuf.SerializeToString()
    with pytest.raises(error):
        setattr(bob, name, value)
    assert state_of(bob) == "clean"
    bob._p_changed = True
    with pytest.raises(error):
        setattr(bob, name, value)
    assert bob.protobuf.SerializeToString() == before


def test_a_dictionary_may_hold_objects(bob: Person) -> None:
    alice = Person(name="Alice")
    bob.phone = {"number": "1", "owner": alice}
    bob.phones = [{"owner": alice}]
    bob.relatives = {"aunt": alice}
    assert bob.phone.owner is bob.phones[0].owner is bob.relatives["aunt"] is alice
    assert list(bob.__getstate__()[1].values()) == [alice]


def test_who_holds_the_message_of_a_field_keeps_a_part_of_the_state(bob: Person) -> None:
    bob.phone = {"number": "1"}
    phone = bob.phone
    bob.phone = {"number": "2"}
    assert phone.number == "2"
    phone.number = "3"
    assert bob.phone.number == "3"


def test_a_field_can_be_given_a_part_of_itself(bob: Person) -> None:
    bob.phone = {"number": "1", "forwarded_to": {"number": "2"}}
    bob.phone = bob.phone.forwarded_to
    assert bob.phone == Phone(number="2")
    bob.phones = [{"number": "1"}, {"number": "2"}]
    bob.phones = bob.phones[::-1]
    assert [each.number for each in bob.phones] == ["2", "1"]


def test_messages_are_filled_by_name() -> None:
    person = PersonPB()
    fill(person, {"name": "Bob", "age": None, "numbers": [1]}, Held(None, {}), live=True)
    assert person == PersonPB(name="Bob", numbers=[1])
    with pytest.raises(AttributeError, match="PersonPB has no field 'size'"):
        fill(person, {"size": 1}, Held(None, {}), live=True)


def test_kinds_of_fields_and_parts_of_them() -> None:
    held = Held(None, {})
    assert [is_map(field(name)) for name in ("scores", "phone_book", "phones", "numbers", "name")] == [1, 1, 0, 0, 0]
    assert new_element(PersonPB(), "phones", {"number": "1"}, held, True) == Phone(number="1")
    assert new_entry(PersonPB(), "phone_book", {"number": "1"}, held, True) == Phone(number="1")
    ref, target = Ref(), object()
    refer(ref, target, held)
    assert target_of(ref, held) is target
    refer(ref, None, held)
    assert target_of(ref, held) is None
    refer(ref, Ref(_p_refid=1), held)
    assert target_of(ref, held) is target
