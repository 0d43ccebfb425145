"""The documented session of keas.pbstate, on Python 3: classes with a message for a state, without any database."""

import time
from typing import Any

import pytest
from google.protobuf.message import EncodeError

from tests.client.protobuf.schemas import ContactPB
from zeo_client.protobuf import ProtobufReferences, ProtobufState, StateTuple


class Contact(metaclass=ProtobufState):
    """As in the session."""

    protobuf_type = ContactPB

    def __init__(self) -> None:
        self.create_time = int(time.time())


class MixedContact(metaclass=ProtobufState):
    """With the fields of the address too."""

    protobuf_type = ContactPB
    protobuf_mixins = ("address",)


class FakePersistent:
    """Has _p_changed, and nothing else of persistent's."""

    __slots__ = ("_changed",)

    @property
    def _p_changed(self) -> bool:
        return getattr(self, "_changed", False)

    @_p_changed.setter
    def _p_changed(self, value: bool) -> None:
        self._changed = value
        if not value:
            self.protobuf.ByteSize()  # type: ignore[attr-defined]


class PersistentContact(FakePersistent, metaclass=ProtobufState):
    """Is told of its changes."""

    protobuf_type = ContactPB


@pytest.fixture
def c() -> Any:
    contact: Any = Contact()
    contact.name = "John Doe"
    contact.address.line1 = "100 First Avenue"
    contact.address.country = "Canada"
    contact.address.city = "Toronto"
    contact.create_time = 1001
    return contact


@pytest.fixture
def c2() -> Any:
    contact: Any = Contact()
    contact.create_time = 1002
    contact.name = "Mary Anne"
    return contact


def test_an_instance_has_the_attributes_of_the_message() -> None:
    contact: Any = Contact()
    assert contact.create_time > 0
    assert (contact.name, contact.address.line1, contact.address.country) == ("", "", "United States")
    assert isinstance(contact.protobuf, ContactPB)
    assert contact.protobuf_type is ContactPB
    assert isinstance(contact.protobuf_refs, ProtobufReferences)


def test_attributes_are_set_and_checked(c: Any) -> None:
    assert (c.name, c.address.country) == ("John Doe", "Canada")
    with pytest.raises(TypeError):
        c.name = 100
    assert c.name == "John Doe"
    with pytest.raises(AttributeError, match="'Contact' object has no attribute 'phone'"):
        c.phone = "555-1234"


def test_a_mixin() -> None:
    mc: Any = MixedContact()
    mc.line1 = "180 Market St."
    assert (mc.line1, mc.address.line1) == ("180 Market St.", "180 Market St.")
    with pytest.raises(AttributeError):
        del mc.line1


def test_serialization(c: Any, c2: Any) -> None:
    incomplete: Any = Contact()
    incomplete.name = "John Doe"
    incomplete.address.line1 = "100 First Avenue"
    with pytest.raises(EncodeError, match="city"):
        incomplete.__getstate__()
    expected = b"\x08\xe9\x07\x12\x08John Doe\x1a#\n\x10100 First Avenue\x1a\x07Toronto2\x06Canada"
    assert c.__getstate__() == (expected, {})
    c_dup: Any = Contact.__new__(Contact)
    c_dup.__setstate__(c.__getstate__())
    assert (c_dup.name, c_dup.address.country) == ("John Doe", "Canada")
    assert c2.__getstate__() == (b"\x08\xea\x07\x12\tMary Anne", {})
    assert (type(c.__getstate__()), c.__getstate__().serial_format) == (StateTuple, "protobuf")


def test_references(c: Any, c2: Any) -> None:
    guardian_ref = c2.guardians.add()
    c2.protobuf_refs.set(guardian_ref, c)
    assert c2.protobuf_refs.get(guardian_ref) is c
    _, targets = c2.__getstate__()
    assert targets[c2.guardians[0]._p_refid] is c
    c2.protobuf_refs.delete(guardian_ref)
    assert c2.protobuf_refs.get(guardian_ref, "gone") == "gone"
    _, targets = c2.__getstate__()
    assert len(targets) == 0


def test_changes_are_told() -> None:
    c3: Any = PersistentContact()
    assert c3._p_changed is False
    c3.create_time = 1003
    c3.name = "Snoopy"
    c3._p_changed = False
    assert (c3.name, c3._p_changed) == ("Snoopy", False)
    c3.name = "Woodstock"
    assert c3._p_changed is True
    c3._p_changed = False
    c3.guardians.add()
    assert c3._p_changed is True
    del c3.guardians[0]
    c4: Any = PersistentContact.__new__(PersistentContact)
    c4.__setstate__(c3.__getstate__())
    assert c4._p_changed is False
    c4.name = "Linus"
    assert c4._p_changed is True


def test_numbers_of_references_do_not_collide(c: Any, c2: Any) -> None:
    guardian_ref = c2.guardians.add()
    c2.protobuf_refs.set(guardian_ref, c)
    c2.protobuf_refs._targets[guardian_ref._p_refid] = MixedContact()
    guardian2_ref = c2.guardians.add()
    c2.protobuf_refs.set(guardian2_ref, c)
    assert guardian_ref._p_refid != guardian2_ref._p_refid


def test_what_is_not_allowed(c: Any, c2: Any) -> None:
    with pytest.raises(AttributeError):
        del c.name
    with pytest.raises(AttributeError, match="Field 'bogus' not defined for protobuf type"):

        class MixedUpContact(metaclass=ProtobufState):
            protobuf_type = ContactPB
            protobuf_mixins = ("bogus",)

    c.guardians.add()
    c2.protobuf_refs.set(c.guardians[0], c)
    with pytest.raises(KeyError, match=r"Object contains broken references: <.*Contact object at"):
        c.__getstate__()
    del c.guardians[0]
    assert c.__getstate__()[1] == {}
    with pytest.raises(TypeError, match="FailedContact needs a protobuf_type attribute"):

        class FailedContact(metaclass=ProtobufState):
            pass
