"""Messages in an object's state, as programs see them."""

import copy
import pickle
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from tests.client.objects import state_of
from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB, Phone
from zeo_client.protobuf.messages import plain


@pytest.fixture
def phone(bob: Person) -> Any:
    bob.phone = {"number": "1", "tags": ["home"]}
    bob._p_changed = False
    return bob.phone


def test_a_view_is_what_the_message_is(phone: Any) -> None:
    message = Phone(number="1", tags=["home"])
    assert isinstance(phone, Phone)
    assert isinstance(phone, Message)
    assert phone == message
    assert message == phone
    assert phone != Phone()
    assert (repr(phone), str(phone)) == (repr(message), str(message))
    assert set(dir(message)) == set(dir(phone))
    assert phone.DESCRIPTOR is Phone.DESCRIPTOR
    with pytest.raises(TypeError):
        hash(phone)


def test_reading_changes_nothing(bob: Person, phone: Any) -> None:
    assert phone.SerializeToString() == phone.SerializePartialToString() == b"\n\x011\x1a\x04home"
    assert phone.ByteSize() == 9
    assert phone.HasField("number")
    assert not phone.HasField("owner")
    assert bob.protobuf.WhichOneof("reached_by") is None
    assert phone.IsInitialized()
    assert [field.name for field, _ in phone.ListFields()] == ["number", "tags"]
    assert bob.protobuf.ACTIVE == PersonPB.ACTIVE
    assert bob.protobuf.NAME_FIELD_NUMBER == 1
    assert bob.protobuf.Status.Name(1) == "ACTIVE"
    assert json_format.MessageToDict(phone) == {"number": "1", "tags": ["home"]}
    assert text_format.MessageToString(phone) == 'number: "1"\ntags: "home"\n'
    assert state_of(bob) == "clean"


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda view: view.ClearField("number"), True),
        (lambda view: view.ClearField("owner"), False),
        (lambda view: view.Clear(), True),
        (lambda view: view.SetInParent(), False),
        (lambda view: view.forwarded_to.SetInParent(), True),
        (lambda view: view.MergeFrom(Phone()), False),
        (lambda view: view.MergeFrom(Phone(tags=["x"])), True),
        (lambda view: view.CopyFrom(Phone(number="1", tags=["home"])), False),
        (lambda view: view.CopyFrom(Phone(number="1")), True),
        (lambda view: view.CopyFrom(view), False),
        (lambda view: view.ParseFromString(b"\n\x011\x1a\x04home"), False),
        (lambda view: view.MergeFromString(b"\n\x012"), True),
        (lambda view: view.DiscardUnknownFields(), False),
        (lambda view: setattr(view, "number", "1"), False),
        (lambda view: setattr(view, "number", "2"), True),
    ],
)
def test_changing_does_what_it_does_to_the_message_and_is_told(
    bob: Person, phone: Any, change: Any, changed: bool
) -> None:
    message = copy.deepcopy(phone)
    change(message)
    change(phone)
    assert phone == message
    assert state_of(bob) == ("changed" if changed else "clean")


def test_a_copy_is_a_message_that_stands_alone(bob: Person, phone: Any) -> None:
    for made in (copy.deepcopy(phone), copy.copy(phone), pickle.loads(pickle.dumps(Person().protobuf))):
        assert plain(made) is made
        made.Clear()
    assert phone.number == "1"
    assert state_of(bob) == "clean"


def test_a_message_can_be_copied_from_a_view(bob: Person, phone: Any) -> None:
    bob.phones.append(phone)
    bob.phones[0].forwarded_to.CopyFrom(phone)
    bob.phones[0].forwarded_to.MergeFrom(phone)
    assert bob.phones[0].forwarded_to.tags == ["home", "home"]
    with pytest.raises(TypeError):
        phone.CopyFrom(bob.protobuf)


def test_what_the_schema_lacks_is_an_error(bob: Person, phone: Any) -> None:
    with pytest.raises(AttributeError, match="Phone has no field 'colour'"):
        phone.colour = "red"
    with pytest.raises(AttributeError, match="colour"):
        phone.colour  # noqa: B018
    with pytest.raises(TypeError):
        phone.number = 1
    with pytest.raises(AttributeError, match="use ClearField"):
        del phone.number
    assert state_of(bob) == "clean"


@pytest.mark.parametrize("name", ["Extensions", "HasExtension", "ClearExtension", "_SetListener"])
def test_what_would_change_the_message_unseen_is_not_offered(phone: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(phone, name)


def test_googles_own_types_keep_their_methods(bob: Person) -> None:
    bob.born.FromJsonString("2020-01-01T00:00:00Z")
    assert state_of(bob) == "changed"
    bob._p_changed = False
    assert bob.born.ToSeconds() == 1577836800
    bob.commute.FromSeconds(0)
    assert bob.protobuf.HasField("commute")
