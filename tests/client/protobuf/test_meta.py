"""Classes with a message for a state: how they are declared, and what their objects are."""

import copy
import pickle
from typing import Any

import pytest
from google.protobuf.message import EncodeError
from persistent import Persistent

from tests.client.objects import Session, state_of
from tests.client.protobuf import classes
from tests.client.protobuf.classes import PContact, Person
from tests.client.protobuf.schemas import ContactPB, EarlyPersonPB, PersonPB
from zeo_client.protobuf import BrokenReferenceError, ProtobufPersistent, ProtobufState, StateTuple
from zeo_client.protobuf.meta import ProtobufObject
from zeo_core.errors import StateLoadError


class Plain(metaclass=ProtobufState):
    """Not persistent."""

    protobuf_type = PersonPB
    protobuf_mixins = ("phone",)

    protobuf: Any
    number: Any
    phone: Any
    name: Any
    friends: Any
    protobuf_refs: Any
    protobuf_live_references: Any


def test_a_class_needs_a_type_of_messages() -> None:
    with pytest.raises(TypeError, match=r"Class .*test_meta\..*Failed needs a protobuf_type attribute"):

        class Failed(metaclass=ProtobufState):
            pass


def test_a_class_can_be_abstract_and_its_subclasses_concrete() -> None:
    class Base(ProtobufPersistent, abstract=True):
        def shout(self) -> str:
            return str(self.name).upper()

    class Derived(Base, message=PersonPB):
        pass

    class Further(Derived):
        __slots__ = ("_v_cache",)

        @property
        def name(self) -> str:
            return "further"

    assert Derived(name="bob").shout() == "BOB"
    further = Further()
    further.protobuf.name = "bob"
    further._v_cache = 7
    assert (further.name, further._v_cache, further.protobuf_type) == ("further", 7, PersonPB)


def test_objects_have_the_fields_and_nothing_else(bob: Person) -> None:
    for obj in (Person(), Plain(), PContact()):
        with pytest.raises(AttributeError, match="has no attribute 'colour'"):
            setattr(obj, "colour", "red")  # noqa: B010 - which type checkers refuse
        with pytest.raises(AttributeError, match="can't delete attribute 'name'"):
            del obj.name
        assert not hasattr(obj, "__dict__")
    with pytest.raises(AttributeError, match="'Person' object has no attribute 'colour'"):
        Person(colour="red")
    with pytest.raises(AttributeError):
        del bob.name
    with pytest.raises(AttributeError):
        bob.colour = "red"
    assert isinstance(Person.name, object)
    assert isinstance(bob, ProtobufObject)


def test_a_base_with_a_dictionary_does_not_open_the_schema() -> None:
    class Base:
        def set_name(self, name: str) -> None:
            self.name = name

    class Derived(Base, Persistent, metaclass=ProtobufState):
        protobuf_type = PersonPB

    obj = Derived()
    obj.set_name("Bob")
    obj._v_cache = 1
    assert obj.protobuf.name == "Bob"
    with pytest.raises(AttributeError, match="'Derived' object has no attribute 'colour'"):
        obj.colour = "red"


def test_properties_of_the_class_can_be_set(bob: Person) -> None:
    class Shouting(Person):
        @property
        def loud(self) -> str:
            return str(self.name)

        @loud.setter
        def loud(self, value: str) -> None:
            self.name = value.upper()

    obj = Shouting()
    obj.loud = "bob"
    assert obj.name == "BOB"


def test_fields_that_are_named_as_members_are_in_the_message_only() -> None:
    from tests.protobuf_schemas import message, message_class, proto2_file

    schema = proto2_file(
        "odd.proto", "zeod.test.odd", message("Odd", "optional string protobuf = 1", "optional string _p_oid = 2")
    )

    class Odd(ProtobufPersistent, message=message_class(schema, "Odd")):
        pass

    odd = Odd()
    odd.protobuf.protobuf = "x"
    odd.protobuf._p_oid = "y"
    assert odd._p_oid is None
    assert odd.__getstate__()[0] == b"\n\x01x\x12\x01y"


