"""The fields of a type, by kind."""

from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB
from zeo_client.protobuf import fields
from zeo_client.protobuf.live import LiveReferenceMap, LiveReferences
from zeo_client.protobuf.maps import MapOfMessages, MapOfScalars
from zeo_client.protobuf.messages import MessageView
from zeo_client.protobuf.nodes import RootNode
from zeo_client.protobuf.repeated import RepeatedMessages, RepeatedScalars


def test_each_kind_of_field_is_shown_in_its_way() -> None:
    person = Person()
    person.spouse = person
    kinds = {name: type(access) for name, access in fields.fields_of(PersonPB.DESCRIPTOR).items()}
    shown = {name: type(getattr(person, name)) for name in kinds}
    expected = {
        "name": (fields.ScalarField, str),
        "status": (fields.ScalarField, int),
        "numbers": (fields.RepeatedField, RepeatedScalars),
        "phone": (fields.MessageField, MessageView),
        "phones": (fields.RepeatedMessageField, RepeatedMessages),
        "scores": (fields.MapField, MapOfScalars),
        "phone_book": (fields.MessageMapField, MapOfMessages),
        "spouse": (fields.MessageField, Person),
        "friends": (fields.RepeatedMessageField, LiveReferences),
        "relatives": (fields.MessageMapField, LiveReferenceMap),
        "relations": (fields.RepeatedMessageField, RepeatedMessages),
        "born": (fields.MessageField, MessageView),
    }
    assert {name: (kinds[name], shown[name]) for name in expected} == expected


def test_references_are_messages_where_they_are_not_live() -> None:
    view = fields.view_of(RootNode(Person(), live=False))
    assert type(view.spouse) is MessageView
    assert type(view.friends) is RepeatedMessages
    assert type(view.relatives) is MapOfMessages


def test_the_fields_of_a_type_are_made_once() -> None:
    assert fields.fields_of(PersonPB.DESCRIPTOR) is fields.fields_of(PersonPB.DESCRIPTOR)