def test_mixins_lift_the_fields_of_a_message(bob: Person) -> None:
    plain = Plain()
    plain.number = "1"
    assert plain.phone.number == plain.number == "1"
    assert not hasattr(plain, "_p_changed")
    with pytest.raises(AttributeError, match="can't delete"):
        del plain.number

    class Mixed(Person):
        protobuf_mixins = ("phone",)

    assert Mixed(number="1", name="x").protobuf == PersonPB(name="x", phone={"number": "1"})
    mixed = Mixed()
    mixed.__setstate__(bob.__getstate__())
    mixed._p_jar, mixed._p_oid = bob._p_jar, b"12345678"
    mixed.number = ""
    assert state_of(mixed) == "changed"


@pytest.mark.parametrize("name", ["bogus", "name", "phones"])
def test_a_mixin_is_a_field_with_a_message(name: str) -> None:
    with pytest.raises(AttributeError, match=f"Field '{name}' not defined for protobuf type"):

        class Mixed(metaclass=ProtobufState):
            protobuf_type = PersonPB
            protobuf_mixins = (name,)


def test_the_state_is_the_message_and_the_targets_in_use(bob: Person) -> None:
    alice = Person(name="Alice")
    bob.friends = [alice, bob]
    del bob.friends[1]
    state = bob.__getstate__()
    assert type(state) is StateTuple
    assert state == (b"\n\x03Bobr\x02\x08\x01", {1: alice})
    again = Person.__new__(Person)
    again.__setstate__(tuple(state))
    assert again.friends[0] is alice
    again.friends.append(bob)
    assert bob.friends == [alice]


def test_required_fields_must_be_there() -> None:
    contact = PContact()
    with pytest.raises(EncodeError, match="name"):
        contact.__getstate__()


def test_a_reference_without_a_target_in_the_object_is_an_error() -> None:
    one, other = Plain(), Plain()
    one.friends.add()
    other.protobuf_refs.set(one.friends[0], other)
    with pytest.raises(BrokenReferenceError, match=r"Object contains broken references: <.*Plain object at") as caught:
        one.__getstate__()
    assert caught.value.refids == (1,)


def test_a_state_that_was_pickled_before_becomes_the_message(bob: Person) -> None:
    person = Person.__new__(Person)
    person.__setstate__({"name": "Bob", "numbers": [1], "spouse": bob, "phone": {"number": "1"}})
    assert (
        person.protobuf.SerializeToString()
        == Person(name="Bob", numbers=[1], spouse=bob, phone={"number": "1"}).protobuf.SerializeToString()
    )
    assert person.spouse is bob
    with pytest.raises(AttributeError, match="no field 'colour'"):
        person.__setstate__({"colour": "red"})


def test_unknown_fields_survive() -> None:
    late = Person(name="Bob", age=7, phone={"number": "1", "tags": ["x"]})

    class Early(ProtobufPersistent, message=EarlyPersonPB):
        pass

    early = Early()
    early.__setstate__(late.__getstate__())
    early.name = "Robert"
    early.phone.number = "2"
    late.__setstate__(early.__getstate__())
    assert late.protobuf == PersonPB(name="Robert", age=7, phone={"number": "2", "tags": ["x"]})


def test_objects_are_copied_and_pickled() -> None:
    plain = Plain()
    plain.name = "Bob"
    for made in (copy.copy(plain), copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        made.phone.number = "1"
        assert (made.name, plain.phone.number) == ("Bob", "")


def test_attributes_load_a_ghost_and_mark_what_they_change(bob: Person, session: Session) -> None:
    for name, value in (("name", "x"), ("phone", {"number": "1"}), ("age", 3)):
        bob._p_deactivate()
        assert state_of(bob) == "ghost"
        setattr(bob, name, value)
        assert state_of(bob) == "changed"
        session.commit()
        bob._p_deactivate()
        setattr(bob, name, value)
        assert state_of(bob) == "clean"


def test_a_state_that_is_none_is_an_error_that_names_the_object(bob: Person) -> None:
    data = b"{protobuf}\n\x25\n\x1ctests.client.protobuf.classes\x12\x06Person\x12\x01\n"
    with pytest.raises(StateLoadError, match=r"tests\.client\.protobuf\.classes\.Person"):
        bob._p_jar._reader.set_state(bob, data)


def test_contacts_are_of_both_kinds_of_declaration() -> None:
    assert classes.PContact.protobuf_type is ContactPB
    assert (PContact.protobuf_live_references, Plain.protobuf_live_references) == (True, False)
